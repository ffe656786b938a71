//! The device's store: the only SQL on the device.
//!
//! # What it guarantees
//!
//! A [`Settlement`] is a set of [`Write`]s that happen together or not at all. When its callback says `Ok`, they are on
//! the disk: in SQLite's write-ahead log, synced (`WAL`, `synchronous=FULL`). Settlements take effect in the order in
//! which they were queued.
//!
//! # How it works
//!
//! One thread writes ([`Writer::run`]). It takes what has been queued, applies it in one transaction and commits once:
//! the price of a sync is shared by everybody who waits for one (group commit). Between being queued and being
//! committed, state writes are visible through the [`Overlay`](overlay), so that the next invocation of a function
//! never waits for a sync to read what the one before it wrote.
//!
//! Before a group, at most once a minute, rows past their age go, and the oldest of what has a bound, in small
//! transactions of their own ([`expiry`]); the writer holds the time of day against a clock that is never set, so that
//! setting it neither ages rows nor makes them wait ([`clock`]).
//!
//! # How it fails
//!
//! A transaction that cannot be committed (full disk, I/O error) fails every settlement in it and every one queued
//! behind it, because those may have read through the overlay what now never happened; the overlay is emptied and its
//! generation rises, so that invocations that are still running are turned away when they come to queue
//! ([`QueueError::Stale`]) and run again; so are those that
//! begin before everybody who waited has been told. A damaged file is set aside and salvaged when it is opened, never deleted.

mod apply;
mod book;
mod clock;
mod cloud;
mod codec;
mod dedupe;
mod expiry;
mod news;
mod open;
mod outbox;
mod overlay;
mod query;
mod reader;
mod salvage;
mod schema;
mod settle;
mod store;
mod turns;
mod writer;

pub use cloud::{CloudNotes, CloudWrite, Head, Item, Outbox, Portion, Stretch};
pub use dedupe::DedupeKey;
pub use holm_core::ClockReading as Reading;
pub use open::{OpenOptions, Opened, Recovery};
pub use outbox::{Lane, OutboxCaps};
pub use overlay::Versioned;
pub use query::{
    DeadLetter, FunctionAccount, GapRow, InboxStat, LaneStat, LocalRow, OutboxRow, ParkedEvent, RegistryRow,
};
pub use reader::StateReader;
pub use settle::{Account, CommitError, InboxId, LocalId, QueueError, Quota, Settlement, Write};
pub use store::{Done, Store, StoreStats};
pub use writer::Writer;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file was written by a release this one does not understand. It has not been touched.
    #[error("{path} has format {found}, this release reads up to {known}; the file was left as it is")]
    FromTheFuture {
        /// The database.
        path: String,
        /// Its `user_version`.
        found: i64,
        /// The last major format known here.
        known: i64,
    },
    /// The file is a healthy SQLite database of somebody else.
    #[error(
        "{path} is an SQLite database, but not one of Holm's (application id {found:#x}); the file was left as it is"
    )]
    NotOurs {
        /// The database.
        path: String,
        /// Its `application_id`.
        found: i64,
    },
    /// Another process has the store open.
    #[error("{path} is in use by another process")]
    InUse {
        /// The database.
        path: String,
    },
    /// A folder or file operation failed.
    #[error("cannot {action} {path}")]
    File {
        /// `create`, `rename`, ...
        action: &'static str,
        /// What it was done to.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("cannot {action}")]
    Sql {
        /// What was being done.
        action: &'static str,
        /// Why.
        source: rusqlite::Error,
    },
    /// A row does not hold what it should.
    #[error("the {table} table holds a row that cannot be read: {what}")]
    Row {
        /// Where.
        table: &'static str,
        /// What is wrong with it.
        what: String,
    },
}

/// The time of day in milliseconds since 1970, for the ages of rows. Nothing depends on its being right but how soon old
/// rows go.
#[expect(clippy::disallowed_methods, reason = "the writer has no caller to hand it the time")]
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

pub(crate) fn sql(action: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |source| StoreError::Sql { action, source }
}
