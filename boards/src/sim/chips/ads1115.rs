//! ADS1115 (datasheet SBAS444E): four registers, single conversions.

use std::time::Duration;

use crate::drivers::{Input, Pins};
use crate::sim::{Chip, Moment, Nak, Signals};

/// What is in the configuration register after power-on (table 8-3).
const RESET: u16 = 0x8583;

pub(crate) struct Ads1115 {
    signals: Signals,
    inputs: Vec<Input>,
    pointer: u8,
    config: u16,
    conversion: u16,
    thresholds: [u16; 2],
    done: Option<Duration>,
}

impl Ads1115 {
    pub(crate) fn new(inputs: &[Input], signals: Signals) -> Self {
        Self {
            signals,
            inputs: inputs.to_vec(),
            pointer: 0,
            config: RESET,
            conversion: 0,
            thresholds: [0x8000, 0x7fff],
            done: None,
        }
    }

    fn settle(&mut self, now: Duration) {
        if let Some(at) = self.done.filter(|done| *done <= now) {
            self.done = None;
            self.conversion = self.convert(at) as u16;
        }
    }

    /// What the converter makes of the voltage at its multiplexer (tables 8-3 and 7-1).
    fn convert(&mut self, at: Duration) -> i16 {
        let pins = match self.config >> 12 & 7 {
            0 => Pins::A0A1,
            1 => Pins::A0A3,
            2 => Pins::A1A3,
            3 => Pins::A2A3,
            4 => Pins::A0,
            5 => Pins::A1,
            6 => Pins::A2,
            _ => Pins::A3,
        };
        let range = match self.config >> 9 & 7 {
            0 => 6.144,
            1 => 4.096,
            2 => 2.048,
            3 => 1.024,
            4 => 0.512,
            _ => 0.256,
        };
        let signals = &mut self.signals;
        let input = self.inputs.iter().find(|input| input.pins == pins);
        let volts = input.map_or(0.0, |input| (signals.at(&input.channel, at) - input.offset) / input.scale);
        code(volts, range)
    }

    fn conversion_time(&self) -> Duration {
        let rate = match self.config >> 5 & 7 {
            0 => 8,
            1 => 16,
            2 => 32,
            3 => 64,
            4 => 128,
            5 => 250,
            6 => 475,
            _ => 860,
        };
        Duration::from_secs(1) / rate
    }
}

/// Table 7-1: full scale is 7fff, half of it with the sign of minus is c000.
fn code(volts: f64, range: f64) -> i16 {
    (volts / range * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16
}

impl Chip for Ads1115 {
    fn write(&mut self, moment: &Moment, bytes: &[u8]) -> Result<(), Nak> {
        self.settle(moment.now);
        let Some((pointer, rest)) = bytes.split_first() else { return Ok(()) };
        self.pointer = pointer & 3;
        let [high, low] = rest else { return Ok(()) };
        let word = u16::from_be_bytes([*high, *low]);
        match self.pointer {
            1 => {
                self.config = word & 0x7fff;
                let (single, start) = (word & 0x0100 != 0, word & 0x8000 != 0);
                if single && start {
                    self.done = Some(moment.now + self.conversion_time() * moment.slow);
                }
            }
            2 => self.thresholds[0] = word,
            3 => self.thresholds[1] = word,
            _ => {}
        }
        Ok(())
    }

    fn read(&mut self, moment: &Moment, bytes: &mut [u8]) -> Result<(), Nak> {
        self.settle(moment.now);
        let idle = if self.done.is_none() { 0x8000 } else { 0 };
        let word = match self.pointer {
            0 => self.conversion,
            1 => self.config | idle,
            2 => self.thresholds[0],
            _ => self.thresholds[1],
        };
        for (byte, sent) in bytes.iter_mut().zip(word.to_be_bytes()) {
            *byte = sent;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BoardError;
    use crate::sim::chips::bench::read;

    #[test]
    fn the_model_has_the_codes_of_the_datasheet() {
        // Table 7-3, input signal and ideal output code.
        let range = 2.048;
        for (volts, expected) in [
            (range, 0x7fffu16),
            (range * 32_767.0 / 32_768.0, 0x7fff),
            (range / 32_768.0, 0x0001),
            (0.0, 0x0000),
            (-range / 32_768.0, 0xffff),
            (-range, 0x8000),
            (-2.0 * range, 0x8000),
        ] {
            assert_eq!(code(volts, range) as u16, expected, "{volts}");
        }
    }

    fn sensor(inputs: &[(&str, &str, f64)], rest: &str) -> String {
        let mut text = "[[sensor]]\nname = \"a\"\ndriver = \"ads1115\"\nbus = \"i2c-1\"\n".to_owned();
        for (channel, more, _) in inputs {
            text += &format!("[[sensor.input]]\nchannel = \"{channel}\"\n{more}\n");
        }
        text += "[sim]\n";
        for (channel, _, value) in inputs {
            text += &format!(
                "[[sim.signal]]\nsensor = \"a\"\nchannel = \"{channel}\"\nwave = \"constant\"\nvalue = {value}\n"
            );
        }
        text + rest
    }

    #[test]
    fn inputs_are_read_one_after_the_other_each_in_its_range() {
        let text = sensor(
            &[
                ("supply", "pins = \"a0\"\nrange = 6.144", 4.987),
                ("level", "pins = \"a1\"\nunit = \"cm\"\nscale = 50", 61.0),
                ("bridge", "pins = \"a2-a3\"\nrange = 0.256", -0.031_25),
            ],
            "",
        );
        let samples = read(&text, 2).unwrap();
        for (sample, (expected, lsb)) in
            samples.iter().zip([(4.987, 187.5e-6), (61.0, 125e-6 * 50.0), (-0.031_25, 7.8125e-6)])
        {
            assert!((sample.value - expected).abs() <= lsb, "{} is not {expected}", sample.value);
            assert!(!sample.suspect);
        }
    }

    #[test]
    fn a_voltage_beyond_the_range_is_suspect() {
        let samples = read(&sensor(&[("x", "pins = \"a3\"\nrange = 1.024", 3.3)], ""), 1).unwrap();
        assert!(samples[0].suspect && (samples[0].value - 1.024).abs() < 1e-4, "{samples:?}");
    }

    #[test]
    fn a_slow_conversion_is_given_up() {
        let fault = "[[sim.fault]]\ntarget = \"a\"\nkind = \"slow\"\n";
        let read = read(&sensor(&[("x", "pins = \"a3\"", 1.0)], fault), 1);
        assert_eq!(read, Err(BoardError::Timeout { what: "a".into() }));
    }
}
