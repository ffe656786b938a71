//! Functions that have something to run, waiting for a worker.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::Slot;

/// A slot is in here at most as often as its concurrency, so the queue is bounded by the active set.
#[derive(Default)]
pub(super) struct RunQueue {
    inner: Mutex<Inner>,
    filled: Condvar,
}

#[derive(Default)]
struct Inner {
    slots: VecDeque<Arc<Slot>>,
    idle: usize,
    /// Slots that were ever put in.
    pushed: u64,
    closed: bool,
}

impl RunQueue {
    pub(super) fn push(&self, slot: Arc<Slot>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.slots.push_back(slot);
        inner.pushed += 1;
        let wake = inner.idle > 0;
        drop(inner);
        // A notify without a waiter is still a system call.
        if wake {
            self.filled.notify_one();
        }
    }

    /// The next slot, if there is one now.
    pub(super) fn try_pop(&self) -> Option<Arc<Slot>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).slots.pop_front()
    }

    /// The next slot; `None` when closed and empty. Blocks.
    pub(super) fn pop(&self) -> Option<Arc<Slot>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(slot) = inner.slots.pop_front() {
                return Some(slot);
            }
            if inner.closed {
                return None;
            }
            inner.idle += 1;
            inner = self.filled.wait(inner).unwrap_or_else(PoisonError::into_inner);
            inner.idle -= 1;
        }
    }

    /// Where `workers` of them all wait for something to run: how many slots were put in by then.
    pub(super) fn at_rest(&self, workers: usize) -> Option<u64> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.slots.is_empty() && inner.idle >= workers).then_some(inner.pushed)
    }

    pub(super) fn close(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.filled.notify_all();
    }
}
