//! Retained messages: the last word on each topic, for those who subscribe later.
//!
//! Commits overtake each other: a message whose functions take long may be committed after one that was sent later. So
//! messages are numbered as they are planned, and one that comes behind its topic's last word is passed over. By then
//! the store has it as the last, which a correction puts right; a crash before that leaves the older word. As long as
//! anything on a topic is on its way, its [`Turn`] remembers which word was the last, also if that one cleared it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use holm_core::{Jump, Message, SessionWrite, Timestamp, TopicFilter, TopicName};

use crate::encode::is_expired;
use crate::outbound::{redate, weight};
use crate::reserve::{Reservation, Reserved};

/// A message between its plan and its delivery.
#[derive(Debug)]
pub(crate) struct Word {
    pub(crate) message: Arc<Message>,
    number: u64,
    /// Dropped with the word, wherever that is: then nothing is to be waited for any more.
    _on_its_way: Arc<()>,
    _room: Option<Reservation>,
}

/// What a topic must remember while words on it are on their way.
#[derive(Debug, Default)]
struct Turn {
    /// The word that the topic holds, or that cleared it; 0 is any from before this turn.
    last: u64,
    /// The newest that was planned.
    planned: u64,
    /// The store may hold another word than we.
    stale: bool,
    /// Shared with every word on its way.
    on_its_way: Arc<()>,
}

impl Turn {
    fn is_over(&self) -> bool {
        Arc::strong_count(&self.on_its_way) == 1
    }
}

/// What the store must hear because it may hold another word than we.
#[derive(Debug)]
pub(crate) struct Correction {
    topic: TopicName,
    message: Option<Arc<Message>>,
    planned: u64,
    _on_its_way: Arc<()>,
}

impl Correction {
    pub(crate) fn write(&self) -> SessionWrite {
        SessionWrite::Retain { topic: self.topic.clone(), message: self.message.clone() }
    }
}

/// Retained messages by topic, in order, so that a filter scans only what shares its literal beginning.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    by_topic: BTreeMap<TopicName, Arc<Message>>,
    bytes: usize,
    /// Topics with words on their way, or that the store must be told of.
    turns: HashMap<TopicName, Turn>,
    /// Counts words.
    planned: u64,
    /// There may be corrections to be made.
    stale: bool,
    /// Room for the words on their way.
    reserved: Arc<Reserved>,
}

impl Retained {
    pub(crate) fn restore(messages: Vec<Arc<Message>>) -> Self {
        let mut retained = Self::default();
        for message in messages {
            retained.set(message);
        }
        retained
    }

    /// The time of day was set: messages that expire are dated anew. Answers those that were, for the store.
    pub(crate) fn shift(&mut self, jump: &Jump) -> Vec<Arc<Message>> {
        self.by_topic.values_mut().filter_map(|message| redate(message, jump).then(|| message.clone())).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_topic.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the topic holds nothing, and nothing is on its way that it will.
    pub(crate) fn is_clear(&self, topic: &TopicName) -> bool {
        !self.by_topic.contains_key(topic) && !self.turns.contains_key(topic)
    }

    /// Makes a message the next word on its topic, or `None` if it cannot be kept within the bounds.
    pub(crate) fn plan(&mut self, message: Arc<Message>, max: usize, max_bytes: usize) -> Option<Word> {
        let room = if message.payload.data.is_empty() { None } else { Some(self.reserve(&message, max, max_bytes)?) };
        self.planned += 1;
        let turn = self.turns.entry(message.topic.clone()).or_default();
        turn.planned = self.planned;
        Some(Word { message, number: turn.planned, _on_its_way: turn.on_its_way.clone(), _room: room })
    }

    /// A message that replaces another counts for the difference. What is on its way counts in full, also if it will
    /// replace something: there is not much of it for long.
    fn reserve(&self, message: &Message, max: usize, max_bytes: usize) -> Option<Reservation> {
        let replaced = self.by_topic.get(&message.topic).map(|old| weight(old));
        let count = self.by_topic.len() + self.reserved.messages() + usize::from(replaced.is_none());
        let bytes = self.bytes.saturating_sub(replaced.unwrap_or(0)) + self.reserved.bytes() + weight(message);
        (count <= max && bytes <= max_bytes).then(|| self.reserved.take(weight(message)))
    }

    /// A word is committed. Answers whether it is its topic's last.
    pub(crate) fn settle(&mut self, word: Word) -> bool {
        let message = word.message.clone();
        let turn = self.turns.entry(message.topic.clone()).or_default();
        let is_last = word.number > turn.last;
        if is_last {
            turn.last = word.number;
        } else {
            turn.stale = true;
        }
        drop(word);
        if turn.is_over() {
            if turn.stale {
                self.stale = true;
            } else {
                self.turns.remove(&message.topic);
            }
        }
        if is_last {
            self.set(message);
        }
        is_last
    }

    /// Whether [`Retained::corrections`] should be asked for soon.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale
    }

    /// What the store must be told, and forgets the turns that are over. To be called now and then: nobody says so
    /// when a word is dropped.
    pub(crate) fn corrections(&mut self) -> Vec<Correction> {
        self.stale = false;
        let mut corrections = Vec::new();
        self.turns.retain(|topic, turn| {
            if turn.is_over() && turn.stale {
                turn.stale = false;
                corrections.push(Correction {
                    topic: topic.clone(),
                    message: self.by_topic.get(topic).cloned(),
                    planned: turn.planned,
                    _on_its_way: turn.on_its_way.clone(),
                });
            }
            !turn.is_over()
        });
        corrections
    }

    /// The corrections are with the store. Words that were planned meanwhile may have been there before them, and need
    /// corrections of their own.
    pub(crate) fn corrected(&mut self, corrections: Vec<Correction>) {
        for correction in corrections {
            if let Some(turn) = self.turns.get_mut(&correction.topic)
                && turn.planned != correction.planned
            {
                (turn.stale, self.stale) = (true, true);
            }
        }
    }

    /// Keeps a message, or removes its topic's when the payload is empty (MQTT 5.0, 3.3.1.3).
    fn set(&mut self, message: Arc<Message>) {
        self.remove(&message.topic);
        if !message.payload.data.is_empty() {
            self.bytes += weight(&message);
            self.by_topic.insert(message.topic.clone(), message);
        }
    }

    fn remove(&mut self, topic: &TopicName) {
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

    /// Takes out what is past its expiry, for the store with the next corrections. A topic whose next word is on its way
    /// is left alone: the store may have that already, and must keep it.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        let is_quiet = |topic| self.turns.get(topic).is_none_or(Turn::is_over);
        let expired: Vec<TopicName> = self
            .by_topic
            .iter()
            .filter(|(topic, message)| is_expired(message, now) && is_quiet(topic))
            .map(|(topic, _)| topic.clone())
            .collect();
        for topic in expired {
            self.remove(&topic);
            self.turns.entry(topic).or_default().stale = true;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use holm_core::{Payload, Qos};

    use super::*;

    fn message(payload: &'static str, expiry_seconds: Option<u32>) -> Arc<Message> {
        Arc::new(Message {
            topic: TopicName::new("r").unwrap(),
            payload: Payload { content_type: None, data: Bytes::from_static(payload.as_bytes()) },
            qos: Qos::AtLeastOnce,
            retain: true,
            accepted: Timestamp(0),
            expiry_seconds,
            payload_format: None,
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
            publisher: None,
        })
    }

    fn plan(retained: &mut Retained, payload: &'static str) -> Word {
        retained.plan(message(payload, None), 10, 10_000).unwrap()
    }

    /// What the corrections say; `None` clears.
    fn said(corrections: &[Correction]) -> Vec<Option<Bytes>> {
        corrections.iter().map(|one| one.message.as_ref().map(|message| message.payload.data.clone())).collect()
    }

    #[test]
    fn a_correction_waits_until_nothing_is_on_its_way() {
        let mut retained = Retained::default();
        let (first, second, third) = (plan(&mut retained, "1"), plan(&mut retained, "2"), plan(&mut retained, ""));
        assert!(retained.settle(second));
        assert!(!retained.settle(first));
        assert!(retained.corrections().is_empty(), "the third may be in the store already");
        assert!(retained.settle(third));
        assert_eq!(said(&retained.corrections()), [None]);
        assert!(retained.corrections().is_empty());
        assert!(retained.is_clear(&TopicName::new("r").unwrap()));
    }

    #[test]
    fn a_word_that_passes_a_correction_on_its_way_is_said_again() {
        let mut retained = Retained::default();
        let (first, second) = (plan(&mut retained, "1"), plan(&mut retained, "2"));
        retained.settle(second);
        retained.settle(first);
        let corrections = retained.corrections();
        assert_eq!(said(&corrections), [Some(Bytes::from_static(b"2"))]);
        // The third is in the store before the correction is.
        let third = plan(&mut retained, "3");
        assert!(retained.settle(third));
        retained.corrected(corrections);
        let corrections = retained.corrections();
        assert_eq!(said(&corrections), [Some(Bytes::from_static(b"3"))]);
        retained.corrected(corrections);
        assert!(retained.corrections().is_empty() && retained.turns.is_empty());
    }

    #[test]
    fn what_expires_while_its_successor_is_on_its_way_leaves_the_store_alone() {
        let mut retained = Retained::restore(vec![message("old", Some(1))]);
        let new = plan(&mut retained, "new");
        retained.expire(Timestamp(5_000));
        assert!(retained.corrections().is_empty());
        assert!(retained.settle(new));
        retained.expire(Timestamp(5_000));
        assert!(retained.corrections().is_empty());
        assert_eq!(retained.len(), 1);
    }

    #[test]
    fn a_word_that_is_dropped_leaves_nothing_behind() {
        let mut retained = Retained::default();
        drop(plan(&mut retained, "1"));
        assert!(retained.corrections().is_empty());
        assert!(retained.turns.is_empty());
        assert_eq!((retained.reserved.messages(), retained.reserved.bytes()), (0, 0));
    }
}
