//! What can be read beside state, with one connection that is kept for it: a look that finds it in use opens another, and
//! the first that comes back stays.

use std::sync::{Arc, Mutex, PoisonError};

use holm_core::{
    ClientId, Event, FunctionName, Message, Queued, Received, StoredBroker, StoredSession, Subscription, Timestamp,
    TopicFilter,
};
use rusqlite::{Connection, OptionalExtension, params};

use crate::reader::read_connection;
use crate::{Account, InboxId, Lane, LocalId, Store, StoreError, codec, salvage, sql};

/// An event in the inbox.
#[derive(Debug, Clone)]
pub struct ParkedEvent {
    /// Its row.
    pub id: InboxId,
    /// Who shall have it.
    pub function: FunctionName,
    /// Not before.
    pub due: Timestamp,
    /// Why the last attempt failed.
    pub fault: Option<String>,
    /// The event, with the next attempt's number.
    pub event: Event,
}

/// An event that nobody could handle.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Its row.
    pub id: i64,
    /// Whose it was.
    pub function: FunctionName,
    /// When it was buried.
    pub buried: Timestamp,
    /// When it goes for good.
    pub expires: Timestamp,
    /// One word.
    pub kind: String,
    /// The operator's sentence.
    pub fault: String,
    /// The event as it was last tried.
    pub event: Event,
}

/// A row that waits for the cloud.
#[derive(Debug, Clone)]
pub struct OutboxRow {
    /// Ascending over all streams.
    pub id: i64,
    /// Its lane.
    pub lane: Lane,
    /// Its stream.
    pub stream: String,
    /// Ascending within the stream, from 1, without holes but for gap records.
    pub sequence: i64,
    /// When it was made.
    pub created: Timestamp,
    /// MIME type.
    pub content_type: Option<String>,
    /// The payload.
    pub data: Vec<u8>,
}

/// Rows of a stream that were evicted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct GapRow {
    /// Whose.
    pub stream: String,
    /// The first sequence that is gone.
    pub first: i64,
    /// The last sequence that is gone.
    pub last: i64,
    /// `cap`, `age`, or `damage`: the rows could not be saved from a damaged database.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub at: i64,
}

/// A publish that waits for an external broker.
#[derive(Debug, Clone)]
pub struct LocalRow {
    /// Its row.
    pub id: LocalId,
    /// The message.
    pub message: Message,
}

/// What one lane holds.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LaneStat {
    /// Which.
    pub lane: Lane,
    /// Rows.
    pub rows: i64,
    /// Bytes of payload.
    pub bytes: i64,
    /// When the oldest was made, in milliseconds since 1970.
    pub oldest: Option<i64>,
}

/// What the inbox and the dead letters hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct InboxStat {
    /// Events that wait for a function.
    pub parked: i64,
    /// Dead letters.
    pub dead: i64,
    /// Bytes of the database file.
    pub database_bytes: i64,
}

/// A function's account.
#[derive(Debug, Clone)]
pub struct FunctionAccount {
    /// Whose.
    pub function: String,
    /// Since the database was made.
    pub account: Account,
}

/// A document of the registry.
#[derive(Debug, Clone)]
pub struct RegistryRow {
    /// Its key.
    pub key: String,
    /// Its JSON text.
    pub document: String,
}

/// A connection that goes back to its place, unless another one is there by then.
pub(crate) struct Borrowed<'a> {
    /// Gone only while it is dropped.
    connection: Option<Connection>,
    place: &'a Mutex<Option<Connection>>,
}

impl std::ops::Deref for Borrowed<'_> {
    type Target = Connection;

    #[expect(clippy::expect_used, reason = "it is there until it is dropped")]
    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("a connection that was borrowed")
    }
}

impl Borrowed<'_> {
    /// A transaction that only reads: everything in it sees the same database.
    pub(crate) fn snapshot(&mut self) -> Result<rusqlite::Transaction<'_>, StoreError> {
        let action = "begin a look";
        let connection =
            self.connection.as_mut().ok_or_else(|| StoreError::Row { table: "outbox", what: String::new() });
        connection?.transaction().map_err(sql(action))
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        // One that is still in a transaction would hold the log back for ever.
        if let Some(connection) = self.connection.take().filter(Connection::is_autocommit) {
            self.place.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(connection);
        }
    }
}

impl Store {
    /// A connection for one look. It is kept for the next: to open one takes longer than most looks.
    pub(crate) fn read(&self) -> Result<Borrowed<'_>, StoreError> {
        let idle = self.shared.idle_reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        let connection = idle.map_or_else(|| read_connection(&self.shared.path), Ok)?;
        Ok(Borrowed { connection: Some(connection), place: &self.shared.idle_reader })
    }

    /// Rows of the inbox that are due, after `after`, at most `limit`, by ascending id.
    pub fn due(&self, now: Timestamp, after: InboxId, limit: usize) -> Result<Vec<InboxId>, StoreError> {
        let action = "read the inbox";
        let statement = "SELECT id FROM inbox WHERE id > ?1 AND due <= ?2 ORDER BY id LIMIT ?3";
        collect(&*self.read()?, action, statement, params![after.0, now.0, limit as i64], |row| {
            Ok(InboxId(row.get(0).map_err(sql(action))?))
        })
    }

    /// As [`Store::due`], of these functions only: rows of others are passed over, however many there are.
    pub fn due_of(
        &self,
        functions: &[FunctionName],
        now: Timestamp,
        after: InboxId,
        limit: usize,
    ) -> Result<Vec<InboxId>, StoreError> {
        let action = "read the inbox";
        let names: Vec<&str> = functions.iter().map(FunctionName::as_str).collect();
        // Names are a-z, 0-9 and `-`: they need no escaping.
        let names = format!("[{}]", names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(","));
        let statement =
            "SELECT id FROM inbox WHERE id > ?1 AND due <= ?2 AND function IN (SELECT value FROM json_each(?4))
            ORDER BY id LIMIT ?3";
        collect(&*self.read()?, action, statement, params![after.0, now.0, limit as i64, names], |row| {
            Ok(InboxId(row.get(0).map_err(sql(action))?))
        })
    }

    /// The events of those of `ids` that are in the inbox.
    pub fn parked(&self, ids: &[InboxId]) -> Result<Vec<ParkedEvent>, StoreError> {
        let connection = self.read()?;
        let columns = codec::EVENT_COLUMNS;
        let statement = format!("SELECT id, function, due, fault, {columns} FROM inbox WHERE id = ?1");
        let mut found = Vec::new();
        for id in ids {
            found.extend(collect(&connection, "read the inbox", &statement, params![id.0], |row| {
                Ok(ParkedEvent {
                    id: InboxId(row.get(0).map_err(sql("read the inbox"))?),
                    function: function("inbox", row.get(1).map_err(sql("read the inbox"))?)?,
                    due: Timestamp(row.get(2).map_err(sql("read the inbox"))?),
                    fault: row.get(3).map_err(sql("read the inbox"))?,
                    event: codec::event("inbox", row, 4)?,
                })
            })?);
        }
        Ok(found)
    }

    /// When the next event of the inbox is due that is not due yet.
    pub fn next_due_after(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let due: Option<i64> = self
            .read()?
            .query_row("SELECT min(due) FROM inbox WHERE due > ?1", [now.0], |row| row.get(0))
            .map_err(sql("read the inbox"))?;
        Ok(due.map(Timestamp))
    }

    /// Dead letters, newest first, at most `limit`; of one function where named.
    pub fn dead_letters(&self, of: Option<&str>, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        self.dead("WHERE (?1 IS NULL OR function = ?1) ORDER BY id DESC LIMIT ?2", params![of, limit as i64])
    }

    /// One dead letter.
    pub fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, StoreError> {
        Ok(self.dead("WHERE id = ?1", params![id])?.pop())
    }

    /// Numbers of a function's dead letters up to one, the oldest first, at most `limit`.
    pub fn dead_letters_until(&self, of: &str, until: i64, limit: usize) -> Result<Vec<i64>, StoreError> {
        collect(
            &*self.read()?,
            "read the dead letters",
            "SELECT id FROM dead WHERE id <= ?1 AND function = ?2 ORDER BY id LIMIT ?3",
            params![until, of, limit as i64],
            |row| row.get(0).map_err(sql("read the dead letters")),
        )
    }

    /// How many dead letters there are.
    pub fn dead_letter_count(&self) -> Result<u64, StoreError> {
        let action = "count the dead letters";
        let count: i64 =
            self.read()?.query_row("SELECT count(*) FROM dead", [], |row| row.get(0)).map_err(sql(action))?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    fn dead(&self, filter: &str, parameters: impl rusqlite::Params) -> Result<Vec<DeadLetter>, StoreError> {
        let connection = self.read()?;
        let columns = codec::EVENT_COLUMNS;
        let statement = format!("SELECT id, function, buried, expires, kind, fault, {columns} FROM dead {filter}");
        collect(&connection, "read the dead letters", &statement, parameters, |row| {
            let action = "read the dead letters";
            Ok(DeadLetter {
                id: row.get(0).map_err(sql(action))?,
                function: function("dead", row.get(1).map_err(sql(action))?)?,
                buried: Timestamp(row.get(2).map_err(sql(action))?),
                expires: Timestamp(row.get(3).map_err(sql(action))?),
                kind: row.get(4).map_err(sql(action))?,
                fault: row.get(5).map_err(sql(action))?,
                event: codec::event("dead", row, 6)?,
            })
        })
    }

    /// Rows of the outbox after `after`, at most `limit`, by ascending id; of one stream where named.
    pub fn outbox(&self, stream: Option<&str>, after: i64, limit: usize) -> Result<Vec<OutboxRow>, StoreError> {
        let action = "read the outbox";
        collect(
            &*self.read()?,
            action,
            "SELECT id, lane, stream, sequence, created, content_type, data FROM outbox
             WHERE id > ?1 AND (?2 IS NULL OR stream = ?2) ORDER BY id LIMIT ?3",
            params![after, stream, limit as i64],
            |row| {
                let lane: i64 = row.get(1).map_err(sql(action))?;
                Ok(OutboxRow {
                    id: row.get(0).map_err(sql(action))?,
                    lane: Lane::from_number(lane)
                        .ok_or_else(|| StoreError::Row { table: "outbox", what: format!("lane {lane}") })?,
                    stream: row.get(2).map_err(sql(action))?,
                    sequence: row.get(3).map_err(sql(action))?,
                    created: Timestamp(row.get(4).map_err(sql(action))?),
                    content_type: row.get(5).map_err(sql(action))?,
                    data: row.get(6).map_err(sql(action))?,
                })
            },
        )
    }

    /// What every lane holds.
    pub fn lanes(&self) -> Result<Vec<LaneStat>, StoreError> {
        let connection = self.read()?;
        let action = "measure the outbox";
        let mut lanes = Vec::new();
        for lane in Lane::ALL {
            let (rows, bytes, oldest) = connection
                .query_row(
                    "SELECT count(*), coalesce(sum(length(data)), 0), min(created) FROM outbox WHERE lane = ?1",
                    [lane.number()],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
                )
                .map_err(sql(action))?;
            lanes.push(LaneStat { lane, rows, bytes, oldest });
        }
        Ok(lanes)
    }

    /// Gap records, newest first, at most `limit`.
    pub fn gaps(&self, limit: usize) -> Result<Vec<GapRow>, StoreError> {
        let action = "read the gaps";
        collect(
            &*self.read()?,
            action,
            "SELECT stream, first, last, reason, at FROM gap ORDER BY id DESC LIMIT ?1",
            params![limit as i64],
            |row| {
                Ok(GapRow {
                    stream: row.get(0).map_err(sql(action))?,
                    first: row.get(1).map_err(sql(action))?,
                    last: row.get(2).map_err(sql(action))?,
                    reason: row.get(3).map_err(sql(action))?,
                    at: row.get(4).map_err(sql(action))?,
                })
            },
        )
    }

    /// Sizes of the inbox, the dead letters and the file.
    pub fn inbox_stat(&self) -> Result<InboxStat, StoreError> {
        let connection = self.read()?;
        let one = |statement: &str| -> Result<i64, StoreError> {
            connection.query_row(statement, [], |row| row.get(0)).map_err(sql("measure the inbox"))
        };
        Ok(InboxStat {
            parked: one("SELECT count(*) FROM inbox")?,
            dead: one("SELECT count(*) FROM dead")?,
            database_bytes: one("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")?,
        })
    }

    /// Accounts of all functions, by name.
    pub fn accounts(&self) -> Result<Vec<FunctionAccount>, StoreError> {
        let action = "read the accounts";
        let mut accounts = collect(
            &*self.read()?,
            action,
            "SELECT function, invocations, errors, wall_us, cpu_us, peak_memory, bytes_in, bytes_out FROM account ORDER BY function",
            [],
            |row| {
                let number =
                    |index| row.get::<_, i64>(index).map(|n| u64::try_from(n).unwrap_or_default()).map_err(sql(action));
                Ok(FunctionAccount {
                    function: row.get(0).map_err(sql(action))?,
                    account: Account {
                        invocations: number(1)?,
                        errors: number(2)?,
                        wall_us: number(3)?,
                        cpu_us: number(4)?,
                        peak_memory: number(5)?,
                        bytes_in: number(6)?,
                        bytes_out: number(7)?,
                    },
                })
            },
        )?;
        // What has not been written yet belongs to the answer.
        for (function, more) in &self.shared.lock().accounts {
            match accounts.iter_mut().find(|row| row.function == function.as_str()) {
                Some(row) => row.account.add(more),
                None => accounts.push(FunctionAccount { function: function.to_string(), account: *more }),
            }
        }
        accounts.sort_by(|a, b| a.function.cmp(&b.function));
        Ok(accounts)
    }

    /// When a schedule last fired.
    pub fn fired(&self, function: &FunctionName, name: &str) -> Result<Option<Timestamp>, StoreError> {
        let found: Option<i64> = self
            .read()?
            .query_row(
                "SELECT fired FROM schedule WHERE function = ?1 AND name = ?2",
                params![function.as_str(), name],
                |row| row.get(0),
            )
            .optional()
            .map_err(sql("read the schedules"))?;
        Ok(found.map(Timestamp))
    }

    /// The document of the registry under `key`.
    pub fn registry(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.read()?
            .query_row("SELECT document FROM registry WHERE key = ?1", [key], |row| row.get(0))
            .optional()
            .map_err(sql("read the registry"))
    }

    /// Publishes that wait for an external broker, at most `limit`, by ascending id.
    pub fn local(&self, after: LocalId, limit: usize) -> Result<Vec<LocalRow>, StoreError> {
        let action = "read the local lane";
        collect(
            &*self.read()?,
            action,
            "SELECT id, topic, payload, head FROM local WHERE id > ?1 ORDER BY id LIMIT ?2",
            params![after.0, limit as i64],
            |row| {
                let (topic, head): (String, String) =
                    (row.get(1).map_err(sql(action))?, row.get(3).map_err(sql(action))?);
                let payload = row.get(2).map_err(sql(action))?;
                let message = codec::message("local", &topic, payload, &head)?;
                Ok(LocalRow { id: LocalId(row.get(0).map_err(sql(action))?), message })
            },
        )
    }

    /// The random name of this database's life, for the streams that go up.
    pub fn epoch(&self) -> Result<String, StoreError> {
        self.read()?
            .query_row("SELECT value FROM meta WHERE key = 'epoch'", [], |row| row.get(0))
            .map_err(sql("read the epoch"))
    }

    /// Everything the broker is restored from.
    pub fn broker(&self) -> Result<StoredBroker, StoreError> {
        let connection = self.read()?;
        let action = "restore the broker";
        let mut sessions =
            collect(&connection, action, "SELECT client, expiry, away FROM session ORDER BY client", [], |row| {
                Ok(StoredSession {
                    client: ClientId(row.get::<_, String>(0).map_err(sql(action))?.into()),
                    expiry_seconds: row.get(1).map_err(sql(action))?,
                    away_since: row.get::<_, Option<i64>>(2).map_err(sql(action))?.map(Timestamp),
                    subscriptions: Vec::new(),
                    queue: Vec::new(),
                    received: Vec::new(),
                })
            })?;
        for session in &mut sessions {
            let client = &*session.client.0;
            session.subscriptions = subscriptions(&connection, client)?;
            session.queue = queue(&connection, client)?;
            session.received = received(&connection, client)?;
        }
        let retained = collect(&connection, action, "SELECT topic, payload, head FROM retained", [], |row| {
            let (topic, head): (String, String) = (row.get(0).map_err(sql(action))?, row.get(2).map_err(sql(action))?);
            Ok(Arc::new(codec::message("retained", &topic, row.get(1).map_err(sql(action))?, &head)?))
        })?;
        Ok(StoredBroker { sessions, retained })
    }
}

fn subscriptions(connection: &Connection, client: &str) -> Result<Vec<Subscription>, StoreError> {
    let action = "restore subscriptions";
    collect(
        connection,
        action,
        "SELECT filter, qos, no_local, retain_as_published, identifier FROM subscription WHERE client = ?1",
        [client],
        |row| {
            let filter: String = row.get(0).map_err(sql(action))?;
            Ok(Subscription {
                filter: TopicFilter::new(&filter)
                    .map_err(|error| StoreError::Row { table: "subscription", what: error.to_string() })?,
                qos: codec::qos("subscription", row.get(1).map_err(sql(action))?)?,
                no_local: row.get(2).map_err(sql(action))?,
                retain_as_published: row.get(3).map_err(sql(action))?,
                identifier: row.get(4).map_err(sql(action))?,
            })
        },
    )
}

fn queue(connection: &Connection, client: &str) -> Result<Vec<Queued>, StoreError> {
    let action = "restore a queue";
    collect(
        connection,
        action,
        "SELECT sequence, qos, retain, released, identifiers, topic, payload, head FROM queue
         WHERE client = ?1 ORDER BY sequence",
        [client],
        |row| {
            let (topic, head): (String, String) = (row.get(5).map_err(sql(action))?, row.get(7).map_err(sql(action))?);
            let identifiers: String = row.get(4).map_err(sql(action))?;
            Ok(Queued {
                sequence: row.get::<_, i64>(0).map_err(sql(action))? as u64,
                message: Arc::new(codec::message("queue", &topic, row.get(6).map_err(sql(action))?, &head)?),
                qos: codec::qos("queue", row.get(1).map_err(sql(action))?)?,
                retain: row.get(2).map_err(sql(action))?,
                identifiers: codec::parse_identifiers(&identifiers),
                released: row.get(3).map_err(sql(action))?,
            })
        },
    )
}

fn received(connection: &Connection, client: &str) -> Result<Vec<Received>, StoreError> {
    let action = "restore packet ids";
    collect(connection, action, "SELECT packet_id, digest, qos FROM received WHERE client = ?1", [client], |row| {
        Ok(Received {
            packet_id: row.get(0).map_err(sql(action))?,
            digest: row.get::<_, i64>(1).map_err(sql(action))? as u64,
            qos: codec::qos("received", row.get(2).map_err(sql(action))?)?,
        })
    })
}

fn function(table: &'static str, name: String) -> Result<FunctionName, StoreError> {
    FunctionName::new(&name).map_err(|error| StoreError::Row { table, what: error.to_string() })
}

/// Rows in the inbox, by the names of functions.
pub(crate) fn count_inbox(connection: &Connection) -> Result<Vec<(String, u64)>, StoreError> {
    let action = "count the inbox";
    collect(connection, action, "SELECT function, count(*) FROM inbox GROUP BY function", [], |row| {
        let rows: i64 = row.get(1).map_err(sql(action))?;
        Ok((row.get(0).map_err(sql(action))?, u64::try_from(rows).unwrap_or_default()))
    })
}

fn collect<T>(
    connection: &Connection,
    action: &'static str,
    statement: &str,
    parameters: impl rusqlite::Params,
    mut read: impl FnMut(&rusqlite::Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let mut rows = statement.query(parameters).map_err(sql(action))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(sql(action))? {
        match read(row) {
            Ok(item) => found.push(item),
            // One row whose content has rotted must not keep all others from being read. It stays where it is.
            Err(error) if is_of_one_row(&error) => {
                tracing::error!(%error, action, "a row cannot be read and is passed over");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Whether a row's content is wrong, rather than the file or the disk.
fn is_of_one_row(error: &StoreError) -> bool {
    match error {
        StoreError::Row { .. } => true,
        StoreError::Sql { source, .. } => salvage::is_content(source),
        _ => false,
    }
}
