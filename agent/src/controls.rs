//! The board, as functions have it: who may drive which output, what a call on it answers, and what it triggers.
//!
//! # Who is in charge
//!
//! An output is driven only by functions that are active, runnable and granted it at that moment; when the last of them
//! goes, it is driven to its safe level. Both happen under one lock, so that an invocation that is still running when its
//! function is taken away cannot drive the output afterwards.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use holm_boards::{Bindings, BoardError, Hardware, Listener};
use holm_core::{FunctionName, I2cPart, Label, Level, Manifest, Reading, SpiPart, TriggerKind};
use holm_runtime::HardwareError;

use crate::dispatch::{ActiveSet, Dispatcher};
use crate::triggers::{gpio, sensor};

/// See the module's text. A node without a board has one that knows nothing.
pub struct Controls {
    hardware: Option<Hardware>,
    bindings: Bindings,
    /// What of the world beyond the board the node's configuration names.
    outside: Outside,
    in_charge: RwLock<HashSet<(FunctionName, Label)>>,
    sensors: sensor::Sensors,
    edges: gpio::Edges,
    quiet: AtomicBool,
    /// How often functions ask for sensors, where somebody else reads them: in a rehearsal.
    rehearsed: Option<Mutex<BTreeMap<Label, Duration>>>,
}

impl Controls {
    /// For a board that is in use, and what the configuration binds on it.
    pub fn new(hardware: Option<Hardware>, bindings: Bindings) -> Self {
        Self {
            hardware,
            bindings,
            outside: Outside::default(),
            in_charge: RwLock::default(),
            sensors: sensor::Sensors::default(),
            edges: gpio::Edges::default(),
            quiet: AtomicBool::new(false),
            rehearsed: None,
        }
    }

    /// With folders, and a listener for requests.
    pub fn with(self, outside: Outside) -> Self {
        Self { outside, ..self }
    }

    /// For a rehearsal: no sensor is read by itself.
    pub fn rehearse(self) -> Self {
        Self { rehearsed: Some(Mutex::default()), ..self }
    }

    /// How often functions ask for sensors, in a rehearsal.
    pub(crate) fn intervals(&self) -> BTreeMap<Label, Duration> {
        let kept = self.rehearsed.as_ref().map(|kept| kept.lock().unwrap_or_else(PoisonError::into_inner).clone());
        kept.unwrap_or_default()
    }

    /// What functions watch for.
    pub(crate) fn edges(&self) -> &gpio::Edges {
        &self.edges
    }

    /// Lets samples and edges start functions from here on.
    pub fn listen(self: &Arc<Self>, dispatcher: &Arc<Dispatcher>) {
        let Some(hardware) = &self.hardware else { return };
        // Weak, because the dispatcher holds the controls, and these the hardware that holds the listener.
        let (samples, edges) = (Arc::downgrade(dispatcher), Arc::downgrade(dispatcher));
        hardware.listen(Listener {
            sample: Box::new(move |sensor, readings| {
                if let Some(dispatcher) = samples.upgrade().filter(|dispatcher| dispatcher.controls.is_loud()) {
                    dispatcher.controls.sensors.sample(&dispatcher, sensor, readings);
                }
            }),
            edge: Box::new(move |fired| {
                if let Some(dispatcher) = edges.upgrade().filter(|dispatcher| dispatcher.controls.is_loud()) {
                    dispatcher.controls.edges.edge(&dispatcher, fired);
                }
            }),
        });
    }

    /// Other functions run now: outputs that nobody is in charge of any more become safe, and what is read and watched
    /// for is what they ask for.
    pub fn activated(&self, set: &ActiveSet) {
        let Some(hardware) = &self.hardware else { return };
        let mut in_charge = HashSet::new();
        for slot in set.slots.values().filter(|slot| slot.is_runnable()) {
            let Some(loaded) = slot.loaded() else { continue };
            let driven = loaded.manifest.permissions.gpio.iter().filter(|(_, drive)| *drive);
            in_charge.extend(driven.map(|(line, _)| (slot.name.clone(), line.clone())));
        }
        let mut held = self.in_charge.write().unwrap_or_else(PoisonError::into_inner);
        *held = in_charge;
        hardware.make_safe(|line| held.iter().any(|(_, driven)| driven == line));
        drop(held);
        let mut intervals = self.sensors.plan(set);
        if let Some(kept) = &self.rehearsed {
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = std::mem::take(&mut intervals);
        }
        for error in hardware.plan(&intervals) {
            tracing::warn!(%error, "a function is started by a sensor that this node does not have");
        }
        for error in hardware.watch(self.edges.plan(set)) {
            tracing::warn!(%error, "a function is started by a line that cannot be watched");
        }
    }

    /// Starts no function any more: the node ends.
    pub fn hush(&self) {
        self.quiet.store(true, Ordering::Relaxed);
    }

    fn is_loud(&self) -> bool {
        !self.quiet.load(Ordering::Relaxed)
    }

    /// The board, for people.
    pub fn hardware(&self) -> Option<&Hardware> {
        self.hardware.as_ref()
    }

    /// Everything that a manifest asks of the board and this node does not have.
    pub fn missing(&self, manifest: &Manifest) -> Vec<String> {
        let Bindings { sensors, lines, i2c, spi, .. } = &self.bindings;
        let mut missing = Vec::new();
        let mut known = |key: &str, kind: &str, asked: &Label, names: &mut dyn Iterator<Item = &Label>| {
            let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
            let there = names.contains(&format!("`{asked}`"));
            if !there {
                let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                missing.push(format!("{key}: this node has no {kind} `{asked}`; it has {has}"));
            }
            there
        };
        let mut wrong = Vec::new();
        for trigger in &manifest.triggers {
            match &trigger.kind {
                TriggerKind::Sensor(trigger) => {
                    let key = "trigger.sensor";
                    known(key, "sensor", &trigger.sensor, &mut sensors.iter().map(|sensor| &sensor.name));
                    let sensor = sensors.iter().find(|sensor| sensor.name == trigger.sensor);
                    if let (Some(sensor), Some(channel)) = (sensor, &trigger.channel)
                        && !sensor.driver.channels().any(|known| *known == **channel)
                    {
                        let channels: Vec<String> = sensor.driver.channels().map(|name| format!("`{name}`")).collect();
                        let (name, channels) = (&trigger.sensor, channels.join(", "));
                        wrong.push(format!("{key}: `{name}` has no channel `{channel}`; it has {channels}"));
                    }
                }
                TriggerKind::Gpio(trigger) => {
                    known("trigger.gpio", "line", &trigger.line, &mut lines.iter().map(|line| &line.name));
                    if lines.iter().any(|line| line.name == trigger.line && line.safe().is_some()) {
                        wrong.push(format!("trigger.gpio: `{}` is an output of this node", trigger.line));
                    }
                }
                TriggerKind::File(trigger) => {
                    known("trigger.file", "folder", &trigger.folder, &mut self.outside.folders.iter());
                }
                TriggerKind::Http(trigger) if !self.outside.http => {
                    let path = &trigger.path;
                    wrong.push(format!(
                        "trigger.http: nobody can ask for {path}: this node listens for no requests ([http] listen)"
                    ));
                }
                _ => {}
            }
        }
        let permissions = &manifest.permissions;
        for name in &permissions.sensors {
            known("permissions.sensors", "sensor", name, &mut sensors.iter().map(|sensor| &sensor.name));
        }
        for (name, drive) in &permissions.gpio {
            known("permissions.gpio", "line", name, &mut lines.iter().map(|line| &line.name));
            if *drive && lines.iter().any(|line| line.name == *name && line.safe().is_none()) {
                wrong.push(format!("permissions.gpio: `{name}` is an input of this node, which nobody drives"));
            }
        }
        for (name, _) in &permissions.i2c {
            known("permissions.i2c", "I2C bus for functions", name, &mut i2c.iter().map(|bus| &bus.name));
        }
        for name in &permissions.spi {
            known("permissions.spi", "SPI device", name, &mut spi.iter().map(|device| &device.name));
        }
        missing.extend(wrong);
        missing
    }
}

/// What a node has beyond its board that starts functions.
#[derive(Debug, Clone, Default)]
pub struct Outside {
    /// The names of its folders.
    pub folders: Vec<Label>,
    /// Whether it listens for requests.
    pub http: bool,
}

/// The board in the hands of one function.
pub struct Hands {
    /// Whose board.
    pub controls: Arc<Controls>,
    /// Who asks.
    pub function: FunctionName,
}

impl Hands {
    fn hardware(&self) -> Result<&Hardware, HardwareError> {
        self.controls.hardware.as_ref().ok_or(HardwareError::NotFound)
    }
}

impl holm_runtime::Hardware for Hands {
    fn read(&mut self, sensor: &str, timeout: Duration) -> Result<Vec<Reading>, HardwareError> {
        self.hardware()?.read(sensor, timeout).map_err(answer)
    }

    fn latest(&mut self, sensor: &str, timeout: Duration) -> Result<Vec<Reading>, HardwareError> {
        self.hardware()?.latest(sensor, timeout).map_err(answer)
    }

    fn level(&mut self, line: &str) -> Result<Level, HardwareError> {
        self.hardware()?.level(line).map_err(answer)
    }

    fn set(&mut self, line: &str, level: Level) -> Result<(), HardwareError> {
        let hardware = self.hardware()?;
        // Held while the line is driven: see the module's text.
        let in_charge = self.controls.in_charge.read().unwrap_or_else(PoisonError::into_inner);
        if !in_charge.iter().any(|(function, driven)| *function == self.function && driven.as_str() == line) {
            return Err(HardwareError::Denied(format!("`{line}` has been taken away from this function")));
        }
        hardware.set(line, level).map_err(answer)
    }

    fn i2c(
        &mut self,
        bus: &str,
        address: u8,
        parts: Vec<I2cPart>,
        timeout: Duration,
    ) -> Result<Vec<Vec<u8>>, HardwareError> {
        self.hardware()?.i2c(bus, address, parts, timeout).map_err(answer)
    }

    fn spi(&mut self, device: &str, parts: Vec<SpiPart>, timeout: Duration) -> Result<Vec<Vec<u8>>, HardwareError> {
        self.hardware()?.spi(device, parts, timeout).map_err(answer)
    }
}

fn answer(error: BoardError) -> HardwareError {
    match error {
        BoardError::UnknownSensor(_) | BoardError::UnknownLine(_) | BoardError::UnknownBus(_) => {
            HardwareError::NotFound
        }
        BoardError::NoAnswer { .. } => HardwareError::NoAnswer,
        BoardError::Timeout { .. } => HardwareError::Timeout,
        BoardError::Bus { reason, .. } => HardwareError::Bus(reason.to_string()),
        BoardError::Direction { .. } => HardwareError::Invalid(error.to_string()),
        other => HardwareError::Unavailable(other.to_string()),
    }
}
