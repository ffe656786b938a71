//! What was sent, for those who ask.

use std::collections::BTreeMap;

use holm_core::Timestamp;
use holm_protocol::{Epoch, Lane};
use rusqlite::{Connection, params};

use super::ingest::lane_number;
use super::{Records, signed, unsigned};
use crate::CloudError;
use crate::error::sql;

/// Streams that one question may touch. More than a fleet has of one series, and a bound on what a question costs.
const MAX_STREAMS: i64 = 100_000;

/// Gaps that are told with a page.
const MAX_GAPS: i64 = 100;

/// Bytes of records in one page, but for a page of one record: a record may have a megabyte, and a page ten thousand of them.
const MAX_PAGE_BYTES: usize = 8 << 20;

/// What is asked for. What is `None` does not matter.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub(crate) lane: Lane,
    /// The whole name.
    pub(crate) stream: Option<String>,
    pub(crate) device: Option<String>,
    pub(crate) group: Option<String>,
    /// From this time on, by the devices' clocks.
    pub(crate) since: Timestamp,
    /// Before this time.
    pub(crate) until: Timestamp,
    /// Where the last page ended.
    pub(crate) after: Option<Place>,
    /// At most so many rows. There are fewer in a page that would be too large.
    pub(crate) limit: usize,
    /// The latest rows instead of the first, oldest first all the same.
    pub(crate) latest: bool,
}

impl Selection {
    /// The times that are left to look at: the index is searched by them.
    fn bounds(&self) -> (i64, i64) {
        match self.after {
            Some(place) if self.latest => (self.since.0, self.until.0.min(place.time.saturating_add(1))),
            Some(place) => (self.since.0.max(place.time), self.until.0),
            None => (self.since.0, self.until.0),
        }
    }
}

/// A row's place in the order: by time, then by stream and number. Its text is a cursor: whoever has one hands it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) time: i64,
    pub(crate) stream: i64,
    pub(crate) sequence: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.time, self.stream, self.sequence)
    }
}

impl Place {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let (time, stream, sequence) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { time: time.parse().ok()?, stream: stream.parse().ok()?, sequence: sequence.parse().ok()? })
    }
}

/// A record.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) device: String,
    pub(crate) stream: String,
    pub(crate) epoch: Epoch,
    pub(crate) sequence: u64,
    pub(crate) time: Timestamp,
    pub(crate) content_type: Option<String>,
    pub(crate) data: Vec<u8>,
}

/// Records that a device dropped.
#[derive(Debug, Clone)]
pub(crate) struct GapRow {
    pub(crate) device: String,
    pub(crate) stream: String,
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) reason: String,
    pub(crate) time: Timestamp,
}

/// Rows in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Page {
    pub(crate) rows: Vec<Row>,
    pub(crate) gaps: Vec<GapRow>,
    /// Where to go on, if there may be more.
    pub(crate) next: Option<Place>,
}

pub(super) struct Stream {
    pub(super) id: i64,
    pub(super) device: String,
    name: String,
    epoch: Epoch,
}

impl Records {
    /// Reads a page.
    pub(crate) async fn select(&self, selection: Selection) -> Result<Page, CloudError> {
        self.read(move |connection| select(connection, &selection)).await
    }
}

/// Takes the first rows of each stream and keeps the first of all: whatever the number of streams, no more than a page is held. What
/// is kept is all that was seen before `end`, which only comes nearer: so it has no holes.
fn select(connection: &Connection, selection: &Selection) -> Result<Page, CloudError> {
    let streams = streams(connection, selection)?;
    let mut kept: BTreeMap<Place, (usize, Option<String>, Vec<u8>)> = BTreeMap::new();
    let (mut end, mut bytes) = (None::<Place>, 0_usize);
    let (order, bound) = if selection.latest { ("DESC", "<") } else { ("ASC", ">") };
    let statement = format!(
        "SELECT sequence, time, content_type, data FROM record \
         WHERE stream = ?1 AND time >= ?2 AND time < ?3 AND (?4 IS NULL OR (time, sequence) {bound} (?4, ?5)) \
         ORDER BY time {order}, sequence {order} LIMIT ?6"
    );
    let mut statement = connection.prepare_cached(&statement).map_err(sql("read records"))?;
    for (index, stream) in streams.iter().enumerate() {
        let after = selection.after.map(|place| start(place, stream.id, selection.latest));
        let (time, sequence) = (after.map(|(time, _)| time), after.map(|(_, sequence)| sequence));
        let limit = i64::try_from(selection.limit).unwrap_or(i64::MAX);
        let (since, until) = selection.bounds();
        let values = params![stream.id, since, until, time, sequence, limit];
        let mut rows = statement.query(values).map_err(sql("read records"))?;
        while let Some(row) = rows.next().map_err(sql("read records"))? {
            let read = |row: &rusqlite::Row<'_>| {
                let place = Place { time: row.get(1)?, stream: stream.id, sequence: unsigned(row.get(0)?) };
                Ok::<_, rusqlite::Error>((place, (index, row.get(2)?, row.get::<_, Vec<u8>>(3)?)))
            };
            let (place, value) = read(row).map_err(sql("read records"))?;
            if end.is_some_and(|end| if selection.latest { place <= end } else { place >= end }) {
                // So are all that follow it in its stream.
                break;
            }
            bytes += value.2.len();
            kept.insert(place, value);
            while kept.len() > selection.limit || (bytes > MAX_PAGE_BYTES && kept.len() > 1) {
                let worst = if selection.latest { kept.pop_first() } else { kept.pop_last() };
                let Some((place, (_, _, data))) = worst else { break };
                bytes -= data.len();
                end = Some(place);
            }
        }
    }
    let worst = if selection.latest { kept.first_key_value() } else { kept.last_key_value() };
    let next = worst.map(|(place, _)| *place).filter(|_| end.is_some() || kept.len() >= selection.limit);
    let rows = kept.into_iter().filter_map(|(place, (index, content_type, data))| {
        let stream = streams.get(index)?;
        Some(Row {
            device: stream.device.clone(),
            stream: stream.name.clone(),
            epoch: stream.epoch,
            sequence: place.sequence,
            time: Timestamp(place.time),
            content_type,
            data,
        })
    });
    let rows = rows.collect();
    let gaps = if selection.after.is_none() { gaps(connection, selection, &streams)? } else { Vec::new() };
    Ok(Page { rows, gaps, next })
}

/// Where a stream goes on after a place of the whole order: as (time, sequence), exclusive.
fn start(place: Place, stream: i64, backwards: bool) -> (i64, i64) {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let behind = match (stream.cmp(&place.stream), backwards) {
        (Equal, _) => return (place.time, signed(place.sequence)),
        (Less, false) | (Greater, true) => true,
        (Greater, false) | (Less, true) => false,
    };
    // Rows of the same time are all before the place, or all after it.
    match (behind, backwards) {
        (true, false) => (place.time, i64::MAX),
        (false, false) => (place.time, -1),
        (true, true) => (place.time, -1),
        (false, true) => (place.time, i64::MAX),
    }
}

pub(super) fn streams(connection: &Connection, selection: &Selection) -> Result<Vec<Stream>, CloudError> {
    let action = "read the streams";
    let statement = "SELECT s.id, d.name, s.name, s.epoch FROM stream s JOIN device d ON d.id = s.device \
         WHERE s.lane BETWEEN ?6 AND ?1 AND (?2 IS NULL OR s.name = ?2) AND (?3 IS NULL OR d.name = ?3) \
         AND (?4 IS NULL OR EXISTS (SELECT * FROM membership m WHERE m.device = d.id AND m.\"group\" = ?4)) LIMIT ?5";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let Selection { lane, stream, device, group, .. } = selection;
    // Results of high priority come by the lane of alarms, and are results all the same.
    let least = if *lane == Lane::Results { lane_number(Lane::Alarms) } else { lane_number(*lane) };
    let values = params![lane_number(*lane), stream, device, group, MAX_STREAMS, least];
    let rows = statement.query_map(values, |row| {
        let epoch = Epoch(u64::from_ne_bytes(row.get::<_, i64>(3)?.to_ne_bytes()));
        Ok(Stream { id: row.get(0)?, device: row.get(1)?, name: row.get(2)?, epoch })
    });
    rows.map_err(sql(action))?.collect::<Result<_, _>>().map_err(sql(action))
}

fn gaps(connection: &Connection, selection: &Selection, streams: &[Stream]) -> Result<Vec<GapRow>, CloudError> {
    let action = "read gaps";
    let statement = "SELECT first, count, reason, time FROM gap WHERE stream = ?1 AND time >= ?2 AND time < ?3 \
                     ORDER BY first LIMIT ?4";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let mut gaps = Vec::new();
    for stream in streams {
        let left = MAX_GAPS - i64::try_from(gaps.len()).unwrap_or(MAX_GAPS);
        if left <= 0 {
            break;
        }
        let rows = statement
            .query_map(params![stream.id, selection.since.0, selection.until.0, left], |row| {
                Ok(GapRow {
                    device: stream.device.clone(),
                    stream: stream.name.clone(),
                    first: unsigned(row.get(0)?),
                    count: unsigned(row.get(1)?),
                    reason: row.get(2)?,
                    time: Timestamp(row.get(3)?),
                })
            })
            .map_err(sql(action))?;
        for row in rows {
            gaps.push(row.map_err(sql(action))?);
        }
    }
    Ok(gaps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_end_early_where_records_are_large_and_leave_nothing_out() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("schema/1000.sql")).unwrap();
        let device = "INSERT INTO device (id, name, status, enrolled, seen, version, arch, engine, profile) \
                      VALUES (1, 'pi1', 'active', 0, 0, '', '', '', '')";
        connection.execute(device, []).unwrap();
        let mut all = Vec::new();
        for stream in 1..4 {
            let made =
                "INSERT INTO stream (id, device, name, epoch, lane, upto) VALUES (?1, 1, 'result.f.' || ?1, 1, 1, 0)";
            connection.execute(made, [stream]).unwrap();
            for sequence in 1..8_i64 {
                // Some are larger than all that a page has otherwise room for, and some have the same time.
                let size = if (stream, sequence) == (2, 4) { 9 << 20 } else { 1 << 20 };
                let record = "INSERT INTO record (stream, sequence, time, data) VALUES (?1, ?2, ?3, zeroblob(?4))";
                let time = sequence / 2 + stream;
                connection.execute(record, [stream, sequence, time, size]).unwrap();
                all.push((time, format!("result.f.{stream}"), unsigned(sequence)));
            }
        }
        all.sort();
        for (latest, limit) in [(false, 100), (true, 100), (false, 3), (true, 3)] {
            let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
            loop {
                let (since, until) = (Timestamp(i64::MIN), Timestamp(i64::MAX));
                let (stream, device, group) = (None, None, None);
                let lane = Lane::Results;
                let selection = Selection { lane, stream, device, group, since, until, after, limit, latest };
                let page = select(&connection, &selection).unwrap();
                let bytes: usize = page.rows.iter().map(|row| row.data.len()).sum();
                assert!(page.rows.len() <= limit && (bytes <= MAX_PAGE_BYTES || page.rows.len() == 1), "{bytes}");
                let rows = page.rows.iter().map(|row| (row.time.0, row.stream.clone(), row.sequence));
                let at = if latest { 0 } else { found.len() };
                found.splice(at..at, rows);
                pages += 1;
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(found, all, "latest {latest}, limit {limit}");
            assert!(pages >= 4, "{pages}");
        }
    }
}
