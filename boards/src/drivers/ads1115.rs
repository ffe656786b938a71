//! Texas Instruments ADS1115: four analogue inputs, alone or in pairs. By `ads1x1x`.
//!
//! ```toml
//! [[sensor.input]]
//! channel = "level"
//! pins = "a0"          # a0 to a3, or a0-a1, a0-a3, a1-a3, a2-a3
//! range = 4.096        # volts, either way: 6.144, 4.096, 2.048, 1.024, 0.512, 0.256
//! unit = "cm"          # by default V
//! scale = 50           # unit per volt
//! ```

use std::sync::Arc;
use std::time::Duration;

use ads1x1x::{Ads1x1x, DataRate16Bit, Error, FullScaleRange, TargetAddr, channel, ic, mode};
use holm_core::Section;

use super::{Channel, Driver, DriverBinding, Kind, Place, Sample, Tools, channel_name, read_place};
use crate::bus::I2cHandle;
use crate::sim::{Model, Signals, chips};
use crate::{BoardError, BusFault};

/// One conversion at 128 per second, with the 10 % by which the chip's clock may be wrong (datasheet, section 7.5).
const CONVERSION: Duration = Duration::from_micros(8_600);

/// How often a chip that takes longer is asked again.
const PATIENCE: u32 = 4;

/// What an input is measured between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pins {
    A0,
    A1,
    A2,
    A3,
    A0A1,
    A0A3,
    A1A3,
    A2A3,
}

const PINS: [(&str, Pins); 8] = [
    ("a0", Pins::A0),
    ("a1", Pins::A1),
    ("a2", Pins::A2),
    ("a3", Pins::A3),
    ("a0-a1", Pins::A0A1),
    ("a0-a3", Pins::A0A3),
    ("a1-a3", Pins::A1A3),
    ("a2-a3", Pins::A2A3),
];

const RANGES: [(f64, FullScaleRange); 6] = [
    (6.144, FullScaleRange::Within6_144V),
    (4.096, FullScaleRange::Within4_096V),
    (2.048, FullScaleRange::Within2_048V),
    (1.024, FullScaleRange::Within1_024V),
    (0.512, FullScaleRange::Within0_512V),
    (0.256, FullScaleRange::Within0_256V),
];

/// One input.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub(crate) channel: Arc<str>,
    pub(crate) pins: Pins,
    volts: f64,
    range: FullScaleRange,
    unit: Arc<str>,
    pub(crate) scale: f64,
    pub(crate) offset: f64,
}

#[derive(Debug)]
struct Binding {
    bus: String,
    address: u8,
    inputs: Vec<Input>,
}

pub(super) fn read(section: &mut Section<'_>) -> Option<DriverBinding> {
    let place = read_place(section, &[0x48, 0x49, 0x4a, 0x4b]);
    let tables = section.sections("input");
    if tables.is_empty() {
        section.problem("input", "needs at least one [[sensor.input]]");
    }
    let inputs: Vec<Input> = tables.into_iter().filter_map(|mut table| input(&mut table)).collect();
    let (bus, address) = place?;
    (!inputs.is_empty()).then(|| DriverBinding::new("ads1115", Binding { bus, address, inputs }))
}

fn input(section: &mut Section<'_>) -> Option<Input> {
    let channel = section.require("channel", channel_name);
    let pins = section.choice("pins", &PINS);
    if pins.is_none() {
        section.problem("pins", "must be given");
    }
    let volts = section.number("range").unwrap_or(4.096);
    let range = RANGES.iter().find(|(known, _)| *known == volts).map(|(_, range)| *range);
    if range.is_none() {
        let known: Vec<_> = RANGES.iter().map(|(volts, _)| volts.to_string()).collect();
        section.problem("range", format_args!("{volts} is not one of {}", known.join(", ")));
    }
    let unit = section.text("unit").unwrap_or_else(|| "V".to_owned()).into();
    let scale = section.number("scale").unwrap_or(1.0);
    let offset = section.number("offset").unwrap_or(0.0);
    Some(Input { channel: channel?, pins: pins?, volts, range: range?, unit, scale, offset })
}

impl Kind for Binding {
    fn place(&self) -> Place {
        Place::I2c { bus: self.bus.clone(), address: self.address }
    }

    fn channels(&self) -> Vec<Channel> {
        let channel = |input: &Input| Channel {
            name: input.channel.clone(),
            unit: input.unit.clone(),
            min: f64::NEG_INFINITY,
            max: f64::INFINITY,
        };
        self.inputs.iter().map(channel).collect()
    }

    fn open(&self, tools: &Tools<'_>) -> Result<Box<dyn Driver>, BoardError> {
        let failed = |error: Error<BusFault>| unpack(error, tools.sensor);
        let i2c = tools.i2c()?;
        let clock = i2c.clock.clone();
        let address = match self.address {
            0x49 => TargetAddr::Vdd,
            0x4a => TargetAddr::Sda,
            0x4b => TargetAddr::Scl,
            _ => TargetAddr::Gnd,
        };
        let mut chip = Ads1x1x::new_ads1115(i2c, address);
        chip.set_data_rate(DataRate16Bit::Sps128).map_err(failed)?;
        Ok(Box::new(Ads1115 { sensor: tools.sensor.to_owned(), chip, clock, inputs: self.inputs.clone() }))
    }

    fn model(&self, signals: Signals) -> Model {
        Model::I2c(self.bus.clone(), self.address, Box::new(chips::Ads1115::new(&self.inputs, signals)))
    }
}

struct Ads1115 {
    sensor: String,
    chip: Ads1x1x<I2cHandle, ic::Ads1115, ic::Resolution16Bit, mode::OneShot>,
    clock: crate::Clock,
    inputs: Vec<Input>,
}

impl Driver for Ads1115 {
    fn read(&mut self, samples: &mut Vec<Sample>) -> Result<(), BoardError> {
        for input in &self.inputs {
            self.chip.set_full_scale_range(input.range).map_err(|error| unpack(error, &self.sensor))?;
            let mut tries = 0;
            let code = loop {
                let answer = match input.pins {
                    Pins::A0 => self.chip.read(channel::SingleA0),
                    Pins::A1 => self.chip.read(channel::SingleA1),
                    Pins::A2 => self.chip.read(channel::SingleA2),
                    Pins::A3 => self.chip.read(channel::SingleA3),
                    Pins::A0A1 => self.chip.read(channel::DifferentialA0A1),
                    Pins::A0A3 => self.chip.read(channel::DifferentialA0A3),
                    Pins::A1A3 => self.chip.read(channel::DifferentialA1A3),
                    Pins::A2A3 => self.chip.read(channel::DifferentialA2A3),
                };
                match answer {
                    Ok(code) => break code,
                    Err(nb::Error::WouldBlock) if tries <= PATIENCE => {
                        tries += 1;
                        self.clock.sleep(CONVERSION);
                    }
                    Err(nb::Error::WouldBlock) => return Err(BoardError::Timeout { what: self.sensor.clone() }),
                    Err(nb::Error::Other(error)) => return Err(unpack(error, &self.sensor)),
                }
            };
            let volts = f64::from(code) * input.volts / 32_768.0;
            // At either end the voltage is beyond the range.
            let suspect = code == i16::MAX || code == i16::MIN;
            samples.push(Sample { value: volts.mul_add(input.scale, input.offset), suspect });
        }
        Ok(())
    }
}

fn unpack(error: Error<BusFault>, sensor: &str) -> BoardError {
    match error {
        Error::I2C(fault) => fault.at(sensor),
        Error::InvalidInputData => {
            BoardError::Nonsense { what: sensor.to_owned(), reason: "the driver refused its own setting".into() }
        }
    }
}
