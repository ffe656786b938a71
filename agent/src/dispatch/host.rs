//! What an invocation may ask the node.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use holm_core::{Effects, Event, Fault, FunctionName, Outcome, Payload, ReadSet, Source, Timestamp};
use holm_runtime::{Host, HostError, InvokeError};
use holm_store::StateReader;

use super::settle::{Held, account};
use super::{Dispatcher, Loaded, Slot};
use crate::clock;
use crate::controls::Hands;
use crate::record::Ended;
use crate::traps::is_trap;

/// How deep functions may invoke each other. Each level holds an instance, and a guest's stack on the worker's.
pub const MAX_DEPTH: usize = 4;

/// Why a function that was invoked did not run, or an event is not settled yet.
pub(super) const NO_MEMORY: &str = "the node has no memory left for a function that is invoked (`functions.memory`)";

/// The version of what the same event has staged: no later commit makes it stale, because it commits with its reader.
const OWN: u64 = u64::MAX;

/// One invocation's part in an event that functions below the first have a part in.
pub(super) struct Step {
    pub(super) loaded: Arc<Loaded>,
    pub(super) effects: Effects,
    pub(super) reads: ReadSet,
}

/// What has happened below the first invocation of an event, in order: what each staged before it invoked the next, and
/// the outcomes of those that were invoked and succeeded. It settles with the event.
pub(super) type Steps = Arc<Mutex<Vec<Step>>>;

/// One invocation's view of the node.
pub(super) struct NodeHost {
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) reader: Arc<Mutex<StateReader>>,
    /// Who is run.
    pub(super) loaded: Arc<Loaded>,
    pub(super) steps: Steps,
    /// Set when the node had no room for an invocation that it would have room for at another time.
    pub(super) starved: Arc<AtomicBool>,
    /// Linear memory that this invocation and those above it hold.
    pub(super) memory: u64,
    pub(super) depth: usize,
    pub(super) hops: u8,
    /// The board, as it may use it.
    pub(super) hands: Hands,
    /// What the worker has not let go yet.
    pub(super) held: Arc<std::sync::Mutex<Vec<Held>>>,
}

impl Host for NodeHost {
    fn get(&mut self, namespace: &str, key: &str) -> Result<(Option<Bytes>, u64), HostError> {
        if let Some(value) = staged(&super::lock(&self.steps), namespace, key) {
            return Ok((value, OWN));
        }
        let reader = super::lock(&self.reader);
        match reader.get(&Arc::from(namespace), &Arc::from(key)) {
            Ok(versioned) => Ok((versioned.value, versioned.version)),
            Err(error) => Err(HostError(error.to_string())),
        }
    }

    fn keys(&mut self, namespace: &str, after: Option<&str>, limit: usize) -> Result<Vec<Arc<str>>, HostError> {
        let changed = changed(&super::lock(&self.steps), namespace);
        // Keys that were deleted are dropped from the answer, so ask for that many more.
        let ask = limit.saturating_add(changed.len());
        let keys = super::lock(&self.reader).keys(namespace, after, ask);
        Ok(overlay(keys.map_err(|error| HostError(error.to_string()))?, changed, after, limit))
    }

    fn invoke(
        &mut self,
        function: &FunctionName,
        input: Payload,
        before: Effects,
    ) -> Result<Option<Payload>, InvokeError> {
        if !before.is_empty() {
            super::lock(&self.steps).push(Step { loaded: self.loaded.clone(), effects: before, reads: Vec::new() });
        }
        if self.depth >= MAX_DEPTH {
            return Err(InvokeError::DepthExceeded);
        }
        let slot = self.dispatcher.slot(function).filter(|slot| slot.is_runnable());
        let slot = slot.ok_or(InvokeError::NoSuchFunction)?;
        let loaded = slot.loaded().ok_or(InvokeError::NoSuchFunction)?;
        // The caller's own memory stays taken: to wait for more could be to wait for oneself.
        let memory = loaded.manifest.limits.memory;
        if !self.dispatcher.reserve(memory) {
            // What these invocations hold together must fit at all, or to try again would never end.
            if self.memory.saturating_add(memory) <= self.dispatcher.settings.memory {
                self.starved.store(true, Ordering::Relaxed);
            }
            return Err(InvokeError::Failed(NO_MEMORY.to_owned()));
        }
        let done = super::lock(&self.steps).len();
        let outcome = self.call(&slot, &loaded, input);
        self.dispatcher.unreserve(memory);
        let Outcome { result, effects, reads, .. } = outcome?;
        let mut steps = super::lock(&self.steps);
        match result {
            Ok(answer) => {
                steps.push(Step { loaded, effects, reads });
                Ok(answer)
            }
            Err(fault) => {
                // Nothing of a failed function happens: nor of those that it invoked.
                steps.truncate(done);
                Err(match fault {
                    Fault::Timeout { .. } => InvokeError::Timeout,
                    fault => InvokeError::Failed(fault.message()),
                })
            }
        }
    }

    fn now(&self) -> Timestamp {
        clock::now()
    }

    fn new_id(&mut self) -> Arc<str> {
        self.dispatcher.new_id().0
    }

    fn hardware(&mut self) -> Option<&mut dyn holm_runtime::Hardware> {
        Some(&mut self.hands)
    }

    fn linger(&mut self) {
        self.dispatcher.let_all_go(&self.held);
    }
}

impl NodeHost {
    /// Runs a function in an instance of its own, one level deeper.
    fn call(&self, slot: &Slot, loaded: &Arc<Loaded>, input: Payload) -> Result<Outcome, InvokeError> {
        let prepared = match self.dispatcher.records() {
            true => loaded.prepare_recorded(Vec::new()),
            false => loaded.prepare(),
        };
        let prepared = prepared.map_err(|error| {
            if error.is_retryable() {
                self.starved.store(true, Ordering::Relaxed);
            }
            InvokeError::Failed(error.to_string())
        })?;
        let now = clock::now();
        let event = Event {
            id: self.dispatcher.new_id(),
            source: Source::Invoke,
            subject: slot.name.shared(),
            content_type: input.content_type,
            data: input.data,
            time: now,
            time_synced: clock::plausible(now),
            attempt: 1,
            hops: self.hops,
            attributes: Vec::new(),
        };
        let host = Self {
            dispatcher: self.dispatcher.clone(),
            reader: self.reader.clone(),
            loaded: loaded.clone(),
            steps: self.steps.clone(),
            starved: self.starved.clone(),
            memory: self.memory.saturating_add(loaded.manifest.limits.memory),
            depth: self.depth + 1,
            hops: self.hops,
            hands: Hands { controls: self.dispatcher.controls.clone(), function: slot.name.clone() },
            held: self.held.clone(),
        };
        let mut outcome = prepared.call(&event, Box::new(host)).without_client();
        // It has run, whatever becomes of the event.
        let account = account(&event, &outcome);
        self.dispatcher.store.account(&slot.name, &account);
        let fault = outcome.result.as_ref().err().map(|fault| (fault.kind(), fault.message()));
        let logs = std::mem::take(&mut outcome.logs);
        if let (Some(recording), Err(fault)) = (outcome.recording.take(), &outcome.result)
            && is_trap(fault)
        {
            // Its own, whatever becomes of the event.
            self.dispatcher.traps.note(Arc::new(Ended {
                loaded: loaded.clone(),
                event: Arc::new(event.clone()),
                time: clock::now(),
                fault: Some(fault.clone()),
                did: None,
                logs: logs.clone(),
                usage: outcome.usage,
                recording,
            }));
        }
        self.dispatcher.note(slot, loaded, &event, fault, account.wall_us, logs);
        Ok(outcome)
    }
}

/// What the event's steps so far have made of a key; `None` if none of them has written it.
fn staged(steps: &[Step], namespace: &str, key: &str) -> Option<Option<Bytes>> {
    // An invocation stages a key once, so the order within a step does not matter.
    let mut writes = steps.iter().rev().flat_map(|step| &step.effects.writes);
    writes.find(|write| *write.namespace == *namespace && *write.key == *key).map(|write| write.value.clone())
}

/// The keys of a namespace that the event's steps so far have written, and whether they are there now.
fn changed(steps: &[Step], namespace: &str) -> BTreeMap<Arc<str>, bool> {
    let writes = steps.iter().flat_map(|step| &step.effects.writes).filter(|write| *write.namespace == *namespace);
    writes.map(|write| (write.key.clone(), write.value.is_some())).collect()
}

/// Lays `changed` over a page of keys that begins after `after`, and cuts it to `limit`.
fn overlay(
    mut page: Vec<Arc<str>>,
    changed: BTreeMap<Arc<str>, bool>,
    after: Option<&str>,
    limit: usize,
) -> Vec<Arc<str>> {
    if changed.is_empty() {
        return page;
    }
    page.retain(|key| !changed.contains_key(key));
    let there = |(key, there): (Arc<str>, bool)| (there && after.is_none_or(|after| *key > *after)).then_some(key);
    page.extend(changed.into_iter().filter_map(there));
    page.sort();
    page.truncate(limit);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_keys_shows_what_was_staged_and_ends_where_the_next_begins() {
        let all: Vec<Arc<str>> = ["a", "c", "e", "g", "i"].map(Arc::from).to_vec();
        let changed: BTreeMap<Arc<str>, bool> = [("a", false), ("b", true), ("c", true), ("f", true), ("z", true)]
            .into_iter()
            .map(|(key, there)| (Arc::from(key), there))
            .collect();
        let mut found: Vec<Arc<str>> = Vec::new();
        loop {
            let after = found.last().cloned();
            // As the reader answers, which is asked for two and as many as have changed.
            let page = all.iter().filter(|key| after.as_ref().is_none_or(|after| *key > after));
            let page = page.take(2 + changed.len()).cloned().collect();
            let page = overlay(page, changed.clone(), after.as_deref(), 2);
            found.extend(page.iter().cloned());
            if page.len() < 2 {
                break;
            }
        }
        assert_eq!(found, ["b", "c", "e", "f", "g", "i", "z"].map(Arc::from));
    }
}
