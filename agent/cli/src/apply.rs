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
//! left alone, and so are functions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use holm_core::{Document, ErrorCode, FunctionName, Section};
use holm_protocol::{GroupName, ThingName, UpdateWindow};
use serde_json::{Map, Value, json};

use crate::client::{escape, parse};
use crate::failure::Failure;
use crate::fleet;
use crate::remote::Remote;
use crate::rollout::{begin, preview, tell};
use crate::screen::Screen;

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
    /// Follow each rollout until it ends, one after the other; the first that does not end well ends it
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
        let file = read(&name, &text)?;
        let remote = Remote::open()?;
        let groups = group_changes(&file, &fleet::all(&remote).await?)?;
        let mut differing = Vec::new();
        let mut problems = Vec::new();
        for deployment in &file.deployments {
            let mut fields = deployment.fields.clone();
            // As it will be, and not as the group is before its changes.
            match file.groups.get(&deployment.group) {
                Some(devices) => fields.insert("devices".to_owned(), json!(devices)),
                None => fields.insert("group".to_owned(), json!(deployment.group)),
            };
            match preview(&remote, &fields).await {
                Ok(preview) if differs(&preview) => differing.push((deployment, preview)),
                Ok(_) => {}
                Err(failure) => problems.push(format!("{} in {}: {failure}", deployment.function, deployment.group)),
            }
        }
        if !problems.is_empty() {
            return Err(Failure::new(problems.join("\n"))
                .next("nothing was changed; mend them all, and apply again")
                .page(ErrorCode::FleetWrong));
        }
        self.show(&groups, &differing, screen)?;
        if self.plan || (groups.is_empty() && differing.is_empty()) {
            return Ok(ExitCode::SUCCESS);
        }
        for (thing, (add, remove)) in &groups {
            let path = format!("/v1/devices/{}/groups", escape(thing));
            remote.post(&path, &json!({ "add": add, "remove": remove })).await?;
        }
        for (deployment, _) in differing {
            let mut fields = deployment.fields.clone();
            fields.insert("group".to_owned(), json!(deployment.group));
            fields.insert("why".to_owned(), json!(format!("apply {name}")));
            let code = begin(&remote, fields, self.watch.then_some(self.timeout), self.json, screen).await?;
            if code != ExitCode::SUCCESS {
                return Ok(code);
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn show(&self, groups: &Changes, differing: &[(&Deployment, Value)], screen: &mut Screen) -> Result<(), Failure> {
        if self.json && self.plan {
            let of = |(deployment, preview): &(&Deployment, Value)| json!({ "function": deployment.function, "group": deployment.group, "preview": preview });
            let groups: Vec<Value> = groups
                .iter()
                .map(|(thing, (add, remove))| json!({ "thing": thing, "add": add, "remove": remove }))
                .collect();
            let deployments: Vec<Value> = differing.iter().map(of).collect();
            return screen.json(&json!({ "groups": groups, "deployments": deployments }));
        }
        if self.json {
            return Ok(());
        }
        for (thing, (add, remove)) in groups {
            let words =
                add.iter().map(|group| format!("+{group}")).chain(remove.iter().map(|group| format!("-{group}")));
            screen.line(format_args!("{thing}  {}", words.collect::<Vec<_>>().join(" ")))?;
        }
        for (deployment, preview) in differing.iter().filter(|_| self.plan) {
            let told = tell(&deployment.function, preview, &screen.look);
            screen.text(&told)?;
        }
        if groups.is_empty() && differing.is_empty() {
            screen.note("everything is as the file says");
        }
        Ok(())
    }
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

/// By device: into which groups, and out of which.
type Changes = BTreeMap<String, (Vec<String>, Vec<String>)>;

fn group_changes(file: &File, devices: &[Value]) -> Result<Changes, Failure> {
    let mut known = BTreeMap::new();
    for device in devices {
        let thing: String = parse(device.clone(), "/v1/devices", "thing")?;
        let groups: Vec<String> = parse(device.clone(), "/v1/devices", "groups")?;
        known.insert(thing, groups);
    }
    let mut changes = Changes::new();
    let mut missing = Vec::new();
    for (group, wanted) in &file.groups {
        missing.extend(
            wanted.iter().filter(|thing| !known.contains_key(*thing)).map(|thing| format!("{thing} in group {group}")),
        );
        for (thing, groups) in &known {
            let (is, shall) = (groups.contains(group), wanted.contains(thing));
            if is != shall {
                let (add, remove) = changes.entry(thing.clone()).or_default();
                if shall { add.push(group.clone()) } else { remove.push(group.clone()) }
            }
        }
    }
    if missing.is_empty() {
        return Ok(changes);
    }
    Err(Failure::new(format!("there is no active device {}", missing.join(", nor ")))
        .next("enrol them first: `holm device enrol-token`; nothing was changed"))
}

/// Whether any device would have something else than it has.
fn differs(preview: &Value) -> bool {
    let changes = preview.get("changes").and_then(Value::as_array);
    changes.into_iter().flatten().any(|change| change.get("from") != change.get("to"))
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
    fn groups_become_what_the_file_says_and_others_stay() {
        let file = read("f", "fleet_version = 1\n[group.a]\ndevices = [\"pi1\", \"pi2\"]\n").unwrap();
        let device = |thing: &str, groups: &[&str]| json!({ "thing": thing, "groups": groups });
        let devices = [device("pi1", &["a", "b"]), device("pi2", &["b"]), device("pi3", &["a"])];
        let changes = group_changes(&file, &devices).unwrap();
        let one = |group: &str| vec![group.to_owned()];
        assert_eq!(
            changes.into_iter().collect::<Vec<_>>(),
            [("pi2".to_owned(), (one("a"), vec![])), ("pi3".to_owned(), (vec![], one("a")))]
        );
        assert!(group_changes(&file, &devices[..1]).unwrap_err().mentions("no active device pi2 in group a"));
    }
}
