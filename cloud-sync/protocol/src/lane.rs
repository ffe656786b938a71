//! The lanes that records go up in.

use std::fmt;

/// How urgent a record is. The words are those of the device's store. Unlike codes this list is closed in both directions: a
/// lane is part of topics, permissions and budgets, and one that is unknown has none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Alarms and deployment status: first to go, never evicted.
    Alarms,
    /// Results.
    Results,
    /// Logs: evicted first.
    Logs,
}

impl Lane {
    /// All lanes, first to last.
    pub const ALL: [Self; 3] = [Self::Alarms, Self::Results, Self::Logs];

    /// The word in topics and headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alarms => "alarms",
            Self::Results => "results",
            Self::Logs => "logs",
        }
    }

    /// From its word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.as_str() == text)
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
