//! What the interface promises to a function that behaves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holm_core::{Qos, StateWrite};
use holm_runtime::Recorder;
use holm_runtime::recorder::Order;

const EXACT: Order = Order::Exact { out_of_time: false };

use crate::support::*;

#[test]
fn every_event_finds_a_fresh_instance() {
    for _ in 0..20 {
        assert_eq!(answer(&run("count")), "1");
    }
}

#[test]
fn random_numbers_differ_in_every_instance() {
    let seen: BTreeSet<String> = (0..50).map(|_| answer(&run("random"))).collect();
    assert_eq!(seen.len(), 50);
}

#[test]
fn an_event_arrives_whole_and_an_answer_comes_back() {
    let big = "x".repeat(100_000);
    let outcome = FUNCTION.prepare().unwrap().call(&event("echo", &big), Box::new(TestNode::default()));
    assert_eq!(answer(&outcome), big);
    assert_eq!(outcome.result.unwrap().unwrap().content_type.as_deref(), Some("text/plain"));
    assert_eq!(outcome.usage.bytes_out, 100_000 + "text/plain".len() as u64);
    assert!(outcome.usage.peak_memory >= 1 << 16 && outcome.usage.wall > Duration::ZERO);
}

#[test]
fn what_is_not_granted_is_denied_and_no_trap() {
    for (subject, expected) in [
        ("publish-denied", "true"),
        ("publish-wildcard", "true"),
        ("kv-denied", "true true"),
        ("result-unknown", "true"),
        ("result-nan", "true true"),
        ("invoke-denied", "true"),
        ("environment", "0 0 [false, false, false]"),
    ] {
        assert_eq!(answer(&run(subject)), expected, "{subject}");
    }
}

#[test]
fn a_function_reads_its_own_writes_and_the_first_read_is_in_the_read_set() {
    let node = TestNode::default().with_key("guest", "n", "40", 7).with_key("guest", "old", "1", 3);
    let outcome = run_on(&FUNCTION, node.clone(), "kv-own-writes");
    assert_eq!(answer(&outcome), r#"Some(40) 42 Some(42) ["a", "n"]"#);
    assert_eq!(outcome.reads, vec![(Arc::from("guest"), Arc::from("n"), 7)]);
    assert_eq!(*node.asked.lock().unwrap(), ["get guest n"], "a key is asked for once");
    let write = |key: &str, value: Option<&'static str>| StateWrite {
        namespace: Arc::from("guest"),
        key: Arc::from(key),
        value: value.map(Bytes::from),
    };
    assert_eq!(outcome.effects.writes, [write("a", Some("1")), write("n", Some("42")), write("old", None)]);
    // The node itself is untouched: effects are staged.
    assert_eq!(node.keys.lock().unwrap().len(), 2);
}

#[test]
fn granted_functions_are_invoked_and_enqueued_to() {
    assert_eq!(answer(&run("invoke")), "friend got hello");
    let outcome = run("enqueue");
    assert_eq!(answer(&outcome), "new-id");
    assert_eq!(outcome.effects.enqueues[0].delay, Some(Duration::from_secs(1)));
}

#[test]
fn a_short_sleep_is_only_a_sleep() {
    assert_eq!(answer(&run("nap")), "rested");
}

#[test]
fn a_recorded_invocation_replays_to_the_same_outcome_without_a_host() {
    let node = TestNode::default().with_key("guest", "n", "5", 9).with_key("guest", "z", "1", 2);
    let event = event("everything", "");
    let first = FUNCTION.prepare_with(Recorder::keep(Vec::new(), 1 << 16)).unwrap().call(&event, Box::new(node));
    let recording = first.recording.clone().unwrap();
    assert!(first.result.is_ok(), "{first:?}");
    assert_eq!(first.effects.publishes[0].qos, Qos::AtLeastOnce);
    let again = FUNCTION.replay(&event, &recording, EXACT).unwrap().outcome.unwrap();
    assert_eq!(
        (&again.result, &again.effects, &again.reads, &again.logs),
        (&first.result, &first.effects, &first.reads, &first.logs)
    );
    assert_eq!(again.recording, None);
    // Another event asks for other things, and the replay says so rather than inventing answers.
    let event = crate::support::event("kv-own-writes", "");
    let other = FUNCTION.replay(&event, &recording, EXACT).unwrap();
    assert!(other.diverged.is_some());
    assert!(other.outcome.unwrap().result.unwrap_err().message().contains("replay diverged"));
}

#[test]
fn an_idle_ticker_sleeps_and_a_new_call_still_has_a_deadline() {
    // Longer than the ticker lingers, so that the next call must wake it.
    std::thread::sleep(Duration::from_millis(1200));
    check_fault("loop", |fault| matches!(fault, holm_core::Fault::Timeout { .. }));
}
