//! The door to the devices: messages down, messages up, who is connected.
//!
//! # Invariants
//!
//! 1. A device is who its certificate says, and speaks and hears of itself alone.
//! 2. A message up is acknowledged when its [`Uplink`] has settled it, and never before.
//! 3. A device that sends faster than it may waits by itself ([`Pace`]).
//! 4. No message goes from one device to another: what comes up ends here.
//!
//! It is the broker of `holm-mqtt` in this process; another kind of bus replaces this file and no other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use holm_core::{ClientId, Message, Payload, Qos, SessionWrite, StoredBroker, TopicFilter, TopicName};
use holm_mqtt::{AclRule, Backend, Broker, BrokerConfig, BrokerLimits, Clock, Identity, Incoming, Refusal, Settled};
use holm_protocol::limits::MAX_SUBSCRIPTIONS;
use holm_protocol::{Address, ThingName};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use crate::CloudError;
use crate::authority::Live;
use crate::pace::Pace;
use crate::uplink::Uplink;

/// Connections at once. The process's limit of open files is raised for them as far as the system allows.
const MAX_DEVICES: usize = 20_000;

/// Bytes of a packet: a payload of the protocol, its topic, and room.
const MAX_PACKET: u32 = 128 << 10;

/// Messages of one device that are being settled. More wait in its socket, where they cost nothing.
const MAX_PENDING: usize = 4;

/// Bytes that wait for a device that does not read.
const MAX_WAITING: usize = 512 << 10;

/// A handle on the bus. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Bus {
    broker: Broker,
    clock: Clock,
    pace: Arc<Pace>,
}

impl Bus {
    /// A bus that lets in whom `live` knows.
    pub(crate) fn new(live: Arc<Live>, clock: Clock) -> Result<Self, CloudError> {
        let filter = |text: &str| {
            TopicFilter::new(text).map_err(|error| CloudError::Broken { what: format!("the filter {text}: {error}") })
        };
        let own = vec![filter("holm/{client}/#")?, filter("$aws/things/{client}/#")?];
        let config = BrokerConfig {
            identity: Identity::Certificate(Arc::new(move |der| live.owner(der))),
            acl: vec![AclRule { publish: own.clone(), subscribe: own, ..AclRule::default() }],
            reserved: vec!["$aws".into()],
            limits: BrokerLimits {
                max_connections: MAX_DEVICES,
                max_sessions: MAX_DEVICES,
                max_packet_bytes: MAX_PACKET,
                max_pending_commits: MAX_PENDING,
                max_pending_bytes: MAX_PENDING * MAX_PACKET as usize,
                max_queue_messages: 64,
                max_queue_bytes: MAX_WAITING,
                max_outgoing_bytes: MAX_WAITING,
                max_subscriptions: 4 * MAX_SUBSCRIPTIONS,
                // What is down is asked for again, so nothing is kept for those who are away.
                max_session_expiry: Some(0),
                max_retained: 0,
                max_retained_bytes: 0,
                ..BrokerLimits::default()
            },
            ..BrokerConfig::default()
        };
        let broker = Broker::new(config, StoredBroker::default(), clock.clone());
        Ok(Self { broker, clock, pace: Arc::default() })
    }

    /// Serves devices until `shutdown`. Cancel safe, but says goodbye to nobody then.
    pub(crate) async fn serve(
        &self,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        uplink: Uplink,
        shutdown: watch::Receiver<bool>,
    ) {
        let backend = Arc::new(Door { uplink, clock: self.clock.clone(), pace: self.pace.clone() });
        self.broker.serve(listener, Some(tls), backend, shutdown).await;
    }

    /// Sends a message down, with QoS 0: to whoever is there. For any thread; does not wait.
    pub(crate) fn send(&self, address: &Address, payload: Vec<u8>) {
        let Ok(topic) = TopicName::new(&address.to_string()) else { return };
        let message = Message {
            topic,
            payload: Payload { content_type: None, data: payload.into() },
            qos: Qos::AtMostOnce,
            retain: false,
            accepted: (self.clock)(),
            expiry_seconds: None,
            payload_format: None,
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
            publisher: None,
        };
        let plan = self.broker.plan(Arc::new(message));
        self.broker.deliver(plan);
    }

    /// Ends a device's connection. It does not come back if its certificates ended before.
    pub(crate) fn kick(&self, thing: &ThingName) -> bool {
        self.broker.kick(&client(thing.as_str()))
    }

    /// Whether a device is connected.
    pub(crate) fn is_connected(&self, thing: &str) -> bool {
        self.broker.is_connected(&client(thing))
    }

    /// Messages of a device that had to wait since start because it sent too fast.
    pub(crate) fn held(&self, thing: &str) -> u64 {
        self.pace.held(thing)
    }

    /// The same of all devices, and how many those are.
    pub(crate) fn all_held(&self) -> (u64, usize) {
        self.pace.all()
    }

    /// How many devices are connected.
    pub(crate) fn connected(&self) -> usize {
        self.broker.stats().clients
    }
}

fn client(thing: &str) -> ClientId {
    ClientId(thing.into())
}

/// What the broker calls.
struct Door {
    uplink: Uplink,
    clock: Clock,
    pace: Arc<Pace>,
}

impl Door {
    /// Gives a message to the uplink, when its device may send it.
    fn take(&self, address: Address, payload: Bytes, done: impl FnOnce(Result<(), CloudError>) + Send + 'static) {
        let wait = self.pace.wait(address.thing.as_str(), Instant::now());
        if wait.is_zero() {
            return self.uplink.take(address, payload, (self.clock)(), done);
        }
        let (uplink, clock) = (self.uplink.clone(), self.clock.clone());
        #[expect(
            clippy::disallowed_methods,
            reason = "ends after the wait, and a device has MAX_PENDING of them at most"
        )]
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            uplink.take(address, payload, clock(), done);
        });
    }
}

impl Backend for Door {
    fn publish(&self, incoming: Incoming) -> Settled {
        // The plan is dropped: what comes up ends here.
        let Incoming { message, client, .. } = incoming;
        let (done, settled) = oneshot::channel();
        let payload: Bytes = message.payload.data.clone();
        match Address::parse(message.topic.as_str()) {
            // The rules see to it; it is cheap to be sure.
            Ok(address) if *address.thing.as_str() != *client.0 => Settled::Done,
            Ok(address) => {
                let done = move |stored: Result<(), CloudError>| {
                    // Who has gone will send it again.
                    let _ = done.send(stored.map_err(|_| Refusal::Unavailable));
                };
                self.take(address, payload, done);
                Settled::Waiting(settled)
            }
            Err(error) => {
                tracing::debug!(%client, %error, "a message that means nothing here");
                Settled::Done
            }
        }
    }

    /// Sessions are clean, so there is nothing to keep.
    fn persist(&self, _: Vec<SessionWrite>) -> Settled {
        Settled::Done
    }

    fn presence(&self, client: &ClientId) {
        self.uplink.presence(&client.0, (self.clock)());
    }
}

/// Where the bus listens, for those who are told.
pub(crate) fn local_address(listener: &TcpListener, wanted: SocketAddr) -> Result<SocketAddr, CloudError> {
    listener.local_addr().map_err(|source| CloudError::Listen { address: wanted, source })
}
