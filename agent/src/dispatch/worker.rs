//! A thread that runs guests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use holm_core::{Event, Fault, FunctionName, Outcome, Usage};
use holm_runtime::{Prepared, RuntimeError, thread_time};
use holm_store::{Account, StateReader};

use super::host::{NO_MEMORY, NodeHost, Step, Steps};
use super::settle::{Held, Verdict};
use super::slot::Next;
use super::{Dispatcher, Loaded, Slot};
use crate::breadcrumb::Breadcrumb;
use crate::clock;
use crate::controls::Hands;
use crate::record::{Ended, RECORDING};
use crate::recordings::pack;
use crate::traps::is_trap;

/// Jobs of one function in a row, before other functions get their turn.
const TURN: usize = 64;

/// The same in time: no job is begun after this long. Jobs that take their time would else hold a worker for seconds.
const TURN_TIME: Duration = Duration::from_millis(20);

/// Functions for which a worker keeps a prepared instance.
const WARM: usize = 2;

/// Settled jobs whose effects are let go together while more of the function's jobs wait: subscribers are woken, and
/// sockets written, once for all of them.
const HOLD: usize = 16;

/// A job that took longer lets go at once whatever is held.
const QUICK: Duration = Duration::from_micros(100);

/// How often an invocation is run again because what it read had changed.
const MAX_RERUNS: u32 = 32;

/// Runs guests until the dispatcher drains. Its owner gives it a thread.
pub struct Worker {
    dispatcher: Arc<Dispatcher>,
    reader: Arc<Mutex<StateReader>>,
    breadcrumb: Breadcrumb,
    /// Prepared instances, most recently used last.
    warm: Vec<(FunctionName, u64, Prepared)>,
    /// Buffers for what guests are told, used again and again: one for each prepared instance.
    spare: Vec<Vec<u8>>,
    /// The last invocation, as it may be kept; used again and again too.
    packed: Vec<u8>,
    /// What settled jobs have set free.
    held: Arc<Mutex<Vec<Held>>>,
}

impl Dispatcher {
    /// Whether what guests are told is recorded.
    pub(super) fn records(&self) -> bool {
        self.traps.keeps() || self.journal.recordings.is_some()
    }
}

impl Worker {
    /// A worker with a reader of its own.
    pub fn new(dispatcher: Arc<Dispatcher>, breadcrumb: Breadcrumb) -> Result<Self, holm_store::StoreError> {
        let reader = Arc::new(Mutex::new(dispatcher.store.reader()?));
        Ok(Self {
            dispatcher,
            reader,
            breadcrumb,
            warm: Vec::new(),
            spare: Vec::new(),
            packed: Vec::new(),
            held: Arc::default(),
        })
    }

    /// Works until the run queue is closed and empty. Blocks.
    pub fn run(mut self) {
        let dispatcher = self.dispatcher.clone();
        loop {
            let slot = match dispatcher.run_queue.try_pop() {
                Some(slot) => slot,
                None => {
                    // Idle: whatever takes the node down now, no function is to blame.
                    self.breadcrumb.clear();
                    match dispatcher.run_queue.pop() {
                        Some(slot) => slot,
                        None => return,
                    }
                }
            };
            let begin = thread_time();
            self.turn(&slot);
            dispatcher.let_all_go(&self.held);
            let spent = thread_time().saturating_sub(begin);
            let cpu_us = u64::try_from(spent.as_micros()).unwrap_or(u64::MAX);
            dispatcher.store.account(&slot.name, &Account { cpu_us, ..Account::default() });
        }
    }

    /// Runs some of a slot's jobs.
    fn turn(&mut self, slot: &Arc<Slot>) {
        let Some(loaded) = slot.loaded() else {
            slot.leave();
            return;
        };
        let memory = loaded.manifest.limits.memory;
        if !self.dispatcher.reserve(memory) {
            // Other guests hold the budget, and each of them has a deadline.
            std::thread::sleep(Duration::from_millis(1));
            self.dispatcher.run_queue.push(slot.clone());
            return;
        }
        self.breadcrumb.mark(&slot.name);
        let begin = Instant::now();
        for _ in 0..TURN {
            match slot.next(&loaded) {
                Next::Job(job) => self.run_job(slot, &loaded, job),
                Next::Empty => {
                    self.dispatcher.unreserve(memory);
                    return;
                }
                Next::NotYet(wait) => {
                    self.dispatcher.unreserve(memory);
                    self.dispatcher.rouse_later(slot, wait);
                    return;
                }
            }
            let replaced = slot.loaded().is_none_or(|now| now.generation != loaded.generation);
            if replaced || begin.elapsed() >= TURN_TIME {
                break;
            }
        }
        self.dispatcher.unreserve(memory);
        // More may wait; go to the back of the queue with the place we hold in the slot.
        self.dispatcher.run_queue.push(slot.clone());
    }

    fn run_job(&mut self, slot: &Arc<Slot>, loaded: &Arc<Loaded>, job: super::Job) {
        let event = job.event.clone();
        let mut job = Some(job);
        for rerun in 0.. {
            let generation = self.dispatcher.store.generation();
            let (steps, starved) = (Steps::default(), Arc::new(AtomicBool::new(false)));
            let mut outcome = if rerun < MAX_RERUNS {
                self.invoke(slot, loaded, &event, steps.clone(), starved.clone())
            } else {
                failed("what it reads keeps changing".into())
            };
            if outcome.result.is_err() && starved.load(Ordering::Relaxed) {
                // It failed for want of the node's memory, and not by itself: the attempt does not count.
                outcome.result = Err(Fault::Unavailable { reason: NO_MEMORY.to_owned() });
            }
            let quick = outcome.usage.wall < QUICK;
            let Some(this) = job.take() else { return };
            let steps = std::mem::take(&mut *super::lock(&steps));
            let trap = self.look(loaded, &event, &mut outcome, &steps);
            match self.dispatcher.settle(slot, loaded, this, outcome, steps, generation, &super::lock(&self.reader)) {
                Verdict::Settled(held) => {
                    self.let_go(slot, held, quick);
                    self.keep(loaded, trap);
                    break;
                }
                Verdict::RunAgain(this) => job = Some(this),
            }
        }
        // The answer has gone out: now is the time to make the next instance.
        self.prepare(slot, loaded);
    }

    /// What may be kept of an invocation, before it has settled: of a trap its end, and of any, packed, on a node that keeps all.
    fn look(
        &mut self,
        loaded: &Arc<Loaded>,
        event: &Arc<Event>,
        outcome: &mut Outcome,
        steps: &[Step],
    ) -> Option<Ended> {
        self.packed.clear();
        let recording = outcome.recording.take()?;
        let trapped = outcome.result.as_ref().is_err_and(is_trap);
        let logs = if trapped { outcome.logs.as_slice() } else { &[] };
        if self.dispatcher.journal.recordings.is_some() {
            let own = steps.iter().filter(|step| Arc::ptr_eq(&step.loaded, loaded)).map(|step| &step.effects);
            pack(&mut self.packed, event, outcome, own, logs, &recording);
        }
        let trap = trapped.then(|| Ended {
            loaded: loaded.clone(),
            event: event.clone(),
            time: clock::now(),
            fault: outcome.result.as_ref().err().cloned(),
            did: None,
            logs: logs.to_vec(),
            usage: outcome.usage,
            recording: recording.clone(),
        });
        self.spare(recording.bytes);
        trap
    }

    /// Keeps an invocation that has settled.
    fn keep(&self, loaded: &Arc<Loaded>, trap: Option<Ended>) {
        if let (Some(recordings), false) = (&self.dispatcher.journal.recordings, self.packed.is_empty()) {
            recordings.push(loaded, clock::now(), &self.packed);
        }
        if let Some(trap) = trap {
            self.dispatcher.traps.note(Arc::new(trap));
        }
    }

    /// Takes a buffer back, unless a large answer has made it large.
    fn spare(&mut self, buffer: Vec<u8>) {
        if buffer.capacity() <= 2 * RECORDING {
            self.spare.push(buffer);
        }
    }

    /// An instance that records, where that is wanted.
    fn make(&mut self, loaded: &Loaded) -> Result<Prepared, RuntimeError> {
        if self.dispatcher.records() {
            loaded.prepare_recorded(self.spare.pop().unwrap_or_default())
        } else {
            loaded.prepare()
        }
    }

    /// Lets a settled job's effects go, or holds them for those of the next.
    fn let_go(&self, slot: &Slot, held: Option<Held>, quick: bool) {
        let mut all = super::lock(&self.held);
        all.extend(held);
        let enough = all.len() >= HOLD;
        drop(all);
        if !quick || enough || slot.waiting() == 0 {
            self.dispatcher.let_all_go(&self.held);
        }
    }

    fn invoke(
        &mut self,
        slot: &Slot,
        loaded: &Arc<Loaded>,
        event: &Event,
        steps: Steps,
        starved: Arc<AtomicBool>,
    ) -> Outcome {
        let warm = self.warm.iter().position(|(name, _, _)| *name == slot.name).map(|at| self.warm.remove(at));
        let prepared = match warm {
            Some((_, generation, prepared)) if generation == loaded.generation => Ok(prepared),
            _ => self.make(loaded),
        };
        match prepared {
            Ok(prepared) => {
                let host = NodeHost {
                    dispatcher: self.dispatcher.clone(),
                    reader: self.reader.clone(),
                    loaded: loaded.clone(),
                    steps,
                    starved,
                    memory: loaded.manifest.limits.memory,
                    depth: 0,
                    hops: event.hops,
                    hands: Hands { controls: self.dispatcher.controls.clone(), function: slot.name.clone() },
                    held: self.held.clone(),
                };
                prepared.call(event, Box::new(host))
            }
            Err(error) => failed(error.to_string()),
        }
    }

    fn prepare(&mut self, slot: &Slot, loaded: &Loaded) {
        if self.warm.iter().any(|(name, generation, _)| *name == slot.name && *generation == loaded.generation) {
            return;
        }
        if self.warm.len() >= WARM {
            self.warm.remove(0);
        }
        // A failure shows when the instance is needed.
        if let Ok(prepared) = self.make(loaded) {
            self.warm.push((slot.name.clone(), loaded.generation, prepared));
        }
    }
}

/// An invocation that could not take place.
fn failed(reason: String) -> Outcome {
    Outcome {
        result: Err(Fault::Unavailable { reason }),
        response: None,
        effects: holm_core::Effects::default(),
        reads: Vec::new(),
        logs: Vec::new(),
        usage: Usage::default(),
        recording: None,
    }
}
