//! Bosch BME280: temperature, pressure, humidity. By `bme280-multibus`.
//!
//! Forced mode: the chip measures when it is asked, and sleeps otherwise, which is what Bosch recommends for weather
//! (datasheet 1.6, section 3.5.1) and keeps it from warming itself.

use std::time::Duration;

use bme280_multibus::{CHIP_ID, CtrlMeas, Error, Mode, Oversampling, Settings, i2c1};
use embedded_hal::i2c::I2c as _;
use holm_core::Section;

use super::{Channel, Driver, DriverBinding, Kind, Place, Sample, Tools, read_place};
use crate::bus::I2cHandle;
use crate::sim::{Model, Signals, chips};
use crate::{BoardError, BusFault};

/// The longest a measurement with one sample of each takes: 1.25 + 2.3 + (2.3 + 0.575) + (2.3 + 0.575) ms, appendix B.
const MEASUREMENT: Duration = Duration::from_micros(9_300);

/// How often a chip that takes longer is asked again before it is given up.
const PATIENCE: u32 = 10;

/// After a reset the chip loads its calibration (table 1: 2 ms).
const STARTUP: Duration = Duration::from_millis(2);

#[derive(Debug)]
struct Binding {
    bus: String,
    address: u8,
}

pub(super) fn read(section: &mut Section<'_>) -> Option<DriverBinding> {
    let (bus, address) = read_place(section, &[0x76, 0x77])?;
    Some(DriverBinding::new("bme280", Binding { bus, address }))
}

impl Kind for Binding {
    fn place(&self) -> Place {
        Place::I2c { bus: self.bus.clone(), address: self.address }
    }

    fn channels(&self) -> Vec<Channel> {
        vec![
            Channel::new("temperature", "°C", -40.0, 85.0),
            Channel::new("pressure", "Pa", 30_000.0, 110_000.0),
            Channel::new("humidity", "%", 0.0, 100.0),
        ]
    }

    fn open(&self, tools: &Tools<'_>) -> Result<Box<dyn Driver>, BoardError> {
        let sensor = tools.sensor;
        let mut i2c = tools.i2c()?;
        let mut id = [0];
        i2c.write_read(self.address, &[0xd0], &mut id).map_err(|fault| fault.at(sensor))?;
        if id != [CHIP_ID] {
            let reason = format!("chip id {:#04x} and not {CHIP_ID:#04x}", id[0]);
            return Err(BoardError::WrongChip { what: sensor.to_owned(), reason });
        }
        // What the chip was doing before is unknown.
        i2c.write(self.address, &[0xe0, 0xb6]).map_err(|fault| fault.at(sensor))?;
        i2c.clock.sleep(STARTUP);
        let address = match self.address {
            0x77 => bme280_multibus::Address::SdoVddio,
            _ => bme280_multibus::Address::SdoGnd,
        };
        let clock = i2c.clock.clone();
        let mut chip = bme280_multibus::Bme280::from_i2c1(i2c, address).map_err(|fault| fault.at(sensor))?;
        for _ in 0..PATIENCE {
            if !chip.status().map_err(|fault: BusFault| fault.at(sensor))?.im_update() {
                return Ok(Box::new(Bme280 { sensor: sensor.to_owned(), chip, clock }));
            }
            clock.sleep(STARTUP);
        }
        Err(BoardError::Timeout { what: sensor.to_owned() })
    }

    fn model(&self, signals: Signals) -> Model {
        Model::I2c(self.bus.clone(), self.address, Box::new(chips::Bme280::new(signals)))
    }
}

struct Bme280 {
    sensor: String,
    chip: bme280_multibus::Bme280<i2c1::Bme280Bus<I2cHandle>>,
    clock: crate::Clock,
}

/// One sample of each, no filter, once.
const FORCED: Settings = Settings {
    config: bme280_multibus::Config::RESET,
    ctrl_meas: CtrlMeas::RESET.set_osrs_t(Oversampling::X1).set_osrs_p(Oversampling::X1).set_mode(Mode::Forced),
    ctrl_hum: Oversampling::X1,
};

impl Driver for Bme280 {
    fn read(&mut self, samples: &mut Vec<Sample>) -> Result<(), BoardError> {
        let failed = |fault: BusFault| fault.at(&self.sensor);
        self.chip.settings(&FORCED).map_err(failed)?;
        let mut tries = 0;
        loop {
            self.clock.sleep(MEASUREMENT);
            if !self.chip.status().map_err(failed)?.measuring() {
                break;
            }
            tries += 1;
            if tries > PATIENCE {
                return Err(BoardError::Timeout { what: self.sensor.clone() });
            }
        }
        let sample = self.chip.sample().map_err(|error| match error {
            Error::Bus(fault) => fault.at(&self.sensor),
            Error::Sample => {
                BoardError::Nonsense { what: self.sensor.clone(), reason: "no measurement was made".into() }
            }
        })?;
        let values = [sample.temperature, sample.pressure, sample.humidity];
        // A chip that says exactly 0 or 100 % has run into its own end.
        let end = sample.humidity <= 0.0 || sample.humidity >= 100.0;
        samples.extend(values.map(|value| Sample::good(f64::from(value))));
        if let Some(humidity) = samples.last_mut() {
            humidity.suspect = end;
        }
        Ok(())
    }
}
