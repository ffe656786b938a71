//! What goes by itself: in batches, apart from what is being committed, and by the row.

use std::time::{Duration, Instant};

use holm_core::Timestamp;
use holm_store::{CommitError, DedupeKey, OpenOptions, Write};

use crate::clock::Hands;
use crate::{PATIENCE, Running, event, name, set};

const TODAY: i64 = 1_767_225_600_000;
const MONTH: i64 = 31 * 86_400_000;

fn key(n: usize) -> DedupeKey {
    DedupeKey::new("c", "t", &format!("{n:06}"))
}

fn remember(n: usize, seen: i64) -> Write {
    Write::Remember { key: key(n), seen: Timestamp(seen) }
}

fn bury(n: usize, now: i64, data: usize) -> Write {
    Write::Bury {
        function: name("f"),
        event: holm_core::Event { data: vec![b'x'; data].into(), ..event(&format!("e{n}")) }.into(),
        now: Timestamp(now),
        keep: Duration::from_secs(7 * 86_400),
        kind: "trap",
        fault: "unreachable".into(),
    }
}

fn result(bytes: usize, created: i64) -> Write {
    Write::Outbox {
        lane: holm_store::Lane::Results,
        stream: "s".into(),
        created: Timestamp(created),
        content_type: None,
        data: vec![b'1'; bytes].into(),
    }
}

fn rows(folder: &std::path::Path, table: &str) -> i64 {
    let connection = rusqlite::Connection::open(crate::database(folder)).unwrap();
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[track_caller]
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn the_first_event_after_a_month_off_does_not_wait_for_all_that_has_aged() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::at(TODAY);
    let options = OpenOptions::new(folder.path());
    let running = Running::with_clock(&options, &hands);
    for _ in 0..20 {
        running.store.commit((0..200).flat_map(|n| [result(10, TODAY), bury(n, TODAY, 10)]).collect()).unwrap();
    }
    running.close();
    let later = Hands::at(TODAY + MONTH);
    let running = Running::with_clock(&options, &later);
    let left = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (noted, path) = (left.clone(), folder.path().to_owned());
    let done = move |outcome: Result<(), CommitError>| {
        outcome.unwrap();
        noted.lock().unwrap().extend(["outbox", "dead"].map(|table| rows(&path, table)));
    };
    running.store.queue(crate::settlement(vec![set("k", "v")]), done).unwrap();
    // The rest goes without anything that would call for it.
    for table in ["outbox", "dead"] {
        wait_for(table, || rows(folder.path(), table) == 0);
    }
    assert!(left.lock().unwrap().iter().all(|rows| (3000..4000).contains(rows)), "{left:?}");
    assert_eq!(running.store.gaps(10).unwrap().len(), 1);
    running.close();
}

#[test]
fn a_full_database_is_relieved_by_what_ages_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::at(TODAY);
    let options = OpenOptions { max_pages: Some(100), ..OpenOptions::new(folder.path()) };
    let running = Running::with_clock(&options, &hands);
    running.store.commit(vec![]).unwrap();
    let filled = (0..1000).find(|n| running.store.commit(vec![bury(*n, TODAY, 4000)]).is_err()).unwrap();
    assert!(filled > 10, "there was room for {filled}");
    assert_eq!(running.store.commit(vec![set("k", vec![7; 40_000])]), Err(CommitError::DiskFull));
    hands.pass(MONTH);
    assert_eq!(running.store.commit(vec![set("k", vec![7; 40_000])]), Ok(()));
    assert_eq!(rows(folder.path(), "dead"), 0);
    running.close();
}

#[test]
fn a_rotten_row_of_the_outbox_goes_and_holds_up_nothing() {
    for rot in ["sequence = 'rot'", "lane = 1, stream = 5, sequence = x'00'", "created = 'rot'", "data = 'text'"] {
        let folder = tempfile::tempdir().unwrap();
        let options = OpenOptions::new(folder.path());
        let hands = Hands::at(TODAY);
        let running = Running::with_clock(&options, &hands);
        for n in 0..10 {
            running.store.commit(vec![result(10, TODAY + n)]).unwrap();
        }
        let connection = rusqlite::Connection::open(crate::database(folder.path())).unwrap();
        connection.execute_batch(&format!("UPDATE outbox SET {rot} WHERE id = 3")).unwrap();
        drop(connection);
        hands.pass(MONTH);
        running.store.commit(vec![set("k", "v")]).unwrap();
        assert_eq!(rows(folder.path(), "outbox"), 0, "{rot}");
        assert!(!running.store.stats().failing);
        running.close();
    }
}

#[test]
fn beyond_their_bounds_the_oldest_message_ids_and_dead_letters_go() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::at(TODAY);
    let options = OpenOptions { dedupe_rows: 20, dead_rows: 3, ..OpenOptions::new(folder.path()) };
    let running = Running::with_clock(&options, &hands);
    running.store.commit(vec![]).unwrap();
    let minute = |ids: std::ops::Range<usize>| {
        running.store.commit(ids.map(|n| remember(n, hands.now())).collect()).unwrap();
        hands.pass(60_000);
        running.store.commit(vec![]).unwrap();
    };
    // Known already: it does not count twice.
    for _ in 0..10 {
        minute(0..19);
    }
    minute(19..30);
    minute(30..49);
    let reader = running.store.reader().unwrap();
    assert!((0..49).all(|n| reader.seen(&key(n)).unwrap()));
    minute(49..60);
    assert!((0..30).all(|n| !reader.seen(&key(n)).unwrap()), "the oldest go when there are twice as many");
    assert!((30..60).all(|n| reader.seen(&key(n)).unwrap()));
    drop(reader);
    running.store.commit((0..700).map(|n| bury(n, TODAY, 10)).collect()).unwrap();
    let last = running.store.dead_letters(None, 1).unwrap()[0].id;
    running.store.commit(vec![Write::Exhume(last)]).unwrap();
    hands.pass(60_000);
    running.store.commit(vec![]).unwrap();
    wait_for("dead letters", || rows(folder.path(), "dead") == 3);
    let left: Vec<_> = running.store.dead_letters(None, 10).unwrap().iter().map(|dead| last - dead.id).collect();
    assert_eq!(left, [1, 2, 3]);
    wait_for("the count", || running.store.stats().dead_dropped == 696);
    running.close();
    // A restart counts what is there.
    let running = Running::with_clock(&OpenOptions { dead_rows: 1, ..options }, &hands);
    running.store.commit(vec![]).unwrap();
    assert_eq!(rows(folder.path(), "dead"), 1);
    assert!((30..60).all(|n| running.store.reader().unwrap().seen(&key(n)).unwrap()));
    running.close();
}

#[test]
fn an_id_counts_for_the_window_and_no_longer_however_often_the_tables_have_changed_places() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::at(TODAY);
    let window = Duration::from_secs(3600);
    let options = OpenOptions { dedupe_window: window, ..OpenOptions::new(folder.path()) };
    let mut running = Running::with_clock(&options, &hands);
    let mut most = 0;
    for minute in 0..400 {
        // A day's counter that begins anew: the same id comes again when it does not count any more.
        let id = minute % 70;
        assert!(!running.store.reader().unwrap().seen(&key(id)).unwrap(), "{id} in minute {minute}");
        running.store.commit(vec![remember(id, hands.now())]).unwrap();
        hands.pass(60_000);
        running.store.commit(vec![]).unwrap();
        let counts =
            |ago: usize| minute < ago || running.store.reader().unwrap().seen(&key((minute - ago) % 70)).unwrap();
        assert!((0..59).all(counts), "minute {minute}");
        assert!(minute < 61 || !counts(61), "minute {minute}");
        most = most.max(rows(folder.path(), "dedupe") + rows(folder.path(), "dedupe_2"));
        if minute % 37 == 0 {
            running.close();
            running = Running::with_clock(&options, &hands);
        }
    }
    assert!(most <= 2 * 60 + 2, "{most} rows");
    running.close();
}
