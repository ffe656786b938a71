//! `holm.toml`: what a function is called, what starts it, what it may do and how much it may use.

use std::sync::Arc;
use std::time::Duration;

use crate::{Document, FunctionName, Label, Problems, Qos, Section, TopicFilter};

mod board;
mod outside;

pub use board::{GpioTrigger, SensorTrigger, Threshold, Zone};
pub use outside::{FileTrigger, HttpTrigger, METHODS};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A checked manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The function's name, unique on a node.
    pub name: FunctionName,
    /// `MAJOR.MINOR.PATCH`, immutable once published.
    pub version: Arc<str>,
    /// One line for people.
    pub description: Option<String>,
    /// How `holm build` makes the component.
    pub build: Build,
    /// What starts it.
    pub triggers: Vec<Trigger>,
    /// What it may do. Absent means nothing.
    pub permissions: Permissions,
    /// What it may use.
    pub limits: Limits,
    /// What happens after a failed attempt.
    pub retry: Retry,
    /// How long a dead letter is kept.
    pub dead_letter_max_age: Duration,
    /// Typed parameters, by name.
    pub config: Vec<(Arc<str>, ConfigParameter)>,
    /// Result series, by name.
    pub results: Vec<(Arc<str>, SeriesDecl)>,
}

/// How a component is made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Build {
    /// A shell command, run in the manifest's folder.
    pub command: Option<String>,
    /// Where the component is afterwards, relative to the manifest.
    pub source: Option<String>,
    /// The bytes that the component is meant to have at most, for `holm build` to say.
    pub budget: Option<u64>,
}

/// One thing that starts a function.
#[derive(Debug, Clone, PartialEq)]
pub struct Trigger {
    /// What.
    pub kind: TriggerKind,
    /// Whether its events are settled in the store before they are acknowledged. MQTT at QoS 0 never is, and readings
    /// of a sensor are not by default.
    pub durable: bool,
}

/// The kinds of trigger.
#[derive(Debug, Clone, PartialEq)]
pub enum TriggerKind {
    /// Messages on topics.
    Mqtt {
        /// Filters with `+` and `#`.
        topics: Vec<TopicFilter>,
        /// The most that is asked of an external broker; an embedded one delivers as published.
        qos: Qos,
        /// Whether messages that were retained before the function was there are given to it.
        retained: bool,
    },
    /// Times.
    Schedule {
        /// The name guests see as subject.
        name: Arc<str>,
        /// When.
        when: ScheduleWhen,
        /// What happens to firings missed while the node was off.
        missed: MissedRun,
    },
    /// Readings of a sensor.
    Sensor(SensorTrigger),
    /// Changes of an input.
    Gpio(GpioTrigger),
    /// Files in a folder.
    File(FileTrigger),
    /// Requests on a route.
    Http(HttpTrigger),
    /// Another function's end.
    Function {
        /// Whose.
        from: FunctionName,
        /// Which end.
        on: When,
    },
    /// `start` of the node; `deployed`: the function became active; `cloud-connected`; `update`: newer versions are about to take the
    /// place of older ones, and a handler that answers retry has them wait.
    Lifecycle {
        /// Which.
        on: Vec<Arc<str>>,
    },
}

/// When a schedule fires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduleWhen {
    /// Five- or six-field cron expression, in the node's local time.
    Cron(Arc<str>),
    /// Every so often, counted from the start of the node.
    Interval(Duration),
}

/// What to do about firings that were missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissedRun {
    /// Nothing.
    #[default]
    Skip,
    /// Fire once, however many were missed.
    RunOnce,
}

/// Which end of a function starts another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum When {
    /// It succeeded: the event carries its answer.
    #[default]
    Success,
    /// It went to the dead letters: the event carries its input.
    Failure,
}

/// What a function may do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Permissions {
    /// Topics it may publish to; `{function}` and `{device}` stand for their names.
    pub publish: Vec<TopicFilter>,
    /// Key-value namespaces: (name, may write). `self` stands for the function's own.
    pub kv: Vec<(Arc<str>, bool)>,
    /// Functions it may invoke or enqueue to.
    pub invoke: Vec<FunctionName>,
    /// Sensors it may read.
    pub sensors: Vec<Label>,
    /// Lines: (name, may drive it).
    pub gpio: Vec<(Label, bool)>,
    /// Buses it may speak on: (name, the one address, or all).
    pub i2c: Vec<(Label, Option<u8>)>,
    /// SPI devices it may speak to.
    pub spi: Vec<Label>,
    /// Secrets it may read.
    pub secrets: Vec<Label>,
}

/// What a function may use. Limits are separate because they protect different things: memory the node, time the
/// function's neighbours, rate the broker, kv and output the disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Linear memory of an instance, in bytes.
    pub memory: u64,
    /// Wall time of an invocation.
    pub timeout: Duration,
    /// Invocations at the same time.
    pub concurrency: u32,
    /// Events per second, as a token bucket one second deep. `None`: as fast as the node can.
    pub rate: Option<f64>,
    /// Bytes of publishes, results and enqueued input in one invocation.
    pub output: u64,
    /// Bytes of keys and values in its own namespace.
    pub kv: u64,
    /// Bytes of log in one invocation; what is beyond is cut and counted.
    pub log: u64,
    /// Events that may wait for it in memory before more are refused.
    pub queue: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 16 * MIB,
            timeout: Duration::from_millis(500),
            concurrency: 1,
            rate: None,
            output: 256 * KIB,
            kv: MIB,
            log: 16 * KIB,
            queue: 1024,
        }
    }
}

/// Whether later events may pass one that is being retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RetryOrder {
    /// They may.
    #[default]
    Skip,
    /// They wait, so that the order of a topic holds.
    Block,
}

/// What happens after a failed attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Attempts in all, the first included.
    pub max_attempts: u32,
    /// Before the second attempt.
    pub interval: Duration,
    /// What the interval is multiplied by for each further attempt.
    pub backoff_rate: f64,
    /// Order among retried and later events.
    pub order: RetryOrder,
}

impl Default for Retry {
    fn default() -> Self {
        Self { max_attempts: 3, interval: Duration::from_secs(1), backoff_rate: 2.0, order: RetryOrder::Skip }
    }
}

impl Retry {
    /// The wait after `attempt` (1-based) has failed: never more than an hour.
    pub fn wait_after(&self, attempt: u32) -> Duration {
        let factor = self.backoff_rate.powi(i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX));
        let seconds = (self.interval.as_secs_f64() * factor).min(3_600.0);
        Duration::try_from_secs_f64(seconds).unwrap_or(self.interval)
    }
}

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigKind {
    /// Text.
    Text,
    /// A number.
    Number,
    /// True or false.
    Boolean,
}

/// A parameter's value, in the text form that guests read through wasi:config.
pub type ConfigValue = Arc<str>;

/// A typed parameter that can be changed without a new version.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigParameter {
    /// Its type.
    pub kind: ConfigKind,
    /// Its value unless set otherwise.
    pub default: ConfigValue,
    /// Lower bound of a number.
    pub min: Option<f64>,
    /// Upper bound of a number.
    pub max: Option<f64>,
}

/// A result series.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeriesDecl {
    /// For the axis of a plot.
    pub unit: Option<String>,
    /// Whether it goes up in the alarm lane.
    pub high_priority: bool,
}

impl Manifest {
    /// Reads and checks a manifest; `origin` names it in the problems.
    pub fn parse(origin: &str, text: &str) -> Result<Self, Problems> {
        let (document, mut root) = Document::parse(origin, text)?;
        let manifest = read(&mut root);
        drop(root);
        document.finish()?;
        manifest.ok_or_else(|| Problems {
            origin: origin.to_owned(),
            problems: vec![crate::Problem { line: 0, key: "function".into(), message: "is missing".into() }],
        })
    }

    /// The topic filters of its MQTT triggers.
    pub fn mqtt_topics(&self) -> impl Iterator<Item = &TopicFilter> {
        self.triggers.iter().flat_map(|trigger| match &trigger.kind {
            TriggerKind::Mqtt { topics, .. } => topics.as_slice(),
            _ => &[],
        })
    }
}

fn read(root: &mut Section<'_>) -> Option<Manifest> {
    if root.integer("manifest_version", 1..=1).is_none() {
        root.problem("manifest_version", "must be given as 1");
    }
    let function = root.section("function");
    let (name, version, description) = match function {
        Some(mut section) => (
            section.require("name", FunctionName::new),
            section.require("version", version),
            section.text("description"),
        ),
        None => {
            root.problem("function", "is missing");
            (None, None, None)
        }
    };
    let build = root
        .section("build")
        .map(|mut section| Build {
            command: section.text("command"),
            source: section.text("source"),
            budget: section.bytes("budget", 1..=64 * MIB),
        })
        .unwrap_or_default();
    let triggers = root.section("trigger").map(|mut section| triggers(&mut section)).unwrap_or_default();
    let permissions = root.section("permissions").map(|mut section| permissions(&mut section)).unwrap_or_default();
    let limits = root.section("limits").map(|mut section| limits(&mut section)).unwrap_or_default();
    let retry = root.section("retry").map(|mut section| retry(&mut section)).unwrap_or_default();
    let week = Duration::from_secs(7 * 86_400);
    let dead_letter_max_age =
        root.section("dead_letter").and_then(|mut section| section.duration("max_age")).unwrap_or(week);
    let config = root.section("config").map(|mut section| config(&mut section)).unwrap_or_default();
    let results = root.section("results").map(|mut section| results(&mut section)).unwrap_or_default();
    Some(Manifest {
        name: name?,
        version: version?,
        description,
        build,
        triggers,
        permissions,
        limits,
        retry,
        dead_letter_max_age,
        config,
        results,
    })
}

fn version(text: &str) -> Result<Arc<str>, String> {
    let parts: Vec<&str> = text.split('.').collect();
    let numeric = |part: &&str| {
        !part.is_empty()
            && part.len() <= 9
            && part.bytes().all(|b| b.is_ascii_digit())
            && (part.len() == 1 || !part.starts_with('0'))
    };
    if parts.len() == 3 && parts.iter().all(numeric) {
        Ok(text.into())
    } else {
        Err(format!("`{text}` is not a version: three numbers, such as `1.4.0`"))
    }
}

fn triggers(section: &mut Section<'_>) -> Vec<Trigger> {
    let mut triggers = Vec::new();
    for mut mqtt in section.sections("mqtt") {
        let topics = mqtt.texts("topics", TopicFilter::new);
        if topics.is_empty() {
            mqtt.problem("topics", "needs at least one filter");
        }
        let qos = mqtt.integer("qos", 0..=2).and_then(|level| Qos::from_level(level as u8)).unwrap_or(Qos::AtLeastOnce);
        let retained = mqtt.choice("retained", &[("skip", false), ("keep", true)]).unwrap_or(false);
        let durable = mqtt.boolean("durable").unwrap_or(true);
        triggers.push(Trigger { kind: TriggerKind::Mqtt { topics, qos, retained }, durable });
    }
    for (index, mut schedule) in section.sections("schedule").into_iter().enumerate() {
        let name = schedule.text("name").map_or_else(|| format!("schedule-{index}").into(), Arc::from);
        let cron = schedule.text("cron");
        let interval = schedule.duration_in("interval", Duration::from_millis(100)..=Duration::from_secs(366 * 86_400));
        let missed = schedule
            .choice("missed", &[("skip", MissedRun::Skip), ("run-once", MissedRun::RunOnce)])
            .unwrap_or_default();
        let durable = schedule.boolean("durable").unwrap_or(true);
        let when = match (cron, interval) {
            (Some(cron), None) => ScheduleWhen::Cron(cron.into()),
            (None, Some(interval)) => ScheduleWhen::Interval(interval),
            _ => {
                schedule.problem("cron", "give either `cron` or `interval`");
                continue;
            }
        };
        let named =
            |trigger: &Trigger| matches!(&trigger.kind, TriggerKind::Schedule { name: other, .. } if *other == name);
        if triggers.iter().any(named) {
            schedule.problem(
                "name",
                format!("there is another schedule `{name}`, and when one has fired is kept by its name"),
            );
        }
        triggers.push(Trigger { kind: TriggerKind::Schedule { name, when, missed }, durable });
    }
    for mut sensor in section.sections("sensor") {
        let durable = sensor.boolean("durable");
        if let Some(trigger) = board::sensor(&mut sensor) {
            // The next reading is worth more than an old one that is tried again; a crossing is there once.
            let durable = durable.unwrap_or(trigger.threshold.is_some());
            triggers.push(Trigger { kind: TriggerKind::Sensor(trigger), durable });
        }
    }
    for mut gpio in section.sections("gpio") {
        let durable = gpio.boolean("durable").unwrap_or(true);
        if let Some(trigger) = board::gpio(&mut gpio) {
            triggers.push(Trigger { kind: TriggerKind::Gpio(trigger), durable });
        }
    }
    for mut file in section.sections("file") {
        let durable = file.boolean("durable").unwrap_or(true);
        if let Some(trigger) = outside::file(&mut file) {
            triggers.push(Trigger { kind: TriggerKind::File(trigger), durable });
        }
    }
    for mut http in section.sections("http") {
        // Who asks waits for the answer, unless the function has all the time in the world.
        let durable = http.boolean("durable").unwrap_or(false);
        if let Some(trigger) = outside::http(&mut http) {
            triggers.push(Trigger { kind: TriggerKind::Http(trigger), durable });
        }
    }
    for mut function in section.sections("function") {
        let from = function.require("from", FunctionName::new);
        let on = function.choice("on", &[("success", When::Success), ("failure", When::Failure)]).unwrap_or_default();
        if let Some(from) = from {
            triggers.push(Trigger { kind: TriggerKind::Function { from, on }, durable: true });
        }
    }
    for mut lifecycle in section.sections("lifecycle") {
        let known = ["start", "deployed", "cloud-connected", "update"];
        let on = lifecycle.texts("on", |text| {
            if known.contains(&text) { Ok(Arc::from(text)) } else { Err(format!("`{text}` is not one of {known:?}")) }
        });
        if on.is_empty() {
            lifecycle.problem("on", format!("needs at least one of {known:?}"));
        }
        triggers.push(Trigger { kind: TriggerKind::Lifecycle { on }, durable: true });
    }
    triggers
}

fn permissions(section: &mut Section<'_>) -> Permissions {
    Permissions {
        publish: section.texts("publish", TopicFilter::new),
        kv: section.texts("kv", |text| match text.split_once(':') {
            Some((mode @ ("rw" | "ro"), name)) if namespace(name) => Ok((Arc::from(name), mode == "rw")),
            _ => Err(format!("`{text}` is not a grant: `rw:` or `ro:` and `self` or `shared/NAME`")),
        }),
        invoke: section.texts("invoke", FunctionName::new),
        sensors: section.texts("sensors", Label::new),
        gpio: section.texts("gpio", board::line_grant),
        i2c: section.texts("i2c", board::i2c_grant),
        spi: section.texts("spi", Label::new),
        secrets: section.texts("secrets", Label::new),
    }
}

fn namespace(name: &str) -> bool {
    name == "self" || name.strip_prefix("shared/").is_some_and(|rest| FunctionName::new(rest).is_ok())
}

fn limits(section: &mut Section<'_>) -> Limits {
    let default = Limits::default();
    Limits {
        memory: section.bytes("memory", 64 * KIB..=64 * MIB).unwrap_or(default.memory),
        timeout: section
            .duration_in("timeout", Duration::from_millis(1)..=Duration::from_secs(300))
            .unwrap_or(default.timeout),
        concurrency: section.integer("concurrency", 1..=8).map_or(default.concurrency, |n| n as u32),
        rate: section.rate("rate").or(default.rate),
        output: section.bytes("output", 0..=16 * MIB).unwrap_or(default.output),
        kv: section.bytes("kv", 0..=256 * MIB).unwrap_or(default.kv),
        log: section.bytes("log", 0..=MIB).unwrap_or(default.log),
        queue: section.integer("queue", 1..=65_536).map_or(default.queue, |n| n as u32),
    }
}

fn retry(section: &mut Section<'_>) -> Retry {
    let default = Retry::default();
    let backoff_rate = section.number("backoff_rate").unwrap_or(default.backoff_rate);
    if !(1.0..=100.0).contains(&backoff_rate) {
        section.problem("backoff_rate", format_args!("{backoff_rate} is out of range, 1 to 100"));
    }
    Retry {
        max_attempts: section.integer("max_attempts", 1..=1000).map_or(default.max_attempts, |n| n as u32),
        interval: section
            .duration_in("interval", Duration::from_millis(1)..=Duration::from_secs(86_400))
            .unwrap_or(default.interval),
        backoff_rate,
        order: section
            .choice("order", &[("skip", RetryOrder::Skip), ("block", RetryOrder::Block)])
            .unwrap_or(default.order),
    }
}

fn config(section: &mut Section<'_>) -> Vec<(Arc<str>, ConfigParameter)> {
    let mut parameters = Vec::new();
    for (name, mut parameter) in section.named_sections() {
        let kinds = [("text", ConfigKind::Text), ("number", ConfigKind::Number), ("boolean", ConfigKind::Boolean)];
        let kind = parameter.choice("type", &kinds);
        let default = parameter.simple("default");
        let (min, max) = (parameter.number("min"), parameter.number("max"));
        let (Some(kind), Some((found, default))) = (kind, default) else {
            parameter.problem("type", "a parameter needs `type` and `default`");
            continue;
        };
        let expected = kinds.iter().find(|(_, k)| *k == kind).map_or("", |(word, _)| word);
        if found != expected {
            parameter.problem("default", format_args!("is a {found}, but the type is {expected}"));
        }
        let parameter_checked = ConfigParameter { kind, default: default.into(), min, max };
        if let Err(message) = parameter_checked.check(&parameter_checked.default) {
            parameter.problem("default", message);
        }
        parameters.push((name.into(), parameter_checked));
    }
    parameters
}

impl ConfigParameter {
    /// Whether `value` is one this parameter may have.
    pub fn check(&self, value: &str) -> Result<(), String> {
        match self.kind {
            ConfigKind::Text => Ok(()),
            ConfigKind::Boolean if matches!(value, "true" | "false") => Ok(()),
            ConfigKind::Boolean => Err(format!("`{value}` is not true or false")),
            ConfigKind::Number => {
                let number: f64 = value.parse().map_err(|_| format!("`{value}` is not a number"))?;
                let low = self.min.is_some_and(|min| number < min);
                let high = self.max.is_some_and(|max| number > max);
                if low || high || !number.is_finite() {
                    return Err(format!("{value} is out of range, {:?} to {:?}", self.min, self.max));
                }
                Ok(())
            }
        }
    }
}

fn results(section: &mut Section<'_>) -> Vec<(Arc<str>, SeriesDecl)> {
    let mut series = Vec::new();
    for (name, mut declaration) in section.named_sections() {
        if FunctionName::new(&name).is_err() {
            declaration.problem("", "a series is named by a-z, 0-9 and `-`");
        }
        let unit = declaration.text("unit");
        let high_priority = declaration.choice("priority", &[("normal", false), ("high", true)]).unwrap_or_default();
        series.push((name.into(), SeriesDecl { unit, high_priority }));
    }
    series
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
