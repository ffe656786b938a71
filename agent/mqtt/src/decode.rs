//! Bytes from a client to packets. `mqtt-protocol-core` parses; what its parsers let through is checked here: header
//! flags, trailing bytes, packet id 0, reserved bits, topics, NUL characters.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use holm_core::{Qos, TopicError, TopicName};
use mqtt::ArcPayload;
use mqtt::packet::{Property, RetainHandling, SubEntry, v3_1_1 as v3, v5_0 as v5};
use mqtt::result_code::{DisconnectReasonCode, MqttError};
use mqtt_protocol_core::mqtt;

use crate::packet::{
    Connect, MessageProperties, Packet, Publish, SendRetained, Subscribe, SubscribeEntry, Version, Will, reason,
};

/// Bytes that are no packet, or one that is not allowed. The connection ends, with this reason code where the protocol
/// has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) reason: u8,
}

impl Fault {
    pub(crate) const MALFORMED: Self = Self { reason: reason::MALFORMED };
    pub(crate) const PROTOCOL: Self = Self { reason: reason::PROTOCOL_ERROR };
}

impl From<MqttError> for Fault {
    fn from(error: MqttError) -> Self {
        // Values up to 0xFF are reason codes, those above are the library's own affairs.
        Self { reason: u8::try_from(error as u16).unwrap_or(reason::UNSPECIFIED) }
    }
}

/// Takes the next whole packet out of `input`, `None` while it is incomplete. `version` is `None` until CONNECT, the
/// only packet accepted then.
pub(crate) fn next(input: &mut BytesMut, version: Option<Version>, max_bytes: u32) -> Result<Option<Packet>, Fault> {
    // Nothing but CONNECT may come first: other protocols are told so at once, not when their time is up.
    if version.is_none() && input.first().is_some_and(|&first| first != 0x10) {
        return Err(Fault::PROTOCOL);
    }
    let Some((first, header, total)) = header(input, max_bytes)? else { return Ok(None) };
    let Some(body) = input.get(header..total) else { return Ok(None) };
    let packet = parse(first, body, version)?;
    input.advance(total);
    Ok(Some(packet))
}

/// First byte, header length and total length, when the header is complete.
fn header(input: &[u8], max_bytes: u32) -> Result<Option<(u8, usize, usize)>, Fault> {
    let Some((&first, rest)) = input.split_first() else { return Ok(None) };
    let mut length = 0_usize;
    for (index, &byte) in rest.iter().enumerate().take(4) {
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            let header = index + 2;
            if header + length > max_bytes as usize {
                return Err(Fault { reason: reason::PACKET_TOO_LARGE });
            }
            return Ok(Some((first, header, header + length)));
        }
    }
    if rest.len() >= 4 { Err(Fault::MALFORMED) } else { Ok(None) }
}

fn parse(first: u8, body: &[u8], version: Option<Version>) -> Result<Packet, Fault> {
    let (kind, flags) = (first >> 4, first & 0x0F);
    // MQTT 5.0, table 2-2: every type but PUBLISH has fixed flags, which the library does not look at.
    let wanted = match kind {
        3 => flags,
        6 | 8 | 10 => 2,
        _ => 0,
    };
    if flags != wanted {
        return Err(Fault::MALFORMED);
    }
    match (kind, version) {
        (1, None) => connect(body),
        (_, None) | (1, Some(_)) => Err(Fault::PROTOCOL),
        (3, Some(Version::V3)) => publish_v3(flags, body),
        (3, Some(Version::V5)) => publish_v5(flags, body),
        (4, Some(Version::V3)) => Ok(Packet::Puback { id: exact(body, v3::Puback::parse)?.packet_id() }),
        (4, Some(Version::V5)) => Ok(Packet::Puback { id: exact(body, v5::Puback::parse)?.packet_id() }),
        (5, Some(Version::V3)) => {
            Ok(Packet::Pubrec { id: exact(body, v3::Pubrec::parse)?.packet_id(), refused: false })
        }
        (5, Some(Version::V5)) => {
            let packet = exact(body, v5::Pubrec::parse)?;
            let refused = packet.reason_code().is_some_and(|code| code as u8 >= 0x80);
            Ok(Packet::Pubrec { id: packet.packet_id(), refused })
        }
        (6, Some(Version::V3)) => Ok(Packet::Pubrel { id: exact(body, v3::Pubrel::parse)?.packet_id() }),
        (6, Some(Version::V5)) => Ok(Packet::Pubrel { id: exact(body, v5::Pubrel::parse)?.packet_id() }),
        (7, Some(Version::V3)) => Ok(Packet::Pubcomp { id: exact(body, v3::Pubcomp::parse)?.packet_id() }),
        (7, Some(Version::V5)) => Ok(Packet::Pubcomp { id: exact(body, v5::Pubcomp::parse)?.packet_id() }),
        (8, Some(version)) => subscribe(body, version),
        (10, Some(version)) => unsubscribe(body, version),
        (12, Some(_)) if body.is_empty() => Ok(Packet::Pingreq),
        (14, Some(Version::V3)) if body.is_empty() => Ok(Packet::Disconnect { publish_will: false, expiry: None }),
        (14, Some(Version::V5)) => disconnect(body),
        // AUTH is a protocol error too: no CONNECT with an authentication method is accepted.
        (12 | 14, _) => Err(Fault::MALFORMED),
        _ => Err(Fault::PROTOCOL),
    }
}

/// The library's parsers stop at what they know; a packet must end there.
fn exact<T>(body: &[u8], parse: impl FnOnce(&[u8]) -> Result<(T, usize), MqttError>) -> Result<T, Fault> {
    // They index their packet ids before they look at the length in places.
    if body.len() < 2 {
        return Err(Fault::MALFORMED);
    }
    let (packet, used) = parse(body)?;
    if used == body.len() { Ok(packet) } else { Err(Fault::MALFORMED) }
}

fn connect(body: &[u8]) -> Result<Packet, Fault> {
    // Name, version and flags stand at fixed places (MQTT 5.0, section 3.1.2).
    if body.get(..6) != Some(&b"\0\x04MQTT"[..]) {
        return Err(Fault { reason: reason::UNSUPPORTED_VERSION });
    }
    let (Some(&level), Some(&flags)) = (body.get(6), body.get(7)) else { return Err(Fault::MALFORMED) };
    let (will, will_qos, will_retain) = (flags & 0x04 != 0, (flags >> 3) & 0x03, flags & 0x20 != 0);
    if flags & 0x01 != 0 || will_qos == 3 || (!will && (will_qos != 0 || will_retain)) {
        return Err(Fault::MALFORMED);
    }
    let connect = match level {
        4 => connect_v3(&exact(body, v3::Connect::parse)?)?,
        5 => connect_v5(&exact(body, v5::Connect::parse)?)?,
        _ => return Err(Fault { reason: reason::UNSUPPORTED_VERSION }),
    };
    if connect.client.contains('\0') || connect.user.as_ref().is_some_and(|user| user.contains('\0')) {
        return Err(Fault::MALFORMED);
    }
    Ok(Packet::Connect(Box::new(connect)))
}

fn connect_v3(packet: &v3::Connect) -> Result<Connect, Fault> {
    let will = match packet.will_topic() {
        None => None,
        Some(topic) => Some(Will {
            topic: topic_name(topic)?,
            payload: Bytes::copy_from_slice(packet.will_payload().unwrap_or_default()),
            qos: qos(packet.will_qos()),
            retain: packet.will_retain(),
            delay: 0,
            properties: MessageProperties::default(),
        }),
    };
    Ok(Connect {
        version: Version::V3,
        client: packet.client_id().to_owned(),
        clean_start: packet.clean_session(),
        keep_alive: packet.keep_alive(),
        expiry: if packet.clean_session() { 0 } else { u32::MAX },
        receive_maximum: u16::MAX,
        max_packet: u32::MAX,
        user: packet.user_name().map(str::to_owned),
        password: packet.password().map(<[u8]>::to_vec),
        will,
    })
}

fn connect_v5(packet: &v5::Connect) -> Result<Connect, Fault> {
    let (mut expiry, mut receive_maximum, mut max_packet) = (0, u16::MAX, u32::MAX);
    for property in packet.props() {
        match property {
            Property::SessionExpiryInterval(p) => expiry = p.val(),
            Property::ReceiveMaximum(p) => receive_maximum = p.val(),
            Property::MaximumPacketSize(p) => max_packet = p.val(),
            Property::AuthenticationMethod(_) | Property::AuthenticationData(_) => {
                return Err(Fault { reason: reason::BAD_AUTHENTICATION_METHOD });
            }
            // Request Problem and Response Information ask for what is never sent; and no topic alias is sent
            // either, whatever maximum the client gives.
            _ => {}
        }
    }
    if receive_maximum == 0 || max_packet == 0 {
        return Err(Fault::PROTOCOL);
    }
    let will = match packet.will_topic() {
        None => None,
        Some(topic) => {
            let (properties, extra) = message_properties(packet.will_props())?;
            let payload = Bytes::copy_from_slice(packet.will_payload().unwrap_or_default());
            check_format(&properties, &payload)?;
            Some(Will {
                topic: topic_name(topic)?,
                payload,
                qos: qos(packet.will_qos()),
                retain: packet.will_retain(),
                delay: extra.will_delay,
                properties,
            })
        }
    };
    Ok(Connect {
        version: Version::V5,
        client: packet.client_id().to_owned(),
        clean_start: packet.clean_start(),
        keep_alive: packet.keep_alive(),
        expiry,
        receive_maximum,
        max_packet,
        user: packet.user_name().map(str::to_owned),
        password: packet.password().map(<[u8]>::to_vec),
        will,
    })
}

fn publish_v3(flags: u8, body: &[u8]) -> Result<Packet, Fault> {
    let (packet, _) = v3::Publish::parse(flags, Arc::from(body))?;
    let publish = Publish {
        dup: packet.dup(),
        qos: qos(packet.qos()),
        retain: packet.retain(),
        topic: Some(topic_name(packet.topic_name())?),
        alias: None,
        id: packet.packet_id().unwrap_or(0),
        payload: payload(packet.payload()),
        properties: MessageProperties::default(),
    };
    check_publish(publish)
}

fn publish_v5(flags: u8, body: &[u8]) -> Result<Packet, Fault> {
    let (packet, _) = v5::Publish::parse(flags, Arc::from(body))?;
    // The library takes a packet that ends before its property length, which the protocol does not allow to be left
    // out.
    let before_properties = 2 + packet.topic_name().len() + if packet.packet_id().is_some() { 2 } else { 0 };
    if body.len() <= before_properties {
        return Err(Fault::MALFORMED);
    }
    let (properties, extra) = message_properties(packet.props())?;
    if extra.identified {
        // Subscription identifiers travel from the broker to the client only (MQTT 5.0, 3.3.2.3.8).
        return Err(Fault::PROTOCOL);
    }
    let topic = match (packet.topic_name(), extra.alias) {
        ("", Some(_)) => None,
        ("", None) => return Err(Fault::PROTOCOL),
        (text, _) => Some(topic_name(text)?),
    };
    let payload = payload(packet.payload());
    check_format(&properties, &payload)?;
    let publish = Publish {
        dup: packet.dup(),
        qos: qos(packet.qos()),
        retain: packet.retain(),
        topic,
        alias: extra.alias,
        id: packet.packet_id().unwrap_or(0),
        payload,
        properties,
    };
    check_publish(publish)
}

fn check_publish(publish: Publish) -> Result<Packet, Fault> {
    let at_most_once = publish.qos == Qos::AtMostOnce;
    if (!at_most_once && publish.id == 0) || (at_most_once && publish.dup) {
        return Err(Fault::MALFORMED);
    }
    Ok(Packet::Publish(Box::new(publish)))
}

/// A payload that claims to be text must be text, for we forward the claim.
fn check_format(properties: &MessageProperties, payload: &[u8]) -> Result<(), Fault> {
    match properties.payload_format {
        Some(1) if std::str::from_utf8(payload).is_err() => Err(Fault { reason: reason::PAYLOAD_FORMAT }),
        _ => Ok(()),
    }
}

fn subscribe(body: &[u8], version: Version) -> Result<Packet, Fault> {
    let (id, identifier, entries) = match version {
        Version::V3 => {
            let packet = exact(body, v3::Subscribe::parse)?;
            let entries = packet.entries().iter().map(|entry| subscribe_entry(entry, version));
            (packet.packet_id(), None, entries.collect::<Result<_, _>>()?)
        }
        Version::V5 => {
            let packet = exact(body, v5::Subscribe::parse)?;
            let mut identifiers = packet.props().iter().filter_map(|property| match property {
                Property::SubscriptionIdentifier(p) => Some(p.val()),
                _ => None,
            });
            let identifier = identifiers.next();
            if identifier == Some(0) || identifiers.next().is_some() {
                return Err(Fault::PROTOCOL);
            }
            let entries = packet.entries().iter().map(|entry| subscribe_entry(entry, version));
            (packet.packet_id(), identifier, entries.collect::<Result<_, _>>()?)
        }
    };
    nonzero(id)?;
    Ok(Packet::Subscribe(Subscribe { id, identifier, entries }))
}

fn subscribe_entry(entry: &SubEntry, version: Version) -> Result<SubscribeEntry, Fault> {
    let options = entry.sub_opts();
    let [bits] = *options.to_buffer();
    let reserved = if version == Version::V3 { 0xFC } else { 0xC0 };
    if bits & reserved != 0 {
        return Err(Fault::MALFORMED);
    }
    Ok(SubscribeEntry {
        filter: entry.topic_filter().to_owned(),
        qos: qos(options.qos()),
        no_local: options.nl(),
        retain_as_published: options.rap(),
        retained: match options.rh() {
            RetainHandling::SendRetained => SendRetained::Always,
            RetainHandling::SendRetainedIfNotExists => SendRetained::IfNew,
            RetainHandling::DoNotSendRetained => SendRetained::Never,
        },
    })
}

fn unsubscribe(body: &[u8], version: Version) -> Result<Packet, Fault> {
    let (id, filters) = match version {
        Version::V3 => {
            let packet = exact(body, v3::Unsubscribe::parse)?;
            (packet.packet_id(), packet.entries().iter().map(|filter| filter.as_str().to_owned()).collect())
        }
        Version::V5 => {
            let packet = exact(body, v5::Unsubscribe::parse)?;
            (packet.packet_id(), packet.entries().iter().map(|filter| filter.as_str().to_owned()).collect())
        }
    };
    nonzero(id)?;
    Ok(Packet::Unsubscribe { id, filters })
}

fn disconnect(body: &[u8]) -> Result<Packet, Fault> {
    let (packet, used) = v5::Disconnect::parse(body)?;
    if used != body.len() {
        return Err(Fault::MALFORMED);
    }
    let expiry = packet.props().as_ref().and_then(|properties| {
        properties.iter().find_map(|property| match property {
            Property::SessionExpiryInterval(p) => Some(p.val()),
            _ => None,
        })
    });
    let publish_will = packet.reason_code().is_some_and(|code| code != DisconnectReasonCode::NormalDisconnection);
    Ok(Packet::Disconnect { publish_will, expiry })
}

/// Properties that say something about the packet or its way, not about the message.
#[derive(Debug, Default)]
struct Extra {
    alias: Option<u16>,
    will_delay: u32,
    identified: bool,
}

fn message_properties(properties: &[Property]) -> Result<(MessageProperties, Extra), Fault> {
    let (mut message, mut extra) = (MessageProperties::default(), Extra::default());
    for property in properties {
        match property {
            Property::PayloadFormatIndicator(p) => message.payload_format = Some(p.val()),
            Property::MessageExpiryInterval(p) => message.expiry_seconds = Some(p.val()),
            Property::ContentType(p) => message.content_type = Some(text(p.val())?),
            Property::ResponseTopic(p) => message.response_topic = Some(topic_name(p.val())?),
            Property::CorrelationData(p) => message.correlation_data = Some(Bytes::copy_from_slice(p.val())),
            Property::UserProperty(p) => message.user.push((text(p.key())?, text(p.val())?)),
            Property::TopicAlias(p) => extra.alias = Some(p.val()),
            Property::WillDelayInterval(p) => extra.will_delay = p.val(),
            Property::SubscriptionIdentifier(_) => extra.identified = true,
            _ => return Err(Fault::PROTOCOL),
        }
    }
    Ok((message, extra))
}

fn text(text: &str) -> Result<Arc<str>, Fault> {
    // U+0000 is forbidden in every string (MQTT 5.0, 1.5.4), and the library lets it through.
    if text.contains('\0') { Err(Fault::MALFORMED) } else { Ok(text.into()) }
}

fn topic_name(text: &str) -> Result<TopicName, Fault> {
    TopicName::new(text).map_err(|error| match error {
        TopicError::Nul => Fault::MALFORMED,
        _ => Fault { reason: reason::TOPIC_INVALID },
    })
}

fn nonzero(id: u16) -> Result<(), Fault> {
    if id == 0 { Err(Fault::MALFORMED) } else { Ok(()) }
}

fn qos(qos: mqtt::packet::Qos) -> Qos {
    match qos {
        mqtt::packet::Qos::AtMostOnce => Qos::AtMostOnce,
        mqtt::packet::Qos::AtLeastOnce => Qos::AtLeastOnce,
        mqtt::packet::Qos::ExactlyOnce => Qos::ExactlyOnce,
    }
}

/// Copied, so that a small payload in a queue does not hold on to the packet it came in.
fn payload(payload: &ArcPayload) -> Bytes {
    Bytes::copy_from_slice(payload.as_slice())
}
