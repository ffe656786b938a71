//! The bytes that a link may cost in a day: what they are spent on first, and that the next day goes on where the last one stood.

use holm_protocol::Line;
use holm_store::{Lane, Write};
use holm_tests::clock::{Clock, library};
use holm_tests::cloud::{Plane, QUICK, patiently};
use holm_tests::node::{Node, Start};
use holm_tests::outbox::fill;
use serde_json::Value;

/// Of a day, in bytes.
const DAILY: u64 = 128 << 10;

/// What eight batches that are on their way when it is spent may cost beyond it.
const ON_ITS_WAY: u64 = 8 * (100 << 10);

const DAY: i64 = 86_400;

/// A thousand bytes that nothing makes shorter.
fn row(lane: Lane, stream: &str, number: u32) -> Write {
    let mut state = number.wrapping_mul(2_654_435_761) | 1;
    let noise = (0..1_000).map(|_| {
        (state ^= state << 13, state ^= state >> 17, state ^= state << 5);
        (state >> 24) as u8
    });
    let created = holm_core::Timestamp(1_795_000_000_000);
    Write::Outbox { lane, stream: stream.into(), created, content_type: None, data: noise.collect::<Vec<u8>>().into() }
}

fn link(node: &Node) -> Value {
    node.admin.get("/v1/status")["cloud"].clone()
}

#[test]
fn beyond_the_days_allowance_only_alarms_go_up_and_the_next_day_goes_on() {
    let Some(library) = library() else { return };
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::start(folder.path());
    let data = folder.path().join("data");
    plane.enrol(&data, "pi3");
    let mut clock = Clock::new(folder.path());
    let under = clock.under(&library);
    let config = format!("{QUICK}daily_bytes = \"{}KiB\"\n", DAILY >> 10);
    let start = || Start { config: &config, under: &under, ..Start::new(&data) }.run();
    let there = |stream: &str| plane.core.state().stream("pi3", stream).map_or(0, |stream| stream.watermark);
    let rows = 400;
    fill(&data, (0..rows).map(|number| row(Lane::Results, "result.flow.rate", number)));
    let spent = |node: &Node| patiently(&data, "it is spent", || (link(node)["paused"] == true).then_some(()));
    // What was on its way arrives.
    let settled = |node: &Node| {
        patiently(&data, "nothing is on its way", || (link(node)["in_flight"] == 0).then(|| there("result.flow.rate")))
    };
    let node = start();
    spent(&node);
    let first = settled(&node);
    assert!(first > 0 && first < u64::from(rows), "{first}");
    let cost = |node: &Node| link(node)["bytes_today"].as_u64().unwrap();
    assert!((DAILY..DAILY + ON_ITS_WAY).contains(&cost(&node)), "{}", link(&node));
    node.stop();
    // A restart is no new day, and what nobody may miss goes up all the same.
    fill(&data, std::iter::once(row(Lane::Alarms, "result.flow.alarm", 7)));
    let node = start();
    patiently(&data, "the alarm", || (there("result.flow.alarm") == 1).then_some(()));
    assert_eq!((settled(&node), &link(&node)["paused"]), (first, &Value::Bool(true)), "results wait");
    clock.jump(DAY);
    patiently(&data, "the next day goes on", || (there("result.flow.rate") > first).then_some(()));
    assert!(cost(&node) < DAILY + ON_ITS_WAY, "a day begins with nothing: {}", link(&node));
    // It is spent as well, or was enough.
    let enough = || link(&node)["paused"] == true || there("result.flow.rate") == u64::from(rows);
    patiently(&data, "it is spent, or all is there", || enough().then_some(()));
    let state = plane.core.state();
    let lines = &state.stream("pi3", "result.flow.rate").unwrap().lines;
    assert!(lines.values().all(|line| matches!(line, Line::Record(_))), "nothing was dropped");
    drop(state);
    node.stop();
}
