//! A chip of registers as the configuration describes it: each field's register holds its quantity.

use crate::drivers::Field;
use crate::sim::{Chip, Moment, Nak, Signals};

pub(crate) struct Registers {
    signals: Signals,
    fields: Vec<Field>,
    pointer: u8,
}

impl Registers {
    pub(crate) fn new(fields: &[Field], signals: Signals) -> Self {
        Self { signals, fields: fields.to_vec(), pointer: 0 }
    }
}

impl Chip for Registers {
    fn write(&mut self, _: &Moment, bytes: &[u8]) -> Result<(), Nak> {
        self.pointer = bytes.first().copied().unwrap_or(self.pointer);
        Ok(())
    }

    fn read(&mut self, moment: &Moment, bytes: &mut [u8]) -> Result<(), Nak> {
        bytes.fill(0);
        for field in self.fields.iter().filter(|field| field.register == self.pointer) {
            let quantity = self.signals.at(&field.channel, moment.now);
            let number = ((quantity - field.offset) / field.scale).round();
            // Two's complement, cut to what the mask has room for.
            let raw = (number as i64 as u32) << field.shift & field.mask;
            let wide = raw.to_le_bytes();
            for (index, sent) in wide.iter().take(field.bytes).enumerate() {
                let at = if field.little { index } else { field.bytes - 1 - index };
                if let Some(byte) = bytes.get_mut(at) {
                    *byte |= sent;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::sim::chips::bench::read;

    #[test]
    fn fields_are_read_as_they_are_described() {
        let text = "[[sensor]]\nname = \"a\"\ndriver = \"register\"\nbus = \"i2c-1\"\naddress = 0x48\n\
                    setup = [\"01 60 a0\"]\n\
                    [[sensor.field]]\nchannel = \"temperature\"\nregister = 0\nbytes = 2\nmask = 0xfff0\nshift = 4\n\
                    signed = true\nscale = 0.0625\nunit = \"°C\"\n\
                    [[sensor.field]]\nchannel = \"limit\"\nregister = 3\nbytes = 2\nendian = \"little\"\n[sim]\n\
                    [[sim.signal]]\nsensor = \"a\"\nchannel = \"temperature\"\nwave = \"constant\"\nvalue = -12.25\n\
                    [[sim.signal]]\nsensor = \"a\"\nchannel = \"limit\"\nwave = \"constant\"\nvalue = 700\n";
        let values: Vec<f64> = read(text, 1).unwrap().iter().map(|sample| sample.value).collect();
        assert_eq!(values, [-12.25, 700.0]);
    }
}
