//! The node as a client of somebody else's broker.
//!
//! # What it guarantees
//!
//! A message is acknowledged to the broker only after [`Backend::publish`] has settled it, in the order in which the
//! messages came. A message of the [`Lane`] is done with only when the broker has acknowledged it. The client library
//! is trusted with nothing that must last: whatever ends a connection, its state is thrown away, the broker sends again
//! what it has no acknowledgement for, and what is still in the lane is published again under the same `holm-id`.
//!
//! # How it works
//!
//! One task ([`ExternalClient::run`]) makes connections, one after the other ([`link`]). The session at the broker
//! outlives them (`clean_start = false` and an expiry), so that messages of QoS 1 and 2 wait there for a node that is
//! away. Inbound packet ids of QoS 2 are recorded with their settlement, under the client [`SESSION`], until PUBREL; so
//! are the subscriptions, for that is how a node that comes back knows what to unsubscribe. A connection that is lost
//! is followed by the next only when it is known what of its QoS 2 messages is committed.
//!
//! # How it fails
//!
//! - A broker that is not there, or refuses: tried again for ever, after a random part of a wait that doubles from
//!   [`FIRST_WAIT`] to [`LAST_WAIT`].
//! - A broker that does not answer: the library misses a ping, or we an acknowledgement ([`link::ACK_DEADLINE`]).
//! - A broker that refuses a message for good (not authorised, too large): the message is dropped from the lane, counted
//!   and logged as an error, for it would hold up all that are behind it.
//! - A message of QoS 1 without a `holm-id` whose acknowledgement was lost is handled twice. Packet ids are no help
//!   there: brokers use them again, and taking a new message for an old one would lose it.
//! - An external broker does not say who published. So a `holm-id` must be unique on its topic, whoever sends there: two
//!   publishers that both count from 1 look like one that repeats itself.
//! - Subscriptions that overlap in part may bring a message twice, if the broker sends a copy for each.

mod cork;
mod inbound;
mod link;
mod outbound;
mod relay;
mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use holm_core::{ClientId, Message, Qos, SessionWrite, StoredBroker, TopicFilter};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::{Backend, Clock, Settled};
use link::{End, Link};
use relay::Relay;

pub use relay::Relayed;

/// Under this name the store keeps what must be known about our session at the broker. It is nobody's client id: the
/// embedded broker has to leave it out when it is restored ([`leave_out`]).
const SESSION: &str = "$external";

/// Who published what an external broker delivers: it does not say.
const PUBLISHER: &str = "external";

/// The bounds of the wait between two attempts to connect.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// See [`FIRST_WAIT`].
const LAST_WAIT: Duration = Duration::from_secs(60);

/// A connection that lived this long makes the next wait a short one again.
const STABLE: Duration = Duration::from_secs(10);

/// Messages without a row that wait for the connection, of QoS 0 and of the others; beyond, the former are dropped and
/// counted, and the latter get a row. What events cause that may be unacknowledged at a time, with some to spare.
const WAITING: usize = 2 * inbound::RECEIVE_MAXIMUM as usize;

/// Everything the client is made from.
#[derive(Clone)]
pub struct ExternalConfig {
    /// The broker: a name or address, and a port.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Ours, for the broker. The session there belongs to it.
    pub client_id: String,
    /// User name and password.
    pub credentials: Option<(String, Bytes)>,
    /// TLS, with the certificates to trust and, where the broker asks for one, our own.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Publishes on their way to the broker at a time.
    pub max_inflight: u16,
    /// A ping is sent after this much silence; a broker that has not answered by the next one is gone. Whole seconds.
    pub keep_alive: Duration,
    /// How long the broker keeps our session while we are away. Whole seconds.
    pub session_expiry: Duration,
    /// The largest packet the broker may send, in bytes.
    pub max_packet: u32,
}

/// A message that waits for the broker.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Its row.
    pub id: i64,
    /// What. QoS 1 or 2, and with a `holm-id`.
    pub message: Arc<Message>,
}

/// Where messages wait until the broker has them. The agent implements it over its store, and so do test doubles.
pub trait Lane: Send + Sync + 'static {
    /// The oldest rows, at most `limit`, in order. A sender that is dropped means that they cannot be read now. Must
    /// not block.
    fn read(&self, limit: usize) -> oneshot::Receiver<Vec<Outgoing>>;

    /// The broker has these: they are to be forgotten. Must not block.
    fn done(&self, ids: Vec<i64>) -> Settled;
}

/// A subscription that the node needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The pattern.
    pub filter: TopicFilter,
    /// The most to be sent with.
    pub qos: Qos,
    /// Whether to be sent what was retained before.
    pub retained: bool,
}

/// How the link stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkStatus {
    /// Whether the broker has accepted the connection.
    pub connected: bool,
    /// Connections since start.
    pub connections: u64,
    /// Why the last one ended, or could not be made.
    pub last_error: Option<String>,
    /// Publishes on their way.
    pub in_flight: usize,
    /// Messages from the broker since start.
    pub messages_in: u64,
    /// Messages to the broker since start.
    pub messages_out: u64,
    /// QoS 0 messages that found no connection, or no room.
    pub dropped: u64,
    /// Messages that the broker will not have, and that were given up.
    pub refused: u64,
}

/// What the handle and the task share.
struct Shared {
    config: ExternalConfig,
    clock: Clock,
    /// There is something in `waiting`.
    news: Notify,
    waiting: Mutex<Waiting>,
    /// Whoever counts here tells the news when it is done.
    holding: AtomicUsize,
    /// Commits to the lane that are on their way.
    places: AtomicUsize,
    wanted: watch::Sender<Arc<[Wanted]>>,
    connected: AtomicBool,
    connections: AtomicU64,
    messages_in: AtomicU64,
    messages_out: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
    in_flight: AtomicU64,
    last_error: Mutex<Option<String>>,
}

/// What the connection has not taken yet.
#[derive(Default)]
struct Waiting {
    /// The lane may have rows that were not read.
    rows: bool,
    /// Of QoS 0.
    volatile: Vec<Arc<Message>>,
    /// Of QoS 1 and 2, without rows.
    relays: Vec<Relay>,
}

impl Shared {
    fn tell(&self) {
        if self.holding.load(Ordering::SeqCst) == 0 {
            self.news.notify_one();
        }
    }
}

/// A handle on the client. Cheap to clone; every method may be called from any thread, and none blocks.
#[derive(Clone)]
pub struct External {
    shared: Arc<Shared>,
}

impl External {
    /// For messages that are about to be committed to the lane.
    pub fn place(&self) -> Place {
        self.shared.places.fetch_add(1, Ordering::Relaxed);
        Place(self.shared.clone())
    }

    /// Whether messages that are in no lane may go out now without passing others: nobody has a place.
    pub fn may_relay(&self) -> bool {
        self.shared.connected.load(Ordering::Relaxed) && self.shared.places.load(Ordering::Acquire) == 0
    }

    /// Publishes messages of QoS 1 and 2 that are in no lane, behind those that are in the lane now. `done` is told, on
    /// any thread, when the broker has all of them, or which of them have to be kept after all: there is no connection,
    /// it was lost, or more are waiting than there is room for.
    pub fn relay(&self, messages: Vec<Arc<Message>>, done: Relayed) {
        let relays = Relay::set(messages, done);
        if !self.shared.connected.load(Ordering::Relaxed) {
            // One that is dropped has failed.
            return;
        }
        let mut waiting = lock(&self.shared.waiting);
        if waiting.relays.len() + relays.len() <= WAITING {
            waiting.relays.extend(relays);
            drop(waiting);
            self.shared.tell();
        } else {
            // What is told of them is not to be told under the lock.
            drop(waiting);
            drop(relays);
        }
    }

    /// Publishes with QoS 0: now, or never.
    pub fn send(&self, message: Arc<Message>) {
        if self.shared.connected.load(Ordering::Relaxed) {
            let mut waiting = lock(&self.shared.waiting);
            if waiting.volatile.len() < WAITING {
                waiting.volatile.push(message);
                drop(waiting);
                return self.shared.tell();
            }
        }
        self.shared.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// While it lives, the connection is not woken for every message, but once, when it is dropped.
    pub fn hold(&self) -> Hold {
        self.shared.holding.fetch_add(1, Ordering::SeqCst);
        Hold(self.shared.clone())
    }

    /// Replaces what the node listens to. Filters that others cover are left out, because a broker may send a message
    /// once for each that matches.
    pub fn subscribe(&self, wanted: Vec<Wanted>) {
        let reduced: Arc<[Wanted]> = reduce(wanted).into();
        self.shared.wanted.send_if_modified(|now| {
            let changed = *now != reduced;
            *now = reduced;
            changed
        });
    }

    /// Where the broker is.
    pub fn address(&self) -> String {
        wire::address(&self.shared.config.host, self.shared.config.port)
    }

    /// How things stand.
    pub fn status(&self) -> LinkStatus {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LinkStatus {
            connected: self.shared.connected.load(Ordering::Relaxed),
            connections: load(&self.shared.connections),
            last_error: lock(&self.shared.last_error).clone(),
            in_flight: usize::try_from(load(&self.shared.in_flight)).unwrap_or(usize::MAX),
            messages_in: load(&self.shared.messages_in),
            messages_out: load(&self.shared.messages_out),
            dropped: load(&self.shared.dropped),
            refused: load(&self.shared.refused),
        }
    }
}

/// See [`External::place`]. To be dropped after the commit, or when there will be none: then the lane is looked at.
pub struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        // In this order: whoever finds no places left finds that there are rows to be read first.
        lock(&self.0.waiting).rows = true;
        self.0.places.fetch_sub(1, Ordering::Release);
        self.0.tell();
    }
}

/// See [`External::hold`].
pub struct Hold(Arc<Shared>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.holding.fetch_sub(1, Ordering::SeqCst);
        // Whatever others hold: it may be ours.
        let waiting = lock(&self.0.waiting);
        let news = waiting.rows || !waiting.volatile.is_empty() || !waiting.relays.is_empty();
        drop(waiting);
        if news {
            self.0.news.notify_one();
        }
    }
}

impl std::fmt::Debug for External {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("External").field("status", &self.status()).finish_non_exhaustive()
    }
}

/// The task behind the handle.
pub struct ExternalClient {
    shared: Arc<Shared>,
    memory: Memory,
}

/// What outlives a connection.
#[derive(Default)]
struct Memory {
    /// Whether the store has a record of the session.
    opened: bool,
    /// Filters that our session at the broker may hold.
    held: BTreeSet<TopicFilter>,
    /// Inbound QoS 2 messages that are settled and not released, with their digests.
    unreleased: HashMap<u16, u64>,
    /// Publishes that the broker has, and whose rows are not deleted yet.
    finished: outbound::Finished,
}

impl ExternalClient {
    /// A client that is not connected, with what `restored` remembers of its session at the broker.
    pub fn new(config: ExternalConfig, restored: &StoredBroker, clock: Clock) -> (External, Self) {
        let mut memory = Memory::default();
        if let Some(session) = restored.sessions.iter().find(|session| &*session.client.0 == SESSION) {
            memory.opened = true;
            memory.held = session.subscriptions.iter().map(|subscription| subscription.filter.clone()).collect();
            memory.unreleased = session.received.iter().map(|id| (id.packet_id, id.digest)).collect();
        }
        let shared = Arc::new(Shared {
            config,
            clock,
            news: Notify::new(),
            waiting: Mutex::default(),
            holding: AtomicUsize::new(0),
            places: AtomicUsize::new(0),
            wanted: watch::Sender::new(Vec::new().into()),
            connected: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            messages_in: AtomicU64::new(0),
            messages_out: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            last_error: Mutex::default(),
        });
        (External { shared: shared.clone() }, Self { shared, memory })
    }

    /// Keeps the node connected until `shutdown`, then acknowledges what settles in a short while and takes its leave.
    /// Not cancel safe, but nothing is lost by cancelling.
    pub async fn run(mut self, backend: Arc<dyn Backend>, lane: Arc<dyn Lane>, mut shutdown: watch::Receiver<bool>) {
        if !self.memory.opened {
            // Nobody waits for it: it is queued before the first packet id.
            drop(backend.persist(vec![SessionWrite::Open { client: session(), expiry_seconds: None }]));
        }
        let mut longest = FIRST_WAIT;
        while !*shutdown.borrow() {
            let begun = Instant::now();
            let link = Link::new(&self.shared, &mut self.memory, &*backend, &*lane);
            let end = link.run(&mut shutdown).await;
            self.shared.connected.store(false, Ordering::Relaxed);
            self.shared.in_flight.store(0, Ordering::Relaxed);
            // What was meant for the connection that is gone.
            let waiting = std::mem::take(&mut *lock(&self.shared.waiting));
            self.shared.dropped.fetch_add(waiting.volatile.len() as u64, Ordering::Relaxed);
            drop(waiting);
            let End::Lost { error, established } = end else { return };
            if established && begun.elapsed() >= STABLE {
                longest = FIRST_WAIT;
            }
            let wait = longest.mul_f64(rand::random_range(0.05..=1.0));
            if established {
                tracing::warn!(error, ?wait, "the connection to the external broker is lost");
            } else if lock(&self.shared.last_error).as_deref() != Some(&*error) {
                // Once for each cause: a broker may be away for days.
                tracing::warn!(error, "cannot connect to the external broker; trying again");
            }
            *lock(&self.shared.last_error) = Some(error);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = shutdown.changed() => return,
            }
            longest = (longest * 2).min(LAST_WAIT);
        }
    }
}

/// Takes the client's own record out of what the embedded broker is restored from.
pub fn leave_out(restored: &mut StoredBroker) {
    restored.sessions.retain(|session| &*session.client.0 != SESSION);
}

fn session() -> ClientId {
    ClientId(SESSION.into())
}

/// One entry for each filter, without those that another one covers.
fn reduce(wanted: Vec<Wanted>) -> Vec<Wanted> {
    let mut merged: BTreeMap<TopicFilter, Wanted> = BTreeMap::new();
    for one in wanted {
        match merged.get_mut(&one.filter) {
            Some(same) => same.add(&one),
            None => drop(merged.insert(one.filter.clone(), one)),
        }
    }
    let all: Vec<Wanted> = merged.into_values().collect();
    let covered = |one: &Wanted| all.iter().any(|other| other.filter != one.filter && other.filter.covers(&one.filter));
    let mut widest: Vec<Wanted> = all.iter().filter(|one| !covered(one)).cloned().collect();
    for one in all.iter().filter(|one| covered(one)) {
        if let Some(wide) = widest.iter_mut().find(|wide| wide.filter.covers(&one.filter)) {
            wide.add(one);
        }
    }
    widest
}

impl Wanted {
    fn add(&mut self, other: &Self) {
        if other.qos.level() > self.qos.level() {
            self.qos = other.qos;
        }
        self.retained |= other.retained;
    }
}

/// No code here panics while it holds a lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn wanted(filter: &str, qos: Qos, retained: bool) -> Wanted {
        Wanted { filter: TopicFilter::new(filter).unwrap(), qos, retained }
    }

    #[test]
    fn filters_that_others_cover_are_left_out_and_their_wishes_are_not() {
        let reduced = reduce(vec![
            wanted("a/b", Qos::ExactlyOnce, false),
            wanted("a/+", Qos::AtLeastOnce, false),
            wanted("a/c", Qos::AtMostOnce, true),
            wanted("x/#", Qos::AtMostOnce, false),
            wanted("x/#", Qos::AtLeastOnce, false),
        ]);
        assert_eq!(reduced, [wanted("a/+", Qos::ExactlyOnce, true), wanted("x/#", Qos::AtLeastOnce, false)]);
    }
}
