//! The node on the machines that it is for: `holmd` for ARM, with native code that was compiled and signed on this one.
//!
//! `HOLM_ARM` names the folder of another build than the usual one.

use std::collections::BTreeSet;
use std::time::Duration;

use holm_tests::control_plane::ControlPlane;
use holm_tests::machine::Machine;
use holm_tests::mqtt::{Client, Packet};
use holm_tests::publisher::Publisher;
use holm_tests::{functions, skip, within};
use serde_json::Value;

/// It has no compiler, as a board that is sold has none. It is killed more often than a function is forgiven.
const CONFIG: &str = "[functions]\nhealth_window = \"0ms\"\nquarantine_after = 0\ncompiler = \"/nowhere/holm-compile\"\n\
                      [cloud]\nkeep_alive = \"2s\"\nack_timeout = \"5s\"\n";

/// An emulated processor is slow, and a node that was killed waits before it connects again.
const PATIENCE: Duration = Duration::from_secs(180);

const KILLS: u16 = 4;
const BURST: u16 = 20;

#[test]
fn an_aarch64_runs_what_was_compiled_for_it_and_loses_nothing_when_it_is_killed() {
    runs_and_loses_nothing(Machine::aarch64());
}

#[test]
fn an_armv7_runs_what_was_compiled_for_it_and_loses_nothing_when_it_is_killed() {
    runs_and_loses_nothing(Machine::armv7());
}

fn runs_and_loses_nothing(machine: Result<Machine, String>) {
    let machine = match machine {
        Ok(machine) => machine,
        Err(why) => return skip(&why),
    };
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let laptop = Publisher::new(folder.path());
    let data = folder.path().join("data");
    let (url, token) = (format!("https://{}", cloud.https), cloud.enrolment_token("greenhouse"));
    let mut enrol = machine.holmd(&["enrol", "--cloud", &url, "--ca-hash", &cloud.ca_hash, "--token", &token]);
    let output = enrol.args(["--thing", "pi3", "--data"]).arg(&data).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut node = machine.start(&data, CONFIG);
    within(PATIENCE, "it is connected", || cloud.get("/v1/devices/pi3")["connected"].as_bool().filter(|it| *it));

    laptop.ok(&cloud, &["key", "new", "--cloud"]);
    let bundle = laptop.bundle("counter.holm", &functions::example("counter", |manifest| manifest));
    laptop.publish(&cloud, &bundle, &["--profile", machine.profile]);
    let watch = ["--device", "pi3", "--watch", "--timeout", "180s", "--health-window", "1s"];
    let told = laptop.ok(&cloud, &[&["deploy", "counter@0.1.0"], &watch[..]].concat());
    assert!(told.ends_with("confirmed\n"), "{told}");

    let mut subscriber = Client::connect(&node.mqtt, "subscriber", true).unwrap();
    subscriber.subscribe("counted/#", 1).unwrap();
    let mut open = BTreeSet::new();
    for round in 0..KILLS {
        open.extend(round * BURST + 1..=(round + 1) * BURST);
        let mut publisher = publish(&node.mqtt, &open);
        if round == 0 {
            let Packet::Publish { topic, payload, .. } = subscriber.receive().unwrap() else { panic!("no answer") };
            assert_eq!((&*topic, &*payload), ("counted/k", &br#"{"n":1}"#[..]));
        }
        // In the middle of them: more are acknowledged from kill to kill.
        (0..=round * 5).for_each(|_| acknowledged(&mut publisher, &mut open));
        node.kill();
        node = machine.start(&data, CONFIG);
    }
    let mut publisher = publish(&node.mqtt, &open);
    while !open.is_empty() {
        acknowledged(&mut publisher, &mut open);
    }

    // Each has taken effect, and once: what was not acknowledged was sent again under its name.
    let expected: Vec<u64> = (1..=u64::from(KILLS * BURST)).collect();
    let counted = || {
        let answer = cloud.get("/v1/results?series=counter.n&device=pi3&limit=10000");
        let mut rows: Vec<&Value> = answer["rows"].as_array().unwrap().iter().collect();
        rows.sort_by_key(|row| row["sequence"].as_u64());
        rows.iter().map(|row| row["value"].as_f64().unwrap() as u64).collect::<Vec<_>>()
    };
    within(PATIENCE, "all results are in the control plane", || (counted().len() >= expected.len()).then_some(()));
    assert_eq!(counted(), expected);
    node.stop();
    cloud.stop();
}

/// Sends all of these, and does not wait.
fn publish(address: &str, numbers: &BTreeSet<u16>) -> Client {
    let mut client = Client::connect(address, "publisher", true).unwrap();
    for number in numbers {
        let (name, payload) = (format!("event-{number}"), format!(r#"{{"id":"{number}"}}"#));
        client.publish("count/k", payload.as_bytes(), 1, *number, false, Some(&name)).unwrap();
    }
    client
}

/// Waits for one acknowledgement.
fn acknowledged(client: &mut Client, open: &mut BTreeSet<u16>) {
    match client.receive().unwrap() {
        Packet::Ack(4, number, 0) => assert!(open.remove(&number), "{number} is acknowledged twice"),
        other => panic!("{other:?} instead of an acknowledgement"),
    }
}
