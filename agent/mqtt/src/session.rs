//! A client's session: subscriptions, what is due to it, and the link to its connection while there is one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use holm_core::{ClientId, StoredSession, Subscription, Timestamp, TopicFilter};
use tokio::sync::{Notify, watch};

use crate::outbound::Outbound;
use crate::packet::Will;
use crate::received::ReceivedIds;

/// Names a session in this process, and no other session ever: a plan may outlive the session it was made for.
pub(crate) type SessionId = u64;

/// The broker's end of a connection.
#[derive(Debug)]
pub(crate) struct Link {
    /// Wakes the connection; carries nothing.
    pub(crate) wake: Notify,
    leave: AtomicU8,
    /// Closes when the connection has let go of the session.
    pub(crate) gone: watch::Receiver<()>,
}

impl Link {
    pub(crate) fn new(gone: watch::Receiver<()>) -> Self {
        Self { wake: Notify::new(), leave: AtomicU8::new(Leave::No as u8), gone }
    }

    /// Asks the connection to leave: the first word stands.
    pub(crate) fn ask(&self, leave: Leave) {
        let _ = self.leave.compare_exchange(Leave::No as u8, leave as u8, Ordering::AcqRel, Ordering::Acquire);
        self.wake.notify_one();
    }

    /// What the connection was asked.
    pub(crate) fn asked(&self) -> Leave {
        match self.leave.load(Ordering::Acquire) {
            0 => Leave::No,
            1 => Leave::TakenOver,
            _ => Leave::Kicked,
        }
    }
}

/// Whether a connection shall leave, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It shall not.
    No = 0,
    /// Another connection wants the session.
    TakenOver = 1,
    /// The broker's owner does not want the client.
    Kicked = 2,
}

/// A will that waits for its client to come back (MQTT 5.0, 3.1.3.2.2).
#[derive(Debug)]
pub(crate) struct DelayedWill {
    pub(crate) due: Timestamp,
    pub(crate) will: Will,
    pub(crate) user: Option<std::sync::Arc<str>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: ClientId,
    /// The store knows it. Stays true to the end of the session, even if its expiry is set to 0.
    pub(crate) durable: bool,
    /// Seconds after disconnection; `u32::MAX` never.
    pub(crate) expiry: u32,
    pub(crate) link: Option<std::sync::Arc<Link>>,
    /// The link was woken and has not looked yet: it need not be woken again.
    pub(crate) woken: bool,
    pub(crate) away_since: Timestamp,
    pub(crate) subscriptions: HashMap<TopicFilter, Subscription>,
    pub(crate) outbound: Outbound,
    /// With the connection while there is one.
    pub(crate) received: ReceivedIds,
    pub(crate) will: Option<DelayedWill>,
}

impl Session {
    pub(crate) fn new(client: ClientId, expiry: u32, next_sequence: u64) -> Self {
        Self {
            client,
            durable: expiry > 0,
            expiry,
            link: None,
            woken: false,
            away_since: Timestamp::default(),
            subscriptions: HashMap::new(),
            outbound: Outbound::new(next_sequence),
            received: ReceivedIds::default(),
            will: None,
        }
    }

    /// From the store. A client that was connected when the node stopped is away since `now`.
    pub(crate) fn restore(stored: StoredSession, next_sequence: u64, now: Timestamp) -> Self {
        let expiry = stored.expiry_seconds.unwrap_or(u32::MAX);
        let mut session = Self::new(stored.client, expiry, next_sequence);
        session.durable = true;
        session.away_since = stored.away_since.unwrap_or(now);
        session.outbound.restore(stored.queue);
        session.received = ReceivedIds::restore(&stored.received);
        for subscription in stored.subscriptions {
            session.subscriptions.insert(subscription.filter.clone(), subscription);
        }
        session
    }

    /// Wakes the connection once for all that is pushed until it looks.
    pub(crate) fn wake(&mut self) {
        if let Some(link) = &self.link
            && !self.woken
        {
            self.woken = true;
            link.wake.notify_one();
        }
    }

    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        self.link.is_none()
            && self.expiry != u32::MAX
            && now >= later(self.away_since, Duration::from_secs(self.expiry.into()))
    }
}

/// `time` plus `delay`.
pub(crate) fn later(time: Timestamp, delay: Duration) -> Timestamp {
    Timestamp(time.0.saturating_add(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)))
}

/// Expiry as the store keeps it.
pub(crate) fn stored_expiry(expiry: u32) -> Option<u32> {
    if expiry == u32::MAX { None } else { Some(expiry) }
}
