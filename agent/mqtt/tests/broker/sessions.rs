//! Sessions that outlive connections, and the process.

use crate::double::{Mode, Node, anonymous, until};
use crate::peer::{Connect, Peer, V3, V5, publish, publish_with, subscribe};
use holm_core::{SessionWrite, StoredBroker};
use holm_mqtt::BrokerConfig;
use std::time::Duration;

/// Session Expiry Interval of an hour.
const HOUR: &[u8] = &[0x11, 0, 0, 0x0E, 0x10];

fn durable(version: u8, client: &str) -> Connect<'_> {
    Connect { version, client, properties: if version == V5 { HOUR } else { &[] }, ..Connect::default() }
}

#[tokio::test]
async fn a_persistent_session_survives_a_restart_from_its_writes() {
    for version in [V3, V5] {
        for qos in [1, 2] {
            let node = Node::start().await;
            let (mut subscriber, answer) = Peer::greet(node.address, &durable(version, "s")).await;
            assert_eq!(answer.body[0], 0, "no session yet");
            assert_eq!(subscriber.subscribe("a/+", qos).await, qos);
            drop(subscriber);
            until("it is away", || node.broker.stats().clients == 0).await;
            let mut publisher = Peer::connect(node.address, version, "p", true).await;
            for payload in [b"1", b"2", b"3"] {
                publisher.publish("a/b", qos, 1, payload).await;
                assert_eq!(publisher.receive().await.id(), 1);
                if qos == 2 {
                    publisher.ack(0x62, 1).await;
                    publisher.receive().await;
                }
            }
            let stored = node.stopped().await;

            let node = Node::with(anonymous(), stored).await;
            let (mut subscriber, answer) = Peer::greet(node.address, &durable(version, "s")).await;
            assert_eq!(answer.body[0], 1, "the session is present");
            let mut ids = Vec::new();
            for payload in [b"1", b"2", b"3"] {
                let message = subscriber.delivered().await;
                assert_eq!((message.payload.as_slice(), message.qos), (&payload[..], qos));
                ids.push(message.id);
            }
            // Acknowledge the first only, and restart again: the others come again under the same ids.
            if qos == 1 {
                subscriber.ack(0x40, ids[0]).await;
            } else {
                subscriber.ack(0x50, ids[0]).await;
                assert_eq!(subscriber.receive().await.kind(), 6);
                subscriber.ack(0x70, ids[0]).await;
                // This one is released and not complete.
                subscriber.ack(0x50, ids[1]).await;
                assert_eq!(subscriber.receive().await.kind(), 6);
            }
            subscriber.hears_nothing().await;
            let stored = node.stopped().await;
            assert_eq!(stored.sessions[0].queue.len(), 2);

            let node = Node::with(anonymous(), stored).await;
            let (mut subscriber, _) = Peer::greet(node.address, &durable(version, "s")).await;
            if qos == 2 {
                let release = subscriber.receive().await;
                assert_eq!((release.kind(), release.id()), (6, ids[1]), "PUBREL, not PUBLISH");
                subscriber.ack(0x70, ids[1]).await;
            } else {
                let second = subscriber.delivered().await;
                assert_eq!((second.payload.as_slice(), second.id, second.dup), (&b"2"[..], ids[1], true));
                subscriber.ack(0x40, ids[1]).await;
            }
            let third = subscriber.delivered().await;
            assert_eq!((third.payload.as_slice(), third.id, third.dup), (&b"3"[..], ids[2], true));
            subscriber.hears_nothing().await;
            assert_eq!(node.stopped().await.sessions[0].queue.len(), 1);
        }
    }
}

#[tokio::test]
async fn a_resend_after_a_restart_is_recognised() {
    let node = Node::start().await;
    let (mut peer, _) = Peer::greet(node.address, &durable(V3, "p")).await;
    peer.publish("a", 2, 8, b"x").await;
    peer.receive().await;
    let stored = node.stopped().await;

    let node = Node::with(anonymous(), stored).await;
    let (mut peer, _) = Peer::greet(node.address, &durable(V3, "p")).await;
    peer.send(&publish(V3, "a", 0x0C, 8, b"x")).await;
    assert_eq!(peer.receive().await.id(), 8);
    assert!(node.double.seen.lock().unwrap().is_empty(), "it is settled already");
    peer.ack(0x62, 8).await;
    assert_eq!(peer.receive().await.kind(), 7);
    assert!(node.double.stored.lock().unwrap().sessions[0].received.is_empty());
    node.stopped().await;
}

/// Nobody knows any more whether its PUBACK was sent, so it may be another message that says the same.
#[tokio::test]
async fn a_qos_1_message_after_a_restart_is_new() {
    let node = Node::start().await;
    let (mut peer, _) = Peer::greet(node.address, &durable(V3, "p")).await;
    peer.publish("a", 1, 8, b"x").await;
    peer.receive().await;
    let mut stored = node.stopped().await;
    assert!(stored.sessions[0].received.is_empty());
    // Of an earlier release, which kept such records.
    let old = holm_core::Received { packet_id: 8, digest: 0xC40B_E0D2_8574_34E6, qos: holm_core::Qos::AtLeastOnce };
    stored.sessions[0].received.push(old);

    let node = Node::with(anonymous(), stored).await;
    let (mut peer, _) = Peer::greet(node.address, &durable(V3, "p")).await;
    peer.send(&publish(V3, "a", 0x0A, 8, b"x")).await;
    assert_eq!(peer.receive().await.id(), 8);
    assert_eq!(node.double.seen.lock().unwrap().len(), 1);
    node.stopped().await;
}

#[tokio::test]
async fn volatile_sessions_write_nothing() {
    let node = Node::start().await;
    let mut subscriber = Peer::connect(node.address, V3, "s", true).await;
    subscriber.subscribe("#", 2).await;
    let mut publisher = Peer::connect(node.address, V5, "p", true).await;
    for qos in 0..=2_u8 {
        publisher.publish("a", qos, 4, b"x").await;
        if qos > 0 {
            publisher.receive().await;
        }
        let message = subscriber.delivered().await;
        assert_eq!(message.qos, qos);
        match qos {
            1 => subscriber.ack(0x40, message.id).await,
            2 => {
                subscriber.ack(0x50, message.id).await;
                assert_eq!(subscriber.receive().await.kind(), 6);
                subscriber.ack(0x70, message.id).await;
                publisher.ack(0x62, 4).await;
                assert_eq!(publisher.receive().await.kind(), 7);
            }
            _ => {}
        }
    }
    subscriber.hears_nothing().await;
    assert_eq!(node.broker.stats().queued_messages, 0);
    let double = node.double.clone();
    assert_eq!(node.stopped().await, StoredBroker::default());
    assert!(double.writes.lock().unwrap().is_empty());
}

#[tokio::test]
async fn session_changes_are_committed_before_they_are_promised() {
    let node = Node::start().await;
    *node.double.hold_persist.lock().unwrap() = true;
    let held = || node.double.held_persist.lock().unwrap().len();
    let mut peer = Peer::dial(node.address, V5).await;
    peer.send(&durable(V5, "s").bytes()).await;
    until("Open is held", || held() == 1).await;
    let quiet = tokio::time::timeout(std::time::Duration::from_millis(20), peer.socket.readable()).await;
    assert!(quiet.is_err(), "CONNACK waits");
    node.double.release_persist();
    assert_eq!(peer.receive().await.kind(), 2);

    peer.send(&subscribe(V5, 1, &[("a", 2)])).await;
    until("Subscribe is held", || held() == 1).await;
    peer.hears_nothing().await;
    node.double.release_persist();
    assert_eq!(peer.receive().await.kind(), 9);

    peer.publish("a", 2, 6, b"x").await;
    let (mut id, mut kinds) = (0, Vec::new());
    for _ in 0..2 {
        let next = peer.receive().await;
        kinds.push(next.kind());
        if next.kind() == 3 {
            id = next.publish(V5).id;
        }
    }
    kinds.sort_unstable();
    assert_eq!(kinds, [3, 5]);
    peer.ack(0x62, 6).await;
    until("Forget is held", || held() == 1).await;
    peer.hears_nothing().await;
    node.double.release_persist();
    assert_eq!(peer.receive().await.kind(), 7);

    peer.ack(0x50, id).await;
    until("Release is held", || held() == 1).await;
    peer.hears_nothing().await;
    node.double.release_persist();
    assert_eq!(peer.receive().await.kind(), 6);
    *node.double.hold_persist.lock().unwrap() = false;
    node.stopped().await;
}

#[tokio::test]
async fn what_was_on_its_way_is_sent_again_with_dup_on_a_new_connection() {
    let node = Node::start().await;
    let (mut subscriber, _) = Peer::greet(node.address, &durable(V5, "s")).await;
    subscriber.subscribe("a", 1).await;
    let mut publisher = Peer::connect(node.address, V5, "p", true).await;
    publisher.publish("a", 1, 1, b"x").await;
    let first = subscriber.delivered().await;
    assert!(!first.dup);
    drop(subscriber);
    let (mut subscriber, answer) = Peer::greet(node.address, &durable(V5, "s")).await;
    assert_eq!(answer.body[0], 1);
    let second = subscriber.delivered().await;
    assert_eq!((second.dup, second.id), (true, first.id));
    subscriber.ack(0x40, second.id).await;
    subscriber.hears_nothing().await;
    assert!(node.stopped().await.sessions[0].queue.is_empty());
}

#[tokio::test]
async fn the_receive_maximum_of_the_client_is_its_window() {
    let node = Node::start().await;
    let connect = Connect { version: V5, client: "s", clean: true, properties: &[0x21, 0, 2], ..Connect::default() };
    let (mut subscriber, _) = Peer::greet(node.address, &connect).await;
    subscriber.subscribe("a", 1).await;
    let mut publisher = Peer::connect(node.address, V3, "p", true).await;
    for id in 1..=5 {
        publisher.publish("a", 1, id, &[u8::try_from(id).unwrap()]).await;
        publisher.receive().await;
    }
    let mut window = vec![subscriber.delivered().await, subscriber.delivered().await];
    for expected in 3..=5 {
        subscriber.hears_nothing().await;
        subscriber.ack(0x40, window.remove(0).id).await;
        window.push(subscriber.delivered().await);
        assert_eq!(window[1].payload, [expected]);
    }
    node.stopped().await;
}

#[tokio::test]
async fn clean_start_and_expiry_end_a_session() {
    let node = Node::start().await;
    let (mut peer, _) = Peer::greet(node.address, &durable(V5, "s")).await;
    peer.subscribe("a", 1).await;
    drop(peer);
    until("it is away", || node.broker.stats().clients == 0).await;
    node.advance(3_599);
    let (peer, answer) = Peer::greet(node.address, &durable(V5, "s")).await;
    assert_eq!(answer.body[0], 1, "an hour is not over");
    drop(peer);
    until("it is away", || node.broker.stats().clients == 0).await;
    node.advance(3_601);
    until("the keeper ends it", || node.broker.stats().sessions == 0).await;
    assert!(node.double.stored.lock().unwrap().sessions.is_empty());

    let (peer, answer) = Peer::greet(node.address, &durable(V5, "s")).await;
    assert_eq!(answer.body[0], 0);
    drop(peer);
    let clean = Connect { clean: true, ..durable(V5, "s") };
    let (_peer, answer) = Peer::greet(node.address, &clean).await;
    assert_eq!(answer.body[0], 0, "clean start makes a new one");
    let writes = node.double.writes.lock().unwrap().clone();
    let last: Vec<_> = writes.iter().rev().take(2).collect();
    assert!(matches!(last.as_slice(), [SessionWrite::Open { .. }, SessionWrite::Drop { .. }]), "{last:?}");
    node.stopped().await;
}

#[tokio::test]
async fn disconnect_may_end_a_durable_session_and_not_begin_one() {
    let node = Node::start().await;
    let (mut peer, _) = Peer::greet(node.address, &durable(V5, "s")).await;
    peer.send(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
    peer.is_closed().await;
    until("the session ends", || node.broker.stats().sessions == 0).await;
    assert!(node.double.stored.lock().unwrap().sessions.is_empty());
    let mut peer = Peer::connect(node.address, V5, "t", true).await;
    peer.send(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 9]).await;
    peer.is_closed_for(0x82).await;
    node.stopped().await;
}

#[tokio::test]
async fn a_message_for_a_session_that_ended_while_it_was_committed_is_taken_back() {
    let node = Node::start().await;
    let (mut subscriber, _) = Peer::greet(node.address, &durable(V5, "s")).await;
    subscriber.subscribe("a", 1).await;
    node.double.set(Mode::Held);
    let mut publisher = Peer::connect(node.address, V3, "p", true).await;
    publisher.publish("a", 1, 1, b"x").await;
    until("it is held", || node.double.held.lock().unwrap().len() == 1).await;
    let clean = Connect { clean: true, ..durable(V5, "s") };
    let (mut subscriber, _) = Peer::greet(node.address, &clean).await;
    node.double.release(0);
    assert_eq!(publisher.receive().await.kind(), 4);
    until("the row is gone", || node.double.stored.lock().unwrap().sessions[0].queue.is_empty()).await;
    subscriber.hears_nothing().await;
    node.stopped().await;
}

#[tokio::test]
async fn a_clock_that_is_set_ends_nothing() {
    const DECADES: i64 = 50 * 365 * 86_400;
    // Nobody waits in this test for as long as anything lives.
    let config = BrokerConfig { uptime: Some(|| Duration::ZERO), ..anonymous() };
    let node = Node::with(config, StoredBroker::default()).await;
    let (mut away, _) = Peer::greet(node.address, &durable(V5, "s")).await;
    away.subscribe("a", 1).await;
    drop(away);
    until("it is away", || node.broker.stats().clients == 0).await;
    let expiry = &[0x02, 0, 0, 0, 60];
    let mut publisher = Peer::connect(node.address, V5, "p", true).await;
    publisher.send(&publish_with(V5, "a", 0x03, 1, expiry, b"x")).await;
    publisher.receive().await;
    node.advance(DECADES);
    let (mut back, answer) = Peer::greet(node.address, &durable(V5, "s")).await;
    assert_eq!(answer.body[0], 1, "the session is there");
    assert_eq!(back.delivered().await.payload, b"x");
    let mut late = Peer::connect(node.address, V5, "late", true).await;
    assert_eq!(late.subscribe("a", 1).await, 1);
    assert_eq!(late.delivered().await.payload, b"x", "what is retained is as well");
    drop((back, late, publisher));
    let stored = node.stopped().await;
    let accepted = |message: &holm_core::Message| message.accepted.0 / 1000 >= DECADES;
    assert!(stored.retained.iter().all(|message| accepted(message)) && stored.retained.len() == 1);
    assert!(stored.sessions[0].queue.iter().all(|queued| accepted(&queued.message)), "the store has heard of it");
}
