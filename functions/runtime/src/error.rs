//! What can go wrong in the node's part of running a function. A guest's own faults are data: `holm_core::Fault`.

use std::path::PathBuf;

/// Why the runtime could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No profile of that name, or none for this machine.
    #[error("`{name}` is not an engine profile: known are {known}")]
    UnknownProfile {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The profile's native code cannot run on this machine.
    #[error("engine profile `{profile}` is not for this machine")]
    ForeignProfile {
        /// The profile.
        profile: &'static str,
    },
    /// The engine could not be made, mostly for want of address space.
    #[error("cannot make an engine for profile `{profile}` with {slots} slots of {memory} bytes: {detail}")]
    MakeEngine {
        /// The profile.
        profile: &'static str,
        /// Slots asked for.
        slots: u32,
        /// Bytes of each.
        memory: u64,
        /// Wasmtime's words.
        detail: String,
    },
    /// The native code was made by another wasmtime, or for another profile: compile again.
    #[error("native code does not fit this engine ({expected}): {detail}")]
    WrongEngine {
        /// What this engine takes.
        expected: String,
        /// Wasmtime's words.
        detail: String,
    },
    /// It is made of more than a slot has room for: instances within it, tables, their elements.
    #[error("the component does not fit into the slots that functions run in: {detail}")]
    TooLarge {
        /// Wasmtime's words.
        detail: String,
    },
    /// The file could not be read.
    #[error("cannot read native code {path}")]
    ReadNative {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The component asks for things that no function is given.
    #[error("the component imports what a function cannot have: {}", .imports.join(", "))]
    UnknownImports {
        /// All of them.
        imports: Vec<String>,
    },
    /// The component does not export the handler.
    #[error(
        "the component exports none of `holm:function/handler@0.1.0`, `wasi:http/incoming-handler@0.2` and `wasi:cli/run@0.2`"
    )]
    NoHandler,
    /// The component could not be linked.
    #[error("cannot link the component: {detail}")]
    Link {
        /// Wasmtime's words.
        detail: String,
    },
    /// A grant does not make a topic filter once the names are filled in.
    #[error("permission to publish to `{filter}` is not a topic filter for this device")]
    BadGrant {
        /// The filter, filled in.
        filter: String,
    },
    /// The manifest asks for more memory than a slot of this engine has.
    #[error("the manifest asks for {asked} bytes of memory, and this engine's slots have {available}")]
    MemoryTooLarge {
        /// The manifest's limit.
        asked: u64,
        /// The engine's.
        available: u64,
    },
    /// All slots are taken. Not a fault of the function: try again when one is free.
    #[error("no free instance slot")]
    NoSlot,
    /// The instance could not be made.
    #[error("cannot make an instance: {detail}")]
    Instantiate {
        /// Wasmtime's words.
        detail: String,
    },
}

impl RuntimeError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NoSlot)
    }
}
