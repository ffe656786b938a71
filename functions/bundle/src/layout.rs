//! What lies where in the archive.

use std::io::{self, Write};

use holm_core::Manifest;
use serde::{Deserialize, Serialize};

use crate::{BundleError, Digest};

/// The format that is written, and the last one that is read.
const FORMAT: u64 = 1;

pub(crate) const DESCRIPTION: &str = "bundle.json";
pub(crate) const MANIFEST: &str = "holm.toml";
pub(crate) const COMPONENT: &str = "component.wasm";

/// What `bundle.json` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Description {
    format: u64,
    name: String,
    version: String,
    entries: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    bytes: u64,
    sha256: Digest,
}

/// All that is read of a description that may be of a later format.
#[derive(Deserialize)]
struct Versioned {
    format: u64,
}

impl Description {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        known(bytes)?;
        serde_json::from_slice(bytes).map_err(|source| BundleError::Description { source })
    }

    /// Whether a file is the one that is described. Answers with its digest.
    pub(crate) fn check(&self, name: &'static str, bytes: &[u8]) -> Result<Digest, BundleError> {
        let digest = Digest::of(bytes);
        let same = |entry: &Entry| entry.name == name && entry.bytes == bytes.len() as u64 && entry.sha256 == digest;
        if self.entries.iter().any(same) { Ok(digest) } else { Err(BundleError::Checksum { name }) }
    }

    pub(crate) fn check_names(&self, manifest: &Manifest) -> Result<(), BundleError> {
        for (field, described, manifest) in
            [("name", &*self.name, manifest.name.as_str()), ("version", &*self.version, &*manifest.version)]
        {
            if described != manifest {
                return Err(BundleError::Mismatch { field, described: described.into(), manifest: manifest.into() });
            }
        }
        Ok(())
    }
}

fn known(description: &[u8]) -> Result<(), BundleError> {
    let Versioned { format } =
        serde_json::from_slice(description).map_err(|source| BundleError::Description { source })?;
    if format <= FORMAT { Ok(()) } else { Err(BundleError::FromTheFuture { found: format, known: FORMAT }) }
}

/// What is written.
pub(crate) struct Contents<'a> {
    description: Vec<u8>,
    manifest: &'a str,
    component: &'a [u8],
}

impl<'a> Contents<'a> {
    pub(crate) fn new(manifest: &Manifest, text: &'a str, component: &'a [u8]) -> Result<Self, BundleError> {
        let entry = |name: &str, bytes: &[u8]| Entry {
            name: name.to_owned(),
            bytes: bytes.len() as u64,
            sha256: Digest::of(bytes),
        };
        let description = Description {
            format: FORMAT,
            name: manifest.name.to_string(),
            version: manifest.version.to_string(),
            entries: vec![entry(MANIFEST, text.as_bytes()), entry(COMPONENT, component)],
        };
        let mut description =
            serde_json::to_vec_pretty(&description).map_err(|source| BundleError::Description { source })?;
        description.push(b'\n');
        Ok(Self { description, manifest: text, component })
    }

    /// Writes the archive.
    pub(crate) fn write(&self, to: impl Write) -> Result<(), BundleError> {
        let mut archive = tar::Builder::new(to);
        let files =
            [(DESCRIPTION, &*self.description), (MANIFEST, self.manifest.as_bytes()), (COMPONENT, self.component)];
        let mut write = || -> io::Result<()> {
            for (name, bytes) in files {
                let mut header = tar::Header::new_ustar();
                header.set_path(name)?;
                header.set_size(bytes.len() as u64);
                header.set_mode(0o644);
                header.set_uid(0);
                header.set_gid(0);
                header.set_mtime(0);
                header.set_entry_type(tar::EntryType::Regular);
                header.set_cksum();
                archive.append(&header, bytes)?;
            }
            archive.finish()
        };
        write().map_err(|source| BundleError::Archive { source })
    }
}

/// Where the files are in an archive.
pub(crate) struct Files<'a> {
    pub(crate) description: &'a [u8],
    pub(crate) manifest: &'a [u8],
    pub(crate) component: &'a [u8],
}

/// Finds the files, and refuses whatever else is there.
pub(crate) fn read(archive: &[u8], limit: usize) -> Result<Files<'_>, BundleError> {
    let bad = |source: io::Error| match source.kind() {
        io::ErrorKind::UnexpectedEof => BundleError::Truncated,
        _ => BundleError::Archive { source },
    };
    let (mut description, mut manifest, mut component) = (None, None, None);
    let mut reader = tar::Archive::new(archive);
    // Raw: no long names, links or sparse files are made sense of; their entries are unknown ones.
    for (index, entry) in reader.entries().map_err(bad)?.raw(true).enumerate() {
        if index >= limit {
            return Err(BundleError::TooManyEntries { limit });
        }
        let entry = entry.map_err(bad)?;
        let name = entry.path_bytes();
        let (name, slot) = match (&*name, entry.header().entry_type()) {
            (name, tar::EntryType::Regular) if name == DESCRIPTION.as_bytes() => (DESCRIPTION, &mut description),
            (name, tar::EntryType::Regular) if name == MANIFEST.as_bytes() => (MANIFEST, &mut manifest),
            (name, tar::EntryType::Regular) if name == COMPONENT.as_bytes() => (COMPONENT, &mut component),
            (name, _) => {
                let name = String::from_utf8_lossy(name).chars().take(200).collect();
                return Err(BundleError::UnknownEntry { name });
            }
        };
        let size = entry.header().entry_size().map_err(bad)?;
        let start = usize::try_from(entry.raw_file_position()).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
        let bytes = archive.get(start..end).ok_or(BundleError::Truncated)?;
        if slot.replace(bytes).is_some() {
            return Err(BundleError::DuplicateEntry { name });
        }
        // A later format may have files that this release does not know: say that, and not that they are strange.
        if name == DESCRIPTION {
            known(bytes)?;
        }
    }
    Ok(Files {
        description: description.ok_or(BundleError::MissingEntry { name: DESCRIPTION })?,
        manifest: manifest.ok_or(BundleError::MissingEntry { name: MANIFEST })?,
        component: component.ok_or(BundleError::MissingEntry { name: COMPONENT })?,
    })
}

/// Compares what is written with what is expected, without holding it twice.
pub(crate) struct Same<'a> {
    left: &'a [u8],
    same: bool,
}

impl<'a> Same<'a> {
    pub(crate) fn new(expected: &'a [u8]) -> Self {
        Self { left: expected, same: true }
    }

    /// Whether everything that was expected came, and nothing else.
    pub(crate) fn finish(&self) -> bool {
        self.same && self.left.is_empty()
    }
}

impl Write for Same<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.left.split_at_checked(bytes.len()) {
            Some((next, left)) if next == bytes => self.left = left,
            _ => self.same = false,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
