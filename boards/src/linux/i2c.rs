//! I2C by `/dev/i2c-N`: each transaction is one `I2C_RDWR`, so that nobody speaks in between.

use std::path::Path;

use embedded_hal::i2c::{ErrorType, I2c, Operation};
use i2cdev::core::I2CTransfer as _;
use i2cdev::linux::{I2CMessage as _, LinuxI2CBus, LinuxI2CError, LinuxI2CMessage};

use super::opening;
use crate::board::I2cBus;
use crate::{BoardError, BusFault};

// Numbers of asm-generic/errno.h, which every architecture that we build for shares.
const ENXIO: i32 = 6;
const EAGAIN: i32 = 11;
const EBUSY: i32 = 16;
const EOPNOTSUPP: i32 = 95;
const ETIMEDOUT: i32 = 110;
const EREMOTEIO: i32 = 121;

pub(super) fn open(bus: &str, path: &Path) -> Result<I2cBus, BoardError> {
    let opened = LinuxI2CBus::new(path).map_err(|error| opening(bus, path, &error.into()))?;
    Ok(Box::new(Bus(opened)))
}

struct Bus(LinuxI2CBus);

impl ErrorType for Bus {
    type Error = BusFault;
}

impl I2c for Bus {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), BusFault> {
        let mut messages: Vec<LinuxI2CMessage<'_>> = operations
            .iter_mut()
            .map(|operation| match operation {
                Operation::Read(bytes) => LinuxI2CMessage::read(bytes),
                Operation::Write(bytes) => LinuxI2CMessage::write(bytes),
            })
            .map(|message| message.with_address(u16::from(address)))
            .collect();
        self.0.transfer(&mut messages).map(drop).map_err(|error| match error {
            LinuxI2CError::Errno(number) => fault(number),
            LinuxI2CError::Io(error) => fault(error.raw_os_error().unwrap_or_default()),
        })
    }
}

/// What error numbers mean: the kernel's `Documentation/i2c/fault-codes.rst`.
fn fault(number: i32) -> BusFault {
    match number {
        ENXIO | EREMOTEIO => BusFault::NoAnswer,
        EAGAIN => BusFault::Arbitration,
        EBUSY => BusFault::Stuck,
        ETIMEDOUT => BusFault::Timeout,
        EOPNOTSUPP => BusFault::Unsupported,
        other => BusFault::System(other),
    }
}
