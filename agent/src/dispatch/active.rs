//! The functions that are active, and which topics start them.

use std::collections::HashMap;
use std::sync::Arc;

use holm_core::{FunctionName, TopicName, TopicTrie, TriggerKind, When};
use holm_mqtt::Wanted;

use super::Slot;

/// Functions of one topic that are gathered without asking for memory: more are seldom.
const FEW: usize = 8;

/// One function's interest in a topic.
struct Binding {
    slot: Arc<Slot>,
    /// Whether its events are settled before they are acknowledged, when they come with QoS 1 or 2.
    durable: bool,
}

/// Never changed: a deployment makes a new one.
#[derive(Default)]
pub struct ActiveSet {
    /// All functions.
    pub slots: HashMap<FunctionName, Arc<Slot>>,
    topics: TopicTrie<Vec<Binding>>,
    wanted: Vec<Wanted>,
    chains: HashMap<(FunctionName, When), Vec<Arc<Slot>>>,
}

impl ActiveSet {
    /// From slots that hold loaded functions.
    pub fn new(slots: impl IntoIterator<Item = Arc<Slot>>) -> Self {
        let mut set = Self::default();
        for slot in slots {
            if let Some(loaded) = slot.loaded() {
                set.bind(&slot, &loaded.manifest);
            }
            set.slots.insert(slot.name.clone(), slot);
        }
        set
    }

    fn bind(&mut self, slot: &Arc<Slot>, manifest: &holm_core::Manifest) {
        for trigger in &manifest.triggers {
            match &trigger.kind {
                TriggerKind::Mqtt { topics, qos, retained } => {
                    for filter in topics {
                        self.wanted.push(Wanted { filter: filter.clone(), qos: *qos, retained: *retained });
                        let bindings = self.topics.entry(filter, Vec::new);
                        bindings.push(Binding { slot: slot.clone(), durable: trigger.durable });
                    }
                }
                TriggerKind::Function { from, on } => {
                    self.chains.entry((from.clone(), *on)).or_default().push(slot.clone());
                }
                // These come by themselves; see `triggers`.
                TriggerKind::Schedule { .. }
                | TriggerKind::Sensor(_)
                | TriggerKind::Gpio(_)
                | TriggerKind::File(_)
                | TriggerKind::Http(_)
                | TriggerKind::Lifecycle { .. } => {}
            }
        }
    }

    /// Calls `visit` for every function that `topic` starts, each once, however many of its filters match: with `true` if
    /// any of the triggers that match is durable.
    pub fn for_each(&self, topic: &TopicName, mut visit: impl FnMut(&Arc<Slot>, bool)) {
        // All are gathered first, because a later filter of the same function may be the durable one.
        let mut few: [Option<(&Arc<Slot>, bool)>; FEW] = [None; FEW];
        let mut many: Vec<(&Arc<Slot>, bool)> = Vec::new();
        let mut count = 0;
        self.topics.for_each_match(topic, |bindings| {
            for Binding { slot, durable } in bindings {
                let known = few.iter_mut().take(count).flatten().chain(&mut many);
                match known.into_iter().find(|(seen, _)| Arc::ptr_eq(seen, slot)) {
                    Some((_, before)) => *before |= *durable,
                    None => {
                        match few.get_mut(count) {
                            Some(room) => *room = Some((slot, *durable)),
                            None => many.push((slot, *durable)),
                        }
                        count += 1;
                    }
                }
            }
        });
        for (slot, durable) in few.into_iter().flatten().chain(many) {
            visit(slot, durable);
        }
    }

    /// What an external broker is asked for.
    pub fn wanted(&self) -> Vec<Wanted> {
        self.wanted.clone()
    }

    /// The functions that another one's end starts.
    pub fn chained(&self, from: &FunctionName, on: When) -> &[Arc<Slot>] {
        self.chains.get(&(from.clone(), on)).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(functions: &[(&str, &[(&str, bool)])], expected: &[(&str, bool)]) {
        let mut set = ActiveSet::default();
        for (name, triggers) in functions {
            let triggers: String = triggers
                .iter()
                .map(|(topic, durable)| format!("[[trigger.mqtt]]\ntopics = [\"{topic}\"]\ndurable = {durable}\n"))
                .collect();
            let text = format!("manifest_version = 1\n[function]\nname = \"{name}\"\nversion = \"1.0.0\"\n{triggers}");
            let manifest = holm_core::Manifest::parse("test", &text).unwrap();
            set.bind(&Arc::new(Slot::new(manifest.name.clone(), None)), &manifest);
        }
        let mut found = Vec::new();
        set.for_each(&TopicName::new("a/b").unwrap(), |slot, durable| found.push((slot.name.to_string(), durable)));
        found.sort();
        let expected: Vec<_> = expected.iter().map(|(name, durable)| ((*name).to_owned(), *durable)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_durable_one_of_two_triggers_wins_whichever_matches_first() {
        for (first, second) in [("a/+", "a/b"), ("a/b", "#"), ("#", "+/b"), ("a/b", "a/b")] {
            check(&[("one", &[(first, false), (second, true)])], &[("one", true)]);
            check(&[("one", &[(first, true), (second, false)])], &[("one", true)]);
            check(&[("one", &[(first, false), (second, false)])], &[("one", false)]);
        }
    }

    #[test]
    fn every_function_is_visited_once_also_beyond_the_few() {
        let names: Vec<String> = (0..2 * FEW).map(|number| format!("function-{number:02}")).collect();
        let triggers: [(&str, bool); 2] = [("a/#", false), ("a/b", true)];
        let functions: Vec<_> = names.iter().map(|name| (name.as_str(), &triggers[..])).collect();
        let expected: Vec<_> = names.iter().map(|name| (name.as_str(), true)).collect();
        check(&functions, &expected);
    }
}
