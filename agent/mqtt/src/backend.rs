//! The door behind the broker: who settles messages and keeps session changes.

use std::sync::Arc;

use holm_core::{ClientId, Message, SessionWrite};
use tokio::sync::oneshot;

use crate::Plan;

/// A message from a client, not yet acknowledged.
#[derive(Debug)]
pub struct Incoming {
    /// What was published.
    pub message: Arc<Message>,
    /// Who published it. For a will, whose will it is.
    pub client: ClientId,
    /// The user name the client has proven.
    pub user: Option<Arc<str>>,
    /// Who gets it. Commit [`Plan::writes`], then give the plan to [`crate::Broker::deliver`].
    pub plan: Plan,
    /// To be committed together with the settlement: the record under which a resend of QoS 2 will be recognised. Empty
    /// for volatile sessions and for QoS 0 and 1.
    pub writes: Vec<SessionWrite>,
    /// The client says that this may be a resend (DUP), and no record of it was found.
    pub duplicate: bool,
}

/// The agent's side of the broker. The agent implements it, and so do test doubles.
pub trait Backend: Send + Sync + 'static {
    /// Takes over a message. Called in the order of arrival for each connection; must not block. The backend hands
    /// [`Incoming::plan`] to [`crate::Broker::deliver`] when that is right, and answers when the message is settled:
    /// then, and only then, the broker acknowledges it.
    fn publish(&self, incoming: Incoming) -> Settled;

    /// Takes over session changes that belong to no message. They must be committed in the order of the calls, and in
    /// order with those of [`Backend::publish`] of the same client. Must not block.
    fn persist(&self, writes: Vec<SessionWrite>) -> Settled;

    /// A connection of this client has begun or ended; [`crate::Broker::is_connected`] says how it is now. Calls for two
    /// connections of one client may overtake each other. Must not block.
    fn presence(&self, _client: &ClientId) {}
}

/// Whether something is committed.
#[derive(Debug)]
pub enum Settled {
    /// It is, or nothing had to be.
    Done,
    /// It will be. A sender that is dropped counts as [`Refusal::Unavailable`].
    Waiting(oneshot::Receiver<Result<(), Refusal>>),
}

/// Why a message is not acknowledged. MQTT 5 clients see the reason code; an MQTT 3.1.1 connection is closed, because
/// that protocol knows no other way to say no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A limit is reached; later may work (0x97).
    QuotaExceeded,
    /// Not for this client (0x87).
    NotAuthorized,
    /// The payload is not what the topic wants (0x99).
    PayloadInvalid,
    /// The store cannot commit, or the node is shutting down (0x80).
    Unavailable,
    /// Anything else that is our business (0x83).
    Other,
}

impl Refusal {
    /// The MQTT 5 reason code, valid in PUBACK and PUBREC.
    pub(crate) fn reason_code(self) -> u8 {
        match self {
            Self::QuotaExceeded => 0x97,
            Self::NotAuthorized => 0x87,
            Self::PayloadInvalid => 0x99,
            Self::Unavailable => 0x80,
            Self::Other => 0x83,
        }
    }
}
