//! Making a bundle.

use std::io;

use holm_core::Manifest;

use crate::read::check_component;
use crate::{BundleError, COMPONENT, Digest, FORMAT, INDEX, Index, Listed, MANIFEST};

/// Fixed, because another level makes other bytes.
const LEVEL: i32 = 19;

/// A bundle as it was made.
#[derive(Debug, Clone)]
pub struct Packed {
    /// The file.
    pub bytes: Vec<u8>,
    /// Its digest.
    pub digest: Digest,
    /// The component's digest.
    pub component: Digest,
    /// The manifest, checked.
    pub manifest: Manifest,
}

/// Makes a bundle of a manifest's text and a component. The same input makes the same bytes with the same release of
/// this crate.
pub fn pack(manifest_text: &str, component: &[u8]) -> Result<Packed, BundleError> {
    let manifest = Manifest::parse(MANIFEST, manifest_text)?;
    check_component(component)?;
    let index = Index {
        format: FORMAT,
        name: manifest.name.to_string(),
        version: manifest.version.to_string(),
        manifest: Listed::of(manifest_text.as_bytes()),
        component: Listed::of(component),
    };
    let index = serde_json::to_vec(&index).map_err(BundleError::Index)?;
    let archive = || -> io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, data) in [(INDEX, &index[..]), (MANIFEST, manifest_text.as_bytes()), (COMPONENT, component)] {
            // A header of its own: everything but these three fields stays zero.
            let mut header = tar::Header::new_ustar();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            header.set_entry_type(tar::EntryType::Regular);
            archive.append_data(&mut header, name, data)?;
        }
        let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
        encoder.include_checksum(true)?;
        io::copy(&mut &archive.into_inner()?[..], &mut encoder)?;
        encoder.finish()
    };
    let bytes = archive().map_err(BundleError::Unreadable)?;
    Ok(Packed { digest: Digest::of(&bytes), component: Digest::of(component), bytes, manifest })
}
