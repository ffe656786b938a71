//! When PUBACK and PUBREC leave, and in what order.

use std::time::{Duration, Instant};

use holm_mqtt::Refusal;

use crate::double::{Mode, Node, until};
use crate::peer::{Connect, Peer, V3, V5, publish};

#[tokio::test]
async fn acknowledges_only_after_the_message_is_settled() {
    for (version, qos, ack) in [(V3, 1, 4), (V3, 2, 5), (V5, 1, 4), (V5, 2, 5)] {
        let node = Node::start().await;
        node.double.set(Mode::Held);
        let mut peer = Peer::connect(node.address, version, "p", true).await;
        peer.publish("a", qos, 9, b"x").await;
        until("the backend has it", || node.double.held.lock().unwrap().len() == 1).await;
        peer.hears_nothing().await;
        node.double.release(0);
        let answer = peer.receive().await;
        assert_eq!((answer.kind(), answer.id()), (ack, 9));
        node.stopped().await;
    }
}

#[tokio::test]
async fn commits_of_one_connection_run_in_parallel_and_are_acknowledged_in_order() {
    let node = Node::start().await;
    node.double.set(Mode::Held);
    let mut peer = Peer::connect(node.address, V3, "p", true).await;
    for id in 1..=50 {
        peer.publish("a", 1, id, b"x").await;
    }
    until("all are with the backend at once", || node.double.held.lock().unwrap().len() == 50).await;
    for last in (0..50).rev() {
        peer.hears_nothing().await;
        node.double.release(last);
    }
    for id in 1..=50 {
        assert_eq!(peer.receive().await.id(), id);
    }
    node.stopped().await;
}

#[tokio::test]
async fn fifty_commits_of_one_connection_are_not_serial() {
    let node = Node::start().await;
    node.double.set(Mode::After(Duration::from_millis(100)));
    let mut peer = Peer::connect(node.address, V5, "p", true).await;
    let begin = Instant::now();
    let burst: Vec<u8> = (1..=50).flat_map(|id| publish(V5, "a", 2, id, b"x")).collect();
    peer.send(&burst).await;
    // PINGREQ, behind all of it; and somebody else comes in meanwhile.
    peer.send(&[0xc0, 0]).await;
    let _other = Peer::connect(node.address, V5, "other", true).await;
    let (mut next, mut pongs) = (1, 0);
    while next <= 50 || pongs == 0 {
        let answer = peer.receive().await;
        if answer.kind() == 13 {
            pongs += 1;
            continue;
        }
        assert_eq!(answer.id(), next);
        next += 1;
    }
    let taken = begin.elapsed();
    println!("50 commits of 100 ms each took {taken:?}");
    assert!(taken < Duration::from_millis(2_500), "{taken:?} is serial");
    node.stopped().await;
}

#[tokio::test]
async fn what_came_at_once_is_settled_to_its_end_though_nothing_comes_after_it() {
    let node = Node::start().await;
    // Three times the limit of pending commits, each of which is done a moment later.
    node.double.set(Mode::After(Duration::ZERO));
    let mut peer = Peer::connect(node.address, V3, "p", true).await;
    let burst: Vec<u8> = (1..=768).flat_map(|id| publish(V3, "a", 2, id, b"x")).collect();
    peer.send(&burst).await;
    for id in 1..=768 {
        assert_eq!(peer.receive().await.id(), id);
    }
    node.stopped().await;
}

#[tokio::test]
async fn reading_stops_at_the_limit_of_pending_commits() {
    let node = Node::start().await;
    node.double.set(Mode::Held);
    let mut peer = Peer::connect(node.address, V3, "p", true).await;
    for id in 1..=400 {
        peer.publish("a", 1, id, b"x").await;
    }
    until("the limit is reached", || node.double.held.lock().unwrap().len() == 256).await;
    // A second client is served meanwhile, and its round trip gives the first time to go too far.
    let mut other = Peer::connect(node.address, V3, "other", true).await;
    other.hears_nothing().await;
    assert_eq!(node.double.held.lock().unwrap().len(), 256);
    for id in 1..=400 {
        until("the next is held", || !node.double.held.lock().unwrap().is_empty()).await;
        node.double.release(0);
        assert_eq!(peer.receive().await.id(), id);
    }
    node.stopped().await;
}

#[tokio::test]
async fn a_refusal_is_a_reason_code_in_mqtt_5_and_the_end_in_3_1_1() {
    for (refusal, code) in [
        (Refusal::QuotaExceeded, 0x97),
        (Refusal::NotAuthorized, 0x87),
        (Refusal::PayloadInvalid, 0x99),
        (Refusal::Unavailable, 0x80),
        (Refusal::Other, 0x83),
    ] {
        let node = Node::start().await;
        node.double.set(Mode::Refuse(refusal));
        let mut peer = Peer::connect(node.address, V5, "p", true).await;
        for (qos, kind) in [(1, 4), (2, 5)] {
            peer.publish("a", qos, 3, b"x").await;
            let answer = peer.receive().await;
            assert_eq!((answer.kind(), answer.id(), answer.body[2]), (kind, 3, code));
        }
        peer.hears_nothing().await;
        for qos in [1, 2] {
            let mut peer = Peer::connect(node.address, V3, "q", true).await;
            peer.publish("a", qos, 3, b"x").await;
            peer.is_closed().await;
        }
        node.stopped().await;
    }
}

#[tokio::test]
async fn a_qos_2_duplicate_is_neither_settled_twice_nor_answered_early() {
    for version in [V3, V5] {
        let node = Node::start().await;
        node.double.set(Mode::Held);
        let mut peer = Peer::connect(node.address, version, "p", true).await;
        peer.publish("a", 2, 5, b"x").await;
        peer.send(&publish(version, "a", 0x0C, 5, b"x")).await;
        peer.hears_nothing().await;
        assert_eq!(node.double.held.lock().unwrap().len(), 1);
        node.double.release(0);
        assert_eq!((peer.receive().await.kind()), 5);
        // The id stays taken until PUBREL.
        peer.send(&publish(version, "a", 0x0C, 5, b"x")).await;
        assert_eq!((peer.receive().await.kind()), 5);
        assert_eq!(node.double.seen.lock().unwrap().len(), 1);
        peer.ack(0x62, 5).await;
        assert_eq!(peer.receive().await.kind(), 7);
        node.double.set(Mode::Immediate);
        peer.publish("a", 2, 5, b"y").await;
        assert_eq!(peer.receive().await.kind(), 5);
        assert_eq!(node.double.seen.lock().unwrap().len(), 2);
        node.stopped().await;
    }
}

#[tokio::test]
async fn shutdown_settles_what_was_sent_then_says_goodbye() {
    let node = Node::start().await;
    node.double.set(Mode::Held);
    let mut peer = Peer::connect(node.address, V5, "p", true).await;
    peer.publish("a", 1, 5, b"x").await;
    until("it is held", || node.double.held.lock().unwrap().len() == 1).await;
    node.stop();
    node.double.release(0);
    assert_eq!((peer.receive().await.kind()), 4);
    peer.is_closed_for(0x8B).await;
    node.stopped().await;
}

#[tokio::test]
async fn a_resend_on_a_new_connection_waits_for_the_commit_of_the_first() {
    let node = Node::start().await;
    node.double.set(Mode::Held);
    let connect = Connect { version: V3, client: "p", ..Connect::default() };
    let (mut peer, _) = Peer::greet(node.address, &connect).await;
    peer.publish("a", 1, 5, b"x").await;
    until("it is held", || node.double.held.lock().unwrap().len() == 1).await;
    drop(peer);
    let mut again = Peer::dial(node.address, V3).await;
    again.send(&connect.bytes()).await;
    again.send(&publish(V3, "a", 0x0A, 5, b"x")).await;
    // A round trip of somebody else: the broker has seen the end of the first connection by then.
    Peer::connect(node.address, V3, "witness", true).await.hears_nothing().await;
    node.double.release(0);
    assert_eq!(again.receive().await.body, [1, 0], "the session is present");
    let answer = again.receive().await;
    assert_eq!((answer.kind(), answer.id()), (4, 5));
    assert_eq!(node.double.seen.lock().unwrap().len(), 1, "the backend saw it once");
    node.stopped().await;
}
