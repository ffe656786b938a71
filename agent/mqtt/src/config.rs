//! What the broker is told: who may connect, who may do what, and how much.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use holm_core::{ClientId, TopicFilter};

use crate::PasswordHash;

/// Everything the broker is made from. Values are valid by type; nothing is read later.
#[derive(Debug, Clone, Default)]
pub struct BrokerConfig {
    /// How clients prove who they are.
    pub identity: Identity,
    /// Who may connect with a password.
    pub users: Vec<User>,
    /// Whether a client may connect without a user name. With no users at all it may also send one, which is ignored.
    pub anonymous: bool,
    /// What clients may publish and subscribe. No rule at all allows everything but topics that begin with `$`.
    pub acl: Vec<AclRule>,
    /// First levels that begin with `$` and that rules may open to clients, such as `$aws`. None by default.
    pub reserved: Vec<Arc<str>>,
    /// How much.
    pub limits: BrokerLimits,
    /// The time since some start, which nobody sets: by it the broker notices that the time of day was set, and lets
    /// sessions, wills and messages live as long as they would have. Without it every change of the time of day has passed.
    pub uptime: Option<fn() -> Duration>,
}

/// Who has this certificate, in DER; `None` if nobody may come in with it. Its chain has been verified, nothing else. Called
/// for each CONNECT, and once more when the client has its session, so that who is refused from now on is not let in by a
/// race with [`crate::Broker::kick`]. Must not block.
pub type Identify = Arc<dyn Fn(&[u8]) -> Option<ClientId> + Send + Sync>;

/// How a client proves who it is.
#[derive(Clone, Default)]
pub enum Identity {
    /// By a user name and its password, where it has to: see [`BrokerConfig::users`] and [`BrokerConfig::anonymous`].
    #[default]
    Password,
    /// By the certificate of its TLS connection. The client identifier of its CONNECT has to be the one that the certificate
    /// stands for; a connection without a certificate is refused. The listener's TLS configuration has to ask for one.
    Certificate(Identify),
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password => "Password",
            Self::Certificate(_) => "Certificate",
        })
    }
}

/// A name and the hash of its password.
#[derive(Debug, Clone)]
pub struct User {
    /// As in CONNECT.
    pub name: Arc<str>,
    /// How to check the password.
    pub password_hash: PasswordHash,
}

/// A permission. Rules add up: a client may do what any of its rules allows.
///
/// Filters may hold `{client}` and `{user}`, which stand for the client identifier and the user name. A rule whose
/// placeholder cannot be filled (no user, or a value with `/`, `+` or `#`, which would widen the filter) is void for
/// that client.
#[derive(Debug, Clone, Default)]
pub struct AclRule {
    /// For this user; `None` is everybody, also the anonymous.
    pub user: Option<Arc<str>>,
    /// For this client identifier; `None` is any.
    pub client: Option<Arc<str>>,
    /// Topics it may publish to, wills included.
    pub publish: Vec<TopicFilter>,
    /// Filters it may subscribe to, and everything they cover.
    pub subscribe: Vec<TopicFilter>,
}

/// Bounds on everything that a peer can make grow. The worst case of a full broker is roughly
/// `max_sessions * max_queue_bytes + max_connections * (max_outgoing_bytes + max_pending_bytes + 3 * max_packet_bytes)
/// + max_retained_bytes`; messages queued for several sessions are counted for each but held once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerLimits {
    /// Open sockets on one listener, before CONNECT too. Default 256.
    pub max_connections: usize,
    /// The largest packet we accept, header included; announced to MQTT 5 clients. Default 1 MiB.
    pub max_packet_bytes: u32,
    /// Unacknowledged QoS 1 and 2 messages from a client: the Receive Maximum we announce. Default 256.
    pub max_inflight_in: u16,
    /// Settlements a connection may wait for before we stop reading from it. Default 256.
    pub max_pending_commits: usize,
    /// The same in bytes of the messages that are being settled; one packet may exceed it. Default 4 MiB.
    pub max_pending_bytes: usize,
    /// Messages of QoS 1 and 2 that wait in one session, or are being committed for it if it is durable. Beyond, new
    /// ones are dropped and counted. Default 1,000.
    pub max_queue_messages: usize,
    /// The same in bytes of payload, topic and properties. Default 4 MiB.
    pub max_queue_bytes: usize,
    /// Sessions, connected or not. Beyond, new clients are refused. Default 1,000.
    pub max_sessions: usize,
    /// Subscriptions of one client, and entries of one SUBSCRIBE. Beyond, SUBACK refuses with Quota exceeded. Default
    /// 256.
    pub max_subscriptions: usize,
    /// Retained messages, with those that are being committed. Beyond, messages on new topics are delivered but not
    /// retained. Default 10,000.
    pub max_retained: usize,
    /// The same in bytes. Default 16 MiB.
    pub max_retained_bytes: usize,
    /// QoS 0 bytes that wait for one slow reader. Beyond, they are dropped and counted. Default 4 MiB.
    pub max_outgoing_bytes: usize,
    /// From accept to a complete CONNECT, TLS included. Default 10 s.
    pub connect_timeout: Duration,
    /// The longest keep alive an MQTT 5 client gets, in seconds; longer or none is answered with Server Keep Alive.
    /// MQTT 3.1.1 has no way to tell, so its clients keep what they asked for. Default 3,600.
    pub max_keep_alive: u16,
    /// The longest a session outlives its connection. `None` honours "never expires". Default `None`.
    pub max_session_expiry: Option<u32>,
}

impl Default for BrokerLimits {
    fn default() -> Self {
        Self {
            max_connections: 256,
            max_packet_bytes: 1 << 20,
            max_inflight_in: 256,
            max_pending_commits: 256,
            max_pending_bytes: 4 << 20,
            max_queue_messages: 1_000,
            max_queue_bytes: 4 << 20,
            max_sessions: 1_000,
            max_subscriptions: 256,
            max_retained: 10_000,
            max_retained_bytes: 16 << 20,
            max_outgoing_bytes: 4 << 20,
            connect_timeout: Duration::from_secs(10),
            max_keep_alive: 3_600,
            max_session_expiry: None,
        }
    }
}
