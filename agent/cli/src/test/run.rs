//! Running cases: each on a node of its own, which begins with the function deployed and nothing else.
//!
//! That beginning is made once for a bundle, and kept in `.holm/test`: a case starts from a copy of it, so that nothing is
//! compiled or deployed again while nothing has changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holm_bundle::{Bundle, Digest};
use holm_core::{Level, Qos};
use serde_json::Value;

use super::case::{Act, Case, EARLIEST, Step};
use super::differ::{Difference, Found, Reply, differences};
use crate::build::chain;
use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::own_node::{self, NODE, OwnNode, Start};
use crate::programs;
use crate::project::Project;

/// Where beginnings are kept, in the function's folder.
const KEPT: &str = ".holm/test";

/// How many of them. Older ones go.
const MOST_KEPT: usize = 8;

/// Takes of one step that are looked at.
const MOST_TAKES: usize = 1_000_000;

/// Dead letters that are counted.
const MOST_LETTERS: usize = 1_000_000;

/// What a function's cases are run with.
pub(crate) struct Bench {
    function: String,
    kept: PathBuf,
    node: Option<PathBuf>,
    more: String,
    text: String,
    component: Vec<u8>,
}

/// How a case went.
#[derive(Debug, Clone, Default)]
pub(crate) struct Passed {
    /// What was not as expected: the step's number, from 1, and why.
    pub(crate) failed: Option<(usize, Vec<Difference>)>,
    /// Invocations in all.
    pub(crate) invocations: usize,
    /// The most memory that one took.
    pub(crate) peak_memory: u64,
    /// The longest that one took.
    pub(crate) slowest: Duration,
    /// How long the case took.
    pub(crate) took: Duration,
}

impl Bench {
    /// For a function that is built.
    pub(crate) fn new(project: &Project) -> Result<Self, Failure> {
        let (_, component) = project.component()?;
        let node = Some(project.folder.join(NODE)).filter(|path| path.is_file());
        let (function, kept) = (project.manifest.name.to_string(), project.folder.join(KEPT));
        let more = own_node::outside(&[&project.manifest], node.as_deref())?;
        Ok(Self { function, kept, node, more, text: project.text.clone(), component })
    }

    /// Makes the beginning of a case, unless it is kept from before.
    pub(crate) fn prepare(&self, case: &Case) -> Result<PathBuf, Failure> {
        let text = with_config(&self.text, &case.config)?;
        let packed = Bundle::pack(&text, &self.component).map_err(|error| Failure::new(chain(&error)))?;
        let beginning = self.kept.join(self.key(&packed.bytes)?);
        if beginning.is_dir() {
            return Ok(beginning);
        }
        let cannot = |error: std::io::Error| Failure::new(format!("cannot keep {}: {error}", beginning.display()));
        let folder = folder()?;
        let node = self.start(folder.path(), EARLIEST)?;
        let deployed = alone(node.client.deploy(packed.bytes.into()))?.map_err(|failure| match &self.node {
            None => failure.next(format!("what a function needs of its node is in {NODE}: there is none")),
            Some(_) => failure.next(format!("what a function needs of its node is in {NODE}")),
        })?;
        let outcome = deployed.get("outcome").and_then(Value::as_str).unwrap_or_default();
        if !outcome.starts_with("confirmed") {
            let reason = deployed.get("reason").and_then(Value::as_str).unwrap_or("it did not say why");
            return Err(Failure::new(format!("{} could not be deployed: {reason}", self.function))
                .page(holm_core::ErrorCode::RolledBack));
        }
        node.stop();
        // Renamed when whole: who finds it, finds all of it.
        let part = beginning.with_extension(format!("part{}", std::process::id()));
        copy(folder.path(), &part)
            .and_then(|()| std::fs::rename(&part, &beginning))
            .or_else(|error| {
                // Another run was quicker.
                if beginning.is_dir() { std::fs::remove_dir_all(&part) } else { Err(error) }
            })
            .map_err(cannot)?;
        Ok(beginning)
    }

    /// Names a beginning: the bundle, what its node has, and which `holmd` made it.
    fn key(&self, bundle: &[u8]) -> Result<String, Failure> {
        let holmd = programs::holmd()?;
        let compiler = programs::find(crate::imports::COMPILER);
        let mut all = bundle.to_vec();
        if let Some(node) = &self.node {
            let text = std::fs::read(node);
            all.extend(text.map_err(|error| Failure::new(format!("cannot read {}: {error}", node.display())))?);
        }
        for program in std::iter::once(holmd).chain(compiler) {
            let made = std::fs::metadata(&program).and_then(|meta| meta.modified()).ok();
            all.extend(format!("{}{made:?}", program.display()).into_bytes());
        }
        Ok(Digest::of(&all).to_string().chars().take(24).collect())
    }

    /// Leaves the newest beginnings. For the end: a run needs all of its own.
    pub(crate) fn tidy(&self) {
        let entries = std::fs::read_dir(&self.kept).into_iter().flatten().flatten();
        let mut all: Vec<_> =
            entries.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
        all.sort();
        for (_, path) in all.iter().rev().skip(MOST_KEPT) {
            // What cannot be removed now may be later.
            let _ = std::fs::remove_dir_all(path);
        }
    }

    fn start(&self, data: &Path, clock: holm_core::Timestamp) -> Result<OwnNode, Failure> {
        let node = self.node.as_deref();
        Start { data, node, more: &self.more, listen: "127.0.0.1:0", clock: Some(clock) }.run()
    }

    /// Runs a case from its beginning.
    pub(crate) fn run(&self, case: &Case, beginning: &Path) -> Result<Passed, Failure> {
        let begun = Instant::now();
        let folder = folder()?;
        copy(beginning, folder.path())
            .map_err(|error| Failure::new(format!("cannot copy {}: {error}", beginning.display())))?;
        let node = self.start(folder.path(), case.start)?;
        let mut passed = alone(self.steps(&node.client, case))??;
        passed.took = begun.elapsed();
        Ok(passed)
    }

    async fn steps(&self, client: &Client, case: &Case) -> Result<Passed, Failure> {
        let mut passed = Passed::default();
        client.post("/v1/rehearsal/settle", Bytes::new()).await?;
        // What the start of the node led to is nobody's step.
        let mut after = 0;
        self.takes(client, &mut after).await?;
        for (index, step) in case.steps.iter().enumerate() {
            let reply = self.act(client, &step.act).await?;
            client.post("/v1/rehearsal/settle", Bytes::new()).await?;
            let found = Found { reply, ..self.look(client, step, &mut after).await? };
            for take in &found.takes {
                let figure = |name: &str| take.get(name).and_then(Value::as_u64).unwrap_or_default();
                passed.invocations += 1;
                passed.peak_memory = passed.peak_memory.max(figure("peak_memory"));
                passed.slowest = passed.slowest.max(Duration::from_micros(figure("wall_us")));
            }
            let mut differ = differences(&step.expect, &found, case.tolerance);
            differ.extend(over(case, &passed));
            if !differ.is_empty() {
                passed.failed = Some((index + 1, differ));
                return Ok(passed);
            }
        }
        Ok(passed)
    }

    /// Lets it happen; what a request was answered with.
    async fn act(&self, client: &Client, act: &Act) -> Result<Option<Reply>, Failure> {
        let function = escape(&self.function);
        let (path, body) = match act {
            Act::Mqtt { topic, payload, qos, retain } => {
                let topic = escape(topic.as_str());
                let path = format!("/v1/publish?topic={topic}&qos={}&retain={retain}", Qos::level(*qos));
                client.post(&path, payload.clone().into()).await?;
                return Ok(None);
            }
            Act::Function { from, payload } => {
                let from = escape(from);
                let path = format!("/v1/functions/{function}/invoke?source=function&subject={from}");
                client.post(&path, payload.clone().into()).await?;
                return Ok(None);
            }
            Act::Invoke { subject, payload } => {
                let subject = escape(subject);
                let path = format!("/v1/functions/{function}/invoke?subject={subject}");
                client.post(&path, payload.clone().into()).await?;
                return Ok(None);
            }
            Act::Advance(by) => (format!("/v1/rehearsal/advance?ms={}", by.as_millis()), String::new()),
            Act::Schedule(name) => (format!("/v1/rehearsal/schedule/{function}/{}", escape(name)), String::new()),
            Act::Sensor { sensor, readings } => {
                (format!("/v1/rehearsal/sensor/{}", escape(sensor)), serde_json::json!(readings).to_string())
            }
            Act::File { folder, name, payload } => {
                let path = format!("/v1/rehearsal/file/{}/{}", escape(folder), escape(name));
                client.post(&path, payload.clone().into()).await?;
                return Ok(None);
            }
            Act::Http { method, path, query, content_type, headers, payload } => {
                let mut target = format!("/v1/rehearsal/http?method={method}&path={}", escape(path));
                let headers = Some(serde_json::json!(headers).to_string());
                for (name, value) in [("query", query), ("content_type", content_type), ("headers", &headers)] {
                    if let Some(value) = value {
                        target.push_str(&format!("&{name}={}", escape(value)));
                    }
                }
                let answer = client.post(&target, payload.clone().into()).await?;
                let reply = serde_json::from_value(answer).map_err(|error| {
                    Failure::new(format!("the node's answer to a request is not understood: {error}"))
                })?;
                return Ok(Some(reply));
            }
            Act::Gpio { line, level } => {
                (format!("/v1/rehearsal/line/{}?level={}", escape(line), level.as_str()), String::new())
            }
        };
        client.post(&path, body.into()).await?;
        Ok(None)
    }

    /// What there is after a step.
    async fn look(&self, client: &Client, step: &Step, after: &mut u64) -> Result<Found, Failure> {
        let mut found = Found { takes: self.takes(client, after).await?, ..Found::default() };
        if step.expect.state.is_some() {
            found.state = client.get_as(&format!("/v1/state/{}", escape(&self.function)), "state").await?;
        }
        if step.expect.dead_letters.is_some() {
            let path = format!("/v1/dlq?limit={MOST_LETTERS}&function={}", escape(&self.function));
            let letters: Vec<Value> = client.get_as(&path, "dead_letters").await?;
            found.dead_letters = letters.len() as u64;
        }
        if step.expect.lines.is_some() {
            let lines: Vec<Value> = client.get_as("/v1/board", "lines").await?;
            let level = |line: &Value| {
                let level: Level = serde_json::from_value(line.get("level")?.clone()).ok()?;
                Some((line.get("name")?.as_str()?.to_owned(), level))
            };
            found.lines = lines.iter().filter_map(level).collect();
        }
        Ok(found)
    }

    /// What the function did since the last look.
    async fn takes(&self, client: &Client, after: &mut u64) -> Result<Vec<Value>, Failure> {
        let mut lines = client.stream(&format!("/v1/tape?after={after}&limit={MOST_TAKES}")).await?;
        let mut takes = Vec::new();
        while let Some(take) = lines.next().await? {
            let number = take.get("number").and_then(Value::as_u64).unwrap_or_default();
            if number != *after + 1 {
                return Err(Failure::new(
                    "a step made the function run so often that the node could not keep what it did",
                )
                .next("let less happen in one step"));
            }
            *after = number;
            if take.get("function").and_then(Value::as_str) == Some(&*self.function) {
                takes.push(take);
            }
        }
        Ok(takes)
    }
}

/// What took more than the case allows.
fn over(case: &Case, passed: &Passed) -> Vec<Difference> {
    let mut over = Vec::new();
    if let Some(most) = case.memory.filter(|most| passed.peak_memory > *most) {
        over.push(Difference::at_most("memory", crate::look::bytes(most), crate::look::bytes(passed.peak_memory)));
    }
    if let Some(most) = case.time.filter(|most| passed.slowest > *most) {
        over.push(Difference::at_most("time", format!("{most:?}"), format!("{:?}", passed.slowest)));
    }
    over
}

/// The manifest with other defaults: that is how a case has its own parameters.
fn with_config(text: &str, config: &BTreeMap<String, Value>) -> Result<String, Failure> {
    if config.is_empty() {
        return Ok(text.to_owned());
    }
    let wrong = |error: &dyn std::fmt::Display| Failure::new(format!("cannot set the parameters of a case: {error}"));
    let mut table: toml::Table = toml::from_str(text).map_err(|error| wrong(&error))?;
    for (name, value) in config {
        let value = toml::Value::try_from(value).map_err(|error| wrong(&error))?;
        if let Some(parameter) =
            table.get_mut("config").and_then(|all| all.get_mut(name)).and_then(toml::Value::as_table_mut)
        {
            parameter.insert("default".into(), value);
        }
    }
    toml::to_string(&table).map_err(|error| wrong(&error))
}

/// A folder for a node. Not in the function's own, whose path may be too long for a socket.
fn folder() -> Result<tempfile::TempDir, Failure> {
    let folder = tempfile::Builder::new().prefix("holm-").tempdir();
    folder.map_err(|error| Failure::new(format!("cannot make a folder for a node: {error}")))
}

/// Copies a data folder as far as a node starts from it.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (kind, name) = (entry.file_type()?, entry.file_name());
        if kind.is_dir() {
            copy(&entry.path(), &to.join(name))?;
        } else if kind.is_file() && name != "log" {
            std::fs::copy(entry.path(), to.join(name))?;
        }
    }
    Ok(())
}

/// Waits for it on this thread: cases run on several, each with a node of its own.
fn alone<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    Ok(runtime.block_on(work))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_has_parameters_of_its_own() {
        let text = "manifest_version = 1\n[function]\nname = \"f\"\nversion = \"1.0.0\"\n\
                    [config]\nlimit = { type = \"number\", default = 1.5, min = 0 }\n";
        let config = BTreeMap::from([("limit".to_owned(), serde_json::json!(7.25))]);
        let changed = with_config(text, &config).unwrap_or_default();
        let manifest = holm_core::Manifest::parse("holm.toml", &changed);
        let found = manifest.map(|manifest| manifest.config.iter().map(|(_, it)| it.default.to_string()).collect());
        assert_eq!(found, Ok(vec!["7.25".to_owned()]));
    }
}
