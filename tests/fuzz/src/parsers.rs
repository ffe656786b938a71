//! Topics, manifests and bundles.

use std::collections::BTreeSet;

use holm_bundle::{Bundle, BundleLimits};
use holm_core::{Manifest, TopicFilter, TopicName, TopicTrie};

/// Lines of text, each a topic or a filter: matching agrees with the standard's words, the trie with matching, and what
/// covers a filter matches all that the filter matches.
pub fn topic(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines: BTreeSet<&str> = text.split('\n').take(12).collect();
    let names: Vec<TopicName> = lines.iter().filter_map(|line| TopicName::new(line).ok()).collect();
    let filters: Vec<TopicFilter> = lines.iter().filter_map(|line| TopicFilter::new(line).ok()).collect();
    let mut trie = TopicTrie::new();
    for (index, filter) in filters.iter().enumerate() {
        assert!(lines.contains(filter.as_str()), "a filter is what it was made from");
        *trie.entry(filter, || usize::MAX) = index;
    }
    for name in &names {
        assert!(lines.contains(name.as_str()), "a topic is what it was made from");
        let mut found = BTreeSet::new();
        trie.for_each_match(name, |index| assert!(found.insert(*index), "visited twice"));
        for (index, filter) in filters.iter().enumerate() {
            let expected = matches(filter.as_str(), name.as_str());
            assert_eq!(filter.matches(name), expected, "{filter} and {name}");
            assert_eq!(found.contains(&index), expected, "the trie on {filter} and {name}");
            for wider in filters.iter().filter(|wider| expected && wider.covers(filter)) {
                assert!(wider.matches(name), "{wider} covers {filter}, but not {name}");
            }
        }
    }
    for (index, filter) in filters.iter().enumerate() {
        assert!(filter.covers(filter), "{filter} covers itself");
        assert_eq!(trie.remove(filter), Some(index));
    }
}

/// MQTT 5.0, 4.7, word for word and without cleverness.
fn matches(filter: &str, topic: &str) -> bool {
    fn levels(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            ([], []) | (["#"], _) => true,
            (["+", filter @ ..], [_, topic @ ..]) => levels(filter, topic),
            ([one, filter @ ..], [other, topic @ ..]) => one == other && levels(filter, topic),
            _ => false,
        }
    }
    let (filter, topic): (Vec<&str>, Vec<&str>) = (filter.split('/').collect(), topic.split('/').collect());
    let system = topic.first().is_some_and(|level| level.starts_with('$'));
    let wild = matches!(filter.first(), Some(&("+" | "#")));
    !(system && wild) && levels(&filter, &topic)
}

/// A manifest: its problems have words, and a good one is read the same twice.
pub fn manifest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Manifest::parse("holm.toml", text) {
        Ok(manifest) => {
            assert_eq!(Manifest::parse("holm.toml", text), Ok(manifest.clone()));
            let limits = &manifest.limits;
            assert!(limits.memory > 0 && limits.concurrency > 0 && limits.queue > 0, "{limits:?}");
            for attempt in [1, 2, 50, 1000, u32::MAX] {
                assert!(manifest.retry.wait_after(attempt).as_secs() <= 86_400, "{:?}", manifest.retry);
            }
        }
        Err(problems) => {
            assert!(!problems.problems.is_empty());
            // An error at the end is on the line behind the last.
            let lines = text.lines().count() + 1;
            for problem in &problems.problems {
                assert!(!problem.message.is_empty() && problem.line <= lines, "{problem:?} of {lines} lines");
            }
            assert!(!problems.to_string().is_empty());
        }
    }
}

/// A bundle, or (with an even first byte) the archive inside one: what opens packs to the same again.
pub fn bundle(data: &[u8]) {
    let limits = BundleLimits { compressed: 1 << 20, decompressed: 4 << 20, entries: 8 };
    let opened = match data {
        [first, archive @ ..] if first.is_multiple_of(2) => {
            let Ok(frame) = zstd::encode_all(archive, 1) else { return };
            Bundle::open(&frame, &limits)
        }
        _ => Bundle::open(data, &limits),
    };
    match opened {
        Ok(bundle) => {
            let packed = Bundle::pack(&bundle.manifest_text, &bundle.component).expect("what was opened can be packed");
            let again = Bundle::open(&packed.bytes, &limits).expect("what was packed can be opened");
            assert_eq!((&again.manifest, &again.component), (&bundle.manifest, &bundle.component));
            assert_eq!(packed.component_digest, bundle.component_digest);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
