//! What a connection waits for, and what follows: commits run in parallel, their acknowledgements go out in order.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use holm_core::Qos;

use crate::{Plan, Refusal, Settled};

/// What to do once something is settled.
#[derive(Debug)]
pub(crate) enum Then {
    /// Nothing: it only had to be written.
    Nothing,
    /// Acknowledge an inbound message of this weight.
    Acknowledge { qos: Qos, id: u16, digest: u64, bytes: usize },
    /// An inbound QoS 2 id is free: PUBCOMP.
    Complete { id: u16 },
    /// An outbound QoS 2 message may be released: PUBREL.
    Release { id: u16 },
    /// Send these bytes (SUBACK, UNSUBACK), then deliver the retained messages.
    Respond { packet: Bytes, plan: Plan },
}

impl Then {
    /// What is held in memory for it, as far as the client decides how much.
    fn weight(&self) -> usize {
        match self {
            Self::Acknowledge { bytes, .. } => *bytes,
            Self::Respond { packet, .. } => packet.len(),
            Self::Nothing | Self::Complete { .. } | Self::Release { .. } => 0,
        }
    }
}

/// The queue. Only its front is polled: what is behind cannot be acknowledged before it anyway.
#[derive(Debug, Default)]
pub(crate) struct Settlements {
    waiting: VecDeque<(Settled, Then)>,
    bytes: usize,
}

impl Settlements {
    pub(crate) fn push(&mut self, settled: Settled, then: Then) {
        self.bytes += then.weight();
        self.waiting.push_back((settled, then));
    }

    /// The weight of what waits.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next result in order; `None` when nothing waits. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<(Result<(), Refusal>, Then)> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<(Result<(), Refusal>, Then)>> {
        let result = match self.waiting.front_mut() {
            None => return Poll::Ready(None),
            Some((Settled::Done, _)) => Ok(()),
            Some((Settled::Waiting(receiver), _)) => match Pin::new(receiver).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(result) => result.unwrap_or(Err(Refusal::Unavailable)),
            },
        };
        let next = self.waiting.pop_front().map(|(_, then)| (result, then));
        self.bytes -= next.as_ref().map_or(0, |(_, then)| then.weight());
        Poll::Ready(next)
    }
}
