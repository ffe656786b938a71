//! Why something is not believed.

use holm_core::Timestamp;
use holm_protocol::{ProtocolError, ReasonCode};

/// Why a document, a permit or a key is refused. Each has a [`ReasonCode`] for the operator.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It is not the shape that it should be.
    #[error("the document cannot be read")]
    Document {
        /// What is wrong with it.
        source: ProtocolError,
    },
    /// None of its signatures is by a trusted key.
    #[error("signed by {}, which is not trusted here", .found.join(", "))]
    UnknownKey {
        /// The key ids that it names, untrusted texts.
        found: Vec<String>,
    },
    /// A trusted key is named and has not signed these bytes.
    #[error("the signature of key {key_id} does not fit")]
    WrongSignature {
        /// Which key.
        key_id: String,
    },
    /// Fewer trusted keys have signed than must.
    #[error("{found} of {threshold} signatures")]
    TooFewSignatures {
        /// Different keys whose signatures fit.
        found: usize,
        /// How many must.
        threshold: usize,
    },
    /// It is for somebody else.
    #[error("it is for {found}, this device is {own}")]
    WrongDevice {
        /// The device that it is for.
        found: String,
        /// This one.
        own: String,
    },
    /// A newer one was accepted before, or another one with this number.
    #[error("it has generation {found}, {accepted} was accepted before")]
    OlderGeneration {
        /// Its generation.
        found: u64,
        /// The last one that was accepted.
        accepted: u64,
    },
    /// Its time is over.
    #[error("it expired at {}, and it is {} or later", .expires.0, .now.0)]
    Expired {
        /// In milliseconds since 1970.
        expires: Timestamp,
        /// What the time is at least, in milliseconds since 1970.
        now: Timestamp,
    },
    /// A key cannot be read.
    #[error("this is not {what}")]
    Key {
        /// What it should have been.
        what: &'static str,
    },
    /// A set of keys that nobody could ever satisfy, or that anybody could.
    #[error("a threshold of {threshold} with {keys} keys")]
    Threshold {
        /// The threshold.
        threshold: usize,
        /// Different keys.
        keys: usize,
    },
    /// The system gives no randomness.
    #[error("no random numbers")]
    Random,
}

impl TrustError {
    /// The code that goes into the job's status and the shadow.
    pub fn reason(&self) -> ReasonCode {
        match self {
            Self::Document { source: ProtocolError::FromTheFuture { .. } } => ReasonCode::UnsupportedFormat,
            Self::Document { .. } => ReasonCode::Malformed,
            Self::UnknownKey { .. } => ReasonCode::UnknownKey,
            Self::WrongSignature { .. } => ReasonCode::WrongSignature,
            Self::TooFewSignatures { .. } => ReasonCode::TooFewSignatures,
            Self::WrongDevice { .. } => ReasonCode::WrongDevice,
            Self::OlderGeneration { .. } => ReasonCode::OlderGeneration,
            Self::Expired { .. } => ReasonCode::Expired,
            Self::Key { .. } | Self::Threshold { .. } | Self::Random => ReasonCode::Internal,
        }
    }
}

impl From<ProtocolError> for TrustError {
    fn from(source: ProtocolError) -> Self {
        Self::Document { source }
    }
}
