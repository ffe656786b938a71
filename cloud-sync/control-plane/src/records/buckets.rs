//! A series in few points: least, greatest and mean of equal stretches of time, made where the rows are.
//!
//! Only values that are JSON numbers count. All devices share one grid, so their points lie above each other in a plot.

use std::collections::BTreeMap;

use holm_core::Timestamp;
use rusqlite::{Connection, params};

use super::query::{Selection, Stream, streams};
use super::{Records, unsigned};
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
    let mut found: BTreeMap<String, BTreeMap<i64, Point>> = BTreeMap::new();
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
        let (points, rows) = points(connection, &stream, (since, until), width, left)?;
        left = left.saturating_sub(rows);
        if points.is_empty() && !is_known {
            continue;
        }
        let line = found.entry(stream.device).or_default();
        for point in points {
            line.entry(point.time.0).and_modify(|there| *there = there.and(point)).or_insert(point);
        }
    }
    let lines = found.into_iter().map(|(device, points)| Line { device, points: points.into_values().collect() });
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

fn points(
    connection: &Connection,
    stream: &Stream,
    (since, until): (i64, i64),
    width: i64,
    rows: u64,
) -> Result<(Vec<Point>, u64), CloudError> {
    let action = "read a series";
    // `CASE` looks at one branch alone: `json_type` fails for what is not JSON.
    let statement = "SELECT (time - ?2) / ?4, count(*), count(value), min(value), max(value), avg(value) FROM ( \
           SELECT time, CASE WHEN NOT json_valid(text) THEN NULL \
                             WHEN json_type(text) IN ('integer', 'real') THEN CAST(text AS REAL) END AS value FROM ( \
             SELECT time, CAST(data AS TEXT) AS text FROM record \
             WHERE stream = ?1 AND time >= ?2 AND time < ?3 ORDER BY time LIMIT ?5)) \
         GROUP BY 1 ORDER BY 1";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let limit = i64::try_from(rows).unwrap_or(i64::MAX);
    let mut found = statement.query(params![stream.id, since, until, width, limit]).map_err(sql(action))?;
    let (mut points, mut read) = (Vec::new(), 0);
    while let Some(row) = found.next().map_err(sql(action))? {
        let numbers = |row: &rusqlite::Row<'_>| {
            let bucket: i64 = row.get(0)?;
            let counts = (unsigned(row.get(1)?), unsigned(row.get(2)?));
            let values: (Option<f64>, Option<f64>, Option<f64>) = (row.get(3)?, row.get(4)?, row.get(5)?);
            Ok::<_, rusqlite::Error>((bucket, counts, values))
        };
        let (bucket, (all, count), values) = numbers(row).map_err(sql(action))?;
        read += all;
        if let (Some(min), Some(max), Some(avg)) = values {
            let time = Timestamp(since.saturating_add(bucket.saturating_mul(width)));
            points.push(Point { time, count, min, max, avg });
        }
    }
    Ok((points, read))
}

impl Point {
    /// Both in one.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn and(self, other: Self) -> Self {
        let (one, two) = (self.count as f64, other.count as f64);
        Self {
            time: self.time,
            count: self.count + other.count,
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            avg: (self.avg * one + other.avg * two) / (one + two),
        }
    }
}
