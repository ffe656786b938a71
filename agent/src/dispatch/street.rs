//! Where local messages go: into the broker inside, or to the one that the node is a client of.

use std::sync::Arc;

use holm_core::{Message, Qos, TopicFilter};
use holm_mqtt::{Broker, BrokerStats, External, Hold, Lane, Outgoing, Place, Plan, Refusal, Relayed, Settled};
use holm_store::{CommitError, LocalId, Settlement, Store, Write};
use tokio::sync::oneshot;

use super::chain::ID_PROPERTY;

/// See the module.
#[derive(Debug, Clone)]
pub enum Street {
    /// The broker inside.
    Embedded(Broker),
    /// Somebody else's.
    External(External),
}

/// A message on its way out, before the commit.
pub(super) enum Leaving {
    /// Into the sessions of the broker inside.
    Plan(Plan),
    /// QoS 0, to the other broker.
    Volatile(Arc<Message>),
}

impl Street {
    /// Hands over what an arriving message entails. An external broker has seen to that itself.
    pub(super) fn deliver(&self, plan: Plan) {
        if let Self::Embedded(broker) = self {
            broker.deliver(plan);
        }
    }

    /// A message of the node's own: what to commit, and what to let go afterwards.
    pub(super) fn plan(
        &self,
        mut message: Message,
        store: &Store,
        new_id: impl FnOnce() -> Arc<str>,
    ) -> (Vec<Write>, Option<Leaving>) {
        match self {
            Self::Embedded(broker) => {
                let mut plan = broker.plan(Arc::new(message));
                let writes = plan.writes.drain(..).map(Write::Session).collect();
                (writes, (!plan.is_empty()).then_some(Leaving::Plan(plan)))
            }
            Self::External(_) if message.qos == Qos::AtMostOnce => {
                (Vec::new(), Some(Leaving::Volatile(Arc::new(message))))
            }
            Self::External(_) => {
                // Under one name, however often it is sent: whoever cares can tell.
                if !message.user_properties.iter().any(|(name, _)| &**name == ID_PROPERTY) {
                    message.user_properties.push((ID_PROPERTY.into(), new_id()));
                }
                let row = Write::Local { id: store.next_local_id(), message: Arc::new(message) };
                (vec![row], None)
            }
        }
    }

    /// While it lives, what is let go may wait, to leave together.
    pub(super) fn hold(&self) -> Option<Hold> {
        match self {
            Self::Embedded(_) => None,
            Self::External(external) => Some(external.hold()),
        }
    }

    /// Lets one go, after the commit.
    pub(super) fn let_go(&self, leaving: Leaving) {
        match (self, leaving) {
            (Self::Embedded(broker), Leaving::Plan(plan)) => broker.deliver(plan),
            (Self::External(external), Leaving::Volatile(message)) => external.send(message),
            _ => {}
        }
    }

    /// Takes the messages out of `writes` if they may go to the other broker without being kept: there is nothing else to
    /// commit, and nothing before them that they would pass.
    pub(super) fn relay(&self, writes: &mut Vec<Write>) -> Option<Relay> {
        let Self::External(external) = self else { return None };
        let only_rows = !writes.is_empty() && writes.iter().all(|write| matches!(write, Write::Local { .. }));
        if !only_rows || !external.may_relay() {
            return None;
        }
        let messages = writes.drain(..).filter_map(|write| match write {
            Write::Local { message, .. } => Some(message),
            _ => None,
        });
        Some(Relay { external: external.clone(), messages: messages.collect() })
    }

    /// To be held until `writes` are committed, or are not, if there are rows of the local lane among them.
    pub(super) fn place(&self, writes: &[Write]) -> Option<Place> {
        match self {
            Self::External(external) if writes.iter().any(|write| matches!(write, Write::Local { .. })) => {
                Some(external.place())
            }
            _ => None,
        }
    }

    /// Retained messages that match: those of the broker inside. An external one sends its own when it is subscribed to.
    pub(super) fn retained(&self, filter: &TopicFilter) -> Vec<Arc<Message>> {
        match self {
            Self::Embedded(broker) => broker.retained(filter),
            Self::External(_) => Vec::new(),
        }
    }

    /// Figures of the broker inside; zeros without one.
    pub fn broker_stats(&self) -> BrokerStats {
        match self {
            Self::Embedded(broker) => broker.stats(),
            Self::External(_) => BrokerStats::default(),
        }
    }
}

/// Messages that go to the other broker without a row: see [`Street::relay`].
pub(super) struct Relay {
    external: External,
    messages: Vec<Arc<Message>>,
}

impl Relay {
    /// Sends them. `done` is told when the other broker has them all, or when they are in the lane after all.
    pub(super) fn go(self, store: Store, done: impl FnOnce(Result<(), CommitError>) + Send + 'static) {
        let external = self.external.clone();
        let relayed: Relayed = Box::new(move |result| match result {
            Ok(()) => done(Ok(())),
            Err(messages) => {
                let place = external.place();
                let row = |message| Write::Local { id: store.next_local_id(), message };
                let writes = messages.into_iter().map(row).collect();
                // If it is not even queued, nobody is told, and so the event comes again.
                drop(store.queue(Settlement { writes, ..Settlement::default() }, move |result| {
                    drop(place);
                    done(result);
                }));
            }
        });
        self.external.relay(self.messages, relayed);
    }
}

/// The store's local lane, for the client.
pub struct LocalLane(pub Store);

impl Lane for LocalLane {
    fn read(&self, limit: usize) -> oneshot::Receiver<Vec<Outgoing>> {
        let (sender, receiver) = oneshot::channel();
        let store = self.0.clone();
        tokio::task::spawn_blocking(move || match store.local(LocalId(0), limit) {
            Ok(rows) => {
                let rows = rows.into_iter().map(|row| Outgoing { id: row.id.0, message: Arc::new(row.message) });
                let _ = sender.send(rows.collect());
            }
            Err(error) => tracing::error!(%error, "cannot read the messages that wait for the external broker"),
        });
        receiver
    }

    fn done(&self, ids: Vec<i64>) -> Settled {
        let writes = ids.into_iter().map(|id| Write::LocalDone(LocalId(id))).collect();
        let (sender, receiver) = oneshot::channel();
        let settlement = Settlement { writes, ..Settlement::default() };
        // A sender that was dropped says no.
        let queued = self.0.queue(settlement, move |result| {
            let _ = sender.send(result.map_err(|_| Refusal::Unavailable));
        });
        drop(queued);
        Settled::Waiting(receiver)
    }
}
