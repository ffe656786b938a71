//! Writes as SQL, inside the writer's transaction.

use holm_core::{Event, FunctionName, SessionWrite};
use rusqlite::{Connection, params};

use crate::book::{OutboxBook, next_sequence};
use crate::turns::Turns;
use crate::{Account, Lane, StoreError, Write, codec, sql};

/// One more than the highest id of a table. Ids beyond any that can have been given out are damage, and left alone.
pub(crate) fn next_id(connection: &Connection, table: &str) -> Result<i64, StoreError> {
    connection
        .query_row(&format!("SELECT coalesce(max(id), 0) + 1 FROM {table} WHERE id < 1 << 62"), [], |row| row.get(0))
        .map_err(sql("number the rows"))
}

/// Applies one write.
pub(crate) fn apply(
    connection: &Connection,
    book: &mut OutboxBook,
    turns: &mut Turns,
    write: &Write,
) -> Result<(), StoreError> {
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
        Write::Unpark { id, .. } => {
            run(connection, "unpark an event", "DELETE FROM inbox WHERE id = ?1", params![id.0])
        }
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
        Write::Remember { key, seen } => turns.remember(connection, key, seen.0),
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
        Write::Cloud(write) => crate::cloud::apply(connection, book, write),
    }
}

/// Adds to a function's account.
pub(crate) fn account(connection: &Connection, function: &FunctionName, account: &Account) -> Result<(), StoreError> {
    run(
        connection,
        "write the accounts",
        "INSERT INTO account (function, invocations, errors, wall_us, cpu_us, peak_memory, bytes_in, bytes_out)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO UPDATE SET
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
            "INSERT OR REPLACE INTO subscription (client, filter, qos, no_local, retain_as_published, identifier)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
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
            "INSERT OR REPLACE INTO received (client, packet_id, digest, qos) VALUES (?1, ?2, ?3, ?4)",
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
            "INSERT OR REPLACE INTO retained (topic, payload, head) VALUES (?1, ?2, ?3)",
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

/// Runs one statement.
pub(crate) fn run(
    connection: &Connection,
    action: &'static str,
    statement: &str,
    parameters: impl rusqlite::Params,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    statement.execute(parameters).map_err(sql(action))?;
    Ok(())
}
