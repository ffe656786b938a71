#![allow(clippy::unwrap_used)]
use super::*;

#[test]
fn names_and_filters_are_checked() {
    for (text, name, filter) in [
        ("a/b", Ok(()), Ok(())),
        ("/", Ok(()), Ok(())),
        ("", Err(TopicError::Empty), Err(TopicError::Empty)),
        ("a\0", Err(TopicError::Nul), Err(TopicError::Nul)),
        ("a/+", Err(TopicError::WildcardInName), Ok(())),
        ("a/#", Err(TopicError::WildcardInName), Ok(())),
        ("a/#/b", Err(TopicError::WildcardInName), Err(TopicError::MisplacedWildcard)),
        ("a+/b", Err(TopicError::WildcardInName), Err(TopicError::MisplacedWildcard)),
        ("a#", Err(TopicError::WildcardInName), Err(TopicError::MisplacedWildcard)),
    ] {
        assert_eq!(TopicName::new(text).map(drop), name, "name {text:?}");
        assert_eq!(TopicFilter::new(text).map(drop), filter, "filter {text:?}");
    }
    assert_eq!(TopicName::new(&"a/".repeat(200)), Err(TopicError::TooDeep));
    assert_eq!(TopicName::new(&"a".repeat(70_000)), Err(TopicError::TooLong));
}

#[test]
fn filters_match_as_the_standard_says() {
    for (filter, topic, expected) in [
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
        ("sport/#", "sport", true),
        ("#", "sport/tennis", true),
        ("sport/tennis/+", "sport/tennis/player1", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
        ("#", "$SYS/monitor", false),
        ("+/monitor", "$SYS/monitor", false),
        ("$SYS/#", "$SYS/monitor", true),
    ] {
        let (f, t) = (TopicFilter::new(filter).unwrap(), TopicName::new(topic).unwrap());
        assert_eq!(f.matches(&t), expected, "{filter} against {topic}");
    }
}

#[test]
fn covering_is_a_subset_test() {
    for (outer, inner, expected) in [
        ("#", "a/b", true),
        ("#", "#", true),
        ("#", "$SYS/#", false),
        ("a/+", "a/b", true),
        ("a/+", "a/+", true),
        ("a/+", "a/#", false),
        ("a/#", "a/+/c", true),
        ("a/b", "a/+", false),
        ("a/#", "a", true),
    ] {
        let (o, i) = (TopicFilter::new(outer).unwrap(), TopicFilter::new(inner).unwrap());
        assert_eq!(o.covers(&i), expected, "{outer} covers {inner}");
    }
}
