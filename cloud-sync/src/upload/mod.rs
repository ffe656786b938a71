//! Records on their way up: which, when, and how long they are kept.
//!
//! # What it guarantees
//!
//! - A row is deleted only when the control plane's watermark has passed it. No PUBACK deletes anything.
//! - Of each stream, everything goes up in order and without holes: rows, and gap records for what is gone.
//! - What the control plane has had before this process sent it is held against that, batch by batch, before a row is deleted.
//! - Memory does not grow with the backlog: at most [`WINDOW`] batches are on their way, of which nothing is kept but their numbers,
//!   and one is being made.
//!
//! # How it works
//!
//! [`Upload`] holds no socket and starts nothing: the link asks it what to read ([`Upload::request`]), has that read on a thread
//! that may block ([`pick`]), sends what comes of it, and tells it what happened. So does it with acknowledgements ([`settle`]).
//!
//! A lane rests until a row comes, lingers so that more may join it, and is then flushed up to the row that was its last one when the
//! flush began. A full batch's worth of new rows ends the lingering early. After a connect every lane is flushed: that is the
//! backlog.
//!
//! The first batch of a stream that a process sends goes alone. A watermark beyond it says that the control plane has more than that: what an
//! earlier process has sent and was not told of, or what a database that was restored has not. So that batch is settled, and no more, and
//! the next one goes alone as well.
//!
//! # Who goes first
//!
//! Alarms, but at most every other batch while others wait; then four of results to one of logs.
//!
//! # How it fails
//!
//! A batch without a watermark for [`Settings::ack_timeout`] is sent again, and everything behind it: read anew from the disk. From then
//! on, one batch is sent at a time, with waits that double up to [`LONGEST_WAIT`], until an acknowledgement comes. After
//! [`PATIENCE`] of them the connection is made anew.
//!
//! A database out of a backup is noticed by what the control plane has under its numbers. Then nothing more is read until all that is on
//! its way has been told of; after that everything that is left goes up in a new epoch. What was stored without our knowing it is among
//! that: it keeps its number, by which the control plane knows it.

mod pick;
mod settle;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holm_core::Timestamp;
use holm_protocol::{Ack, Refusal, RefusalReason, StreamName, ThingName};
use holm_store::{Lane, Outbox};
use tokio::time::Instant;

pub(crate) use pick::{Picked, Ready, Request, pick};
pub(crate) use settle::{Settled, Verdicts, settle};

/// Batches on their way.
const WINDOW: usize = 8;

/// The longest wait for an acknowledgement before a batch is sent again.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// So many waits in vain, one after the other, and the connection is not believed any more.
const PATIENCE: u32 = 3;

/// After a failure of the store.
const STORE_WAIT: Duration = Duration::from_secs(5);

/// New rows that are not waited with: a full batch.
const FULL: u64 = 500;

/// Streams that the control plane cannot take yet, until the next connection. Beyond it, nothing is sent.
const MAX_BLOCKED: usize = 4_096;

/// How long rows of a lane wait for others.
fn linger(lane: Lane, hurried: Option<Instant>, now: Instant) -> Duration {
    match lane {
        Lane::Logs if hurried.is_some_and(|until| now < until) => LIVE,
        Lane::Alarms => Duration::from_millis(200),
        Lane::Results => Duration::from_secs(5),
        Lane::Logs => Duration::from_secs(60),
    }
}

/// How long log rows wait for others while somebody looks.
const LIVE: Duration = Duration::from_millis(300);

/// For so long somebody who has asked for something is taken to look.
const LOOKS: Duration = Duration::from_secs(60);

/// How the link is used.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes a day, by the wire, beyond which only alarms go up; none is no bound.
    pub daily_bytes: Option<u64>,
    /// A ping is sent after this much silence.
    pub keep_alive: Duration,
    /// A batch that was not acknowledged for this long is sent again, and a server that does not answer for this long is gone.
    pub ack_timeout: Duration,
    /// How long functions may have an update wait, all together.
    pub defer: Duration,
}

/// What one lane does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LaneState {
    /// Nothing waits beyond what was committed when the count was this.
    Resting { seen: u64 },
    /// Rows wait for others.
    Lingering { until: Instant, seen: u64 },
    /// Rows go up. `looked` is the last row that need not be looked at again, `upto` the last one of this flush, where that is known.
    Flushing { looked: i64, upto: Option<i64>, seen: u64 },
}

/// A batch on its way.
#[derive(Debug, Clone)]
struct Flight {
    lane: Lane,
    stream: StreamName,
    first: u64,
    last: u64,
    records: u64,
    due: Instant,
    /// The highest watermark that was told since it was sent.
    told: Option<u64>,
    /// A watermark has passed it, and it is being deleted.
    done: bool,
}

/// What was sent of a stream.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    last: u64,
    /// The control plane has said that it has no more than that.
    is_all: bool,
}

/// Figures since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct UploadStats {
    /// Batches that were sent, again or for the first time.
    pub batches: u64,
    /// Records that the control plane has stored.
    pub acknowledged: u64,
    /// Times that something was sent again because nobody had acknowledged it.
    pub resends: u64,
    /// Records that no batch can hold; gap records tell of them.
    pub too_large: u64,
    /// Streams that were discarded because of their names.
    pub unsendable: u64,
    /// Batches that the control plane will never take; gap records tell of them.
    pub refused: u64,
    /// Epochs that were begun because the control plane knew more than the database.
    pub epochs: u64,
}

/// See the module.
pub(crate) struct Upload {
    thing: ThingName,
    outbox: Outbox,
    ack_timeout: Duration,
    lanes: [LaneState; 3],
    /// Of each stream that anything was sent of, in this life of the process and of the database.
    sent: BTreeMap<StreamName, Sent>,
    /// Lanes that are to be looked through from their begin, before anything more is read.
    again: [bool; 3],
    flights: Vec<Flight>,
    /// The life of the database, as it was last read.
    epoch: Option<String>,
    /// Rises when what is being read or settled is not worth anything any more.
    generation: u64,
    reading: bool,
    settling: bool,
    /// Not before, after the store failed.
    pause: Option<Instant>,
    verdicts: Verdicts,
    /// Where to begin, for streams of which the control plane has less than we have.
    mend: BTreeMap<String, i64>,
    blocked: BTreeSet<String>,
    /// Waits in vain, one after the other. Outlives connections.
    timeouts: u32,
    /// The same, in this connection.
    vain: u32,
    alarm_went: bool,
    results_went: u32,
    epoch_begun: bool,
    /// The control plane has what this database never had.
    old_copy: bool,
    /// Until then somebody looks at what comes in the log lane.
    hurried: Option<Instant>,
    pub(crate) stats: UploadStats,
}

impl Upload {
    pub(crate) fn new(thing: ThingName, outbox: Outbox, settings: &Settings) -> Self {
        Self {
            thing,
            outbox,
            ack_timeout: settings.ack_timeout,
            lanes: [LaneState::Resting { seen: 0 }; 3],
            sent: BTreeMap::new(),
            again: [false; 3],
            flights: Vec::new(),
            epoch: None,
            generation: 0,
            reading: false,
            settling: false,
            pause: None,
            verdicts: Verdicts::default(),
            mend: BTreeMap::new(),
            blocked: BTreeSet::new(),
            timeouts: 0,
            vain: 0,
            alarm_went: false,
            results_went: 0,
            epoch_begun: false,
            old_copy: false,
            hurried: None,
            stats: UploadStats::default(),
        }
    }

    /// There is a connection, and nothing on its way.
    pub(crate) fn connected(&mut self) {
        self.blocked.clear();
        self.vain = 0;
        self.epoch_begun = false;
        self.restart();
    }

    /// Everything that has no watermark is to be sent again.
    fn restart(&mut self) {
        self.generation += 1;
        self.flights.clear();
        self.verdicts = Verdicts::default();
        // It will be seen again.
        self.old_copy = false;
        for (state, lane) in self.lanes.iter_mut().zip(Lane::ALL) {
            *state = LaneState::Flushing { looked: 0, upto: None, seen: self.outbox.rows(lane) };
        }
    }

    /// Batches on their way.
    pub(crate) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Moves lanes on, and looks for what was not acknowledged in time. An error: this connection is of no use.
    pub(crate) fn tick(&mut self, now: Instant) -> Result<(), crate::SyncError> {
        self.pause = self.pause.filter(|until| *until > now);
        if self.flights.iter().any(|flight| !flight.done && flight.due <= now) {
            self.timeouts = self.timeouts.saturating_add(1);
            self.vain += 1;
            self.stats.resends += 1;
            tracing::warn!(
                in_flight = self.flights.len(),
                attempt = self.timeouts,
                "records were not acknowledged in time and are sent again"
            );
            for flight in &self.flights {
                // The control plane has less than we have: what lies between is gone, and it must hear that.
                if let Some(told) = flight.told.filter(|told| told + 1 < flight.first) {
                    self.mend.insert(flight.stream.to_string(), i64::try_from(told + 1).unwrap_or(i64::MAX));
                }
            }
            self.restart();
            if self.vain >= PATIENCE {
                return Err(crate::SyncError::Unacknowledged);
            }
        }
        for (state, lane) in self.lanes.iter_mut().zip(Lane::ALL) {
            *state = advance(*state, lane, &self.outbox, now, linger(lane, self.hurried, now));
        }
        Ok(())
    }

    /// Whether a batch of it is on its way, and the control plane may have more of it than this process has sent.
    fn goes_alone(&self, stream: &StreamName) -> bool {
        let known = self.sent.get(stream).is_some_and(|sent| sent.is_all);
        !known && self.flights.iter().any(|flight| flight.stream == *stream)
    }

    /// What waits behind one that went alone was passed over.
    fn look_again(&mut self, stream: &StreamName) {
        for flight in self.flights.iter().filter(|flight| flight.stream == *stream) {
            if let Some(again) = self.again.get_mut(flight.lane.number() as usize) {
                *again = true;
            }
        }
    }

    /// Somebody looks at what comes in the log lane.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.hurried = Some(now + LOOKS);
    }

    /// When [`Upload::tick`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let lanes = self.lanes.iter().filter_map(|state| match state {
            LaneState::Lingering { until, .. } => Some(*until),
            _ => None,
        });
        let acks = self.flights.iter().filter(|flight| !flight.done).map(|flight| flight.due);
        lanes.chain(acks).chain(self.pause).min()
    }

    /// What to read next; `None` while there is no room, or nothing to do. Where there is something, [`Upload::picked`] has to
    /// follow before it is asked again.
    pub(crate) fn request(&mut self, now: Instant, only_alarms: bool) -> Option<Request> {
        if self.old_copy || self.pause.is_some_and(|until| until > now) {
            return None;
        }
        let window = if self.timeouts > 0 { 1 } else { WINDOW };
        if self.reading || self.flights.len() >= window || self.blocked.len() >= MAX_BLOCKED {
            return None;
        }
        for ((state, lane), again) in self.lanes.iter_mut().zip(Lane::ALL).zip(&mut self.again) {
            if std::mem::take(again) {
                *state = LaneState::Flushing { looked: 0, upto: None, seen: self.outbox.rows(lane) };
            }
        }
        let lanes: Vec<(Lane, i64, Option<i64>)> = self
            .order()
            .into_iter()
            .filter(|lane| !only_alarms || *lane == Lane::Alarms)
            .filter_map(|lane| match self.lanes.get(lane.number() as usize) {
                Some(LaneState::Flushing { looked, upto, .. }) => Some((lane, *looked, *upto)),
                _ => None,
            })
            .collect();
        if lanes.is_empty() {
            return None;
        }
        self.reading = true;
        Some(Request {
            generation: self.generation,
            thing: self.thing.clone(),
            outbox: self.outbox.clone(),
            lanes,
            passed: self.passed(),
            mend: self.mend.clone(),
        })
    }

    /// The lanes, first to last.
    fn order(&self) -> [Lane; 3] {
        let (second, third) =
            if self.results_went >= 4 { (Lane::Logs, Lane::Results) } else { (Lane::Results, Lane::Logs) };
        if self.alarm_went { [second, third, Lane::Alarms] } else { [Lane::Alarms, second, third] }
    }

    /// Streams of which something is on its way, each with the sequence that comes next: none where that waits.
    fn passed(&self) -> BTreeMap<String, i64> {
        let mut next: BTreeMap<&str, u64> = BTreeMap::new();
        for flight in &self.flights {
            let end = next.entry(flight.stream.as_str()).or_default();
            *end = (*end).max(if self.goes_alone(&flight.stream) { u64::MAX } else { flight.last + 1 });
        }
        let flying = next.into_iter().map(|(name, end)| (name.to_owned(), i64::try_from(end).unwrap_or(i64::MAX)));
        let blocked = self.blocked.iter().map(|name| (name.clone(), i64::MAX));
        flying.chain(blocked).collect()
    }

    /// What came of a request. Answers with what is to be sent; tell [`Upload::sent`] then.
    pub(crate) fn picked(&mut self, picked: Picked, now: Instant) -> Option<Ready> {
        self.reading = false;
        self.stats.too_large += picked.too_large;
        self.stats.unsendable += picked.unsendable;
        if picked.generation != self.generation || self.old_copy {
            return None;
        }
        for (lane, looked, upto, done) in picked.lanes {
            let Some(state) = self.lanes.get_mut(lane.number() as usize) else { continue };
            if let LaneState::Flushing { seen, .. } = *state {
                *state = if done { LaneState::Resting { seen } } else { LaneState::Flushing { looked, upto, seen } };
                *state = advance(*state, lane, &self.outbox, now, linger(lane, self.hurried, now));
            }
        }
        match picked.ready {
            Ok(ready) => ready,
            Err(error) => {
                tracing::error!(error = error.chain(), "cannot read what goes up; trying again");
                self.pause = Some(now + STORE_WAIT);
                None
            }
        }
    }

    /// A batch was handed to the connection.
    pub(crate) fn sent(&mut self, ready: &Ready, now: Instant) {
        self.mend.remove(ready.header.stream.as_str());
        self.epoch = Some(ready.header.epoch.to_string());
        let sent = self.sent.entry(ready.header.stream.clone()).or_default();
        sent.last = sent.last.max(ready.header.last());
        self.stats.batches += 1;
        match ready.lane {
            Lane::Alarms => self.alarm_went = true,
            Lane::Results => (self.alarm_went, self.results_went) = (false, self.results_went + 1),
            Lane::Logs => (self.alarm_went, self.results_went) = (false, 0),
        }
        let wait = self.ack_timeout.saturating_mul(1 << self.timeouts.min(16)).min(LONGEST_WAIT.max(self.ack_timeout));
        self.flights.push(Flight {
            lane: ready.lane,
            stream: ready.header.stream.clone(),
            first: ready.header.first,
            last: ready.header.last(),
            records: ready.records,
            due: now + wait,
            told: None,
            done: false,
        });
    }

    /// What the control plane has. Epochs and streams that nobody asked about are ignored.
    pub(crate) fn acknowledged(&mut self, ack: Ack) {
        for watermark in ack.watermarks {
            if self.epoch.as_deref() != Some(watermark.epoch.to_string().as_str()) {
                continue;
            }
            let alone = self.goes_alone(&watermark.stream);
            let Some(sent) = self.sent.get_mut(&watermark.stream) else { continue };
            sent.is_all = watermark.upto <= sent.last;
            let last = sent.last;
            let mut ours = false;
            for flight in self.flights.iter_mut().filter(|flight| flight.stream == watermark.stream) {
                flight.told = flight.told.max(Some(watermark.upto));
                if watermark.upto >= flight.last {
                    flight.done = true;
                }
                ours |= watermark.upto >= flight.first;
            }
            if alone && !self.goes_alone(&watermark.stream) {
                self.look_again(&watermark.stream);
            }
            if ours {
                self.verdicts.watermark(&watermark.stream, watermark.upto.min(last), watermark.upto);
            }
        }
        for refusal in ack.refused {
            if self.epoch.as_deref() == Some(refusal.epoch.to_string().as_str()) {
                self.refused(&refusal);
            }
        }
    }

    fn refused(&mut self, refusal: &Refusal) {
        let same = |flight: &&mut Flight| {
            flight.stream == refusal.stream
                && flight.first == refusal.first
                && flight.last - flight.first + 1 == refusal.count
        };
        let Some(flight) = self.flights.iter_mut().find(same) else { return };
        let (stream, reason) = (refusal.stream.as_str(), refusal.reason.as_str());
        if refusal.reason.is_final() {
            tracing::error!(
                stream,
                first = refusal.first,
                count = refusal.count,
                reason,
                "the control plane will never take these records; a gap takes their place"
            );
            flight.done = true;
            self.verdicts.refusal(flight.lane, refusal);
            self.stats.refused += 1;
        } else if refusal.reason == RefusalReason::Conflict && !self.epoch_begun {
            self.is_old_copy(stream);
        } else {
            // Once for all of them: it would be said of each, at each connection.
            if self.blocked.is_empty() {
                tracing::error!(stream, reason, "the control plane cannot take these records yet, and perhaps others");
            }
            self.blocked.insert(stream.to_owned());
            self.flights.retain(|flight| flight.stream != refusal.stream);
        }
    }

    /// By what the control plane says of this stream.
    fn is_old_copy(&mut self, stream: &str) {
        self.old_copy = true;
        self.flights.retain(|flight| flight.stream.as_str() != stream);
    }

    /// What to settle next. Where there is something, [`Upload::settled`] has to follow before it is asked again.
    pub(crate) fn verdicts(&mut self, now: Instant) -> Option<(Outbox, Verdicts)> {
        let new_epoch = self.old_copy && self.flights.is_empty() && self.verdicts.is_empty();
        let nothing = self.verdicts.is_empty() && !new_epoch;
        if self.settling || nothing || self.pause.is_some_and(|until| until > now) {
            return None;
        }
        self.settling = true;
        let mut verdicts = std::mem::take(&mut self.verdicts);
        verdicts.generation = self.generation;
        verdicts.new_epoch = new_epoch;
        verdicts.may_begin_epoch = !self.epoch_begun;
        Some((self.outbox.clone(), verdicts))
    }

    /// What came of it. Answers whether the control plane has shown that it stores what we send.
    pub(crate) fn settled(&mut self, settled: Settled, now: Instant) -> bool {
        self.settling = false;
        let verdicts = match settled {
            Settled::Failed { error, verdicts } => {
                tracing::error!(error = error.chain(), "cannot write down what the control plane has; trying again");
                self.pause = Some(now + STORE_WAIT);
                if verdicts.generation == self.generation {
                    self.verdicts.put_back(verdicts);
                }
                return false;
            }
            Settled::NewEpoch => {
                tracing::error!(
                    "the control plane has records under these numbers that this database never had: it is an old copy, and begins a new epoch"
                );
                self.stats.epochs += 1;
                self.epoch_begun = true;
                self.sent.clear();
                self.restart();
                return false;
            }
            Settled::Done { verdicts, .. } if verdicts.generation != self.generation => return false,
            Settled::Done { verdicts, beyond } => {
                beyond.iter().for_each(|stream| self.is_old_copy(stream.as_str()));
                verdicts
            }
        };
        let mut moved = false;
        for (stream, upto) in verdicts.watermarks() {
            if self.goes_alone(stream) {
                self.look_again(stream);
            }
            for flight in self.flights.iter().filter(|flight| flight.stream == *stream && flight.last <= upto) {
                self.stats.acknowledged += flight.records;
                moved = true;
            }
            self.flights.retain(|flight| flight.stream != *stream || flight.last > upto);
        }
        if verdicts.has_refusals() {
            // What was behind a refused batch is sent again, after the gap.
            self.restart();
        }
        if moved {
            (self.timeouts, self.vain) = (0, 0);
        }
        moved
    }
}

/// A lane's next state, as far as counts and clocks tell.
fn advance(state: LaneState, lane: Lane, outbox: &Outbox, now: Instant, wait: Duration) -> LaneState {
    let rows = outbox.rows(lane);
    match state {
        LaneState::Resting { seen } => {
            if rows == seen && outbox.tell_at(lane, seen + 1) {
                return state;
            }
            let lingering = LaneState::Lingering { until: now + wait, seen };
            advance(lingering, lane, outbox, now, wait)
        }
        LaneState::Lingering { until, seen } => {
            // It may have begun to wait before somebody began to look.
            let until = until.min(now + wait);
            if now < until && rows < seen + FULL && outbox.tell_at(lane, seen + FULL) {
                return LaneState::Lingering { until, seen };
            }
            LaneState::Flushing { looked: 0, upto: None, seen: outbox.rows(lane) }
        }
        LaneState::Flushing { .. } => state,
    }
}

/// The same lane, for the protocol.
pub(crate) fn protocol_lane(lane: Lane) -> holm_protocol::Lane {
    match lane {
        Lane::Alarms => holm_protocol::Lane::Alarms,
        Lane::Results => holm_protocol::Lane::Results,
        Lane::Logs => holm_protocol::Lane::Logs,
    }
}

/// The time of day for what is written down.
pub(crate) type WallClock = fn() -> Timestamp;
