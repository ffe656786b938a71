//! Packets to bytes, straight into the connection's output: a message costs one copy for each subscriber.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use holm_core::{Message, Qos, Timestamp};

use crate::packet::{Version, reason};

/// The largest remaining length (MQTT 5.0, section 1.5.5).
const MAX_REMAINING: usize = 268_435_455;

/// What CONNACK tells an accepted client, beside the fixed parts.
#[derive(Debug)]
pub(crate) struct Welcome<'a> {
    pub(crate) session_present: bool,
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet: u32,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) assigned_client: Option<&'a str>,
    pub(crate) keep_alive: Option<u16>,
    pub(crate) expiry: Option<u32>,
}

/// CONNACK that accepts.
pub(crate) fn welcome(out: &mut BytesMut, version: Version, welcome: &Welcome<'_>) {
    if version == Version::V3 {
        out.put_slice(&[0x20, 2, u8::from(welcome.session_present), 0]);
        return;
    }
    let mut properties = BytesMut::new();
    properties.put_u8(0x21);
    properties.put_u16(welcome.receive_maximum);
    properties.put_u8(0x27);
    properties.put_u32(welcome.max_packet);
    properties.put_u8(0x22);
    properties.put_u16(welcome.topic_alias_maximum);
    // Shared subscriptions are not offered.
    properties.put_slice(&[0x2A, 0]);
    if let Some(client) = welcome.assigned_client {
        properties.put_u8(0x12);
        put_text(&mut properties, client);
    }
    if let Some(seconds) = welcome.keep_alive {
        properties.put_u8(0x13);
        properties.put_u16(seconds);
    }
    if let Some(seconds) = welcome.expiry {
        properties.put_u8(0x11);
        properties.put_u32(seconds);
    }
    out.put_u8(0x20);
    put_varint(out, 2 + varint_len(properties.len()) + properties.len());
    out.put_slice(&[u8::from(welcome.session_present), reason::SUCCESS]);
    put_varint(out, properties.len());
    out.put_slice(&properties);
}

/// CONNACK that refuses.
pub(crate) fn refusal(out: &mut BytesMut, version: Version, code: u8) {
    match version {
        Version::V5 => out.put_slice(&[0x20, 3, 0, code, 0]),
        Version::V3 => {
            // MQTT 3.1.1, table 3.1.
            let code = match code {
                reason::UNSUPPORTED_VERSION => 1,
                reason::CLIENT_ID_INVALID => 2,
                reason::BAD_CREDENTIALS => 4,
                reason::NOT_AUTHORIZED => 5,
                _ => 3,
            };
            out.put_slice(&[0x20, 2, 0, code]);
        }
    }
}

/// DISCONNECT. MQTT 3.1.1 has none from the server: its client sees the connection close.
pub(crate) fn disconnect(out: &mut BytesMut, version: Version, code: u8) {
    if version == Version::V5 {
        out.put_slice(&[0xE0, 1, code]);
    }
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP differ in their first byte only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Ack {
    Puback = 0x40,
    Pubrec = 0x50,
    Pubrel = 0x62,
    Pubcomp = 0x70,
}

pub(crate) fn ack(out: &mut BytesMut, version: Version, kind: Ack, id: u16, code: u8) {
    let [high, low] = id.to_be_bytes();
    if version == Version::V5 && code != reason::SUCCESS {
        out.put_slice(&[kind as u8, 3, high, low, code]);
    } else {
        out.put_slice(&[kind as u8, 2, high, low]);
    }
}

/// SUBACK: one code for each filter.
pub(crate) fn suback(out: &mut BytesMut, version: Version, id: u16, codes: &[u8]) {
    codes_packet(out, 0x90, version, id, codes);
}

/// UNSUBACK: MQTT 3.1.1 has no codes.
pub(crate) fn unsuback(out: &mut BytesMut, version: Version, id: u16, codes: &[u8]) {
    codes_packet(out, 0xB0, version, id, if version == Version::V5 { codes } else { &[] });
}

fn codes_packet(out: &mut BytesMut, first: u8, version: Version, id: u16, codes: &[u8]) {
    let properties = usize::from(version == Version::V5);
    out.put_u8(first);
    put_varint(out, 2 + properties + codes.len());
    out.put_u16(id);
    out.put_bytes(0, properties);
    out.put_slice(codes);
}

pub(crate) fn pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xD0, 0]);
}

/// How a message goes to one subscriber.
#[derive(Debug)]
pub(crate) struct Delivery<'a> {
    pub(crate) message: &'a Message,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    /// Ignored for QoS 0.
    pub(crate) id: u16,
    pub(crate) identifiers: &'a [u32],
}

/// PUBLISH. Answers whether it was written: a packet above `max_packet` is not, and counts as delivered (MQTT 5.0,
/// 3.1.2.11.4).
pub(crate) fn publish(
    out: &mut BytesMut,
    version: Version,
    max_packet: u32,
    now: Timestamp,
    delivery: &Delivery<'_>,
) -> bool {
    let message = delivery.message;
    let (topic, payload) = (message.topic.as_str(), &message.payload.data);
    if version == Version::V5 && !fields_fit(message) {
        return false;
    }
    let id_len = if delivery.qos == Qos::AtMostOnce { 0 } else { 2 };
    let remaining_expiry = message.expiry_seconds.map(|_| remaining_seconds(message, now));
    let properties = match version {
        Version::V3 => None,
        Version::V5 => Some(properties_len(message, delivery.identifiers)),
    };
    let remaining =
        2 + topic.len() + id_len + properties.map_or(0, |length| varint_len(length) + length) + payload.len();
    if remaining > MAX_REMAINING || 1 + varint_len(remaining) + remaining > max_packet as usize {
        return false;
    }
    out.reserve(5 + remaining);
    let flags = (u8::from(delivery.dup) << 3) | (delivery.qos.level() << 1) | u8::from(delivery.retain);
    out.put_u8(0x30 | flags);
    put_varint(out, remaining);
    put_text(out, topic);
    if delivery.qos != Qos::AtMostOnce {
        out.put_u16(delivery.id);
    }
    if let Some(length) = properties {
        put_varint(out, length);
        put_properties(out, message, remaining_expiry, delivery.identifiers);
    }
    out.put_slice(payload);
    true
}

/// Whether a message is past its expiry and must not be sent any more.
pub(crate) fn is_expired(message: &Message, now: Timestamp) -> bool {
    message.expiry_seconds.is_some() && remaining_seconds(message, now) == 0
}

fn remaining_seconds(message: &Message, now: Timestamp) -> u32 {
    // A clock that was set back must not make messages live longer than they were given.
    let passed = now.0.saturating_sub(message.accepted.0).max(0) / 1000;
    let passed = u32::try_from(passed).unwrap_or(u32::MAX);
    message.expiry_seconds.unwrap_or(u32::MAX).saturating_sub(passed)
}

/// Whether every property fits its 16-bit length. What came over MQTT does; the node's own messages may not.
fn fields_fit(message: &Message) -> bool {
    let fits = |length: usize| length <= usize::from(u16::MAX);
    message.payload.content_type.as_ref().is_none_or(|text| fits(text.len()))
        && message.correlation_data.as_ref().is_none_or(|data| fits(data.len()))
        && message.user_properties.iter().all(|(key, value)| fits(key.len()) && fits(value.len()))
}

fn properties_len(message: &Message, identifiers: &[u32]) -> usize {
    let text = |text: &Arc<str>| 3 + text.len();
    message.payload_format.map_or(0, |_| 2)
        + message.expiry_seconds.map_or(0, |_| 5)
        + message.payload.content_type.as_ref().map_or(0, text)
        + message.response_topic.as_ref().map_or(0, |topic| 3 + topic.as_str().len())
        + message.correlation_data.as_ref().map_or(0, |data| 3 + data.len())
        + message.user_properties.iter().map(|(key, value)| 5 + key.len() + value.len()).sum::<usize>()
        + identifiers.iter().map(|&id| 1 + varint_len(id as usize)).sum::<usize>()
}

fn put_properties(out: &mut BytesMut, message: &Message, expiry: Option<u32>, identifiers: &[u32]) {
    if let Some(format) = message.payload_format {
        out.put_slice(&[0x01, format]);
    }
    if let Some(seconds) = expiry {
        out.put_u8(0x02);
        out.put_u32(seconds);
    }
    if let Some(content_type) = &message.payload.content_type {
        out.put_u8(0x03);
        put_text(out, content_type);
    }
    if let Some(topic) = &message.response_topic {
        out.put_u8(0x08);
        put_text(out, topic.as_str());
    }
    if let Some(data) = &message.correlation_data {
        out.put_u8(0x09);
        put_binary(out, data);
    }
    for &identifier in identifiers {
        out.put_u8(0x0B);
        put_varint(out, identifier as usize);
    }
    for (key, value) in &message.user_properties {
        out.put_u8(0x26);
        put_text(out, key);
        put_text(out, value);
    }
}

pub(crate) fn put_text(out: &mut BytesMut, text: &str) {
    put_binary(out, text.as_bytes());
}

/// A field of at most 65,535 bytes: see [`fields_fit`]; topics are checked when made.
fn put_binary(out: &mut BytesMut, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.put_u16(length);
    out.put_slice(bytes.get(..usize::from(length)).unwrap_or(bytes));
}

pub(crate) fn put_varint(out: &mut BytesMut, mut value: usize) {
    loop {
        let low = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            out.put_u8(low);
            return;
        }
        out.put_u8(low | 0x80);
    }
}

fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}
