//! Files of other releases and of other programs.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use holm_core::Timestamp;
use holm_store::{DedupeKey, InboxId, LocalId, OpenOptions, StoreError};
use rusqlite::Connection;

use crate::{Running, database, message, set, value};

/// Whoever owns nothing.
const NOBODY: u32 = 65_534;

/// A database as the first release left it.
fn format_1000(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(include_str!("../../src/schema/1000.sql")).unwrap();
    connection
        .execute_batch(
            &r#"PRAGMA user_version = 1000; PRAGMA application_id = 0x484F4C4D; PRAGMA journal_mode = WAL;
            INSERT INTO meta VALUES ('epoch', 'c0ffee');
            INSERT INTO state VALUES ('f', 'kept', x'76616c7565');
            INSERT INTO inbox VALUES (41, 'f', 2, 5, 'was busy', 'e1', 'mqtt', 'a/b', NULL, x'00ff', 9, 1, 3, '[["qos","1"]]');
            INSERT INTO outbox VALUES (7, 1, 's', 12, 9, NULL, x'01');
            INSERT INTO stream VALUES ('s', 12);
            INSERT INTO dedupe VALUES (x'{old}', 4611686018427387903);
            INSERT INTO registry VALUES ('set', '{"functions":[]}');
            INSERT INTO retained VALUES ('t', x'6f6e', '{"qos":"at-least-once","accepted":3,"of the future":1}');"#
                .replace("{old}", &format!("{:?}", DedupeKey::new("c", "t", "before"))),
        )
        .unwrap();
    connection
}

fn format(path: &Path) -> i64 {
    Connection::open(path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

#[test]
fn opens_what_the_first_release_wrote_with_all_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path());
    drop(format_1000(&path));
    let running = Running::open(folder.path());
    assert_eq!(running.recovery, None);
    let store = &running.store;
    assert_eq!(value(store, "kept").as_deref(), Some("value"));
    let due = store.parked(&store.due(Timestamp(5), InboxId(0), 10).unwrap()).unwrap();
    assert_eq!((due[0].id, due[0].event.attempt, &*due[0].event.data), (InboxId(41), 2, &[0, 255][..]));
    assert_eq!(store.next_inbox_id(), InboxId(42));
    assert_eq!(store.inbox_rows(), 1);
    assert_eq!(store.registry("set").unwrap().as_deref(), Some("{\"functions\":[]}"));
    assert_eq!(store.broker().unwrap().retained[0].topic.as_str(), "t");
    assert_eq!(store.epoch().unwrap(), "c0ffee");
    // What format 1001 brought is there.
    store.commit(vec![holm_store::Write::Local { id: store.next_local_id(), message: message("x") }]).unwrap();
    assert_eq!(store.local(LocalId(0), 10).unwrap().len(), 1);
    store.commit(vec![crate::outbox::row("s", 1)]).unwrap();
    assert_eq!(store.outbox(Some("s"), 7, 10).unwrap()[0].sequence, 13);
    // And what 1002 did: ids of before count, and new ones too.
    let reader = store.reader().unwrap();
    let key = |id| DedupeKey::new("c", "t", id);
    assert!(reader.seen(&key("before")).unwrap());
    store.commit(vec![holm_store::Write::Remember { key: key("after"), seen: Timestamp(i64::MAX / 2) }]).unwrap();
    assert!(reader.seen(&key("after")).unwrap());
    running.close();
    assert_eq!(format(&path), 1002);
}

#[test]
fn opens_a_later_minor_format_and_leaves_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path());
    Running::open(folder.path()).close();
    Connection::open(&path)
        .unwrap()
        .execute_batch("PRAGMA user_version = 1003; ALTER TABLE state ADD COLUMN extra TEXT; CREATE TABLE later (x)")
        .unwrap();
    let running = Running::open(folder.path());
    assert_eq!(running.recovery, None);
    running.store.commit(vec![set("k", "v")]).unwrap();
    running.close();
    assert_eq!(format(&path), 1003);
}

/// Refused with an error that says so, and not a byte of it changed.
#[track_caller]
fn check_refused(prepare: impl FnOnce(&Path), expected: impl FnOnce(&StoreError) -> bool) {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path());
    prepare(&path);
    let before = fs::read(&path).unwrap();
    let error = OpenOptions::new(folder.path()).open().err().unwrap();
    assert!(expected(&error), "{error:?}");
    assert!(error.to_string().contains("left as it is"), "{error}");
    assert!(fs::read(&path).unwrap() == before, "the file was touched");
    assert!(!folder.path().join("quarantine").exists());
}

#[test]
fn refuses_a_later_major_format_untouched() {
    check_refused(
        |path| format_1000(path).execute_batch("PRAGMA user_version = 2000").unwrap(),
        |error| matches!(error, StoreError::FromTheFuture { found: 2000, .. }),
    );
}

#[test]
fn refuses_the_database_of_another_program_untouched() {
    check_refused(
        |path| {
            Connection::open(path).unwrap().execute_batch("CREATE TABLE theirs (x); PRAGMA user_version = 5").unwrap()
        },
        |error| matches!(error, StoreError::NotOurs { found: 0, .. }),
    );
}

#[test]
fn a_second_handle_is_told_that_the_store_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let first = Running::open(folder.path());
    let second = OpenOptions::new(folder.path()).open().err().unwrap();
    assert!(matches!(second, StoreError::InUse { .. }), "{second:?}");
    first.close();
    Running::open(folder.path()).close();
}

#[test]
fn says_which_file_it_cannot_make() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "x").unwrap();
    let error = OpenOptions::new(&folder.path().join("file/data")).open().err().unwrap();
    assert!(matches!(&error, StoreError::File { path, .. } if path.ends_with("file/data")), "{error:?}");
    // A folder where the database should be is no damage to salvage, but a mistake to point out.
    fs::create_dir_all(folder.path().join("data/holm.db")).unwrap();
    let error = OpenOptions::new(&folder.path().join("data")).open().err().unwrap();
    assert!(matches!(error, StoreError::File { .. } | StoreError::Sql { .. }), "{error:?}");
}

#[test]
fn a_file_that_may_not_be_written_is_refused_and_not_quarantined() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path());
    Running::open(folder.path()).close();
    let mut rights = fs::metadata(&path).unwrap().permissions();
    rights.set_readonly(true);
    fs::set_permissions(&path, rights).unwrap();
    if fs::File::options().write(true).open(&path).is_ok() {
        // Rights do not hold back root, so somebody else tries.
        let name = "migration::a_file_that_may_not_be_written_is_refused_and_not_quarantined";
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let tried = again.args(["--exact", name, "--nocapture"]).uid(NOBODY).gid(NOBODY).current_dir("/").output();
        let tried = tried.expect("the test cannot be run as nobody");
        let said = String::from_utf8_lossy(&tried.stdout);
        assert!(tried.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let error = OpenOptions::new(folder.path()).open().err().unwrap();
    assert!(
        matches!(&error, StoreError::File { action: "write", path: refused, .. } if *refused == path.display().to_string()),
        "{error:?}"
    );
    assert!(!folder.path().join("quarantine").exists());
}
