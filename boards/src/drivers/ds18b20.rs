//! Maxim DS18B20 on 1-wire, by the kernel's `w1_therm`: `/sys/bus/w1/devices/28-.../w1_slave`.
//!
//! Reading the file makes the kernel convert and wait, 750 ms at twelve bits. The file has the nine bytes that the chip
//! sent, twice, with the kernel's verdict on the checksum, which is checked again here.

use holm_core::Section;

use super::{Channel, Driver, DriverBinding, Kind, Place, Sample, Tools};
use crate::sim::{Model, Signals, chips};
use crate::{Board, BoardError};

use std::sync::Arc;

/// What the chip says before its first conversion, and after its supply failed during one (datasheet, figure 4).
const POWER_ON: i16 = 0x0550;

#[derive(Debug)]
struct Binding {
    id: String,
}

pub(super) fn read(section: &mut Section<'_>) -> Option<DriverBinding> {
    let id = section.require("id", |text| {
        let hex = |text: &str| text.len() == 12 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match text.strip_prefix("28-") {
            Some(rest) if hex(rest) => Ok(text.to_owned()),
            _ => Err(format!("`{text}` is not the id of a DS18B20: `28-` and twelve hexadecimal digits")),
        }
    })?;
    Some(DriverBinding::new("ds18b20", Binding { id }))
}

fn path(id: &str) -> String {
    format!("/sys/bus/w1/devices/{id}/w1_slave")
}

impl Kind for Binding {
    fn place(&self) -> Place {
        Place::OneWire
    }

    fn channels(&self) -> Vec<Channel> {
        vec![Channel::new("temperature", "°C", -55.0, 125.0)]
    }

    fn open(&self, tools: &Tools<'_>) -> Result<Box<dyn Driver>, BoardError> {
        let driver =
            Ds18b20 { sensor: tools.sensor.to_owned(), path: path(&self.id), board: tools.board.clone(), warm: false };
        Ok(Box::new(driver))
    }

    fn model(&self, signals: Signals) -> Model {
        Model::File(path(&self.id), Box::new(chips::Ds18b20::new(signals)))
    }
}

struct Ds18b20 {
    sensor: String,
    path: String,
    board: Arc<dyn Board>,
    /// Whether anything but the power-on value has been read.
    warm: bool,
}

impl Driver for Ds18b20 {
    fn read(&mut self, samples: &mut Vec<Sample>) -> Result<(), BoardError> {
        let text = self.board.read_attribute(&self.path).map_err(|error| match error {
            BoardError::File { .. } => BoardError::NoAnswer { what: self.sensor.clone() },
            other => other,
        })?;
        let nonsense = |reason: &str| BoardError::Nonsense { what: self.sensor.clone(), reason: reason.to_owned() };
        let line = text.lines().next().unwrap_or_default();
        let scratchpad = scratchpad(line).ok_or_else(|| nonsense("not the nine bytes of a scratchpad"))?;
        let [low, high, .., crc] = scratchpad;
        let data = scratchpad.split_last().map(|(_, data)| data).unwrap_or_default();
        // Nine zeros have a right checksum: nobody is there, and the wire is held low.
        if scratchpad == [0; 9] {
            return Err(BoardError::NoAnswer { what: self.sensor.clone() });
        }
        if !line.trim_end().ends_with("YES") || crc8(data) != crc {
            return Err(BoardError::Checksum { what: self.sensor.clone() });
        }
        let raw = i16::from_le_bytes([low, high]);
        let suspect = raw == POWER_ON && !self.warm;
        self.warm |= raw != POWER_ON;
        samples.push(Sample { value: f64::from(raw) / 16.0, suspect });
        Ok(())
    }
}

/// `50 05 4b 46 7f ff 0c 10 1c : crc=1c YES`.
fn scratchpad(line: &str) -> Option<[u8; 9]> {
    let (bytes, _) = line.split_once(':')?;
    let bytes: Option<Vec<u8>> = bytes.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}

/// Polynomial 0x31, beginning with 0, least significant bit first (Maxim's application note 27).
pub(crate) fn crc8(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0, |crc, byte| (0..8).fold(crc ^ byte, |crc, _| if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0x8c }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_application_notes() {
        // Application note 27, the example of a ROM code.
        assert_eq!(crc8(&[0x02, 0x1c, 0xb8, 0x01, 0x00, 0x00, 0x00]), 0xa2);
    }

    #[test]
    fn what_the_kernel_writes_is_read() {
        let line = "50 05 4b 46 7f ff 0c 10 1c : crc=1c YES";
        assert_eq!(scratchpad(line), Some([0x50, 0x05, 0x4b, 0x46, 0x7f, 0xff, 0x0c, 0x10, 0x1c]));
        for line in ["", "50 05", "50 05 4b 46 7f ff 0c 10 : crc=1c YES", "x : y"] {
            assert_eq!(scratchpad(line), None, "{line}");
        }
    }
}
