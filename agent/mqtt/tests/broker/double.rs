//! A backend that keeps session writes as the store would, and a node around it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use holm_core::{Message, Queued, SessionWrite, StoredBroker, StoredSession, Timestamp};
use holm_mqtt::{Backend, Broker, BrokerConfig, Incoming, Refusal, Settled};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Every wait in these tests.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// How the double settles messages.
#[derive(Debug, Clone, Copy)]
pub enum Mode {
    Immediate,
    /// A commit that takes so long.
    After(Duration),
    /// When the test says so.
    Held,
    Refuse(Refusal),
}

type Held = (Incoming, oneshot::Sender<Result<(), Refusal>>);
type HeldWrites = (Vec<SessionWrite>, oneshot::Sender<Result<(), Refusal>>);

pub struct Double {
    broker: OnceLock<Broker>,
    pub mode: Mutex<Mode>,
    pub stored: Mutex<StoredBroker>,
    pub seen: Mutex<Vec<Arc<Message>>>,
    pub held: Mutex<Vec<Held>>,
    /// Settled when dropped or sent to, while `hold_persist` is on.
    pub hold_persist: Mutex<bool>,
    pub held_persist: Mutex<Vec<HeldWrites>>,
    pub writes: Mutex<Vec<SessionWrite>>,
}

impl Double {
    pub fn new(stored: StoredBroker) -> Arc<Self> {
        Arc::new(Self {
            broker: OnceLock::new(),
            mode: Mutex::new(Mode::Immediate),
            stored: Mutex::new(stored),
            seen: Mutex::default(),
            held: Mutex::default(),
            hold_persist: Mutex::new(false),
            held_persist: Mutex::default(),
            writes: Mutex::default(),
        })
    }

    pub fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    pub fn seen_topics(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|message| message.topic.to_string()).collect()
    }

    fn commit(&self, writes: Vec<SessionWrite>) {
        let mut stored = self.stored.lock().unwrap();
        for write in &writes {
            apply(&mut stored, write);
        }
        self.writes.lock().unwrap().extend(writes);
    }

    pub fn settle(&self, mut incoming: Incoming) {
        let mut writes = std::mem::take(&mut incoming.plan.writes);
        writes.append(&mut incoming.writes);
        self.commit(writes);
        self.broker.get().unwrap().deliver(incoming.plan);
    }

    /// Settles the message that arrived as number `index` of those held.
    pub fn release(&self, index: usize) {
        let (incoming, sender) = self.held.lock().unwrap().remove(index);
        self.settle(incoming);
        let _ = sender.send(Ok(()));
    }

    /// The same without a broker inside, for the client of an external one.
    pub fn release_writes(&self, index: usize) {
        let (incoming, sender) = self.held.lock().unwrap().remove(index);
        self.commit(incoming.writes);
        let _ = sender.send(Ok(()));
    }

    pub fn release_persist(&self) {
        for (writes, sender) in std::mem::take(&mut *self.held_persist.lock().unwrap()) {
            self.commit(writes);
            let _ = sender.send(Ok(()));
        }
    }
}

/// The agent hands `Arc<Self>` around; so does the double.
pub struct Door(pub Arc<Double>);

impl Backend for Door {
    fn publish(&self, incoming: Incoming) -> Settled {
        let double = self.0.clone();
        double.seen.lock().unwrap().push(incoming.message.clone());
        let mode = *double.mode.lock().unwrap();
        match mode {
            Mode::Immediate => {
                double.settle(incoming);
                Settled::Done
            }
            Mode::After(delay) => {
                let (sender, receiver) = oneshot::channel();
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    double.settle(incoming);
                    let _ = sender.send(Ok(()));
                });
                Settled::Waiting(receiver)
            }
            Mode::Held => {
                let (sender, receiver) = oneshot::channel();
                double.held.lock().unwrap().push((incoming, sender));
                Settled::Waiting(receiver)
            }
            Mode::Refuse(refusal) => {
                let (sender, receiver) = oneshot::channel();
                let _ = sender.send(Err(refusal));
                Settled::Waiting(receiver)
            }
        }
    }

    fn persist(&self, writes: Vec<SessionWrite>) -> Settled {
        if *self.0.hold_persist.lock().unwrap() {
            let (sender, receiver) = oneshot::channel();
            self.0.held_persist.lock().unwrap().push((writes, sender));
            return Settled::Waiting(receiver);
        }
        self.0.commit(writes);
        Settled::Done
    }
}

pub struct Node {
    pub address: SocketAddr,
    pub broker: Broker,
    pub double: Arc<Double>,
    /// Milliseconds that the node's clock shows.
    pub clock: Arc<AtomicI64>,
    stop: watch::Sender<bool>,
    served: JoinHandle<()>,
}

impl Node {
    pub async fn start() -> Self {
        Self::with(anonymous(), StoredBroker::default()).await
    }

    pub async fn with(config: BrokerConfig, stored: StoredBroker) -> Self {
        Self::over(config, stored, None).await
    }

    /// With TLS, where there is a configuration for it.
    pub async fn over(config: BrokerConfig, stored: StoredBroker, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let clock = Arc::new(AtomicI64::new(1_000_000));
        let time = clock.clone();
        let double = Double::new(stored.clone());
        let broker = Broker::new(config, stored, Arc::new(move || Timestamp(time.load(Ordering::Relaxed))));
        let _ = double.broker.set(broker.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let (serving, backend) = (broker.clone(), Arc::new(Door(double.clone())));
        let served = tokio::spawn(async move { serving.serve(listener, tls, backend, stopped).await });
        Self { address, broker, double, clock, stop, served }
    }

    pub fn advance(&self, seconds: i64) {
        self.clock.fetch_add(seconds * 1000, Ordering::Relaxed);
    }

    /// Begins to stop.
    pub fn stop(&self) {
        let _ = self.stop.send(true);
    }

    /// Stops, and answers what the store holds.
    pub async fn stopped(self) -> StoredBroker {
        self.stop();
        tokio::time::timeout(DEADLINE, self.served).await.expect("serve ends").unwrap();
        self.double.stored.lock().unwrap().clone()
    }
}

pub fn anonymous() -> BrokerConfig {
    BrokerConfig { anonymous: true, ..BrokerConfig::default() }
}

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + DEADLINE;
    while !condition() {
        assert!(tokio::time::Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A model of the store.
pub fn apply(stored: &mut StoredBroker, write: &SessionWrite) {
    fn session<'a>(stored: &'a mut StoredBroker, client: &holm_core::ClientId) -> &'a mut StoredSession {
        let place = stored.sessions.iter().position(|session| session.client == *client);
        &mut stored.sessions[place.expect("the session is open")]
    }
    match write {
        SessionWrite::Open { client, expiry_seconds } => {
            if let Some(found) = stored.sessions.iter_mut().find(|session| session.client == *client) {
                (found.expiry_seconds, found.away_since) = (*expiry_seconds, None);
                return;
            }
            stored.sessions.push(StoredSession {
                client: client.clone(),
                expiry_seconds: *expiry_seconds,
                away_since: None,
                subscriptions: Vec::new(),
                queue: Vec::new(),
                received: Vec::new(),
            });
        }
        SessionWrite::Away { client, since } => session(stored, client).away_since = Some(*since),
        SessionWrite::Drop { client } => stored.sessions.retain(|session| session.client != *client),
        SessionWrite::Subscribe { client, subscription } => {
            let session = session(stored, client);
            session.subscriptions.retain(|other| other.filter != subscription.filter);
            session.subscriptions.push(subscription.clone());
        }
        SessionWrite::Unsubscribe { client, filter } => {
            session(stored, client).subscriptions.retain(|other| other.filter != *filter);
        }
        SessionWrite::Enqueue { client, queued } => {
            let queue = &mut session(stored, client).queue;
            // The same message may be dated anew.
            let same = |other: &Queued| {
                let (one, other) = (&queued.message, &other.message);
                (&one.topic, &one.payload) == (&other.topic, &other.payload) && one.accepted != other.accepted
            };
            match queue.iter_mut().find(|other| other.sequence == queued.sequence) {
                Some(other) if same(other) => *other = queued.clone(),
                Some(_) => panic!("a sequence is used twice"),
                None => queue.push(queued.clone()),
            }
        }
        SessionWrite::Release { client, sequence } => {
            let queue = &mut session(stored, client).queue;
            queue.iter_mut().find(|queued| queued.sequence == *sequence).expect("it is queued").released = true;
        }
        SessionWrite::Dequeue { client, sequence } => {
            session(stored, client).queue.retain(|queued| queued.sequence != *sequence);
        }
        SessionWrite::Receive { client, received } => {
            let ids = &mut session(stored, client).received;
            ids.retain(|other| other.packet_id != received.packet_id);
            ids.push(*received);
        }
        SessionWrite::Forget { client, packet_id } => {
            session(stored, client).received.retain(|other| other.packet_id != *packet_id);
        }
        SessionWrite::Retain { topic, message } => {
            stored.retained.retain(|other| other.topic != *topic);
            stored.retained.extend(message.clone());
        }
    }
}
