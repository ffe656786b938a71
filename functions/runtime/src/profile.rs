//! Engine profiles: the ABI between compiled functions and the engine that loads them.
//!
//! Everything that shapes generated code is fixed here, for the compiler and the runtime alike, and has a name. A change
//! to a profile's numbers is a new profile name: a device refuses native code of any other.

use wasmtime::{Config, ModuleVersionStrategy, WasmFeatures};

use crate::RuntimeError;

/// The full version of the wasmtime that this was built with. Wasmtime itself would only compare major versions, and
/// so would load code that a vulnerable patch release made.
pub const WASMTIME_VERSION: &str = "48.0.8";

/// Address space of a linear memory. Small boards have 39-bit address spaces, where the usual 4 GiB fails.
const MEMORY_RESERVATION: u64 = 64 << 20;
const MEMORY_GUARD: u64 = 64 << 10;
/// Bytes of stack that one guest may use. A guest that is invoked by another, on the same thread, has as many again: a
/// thread's stack must have room for all of them and for the host's calls above the last.
pub const WASM_STACK: usize = 256 << 10;

/// A named set of engine settings for one kind of machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Profile {
    name: &'static str,
    target: &'static str,
}

/// All there are. Targets are given in full so that code has the baseline's CPU features and not those of the machine
/// that compiled it.
const PROFILES: [Profile; 4] = [
    Profile { name: "x64-v1", target: "x86_64-unknown-linux-gnu" },
    Profile { name: "a64-small-v1", target: "aarch64-unknown-linux-gnu" },
    Profile { name: "pulley64-v1", target: "pulley64" },
    Profile { name: "pulley32-v1", target: "pulley32" },
];

impl Profile {
    /// Every profile.
    pub fn all() -> &'static [Profile] {
        &PROFILES
    }

    /// The profile for the machine this runs on: native where there is a back end, else Pulley, a slow tier.
    pub fn host() -> Self {
        let name = match std::env::consts::ARCH {
            "x86_64" => "x64-v1",
            "aarch64" => "a64-small-v1",
            _ if cfg!(target_pointer_width = "32") => "pulley32-v1",
            _ => "pulley64-v1",
        };
        PROFILES.into_iter().find(|profile| profile.name == name).unwrap_or(PROFILES[2])
    }

    /// The profile called `name`.
    pub fn by_name(name: &str) -> Result<Self, RuntimeError> {
        PROFILES.into_iter().find(|profile| profile.name == name).ok_or_else(|| RuntimeError::UnknownProfile {
            name: name.chars().take(64).collect(),
            known: PROFILES.map(|profile| profile.name).join(", "),
        })
    }

    /// The name that artifacts are keyed by.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The target triple.
    pub fn target(&self) -> &'static str {
        self.target
    }

    /// The target triple of the engine that loads the code: with the C library that this program is built with, which
    /// wasmtime compares as well, though the code is the same for all of them.
    pub(crate) fn target_here(&self) -> String {
        let library = if cfg!(target_env = "musl") { "-musl" } else { "-gnu" };
        self.target.replace("-gnu", library)
    }

    /// Whether this machine can run its code. Pulley's pointers are as wide as those of the machine.
    pub fn runs_here(&self) -> bool {
        let pulley = if cfg!(target_pointer_width = "32") { "pulley32" } else { "pulley64" };
        self.target == pulley || *self == Self::host()
    }

    /// Wasmtime version and profile, as written into native code.
    pub fn version(&self) -> String {
        format!("wasmtime-{WASMTIME_VERSION}-{}", self.name)
    }

    /// The settings that compiler and runtime must share. The caller adds only what does not change code: allocation on
    /// one side, Cranelift's effort on the other.
    pub fn config(&self) -> Result<Config, RuntimeError> {
        let failed = |error: wasmtime::Error| RuntimeError::MakeEngine {
            profile: self.name,
            slots: 0,
            memory: MEMORY_RESERVATION,
            detail: format!("{error:#}"),
        };
        let mut config = Config::new();
        config.target(self.target).map_err(failed)?;
        config.module_version(ModuleVersionStrategy::Custom(self.version())).map_err(failed)?;
        config
            .memory_reservation(MEMORY_RESERVATION)
            .memory_guard_size(MEMORY_GUARD)
            .memory_reservation_for_growth(0)
            .memory_may_move(false)
            .guard_before_linear_memory(false)
            .memory_init_cow(true)
            .max_wasm_stack(WASM_STACK)
            .async_stack_size(512 << 10)
            .epoch_interruption(true)
            .consume_fuel(false)
            .concurrency_support(false)
            .gc_support(false)
            .shared_memory(false)
            .relaxed_simd_deterministic(true)
            // The machinery of a panic takes ten before the function that panicked comes.
            .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(24))
            .generate_address_map(false)
            .wasm_component_model(true);
        // What a function in a small sandbox has no use for is not offered: less to validate, less to be wrong.
        config
            .wasm_features(WasmFeatures::THREADS, false)
            .wasm_features(WasmFeatures::MEMORY64, false)
            .wasm_features(WasmFeatures::MULTI_MEMORY, false)
            .wasm_features(WasmFeatures::GC, false)
            .wasm_features(WasmFeatures::FUNCTION_REFERENCES, false)
            .wasm_features(WasmFeatures::EXCEPTIONS, false);
        Ok(config)
    }
}

/// The name of a component's native code: what it was made from, by what, for what.
pub fn artifact_key(component_sha256: &[u8; 32], profile: &Profile) -> String {
    artifact_key_of(component_sha256, WASMTIME_VERSION, profile.name())
}

/// The same for an engine that may be another one.
pub fn artifact_key_of(component_sha256: &[u8; 32], engine: &str, profile: &str) -> String {
    use std::fmt::Write;
    let mut key = String::with_capacity(96);
    for byte in component_sha256 {
        // Writing to a String cannot fail.
        let _ = write!(key, "{byte:02x}");
    }
    let _ = write!(key, "-wasmtime-{engine}-{profile}");
    key
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_is_linked() {
        let lock = include_str!("../../../Cargo.lock");
        assert!(lock.contains(&format!("name = \"wasmtime\"\nversion = \"{WASMTIME_VERSION}\"")));
    }

    #[test]
    fn a_key_names_component_wasmtime_and_profile() {
        let key = artifact_key(&[0xab; 32], &Profile::by_name("x64-v1").unwrap());
        assert!(key.starts_with("abab") && key.ends_with("-wasmtime-48.0.8-x64-v1"), "{key}");
        assert!(Profile::by_name("x64-v9").is_err());
    }
}
