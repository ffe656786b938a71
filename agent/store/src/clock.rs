//! The writer's clock, and what becomes of the times in the database when it is set.
//!
//! Rows are dated by the time of day, and by that they expire and come due. A board without a battery runs in 1970 until
//! it hears the time; then everything that it has written would be half a century old and go. So the writer holds the time
//! of day against a clock that is never set, before anything expires, and where the time of day has jumped, it dates anew
//! what was written before: every age, and everybody's wait, stays what it was.

use holm_core::{Jump, JumpWatch};
use rusqlite::Connection;
use rustix::time::{ClockId, clock_gettime};

use crate::{Reading, StoreError, sql};

/// Not the clock of `Instant`, which stands still while a machine sleeps: waking up would look like a jump.
#[cfg(target_os = "linux")]
const UPTIME: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const UPTIME: ClockId = ClockId::Monotonic;

/// Reads the clocks and notices when the time of day was set.
pub(crate) struct Clock {
    read: Box<dyn Fn() -> Reading + Send>,
    watch: JumpWatch,
}

impl Clock {
    pub(crate) fn new(read: impl Fn() -> Reading + Send + 'static) -> Self {
        let watch = JumpWatch::new(read());
        Self { read: Box::new(read), watch }
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
        self.watch.jump(now)
    }

    /// What was written before the jump is dated anew.
    pub(crate) fn settle(&mut self, jump: &Jump) {
        self.watch.settle(jump);
    }
}

/// Dates anew what [`Jump::old`] says.
///
/// Left alone: the times of sessions in memory, and when schedules last fired, which others keep.
pub(crate) fn shift(jump: &Jump, connection: &Connection) -> Result<(), StoreError> {
    let (from, to) = jump.old();
    // Some times mean "never": SQLite would make a float of a sum beyond them.
    let never = i64::MAX - jump.by.max(0);
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
                [jump.by, from, to],
            )
            .map_err(sql("date rows anew"))?;
    }
    rows += connection
        .execute(
            "UPDATE dead SET buried = buried + ?1, expires = min(expires, ?4) + ?1 WHERE buried BETWEEN ?2 AND ?3",
            [jump.by, from, to, never],
        )
        .map_err(sql("date dead letters anew"))?;
    // Whoever wrote it: what waits goes on waiting for as long as it would have, and what is due stays due.
    rows += connection
        .execute("UPDATE inbox SET due = min(due, ?2) + ?1 WHERE due > ?3", [jump.by, never, jump.earlier()])
        .map_err(sql("bring the inbox in step"))?;
    tracing::warn!(
        rows,
        by_ms = jump.by,
        "the time of day was set; what was written before is dated anew, so that its age stays what it was"
    );
    Ok(())
}
