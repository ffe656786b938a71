//! Functions that are started by sensors and lines, and use them, on the simulator.

use std::time::Duration;

use holm_tests::eventually;
use holm_tests::functions::{self, Guest};
use holm_tests::node::{Node, Start, log};
use holm_tests::watcher::{Watcher, publish};
use serde_json::Value;

const SIM: &str = "[functions]\nhealth_window = \"0ms\"\n[board]\nprofile = \"host-sim\"\n";

const GREENHOUSE: &str = "[[sensor]]\nname = \"greenhouse\"\ndriver = \"bme280\"\nbus = \"i2c-1\"\n";

const DOOR: &str = "[[gpio]]\nname = \"door\"\nline = \"GPIO17\"\ndirection = \"in\"\ndebounce = \"0ms\"\n";

const FAN: &str = "[[gpio]]\nname = \"fan-relay\"\nline = \"GPIO27\"\ndirection = \"out\"\nsafe = \"low\"\n";

/// What a line is at.
fn level(node: &Node, line: &str) -> String {
    let board = node.admin.get("/v1/board");
    let lines = board["lines"].as_array().unwrap();
    let found = lines.iter().find(|found| found["name"] == line).unwrap_or_else(|| panic!("no {line} in {board}"));
    found["level"].as_str().unwrap().to_owned()
}

/// The event that a witness saw, parsed.
fn seen(watcher: &mut Watcher) -> (Value, Value) {
    let (_, report) = watcher.next();
    let data = serde_json::from_str(report["data"].as_str().unwrap()).unwrap();
    (report, data)
}

#[test]
fn readings_start_functions_as_often_as_each_asks() {
    let folder = tempfile::tempdir().unwrap();
    let config = [
        SIM,
        GREENHOUSE,
        "[[sim.signal]]\nsensor = \"greenhouse\"\nchannel = \"temperature\"\nwave = \"sine\"\nmean = 20\namplitude = 5\n\
         period = \"4s\"\n",
    ]
    .concat();
    let node = Start { config: &config, ..Start::new(folder.path()) }.run();
    let (mut quick, mut slow) = (Watcher::new(&node, "seen/quick"), Watcher::new(&node, "seen/slow"));
    let trigger = "sensor = \"greenhouse\"\ninterval = \"100ms\"\nchannel = \"temperature\"";
    node.admin.deploy(&Guest::new("quick", "witness").trigger("sensor", trigger).bundle());
    node.admin.deploy(
        &Guest::new("slow", "witness").trigger("sensor", "sensor = \"greenhouse\"\ninterval = \"400ms\"").bundle(),
    );
    let mut values = Vec::new();
    let mut times = Vec::new();
    for _ in 0..20 {
        let (report, data) = seen(&mut quick);
        assert_eq!((&report["source"], &report["subject"]), (&"sensor".into(), &"greenhouse".into()));
        let reading = &data["readings"][0];
        assert_eq!((&data["sensor"], &data["crossing"]), (&"greenhouse".into(), &Value::Null));
        assert_eq!((&reading["channel"], &reading["unit"]), (&"temperature".into(), &"°C".into()));
        assert_eq!((&reading["quality"], data["readings"].as_array().unwrap().len()), (&"simulated".into(), 1));
        values.push(reading["value"].as_f64().unwrap());
        times.push(reading["time"].as_i64().unwrap());
    }
    let mean = (times[19] - times[0]) / 19;
    assert!((95..=130).contains(&mean), "{mean} ms between readings: {times:?}");
    assert!(values.iter().all(|value| (14.9..=25.1).contains(value)), "{values:?}");
    let moved = values.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(moved > 15, "{values:?}");
    let (_, first) = seen(&mut slow);
    let (_, second) = seen(&mut slow);
    assert_eq!(first["readings"].as_array().unwrap().len(), 3);
    let time = |data: &Value| data["readings"][0]["time"].as_i64().unwrap();
    assert!((330..=520).contains(&(time(&second) - time(&first))), "{first} {second}");
    let triggers = node.admin.get("/v1/functions");
    assert_eq!(triggers["functions"][0]["triggers"][0], "sensor greenhouse.temperature every 100ms");
    node.stop();
}

#[test]
fn crossings_of_a_threshold_are_told_once_with_hysteresis() {
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("day.csv");
    std::fs::write(&recording, "0,20\n0.3,20\n0.5,30\n0.7,27\n0.9,30\n1.1,20\n1.4,20\n").unwrap();
    let signal = format!(
        "[[sim.signal]]\nsensor = \"greenhouse\"\nchannel = \"temperature\"\nwave = \"csv\"\nfile = \"{}\"\n",
        recording.display()
    );
    let config = [SIM, GREENHOUSE, &signal].concat();
    let node = Start { config: &config, ..Start::new(folder.path()) }.run();
    let mut watcher = Watcher::new(&node, "seen/alarm");
    let trigger = "sensor = \"greenhouse\"\nchannel = \"temperature\"\ninterval = \"20ms\"\nabove = 28\nhysteresis = 3";
    node.admin.deploy(&Guest::new("alarm", "witness").trigger("sensor", trigger).bundle());
    let events: Vec<(String, f64)> = (0..6)
        .map(|_| {
            let (_, data) = seen(&mut watcher);
            (data["crossing"].as_str().unwrap().to_owned(), data["readings"][0]["value"].as_f64().unwrap())
        })
        .collect();
    // It may have begun in the midst of the recording; but above and normal take turns, whatever is between.
    for pair in events.windows(2) {
        assert_ne!(pair[0].0, pair[1].0, "{events:?}");
    }
    for (crossing, value) in &events {
        let expected = if crossing == "above" { 28.0..30.2 } else { 19.8..25.0 };
        assert!(expected.contains(value), "{events:?}");
    }
    node.stop();
}

#[test]
fn a_contact_that_bounces_is_one_event_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let script =
        "[[sim.edge]]\nline = \"door\"\nevery = \"100ms\"\n[[sim.fault]]\ntarget = \"door\"\nkind = \"bounce\"\n";
    let config = [SIM, DOOR, script].concat();
    let node = Start { config: &config, ..Start::new(folder.path()) }.run();
    let mut watcher = Watcher::new(&node, "seen/+");
    let guest = |name: &str, lines: &str| {
        Guest::new(name, "witness").trigger("gpio", &format!("line = \"door\"\n{lines}")).bundle()
    };
    node.admin.deploy(&guest("both", "edge = \"both\"\ndebounce = \"20ms\""));
    node.admin.deploy(&guest("opened", "edge = \"rising\"\ndebounce = \"20ms\""));
    let (mut both, mut opened) = (Vec::new(), 0);
    while both.len() < 12 || opened < 4 {
        let (topic, report) = watcher.next();
        let data: Value = serde_json::from_str(report["data"].as_str().unwrap()).unwrap();
        assert_eq!((&report["source"], &report["subject"]), (&"gpio".into(), &"door".into()));
        let (level, edge) = (data["level"].as_str().unwrap(), data["edge"].as_str().unwrap());
        assert_eq!(edge == "rising", level == "high");
        if topic == "seen/opened" {
            assert_eq!(level, "high");
            opened += 1;
        } else {
            both.push((level.to_owned(), data["monotonic_us"].as_u64().unwrap()));
        }
    }
    for pair in both.windows(2) {
        assert_ne!(pair[0].0, pair[1].0, "{both:?}");
        // Where the contact came to rest is where its last bounce was, every time.
        assert!((99_000..=101_000).contains(&(pair[1].1 - pair[0].1)), "{both:?}");
    }
    // The one was deployed a moment after the other, and may be a moment ahead of it now.
    assert!(opened <= both.len() / 2 + 1, "{opened} of {both:?}");
    node.stop();
}

#[test]
fn the_thermostat_runs_its_fan_and_without_it_the_fan_rests() {
    let folder = tempfile::tempdir().unwrap();
    let signal =
        "[[sim.signal]]\nsensor = \"greenhouse\"\nchannel = \"temperature\"\nwave = \"constant\"\nvalue = 30\n";
    let config = [SIM, GREENHOUSE, FAN, signal].concat();
    let start = Start { config: &config, ..Start::new(folder.path()) };
    let node = start.run();
    let mut watcher = Watcher::new(&node, "state/fan");
    assert_eq!(level(&node, "fan-relay"), "low");
    let bundle = functions::example("thermostat", |manifest| manifest.replace("\"2s\"", "\"50ms\""));
    node.admin.deploy(&bundle);
    let (_, state) = watcher.next();
    assert_eq!(state["fan"], "high");
    assert_eq!(level(&node, "fan-relay"), "high");
    let (status, _) = node.admin.request("DELETE", "/v1/functions/thermostat", b"");
    assert_eq!(status, 200);
    assert_eq!(level(&node, "fan-relay"), "low", "safe as soon as it is taken away");
    // And it runs again, over a start too.
    node.admin.deploy(&bundle);
    eventually("the fan runs", || (level(&node, "fan-relay") == "high").then_some(()));
    node.stop();
    let node = start.run();
    eventually("the fan runs after a start", || (level(&node, "fan-relay") == "high").then_some(()));
    node.stop();
}

#[test]
fn an_output_obeys_only_who_is_in_charge_of_it_now() {
    let folder = tempfile::tempdir().unwrap();
    let config = [SIM, FAN].concat();
    let node = Start { config: &config, ..Start::new(folder.path()) }.run();
    let mut watcher = Watcher::new(&node, "seen/#");
    let board = functions::board_guests();
    let guest = |name: &str, habit: &str, gpio: &str| {
        let permissions = format!("publish = [\"seen/#\"]\n{gpio}");
        Guest::new(name, habit).on(name).with("to", "fan-relay").permissions(&permissions)
    };
    let granted = "gpio = [\"out:fan-relay\"]";
    node.admin.deploy(&guest("drive", "drive", granted).bundle_of(board));
    publish(&node, "drive", b"high");
    assert_eq!(watcher.next().1, "high");
    assert_eq!(level(&node, "fan-relay"), "high");
    // It happens at the call, and nothing undoes it: the message is dropped, the output stays.
    publish(&node, "drive", b"low-then-fail");
    assert_eq!(level(&node, "fan-relay"), "low");
    publish(&node, "drive", b"high");
    assert_eq!(watcher.next().1, "high");
    // Another version without the grant: the output is safe, and stays so.
    node.admin.deploy(&guest("drive", "drive", "gpio = [\"in:fan-relay\"]").version("2.0.0").bundle_of(board));
    assert_eq!(level(&node, "fan-relay"), "low");
    publish(&node, "drive", b"high");
    let denied = eventually("a denial", || {
        let letters = node.admin.get("/v1/dlq");
        let faults = letters["dead_letters"].as_array()?.iter().filter_map(|letter| letter["fault"].as_str());
        faults.into_iter().find(|fault| fault.contains("denied")).map(str::to_owned)
    });
    assert!(denied.contains("`in:fan-relay`, which is not driven"), "{denied}");
    assert_eq!(level(&node, "fan-relay"), "low");
    // One that is taken away while it drives without end.
    let limits = "memory = \"4MiB\"\ntimeout = \"3s\"";
    node.admin.deploy(&guest("drive-on", "drive-on", granted).limits(limits).bundle_of(board));
    let mut client = holm_tests::mqtt::Client::connect(&node.mqtt, "starter", true).unwrap();
    client.publish("drive-on", b"go", 0, 0, false, None).unwrap();
    eventually("it drives", || (level(&node, "fan-relay") == "high").then_some(()));
    assert_eq!(node.admin.request("DELETE", "/v1/functions/drive-on", b"").0, 200);
    for _ in 0..50 {
        assert_eq!(level(&node, "fan-relay"), "low");
    }
    node.stop();
}

#[test]
fn buses_are_spoken_to_by_grant() {
    let folder = tempfile::tempdir().unwrap();
    let config = [
        SIM,
        DOOR,
        "[[sensor]]\nname = \"attic\"\ndriver = \"bme280\"\nbus = \"i2c-1\"\n\
         [[sensor]]\nname = \"chip\"\ndriver = \"register\"\nbus = \"i2c-1\"\naddress = 0x20\n\
         [[sensor.field]]\nchannel = \"level\"\nregister = 1\nbytes = 2\n\
         [[gpio]]\nname = \"pump\"\nline = \"GPIO22\"\ndirection = \"out\"\nsafe = \"low\"\n\
         [[i2c]]\nname = \"bus\"\nbus = \"i2c-1\"\n[[spi]]\nname = \"radio\"\ndevice = \"spidev0.0\"\n\
         [[sim.signal]]\nsensor = \"chip\"\nchannel = \"level\"\nwave = \"constant\"\nvalue = 700\n\
         [[sim.signal]]\nsensor = \"attic\"\nchannel = \"temperature\"\nwave = \"constant\"\nvalue = 21\n",
    ]
    .concat();
    let node = Start { config: &config, ..Start::new(folder.path()) }.run();
    let grants = "sensors = [\"attic\"]\ngpio = [\"in:door\", \"out:pump\"]\ni2c = [\"bus:0x20\"]\nspi = [\"radio\"]";
    for (name, grants, expected) in [
        ("all", grants, vec!["[\"attic\"] Ok((2", "\"°C\", Simulated)) Ok(Low) Ok(()) Ok([2, 188]) Ok([1, 2])"]),
        ("none", "", vec!["[] Err(Denied(", "`attic`", "`door`", "`out:pump`", "`bus:0x20`", "`radio`"]),
    ] {
        let after = format!("after-{name}");
        node.admin.deploy(&Guest::new(name, "board").permissions(grants).on(name).bundle_of(functions::board_guests()));
        let chained = Guest::new(&after, "witness").trigger("function", &format!("from = \"{name}\""));
        node.admin.deploy(&chained.bundle());
        let mut watcher = Watcher::new(&node, &format!("seen/{after}"));
        publish(&node, name, b"");
        let (_, report) = watcher.next();
        let said = report["data"].as_str().unwrap();
        for part in expected {
            assert!(said.contains(part), "{part} is not in {said}");
        }
    }
    assert_eq!(level(&node, "pump"), "high");
    node.stop();
}

#[test]
fn what_a_function_asks_for_must_be_there_and_all_that_is_not_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let config = [SIM, GREENHOUSE, DOOR, FAN].concat();
    let start = Start { config: &config, ..Start::new(folder.path()) };
    let node = start.run();
    let guest = Guest::new("lost", "witness")
        .trigger("sensor", "sensor = \"glasshouse\"\ninterval = \"1s\"")
        .trigger("sensor", "sensor = \"greenhouse\"\ninterval = \"1s\"\nchannel = \"light\"")
        .trigger("gpio", "line = \"gate\"")
        .trigger("gpio", "line = \"fan-relay\"")
        .permissions(
            "sensors = [\"cellar\"]\ngpio = [\"out:door\", \"in:window\"]\ni2c = [\"bus:*\"]\nspi = [\"radio\"]",
        );
    let (status, answer) = node.admin.post("/v1/deploy", &guest.bundle());
    assert_eq!(status, 422);
    let said = answer["error"].as_str().unwrap();
    for part in [
        "trigger.sensor: this node has no sensor `glasshouse`; it has `greenhouse`",
        "trigger.sensor: `greenhouse` has no channel `light`; it has `temperature`, `pressure`, `humidity`",
        "trigger.gpio: this node has no line `gate`; it has `door`, `fan-relay`",
        "trigger.gpio: `fan-relay` is an output of this node",
        "permissions.sensors: this node has no sensor `cellar`",
        "permissions.gpio: this node has no line `window`",
        "permissions.gpio: `door` is an input of this node",
        "permissions.i2c: this node has no I2C bus for functions `bus`; it has none",
        "permissions.spi: this node has no SPI device `radio`; it has none",
    ] {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
    assert_eq!(node.admin.get("/v1/functions")["functions"].as_array().unwrap().len(), 0);
    // A node that has lost its sensor runs all the same, and says so.
    let guest = Guest::new("clock", "witness").trigger("sensor", "sensor = \"greenhouse\"\ninterval = \"50ms\"");
    node.admin.deploy(&guest.on("poke").bundle());
    node.stop();
    let config = [SIM, DOOR].concat();
    let node = Start { config: &config, ..start }.run();
    let mut watcher = Watcher::new(&node, "seen/clock");
    publish(&node, "poke", b"still there");
    assert_eq!(watcher.next().1["data"], "still there");
    assert!(log(folder.path()).contains("no sensor is called `greenhouse`"), "{}", log(folder.path()));
    node.stop();
}

#[test]
fn an_edge_that_was_taken_in_outlives_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let script = "[[sim.edge]]\nline = \"door\"\nevery = \"300ms\"\n";
    let config = [SIM, DOOR, script].concat();
    let node = Start { config: &config, ..Start::new(folder.path()) }.run();
    let guest = Guest::new("slow", "slow").trigger("gpio", "line = \"door\"").with("ms", "800");
    node.admin.deploy(&guest.limits("memory = \"4MiB\"\ntimeout = \"5s\"").bundle());
    let parked = || node.admin.get("/v1/status")["inbox"]["parked"].as_u64();
    eventually("two edges are in the inbox", || (parked()? >= 2).then_some(()));
    node.kill();
    // Nothing moves any more.
    let config = [SIM, DOOR].concat();
    let node = Start { config: &config, ..Start::new(folder.path()) }.run();
    let mut watcher = Watcher::new(&node, "seen/slow");
    let mut times = Vec::new();
    while times.len() < 2 {
        let (report, data) = seen(&mut watcher);
        assert_eq!((&report["source"], &report["subject"]), (&"gpio".into(), &"door".into()));
        times.push(data["monotonic_us"].as_u64().unwrap());
    }
    for (_, report) in watcher.rest(Duration::from_millis(1500)) {
        let data: Value = serde_json::from_str(report["data"].as_str().unwrap()).unwrap();
        times.push(data["monotonic_us"].as_u64().unwrap());
    }
    let told = times.len();
    times.sort_unstable();
    times.dedup();
    assert_eq!(times.len(), told, "each once");
    node.stop();
}
