//! All sessions, subscriptions and retained messages: what the broker's mutex guards. Nothing here waits or does I/O;
//! what must be written is returned.

use std::collections::HashMap;
use std::sync::Arc;

use holm_core::{
    ClientId, Jump, Message, Qos, Queued, SessionWrite, StoredBroker, Subscription, Timestamp, TopicFilter, TopicTrie,
};

use crate::access::Permissions;
use crate::broker::Plan;
use crate::config::BrokerLimits;
use crate::outbound::Parcel;
use crate::packet::Will;
use crate::received::ReceivedIds;
use crate::reserve::Reservation;
use crate::retained::Retained;
use crate::session::{DelayedWill, Leave, Link, Session, SessionId, later, stored_expiry};

/// One subscription, as the trie keeps it.
#[derive(Debug, Clone)]
struct Route {
    session: SessionId,
    qos: Qos,
    no_local: bool,
    retain_as_published: bool,
    identifier: Option<u32>,
}

/// A message for one session.
#[derive(Debug)]
pub(crate) struct Target {
    session: SessionId,
    message: Arc<Message>,
    qos: Qos,
    retain: bool,
    identifiers: Vec<u32>,
    /// Of durable sessions at QoS 1 and 2: what the store calls it.
    durable: Option<(ClientId, u64)>,
    /// What was promised in the session's queue.
    room: Option<Reservation>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) sessions: HashMap<SessionId, Session>,
    clients: HashMap<ClientId, SessionId>,
    routes: TopicTrie<Vec<Route>>,
    pub(crate) retained: Retained,
    next_session: SessionId,
    limits: BrokerLimits,
    /// Counts subscriptions, to see whether there are new ones since a plan was made.
    subscribed: u64,
    /// Writes that nobody waits for; the broker's keeper collects them.
    pub(crate) loose: Vec<SessionWrite>,
    /// Connected sessions.
    pub(crate) connected: usize,
    /// Messages planned.
    pub(crate) messages_in: u64,
    /// Messages written to clients.
    pub(crate) messages_out: u64,
    /// Messages that a subscriber should have had and will not get.
    pub(crate) dropped: u64,
}

/// A session as a new connection finds it.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) session: SessionId,
    /// CONNACK's Session Present.
    pub(crate) present: bool,
    pub(crate) durable: bool,
    pub(crate) received: ReceivedIds,
    /// To be committed before CONNACK.
    pub(crate) writes: Vec<SessionWrite>,
    /// The will of a session that ended just now.
    pub(crate) will: Option<DelayedWill>,
}

/// Why a connection does not get its session.
#[derive(Debug)]
pub(crate) enum Unattached {
    /// Another connection has it, and was asked to leave: wait for this link to be gone.
    Taken(Arc<Link>),
    /// No room for another session.
    Full,
}

impl State {
    pub(crate) fn new(stored: StoredBroker, limits: BrokerLimits, now: Timestamp) -> Self {
        let mut state = Self {
            sessions: HashMap::new(),
            clients: HashMap::new(),
            routes: TopicTrie::new(),
            retained: Retained::restore(stored.retained),
            next_session: 1,
            limits,
            subscribed: 0,
            loose: Vec::new(),
            connected: 0,
            messages_in: 0,
            messages_out: 0,
            dropped: 0,
        };
        for stored in stored.sessions {
            let session = Session::restore(stored, first_sequence(now), now);
            let subscriptions: Vec<Subscription> = session.subscriptions.values().cloned().collect();
            let id = state.insert(session);
            for subscription in &subscriptions {
                state.route(id, subscription);
            }
        }
        state
    }

    fn insert(&mut self, session: Session) -> SessionId {
        let id = self.next_session;
        self.next_session += 1;
        self.clients.insert(session.client.clone(), id);
        self.sessions.insert(id, session);
        id
    }

    /// Makes or resumes a session for a connection.
    pub(crate) fn attach(
        &mut self,
        client: &ClientId,
        clean_start: bool,
        expiry: u32,
        link: &Arc<Link>,
        now: Timestamp,
    ) -> Result<Attached, Unattached> {
        let mut found = self.clients.get(client).copied();
        if let Some(id) = found
            && let Some(other) = self.sessions.get(&id).and_then(|session| session.link.clone())
        {
            other.ask(Leave::TakenOver);
            return Err(Unattached::Taken(other));
        }
        let (mut writes, mut will, mut sequence) = (Vec::new(), None, first_sequence(now));
        if let Some(id) = found
            && (clean_start || self.sessions.get(&id).is_some_and(|session| session.is_expired(now)))
        {
            if let Some(mut old) = self.remove(id) {
                // A plan for the old session may still be committing: the new one must not use its sequences.
                sequence = sequence.max(old.outbound.next_sequence());
                will = old.will.take();
                writes.extend(drop_write(&old));
            }
            found = None;
        }
        let present = found.is_some();
        let id = match found {
            Some(id) => id,
            None if self.sessions.len() >= self.limits.max_sessions => return Err(Unattached::Full),
            None => self.insert(Session::new(client.clone(), expiry, sequence)),
        };
        let Some(session) = self.sessions.get_mut(&id) else { return Err(Unattached::Full) };
        session.durable |= expiry > 0;
        session.expiry = expiry;
        session.link = Some(link.clone());
        session.woken = false;
        // The client is back in time: its old connection's will is not published.
        session.will = None;
        self.connected += 1;
        if session.durable {
            writes.push(SessionWrite::Open { client: client.clone(), expiry_seconds: stored_expiry(expiry) });
        }
        let received = std::mem::take(&mut session.received);
        Ok(Attached { session: id, present, durable: session.durable, received, writes, will })
    }

    /// Takes from a session that was resumed what its client may not have, as it is now or under another name. Answers what
    /// the store must hear of it.
    pub(crate) fn confine(&mut self, id: SessionId, permissions: &Permissions) -> Vec<SessionWrite> {
        let Some(session) = self.sessions.get_mut(&id) else { return Vec::new() };
        let client = session.client.clone();
        let gone = session.outbound.retain(|message| permissions.may_receive(&message.topic));
        self.dropped += gone.len() as u64;
        let durable = gone.into_iter().filter(|gone| gone.durable).map(|gone| gone.sequence);
        let mut writes: Vec<_> =
            durable.map(|sequence| SessionWrite::Dequeue { client: client.clone(), sequence }).collect();
        let subscriptions = session.subscriptions.keys();
        let denied: Vec<TopicFilter> =
            subscriptions.filter(|filter| !permissions.may_subscribe(filter)).cloned().collect();
        for filter in denied {
            self.unsubscribe(id, &filter);
            writes.push(SessionWrite::Unsubscribe { client: client.clone(), filter });
        }
        writes
    }

    /// The connection of a client that has one.
    pub(crate) fn link(&self, client: &ClientId) -> Option<&Arc<Link>> {
        self.sessions.get(self.clients.get(client)?)?.link.as_ref()
    }

    /// What the store must know of a connection's end, which comes next.
    pub(crate) fn farewell(&self, id: SessionId, now: Timestamp) -> Option<SessionWrite> {
        let session = self.sessions.get(&id)?;
        if session.expiry == 0 {
            return drop_write(session);
        }
        Some(SessionWrite::Away { client: session.client.clone(), since: now })
    }

    /// The connection lets go. `will` stays with the session if it has to wait; otherwise it comes back, to be
    /// published now.
    pub(crate) fn detach(
        &mut self,
        id: SessionId,
        received: ReceivedIds,
        will: Option<(Will, Option<Arc<str>>)>,
        now: Timestamp,
    ) -> Option<Will> {
        let Some(session) = self.sessions.get_mut(&id) else { return will.map(|(will, _)| will) };
        self.connected = self.connected.saturating_sub(usize::from(session.link.take().is_some()));
        self.dropped += session.outbound.rewind();
        session.received = received;
        session.away_since = now;
        if session.expiry == 0 {
            self.remove(id);
            return will.map(|(will, _)| will);
        }
        match will {
            Some((will, user)) if will.delay > 0 => {
                // The session's end publishes the will even if its delay is longer.
                let seconds = will.delay.min(session.expiry);
                let due = later(now, std::time::Duration::from_secs(seconds.into()));
                session.will = Some(DelayedWill { due, will, user });
                None
            }
            other => other.map(|(will, _)| will),
        }
    }

    /// Takes a session out, with its subscriptions.
    fn remove(&mut self, id: SessionId) -> Option<Session> {
        let session = self.sessions.remove(&id)?;
        self.clients.remove(&session.client);
        for filter in session.subscriptions.keys() {
            self.unroute(id, filter);
        }
        Some(session)
    }

    /// Adds or replaces a subscription; answers whether it is new, or `None` when the client has too many.
    pub(crate) fn subscribe(&mut self, id: SessionId, subscription: &Subscription) -> Option<bool> {
        let session = self.sessions.get_mut(&id)?;
        let is_new = !session.subscriptions.contains_key(&subscription.filter);
        if is_new && session.subscriptions.len() >= self.limits.max_subscriptions {
            return None;
        }
        session.subscriptions.insert(subscription.filter.clone(), subscription.clone());
        self.subscribed += 1;
        self.route(id, subscription);
        Some(is_new)
    }

    fn route(&mut self, session: SessionId, subscription: &Subscription) {
        let routes = self.routes.entry(&subscription.filter, Vec::new);
        let route = Route {
            session,
            qos: subscription.qos,
            no_local: subscription.no_local,
            retain_as_published: subscription.retain_as_published,
            identifier: subscription.identifier,
        };
        match routes.iter_mut().find(|route| route.session == session) {
            Some(old) => *old = route,
            None => routes.push(route),
        }
    }

    /// Removes a subscription; answers whether there was one.
    pub(crate) fn unsubscribe(&mut self, id: SessionId, filter: &TopicFilter) -> bool {
        let found = self.sessions.get_mut(&id).is_some_and(|session| session.subscriptions.remove(filter).is_some());
        if found {
            self.unroute(id, filter);
        }
        found
    }

    fn unroute(&mut self, session: SessionId, filter: &TopicFilter) {
        if let Some(routes) = self.routes.get_mut(filter) {
            routes.retain(|route| route.session != session);
            if routes.is_empty() {
                self.routes.remove(filter);
            }
        }
    }

    /// See [`crate::Broker::plan`].
    pub(crate) fn plan(&mut self, message: Arc<Message>) -> Plan {
        self.messages_in += 1;
        let targets = self.targets(&message);
        let mut plan = Plan { subscribed: self.subscribed, ..Plan::default() };
        for target in targets {
            self.admit(target, &mut plan);
        }
        if message.retain {
            self.plan_retained(message, &mut plan);
        }
        plan
    }

    fn targets(&self, message: &Arc<Message>) -> Vec<Target> {
        let publisher = message.publisher.as_ref().and_then(|client| self.clients.get(client)).copied();
        let (mut targets, mut lists) = (Vec::new(), 0_usize);
        self.routes.for_each_match(&message.topic, |routes| {
            lists += 1;
            targets.extend(routes.iter().filter_map(|route| route.target(message, publisher)));
        });
        if lists > 1 {
            merge_overlapping(&mut targets);
        }
        targets
    }

    /// Adds a target to the plan, with a sequence and a write if the session is durable.
    fn admit(&mut self, mut target: Target, plan: &mut Plan) {
        let Some(session) = self.sessions.get_mut(&target.session) else { return };
        if target.qos == Qos::AtMostOnce {
            // QoS 0 is not kept for those who are away.
            if session.link.is_some() {
                plan.targets.push(target);
            }
            return;
        }
        if session.durable {
            let limits = &self.limits;
            // First, what a subscription has reserved.
            drop(target.room.take());
            target.room = session.outbound.reserve(&target.message, limits.max_queue_messages, limits.max_queue_bytes);
            if target.room.is_none() {
                self.dropped += 1;
                return;
            }
            let sequence = session.outbound.take_sequence();
            target.durable = Some((session.client.clone(), sequence));
            let queued = target.queued(sequence);
            plan.writes.push(SessionWrite::Enqueue { client: session.client.clone(), queued });
        }
        plan.targets.push(target);
    }

    fn plan_retained(&mut self, message: Arc<Message>, plan: &mut Plan) {
        let topic = message.topic.clone();
        let clears = message.payload.data.is_empty();
        if clears && self.retained.is_clear(&topic) {
            return;
        }
        let kept = (!clears).then(|| message.clone());
        match self.retained.plan(message, self.limits.max_retained, self.limits.max_retained_bytes) {
            Some(word) => {
                plan.writes.push(SessionWrite::Retain { topic, message: kept });
                plan.retain = Some(word);
            }
            None => self.dropped += 1,
        }
    }

    /// What a subscription gets of the retained messages. All of it has its room in the session from here on, because
    /// it may wait behind commits, with that of many more subscriptions.
    pub(crate) fn plan_subscription(
        &mut self,
        id: SessionId,
        subscription: &Subscription,
        now: Timestamp,
        plan: &mut Plan,
    ) {
        for message in self.retained.matching(&subscription.filter, now) {
            let Some(session) = self.sessions.get(&id) else { return };
            let (qos, limits) = (subscription.qos.min(message.qos), &self.limits);
            let room = match qos {
                Qos::AtMostOnce => session.outbound.reserve_express(&message, limits.max_outgoing_bytes),
                _ => session.outbound.reserve(&message, limits.max_queue_messages, limits.max_queue_bytes),
            };
            if room.is_none() {
                self.dropped += 1;
                continue;
            }
            let identifiers = subscription.identifier.into_iter().collect();
            let target = Target { session: id, message, qos, retain: true, identifiers, durable: None, room };
            self.admit(target, plan);
        }
    }

    /// See [`crate::Broker::deliver`].
    pub(crate) fn deliver(&mut self, mut plan: Plan) {
        if let Some(word) = plan.retain.take() {
            let message = word.message.clone();
            // Whoever missed a word that is not the last has got a newer one.
            if self.retained.settle(word) && plan.subscribed != self.subscribed {
                self.catch_up(&message, &mut plan);
            }
        }
        for target in plan.targets {
            let Some(session) = self.sessions.get_mut(&target.session) else {
                // The session ended while its message was committed: take the row back.
                if let Some((client, sequence)) = target.durable {
                    self.loose.push(SessionWrite::Dequeue { client, sequence });
                }
                continue;
            };
            if !give(session, target, &self.limits) {
                self.dropped += 1;
            }
        }
    }

    /// Who subscribed while a retained message was committed has got the one before it and is not in the plan: without
    /// this it would believe the old word for ever. It gets the message without a record in the store, which has it as
    /// the retained one.
    fn catch_up(&self, message: &Arc<Message>, plan: &mut Plan) {
        let planned = plan.targets.len();
        for target in self.targets(message) {
            if plan.targets.iter().take(planned).all(|other| other.session != target.session) {
                plan.targets.push(target);
            }
        }
    }

    /// The time of day was set: what was written before is dated anew, so that its age stays what it was. The store does
    /// that to when clients went away by itself.
    pub(crate) fn shift(&mut self, jump: &Jump) {
        for session in self.sessions.values_mut() {
            session.away_since = jump.moved(session.away_since);
            if let Some(delayed) = &mut session.will {
                delayed.due = jump.put_off(delayed.due);
            }
            let mut anew = Vec::new();
            session.outbound.shift(jump, &mut anew);
            let client = &session.client;
            self.loose.extend(anew.into_iter().map(|queued| SessionWrite::Enqueue { client: client.clone(), queued }));
        }
        for message in self.retained.shift(jump) {
            self.loose.push(SessionWrite::Retain { topic: message.topic.clone(), message: Some(message) });
        }
    }

    /// Ends sessions and retained messages that are past their time; answers the wills that are due.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<(ClientId, DelayedWill)> {
        let mut wills = Vec::new();
        let expired: Vec<SessionId> =
            self.sessions.iter().filter(|(_, session)| session.is_expired(now)).map(|(&id, _)| id).collect();
        for id in expired {
            let Some(mut session) = self.remove(id) else { continue };
            self.loose.extend(drop_write(&session));
            wills.extend(session.will.take().map(|will| (session.client.clone(), will)));
        }
        for session in self.sessions.values_mut() {
            if session.will.as_ref().is_some_and(|will| now >= will.due) {
                wills.extend(session.will.take().map(|will| (session.client.clone(), will)));
            }
        }
        self.retained.expire(now);
        wills
    }
}

impl Route {
    fn target(&self, message: &Arc<Message>, publisher: Option<SessionId>) -> Option<Target> {
        if self.no_local && publisher == Some(self.session) {
            return None;
        }
        Some(Target {
            session: self.session,
            message: message.clone(),
            qos: self.qos.min(message.qos),
            retain: self.retain_as_published && message.retain,
            identifiers: self.identifier.into_iter().collect(),
            durable: None,
            room: None,
        })
    }
}

impl Target {
    fn queued(&self, sequence: u64) -> Queued {
        Queued {
            sequence,
            message: self.message.clone(),
            qos: self.qos,
            retain: self.retain,
            identifiers: self.identifiers.clone(),
            released: false,
        }
    }
}

/// A client whose subscriptions overlap gets one copy, with the highest QoS and all identifiers (MQTT 5.0, 3.3.4).
fn merge_overlapping(targets: &mut Vec<Target>) {
    targets.sort_by_key(|target| target.session);
    targets.dedup_by(|later, first| {
        if later.session != first.session {
            return false;
        }
        first.qos = first.qos.max(later.qos);
        first.retain |= later.retain;
        first.identifiers.append(&mut later.identifiers);
        true
    });
}

/// Puts a message into a session; answers whether there was room.
fn give(session: &mut Session, mut target: Target, limits: &BrokerLimits) -> bool {
    // Promised room is given back, and taken.
    drop(target.room.take());
    let given = match (&target.durable, target.qos) {
        (Some((_, sequence)), _) => {
            // Room was made when the sequence was given; the message is committed and must stay.
            let queued = target.queued(*sequence);
            session.outbound.push(queued, true);
            true
        }
        (None, Qos::AtMostOnce) => {
            let parcel = Parcel { message: target.message, retain: target.retain, identifiers: target.identifiers };
            session.link.is_some() && session.outbound.push_express(parcel, limits.max_outgoing_bytes)
        }
        (None, _) => {
            let room = session.outbound.has_room(&target.message, limits.max_queue_messages, limits.max_queue_bytes);
            if room {
                let sequence = session.outbound.take_sequence();
                let queued = target.queued(sequence);
                session.outbound.push(queued, false);
            }
            room
        }
    };
    if given {
        session.wake();
    }
    given
}

fn drop_write(session: &Session) -> Option<SessionWrite> {
    session.durable.then(|| SessionWrite::Drop { client: session.client.clone() })
}

/// Where the sequences of a new session begin: beyond those of an earlier session of the same client, which nobody
/// remembers, as long as that got fewer than a thousand messages per second.
fn first_sequence(now: Timestamp) -> u64 {
    u64::try_from(now.0).unwrap_or(0).max(1)
}
