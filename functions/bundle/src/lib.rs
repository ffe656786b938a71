//! The `.holm` bundle: one function as one file, the same bytes for the same input.
//!
//! # Format 1
//!
//! A Zstandard frame of a tar archive with exactly three entries in this order: `bundle.json` (format, name, version,
//! and size and SHA-256 of the other two), `holm.toml`, `component.wasm`. Times and owners are zero and modes are 0644,
//! so nothing of the machine that built it is in it. The bundle's digest is that of the file.
//!
//! # Invariant
//!
//! [`Bundle::open`] reads at most its limits' bytes into memory, whatever the file claims, and returns a bundle only
//! when every byte of it has been accounted for.

mod digest;
mod error;
mod pack;
mod read;

pub use digest::{Digest, DigestError};
pub use error::BundleError;
pub use pack::{Packed, pack};
pub use read::{Bundle, BundleLimits};

/// The entry that describes the others.
const INDEX: &str = "bundle.json";
/// The manifest's entry.
const MANIFEST: &str = "holm.toml";
/// The component's entry.
const COMPONENT: &str = "component.wasm";
/// The format that is written, and the newest that is read.
const FORMAT: u32 = 1;

/// `bundle.json`.
#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    format: u32,
    name: String,
    version: String,
    manifest: Listed,
    component: Listed,
}

#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    bytes: u64,
    sha256: Digest,
}

impl Listed {
    fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, sha256: Digest::of(bytes) }
    }
}
