//! What the broker must not forget: sessions, their queues and packet ids, and retained messages, as values that the
//! broker emits, the store keeps, and the broker is restored from.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Payload, Qos, Timestamp, TopicFilter, TopicName};

/// An MQTT client identifier: any text of 1 to 65,535 bytes without NUL. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub Arc<str>);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A message inside the broker, whoever sent it. Shared between all sessions it is queued for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it was published.
    pub topic: TopicName,
    /// What was published, with MQTT 5's content type.
    pub payload: Payload,
    /// The QoS of the publisher.
    pub qos: Qos,
    /// The retain flag of the publisher.
    pub retain: bool,
    /// When the broker accepted it.
    pub accepted: Timestamp,
    /// MQTT 5 message expiry interval, in seconds from `accepted`.
    pub expiry_seconds: Option<u32>,
    /// MQTT 5 payload format indicator: 1 is UTF-8.
    pub payload_format: Option<u8>,
    /// MQTT 5 response topic.
    pub response_topic: Option<TopicName>,
    /// MQTT 5 correlation data.
    pub correlation_data: Option<Bytes>,
    /// MQTT 5 user properties, in order. `holm-id` names the message, `holm-hops` counts functions on its way.
    pub user_properties: Vec<(Arc<str>, Arc<str>)>,
    /// Who published it: a client, or `None` for the node itself.
    pub publisher: Option<ClientId>,
}

/// How a client subscribed (MQTT 5.0, section 3.8.3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The pattern.
    pub filter: TopicFilter,
    /// The most it is sent with.
    pub qos: Qos,
    /// Do not send me what I published.
    pub no_local: bool,
    /// Keep the retain flag of the publisher.
    pub retain_as_published: bool,
    /// MQTT 5 subscription identifier.
    pub identifier: Option<u32>,
}

/// A message that waits in a session, or is on its way to its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// Ascending within the session and never used twice. The packet id on the wire follows from it, so that a resend
    /// after a crash carries the same id.
    pub sequence: u64,
    /// The message.
    pub message: Arc<Message>,
    /// The QoS it goes out with: the lesser of the publisher's and the subscription's; 1 or 2.
    pub qos: Qos,
    /// The retain flag it goes out with.
    pub retain: bool,
    /// The identifiers of the subscriptions that matched.
    pub identifiers: Vec<u32>,
    /// QoS 2: the client has sent PUBREC, so PUBREL is due and not PUBLISH.
    pub released: bool,
}

/// An inbound packet id of a persistent session whose message is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// The client's packet id.
    pub packet_id: u16,
    /// Of the message, to tell a resend (DUP) from a new message under the same id.
    pub digest: u64,
    /// 2: the id is kept until PUBREL. Ids of QoS 1 are not kept in the store any more, and ignored where they are.
    pub qos: Qos,
}

/// A change of durable session state. Volatile sessions emit none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionWrite {
    /// Make the session, or set its expiry. `None` never expires.
    Open {
        /// Whose.
        client: ClientId,
        /// Seconds after disconnection.
        expiry_seconds: Option<u32>,
    },
    /// The client went away at this time: the expiry counts from here.
    Away {
        /// Whose.
        client: ClientId,
        /// Since when.
        since: Timestamp,
    },
    /// Forget the session and all that hangs on it.
    Drop {
        /// Whose.
        client: ClientId,
    },
    /// Add or replace a subscription.
    Subscribe {
        /// Whose.
        client: ClientId,
        /// What.
        subscription: Subscription,
    },
    /// Remove a subscription.
    Unsubscribe {
        /// Whose.
        client: ClientId,
        /// What.
        filter: TopicFilter,
    },
    /// A message joined the session's queue.
    Enqueue {
        /// Whose.
        client: ClientId,
        /// What.
        queued: Queued,
    },
    /// The client sent PUBREC for this message.
    Release {
        /// Whose.
        client: ClientId,
        /// Which.
        sequence: u64,
    },
    /// The client has this message (PUBACK, PUBCOMP), or it was dropped.
    Dequeue {
        /// Whose.
        client: ClientId,
        /// Which.
        sequence: u64,
    },
    /// A message from the client is settled under this packet id.
    Receive {
        /// Whose.
        client: ClientId,
        /// The id.
        received: Received,
    },
    /// The client sent PUBREL: the id is free.
    Forget {
        /// Whose.
        client: ClientId,
        /// The id.
        packet_id: u16,
    },
    /// The retained message of a topic; `None` removes it.
    Retain {
        /// The topic.
        topic: TopicName,
        /// The message.
        message: Option<Arc<Message>>,
    },
}

/// A session as it comes back from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSession {
    /// Whose.
    pub client: ClientId,
    /// Seconds after disconnection; `None` never.
    pub expiry_seconds: Option<u32>,
    /// When the client was last seen to go away, `None` if it was connected when the node stopped.
    pub away_since: Option<Timestamp>,
    /// Its subscriptions.
    pub subscriptions: Vec<Subscription>,
    /// Its queue, by ascending sequence.
    pub queue: Vec<Queued>,
    /// Its inbound ids.
    pub received: Vec<Received>,
}

/// Everything the broker is restored from at start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredBroker {
    /// Persistent sessions.
    pub sessions: Vec<StoredSession>,
    /// Retained messages.
    pub retained: Vec<Arc<Message>>,
}
