//! A thread that runs guests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use holm_core::{Event, Fault, FunctionName, Outcome, Usage};
use holm_runtime::{Prepared, thread_time};
use holm_store::{Account, StateReader};

use super::host::NodeHost;
use super::settle::{Held, Verdict};
use super::slot::Next;
use super::{Dispatcher, Loaded, Slot};
use crate::breadcrumb::Breadcrumb;

/// Jobs of one function in a row, before other functions get their turn.
const TURN: usize = 64;

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
    /// What settled jobs have set free.
    held: Arc<Mutex<Vec<Held>>>,
}

impl Worker {
    /// A worker with a reader of its own.
    pub fn new(dispatcher: Arc<Dispatcher>, breadcrumb: Breadcrumb) -> Result<Self, holm_store::StoreError> {
        let reader = Arc::new(Mutex::new(dispatcher.store.reader()?));
        Ok(Self { dispatcher, reader, breadcrumb, warm: Vec::new(), held: Arc::default() })
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
            if slot.loaded().is_none_or(|now| now.generation != loaded.generation) {
                break;
            }
        }
        self.dispatcher.unreserve(memory);
        // More may wait; go to the back of the queue with the place we hold in the slot.
        self.dispatcher.run_queue.push(slot.clone());
    }

    fn run_job(&mut self, slot: &Arc<Slot>, loaded: &Arc<Loaded>, job: super::Job) {
        let event = job.event.clone();
        let hops = event.hops;
        let mut job = Some(job);
        for rerun in 0.. {
            let generation = self.dispatcher.store.generation();
            let children = super::host::Children::default();
            let outcome = if rerun < MAX_RERUNS {
                self.invoke(slot, loaded, &event, hops, children.clone())
            } else {
                failed("what it reads keeps changing".into())
            };
            let quick = outcome.usage.wall < QUICK;
            let Some(this) = job.take() else { return };
            let children = std::mem::take(&mut *super::lock(&children));
            match self.dispatcher.settle(slot, loaded, this, outcome, children, generation, &super::lock(&self.reader))
            {
                Verdict::Settled(held) => {
                    let mut all = super::lock(&self.held);
                    all.extend(held);
                    let enough = all.len() >= HOLD;
                    drop(all);
                    if !quick || enough || slot.waiting() == 0 {
                        self.dispatcher.let_all_go(&self.held);
                    }
                    break;
                }
                Verdict::RunAgain(this) => job = Some(this),
            }
        }
        // The answer has gone out: now is the time to make the next instance.
        self.prepare(slot, loaded);
    }

    fn invoke(
        &mut self,
        slot: &Slot,
        loaded: &Loaded,
        event: &Event,
        hops: u8,
        children: super::host::Children,
    ) -> Outcome {
        let warm = self.warm.iter().position(|(name, _, _)| *name == slot.name).map(|at| self.warm.remove(at));
        let prepared = match warm {
            Some((_, generation, prepared)) if generation == loaded.generation => Ok(prepared),
            _ => loaded.function.prepare(),
        };
        match prepared {
            Ok(prepared) => {
                let host = NodeHost {
                    dispatcher: self.dispatcher.clone(),
                    reader: self.reader.clone(),
                    children,
                    depth: 0,
                    hops,
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
        if let Ok(prepared) = loaded.function.prepare() {
            self.warm.push((slot.name.clone(), loaded.generation, prepared));
        }
    }
}

/// An invocation that could not take place.
fn failed(reason: String) -> Outcome {
    Outcome {
        result: Err(Fault::Unavailable { reason }),
        effects: holm_core::Effects::default(),
        reads: Vec::new(),
        logs: Vec::new(),
        usage: Usage::default(),
        recording: None,
    }
}
