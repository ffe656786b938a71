//! What is sent again: told from what is new, whatever became of the connection and however long a commit takes.

use std::time::Duration;

use crate::double::{Mode, Node, until};
use crate::peer::{Connect, Peer, V3, V5, publish};

fn durable(version: u8, client: &str) -> Connect<'_> {
    // Session Expiry Interval of an hour.
    let properties: &[u8] = if version == V5 { &[0x11, 0, 0, 0x0E, 0x10] } else { &[] };
    Connect { version, client, properties, ..Connect::default() }
}

fn held(node: &Node) -> usize {
    node.double.held.lock().unwrap().len()
}

fn seen(node: &Node) -> usize {
    node.double.seen.lock().unwrap().len()
}

/// The client may have had the PUBACK, and used the id again for a message that says the same.
#[tokio::test]
async fn after_its_puback_was_sent_a_message_under_the_same_id_is_new() {
    for version in [V3, V5] {
        let node = Node::start().await;
        let (mut peer, _) = Peer::greet(node.address, &durable(version, "p")).await;
        peer.publish("a", 1, 7, b"1").await;
        assert_eq!(peer.receive().await.kind(), 4);
        drop(peer);
        let (mut peer, answer) = Peer::greet(node.address, &durable(version, "p")).await;
        assert_eq!(answer.body[0], 1, "the session is present");
        peer.send(&publish(version, "a", 0x0A, 7, b"1")).await;
        assert_eq!(peer.receive().await.kind(), 4);
        assert_eq!(seen(&node), 2);
        node.stopped().await;
    }
}

/// One message that is committed after its connection has gone: its PUBACK cannot have been sent.
async fn settled_unheard(node: &Node) {
    node.double.set(Mode::Held);
    let (mut peer, _) = Peer::greet(node.address, &durable(V3, "p")).await;
    peer.publish("a", 1, 5, b"x").await;
    until("it is held", || held(node) == 1).await;
    drop(peer);
    // A round trip of somebody else: the broker has seen the end by then.
    Peer::connect(node.address, V3, "witness", true).await.hears_nothing().await;
    node.double.release(0);
    until("the session is free", || node.broker.stats().clients == 0).await;
}

#[tokio::test]
async fn a_resend_of_what_was_committed_after_its_connection_had_gone_is_recognised_once() {
    let node = Node::start().await;
    settled_unheard(&node).await;
    node.double.set(Mode::Immediate);
    let (mut peer, _) = Peer::greet(node.address, &durable(V3, "p")).await;
    peer.send(&publish(V3, "a", 0x0A, 5, b"x")).await;
    assert_eq!(peer.receive().await.kind(), 4);
    assert_eq!(seen(&node), 1);
    // Now it has the PUBACK, so this is another message.
    peer.send(&publish(V3, "a", 0x0A, 5, b"x")).await;
    assert_eq!(peer.receive().await.kind(), 4);
    assert_eq!(seen(&node), 2);
    node.stopped().await;
}

#[tokio::test]
async fn a_new_message_under_an_id_ends_what_was_known_of_the_id() {
    let node = Node::start().await;
    settled_unheard(&node).await;
    node.double.set(Mode::Held);
    let (mut peer, _) = Peer::greet(node.address, &durable(V3, "p")).await;
    peer.publish("a", 1, 5, b"x").await;
    until("it is held", || held(&node) == 1).await;
    // It fails, and the connection with it.
    node.double.held.lock().unwrap().clear();
    peer.is_closed().await;
    node.double.set(Mode::Immediate);
    let (mut peer, _) = Peer::greet(node.address, &durable(V3, "p")).await;
    peer.send(&publish(V3, "a", 0x0A, 5, b"x")).await;
    assert_eq!(peer.receive().await.kind(), 4);
    assert_eq!(seen(&node), 3);
    node.stopped().await;
}

#[tokio::test]
async fn who_is_taken_over_while_a_message_is_committed_learns_of_it_on_the_new_connection() {
    let node = Node::start().await;
    node.double.set(Mode::Held);
    let (mut old, _) = Peer::greet(node.address, &durable(V5, "p")).await;
    old.publish("a", 1, 5, b"x").await;
    until("it is held", || held(&node) == 1).await;
    let mut new = Peer::dial(node.address, V5).await;
    new.send(&durable(V5, "p").bytes()).await;
    old.is_closed_for(0x8E).await;
    drop(old);
    node.double.release(0);
    assert_eq!(new.receive().await.body[0], 1, "the session is present");
    new.send(&publish(V5, "a", 0x0A, 5, b"x")).await;
    let answer = new.receive().await;
    assert_eq!((answer.kind(), answer.id()), (4, 5));
    assert_eq!(seen(&node), 1);
    node.stopped().await;
}

#[tokio::test]
async fn a_commit_may_take_as_long_as_it_takes() {
    for (qos, ack) in [(1, 4), (2, 5)] {
        let node = Node::start().await;
        node.double.set(Mode::Held);
        let (mut peer, _) = Peer::greet(node.address, &durable(V3, "p")).await;
        peer.publish("a", qos, 5, b"x").await;
        until("it is held", || held(&node) == 1).await;
        drop(peer);
        Peer::connect(node.address, V3, "witness", true).await.hears_nothing().await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(60)).await;
        tokio::time::resume();
        Peer::connect(node.address, V3, "witness", true).await.hears_nothing().await;
        let mut again = Peer::dial(node.address, V3).await;
        again.send(&durable(V3, "p").bytes()).await;
        again.send(&publish(V3, "a", 0x08 | qos << 1, 5, b"x")).await;
        Peer::connect(node.address, V3, "witness", true).await.hears_nothing().await;
        assert_eq!(held(&node), 1, "nobody has the session meanwhile");
        node.double.release(0);
        assert_eq!(again.receive().await.body, [1, 0], "the session is present");
        let answer = again.receive().await;
        assert_eq!((answer.kind(), answer.id()), (ack, 5));
        assert_eq!(seen(&node), 1, "the backend saw it once");
        node.stopped().await;
    }
}

#[tokio::test]
async fn a_connection_that_takes_over_does_not_wait_for_ever() {
    let node = Node::start().await;
    node.double.set(Mode::Held);
    let (mut old, _) = Peer::greet(node.address, &durable(V5, "p")).await;
    old.publish("a", 2, 5, b"x").await;
    until("it is held", || held(&node) == 1).await;
    let mut new = Peer::dial(node.address, V5).await;
    new.send(&durable(V5, "p").bytes()).await;
    old.is_closed_for(0x8E).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    tokio::time::resume();
    let refused = new.receive().await;
    assert_eq!((refused.kind(), refused.body[1]), (2, 0x89), "busy");
    node.double.release(0);
    until("the session is free", || node.broker.stats().clients == 0).await;
    let (mut peer, _) = Peer::greet(node.address, &durable(V5, "p")).await;
    peer.send(&publish(V5, "a", 0x0C, 5, b"x")).await;
    assert_eq!(peer.receive().await.kind(), 5);
    assert_eq!(seen(&node), 1);
    node.stopped().await;
}

/// A client that sends faster than the store commits is slowed down by bytes too, not only by the number of messages.
#[tokio::test]
async fn large_messages_that_are_being_committed_stop_the_reading() {
    let node = Node::start().await;
    node.double.set(Mode::Held);
    let mut peer = Peer::connect(node.address, V3, "p", true).await;
    let (reader, mut writer) = peer.socket.into_split();
    let sending = tokio::spawn(async move {
        for id in 1..=64 {
            let bytes = publish(V3, "a", 2, id, &vec![0; 1_000_000]);
            tokio::io::AsyncWriteExt::write_all(&mut writer, &bytes).await.unwrap();
        }
        writer
    });
    until("some are held", || held(&node) >= 5).await;
    Peer::connect(node.address, V3, "witness", true).await.hears_nothing().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(held(&node) < 8, "{} are held", held(&node));
    let mut released = 0;
    while released < 64 {
        until("the next is held", || held(&node) > 0).await;
        node.double.release(0);
        released += 1;
    }
    peer.socket = reader.reunite(sending.await.unwrap()).unwrap();
    for id in 1..=64 {
        assert_eq!(peer.receive().await.id(), id);
    }
    node.stopped().await;
}
