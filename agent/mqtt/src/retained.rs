//! Retained messages: the last word on each topic, for those who subscribe later.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use holm_core::{Message, Timestamp, TopicFilter, TopicName};

use crate::encode::is_expired;
use crate::outbound::weight;

/// Retained messages by topic, in order, so that a filter scans only what shares its literal beginning.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    by_topic: BTreeMap<TopicName, Arc<Message>>,
    bytes: usize,
}

impl Retained {
    pub(crate) fn restore(messages: Vec<Arc<Message>>) -> Self {
        let mut retained = Self::default();
        for message in messages {
            retained.set(message);
        }
        retained
    }

    pub(crate) fn len(&self) -> usize {
        self.by_topic.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn contains(&self, topic: &TopicName) -> bool {
        self.by_topic.contains_key(topic)
    }

    /// Whether the message can be kept within the bounds; one that replaces another counts for the difference.
    pub(crate) fn has_room(&self, message: &Message, max: usize, max_bytes: usize) -> bool {
        let replaced = self.by_topic.get(&message.topic).map(|old| weight(old));
        let count = self.by_topic.len() + usize::from(replaced.is_none());
        let bytes = self.bytes.saturating_sub(replaced.unwrap_or(0)) + weight(message);
        count <= max && bytes <= max_bytes
    }

    /// Keeps a message, or removes its topic's when the payload is empty (MQTT 5.0, 3.3.1.3).
    pub(crate) fn set(&mut self, message: Arc<Message>) {
        self.remove(&message.topic);
        if !message.payload.data.is_empty() {
            self.bytes += weight(&message);
            self.by_topic.insert(message.topic.clone(), message);
        }
    }

    pub(crate) fn remove(&mut self, topic: &TopicName) {
        if let Some(old) = self.by_topic.remove(topic) {
            self.bytes = self.bytes.saturating_sub(weight(&old));
        }
    }

    /// What a new subscription gets.
    pub(crate) fn matching(&self, filter: &TopicFilter, now: Timestamp) -> Vec<Arc<Message>> {
        let text = filter.as_str();
        let literal = text.find(['+', '#']).and_then(|end| text.get(..end)).unwrap_or(text);
        // `a/#` matches `a` too, so the scan begins before the slash.
        let literal = literal.strip_suffix('/').unwrap_or(literal);
        let from = TopicName::new(literal).map_or(Bound::Unbounded, Bound::Included);
        self.by_topic
            .range((from, Bound::Unbounded))
            .take_while(|(topic, _)| topic.as_str().starts_with(literal))
            .filter(|(topic, message)| filter.matches(topic) && !is_expired(message, now))
            .map(|(_, message)| message.clone())
            .collect()
    }

    /// Takes out what is past its expiry.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<TopicName> {
        let expired: Vec<TopicName> = self
            .by_topic
            .iter()
            .filter(|(_, message)| is_expired(message, now))
            .map(|(topic, _)| topic.clone())
            .collect();
        for topic in &expired {
            self.remove(topic);
        }
        expired
    }
}
