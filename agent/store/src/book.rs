//! The outbox's book: sequences, sizes, and who goes when there is too much.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, params};

use crate::apply::{next_id, run};
use crate::{Lane, OutboxCaps, StoreError, sql};

/// What the writer remembers about the outbox, so that the hot path need not ask.
#[derive(Debug, Default)]
pub(crate) struct OutboxBook {
    /// The last sequence of each stream that was used since start.
    sequences: HashMap<Arc<str>, i64>,
    /// Streams whose sequence is not yet written back.
    touched: Vec<Arc<str>>,
    /// Bytes that wait, by stream; without alarms, which are never evicted.
    pub(crate) streams: HashMap<Arc<str>, u64>,
    /// Bytes that wait.
    pub(crate) total: u64,
    /// The id of the next row. Not SQLite's choice, which would give out the id of an evicted last row again, and the
    /// uploader asks for what comes after the last one it saw.
    pub(crate) next_id: i64,
}

impl OutboxBook {
    /// Adds up row by row: SQLite would sort the whole outbox to group it, in memory.
    pub(crate) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let action = "measure the outbox";
        let mut book = Self { next_id: next_id(connection, "outbox")?, ..Self::default() };
        let mut statement =
            connection.prepare("SELECT stream, lane > 0, octet_length(data) FROM outbox").map_err(sql(action))?;
        let mut rows = statement.query([]).map_err(sql(action))?;
        while let Some(row) = rows.next().map_err(sql(action))? {
            let stream = row.get_ref(0).map_err(sql(action))?;
            let stream = stream.as_str().map_err(rusqlite::Error::from).map_err(sql(action))?;
            let bytes = u64::try_from(row.get::<_, i64>(2).map_err(sql(action))?).unwrap_or_default();
            book.total += bytes;
            if row.get(1).map_err(sql(action))? {
                match book.streams.get_mut(stream) {
                    Some(held) => *held += bytes,
                    None => drop(book.streams.insert(stream.into(), bytes)),
                }
            }
        }
        Ok(book)
    }

    /// Measures again after a rollback. What was never committed is forgotten even if that fails: a sequence that was
    /// counted but not written would leave a hole.
    pub(crate) fn reload(&mut self, connection: &Connection) -> Result<(), StoreError> {
        self.sequences.clear();
        self.touched.clear();
        let next_id = self.next_id;
        *self = Self::load(connection)?;
        self.next_id = self.next_id.max(next_id);
        Ok(())
    }
}

/// Writes back what the book holds, and evicts what is beyond the caps. Last in the transaction.
pub(crate) fn close_book(
    connection: &Connection,
    book: &mut OutboxBook,
    caps: &OutboxCaps,
    now: i64,
) -> Result<(), StoreError> {
    for stream in book.touched.drain(..) {
        let sequence = book.sequences.get(&stream).copied().unwrap_or_default();
        run(
            connection,
            "number a stream",
            "INSERT INTO stream (name, sequence) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET sequence = excluded.sequence",
            params![&*stream, sequence],
        )?;
    }
    let over = |book: &OutboxBook| -> Option<Option<Arc<str>>> {
        let stream = book.streams.iter().find(|(_, bytes)| **bytes > caps.stream_bytes);
        match stream {
            Some((stream, _)) => Some(Some(stream.clone())),
            None if book.total > caps.bytes => Some(None),
            None => None,
        }
    };
    while let Some(stream) = over(book) {
        let evicted = evict_one(connection, book, stream.as_deref(), now)?;
        match stream {
            _ if evicted => {}
            // The book counts what is not there: begin anew, or this loop would never end.
            Some(stream) => drop(book.streams.remove(&stream)),
            // Only alarms are left.
            None => break,
        }
    }
    Ok(())
}

/// Evicts the oldest row of a stream, or of the last lane that has any. Alarms never go.
fn evict_one(
    connection: &Connection,
    book: &mut OutboxBook,
    stream: Option<&str>,
    now: i64,
) -> Result<bool, StoreError> {
    let find = |statement: &str, parameters: &[&dyn rusqlite::ToSql]| -> Result<Option<i64>, StoreError> {
        connection
            .prepare_cached(statement)
            .and_then(|mut statement| statement.query_map(parameters, |row| row.get(0))?.next().transpose())
            .map_err(sql("choose what to evict"))
    };
    let victim = match stream {
        Some(stream) => {
            find("SELECT id FROM outbox WHERE stream = ?1 AND lane > 0 ORDER BY sequence LIMIT 1", &[&stream])?
        }
        None => {
            let oldest =
                |lane: Lane| find("SELECT id FROM outbox WHERE lane = ?1 ORDER BY id LIMIT 1", &[&lane.number()]);
            match oldest(Lane::Logs)? {
                Some(id) => Some(id),
                None => oldest(Lane::Results)?,
            }
        }
    };
    match victim {
        Some(id) => evict(connection, book, id, "cap", now).map(|()| true),
        None => Ok(false),
    }
}

/// Deletes one row and leaves a gap record, joined to the last one where they touch.
///
/// A row whose content has rotted goes as well, with an error in the log where it cannot have a gap record: it must not
/// keep the rows behind it, and every transaction that comes upon it, from their end.
pub(crate) fn evict(
    connection: &Connection,
    book: &mut OutboxBook,
    id: i64,
    reason: &str,
    now: i64,
) -> Result<(), StoreError> {
    let (lane, stream, sequence, bytes) = connection
        .prepare_cached("DELETE FROM outbox WHERE id = ?1 RETURNING lane, stream, sequence, length(data)")
        .and_then(|mut s| {
            s.query_row([id], |row| {
                Ok((row.get::<_, i64>(0), row.get::<_, String>(1), row.get::<_, i64>(2), row.get::<_, i64>(3)))
            })
        })
        .map_err(sql("evict from the outbox"))?;
    let bytes = bytes.ok().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
    book.total = book.total.saturating_sub(bytes);
    if let Ok(stream) = &stream
        && let Some(held) = book.streams.get_mut(stream.as_str())
    {
        *held = held.saturating_sub(bytes);
    }
    let (lane, stream, sequence) = match (lane, stream, sequence) {
        (Ok(lane), Ok(stream), Ok(sequence)) => (lane, stream, sequence),
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
            tracing::error!(%error, id, "a row of the outbox could not be read and was dropped");
            return Ok(());
        }
    };
    let joined = connection
        .prepare_cached("UPDATE gap SET last = ?2, at = ?4 WHERE stream = ?1 AND last = ?2 - 1 AND reason = ?3")
        .and_then(|mut s| s.execute(params![stream, sequence, reason, now]))
        .map_err(sql("record a gap"))?;
    if joined == 0 {
        run(
            connection,
            "record a gap",
            "INSERT INTO gap (lane, stream, first, last, reason, at) VALUES (?1, ?2, ?3, ?3, ?4, ?5)",
            params![lane, stream, sequence, reason, now],
        )?;
    }
    Ok(())
}

pub(crate) fn next_sequence(
    connection: &Connection,
    book: &mut OutboxBook,
    stream: &Arc<str>,
) -> Result<i64, StoreError> {
    let last = match book.sequences.get(stream) {
        Some(last) => *last,
        None => connection
            .prepare_cached("SELECT sequence FROM stream WHERE name = ?1")
            .and_then(|mut s| s.query_map([&**stream], |row| row.get(0))?.next().transpose())
            .map_err(sql("number a stream"))?
            .unwrap_or_default(),
    };
    let next = last + 1;
    book.sequences.insert(stream.clone(), next);
    if !book.touched.contains(stream) {
        book.touched.push(stream.clone());
    }
    Ok(next)
}
