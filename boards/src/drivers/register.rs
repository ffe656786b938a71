//! A chip that is described in the configuration: numbers in registers behind one byte of address. For chips without a
//! driver of their own, and without a sequence to start them.
//!
//! ```toml
//! [[sensor]]
//! name = "pump"
//! driver = "register"
//! bus = "i2c-1"
//! address = 0x40
//! setup = ["00 39 9f"]          # bytes to write once
//! [[sensor.field]]
//! channel = "voltage"
//! register = 0x02
//! bytes = 2                     # 1 to 4
//! endian = "big"                # or "little"
//! signed = false
//! shift = 3                     # right, after `mask`
//! mask = 0xfff8
//! scale = 0.004
//! offset = 0
//! unit = "V"
//! min = 0                       # in the field's unit; beyond is suspect
//! max = 26
//! ```

use std::sync::Arc;

use embedded_hal::i2c::I2c as _;
use holm_core::Section;

use super::{Channel, Driver, DriverBinding, Kind, Place, Sample, Tools, channel_name, read_place};
use crate::BoardError;
use crate::bus::I2cHandle;
use crate::sim::{Model, Signals, chips};

/// One number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Field {
    pub(crate) channel: Arc<str>,
    pub(crate) register: u8,
    pub(crate) bytes: usize,
    pub(crate) little: bool,
    pub(crate) signed: bool,
    pub(crate) mask: u32,
    pub(crate) shift: u32,
    pub(crate) scale: f64,
    pub(crate) offset: f64,
    unit: Arc<str>,
    min: f64,
    max: f64,
}

#[derive(Debug)]
struct Binding {
    bus: String,
    address: u8,
    setup: Vec<Vec<u8>>,
    fields: Vec<Field>,
}

pub(super) fn read(section: &mut Section<'_>) -> Option<DriverBinding> {
    let place = read_place(section, &[]);
    let setup = section.texts("setup", hex);
    let tables = section.sections("field");
    if tables.is_empty() {
        section.problem("field", "needs at least one [[sensor.field]]");
    }
    let fields: Vec<Field> = tables.into_iter().filter_map(|mut table| field(&mut table)).collect();
    let (bus, address) = place?;
    (!fields.is_empty()).then(|| DriverBinding::new("register", Binding { bus, address, setup, fields }))
}

/// Bytes such as `00 39 9f`.
fn hex(text: &str) -> Result<Vec<u8>, String> {
    let bytes: Result<Vec<u8>, _> = text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16)).collect();
    match bytes {
        Ok(bytes) if (1..=32).contains(&bytes.len()) => Ok(bytes),
        _ => Err(format!("`{text}` is not one to 32 bytes such as `00 39 9f`")),
    }
}

fn field(section: &mut Section<'_>) -> Option<Field> {
    let channel = section.require("channel", channel_name);
    let register = section.integer("register", 0..=0xff);
    if register.is_none() {
        section.problem("register", "must be given");
    }
    let bytes = section.integer("bytes", 1..=4).unwrap_or(1) as usize;
    let all = u32::MAX >> (32 - 8 * bytes as u32);
    let shift = section.integer("shift", 0..=8 * bytes as u64 - 1).unwrap_or(0) as u32;
    let mask = section.integer("mask", 1..=u64::from(all)).unwrap_or(u64::from(all)) as u32;
    if mask >> shift == 0 {
        section.problem("shift", "leaves nothing of the mask");
    }
    Some(Field {
        channel: channel?,
        register: register? as u8,
        bytes,
        little: section.choice("endian", &[("big", false), ("little", true)]).unwrap_or(false),
        signed: section.boolean("signed").unwrap_or(false),
        mask,
        shift,
        scale: section.number("scale").unwrap_or(1.0),
        offset: section.number("offset").unwrap_or(0.0),
        unit: section.text("unit").unwrap_or_default().into(),
        min: section.number("min").unwrap_or(f64::NEG_INFINITY),
        max: section.number("max").unwrap_or(f64::INFINITY),
    })
}

impl Field {
    /// The number in the bytes of the register.
    fn value(&self, bytes: &[u8]) -> f64 {
        let join = |sum: u32, byte: &u8| sum << 8 | u32::from(*byte);
        let raw = if self.little { bytes.iter().rev().fold(0, join) } else { bytes.iter().fold(0, join) };
        let number = (raw & self.mask) >> self.shift;
        // The highest bit that the mask leaves is the sign's.
        let width = u32::BITS - (self.mask >> self.shift).leading_zeros();
        let negative = self.signed && width > 0 && number >> (width - 1) & 1 == 1;
        let number = if negative { f64::from(number) - 2f64.powi(width as i32) } else { f64::from(number) };
        number.mul_add(self.scale, self.offset)
    }
}

impl Kind for Binding {
    fn place(&self) -> Place {
        Place::I2c { bus: self.bus.clone(), address: self.address }
    }

    fn channels(&self) -> Vec<Channel> {
        let channel = |field: &Field| Channel {
            name: field.channel.clone(),
            unit: field.unit.clone(),
            min: field.min,
            max: field.max,
        };
        self.fields.iter().map(channel).collect()
    }

    fn open(&self, tools: &Tools<'_>) -> Result<Box<dyn Driver>, BoardError> {
        let mut i2c = tools.i2c()?;
        for bytes in &self.setup {
            i2c.write(self.address, bytes).map_err(|fault| fault.at(tools.sensor))?;
        }
        Ok(Box::new(Register {
            sensor: tools.sensor.to_owned(),
            i2c,
            address: self.address,
            fields: self.fields.clone(),
        }))
    }

    fn model(&self, signals: Signals) -> Model {
        Model::I2c(self.bus.clone(), self.address, Box::new(chips::Registers::new(&self.fields, signals)))
    }
}

struct Register {
    sensor: String,
    i2c: I2cHandle,
    address: u8,
    fields: Vec<Field>,
}

impl Driver for Register {
    fn read(&mut self, samples: &mut Vec<Sample>) -> Result<(), BoardError> {
        for field in &self.fields {
            let mut bytes = [0; 4];
            let bytes = bytes.get_mut(..field.bytes).unwrap_or_default();
            self.i2c.write_read(self.address, &[field.register], bytes).map_err(|fault| fault.at(&self.sensor))?;
            samples.push(Sample::good(field.value(bytes)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, bytes: &[u8], expected: f64) {
        let text = format!("channel = \"x\"\nregister = 0\n{text}");
        let (document, mut root) = holm_core::Document::parse("t", &text).unwrap();
        let field = field(&mut root).unwrap();
        drop(root);
        document.finish().unwrap();
        assert_eq!(field.value(bytes), expected, "{text} {bytes:02x?}");
    }

    #[test]
    fn numbers_are_found_in_registers() {
        check("", &[0x80], 128.0);
        check("signed = true", &[0x80], -128.0);
        check("bytes = 2", &[0x01, 0x02], 258.0);
        check("bytes = 2\nendian = \"little\"", &[0x01, 0x02], 513.0);
        check("bytes = 2\nsigned = true\nscale = 0.5\noffset = 1", &[0xff, 0xfe], 0.0);
        // TMP102, twelve bits at the left: its datasheet's examples in table 8-2.
        let tmp102 = "bytes = 2\nmask = 0xfff0\nshift = 4\nsigned = true\nscale = 0.0625";
        check(tmp102, &[0x7f, 0xf0], 127.9375);
        check(tmp102, &[0x19, 0x00], 25.0);
        check(tmp102, &[0xff, 0xc0], -0.25);
        check(tmp102, &[0xc9, 0x00], -55.0);
        check("bytes = 4\nsigned = true", &[0xff, 0xff, 0xff, 0xff], -1.0);
    }
}
