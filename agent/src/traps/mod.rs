//! Traps: each leaves a record with which it can be run again elsewhere.
//!
//! # How it works
//!
//! A worker that sees a trap, a deadline or a limit hands over what it knows ([`Traps::note`]) and goes on: it never waits. The
//! `traps` thread makes the record, writes it to a file in `traps/` of the data folder, and queues a copy for the control plane.
//! All of that is outside the settlement: a crash may lose a record, and never an effect.
//!
//! # Bounds
//!
//! A record has at most [`LARGEST`](crate::record::LARGEST) bytes; all together have what `functions.traps` says, and the oldest
//! go first. A function may leave [`BURST`] records at once and one every [`EVERY`] after that: one that traps at each event must
//! not wear out the card, nor push out what others left. What is not kept is counted, and the list says it.

mod shelf;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holm_cloud_sync::Cloud;
use holm_core::{Fault, FunctionName};
use holm_store::{Lane, Store, Write};

pub use shelf::{Shelf, Summary};

use crate::record::{Ended, Record};

/// Records of one function at once.
const BURST: u32 = 8;

/// After that, one in this time.
const EVERY: Duration = Duration::from_secs(10);

/// Ends that wait for the thread. Each holds an event and a recording; when there is no room, the record is lost and counted.
const WAITING: usize = 16;

/// What workers know of traps.
pub struct Traps {
    /// `None` is the end.
    sender: Option<SyncSender<Option<Arc<Ended>>>>,
    budgets: Mutex<BTreeMap<FunctionName, Budget>>,
    shelf: Arc<Mutex<Shelf>>,
}

/// How many records a function may leave now.
struct Budget {
    left: u32,
    since: Instant,
    lost: u64,
}

/// The thread's part.
pub struct Keeper {
    receiver: Receiver<Option<Arc<Ended>>>,
    shelf: Arc<Mutex<Shelf>>,
    device: String,
}

impl Traps {
    /// With room for so many bytes in the data folder; with none, nothing is kept and nobody needs a thread.
    pub fn new(data: &Path, device: &str, bytes: u64) -> (Self, Option<Keeper>) {
        let shelf = Arc::new(Mutex::new(Shelf::new(data.join("traps"), bytes)));
        let (sender, receiver) = sync_channel(WAITING);
        let keeps = bytes > 0;
        let keeper = keeps.then(|| Keeper { receiver, shelf: shelf.clone(), device: device.to_owned() });
        (Self { sender: keeps.then_some(sender), budgets: Mutex::default(), shelf }, keeper)
    }

    /// Whether invocations have to be recorded.
    pub fn keeps(&self) -> bool {
        self.sender.is_some()
    }

    /// Takes what is known of a trap, if there is room for it. Never waits.
    pub fn note(&self, ended: Arc<Ended>) {
        let Some(sender) = &self.sender else { return };
        let name = ended.loaded.manifest.name.clone();
        if !self.may(&name) {
            return;
        }
        match sender.try_send(Some(ended)) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => self.lose(&name),
        }
    }

    /// Lets the thread end, after what waits.
    pub fn close(&self) {
        if let Some(sender) = &self.sender {
            // The thread may have gone already.
            let _ = sender.send(None);
        }
    }

    /// What is kept.
    pub fn shelf(&self) -> MutexGuard<'_, Shelf> {
        lock(&self.shelf)
    }

    /// Traps of each function that left no record.
    pub fn lost(&self) -> BTreeMap<String, u64> {
        let budgets = lock(&self.budgets);
        let lost = budgets.iter().filter(|(_, budget)| budget.lost > 0);
        lost.map(|(name, budget)| (name.to_string(), budget.lost)).collect()
    }

    fn may(&self, name: &FunctionName) -> bool {
        let now = Instant::now();
        let mut budgets = lock(&self.budgets);
        let budget = budgets.entry(name.clone()).or_insert(Budget { left: BURST, since: now, lost: 0 });
        while budget.left < BURST && now.duration_since(budget.since) >= EVERY {
            budget.left += 1;
            budget.since += EVERY;
        }
        if budget.left == 0 {
            budget.lost += 1;
            return false;
        }
        if budget.left == BURST {
            budget.since = now;
        }
        budget.left -= 1;
        true
    }

    fn lose(&self, name: &FunctionName) {
        if let Some(budget) = lock(&self.budgets).get_mut(name) {
            budget.lost += 1;
        }
    }
}

/// Whether an invocation's end is one that leaves a record: what the handler said by itself needs none.
pub fn is_trap(fault: &Fault) -> bool {
    matches!(fault, Fault::Trap { .. } | Fault::Timeout { .. } | Fault::Exhausted { .. })
}

impl Keeper {
    /// Keeps records until it is told to end. Blocks on the disk.
    pub fn run(self, store: &Store, cloud: Option<&Cloud>) {
        if let Err(error) = lock(&self.shelf).open() {
            tracing::warn!(%error, "the records of earlier traps cannot be read");
        }
        while let Ok(Some(ended)) = self.receiver.recv() {
            let mut record = Record::of(&ended, &self.device);
            record.name();
            let document = record.document();
            if let Err(error) = lock(&self.shelf).put(&record, &document) {
                tracing::warn!(%error, function = record.function, "a trap's record could not be written");
            }
            // A device of no fleet keeps its records to itself: nobody would ever take them from the outbox.
            if cloud.is_some_and(|cloud| cloud.status().thing.is_some()) {
                self.send(store, &record, document);
            }
        }
    }

    fn send(&self, store: &Store, record: &Record, document: Vec<u8>) {
        let row = Write::Outbox {
            // With the logs, which go last and are the first to be dropped: results matter more.
            lane: Lane::Logs,
            stream: format!("trap.{}", record.function).into(),
            created: record.time,
            content_type: Some("application/json".into()),
            data: document.into(),
        };
        if let Err(error) = store.commit(vec![row]) {
            tracing::warn!(%error, function = record.function, "a trap's record could not be queued for the cloud");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_always_traps_is_held_to_its_budget_and_no_other_is() {
        let folder = tempfile::tempdir().unwrap();
        let (traps, _keeper) = Traps::new(folder.path(), "pi", 1 << 20);
        let (bad, other) = (FunctionName::new("bad").unwrap(), FunctionName::new("other").unwrap());
        let kept = (0..100).filter(|_| traps.may(&bad)).count();
        assert_eq!((kept, traps.lost()), (BURST as usize, [("bad".to_owned(), 100 - u64::from(BURST))].into()));
        assert!(traps.may(&other));
        // Time passes.
        lock(&traps.budgets).get_mut(&bad).unwrap().since -= EVERY * 2;
        assert_eq!((0..100).filter(|_| traps.may(&bad)).count(), 2);
    }
}
