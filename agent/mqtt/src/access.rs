//! Who a client is, and what it may do.

use std::sync::Arc;

use holm_core::{ClientId, TopicFilter, TopicName};
use tokio::sync::Semaphore;

use crate::PasswordHash;
use crate::config::{BrokerConfig, Identity};
use crate::packet::reason;

/// Password checks that run at once. Each takes a core for a good part of a second, so a crowd of clients must queue.
const PARALLEL_CHECKS: usize = 1;

/// Who may connect.
#[derive(Debug)]
pub(crate) struct Gate {
    config: Arc<BrokerConfig>,
    checks: Arc<Semaphore>,
}

/// The answer to a CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Come in; the name if it was proven.
    Admitted(Option<Arc<str>>),
    /// The name or the password is wrong.
    BadCredentials,
    /// No name given, and that is not enough here.
    NotAuthorized,
}

impl Gate {
    pub(crate) fn new(config: Arc<BrokerConfig>) -> Self {
        Self { config, checks: Arc::new(Semaphore::new(PARALLEL_CHECKS)) }
    }

    /// Whether a client may be who it says it is, as far as its certificate tells: always, where certificates say nothing.
    pub(crate) fn identify(&self, client: &ClientId, certificate: Option<&[u8]>) -> Result<(), u8> {
        let Identity::Certificate(identify) = &self.config.identity else { return Ok(()) };
        match certificate.and_then(|certificate| identify(certificate)) {
            Some(proven) if proven == *client => Ok(()),
            Some(_) => Err(reason::CLIENT_ID_INVALID),
            None => Err(reason::NOT_AUTHORIZED),
        }
    }

    /// Whether anybody asks for certificates.
    pub(crate) fn wants_certificates(&self) -> bool {
        matches!(self.config.identity, Identity::Certificate(_))
    }

    /// Checks a name and password on a blocking thread. Cancel safe: a check that nobody waits for runs to its end and
    /// is forgotten.
    pub(crate) async fn admit(&self, user: Option<&str>, password: Option<&[u8]>) -> Admission {
        if self.wants_certificates() {
            return Admission::Admitted(None);
        }
        if self.config.anonymous && (user.is_none() || self.config.users.is_empty()) {
            return Admission::Admitted(None);
        }
        let Some(name) = user else { return Admission::NotAuthorized };
        let known = self.config.users.iter().find(|user| &*user.name == name);
        // An unknown name costs as much time as a known one, so that names cannot be found out by measuring.
        let Some(reference) = known.or(self.config.users.first()) else { return Admission::BadCredentials };
        let matches = self.verify(reference.password_hash.clone(), password.unwrap_or_default().to_vec()).await;
        match known {
            Some(user) if matches => Admission::Admitted(Some(user.name.clone())),
            _ => Admission::BadCredentials,
        }
    }

    async fn verify(&self, hash: PasswordHash, password: Vec<u8>) -> bool {
        let Ok(permit) = self.checks.clone().acquire_owned().await else { return false };
        let check = move || {
            // Held by the check and not by who waits for it, so that clients that give up cannot pile up work.
            let _permit = permit;
            hash.verify(&password)
        };
        tokio::task::spawn_blocking(check).await.unwrap_or(false)
    }
}

/// What one client may publish and subscribe, worked out once at CONNECT.
#[derive(Debug, Clone)]
pub(crate) struct Permissions {
    /// `None` allows every topic that does not begin with `$`.
    lists: Option<(Vec<TopicFilter>, Vec<TopicFilter>)>,
}

impl Permissions {
    pub(crate) fn new(config: &BrokerConfig, client: &ClientId, user: Option<&str>) -> Self {
        if config.acl.is_empty() {
            return Self { lists: None };
        }
        let (mut publish, mut subscribe) = (Vec::new(), Vec::new());
        for rule in &config.acl {
            let for_user = rule.user.as_deref().is_none_or(|name| Some(name) == user);
            let for_client = rule.client.as_deref().is_none_or(|id| id == &*client.0);
            if for_user && for_client {
                // Asked of the filled filter: a client may call itself `$SYS`.
                let filled = |filter| fill(filter, client, user).filter(|filter| is_open(filter, &config.reserved));
                publish.extend(rule.publish.iter().filter_map(filled));
                subscribe.extend(rule.subscribe.iter().filter_map(filled));
            }
        }
        Self { lists: Some((publish, subscribe)) }
    }

    /// Topics that begin with `$` need a rule in any case, and no wildcard of a rule stands for their first level.
    pub(crate) fn may_publish(&self, topic: &TopicName) -> bool {
        match &self.lists {
            None => !topic.as_str().starts_with('$'),
            Some((publish, _)) => publish.iter().any(|filter| filter.matches(topic)),
        }
    }

    /// Whether a message on the topic may have come by a subscription of this client.
    pub(crate) fn may_receive(&self, topic: &TopicName) -> bool {
        match &self.lists {
            None => !topic.as_str().starts_with('$'),
            Some((_, subscribe)) => subscribe.iter().any(|filter| filter.matches(topic)),
        }
    }

    /// As for publishing.
    pub(crate) fn may_subscribe(&self, wanted: &TopicFilter) -> bool {
        match &self.lists {
            None => !wanted.as_str().starts_with('$'),
            Some((_, subscribe)) => subscribe.iter().any(|filter| filter.covers(wanted)),
        }
    }
}

/// `$` topics belong to the broker: no rule opens them to clients but those whose first level its owner gave up.
fn is_open(filter: &TopicFilter, reserved: &[Arc<str>]) -> bool {
    let filter = filter.as_str();
    let first = filter.split('/').next().unwrap_or_default();
    !filter.starts_with('$') || reserved.iter().any(|reserved| **reserved == *first)
}

fn fill(filter: &TopicFilter, client: &ClientId, user: Option<&str>) -> Option<TopicFilter> {
    let text = filter.as_str();
    if !text.contains('{') {
        return Some(filter.clone());
    }
    let mut filled = text.to_owned();
    for (placeholder, value) in [("{client}", Some(&*client.0)), ("{user}", user)] {
        if text.contains(placeholder) {
            // A value that brings its own levels or wildcards would widen the rule.
            let value = value.filter(|value| !value.contains(['/', '+', '#', '{']))?;
            filled = filled.replace(placeholder, value);
        }
    }
    TopicFilter::new(&filled).ok()
}
