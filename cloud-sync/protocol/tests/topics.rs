//! Topics at the door.

#![allow(clippy::unwrap_used, missing_docs)]

mod sample;

use holm_core::{TopicFilter, TopicName};
use holm_protocol::limits::{MAX_SUBSCRIPTIONS, MAX_TOPIC_BYTES, MAX_TOPIC_SLASHES};
use holm_protocol::*;
use proptest::prelude::*;
use sample::thing;

fn shadow() -> ShadowName {
    ShadowName::new(SHADOW_NAME).unwrap()
}

#[test]
fn topics_are_as_documented() {
    let job = || JobId::new("r-7").unwrap();
    let stream = StreamName::new("publish.sensors/+/temp").unwrap().segment();
    for (subject, expected, down) in [
        (Subject::Results { lane: Lane::Alarms, stream }, "holm/pump-7/r/alarms/publish_sensors___temp", false),
        (Subject::Ack, "holm/pump-7/ack", true),
        (Subject::NextJobChanged, "$aws/things/pump-7/jobs/notify-next", true),
        (Subject::GetJob(JobTarget::Next, Exchange::Request), "$aws/things/pump-7/jobs/$next/get", false),
        (Subject::GetJob(JobTarget::Next, Exchange::Accepted), "$aws/things/pump-7/jobs/$next/get/accepted", true),
        (Subject::GetJob(JobTarget::Id(job()), Exchange::Rejected), "$aws/things/pump-7/jobs/r-7/get/rejected", true),
        (Subject::UpdateJob(job(), Exchange::Request), "$aws/things/pump-7/jobs/r-7/update", false),
        (Subject::UpdateJob(job(), Exchange::Accepted), "$aws/things/pump-7/jobs/r-7/update/accepted", true),
        (Subject::UpdateShadow(shadow(), Exchange::Request), "$aws/things/pump-7/shadow/name/holm/update", false),
        (
            Subject::UpdateShadow(shadow(), Exchange::Rejected),
            "$aws/things/pump-7/shadow/name/holm/update/rejected",
            true,
        ),
        (Subject::GetShadow(shadow(), Exchange::Accepted), "$aws/things/pump-7/shadow/name/holm/get/accepted", true),
        (Subject::ShadowDelta(shadow()), "$aws/things/pump-7/shadow/name/holm/update/delta", true),
    ] {
        assert_eq!(subject.is_down(), down, "{expected}");
        let address = Address::new(&thing(), subject);
        assert_eq!(address.to_string(), expected);
        assert_eq!(Address::parse(expected).unwrap(), address);
    }
}

#[test]
fn other_topics_are_unknown() {
    let long = format!("holm/{}/ack", "a".repeat(65));
    let endless = "a/".repeat(40_000);
    for topic in [
        "",
        "/",
        "holm",
        "holm//ack",
        "holm/pump-7/ack/",
        "holm/pump-7/Ack",
        "holm/pump:7/ack",
        "holm/+/ack",
        "holm/pump-7/r/results",
        "holm/pump-7/r/bulk/s",
        "holm/pump-7/r/results/a.b",
        "holm/pump-7/r/results/a/b",
        "$aws/things/pump-7/jobs/notify",
        "$aws/things/pump-7/jobs/get",
        "$aws/things/pump-7/jobs/start-next/accepted",
        "$aws/things/pump-7/jobs/$next/update",
        "$aws/things/pump-7/jobs/r-7/get/accepted/more",
        "$aws/things/pump-7/shadow/update",
        "$aws/things/pump-7/shadow/name/holm/update/documents",
        "$aws/things/pump-7/shadow/name/holm/get/delta",
        &long,
        &endless,
    ] {
        let error = Address::parse(topic).unwrap_err();
        assert!(matches!(error, ProtocolError::UnknownTopic { .. }), "{topic:?}: {error}");
        assert!(error.to_string().len() < 400, "errors quote little");
    }
}

#[test]
fn messages_for_another_thing_are_told_apart() {
    let other = Address::parse_for(&thing(), "holm/pump-8/ack").unwrap_err();
    assert!(matches!(other, ProtocolError::Mismatch { .. }));
    assert_eq!(Address::parse_for(&thing(), "holm/pump-7/ack").unwrap(), Subject::Ack);
}

#[test]
fn a_device_subscribes_to_what_it_must_and_to_no_more_than_allowed() {
    let filters = subscriptions(&thing(), &shadow());
    assert!(filters.len() <= MAX_SUBSCRIPTIONS, "{}", filters.len());
    let filters: Vec<TopicFilter> = filters.iter().map(|filter| TopicFilter::new(filter).unwrap()).collect();
    for (topic, wanted) in [
        ("holm/pump-7/ack", true),
        ("$aws/things/pump-7/jobs/notify-next", true),
        ("$aws/things/pump-7/jobs/$next/get/accepted", true),
        ("$aws/things/pump-7/jobs/$next/get/rejected", true),
        ("$aws/things/pump-7/jobs/r-7/update/accepted", true),
        ("$aws/things/pump-7/jobs/r-7/update/rejected", true),
        ("$aws/things/pump-7/shadow/name/holm/update/accepted", true),
        ("$aws/things/pump-7/shadow/name/holm/update/rejected", true),
        ("$aws/things/pump-7/shadow/name/holm/update/delta", false),
        ("$aws/things/pump-7/shadow/name/other/update/accepted", false),
        ("holm/pump-8/ack", false),
    ] {
        let name = TopicName::new(topic).unwrap();
        assert_eq!(filters.iter().filter(|filter| filter.matches(&name)).count(), usize::from(wanted), "{topic}");
    }
}

#[test]
fn the_longest_topics_are_within_the_limits_of_aws() {
    let thing = ThingName::new(&"t".repeat(64)).unwrap();
    let job = JobId::new(&"j".repeat(64)).unwrap();
    let shadow = ShadowName::new(&"s".repeat(64)).unwrap();
    let stream = StreamName::new(&"ä".repeat(200)).unwrap().segment();
    let mut topics = subscriptions(&thing, &shadow);
    topics.extend(
        [
            Subject::Results { lane: Lane::Results, stream },
            Subject::UpdateJob(job, Exchange::Rejected),
            Subject::UpdateShadow(shadow, Exchange::Accepted),
        ]
        .map(|subject| Address::new(&thing, subject).to_string()),
    );
    for topic in topics {
        assert!(topic.len() <= MAX_TOPIC_BYTES, "{topic}");
        assert!(topic.matches('/').count() <= MAX_TOPIC_SLASHES, "{topic}");
    }
}

#[test]
fn names_have_rules() {
    for (text, valid) in [("pump-7", true), ("A_b-9", true), ("", false), ("a b", false), ("a/b", false), ("ä", false)]
    {
        assert_eq!(ThingName::new(text).is_ok(), valid, "{text:?}");
        assert_eq!(JobId::new(text).is_ok(), valid, "{text:?}");
    }
    assert!(ThingName::new(&"a".repeat(65)).is_err());
    assert!(JobId::new("$next").is_err(), "stands for any job, so it is none");
    assert!(StreamName::new("a\u{1}").is_err());
    assert!("0123456789abcdeF".parse::<Epoch>().is_err(), "an epoch has one text");
    assert_eq!("000000000000002a".parse::<Epoch>().unwrap(), Epoch(42));
}

fn exchange() -> impl Strategy<Value = Exchange> {
    prop_oneof![Just(Exchange::Request), Just(Exchange::Accepted), Just(Exchange::Rejected)]
}

fn subject() -> impl Strategy<Value = Subject> {
    let lane = prop_oneof![Just(Lane::Alarms), Just(Lane::Results), Just(Lane::Logs)];
    let job = "[A-Za-z0-9_-]{1,64}".prop_map(|text| JobId::new(&text).unwrap());
    let target = prop_oneof![Just(JobTarget::Next), job.clone().prop_map(JobTarget::Id)];
    let shadow = "[A-Za-z0-9_-]{1,64}".prop_map(|text| ShadowName::new(&text).unwrap());
    prop_oneof![
        (lane, "\\PC{1,100}")
            .prop_map(|(lane, stream)| Subject::Results { lane, stream: StreamName::new(&stream).unwrap().segment() }),
        Just(Subject::Ack),
        Just(Subject::NextJobChanged),
        (target, exchange()).prop_map(|(target, exchange)| Subject::GetJob(target, exchange)),
        (job, exchange()).prop_map(|(job, exchange)| Subject::UpdateJob(job, exchange)),
        (shadow.clone(), exchange()).prop_map(|(name, exchange)| Subject::UpdateShadow(name, exchange)),
        (shadow.clone(), exchange()).prop_map(|(name, exchange)| Subject::GetShadow(name, exchange)),
        shadow.prop_map(Subject::ShadowDelta),
    ]
}

proptest! {
    #[test]
    fn what_is_put_together_is_taken_apart_the_same(thing in "[A-Za-z0-9_-]{1,64}", subject in subject()) {
        let address = Address::new(&ThingName::new(&thing).unwrap(), subject);
        let topic = address.to_string();
        prop_assert_eq!(Address::parse(&topic).unwrap(), address);
        prop_assert!(TopicName::new(&topic).is_ok());
    }

    #[test]
    fn whatever_parses_prints_the_same(topic in "(holm|\\$aws)(/(things|pump|jobs|\\$next|get|update|r|logs|ack|shadow|name|accepted|delta|[a-z+#]{0,3})){0,8}") {
        if let Ok(address) = Address::parse(&topic) {
            prop_assert_eq!(address.to_string(), topic);
        }
    }
}
