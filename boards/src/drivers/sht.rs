//! Sensirion SHT3x and SHT4x: temperature and humidity. Our own: see the README for why.
//!
//! Single shots without clock stretching: command, wait, read two words with a checksum each (SHT4x datasheet sections
//! 4.4 to 4.6; SHT3x-DIS datasheet sections 4.3 and 4.12).

use std::time::Duration;

use embedded_hal::i2c::I2c as _;
use holm_core::Section;

use super::{Channel, Driver, DriverBinding, Kind, Place, Sample, Tools, read_place};
use crate::bus::I2cHandle;
use crate::sim::{Model, Signals, chips};
use crate::{BoardError, BusFault};

/// How often a chip that is not ready is asked again.
const PATIENCE: u32 = 4;

/// The two families differ in their commands and in the scale of the humidity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Sht3x,
    Sht4x,
}

impl Family {
    /// Measure with high repeatability.
    fn measure(self) -> &'static [u8] {
        match self {
            Self::Sht3x => &[0x24, 0x00],
            Self::Sht4x => &[0xfd],
        }
    }

    /// Stop what it does.
    fn reset(self) -> &'static [u8] {
        match self {
            Self::Sht3x => &[0x30, 0xa2],
            Self::Sht4x => &[0x94],
        }
    }

    /// The longest measurement: SHT3x table 4, SHT4x table 5.
    fn measurement(self) -> Duration {
        match self {
            Self::Sht3x => Duration::from_micros(15_500),
            Self::Sht4x => Duration::from_micros(8_300),
        }
    }

    fn humidity(self, word: u16) -> f64 {
        match self {
            Self::Sht3x => 100.0 * f64::from(word) / 65_535.0,
            Self::Sht4x => 125.0 * f64::from(word) / 65_535.0 - 6.0,
        }
    }
}

#[derive(Debug)]
struct Binding {
    bus: String,
    address: u8,
    family: Family,
}

pub(super) fn read_sht3x(section: &mut Section<'_>) -> Option<DriverBinding> {
    let (bus, address) = read_place(section, &[0x44, 0x45])?;
    Some(DriverBinding::new("sht3x", Binding { bus, address, family: Family::Sht3x }))
}

pub(super) fn read_sht4x(section: &mut Section<'_>) -> Option<DriverBinding> {
    let (bus, address) = read_place(section, &[0x44, 0x45, 0x46])?;
    Some(DriverBinding::new("sht4x", Binding { bus, address, family: Family::Sht4x }))
}

impl Kind for Binding {
    fn place(&self) -> Place {
        Place::I2c { bus: self.bus.clone(), address: self.address }
    }

    fn channels(&self) -> Vec<Channel> {
        vec![Channel::new("temperature", "°C", -40.0, 125.0), Channel::new("humidity", "%", 0.0, 100.0)]
    }

    fn open(&self, tools: &Tools<'_>) -> Result<Box<dyn Driver>, BoardError> {
        let mut i2c = tools.i2c()?;
        i2c.write(self.address, self.family.reset()).map_err(|fault| fault.at(tools.sensor))?;
        // The longer of the two families' (SHT3x table 4: 1.5 ms).
        i2c.clock.sleep(Duration::from_micros(1_500));
        Ok(Box::new(Sht { sensor: tools.sensor.to_owned(), i2c, address: self.address, family: self.family }))
    }

    fn model(&self, signals: Signals) -> Model {
        Model::I2c(self.bus.clone(), self.address, Box::new(chips::Sht::new(self.family, signals)))
    }
}

struct Sht {
    sensor: String,
    i2c: I2cHandle,
    address: u8,
    family: Family,
}

impl Driver for Sht {
    fn read(&mut self, samples: &mut Vec<Sample>) -> Result<(), BoardError> {
        self.i2c.write(self.address, self.family.measure()).map_err(|fault| fault.at(&self.sensor))?;
        let mut answer = [0; 6];
        let mut tries = 0;
        loop {
            self.i2c.clock.sleep(self.family.measurement());
            match self.i2c.read(self.address, &mut answer) {
                Ok(()) => break,
                // It acknowledged the command, so it is there: it is not ready yet.
                Err(BusFault::NoAnswer) if tries < PATIENCE => tries += 1,
                Err(BusFault::NoAnswer) => return Err(BoardError::Timeout { what: self.sensor.clone() }),
                Err(fault) => return Err(fault.at(&self.sensor)),
            }
        }
        let [t0, t1, t_crc, h0, h1, h_crc] = answer;
        if crc8([t0, t1]) != t_crc || crc8([h0, h1]) != h_crc {
            return Err(BoardError::Checksum { what: self.sensor.clone() });
        }
        let (temperature, humidity) = (u16::from_be_bytes([t0, t1]), u16::from_be_bytes([h0, h1]));
        samples.push(Sample::good(-45.0 + 175.0 * f64::from(temperature) / 65_535.0));
        // The scale of the SHT4x goes beyond both ends on purpose; its datasheet says to cut it (section 4.6).
        let humidity = self.family.humidity(humidity);
        samples.push(Sample { value: humidity.clamp(0.0, 100.0), suspect: !(-2.0..=102.0).contains(&humidity) });
        Ok(())
    }
}

/// Polynomial 0x31, beginning with 0xff, most significant bit first (SHT4x datasheet, section 4.4).
pub(crate) fn crc8(word: [u8; 2]) -> u8 {
    word.iter().fold(0xff, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc, _| if crc & 0x80 == 0 { crc << 1 } else { crc << 1 ^ 0x31 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_datasheets() {
        assert_eq!(crc8([0xbe, 0xef]), 0x92);
    }
}
