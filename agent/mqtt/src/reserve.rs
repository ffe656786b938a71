//! Room that is promised before it is taken: what is being committed counts towards a bound before it is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is promised of one bound.
#[derive(Debug, Default)]
pub(crate) struct Reserved {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Reserved {
    /// Promises room for one message of `bytes`. The caller has seen that there is room, under the broker's lock.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Reservation {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Reservation { of: self.clone(), bytes }
    }

    pub(crate) fn messages(&self) -> usize {
        self.messages.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Room for one message. It is given back when this is dropped, which happens with a plan that is never delivered too,
/// on any thread and without the broker's lock: hence the atomics.
#[derive(Debug)]
pub(crate) struct Reservation {
    of: Arc<Reserved>,
    bytes: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.of.messages.fetch_sub(1, Ordering::Relaxed);
        self.of.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
