//! The door of the one who sends the outbox: what is next, and what is done with.

use holm_core::Timestamp;
use holm_store::{CloudWrite, Item, Lane, OpenOptions, Outbox, OutboxCaps, Portion, Stretch, Write};

use crate::Running;

const ALL: Portion = Portion { items: 500, bytes: 1 << 20, largest: 1 << 20 };

fn row(lane: Lane, stream: &str, data: &str) -> Write {
    Write::Outbox {
        lane,
        stream: stream.into(),
        created: Timestamp(i64::MAX / 2),
        content_type: None,
        data: data.to_owned().into(),
    }
}

fn result(stream: &str, data: &str) -> Write {
    row(Lane::Results, stream, data)
}

fn forget(stream: &str, upto: i64) -> CloudWrite {
    CloudWrite::Forget { stream: stream.into(), upto }
}

fn replace(stream: &str, first: i64, last: i64) -> CloudWrite {
    CloudWrite::Replace { stream: stream.into(), lane: Lane::Results, first, last, reason: "refused".into(), at: 7 }
}

/// What is in a stretch, in short.
fn shown(stretch: &Stretch) -> Vec<String> {
    let item = |item: &Item| match item {
        Item::Row { data, .. } => String::from_utf8(data.clone()).unwrap(),
        Item::TooLarge => "too large".to_owned(),
        Item::Gap { count, reason, .. } => format!("{reason} x{count}"),
    };
    stretch.items.iter().map(item).collect()
}

fn check(outbox: &Outbox, from: Option<i64>, first: i64, expected: &[&str]) {
    let stretch = outbox.stretch("s", from, ALL).unwrap();
    assert_eq!((stretch.first, shown(&stretch)), (first, expected.iter().map(ToString::to_string).collect()));
}

fn rows_left(running: &Running) -> Vec<(String, i64)> {
    running.store.outbox(None, 0, 1_000).unwrap().into_iter().map(|row| (row.stream, row.sequence)).collect()
}

#[test]
fn a_lane_is_looked_through_once_whatever_is_on_its_way() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    let outbox = running.store.cloud();
    running.store.commit((1..=3).flat_map(|n| [result("a", &n.to_string()), result("b", "x")]).collect()).unwrap();
    let stream = |after: i64, passed: &[(&str, i64)]| {
        let passed = passed.iter().map(|(name, next)| ((*name).to_owned(), *next)).collect();
        let (looked, head) = outbox.head(Lane::Results, after, &passed).unwrap();
        (looked, head.map(|head| head.stream))
    };
    assert_eq!(stream(0, &[]), (0, Some("a".into())));
    assert_eq!(stream(0, &[("a", 4)]), (1, Some("b".into())));
    // What came after what is on its way is found as well.
    assert_eq!(stream(1, &[("a", 2), ("b", 4)]), (2, Some("a".into())));
    assert_eq!(stream(2, &[("a", 4), ("b", 4)]), (6, None));
    assert_eq!(outbox.last_id(Lane::Results).unwrap(), Some(6));
    assert_eq!((outbox.last_id(Lane::Logs).unwrap(), outbox.last_sequence("a").unwrap()), (None, 3));
    running.close();
}

#[test]
fn rows_and_gaps_come_in_one_order_without_holes() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    let outbox = running.store.cloud();
    check(&outbox, None, 1, &[]);
    running.store.commit((1..=6).map(|n| result("s", &n.to_string())).collect()).unwrap();
    check(&outbox, None, 1, &["1", "2", "3", "4", "5", "6"]);
    outbox.commit(vec![replace("s", 2, 3)]).unwrap();
    check(&outbox, None, 1, &["1", "refused x2", "4", "5", "6"]);
    check(&outbox, Some(3), 3, &["refused x1", "4", "5", "6"]);
    outbox.commit(vec![replace("s", 6, 6)]).unwrap();
    check(&outbox, Some(4), 4, &["4", "5", "refused x1"]);
    outbox.commit(vec![replace("s", 4, 6)]).unwrap();
    check(&outbox, Some(4), 4, &["refused x3"]);
    check(&outbox, Some(7), 7, &[]);
    outbox.commit(vec![forget("s", 1)]).unwrap();
    check(&outbox, None, 2, &["refused x2", "refused x3"]);
    // Somebody has less than was forgotten: what lies between is gone.
    check(&outbox, Some(1), 1, &["damage x1", "refused x2", "refused x3"]);
    let small = Portion { items: 2, bytes: 1, largest: 1 };
    running.store.commit(vec![result("t", "1"), result("t", "22"), result("t", "3")]).unwrap();
    assert_eq!(shown(&outbox.stretch("t", None, small).unwrap()), ["1"]);
    assert_eq!(shown(&outbox.stretch("t", Some(2), small).unwrap()), ["too large", "3"]);
    running.close();
}

#[test]
fn a_number_that_was_never_given_out_is_nobodys() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    running.store.commit((1..=4).map(|n| result("s", &n.to_string())).chain([result("t", "1")]).collect()).unwrap();
    running.close();
    let rotten = rusqlite::Connection::open(folder.path().join("holm.db")).unwrap();
    for (sequence, rot) in [(1, 0), (2, 1_i64 << 60), (3, 700_003)] {
        let changed =
            rotten.execute("UPDATE outbox SET sequence = ?2 WHERE sequence = ?1 AND stream = 's'", [sequence, rot]);
        assert_eq!(changed.unwrap(), 1);
    }
    drop(rotten);
    let running = Running::open(folder.path());
    let outbox = running.store.cloud();
    check(&outbox, None, 4, &["4"]);
    check(&outbox, Some(1), 1, &["damage x3", "4"]);
    let head = |passed: &[(&str, i64)]| {
        let passed = passed.iter().map(|(name, next)| ((*name).to_owned(), *next)).collect();
        outbox.head(Lane::Results, 0, &passed).unwrap().1.map(|head| head.stream)
    };
    assert_eq!((head(&[]), head(&[("s", 5)]), head(&[("s", 5), ("t", 2)])), (Some("s".into()), Some("t".into()), None));
    running.close();
}

#[test]
fn a_watermark_takes_rows_and_gaps_and_leaves_what_is_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let caps = OutboxCaps { stream_bytes: 5, ..OutboxCaps::default() };
    let running = Running::with(&OpenOptions { caps, ..OpenOptions::new(folder.path()) }).unwrap();
    let outbox = running.store.cloud();
    // Five are held, three became a gap.
    running.store.commit((1..=8).map(|n| result("s", &n.to_string())).collect()).unwrap();
    running.store.commit(vec![result("t", "1")]).unwrap();
    check(&outbox, None, 1, &["cap x3", "4", "5", "6", "7", "8"]);
    assert_eq!(outbox.gap_head(Lane::Results, &[].into()).unwrap().map(|head| head.stream), Some("s".into()));
    assert_eq!(outbox.gap_head(Lane::Results, &[("s".into(), 4)].into()).unwrap(), None);
    outbox.commit(vec![forget("s", 2)]).unwrap();
    check(&outbox, None, 3, &["cap x1", "4", "5", "6", "7", "8"]);
    outbox.commit(vec![forget("s", 6), forget("t", 1)]).unwrap();
    check(&outbox, None, 7, &["7", "8"]);
    assert_eq!(rows_left(&running), [("s".to_owned(), 7), ("s".to_owned(), 8)]);
    assert_eq!(running.store.gaps(10).unwrap(), []);
    // What is gone makes room.
    running.store.commit((9..=11).map(|n| result("s", &(n % 10).to_string())).collect()).unwrap();
    check(&outbox, None, 7, &["7", "8", "9", "0", "1"]);
    outbox.commit(vec![CloudWrite::Discard { stream: "s".into() }]).unwrap();
    assert_eq!(rows_left(&running), []);
    running.close();
}

#[test]
fn an_epoch_begins_with_what_the_earlier_one_had() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    let outbox = running.store.cloud();
    running.store.commit((1..=4).flat_map(|n| [result("s", &n.to_string()), result("gone", "x")]).collect()).unwrap();
    running.store.commit(vec![result("fresh", "x")]).unwrap();
    outbox.commit(vec![forget("s", 2), forget("gone", 4)]).unwrap();
    let before = outbox.epoch().unwrap();
    for _ in 0..2 {
        outbox.commit(vec![CloudWrite::NewEpoch { at: 7 }]).unwrap();
        check(&outbox, None, 1, &["earlier-epoch x2", "3", "4"]);
        let gone = outbox.stretch("gone", None, ALL).unwrap();
        assert_eq!((gone.first, shown(&gone)), (1, vec!["earlier-epoch x4".to_owned()]));
        assert_eq!(shown(&outbox.stretch("fresh", None, ALL).unwrap()), ["x"]);
    }
    assert_ne!(outbox.epoch().unwrap(), before);
    running.store.commit(vec![result("gone", "5")]).unwrap();
    assert_eq!(shown(&outbox.stretch("gone", None, ALL).unwrap()), ["earlier-epoch x4", "5"]);
    running.close();
}

#[test]
fn news_come_once_and_when_they_were_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    let outbox = running.store.cloud();
    let (sender, news) = std::sync::mpsc::channel();
    outbox.listen(move || sender.send(()).unwrap());
    running.store.commit(vec![result("s", "x")]).unwrap();
    assert!(news.try_recv().is_err());
    assert!(!outbox.tell_at(Lane::Results, 1));
    assert!(outbox.tell_at(Lane::Results, 3));
    running.store.commit(vec![result("s", "x"), row(Lane::Logs, "l", "x")]).unwrap();
    assert!(news.try_recv().is_err());
    running.store.commit(vec![result("s", "x")]).unwrap();
    assert!(news.try_recv().is_ok());
    running.store.commit(vec![result("s", "x")]).unwrap();
    assert!(news.try_recv().is_err());
    assert_eq!((outbox.rows(Lane::Results), outbox.rows(Lane::Logs)), (4, 1));
    running.close();
}
