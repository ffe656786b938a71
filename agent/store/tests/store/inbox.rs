//! Parked events, dead letters, message ids, schedules, the registry and the local lane.

use std::time::Duration;

use holm_core::{Event, Timestamp};
use holm_store::{Account, DedupeKey, InboxId, LocalId, Settlement, Write};

use crate::{PATIENCE, Running, event, message, name, settlement};

fn park(id: i64, due: i64) -> Write {
    Write::Park {
        id: InboxId(id),
        function: name("f"),
        event: event(&format!("e{id}")).into(),
        due: Timestamp(due),
        fault: None,
    }
}

fn unpark(id: i64) -> Write {
    Write::Unpark { id: InboxId(id), function: name("f") }
}

fn due(running: &Running, now: i64, after: i64) -> Vec<i64> {
    running.store.due(Timestamp(now), InboxId(after), 100).unwrap().iter().map(|id| id.0).collect()
}

#[test]
fn parked_events_come_back_as_they_were_when_they_are_due() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    let store = &running.store;
    assert_eq!((store.next_inbox_id(), store.next_inbox_id()), (InboxId(1), InboxId(2)));
    store.commit(vec![park(1, 10), park(2, 20), park(3, 5)]).unwrap();
    assert_eq!((due(&running, 4, 0), due(&running, 10, 0), due(&running, 99, 1)), (vec![], vec![1, 3], vec![2, 3]));
    assert_eq!(store.next_due_after(Timestamp(10)).unwrap(), Some(Timestamp(20)));
    assert_eq!(store.next_due_after(Timestamp(20)).unwrap(), None);
    assert_eq!(store.inbox_rows(), 3);

    let postpone = Write::Postpone { id: InboxId(1), attempt: 4, due: Timestamp(50), fault: "broke".into() };
    store.commit(vec![postpone, unpark(3)]).unwrap();
    // A row that is gone does not count twice.
    store.commit(vec![unpark(3), unpark(77)]).unwrap();
    assert_eq!((store.inbox_rows(), store.inbox_rows_of(&name("f")), store.inbox_rows_of(&name("g"))), (2, 2, 0));
    running.close();

    let running = Running::open(folder.path());
    assert_eq!((running.store.inbox_rows(), running.store.inbox_rows_of(&name("f"))), (2, 2));
    assert_eq!(running.store.inbox_stat().unwrap().parked, 2);
    let due = running.store.due(Timestamp(50), InboxId(0), 100).unwrap();
    let parked = running.store.parked(&due).unwrap();
    assert_eq!(parked.iter().map(|parked| parked.id.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(parked[0].event, Event { attempt: 4, ..event("e1") });
    assert_eq!(parked[0].fault.as_deref(), Some("broke"));
    assert_eq!((parked[0].function.as_str(), parked[1].due), ("f", Timestamp(20)));
    assert_eq!(running.store.next_inbox_id(), InboxId(3));
    running.close();
}

#[test]
fn dead_letters_are_kept_for_their_time_or_until_they_are_taken_out() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    running.store.commit(vec![]).unwrap();
    let bury = |function: &str, id: &str, now: i64, keep| Write::Bury {
        function: name(function),
        event: event(id).into(),
        now: Timestamp(now),
        keep,
        kind: "trap",
        fault: "unreachable".into(),
    };
    let long = Duration::from_millis(i64::MAX as u64);
    running
        .store
        .commit(vec![
            bury("f", "a", 1, Duration::ZERO),
            bury("f", "b", 2, long),
            bury("g", "c", 3, long),
            bury("f", "d", 4, long),
        ])
        .unwrap();
    let all = running.store.dead_letters(None, 10).unwrap();
    assert_eq!(all.iter().map(|dead| &*dead.event.id.0).collect::<Vec<_>>(), ["d", "c", "b", "a"]);
    assert_eq!((all[0].kind.as_str(), all[0].fault.as_str(), all[0].buried), ("trap", "unreachable", Timestamp(4)));
    assert_eq!(all[0].event, event("d"));
    assert_eq!(running.store.dead_letters(Some("g"), 10).unwrap().len(), 1);
    assert_eq!(running.store.dead_letters(None, 2).unwrap().len(), 2);
    let ids: Vec<i64> = all.iter().rev().map(|dead| dead.id).collect();
    let until = |until, limit| running.store.dead_letters_until("f", until, limit).unwrap();
    assert_eq!(until(ids[3], 10), [ids[0], ids[1], ids[3]], "the oldest first");
    assert_eq!((until(ids[2], 10), until(ids[3], 1)), (vec![ids[0], ids[1]], vec![ids[0]]));
    assert_eq!(running.store.dead_letter_count().unwrap(), 4);
    running.store.commit(vec![Write::Exhume(all[0].id)]).unwrap();
    assert!(running.store.dead_letter(all[0].id).unwrap().is_none());
    running.close();
    let running = Running::open(folder.path());
    running.store.commit(vec![]).unwrap();
    let left = running.store.dead_letters(None, 10).unwrap();
    assert_eq!(left.iter().map(|dead| &*dead.event.id.0).collect::<Vec<_>>(), ["c", "b"]);
    assert_eq!(running.store.inbox_stat().unwrap().dead, 2);
    running.close();
}

#[test]
fn message_ids_are_remembered_for_the_window() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    running.store.commit(vec![]).unwrap();
    let (old, new) = (DedupeKey::new("c", "t", "1"), DedupeKey::new("c", "t", "2"));
    let remember = |key: &DedupeKey, seen| Write::Remember { key: key.clone(), seen: Timestamp(seen) };
    running.store.commit(vec![remember(&old, 0), remember(&new, i64::MAX / 2), remember(&new, 0)]).unwrap();
    let reader = running.store.reader().unwrap();
    assert!(reader.seen(&new).unwrap());
    assert!(!reader.seen(&old).unwrap(), "past the window");
    assert!(!reader.seen(&DedupeKey::new("c", "t", "3")).unwrap());
    drop(reader);
    running.close();
    let running = Running::open(folder.path());
    running.store.commit(vec![]).unwrap();
    let reader = running.store.reader().unwrap();
    assert!(!reader.seen(&old).unwrap(), "past the window");
    assert!(reader.seen(&new).unwrap());
    running.close();
}

#[test]
fn keys_of_message_ids_differ_wherever_client_topic_or_id_does() {
    let long = "x".repeat(48);
    let mut keys = std::collections::BTreeSet::new();
    let mut count = 0;
    for client in ["", "a", "ab", "client ü"] {
        for topic in ["t", "t/1", "a"] {
            for id in ["", "1", "12", "ü", &long, &format!("{long}x"), &format!("{long}y"), &"y".repeat(10_000)] {
                assert_eq!(DedupeKey::new(client, topic, id), DedupeKey::new(client, topic, id));
                keys.insert(DedupeKey::new(client, topic, id));
                count += 1;
            }
        }
    }
    assert_eq!(keys.len(), count);
}

#[test]
fn consecutive_message_ids_of_a_publisher_share_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let id = |n: i64| Write::Remember {
        key: DedupeKey::new(&format!("publisher-{}", n % 5), "a/b", &format!("{:08}", n / 5)),
        seen: Timestamp(i64::MAX / 2 + n),
    };
    let running = Running::open(folder.path());
    running.store.commit((0..20_000).map(id).collect()).unwrap();
    running.close();
    let running = Running::open(folder.path());
    let wal = || std::fs::metadata(folder.path().join("holm.db-wal")).map_or(0, |meta| meta.len());
    running.store.commit(vec![id(20_000)]).unwrap();
    let before = wal();
    running.store.commit((20_001..20_100).map(id).collect()).unwrap();
    let pages = (wal() - before) / 4096;
    assert!(pages <= 40, "a hundred ids of five publishers wrote {pages} pages");
    running.close();
}

#[test]
fn schedules_the_registry_and_the_local_lane_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    let fired = |at| Write::Fired { function: name("f"), name: "hourly".into(), at: Timestamp(at) };
    let document =
        |key: &str, text: Option<&str>| Write::Registry { key: key.into(), document: text.map(str::to_owned) };
    let local = |id| Write::Local { id: LocalId(id), message: message("out/x") };
    running
        .store
        .commit(vec![
            fired(1),
            fired(2),
            document("a", Some("1")),
            document("a", Some("{\"b\":2}")),
            document("c", Some("3")),
        ])
        .unwrap();
    running
        .store
        .commit(vec![document("c", None), local(1), local(2), local(3), Write::LocalDone(LocalId(2))])
        .unwrap();
    let epoch = running.store.epoch().unwrap();
    assert_eq!(epoch.len(), 16);
    running.close();
    let running = Running::open(folder.path());
    assert_eq!(running.store.epoch().unwrap(), epoch);
    assert_eq!(running.store.fired(&name("f"), "hourly").unwrap(), Some(Timestamp(2)));
    assert_eq!(running.store.fired(&name("f"), "daily").unwrap(), None);
    assert_eq!(running.store.registry("a").unwrap().as_deref(), Some("{\"b\":2}"));
    assert_eq!(running.store.registry("c").unwrap(), None);
    let rows = running.store.local(LocalId(0), 10).unwrap();
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [LocalId(1), LocalId(3)]);
    assert_eq!(rows[0].message, *message("out/x"));
    assert_eq!(running.store.local(LocalId(1), 10).unwrap().len(), 1);
    assert_eq!(running.store.next_local_id(), LocalId(4));
    running.close();
}

#[test]
fn accounts_add_up_with_and_without_settlements() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    let account = |peak| Account {
        invocations: 1,
        errors: 0,
        wall_us: 10,
        cpu_us: 5,
        peak_memory: peak,
        bytes_in: 3,
        bytes_out: 4,
    };
    let settled = Settlement { account: Some((name("f"), account(7))), ..settlement(vec![]) };
    assert_eq!(running.queue(settled).recv_timeout(PATIENCE).unwrap(), Ok(()));
    running.store.account(&name("f"), &account(9));
    running.store.account(&name("g"), &account(1));
    let expected =
        Account { invocations: 2, errors: 0, wall_us: 20, cpu_us: 10, peak_memory: 9, bytes_in: 6, bytes_out: 8 };
    assert_eq!(running.store.accounts().unwrap()[0].account, expected, "before they are written");
    running.close();
    let running = Running::open(folder.path());
    let accounts = running.store.accounts().unwrap();
    assert_eq!(accounts.iter().map(|row| row.function.as_str()).collect::<Vec<_>>(), ["f", "g"]);
    assert_eq!(accounts[0].account, expected);
    running.close();
}
