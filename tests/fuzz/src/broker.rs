//! Packet streams to the broker, in process, over loopback TCP: the broker takes a socket and not bytes.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use holm_core::{SessionWrite, StoredBroker, Timestamp};
use holm_mqtt::{Backend, Broker, BrokerConfig, BrokerLimits, Incoming, Settled};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Settles everything at once.
struct Eager(Broker);

impl Backend for Eager {
    fn publish(&self, incoming: Incoming) -> Settled {
        self.0.deliver(incoming.plan);
        Settled::Done
    }

    fn persist(&self, _: Vec<SessionWrite>) -> Settled {
        Settled::Done
    }
}

struct Served {
    broker: Broker,
    address: SocketAddr,
}

fn served() -> &'static Served {
    static SERVED: OnceLock<Served> = OnceLock::new();
    SERVED.get_or_init(|| {
        let limits = BrokerLimits { max_packet_bytes: 1 << 16, max_sessions: 50, ..BrokerLimits::default() };
        let config = BrokerConfig { anonymous: true, limits, ..BrokerConfig::default() };
        let broker = Broker::new(config, StoredBroker::default(), Arc::new(|| Timestamp(1_800_000_000_000)));
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let inside = broker.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                sender.send(listener.local_addr().expect("an address")).expect("somebody waits");
                let (_keep, shutdown) = watch::channel(false);
                inside.serve(listener, None, Arc::new(Eager(inside.clone())), shutdown).await;
            });
        });
        Served { broker, address: receiver.recv().expect("a broker") }
    })
}

/// A connection's bytes, cut into two writes. The first byte says where, and whether a good CONNECT goes before.
pub fn stream(data: &[u8]) {
    let [first, data @ ..] = data else { return };
    let served = served();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut socket = TcpStream::connect(served.address).await.expect("the broker accepts");
        if first.is_multiple_of(2) {
            let version = if first.is_multiple_of(4) { 5 } else { 4 };
            let mut connect = vec![0x10, 0, 0, 4, b'M', b'Q', b'T', b'T', version, 2, 0, 60];
            connect.extend(if version == 5 { &[0, 0, 1, b'f'][..] } else { &[0, 1, b'f'] });
            connect[1] = u8::try_from(connect.len() - 2).expect("short");
            let _ = socket.write_all(&connect).await;
        }
        let (one, two) = data.split_at(usize::from(*first).min(data.len()));
        let _ = socket.write_all(one).await;
        let _ = socket.write_all(two).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(2), socket.read_to_end(&mut answer)).await;
    });
    let stats = served.broker.stats();
    assert_eq!(stats.panics, 0, "a connection's task panicked");
    assert!(stats.queued_bytes < 512 << 20 && stats.sessions <= 51, "{stats:?}");
}
