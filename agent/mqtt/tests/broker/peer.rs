//! A client made of bytes, which can do what no library lets one do.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::double::DEADLINE;

/// Protocol levels.
pub const V3: u8 = 4;
pub const V5: u8 = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub first: u8,
    pub body: Vec<u8>,
}

impl Received {
    pub fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// Of acknowledgements.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.body[0], self.body[1]])
    }

    /// Of PUBLISH: topic, packet id, properties, payload.
    pub fn publish(&self, version: u8) -> Delivered {
        assert_eq!(self.kind(), 3, "{self:?} is a PUBLISH");
        let length = usize::from(u16::from_be_bytes([self.body[0], self.body[1]]));
        let topic = String::from_utf8(self.body[2..2 + length].to_vec()).unwrap();
        let mut rest = &self.body[2 + length..];
        let qos = (self.first >> 1) & 3;
        let mut id = 0;
        if qos > 0 {
            id = u16::from_be_bytes([rest[0], rest[1]]);
            rest = &rest[2..];
        }
        let mut properties = Vec::new();
        if version == V5 {
            let length = usize::from(rest[0]);
            assert!(length < 128);
            properties = rest[1..=length].to_vec();
            rest = &rest[1 + length..];
        }
        let (dup, retain) = (self.first & 8 != 0, self.first & 1 != 0);
        Delivered { topic, qos, dup, retain, id, properties, payload: rest.to_vec() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    pub topic: String,
    pub qos: u8,
    pub dup: bool,
    pub retain: bool,
    pub id: u16,
    pub properties: Vec<u8>,
    pub payload: Vec<u8>,
}

pub struct Peer<S = TcpStream> {
    pub socket: S,
    pub version: u8,
}

impl Peer {
    pub async fn dial(address: SocketAddr, version: u8) -> Self {
        Self { socket: TcpStream::connect(address).await.unwrap(), version }
    }

    /// Connects and takes CONNACK, which must accept.
    pub async fn connect(address: SocketAddr, version: u8, client: &str, clean: bool) -> Self {
        Self::greet(address, &Connect { version, client, clean, ..Connect::default() }).await.0
    }

    pub async fn greet(address: SocketAddr, connect: &Connect<'_>) -> (Self, Received) {
        let mut peer = Self::dial(address, connect.version).await;
        peer.send(&connect.bytes()).await;
        let answer = peer.receive().await;
        assert_eq!((answer.kind(), answer.body[1]), (2, 0), "{answer:?} accepts");
        (peer, answer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    pub async fn receive(&mut self) -> Received {
        self.receive_or_end().await.expect("a packet")
    }

    /// `None` when the broker closed.
    pub async fn receive_or_end(&mut self) -> Option<Received> {
        let packet = async {
            let first = self.socket.read_u8().await.ok()?;
            let (mut length, mut shift) = (0_usize, 0);
            loop {
                let byte = self.socket.read_u8().await.ok()?;
                length |= usize::from(byte & 0x7F) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let mut body = vec![0; length];
            self.socket.read_exact(&mut body).await.ok()?;
            Some(Received { first, body })
        };
        timeout(DEADLINE, packet).await.expect("an answer in time")
    }

    pub async fn delivered(&mut self) -> Delivered {
        let version = self.version;
        self.receive().await.publish(version)
    }

    /// Nothing but PINGRESP is on its way.
    pub async fn hears_nothing(&mut self) {
        self.send(&[0xC0, 0]).await;
        let next = self.receive().await;
        assert_eq!(next.kind(), 13, "{next:?} is PINGRESP");
    }

    pub async fn is_closed(&mut self) {
        let next = self.receive_or_end().await;
        assert_eq!(next, None, "the broker closes");
    }

    /// Is told why, then closed; MQTT 3.1.1 has no way to tell.
    pub async fn is_closed_for(&mut self, reason: u8) {
        if self.version == V5 {
            let told = self.receive().await;
            assert_eq!((told.kind(), told.body.first().copied()), (14, Some(reason)), "{told:?}");
        }
        self.is_closed().await;
    }

    pub async fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        self.send(&subscribe(self.version, 77, &[(filter, options)])).await;
        let answer = self.receive().await;
        assert_eq!((answer.kind(), answer.id()), (9, 77), "{answer:?}");
        *answer.body.last().unwrap()
    }

    pub async fn publish(&mut self, topic: &str, qos: u8, id: u16, payload: &[u8]) {
        let bytes = publish(self.version, topic, qos << 1, id, payload);
        self.send(&bytes).await;
    }

    pub async fn ack(&mut self, first: u8, id: u16) {
        let [high, low] = id.to_be_bytes();
        self.send(&[first, 2, high, low]).await;
    }
}

#[derive(Debug, Clone, Default)]
pub struct Connect<'a> {
    pub version: u8,
    pub client: &'a str,
    pub clean: bool,
    pub keep_alive: u16,
    /// Encoded.
    pub properties: &'a [u8],
    /// Flags beside the will flag (QoS, retain), topic, payload, encoded properties.
    pub will: Option<(u8, &'a str, &'a [u8], &'a [u8])>,
    pub user: Option<&'a str>,
    pub password: Option<&'a [u8]>,
}

impl Connect<'_> {
    pub fn bytes(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean) << 1;
        let mut body = b"\0\x04MQTT".to_vec();
        body.push(self.version);
        let mut payload = text(self.client);
        if let Some((will, topic, message, properties)) = self.will {
            flags |= will | 4;
            if self.version == V5 {
                payload.push(u8::try_from(properties.len()).unwrap());
                payload.extend(properties);
            }
            payload.extend(text(topic));
            payload.extend(binary(message));
        }
        if let Some(user) = self.user {
            flags |= 0x80;
            payload.extend(text(user));
        }
        if let Some(password) = self.password {
            flags |= 0x40;
            payload.extend(binary(password));
        }
        body.push(flags);
        body.extend(self.keep_alive.to_be_bytes());
        if self.version == V5 {
            body.push(u8::try_from(self.properties.len()).unwrap());
            body.extend(self.properties);
        }
        body.extend(payload);
        packet(0x10, &body)
    }
}

pub fn publish(version: u8, topic: &str, flags: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    publish_with(version, topic, flags, id, &[], payload)
}

pub fn publish_with(version: u8, topic: &str, flags: u8, id: u16, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    if flags & 6 != 0 {
        body.extend(id.to_be_bytes());
    }
    if version == V5 {
        body.push(u8::try_from(properties.len()).unwrap());
        body.extend(properties);
    }
    body.extend(payload);
    packet(0x30 | flags, &body)
}

pub fn subscribe(version: u8, id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == V5 {
        body.push(0);
    }
    for (filter, options) in filters {
        body.extend(text(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let low = u8::try_from(length & 0x7F).unwrap();
        length >>= 7;
        bytes.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

pub fn text(text: &str) -> Vec<u8> {
    binary(text.as_bytes())
}

pub fn binary(bytes: &[u8]) -> Vec<u8> {
    let mut field = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    field.extend(bytes);
    field
}
