//! Why something is not believed.

use holm_core::Timestamp;
use holm_protocol::{ProtocolError, ReasonCode};

use crate::tuf::RoleName;

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
    /// It was not sealed to this key, not for this device and name, or was changed on the way.
    #[error("it does not open with this device's key")]
    Sealed,
    /// A file of the repository's metadata is not believed.
    #[error("the repository's {role} is not believed")]
    Metadata {
        /// Which.
        role: RoleName,
        /// Why not.
        #[source]
        why: Box<TrustError>,
    },
    /// Metadata is not the shape that it should be.
    #[error("it cannot be read")]
    Unreadable {
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Metadata has the shape and makes no sense.
    #[error("it says what it must not: {what}")]
    Nonsense {
        /// What it says.
        what: String,
    },
    /// Metadata is by a specification that this agent does not know.
    #[error("it is by version {found} of the specification, known here is 1")]
    Specification {
        /// Its `spec_version`.
        found: String,
    },
    /// Metadata, or what it says of other metadata, is older than what was seen before.
    #[error("it says version {found} of {of}, {trusted} was seen before")]
    OlderMetadata {
        /// Of which file.
        of: String,
        /// Its version now; 0 when it is not there any more.
        found: u64,
        /// The version that was trusted.
        trusted: u64,
    },
    /// Metadata is not what other metadata says that it is.
    #[error("it is not the file that was announced: {what}")]
    MixedMetadata {
        /// What differs.
        what: String,
    },
    /// More data than may come.
    #[error("longer than {limit} bytes")]
    EndlessData {
        /// What was signed for or allowed.
        limit: u64,
    },
    /// A file that must be there is not.
    #[error("there is no {name}")]
    Missing {
        /// Its name below the metadata's address.
        name: String,
    },
    /// The repository does not list this target.
    #[error("the repository does not list {name}")]
    UnknownTarget {
        /// The target.
        name: String,
    },
    /// A target is not the file that was signed.
    #[error("{name} is not the file that was signed: {what}")]
    WrongDigest {
        /// The target.
        name: String,
        /// What differs.
        what: &'static str,
    },
    /// The metadata is not complete, so nothing new is taken from it: an update was broken off, or there was none.
    #[error("the repository's metadata is not complete")]
    Incomplete,
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
            Self::Metadata { why, .. } => match why.reason() {
                ReasonCode::Expired => ReasonCode::MetadataExpired,
                reason => reason,
            },
            Self::Unreadable { .. } | Self::Nonsense { .. } => ReasonCode::MalformedMetadata,
            Self::Specification { .. } => ReasonCode::UnsupportedFormat,
            Self::OlderMetadata { .. } => ReasonCode::OlderMetadata,
            Self::MixedMetadata { .. } => ReasonCode::MixedMetadata,
            Self::EndlessData { .. } => ReasonCode::EndlessData,
            Self::Missing { .. } => ReasonCode::DownloadFailed,
            Self::UnknownTarget { .. } => ReasonCode::UnknownTarget,
            Self::WrongDigest { .. } => ReasonCode::WrongDigest,
            Self::Sealed => ReasonCode::SecretUnreadable,
            Self::Incomplete => ReasonCode::MetadataIncomplete,
            Self::Key { .. } | Self::Threshold { .. } | Self::Random => ReasonCode::Internal,
        }
    }
}

impl From<ProtocolError> for TrustError {
    fn from(source: ProtocolError) -> Self {
        Self::Document { source }
    }
}
