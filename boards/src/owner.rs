//! The owner of a bus: one thread that alone speaks on it, reads its sensors when they are due or asked for, and keeps
//! what they said last.
//!
//! A sensor that fails is tried again, later if nobody asks, with its driver made anew. A driver that panics is a
//! driver that failed: it comes from elsewhere, and what a broken chip sends must not end the node.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use embedded_hal::i2c::{I2c as _, Operation};
use embedded_hal::spi;
use holm_core::{I2cPart, Quality, Reading, SpiPart, Timestamp};

use crate::bindings::{SensorBinding, SpiBinding};
use crate::board::SpiPort;
use crate::bus::I2cHandle;
use crate::drivers::{Driver, Place, Sample, Tools};
use crate::hardware::{Listener, lock};
use crate::{Board, BoardError, BusFault, Clock};

/// Requests that may wait for a bus. A guest waits for its own, so that there are about as many as threads.
const REQUESTS: usize = 64;

/// What one reading may take on an I2C bus. The slowest chip that we know takes 0.2 s.
const BUDGET: Duration = Duration::from_secs(2);

/// How often a sensor that fails is tried when nobody asks.
const RETRY: Duration = Duration::from_secs(1);

/// Nothing is planned.
const IDLE: Duration = Duration::from_secs(3600);

/// What was read, for each part that reads.
pub(crate) type Bytes = Vec<Vec<u8>>;

pub(crate) enum Request {
    Read(usize, SyncSender<Result<Vec<Reading>, BoardError>>),
    I2c(u8, Vec<I2cPart>, SyncSender<Result<Bytes, BoardError>>),
    Spi(Vec<SpiPart>, SyncSender<Result<Bytes, BoardError>>),
    /// How often each sensor is read by itself from now on.
    Plan(Vec<Option<Duration>>),
    Stop,
}

/// What speaks on a bus.
pub(crate) enum Port {
    /// An I2C bus by its name.
    I2c(String),
    /// An SPI device.
    Spi(SpiBinding),
    /// Files of the system.
    Files,
}

/// A sensor as everybody sees it.
pub(crate) struct Sensor {
    pub(crate) binding: SensorBinding,
    pub(crate) last: Mutex<Last>,
}

/// What a sensor said last.
#[derive(Default)]
pub(crate) struct Last {
    pub(crate) readings: Vec<Reading>,
    /// By the board's clock.
    pub(crate) at: Duration,
    /// Why the last try failed.
    pub(crate) error: Option<BoardError>,
    pub(crate) tries: u64,
    pub(crate) failures: u64,
}

/// The door to an owner.
pub(crate) struct Door {
    what: String,
    requests: SyncSender<Request>,
}

impl Door {
    /// Asks, and waits for the answer at most `timeout`.
    pub(crate) fn ask<T>(
        &self,
        timeout: Duration,
        request: impl FnOnce(SyncSender<Result<T, BoardError>>) -> Request,
    ) -> Result<T, BoardError> {
        let (answer, waiting) = sync_channel(1);
        self.send(request(answer))?;
        match waiting.recv_timeout(timeout) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => Err(BoardError::Timeout { what: self.what.clone() }),
            Err(RecvTimeoutError::Disconnected) => Err(BoardError::Stopped),
        }
    }

    pub(crate) fn send(&self, request: Request) -> Result<(), BoardError> {
        self.requests.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => BoardError::Busy { what: self.what.clone() },
            TrySendError::Disconnected(_) => BoardError::Stopped,
        })
    }

    /// For what must arrive.
    pub(crate) fn insist(&self, request: Request) {
        let _ = self.requests.send(request);
    }
}

/// The owner itself, to be run on a thread of its own.
pub(crate) struct Owner {
    what: String,
    port: Port,
    requests: Receiver<Request>,
    sensors: Vec<Arc<Sensor>>,
    pub(crate) board: Arc<dyn Board>,
    pub(crate) now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    pub(crate) listener: Arc<OnceLock<Listener>>,
}

impl Owner {
    pub(crate) fn new(
        what: String,
        port: Port,
        sensors: Vec<Arc<Sensor>>,
        board: Arc<dyn Board>,
        now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
        listener: Arc<OnceLock<Listener>>,
    ) -> (Self, Door) {
        let (sender, requests) = sync_channel(REQUESTS);
        let door = Door { what: what.clone(), requests: sender };
        (Self { what, port, requests, sensors, board, now, listener }, door)
    }

    /// Serves until it is told to stop, or nobody can ask any more.
    pub(crate) fn run(self) {
        let clock = self.board.clock();
        let mut bench = Bench { i2c: None, spi: None, drivers: Vec::new(), samples: Vec::new() };
        bench.drivers.resize_with(self.sensors.len(), || None);
        let mut plan: Vec<Option<(Duration, Duration)>> = vec![None; self.sensors.len()];
        loop {
            let now = clock.now();
            let next = plan.iter().flatten().map(|(due, _)| *due).min();
            let wait = next.map_or(IDLE, |due| due.saturating_sub(now));
            match self.requests.recv_timeout(wait) {
                Ok(Request::Read(index, answer)) => {
                    let _ = answer.send(self.read(&mut bench, index, &clock));
                }
                Ok(Request::I2c(address, parts, answer)) => {
                    let _ = answer.send(self.i2c(&mut bench, address, &parts));
                }
                Ok(Request::Spi(parts, answer)) => {
                    let _ = answer.send(self.spi(&mut bench, &parts));
                }
                Ok(Request::Plan(intervals)) => {
                    for (slot, interval) in plan.iter_mut().zip(intervals) {
                        let same = slot.is_some_and(|(_, old)| Some(old) == interval);
                        if !same {
                            *slot = interval.map(|interval| (clock.now(), interval));
                        }
                    }
                }
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = clock.now();
            for (index, slot) in plan.iter_mut().enumerate() {
                let Some((due, interval)) = slot else { continue };
                if *due > now {
                    continue;
                }
                let failed = self.read(&mut bench, index, &clock).is_err();
                let pause = if failed { (*interval).max(RETRY) } else { *interval };
                // Beats that were missed are not made up for.
                *due = (*due + pause).max(clock.now().saturating_sub(pause));
            }
        }
    }

    /// Reads a sensor and tells everybody.
    fn read(&self, bench: &mut Bench, index: usize, clock: &Clock) -> Result<Vec<Reading>, BoardError> {
        let sensor = self.sensors.get(index).ok_or(BoardError::Stopped)?;
        let had_driver = bench.drivers.get(index).is_some_and(Option::is_some);
        let mut measured = self.measure(bench, index, sensor);
        let again = match &measured {
            Err(BoardError::Checksum { .. }) => true,
            // It worked before: perhaps it lost its power for a moment.
            Err(BoardError::NoAnswer { .. }) => had_driver,
            _ => false,
        };
        if again {
            measured = self.measure(bench, index, sensor);
        }
        let result = measured.map(|()| self.readings(sensor, &bench.samples));
        let mut last = lock(&sensor.last);
        let name = sensor.binding.name.as_str();
        last.tries += 1;
        match &result {
            Ok(readings) => {
                if last.error.take().is_some() {
                    tracing::info!(sensor = name, "a sensor answers again");
                }
                last.readings.clone_from(readings);
                last.at = clock.now();
            }
            Err(error) => {
                last.failures += 1;
                if last.error.is_none() {
                    tracing::warn!(sensor = name, %error, "a sensor cannot be read");
                }
                last.error = Some(error.clone());
            }
        }
        drop(last);
        if let (Ok(readings), Some(listener)) = (&result, self.listener.get()) {
            (listener.sample)(&sensor.binding.name, readings);
        }
        result
    }

    /// Has the driver measure, into the bench's samples. A driver that fails is dropped.
    fn measure(&self, bench: &mut Bench, index: usize, sensor: &Sensor) -> Result<(), BoardError> {
        let name = sensor.binding.name.as_str();
        if let Place::I2c { bus, .. } = sensor.binding.driver.kind.place() {
            bench.i2c(&self.board, &bus)?.allow(BUDGET);
        }
        let tools = Tools { sensor: name, board: &self.board, i2c: bench.i2c.clone() };
        let samples = &mut bench.samples;
        let slot = bench.drivers.get_mut(index).ok_or(BoardError::Stopped)?;
        let driven = catch_unwind(AssertUnwindSafe(|| {
            let driver = match slot {
                Some(driver) => driver,
                None => slot.insert(sensor.binding.driver.kind.open(&tools)?),
            };
            samples.clear();
            driver.read(samples)
        }));
        let result = driven.unwrap_or_else(|_| {
            Err(BoardError::Nonsense { what: name.to_owned(), reason: "its driver cannot make sense of it".into() })
        });
        if let Err(error) = &result {
            *slot = None;
            if matches!(error, BoardError::Bus { .. } | BoardError::Timeout { .. }) {
                // Opened anew: the adapter may have been reset under us.
                bench.forget_bus();
            }
        }
        result
    }

    fn readings(&self, sensor: &Sensor, samples: &[Sample]) -> Vec<Reading> {
        let time = (self.now)();
        let good = if self.board.is_simulated() { Quality::Simulated } else { Quality::Good };
        let channels = sensor.binding.driver.all_channels().iter();
        let reading = |(channel, sample): (&crate::drivers::Channel, &Sample)| {
            let (value, believed) = sensor.binding.calibration(&channel.name).apply(sample.value);
            let measurable = (channel.min..=channel.max).contains(&sample.value);
            let suspect = sample.suspect || !measurable || !believed;
            // What is no number is no reading.
            value.is_finite().then(|| Reading {
                channel: channel.name.clone(),
                value,
                unit: channel.unit.clone(),
                time,
                quality: if suspect { Quality::Suspect } else { good },
            })
        };
        channels.zip(samples).filter_map(reading).collect()
    }

    fn i2c(&self, bench: &mut Bench, address: u8, parts: &[I2cPart]) -> Result<Bytes, BoardError> {
        let Port::I2c(bus) = &self.port else { return Err(BoardError::UnknownBus(self.what.clone())) };
        let mut handle = bench.i2c(&self.board, bus)?;
        handle.allow(BUDGET);
        let mut read: Bytes = parts.iter().filter_map(I2cPart::reads).map(room).collect();
        let mut rooms = read.iter_mut();
        let mut operations = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                I2cPart::Write(bytes) => operations.push(Operation::Write(bytes)),
                I2cPart::Read(_) => operations.extend(rooms.next().map(|room| Operation::Read(room))),
            }
        }
        let what = format!("{address:#04x} on {bus}");
        handle.transaction(address, &mut operations).map_err(|fault| fault.at(&what))?;
        Ok(read)
    }

    fn spi(&self, bench: &mut Bench, parts: &[SpiPart]) -> Result<Bytes, BoardError> {
        let Port::Spi(device) = &self.port else { return Err(BoardError::UnknownBus(self.what.clone())) };
        let port = match &mut bench.spi {
            Some(port) => port,
            None => bench.spi.insert(self.board.open_spi(device)?),
        };
        let mut read: Bytes = parts.iter().filter_map(SpiPart::reads).map(room).collect();
        let mut rooms = read.iter_mut();
        let mut operations = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                SpiPart::Read(_) => operations.extend(rooms.next().map(|room| spi::Operation::Read(room))),
                SpiPart::Write(bytes) => operations.push(spi::Operation::Write(bytes)),
                SpiPart::Transfer(bytes) => {
                    operations.extend(rooms.next().map(|room| spi::Operation::Transfer(room, bytes)));
                }
                SpiPart::Delay(time) => operations.push(spi::Operation::DelayNs(*time)),
            }
        }
        let result = port.transaction(&mut operations).map_err(|fault: BusFault| fault.at(&self.what));
        if result.is_err() {
            bench.spi = None;
        }
        result.map(|()| read)
    }
}

/// Room for what is read.
fn room(length: usize) -> Vec<u8> {
    vec![0; length]
}

/// What an owner has open. Never leaves its thread.
struct Bench {
    i2c: Option<I2cHandle>,
    spi: Option<SpiPort>,
    drivers: Vec<Option<Box<dyn Driver>>>,
    samples: Vec<Sample>,
}

impl Bench {
    fn i2c(&mut self, board: &Arc<dyn Board>, bus: &str) -> Result<I2cHandle, BoardError> {
        match &self.i2c {
            Some(handle) => Ok(handle.clone()),
            None => Ok(self.i2c.insert(I2cHandle::new(board.open_i2c(bus)?, board.clock())).clone()),
        }
    }

    /// The bus is opened anew for the next transfer, and with it every driver on it.
    fn forget_bus(&mut self) {
        if self.i2c.take().is_some() {
            self.drivers.iter_mut().for_each(|driver| *driver = None);
        }
    }
}
