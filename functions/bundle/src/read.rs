//! Opening a bundle that anybody may have made.

use std::io::{self, Read};

use holm_core::Manifest;

use crate::{BundleError, COMPONENT, Digest, FORMAT, INDEX, Index, Listed, MANIFEST};

/// The first eight bytes of a WebAssembly component: magic, version 13, layer 1.
const COMPONENT_HEADER: [u8; 8] = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];
/// Those of a core module.
const MODULE_HEADER: [u8; 8] = [0, b'a', b's', b'm', 1, 0, 0, 0];
/// The index is a few hundred bytes.
const INDEX_LIMIT: u64 = 4096;
/// The window of a frame may ask for no more memory than this: 2^23 bytes is what level 19 uses.
const WINDOW_LOG_MAX: u32 = 23;

/// How much a bundle may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BundleLimits {
    /// Bytes of the file. Default 64 MiB.
    pub file: u64,
    /// Bytes of the manifest. Default 256 KiB.
    pub manifest: u64,
    /// Bytes of the component. Default 64 MiB.
    pub component: u64,
}

impl Default for BundleLimits {
    fn default() -> Self {
        Self { file: 64 << 20, manifest: 256 << 10, component: 64 << 20 }
    }
}

/// A bundle that has been checked whole.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The checked manifest.
    pub manifest: Manifest,
    /// As its author wrote it.
    pub manifest_text: String,
    /// The component. Its header is right; the rest is for the compiler to say.
    pub component: Vec<u8>,
    /// Of the component.
    pub component_digest: Digest,
    /// Of the file.
    pub digest: Digest,
}

impl Bundle {
    /// Opens a bundle and checks every byte.
    pub fn open(bytes: &[u8], limits: &BundleLimits) -> Result<Self, BundleError> {
        if bytes.len() as u64 > limits.file {
            return Err(BundleError::TooLarge { bytes: bytes.len() as u64, limit: limits.file });
        }
        let mut decoder = zstd::Decoder::with_buffer(bytes).map_err(BundleError::Unreadable)?.single_frame();
        decoder.window_log_max(WINDOW_LOG_MAX).map_err(BundleError::Unreadable)?;
        // Bounds the whole stream as well, headers and padding included: a bomb is cut off, not unpacked.
        let most = INDEX_LIMIT + limits.manifest + limits.component + 64 * 1024;
        let mut archive = tar::Archive::new((&mut decoder).take(most));
        let mut entries = archive.entries().map_err(BundleError::Unreadable)?;
        let index = entry(&mut entries, INDEX, INDEX_LIMIT)?;
        let format = serde_json::from_slice::<Format>(&index).map_err(BundleError::Index)?.format;
        if format > FORMAT {
            return Err(BundleError::FromTheFuture { found: format, known: FORMAT });
        }
        let index: Index = serde_json::from_slice(&index).map_err(BundleError::Index)?;
        let manifest_bytes = entry(&mut entries, MANIFEST, limits.manifest)?;
        verify(&index.manifest, &manifest_bytes, MANIFEST)?;
        let component = entry(&mut entries, COMPONENT, limits.component)?;
        verify(&index.component, &component, COMPONENT)?;
        if let Some(more) = entries.next() {
            let found = more.map_err(BundleError::Unreadable).map(|entry| shown(&entry))?;
            return Err(BundleError::Layout { expected: "the end", found });
        }
        // To the end of the frame, so that its checksum is checked; and nothing may follow it.
        let rest = io::copy(&mut decoder.by_ref().take(1 << 20), &mut io::sink()).map_err(BundleError::Unreadable)?;
        if rest >= 1 << 20 || !decoder.finish().is_empty() {
            return Err(BundleError::Layout { expected: "the end", found: "more data".into() });
        }
        check_component(&component)?;
        let manifest_text = String::from_utf8(manifest_bytes).map_err(|_| BundleError::NotText)?;
        let manifest = Manifest::parse(MANIFEST, &manifest_text)?;
        if index.name != manifest.name.as_str() || index.version != *manifest.version {
            return Err(BundleError::Altered { entry: INDEX });
        }
        Ok(Self {
            manifest,
            manifest_text,
            component,
            component_digest: index.component.sha256,
            digest: Digest::of(bytes),
        })
    }
}

/// The one field that every format has.
#[derive(serde::Deserialize)]
struct Format {
    format: u32,
}

/// The next entry, which must be `name`.
fn entry<R: Read>(entries: &mut tar::Entries<'_, R>, name: &'static str, limit: u64) -> Result<Vec<u8>, BundleError> {
    let Some(entry) = entries.next() else {
        return Err(BundleError::Layout { expected: name, found: "the end".into() });
    };
    let entry = entry.map_err(BundleError::Unreadable)?;
    if entry.path_bytes() != name.as_bytes() || entry.header().entry_type() != tar::EntryType::Regular {
        return Err(BundleError::Layout { expected: name, found: shown(&entry) });
    }
    let mut data = Vec::new();
    // The header's size is a claim: read, and see.
    entry.take(limit + 1).read_to_end(&mut data).map_err(BundleError::Unreadable)?;
    if data.len() as u64 > limit {
        return Err(BundleError::EntryTooLarge { entry: name, limit });
    }
    Ok(data)
}

fn shown<R: Read>(entry: &tar::Entry<'_, R>) -> String {
    let path: String = String::from_utf8_lossy(&entry.path_bytes()).chars().take(80).collect();
    format!("`{}`", path.escape_debug())
}

fn verify(listed: &Listed, data: &[u8], entry: &'static str) -> Result<(), BundleError> {
    if *listed == Listed::of(data) { Ok(()) } else { Err(BundleError::Altered { entry }) }
}

/// Whether the first bytes are those of a component.
pub(crate) fn check_component(component: &[u8]) -> Result<(), BundleError> {
    if component.starts_with(&COMPONENT_HEADER) {
        Ok(())
    } else if component.starts_with(&MODULE_HEADER) {
        Err(BundleError::NotAComponent("it is a core module; build with --target wasm32-wasip2"))
    } else {
        Err(BundleError::NotAComponent("it does not begin like one"))
    }
}
