//! `holm trap`: the records that traps leave, of this node or of the fleet, and running them again here.

mod show;

use std::path::PathBuf;

use clap::Subcommand;
use holm_core::ErrorCode;
use serde::Deserialize;
use serde_json::Value;

use crate::client::{Client, escape, parse};
use crate::failure::Failure;
use crate::look::{self, Look};
use crate::remote::{Remote, query};
use crate::rerun::{Component, Record, Rerun};
use crate::screen::Screen;
use crate::table::Table;

/// See `holm trap --help`.
#[derive(clap::Args)]
pub(crate) struct Trap {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List what traps have left, newest first
    List(List),
    /// Show one whole: its event, parameters, the state that it read and all else that it was told
    Show(Show),
}

#[derive(clap::Args)]
struct List {
    /// Only of this function
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// At most so many
    #[arg(short = 'n', long, default_value_t = 100, value_name = "N")]
    limit: usize,
    /// Ask the control plane
    #[arg(long)]
    cloud: bool,
    /// Only of this device
    #[arg(long, requires = "cloud", value_name = "NAME")]
    device: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Show {
    /// Its name, or how that begins
    id: String,
    /// Run it again on this machine, with the answers that it had
    #[arg(long)]
    replay: bool,
    /// The component that ran, as a .wasm or in a bundle, where it was not built here
    #[arg(long, requires = "replay", value_name = "FILE")]
    component: Option<PathBuf>,
    /// Ask the control plane
    #[arg(long)]
    cloud: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What a list says of a record.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Summary {
    id: String,
    time: i64,
    device: String,
    function: String,
    version: String,
    outcome: String,
    fault: Option<String>,
    subject: String,
    attempt: u32,
}

impl Trap {
    pub(crate) async fn run(&self, client: &Client, screen: &mut Screen) -> Result<(), Failure> {
        match &self.action {
            Action::List(list) => list.run(client, screen).await,
            Action::Show(show) => show.run(client, screen).await,
        }
    }
}

impl List {
    async fn run(&self, client: &Client, screen: &mut Screen) -> Result<(), Failure> {
        let fields = [
            ("limit", Some(self.limit.to_string())),
            ("function", self.function.clone()),
            ("device", self.device.clone()),
        ];
        let path = query("/v1/traps", &fields);
        let answer = match self.cloud {
            true => Remote::open()?.get(&path).await?,
            false => client.get(&path).await?,
        };
        if self.json {
            return screen.json(&answer);
        }
        let lost = lost(&answer);
        let traps: Vec<Summary> = parse(answer, "/v1/traps", "traps")?;
        if traps.is_empty() {
            screen.note("no records of traps");
        } else {
            let text = table(&traps, self.cloud, &screen.look);
            screen.text(&text)?;
        }
        lost.iter().for_each(|line| screen.note(line));
        Ok(())
    }
}

impl Show {
    async fn run(&self, client: &Client, screen: &mut Screen) -> Result<(), Failure> {
        let path = format!("/v1/traps/{}", escape(&self.id));
        let whole = match self.cloud {
            true => Remote::open()?.get(&path).await?,
            false => client.get(&path).await?,
        };
        if self.json && !self.replay {
            return screen.json(&whole);
        }
        let record: Record = serde_json::from_value(whole.clone()).map_err(|error| {
            Failure::new(format!("the record {} is not understood: {error}", self.id))
                .next("bring `holm` to the release of the device")
        })?;
        if !self.replay {
            let text = show::record(&record, &screen.look);
            return screen.text(&text);
        }
        let what = format!("{} {}", record.function, record.version);
        // A node on this machine has the bundle.
        let bundle = (!self.cloud).then(|| client.folder().join("bundles").join(format!("{}.holm", record.bundle)));
        let component = Component::find(&record.component, self.component.as_deref(), bundle, &what)?;
        let mut again = Rerun::start(&component)?.again(&whole, None)?;
        if let Some(error) = &again.error {
            return Err(Failure::new(format!("the record {} cannot be run again: {error}", self.id))
                .next(format!("see what it was told with `holm trap show {}`", self.id))
                .page(ErrorCode::ReplayImpossible));
        }
        component.locate(&mut again.frames)?;
        if self.json {
            screen.json(
                &serde_json::json!({ "record": whole, "replay": again, "same": show::is_same(&record, &again) }),
            )?;
        } else {
            let text = show::again(&record, &again, component.has_lines()?, &screen.look);
            screen.text(&text)?;
        }
        match &again.diverged {
            _ if show::is_same(&record, &again) => Ok(()),
            Some(diverged) => Err(Failure::new(diverged.clone())
                .next(show::after_divergence(&record))
                .page(ErrorCode::ReplayDiverged)),
            None => Err(Failure::new(format!("it ended {} here, and {} there", again.outcome, record.outcome))
                .next("is it a limit of the device, or of its memory? `holm trap show` says what it was told; report this if not")
                .page(ErrorCode::ReplayDiverged)),
        }
    }
}

fn table(traps: &[Summary], devices: bool, look: &Look) -> String {
    let mut heads = vec!["ID", "WHEN", "FUNCTION", "VERSION", "KIND", ">TRY", "SUBJECT", "FAULT"];
    if devices {
        heads.insert(1, "DEVICE");
    }
    let mut table = Table::new(&heads);
    for trap in traps {
        let mut cells = vec![
            trap.id.clone().into(),
            look.moment(trap.time).into(),
            (&*trap.function).into(),
            (&*trap.version).into(),
            (&*trap.outcome).into(),
            trap.attempt.to_string().into(),
            (&*trap.subject).into(),
            look::short(trap.fault.as_deref().unwrap_or_default(), 60).into(),
        ];
        if devices {
            cells.insert(1, (&*trap.device).into());
        }
        table.row(cells);
    }
    table.render(look)
}

/// What left no record, in sentences.
fn lost(answer: &Value) -> Vec<String> {
    let number = |name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or_default();
    let mut lines: Vec<String> = answer
        .get("lost")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(function, count)| format!("{count} more traps of {function} left no record: they came too fast"))
        .collect();
    if number("gone") > 0 {
        lines.push(format!(
            "{} older records went: there is room for {} (`traps` in [functions] of agent.toml)",
            number("gone"),
            look::bytes(number("limit"))
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_traps_and_what_left_none() {
        let traps: Vec<Summary> = serde_json::from_value(serde_json::json!([{
            "id": "0123456789ab", "time": 1_648_108_800_000_i64, "device": "pi1", "function": "heat",
            "version": "0.1.0", "outcome": "trap", "fault": "unreachable at f", "subject": "a/b", "attempt": 2,
        }]))
        .unwrap_or_default();
        let expected = "\
ID            WHEN                 FUNCTION  VERSION  KIND  TRY  SUBJECT  FAULT
0123456789ab  2022-03-24 08:00:00  heat      0.1.0    trap    2  a/b      unreachable at f
";
        assert_eq!(table(&traps, false, &Look::plain()), expected);
        assert!(table(&traps, true, &Look::plain()).contains("pi1"));
        let answer = serde_json::json!({"lost": {"heat": 7}, "gone": 2, "limit": 1024});
        assert_eq!(lost(&answer).len(), 2);
        assert!(lost(&serde_json::json!({"lost": {}, "gone": 0})).is_empty());
    }
}
