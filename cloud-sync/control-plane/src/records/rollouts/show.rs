//! Rollouts as they are looked at.

use std::collections::BTreeMap;

use holm_core::Timestamp;
use rusqlite::{Connection, params};

use super::super::{Records, signed, unsigned};
use super::{COLUMNS, Change, Rollout, RolloutId, load, of_row};
use crate::CloudError;
use crate::error::sql;
use crate::rollouts::{Plan, Standing, State};

/// Events that are shown.
const SHOWN: u32 = 100;

/// A rollout with its figures.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Overview {
    pub(crate) id: RolloutId,
    pub(crate) function: String,
    pub(crate) change: Change,
    /// The change for people.
    pub(crate) what: String,
    pub(crate) group: Option<String>,
    pub(crate) operator: String,
    pub(crate) why: Option<String>,
    pub(crate) made: Timestamp,
    pub(crate) updated: Timestamp,
    pub(crate) state: State,
    /// Why it is where it is.
    pub(crate) reason: Option<String>,
    /// From 1.
    pub(crate) stage: usize,
    /// When the next stage begins, if nothing comes between.
    pub(crate) soaks_until: Option<Timestamp>,
    pub(crate) plan: Plan,
    /// Devices by how they stand, in all and by stage.
    pub(crate) devices: u64,
    pub(crate) counts: BTreeMap<Standing, u64>,
    pub(crate) stages: Vec<StageCounts>,
    /// The last ones, the oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) events: Vec<Event>,
}

/// A stage with its figures.
#[derive(Debug, serde::Serialize)]
pub(crate) struct StageCounts {
    pub(crate) select: String,
    pub(crate) devices: u64,
    pub(crate) counts: BTreeMap<Standing, u64>,
}

/// What happened.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Event {
    /// Goes up.
    pub(crate) id: i64,
    pub(crate) time: Timestamp,
    pub(crate) text: String,
}

/// A device in a rollout.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Member {
    pub(crate) thing: String,
    /// From 1.
    pub(crate) stage: u64,
    pub(crate) standing: Standing,
    pub(crate) generation: Option<u64>,
    /// Versions.
    pub(crate) before: Option<String>,
    pub(crate) wanted: Option<String>,
    pub(crate) told: Option<Timestamp>,
    pub(crate) updated: Timestamp,
    pub(crate) phase: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
}

impl Records {
    /// One rollout.
    pub(crate) async fn rollout(&self, id: RolloutId) -> Result<Option<Overview>, CloudError> {
        self.read(move |connection| {
            let Some(rollout) = load(connection, id)? else { return Ok(None) };
            let events = events(connection, id)?;
            overview(connection, rollout, events).map(Some)
        })
        .await
    }

    /// Rollouts, the latest first, of a state and a function or of any, before one.
    pub(crate) async fn rollouts(
        &self,
        state: Option<State>,
        function: Option<String>,
        before: Option<RolloutId>,
        limit: usize,
    ) -> Result<Vec<Overview>, CloudError> {
        self.read(move |connection| {
            let action = "read the rollouts";
            let statement = format!(
                "SELECT {COLUMNS} FROM rollout WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR function = ?2) \
                 AND (?3 IS NULL OR number < ?3) ORDER BY number DESC LIMIT ?4"
            );
            let mut statement = connection.prepare_cached(&statement).map_err(sql(action))?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let values = params![state.map(State::as_str), function, before.map(|id| signed(id.0)), limit];
            let rows = statement.query_map(values, |row| Ok(of_row(row))).map_err(sql(action))?;
            let rollouts = rows.collect::<Result<Vec<_>, _>>().map_err(sql(action))?;
            rollouts.into_iter().map(|rollout| overview(connection, rollout?, Vec::new())).collect()
        })
        .await
    }

    /// Devices of a rollout by name, after one, of one standing or of any.
    pub(crate) async fn rollout_members(
        &self,
        id: RolloutId,
        standing: Option<Standing>,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<Member>, CloudError> {
        self.read(move |connection| {
            let action = "read the devices of a rollout";
            let statement = "SELECT d.name, r.stage, r.state, r.generation, json_extract(r.before, '$.version'), \
                             json_extract(r.wanted, '$.version'), r.told, r.updated, r.phase, r.reason, r.message \
                             FROM rollout_device r JOIN device d ON d.id = r.device WHERE r.rollout = ?1 \
                             AND d.name > ?2 AND (?3 IS NULL OR r.state = ?3) ORDER BY d.name LIMIT ?4";
            let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let values = params![signed(id.0), after.unwrap_or_default(), standing.map(Standing::as_str), limit];
            let rows = statement
                .query_map(values, |row| {
                    Ok(Member {
                        thing: row.get(0)?,
                        stage: unsigned(row.get(1)?) + 1,
                        standing: Standing::parse(&row.get::<_, String>(2)?).unwrap_or(Standing::Unknown),
                        generation: row.get::<_, Option<i64>>(3)?.map(unsigned),
                        before: row.get(4)?,
                        wanted: row.get(5)?,
                        told: row.get::<_, Option<i64>>(6)?.map(Timestamp),
                        updated: Timestamp(row.get(7)?),
                        phase: row.get(8)?,
                        reason: row.get(9)?,
                        message: row.get(10)?,
                    })
                })
                .map_err(sql(action))?;
            rows.collect::<Result<_, _>>().map_err(sql(action))
        })
        .await
    }
}

fn overview(connection: &Connection, rollout: Rollout, events: Vec<Event>) -> Result<Overview, CloudError> {
    let action = "count the devices of a rollout";
    let Rollout { id, function, change, plan, group, operator, why, made, state, stage, settled, reason, updated } =
        rollout;
    let count = |select: &String| StageCounts { select: select.clone(), devices: 0, counts: BTreeMap::new() };
    let mut stages: Vec<StageCounts> = plan.stages.iter().map(ToString::to_string).map(|text| count(&text)).collect();
    let (mut devices, mut counts) = (0, BTreeMap::new());
    let statement = "SELECT stage, state, count(*) FROM rollout_device WHERE rollout = ?1 GROUP BY stage, state";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let mut rows = statement.query([signed(id.0)]).map_err(sql(action))?;
    while let Some(row) = rows.next().map_err(sql(action))? {
        let of: u32 = row.get(0).map_err(sql(action))?;
        let standing: String = row.get(1).map_err(sql(action))?;
        let number = unsigned(row.get(2).map_err(sql(action))?);
        let Some(standing) = Standing::parse(&standing) else { continue };
        devices += number;
        *counts.entry(standing).or_default() += number;
        if let Some(stage) = stages.get_mut(of as usize) {
            stage.devices += number;
            *stage.counts.entry(standing).or_default() += number;
        }
    }
    let soaks = settled.filter(|_| matches!(state, State::Running | State::Paused));
    let soaks_until = soaks.map(|since| Timestamp(since.saturating_add(i64::from(plan.soak_s) * 1_000)));
    Ok(Overview {
        id,
        function: function.to_string(),
        what: change.words(),
        change,
        group,
        operator,
        why,
        made,
        updated,
        state,
        reason,
        stage: stage + 1,
        soaks_until,
        plan,
        devices,
        counts,
        stages,
        events,
    })
}

fn events(connection: &Connection, id: RolloutId) -> Result<Vec<Event>, CloudError> {
    let action = "read what happened to a rollout";
    let statement = "SELECT id, time, text FROM (SELECT id, time, text FROM rollout_event WHERE rollout = ?1 \
                     ORDER BY id DESC LIMIT ?2) ORDER BY id";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let rows = statement
        .query_map(params![signed(id.0), SHOWN], |row| {
            Ok(Event { id: row.get(0)?, time: Timestamp(row.get(1)?), text: row.get(2)? })
        })
        .map_err(sql(action))?;
    rows.collect::<Result<_, _>>().map_err(sql(action))
}
