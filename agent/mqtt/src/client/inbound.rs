//! Messages from the broker, until they are settled: acknowledged in the order in which they came.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use holm_core::{ClientId, Message, Qos, Received, SessionWrite};
use rumqttc::{ManualAck, PubAck, PubRec};
use tokio::time::{Instant, Sleep};

use super::{Memory, PUBLISHER, session};
use crate::received::digest;
use crate::{Backend, Incoming, Plan, Refusal, Settled};

/// Unacknowledged messages of QoS 1 and 2: the Receive Maximum we announce.
pub(super) const RECEIVE_MAXIMUM: u16 = 256;

/// A broker that does not keep to it is borne with up to here, in messages.
const FLOOD: usize = 4 * RECEIVE_MAXIMUM as usize;

/// How long a message waits that the backend would not have. It is not acknowledged meanwhile, nor are those behind it,
/// so that a node whose disk is full leaves its messages with the broker.
const REFUSED_WAIT: Duration = Duration::from_secs(1);

/// One message.
struct Pending {
    id: u16,
    digest: u64,
    message: Arc<Message>,
    settled: Settled,
}

/// A message that is settled.
pub(super) struct Acknowledged {
    id: u16,
    qos: Qos,
    digest: u64,
}

impl Acknowledged {
    /// What the broker is told. A QoS 2 id is remembered until the broker releases it.
    pub(super) fn answer(self, memory: &mut Memory) -> ManualAck {
        if self.qos == Qos::ExactlyOnce {
            memory.unreleased.insert(self.id, self.digest);
            ManualAck::PubRec(PubRec::new(self.id, None))
        } else {
            ManualAck::PubAck(PubAck::new(self.id, None))
        }
    }
}

/// The queue. Only its front is polled: what is behind cannot be acknowledged before it anyway.
#[derive(Default)]
pub(super) struct Inbound {
    waiting: VecDeque<Pending>,
    /// Set while the front waits to be tried again.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Inbound {
    /// Whether the broker has sent far more than it may without being acknowledged. Not to read until it is
    /// acknowledged would not do: that may wait for answers of its own to what we publish.
    pub(super) fn is_flooded(&self) -> bool {
        self.waiting.len() >= FLOOD
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes a message; `id` is 0 for QoS 0, which is forgotten at once.
    pub(super) fn take(&mut self, message: Message, id: u16, duplicate: bool, memory: &Memory, backend: &dyn Backend) {
        let digest = if message.qos == Qos::ExactlyOnce { digest(&message) } else { 0 };
        let message = Arc::new(message);
        let known = message.qos == Qos::ExactlyOnce && duplicate && memory.unreleased.get(&id) == Some(&digest);
        // A resend of what is settled: the broker has not seen our PUBREC.
        let settled = if known { Settled::Done } else { submit(backend, &message, id, digest, duplicate) };
        if message.qos != Qos::AtMostOnce {
            self.waiting.push_back(Pending { id, digest, message, settled });
        }
    }

    /// The next acknowledgement that is due. Pending while there is none. Cancel safe.
    pub(super) async fn next(&mut self, backend: &dyn Backend) -> Acknowledged {
        poll_fn(|context| self.poll_next(context, backend)).await
    }

    /// The connection is gone, and the broker will send again what was not acknowledged. Waits for what is being
    /// committed, however long it takes: only then is it known which QoS 2 messages must not be taken again.
    pub(super) async fn settle(self, memory: &mut Memory) {
        // The backend has refused the front while it waits to be tried again.
        let refused = usize::from(self.pause.is_some());
        for pending in self.waiting.into_iter().skip(refused) {
            if pending.message.qos != Qos::ExactlyOnce {
                continue;
            }
            let settled = match pending.settled {
                Settled::Done => true,
                Settled::Waiting(receiver) => matches!(receiver.await, Ok(Ok(()))),
            };
            if settled {
                memory.unreleased.insert(pending.id, pending.digest);
            }
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>, backend: &dyn Backend) -> Poll<Acknowledged> {
        loop {
            let Some(front) = self.waiting.front_mut() else { return Poll::Pending };
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(context));
                self.pause = None;
                front.settled = submit(backend, &front.message, front.id, front.digest, true);
            }
            let result = match &mut front.settled {
                Settled::Done => Ok(()),
                Settled::Waiting(receiver) => {
                    std::task::ready!(Pin::new(receiver).poll(context)).unwrap_or(Err(Refusal::Unavailable))
                }
            };
            if result.is_err() {
                self.pause = Some(Box::pin(tokio::time::sleep_until(Instant::now() + REFUSED_WAIT)));
                continue;
            }
            let (id, qos, digest) = (front.id, front.message.qos, front.digest);
            self.waiting.pop_front();
            return Poll::Ready(Acknowledged { id, qos, digest });
        }
    }
}

fn submit(backend: &dyn Backend, message: &Arc<Message>, id: u16, digest: u64, duplicate: bool) -> Settled {
    let writes = if message.qos == Qos::ExactlyOnce {
        let received = Received { packet_id: id, digest, qos: message.qos };
        vec![SessionWrite::Receive { client: session(), received }]
    } else {
        Vec::new()
    };
    backend.publish(Incoming {
        message: message.clone(),
        client: ClientId(PUBLISHER.into()),
        user: None,
        plan: Plan::default(),
        writes,
        duplicate,
    })
}
