//! One step of a rollout, in one transaction: what devices have said is written down, one decision is made, and carried out.

use std::sync::Arc;

use holm_core::Timestamp;
use holm_protocol::{DeploymentPolicy, DesiredFunction, JobId, NextJob, ThingName};
use rusqlite::{Connection, params};

use super::super::desired::{self, NextState};
use super::super::{Records, Refused, signed};
use super::settle::settle;
use super::{Rollout, RolloutId, event, load, turn};
use crate::CloudError;
use crate::error::sql;
use crate::rollouts::{Counts, Decision, Standing, State, View, decide};
use crate::signing::Signing;

/// Devices that are told something in one transaction: each is a signature and some kilobytes, and devices' records wait meanwhile.
const BATCH: u32 = 100;

/// A device that could not go back is told again after so many milliseconds, or earlier where less counts as silence.
const REMIND_AFTER: i64 = 600_000;

/// Whether what a device `r` of a rollout was told last has ended, and not well.
const COULD_NOT: &str = "EXISTS (SELECT * FROM job j WHERE j.device = r.device AND j.generation = r.generation \
                         AND j.status IN ('FAILED', 'REJECTED'))";

/// "Within the last minute", in milliseconds.
const MINUTE: i64 = 60_000;

/// What a step has done.
#[derive(Debug, Default)]
pub(crate) struct Stepped {
    /// The bells to ring.
    pub(crate) bells: Vec<(ThingName, NextJob)>,
    /// There is another step to take at once.
    pub(crate) again: bool,
}

/// A device to tell something.
struct Member {
    row: i64,
    thing: ThingName,
    before: Option<String>,
    wanted: Option<String>,
}

impl Records {
    /// Takes one step of a rollout. `live` tells whether a device is connected.
    pub(crate) async fn step_rollout(
        &self,
        id: RolloutId,
        signing: Arc<Signing>,
        live: impl Fn(&str) -> bool + Send + 'static,
        now: Timestamp,
    ) -> Result<Stepped, CloudError> {
        self.write(move |connection| step(connection, id, &signing, &live, now)).await
    }
}

fn step(
    connection: &Connection,
    id: RolloutId,
    signing: &Signing,
    live: &dyn Fn(&str) -> bool,
    now: Timestamp,
) -> Result<Stepped, CloudError> {
    let Some(rollout) = load(connection, id)? else { return Ok(Stepped::default()) };
    settle(connection, &rollout, now)?;
    let mut stepped = Stepped::default();
    match rollout.state {
        State::Running => run(connection, &rollout, signing, live, now, &mut stepped)?,
        State::Aborting => {
            undo(connection, &rollout, signing, now, &mut stepped)?;
            remind(connection, &rollout, signing, now, &mut stepped)?;
        }
        State::Aborted => remind(connection, &rollout, signing, now, &mut stepped)?,
        State::Paused | State::Completed => {}
    }
    Ok(stepped)
}

fn run(
    connection: &Connection,
    rollout: &Rollout,
    signing: &Signing,
    live: &dyn Fn(&str) -> bool,
    now: Timestamp,
    stepped: &mut Stepped,
) -> Result<(), CloudError> {
    let id = rollout.id;
    join(connection, rollout, now)?;
    let counts = counts(connection, rollout)?;
    let view = View {
        plan: &rollout.plan,
        stage: rollout.stage,
        counts: &counts,
        soaked_ms: rollout.settled.map(|since| now.0.saturating_sub(since)),
        told: told(connection, rollout, now)?,
        live: connected(connection, rollout, live)?,
    };
    let number = rollout.stage + 1;
    let stages = rollout.plan.stages.len();
    let mut reached = |text: String, stage: usize, settled: Option<i64>| -> Result<(), CloudError> {
        stepped.again = true;
        let statement = "UPDATE rollout SET stage = ?2, settled = ?3, reason = NULL, updated = ?4 WHERE number = ?1";
        let stage = i64::try_from(stage).unwrap_or(i64::MAX);
        connection.execute(statement, params![signed(id.0), stage, settled, now.0]).map_err(sql("step a rollout"))?;
        event(connection, id, &text, now)
    };
    match decide(&view) {
        Decision::Wait(why) => wait(connection, rollout, &why, now)?,
        Decision::Soak => {
            let text = format!("stage {number} of {stages} has passed, and is looked at for {} s", rollout.plan.soak_s);
            reached(text, rollout.stage, Some(now.0))?;
        }
        Decision::Unsettle => {
            reached(format!("stage {number}: a device came late"), rollout.stage, None)?;
        }
        Decision::Advance => reached(format!("stage {} of {stages} begins", number + 1), rollout.stage + 1, None)?,
        Decision::Complete => {
            turn(connection, id, State::Completed, "every stage has passed", now)?;
        }
        Decision::Abort(why) => {
            stepped.again = true;
            turn(connection, id, State::Aborting, &why, now)?;
        }
        Decision::Tell(count) => tell(connection, rollout, count, signing, now, stepped)?,
    }
    Ok(())
}

/// Who came into the group since comes into the last stage.
fn join(connection: &Connection, rollout: &Rollout, now: Timestamp) -> Result<(), CloudError> {
    let Some(group) = &rollout.group else { return Ok(()) };
    // One that another rollout of this function has is left to that one.
    let statement = "INSERT INTO rollout_device (rollout, device, stage, state, updated) \
                     SELECT ?1, d.id, ?3, 'waiting', ?4 FROM membership m JOIN device d ON d.id = m.device \
                     WHERE m.\"group\" = ?2 AND d.status = 'active' AND NOT EXISTS \
                     (SELECT * FROM rollout_device o JOIN rollout r ON r.number = o.rollout WHERE o.device = d.id \
                     AND (r.number = ?1 OR (r.function = ?5 AND r.state IN ('running', 'paused', 'aborting'))))";
    let mut statement = connection.prepare_cached(statement).map_err(sql("step a rollout"))?;
    let last = i64::try_from(rollout.plan.stages.len().saturating_sub(1)).unwrap_or(i64::MAX);
    let values = params![signed(rollout.id.0), group, last, now.0, rollout.function.as_str()];
    let came = statement.execute(values).map_err(sql("step a rollout"))?;
    if came > 0 {
        event(connection, rollout.id, &format!("{came} devices came into the group: they are in the last stage"), now)?;
    }
    Ok(())
}

fn counts(connection: &Connection, rollout: &Rollout) -> Result<Vec<Counts>, CloudError> {
    let action = "count the devices of a rollout";
    let statement = "SELECT stage, state, count(*) FROM rollout_device WHERE rollout = ?1 GROUP BY stage, state";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let mut rows = statement.query([signed(rollout.id.0)]).map_err(sql(action))?;
    let mut counts = vec![Counts::default(); rollout.plan.stages.len()];
    while let Some(row) = rows.next().map_err(sql(action))? {
        let (stage, state): (u32, String) =
            row.get(0).and_then(|stage| Ok((stage, row.get(1)?))).map_err(sql(action))?;
        let devices: u32 = row.get(2).map_err(sql(action))?;
        if let (Some(stage), Some(standing)) = (counts.get_mut(stage as usize), Standing::parse(&state)) {
            stage.add(standing, devices);
        }
    }
    Ok(counts)
}

/// Devices that were told within the last minute.
fn told(connection: &Connection, rollout: &Rollout, now: Timestamp) -> Result<u32, CloudError> {
    let statement = "SELECT count(*) FROM rollout_device WHERE rollout = ?1 AND told > ?2";
    let mut statement = connection.prepare_cached(statement).map_err(sql("step a rollout"))?;
    statement
        .query_row([signed(rollout.id.0), now.0.saturating_sub(MINUTE)], |row| row.get(0))
        .map_err(sql("step a rollout"))
}

/// Devices of the stage that have confirmed and are connected. Looked at only while somebody waits for it.
fn connected(connection: &Connection, rollout: &Rollout, live: &dyn Fn(&str) -> bool) -> Result<u32, CloudError> {
    if rollout.settled.is_none() {
        return Ok(0);
    }
    let which = format!("r.state = 'confirmed' AND r.stage = {}", rollout.stage);
    let confirmed = members(connection, rollout, &which, u32::MAX)?;
    let connected = confirmed.iter().filter(|member| live(member.thing.as_str())).count();
    Ok(u32::try_from(connected).unwrap_or(u32::MAX))
}

/// Says why nothing happens, once.
fn wait(connection: &Connection, rollout: &Rollout, why: &str, now: Timestamp) -> Result<(), CloudError> {
    if rollout.reason.as_deref() == Some(why) {
        return Ok(());
    }
    let statement = "UPDATE rollout SET reason = ?2, updated = ?3 WHERE number = ?1";
    let values = params![signed(rollout.id.0), why, now.0];
    connection.execute(statement, values).map(|_| ()).map_err(sql("step a rollout"))
}

fn members(connection: &Connection, rollout: &Rollout, which: &str, most: u32) -> Result<Vec<Member>, CloudError> {
    let action = "read the devices of a rollout";
    let statement = format!(
        "SELECT r.device, d.name, r.before, r.wanted FROM rollout_device r JOIN device d ON d.id = r.device \
         WHERE r.rollout = ?1 AND {which} ORDER BY r.device LIMIT ?2"
    );
    let mut statement = connection.prepare_cached(&statement).map_err(sql(action))?;
    let rows = statement
        .query_map(params![signed(rollout.id.0), most], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get(3)?))
        })
        .map_err(sql(action))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(sql(action))?;
    let bad = |error: holm_protocol::ProtocolError| CloudError::Row { what: "device", problem: error.to_string() };
    rows.into_iter()
        .map(|(row, name, before, wanted)| {
            Ok(Member { row, thing: ThingName::new(&name).map_err(bad)?, before, wanted })
        })
        .collect()
}

/// Tells devices of the stage what they shall run.
fn tell(
    connection: &Connection,
    rollout: &Rollout,
    count: u32,
    signing: &Signing,
    now: Timestamp,
    stepped: &mut Stepped,
) -> Result<(), CloudError> {
    let repository = match desired::releases(connection, now)? {
        Ok(repository) => Some(repository),
        Err(Refused::Conflict(why)) if rollout.change.is_release() => {
            wait(connection, rollout, &why, now)?;
            return Ok(());
        }
        Err(_) => None,
    };
    let which = format!("r.state = 'waiting' AND r.stage = {}", rollout.stage);
    stepped.again = true;
    for member in members(connection, rollout, &which, count.min(BATCH))? {
        let last = desired::last(connection, member.row)?;
        let confirmed = desired::confirmed(connection, member.row, &rollout.function, repository.as_ref())?;
        let wanted = match rollout.change.wanted(&rollout.function, &last, &confirmed) {
            Ok(wanted) => wanted,
            // It was not so when the rollout began, or it came since: no failure of the device, and none of the release.
            Err(problem) => {
                keep(connection, rollout, &member, Standing::Superseded, None, Some(&problem), now)?;
                continue;
            }
        };
        let (before, json) = (to_json(confirmed.now.as_ref())?, to_json(wanted.as_ref())?);
        let member = Member { before, wanted: json, ..member };
        if confirmed.now == wanted && last.function(&rollout.function) == wanted.as_ref() {
            keep(connection, rollout, &member, Standing::Confirmed, None, Some("it has it already"), now)?;
            continue;
        }
        let policy = DeploymentPolicy {
            health_window_s: rollout.plan.health_window_s,
            deadline_s: rollout.plan.deadline_s,
            window: rollout.plan.window,
        };
        put(connection, rollout, member, last, wanted, (policy, Standing::Queued), signing, now, stepped)?;
    }
    Ok(())
}

/// Tells devices to go back. When none is left to tell, or to wait for, it is over.
fn undo(
    connection: &Connection,
    rollout: &Rollout,
    signing: &Signing,
    now: Timestamp,
    stepped: &mut Stepped,
) -> Result<(), CloudError> {
    // Who had confirmed and does badly with it since has it still, and goes back as those do that did not fail.
    let broken = "UPDATE rollout_device SET state = 'confirmed', updated = ?2 WHERE rollout = ?1 AND state = 'failed' \
                       AND EXISTS (SELECT * FROM job j WHERE j.device = rollout_device.device \
                       AND j.generation = rollout_device.generation AND j.status = 'SUCCEEDED')";
    connection.execute(broken, params![signed(rollout.id.0), now.0]).map_err(sql("abort a rollout"))?;
    let which = "r.generation IS NOT NULL AND r.state IN ('queued', 'unknown', 'working', 'confirmed', 'timed-out')";
    let told = members(connection, rollout, which, BATCH)?;
    let done = told.is_empty();
    for member in told {
        send_back(connection, rollout, member, signing, now, stepped)?;
    }
    if !done {
        stepped.again = true;
        return Ok(());
    }
    let skipped = "UPDATE rollout_device SET state = 'skipped', updated = ?2 WHERE rollout = ?1 AND state = 'waiting'";
    connection.execute(skipped, params![signed(rollout.id.0), now.0]).map_err(sql("abort a rollout"))?;
    // Who is not heard of takes it up when he comes, and is not waited for longer than anybody.
    let since = now.0.saturating_sub(i64::from(rollout.plan.queued_timeout_s) * 1_000);
    let waiting = format!(
        "SELECT count(*) FROM rollout_device r WHERE rollout = ?1 AND state = 'undoing' AND told > ?2 AND NOT {COULD_NOT}"
    );
    let waiting: i64 = connection
        .query_row(&waiting, [signed(rollout.id.0), since], |row| row.get(0))
        .map_err(sql("abort a rollout"))?;
    if waiting == 0 {
        let reason = rollout.reason.clone().unwrap_or_default();
        let statement = "UPDATE rollout SET state = ?2, updated = ?3 WHERE number = ?1";
        let values = params![signed(rollout.id.0), State::Aborted.as_str(), now.0];
        connection.execute(statement, values).map_err(sql("abort a rollout"))?;
        let left = "SELECT count(*) FROM rollout_device WHERE rollout = ?1 AND state IN ('undoing', 'stuck')";
        let left: i64 =
            connection.query_row(left, [signed(rollout.id.0)], |row| row.get(0)).map_err(sql("abort a rollout"))?;
        let text = match left {
            0 => format!("all are back ({reason})"),
            left => format!("{left} are not back; the others are back ({reason})"),
        };
        event(connection, rollout.id, &text, now)?;
    }
    Ok(())
}

/// Tells devices again that could not go back for a reason that may have passed by now.
fn remind(
    connection: &Connection,
    rollout: &Rollout,
    signing: &Signing,
    now: Timestamp,
    stepped: &mut Stepped,
) -> Result<(), CloudError> {
    let since = now.0.saturating_sub((i64::from(rollout.plan.queued_timeout_s) * 1_000).min(REMIND_AFTER));
    let which = format!("r.state = 'undoing' AND r.updated <= {since} AND {COULD_NOT}");
    let reminded = members(connection, rollout, &which, BATCH)?;
    if reminded.is_empty() || (rollout.change.is_release() && desired::releases(connection, now)?.is_err()) {
        return Ok(());
    }
    for member in reminded {
        send_back(connection, rollout, member, signing, now, stepped)?;
    }
    Ok(())
}

/// Tells a device to run what it ran before, unless it was told something else since.
fn send_back(
    connection: &Connection,
    rollout: &Rollout,
    member: Member,
    signing: &Signing,
    now: Timestamp,
    stepped: &mut Stepped,
) -> Result<(), CloudError> {
    let (before, wanted) = (of_json(member.before.as_deref())?, of_json(member.wanted.as_deref())?);
    let last = desired::last(connection, member.row)?;
    if last.function(&rollout.function) != wanted.as_ref() {
        return keep(connection, rollout, &member, Standing::Superseded, None, Some("it runs something else"), now);
    }
    // What ran before has been watched in its time, and a window would only be one more way to stay where it is.
    let policy = DeploymentPolicy { health_window_s: 0, deadline_s: rollout.plan.deadline_s, window: None };
    put(connection, rollout, member, last, before, (policy, Standing::Undoing), signing, now, stepped)
}

/// Queues a device's next state, and notes that.
#[allow(clippy::too_many_arguments)] // One call from each of two places: a struct would be named for nothing.
fn put(
    connection: &Connection,
    rollout: &Rollout,
    member: Member,
    last: desired::Last,
    function: Option<DesiredFunction>,
    (policy, standing): (DeploymentPolicy, Standing),
    signing: &Signing,
    now: Timestamp,
    stepped: &mut Stepped,
) -> Result<(), CloudError> {
    let next = NextState {
        thing: member.thing.clone(),
        generation: last.generation,
        functions: last.with(&rollout.function, function),
        policy,
        rollout: Some(JobId::new(&rollout.id.to_string())?),
        operator: rollout.operator.clone(),
        now,
    };
    match desired::put(connection, next, signing)? {
        Ok(queued) => {
            keep(connection, rollout, &member, standing, Some(queued.generation), None, now)?;
            stepped.bells.extend(queued.next.map(|next| (member.thing, next)));
        }
        Err(Refused::Conflict(problem)) => {
            let ended = if standing == Standing::Undoing { Standing::Stuck } else { Standing::Failed };
            keep(connection, rollout, &member, ended, None, Some(&problem), now)?;
        }
        Err(_) => keep(connection, rollout, &member, Standing::Removed, None, None, now)?,
    }
    Ok(())
}

/// Writes down how a device stands. With a generation, it was told.
fn keep(
    connection: &Connection,
    rollout: &Rollout,
    member: &Member,
    standing: Standing,
    generation: Option<u64>,
    message: Option<&str>,
    now: Timestamp,
) -> Result<(), CloudError> {
    let statement = "UPDATE rollout_device SET state = ?3, generation = coalesce(?4, generation), before = ?5, wanted = ?6, \
                     told = CASE WHEN ?4 IS NULL THEN told ELSE ?8 END, updated = ?8, phase = NULL, reason = NULL, \
                     message = ?7 WHERE rollout = ?1 AND device = ?2";
    let mut statement = connection.prepare_cached(statement).map_err(sql("step a rollout"))?;
    let generation = generation.map(signed);
    let (id, state) = (signed(rollout.id.0), standing.as_str());
    let Member { row, before, wanted, .. } = member;
    statement
        .execute(params![id, row, state, generation, before, wanted, message, now.0])
        .map(|_| ())
        .map_err(sql("step a rollout"))
}

fn to_json(function: Option<&DesiredFunction>) -> Result<Option<String>, CloudError> {
    let bad = |error: serde_json::Error| CloudError::Row { what: "function", problem: error.to_string() };
    function.map(serde_json::to_string).transpose().map_err(bad)
}

pub(super) fn of_json(function: Option<&str>) -> Result<Option<DesiredFunction>, CloudError> {
    let bad = |error: serde_json::Error| CloudError::Row { what: "function", problem: error.to_string() };
    function.map(serde_json::from_str).transpose().map_err(bad)
}
