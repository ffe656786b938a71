//! How the node shares itself out: among functions that invoke each other, wait in queues, or want all of it.

use std::time::{Duration, Instant};

use holm_tests::eventually;
use holm_tests::functions::Guest;
use holm_tests::mqtt::Client;
use holm_tests::node::{Node, Start};
use holm_tests::watcher::{Watcher, acknowledgement, publish, publish_all};
use serde_json::Value;

const QUICK: &str = "[functions]\nhealth_window = \"0ms\"\n";

/// One attempt, so that a failure that counts is in the dead letters at once.
const ONCE: &str = "[retry]\nmax_attempts = 1";

/// For functions that are not to run out of time, however busy the machine is.
const PATIENT: &str = "memory = \"4MiB\"\ntimeout = \"20s\"";

fn function(node: &Node, name: &str) -> Value {
    let functions = node.admin.get("/v1/functions");
    functions["functions"].as_array().unwrap().iter().find(|one| one["name"] == name).cloned().unwrap()
}

fn parked(node: &Node) -> u64 {
    node.admin.get("/v1/status")["inbox"]["parked"].as_u64().unwrap()
}

fn dead_letters(node: &Node) -> Vec<Value> {
    node.admin.get("/v1/dlq?limit=1000")["dead_letters"].as_array().unwrap().clone()
}

#[test]
fn functions_that_invoke_each_other_see_what_the_event_has_written_and_settle_in_that_order() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    let permissions = |to: &str| format!("publish = [\"seen/#\"]\nkv = [\"rw:self\"]\ninvoke = [\"{to}\"]");
    let caller = |name: &str, habit: &str, to: &str| {
        let guest = Guest::new(name, habit).on(name).with("to", to).permissions(&permissions(to));
        guest.limits(&format!("{PATIENT}\nkv = \"64KiB\"")).more(ONCE)
    };
    node.admin.deploy(&Guest::new("friend", "witness").on("friend").limits(PATIENT).bundle());
    node.admin.deploy(&caller("twice", "invoke-twice", "friend").bundle());
    node.admin.deploy(&caller("tally", "tally", "tally").bundle());
    let mut watcher = Watcher::new(&node, "seen/#");
    // Both children count under one key, and then an event of its own goes on from there.
    publish(&node, "twice", b"x");
    for times in [1, 2] {
        assert_eq!(watcher.next().1["times"], times, "{:?}", dead_letters(&node));
    }
    publish(&node, "friend", b"x");
    assert_eq!(watcher.next().1["times"], 3);
    // One that invokes itself: what each level has written before and after is seen by the others, also in the lists
    // of keys, and a second event goes on from what the first one left.
    for base in [0, 6] {
        publish(&node, "tally", b"2");
        let old = if base == 0 { 0 } else { 1 };
        for (step, words) in ["before 2", "before 1", "before 0", "after 0", "after 1", "after 2"].iter().enumerate() {
            // `n`, what the event before has left, and the one key that each level deletes of the level above it.
            let keys = match step {
                0 => 1 + old,
                1 | 2 => 2 + old,
                _ => 2,
            };
            let expected = format!("{words}: {} of {keys}", base + step + 1);
            assert_eq!(watcher.next().1, expected, "{:?}", dead_letters(&node));
        }
    }
    assert_eq!(watcher.rest(Duration::from_millis(100)), []);
    node.stop();
}

#[test]
fn strict_order_goes_on_when_the_queue_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    // The first event is slow enough to be parked after the third, which finds no room in a queue of one.
    let limits = "memory = \"4MiB\"\ntimeout = \"5s\"\nqueue = 1";
    let retry = "[retry]\nmax_attempts = 4\ninterval = \"50ms\"\norder = \"block\"";
    let guest = Guest::new("strict", "slow-third-time").on("strict").with("ms", "120").limits(limits).more(retry);
    node.admin.deploy(&guest.bundle());
    let mut watcher = Watcher::new(&node, "seen/strict");
    publish_all(&node, "strict", (1..=4).map(|number| number.to_string()));
    // Which of them found room depends on when the worker took the first, but all must come to their end.
    let mut seen: Vec<Value> = (1..=4).map(|_| watcher.next().1).collect();
    seen.sort_by_key(|report| report["data"].to_string());
    for (number, report) in (1..=4).zip(&seen) {
        assert_eq!((&report["data"], &report["attempt"]), (&Value::from(number.to_string()), &Value::from(3)));
    }
    eventually("an empty inbox", || (parked(&node) == 0).then_some(()));
    node.stop();
}

#[test]
fn a_function_that_takes_its_time_does_not_hold_every_worker() {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("{QUICK}workers = 2\n");
    let node = Start { config: &config, ..Start::new(folder.path()) }.run();
    let limits = format!("{PATIENT}\nconcurrency = 8");
    node.admin.deploy(&Guest::new("hog", "slow").on("hog").with("ms", "400").limits(&limits).bundle());
    node.admin.deploy(&Guest::new("neighbour", "witness").on("hello").limits(PATIENT).bundle());
    let mut watcher = Watcher::new(&node, "seen/neighbour");
    publish_all(&node, "hog", (1..=12).map(|number| number.to_string()));
    publish(&node, "hello", b"x");
    assert_eq!(watcher.next().1["data"], "x");
    let done = function(&node, "hog")["succeeded"].as_u64().unwrap();
    assert!(done < 6, "the neighbour had to wait for {done} of 12 events that take 400 ms each");
    node.stop();
}

#[test]
fn want_of_the_nodes_memory_does_not_count_as_an_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("{QUICK}workers = 2\nmemory = \"8MiB\"\n");
    let node = Start { config: &config, ..Start::new(folder.path()) }.run();
    let caller = |name: &str, to: &str| {
        let guest = Guest::new(name, "invoke-itself").on(name).with("to", to).limits(PATIENT).more(ONCE);
        guest.permissions(&format!("invoke = [\"{to}\"]"))
    };
    node.admin.deploy(&Guest::new("occupant", "slow").on("occupy").with("ms", "700").limits(PATIENT).bundle());
    node.admin.deploy(&Guest::new("friend", "witness").limits(PATIENT).bundle());
    node.admin.deploy(&caller("caller", "friend").bundle());
    node.admin.deploy(&caller("endless", "endless").bundle());
    let mut watcher = Watcher::new(&node, "seen/friend");
    // It is acknowledged when it is parked, and so is running by then: half of the memory is taken.
    publish(&node, "occupy", b"x");
    publish(&node, "caller", b"y");
    assert_eq!(watcher.next().1["data"], "y");
    let caller = function(&node, "caller");
    assert!(caller["failed"].as_u64().unwrap() >= 1, "it did not have to wait, so this proves nothing: {caller}");
    assert_eq!(dead_letters(&node), Vec::<Value>::new());
    // What would never fit is the function's own failure.
    publish(&node, "endless", b"z");
    let letter = eventually("a dead letter", || dead_letters(&node).pop());
    assert_eq!((&letter["function"], &letter["attempts"]), (&Value::from("endless"), &Value::from(1)), "{letter}");
    node.stop();
}

#[test]
fn a_function_that_is_fed_too_fast_leaves_half_of_the_inbox_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("{QUICK}workers = 2\npark_after = \"10ms\"\n[store]\ninbox_rows = 40\n");
    let node = Start { config: &config, ..Start::new(folder.path()) }.run();
    let slow = Guest::new("slow", "slow").on("slow").with("ms", "2000").limits(&format!("{PATIENT}\nqueue = 1"));
    node.admin.deploy(&slow.bundle());
    node.admin.deploy(&Guest::new("neighbour", "witness").on("hello").limits(PATIENT).bundle());
    let mut watcher = Watcher::new(&node, "seen/neighbour");
    let mut client = Client::connect(&node.mqtt, "feeder", true).unwrap();
    let mut put = |topic: &str, number: u16| {
        client.publish(topic, b"x", 1, number, false, None).unwrap();
        acknowledgement(&mut client, number)
    };
    let taken = (1..=60).filter(|number| put("slow", *number) == 0).count();
    assert!((20..=25).contains(&taken), "{taken} of 60 were taken");
    assert_eq!(put("slow", 61), 0x97);
    assert_eq!(put("hello", 62), 0, "the neighbour's is refused");
    watcher.next();
    node.stop();
    // It is known again after a start.
    let node = Start { config: &config, ..Start::new(folder.path()) }.run();
    let mut client = Client::connect(&node.mqtt, "feeder", true).unwrap();
    let answers: Vec<u8> = (1..=9)
        .map(|number| {
            client.publish("slow", b"x", 1, number, false, None).unwrap();
            acknowledgement(&mut client, number)
        })
        .collect();
    assert!(answers.contains(&0x97), "{answers:?}");
    node.stop();
}

#[test]
fn functions_do_not_fill_the_inbox_beyond_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("{QUICK}[store]\ninbox_rows = 40\n");
    let node = Start { config: &config, ..Start::new(folder.path()) }.run();
    let guest = Guest::new("fan", "fan-out").on("fan").with("to", "absent").limits(PATIENT).more(ONCE);
    node.admin.deploy(&guest.permissions("invoke = [\"absent\"]").bundle());
    publish(&node, "fan", b"30");
    eventually("thirty rows", || (parked(&node) == 30).then_some(()));
    // Too many: the event itself waits, and that it does so does not count as an attempt.
    publish(&node, "fan", b"100");
    eventually("two attempts", || (function(&node, "fan")["failed"].as_u64().unwrap() >= 2).then_some(()));
    assert_eq!(parked(&node), 31);
    assert!(function(&node, "fan")["last_fault"].as_str().unwrap().contains("store.inbox_rows"));
    assert_eq!(dead_letters(&node), Vec::<Value>::new());
    // What fits goes through, past the one that waits.
    publish(&node, "fan", b"5");
    eventually("five more", || (parked(&node) == 36).then_some(()));
    node.stop();
}

#[test]
fn a_dead_letter_that_is_replayed_by_many_at_once_runs_once() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    node.admin.deploy(&Guest::new("weak", "trap").on("weak").limits(PATIENT).more(ONCE).bundle());
    publish(&node, "weak", b"0");
    for round in 1..=10 {
        let letters = eventually("the dead letter", || Some(dead_letters(&node)).filter(|all| !all.is_empty()));
        assert_eq!(letters.len(), 1, "round {round}: {letters:?}");
        let path = format!("/v1/dlq/{}/replay", letters[0]["id"]);
        let answers: Vec<u16> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(|| node.admin.post(&path, &[]).0)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(answers.iter().filter(|status| **status == 200).count(), 1, "round {round}: {answers:?}");
        assert!(answers.iter().all(|status| [200, 404].contains(status)), "round {round}: {answers:?}");
        eventually("its run", || (function(&node, "weak")["failed"] == round + 1).then_some(()));
    }
    node.stop();
}

#[test]
fn large_events_wait_in_the_inbox_rather_than_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    node.admin.deploy(&Guest::new("slow", "nap").on("slow").with("ms", "100").limits(PATIENT).bundle());
    let begin = Instant::now();
    let large = vec![b'x'; 900 << 10];
    publish_all(&node, "slow", std::iter::repeat_n(&large, 20));
    let waiting = function(&node, "slow")["waiting"].as_u64().unwrap();
    assert!(waiting <= 4, "{waiting} events of 900 KiB wait in memory");
    eventually("all to have run", || (function(&node, "slow")["succeeded"] == 20).then_some(()));
    assert!(begin.elapsed() >= Duration::from_secs(2));
    eventually("an empty inbox", || (parked(&node) == 0).then_some(()));
    node.stop();
}
