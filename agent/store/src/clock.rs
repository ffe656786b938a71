//! The writer's clock, and what becomes of the times in the database when it is set.
//!
//! Rows are dated by the time of day, and by that they expire and come due. A board without a battery runs in 1970 until
//! it hears the time; then everything that it has written would be half a century old and go. So the writer holds the time
//! of day against a clock that is never set, before anything expires, and where the time of day has jumped, it dates anew
//! what was written before: every age, and everybody's wait, stays what it was.

use std::time::Duration;

use rusqlite::Connection;
use rustix::time::{ClockId, clock_gettime};

use crate::{StoreError, sql};

/// A time of day that is off by less, in milliseconds, is corrected without anything being dated anew. Not less than the
/// time between two looks, so that what was written since a jump forward, in the new time, is never taken for old.
const SLACK: i64 = 60_000;

/// Times before this are those of a board that does not know the time: 2024-01-01, before any release.
const PLAUSIBLE: i64 = 1_704_067_200_000;

/// Not the clock of `Instant`, which stands still while a machine sleeps: waking up would look like a jump.
#[cfg(target_os = "linux")]
const UPTIME: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const UPTIME: ClockId = ClockId::Monotonic;

/// What the clocks show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The time of day, in milliseconds since 1970. It may be set, in either direction.
    pub wall: i64,
    /// The time since some start. It is never set.
    pub uptime: Duration,
}

/// Reads the clocks and notices when the time of day was set.
pub(crate) struct Clock {
    read: Box<dyn Fn() -> Reading + Send>,
    /// When the store was opened, by the time of day as it is now.
    began: i64,
    /// When the time of day was last found to be right, or made the measure.
    last: Reading,
}

/// The time of day was set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Jump {
    /// By how many milliseconds.
    by: i64,
    /// What it would be now if it had not been set.
    expected: i64,
    /// When the store was opened, by the old time.
    began: i64,
    /// What it is now.
    now: Reading,
}

impl Clock {
    pub(crate) fn new(read: impl Fn() -> Reading + Send + 'static) -> Self {
        let last = read();
        Self { read: Box::new(read), began: last.wall, last }
    }

    /// The clocks of the system.
    pub(crate) fn of_system() -> Self {
        Self::new(|| Reading { wall: crate::now(), uptime: clock_gettime(UPTIME).try_into().unwrap_or_default() })
    }

    pub(crate) fn now(&self) -> Reading {
        (self.read)()
    }

    /// Whether the time of day was set since it was last [settled](Self::settle) with.
    pub(crate) fn jump(&mut self, now: Reading) -> Option<Jump> {
        let passed = now.uptime.saturating_sub(self.last.uptime);
        let expected = self.last.wall.saturating_add(i64::try_from(passed.as_millis()).unwrap_or(i64::MAX));
        let by = now.wall.saturating_sub(expected);
        if by.saturating_abs() <= SLACK {
            self.last = now;
            return None;
        }
        Some(Jump { by, expected, began: self.began, now })
    }

    /// What was written before the jump is dated anew.
    pub(crate) fn settle(&mut self, jump: &Jump) {
        self.began = self.began.saturating_add(jump.by);
        self.last = jump.now;
    }
}

impl Jump {
    /// Now, by the old time or by the new one, whichever is earlier: no row is older than it seems by this.
    pub(crate) fn earlier(&self) -> i64 {
        self.expected.min(self.now.wall)
    }

    /// Dates anew what was written in this run, or by anybody who did not know the time: how old that is, nobody knows,
    /// and the node may have been started again without the board.
    ///
    /// Left alone: the times of sessions in memory, and when schedules last fired, which others keep.
    pub(crate) fn shift(&self, connection: &Connection) -> Result<(), StoreError> {
        let (from, to) =
            if self.expected < PLAUSIBLE { (i64::MIN, PLAUSIBLE - 1) } else { (self.began, self.expected) };
        // Some times mean "never": SQLite would make a float of a sum beyond them.
        let never = i64::MAX - self.by.max(0);
        let mut rows = 0;
        // By the times of the inbox, the next start will see whether the clock was set back meanwhile.
        for (table, column) in [
            ("dedupe", "seen"),
            ("dedupe_2", "seen"),
            ("outbox", "created"),
            ("gap", "at"),
            ("session", "away"),
            ("inbox", "time"),
        ] {
            rows += connection
                .execute(
                    &format!("UPDATE {table} SET {column} = {column} + ?1 WHERE {column} BETWEEN ?2 AND ?3"),
                    [self.by, from, to],
                )
                .map_err(sql("date rows anew"))?;
        }
        rows += connection
            .execute(
                "UPDATE dead SET buried = buried + ?1, expires = min(expires, ?4) + ?1 WHERE buried BETWEEN ?2 AND ?3",
                [self.by, from, to, never],
            )
            .map_err(sql("date dead letters anew"))?;
        // Whoever wrote it: what waits goes on waiting for as long as it would have, and what is due stays due.
        rows += connection
            .execute("UPDATE inbox SET due = min(due, ?2) + ?1 WHERE due > ?3", [self.by, never, self.earlier()])
            .map_err(sql("bring the inbox in step"))?;
        tracing::warn!(
            rows,
            by_ms = self.by,
            "the time of day was set; what was written before is dated anew, so that its age stays what it was"
        );
        Ok(())
    }
}
