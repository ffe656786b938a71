//! Desired states: what devices shall run until now, and the next one, made and signed here.
//!
//! A desired state is everything that shall run, so the next one is made from the one before: the last that the device has
//! confirmed or is at work on. What was refused, rolled back or taken back is no part of it.
//!
//! The agent goes the way of functions: here it is one of them, called [`AGENT`], and only a desired state has a place of its own
//! for it. Without it devices run the agent that is installed.

use std::collections::BTreeMap;

use holm_core::{FunctionName, Timestamp};
use holm_protocol::limits::MAX_SEQUENCE;
use holm_protocol::{
    AGENT, Artifact, DESIRED_STATE_FORMAT, DESIRED_STATE_TYPE, DeploymentPolicy, DesiredAgent, DesiredFunction,
    DesiredState, Envelope, JobId, NextJob, ThingName,
};
use holm_trust::tuf::{Listing, Repository};
use holm_trust::{Moment, sign};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::devices::{self, DeviceStatus};
use super::jobs::{self, PutJob};
use super::{Records, Refused, repository, secrets, signed, unsigned};
use crate::CloudError;
use crate::error::{chain, sql, trust};
use crate::signing::Signing;

/// So long, in milliseconds, a device may be away and still accept what waits for it: 30 days.
const TERM: i64 = 30 * 86_400_000;

/// What was queued.
pub(crate) struct Queued {
    pub(crate) id: JobId,
    pub(crate) generation: u64,
    /// The bell to ring.
    pub(crate) next: Option<NextJob>,
}

/// What shall run on a device until now.
pub(super) struct Last {
    /// The last generation that the device may have seen.
    pub(super) generation: u64,
    pub(super) functions: Vec<DesiredFunction>,
    /// The device's processor: what an agent has to be for.
    pub(super) arch: String,
}

impl Last {
    pub(super) fn function(&self, name: &FunctionName) -> Option<&DesiredFunction> {
        self.functions.iter().find(|function| function.name == *name)
    }

    /// With one function as it shall be, or without it.
    pub(super) fn with(self, name: &FunctionName, wanted: Option<DesiredFunction>) -> Vec<DesiredFunction> {
        self.functions.into_iter().filter(|function| function.name != *name).chain(wanted).collect()
    }
}

/// What a device shall run, as it is shown.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Desired {
    /// The last generation that it may have seen.
    generation: u64,
    functions: Vec<Shown>,
}

#[derive(Debug, serde::Serialize)]
struct Shown {
    name: String,
    version: String,
    sha256: String,
    config: BTreeMap<String, String>,
}

impl Records {
    /// What a device shall run; `None` if there is no such device.
    pub(crate) async fn desired(&self, thing: ThingName) -> Result<Option<Desired>, CloudError> {
        self.read(move |connection| {
            let Some(device) = devices::find(connection, &thing)? else { return Ok(None) };
            let Last { generation, functions, .. } = last(connection, device.id)?;
            let shown = |function: DesiredFunction| Shown {
                name: function.name.to_string(),
                version: function.version,
                sha256: function.bundle.sha256.to_string(),
                config: function.config,
            };
            Ok(Some(Desired { generation, functions: functions.into_iter().map(shown).collect() }))
        })
        .await
    }
}

/// What a device has confirmed of one function, as far as it is kept.
#[derive(Debug, Default)]
pub(super) struct Confirmed {
    pub(super) now: Option<DesiredFunction>,
    /// In another bundle, before that: the device goes back to it without a permit.
    pub(super) before: Option<DesiredFunction>,
    /// Whether that is an older release than what it has now.
    pub(super) before_is_older: bool,
    /// The highest release sequence since the last permit, what it is at work on included: it may have confirmed that meanwhile.
    floor: u64,
}

impl Confirmed {
    /// Whether the device takes this release without a permit.
    pub(super) fn admits(&self, bundle: &Artifact, sequence: u64) -> bool {
        let own = [&self.now, &self.before].into_iter().flatten().any(|function| function.bundle == *bundle);
        own || sequence >= self.floor
    }
}

/// A desired state in the making.
pub(super) struct NextState {
    pub(super) thing: ThingName,
    /// The one before.
    pub(super) generation: u64,
    pub(super) functions: Vec<DesiredFunction>,
    pub(super) policy: DeploymentPolicy,
    pub(super) rollout: Option<JobId>,
    pub(super) operator: String,
    pub(super) now: Timestamp,
}

/// An active device's row.
pub(super) fn active(connection: &Connection, thing: &ThingName) -> Result<Result<i64, Refused>, CloudError> {
    Ok(match devices::find(connection, thing)? {
        Some(device) if device.status == DeviceStatus::Active => Ok(device.id),
        Some(_) => Err(Refused::Conflict(format!("{thing} is not active"))),
        None => Err(Refused::NoSuchDevice),
    })
}

/// The repository, if devices take new code from it at this moment.
pub(super) fn releases(connection: &Connection, now: Timestamp) -> Result<Result<Repository, Refused>, CloudError> {
    let Some(held) = repository::load(connection)?.filter(|held| held.kept.targets.is_some()) else {
        return Ok(Err(Refused::Conflict("nothing was published here yet: see `holm key new --cloud`".to_owned())));
    };
    let repository = Repository::open(&held.kept).map_err(trust("read the targets"))?;
    if let Err(error) = repository.fresh(Moment::by_clock(now)) {
        let sentence = format!("devices would refuse new code: {}; see `holm key status`", chain(&error));
        return Ok(Err(Refused::Conflict(sentence)));
    }
    Ok(Ok(repository))
}

/// The programs of an agent by processor, with its place in the order of releases; empty if there is none.
pub(super) fn builds(repository: &Repository, version: &str) -> BTreeMap<String, (Artifact, u64)> {
    let found = repository.targets().filter_map(|(name, target)| match Listing::of(target) {
        Ok(Some(Listing::Agent { version: named, arch, sequence, .. }))
            if named == version && name == Listing::agent_name(version, &arch) =>
        {
            Some((arch, (Artifact { sha256: target.sha256()?, length: target.length }, sequence)))
        }
        _ => None,
    });
    found.collect()
}

/// The same of whatever is released; functions have none.
pub(super) fn builds_of(repository: &Repository, name: &FunctionName, version: &str) -> BTreeMap<String, Artifact> {
    match name.as_str() {
        AGENT => builds(repository, version).into_iter().map(|(arch, (artifact, _))| (arch, artifact)).collect(),
        _ => BTreeMap::new(),
    }
}

/// What a device gets of a release: its bundle, or the build for its processor.
pub(super) fn for_device(
    builds: &BTreeMap<String, Artifact>,
    bundle: Artifact,
    last: &Last,
) -> Result<Artifact, String> {
    match builds.get(&last.arch) {
        Some(build) => Ok(*build),
        None if builds.is_empty() => Ok(bundle),
        None => {
            let others = builds.keys().cloned().collect::<Vec<_>>().join(", ");
            Err(format!("there is no build for {} of it, only for {others}", last.arch))
        }
    }
}

/// The bundle of a release, and its place in the order of releases. Of an agent, the program for any processor.
pub(super) fn release(repository: &Repository, function: &FunctionName, version: &str) -> Option<(Artifact, u64)> {
    if function.as_str() == AGENT {
        return builds(repository, version).into_values().next();
    }
    let target = repository.peek(&Listing::bundle_name(function, version))?;
    match Listing::of(target) {
        Ok(Some(Listing::Bundle { function: named, sequence, .. })) if named == *function => {
            Some((Artifact { sha256: target.sha256()?, length: target.length }, sequence))
        }
        _ => None,
    }
}

pub(super) fn not_published(repository: &Repository, function: &FunctionName, version: &str) -> String {
    let listing = |target| match Listing::of(target) {
        Ok(Some(Listing::Bundle { function: named, version, .. })) if named == *function => Some(version),
        Ok(Some(Listing::Agent { version, .. })) if function.as_str() == AGENT => Some(version),
        _ => None,
    };
    let known: std::collections::BTreeSet<String> =
        repository.targets().filter_map(|(_, target)| listing(target)).collect();
    match known.is_empty() {
        true => format!("{function} was never published"),
        false => format!(
            "{function} {version} is not published; there is {}",
            known.into_iter().collect::<Vec<_>>().join(", ")
        ),
    }
}

/// What a device shall run until now.
pub(super) fn last(connection: &Connection, device: i64) -> Result<Last, CloudError> {
    let action = "read a job";
    let last = "SELECT max((SELECT coalesce(max(generation), 0) FROM job WHERE device = ?1), \
                coalesce((SELECT max(floor, coalesce(min(json_extract(reported, '$.generation'), ?2), 0)) FROM device \
                WHERE id = ?1), 0))";
    // What is beyond the bound was stored before reports were held to it, and SQLite does not have all of it as an integer.
    let last: i64 =
        connection.query_row(last, params![device, signed(MAX_SEQUENCE)], |row| row.get(0)).map_err(sql(action))?;
    let statement = "SELECT document FROM job WHERE device = ?1 AND status IN ('SUCCEEDED', 'QUEUED', 'IN_PROGRESS') \
                     ORDER BY generation DESC LIMIT 1";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let document: Option<String> = statement.query_row([device], |row| row.get(0)).optional().map_err(sql(action))?;
    let functions = document.map(|document| functions(&document)).transpose()?.unwrap_or_default();
    let arch = "SELECT arch FROM device WHERE id = ?1";
    let arch = connection.query_row(arch, [device], |row| row.get(0)).map_err(sql(action))?;
    Ok(Last { generation: unsigned(last), functions, arch })
}

/// What a device has confirmed of one function. Without a repository, every release counts as old enough.
pub(super) fn confirmed(
    connection: &Connection,
    device: i64,
    name: &FunctionName,
    repository: Option<&Repository>,
) -> Result<Confirmed, CloudError> {
    let action = "read a job";
    let statement = "SELECT document, status = 'SUCCEEDED', queued >= (SELECT enrolled FROM device WHERE id = ?1) \
                     FROM job WHERE device = ?1 \
                     AND status IN ('SUCCEEDED', 'QUEUED', 'IN_PROGRESS') ORDER BY generation DESC";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let mut documents = statement.query([device]).map_err(sql(action))?;
    let (mut found, mut latest, mut permitted) = (Confirmed::default(), true, false);
    let mut newest = None;
    while let Some(row) = documents.next().map_err(sql(action))? {
        let document: String = row.get(0).map_err(sql(action))?;
        let succeeded: bool = row.get(1).map_err(sql(action))?;
        // Its own word, and not that of the board that it has taken the place of: that one's history is gone with it.
        let own: bool = row.get(2).map_err(sql(action))?;
        let function = functions(&document)?.into_iter().find(|function| function.name == *name);
        let first = succeeded && std::mem::take(&mut latest);
        let Some(function) = function else { continue };
        let listed = repository.and_then(|repository| release(repository, name, &function.version));
        let sequence = listed.map(|(_, sequence)| sequence);
        if own && !permitted {
            found.floor = found.floor.max(sequence.unwrap_or_default());
            // What came before a permit does not bind any more.
            permitted = function.permit.is_some();
        }
        match &found.now {
            _ if !succeeded => {}
            None if first => (found.now, newest) = (Some(function), sequence),
            _ if !own => {}
            // It was removed since; the device knows it still.
            None if found.before.is_none() => found.before = Some(function),
            Some(now) if found.before.is_none() && now.bundle != function.bundle => {
                (found.before, found.before_is_older) = (Some(function), repository.is_none() || sequence < newest);
            }
            _ => {}
        }
    }
    Ok(found)
}

/// The functions of a job's document, without secrets: which are with it is decided anew each time a state is made.
pub(super) fn functions(document: &str) -> Result<Vec<DesiredFunction>, CloudError> {
    let DesiredState { functions, agent, .. } = DesiredState::read(&Envelope::read(document)?)?;
    let name = || FunctionName::new(AGENT).map_err(|error| CloudError::Row { what: "job", problem: error.to_string() });
    let agent = agent.map(|DesiredAgent { version, artifact }| {
        Ok::<_, CloudError>(DesiredFunction {
            name: name()?,
            version,
            bundle: artifact,
            config: BTreeMap::new(),
            secrets: BTreeMap::new(),
            permit: None,
        })
    });
    let functions = functions.into_iter().map(|function| DesiredFunction { secrets: BTreeMap::new(), ..function });
    Ok(functions.chain(agent.transpose()?).collect())
}

/// Signs the next state of a device, and queues it.
pub(super) fn put(
    connection: &Connection,
    next: NextState,
    signing: &Signing,
) -> Result<Result<Queued, Refused>, CloudError> {
    let NextState { thing, generation, functions, policy, rollout, operator, now } = next;
    let generation = generation.saturating_add(1);
    let (agent, functions): (Vec<_>, Vec<_>) =
        functions.into_iter().partition(|function| function.name.as_str() == AGENT);
    let agent = agent.into_iter().next().map(|agent| DesiredAgent { version: agent.version, artifact: agent.bundle });
    let functions = secrets::fill(connection, &thing, functions)?;
    let id = JobId::new(&format!("generation-{generation}"))?;
    let state = DesiredState {
        format: DESIRED_STATE_FORMAT,
        device: thing.clone(),
        generation,
        rollout,
        issued: now,
        expires: Timestamp(now.0.saturating_add(TERM)),
        policy,
        agent,
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
