//! What can go wrong, and what becomes of the event then.

use std::fmt;
use std::time::Duration;

/// Why a call to the node did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The manifest does not grant it.
    Denied(String),
    /// One event may not stage more.
    QueueFull,
    /// More than the manifest's limit, in bytes.
    TooLarge(u32),
    /// The manifest declares no such series, or no function of that name is deployed.
    NotFound(String),
    /// A value is not what it should be: not JSON, not a number, not a topic.
    Invalid(String),
    /// The node could not do it now.
    Unavailable(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(what) => write!(f, "denied: {what}"),
            Self::QueueFull => f.write_str("one event may not stage more"),
            Self::TooLarge(limit) => write!(f, "more than the limit of {limit} bytes"),
            Self::NotFound(what) => write!(f, "not found: {what}"),
            Self::Invalid(what) => write!(f, "invalid: {what}"),
            Self::Unavailable(what) => write!(f, "unavailable: {what}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// Why a handler did not succeed. Everything it staged is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Redeliver later: the world may be different then.
    Retry {
        /// For the operator.
        reason: String,
        /// Not before this long; the manifest's retry policy decides otherwise.
        after: Option<Duration>,
    },
    /// The event can never succeed: straight to the dead letters.
    Reject {
        /// For the operator.
        reason: String,
    },
}

impl Failure {
    /// A failure that is worth another try.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry { reason: reason.into(), after: None }
    }

    /// A failure that no other try will mend.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject { reason: reason.into() }
    }
}

/// `?` on a call to the node: what the node could not do now is retried, what it never will do is rejected.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable(reason) => Self::retry(reason),
            other => Self::reject(other.to_string()),
        }
    }
}

/// `?` on JSON: an event that cannot be read today cannot be read tomorrow.
impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::reject(error.to_string())
    }
}
