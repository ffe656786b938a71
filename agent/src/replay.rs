//! `holmd replay`: runs recorded invocations again, one after the other, with nothing asked of anybody and nothing done.
//!
//! `holm` starts it, because the engine is here and not there. Jobs come in as lines of JSON on stdin, and each is answered
//! with a line on stdout. The native code is of this process' own compiler: it is not for a device.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use holm_core::{Fault, Manifest, Outcome};
use holm_runtime::recorder::Order;
use holm_runtime::{ConfigValues, Engine, EngineOptions, Frame, Function, Profile, WASMTIME_VERSION};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::record::{Line, Record, done};

/// One of the ticker's jobs needs no more.
const TICKER_STACK: usize = 128 << 10;

/// What is to be run.
#[derive(Deserialize)]
struct Job {
    record: Record,
    /// Of another version than the recorded one; without it, exactly that one is run.
    #[serde(default)]
    manifest: Option<String>,
}

/// What came of it.
#[derive(Default, Serialize)]
struct Answer {
    /// `ok`, or the kind of fault.
    outcome: &'static str,
    fault: Option<String>,
    frames: Vec<Frame>,
    /// The call that had no answer, in words.
    diverged: Option<String>,
    unasked: usize,
    made_up: Vec<&'static str>,
    did: Value,
    logs: Vec<Line>,
    /// Why it was not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The engine of a device's name, with what was linked last.
struct Stage<'a> {
    native: &'a Path,
    device: String,
    engine: Engine,
    linked: Option<(String, ConfigValues, Function)>,
}

/// Answers jobs until there are no more.
pub fn run(native: &Path, jobs: impl BufRead, mut answers: impl Write) -> anyhow::Result<()> {
    let mut stage: Option<Stage<'_>> = None;
    for line in jobs.lines() {
        let line = line.context("cannot read the jobs")?;
        let answer = match serde_json::from_str::<Job>(&line) {
            Ok(job) => {
                let at = match stage.take() {
                    Some(stage) if stage.device == job.record.device => stage,
                    _ => Stage::new(native, &job.record.device)?,
                };
                stage.insert(at).play(&job)
            }
            Err(error) => Err(anyhow::anyhow!("not a record that this release understands: {error}")),
        };
        let answer = answer.unwrap_or_else(|error| Answer { error: Some(format!("{error:#}")), ..Answer::default() });
        let text = serde_json::to_string(&answer).context("cannot write an answer")?;
        writeln!(answers, "{text}").and_then(|()| answers.flush()).context("cannot write an answer")?;
    }
    Ok(())
}

impl<'a> Stage<'a> {
    fn new(native: &'a Path, device: &str) -> anyhow::Result<Self> {
        // One instance lives at a time.
        let options =
            EngineOptions { device: device.to_owned(), slots: 2, addresses: true, ..EngineOptions::default() };
        let engine = Engine::new(Profile::host(), &options).context("cannot start the function engine")?;
        let ticker = engine.ticker();
        let builder = std::thread::Builder::new().name("epoch".to_owned()).stack_size(TICKER_STACK);
        // It ends with the process.
        builder.spawn(move || ticker.run()).context("cannot start the thread `epoch`")?;
        Ok(Self { native, device: device.to_owned(), engine, linked: None })
    }

    fn play(&mut self, job: &Job) -> anyhow::Result<Answer> {
        let Job { record, manifest } = job;
        anyhow::ensure!(
            record.wasmtime == WASMTIME_VERSION,
            "it was recorded with wasmtime {}, and this release has {WASMTIME_VERSION}: replay it with the release of the device",
            record.wasmtime
        );
        let (event, recording) = (record.event()?, record.recording()?);
        let (text, order) = match manifest {
            Some(text) => (text, Order::Loose),
            None => (&record.manifest, Order::Exact { out_of_time: record.outcome == "timeout" }),
        };
        let function = self.function(text, &record.config)?;
        let replayed = function.replay(&event, &recording, order)?;
        let outcome = replayed.outcome.context("the replay has no end")?;
        let Outcome { result, logs, .. } = &outcome;
        Ok(Answer {
            outcome: result.as_ref().err().map_or("ok", Fault::kind),
            fault: result.as_ref().err().map(Fault::message),
            frames: replayed.frames,
            diverged: replayed.diverged.map(|diverged| diverged.to_string()),
            unasked: replayed.unasked,
            made_up: replayed.made_up,
            logs: logs.iter().map(Line::of).collect(),
            did: done(&event, &outcome, &[]),
            error: None,
        })
    }

    /// The function with a manifest, and the parameters of the recording where that manifest has them too.
    fn function(&mut self, text: &str, recorded: &BTreeMap<String, String>) -> anyhow::Result<Function> {
        let manifest = Manifest::parse("the manifest", text)?;
        let value = |(name, parameter): &(Arc<str>, holm_core::ConfigParameter)| {
            let value = recorded.get(&**name).map_or_else(|| parameter.default.clone(), |own| Arc::from(&**own));
            (name.clone(), value)
        };
        let config: ConfigValues = manifest.config.iter().map(value).collect();
        match &self.linked {
            Some((linked, with, function)) if linked == text && *with == config => Ok(function.clone()),
            _ => {
                let function = self.engine.load_file(self.native, &manifest, Arc::new(config.clone()))?;
                self.linked = Some((text.to_owned(), config, function.clone()));
                Ok(function)
            }
        }
    }
}
