//! `holm apply`: who is in which group and what runs there, as a file says it.
//!
//! ```toml
//! fleet_version = 1
//! [group.greenhouse]
//! devices = ["pi1", "pi2"]      # these, and no others
//! [[deploy]]
//! function = "water-loss"
//! version = "1.2.0"
//! group = "greenhouse"
//! stages = ["5%", "100%"]       # and soak, health_window, queued_timeout, success_percent, rate_per_minute, fault_percent
//! window = "02:00-04:30"        # UTC
//! ```
//!
//! What is as the file says stays untouched, so applying it twice does what applying it once does. Groups that the file does not name are
//! left alone, and so are functions. It is one request: the control plane does all of it, or nothing and says all that speaks against it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use holm_core::{Document, ErrorCode, FunctionName, Section};
use holm_protocol::{GroupName, ThingName, UpdateWindow};
use serde_json::{Map, Value, json};

use crate::client::parse;
use crate::failure::Failure;
use crate::remote::Remote;
use crate::rollout::{tell, watch};
use crate::screen::Screen;

const PATH: &str = "/v1/fleet";

/// Before each problem of a request that is refused.
const LISTED: &str = "\n  - ";

/// A device's window is at most as long.
const DAY: Duration = Duration::from_secs(86_400);

/// See `holm apply --help`.
#[derive(clap::Args)]
pub(crate) struct Apply {
    /// Such as fleet.toml
    file: PathBuf,
    /// Only show what would be different
    #[arg(long)]
    plan: bool,
    /// Follow the rollouts until they end, one after the other; the first that does not end well ends it, and the others go on
    #[arg(long)]
    watch: bool,
    /// Stop following a rollout after this time; it goes on
    #[arg(long, requires = "watch", default_value = "1h", value_parser = holm_core::parse_duration, value_name = "TIME")]
    timeout: Duration,
    /// As JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// What a file says.
#[derive(Debug, Default)]
struct File {
    groups: BTreeMap<String, Vec<String>>,
    deployments: Vec<Deployment>,
}

#[derive(Debug)]
struct Deployment {
    function: String,
    group: String,
    /// As the API takes them.
    fields: Map<String, Value>,
}

impl Apply {
    pub(crate) async fn run(&self, screen: &mut Screen) -> Result<ExitCode, Failure> {
        let name = self.file.display().to_string();
        let text = std::fs::read_to_string(&self.file)
            .map_err(|error| Failure::new(format!("cannot read {name}: {error}")))?;
        let body = json!({ "why": format!("apply {name}"), "preview": self.plan }).as_object().cloned();
        let mut body = body.unwrap_or_default();
        body.extend(read(&name, &text)?.fields());
        let remote = Remote::open()?;
        let answer =
            remote.post(PATH, &Value::Object(body)).await.map_err(|failure| match failure.mentions(LISTED) {
                true => failure.next("nothing was changed; mend them all, and apply again").page(ErrorCode::FleetWrong),
                false => failure,
            })?;
        let deployments: Vec<Value> = parse(answer.clone(), PATH, "deployments")?;
        let underway: Vec<Value> = parse(answer.clone(), PATH, "underway")?;
        self.show(&answer, &deployments, &underway, screen)?;
        let begun = deployments.iter().filter_map(|deployment| deployment.get("rollout"));
        for rollout in begun.filter(|rollout| rollout.is_object()) {
            let id = text_of(rollout, "id");
            if self.watch {
                let code = watch(&remote, &id, self.timeout, self.json, screen).await?;
                if code != ExitCode::SUCCESS {
                    return Ok(code);
                }
            } else if self.json {
                screen.json(rollout)?;
            }
        }
        for rollout in underway.iter().map(|deployment| text_of(deployment, "rollout")).filter(|_| self.watch) {
            let code = watch(&remote, &rollout, self.timeout, self.json, screen).await?;
            if code != ExitCode::SUCCESS {
                return Ok(code);
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn show(
        &self,
        answer: &Value,
        deployments: &[Value],
        underway: &[Value],
        screen: &mut Screen,
    ) -> Result<(), Failure> {
        let groups: Vec<Value> = parse(answer.clone(), PATH, "groups")?;
        if self.json {
            let plain = |deployment: &Value| {
                let mut plain = deployment.clone();
                if let Some(fields) = plain.as_object_mut() {
                    fields.remove("rollout");
                }
                plain
            };
            let deployments: Vec<Value> = deployments.iter().map(plain).collect();
            return match self.plan {
                true => screen.json(&json!({ "groups": groups, "deployments": deployments, "underway": underway })),
                false => Ok(()),
            };
        }
        for change in &groups {
            let words = ["add", "remove"].into_iter().zip(["+", "-"]).flat_map(|(name, sign)| {
                let names = change.get(name).and_then(Value::as_array).into_iter().flatten();
                names.filter_map(Value::as_str).map(move |group| format!("{sign}{group}"))
            });
            screen.line(format_args!("{}  {}", text_of(change, "thing"), words.collect::<Vec<_>>().join(" ")))?;
        }
        for deployment in deployments {
            let preview = deployment.get("preview").unwrap_or(&Value::Null);
            let told = tell(&text_of(deployment, "function"), preview, &screen.look);
            screen.text(&told)?;
            if let Some(rollout) = deployment.get("rollout").filter(|rollout| rollout.is_object()) {
                let id = text_of(rollout, "id");
                screen.line(format_args!("{id} begins"))?;
                if !self.watch {
                    screen.note(format_args!("next: holm rollout watch {id}"));
                }
            }
        }
        for deployment in underway {
            let [function, group, rollout] = ["function", "group", "rollout"].map(|name| text_of(deployment, name));
            screen.note(format_args!("{rollout} is at it: {function} in {group}"));
        }
        if groups.is_empty() && deployments.is_empty() && underway.is_empty() {
            screen.note("everything is as the file says");
        }
        Ok(())
    }
}

impl File {
    /// As the API takes it.
    fn fields(self) -> Map<String, Value> {
        let deployment = |Deployment { group, mut fields, .. }: Deployment| {
            fields.insert("group".to_owned(), json!(group));
            Value::Object(fields)
        };
        let deployments = self.deployments.into_iter().map(deployment).collect();
        [("groups".to_owned(), json!(self.groups)), ("deployments".to_owned(), Value::Array(deployments))]
            .into_iter()
            .collect()
    }
}

fn text_of(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn read(name: &str, text: &str) -> Result<File, Failure> {
    let told = |problems: holm_core::Problems| {
        Failure::new(problems.to_string())
            .next("mend them all, and apply again; nothing was changed")
            .page(ErrorCode::FleetWrong)
    };
    let (document, mut root) = Document::parse(name, text).map_err(told)?;
    if root.integer("fleet_version", 1..=1).is_none() {
        root.problem("fleet_version", "must be given as 1");
    }
    let mut file = File::default();
    if let Some(mut groups) = root.section("group") {
        for (group, mut section) in groups.named_sections() {
            if let Err(error) = GroupName::new(&group) {
                section.problem("", error);
            }
            let devices = section.texts("devices", ThingName::new);
            file.groups.insert(group, devices.iter().map(ToString::to_string).collect());
        }
    }
    for mut section in root.sections("deploy") {
        file.deployments.extend(deployment(&mut section));
    }
    let mut seen = BTreeSet::new();
    for deployment in &file.deployments {
        if !seen.insert((&deployment.function, &deployment.group)) {
            let (function, group) = (&deployment.function, &deployment.group);
            root.problem("deploy", format_args!("{function} is deployed to {group} twice"));
        }
    }
    drop(root);
    document.finish().map_err(told)?;
    Ok(file)
}

fn deployment(section: &mut Section<'_>) -> Option<Deployment> {
    let function = section.require("function", FunctionName::new);
    let version = section.require("version", |text| Ok::<_, std::convert::Infallible>(text.to_owned()));
    let group = section.require("group", GroupName::new);
    let mut fields = Map::new();
    let stages = section.texts("stages", |text| Ok::<_, std::convert::Infallible>(text.to_owned()));
    if !stages.is_empty() {
        fields.insert("stages".to_owned(), json!(stages));
    }
    let mut put = |name: &str, value: Option<u64>| fields.extend(value.map(|value| (name.to_owned(), json!(value))));
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
    put("soak_s", seconds(section.duration_in("soak", Duration::ZERO..=30 * DAY)));
    put("health_window_s", seconds(section.duration_in("health_window", Duration::ZERO..=DAY)));
    put("queued_timeout_s", seconds(section.duration_in("queued_timeout", Duration::from_secs(1)..=30 * DAY)));
    put("success_percent", section.integer("success_percent", 0..=100));
    put("rate_per_minute", section.integer("rate_per_minute", 1..=1_000_000));
    put("fault_percent", section.integer("fault_percent", 1..=100));
    let window = section.parse("window", str::parse::<UpdateWindow>);
    fields.extend(window.map(|window| ("window".to_owned(), json!(window.to_string()))));
    let (function, version, group) = (function?.to_string(), version?, group?.to_string());
    fields.insert("function".to_owned(), json!(function));
    fields.insert("version".to_owned(), json!(version));
    Some(Deployment { function, group, fields })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_or_all_that_is_wrong_with_it_is_said_with_its_line() {
        let good = "fleet_version = 1\n[group.a]\ndevices = [\"pi1\"]\n[[deploy]]\nfunction = \"flow\"\nversion = \"1.0.0\"\n\
                    group = \"a\"\nstages = [\"5%\", \"100%\"]\nsoak = \"30m\"\n";
        let file = read("fleet.toml", good).unwrap();
        assert_eq!(file.groups["a"], ["pi1"]);
        let expected = json!({ "function": "flow", "version": "1.0.0", "stages": ["5%", "100%"], "soak_s": 1800 });
        assert_eq!(Value::Object(file.deployments[0].fields.clone()), expected);
        let bad = "fleet_version = 2\n[group.\"a b\"]\ndevice = []\n[[deploy]]\nfunction = \"Flow\"\ngroup = \"a\"\nsoak = \"long\"\n";
        let failure = read("fleet.toml", bad).unwrap_err();
        for problem in [
            "line 1: fleet_version",
            "group name",
            "line 3: group.a b.device: ",
            "did you mean `devices`?",
            "line 5: deploy[0].function",
            "deploy[0].version: is missing",
            "line 7: deploy[0].soak",
        ] {
            assert!(failure.mentions(problem), "{problem}: {failure:?}");
        }
        let twice = "fleet_version = 1\n[[deploy]]\nfunction = \"f\"\nversion = \"1\"\ngroup = \"a\"\n[[deploy]]\nfunction = \"f\"\nversion = \"2\"\ngroup = \"a\"\n";
        assert!(read("fleet.toml", twice).unwrap_err().mentions("f is deployed to a twice"));
    }

    #[test]
    fn what_a_file_says_is_asked_for_at_once() {
        let text = "fleet_version = 1\n[group.a]\ndevices = [\"pi1\", \"pi2\"]\n[[deploy]]\nfunction = \"flow\"\n\
                    version = \"1.0.0\"\ngroup = \"b\"\nwindow = \"02:00-04:30\"\n";
        let asked = Value::Object(read("f", text).unwrap().fields());
        let deployment = json!({ "function": "flow", "version": "1.0.0", "group": "b", "window": "02:00-04:30" });
        assert_eq!(asked, json!({ "groups": { "a": ["pi1", "pi2"] }, "deployments": [deployment] }));
    }
}
