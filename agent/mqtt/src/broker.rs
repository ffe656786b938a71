//! The broker's handle: planning and delivering messages, from any thread.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holm_core::{ClientId, ClockReading, JumpWatch, Message, SessionWrite, StoredBroker, Timestamp, TopicFilter};
use tokio::sync::Notify;

use crate::access::Gate;
use crate::config::BrokerConfig;
use crate::retained::Word;
use crate::session::Leave;
use crate::state::{State, Target};

/// Tells the time. Message expiry, session expiry and delayed wills follow it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Who gets a message, worked out before it is committed and carried out after.
#[derive(Debug, Default)]
pub struct Plan {
    /// To be committed before the plan is delivered. The taker may move them out; [`Broker::deliver`] does not look.
    pub writes: Vec<SessionWrite>,
    pub(crate) targets: Vec<Target>,
    pub(crate) retain: Option<Word>,
    /// The state's count of subscriptions at the time.
    pub(crate) subscribed: u64,
}

impl Plan {
    /// Whether delivering it would do nothing: nobody listens and nothing is retained.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.retain.is_none()
    }
}

/// Figures for the health page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BrokerStats {
    /// Open sockets.
    pub connections: usize,
    /// Clients that are connected.
    pub clients: usize,
    /// Sessions, of connected clients and others.
    pub sessions: usize,
    /// QoS 1 and 2 messages that are not yet with their clients.
    pub queued_messages: usize,
    /// Bytes in queues and in the express lanes of QoS 0; a message counts for every session it waits in.
    pub queued_bytes: usize,
    /// Retained messages.
    pub retained: usize,
    /// Their bytes.
    pub retained_bytes: usize,
    /// Messages planned since start: from clients and from the node.
    pub messages_in: u64,
    /// Messages written to clients since start.
    pub messages_out: u64,
    /// Messages that a subscriber should have had, or a topic should have retained, and that a limit, their expiry or
    /// an ACL on QoS 0 kept from it.
    pub dropped: u64,
    /// Connections whose task panicked. Each is a bug, and cost one connection.
    pub panics: usize,
}

/// A handle on the broker. Cheap to clone; every method may be called from any thread and none blocks for long.
#[derive(Clone)]
pub struct Broker {
    pub(crate) shared: Arc<Shared>,
}

/// What connections share.
pub(crate) struct Shared {
    pub(crate) config: Arc<BrokerConfig>,
    pub(crate) gate: Gate,
    pub(crate) clock: Clock,
    /// Wakes the keeper for loose writes.
    pub(crate) keeper: Notify,
    pub(crate) sockets: AtomicUsize,
    pub(crate) panics: AtomicUsize,
    state: Mutex<State>,
    /// `None` without a clock that nobody sets.
    hands: Option<Mutex<JumpWatch>>,
}

impl Shared {
    /// The state. A panic in another thread that held it is survived: every change below leaves maps that are whole,
    /// at worst a message short.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Dates anew what was written before the time of day was set, if it was. Before anything expires by it.
    pub(crate) fn catch_jump(&self, state: &mut State) {
        let (Some(uptime), Some(hands)) = (self.config.uptime, &self.hands) else { return };
        let mut hands = hands.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(jump) = hands.jump(ClockReading { wall: self.now().0, uptime: uptime() }) {
            state.shift(&jump);
            hands.settle(&jump);
            // The store has to hear of it before a client has what was waiting for it.
            self.keeper.notify_one();
        }
    }

    /// Carries out a plan; see [`Broker::deliver`].
    pub(crate) fn deliver(&self, plan: Plan) {
        if plan.is_empty() {
            return;
        }
        let mut state = self.lock();
        state.deliver(plan);
        if !state.loose.is_empty() || state.retained.is_stale() {
            self.keeper.notify_one();
        }
    }
}

impl Broker {
    /// A broker with the sessions and retained messages of its last run. Subscriptions in `restored` work from here
    /// on, before anybody connects.
    pub fn new(config: BrokerConfig, restored: StoredBroker, clock: Clock) -> Self {
        let config = Arc::new(config);
        let state = State::new(restored, config.limits.clone(), clock());
        let gate = Gate::new(config.clone());
        let hands =
            config.uptime.map(|uptime| Mutex::new(JumpWatch::new(ClockReading { wall: clock().0, uptime: uptime() })));
        let shared = Shared {
            config,
            gate,
            clock,
            keeper: Notify::new(),
            sockets: AtomicUsize::new(0),
            panics: AtomicUsize::new(0),
            state: Mutex::new(state),
            hands,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Matches a message against the subscriptions without delivering it. Persistent sessions get it at QoS 1 and 2
    /// under a sequence, written down in [`Plan::writes`]; so is the retained message.
    ///
    /// A plan that is dropped instead of delivered leaves a gap in the sequences, and does no harm. Until one or the
    /// other, it holds its room in the queues of persistent sessions and among the retained messages.
    pub fn plan(&self, message: Arc<Message>) -> Plan {
        self.shared.lock().plan(message)
    }

    /// Hands a planned message to its sessions and wakes their connections. Call it after [`Plan::writes`] are
    /// committed. Sessions that ended since are skipped, and what was written for them is taken back.
    pub fn deliver(&self, plan: Plan) {
        self.shared.deliver(plan);
    }

    /// The retained messages that a new subscription to `filter` would get.
    pub fn retained(&self, filter: &TopicFilter) -> Vec<Arc<Message>> {
        let now = self.shared.now();
        self.shared.lock().retained.matching(filter, now)
    }

    /// Ends the connection of a client: MQTT 5 clients are told that it was an administrative action. What they have sent
    /// and is being settled is settled. Answers whether there was one. It does not keep the client from coming back: who is
    /// let in is up to [`crate::Identity`], which has to know first.
    pub fn kick(&self, client: &ClientId) -> bool {
        let state = self.shared.lock();
        let link = state.link(client);
        if let Some(link) = link {
            link.ask(Leave::Kicked);
        }
        link.is_some()
    }

    /// Whether a client has a connection.
    pub fn is_connected(&self, client: &ClientId) -> bool {
        self.shared.lock().link(client).is_some()
    }

    /// Where the broker stands.
    pub fn stats(&self) -> BrokerStats {
        let state = self.shared.lock();
        let mut stats = BrokerStats {
            connections: self.shared.sockets.load(Ordering::Relaxed),
            clients: state.connected,
            sessions: state.sessions.len(),
            retained: state.retained.len(),
            retained_bytes: state.retained.bytes(),
            messages_in: state.messages_in,
            messages_out: state.messages_out,
            dropped: state.dropped,
            panics: self.shared.panics.load(Ordering::Relaxed),
            ..BrokerStats::default()
        };
        for session in state.sessions.values() {
            stats.queued_messages += session.outbound.held();
            stats.queued_bytes += session.outbound.bytes();
        }
        stats
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
