//! Which sequence numbers of a stream are there: a watermark, and ranges above it.

/// Everything up to `upto`, and `spans`: ranges in order that neither overlap nor touch each other or the watermark.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Coverage {
    pub(super) upto: u64,
    pub(super) spans: Vec<(u64, u64)>,
}

impl Coverage {
    /// Whether all of these are there.
    pub(super) fn contains(&self, first: u64, last: u64) -> bool {
        last <= self.upto || self.spans.iter().any(|&(from, to)| from <= first.max(self.upto + 1) && last <= to)
    }

    /// Those of `first` to `last` that are not there, as ranges in order.
    pub(super) fn missing(&self, first: u64, last: u64) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut next = first.max(self.upto + 1);
        for &(from, to) in &self.spans {
            if to < next {
                continue;
            }
            if from > last {
                break;
            }
            if from > next {
                missing.push((next, from - 1));
            }
            next = to + 1;
        }
        if next <= last {
            missing.push((next, last));
        }
        missing
    }

    /// From now on these are there too.
    pub(super) fn add(&mut self, first: u64, last: u64) {
        let (mut first, mut last) = (first, last);
        let mut apart = Vec::with_capacity(self.spans.len() + 1);
        for &(from, to) in &self.spans {
            if to + 1 < first || last + 1 < from {
                apart.push((from, to));
            } else {
                (first, last) = (first.min(from), last.max(to));
            }
        }
        if first <= self.upto + 1 {
            self.upto = self.upto.max(last);
        } else {
            apart.push((first, last));
        }
        apart.retain(|&(_, to)| to > self.upto);
        apart.sort_unstable();
        // What the watermark has reached goes with it.
        let mut reached = 0;
        for &(from, to) in &apart {
            if from > self.upto + 1 {
                break;
            }
            self.upto = to;
            reached += 1;
        }
        apart.drain(..reached);
        self.spans = apart;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The same from a set of numbers.
    fn of(set: &BTreeSet<u64>) -> Coverage {
        let mut coverage = Coverage::default();
        for &number in set {
            if number == coverage.upto + 1 && coverage.spans.is_empty() {
                coverage.upto = number;
                continue;
            }
            match coverage.spans.last_mut() {
                Some((_, last)) if number == *last + 1 => *last = number,
                _ => coverage.spans.push((number, number)),
            }
        }
        coverage
    }

    proptest! {
        #[test]
        fn a_coverage_is_a_set(ranges in prop::collection::vec((1_u64..60, 0_u64..12), 1..25), ask in (1_u64..70, 0_u64..12)) {
            let (mut set, mut coverage) = (BTreeSet::new(), Coverage::default());
            let asked = ask.0..=ask.0 + ask.1;
            for (first, more) in ranges {
                set.extend(first..=first + more);
                coverage.add(first, first + more);
                prop_assert_eq!(&coverage, &of(&set));
                prop_assert_eq!(coverage.contains(ask.0, ask.0 + ask.1), asked.clone().all(|n| set.contains(&n)));
                let missing: Vec<u64> =
                    coverage.missing(ask.0, ask.0 + ask.1).into_iter().flat_map(|(from, to)| from..=to).collect();
                let expected: Vec<u64> = asked.clone().filter(|number| !set.contains(number)).collect();
                prop_assert_eq!(missing, expected);
            }
        }
    }
}
