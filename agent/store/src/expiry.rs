//! What goes by itself: rows past their age, and the oldest of the tables that have a bound.
//!
//! It happens in transactions of its own, before the group and in small batches. In the group's, a database that is full
//! would never be relieved, since the group's writes fail first; and after a month in a drawer, the first event would
//! wait until everything that has aged was gone.

use std::time::Duration;

use rusqlite::Connection;

use crate::book::{self, OutboxBook};
use crate::turns::Turns;
use crate::{Lane, OutboxCaps, StoreError, sql};

/// Rows of a table that go in one transaction: a moment's work, so that nobody waits long behind it.
const BATCH: u64 = 500;

/// How long rows are kept, and how many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) caps: OutboxCaps,
    pub(crate) dedupe_window: Duration,
    pub(crate) dedupe_rows: u64,
    pub(crate) dead_rows: u64,
}

/// What the tables hold that have a bound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) ids: Turns,
    /// Rows of dead letters.
    pub(crate) dead: u64,
}

impl Held {
    pub(crate) fn count(connection: &Connection) -> Result<Self, StoreError> {
        let dead: i64 = connection
            .query_row("SELECT count(*) FROM dead", [], |row| row.get(0))
            .map_err(sql("count the dead letters"))?;
        Ok(Self { ids: Turns::load(connection)?, dead: u64::try_from(dead).unwrap_or_default() })
    }
}

/// What one batch has dropped.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Dropped {
    /// There may be more.
    pub(crate) more: bool,
    /// Dead letters that went before their time.
    pub(crate) dead: u64,
    /// Message ids that were forgotten before their time.
    pub(crate) ids: u64,
}

/// Drops one batch of each table.
pub(crate) fn expire(
    connection: &Connection,
    book: &mut OutboxBook,
    bounds: &Bounds,
    held: &mut Held,
    now: i64,
) -> Result<Dropped, StoreError> {
    let before = |age: Duration| now.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    // Those that only free space come first: a gap record of the outbox may need some.
    let ids = held.ids.turn(connection, now, bounds.dedupe_window, bounds.dedupe_rows)?;
    let old_dead = delete(
        connection,
        "drop old dead letters",
        "DELETE FROM dead WHERE id IN (SELECT id FROM dead WHERE expires < ?1 LIMIT ?2)",
        &[&now, &(BATCH as i64)],
    )?;
    held.dead = held.dead.saturating_sub(old_dead);
    let dead = delete(
        connection,
        "drop dead letters",
        "DELETE FROM dead WHERE id IN (SELECT id FROM dead ORDER BY id LIMIT ?1)",
        &[&beyond(held.dead, bounds.dead_rows)],
    )?;
    held.dead = held.dead.saturating_sub(dead);
    let mut more = [old_dead, dead].contains(&BATCH);
    for (lane, age) in [(Lane::Results, bounds.caps.results_age), (Lane::Logs, bounds.caps.logs_age)] {
        more |= age_out(connection, book, lane, before(age), now)?;
    }
    Ok(Dropped { more, dead, ids })
}

/// Evicts the rows of a lane that were made before `before`, at most a batch. `true`: there may be more.
fn age_out(
    connection: &Connection,
    book: &mut OutboxBook,
    lane: Lane,
    before: i64,
    now: i64,
) -> Result<bool, StoreError> {
    for _ in 0..BATCH {
        // A time that cannot be read is as old as can be: the row must not keep those behind it.
        let oldest: Option<(i64, i64)> = connection
            .prepare_cached("SELECT id, created FROM outbox WHERE lane = ?1 ORDER BY id LIMIT 1")
            .and_then(|mut s| {
                s.query_map([lane.number()], |row| Ok((row.get(0)?, row.get(1).unwrap_or(i64::MIN))))?
                    .next()
                    .transpose()
            })
            .map_err(sql("look for old rows"))?;
        match oldest {
            Some((id, created)) if created < before => book::evict(connection, book, id, "age", now)?,
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// How many rows of a table are to go, at most a batch.
fn beyond(held: u64, bound: u64) -> i64 {
    held.saturating_sub(bound).min(BATCH) as i64
}

fn delete(
    connection: &Connection,
    action: &'static str,
    statement: &str,
    parameters: &[&dyn rusqlite::ToSql],
) -> Result<u64, StoreError> {
    let rows = connection
        .prepare_cached(statement)
        .and_then(|mut statement| statement.execute(parameters))
        .map_err(sql(action))?;
    Ok(rows as u64)
}
