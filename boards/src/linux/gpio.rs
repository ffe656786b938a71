//! GPIO by the character device's second interface (`gpiocdev`): lines by name, edges stamped and debounced by the
//! kernel.
//!
//! A line is looked for by its name on every chip; where no chip has that name, at the place that the binding or the
//! profile gives: the label of a chip, never its number, which changes from boot to boot, and the offset there.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gpiocdev::Request;
use gpiocdev::line::{Bias, EdgeDetection, EdgeKind, Value};
use holm_core::Level;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::bindings::{Direction, LineBinding, Pull};
use crate::board::{Edges, Inputs, Line, RawEdge};
use crate::profile::Profile;
use crate::{BoardError, Clock};

/// What other programs see as the holder of our lines.
const CONSUMER: &str = "holm";

/// Edges of a line that the kernel keeps for us. Beyond, it drops the oldest, which is noticed.
const KEPT: u32 = 64;

struct Place {
    chip: PathBuf,
    offset: u32,
    /// Who else holds it.
    consumer: Option<String>,
}

fn find(line: &LineBinding, profile: &Profile) -> Result<Place, BoardError> {
    let place = |chip: PathBuf, info: &gpiocdev::line::Info| Place {
        chip,
        offset: info.offset,
        consumer: info.used.then(|| info.consumer.clone()),
    };
    // A binding that names a chip means that one, whatever else has the name.
    if line.place.is_none()
        && let Some(found) = gpiocdev::find_named_line(&line.line)
    {
        return Ok(place(found.chip, &found.info));
    }
    let wanted = line.place.clone().or_else(|| profile.line(&line.line));
    let missing = |reason: String| BoardError::Open { what: line.line.clone(), reason };
    let Some((label, offset)) = wanted else {
        return Err(missing("no chip has a line of that name, and the profile does not know it".into()));
    };
    let chips = gpiocdev::chip::chips().map_err(|error| missing(error.to_string()))?;
    for path in chips {
        let Ok(chip) = gpiocdev::Chip::from_path(&path) else { continue };
        if chip.info().is_ok_and(|info| info.label == label) {
            let info = chip.line_info(offset).map_err(|error| missing(error.to_string()))?;
            return Ok(place(path, &info));
        }
    }
    Err(missing(format!("no chip has a line of that name, and there is no chip `{label}`")))
}

fn request(line: &LineBinding, profile: &Profile) -> Result<Held, BoardError> {
    let Place { chip, offset, consumer } = find(line, profile)?;
    let mut builder = Request::builder();
    builder.on_chip(chip).with_line(offset).with_consumer(CONSUMER);
    if line.active_low {
        builder.as_active_low();
    }
    match line.direction {
        Direction::In { pull, debounce } => {
            let bias = match pull {
                Pull::AsIs => None,
                Pull::None => Some(Bias::Disabled),
                Pull::Up => Some(Bias::PullUp),
                Pull::Down => Some(Bias::PullDown),
            };
            builder.as_input().with_bias(bias).with_edge_detection(EdgeDetection::BothEdges);
            builder.with_kernel_event_buffer_size(KEPT);
            if debounce > Duration::ZERO {
                builder.with_debounce_period(debounce);
            }
        }
        Direction::Out { safe } => {
            builder.as_output(value(safe));
        }
    }
    match builder.request() {
        Ok(request) => {
            let (name, output) = (line.name.to_string(), line.safe().is_some());
            Ok(Held { request, offset, name, output, seen: AtomicU32::new(0) })
        }
        Err(error) => Err(match consumer {
            Some(consumer) => BoardError::LineInUse { line: line.line.clone(), consumer },
            None => BoardError::Open { what: line.line.clone(), reason: error.to_string() },
        }),
    }
}

pub(super) fn open_output(line: &LineBinding, profile: &Profile) -> Result<Arc<dyn Line>, BoardError> {
    Ok(Arc::new(request(line, profile)?))
}

pub(super) fn open_inputs(lines: &[LineBinding], profile: &Profile) -> Inputs {
    let mut opened: Vec<Result<Arc<dyn Line>, BoardError>> = Vec::new();
    let mut watched = Vec::new();
    for (input, line) in lines.iter().enumerate() {
        match request(line, profile) {
            Ok(held) => {
                let held = Arc::new(held);
                watched.push((input, held.clone()));
                opened.push(Ok(held));
            }
            Err(error) => opened.push(Err(error)),
        }
    }
    // Without it a wait ends only by an edge or its time; that is a slow end, and no loss.
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok();
    (opened, Arc::new(Watched { lines: watched, wake }))
}

/// A line that we hold.
struct Held {
    request: Request,
    offset: u32,
    name: String,
    output: bool,
    /// The number of the last edge that was taken. The kernel counts from 1.
    seen: AtomicU32,
}

fn value(level: Level) -> Value {
    match level {
        Level::Low => Value::Inactive,
        Level::High => Value::Active,
    }
}

impl Held {
    fn failed(&self, error: &gpiocdev::Error) -> BoardError {
        BoardError::Nonsense { what: self.name.clone(), reason: error.to_string() }
    }
}

impl Line for Held {
    fn level(&self) -> Result<Level, BoardError> {
        match self.request.value(self.offset) {
            Ok(Value::Active) => Ok(Level::High),
            Ok(Value::Inactive) => Ok(Level::Low),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn set(&self, level: Level) -> Result<(), BoardError> {
        if !self.output {
            return Err(BoardError::Direction { line: self.name.clone(), is: "input" });
        }
        self.request.set_value(self.offset, value(level)).map_err(|error| self.failed(&error))
    }
}

struct Watched {
    lines: Vec<(usize, Arc<Held>)>,
    wake: Option<OwnedFd>,
}

impl Edges for Watched {
    fn wait(&self, timeout: Option<Duration>) -> Vec<RawEdge> {
        let mut fds: Vec<PollFd<'_>> =
            self.lines.iter().map(|(_, held)| PollFd::from_borrowed_fd(held.request.as_fd(), PollFlags::IN)).collect();
        fds.extend(self.wake.iter().map(|wake| PollFd::new(wake, PollFlags::IN)));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        // An interrupted wait is an empty answer: who waits asks again.
        let _ = poll(&mut fds, timeout.as_ref());
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if let Some(wake) = &self.wake {
            let _ = rustix::io::read(wake, &mut [0; 8]);
        }
        let mut edges = Vec::new();
        for ((input, held), ready) in self.lines.iter().zip(ready) {
            if ready {
                drain(*input, held, &mut edges);
            }
        }
        edges.sort_by_key(|edge| edge.at);
        edges
    }

    fn wake(&self) {
        if let Some(wake) = &self.wake {
            let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
        }
    }
}

/// Takes what the kernel has kept of a line. Where it has dropped some, what the line is at now comes last.
fn drain(input: usize, held: &Held, edges: &mut Vec<RawEdge>) {
    let mut dropped = false;
    for _ in 0..KEPT {
        if !held.request.has_edge_event().unwrap_or(false) {
            break;
        }
        let Ok(event) = held.request.read_edge_event() else { break };
        dropped |= held.seen.swap(event.line_seqno, Ordering::Relaxed).wrapping_add(1) != event.line_seqno;
        let level = match event.kind {
            EdgeKind::Rising => Level::High,
            EdgeKind::Falling => Level::Low,
        };
        edges.push(RawEdge { input, level, at: Duration::from_nanos(event.timestamp_ns) });
    }
    if dropped && let Ok(level) = held.level() {
        edges.push(RawEdge { input, level, at: Clock::Monotonic.now() });
    }
}
