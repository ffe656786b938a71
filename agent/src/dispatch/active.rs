//! The functions that are active, and which topics start them.

use std::collections::HashMap;
use std::sync::Arc;

use holm_core::{FunctionName, TopicName, TopicTrie, TriggerKind, When};
use holm_mqtt::Wanted;

use super::Slot;

/// One function's interest in a topic.
#[derive(Clone)]
pub struct Binding {
    /// Whose.
    pub slot: Arc<Slot>,
    /// Whether its events are settled before they are acknowledged, when they come with QoS 1 or 2.
    pub durable: bool,
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
                // These come from tasks of their own; see `triggers`.
                TriggerKind::Schedule { .. } | TriggerKind::Lifecycle { .. } => {}
            }
        }
    }

    /// Calls `visit` for every function that `topic` starts, each once, however many of its filters match.
    pub fn for_each(&self, topic: &TopicName, mut visit: impl FnMut(&Binding)) {
        let mut seen: Vec<*const Slot> = Vec::new();
        self.topics.for_each_match(topic, |bindings| {
            for binding in bindings {
                let slot = Arc::as_ptr(&binding.slot);
                if !seen.contains(&slot) {
                    seen.push(slot);
                    visit(binding);
                }
            }
        });
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
