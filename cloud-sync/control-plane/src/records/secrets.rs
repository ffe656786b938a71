//! Secrets of devices, as far as they are known here: their names, and what only the device opens.
//!
//! # How it works
//!
//! Whoever sets a secret seals it to each device's key and hands in the results. A desired state that is made ([`super::desired::put`])
//! gets, for each function, those that the function's listing in the repository says it was granted, and that were sealed to the key
//! that the device reports now. So a function that is deployed later finds its secrets, and a device with another key is not sent
//! what it cannot open.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holm_core::{Label, Timestamp};
use holm_protocol::{DeploymentPolicy, DesiredFunction, GroupName, NextJob, ThingName};
use holm_trust::tuf::{Listing, Repository};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::desired::{self, NextState};
use super::tokens::audit;
use super::{Records, Refused, repository};
use crate::CloudError;
use crate::error::{sql, trust};
use crate::signing::Signing;

/// What was sealed to one device's key.
#[derive(Debug, Clone)]
pub(crate) struct SealedFor {
    pub(crate) thing: ThingName,
    /// The key, as the device reports it.
    pub(crate) key: String,
    /// Base64.
    pub(crate) value: String,
}

/// Whose secret.
#[derive(Debug, Clone)]
pub(crate) enum SecretScope {
    /// All that are in it, and all that will be.
    Group(GroupName),
    Device(ThingName),
}

/// A secret that becomes another, or that goes where nothing is sealed.
#[derive(Debug, Clone)]
pub(crate) struct SecretChange {
    pub(crate) name: Label,
    pub(crate) scope: Option<SecretScope>,
    pub(crate) sealed: Vec<SealedFor>,
    pub(crate) policy: DeploymentPolicy,
    pub(crate) operator: String,
    pub(crate) now: Timestamp,
}

/// A device that has been told of it.
#[derive(Debug, Clone)]
pub(crate) struct SecretTold {
    pub(crate) thing: ThingName,
    /// Of the state that was made for it; none if nothing that it runs wants the secret.
    pub(crate) generation: Option<u64>,
    pub(crate) next: Option<NextJob>,
}

/// A secret, and who has it.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Secret {
    name: String,
    groups: Vec<String>,
    devices: Vec<Holder>,
}

#[derive(Debug, serde::Serialize)]
struct Holder {
    thing: String,
    /// `sealed`, `lacking` (it came later), `other-key` (it has another key now) or `no-key` (its agent is too old, or was never here).
    state: &'static str,
    made: Option<Timestamp>,
}

impl Records {
    /// Every secret, by name, with the devices that have it or should.
    pub(crate) async fn secrets(&self) -> Result<Vec<Secret>, CloudError> {
        self.read(list).await
    }

    /// Keeps what was sealed, and makes the next state of each device that runs a function which is granted it. All of it, or nothing.
    pub(crate) async fn set_secret(
        &self,
        change: SecretChange,
        signing: Arc<Signing>,
    ) -> Result<Result<Vec<SecretTold>, Refused>, CloudError> {
        self.write(move |connection| whole(connection, |connection| set(connection, &change, &signing))).await
    }

    /// Forgets one. Devices that run with it get their next state without.
    pub(crate) async fn remove_secret(
        &self,
        change: SecretChange,
        signing: Arc<Signing>,
    ) -> Result<Result<Vec<SecretTold>, Refused>, CloudError> {
        self.write(move |connection| whole(connection, |connection| remove(connection, &change, &signing))).await
    }
}

/// A change of many devices that is refused for one happens for none.
fn whole<T>(
    connection: &Connection,
    change: impl FnOnce(&Connection) -> Result<Result<T, Refused>, CloudError>,
) -> Result<Result<T, Refused>, CloudError> {
    let action = "change a secret";
    connection.execute_batch("SAVEPOINT secret").map_err(sql(action))?;
    let changed = change(connection);
    let end = match &changed {
        Ok(Ok(_)) => "RELEASE secret",
        _ => "ROLLBACK TO secret; RELEASE secret",
    };
    connection.execute_batch(end).map_err(sql(action))?;
    changed
}

fn set(
    connection: &Connection,
    change: &SecretChange,
    signing: &Signing,
) -> Result<Result<Vec<SecretTold>, Refused>, CloudError> {
    let action = "keep a secret";
    let mut problems = Vec::new();
    let mut devices = Vec::new();
    for sealed in &change.sealed {
        let thing = &sealed.thing;
        match desired::active(connection, thing)? {
            Err(Refused::Conflict(sentence)) => problems.push(sentence),
            Err(_) => problems.push(format!("there is no device {thing}")),
            Ok(device) => match key(connection, device)? {
                Some(key) if key == sealed.key => devices.push((device, sealed)),
                Some(_) => problems.push(format!("{thing} has another key by now: seal it again")),
                None => problems.push(format!("{thing} has reported no key")),
            },
        }
    }
    if !problems.is_empty() {
        return Ok(Err(Refused::NotBelieved(problems)));
    }
    if let Some(SecretScope::Group(group)) = &change.scope {
        let statement = "INSERT OR IGNORE INTO secret_group (name, \"group\") VALUES (?1, ?2)";
        connection.execute(statement, params![change.name.as_str(), group.as_str()]).map_err(sql(action))?;
    }
    for (device, sealed) in &devices {
        let statement = "INSERT INTO secret (device, name, key, sealed, made) VALUES (?1, ?2, ?3, ?4, ?5) \
                         ON CONFLICT DO UPDATE SET key = ?3, sealed = ?4, made = ?5";
        let values = params![device, change.name.as_str(), sealed.key, sealed.value, change.now.0];
        connection.execute(statement, values).map_err(sql(action))?;
    }
    audit(connection, change.now, &change.operator, "set a secret", change.name.as_str())?;
    let devices = devices.into_iter().map(|(device, sealed)| (device, sealed.thing.clone())).collect();
    tell(connection, change, devices, signing)
}

fn remove(
    connection: &Connection,
    change: &SecretChange,
    signing: &Signing,
) -> Result<Result<Vec<SecretTold>, Refused>, CloudError> {
    let action = "forget a secret";
    let name = change.name.as_str();
    let (groups, which, of) = match &change.scope {
        Some(SecretScope::Group(group)) => (
            "DELETE FROM secret_group WHERE name = ?1 AND \"group\" = ?2",
            "s.device IN (SELECT device FROM membership WHERE \"group\" = ?2)",
            group.as_str(),
        ),
        Some(SecretScope::Device(thing)) => ("SELECT ?1, ?2", "d.name = ?2", thing.as_str()),
        None => ("DELETE FROM secret_group WHERE name = ?1 AND ?2 = ''", "?2 = ''", ""),
    };
    if !matches!(change.scope, Some(SecretScope::Device(_))) {
        connection.execute(groups, params![name, of]).map_err(sql(action))?;
    }
    let statement = format!(
        "SELECT s.device, d.name, d.status = 'active' FROM secret s JOIN device d ON d.id = s.device WHERE s.name = ?1 AND {which}"
    );
    let mut statement = connection.prepare(&statement).map_err(sql(action))?;
    let rows = statement.query_map(params![name, of], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, bool>(2)?))
    });
    let rows = rows.map_err(sql(action))?.collect::<Result<Vec<_>, _>>().map_err(sql(action))?;
    if rows.is_empty() {
        return Ok(Err(Refused::Conflict(format!("no device has a secret `{name}` there"))));
    }
    let mut devices = Vec::new();
    for (device, thing, active) in rows {
        let statement = "DELETE FROM secret WHERE device = ?1 AND name = ?2";
        connection.execute(statement, params![device, name]).map_err(sql(action))?;
        if active {
            devices.push((device, ThingName::new(&thing)?));
        }
    }
    audit(connection, change.now, &change.operator, "remove a secret", name)?;
    tell(connection, change, devices, signing)
}

/// Makes the next state of those that run a function which is granted the secret.
fn tell(
    connection: &Connection,
    change: &SecretChange,
    devices: Vec<(i64, ThingName)>,
    signing: &Signing,
) -> Result<Result<Vec<SecretTold>, Refused>, CloudError> {
    let repository = opened(connection)?;
    let mut told = Vec::new();
    for (device, thing) in devices {
        let last = desired::last(connection, device)?;
        let wants = |function: &DesiredFunction| {
            let granted = repository.as_ref().map(|repository| granted(repository, function)).unwrap_or_default();
            granted.contains(change.name.as_str())
        };
        let mut one = SecretTold { thing: thing.clone(), generation: None, next: None };
        if last.functions.iter().any(wants) {
            let next = NextState {
                thing,
                generation: last.generation,
                functions: last.functions,
                policy: change.policy,
                rollout: None,
                operator: change.operator.clone(),
                now: change.now,
            };
            match desired::put(connection, next, signing)? {
                Ok(queued) => (one.generation, one.next) = (Some(queued.generation), queued.next),
                Err(refused) => return Ok(Err(refused)),
            }
        }
        told.push(one);
    }
    Ok(Ok(told))
}

/// Functions with the secrets that they are granted and their device opens.
pub(super) fn fill(
    connection: &Connection,
    thing: &ThingName,
    functions: Vec<DesiredFunction>,
) -> Result<Vec<DesiredFunction>, CloudError> {
    let action = "read the secrets of a device";
    let statement = "SELECT s.name, s.sealed FROM secret s JOIN device d ON d.id = s.device WHERE d.name = ?1 \
                     AND s.key = json_extract(d.reported, '$.sealing_key')";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let rows = statement.query_map([thing.as_str()], |row| Ok((row.get(0)?, row.get(1)?)));
    let sealed: BTreeMap<String, String> = rows.map_err(sql(action))?.collect::<Result<_, _>>().map_err(sql(action))?;
    // Most devices have none, and then nobody opens the repository for it.
    let Some(repository) = (if sealed.is_empty() { None } else { opened(connection)? }) else { return Ok(functions) };
    let filled = |function: DesiredFunction| {
        let granted = granted(&repository, &function);
        let secrets = sealed.iter().filter(|(name, _)| granted.contains(name.as_str()));
        DesiredFunction { secrets: secrets.map(|(name, sealed)| (name.clone(), sealed.clone())).collect(), ..function }
    };
    Ok(functions.into_iter().map(filled).collect())
}

fn opened(connection: &Connection) -> Result<Option<Repository>, CloudError> {
    let held = repository::load(connection)?.filter(|held| held.kept.targets.is_some());
    held.map(|held| Repository::open(&held.kept).map_err(trust("read the targets"))).transpose()
}

/// The names of the secrets that a function's listing says it was granted.
fn granted(repository: &Repository, function: &DesiredFunction) -> BTreeSet<String> {
    let target = repository.peek(&Listing::bundle_name(&function.name, &function.version));
    let listing = target.filter(|target| target.sha256() == Some(function.bundle.sha256)).map(Listing::of);
    let Some(Ok(Some(Listing::Bundle { permissions, .. }))) = listing else { return BTreeSet::new() };
    permissions.iter().filter_map(|line| line.strip_prefix("secret ")).map(str::to_owned).collect()
}

/// The key that a device reports.
fn key(connection: &Connection, device: i64) -> Result<Option<String>, CloudError> {
    let action = "read a device's key";
    let statement = "SELECT json_extract(reported, '$.sealing_key') FROM device WHERE id = ?1";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    Ok(statement.query_row([device], |row| row.get(0)).optional().map_err(sql(action))?.flatten())
}

fn list(connection: &Connection) -> Result<Vec<Secret>, CloudError> {
    let action = "list secrets";
    let mut secrets: BTreeMap<String, Secret> = BTreeMap::new();
    let entry = |secrets: &mut BTreeMap<String, Secret>, name: String| {
        secrets.entry(name.clone()).or_insert(Secret { name, groups: Vec::new(), devices: Vec::new() });
    };
    let statement = "SELECT name, \"group\" FROM secret_group ORDER BY name, \"group\"";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(sql(action))?;
    for row in rows {
        let (name, group): (String, String) = row.map_err(sql(action))?;
        entry(&mut secrets, name.clone());
        secrets.entry(name).and_modify(|secret| secret.groups.push(group));
    }
    // Whoever has it, and whoever should because of a group.
    let statement = "SELECT w.name, d.name, s.key, json_extract(d.reported, '$.sealing_key'), s.made FROM ( \
                     SELECT g.name AS name, m.device AS device FROM secret_group g JOIN membership m ON m.\"group\" = g.\"group\" \
                     UNION SELECT name, device FROM secret) w JOIN device d ON d.id = w.device AND d.status = 'active' \
                     LEFT JOIN secret s ON s.name = w.name AND s.device = w.device ORDER BY w.name, d.name";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let rows = statement.query_map([], |row| {
        let (sealed, has): (Option<String>, Option<String>) = (row.get(2)?, row.get(3)?);
        let state = match (&sealed, &has) {
            (_, None) => "no-key",
            (None, _) => "lacking",
            (sealed, has) if sealed == has => "sealed",
            _ => "other-key",
        };
        let made: Option<i64> = row.get(4)?;
        Ok((row.get::<_, String>(0)?, Holder { thing: row.get(1)?, state, made: made.map(Timestamp) }))
    });
    for row in rows.map_err(sql(action))? {
        let (name, holder) = row.map_err(sql(action))?;
        entry(&mut secrets, name.clone());
        secrets.entry(name).and_modify(|secret| secret.devices.push(holder));
    }
    Ok(secrets.into_values().collect())
}
