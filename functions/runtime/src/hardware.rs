//! Sensors, lines and buses: what a guest asks of the board, by grant and past the recorder.
//!
//! Nothing here is staged. A reading is of its moment; what an output or a chip is told is told at once, because a
//! sequence of it (a pulse, a command and its answer) means something only in its time.

use std::time::{Duration, Instant};

use holm_core::{I2cPart, Level, Quality, Reading, SpiPart};

use crate::bindings::holm::function::{gpio, hardware, i2c, sensors, spi};
use crate::clocks::datetime;
use crate::recorder::Nature;
use crate::state::State;

/// Parts of one transfer. Linux takes no more on I2C (`I2C_RDWR_IOCTL_MAX_MSGS`).
const MAX_PARTS: usize = 42;

/// Bytes of one transfer. Linux takes no more in a part on I2C, and `spidev` no more than half of it unless told.
const MAX_BYTES: usize = 8192;

/// Pauses of one transfer: everybody else on that bus waits for them.
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// Why the board gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum HardwareError {
    /// Not granted, or not any more.
    #[error("denied: {0}")]
    Denied(String),
    /// The node has nothing of that name.
    #[error("not found")]
    NotFound,
    /// What is asked makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Nobody acknowledges there.
    #[error("nobody answers")]
    NoAnswer,
    /// The bus failed.
    #[error("the bus failed: {0}")]
    Bus(String),
    /// It took too long.
    #[error("it took too long")]
    Timeout,
    /// It is not to be had now.
    #[error("{0}")]
    Unavailable(String),
}

/// The board, as one invocation may use it. Grants of the manifest have been checked. Whatever takes time takes at most
/// `timeout`, which is what the invocation has left.
pub trait Hardware: Send {
    /// Reads a sensor now.
    fn read(&mut self, sensor: &str, timeout: Duration) -> Result<Vec<Reading>, HardwareError>;
    /// What a sensor said last.
    fn latest(&mut self, sensor: &str, timeout: Duration) -> Result<Vec<Reading>, HardwareError>;
    /// What a line is at.
    fn level(&mut self, line: &str) -> Result<Level, HardwareError>;
    /// Drives an output.
    fn set(&mut self, line: &str, level: Level) -> Result<(), HardwareError>;
    /// Speaks to a chip; answers with what was read, for each part that reads.
    fn i2c(
        &mut self,
        bus: &str,
        address: u8,
        parts: Vec<I2cPart>,
        timeout: Duration,
    ) -> Result<Vec<Vec<u8>>, HardwareError>;
    /// Speaks to an SPI device; answers with what was read, for each part that reads.
    fn spi(&mut self, device: &str, parts: Vec<SpiPart>, timeout: Duration) -> Result<Vec<Vec<u8>>, HardwareError>;
}

type Answer<T> = wasmtime::Result<Result<T, hardware::Error>>;

fn denied<T>(what: String) -> Answer<T> {
    Ok(Err(hardware::Error::Denied(what)))
}

fn invalid<T>(what: impl Into<String>) -> Answer<T> {
    Ok(Err(hardware::Error::Invalid(what.into())))
}

impl State {
    /// Asks the board. What waits for a bus may take long, so that whoever put something off until this invocation's end
    /// is told.
    fn board<T>(
        &mut self,
        call: &'static str,
        asked: &str,
        ask: impl FnOnce(&mut dyn Hardware, Duration) -> Result<T, HardwareError>,
    ) -> Answer<T>
    where
        T: serde::Serialize + serde::de::DeserializeOwned,
    {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let answer = self.ask(Nature::World, call, &asked, |host| match host.hardware() {
            Some(hardware) => ask(hardware, left),
            None => Err(HardwareError::NotFound),
        })?;
        Ok(answer.map_err(|error| match error {
            HardwareError::Denied(what) => hardware::Error::Denied(what),
            HardwareError::NotFound => hardware::Error::NotFound,
            HardwareError::Invalid(what) => hardware::Error::Invalid(what),
            HardwareError::NoAnswer => hardware::Error::NoAnswer,
            HardwareError::Bus(what) => hardware::Error::Bus(what),
            HardwareError::Timeout => hardware::Error::Timeout,
            HardwareError::Unavailable(what) => hardware::Error::Unavailable(what),
        }))
    }

    fn readings(
        &mut self,
        sensor: &str,
        call: &'static str,
        ask: impl FnOnce(&mut dyn Hardware, Duration) -> Result<Vec<Reading>, HardwareError>,
    ) -> Answer<Vec<sensors::Reading>> {
        if !self.grants.may_read(sensor) {
            return denied(format!("the manifest grants no sensor `{sensor}`"));
        }
        self.linger();
        Ok(self.board(call, sensor, ask)?.map(|readings| readings.into_iter().map(wire).collect()))
    }
}

fn wire(reading: Reading) -> sensors::Reading {
    sensors::Reading {
        channel: reading.channel.to_string(),
        value: reading.value,
        unit: reading.unit.to_string(),
        time: datetime(reading.time),
        quality: match reading.quality {
            Quality::Good => sensors::Quality::Good,
            Quality::Stale => sensors::Quality::Stale,
            Quality::Suspect => sensors::Quality::Suspect,
            Quality::Simulated => sensors::Quality::Simulated,
        },
    }
}

/// Whether a transfer is one that a bus can be held for.
fn fits(parts: usize, bytes: usize) -> Result<(), String> {
    if parts > MAX_PARTS {
        return Err(format!("a transfer has at most {MAX_PARTS} operations"));
    }
    if bytes > MAX_BYTES {
        return Err(format!("a transfer has at most {MAX_BYTES} bytes"));
    }
    Ok(())
}

/// A length that a guest asks for; what is beyond memory is refused by [`fits`].
fn length(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl hardware::Host for State {}

impl sensors::Host for State {
    fn names(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self.grants.sensors().map(str::to_owned).collect())
    }

    fn read(&mut self, sensor: String) -> Answer<Vec<sensors::Reading>> {
        self.readings(&sensor, "sensors.read", |hardware, left| hardware.read(&sensor, left))
    }

    fn latest(&mut self, sensor: String) -> Answer<Vec<sensors::Reading>> {
        self.readings(&sensor, "sensors.latest", |hardware, left| hardware.latest(&sensor, left))
    }
}

impl gpio::Host for State {
    fn get(&mut self, line: String) -> Answer<gpio::Level> {
        if self.grants.line(&line).is_none() {
            return denied(format!("the manifest grants no line `{line}`"));
        }
        let level = self.board("gpio.get", &line, |hardware, _| hardware.level(&line))?;
        Ok(level.map(|level| match level {
            Level::Low => gpio::Level::Low,
            Level::High => gpio::Level::High,
        }))
    }

    fn set(&mut self, line: String, level: gpio::Level) -> Answer<()> {
        match self.grants.line(&line) {
            Some(true) => {}
            Some(false) => return denied(format!("the manifest grants `in:{line}`, which is not driven")),
            None => return denied(format!("the manifest grants no `out:{line}`")),
        }
        let level = match level {
            gpio::Level::Low => Level::Low,
            gpio::Level::High => Level::High,
        };
        self.board("gpio.set", &format!("{line} {level:?}"), |hardware, _| hardware.set(&line, level))
    }
}

impl i2c::Host for State {
    fn transaction(&mut self, bus: String, address: u16, operations: Vec<i2c::Operation>) -> Answer<Vec<Vec<u8>>> {
        let granted = u8::try_from(address).ok().filter(|address| self.grants.may_speak(&bus, *address));
        let Some(address) = granted else {
            return denied(format!("the manifest grants no `{bus}:{address:#04x}`"));
        };
        let part = |operation| match operation {
            i2c::Operation::Read(bytes) => I2cPart::Read(length(bytes)),
            i2c::Operation::Write(bytes) => I2cPart::Write(bytes),
        };
        let parts: Vec<I2cPart> = operations.into_iter().map(part).collect();
        let size = |part: &I2cPart| match part {
            I2cPart::Read(bytes) => *bytes,
            I2cPart::Write(bytes) => bytes.len(),
        };
        if let Err(words) = fits(parts.len(), parts.iter().map(size).fold(0, usize::saturating_add)) {
            return invalid(words);
        }
        self.linger();
        let asked = format!("{bus}:{address:#04x} {parts:?}");
        self.board("i2c.transaction", &asked, |hardware, left| hardware.i2c(&bus, address, parts, left))
    }
}

impl spi::Host for State {
    fn transaction(&mut self, device: String, operations: Vec<spi::Operation>) -> Answer<Vec<Vec<u8>>> {
        if !self.grants.may_speak_to(&device) {
            return denied(format!("the manifest grants no SPI device `{device}`"));
        }
        let part = |operation| match operation {
            spi::Operation::Read(bytes) => SpiPart::Read(length(bytes)),
            spi::Operation::Write(bytes) => SpiPart::Write(bytes),
            spi::Operation::Transfer(bytes) => SpiPart::Transfer(bytes),
            spi::Operation::DelayNs(time) => SpiPart::Delay(time),
        };
        let parts: Vec<SpiPart> = operations.into_iter().map(part).collect();
        let size = |part: &SpiPart| match part {
            SpiPart::Read(bytes) => *bytes,
            SpiPart::Write(bytes) | SpiPart::Transfer(bytes) => bytes.len(),
            SpiPart::Delay(_) => 0,
        };
        if let Err(words) = fits(parts.len(), parts.iter().map(size).fold(0, usize::saturating_add)) {
            return invalid(words);
        }
        let pause = |part: &SpiPart| match part {
            SpiPart::Delay(time) => Duration::from_nanos((*time).into()),
            _ => Duration::ZERO,
        };
        if parts.iter().map(pause).sum::<Duration>() > MAX_PAUSE {
            return invalid(format!("a transfer pauses for at most {MAX_PAUSE:?}"));
        }
        self.linger();
        let asked = format!("{device} {parts:?}");
        self.board("spi.transaction", &asked, |hardware, left| hardware.spi(&device, parts, left))
    }
}
