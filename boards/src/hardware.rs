//! The node's door to its board: names for sensors, lines and buses, and nothing of where they are.
//!
//! A node that binds nothing has no threads here, and nothing is opened. Otherwise each bus that something is bound on
//! has an owner, and the inputs together have one thread; who starts them is the agent's supervisor, through the closure
//! that it hands in.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use holm_core::{I2cPart, Label, Level, Quality, Reading, SpiPart, Timestamp};

use crate::bindings::{Bindings, LineBinding, SpiBinding};
use crate::drivers::Place;
use crate::owner::{Bytes, Door, Last, Owner, Port, Request, Sensor};
use crate::pins::{Fired, Pins, Watch};
use crate::{Board, BoardError};

/// What a thread is to run, with the name it is to have.
pub type Body = Box<dyn FnOnce() + Send>;

/// Told of samples.
pub type OnSample = Box<dyn Fn(&Label, &[Reading]) + Send + Sync>;

/// Told of edges.
pub type OnEdge = Box<dyn Fn(&Fired) + Send + Sync>;

/// Who is told what happens. Called on the threads of owners: whoever takes long here keeps a bus waiting.
pub struct Listener {
    /// A sensor was read, because it was due or because somebody asked.
    pub sample: OnSample,
    /// A line has changed as somebody watches for.
    pub edge: OnEdge,
}

/// A node's hardware. Cheap to clone.
#[derive(Clone)]
pub struct Hardware {
    inner: Arc<Inner>,
}

struct Inner {
    board: Arc<dyn Board>,
    doors: Vec<Door>,
    /// Where a sensor is: its owner, and its place there.
    sensors: BTreeMap<Label, (usize, usize, Arc<Sensor>)>,
    i2c: BTreeMap<Label, usize>,
    spi: BTreeMap<Label, usize>,
    pins: Arc<Pins>,
    listener: Arc<OnceLock<Listener>>,
}

/// How a sensor is, for people.
#[derive(Debug, Clone)]
pub struct SensorReport {
    /// Its name.
    pub name: Label,
    /// Its driver.
    pub driver: &'static str,
    /// What it said last.
    pub readings: Vec<Reading>,
    /// Why the last try failed.
    pub error: Option<BoardError>,
    /// How often it was read.
    pub tries: u64,
    /// How often that failed.
    pub failures: u64,
}

/// How a line is, for people.
#[derive(Debug, Clone)]
pub struct LineReport {
    /// What it is bound to.
    pub binding: LineBinding,
    /// What it is at.
    pub level: Result<Level, BoardError>,
}

impl Hardware {
    /// Takes what is bound. `spawn` starts a thread by name; its failure is the only one: what cannot be opened answers
    /// why when it is used.
    pub fn start<E>(
        board: Arc<dyn Board>,
        bindings: &Bindings,
        now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
        mut spawn: impl FnMut(&str, Body) -> Result<(), E>,
    ) -> Result<Self, E> {
        let listener: Arc<OnceLock<Listener>> = Arc::default();
        let mut buses: BTreeMap<String, (Port, Vec<Arc<Sensor>>)> = BTreeMap::new();
        let mut places = Vec::new();
        for binding in &bindings.sensors {
            let (owner, port) = match binding.driver.kind.place() {
                Place::I2c { bus, .. } => (bus.clone(), Port::I2c(bus)),
                Place::OneWire => ("w1".to_owned(), Port::Files),
                Place::System => ("sys".to_owned(), Port::Files),
            };
            let sensor = Arc::new(Sensor { binding: binding.clone(), last: Mutex::new(Last::default()) });
            let (_, sensors) = buses.entry(owner.clone()).or_insert_with(|| (port, Vec::new()));
            places.push((binding.name.clone(), owner, sensors.len(), sensor.clone()));
            sensors.push(sensor);
        }
        for bus in &bindings.i2c {
            buses.entry(bus.bus.clone()).or_insert_with(|| (Port::I2c(bus.bus.clone()), Vec::new()));
        }
        for device in &bindings.spi {
            buses.entry(device.device.clone()).or_insert_with(|| (Port::Spi(device.clone()), Vec::new()));
        }
        let (mut doors, mut indices) = (Vec::new(), BTreeMap::new());
        for (name, (port, sensors)) in buses {
            let (owner, door) = Owner::new(name.clone(), port, sensors, board.clone(), now.clone(), listener.clone());
            spawn(&name, Box::new(move || owner.run()))?;
            indices.insert(name, doors.len());
            doors.push(door);
        }
        let index = |name: &str| indices.get(name).copied();
        let sensors = places
            .into_iter()
            .filter_map(|(name, owner, place, sensor)| Some((name, (index(&owner)?, place, sensor))))
            .collect();
        let i2c = bindings.i2c.iter().filter_map(|bus| Some((bus.name.clone(), index(&bus.bus)?))).collect();
        let spi = |device: &SpiBinding| Some((device.name.clone(), index(&device.device)?));
        let spi = bindings.spi.iter().filter_map(spi).collect();
        let pins = Arc::new(Pins::new(&board, bindings));
        if pins.has_inputs() {
            let (pins, listener) = (pins.clone(), listener.clone());
            spawn("gpio", Box::new(move || pins.run(&*now, &listener)))?;
        }
        Ok(Self { inner: Arc::new(Inner { board, doors, sensors, i2c, spi, pins, listener }) })
    }

    /// Sets who is told what happens. Once; later ones are not heard.
    pub fn listen(&self, listener: Listener) {
        let _ = self.inner.listener.set(listener);
    }

    /// The names of the sensors.
    pub fn sensors(&self) -> impl Iterator<Item = &Label> {
        self.inner.sensors.keys()
    }

    fn sensor(&self, name: &str) -> Result<&(usize, usize, Arc<Sensor>), BoardError> {
        self.inner.sensors.get(name).ok_or_else(|| BoardError::UnknownSensor(name.to_owned()))
    }

    fn door(&self, index: usize) -> Result<&Door, BoardError> {
        self.inner.doors.get(index).ok_or(BoardError::Stopped)
    }

    /// Reads a sensor now, and waits for it at most `timeout`.
    pub fn read(&self, name: &str, timeout: Duration) -> Result<Vec<Reading>, BoardError> {
        let (owner, place, _) = self.sensor(name)?;
        self.door(*owner)?.ask(timeout, |answer| Request::Read(*place, answer))
    }

    /// What a sensor said last, without asking it; a sensor that has not said anything yet is read.
    pub fn latest(&self, name: &str, timeout: Duration) -> Result<Vec<Reading>, BoardError> {
        let (_, _, sensor) = self.sensor(name)?;
        let last = lock(&sensor.last);
        if last.readings.is_empty() {
            drop(last);
            return self.read(name, timeout);
        }
        let mut readings = last.readings.clone();
        let age = self.inner.board.clock().now().saturating_sub(last.at);
        if age > sensor.binding.stale_after {
            readings.iter_mut().for_each(|reading| reading.quality = Quality::Stale);
        }
        Ok(readings)
    }

    /// From now on these sensors are read by themselves, as often; others only when they are asked. Answers with what
    /// is not bound.
    pub fn plan(&self, intervals: &BTreeMap<Label, Duration>) -> Vec<BoardError> {
        for (index, door) in self.inner.doors.iter().enumerate() {
            let here = self.inner.sensors.iter().filter(|(_, (owner, ..))| *owner == index);
            let mut plan: Vec<(usize, Option<Duration>)> =
                here.map(|(name, (_, place, _))| (*place, intervals.get(name).copied())).collect();
            plan.sort_by_key(|(place, _)| *place);
            door.insist(Request::Plan(plan.into_iter().map(|(_, interval)| interval).collect()));
        }
        let unknown = intervals.keys().filter(|name| !self.inner.sensors.contains_key(*name));
        unknown.map(|name| BoardError::UnknownSensor(name.to_string())).collect()
    }

    /// What a line is at.
    pub fn level(&self, line: &str) -> Result<Level, BoardError> {
        self.inner.pins.level(line)
    }

    /// Drives an output.
    pub fn set(&self, line: &str, level: Level) -> Result<(), BoardError> {
        self.inner.pins.set(line, level)
    }

    /// Drives every output that nobody is in charge of to its safe level.
    pub fn make_safe(&self, in_charge: impl Fn(&Label) -> bool) {
        self.inner.pins.make_safe(&in_charge);
    }

    /// Replaces what is watched for. Answers with what cannot be.
    pub fn watch(&self, watches: Vec<Watch>) -> Vec<BoardError> {
        self.inner.pins.watch(watches)
    }

    /// Speaks to a chip on a bus by its name. Answers with what was read, for each part that reads.
    pub fn i2c(&self, bus: &str, address: u8, parts: Vec<I2cPart>, timeout: Duration) -> Result<Bytes, BoardError> {
        let owner = self.inner.i2c.get(bus).ok_or_else(|| BoardError::UnknownBus(bus.to_owned()))?;
        self.door(*owner)?.ask(timeout, |answer| Request::I2c(address, parts, answer))
    }

    /// Speaks to an SPI device by its name.
    pub fn spi(&self, device: &str, parts: Vec<SpiPart>, timeout: Duration) -> Result<Bytes, BoardError> {
        let owner = self.inner.spi.get(device).ok_or_else(|| BoardError::UnknownBus(device.to_owned()))?;
        self.door(*owner)?.ask(timeout, |answer| Request::Spi(parts, answer))
    }

    /// How the sensors are.
    pub fn sensor_reports(&self) -> Vec<SensorReport> {
        let report = |(name, (_, _, sensor)): (&Label, &(usize, usize, Arc<Sensor>))| {
            let last = lock(&sensor.last);
            SensorReport {
                name: name.clone(),
                driver: sensor.binding.driver.name,
                readings: last.readings.clone(),
                error: last.error.clone(),
                tries: last.tries,
                failures: last.failures,
            }
        };
        self.inner.sensors.iter().map(report).collect()
    }

    /// How the lines are.
    pub fn line_reports(&self) -> Vec<LineReport> {
        let report = |binding: &LineBinding| LineReport {
            binding: binding.clone(),
            level: self.inner.pins.level(binding.name.as_str()),
        };
        self.inner.pins.bindings().map(report).collect()
    }

    /// Makes all outputs safe and ends all threads. What is asked from here on is answered with [`BoardError::Stopped`].
    pub fn stop(&self) {
        self.inner.pins.stop();
        for door in &self.inner.doors {
            door.insist(Request::Stop);
        }
    }
}

/// A lock that survives a panic of who held it: what is behind ours is replaced as a whole.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
