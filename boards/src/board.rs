//! What a board gives: buses, lines and the system's attributes.
//!
//! Two implementations: [`crate::Linux`] and [`crate::Sim`]. Buses are `embedded-hal` 1.0's own traits, so that a driver
//! does not know which of the two it speaks to.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use embedded_hal::i2c::I2c;
use embedded_hal::spi::SpiDevice;
use holm_core::Level;

use crate::bindings::{LineBinding, SpiBinding};
use crate::{BoardError, BusFault, Clock};

/// An I2C bus, opened.
pub type I2cBus = Box<dyn I2c<Error = BusFault>>;

/// An SPI device, opened.
pub type SpiPort = Box<dyn SpiDevice<Error = BusFault>>;

/// Inputs that were opened together, in their order, and where their edges are waited for.
pub type Inputs = (Vec<Result<Arc<dyn Line>, BoardError>>, Arc<dyn Edges>);

/// A board. Nothing here keeps state that matters: what is opened belongs to who opened it.
pub trait Board: Send + Sync {
    /// The clock that delays and edges go by.
    fn clock(&self) -> Clock;

    /// Whether readings are made up.
    fn is_simulated(&self) -> bool;

    /// Opens a bus, on the thread that will own it.
    fn open_i2c(&self, bus: &str) -> Result<I2cBus, BoardError>;

    /// Opens a device, on the thread that will own it.
    fn open_spi(&self, device: &SpiBinding) -> Result<SpiPort, BoardError>;

    /// Takes an output and drives it to its safe level at once.
    fn open_output(&self, line: &LineBinding) -> Result<Arc<dyn Line>, BoardError>;

    /// Takes inputs, each of which may fail by itself, with one place to wait for their edges.
    fn open_inputs(&self, lines: &[LineBinding]) -> Inputs;

    /// The text of an attribute of the system, such as `/sys/class/thermal/thermal_zone0/temp`.
    fn read_attribute(&self, path: &str) -> Result<String, BoardError>;

    /// Writes an attribute of the system.
    fn write_attribute(&self, path: &str, text: &str) -> Result<(), BoardError>;

    /// Opens a device to write to, such as a watchdog.
    fn open_device(&self, path: &str) -> Result<Box<dyn Write + Send>, BoardError>;

    /// The names in a folder of the system, in order; nothing if there is no such folder.
    fn list(&self, folder: &str) -> Vec<String>;
}

/// A line that this process holds.
pub trait Line: Send + Sync {
    /// What it is at.
    fn level(&self) -> Result<Level, BoardError>;
    /// Drives it. Only outputs.
    fn set(&self, level: Level) -> Result<(), BoardError>;
}

/// A change of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawEdge {
    /// Which of the inputs that were opened together.
    pub input: usize,
    /// What it changed to.
    pub level: Level,
    /// When, by the board's clock.
    pub at: Duration,
}

/// Where edges of several inputs are waited for, by one thread.
pub trait Edges: Send + Sync {
    /// Waits for edges, at most `timeout`; `None` is as long as it takes. An empty answer says that the time is up, or
    /// that somebody called [`Edges::wake`].
    fn wait(&self, timeout: Option<Duration>) -> Vec<RawEdge>;
    /// Ends a wait from another thread.
    fn wake(&self);
}
