//! Who a client is, and what it may do.

use std::sync::Arc;

use holm_core::{ClientId, TopicFilter, TopicName};
use tokio::sync::Semaphore;

use crate::PasswordHash;
use crate::config::{AclRule, BrokerConfig};

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

    /// Checks a name and password on a blocking thread. Cancel safe: a check that nobody waits for runs to its end and
    /// is forgotten.
    pub(crate) async fn admit(&self, user: Option<&str>, password: Option<&[u8]>) -> Admission {
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
    pub(crate) fn new(rules: &[AclRule], client: &ClientId, user: Option<&str>) -> Self {
        if rules.is_empty() {
            return Self { lists: None };
        }
        let (mut publish, mut subscribe) = (Vec::new(), Vec::new());
        for rule in rules {
            let for_user = rule.user.as_deref().is_none_or(|name| Some(name) == user);
            let for_client = rule.client.as_deref().is_none_or(|id| id == &*client.0);
            if for_user && for_client {
                publish.extend(rule.publish.iter().filter_map(|filter| fill(filter, client, user)));
                subscribe.extend(rule.subscribe.iter().filter_map(|filter| fill(filter, client, user)));
            }
        }
        Self { lists: Some((publish, subscribe)) }
    }

    /// `$` topics belong to the broker: no rule opens them to clients.
    pub(crate) fn may_publish(&self, topic: &TopicName) -> bool {
        !topic.as_str().starts_with('$')
            && self.lists.as_ref().is_none_or(|(publish, _)| publish.iter().any(|filter| filter.matches(topic)))
    }

    pub(crate) fn may_subscribe(&self, wanted: &TopicFilter) -> bool {
        !wanted.as_str().starts_with('$')
            && self.lists.as_ref().is_none_or(|(_, subscribe)| subscribe.iter().any(|filter| filter.covers(wanted)))
    }
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
