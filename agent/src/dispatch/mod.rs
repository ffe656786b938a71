//! From events to settled effects.
//!
//! # The path of an event
//!
//! [`Dispatcher::accept`] (in `ingress`) matches a message with the bindings of the active functions and gives each a
//! [`Job`]. A worker thread runs jobs of a function one after the other ([`worker`]), and settles each outcome
//! ([`settle`], and [`ticket`] for the first of an event): either at once, for volatile events, or as a transaction of the store, after which publishes leave,
//! chained functions start and the publisher gets its acknowledgement.
//!
//! # Invariants
//!
//! - A durable event is acknowledged only after a commit in which every function that matched it is done or has an
//!   inbox row ([`Ticket`]).
//! - Effects leave the node only after the commit that holds them, unless their event is volatile.
//! - An inbox row has at most one job in memory ([`Dispatcher::hold`]).
//! - Nothing here waits for a sync but guest threads that outrun the disk.

mod active;
mod ask;
mod chain;
mod feeder;
mod host;
mod ingress;
mod job;
mod run_queue;
mod settle;
mod slot;
mod street;
mod ticket;
mod worker;

pub use active::ActiveSet;
pub use ask::Answer;
pub use chain::series_stream;
pub use host::MAX_DEPTH;
pub use ingress::{Node, event_now};
pub use job::{Job, Origin, Ticket};
pub use slot::{Code, Counts, Loaded, Slot, SlotStats, Tally};
pub use street::{LocalLane, Street};
pub use worker::Worker;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use holm_core::{EventId, FunctionName, Qos};
use holm_mqtt::Refusal;
use holm_store::{DedupeKey, InboxId, StateReader, Store};
use tokio::sync::oneshot;

use crate::controls::Controls;
use crate::journal::Journal;
use crate::traps::Traps;

/// What the dispatcher is told once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// See `functions.park_after`.
    pub park_after: Duration,
    /// See `functions.max_hops`.
    pub max_hops: u8,
    /// See `functions.memory`.
    pub memory: u64,
    /// See `store.inbox_rows`.
    pub inbox_rows: u64,
    /// Whether what invocations did is kept, for people to look at.
    pub tape: bool,
    /// See `functions.record`.
    pub record: u64,
}

/// Counters since start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events given to at least one function.
    pub events: AtomicU64,
    /// Volatile events dropped because a function's queue was full or its rate spent.
    pub dropped: AtomicU64,
    /// Durable messages refused.
    pub refused: AtomicU64,
    /// Messages recognised as sent before.
    pub duplicates: AtomicU64,
    /// Publishes that were not given to functions because they came round in a loop.
    pub loops: AtomicU64,
}

/// Those who sent a message id that is being settled right now.
type Waiters = Vec<oneshot::Sender<Result<(), Refusal>>>;

/// See the module's text.
pub struct Dispatcher {
    /// Where settlements go.
    pub store: Store,
    /// Where publishes go.
    pub street: Street,
    /// What people look at.
    pub journal: Journal,
    /// Figures.
    pub counters: Counters,
    /// The board.
    pub controls: Arc<Controls>,
    /// What traps leave.
    pub traps: Traps,
    settings: Settings,
    active: RwLock<Arc<ActiveSet>>,
    run_queue: run_queue::RunQueue,
    /// For ids of events that came without one: random for this start, then counted.
    id_prefix: String,
    id_counter: AtomicU64,
    /// Message ids between their arrival and their commit.
    arriving: Mutex<HashMap<DedupeKey, Waiters>>,
    /// Looks up message ids that were committed.
    ids: Mutex<StateReader>,
    /// Inbox rows that have a job in memory.
    held: Mutex<HashSet<InboxId>>,
    /// Who waits for the answer of an event.
    asking: ask::Asking,
    /// What the feeder is told.
    signal: feeder::Signal,
    /// Bytes of linear memory that running guests may still take.
    memory: std::sync::atomic::AtomicI64,
}

impl Dispatcher {
    /// A dispatcher without functions.
    pub fn new(
        store: Store,
        street: Street,
        controls: Arc<Controls>,
        traps: Traps,
        settings: Settings,
    ) -> Result<Self, holm_store::StoreError> {
        let ids = store.reader()?;
        let memory = i64::try_from(settings.memory).unwrap_or(i64::MAX);
        Ok(Self {
            store,
            street,
            journal: Journal::new(settings.tape, usize::try_from(settings.record).unwrap_or(usize::MAX)),
            counters: Counters::default(),
            controls,
            traps,
            settings,
            active: RwLock::default(),
            run_queue: run_queue::RunQueue::default(),
            id_prefix: format!("{:08x}", rand::random::<u32>()),
            id_counter: AtomicU64::new(1),
            arriving: Mutex::default(),
            ids: Mutex::new(ids),
            held: Mutex::default(),
            asking: ask::Asking::default(),
            signal: feeder::Signal::default(),
            memory: std::sync::atomic::AtomicI64::new(memory),
        })
    }

    /// What runs now.
    pub fn active(&self) -> Arc<ActiveSet> {
        self.active.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces what runs. Jobs that wait stay with their functions' slots.
    pub fn activate(&self, set: Arc<ActiveSet>) {
        if let Street::External(external) = &self.street {
            external.subscribe(set.wanted());
        }
        *self.active.write().unwrap_or_else(PoisonError::into_inner) = set.clone();
        self.controls.activated(&set);
        self.signal.hungry();
    }

    /// Whether the inbox may take so many rows that nobody waits for.
    pub(crate) fn inbox_has_room(&self, rows: u64) -> bool {
        self.store.inbox_rows().saturating_add(rows) <= self.settings.inbox_rows
    }

    /// Something is new in the inbox.
    pub fn look(&self) {
        self.signal.hungry();
    }

    /// A fresh event id.
    pub fn new_id(&self) -> EventId {
        let number = self.id_counter.fetch_add(1, Ordering::Relaxed);
        EventId(format!("{}-{number:x}", self.id_prefix).into())
    }

    /// Gives a slot a job; see [`Slot::push`].
    fn push(&self, slot: &Arc<Slot>, job: Job) -> Result<(), Job> {
        if slot.push(job)? {
            self.run_queue.push(slot.clone());
        }
        Ok(())
    }

    /// Claims an inbox row for a job in memory. False if there is one already.
    fn hold(&self, id: InboxId) -> bool {
        lock(&self.held).insert(id)
    }

    fn release(&self, id: InboxId) {
        lock(&self.held).remove(&id);
    }

    /// Takes memory for an instance out of the node's budget.
    fn reserve(&self, bytes: u64) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let taken = self
            .memory
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| (free >= bytes).then(|| free - bytes));
        taken.is_ok()
    }

    fn unreserve(&self, bytes: u64) {
        self.memory.fetch_add(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Where all workers wait for something to run: how often there was something by then.
    pub(crate) fn at_rest(&self, workers: usize) -> Option<u64> {
        self.run_queue.at_rest(workers)
    }

    /// Whether the feeder has something to bring back that could run now.
    pub(crate) fn is_hungry(&self) -> Result<bool, holm_store::StoreError> {
        let set = self.active();
        // One that has jobs and does not run them waits for its rate, or for a row that is not due.
        let open = set.slots.values().filter(|slot| slot.is_runnable() && slot.waiting() == 0);
        let open: Vec<FunctionName> = open.map(|slot| slot.name.clone()).collect();
        if open.is_empty() {
            return Ok(false);
        }
        let due = self.store.due_of(&open, crate::clock::now(), InboxId(0), 64)?;
        let held = lock(&self.held);
        Ok(due.iter().any(|id| !held.contains(id)))
    }

    /// Workers end when the run queue is empty, and the feeder at once, parking what has not settled.
    pub fn drain(&self) {
        self.run_queue.close();
        self.signal.close();
    }

    /// The slot of an active function.
    pub fn slot(&self, name: &FunctionName) -> Option<Arc<Slot>> {
        self.active().slots.get(name).cloned()
    }
}

/// The texts of `qos`, shared, because every event carries one.
fn qos_text(qos: Qos) -> Arc<str> {
    static TEXTS: std::sync::LazyLock<[Arc<str>; 3]> =
        std::sync::LazyLock::new(|| ["0".into(), "1".into(), "2".into()]);
    let [zero, one, two] = &*TEXTS;
    match qos {
        Qos::AtMostOnce => zero.clone(),
        Qos::AtLeastOnce => one.clone(),
        Qos::ExactlyOnce => two.clone(),
    }
}

/// No code in this module panics while it holds a lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
