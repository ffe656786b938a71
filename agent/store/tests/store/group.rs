//! Group commit: many settlements, one sync, in order.

use std::sync::{Arc, Mutex};

use crate::{PATIENCE, Running, set, settlement, value};

#[test]
fn commits_once_for_all_that_wait() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    let held = running.hold();
    let before = running.store.stats();
    let outcomes: Vec<_> = (0..200).map(|n| running.queue(settlement(vec![set(&format!("k{n}"), "v")]))).collect();
    assert_eq!(running.store.stats().waiting, 200);
    drop(held);
    for outcome in outcomes {
        assert_eq!(outcome.recv_timeout(PATIENCE).unwrap(), Ok(()));
    }
    let after = running.store.stats();
    assert_eq!((after.commits - before.commits, after.settlements - before.settlements), (1, 200));
    running.close();
}

#[test]
fn tells_in_the_order_of_queueing_and_only_after_the_commit() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    let told = Arc::new(Mutex::new(Vec::new()));
    let held = running.hold();
    for n in 0..600 {
        let (told, path) = (told.clone(), crate::database(folder.path()));
        let done = move |result: Result<(), _>| {
            result.unwrap();
            // A reader that knows nothing of the overlay: what it sees is committed.
            let committed: i64 = rusqlite::Connection::open(path)
                .unwrap()
                .query_row("SELECT count(*) FROM state WHERE key = ?1", [format!("k{n}")], |row| row.get(0))
                .unwrap();
            told.lock().unwrap().push((n, committed));
        };
        running.store.queue(settlement(vec![set(&format!("k{n}"), "v")]), done).unwrap();
    }
    drop(held);
    running.close();
    assert_eq!(*told.lock().unwrap(), (0..600).map(|n| (n, 1)).collect::<Vec<_>>());
}

#[test]
fn later_writes_of_a_group_win() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    let held = running.hold();
    for n in 0..50 {
        running.queue(settlement(vec![set("k", n.to_string())]));
        assert_eq!(value(&running.store, "k"), Some(n.to_string()), "reads see what is queued");
    }
    drop(held);
    running.close();
    let running = Running::open(folder.path());
    assert_eq!(value(&running.store, "k").as_deref(), Some("49"));
    running.close();
}

#[test]
fn a_closed_store_commits_what_was_queued_and_takes_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    let held = running.hold();
    let last = running.queue(settlement(vec![set("k", "last")]));
    running.store.close();
    assert_eq!(running.store.queue(settlement(vec![]), |_| {}), Err(holm_store::QueueError::Closed));
    drop(held);
    assert_eq!(last.recv_timeout(PATIENCE).unwrap(), Ok(()));
    running.close();
    assert_eq!(
        std::fs::metadata(folder.path().join("holm.db-wal")).map_or(0, |meta| meta.len()),
        0,
        "the log is empty"
    );
}

#[test]
fn a_writer_that_never_ran_tells_those_who_wait() {
    let folder = tempfile::tempdir().unwrap();
    let opened = holm_store::OpenOptions::new(folder.path()).open().unwrap();
    let store = opened.store.clone();
    let waiting = std::thread::spawn(move || store.commit(vec![set("k", "v")]));
    let start = std::time::Instant::now();
    while opened.store.stats().waiting == 0 {
        assert!(start.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    drop(opened.writer);
    assert_eq!(waiting.join().unwrap(), Err(holm_store::CommitError::Closed));
}

#[test]
fn what_writes_nothing_is_settled_at_once_and_without_a_commit() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    running.store.commit(vec![set("k", "v")]).unwrap();
    let await_settled = || {
        let start = std::time::Instant::now();
        loop {
            // The writer may be on its way back from the last commit.
            match running.store.queue_blocking(settlement(vec![]), |_| {}).unwrap() {
                Some(_) => return,
                None => assert!(start.elapsed() < PATIENCE),
            }
        }
    };
    await_settled();
    let before = running.store.stats().commits;
    for _ in 0..10 {
        await_settled();
    }
    assert_eq!(running.store.stats().commits, before);
    running.close();
}

#[test]
fn what_writes_nothing_waits_for_what_it_may_have_read() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    let held = running.hold();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = |name: &'static str| {
        let told = told.clone();
        move |result: Result<(), holm_store::CommitError>| told.lock().unwrap().push((name, result.is_ok()))
    };
    running.store.queue(settlement(vec![set("k", "new")]), tell("writes")).unwrap();
    let settled = running.store.queue_blocking(settlement(vec![]), tell("reads")).unwrap();
    assert!(settled.is_none(), "the value that it may have read is not committed");
    assert!(told.lock().unwrap().is_empty());
    drop(held);
    running.close();
    assert_eq!(*told.lock().unwrap(), [("writes", true), ("reads", true)]);
}
