//! Rollouts: one change of one function, to many devices, stage by stage.
//!
//! # Invariants
//!
//! 1. All that a rollout knows is in these tables and in the jobs. Whoever looks takes one step from there, in one transaction:
//!    what devices have said is written down ([`settle`]), then one decision is made ([`crate::rollouts::decide`]) and carried out,
//!    jobs included. A process that is killed between two steps goes on as if nothing had happened.
//! 2. How a device stands is by its own word. One that is not heard of is unknown, and no success.
//! 3. Two rollouts that are active never have a device and a function in common.
//! 4. What a device had confirmed before is written down in the transaction that tells it something else.
//!
//! # How it ends badly
//!
//! An abort tells every device that was told, whatever it has said since, to run the function as it was before, if what it shall run
//! now is still this rollout's doing. The device keeps that bundle, and goes back to it without a permit and without a network
//! once it knows. So an abort that races a device's confirmation ends right: the new job counts, whichever came first.

mod begin;
mod change;
mod newcomer;
mod settle;
mod show;
mod step;

use holm_core::{FunctionName, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

pub(crate) use begin::{Begin, Begun, Preview, Target, Wish};
pub(super) use begin::{judge, next_number, underway};
use change::Change;
pub(super) use newcomer::runs_in;
pub(crate) use show::{Member, Overview as RolloutOverview};
pub(crate) use step::Stepped;

use super::{Records, Refused, signed, unsigned};
use crate::CloudError;
use crate::error::sql;
use crate::rollouts::{Plan, State};

/// Events that are kept of one rollout.
const EVENTS: u32 = 1_000;

/// A rollout's number as people see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RolloutId(pub(super) u64);

impl RolloutId {
    /// The one that begins after so many others.
    pub(super) fn after(self, others: usize) -> Self {
        Self(self.0.saturating_add(u64::try_from(others).unwrap_or(u64::MAX)))
    }
}

impl std::fmt::Display for RolloutId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "r-{}", self.0)
    }
}

impl std::str::FromStr for RolloutId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix("r-").and_then(|number| number.parse().ok());
        number.map(Self).ok_or_else(|| format!("`{text}` is not a rollout: they are called r-1, r-2, ..."))
    }
}

impl serde::Serialize for RolloutId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A row.
#[derive(Debug, Clone)]
struct Rollout {
    id: RolloutId,
    function: FunctionName,
    change: Change,
    plan: Plan,
    group: Option<String>,
    operator: String,
    why: Option<String>,
    made: Timestamp,
    state: State,
    stage: usize,
    settled: Option<i64>,
    reason: Option<String>,
    updated: Timestamp,
}

const COLUMNS: &str =
    "number, function, change, plan, \"group\", operator, why, made, state, stage, settled, reason, updated";

impl Records {
    /// Rollouts that have something to do yet, the oldest first: those that are active, and those with devices that have not ended.
    pub(crate) async fn open_rollouts(&self) -> Result<Vec<RolloutId>, CloudError> {
        self.read(|connection| {
            let action = "read the rollouts";
            let statement = "SELECT number FROM rollout r WHERE state IN ('running', 'aborting') OR EXISTS \
                             (SELECT * FROM rollout_device d WHERE d.rollout = r.number \
                             AND d.state IN ('queued', 'unknown', 'working', 'timed-out', 'undoing')) ORDER BY number";
            let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
            let rows = statement.query_map([], |row| Ok(RolloutId(unsigned(row.get(0)?)))).map_err(sql(action))?;
            rows.collect::<Result<_, _>>().map_err(sql(action))
        })
        .await
    }

    /// An operator's word: on, or not, or back.
    pub(crate) async fn turn_rollout(
        &self,
        id: RolloutId,
        to: State,
        why: Option<String>,
        operator: String,
        now: Timestamp,
    ) -> Result<Result<(), Refused>, CloudError> {
        self.write(move |connection| {
            let Some(rollout) = load(connection, id)? else { return Ok(Err(Refused::NoSuchRollout)) };
            if rollout.state == to || (to == State::Aborting && rollout.state == State::Aborted) {
                return Ok(Ok(()));
            }
            let may = match to {
                State::Running => rollout.state == State::Paused,
                State::Paused => rollout.state == State::Running,
                // Also what is completed can be taken back: it is the same work.
                State::Aborting => rollout.state != State::Aborted,
                State::Aborted | State::Completed => false,
            };
            if !may {
                let sentence = format!("{id} is {}, and cannot become {}", rollout.state.as_str(), to.as_str());
                return Ok(Err(Refused::Conflict(sentence)));
            }
            if to == State::Aborting
                && rollout.state == State::Completed
                && let Some(other) = rival(connection, &rollout)?
            {
                let sentence = format!(
                    "{other} has devices of {id} and {}, and has not ended: `holm rollout abort {other}` first",
                    rollout.function
                );
                return Ok(Err(Refused::Conflict(sentence)));
            }
            let what = match to {
                State::Running => "resumed",
                State::Paused => "paused",
                _ => "aborted",
            };
            let because = why.map(|why| format!(": {why}")).unwrap_or_default();
            let reason = format!("{what} by {operator}{because}");
            turn(connection, id, to, &reason, now)?;
            super::tokens::audit(connection, now, &operator, &format!("{what} a rollout"), &id.to_string())?;
            Ok(Ok(()))
        })
        .await
    }
}

/// Another rollout of the function that is active and has some of its devices: invariant 3 holds for what comes back as well.
fn rival(connection: &Connection, rollout: &Rollout) -> Result<Option<RolloutId>, CloudError> {
    let statement = "SELECT min(r.number) FROM rollout r JOIN rollout_device o ON o.rollout = r.number \
                     JOIN rollout_device m ON m.device = o.device WHERE m.rollout = ?1 AND r.number IS NOT ?1 \
                     AND r.function = ?2 AND r.state IN ('running', 'paused', 'aborting')";
    let other: Option<i64> = connection
        .query_row(statement, params![signed(rollout.id.0), rollout.function.as_str()], |row| row.get(0))
        .map_err(sql("read the rollouts"))?;
    Ok(other.map(|number| RolloutId(unsigned(number))))
}

fn load(connection: &Connection, id: RolloutId) -> Result<Option<Rollout>, CloudError> {
    let action = "read a rollout";
    let statement = format!("SELECT {COLUMNS} FROM rollout WHERE number = ?1");
    let mut statement = connection.prepare_cached(&statement).map_err(sql(action))?;
    let found = statement.query_row([signed(id.0)], |row| Ok(of_row(row))).optional().map_err(sql(action))?;
    found.transpose()
}

fn of_row(row: &Row<'_>) -> Result<Rollout, CloudError> {
    let action = "read a rollout";
    let bad = |problem: String| CloudError::Row { what: "rollout", problem };
    let text = |index: usize| row.get::<_, String>(index).map_err(sql(action));
    let number = |index: usize| row.get::<_, i64>(index).map_err(sql(action));
    let optional = |index: usize| row.get::<_, Option<String>>(index).map_err(sql(action));
    let state = text(8)?;
    let known = State::words().into_iter().find(|(word, _)| *word == state).map(|(_, state)| state);
    Ok(Rollout {
        id: RolloutId(unsigned(number(0)?)),
        function: FunctionName::new(&text(1)?).map_err(|error| bad(error.to_string()))?,
        change: serde_json::from_str(&text(2)?).map_err(|error| bad(error.to_string()))?,
        plan: serde_json::from_str(&text(3)?).map_err(|error| bad(error.to_string()))?,
        group: optional(4)?,
        operator: text(5)?,
        why: optional(6)?,
        made: Timestamp(number(7)?),
        state: known.ok_or_else(|| bad(format!("the state `{state}`")))?,
        stage: usize::try_from(number(9)?).unwrap_or_default(),
        settled: row.get(10).map_err(sql(action))?,
        reason: optional(11)?,
        updated: Timestamp(number(12)?),
    })
}

/// Another state, and why.
fn turn(connection: &Connection, id: RolloutId, to: State, reason: &str, now: Timestamp) -> Result<(), CloudError> {
    let statement = "UPDATE rollout SET state = ?2, reason = ?3, updated = ?4 WHERE number = ?1";
    let values = params![signed(id.0), to.as_str(), reason, now.0];
    connection.execute(statement, values).map_err(sql("turn a rollout"))?;
    event(connection, id, reason, now)
}

/// Pauses all that go on. Returns how many.
pub(super) fn pause_all(connection: &Connection, now: Timestamp) -> Result<u64, CloudError> {
    let action = "find rollouts that go on";
    let statement = "SELECT number FROM rollout WHERE state = ?1";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let running = statement.query_map([State::Running.as_str()], |row| row.get::<_, i64>(0)).map_err(sql(action))?;
    let running: Vec<i64> = running.collect::<Result<_, _>>().map_err(sql(action))?;
    for number in &running {
        let reason = "paused: this control plane came out of a backup; see what devices run, then resume or abort it";
        turn(connection, RolloutId(unsigned(*number)), State::Paused, reason, now)?;
    }
    Ok(running.len() as u64)
}

/// Notes what happened, for people. Part of the change's transaction.
fn event(connection: &Connection, id: RolloutId, text: &str, now: Timestamp) -> Result<(), CloudError> {
    let action = "note what happened to a rollout";
    let statement = "INSERT INTO rollout_event (rollout, time, text) VALUES (?1, ?2, ?3)";
    connection.execute(statement, params![signed(id.0), now.0, text]).map_err(sql(action))?;
    let old = "DELETE FROM rollout_event WHERE rollout = ?1 AND id <= \
               (SELECT id FROM rollout_event WHERE rollout = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)";
    connection.execute(old, params![signed(id.0), EVENTS]).map(|_| ()).map_err(sql(action))
}
