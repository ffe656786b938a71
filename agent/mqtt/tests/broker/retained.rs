//! Retained messages whose commits overtake each other, and the bounds on what a subscription gets of them.

use holm_core::{SessionWrite, StoredBroker};
use holm_mqtt::{BrokerConfig, BrokerLimits};

use crate::double::{Mode, Node, anonymous, until};
use crate::peer::{Connect, Peer, V3, V5, publish, publish_with, subscribe};

/// QoS and retain, as flags of PUBLISH.
const RETAIN_0: u8 = 0x01;
const RETAIN_1: u8 = 0x03;

async fn limited(limits: BrokerLimits) -> Node {
    Node::with(BrokerConfig { limits, ..anonymous() }, StoredBroker::default()).await
}

async fn retain(node: &Node, topics: &[&str]) {
    let mut peer = Peer::connect(node.address, V3, "keeper", true).await;
    for topic in topics {
        peer.send(&publish(V3, topic, RETAIN_1, 1, b"x")).await;
        assert_eq!(peer.receive().await.kind(), 4);
    }
}

/// Sends a retained `old`, whose commit is held, then `new`, which is committed at once; then lets `old` go. `new` must
/// have the last word.
async fn check_overtaking(flags: u8, new: &[u8]) {
    let node = Node::start().await;
    node.double.set(Mode::Held);
    let mut peer = Peer::connect(node.address, V5, "p", true).await;
    peer.send(&publish(V5, "r", RETAIN_1, 1, b"old")).await;
    until("the first is held", || node.double.held.lock().unwrap().len() == 1).await;
    node.double.set(Mode::Immediate);
    peer.send(&publish(V5, "r", flags, 2, new)).await;
    peer.hears_nothing().await;
    node.double.release(0);
    assert_eq!(peer.receive().await.id(), 1);
    if flags == RETAIN_1 {
        assert_eq!(peer.receive().await.id(), 2);
    }
    let expected: Vec<&[u8]> = if new.is_empty() { Vec::new() } else { vec![new] };
    let stored = || -> Vec<Vec<u8>> {
        let stored = node.double.stored.lock().unwrap();
        stored.retained.iter().map(|message| message.payload.data.to_vec()).collect()
    };
    until("the store has the last word", || stored() == expected).await;
    let mut late = Peer::connect(node.address, V5, "late", true).await;
    late.subscribe("r", 0).await;
    for payload in expected {
        assert_eq!(late.delivered().await.payload, payload);
    }
    late.hears_nothing().await;
    node.stopped().await;
}

#[tokio::test]
async fn the_last_word_on_a_topic_is_the_one_that_was_sent_last() {
    for flags in [RETAIN_0, RETAIN_1] {
        for new in [&b""[..], b"new"] {
            check_overtaking(flags, new).await;
        }
    }
}

#[tokio::test]
async fn clearing_a_topic_that_holds_nothing_writes_nothing() {
    let node = Node::start().await;
    let mut peer = Peer::connect(node.address, V5, "p", true).await;
    peer.send(&publish(V5, "r", RETAIN_1, 1, b"")).await;
    assert_eq!(peer.receive().await.kind(), 4);
    assert!(node.double.writes.lock().unwrap().is_empty());
    node.stopped().await;
}

#[tokio::test]
async fn a_message_that_was_never_delivered_leaves_its_topic_as_it_was() {
    let node = Node::start().await;
    retain(&node, &["r"]).await;
    node.double.set(Mode::Held);
    let mut peer = Peer::connect(node.address, V5, "p", true).await;
    peer.send(&publish(V5, "r", RETAIN_1, 1, b"")).await;
    until("it is held", || node.double.held.lock().unwrap().len() == 1).await;
    // The backend gives up.
    node.double.held.lock().unwrap().clear();
    assert_eq!(peer.receive().await.body.get(2), Some(&0x80));
    node.double.set(Mode::Immediate);
    peer.subscribe("r", 0).await;
    assert_eq!(peer.delivered().await.payload, b"x");
    peer.send(&publish(V5, "r", RETAIN_1, 2, b"")).await;
    until("it is cleared", || node.broker.stats().retained == 0).await;
    assert!(node.stopped().await.retained.is_empty());
}

#[tokio::test]
async fn what_expires_is_gone_from_the_store_too() {
    let node = Node::start().await;
    let mut peer = Peer::connect(node.address, V5, "p", true).await;
    peer.send(&publish_with(V5, "r", RETAIN_1, 1, &[2, 0, 0, 0, 5], b"x")).await;
    assert_eq!(peer.receive().await.kind(), 4);
    node.advance(6);
    until("the keeper ends it", || node.double.stored.lock().unwrap().retained.is_empty()).await;
    // The topic is as good as new.
    peer.send(&publish(V5, "r", RETAIN_1, 2, b"y")).await;
    assert_eq!(peer.receive().await.kind(), 4);
    assert_eq!(node.stopped().await.retained.len(), 1);
}

#[tokio::test]
async fn retained_messages_that_are_being_committed_count_towards_the_limit() {
    let node = limited(BrokerLimits { max_retained: 2, ..BrokerLimits::default() }).await;
    node.double.set(Mode::Held);
    let mut peer = Peer::connect(node.address, V3, "p", true).await;
    for (id, topic) in (1..).zip(["a", "b", "c", "d"]) {
        peer.send(&publish(V3, topic, RETAIN_1, id, b"x")).await;
    }
    until("all are held", || node.double.held.lock().unwrap().len() == 4).await;
    for _ in 0..4 {
        node.double.release(0);
        peer.receive().await;
    }
    let stats = node.broker.stats();
    assert_eq!((stats.retained, stats.dropped), (2, 2));
    assert_eq!(node.stopped().await.retained.len(), 2);
}

#[tokio::test]
async fn entries_of_one_subscribe_beyond_the_limit_are_refused_even_if_they_say_the_same() {
    for (version, refusal) in [(V3, 0x80), (V5, 0x97)] {
        let node = limited(BrokerLimits { max_subscriptions: 3, ..BrokerLimits::default() }).await;
        retain(&node, &["a"]).await;
        let mut peer = Peer::connect(node.address, version, "s", true).await;
        peer.send(&subscribe(version, 1, &[("#", 0); 200])).await;
        let answer = peer.receive().await;
        let codes = &answer.body[answer.body.len() - 200..];
        assert_eq!(codes[..3], [0; 3]);
        assert!(codes[3..].iter().all(|code| *code == refusal), "{codes:?}");
        for _ in 0..3 {
            peer.delivered().await;
        }
        peer.hears_nothing().await;
        node.stopped().await;
    }
}

#[tokio::test]
async fn retained_messages_for_a_durable_session_stay_within_its_queue() {
    let node = limited(BrokerLimits { max_queue_messages: 3, ..BrokerLimits::default() }).await;
    retain(&node, &["a", "b", "c", "d", "e"]).await;
    let connect = Connect { version: V3, client: "s", ..Connect::default() };
    let (mut peer, _) = Peer::greet(node.address, &connect).await;
    peer.subscribe("#", 1).await;
    for _ in 0..3 {
        peer.delivered().await;
    }
    peer.hears_nothing().await;
    assert_eq!(node.broker.stats().dropped, 2);
    let writes = node.double.writes.lock().unwrap().clone();
    let queued = writes.iter().filter(|write| matches!(write, SessionWrite::Enqueue { .. })).count();
    assert_eq!(queued, 3);
    node.stopped().await;
}

#[tokio::test]
async fn messages_that_are_being_committed_count_towards_the_queue_of_a_durable_session() {
    let node = limited(BrokerLimits { max_queue_messages: 3, ..BrokerLimits::default() }).await;
    let connect = Connect { version: V3, client: "s", ..Connect::default() };
    let (mut peer, _) = Peer::greet(node.address, &connect).await;
    peer.subscribe("a", 1).await;
    node.double.set(Mode::Held);
    let mut publisher = Peer::connect(node.address, V3, "p", true).await;
    for id in 1..=5 {
        publisher.publish("a", 1, id, b"x").await;
    }
    until("all are held", || node.double.held.lock().unwrap().len() == 5).await;
    assert_eq!(node.broker.stats().dropped, 2);
    for _ in 0..5 {
        node.double.release(0);
        publisher.receive().await;
    }
    for _ in 0..3 {
        let id = peer.delivered().await.id;
        peer.ack(0x40, id).await;
    }
    peer.hears_nothing().await;
    // Room that was promised is given back.
    node.double.set(Mode::Immediate);
    publisher.publish("a", 1, 6, b"x").await;
    peer.delivered().await;
    assert_eq!(node.broker.stats().dropped, 2);
    node.stopped().await;
}

#[tokio::test]
async fn retained_messages_behind_a_slow_commit_cost_bounded_memory() {
    for qos in [0, 1] {
        let limits = BrokerLimits { max_queue_messages: 4, max_outgoing_bytes: 800, ..BrokerLimits::default() };
        let node = limited(limits).await;
        retain(&node, &["a", "b", "c", "d"]).await;
        node.double.set(Mode::Held);
        let mut peer = Peer::connect(node.address, V5, "s", true).await;
        // What comes behind it waits for its answer.
        peer.publish("slow", 1, 1, b"x").await;
        for id in 1..=10 {
            peer.send(&subscribe(V5, id, &[("#", qos)])).await;
        }
        until("what is over is dropped", || node.broker.stats().dropped == 36).await;
        until("it is held", || node.double.held.lock().unwrap().len() == 1).await;
        node.double.release(0);
        let mut delivered = 0;
        peer.send(&[0xC0, 0]).await;
        loop {
            match peer.receive().await.kind() {
                3 => delivered += 1,
                13 => break,
                _ => {}
            }
        }
        assert_eq!(delivered, 4);
        node.stopped().await;
    }
}
