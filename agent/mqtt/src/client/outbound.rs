//! Messages of the lane on their way to the broker.
//!
//! Rows are read in batches, oldest first, and never by a cursor: a row with a lower id may be committed after one with
//! a higher id. So every read begins at the front, and rows that are on their way or finished are passed over.
//!
//! Messages without a row ([`Relay`]) go out when no row is left that was committed before them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use holm_core::Message;
use rumqttc::{PublishNotice, PublishNoticeError};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::relay::Relay;
use super::{Lane, Outgoing};
use crate::{Refusal, Settled};

/// Rows that are read at a time, beyond those that are known: each may hold a payload of the largest size.
const BATCH: usize = 32;

/// Finished publishes whose rows are still there; beyond, nothing more is sent until the store has caught up.
const MAX_FINISHED: usize = 64;

/// How long to wait after the store could not read or delete.
const STORE_WAIT: Duration = Duration::from_secs(1);

type Future<T> = Pin<Box<dyn std::future::Future<Output = T> + Send>>;

/// Ids that the broker has, until their rows are deleted. It outlives the connection.
#[derive(Default)]
pub(super) struct Finished {
    ids: HashSet<i64>,
    /// Deletions that are being committed.
    deleting: FuturesUnordered<Future<Deletion>>,
    /// To be deleted, at this time, because the store would not.
    again: Vec<i64>,
    again_at: Option<Instant>,
    /// Deleted, but a read that began before may still show them.
    lingering: Vec<i64>,
}

/// See [`Finished::next`].
pub(super) enum Deletion {
    /// Of these rows.
    Ended(Vec<i64>, Result<(), Refusal>),
    /// Those that failed are due.
    Again,
}

/// See [`Outbound::next_step`].
pub(super) enum Step {
    /// A publish is done with.
    Notice(Notice),
    /// A read has ended, or failed.
    Rows(Option<Vec<Outgoing>>),
    /// The store may be asked again.
    Ready,
}

/// What became of a publish: its key, as [`Parcel::key`].
pub(super) type Notice = (i64, Result<(), PublishNoticeError>);

/// A message on its way out.
pub(super) enum Parcel {
    /// Of the lane.
    Row(Outgoing),
    /// Without a row, under a number that no row has.
    Relay(i64, Relay),
}

impl Parcel {
    /// What it is known under: the id of its row, or a negative number.
    pub(super) fn key(&self) -> i64 {
        match self {
            Self::Row(outgoing) => outgoing.id,
            Self::Relay(key, _) => *key,
        }
    }

    pub(super) fn message(&self) -> &Arc<Message> {
        match self {
            Self::Row(outgoing) => &outgoing.message,
            Self::Relay(_, relay) => &relay.message,
        }
    }

    /// The broker has it, or never will.
    pub(super) fn finish(self, finished: &mut Finished, lane: &dyn Lane) {
        match self {
            Self::Row(outgoing) => finished.add(outgoing.id, lane),
            Self::Relay(_, relay) => relay.arrived(),
        }
    }
}

/// The publishes of one connection.
pub(super) struct Outbound {
    max_inflight: usize,
    /// With the time when each was sent.
    in_flight: HashMap<i64, (Instant, Parcel)>,
    notices: FuturesUnordered<Future<Notice>>,
    backlog: VecDeque<Outgoing>,
    relays: VecDeque<Relay>,
    /// What the next message without a row is known under.
    next_key: i64,
    reading: Option<oneshot::Receiver<Vec<Outgoing>>>,
    limit: usize,
    /// There may be rows that have not been read.
    hungry: bool,
    /// The store could not be read: not before this.
    not_before: Option<Instant>,
}

impl Finished {
    /// The broker has this one.
    pub(super) fn add(&mut self, id: i64, lane: &dyn Lane) {
        self.ids.insert(id);
        self.delete(vec![id], lane);
    }

    fn delete(&mut self, ids: Vec<i64>, lane: &dyn Lane) {
        let settled = lane.done(ids.clone());
        self.deleting.push(Box::pin(async move {
            let result = match settled {
                Settled::Done => Ok(()),
                Settled::Waiting(receiver) => receiver.await.unwrap_or(Err(Refusal::Unavailable)),
            };
            Deletion::Ended(ids, result)
        }));
    }

    /// The end of a deletion, or the time to try one again. Cancel safe.
    pub(super) async fn next(&mut self) -> Deletion {
        let again_at = self.again_at;
        tokio::select! {
            Some(deletion) = self.deleting.next() => deletion,
            () = tokio::time::sleep_until(again_at.unwrap_or_else(Instant::now)), if again_at.is_some() => Deletion::Again,
            else => std::future::pending().await,
        }
    }

    /// Takes note of [`Finished::next`]. `reading`: a read has begun that may still show what is deleted.
    pub(super) fn note(&mut self, deletion: Deletion, reading: bool, lane: &dyn Lane) {
        match deletion {
            Deletion::Ended(ids, Ok(())) if reading => self.lingering.extend(ids),
            Deletion::Ended(ids, Ok(())) => self.forget(ids),
            Deletion::Ended(ids, Err(_)) => {
                self.again.extend(ids);
                self.again_at.get_or_insert_with(|| Instant::now() + STORE_WAIT);
            }
            Deletion::Again => {
                self.again_at = None;
                let ids = std::mem::take(&mut self.again);
                self.delete(ids, lane);
            }
        }
    }

    fn forget(&mut self, ids: Vec<i64>) {
        for id in ids {
            self.ids.remove(&id);
        }
    }
}

impl Outbound {
    pub(super) fn new(max_inflight: u16) -> Self {
        Self {
            max_inflight: usize::from(max_inflight),
            in_flight: HashMap::new(),
            notices: FuturesUnordered::new(),
            backlog: VecDeque::new(),
            relays: VecDeque::new(),
            next_key: -1,
            reading: None,
            limit: 0,
            hungry: true,
            not_before: None,
        }
    }

    /// There is something new in the lane.
    pub(super) fn look(&mut self) {
        self.hungry = true;
    }

    /// The broker takes fewer than we would send.
    pub(super) fn limit(&mut self, max_inflight: u16) {
        self.max_inflight = self.max_inflight.min(usize::from(max_inflight.max(1)));
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// When the oldest publish without an answer was sent.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.in_flight.values().map(|(since, _)| *since).min()
    }

    /// Whether a read has begun and not ended.
    pub(super) fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// Messages without a row.
    pub(super) fn add(&mut self, relays: impl IntoIterator<Item = Relay>) {
        self.relays.extend(relays);
    }

    /// The next message to send, if there is room for it. Begins a read when there is nothing left.
    /// One that is `stopping` leaves the lane alone; messages without a row go out, for acknowledgements hang on them.
    pub(super) fn next(&mut self, stopping: bool, finished: &Finished, lane: &dyn Lane) -> Option<Parcel> {
        if stopping && (self.hungry || self.reading.is_some() || !self.backlog.is_empty()) {
            // They must not pass the rows that stay, and become rows behind them.
            self.relays.clear();
            return None;
        }
        if self.in_flight.len() >= self.max_inflight || finished.ids.len() >= MAX_FINISHED {
            return None;
        }
        if let Some(row) = self.backlog.pop_front() {
            return Some(Parcel::Row(row));
        }
        let ready = self.not_before.is_none_or(|at| at <= Instant::now());
        if self.hungry && ready && self.reading.is_none() {
            self.hungry = false;
            self.not_before = None;
            self.limit = self.in_flight.len() + finished.ids.len() + BATCH;
            self.reading = Some(lane.read(self.limit));
        }
        if self.hungry || self.reading.is_some() {
            return None;
        }
        let relay = self.relays.pop_front()?;
        self.next_key -= 1;
        Some(Parcel::Relay(self.next_key, relay))
    }

    /// It did not go out: it is the next one again.
    pub(super) fn put_back(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::Row(row) => self.backlog.push_front(row),
            Parcel::Relay(_, relay) => self.relays.push_front(relay),
        }
    }

    /// It has been handed to the client library.
    pub(super) fn sent(&mut self, parcel: Parcel, notice: PublishNotice) {
        let key = parcel.key();
        self.in_flight.insert(key, (Instant::now(), parcel));
        self.notices.push(Box::pin(async move { (key, notice.wait_completion_async().await) }));
    }

    /// What happens next. Cancel safe.
    pub(super) async fn next_step(&mut self) -> Step {
        let not_before = self.not_before.filter(|at| self.hungry && *at > Instant::now());
        let reading = async {
            match &mut self.reading {
                Some(receiver) => receiver.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(notice) = self.notices.next() => Step::Notice(notice),
            rows = reading => Step::Rows(rows.ok()),
            () = tokio::time::sleep_until(not_before.unwrap_or_else(Instant::now)), if not_before.is_some() => Step::Ready,
        }
    }

    /// A publish has its answer.
    pub(super) fn answered(&mut self, key: i64) -> Option<Parcel> {
        self.in_flight.remove(&key).map(|(_, parcel)| parcel)
    }

    /// Takes what was read. `None`: it could not be read.
    pub(super) fn read(&mut self, rows: Option<Vec<Outgoing>>, finished: &mut Finished) {
        self.reading = None;
        match rows {
            Some(rows) => {
                self.hungry |= rows.len() >= self.limit;
                let fresh = |row: &Outgoing| !self.in_flight.contains_key(&row.id) && !finished.ids.contains(&row.id);
                self.backlog.extend(rows.into_iter().filter(fresh));
            }
            None => {
                self.hungry = true;
                self.not_before = Some(Instant::now() + STORE_WAIT);
            }
        }
        let lingering = std::mem::take(&mut finished.lingering);
        finished.forget(lingering);
    }
}
