//! What can go wrong between a device and its control plane.

use std::path::PathBuf;

use holm_mqtt::CloudError;
use holm_protocol::{ApiError, ProtocolError};
use holm_store::{CommitError, StoreError};

/// Why something did not happen. Nothing is half done: what was there before is still there.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// What an operator gave is not usable.
    #[error("{what}: {problem}")]
    Given {
        /// Which argument or key.
        what: &'static str,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}", .path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the identity does not hold what it should.
    #[error("{} is damaged: {problem}", .path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The device is enrolled already, elsewhere.
    #[error("this device is already enrolled at {url} as {thing}: remove {} to enrol it elsewhere", .folder.display())]
    Enrolled {
        /// Where.
        url: String,
        /// As what.
        thing: String,
        /// The folder of its identity.
        folder: PathBuf,
    },
    /// The server shows another root certificate than the one that was named.
    #[error(
        "the control plane's root certificate has the hash {found}, and {expected} was expected: this is not the one you mean, or somebody sits in between"
    )]
    WrongRoot {
        /// What it showed.
        found: String,
        /// What was given.
        expected: String,
    },
    /// No HTTPS exchange.
    #[error("cannot ask {url}: {problem}")]
    Http {
        /// Which address.
        url: String,
        /// What went wrong, with its causes.
        problem: String,
    },
    /// The control plane said no.
    #[error("the control plane refuses")]
    Refused {
        /// Its words.
        source: ApiError,
    },
    /// A message cannot be read or written.
    #[error("the control plane sent what cannot be used")]
    Protocol {
        /// What is wrong.
        source: ProtocolError,
    },
    /// A certificate, key or root is not usable.
    #[error("{what} cannot be used: {problem}")]
    Certificate {
        /// Which.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The session failed.
    #[error("no session with the control plane")]
    Session {
        /// Why.
        source: CloudError,
    },
    /// The store cannot be read.
    #[error("cannot read what goes up")]
    Store {
        /// Why.
        source: StoreError,
    },
    /// The store cannot be written.
    #[error("cannot write down what went up")]
    Commit {
        /// Why.
        source: CommitError,
    },
    /// Records were sent, and sent again, and nobody said that they are stored.
    #[error("nobody acknowledges the records that were sent")]
    Unacknowledged,
}

impl SyncError {
    /// Whether the same may succeed later without anybody doing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Http { .. }
            | Self::Session { .. }
            | Self::Unacknowledged
            | Self::Store { .. }
            | Self::Commit { .. } => true,
            Self::Refused { source } => source.code.is_retryable(),
            _ => false,
        }
    }

    /// With its causes, on one line.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        // Some errors of libraries print their cause themselves.
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

impl From<ProtocolError> for SyncError {
    fn from(source: ProtocolError) -> Self {
        Self::Protocol { source }
    }
}
