//! Inbound packet ids whose messages are settled: how a resend is told from a new message.
//!
//! A QoS 2 id is known from the commit to PUBREL, also to the store. A QoS 1 id is known only if its message was
//! committed after the connection had gone, and only until PUBACK is sent: a client that may have the PUBACK may also
//! have used the id again, for a message that says the same and was lost on the way, and DUP on that one would make
//! it look like the first. So MQTT has every message under an id count as new once PUBACK was sent (MQTT 5.0, 4.3.2).
//! After a restart nobody knows whether it was, so the store keeps no QoS 1 ids.

use std::collections::{HashMap, VecDeque};

use holm_core::{Message, Qos, Received};
use sha2::{Digest, Sha256};

/// QoS 1 ids kept in one session. One connection leaves as many as commits may be pending, and a client that comes back
/// resends them first; beyond, the oldest is forgotten and its resend counts as new, which QoS 1 allows.
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
    /// From the store. QoS 1 ids there are of an earlier release.
    pub(crate) fn restore(received: &[Received]) -> Self {
        let mut ids = Self::default();
        for received in received.iter().filter(|received| received.qos == Qos::ExactlyOnce) {
            ids.insert(received.packet_id, received.qos, received.digest);
        }
        ids
    }

    /// Whether exactly this QoS 1 message is settled under this id. The record is gone afterwards: either PUBACK
    /// follows, or the client uses the id for another message.
    pub(crate) fn take_resend(&mut self, id: u16, digest: u64) -> bool {
        let Some(&(Qos::AtLeastOnce, settled)) = self.settled.get(&id) else { return false };
        self.remove(id);
        settled == digest
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

    /// The message under this id is settled.
    pub(crate) fn insert(&mut self, id: u16, qos: Qos, digest: u64) {
        self.remove(id);
        if qos == Qos::ExactlyOnce {
            self.qos2 += 1;
        } else {
            if self.order.len() >= MAX_QOS1
                && let Some(oldest) = self.order.pop_front()
            {
                self.settled.remove(&oldest);
            }
            self.order.push_back(id);
        }
        self.settled.insert(id, (qos, digest));
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
/// the same in every release. Everything counts that is the same in a resend, and so not the expiry, which a broker
/// counts down.
pub(crate) fn digest(message: &Message) -> u64 {
    let mut hash = Sha256::new();
    let topic = message.topic.as_str();
    hash.update((topic.len() as u64).to_be_bytes());
    hash.update(topic);
    hash.update([message.qos.level(), u8::from(message.retain)]);
    hash.update(&message.payload.data);
    // Properties come with their kind and length, so that no two messages look the same; a message without any has the
    // digest that it has in MQTT 3.1.1.
    let mut property = |kind: u8, value: &[u8]| {
        hash.update([kind]);
        hash.update((value.len() as u64).to_be_bytes());
        hash.update(value);
    };
    if let Some(content_type) = &message.payload.content_type {
        property(1, content_type.as_bytes());
    }
    if let Some(topic) = &message.response_topic {
        property(2, topic.as_str().as_bytes());
    }
    if let Some(data) = &message.correlation_data {
        property(3, data);
    }
    for (name, value) in &message.user_properties {
        property(4, name.as_bytes());
        property(5, value.as_bytes());
    }
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use holm_core::{Payload, Timestamp, TopicName};

    use super::*;

    fn message() -> Message {
        Message {
            topic: TopicName::new("a").unwrap(),
            payload: Payload { content_type: None, data: Bytes::from_static(b"x") },
            qos: Qos::AtLeastOnce,
            retain: false,
            accepted: Timestamp(1),
            expiry_seconds: None,
            payload_format: None,
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
            publisher: None,
        }
    }

    #[test]
    fn the_digest_of_a_message_without_properties_is_the_same_in_every_release() {
        assert_eq!(digest(&message()), 0xC40B_E0D2_8574_34E6);
    }

    #[test]
    fn what_a_sender_may_change_in_a_resend_does_not_count_and_all_else_does() {
        let resend = Message { accepted: Timestamp(9), expiry_seconds: Some(5), ..message() };
        assert_eq!(digest(&resend), digest(&message()));
        let with = |properties: &[(&str, &str)]| {
            let user_properties = properties.iter().map(|&(name, value)| (name.into(), value.into())).collect();
            digest(&Message { user_properties, ..message() })
        };
        let digests = [
            digest(&message()),
            with(&[("holm-id", "1")]),
            with(&[("holm-id", "2")]),
            with(&[("holm-id", ""), ("1", "")]),
            digest(&Message { correlation_data: Some(Bytes::from_static(b"1")), ..message() }),
            digest(&Message { response_topic: Some(TopicName::new("1").unwrap()), ..message() }),
            digest(&Message {
                payload: Payload { content_type: Some("1".into()), data: Bytes::from_static(b"x") },
                ..message()
            }),
            digest(&Message { retain: true, ..message() }),
        ];
        for (index, one) in digests.iter().enumerate() {
            assert!(!digests.iter().skip(index + 1).any(|other| other == one), "{index}");
        }
    }

    #[test]
    fn qos_1_ids_are_few() {
        let mut ids = ReceivedIds::default();
        let many = u16::try_from(MAX_QOS1).unwrap();
        for id in 1..=many + 1 {
            ids.insert(id, Qos::AtLeastOnce, 7);
        }
        assert!(!ids.take_resend(1, 7), "the oldest is forgotten");
        assert!(ids.take_resend(2, 7));
        assert!(!ids.take_resend(2, 7), "only once");
        assert!(!ids.take_resend(3, 8), "it is another message");
        assert!(!ids.take_resend(3, 7), "which ended the record");
    }
}
