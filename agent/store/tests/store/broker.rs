//! What the broker gives away is what it gets back.

use std::sync::Arc;

use holm_core::{
    ClientId, Message, Payload, Qos, Queued, Received, SessionWrite, StoredBroker, StoredSession, Subscription,
    Timestamp, TopicFilter,
};
use holm_store::Write;

use crate::{Running, message};

fn client(n: u8) -> ClientId {
    ClientId(format!("client-{n}").into())
}

fn subscription(filter: &str) -> Subscription {
    Subscription {
        filter: TopicFilter::new(filter).unwrap(),
        qos: Qos::AtLeastOnce,
        no_local: true,
        retain_as_published: true,
        identifier: Some(268_435_455),
    }
}

fn queued(sequence: u64) -> Queued {
    Queued {
        sequence,
        message: message("a/b"),
        qos: Qos::ExactlyOnce,
        retain: true,
        identifiers: vec![1, 2],
        released: false,
    }
}

/// A session with some of everything.
pub(crate) fn some(n: u8) -> Vec<Write> {
    let client = client(n);
    [
        SessionWrite::Open { client: client.clone(), expiry_seconds: None },
        SessionWrite::Subscribe { client: client.clone(), subscription: subscription("a/+") },
        SessionWrite::Enqueue { client, queued: queued(1) },
        SessionWrite::Retain {
            topic: message(&format!("r/{n}")).topic.clone(),
            message: Some(message(&format!("r/{n}"))),
        },
    ]
    .map(Write::Session)
    .into()
}

/// What is restored after these writes, in this life of the node and in the next.
#[track_caller]
fn check(writes: Vec<SessionWrite>, expected: StoredBroker) {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    for write in writes {
        running.store.commit(vec![Write::Session(write)]).unwrap();
    }
    assert_eq!(running.store.broker().unwrap(), expected);
    running.close();
    let running = Running::open(folder.path());
    assert_eq!(running.store.broker().unwrap(), expected);
    running.close();
}

fn empty(n: u8) -> StoredSession {
    StoredSession {
        client: client(n),
        expiry_seconds: None,
        away_since: None,
        subscriptions: vec![],
        queue: vec![],
        received: vec![],
    }
}

#[test]
fn restores_sessions_with_all_that_hangs_on_them() {
    let plain = Subscription { identifier: None, no_local: false, retain_as_published: false, ..subscription("#") };
    let received = |packet_id, qos| Received { packet_id, digest: u64::MAX - 5, qos };
    let bare = Arc::new(Message {
        payload: Payload::default(),
        expiry_seconds: None,
        payload_format: None,
        response_topic: None,
        correlation_data: None,
        user_properties: vec![],
        publisher: None,
        retain: false,
        ..(*message("bare")).clone()
    });
    let unlabelled = Queued {
        sequence: u64::MAX >> 1,
        message: bare,
        identifiers: vec![],
        retain: false,
        qos: Qos::AtLeastOnce,
        released: false,
    };
    let writes = vec![
        SessionWrite::Open { client: client(1), expiry_seconds: Some(u32::MAX - 1) },
        SessionWrite::Open { client: client(2), expiry_seconds: None },
        SessionWrite::Away { client: client(2), since: Timestamp(99) },
        SessionWrite::Subscribe { client: client(1), subscription: subscription("a/+") },
        SessionWrite::Subscribe { client: client(1), subscription: subscription("b") },
        SessionWrite::Subscribe { client: client(1), subscription: plain.clone() },
        SessionWrite::Subscribe {
            client: client(1),
            subscription: Subscription { qos: Qos::ExactlyOnce, ..subscription("a/+") },
        },
        SessionWrite::Unsubscribe { client: client(1), filter: TopicFilter::new("b").unwrap() },
        SessionWrite::Enqueue { client: client(1), queued: unlabelled.clone() },
        SessionWrite::Enqueue { client: client(1), queued: queued(5) },
        SessionWrite::Enqueue { client: client(1), queued: queued(6) },
        SessionWrite::Release { client: client(1), sequence: 6 },
        SessionWrite::Dequeue { client: client(1), sequence: 5 },
        SessionWrite::Receive { client: client(1), received: received(1, Qos::ExactlyOnce) },
        SessionWrite::Receive { client: client(1), received: received(65_535, Qos::AtLeastOnce) },
        SessionWrite::Forget { client: client(1), packet_id: 1 },
    ];
    let first = StoredSession {
        expiry_seconds: Some(u32::MAX - 1),
        subscriptions: vec![plain, Subscription { qos: Qos::ExactlyOnce, ..subscription("a/+") }],
        queue: vec![Queued { released: true, ..queued(6) }, unlabelled],
        received: vec![received(65_535, Qos::AtLeastOnce)],
        ..empty(1)
    };
    let second = StoredSession { away_since: Some(Timestamp(99)), ..empty(2) };
    check(writes, StoredBroker { sessions: vec![first, second], retained: vec![] });
}

#[test]
fn a_dropped_session_leaves_nothing_behind() {
    let mut writes: Vec<SessionWrite> = some(1)
        .into_iter()
        .filter_map(|write| if let Write::Session(write) = write { Some(write) } else { None })
        .collect();
    writes.push(SessionWrite::Receive {
        client: client(1),
        received: Received { packet_id: 1, digest: 1, qos: Qos::AtLeastOnce },
    });
    writes.push(SessionWrite::Drop { client: client(1) });
    writes.push(SessionWrite::Retain { topic: message("r/1").topic.clone(), message: None });
    writes.push(SessionWrite::Open { client: client(1), expiry_seconds: None });
    check(writes, StoredBroker { sessions: vec![empty(1)], retained: vec![] });
}

#[test]
fn a_session_that_comes_back_is_not_away() {
    let writes = vec![
        SessionWrite::Open { client: client(1), expiry_seconds: Some(5) },
        SessionWrite::Away { client: client(1), since: Timestamp(99) },
        SessionWrite::Open { client: client(1), expiry_seconds: Some(7) },
    ];
    let session = StoredSession { expiry_seconds: Some(7), ..empty(1) };
    check(writes, StoredBroker { sessions: vec![session], retained: vec![] });
}

#[test]
fn the_last_retained_message_of_a_topic_is_kept() {
    let second = Arc::new(Message { expiry_seconds: None, ..(*message("t")).clone() });
    let retain = |message: Option<&Arc<Message>>| SessionWrite::Retain {
        topic: second.topic.clone(),
        message: message.cloned(),
    };
    let writes = vec![retain(Some(&message("t"))), retain(None), retain(Some(&message("t"))), retain(Some(&second))];
    check(writes, StoredBroker { sessions: vec![], retained: vec![second.clone()] });
}
