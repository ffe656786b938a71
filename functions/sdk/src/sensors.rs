//! Sensors that the manifest grants: calibrated readings, by the names that the node's configuration gives them.

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Error, backend};

/// How far a reading can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Quality {
    /// Fresh, and within what the sensor can measure.
    Good,
    /// Older than the node's configuration allows.
    Stale,
    /// Outside what the sensor can measure, or outside the bounds of the node's configuration.
    Suspect,
    /// Made by the simulator.
    Simulated,
}

/// Not derived: what reads any enum takes 3 KB of a component.
impl<'de> Deserialize<'de> for Quality {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match &*String::deserialize(deserializer)? {
            "good" => Self::Good,
            "stale" => Self::Stale,
            "suspect" => Self::Suspect,
            "simulated" => Self::Simulated,
            _ => return Err(serde::de::Error::custom("a quality that the SDK does not know")),
        })
    }
}

/// A calibrated value of one channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// `temperature`, `humidity`, ...
    pub channel: String,
    /// In `unit`.
    pub value: f64,
    /// `°C`, `%`, `Pa`, ...
    pub unit: String,
    /// When the node read it, in milliseconds since 1970.
    #[serde(rename = "time")]
    pub time_ms: u64,
    /// How far it can be believed.
    pub quality: Quality,
}

impl Reading {
    /// A good reading, for tests.
    pub fn new(channel: &str, value: f64, unit: &str) -> Self {
        Self { channel: channel.to_owned(), value, unit: unit.to_owned(), time_ms: 0, quality: Quality::Good }
    }

    /// Whether it says how things are now: neither old nor unlikely.
    pub fn is_sound(&self) -> bool {
        matches!(self.quality, Quality::Good | Quality::Simulated)
    }
}

/// The sensors that the manifest grants.
pub fn names() -> Vec<String> {
    backend::sensor_names()
}

/// Asks a sensor now, and waits for it.
pub fn read(sensor: &str) -> Result<Vec<Reading>, Error> {
    backend::sensor_read(sensor)
}

/// What a sensor said last, without asking it; one that has not said anything yet is asked.
pub fn latest(sensor: &str) -> Result<Vec<Reading>, Error> {
    backend::sensor_latest(sensor)
}

/// One channel of what a sensor says now.
pub fn channel(sensor: &str, channel: &str) -> Result<Reading, Error> {
    pick(read(sensor)?, channel)
}

pub(crate) fn pick(readings: Vec<Reading>, channel: &str) -> Result<Reading, Error> {
    let found = readings.into_iter().find(|reading| reading.channel == channel);
    found.ok_or_else(|| Error::NotFound(["channel ", channel].concat()))
}
