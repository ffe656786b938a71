//! Messages that reach the broker without a row of the lane.
//!
//! Whoever caused them is not acknowledged before the broker has them, so there is nothing to keep: after a crash their
//! cause comes again. If the connection is lost while they are on their way, or there is none, they come back to whoever
//! gave them, to be kept in the lane after all: the broker may have forgotten their cause together with our session.

use std::sync::{Arc, Mutex};

use holm_core::Message;

use super::lock;

/// Told once, when the broker has acknowledged all messages of a set, or with those of which it is not known.
pub type Relayed = Box<dyn FnOnce(Result<(), Vec<Arc<Message>>>) + Send>;

/// What the messages of one set have in common.
struct Set(Mutex<Standing>);

struct Standing {
    left: usize,
    failed: Vec<Arc<Message>>,
    done: Option<Relayed>,
}

/// One message of a set. One that is dropped has failed.
pub(super) struct Relay {
    pub(super) message: Arc<Message>,
    set: Arc<Set>,
    arrived: bool,
}

impl Relay {
    /// A set. `done` is told at once if it is empty.
    pub(super) fn set(messages: Vec<Arc<Message>>, done: Relayed) -> Vec<Self> {
        if messages.is_empty() {
            done(Ok(()));
            return Vec::new();
        }
        let standing = Standing { left: messages.len(), failed: Vec::new(), done: Some(done) };
        let set = Arc::new(Set(Mutex::new(standing)));
        messages.into_iter().map(|message| Self { message, set: set.clone(), arrived: false }).collect()
    }

    /// The broker has it, or nobody will ever have it.
    pub(super) fn arrived(mut self) {
        self.arrived = true;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let ended = {
            let mut standing = lock(&self.set.0);
            if !self.arrived {
                standing.failed.push(self.message.clone());
            }
            standing.left = standing.left.saturating_sub(1);
            if standing.left > 0 {
                return;
            }
            standing.done.take().map(|done| (done, std::mem::take(&mut standing.failed)))
        };
        // Not under the lock: what it does is not ours.
        if let Some((done, failed)) = ended {
            done(if failed.is_empty() { Ok(()) } else { Err(failed) });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc::sync_channel;

    use bytes::Bytes;
    use holm_core::{Payload, Qos, Timestamp, TopicName};

    use super::*;

    fn message(topic: &str) -> Arc<Message> {
        Arc::new(Message {
            topic: TopicName::new(topic).unwrap(),
            payload: Payload { content_type: None, data: Bytes::new() },
            qos: Qos::AtLeastOnce,
            retain: false,
            accepted: Timestamp(0),
            expiry_seconds: None,
            payload_format: None,
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
            publisher: None,
        })
    }

    /// What is told of a set of these topics, of which those at `lost` never arrive.
    fn told(topics: &[&str], lost: &[usize]) -> Result<(), Vec<String>> {
        let (sender, receiver) = sync_channel(2);
        let messages = topics.iter().map(|topic| message(topic)).collect();
        let set = Relay::set(messages, Box::new(move |result| sender.send(result).unwrap()));
        for (index, relay) in set.into_iter().enumerate() {
            if lost.contains(&index) {
                drop(relay);
            } else {
                relay.arrived();
            }
        }
        let told = receiver.try_recv().unwrap();
        assert!(receiver.try_recv().is_err(), "told twice");
        told.map_err(|failed| failed.iter().map(|message| message.topic.to_string()).collect())
    }

    #[test]
    fn a_set_is_told_of_once_with_what_failed() {
        assert_eq!(told(&[], &[]), Ok(()));
        assert_eq!(told(&["a", "b"], &[]), Ok(()));
        assert_eq!(told(&["a", "b", "c"], &[2, 0]), Err(vec!["a".to_owned(), "c".to_owned()]));
    }
}
