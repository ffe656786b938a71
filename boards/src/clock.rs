//! The board's clock: time since boot, and waiting. Never the time of day.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where time comes from. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Clock {
    /// `CLOCK_MONOTONIC`, which is what the kernel stamps edges with.
    Monotonic,
    /// Stands still but for waiting and [`Clock::advance`], so that a simulation runs the same every time, and at once.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// A clock that stands still at zero.
    pub fn manual() -> Self {
        Self::Manual(Arc::default())
    }

    /// The time since some fixed moment.
    pub fn now(&self) -> Duration {
        match self {
            Self::Monotonic => {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
                let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
                Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
            }
            Self::Manual(nanoseconds) => Duration::from_nanos(nanoseconds.load(Ordering::SeqCst)),
        }
    }

    /// Waits. A manual clock advances instead.
    pub fn sleep(&self, time: Duration) {
        match self {
            Self::Monotonic => std::thread::sleep(time),
            Self::Manual(_) => self.advance(time),
        }
    }

    /// Sets a manual clock forward; a real one does what it does.
    pub fn advance(&self, time: Duration) {
        if let Self::Manual(nanoseconds) = self {
            nanoseconds.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
        }
    }
}

impl embedded_hal::delay::DelayNs for Clock {
    fn delay_ns(&mut self, ns: u32) {
        self.sleep(Duration::from_nanos(u64::from(ns)));
    }
}
