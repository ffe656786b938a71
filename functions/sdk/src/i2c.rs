//! Chips on I2C buses that the manifest grants, for those that no sensor of the node is bound to.
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
}

/// One transfer, with a repeated start between its operations: answers with what was read, for each that reads.
pub fn transaction(bus: &str, address: u8, operations: Vec<Operation>) -> Result<Vec<Vec<u8>>, Error> {
    backend::i2c(bus, address, operations)
}

/// Sends bytes.
pub fn write(bus: &str, address: u8, bytes: impl Into<Vec<u8>>) -> Result<(), Error> {
    transaction(bus, address, vec![Operation::Write(bytes.into())]).map(drop)
}

/// Asks for bytes.
pub fn read(bus: &str, address: u8, length: u32) -> Result<Vec<u8>, Error> {
    let read = transaction(bus, address, vec![Operation::Read(length)])?;
    Ok(read.into_iter().next().unwrap_or_default())
}

/// Sends bytes, and asks for others in the same transfer: the usual way to read a register.
pub fn write_read(bus: &str, address: u8, bytes: impl Into<Vec<u8>>, length: u32) -> Result<Vec<u8>, Error> {
    let read = transaction(bus, address, vec![Operation::Write(bytes.into()), Operation::Read(length)])?;
    Ok(read.into_iter().next().unwrap_or_default())
}
