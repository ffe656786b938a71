//! A series in few points: least, greatest and mean of equal stretches of time, made where the rows are.
//!
//! Only values that are JSON numbers count. All devices share one grid, so their points lie above each other in a plot.

use std::collections::BTreeMap;

use holm_core::Timestamp;
use rusqlite::{Connection, params};

use super::Records;
use super::query::{Selection, Stream, streams};
use crate::CloudError;
use crate::error::sql;

/// Rows that one question may read: a reader that is busy for long keeps others waiting.
const MAX_ROWS: u64 = 5_000_000;

/// What a browser takes for a time, either way from 1970 (ECMA-262, 21.4.1.1). A device whose clock says more has no place in a plot.
const MAX_TIME: i64 = 8_640_000_000_000_000;

/// Devices of one answer.
const MAX_DEVICES: usize = 32;

/// A series of one or several devices.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub(crate) struct Buckets {
    /// Where the first bucket begins.
    pub(crate) since: Timestamp,
    /// Where the last one ends.
    pub(crate) until: Timestamp,
    /// How long each is, in milliseconds.
    pub(crate) width: i64,
    pub(crate) devices: Vec<Line>,
    /// Devices that have rows and no room here.
    pub(crate) omitted: usize,
    /// Whether there were more rows than one question may read: then the last ones are not in it.
    pub(crate) cut: bool,
}

/// A device's points, oldest first. Buckets without a value are left out.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(crate) struct Line {
    pub(crate) device: String,
    pub(crate) points: Vec<Point>,
}

/// What was in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(crate) struct Point {
    /// Where it begins.
    pub(crate) time: Timestamp,
    pub(crate) count: u64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) avg: f64,
}

impl Records {
    /// Reads a series as at most `buckets` points for each device. Of the selection, the limit and the order do not count.
    /// Without bounds in time, those of the rows are taken.
    pub(crate) async fn buckets(&self, selection: Selection, buckets: u32) -> Result<Buckets, CloudError> {
        self.read(move |connection| read(connection, &selection, buckets)).await
    }
}

fn read(connection: &Connection, selection: &Selection, buckets: u32) -> Result<Buckets, CloudError> {
    let mut streams = streams(connection, selection)?;
    let Some((since, until)) = bounds(connection, selection, &streams)? else { return Ok(Buckets::default()) };
    // Rounded up, so that the last row is in the last bucket.
    let count = i64::from(buckets.max(1));
    let width = (until.saturating_sub(since).saturating_add(count - 1) / count).max(1);
    streams.sort_by(|a, b| a.device.cmp(&b.device));
    let mut found: BTreeMap<String, BTreeMap<i64, Sum>> = BTreeMap::new();
    let (mut left, mut omitted, mut cut) = (MAX_ROWS, 0, false);
    for stream in streams {
        if left == 0 {
            cut = true;
            break;
        }
        // A device has a stream for each life of its database.
        let is_known = found.contains_key(&stream.device);
        if !is_known && found.len() >= MAX_DEVICES {
            omitted += 1;
            continue;
        }
        let line = found.entry(stream.device.clone()).or_default();
        left -= add(connection, &stream, selection, (since, until, width), left, line)?;
        if line.is_empty() {
            found.remove(&stream.device);
        }
    }
    let point = |(bucket, sum): (i64, Sum)| sum.point(Timestamp(since.saturating_add(bucket.saturating_mul(width))));
    let lines = found.into_iter().map(|(device, sums)| Line { device, points: sums.into_iter().map(point).collect() });
    let (devices, since, until) = (lines.collect(), Timestamp(since), Timestamp(until));
    Ok(Buckets { since, until, width, devices, omitted, cut })
}

/// From when to when there is anything, within what is asked for; the end is exclusive.
fn bounds(
    connection: &Connection,
    selection: &Selection,
    streams: &[Stream],
) -> Result<Option<(i64, i64)>, CloudError> {
    let action = "read the times of a series";
    let statement = "SELECT min(time), max(time) FROM record WHERE stream = ?1 AND time >= ?2 AND time < ?3";
    // Two look-ups instead of a scan: SQLite does that for one aggregate alone.
    let (first, last) = (statement.replace(", max(time)", ""), statement.replace("min(time), ", ""));
    let mut first = connection.prepare_cached(&first).map_err(sql(action))?;
    let mut last = connection.prepare_cached(&last).map_err(sql(action))?;
    let (from, to) = (selection.since.0.max(-MAX_TIME), selection.until.0.min(MAX_TIME));
    let mut found: Option<(i64, i64)> = None;
    for stream in streams {
        let values = params![stream.id, from, to];
        let least: Option<i64> = first.query_row(values, |row| row.get(0)).map_err(sql(action))?;
        let most: Option<i64> = last.query_row(values, |row| row.get(0)).map_err(sql(action))?;
        if let (Some(least), Some(most)) = (least, most) {
            let (first, end) = found.unwrap_or((least, most));
            found = Some((first.min(least), end.max(most)));
        }
    }
    Ok(found.map(|(first, last)| {
        let since = if from == -MAX_TIME { first } else { from };
        let until = if to == MAX_TIME { last.saturating_add(1) } else { to };
        (since, until.max(since.saturating_add(1)))
    }))
}

/// Adds the values of a stream to its device's line. The number of rows that it has read, at most `most`.
///
/// Rows are added up here and not by SQL: telling numbers from other JSON there costs twice as much as reading them.
fn add(
    connection: &Connection,
    stream: &Stream,
    selection: &Selection,
    (since, until, width): (i64, i64, i64),
    most: u64,
    line: &mut BTreeMap<i64, Sum>,
) -> Result<u64, CloudError> {
    let action = "read a series";
    // All of a stream is read in the order in which it lies: the index by time would look up each row.
    let is_whole = selection.since.0 == i64::MIN && selection.until.0 == i64::MAX;
    let times = if is_whole { "" } else { "AND time >= ?2 AND time < ?3 ORDER BY time" };
    let statement = format!("SELECT time, data FROM record WHERE stream = ?1 {times} LIMIT ?4");
    let mut statement = connection.prepare_cached(&statement).map_err(sql(action))?;
    let limit = i64::try_from(most).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![stream.id, since, until, limit]).map_err(sql(action))?;
    let (mut read, mut bucket, mut sum) = (0, i64::MIN, Sum::default());
    while let Some(row) = rows.next().map_err(sql(action))? {
        read += 1;
        let time: i64 = row.get(0).map_err(sql(action))?;
        let data = row.get_ref(1).map_err(sql(action))?.as_bytes().map_err(|error| sql(action)(error.into()))?;
        // A number of JSON, and no other JSON.
        let Ok(value) = serde_json::from_slice::<f64>(data) else { continue };
        if !(since..until).contains(&time) {
            continue;
        }
        // Neighbours are mostly in the same bucket.
        let next = time.saturating_sub(since) / width;
        if next != bucket {
            line.entry(bucket).or_default().and(std::mem::take(&mut sum));
            bucket = next;
        }
        sum.and(Sum { count: 1, min: value, max: value, total: value });
    }
    line.entry(bucket).or_default().and(sum);
    line.retain(|_, sum| sum.count > 0);
    Ok(read)
}

/// Values on their way to a point.
#[derive(Debug, Clone, Copy)]
struct Sum {
    count: u64,
    min: f64,
    max: f64,
    total: f64,
}

impl Default for Sum {
    fn default() -> Self {
        Self { count: 0, min: f64::INFINITY, max: f64::NEG_INFINITY, total: 0.0 }
    }
}

impl Sum {
    /// Both in one.
    fn and(&mut self, other: Self) {
        self.count += other.count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.total += other.total;
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn point(self, time: Timestamp) -> Point {
        Point { time, count: self.count, min: self.min, max: self.max, avg: self.total / self.count as f64 }
    }
}
