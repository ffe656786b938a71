//! How a guest's end becomes a [`Fault`].

use std::fmt::Write;

use holm_core::Fault;
use wasmtime::{Trap, WasmBacktrace};

use crate::recorder::Diverged;
use crate::state::State;

/// Frames of a backtrace that are shown: where it happened, and how it came there.
const FRAMES: usize = 8;
/// Bytes of a guest's own words that are kept.
const WORDS: usize = 1024;

/// Why a host function ends its guest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    #[error("the guest called exit({0})")]
    Exit(u8),
    #[error("past its deadline")]
    Timeout,
    #[error("exceeded its {0} limit")]
    Exhausted(&'static str),
    #[error("`{0}` is not available before the handler is called")]
    TooEarly(&'static str),
    #[error("{0}")]
    Misuse(&'static str),
    #[error(transparent)]
    Diverged(Diverged),
}

/// The fault for an error that a call into the guest ended with.
pub(crate) fn classify(error: &wasmtime::Error, state: &State) -> Fault {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        match stop {
            Stop::Timeout => return Fault::Timeout { limit: state.grants.timeout },
            Stop::Exhausted(resource) => return Fault::Exhausted { resource: (*resource).to_owned() },
            Stop::Exit(_) | Stop::TooEarly(_) | Stop::Misuse(_) => {}
            Stop::Diverged(diverged) => return Fault::Trap { message: diverged.to_string() },
        }
    } else if let (Some(resource), Some(_)) = (state.limiter.refused, error.downcast_ref::<Trap>()) {
        // A guest that is refused memory aborts, which is a trap like any other; the refusal is what to tell.
        return Fault::Exhausted { resource: resource.to_owned() };
    }
    Fault::Trap { message: describe(error) }
}

fn describe(error: &wasmtime::Error) -> String {
    let mut message = error.root_cause().to_string();
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        let frames = backtrace.frames();
        // Where some have names, the others are of libraries, and a panic alone takes a dozen of those.
        let named = frames.iter().any(|frame| frame.func_name().is_some());
        let mut separator = " at ";
        for frame in frames.iter().filter(|frame| !named || frame.func_name().is_some()).take(FRAMES) {
            match frame.func_name() {
                // Writing to a String cannot fail.
                Some(name) => drop(write!(message, "{separator}{name}")),
                None => drop(write!(message, "{separator}function {}", frame.func_index())),
            }
            separator = " < ";
        }
    }
    shorten(message)
}

/// At most [`WORDS`] bytes of `text`, cut between characters.
pub(crate) fn shorten(mut text: String) -> String {
    if text.len() > WORDS {
        text.truncate(text.floor_char_boundary(WORDS));
        text.push('…');
    }
    text
}
