//! Whether functions have an objection to an update that is about to begin.
//!
//! A function is asked by an event, as by any trigger: `[[trigger.lifecycle]]` with `update`. One that answers retry would rather have the
//! update wait, for as long as it says, and is asked again then; how long they can have it wait is the caller's ([`Question`]). Any other
//! answer, a fault, and none in time are no objection: a function that is broken must not keep out the version that mends it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use holm_cloud_sync::{Objection, Question};
use holm_core::{Event, EventId, Fault, Source, TriggerKind};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::registry::Entry;
use super::{Deployer, SetFunction};
use crate::dispatch::{Dispatcher, Loaded, Slot, event_now};

/// For an answer. A function that is so far behind is not asked.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most of a function's words that are told, in characters.
const WORDS: usize = 200;

/// What the event of the node's life is called.
const UPDATE: &str = "update";

impl Deployer {
    /// The objection that wants to wait longest. Nobody is asked where anything of the set may be a way back: it is older, removed, or
    /// the same with other parameters.
    pub async fn objection(&self, question: &Question, set: &[SetFunction]) -> Option<Objection> {
        let replaced = replaced(&self.registry.lock().await.functions, question, set)?;
        let active = self.dispatcher.active();
        let mut asking = JoinSet::new();
        for slot in active.slots.values().filter(|slot| !slot.quarantined.load(Ordering::Relaxed)) {
            let Some(loaded) = slot.loaded().filter(|loaded| wants_to_know(loaded)) else { continue };
            let event = event(&self.dispatcher, slot, question, &replaced);
            asking.spawn(ask(self.dispatcher.clone(), slot.clone(), loaded, event));
        }
        let objections = asking.join_all().await.into_iter().flatten();
        objections.max_by(|a, b| (a.wait, &b.function).cmp(&(b.wait, &a.function)))
    }
}

/// The functions of which a newer version takes the place of an older one, for the event. `None` where anything else changes, or nothing.
fn replaced(
    functions: &BTreeMap<String, Entry>,
    question: &Question,
    set: &[SetFunction],
) -> Option<Vec<serde_json::Value>> {
    let mut replaced = Vec::new();
    for (name, entry) in functions {
        let function = set.iter().find(|function| function.name.as_str() == name)?;
        let same = entry.config == function.config && entry.secrets == function.secrets;
        match entry.digest == function.bundle {
            true if same => {}
            false if question.newer.contains(&function.name) => {
                replaced.push(serde_json::json!({ "name": name, "from": entry.version, "to": function.version }));
            }
            _ => return None,
        }
    }
    (!replaced.is_empty()).then_some(replaced)
}

fn wants_to_know(loaded: &Loaded) -> bool {
    let asks = |kind: &TriggerKind| match kind {
        TriggerKind::Lifecycle { on } => on.iter().any(|what| &**what == UPDATE),
        _ => false,
    };
    loaded.manifest.triggers.iter().any(|trigger| asks(&trigger.kind))
}

fn event(dispatcher: &Dispatcher, slot: &Slot, question: &Question, replaced: &[serde_json::Value]) -> Event {
    let mut event = event_now(dispatcher.new_id(), Source::Lifecycle, UPDATE.into());
    // Asked again, it is the same event; and as it is waited for by its id, each function has its own.
    event.id = EventId(format!("{UPDATE}/{}/{}", question.generation, slot.name).into());
    event.attempt = question.attempt;
    event.content_type = Some("application/json".into());
    let left_ms = u64::try_from(question.left.as_millis()).unwrap_or(u64::MAX);
    event.data = serde_json::json!({ "functions": replaced, "left_ms": left_ms }).to_string().into();
    event
}

async fn ask(dispatcher: Arc<Dispatcher>, slot: Arc<Slot>, loaded: Arc<Loaded>, event: Event) -> Option<Objection> {
    let attempt = event.attempt;
    let answer = dispatcher.ask(&slot, event)?;
    let ended = timeout(PATIENCE, answer.wait()).await.ok().flatten();
    match ended.map(|ended| ended.result) {
        Some(Err(Fault::Retry { reason, after })) => {
            let wait = after.unwrap_or_else(|| loaded.manifest.retry.wait_after(attempt));
            Some(Objection { function: slot.name.clone(), reason: reason.chars().take(WORDS).collect(), wait })
        }
        Some(Ok(_)) => None,
        Some(Err(fault)) => {
            tracing::warn!(function = %slot.name, fault = fault.message(), "a function failed when it was asked about an update, which goes on");
            None
        }
        None => {
            tracing::warn!(function = %slot.name, "a function did not answer when it was asked about an update, which goes on");
            None
        }
    }
}
