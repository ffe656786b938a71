//! What a session has for its client: a queue for QoS 1 and 2 that survives the connection, the messages on their way,
//! and an express lane for QoS 0 that does not.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;
use holm_core::{Jump, Message, Qos, Queued, Timestamp};

use crate::encode::{self, Ack, Delivery};
use crate::packet::{Version, reason};
use crate::reserve::{Reservation, Reserved};

/// The most unacknowledged messages towards one client, whatever Receive Maximum it gives: MQTT 3.1.1 has none, and
/// the packet ids on their way must stay few for [`packet_id`] to rarely meet one that is taken.
const MAX_WINDOW: usize = 1_024;

/// Packet ids are 1 to 65,535.
const PACKET_IDS: u64 = 65_535;

/// What the client can take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire {
    pub(crate) version: Version,
    pub(crate) max_packet: u32,
    pub(crate) receive_maximum: u16,
}

/// A QoS 0 message.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) message: Arc<Message>,
    pub(crate) retain: bool,
    pub(crate) identifiers: Vec<u32>,
}

/// A QoS 1 or 2 message of the queue.
#[derive(Debug)]
struct Waiting {
    queued: Queued,
    /// The store has it, so its end must be written there too.
    durable: bool,
    /// It may have been sent before: a resend carries DUP.
    sent: bool,
    /// The packet id it was sent under in this process.
    id: Option<u16>,
}

#[derive(Debug)]
struct Inflight {
    waiting: Waiting,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// PUBLISH is out; PUBACK or PUBREC is due.
    Sent,
    /// PUBREC is in, and being committed before PUBREL goes out.
    Releasing,
    /// PUBREL is out; PUBCOMP is due.
    Released,
}

/// A message that left the queue for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) sequence: u64,
    pub(crate) durable: bool,
}

/// What to do on PUBREC.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OnPubrec {
    /// Commit the release of this sequence, then send PUBREL.
    Commit(u64),
    /// Send PUBREL.
    Release,
    /// PUBREL follows without us.
    Wait,
    /// No such packet id.
    Unknown,
}

/// What [`Outbound::fill`] did.
#[derive(Debug, Default)]
pub(crate) struct Filled {
    /// Messages written.
    pub(crate) sent: u64,
    /// Messages dropped: expired or too large for the client.
    pub(crate) dropped: u64,
    /// Of them, those that the queue held.
    pub(crate) gone: Vec<Gone>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Outbound {
    express: VecDeque<Parcel>,
    express_bytes: usize,
    queue: VecDeque<Waiting>,
    inflight: HashMap<u16, Inflight>,
    held_bytes: usize,
    next_sequence: u64,
    /// Room for QoS 1 and 2 messages that are being committed.
    reserved: Arc<Reserved>,
    /// Room in the express lane for retained messages that wait for a SUBACK.
    reserved_express: Arc<Reserved>,
}

impl Outbound {
    /// An empty queue whose sequences start at `next_sequence`.
    pub(crate) fn new(next_sequence: u64) -> Self {
        Self {
            express: VecDeque::new(),
            express_bytes: 0,
            queue: VecDeque::new(),
            inflight: HashMap::new(),
            held_bytes: 0,
            next_sequence,
            reserved: Arc::default(),
            reserved_express: Arc::default(),
        }
    }

    /// Takes back what the store kept. Whether it was sent before is not known, so it goes out as a resend.
    pub(crate) fn restore(&mut self, mut queue: Vec<Queued>) {
        queue.sort_by_key(|queued| queued.sequence);
        for queued in queue {
            self.next_sequence = self.next_sequence.max(queued.sequence + 1);
            self.held_bytes += weight(&queued.message);
            self.queue.push_back(Waiting { queued, durable: true, sent: true, id: None });
        }
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// A sequence that is never given out again.
    pub(crate) fn take_sequence(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        sequence
    }

    /// The time of day was set: messages that expire are dated anew. What the store has to hear is in `anew`.
    pub(crate) fn shift(&mut self, jump: &Jump, anew: &mut Vec<Queued>) {
        // What was sent once does not expire any more, and its row may be on its way out of the store.
        for waiting in self.queue.iter_mut().filter(|waiting| !waiting.sent) {
            if redate(&mut waiting.queued.message, jump) && waiting.durable {
                anew.push(waiting.queued.clone());
            }
        }
        for parcel in &mut self.express {
            redate(&mut parcel.message, jump);
        }
    }

    /// Takes out what the client may not have any more, but for exchanges of which it has the message already.
    pub(crate) fn retain(&mut self, may_have: impl Fn(&Message) -> bool) -> Vec<Gone> {
        let (kept, out): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.queue)
            .into_iter()
            .partition(|waiting: &Waiting| waiting.queued.released || may_have(&waiting.queued.message));
        self.queue = kept;
        out.iter().map(|waiting| self.forget(waiting)).collect()
    }

    /// Messages of QoS 1 and 2 that are not yet with the client.
    pub(crate) fn held(&self) -> usize {
        self.queue.len() + self.inflight.len()
    }

    /// Their bytes, and those of the express lane.
    pub(crate) fn bytes(&self) -> usize {
        self.held_bytes + self.express_bytes
    }

    pub(crate) fn has_room(&self, message: &Message, max_messages: usize, max_bytes: usize) -> bool {
        self.held() + self.reserved.messages() < max_messages
            && self.held_bytes + self.reserved.bytes() + weight(message) <= max_bytes
    }

    /// Promises room in the queue, if there is any.
    pub(crate) fn reserve(&self, message: &Message, max_messages: usize, max_bytes: usize) -> Option<Reservation> {
        self.has_room(message, max_messages, max_bytes).then(|| self.reserved.take(weight(message)))
    }

    /// Promises room in the express lane, if there is any.
    pub(crate) fn reserve_express(&self, message: &Message, max_bytes: usize) -> Option<Reservation> {
        let bytes = weight(message);
        let has_room = self.express_bytes + self.reserved_express.bytes() + bytes <= max_bytes;
        has_room.then(|| self.reserved_express.take(bytes))
    }

    /// Adds a QoS 0 message unless `max_bytes` are waiting; answers whether it did.
    pub(crate) fn push_express(&mut self, parcel: Parcel, max_bytes: usize) -> bool {
        let bytes = self.express_bytes + weight(&parcel.message);
        if bytes > max_bytes {
            return false;
        }
        self.express_bytes = bytes;
        self.express.push_back(parcel);
        true
    }

    /// Adds a QoS 1 or 2 message. Commits overtake each other, so it goes to its place by sequence.
    pub(crate) fn push(&mut self, queued: Queued, durable: bool) {
        self.held_bytes += weight(&queued.message);
        let place = self.queue.iter().rposition(|other| other.queued.sequence < queued.sequence);
        let waiting = Waiting { queued, durable, sent: false, id: None };
        match place {
            Some(last) if last + 1 == self.queue.len() => self.queue.push_back(waiting),
            Some(before) => self.queue.insert(before + 1, waiting),
            None => self.queue.push_front(waiting),
        }
    }

    /// Writes packets to `out` until it holds `stop_at` bytes, the window is full, or nothing is left.
    pub(crate) fn fill(&mut self, out: &mut BytesMut, wire: &Wire, stop_at: usize, now: Timestamp) -> Filled {
        let mut filled = Filled::default();
        let window = usize::from(wire.receive_maximum).min(MAX_WINDOW);
        while out.len() < stop_at && self.inflight.len() < window {
            let Some(waiting) = self.queue.pop_front() else { break };
            self.send(waiting, out, wire, now, &mut filled);
        }
        while out.len() < stop_at {
            let Some(parcel) = self.express.pop_front() else { break };
            self.express_bytes = self.express_bytes.saturating_sub(weight(&parcel.message));
            let delivery = Delivery {
                message: &parcel.message,
                qos: Qos::AtMostOnce,
                retain: parcel.retain,
                dup: false,
                id: 0,
                identifiers: &parcel.identifiers,
            };
            let written = !encode::is_expired(&parcel.message, now)
                && encode::publish(out, wire.version, wire.max_packet, now, &delivery);
            if written { filled.sent += 1 } else { filled.dropped += 1 }
        }
        filled
    }

    fn send(&mut self, mut waiting: Waiting, out: &mut BytesMut, wire: &Wire, now: Timestamp, filled: &mut Filled) {
        let id = waiting.id.unwrap_or_else(|| self.free_id(waiting.queued.sequence));
        waiting.id = Some(id);
        if waiting.queued.released {
            encode::ack(out, wire.version, Ack::Pubrel, id, reason::SUCCESS);
            self.inflight.insert(id, Inflight { waiting, stage: Stage::Released });
            return;
        }
        let delivery = Delivery {
            message: &waiting.queued.message,
            qos: waiting.queued.qos,
            retain: waiting.queued.retain,
            dup: waiting.sent,
            id,
            identifiers: &waiting.queued.identifiers,
        };
        // A message that was sent once has a packet id at the client, which only an exchange to the end can free.
        let expired = !waiting.sent && encode::is_expired(&waiting.queued.message, now);
        if expired || !encode::publish(out, wire.version, wire.max_packet, now, &delivery) {
            filled.dropped += 1;
            filled.gone.push(self.forget(&waiting));
            return;
        }
        filled.sent += 1;
        waiting.sent = true;
        self.inflight.insert(id, Inflight { waiting, stage: Stage::Sent });
    }

    fn free_id(&self, sequence: u64) -> u16 {
        let mut id = packet_id(sequence);
        while self.inflight.contains_key(&id) {
            id = id.checked_add(1).unwrap_or(1);
        }
        id
    }

    fn forget(&mut self, waiting: &Waiting) -> Gone {
        self.held_bytes = self.held_bytes.saturating_sub(weight(&waiting.queued.message));
        Gone { sequence: waiting.queued.sequence, durable: waiting.durable }
    }

    fn take(&mut self, id: u16, is_due: impl Fn(&Inflight) -> bool) -> Option<Gone> {
        if !self.inflight.get(&id).is_some_and(is_due) {
            return None;
        }
        let inflight = self.inflight.remove(&id)?;
        Some(self.forget(&inflight.waiting))
    }

    /// PUBACK came.
    pub(crate) fn acknowledged(&mut self, id: u16) -> Option<Gone> {
        self.take(id, |inflight| inflight.waiting.queued.qos == Qos::AtLeastOnce)
    }

    /// PUBREC came with a refusal, which ends the exchange.
    pub(crate) fn refused(&mut self, id: u16) -> Option<Gone> {
        self.take(id, |inflight| inflight.waiting.queued.qos == Qos::ExactlyOnce && inflight.stage == Stage::Sent)
    }

    /// PUBREC came.
    pub(crate) fn recorded(&mut self, id: u16) -> OnPubrec {
        let Some(inflight) = self.inflight.get_mut(&id) else { return OnPubrec::Unknown };
        if inflight.waiting.queued.qos != Qos::ExactlyOnce {
            return OnPubrec::Unknown;
        }
        match inflight.stage {
            Stage::Sent if inflight.waiting.durable => {
                inflight.stage = Stage::Releasing;
                OnPubrec::Commit(inflight.waiting.queued.sequence)
            }
            Stage::Sent => {
                self.released(id);
                OnPubrec::Release
            }
            Stage::Releasing => OnPubrec::Wait,
            Stage::Released => OnPubrec::Release,
        }
    }

    /// The release is committed, or needs no commit: PUBREL goes out.
    pub(crate) fn released(&mut self, id: u16) {
        if let Some(inflight) = self.inflight.get_mut(&id) {
            inflight.waiting.queued.released = true;
            inflight.stage = Stage::Released;
        }
    }

    /// PUBCOMP came.
    pub(crate) fn completed(&mut self, id: u16) -> Option<Gone> {
        self.take(id, |inflight| inflight.stage == Stage::Released)
    }

    /// The connection is gone: what was on its way goes back to the front of the queue, QoS 0 is forgotten.
    pub(crate) fn rewind(&mut self) -> u64 {
        let lost = self.express.len() as u64;
        self.express = VecDeque::new();
        self.express_bytes = 0;
        let mut back: Vec<Waiting> = self.inflight.drain().map(|(_, inflight)| inflight.waiting).collect();
        back.sort_by_key(|waiting| waiting.queued.sequence);
        for waiting in back.into_iter().rev() {
            self.queue.push_front(waiting);
        }
        lost
    }
}

/// The packet id that follows from a sequence, so that a resend after a restart carries the same. Two messages on
/// their way share one only if their sequences are 65,535 apart; then the later takes the next free id, and would
/// change it at a restart.
fn packet_id(sequence: u64) -> u16 {
    u16::try_from(sequence % PACKET_IDS + 1).unwrap_or(1)
}

/// Dates a message anew that expires; true if that changed it.
pub(crate) fn redate(message: &mut Arc<Message>, jump: &Jump) -> bool {
    let moved = jump.moved(message.accepted);
    let changes = message.expiry_seconds.is_some() && moved != message.accepted;
    if changes {
        Arc::make_mut(message).accepted = moved;
    }
    changes
}

/// What a message costs in memory, for the bounds.
pub(crate) fn weight(message: &Message) -> usize {
    // The structs around the bytes: an estimate, so that empty messages count for something.
    const OVERHEAD: usize = 192;
    let properties: usize = message.user_properties.iter().map(|(key, value)| 32 + key.len() + value.len()).sum();
    OVERHEAD
        + message.topic.as_str().len()
        + message.payload.data.len()
        + message.payload.content_type.as_ref().map_or(0, |text| text.len())
        + message.response_topic.as_ref().map_or(0, |topic| topic.as_str().len())
        + message.correlation_data.as_ref().map_or(0, bytes::Bytes::len)
        + properties
}
