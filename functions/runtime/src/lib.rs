//! Runs Holm's functions: turns a component and an event into an [`Outcome`](holm_core::Outcome).
//!
//! This is the only room that knows wasmtime, and it knows neither the store nor MQTT: everything from outside reaches a
//! guest through the [`Host`] of its call.
//!
//! # Invariants
//!
//! 1. An instance is used once: [`Prepared::call`] consumes it, so nothing survives from one event to the next.
//! 2. Nothing a guest does takes effect here. Effects are staged, and dropped unless the handler returned ok. What it asks
//!    of the board's outputs and buses goes to the [`Hardware`] of its call at once.
//! 3. Every nondeterministic answer passes the [`recorder`], so that a kept recording replays to the same outcome.
//! 4. What the manifest does not grant is answered `denied`, never by a trap; what a guest breaks, it breaks alone.
//! 5. The value of a secret reaches the guest and nobody else: no recording, no log line and no reason of a fault has it.
//! 6. No compiler is linked: only native code made by `holm-compiler` for the same [`Profile`] and wasmtime loads.
//!
//! # How it works
//!
//! [`Engine::load`] maps native code, resolves the manifest into grants and links the imports: once per deployment.
//! [`Function::prepare`] makes a fresh store and instance, off the critical path. [`Prepared::call`] runs the handler on
//! the caller's thread, without async: guests run on a small pool of std threads, and a sleeping guest only holds its own.
//! A [`Ticker`] thread lets deadlines interrupt guests, and sleeps while none runs.

mod activity;
mod bindings;
mod capability;
mod cli;
mod clocks;
mod engine;
mod error;
mod exchange;
mod fault;
mod fields;
mod function;
mod hardware;
mod host;
mod http;
mod io;
mod keyvalue;
mod limiter;
mod linker;
mod messages;
mod native;
mod profile;
pub mod recorder;
pub mod recording;
mod request;
mod secret;
mod staging;
mod state;
mod ticker;

pub use engine::{ConfigValues, Engine, EngineOptions};
pub use error::RuntimeError;
pub use function::{Frame, Function, Prepared, Replayed, thread_time};
pub use hardware::{Hardware, HardwareError};
pub use host::{Host, HostError, InvokeError};
pub use linker::offered_imports;
pub use profile::{Profile, WASM_STACK, WASMTIME_VERSION, artifact_key, artifact_key_of};
pub use recorder::Recorder;
pub use secret::SecretValues;
pub use ticker::{Ticker, TickerHandle};
