//! The client for somebody else's broker, against a broker made of bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use holm_core::{StoredBroker, Timestamp};
use holm_mqtt::{External, ExternalClient, ExternalConfig, Lane, Outgoing, Settled};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::double::{Door, Double, Mode, until};
use crate::peer::{Peer, Received, V5, publish};

/// A lane without messages.
struct Empty;

impl Lane for Empty {
    fn read(&self, _: usize) -> oneshot::Receiver<Vec<Outgoing>> {
        let (sender, receiver) = oneshot::channel();
        let _ = sender.send(Vec::new());
        receiver
    }

    fn done(&self, _: Vec<i64>) -> Settled {
        Settled::Done
    }
}

struct Client {
    listener: TcpListener,
    handle: External,
    double: Arc<Double>,
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
            max_inflight: 4,
            keep_alive: Duration::from_secs(30),
            session_expiry: Duration::from_secs(3_600),
            max_packet: 1 << 20,
        };
        let double = Double::new(StoredBroker::default());
        let (handle, client) = ExternalClient::new(config, &StoredBroker::default(), Arc::new(|| Timestamp(1_000_000)));
        let (stop, stopped) = watch::channel(false);
        let backend = Arc::new(Door(double.clone()));
        let running = tokio::spawn(client.run(backend, Arc::new(Empty), stopped));
        Self { listener, handle, double, stop, running }
    }

    /// Takes the client's next connection, whose session is there.
    async fn accept(&self) -> Peer {
        let (socket, _) = self.listener.accept().await.unwrap();
        let mut peer = Peer { socket, version: V5 };
        assert_eq!(peer.receive().await.kind(), 1, "CONNECT");
        peer.send(&[0x20, 3, 1, 0, 0]).await;
        peer
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

/// The next packet of this kind. The client releases ids of its own first.
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
