//! What people, devices and disks get wrong: bad configuration, bad payloads, full and read-only disks, foreign and
//! damaged databases, wrong clocks.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use holm_tests::disk::{Small, fill};
use holm_tests::eventually;
use holm_tests::functions::{self, Guest};
use holm_tests::mqtt::{Client, Packet};
use holm_tests::node::{self, Node, Start};
use holm_tests::watcher::{Watcher, acknowledgement, publish, publish_all};
use serde_json::Value;

const QUICK: &str = "[functions]\nhealth_window = \"0ms\"\n";

/// Runs holmd until it ends by itself.
fn holmd(arguments: &[&str]) -> Output {
    let mut command = Command::new(node::binary("holmd"));
    command.args(arguments).stdin(Stdio::null()).env("HOLM_LOG", "info").env_remove("HOLM_MUTANT");
    command.output().unwrap()
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn run_on(data: &Path) -> Output {
    holmd(&["run", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()])
}

#[test]
fn all_problems_of_the_configuration_are_listed_with_their_lines() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        holmd(&["check-config", "--config", file.to_str().unwrap()])
    };
    let good = check("[functions]\nworkers = 2\n");
    assert!(good.status.success(), "{}", words(&good));
    let bad = check(
        "[node]\ndevice = \"No Such Name!\"\ncolour = \"blue\"\n[mqtt]\nlisten = \"nowhere\"\n[mqtt.limits]\n\
         connections = 0\npacket = \"huge\"\n[functions]\nworkers = 1000\nhealth_window = \"soon\"\nallow_unsigned = \"yes\"\n\
         [store]\ninbox_rows = -1\n[stroe]\nx = 1\n",
    );
    assert_eq!(bad.status.code(), Some(2), "{}", words(&bad));
    let text = words(&bad);
    for (line, key) in [
        (2, "node.device"),
        (3, "node.colour"),
        (5, "mqtt.listen"),
        (7, "mqtt.limits.connections"),
        (8, "mqtt.limits.packet"),
        (10, "functions.workers"),
        (11, "functions.health_window"),
        (12, "functions.allow_unsigned"),
        (14, "store.inbox_rows"),
        (15, "stroe"),
    ] {
        assert!(text.contains(&format!("line {line}: {key}:")), "line {line}, {key} is not in:\n{text}");
    }
    let output = holmd(&["run", "--config", file.to_str().unwrap(), "--data", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "it does not start either");
    assert!(!folder.path().join("holm.db").exists(), "and leaves no trace");
    // A file that is there twice over, and one that is not there.
    std::fs::create_dir(folder.path().join("agent.d")).unwrap();
    std::fs::write(folder.path().join("agent.d/10-more.toml"), "[functions]\nmax_hops = 1000\n").unwrap();
    let both = check("[functions]\nworkers = 0\n");
    assert!(words(&both).contains("10-more.toml") && words(&both).contains("functions.workers"), "{}", words(&both));
    let missing = holmd(&["check-config", "--config", "/nowhere/agent.toml"]);
    assert_eq!(missing.status.code(), Some(2), "{}", words(&missing));
    assert!(words(&missing).contains("/nowhere/agent.toml"), "{}", words(&missing));
    for (text, expected) in [
        ("= nonsense", "line 1"),
        ("[mqtt]\nlisten = \"0.0.0.0:1883\"\n", "not a loopback address"),
        (
            "[[mqtt.acl]]\nuser = \"nobody\"\nclient = \"c\"\nsubscribe = [\"a\"]\n",
            "there is no [[mqtt.user]] `nobody`",
        ),
        ("[functions]\nworkers = 1\nworkers = 2\n", "line 3"),
    ] {
        let output = check(text);
        assert_eq!(output.status.code(), Some(2), "{text}: {}", words(&output));
        assert!(words(&output).contains(expected), "{text}: {}", words(&output));
    }
}

#[test]
fn any_payload_is_an_event_and_what_a_function_cannot_read_is_a_dead_letter() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    node.admin.deploy(&functions::example("counter", |text| text + "[retry]\nmax_attempts = 1\n"));
    node.admin.deploy(&Guest::new("any", "echo").on("count/+").bundle());
    let payloads: [&[u8]; 5] = [b"", b"\xff\xfe\x00\x01", b"{\"id\":", b"[1,2,3]", &[b'x'; 100_000]];
    for payload in payloads {
        assert_eq!(publish(&node, "count/x", payload), 0);
    }
    let letters = eventually("five dead letters", || {
        let letters = node.admin.get("/v1/dlq")["dead_letters"].as_array().unwrap().clone();
        (letters.len() == payloads.len()).then_some(letters)
    });
    for letter in &letters {
        assert_eq!(
            (&letter["function"], &letter["kind"]),
            (&Value::from("counter"), &Value::from("reject")),
            "{letter}"
        );
    }
    // What is no text comes back as bytes.
    let id = letters.iter().find(|letter| letter["bytes"] == 4).unwrap()["id"].as_i64().unwrap();
    assert_eq!(node.admin.get(&format!("/v1/dlq/{id}"))["data"], serde_json::json!([255, 254, 0, 1]));
    eventually("the other function", || {
        let functions = node.admin.get("/v1/functions");
        let any = functions["functions"].as_array().unwrap().iter().find(|one| one["name"] == "any").cloned().unwrap();
        (any["succeeded"] == 5).then_some(())
    });
    // Over the limit for packets: that connection ends, with a reason; the others do not notice.
    let mut other = Client::connect(&node.mqtt, "other", true).unwrap();
    let mut client = Client::connect(&node.mqtt, "big", true).unwrap();
    let sent = client.publish("count/x", &vec![0; 2 << 20], 1, 1, false, None);
    match client.receive() {
        Ok(Packet::Other(14, body)) => assert_eq!(body.first(), Some(&0x95), "Packet too large"),
        // The rest of the packet may meet a closed socket, and the reason be lost with it.
        Ok(other) => panic!("{other:?}"),
        Err(error) => assert!(sent.is_err() || error.kind() != std::io::ErrorKind::WouldBlock, "{error}"),
    }
    other.publish("count/x", br#"{"id":"1"}"#, 1, 9, false, None).unwrap();
    assert_eq!(acknowledgement(&mut other, 9), 0);
    node.stop();
}

#[test]
fn a_function_that_keeps_order_goes_on_after_commits_have_failed() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_small) = Small::mount(folder.path(), "size=8m") else { return };
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    let limits = "memory = \"4MiB\"\ntimeout = \"5s\"";
    let retry = "[retry]\nmax_attempts = 4\ninterval = \"20ms\"\norder = \"block\"";
    // Both on each event: the one is quick to settle for both, and the other fails while that is being committed.
    node.admin.deploy(&Guest::new("quick", "witness").on("pair").limits(limits).bundle());
    let strict = Guest::new("strict", "slow-third-time").on("pair").with("ms", "0").limits(limits).more(retry);
    node.admin.deploy(&strict.bundle());
    let mut watcher = Watcher::new(&node, "seen/strict");
    let filler = folder.path().join("filler");
    fill(&filler);
    let mut client = Client::connect(&node.mqtt, "publisher", true).unwrap();
    let payload = |number: u16| format!("{number:0>2000}");
    for number in 1..=300 {
        client.publish("pair", payload(number).as_bytes(), 1, number, false, None).unwrap();
        if number > 30 {
            assert!([0, 0x80, 0x97].contains(&acknowledgement(&mut client, number - 30)));
        }
    }
    for number in 271..=300 {
        assert!([0, 0x80, 0x97].contains(&acknowledgement(&mut client, number)));
    }
    assert!(node.admin.get("/v1/status")["store"]["failures"].as_u64().unwrap() > 0, "the disk was never full");
    std::fs::remove_file(&filler).unwrap();
    eventually("an acknowledgement", || {
        client.publish("pair", b"after", 1, 500, false, None).unwrap();
        (acknowledgement(&mut client, 500) == 0).then_some(())
    });
    eventually("an event after the failures", || {
        let report = watcher.next_within(Duration::from_millis(100));
        if report.is_none() {
            eprintln!("nothing yet: {} {}", node.admin.get("/v1/status"), node.admin.get("/v1/functions"));
        }
        report.filter(|(_, report)| report["data"] == "after")
    });
    eventually("an empty inbox", || (node.admin.get("/v1/status")["inbox"]["parked"] == 0).then_some(()));
    node.stop();
}

#[test]
fn a_trial_whose_end_cannot_be_written_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_small) = Small::mount(folder.path(), "size=8m") else { return };
    let start = Start { config: "[functions]\nhealth_window = \"1s\"\n", ..Start::new(folder.path()) };
    let node = start.run();
    let teller = |version: &str| Guest::new("teller", "witness").on("ask").with("label", version).version(version);
    let shown = |node: &holm_tests::node::Node| {
        let function = node.admin.get("/v1/functions")["functions"][0].clone();
        (function["version"].as_str().unwrap().to_owned(), function["state"].as_str().unwrap().to_owned())
    };
    node.admin.deploy(&teller("1.0.0").bundle());
    let filler = folder.path().join("filler");
    let (status, answer) = std::thread::scope(|scope| {
        let trial = scope.spawn(|| node.admin.post("/v1/deploy", &teller("2.0.0").bundle()));
        eventually("the trial", || (shown(&node).1 == "trial").then_some(()));
        fill(&filler);
        trial.join().unwrap()
    });
    assert_eq!(status, 500, "{answer}");
    assert_eq!(shown(&node).0, "1.0.0", "what is shown is what runs, and what a start would bring up");
    std::fs::remove_file(&filler).unwrap();
    // The next one that fails goes back to what ran before it, and that is there after a start.
    let broken = Guest::new("teller", "panic").on("ask").version("3.0.0").more("[retry]\nmax_attempts = 50");
    let (_, report) = std::thread::scope(|scope| {
        let trial = scope.spawn(|| node.admin.post("/v1/deploy", &broken.bundle()));
        eventually("the trial", || (shown(&node).1 == "trial").then_some(()));
        publish(&node, "ask", b"x");
        trial.join().unwrap()
    });
    assert_eq!((&report["outcome"], &report["previous"]), (&"rolled-back".into(), &"1.0.0".into()), "{report}");
    node.stop();
    let node = start.run();
    let mut watcher = Watcher::new(&node, "seen/teller");
    publish(&node, "ask", b"y");
    eventually("an answer", || watcher.next_within(Duration::from_millis(100)).filter(|one| one.1["data"] == "y"));
    assert_eq!(shown(&node).0, "1.0.0");
    node.stop();
}

#[test]
fn a_full_disk_refuses_durable_messages_and_loses_none_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(folder.path(), "size=8m") else { return };
    let start = Start { config: QUICK, ..Start::new(folder.path()) };
    let node = start.run();
    node.admin.deploy(&Guest::new("keeper", "witness").on("keep").limits("memory = \"4MiB\"\nkv = \"32MiB\"").bundle());
    node.admin.deploy(&Guest::new("slow", "slow").on("slow").with("ms", "120").bundle());
    node.admin.deploy(&functions::example("scale", |text| text));
    let mut watcher = Watcher::new(&node, "seen/keeper");
    // Rows in the inbox while the disk is full: they must neither be lost nor be tried without pause.
    publish_all(&node, "slow", (1..=20).map(|number| number.to_string()));
    let filler = folder.path().join("filler");
    fill(&filler);
    // Room for some more, so that the disk becomes full in the middle of the work.
    let length = std::fs::metadata(&filler).unwrap().len();
    std::fs::File::options().write(true).open(&filler).unwrap().set_len(length - (400 << 10)).unwrap();
    let mut client = Client::connect(&node.mqtt, "publisher", true).unwrap();
    let payload = |number: u32| format!("{number:0>200}");
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    for number in 1..=2000_u32 {
        let id = u16::try_from(number).unwrap();
        client.publish("keep", payload(number).as_bytes(), 1, id, false, None).unwrap();
        match acknowledgement(&mut client, id) {
            0 => acknowledged.push(number),
            0x97 | 0x80 => refused += 1,
            other => panic!("reason {other:#x}"),
        }
        if refused > 0 {
            fill(&filler);
        }
        if refused >= 20 {
            break;
        }
    }
    assert!(refused >= 20, "the disk was never full: {} acknowledged", acknowledged.len());
    assert!(acknowledged.len() >= 10, "the disk was full from the start");
    let number = 2001;
    client.publish("keep", payload(number).as_bytes(), 1, 2001, false, None).unwrap();
    assert_eq!(acknowledgement(&mut client, 2001), 0x97, "quota exceeded");
    assert_eq!(node.admin.get("/v1/status")["store"]["failing"], true);
    // What needs no disk is served as ever.
    let mut hot = Watcher::new(&node, "out/#");
    client.publish("sensors/s/temp", br#"{"id":"s","t":20.0,"seq":1}"#, 0, 0, false, None).unwrap();
    assert_eq!(hot.next().1["f"], 68.0);
    // Nothing is tried again and again without pause.
    let failures = || node.admin.get("/v1/status")["store"]["failures"].as_u64().unwrap();
    let before = failures();
    std::thread::sleep(Duration::from_secs(2));
    assert!(failures() - before <= 150, "{} commits failed in two seconds", failures() - before);
    let (status, answer) = node.admin.post("/v1/deploy", &Guest::new("more", "witness").bundle());
    assert_eq!(status, 500, "{answer}");
    // Space returns, and so does the node.
    std::fs::remove_file(&filler).unwrap();
    eventually("an acknowledgement", || {
        client.publish("keep", payload(2002).as_bytes(), 1, 2002, false, None).unwrap();
        (acknowledgement(&mut client, 2002) == 0).then_some(())
    });
    acknowledged.push(2002);
    eventually("an empty inbox", || (node.admin.get("/v1/status")["inbox"]["parked"] == 0).then_some(()));
    let functions = node.admin.get("/v1/functions");
    let slow = functions["functions"].as_array().unwrap().iter().find(|one| one["name"] == "slow").unwrap();
    assert!(slow["total"]["invocations"].as_u64().unwrap() >= 20, "{slow}");
    // Every event that was acknowledged has run, and no other.
    let mut seen: Vec<u32> = (0..acknowledged.len())
        .map(|_| watcher.next().1["data"].as_str().unwrap().trim_start_matches('0').parse().unwrap())
        .collect();
    assert_eq!(watcher.rest(Duration::from_millis(500)), []);
    seen.sort_unstable();
    assert_eq!(seen, acknowledged);
    assert_eq!(node.admin.get("/v1/dlq")["dead_letters"], serde_json::json!([]));
    node.stop();
    drop(small);
}

#[test]
fn a_read_only_disk_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(folder.path(), "size=8m") else { return };
    Start { config: QUICK, ..Start::new(folder.path()) }.run().stop();
    small.remount("ro");
    let output = run_on(folder.path());
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    assert!(words(&output).contains("Read-only file system"), "{}", words(&output));
    assert!(words(&output).contains(folder.path().to_str().unwrap()), "{}", words(&output));
    small.remount("rw");
    Start { config: QUICK, ..Start::new(folder.path()) }.run().stop();
}

#[test]
fn a_second_node_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    let output = run_on(folder.path());
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    let text = words(&output);
    assert!(text.contains("in use") && text.contains(folder.path().to_str().unwrap()), "{text}");
    // The first has not noticed, and its socket is still its own.
    assert_eq!(node.admin.get("/v1/status")["device"], "device");
    node.stop();
}

#[test]
fn a_database_of_the_future_or_of_others_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    Start { config: QUICK, ..Start::new(folder.path()) }.run().stop();
    let path = folder.path().join("holm.db");
    let whole = std::fs::read(&path).unwrap();
    // SQLite file format, 1.3: the user version is at offset 60, the application id at 68.
    let patched = |at: usize, value: u32| {
        let mut bytes = whole.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
        bytes
    };
    let future = patched(60, 99_000);
    std::fs::write(&path, &future).unwrap();
    let output = run_on(folder.path());
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    assert!(words(&output).contains("99000"), "{}", words(&output));
    assert_eq!(std::fs::read(&path).unwrap(), future, "not a byte of it is touched");
    std::fs::write(&path, &whole).unwrap();
    Start { config: QUICK, ..Start::new(folder.path()) }.run().stop();
}

#[test]
fn a_database_of_garbage_is_set_aside_and_the_node_runs() {
    let folder = tempfile::tempdir().unwrap();
    let start = Start { config: QUICK, ..Start::new(folder.path()) };
    start.run().stop();
    let garbage: Vec<u8> = (0..50_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(folder.path().join("holm.db"), &garbage).unwrap();
    let node = start.run();
    let log = node::log(folder.path());
    assert!(log.contains("set aside"), "{log}");
    let kept = find(folder.path(), &garbage);
    assert!(kept.is_some(), "the damaged file is not kept: {log}");
    assert!(log.contains(kept.unwrap().parent().unwrap().to_str().unwrap()), "the log does not say where: {log}");
    node.admin.deploy(&functions::example("counter", |text| text));
    assert_eq!(publish(&node, "count/x", br#"{"id":"1"}"#), 0);
    assert_eq!(node.admin.get("/v1/results/counter")["results"].as_array().unwrap().len(), 1);
    node.stop();
}

/// The file with this content, in `folder` or below.
fn find(folder: &Path, content: &[u8]) -> Option<std::path::PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).find_map(|path| {
        if path.is_dir() {
            find(&path, content)
        } else {
            (std::fs::read(&path).is_ok_and(|found| found == content)).then_some(path)
        }
    })
}

#[test]
fn what_waits_in_the_inbox_does_not_wait_for_the_clock() {
    let Some(under) = faketime("1970-01-03 00:00:00") else { return };
    let folder = tempfile::tempdir().unwrap();
    let start = Start { config: QUICK, ..Start::new(folder.path()) };
    let node = start.run();
    let patient = "memory = \"4MiB\"\ntimeout = \"5s\"";
    node.admin.deploy(&Guest::new("slow", "slow").on("slow").with("ms", "300").limits(patient).bundle());
    let retry = "[retry]\nmax_attempts = 3\ninterval = \"200ms\"";
    node.admin.deploy(&Guest::new("stubborn", "third-time").on("try").more(retry).bundle());
    // Kept from before the kill: whoever begins to look after it may be late.
    let watch = |node: &Node| Watcher::named(node, "guest", "seen/#");
    drop(watch(&node));
    assert_eq!((publish(&node, "slow", b"a"), publish(&node, "try", b"b")), (0, 0));
    node.kill();
    // A board without a battery for its clock comes up.
    let node = Start { under: &under, ..start }.run();
    let mut watcher = watch(&node);
    let mut seen = [watcher.next().1, watcher.next().1].map(|report| report["data"].as_str().unwrap().to_owned());
    seen.sort();
    assert_eq!(seen, ["a", "b"]);
    node.stop();
}

/// What to run a program under so that it believes in another time of day, where that is possible here.
fn faketime(time: &str) -> Option<Vec<String>> {
    if Command::new("faketime").arg("--version").output().is_err() {
        holm_tests::skip("faketime is not installed");
        return None;
    }
    Some(["env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "faketime", time].map(str::to_owned).to_vec())
}

#[test]
fn a_clock_that_says_1970_stops_nothing_and_is_not_trusted() {
    let Some(under) = faketime("1970-01-03 00:00:00") else { return };
    let folder = tempfile::tempdir().unwrap();
    let start = Start { config: QUICK, under: &under, ..Start::new(folder.path()) };
    let node = start.run();
    node.admin.deploy(
        &Guest::new("clock", "witness").on("t").trigger("schedule", "name = \"tick\"\ninterval = \"300ms\"").bundle(),
    );
    let retry = "[retry]\nmax_attempts = 3\ninterval = \"50ms\"";
    node.admin.deploy(&Guest::new("weak", "trap").on("weak").more(retry).bundle());
    let mut watcher = Watcher::new(&node, "seen/clock");
    let (_, report) = watcher.next();
    assert_eq!((&report["subject"], &report["synced"]), (&Value::from("tick"), &Value::from(false)));
    assert!(report["time_ms"].as_u64().unwrap() < 4 * 86_400_000, "{report}");
    assert_eq!(node.admin.get("/v1/status")["time_plausible"], false);
    assert_eq!(publish(&node, "weak", b"0"), 0);
    eventually("the dead letter", || {
        (!node.admin.get("/v1/dlq")["dead_letters"].as_array().unwrap().is_empty()).then_some(())
    });
    node.stop();
    // The clock is right again: schedules go on, and nothing is made up for 56 years.
    let node: Node = Start { under: &[], ..start }.run();
    let mut watcher = Watcher::new(&node, "seen/clock");
    watcher.next();
    let second = Instant::now() + Duration::from_secs(1);
    let left = || second.checked_duration_since(Instant::now());
    let ticks = std::iter::from_fn(|| watcher.next_within(left()?)).count();
    assert!(ticks <= 6, "{ticks} ticks in a second");
    assert_eq!(publish(&node, "t", b"now"), 0);
    let report = std::iter::from_fn(|| watcher.next_within(Duration::from_secs(10)))
        .find(|(_, report)| report["data"] == "now")
        .expect("the event");
    assert_eq!(report.1["synced"], true);
    node.stop();
}
