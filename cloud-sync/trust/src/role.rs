//! Roles: which keys may sign something, and how many of them must.

use std::collections::{BTreeMap, BTreeSet};

use holm_protocol::{Envelope, Signature, SignatureAlgorithm};

use crate::{PublicKey, SigningKey, TrustError};

/// Keys, and how many different ones of them have to sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    keys: BTreeMap<String, PublicKey>,
    threshold: usize,
}

impl Role {
    /// Fails for a threshold of 0, which everything would satisfy, and for one above the number of different keys.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>, threshold: usize) -> Result<Self, TrustError> {
        let keys: BTreeMap<String, PublicKey> = keys.into_iter().map(|key| (key.id(), key)).collect();
        if threshold == 0 || threshold > keys.len() {
            return Err(TrustError::Threshold { threshold, keys: keys.len() });
        }
        Ok(Self { keys, threshold })
    }

    /// The different keys.
    pub fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.keys.values()
    }

    /// How many of them have to sign.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// Checks the envelope's signatures. The key ids in it only say where to look; the algorithm that it names is not asked at
    /// all; a key that signs twice counts once. A signature that does not fit spoils nothing as long as enough others do, so that
    /// nobody can make a good document bad by adding to it.
    pub fn verify(&self, envelope: &Envelope) -> Result<(), TrustError> {
        let message = envelope.signed_bytes();
        let mut good = BTreeSet::new();
        let mut bad = None;
        for signature in &envelope.signatures {
            let Some((id, key)) = self.keys.get_key_value(&signature.key_id) else { continue };
            if key.verifies(&message, &signature.bytes) {
                good.insert(id);
            } else {
                bad = Some(id);
            }
        }
        match (good.len(), bad) {
            (found, _) if found >= self.threshold => Ok(()),
            (_, Some(id)) => Err(TrustError::WrongSignature { key_id: id.clone() }),
            (0, None) => {
                let found = envelope.signatures.iter().map(|signature| signature.key_id.clone()).collect();
                Err(TrustError::UnknownKey { found })
            }
            (found, None) => Err(TrustError::TooFewSignatures { found, threshold: self.threshold }),
        }
    }
}

/// Puts a payload into an envelope and signs it with each key.
pub fn sign(payload_type: &str, payload: Vec<u8>, keys: &[&SigningKey]) -> Envelope {
    let mut envelope = Envelope { payload_type: payload_type.to_owned(), payload, signatures: Vec::new() };
    let message = envelope.signed_bytes();
    let signature = |key: &&SigningKey| Signature {
        key_id: key.public().id(),
        algorithm: Some(SignatureAlgorithm::Ed25519),
        bytes: key.sign(&message),
    };
    envelope.signatures = keys.iter().map(signature).collect();
    envelope
}
