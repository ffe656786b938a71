//! What devices have said since, written down: how each stands in a rollout, by its job.

use holm_core::Timestamp;
use holm_protocol::{DesiredFunction, JobStatus, ReasonCode, StatusDetails};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::super::desired;
use super::super::devices::DeviceStatus;
use super::super::{signed, unsigned};
use super::{Rollout, event};
use crate::CloudError;
use crate::error::sql;
use crate::rollouts::{Standing, State};

/// A device of a rollout that has not ended.
struct Open {
    device: i64,
    thing: String,
    status: String,
    standing: Standing,
    generation: i64,
    before: Option<String>,
    wanted: Option<String>,
    told: i64,
    job: Option<JobRow>,
}

struct JobRow {
    status: JobStatus,
    details: Option<StatusDetails>,
    updated: i64,
}

/// How a device stands now.
struct Found {
    standing: Standing,
    generation: i64,
    details: Option<StatusDetails>,
    /// Where the device has not said it.
    message: Option<&'static str>,
}

/// Looks at all devices that have not ended.
pub(super) fn settle(connection: &Connection, rollout: &Rollout, now: Timestamp) -> Result<(), CloudError> {
    let action = "look at the devices of a rollout";
    let statement = "SELECT r.device, d.name, d.status, r.state, r.generation, r.before, r.wanted, r.told, \
                     j.status, j.details, j.updated FROM rollout_device r JOIN device d ON d.id = r.device \
                     LEFT JOIN job j ON j.device = r.device AND j.generation = r.generation WHERE r.rollout = ?1 \
                     AND r.state IN ('queued', 'unknown', 'working', 'timed-out', 'undoing') AND r.generation IS NOT NULL";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let open = statement
        .query_map([signed(rollout.id.0)], of_row)
        .map_err(sql(action))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(sql(action))?;
    for row in open {
        let found = look(connection, rollout, &row, now)?;
        let phase = found.details.as_ref().and_then(|details| details.get(StatusDetails::PHASE));
        let reason = found.details.as_ref().and_then(|details| details.get(StatusDetails::REASON));
        let said = found.details.as_ref().and_then(|details| details.get(StatusDetails::MESSAGE));
        let message = found.message.or(said);
        let statement = "UPDATE rollout_device SET state = ?3, generation = ?4, phase = ?5, reason = ?6, message = ?7, \
                         updated = ?8 WHERE rollout = ?1 AND device = ?2 AND (state IS NOT ?3 OR generation IS NOT ?4 \
                         OR phase IS NOT ?5 OR reason IS NOT ?6 OR message IS NOT ?7)";
        let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
        let state = found.standing.as_str();
        let values = params![signed(rollout.id.0), row.device, state, found.generation, phase, reason, message, now.0];
        statement.execute(values).map_err(sql(action))?;
        if found.standing != row.standing
            && matches!(found.standing, Standing::Failed | Standing::TimedOut | Standing::Stuck)
        {
            let why = message.or(reason).unwrap_or("it did not say why");
            event(connection, rollout.id, &format!("{}: {state}: {why}", row.thing), now)?;
        }
    }
    if rollout.state == State::Running {
        for device in broken(connection, rollout)? {
            let statement = "UPDATE rollout_device SET state = 'failed', reason = ?3, message = ?4, updated = ?5 \
                             WHERE rollout = ?1 AND device = ?2";
            let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
            let values = params![signed(rollout.id.0), device.row, device.reason.as_str(), device.message, now.0];
            statement.execute(values).map_err(sql(action))?;
            event(connection, rollout.id, &format!("{}: failed: {}", device.thing, device.message), now)?;
        }
    }
    Ok(())
}

fn of_row(row: &Row<'_>) -> rusqlite::Result<Open> {
    let details = |text: Option<String>| text.and_then(|json| serde_json::from_str(&json).ok());
    let job = match row.get::<_, Option<String>>(8)? {
        Some(status) => {
            Some(JobRow { status: JobStatus::parse(&status), details: details(row.get(9)?), updated: row.get(10)? })
        }
        None => None,
    };
    Ok(Open {
        device: row.get(0)?,
        thing: row.get(1)?,
        status: row.get(2)?,
        standing: Standing::parse(&row.get::<_, String>(3)?).unwrap_or(Standing::Unknown),
        generation: row.get(4)?,
        before: row.get(5)?,
        wanted: row.get(6)?,
        told: row.get::<_, Option<i64>>(7)?.unwrap_or_default(),
        job,
    })
}

fn look(connection: &Connection, rollout: &Rollout, row: &Open, now: Timestamp) -> Result<Found, CloudError> {
    let plan = &rollout.plan;
    let undoing = row.standing == Standing::Undoing;
    let longer = |since: i64, seconds: u32| now.0.saturating_sub(since) > i64::from(seconds) * 1_000;
    let found = |standing, details| Found { standing, generation: row.generation, details, message: None };
    if row.status != DeviceStatus::Active.as_str() {
        return Ok(found(Standing::Removed, None));
    }
    let Some(job) = &row.job else { return follow(connection, rollout, row) };
    let details = job.details.clone();
    Ok(match &job.status {
        JobStatus::Succeeded if undoing => found(Standing::Undone, details),
        JobStatus::Succeeded => found(Standing::Confirmed, details),
        // It is told again: see `step::remind`.
        JobStatus::Failed | JobStatus::Rejected if undoing && may_pass(details.as_ref()) => {
            found(Standing::Undoing, details)
        }
        JobStatus::Failed | JobStatus::Rejected if undoing => found(Standing::Stuck, details),
        JobStatus::Failed | JobStatus::Rejected => found(Standing::Failed, details),
        JobStatus::Canceled | JobStatus::Removed | JobStatus::TimedOut => follow(connection, rollout, row)?,
        // Who is told to go back is waited for, as who is told anything.
        _ if undoing => found(Standing::Undoing, details),
        JobStatus::Queued if longer(row.told, plan.queued_timeout_s) => {
            Found { message: Some("it was not heard of since it was told"), ..found(Standing::Unknown, details) }
        }
        JobStatus::Queued => found(Standing::Queued, details),
        // Its job's own time is its deadline and its window; this is for one that went away in the middle.
        _ if longer(job.updated, plan.progress_timeout_s) => Found {
            message: Some("it took up its job and was not heard of again"),
            ..found(Standing::TimedOut, details)
        },
        _ => found(Standing::Working, details),
    })
}

/// Whether a device that did not go back may do so another time: nothing of what it was told is wrong.
fn may_pass(details: Option<&StatusDetails>) -> bool {
    let reason = details.and_then(|details| details.get(StatusDetails::REASON)).map(ReasonCode::parse);
    matches!(
        reason,
        Some(
            ReasonCode::Deadline
                | ReasonCode::DiskFull
                | ReasonCode::DownloadFailed
                | ReasonCode::Expired
                | ReasonCode::MetadataExpired
        )
    )
}

/// A later job has taken the place of ours. If it wants the same of the function, it is the one to look at.
fn follow(connection: &Connection, rollout: &Rollout, row: &Open) -> Result<Found, CloudError> {
    let action = "read a job";
    let statement = "SELECT generation, document FROM job WHERE device = ?1 AND generation > ?2 \
                     ORDER BY generation DESC LIMIT 1";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let later: Option<(i64, String)> = statement
        .query_row([row.device, row.generation], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(sql(action))?;
    let meant = if row.standing == Standing::Undoing { &row.before } else { &row.wanted };
    let meant: Option<DesiredFunction> = meant.as_deref().and_then(|json| serde_json::from_str(json).ok());
    if let Some((generation, document)) = later {
        let functions = desired::functions(&document)?;
        if functions.iter().find(|function| function.name == rollout.function) == meant.as_ref() {
            return Ok(Found { standing: row.standing, generation, details: None, message: None });
        }
    }
    let message = Some("something else was deployed to it");
    Ok(Found { standing: Standing::Superseded, generation: row.generation, details: None, message })
}

/// A device that had confirmed, and does badly since.
struct Broken {
    row: i64,
    thing: String,
    reason: ReasonCode,
    message: String,
}

/// Devices that had confirmed, and say since that they have shut the function away because it took them down, or that it fails too often.
fn broken(connection: &Connection, rollout: &Rollout) -> Result<Vec<Broken>, CloudError> {
    let action = "look for functions that fail";
    // Only what runs as this rollout wanted it, and only words that came after it was confirmed.
    let statement = "SELECT d.id, d.name, json_extract(f.value, '$.state') = 'quarantined', \
                     coalesce(json_extract(f.value, '$.invocations'), 0), coalesce(json_extract(f.value, '$.faults'), 0) \
                     FROM rollout_device r JOIN device d ON d.id = r.device, json_each(d.reported, '$.functions') f \
                     WHERE r.rollout = ?1 AND r.state = 'confirmed' AND d.reported_at > r.updated \
                     AND json_extract(f.value, '$.name') = ?2 \
                     AND json_extract(f.value, '$.sha256') = json_extract(r.wanted, '$.bundle.sha256')";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let mut rows = statement.query(params![signed(rollout.id.0), rollout.function.as_str()]).map_err(sql(action))?;
    let mut broken = Vec::new();
    while let Some(row) = rows.next().map_err(sql(action))? {
        let (device, thing) = (row.get(0).map_err(sql(action))?, row.get(1).map_err(sql(action))?);
        let quarantined: bool = row.get(2).map_err(sql(action))?;
        // Devices say what they like: what is no number of ours is none.
        let [invocations, faults] = [3_usize, 4].map(|index| row.get::<_, i64>(index).map_or(0, unsigned));
        let (reason, message) = if quarantined {
            let message = "it was confirmed, and is quarantined since: it took the agent down".to_owned();
            (ReasonCode::CrashLoop, message)
        } else if rollout.plan.is_too_much(invocations, faults) {
            (ReasonCode::Trapped, format!("it was confirmed, and {faults} of {invocations} invocations faulted since"))
        } else {
            continue;
        };
        broken.push(Broken { row: device, thing, reason, message });
    }
    Ok(broken)
}
