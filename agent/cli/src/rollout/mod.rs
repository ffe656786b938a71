//! `holm rollout`: one change of a function, to many devices, in stages.

mod begin;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

pub(crate) use begin::{Staging, To, begin, preview, tell};
pub(crate) use watch::watch;

use crate::client::{escape, parse};
use crate::failure::Failure;
use crate::look::{Look, Tone};
use crate::remote::{Remote, query};
use crate::screen::Screen;
use crate::table::{Cell, Table, list};

/// Rollouts that are listed.
const LISTED: usize = 100;

/// Devices that are asked for at once.
const PAGE: usize = 1_000;

/// See `holm rollout --help`.
#[derive(clap::Args)]
pub(crate) struct Rollout {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List rollouts, the latest first
    List {
        /// Only of this function
        #[arg(long, value_name = "NAME")]
        function: Option<String>,
        /// Only those that are running, paused, aborting, aborted or completed
        #[arg(long, value_name = "WORD")]
        state: Option<String>,
        /// As JSON, one object a line
        #[arg(long)]
        json: bool,
    },
    /// Show a rollout, its stages and its devices
    Show {
        /// Such as r-7
        id: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Follow a rollout until it ends: 0 all confirmed, 3 in part, 4 aborted and rolled back, 5 not ended
    Watch {
        /// Such as r-7
        id: String,
        /// Stop following after this time; the rollout goes on
        #[arg(long, default_value = "1h", value_parser = holm_core::parse_duration, value_name = "TIME")]
        timeout: Duration,
        /// As JSON, one object for each change
        #[arg(long)]
        json: bool,
    },
    /// Begin with no other device until it is resumed
    Pause(Turn),
    /// Go on
    Resume(Turn),
    /// Take every device that was told back to what it had confirmed before
    Abort(Turn),
}

#[derive(clap::Args)]
struct Turn {
    /// Such as r-7
    id: String,
    /// Why, for those who look at it later
    #[arg(short, long = "message", value_name = "TEXT")]
    message: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Rollout {
    pub(crate) async fn run(&self, screen: &mut Screen) -> Result<ExitCode, Failure> {
        let remote = Remote::open()?;
        match &self.command {
            Command::List { function, state, json } => {
                let limit = Some(LISTED.to_string());
                let values = [("function", function.clone()), ("state", state.clone()), ("limit", limit)];
                let path = query("/v1/rollouts", &values);
                let rollouts: Vec<Value> = parse(remote.get(&path).await?, &path, "rollouts")?;
                if *json {
                    rollouts.iter().try_for_each(|rollout| screen.json(rollout))?;
                } else if rollouts.is_empty() {
                    screen.note("no rollouts yet: `holm deploy FUNCTION@VERSION --group GROUP` begins one");
                } else {
                    let text = table(&rollouts, &screen.look);
                    screen.text(&text)?;
                }
                Ok(ExitCode::SUCCESS)
            }
            Command::Show { id, json } => {
                let rollout = get(&remote, id).await?;
                let devices = devices(&remote, id, None).await?;
                match json {
                    true => screen.json(&json!({ "rollout": rollout, "devices": devices }))?,
                    false => {
                        let text = render(&rollout, &devices, &screen.look);
                        screen.text(&text)?;
                    }
                }
                Ok(ExitCode::SUCCESS)
            }
            Command::Watch { id, timeout, json } => watch(&remote, id, *timeout, *json, screen).await,
            Command::Pause(turn) => turn.run("pause", &remote, screen).await,
            Command::Resume(turn) => turn.run("resume", &remote, screen).await,
            Command::Abort(turn) => turn.run("abort", &remote, screen).await,
        }
    }
}

impl Turn {
    async fn run(&self, verb: &str, remote: &Remote, screen: &mut Screen) -> Result<ExitCode, Failure> {
        let path = format!("/v1/rollouts/{}/{verb}", escape(&self.id));
        let answer = remote.post(&path, &json!({ "why": self.message })).await?;
        let rollout: Value = parse(answer, &path, "rollout")?;
        match self.json {
            true => screen.json(&rollout)?,
            false => {
                screen.line(format_args!("{} is {}", self.id, text(&rollout, "/state")))?;
                screen.note(format_args!("next: holm rollout watch {}", self.id));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn get(remote: &Remote, id: &str) -> Result<Value, Failure> {
    let path = format!("/v1/rollouts/{}", escape(id));
    parse(remote.get(&path).await?, &path, "rollout")
}

/// Its devices, of one standing or of any.
async fn devices(remote: &Remote, id: &str, standing: Option<&str>) -> Result<Vec<Value>, Failure> {
    let (mut devices, mut after) = (Vec::new(), None);
    loop {
        let path = format!("/v1/rollouts/{}/devices", escape(id));
        let limit = Some(PAGE.to_string());
        let path = query(&path, &[("standing", standing.map(str::to_owned)), ("after", after), ("limit", limit)]);
        let answer = remote.get(&path).await?;
        devices.append(&mut parse(answer.clone(), &path, "devices")?);
        after = parse(answer, &path, "next")?;
        if after.is_none() {
            return Ok(devices);
        }
    }
}

fn text(value: &Value, path: &str) -> String {
    match value.pointer(path) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    }
}

fn number(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or_default()
}

/// `3 confirmed, 1 unknown`, in the order of a device's way.
fn counts(of: &Value) -> String {
    const ORDER: [&str; 13] = [
        "confirmed",
        "working",
        "queued",
        "unknown",
        "waiting",
        "failed",
        "timed-out",
        "undone",
        "undoing",
        "stuck",
        "superseded",
        "skipped",
        "removed",
    ];
    let part = |word: &&str| match number(of, &format!("/counts/{word}")) {
        0 => None,
        count => Some(format!("{count} {word}")),
    };
    ORDER.iter().filter_map(part).collect::<Vec<_>>().join(", ")
}

fn tone(state: &str) -> Tone {
    match state {
        "completed" | "confirmed" => Tone::Good,
        "aborted" | "aborting" | "failed" | "timed-out" | "stuck" => Tone::Bad,
        "paused" | "unknown" | "undone" | "undoing" => Tone::Warn,
        _ => Tone::Plain,
    }
}

fn table(rollouts: &[Value], look: &Look) -> String {
    let mut table = Table::new(&["ROLLOUT", "FUNCTION", "CHANGE", "TO", "BEGUN", "STATE", "STAGE", "DEVICES"]);
    for rollout in rollouts {
        let made = rollout.get("made").and_then(Value::as_i64).unwrap_or_default();
        let stages = rollout.get("stages").and_then(Value::as_array).map_or(0, Vec::len);
        let to = match text(rollout, "/group") {
            group if group.is_empty() => format!("{} devices", number(rollout, "/devices")),
            group => group,
        };
        let state = text(rollout, "/state");
        table.row([
            text(rollout, "/id").into(),
            text(rollout, "/function").into(),
            text(rollout, "/what").into(),
            to.into(),
            look.moment(made).into(),
            Cell::toned(tone(&state), state),
            format!("{}/{stages}", number(rollout, "/stage")).into(),
            counts(rollout).into(),
        ]);
    }
    table.render(look)
}

fn render(rollout: &Value, devices: &[Value], look: &Look) -> String {
    let time = |path: &str| rollout.pointer(path).and_then(Value::as_i64).map(|time| look.moment(time));
    let to = match text(rollout, "/group") {
        group if group.is_empty() => format!("{} devices", number(rollout, "/devices")),
        group => format!("{group}, {} devices", number(rollout, "/devices")),
    };
    let state = text(rollout, "/state");
    let mut entries = vec![
        ("rollout", text(rollout, "/id")),
        ("change", format!("{} {}", text(rollout, "/function"), text(rollout, "/what"))),
        ("to", to),
        ("begun", format!("{} by {}", time("/made").unwrap_or_default(), text(rollout, "/operator"))),
        ("why", text(rollout, "/why")),
        ("state", look.paint(tone(&state), &state)),
        ("because", text(rollout, "/reason")),
    ];
    entries.extend(time("/soaks_until").map(|time| ("looked at", format!("until {time}"))));
    let stages = rollout.get("stages").and_then(Value::as_array).cloned().unwrap_or_default();
    let current = number(rollout, "/stage");
    for (stage, place) in stages.iter().zip(1_u64..) {
        let mark = if place == current && matches!(state.as_str(), "running" | "paused") { " (now)" } else { "" };
        let words = match counts(stage) {
            words if words.is_empty() => "nobody".to_owned(),
            words => words,
        };
        entries.push(("stage", format!("{place}, {}: {words}{mark}", text(stage, "/select"))));
    }
    let mut page = list(look, &entries);
    let mut table = Table::new(&["DEVICE", ">STAGE", "STANDING", "PHASE", "HAD", "SHALL HAVE", "WHY"]);
    for device in devices {
        let standing = text(device, "/standing");
        let away = device.get("connected").and_then(Value::as_bool) == Some(false);
        let away = if away { "not connected" } else { "" };
        let why: Vec<String> =
            [text(device, "/message"), away.to_owned()].into_iter().filter(|part| !part.is_empty()).collect();
        table.row([
            text(device, "/thing").into(),
            text(device, "/stage").into(),
            Cell::toned(tone(&standing), standing),
            text(device, "/phase").into(),
            text(device, "/before").into(),
            text(device, "/wanted").into(),
            why.join("; ").into(),
        ]);
    }
    page.push('\n');
    page.push_str(&table.render(look));
    let events = rollout.get("events").and_then(Value::as_array).cloned().unwrap_or_default();
    if !events.is_empty() {
        page.push('\n');
    }
    for event in &events {
        let time = event.get("time").and_then(Value::as_i64).unwrap_or_default();
        page.push_str(&format!("{}  {}\n", look.paint(Tone::Dim, &look.moment(time)), text(event, "/text")));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_shown_with_its_stages_devices_and_events() {
        let rollout = json!({
            "id": "r-3", "function": "flow", "what": "1.2.0", "group": "greenhouse", "operator": "admin", "why": null,
            "made": 0, "state": "running", "reason": "waits for 1 to be ended", "stage": 2, "soaks_until": null,
            "devices": 3, "counts": { "confirmed": 1, "working": 1, "unknown": 1 },
            "stages": [
                { "select": "5%", "devices": 1, "counts": { "confirmed": 1 } },
                { "select": "100%", "devices": 2, "counts": { "working": 1, "unknown": 1 } },
            ],
            "events": [{ "time": 0, "text": "stage 2 of 2 begins" }],
        });
        let devices = [
            json!({ "thing": "pi1", "stage": 1, "standing": "confirmed", "phase": "confirmed", "before": "1.1.0",
                "wanted": "1.2.0", "message": null, "connected": true }),
            json!({ "thing": "pi2", "stage": 2, "standing": "unknown", "phase": null, "before": "1.1.0",
                "wanted": "1.2.0", "message": "it was not heard of", "connected": false }),
        ];
        assert_eq!(
            render(&rollout, &devices, &Look::plain()),
            "rollout  r-3\n\
             change   flow 1.2.0\n\
             to       greenhouse, 3 devices\n\
             begun    1970-01-01 00:00:00 by admin\n\
             state    running\n\
             because  waits for 1 to be ended\n\
             stage    1, 5%: 1 confirmed\n\
             stage    2, 100%: 1 working, 1 unknown (now)\n\
             \n\
             DEVICE  STAGE  STANDING   PHASE      HAD    SHALL HAVE  WHY\n\
             pi1         1  confirmed  confirmed  1.1.0  1.2.0\n\
             pi2         2  unknown               1.1.0  1.2.0       it was not heard of; not connected\n\
             \n\
             1970-01-01 00:00:00  stage 2 of 2 begins\n"
        );
        assert!(table(&[rollout], &Look::plain()).contains("r-3      flow      1.2.0   greenhouse  1970-01-01 00:00:00  running  2/2    1 confirmed, 1 working, 1 unknown\n"));
    }
}
