#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

fn topic() -> impl Strategy<Value = TopicName> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "$c", ""]), 1..5)
        .prop_filter_map("empty", |levels| TopicName::new(&levels.join("/")).ok())
}

fn filter() -> impl Strategy<Value = TopicFilter> {
    (prop::collection::vec(prop::sample::select(vec!["a", "b", "$c", "", "+"]), 1..5), any::<bool>()).prop_filter_map(
        "invalid",
        |(mut levels, rest)| {
            if rest {
                levels.push("#");
            }
            TopicFilter::new(&levels.join("/")).ok()
        },
    )
}

proptest! {
    #[test]
    fn finds_what_a_linear_scan_finds(
        filters in prop::collection::btree_set(filter(), 0..30),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        topics in prop::collection::vec(topic(), 1..20),
    ) {
        let mut filters: Vec<_> = filters.into_iter().collect();
        let mut trie = TopicTrie::new();
        for f in &filters {
            trie.entry(f, || f.clone());
        }
        for index in removed {
            if !filters.is_empty() {
                let f = filters.remove(index.index(filters.len()));
                prop_assert_eq!(trie.remove(&f), Some(f));
            }
        }
        for t in topics {
            let mut found = Vec::new();
            trie.for_each_match(&t, |f| found.push(f.clone()));
            found.sort();
            let expected: Vec<_> = filters.iter().filter(|f| f.matches(&t)).cloned().collect();
            prop_assert_eq!(found, expected);
        }
        for f in &filters {
            trie.remove(f);
        }
        prop_assert!(trie.root.is_empty(), "empty branches stay behind");
    }
}
