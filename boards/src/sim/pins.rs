//! Simulated lines: inputs that follow a script or are driven from outside, outputs that remember.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use holm_core::Level;

use super::lock;
use crate::bindings::{Bindings, Direction, EdgeScript, FaultKind, FaultScript, LineBinding};
use crate::board::{Edges, Line, RawEdge};
use crate::debounce::Debouncer;
use crate::{BoardError, Clock};

/// How many more changes come with one that bounces, and how far apart. Even, so that they end where they should.
const BOUNCES: u32 = 6;
const BOUNCE: Duration = Duration::from_micros(300);

/// The most changes that wait for somebody to look. The kernel keeps sixteen a line.
const MAX_WAITING: usize = 4096;

pub(super) struct SimPins {
    clock: Clock,
    start: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By the name of the binding.
    inputs: BTreeMap<String, Wire>,
    outputs: BTreeMap<String, Level>,
    /// The inputs that are watched, as they were opened.
    watched: Vec<String>,
    woken: bool,
}

/// An input.
struct Wire {
    level: Level,
    script: Option<Script>,
    faults: Vec<FaultScript>,
    /// Changes from outside, in the order of time.
    driven: VecDeque<(Level, Duration)>,
    /// The kernel's own debouncing.
    debouncer: Debouncer,
}

struct Script {
    edges: EdgeScript,
    /// How many of its changes have happened.
    done: u32,
    /// The changes of the one that is happening now.
    burst: VecDeque<(Level, Duration)>,
}

impl Script {
    /// When its change number `index` is.
    fn time(&self, index: u32) -> Option<Duration> {
        if let Some(at) = self.edges.at.get(index as usize) {
            return Some(*at);
        }
        let beyond = index.saturating_sub(u32::try_from(self.edges.at.len()).ok()?);
        let from = self.edges.at.last().copied().unwrap_or_default();
        Some(from.saturating_add(self.edges.every?.saturating_mul(beyond.saturating_add(1))))
    }

    /// Its next change that is not yet taken.
    fn peek(&mut self, faults: &[FaultScript]) -> Option<(Level, Duration)> {
        if self.burst.is_empty() {
            let at = self.time(self.done)?;
            let level = if self.done.is_multiple_of(2) { !self.edges.initial } else { self.edges.initial };
            self.burst.push_back((level, at));
            let bounces = |fault: &FaultScript| fault.kind == FaultKind::Bounce && (fault.from..fault.to).contains(&at);
            if faults.iter().any(bounces) {
                for index in 1..=BOUNCES {
                    let level = if index.is_multiple_of(2) { level } else { !level };
                    self.burst.push_back((level, at.saturating_add(BOUNCE * index)));
                }
            }
        }
        self.burst.front().copied()
    }

    fn take(&mut self) {
        self.burst.pop_front();
        if self.burst.is_empty() {
            self.done = self.done.saturating_add(1);
        }
    }
}

impl Wire {
    /// Lets everything happen that is due, and answers with what has settled.
    fn advance(&mut self, now: Duration) -> Vec<(Level, Duration)> {
        let mut settled = Vec::new();
        loop {
            let scripted = self.script.as_mut().and_then(|script| script.peek(&self.faults));
            let scripted = scripted.filter(|(_, at)| *at <= now);
            let driven = self.driven.front().copied();
            let (level, at) = match (scripted, driven) {
                (Some(scripted), Some(driven)) if scripted.1 <= driven.1 => scripted,
                (Some(scripted), None) => scripted,
                (_, Some(driven)) => driven,
                (None, None) => break,
            };
            settled.extend(self.debouncer.settled(at));
            if scripted == Some((level, at)) {
                if let Some(script) = &mut self.script {
                    script.take();
                }
            } else {
                self.driven.pop_front();
            }
            if level != self.level {
                self.level = level;
                self.debouncer.feed(level, at);
                settled.extend(self.debouncer.settled(at));
            }
        }
        settled.extend(self.debouncer.settled(now));
        settled
    }

    fn next(&mut self) -> Option<Duration> {
        let scripted = self.script.as_mut().and_then(|script| script.peek(&self.faults)).map(|(_, at)| at);
        [scripted, self.driven.front().map(|(_, at)| *at), self.debouncer.deadline()].into_iter().flatten().min()
    }
}

impl SimPins {
    pub(super) fn new(bindings: &Bindings, clock: Clock, start: Duration) -> Self {
        let mut state = State::default();
        for line in &bindings.lines {
            let Direction::In { debounce, .. } = line.direction else { continue };
            let edges = bindings.sim.edges.iter().rev().find(|edges| edges.line == line.name).cloned();
            let level = edges.as_ref().map_or(Level::Low, |edges| edges.initial);
            let faults = bindings.sim.faults.iter().filter(|fault| fault.target == line.name).cloned().collect();
            let script = edges.map(|edges| Script { edges, done: 0, burst: VecDeque::new() });
            let debouncer = Debouncer::new(debounce, level);
            let wire = Wire { level, script, faults, driven: VecDeque::new(), debouncer };
            state.inputs.insert(line.name.to_string(), wire);
        }
        Self { clock, start, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn now(&self) -> Duration {
        self.clock.now().saturating_sub(self.start)
    }

    pub(super) fn drive(&self, line: &str, level: Level) -> bool {
        let now = self.now();
        let mut state = lock(&self.state);
        let Some(wire) = state.inputs.get_mut(line) else { return false };
        if wire.driven.len() < MAX_WAITING {
            wire.driven.push_back((level, now));
        }
        self.changed.notify_all();
        true
    }

    pub(super) fn output(&self, line: &str) -> Option<Level> {
        lock(&self.state).outputs.get(line).copied()
    }

    pub(super) fn open_output(pins: &Arc<Self>, line: &LineBinding) -> Result<Arc<dyn Line>, BoardError> {
        let level = line.safe().unwrap_or(Level::Low);
        lock(&pins.state).outputs.insert(line.name.to_string(), level);
        Ok(Arc::new(Output { pins: pins.clone(), name: line.name.to_string() }))
    }

    pub(super) fn open_input(pins: &Arc<Self>, line: &LineBinding) -> Result<Arc<dyn Line>, BoardError> {
        let now = pins.now();
        let missing = lock(&pins.state).inputs.get(line.name.as_str()).is_none_or(|wire| {
            wire.faults.iter().any(|fault| fault.kind == FaultKind::Missing && (fault.from..fault.to).contains(&now))
        });
        if missing {
            return Err(BoardError::Open { what: line.line.clone(), reason: "there is no such line".into() });
        }
        Ok(Arc::new(Input { pins: pins.clone(), name: line.name.to_string() }))
    }

    pub(super) fn watch(&self, lines: &[LineBinding]) {
        lock(&self.state).watched = lines.iter().map(|line| line.name.to_string()).collect();
    }
}

impl Edges for SimPins {
    fn wait(&self, timeout: Option<Duration>) -> Vec<RawEdge> {
        let until = timeout.map(|timeout| self.now().saturating_add(timeout));
        let mut state = lock(&self.state);
        loop {
            let now = self.now();
            let State { inputs, watched, woken, .. } = &mut *state;
            let mut edges = Vec::new();
            let mut next: Option<Duration> = None;
            for (input, name) in watched.iter().enumerate() {
                let Some(wire) = inputs.get_mut(name) else { continue };
                let settled = wire.advance(now).into_iter();
                edges.extend(settled.map(|(level, at)| RawEdge { input, level, at: self.start.saturating_add(at) }));
                next = next.into_iter().chain(wire.next()).min();
            }
            edges.sort_by_key(|edge| edge.at);
            if !edges.is_empty() || std::mem::take(woken) || until.is_some_and(|until| until <= now) {
                return edges;
            }
            let wake = next.into_iter().chain(until).min();
            match (&self.clock, wake) {
                (Clock::Manual(_), Some(wake)) => self.clock.advance(wake.saturating_sub(now)),
                (Clock::Manual(_), None) => return Vec::new(),
                (Clock::Monotonic, wake) => {
                    let longest = wake.map_or(Duration::from_secs(3600), |wake| wake.saturating_sub(now));
                    let waited = self.changed.wait_timeout(state, longest);
                    state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
                }
            }
        }
    }

    fn wake(&self) {
        lock(&self.state).woken = true;
        self.changed.notify_all();
    }
}

struct Input {
    pins: Arc<SimPins>,
    name: String,
}

impl Line for Input {
    fn level(&self) -> Result<Level, BoardError> {
        let now = self.pins.now();
        let mut state = lock(&self.pins.state);
        let watched = state.watched.contains(&self.name);
        let wire = state.inputs.get_mut(&self.name).ok_or(BoardError::Stopped)?;
        if !watched {
            wire.advance(now);
        }
        Ok(wire.driven.back().map_or(wire.level, |(level, _)| *level))
    }

    fn set(&self, _: Level) -> Result<(), BoardError> {
        Err(BoardError::Direction { line: self.name.clone(), is: "input" })
    }
}

struct Output {
    pins: Arc<SimPins>,
    name: String,
}

impl Line for Output {
    fn level(&self) -> Result<Level, BoardError> {
        self.pins.output(&self.name).ok_or(BoardError::Stopped)
    }

    fn set(&self, level: Level) -> Result<(), BoardError> {
        lock(&self.pins.state).outputs.insert(self.name.clone(), level);
        Ok(())
    }
}
