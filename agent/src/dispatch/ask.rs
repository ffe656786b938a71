//! Events whose sender waits for the function's answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use holm_core::{Event, EventId, Fault, Payload, Response};
use tokio::sync::oneshot;

use super::{Dispatcher, Job, Origin, Slot, lock};

/// How an invocation ended.
pub struct Ended {
    /// As any invocation ends.
    pub result: Result<Option<Payload>, Fault>,
    /// What its function says in HTTP's terms, if it does.
    pub response: Option<Box<Response>>,
}

/// Who waits, by event. Bounded by those who may ask: each waits for one at a time.
#[derive(Default)]
pub(super) struct Asking {
    waiting: Mutex<HashMap<EventId, oneshot::Sender<Ended>>>,
    /// How many: most nodes have none, and then no event is looked up.
    count: AtomicUsize,
}

impl Asking {
    pub(super) fn is_waited_for(&self, event: &EventId) -> bool {
        self.count.load(Ordering::Relaxed) > 0 && lock(&self.waiting).contains_key(event)
    }

    pub(super) fn tell(&self, event: &EventId, ended: Ended) {
        if let Some(sender) = self.remove(event) {
            // Whoever asked may have gone.
            let _ = sender.send(ended);
        }
    }

    fn insert(&self, event: EventId, sender: oneshot::Sender<Ended>) {
        if lock(&self.waiting).insert(event, sender).is_none() {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whoever waits for this one hears that there is no answer.
    pub(super) fn give_up(&self, event: &EventId) {
        drop(self.remove(event));
    }

    fn remove(&self, event: &EventId) -> Option<oneshot::Sender<Ended>> {
        let sender = lock(&self.waiting).remove(event)?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        Some(sender)
    }
}

/// An answer that is waited for. Who drops it does not wait any more; the function runs all the same.
pub struct Answer {
    dispatcher: Arc<Dispatcher>,
    event: EventId,
    receiver: oneshot::Receiver<Ended>,
}

impl Answer {
    /// The answer; `None` if the event is gone without one. Cancel safe in that nothing is left behind.
    pub async fn wait(mut self) -> Option<Ended> {
        (&mut self.receiver).await.ok()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.dispatcher.asking.give_up(&self.event);
    }
}

impl Dispatcher {
    /// A volatile event whose answer is waited for. `None` if the function has no room for it.
    pub fn ask(self: &Arc<Self>, slot: &Arc<Slot>, event: Event) -> Option<Answer> {
        let (sender, receiver) = oneshot::channel();
        let answer = Answer { dispatcher: self.clone(), event: event.id.clone(), receiver };
        self.asking.insert(event.id.clone(), sender);
        self.counters.events.fetch_add(1, Ordering::Relaxed);
        match self.push(slot, Job { event: Arc::new(event), origin: Origin::Volatile }) {
            Ok(()) => Some(answer),
            Err(_) => None,
        }
    }
}
