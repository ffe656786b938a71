//! Records of traps, as devices sent them: documents of the device's release, of which only the head is understood here.

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::Records;
use crate::CloudError;
use crate::error::sql;

/// The streams of such records, in the index: `.` comes before `/`.
const STREAMS: &str = "s.name >= 'trap.' AND s.name < 'trap/'";

/// What is asked for. What is `None` does not matter.
#[derive(Debug, Default)]
pub(crate) struct TrapSelection {
    pub(crate) device: Option<String>,
    pub(crate) function: Option<String>,
    pub(crate) limit: i64,
}

/// What a list says of a record. The device is the one that sent it, whatever is in it.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TrapSummary {
    pub(crate) id: String,
    pub(crate) device: String,
    pub(crate) time: i64,
    pub(crate) function: String,
    pub(crate) version: String,
    pub(crate) outcome: String,
    pub(crate) fault: Option<String>,
    pub(crate) recorded: u64,
    pub(crate) cut: Vec<String>,
    #[serde(skip_serializing)]
    event: Caused,
    pub(crate) source: String,
    pub(crate) subject: String,
    pub(crate) attempt: u64,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Caused {
    source: String,
    subject: String,
    attempt: u64,
}

impl Records {
    /// Newest first.
    pub(crate) async fn traps(&self, selection: TrapSelection) -> Result<Vec<TrapSummary>, CloudError> {
        self.read(move |connection| list(connection, &selection)).await
    }

    /// The documents, each with its device, whose names begin so: at most two, which is one too many. The text is one of
    /// hexadecimal digits.
    pub(crate) async fn trap(&self, id: String) -> Result<Vec<(String, Vec<u8>)>, CloudError> {
        self.read(move |connection| find(connection, &id)).await
    }
}

fn list(connection: &Connection, selection: &TrapSelection) -> Result<Vec<TrapSummary>, CloudError> {
    let action = "list records of traps";
    let statement = format!(
        "SELECT d.name, r.time, r.data FROM stream s JOIN device d ON d.id = s.device JOIN record r ON r.stream = s.id \
         WHERE {STREAMS} AND (?1 IS NULL OR d.name = ?1) AND (?2 IS NULL OR s.name = 'trap.' || ?2) \
         ORDER BY r.time DESC, r.sequence DESC LIMIT ?3"
    );
    let mut statement = connection.prepare_cached(&statement).map_err(sql(action))?;
    let TrapSelection { device, function, limit } = selection;
    let rows = statement.query_map(params![device, function, limit], |row| {
        let (device, time): (String, i64) = (row.get(0)?, row.get(1)?);
        // A record at a time: all of them together may be large.
        let document = row.get_ref(2)?.as_bytes()?;
        let mut summary: TrapSummary = serde_json::from_slice(document).unwrap_or_default();
        let Caused { source, subject, attempt } = std::mem::take(&mut summary.event);
        Ok(TrapSummary { device, time, source, subject, attempt, ..summary })
    });
    rows.map_err(sql(action))?.collect::<Result<_, _>>().map_err(sql(action))
}

fn find(connection: &Connection, id: &str) -> Result<Vec<(String, Vec<u8>)>, CloudError> {
    let action = "find the record of a trap";
    // The name is at the head of the document, whose writer is the device's: it is compared as it stands there.
    let statement = format!(
        "SELECT d.name, r.data FROM stream s JOIN device d ON d.id = s.device JOIN record r ON r.stream = s.id \
         WHERE {STREAMS} AND CAST(substr(r.data, 1, 64) AS TEXT) LIKE '{{\"v\":_,\"id\":\"' || ?1 || '%' LIMIT 2"
    );
    let mut statement = connection.prepare_cached(&statement).map_err(sql(action))?;
    let rows = statement.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.map_err(sql(action))?.collect::<Result<_, _>>().map_err(sql(action))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_by_device_function_and_name_and_what_is_no_record_does_no_harm() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("schema/1000.sql")).unwrap();
        for (id, name) in [(1, "pi1"), (2, "pi2")] {
            let device = "INSERT INTO device (id, name, status, enrolled, seen, version, arch, engine, profile) \
                          VALUES (?1, ?2, 'active', 0, 0, '', '', '', '')";
            connection.execute(device, params![id, name]).unwrap();
        }
        let rows = [
            (
                1,
                1,
                "trap.heat",
                10,
                r#"{"v":1,"id":"aaaa01","device":"liar","function":"heat","event":{"subject":"a/b","attempt":2}}"#,
            ),
            (2, 2, "trap.heat", 20, r#"{"v":1,"id":"aaaa02","function":"heat"}"#),
            (3, 2, "trap.cold", 30, "no JSON"),
            (4, 2, "log.heat", 40, r#"{"v":1,"id":"aaaa03"}"#),
        ];
        for (stream, device, name, time, data) in rows {
            let made = "INSERT INTO stream (id, device, name, epoch, lane, upto) VALUES (?1, ?2, ?3, 1, 2, 0)";
            connection.execute(made, params![stream, device, name]).unwrap();
            let record = "INSERT INTO record (stream, sequence, time, data) VALUES (?1, 1, ?2, ?3)";
            connection.execute(record, params![stream, time, data.as_bytes()]).unwrap();
        }
        let names = |device: Option<&str>, function: Option<&str>| {
            let (device, function) = (device.map(str::to_owned), function.map(str::to_owned));
            let found = list(&connection, &TrapSelection { device, function, limit: 10 }).unwrap();
            found.into_iter().map(|one| (one.device, one.id)).collect::<Vec<_>>()
        };
        let pair = |device: &str, id: &str| (device.to_owned(), id.to_owned());
        assert_eq!(names(None, None), [pair("pi2", ""), pair("pi2", "aaaa02"), pair("pi1", "aaaa01")]);
        assert_eq!(names(Some("pi1"), None), [pair("pi1", "aaaa01")]);
        assert_eq!(names(Some("pi2"), Some("heat")), [pair("pi2", "aaaa02")]);
        let found = |id: &str| find(&connection, id).unwrap().len();
        assert_eq!((found("aaaa01"), found("aaaa"), found("aaaa03"), found("b")), (1, 2, 0, 0));
    }
}
