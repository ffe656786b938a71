//! Messages.

use serde::Serialize;

use crate::{Error, Payload, backend};

/// How hard MQTT tries to deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Qos {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1: part of the event's settlement, so that it is not lost if the node stops.
    #[default]
    AtLeastOnce,
    /// QoS 2.
    ExactlyOnce,
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Route {
    /// The local broker.
    #[default]
    Local,
    /// The cloud.
    Cloud,
    /// Both.
    Both,
}

/// A message with everything that can be said about it.
///
/// ```no_run
/// # use holm_function::prelude::*;
/// Publish::to("state/pump").bytes("on").retain().send()?;
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Publish {
    /// The topic; the manifest must grant it.
    pub topic: String,
    /// What.
    pub payload: Payload,
    /// At least once unless said otherwise.
    pub qos: Qos,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
    /// Where to.
    pub route: Route,
    /// Seconds after which it may be dropped undelivered.
    pub expiry_seconds: Option<u32>,
    /// MQTT 5 user properties.
    pub user_properties: Vec<(String, String)>,
}

impl Publish {
    /// An empty message to `topic`, at QoS 1.
    pub fn to(topic: impl Into<String>) -> Self {
        Self { topic: topic.into(), ..Self::default() }
    }

    /// With these bytes.
    pub fn bytes(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.payload = Payload::bytes(data);
        self
    }

    /// With a value as JSON.
    pub fn json<T: Serialize + ?Sized>(mut self, value: &T) -> Result<Self, Error> {
        self.payload = Payload::json(value)?;
        Ok(self)
    }

    /// With another QoS.
    pub fn qos(mut self, qos: Qos) -> Self {
        self.qos = qos;
        self
    }

    /// Kept by the broker for later subscribers.
    pub fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    /// To the cloud, or both ways.
    pub fn route(mut self, route: Route) -> Self {
        self.route = route;
        self
    }

    /// Stages it: it leaves if the handler succeeds.
    pub fn send(self) -> Result<(), Error> {
        backend::publish(self)
    }
}

/// Stages bytes to a topic, at QoS 1.
pub fn publish(topic: &str, data: impl Into<Vec<u8>>) -> Result<(), Error> {
    Publish::to(topic).bytes(data).send()
}

/// Stages a value as JSON to a topic, at QoS 1.
pub fn publish_json<T: Serialize + ?Sized>(topic: &str, value: &T) -> Result<(), Error> {
    Publish::to(topic).json(value)?.send()
}
