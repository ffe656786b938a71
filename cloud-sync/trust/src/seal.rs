//! Sealing: bytes that one device can open, and nobody on the way.
//!
//! HPKE (RFC 9180) in base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20-Poly1305, one message per context. What it is
//! for (the device, and the name of what is sealed) is HPKE's `info`: a sealed value that is moved to another device or another
//! name does not open.
//!
//! | bytes | |
//! | --- | --- |
//! | 1 | [`FORMAT`] |
//! | 32 | the encapsulated key |
//! | the rest | the value, and 16 bytes more |
//!
//! Everything but the agreement is ring's. ring makes no agreement with a key that is kept (its private keys are ephemeral), and a
//! device has to open tomorrow what was sealed today: that one function is x25519-dalek's. See ADR 15.

use std::fmt;

use holm_bundle::Digest;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

use crate::TrustError;

/// The first byte of what is sealed.
const FORMAT: u8 = 1;

/// Of keys, of the encapsulated key and of hashes, in bytes.
const KEY: usize = 32;

/// `kem_id` of DHKEM(X25519, HKDF-SHA256), and the suite's `kem_id`, `kdf_id` and `aead_id` (7.1 to 7.3).
const KEM_SUITE: &[u8] = b"KEM\x00\x20";
const SUITE: &[u8] = b"HPKE\x00\x20\x00\x01\x00\x03";

/// Who a sealed value is for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose<'a> {
    /// The device's name.
    pub thing: &'a str,
    /// What the value is called.
    pub name: &'a str,
}

impl Purpose<'_> {
    fn info(&self) -> Vec<u8> {
        // Neither name has a line end in it.
        format!("holm secret {FORMAT}\n{}\n{}", self.thing, self.name).into_bytes()
    }
}

/// A device's public key for sealing. Any 32 bytes are taken: to those that are no key, nothing can be sealed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SealingKey([u8; KEY]);

impl SealingKey {
    /// From its text, 64 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, TrustError> {
        let digest: Digest =
            text.parse().map_err(|_| TrustError::Key { what: "an X25519 public key in hexadecimal" })?;
        Ok(Self(*digest.as_bytes()))
    }

    /// A value that only the key's owner opens, and only for this purpose.
    pub fn seal(&self, purpose: Purpose<'_>, value: &[u8]) -> Result<Vec<u8>, TrustError> {
        let ephemeral = random()?;
        let encapsulated = x25519(ephemeral, X25519_BASEPOINT_BYTES);
        let agreed = agree(ephemeral, self.0)?;
        let (key, nonce) = schedule(&agreed, &encapsulated, &self.0, &purpose.info())?;
        let mut sealed = value.to_vec();
        key.seal_in_place_append_tag(nonce, Aad::empty(), &mut sealed).map_err(|_| TrustError::Sealed)?;
        Ok([&[FORMAT][..], &encapsulated, &sealed].concat())
    }
}

impl std::str::FromStr for SealingKey {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        Self::parse(text)
    }
}

impl fmt::Display for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Digest::from(self.0).fmt(f)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({self})")
    }
}

/// The other half, which stays on its device. Its `Debug` does not show it.
#[derive(Clone)]
pub struct OpeningKey([u8; KEY]);

impl OpeningKey {
    /// A new one.
    pub fn generate() -> Result<Self, TrustError> {
        random().map(Self)
    }

    /// From its bytes, as [`OpeningKey::to_bytes`] gives them.
    pub fn from_bytes(bytes: [u8; KEY]) -> Self {
        Self(bytes)
    }

    /// To be kept where only its owner reads.
    pub fn to_bytes(&self) -> [u8; KEY] {
        self.0
    }

    /// The key that others seal with.
    pub fn public(&self) -> SealingKey {
        SealingKey(x25519(self.0, X25519_BASEPOINT_BYTES))
    }

    /// What was sealed to this key for this purpose.
    pub fn open(&self, purpose: Purpose<'_>, sealed: &[u8]) -> Result<Vec<u8>, TrustError> {
        let Some((&FORMAT, rest)) = sealed.split_first() else { return Err(TrustError::Sealed) };
        let Some((encapsulated, sealed)) = rest.split_first_chunk::<KEY>() else { return Err(TrustError::Sealed) };
        self.open_parts(encapsulated, sealed, &purpose.info(), &[])
    }

    fn open_parts(
        &self,
        encapsulated: &[u8; KEY],
        sealed: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, TrustError> {
        let agreed = agree(self.0, *encapsulated)?;
        let (key, nonce) = schedule(&agreed, encapsulated, &self.public().0, info)?;
        let mut value = sealed.to_vec();
        let opened = key.open_in_place(nonce, Aad::from(aad), &mut value).map_err(|_| TrustError::Sealed)?.len();
        value.truncate(opened);
        Ok(value)
    }
}

impl fmt::Debug for OpeningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpeningKey(of {})", self.public())
    }
}

fn random() -> Result<[u8; KEY], TrustError> {
    let mut bytes = [0; KEY];
    SystemRandom::new().fill(&mut bytes).map_err(|_| TrustError::Random)?;
    Ok(bytes)
}

/// X25519. A point of small order gives zeros whatever the private key: everybody could open that (RFC 9180, 7.1.4).
fn agree(private: [u8; KEY], public: [u8; KEY]) -> Result<[u8; KEY], TrustError> {
    let agreed = x25519(private, public);
    if agreed == [0; KEY] { Err(TrustError::Sealed) } else { Ok(agreed) }
}

/// `ExtractAndExpand` of the KEM (4.1) and the key schedule of base mode (5.1).
fn schedule(
    agreed: &[u8; KEY],
    encapsulated: &[u8; KEY],
    recipient: &[u8; KEY],
    info: &[u8],
) -> Result<(LessSafeKey, Nonce), TrustError> {
    let context = [&encapsulated[..], recipient].concat();
    let shared = extract(KEM_SUITE, &[], b"eae_prk", agreed);
    let shared = expand(KEM_SUITE, &shared, b"shared_secret", &context, KEY);
    // Mode 0, base: there is no key that was shared before.
    let psk = extract(SUITE, &[], b"psk_id_hash", &[]);
    let info = extract(SUITE, &[], b"info_hash", info);
    let context = [&[0][..], &psk, &info].concat();
    let secret = extract(SUITE, &shared, b"secret", &[]);
    let key = expand(SUITE, &secret, b"key", &context, KEY);
    let nonce = expand(SUITE, &secret, b"base_nonce", &context, 12);
    let key = UnboundKey::new(&CHACHA20_POLY1305, &key).map_err(|_| TrustError::Sealed)?;
    // The nonce of the first message is the base nonce (5.2), and there is no second one.
    let nonce = Nonce::try_assume_unique_for_key(&nonce).map_err(|_| TrustError::Sealed)?;
    Ok((LessSafeKey::new(key), nonce))
}

/// `LabeledExtract` (4): HMAC, as HKDF has it (RFC 5869, 2.2). ring's HKDF does not give the result away, and it is needed as bytes.
fn extract(suite: &[u8], salt: &[u8], label: &[u8], value: &[u8]) -> Vec<u8> {
    let labeled = [b"HPKE-v1", suite, label, value].concat();
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), &labeled).as_ref().to_vec()
}

/// `LabeledExpand` (4) to at most a hash's length: one round of HKDF's (RFC 5869, 2.3).
fn expand(suite: &[u8], key: &[u8], label: &[u8], info: &[u8], length: usize) -> Vec<u8> {
    let size = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    let labeled = [&size[..], b"HPKE-v1", suite, label, info, &[1]].concat();
    let mut bytes = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &labeled).as_ref().to_vec();
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2).unwrap(), 16).unwrap()).collect()
    }

    const PI3: Purpose<'_> = Purpose { thing: "pi3", name: "api-key" };

    #[test]
    fn it_opens_what_the_standard_says() {
        // RFC 9180, A.2.1 and A.2.1.1, sequence number 0.
        let key = bytes("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb");
        let key = OpeningKey::from_bytes(key.try_into().unwrap());
        let public = "4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a";
        assert_eq!(key.public().to_string(), public);
        let encapsulated = bytes("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a");
        let sealed =
            bytes("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28");
        let opened =
            key.open_parts(&encapsulated.try_into().unwrap(), &sealed, b"Ode on a Grecian Urn", b"Count-0").unwrap();
        assert_eq!(opened, b"Beauty is truth, truth beauty");
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_for_its_purpose_and_in_no_other_way() {
        let (key, other) = (OpeningKey::generate().unwrap(), OpeningKey::generate().unwrap());
        let sealed = key.public().seal(PI3, b"hunter2").unwrap();
        assert_eq!(key.open(PI3, &sealed).unwrap(), b"hunter2");
        assert_ne!(sealed, key.public().seal(PI3, b"hunter2").unwrap(), "the same value is not recognised");
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert!(other.open(PI3, &sealed).is_err());
        for purpose in [Purpose { thing: "pi4", ..PI3 }, Purpose { name: "banner", ..PI3 }] {
            assert!(key.open(purpose, &sealed).is_err(), "{purpose:?}");
        }
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            *changed.get_mut(at).unwrap() ^= 1;
            // The highest bit of a point is no part of it (RFC 7748, 5), and this is the lowest one.
            assert!(key.open(PI3, &changed).is_err(), "byte {at}");
            assert!(key.open(PI3, sealed.get(..at).unwrap()).is_err(), "cut at {at}");
        }
        assert_eq!(key.open(PI3, &key.public().seal(PI3, b"").unwrap()).unwrap(), b"");
    }

    #[test]
    fn nothing_is_sealed_to_a_key_that_everybody_has() {
        for key in [[0; KEY], {
            let mut one = [0; KEY];
            one[0] = 1;
            one
        }] {
            assert!(SealingKey(key).seal(PI3, b"x").is_err());
        }
        assert!(SealingKey::parse("4310").is_err());
        let key = OpeningKey::generate().unwrap();
        assert_eq!(SealingKey::parse(&key.public().to_string()).unwrap(), key.public());
        assert!(!format!("{key:?}").contains(&Digest::from(key.to_bytes()).to_string()));
    }
}
