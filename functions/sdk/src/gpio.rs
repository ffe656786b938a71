//! Lines that the manifest grants, by the names that the node's configuration gives them.
//!
//! High is active, also where the wire is active low.

use serde::{Deserialize, Serialize};

use crate::{Error, backend};

/// What a line is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Inactive.
    Low,
    /// Active.
    High,
}

impl From<bool> for Level {
    fn from(active: bool) -> Self {
        if active { Self::High } else { Self::Low }
    }
}

/// What an event of a line carries: see [`Event::edge`](crate::Event::edge).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Which line.
    pub line: String,
    /// What it came to rest at.
    pub level: Level,
    /// When, in milliseconds since 1970.
    #[serde(rename = "time")]
    pub time_ms: i64,
    /// When, by a clock that nobody sets: for the time between edges of one start of the board.
    pub monotonic_us: u64,
}

/// What an input is at, or what an output is driven to: `in:` or `out:` in the manifest.
pub fn get(line: &str) -> Result<Level, Error> {
    backend::gpio_get(line)
}

/// Drives an output: `out:` in the manifest.
///
/// It happens now. It is not staged, and not undone if the handler fails afterwards; an event that is delivered again
/// drives it again. So say what the output shall be, and not that it shall change.
pub fn set(line: &str, level: impl Into<Level>) -> Result<(), Error> {
    backend::gpio_set(line, level.into())
}
