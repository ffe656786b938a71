//! One connection, from the first attempt to its end.

use std::collections::{BTreeSet, VecDeque};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use holm_core::{Message, Qos, SessionWrite, Subscription, TopicFilter};
use rumqttc::{
    AsyncClient, ClientError, ConnAck, ConnectionError, Event, EventLoop, ManualAck, Packet, PubAck, PubAckReason,
    PubRec, PubRecReason, Publish, PublishNoticeError, PublishOptions, QoS, RetainForwardRule, SubAck,
    SubscribeFilterInput, SubscribeReasonCode,
};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::inbound::{Inbound, RECEIVE_MAXIMUM};
use super::outbound::{Outbound, Parcel, Step};
use super::{Lane, Memory, Shared, Wanted, lock, session, wire};
use crate::Backend;

/// A publish without an answer for this long: the connection is not what it seems.
pub(super) const ACK_DEADLINE: Duration = Duration::from_secs(90);

/// How often we look whether something takes too long.
const TICK: Duration = Duration::from_secs(1);

/// How long a node that ends waits for what is being settled or acknowledged.
const FAREWELL: Duration = Duration::from_secs(5);

/// Requests between us and the library, of each kind: what we may have on its way, and some QoS 0.
const REQUESTS: usize = RECEIVE_MAXIMUM as usize * 2;

/// Reports that are taken one after the other before everybody else has a turn.
const BURST: usize = 64;

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
    backend: &'a dyn Backend,
    lane: &'a dyn Lane,
    client: AsyncClient,
    events: Option<EventLoop>,
    inbound: Inbound,
    outbound: Outbound,
    /// Acknowledgements that the library has not taken yet.
    acks: VecDeque<ManualAck>,
    /// Tells the stream that its last bytes are written.
    ending: Arc<AtomicBool>,
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

/// What the library has reported, until it is looked at.
#[derive(Default)]
struct Reports(Mutex<VecDeque<Result<Event, ConnectionError>>>);

impl Reports {
    /// Asks the library again and again, for as long as the connection lasts. The future is never dropped before: the
    /// library notes a packet as sent before it writes it.
    async fn fill(&self, mut events: EventLoop) {
        loop {
            let report = events.poll().await;
            let lost = report.is_err();
            if matches!(report, Ok(Event::Incoming(Packet::ConnAck(_)))) {
                // Its work is done, and it costs a copy of what is on its way each time.
                events.options.clear_session_store();
            }
            lock(&self.0).push_back(report);
            if lost {
                return;
            }
            // Whoever takes them polls this again.
            poll_fn(|_| if self.is_full() { Poll::Pending } else { Poll::Ready(()) }).await;
        }
    }

    fn is_full(&self) -> bool {
        lock(&self.0).len() >= BURST
    }

    /// Polls `filling`, and takes what has come. Pending if nothing has. Cancel safe.
    async fn take(&self, mut filling: Pin<&mut impl Future<Output = ()>>, ended: &mut bool) -> Taken {
        poll_fn(|context| {
            if !*ended {
                *ended = filling.as_mut().poll(context).is_ready();
            }
            let taken = std::mem::take(&mut *lock(&self.0));
            if taken.is_empty() { Poll::Pending } else { Poll::Ready(taken) }
        })
        .await
    }
}

type Taken = VecDeque<Result<Event, ConnectionError>>;

impl<'a> Link<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        memory: &'a mut Memory,
        backend: &'a dyn Backend,
        lane: &'a dyn Lane,
    ) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let options = wire::options(&shared.config, ending.clone());
        let (client, events) = AsyncClient::builder(options).capacity(REQUESTS).build();
        Self {
            shared,
            memory,
            backend,
            lane,
            client,
            events: Some(events),
            inbound: Inbound::default(),
            outbound: Outbound::new(shared.config.max_inflight),
            acks: VecDeque::new(),
            ending,
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
        let reports = Reports::default();
        let mut filling = pin!(reports.fill(events));
        let mut ended = false;
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
                taken = reports.take(filling.as_mut(), &mut ended) => {
                    taken.into_iter().try_for_each(|report| match report {
                        Ok(event) => self.on_event(event),
                        Err(error) => Err(error.to_string()),
                    })
                }
                settled = self.inbound.next(self.backend) => {
                    self.acks.push_back(settled.answer(self.memory));
                    while let Some(settled) = self.inbound.next(self.backend).now_or_never() {
                        self.acks.push_back(settled.answer(self.memory));
                    }
                    Ok(())
                }
                step = self.outbound.next_step() => {
                    let mut step = self.on_step(step);
                    while step.is_ok()
                        && let Some(next) = self.outbound.next_step().now_or_never()
                    {
                        step = self.on_step(next);
                    }
                    step
                }
                deletion = self.memory.finished.next() => {
                    self.memory.finished.note(deletion, self.outbound.is_reading(), self.lane);
                    Ok(())
                }
                // Handed over as the next round begins.
                () = self.shared.news.notified() => Ok(()),
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
        self.ending.store(true, Ordering::Relaxed);
        if self.client.try_disconnect_with_timeout(TICK).is_ok() {
            let goodbye = async {
                while !ended {
                    drop(reports.take(filling.as_mut(), &mut ended).await);
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
        let waiting = std::mem::take(&mut *lock(&self.shared.waiting));
        if waiting.rows {
            self.outbound.look();
        }
        self.outbound.add(waiting.relays);
        for message in waiting.volatile {
            self.send_volatile(&message);
        }
        while let Some(parcel) = self.outbound.next(self.stopping, &self.memory.finished, self.lane) {
            if !self.send(parcel) {
                break;
            }
        }
        self.shared.in_flight.store(self.outbound.in_flight() as u64, Ordering::Relaxed);
    }

    fn on_event(&mut self, event: Event) -> Result<(), String> {
        if self.inbound.is_flooded() {
            return Err("the broker sends more than it may without an acknowledgement (Receive Maximum)".to_owned());
        }
        match event {
            Event::Incoming(Packet::ConnAck(connack)) => self.on_connack(&connack),
            Event::Incoming(Packet::Publish(publish)) if !self.stopping => self.on_publish(publish),
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

    fn on_publish(&mut self, publish: Publish) {
        self.shared.messages_in.fetch_add(1, Ordering::Relaxed);
        let (id, qos, duplicate) = (publish.pkid, publish.qos, publish.dup);
        match wire::message(publish, (self.shared.clock)()) {
            Some(message) => self.inbound.take(message, id, duplicate, self.memory, self.backend),
            None => {
                tracing::warn!("the external broker sent a message on a topic that is none; it is passed over");
                match qos {
                    QoS::AtMostOnce => {}
                    QoS::AtLeastOnce => self.acks.push_back(ManualAck::PubAck(PubAck::new(id, None))),
                    QoS::ExactlyOnce => self.acks.push_back(ManualAck::PubRec(PubRec::new(id, None))),
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

    /// Sends one. False if the library has no room now.
    fn send(&mut self, parcel: Parcel) -> bool {
        let message = parcel.message();
        let Some(properties) = wire::properties(message, (self.shared.clock)()) else {
            // Nobody wants it any more.
            parcel.finish(&mut self.memory.finished, self.lane);
            return true;
        };
        let qos = if message.qos.level() > self.max_qos.level() { self.max_qos } else { message.qos };
        let qos = wire::qos(qos);
        let (topic, data) = (message.topic.as_str(), message.payload.data.clone());
        if let Some(maximum) = self.max_packet.and_then(|maximum| usize::try_from(maximum).ok()) {
            let size = Publish::new(topic, qos, data.clone(), Some(properties.clone())).size();
            if size > maximum {
                self.give_up(parcel, &format!("{size} bytes, the broker takes {maximum}"));
                return true;
            }
        }
        let options = PublishOptions::new(qos).retain(message.retain).properties(properties);
        match self.client.try_publish_tracked(topic, data, options) {
            Ok(notice) => {
                self.outbound.sent(parcel, notice);
                true
            }
            Err(ClientError::InvalidRequest(_)) => {
                self.give_up(parcel, "it cannot be sent by MQTT");
                true
            }
            Err(_) => {
                self.outbound.put_back(parcel);
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
        let (key, result) = match step {
            Step::Notice(notice) => notice,
            Step::Rows(rows) => {
                self.outbound.read(rows, &mut self.memory.finished);
                return Ok(());
            }
            Step::Ready => return Ok(()),
        };
        let Some(parcel) = self.outbound.answered(key) else { return Ok(()) };
        match result {
            Ok(()) => {
                self.shared.messages_out.fetch_add(1, Ordering::Relaxed);
                parcel.finish(&mut self.memory.finished, self.lane);
                Ok(())
            }
            Err(error) if is_final(&error) => {
                self.give_up(parcel, &error.to_string());
                Ok(())
            }
            // It stays in the lane, and the next connection sends it again. One without a row is given back.
            Err(error) => Err(error.to_string()),
        }
    }

    /// The broker will never have it.
    fn give_up(&mut self, parcel: Parcel, why: &str) {
        let refused = self.shared.refused.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::error!(why, refused, "the external broker will not have a message of a function; it is lost");
        parcel.finish(&mut self.memory.finished, self.lane);
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
