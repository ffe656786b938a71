//! BME280 (datasheet BST-BME280-DS001, revision 1.6): calibration, control and data registers, forced and normal mode.
//!
//! The raw values are found by inverting the double-precision formulas of section 8.1, while the driver computes with
//! the integer formulas of section 4.2.3.

use std::time::Duration;

use crate::sim::{Chip, Moment, Nak, Signals};

/// How long it is deaf to nothing but busy with itself after power-on or reset (table 1).
const STARTUP: Duration = Duration::from_millis(2);

/// Calibration of temperature and pressure as in the worked example of the BMP280's datasheet (section 3.12), whose
/// formulas and chip are the same; of humidity as on a common chip, because no datasheet gives an example of it.
const T: [i32; 3] = [27_504, 26_435, -1_000];
const P: [i32; 9] = [36_477, -10_685, 3_024, 2_855, 140, -7, 15_500, -14_600, 6_000];
const H: [i32; 6] = [75, 370, 0, 315, 50, 30];

pub(crate) struct Bme280 {
    signals: Signals,
    registers: [u8; 256],
    pointer: u8,
    /// What `ctrl_hum` was when `ctrl_meas` was last written: it counts only then (section 5.4.3).
    humidity: u8,
    ready: Duration,
    measuring: Option<Duration>,
    #[cfg(test)]
    raw: Option<(u32, u32, u32)>,
}

impl Bme280 {
    pub(crate) fn new(signals: Signals) -> Self {
        let mut chip = Self {
            signals,
            registers: [0; 256],
            pointer: 0,
            humidity: 0,
            ready: STARTUP,
            measuring: None,
            #[cfg(test)]
            raw: None,
        };
        chip.reset();
        chip
    }

    fn reset(&mut self) {
        self.registers = [0; 256];
        self.set(0xd0, &[0x60]);
        for (index, word) in T.iter().chain(&P).enumerate() {
            self.set(0x88 + 2 * index as u8, &(*word as u16).to_le_bytes());
        }
        let [h1, h2, h3, h4, h5, h6] = H;
        self.set(0xa1, &[h1 as u8]);
        let [low, high] = (h2 as u16).to_le_bytes();
        let middle = (h4 & 0x0f) as u8 | ((h5 & 0x0f) << 4) as u8;
        self.set(0xe1, &[low, high, h3 as u8, (h4 >> 4) as u8, middle, (h5 >> 4) as u8, h6 as u8]);
        self.set(0xf7, &[0x80, 0, 0, 0x80, 0, 0, 0x80, 0]);
        (self.humidity, self.measuring) = (0, None);
    }

    fn set(&mut self, from: u8, bytes: &[u8]) {
        for (register, byte) in self.registers.iter_mut().skip(usize::from(from)).zip(bytes) {
            *register = *byte;
        }
    }

    fn get(&self, register: u8) -> u8 {
        self.registers.get(usize::from(register)).copied().unwrap_or_default()
    }

    /// The typical time of a measurement, appendix B.
    fn measurement(&self) -> Duration {
        let control = self.get(0xf4);
        let samples = |bits: u8| [0u64, 1, 2, 4, 8, 16, 16, 16].get(usize::from(bits & 7)).copied().unwrap_or(0);
        let (t, p, h) = (samples(control >> 5), samples(control >> 2), samples(self.humidity));
        let extra = |samples: u64| if samples > 0 { 2_000 * samples + 500 } else { 0 };
        Duration::from_micros(1_000 + 2_000 * t + extra(p) + extra(h))
    }

    /// Ends what is over.
    fn settle(&mut self, now: Duration) {
        let normal = self.get(0xf4) & 3 == 3;
        if let Some(done) = self.measuring.filter(|done| *done <= now) {
            self.latch(if normal { now } else { done });
            if !normal {
                self.measuring = None;
                let control = self.get(0xf4) & !3;
                self.set(0xf4, &[control]);
            }
        }
        let status = u8::from(now < self.ready) | u8::from(self.measuring.is_some_and(|done| now < done)) << 3;
        self.set(0xf3, &[status]);
    }

    fn latch(&mut self, at: Duration) {
        let control = self.get(0xf4);
        let (adc_t, adc_p, adc_h) = self.measure(at);
        let adc_t = if control >> 5 == 0 { 0x80000 } else { adc_t };
        let adc_p = if control >> 2 & 7 == 0 { 0x80000 } else { adc_p };
        let adc_h = if self.humidity & 7 == 0 { 0x8000 } else { adc_h };
        let twenty = |adc: u32| [(adc >> 12) as u8, (adc >> 4) as u8, (adc << 4) as u8];
        self.set(0xf7, &twenty(adc_p));
        self.set(0xfa, &twenty(adc_t));
        self.set(0xfd, &[(adc_h >> 8) as u8, adc_h as u8]);
    }

    fn measure(&mut self, at: Duration) -> (u32, u32, u32) {
        #[cfg(test)]
        if let Some(raw) = self.raw {
            return raw;
        }
        let temperature = self.signals.at("temperature", at);
        let (pressure, humidity) = (self.signals.at("pressure", at), self.signals.at("humidity", at));
        let adc_t = invert(1 << 20, |adc| temperature_of(adc).0 >= temperature);
        let fine = temperature_of(adc_t).1;
        let adc_p = invert(1 << 20, |adc| pressure_of(adc, fine) <= pressure);
        let adc_h = invert(1 << 16, |adc| humidity_of(adc, fine) >= humidity);
        (adc_t, adc_p, adc_h)
    }
}

impl Chip for Bme280 {
    fn write(&mut self, moment: &Moment, bytes: &[u8]) -> Result<(), Nak> {
        self.settle(moment.now);
        if let [register] = bytes {
            self.pointer = *register;
            return Ok(());
        }
        // Pairs of register and value (section 6.2.1).
        for pair in bytes.chunks_exact(2) {
            let [register, value] = pair else { continue };
            match register {
                0xe0 if *value == 0xb6 => {
                    self.reset();
                    self.ready = moment.now + STARTUP;
                }
                0xf4 => {
                    self.set(0xf4, &[*value]);
                    self.humidity = self.get(0xf2);
                    let sleeps = value & 3 == 0;
                    self.measuring = (!sleeps).then(|| moment.now + self.measurement() * moment.slow);
                }
                0xf2 | 0xf5 => self.set(*register, &[*value]),
                _ => {}
            }
        }
        Ok(())
    }

    fn read(&mut self, moment: &Moment, bytes: &mut [u8]) -> Result<(), Nak> {
        self.settle(moment.now);
        for byte in bytes {
            *byte = self.get(self.pointer);
            self.pointer = self.pointer.wrapping_add(1);
        }
        Ok(())
    }
}

/// The first raw value below `end` for which something holds that holds from there on.
fn invert(end: u32, holds: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (0, end - 1);
    while low < high {
        let middle = u32::midpoint(low, high);
        if holds(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

/// Degrees and `t_fine`.
fn temperature_of(adc: u32) -> (f64, f64) {
    let [t1, t2, t3] = T.map(f64::from);
    let adc = f64::from(adc);
    let var1 = (adc / 16_384.0 - t1 / 1_024.0) * t2;
    let var2 = (adc / 131_072.0 - t1 / 8_192.0).powi(2) * t3;
    ((var1 + var2) / 5_120.0, (var1 + var2).trunc())
}

/// Pascal.
fn pressure_of(adc: u32, fine: f64) -> f64 {
    let [p1, p2, p3, p4, p5, p6, p7, p8, p9] = P.map(f64::from);
    let var1 = fine / 2.0 - 64_000.0;
    let var2 = var1 * var1 * p6 / 32_768.0;
    let var2 = var2 + var1 * p5 * 2.0;
    let var2 = var2 / 4.0 + p4 * 65_536.0;
    let var1 = (p3 * var1 * var1 / 524_288.0 + p2 * var1) / 524_288.0;
    let var1 = (1.0 + var1 / 32_768.0) * p1;
    let p = (1_048_576.0 - f64::from(adc) - var2 / 4_096.0) * 6_250.0 / var1;
    let var1 = p9 * p * p / 2_147_483_648.0;
    let var2 = p * p8 / 32_768.0;
    p + (var1 + var2 + p7) / 16.0
}

/// Percent, not cut.
fn humidity_of(adc: u32, fine: f64) -> f64 {
    let [h1, h2, h3, h4, h5, h6] = H.map(f64::from);
    let var = fine - 76_800.0;
    let var = (f64::from(adc) - (h4 * 64.0 + h5 / 16_384.0 * var))
        * (h2 / 65_536.0 * (1.0 + h6 / 67_108_864.0 * var * (1.0 + h3 / 67_108_864.0 * var)));
    var * (1.0 - h1 * var / 524_288.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::chips::bench::{read, read_at};

    const SENSOR: &str = "[[sensor]]\nname = \"a\"\ndriver = \"bme280\"\nbus = \"i2c-1\"\n[sim]\n";

    #[test]
    fn the_model_has_the_values_of_the_worked_example() {
        // BMP280 datasheet, section 3.12: 519888 and 415148 are 25.08 °C and 100653.27 Pa.
        let (temperature, fine) = temperature_of(519_888);
        assert!((temperature - 25.08).abs() < 0.005, "{temperature}");
        assert_eq!(fine, 128_422.0);
        let pressure = pressure_of(415_148, fine);
        assert!((pressure - 100_653.27).abs() < 0.05, "{pressure}");
    }

    #[test]
    fn the_driver_has_the_values_of_the_worked_example() {
        use bme280_multibus::{Address, CtrlMeas, Mode, Oversampling, Settings};
        use embedded_hal::i2c::{ErrorType, I2c, Operation};

        struct Wire(Bme280, Duration);
        impl ErrorType for Wire {
            type Error = crate::BusFault;
        }
        impl I2c for Wire {
            fn transaction(&mut self, _: u8, operations: &mut [Operation<'_>]) -> Result<(), crate::BusFault> {
                self.1 += Duration::from_millis(20);
                let moment = Moment { now: self.1, slow: 1, damaged: false };
                for operation in operations {
                    match operation {
                        Operation::Write(bytes) => self.0.write(&moment, bytes),
                        Operation::Read(bytes) => self.0.read(&moment, bytes),
                    }
                    .unwrap();
                }
                Ok(())
            }
        }
        let mut model = Bme280::new(Signals::constant(&[]));
        model.raw = Some((519_888, 415_148, 30_000));
        let wire = Wire(model, Duration::ZERO);
        let mut chip = bme280_multibus::Bme280::from_i2c1(wire, Address::SdoGnd).unwrap();
        let ctrl_meas =
            CtrlMeas::RESET.set_osrs_t(Oversampling::X1).set_osrs_p(Oversampling::X1).set_mode(Mode::Forced);
        chip.settings(&Settings { ctrl_meas, ctrl_hum: Oversampling::X1, ..Settings::default() }).unwrap();
        let sample = chip.sample().unwrap();
        assert_eq!(sample.temperature, 25.08);
        assert!((f64::from(sample.pressure) - 100_653.27).abs() < 0.05, "{}", sample.pressure);
        // No example of humidity: the two formulas of the datasheet agree.
        let expected = humidity_of(30_000, 128_422.0);
        assert!((f64::from(sample.humidity) - expected).abs() < 0.05, "{} {expected}", sample.humidity);
    }

    #[test]
    fn what_the_world_is_like_is_what_the_driver_reads() {
        let mut script = String::new();
        for (channel, value) in [("temperature", -12.5), ("pressure", 87_654.0), ("humidity", 63.2)] {
            script += &format!(
                "[[sim.signal]]\nsensor = \"a\"\nchannel = \"{channel}\"\nwave = \"constant\"\nvalue = {value}\n"
            );
        }
        let samples = read(&format!("{SENSOR}{script}"), 2).unwrap();
        let values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
        for (value, (expected, within)) in values.iter().zip([(-12.5, 0.01), (87_654.0, 3.0), (63.2, 0.1)]) {
            assert!((value - expected).abs() < within, "{value} is not {expected}");
        }
    }

    #[test]
    fn what_goes_wrong_has_its_own_name() {
        use crate::BoardError;
        let fault = |kind: &str| format!("{SENSOR}[[sim.fault]]\ntarget = \"a\"\nkind = \"{kind}\"\n");
        let what = || "a".to_owned();
        let check = |kind: &str, expected: BoardError| assert_eq!(read(&fault(kind), 1), Err(expected), "{kind}");
        check("missing", BoardError::NoAnswer { what: what() });
        check("nak", BoardError::NoAnswer { what: what() });
        check("stuck", BoardError::Bus { what: what(), reason: crate::BusFault::Stuck });
        // Without a checksum a wrong bit shows only in the chip's id.
        check("crc", BoardError::WrongChip { what: what(), reason: "chip id 0x68 and not 0x60".into() });
        // Ten times as long is within the driver's patience.
        let (result, now) = read_at(&fault("slow"), 1, Duration::ZERO);
        assert!(result.is_ok() && now > Duration::from_millis(80), "{now:?}");
    }
}
