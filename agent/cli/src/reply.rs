//! What the admin socket answers, as far as it is shown. Fields that a node of another release does not send are zero:
//! `--json` hands on the answer as it came.

use serde::Deserialize;

/// Of `/v1/status`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) device: String,
    pub(crate) version: String,
    pub(crate) uptime_s: u64,
    pub(crate) time_plausible: bool,
    pub(crate) events: Events,
    pub(crate) store: Store,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Vec<Lane>,
    pub(crate) broker: Broker,
    pub(crate) external: Option<External>,
    pub(crate) cloud: Option<Cloud>,
}

/// The link to a broker that is not the node's own.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct External {
    pub(crate) address: String,
    pub(crate) connected: bool,
    pub(crate) last_error: Option<String>,
    pub(crate) in_flight: u64,
    pub(crate) messages_in: u64,
    pub(crate) messages_out: u64,
}

/// The link to the control plane.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Cloud {
    pub(crate) state: String,
    pub(crate) thing: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) last_error: Option<String>,
    pub(crate) certificate_expires: Option<i64>,
    pub(crate) sealing_key: Option<String>,
    pub(crate) in_flight: u64,
    pub(crate) paused: bool,
    pub(crate) bytes_today: u64,
    pub(crate) daily_bytes: Option<u64>,
    pub(crate) next_job: Option<String>,
    pub(crate) phase: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) deferred_until: Option<i64>,
    pub(crate) upload: Upload,
}

/// What became of records since start.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Upload {
    pub(crate) acknowledged: u64,
    pub(crate) resends: u64,
    pub(crate) too_large: u64,
    pub(crate) unsendable: u64,
    pub(crate) refused: u64,
}

/// Counters since start.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Events {
    pub(crate) accepted: u64,
    pub(crate) dropped: u64,
    pub(crate) refused: u64,
    pub(crate) duplicates: u64,
    pub(crate) loops: u64,
}

/// The store since start.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Store {
    pub(crate) commits: u64,
    pub(crate) settlements: u64,
    pub(crate) failures: u64,
    pub(crate) commit_us: u64,
    pub(crate) waiting: u64,
    pub(crate) failing: bool,
}

/// The inbox, and the dead letters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Inbox {
    pub(crate) parked: u64,
    pub(crate) dead: u64,
    pub(crate) database_bytes: u64,
}

/// One lane of the outbox.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Lane {
    pub(crate) lane: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) oldest: Option<i64>,
}

/// The broker.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Broker {
    pub(crate) clients: u64,
    pub(crate) sessions: u64,
    pub(crate) queued_messages: u64,
    pub(crate) queued_bytes: u64,
    pub(crate) retained: u64,
    pub(crate) messages_in: u64,
    pub(crate) messages_out: u64,
    pub(crate) dropped: u64,
}

/// One of `/v1/functions`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) state: String,
    pub(crate) triggers: Vec<String>,
    pub(crate) waiting: u64,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) mean_us: u64,
    pub(crate) last_fault: Option<String>,
}

/// One of `/v1/events`, or `gap` of them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Event {
    pub(crate) gap: u64,
    pub(crate) time: i64,
    pub(crate) id: String,
    pub(crate) source: String,
    pub(crate) subject: String,
    pub(crate) function: String,
    pub(crate) attempt: u32,
    pub(crate) outcome: String,
    pub(crate) fault: Option<String>,
    pub(crate) wall_us: u64,
    pub(crate) bytes: u64,
}

/// One of `/v1/logs`, or `gap` of them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Log {
    pub(crate) gap: u64,
    pub(crate) time: i64,
    pub(crate) function: String,
    pub(crate) level: String,
    pub(crate) message: String,
}

/// One of `/v1/dlq`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Letter {
    pub(crate) id: i64,
    pub(crate) function: String,
    pub(crate) buried: i64,
    pub(crate) expires: i64,
    pub(crate) kind: String,
    pub(crate) fault: String,
    pub(crate) event: String,
    pub(crate) source: String,
    pub(crate) subject: String,
    pub(crate) attempts: u32,
    pub(crate) bytes: u64,
    pub(crate) data: serde_json::Value,
    pub(crate) attributes: serde_json::Value,
}

/// Of `/v1/buffer`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Buffer {
    pub(crate) lanes: Vec<Lane>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) epoch: String,
}

/// Rows that are gone.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Gap {
    pub(crate) stream: String,
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) reason: String,
    pub(crate) at: i64,
}

/// Of `/v1/deploy`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    pub(crate) function: String,
    pub(crate) version: String,
    pub(crate) digest: String,
    pub(crate) previous: Option<String>,
    pub(crate) outcome: String,
    pub(crate) reason: Option<String>,
    pub(crate) invocations: u64,
    pub(crate) native_bytes: u64,
}

/// What `holm-compile` prints.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Compiled {
    pub(crate) profile: String,
    pub(crate) bytes: u64,
    pub(crate) ms: u64,
    pub(crate) imports: Vec<String>,
}
