//! What a handler gets, and what it may answer.

use serde::{Deserialize, Serialize};

use crate::gpio::Edge;
use crate::sensors::{Reading, pick};
use crate::{Error, Qos, json};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// Stable across retries: what to deduplicate by.
    pub id: String,
    /// `mqtt`, `schedule`, `sensor`, `gpio`, `function`, `invoke`, `lifecycle`, ...
    pub source: String,
    /// The topic, the name of the schedule, sensor or line, or the calling function.
    pub subject: String,
    /// MIME type, where the publisher gave one.
    pub content_type: Option<String>,
    /// The payload.
    pub data: Vec<u8>,
    /// When the node accepted it, in milliseconds since 1970.
    pub time_ms: u64,
    /// Whether the node's clock could be trusted then.
    pub time_synced: bool,
    /// 1 on first delivery.
    pub attempt: u32,
    /// MQTT 5 user properties, `qos`, `retain`, ...
    pub attributes: Vec<(String, String)>,
}

impl Event {
    /// A message, for tests.
    pub fn mqtt(topic: &str, data: impl Into<Vec<u8>>) -> Self {
        Self {
            id: "event-1".to_owned(),
            source: "mqtt".to_owned(),
            subject: topic.to_owned(),
            data: data.into(),
            attempt: 1,
            ..Self::default()
        }
    }

    /// Readings of a sensor, for tests.
    pub fn sensor(sensor: &str, readings: &[Reading]) -> Self {
        let data = serde_json::json!({ "sensor": sensor, "readings": readings }).to_string();
        Self { source: "sensor".to_owned(), ..Self::mqtt(sensor, data) }
    }

    /// A change of a line, for tests.
    pub fn gpio(edge: &Edge) -> Self {
        let data = serde_json::to_vec(edge).unwrap_or_default();
        Self { source: "gpio".to_owned(), ..Self::mqtt(&edge.line, data) }
    }

    /// The same with another attribute, for tests.
    pub fn with_attribute(mut self, name: &str, value: &str) -> Self {
        self.attributes.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The payload as JSON. What it is read into may borrow from it, such as a `&str`.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Error> {
        json::from_slice(&self.data)
    }

    /// The readings of an event of a sensor.
    pub fn readings(&self) -> Result<Vec<Reading>, Error> {
        #[derive(serde::Deserialize)]
        struct Sample {
            readings: Vec<Reading>,
        }
        Ok(self.json::<Sample>()?.readings)
    }

    /// One channel of an event of a sensor.
    pub fn reading(&self, channel: &str) -> Result<Reading, Error> {
        pick(self.readings()?, channel)
    }

    /// The change of an event of a line.
    pub fn edge(&self) -> Result<Edge, Error> {
        self.json()
    }

    /// The payload as text.
    pub fn text(&self) -> Result<&str, Error> {
        std::str::from_utf8(&self.data).map_err(|_| Error::Invalid("the payload is not UTF-8".to_owned()))
    }

    /// The first attribute of that name.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The QoS the message came with; 0 where it was no message.
    pub fn qos(&self) -> Qos {
        match self.attribute("qos") {
            Some("1") => Qos::AtLeastOnce,
            Some("2") => Qos::ExactlyOnce,
            _ => Qos::AtMostOnce,
        }
    }

    /// A level of the topic, counted from 0: of `sensors/a/temp`, level 1 is `a`.
    pub fn level(&self, index: usize) -> Option<&str> {
        self.subject.split('/').nth(index)
    }
}

/// A handler's answer: for whoever invoked the function, or is chained to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Payload {
    /// MIME type.
    pub content_type: Option<String>,
    /// The bytes.
    pub data: Vec<u8>,
}

impl Payload {
    /// Bytes without a type.
    pub fn bytes(data: impl Into<Vec<u8>>) -> Self {
        Self { content_type: None, data: data.into() }
    }

    /// A value as JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        Ok(Self { content_type: Some("application/json".to_owned()), data: json::to_vec(value)? })
    }
}
