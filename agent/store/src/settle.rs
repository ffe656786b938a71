//! What can be asked of the store in one transaction.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holm_core::{Event, FunctionName, Message, ReadSet, SessionWrite, StateWrite, Timestamp};

use crate::{CloudWrite, DedupeKey, Lane};

/// A row of the inbox. Given out by [`Store::next_inbox_id`](crate::Store::next_inbox_id), so that it is known before
/// the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InboxId(pub i64);

/// A row of the local lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalId(pub i64);

/// One change. All writes of a settlement commit together.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Key-value state.
    State(StateWrite),
    /// An event waits in the inbox for a function.
    Park {
        /// A fresh id.
        id: InboxId,
        /// Who shall have it.
        function: FunctionName,
        /// The event; its `attempt` is the next one.
        event: Arc<Event>,
        /// Not before.
        due: Timestamp,
        /// Why the last attempt failed.
        fault: Option<String>,
    },
    /// The inbox row is done with.
    Unpark {
        /// Its row.
        id: InboxId,
        /// Whose it was.
        function: FunctionName,
    },
    /// The inbox row waits for another attempt.
    Postpone {
        /// Which row.
        id: InboxId,
        /// The next attempt's number.
        attempt: u32,
        /// Not before.
        due: Timestamp,
        /// Why the last attempt failed.
        fault: String,
    },
    /// The event goes to the dead letters.
    Bury {
        /// Whose it was.
        function: FunctionName,
        /// The event as it was last tried.
        event: Arc<Event>,
        /// When.
        now: Timestamp,
        /// How long it is kept.
        keep: Duration,
        /// One word.
        kind: &'static str,
        /// The operator's sentence.
        fault: String,
    },
    /// A dead letter is taken out, for replay or for good.
    Exhume(i64),
    /// A row for the cloud. The store gives it the stream's next sequence.
    Outbox {
        /// Which lane.
        lane: Lane,
        /// Which stream.
        stream: Arc<str>,
        /// When.
        created: Timestamp,
        /// MIME type.
        content_type: Option<Arc<str>>,
        /// The payload.
        data: Bytes,
    },
    /// A publish that waits for an external broker.
    Local {
        /// A fresh id.
        id: LocalId,
        /// The message.
        message: Arc<Message>,
    },
    /// The external broker has it.
    LocalDone(LocalId),
    /// This message id has been settled.
    Remember {
        /// The id.
        key: DedupeKey,
        /// When.
        seen: Timestamp,
    },
    /// A change of the broker's sessions or retained messages.
    Session(SessionWrite),
    /// A schedule fired.
    Fired {
        /// Whose.
        function: FunctionName,
        /// Which.
        name: Arc<str>,
        /// When it was due.
        at: Timestamp,
    },
    /// A document of the registry; `None` removes it.
    Registry {
        /// Its key.
        key: Arc<str>,
        /// Its JSON text.
        document: Option<String>,
    },
    /// The cloud has rows, or will never have them.
    Cloud(CloudWrite),
}

/// What one invocation adds to its function's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    /// Invocations.
    pub invocations: u64,
    /// Those that did not succeed.
    pub errors: u64,
    /// Wall time in microseconds.
    pub wall_us: u64,
    /// CPU time in microseconds.
    pub cpu_us: u64,
    /// The largest linear memory, in bytes.
    pub peak_memory: u64,
    /// Bytes of event payload.
    pub bytes_in: u64,
    /// Bytes of publishes and results.
    pub bytes_out: u64,
}

impl Account {
    pub(crate) fn add(&mut self, other: &Self) {
        self.invocations += other.invocations;
        self.errors += other.errors;
        self.wall_us += other.wall_us;
        self.cpu_us += other.cpu_us;
        self.peak_memory = self.peak_memory.max(other.peak_memory);
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
    }
}

/// A set of writes that happen together, on the condition that what was read still stands.
#[derive(Debug, Clone, Default)]
pub struct Settlement {
    /// In order.
    pub writes: Vec<Write>,
    /// The keys that were read, with the versions seen.
    pub reads: ReadSet,
    /// The store's generation when the invocation began; `None` for settlements without an invocation.
    pub generation: Option<u64>,
    /// What the namespaces that are written may hold; each at most once. A namespace that is not among them may grow
    /// without a bound.
    pub quotas: Vec<Quota>,
    /// What to add to a function's account.
    pub account: Option<(FunctionName, Account)>,
}

/// The most bytes of keys and values that a namespace may hold after the writes of a settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Which namespace.
    pub namespace: Arc<str>,
    /// Bytes.
    pub limit: u64,
    /// Bytes that the writes replace and the overlay does not know: see [`Store::weigh`](crate::Store::weigh).
    pub(crate) replaced: u64,
}

impl Quota {
    /// `namespace` may hold `limit` bytes.
    pub fn new(namespace: Arc<str>, limit: u64) -> Self {
        Self { namespace, limit, replaced: 0 }
    }
}

/// Why a settlement was not queued. Nothing of it has happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Something that was read has changed: run again.
    #[error("a key that was read has been written since")]
    Conflict,
    /// A commit failed since the invocation began, so what it read may never have happened: run again.
    #[error("the store was rolled back since the invocation began")]
    Stale,
    /// A namespace would be larger than its limit.
    #[error("the namespace would hold {would_be} bytes, its limit is {limit}")]
    Quota {
        /// Bytes after the writes.
        would_be: u64,
        /// The limit.
        limit: u64,
    },
    /// The writer has stopped.
    #[error("the store is closed")]
    Closed,
}

/// Why a queued settlement was not committed. Nothing of it has happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// No space left, or a configured cap was reached.
    #[error("the disk is full")]
    DiskFull,
    /// The disk or the file refused.
    #[error("the database refused the commit: {0}")]
    Failed(String),
    /// A commit before it failed.
    #[error("a commit before this one failed")]
    Discarded,
    /// The writer stopped first.
    #[error("the store was closed before the commit")]
    Closed,
}
