//! The signature envelope: DSSE, version 1.
//!
//! # Format
//!
//! ```json
//! {"payloadType": "...", "payload": "<base64>", "signatures": [{"keyid": "...", "alg": "ed25519", "sig": "<base64>"}]}
//! ```
//!
//! What is signed is not the payload alone but its pre-authentication encoding, [`pae`]: with the type inside, a signature under
//! one kind of document is worth nothing under another. The payload is carried as the bytes that were signed; nobody has to print
//! JSON the same way twice, and a service that prints the job document anew (AWS may) breaks no signature.
//!
//! Source: <https://github.com/secure-systems-lab/dsse/blob/master/protocol.md> and `envelope.md` beside it.
//!
//! # What is ours
//!
//! `alg` is not DSSE's. It lets a device say "I cannot check this kind of signature" instead of "wrong signature". It never
//! chooses how a signature is checked: the trusted key does.
//!
//! Signing and checking are not here: this is the shape, and the exact bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::ProtocolError;
use crate::code::codes;
use crate::error::bounded;
use crate::limits::{MAX_JOB_DOCUMENT, MAX_KEY_ID, MAX_SIGNATURE_BYTES, MAX_SIGNATURES, MAX_SIGNED_PAYLOAD};

/// The payload type of a [`DesiredState`](crate::DesiredState).
pub const DESIRED_STATE_TYPE: &str = "application/vnd.holm.desired-state+json";

/// The payload type of a [`RollbackPermit`](crate::RollbackPermit).
pub const ROLLBACK_PERMIT_TYPE: &str = "application/vnd.holm.rollback-permit+json";

codes! {
    /// How a signature was made. A hint: see the module.
    SignatureAlgorithm {
        /// Ed25519, RFC 8032.
        Ed25519 = "ed25519",
    }
}

/// A signature, over [`Envelope::signed_bytes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Which key. Untrusted: it only says where to look.
    pub key_id: String,
    /// How. Untrusted too.
    pub algorithm: Option<SignatureAlgorithm>,
    /// The signature.
    pub bytes: Vec<u8>,
}

/// A payload with signatures. Nothing about it has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// What the payload is.
    pub payload_type: String,
    /// The bytes, as they were signed.
    pub payload: Vec<u8>,
    /// One or more.
    pub signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(rename = "payloadType")]
    payload_type: String,
    payload: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
struct WireSignature {
    #[serde(default)]
    keyid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alg: Option<SignatureAlgorithm>,
    sig: String,
}

impl Envelope {
    /// From the text of a job document. Fields that are not known are ignored: what they say is not signed.
    pub fn read(json: &str) -> Result<Self, ProtocolError> {
        bounded("the signed document, in bytes,", json.len(), MAX_JOB_DOCUMENT)?;
        let wire: Wire =
            serde_json::from_str(json).map_err(|source| ProtocolError::Json { what: "the signed document", source })?;
        wire.try_into()
    }

    /// The text of a job document: ASCII only.
    pub fn write(&self) -> Result<String, ProtocolError> {
        self.check()?;
        let what = "the signed document";
        let json = serde_json::to_string(&Wire::from(self)).map_err(|source| ProtocolError::Write { what, source })?;
        bounded("the signed document, in bytes,", json.len(), MAX_JOB_DOCUMENT)?;
        Ok(json)
    }

    /// The bytes that each signature is over.
    pub fn signed_bytes(&self) -> Vec<u8> {
        pae(&self.payload_type, &self.payload)
    }

    fn check(&self) -> Result<(), ProtocolError> {
        bounded("the signed payload, in bytes,", self.payload.len(), MAX_SIGNED_PAYLOAD)?;
        bounded("the number of signatures", self.signatures.len(), MAX_SIGNATURES)?;
        if self.signatures.is_empty() {
            return Err(ProtocolError::invalid("the signed document", "it has no signature"));
        }
        // Also keeps a long type from eating the payload's room.
        bounded("the payload type, in bytes,", self.payload_type.len(), MAX_KEY_ID)?;
        for signature in &self.signatures {
            bounded("a key id, in bytes,", signature.key_id.len(), MAX_KEY_ID)?;
            bounded("a signature, in bytes,", signature.bytes.len(), MAX_SIGNATURE_BYTES)?;
        }
        Ok(())
    }
}

/// DSSE's pre-authentication encoding: the exact bytes that are signed.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

impl TryFrom<Wire> for Envelope {
    type Error = ProtocolError;

    fn try_from(wire: Wire) -> Result<Self, ProtocolError> {
        let signature = |wire: WireSignature| {
            let bytes = decode("the signature", &wire.sig)?;
            Ok(Signature { key_id: wire.keyid, algorithm: wire.alg, bytes })
        };
        let envelope = Self {
            payload_type: wire.payload_type,
            payload: decode("the signed payload", &wire.payload)?,
            signatures: wire.signatures.into_iter().map(signature).collect::<Result<_, ProtocolError>>()?,
        };
        envelope.check()?;
        Ok(envelope)
    }
}

impl From<&Envelope> for Wire {
    fn from(envelope: &Envelope) -> Self {
        let signature = |signature: &Signature| WireSignature {
            keyid: signature.key_id.clone(),
            alg: signature.algorithm.clone(),
            sig: STANDARD.encode(&signature.bytes),
        };
        Self {
            payload_type: envelope.payload_type.clone(),
            payload: STANDARD.encode(&envelope.payload),
            signatures: envelope.signatures.iter().map(signature).collect(),
        }
    }
}

impl Serialize for Envelope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Wire::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Wire::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}

/// DSSE demands that both alphabets are read. The signature is over the decoded bytes, so nothing hangs on which one it was.
fn decode(what: &'static str, text: &str) -> Result<Vec<u8>, ProtocolError> {
    let standard = text.replace('-', "+").replace('_', "/");
    STANDARD.decode(standard).map_err(|_| ProtocolError::Base64 { what })
}
