//! Devices, their groups and their certificates.

use std::collections::BTreeSet;

use holm_core::Timestamp;
use holm_protocol::limits::MAX_GROUPS;
use holm_protocol::{AgentBuild, GroupName, ThingName};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::value::RawValue;

use super::tokens::audit;
use super::{Records, Refused, moment, unsigned};
use crate::CloudError;
use crate::error::sql;
use crate::secret::Hash;

/// Being heard of again within this time, in milliseconds, is not worth a write.
const SEEN_EVERY: i64 = 10_000;

/// How a device stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DeviceStatus {
    Active,
    /// Its name is with another device now.
    Replaced,
    Revoked,
}

impl DeviceStatus {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Replaced => "replaced",
            Self::Revoked => "revoked",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Active, Self::Replaced, Self::Revoked].into_iter().find(|status| status.as_str() == text)
    }
}

/// A device as it is shown.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) thing: String,
    pub(crate) status: DeviceStatus,
    pub(crate) groups: Vec<String>,
    pub(crate) enrolled: Timestamp,
    pub(crate) seen: Timestamp,
    pub(crate) agent: AgentBuild,
    /// The begin and the end of its last certificate that has not ended.
    pub(crate) certificate_issued: Option<Timestamp>,
    pub(crate) certificate_expires: Option<Timestamp>,
    pub(crate) reported: Option<Box<RawValue>>,
    pub(crate) reported_at: Option<Timestamp>,
    pub(crate) reported_version: u64,
    /// Its last job: generation, id, status.
    pub(crate) job: Option<(u64, String, String)>,
}

/// What is kept of a certificate.
#[derive(Debug, Clone)]
pub(crate) struct NewCertificate {
    pub(crate) serial: Vec<u8>,
    pub(crate) fingerprint: Hash,
    /// Of its public key.
    pub(crate) key: Hash,
    pub(crate) issued: Timestamp,
    pub(crate) expires: Timestamp,
}

/// A certificate that opens the door.
#[derive(Debug, Clone)]
pub(crate) struct LiveCertificate {
    pub(crate) fingerprint: Hash,
    pub(crate) thing: String,
}

/// A renewal that went through.
#[derive(Debug, Clone)]
pub(crate) struct Renewed {
    pub(crate) groups: Vec<String>,
    /// Certificates that ended with it.
    pub(crate) ended: Vec<Hash>,
}

/// What [`of_row`] reads of `device d`.
pub(super) const COLUMNS: &str = "d.id, d.name, d.status, d.enrolled, d.seen, d.version, d.arch, d.engine, d.profile, d.reported, \
    d.reported_at, d.reported_version, \
    (SELECT max(c.expires) FROM certificate c WHERE c.device = d.id AND c.ended IS NULL), \
    (SELECT c.issued FROM certificate c WHERE c.device = d.id AND c.ended IS NULL ORDER BY c.expires DESC LIMIT 1)";

impl Records {
    /// One device.
    pub(crate) async fn device(&self, thing: ThingName) -> Result<Option<Device>, CloudError> {
        self.read(move |connection| {
            let action = "read a device";
            let statement = format!("SELECT {COLUMNS} FROM device d WHERE d.name = ?1");
            let mut statement = connection.prepare_cached(&statement).map_err(sql(action))?;
            let found = statement.query_row([thing.as_str()], of_row).optional().map_err(sql(action))?;
            found.map(|found| complete(connection, found)).transpose()
        })
        .await
    }

    /// Devices by name, after one, of a group or of all, of a status or of any.
    pub(crate) async fn devices(
        &self,
        group: Option<String>,
        status: Option<DeviceStatus>,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<Device>, CloudError> {
        self.read(move |connection| {
            let action = "read the devices";
            let statement = format!(
                "SELECT {COLUMNS} FROM device d WHERE d.name > ?1 AND (?2 IS NULL OR d.status = ?2) \
                 AND (?3 IS NULL OR EXISTS (SELECT * FROM membership m WHERE m.device = d.id AND m.\"group\" = ?3)) \
                 ORDER BY d.name LIMIT ?4"
            );
            let mut statement = connection.prepare_cached(&statement).map_err(sql(action))?;
            let status = status.map(DeviceStatus::as_str);
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = statement
                .query_map(params![after.unwrap_or_default(), status, group, limit], of_row)
                .map_err(sql(action))?
                .collect::<Result<Vec<_>, _>>()
                .map_err(sql(action))?;
            rows.into_iter().map(|found| complete(connection, found)).collect()
        })
        .await
    }

    /// Which certificates are good, to begin with.
    pub(crate) async fn live_certificates(&self) -> Result<Vec<LiveCertificate>, CloudError> {
        self.read(|connection| {
            let action = "read the certificates";
            let statement = "SELECT c.fingerprint, d.name FROM certificate c JOIN device d ON d.id = c.device \
                             WHERE c.ended IS NULL AND d.status = 'active'";
            let mut statement = connection.prepare(statement).map_err(sql(action))?;
            let rows = statement
                .query_map([], |row| Ok(LiveCertificate { fingerprint: Hash(row.get(0)?), thing: row.get(1)? }));
            rows.map_err(sql(action))?.collect::<Result<_, _>>().map_err(sql(action))
        })
        .await
    }

    /// Whose certificate this is.
    pub(crate) async fn owner(&self, fingerprint: Hash) -> Result<Result<ThingName, Refused>, CloudError> {
        self.read(move |connection| Ok(owner(connection, fingerprint)?.map(|(_, thing)| thing))).await
    }

    /// Gives a device a new certificate in place of the one with `old`, which stays good: the new one may get lost on its way.
    /// Others that it has got since end, because it renews with the one that it has.
    pub(crate) async fn renew(
        &self,
        old: Hash,
        agent: Option<AgentBuild>,
        certificate: NewCertificate,
        now: Timestamp,
    ) -> Result<Result<Renewed, Refused>, CloudError> {
        self.write(move |connection| {
            let action = "renew a certificate";
            let (device, thing) = match owner(connection, old)? {
                Ok(owner) => owner,
                Err(refused) => return Ok(Err(refused)),
            };
            let statement = "UPDATE certificate SET ended = ?3 WHERE device = ?1 AND fingerprint != ?2 AND ended IS NULL \
                             RETURNING fingerprint";
            let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
            let ended = statement
                .query_map(params![device, old.0, now.0], |row| Ok(Hash(row.get(0)?)))
                .map_err(sql(action))?
                .collect::<Result<_, _>>()
                .map_err(sql(action))?;
            insert_certificate(connection, device, &certificate, now)?;
            if let Some(agent) = agent {
                note_build(connection, device, &agent)?;
            }
            audit(connection, now, "", "renew", thing.as_str())?;
            Ok(Ok(Renewed { groups: groups(connection, device)?, ended }))
        })
        .await
    }

    /// Ends a device and all its certificates, whose fingerprints are answered.
    pub(crate) async fn revoke(
        &self,
        thing: ThingName,
        operator: String,
        now: Timestamp,
    ) -> Result<Result<Vec<Hash>, Refused>, CloudError> {
        self.write(move |connection| {
            let action = "revoke a device";
            let Some(device) = find(connection, &thing)? else { return Ok(Err(Refused::NoSuchDevice)) };
            connection
                .execute("UPDATE device SET status = 'revoked' WHERE id = ?1", [device.id])
                .map_err(sql(action))?;
            let ended = end_certificates(connection, device.id, now)?;
            audit(connection, now, &operator, "revoke", thing.as_str())?;
            Ok(Ok(ended))
        })
        .await
    }

    /// Takes a device into groups and out of others. Answers all that it is in then.
    pub(crate) async fn change_groups(
        &self,
        thing: ThingName,
        add: Vec<GroupName>,
        remove: Vec<GroupName>,
        operator: String,
        now: Timestamp,
    ) -> Result<Result<Vec<String>, Refused>, CloudError> {
        self.write(move |connection| {
            let Some(device) = find(connection, &thing)? else { return Ok(Err(Refused::NoSuchDevice)) };
            let before = groups(connection, device.id)?;
            let mut after: BTreeSet<String> = before.iter().cloned().collect();
            after.extend(add.iter().map(ToString::to_string));
            for group in &remove {
                after.remove(group.as_str());
            }
            if let Err(sentence) = fits(thing.as_str(), &after) {
                return Ok(Err(Refused::Conflict(sentence)));
            }
            let after: Vec<String> = after.into_iter().collect();
            put_groups(connection, device.id, thing.as_str(), &before, &after, &operator, now)?;
            Ok(Ok(after))
        })
        .await
    }

    /// A device was heard of. Nobody waits for it, and if there is no room for it, nothing is lost that matters.
    pub(crate) fn note_seen(&self, thing: &str, now: Timestamp) {
        let thing = thing.to_owned();
        let change = move |connection: &Connection| {
            let statement = "UPDATE device SET seen = ?2 WHERE name = ?1 AND seen < ?2";
            let mut statement = connection.prepare_cached(statement).map_err(sql("note a device"))?;
            statement.execute(params![thing, now.0]).map_err(sql("note a device"))
        };
        let _ = self.offer(0, change, |_| {});
    }
}

/// Its id, and the device but for what [`complete`] adds.
pub(super) fn of_row(row: &Row<'_>) -> rusqlite::Result<(i64, Device)> {
    let status: String = row.get(2)?;
    let reported: Option<String> = row.get(9)?;
    let device = Device {
        thing: row.get(1)?,
        status: DeviceStatus::parse(&status).unwrap_or(DeviceStatus::Revoked),
        groups: Vec::new(),
        enrolled: Timestamp(row.get(3)?),
        seen: Timestamp(row.get(4)?),
        agent: AgentBuild { version: row.get(5)?, arch: row.get(6)?, engine: row.get(7)?, profile: row.get(8)? },
        certificate_issued: moment(row.get(13)?),
        certificate_expires: moment(row.get(12)?),
        reported: reported.and_then(|json| RawValue::from_string(json).ok()),
        reported_at: moment(row.get(10)?),
        reported_version: unsigned(row.get(11)?),
        job: None,
    };
    Ok((row.get(0)?, device))
}

pub(super) fn complete(connection: &Connection, (id, mut device): (i64, Device)) -> Result<Device, CloudError> {
    device.groups = groups(connection, id)?;
    let statement = "SELECT generation, id, status FROM job WHERE device = ?1 ORDER BY generation DESC LIMIT 1";
    let mut statement = connection.prepare_cached(statement).map_err(sql("read a job"))?;
    device.job = statement
        .query_row([id], |row| Ok((unsigned(row.get(0)?), row.get(1)?, row.get(2)?)))
        .optional()
        .map_err(sql("read a job"))?;
    Ok(device)
}

/// A device as far as changes need it.
pub(super) struct Found {
    pub(super) id: i64,
    pub(super) status: DeviceStatus,
    seen: i64,
}

pub(super) fn find(connection: &Connection, thing: &ThingName) -> Result<Option<Found>, CloudError> {
    let action = "find a device";
    let statement = "SELECT id, status, seen FROM device WHERE name = ?1";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let found = statement.query_row([thing.as_str()], |row| {
        let status: String = row.get(1)?;
        let status = DeviceStatus::parse(&status).unwrap_or(DeviceStatus::Revoked);
        Ok(Found { id: row.get(0)?, status, seen: row.get(2)? })
    });
    found.optional().map_err(sql(action))
}

impl Found {
    /// It was heard of, which is written down now and then.
    pub(super) fn touch(&self, connection: &Connection, now: Timestamp) -> Result<(), CloudError> {
        if now.0 - self.seen >= SEEN_EVERY {
            let mut statement =
                connection.prepare_cached("UPDATE device SET seen = ?2 WHERE id = ?1").map_err(sql("note a device"))?;
            statement.execute(params![self.id, now.0]).map_err(sql("note a device"))?;
        }
        Ok(())
    }
}

/// A new device; `None` if there is one of that name.
pub(super) fn insert(
    connection: &Connection,
    thing: &ThingName,
    agent: &AgentBuild,
    now: Timestamp,
) -> Result<Option<i64>, CloudError> {
    let statement = "INSERT INTO device (name, status, enrolled, seen, version, arch, engine, profile) \
                     VALUES (?1, 'active', ?2, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (name) DO NOTHING";
    let AgentBuild { version, arch, engine, profile } = agent;
    let rows = connection
        .execute(statement, params![thing.as_str(), now.0, version, arch, engine, profile])
        .map_err(sql("add a device"))?;
    Ok((rows > 0).then(|| connection.last_insert_rowid()))
}

/// What a device runs on, as it says.
pub(super) fn note_build(connection: &Connection, device: i64, agent: &AgentBuild) -> Result<(), CloudError> {
    let statement = "UPDATE device SET version = ?2, arch = ?3, engine = ?4, profile = ?5 \
                     WHERE id = ?1 AND (version, arch, engine, profile) != (?2, ?3, ?4, ?5)";
    let mut statement = connection.prepare_cached(statement).map_err(sql("keep a device's build"))?;
    let AgentBuild { version, arch, engine, profile } = agent;
    statement.execute(params![device, version, arch, engine, profile]).map_err(sql("keep a device's build"))?;
    Ok(())
}

pub(super) fn insert_certificate(
    connection: &Connection,
    device: i64,
    certificate: &NewCertificate,
    now: Timestamp,
) -> Result<(), CloudError> {
    let NewCertificate { serial, fingerprint, key, issued, expires } = certificate;
    let statement = "INSERT INTO certificate (serial, device, fingerprint, key, issued, expires) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    connection
        .execute(statement, params![serial, device, fingerprint.0, key.0, issued.0.min(now.0), expires.0])
        .map(|_| ())
        .map_err(sql("keep a certificate"))
}

/// Ends all certificates of a device. Answers the fingerprints of all that it ever had.
pub(super) fn end_certificates(connection: &Connection, device: i64, now: Timestamp) -> Result<Vec<Hash>, CloudError> {
    let action = "end the certificates of a device";
    let statement = "UPDATE certificate SET ended = coalesce(ended, ?2) WHERE device = ?1 RETURNING fingerprint";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let ended = statement.query_map(params![device, now.0], |row| Ok(Hash(row.get(0)?))).map_err(sql(action))?;
    ended.collect::<Result<_, _>>().map_err(sql(action))
}

pub(super) fn groups(connection: &Connection, device: i64) -> Result<Vec<String>, CloudError> {
    let action = "read a device's groups";
    let statement = "SELECT \"group\" FROM membership WHERE device = ?1 ORDER BY \"group\"";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let rows = statement.query_map([device], |row| row.get(0)).map_err(sql(action))?;
    rows.collect::<Result<_, _>>().map_err(sql(action))
}

/// Whether a device may be in so many groups.
pub(super) fn fits(thing: &str, groups: &BTreeSet<String>) -> Result<(), String> {
    match groups.len() {
        count if count > MAX_GROUPS => {
            Err(format!("{thing} would be in {count} groups, and {MAX_GROUPS} are the most"))
        }
        _ => Ok(()),
    }
}

/// Takes a device into these groups and no others, if it is not so already.
pub(super) fn put_groups(
    connection: &Connection,
    device: i64,
    thing: &str,
    before: &[String],
    after: &[String],
    operator: &str,
    now: Timestamp,
) -> Result<(), CloudError> {
    if after == before {
        return Ok(());
    }
    let action = "change the groups of a device";
    connection.execute("DELETE FROM membership WHERE device = ?1", [device]).map_err(sql(action))?;
    let statement = "INSERT INTO membership (device, \"group\") VALUES (?1, ?2)";
    for group in after {
        connection.execute(statement, params![device, group]).map_err(sql(action))?;
    }
    audit(connection, now, operator, "change groups", &format!("{thing}: {}", after.join(" ")))
}

fn owner(connection: &Connection, fingerprint: Hash) -> Result<Result<(i64, ThingName), Refused>, CloudError> {
    let action = "find a certificate";
    let statement = "SELECT d.id, d.name, d.status, c.ended FROM certificate c JOIN device d ON d.id = c.device \
                     WHERE c.fingerprint = ?1";
    let found = connection
        .query_row(statement, [fingerprint.0], |row| {
            Ok((row.get(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?, row.get::<_, Option<i64>>(3)?))
        })
        .optional()
        .map_err(sql(action))?;
    let Some((id, name, status, ended)) = found else { return Ok(Err(Refused::CertificateUnknown)) };
    if status != DeviceStatus::Active.as_str() || ended.is_some() {
        return Ok(Err(Refused::CertificateRevoked));
    }
    let thing =
        ThingName::new(&name).map_err(|error| CloudError::Row { what: "device", problem: error.to_string() })?;
    Ok(Ok((id, thing)))
}
