//! The fleet at a glance, and what of it somebody should look at.

use std::collections::BTreeMap;

use holm_core::Timestamp;
use holm_protocol::{StatusDetails, ThingName};
use rusqlite::{Connection, params};

use super::deploy::JobState;
use super::devices::{COLUMNS, Device, complete, of_row};
use super::{Records, moment, unsigned};
use crate::CloudError;
use crate::error::sql;

/// Series that are listed.
const MAX_SERIES: usize = 500;

/// Deployments that failed, and devices that want to be looked at.
const MAX_TOLD: i64 = 20;

/// Sums over the active devices, as they reported last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) devices: u64,
    /// Records that wait on devices.
    pub(crate) backlog: u64,
    /// Records that devices dropped.
    pub(crate) dropped: u64,
    pub(crate) dead_letters: u64,
    pub(crate) invocations: u64,
    /// Invocations that did not succeed.
    pub(crate) faults: u64,
}

/// A device's last deployment that did not end well.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    pub(crate) thing: String,
    pub(crate) status: String,
    pub(crate) details: BTreeMap<String, String>,
    pub(crate) updated: Timestamp,
}

/// A series of functions, over all devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Series {
    /// Such as `water-loss.flow`.
    pub(crate) name: String,
    pub(crate) devices: usize,
    /// The time of its last record.
    pub(crate) last: Timestamp,
    /// That record, and whose it is.
    pub(crate) value: Vec<u8>,
    pub(crate) thing: String,
}

/// How often a version of a function runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) function: String,
    pub(crate) version: String,
    pub(crate) sha256: String,
    pub(crate) devices: u64,
    /// One of them.
    pub(crate) thing: String,
}

/// A certificate of a device.
#[derive(Debug, Clone)]
pub(crate) struct CertificateRow {
    pub(crate) serial: Vec<u8>,
    pub(crate) issued: Timestamp,
    pub(crate) expires: Timestamp,
    pub(crate) ended: Option<Timestamp>,
}

/// Which devices.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sought {
    /// A part of the name.
    pub(crate) text: Option<String>,
    pub(crate) group: Option<String>,
    /// After this name.
    pub(crate) after: String,
    pub(crate) limit: usize,
}

impl Records {
    /// See [`Sums`].
    pub(crate) async fn sums(&self) -> Result<Sums, CloudError> {
        self.read(|connection| {
            let action = "add up the fleet";
            // Devices say what they like: a sum of integers may overflow, and what is beyond 63 bits is none.
            let sum = |figure| format!("CAST(total(json_extract(reported, '$.health.{figure}')) AS INTEGER)");
            let figures = ["backlog", "dropped", "dead_letters", "invocations", "faults"].map(sum).join(", ");
            let statement = format!("SELECT count(*), {figures} FROM device WHERE status = 'active'");
            let mut statement = connection.prepare_cached(&statement).map_err(sql(action))?;
            let row = statement.query_row([], |row| {
                Ok(Sums {
                    devices: unsigned(row.get(0)?),
                    backlog: unsigned(row.get(1)?),
                    dropped: unsigned(row.get(2)?),
                    dead_letters: unsigned(row.get(3)?),
                    invocations: unsigned(row.get(4)?),
                    faults: unsigned(row.get(5)?),
                })
            });
            row.map_err(sql(action))
        })
        .await
    }

    /// Devices by name, those that ended as well.
    pub(crate) async fn seek(&self, sought: Sought) -> Result<Vec<Device>, CloudError> {
        self.read(move |connection| {
            let action = "look for devices";
            let statement = format!(
                "SELECT {COLUMNS} FROM device d WHERE d.name > ?1 AND (?2 IS NULL OR instr(lower(d.name), lower(?2)) > 0) \
                 AND (?3 IS NULL OR EXISTS (SELECT * FROM membership m WHERE m.device = d.id AND m.\"group\" = ?3)) \
                 ORDER BY d.name LIMIT ?4"
            );
            let mut statement = connection.prepare_cached(&statement).map_err(sql(action))?;
            let Sought { text, group, after, limit } = sought;
            let values = params![after, text, group, i64::try_from(limit).unwrap_or(i64::MAX)];
            let found: Result<Vec<_>, _> = statement.query_map(values, of_row).map_err(sql(action))?.collect();
            found.map_err(sql(action))?.into_iter().map(|found| complete(connection, found)).collect()
        })
        .await
    }

    /// The groups that have devices, and how many each.
    pub(crate) async fn groups(&self) -> Result<Vec<(String, u64)>, CloudError> {
        self.read(|connection| {
            let action = "read the groups";
            let statement = "SELECT \"group\", count(*) FROM membership GROUP BY 1 ORDER BY 1";
            let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, unsigned(row.get(1)?))));
            rows.map_err(sql(action))?.collect::<Result<_, _>>().map_err(sql(action))
        })
        .await
    }

    /// Last deployments that did not end well, the latest first.
    pub(crate) async fn failed(&self) -> Result<Vec<Failed>, CloudError> {
        self.read(|connection| {
            let action = "read the jobs";
            let statement = "SELECT d.name, j.status, j.details, j.updated FROM device d \
                             JOIN job j ON j.device = d.id AND j.generation = \
                                 (SELECT max(generation) FROM job WHERE device = d.id) \
                             WHERE d.status = 'active' AND j.status IN ('FAILED', 'REJECTED', 'TIMED_OUT') \
                             ORDER BY j.updated DESC LIMIT ?1";
            let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
            let rows = statement.query_map([MAX_TOLD], |row| {
                Ok(Failed {
                    thing: row.get(0)?,
                    status: row.get(1)?,
                    details: pairs(row.get(2)?),
                    updated: Timestamp(row.get(3)?),
                })
            });
            rows.map_err(sql(action))?.collect::<Result<_, _>>().map_err(sql(action))
        })
        .await
    }

    /// The jobs of a device that are kept, the latest first, and the document of the very latest.
    pub(crate) async fn jobs(&self, thing: ThingName) -> Result<(Vec<JobState>, Option<String>), CloudError> {
        self.read(move |connection| {
            let action = "read the jobs";
            let statement = "SELECT j.generation, j.id, j.status, j.details, j.queued, j.started, j.updated, j.document \
                             FROM job j JOIN device d ON d.id = j.device WHERE d.name = ?1 ORDER BY j.generation DESC";
            let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
            let rows = statement.query_map([thing.as_str()], |row| {
                let job = JobState {
                    generation: unsigned(row.get(0)?),
                    id: row.get(1)?,
                    status: row.get(2)?,
                    details: pairs(row.get(3)?),
                    queued: Timestamp(row.get(4)?),
                    started: moment(row.get(5)?),
                    updated: Timestamp(row.get(6)?),
                };
                Ok((job, row.get::<_, String>(7)?))
            });
            let (mut jobs, mut document) = (Vec::new(), None);
            for row in rows.map_err(sql(action))? {
                let (job, text) = row.map_err(sql(action))?;
                document.get_or_insert(text);
                jobs.push(job);
            }
            Ok((jobs, document))
        })
        .await
    }

    /// The certificates of a device, the latest first.
    pub(crate) async fn certificates(&self, thing: ThingName) -> Result<Vec<CertificateRow>, CloudError> {
        self.read(move |connection| {
            let action = "read the certificates";
            let statement = "SELECT c.serial, c.issued, c.expires, c.ended FROM certificate c \
                             JOIN device d ON d.id = c.device WHERE d.name = ?1 ORDER BY c.issued DESC LIMIT ?2";
            let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
            let rows = statement.query_map(params![thing.as_str(), MAX_TOLD], |row| {
                Ok(CertificateRow {
                    serial: row.get(0)?,
                    issued: Timestamp(row.get(1)?),
                    expires: Timestamp(row.get(2)?),
                    ended: moment(row.get(3)?),
                })
            });
            rows.map_err(sql(action))?.collect::<Result<_, _>>().map_err(sql(action))
        })
        .await
    }

    /// What runs where, by what devices reported.
    pub(crate) async fn running(&self) -> Result<Vec<Running>, CloudError> {
        self.read(|connection| {
            let action = "read what runs";
            let statement = "SELECT json_extract(f.value, '$.name'), json_extract(f.value, '$.version'), \
                             json_extract(f.value, '$.sha256'), count(*), min(d.name) \
                             FROM device d, json_each(d.reported, '$.functions') f \
                             WHERE d.status = 'active' GROUP BY 1, 2, 3 ORDER BY 1, 2";
            let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
            let rows = statement.query_map([], |row| {
                Ok(Running {
                    function: row.get(0)?,
                    version: row.get(1)?,
                    sha256: row.get(2)?,
                    devices: unsigned(row.get(3)?),
                    thing: row.get(4)?,
                })
            });
            rows.map_err(sql(action))?.collect::<Result<_, _>>().map_err(sql(action))
        })
        .await
    }

    /// The series that there are, of a device or of all, the one with the latest record first.
    pub(crate) async fn series(&self, thing: Option<String>) -> Result<Vec<Series>, CloudError> {
        self.read(move |connection| series(connection, thing.as_deref())).await
    }
}

fn series(connection: &Connection, thing: Option<&str>) -> Result<Vec<Series>, CloudError> {
    struct Found {
        devices: usize,
        device: String,
        stream: i64,
        last: i64,
    }
    let action = "read the series";
    let statement = "SELECT s.id, s.name, d.name, (SELECT max(time) FROM record r WHERE r.stream = s.id) \
                     FROM stream s JOIN device d ON d.id = s.device \
                     WHERE s.lane < 2 AND s.name >= 'result.' AND s.name < 'result/' AND (?1 IS NULL OR d.name = ?1) \
                     ORDER BY s.name, d.name";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let mut rows = statement.query(params![thing]).map_err(sql(action))?;
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    while let Some(row) = rows.next().map_err(sql(action))? {
        let read = |row: &rusqlite::Row<'_>| {
            let last: Option<i64> = row.get(3)?;
            Ok::<_, rusqlite::Error>((row.get(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?, last))
        };
        let (stream, name, device, Some(last)) = read(row).map_err(sql(action))? else { continue };
        let name = name.strip_prefix("result.").unwrap_or(&name).to_owned();
        match found.get_mut(&name) {
            None => {
                found.insert(name, Found { devices: 1, device, stream, last });
            }
            Some(there) => {
                // A device with several streams of a name has had several databases; they come one after the other.
                there.devices += usize::from(there.device != device);
                if last >= there.last {
                    (there.stream, there.last) = (stream, last);
                }
                there.device = device;
            }
        }
    }
    let mut found: Vec<(String, Found)> = found.into_iter().collect();
    found.sort_by(|(a, one), (b, two)| two.last.cmp(&one.last).then_with(|| a.cmp(b)));
    found.truncate(MAX_SERIES);
    let statement = "SELECT r.data, d.name FROM record r JOIN stream s ON s.id = r.stream JOIN device d ON d.id = s.device \
                     WHERE r.stream = ?1 AND r.time = ?2 ORDER BY r.sequence DESC LIMIT 1";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let value = |(name, found): (String, Found)| {
        let row = statement.query_row(params![found.stream, found.last], |row| Ok((row.get(0)?, row.get(1)?)));
        let (value, thing) = row.map_err(sql(action))?;
        Ok(Series { name, devices: found.devices, last: Timestamp(found.last), value, thing })
    };
    found.into_iter().map(value).collect()
}

fn pairs(details: Option<String>) -> BTreeMap<String, String> {
    let details = details.and_then(|json| serde_json::from_str::<StatusDetails>(&json).ok());
    let pairs = details.iter().flat_map(|details| details.iter());
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
