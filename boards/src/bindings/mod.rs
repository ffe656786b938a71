//! What the node's configuration binds: names for sensors, lines and devices, and the simulator's script.
//!
//! ```toml
//! [board]
//! profile = "rpi4"              # by default, what the device tree says
//!
//! [[sensor]]
//! name = "greenhouse"
//! driver = "bme280"
//! bus = "i2c-1"
//! address = 0x76
//! calibration.temperature = { offset = -0.8 }
//!
//! [[gpio]]
//! name = "door"
//! line = "GPIO17"
//! direction = "in"
//! pull = "up"
//! ```

mod line;
mod sensor;
mod sim;

use std::collections::BTreeSet;

use holm_core::{Label, Problem, Section};

pub use line::{Direction, LineBinding, Pull};
pub use sensor::{Calibration, SensorBinding};
pub use sim::{EdgeScript, FaultKind, FaultScript, SignalScript, SimScript, Wave};

/// Everything that is bound. Nothing at all is the usual case, and costs nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bindings {
    /// The profile's name or file. `None` is what fits the machine.
    pub profile: Option<String>,
    /// Whether the board's LED shows how the node is.
    pub led: bool,
    /// Whether the board's watchdog resets it when the node hangs.
    pub watchdog: bool,
    /// `[[sensor]]`.
    pub sensors: Vec<SensorBinding>,
    /// `[[gpio]]`.
    pub lines: Vec<LineBinding>,
    /// `[[i2c]]`: buses for functions that speak I2C themselves.
    pub i2c: Vec<I2cBinding>,
    /// `[[spi]]`: devices for functions that speak SPI themselves.
    pub spi: Vec<SpiBinding>,
    /// `[sim]`.
    pub sim: SimScript,
}

/// An I2C bus by a name that functions know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct I2cBinding {
    /// The name.
    pub name: Label,
    /// The bus, as the profile calls it.
    pub bus: String,
}

/// An SPI device by a name that functions know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpiBinding {
    /// The name.
    pub name: Label,
    /// `spidev0.0` and the like.
    pub device: String,
    /// Clock polarity and phase: 0 to 3.
    pub mode: u8,
    /// Hertz.
    pub speed: u32,
}

impl Bindings {
    /// Reads the sections `board`, `sensor`, `gpio`, `i2c`, `spi` and `sim` of `agent.toml`. Several files add up.
    pub fn apply(&mut self, root: &mut Section<'_>) {
        if let Some(mut board) = root.section("board") {
            self.profile = board.text("profile").or(self.profile.take());
            self.led = board.boolean("led").unwrap_or(self.led);
            self.watchdog = board.boolean("watchdog").unwrap_or(self.watchdog);
        }
        self.sensors.extend(root.sections("sensor").iter_mut().filter_map(SensorBinding::read));
        self.lines.extend(root.sections("gpio").iter_mut().filter_map(LineBinding::read));
        for mut section in root.sections("i2c") {
            let (name, bus) = (section.require("name", Label::new), section.require("bus", device_name));
            if let (Some(name), Some(bus)) = (name, bus) {
                self.i2c.push(I2cBinding { name, bus });
            }
        }
        for mut section in root.sections("spi") {
            let (name, device) = (section.require("name", Label::new), section.require("device", device_name));
            let mode = section.integer("mode", 0..=3).unwrap_or(0) as u8;
            let speed = section.integer("speed", 1_000..=125_000_000).unwrap_or(1_000_000) as u32;
            if let (Some(name), Some(device)) = (name, device) {
                self.spi.push(SpiBinding { name, device, mode, speed });
            }
        }
        if let Some(mut sim) = root.section("sim") {
            self.sim.apply(&mut sim);
        }
    }

    /// Whether the node needs no board at all.
    pub fn is_empty(&self) -> bool {
        let bound = self.sensors.len() + self.lines.len() + self.i2c.len() + self.spi.len();
        bound == 0 && !self.led && !self.watchdog
    }

    /// What is wrong between bindings that are right by themselves.
    pub fn contradictions(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut problem = |key: &str, message: String| {
            problems.push(Problem { line: 0, key: key.to_owned(), message });
        };
        let mut once = |key: &str, names: &mut dyn Iterator<Item = String>, what: &str| {
            let mut seen = BTreeSet::new();
            for name in names {
                if !seen.insert(name.clone()) {
                    problem(key, format!("{what} `{name}` twice"));
                }
            }
        };
        once("sensor.name", &mut self.sensors.iter().map(|sensor| sensor.name.to_string()), "names");
        once("sensor.address", &mut self.sensors.iter().filter_map(SensorBinding::place), "binds");
        once("gpio.name", &mut self.lines.iter().map(|line| line.name.to_string()), "names");
        once("gpio.line", &mut self.lines.iter().map(|line| line.line.clone()), "binds");
        let devices = self.i2c.iter().map(|bus| &bus.name).chain(self.spi.iter().map(|device| &device.name));
        once("i2c.name", &mut devices.map(Label::to_string), "names");
        for target in self.sim.targets() {
            let known = self.sensors.iter().any(|sensor| sensor.name.as_str() == target)
                || self.lines.iter().any(|line| line.name.as_str() == target);
            if !known {
                problem("sim", format!("there is no [[sensor]] and no [[gpio]] called `{target}`"));
            }
        }
        problems
    }
}

/// What may be part of a path under `/dev` or `/sys`: no slashes, and nothing that leads elsewhere.
pub(crate) fn device_name(text: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    if (1..=63).contains(&text.len()) && text.bytes().all(good) && !text.starts_with('.') {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not the name of a device: letters, digits, `-`, `_`, `.` and `:`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holm_core::Document;

    fn read(text: &str) -> Result<Bindings, Vec<String>> {
        let keys = |problems: Vec<Problem>| problems.into_iter().map(|problem| problem.key).collect::<Vec<_>>();
        let (document, mut root) = Document::parse("agent.toml", text).map_err(|found| keys(found.problems))?;
        let mut bindings = Bindings::default();
        bindings.apply(&mut root);
        drop(root);
        document.finish().map_err(|found| keys(found.problems))?;
        let contradictions = keys(bindings.contradictions());
        if contradictions.is_empty() { Ok(bindings) } else { Err(contradictions) }
    }

    fn check(text: &str, keys: &[&str]) {
        let mut found = read(text).err().unwrap_or_default();
        found.sort();
        assert_eq!(found, keys, "{text}");
    }

    #[test]
    fn every_kind_of_binding_is_read() {
        let bindings = read(
            r#"
            [board]
            profile = "rpi4"
            [[sensor]]
            name = "greenhouse"
            driver = "bme280"
            bus = "i2c-1"
            address = 0x76
            stale_after = "30s"
            calibration.temperature = { offset = -0.8, max = 60 }
            [[sensor]]
            name = "soil"
            driver = "sht4x"
            bus = "i2c-1"
            [[sensor]]
            name = "tank"
            driver = "ads1115"
            bus = "i2c-1"
            [[sensor.input]]
            channel = "level"
            pins = "a0"
            range = 4.096
            unit = "cm"
            scale = 50
            [[sensor]]
            name = "light"
            driver = "bh1750"
            bus = "i2c-1"
            [[sensor]]
            name = "co2"
            driver = "register"
            bus = "i2c-1"
            address = 0x61
            [[sensor.field]]
            channel = "co2"
            register = 4
            bytes = 2
            signed = true
            scale = 0.5
            unit = "ppm"
            [[sensor]]
            name = "probe"
            driver = "ds18b20"
            id = "28-000005e2fdc3"
            [[sensor]]
            name = "cpu"
            driver = "thermal"
            zone = "cpu-thermal"
            [[sensor]]
            name = "supply"
            driver = "hwmon"
            chip = "rpi_volt"
            input = "in0"
            [[gpio]]
            name = "door"
            line = "GPIO17"
            direction = "in"
            pull = "up"
            debounce = "5ms"
            [[gpio]]
            name = "pump"
            line = "GPIO27"
            direction = "out"
            safe = "high"
            active_low = true
            [[i2c]]
            name = "display"
            bus = "i2c-1"
            [[spi]]
            name = "radio"
            device = "spidev0.0"
            mode = 1
            speed = 500000
            [sim]
            seed = 7
            [[sim.signal]]
            sensor = "greenhouse"
            channel = "temperature"
            wave = "sine"
            mean = 20
            amplitude = 2
            period = "10m"
            [[sim.fault]]
            target = "soil"
            kind = "crc"
            from = "1s"
            to = "2s"
            [[sim.edge]]
            line = "door"
            every = "3s"
            "#,
        )
        .unwrap();
        assert_eq!((bindings.sensors.len(), bindings.lines.len()), (8, 2));
        assert!(!bindings.is_empty());
    }

    #[test]
    fn what_is_wrong_is_all_said() {
        check("", &[]);
        check(
            "[[sensor]]\nname = \"X\"\ndriver = \"bme281\"\nbus = \"/dev/i2c-1\"",
            &["sensor[0].bus", "sensor[0].driver", "sensor[0].name"],
        );
        check("[[sensor]]\nname = \"a\"\ndriver = \"bme280\"\nbus = \"i2c-1\"\naddress = 0x40", &["sensor[0].address"]);
        check("[[sensor]]\nname = \"a\"\ndriver = \"bme280\"\nbus = \"i2c-1\"\nzone = \"x\"", &["sensor[0].zone"]);
        check("[[sensor]]\nname = \"a\"\ndriver = \"ads1115\"\nbus = \"i2c-1\"", &["sensor[0].input"]);
        check(
            "[[sensor]]\nname = \"a\"\ndriver = \"register\"\nbus = \"i2c-1\"\naddress = 3",
            &["sensor[0].address", "sensor[0].address", "sensor[0].field"],
        );
        check("[[sensor]]\nname = \"a\"\ndriver = \"ds18b20\"\nid = \"../x\"", &["sensor[0].id"]);
        check("[[gpio]]\nname = \"a\"\nline = \"GPIO1\"", &["gpio[0].direction"]);
        check("[[gpio]]\nname = \"a\"\nline = \"GPIO1\"\ndirection = \"in\"\nsafe = \"low\"", &["gpio[0].direction"]);
        check(
            "[[gpio]]\nname = \"a\"\nline = \"GPIO1\"\ndirection = \"out\"\npull = \"up\"\nsafe = \"low\"",
            &["gpio[0].direction"],
        );
        check(
            "[[gpio]]\nname = \"a\"\nline = \"GPIO1\"\ndirection = \"out\"\nchip = \"c\"",
            &["gpio[0].offset", "gpio[0].safe"],
        );
        let twice = "[[gpio]]\nname = \"a\"\nline = \"GPIO1\"\ndirection = \"in\"\n";
        check(&twice.repeat(2), &["gpio.line", "gpio.name"]);
        let twice = "[[sensor]]\nname = \"a\"\ndriver = \"bme280\"\nbus = \"i2c-1\"\n";
        check(&twice.repeat(2), &["sensor.address", "sensor.name"]);
        check("[sim]\n[[sim.fault]]\ntarget = \"a\"\nkind = \"nak\"", &["sim"]);
        check("[sim]\n[[sim.edge]]\nline = \"a\"", &["sim.edge[0].at"]);
    }
}
