//! What can go wrong before a node runs.

use std::io;
use std::path::{Path, PathBuf};

/// The step that failed, and on what.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// Something about a file.
    #[error("cannot {action} {path}", path = path.display())]
    File {
        /// Such as `read`.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something that is asked of the kernel.
    #[error("the kernel does not {action}")]
    Kernel {
        /// Such as `take the module virtio_blk`.
        action: String,
        /// Why.
        source: io::Error,
    },
    /// No disk has the signature of a card.
    #[error("no disk is a Holm card; seen: {seen}")]
    NoCard {
        /// The disks that there are.
        seen: String,
    },
    /// The card's table is not one of ours.
    #[error("{path} has no partition table of a Holm card: {problem}", path = path.display())]
    Table {
        /// The disk.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The seed is there and is wrong.
    #[error("the seed cannot be used: {problems}")]
    Seed {
        /// All that is wrong with it.
        problems: holm_core::Problems,
    },
}

impl InitError {
    /// Of a file.
    pub fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    /// Of the kernel.
    pub fn kernel(action: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let action = action.into();
        move |errno| Self::Kernel { action, source: errno.into() }
    }

    /// With all its causes.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            text.push_str(&format!(": {error}"));
            next = error.source();
        }
        text
    }
}
