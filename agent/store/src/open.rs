//! Opening the store: locking, checking, migrating. What is damaged goes to [`salvage`].

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holm_core::FunctionName;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::apply;
use crate::book::OutboxBook;
use crate::expiry::{Bounds, Held};
use crate::store::Shared;
use crate::{OutboxCaps, Store, StoreError, Writer, query, salvage, schema, sql};

/// A database of up to this size is checked whole at every start; a larger one only when SQLite stumbles over it.
const CHECK_UP_TO: u64 = 32 << 20;

/// A clock that is set back by less, in milliseconds, only makes what waits wait that much longer.
const CLOCK_SLACK: i64 = 60_000;

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
    /// So many message ids are remembered at least, and twice as many at most; of more, the oldest are forgotten before
    /// their time. A million by default, which is eleven a second for a day; two million take some 100 MB.
    pub dedupe_rows: u64,
    /// The most dead letters that are kept; beyond it, the oldest are dropped, counted and logged. Ten thousand by
    /// default: more than anybody will look at, of functions that nobody looks after.
    pub dead_rows: u64,
    /// SQLite moves the log into the database whenever it has grown by this many pages of 4 KiB.
    pub checkpoint_pages: u32,
    /// The most pages of 4 KiB that the database may have, so that it leaves room on a shared disk. Beyond it, commits
    /// fail as if the disk were full, until something is deleted. 4 GiB by default. `None`: as many as the disk holds.
    pub max_pages: Option<u32>,
}

impl OpenOptions {
    /// The usual options for a data folder.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            caps: OutboxCaps::default(),
            dedupe_window: Duration::from_secs(86_400),
            dedupe_rows: 1_000_000,
            dead_rows: 10_000,
            checkpoint_pages: 1000,
            max_pages: Some(1 << 20),
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
    /// Sets [`OpenOptions::max_pages`] by bytes.
    pub fn max_bytes(&mut self, bytes: u64) {
        self.max_pages = Some(u32::try_from(bytes / 4096).unwrap_or(u32::MAX - 1));
    }

    /// Opens the store, or makes it.
    pub fn open(&self) -> Result<Opened, StoreError> {
        fs::create_dir_all(&self.folder).map_err(|source| file("create", &self.folder, source))?;
        let lock = self.lock()?;
        let path = self.folder.join(FILE);
        if salvage::finish(&path)? {
            tracing::error!(
                path = %path.display(),
                "the database was damaged; the last start had set it aside and saved what could be read, and was cut off"
            );
        }
        let (started, recovery) = match self.start(&path) {
            Ok(started) => (started, None),
            Err(error) if salvage::is_damage(&error) => {
                let recovery = salvage::salvage(&path, &error)?;
                (self.start(&path)?, Some(recovery))
            }
            Err(error) => return Err(error),
        };
        let Started { connection, book, held, shared } = started;
        let bounds = Bounds {
            caps: self.caps,
            dedupe_window: self.dedupe_window,
            dedupe_rows: self.dedupe_rows,
            dead_rows: self.dead_rows,
        };
        let writer = Writer::new(shared.clone(), connection, book, bounds, held);
        Ok(Opened { store: Store { shared }, writer, recovery, lock })
    }

    /// Opens the file and reads what the store must know of it. Damage, wherever it shows, is an error of
    /// [`salvage::is_damage`], and the file and its log are as they were.
    fn start(&self, path: &Path) -> Result<Started, StoreError> {
        salvage::inspect_files(path)?;
        let connection = self.connect(path)?;
        rebase(&connection, crate::now())?;
        let book = OutboxBook::load(&connection)?;
        let held = Held::count(&connection)?;
        let (inbox, local) = (apply::next_id(&connection, "inbox")?, apply::next_id(&connection, "local")?);
        let shared = Arc::new(Shared::new(path.to_owned(), inbox, local));
        let parked = query::count_inbox(&connection)?;
        let rows = parked.iter().map(|(_, rows)| *rows).sum::<u64>().try_into().unwrap_or(i64::MAX);
        shared.counters.inbox_rows.store(rows, std::sync::atomic::Ordering::Relaxed);
        let named = |(name, rows): (String, u64)| Some((FunctionName::new(&name).ok()?, rows));
        shared.lock().parked = parked.into_iter().filter_map(named).collect();
        Shared::measure(&mut shared.lock(), &connection)?;
        // Healthy: from here on the log may be moved into the file when the connection closes.
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
            .map_err(sql("set up the database"))?;
        Ok(Started { connection, book, held, shared })
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
        let size = fs::metadata(path).map_or(0, |meta| meta.len());
        // A start that was cut off while the file was made leaves a rollback journal, which takes a writer to undo.
        let unfinished = salvage::with_suffix(path, "-journal").exists();
        if size > 0 && !unfinished {
            // Read-only first, so that a file of the future or a damaged one is not even touched by a change of mode.
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let probe = Connection::open_with_flags(path, flags).map_err(sql("open the database"))?;
            schema::inspect(&probe, &shown)?;
            check(&probe, size)?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(sql("open the database"))?;
        // SQLite opens what it may not write all the same, and fails with the first write.
        if connection.is_readonly("main").map_err(sql("open the database"))? {
            return Err(file("write", path, std::io::ErrorKind::PermissionDenied.into()));
        }
        // Should anything below show damage, the log stays beside the file as evidence.
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .map_err(sql("set up the database"))?;
        connection.busy_timeout(Duration::from_secs(10)).map_err(sql("set up the database"))?;
        connection.set_prepared_statement_cache_capacity(48);
        if unfinished {
            schema::inspect(&connection, &shown)?;
            check(&connection, size)?;
        }
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
            // SQLite's own default is the highest number it knows.
            ("max_page_count", self.max_pages.map_or(i64::from(u32::MAX - 1), i64::from)),
        ] {
            connection.pragma_update(None, name, value).map_err(sql("set up the database"))?;
        }
        schema::migrate(&mut connection)?;
        Ok(connection)
    }
}

/// A board without a battery starts in 1970, and may never learn the time: what waits must not wait for that. Where the
/// clock is behind the youngest event, everything that is not due yet becomes due that much earlier.
fn rebase(connection: &Connection, now: i64) -> Result<(), StoreError> {
    let action = "read the inbox";
    let youngest: Option<i64> =
        connection.query_row("SELECT max(time) FROM inbox", [], |row| row.get(0)).map_err(sql(action))?;
    let behind = youngest.unwrap_or(now).saturating_sub(now);
    if behind > CLOCK_SLACK {
        let statement = "UPDATE inbox SET due = max(?1, due - ?2) WHERE due > ?1";
        let rows = connection.execute(statement, [now, behind]).map_err(sql("bring the inbox forward"))?;
        tracing::warn!(
            rows,
            behind_ms = behind,
            "the clock was set back since the last run; events that wait are brought forward"
        );
    }
    Ok(())
}

/// What is known of a healthy file.
struct Started {
    connection: Connection,
    book: OutboxBook,
    held: Held,
    shared: Arc<Shared>,
}

/// Reads every page of a small database.
fn check(connection: &Connection, size: u64) -> Result<(), StoreError> {
    if size > CHECK_UP_TO {
        return Ok(());
    }
    let verdict: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sql("check the database"))?;
    if verdict == "ok" { Ok(()) } else { Err(StoreError::Row { table: "sqlite_schema", what: verdict }) }
}

pub(crate) fn file(action: &'static str, path: &Path, source: std::io::Error) -> StoreError {
    StoreError::File { action, path: path.display().to_string(), source }
}
