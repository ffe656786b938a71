//! Dead letters from afar: shown, replayed and dropped on the device, each once, whatever is lost on the way.
//!
//! A letter has a number that no other has, and a function that rejects makes a new letter of each run: so the numbers tell how
//! often it ran.

use std::process::Output;

use holm_core::FunctionName;
use holm_protocol::{Ack, Ask, ClientToken, LetterWay, Line, MOVED_STREAM, MovedLetters};
use holm_tests::cloud::{Acks, Plane};
use holm_tests::control_plane::Answer;
use holm_tests::eventually;
use holm_tests::functions::Guest;
use holm_tests::node::Node;
use holm_tests::world::World;
use serde_json::{Value, json};

/// Room for events that are large, and time for a machine that is busy.
const ROOM: &str = "memory = \"16MiB\"\ntimeout = \"10s\"";

fn picky(habit: &str) -> Guest {
    Guest::new("picky", habit).on("ask").limits(ROOM)
}

fn invoke(node: &Node, data: &[u8]) {
    let (status, answer) = node.admin.post("/v1/functions/picky/invoke", data);
    assert_eq!(status, 200, "{answer}");
}

/// The numbers of its dead letters, the oldest first.
fn letters(node: &Node) -> Vec<i64> {
    let answer = node.admin.get("/v1/dlq?limit=1000");
    answer["dead_letters"].as_array().unwrap().iter().rev().map(|letter| letter["id"].as_i64().unwrap()).collect()
}

fn await_letters(node: &Node, expected: impl IntoIterator<Item = i64>) {
    let expected: Vec<i64> = expected.into_iter().collect();
    eventually(&format!("the dead letters {expected:?}"), || (letters(node) == expected).then_some(()));
}

/// Nothing else is on its way: what was asked before is done.
fn at_rest(node: &Node) {
    eventually("an empty inbox", || (node.admin.get("/v1/status")["inbox"]["parked"] == 0).then_some(()));
}

/// What a device has said to a scripted control plane of letters that it moved.
fn moved(plane: &Plane) -> Vec<MovedLetters> {
    let state = plane.core.state();
    let lines = state.stream("pi3", MOVED_STREAM).map(|stream| stream.lines.values().cloned().collect::<Vec<_>>());
    let read = |line: Line| match line {
        Line::Record(record) => serde_json::from_slice(&record.data).unwrap(),
        Line::Gap(gap) => panic!("{gap:?}"),
    };
    lines.unwrap_or_default().into_iter().map(read).collect()
}

#[test]
fn an_ask_that_is_told_again_moves_no_letter_twice() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::start(folder.path());
    let data = folder.path().join("data");
    let node = plane.node(&data, "pi3");
    node.admin.deploy(&picky("reject").bundle());
    invoke(&node, b"one");
    await_letters(&node, [1]);
    let id = |text: &str| ClientToken::new(text).unwrap();
    let ask = |ask: &Ask| plane.core.send("holm/pi3/ack", &Ack::asking(ask.clone()).write().unwrap());
    let connected = |node: &Node| {
        eventually("it is connected", || (node.admin.get("/v1/status")["cloud"]["state"] == "connected").then_some(()));
    };
    connected(&node);
    // It is done, and nobody hears of it; then the power goes.
    plane.core.state().acks = Acks::Never;
    let replay = Ask::ReplayDeadLetters { id: id("ask-1"), letters: vec![1, 1] };
    ask(&replay);
    await_letters(&node, [2]);
    node.kill();
    plane.core.state().acks = Acks::Prompt;
    let node = Plane::run(&data);
    connected(&node);
    // The word of it was written with it, so it comes after all.
    let first = eventually("what became of it", || moved(&plane).into_iter().next());
    let done = |id, way, done: &[i64], gone: &[i64], left| MovedLetters {
        id,
        way,
        done: done.to_vec(),
        gone: gone.to_vec(),
        more: false,
        left,
        declined: None,
    };
    assert_eq!(first, done(id("ask-1"), LetterWay::Replay, &[1], &[], 0));
    ask(&replay);
    let again = eventually("what became of it", || moved(&plane).into_iter().nth(1));
    assert_eq!(again, done(id("ask-1"), LetterWay::Replay, &[], &[1], 1));
    at_rest(&node);
    assert_eq!(letters(&node), [2], "it ran again");

    // Of a function, up to the last number that whoever asks has seen.
    let function = FunctionName::new("picky").unwrap();
    let all = Ask::ReplayFunction { id: id("ask-2"), function, until: 2 };
    ask(&all);
    await_letters(&node, [3]);
    ask(&all);
    let again = eventually("what became of it", || moved(&plane).into_iter().nth(3));
    assert_eq!(again, done(id("ask-2"), LetterWay::Replay, &[], &[], 1));
    at_rest(&node);
    assert_eq!(letters(&node), [3], "what had failed again was replayed");

    // What is no ask, or too much of one, does nothing.
    let numbers: Vec<i64> = (1..=101).collect();
    for asked in [
        json!({ "what": "drop-dead-letters", "id": "ask-3", "letters": numbers }),
        json!({ "what": "drop-dead-letters", "id": "ask-3" }),
        json!({ "what": "drop-everything", "id": "ask-3", "letters": [3] }),
        json!({ "what": "replay-function", "id": "ask-3", "function": "../picky", "until": 3 }),
    ] {
        plane.core.send("holm/pi3/ack", json!({ "v": 1, "asks": [asked] }).to_string().as_bytes());
    }
    ask(&Ask::DropDeadLetters { id: id("ask-4"), letters: vec![2, 3] });
    let dropped = eventually("what became of it", || moved(&plane).into_iter().nth(4));
    assert_eq!(dropped, done(id("ask-4"), LetterWay::Drop, &[3], &[2], 0));
    assert_eq!(letters(&node), Vec::<i64>::new());
    node.stop();
}

#[test]
fn dead_letters_are_shown_replayed_and_dropped_by_command() {
    let world = World::start();
    let node = world.node("");
    node.admin.deploy(&picky("reject").bundle());
    for text in ["one", "two", "three"] {
        invoke(&node, text.as_bytes());
    }
    await_letters(&node, 1..=3);
    let holm = |words: &[&str]| world.laptop.ok(&world.cloud, &[&["dlq"][..], words, &["--device", "pi1"]].concat());
    let fails =
        |words: &[&str]| world.laptop.fails(&world.cloud, 1, &[&["dlq"][..], words, &["--device", "pi1"]].concat());
    let shown = holm(&["show", "2"]);
    assert!(shown.contains("function    picky") && shown.trim_end().ends_with("two"), "{shown}");
    let shown: Value = serde_json::from_str(&holm(&["show", "2", "--json"])).unwrap();
    let here = node.admin.get("/v1/dlq/2");
    for field in ["id", "function", "event", "data", "attributes", "buried", "expires", "kind"] {
        assert_eq!(shown[field], here[field], "{field}");
    }
    assert_eq!((&shown["withheld"], &shown["cut"]), (&json!(false), &json!(false)));
    // It is mended.
    node.admin.deploy(&picky("echo").version("1.0.1").bundle());
    assert_eq!(holm(&["replay", "1", "1"]), "dead letter 1 is in the inbox of pi1 again\n");
    await_letters(&node, [2, 3]);
    let told = fails(&["replay", "1", "2"]);
    assert!(
        told.contains("not among the dead letters of pi1: 1") && told.contains("holm dlq list --device pi1"),
        "{told}"
    );
    await_letters(&node, [3]);
    assert_eq!(holm(&["drop", "3"]), "dead letter 3 is dropped\n");
    assert_eq!(letters(&node), Vec::<i64>::new());
    let told = fails(&["show", "3"]);
    assert!(told.contains("pi1 has no dead letter 3"), "{told}");
    eventually("both have run", || (node.admin.get("/v1/functions")["functions"][0]["succeeded"] == 2).then_some(()));
    // Who did what, the latest first.
    let deeds = world.cloud.get("/v1/audit?limit=4")["audit"].clone();
    let deeds: Vec<[&str; 3]> = deeds
        .as_array()
        .unwrap()
        .iter()
        .map(|deed| ["operator", "action", "object"].map(|field| deed[field].as_str().unwrap()))
        .collect();
    let expected = [
        ["admin", "drop dead letters", "pi1: 3"],
        ["admin", "replay dead letters", "pi1: 1 2"],
        ["admin", "replay dead letters", "pi1: 1"],
    ];
    assert_eq!(deeds[..3], expected);
    node.stop();
}

#[test]
fn many_letters_go_in_lots_and_each_once() {
    let world = World::start();
    let node = world.node("");
    node.admin.deploy(&picky("reject").bundle());
    for number in 0..105 {
        invoke(&node, number.to_string().as_bytes());
    }
    // What is large goes in lots of some megabytes, so that a small board has room for it.
    let large = vec![b'x'; 900 << 10];
    for _ in 0..6 {
        invoke(&node, &large);
    }
    await_letters(&node, 1..=111);
    let ask = |body: Value| {
        let answer = world.cloud.send("POST", "/v1/devices/pi1/dead-letters/replay", body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["answer"].clone()
    };
    let first = ask(json!({ "function": "picky", "until": 105 }));
    assert_eq!(first["done"], json!((1..=100).collect::<Vec<i64>>()), "the oldest hundred");
    assert_eq!(first["more"], true);
    let second = ask(json!({ "letters": [106, 107, 108, 109, 110, 111] }));
    assert_eq!((&second["done"], &second["more"]), (&json!([106, 107, 108, 109, 110]), &json!(true)));
    // All the rest, those that have failed again too, but none of them twice.
    await_letters(&node, (101..=105).chain([111]).chain(112..=216));
    let words = ["dlq", "replay", "--function", "picky", "--device", "pi1"];
    assert_eq!(world.laptop.ok(&world.cloud, &words), "111 dead letters of picky are in the inbox of pi1 again\n");
    await_letters(&node, 217..=327);
    // One that is large is shown up to what one message holds.
    let data = node.admin.get("/v1/dlq?limit=1000")["dead_letters"].clone();
    let large = data.as_array().unwrap().iter().find(|letter| letter["bytes"] == 900 << 10).unwrap()["id"].clone();
    let words = ["dlq", "show", &large.to_string(), "--device", "pi1", "--json"];
    let shown: Value = serde_json::from_str(&world.laptop.ok(&world.cloud, &words)).unwrap();
    assert_eq!((&shown["cut"], &shown["bytes"]), (&json!(true), &json!(900 << 10)));
    assert!((10_000..60_000).contains(&shown["data"].as_str().unwrap().len()));
    // On the node itself it is the same.
    let data = world.data();
    let words = ["--data", data.to_str().unwrap(), "dlq", "replay", "--function", "picky"];
    assert_eq!(world.laptop.ok(&world.cloud, &words), "111 dead letters of picky are in the inbox again\n");
    await_letters(&node, 328..=438);
    let words = ["--data", data.to_str().unwrap(), "dlq", "replay", "--function", "nobody"];
    let output: Output = world.laptop.run(&world.cloud, &words);
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    node.stop();
}

#[test]
fn only_admins_move_letters_and_only_those_that_they_name() {
    let world = World::start();
    let node = world.node("");
    node.admin.deploy(&picky("reject").bundle());
    invoke(&node, b"one");
    await_letters(&node, [1]);
    let answer = world.cloud.send("POST", "/v1/operators", br#"{"name":"eve","role":"viewer"}"#);
    let viewer = answer.json()["token"].as_str().unwrap().to_owned();
    for path in ["", "/1", "/replay", "/drop"] {
        let path = format!("/v1/devices/pi1/dead-letters{path}");
        for (token, expected) in [(Some(viewer.as_str()), 403), (None, 401), (Some("no-such-token"), 401)] {
            let answer = world.cloud.ask("POST", &path, token, br#"{"letters":[1]}"#);
            assert_eq!(answer.status, expected, "{path}: {answer:?}");
        }
    }
    let send = |path: &str, body: Value| -> Answer {
        let path = format!("/v1/devices/{path}");
        world.cloud.send("POST", &path, body.to_string().as_bytes())
    };
    for (verb, body, problems) in [
        ("replay", json!({}), 1),
        ("replay", json!({ "letters": [1], "function": "picky", "until": 1 }), 1),
        ("replay", json!({ "function": "picky" }), 1),
        ("replay", json!({ "function": "Picky!", "until": 0 }), 3),
        ("replay", json!({ "letters": ["one", 0, -1, 1.5], "all": true }), 5),
        ("drop", json!({ "letters": [] }), 1),
        ("drop", json!({ "letters": (1..=101).collect::<Vec<i64>>() }), 1),
        ("drop", json!({ "function": "picky", "until": 1 }), 3),
    ] {
        let answer = send(&format!("pi1/dead-letters/{verb}"), body.clone());
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert_eq!(answer.json()["error"]["problems"].as_array().map(Vec::len), Some(problems), "{body}: {answer:?}");
    }
    for (path, expected) in [
        ("nobody/dead-letters/drop", 404),
        ("pi1/dead-letters/99", 404),
        ("pi1/dead-letters/0", 404),
        ("pi1/dead-letters/all", 404),
    ] {
        assert_eq!(send(path, json!({ "letters": [1] })).status, expected, "{path}");
    }
    let deeds = world.cloud.get("/v1/audit").to_string();
    assert!(!deeds.contains("dead letters"), "what was refused is no deed: {deeds}");
    assert_eq!(letters(&node), [1]);
    // One that is away is not asked, and it says so at once.
    node.stop();
    eventually("it is away", || world.cloud.get("/v1/devices/pi1")["connected"].as_bool().filter(|it| !*it));
    let told = world.laptop.fails(&world.cloud, 1, &["dlq", "drop", "1", "--device", "pi1"]);
    assert!(told.contains("pi1 is not connected, so it cannot be asked"), "{told}");
}

#[test]
fn a_device_that_is_told_to_keeps_its_letters_and_what_was_in_them() {
    let world = World::start();
    let node = world.node("letters = false\ntraps = false\n");
    node.admin.deploy(&picky("reject").bundle());
    invoke(&node, b"confidential");
    await_letters(&node, [1]);
    for words in [&["replay", "1"][..], &["replay", "--function", "picky"], &["drop", "1"]] {
        let told = world.laptop.fails(&world.cloud, 1, &[&["dlq"][..], words, &["--device", "pi1"]].concat());
        assert!(told.contains("pi1 has moved no dead letter") && told.contains("cloud.letters"), "{told}");
    }
    assert_eq!(letters(&node), [1]);
    let output = world.laptop.run(&world.cloud, &["dlq", "show", "1", "--device", "pi1"]);
    let (told, notes) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("function    picky") && notes.contains("cloud.traps"), "{output:?}");
    assert!(!world.came().iter().any(|row| row.to_string().contains("confidential")));
    // Who is on the node does as he likes.
    assert_eq!(node.admin.request("DELETE", "/v1/dlq/1", &[]).0, 200);
    node.stop();
}
