//! The session with the control plane: MQTT 3.1.1 over mutual TLS, one connection at a time.
//!
//! # What it guarantees
//!
//! - A [`CloudSession`] that was made is connected, and all its subscriptions were granted.
//! - [`CloudEvent::Acknowledged`] comes once for each publish whose PUBACK came, in whatever order the server sent them.
//! - Nothing outlives the connection: the session at the server is a clean one, and what was not acknowledged by the owner's own
//!   rules is sent again by the owner.
//!
//! # How it works
//!
//! The owner calls [`CloudSession::next`] in its loop and [`CloudSession::publish`] in between; there is no task and no channel
//! here. Everything goes up with QoS 1, and comes down with QoS 0; a server that sends QoS 1 is acknowledged.
//!
//! What MQTT 3.1.1 a client needs is five small packets to read ([`wire`]), so the client library for external brokers is not used:
//! it speaks MQTT 5, and keeps state that this session is better off without.
//!
//! # How it fails
//!
//! With [`CloudError`], after which the session is to be dropped: whatever does not answer in [`CloudOptions::patience`] (the
//! name server, TLS, CONNACK, SUBACK, PUBACK, PINGRESP), whatever is no packet of a server or longer than
//! [`CloudOptions::max_packet`], and what the socket says. So a half-open connection is noticed within the keep-alive and the
//! patience, and while something is on its way within the patience.

mod counted;
mod wire;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::stream::{Progress, Stream};
pub use counted::{Counted, Traffic};
use wire::Packet;

/// Publishes without a PUBACK at a time. The owner has bounds of its own; this one keeps packet ids and memory small.
const WINDOW: usize = 32;

/// Bytes that may wait for the socket before [`CloudSession::has_room`] says no.
const OUTPUT: usize = 64 << 10;

/// What a session is made from.
#[derive(Clone)]
pub struct CloudOptions {
    /// A name or address, which the server's certificate must have.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The client id: the common name of the certificate.
    pub client_id: String,
    /// With our certificate, and whom to trust.
    pub tls: Arc<rustls::ClientConfig>,
    /// A ping is sent after this much silence on our side. Whole seconds, at most 18 hours.
    pub keep_alive: Duration,
    /// How long anything may take to be answered.
    pub patience: Duration,
    /// The largest packet that may come, in bytes.
    pub max_packet: u32,
    /// Filters, subscribed with QoS 0 in one packet.
    pub subscriptions: Vec<String>,
}

/// Why there is no session, or no more.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// The address is not one.
    #[error("`{host}` is not a name or address that a certificate can have")]
    Name {
        /// Which.
        host: String,
    },
    /// No connection.
    #[error("cannot connect to {host}:{port}")]
    Connect {
        /// Where.
        host: String,
        /// Where.
        port: u16,
        /// Why.
        source: std::io::Error,
    },
    /// The handshake failed: whom to trust, or who we are, or the network.
    #[error("no TLS with {host}:{port}")]
    Tls {
        /// Where.
        host: String,
        /// Where.
        port: u16,
        /// Why. [`CloudError::is_certificate`] looks into it.
        source: std::io::Error,
    },
    /// The server will not have us (MQTT 3.1.1, table 3.1).
    #[error("the server refused the connection: {}", wire::refusal(*.code))]
    Refused {
        /// The code of CONNACK.
        code: u8,
    },
    /// A subscription was not granted.
    #[error("the server refused a subscription: {filter}")]
    Subscription {
        /// Which.
        filter: String,
    },
    /// No answer in time.
    #[error("{what} did not come within {seconds} s")]
    Silence {
        /// What was waited for.
        what: &'static str,
        /// How long.
        seconds: u64,
    },
    /// What came is not what a server of MQTT 3.1.1 sends.
    #[error("the server does not speak MQTT 3.1.1: {what}")]
    Protocol {
        /// What is wrong.
        what: &'static str,
    },
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The socket failed.
    #[error("the connection broke")]
    Io {
        /// Why.
        source: std::io::Error,
    },
}

impl CloudError {
    /// Whether TLS failed for a certificate, ours or the server's, rather than for the network. With TLS 1.3 the server's
    /// verdict on ours comes only after the handshake, when the first packet is waited for.
    pub fn is_certificate(&self) -> bool {
        use rustls::{AlertDescription, Error};
        let (Self::Tls { source, .. } | Self::Io { source }) = self else { return false };
        match source.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(Error::InvalidCertificate(_)) => true,
            Some(Error::AlertReceived(alert)) => matches!(
                alert,
                AlertDescription::BadCertificate
                    | AlertDescription::CertificateExpired
                    | AlertDescription::CertificateRevoked
                    | AlertDescription::CertificateUnknown
                    | AlertDescription::CertificateRequired
                    | AlertDescription::UnsupportedCertificate
                    | AlertDescription::UnknownCA
                    | AlertDescription::AccessDenied
            ),
            _ => false,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloudEvent {
    /// The server has taken a publish. It does not say that anybody has stored it.
    Acknowledged(u16),
    /// A message came.
    Message {
        /// Its topic, unchecked.
        topic: String,
        /// Its payload.
        payload: Bytes,
    },
}

/// See the module.
pub struct CloudSession {
    stream: Stream<TlsStream<Counted<TcpStream>>>,
    output: BytesMut,
    traffic: Arc<Traffic>,
    /// Publishes without a PUBACK, oldest first, with the time they were handed over.
    waiting: VecDeque<(u16, Instant)>,
    next_id: u16,
    /// When the last packet was handed over.
    spoke: Instant,
    pinged: Option<Instant>,
    keep_alive: Duration,
    patience: Duration,
    max_packet: u32,
}

impl CloudSession {
    /// Connects and subscribes. What goes over the wire is counted in `traffic`. Cancel safe: nothing is left behind.
    pub async fn connect(options: &CloudOptions, traffic: Arc<Traffic>) -> Result<Self, CloudError> {
        let CloudOptions { host, port, patience, .. } = options;
        let silence = |what| CloudError::Silence { what, seconds: patience.as_secs() };
        let name = ServerName::try_from(host.clone()).map_err(|_| CloudError::Name { host: host.clone() })?;
        let connect = |source| CloudError::Connect { host: host.clone(), port: *port, source };
        let tcp = timeout(*patience, TcpStream::connect((host.as_str(), *port)))
            .await
            .map_err(|_| silence("the connection"))?
            .map_err(connect)?;
        tcp.set_nodelay(true).map_err(connect)?;
        let tls = TlsConnector::from(options.tls.clone()).connect(name, Counted::new(tcp, traffic.clone()));
        let tls = timeout(*patience, tls)
            .await
            .map_err(|_| silence("the TLS handshake"))?
            .map_err(|source| CloudError::Tls { host: host.clone(), port: *port, source })?;
        let mut session = Self {
            stream: Stream::new(tls),
            output: BytesMut::new(),
            traffic,
            waiting: VecDeque::new(),
            next_id: 1,
            spoke: Instant::now(),
            pinged: None,
            keep_alive: options.keep_alive,
            patience: *patience,
            max_packet: options.max_packet,
        };
        let seconds = u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX);
        wire::connect(&mut session.output, &options.client_id, seconds);
        match session.await_answer("CONNACK").await? {
            Packet::Connack { code: 0 } => {}
            Packet::Connack { code } => return Err(CloudError::Refused { code }),
            _ => return Err(CloudError::Protocol { what: "something came before CONNACK" }),
        }
        wire::subscribe(&mut session.output, session.next_id, &options.subscriptions);
        match session.await_answer("SUBACK").await? {
            Packet::Suback { id, codes } if id == session.next_id => {
                let refused = options.subscriptions.iter().enumerate().find(|(at, _)| {
                    // A server that answers for fewer has not granted the others.
                    codes.get(*at).is_none_or(|code| *code > 2)
                });
                if let Some((_, filter)) = refused {
                    return Err(CloudError::Subscription { filter: filter.clone() });
                }
            }
            // With no retained messages and no session, nothing can come before it that is worth keeping.
            _ => return Err(CloudError::Protocol { what: "something came before SUBACK" }),
        }
        session.next_id += 1;
        session.spoke = Instant::now();
        Ok(session)
    }

    /// Whether a publish of usual size would not have to wait.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < WINDOW && self.output.len() < OUTPUT
    }

    /// Publishes that the server has not acknowledged.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Hands over a message of QoS 1; answers with its packet id. It leaves when [`CloudSession::next`] is polled. Ask
    /// [`CloudSession::has_room`] first: beyond the window it is an error.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) -> Result<u16, CloudError> {
        if self.waiting.len() >= WINDOW {
            return Err(CloudError::Protocol { what: "too many publishes wait for an acknowledgement" });
        }
        // At most `WINDOW` ids are in use, so this ends.
        let id = loop {
            let id = self.next_id;
            self.next_id = id.checked_add(1).unwrap_or(1);
            if !self.waiting.iter().any(|(other, _)| *other == id) {
                break id;
            }
        };
        wire::publish(&mut self.output, topic, id, payload)
            .ok_or(CloudError::Protocol { what: "a message is too long for a packet" })?;
        let now = Instant::now();
        self.waiting.push_back((id, now));
        self.spoke = now;
        Ok(id)
    }

    /// Waits for the next thing to happen, writes what is to be written, and keeps the connection alive. Cancel safe.
    pub async fn next(&mut self) -> Result<CloudEvent, CloudError> {
        loop {
            while let Some(packet) = wire::next(&mut self.stream.input, self.max_packet)? {
                if let Some(event) = self.take(packet)? {
                    return Ok(event);
                }
            }
            let now = Instant::now();
            if self.pinged.is_none() && now >= self.spoke + self.keep_alive {
                wire::ping(&mut self.output);
                (self.pinged, self.spoke) = (Some(now), now);
            }
            let deadline = self.deadline();
            tokio::select! {
                progress = self.stream.progress(&mut self.output, true) => {
                    let progress = progress.map_err(|source| CloudError::Io { source })?;
                    if progress == Progress::Closed {
                        return Err(CloudError::Closed);
                    }
                }
                () = sleep_until(deadline) => self.look_at_the_clock()?,
            }
        }
    }

    /// Says goodbye, so that the server does not think that we were lost.
    pub async fn close(mut self) {
        wire::disconnect(&mut self.output);
        self.stream.close(&mut self.output).await;
    }

    /// What went over the wire, of this session and those before it.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    fn take(&mut self, packet: Packet) -> Result<Option<CloudEvent>, CloudError> {
        match packet {
            Packet::Puback { id } => {
                let at = self.waiting.iter().position(|(waiting, _)| *waiting == id);
                // One that nobody waits for is a server's slip that harms nobody.
                Ok(at.and_then(|at| self.waiting.remove(at)).map(|_| CloudEvent::Acknowledged(id)))
            }
            Packet::Publish { id, topic, payload } => {
                if let Some(id) = id {
                    wire::puback(&mut self.output, id);
                    self.spoke = Instant::now();
                }
                Ok(Some(CloudEvent::Message { topic, payload }))
            }
            Packet::Pong => {
                self.pinged = None;
                Ok(None)
            }
            Packet::Connack { .. } | Packet::Suback { .. } => {
                Err(CloudError::Protocol { what: "an answer came twice" })
            }
        }
    }

    /// When something is to be done though nothing comes.
    fn deadline(&self) -> Instant {
        let answers = [self.pinged, self.waiting.front().map(|(_, since)| *since)];
        let due = answers.into_iter().flatten().map(|since| since + self.patience).min();
        let ping = self.spoke + self.keep_alive;
        match (due, self.pinged) {
            (Some(due), Some(_)) => due,
            (Some(due), None) => due.min(ping),
            (None, _) => ping,
        }
    }

    fn look_at_the_clock(&self) -> Result<(), CloudError> {
        let now = Instant::now();
        let late = |since: Instant| now >= since + self.patience;
        let silence = |what| Err(CloudError::Silence { what, seconds: self.patience.as_secs() });
        match (self.pinged, self.waiting.front()) {
            (Some(since), _) if late(since) => silence("PINGRESP"),
            (_, Some((_, since))) if late(*since) => silence("PUBACK"),
            _ => Ok(()),
        }
    }

    async fn await_answer(&mut self, what: &'static str) -> Result<Packet, CloudError> {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some(packet) = wire::next(&mut self.stream.input, self.max_packet)? {
                return Ok(packet);
            }
            tokio::select! {
                progress = self.stream.progress(&mut self.output, true) => match progress {
                    Ok(Progress::Closed) => return Err(CloudError::Closed),
                    Ok(_) => {}
                    Err(source) => return Err(CloudError::Io { source }),
                },
                () = sleep_until(deadline) => return Err(CloudError::Silence { what, seconds: self.patience.as_secs() }),
            }
        }
    }
}

impl std::fmt::Debug for CloudSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CloudSession").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}
