//! `holm fleet`: the devices of the control plane.

use serde::Deserialize;
use serde_json::Value;

use crate::client::parse;
use crate::failure::Failure;
use crate::look::{Look, Tone, span};
use crate::remote::{Remote, query};
use crate::screen::Screen;
use crate::table::{Cell, Table};

/// Devices that are asked for at once.
const PAGE: usize = 1_000;

/// See `holm fleet --help`.
#[derive(clap::Args)]
pub(crate) struct Fleet {
    /// Only of this group
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Also those that were revoked or replaced
    #[arg(long)]
    all: bool,
    /// As JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// A device as the API has it, as far as it is shown here.
#[derive(Deserialize)]
struct Shown {
    thing: String,
    status: String,
    connected: bool,
    groups: Vec<String>,
    seen: i64,
    agent: Agent,
    reported: Option<Value>,
    job: Option<Job>,
}

#[derive(Deserialize)]
struct Agent {
    version: String,
}

#[derive(Deserialize)]
struct Job {
    generation: u64,
    status: String,
}

impl Fleet {
    pub(crate) async fn run(&self, screen: &mut Screen) -> Result<(), Failure> {
        let devices = self.devices(&Remote::open()?).await?;
        if self.json {
            return devices.iter().try_for_each(|device| screen.json(device));
        }
        let shown: Vec<Shown> = parse(serde_json::json!({ "devices": devices }), "/v1/devices", "devices")?;
        if shown.is_empty() {
            screen.note("no devices yet: make a token for one with `holm device enrol-token --group GROUP`");
            return Ok(());
        }
        let text = render(&shown, jiff::Timestamp::now().as_millisecond(), &screen.look);
        screen.text(&text)
    }

    async fn devices(&self, remote: &Remote) -> Result<Vec<Value>, Failure> {
        let (mut devices, mut after) = (Vec::new(), None);
        loop {
            let status = (!self.all).then(|| "active".to_owned());
            let limit = Some(PAGE.to_string());
            let values = [("group", self.group.clone()), ("status", status), ("limit", limit), ("after", after)];
            let path = query("/v1/devices", &values);
            let answer = remote.get(&path).await?;
            devices.append(&mut parse(answer.clone(), &path, "devices")?);
            after = parse(answer, &path, "next")?;
            if after.is_none() {
                return Ok(devices);
            }
        }
    }
}

/// All devices that are active.
pub(crate) async fn all(remote: &Remote) -> Result<Vec<Value>, Failure> {
    of_group(remote, None).await
}

/// All devices of a group that are active.
pub(crate) async fn of_group(remote: &Remote, group: Option<&str>) -> Result<Vec<Value>, Failure> {
    Fleet { group: group.map(str::to_owned), all: false, json: true }.devices(remote).await
}

fn render(devices: &[Shown], now: i64, look: &Look) -> String {
    let mut table = Table::new(&["DEVICE", "GROUPS", "STATE", "AGENT", ">FUNCTIONS", "PHASE", "JOB"]);
    for device in devices {
        let away = u64::try_from(now.saturating_sub(device.seen) / 1_000).unwrap_or(0);
        let state = match device.status.as_str() {
            "active" if device.connected => Cell::toned(Tone::Good, "online"),
            "active" => Cell::toned(Tone::Warn, format!("offline for {}", span(away))),
            other => Cell::toned(Tone::Dim, other),
        };
        let reported = device.reported.as_ref();
        let functions = reported.and_then(|reported| reported.get("functions")?.as_array().map(Vec::len));
        let agent = reported.and_then(|reported| reported.get("agent")?.as_str()).unwrap_or(&device.agent.version);
        let phase = reported.and_then(|reported| reported.get("phase")?.as_str()).unwrap_or_default();
        let job = device.job.as_ref().map(|job| format!("{} {}", job.generation, job.status));
        table.row([
            device.thing.as_str().into(),
            device.groups.join(",").into(),
            state,
            agent.into(),
            functions.map(|count| count.to_string()).unwrap_or_default().into(),
            phase.into(),
            job.unwrap_or_default().into(),
        ]);
    }
    table.render(look)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_is_a_table() {
        let device = |thing: &str, connected, status: &str, reported| {
            serde_json::json!({
                "thing": thing, "status": status, "connected": connected, "groups": ["a", "b"], "seen": 1_000,
                "agent": { "version": "0.1.0" }, "reported": reported, "job": { "generation": 7, "status": "QUEUED" },
            })
        };
        let reported = serde_json::json!({ "agent": "0.2.0", "phase": "committed", "functions": [1, 2] });
        let devices: Vec<Shown> = [
            device("pi3", true, "active", reported),
            device("pi4", false, "active", Value::Null),
            device("pi5", false, "revoked", Value::Null),
        ]
        .map(|device| serde_json::from_value(device).unwrap())
        .into();
        assert_eq!(
            render(&devices, 61_000, &Look::plain()),
            "DEVICE  GROUPS  STATE              AGENT  FUNCTIONS  PHASE      JOB\n\
             pi3     a,b     online             0.2.0          2  committed  7 QUEUED\n\
             pi4     a,b     offline for 1m 0s  0.1.0                        7 QUEUED\n\
             pi5     a,b     revoked            0.1.0                        7 QUEUED\n"
        );
    }
}
