//! SHT3x (datasheet SHT3x-DIS, version 7) and SHT4x (version 6): commands, words with checksums, and silence while
//! they measure.

use std::time::Duration;

use crate::drivers::{Family, sht_crc8};
use crate::sim::{Chip, Moment, Nak, Signals};

pub(crate) struct Sht {
    family: Family,
    signals: Signals,
    /// When the measurement that was asked for is there.
    done: Option<Duration>,
}

impl Sht {
    pub(crate) fn new(family: Family, signals: Signals) -> Self {
        Self { family, signals, done: None }
    }
}

impl Chip for Sht {
    fn write(&mut self, moment: &Moment, bytes: &[u8]) -> Result<(), Nak> {
        // The typical times: SHT3x table 4, SHT4x table 5.
        let takes = match (self.family, bytes) {
            (Family::Sht3x, [0x24, 0x00]) => Some(Duration::from_micros(12_500)),
            (Family::Sht3x, [0x24, 0x0b]) => Some(Duration::from_micros(4_500)),
            (Family::Sht3x, [0x24, 0x16]) => Some(Duration::from_micros(2_500)),
            (Family::Sht4x, [0xfd]) => Some(Duration::from_micros(6_900)),
            (Family::Sht4x, [0xf6]) => Some(Duration::from_micros(3_700)),
            (Family::Sht4x, [0xe0]) => Some(Duration::from_micros(1_300)),
            (Family::Sht3x, [0x30, 0xa2]) | (Family::Sht4x, [0x94]) => None,
            _ => return Err(Nak),
        };
        self.done = takes.map(|takes| moment.now + takes * moment.slow);
        Ok(())
    }

    fn read(&mut self, moment: &Moment, bytes: &mut [u8]) -> Result<(), Nak> {
        let at = self.done.filter(|done| *done <= moment.now).ok_or(Nak)?;
        self.done = None;
        let word = |share: f64| ((share * 65_535.0).round().clamp(0.0, 65_535.0) as u16).to_be_bytes();
        let temperature = word((self.signals.at("temperature", at) + 45.0) / 175.0);
        let humidity = self.signals.at("humidity", at);
        let humidity = word(match self.family {
            Family::Sht3x => humidity / 100.0,
            Family::Sht4x => (humidity + 6.0) / 125.0,
        });
        let [t0, t1] = temperature;
        let [h0, h1] = humidity;
        let answer = [t0, t1, sht_crc8(temperature), h0, h1, sht_crc8(humidity)];
        for (byte, sent) in bytes.iter_mut().zip(answer) {
            *byte = sent;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::sim::chips::bench::{read, read_at};
    use crate::{BoardError, BusFault};
    use std::time::Duration;

    fn sensor(driver: &str, rest: &str) -> String {
        let signal = |channel: &str, value: f64| {
            format!("[[sim.signal]]\nsensor = \"a\"\nchannel = \"{channel}\"\nwave = \"constant\"\nvalue = {value}\n")
        };
        let signals = signal("temperature", 23.7) + &signal("humidity", 41.5);
        format!("[[sensor]]\nname = \"a\"\ndriver = \"{driver}\"\nbus = \"i2c-1\"\n[sim]\n{signals}{rest}")
    }

    #[test]
    fn both_families_are_read() {
        for driver in ["sht3x", "sht4x"] {
            let samples = read(&sensor(driver, ""), 3).unwrap();
            assert!((samples[0].value - 23.7).abs() < 0.002, "{samples:?}");
            assert!((samples[1].value - 41.5).abs() < 0.002, "{samples:?}");
            assert!(samples.iter().all(|sample| !sample.suspect));
        }
    }

    #[test]
    fn what_goes_wrong_has_its_own_name() {
        let what = || "a".to_owned();
        let fault = |kind: &str| sensor("sht4x", &format!("[[sim.fault]]\ntarget = \"a\"\nkind = \"{kind}\"\n"));
        assert_eq!(read(&fault("crc"), 1), Err(BoardError::Checksum { what: what() }));
        assert_eq!(read(&fault("missing"), 1), Err(BoardError::NoAnswer { what: what() }));
        assert_eq!(read(&fault("stuck"), 1), Err(BoardError::Bus { what: what(), reason: BusFault::Stuck }));
        assert_eq!(read(&fault("slow"), 1), Err(BoardError::Timeout { what: what() }));
        // It is over after a second.
        let passing = sensor("sht4x", "[[sim.fault]]\ntarget = \"a\"\nkind = \"crc\"\nto = \"1s\"\n");
        assert!(read_at(&passing, 1, Duration::from_secs(1)).0.is_ok());
    }
}
