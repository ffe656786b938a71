//! A device whose data comes out of a backup: the real `holm cloud` and `holmd`. No record is lost, and none is there twice.

use std::path::Path;
use std::process::Command;

use holm_store::{Lane, Write};
use holm_tests::eventually;
use holm_tests::node::{Node, Start};
use holm_tests::outbox::fill;
use holm_tests::world::World;
use serde_json::Value;

/// Gives the database of a node that does not run so many results.
fn record(data: &Path, series: &str, numbers: std::ops::RangeInclusive<u64>) {
    record_later(data, series, numbers, 0);
}

/// The same, so many milliseconds later.
fn record_later(data: &Path, series: &str, numbers: std::ops::RangeInclusive<u64>, later: i64) {
    let row = |number: u64| Write::Outbox {
        lane: Lane::Results,
        stream: format!("result.counter.{series}").into(),
        created: holm_core::Timestamp(1_795_000_000_000 + later + i64::try_from(number).unwrap()),
        content_type: None,
        data: number.to_string().into(),
    };
    fill(data, numbers.map(row));
}

fn run(world: &World) -> Node {
    let data = world.data();
    Start { config: World::config(), ..Start::new(&data) }.run()
}

/// Until nothing waits to go up. Answers with the epochs that the node began.
fn up(world: &World) -> Value {
    let node = run(world);
    eventually("everything is up", || {
        let status = node.admin.get("/v1/status");
        let lanes = status["outbox"].as_array().unwrap();
        lanes.iter().all(|lane| lane["rows"] == 0).then_some(())
    });
    let epochs = node.admin.get("/v1/status")["cloud"]["upload"]["epochs"].clone();
    node.stop();
    epochs
}

/// All of a folder, as an image of the card would have it.
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// What has arrived, in the order of its times.
fn arrived(world: &World, series: &str) -> Vec<u64> {
    let answer = world.cloud.get(&format!("/v1/results?series=counter.{series}&device=pi1&limit=10000"));
    let rows: &Vec<Value> = answer["rows"].as_array().unwrap();
    rows.iter().map(|row| row["value"].as_f64().unwrap() as u64).collect()
}

#[test]
fn a_device_that_has_numbered_as_much_again_before_it_connects_loses_nothing() {
    let world = World::start();
    world.enrol();
    let (data, backup) = (world.data(), world.folder.path().join("backup"));
    let up = |numbers| {
        record(&data, "n", numbers);
        up(&world)
    };
    assert_eq!(up(1..=50), 0);
    copy(&data, &backup);
    assert_eq!(up(51..=100), 0);
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&backup, &data).unwrap();
    // The numbers of 51 to 100, and twenty more. Other series are on their way beside it, of which nothing is known yet.
    let others = ["a", "b", "o", "p"];
    others.iter().for_each(|series| record(&data, series, 1..=30));
    assert_eq!(up(201..=270), 1);
    let expected: Vec<u64> = (1..=100).chain(201..=270).collect();
    assert_eq!(arrived(&world, "n"), expected);
    for series in others {
        assert_eq!(arrived(&world, series), (1..=30).collect::<Vec<u64>>(), "{series}");
    }
    assert_eq!(up(271..=280), 0);
    assert_eq!(arrived(&world, "n").len(), expected.len() + 10);
    world.cloud.stop();
}

#[test]
fn what_went_up_since_the_backup_and_waits_in_it_still_is_there_once() {
    let world = World::start();
    world.enrol();
    let (data, backup) = (world.data(), world.folder.path().join("backup"));
    record(&data, "n", 1..=50);
    assert_eq!(up(&world), 0);
    // When the copy is made, some of each series has not gone up.
    record(&data, "n", 51..=60);
    record(&data, "other", 1..=1_200);
    copy(&data, &backup);
    record(&data, "n", 61..=100);
    assert_eq!(up(&world), 0);
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&backup, &data).unwrap();
    record(&data, "n", 201..=270);
    record(&data, "other", 1_201..=1_210);
    assert_eq!(up(&world), 1);
    assert_eq!(arrived(&world, "n"), (1..=100).chain(201..=270).collect::<Vec<u64>>());
    assert_eq!(arrived(&world, "other"), (1..=1_210).collect::<Vec<u64>>());
    world.cloud.stop();
}

#[test]
fn what_has_the_numbers_of_others_is_not_taken_for_them_behind_many_that_are_the_same() {
    let world = World::start();
    world.enrol();
    let (data, backup) = (world.data(), world.folder.path().join("backup"));
    // More than two batches wait in the copy.
    record(&data, "n", 1..=1_200);
    copy(&data, &backup);
    record(&data, "n", 1_201..=1_300);
    assert_eq!(up(&world), 0);
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&backup, &data).unwrap();
    record(&data, "n", 2_001..=2_150);
    assert_eq!(up(&world), 1);
    assert_eq!(arrived(&world, "n"), (1..=1_300).chain(2_001..=2_150).collect::<Vec<u64>>());
    world.cloud.stop();
}

#[test]
fn a_device_whose_clock_was_set_before_it_heard_that_all_is_there_is_no_restored_one() {
    const LATER: i64 = 40_000_000_000;
    let world = World::start();
    world.enrol();
    let (data, copied) = (world.data(), world.folder.path().join("copy"));
    record(&data, "n", 1..=600);
    copy(&data, &copied);
    record(&data, "n", 601..=700);
    assert_eq!(up(&world), 0);
    // As if no word of it had come back, and what was recorded since the start had been dated anew.
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&copied, &data).unwrap();
    record_later(&data, "n", 601..=700, LATER);
    assert_eq!(up(&world), 0);
    assert_eq!(arrived(&world, "n"), (1..=700).collect::<Vec<u64>>());
    world.cloud.stop();
}

#[test]
fn logs_are_logs_after_it_as_well() {
    let world = World::start();
    world.enrol();
    let (data, backup) = (world.data(), world.folder.path().join("backup"));
    let log = |text: &str| {
        let data = format!(r#"{{"level":"info","message":"{text}"}}"#).into();
        let stream = "log.counter".into();
        // Old ones are dropped.
        let created = holm_core::Timestamp(time::OffsetDateTime::now_utc().unix_timestamp() * 1_000);
        let row = Write::Outbox { lane: Lane::Logs, stream, created, content_type: None, data };
        fill(&world.data(), std::iter::once(row));
    };
    log("before");
    record(&data, "n", 1..=5);
    assert_eq!(up(&world), 0);
    copy(&data, &backup);
    record(&data, "n", 6..=10);
    assert_eq!(up(&world), 0);
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&backup, &data).unwrap();
    record(&data, "n", 11..=12);
    assert_eq!(up(&world), 1);
    log("after");
    assert_eq!(up(&world), 0);
    let logs = world.cloud.get("/v1/logs?device=pi1").to_string();
    assert!(logs.contains("before") && logs.contains("after"), "{logs}");
    let results = world.cloud.get("/v1/results?device=pi1").to_string();
    assert!(!results.contains("log.counter"), "{results}");
    world.cloud.stop();
}
