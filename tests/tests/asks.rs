//! What people see of a device from afar when they ask: log lines while they look, a report, dead letters. The real `holm`, `holm cloud`
//! and `holmd`.

use std::io::{BufRead as _, BufReader};
use std::sync::mpsc;
use std::time::Duration;

use holm_tests::eventually;
use holm_tests::functions::Guest;
use holm_tests::node::Node;
use holm_tests::world::World;
use serde_json::Value;

/// A function that writes the event's text to its log.
fn speaker(limits: &str) -> Vec<u8> {
    Guest::new("speaker", "speak").on("say").limits(limits).bundle()
}

fn say(node: &Node, text: &str) {
    let (status, answer) = node.admin.post("/v1/functions/speaker/invoke", text.as_bytes());
    assert_eq!(status, 200, "{answer}");
}

const LIMITS: &str = "memory = \"4MiB\"\ntimeout = \"2s\"\nlog = \"64KiB\"";

#[test]
fn lines_come_while_somebody_looks_and_not_before() {
    let world = World::start();
    let node = world.node("");
    node.admin.deploy(&speaker(LIMITS));
    say(&node, "nobody looks");
    eventually("the line is in the node's ring", || {
        node.admin.get("/v1/logs").to_string().contains("nobody looks").then_some(())
    });
    assert_eq!(world.came(), Vec::<Value>::new());
    let mut child = world.laptop.begin(&world.cloud, &["logs", "-f", "--device", "pi1"]);
    let out = BufReader::new(child.stdout.take().unwrap());
    let (send, lines) = mpsc::sync_channel(64);
    let reader = std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    let next = || lines.recv_timeout(Duration::from_secs(20)).unwrap();
    // The last lines from before somebody looked, and then each as it comes.
    assert!(next().ends_with("speaker info nobody looks"));
    for n in 0..5 {
        say(&node, &format!("line {n}"));
        let line = next();
        assert!(line.ends_with(&format!("speaker info line {n}")), "{line}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    // Bytes of it are accounted for.
    let features = node.admin.get("/v1/status")["cloud"]["features"].clone();
    assert!(features["logs"].as_u64() > Some(0), "{features}");
    node.stop();
}

#[test]
fn what_is_more_than_may_go_up_is_told_as_a_gap() {
    let world = World::start();
    let node = world.node("logs = \"info\"\nlog_bytes = \"4KiB\"\n");
    node.admin.deploy(&speaker(LIMITS));
    let said = 100;
    for n in 0..said {
        say(&node, &format!("{n} {}", "x".repeat(100)));
    }
    eventually("every line is there or told of", || {
        // Nobody waits a minute for others while somebody looks.
        assert_eq!(world.cloud.send("POST", "/v1/devices/pi1/logs", b"").status, 200);
        let (mut lines, mut missing) = (0, 0);
        for row in world.came() {
            match row["value"]["gap"].as_u64() {
                Some(gap) => missing += gap,
                None => lines += 1,
            }
        }
        assert!(lines + missing <= said && lines * 150 < 12 << 10, "{lines} {missing}");
        (lines > 0 && missing > 0 && lines + missing == said).then_some(())
    });
    let shown = world.laptop.ok(&world.cloud, &["logs", "--device", "pi1", "-n", "1000"]);
    assert!(shown.contains("lines of speaker are not here: more than may be sent"), "{shown}");
    node.stop();
}

#[test]
fn a_device_tells_how_it_is_and_keeps_its_secrets() {
    let world = World::start();
    let user = "[[mqtt.user]]\nname = \"ada\"\npassword_hash = \"pbkdf2-sha256$600000$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"\n";
    let node = world.node("");
    std::fs::write(world.data().join("agent.toml"), format!("{}{user}", World::config())).unwrap();
    node.admin.deploy(&speaker(LIMITS));
    say(&node, "before the report");
    eventually("the line is in the node's ring", || {
        node.admin.get("/v1/logs").to_string().contains("before the report").then_some(())
    });
    let file = world.folder.path().join("diag.tar.zst");
    world.laptop.ok(&world.cloud, &["device", "diag", "pi1", "--output", file.to_str().unwrap()]);
    let packed = std::fs::read(&file).unwrap();
    let mut files = std::collections::BTreeMap::new();
    let unpacked = zstd::decode_all(&packed[..]).unwrap();
    for entry in tar::Archive::new(&unpacked[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
        files.insert(name, text);
    }
    let report: Value = serde_json::from_str(&files["pi1-diag/report.json"]).unwrap();
    assert_eq!(report["cloud"]["thing"], "pi1");
    assert!(report["store"]["commits"].is_object() && report["agent"]["version"].is_string(), "{report:#}");
    assert!(files["pi1-diag/logs.ndjson"].contains("before the report"));
    assert!(files["pi1-diag/device.json"].contains("\"thing\": \"pi1\""));
    let (_, config) = files.iter().find(|(name, _)| name.starts_with("pi1-diag/config/")).unwrap();
    assert!(config.contains("name = \"ada\"") && config.contains("keep_alive"), "{config}");
    assert!(!files.values().any(|text| text.contains("AAAAAAAAAAAAAAAA")), "{files:#?}");
    // One that is away has no report, and says so.
    node.stop();
    eventually("it is away", || world.cloud.get("/v1/devices/pi1")["connected"].as_bool().filter(|it| !*it));
    let answer = world.cloud.send("POST", "/v1/devices/pi1/report", b"");
    assert!(answer.status == 409 && answer.code() == "conflict", "{answer:?}");
}

#[test]
fn dead_letters_are_listed_from_afar_without_what_was_in_them() {
    let world = World::start();
    let node = world.node("");
    node.admin.deploy(&Guest::new("picky", "reject").on("ask").bundle());
    let (status, _) = node.admin.post("/v1/functions/picky/invoke", b"confidential");
    assert_eq!(status, 200);
    eventually("it is buried", || {
        let letters = node.admin.get("/v1/dlq")["dead_letters"].as_array()?.len();
        (letters == 1).then_some(())
    });
    let told = world.laptop.ok(&world.cloud, &["dlq", "list", "--device", "pi1", "--json"]);
    let letter = serde_json::from_str::<Value>(&told).unwrap()["dead_letters"][0].clone();
    assert_eq!((letter["function"].as_str(), letter["kind"].as_str()), (Some("picky"), Some("reject")));
    assert_eq!(letter["bytes"], 12);
    assert!(!world.came().iter().any(|row| row.to_string().contains("confidential")));
    node.stop();
}

#[test]
fn a_device_that_is_told_to_says_nothing() {
    let world = World::start();
    let node = world.node("logs = \"off\"\n");
    node.admin.deploy(&speaker(LIMITS));
    say(&node, "to myself");
    let answer = world.cloud.send("POST", "/v1/devices/pi1/logs", b"{}");
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = world.cloud.send("POST", "/v1/devices/pi1/logs", br#"{"level":"loud","for_s":0,"x":1}"#);
    assert_eq!(answer.json()["error"]["problems"].as_array().map(Vec::len), Some(3), "{answer:?}");
    // It answers other questions meanwhile, so it has heard this one.
    let generation = world.cloud.get("/v1/devices/pi1")["reported_version"].clone();
    node.admin.deploy(&Guest::new("another", "count").bundle());
    eventually("it reports", || (world.cloud.get("/v1/devices/pi1")["reported_version"] != generation).then_some(()));
    assert_eq!(world.came(), Vec::<Value>::new());
    node.stop();
}
