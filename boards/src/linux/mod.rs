//! A board that runs Linux: character devices for GPIO, I2C and SPI, and files under `/sys` for the rest.

mod gpio;
mod i2c;
mod spi;

use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bindings::{LineBinding, SpiBinding};
use crate::board::{Board, I2cBus, Inputs, Line, SpiPort};
use crate::profile::Profile;
use crate::{BoardError, Clock};

/// The most of an attribute that is read: they are one page.
const MAX_ATTRIBUTE: u64 = 4096;

/// The machine that this runs on.
pub struct Linux {
    profile: Profile,
    /// `/`, or a folder that stands for it in tests.
    root: PathBuf,
}

impl Linux {
    /// A board as its profile describes it. Opens nothing.
    pub fn new(profile: Profile) -> Self {
        Self { profile, root: PathBuf::from("/") }
    }

    /// A board whose files are in a folder.
    #[cfg(test)]
    fn with_root(profile: Profile, root: &Path) -> Self {
        Self { profile, root: root.to_owned() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

impl Board for Linux {
    fn clock(&self) -> Clock {
        Clock::Monotonic
    }

    fn is_simulated(&self) -> bool {
        false
    }

    fn open_i2c(&self, bus: &str) -> Result<I2cBus, BoardError> {
        i2c::open(bus, &self.path(&self.profile.i2c_device(bus)))
    }

    fn open_spi(&self, device: &SpiBinding) -> Result<SpiPort, BoardError> {
        spi::open(device, &self.path(&format!("/dev/{}", device.device)))
    }

    fn open_output(&self, line: &LineBinding) -> Result<Arc<dyn Line>, BoardError> {
        gpio::open_output(line, &self.profile)
    }

    fn open_inputs(&self, lines: &[LineBinding]) -> Inputs {
        gpio::open_inputs(lines, &self.profile)
    }

    fn read_attribute(&self, path: &str) -> Result<String, BoardError> {
        let read = || {
            let mut text = String::new();
            std::fs::File::open(self.path(path))?.take(MAX_ATTRIBUTE).read_to_string(&mut text)?;
            Ok(text)
        };
        read().map_err(|error: std::io::Error| file(path, &error))
    }

    fn write_attribute(&self, path: &str, text: &str) -> Result<(), BoardError> {
        let write = || {
            // Never created: an attribute is there or it is not.
            std::fs::File::options().write(true).open(self.path(path))?.write_all(text.as_bytes())
        };
        write().map_err(|error| file(path, &error))
    }

    fn open_device(&self, path: &str) -> Result<Box<dyn Write + Send>, BoardError> {
        let real = self.path(path);
        let opened = std::fs::File::options().write(true).open(&real);
        Ok(Box::new(opened.map_err(|error| opening(path, &real, &error))?))
    }

    fn list(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(folder)).into_iter().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}

/// What the device tree of this machine says that it is, most special first; nothing where there is none.
pub fn compatible() -> Vec<String> {
    // What /proc/device-tree points to: the unit shows us no more of /proc than processes.
    let text = std::fs::read("/sys/firmware/devicetree/base/compatible").unwrap_or_default();
    let names = text.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

fn file(path: &str, error: &std::io::Error) -> BoardError {
    BoardError::File { path: path.to_owned(), reason: error.to_string() }
}

fn opening(what: &str, path: &Path, error: &std::io::Error) -> BoardError {
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound => ": is it enabled in the device tree?",
        std::io::ErrorKind::PermissionDenied => ": is the user in its group?",
        _ => "",
    };
    BoardError::Open { what: what.to_owned(), reason: format!("{}: {error}{hint}", path.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::Bindings;
    use crate::drivers::Tools;

    fn sensor(text: &str) -> Bindings {
        let (document, mut root) = holm_core::Document::parse("test", text).unwrap();
        let mut bindings = Bindings::default();
        bindings.apply(&mut root);
        drop(root);
        document.finish().unwrap();
        bindings
    }

    #[test]
    fn the_systems_sensors_are_found_by_name_whatever_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("sys/class/thermal/cooling_device0/type", "cpu-thermal\n");
        write("sys/class/thermal/thermal_zone0/type", "gpu-thermal\n");
        write("sys/class/thermal/thermal_zone3/type", "cpu-thermal\n");
        write("sys/class/thermal/thermal_zone3/temp", "48312\n");
        let bad = "50 05 4b 46 7f ff 0c 10 1d : crc=1d YES\n50 05 4b 46 7f ff 0c 10 1d t=85000\n";
        write("sys/bus/w1/devices/28-000005e2fdc3/w1_slave", bad);
        let board: Arc<dyn Board> = Arc::new(Linux::with_root(Profile::named("generic-arm64").unwrap(), folder.path()));
        let read = |text: &str| {
            let bindings = sensor(text);
            let tools = Tools { sensor: "a", board: &board, i2c: None };
            bindings.sensors[0].driver.kind.open(&tools).and_then(|mut driver| {
                let mut samples = Vec::new();
                driver.read(&mut samples).map(|()| samples[0].value)
            })
        };
        let thermal = |zone: &str| format!("[[sensor]]\nname = \"a\"\ndriver = \"thermal\"\nzone = \"{zone}\"");
        assert_eq!(read(&thermal("cpu-thermal")), Ok(48.312));
        assert!(matches!(read(&thermal("soc-thermal")), Err(BoardError::NoAnswer { .. })));
        let probe = |id: &str| format!("[[sensor]]\nname = \"a\"\ndriver = \"ds18b20\"\nid = \"{id}\"");
        // The kernel may say YES to what it has not checked.
        assert_eq!(read(&probe("28-000005e2fdc3")), Err(BoardError::Checksum { what: "a".into() }));
        assert_eq!(read(&probe("28-000005e2fdc4")), Err(BoardError::NoAnswer { what: "a".into() }));
    }

    #[test]
    fn a_bus_that_is_not_there_says_where_it_was_looked_for() {
        let board = Linux::new(Profile::named("generic-arm64").unwrap());
        let error = board.open_i2c("i2c-250").map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("/dev/i2c-250") && error.contains("device tree"), "{error}");
    }
}
