//! What can go wrong in the control plane.

use std::path::PathBuf;

/// Why something was not done. What a device or an operator did wrong is no error of ours: it is answered, with a
/// [`holm_protocol::ApiError`] or a refusal of the protocol.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// Something with a file.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Another process has the data folder.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The database did not do what it was asked.
    #[error("cannot {action}")]
    Sql {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: rusqlite::Error,
    },
    /// The file is some other program's.
    #[error("{} is not a control plane's database", path.display())]
    NotOurs {
        /// Which file.
        path: PathBuf,
    },
    /// The file was written by a later release.
    #[error("{} has format {found}, this release reads up to {known}: update it first", path.display())]
    FromTheFuture {
        /// Which file.
        path: PathBuf,
        /// The file's.
        found: i64,
        /// The last one known here.
        known: i64,
    },
    /// A row says something that cannot be.
    #[error("the database has a {what} that cannot be read: {problem}")]
    Row {
        /// Of which kind.
        what: &'static str,
        /// The sentence.
        problem: String,
    },
    /// The transaction that it was part of could not be committed: nothing of it has happened.
    #[error("it could not be committed")]
    NotCommitted,
    /// The queue of the database is full, or it is closed.
    #[error("the database is behind, or closed")]
    Busy,
    /// Certificates were not made or not read.
    #[error("cannot {action}")]
    Certificate {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: rcgen::Error,
    },
    /// A certificate of ours is not what it should be.
    #[error("{what} cannot be used: {problem}")]
    BadCertificate {
        /// Which one.
        what: String,
        /// The sentence.
        problem: String,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls {
        /// Why not.
        source: rustls::Error,
    },
    /// The operating system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// A listener.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// A thread or a task ended that must not, or cannot be started.
    #[error("{what}")]
    Broken {
        /// The sentence.
        what: String,
    },
    /// A key of ours, or metadata that is kept here.
    #[error("cannot {action}")]
    Trust {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: holm_trust::TrustError,
    },
    /// A message of ours cannot be written.
    #[error("cannot write a message")]
    Message {
        /// Why not.
        #[from]
        source: holm_protocol::ProtocolError,
    },
}

impl CloudError {
    /// Whether the same may work later, with nobody doing anything about it.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NotCommitted | Self::Busy | Self::Sql { .. })
    }
}

/// For `map_err`: an error of the database.
pub(crate) fn sql(action: &'static str) -> impl Fn(rusqlite::Error) -> CloudError {
    move |source| CloudError::Sql { action, source }
}

/// For `map_err`: a key or metadata of ours.
pub(crate) fn trust(action: &'static str) -> impl Fn(holm_trust::TrustError) -> CloudError {
    move |source| CloudError::Trust { action, source }
}

/// For `map_err`: an error of a file.
pub(crate) fn file<'a>(action: &'static str, path: &'a std::path::Path) -> impl Fn(std::io::Error) -> CloudError + 'a {
    move |source| CloudError::File { action, path: path.to_owned(), source }
}

/// An error with its causes, for one line of a log.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
