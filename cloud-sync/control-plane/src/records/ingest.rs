//! Batches of records on their way in.
//!
//! What is there already is skipped by the stream's coverage and never looked up row by row, and rows whose time is over can be dropped
//! without a resend bringing them back. Only the last of the records that come again is compared with what is there: a database that
//! was restored has given the same numbers to other records from some number on, so that one shows it. Nothing more is taken of that
//! stream and epoch then. In the epoch that its device begins for it, everything that device has no watermark for comes again under
//! the numbers it had, and what another epoch has under its number is left there.

use holm_core::Timestamp;
use holm_protocol::{
    Ack, Address, Batch, BatchHeader, BatchLimits, Lane, Line, ProtocolError, Record, Refusal, RefusalReason, Watermark,
};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::devices::{self, DeviceStatus};
use super::spans::Coverage;
use super::{Records, signed, unsigned};
use crate::CloudError;
use crate::error::sql;

/// Ranges above a watermark. A device that sends in order has none; one that has lost so many batches on the way sends them
/// again, and until then nothing more of it is taken beyond these.
const MAX_SPANS: usize = 1_000;

/// Streams of one device, in one life of its database.
const MAX_STREAMS: i64 = 10_000;

/// The same, in all lives of it.
const MAX_STREAMS_EVER: i64 = 100_000;

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ingested {
    /// To be told to the device.
    Answer(Ack),
    /// Nothing can be said of it, or nothing that helps; the sentence is for the log.
    Ignored(String),
}

impl Records {
    /// Takes a batch in. `done` is called after the commit; nothing is acknowledged on an error.
    pub(crate) fn ingest(
        &self,
        address: Address,
        payload: bytes::Bytes,
        now: Timestamp,
        done: impl FnOnce(Result<Ingested, CloudError>) + Send + 'static,
    ) -> Result<(), CloudError> {
        self.offer(payload.len(), move |connection| ingest(connection, &address, &payload, now), done)
    }
}

fn ingest(connection: &Connection, address: &Address, payload: &[u8], now: Timestamp) -> Result<Ingested, CloudError> {
    let limits = BatchLimits::default();
    let header = match BatchHeader::read(payload, &limits) {
        Ok((header, _)) => header,
        Err(error) => return Ok(refuse_unread(payload, &error)),
    };
    if let Err(error) = header.check_address(address) {
        // It names another device's stream, or another of its own: only what its topic says may be spoken of.
        return Ok(if header.device == address.thing {
            refuse(&header, error.refusal())
        } else {
            Ingested::Ignored(error.to_string())
        });
    }
    let device = match devices::find(connection, &address.thing)? {
        Some(device) if device.status == DeviceStatus::Active => device,
        _ => return Ok(Ingested::Ignored(format!("{} is not an active device", address.thing))),
    };
    let Some((stream, mut coverage)) = stream(connection, device.id, &header)? else {
        // Not in silence: it would go on trying, and send nothing else.
        return Ok(refuse(&header, RefusalReason::TooManyStreams));
    };
    if is_closed(connection, stream)? {
        return Ok(refuse(&header, RefusalReason::Conflict));
    }
    let batch = match Batch::read(payload, &limits) {
        Ok(batch) => batch,
        Err(error) => return Ok(refuse(&header, error.refusal())),
    };
    if is_another(connection, stream, &coverage, &batch)? {
        close(connection, stream)?;
        return Ok(refuse(&header, RefusalReason::Conflict));
    }
    if !coverage.contains(header.first, header.last()) {
        let mut with = coverage.clone();
        with.add(header.first, header.last());
        if with.spans.len() > MAX_SPANS {
            return Ok(Ingested::Ignored(format!("{} sends with too many holes in {}", address.thing, header.stream)));
        }
        insert(connection, stream, &coverage, &batch)?;
        keep_lane(connection, stream, &batch)?;
        save(connection, stream, &coverage, &with)?;
        coverage = with;
        device.touch(connection, now)?;
    }
    let watermark = Watermark { stream: header.stream, epoch: header.epoch, upto: coverage.upto };
    Ok(Ingested::Answer(Ack::new(vec![watermark], Vec::new())))
}

/// The stream's id and what is there of it; `None` if there is no room for one more.
fn stream(connection: &Connection, device: i64, header: &BatchHeader) -> Result<Option<(i64, Coverage)>, CloudError> {
    let action = "find a stream";
    let epoch = i64::from_ne_bytes(header.epoch.0.to_ne_bytes());
    let statement = "SELECT id, upto FROM stream WHERE device = ?1 AND name = ?2 AND epoch = ?3";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let found: Option<(i64, i64)> = statement
        .query_row(params![device, header.stream.as_str(), epoch], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(sql(action))?;
    let Some((id, upto)) = found else {
        let statement = "SELECT count(*), count(CASE WHEN epoch = ?2 THEN 1 END) FROM stream WHERE device = ?1";
        let (ever, now): (i64, i64) = connection
            .query_row(statement, [device, epoch], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(sql(action))?;
        if now >= MAX_STREAMS || ever >= MAX_STREAMS_EVER {
            return Ok(None);
        }
        // A device that begins an epoch does not know the lane of what has nothing but gaps there.
        let statement = "INSERT INTO stream (device, name, epoch, lane, upto) VALUES (?1, ?2, ?3, coalesce(\
                         (SELECT lane FROM stream WHERE device = ?1 AND name = ?2 ORDER BY id DESC LIMIT 1), ?4), 0)";
        connection
            .execute(statement, params![device, header.stream.as_str(), epoch, lane_number(header.lane)])
            .map_err(sql("add a stream"))?;
        return Ok(Some((connection.last_insert_rowid(), Coverage::default())));
    };
    let statement = "SELECT first, last FROM span WHERE stream = ?1 ORDER BY first";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let spans = statement
        .query_map([id], |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?))))
        .map_err(sql(action))?
        .collect::<Result<_, _>>()
        .map_err(sql(action))?;
    Ok(Some((id, Coverage { upto: unsigned(upto), spans })))
}

/// A stream is in the lane that its records come in.
fn keep_lane(connection: &Connection, stream: i64, batch: &Batch) -> Result<(), CloudError> {
    if !batch.lines.iter().any(|(_, line)| matches!(line, Line::Record(_))) {
        return Ok(());
    }
    let statement = "UPDATE stream SET lane = ?2 WHERE id = ?1 AND lane <> ?2";
    let mut statement = connection.prepare_cached(statement).map_err(sql("note a lane"))?;
    statement.execute(params![stream, lane_number(batch.header.lane)]).map(drop).map_err(sql("note a lane"))
}

/// Whether the last record that comes again is another one than what is there. One whose time is over cannot be compared.
fn is_another(connection: &Connection, stream: i64, there: &Coverage, batch: &Batch) -> Result<bool, CloudError> {
    let mut again = batch.lines.iter().rev().filter_map(|(sequence, line)| match line {
        Line::Record(record) if there.contains(*sequence, *sequence) => Some((*sequence, record)),
        Line::Record(_) | Line::Gap(_) => None,
    });
    let Some((sequence, record)) = again.next() else { return Ok(false) };
    let later = match compare(connection, stream, sequence, record)? {
        Again::Other => return Ok(true),
        Again::Gone | Again::Later(0) => return Ok(false),
        Again::Later(later) => later,
    };
    // Its device has dated it anew: the clock was set since it was sent. Then so are those before it, from some one on.
    let mut dated_anew = 1;
    for (sequence, record) in again {
        match compare(connection, stream, sequence, record)? {
            Again::Later(before) if before == later => dated_anew += 1,
            Again::Gone | Again::Later(0) => {}
            Again::Other | Again::Later(_) => return Ok(true),
        }
    }
    // One alone may be another that says the same.
    Ok(dated_anew < 2 && record.time.0.saturating_sub(later) > UNKNOWN_BEFORE)
}

/// 2024-01-01: whose clock says that it is earlier does not know the time.
const UNKNOWN_BEFORE: i64 = 1_704_067_200_000;

/// A record that comes again, beside what is there under its number.
enum Again {
    /// Its time is over.
    Gone,
    /// That says something else.
    Other,
    /// It says the same, and is dated so many milliseconds later.
    Later(i64),
}

fn compare(connection: &Connection, stream: i64, sequence: u64, record: &Record) -> Result<Again, CloudError> {
    let action = "compare a record";
    let statement = "SELECT time, content_type IS ?3 AND data = ?4 FROM record WHERE stream = ?1 AND sequence = ?2";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let values = params![stream, signed(sequence), record.content_type, record.data];
    let found: Option<(i64, bool)> =
        statement.query_row(values, |row| Ok((row.get(0)?, row.get(1)?))).optional().map_err(sql(action))?;
    Ok(match found {
        None => Again::Gone,
        Some((time, true)) => Again::Later(record.time.0.saturating_sub(time)),
        Some((_, false)) => Again::Other,
    })
}

fn is_closed(connection: &Connection, stream: i64) -> Result<bool, CloudError> {
    let action = "look whether a stream is closed";
    let statement = "SELECT EXISTS (SELECT * FROM closed WHERE stream = ?1)";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    statement.query_row([stream], |row| row.get(0)).map_err(sql(action))
}

fn close(connection: &Connection, stream: i64) -> Result<(), CloudError> {
    let statement = "INSERT OR IGNORE INTO closed (stream) VALUES (?1)";
    connection.execute(statement, [stream]).map(drop).map_err(sql("close a stream"))
}

fn insert(connection: &Connection, stream: i64, there: &Coverage, batch: &Batch) -> Result<(), CloudError> {
    let action = "store records";
    let [(record, gap), (other_record, other_gap)] = INSERTS;
    let (record, gap) = if has_other_epochs(connection, stream)? { (other_record, other_gap) } else { (record, gap) };
    let mut record = connection.prepare_cached(record).map_err(sql(action))?;
    let mut gap = connection.prepare_cached(gap).map_err(sql(action))?;
    for (sequence, line) in &batch.lines {
        match line {
            Line::Record(found) => {
                if !there.contains(*sequence, *sequence) {
                    let time = found.time.0;
                    let values = params![stream, signed(*sequence), time, found.content_type, found.data];
                    record.execute(values).map_err(sql(action))?;
                }
            }
            // Records that came before their device dropped them are here; only the rest is a gap.
            Line::Gap(found) => {
                for (first, last) in there.missing(*sequence, *sequence + found.count - 1) {
                    let count = signed(last - first + 1);
                    let values = params![stream, signed(first), count, found.reason.as_str(), found.at.0];
                    gap.execute(values).map_err(sql(action))?;
                }
            }
        }
    }
    Ok(())
}

/// How records and gaps are stored: of a stream with one epoch, and of one with several. A device that begins an epoch sends
/// again whatever it has no watermark for, under the numbers it has always had: what is there under its number is not stored twice.
const INSERTS: [(&str, &str); 2] = [
    (
        "INSERT INTO record (stream, sequence, time, content_type, data) VALUES (?1, ?2, ?3, ?4, ?5)",
        "INSERT INTO gap (stream, first, count, reason, time) VALUES (?1, ?2, ?3, ?4, ?5)",
    ),
    (
        "INSERT INTO record (stream, sequence, time, content_type, data) SELECT ?1, ?2, ?3, ?4, ?5 WHERE NOT EXISTS (
             SELECT * FROM stream AS this JOIN stream AS other USING (device, name)
             JOIN record ON record.stream = other.id AND sequence = ?2
             WHERE this.id = ?1 AND other.id <> ?1 AND time = ?3 AND content_type IS ?4 AND data = ?5)",
        "INSERT INTO gap (stream, first, count, reason, time) SELECT ?1, ?2, ?3, ?4, ?5 WHERE NOT EXISTS (
             SELECT * FROM stream AS this JOIN stream AS other USING (device, name)
             JOIN gap ON gap.stream = other.id AND first = ?2
             WHERE this.id = ?1 AND other.id <> ?1 AND count = ?3 AND reason = ?4 AND gap.time = ?5)",
    ),
];

fn has_other_epochs(connection: &Connection, stream: i64) -> Result<bool, CloudError> {
    let action = "look for a stream's other epochs";
    let statement = "SELECT EXISTS (SELECT * FROM stream AS this JOIN stream AS other USING (device, name)
                     WHERE this.id = ?1 AND other.id <> ?1)";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    statement.query_row([stream], |row| row.get(0)).map_err(sql(action))
}

fn save(connection: &Connection, stream: i64, before: &Coverage, after: &Coverage) -> Result<(), CloudError> {
    let action = "move a watermark";
    let run = |statement: &str, values: &[&dyn rusqlite::ToSql]| {
        let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
        statement.execute(values).map_err(sql(action))
    };
    if before.upto != after.upto {
        run("UPDATE stream SET upto = ?2 WHERE id = ?1", params![stream, signed(after.upto)])?;
    }
    if before.spans != after.spans {
        run("DELETE FROM span WHERE stream = ?1", params![stream])?;
        for (first, last) in &after.spans {
            let values = params![stream, signed(*first), signed(*last)];
            run("INSERT INTO span (stream, first, last) VALUES (?1, ?2, ?3)", values)?;
        }
    }
    Ok(())
}

fn refuse(header: &BatchHeader, reason: RefusalReason) -> Ingested {
    let BatchHeader { stream, epoch, first, count, .. } = header.clone();
    let refusal = Refusal { stream, epoch, first, count, reason };
    Ingested::Answer(Ack::new(Vec::new(), vec![refusal]))
}

/// Of a header that cannot be read nothing may be known to refuse; a later format's tells enough, or the device would send
/// it for ever.
fn refuse_unread(payload: &[u8], error: &ProtocolError) -> Ingested {
    match BatchHeader::claim(payload) {
        Some(mut refusal) => {
            refusal.reason = error.refusal();
            Ingested::Answer(Ack::new(Vec::new(), vec![refusal]))
        }
        None => Ingested::Ignored(crate::error::chain(error)),
    }
}

/// As the schema has it.
pub(super) fn lane_number(lane: Lane) -> i64 {
    match lane {
        Lane::Alarms => 0,
        Lane::Results => 1,
        Lane::Logs => 2,
    }
}
