//! Holm's MQTT room: a broker for MQTT 3.1.1 and 5.0 that runs inside the node agent, and the client for a node that
//! uses somebody else's broker instead ([`ExternalClient`]; its module has its own text), and the session with the control
//! plane ([`CloudSession`]; likewise).
//!
//! # Invariants
//!
//! 1. A PUBACK or PUBREC leaves only after the [`Backend`] has settled the message. Settlements of one connection run
//!    in parallel and are acknowledged in the order in which the messages came.
//! 2. The broker keeps no file. What must outlive the process leaves as [`holm_core::SessionWrite`]s, and comes back
//!    as [`holm_core::StoredBroker`].
//! 3. Everything a peer can make grow has a bound in [`BrokerLimits`].
//! 4. No byte sequence ends more than the connection it came on.
//!
//! # How it works
//!
//! [`Broker`] is a cheap handle on sessions, subscriptions and retained messages, under one mutex that is never held
//! across an await. [`Broker::plan`] says who gets a message, the owner commits what the plan wants written, and
//! [`Broker::deliver`] hands the message over: both are synchronous, for any thread. [`Broker::serve`] runs one task
//! for each connection, which reads, parses, asks the backend, and writes once for each time it wakes.
//!
//! `mqtt-protocol-core` parses the packets. Its `Connection` is not used: it keeps a second copy of the session state
//! that lives here, answers QoS 2 duplicates before they are settled, and panics on some CONNECT packets.

mod access;
mod acks;
mod attach;
mod backend;
mod broker;
mod client;
mod cloud;
mod config;
mod connect;
mod connection;
mod decode;
mod encode;
mod outbound;
mod packet;
mod password;
mod publish;
mod received;
mod reserve;
mod retained;
mod server;
mod session;
mod settlements;
mod state;
mod stream;
mod subscribe;

pub use backend::{Backend, Incoming, Refusal, Settled};
pub use broker::{Broker, BrokerStats, Clock, Plan};
pub use client::{
    External, ExternalClient, ExternalConfig, Hold, Lane, LinkStatus, Outgoing, Place, Relayed, Wanted, leave_out,
};
pub use cloud::{CloudError, CloudEvent, CloudOptions, CloudSession, Counted, Traffic};
pub use config::{AclRule, BrokerConfig, BrokerLimits, Identify, Identity, User};
pub use password::{PasswordError, PasswordHash};
