//! BH1750FVI (technical note 11046EDT01): opcodes, and one data register.

use std::time::Duration;

use crate::sim::{Chip, Moment, Nak, Signals};

pub(crate) struct Bh1750 {
    signals: Signals,
    powered: bool,
    data: u16,
    /// When the measurement that runs is there, whether in half lux, and whether the chip sleeps after it.
    measuring: Option<(Duration, bool, bool)>,
}

impl Bh1750 {
    pub(crate) fn new(signals: Signals) -> Self {
        Self { signals, powered: false, data: 0, measuring: None }
    }

    fn settle(&mut self, now: Duration) {
        if let Some((done, half, once)) = self.measuring.filter(|(done, ..)| *done <= now) {
            self.data = counts(self.signals.only(if once { done } else { now }), half);
            if once {
                (self.measuring, self.powered) = (None, false);
            }
        }
    }
}

/// Page 7: counts are 1.2 per lux, twice that in the second mode.
fn counts(lux: f64, half: bool) -> u16 {
    (lux * 1.2 * if half { 2.0 } else { 1.0 }).round().clamp(0.0, 65_535.0) as u16
}

impl Chip for Bh1750 {
    fn write(&mut self, moment: &Moment, bytes: &[u8]) -> Result<(), Nak> {
        self.settle(moment.now);
        let [opcode] = bytes else { return Err(Nak) };
        // Typical times: page 2.
        let start = |milliseconds: u64| moment.now + Duration::from_millis(milliseconds) * moment.slow;
        match opcode {
            0x00 => (self.powered, self.measuring) = (false, None),
            0x01 => self.powered = true,
            0x07 if self.powered => self.data = 0,
            0x10 | 0x20 => self.measuring = Some((start(120), false, *opcode == 0x20)),
            0x11 | 0x21 => self.measuring = Some((start(120), true, *opcode == 0x21)),
            0x13 | 0x23 => self.measuring = Some((start(16), false, *opcode == 0x23)),
            _ => {}
        }
        Ok(())
    }

    fn read(&mut self, moment: &Moment, bytes: &mut [u8]) -> Result<(), Nak> {
        self.settle(moment.now);
        for (byte, sent) in bytes.iter_mut().zip(self.data.to_be_bytes()) {
            *byte = sent;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::chips::bench::read;

    #[test]
    fn the_example_of_the_technical_note_is_read() {
        // Page 7: the bytes 83 90 are 28067 lx.
        assert_eq!(counts(28_067.0, false).to_be_bytes(), [0x83, 0x90]);
        let text = "[[sensor]]\nname = \"a\"\ndriver = \"bh1750\"\nbus = \"i2c-1\"\n[sim]\n[[sim.signal]]\n\
                    sensor = \"a\"\nchannel = \"illuminance\"\nwave = \"constant\"\nvalue = 28067\n";
        let samples = read(text, 2).unwrap();
        assert!((samples[0].value - 28_067.0).abs() < 0.5, "{samples:?}");
    }
}
