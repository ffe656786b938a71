//! Crashes in a row with the same function, and the clean end under load.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holm_store::OpenOptions;
use holm_tests::eventually;
use holm_tests::functions::{self, Guest};
use holm_tests::mqtt::{Client, Packet};
use holm_tests::node::{self, Node, Start};
use holm_tests::watcher::{Watcher, publish};
use serde_json::Value;

const QUICK: &str = "[functions]\nhealth_window = \"0ms\"\n";

fn state(node: &Node, name: &str) -> String {
    let functions = node.admin.get("/v1/functions");
    let found = functions["functions"].as_array().unwrap().iter().find(|one| one["name"] == name).cloned();
    found.unwrap_or_else(|| panic!("{name} is not in {functions}"))["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_function_that_takes_the_node_down_twice_is_quarantined_until_it_is_released() {
    let folder = tempfile::tempdir().unwrap();
    let start = Start { config: QUICK, ..Start::new(folder.path()) };
    let mut node = start.run();
    let patient = "memory = \"4MiB\"\ntimeout = \"30s\"";
    node.admin.deploy(&Guest::new("killer", "slow").on("kill").with("ms", "1500").limits(patient).bundle());
    node.admin.deploy(&Guest::new("friend", "witness").on("friend").bundle());
    // Acknowledged after 50 ms, while the function runs; after the first kill the row of the inbox runs by itself.
    assert_eq!(publish(&node, "kill", b"x"), 0);
    node.kill();
    node = start.run();
    assert_eq!(state(&node, "killer"), "confirmed-unexercised", "once is no proof");
    eventually("its next run", || {
        let running = std::fs::read(folder.path().join("running")).unwrap();
        running.windows(6).any(|name| name == b"killer").then_some(())
    });
    node.kill();
    node = start.run();
    assert_eq!(state(&node, "killer"), "quarantined");
    assert!(node::log(folder.path()).contains("holm functions release"), "{}", node::log(folder.path()));
    // Its events wait, and nobody else does.
    let mut watcher = Watcher::new(&node, "seen/#");
    assert_eq!(publish(&node, "kill", b"y"), 0);
    assert_eq!(publish(&node, "friend", b"z"), 0);
    assert_eq!(watcher.next().0, "seen/friend");
    assert_eq!(watcher.rest(Duration::from_millis(200)), []);
    assert_eq!(node.admin.get("/v1/status")["inbox"]["parked"], 2);
    assert_eq!(node.admin.post("/v1/functions/friend/release", &[]).0, 404, "it is not quarantined");
    // Neither a clean start nor another kill sets it free.
    node.stop();
    node = start.run();
    assert_eq!(state(&node, "killer"), "quarantined");
    node.kill();
    node = start.run();
    assert_eq!(state(&node, "killer"), "quarantined");
    let mut watcher = Watcher::new(&node, "seen/killer");
    assert_eq!(node.admin.post("/v1/functions/killer/release", &[]).0, 200);
    let mut data: Vec<String> =
        [watcher.next().1, watcher.next().1].iter().map(|report| report["data"].as_str().unwrap().to_owned()).collect();
    data.sort();
    assert_eq!(data, ["x", "y"]);
    // Released means forgiven: one more crash is again only one.
    assert_eq!(publish(&node, "kill", b"w"), 0);
    node.kill();
    node = start.run();
    assert_eq!(state(&node, "killer"), "confirmed-unexercised");
    node.kill();
}

#[test]
fn a_new_version_of_a_quarantined_function_runs() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[functions]\nhealth_window = \"0ms\"\nquarantine_after = 1\n";
    let start = Start { config, ..Start::new(folder.path()) };
    let node = start.run();
    let patient = "memory = \"4MiB\"\ntimeout = \"30s\"";
    let killer = Guest::new("killer", "slow").on("kill").with("ms", "1000").limits(patient);
    node.admin.deploy(&killer.bundle());
    assert_eq!(publish(&node, "kill", b"x"), 0);
    node.kill();
    let node = start.run();
    assert_eq!(state(&node, "killer"), "quarantined");
    let mut watcher = Watcher::new(&node, "seen/killer");
    node.admin.deploy(&Guest::new("killer", "witness").on("kill").version("1.0.1").bundle());
    let (_, report) = watcher.next();
    assert_eq!((&report["data"], &report["times"]), (&Value::from("x"), &Value::from(1)));
    node.stop();
    let node = start.run();
    assert_ne!(state(&node, "killer"), "quarantined");
    node.stop();
}

/// Publishes until the node ends the connection; answers what was acknowledged.
fn flood(address: &str, next: &AtomicU64) -> Vec<u64> {
    let mut client = Client::connect(address, "publisher", true).unwrap();
    let (mut open, mut done, mut id) = (VecDeque::new(), Vec::new(), 0_u16);
    loop {
        while open.len() < 16 {
            let number = next.fetch_add(1, Ordering::Relaxed);
            id = id.checked_add(1).unwrap_or(1);
            open.push_back((id, number));
            let topic = if number.is_multiple_of(50) { "count/slow" } else { "count/quick" };
            let payload = format!(r#"{{"id":"{number}"}}"#);
            if client.publish(topic, payload.as_bytes(), 1, id, false, None).is_err() {
                return done;
            }
        }
        match client.receive() {
            Ok(Packet::Ack(4, found, code)) => {
                let (expected, number) = open.pop_front().unwrap();
                assert_eq!(found, expected);
                if code == 0 {
                    done.push(number);
                }
            }
            // DISCONNECT with Server shutting down.
            Ok(Packet::Other(14, body)) => assert_eq!(body.first(), Some(&0x8b)),
            Ok(other) => panic!("{other:?}"),
            Err(_) => return done,
        }
    }
}

#[test]
fn a_clean_end_under_load_loses_nothing_that_was_acknowledged_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let start = Start { config: QUICK, ..Start::new(folder.path()) };
    let node = start.run();
    node.admin.deploy(&functions::example("counter", |text| text.replace("16MiB", "64MiB")));
    node.admin.deploy(&Guest::new("sloth", "slow").on("count/slow").with("ms", "60").bundle());
    node.stop();
    let next = AtomicU64::new(1);
    let mut acknowledged = Vec::new();
    for _ in 0..3 {
        let node = start.run();
        let address = node.mqtt.clone();
        std::thread::scope(|scope| {
            let publisher = scope.spawn(|| flood(&address, &next));
            std::thread::sleep(Duration::from_millis(400));
            node.stop();
            acknowledged.extend(publisher.join().unwrap());
        });
    }
    assert!(acknowledged.len() > 200, "only {} events", acknowledged.len());
    let node = start.run();
    eventually("an empty inbox", || (node.admin.get("/v1/status")["inbox"]["parked"] == 0).then_some(()));
    assert_eq!(node.admin.get("/v1/dlq")["dead_letters"], serde_json::json!([]));
    node.stop();
    let opened = OpenOptions::new(folder.path()).open().unwrap();
    let reader = opened.store.reader().unwrap();
    let times = |namespace: &str, key: &str| -> u64 {
        let value = reader.get(&namespace.into(), &key.into()).unwrap().value;
        value.map_or(0, |value| String::from_utf8(value.to_vec()).unwrap().parse().unwrap())
    };
    let acknowledged: BTreeSet<u64> = acknowledged.into_iter().collect();
    for number in 1..next.load(Ordering::Relaxed) {
        let counted = times("counter", &format!("seen/{number}"));
        let slow = times("sloth", &format!(r#"times/{{"id":"{number}"}}"#));
        let expected = u64::from(number.is_multiple_of(50)) * counted;
        assert_eq!(slow, expected, "event {number}: both functions or neither");
        assert!(counted == 1 || counted == 0 && !acknowledged.contains(&number), "event {number} ran {counted} times");
    }
}
