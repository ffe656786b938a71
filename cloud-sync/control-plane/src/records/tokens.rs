//! Operators' tokens, enrolment tokens, and what is done with the latter.

use std::sync::Arc;

use holm_core::Timestamp;
use holm_protocol::{AgentBuild, DeploymentPolicy, DesiredFunction, GroupName, ThingName};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::desired::{self, NextState};
use super::devices::{self, NewCertificate};
use super::{Records, Refused, moment, rollouts};
use crate::CloudError;
use crate::error::sql;
use crate::secret::Hash;
use crate::signing::Signing;

/// How long a device has to get what it shall run from the first, in seconds: a day.
const FIRST_DEADLINE: u32 = 86_400;

/// A token as it is listed.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct TokenInfo {
    /// The first digits of the hash: names it, and lets nobody in.
    pub(crate) id: String,
    pub(crate) group: Option<String>,
    /// Whose place the device takes that comes with it.
    pub(crate) replaces: Option<String>,
    pub(crate) made: Timestamp,
    pub(crate) expires: Timestamp,
    pub(crate) used: Option<Timestamp>,
    /// Who used it.
    pub(crate) thing: Option<String>,
}

/// A device that comes with a token.
pub(crate) struct Enrolment {
    pub(crate) token: Hash,
    pub(crate) thing: ThingName,
    pub(crate) agent: AgentBuild,
    /// Signed already; worth nothing unless this is committed.
    pub(crate) certificate: NewCertificate,
    pub(crate) now: Timestamp,
}

/// A device that was let in.
pub(crate) struct Admitted {
    pub(crate) thing: ThingName,
    pub(crate) groups: Vec<String>,
    /// Certificates of the device whose place it takes: they ended with it.
    pub(crate) ended: Vec<Hash>,
}

/// For whom a token is.
pub(crate) enum Meant {
    /// Whoever comes, into a group or into none.
    Anybody(Option<GroupName>),
    /// The one that takes this device's place.
    InsteadOf(ThingName),
}

impl Records {
    /// Keeps the hash of a new enrolment token.
    pub(crate) async fn add_token(
        &self,
        hash: Hash,
        meant: Meant,
        made: Timestamp,
        expires: Timestamp,
        operator: String,
    ) -> Result<Result<(), Refused>, CloudError> {
        self.write(move |connection| {
            let (group, replaces) = match &meant {
                Meant::Anybody(group) => (group.as_ref().map(GroupName::as_str), None),
                Meant::InsteadOf(thing) => match devices::find(connection, thing)? {
                    Some(device) => (None, Some(device.id)),
                    None => return Ok(Err(Refused::NoSuchDevice)),
                },
            };
            let statement = "INSERT INTO token (hash, \"group\", made, expires, replaces) VALUES (?1, ?2, ?3, ?4, ?5)";
            let values = params![hash.0, group, made.0, expires.0, replaces];
            connection.execute(statement, values).map_err(sql("keep a token"))?;
            let what = match &meant {
                Meant::Anybody(_) => hash.id(),
                Meant::InsteadOf(thing) => format!("{} to replace {thing}", hash.id()),
            };
            audit(connection, made, &operator, "make an enrolment token", &what)?;
            Ok(Ok(()))
        })
        .await
    }

    /// The enrolment tokens, the latest first, at most `limit`.
    pub(crate) async fn tokens(&self, limit: usize) -> Result<Vec<TokenInfo>, CloudError> {
        self.read(move |connection| {
            let action = "read the tokens";
            let statement = "SELECT t.hash, t.\"group\", t.made, t.expires, t.used, d.name, r.name \
                             FROM token t LEFT JOIN device d ON d.id = t.device \
                             LEFT JOIN device r ON r.id = t.replaces ORDER BY t.made DESC LIMIT ?1";
            let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
            let rows = statement.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
                Ok(TokenInfo {
                    id: Hash(row.get(0)?).id(),
                    group: row.get(1)?,
                    made: Timestamp(row.get(2)?),
                    expires: Timestamp(row.get(3)?),
                    used: moment(row.get(4)?),
                    thing: row.get(5)?,
                    replaces: row.get(6)?,
                })
            });
            rows.map_err(sql(action))?.collect::<Result<_, _>>().map_err(sql(action))
        })
        .await
    }

    /// Who has used this token, or for whom alone it is; `None` if there is no such token.
    pub(crate) async fn token_user(&self, hash: Hash) -> Result<Option<Option<ThingName>>, CloudError> {
        self.read(move |connection| {
            let action = "read a token";
            let statement = "SELECT d.name FROM token t LEFT JOIN device d ON d.id = coalesce(t.device, t.replaces) \
                             WHERE t.hash = ?1";
            let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
            let found: Option<Option<String>> =
                statement.query_row([hash.0], |row| row.get(0)).optional().map_err(sql(action))?;
            let name = |name: String| {
                ThingName::new(&name).map_err(|error| CloudError::Row { what: "device", problem: error.to_string() })
            };
            found.map(|found| found.map(name).transpose()).transpose()
        })
        .await
    }

    /// Uses a token up for a device. A token that was used by a device with the same key is taken
    /// once more: the answer was lost on the way, and whoever else sends the same request has no key to go with the
    /// certificate.
    pub(crate) async fn enrol(
        &self,
        enrolment: Enrolment,
        signing: Arc<Signing>,
    ) -> Result<Result<Admitted, Refused>, CloudError> {
        self.write(move |connection| enrol(connection, &enrolment, &signing)).await
    }
}

fn enrol(
    connection: &Connection,
    enrolment: &Enrolment,
    signing: &Signing,
) -> Result<Result<Admitted, Refused>, CloudError> {
    let action = "enrol a device";
    let Enrolment { token, thing, agent, certificate, now } = enrolment;
    let found = connection
        .query_row("SELECT \"group\", expires, device, replaces FROM token WHERE hash = ?1", [token.0], |row| {
            let (device, replaces): (Option<i64>, Option<i64>) = (row.get(2)?, row.get(3)?);
            Ok((row.get::<_, Option<String>>(0)?, row.get::<_, i64>(1)?, device, replaces))
        })
        .optional()
        .map_err(sql(action))?;
    let Some((group, expires, used_by, replaces)) = found else { return Ok(Err(Refused::TokenUnknown)) };
    if let Some(device) = used_by {
        let same = "SELECT d.name FROM certificate c JOIN device d ON d.id = c.device \
                    WHERE c.device = ?1 AND c.key = ?2 AND c.ended IS NULL AND d.status = 'active' AND d.name = ?3";
        let same: Option<String> = connection
            .query_row(same, params![device, certificate.key.0, thing.as_str()], |row| row.get(0))
            .optional()
            .map_err(sql(action))?;
        if same.is_none() || expires < now.0 {
            return Ok(Err(Refused::TokenUsed));
        }
        devices::insert_certificate(connection, device, certificate, *now)?;
        let groups = devices::groups(connection, device)?;
        return Ok(Ok(Admitted { thing: thing.clone(), groups, ended: Vec::new() }));
    }
    if expires < now.0 {
        return Ok(Err(Refused::TokenExpired));
    }
    if let Some(device) = replaces {
        return replace(connection, device, enrolment, signing);
    }
    let Some(device) = devices::insert(connection, thing, agent, *now)? else { return Ok(Err(Refused::ThingTaken)) };
    if let Some(group) = &group {
        let statement = "INSERT INTO membership (device, \"group\") VALUES (?1, ?2)";
        connection.execute(statement, params![device, group]).map_err(sql(action))?;
    }
    devices::insert_certificate(connection, device, certificate, *now)?;
    connection
        .execute("UPDATE token SET used = ?2, device = ?3 WHERE hash = ?1", params![token.0, now.0, device])
        .map_err(sql(action))?;
    audit(connection, *now, "", "enrol", thing.as_str())?;
    if let Some(group) = &group {
        let functions = rollouts::runs_in(connection, group)?;
        if !functions.is_empty()
            && let Err(Refused::Conflict(problem)) = tell_first(connection, thing, 0, functions, signing, *now)?
        {
            // It is let in all the same, and can be deployed to.
            tracing::error!(%thing, group, problem, "it does not get what runs in its group");
        }
    }
    Ok(Ok(Admitted { thing: thing.clone(), groups: group.into_iter().collect(), ended: Vec::new() }))
}

/// What a device shall run that runs nothing yet. It has been watched elsewhere.
fn tell_first(
    connection: &Connection,
    thing: &ThingName,
    generation: u64,
    functions: Vec<DesiredFunction>,
    signing: &Signing,
    now: Timestamp,
) -> Result<Result<(), Refused>, CloudError> {
    let policy = DeploymentPolicy { health_window_s: 0, deadline_s: FIRST_DEADLINE, window: None };
    let (thing, operator) = (thing.clone(), String::new());
    let next = NextState { thing, generation, functions, policy, rollout: None, operator, now };
    Ok(desired::put(connection, next, signing)?.map(|_| ()))
}

/// Gives a device's name, groups and functions to the one that has come with a token for that, and ends the certificates of the
/// one before. Everything that is kept of the name goes on: the same series, the same rollouts.
fn replace(
    connection: &Connection,
    device: i64,
    enrolment: &Enrolment,
    signing: &Signing,
) -> Result<Result<Admitted, Refused>, CloudError> {
    let action = "replace a device";
    let Enrolment { token, thing, agent, certificate, now } = enrolment;
    let name: String = connection
        .query_row("SELECT name FROM device WHERE id = ?1", [device], |row| row.get(0))
        .map_err(sql(action))?;
    if name != thing.as_str() {
        let sentence =
            format!("this token is for the device that takes the place of {name}: enrol as that, or without a name");
        return Ok(Err(Refused::Conflict(sentence)));
    }
    let ended = devices::end_certificates(connection, device, *now)?;
    // What it has said of itself was said by another.
    let statement = "UPDATE device SET status = 'active', enrolled = ?2, seen = ?2, version = ?3, arch = ?4, engine = ?5, \
                     profile = ?6, reported = NULL, reported_at = NULL WHERE id = ?1";
    let AgentBuild { version, arch, engine, profile } = agent;
    let last = desired::last(connection, device)?;
    connection.execute(statement, params![device, now.0, version, arch, engine, profile]).map_err(sql(action))?;
    devices::insert_certificate(connection, device, certificate, *now)?;
    let used = "UPDATE token SET used = ?2, device = ?3 WHERE hash = ?1";
    connection.execute(used, params![token.0, now.0, device]).map_err(sql(action))?;
    // It has nothing yet, so what the one before had done counts for nothing: it is told anew, all of it.
    if last.generation > 0
        && let Err(refused) = tell_first(connection, thing, last.generation, last.functions, signing, *now)?
    {
        return Ok(Err(refused));
    }
    audit(connection, *now, "", "replace", thing.as_str())?;
    Ok(Ok(Admitted { thing: thing.clone(), groups: devices::groups(connection, device)?, ended }))
}

/// Notes who changed what. Part of the change's transaction.
pub(super) fn audit(
    connection: &Connection,
    now: Timestamp,
    operator: &str,
    what: &str,
    object: &str,
) -> Result<(), CloudError> {
    let statement = "INSERT INTO audit (time, operator, action, object) VALUES (?1, ?2, ?3, ?4)";
    let mut statement = connection.prepare_cached(statement).map_err(sql("keep the audit"))?;
    statement.execute(params![now.0, operator, what, object]).map(|_| ()).map_err(sql("keep the audit"))
}
