//! The lanes to the cloud: caps, gaps, sequences, age.

use holm_core::Timestamp;
use holm_store::{Lane, OpenOptions, OutboxCaps, Write};

use crate::Running;

/// A row of results, new enough for every test.
pub(crate) fn row(stream: &str, bytes: usize) -> Write {
    lane_row(Lane::Results, stream, bytes, i64::MAX / 2)
}

fn lane_row(lane: Lane, stream: &str, bytes: usize, created: i64) -> Write {
    Write::Outbox {
        lane,
        stream: stream.into(),
        created: Timestamp(created),
        content_type: Some("application/json".into()),
        data: vec![b'1'; bytes].into(),
    }
}

fn capped(folder: &std::path::Path, bytes: u64, stream_bytes: u64) -> Running {
    let caps = OutboxCaps { bytes, stream_bytes, ..OutboxCaps::default() };
    Running::with(&OpenOptions { caps, ..OpenOptions::new(folder) }).unwrap()
}

/// (stream, sequence) of all rows.
fn rows(running: &Running) -> Vec<(String, i64)> {
    running.store.outbox(None, 0, 1000).unwrap().into_iter().map(|row| (row.stream, row.sequence)).collect()
}

fn gaps(running: &Running) -> Vec<(String, i64, i64, String)> {
    let gaps = running.store.gaps(100).unwrap();
    gaps.into_iter().map(|gap| (gap.stream, gap.first, gap.last, gap.reason)).collect()
}

#[test]
fn the_oldest_rows_of_a_stream_beyond_its_cap_become_one_gap() {
    let folder = tempfile::tempdir().unwrap();
    let running = capped(folder.path(), 1 << 20, 1000);
    for _ in 0..25 {
        running.store.commit(vec![row("s", 100), row("t", 10)]).unwrap();
    }
    assert_eq!(gaps(&running), [("s".to_owned(), 1, 15, "cap".to_owned())]);
    let kept: Vec<_> = rows(&running).into_iter().filter(|(stream, _)| stream == "s").map(|(_, n)| n).collect();
    assert_eq!(kept, (16..=25).collect::<Vec<_>>());
    running.close();
}

#[test]
fn logs_go_before_results_and_alarms_never_go() {
    let folder = tempfile::tempdir().unwrap();
    let running = capped(folder.path(), 1000, 1 << 20);
    for _ in 0..5 {
        running
            .store
            .commit(vec![
                lane_row(Lane::Alarms, "a", 100, 0),
                row("r", 50),
                lane_row(Lane::Logs, "l", 50, i64::MAX / 2),
            ])
            .unwrap();
    }
    assert_eq!(gaps(&running), []);
    running.store.commit(vec![lane_row(Lane::Alarms, "a", 150, 0)]).unwrap();
    assert_eq!(gaps(&running), [("l".to_owned(), 1, 3, "cap".to_owned())]);
    running.store.commit(vec![lane_row(Lane::Alarms, "a", 2000, 0)]).unwrap();
    let left = rows(&running);
    assert_eq!(left, (1..=7).map(|n| ("a".to_owned(), n)).collect::<Vec<_>>());
    let lanes = running.store.lanes().unwrap();
    assert_eq!(lanes.iter().map(|lane| (lane.rows, lane.bytes)).collect::<Vec<_>>(), [(7, 2650), (0, 0), (0, 0)]);
    running.close();
}

#[test]
fn alarms_beyond_a_streams_cap_do_not_spare_the_other_streams() {
    let folder = tempfile::tempdir().unwrap();
    let running = capped(folder.path(), 1 << 20, 1000);
    for _ in 0..20 {
        let alarms = (0..8).map(|n| lane_row(Lane::Alarms, &format!("a{n}"), 200, 0));
        running.store.commit(alarms.chain([row("s", 100)]).collect()).unwrap();
        let held = running.store.lanes().unwrap()[1].bytes;
        assert!(held <= 1000, "{held} bytes of results");
    }
    running.close();
}

#[test]
fn sequences_and_row_ids_are_not_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let running = capped(folder.path(), 50, 50);
    running.store.commit(vec![row("s", 40)]).unwrap();
    let first = running.store.outbox(None, 0, 10).unwrap()[0].id;
    // Too large to be kept: the lane is empty afterwards, but for its memory.
    running.store.commit(vec![row("s", 60)]).unwrap();
    assert_eq!(rows(&running), []);
    running.store.commit(vec![row("s", 40)]).unwrap();
    let last = &running.store.outbox(None, first, 10).unwrap()[0];
    assert_eq!(last.sequence, 3);
    running.store.commit(vec![row("s", 60)]).unwrap();
    running.close();
    let running = capped(folder.path(), 50, 50);
    running.store.commit(vec![row("s", 40)]).unwrap();
    assert_eq!(rows(&running), [("s".to_owned(), 5)]);
    assert_eq!(gaps(&running), [("s".to_owned(), 1, 4, "cap".to_owned())]);
    running.close();
}

#[test]
fn a_restart_knows_what_is_held() {
    let folder = tempfile::tempdir().unwrap();
    let running = capped(folder.path(), 1 << 20, 1000);
    running.store.commit((0..9).map(|_| row("s", 100)).collect()).unwrap();
    running.close();
    let running = capped(folder.path(), 1 << 20, 1000);
    running.store.commit(vec![row("s", 100), row("s", 100)]).unwrap();
    assert_eq!(gaps(&running), [("s".to_owned(), 1, 1, "cap".to_owned())]);
    running.close();
}

#[test]
fn rows_past_their_age_go_at_the_next_start_and_leave_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    // Old rows are looked for with the first commit, and then seldom.
    running.store.commit(vec![]).unwrap();
    let hour_ago =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64 - 3_600_000;
    running
        .store
        .commit(vec![
            lane_row(Lane::Alarms, "a", 1, 0),
            lane_row(Lane::Results, "r", 1, 0),
            lane_row(Lane::Results, "r", 1, 0),
            lane_row(Lane::Results, "r", 1, hour_ago),
            lane_row(Lane::Logs, "l", 1, hour_ago - 86_400_000),
            lane_row(Lane::Logs, "l", 1, hour_ago),
        ])
        .unwrap();
    assert_eq!(rows(&running).len(), 6);
    running.close();
    let running = Running::open(folder.path());
    running.store.commit(vec![]).unwrap();
    assert_eq!(rows(&running), [("a".to_owned(), 1), ("r".to_owned(), 3), ("l".to_owned(), 2)]);
    assert_eq!(gaps(&running), [("l".to_owned(), 1, 1, "age".to_owned()), ("r".to_owned(), 1, 2, "age".to_owned())]);
    running.close();
}
