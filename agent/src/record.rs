//! An invocation as it can be run again, elsewhere: what it was given, what it was told, and how it ended.
//!
//! The document has a version, and is what lies in the data folder, goes up to the control plane, and comes into `holmd replay`.
//! It is bounded: what has no room is left out, and the record says what that was.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use holm_bundle::Digest;
use holm_core::{Effects, Event, EventId, Fault, LogLine, Outcome, Recording, Source, Timestamp, Usage};
use holm_runtime::{WASMTIME_VERSION, recording};
use serde::{Deserialize, Serialize};

use crate::dispatch::Loaded;
use crate::tape::Take;

/// The format that this release writes, and the last that it reads.
pub const FORMAT: u32 = 1;

/// Bytes of a recording. In base64, with the payload, it must fit into one message to the control plane (100 kB).
pub const RECORDING: usize = 24 << 10;

/// Bytes of an event's payload.
const PAYLOAD: usize = 32 << 10;

/// Bytes of a whole record. What is for people only goes when it has more.
pub const LARGEST: usize = 90_000;

/// Calls that are shown in words. The recording has all of them.
const CALLS: usize = 200;

/// What is known when an invocation has ended: cheap to gather, and made into a [`Record`] by somebody with time.
pub struct Ended {
    /// Which version ran.
    pub loaded: Arc<Loaded>,
    /// On what.
    pub event: Arc<Event>,
    /// When it ended.
    pub time: Timestamp,
    /// How.
    pub fault: Option<Fault>,
    /// What it did, where that is kept.
    pub did: Option<Did>,
    /// What it wrote to its log.
    pub logs: Vec<LogLine>,
    /// What it cost.
    pub usage: Usage,
    /// What it was told.
    pub recording: Recording,
}

/// What an invocation did, without those that it invoked.
pub struct Did {
    /// Its answer.
    pub answer: Option<holm_core::Payload>,
    /// In their order.
    pub effects: Vec<Effects>,
}

/// See the module's text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`].
    pub v: u32,
    /// Names it, everywhere; empty where it has no name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// When it ended, in milliseconds since 1970.
    pub time: Timestamp,
    /// Where.
    pub device: String,
    /// Which function.
    pub function: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the bundle.
    pub bundle: String,
    /// SHA-256 of the component.
    pub component: String,
    /// The engine's version: recordings are replayed by the release that made them.
    pub wasmtime: String,
    /// `ok`, or the kind of fault.
    pub outcome: String,
    /// The fault's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// What it was given.
    pub event: Given,
    /// Its parameters.
    pub config: BTreeMap<String, String>,
    /// The manifest, as its author wrote it.
    pub manifest: String,
    /// What it wrote to its log.
    pub logs: Vec<Line>,
    /// The first calls, in words.
    pub calls: Vec<Told>,
    /// All calls that were kept.
    pub recorded: u32,
    /// Those after them.
    pub missing: u32,
    /// The calls, encoded, in base64.
    pub recording: String,
    /// What it did, where that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub did: Option<serde_json::Value>,
    /// What is not whole in this record, in sentences.
    pub cut: Vec<String>,
    /// Wall time in microseconds.
    pub wall_us: u64,
    /// Largest linear memory, in bytes.
    pub peak_memory: u64,
}

/// An event, as it is written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Given {
    /// Its id.
    pub id: String,
    /// What it came from.
    pub source: Source,
    /// Topic, schedule, or function.
    pub subject: String,
    /// MIME type, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// When it was accepted.
    pub time: Timestamp,
    /// Whether that can be believed.
    pub time_synced: bool,
    /// From 1.
    pub attempt: u32,
    /// Functions before it.
    pub hops: u8,
    /// Properties.
    pub attributes: Vec<(String, String)>,
    /// Bytes of the payload.
    pub bytes: usize,
    /// The payload, where it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The payload in base64, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

/// A line of a log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    /// How loud.
    pub level: holm_core::LogLevel,
    /// Where from.
    pub context: String,
    /// The text.
    pub message: String,
}

/// A call in words.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Told {
    /// What was asked.
    pub asked: String,
    /// What was answered.
    pub told: String,
}

/// Why a record cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum Unplayable {
    /// Of another release.
    #[error("the record has format {0}, and this release reads {FORMAT}")]
    Format(u32),
    /// Not whole.
    #[error("the event's payload has {bytes} bytes, of which {kept} were kept: it cannot be run again")]
    Payload {
        /// It had.
        bytes: usize,
        /// There are.
        kept: usize,
    },
    /// Not base64.
    #[error("the record's {0} is damaged")]
    Damaged(&'static str),
}

impl Record {
    /// Of an invocation that ended. Its id comes later.
    pub fn of(ended: &Ended, device: &str) -> Self {
        let Ended { loaded, event, fault, usage, recording, .. } = ended;
        let mut cut = Vec::new();
        if recording.missing > 0 {
            cut.push(format!(
                "{} calls had no room after the first {}: a replay ends there",
                recording.missing, recording.calls
            ));
        }
        let given = Given::of(event, &mut cut);
        let calls = recording::read(recording);
        let told = |call: &recording::Call| Told { asked: call.question(), told: call.told() };
        let mut record = Self {
            v: FORMAT,
            id: String::new(),
            time: ended.time,
            device: device.to_owned(),
            function: loaded.manifest.name.to_string(),
            version: loaded.manifest.version.to_string(),
            bundle: loaded.digest.to_string(),
            component: loaded.component.to_string(),
            wasmtime: WASMTIME_VERSION.to_owned(),
            outcome: fault.as_ref().map_or("ok", Fault::kind).to_owned(),
            fault: fault.as_ref().map(Fault::message),
            event: given,
            config: loaded.config.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            manifest: loaded.text.to_string(),
            logs: ended.logs.iter().map(Line::of).collect(),
            calls: calls.iter().take(CALLS).map(told).collect(),
            recorded: recording.calls,
            missing: recording.missing,
            recording: STANDARD.encode(&recording.bytes),
            did: ended.did.as_ref().map(|did| ended.done(did)),
            cut,
            wall_us: u64::try_from(usage.wall.as_micros()).unwrap_or(u64::MAX),
            peak_memory: usage.peak_memory,
        };
        record.fit();
        record
    }

    /// Its document, which is at most [`LARGEST`] bytes long unless a manifest alone is.
    pub fn document(&self) -> Vec<u8> {
        // It has no map with other keys than texts, which is all that JSON cannot have.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Its name: what is in it. The same record has the same everywhere.
    pub fn name(&mut self) {
        self.id.clear();
        self.id = Digest::of(&self.document()).to_string();
        self.id.truncate(12);
    }

    /// What is for people only goes first, and then the recording: without its tail a record would not fit at all.
    fn fit(&mut self) {
        let over = |record: &Self| record.document().len().saturating_sub(LARGEST);
        if over(self) > 0 && !self.calls.is_empty() {
            self.calls.clear();
            self.cut.push("the calls in words had no room".to_owned());
        }
        if over(self) > 0 && !self.logs.is_empty() {
            self.logs.clear();
            self.cut.push("the log had no room".to_owned());
        }
    }

    /// The event, to be given again.
    pub fn event(&self) -> Result<Event, Unplayable> {
        if self.v != FORMAT {
            return Err(Unplayable::Format(self.v));
        }
        let Given { id, source, subject, content_type, time, time_synced, attempt, hops, attributes, bytes, .. } =
            self.event.clone();
        let data = match (&self.event.data, &self.event.base64) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(encoded)) => STANDARD.decode(encoded).map_err(|_| Unplayable::Damaged("payload"))?,
            (None, None) => Vec::new(),
        };
        if data.len() != bytes {
            return Err(Unplayable::Payload { bytes, kept: data.len() });
        }
        Ok(Event {
            id: EventId(id.into()),
            source,
            subject: subject.into(),
            content_type: content_type.map(Arc::from),
            data: Bytes::from(data),
            time,
            time_synced,
            attempt,
            hops,
            attributes: attributes.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        })
    }

    /// The recording, to answer again.
    pub fn recording(&self) -> Result<Recording, Unplayable> {
        let bytes = STANDARD.decode(&self.recording).map_err(|_| Unplayable::Damaged("recording"))?;
        Ok(Recording { bytes, calls: self.recorded, missing: self.missing })
    }
}

impl Ended {
    /// As the tape shows it.
    fn done(&self, did: &Did) -> serde_json::Value {
        let result = match &self.fault {
            None => Ok(did.answer.clone()),
            Some(fault) => Err(fault.clone()),
        };
        let (last, before) = match did.effects.split_last() {
            Some((last, before)) => (last.clone(), before),
            None => (Effects::default(), &[][..]),
        };
        let (logs, reads, usage) = (Vec::new(), Vec::new(), self.usage);
        let outcome = Outcome { result, response: None, effects: last, reads, logs, usage, recording: None };
        done(&self.event, &outcome, before)
    }
}

/// What an outcome did, in JSON: the same fields of the same invocation are the same.
pub fn done(event: &Event, outcome: &Outcome, before: &[Effects]) -> serde_json::Value {
    let (take, _) = Take::of(Arc::from(""), event.time, event, outcome, before.iter());
    let Take { answer, publishes, state, results, enqueued, .. } = take;
    serde_json::json!({
        "answer": answer, "publishes": publishes, "state": state, "results": results, "enqueued": enqueued,
    })
}

impl Given {
    fn of(event: &Event, cut: &mut Vec<String>) -> Self {
        let all = event.data.len();
        let kept = event.data.get(..PAYLOAD).unwrap_or(&event.data);
        if kept.len() < all {
            cut.push(format!("the payload has {all} bytes, of which {} are here: no replay", kept.len()));
        }
        let text = std::str::from_utf8(kept).ok().map(str::to_owned);
        let base64 = text.is_none().then(|| STANDARD.encode(kept));
        Self {
            id: event.id.to_string(),
            source: event.source,
            subject: event.subject.to_string(),
            content_type: event.content_type.as_ref().map(|text| text.to_string()),
            time: event.time,
            time_synced: event.time_synced,
            attempt: event.attempt,
            hops: event.hops,
            attributes: event.attributes.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            bytes: all,
            data: text,
            base64,
        }
    }
}

impl Line {
    /// Of a log.
    pub fn of(line: &LogLine) -> Self {
        Self { level: line.level, context: line.context.clone(), message: line.message.clone() }
    }
}
