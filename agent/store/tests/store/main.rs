//! The store at its door: the writer on a thread, a real file in a folder of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a test may wait for ever and fail")]

mod broker;
mod clock;
mod cloud;
mod damage;
mod expiry;
mod failure;
mod group;
mod inbox;
mod migration;
mod model;
mod outbox;
mod state;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use holm_core::{Event, EventId, FunctionName, Message, Payload, Qos, Source, StateWrite, Timestamp, TopicName};
use holm_store::{CommitError, OpenOptions, Opened, QueueError, Recovery, Settlement, Store, StoreError, Write};

/// Longer than any commit takes, so that a test that waits in vain ends.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open store with its writer running.
struct Running {
    store: Store,
    recovery: Option<Recovery>,
    writer: JoinHandle<()>,
    _lock: std::fs::File,
}

impl Running {
    fn open(folder: &Path) -> Self {
        Self::with(&OpenOptions::new(folder)).unwrap()
    }

    fn with(options: &OpenOptions) -> Result<Self, StoreError> {
        Ok(Self::run(options.open()?))
    }

    /// With a writer that reads this clock.
    fn with_clock(options: &OpenOptions, clock: &clock::Hands) -> Self {
        let (opened, clock) = (options.open().unwrap(), clock.clone());
        Self::run(Opened { writer: opened.writer.with_clock(move || clock.read()), ..opened })
    }

    fn run(Opened { store, writer, recovery, lock }: Opened) -> Self {
        Self { store, recovery, writer: std::thread::spawn(move || writer.run()), _lock: lock }
    }

    fn close(self) {
        self.store.close();
        self.writer.join().unwrap();
    }

    /// Queues a settlement whose outcome arrives at the receiver.
    fn queue(&self, settlement: Settlement) -> Receiver<Result<(), CommitError>> {
        let (sender, receiver) = channel();
        self.store.queue(settlement, move |result| drop(sender.send(result))).unwrap();
        receiver
    }

    /// Waits until everybody has heard of a commit that failed: nothing that ran is settled before.
    fn await_told(&self) {
        let start = std::time::Instant::now();
        let run = || Settlement { generation: Some(self.store.generation()), ..Settlement::default() };
        while self.store.queue(run(), |_| {}) == Err(QueueError::Stale) {
            assert!(start.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
    }

    /// Holds the writer after a commit, so that what is queued meanwhile forms one group. Dropping the sender lets it go.
    fn hold(&self) -> Sender<()> {
        let (held, wait) = channel();
        let (release, released) = channel();
        let done = move |_| {
            held.send(()).unwrap();
            let _ = released.recv_timeout(PATIENCE);
        };
        self.store.queue(Settlement::default(), done).unwrap();
        wait.recv_timeout(PATIENCE).unwrap();
        release
    }
}

fn database(folder: &Path) -> PathBuf {
    folder.join("holm.db")
}

fn name(text: &str) -> FunctionName {
    FunctionName::new(text).unwrap()
}

fn set(key: &str, value: impl Into<Bytes>) -> Write {
    Write::State(StateWrite { namespace: "f".into(), key: key.into(), value: Some(value.into()) })
}

fn unset(key: &str) -> Write {
    Write::State(StateWrite { namespace: "f".into(), key: key.into(), value: None })
}

fn settlement(writes: Vec<Write>) -> Settlement {
    Settlement { writes, ..Settlement::default() }
}

/// The value of a key of namespace `f`, as text.
fn value(store: &Store, key: &str) -> Option<String> {
    let found = store.reader().unwrap().get(&"f".into(), &key.into()).unwrap().value;
    found.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

fn event(id: &str) -> Event {
    Event {
        id: EventId(id.into()),
        source: Source::Mqtt,
        subject: "sensors/a/temp".into(),
        content_type: Some("application/json".into()),
        data: Bytes::from_static(b"{\"celsius\": 21.5}"),
        time: Timestamp(1_700_000_000_123),
        time_synced: true,
        attempt: 2,
        hops: 3,
        attributes: vec![("qos".into(), "1".into()), ("unit".into(), "°C".into())],
    }
}

fn message(topic: &str) -> Arc<Message> {
    Arc::new(Message {
        topic: TopicName::new(topic).unwrap(),
        payload: Payload { content_type: Some("text/plain".into()), data: Bytes::from_static(b"\0\xffon") },
        qos: Qos::ExactlyOnce,
        retain: true,
        accepted: Timestamp(7),
        expiry_seconds: Some(60),
        payload_format: Some(1),
        response_topic: Some(TopicName::new("answer/here").unwrap()),
        correlation_data: Some(Bytes::from_static(&[0, 1, 255])),
        user_properties: vec![("holm-id".into(), "x".into()), ("holm-id".into(), "y".into())],
        publisher: Some(holm_core::ClientId("client ü".into())),
    })
}
