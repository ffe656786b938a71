//! Ed25519 keys (RFC 8032), named as TUF names them.

use std::fmt;

use holm_bundle::Digest;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use crate::TrustError;

/// Bytes of a public key.
const PUBLIC_BYTES: usize = 32;

/// A key that signatures are checked with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; PUBLIC_BYTES]);

impl PublicKey {
    /// From its bytes. Any 32 bytes are taken: those that are no point on the curve verify nothing.
    pub fn new(bytes: [u8; PUBLIC_BYTES]) -> Self {
        Self(bytes)
    }

    /// From its text, 64 lower-case hexadecimal digits, as it is in TUF metadata and configuration.
    pub fn parse(text: &str) -> Result<Self, TrustError> {
        // The same text as that of a digest: one parser, one spelling.
        let digest: Digest =
            text.parse().map_err(|_| TrustError::Key { what: "an Ed25519 public key in hexadecimal" })?;
        Ok(Self(*digest.as_bytes()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; PUBLIC_BYTES] {
        &self.0
    }

    /// The key's id: the SHA-256 of its TUF object in canonical JSON
    /// (<https://theupdateframework.github.io/specification/latest/#file-formats-keys>). Old TUF metadata also has
    /// `keyid_hash_algorithms` in that object, and so other ids; ids name, they do not vouch.
    pub fn id(&self) -> String {
        let object = format!(r#"{{"keytype":"ed25519","keyval":{{"public":"{self}"}},"scheme":"ed25519"}}"#);
        Digest::of(object.as_bytes()).to_string()
    }

    /// Whether this key signed `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Digest::from(self.0).fmt(f)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// A key that signs. Its `Debug` does not show it.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// A new key, and its PKCS #8 document (RFC 5958), which is the only way to keep it.
    pub fn generate() -> Result<(Self, Vec<u8>), TrustError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| TrustError::Random)?;
        Ok((Self::from_pkcs8(document.as_ref())?, document.as_ref().to_vec()))
    }

    /// From a PKCS #8 document, version 2 with the public key in it.
    pub fn from_pkcs8(document: &[u8]) -> Result<Self, TrustError> {
        let pair = Ed25519KeyPair::from_pkcs8(document)
            .map_err(|_| TrustError::Key { what: "an Ed25519 private key in PKCS #8, version 2" })?;
        Ok(Self(pair))
    }

    /// The other half.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; PUBLIC_BYTES];
        for (byte, from) in bytes.iter_mut().zip(self.0.public_key().as_ref()) {
            *byte = *from;
        }
        PublicKey(bytes)
    }

    /// A signature, 64 bytes.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {})", self.public())
    }
}
