//! Retained messages, wills, takeover, subscriptions, limits.

use holm_core::{StoredBroker, Timestamp};
use holm_mqtt::{BrokerConfig, BrokerLimits};

use crate::double::{Mode, Node, anonymous, until};
use crate::peer::{Connect, Peer, V3, V5, publish_with, subscribe, text};

#[tokio::test]
async fn the_last_retained_message_greets_new_subscribers_and_an_empty_one_clears_it() {
    let node = Node::start().await;
    let mut publisher = Peer::connect(node.address, V5, "p", true).await;
    for payload in [b"1", b"2"] {
        publisher.send(&publish_with(V5, "r/a", 0x03, 1, &[], payload)).await;
        publisher.receive().await;
    }
    let mut peer = Peer::connect(node.address, V5, "s", true).await;
    assert_eq!(peer.subscribe("r/#", 1).await, 1);
    let message = peer.delivered().await;
    assert_eq!((message.payload.as_slice(), message.retain, message.qos), (&b"2"[..], true, 1));
    peer.ack(0x40, message.id).await;
    // Retain handling: 1 sends to new subscriptions only, 2 never.
    assert_eq!(peer.subscribe("r/#", 0x10 | 1).await, 1);
    assert_eq!(peer.subscribe("r/a", 0x20 | 1).await, 1);
    peer.hears_nothing().await;
    assert_eq!(peer.subscribe("+/a", 0x10).await, 0);
    assert_eq!(peer.delivered().await.qos, 0);
    assert_eq!(node.broker.stats().retained, 1);

    let stored = node.stopped().await;
    assert_eq!(stored.retained.len(), 1);
    let node = Node::with(anonymous(), stored).await;
    let mut publisher = Peer::connect(node.address, V5, "p", true).await;
    assert_eq!(publisher.subscribe("r/a", 0).await, 0);
    assert_eq!(publisher.delivered().await.payload, b"2");
    publisher.send(&publish_with(V5, "r/a", 0x03, 1, &[], b"")).await;
    // To those who listen it is a message like any other, without the retain flag.
    let heard = [publisher.receive().await, publisher.receive().await];
    assert!(heard.iter().any(|packet| packet.first == 0x30));
    assert!(node.stopped().await.retained.is_empty());
}

#[tokio::test]
async fn who_subscribes_while_a_retained_message_is_committed_gets_it_too() {
    let node = Node::start().await;
    node.double.set(Mode::Held);
    let mut publisher = Peer::connect(node.address, V3, "p", true).await;
    publisher.send(&publish_with(V3, "r", 3, 1, &[], b"new")).await;
    until("it is held", || node.double.held.lock().unwrap().len() == 1).await;
    let mut peer = Peer::connect(node.address, V3, "s", true).await;
    assert_eq!(peer.subscribe("r", 1).await, 1);
    peer.hears_nothing().await;
    node.double.release(0);
    assert_eq!(peer.delivered().await.payload, b"new");
    peer.hears_nothing().await;
    node.stopped().await;
}

#[tokio::test]
async fn retained_messages_beyond_the_limit_are_delivered_and_not_kept() {
    let limits = BrokerLimits { max_retained: 2, ..BrokerLimits::default() };
    let node = Node::with(BrokerConfig { limits, ..anonymous() }, StoredBroker::default()).await;
    let mut peer = Peer::connect(node.address, V3, "p", true).await;
    peer.subscribe("#", 0).await;
    for topic in ["a", "b", "c", "a"] {
        peer.send(&publish_with(V3, topic, 1, 0, &[], b"x")).await;
        assert_eq!(peer.delivered().await.topic, topic);
    }
    let stats = node.broker.stats();
    assert_eq!((stats.retained, stats.dropped), (2, 1));
    node.stopped().await;
}

#[tokio::test]
async fn a_will_is_published_unless_the_client_says_goodbye() {
    for version in [V3, V5] {
        let node = Node::start().await;
        let connect = Connect {
            version,
            client: "c",
            clean: true,
            will: Some((0x08, "will", b"gone", b"")),
            ..Connect::default()
        };
        let (mut polite, _) = Peer::greet(node.address, &connect).await;
        polite.send(&[0xE0, 0]).await;
        polite.is_closed().await;
        let mut watcher = Peer::connect(node.address, version, "w", true).await;
        watcher.subscribe("will", 1).await;
        until("the polite one is gone", || node.broker.stats().clients == 1).await;
        watcher.hears_nothing().await;
        let (rude, _) = Peer::greet(node.address, &connect).await;
        drop(rude);
        let message = watcher.delivered().await;
        assert_eq!((message.payload.as_slice(), message.qos), (&b"gone"[..], 1));
        assert_eq!(node.double.seen_topics(), ["will"], "it goes through the backend");
        node.stopped().await;
    }
}

#[tokio::test]
async fn a_delayed_will_waits_and_is_called_off_by_the_client() {
    let node = Node::start().await;
    let mut watcher = Peer::connect(node.address, V5, "w", true).await;
    watcher.subscribe("will", 0).await;
    let connect = Connect {
        version: V5,
        client: "c",
        properties: &[0x11, 0, 0, 0x0E, 0x10],
        will: Some((0, "will", b"gone", &[0x18, 0, 0, 0, 60])),
        ..Connect::default()
    };
    let leave = async || {
        let (peer, _) = Peer::greet(node.address, &connect).await;
        drop(peer);
        until("it is away", || node.broker.stats().clients == 1).await;
    };
    leave().await;
    node.advance(59);
    leave().await;
    watcher.hears_nothing().await;
    node.advance(61);
    assert_eq!(watcher.delivered().await.payload, b"gone");
    // A clean start ends the session that the will waited with.
    leave().await;
    let (_clean, _) = Peer::greet(node.address, &Connect { clean: true, will: None, ..connect.clone() }).await;
    assert_eq!(watcher.delivered().await.payload, b"gone");
    node.stopped().await;
}

#[tokio::test]
async fn a_second_connection_takes_the_session_over() {
    for version in [V3, V5] {
        let node = Node::start().await;
        let connect = Connect { version, client: "c", properties: &[], ..Connect::default() };
        let (mut first, _) = Peer::greet(node.address, &connect).await;
        let (mut second, _) = Peer::greet(node.address, &connect).await;
        first.is_closed_for(0x8E).await;
        second.hears_nothing().await;
        assert_eq!(node.broker.stats().clients, 1);
        node.stopped().await;
    }
}

#[tokio::test]
async fn overlapping_subscriptions_bring_one_copy_with_all_identifiers() {
    let node = Node::start().await;
    let mut peer = Peer::connect(node.address, V5, "s", true).await;
    for (id, filter, qos) in [(1, "a/#", 0), (2, "a/+", 1), (3, "a/b", 0)] {
        let mut body = vec![0, id, 2, 0x0B, id];
        body.extend(text(filter));
        body.push(qos);
        peer.send(&crate::peer::packet(0x82, &body)).await;
        peer.receive().await;
    }
    let mut publisher = Peer::connect(node.address, V5, "p", true).await;
    publisher.publish("a/b", 2, 1, b"x").await;
    let message = peer.delivered().await;
    assert_eq!(message.qos, 1);
    let mut identifiers: Vec<u8> = message.properties.chunks(2).map(|pair| pair[1]).collect();
    identifiers.sort_unstable();
    assert_eq!(identifiers, [1, 2, 3]);
    peer.hears_nothing().await;
    node.stopped().await;
}

#[tokio::test]
async fn no_local_and_retain_as_published_are_honoured() {
    let node = Node::start().await;
    let mut peer = Peer::connect(node.address, V5, "c", true).await;
    peer.subscribe("a", 0x04).await;
    peer.subscribe("b", 0x08).await;
    peer.publish("a", 0, 0, b"mine").await;
    peer.hears_nothing().await;
    peer.send(&publish_with(V5, "b", 1, 0, &[], b"x")).await;
    assert!(peer.delivered().await.retain);
    let mut other = Peer::connect(node.address, V5, "d", true).await;
    other.publish("a", 0, 0, b"yours").await;
    assert_eq!(peer.delivered().await.payload, b"yours");
    assert_eq!(peer.subscribe("a", 0).await, 0, "replaces the options");
    peer.publish("a", 0, 0, b"mine").await;
    assert_eq!(peer.delivered().await.payload, b"mine");
    node.stopped().await;
}

#[tokio::test]
async fn properties_travel_unchanged_and_the_expiry_counts_down() {
    let node = Node::start().await;
    let mut subscriber = Peer::connect(node.address, V5, "s", true).await;
    subscriber.subscribe("#", 0).await;
    let mut publisher = Peer::connect(node.address, V5, "p", true).await;
    let mut fixed = vec![0x01, 1];
    let mut rest = vec![0x03];
    rest.extend(text("text/plain"));
    rest.push(0x08);
    rest.extend(text("reply/to"));
    rest.push(0x09);
    rest.extend(text("corr"));
    for (key, value) in [("holm-id", "7"), ("holm-hops", "2"), ("holm-id", "8")] {
        rest.push(0x26);
        rest.extend(text(key));
        rest.extend(text(value));
    }
    node.double.set(Mode::Held);
    let sent = [fixed.clone(), vec![0x02, 0, 0, 0, 100], rest.clone()].concat();
    publisher.send(&publish_with(V5, "a", 0, 0, &sent, b"x")).await;
    until("it is held", || node.double.held.lock().unwrap().len() == 1).await;
    node.advance(30);
    node.double.release(0);
    fixed.extend([0x02, 0, 0, 0, 70]);
    fixed.extend(rest);
    assert_eq!(subscriber.delivered().await.properties, fixed);

    publisher.send(&publish_with(V5, "a", 0, 0, &[0x02, 0, 0, 0, 10], b"late")).await;
    until("it is held", || node.double.held.lock().unwrap().len() == 1).await;
    node.advance(10);
    node.double.release(0);
    subscriber.hears_nothing().await;
    assert_eq!(node.broker.stats().dropped, 1, "expired");
    node.stopped().await;
}

#[tokio::test]
async fn topic_aliases_stand_for_topics() {
    let node = Node::start().await;
    let mut peer = Peer::connect(node.address, V5, "c", true).await;
    peer.send(&publish_with(V5, "some/topic", 0, 0, &[0x23, 0, 32], b"1")).await;
    peer.send(&publish_with(V5, "", 0, 0, &[0x23, 0, 32], b"2")).await;
    peer.send(&publish_with(V5, "other", 0, 0, &[0x23, 0, 32], b"3")).await;
    peer.send(&publish_with(V5, "", 0, 0, &[0x23, 0, 32], b"4")).await;
    peer.hears_nothing().await;
    assert_eq!(node.double.seen_topics(), ["some/topic", "some/topic", "other", "other"]);
    peer.send(&publish_with(V5, "", 0, 0, &[0x23, 0, 31], b"?")).await;
    peer.is_closed_for(0x94).await;
    node.stopped().await;
}

#[tokio::test]
async fn a_topic_alias_maximum_of_zero_is_legal() {
    let node = Node::start().await;
    let connect = Connect { version: V5, client: "c", clean: true, properties: &[0x22, 0, 0], ..Connect::default() };
    let (mut peer, _) = Peer::greet(node.address, &connect).await;
    peer.subscribe("a", 1).await;
    peer.publish("a", 0, 0, b"x").await;
    assert_eq!(peer.delivered().await.payload, b"x");
    node.stopped().await;
}

#[tokio::test]
async fn a_slow_reader_costs_bounded_memory() {
    let limits = BrokerLimits {
        max_outgoing_bytes: 1 << 20,
        max_queue_bytes: 1 << 20,
        max_queue_messages: 500,
        ..BrokerLimits::default()
    };
    let node = Node::with(BrokerConfig { limits, ..anonymous() }, StoredBroker::default()).await;
    let mut slow = Peer::connect(node.address, V3, "slow", true).await;
    slow.subscribe("#", 1).await;
    let mut publisher = Peer::connect(node.address, V3, "p", true).await;
    let payload = vec![7; 16 << 10];
    for round in 0..60 {
        for id in 1..=20 {
            publisher.publish("q0", 0, 0, &payload).await;
            publisher.publish("q1", 1, id, &payload).await;
        }
        for _ in 1..=20 {
            assert_eq!(publisher.receive().await.kind(), 4, "round {round}");
        }
        let stats = node.broker.stats();
        assert!(stats.queued_bytes <= 2 << 20, "{stats:?}");
        assert!(stats.queued_messages <= 500, "{stats:?}");
    }
    let stats = node.broker.stats();
    assert!(stats.dropped > 500, "{stats:?}");
    // What was not dropped arrives once it reads, the acknowledged part of the queue in order.
    assert_eq!(slow.receive().await.kind(), 3);
    node.stopped().await;
}

#[tokio::test]
async fn limits_hold_for_sessions_subscriptions_and_connections() {
    let limits = BrokerLimits { max_sessions: 2, max_subscriptions: 2, max_connections: 3, ..BrokerLimits::default() };
    let node = Node::with(BrokerConfig { limits, ..anonymous() }, StoredBroker::default()).await;
    let mut first = Peer::connect(node.address, V5, "1", true).await;
    let mut codes = Vec::new();
    for filter in ["a", "b", "c", "a"] {
        codes.push(first.subscribe(filter, 1).await);
    }
    assert_eq!(codes, [1, 1, 0x97, 1]);
    let _second = Peer::connect(node.address, V5, "2", true).await;
    let mut third = Peer::dial(node.address, V5).await;
    third.send(&Connect { version: V5, client: "3", clean: true, ..Connect::default() }.bytes()).await;
    assert_eq!(third.receive().await.body[1], 0x97);
    third.is_closed().await;
    drop(third);
    until("its socket is closed", || node.broker.stats().connections == 2).await;
    let mut idle = Peer::dial(node.address, V5).await;
    until("it is open", || node.broker.stats().connections == 3).await;
    let mut over = Peer::dial(node.address, V5).await;
    over.is_closed().await;
    idle.send(&Connect { version: V5, client: "2", clean: true, ..Connect::default() }.bytes()).await;
    assert_eq!(idle.receive().await.body[1], 0, "a known client may come back");
    node.stopped().await;
}

#[tokio::test]
async fn a_packet_above_the_clients_maximum_is_not_sent_to_it() {
    let node = Node::start().await;
    let connect =
        Connect { version: V5, client: "s", clean: true, properties: &[0x27, 0, 0, 0, 40], ..Connect::default() };
    let (mut small, _) = Peer::greet(node.address, &connect).await;
    small.subscribe("a", 1).await;
    let mut publisher = Peer::connect(node.address, V3, "p", true).await;
    publisher.publish("a", 1, 1, &[0; 100]).await;
    publisher.publish("a", 1, 2, b"fits").await;
    assert_eq!(small.delivered().await.payload, b"fits");
    assert_eq!(node.broker.stats().queued_messages, 1);
    node.stopped().await;
}

#[tokio::test]
async fn silence_beyond_the_keep_alive_ends_a_connection() {
    let limits = BrokerLimits { max_keep_alive: 1, ..BrokerLimits::default() };
    let node = Node::with(BrokerConfig { limits, ..anonymous() }, StoredBroker::default()).await;
    let connect = Connect { version: V5, client: "c", clean: true, keep_alive: 30, ..Connect::default() };
    let (mut peer, answer) = Peer::greet(node.address, &connect).await;
    let server_keep_alive = answer.body.windows(3).any(|bytes| bytes == [0x13, 0, 1]);
    assert!(server_keep_alive, "{answer:?}");
    peer.is_closed_for(0x8D).await;
    node.stopped().await;
}

#[tokio::test]
async fn a_socket_that_says_nothing_is_closed() {
    let limits = BrokerLimits { connect_timeout: std::time::Duration::from_millis(50), ..BrokerLimits::default() };
    let node = Node::with(BrokerConfig { limits, ..anonymous() }, StoredBroker::default()).await;
    let mut silent = Peer::dial(node.address, V3).await;
    silent.is_closed().await;
    let mut slow = Peer::dial(node.address, V3).await;
    slow.send(&[0x10, 0x20, 0]).await;
    slow.is_closed().await;
    node.stopped().await;
}

#[tokio::test]
async fn the_node_itself_publishes_from_any_thread() {
    let node = Node::start().await;
    let mut peer = Peer::connect(node.address, V3, "s", true).await;
    peer.subscribe("out/#", 1).await;
    let broker = node.broker.clone();
    let worker = std::thread::spawn(move || {
        let message = holm_core::Message {
            topic: "out/x".parse().unwrap(),
            payload: holm_core::Payload { content_type: None, data: bytes::Bytes::from_static(b"hello") },
            qos: holm_core::Qos::AtMostOnce,
            retain: false,
            accepted: Timestamp(0),
            expiry_seconds: None,
            payload_format: None,
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
            publisher: None,
        };
        let plan = broker.plan(std::sync::Arc::new(message));
        assert!(plan.writes.is_empty());
        broker.deliver(plan);
    });
    assert_eq!(peer.delivered().await.payload, b"hello");
    worker.join().unwrap();
    node.stopped().await;
}

#[tokio::test]
async fn unsubscribing_ends_delivery() {
    let node = Node::start().await;
    let mut peer = Peer::connect(node.address, V5, "s", true).await;
    peer.subscribe("a/#", 0).await;
    let mut body = vec![0, 5, 0];
    for filter in ["a/#", "b", "a/#/b"] {
        body.extend(text(filter));
    }
    peer.send(&crate::peer::packet(0xA2, &body)).await;
    assert_eq!(peer.receive().await.body, [0, 5, 0, 0, 0x11, 0x8F]);
    peer.publish("a/b", 0, 0, b"x").await;
    peer.hears_nothing().await;
    peer.send(&subscribe(V5, 6, &[("a", 0), ("a/#/b", 0), ("", 0)])).await;
    assert_eq!(peer.receive().await.body, [0, 6, 0, 0, 0x8F, 0x8F]);
    node.stopped().await;
}
