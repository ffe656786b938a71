//! What can be wrong with a message.

use crate::RefusalReason;

/// Why a message was not made or not read. Nothing here is worth another try with the same bytes.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// A name, id or token is not one.
    #[error("`{text}` is not a {what}: {rule}")]
    Name {
        /// Which kind.
        what: &'static str,
        /// The text, cut after 80 characters.
        text: String,
        /// What it should have been.
        rule: &'static str,
    },
    /// A topic that this protocol does not speak. On AWS IoT such messages come unasked: ignore them.
    #[error("`{topic}` is not a topic of this protocol")]
    UnknownTopic {
        /// The topic, cut after 80 characters.
        topic: String,
    },
    /// More than a limit allows.
    #[error("{what} is {size}, the limit is {limit}")]
    TooLarge {
        /// What, and in which unit.
        what: &'static str,
        /// How much it is, or the first amount that was too much.
        size: usize,
        /// The limit, from [`crate::limits`].
        limit: usize,
    },
    /// Not JSON, or not of the expected shape.
    #[error("{what} cannot be read")]
    Json {
        /// Which message.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// A value cannot be written as JSON.
    #[error("{what} cannot be written")]
    Write {
        /// Which message.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// Not base64.
    #[error("{what} is not base64")]
    Base64 {
        /// Which field.
        what: &'static str,
    },
    /// Made by a later release.
    #[error("{what} has format {found}, this release reads up to {known}: update it first")]
    FromTheFuture {
        /// Which message.
        what: &'static str,
        /// The message's.
        found: u64,
        /// The last one known here.
        known: u64,
    },
    /// Well-formed, but it says something that cannot be.
    #[error("{what}: {problem}")]
    Invalid {
        /// Which message or field.
        what: &'static str,
        /// The sentence.
        problem: String,
    },
    /// Two places that must say the same do not.
    #[error("{what} is `{found}` here and `{expected}` there")]
    Mismatch {
        /// Which value.
        what: &'static str,
        /// In the message.
        found: String,
        /// In the topic, the certificate, or where else it is known from.
        expected: String,
    },
    /// The payload ends too early.
    #[error("{what} is truncated")]
    Truncated {
        /// Which part.
        what: &'static str,
    },
    /// There is something after the end.
    #[error("{what} is followed by other data")]
    Trailing {
        /// Which part.
        what: &'static str,
    },
    /// Not zstd, or altered, or with a window larger than allowed.
    #[error("the batch cannot be decompressed")]
    Decompress {
        /// Why.
        source: std::io::Error,
    },
    /// The compressor failed.
    #[error("the batch cannot be compressed")]
    Compress {
        /// Why.
        source: std::io::Error,
    },
}

impl ProtocolError {
    /// What the control plane answers a device whose batch has this error.
    pub fn refusal(&self) -> RefusalReason {
        match self {
            Self::TooLarge { .. } => RefusalReason::TooLarge,
            Self::FromTheFuture { .. } => RefusalReason::UnsupportedFormat,
            Self::Mismatch { .. } | Self::UnknownTopic { .. } => RefusalReason::Mismatch,
            _ => RefusalReason::Malformed,
        }
    }

    pub(crate) fn invalid(what: &'static str, problem: impl Into<String>) -> Self {
        Self::Invalid { what, problem: problem.into() }
    }
}

/// At most so much of a foreign text goes into an error.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Fails if `size` is more than `limit`.
pub(crate) fn bounded(what: &'static str, size: usize, limit: usize) -> Result<(), ProtocolError> {
    if size > limit { Err(ProtocolError::TooLarge { what, size, limit }) } else { Ok(()) }
}
