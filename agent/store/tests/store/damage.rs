//! Files that rotted: the store opens, keeps the evidence and saves what it can.

use std::fs;
use std::path::{Path, PathBuf};

use holm_core::Timestamp;
use holm_store::{CommitError, InboxId, Lane, LocalId, OpenOptions, StoreError, Write};

use crate::{Running, database, event, message, name, set, value};

const PAGE: usize = 4096;

fn wal(folder: &Path) -> PathBuf {
    folder.join("holm.db-wal")
}

/// Some of everything.
fn populate(running: &Running) {
    let store = &running.store;
    for n in 0..40 {
        let mut writes: Vec<Write> = (0..25).map(|m| set(&format!("key-{n}-{m}"), vec![n; 100])).collect();
        writes.push(Write::Park {
            id: store.next_inbox_id(),
            function: name("f"),
            event: event(&format!("e{n}")).into(),
            due: Timestamp(0),
            fault: None,
        });
        writes.push(Write::Outbox {
            lane: if n % 5 == 0 { Lane::Alarms } else { Lane::Results },
            stream: if n % 5 == 0 { "alarms".into() } else { "s".into() },
            created: Timestamp(i64::MAX / 2),
            content_type: None,
            data: vec![n; 300].into(),
        });
        writes.push(Write::Remember {
            key: holm_store::DedupeKey::new("c", "t", &format!("{n}")),
            seen: Timestamp(i64::MAX / 2),
        });
        writes.push(Write::Local { id: store.next_local_id(), message: message("out/x") });
        writes.push(Write::Registry { key: format!("doc-{n}").into(), document: Some("{}".repeat(40)) });
        writes.extend(crate::broker::some(n));
        store.commit(writes).unwrap();
    }
}

/// The bytes of a healthy database, and those of one with a log that was cut off by kill -9: (file, log).
fn healthy() -> [(Vec<u8>, Option<Vec<u8>>); 2] {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::with(&OpenOptions { checkpoint_pages: 150, ..OpenOptions::new(folder.path()) }).unwrap();
    populate(&running);
    let killed = (fs::read(database(folder.path())).unwrap(), Some(fs::read(wal(folder.path())).unwrap()));
    running.close();
    [(fs::read(database(folder.path())).unwrap(), None), killed]
}

fn place(folder: &Path, (file, log): &(Vec<u8>, Option<Vec<u8>>)) {
    fs::write(database(folder), file).unwrap();
    if let Some(log) = log {
        fs::write(wal(folder), log).unwrap();
    }
}

/// Asks everything there is to ask. Answers may be errors; they may not be panics.
fn read_all(running: &Running) {
    let store = &running.store;
    let _ = store.due(Timestamp(i64::MAX), InboxId(0), 1000).and_then(|due| store.parked(&due));
    let _ = store.dead_letters(None, 1000);
    let _ = store.outbox(None, 0, 1000);
    let _ = store.lanes();
    let _ = store.gaps(1000);
    let _ = store.inbox_stat();
    let _ = store.accounts();
    let _ = store.local(LocalId(0), 1000);
    let _ = store.broker();
    let _ = store.registry("doc-1");
    let reader = store.reader().unwrap();
    let _ = reader.keys("f", None, usize::MAX);
    let _ = reader.get(&"f".into(), &"key-1-1".into());
    let _ = reader.seen(&holm_store::DedupeKey::new("c", "t", "1"));
}

fn check_evidence(running: &Running, (file, log): &(Vec<u8>, Option<Vec<u8>>), what: &str) {
    let Some(recovery) = &running.recovery else { return };
    let kept = fs::read(&recovery.quarantined).unwrap_or_default();
    assert!(kept == *file, "{what}: the file in quarantine is not the damaged one");
    if let Some(log) = log {
        let mut path = recovery.quarantined.clone().into_os_string();
        path.push("-wal");
        assert!(fs::read(path).unwrap() == *log, "{what}: the log in quarantine is not the damaged one");
    }
}

/// Marsaglia's xorshift64: seeded, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| *byte = self.below(256) as u8);
    }
}

fn corrupt(random: &mut Random, bytes: &mut Vec<u8>) -> &'static str {
    let (length, pages) = (bytes.len(), bytes.len() / PAGE);
    match random.below(8) {
        0 => {
            bytes.truncate(random.below(length));
            "truncated"
        }
        1 => {
            let at = random.below(length);
            bytes[at] ^= 1 << random.below(8);
            "a bit flipped"
        }
        2 => {
            for _ in 0..64 {
                let at = random.below(length);
                bytes[at] = random.below(256) as u8;
            }
            "64 bytes changed"
        }
        3 => {
            let page = random.below(pages) * PAGE;
            random.fill(&mut bytes[page..page + PAGE]);
            "a page of garbage"
        }
        4 => {
            let page = random.below(pages) * PAGE;
            bytes[page..page + PAGE].fill(0);
            "a page of zeros"
        }
        5 => {
            let (from, to) = (random.below(pages) * PAGE, random.below(pages) * PAGE);
            bytes.copy_within(from..from + PAGE, to);
            "a page where another belongs"
        }
        6 => {
            let at = random.below(100);
            bytes[at] = random.below(256) as u8;
            "a byte of the header changed"
        }
        _ => {
            let at = random.below(length);
            random.fill(&mut bytes[at..]);
            "a tail of garbage"
        }
    }
}

#[test]
fn opens_whatever_was_done_to_the_file() {
    let healthy = healthy();
    let (mut recovered, mut rows) = (0, 0);
    for seed in 1..=200_u64 {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut files = healthy[random.below(2)].clone();
        let what = match &mut files.1 {
            Some(log) if random.below(2) == 0 => corrupt(&mut random, log),
            _ => corrupt(&mut random, &mut files.0),
        };
        let what = format!("seed {seed}, {what}");
        let folder = tempfile::tempdir().unwrap();
        place(folder.path(), &files);
        let running = match Running::with(&OpenOptions::new(folder.path())) {
            Ok(running) => running,
            // The one number that cannot be told from that of a later release.
            Err(StoreError::FromTheFuture { .. }) => {
                assert!(fs::read(database(folder.path())).unwrap() == files.0, "{what}");
                continue;
            }
            Err(error) => panic!("{what}: {error:?}"),
        };
        check_evidence(&running, &files, &what);
        if let Some(recovery) = &running.recovery {
            recovered += 1;
            rows += recovery.rows_saved;
            assert!(recovery.rows_saved > 0 || !recovery.incomplete.is_empty(), "{what}: {recovery:?}");
        }
        read_all(&running);
        let committed = running.store.commit(vec![set("after", "alive")]);
        running.close();
        if committed.is_err() {
            // Damage that only showed in use is salvaged at the next start.
            let running = Running::open(folder.path());
            assert!(running.recovery.is_some(), "{what}: {committed:?}");
            assert_eq!(running.store.commit(vec![set("after", "alive")]), Ok(()), "{what}");
            running.close();
        }
        let running = Running::open(folder.path());
        assert_eq!(value(&running.store, "after").as_deref(), Some("alive"), "{what}");
        running.close();
    }
    assert!(recovered > 50, "only {recovered} of the files were found to be damaged");
    assert!(rows / recovered > 300, "{rows} rows out of {recovered} files");
}

#[test]
fn opens_with_any_byte_of_the_header_changed() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    running.store.commit(vec![set("k", "v")]).unwrap();
    running.close();
    let sound = fs::read(database(folder.path())).unwrap();
    for (at, mask) in (0..100).flat_map(|at| [0x01, 0x80, 0xFF].map(|mask| (at, mask))) {
        let mut file = sound.clone();
        file[at] ^= mask;
        let what = format!("byte {at} changed by {mask:#x}");
        let folder = tempfile::tempdir().unwrap();
        let files = (file, None);
        place(folder.path(), &files);
        match Running::with(&OpenOptions::new(folder.path())) {
            Ok(running) => {
                check_evidence(&running, &files, &what);
                assert_eq!(running.store.commit(vec![set("after", "alive")]), Ok(()), "{what}");
                running.close();
            }
            Err(StoreError::FromTheFuture { .. }) => {
                assert!((60..64).contains(&at), "{what}");
                assert!(fs::read(database(folder.path())).unwrap() == files.0, "{what}");
            }
            Err(error) => panic!("{what}: {error:?}"),
        }
    }
}

#[test]
fn damage_in_the_log_leaves_the_log_as_evidence() {
    let source = tempfile::tempdir().unwrap();
    let running = Running::open(source.path());
    populate(&running);
    running.close();
    // Passes every check of SQLite, and is no name of a stream; in the log, because the connection is still open.
    let connection = rusqlite::Connection::open(database(source.path())).unwrap();
    connection.execute_batch("UPDATE outbox SET stream = x'ff' WHERE id = 3").unwrap();
    let files = (fs::read(database(source.path())).unwrap(), Some(fs::read(wal(source.path())).unwrap()));
    drop(connection);
    let folder = tempfile::tempdir().unwrap();
    place(folder.path(), &files);
    let running = Running::open(folder.path());
    assert!(running.recovery.is_some());
    check_evidence(&running, &files, "a name that is none");
    assert_eq!(running.store.inbox_rows(), 40);
    running.close();
}

#[test]
fn saves_the_rows_on_both_sides_of_a_damaged_page() {
    let [(mut file, _), _] = healthy();
    let middle = file.len() / PAGE / 2 * PAGE;
    file[middle..middle + PAGE].fill(0xAA);
    let folder = tempfile::tempdir().unwrap();
    let files = (file, None);
    place(folder.path(), &files);
    let running = Running::open(folder.path());
    let recovery = running.recovery.clone().unwrap();
    assert!(recovery.rows_saved > 1000, "{recovery:?}");
    assert_eq!(recovery.incomplete.len(), 1, "{recovery:?}");
    check_evidence(&running, &files, "a page");
    running.close();
    let running = Running::open(folder.path());
    assert_eq!(running.recovery, None, "it is salvaged once");
    running.close();
}

#[test]
fn files_that_are_no_database_are_set_aside() {
    let mut random = Random(7);
    for length in [1, 50, 100, 511, 4096, 100_000] {
        let mut garbage = vec![0; length];
        random.fill(&mut garbage);
        let folder = tempfile::tempdir().unwrap();
        let files = (garbage, None);
        place(folder.path(), &files);
        let running = Running::open(folder.path());
        assert_eq!(running.recovery.as_ref().map(|recovery| recovery.rows_saved), Some(0), "{length} bytes");
        check_evidence(&running, &files, "garbage");
        running.store.commit(vec![set("k", "v")]).unwrap();
        running.close();
    }
}

#[test]
fn an_empty_file_is_a_new_store_unless_there_is_a_log() {
    let [_, (_, log)] = healthy();
    for (log, recovered) in [(None, false), (log, true)] {
        let folder = tempfile::tempdir().unwrap();
        let files = (Vec::new(), log);
        place(folder.path(), &files);
        let running = Running::open(folder.path());
        assert_eq!(running.recovery.is_some(), recovered);
        check_evidence(&running, &files, "empty");
        running.close();
    }
}

#[test]
fn a_torn_log_loses_its_tail_and_nothing_else() {
    let [_, (file, log)] = healthy();
    let log = log.unwrap();
    let folder = tempfile::tempdir().unwrap();
    place(folder.path(), &(file, Some(log[..log.len() - PAGE / 2].to_vec())));
    let running = Running::open(folder.path());
    assert_eq!(running.recovery, None);
    assert_eq!(value(&running.store, "key-0-0").map(|text| text.len()), Some(100));
    running.close();
}

#[test]
fn damage_that_shows_in_use_is_salvaged_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    let document = |n: usize, text: String| Write::Registry { key: format!("doc-{n}").into(), document: Some(text) };
    running.store.commit((0..10).map(|n| set(&format!("k{n}"), "v")).collect()).unwrap();
    // More than is checked at a start, in a table that is not read at a start.
    for n in 0..70 {
        running.store.commit(vec![document(n, "x".repeat(1 << 19))]).unwrap();
    }
    running.close();
    let mut bytes = fs::read(database(folder.path())).unwrap();
    let page = bytes.len() / PAGE / 2 * PAGE;
    bytes[page..].fill(0xAA);
    fs::write(database(folder.path()), &bytes).unwrap();
    let running = Running::open(folder.path());
    assert_eq!(running.recovery, None, "not seen at the start");
    let outcome = running.store.commit((0..70).map(|n| document(n, "changed".into())).collect());
    assert!(matches!(outcome, Err(CommitError::Failed(_))), "{outcome:?}");
    running.close();
    let running = Running::open(folder.path());
    assert!(running.recovery.as_ref().is_some_and(|recovery| recovery.rows_saved >= 10), "{:?}", running.recovery);
    assert_eq!(value(&running.store, "k9").as_deref(), Some("v"));
    running.store.commit(vec![document(69, "changed".into())]).unwrap();
    running.close();
    let running = Running::open(folder.path());
    assert_eq!(running.recovery, None, "it is salvaged once");
    running.close();
}

#[test]
fn rows_that_are_lost_leave_a_gap_and_their_numbers_are_not_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    for _ in 0..10 {
        running.store.commit(vec![crate::outbox::row("s", 10)]).unwrap();
    }
    running.close();
    let connection = rusqlite::Connection::open(database(folder.path())).unwrap();
    // As if pages with these rows could not be read; and a number that no format has, so that there is a salvage.
    connection
        .execute_batch("DELETE FROM outbox WHERE sequence IN (3, 4, 10); DELETE FROM stream; PRAGMA user_version = 7")
        .unwrap();
    drop(connection);
    let running = Running::open(folder.path());
    assert!(running.recovery.is_some());
    running.store.commit(vec![crate::outbox::row("s", 10)]).unwrap();
    let sequences: Vec<_> = running.store.outbox(None, 0, 20).unwrap().iter().map(|row| row.sequence).collect();
    assert_eq!(sequences, [1, 2, 5, 6, 7, 8, 9, 10], "a new epoch goes on after the last row that was saved");
    let gaps: Vec<_> =
        running.store.gaps(10).unwrap().into_iter().map(|gap| (gap.first, gap.last, gap.reason)).collect();
    assert_eq!(gaps, [(3, 4, "damage".to_owned())]);
    running.close();
}

#[test]
fn one_rotten_row_does_not_hide_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    populate(&running);
    running.close();
    let connection = rusqlite::Connection::open(database(folder.path())).unwrap();
    connection
        .execute_batch(
            "UPDATE inbox SET attributes = 'rot' WHERE id = 3; UPDATE inbox SET source = x'ff' WHERE id = 4;
             UPDATE subscription SET filter = 'a/#/b' WHERE client = 'client-1'",
        )
        .unwrap();
    drop(connection);
    let running = Running::open(folder.path());
    let due = running.store.due(Timestamp(9), InboxId(0), 100).unwrap();
    assert_eq!((due.len(), running.store.parked(&due).unwrap().len()), (40, 38));
    assert_eq!(running.store.broker().unwrap().sessions.len(), 40);
    running.close();
}

#[test]
fn a_salvage_that_was_cut_off_is_finished_and_not_begun_again() {
    let [(sound, _), (_, log)] = healthy();
    let mut damaged = sound.clone();
    damaged[PAGE..].fill(0xAA);
    // The log of the damaged file is there, or gone already.
    for log in [log, None] {
        let folder = tempfile::tempdir().unwrap();
        place(folder.path(), &(damaged.clone(), log));
        fs::write(folder.path().join("holm.db.ready"), &sound).unwrap();
        fs::write(folder.path().join("holm.db.damaged"), "found in use").unwrap();
        let running = Running::open(folder.path());
        assert_eq!(running.recovery, None, "what was saved is not salvaged again");
        assert_eq!(value(&running.store, "key-39-24").map(|text| text.len()), Some(100));
        assert_eq!(running.store.inbox_rows(), 40);
        running.close();
        assert!(!folder.path().join("holm.db.ready").exists());
        Running::open(folder.path()).close();
    }
}

#[test]
fn a_salvage_that_is_cut_off_after_the_log_is_gone_loses_nothing_of_the_log() {
    let [_, files] = healthy();
    let folder = tempfile::tempdir().unwrap();
    place(folder.path(), &files);
    fs::write(folder.path().join("holm.db.damaged"), "found in use").unwrap();
    // A folder cannot be removed as a file: the salvage comes to an end there, with the log gone.
    let obstacle = folder.path().join("holm.db-journal");
    fs::create_dir(&obstacle).unwrap();
    assert!(matches!(OpenOptions::new(folder.path()).open(), Err(StoreError::File { action: "remove", .. })));
    assert!(!wal(folder.path()).exists());
    fs::remove_dir(&obstacle).unwrap();
    let running = Running::open(folder.path());
    assert_eq!(value(&running.store, "key-39-24").map(|text| text.len()), Some(100));
    assert_eq!(running.store.inbox_rows(), 40);
    running.close();
}

#[test]
fn a_salvage_leaves_nothing_but_the_database_and_the_evidence() {
    let [(mut file, _), (_, log)] = healthy();
    file[PAGE..2 * PAGE].fill(0xAA);
    let folder = tempfile::tempdir().unwrap();
    place(folder.path(), &(file, log));
    let running = Running::open(folder.path());
    assert!(running.recovery.is_some());
    running.close();
    let mut left: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    left.retain(|name| !name.ends_with("-wal") && !name.ends_with("-shm"));
    assert_eq!(left, ["holm.db", "holm.lock", "quarantine"]);
}
