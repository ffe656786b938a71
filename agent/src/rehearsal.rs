//! A rehearsal: this node, with a clock that stands still. `holm test` sets it forward, moves the simulated board, and
//! reads the tape. Everything else is the node as it is: there is no second runtime, dispatcher or store.
//!
//! # How time passes
//!
//! [`Rehearsal::advance`] goes from one moment at which something is due to the next: a schedule, an event in the inbox
//! (a retry, a message with a delay), a reading that a function asks for, a function whose rate allows another event. At
//! each of them the clock is set, what is due happens, and the node comes to rest before time goes on. It is at rest
//! when all workers wait for something to run, the store has committed what was queued, and no row of the inbox is due
//! that could run. So what happens does not depend on how fast the machine is.
//!
//! Sensors are read when their time has come, and never by their owners' own clocks, which run. A line that is moved has
//! its debouncing in real time; the call waits until it has settled.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holm_boards::Sim;
use holm_core::{FunctionName, Label, Level, Timestamp};

use crate::clock;
use crate::dispatch::Dispatcher;
use crate::triggers::file::{self, Folders};
use crate::triggers::http::{Asked, Door, Reply};
use crate::triggers::schedule::Schedules;

/// The longest that the node may take to come to rest, by a real clock.
const REST: Duration = Duration::from_secs(60);

/// Between two looks whether it has.
const LOOK: Duration = Duration::from_micros(200);

/// Moments at which something is due in one call: beyond them the call asks for too much.
const MAX_STOPS: u32 = 1_000_000;

/// The longest that a reading may take.
const READING: Duration = Duration::from_secs(10);

/// Why a rehearsal cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// Something always remains to be done.
    #[error("the node has not come to rest for {} s: do its functions start each other for ever?", REST.as_secs())]
    Restless,
    /// Too much is due.
    #[error("more than {MAX_STOPS} things are due in that time: set the clock forward by less")]
    TooLong,
    /// Not on this node.
    #[error("{0}")]
    NotFound(String),
    /// Reading or committing.
    #[error("the store does not work")]
    Store(#[from] holm_store::StoreError),
    /// The store refuses.
    #[error("the store cannot commit")]
    Commit(#[from] holm_store::CommitError),
}

/// See the module's text.
pub struct Rehearsal {
    dispatcher: Arc<Dispatcher>,
    sim: Option<Sim>,
    folders: Arc<Folders>,
    door: Option<Arc<Door>>,
    workers: usize,
    /// Held for the whole of a call: time passes for one at a time.
    stage: Mutex<Stage>,
}

#[derive(Default)]
struct Stage {
    schedules: Schedules,
    /// When the next schedule fires.
    next: Option<i64>,
    /// When sensors are read next, and how often.
    sensors: BTreeMap<Label, (i64, i64)>,
}

impl Rehearsal {
    /// For a node whose clock stands still.
    pub fn new(
        dispatcher: Arc<Dispatcher>,
        sim: Option<Sim>,
        folders: Arc<Folders>,
        door: Option<Arc<Door>>,
        workers: usize,
    ) -> Self {
        Self { dispatcher, sim, folders, door, workers, stage: Mutex::default() }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing is left to do at this moment. Blocks, as all of these do.
    pub fn settle(&self) -> Result<Timestamp, RehearsalError> {
        self.happen(&mut self.stage())?;
        Ok(clock::now())
    }

    /// Lets so much time pass.
    pub fn advance(&self, by: Duration) -> Result<Timestamp, RehearsalError> {
        self.advance_to(&mut self.stage(), later(by))
    }

    /// Lets time pass until a schedule of a function fires.
    pub fn fire(&self, function: &FunctionName, schedule: &str) -> Result<Timestamp, RehearsalError> {
        let mut stage = self.stage();
        self.happen(&mut stage)?;
        let at = stage.schedules.next_of(function, schedule).map_err(|names| {
            let names: Vec<&str> = names.iter().map(|name| &**name).collect();
            let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            RehearsalError::NotFound(format!("{function} has no schedule `{schedule}`; it has {has}"))
        })?;
        self.advance_to(&mut stage, at)
    }

    /// Sets what a sensor measures, and lets time pass until it is read the next time, if any function asks for that.
    pub fn measure(&self, sensor: &str, values: &BTreeMap<String, f64>) -> Result<Timestamp, RehearsalError> {
        let sim = self.sim()?;
        for (channel, value) in values {
            sim.measure(sensor, channel, *value).map_err(RehearsalError::NotFound)?;
        }
        let mut stage = self.stage();
        self.happen(&mut stage)?;
        match stage.sensors.iter().find(|(name, _)| name.as_str() == sensor).map(|(_, (due, _))| *due) {
            Some(due) => self.advance_to(&mut stage, due),
            None => Ok(clock::now()),
        }
    }

    /// Moves an input, and waits until every function that watches for that edge has been told.
    pub fn drive(&self, line: &str, level: Level) -> Result<Timestamp, RehearsalError> {
        let sim = self.sim()?;
        let stage = self.stage();
        let controls = &self.dispatcher.controls;
        let known = controls.hardware().and_then(|hardware| hardware.level(line).ok());
        let expected = if known == Some(level) { 0 } else { controls.edges().watching(line, level) };
        let before = controls.edges().told();
        if !sim.drive(line, level) {
            return Err(RehearsalError::NotFound(format!("this node has no input `{line}`: bind it with [[gpio]]")));
        }
        let deadline = Instant::now() + REST;
        while controls.edges().told() < before + expected {
            if Instant::now() > deadline {
                return Err(RehearsalError::Restless);
            }
            std::thread::sleep(LOOK);
        }
        self.rest(&stage)?;
        Ok(clock::now())
    }

    /// Puts a file into a folder, whole, and waits until every function that watches for it has been told.
    pub fn put(&self, folder: &str, name: &str, data: &[u8]) -> Result<Timestamp, RehearsalError> {
        let path = self.folders.path(folder).ok_or_else(|| {
            let names: Vec<&str> = self.folders.names().map(Label::as_str).collect();
            let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            RehearsalError::NotFound(format!(
                "this node has no folder `{folder}`; it has {has}: bind it with [[folder]]"
            ))
        })?;
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(RehearsalError::NotFound(format!(
                "`{name}` is not the name of a file that a function may see"
            )));
        }
        let stage = self.stage();
        let wanted = file::wanted(&self.dispatcher);
        let concerned = |trigger: &holm_core::FileTrigger| {
            trigger.folder.as_str() == folder && name.len() > trigger.suffix.len() && name.ends_with(&*trigger.suffix)
        };
        let expected = wanted.iter().filter(|(_, trigger, _)| concerned(trigger)).count() as u64;
        let deadline = Instant::now() + REST;
        let wait = |done: &dyn Fn() -> bool| {
            while !done() {
                if Instant::now() > deadline {
                    return Err(RehearsalError::Restless);
                }
                std::thread::sleep(LOOK);
            }
            Ok(())
        };
        // What is there before anybody watches is nobody's new file.
        wait(&|| self.folders.watching() >= wanted.len())?;
        let before = self.folders.told();
        let hidden = path.join(format!(".{name}.part"));
        std::fs::write(&hidden, data)
            .and_then(|()| std::fs::rename(&hidden, path.join(name)))
            .map_err(|error| RehearsalError::NotFound(format!("cannot write into {}: {error}", path.display())))?;
        wait(&|| self.folders.told() >= before + expected)?;
        self.rest(&stage)?;
        Ok(clock::now())
    }

    /// Asks as a client of the HTTP listener would.
    pub async fn ask(&self, asked: Asked) -> Result<Reply, RehearsalError> {
        let missing = || RehearsalError::NotFound("this node listens for no requests ([http] listen)".into());
        Ok(self.door.as_ref().ok_or_else(missing)?.ask(asked).await)
    }

    fn sim(&self) -> Result<&Sim, RehearsalError> {
        let missing = || RehearsalError::NotFound("this node has no simulated board: bind a sensor or line".into());
        self.sim.as_ref().ok_or_else(missing)
    }

    fn advance_to(&self, stage: &mut Stage, end: i64) -> Result<Timestamp, RehearsalError> {
        self.happen(stage)?;
        for _ in 0..MAX_STOPS {
            let now = clock::now().0;
            if now >= end {
                return Ok(Timestamp(now));
            }
            let next = self.next(stage)?.filter(|next| *next > now).map_or(end, |next| next.min(end));
            clock::set_forward(Timestamp(next));
            self.happen(stage)?;
        }
        Err(RehearsalError::TooLong)
    }

    /// Does what is due now, and all that comes of it.
    fn happen(&self, stage: &mut Stage) -> Result<(), RehearsalError> {
        let now = clock::now().0;
        self.plan(stage, now);
        for (sensor, (due, interval)) in &mut stage.sensors {
            if *due > now {
                continue;
            }
            *due = now.saturating_add(*interval);
            if let Some(hardware) = self.dispatcher.controls.hardware()
                && let Err(error) = hardware.read(sensor.as_str(), READING)
            {
                tracing::warn!(%sensor, %error, "a sensor cannot be read");
            }
        }
        for slot in self.dispatcher.active().slots.values() {
            self.dispatcher.rouse(slot);
        }
        self.dispatcher.look();
        stage.next = stage.schedules.turn(&self.dispatcher);
        self.rest(stage)
    }

    /// Takes over what functions ask of sensors now.
    fn plan(&self, stage: &mut Stage, now: i64) {
        let wanted = self.dispatcher.controls.intervals();
        stage.sensors.retain(|sensor, _| wanted.contains_key(sensor));
        for (sensor, interval) in wanted {
            let interval = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
            let planned = stage.sensors.entry(sensor).or_insert((now.saturating_add(interval), interval));
            if planned.1 != interval {
                *planned = (now.saturating_add(interval), interval);
            }
        }
    }

    /// When something is due next.
    fn next(&self, stage: &Stage) -> Result<Option<i64>, RehearsalError> {
        let now = clock::now();
        let inbox = self.dispatcher.store.next_due_after(now)?.map(|at| at.0);
        let sensors = stage.sensors.values().map(|(due, _)| *due).min();
        let active = self.dispatcher.active();
        let rate = active.slots.values().filter(|slot| slot.waiting() > 0).filter_map(|slot| {
            let rate = slot.loaded()?.manifest.limits.rate?;
            Some(now.0.saturating_add(((1_000.0 / rate).ceil() as i64).max(1)))
        });
        Ok([stage.next, inbox, sensors].into_iter().flatten().chain(rate).min())
    }

    /// Waits until the node is at rest.
    fn rest(&self, _: &Stage) -> Result<(), RehearsalError> {
        let deadline = Instant::now() + REST;
        loop {
            if let Some(pushed) = self.dispatcher.at_rest(self.workers) {
                // What was queued before this is committed after it, and what the commits set free is in the run queue.
                self.dispatcher.store.commit(Vec::new())?;
                if self.dispatcher.at_rest(self.workers) == Some(pushed) && !self.dispatcher.is_hungry()? {
                    return Ok(());
                }
            }
            if Instant::now() > deadline {
                return Err(RehearsalError::Restless);
            }
            std::thread::sleep(LOOK);
        }
    }
}

fn later(by: Duration) -> i64 {
    clock::now().0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX))
}
