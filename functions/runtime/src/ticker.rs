//! The clock that lets deadlines interrupt guests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::activity::Activity;

/// How late a deadline may strike.
const TICK: Duration = Duration::from_millis(5);
/// How long the ticker stays awake after the last guest: long enough that a steady stream of events never pays for
/// waking it.
const LINGER: Duration = Duration::from_secs(1);

/// Advances the engine's epoch while guests run. Idle, it sleeps without waking: a device on battery pays nothing.
#[derive(Debug)]
pub struct Ticker {
    pub(crate) engine: wasmtime::Engine,
    pub(crate) activity: Arc<Activity>,
}

/// Stops a [`Ticker`].
#[derive(Debug, Clone)]
pub struct TickerHandle(Arc<Activity>);

impl TickerHandle {
    /// Lets [`Ticker::run`] return within a tick. Guests that still run then have no deadline: stop the workers first.
    pub fn stop(&self) {
        self.0.stop();
    }
}

impl Ticker {
    /// The means to stop it.
    pub fn handle(&self) -> TickerHandle {
        TickerHandle(self.activity.clone())
    }

    /// Ticks until stopped; the supervisor gives it a thread of its own.
    pub fn run(self) {
        let mut last_busy = Instant::now();
        while !self.activity.is_stopped() {
            if self.activity.is_busy() {
                last_busy = Instant::now();
            } else if last_busy.elapsed() > LINGER {
                self.activity.park();
                last_busy = Instant::now();
            }
            self.activity.pause(TICK);
            self.engine.increment_epoch();
        }
    }
}
