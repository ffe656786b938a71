//! Triggers other than MQTT. Each is one file, and a task, a call or a listener that hands events to the dispatcher.

pub mod file;
pub mod gpio;
pub mod http;
pub mod schedule;
pub mod sensor;

use std::sync::Arc;

use holm_core::{FunctionName, TriggerKind};

use crate::deploy::lifecycle_event;
use crate::dispatch::Dispatcher;

/// Fires the lifecycle triggers for `what`: of one function, or of all.
pub fn lifecycle(dispatcher: &Arc<Dispatcher>, what: &str, only: Option<&FunctionName>) {
    for slot in dispatcher.active().slots.values() {
        if only.is_some_and(|name| *name != slot.name) {
            continue;
        }
        let Some(loaded) = slot.loaded() else { continue };
        for trigger in &loaded.manifest.triggers {
            if let TriggerKind::Lifecycle { on } = &trigger.kind
                && on.iter().any(|name| &**name == what)
            {
                // Nobody waits for it: once it is queued it is in the inbox or done.
                drop(dispatcher.trigger(slot, lifecycle_event(dispatcher, what), trigger.durable, Vec::new()));
            }
        }
    }
}
