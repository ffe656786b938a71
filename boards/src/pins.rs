//! The lines of a node: outputs that are safe while nobody is in charge of them, inputs whose edges are watched.
//!
//! # Safe levels
//!
//! An output is driven to its safe level when the node takes it at start, when no function is granted it any more, and
//! when the node ends: by [`Pins::stop`], and by dropping, so that a panic that unwinds does it too. A process that is
//! killed cannot do it; then whoever starts the node does, because the first thing that happens to an output is its
//! safe level, and `holmd safe-outputs` does it from the service manager at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use holm_core::{Edge, Label, Level, Timestamp};

use crate::bindings::{Bindings, LineBinding};
use crate::board::{Edges, Line, RawEdge};
use crate::debounce::Debouncer;
use crate::hardware::{Listener, lock};
use crate::{Board, BoardError};

/// Who wants to know of edges of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// For whoever set it.
    pub id: u64,
    /// Which input.
    pub line: Label,
    /// Which edges.
    pub edge: Edge,
    /// How long the line must hold still, beyond what its binding says.
    pub debounce: Duration,
}

/// An edge that was watched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fired {
    /// The watch's.
    pub id: u64,
    /// Which line.
    pub line: Label,
    /// What it is at.
    pub level: Level,
    /// When it came to rest there, by the node's clock.
    pub time: Timestamp,
    /// The same by the board's clock.
    pub at: Duration,
}

pub(crate) struct Pins {
    board: Arc<dyn Board>,
    outputs: Vec<Output>,
    inputs: Vec<Input>,
    edges: Option<Arc<dyn Edges>>,
    watches: Mutex<Vec<Watching>>,
    stopped: AtomicBool,
}

struct Output {
    binding: LineBinding,
    /// `None` while it could not be taken, and after the end.
    line: Mutex<Option<Arc<dyn Line>>>,
}

struct Input {
    binding: LineBinding,
    line: Result<Arc<dyn Line>, BoardError>,
}

struct Watching {
    watch: Watch,
    input: usize,
    debouncer: Debouncer,
}

impl Pins {
    /// Takes all lines that are bound. One that cannot be taken is warned of and answers why.
    pub(crate) fn new(board: &Arc<dyn Board>, bindings: &Bindings) -> Self {
        let (outputs, inputs): (Vec<_>, Vec<_>) =
            bindings.lines.iter().cloned().partition(|line| line.safe().is_some());
        let warn = |line: &LineBinding, error: &BoardError| {
            tracing::warn!(line = line.name.as_str(), %error, "a line cannot be used");
        };
        let outputs = outputs
            .into_iter()
            .map(|binding| {
                let taken = board.open_output(&binding).inspect_err(|error| warn(&binding, error));
                Output { line: Mutex::new(taken.ok()), binding }
            })
            .collect();
        let mut edges = None;
        let mut taken = Vec::new();
        if !inputs.is_empty() {
            let (lines, waiting) = board.open_inputs(&inputs);
            edges = Some(waiting);
            for (binding, line) in inputs.into_iter().zip(lines) {
                if let Err(error) = &line {
                    warn(&binding, error);
                }
                taken.push(Input { binding, line });
            }
        }
        Self {
            board: board.clone(),
            outputs,
            inputs: taken,
            edges,
            watches: Mutex::default(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Whether there is anything to watch, and so a thread to run [`Pins::run`].
    pub(crate) fn has_inputs(&self) -> bool {
        self.edges.is_some()
    }

    pub(crate) fn bindings(&self) -> impl Iterator<Item = &LineBinding> {
        self.outputs.iter().map(|output| &output.binding).chain(self.inputs.iter().map(|input| &input.binding))
    }

    pub(crate) fn level(&self, name: &str) -> Result<Level, BoardError> {
        if let Some(input) = self.inputs.iter().find(|input| input.binding.name.as_str() == name) {
            return input.line.as_ref().map_err(Clone::clone)?.level();
        }
        let output = self.output(name)?;
        lock(&output.line).as_ref().ok_or(BoardError::Stopped)?.level()
    }

    pub(crate) fn set(&self, name: &str, level: Level) -> Result<(), BoardError> {
        if self.inputs.iter().any(|input| input.binding.name.as_str() == name) {
            return Err(BoardError::Direction { line: name.to_owned(), is: "input" });
        }
        let output = self.output(name)?;
        let mut line = lock(&output.line);
        // Under the lock, so that what is made safe at the end stays so.
        if self.stopped.load(Ordering::SeqCst) {
            return Err(BoardError::Stopped);
        }
        match &*line {
            Some(line) => line.set(level),
            None => line.insert(self.board.open_output(&output.binding)?).set(level),
        }
    }

    fn output(&self, name: &str) -> Result<&Output, BoardError> {
        let output = self.outputs.iter().find(|output| output.binding.name.as_str() == name);
        output.ok_or_else(|| BoardError::UnknownLine(name.to_owned()))
    }

    /// Drives every output but those that somebody is in charge of to its safe level.
    pub(crate) fn make_safe(&self, in_charge: &dyn Fn(&Label) -> bool) {
        for output in &self.outputs {
            if in_charge(&output.binding.name) {
                continue;
            }
            let Some(safe) = output.binding.safe() else { continue };
            if let Some(line) = &*lock(&output.line)
                && let Err(error) = line.set(safe)
            {
                let line = output.binding.name.as_str();
                tracing::error!(line, %error, "an output cannot be driven to its safe level");
            }
        }
    }

    /// Replaces what is watched for.
    pub(crate) fn watch(&self, watches: Vec<Watch>) -> Vec<BoardError> {
        let mut problems = Vec::new();
        let mut watching = Vec::new();
        let mut old = lock(&self.watches);
        for watch in watches {
            if let Some(at) = old.iter().position(|old| old.watch == watch) {
                // What it has seen of a change counts.
                watching.push(old.swap_remove(at));
                continue;
            }
            let Some(input) = self.inputs.iter().position(|input| input.binding.name == watch.line) else {
                problems.push(match self.output(watch.line.as_str()) {
                    Ok(_) => BoardError::Direction { line: watch.line.to_string(), is: "output" },
                    Err(unknown) => unknown,
                });
                continue;
            };
            match self.level(watch.line.as_str()) {
                Ok(level) => {
                    let debouncer = Debouncer::new(watch.debounce, level);
                    watching.push(Watching { watch, input, debouncer });
                }
                Err(error) => problems.push(error),
            }
        }
        *old = watching;
        problems
    }

    /// Waits for edges until [`Pins::stop`], and tells the listener.
    pub(crate) fn run(&self, now: &(dyn Fn() -> Timestamp + Send + Sync), listener: &OnceLock<Listener>) {
        let Some(edges) = &self.edges else { return };
        let clock = self.board.clock();
        while !self.stopped.load(Ordering::SeqCst) {
            let next = lock(&self.watches).iter().filter_map(|watching| watching.debouncer.deadline()).min();
            let seen = edges.wait(next.map(|at| at.saturating_sub(clock.now())));
            let fired = self.advance(&seen, clock.now());
            let Some(listener) = listener.get() else { continue };
            for (id, line, level, at) in fired {
                let ago = i64::try_from(clock.now().saturating_sub(at).as_millis()).unwrap_or_default();
                let time = Timestamp(now().0.saturating_sub(ago));
                (listener.edge)(&Fired { id, line, level, time, at });
            }
        }
    }

    fn advance(&self, seen: &[RawEdge], now: Duration) -> Vec<(u64, Label, Level, Duration)> {
        let mut fired = Vec::new();
        for watching in lock(&self.watches).iter_mut() {
            let Watching { watch, input, debouncer } = watching;
            let mut settle = |debouncer: &mut Debouncer, now| {
                if let Some((level, at)) = debouncer.settled(now)
                    && watch.edge.includes(level)
                {
                    fired.push((watch.id, watch.line.clone(), level, at));
                }
            };
            for edge in seen.iter().filter(|edge| edge.input == *input) {
                settle(debouncer, edge.at);
                debouncer.feed(edge.level, edge.at);
            }
            settle(debouncer, now);
        }
        fired.sort_by_key(|(.., at)| *at);
        fired
    }

    /// Ends the watching, makes all outputs safe, and lets nobody drive them any more.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.make_safe(&|_| false);
        if let Some(edges) = &self.edges {
            edges.wake();
        }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        self.make_safe(&|_| false);
    }
}
