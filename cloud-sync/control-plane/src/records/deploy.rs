//! The next desired state of a device, made and signed here.
//!
//! A desired state is everything that shall run, so the next one is made from the one before: the last that the device has
//! confirmed or is at work on. What was refused, rolled back or taken back is no part of it.
//!
//! Reading that state, making the next one and queueing it is one change: of two who deploy at once, the second one builds on
//! what the first has queued.

use std::collections::BTreeMap;
use std::sync::Arc;

use holm_core::{FunctionName, Timestamp};
use holm_protocol::{
    Artifact, DESIRED_STATE_FORMAT, DESIRED_STATE_TYPE, DeploymentPolicy, DesiredFunction, DesiredState, Envelope,
    JobId, NextJob, StatusDetails, ThingName,
};
use holm_trust::tuf::{Listing, Repository};
use holm_trust::{Moment, sign};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::devices::{self, DeviceStatus};
use super::jobs::{self, PutJob};
use super::{Records, Refused, repository, signed, unsigned};
use crate::CloudError;
use crate::error::{chain, sql, trust};
use crate::signing::Signing;

/// So long, in milliseconds, a device may be away and still accept what waits for it: 30 days.
const TERM: i64 = 30 * 86_400_000;

/// A release for a device.
pub(crate) struct Deploy {
    pub(crate) thing: ThingName,
    pub(crate) function: FunctionName,
    pub(crate) version: String,
    pub(crate) policy: DeploymentPolicy,
    pub(crate) operator: String,
    pub(crate) now: Timestamp,
}

/// What was queued.
pub(crate) struct Queued {
    pub(crate) id: JobId,
    pub(crate) generation: u64,
    /// The bell to ring.
    pub(crate) next: Option<NextJob>,
}

/// How a job is.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct JobState {
    pub(crate) generation: u64,
    pub(crate) id: String,
    pub(crate) status: String,
    /// What the device said last: phase, reason, message.
    pub(crate) details: BTreeMap<String, String>,
    pub(crate) queued: Timestamp,
    pub(crate) started: Option<Timestamp>,
    pub(crate) updated: Timestamp,
}

impl Records {
    /// Makes a device's next desired state, with this release in it, and queues it.
    pub(crate) async fn deploy(
        &self,
        deploy: Deploy,
        signing: Arc<Signing>,
    ) -> Result<Result<Queued, Refused>, CloudError> {
        self.write(move |connection| queue(connection, deploy, &signing)).await
    }

    /// A job of a device; `None` if there is none of this generation.
    pub(crate) async fn job(&self, thing: ThingName, generation: u64) -> Result<Option<JobState>, CloudError> {
        self.read(move |connection| {
            let action = "read a job";
            let statement = "SELECT j.id, j.status, j.details, j.queued, j.started, j.updated FROM job j \
                             JOIN device d ON d.id = j.device WHERE d.name = ?1 AND j.generation = ?2";
            let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
            let found = statement.query_row(params![thing.as_str(), signed(generation)], |row| {
                let details: Option<String> = row.get(2)?;
                let details = details.and_then(|json| serde_json::from_str::<StatusDetails>(&json).ok());
                let pairs = details.iter().flat_map(|details| details.iter());
                Ok(JobState {
                    generation,
                    id: row.get(0)?,
                    status: row.get(1)?,
                    details: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
                    queued: Timestamp(row.get(3)?),
                    started: row.get::<_, Option<i64>>(4)?.map(Timestamp),
                    updated: Timestamp(row.get(5)?),
                })
            });
            found.optional().map_err(sql(action))
        })
        .await
    }
}

fn queue(connection: &Connection, deploy: Deploy, signing: &Signing) -> Result<Result<Queued, Refused>, CloudError> {
    let Deploy { thing, function, version, policy, operator, now } = deploy;
    let device = match devices::find(connection, &thing)? {
        Some(device) if device.status == DeviceStatus::Active => device.id,
        Some(_) => return Ok(Err(Refused::Conflict(format!("{thing} is not active")))),
        None => return Ok(Err(Refused::NoSuchDevice)),
    };
    let Some(held) = repository::load(connection)?.filter(|held| held.kept.targets.is_some()) else {
        return Ok(Err(Refused::Conflict("nothing was published here yet: see `holm key new --cloud`".to_owned())));
    };
    let repository = Repository::open(&held.kept).map_err(trust("read the targets"))?;
    if let Err(error) = repository.fresh(Moment::by_clock(now)) {
        let sentence = format!("devices would refuse new code: {}; see `holm key status`", chain(&error));
        return Ok(Err(Refused::Conflict(sentence)));
    }
    let Some((bundle, sequence)) = release(&repository, &function, &version) else {
        return Ok(Err(Refused::Conflict(not_published(&repository, &function, &version))));
    };
    let (last, mut functions) = before(connection, device)?;
    if let Some(old) = functions.iter().find(|old| old.name == function)
        && let Some((_, before)) = release(&repository, &function, &old.version)
        && sequence < before
    {
        let sentence = format!(
            "{function} {version} is older than {}, which {thing} has: going back needs a permit of the targets key",
            old.version
        );
        return Ok(Err(Refused::Conflict(sentence)));
    }
    match functions.iter_mut().find(|old| old.name == function) {
        Some(old) => {
            (old.version, old.bundle, old.permit) = (version, bundle, None);
        }
        None => functions.push(DesiredFunction {
            name: function,
            version,
            bundle,
            config: BTreeMap::new(),
            secrets: BTreeMap::new(),
            permit: None,
        }),
    }
    let generation = last.saturating_add(1);
    let id = JobId::new(&format!("generation-{generation}"))?;
    let state = DesiredState {
        format: DESIRED_STATE_FORMAT,
        device: thing.clone(),
        generation,
        rollout: None,
        issued: now,
        expires: Timestamp(now.0.saturating_add(TERM)),
        policy,
        agent: None,
        functions,
    };
    let payload = match state.write() {
        Ok(payload) => payload,
        Err(error) => return Ok(Err(Refused::Conflict(chain(&error)))),
    };
    let document = sign(DESIRED_STATE_TYPE, payload, &[&signing.deployment]).write()?;
    let put = PutJob { thing, generation, id: id.clone(), document, operator, now };
    Ok(jobs::put(connection, &put)?.map(|next| Queued { id, generation, next }))
}

/// The bundle of a release, and its place in the order of releases.
fn release(repository: &Repository, function: &FunctionName, version: &str) -> Option<(Artifact, u64)> {
    let target = repository.peek(&Listing::bundle_name(function, version))?;
    match Listing::of(target) {
        Ok(Some(Listing::Bundle { function: named, sequence, .. })) if named == *function => {
            Some((Artifact { sha256: target.sha256()?, length: target.length }, sequence))
        }
        _ => None,
    }
}

fn not_published(repository: &Repository, function: &FunctionName, version: &str) -> String {
    let listing = |target| match Listing::of(target) {
        Ok(Some(Listing::Bundle { function: named, version, .. })) if named == *function => Some(version),
        _ => None,
    };
    let known: Vec<String> = repository.targets().filter_map(|(_, target)| listing(target)).collect();
    match known.is_empty() {
        true => format!("{function} was never published"),
        false => format!("{function} {version} is not published; there is {}", known.join(", ")),
    }
}

/// The last generation that the device may have seen, and what shall run until now.
fn before(connection: &Connection, device: i64) -> Result<(u64, Vec<DesiredFunction>), CloudError> {
    let action = "read a job";
    let last = "SELECT max((SELECT coalesce(max(generation), 0) FROM job WHERE device = ?1), \
                coalesce((SELECT json_extract(reported, '$.generation') FROM device WHERE id = ?1), 0))";
    let last: i64 = connection.query_row(last, [device], |row| row.get(0)).map_err(sql(action))?;
    let statement = "SELECT document FROM job WHERE device = ?1 AND status IN ('SUCCEEDED', 'QUEUED', 'IN_PROGRESS') \
                     ORDER BY generation DESC LIMIT 1";
    let document: Option<String> =
        connection.query_row(statement, [device], |row| row.get(0)).optional().map_err(sql(action))?;
    let Some(document) = document else { return Ok((unsigned(last), Vec::new())) };
    let state = DesiredState::read(&Envelope::read(&document)?)?;
    Ok((unsigned(last), state.functions))
}
