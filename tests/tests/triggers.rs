//! Everything that starts a function, on a real node.

use std::time::{Duration, Instant};

use holm_tests::eventually;
use holm_tests::functions::{self, Guest};
use holm_tests::mqtt::{Client, Packet};
use holm_tests::node::{Node, Start};
use holm_tests::watcher::{Watcher, publish};
use serde_json::Value;

const QUICK: &str = "[functions]\nhealth_window = \"0ms\"\n";

fn text<'a>(report: &'a Value, key: &str) -> &'a str {
    report[key].as_str().unwrap_or_else(|| panic!("no {key} in {report}"))
}

fn attribute<'a>(report: &'a Value, name: &str) -> Option<&'a str> {
    report["attributes"].as_array().unwrap().iter().find(|pair| pair[0] == name).and_then(|pair| pair[1].as_str())
}

#[test]
fn an_interval_and_a_cron_expression_with_seconds_fire_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    let mut watcher = Watcher::new(&node, "seen/clock");
    let guest = Guest::new("clock", "witness")
        .trigger("schedule", "name = \"quick\"\ninterval = \"200ms\"")
        .trigger("schedule", "name = \"second\"\ncron = \"* * * * * *\"");
    let begin = Instant::now();
    node.admin.deploy(&guest.bundle());
    let (mut quick, mut second) = (Vec::new(), Vec::new());
    while second.len() < 3 {
        let (_, report) = watcher.next();
        assert_eq!((text(&report, "source"), &report["attempt"]), ("schedule", &Value::from(1)));
        let at = report["time_ms"].as_i64().unwrap();
        match text(&report, "subject") {
            "quick" => quick.push(at),
            "second" => second.push(at),
            other => panic!("{other}"),
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    for at in &second {
        assert!(at % 1000 < 400, "not at a whole second but at {at}");
    }
    assert!(second.windows(2).all(|pair| (600..1500).contains(&(pair[1] - pair[0]))), "{second:?}");
    let expected = (second.last().unwrap() - quick.first().unwrap()) / 200;
    assert!((expected - quick.len() as i64).abs() <= 3, "{} firings instead of {expected}: {quick:?}", quick.len());
    node.stop();
}

#[test]
fn a_firing_that_was_missed_runs_once_where_that_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let start = Start { config: QUICK, ..Start::new(folder.path()) };
    let node = start.run();
    let schedule = |missed: &str| format!("name = \"{missed}\"\ninterval = \"5s\"\nmissed = \"{missed}\"");
    let guest = Guest::new("clock", "witness")
        .trigger("schedule", &schedule("run-once"))
        .trigger("schedule", &schedule("skip"));
    let mut watcher = Watcher::new(&node, "seen/clock");
    node.admin.deploy(&guest.bundle());
    let mut subjects = [watcher.next().1, watcher.next().1].map(|report| text(&report, "subject").to_owned());
    subjects.sort();
    assert_eq!(subjects, ["run-once", "skip"]);
    node.stop();
    // Two firings are missed, and the next one is almost five seconds away.
    std::thread::sleep(Duration::from_millis(10_200));
    let node = start.run();
    let times = || node.admin.get("/v1/functions")["functions"][0]["succeeded"].as_u64().unwrap();
    // Before any watcher is there: the one that was missed has run, and it alone.
    eventually("the missed firing", || (times() >= 1).then_some(()));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(times(), 1);
    // And both go on.
    let mut watcher = Watcher::new(&node, "seen/clock");
    let mut subjects = [watcher.next().1, watcher.next().1].map(|report| text(&report, "subject").to_owned());
    subjects.sort();
    assert_eq!(subjects, ["run-once", "skip"]);
    node.kill();
}

#[test]
fn functions_are_started_by_the_end_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    let mut watcher = Watcher::new(&node, "seen/#");
    let once = "[retry]\nmax_attempts = 2\ninterval = \"20ms\"";
    node.admin.deploy(&Guest::new("first", "witness").on("good").bundle());
    node.admin.deploy(&Guest::new("weak", "trap").on("bad").more(once).bundle());
    node.admin.deploy(&Guest::new("after", "witness").trigger("function", "from = \"first\"").bundle());
    node.admin
        .deploy(&Guest::new("nurse", "witness").trigger("function", "from = \"weak\"\non = \"failure\"").bundle());
    publish(&node, "good", b"day");
    let (topic, report) = watcher.next();
    assert_eq!((topic.as_str(), text(&report, "source")), ("seen/first", "mqtt"));
    let (topic, report) = watcher.next();
    assert_eq!(
        (topic.as_str(), text(&report, "source"), text(&report, "subject")),
        ("seen/after", "function", "first")
    );
    assert_eq!(text(&report, "data"), "first saw day", "the answer of the one is the event of the other");
    publish(&node, "bad", b"0");
    let (topic, report) = watcher.next();
    assert_eq!((topic.as_str(), text(&report, "source"), text(&report, "subject")), ("seen/nurse", "function", "weak"));
    assert_eq!(text(&report, "data"), "0", "the event that failed");
    assert_eq!(node.admin.get("/v1/dlq")["dead_letters"][0]["attempts"], 2);
    assert_eq!(watcher.rest(Duration::from_millis(100)), []);
    node.stop();
}

#[test]
fn the_start_of_the_node_and_a_deployment_are_events() {
    let folder = tempfile::tempdir().unwrap();
    let start = Start { config: QUICK, ..Start::new(folder.path()) };
    let node = start.run();
    let mut watcher = Watcher::new(&node, "seen/herald");
    let guest = Guest::new("herald", "witness").trigger("lifecycle", "on = [\"start\", \"deployed\"]");
    node.admin.deploy(&guest.bundle());
    let (_, report) = watcher.next();
    assert_eq!((text(&report, "source"), text(&report, "subject")), ("lifecycle", "deployed"));
    node.admin.deploy(&guest.version("1.0.1").bundle());
    assert_eq!(text(&watcher.next().1, "subject"), "deployed");
    assert_eq!(watcher.rest(Duration::from_millis(100)), [], "a deployment is no start");
    node.stop();
    let node = start.run();
    eventually("the start", || {
        let (_, text) = node.admin.request("GET", "/v1/events", &[]);
        text.to_string().contains(r#"\"subject\":\"start\""#).then_some(())
    });
    let functions = node.admin.get("/v1/functions");
    assert_eq!(functions["functions"][0]["succeeded"], 1, "{functions}");
    node.stop();
}

#[test]
fn functions_enqueue_to_others_with_a_delay_and_invoke_them() {
    let folder = tempfile::tempdir().unwrap();
    let start = Start { config: QUICK, ..Start::new(folder.path()) };
    let node = start.run();
    let mut watcher = Watcher::new(&node, "seen/#");
    let permissions = "publish = [\"seen/#\"]\nkv = [\"rw:self\"]\ninvoke = [\"friend\", \"absent\"]";
    let caller =
        |name: &str, habit: &str, to: &str| Guest::new(name, habit).on(name).with("to", to).permissions(permissions);
    node.admin.deploy(&Guest::new("friend", "witness").bundle());
    node.admin.deploy(&caller("now", "enqueue-to", "friend").bundle());
    node.admin.deploy(&caller("later", "enqueue-to", "friend").with("ms", "700").bundle());
    node.admin.deploy(&caller("call", "invoke-to", "friend").bundle());
    node.admin.deploy(&caller("early", "enqueue-to", "absent").bundle());
    publish(&node, "now", b"a");
    let (_, report) = watcher.next();
    assert_eq!((text(&report, "source"), text(&report, "subject"), text(&report, "data")), ("invoke", "now", "a"));
    let begin = Instant::now();
    publish(&node, "later", b"b");
    let (_, report) = watcher.next();
    assert_eq!((text(&report, "subject"), text(&report, "data")), ("later", "b"));
    assert!(begin.elapsed() >= Duration::from_millis(650), "{:?}", begin.elapsed());
    // The effects of the one who is invoked settle with the caller's.
    publish(&node, "call", b"c");
    let mut both = [watcher.next(), watcher.next()];
    both.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!((both[0].0.as_str(), text(&both[0].1, "data")), ("seen/friend", "c"));
    assert_eq!(both[1], ("seen/invoked".to_owned(), Value::from("friend saw c")));
    // It is counted, as if an event had started it.
    let functions = node.admin.get("/v1/functions")["functions"].clone();
    let friend = functions.as_array().unwrap().iter().find(|function| function["name"] == "friend").unwrap();
    assert_eq!(friend["succeeded"], 3, "{friend}");
    // What is on its way survives a kill, and waits for a function that is not there yet.
    let watch = |node: &Node| Watcher::named(node, "guest", "seen/#");
    drop(watch(&node));
    publish(&node, "later", b"d");
    publish(&node, "early", b"e");
    node.kill();
    let node = start.run();
    let mut watcher = watch(&node);
    assert_eq!(text(&watcher.next().1, "data"), "d");
    node.admin.deploy(&Guest::new("absent", "witness").bundle());
    let (topic, report) = watcher.next();
    assert_eq!((topic.as_str(), text(&report, "data")), ("seen/absent", "e"));
    node.stop();
}

#[test]
fn quick_answers_do_not_wait_for_a_slow_event_behind_them() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    let limits = "memory = \"4MiB\"\ntimeout = \"20s\"\nconcurrency = 1";
    node.admin.deploy(&Guest::new("drowsy", "drowsy").on("doze").with("ms", "3000").limits(limits).bundle());
    for slow in ["sleep", "spin"] {
        let mut watcher = Watcher::new(&node, "seen/drowsy");
        let mut client = Client::connect(&node.mqtt, "burst", true).unwrap();
        for _ in 0..20 {
            client.publish("doze", b"1", 0, 0, false, None).unwrap();
        }
        client.publish("doze", slow.as_bytes(), 0, 0, false, None).unwrap();
        let begin = Instant::now();
        for _ in 0..20 {
            assert_eq!(watcher.next().1, 1);
        }
        assert!(begin.elapsed() < Duration::from_millis(2900), "{slow}: {:?}", begin.elapsed());
        assert_eq!(watcher.next().1, slow);
    }
    node.stop();
}

#[test]
fn retries_come_after_growing_waits_and_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let start = Start { config: QUICK, ..Start::new(folder.path()) };
    let node = start.run();
    let retry = "[retry]\nmax_attempts = 4\ninterval = \"250ms\"\nbackoff_rate = 2.0";
    node.admin.deploy(&Guest::new("stubborn", "third-time").on("try").more(retry).bundle());
    let mut watcher = Watcher::new(&node, "seen/stubborn");
    let begin = Instant::now();
    publish(&node, "try", b"a");
    let (_, report) = watcher.next();
    assert_eq!((&report["attempt"], &report["times"]), (&Value::from(3), &Value::from(1)));
    let waited = begin.elapsed();
    assert!(waited.as_millis() >= 740, "250 ms and 500 ms became {waited:?}");
    // Kept from before the end: whoever begins to look after it may be late.
    let watch = |node: &Node| Watcher::named(node, "guest", "seen/stubborn");
    drop(watch(&node));
    publish(&node, "try", b"b");
    node.stop();
    let node = start.run();
    let mut watcher = watch(&node);
    let (_, report) = watcher.next();
    assert_eq!((text(&report, "data"), &report["attempt"]), ("b", &Value::from(3)));
    node.stop();
}

#[test]
fn strict_order_holds_back_what_comes_behind_a_retry() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    let retry = |order: &str| format!("[retry]\nmax_attempts = 4\ninterval = \"100ms\"\norder = \"{order}\"");
    node.admin.deploy(&Guest::new("strict", "third-time").on("strict").more(&retry("block")).bundle());
    let mut watcher = Watcher::new(&node, "seen/strict");
    for number in 1..=3 {
        publish(&node, "strict", number.to_string().as_bytes());
    }
    for number in 1..=3 {
        assert_eq!(text(&watcher.next().1, "data"), number.to_string());
    }
    node.stop();
}

#[test]
fn a_new_function_gets_retained_messages_where_it_asks_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let start = Start { config: QUICK, ..Start::new(folder.path()) };
    let node = start.run();
    let mut client = Client::connect(&node.mqtt, "retainer", true).unwrap();
    // PUBLISH with QoS 1 and RETAIN.
    for (id, (topic, payload)) in [("state/a", "1"), ("state/b", "2"), ("elsewhere", "3")].into_iter().enumerate() {
        let id = u16::try_from(id + 1).unwrap();
        let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
        body.extend(topic.as_bytes());
        body.extend(id.to_be_bytes());
        body.push(0);
        body.extend(payload.as_bytes());
        client.raw(&[&[0x33, u8::try_from(body.len()).unwrap()], &body[..]].concat()).unwrap();
        assert_eq!(client.receive().unwrap(), Packet::Ack(4, id, 0));
    }
    node.stop();
    let node = start.run();
    let mut watcher = Watcher::new(&node, "seen/#");
    let guest = |name: &str, retained: &str| {
        Guest::new(name, "witness")
            .trigger("mqtt", &format!("topics = [\"state/+\", \"state/a\"]\nretained = \"{retained}\""))
    };
    node.admin.deploy(&guest("late", "keep").bundle());
    node.admin.deploy(&guest("indifferent", "skip").bundle());
    let mut seen: Vec<(String, String)> = [watcher.next(), watcher.next()]
        .into_iter()
        .map(|(topic, report)| {
            assert_eq!(attribute(&report, "retain"), Some("true"), "{report}");
            (topic, format!("{} {}", text(&report, "subject"), text(&report, "data")))
        })
        .collect();
    seen.sort();
    let late = |words: &str| ("seen/late".to_owned(), words.to_owned());
    assert_eq!(seen, [late("state/a 1"), late("state/b 2")]);
    assert_eq!(watcher.rest(Duration::from_millis(400)), []);
    // It has them: neither a new version nor a start gives them again.
    node.admin.deploy(&guest("late", "keep").version("1.0.1").bundle());
    assert_eq!(watcher.rest(Duration::from_millis(200)), []);
    node.stop();
}

#[test]
fn two_functions_on_one_event_both_run_once_even_when_one_is_slow_and_the_node_dies() {
    let folder = tempfile::tempdir().unwrap();
    let start = Start { config: QUICK, ..Start::new(folder.path()) };
    let node = start.run();
    node.admin.deploy(&functions::example("stateful", |text| text));
    node.admin.deploy(&Guest::new("quick", "witness").on("w2/#").bundle());
    let patient = "memory = \"4MiB\"\ntimeout = \"30s\"";
    node.admin.deploy(&Guest::new("slow", "slow").on("w2/#").with("ms", "3000").limits(patient).bundle());
    let mut watcher = Watcher::new(&node, "seen/#");
    let begin = Instant::now();
    assert_eq!(publish(&node, "w2/x", b"a"), 0);
    assert!(begin.elapsed() < Duration::from_millis(2_900), "the slow one holds nobody up: {:?}", begin.elapsed());
    for name in ["seen/quick", "seen/slow"] {
        let (topic, report) = watcher.next();
        assert_eq!((topic.as_str(), &report["times"]), (name, &Value::from(1)));
    }
    assert_eq!(publish(&node, "w2/x", b"b"), 0);
    assert_eq!(watcher.next().0, "seen/quick");
    node.kill();
    let node = start.run();
    let mut watcher = Watcher::new(&node, "seen/#");
    let (topic, report) = watcher.next();
    assert_eq!((topic.as_str(), text(&report, "data"), &report["times"]), ("seen/slow", "b", &Value::from(1)));
    assert_eq!(watcher.rest(Duration::from_millis(400)), [], "the quick one is done with it");
    for (function, key, times) in
        [("stateful", "n", "2"), ("quick", "times/a", "1"), ("quick", "times/b", "1"), ("slow", "times/b", "1")]
    {
        let state = node.admin.get(&format!("/v1/state/{function}"));
        assert_eq!(state["state"][key], times, "{function}: {state}");
    }
    node.stop();
}

#[test]
fn an_exactly_once_message_runs_once_however_often_it_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let start = Start { config: QUICK, ..Start::new(folder.path()) };
    let node = start.run();
    node.admin.deploy(&Guest::new("once", "witness").on("once").bundle());
    let mut watcher = Watcher::new(&node, "seen/once");
    let mut client = Client::connect(&node.mqtt, "exact", false).unwrap();
    for resend in [false, true, true] {
        client.publish("once", b"x", 2, 7, resend, None).unwrap();
        assert_eq!(client.receive().unwrap(), Packet::Ack(5, 7, 0));
    }
    let (_, report) = watcher.next();
    assert_eq!((&report["times"], attribute(&report, "qos")), (&Value::from(1), Some("2")));
    node.kill();
    let node = start.run();
    let mut watcher = Watcher::new(&node, "seen/once");
    let mut client = Client::connect(&node.mqtt, "exact", false).unwrap();
    client.publish("once", b"x", 2, 7, true, None).unwrap();
    assert_eq!(client.receive().unwrap(), Packet::Ack(5, 7, 0));
    client.ack(6, 7).unwrap();
    assert_eq!(client.receive().unwrap(), Packet::Ack(7, 7, 0));
    assert_eq!(watcher.rest(Duration::from_millis(200)), [], "it was settled before the kill");
    // The packet id is free again: this is another message.
    client.publish("once", b"x", 2, 7, false, None).unwrap();
    assert_eq!(client.receive().unwrap(), Packet::Ack(5, 7, 0));
    assert_eq!(watcher.next().1["times"], 2);
    node.stop();
}
