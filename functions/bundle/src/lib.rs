//! The `.holm` file: a function's manifest and component, as one content-addressed file.
//!
//! # Format 1
//!
//! One zstd frame (RFC 8878, with content size and checksum) around a tar archive (POSIX ustar) of exactly three regular
//! files, in this order: `bundle.json`, `holm.toml`, `component.wasm`. Every header has mode 0644, owner and group 0 without
//! names, and time 0. `bundle.json` tells the format, the function's name and version, and the size and SHA-256 of the other
//! two. The digest of a bundle is the SHA-256 of the whole file.
//!
//! # What it guarantees
//!
//! The same manifest and component make the same bytes, with the same version of the zstd library. Whatever
//! [`Bundle::open`] accepts is what [`Bundle::pack`] writes before compression, to the byte: there is no place for anything
//! that is neither checked nor shown. Opening takes no more memory than [`BundleLimits`] allows, whatever the file claims,
//! and never writes to a disk: names in the archive are compared, not followed.

mod digest;
mod error;
mod layout;

pub use digest::{Digest, DigestError};
pub use error::BundleError;

use std::io::Read;
use std::sync::Arc;

use holm_core::{FunctionName, Manifest};

use crate::layout::{Contents, Description};

/// How hard zstd tries: close to the most, because a bundle is packed once and sent to many over thin lines. Part of the
/// format's promise of the same bytes, so never changed within a format.
const LEVEL: i32 = 19;

/// The largest window that [`LEVEL`] uses, as a power of two in bytes: what a decoder must hold.
const WINDOW_LOG: u32 = 23;

/// How much a bundle may make its reader hold. Separate because they stop different things: `compressed` a download,
/// `decompressed` a bomb, `entries` an archive of very many empty files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BundleLimits {
    /// Bytes of the file.
    pub compressed: usize,
    /// Bytes of the archive inside, headers included.
    pub decompressed: usize,
    /// Files in the archive that are looked at before it is refused.
    pub entries: usize,
}

impl Default for BundleLimits {
    fn default() -> Self {
        Self { compressed: 32 << 20, decompressed: 64 << 20, entries: 8 }
    }
}

/// A bundle that was just made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedBundle {
    /// The file.
    pub bytes: Vec<u8>,
    /// Of `bytes`.
    pub digest: Digest,
    /// Of the component in it.
    pub component_digest: Digest,
    /// The function's name.
    pub name: FunctionName,
    /// The function's version.
    pub version: Arc<str>,
}

/// A bundle that was opened: every checksum was right and the manifest has no problems. Whether the component is one that
/// can be run is the compiler's to say.
#[derive(Debug, Clone, PartialEq)]
pub struct Bundle {
    /// The manifest, checked.
    pub manifest: Manifest,
    /// The manifest as its author wrote it.
    pub manifest_text: String,
    /// The component's bytes.
    pub component: Vec<u8>,
    /// Of `component`: what compiled code is keyed by.
    pub component_digest: Digest,
    /// Of the whole file: what a deployment names.
    pub digest: Digest,
}

impl Bundle {
    /// Makes a bundle. Fails on a manifest with problems, and tells all of them.
    pub fn pack(manifest_text: &str, component: &[u8]) -> Result<PackedBundle, BundleError> {
        let manifest = Manifest::parse(layout::MANIFEST, manifest_text)?;
        let contents = Contents::new(&manifest, manifest_text, component)?;
        let mut archive = Vec::new();
        contents.write(&mut archive)?;
        let bytes = compress(&archive).map_err(|source| BundleError::Compress { source })?;
        Ok(PackedBundle {
            digest: Digest::of(&bytes),
            component_digest: Digest::of(component),
            bytes,
            name: manifest.name,
            version: manifest.version,
        })
    }

    /// Reads and checks a bundle. Anything but a whole, unaltered bundle of a known format is an error.
    pub fn open(bytes: &[u8], limits: &BundleLimits) -> Result<Self, BundleError> {
        if bytes.len() > limits.compressed {
            return Err(BundleError::TooLarge { what: "the file", limit: limits.compressed });
        }
        let archive = decompress(bytes, limits.decompressed)?;
        let files = layout::read(&archive, limits.entries)?;
        let description = Description::parse(files.description)?;
        let component_digest = description.check(layout::COMPONENT, files.component)?;
        description.check(layout::MANIFEST, files.manifest)?;
        let manifest_text = std::str::from_utf8(files.manifest).map_err(|_| BundleError::NotText)?;
        let manifest = Manifest::parse(layout::MANIFEST, manifest_text)?;
        description.check_names(&manifest)?;
        // Last, because it tells the least: headers, padding and the text of bundle.json are as `pack` writes them.
        let mut same = layout::Same::new(&archive);
        Contents::new(&manifest, manifest_text, files.component)?.write(&mut same)?;
        if !same.finish() {
            return Err(BundleError::NotCanonical);
        }
        Ok(Self {
            manifest_text: manifest_text.to_owned(),
            manifest,
            component: files.component.to_vec(),
            component_digest,
            digest: Digest::of(bytes),
        })
    }
}

fn compress(archive: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.include_contentsize(true)?;
    encoder.set_pledged_src_size(Some(archive.len() as u64))?;
    std::io::Write::write_all(&mut encoder, archive)?;
    encoder.finish()
}

/// Never holds more than `limit` bytes and a window, whatever the frame's header says.
fn decompress(bytes: &[u8], limit: usize) -> Result<Vec<u8>, BundleError> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::UnexpectedEof => BundleError::Truncated,
        _ => BundleError::Decompress { source },
    };
    let mut rest = bytes;
    let mut decoder = zstd::Decoder::with_buffer(&mut rest).map_err(failed)?.single_frame();
    decoder.window_log_max(WINDOW_LOG).map_err(failed)?;
    let mut archive = Vec::new();
    // One byte more than allowed, to tell the end of the archive from the end of our patience.
    let read = (&mut decoder).take(limit as u64 + 1).read_to_end(&mut archive).map_err(failed)?;
    drop(decoder);
    if read > limit {
        return Err(BundleError::TooLarge { what: "the archive inside", limit });
    }
    if archive.is_empty() {
        return Err(BundleError::Truncated);
    }
    if rest.is_empty() { Ok(archive) } else { Err(BundleError::Trailing) }
}
