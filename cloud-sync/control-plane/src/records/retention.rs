//! How long records are kept: rules for streams, and the sweep that goes by them.
//!
//! # How it works
//!
//! A record's own time is its device's word, and a device whose clock stands at 1970 must not lose what it sends. So what counts is
//! the arrival; and since a stream's records arrive in the order of their numbers, it is enough to note now and then how far a
//! stream had come. When such a mark is as old as the rule says, everything up to it goes. Marks are made [`MARKS`] times in the
//! time of a rule, so a record stays by a part of it longer, and never shorter.
//!
//! What is gone stays below the stream's watermark: a device that sends it again is told that it is here.

use std::time::Duration;

use holm_core::Timestamp;
use holm_protocol::StreamName;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::tokens::audit;
use super::{Records, Refused};
use crate::CloudError;
use crate::error::sql;

/// Rules that there may be.
const MAX_RULES: i64 = 1_000;

/// Marks of a stream in the time that its records are kept.
const MARKS: i64 = 16;

/// Rows that one transaction drops: devices' records wait meanwhile.
const BATCH: usize = 5_000;

/// What the names of streams begin with, as devices make them.
const KINDS: [&str; 6] = ["result.", "publish.", "log", "trap.", "report", "dead-letter"];

/// Between two sweeps, at least and at most.
const PERIOD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));

/// Which streams: one by its name, or all that begin with what stands before `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Streams(String);

impl Streams {
    fn fits(&self, stream: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(begin) => stream.starts_with(begin),
            None => stream == self.0,
        }
    }
}

impl std::str::FromStr for Streams {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let whole = text.strip_suffix('*').unwrap_or(text);
        // A name of nothing keeps nothing, and would say so only by a full disk.
        if !KINDS.iter().any(|kind| whole.starts_with(kind)) || whole.contains('*') || StreamName::new(whole).is_err() {
            return Err(format!(
                "`{text}` names no streams: say result.FUNCTION.SERIES, publish.TOPIC, log.FUNCTION, trap.FUNCTION, report or dead-letters, \
                 or the begin of one and `*`"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Display for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A rule as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Rule {
    pub(crate) streams: String,
    /// Seconds from a record's arrival on.
    pub(crate) keep_s: u64,
    pub(crate) made: Timestamp,
}

/// What a sweep has done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Records that it dropped.
    pub(crate) dropped: usize,
    /// When to sweep again: at once where it has not come to its end, never where there is no rule.
    pub(crate) again: Option<Duration>,
}

impl Records {
    /// All rules, by name.
    pub(crate) async fn retention(&self) -> Result<Vec<Rule>, CloudError> {
        self.read(|connection| {
            let action = "list how long records are kept";
            let statement = "SELECT streams, keep, made FROM retention ORDER BY streams";
            let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
            let rows = statement.query_map([], |row| {
                let (streams, keep_s) = (row.get(0)?, super::unsigned(row.get::<_, i64>(1)?) / 1_000);
                Ok(Rule { streams, keep_s, made: Timestamp(row.get(2)?) })
            });
            rows.map_err(sql(action))?.collect::<Result<_, _>>().map_err(sql(action))
        })
        .await
    }

    /// Makes or changes a rule, or, without a time, forgets it.
    pub(crate) async fn set_retention(
        &self,
        streams: Streams,
        keep_s: Option<u32>,
        operator: String,
        now: Timestamp,
    ) -> Result<Result<(), Refused>, CloudError> {
        self.write(move |connection| set(connection, &streams, keep_s, &operator, now)).await
    }

    /// Drops some of what has been kept for long enough.
    pub(crate) async fn sweep(&self, now: Timestamp) -> Result<Swept, CloudError> {
        self.write(move |connection| sweep(connection, now, BATCH)).await
    }
}

fn set(
    connection: &Connection,
    streams: &Streams,
    keep_s: Option<u32>,
    operator: &str,
    now: Timestamp,
) -> Result<Result<(), Refused>, CloudError> {
    let action = "set how long records are kept";
    let Some(keep_s) = keep_s else {
        let gone = connection.execute("DELETE FROM retention WHERE streams = ?1", [&streams.0]).map_err(sql(action))?;
        if gone == 0 {
            return Ok(Err(Refused::Conflict(format!("there is no rule for `{streams}`"))));
        }
        audit(connection, now, operator, "keep records for ever", &streams.0)?;
        return Ok(Ok(()));
    };
    let others = "SELECT count(*) FROM retention WHERE streams IS NOT ?1";
    let others: i64 = connection.query_row(others, [&streams.0], |row| row.get(0)).map_err(sql(action))?;
    if others >= MAX_RULES {
        return Ok(Err(Refused::Conflict(format!("there are {MAX_RULES} rules already: a begin and `*` says more"))));
    }
    let statement = "INSERT INTO retention (streams, keep, made) VALUES (?1, ?2, ?3) \
                     ON CONFLICT DO UPDATE SET keep = ?2, made = ?3";
    let keep = i64::from(keep_s) * 1_000;
    connection.execute(statement, params![streams.0, keep, now.0]).map_err(sql(action))?;
    audit(connection, now, operator, "set how long records are kept", &format!("{streams}: {keep_s} s"))?;
    Ok(Ok(()))
}

fn sweep(connection: &Connection, now: Timestamp, most: usize) -> Result<Swept, CloudError> {
    let action = "drop records";
    let mut statement = connection.prepare_cached("SELECT streams, keep FROM retention").map_err(sql(action))?;
    let rules: Vec<(Streams, i64)> = statement
        .query_map([], |row| Ok((Streams(row.get(0)?), row.get(1)?)))
        .map_err(sql(action))?
        .collect::<Result<_, _>>()
        .map_err(sql(action))?;
    let Some(shortest) = rules.iter().map(|(_, keep)| *keep).min() else {
        return Ok(Swept { dropped: 0, again: None });
    };
    let mut statement = connection.prepare_cached("SELECT id, name, upto FROM stream").map_err(sql(action))?;
    let streams: Vec<(i64, String, i64)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .map_err(sql(action))?
        .collect::<Result<_, _>>()
        .map_err(sql(action))?;
    let mut dropped = 0;
    for (stream, name, upto) in streams {
        let fitting = rules.iter().filter(|(streams, _)| streams.fits(&name));
        let Some((_, keep)) = fitting.max_by_key(|(streams, _)| streams.0.len()) else { continue };
        note(connection, stream, upto, *keep, now)?;
        dropped += drop_old(connection, stream, now.0.saturating_sub(*keep), most - dropped)?;
        if dropped >= most {
            return Ok(Swept { dropped, again: Some(Duration::ZERO) });
        }
    }
    let (least, longest) = PERIOD;
    let period = Duration::from_millis(super::unsigned(shortest / MARKS)).clamp(least, longest);
    Ok(Swept { dropped, again: Some(period) })
}

/// Makes a mark, if there is something new to mark and the last one is old enough.
fn note(connection: &Connection, stream: i64, upto: i64, keep: i64, now: Timestamp) -> Result<(), CloudError> {
    let action = "mark how far a stream is";
    let last = "SELECT arrived, upto FROM mark WHERE stream = ?1 ORDER BY arrived DESC LIMIT 1";
    let mut last = connection.prepare_cached(last).map_err(sql(action))?;
    let last: Option<(i64, i64)> =
        last.query_row([stream], |row| Ok((row.get(0)?, row.get(1)?))).optional().map_err(sql(action))?;
    let is_due = match last {
        Some((arrived, marked)) => upto > marked && now.0.saturating_sub(arrived) >= (keep / MARKS).max(1),
        None => upto > 0,
    };
    if !is_due {
        return Ok(());
    }
    let mark = "INSERT INTO mark (stream, arrived, upto) VALUES (?1, ?2, ?3)";
    let mut mark = connection.prepare_cached(mark).map_err(sql(action))?;
    mark.execute(params![stream, now.0, upto]).map(|_| ()).map_err(sql(action))
}

/// Drops what had arrived before a time, as far as marks tell. How many records that were.
fn drop_old(connection: &Connection, stream: i64, before: i64, most: usize) -> Result<usize, CloudError> {
    let action = "drop records";
    let due = "SELECT arrived, upto FROM mark WHERE stream = ?1 AND arrived <= ?2 ORDER BY arrived DESC LIMIT 1";
    let mut due = connection.prepare_cached(due).map_err(sql(action))?;
    let due: Option<(i64, i64)> =
        due.query_row([stream, before], |row| Ok((row.get(0)?, row.get(1)?))).optional().map_err(sql(action))?;
    let Some((arrived, upto)) = due else { return Ok(0) };
    let limit = i64::try_from(most).unwrap_or(i64::MAX);
    let records = "DELETE FROM record WHERE stream = ?1 AND sequence IN \
                   (SELECT sequence FROM record WHERE stream = ?1 AND sequence <= ?2 ORDER BY sequence LIMIT ?3)";
    let mut records = connection.prepare_cached(records).map_err(sql(action))?;
    let dropped = records.execute(params![stream, upto, limit]).map_err(sql(action))?;
    if dropped < most {
        for (statement, bound) in [
            // A gap that reaches beyond is told as long as what comes after it is.
            ("DELETE FROM gap WHERE stream = ?1 AND first + count - 1 <= ?2", upto),
            // The last one stays: by it the next sweep knows that nothing has come since.
            ("DELETE FROM mark WHERE stream = ?1 AND arrived < ?2", arrived),
        ] {
            let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
            statement.execute(params![stream, bound]).map_err(sql(action))?;
        }
    }
    Ok(dropped)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HOUR: i64 = 3_600_000;

    struct Scene {
        connection: Connection,
        now: i64,
    }

    impl Scene {
        fn new(streams: &[&str]) -> Self {
            let connection = Connection::open_in_memory().unwrap();
            for step in [include_str!("schema/1000.sql"), include_str!("schema/1005.sql")] {
                connection.execute_batch(step).unwrap();
            }
            let device = "INSERT INTO device (id, name, status, enrolled, seen, version, arch, engine, profile) \
                          VALUES (1, 'pi1', 'active', 0, 0, '', '', '', '')";
            connection.execute(device, []).unwrap();
            for name in streams {
                let stream = "INSERT INTO stream (device, name, epoch, lane, upto) VALUES (1, ?1, 1, 1, 0)";
                connection.execute(stream, [name]).unwrap();
            }
            Self { connection, now: 1_000 * HOUR }
        }

        /// One more record of every stream, from a device that knows no time.
        fn arrive(&self) {
            let record = "INSERT INTO record (stream, sequence, time, data) SELECT id, upto + 1, 0, x'31' FROM stream";
            self.connection.execute(record, []).unwrap();
            self.connection.execute("UPDATE stream SET upto = upto + 1", []).unwrap();
        }

        fn keep(&self, streams: &str, hours: u32) {
            let streams: Streams = streams.parse().unwrap();
            set(&self.connection, &streams, Some(hours * 3_600), "ann", Timestamp(self.now)).unwrap().unwrap();
        }

        fn sweep(&self) -> Swept {
            sweep(&self.connection, Timestamp(self.now), 2).unwrap()
        }

        /// How many records there are of each stream.
        fn left(&self) -> Vec<u32> {
            let counts = "SELECT (SELECT count(*) FROM record WHERE stream = s.id) FROM stream s ORDER BY s.id";
            let mut counts = self.connection.prepare(counts).unwrap();
            counts.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
        }
    }

    #[test]
    fn a_record_stays_for_its_time_from_its_arrival_on_and_little_longer() {
        let mut scene = Scene::new(&["result.flow.mean"]);
        scene.keep("result.flow.mean", 16);
        // One an hour: in the end those of the last sixteen hours, and what came in the hour of the oldest mark.
        for hour in 0..100_u32 {
            scene.arrive();
            scene.now += HOUR;
            while scene.sweep().again == Some(Duration::ZERO) {}
            assert_eq!(scene.left(), [(hour + 1).min(16)], "after {hour} hours");
        }
        let marks: i64 = scene.connection.query_row("SELECT count(*) FROM mark", [], |row| row.get(0)).unwrap();
        assert!(marks <= MARKS + 1, "{marks}");
        // Also what nothing comes after any more.
        scene.now += 17 * HOUR;
        while scene.sweep().again == Some(Duration::ZERO) {}
        assert_eq!(scene.left(), [0]);
        assert_eq!(scene.sweep(), Swept { dropped: 0, again: Some(Duration::from_secs(3_600)) });
        // A clock that goes back drops nothing, and does no harm.
        scene.arrive();
        scene.now -= 500 * HOUR;
        scene.sweep();
        assert_eq!(scene.left(), [1]);
    }

    #[test]
    fn the_longest_rule_that_fits_counts_and_without_one_all_is_kept() {
        let mut scene = Scene::new(&["result.flow.mean", "result.flow.raw", "result.flower.mean", "log.flow"]);
        assert_eq!(scene.sweep().again, None);
        scene.keep("result.*", 100);
        scene.keep("result.flow.*", 10);
        scene.keep("result.flow.mean", 1_000);
        for _ in 0..3 {
            scene.arrive();
        }
        scene.sweep();
        scene.now += 10 * HOUR;
        // In steps: devices' records wait while one is made.
        assert_eq!(scene.sweep(), Swept { dropped: 2, again: Some(Duration::ZERO) });
        assert_eq!(scene.sweep().dropped, 1);
        assert_eq!(scene.left(), [3, 0, 3, 3]);
        scene.now += 90 * HOUR;
        while scene.sweep().again == Some(Duration::ZERO) {}
        assert_eq!(scene.left(), [3, 0, 0, 3]);
    }

    #[test]
    fn a_rule_that_could_mean_nothing_is_none() {
        for text in [
            "result.*",
            "result.flow.*",
            "result.flow.mean",
            "log.*",
            "log*",
            "trap.flow",
            "publish.a/b",
            "result.flow.m*",
        ] {
            assert_eq!(text.parse::<Streams>().unwrap().to_string(), text);
        }
        for text in ["", "*", "flow.mean", "result", "res*", "result.**", "result.*.mean", "log.a\nb"] {
            assert!(text.parse::<Streams>().is_err(), "{text}");
        }
    }
}
