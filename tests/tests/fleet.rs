//! Both ends together: real nodes, and the real `holm cloud`, each in a process of its own, over mutual TLS.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use holm_tests::control_plane::ControlPlane;
use holm_tests::mqtt::{Client, Packet};
use holm_tests::node::{Node, Start, binary};
use holm_tests::{eventually, functions};
use serde_json::Value;

/// Quick to notice that somebody is gone.
const CONFIG: &str = "[functions]\nhealth_window = \"0ms\"\n[cloud]\nack_timeout = \"2s\"\nkeep_alive = \"2s\"\n";

/// Longer than the longest wait before a node connects again that these tests cause.
fn patiently<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within 120 s: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// As a person would, with the command that the control plane prints.
fn enrol(cloud: &ControlPlane, data: &Path, thing: &str) {
    let token = cloud.enrolment_token("greenhouse");
    let url = format!("https://{}", cloud.https);
    let mut command = Command::new(binary("holmd"));
    command.args(["enrol", "--cloud", &url, "--token", &token, "--ca-hash", &cloud.ca_hash, "--thing", thing]);
    let output = command.arg("--data").arg(data).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn start(data: &Path) -> Node {
    Start { config: CONFIG, ..Start::new(data) }.run()
}

fn is_connected(node: &Node) -> bool {
    node.admin.get("/v1/status")["cloud"]["state"] == "connected"
}

/// Publishes events of these numbers, and waits until each is acknowledged.
fn publish(node: &Node, numbers: std::ops::RangeInclusive<u16>) {
    let mut client = Client::connect(&node.mqtt, "publisher", true).unwrap();
    for number in numbers {
        let (id, payload) = (format!("event-{number}"), format!(r#"{{"id":"{number}"}}"#));
        client.publish("count/k", payload.as_bytes(), 1, number, false, Some(&id)).unwrap();
        let Packet::Ack(4, ..) = client.receive().unwrap() else { panic!("no acknowledgement") };
    }
}

/// The values of the counter's series, in the order in which the node recorded them.
fn counted(cloud: &ControlPlane, thing: &str) -> Vec<u64> {
    let answer = cloud.get(&format!("/v1/results?series=counter.n&device={thing}&limit=10000"));
    let mut rows: Vec<&Value> = answer["rows"].as_array().unwrap().iter().collect();
    rows.sort_by_key(|row| row["sequence"].as_u64());
    rows.iter().map(|row| row["value"].as_f64().unwrap_or_else(|| panic!("{row}")) as u64).collect()
}

#[test]
fn results_arrive_once_each_whoever_is_killed_meanwhile() {
    const EVENTS: u16 = 240;
    let folder = tempfile::tempdir().unwrap();
    let mut cloud = ControlPlane::start(folder.path());
    let data = folder.path().join("pi1");
    enrol(&cloud, &data, "pi1");
    let mut node = start(&data);
    node.admin.deploy(&functions::example("counter", |manifest| manifest));
    patiently("the link", || is_connected(&node).then_some(()));
    for round in 0..6_u16 {
        publish(&node, round * 40 + 1..=(round + 1) * 40);
        match round % 3 {
            0 => {
                node.kill();
                node = start(&data);
            }
            1 => cloud.kill_and_restart(),
            _ => {}
        }
    }
    let expected: Vec<u64> = (1..=u64::from(EVENTS)).collect();
    patiently("all results", || (counted(&cloud, "pi1").len() >= expected.len()).then_some(()));
    assert_eq!(counted(&cloud, "pi1"), expected);
    // And the node keeps none of them, once it has been told.
    patiently("an empty outbox", || {
        let status = node.admin.get("/v1/status");
        let left: u64 = status["outbox"].as_array().unwrap().iter().filter_map(|lane| lane["rows"].as_u64()).sum();
        (left == 0).then_some(())
    });
    assert_eq!(counted(&cloud, "pi1"), expected);
    node.stop();
    cloud.stop();
}

#[test]
fn a_fleet_is_seen_and_one_of_it_is_turned_away() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let things = ["pi1", "pi2", "pi3"];
    let nodes: Vec<Node> = things
        .iter()
        .map(|thing| {
            let data = folder.path().join(thing);
            enrol(&cloud, &data, thing);
            start(&data)
        })
        .collect();
    for node in &nodes {
        patiently("the link", || is_connected(node).then_some(()));
    }
    let devices = || cloud.get("/v1/devices")["devices"].as_array().unwrap().clone();
    let online = |name: &str| {
        let found = devices().into_iter().find(|device| device["thing"] == name).unwrap();
        found["connected"].as_bool().unwrap()
    };
    for thing in things {
        eventually("it is seen", || online(thing).then_some(()));
    }
    let answer = cloud.send("POST", "/v1/devices/pi2/revoke", b"");
    assert!((200..300).contains(&answer.status), "{answer:?}");
    patiently("it is cut off", || (!online("pi2")).then_some(()));
    patiently("it knows", || (!is_connected(&nodes[1])).then_some(()));
    assert!(online("pi1") && online("pi3"));
    for node in nodes {
        node.stop();
    }
    cloud.stop();
}
