//! What a sensor said.

use std::sync::Arc;

use crate::Timestamp;

/// How far a reading can be believed. Guests see the same words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quality {
    /// Fresh, and within what the sensor can measure.
    Good,
    /// Older than the node's configuration allows.
    Stale,
    /// Outside what the sensor can measure, or outside the bounds of the configuration.
    Suspect,
    /// Made by the simulator. A simulated reading that is stale or suspect says that instead.
    Simulated,
}

impl Quality {
    /// The text that guests and events carry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Stale => "stale",
            Self::Suspect => "suspect",
            Self::Simulated => "simulated",
        }
    }
}

/// One calibrated value of one channel of a sensor.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Reading {
    /// `temperature`, `humidity`, ...: what the driver or the configuration calls it.
    pub channel: Arc<str>,
    /// Finite, in `unit`.
    pub value: f64,
    /// `°C`, `%`, `Pa`, `V`, `lx`, ...
    pub unit: Arc<str>,
    /// When the node read it.
    pub time: Timestamp,
    /// How far it can be believed.
    pub quality: Quality,
}
