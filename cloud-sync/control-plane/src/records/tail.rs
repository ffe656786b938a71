//! What came from a device since somebody looked last.

use std::collections::BTreeMap;

use holm_core::Timestamp;
use holm_protocol::ThingName;
use rusqlite::{Connection, params};

use super::{Records, signed, unsigned};
use crate::CloudError;
use crate::error::sql;

/// Where somebody is in the streams of a device: the last number of each. A batch that fills a hole later is not seen by him,
/// which is fit for watching and for nothing else.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen(BTreeMap<i64, u64>);

/// A record, or records that the device dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) stream: String,
    pub(crate) sequence: u64,
    pub(crate) time: Timestamp,
    pub(crate) what: Arrived,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Arrived {
    Record(Vec<u8>),
    Gap { count: u64, reason: String },
}

/// The latest of what came, oldest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail {
    pub(crate) arrivals: Vec<Arrival>,
    /// Whether more came than was asked for.
    pub(crate) cut: bool,
    pub(crate) seen: Seen,
}

impl Records {
    /// Reads at most `limit` of what came after `seen`. Begin with an empty one.
    pub(crate) async fn tail(&self, thing: ThingName, seen: Seen, limit: usize) -> Result<Tail, CloudError> {
        self.read(move |connection| read(connection, &thing, seen, limit)).await
    }
}

fn read(connection: &Connection, thing: &ThingName, mut seen: Seen, limit: usize) -> Result<Tail, CloudError> {
    let action = "read what came";
    let statement = "SELECT s.id, s.name FROM stream s JOIN device d ON d.id = s.device WHERE d.name = ?1";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let streams: Vec<(i64, String)> = statement
        .query_map([thing.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(sql(action))?
        .collect::<Result<_, _>>()
        .map_err(sql(action))?;
    let records = "SELECT sequence, time, data FROM record WHERE stream = ?1 AND sequence > ?2 \
                   ORDER BY sequence DESC LIMIT ?3";
    let gaps =
        "SELECT first, time, count, reason FROM gap WHERE stream = ?1 AND first > ?2 ORDER BY first DESC LIMIT ?3";
    let mut records = connection.prepare_cached(records).map_err(sql(action))?;
    let mut gaps = connection.prepare_cached(gaps).map_err(sql(action))?;
    let mut arrivals = Vec::new();
    // One more than asked for tells whether there are more.
    let most = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    for (stream, name) in streams {
        let place = seen.0.get(&stream).copied().unwrap_or_default();
        let values = params![stream, signed(place), most];
        let rows = records
            .query_map(values, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, Arrived::Record(row.get(2)?))));
        let mut found: Vec<(i64, i64, Arrived)> =
            rows.map_err(sql(action))?.collect::<Result<_, _>>().map_err(sql(action))?;
        let rows = gaps.query_map(values, |row| {
            Ok((row.get(0)?, row.get(1)?, Arrived::Gap { count: unsigned(row.get(2)?), reason: row.get(3)? }))
        });
        let rows: Result<Vec<_>, _> = rows.map_err(sql(action))?.collect();
        found.extend(rows.map_err(sql(action))?);
        if let Some(last) = found.iter().map(|(sequence, ..)| unsigned(*sequence)).max() {
            seen.0.insert(stream, last.max(place));
        }
        arrivals.extend(found.into_iter().map(|(sequence, time, what)| Arrival {
            stream: name.clone(),
            sequence: unsigned(sequence),
            time: Timestamp(time),
            what,
        }));
    }
    arrivals.sort_by(|a, b| (a.time, &a.stream, a.sequence).cmp(&(b.time, &b.stream, b.sequence)));
    let cut = arrivals.len() > limit;
    arrivals.drain(..arrivals.len().saturating_sub(limit));
    Ok(Tail { arrivals, cut, seen })
}
