//! The handle that drivers hold of their bus: `embedded-hal`'s `I2c` and `DelayNs`, with a limit on the time that one
//! reading may take.
//!
//! Drivers come from elsewhere, and some wait for a bit without end; when the time is used up every transfer fails, and
//! whoever waits for a bit gets an error.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use embedded_hal::i2c::{ErrorType, I2c, Operation};

use crate::board::I2cBus;
use crate::{BusFault, Clock};

/// A bus, shared by the drivers on its owner's thread.
#[derive(Clone)]
pub(crate) struct I2cHandle {
    bus: Rc<RefCell<I2cBus>>,
    deadline: Rc<Cell<Duration>>,
    pub(crate) clock: Clock,
}

impl I2cHandle {
    pub(crate) fn new(bus: I2cBus, clock: Clock) -> Self {
        Self { bus: Rc::new(RefCell::new(bus)), deadline: Rc::new(Cell::new(Duration::MAX)), clock }
    }

    /// From here on, transfers succeed for `time` only.
    pub(crate) fn allow(&self, time: Duration) {
        self.deadline.set(self.clock.now().saturating_add(time));
    }
}

impl ErrorType for I2cHandle {
    type Error = BusFault;
}

impl I2c for I2cHandle {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), BusFault> {
        if self.clock.now() > self.deadline.get() {
            return Err(BusFault::Budget);
        }
        // A driver that was given a handle cannot be inside a transfer: it waits for each to end.
        self.bus.try_borrow_mut().map_err(|_| BusFault::Stuck)?.transaction(address, operations)
    }
}
