//! The detector: one reading in, alerts out, a few numbers in between. `DESIGN.md` specifies it, and
//! `tests/data/water_loss_reference.py` is the same in Python.

use serde::{Deserialize, Serialize};

use crate::time;

/// Usual readings that the level is the median of.
const WINDOW: usize = 8;
/// Readings before anything is judged.
const LEARNING: usize = 4;
/// Low readings in a row that make a leak: one alone may be a bad reading, or the edge of a loss.
const CONFIRM: u32 = 2;
/// High readings in a row that make a new level.
const NEW_HIGH: u32 = 6;
/// Readings after which what leaks is the new level.
const PATIENCE: u32 = 48;
/// Readings that the recovery from a loss may take before it is called a leak.
const RECOVERY: u32 = 24;
/// What the flow must rise by, as a part of the level, for a leak to be over.
const HYSTERESIS: f64 = 0.01;
/// More than this between two readings is a gap.
const GAP_SECONDS: i64 = 5_400;

/// What is unusual, as parts of the level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Below it, water is lost.
    pub loss: f64,
    /// Below it, water leaks.
    pub leak: f64,
    /// Above it is a peak.
    pub peak: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { loss: 2.0 / 3.0, leak: 0.975, peak: 1.05 }
    }
}

/// What an alert tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The flow has collapsed.
    LossBegin,
    /// It has come back.
    LossEnd,
    /// Some of the flow is missing.
    Leak,
    /// It is there again, or its absence has become usual.
    LeakEnd,
    /// Much more than usual.
    Peak,
    /// Readings are missing.
    Gap,
}

/// One alert. Times are seconds since 1970, and RFC 3339 texts in UTC on the wire.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alert {
    /// What.
    pub kind: Kind,
    /// The first reading it is about; of a gap, the last one before it.
    #[serde(serialize_with = "time::serialize")]
    pub since: i64,
    /// The last reading it is about; of a gap, the first one after it.
    #[serde(serialize_with = "time::serialize_option", skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// The reading that gave rise to it, in litres per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<f64>,
    /// What would have been usual, in litres per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<f64>,
    /// The lowest reading, in litres per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lowest: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Usual,
    Loss,
    Recovery,
    Leak,
}

/// What is remembered between readings: as JSON, less than 300 bytes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Detector {
    /// The last usual readings, oldest first.
    ring: Vec<f64>,
    /// When the last reading was taken.
    last: Option<i64>,
    mode: Mode,
    /// When the mode began.
    since: i64,
    /// The lowest reading of a loss or leak.
    lowest: f64,
    /// Low readings in a row, or readings in this mode.
    low: u32,
    /// High readings in a row.
    high: u32,
    /// When the low readings began.
    first_low: i64,
}

impl Detector {
    /// Takes a reading of `flow` litres per second at `time`, in seconds since 1970. One that is not later than the last
    /// is passed over: deliveries repeat.
    pub fn reading(&mut self, time: i64, flow: f64, thresholds: &Thresholds) -> Vec<Alert> {
        let mut alerts = Vec::new();
        let previous = self.last.unwrap_or(time);
        if self.last.is_some_and(|last| time <= last) {
            return alerts;
        }
        self.last = Some(time);
        if time - previous > GAP_SECONDS {
            alerts.push(Alert { until: Some(time), ..alert(Kind::Gap, previous) });
        }
        let level = match self.level() {
            Some(level) if self.ring.len() >= LEARNING => level,
            _ => {
                self.learn(flow);
                return alerts;
            }
        };
        let now = Reading { time, flow, level, previous, thresholds };
        if self.mode != Mode::Loss && flow < thresholds.loss * level {
            if self.mode == Mode::Leak {
                alerts.push(self.end(Kind::LeakEnd, previous));
            }
            self.enter(Mode::Loss, time, flow);
            alerts.push(now.alert(Kind::LossBegin, time));
            return alerts;
        }
        match self.mode {
            Mode::Usual => self.usual(&now, &mut alerts),
            Mode::Loss => self.loss(&now, &mut alerts),
            Mode::Recovery => self.recovery(&now, &mut alerts),
            Mode::Leak => self.leak(&now, &mut alerts),
        }
        alerts
    }

    /// The median of the last usual readings: what the flow would be if nothing were wrong. `None` before the first.
    pub fn level(&self) -> Option<f64> {
        let mut ordered = self.ring.clone();
        ordered.sort_by(f64::total_cmp);
        let upper = *ordered.get(ordered.len() / 2)?;
        let lower = *ordered.get(ordered.len().checked_sub(1)? / 2)?;
        Some((lower + upper) / 2.0)
    }

    fn usual(&mut self, now: &Reading<'_>, alerts: &mut Vec<Alert>) {
        if now.flow < now.thresholds.leak * now.level {
            if self.low == 0 {
                (self.first_low, self.lowest) = (now.time, now.flow);
            }
            self.low += 1;
            self.high = 0;
            self.lowest = self.lowest.min(now.flow);
            if self.low == CONFIRM {
                alerts.push(now.alert(Kind::Leak, self.first_low));
                self.enter(Mode::Leak, self.first_low, self.lowest);
            }
        } else if now.flow > now.thresholds.peak * now.level {
            if self.high == 0 {
                alerts.push(now.alert(Kind::Peak, now.time));
            }
            self.low = 0;
            self.high += 1;
            if self.high == NEW_HIGH {
                self.relearn(now);
            }
        } else {
            (self.low, self.high) = (0, 0);
            self.learn(now.flow);
        }
    }

    fn loss(&mut self, now: &Reading<'_>, alerts: &mut Vec<Alert>) {
        self.lowest = self.lowest.min(now.flow);
        if now.flow >= now.thresholds.loss * now.level {
            alerts.push(self.end(Kind::LossEnd, now.previous));
            self.enter(Mode::Recovery, now.time, now.flow);
            self.recovery(now, alerts);
        }
    }

    fn recovery(&mut self, now: &Reading<'_>, alerts: &mut Vec<Alert>) {
        self.low += 1;
        if now.flow >= now.thresholds.leak * now.level {
            // What was usual before a loss need not be so after it.
            self.relearn(now);
        } else if self.low == RECOVERY {
            alerts.push(now.alert(Kind::Leak, self.since));
            self.enter(Mode::Leak, self.since, now.flow);
        }
    }

    fn leak(&mut self, now: &Reading<'_>, alerts: &mut Vec<Alert>) {
        self.low += 1;
        if now.flow >= (now.thresholds.leak + HYSTERESIS) * now.level {
            alerts.push(self.end(Kind::LeakEnd, now.previous));
            self.enter(Mode::Usual, now.time, 0.0);
            self.usual(now, alerts);
            return;
        }
        self.lowest = self.lowest.min(now.flow);
        if self.low == PATIENCE {
            alerts.push(self.end(Kind::LeakEnd, now.time));
            self.relearn(now);
        }
    }

    fn enter(&mut self, mode: Mode, since: i64, lowest: f64) {
        (self.mode, self.since, self.lowest) = (mode, since, lowest);
        (self.low, self.high) = (0, 0);
    }

    fn learn(&mut self, flow: f64) {
        self.ring.push(flow);
        if self.ring.len() > WINDOW {
            self.ring.remove(0);
        }
    }

    fn relearn(&mut self, now: &Reading<'_>) {
        self.ring.clear();
        self.ring.push(now.flow);
        self.enter(Mode::Usual, now.time, 0.0);
    }

    fn end(&self, kind: Kind, until: i64) -> Alert {
        Alert { until: Some(until), lowest: Some(self.lowest), ..alert(kind, self.since) }
    }
}

/// A reading and what it is held against.
struct Reading<'a> {
    time: i64,
    flow: f64,
    level: f64,
    /// When the reading before it was taken.
    previous: i64,
    thresholds: &'a Thresholds,
}

impl Reading<'_> {
    fn alert(&self, kind: Kind, since: i64) -> Alert {
        Alert { flow: Some(self.flow), level: Some(self.level), ..alert(kind, since) }
    }
}

fn alert(kind: Kind, since: i64) -> Alert {
    Alert { kind, since, until: None, flow: None, level: None, lowest: None }
}

#[cfg(test)]
#[path = "detector_tests.rs"]
mod tests;
