//! How events and messages lie in rows. Values that people may want to look at with the sqlite3 shell are columns; the
//! rest is one JSON text, whose unknown fields are ignored so that a later release can add some.

use std::sync::Arc;

use bytes::Bytes;
use holm_core::{ClientId, Event, EventId, Message, Payload, Qos, Queued, Source, Timestamp, TopicName};
use rusqlite::Row;

use crate::StoreError;

/// The columns of an event, in the order that [`event`] reads them.
pub(crate) const EVENT_COLUMNS: &str =
    "event_id, source, subject, content_type, data, time, time_synced, hops, attributes, attempt";

pub(crate) fn attributes(event: &Event) -> String {
    // Pairs of texts always serialise.
    serde_json::to_string(&event.attributes).unwrap_or_else(|_| "[]".into())
}

/// Reads an event from a row whose columns `first..` are [`EVENT_COLUMNS`].
pub(crate) fn event(table: &'static str, row: &Row<'_>, first: usize) -> Result<Event, StoreError> {
    let bad = |error: rusqlite::Error| StoreError::Row { table, what: error.to_string() };
    let source: String = row.get(first + 1).map_err(bad)?;
    let attributes: String = row.get(first + 8).map_err(bad)?;
    Ok(Event {
        id: EventId(row.get::<_, String>(first).map_err(bad)?.into()),
        source: Source::parse(&source)
            .ok_or_else(|| StoreError::Row { table, what: format!("unknown source `{source}`") })?,
        subject: row.get::<_, String>(first + 2).map_err(bad)?.into(),
        content_type: row.get::<_, Option<String>>(first + 3).map_err(bad)?.map(Arc::from),
        data: Bytes::from(row.get::<_, Vec<u8>>(first + 4).map_err(bad)?),
        time: Timestamp(row.get(first + 5).map_err(bad)?),
        time_synced: row.get(first + 6).map_err(bad)?,
        hops: row.get(first + 7).map_err(bad)?,
        attributes: serde_json::from_str(&attributes)
            .map_err(|error| StoreError::Row { table, what: format!("attributes: {error}") })?,
        attempt: row.get(first + 9).map_err(bad)?,
    })
}

/// All of a message but its topic and payload.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Head {
    qos: Qos,
    #[serde(default, skip_serializing_if = "is_false")]
    retain: bool,
    accepted: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expiry_seconds: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload_format: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response_topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation_data: Option<Vec<u8>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    user_properties: Vec<(Arc<str>, Arc<str>)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    publisher: Option<Arc<str>>,
}

fn is_false(value: &bool) -> bool {
    !*value
}

pub(crate) fn head(message: &Message) -> Result<String, StoreError> {
    let head = Head {
        qos: message.qos,
        retain: message.retain,
        accepted: message.accepted,
        content_type: message.payload.content_type.clone(),
        expiry_seconds: message.expiry_seconds,
        payload_format: message.payload_format,
        response_topic: message.response_topic.as_ref().map(ToString::to_string),
        correlation_data: message.correlation_data.as_ref().map(|data| data.to_vec()),
        user_properties: message.user_properties.clone(),
        publisher: message.publisher.as_ref().map(|client| client.0.clone()),
    };
    serde_json::to_string(&head).map_err(|error| StoreError::Row { table: "message", what: error.to_string() })
}

pub(crate) fn message(table: &'static str, topic: &str, payload: Vec<u8>, head: &str) -> Result<Message, StoreError> {
    let bad = |what: String| StoreError::Row { table, what };
    let head: Head = serde_json::from_str(head).map_err(|error| bad(error.to_string()))?;
    let topic_name = |text: &str| TopicName::new(text).map_err(|error| bad(error.to_string()));
    Ok(Message {
        topic: topic_name(topic)?,
        payload: Payload { content_type: head.content_type, data: payload.into() },
        qos: head.qos,
        retain: head.retain,
        accepted: head.accepted,
        expiry_seconds: head.expiry_seconds,
        payload_format: head.payload_format,
        response_topic: head.response_topic.as_deref().map(topic_name).transpose()?,
        correlation_data: head.correlation_data.map(Bytes::from),
        user_properties: head.user_properties,
        publisher: head.publisher.map(ClientId),
    })
}

pub(crate) fn identifiers(queued: &Queued) -> String {
    let texts: Vec<String> = queued.identifiers.iter().map(ToString::to_string).collect();
    texts.join(",")
}

pub(crate) fn parse_identifiers(text: &str) -> Vec<u32> {
    text.split(',').filter_map(|part| part.parse().ok()).collect()
}

pub(crate) fn qos(table: &'static str, level: u8) -> Result<Qos, StoreError> {
    Qos::from_level(level).ok_or_else(|| StoreError::Row { table, what: format!("QoS {level}") })
}
