//! What people are told of the functions.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use holm_core::FunctionName;

use super::Deployer;

/// What is known of an active function, for `holm functions`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct FunctionStatus {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its bundle.
    pub digest: String,
    /// `trial`, `confirmed`, `confirmed-unexercised` or `quarantined`.
    pub state: &'static str,
    /// When it was deployed, in milliseconds since 1970.
    pub deployed: i64,
    /// What starts it, in words.
    pub triggers: Vec<String>,
    /// Events that wait in memory.
    pub waiting: usize,
    /// Invocations since start that succeeded.
    pub succeeded: u64,
    /// Invocations since start that did not.
    pub failed: u64,
    /// Invocations of this version since it was activated, or since start.
    pub invocations: u64,
    /// Those of them that trapped, took too long, or too much.
    pub faults: u64,
    /// Mean wall time since start, in microseconds.
    pub mean_us: u64,
    /// The words of the last failure; for a function that is not loaded, why.
    pub last_fault: Option<String>,
}

impl Deployer {
    /// Everything that is active, by name.
    pub fn status(&self) -> Vec<FunctionStatus> {
        let registry = self.shown.read().unwrap_or_else(PoisonError::into_inner).clone();
        let left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let active = self.dispatcher.active();
        let mut all = Vec::new();
        for (name, entry) in &registry.functions {
            let slot = FunctionName::new(name).ok().and_then(|name| active.slots.get(&name).cloned());
            let stats = slot.as_ref().map(|slot| &slot.stats);
            let all_versions = stats.map(|stats| stats.tally.read()).unwrap_or_default();
            let wall_us = stats.map_or(0, |stats| stats.wall_us.load(Ordering::Relaxed));
            let loaded = slot.as_ref().and_then(|slot| slot.loaded());
            let this_version = loaded.as_ref().map(|loaded| loaded.tally.read()).unwrap_or_default();
            all.push(FunctionStatus {
                name: name.clone(),
                version: entry.version.clone(),
                digest: entry.digest.to_string(),
                state: match () {
                    () if registry.quarantined.contains(name) => "quarantined",
                    () if loaded.is_none() => "not-loaded",
                    () if entry.trial => "trial",
                    () if entry.exercised => "confirmed",
                    () => "confirmed-unexercised",
                },
                deployed: entry.deployed,
                triggers: loaded
                    .map_or_else(Vec::new, |loaded| loaded.manifest.triggers.iter().map(describe).collect()),
                waiting: slot.as_ref().map_or(0, |slot| slot.waiting()),
                succeeded: all_versions.succeeded,
                failed: all_versions.failed,
                invocations: this_version.invocations(),
                faults: this_version.faulted,
                mean_us: wall_us.checked_div(all_versions.invocations()).unwrap_or_default(),
                last_fault: stats.and_then(|stats| stats.last_fault()).or_else(|| left_out.get(name).cloned()),
            });
        }
        all
    }
}

fn describe(trigger: &holm_core::Trigger) -> String {
    use holm_core::{ScheduleWhen, TriggerKind, When};
    match &trigger.kind {
        TriggerKind::Mqtt { topics, .. } => {
            let topics: Vec<&str> = topics.iter().map(holm_core::TopicFilter::as_str).collect();
            format!("mqtt {}", topics.join(" "))
        }
        TriggerKind::Schedule { when: ScheduleWhen::Cron(cron), .. } => format!("cron {cron}"),
        TriggerKind::Schedule { when: ScheduleWhen::Interval(interval), .. } => format!("every {interval:?}"),
        TriggerKind::Sensor(trigger) => {
            let channel = trigger.channel.as_ref().map(|channel| format!(".{channel}")).unwrap_or_default();
            let mut text = format!("sensor {}{channel} every {:?}", trigger.sensor, trigger.interval);
            if let Some(threshold) = &trigger.threshold {
                let bounds = [("above", threshold.above), ("below", threshold.below)];
                for (word, bound) in bounds.into_iter().filter_map(|(word, bound)| Some((word, bound?))) {
                    text.push_str(&format!(", {word} {bound}"));
                }
            }
            text
        }
        TriggerKind::Gpio(trigger) => format!("gpio {} {}", trigger.line, trigger.edge.as_str()),
        TriggerKind::File(trigger) => format!("file {}/*{}", trigger.folder, trigger.suffix),
        TriggerKind::Http(trigger) => format!("http {} {}", trigger.methods.join(","), trigger.path),
        TriggerKind::Function { from, on: When::Success } => format!("after {from}"),
        TriggerKind::Function { from, on: When::Failure } => format!("when {from} fails"),
        TriggerKind::Lifecycle { on } => format!("on {}", on.join(", ")),
    }
}
