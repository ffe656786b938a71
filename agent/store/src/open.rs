//! Opening the store: locking, checking, migrating, and salvaging what is damaged.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params_from_iter, types::Value};

use crate::apply::OutboxBook;
use crate::store::Shared;
use crate::{OutboxCaps, Store, StoreError, Writer, schema, sql};

/// A database of up to this size is checked whole at every start; a larger one only when SQLite stumbles over it.
const CHECK_UP_TO: u64 = 32 << 20;

/// The database in the data folder.
const FILE: &str = "holm.db";

/// How the store is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The node's data folder; made if absent.
    pub folder: PathBuf,
    /// What may wait for the cloud.
    pub caps: OutboxCaps,
    /// How long message ids are remembered.
    pub dedupe_window: Duration,
    /// SQLite moves the log into the database whenever it has grown by this many pages of 4 KiB.
    pub checkpoint_pages: u32,
}

impl OpenOptions {
    /// The usual options for a data folder.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            caps: OutboxCaps::default(),
            dedupe_window: Duration::from_secs(86_400),
            checkpoint_pages: 1000,
        }
    }
}

/// What happened to a damaged database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Where the damaged file is now. It is never deleted.
    pub quarantined: PathBuf,
    /// What was wrong with it.
    pub reason: String,
    /// Rows that were carried over into the new database.
    pub rows_saved: u64,
    /// Tables of which not every row could be read.
    pub incomplete: Vec<String>,
}

/// An open store.
pub struct Opened {
    /// The handle.
    pub store: Store,
    /// To be given a thread.
    pub writer: Writer,
    /// `Some` if the file was damaged: to be told to the operator loudly.
    pub recovery: Option<Recovery>,
    /// Held for as long as the store is open.
    pub lock: File,
}

impl OpenOptions {
    /// Opens the store, or makes it.
    pub fn open(&self) -> Result<Opened, StoreError> {
        fs::create_dir_all(&self.folder).map_err(|source| file("create", &self.folder, source))?;
        let lock = self.lock()?;
        let path = self.folder.join(FILE);
        let (connection, recovery) = match self.connect(&path) {
            Ok(connection) => (connection, None),
            Err(error) if is_damage(&error) => {
                let (connection, recovery) = self.salvage(&path, &error)?;
                (connection, Some(recovery))
            }
            Err(error) => return Err(error),
        };
        let book = OutboxBook::load(&connection)?;
        let next = |table: &str| -> Result<i64, StoreError> {
            connection
                .query_row(&format!("SELECT coalesce(max(id), 0) + 1 FROM {table}"), [], |row| row.get(0))
                .map_err(sql("number the rows"))
        };
        let shared = Arc::new(Shared::new(path, next("inbox")?, next("local")?));
        load_namespaces(&connection, &shared)?;
        let writer = Writer {
            shared: shared.clone(),
            connection,
            book,
            caps: self.caps,
            dedupe_window: self.dedupe_window,
        };
        Ok(Opened { store: Store { shared }, writer, recovery, lock })
    }

    fn lock(&self) -> Result<File, StoreError> {
        let path = self.folder.join("holm.lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|source| file("open", &path, source))?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(fs::TryLockError::WouldBlock) => Err(StoreError::InUse { path: self.folder.display().to_string() }),
            Err(fs::TryLockError::Error(source)) => Err(file("lock", &path, source)),
        }
    }

    /// Opens a file that is healthy, ours and known, and brings it up to date.
    fn connect(&self, path: &Path) -> Result<Connection, StoreError> {
        let shown = path.display().to_string();
        let existed = path.exists();
        let size = fs::metadata(path).map_or(0, |meta| meta.len());
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if existed {
            // Read-only first, so that a file of the future is not even touched by a change of journal mode.
            let probe = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(sql("open the database"))?;
            schema::inspect(&probe, &shown)?;
        }
        let mut connection = Connection::open_with_flags(path, flags).map_err(sql("open the database"))?;
        connection.busy_timeout(Duration::from_secs(10)).map_err(sql("set up the database"))?;
        connection.set_prepared_statement_cache_capacity(48);
        // A power cut can take what is not synced: WAL with FULL syncs the log before a commit returns.
        let synchronous = "FULL";
        #[cfg(feature = "mutants")]
        let synchronous = if crate::writer::mutant("sync-normal") { "NORMAL" } else { synchronous };
        for (name, value) in [("journal_mode", "WAL"), ("synchronous", synchronous), ("temp_store", "MEMORY")] {
            connection.pragma_update(None, name, value).map_err(sql("set up the database"))?;
        }
        for (name, value) in [
            ("cache_size", -1024),
            ("wal_autocheckpoint", i64::from(self.checkpoint_pages)),
            ("journal_size_limit", 4 << 20),
        ] {
            connection.pragma_update(None, name, value).map_err(sql("set up the database"))?;
        }
        if existed && size <= CHECK_UP_TO {
            let verdict: String = connection
                .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
                .map_err(sql("check the database"))?;
            if verdict != "ok" {
                return Err(StoreError::Row { table: "sqlite_schema", what: verdict });
            }
        }
        schema::migrate(&mut connection)?;
        Ok(connection)
    }

    /// Sets the damaged file aside, makes a new one and carries over every row that can be read.
    fn salvage(&self, path: &Path, error: &StoreError) -> Result<(Connection, Recovery), StoreError> {
        let reason = describe(error);
        let folder = self.folder.join("quarantine");
        fs::create_dir_all(&folder).map_err(|source| file("create", &folder, source))?;
        let mut number = 1;
        let quarantined = loop {
            let candidate = folder.join(format!("holm-{number}.db"));
            if !candidate.exists() {
                break candidate;
            }
            number += 1;
        };
        for suffix in ["-wal", "-shm", ""] {
            let (from, to) = (with_suffix(path, suffix), with_suffix(&quarantined, suffix));
            match fs::rename(&from, &to) {
                Ok(()) => {}
                Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(file("rename", &from, source)),
            }
        }
        let mut connection = self.connect(path)?;
        let (rows_saved, incomplete) = carry_over(&quarantined, &mut connection).unwrap_or_else(|error| {
            tracing::error!(error = %describe(&error), "nothing could be read from the damaged database");
            (0, vec!["all".to_owned()])
        });
        Ok((connection, Recovery { quarantined, reason, rows_saved, incomplete }))
    }
}

/// Copies row by row, because a damaged page ends a scan; then once more from the other end.
fn carry_over(from: &Path, to: &mut Connection) -> Result<(u64, Vec<String>), StoreError> {
    // SQLite writes into a database it opens (recovery of the log): work on a copy, keep the evidence.
    let copy = with_suffix(from, ".copy");
    for suffix in ["", "-wal"] {
        let source = with_suffix(from, suffix);
        if source.exists() {
            fs::copy(&source, with_suffix(&copy, suffix)).map_err(|error| file("copy", &source, error))?;
        }
    }
    let result = copy_tables(&copy, to);
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(with_suffix(&copy, suffix));
    }
    result
}

fn copy_tables(copy: &Path, to: &mut Connection) -> Result<(u64, Vec<String>), StoreError> {
    let source = Connection::open(copy).map_err(sql("open the damaged database"))?;
    // The new database gets an epoch of its own, so `meta` stays behind.
    let tables: Vec<String> = to
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT IN ('meta', 'sqlite_sequence')")
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
        .map_err(sql("list the tables"))?;
    let transaction = to.transaction().map_err(sql("begin the salvage"))?;
    let (mut saved, mut incomplete) = (0, Vec::new());
    for table in tables {
        let columns: Vec<String> = transaction
            .prepare(&format!("SELECT name FROM pragma_table_info('{table}')"))
            .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
            .map_err(sql("list the columns"))?;
        let list = columns.join(", ");
        let marks = vec!["?"; columns.len()].join(", ");
        let insert = format!("INSERT OR IGNORE INTO {table} ({list}) VALUES ({marks})");
        let mut whole = false;
        for direction in ["ASC", "DESC"] {
            let select = format!("SELECT {list} FROM {table} ORDER BY 1 {direction}");
            let mut read = || -> rusqlite::Result<()> {
                let mut statement = source.prepare(&select)?;
                let mut rows = statement.query([])?;
                while let Some(row) = rows.next()? {
                    let values: Vec<Value> = (0..columns.len()).map(|i| row.get(i)).collect::<Result<_, _>>()?;
                    // A row that does not fit (a damaged NULL, say) is left behind, not fatal.
                    if let Ok(count) = transaction.execute(&insert, params_from_iter(values)) {
                        saved += count as u64;
                    }
                }
                Ok(())
            };
            if read().is_ok() {
                whole = true;
                break;
            }
        }
        if !whole {
            incomplete.push(table);
        }
    }
    transaction.commit().map_err(sql("commit the salvage"))?;
    Ok((saved, incomplete))
}

fn load_namespaces(connection: &Connection, shared: &Shared) -> Result<(), StoreError> {
    let mut statement = connection
        .prepare("SELECT namespace, sum(length(key) + length(value)) FROM state GROUP BY namespace")
        .map_err(sql("measure the state"))?;
    let rows = statement
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))
        .map_err(sql("measure the state"))?;
    let mut inner = shared.lock();
    for row in rows {
        let (namespace, bytes) = row.map_err(sql("measure the state"))?;
        inner.namespaces.insert(namespace.into(), u64::try_from(bytes).unwrap_or_default());
    }
    Ok(())
}

/// Whether the file itself is broken, rather than the disk full, the folder read-only or the format unknown.
fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::Row { .. } => true,
        StoreError::Sql { source: rusqlite::Error::SqliteFailure(failure, message), .. } => {
            matches!(failure.code, rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
                // A schema page that was overwritten shows as statements that no longer fit.
                || message.as_deref().is_some_and(|text| text.contains("malformed") || text.contains("no such"))
        }
        _ => false,
    }
}

fn describe(error: &StoreError) -> String {
    match error {
        StoreError::Sql { action, source } => format!("cannot {action}: {source}"),
        other => other.to_string(),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn file(action: &'static str, path: &Path, source: std::io::Error) -> StoreError {
    StoreError::File { action, path: path.display().to_string(), source }
}
