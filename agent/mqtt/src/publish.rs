//! Messages from clients: checks, the backend's question, and the answer.

use std::sync::Arc;

use holm_core::{ClientId, Message, Payload, Qos, Received, SessionWrite, TopicName};

use crate::broker::Shared;
use crate::connection::{Connection, End};
use crate::encode::{self, Ack};
use crate::outbound::weight;
use crate::packet::{MessageProperties, Publish, Will, reason};
use crate::received::digest;
use crate::settlements::Then;
use crate::{Backend, Incoming, Refusal, Settled};

/// The Topic Alias Maximum we announce. Each costs us a topic.
pub(crate) const TOPIC_ALIASES: u16 = 32;

impl Connection {
    pub(crate) fn on_publish(&mut self, publish: Publish) -> Result<(), End> {
        let topic = self.resolve_topic(&publish)?;
        let (qos, id, dup) = (publish.qos, publish.id, publish.dup);
        if qos == Qos::ExactlyOnce {
            if self.settling.contains_key(&id) {
                // A resend of what is being committed. The first one's PUBREC answers both, and not earlier.
                return Ok(());
            }
            if self.attachment.received.is_unreleased(id) {
                return self.answer_again(Ack::Pubrec, id);
            }
            self.check_unreleased()?;
        }
        if !self.permissions.may_publish(&topic) {
            return self.refuse(qos, id, Refusal::NotAuthorized);
        }
        let message = Arc::new(message(
            topic,
            publish.payload.clone(),
            (qos, publish.retain),
            publish.properties,
            &self.client,
            &self.shared,
        ));
        let durable = self.attachment.durable && qos != Qos::AtMostOnce;
        let digest = if durable { digest(&message) } else { 0 };
        let bytes = weight(&message);
        if qos == Qos::AtLeastOnce && self.attachment.received.take_resend(id, digest) && dup {
            // Not with an answer like PUBREC's: if the connection ends before, it must be known again.
            return self.when(Settled::Done, Then::Acknowledge { qos, id, digest, bytes });
        }
        let writes = if durable && qos == Qos::ExactlyOnce {
            // The record by which a resend is recognised, also after a restart.
            let received = Received { packet_id: id, digest, qos };
            vec![SessionWrite::Receive { client: self.client.clone(), received }]
        } else {
            Vec::new()
        };
        let plan = self.shared.lock().plan(message.clone());
        let incoming =
            Incoming { message, client: self.client.clone(), user: self.user.clone(), plan, writes, duplicate: dup };
        if qos != Qos::AtMostOnce {
            self.settling.insert(id, qos);
        }
        let settled = self.backend.publish(incoming);
        self.when(settled, Then::Acknowledge { qos, id, digest, bytes })
    }

    fn resolve_topic(&mut self, publish: &Publish) -> Result<TopicName, End> {
        let invalid = End::Fault(reason::TOPIC_ALIAS_INVALID);
        if publish.alias.is_some_and(|alias| alias == 0 || alias > TOPIC_ALIASES) {
            return Err(invalid);
        }
        match (&publish.topic, publish.alias) {
            (Some(topic), None) => Ok(topic.clone()),
            (Some(topic), Some(alias)) => {
                self.aliases.insert(alias, topic.clone());
                Ok(topic.clone())
            }
            (None, Some(alias)) => self.aliases.get(&alias).cloned().ok_or(invalid),
            (None, None) => Err(End::Fault(reason::TOPIC_INVALID)),
        }
    }

    /// Holds MQTT 5 clients to the Receive Maximum, which counts QoS 2 until PUBREL, and the others to what we can
    /// keep.
    fn check_unreleased(&self) -> Result<(), End> {
        let maximum = usize::from(self.shared.config.limits.max_inflight_in);
        let received = &self.attachment.received;
        if (self.has_reasons() && received.unreleased() >= maximum) || received.is_full() {
            return Err(End::Fault(reason::RECEIVE_MAXIMUM));
        }
        Ok(())
    }

    /// Acknowledges what is settled already, in its turn.
    fn answer_again(&mut self, kind: Ack, id: u16) -> Result<(), End> {
        let mut packet = bytes::BytesMut::with_capacity(4);
        encode::ack(&mut packet, self.wire.version, kind, id, reason::SUCCESS);
        self.when(Settled::Done, Then::Respond { packet: packet.freeze(), plan: crate::Plan::default() })
    }

    /// The backend has answered for an inbound message.
    pub(crate) fn acknowledge(
        &mut self,
        qos: Qos,
        id: u16,
        digest: u64,
        result: Result<(), Refusal>,
    ) -> Result<(), End> {
        self.settling.remove(&id);
        if let Err(refusal) = result {
            return self.refuse(qos, id, refusal);
        }
        let kind = match qos {
            Qos::AtMostOnce => return Ok(()),
            Qos::AtLeastOnce => Ack::Puback,
            Qos::ExactlyOnce => Ack::Pubrec,
        };
        // Volatile sessions remember QoS 2 too, until PUBREL: a client may resend on the same connection. QoS 1 is
        // remembered only if PUBACK cannot be sent any more (see `received`).
        if qos == Qos::ExactlyOnce || (self.attachment.durable && self.closed) {
            self.attachment.received.insert(id, qos, digest);
        }
        encode::ack(&mut self.out, self.wire.version, kind, id, reason::SUCCESS);
        Ok(())
    }

    fn refuse(&mut self, qos: Qos, id: u16, refusal: Refusal) -> Result<(), End> {
        let kind = match qos {
            Qos::AtMostOnce => {
                // QoS 0 has no answer, and no claim to one.
                self.shared.lock().dropped += 1;
                return Ok(());
            }
            Qos::AtLeastOnce => Ack::Puback,
            Qos::ExactlyOnce => Ack::Pubrec,
        };
        if !self.has_reasons() {
            return Err(End::Fault(refusal.reason_code()));
        }
        let mut packet = bytes::BytesMut::with_capacity(5);
        encode::ack(&mut packet, self.wire.version, kind, id, refusal.reason_code());
        self.when(Settled::Done, Then::Respond { packet: packet.freeze(), plan: crate::Plan::default() })
    }
}

/// Publishes a will like any message of its client. Nobody waits for it to settle: there is no one to tell.
pub(crate) fn publish_will(
    shared: &Arc<Shared>,
    backend: &Arc<dyn Backend>,
    client: &ClientId,
    user: Option<Arc<str>>,
    will: Will,
) {
    let Will { topic, payload, qos, retain, properties, delay: _ } = will;
    let message = Arc::new(message(topic, payload, (qos, retain), properties, client, shared));
    let plan = shared.lock().plan(message.clone());
    let incoming = Incoming { message, client: client.clone(), user, plan, writes: Vec::new(), duplicate: false };
    let _ = backend.publish(incoming);
}

fn message(
    topic: TopicName,
    data: bytes::Bytes,
    (qos, retain): (Qos, bool),
    properties: MessageProperties,
    client: &ClientId,
    shared: &Shared,
) -> Message {
    Message {
        topic,
        payload: Payload { content_type: properties.content_type, data },
        qos,
        retain,
        accepted: shared.now(),
        expiry_seconds: properties.expiry_seconds,
        payload_format: properties.payload_format,
        response_topic: properties.response_topic,
        correlation_data: properties.correlation_data,
        user_properties: properties.user,
        publisher: Some(client.clone()),
    }
}
