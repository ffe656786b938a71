//! What a manifest says about the board: triggers by sensors and lines, and grants.

use std::sync::Arc;
use std::time::Duration;

use crate::{Edge, Label, Section, parse_duration};

/// How often a sensor may be asked for: what is quicker is a matter for a driver.
const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(86_400);

/// The longest that a line may be asked to hold still.
const MAX_DEBOUNCE: Duration = Duration::from_secs(10);

/// Addresses of chips on an I2C bus. The others are reserved (NXP UM10204, 3.1.12).
const ADDRESSES: std::ops::RangeInclusive<u8> = 0x08..=0x77;

/// Readings of a sensor as events.
#[derive(Debug, Clone, PartialEq)]
pub struct SensorTrigger {
    /// Which, by the name that the node's configuration gives it.
    pub sensor: Label,
    /// Only this channel of it.
    pub channel: Option<Arc<str>>,
    /// How often it is read.
    pub interval: Duration,
    /// Where only crossings are events.
    pub threshold: Option<Threshold>,
}

/// Bounds of a channel. What leaves them is an event, and what comes back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// More than this is above.
    pub above: Option<f64>,
    /// Less than this is below.
    pub below: Option<f64>,
    /// How far a value must come back to be between them again.
    pub hysteresis: f64,
}

/// Where a value lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Zone {
    /// Between the bounds.
    #[default]
    Normal,
    /// Above the upper one.
    Above,
    /// Below the lower one.
    Below,
}

impl Zone {
    /// The text that events carry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Above => "above",
            Self::Below => "below",
        }
    }
}

impl Threshold {
    /// Where `value` lies, if the one before lay in `before`.
    pub fn zone(&self, before: Zone, value: f64) -> Zone {
        let slack = |zone| if before == zone { self.hysteresis } else { 0.0 };
        if self.above.is_some_and(|above| value > above - slack(Zone::Above)) {
            Zone::Above
        } else if self.below.is_some_and(|below| value < below + slack(Zone::Below)) {
            Zone::Below
        } else {
            Zone::Normal
        }
    }
}

/// Changes of an input as events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpioTrigger {
    /// Which, by the name that the node's configuration gives it.
    pub line: Label,
    /// Which changes.
    pub edge: Edge,
    /// How long the line must hold still, beyond what the configuration says.
    pub debounce: Duration,
}

pub(super) fn sensor(section: &mut Section<'_>) -> Option<SensorTrigger> {
    let sensor = section.require("sensor", Label::new);
    let channel = section.text("channel").map(Arc::from);
    let interval = section.require("interval", |text| match parse_duration(text) {
        Ok(interval) if INTERVALS.contains(&interval) => Ok(interval),
        Ok(interval) => Err(format!("{interval:?} is out of range, {:?} to {:?}", INTERVALS.start(), INTERVALS.end())),
        Err(error) => Err(error.to_string()),
    });
    let (above, below) = (section.number("above"), section.number("below"));
    let hysteresis = section.number("hysteresis");
    let threshold = (above.is_some() || below.is_some()).then(|| {
        if channel.is_none() {
            section.problem("channel", "`above` and `below` need the channel that they are about");
        }
        Threshold { above, below, hysteresis: hysteresis.unwrap_or(0.0) }
    });
    match &threshold {
        Some(Threshold { above, below, hysteresis }) => {
            let span = above.zip(*below).map_or(f64::INFINITY, |(above, below)| above - below);
            if !(0.0..=span).contains(hysteresis) {
                section.problem("hysteresis", "must be at least 0, and fit between `below` and `above`");
            }
        }
        None if hysteresis.is_some() => section.problem("hysteresis", "is for `above` and `below`"),
        None => {}
    }
    Some(SensorTrigger { sensor: sensor?, channel, interval: interval?, threshold })
}

pub(super) fn gpio(section: &mut Section<'_>) -> Option<GpioTrigger> {
    let line = section.require("line", Label::new);
    let edges = [("both", Edge::Both), ("rising", Edge::Rising), ("falling", Edge::Falling)];
    let edge = section.choice("edge", &edges).unwrap_or(Edge::Both);
    let debounce = section.duration_in("debounce", Duration::ZERO..=MAX_DEBOUNCE).unwrap_or_default();
    Some(GpioTrigger { line: line?, edge, debounce })
}

/// `in:NAME` or `out:NAME`: the line, and whether it may be driven.
pub(super) fn line_grant(text: &str) -> Result<(Label, bool), String> {
    match text.split_once(':') {
        Some((way @ ("in" | "out"), name)) => Ok((Label::new(name).map_err(|error| error.to_string())?, way == "out")),
        _ => Err(format!("`{text}` is not a grant: `in:` or `out:` and the name of a line")),
    }
}

/// `BUS:0x20` or `BUS:*`: the bus, and the one address on it.
pub(super) fn i2c_grant(text: &str) -> Result<(Label, Option<u8>), String> {
    let wrong = || format!("`{text}` is not a grant: the name of a bus and an address, such as `bus:0x20`, or `bus:*`");
    let (name, address) = text.split_once(':').ok_or_else(wrong)?;
    let name = Label::new(name).map_err(|error| error.to_string())?;
    if address == "*" {
        return Ok((name, None));
    }
    let digits = address.strip_prefix("0x").ok_or_else(wrong)?;
    let address = u8::from_str_radix(digits, 16).ok().filter(|address| ADDRESSES.contains(address));
    address.map(|address| (name, Some(address))).ok_or_else(|| format!("`{text}`: addresses are 0x08 to 0x77"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_must_come_back_by_the_hysteresis() {
        let threshold = Threshold { above: Some(28.0), below: Some(10.0), hysteresis: 1.0 };
        let values = [20.0, 28.0, 28.1, 27.5, 26.9, 28.5, 5.0, 10.5, 11.5, 27.5];
        let mut zone = Zone::Normal;
        let zones = values.map(|value| {
            zone = threshold.zone(zone, value);
            zone.as_str()
        });
        let expected = ["normal", "normal", "above", "above", "normal", "above", "below", "below", "normal", "normal"];
        assert_eq!(zones, expected);
    }
}
