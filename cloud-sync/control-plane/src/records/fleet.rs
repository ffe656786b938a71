//! The fleet as a file says it: who is in which group, and what runs there. All of it in one transaction, or nothing.
//!
//! Groups are changed first, because deployments are judged by who is in them then; where anything speaks against anything, or it was
//! only asked what would be, that is undone again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holm_core::{FunctionName, Timestamp};
use holm_protocol::{GroupName, ThingName};
use rusqlite::Connection;

use super::devices::{self, DeviceStatus};
use super::rollouts::{self, Begin, Preview, RolloutId, Target};
use super::{Records, Refused};
use crate::CloudError;
use crate::blobs::Blobs;
use crate::error::sql;

/// What is wanted.
pub(crate) struct Fleet {
    /// These devices and no others. Groups that are not named are left alone.
    pub(crate) groups: BTreeMap<GroupName, BTreeSet<ThingName>>,
    /// What shall run in a group. Where it does, none begins.
    pub(crate) deployments: Vec<(GroupName, Begin)>,
    pub(crate) operator: String,
    /// Only tell what would be.
    pub(crate) preview: bool,
    pub(crate) now: Timestamp,
}

/// What became different, or would.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) groups: Vec<Moved>,
    pub(crate) deployments: Vec<Deployed>,
    /// What is being made so already.
    pub(crate) underway: Vec<Underway>,
}

/// A deployment that a rollout is at.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Underway {
    pub(crate) function: String,
    pub(crate) group: String,
    pub(crate) rollout: RolloutId,
}

/// A device in other groups.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Moved {
    pub(crate) thing: String,
    pub(crate) add: Vec<String>,
    pub(crate) remove: Vec<String>,
}

/// A deployment that has something to change.
#[derive(Debug)]
pub(crate) struct Deployed {
    pub(crate) function: FunctionName,
    pub(crate) group: GroupName,
    pub(crate) preview: Preview,
    /// None for a preview.
    pub(crate) id: Option<RolloutId>,
}

impl Records {
    /// Makes the fleet so, or says all that speaks against it.
    pub(crate) async fn apply_fleet(
        &self,
        fleet: Fleet,
        blobs: Arc<Blobs>,
    ) -> Result<Result<Applied, Refused>, CloudError> {
        self.write(move |connection| {
            let run = |statement: &str| connection.execute_batch(statement).map_err(sql("change the fleet"));
            run("SAVEPOINT fleet")?;
            let preview = fleet.preview;
            let outcome = work(connection, fleet, &blobs)?;
            if preview || outcome.is_err() {
                run("ROLLBACK TO fleet")?;
            }
            run("RELEASE fleet")?;
            Ok(outcome)
        })
        .await
    }
}

fn work(connection: &Connection, fleet: Fleet, blobs: &Blobs) -> Result<Result<Applied, Refused>, CloudError> {
    let Fleet { groups, deployments, operator, preview, now } = fleet;
    let mut problems = Vec::new();
    let groups = regroup(connection, &groups, &operator, now, &mut problems)?;
    problems.extend(twice(connection, &deployments)?);
    let first = rollouts::next_number(connection)?;
    let (mut differing, mut underway) = (Vec::new(), Vec::new());
    for (group, begin) in deployments {
        let function = begin.function.clone();
        let begin = Begin { target: Target::Group(group.clone()), ..begin };
        // Who has come into the group comes into that.
        if let Some(rollout) = rollouts::underway(connection, &begin)? {
            underway.push(Underway { function: function.to_string(), group: group.to_string(), rollout });
            continue;
        }
        match rollouts::judge(connection, begin, first.after(differing.len()), blobs)? {
            Ok(judged) if judged.preview.differs() => differing.push((function, group, judged)),
            Ok(_) => {}
            Err(Refused::NotBelieved(found)) => {
                problems.extend(found.into_iter().map(|problem| format!("{function} in {group}: {problem}")));
            }
            Err(refused) => return Ok(Err(refused)),
        }
    }
    if !problems.is_empty() {
        return Ok(Err(Refused::NotBelieved(problems)));
    }
    let mut deployed = Vec::new();
    for (function, group, judged) in differing {
        let id = if preview { None } else { Some(judged.begin(connection)?) };
        deployed.push(Deployed { function, group, preview: judged.preview, id });
    }
    Ok(Ok(Applied { groups, deployments: deployed, underway }))
}

/// Takes every active device into the groups that it shall be in, also where that is a problem: what runs there is judged all the same.
fn regroup(
    connection: &Connection,
    wanted: &BTreeMap<GroupName, BTreeSet<ThingName>>,
    operator: &str,
    now: Timestamp,
    problems: &mut Vec<String>,
) -> Result<Vec<Moved>, CloudError> {
    let mut concerned: BTreeSet<String> = BTreeSet::new();
    for (group, things) in wanted {
        concerned.extend(members(connection, group)?);
        for thing in things {
            match devices::find(connection, thing)? {
                Some(device) if device.status == DeviceStatus::Active => {
                    concerned.insert(thing.to_string());
                }
                _ => problems.push(format!("there is no active device {thing} in group {group}: enrol it first")),
            }
        }
    }
    let mut moved = Vec::new();
    for thing in concerned {
        let name =
            ThingName::new(&thing).map_err(|error| CloudError::Row { what: "device", problem: error.to_string() })?;
        let Some(device) = devices::find(connection, &name)? else { continue };
        let before = devices::groups(connection, device.id)?;
        let mut after: BTreeSet<String> = before.iter().cloned().collect();
        let (mut add, mut remove) = (Vec::new(), Vec::new());
        for (group, things) in wanted {
            let group = group.to_string();
            match things.contains(&name) {
                true if after.insert(group.clone()) => add.push(group),
                false if after.remove(&group) => remove.push(group),
                _ => {}
            }
        }
        problems.extend(devices::fits(&thing, &after).err());
        if !add.is_empty() || !remove.is_empty() {
            let after: Vec<String> = after.into_iter().collect();
            devices::put_groups(connection, device.id, &thing, &before, &after, operator, now)?;
            moved.push(Moved { thing, add, remove });
        }
    }
    Ok(moved)
}

/// Deployments of one function that have a device in common, which can have it once.
fn twice(connection: &Connection, deployments: &[(GroupName, Begin)]) -> Result<Vec<String>, CloudError> {
    let mut problems = Vec::new();
    let mut seen: BTreeMap<&FunctionName, Vec<(&GroupName, BTreeSet<String>)>> = BTreeMap::new();
    for (group, begin) in deployments {
        let these: BTreeSet<String> = members(connection, group)?.into_iter().collect();
        let before = seen.entry(&begin.function).or_default();
        for (other, those) in before.iter() {
            if let Some(thing) = these.intersection(those).next() {
                let function = &begin.function;
                problems.push(format!(
                    "{function} is deployed to {other} and to {group}, and {thing} is in both: a device has it once"
                ));
            }
        }
        before.push((group, these));
    }
    Ok(problems)
}

/// Active devices of a group.
fn members(connection: &Connection, group: &GroupName) -> Result<Vec<String>, CloudError> {
    let action = "read a group";
    let statement = "SELECT d.name FROM membership m JOIN device d ON d.id = m.device \
                     WHERE m.\"group\" = ?1 AND d.status = 'active' ORDER BY d.name";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let rows = statement.query_map([group.as_str()], |row| row.get(0)).map_err(sql(action))?;
    rows.collect::<Result<_, _>>().map_err(sql(action))
}
