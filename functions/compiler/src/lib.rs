//! Compiles a function's component to native code for a named engine profile.
//!
//! Never linked into `holmd`: a compiler is large, hungry, and reads untrusted input. `holm` links it on the laptop; a
//! device runs the `holm-compile` program, which first limits its own memory and time.
//!
//! # Invariants
//!
//! 1. The same component, profile and wasmtime give the same bytes.
//! 2. Size and structure are bounded before Cranelift sees the input.
//! 3. A component that `holm-runtime` would refuse to link is refused here, with everything that is wrong with it.

mod component;
mod error;
mod file;
mod lines;

use std::time::{Duration, Instant};

use holm_runtime::{Profile, WASMTIME_VERSION};
use sha2::{Digest, Sha256};
use wasmtime::{Engine, OptLevel};

pub use component::{InputLimits, Inspection, inspect};
pub use error::CompileError;
pub use file::write_atomically;
pub use lines::{Line, Place, locate};

/// Native code, and what is known about it.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// What `holm_runtime::Engine::load` takes.
    pub native: Vec<u8>,
    /// SHA-256 of the component, in hex.
    pub component_digest: String,
    /// SHA-256 of the native code, in hex.
    pub native_digest: String,
    /// The profile it is for.
    pub profile: Profile,
    /// What the component imports, sorted.
    pub imports: Vec<String>,
    /// Time in Cranelift.
    pub elapsed: Duration,
}

/// What `holm-compile` prints, as one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// SHA-256 of the native code, in hex.
    pub native_digest: String,
    /// The engine profile's name.
    pub profile: String,
    /// Wasmtime's full version.
    pub wasmtime: String,
    /// Bytes of native code.
    pub bytes: u64,
    /// Milliseconds in Cranelift.
    pub ms: u64,
    /// What the component imports, sorted.
    pub imports: Vec<String>,
}

impl Compiled {
    /// The line for scripts.
    pub fn report(&self) -> Report {
        Report {
            digest: self.component_digest.clone(),
            native_digest: self.native_digest.clone(),
            profile: self.profile.name().to_owned(),
            wasmtime: WASMTIME_VERSION.to_owned(),
            bytes: self.native.len() as u64,
            ms: u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX),
            imports: self.imports.clone(),
        }
    }
}

/// Checks a component and compiles it. Takes seconds and hundreds of megabytes for an interpreted language's component:
/// not for the process that serves events.
pub fn compile(component: &[u8], profile: Profile, limits: &InputLimits) -> Result<Compiled, CompileError> {
    make(component, profile, limits, false)
}

/// The same with addresses, so that a trap says where it was: larger, and for replays only.
pub fn compile_with_addresses(
    component: &[u8],
    profile: Profile,
    limits: &InputLimits,
) -> Result<Compiled, CompileError> {
    make(component, profile, limits, true)
}

fn make(component: &[u8], profile: Profile, limits: &InputLimits, addresses: bool) -> Result<Compiled, CompileError> {
    let inspection = inspect(component, limits)?;
    inspection.check()?;
    let mut config = profile.config().map_err(|error| CompileError::Compile { detail: error.to_string() })?;
    config.cranelift_opt_level(OptLevel::Speed);
    if addresses {
        config.generate_address_map(true);
    }
    let failed = |error: wasmtime::Error| CompileError::Compile { detail: format!("{error:#}") };
    let started = Instant::now();
    let engine = Engine::new(&config).map_err(failed)?;
    let native = engine.precompile_component(component).map_err(failed)?;
    Ok(Compiled {
        component_digest: hex(component),
        native_digest: hex(&native),
        native,
        profile,
        imports: inspection.imports,
        elapsed: started.elapsed(),
    })
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
