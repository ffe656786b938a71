//! Whether guests are running: what the ticker goes by.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Counts running guests, and wakes the ticker when the first one starts.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    running: AtomicU32,
    parked: AtomicBool,
    stopped: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Activity {
    /// A guest starts; it has ended when the guard is dropped.
    pub(crate) fn start(&self) -> Running<'_> {
        // Sequentially consistent with the pair in `park`: either we see that the ticker has parked and wake it, or it
        // sees us running and does not park.
        self.running.fetch_add(1, Ordering::SeqCst);
        if self.parked.load(Ordering::SeqCst) {
            self.notify();
        }
        Running(self)
    }

    /// Whether any guest runs.
    pub(crate) fn is_busy(&self) -> bool {
        self.running.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.notify();
    }

    fn notify(&self) {
        // The lock orders us after a ticker that has looked but not yet begun to wait.
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.wake.notify_all();
    }

    /// Waits, for the ticker, until a guest runs or it shall stop.
    pub(crate) fn park(&self) {
        self.parked.store(true, Ordering::SeqCst);
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while !self.is_busy() && !self.is_stopped() {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.parked.store(false, Ordering::SeqCst);
    }

    /// Waits, for the ticker, for `time`, or until it shall stop.
    pub(crate) fn pause(&self, time: Duration) {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_stopped() {
            drop(self.wake.wait_timeout(guard, time));
        }
    }
}

/// A guest that runs.
pub(crate) struct Running<'a>(&'a Activity);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}
