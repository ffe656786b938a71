//! A time of day that is set while the store is open.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use holm_core::{ClientId, SessionWrite, Timestamp};
use holm_store::{DedupeKey, InboxId, Lane, OpenOptions, Reading, Write};

use crate::{Running, event, name};

/// 2026-01-01.
const TODAY: i64 = 1_767_225_600_000;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A clock that a test sets.
#[derive(Clone, Default)]
pub(crate) struct Hands {
    wall: Arc<AtomicI64>,
    uptime: Arc<AtomicI64>,
}

impl Hands {
    pub(crate) fn at(wall: i64) -> Self {
        let hands = Self::default();
        hands.set(wall);
        hands
    }

    fn set(&self, wall: i64) {
        self.wall.store(wall, Ordering::SeqCst);
    }

    pub(crate) fn pass(&self, millis: i64) {
        self.wall.fetch_add(millis, Ordering::SeqCst);
        self.uptime.fetch_add(millis, Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> i64 {
        self.wall.load(Ordering::SeqCst)
    }

    pub(crate) fn read(&self) -> Reading {
        let uptime = Duration::from_millis(self.uptime.load(Ordering::SeqCst) as u64);
        Reading { wall: self.now(), uptime }
    }
}

fn key(id: &str) -> DedupeKey {
    DedupeKey::new("c", "t", id)
}

/// One row of everything that has a time, and an event that is due in an hour.
fn write(running: &Running, now: i64) {
    let client = ClientId("c".into());
    running
        .store
        .commit(vec![
            Write::Remember { key: key("1"), seen: Timestamp(now) },
            Write::Outbox {
                lane: Lane::Results,
                stream: "r".into(),
                created: Timestamp(now),
                content_type: None,
                data: "1".into(),
            },
            Write::Bury {
                function: name("f"),
                event: event("e").into(),
                now: Timestamp(now),
                keep: Duration::from_secs(7 * 86_400),
                kind: "trap",
                fault: "unreachable".into(),
            },
            Write::Park {
                id: running.store.next_inbox_id(),
                function: name("f"),
                event: holm_core::Event { time: Timestamp(now), ..event("e") }.into(),
                due: Timestamp(now + HOUR),
                fault: None,
            },
            Write::Session(SessionWrite::Open { client: client.clone(), expiry_seconds: Some(3600) }),
            Write::Session(SessionWrite::Away { client, since: Timestamp(now) }),
        ])
        .unwrap();
}

/// The ages of what [`write`] wrote, in milliseconds, and how long the event still waits. Empty when nothing is there.
fn ages(running: &Running, folder: &std::path::Path, now: i64) -> Vec<i64> {
    let store = &running.store;
    let connection = rusqlite::Connection::open(crate::database(folder)).unwrap();
    let mut times: Vec<i64> = connection
        .prepare("SELECT seen FROM dedupe UNION ALL SELECT seen FROM dedupe_2 ORDER BY 1 DESC LIMIT 1")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    times.extend(store.outbox(None, 0, 10).unwrap().iter().map(|row| row.created.0));
    for dead in store.dead_letters(None, 10).unwrap() {
        times.extend([dead.buried.0, dead.expires.0 - 7 * DAY]);
    }
    times.extend(store.broker().unwrap().sessions.iter().map(|session| session.away_since.unwrap().0));
    let due = store.due(Timestamp(i64::MAX), InboxId(0), 10).unwrap();
    times.extend(store.parked(&due).unwrap().iter().map(|parked| parked.due.0 - HOUR));
    times.iter().map(|time| now - time).collect()
}

/// Everything is written at `start`; five minutes later the clock is set to `to`.
#[track_caller]
fn check_jump(start: i64, to: i64) {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::at(start);
    let running = Running::with_clock(&OpenOptions::new(folder.path()), &hands);
    running.store.commit(vec![]).unwrap();
    for _ in 0..5 {
        hands.pass(MINUTE);
        running.store.commit(vec![]).unwrap();
    }
    write(&running, hands.now());
    hands.pass(MINUTE / 2);
    hands.set(to);
    hands.pass(MINUTE / 2);
    let commit = || running.store.commit(vec![]).unwrap();
    commit();
    let age = |n: i64| vec![n; 6];
    assert_eq!(ages(&running, folder.path(), hands.now()), age(MINUTE), "from {start} to {to}");
    assert_eq!(running.store.gaps(10).unwrap(), []);
    // From here on, time passes as ever.
    for _ in 0..120 {
        hands.pass(MINUTE);
        commit();
    }
    assert_eq!(ages(&running, folder.path(), hands.now()), age(2 * HOUR + MINUTE), "from {start} to {to}");
    hands.pass(DAY);
    commit();
    assert!(!running.store.reader().unwrap().seen(&key("1")).unwrap(), "past the window");
    assert_eq!(running.store.dead_letters(None, 10).unwrap().len(), 1);
    hands.pass(30 * DAY);
    commit();
    assert_eq!(running.store.dead_letters(None, 10).unwrap().len(), 0);
    assert_eq!(running.store.gaps(10).unwrap().len(), 1);
    running.close();
}

#[test]
fn nothing_expires_when_a_board_that_began_in_1970_hears_the_time() {
    check_jump(0, TODAY);
    check_jump(3 * HOUR, TODAY);
}

#[test]
fn ages_and_waits_stay_what_they_were_whenever_the_clock_is_set() {
    check_jump(TODAY, TODAY + 400 * DAY);
    check_jump(TODAY, TODAY - 400 * DAY);
    check_jump(TODAY, TODAY - 2 * HOUR);
    check_jump(TODAY, 0);
}

#[test]
fn what_was_due_stays_due_when_the_clock_is_set_back() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::at(TODAY - DAY);
    let running = Running::with_clock(&OpenOptions::new(folder.path()), &hands);
    write(&running, hands.now());
    running.close();
    // Due for long when the node starts again.
    let hands = Hands::at(TODAY);
    let running = Running::with_clock(&OpenOptions::new(folder.path()), &hands);
    running.store.commit(vec![]).unwrap();
    hands.set(TODAY - 300 * DAY);
    hands.pass(MINUTE);
    running.store.commit(vec![]).unwrap();
    assert_eq!(running.store.due(Timestamp(hands.now()), InboxId(0), 10).unwrap().len(), 1);
    running.close();
}

#[test]
fn what_an_earlier_run_wrote_in_1970_is_kept_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::at(2 * HOUR);
    let running = Running::with_clock(&OpenOptions::new(folder.path()), &hands);
    write(&running, hands.now());
    running.close();
    // The node was killed, the board was not.
    hands.pass(MINUTE);
    let running = Running::with_clock(&OpenOptions::new(folder.path()), &hands);
    running.store.commit(vec![]).unwrap();
    hands.set(TODAY);
    hands.pass(MINUTE);
    running.store.commit(vec![]).unwrap();
    assert!(running.store.reader().unwrap().seen(&key("1")).unwrap());
    assert_eq!(running.store.dead_letters(None, 10).unwrap().len(), 1);
    assert_eq!(running.store.gaps(10).unwrap(), []);
    running.close();
}

#[test]
fn what_aged_while_the_node_was_off_goes() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::at(TODAY);
    let running = Running::with_clock(&OpenOptions::new(folder.path()), &hands);
    write(&running, hands.now());
    running.close();
    // The board has kept the time of its last minute, a month ago, and hears the right one.
    hands.pass(MINUTE);
    let running = Running::with_clock(&OpenOptions::new(folder.path()), &hands);
    running.store.commit(vec![]).unwrap();
    hands.set(TODAY + 31 * DAY);
    hands.pass(MINUTE);
    running.store.commit(vec![]).unwrap();
    assert!(!running.store.reader().unwrap().seen(&key("1")).unwrap());
    assert_eq!(running.store.dead_letters(None, 10).unwrap().len(), 0);
    assert_eq!(running.store.gaps(10).unwrap()[0].reason, "age");
    running.close();
}

#[test]
fn a_time_that_means_never_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::at(0);
    let running = Running::with_clock(&OpenOptions::new(folder.path()), &hands);
    running.store.commit(vec![]).unwrap();
    let long = Duration::from_millis(i64::MAX as u64);
    running
        .store
        .commit(vec![
            Write::Bury {
                function: name("f"),
                event: event("e").into(),
                now: Timestamp(5),
                keep: long,
                kind: "trap",
                fault: "unreachable".into(),
            },
            Write::Park {
                id: InboxId(1),
                function: name("f"),
                event: event("e").into(),
                due: Timestamp(i64::MAX),
                fault: None,
            },
        ])
        .unwrap();
    hands.set(TODAY);
    hands.pass(MINUTE);
    running.store.commit(vec![]).unwrap();
    assert_eq!(running.store.dead_letters(None, 10).unwrap()[0].expires, Timestamp(i64::MAX));
    assert_eq!(running.store.next_due_after(Timestamp(0)).unwrap(), Some(Timestamp(i64::MAX)));
    running.close();
}

#[test]
fn what_cannot_be_dated_anew_is_kept_and_what_is_old_goes_all_the_same() {
    for to in [TODAY + 400 * DAY, TODAY - 400 * DAY] {
        let folder = tempfile::tempdir().unwrap();
        let hands = Hands::at(TODAY);
        let running = Running::with_clock(&OpenOptions::new(folder.path()), &hands);
        running.store.commit(vec![]).unwrap();
        write(&running, hands.now());
        let ancient = Write::Remember { key: key("ancient"), seen: Timestamp(TODAY - 500 * DAY) };
        running.store.commit(vec![ancient]).unwrap();
        let seen = |id| running.store.reader().unwrap().seen(&key(id)).unwrap();
        let other = rusqlite::Connection::open(crate::database(folder.path())).unwrap();
        other.execute_batch("CREATE TRIGGER no BEFORE UPDATE ON dead BEGIN SELECT raise(ABORT, 'no'); END").unwrap();
        hands.set(to);
        for _ in 0..3 {
            hands.pass(MINUTE);
            running.store.commit(vec![]).unwrap();
            assert!(seen("1") && !seen("ancient"));
            assert_eq!(running.store.gaps(10).unwrap(), []);
        }
        other.execute_batch("DROP TRIGGER no").unwrap();
        hands.pass(MINUTE);
        running.store.commit(vec![]).unwrap();
        assert_eq!(ages(&running, folder.path(), hands.now()), [4 * MINUTE; 6]);
        running.close();
    }
}
