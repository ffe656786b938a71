//! Writes as SQL, inside the writer's transaction.

use std::collections::HashMap;
use std::sync::Arc;

use holm_core::{Event, FunctionName, SessionWrite};
use rusqlite::{Connection, params};

use crate::{Account, Lane, OutboxCaps, StoreError, Write, codec, sql};

/// What the writer remembers about the outbox, so that the hot path need not ask.
#[derive(Debug, Default)]
pub(crate) struct OutboxBook {
    /// The last sequence of each stream that was used since start.
    sequences: HashMap<Arc<str>, i64>,
    /// Streams whose sequence is not yet written back.
    touched: Vec<Arc<str>>,
    /// Bytes that wait, by stream; without alarms, which are never evicted.
    streams: HashMap<Arc<str>, u64>,
    /// Bytes that wait.
    total: u64,
    /// The id of the next row. Not SQLite's choice, which would give out the id of an evicted last row again, and the
    /// uploader asks for what comes after the last one it saw.
    next_id: i64,
}

impl OutboxBook {
    pub(crate) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let mut statement = connection
            .prepare("SELECT stream, lane > 0, sum(length(data)) FROM outbox GROUP BY stream, lane > 0")
            .map_err(sql("measure the outbox"))?;
        let rows = statement
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?, row.get::<_, i64>(2)?)))
            .map_err(sql("measure the outbox"))?;
        let mut book = Self { next_id: next_id(connection, "outbox")?, ..Self::default() };
        for row in rows {
            let (stream, evictable, bytes) = row.map_err(sql("measure the outbox"))?;
            let bytes = u64::try_from(bytes).unwrap_or_default();
            book.total += bytes;
            if evictable {
                book.streams.insert(stream.into(), bytes);
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

/// One more than the highest id of a table. Ids beyond any that can have been given out are damage, and left alone.
pub(crate) fn next_id(connection: &Connection, table: &str) -> Result<i64, StoreError> {
    connection
        .query_row(&format!("SELECT coalesce(max(id), 0) + 1 FROM {table} WHERE id < 1 << 62"), [], |row| row.get(0))
        .map_err(sql("number the rows"))
}

/// Applies one write.
pub(crate) fn apply(connection: &Connection, book: &mut OutboxBook, write: &Write) -> Result<(), StoreError> {
    match write {
        Write::State(state) => match &state.value {
            Some(value) => run(
                connection,
                "write state",
                "INSERT INTO state (namespace, key, value) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET value = excluded.value",
                params![&*state.namespace, &*state.key, &value[..]],
            ),
            None => run(
                connection,
                "delete state",
                "DELETE FROM state WHERE namespace = ?1 AND key = ?2",
                params![&*state.namespace, &*state.key],
            ),
        },
        Write::Park { id, function, event, due, fault } => {
            park(connection, id.0, function, event, due.0, fault.as_deref())
        }
        Write::Unpark(id) => run(connection, "unpark an event", "DELETE FROM inbox WHERE id = ?1", params![id.0]),
        Write::Postpone { id, attempt, due, fault } => run(
            connection,
            "postpone an event",
            "UPDATE inbox SET attempt = ?2, due = ?3, fault = ?4 WHERE id = ?1",
            params![id.0, attempt, due.0, fault],
        ),
        Write::Bury { function, event, now, keep, kind, fault } => {
            let expires = now.0.saturating_add(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX));
            run(
                connection,
                "bury an event",
                "INSERT INTO dead (function, buried, expires, kind, fault, event_id, source, subject, content_type, data,
                 time, time_synced, hops, attributes, attempt) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15)",
                params![
                    function.as_str(), now.0, expires, kind, fault, &*event.id.0, event.source.as_str(),
                    &*event.subject, event.content_type.as_deref(), &event.data[..], event.time.0, event.time_synced,
                    event.hops, codec::attributes(event), event.attempt
                ],
            )
        }
        Write::Exhume(id) => run(connection, "take out a dead letter", "DELETE FROM dead WHERE id = ?1", params![id]),
        Write::Outbox { lane, stream, created, content_type, data } => {
            let sequence = next_sequence(connection, book, stream)?;
            let bytes = data.len() as u64;
            book.total += bytes;
            if *lane != Lane::Alarms {
                *book.streams.entry(stream.clone()).or_default() += bytes;
            }
            let id = book.next_id;
            book.next_id += 1;
            run(
                connection,
                "write to the outbox",
                "INSERT INTO outbox (id, lane, stream, sequence, created, content_type, data) VALUES (?1,?2,?3,?4,?5,?6,?7)",
                params![id, lane.number(), &**stream, sequence, created.0, content_type.as_deref(), &data[..]],
            )
        }
        Write::Local { id, message } => run(
            connection,
            "write to the local lane",
            "INSERT INTO local (id, topic, payload, head) VALUES (?1, ?2, ?3, ?4)",
            params![id.0, message.topic.as_str(), &message.payload.data[..], codec::head(message)?],
        ),
        Write::LocalDone(id) => {
            run(connection, "clear the local lane", "DELETE FROM local WHERE id = ?1", params![id.0])
        }
        Write::Remember { key, seen } => run(
            connection,
            "remember a message id",
            "INSERT OR IGNORE INTO dedupe (key, seen) VALUES (?1, ?2)",
            params![key.bytes(), seen.0],
        ),
        Write::Session(write) => session(connection, write),
        Write::Fired { function, name, at } => run(
            connection,
            "note a firing",
            "INSERT INTO schedule (function, name, fired) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET fired = excluded.fired",
            params![function.as_str(), &**name, at.0],
        ),
        Write::Registry { key, document: Some(document) } => run(
            connection,
            "write the registry",
            "INSERT INTO registry (key, document) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET document = excluded.document",
            params![&**key, document],
        ),
        Write::Registry { key, document: None } => {
            run(connection, "clear the registry", "DELETE FROM registry WHERE key = ?1", params![&**key])
        }
    }
}

/// Adds to a function's account.
pub(crate) fn account(connection: &Connection, function: &FunctionName, account: &Account) -> Result<(), StoreError> {
    run(
        connection,
        "write the accounts",
        "INSERT INTO account VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO UPDATE SET
         invocations = invocations + excluded.invocations, errors = errors + excluded.errors,
         wall_us = wall_us + excluded.wall_us, cpu_us = cpu_us + excluded.cpu_us,
         peak_memory = max(peak_memory, excluded.peak_memory),
         bytes_in = bytes_in + excluded.bytes_in, bytes_out = bytes_out + excluded.bytes_out",
        params![
            function.as_str(),
            account.invocations as i64,
            account.errors as i64,
            account.wall_us as i64,
            account.cpu_us as i64,
            account.peak_memory as i64,
            account.bytes_in as i64,
            account.bytes_out as i64
        ],
    )
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

/// Drops rows past their age. Called seldom.
pub(crate) fn expire(
    connection: &Connection,
    book: &mut OutboxBook,
    caps: &OutboxCaps,
    dedupe: std::time::Duration,
    now: i64,
) -> Result<(), StoreError> {
    let before = |age: std::time::Duration| now.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    for (lane, age) in [(Lane::Results, caps.results_age), (Lane::Logs, caps.logs_age)] {
        loop {
            let oldest: Option<i64> = connection
                .prepare_cached("SELECT id FROM outbox WHERE lane = ?1 ORDER BY id LIMIT 1")
                .and_then(|mut s| s.query_map(params![lane.number()], |row| row.get(0))?.next().transpose())
                .map_err(sql("look for old rows"))?;
            let Some(id) = oldest else { break };
            let created: i64 = connection
                .query_row("SELECT created FROM outbox WHERE id = ?1", [id], |row| row.get(0))
                .map_err(sql("look for old rows"))?;
            if created >= before(age) {
                break;
            }
            evict(connection, book, id, "age", now)?;
        }
    }
    run(connection, "forget old message ids", "DELETE FROM dedupe WHERE seen < ?1", params![before(dedupe)])?;
    run(connection, "drop old dead letters", "DELETE FROM dead WHERE expires < ?1", params![now])
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
fn evict(connection: &Connection, book: &mut OutboxBook, id: i64, reason: &str, now: i64) -> Result<(), StoreError> {
    let (lane, stream, sequence, bytes): (i64, String, i64, i64) = connection
        .prepare_cached("DELETE FROM outbox WHERE id = ?1 RETURNING lane, stream, sequence, length(data)")
        .and_then(|mut s| s.query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))))
        .map_err(sql("evict from the outbox"))?;
    let bytes = u64::try_from(bytes).unwrap_or_default();
    book.total = book.total.saturating_sub(bytes);
    if let Some(held) = book.streams.get_mut(stream.as_str()) {
        *held = held.saturating_sub(bytes);
    }
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

fn next_sequence(connection: &Connection, book: &mut OutboxBook, stream: &Arc<str>) -> Result<i64, StoreError> {
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

fn park(
    connection: &Connection,
    id: i64,
    function: &FunctionName,
    event: &Event,
    due: i64,
    fault: Option<&str>,
) -> Result<(), StoreError> {
    run(
        connection,
        "park an event",
        "INSERT INTO inbox (id, function, due, fault, event_id, source, subject, content_type, data, time, time_synced,
         hops, attributes, attempt) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14)",
        params![
            id,
            function.as_str(),
            due,
            fault,
            &*event.id.0,
            event.source.as_str(),
            &*event.subject,
            event.content_type.as_deref(),
            &event.data[..],
            event.time.0,
            event.time_synced,
            event.hops,
            codec::attributes(event),
            event.attempt
        ],
    )
}

fn session(connection: &Connection, write: &SessionWrite) -> Result<(), StoreError> {
    match write {
        SessionWrite::Open { client, expiry_seconds } => run(
            connection,
            "open a session",
            "INSERT INTO session (client, expiry, away) VALUES (?1, ?2, NULL)
             ON CONFLICT DO UPDATE SET expiry = excluded.expiry, away = NULL",
            params![&*client.0, expiry_seconds],
        ),
        SessionWrite::Away { client, since } => run(
            connection,
            "park a session",
            "UPDATE session SET away = ?2 WHERE client = ?1",
            params![&*client.0, since.0],
        ),
        SessionWrite::Drop { client } => {
            for statement in [
                "DELETE FROM session WHERE client = ?1",
                "DELETE FROM subscription WHERE client = ?1",
                "DELETE FROM queue WHERE client = ?1",
                "DELETE FROM received WHERE client = ?1",
            ] {
                run(connection, "drop a session", statement, params![&*client.0])?;
            }
            Ok(())
        }
        SessionWrite::Subscribe { client, subscription } => run(
            connection,
            "write a subscription",
            "INSERT OR REPLACE INTO subscription VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                &*client.0,
                subscription.filter.as_str(),
                subscription.qos.level(),
                subscription.no_local,
                subscription.retain_as_published,
                subscription.identifier
            ],
        ),
        SessionWrite::Unsubscribe { client, filter } => run(
            connection,
            "drop a subscription",
            "DELETE FROM subscription WHERE client = ?1 AND filter = ?2",
            params![&*client.0, filter.as_str()],
        ),
        SessionWrite::Enqueue { client, queued } => run(
            connection,
            "queue a message",
            "INSERT OR REPLACE INTO queue (client, sequence, qos, retain, released, identifiers, topic, payload, head)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                &*client.0,
                queued.sequence as i64,
                queued.qos.level(),
                queued.retain,
                queued.released,
                codec::identifiers(queued),
                queued.message.topic.as_str(),
                &queued.message.payload.data[..],
                codec::head(&queued.message)?
            ],
        ),
        SessionWrite::Release { client, sequence } => run(
            connection,
            "release a message",
            "UPDATE queue SET released = 1 WHERE client = ?1 AND sequence = ?2",
            params![&*client.0, *sequence as i64],
        ),
        SessionWrite::Dequeue { client, sequence } => run(
            connection,
            "dequeue a message",
            "DELETE FROM queue WHERE client = ?1 AND sequence = ?2",
            params![&*client.0, *sequence as i64],
        ),
        SessionWrite::Receive { client, received } => run(
            connection,
            "note a packet id",
            "INSERT OR REPLACE INTO received VALUES (?1, ?2, ?3, ?4)",
            params![&*client.0, received.packet_id, received.digest as i64, received.qos.level()],
        ),
        SessionWrite::Forget { client, packet_id } => run(
            connection,
            "free a packet id",
            "DELETE FROM received WHERE client = ?1 AND packet_id = ?2",
            params![&*client.0, packet_id],
        ),
        SessionWrite::Retain { topic, message: Some(message) } => run(
            connection,
            "retain a message",
            "INSERT OR REPLACE INTO retained VALUES (?1, ?2, ?3)",
            params![topic.as_str(), &message.payload.data[..], codec::head(message)?],
        ),
        SessionWrite::Retain { topic, message: None } => run(
            connection,
            "clear a retained message",
            "DELETE FROM retained WHERE topic = ?1",
            params![topic.as_str()],
        ),
    }
}

fn run(
    connection: &Connection,
    action: &'static str,
    statement: &str,
    parameters: impl rusqlite::Params,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    statement.execute(parameters).map_err(sql(action))?;
    Ok(())
}
