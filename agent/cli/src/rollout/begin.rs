//! The begin of a rollout, for the commands that begin one.

use std::process::ExitCode;
use std::time::Duration;

use holm_protocol::UpdateWindow;
use serde_json::{Map, Value, json};

use super::{number, text, watch};
use crate::client::parse;
use crate::failure::Failure;
use crate::look::{Look, Tone};
use crate::remote::Remote;
use crate::screen::Screen;

const PATH: &str = "/v1/rollouts";

/// Devices that are named before the others are only counted.
const NAMED: usize = 5;

/// For whom it is.
#[derive(clap::Args)]
pub(crate) struct To {
    /// To the devices of this group
    #[arg(long, value_name = "NAME", required_unless_present = "device", conflicts_with = "device")]
    pub(crate) group: Option<String>,
    /// To this device; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) device: Vec<String>,
}

impl To {
    pub(crate) fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        match &self.group {
            Some(group) => fields.insert("group".to_owned(), json!(group)),
            None => fields.insert("devices".to_owned(), json!(self.device)),
        };
        fields
    }
}

/// How it goes about it.
#[derive(clap::Args, Default)]
pub(crate) struct Staging {
    /// First to this part of the devices (5%), this many (3) or this group, then to all
    #[arg(long, value_name = "STAGE", conflicts_with = "stages")]
    canary: Option<String>,
    /// The stages, such as 1%,10%,50%,100% [default: five devices or 1%, 10%, 50%, 100%, as far as they differ]
    #[arg(long, value_name = "STAGES", value_delimiter = ',')]
    stages: Vec<String>,
    /// How long a stage is looked at before the next one begins [default: 30m]
    #[arg(long, value_parser = holm_core::parse_duration, value_name = "TIME")]
    soak: Option<Duration>,
    /// Devices that are told in a minute, at most
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Of a stage's devices that have reported, so many of 100 must confirm [default: 95]
    #[arg(long, value_name = "PERCENT")]
    success: Option<u32>,
    /// A device that does not take it up for so long is unknown, and not waited for [default: 1h]
    #[arg(long, value_parser = holm_core::parse_duration, value_name = "TIME")]
    queued_timeout: Option<Duration>,
    /// A device that has confirmed has failed all the same when so many of 100 invocations since were faults [default: 20]
    #[arg(long, value_name = "PERCENT")]
    faults: Option<u32>,
    /// Begin on a device only between these times of the day, in UTC, such as 02:00-04:30
    #[arg(long, value_name = "TIMES")]
    window: Option<UpdateWindow>,
}

impl Staging {
    /// All at once.
    pub(crate) fn at_once(self) -> Self {
        if self.canary.is_some() || !self.stages.is_empty() {
            return self;
        }
        Self { stages: vec!["100%".to_owned()], ..self }
    }

    pub(crate) fn is_given(&self) -> bool {
        self.canary.is_some()
            || !self.stages.is_empty()
            || self.soak.is_some()
            || self.rate.is_some()
            || self.success.is_some()
            || self.queued_timeout.is_some()
            || self.faults.is_some()
            || self.window.is_some()
    }

    pub(crate) fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Option<Value>| fields.extend(value.map(|value| (name.to_owned(), value)));
        let seconds = |time: Option<Duration>| time.map(|time| json!(time.as_secs()));
        let stages = match &self.canary {
            Some(canary) => Some(json!([canary, "100%"])),
            None if self.stages.is_empty() => None,
            None => Some(json!(self.stages)),
        };
        put("stages", stages);
        put("soak_s", seconds(self.soak));
        put("rate_per_minute", self.rate.map(|rate| json!(rate)));
        put("success_percent", self.success.map(|percent| json!(percent)));
        put("queued_timeout_s", seconds(self.queued_timeout));
        put("fault_percent", self.faults.map(|percent| json!(percent)));
        put("window", self.window.map(|window| json!(window.to_string())));
        fields
    }
}

/// What would be.
pub(crate) async fn preview(remote: &Remote, fields: &Map<String, Value>) -> Result<Value, Failure> {
    let mut body = fields.clone();
    body.insert("preview".to_owned(), json!(true));
    parse(remote.post(PATH, &Value::Object(body)).await?, PATH, "preview")
}

/// Begins it, and follows it if that is wanted.
pub(crate) async fn begin(
    remote: &Remote,
    fields: Map<String, Value>,
    patience: Option<Duration>,
    as_json: bool,
    screen: &mut Screen,
) -> Result<ExitCode, Failure> {
    let answer = remote.post(PATH, &Value::Object(fields)).await?;
    let (rollout, preview): (Value, Value) = (parse(answer.clone(), PATH, "rollout")?, parse(answer, PATH, "preview")?);
    let id = text(&rollout, "/id");
    if !as_json {
        let told = tell(&text(&rollout, "/function"), &preview, &screen.look);
        screen.text(&told)?;
        screen.line(format_args!("{id} begins"))?;
    }
    match patience {
        Some(patience) => watch::watch(remote, &id, patience, as_json, screen).await,
        None => {
            match as_json {
                true => screen.json(&rollout)?,
                false => screen.note(format_args!("next: holm rollout watch {id}")),
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What becomes of whom, and in which stages.
pub(crate) fn tell(function: &str, preview: &Value, look: &Look) -> String {
    let none = Vec::new();
    let array = |name: &str| preview.get(name).and_then(Value::as_array).unwrap_or(&none);
    let mut page = String::new();
    for change in array("changes") {
        let side = |name: &str, none: &str| match text(change, name) {
            side if side.is_empty() => none.to_owned(),
            side => side,
        };
        let devices: Vec<&str> =
            change.get("devices").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let named = devices.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        let more = match devices.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let name = look.paint(Tone::Strong, function);
        page.push_str(&format!("{name}  {} -> {}  {named}{more}\n", side("/from", "none"), side("/to", "none")));
    }
    let stages: Vec<String> = array("stages")
        .iter()
        .filter(|stage| number(stage, "/1") > 0)
        .map(|stage| format!("{} ({})", text(stage, "/0"), number(stage, "/1")))
        .collect();
    page.push_str(&format!("stages  {}\n", stages.join(", ")));
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_whom_is_told() {
        let preview = json!({
            "changes": [
                { "from": "1.2.0", "to": "1.1.0", "devices": ["a", "b", "c", "d", "e", "f"] },
                { "from": null, "to": "1.1.0", "devices": ["g"] },
            ],
            "stages": [["5%", 1], ["10%", 0], ["100%", 6]],
        });
        assert_eq!(
            tell("flow", &preview, &Look::plain()),
            "flow  1.2.0 -> 1.1.0  a, b, c, d, e and 1 more\n\
             flow  none -> 1.1.0  g\n\
             stages  5% (1), 100% (6)\n"
        );
    }

    #[test]
    fn a_canary_is_a_stage_before_all() {
        let staging =
            Staging { canary: Some("5%".to_owned()), soak: Some(Duration::from_secs(60)), ..Staging::default() };
        assert_eq!(Value::Object(staging.fields()), json!({ "stages": ["5%", "100%"], "soak_s": 60 }));
        assert_eq!(Value::Object(Staging::default().at_once().fields()), json!({ "stages": ["100%"] }));
    }
}
