//! Loading native code: the one place in Holm where memory safety rests on something other than the compiler.
#![allow(unsafe_code, reason = "deserialising native code is unsafe by nature; this module is the whole of it")]

use std::path::Path;

use wasmtime::Engine;
use wasmtime::component::Component;

/// Loads native code from memory.
///
/// The caller vouches for the bytes: they were made by this device's own compiler process, or their digest was checked
/// against a signed target. The runtime cannot check that, and it is why nothing else may reach this function.
pub(crate) fn from_bytes(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `deserialize` requires bytes that came from wasmtime's own serialisation and were not altered. The caller
    // vouches for their origin (see above); that they fit this engine's version, profile and target is checked by
    // wasmtime, because the profile sets `ModuleVersionStrategy::Custom` with the full version. The bytes are copied.
    unsafe { Component::deserialize(engine, bytes) }
}

/// Loads native code by mapping a file, so that instances and processes share its pages.
///
/// The caller vouches for the content as in [`from_bytes`], and that nobody writes to the file while it is mapped:
/// artifacts are written to a temporary name, renamed, and never opened for writing again.
pub(crate) fn from_file(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: as in `from_bytes`; besides, `deserialize_file` requires that the file does not change while it is mapped,
    // which holds because artifacts are immutable once named (the compiler renames a finished file into place).
    unsafe { Component::deserialize_file(engine, path) }
}
