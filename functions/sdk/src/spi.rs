//! SPI devices that the manifest grants.
//!
//! What is written is written now: like [`gpio::set`](crate::gpio::set), it is not staged.

use crate::{Error, backend};

/// A part of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// How many bytes to ask for.
    Read(u32),
    /// Bytes to send.
    Write(Vec<u8>),
    /// Bytes to send while as many are read.
    Transfer(Vec<u8>),
    /// A pause in nanoseconds, with the device still selected.
    Delay(u32),
}

/// One transfer, with the device selected throughout: answers with what was read, for each part that reads.
pub fn transaction(device: &str, operations: Vec<Operation>) -> Result<Vec<Vec<u8>>, Error> {
    backend::spi(device, operations)
}

/// Sends bytes while as many are read.
pub fn transfer(device: &str, bytes: impl Into<Vec<u8>>) -> Result<Vec<u8>, Error> {
    let read = transaction(device, vec![Operation::Transfer(bytes.into())])?;
    Ok(read.into_iter().next().unwrap_or_default())
}
