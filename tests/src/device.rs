//! A device of the control plane that does exactly as told: it enrols, connects by MQTT 3.1.1 and sends what it is given.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_core::Timestamp;
use holm_protocol::{
    Ack, AgentBuild, BatchBuilder, BatchStart, EnrolRequest, Enrolled, Epoch, Lane, Line, RenewRequest, StreamName,
    ThingName, subscriptions,
};
use rcgen::{CertificateParams, KeyPair, SigningKey as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConnection, StreamOwned};

use crate::control_plane::{Answer, ControlPlane, client_config, tls};

/// The epoch that everything is sent in.
pub const EPOCH: Epoch = Epoch(0x0123_4567_89ab_cdef);

/// A device that is enrolled.
pub struct Device {
    /// Its name.
    pub thing: ThingName,
    /// What it was answered.
    pub enrolled: Enrolled,
    /// Its key.
    pub key: KeyPair,
}

/// What it says it runs on.
pub fn agent() -> AgentBuild {
    let word = str::to_owned;
    AgentBuild { version: word("0.1.0"), arch: word("x86_64"), engine: word("48.0.8"), profile: word("generic") }
}

/// A certificate request.
pub fn request(key: &KeyPair) -> String {
    CertificateParams::new(Vec::new()).unwrap().serialize_request(key).unwrap().pem().unwrap()
}

/// Asks to be enrolled.
pub fn enrol(cloud: &ControlPlane, token: &str, thing: Option<&str>, key: &KeyPair) -> Answer {
    let thing = thing.map(|name| ThingName::new(name).unwrap());
    let request = EnrolRequest { token: token.to_owned(), csr_pem: request(key), thing, agent: agent() };
    cloud.ask("POST", "/v1/enrol", None, &request.write().unwrap())
}

impl Device {
    /// Enrols one in the group `greenhouse`.
    pub fn enrol(cloud: &ControlPlane, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let answer = enrol(cloud, &cloud.enrolment_token("greenhouse"), Some(name), &key);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        let enrolled = Enrolled::read(&answer.body).unwrap();
        Self { thing: enrolled.thing.clone(), enrolled, key }
    }

    /// Asks for a certificate for `key`, vouched for by the one that it has.
    pub fn renew(&self, cloud: &ControlPlane, key: &KeyPair) -> Answer {
        let csr_pem = request(key);
        let signature = self.key.sign(csr_pem.as_bytes()).unwrap();
        let certificate_pem = self.enrolled.certificate_pem.clone();
        let request = RenewRequest { csr_pem, certificate_pem, signature, agent: None };
        cloud.ask("POST", "/v1/renew", None, &request.write().unwrap())
    }

    /// Connects as itself and subscribes as the protocol says.
    pub fn connect(&self, cloud: &ControlPlane) -> Link {
        let mut link = self.try_connect(cloud, self.thing.as_str()).unwrap();
        let shadow = holm_protocol::ShadowName::new("holm").unwrap();
        assert_eq!(link.subscribe(&subscriptions(&self.thing, &shadow)), [0; 8]);
        link
    }

    /// Connects under some name; an error says which code was answered, or how it broke.
    pub fn try_connect(&self, cloud: &ControlPlane, client: &str) -> io::Result<Link> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(self.enrolled.certificate_pem.as_bytes()).collect::<Result<_, _>>().unwrap();
        let key: PrivateKeyDer<'static> = PrivatePkcs8KeyDer::from(self.key.serialize_der()).into();
        let config = client_config().with_root_certificates(cloud.trust()).with_client_auth_cert(chain, key).unwrap();
        Link::open(tls(&cloud.mqtt, config)?, client)
    }

    /// A batch of these lines on a stream of results, and its topic.
    pub fn batch(&self, stream: &str, first: u64, lines: &[Line]) -> (String, Vec<u8>) {
        batch(&self.thing, stream, first, lines)
    }
}

/// A batch of results, and its topic.
pub fn batch(thing: &ThingName, stream: &str, first: u64, lines: &[Line]) -> (String, Vec<u8>) {
    let stream = StreamName::new(stream).unwrap();
    let start = BatchStart { device: thing.clone(), lane: Lane::Results, stream, epoch: EPOCH, first };
    let mut builder = BatchBuilder::new(start);
    let mut next = first;
    for line in lines {
        assert_eq!(builder.push(next, line).unwrap(), holm_protocol::Push::Taken);
        next += line.covers();
    }
    let (header, payload) = builder.finish(Timestamp(1_731_000_001_000)).unwrap();
    (header.address().to_string(), payload)
}

/// Base64, as signatures travel.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// What arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrived {
    /// A message.
    Message(String, Vec<u8>),
    /// PUBACK of this id.
    Puback(u16),
    /// Anything else: its type and body.
    Other(u8, Vec<u8>),
}

/// A connection by MQTT 3.1.1, with a clean session.
pub struct Link {
    stream: StreamOwned<ClientConnection, TcpStream>,
    buffer: VecDeque<u8>,
    /// What came while something else was waited for.
    early: VecDeque<Arrived>,
}

impl Link {
    /// CONNECT over a stream.
    pub fn open(stream: StreamOwned<ClientConnection, TcpStream>, client: &str) -> io::Result<Self> {
        let mut link = Self { stream, buffer: VecDeque::new(), early: VecDeque::new() };
        let mut body = vec![0, 4];
        body.extend(b"MQTT\x04\x02\x00\x3c");
        text(&mut body, client);
        link.send(0x10, &body)?;
        match link.receive()? {
            Arrived::Other(2, body) if body.get(1) == Some(&0) => {
                assert_eq!(body[0], 0, "no session is ever present");
                Ok(link)
            }
            Arrived::Other(2, body) => Err(io::Error::other(format!("CONNACK {}", body[1]))),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    /// SUBSCRIBE with QoS 0; the codes.
    pub fn subscribe(&mut self, filters: &[String]) -> Vec<u8> {
        let mut body = vec![0, 1];
        for filter in filters {
            text(&mut body, filter);
            body.push(0);
        }
        self.send(0x82, &body).unwrap();
        match self.receive().unwrap() {
            Arrived::Other(9, body) => body[2..].to_vec(),
            other => panic!("{other:?}"),
        }
    }

    /// PUBLISH with QoS 1.
    pub fn publish(&mut self, topic: &str, payload: &[u8], id: u16) -> io::Result<()> {
        let mut body = Vec::with_capacity(payload.len() + topic.len() + 4);
        text(&mut body, topic);
        body.extend(id.to_be_bytes());
        body.extend(payload);
        self.send(0x32, &body)
    }

    /// Publishes JSON, and waits for an answer on this topic.
    pub fn ask(&mut self, topic: &str, payload: &str, answer: &str) -> serde_json::Value {
        self.publish(topic, payload.as_bytes(), 77).unwrap();
        let found = self.message(answer);
        self.puback(77);
        serde_json::from_slice(&found).unwrap()
    }

    /// The next message on a topic.
    pub fn message(&mut self, topic: &str) -> Vec<u8> {
        let found = self.until(|arrived| matches!(arrived, Arrived::Message(found, _) if found == topic));
        match found {
            Arrived::Message(_, payload) => payload,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for a message on one of these topics; which.
    pub fn one_of(&mut self, topics: &[&str]) -> String {
        let found =
            self.until(|arrived| matches!(arrived, Arrived::Message(found, _) if topics.contains(&found.as_str())));
        match found {
            Arrived::Message(topic, _) => topic,
            other => panic!("{other:?}"),
        }
    }

    /// The next acknowledgement of records.
    pub fn ack(&mut self, thing: &ThingName) -> Ack {
        Ack::read(&self.message(&format!("holm/{thing}/ack"))).unwrap()
    }

    /// Waits for the PUBACK of an id.
    pub fn puback(&mut self, id: u16) {
        self.until(|arrived| *arrived == Arrived::Puback(id));
    }

    /// Waits until the connection ends.
    pub fn is_closed(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.receive().is_ok() {
            assert!(Instant::now() < deadline, "it goes on");
        }
    }

    fn until(&mut self, wanted: impl Fn(&Arrived) -> bool) -> Arrived {
        if let Some(place) = self.early.iter().position(&wanted) {
            return self.early.remove(place).unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            assert!(Instant::now() < deadline, "it does not come; {:?} did", self.early);
            let arrived = self.receive().unwrap_or_else(|error| panic!("{error}; {:?} came", self.early));
            if wanted(&arrived) {
                return arrived;
            }
            self.early.push_back(arrived);
        }
    }

    fn send(&mut self, first: u8, body: &[u8]) -> io::Result<()> {
        let mut packet = vec![first];
        let mut length = body.len();
        loop {
            let low = (length & 0x7f) as u8;
            length >>= 7;
            packet.push(if length > 0 { low | 0x80 } else { low });
            if length == 0 {
                break;
            }
        }
        packet.extend(body);
        self.stream.write_all(&packet)?;
        self.stream.flush()
    }

    fn receive(&mut self) -> io::Result<Arrived> {
        loop {
            if let Some(arrived) = self.parse() {
                return Ok(arrived);
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.buffer.extend(&chunk[..count]),
            }
        }
    }

    fn parse(&mut self) -> Option<Arrived> {
        let first = *self.buffer.front()?;
        let (mut length, mut at) = (0_usize, 1);
        loop {
            let byte = *self.buffer.get(at)?;
            length |= usize::from(byte & 0x7f) << (7 * (at - 1));
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        if self.buffer.len() < at + length {
            return None;
        }
        let body: Vec<u8> = self.buffer.drain(..at + length).skip(at).collect();
        let word = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        Some(match first >> 4 {
            3 => {
                assert_eq!(first & 6, 0, "what is down is of QoS 0");
                let end = 2 + usize::from(word(0));
                Arrived::Message(String::from_utf8(body[2..end].to_vec()).unwrap(), body[end..].to_vec())
            }
            4 => Arrived::Puback(word(0)),
            kind => Arrived::Other(kind, body),
        })
    }
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    body.extend(text.as_bytes());
}
