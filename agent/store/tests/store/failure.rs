//! A database that cannot grow: what fails, what is discarded, what happens when there is room again.

use holm_store::{CommitError, OpenOptions, QueueError, Quota, Settlement};

use crate::{PATIENCE, Running, set, settlement, unset, value};

fn small(folder: &std::path::Path) -> OpenOptions {
    OpenOptions { max_pages: Some(100), ..OpenOptions::new(folder) }
}

#[test]
fn a_full_disk_fails_the_group_and_discards_what_is_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::with(&small(folder.path())).unwrap();
    running.store.commit(vec![set("a", "committed")]).unwrap();
    let generation = running.store.generation();

    let held = running.hold();
    let mut group = vec![running.queue(settlement(vec![set("a", "queued")]))];
    group.push(running.queue(settlement(vec![set("big", vec![0; 2 << 20])])));
    group.extend((2..256).map(|n| running.queue(settlement(vec![set(&format!("g{n}"), "v")]))));
    let behind: Vec<_> = (0..20).map(|n| running.queue(settlement(vec![set(&format!("b{n}"), "v")]))).collect();
    // The very last write that was queued, which will not have happened.
    let last = running.store.reader().unwrap().get(&"f".into(), &"b19".into()).unwrap();
    assert!(last.value.is_some());
    let reads = vec![("f".into(), "b19".into(), last.version)];
    drop(held);
    for outcome in group {
        assert_eq!(outcome.recv_timeout(PATIENCE).unwrap(), Err(CommitError::DiskFull));
    }
    for outcome in behind {
        assert_eq!(outcome.recv_timeout(PATIENCE).unwrap(), Err(CommitError::Discarded));
    }

    assert!(running.store.stats().failing);
    assert!(running.store.generation() > generation);
    let stale = Settlement { generation: Some(generation), ..settlement(vec![set("x", "v")]) };
    assert_eq!(running.store.queue(stale, |_| {}), Err(QueueError::Stale));
    // Even without a generation: what it read never happened.
    let misled = Settlement { reads, ..settlement(vec![set("x", "v")]) };
    assert_eq!(running.store.queue(misled, |_| {}), Err(QueueError::Conflict));
    assert_eq!(value(&running.store, "a").as_deref(), Some("committed"));
    assert_eq!(value(&running.store, "b3"), None);
    running.close();
    let running = Running::open(folder.path());
    assert_eq!(value(&running.store, "a").as_deref(), Some("committed"));
    assert_eq!(value(&running.store, "g2"), None);
    running.close();
}

#[test]
fn work_resumes_when_space_returns() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::with(&small(folder.path())).unwrap();
    let filled =
        (0..1000).find(|n| running.store.commit(vec![set(&format!("fill{n}"), vec![7; 8192])]).is_err()).unwrap();
    assert!(filled > 10, "there was room for {filled}");
    let again = running.store.commit(vec![set("more", vec![7; 8192])]);
    assert_eq!(again, Err(CommitError::DiskFull));
    assert!(running.store.stats().failing);
    running.store.commit((0..filled).map(|n| unset(&format!("fill{n}"))).collect()).unwrap();
    assert!(!running.store.stats().failing);
    running.store.commit(vec![set("more", vec![7; 8192])]).unwrap();
    running.close();
}

#[test]
fn a_quota_does_not_count_what_was_discarded() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::with(&small(folder.path())).unwrap();
    let quotas = vec![Quota::new("f".into(), 300)];
    running.store.commit(vec![set("a", vec![1; 200])]).unwrap();
    let held = running.hold();
    // Takes the 200 bytes away, in a group that will fail.
    let gone = running.queue(Settlement { quotas: quotas.clone(), ..settlement(vec![unset("a")]) });
    let big = running.queue(settlement(vec![set("big", vec![0; 2 << 20])]));
    drop(held);
    assert_eq!(gone.recv_timeout(PATIENCE).unwrap(), Err(CommitError::DiskFull));
    assert_eq!(big.recv_timeout(PATIENCE).unwrap(), Err(CommitError::DiskFull));
    let beyond = Settlement { quotas, ..settlement(vec![set("b", vec![1; 200])]) };
    assert_eq!(running.store.queue(beyond, |_| {}), Err(QueueError::Quota { would_be: 402, limit: 300 }));
    running.close();
}

#[test]
fn sequences_have_no_holes_after_a_failed_commit() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::with(&small(folder.path())).unwrap();
    running.store.commit(vec![crate::outbox::row("s", 10)]).unwrap();
    let failed = running.store.commit(vec![crate::outbox::row("s", 10), set("big", vec![0; 2 << 20])]);
    assert_eq!(failed, Err(CommitError::DiskFull));
    running.store.commit(vec![crate::outbox::row("s", 10)]).unwrap();
    let sequences: Vec<i64> = running.store.outbox(None, 0, 10).unwrap().iter().map(|row| row.sequence).collect();
    assert_eq!(sequences, [1, 2]);
    running.close();
}

#[test]
fn an_impossible_write_fails_its_group_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    let park = || holm_store::Write::Park {
        id: holm_store::InboxId(1),
        function: crate::name("f"),
        event: std::sync::Arc::new(crate::event("e")),
        due: holm_core::Timestamp(0),
        fault: None,
    };
    running.store.commit(vec![park()]).unwrap();
    let Err(CommitError::Failed(reason)) = running.store.commit(vec![park()]) else { panic!("a row twice") };
    assert!(reason.contains("park an event") && reason.contains("UNIQUE"), "{reason}");
    assert_eq!(running.store.inbox_rows(), 1);
    running.close();
}

#[test]
fn nothing_that_ran_is_settled_until_all_have_heard_of_a_failed_commit() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::with(&small(folder.path())).unwrap();
    let held = running.hold();
    let (telling, told) = std::sync::mpsc::channel();
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let done = move |result| {
        telling.send(result).unwrap();
        let _ = wait.recv_timeout(PATIENCE);
    };
    running.store.queue(settlement(vec![set("big", vec![0; 2 << 20])]), done).unwrap();
    drop(held);
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), Err(CommitError::DiskFull));
    // Whoever queued behind may not know yet that nothing of it happened, and could build on it.
    let run = || Settlement { generation: Some(running.store.generation()), ..settlement(vec![set("x", "v")]) };
    assert_eq!(running.store.queue(run(), |_| {}), Err(QueueError::Stale));
    assert_eq!(running.store.queue_blocking(run(), |_| {}).map(drop), Err(QueueError::Stale));
    // Nor afterwards, if it began before: what it belongs to may have been refused while it ran.
    let began_meanwhile = run();
    drop(go_on);
    running.await_told();
    assert_eq!(running.store.queue(began_meanwhile, |_| {}), Err(QueueError::Stale));
    assert_eq!(running.store.queue(run(), |_| {}), Ok(()));
    running.close();
}

/// Leaves not one page free.
fn fill(running: &Running) {
    for size in [8192, 400, 20] {
        let fits = |n| running.store.commit(vec![set(&format!("fill-{size}-{n}"), vec![7; size])]).is_ok();
        assert!((0..10_000).any(|n| !fits(n)));
    }
}

#[test]
fn a_full_disk_does_not_keep_the_store_from_closing() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::with(&small(folder.path())).unwrap();
    fill(&running);
    let failures = running.store.stats().failures;
    for n in 0..300 {
        let account = holm_store::Account { invocations: 1, ..holm_store::Account::default() };
        running.store.account(&crate::name(&format!("function-{n}")), &account);
    }
    running.store.close();
    let start = std::time::Instant::now();
    while !running.writer.is_finished() {
        assert!(start.elapsed() < PATIENCE, "{} failures", running.store.stats().failures);
        std::thread::yield_now();
    }
    assert!(running.store.stats().failures > failures, "there was something that could not be written");
    running.close();
}
