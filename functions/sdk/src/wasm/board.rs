//! The calls of the board.

use super::holm::function::{gpio, hardware, i2c as buses, sensors, spi as devices};
use crate::gpio::Level;
use crate::sensors::{Quality, Reading};
use crate::{Error, i2c as i2c_sdk, spi as spi_sdk};

/// What only another program could mend is for the dead letters; what another time could mend is worth another try.
fn failed(what: &str, error: hardware::Error) -> Error {
    match error {
        hardware::Error::Denied(what) => Error::Denied(what),
        hardware::Error::NotFound => Error::NotFound(what.to_owned()),
        hardware::Error::Invalid(words) => Error::Invalid(words),
        hardware::Error::NoAnswer => Error::Unavailable([what, " does not answer"].concat()),
        hardware::Error::Bus(words) => Error::Unavailable([what, ": ", &words].concat()),
        hardware::Error::Timeout => Error::Unavailable([what, " took too long"].concat()),
        hardware::Error::Unavailable(words) => Error::Unavailable(words),
    }
}

fn reading(reading: sensors::Reading) -> Reading {
    Reading {
        channel: reading.channel,
        value: reading.value,
        unit: reading.unit,
        time_ms: reading.time.seconds * 1000 + u64::from(reading.time.nanoseconds / 1_000_000),
        quality: match reading.quality {
            sensors::Quality::Good => Quality::Good,
            sensors::Quality::Stale => Quality::Stale,
            sensors::Quality::Suspect => Quality::Suspect,
            sensors::Quality::Simulated => Quality::Simulated,
        },
    }
}

pub(crate) fn sensor_names() -> Vec<String> {
    sensors::names()
}

pub(crate) fn sensor_read(sensor: &str) -> Result<Vec<Reading>, Error> {
    let readings = sensors::read(sensor).map_err(|error| failed(sensor, error))?;
    Ok(readings.into_iter().map(reading).collect())
}

pub(crate) fn sensor_latest(sensor: &str) -> Result<Vec<Reading>, Error> {
    let readings = sensors::latest(sensor).map_err(|error| failed(sensor, error))?;
    Ok(readings.into_iter().map(reading).collect())
}

pub(crate) fn gpio_get(line: &str) -> Result<Level, Error> {
    let level = gpio::get(line).map_err(|error| failed(line, error))?;
    Ok(match level {
        gpio::Level::Low => Level::Low,
        gpio::Level::High => Level::High,
    })
}

pub(crate) fn gpio_set(line: &str, level: Level) -> Result<(), Error> {
    let level = match level {
        Level::Low => gpio::Level::Low,
        Level::High => gpio::Level::High,
    };
    gpio::set(line, level).map_err(|error| failed(line, error))
}

pub(crate) fn i2c(bus: &str, address: u8, operations: Vec<i2c_sdk::Operation>) -> Result<Vec<Vec<u8>>, Error> {
    let wire = |operation| match operation {
        i2c_sdk::Operation::Read(length) => buses::Operation::Read(length),
        i2c_sdk::Operation::Write(bytes) => buses::Operation::Write(bytes),
    };
    let operations: Vec<_> = operations.into_iter().map(wire).collect();
    buses::transaction(bus, address.into(), &operations).map_err(|error| failed(bus, error))
}

pub(crate) fn spi(device: &str, operations: Vec<spi_sdk::Operation>) -> Result<Vec<Vec<u8>>, Error> {
    let wire = |operation| match operation {
        spi_sdk::Operation::Read(length) => devices::Operation::Read(length),
        spi_sdk::Operation::Write(bytes) => devices::Operation::Write(bytes),
        spi_sdk::Operation::Transfer(bytes) => devices::Operation::Transfer(bytes),
        spi_sdk::Operation::Delay(time) => devices::Operation::DelayNs(time),
    };
    let operations: Vec<_> = operations.into_iter().map(wire).collect();
    devices::transaction(device, &operations).map_err(|error| failed(device, error))
}
