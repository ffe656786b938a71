//! One node, from outside.

use holm_tests::mqtt::{Client, Packet};
use holm_tests::node::Start;
use holm_tests::{eventually, functions};

const QUICK: &str = "[functions]\nhealth_window = \"0ms\"\n";

#[test]
fn a_function_runs_on_a_durable_message_and_its_effects_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let start = Start { config: QUICK, ..Start::new(folder.path()) };
    let node = start.run();
    node.admin.deploy(&functions::example("counter", |text| text));
    let mut subscriber = Client::connect(&node.mqtt, "sub", true).unwrap();
    subscriber.subscribe("counted/#", 1).unwrap();
    let mut publisher = Client::connect(&node.mqtt, "pub", true).unwrap();
    for number in 1..=3_u16 {
        let payload = format!(r#"{{"id":"{number}"}}"#);
        publisher.publish("count/x", payload.as_bytes(), 1, number, false, None).unwrap();
        assert_eq!(publisher.receive().unwrap(), Packet::Ack(4, number, 0));
    }
    for number in 1..=3 {
        let Packet::Publish { topic, payload, id, .. } = subscriber.receive().unwrap() else { panic!("no message") };
        assert_eq!((topic.as_str(), payload), ("counted/x", format!(r#"{{"n":{number}}}"#).into_bytes()));
        subscriber.ack(4, id).unwrap();
    }
    let results = node.admin.get("/v1/results/counter");
    assert_eq!(results["results"].as_array().unwrap().len(), 3, "{results}");
    node.stop();
    let node = start.run();
    let mut publisher = Client::connect(&node.mqtt, "pub", true).unwrap();
    publisher.publish("count/x", br#"{"id":"4"}"#, 1, 1, false, None).unwrap();
    assert_eq!(publisher.receive().unwrap(), Packet::Ack(4, 1, 0));
    let results = node.admin.get("/v1/results/counter");
    assert_eq!(results["results"][3]["value"], 4.0, "{results}");
    let functions = node.admin.get("/v1/functions");
    assert_eq!(functions["functions"][0]["total"]["invocations"], 4, "{functions}");
    node.stop();
}

#[test]
fn a_message_with_an_id_takes_effect_once() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    node.admin.deploy(&functions::example("counter", |text| text));
    let mut publisher = Client::connect(&node.mqtt, "pub", true).unwrap();
    for packet in 1..=5 {
        publisher.publish("count/x", br#"{"id":"a"}"#, 1, packet, false, Some("the-same")).unwrap();
    }
    for packet in 1..=5 {
        assert_eq!(publisher.receive().unwrap(), Packet::Ack(4, packet, 0));
    }
    assert_eq!(node.admin.get("/v1/results/counter")["results"].as_array().unwrap().len(), 1);
    assert_eq!(node.admin.get("/v1/status")["events"]["duplicates"], 4);
    node.stop();
}

#[test]
fn a_poison_message_goes_to_the_dead_letters_and_can_be_replayed_and_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    let retry = "[retry]\nmax_attempts = 2\ninterval = \"10ms\"\n";
    node.admin.deploy(&functions::example("counter", |text| text + retry));
    let mut publisher = Client::connect(&node.mqtt, "pub", true).unwrap();
    publisher.publish("count/x", b"not json", 1, 1, false, None).unwrap();
    assert_eq!(publisher.receive().unwrap(), Packet::Ack(4, 1, 0), "accepted: the node has it in the inbox");
    let dead = |count: usize| {
        eventually("a dead letter", || {
            let letters = node.admin.get("/v1/dlq");
            let list = letters["dead_letters"].as_array().unwrap().clone();
            (list.len() == count).then_some(list)
        })
    };
    let letters = dead(1);
    assert_eq!(letters[0]["function"], "counter");
    let id = letters[0]["id"].as_i64().unwrap();
    assert_eq!(node.admin.get(&format!("/v1/dlq/{id}"))["data"], "not json");
    assert_eq!(node.admin.post(&format!("/v1/dlq/{id}/replay"), &[]).0, 200);
    let again = eventually("its return", || {
        let letters = node.admin.get("/v1/dlq")["dead_letters"].as_array().unwrap().clone();
        letters.first().map(|letter| letter["id"].as_i64().unwrap()).filter(|new| *new != id)
    });
    assert_eq!(node.admin.request("DELETE", &format!("/v1/dlq/{again}"), &[]).0, 200);
    dead(0);
    node.stop();
}
