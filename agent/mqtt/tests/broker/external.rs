//! The client for somebody else's broker, against a broker made of bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use holm_core::{Message, Payload, Qos, StoredBroker, Timestamp, TopicName};
use holm_mqtt::{External, ExternalClient, ExternalConfig, Lane, Outgoing, Settled};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::double::{Door, Double, Mode, until};
use crate::peer::{Peer, Received, V5, publish};

/// Publishes that the client may have on their way.
const MAX_INFLIGHT: u16 = 4;

/// A lane in memory.
#[derive(Default)]
struct Rows(Mutex<Vec<Outgoing>>);

impl Lane for Rows {
    fn read(&self, limit: usize) -> oneshot::Receiver<Vec<Outgoing>> {
        let (sender, receiver) = oneshot::channel();
        let _ = sender.send(self.0.lock().unwrap().iter().take(limit).cloned().collect());
        receiver
    }

    fn done(&self, ids: Vec<i64>) -> Settled {
        self.0.lock().unwrap().retain(|row| !ids.contains(&row.id));
        Settled::Done
    }
}

fn message(topic: &str) -> Arc<Message> {
    Arc::new(Message {
        topic: TopicName::new(topic).unwrap(),
        payload: Payload { content_type: None, data: Bytes::new() },
        qos: Qos::AtLeastOnce,
        retain: false,
        accepted: Timestamp(1_000_000),
        expiry_seconds: None,
        payload_format: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
        publisher: None,
    })
}

struct Client {
    listener: TcpListener,
    handle: External,
    double: Arc<Double>,
    lane: Arc<Rows>,
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
}

impl Client {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let config = ExternalConfig {
            host: address.ip().to_string(),
            port: address.port(),
            client_id: "node".into(),
            credentials: None,
            tls: None,
            max_inflight: MAX_INFLIGHT,
            keep_alive: Duration::from_secs(30),
            session_expiry: Duration::from_secs(3_600),
            max_packet: 1 << 20,
        };
        let double = Double::new(StoredBroker::default());
        let (handle, client) = ExternalClient::new(config, &StoredBroker::default(), Arc::new(|| Timestamp(1_000_000)));
        let (stop, stopped) = watch::channel(false);
        let backend = Arc::new(Door(double.clone()));
        let lane = Arc::new(Rows::default());
        let running = tokio::spawn(client.run(backend, lane.clone(), stopped));
        Self { listener, handle, double, lane, stop, running }
    }

    /// Takes the client's next connection, whose session is there.
    async fn accept(&self) -> Peer {
        let (socket, _) = self.listener.accept().await.unwrap();
        let mut peer = Peer { socket, version: V5 };
        assert_eq!(peer.receive().await.kind(), 1, "CONNECT");
        peer.send(&[0x20, 3, 1, 0, 0]).await;
        // It releases the ids that it may have used before.
        for _ in 0..MAX_INFLIGHT {
            let release = next(&mut peer, 6).await.id();
            peer.send(&[0x70, 2, 0, u8::try_from(release).unwrap()]).await;
        }
        peer
    }

    /// Relays messages on these topics; what is told of them comes out, the topics of those that were not delivered.
    fn relay(&self, topics: &[&str]) -> oneshot::Receiver<Result<(), Vec<String>>> {
        let (sender, receiver) = oneshot::channel();
        let messages = topics.iter().map(|topic| message(topic)).collect();
        let topics = |messages: Vec<Arc<Message>>| messages.iter().map(|one| one.topic.to_string()).collect();
        self.handle.relay(messages, Box::new(move |told| sender.send(told.map_err(topics)).unwrap()));
        receiver
    }

    fn held(&self) -> usize {
        self.double.held.lock().unwrap().len()
    }

    async fn stopped(self) {
        let _ = self.stop.send(true);
        drop(self.listener);
        tokio::time::timeout(crate::double::DEADLINE, self.running).await.expect("the client ends").unwrap();
    }
}

/// The next packet of this kind.
async fn next(peer: &mut Peer, kind: u8) -> Received {
    loop {
        let packet = peer.receive().await;
        if packet.kind() == kind {
            return packet;
        }
    }
}

#[tokio::test]
async fn a_qos_2_message_that_is_committed_after_its_connection_is_lost_runs_once() {
    let client = Client::start().await;
    client.double.set(Mode::Held);
    let mut broker = client.accept().await;
    broker.send(&publish(V5, "a", 0x04, 5, b"x")).await;
    until("it is held", || client.held() == 1).await;
    drop(broker);
    until("the loss is noticed", || !client.handle.status().connected).await;
    client.double.release_writes(0);
    let mut broker = client.accept().await;
    broker.send(&publish(V5, "a", 0x0C, 5, b"x")).await;
    assert_eq!(next(&mut broker, 5).await.id(), 5, "PUBREC");
    assert_eq!(client.double.seen.lock().unwrap().len(), 1, "the backend saw it once");
    broker.send(&[0x62, 2, 0, 5]).await;
    assert_eq!(next(&mut broker, 7).await.id(), 5, "PUBCOMP");
    until("the id is forgotten", || {
        client.double.stored.lock().unwrap().sessions.iter().all(|session| session.received.is_empty())
    })
    .await;
    client.stopped().await;
}

#[tokio::test]
async fn a_qos_2_message_that_could_not_be_committed_is_taken_from_the_next_connection() {
    let client = Client::start().await;
    client.double.set(Mode::Held);
    let mut broker = client.accept().await;
    broker.send(&publish(V5, "a", 0x04, 5, b"x")).await;
    broker.send(&publish(V5, "a", 0x04, 6, b"y")).await;
    until("both are held", || client.held() == 2).await;
    drop(broker);
    until("the loss is noticed", || !client.handle.status().connected).await;
    client.double.held.lock().unwrap().clear();
    let mut broker = client.accept().await;
    broker.send(&publish(V5, "a", 0x0C, 5, b"x")).await;
    until("it is held again", || client.held() == 1).await;
    client.double.release_writes(0);
    assert_eq!(next(&mut broker, 5).await.id(), 5);
    client.stopped().await;
}

#[tokio::test]
async fn a_client_that_waits_for_a_commit_can_be_stopped() {
    let client = Client::start().await;
    client.double.set(Mode::Held);
    let mut broker = client.accept().await;
    broker.send(&publish(V5, "a", 0x04, 5, b"x")).await;
    until("it is held", || client.held() == 1).await;
    drop(broker);
    until("the loss is noticed", || !client.handle.status().connected).await;
    client.stopped().await;
}

#[tokio::test]
async fn messages_without_rows_are_told_of_when_the_broker_has_them_all() {
    let client = Client::start().await;
    assert_eq!(client.relay(&["early"]).await.unwrap(), Err(vec!["early".to_owned()]), "there is no connection");
    let mut broker = client.accept().await;
    until("it is connected", || client.handle.may_relay()).await;
    let mut told = client.relay(&["a", "b"]);
    let first = next(&mut broker, 3).await.publish(V5);
    let second = next(&mut broker, 3).await.publish(V5);
    assert_eq!((&*first.topic, &*second.topic), ("a", "b"));
    broker.send(&[0x40, 2, 0, u8::try_from(second.id).unwrap()]).await;
    until("one has arrived", || client.handle.status().messages_out == 1).await;
    told.try_recv().unwrap_err();
    broker.send(&[0x40, 2, 0, u8::try_from(first.id).unwrap()]).await;
    assert_eq!(told.await.unwrap(), Ok(()));
    client.stopped().await;
}

#[tokio::test]
async fn messages_without_rows_come_back_when_the_connection_is_lost() {
    let client = Client::start().await;
    let mut broker = client.accept().await;
    until("it is connected", || client.handle.may_relay()).await;
    // One more than may be on their way at a time.
    let told = client.relay(&["a", "b", "c", "d", "e"]);
    let first = next(&mut broker, 3).await.publish(V5);
    broker.send(&[0x40, 2, 0, u8::try_from(first.id).unwrap()]).await;
    until("one has arrived", || client.handle.status().messages_out == 1).await;
    drop(broker);
    let mut lost = told.await.unwrap().unwrap_err();
    lost.sort();
    assert_eq!(lost, ["b", "c", "d", "e"]);
    client.stopped().await;
}

#[tokio::test]
async fn messages_without_rows_do_not_pass_those_in_the_lane() {
    let client = Client::start().await;
    let mut broker = client.accept().await;
    until("it is connected", || client.handle.may_relay()).await;
    let place = client.handle.place();
    assert!(!client.handle.may_relay(), "something is being committed");
    client.lane.0.lock().unwrap().push(Outgoing { id: 1, message: message("row") });
    drop(place);
    assert!(client.handle.may_relay());
    let told = client.relay(&["relay"]);
    for topic in ["row", "relay"] {
        let publish = next(&mut broker, 3).await.publish(V5);
        assert_eq!(publish.topic, topic);
        broker.send(&[0x40, 2, 0, u8::try_from(publish.id).unwrap()]).await;
    }
    assert_eq!(told.await.unwrap(), Ok(()));
    until("the row is gone", || client.lane.0.lock().unwrap().is_empty()).await;
    client.stopped().await;
}
