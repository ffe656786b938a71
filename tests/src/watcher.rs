//! A subscriber that tells what functions published, and a publisher that waits for its acknowledgement.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::mqtt::{Client, Packet};
use crate::node::Node;

/// Sees messages as they come. It acknowledges at once.
pub struct Watcher {
    client: Client,
}

impl Watcher {
    /// Subscribes at QoS 1.
    pub fn new(node: &Node, filter: &str) -> Self {
        let mut client = Client::connect(&node.mqtt, &format!("watcher-{}", rand::random::<u32>()), true).unwrap();
        client.subscribe(filter, 1).unwrap();
        Self { client }
    }

    /// Takes up the session of this name, or begins it and subscribes at QoS 1: what comes while the watcher is away waits for it.
    pub fn named(node: &Node, name: &str, filter: &str) -> Self {
        let mut client = Client::connect(&node.mqtt, name, false).unwrap();
        if !client.resumed {
            client.subscribe(filter, 1).unwrap();
        }
        Self { client }
    }

    /// The next message's topic and payload, which must come within half a minute.
    #[expect(clippy::should_implement_trait, reason = "it fails rather than ends")]
    pub fn next(&mut self) -> (String, Value) {
        self.next_within(Duration::from_secs(30)).expect("a message within half a minute")
    }

    /// The next message, if one comes. A payload that is no JSON is given as text.
    pub fn next_within(&mut self, wait: Duration) -> Option<(String, Value)> {
        let deadline = Instant::now() + wait;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.client.patience(left);
            match self.client.receive() {
                Ok(Packet::Publish { topic, payload, qos, id, .. }) => {
                    if qos == 1 {
                        self.client.ack(4, id).unwrap();
                    }
                    let value = serde_json::from_slice(&payload)
                        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&payload).into_owned()));
                    return Some((topic, value));
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    if Instant::now() >= deadline {
                        return None;
                    }
                }
                Err(error) => panic!("the watcher's connection ended: {error}"),
            }
        }
    }

    /// Everything until nothing has come for `quiet`.
    pub fn rest(&mut self, quiet: Duration) -> Vec<(String, Value)> {
        std::iter::from_fn(|| self.next_within(quiet)).collect()
    }
}

/// Publishes at QoS 1 on a connection of its own, and waits for the acknowledgement; the reason code is answered.
pub fn publish(node: &Node, topic: &str, payload: &[u8]) -> u8 {
    let mut client = Client::connect(&node.mqtt, &format!("pub-{}", rand::random::<u32>()), true).unwrap();
    client.publish(topic, payload, 1, 1, false, None).unwrap();
    let code = acknowledgement(&mut client, 1);
    client.disconnect();
    code
}

/// Publishes many at QoS 1, up to 64 at a time; all must be acknowledged with success.
pub fn publish_all<T: AsRef<[u8]>>(node: &Node, topic: &str, payloads: impl IntoIterator<Item = T>) {
    let mut client = Client::connect(&node.mqtt, &format!("pub-{}", rand::random::<u32>()), true).unwrap();
    let (mut sent, mut answered) = (0_u16, 0_u16);
    for payload in payloads {
        sent += 1;
        client.publish(topic, payload.as_ref(), 1, sent, false, None).unwrap();
        if sent - answered >= 64 {
            answered += 1;
            assert_eq!(acknowledgement(&mut client, answered), 0);
        }
    }
    while answered < sent {
        answered += 1;
        assert_eq!(acknowledgement(&mut client, answered), 0);
    }
    client.disconnect();
}

/// Waits for the PUBACK of one message.
pub fn acknowledgement(client: &mut Client, id: u16) -> u8 {
    match client.receive().unwrap() {
        Packet::Ack(4, found, code) if found == id => code,
        other => panic!("{other:?} instead of the acknowledgement of {id}"),
    }
}
