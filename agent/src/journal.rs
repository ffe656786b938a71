//! The last events and log lines, in memory: what `holm events` and `holm logs` show. Bounded by bytes, outside the
//! database, and lost at a restart: what must last is in the store and in the system's log. With them the tape, on nodes
//! that keep one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use holm_core::{FunctionName, LogLevel, Source, Timestamp};
use tokio::sync::Notify;

use crate::dispatch::Loaded;
use crate::recordings::Recordings;
use crate::tape::{TAPE_BYTES, Take};

/// Bytes that each of the two rings may hold.
const RING_BYTES: usize = 192 * 1024;

/// One invocation, as an operator wants to see it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct EventEntry {
    /// Ascending; a hole means that entries were dropped from the ring before they were read.
    pub number: u64,
    /// When the event was accepted, in milliseconds since 1970.
    pub time: Timestamp,
    /// Its id.
    pub id: Arc<str>,
    /// What kind.
    pub source: Source,
    /// Topic, schedule or function.
    pub subject: Arc<str>,
    /// Who handled it.
    pub function: Arc<str>,
    /// 1 on first delivery.
    pub attempt: u32,
    /// `ok`, or the kind of fault.
    pub outcome: &'static str,
    /// The fault's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Wall time of the invocation in microseconds.
    pub wall_us: u64,
    /// Bytes of payload.
    pub bytes: usize,
}

/// One line of a function's log.
#[derive(Debug, Clone, serde::Serialize)]
pub struct LogEntry {
    /// Ascending, as for events.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub time: Timestamp,
    /// Who wrote it.
    pub function: Arc<str>,
    /// How loud.
    pub level: LogLevel,
    /// `stdout`, `stderr`, or the context that the function gave.
    pub context: String,
    /// The text.
    pub message: String,
}

/// A bounded ring that can be followed.
pub struct Ring<T> {
    inner: Mutex<Inner<T>>,
    grown: Notify,
}

struct Inner<T> {
    entries: VecDeque<(usize, T)>,
    bytes: usize,
    most: usize,
    next: u64,
}

impl<T: Clone> Ring<T> {
    /// An empty one that holds so many bytes.
    fn new(most: usize) -> Self {
        Self { inner: Mutex::new(Inner { entries: VecDeque::new(), bytes: 0, most, next: 1 }), grown: Notify::new() }
    }

    /// Adds what `make` builds from its number; `cost` is its size in bytes.
    pub fn push(&self, cost: usize, make: impl FnOnce(u64) -> T) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let number = inner.next;
        inner.next += 1;
        inner.entries.push_back((cost, make(number)));
        inner.bytes += cost;
        while inner.bytes > inner.most {
            match inner.entries.pop_front() {
                Some((cost, _)) => inner.bytes -= cost,
                None => inner.bytes = 0,
            }
        }
        drop(inner);
        self.grown.notify_waiters();
    }

    /// Entries with a number above `after`, oldest first, at most `limit`, the newest of them where there are more and
    /// `after` is 0.
    pub fn since(&self, after: u64, limit: usize) -> Vec<T> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let first = inner.next - inner.entries.len() as u64;
        let skip = usize::try_from(after.saturating_add(1).saturating_sub(first)).unwrap_or(usize::MAX);
        let available = inner.entries.len().saturating_sub(skip);
        let skip = if after == 0 { skip + available.saturating_sub(limit) } else { skip };
        inner.entries.iter().skip(skip).take(limit).map(|(_, entry)| entry.clone()).collect()
    }

    /// Resolves when something is added after the call. Cancel safe.
    pub fn grown(&self) -> tokio::sync::futures::Notified<'_> {
        self.grown.notified()
    }
}

/// All rings.
pub struct Journal {
    /// Invocations.
    pub events: Ring<EventEntry>,
    /// Log lines.
    pub logs: Ring<LogEntry>,
    /// What invocations did, where that is kept.
    pub tape: Option<Ring<Take>>,
    /// Whole invocations, where they are kept: enough to run them again.
    pub recordings: Option<Arc<Recordings<Loaded>>>,
}

impl Journal {
    /// Empty rings.
    pub fn new(tape: bool, record: usize) -> Self {
        let tape = tape.then(|| Ring::new(TAPE_BYTES));
        let recordings = (record > 0).then(|| Arc::new(Recordings::new(record)));
        Self { events: Ring::new(RING_BYTES), logs: Ring::new(RING_BYTES), tape, recordings }
    }

    /// Takes a function's lines.
    pub fn log(&self, function: &FunctionName, time: Timestamp, lines: Vec<holm_core::LogLine>) {
        for line in lines {
            let cost = 96 + line.message.len() + line.context.len();
            let function = function.shared();
            self.logs.push(cost, |number| LogEntry {
                number,
                time,
                function,
                level: line.level,
                context: line.context,
                message: line.message,
            });
        }
    }
}
