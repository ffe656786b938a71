//! The two tables that remember message ids, by turns.
//!
//! New ids go into one of them. Once all that the other holds is past the window, it is emptied, which costs a few pages
//! however many rows it had, and takes its turn. So an id costs its place in one tree, and nothing when it goes: an index
//! by age would write as many pages again for every id, and a deletion of each row once more.
//!
//! An id is in its table for up to twice the window; [`Turns::horizon`] says which of them still count. Which table's turn
//! it is is not written down: it is the one with the newest id, so that a release which knows only the first may write too.

use std::time::Duration;

use rusqlite::{Connection, params};

use crate::{DedupeKey, StoreError, apply, sql};

/// Who has the turn, and who rests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turns {
    filling: Turn,
    resting: Turn,
    /// Ids that were seen before this are forgotten, in milliseconds since 1970.
    horizon: i64,
}

/// One of the tables.
#[derive(Debug, Clone, Copy)]
struct Turn {
    table: &'static str,
    remember: &'static str,
    rows: u64,
    /// When its newest id was seen, or later.
    newest: i64,
}

/// An id that is there and forgotten is seen for the first time.
macro_rules! remember {
    ($table:literal) => {
        concat!(
            "INSERT INTO ",
            $table,
            " (key, seen) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET seen = excluded.seen WHERE seen < ?3"
        )
    };
}

impl Turns {
    /// Counts what is there. Reads both tables.
    pub(crate) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let first = Turn::load(connection, "dedupe", remember!("dedupe"))?;
        let second = Turn::load(connection, "dedupe_2", remember!("dedupe_2"))?;
        let (filling, resting) = if second.newest > first.newest { (second, first) } else { (first, second) };
        Ok(Self { filling, resting, horizon: i64::MIN })
    }

    /// Looks at the dates again, which have changed. Until [`turn`](Self::turn), nothing is forgotten.
    pub(crate) fn reload(&mut self, connection: &Connection) -> Result<(), StoreError> {
        self.horizon = i64::MIN;
        for turn in [&mut self.filling, &mut self.resting] {
            *turn = Turn::load(connection, turn.table, turn.remember)?;
        }
        Ok(())
    }

    /// Ids that were seen before this do not count.
    pub(crate) fn horizon(&self) -> i64 {
        self.horizon
    }

    /// Sets the horizon.
    pub(crate) fn look(&mut self, now: i64, window: Duration) {
        self.horizon = now.saturating_sub(i64::try_from(window.as_millis()).unwrap_or(i64::MAX));
    }

    /// Remembers an id.
    pub(crate) fn remember(&mut self, connection: &Connection, key: &DedupeKey, seen: i64) -> Result<(), StoreError> {
        self.filling.newest = self.filling.newest.max(seen);
        apply::run(connection, "remember a message id", self.filling.remember, params![key.bytes(), seen, self.horizon])
    }

    /// A transaction that has remembered so many ids is committed.
    pub(crate) fn grew(&mut self, rows: u64) {
        self.filling.rows += rows;
    }

    /// Forgets what is past the window, and has the tables change places where that is due: when nothing in the resting
    /// one counts any more, or when the other has `most` rows. Answers with how many ids went before their time.
    pub(crate) fn turn(
        &mut self,
        connection: &Connection,
        now: i64,
        window: Duration,
        most: u64,
    ) -> Result<u64, StoreError> {
        self.look(now, window);
        let spent = self.resting.newest < self.horizon;
        let full = self.filling.rows >= most;
        if self.filling.rows == 0 || !(spent || full) {
            return Ok(0);
        }
        let early = if spent { 0 } else { self.resting.rows };
        if self.resting.rows > 0 {
            let statement = format!("DELETE FROM {}", self.resting.table);
            connection.execute(&statement, []).map_err(sql("forget old message ids"))?;
        }
        self.resting = Turn { rows: 0, newest: i64::MIN, ..self.resting };
        std::mem::swap(&mut self.filling, &mut self.resting);
        Ok(early)
    }
}

impl Turn {
    fn load(connection: &Connection, table: &'static str, remember: &'static str) -> Result<Self, StoreError> {
        let statement =
            format!("SELECT count(*), coalesce(max(iif(typeof(seen) = 'integer', seen, NULL)), ?1) FROM {table}");
        let (rows, newest): (i64, i64) = connection
            .query_row(&statement, [i64::MIN], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(sql("count the message ids"))?;
        Ok(Self { table, remember, rows: u64::try_from(rows).unwrap_or_default(), newest })
    }
}
