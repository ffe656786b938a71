//! Where local messages go: into the broker inside, or to the one that the node is a client of.

use std::sync::Arc;

use holm_core::{Message, Qos, TopicFilter};
use holm_mqtt::{Broker, BrokerStats, External, Lane, Outgoing, Plan, Refusal, Settled};
use holm_store::{LocalId, Settlement, Store, Write};
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
    /// In the local lane, with this transaction.
    Lane,
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
                (vec![row], Some(Leaving::Lane))
            }
        }
    }

    /// Lets one go, after the commit.
    pub(super) fn let_go(&self, leaving: Leaving) {
        match (self, leaving) {
            (Self::Embedded(broker), Leaving::Plan(plan)) => broker.deliver(plan),
            (Self::External(external), Leaving::Volatile(message)) => external.send(message),
            (Self::External(external), Leaving::Lane) => external.look(),
            _ => {}
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
