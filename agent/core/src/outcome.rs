//! What one invocation did: its result, the effects it staged, and what it used.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{FunctionName, Payload, Publish};

/// Why an invocation did not succeed. Guest faults are data, not errors of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The handler asked to be run again, perhaps not before `after`.
    Retry {
        /// The handler's words.
        reason: String,
        /// The handler's hint.
        after: Option<Duration>,
    },
    /// The handler called the event poison: no retry.
    Reject {
        /// The handler's words.
        reason: String,
    },
    /// The guest trapped: unreachable, out-of-bounds, stack overflow, exit, ...
    Trap {
        /// The trap, with a wasm backtrace where there is one.
        message: String,
    },
    /// The guest ran past its deadline.
    Timeout {
        /// The limit it had.
        limit: Duration,
    },
    /// The guest asked for more than a limit gives, and trapped over it.
    Exhausted {
        /// Which limit: "memory", "table", "output", "log", ...
        resource: String,
    },
    /// The node could not run it now (no slot, budget spent). Not the guest's doing.
    Unavailable {
        /// What was missing.
        reason: String,
    },
}

impl Fault {
    /// One word for tables and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Retry { .. } => "retry",
            Self::Reject { .. } => "reject",
            Self::Trap { .. } => "trap",
            Self::Timeout { .. } => "timeout",
            Self::Exhausted { .. } => "exhausted",
            Self::Unavailable { .. } => "unavailable",
        }
    }

    /// The operator's sentence.
    pub fn message(&self) -> String {
        match self {
            Self::Retry { reason, .. } | Self::Reject { reason } | Self::Unavailable { reason } => reason.clone(),
            Self::Trap { message } => message.clone(),
            Self::Timeout { limit } => format!("ran longer than its limit of {limit:?}"),
            Self::Exhausted { resource } => format!("exceeded its {resource} limit"),
        }
    }
}

/// One write to key-value state. `None` deletes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateWrite {
    /// The namespace: the function's own name, or `shared/...`.
    pub namespace: Arc<str>,
    /// The key.
    pub key: Arc<str>,
    /// The new value.
    pub value: Option<Bytes>,
}

/// A row of a result series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultRow {
    /// A series that the manifest declares.
    pub series: Arc<str>,
    /// A JSON value as text: a number for `record-value`.
    pub json: Bytes,
}

/// A message to another function, delivered after this event has settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueue {
    /// The id that the guest was told.
    pub id: Arc<str>,
    /// Who shall receive it.
    pub function: FunctionName,
    /// The payload.
    pub input: Payload,
    /// Not before this long after settlement.
    pub delay: Option<Duration>,
}

/// Everything an invocation staged. It happens only if the handler succeeds, and then all at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effects {
    /// In the order of the calls.
    pub publishes: Vec<Publish>,
    /// At most one per (namespace, key): the last.
    pub writes: Vec<StateWrite>,
    /// In the order of the calls.
    pub results: Vec<ResultRow>,
    /// In the order of the calls.
    pub enqueues: Vec<Enqueue>,
}

impl Effects {
    /// Whether the invocation staged nothing.
    pub fn is_empty(&self) -> bool {
        self.publishes.is_empty() && self.writes.is_empty() && self.results.is_empty() && self.enqueues.is_empty()
    }
}

/// The keys an invocation read, each with the state version it saw: checked again when its effects are queued.
pub type ReadSet = Vec<(Arc<str>, Arc<str>, u64)>;

/// How loud a log line is, as in wasi:logging.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Finest.
    Trace,
    /// For the developer.
    Debug,
    /// Normal.
    Info,
    /// Odd.
    Warn,
    /// Broken.
    Error,
    /// Very broken.
    Critical,
}

/// A line that a function wrote, by wasi:logging, stdout or stderr. Kept whether or not the handler succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How loud.
    pub level: LogLevel,
    /// wasi:logging's context, or `stdout`, `stderr`.
    pub context: String,
    /// The text, cut at the function's log limit.
    pub message: String,
}

/// What an invocation cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Wall time in the guest, host calls included.
    pub wall: Duration,
    /// Largest linear memory, in bytes.
    pub peak_memory: u64,
    /// Bytes of payload it staged to leave.
    pub bytes_out: u64,
}

/// What the host told a guest, call by call: enough to replay the invocation elsewhere. Its encoding is the runtime's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recording {
    /// The calls that were kept, in their order.
    pub bytes: Vec<u8>,
    /// How many those are.
    pub calls: u32,
    /// How many came after them and were not kept, because there was no more room.
    pub missing: u32,
}

/// What a handler of HTTP requests answered, for a client that takes it as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// From 200 to 599.
    pub status: u16,
    /// In the handler's order; a name may come more than once. They are well-formed, and none is of a connection only.
    pub headers: Vec<(String, Bytes)>,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// The status, for those who are told of a failure.
    pub fn words(&self) -> String {
        format!("the response has status {}", self.status)
    }
}

/// The whole of one invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The handler's answer, or why there is none.
    pub result: Result<Option<Payload>, Fault>,
    /// The same in HTTP's terms, of a handler that answers so. It is also there with a status of the server's errors,
    /// which is `Fault::Retry` in `result`.
    pub response: Option<Box<Response>>,
    /// Empty unless `result` is `Ok`.
    pub effects: Effects,
    /// What it read of the state, for the conflict check.
    pub reads: ReadSet,
    /// What it wrote to the log.
    pub logs: Vec<LogLine>,
    /// What it cost.
    pub usage: Usage,
    /// What it was told, when the recorder kept it.
    pub recording: Option<Recording>,
}

impl Outcome {
    /// The same where no client takes the response as it is: one that blames the request (4xx) is a rejection.
    pub fn without_client(self) -> Self {
        match self.response {
            Some(response) if response.status >= 400 && self.result.is_ok() => {
                let result = Err(Fault::Reject { reason: response.words() });
                Self { result, effects: Effects::default(), response: None, ..self }
            }
            _ => Self { response: None, ..self },
        }
    }
}
