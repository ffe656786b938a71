//! What a client of MQTT 3.1.1 writes and reads. Section numbers are those of the OASIS standard of 2014.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::CloudError;
use crate::encode::{put_text, put_varint};

/// The largest remaining length (section 2.2.3).
const MAX_REMAINING: usize = 268_435_455;

/// A packet from the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet {
    Connack { code: u8 },
    Suback { id: u16, codes: Vec<u8> },
    Puback { id: u16 },
    Publish { id: Option<u16>, topic: String, payload: Bytes },
    Pong,
}

/// CONNECT with a clean session, no will and no credentials: the certificate says who we are (section 3.1).
pub(super) fn connect(out: &mut BytesMut, client_id: &str, keep_alive: u16) {
    out.put_u8(0x10);
    put_varint(out, 12 + client_id.len());
    put_text(out, "MQTT");
    out.put_slice(&[4, 0x02]);
    out.put_u16(keep_alive);
    put_text(out, client_id);
}

/// SUBSCRIBE with QoS 0 (section 3.8).
pub(super) fn subscribe(out: &mut BytesMut, id: u16, filters: &[String]) {
    out.put_u8(0x82);
    put_varint(out, 2 + filters.iter().map(|filter| filter.len() + 3).sum::<usize>());
    out.put_u16(id);
    for filter in filters {
        put_text(out, filter);
        out.put_u8(0);
    }
}

/// PUBLISH with QoS 1 (section 3.3). `None` if it is too long to be one; then nothing was written.
pub(super) fn publish(out: &mut BytesMut, topic: &str, id: u16, payload: &[u8]) -> Option<()> {
    let remaining = 4 + topic.len() + payload.len();
    if topic.len() > usize::from(u16::MAX) || remaining > MAX_REMAINING {
        return None;
    }
    out.reserve(5 + remaining);
    out.put_u8(0x32);
    put_varint(out, remaining);
    put_text(out, topic);
    out.put_u16(id);
    out.put_slice(payload);
    Some(())
}

/// PUBACK (section 3.4).
pub(super) fn puback(out: &mut BytesMut, id: u16) {
    out.put_slice(&[0x40, 2]);
    out.put_u16(id);
}

/// PINGREQ (section 3.12).
pub(super) fn ping(out: &mut BytesMut) {
    out.put_slice(&[0xC0, 0]);
}

/// DISCONNECT (section 3.14).
pub(super) fn disconnect(out: &mut BytesMut) {
    out.put_slice(&[0xE0, 0]);
}

/// Takes the next whole packet out of `input`, `None` while it is incomplete.
pub(super) fn next(input: &mut BytesMut, max_bytes: u32) -> Result<Option<Packet>, CloudError> {
    let fault = |what| Err(CloudError::Protocol { what });
    let Some((&first, rest)) = input.split_first() else { return Ok(None) };
    let (mut length, mut digits) = (0_usize, None);
    for (index, &byte) in rest.iter().enumerate().take(4) {
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            digits = Some(index + 1);
            break;
        }
    }
    let Some(digits) = digits else {
        return if rest.len() >= 4 { fault("a length of more than four bytes") } else { Ok(None) };
    };
    let header = 1 + digits;
    if header + length > max_bytes as usize {
        return fault("a packet is longer than we take");
    }
    if input.len() < header + length {
        return Ok(None);
    }
    input.advance(header);
    parse(first, input.split_to(length).freeze()).map(Some)
}

fn parse(first: u8, mut body: Bytes) -> Result<Packet, CloudError> {
    let fault = |what| Err(CloudError::Protocol { what });
    match (first, &*body) {
        (0x20, [_, code]) => Ok(Packet::Connack { code: *code }),
        (0x40, [high, low]) => Ok(Packet::Puback { id: u16::from_be_bytes([*high, *low]) }),
        (0x90, [high, low, codes @ ..]) => {
            Ok(Packet::Suback { id: u16::from_be_bytes([*high, *low]), codes: codes.to_vec() })
        }
        (0xD0, []) => Ok(Packet::Pong),
        (0x30..=0x3F, _) => {
            let qos = (first >> 1) & 3;
            if qos > 1 {
                return fault("a message above the QoS that was subscribed for");
            }
            let Ok(topic) = body.try_get_u16() else { return fault("a message without a topic") };
            if body.len() < usize::from(topic) {
                return fault("a message without a topic");
            }
            let topic = body.split_to(usize::from(topic));
            let Ok(topic) = std::str::from_utf8(&topic) else { return fault("a topic that is no text") };
            let topic = topic.to_owned();
            let id = match qos {
                0 => None,
                _ => match body.try_get_u16() {
                    Ok(id) if id > 0 => Some(id),
                    _ => return fault("a message without a packet id"),
                },
            };
            // Copied: the owner may keep it, and the packet may be a small part of a large read.
            Ok(Packet::Publish { id, topic, payload: Bytes::copy_from_slice(&body) })
        }
        _ => fault("a packet that servers do not send"),
    }
}

/// Words for the code of a CONNACK (table 3.1).
pub(super) fn refusal(code: u8) -> &'static str {
    match code {
        1 => "it does not speak this version of MQTT",
        2 => "it does not like the client id",
        3 => "it is not available",
        4 => "bad user name or password",
        5 => "not authorised",
        _ => "it does not say why",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<Packet>, String> {
        let mut input = BytesMut::from(bytes);
        let mut found = Vec::new();
        loop {
            match next(&mut input, 1000) {
                Ok(Some(packet)) => found.push(packet),
                Ok(None) => return Ok(found),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    #[test]
    fn reads_what_servers_send_and_nothing_else() {
        let message = |id| Packet::Publish { id, topic: "a/b".into(), payload: Bytes::from_static(b"x") };
        let good: Vec<(&[u8], Packet)> = vec![
            (&[0x20, 2, 0, 5], Packet::Connack { code: 5 }),
            (&[0x40, 2, 1, 2], Packet::Puback { id: 258 }),
            (&[0x90, 4, 0, 1, 0, 0x80], Packet::Suback { id: 1, codes: vec![0, 0x80] }),
            (&[0xD0, 0], Packet::Pong),
            (b"\x30\x06\0\x03a/bx", message(None)),
            (b"\x3a\x08\0\x03a/b\0\x07x", message(Some(7))),
        ];
        for (bytes, packet) in good {
            for cut in 0..bytes.len() {
                assert_eq!(read(bytes.get(..cut).unwrap()), Ok(vec![]), "{bytes:?} cut at {cut}");
            }
            assert_eq!(read(bytes), Ok(vec![packet]));
        }
        let bad: [&[u8]; 10] = [
            &[0x20, 1, 0],
            &[0x10, 0],
            &[0xD0, 1, 0],
            &[0x40, 3, 0, 1, 0],
            b"\x34\x08\0\x03a/b\0\x07x",
            b"\x32\x06\0\x03a/b\0",
            b"\x32\x07\0\x03a/b\0\0",
            b"\x30\x03\0\x09a",
            b"\x30\x03\0\x01\xff",
            &[0x30, 0xff, 0xff, 0xff, 0xff],
        ];
        for bytes in bad {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
        assert!(read(&[0x30, 0xff, 0x7f]).is_err(), "longer than is taken");
    }

    #[test]
    fn writes_what_the_standard_says() {
        let mut out = BytesMut::new();
        connect(&mut out, "pi3", 360);
        assert_eq!(&out[..], b"\x10\x0f\0\x04MQTT\x04\x02\x01\x68\0\x03pi3");
        out.clear();
        subscribe(&mut out, 1, &["a".to_owned(), "b/+".to_owned()]);
        assert_eq!(&out[..], b"\x82\x0c\0\x01\0\x01a\0\0\x03b/+\0");
        out.clear();
        publish(&mut out, "a/b", 2, b"x").unwrap();
        assert_eq!(&out[..], b"\x32\x08\0\x03a/b\0\x02x");
    }
}
