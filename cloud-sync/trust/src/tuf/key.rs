//! Keys as they are in metadata, of the three kinds that the specification names.
//!
//! Our own repositories have Ed25519 keys only. The other two are here to check repositories of others, and cost a few lines: `ring`
//! has them for TLS.

use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;

use crate::PublicKey;

/// What a P-256 public key begins with in a SubjectPublicKeyInfo (RFC 5480); its point of 65 bytes follows.
const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// rsaEncryption without parameters (RFC 3279, 2.3.1), as an AlgorithmIdentifier.
const RSA: &[u8] = &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// A key to check with. Two keys are the same when they have the same contents, whatever they are called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// RFC 8032.
    Ed25519(PublicKey),
    /// `ecdsa-sha2-nistp256`: an uncompressed point.
    P256(Vec<u8>),
    /// `rsassa-pss-sha256`, of 2,048 bits or more: an RSAPublicKey (RFC 8017, A.1.1).
    Rsa(Vec<u8>),
    /// Of a kind that is not known here, or not readable. It never fits, and does no harm beside keys that do.
    Unusable,
}

impl Key {
    /// From a key object (4.3, `KEY`).
    pub(crate) fn read(object: &Value) -> Self {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let public = text(object.get("keyval").and_then(|keyval| keyval.get("public")));
        let kind = (text(object.get("keytype")), text(object.get("scheme")));
        let key = match (kind.0.as_str(), kind.1.as_str()) {
            ("ed25519", "ed25519") => ed25519(&public),
            // The second is what older releases of python-tuf and go-tuf say.
            ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => p256(&public),
            ("rsa", "rsassa-pss-sha256") => rsa(&public),
            _ => None,
        };
        key.unwrap_or(Self::Unusable)
    }

    /// Whether this key signed `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let check = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
        };
        match self {
            Self::Ed25519(key) => check(&ED25519, key.as_bytes()),
            Self::P256(point) => check(&ECDSA_P256_SHA256_ASN1, point),
            Self::Rsa(key) => check(&RSA_PSS_2048_8192_SHA256, key),
            Self::Unusable => false,
        }
    }
}

fn ed25519(public: &str) -> Option<Key> {
    let bytes: [u8; 32] = hex(public)?.try_into().ok()?;
    Some(Key::Ed25519(PublicKey::new(bytes)))
}

fn p256(public: &str) -> Option<Key> {
    let document = SubjectPublicKeyInfoDer::from_pem_slice(public.as_bytes()).ok()?;
    let point = document.as_ref().strip_prefix(P256)?;
    (point.len() == 65).then(|| Key::P256(point.to_vec()))
}

fn rsa(public: &str) -> Option<Key> {
    let document = SubjectPublicKeyInfoDer::from_pem_slice(public.as_bytes()).ok()?;
    let (body, rest) = element(0x30, document.as_ref())?;
    let (bits, more) = element(0x03, body.strip_prefix(RSA)?)?;
    let key = bits.strip_prefix(&[0])?;
    (rest.is_empty() && more.is_empty()).then(|| Key::Rsa(key.to_vec()))
}

/// The contents of the DER element that `bytes` begin with, if it has this tag, and what follows it. Lengths up to 65,535.
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match bytes.strip_prefix(&[tag])? {
        [length @ 0..=0x7f, rest @ ..] => (usize::from(*length), rest),
        [0x81, length @ 0x80..=0xff, rest @ ..] => (usize::from(*length), rest),
        [0x82, high @ 1..=0xff, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// Bytes from hexadecimal digits, of either case.
pub(crate) fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, odd) = text.as_bytes().as_chunks::<2>();
    if !odd.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// Hexadecimal digits of bytes.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a `String` does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
