//! The door to the database: who the devices are, what they were told, what they sent.
//!
//! # Invariants
//!
//! 1. Whoever is told that something is stored is told after the commit.
//! 2. A sequence number of a stream is stored once, however often and in whatever order it comes.
//! 3. A watermark says what is stored or known to be gone, without holes.
//! 4. One thread writes. Readers see whole transactions and never wait for it.
//!
//! # How it works
//!
//! Each change is a closure that runs in the transaction of its group, in a savepoint of its own: one that fails takes nobody
//! with it. The writer takes whatever has queued up while it committed the last group, so the busier it is, the more changes
//! share a sync. Whoever asked is called back on the writer's thread after the commit.
//!
//! # How it fails
//!
//! A group that cannot be committed has not happened, and everybody in it is told [`CloudError::NotCommitted`]. The queue has a
//! bound in changes and in bytes; beyond it, [`CloudError::Busy`].
//!
//! Nothing outside this folder names SQL, a table or a column: a database of another kind replaces these files and no others.

mod aliases;
mod audit;
mod buckets;
mod deploy;
mod desired;
mod devices;
mod fleet;
mod ingest;
mod jobs;
mod open;
mod operators;
mod query;
mod repository;
mod restored;
mod retention;
mod rollouts;
mod secrets;
mod shadow;
mod spans;
mod survey;
mod tail;
mod tokens;
mod traps;
mod writer;

use std::sync::Arc;

use holm_core::Timestamp;
use tokio::sync::oneshot;

pub(crate) use buckets::Buckets;
pub(crate) use deploy::{Deploy, JobState};
pub(crate) use devices::{Device, DeviceStatus, NewCertificate};
pub(crate) use fleet::{Applied, Fleet};
pub(crate) use ingest::Ingested;
pub(crate) use jobs::{JobAnswer, PutJob};
pub(crate) use open::{Opened, check_database, copy_database};
pub(crate) use operators::{Operator, Role};
pub(crate) use query::{GapRow, Page, Place, Row, Selection};
pub(crate) use repository::{Held, Publication};
pub use restored::Leapt;
pub(crate) use restored::leap;
pub(crate) use retention::Streams;
pub(crate) use rollouts::{Begin, Begun, Member, RolloutId, RolloutOverview, Stepped, Target, Wish};
pub(crate) use secrets::{SealedFor, SecretChange, SecretScope, SecretTold};
pub(crate) use shadow::ShadowAnswer;
pub(crate) use survey::{Running, Series, Sought};
pub(crate) use tail::{Arrival, Arrived, Seen};
pub(crate) use tokens::{Admitted, Enrolment, Meant, TokenInfo};
pub(crate) use traps::TrapSelection;

use crate::CloudError;
use crate::records::open::Readers;
use crate::records::writer::Queue;

/// Why a change of an operator or a device was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    TokenUnknown,
    TokenUsed,
    TokenExpired,
    ThingTaken,
    CertificateUnknown,
    CertificateRevoked,
    NoSuchDevice,
    NoSuchOperator,
    NoSuchRollout,
    /// Metadata that devices would not believe, or that lists what is not here: every sentence.
    NotBelieved(Vec<String>),
    /// The sentence.
    Conflict(String),
}

/// A handle on the database. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Records {
    queue: Arc<Queue>,
    readers: Arc<Readers>,
}

impl Records {
    /// Makes a change, and waits for its commit. Cancel safe in that it happens or does not; who stops waiting does not learn
    /// which.
    async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&rusqlite::Connection) -> Result<T, CloudError> + Send + 'static,
    ) -> Result<T, CloudError> {
        let (done, answer) = oneshot::channel();
        let change = writer::change(0, change, move |result| {
            // Who has gone does not want to know.
            let _ = done.send(result);
        });
        self.queue.send(change).await?;
        answer.await.unwrap_or(Err(CloudError::NotCommitted))
    }

    /// Queues a change that weighs so many bytes and never waits: `done` is called after its commit, or now and not at all if
    /// this answers an error.
    fn offer<T: Send + 'static>(
        &self,
        weight: usize,
        change: impl FnOnce(&rusqlite::Connection) -> Result<T, CloudError> + Send + 'static,
        done: impl FnOnce(Result<T, CloudError>) + Send + 'static,
    ) -> Result<(), CloudError> {
        self.queue.offer(writer::change(weight, change, done))
    }

    /// Reads, on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&rusqlite::Connection) -> Result<T, CloudError> + Send + 'static,
    ) -> Result<T, CloudError> {
        self.readers.read(look).await
    }

    /// No change is taken from here on. What is queued is committed, then the writer ends.
    pub(crate) fn close(&self) {
        self.queue.close();
    }
}

/// As SQLite has it. Sequence numbers, generations and counts are far below its bound.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A time as an option of a row has it.
fn moment(time: Option<i64>) -> Option<Timestamp> {
    time.map(Timestamp)
}
