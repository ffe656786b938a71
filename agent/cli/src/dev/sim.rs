//! `--sim`: what the world of a development node does. A sensor follows its signal on the simulated board; a topic is
//! published on.

use std::f64::consts::TAU;
use std::str::FromStr;
use std::time::Duration;

use holm_core::{Manifest, TopicName, TriggerKind, parse_duration};

/// How often a topic is published on that does not say.
const EVERY: Duration = Duration::from_secs(1);

/// The quickest that a topic is published on.
const QUICKEST: Duration = Duration::from_millis(1);

/// How long a wave is that does not say.
const PERIOD: Duration = Duration::from_secs(60);

/// One `--sim`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sim {
    target: Target,
    wave: Wave,
    noise: f64,
    every: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq)]
enum Target {
    /// A sensor of the board, and which channel of it.
    Sensor(String, Option<String>),
    /// A topic, and the field of the JSON object that the value is in; without one the payload is the value.
    Topic(TopicName, Option<String>),
}

#[derive(Debug, Clone, PartialEq)]
enum Wave {
    Constant(f64),
    Sine {
        low: f64,
        high: f64,
        period: Duration,
    },
    /// A straight line up, and from the bottom again.
    Ramp {
        low: f64,
        high: f64,
        period: Duration,
    },
    /// A random step every time, reflected at the bounds.
    Walk {
        low: f64,
        high: f64,
    },
}

impl FromStr for Sim {
    type Err = String;

    /// `TARGET=WAVE:VALUES[@RATE][,noise=N][,every=TIME]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (target, wave) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is not TARGET=WAVE, such as `greenhouse.temperature=sine:20..35@1Hz`"))?;
        let mut parts = wave.split(',');
        let wave = wave_of(parts.next().unwrap_or_default())?;
        let mut sim = Self { target: target_of(target)?, wave, noise: 0.0, every: None };
        for part in parts {
            match part.split_once('=') {
                Some(("noise", value)) => sim.noise = number(value)?.abs(),
                Some(("every", value)) => {
                    let every = parse_duration(value).map_err(|error| error.to_string())?;
                    sim.every = Some(every.max(QUICKEST));
                }
                _ => return Err(format!("`{part}` is not `noise=N` or `every=TIME`")),
            }
        }
        if sim.every.is_some() && matches!(sim.target, Target::Sensor(..)) {
            return Err("a sensor is read as often as functions ask for it: `every` is for topics".into());
        }
        Ok(sim)
    }
}

fn target_of(text: &str) -> Result<Target, String> {
    if text.contains('/') {
        let (topic, field) = match text.split_once('#') {
            Some((topic, field)) => (topic, Some(field.to_owned())),
            None => (text, None),
        };
        return Ok(Target::Topic(TopicName::new(topic).map_err(|error| error.to_string())?, field));
    }
    match text.split_once('.') {
        Some((sensor, channel)) => Ok(Target::Sensor(sensor.to_owned(), Some(channel.to_owned()))),
        None if text.is_empty() => Err("names neither a sensor nor a topic".into()),
        None => Ok(Target::Sensor(text.to_owned(), None)),
    }
}

fn wave_of(text: &str) -> Result<Wave, String> {
    let unknown =
        || format!("`{text}` is not a wave: `sine:20..35@10s`, `ramp:0..100@1m`, `walk:20..35` or `constant:21`");
    let (kind, values) = text.split_once(':').ok_or_else(unknown)?;
    let (values, period) = match values.split_once('@') {
        Some((values, rate)) => (values, period(rate)?),
        None => (values, PERIOD),
    };
    if kind == "constant" {
        return Ok(Wave::Constant(number(values)?));
    }
    let (low, high) = values.split_once("..").ok_or_else(|| format!("`{values}` is not a range such as `20..35`"))?;
    let (low, high) = (number(low)?, number(high)?);
    if low > high {
        return Err(format!("`{values}`: the first is the lower one"));
    }
    match kind {
        "sine" => Ok(Wave::Sine { low, high, period }),
        "ramp" => Ok(Wave::Ramp { low, high, period }),
        "walk" => Ok(Wave::Walk { low, high }),
        _ => Err(unknown()),
    }
}

/// `10s`, or how often a second: `1Hz`.
fn period(text: &str) -> Result<Duration, String> {
    let seconds = match text.strip_suffix("Hz") {
        Some(rate) => 1.0 / number(rate)?,
        None => parse_duration(text).map_err(|error| error.to_string())?.as_secs_f64(),
    };
    let period = Duration::try_from_secs_f64(seconds).ok().filter(|period| *period >= QUICKEST);
    period.ok_or_else(|| format!("`{text}` is not a period such as `10s`, or a rate such as `1Hz`"))
}

fn number(text: &str) -> Result<f64, String> {
    text.trim().parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(|| format!("`{text}` is not a number"))
}

impl Sim {
    /// The lines of agent.toml for a sensor; nothing for a topic. `Err` where the channel is not known.
    pub(crate) fn config(&self, manifests: &[&Manifest]) -> Result<String, String> {
        let Target::Sensor(sensor, channel) = &self.target else { return Ok(String::new()) };
        let asked = || {
            let kinds = manifests.iter().flat_map(|manifest| &manifest.triggers).map(|trigger| &trigger.kind);
            kinds.filter_map(|kind| match kind {
                TriggerKind::Sensor(trigger) if trigger.sensor.as_str() == sensor => trigger.channel.clone(),
                _ => None,
            })
        };
        let channel =
            channel.clone().or_else(|| asked().next().map(|channel| channel.to_string())).ok_or_else(|| {
                format!("which channel of `{sensor}`? Say it: `{sensor}.temperature=...`. A topic has a `/` in it")
            })?;
        let wave = match &self.wave {
            Wave::Constant(value) => format!("wave = \"constant\"\nvalue = {value:?}"),
            Wave::Sine { low, high, period } => {
                let (mean, amplitude) = (f64::midpoint(*low, *high), (high - low) / 2.0);
                format!(
                    "wave = \"sine\"\nmean = {mean:?}\namplitude = {amplitude:?}\nperiod = \"{}ms\"",
                    period.as_millis()
                )
            }
            Wave::Walk { low, high } => {
                let (start, step) = (f64::midpoint(*low, *high), (high - low) / 20.0);
                format!("wave = \"walk\"\nstart = {start:?}\nstep = {step:?}\nmin = {low:?}\nmax = {high:?}")
            }
            Wave::Ramp { .. } => {
                return Err("a sensor follows `sine`, `walk` or `constant`; `ramp` is for topics".into());
            }
        };
        let noise = if self.noise > 0.0 { format!("noise = {:?}\n", self.noise) } else { String::new() };
        Ok(format!("[[sim.signal]]\nsensor = \"{sensor}\"\nchannel = \"{channel}\"\n{wave}\n{noise}"))
    }

    /// The publisher of a topic.
    pub(crate) fn publisher(&self) -> Option<Publisher> {
        let Target::Topic(topic, field) = &self.target else { return None };
        let seed = topic.as_str().bytes().fold(17, |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let walk = match &self.wave {
            Wave::Walk { low, high } => f64::midpoint(*low, *high),
            _ => 0.0,
        };
        Some(Publisher {
            topic: topic.clone(),
            field: field.clone(),
            every: self.every.unwrap_or(EVERY),
            wave: self.wave.clone(),
            noise: self.noise,
            random: Random(seed),
            walk,
        })
    }
}

/// Publishes values on a topic.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) topic: TopicName,
    pub(crate) every: Duration,
    field: Option<String>,
    wave: Wave,
    noise: f64,
    random: Random,
    walk: f64,
}

impl Publisher {
    /// What is published so long after the start.
    pub(crate) fn payload(&mut self, after: Duration) -> String {
        let phase = |period: &Duration| (after.as_secs_f64() / period.as_secs_f64()).fract();
        let value = match &self.wave {
            Wave::Constant(value) => *value,
            Wave::Sine { low, high, period } => {
                f64::midpoint(*low, *high) + (high - low) / 2.0 * (TAU * phase(period)).sin()
            }
            Wave::Ramp { low, high, period } => low + (high - low) * phase(period),
            Wave::Walk { low, high } => {
                let step = (high - low) / 20.0 * (2.0 * self.random.next() - 1.0);
                self.walk = (self.walk + step).clamp(*low, *high);
                self.walk
            }
        };
        let noisy = value + self.noise * (2.0 * self.random.next() - 1.0);
        // As many digits as a sensor would have.
        let value = (noisy * 1e4).round() / 1e4;
        match &self.field {
            Some(field) => serde_json::json!({ field: value }).to_string(),
            None => value.to_string(),
        }
    }
}

/// Numbers from 0 to 1 that look random (SplitMix64, by Guy Steele and others).
#[derive(Debug)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sensor_follows_its_wave_on_the_board() {
        let sim: Sim = "greenhouse.temperature=sine:20..35@1Hz,noise=0.3".parse().unwrap();
        assert_eq!(
            sim.config(&[]).unwrap(),
            "[[sim.signal]]\nsensor = \"greenhouse\"\nchannel = \"temperature\"\nwave = \"sine\"\nmean = 27.5\n\
             amplitude = 7.5\nperiod = \"1000ms\"\nnoise = 0.3\n"
        );
        assert!(sim.publisher().is_none());
        let short: Sim = "greenhouse=constant:21".parse().unwrap();
        assert!(short.config(&[]).unwrap_err().contains("which channel"));
        let manifest = "manifest_version = 1\n[function]\nname = \"f\"\nversion = \"1.0.0\"\n\
                        [[trigger.sensor]]\nsensor = \"greenhouse\"\nchannel = \"humidity\"\ninterval = \"1s\"\n";
        let manifest = Manifest::parse("holm.toml", manifest).unwrap();
        assert!(short.config(&[&manifest]).unwrap().contains("channel = \"humidity\""));
    }

    #[test]
    fn a_topic_is_published_on() {
        let sim: Sim = "sensors/a/temperature#celsius=ramp:0..10@10s,every=500ms".parse().unwrap();
        let mut publisher = sim.publisher().unwrap();
        assert_eq!((publisher.topic.as_str(), publisher.every), ("sensors/a/temperature", Duration::from_millis(500)));
        assert_eq!(publisher.payload(Duration::from_secs(2)), r#"{"celsius":2.0}"#);
        assert_eq!(publisher.payload(Duration::from_secs(12)), r#"{"celsius":2.0}"#);
        let mut walk = "a/b=walk:5..6".parse::<Sim>().unwrap().publisher().unwrap();
        for second in 0..1000 {
            let value: f64 = walk.payload(Duration::from_secs(second)).parse().unwrap();
            assert!((5.0..=6.0).contains(&value), "{value}");
        }
    }

    #[test]
    fn what_is_wrong_says_what_would_be_right() {
        for (text, words) in [
            ("temp", "TARGET=WAVE"),
            ("a/b=saw:1..2", "not a wave"),
            ("a/b=sine:2..1", "the lower one"),
            ("a/b=sine:1", "not a range"),
            ("a/b=sine:1..2@fast", "fast"),
            ("a/b=sine:1..2,loud=3", "noise=N"),
            ("a/+/b=constant:1", "+"),
            ("s.c=constant:1,every=1s", "for topics"),
        ] {
            let error = text.parse::<Sim>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
