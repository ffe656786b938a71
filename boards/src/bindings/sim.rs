//! `[sim]`: what the simulator's world does. Without it every channel follows a slow sine of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holm_core::{Label, Level, Section};

/// The simulator's script.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SimScript {
    /// Where random walks begin.
    pub seed: u64,
    /// What channels follow.
    pub signals: Vec<SignalScript>,
    /// What goes wrong.
    pub faults: Vec<FaultScript>,
    /// What inputs do.
    pub edges: Vec<EdgeScript>,
}

/// What one channel follows.
#[derive(Debug, Clone, PartialEq)]
pub struct SignalScript {
    /// Of which sensor.
    pub sensor: Label,
    /// Which channel.
    pub channel: Arc<str>,
    /// How.
    pub wave: Wave,
    /// The most that a value is off, either way.
    pub noise: f64,
}

/// A quantity over time.
#[derive(Debug, Clone, PartialEq)]
pub enum Wave {
    /// A constant.
    Constant(f64),
    /// `mean + amplitude * sin(2π t / period)`.
    Sine {
        /// The middle.
        mean: f64,
        /// From the middle to the top.
        amplitude: f64,
        /// From top to top.
        period: Duration,
    },
    /// A random step every so often, reflected at the bounds.
    Walk {
        /// The value at zero.
        start: f64,
        /// The longest step.
        step: f64,
        /// How often.
        every: Duration,
        /// Never below.
        min: f64,
        /// Never above.
        max: f64,
    },
    /// A recording: `seconds,value` lines, straight lines between them, and from the start again after the last.
    Csv {
        /// The file.
        file: PathBuf,
    },
}

/// Something that goes wrong for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultScript {
    /// The sensor or input.
    pub target: Label,
    /// What.
    pub kind: FaultKind,
    /// From when, since the start of the simulation.
    pub from: Duration,
    /// Until when.
    pub to: Duration,
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Every other transfer to the chip is not acknowledged.
    Nak,
    /// The chip holds a line of its bus: nobody on that bus can speak.
    Stuck,
    /// One bit of every answer is flipped, so that checksums are wrong.
    Crc,
    /// Conversions take ten times as long.
    Slow,
    /// Contacts bounce: every scripted edge comes with six more within two milliseconds.
    Bounce,
    /// There is no chip.
    Missing,
}

/// What an input does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeScript {
    /// Which.
    pub line: Label,
    /// When it changes, since the start of the simulation, in order.
    pub at: Vec<Duration>,
    /// How often it changes after that.
    pub every: Option<Duration>,
    /// What it is at before.
    pub initial: Level,
}

impl SimScript {
    pub(super) fn apply(&mut self, section: &mut Section<'_>) {
        self.seed = section.integer("seed", 0..=u64::MAX).unwrap_or(self.seed);
        for mut signal in section.sections("signal") {
            let sensor = signal.require("sensor", Label::new);
            let channel = signal.require("channel", |text| Ok::<_, String>(Arc::from(text)));
            let wave = wave(&mut signal);
            let noise = signal.number("noise").unwrap_or(0.0).abs();
            if let (Some(sensor), Some(channel), Some(wave)) = (sensor, channel, wave) {
                self.signals.push(SignalScript { sensor, channel, wave, noise });
            }
        }
        for mut fault in section.sections("fault") {
            let target = fault.require("target", Label::new);
            let kinds = [
                ("nak", FaultKind::Nak),
                ("stuck", FaultKind::Stuck),
                ("crc", FaultKind::Crc),
                ("slow", FaultKind::Slow),
                ("bounce", FaultKind::Bounce),
                ("missing", FaultKind::Missing),
            ];
            let kind = fault.choice("kind", &kinds);
            let from = fault.duration("from").unwrap_or_default();
            let to = fault.duration("to").unwrap_or(Duration::MAX);
            match (target, kind) {
                (Some(target), Some(kind)) => self.faults.push(FaultScript { target, kind, from, to }),
                (_, None) => fault.problem("kind", "a fault needs its kind"),
                _ => {}
            }
        }
        for mut edge in section.sections("edge") {
            let line = edge.require("line", Label::new);
            let mut at = edge.texts("at", holm_core::parse_duration);
            at.sort();
            let every = edge.duration_in("every", Duration::from_micros(100)..=Duration::from_secs(86_400));
            if at.is_empty() && every.is_none() {
                edge.problem("at", "give the times of its changes, or `every`");
            }
            let initial = edge.choice("initial", &[("low", Level::Low), ("high", Level::High)]).unwrap_or(Level::Low);
            if let Some(line) = line {
                self.edges.push(EdgeScript { line, at, every, initial });
            }
        }
    }

    /// The names that must be bound for the script to mean anything.
    pub(super) fn targets(&self) -> impl Iterator<Item = &str> {
        let signals = self.signals.iter().map(|signal| signal.sensor.as_str());
        let faults = self.faults.iter().map(|fault| fault.target.as_str());
        signals.chain(faults).chain(self.edges.iter().map(|edge| edge.line.as_str()))
    }
}

fn wave(section: &mut Section<'_>) -> Option<Wave> {
    let words = [("constant", 0), ("sine", 1), ("walk", 2), ("csv", 3)];
    let Some(word) = section.choice("wave", &words) else {
        section.problem("wave", "a signal needs its wave");
        return None;
    };
    let day = Duration::from_secs(86_400);
    let mut number = |key| section.number(key);
    Some(match word {
        0 => Wave::Constant(number("value")?),
        1 => Wave::Sine {
            mean: number("mean").unwrap_or(0.0),
            amplitude: number("amplitude").unwrap_or(1.0),
            period: section.duration_in("period", Duration::from_millis(1)..=365 * day).unwrap_or(day / 24),
        },
        2 => {
            let (min, max) = (number("min").unwrap_or(f64::MIN), number("max").unwrap_or(f64::MAX));
            let start = number("start").unwrap_or(0.0);
            let step = number("step").unwrap_or(1.0).abs();
            if min > start || start > max || step > max - min {
                section.problem("start", "must lie between `min` and `max`, further apart than a step");
            }
            let every = section.duration_in("every", Duration::from_millis(1)..=day).unwrap_or(Duration::from_secs(1));
            Wave::Walk { start, step, every, min, max }
        }
        _ => Wave::Csv { file: section.require("file", |text| Ok::<_, String>(PathBuf::from(text)))? },
    })
}
