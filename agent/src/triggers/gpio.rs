//! Lines: changes of an input, once it has held still.
//!
//! Called on the thread that waits for edges, which only queues events, in the order in which the lines came to rest.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use holm_boards::{Fired, Watch};
use holm_core::{Level, Source, TriggerKind};

use crate::dispatch::{ActiveSet, Dispatcher, Slot, event_now};

/// What functions watch for.
#[derive(Default)]
pub struct Edges {
    watches: RwLock<Vec<Watched>>,
    next: AtomicU64,
    told: AtomicU64,
}

/// One trigger of one function.
struct Watched {
    watch: Watch,
    slot: Arc<Slot>,
    durable: bool,
}

/// What an event carries.
#[derive(serde::Serialize)]
struct Body<'a> {
    line: &'a str,
    level: &'static str,
    edge: &'static str,
    /// In milliseconds since 1970.
    time: i64,
    /// By `CLOCK_MONOTONIC`: for the time between edges, which no setting of the clock changes.
    monotonic_us: u64,
}

impl Edges {
    /// Takes over what the functions of `set` ask for.
    pub fn plan(&self, set: &ActiveSet) -> Vec<Watch> {
        let mut watches = Vec::new();
        let mut all = self.watches.write().unwrap_or_else(PoisonError::into_inner);
        for slot in set.slots.values() {
            let Some(loaded) = slot.loaded() else { continue };
            for wanted in &loaded.manifest.triggers {
                let TriggerKind::Gpio(trigger) = &wanted.kind else { continue };
                // Only for what may run, or keeps its events until it may.
                if !wanted.durable && !slot.is_runnable() {
                    continue;
                }
                let (line, edge, debounce) = (trigger.line.clone(), trigger.edge, trigger.debounce);
                let mut watch = Watch { id: 0, line, edge, debounce };
                // Under its old number it goes on where it was, in the midst of a bounce too.
                let same = |old: &&Watched| {
                    old.slot.name == slot.name && Watch { id: old.watch.id, ..watch.clone() } == old.watch
                };
                let old = all.iter().find(same).map(|old| old.watch.id);
                watch.id = old.unwrap_or_else(|| self.next.fetch_add(1, Ordering::Relaxed));
                watches.push(Watched { watch, slot: slot.clone(), durable: wanted.durable });
            }
        }
        *all = watches;
        all.iter().map(|watched| watched.watch.clone()).collect()
    }

    /// How many watch for a line to come to rest at a level.
    pub fn watching(&self, line: &str, level: Level) -> u64 {
        let all = self.watches.read().unwrap_or_else(PoisonError::into_inner);
        let wanted =
            all.iter().filter(|watched| watched.watch.line.as_str() == line && watched.watch.edge.includes(level));
        wanted.count() as u64
    }

    /// How many edges were told so far.
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::SeqCst)
    }

    /// A line changed.
    pub fn edge(&self, dispatcher: &Arc<Dispatcher>, fired: &Fired) {
        let all = self.watches.read().unwrap_or_else(PoisonError::into_inner);
        // One that is not watched for any more may still be on its way.
        let Some(watched) = all.iter().find(|watched| watched.watch.id == fired.id) else { return };
        let body = Body {
            line: fired.line.as_str(),
            level: fired.level.as_str(),
            edge: if fired.level == Level::High { "rising" } else { "falling" },
            time: fired.time.0,
            monotonic_us: u64::try_from(fired.at.as_micros()).unwrap_or(u64::MAX),
        };
        let Ok(data) = serde_json::to_vec(&body) else { return };
        let mut event = event_now(dispatcher.new_id(), Source::Gpio, fired.line.shared());
        event.content_type = Some("application/json".into());
        event.data = Bytes::from(data);
        // Nobody waits for it: a durable one is in the dispatcher's books from here on.
        drop(dispatcher.trigger(&watched.slot, event, watched.durable, Vec::new()));
        self.told.fetch_add(1, Ordering::SeqCst);
    }
}
