//! Where events come in: the broker's backend, and the other triggers' door.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use holm_core::{ClientId, Event, EventId, Message, Qos, SessionWrite, TriggerKind};
use holm_mqtt::{Backend, Incoming, Refusal, Settled};
use holm_store::{DedupeKey, Settlement, Write};
use tokio::sync::oneshot;

use super::chain::{HOPS_PROPERTY, ID_PROPERTY, event_of, trail_of};
use super::job::{Completion, Member, TicketState};
use super::{Dispatcher, Job, Origin, Slot, Street, Ticket, lock};
use crate::clock;

/// The broker's backend.
pub struct Node(pub Arc<Dispatcher>);

impl Backend for Node {
    fn publish(&self, incoming: Incoming) -> Settled {
        self.0.publish(incoming)
    }

    fn persist(&self, writes: Vec<SessionWrite>) -> Settled {
        let (sender, receiver) = oneshot::channel();
        let writes = writes.into_iter().map(Write::Session).collect();
        let queued = self.0.store.queue(Settlement { writes, ..Settlement::default() }, move |result| {
            let _ = sender.send(result.map_err(|_| Refusal::Unavailable));
        });
        // A sender that was dropped tells the broker no.
        drop(queued);
        Settled::Waiting(receiver)
    }
}

impl Dispatcher {
    fn publish(self: &Arc<Self>, incoming: Incoming) -> Settled {
        let Incoming { message, client, user, mut plan, writes, .. } = incoming;
        let set = self.active();
        let (mut volatile, mut durable) = (Vec::new(), Vec::new());
        set.for_each(&message.topic, |slot, keep| {
            let list = if keep && message.qos != Qos::AtMostOnce { &mut durable } else { &mut volatile };
            list.push(slot.clone());
        });
        let mut base: Vec<Write> = writes.into_iter().chain(plan.writes.drain(..)).map(Write::Session).collect();
        if message.qos == Qos::AtMostOnce {
            self.publish_volatile(&message, &volatile, plan, base);
            return Settled::Done;
        }
        let id = property(&message, ID_PROPERTY);
        let key = id.as_ref().map(|id| {
            let who = user.as_deref().unwrap_or(&client.0);
            DedupeKey::new(who, message.topic.as_str(), id)
        });
        let (ack, answer) = oneshot::channel();
        if let Some(key) = key {
            match self.arrival(&key, ack) {
                Arrival::First(ack) => {
                    base.push(Write::Remember { key: key.clone(), seen: message.accepted });
                    return self.publish_durable(message, volatile, durable, plan, base, id, Some(key), ack, answer);
                }
                Arrival::Again => return Settled::Waiting(answer),
                Arrival::Settled => return Settled::Done,
            }
        }
        self.publish_durable(message, volatile, durable, plan, base, None, None, ack, answer)
    }

    /// A message of the node's owner, on the way that a client's takes. `None` where the broker is somebody else's.
    pub fn publish_own(self: &Arc<Self>, message: Message, client: &str) -> Option<Settled> {
        let Street::Embedded(broker) = &self.street else { return None };
        let message = Arc::new(message);
        let plan = broker.plan(message.clone());
        let client = ClientId(client.into());
        let incoming = Incoming { message, client, user: None, plan, writes: Vec::new(), duplicate: false };
        Some(self.publish(incoming))
    }

    /// QoS 0: nobody waits for anything.
    fn publish_volatile(
        self: &Arc<Self>,
        message: &Arc<Message>,
        slots: &[Arc<Slot>],
        plan: holm_mqtt::Plan,
        writes: Vec<Write>,
    ) {
        if !writes.is_empty() {
            // A retained message is kept as well as may be; the publisher asked for no promise.
            let _ = self.store.queue(Settlement { writes, ..Settlement::default() }, |_| {});
        }
        self.street.deliver(plan);
        self.start_volatile(message, slots);
    }

    fn start_volatile(self: &Arc<Self>, message: &Arc<Message>, slots: &[Arc<Slot>]) {
        if slots.is_empty() {
            return;
        }
        self.counters.events.fetch_add(1, Ordering::Relaxed);
        let Some(event) = self.event(message, None) else { return };
        for slot in slots {
            let job = Job { event: event.clone(), origin: Origin::Volatile };
            if self.push(slot, job).is_err() {
                self.note_drop();
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn publish_durable(
        self: &Arc<Self>,
        message: Arc<Message>,
        volatile: Vec<Arc<Slot>>,
        durable: Vec<Arc<Slot>>,
        plan: holm_mqtt::Plan,
        base: Vec<Write>,
        id: Option<Arc<str>>,
        key: Option<DedupeKey>,
        ack: oneshot::Sender<Result<(), Refusal>>,
        answer: oneshot::Receiver<Result<(), Refusal>>,
    ) -> Settled {
        self.start_volatile(&message, &volatile);
        let event = if durable.is_empty() { None } else { self.event(&message, id) };
        let Some(event) = event else {
            if base.is_empty() {
                self.street.deliver(plan);
                return Settled::Done;
            }
            let completion = Completion { plan, ack: Some(ack), key };
            let this = self.clone();
            let settlement = Settlement { writes: base, ..Settlement::default() };
            let _ = self.store.queue(settlement, move |result| this.complete(completion, &result));
            return Settled::Waiting(answer);
        };
        if !self.inbox_takes(&durable) {
            self.refuse(Completion { plan, ack: Some(ack), key });
            return Settled::Waiting(answer);
        }
        let completion = Completion { plan, ack: Some(ack), key };
        self.start_durable(event, durable, base, completion);
        Settled::Waiting(answer)
    }

    /// Gives a durable event to its functions.
    fn start_durable(
        self: &Arc<Self>,
        event: Arc<Event>,
        slots: Vec<Arc<Slot>>,
        base: Vec<Write>,
        completion: Completion,
    ) {
        self.counters.events.fetch_add(1, Ordering::Relaxed);
        let member =
            |slot: &Arc<Slot>| Member { function: slot.name.clone(), inbox: None, done: false, stranded: false };
        let members = slots.iter().map(member).collect();
        let state = TicketState { base, queued: false, failed: false, members, completion: Some(completion) };
        let ticket = Arc::new(Ticket { event: event.clone(), state: Mutex::new(state) });
        self.store.expect();
        // Held until all jobs are out, so that whoever finishes first knows which members have none.
        let mut state = lock(&ticket.state);
        for (index, slot) in slots.iter().enumerate() {
            let job = Job { event: event.clone(), origin: Origin::Fresh { ticket: ticket.clone(), member: index } };
            if self.push(slot, job).is_err()
                && let Some(member) = state.members.get_mut(index)
            {
                member.stranded = true;
            }
        }
        let stranded = state.members.iter().any(|member| member.stranded);
        drop(state);
        if stranded {
            // No room in memory, or in quarantine: the event waits in the inbox.
            self.park_ticket(&ticket);
        } else {
            self.signal.park_at(Instant::now() + self.settings.park_after, &ticket);
        }
    }

    /// An event from a trigger that is not MQTT. `done` is told when it is settled; volatile events are not.
    pub fn trigger(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        event: Event,
        durable: bool,
        base: Vec<Write>,
    ) -> oneshot::Receiver<Result<(), Refusal>> {
        let (ack, answer) = oneshot::channel();
        let event = Arc::new(event);
        if durable {
            let completion = Completion { plan: holm_mqtt::Plan::default(), ack: Some(ack), key: None };
            let slots = vec![slot.clone()];
            if !self.inbox_takes(&slots) {
                self.refuse(completion);
                return answer;
            }
            self.start_durable(event, slots, base, completion);
        } else {
            if !base.is_empty() {
                let _ = self.store.queue(Settlement { writes: base, ..Settlement::default() }, |_| {});
            }
            self.counters.events.fetch_add(1, Ordering::Relaxed);
            if self.push(slot, Job { event, origin: Origin::Volatile }).is_err() {
                self.note_drop();
            }
            let _ = ack.send(Ok(()));
        }
        answer
    }

    /// Gives a function that has not been here before what was retained before it came, where its triggers ask for it.
    pub fn give_retained(self: &Arc<Self>, slot: &Arc<Slot>) {
        let Some(loaded) = slot.loaded() else { return };
        let mut given = std::collections::BTreeSet::new();
        for trigger in &loaded.manifest.triggers {
            let TriggerKind::Mqtt { topics, retained: true, .. } = &trigger.kind else { continue };
            for message in topics.iter().flat_map(|filter| self.street.retained(filter)) {
                if given.insert(message.topic.clone())
                    && let Some(event) = self.event(&message, None)
                {
                    let durable = trigger.durable && message.qos != Qos::AtMostOnce;
                    // The broker keeps the message whatever becomes of this.
                    drop(self.trigger(slot, Event::clone(&event), durable, Vec::new()));
                }
            }
        }
    }

    fn event(&self, message: &Arc<Message>, id: Option<Arc<str>>) -> Option<Arc<Event>> {
        let hops = property(message, HOPS_PROPERTY).and_then(|text| text.parse().ok()).unwrap_or(0);
        if hops > self.settings.max_hops {
            self.cut_loop("".into(), message.topic.as_str(), trail_of(&message.user_properties));
            return None;
        }
        let id = id.map_or_else(|| self.new_id(), EventId);
        Some(Arc::new(event_of(message, id, hops, Vec::new())))
    }

    fn arrival(&self, key: &DedupeKey, ack: oneshot::Sender<Result<(), Refusal>>) -> Arrival {
        let mut arriving = lock(&self.arriving);
        if let Some(waiters) = arriving.get_mut(key) {
            self.counters.duplicates.fetch_add(1, Ordering::Relaxed);
            waiters.push(ack);
            return Arrival::Again;
        }
        // The order matters: an id leaves `arriving` only after its commit, so it is found here or in the store.
        match lock(&self.ids).seen(key) {
            Ok(true) => {
                self.counters.duplicates.fetch_add(1, Ordering::Relaxed);
                return Arrival::Settled;
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "cannot look up a message id; the message counts as new"),
        }
        arriving.insert(key.clone(), Vec::new());
        Arrival::First(ack)
    }

    /// Whether the inbox takes an event of all these functions. From half of its limit on, the events of one that fills
    /// that half by itself are refused: whoever is fed faster than it works must not be why those of others are.
    fn inbox_takes(&self, slots: &[Arc<Slot>]) -> bool {
        let (rows, limit) = (self.store.inbox_rows(), self.settings.inbox_rows);
        let crowds = |slot: &Arc<Slot>| self.store.inbox_rows_of(&slot.name) >= limit.div_ceil(2);
        rows < limit && (rows < limit.div_ceil(2) || !slots.iter().any(crowds))
    }

    fn refuse(&self, completion: Completion) {
        self.complete(completion, &Err(holm_store::CommitError::DiskFull));
    }

    /// A volatile event found no room.
    pub(super) fn note_drop(&self) {
        let before = self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        if before == 0 || before.is_power_of_two() {
            tracing::warn!(dropped = before + 1, "volatile events were dropped because their functions are behind");
        }
    }
}

enum Arrival {
    /// Never seen: go on.
    First(oneshot::Sender<Result<(), Refusal>>),
    /// Being settled: the same answer will do.
    Again,
    /// Settled before.
    Settled,
}

fn property(message: &Message, name: &str) -> Option<Arc<str>> {
    message.user_properties.iter().find(|(key, _)| &**key == name).map(|(_, value)| value.clone())
}

/// For triggers: an event of now.
pub fn event_now(id: EventId, source: holm_core::Source, subject: Arc<str>) -> Event {
    let now = clock::now();
    Event {
        id,
        source,
        subject,
        content_type: None,
        data: bytes::Bytes::new(),
        time: now,
        time_synced: clock::plausible(now),
        attempt: 1,
        hops: 0,
        attributes: Vec::new(),
    }
}
