//! A board for tests: sensors that say what they were told to, lines that remember, chips that are functions.

use std::collections::BTreeMap;

use super::{CURRENT, TestHost};
use crate::gpio::Level;
use crate::sensors::Reading;
use crate::{Error, i2c as i2c_sdk, spi as spi_sdk};

type Chip = fn(&[i2c_sdk::Operation]) -> Result<Vec<Vec<u8>>, Error>;
type Device = fn(&[spi_sdk::Operation]) -> Result<Vec<Vec<u8>>, Error>;

#[derive(Debug, Clone, Default)]
pub(super) struct TestBoard {
    sensors: BTreeMap<String, Vec<Reading>>,
    lines: BTreeMap<String, Level>,
    driven: Vec<(String, Level)>,
    chips: BTreeMap<(String, u8), Chip>,
    devices: BTreeMap<String, Device>,
}

impl TestHost {
    /// With a sensor that says this.
    pub fn with_sensor(mut self, name: &str, readings: Vec<Reading>) -> Self {
        self.board.sensors.insert(name.to_owned(), readings);
        self
    }

    /// With a line at this level, in or out.
    pub fn with_line(mut self, name: &str, level: impl Into<Level>) -> Self {
        self.board.lines.insert(name.to_owned(), level.into());
        self
    }

    /// With a chip on an I2C bus.
    pub fn with_i2c(mut self, bus: &str, address: u8, chip: Chip) -> Self {
        self.board.chips.insert((bus.to_owned(), address), chip);
        self
    }

    /// With an SPI device.
    pub fn with_spi(mut self, name: &str, device: Device) -> Self {
        self.board.devices.insert(name.to_owned(), device);
        self
    }

    /// What a line is at.
    pub fn line(&self, name: &str) -> Option<Level> {
        self.board.lines.get(name).copied()
    }

    /// What outputs were driven to in all runs, in order: those of runs that failed too, because nothing undoes them.
    pub fn driven(&self) -> &[(String, Level)] {
        &self.board.driven
    }
}

fn missing(what: &str, name: &str) -> Error {
    Error::NotFound(format!("{what} {name}"))
}

pub(crate) fn sensor_names() -> Vec<String> {
    CURRENT.with_borrow(|host| host.board.sensors.keys().filter(|name| host.check(name).is_ok()).cloned().collect())
}

pub(crate) fn sensor_read(sensor: &str) -> Result<Vec<Reading>, Error> {
    CURRENT.with_borrow(|host| {
        host.check(sensor)?;
        host.board.sensors.get(sensor).cloned().ok_or_else(|| missing("sensor", sensor))
    })
}

pub(crate) fn sensor_latest(sensor: &str) -> Result<Vec<Reading>, Error> {
    sensor_read(sensor)
}

pub(crate) fn gpio_get(line: &str) -> Result<Level, Error> {
    CURRENT.with_borrow(|host| {
        host.check(line)?;
        host.line(line).ok_or_else(|| missing("line", line))
    })
}

pub(crate) fn gpio_set(line: &str, level: Level) -> Result<(), Error> {
    CURRENT.with_borrow_mut(|host| {
        host.check(line)?;
        let at = host.board.lines.get_mut(line).ok_or_else(|| missing("line", line))?;
        *at = level;
        host.board.driven.push((line.to_owned(), level));
        Ok(())
    })
}

pub(crate) fn i2c(bus: &str, address: u8, operations: Vec<i2c_sdk::Operation>) -> Result<Vec<Vec<u8>>, Error> {
    let chip = CURRENT.with_borrow(|host| {
        host.check(bus)?;
        let chip = host.board.chips.get(&(bus.to_owned(), address)).copied();
        chip.ok_or_else(|| Error::Unavailable(format!("{bus} does not answer")))
    });
    chip?(&operations)
}

pub(crate) fn spi(device: &str, operations: Vec<spi_sdk::Operation>) -> Result<Vec<Vec<u8>>, Error> {
    let found = CURRENT.with_borrow(|host| {
        host.check(device)?;
        host.board.devices.get(device).copied().ok_or_else(|| missing("SPI device", device))
    });
    found?(&operations)
}
