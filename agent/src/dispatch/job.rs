//! A job is one event for one function; a ticket is what the functions of one durable event have in common.

use std::sync::{Arc, Mutex};

use holm_core::{Event, FunctionName};
use holm_mqtt::{Plan, Refusal};
use holm_store::{DedupeKey, InboxId, Write};
use tokio::sync::oneshot;

/// One event for one function.
pub struct Job {
    /// The event, with the number of this attempt.
    pub event: Arc<Event>,
    /// What its settlement has to do.
    pub origin: Origin,
}

/// What an event takes in memory beside its texts and its payload, roughly.
const OVERHEAD: usize = 256;

impl Job {
    /// What it takes in memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        let attributes: usize = self.event.attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
        let event = &*self.event;
        let content_type = event.content_type.as_ref().map_or(0, |text| text.len());
        OVERHEAD + event.data.len() + event.subject.len() + event.id.0.len() + content_type + attributes
    }
}

/// Where a job comes from.
pub enum Origin {
    /// Not durable: effects leave when the function succeeds, and a failure is only counted.
    Volatile,
    /// A durable event that has just arrived.
    Fresh {
        /// Shared with the event's other functions.
        ticket: Arc<Ticket>,
        /// Which of the ticket's members this is.
        member: usize,
    },
    /// A row of the inbox.
    Inbox(InboxId),
}

/// The settlement of one durable event (design, "Settlement"): the first transaction holds `base`, the effects of the
/// function that finished first, and an inbox row for every other function that matched.
pub struct Ticket {
    pub(super) event: Arc<Event>,
    pub(super) state: Mutex<TicketState>,
}

pub(super) struct TicketState {
    /// What belongs to the event itself: message id, packet id, queued copies for persistent sessions.
    pub(super) base: Vec<Write>,
    /// Whether the first transaction has been queued.
    pub(super) queued: bool,
    /// Whether the first transaction has failed: the publisher was told no, so nothing may happen any more.
    pub(super) failed: bool,
    /// One per function.
    pub(super) members: Vec<Member>,
    /// What the first commit sets free.
    pub(super) completion: Option<Completion>,
}

pub(super) struct Member {
    pub(super) function: FunctionName,
    /// Its inbox row, once parked.
    pub(super) inbox: Option<InboxId>,
    /// Whether it has settled.
    pub(super) done: bool,
    /// Whether it has no job in memory, because its slot had no room: its row is the feeder's from the start.
    pub(super) stranded: bool,
}

/// What the first commit sets free.
pub(super) struct Completion {
    /// For subscribers of the topic.
    pub(super) plan: Plan,
    /// The publisher's acknowledgement.
    pub(super) ack: Option<oneshot::Sender<Result<(), Refusal>>>,
    /// The message id under which resends wait for the same answer.
    pub(super) key: Option<DedupeKey>,
}
