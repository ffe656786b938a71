//! Who may connect, publish and subscribe.

use std::num::NonZeroU32;

use holm_core::{StoredBroker, TopicFilter};
use holm_mqtt::{AclRule, BrokerConfig, PasswordHash, User};

use crate::double::{Node, anonymous, until};
use crate::peer::{Connect, Peer, V3, V5};

fn filters(texts: &[&str]) -> Vec<TopicFilter> {
    texts.iter().map(|text| TopicFilter::new(text).unwrap()).collect()
}

#[test]
fn a_password_hash_survives_its_text_form() {
    let hash = PasswordHash::create(b"secret", NonZeroU32::new(10).unwrap()).unwrap();
    let again: PasswordHash = hash.to_string().parse().unwrap();
    assert!(again.verify(b"secret"));
    assert!(!again.verify(b"secret ") && !again.verify(b""));
    assert!(!format!("{again:?}").contains('$'), "debug output holds no hash");
    // RFC 7914, section 11: PBKDF2-HMAC-SHA-256 of "passwd" and "salt", one iteration, first half.
    let known = "pbkdf2-sha256$1$c2FsdA==$VawEblbjCJ/sFpHCJUS2BflBhSFt3gRl5oudV8INrLw=";
    assert!(known.parse::<PasswordHash>().unwrap().verify(b"passwd"));
    for bad in ["", "x", "pbkdf2-sha256$0$c2FsdA==$AA==", "pbkdf2-sha256$1$c2FsdA==$AA==", "md5$1$a$b"] {
        assert!(bad.parse::<PasswordHash>().is_err(), "{bad}");
    }
}

#[tokio::test]
async fn only_those_who_prove_their_name_come_in() {
    let hash = PasswordHash::create(b"secret", NonZeroU32::new(10).unwrap()).unwrap();
    let users = vec![User { name: "ada".into(), password_hash: hash }];
    let node = Node::with(BrokerConfig { users, ..BrokerConfig::default() }, StoredBroker::default()).await;
    for (user, password, v3, v5) in [
        (Some("ada"), Some(&b"secret"[..]), 0, 0),
        (Some("ada"), Some(b"wrong"), 4, 0x86),
        (Some("ada"), None, 4, 0x86),
        (Some("eve"), Some(b"secret"), 4, 0x86),
        (None, None, 5, 0x87),
    ] {
        for (version, code) in [(V3, v3), (V5, v5)] {
            let connect = Connect { version, client: "c", clean: true, user, password, ..Connect::default() };
            let mut peer = Peer::dial(node.address, version).await;
            peer.send(&connect.bytes()).await;
            let answer = peer.receive().await;
            assert_eq!((answer.kind(), answer.body[1]), (2, code), "{user:?} {password:?}");
            if code != 0 {
                peer.is_closed().await;
            }
        }
    }
    node.stopped().await;
}

#[tokio::test]
async fn rules_bound_what_a_client_may_do() {
    let acl = vec![
        AclRule { publish: filters(&["devices/{client}/#"]), subscribe: filters(&["news/+"]), ..AclRule::default() },
        AclRule { client: Some("boss".into()), subscribe: filters(&["#"]), ..AclRule::default() },
        AclRule { publish: filters(&["users/{user}/x"]), ..AclRule::default() },
    ];
    let node = Node::with(BrokerConfig { acl, ..anonymous() }, StoredBroker::default()).await;
    let mut peer = Peer::connect(node.address, V5, "me", true).await;
    for (topic, code) in
        [("devices/me/t", 0), ("devices/you/t", 0x87), ("news/x", 0x87), ("users/{user}/x", 0x87), ("$SYS/x", 0x87)]
    {
        peer.publish(topic, 1, 1, b"x").await;
        let answer = peer.receive().await;
        assert_eq!(answer.body.get(2).copied().unwrap_or(0), code, "{topic}");
    }
    for (filter, code) in [("news/+", 1), ("news/a", 1), ("news/#", 0x87), ("#", 0x87), ("+/a", 0x87)] {
        assert_eq!(peer.subscribe(filter, 1).await, code, "{filter}");
    }
    let mut boss = Peer::connect(node.address, V3, "boss", true).await;
    assert_eq!(boss.subscribe("devices/#", 1).await, 1);
    assert_eq!(boss.subscribe("$SYS/#", 1).await, 0x80);
    boss.publish("devices/me/t", 1, 1, b"x").await;
    boss.is_closed().await;
    // A client identifier with levels or wildcards fills no placeholder.
    let mut sly = Peer::connect(node.address, V5, "me/#", true).await;
    sly.publish("devices/me/#", 0, 0, b"x").await;
    sly.is_closed_for(0x90).await;
    let mut sly = Peer::connect(node.address, V5, "you/t", true).await;
    sly.publish("devices/you/t/x", 1, 1, b"x").await;
    assert_eq!(sly.receive().await.body[2], 0x87);
    node.stopped().await;
}

#[tokio::test]
async fn without_rules_everything_but_dollar_topics_is_allowed() {
    let node = Node::start().await;
    let mut peer = Peer::connect(node.address, V5, "c", true).await;
    assert_eq!(peer.subscribe("#", 2).await, 2);
    assert_eq!(peer.subscribe("$SYS/#", 2).await, 0x87);
    peer.publish("$SYS/broker", 1, 1, b"x").await;
    assert_eq!(peer.receive().await.body[2], 0x87);
    peer.publish("$x", 0, 0, b"x").await;
    peer.hears_nothing().await;
    assert!(node.double.seen.lock().unwrap().is_empty());
    node.stopped().await;
}

#[tokio::test]
async fn shared_subscriptions_are_refused() {
    let node = Node::start().await;
    let mut peer = Peer::connect(node.address, V5, "c", true).await;
    assert_eq!(peer.subscribe("$share/g/a", 1).await, 0x9E);
    let mut peer = Peer::connect(node.address, V3, "d", true).await;
    assert_eq!(peer.subscribe("$share/g/a", 1).await, 0x80);
    node.stopped().await;
}

#[tokio::test]
async fn a_will_needs_the_right_to_publish_it() {
    let acl = vec![AclRule { publish: filters(&["mine"]), ..AclRule::default() }];
    let node = Node::with(BrokerConfig { acl, ..anonymous() }, StoredBroker::default()).await;
    for (topic, code) in [("mine", 0), ("yours", 0x87)] {
        let connect =
            Connect { version: V5, client: "c", clean: true, will: Some((0, topic, b"x", b"")), ..Connect::default() };
        let mut peer = Peer::dial(node.address, V5).await;
        peer.send(&connect.bytes()).await;
        assert_eq!(peer.receive().await.body[1], code);
    }
    node.stopped().await;
}

#[tokio::test]
async fn whoever_takes_over_a_session_gets_nothing_that_it_may_not_read() {
    let hash = PasswordHash::create(b"secret", NonZeroU32::new(10).unwrap()).unwrap();
    let users = ["ada", "eve"].map(|name| User { name: name.into(), password_hash: hash.clone() }).into();
    let acl = vec![
        AclRule { user: Some("ada".into()), subscribe: filters(&["#"]), ..AclRule::default() },
        AclRule { user: Some("eve".into()), subscribe: filters(&["news/#"]), ..AclRule::default() },
        AclRule { publish: filters(&["#"]), ..AclRule::default() },
    ];
    let node = Node::with(BrokerConfig { users, acl, ..BrokerConfig::default() }, StoredBroker::default()).await;
    let as_user = |user: &'static str, client: &'static str| Connect {
        version: V3,
        client,
        user: Some(user),
        password: Some(b"secret"),
        ..Connect::default()
    };
    let (mut ada, _) = Peer::greet(node.address, &as_user("ada", "shared")).await;
    for filter in ["news/a", "private/#"] {
        assert_eq!(ada.subscribe(filter, 1).await, 1);
    }
    drop(ada);
    until("she is away", || node.broker.stats().clients == 0).await;
    let (mut publisher, _) = Peer::greet(node.address, &as_user("ada", "p")).await;
    for topic in ["private/x", "news/a"] {
        publisher.publish(topic, 1, 1, b"for her").await;
        publisher.receive().await;
    }
    let (mut eve, answer) = Peer::greet(node.address, &as_user("eve", "shared")).await;
    assert_eq!(answer.body[0], 1, "the session is there");
    assert_eq!(eve.delivered().await.topic, "news/a");
    publisher.publish("private/x", 1, 1, b"more").await;
    publisher.receive().await;
    eve.hears_nothing().await;
    drop((eve, publisher));
    let stored = node.stopped().await;
    let session = stored.sessions.iter().find(|session| &*session.client.0 == "shared").unwrap();
    let left: Vec<&str> = session.subscriptions.iter().map(|subscription| subscription.filter.as_str()).collect();
    assert_eq!(left, ["news/a"]);
    assert!(session.queue.iter().all(|queued| queued.message.topic.as_str() == "news/a"));
}
