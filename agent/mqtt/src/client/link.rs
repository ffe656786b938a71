//! One connection, from the first attempt to its end.

use std::collections::{BTreeSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use holm_core::{Message, Qos, SessionWrite, Subscription, TopicFilter};
use rumqttc::{
    AsyncClient, ClientError, ConnAck, ConnectionError, Event, EventLoop, ManualAck, Packet, PubAck, PubAckReason,
    PubRec, PubRecReason, Publish, PublishNoticeError, PublishOptions, QoS, RetainForwardRule, SubAck,
    SubscribeFilterInput, SubscribeReasonCode,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::inbound::{Inbound, RECEIVE_MAXIMUM};
use super::outbound::{Outbound, Step};
use super::{Lane, Memory, Outgoing, Shared, Wanted, lock, session, wire};
use crate::Backend;

/// A publish without an answer for this long: the connection is not what it seems.
pub(super) const ACK_DEADLINE: Duration = Duration::from_secs(90);

/// How often we look whether something takes too long.
const TICK: Duration = Duration::from_secs(1);

/// How long a node that ends waits for what is being settled or acknowledged.
const FAREWELL: Duration = Duration::from_secs(5);

/// Requests between us and the library, of each kind: what we may have on its way, and some QoS 0.
const REQUESTS: usize = RECEIVE_MAXIMUM as usize * 2;

/// How a connection ended.
pub(super) enum End {
    /// The node is ending.
    Stopped,
    /// It broke, or never was established.
    Lost { error: String, established: bool },
}

/// See the module.
pub(super) struct Link<'a> {
    shared: &'a Shared,
    memory: &'a mut Memory,
    volatile: &'a mut mpsc::Receiver<Arc<Message>>,
    backend: &'a dyn Backend,
    lane: &'a dyn Lane,
    client: AsyncClient,
    events: Option<Box<EventLoop>>,
    inbound: Inbound,
    outbound: Outbound,
    /// Acknowledgements that the library has not taken yet.
    acks: VecDeque<ManualAck>,
    connected: bool,
    stopping: bool,
    /// The broker's limits.
    max_packet: Option<u32>,
    max_qos: Qos,
    /// What the SUBACK that is due answers; one at a time, so that it is clear which.
    subscribing: Option<Vec<TopicFilter>>,
    unsubscribing: Option<Vec<TopicFilter>>,
    /// There may be something to subscribe or unsubscribe.
    resubscribe: bool,
    /// Filters that this connection has subscribed, with their options.
    subscribed: Vec<Wanted>,
}

async fn poll(mut events: Box<EventLoop>) -> (Box<EventLoop>, Result<Event, ConnectionError>) {
    let result = events.poll().await;
    (events, result)
}

impl<'a> Link<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        memory: &'a mut Memory,
        volatile: &'a mut mpsc::Receiver<Arc<Message>>,
        backend: &'a dyn Backend,
        lane: &'a dyn Lane,
    ) -> Self {
        let (client, events) = AsyncClient::builder(wire::options(&shared.config)).capacity(REQUESTS).build();
        Self {
            shared,
            memory,
            volatile,
            backend,
            lane,
            client,
            events: Some(Box::new(events)),
            inbound: Inbound::default(),
            outbound: Outbound::new(shared.config.max_inflight),
            acks: VecDeque::new(),
            connected: false,
            stopping: false,
            max_packet: None,
            max_qos: Qos::ExactlyOnce,
            subscribing: None,
            unsubscribing: None,
            resubscribe: true,
            subscribed: Vec::new(),
        }
    }

    /// Lives until the connection ends.
    pub(super) async fn run(mut self, shutdown: &mut watch::Receiver<bool>) -> End {
        let Some(events) = self.events.take() else { return End::Stopped };
        // Never cancelled while it is under way: the library notes a packet as sent before it writes it.
        let mut polling = pin!(poll(events));
        let mut wanted = self.shared.wanted.subscribe();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut farewell = None;
        loop {
            self.hand_over();
            if self.stopping && self.inbound.is_empty() && self.acks.is_empty() && self.outbound.in_flight() == 0 {
                break;
            }
            let step = tokio::select! {
                (events, event) = &mut polling, if self.inbound.has_room() => {
                    let step = match event {
                        Ok(event) => self.on_event(event),
                        Err(error) => Err(error.to_string()),
                    };
                    let mut events = events;
                    if self.connected {
                        // Its work is done at CONNACK, and it costs a copy of what is on its way each time.
                        events.options.clear_session_store();
                    }
                    polling.set(poll(events));
                    step
                }
                settled = self.inbound.next(self.backend) => {
                    self.acks.push_back(settled.answer(self.memory));
                    Ok(())
                }
                step = self.outbound.next_step() => self.on_step(step),
                deletion = self.memory.finished.next() => {
                    self.memory.finished.note(deletion, self.outbound.is_reading(), self.lane);
                    Ok(())
                }
                () = self.shared.news.notified() => {
                    self.outbound.look();
                    Ok(())
                }
                Some(message) = self.volatile.recv(), if self.connected && !self.stopping => {
                    self.send_volatile(&message);
                    Ok(())
                }
                Ok(()) = wanted.changed(), if self.connected => {
                    self.resubscribe = true;
                    Ok(())
                }
                _ = tick.tick() => self.look_at_the_clock(),
                _ = shutdown.changed(), if !self.stopping => {
                    if !self.connected {
                        return End::Stopped;
                    }
                    self.stopping = true;
                    farewell = Some(Instant::now() + FAREWELL);
                    Ok(())
                }
            };
            if let Err(error) = step {
                return if self.stopping { End::Stopped } else { self.lost(error, shutdown).await };
            }
            if farewell.is_some_and(|at| at <= Instant::now()) {
                break;
            }
        }
        // Its session stays. The last acknowledgements go out before it.
        if self.client.try_disconnect_with_timeout(TICK).is_ok() {
            let goodbye = async {
                loop {
                    let (events, event) = (&mut polling).await;
                    if event.is_err() {
                        return;
                    }
                    polling.set(poll(events));
                }
            };
            let _ = tokio::time::timeout(TICK * 2, goodbye).await;
        }
        End::Stopped
    }

    /// What the connection leaves behind.
    async fn lost(self, error: String, shutdown: &mut watch::Receiver<bool>) -> End {
        self.shared.connected.store(false, Ordering::Relaxed);
        tokio::select! {
            () = self.inbound.settle(self.memory) => End::Lost { error, established: self.connected },
            // The store has the ids of what is committed later.
            _ = shutdown.changed() => End::Stopped,
        }
    }

    /// Gives the library what it has room for.
    fn hand_over(&mut self) {
        if !self.connected {
            return;
        }
        while let Some(ack) = self.acks.pop_front() {
            if self.client.try_manual_ack(ack.clone()).is_err() {
                self.acks.push_front(ack);
                break;
            }
        }
        self.subscribe();
        while !self.stopping
            && let Some(outgoing) = self.outbound.next(&self.memory.finished, self.lane)
        {
            if !self.send(outgoing) {
                break;
            }
        }
        self.shared.in_flight.store(self.outbound.in_flight() as u64, Ordering::Relaxed);
    }

    fn on_event(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Incoming(Packet::ConnAck(connack)) => self.on_connack(&connack),
            Event::Incoming(Packet::Publish(publish)) if !self.stopping => self.on_publish(&publish),
            Event::Incoming(Packet::PubRel(release)) => self.on_release(release.pkid),
            Event::Incoming(Packet::SubAck(suback)) => self.on_suback(&suback),
            Event::Incoming(Packet::UnsubAck(_)) => {
                for filter in self.unsubscribing.take().unwrap_or_default() {
                    self.memory.held.remove(&filter);
                    self.subscribed.retain(|one| one.filter != filter);
                    drop(self.backend.persist(vec![SessionWrite::Unsubscribe { client: session(), filter }]));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A QoS 2 id is free.
    fn on_release(&mut self, packet_id: u16) {
        if self.memory.unreleased.remove(&packet_id).is_some() {
            drop(self.backend.persist(vec![SessionWrite::Forget { client: session(), packet_id }]));
        }
    }

    fn on_connack(&mut self, connack: &ConnAck) {
        self.connected = true;
        let properties = connack.properties.as_ref();
        self.max_packet = properties.and_then(|properties| properties.max_packet_size);
        self.max_qos = match properties.and_then(|properties| properties.max_qos) {
            Some(0) => Qos::AtMostOnce,
            Some(1) => Qos::AtLeastOnce,
            _ => Qos::ExactlyOnce,
        };
        if let Some(maximum) = properties.and_then(|properties| properties.receive_max) {
            self.outbound.limit(maximum);
        }
        if !connack.session_present {
            // The broker has forgotten everything, so there is nothing to recognise or to unsubscribe.
            let client = session();
            let ids = std::mem::take(&mut self.memory.unreleased);
            let forget = ids.into_keys().map(|packet_id| SessionWrite::Forget { client: client.clone(), packet_id });
            let held = std::mem::take(&mut self.memory.held);
            let unsubscribe =
                held.into_iter().map(|filter| SessionWrite::Unsubscribe { client: client.clone(), filter });
            let writes: Vec<SessionWrite> = forget.chain(unsubscribe).collect();
            if !writes.is_empty() {
                drop(self.backend.persist(writes));
            }
        }
        self.shared.connected.store(true, Ordering::Relaxed);
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        *lock(&self.shared.last_error) = None;
        tracing::info!(session_present = connack.session_present, "connected to the external broker");
    }

    fn on_publish(&mut self, publish: &Publish) {
        self.shared.messages_in.fetch_add(1, Ordering::Relaxed);
        match wire::message(publish, (self.shared.clock)()) {
            Some(message) => self.inbound.take(message, publish.pkid, publish.dup, self.memory, self.backend),
            None => {
                tracing::warn!("the external broker sent a message on a topic that is none; it is passed over");
                match publish.qos {
                    QoS::AtMostOnce => {}
                    QoS::AtLeastOnce => self.acks.push_back(ManualAck::PubAck(PubAck::new(publish.pkid, None))),
                    QoS::ExactlyOnce => self.acks.push_back(ManualAck::PubRec(PubRec::new(publish.pkid, None))),
                }
            }
        }
    }

    /// Brings our subscriptions at the broker to what is wanted, a step at a time.
    fn subscribe(&mut self) {
        let busy = self.subscribing.is_some() || self.unsubscribing.is_some();
        if busy || self.stopping || !self.resubscribe {
            return;
        }
        let wanted = self.shared.wanted.borrow().clone();
        let missing: Vec<&Wanted> = wanted.iter().filter(|one| !self.subscribed.contains(one)).collect();
        if !missing.is_empty() {
            let filters: Vec<TopicFilter> = missing.iter().map(|one| one.filter.clone()).collect();
            if self.client.try_subscribe_many(missing.iter().map(|one| input(one))).is_err() {
                return;
            }
            // Written down as it is asked for: whoever comes after a crash must know of it to end it.
            let writes = missing.iter().map(|one| SessionWrite::Subscribe {
                client: session(),
                subscription: Subscription {
                    filter: one.filter.clone(),
                    qos: one.qos,
                    no_local: false,
                    retain_as_published: true,
                    identifier: None,
                },
            });
            drop(self.backend.persist(writes.collect()));
            self.memory.held.extend(filters.iter().cloned());
            self.subscribed.retain(|one| !filters.contains(&one.filter));
            self.subscribed.extend(missing.into_iter().cloned());
            self.subscribing = Some(filters);
            return;
        }
        let needed: BTreeSet<&TopicFilter> = wanted.iter().map(|one| &one.filter).collect();
        let stale: Vec<TopicFilter> =
            self.memory.held.iter().filter(|filter| !needed.contains(filter)).cloned().collect();
        if stale.is_empty() {
            self.resubscribe = false;
        } else if self.client.try_unsubscribe_many(stale.iter().map(TopicFilter::as_str)).is_ok() {
            self.unsubscribing = Some(stale);
        }
    }

    fn on_suback(&mut self, suback: &SubAck) {
        let filters = self.subscribing.take().unwrap_or_default();
        for (filter, code) in filters.iter().zip(&suback.return_codes) {
            if !matches!(code, SubscribeReasonCode::Success(_)) {
                tracing::error!(%filter, ?code, "the external broker refused a subscription: its functions hear nothing");
                *lock(&self.shared.last_error) = Some(format!("the subscription to {filter} was refused: {code:?}"));
            }
        }
    }

    /// Sends a row. False if the library has no room now.
    fn send(&mut self, outgoing: Outgoing) -> bool {
        let message = &outgoing.message;
        let Some(properties) = wire::properties(message, (self.shared.clock)()) else {
            // Nobody wants it any more.
            self.memory.finished.add(outgoing.id, self.lane);
            return true;
        };
        let qos = if message.qos.level() > self.max_qos.level() { self.max_qos } else { message.qos };
        let qos = wire::qos(qos);
        let (topic, data) = (message.topic.as_str(), message.payload.data.clone());
        let size = Publish::new(topic, qos, data.clone(), Some(properties.clone())).size();
        if let Some(maximum) = self.max_packet.and_then(|maximum| usize::try_from(maximum).ok())
            && size > maximum
        {
            self.give_up(outgoing.id, &format!("{size} bytes, the broker takes {maximum}"));
            return true;
        }
        let options = PublishOptions::new(qos).retain(message.retain).properties(properties);
        match self.client.try_publish_tracked(topic, data, options) {
            Ok(notice) => {
                self.outbound.sent(outgoing.id, notice);
                true
            }
            Err(ClientError::InvalidRequest(_)) => {
                self.give_up(outgoing.id, "it cannot be sent by MQTT");
                true
            }
            Err(_) => {
                self.outbound.put_back(outgoing);
                false
            }
        }
    }

    fn send_volatile(&self, message: &Message) {
        let Some(properties) = wire::properties(message, (self.shared.clock)()) else { return };
        let options = PublishOptions::at_most_once().retain(message.retain).properties(properties);
        match self.client.try_publish(message.topic.as_str(), message.payload.data.clone(), options) {
            Ok(()) => self.shared.messages_out.fetch_add(1, Ordering::Relaxed),
            Err(_) => self.shared.dropped.fetch_add(1, Ordering::Relaxed),
        };
    }

    fn on_step(&mut self, step: Step) -> Result<(), String> {
        let (id, result) = match step {
            Step::Notice(notice) => notice,
            Step::Rows(rows) => {
                self.outbound.read(rows, &mut self.memory.finished);
                return Ok(());
            }
            Step::Ready => return Ok(()),
        };
        self.outbound.answered(id);
        match result {
            Ok(()) => {
                self.shared.messages_out.fetch_add(1, Ordering::Relaxed);
                self.memory.finished.add(id, self.lane);
                Ok(())
            }
            Err(error) if is_final(&error) => {
                self.give_up(id, &error.to_string());
                Ok(())
            }
            // It stays in the lane, and the next connection sends it again.
            Err(error) => Err(error.to_string()),
        }
    }

    /// The broker will never have it.
    fn give_up(&mut self, id: i64, why: &str) {
        let refused = self.shared.refused.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::error!(why, refused, "the external broker will not have a message of a function; it is lost");
        self.memory.finished.add(id, self.lane);
    }

    fn look_at_the_clock(&self) -> Result<(), String> {
        match self.outbound.oldest() {
            Some(since) if since.elapsed() >= ACK_DEADLINE => {
                Err(format!("a publish was not acknowledged within {} s", ACK_DEADLINE.as_secs()))
            }
            _ => Ok(()),
        }
    }
}

/// Retained messages come once, with the first subscription: not again each time the node comes back.
fn input(wanted: &Wanted) -> SubscribeFilterInput {
    let rule = if wanted.retained { RetainForwardRule::OnNewSubscribe } else { RetainForwardRule::Never };
    SubscribeFilterInput::new(wanted.filter.as_str(), wire::qos(wanted.qos))
        .preserve_retain(true)
        .retain_forward_rule(rule)
}

/// Whether sending it again would end the same way.
fn is_final(error: &PublishNoticeError) -> bool {
    use PubAckReason as Ack;
    use PubRecReason as Rec;
    matches!(
        error,
        PublishNoticeError::RetainNotSupported
            | PublishNoticeError::V5PubAck(Ack::NotAuthorized | Ack::TopicNameInvalid | Ack::PayloadFormatInvalid)
            | PublishNoticeError::V5PubRec(Rec::NotAuthorized | Rec::TopicNameInvalid | Rec::PayloadFormatInvalid)
    )
}
