//! Drivers: one file each. A driver turns a chip's registers, or a file of the system, into values with units.
//!
//! To add one: a file with a binding (what the configuration says, and which channels that gives) and a [`Driver`], and
//! a line in [`DRIVERS`]. Drivers of I2C chips are written against `embedded-hal` 1.0, so that the simulator's models
//! run the same code as the chips. A driver that fails is dropped and made again for the next reading, so that a chip
//! which was unplugged, or lost its power, is set up anew.

mod ads1115;
mod bh1750;
mod bme280;
mod ds18b20;
mod register;
mod sht;
mod system;

use std::fmt;
use std::sync::Arc;

use holm_core::Section;

use crate::bindings::device_name;
use crate::bus::I2cHandle;
use crate::sim::{Model, Signals};
use crate::{Board, BoardError};

// What the simulator's models share with the drivers: bindings, and checksums that are tested by themselves.
pub(crate) use ads1115::{Input, Pins};
pub(crate) use ds18b20::crc8 as w1_crc8;
pub(crate) use register::Field;
pub(crate) use sht::{Family, crc8 as sht_crc8};

/// A driver's name in the configuration, and what reads the rest of its section.
type Known = (&'static str, fn(&mut Section<'_>) -> Option<DriverBinding>);

const DRIVERS: [Known; 9] = [
    ("ads1115", ads1115::read),
    ("bh1750", bh1750::read),
    ("bme280", bme280::read),
    ("ds18b20", ds18b20::read),
    ("hwmon", system::read_hwmon),
    ("register", register::read),
    ("sht3x", sht::read_sht3x),
    ("sht4x", sht::read_sht4x),
    ("thermal", system::read_thermal),
];

/// A channel that a sensor gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Channel {
    /// What readings call it.
    pub name: Arc<str>,
    /// The unit of its values.
    pub unit: Arc<str>,
    /// The least that the chip can measure.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Channel {
    pub(crate) fn new(name: &str, unit: &str, min: f64, max: f64) -> Self {
        Self { name: name.into(), unit: unit.into(), min, max }
    }
}

/// Where a sensor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// On an I2C bus.
    I2c {
        /// Which.
        bus: String,
        /// The chip's address.
        address: u8,
    },
    /// On the 1-wire bus that the kernel drives.
    OneWire,
    /// The system's own sensors, which answer at once.
    System,
}

/// A value as the driver sees it, before correction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    pub(crate) value: f64,
    /// Whether the chip itself says that it is not to be believed.
    pub(crate) suspect: bool,
}

impl Sample {
    pub(crate) fn good(value: f64) -> Self {
        Self { value, suspect: false }
    }
}

/// A chip that was set up. It lives on the thread of its bus.
pub(crate) trait Driver {
    /// Measures: one sample for every channel of the binding, in its order.
    fn read(&mut self, samples: &mut Vec<Sample>) -> Result<(), BoardError>;
}

/// What a driver may use.
pub(crate) struct Tools<'a> {
    /// The sensor's name, for errors.
    pub(crate) sensor: &'a str,
    pub(crate) board: &'a Arc<dyn Board>,
    /// The bus of a [`Place::I2c`].
    pub(crate) i2c: Option<I2cHandle>,
}

impl Tools<'_> {
    pub(crate) fn i2c(&self) -> Result<I2cHandle, BoardError> {
        self.i2c.clone().ok_or_else(|| BoardError::UnknownBus(self.sensor.to_owned()))
    }
}

/// What each driver's file implements.
pub(crate) trait Kind: fmt::Debug + Send + Sync {
    fn place(&self) -> Place;
    fn channels(&self) -> Vec<Channel>;
    /// Finds the chip and sets it up.
    fn open(&self, tools: &Tools<'_>) -> Result<Box<dyn Driver>, BoardError>;
    /// The simulator's chip of this kind.
    fn model(&self, signals: Signals) -> Model;
}

/// A driver with what the configuration says about it.
#[derive(Debug, Clone)]
pub struct DriverBinding {
    /// The driver's name.
    pub name: &'static str,
    pub(crate) kind: Arc<dyn Kind>,
    channels: Arc<[Channel]>,
}

impl PartialEq for DriverBinding {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.kind.place() == other.kind.place() && self.channels == other.channels
    }
}

impl DriverBinding {
    fn new(name: &'static str, kind: impl Kind + 'static) -> Self {
        let channels = kind.channels().into();
        Self { name, kind: Arc::new(kind), channels }
    }

    pub(crate) fn read(section: &mut Section<'_>) -> Option<Self> {
        let read = section.require("driver", |text| {
            DRIVERS.iter().find(|(name, _)| *name == text).map(|(_, read)| *read).ok_or_else(|| {
                let names: Vec<_> = DRIVERS.iter().map(|(name, _)| format!("`{name}`")).collect();
                format!("`{text}` is not one of {}", names.join(", "))
            })
        });
        match read {
            Some(read) => read(section),
            // Asked for, so that what belongs to any driver is not called unknown as well.
            None => {
                let _ = (section.parse("bus", device_name), section.integer("address", 0..=0x7f));
                None
            }
        }
    }

    /// The names of its channels.
    pub fn channels(&self) -> impl Iterator<Item = &str> {
        self.channels.iter().map(|channel| &*channel.name)
    }

    /// Its channels.
    pub(crate) fn all_channels(&self) -> &Arc<[Channel]> {
        &self.channels
    }

    /// Bus and address, if it is on an I2C bus.
    pub(crate) fn i2c(&self) -> Option<(String, u8)> {
        match self.kind.place() {
            Place::I2c { bus, address } => Some((bus, address)),
            _ => None,
        }
    }
}

/// Bus and address of a chip: the address is one of a few, the first of them by default; or any, and must be given.
fn read_place(section: &mut Section<'_>, known: &[u8]) -> Option<(String, u8)> {
    let bus = section.require("bus", device_name);
    let address = match section.integer("address", 0x08..=0x77) {
        Some(address) => Some(address as u8),
        None => known.first().copied(),
    };
    match address {
        Some(address) if !known.is_empty() && !known.contains(&address) => {
            let known: Vec<_> = known.iter().map(|address| format!("{address:#04x}")).collect();
            section.problem("address", format_args!("this chip has one of {}", known.join(", ")));
            None
        }
        Some(address) => Some((bus?, address)),
        None => {
            section.problem("address", "must be given, 0x08 to 0x77");
            None
        }
    }
}

/// A channel's name, of the author's choice.
fn channel_name(text: &str) -> Result<Arc<str>, String> {
    holm_core::Label::new(text).map(|name| name.shared()).map_err(|error| error.to_string())
}
