//! Rohm BH1750FVI: light. Our own: see the README for why.
//!
//! One measurement in high resolution mode (BH1750FVI technical note, pages 5 to 7); the chip powers down by itself
//! after it. It says neither what it is nor when it is ready, and has no checksum: what it sends is believed.

use std::time::Duration;

use embedded_hal::i2c::I2c as _;
use holm_core::Section;

use super::{Channel, Driver, DriverBinding, Kind, Place, Sample, Tools, read_place};
use crate::BoardError;
use crate::bus::I2cHandle;
use crate::sim::{Model, Signals, chips};

const POWER_ON: u8 = 0x01;
const ONCE_HIGH_RESOLUTION: u8 = 0x20;

/// The longest measurement (page 2).
const MEASUREMENT: Duration = Duration::from_millis(180);

/// Counts per lux (page 7).
const COUNTS_PER_LUX: f64 = 1.2;

#[derive(Debug)]
struct Binding {
    bus: String,
    address: u8,
}

pub(super) fn read(section: &mut Section<'_>) -> Option<DriverBinding> {
    let (bus, address) = read_place(section, &[0x23, 0x5c])?;
    Some(DriverBinding::new("bh1750", Binding { bus, address }))
}

impl Kind for Binding {
    fn place(&self) -> Place {
        Place::I2c { bus: self.bus.clone(), address: self.address }
    }

    fn channels(&self) -> Vec<Channel> {
        vec![Channel::new("illuminance", "lx", 0.0, 54_612.0)]
    }

    fn open(&self, tools: &Tools<'_>) -> Result<Box<dyn Driver>, BoardError> {
        let mut i2c = tools.i2c()?;
        i2c.write(self.address, &[POWER_ON]).map_err(|fault| fault.at(tools.sensor))?;
        Ok(Box::new(Bh1750 { sensor: tools.sensor.to_owned(), i2c, address: self.address }))
    }

    fn model(&self, signals: Signals) -> Model {
        Model::I2c(self.bus.clone(), self.address, Box::new(chips::Bh1750::new(signals)))
    }
}

struct Bh1750 {
    sensor: String,
    i2c: I2cHandle,
    address: u8,
}

impl Driver for Bh1750 {
    fn read(&mut self, samples: &mut Vec<Sample>) -> Result<(), BoardError> {
        self.i2c.write(self.address, &[ONCE_HIGH_RESOLUTION]).map_err(|fault| fault.at(&self.sensor))?;
        self.i2c.clock.sleep(MEASUREMENT);
        let mut answer = [0; 2];
        self.i2c.read(self.address, &mut answer).map_err(|fault| fault.at(&self.sensor))?;
        let counts = u16::from_be_bytes(answer);
        samples.push(Sample { value: f64::from(counts) / COUNTS_PER_LUX, suspect: counts == u16::MAX });
        Ok(())
    }
}
