//! Packets from clients, as the rest of the crate sees them: checked, and the same for both protocol versions.

use std::sync::Arc;

use bytes::Bytes;
use holm_core::{Qos, TopicName};

/// The protocol a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// MQTT 3.1.1.
    V3,
    /// MQTT 5.0.
    V5,
}

/// Reason codes that the broker sends (MQTT 5.0, section 2.4).
pub(crate) mod reason {
    pub(crate) const SUCCESS: u8 = 0x00;
    pub(crate) const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
    pub(crate) const UNSPECIFIED: u8 = 0x80;
    pub(crate) const MALFORMED: u8 = 0x81;
    pub(crate) const PROTOCOL_ERROR: u8 = 0x82;
    pub(crate) const UNSUPPORTED_VERSION: u8 = 0x84;
    pub(crate) const CLIENT_ID_INVALID: u8 = 0x85;
    pub(crate) const BAD_CREDENTIALS: u8 = 0x86;
    pub(crate) const NOT_AUTHORIZED: u8 = 0x87;
    pub(crate) const UNAVAILABLE: u8 = 0x88;
    pub(crate) const BUSY: u8 = 0x89;
    pub(crate) const SHUTTING_DOWN: u8 = 0x8B;
    pub(crate) const BAD_AUTHENTICATION_METHOD: u8 = 0x8C;
    pub(crate) const KEEP_ALIVE_TIMEOUT: u8 = 0x8D;
    pub(crate) const TAKEN_OVER: u8 = 0x8E;
    pub(crate) const FILTER_INVALID: u8 = 0x8F;
    pub(crate) const TOPIC_INVALID: u8 = 0x90;
    pub(crate) const ID_NOT_FOUND: u8 = 0x92;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 0x93;
    pub(crate) const TOPIC_ALIAS_INVALID: u8 = 0x94;
    pub(crate) const PACKET_TOO_LARGE: u8 = 0x95;
    pub(crate) const QUOTA: u8 = 0x97;
    pub(crate) const ADMINISTRATIVE: u8 = 0x98;
    pub(crate) const PAYLOAD_FORMAT: u8 = 0x99;
    pub(crate) const NO_SHARED_SUBSCRIPTIONS: u8 = 0x9E;
}

/// A packet from a client.
#[derive(Debug)]
pub(crate) enum Packet {
    Connect(Box<Connect>),
    Publish(Box<Publish>),
    /// PUBACK. Its reason makes no difference: the client has seen the message.
    Puback {
        id: u16,
    },
    /// PUBREC; a refusal ends the exchange.
    Pubrec {
        id: u16,
        refused: bool,
    },
    Pubrel {
        id: u16,
    },
    Pubcomp {
        id: u16,
    },
    Subscribe(Subscribe),
    Unsubscribe {
        id: u16,
        filters: Vec<String>,
    },
    Pingreq,
    /// `publish_will` is MQTT 5's "Disconnect with Will Message", or an error the client reports.
    Disconnect {
        publish_will: bool,
        expiry: Option<u32>,
    },
}

/// CONNECT.
#[derive(Debug)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client: String,
    pub(crate) clean_start: bool,
    /// Seconds; 0 is none.
    pub(crate) keep_alive: u16,
    /// Seconds the session outlives the connection; `u32::MAX` is for ever.
    pub(crate) expiry: u32,
    /// Unacknowledged messages the client takes.
    pub(crate) receive_maximum: u16,
    /// The largest packet the client takes.
    pub(crate) max_packet: u32,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Vec<u8>>,
    pub(crate) will: Option<Will>,
}

/// The message a client leaves for the case that it disappears.
#[derive(Debug, Clone)]
pub(crate) struct Will {
    pub(crate) topic: TopicName,
    pub(crate) payload: Bytes,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    /// Seconds to wait for the client to come back.
    pub(crate) delay: u32,
    pub(crate) properties: MessageProperties,
}

/// PUBLISH.
#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) dup: bool,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    /// `None` when an alias stands for it.
    pub(crate) topic: Option<TopicName>,
    pub(crate) alias: Option<u16>,
    /// 0 for QoS 0.
    pub(crate) id: u16,
    pub(crate) payload: Bytes,
    pub(crate) properties: MessageProperties,
}

/// What travels with a message unchanged.
#[derive(Debug, Clone, Default)]
pub(crate) struct MessageProperties {
    pub(crate) payload_format: Option<u8>,
    pub(crate) expiry_seconds: Option<u32>,
    pub(crate) content_type: Option<Arc<str>>,
    pub(crate) response_topic: Option<TopicName>,
    pub(crate) correlation_data: Option<Bytes>,
    pub(crate) user: Vec<(Arc<str>, Arc<str>)>,
}

/// SUBSCRIBE.
#[derive(Debug)]
pub(crate) struct Subscribe {
    pub(crate) id: u16,
    pub(crate) identifier: Option<u32>,
    pub(crate) entries: Vec<SubscribeEntry>,
}

/// One filter of a SUBSCRIBE. The filter is text: a bad one is refused by itself.
#[derive(Debug)]
pub(crate) struct SubscribeEntry {
    pub(crate) filter: String,
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) retained: SendRetained,
}

/// Retain Handling (MQTT 5.0, section 3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendRetained {
    Always,
    IfNew,
    Never,
}
