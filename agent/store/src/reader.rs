//! Reading state through the overlay.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::overlay::Versioned;
use crate::store::Shared;
use crate::{StoreError, sql};

/// A reader of state for one thread, with a connection of its own: it never waits for the writer.
pub struct StateReader {
    shared: Arc<Shared>,
    connection: Connection,
}

impl StateReader {
    pub(crate) fn open(shared: Arc<Shared>) -> Result<Self, StoreError> {
        let connection = read_connection(&shared.path)?;
        Ok(Self { shared, connection })
    }

    /// The value of a key, with the version to put in the read set.
    pub fn get(&self, namespace: &Arc<str>, key: &Arc<str>) -> Result<Versioned, StoreError> {
        // The order matters: overlay first, then the database. A write that is committed and leaves the overlay in
        // between is found in the database; the other way round it could be missed by both.
        let version = {
            let inner = self.shared.lock();
            if let Some(versioned) = inner.overlay.get(namespace, key) {
                return Ok(versioned);
            }
            inner.overlay.version()
        };
        let value: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT value FROM state WHERE namespace = ?1 AND key = ?2")
            .and_then(|mut s| s.query_row([&**namespace, &**key], |row| row.get(0)).optional())
            .map_err(sql("read state"))?;
        let value = value.map(Bytes::from);
        self.shared.lock().overlay.fill(namespace.clone(), key.clone(), value.clone(), version);
        Ok(Versioned { value, version })
    }

    /// The keys of a namespace after `after`, in order, at most `limit`.
    pub fn keys(&self, namespace: &str, after: Option<&str>, limit: usize) -> Result<Vec<Arc<str>>, StoreError> {
        let changed = self.shared.lock().overlay.keys(namespace);
        // Keys that were deleted but not committed are dropped from the answer, so ask for that many more.
        let ask = limit.saturating_add(changed.len());
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT key FROM state WHERE namespace = ?1 AND (?2 IS NULL OR key > ?2) ORDER BY key LIMIT ?3",
            )
            .map_err(sql("list keys"))?;
        let rows = statement
            .query_map(rusqlite::params![namespace, after, ask as i64], |row| row.get::<_, String>(0))
            .map_err(sql("list keys"))?;
        let mut keys = std::collections::BTreeSet::new();
        for row in rows {
            keys.insert(Arc::<str>::from(row.map_err(sql("list keys"))?));
        }
        for (key, exists) in changed {
            if !exists {
                keys.remove(&key);
            } else if after.is_none_or(|after| &*key > after) {
                keys.insert(key);
            }
        }
        Ok(keys.into_iter().take(limit).collect())
    }

    /// Whether a message id was settled within the window. Ids between arrival and commit are the caller's to know.
    pub fn seen(&self, key: &crate::DedupeKey) -> Result<bool, StoreError> {
        let horizon = || self.shared.horizon.load(Ordering::SeqCst);
        // Before and after the look: dates may be changed meanwhile, and in doubt an id counts.
        let before = horizon();
        let seen: Option<i64> = self
            .connection
            .prepare_cached("SELECT seen FROM dedupe WHERE key = ?1 UNION ALL SELECT seen FROM dedupe_2 WHERE key = ?1 ORDER BY 1 DESC LIMIT 1")
            .and_then(|mut statement| statement.query_row([key.bytes()], |row| row.get(0)).optional())
            .map_err(sql("look up a message id"))?;
        Ok(seen.is_some_and(|seen| seen >= before.min(horizon())))
    }

    /// Bytes of key and value of every committed key of a namespace.
    pub(crate) fn sizes(&self, namespace: &str) -> Result<HashMap<Arc<str>, u64>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT key, octet_length(value) FROM state WHERE namespace = ?1")
            .map_err(sql("measure a namespace"))?;
        let rows = statement
            .query_map([namespace], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))
            .map_err(sql("measure a namespace"))?;
        let mut sizes = HashMap::new();
        for row in rows {
            let (key, value) = row.map_err(sql("measure a namespace"))?;
            let size = key.len() as u64 + u64::try_from(value).unwrap_or_default();
            sizes.insert(Arc::from(key), size);
        }
        Ok(sizes)
    }
}

pub(crate) fn read_connection(path: &std::path::Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(sql("open a reader"))?;
    // Small: readers look up single rows, and the overlay caches the hot ones.
    connection.pragma_update(None, "cache_size", -128).map_err(sql("set up a reader"))?;
    connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(sql("set up a reader"))?;
    connection.set_prepared_statement_cache_capacity(8);
    Ok(connection)
}
