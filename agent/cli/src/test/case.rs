//! Case files: what `holm test` does to a function, and what it expects of it.
//!
//! A file is read whole, and everything that is wrong with it is said at once, with its line and key. What can never be
//! as a case expects it, because the manifest does not say so, is wrong too ([`super::sense`]).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holm_core::{Document, Level, METHODS, Problem, Problems, Qos, Section, Timestamp, TopicName};
use serde_json::Value;

use super::json;

/// When cases begin that do not say so: 2026-06-01 08:00, a Monday.
pub(crate) const START: Timestamp = Timestamp(1_780_300_800_000);

/// The furthest that one step sets the clock forward.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// How far numbers may be off where a case says nothing of it.
const DEFAULT_TOLERANCE: f64 = 1e-9;

/// A file of cases.
#[derive(Debug, Clone)]
pub(crate) struct File {
    /// Where.
    pub(crate) path: PathBuf,
    /// In the order of the file.
    pub(crate) cases: Vec<Case>,
}

/// One case: a node of its own, and what happens to it.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// For people.
    pub(crate) name: String,
    /// Where it begins.
    pub(crate) line: usize,
    /// What time it is at first.
    pub(crate) start: Timestamp,
    /// Parameters that are not at their defaults, as text.
    pub(crate) config: BTreeMap<String, Value>,
    /// The most memory that any invocation may take.
    pub(crate) memory: Option<u64>,
    /// The longest that any invocation may take.
    pub(crate) time: Option<Duration>,
    /// How far numbers may be from what is expected.
    pub(crate) tolerance: f64,
    /// One after the other.
    pub(crate) steps: Vec<Step>,
}

/// Something that happens, and what is expected of it.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// Where it begins.
    pub(crate) line: usize,
    /// What happens.
    pub(crate) act: Act,
    /// What is expected, once the node is at rest again.
    pub(crate) expect: Expect,
}

/// What happens in a step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Act {
    /// A message is published.
    Mqtt { topic: TopicName, payload: Vec<u8>, qos: Qos, retain: bool },
    /// Another function has ended, with this answer.
    Function { from: String, payload: Vec<u8> },
    /// Somebody hands it an event, as `holm invoke` does.
    Invoke { subject: String, payload: Vec<u8> },
    /// Time passes.
    Advance(Duration),
    /// Time passes until a schedule fires.
    Schedule(String),
    /// A sensor measures these values from now on, and is read.
    Sensor { sensor: String, readings: BTreeMap<String, f64> },
    /// An input changes.
    Gpio { line: String, level: Level },
    /// A file appears in a folder.
    File { folder: String, name: String, payload: Vec<u8> },
    /// Somebody asks on a route.
    Http {
        method: &'static str,
        path: String,
        query: Option<String>,
        content_type: Option<String>,
        headers: BTreeMap<String, String>,
        payload: Vec<u8>,
    },
}

impl Act {
    /// For people.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Mqtt { topic, .. } => format!("mqtt {topic}"),
            Self::Function { from, .. } => format!("function {from}"),
            Self::Invoke { subject, .. } => format!("invoke {subject}"),
            Self::Advance(by) => format!("advance {by:?}"),
            Self::Schedule(name) => format!("schedule {name}"),
            Self::Sensor { sensor, .. } => format!("sensor {sensor}"),
            Self::Gpio { line, level } => format!("gpio {line} {}", level.as_str()),
            Self::File { folder, name, .. } => format!("file {folder}/{name}"),
            Self::Http { method, path, .. } => format!("http {method} {path}"),
        }
    }
}

/// What is expected of a step. What is `None` is not looked at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expect {
    /// Where it is written.
    pub(crate) line: usize,
    /// How often the function ran.
    pub(crate) invocations: Option<u64>,
    /// How its last invocation ended.
    pub(crate) outcome: Option<String>,
    /// What the last invocation answered.
    pub(crate) answer: Option<Value>,
    /// All messages, in order.
    pub(crate) publishes: Option<Vec<Message>>,
    /// All rows of results, in order.
    pub(crate) results: Option<Vec<(String, Value)>>,
    /// The whole of its state, by key.
    pub(crate) state: Option<BTreeMap<String, Value>>,
    /// Texts that must be in its log, each in a line of its own, in order.
    pub(crate) logs: Option<Vec<String>>,
    /// How many dead letters there are.
    pub(crate) dead_letters: Option<u64>,
    /// What lines are at.
    pub(crate) lines: Option<BTreeMap<String, Level>>,
    /// What a request is answered with.
    pub(crate) status: Option<u16>,
    /// Headers of that answer, by name in small letters; others may be there.
    pub(crate) headers: BTreeMap<String, String>,
    /// The body of that answer.
    pub(crate) body: Option<Body>,
}

/// A message that is expected.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Option<Body>,
    pub(crate) qos: Option<u8>,
    pub(crate) retain: Option<bool>,
}

/// What a payload is to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    /// This text.
    Text(String),
    /// This JSON.
    Json(Value),
    /// JSON that has at least this.
    Has(Value),
}

impl File {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Problems> {
        let origin = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| Problems {
            origin: origin.clone(),
            problems: vec![Problem { line: 0, key: "file".into(), message: error.to_string() }],
        })?;
        Self::parse(path, &text)
    }

    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, Problems> {
        let (document, mut root) = Document::parse(&path.display().to_string(), text)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let cases: Vec<Case> =
            root.sections("case").into_iter().map(|mut section| case(&mut section, folder)).collect();
        if cases.is_empty() {
            root.problem("case", "there is none: begin one with [[case]]");
        }
        drop(root);
        document.finish()?;
        Ok(Self { path: path.to_owned(), cases })
    }
}

fn case(section: &mut Section<'_>, folder: &Path) -> Case {
    let name = section.text("name").unwrap_or_default();
    if name.trim().is_empty() {
        section.problem("name", "a case says in its name what holds when it passes");
    }
    let start = section.parse("start", moment).unwrap_or(START);
    let config = section.section("config").map(|mut section| json::entries(section.entries())).unwrap_or_default();
    let memory = section.bytes("memory", 64 << 10..=64 << 20);
    let time = section.duration_in("time", Duration::from_millis(1)..=Duration::from_secs(300));
    let tolerance = section.number("tolerance").unwrap_or(DEFAULT_TOLERANCE);
    if tolerance < 0.0 {
        section.problem("tolerance", "must be at least 0");
    }
    let there = section.has("step");
    let steps: Vec<Step> =
        section.sections("step").into_iter().filter_map(|mut section| step(&mut section, folder)).collect();
    if !there {
        section.problem("step", "a case needs at least one [[case.step]]");
    }
    Case { name, line: section.line(), start, config, memory, time, tolerance, steps }
}

fn moment(text: &str) -> Result<Timestamp, String> {
    let time: jiff::Timestamp =
        text.parse().map_err(|_| format!("`{text}` is not a time such as `2026-06-01T08:00:00Z`"))?;
    let time = Timestamp(time.as_millisecond());
    if time < EARLIEST {
        Err(format!("`{text}` is before 2026: a device would not believe its clock"))
    } else {
        Ok(time)
    }
}

/// 2026-01-01. The function is deployed then, and a clock does not go back.
pub(crate) const EARLIEST: Timestamp = Timestamp(1_767_225_600_000);

/// The keys that say what happens; a step has one of them.
const ACTS: [&str; 9] = ["mqtt", "function", "invoke", "advance", "schedule", "sensor", "gpio", "file", "http"];

fn step(section: &mut Section<'_>, folder: &Path) -> Option<Step> {
    let named: Vec<&str> = ACTS.into_iter().filter(|act| section.has(act)).collect();
    if named.len() != 1 {
        let found = if named.is_empty() { "none".to_owned() } else { named.join(" and ") };
        section.problem("step", format_args!("says one thing that happens, of {}; it has {found}", ACTS.join(", ")));
    }
    let line = section.line();
    let act = match named.first().copied() {
        Some("mqtt") => {
            let topic = section.require("mqtt", TopicName::new);
            let payload = payload(section, folder);
            let qos = section.integer("qos", 0..=2).and_then(|level| Qos::from_level(level as u8));
            let retain = section.boolean("retain").unwrap_or(false);
            topic.map(|topic| Act::Mqtt { topic, payload, qos: qos.unwrap_or(Qos::AtLeastOnce), retain })
        }
        Some("function") => {
            let from = section.text("function");
            let payload = payload(section, folder);
            from.map(|from| Act::Function { from, payload })
        }
        Some("invoke") => {
            let subject = section.text("invoke");
            let payload = payload(section, folder);
            subject.map(|subject| Act::Invoke { subject, payload })
        }
        Some("advance") => section.duration_in("advance", Duration::from_millis(1)..=LONGEST).map(Act::Advance),
        Some("schedule") => section.text("schedule").map(Act::Schedule),
        Some("sensor") => {
            let sensor = section.text("sensor");
            let readings = match section.section("readings") {
                Some(mut values) => json::numbers(&mut values),
                None => {
                    section.problem("readings", "is missing: what it measures, such as { temperature = 20.5 }");
                    BTreeMap::new()
                }
            };
            sensor.map(|sensor| Act::Sensor { sensor, readings })
        }
        Some("gpio") => {
            let name = section.text("gpio");
            let level = section.choice("level", &LEVELS);
            if level.is_none() {
                section.problem("level", "is missing: \"low\" or \"high\"");
            }
            name.zip(level).map(|(line, level)| Act::Gpio { line, level })
        }
        Some("file") => {
            let watched = section.text("file");
            let name = section.require("name", |text| Ok::<_, String>(text.to_owned()));
            let payload = payload(section, folder);
            watched.zip(name).map(|(folder, name)| Act::File { folder, name, payload })
        }
        Some("http") => {
            let target = section.text("http");
            let methods = METHODS.map(|method| (method, method));
            let method = section.choice("method", &methods).unwrap_or("POST");
            let json = section.has("json").then(|| "application/json".to_owned());
            let content_type = section.text("content_type").or(json);
            let headers = headers(section);
            let payload = payload(section, folder);
            target.map(|target| {
                let (path, query) = match target.split_once('?') {
                    Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
                    None => (target, None),
                };
                Act::Http { method, path, query, content_type, headers, payload }
            })
        }
        _ => None,
    };
    let expect = match section.section("expect") {
        Some(mut found) => {
            let at = if found.line() == 0 { line } else { found.line() };
            Expect { line: at, ..expect(&mut found) }
        }
        None => Expect { line, ..Expect::default() },
    };
    Some(Step { line, act: act?, expect })
}

const LEVELS: [(&str, Level); 2] = [("low", Level::Low), ("high", Level::High)];

/// The keys that say what a payload is; a step has at most one of them.
const PAYLOADS: [&str; 4] = ["payload", "json", "hex", "payload_file"];

/// Text, JSON, bytes in hexadecimal, or what is in a file beside the cases; nothing where none is given.
fn payload(section: &mut Section<'_>, folder: &Path) -> Vec<u8> {
    if PAYLOADS.into_iter().filter(|key| section.has(key)).count() > 1 {
        section.problem("payload", format_args!("give one of {}", PAYLOADS.join(", ")));
    }
    let text = section.text("payload").map(String::into_bytes);
    let value = section.any("json").map(|value| json::value(value).to_string().into_bytes());
    let bytes = section.parse("hex", hex);
    let file = section.parse("payload_file", |name| {
        let path = folder.join(name);
        std::fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    });
    text.or(value).or(bytes).or(file).unwrap_or_default()
}

/// Bytes from pairs of hexadecimal digits; blanks are for people.
fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u32>> =
        text.chars().filter(|letter| *letter != ' ').map(|letter| letter.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2));
    let digits = digits.ok_or("is pairs of hexadecimal digits, such as \"01 0f\"")?;
    let (pairs, _) = digits.as_chunks::<2>();
    Ok(pairs.iter().map(|[high, low]| (high * 16 + low) as u8).collect())
}

fn expect(section: &mut Section<'_>) -> Expect {
    let outcomes = ["ok", "retry", "reject", "trap", "timeout", "exhausted", "unavailable"].map(|word| (word, word));
    let outcome = section.choice("outcome", &outcomes).map(str::to_owned);
    let publishes =
        section.tables("publishes").map(|all| all.into_iter().filter_map(|mut one| message(&mut one)).collect());
    let results = section.tables("results").map(|all| {
        let row = |mut one: Section<'_>| {
            let series = one.require("series", |text| Ok::<_, String>(text.to_owned()));
            let value = one.any("value").map(json::value);
            if value.is_none() {
                one.problem("value", "is missing");
            }
            series.zip(value)
        };
        all.into_iter().filter_map(row).collect()
    });
    let lines = section.section("lines").map(|mut lines| {
        let mut levels = BTreeMap::new();
        for (line, value) in json::entries(lines.entries()) {
            match LEVELS.iter().find(|(word, _)| value == *word) {
                Some((_, level)) => drop(levels.insert(line, *level)),
                None => lines.problem(&line, "is \"low\" or \"high\""),
            }
        }
        levels
    });
    let has_logs = section.has("logs");
    let logs = section.texts("logs", |text| Ok::<_, String>(text.to_owned()));
    Expect {
        line: 0,
        invocations: section.integer("invocations", 0..=1_000_000),
        outcome,
        answer: section.any("answer").map(json::value),
        publishes,
        results,
        state: section.section("state").map(|mut state| json::entries(state.entries())),
        logs: has_logs.then_some(logs),
        dead_letters: section.integer("dead_letters", 0..=1_000_000),
        lines,
        headers: headers(section),
        status: section.integer("status", 100..=599).map(|status| status as u16),
        body: section.any("body").map(|value| match json::value(value) {
            Value::String(text) => Body::Text(text),
            value => Body::Json(value),
        }),
    }
}

/// Names in small letters, with their values.
fn headers(section: &mut Section<'_>) -> BTreeMap<String, String> {
    let Some(mut table) = section.section("headers") else { return BTreeMap::new() };
    let mut headers = BTreeMap::new();
    for (name, value) in json::entries(table.entries()) {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        match value {
            Value::String(text) if !name.is_empty() && name.bytes().all(is_token) => {
                headers.insert(name.to_ascii_lowercase(), text);
            }
            _ => table.problem(&name, "is no header: a name such as x-request-id, with a text"),
        }
    }
    headers
}

fn message(section: &mut Section<'_>) -> Option<Message> {
    let topic = section.require("topic", TopicName::new);
    let text = section.text("payload").map(Body::Text);
    let whole = section.any("json").map(|value| Body::Json(json::value(value)));
    let part = section.any("has").map(|value| Body::Has(json::value(value)));
    let given: Vec<Body> = [text, whole, part].into_iter().flatten().collect();
    if given.len() > 1 {
        section.problem("payload", "give one of `payload`, `json` and `has`");
    }
    let qos = section.integer("qos", 0..=2).map(|qos| qos as u8);
    let retain = section.boolean("retain");
    Some(Message { topic: topic?.as_str().to_owned(), payload: given.into_iter().next(), qos, retain })
}
