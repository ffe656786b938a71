//! The client library's types, and ours.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use holm_core::{ClientId, Message, Payload, Qos, Timestamp, TopicName};
use rumqttc::{
    AckMode, IncomingPacketSizeLimit, MqttOptions, PersistedAckMode, PersistedPubRel, PersistedRequest,
    PersistedSession, Publish, PublishProperties, QoS, SessionStore, SessionStoreError, SessionStoreKey,
};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::cork::Cork;
use super::inbound::RECEIVE_MAXIMUM;
use super::{ExternalConfig, PUBLISHER};

/// From the first packet of TCP to CONNACK.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests that the library sends before it flushes.
const REQUEST_BATCH: usize = 64;

/// Where a host and a port are, in one text.
pub(super) fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The library's options for one connection. `ending`: there will be no more input, and what is written goes out.
pub(super) fn options(config: &ExternalConfig, ending: Arc<AtomicBool>) -> MqttOptions {
    let mut options = MqttOptions::new(&config.client_id, (config.host.clone(), config.port));
    let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    options.set_clean_start(false);
    options.set_session_expiry_interval(Some(seconds(config.session_expiry)));
    options.set_receive_maximum(Some(RECEIVE_MAXIMUM));
    options.set_incoming_packet_size_limit(IncomingPacketSizeLimit::Bytes(config.max_packet));
    options.set_outgoing_inflight_upper_limit(config.max_inflight);
    options.set_keep_alive(u16::try_from(seconds(config.keep_alive)).unwrap_or(u16::MAX));
    options.set_connect_timeout(CONNECT_TIMEOUT);
    options.set_ack_mode(AckMode::Manual);
    options.set_max_request_batch(REQUEST_BATCH);
    options.set_session_store(Blank { max_inflight: config.max_inflight });
    if let Some((user, password)) = &config.credentials {
        options.set_credentials(user, password.clone());
    }
    let (address, host, tls) = (address(&config.host, config.port), config.host.clone(), config.tls.clone());
    options.set_socket_connector(move |_, _| connect(address.clone(), host.clone(), tls.clone(), ending.clone()));
    options
}

/// A byte stream, with TLS or without.
trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for T {}

/// Not the library's own TLS, which would bring a second set of certificate crates.
async fn connect(
    address: String,
    host: String,
    tls: Option<Arc<rustls::ClientConfig>>,
    ending: Arc<AtomicBool>,
) -> io::Result<Box<dyn Duplex>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Box::new(Cork::new(stream, ending))) };
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let stream = TlsConnector::from(tls).connect(name, stream).await?;
    Ok(Box::new(Cork::new(stream, ending)))
}

/// What the library is told of the last connection, of which it knows nothing any more.
///
/// Without such a tale it refuses a session that the broker has kept. This one says that every packet id we may have
/// used waits for PUBCOMP. So the library sends PUBREL for each before it uses it again: a broker that still held a
/// QoS 2 message under it would else take the next one for a resend, and drop it.
#[derive(Debug)]
struct Blank {
    max_inflight: u16,
}

type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, SessionStoreError>> + Send + 'a>>;

impl SessionStore for Blank {
    fn load<'a>(&'a self, key: &'a SessionStoreKey) -> StoreFuture<'a, Option<PersistedSession>> {
        let release = |pkid| PersistedRequest::PubRel(PersistedPubRel { pkid });
        let session = PersistedSession {
            format_version: 1,
            client_id: key.client_id().to_owned(),
            clean_start: false,
            session_expiry_interval: None,
            outgoing_inflight_upper_limit: Some(self.max_inflight),
            ack_mode: PersistedAckMode::Manual,
            last_pkid: 0,
            last_puback: 0,
            replay: (1..=self.max_inflight).map(release).collect(),
            incoming_qos2: Vec::new(),
        };
        Box::pin(async move { Ok(Some(session)) })
    }

    fn save<'a>(&'a self, _: &'a SessionStoreKey, _: &'a PersistedSession) -> StoreFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn clear<'a>(&'a self, _: &'a SessionStoreKey) -> StoreFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// A message from the broker. `None` if its topic is none.
pub(super) fn message(publish: Publish, now: Timestamp) -> Option<Message> {
    let topic = TopicName::new(std::str::from_utf8(&publish.topic).ok()?).ok()?;
    let properties = publish.properties.unwrap_or_default();
    Some(Message {
        topic,
        payload: Payload { content_type: properties.content_type.map(Into::into), data: publish.payload },
        qos: match publish.qos {
            QoS::AtMostOnce => Qos::AtMostOnce,
            QoS::AtLeastOnce => Qos::AtLeastOnce,
            QoS::ExactlyOnce => Qos::ExactlyOnce,
        },
        retain: publish.retain,
        accepted: now,
        expiry_seconds: properties.message_expiry_interval,
        payload_format: properties.payload_format_indicator,
        response_topic: properties.response_topic.and_then(|topic| TopicName::new(&topic).ok()),
        correlation_data: properties.correlation_data,
        user_properties: properties
            .user_properties
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        publisher: Some(ClientId(PUBLISHER.into())),
    })
}

/// A message for the broker. `None` if it has expired.
pub(super) fn properties(message: &Message, now: Timestamp) -> Option<PublishProperties> {
    let age = u64::try_from(now.0.saturating_sub(message.accepted.0)).unwrap_or(0) / 1000;
    let left = match message.expiry_seconds {
        Some(expiry) => Some(u32::try_from(u64::from(expiry).checked_sub(age).filter(|left| *left > 0)?).ok()?),
        None => None,
    };
    Some(PublishProperties {
        payload_format_indicator: message.payload_format,
        message_expiry_interval: left,
        topic_alias: None,
        response_topic: message.response_topic.as_ref().map(ToString::to_string),
        correlation_data: message.correlation_data.clone(),
        user_properties: message
            .user_properties
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect(),
        subscription_identifiers: Vec::new(),
        content_type: message.payload.content_type.as_ref().map(ToString::to_string),
    })
}

pub(super) fn qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}
