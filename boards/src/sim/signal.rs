//! What the world does: quantities as functions of time, the same for the same seed.

use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::BoardError;
use crate::bindings::{SensorBinding, SimScript, Wave};
use crate::drivers::Channel;

/// The most steps that a walk is caught up by.
const MAX_STEPS: u64 = 1_000_000;

/// The most points of a recording.
const MAX_POINTS: usize = 1_000_000;

/// What channels are held at, by sensor and channel, whatever their signals say.
pub(super) type Held = Arc<Mutex<BTreeMap<(String, String), f64>>>;

/// The quantities that one sensor measures.
pub(crate) struct Signals {
    sensor: String,
    held: Held,
    channels: Vec<(Arc<str>, Signal, Noise)>,
}

/// What a value is off by, another time every time.
struct Noise {
    most: f64,
    random: Random,
}

impl Noise {
    fn next(&mut self) -> f64 {
        if self.most > 0.0 { self.most * (2.0 * self.random.next() - 1.0) } else { 0.0 }
    }
}

enum Signal {
    Constant(f64),
    Sine { mean: f64, amplitude: f64, period: f64, phase: f64 },
    Walk { value: f64, steps: u64, random: Random, step: f64, every: Duration, min: f64, max: f64 },
    Recording(Vec<(f64, f64)>),
}

impl Signals {
    pub(super) fn new(sensor: &SensorBinding, script: &SimScript, held: Held) -> Result<Self, BoardError> {
        let mut channels = Vec::new();
        for channel in sensor.driver.all_channels().iter() {
            let scripted = script
                .signals
                .iter()
                .rev()
                .find(|signal| signal.sensor == sensor.name && signal.channel == channel.name);
            let seed = script.seed ^ hash(sensor.name.as_str()).wrapping_add(hash(&channel.name).rotate_left(17));
            let signal = match scripted {
                Some(signal) => Signal::new(&signal.wave, seed)?,
                None => Signal::usual(channel, seed),
            };
            let noise = Noise { most: scripted.map_or(0.0, |signal| signal.noise), random: Random(!seed) };
            channels.push((channel.name.clone(), signal, noise));
        }
        Ok(Self { sensor: sensor.name.to_string(), held, channels })
    }

    /// What a channel's quantity is at a time; 0 for a channel that is not there.
    pub(crate) fn at(&mut self, channel: &str, time: Duration) -> f64 {
        let signal = self.channels.iter_mut().find(|(name, ..)| **name == *channel);
        let value = signal.map_or(0.0, |(_, signal, noise)| signal.at(time) + noise.next());
        self.held(channel).unwrap_or(value)
    }

    /// The quantity of a sensor with one channel.
    pub(crate) fn only(&mut self, time: Duration) -> f64 {
        let Some((name, signal, noise)) = self.channels.first_mut() else { return 0.0 };
        let (name, value) = (name.clone(), signal.at(time) + noise.next());
        self.held(&name).unwrap_or(value)
    }

    fn held(&self, channel: &str) -> Option<f64> {
        let held = super::lock(&self.held);
        if held.is_empty() { None } else { held.get(&(self.sensor.clone(), channel.to_owned())).copied() }
    }

    #[cfg(test)]
    pub(crate) fn constant(values: &[(&str, f64)]) -> Self {
        let quiet = || Noise { most: 0.0, random: Random(0) };
        let channels =
            values.iter().map(|(name, value)| (Arc::from(*name), Signal::Constant(*value), quiet())).collect();
        Self { sensor: String::new(), held: Held::default(), channels }
    }
}

impl Signal {
    fn new(wave: &Wave, seed: u64) -> Result<Self, BoardError> {
        Ok(match wave {
            Wave::Constant(value) => Self::Constant(*value),
            Wave::Sine { mean, amplitude, period } => {
                Self::Sine { mean: *mean, amplitude: *amplitude, period: period.as_secs_f64(), phase: 0.0 }
            }
            Wave::Walk { start, step, every, min, max } => {
                let random = Random(seed);
                Self::Walk { value: *start, steps: 0, random, step: *step, every: *every, min: *min, max: *max }
            }
            Wave::Csv { file } => {
                let path = file.display().to_string();
                let text = std::fs::read_to_string(file)
                    .map_err(|error| BoardError::File { path: path.clone(), reason: error.to_string() })?;
                Self::Recording(recording(&text).map_err(|reason| BoardError::Nonsense { what: path, reason })?)
            }
        })
    }

    /// What a channel of this unit does where nobody has said anything: around what it is in a room, an hour long.
    fn usual(channel: &Channel, seed: u64) -> Self {
        let (mean, amplitude) = match &*channel.unit {
            "°C" => (21.0, 4.0),
            "%" => (55.0, 15.0),
            "Pa" => (101_325.0, 400.0),
            "lx" => (400.0, 300.0),
            _ if channel.min.is_finite() && channel.max.is_finite() => {
                (f64::midpoint(channel.min, channel.max), (channel.max - channel.min) / 10.0)
            }
            _ => (1.0, 0.5),
        };
        Self::Sine { mean, amplitude, period: 3600.0, phase: Random(seed).next() }
    }

    fn at(&mut self, time: Duration) -> f64 {
        match self {
            Self::Constant(value) => *value,
            Self::Sine { mean, amplitude, period, phase } => {
                *mean + *amplitude * (TAU * (time.as_secs_f64() / *period + *phase)).sin()
            }
            Self::Walk { value, steps, random, step, every, min, max } => {
                let wanted = u64::try_from(time.as_nanos() / every.as_nanos().max(1)).unwrap_or(u64::MAX);
                for _ in 0..wanted.saturating_sub(*steps).min(MAX_STEPS) {
                    let next = *value + *step * (2.0 * random.next() - 1.0);
                    // Reflected, so that it does not rest at a bound.
                    *value = if next > *max { 2.0 * *max - next } else { next };
                    *value = if *value < *min { 2.0 * *min - *value } else { *value };
                }
                *steps = wanted.max(*steps);
                *value
            }
            Self::Recording(points) => replay(points, time.as_secs_f64()),
        }
    }
}

/// Straight lines between the points, and from the first again after the last.
fn replay(points: &[(f64, f64)], time: f64) -> f64 {
    let (Some((first, _)), Some((last, end))) = (points.first(), points.last()) else { return 0.0 };
    let span = last - first;
    let time = if span > 0.0 { first + (time - first).rem_euclid(span) } else { *first };
    let after = points.partition_point(|(at, _)| *at <= time);
    match (after.checked_sub(1).and_then(|before| points.get(before)), points.get(after)) {
        (Some((t0, v0)), Some((t1, v1))) => v0 + (v1 - v0) * (time - t0) / (t1 - t0),
        (Some((_, value)), None) => *value,
        _ => *end,
    }
}

/// `seconds,value` lines in the order of time; lines that begin with anything but a number are headings.
fn recording(text: &str) -> Result<Vec<(f64, f64)>, String> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut columns = line.split(',').map(|column| column.trim().parse::<f64>());
        let Some(Ok(time)) = columns.next() else { continue };
        let Some(Ok(value)) = columns.next() else { return Err(format!("line {} has no value", index + 1)) };
        if !time.is_finite() || !value.is_finite() || points.last().is_some_and(|(last, _)| time <= *last) {
            return Err(format!("line {} is not later than the one before", index + 1));
        }
        if points.len() >= MAX_POINTS {
            return Err(format!("more than {MAX_POINTS} lines"));
        }
        points.push((time, value));
    }
    if points.is_empty() { Err("no line has a time and a value".into()) } else { Ok(points) }
}

/// Numbers from 0 to 1 that look random (SplitMix64, by Guy Steele and others).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) as f64 / u64::MAX as f64
    }
}

/// FNV-1a: the same on every machine.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sine_is_a_sine() {
        let period = Duration::from_secs(8);
        let mut signal = Signal::new(&Wave::Sine { mean: 20.0, amplitude: 2.0, period }, 0).unwrap();
        for (second, expected) in [(0, 20.0), (2, 22.0), (4, 20.0), (6, 18.0), (8, 20.0)] {
            assert!((signal.at(Duration::from_secs(second)) - expected).abs() < 1e-9, "{second}");
        }
    }

    #[test]
    fn a_walk_stays_within_its_bounds_and_is_the_same_for_the_same_seed() {
        let every = Duration::from_secs(1);
        let wave = Wave::Walk { start: 5.0, step: 2.0, every, min: 0.0, max: 10.0 };
        let walk = |seed| {
            let mut signal = Signal::new(&wave, seed).unwrap();
            (0..1000).map(|second| signal.at(Duration::from_secs(second))).collect::<Vec<_>>()
        };
        let first = walk(1);
        assert_eq!(first, walk(1));
        assert_ne!(first, walk(2));
        assert!(first.iter().all(|value| (0.0..=10.0).contains(value)));
        let mut late = Signal::new(&wave, 1).unwrap();
        assert_eq!(late.at(Duration::from_secs(999)), first[999], "however often one looks");
    }

    #[test]
    fn a_recording_is_replayed_with_straight_lines_and_from_the_start_again() {
        let points = recording("seconds,flow\n0,10\n10,20\n30,0\n").unwrap();
        for (time, expected) in [(0.0, 10.0), (5.0, 15.0), (10.0, 20.0), (20.0, 10.0), (35.0, 15.0), (65.0, 15.0)] {
            assert!((replay(&points, time) - expected).abs() < 1e-9, "{time}");
        }
        for wrong in ["", "a,b", "1\n", "2,1\n1,2", "1,nan"] {
            assert!(recording(wrong).is_err(), "{wrong:?}");
        }
    }
}
