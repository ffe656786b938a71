//! Sensors that the kernel reads: the files of `w1_therm`, `thermal` and `hwmon`.

use std::fmt::Write as _;
use std::time::Duration;

use crate::drivers::w1_crc8;
use crate::sim::{File, Moment, Signals};

/// A DS18B20 (datasheet 19-7487, revision 6) at twelve bits, behind `w1_therm`.
pub(crate) struct Ds18b20 {
    signals: Signals,
}

impl Ds18b20 {
    pub(crate) fn new(signals: Signals) -> Self {
        Self { signals }
    }
}

/// Table 1: sixteenths of a degree.
fn sixteenths(temperature: f64) -> i16 {
    (temperature * 16.0).round().clamp(-880.0, 2000.0) as i16
}

impl File for Ds18b20 {
    fn text(&mut self, moment: &Moment) -> (String, Duration) {
        let takes = Duration::from_millis(750) * moment.slow;
        let raw = sixteenths(self.signals.only(moment.now + takes));
        let [low, high] = raw.to_le_bytes();
        let data = [low, high, 0x4b, 0x46, 0x7f, 0xff, 0x0c, 0x10];
        let crc = w1_crc8(&data);
        let mut sent = [low, high, 0x4b, 0x46, 0x7f, 0xff, 0x0c, 0x10, crc];
        if moment.damaged {
            sent[0] ^= 0x08;
        }
        let received = i16::from_le_bytes([sent[0], sent[1]]);
        let right = w1_crc8(sent.get(..8).unwrap_or_default()) == crc;
        let bytes = sent.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x} ");
            text
        });
        let verdict = if right { "YES" } else { "NO" };
        let thousandths = i32::from(received) * 1000 / 16;
        (format!("{bytes}: crc={crc:02x} {verdict}\n{bytes}t={thousandths}\n"), takes)
    }
}

/// A whole number, scaled.
pub(crate) struct Attribute {
    signals: Signals,
    scale: f64,
}

impl Attribute {
    pub(crate) fn new(signals: Signals, scale: f64) -> Self {
        Self { signals, scale }
    }
}

impl File for Attribute {
    fn text(&mut self, moment: &Moment) -> (String, Duration) {
        (format!("{}\n", (self.signals.only(moment.now) / self.scale).round()), Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BoardError;
    use crate::sim::chips::bench::{read, read_at};

    #[test]
    fn the_model_has_the_table_of_the_datasheet() {
        for (temperature, expected) in [
            (125.0, 0x07d0u16),
            (85.0, 0x0550),
            (25.0625, 0x0191),
            (10.125, 0x00a2),
            (0.5, 0x0008),
            (0.0, 0x0000),
            (-0.5, 0xfff8),
            (-10.125, 0xff5e),
            (-25.0625, 0xfe6f),
            (-55.0, 0xfc90),
        ] {
            assert_eq!(sixteenths(temperature) as u16, expected, "{temperature}");
        }
    }

    fn probe(value: f64, rest: &str) -> String {
        format!(
            "[[sensor]]\nname = \"a\"\ndriver = \"ds18b20\"\nid = \"28-000005e2fdc3\"\n[sim]\n[[sim.signal]]\n\
             sensor = \"a\"\nchannel = \"temperature\"\nwave = \"constant\"\nvalue = {value}\n{rest}"
        )
    }

    #[test]
    fn a_probe_is_read_and_takes_its_time() {
        let (samples, now) = read_at(&probe(-10.125, ""), 1, Duration::ZERO);
        assert_eq!(samples.unwrap()[0].value, -10.125);
        assert_eq!(now, Duration::from_millis(750));
        assert!(read(&probe(85.0, ""), 1).unwrap()[0].suspect, "what it says before its first conversion");
    }

    #[test]
    fn what_goes_wrong_has_its_own_name() {
        let fault = |kind: &str| probe(20.0, &format!("[[sim.fault]]\ntarget = \"a\"\nkind = \"{kind}\"\n"));
        assert_eq!(read(&fault("crc"), 1), Err(BoardError::Checksum { what: "a".into() }));
        assert_eq!(read(&fault("missing"), 1), Err(BoardError::NoAnswer { what: "a".into() }));
    }

    #[test]
    fn the_systems_own_sensors_are_found_by_name() {
        let signal = |channel: &str, value: f64| {
            format!(
                "[sim]\n[[sim.signal]]\nsensor = \"a\"\nchannel = \"{channel}\"\nwave = \"constant\"\nvalue = {value}\n"
            )
        };
        let thermal = "[[sensor]]\nname = \"a\"\ndriver = \"thermal\"\nzone = \"cpu-thermal\"\n";
        assert_eq!(read(&format!("{thermal}{}", signal("temperature", 51.5)), 1).unwrap()[0].value, 51.5);
        let hwmon = "[[sensor]]\nname = \"a\"\ndriver = \"hwmon\"\nchip = \"rpi_volt\"\ninput = \"in0\"\n";
        let value = read(&format!("{hwmon}{}", signal("voltage", 4.9)), 1).unwrap()[0].value;
        assert!((value - 4.9).abs() < 1e-9);
    }
}
