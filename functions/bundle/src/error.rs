//! Why a bundle is refused.

use holm_core::Problems;

/// Why a bundle could not be packed or opened.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file itself is larger than allowed.
    #[error("the bundle has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// What is in it is larger than allowed.
    #[error("`{entry}` unpacks to more than its limit of {limit} bytes")]
    EntryTooLarge {
        /// Which entry.
        entry: &'static str,
        /// The limit.
        limit: u64,
    },
    /// Not a Zstandard frame, or a damaged or truncated one, or not a tar archive.
    #[error("not a .holm bundle, or a damaged one")]
    Unreadable(#[source] std::io::Error),
    /// The entries are not the three in their order.
    #[error("expected `{expected}` in the bundle, found {found}")]
    Layout {
        /// What should be there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// An entry differs from what the index says.
    #[error("`{entry}` is not what the bundle's index says: the bundle has been altered")]
    Altered {
        /// Which entry.
        entry: &'static str,
    },
    /// The index is not one.
    #[error("the bundle's index cannot be read")]
    Index(#[source] serde_json::Error),
    /// Made by a newer release.
    #[error("the bundle has format {found}, this release reads up to {known}")]
    FromTheFuture {
        /// Its format.
        found: u32,
        /// The newest known one.
        known: u32,
    },
    /// The manifest is not text.
    #[error("`holm.toml` is not UTF-8 text")]
    NotText,
    /// The manifest has problems; all of them are listed.
    #[error(transparent)]
    Manifest(#[from] Problems),
    /// The component is no WebAssembly component.
    #[error("`component.wasm` is not a WebAssembly component: {0}")]
    NotAComponent(&'static str),
}
