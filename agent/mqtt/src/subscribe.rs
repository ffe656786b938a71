//! SUBSCRIBE and UNSUBSCRIBE.

use bytes::BytesMut;
use holm_core::{SessionWrite, Subscription, TopicFilter};

use crate::Settled;
use crate::connection::{Connection, End};
use crate::encode;
use crate::packet::{SendRetained, Subscribe, SubscribeEntry, Version, reason};
use crate::settlements::Then;

impl Connection {
    /// SUBACK waits for the commit of a durable session's subscriptions; its retained messages follow it.
    pub(crate) fn on_subscribe(&mut self, subscribe: Subscribe) -> Result<(), End> {
        let mut plan = crate::Plan::default();
        let mut writes = Vec::new();
        let mut codes = Vec::with_capacity(subscribe.entries.len());
        let most = self.shared.config.limits.max_subscriptions;
        for (index, entry) in subscribe.entries.iter().enumerate() {
            // A packet has room for a quarter of a million entries that all say the same, and each costs a search.
            let added = if index < most {
                self.add(entry, subscribe.identifier, &mut plan, &mut writes)
            } else {
                Err(reason::QUOTA)
            };
            codes.push(match added {
                Ok(granted) => granted,
                // MQTT 3.1.1 knows one way to fail.
                Err(_) if self.wire.version == Version::V3 => reason::UNSPECIFIED,
                Err(code) => code,
            });
        }
        writes.append(&mut plan.writes);
        let mut packet = BytesMut::new();
        encode::suback(&mut packet, self.wire.version, subscribe.id, &codes);
        let settled = if writes.is_empty() { Settled::Done } else { self.backend.persist(writes) };
        self.when(settled, Then::Respond { packet: packet.freeze(), plan })
    }

    /// Answers the QoS granted, or the reason code of a refusal.
    fn add(
        &self,
        entry: &SubscribeEntry,
        identifier: Option<u32>,
        plan: &mut crate::Plan,
        writes: &mut Vec<SessionWrite>,
    ) -> Result<u8, u8> {
        if entry.filter.starts_with("$share/") {
            return Err(reason::NO_SHARED_SUBSCRIPTIONS);
        }
        let filter = TopicFilter::new(&entry.filter).map_err(|_| reason::FILTER_INVALID)?;
        if !self.permissions.may_subscribe(&filter) {
            return Err(reason::NOT_AUTHORIZED);
        }
        let subscription = Subscription {
            filter,
            qos: entry.qos,
            no_local: entry.no_local,
            retain_as_published: entry.retain_as_published,
            identifier,
        };
        let now = self.shared.now();
        let mut state = self.shared.lock();
        let is_new = state.subscribe(self.attachment.session, &subscription).ok_or(reason::QUOTA)?;
        let wants_retained = match entry.retained {
            SendRetained::Always => true,
            SendRetained::IfNew => is_new,
            SendRetained::Never => false,
        };
        if wants_retained {
            state.plan_subscription(self.attachment.session, &subscription, now, plan);
        }
        drop(state);
        let granted = subscription.qos.level();
        if self.attachment.durable {
            writes.push(SessionWrite::Subscribe { client: self.client.clone(), subscription });
        }
        Ok(granted)
    }

    pub(crate) fn on_unsubscribe(&mut self, id: u16, filters: &[String]) -> Result<(), End> {
        let mut writes = Vec::new();
        let mut codes = Vec::with_capacity(filters.len());
        for text in filters {
            let Ok(filter) = TopicFilter::new(text) else {
                codes.push(reason::FILTER_INVALID);
                continue;
            };
            let found = self.shared.lock().unsubscribe(self.attachment.session, &filter);
            codes.push(if found { reason::SUCCESS } else { reason::NO_SUBSCRIPTION_EXISTED });
            if found && self.attachment.durable {
                writes.push(SessionWrite::Unsubscribe { client: self.client.clone(), filter });
            }
        }
        let mut packet = BytesMut::new();
        encode::unsuback(&mut packet, self.wire.version, id, &codes);
        let settled = if writes.is_empty() { Settled::Done } else { self.backend.persist(writes) };
        self.when(settled, Then::Respond { packet: packet.freeze(), plan: crate::Plan::default() })
    }
}
