//! A release for one device, at once.
//!
//! Reading what shall run until now, making the next state and queueing it is one change: of two who deploy at once, the second one builds on
//! what the first has queued.

use std::collections::BTreeMap;
use std::sync::Arc;

use holm_core::{FunctionName, Timestamp};
use holm_protocol::{DeploymentPolicy, DesiredFunction, StatusDetails, ThingName};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::desired::{self, NextState, Queued};
use super::{Records, Refused, aliases, signed};
use crate::CloudError;
use crate::error::sql;
use crate::signing::Signing;

/// A release for a device.
pub(crate) struct Deploy {
    pub(crate) thing: ThingName,
    pub(crate) function: FunctionName,
    pub(crate) version: String,
    pub(crate) policy: DeploymentPolicy,
    pub(crate) operator: String,
    pub(crate) now: Timestamp,
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
    let (device, repository) = match (desired::active(connection, &thing)?, desired::releases(connection, now)?) {
        (Ok(device), Ok(repository)) => (device, repository),
        (Err(refused), _) | (_, Err(refused)) => return Ok(Err(refused)),
    };
    let version = match aliases::resolve(connection, &function, version)? {
        Ok(version) => version,
        Err(refused) => return Ok(Err(refused)),
    };
    let Some((bundle, sequence)) = desired::release(&repository, &function, &version) else {
        return Ok(Err(Refused::Conflict(desired::not_published(&repository, &function, &version))));
    };
    let last = desired::last(connection, device)?;
    let bundle = match desired::for_device(&desired::builds_of(&repository, &function, &version), bundle, &last) {
        Ok(bundle) => bundle,
        Err(problem) => return Ok(Err(Refused::Conflict(format!("{thing}: {problem}")))),
    };
    if !desired::confirmed(connection, device, &function, Some(&repository))?.admits(&bundle, sequence) {
        let has = last.function(&function).map_or("what it had", |function| &function.version);
        let sentence = format!(
            "{function} {version} is older than {has}, which {thing} has: going back needs a permit of the targets key; \
             see `holm rollback`"
        );
        return Ok(Err(Refused::Conflict(sentence)));
    }
    let wanted = match last.function(&function) {
        Some(old) => DesiredFunction { version, bundle, permit: None, ..old.clone() },
        None => DesiredFunction {
            name: function.clone(),
            version,
            bundle,
            config: BTreeMap::new(),
            secrets: BTreeMap::new(),
            permit: None,
        },
    };
    let generation = last.generation;
    let functions = last.with(&function, Some(wanted));
    desired::put(connection, NextState { thing, generation, functions, policy, rollout: None, operator, now }, signing)
}
