//! The lanes to the cloud, and how much they may hold.

use std::time::Duration;

/// Which lane a row waits in. A lower number goes first and is evicted last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Alarms and deployment status: never evicted.
    Alarms,
    /// Results.
    Results,
    /// Logs.
    Logs,
}

impl Lane {
    /// All lanes, first to last.
    pub const ALL: [Self; 3] = [Self::Alarms, Self::Results, Self::Logs];

    /// Its number in the database.
    pub fn number(self) -> i64 {
        match self {
            Self::Alarms => 0,
            Self::Results => 1,
            Self::Logs => 2,
        }
    }

    /// From its number.
    pub fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.number() == number)
    }
}

/// How much may wait for the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxCaps {
    /// Bytes of payload in all lanes. Beyond it, the oldest rows of the last lane go first, and a gap record says so.
    pub bytes: u64,
    /// Bytes of one stream.
    pub stream_bytes: u64,
    /// Age of results.
    pub results_age: Duration,
    /// Age of logs.
    pub logs_age: Duration,
}

impl Default for OutboxCaps {
    fn default() -> Self {
        Self {
            bytes: 256 << 20,
            stream_bytes: 64 << 20,
            results_age: Duration::from_secs(30 * 86_400),
            logs_age: Duration::from_secs(86_400),
        }
    }
}
