//! Opening the database: its format, its settings, its readers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use super::Records;
use super::writer::{Queue, Writer};
use crate::CloudError;
use crate::error::sql;

/// `HLCP` in ASCII.
const APPLICATION_ID: i64 = 0x484C_4350;

/// `user_version` is `major * 1000 + minor`. A minor step only adds; a higher major is refused untouched.
const MAJOR: i64 = 1;

/// Each step brings the database from the version before it to this one.
const STEPS: &[(i64, &str)] = &[
    (1000, include_str!("schema/1000.sql")),
    (1001, include_str!("schema/1001.sql")),
    (1002, include_str!("schema/1002.sql")),
    (1003, include_str!("schema/1003.sql")),
    (1004, include_str!("schema/1004.sql")),
    (1005, include_str!("schema/1005.sql")),
    (1006, include_str!("schema/1006.sql")),
    (1007, include_str!("schema/1007.sql")),
];

/// Connections that read at the same time. Each costs its cache.
const READERS: usize = 3;

/// Pages of 4 KiB after which the log is moved into the file: 16 MiB, so that a busy ingest is not slowed by it.
const CHECKPOINT_PAGES: i64 = 4_000;

/// An open database.
pub(crate) struct Opened {
    pub(crate) records: Records,
    /// To be given a thread.
    pub(crate) writer: Writer,
}

impl Opened {
    /// Opens the file, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self, CloudError> {
        let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        migrate(&mut connection, path)?;
        // A power cut can take what is not synced: WAL with FULL syncs the log before a commit returns.
        for (name, value) in [("journal_mode", "WAL"), ("synchronous", "FULL"), ("temp_store", "MEMORY")] {
            connection.pragma_update(None, name, value).map_err(sql("set up the database"))?;
        }
        for (name, value) in [("cache_size", -16_384), ("wal_autocheckpoint", CHECKPOINT_PAGES)] {
            connection.pragma_update(None, name, value).map_err(sql("set up the database"))?;
        }
        connection.set_prepared_statement_cache_capacity(64);
        let (queue, work) = Queue::new();
        let queue = Arc::new(queue);
        let writer = Writer::new(connection, work, queue.clone());
        let records = Records { queue, readers: Arc::new(Readers::new(path)) };
        Ok(Self { records, writer })
    }
}

/// Copies a database as one transaction sees it, whoever else has it open. `to` is an empty file.
pub(crate) fn copy_database(from: &Path, to: &Path) -> Result<(), CloudError> {
    let connection = connect(from, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let name = to.to_string_lossy();
    connection.execute("VACUUM INTO ?1", [&*name]).map(|_| ()).map_err(sql("copy the database"))
}

/// Whether a file is a whole database of ours.
pub(crate) fn check_database(path: &Path) -> Result<(), CloudError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let action = "check the database";
    let application: i64 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(sql(action))?;
    if application != APPLICATION_ID {
        return Err(CloudError::NotOurs { path: path.to_owned() });
    }
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sql(action))?;
    match verdict.as_str() {
        "ok" => Ok(()),
        problem => Err(CloudError::Broken { what: format!("{} is damaged: {problem}", path.display()) }),
    }
}

pub(super) fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, CloudError> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(sql("open the database"))?;
    connection.busy_timeout(Duration::from_secs(10)).map_err(sql("set up the database"))?;
    Ok(connection)
}

pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), CloudError> {
    let action = "read the database's format";
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sql(action));
    let (found, application) = (pragma("user_version")?, pragma("application_id")?);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(sql(action))?;
    if tables > 0 && application != APPLICATION_ID {
        return Err(CloudError::NotOurs { path: path.to_owned() });
    }
    if found / 1000 > MAJOR {
        return Err(CloudError::FromTheFuture { path: path.to_owned(), found, known: MAJOR * 1000 + 999 });
    }
    for (version, step) in STEPS.iter().filter(|(version, _)| *version > found) {
        let action = "bring the database up to date";
        let transaction = connection.transaction().map_err(sql(action))?;
        transaction.execute_batch(step).map_err(sql(action))?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(sql(action))?;
        transaction.pragma_update(None, "user_version", version).map_err(sql(action))?;
        transaction.commit().map_err(sql(action))?;
    }
    Ok(())
}

/// Connections for reading, opened when they are first needed.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    turns: Arc<Semaphore>,
}

impl Readers {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), idle: Mutex::default(), turns: Arc::new(Semaphore::new(READERS)) }
    }

    /// See [`Records::read`]. Cancel safe: a look that nobody waits for runs to its end.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        look: impl FnOnce(&Connection) -> Result<T, CloudError> + Send + 'static,
    ) -> Result<T, CloudError> {
        let turn = self.turns.clone().acquire_owned().await.map_err(|_| CloudError::Busy)?;
        let this = self.clone();
        let read = move || {
            // Held by the look and not by who waits for it.
            let _turn = turn;
            let connection = match this.take() {
                Some(connection) => connection,
                None => this.open()?,
            };
            let result = look(&connection);
            this.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            result
        };
        let broken = |error: tokio::task::JoinError| CloudError::Broken { what: format!("a look failed: {error}") };
        tokio::task::spawn_blocking(read).await.map_err(broken)?
    }

    fn take(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn open(&self) -> Result<Connection, CloudError> {
        let connection = connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.pragma_update(None, "cache_size", -4_096).map_err(sql("set up the database"))?;
        Ok(connection)
    }
}
