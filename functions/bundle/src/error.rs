//! What can be wrong with a bundle.

/// Why a bundle was not made or not opened.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The manifest has problems: all of them are in the text.
    #[error(transparent)]
    Manifest(#[from] holm_core::Problems),
    /// The file ends before the bundle does.
    #[error("the bundle is truncated")]
    Truncated,
    /// There is something after the bundle's end.
    #[error("the bundle is followed by other data")]
    Trailing,
    /// Not zstd, or altered.
    #[error("the bundle cannot be decompressed")]
    Decompress {
        /// Why.
        source: std::io::Error,
    },
    /// The compressor failed.
    #[error("the bundle cannot be compressed")]
    Compress {
        /// Why.
        source: std::io::Error,
    },
    /// More than a limit allows.
    #[error("{what} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The file, or what is in it.
        what: &'static str,
        /// In bytes.
        limit: usize,
    },
    /// More files than a limit allows.
    #[error("the bundle holds more than {limit} files")]
    TooManyEntries {
        /// Files.
        limit: usize,
    },
    /// Inside is no tar archive, or a damaged one.
    #[error("the archive in the bundle cannot be read")]
    Archive {
        /// Why.
        source: std::io::Error,
    },
    /// A file that a bundle does not have, or something that is no file.
    #[error("the bundle holds `{name}`, which does not belong there")]
    UnknownEntry {
        /// As the archive says it.
        name: String,
    },
    /// A file twice.
    #[error("the bundle holds {name} twice")]
    DuplicateEntry {
        /// Which.
        name: &'static str,
    },
    /// A file is not there.
    #[error("the bundle has no {name}")]
    MissingEntry {
        /// Which.
        name: &'static str,
    },
    /// `bundle.json` is not what it should be.
    #[error("bundle.json cannot be read")]
    Description {
        /// Why.
        source: serde_json::Error,
    },
    /// Made by a later release.
    #[error("the bundle has format {found}, this release reads up to {known}: update it first")]
    FromTheFuture {
        /// The bundle's.
        found: u64,
        /// The last one known here.
        known: u64,
    },
    /// A file is not the one that `bundle.json` names.
    #[error("{name} is not what bundle.json says: its checksum or size is another one")]
    Checksum {
        /// Which.
        name: &'static str,
    },
    /// `bundle.json` and the manifest disagree.
    #[error("bundle.json says {field} is `{described}`, the manifest says `{manifest}`")]
    Mismatch {
        /// `name` or `version`.
        field: &'static str,
        /// In `bundle.json`.
        described: String,
        /// In the manifest.
        manifest: String,
    },
    /// The manifest is not UTF-8.
    #[error("holm.toml is not UTF-8")]
    NotText,
    /// Everything that matters is right, and yet it is not what `pack` would have written.
    #[error("the bundle is not in its canonical form: it was not made by Holm, or altered")]
    NotCanonical,
}
