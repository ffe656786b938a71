//! Operators' tokens, enrolment tokens, and what is done with the latter.

use holm_core::Timestamp;
use holm_protocol::{AgentBuild, GroupName, ThingName};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::devices::{self, NewCertificate};
use super::{Records, Refused, moment};
use crate::CloudError;
use crate::error::sql;
use crate::secret::Hash;

/// A token as it is listed.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct TokenInfo {
    /// The first digits of the hash: names it, and lets nobody in.
    pub(crate) id: String,
    pub(crate) group: Option<String>,
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

impl Records {
    /// Keeps the hash of a new enrolment token.
    pub(crate) async fn add_token(
        &self,
        hash: Hash,
        group: Option<GroupName>,
        made: Timestamp,
        expires: Timestamp,
        operator: String,
    ) -> Result<(), CloudError> {
        self.write(move |connection| {
            let group = group.as_ref().map(GroupName::as_str);
            let statement = "INSERT INTO token (hash, \"group\", made, expires) VALUES (?1, ?2, ?3, ?4)";
            connection.execute(statement, params![hash.0, group, made.0, expires.0]).map_err(sql("keep a token"))?;
            audit(connection, made, &operator, "make an enrolment token", &hash.id())
        })
        .await
    }

    /// The enrolment tokens, the latest first, at most `limit`.
    pub(crate) async fn tokens(&self, limit: usize) -> Result<Vec<TokenInfo>, CloudError> {
        self.read(move |connection| {
            let action = "read the tokens";
            let statement = "SELECT t.hash, t.\"group\", t.made, t.expires, t.used, d.name \
                             FROM token t LEFT JOIN device d ON d.id = t.device ORDER BY t.made DESC LIMIT ?1";
            let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
            let rows = statement.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
                Ok(TokenInfo {
                    id: Hash(row.get(0)?).id(),
                    group: row.get(1)?,
                    made: Timestamp(row.get(2)?),
                    expires: Timestamp(row.get(3)?),
                    used: moment(row.get(4)?),
                    thing: row.get(5)?,
                })
            });
            rows.map_err(sql(action))?.collect::<Result<_, _>>().map_err(sql(action))
        })
        .await
    }

    /// Who has used this token; `None` if there is no such token.
    pub(crate) async fn token_user(&self, hash: Hash) -> Result<Option<Option<ThingName>>, CloudError> {
        self.read(move |connection| {
            let action = "read a token";
            let statement = "SELECT d.name FROM token t LEFT JOIN device d ON d.id = t.device WHERE t.hash = ?1";
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

    /// Uses a token up for a device, whose groups are answered. A token that was used by a device with the same key is taken
    /// once more: the answer was lost on the way, and whoever else sends the same request has no key to go with the
    /// certificate.
    pub(crate) async fn enrol(
        &self,
        enrolment: Enrolment,
    ) -> Result<Result<(ThingName, Vec<String>), Refused>, CloudError> {
        self.write(move |connection| enrol(connection, &enrolment)).await
    }
}

fn enrol(
    connection: &Connection,
    enrolment: &Enrolment,
) -> Result<Result<(ThingName, Vec<String>), Refused>, CloudError> {
    let action = "enrol a device";
    let Enrolment { token, thing, agent, certificate, now } = enrolment;
    let found = connection
        .query_row("SELECT \"group\", expires, device FROM token WHERE hash = ?1", [token.0], |row| {
            Ok((row.get::<_, Option<String>>(0)?, row.get::<_, i64>(1)?, row.get::<_, Option<i64>>(2)?))
        })
        .optional()
        .map_err(sql(action))?;
    let Some((group, expires, used_by)) = found else { return Ok(Err(Refused::TokenUnknown)) };
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
        return Ok(Ok((thing.clone(), devices::groups(connection, device)?)));
    }
    if expires < now.0 {
        return Ok(Err(Refused::TokenExpired));
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
    Ok(Ok((thing.clone(), group.into_iter().collect())))
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
