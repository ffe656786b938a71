//! What the link costs: bytes of today, by feature and by function.
//!
//! The total is what the socket took and gave, with TLS and without the headers of TCP and IP. The parts are the MQTT packets that
//! were handed over, and what fetching files took; what is left of the total is the link's own: handshakes, pings, answers.
//!
//! Kept over restarts, so that a node which restarts has no fresh allowance; a kill loses what was counted since the last note. A day
//! is one of UTC by the device's clock. A clock that is set back begins the day anew: an allowance saves money, and guards nothing.

use std::collections::BTreeMap;

use holm_core::Timestamp;
use holm_mqtt::Traffic;
use serde::{Deserialize, Serialize};

/// Names of functions that are counted apart; the rest is counted together.
const MAX_FUNCTIONS: usize = 64;

/// The name of those that are counted together.
const OTHERS: &str = "(others)";

/// Bytes of a fixed header, packet id and topic length.
const PACKET: u64 = 7;

const DAY: i64 = 86_400_000;

/// The feature of files that are fetched: metadata, bundles, native code.
const DOWNLOADS: &str = "downloads";

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feature {
    Alarms,
    Results,
    Logs,
    Jobs,
    Shadow,
}

impl Feature {
    fn name(self) -> &'static str {
        match self {
            Self::Alarms => "alarms",
            Self::Results => "results",
            Self::Logs => "logs",
            Self::Jobs => "jobs",
            Self::Shadow => "shadow",
        }
    }
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// The day, counted from 1970.
    pub day: i64,
    /// Bytes of the whole link.
    pub total: u64,
    /// Bytes of packets by feature.
    pub features: BTreeMap<String, u64>,
    /// Bytes of records by function, as they were packed; of batches of streams that belong to one.
    pub functions: BTreeMap<String, u64>,
    /// What the sockets had counted when it was last looked.
    #[serde(skip)]
    counted: u64,
    /// The same of those that fetch files.
    #[serde(skip)]
    fetched: u64,
    /// The total when it was last noted.
    #[serde(skip)]
    noted: u64,
}

impl Usage {
    /// As it was noted.
    pub(crate) fn restored(mut self) -> Self {
        self.noted = self.total;
        self
    }

    /// The total, if the sockets have counted this.
    pub(crate) fn total_at(&self, counted: u64) -> u64 {
        self.total + counted.saturating_sub(self.counted)
    }

    /// Takes what the sockets have counted since start.
    pub(crate) fn count(&mut self, traffic: &Traffic, now: Timestamp) {
        self.take(traffic.sent() + traffic.received(), traffic.fetched(), now);
    }

    fn take(&mut self, counted: u64, fetched: u64, now: Timestamp) {
        let day = now.0.div_euclid(DAY);
        if day != self.day {
            let (counted, fetched) = (self.counted, self.fetched);
            *self = Self { day, counted, fetched, ..Self::default() };
        }
        self.total += counted.saturating_sub(self.counted);
        let fetched_since = fetched.saturating_sub(self.fetched);
        if fetched_since > 0 {
            *self.features.entry(DOWNLOADS.to_owned()).or_default() += fetched_since;
        }
        (self.counted, self.fetched) = (counted, fetched);
    }

    /// A packet was handed over.
    pub(crate) fn packet(&mut self, feature: Feature, topic: &str, payload: usize) {
        let bytes = PACKET + topic.len() as u64 + payload as u64;
        *self.features.entry(feature.name().to_owned()).or_default() += bytes;
    }

    /// A batch of a stream was handed over. Streams of results are named `result.{function}.{series}`.
    pub(crate) fn batch(&mut self, stream: &str, payload: usize) {
        let Some((function, _)) = stream.strip_prefix("result.").and_then(|rest| rest.split_once('.')) else { return };
        let full = self.functions.len() >= MAX_FUNCTIONS && !self.functions.contains_key(function);
        let name = if full { OTHERS } else { function };
        *self.functions.entry(name.to_owned()).or_default() += payload as u64;
    }

    /// Whether it is time to note it: after so much of what may be used.
    pub(crate) fn is_worth_noting(&self, daily: Option<u64>) -> bool {
        let step = daily.map_or(1 << 20, |daily| (daily / 16).clamp(16 << 10, 1 << 20));
        self.total.abs_diff(self.noted) >= step
    }

    /// It is being noted.
    pub(crate) fn note(&mut self) {
        self.noted = self.total;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_day_begins_with_nothing_and_survives_a_restart() {
        let mut usage = Usage::default();
        usage.take(100, 0, Timestamp(5 * DAY));
        usage.packet(Feature::Results, "a/b", 10);
        usage.batch("result.flow.rate", 10);
        usage.batch("publish.a/b", 10);
        usage.take(150, 40, Timestamp(5 * DAY + 1));
        assert_eq!(
            (usage.total, usage.features.get("results"), usage.functions.get("flow")),
            (150, Some(&20), Some(&10))
        );
        assert_eq!(usage.features.get(DOWNLOADS), Some(&40));
        let noted = serde_json::to_string(&usage).unwrap();
        let mut again = serde_json::from_str::<Usage>(&noted).unwrap().restored();
        again.take(30, 5, Timestamp(5 * DAY + 2));
        assert_eq!((again.total, again.functions.len(), again.features.get(DOWNLOADS)), (180, 1, Some(&45)));
        again.take(40, 5, Timestamp(6 * DAY));
        assert_eq!((again.total, again.functions.len(), again.features.len()), (10, 0, 0));
    }

    #[test]
    fn functions_without_end_are_counted_together() {
        let mut usage = Usage::default();
        for number in 0..200 {
            usage.batch(&format!("result.f{number}.s"), 1);
        }
        assert_eq!((usage.functions.len(), usage.functions.get(OTHERS)), (65, Some(&136)));
    }
}
