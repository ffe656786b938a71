//! What functions of a device write and what they could not handle, in a real browser before the real `holm cloud` with a real node.

use holm_tests::browser::drive;
use holm_tests::eventually;
use holm_tests::functions::Guest;
use holm_tests::mqtt::{Client, Packet};
use holm_tests::node::{Node, Start};
use holm_tests::world::World;
use serde_json::Value;

/// Time for a machine that is busy.
const ROOM: &str = "memory = \"4MiB\"\ntimeout = \"5s\"\nlog = \"64KiB\"";

#[test]
fn a_line_that_a_function_writes_is_seen_within_two_seconds_of_its_event() {
    let world = World::start();
    let node = world.node("");
    node.admin.deploy(&Guest::new("speaker", "speak").on("say").limits(ROOM).bundle());
    let mut client = Client::connect(&node.mqtt, "publisher", true).unwrap();
    let mut number = 0;
    drive(&world.cloud.https, &world.cloud.token, "tail.mjs", |question| {
        let text = question.strip_prefix("publish ").unwrap();
        let now = time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
        number += 1;
        client.publish("say", text.as_bytes(), 1, number, false, None).unwrap();
        let Packet::Ack(4, ..) = client.receive().unwrap() else { panic!("no acknowledgement") };
        now.to_string()
    });
    node.stop();
    world.cloud.stop();
}

fn picky(habit: &str, version: &str) -> Vec<u8> {
    Guest::new("picky", habit).on("ask").version(version).limits(ROOM).bundle()
}

/// The numbers of its dead letters, the latest first.
fn letters(node: &Node) -> Vec<String> {
    let answer = node.admin.get("/v1/dlq");
    answer["dead_letters"].as_array().unwrap().iter().map(|letter| letter["id"].to_string()).collect()
}

fn bury(node: &Node, text: &str) {
    let before = letters(node).len();
    assert_eq!(node.admin.post("/v1/functions/picky/invoke", text.as_bytes()).0, 200);
    eventually("a dead letter", || (letters(node).len() == before + 1).then_some(()));
}

#[test]
fn dead_letters_are_replayed_and_dropped_on_their_pages() {
    let world = World::start();
    let node = world.node("");
    node.admin.deploy(&picky("reject", "1.0.0"));
    for text in ["one", "<img src=x onerror=alert(1)> two", "three", "four"] {
        bury(&node, text);
    }
    // It tells of them when it comes back; else some minutes later.
    node.stop();
    let data = world.data();
    let node = Start { config: World::config(), ..Start::new(&data) }.run();
    let told = |device: &Value| device["reported"]["health"]["dead_letters"] == 4 && device["connected"] == true;
    eventually("it has told of them", || told(&world.cloud.get("/v1/devices/pi1")).then_some(()));
    let answer = world.cloud.send("POST", "/v1/operators", br#"{"name":"eve","role":"viewer"}"#);
    let viewer = answer.json()["token"].as_str().unwrap().to_owned();
    let mut node = Some(node);
    drive(&world.cloud.https, &world.cloud.token, "letters.mjs", |question| {
        if question == "kill" {
            node.take().unwrap().kill();
            eventually("it is away", || (world.cloud.get("/v1/devices/pi1")["connected"] == false).then_some(()));
            return "done".to_owned();
        }
        let node = node.as_ref().unwrap();
        match question {
            "mend" => {
                node.admin.deploy(&picky("echo", "1.0.1"));
            }
            "break" => {
                node.admin.deploy(&picky("reject", "1.0.2"));
                bury(node, "five");
            }
            "ran" => {
                eventually("an empty inbox", || (node.admin.get("/v1/status")["inbox"]["parked"] == 0).then_some(()));
                let function = node.admin.get("/v1/functions")["functions"][0].clone();
                return format!("{} {}", function["succeeded"], function["failed"]);
            }
            "left" => return letters(node).join(" "),
            "viewer" => return viewer.clone(),
            other => panic!("{other}"),
        }
        "done".to_owned()
    });
    drop(node);
    world.cloud.stop();
}
