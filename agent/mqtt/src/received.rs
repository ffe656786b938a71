//! Inbound packet ids whose messages are settled: how a resend is told from a new message.

use std::collections::{HashMap, VecDeque};

use holm_core::{Message, Qos, Received};
use sha2::{Digest, Sha256};

/// QoS 1 ids kept in one session. A client resends what it has on its way, which is far less for any we know of;
/// beyond, the oldest is forgotten and its resend would count as new, which QoS 1 allows.
const MAX_QOS1: usize = 1_024;

/// Unreleased QoS 2 ids in one session. MQTT 5 clients are held to the Receive Maximum before this; an MQTT 3.1.1
/// client that leaves so many unreleased is disconnected.
const MAX_QOS2: usize = 4_096;

/// The settled ids of one client.
#[derive(Debug, Default)]
pub(crate) struct ReceivedIds {
    settled: HashMap<u16, (Qos, u64)>,
    /// QoS 1 ids, oldest first.
    order: VecDeque<u16>,
    qos2: usize,
}

impl ReceivedIds {
    pub(crate) fn restore(received: &[Received]) -> Self {
        let mut ids = Self::default();
        for received in received {
            let _forgotten = ids.insert(received.packet_id, received.qos, received.digest);
        }
        ids
    }

    /// Whether exactly this QoS 1 message is settled under this id.
    pub(crate) fn is_resend(&self, id: u16, digest: u64) -> bool {
        self.settled.get(&id) == Some(&(Qos::AtLeastOnce, digest))
    }

    /// Whether a QoS 2 message is settled under this id and waits for PUBREL.
    pub(crate) fn is_unreleased(&self, id: u16) -> bool {
        self.settled.get(&id).is_some_and(|&(qos, _)| qos == Qos::ExactlyOnce)
    }

    /// QoS 2 ids that wait for PUBREL.
    pub(crate) fn unreleased(&self) -> usize {
        self.qos2
    }

    pub(crate) fn is_full(&self) -> bool {
        self.qos2 >= MAX_QOS2
    }

    /// The QoS 1 id that must go before `id` is settled, to be forgotten in the same commit.
    pub(crate) fn oldest_beyond(&self, id: u16) -> Option<u16> {
        if self.order.len() < MAX_QOS1 || self.settled.contains_key(&id) {
            return None;
        }
        self.order.front().copied()
    }

    /// The message under this id is settled.
    pub(crate) fn insert(&mut self, id: u16, qos: Qos, digest: u64) -> Option<u16> {
        let forgotten = if qos == Qos::AtLeastOnce { self.oldest_beyond(id) } else { None };
        if let Some(oldest) = forgotten {
            self.remove(oldest);
        }
        self.remove(id);
        self.settled.insert(id, (qos, digest));
        match qos {
            Qos::ExactlyOnce => self.qos2 += 1,
            _ => self.order.push_back(id),
        }
        forgotten
    }

    /// PUBREL came, or the id is used again.
    pub(crate) fn remove(&mut self, id: u16) {
        match self.settled.remove(&id) {
            Some((Qos::ExactlyOnce, _)) => self.qos2 = self.qos2.saturating_sub(1),
            // Ids mostly come round in order, so the one to remove is mostly the first.
            Some(_) if self.order.front() == Some(&id) => {
                self.order.pop_front();
            }
            Some(_) => self.order.retain(|&other| other != id),
            None => {}
        }
    }
}

/// Tells messages under one packet id apart: the first 8 bytes of a SHA-256, because the value is stored and must be
/// the same in every release.
pub(crate) fn digest(message: &Message) -> u64 {
    let mut hash = Sha256::new();
    let topic = message.topic.as_str();
    hash.update((topic.len() as u64).to_be_bytes());
    hash.update(topic);
    hash.update([message.qos.level(), u8::from(message.retain)]);
    hash.update(&message.payload.data);
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    u64::from_be_bytes(first)
}
