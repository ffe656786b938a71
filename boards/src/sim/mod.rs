//! A board without hardware: models of the chips that the configuration binds, behind the same traits as the real ones.
//!
//! Every bound sensor gets a model of its chip at its address, at the level of registers, so that the drivers run as
//! they are; what the models measure follows signals of time ([`Signals`]). The script of `[sim]` says what the signals
//! are and what goes wrong. With a [`Clock::Manual`] a simulation is the same every time.
//!
//! What is not modelled: how long a transfer takes on the wire, clock stretching, electrical levels. An SPI device is a
//! wire from its output to its input. An LED, a watchdog and any other attribute keep what was written to them.

pub(crate) mod chips;
mod pins;
mod signal;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use embedded_hal::i2c::{self, I2c};
use embedded_hal::spi::{self, SpiDevice};
use holm_core::{Label, Level};

use signal::Held;
pub(crate) use signal::Signals;

use crate::bindings::{Bindings, FaultKind, FaultScript, LineBinding, SpiBinding};
use crate::board::{Board, I2cBus, Inputs, Line, SpiPort};
use crate::{BoardError, BusFault, Clock};
use pins::SimPins;

/// How long an adapter waits for a line that is held.
const STUCK: Duration = Duration::from_millis(100);

/// What conversions are longer by when they are slow.
const SLOW: u32 = 10;

/// What a device keeps of what is written to it.
const MAX_WRITTEN: usize = 4096;

/// The moment at which a chip is spoken to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Since the start of the simulation.
    pub(crate) now: Duration,
    /// What conversions are longer by.
    pub(crate) slow: u32,
    /// Whether what it sends is damaged on its way.
    pub(crate) damaged: bool,
}

/// A chip that does not acknowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nak;

/// A chip on an I2C bus, at the level of its registers.
pub(crate) trait Chip: Send {
    /// It is sent bytes.
    fn write(&mut self, moment: &Moment, bytes: &[u8]) -> Result<(), Nak>;
    /// It is asked for bytes.
    fn read(&mut self, moment: &Moment, bytes: &mut [u8]) -> Result<(), Nak>;
}

/// A device that the kernel shows as a file.
pub(crate) trait File: Send {
    /// What is in it, and how long it takes to read.
    fn text(&mut self, moment: &Moment) -> (String, Duration);
}

/// What a binding becomes in the simulator.
pub(crate) enum Model {
    /// A chip on a bus.
    I2c(String, u8, Box<dyn Chip>),
    /// A file.
    File(String, Box<dyn File>),
    /// A file of a device that is found by another one's text.
    Device {
        /// Path and text.
        identity: (String, String),
        /// Path and model.
        file: (String, Box<dyn File>),
    },
}

/// The simulated board. Cheap to clone: clones are the same board.
#[derive(Clone)]
pub struct Sim {
    world: Arc<World>,
}

struct World {
    clock: Clock,
    start: Duration,
    buses: Mutex<BTreeMap<String, Bus>>,
    files: Mutex<BTreeMap<String, Part<Box<dyn File>>>>,
    /// What was written, and what devices are called by.
    texts: Mutex<BTreeMap<String, String>>,
    pins: Arc<SimPins>,
    /// The channels of each sensor.
    channels: BTreeMap<String, Vec<String>>,
    held: Held,
}

/// Chips by their addresses.
type Bus = BTreeMap<u8, Part<Box<dyn Chip>>>;

/// A model with what goes wrong with it.
struct Part<M> {
    model: M,
    faults: Vec<FaultScript>,
    transfers: u64,
}

impl<M> Part<M> {
    fn new(model: M, name: &Label, faults: &[FaultScript]) -> Self {
        let faults = faults.iter().filter(|fault| fault.target == *name).cloned().collect();
        Self { model, faults, transfers: 0 }
    }

    fn suffers(&self, kind: FaultKind, now: Duration) -> bool {
        self.faults.iter().any(|fault| fault.kind == kind && (fault.from..fault.to).contains(&now))
    }

    /// The moment of a transfer, unless there is nobody to speak to.
    fn moment(&mut self, now: Duration) -> Result<Moment, Nak> {
        self.transfers += 1;
        let refuses = self.suffers(FaultKind::Nak, now) && self.transfers % 2 == 1;
        if refuses || self.suffers(FaultKind::Missing, now) {
            return Err(Nak);
        }
        let slow = if self.suffers(FaultKind::Slow, now) { SLOW } else { 1 };
        Ok(Moment { now, slow, damaged: self.suffers(FaultKind::Crc, now) })
    }
}

impl Sim {
    /// A board with everything that is bound. Fails if the script names a recording that cannot be read.
    pub fn new(bindings: &Bindings, clock: Clock) -> Result<Self, BoardError> {
        let start = clock.now();
        let mut buses: BTreeMap<String, Bus> = BTreeMap::new();
        let mut files: BTreeMap<String, Part<Box<dyn File>>> = BTreeMap::new();
        let mut texts = BTreeMap::new();
        let faults = &bindings.sim.faults;
        let (mut channels, held) = (BTreeMap::new(), Held::default());
        for sensor in &bindings.sensors {
            let signals = Signals::new(sensor, &bindings.sim, held.clone())?;
            let names = sensor.driver.channels().map(str::to_owned).collect();
            channels.insert(sensor.name.to_string(), names);
            match sensor.driver.kind.model(signals) {
                Model::I2c(bus, address, chip) => {
                    buses.entry(bus).or_default().insert(address, Part::new(chip, &sensor.name, faults));
                }
                Model::File(path, file) => {
                    files.insert(path, Part::new(file, &sensor.name, faults));
                }
                Model::Device { identity, file } => {
                    texts.insert(identity.0, identity.1);
                    files.insert(file.0, Part::new(file.1, &sensor.name, faults));
                }
            }
        }
        for bus in &bindings.i2c {
            buses.entry(bus.bus.clone()).or_default();
        }
        let pins = Arc::new(SimPins::new(bindings, clock.clone(), start));
        let (buses, files, texts) = (buses.into(), files.into(), texts.into());
        let world = World { clock, start, buses, files, texts, pins, channels, held };
        Ok(Self { world: Arc::new(world) })
    }

    /// Holds what a channel of a sensor measures at a value, whatever its script says. `Err` says what there is instead.
    pub fn measure(&self, sensor: &str, channel: &str, value: f64) -> Result<(), String> {
        let list = |names: &mut dyn Iterator<Item = &String>| names.cloned().collect::<Vec<_>>().join(", ");
        let Some(channels) = self.world.channels.get(sensor) else {
            let has = list(&mut self.world.channels.keys());
            return Err(format!("the simulated board has no sensor `{sensor}`; it has: {has}"));
        };
        if !channels.iter().any(|known| known == channel) {
            let has = list(&mut channels.iter());
            return Err(format!("`{sensor}` has no channel `{channel}`; it has: {has}"));
        }
        lock(&self.world.held).insert((sensor.to_owned(), channel.to_owned()), value);
        Ok(())
    }

    /// Sets an input's wire, by the name that the configuration gives the line. False if there is no such input.
    pub fn drive(&self, line: &str, level: Level) -> bool {
        self.world.pins.drive(line, level)
    }

    /// What an output is at; `None` if nobody has taken it.
    pub fn output(&self, line: &str) -> Option<Level> {
        self.world.pins.output(line)
    }
}

impl World {
    fn now(&self) -> Duration {
        self.clock.now().saturating_sub(self.start)
    }
}

impl Board for Sim {
    fn clock(&self) -> Clock {
        self.world.clock.clone()
    }

    fn is_simulated(&self) -> bool {
        true
    }

    fn open_i2c(&self, bus: &str) -> Result<I2cBus, BoardError> {
        if !lock(&self.world.buses).contains_key(bus) {
            return Err(BoardError::Open { what: bus.to_owned(), reason: "nothing is on that bus".into() });
        }
        Ok(Box::new(SimI2c { world: self.world.clone(), bus: bus.to_owned() }))
    }

    fn open_spi(&self, _: &SpiBinding) -> Result<SpiPort, BoardError> {
        Ok(Box::new(Loop(self.world.clock.clone())))
    }

    fn open_output(&self, line: &LineBinding) -> Result<Arc<dyn Line>, BoardError> {
        SimPins::open_output(&self.world.pins, line)
    }

    fn open_inputs(&self, lines: &[LineBinding]) -> Inputs {
        let opened = lines.iter().map(|line| SimPins::open_input(&self.world.pins, line)).collect();
        self.world.pins.watch(lines);
        (opened, self.world.pins.clone())
    }

    fn read_attribute(&self, path: &str) -> Result<String, BoardError> {
        let missing = || BoardError::File { path: path.to_owned(), reason: "there is no such file".into() };
        if let Some(text) = lock(&self.world.texts).get(path) {
            return Ok(text.clone());
        }
        let (text, takes) = {
            let mut files = lock(&self.world.files);
            let part = files.get_mut(path).ok_or_else(missing)?;
            let moment = part.moment(self.world.now()).map_err(|Nak| missing())?;
            part.model.text(&moment)
        };
        self.world.clock.sleep(takes);
        Ok(text)
    }

    fn write_attribute(&self, path: &str, text: &str) -> Result<(), BoardError> {
        lock(&self.world.texts).insert(path.to_owned(), text.to_owned());
        Ok(())
    }

    fn open_device(&self, path: &str) -> Result<Box<dyn Write + Send>, BoardError> {
        lock(&self.world.texts).insert(path.to_owned(), String::new());
        Ok(Box::new(Device { world: self.world.clone(), path: path.to_owned() }))
    }

    fn list(&self, folder: &str) -> Vec<String> {
        let child = |path: &String| Some(path.strip_prefix(folder)?.strip_prefix('/')?.split('/').next()?.to_owned());
        let mut names: Vec<String> = lock(&self.world.files).keys().filter_map(child).collect();
        names.extend(lock(&self.world.texts).keys().filter_map(child));
        names.sort();
        names.dedup();
        names
    }
}

/// A device that keeps what is written to it.
struct Device {
    world: Arc<World>,
    path: String,
}

impl Write for Device {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Some(text) = lock(&self.world.texts).get_mut(&self.path)
            && text.len() < MAX_WRITTEN
        {
            text.push_str(&String::from_utf8_lossy(bytes));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct SimI2c {
    world: Arc<World>,
    bus: String,
}

impl i2c::ErrorType for SimI2c {
    type Error = BusFault;
}

impl I2c for SimI2c {
    fn transaction(&mut self, address: u8, operations: &mut [i2c::Operation<'_>]) -> Result<(), BusFault> {
        let now = self.world.now();
        let mut buses = lock(&self.world.buses);
        let bus = buses.get_mut(&self.bus).ok_or(BusFault::NoAnswer)?;
        if bus.values().any(|part| part.suffers(FaultKind::Stuck, now)) {
            drop(buses);
            self.world.clock.sleep(STUCK);
            return Err(BusFault::Stuck);
        }
        let part = bus.get_mut(&address).ok_or(BusFault::NoAnswer)?;
        let moment = part.moment(now).map_err(|Nak| BusFault::NoAnswer)?;
        for operation in operations {
            match operation {
                i2c::Operation::Write(bytes) => part.model.write(&moment, bytes),
                i2c::Operation::Read(bytes) => {
                    let read = part.model.read(&moment, bytes);
                    if let (true, Some(first)) = (moment.damaged, bytes.first_mut()) {
                        *first ^= 0x08;
                    }
                    read
                }
            }
            .map_err(|Nak| BusFault::NoAnswer)?;
        }
        Ok(())
    }
}

/// An SPI device whose output is wired to its input.
struct Loop(Clock);

impl spi::ErrorType for Loop {
    type Error = BusFault;
}

impl SpiDevice for Loop {
    fn transaction(&mut self, operations: &mut [spi::Operation<'_, u8>]) -> Result<(), BusFault> {
        for operation in operations {
            match operation {
                spi::Operation::Read(bytes) => bytes.fill(0),
                spi::Operation::Write(_) | spi::Operation::TransferInPlace(_) => {}
                spi::Operation::Transfer(read, write) => {
                    for (index, byte) in read.iter_mut().enumerate() {
                        *byte = write.get(index).copied().unwrap_or_default();
                    }
                }
                spi::Operation::DelayNs(time) => self.0.sleep(Duration::from_nanos(u64::from(*time))),
            }
        }
        Ok(())
    }
}

/// A lock that survives a panic of who held it: models have no invariants that one could break.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
