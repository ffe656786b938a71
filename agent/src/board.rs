//! The node's board: which it is, its threads, and the end of it.
//!
//! A node whose configuration binds no sensor, line or bus has none of this.

use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context as _;
use holm_boards::{Bindings, Board, Clock, Guard, Hardware, Health, Linux, Profile, Sim};

use crate::clock;
use crate::config::Config;

/// The stack of a thread that owns a bus or waits for edges.
const STACK: usize = 256 << 10;

/// A board that is in use.
pub struct Attached {
    /// The door to it.
    pub hardware: Hardware,
    /// LED and watchdog.
    pub guard: Guard,
    /// The world behind it, where it is simulated.
    pub sim: Option<Sim>,
    threads: Vec<JoinHandle<()>>,
}

/// Takes the board, if the configuration binds anything on it: from here on outputs are at their safe levels.
pub fn attach(config: &Config) -> anyhow::Result<Option<Attached>> {
    let Some(profile) = config.profile.as_ref().filter(|_| !config.board.is_empty()) else { return Ok(None) };
    let (board, sim) = board(profile, &config.board)?;
    let bindings = &config.board;
    if profile.simulated {
        tracing::warn!(profile = profile.name, "the board is simulated: no reading is real, and no output is driven");
    } else {
        tracing::info!(profile = profile.name, status = ?profile.status, "board");
    }
    let guard = Guard::new(board.clone(), profile, bindings.led, bindings.watchdog).context("cannot use the board")?;
    guard.show(Health::Starting);
    let mut threads = Vec::new();
    let hardware = Hardware::start(board, bindings, Arc::new(clock::now), |name, body| {
        let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(body);
        threads.push(thread.with_context(|| format!("cannot start the thread `{name}`"))?);
        anyhow::Ok(())
    })?;
    Ok(Some(Attached { hardware, guard, sim, threads }))
}

/// Drives all outputs to their safe levels, and lets them go. False if one of them could not be.
pub fn safe_outputs(config: &Config) -> anyhow::Result<bool> {
    let lines = config.board.lines.iter().filter(|line| line.safe().is_some()).cloned().collect();
    let outputs = Bindings { lines, sim: config.board.sim.clone(), ..Bindings::default() };
    let Some(profile) = config.profile.as_ref().filter(|_| !outputs.is_empty()) else { return Ok(true) };
    let none = |name: &str, _| Err(anyhow::anyhow!("an output needs no thread `{name}`"));
    let hardware = Hardware::start(board(profile, &outputs)?.0, &outputs, Arc::new(clock::now), none)?;
    Ok(hardware.line_reports().into_iter().all(|line| line.level.is_ok()))
}

fn board(profile: &Profile, bindings: &Bindings) -> anyhow::Result<(Arc<dyn Board>, Option<Sim>)> {
    if profile.simulated {
        let sim = Sim::new(bindings, Clock::Monotonic).context("cannot make the simulated board")?;
        return Ok((Arc::new(sim.clone()), Some(sim)));
    }
    Ok((Arc::new(Linux::new(profile.clone())), None))
}

impl Attached {
    /// Makes all outputs safe and ends all threads.
    pub fn detach(&mut self) {
        self.hardware.stop();
        for thread in std::mem::take(&mut self.threads) {
            if thread.join().is_err() {
                tracing::error!("a thread of the board panicked");
            }
        }
        self.guard.end();
    }
}

impl Drop for Attached {
    /// For a node that ends because something is broken: by a panic that unwinds, or an error that nobody can act on.
    fn drop(&mut self) {
        self.hardware.make_safe(|_| false);
    }
}
