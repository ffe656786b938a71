//! What two looks tell together: how much, and how fast.

use serde::Serialize;

use crate::reply::Function;
use crate::status::mean;
use crate::top::sample::Sample;

/// Figures for one screen, one line or one JSON object. `_per_s` is between the two looks, everything else is now or
/// since the node's start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub(crate) device: String,
    pub(crate) version: String,
    pub(crate) uptime_s: u64,
    pub(crate) events: u64,
    pub(crate) events_per_s: f64,
    /// Dropped, refused, and cut out of loops.
    pub(crate) not_taken: u64,
    pub(crate) duplicates: u64,
    pub(crate) invocations_per_s: f64,
    pub(crate) functions: Vec<Row>,
    pub(crate) deploying: bool,
    pub(crate) broker: Broker,
    pub(crate) store: Store,
    pub(crate) inbox: u64,
    pub(crate) dead: u64,
    pub(crate) outbox: Vec<Lane>,
}

/// One function.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) state: String,
    pub(crate) invocations_per_s: f64,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) mean_us: u64,
    pub(crate) waiting: u64,
}

/// The broker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Broker {
    pub(crate) clients: u64,
    pub(crate) in_per_s: f64,
    pub(crate) out_per_s: f64,
    pub(crate) queued: u64,
    pub(crate) dropped: u64,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Store {
    pub(crate) commits_per_s: f64,
    /// Of the commits between the two looks.
    pub(crate) mean_commit_us: f64,
    /// Of the commits between the two looks.
    pub(crate) settlements_per_commit: f64,
    pub(crate) failures: u64,
    pub(crate) failing: bool,
    pub(crate) database_bytes: u64,
}

/// One lane of the outbox.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Lane {
    pub(crate) lane: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

impl Figures {
    /// Of two looks; with the same one twice, nothing is fast. A node that was started between them counts from zero.
    pub(crate) fn of(before: &Sample, now: &Sample) -> Self {
        let seconds = now.at.duration_since(before.at).as_secs_f64();
        let restarted = now.status.uptime_s < before.status.uptime_s;
        let since = |old: u64, new: u64| if restarted { new } else { new.saturating_sub(old) };
        let per_s = |old: u64, new: u64| if seconds > 0.0 { since(old, new) as f64 / seconds } else { 0.0 };
        let (old, new) = (&before.status, &now.status);
        let commits = since(old.store.commits, new.store.commits);
        let functions: Vec<Row> = now
            .functions
            .iter()
            .map(|function| {
                let ended = |function: &Function| function.succeeded + function.failed;
                let was = before.functions.iter().find(|other| other.name == function.name).map_or(0, ended);
                Row {
                    name: function.name.clone(),
                    version: function.version.clone(),
                    state: function.state.clone(),
                    invocations_per_s: per_s(was, ended(function)),
                    succeeded: function.succeeded,
                    failed: function.failed,
                    mean_us: function.mean_us,
                    waiting: function.waiting,
                }
            })
            .collect();
        Self {
            device: new.device.clone(),
            version: new.version.clone(),
            uptime_s: new.uptime_s,
            events: new.events.accepted,
            events_per_s: per_s(old.events.accepted, new.events.accepted),
            not_taken: new.events.dropped + new.events.refused + new.events.loops,
            duplicates: new.events.duplicates,
            invocations_per_s: functions.iter().map(|row| row.invocations_per_s).sum(),
            functions,
            deploying: now.deploying,
            broker: Broker {
                clients: new.broker.clients,
                in_per_s: per_s(old.broker.messages_in, new.broker.messages_in),
                out_per_s: per_s(old.broker.messages_out, new.broker.messages_out),
                queued: new.broker.queued_messages,
                dropped: new.broker.dropped,
            },
            store: Store {
                commits_per_s: per_s(old.store.commits, new.store.commits),
                mean_commit_us: mean(since(old.store.commit_us, new.store.commit_us), commits),
                settlements_per_commit: mean(since(old.store.settlements, new.store.settlements), commits),
                failures: new.store.failures,
                failing: new.store.failing,
                database_bytes: new.inbox.database_bytes,
            },
            inbox: new.inbox.parked,
            dead: new.inbox.dead,
            outbox: new
                .outbox
                .iter()
                .map(|lane| Lane { lane: lane.lane.clone(), rows: lane.rows, bytes: lane.bytes })
                .collect(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Two looks, two seconds apart.
    pub(crate) fn samples() -> (Sample, Sample) {
        let function = Function {
            name: "water-loss".into(),
            version: "0.1.0".into(),
            state: "confirmed".into(),
            succeeded: 1_000,
            mean_us: 184,
            ..Function::default()
        };
        let event = crate::reply::Event {
            function: "water-loss".into(),
            outcome: "ok".into(),
            source: "mqtt".into(),
            subject: "water/flow".into(),
            id: "e-1".into(),
            wall_us: 184,
            ..crate::reply::Event::default()
        };
        let log = crate::reply::Log {
            function: "machine-health".into(),
            level: "warn".into(),
            message: "press is above 10".into(),
            ..crate::reply::Log::default()
        };
        let before = Sample {
            at: Instant::now(),
            status: crate::status::tests::sample(),
            functions: vec![function],
            deploying: false,
            events: vec![event],
            logs: vec![log],
        };
        let mut now = before.clone();
        now.at += Duration::from_secs(2);
        now.status.uptime_s += 2;
        now.status.events.accepted += 400;
        now.status.store.commits += 100;
        now.status.store.settlements += 402;
        now.status.store.commit_us += 25_000;
        now.status.broker.messages_in += 420;
        for function in &mut now.functions {
            function.succeeded += 390;
            function.failed += 10;
        }
        (before, now)
    }

    #[test]
    fn rates_are_between_the_looks_and_a_restart_counts_from_zero() {
        let (before, mut now) = samples();
        let figures = Figures::of(&before, &now);
        assert_eq!((figures.events_per_s, figures.invocations_per_s, figures.broker.in_per_s), (200.0, 200.0, 210.0));
        let store = &figures.store;
        assert_eq!((store.commits_per_s, store.mean_commit_us, store.settlements_per_commit), (50.0, 250.0, 4.02));
        assert_eq!(Figures::of(&now, &now).events_per_s, 0.0);
        now.status.uptime_s = 1;
        now.status.events.accepted = 10;
        assert_eq!(Figures::of(&before, &now).events_per_s, 5.0);
    }
}
