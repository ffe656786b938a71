//! Events, and the messages they come from and lead to.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::TopicName;

/// How hard MQTT tries to deliver (MQTT 5.0, section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Qos {
    /// QoS 0.
    #[default]
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce,
    /// QoS 2.
    ExactlyOnce,
}

impl Qos {
    /// 0, 1 or 2.
    pub fn level(self) -> u8 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce => 1,
            Self::ExactlyOnce => 2,
        }
    }

    /// From 0, 1 or 2; anything else is `None`.
    pub fn from_level(level: u8) -> Option<Self> {
        match level {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z by the node's clock, which may be wrong: see [`Event::time_synced`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

/// Names one event on this node, and stays the same across its retries. The publisher's message id where it sent one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct EventId(pub Arc<str>);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What kind of thing an event came from. Guests see its text, so that a new kind does not break their interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A message on a topic.
    Mqtt,
    /// A cron expression or an interval came due.
    Schedule,
    /// A sensor was read.
    Sensor,
    /// A line changed.
    Gpio,
    /// A file is complete.
    File,
    /// A request on a route.
    Http,
    /// Another function finished.
    Function,
    /// The node started, was deployed to, connected.
    Lifecycle,
    /// A function enqueued or invoked this one.
    Invoke,
    /// The operator, through the admin socket.
    Admin,
}

impl Source {
    /// The text that guests and the store see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Schedule => "schedule",
            Self::Sensor => "sensor",
            Self::Gpio => "gpio",
            Self::File => "file",
            Self::Http => "http",
            Self::Function => "function",
            Self::Lifecycle => "lifecycle",
            Self::Invoke => "invoke",
            Self::Admin => "admin",
        }
    }

    /// The inverse of [`Source::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        let all = [
            Self::Mqtt,
            Self::Schedule,
            Self::Sensor,
            Self::Gpio,
            Self::File,
            Self::Http,
            Self::Function,
            Self::Lifecycle,
            Self::Invoke,
            Self::Admin,
        ];
        all.into_iter().find(|source| source.as_str() == text)
    }
}

/// Something that happened, as every trigger reports it and every function receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Stable across retries.
    pub id: EventId,
    /// The kind of trigger.
    pub source: Source,
    /// Topic, schedule name, or the function that caused it.
    pub subject: Arc<str>,
    /// MIME type, where the publisher gave one.
    pub content_type: Option<Arc<str>>,
    /// The payload. Cheap to clone.
    pub data: Bytes,
    /// When this node accepted it.
    pub time: Timestamp,
    /// Whether the node's clock had been trusted since boot when `time` was taken.
    pub time_synced: bool,
    /// 1 on first delivery.
    pub attempt: u32,
    /// How many functions stand between this event and the outside world; the loop guard cuts at a limit.
    pub hops: u8,
    /// MQTT 5 user properties, `qos`, `retain`, `traceparent`, ...
    pub attributes: Vec<(Arc<str>, Arc<str>)>,
}

/// Bytes with an optional MIME type.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Payload {
    /// MIME type.
    pub content_type: Option<Arc<str>>,
    /// The bytes. Cheap to clone.
    pub data: Bytes,
}

/// Where a function's publish goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Route {
    /// The local broker.
    #[default]
    Local,
    /// The outbox to the cloud.
    Cloud,
    /// Both.
    Both,
}

/// A message that a function wants to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Where to.
    pub topic: TopicName,
    /// What.
    pub payload: Payload,
    /// QoS 0 leaves at once when the handler succeeds; 1 and 2 are part of the settlement's transaction.
    pub qos: Qos,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
    /// Local, cloud, or both.
    pub route: Route,
    /// Seconds after which an undelivered message may be dropped.
    pub expiry_seconds: Option<u32>,
    /// MQTT 5 user properties.
    pub user_properties: Vec<(Arc<str>, Arc<str>)>,
}
