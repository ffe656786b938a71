//! Effects as writes, and as what leaves after the commit.

use std::sync::Arc;

use holm_core::{
    Effects, Event, EventId, FunctionName, Message, Payload, Publish, Qos, Route, Source, Timestamp, When,
};
use holm_store::{Lane, Write};

use super::street::{Leaving, Street};
use super::{Dispatcher, Job, Loaded, Origin, Slot, qos_text};
use crate::clock;

/// Carries the number of functions on a message's way, on the wire and in the store.
pub(super) const HOPS_PROPERTY: &str = "holm-hops";
/// Names a message, so that a resend is recognised.
pub(super) const ID_PROPERTY: &str = "holm-id";
/// The topics on a message's way through functions, for the loop guard's report.
const TRAIL_ATTRIBUTE: &str = "holm-trail";

/// A function that enqueues to itself with at least this delay does not run away, and its hops are not counted.
const PACED: std::time::Duration = std::time::Duration::from_secs(1);

/// What leaves once its transaction is committed, or at once for volatile events.
#[derive(Default)]
pub(super) struct Released {
    leaving: Vec<Leaving>,
    jobs: Vec<(Arc<Slot>, Job)>,
    /// Rows that are not due yet: the feeder has to look again.
    delayed: bool,
}

/// What an event's settlement will do, gathered from outcomes.
pub(super) struct Staging<'a> {
    pub(super) dispatcher: &'a Dispatcher,
    /// The event that was handled.
    pub(super) cause: &'a Event,
    /// Whether there is a transaction to be part of.
    pub(super) durable: bool,
    pub(super) now: Timestamp,
    pub(super) writes: Vec<Write>,
    pub(super) released: Released,
}

impl<'a> Staging<'a> {
    pub(super) fn new(dispatcher: &'a Dispatcher, cause: &'a Event, durable: bool) -> Self {
        Self { dispatcher, cause, durable, now: clock::now(), writes: Vec::new(), released: Released::default() }
    }

    /// Takes what a function staged.
    pub(super) fn effects(&mut self, function: &FunctionName, loaded: &Loaded, effects: Effects) {
        self.writes.extend(effects.writes.into_iter().map(Write::State));
        for row in effects.results {
            let declared = loaded.manifest.results.iter().find(|(name, _)| *name == row.series);
            let high = declared.is_some_and(|(_, declaration)| declaration.high_priority);
            self.writes.push(Write::Outbox {
                lane: if high { Lane::Alarms } else { Lane::Results },
                stream: series_stream(function.as_str(), &row.series),
                created: self.now,
                content_type: None,
                data: row.json,
            });
        }
        for publish in effects.publishes {
            if matches!(publish.route, Route::Cloud | Route::Both) {
                self.writes.push(Write::Outbox {
                    lane: Lane::Results,
                    stream: format!("publish.{}", publish.topic).into(),
                    created: self.now,
                    content_type: publish.payload.content_type.clone(),
                    data: publish.payload.data.clone(),
                });
            }
            if matches!(publish.route, Route::Local | Route::Both) {
                self.publish(publish);
            }
        }
        for enqueue in effects.enqueues {
            let mut event = self.event(EventId(enqueue.id), Source::Invoke, function, enqueue.input);
            let delay = enqueue.delay.unwrap_or_default();
            if delay >= PACED {
                // A timer, and not a loop that runs away: its count begins anew.
                event.hops = 0;
                event.attributes.clear();
            } else if event.hops > self.dispatcher.settings.max_hops {
                self.dispatcher.cut_loop(enqueue.function.shared(), function.as_str(), trail_of(&event.attributes));
                continue;
            }
            let delay = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
            let due = Timestamp(self.now.0.saturating_add(delay));
            match self.dispatcher.slot(&enqueue.function) {
                Some(slot) => self.job(&slot, event, due, self.durable),
                None if self.durable => {
                    // Its function is not there (yet): it waits in the inbox, like any event of a removed function.
                    let id = self.dispatcher.store.next_inbox_id();
                    let park = Write::Park { id, function: enqueue.function, event: Arc::new(event), due, fault: None };
                    self.writes.push(park);
                    self.released.delayed = true;
                }
                None => self.dispatcher.note_drop(),
            }
        }
    }

    /// A publish on a local topic: for the broker's subscribers, and for other functions. Those of a node with an external
    /// broker get it from there, like everybody.
    fn publish(&mut self, publish: Publish) {
        let hops = self.cause.hops.saturating_add(1);
        let mut user_properties = publish.user_properties;
        // Counted here, whatever the guest says.
        user_properties.retain(|(name, _)| ![HOPS_PROPERTY, TRAIL_ATTRIBUTE].contains(&&**name));
        user_properties.push((hops_property(), hops_text(hops)));
        if let Street::External(_) = self.dispatcher.street
            && self.cause.hops > 0
        {
            // It may come back by way of the broker, and whoever cuts the loop has to know how it went.
            user_properties.extend(trail(self.cause, publish.topic.as_str()));
        }
        let message = Message {
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            accepted: self.now,
            expiry_seconds: publish.expiry_seconds,
            payload_format: None,
            response_topic: None,
            correlation_data: None,
            user_properties,
            publisher: None,
        };
        if let Street::Embedded(_) = self.dispatcher.street {
            self.start(&message, hops);
        }
        let Dispatcher { street, store, .. } = self.dispatcher;
        let (writes, leaving) = street.plan(message, store, || self.dispatcher.new_id().0);
        self.writes.extend(writes);
        self.released.leaving.extend(leaving);
    }

    /// The functions on a message's topic.
    fn start(&mut self, message: &Message, hops: u8) {
        let set = self.dispatcher.active();
        set.for_each(&message.topic, |slot, durable| {
            let attributes = trail(self.cause, message.topic.as_str());
            if hops > self.dispatcher.settings.max_hops {
                self.dispatcher.cut_loop(slot.name.shared(), message.topic.as_str(), trail_of(&attributes));
                return;
            }
            let event = event_of(message, self.dispatcher.new_id(), hops, attributes);
            let durable = self.durable && durable && message.qos != Qos::AtMostOnce;
            self.job(slot, event, self.now, durable);
        });
    }

    /// The functions that wait for this one's end.
    pub(super) fn chain(&mut self, function: &FunctionName, on: When, answer: Payload) {
        let set = self.dispatcher.active();
        for slot in set.chained(function, on) {
            let event = self.event(self.dispatcher.new_id(), Source::Function, function, answer.clone());
            if event.hops > self.dispatcher.settings.max_hops {
                self.dispatcher.cut_loop(slot.name.shared(), function.as_str(), trail_of(&event.attributes));
            } else {
                self.job(slot, event, self.now, self.durable);
            }
        }
    }

    /// An event that `function` caused.
    fn event(&self, id: EventId, source: Source, function: &FunctionName, payload: Payload) -> Event {
        Event {
            id,
            source,
            subject: function.shared(),
            content_type: payload.content_type,
            data: payload.data,
            time: self.now,
            time_synced: clock::plausible(self.now),
            attempt: 1,
            hops: self.cause.hops.saturating_add(1),
            attributes: trail(self.cause, function.as_str()),
        }
    }

    fn job(&mut self, slot: &Arc<Slot>, event: Event, due: Timestamp, durable: bool) {
        let event = Arc::new(event);
        if !durable {
            self.released.jobs.push((slot.clone(), Job { event, origin: Origin::Volatile }));
            return;
        }
        let id = self.dispatcher.store.next_inbox_id();
        self.writes.push(Write::Park { id, function: slot.name.clone(), event: event.clone(), due, fault: None });
        if due <= self.now {
            self.released.jobs.push((slot.clone(), Job { event, origin: Origin::Inbox(id) }));
        } else {
            self.released.delayed = true;
        }
    }
}

impl Dispatcher {
    /// Lets go what a commit set free. Runs on the writer's thread or a worker's.
    pub(super) fn let_go(&self, released: Released) {
        for leaving in released.leaving {
            self.street.let_go(leaving);
        }
        for (slot, job) in released.jobs {
            let row = if let Origin::Inbox(id) = job.origin { Some(id) } else { None };
            if row.is_some_and(|id| !self.hold(id)) {
                continue;
            }
            if self.push(&slot, job).is_err() {
                match row {
                    // It stays in the inbox until there is room.
                    Some(id) => {
                        self.release(id);
                        self.signal.hungry();
                    }
                    None => self.note_drop(),
                }
            }
        }
        if released.delayed {
            self.signal.hungry();
        }
    }

    /// `function` is empty where the message was not looked at any further.
    pub(super) fn cut_loop(&self, function: Arc<str>, topic: &str, path: &str) {
        use std::sync::atomic::Ordering;
        let before = self.counters.loops.fetch_add(1, Ordering::Relaxed);
        // The first, and then seldom: a loop must not become a log storm.
        if before.is_power_of_two() || before == 0 {
            tracing::error!(%function, topic, path, loops = before + 1, "a publish came round in a loop and was not given to the function again");
        }
        let topic = topic.to_owned();
        let fault = format!("loop cut: {path}");
        let now = clock::now();
        self.journal.events.push(256 + fault.len(), |number| crate::journal::EventEntry {
            number,
            time: now,
            id: "".into(),
            source: Source::Mqtt,
            subject: topic.into(),
            function,
            attempt: 0,
            outcome: "loop",
            fault: Some(fault),
            wall_us: 0,
            bytes: 0,
        });
    }
}

/// The stream of a function's series: what `holm results` reads and the cloud plots.
pub fn series_stream(function: &str, series: &str) -> Arc<str> {
    format!("result.{function}.{series}").into()
}

/// A message as an event.
pub(super) fn event_of(message: &Message, id: EventId, hops: u8, mut attributes: Vec<(Arc<str>, Arc<str>)>) -> Event {
    static QOS: std::sync::LazyLock<Arc<str>> = std::sync::LazyLock::new(|| "qos".into());
    static RETAIN: std::sync::LazyLock<Arc<str>> = std::sync::LazyLock::new(|| "retain".into());
    static TRUE: std::sync::LazyLock<Arc<str>> = std::sync::LazyLock::new(|| "true".into());
    attributes.push((QOS.clone(), qos_text(message.qos)));
    if message.retain {
        attributes.push((RETAIN.clone(), TRUE.clone()));
    }
    attributes.extend(message.user_properties.iter().filter(|(name, _)| &**name != HOPS_PROPERTY).cloned());
    Event {
        id,
        source: Source::Mqtt,
        subject: message.topic.as_str().into(),
        content_type: message.payload.content_type.clone(),
        data: message.payload.data.clone(),
        time: message.accepted,
        time_synced: clock::plausible(message.accepted),
        attempt: 1,
        hops,
        attributes,
    }
}

/// The topics on the way, for a report.
pub(super) fn trail_of(attributes: &[(Arc<str>, Arc<str>)]) -> &str {
    attributes.iter().find(|(name, _)| &**name == TRAIL_ATTRIBUTE).map_or("", |(_, path)| &**path)
}

/// The trail of what `cause` led to: one step longer.
fn trail(cause: &Event, step: &str) -> Vec<(Arc<str>, Arc<str>)> {
    let so_far = Some(trail_of(&cause.attributes)).filter(|path| !path.is_empty());
    let path = format!("{} > {step}", so_far.unwrap_or(&cause.subject));
    vec![(TRAIL_ATTRIBUTE.into(), path.into())]
}

fn hops_property() -> Arc<str> {
    static NAME: std::sync::LazyLock<Arc<str>> = std::sync::LazyLock::new(|| HOPS_PROPERTY.into());
    NAME.clone()
}

fn hops_text(hops: u8) -> Arc<str> {
    static FIRST: std::sync::LazyLock<Arc<str>> = std::sync::LazyLock::new(|| "1".into());
    if hops == 1 { FIRST.clone() } else { hops.to_string().into() }
}
