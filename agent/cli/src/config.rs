//! `holm config`: parameters of functions on devices, within the types and bounds of their manifests.

use std::process::ExitCode;
use std::time::Duration;

use holm_core::FunctionName;
use serde_json::{Map, Value, json};

use crate::client::{escape, parse};
use crate::failure::Failure;
use crate::remote::{Remote, query};
use crate::rollout::{Staging, To, begin};
use crate::screen::Screen;
use crate::table::Table;

/// See `holm config --help`.
#[derive(clap::Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Set parameters of a function: a rollout of its own, without a new version
    Set(Box<Set>),
    /// Show which parameters are set, by device; what is not set has its manifest's default
    Show {
        /// The function
        function: FunctionName,
        #[command(flatten)]
        to: To,
        /// As JSON, one object a line
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
struct Set {
    /// The function
    function: FunctionName,
    /// As NAME=VALUE
    #[arg(value_name = "NAME=VALUE", required_unless_present = "unset")]
    values: Vec<String>,
    /// Back to the manifest's default; may be given several times
    #[arg(long, value_name = "NAME")]
    unset: Vec<String>,
    #[command(flatten)]
    to: To,
    /// Why, for those who look at it later
    #[arg(short, long = "message", value_name = "TEXT")]
    message: Option<String>,
    #[command(flatten)]
    staging: Staging,
    /// How long devices watch the function before it is confirmed
    #[arg(long, value_parser = holm_core::parse_duration, value_name = "TIME")]
    health_window: Option<Duration>,
    /// Follow it until it ends
    #[arg(long)]
    watch: bool,
    /// Stop following after this time; it goes on
    #[arg(long, requires = "watch", default_value = "15m", value_parser = holm_core::parse_duration, value_name = "TIME")]
    timeout: Duration,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Config {
    pub(crate) async fn run(self, screen: &mut Screen) -> Result<ExitCode, Failure> {
        match self.command {
            Command::Set(set) => set.run(screen).await,
            Command::Show { function, to, json } => show(&function, &to, json, screen).await,
        }
    }
}

impl Set {
    async fn run(self, screen: &mut Screen) -> Result<ExitCode, Failure> {
        let remote = Remote::open()?;
        let mut values = Map::new();
        for pair in &self.values {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(Failure::new(format!("`{pair}` is not NAME=VALUE")));
            };
            values.insert(name.to_owned(), json!(value));
        }
        values.extend(self.unset.iter().map(|name| (name.clone(), Value::Null)));
        if values.len() != self.values.len() + self.unset.len() {
            return Err(Failure::new("a parameter is named twice"));
        }
        let mut fields = self.to.fields();
        fields.extend(self.staging.fields());
        fields.insert("function".to_owned(), json!(self.function.to_string()));
        fields.insert("config".to_owned(), Value::Object(values));
        fields.insert("why".to_owned(), json!(self.message));
        fields.insert("health_window_s".to_owned(), json!(self.health_window.map(|window| window.as_secs())));
        begin(&remote, fields, self.watch.then_some(self.timeout), self.json, screen).await
    }
}

async fn show(function: &FunctionName, to: &To, as_json: bool, screen: &mut Screen) -> Result<ExitCode, Failure> {
    let remote = Remote::open()?;
    let things = match &to.group {
        Some(group) => {
            let values = [("group", Some(group.clone())), ("status", Some("active".to_owned()))];
            let path = query("/v1/devices", &values);
            let devices: Vec<Value> = parse(remote.get(&path).await?, &path, "devices")?;
            devices.iter().filter_map(|device| Some(device.get("thing")?.as_str()?.to_owned())).collect()
        }
        None => to.device.clone(),
    };
    let mut table = Table::new(&["DEVICE", "VERSION", "SET"]);
    let (mut found, look) = (0, screen.look.clone());
    for thing in things {
        let device = remote.get(&format!("/v1/devices/{}", escape(&thing))).await?;
        let functions = device.pointer("/desired/functions").and_then(Value::as_array).cloned().unwrap_or_default();
        let wanted = functions.iter().find(|one| one.get("name").and_then(Value::as_str) == Some(function.as_str()));
        let Some(wanted) = wanted else { continue };
        found += 1;
        let config = wanted.get("config").cloned().unwrap_or_else(|| json!({}));
        let version = wanted.get("version").and_then(Value::as_str).unwrap_or_default();
        if as_json {
            screen.json(
                &json!({ "thing": thing, "function": function.to_string(), "version": version, "config": config }),
            )?;
            continue;
        }
        let pairs: Vec<String> = config
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
            .collect();
        table.row([thing.into(), version.into(), pairs.join(" ").into()]);
    }
    if found == 0 {
        return Err(Failure::new(format!("no such device shall run {function}")).next("holm fleet"));
    }
    if !as_json {
        screen.text(&table.render(&look))?;
    }
    Ok(ExitCode::SUCCESS)
}
