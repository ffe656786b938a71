//! An MQTT 5 client without a mind of its own: it sends what it is told under the packet id it is told.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// What arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// CONNACK: session present, reason code.
    Connack(bool, u8),
    /// A message: topic, payload, QoS, packet id, DUP.
    Publish {
        /// Topic.
        topic: String,
        /// Payload.
        payload: Vec<u8>,
        /// 0, 1 or 2.
        qos: u8,
        /// 0 for QoS 0.
        id: u16,
        /// Resend.
        dup: bool,
    },
    /// PUBACK (4), PUBREC (5), PUBREL (6), PUBCOMP (7): type, packet id, reason code.
    Ack(u8, u16, u8),
    /// SUBACK and others: type and body.
    Other(u8, Vec<u8>),
}

/// A byte stream.
pub trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

/// A connection.
pub struct Client {
    stream: Box<dyn Duplex>,
    /// The socket under the stream, for its timeouts.
    socket: TcpStream,
    buffer: VecDeque<u8>,
    /// Whether the broker had kept a session of this name.
    pub resumed: bool,
}

impl Client {
    /// Connects; `clean` starts a new session, which otherwise never expires.
    pub fn connect(address: &str, name: &str, clean: bool) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        Self::over(Box::new(socket.try_clone()?), socket, name, clean)
    }

    /// The same over a stream that is more than its socket.
    pub fn over(stream: Box<dyn Duplex>, socket: TcpStream, name: &str, clean: bool) -> io::Result<Self> {
        Self::open(stream, socket, name, clean, None)
    }

    /// A new session of somebody with a password.
    pub fn login(
        stream: Box<dyn Duplex>,
        socket: TcpStream,
        name: &str,
        user: &str,
        password: &str,
    ) -> io::Result<Self> {
        Self::open(stream, socket, name, true, Some((user, password)))
    }

    fn open(
        stream: Box<dyn Duplex>,
        socket: TcpStream,
        name: &str,
        clean: bool,
        user: Option<(&str, &str)>,
    ) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut client = Self { stream, socket, buffer: VecDeque::new(), resumed: false };
        let mut body = vec![0, 4];
        body.extend(b"MQTT");
        // With a user name and a password, two more flags (MQTT 5, 3.1.2).
        let flags = if clean { 2 } else { 0 } | if user.is_some() { 0xc0 } else { 0 };
        body.extend([5, flags, 0, 60]);
        if clean {
            body.push(0);
        } else {
            body.extend([5, 0x11, 0xff, 0xff, 0xff, 0xff]);
        }
        text(&mut body, name);
        if let Some((user, password)) = user {
            text(&mut body, user);
            text(&mut body, password);
        }
        client.send(0x10, &body)?;
        match client.receive()? {
            Packet::Connack(resumed, 0) => Ok(Self { resumed, ..client }),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    /// How long [`Client::receive`] waits.
    pub fn patience(&self, wait: Duration) {
        self.socket.set_read_timeout(Some(wait)).unwrap();
    }

    /// PUBLISH; `name` becomes the user property `holm-id`.
    pub fn publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: u8,
        id: u16,
        dup: bool,
        name: Option<&str>,
    ) -> io::Result<()> {
        let body = publish_body(topic, payload, qos, id, name);
        self.send(0x30 | u8::from(dup) << 3 | qos << 1, &body)
    }

    /// PUBACK and its kin.
    pub fn ack(&mut self, kind: u8, id: u16) -> io::Result<()> {
        let flags = if kind == 6 { 2 } else { 0 };
        self.send(kind << 4 | flags, &id.to_be_bytes())
    }

    /// SUBSCRIBE, and waits for the SUBACK.
    pub fn subscribe(&mut self, filter: &str, qos: u8) -> io::Result<()> {
        let mut body = vec![0, 1, 0];
        text(&mut body, filter);
        body.push(qos);
        self.send(0x82, &body)?;
        match self.receive()? {
            Packet::Other(9, body) if body.last() == Some(&qos) => Ok(()),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    /// DISCONNECT.
    pub fn disconnect(mut self) {
        let _ = self.send(0xe0, &[]);
    }

    /// Raw bytes.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    fn send(&mut self, first: u8, body: &[u8]) -> io::Result<()> {
        let mut packet = vec![first];
        length(&mut packet, body.len());
        packet.extend(body);
        self.stream.write_all(&packet)
    }

    /// The next packet; an error when the connection ends or the patience does.
    pub fn receive(&mut self) -> io::Result<Packet> {
        loop {
            if let Some(packet) = self.parse() {
                return Ok(packet);
            }
            let mut chunk = [0; 16 * 1024];
            let count = self.stream.read(&mut chunk)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend(&chunk[..count]);
        }
    }

    fn parse(&mut self) -> Option<Packet> {
        let bytes = self.buffer.make_contiguous();
        let first = *bytes.first()?;
        let (length, digits) = read_length(&bytes[1..])?;
        let total = 1 + digits + length;
        let body = bytes.get(1 + digits..total)?.to_vec();
        self.buffer.drain(..total);
        let kind = first >> 4;
        Some(match kind {
            2 => Packet::Connack(body[0] & 1 == 1, body[1]),
            3 => {
                let qos = first >> 1 & 3;
                let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                let mut at = topic_end;
                let mut id = 0;
                if qos > 0 {
                    id = u16::from_be_bytes([body[at], body[at + 1]]);
                    at += 2;
                }
                let (properties, digits) = read_length(&body[at..]).unwrap();
                Packet::Publish {
                    topic: String::from_utf8(body[2..topic_end].to_vec()).unwrap(),
                    payload: body[at + digits + properties..].to_vec(),
                    qos,
                    id,
                    dup: first & 8 != 0,
                }
            }
            4..=7 => Packet::Ack(kind, u16::from_be_bytes([body[0], body[1]]), body.get(2).copied().unwrap_or(0)),
            _ => Packet::Other(kind, body),
        })
    }
}

fn publish_body(topic: &str, payload: &[u8], qos: u8, id: u16, name: Option<&str>) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    let mut properties = Vec::new();
    if let Some(name) = name {
        properties.push(0x26);
        text(&mut properties, "holm-id");
        text(&mut properties, name);
    }
    length(&mut body, properties.len());
    body.extend(properties);
    body.extend(payload);
    body
}

fn text(to: &mut Vec<u8>, text: &str) {
    to.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    to.extend(text.as_bytes());
}

fn length(to: &mut Vec<u8>, mut length: usize) {
    loop {
        let digit = u8::try_from(length % 128).unwrap();
        length /= 128;
        to.push(if length > 0 { digit | 128 } else { digit });
        if length == 0 {
            return;
        }
    }
}

fn read_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(4) {
        value |= usize::from(byte & 127) << (7 * index);
        if byte & 128 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}
