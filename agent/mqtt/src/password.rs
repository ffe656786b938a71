//! Password hashes: PBKDF2 with HMAC-SHA-256 (RFC 8018, section 5.2), as text that fits a config file.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::pbkdf2;
use ring::rand::{SecureRandom, SystemRandom};

const SCHEME: &str = "pbkdf2-sha256";

/// Bounds the work that one CONNECT can ask for, should somebody put a silly number in the config.
const MAX_ITERATIONS: u32 = 10_000_000;

const HASH_BYTES: usize = 32;

/// Why a text is not a password hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Not of the form `pbkdf2-sha256$iterations$salt$hash`.
    #[error("password hash is not `{SCHEME}$iterations$salt$hash`")]
    Form,
    /// Not a number from 1 to ten million.
    #[error("iterations are not a number from 1 to {MAX_ITERATIONS}")]
    Iterations,
    /// Not base64, or a hash that is not 32 bytes long.
    #[error("salt or hash is not base64 of the right length")]
    Encoding,
    /// The system has no randomness for a salt.
    #[error("no random bytes for the salt")]
    Random,
}

/// The salted hash of a password. Written as `pbkdf2-sha256$iterations$salt$hash`, both in base64.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl PasswordHash {
    /// Hashes `password` with a fresh salt. OWASP's advice of 2023 is 600,000 iterations; a small board takes about a
    /// second for that.
    pub fn create(password: &[u8], iterations: NonZeroU32) -> Result<Self, PasswordError> {
        let mut salt = vec![0; 16];
        SystemRandom::new().fill(&mut salt).map_err(|_| PasswordError::Random)?;
        let mut hash = vec![0; HASH_BYTES];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password, &mut hash);
        Ok(Self { iterations, salt, hash })
    }

    /// Whether this is the password, in time that does not depend on where they differ. Slow on purpose: call it off
    /// the event loop.
    pub fn verify(&self, password: &[u8]) -> bool {
        pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, self.iterations, &self.salt, password, &self.hash).is_ok()
    }
}

impl FromStr for PasswordHash {
    type Err = PasswordError;

    fn from_str(text: &str) -> Result<Self, PasswordError> {
        let mut parts = text.split('$');
        let (Some(SCHEME), Some(iterations), Some(salt), Some(hash), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(PasswordError::Form);
        };
        let iterations: NonZeroU32 = iterations.parse().map_err(|_| PasswordError::Iterations)?;
        if iterations.get() > MAX_ITERATIONS {
            return Err(PasswordError::Iterations);
        }
        let decode = |text| STANDARD.decode(text).map_err(|_| PasswordError::Encoding);
        let (salt, hash) = (decode(salt)?, decode(hash)?);
        if hash.len() != HASH_BYTES || salt.is_empty() {
            return Err(PasswordError::Encoding);
        }
        Ok(Self { iterations, salt, hash })
    }
}

impl fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (salt, hash) = (STANDARD.encode(&self.salt), STANDARD.encode(&self.hash));
        write!(f, "{SCHEME}${}${salt}${hash}", self.iterations)
    }
}

impl fmt::Debug for PasswordHash {
    /// Without the hash: configs are printed in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordHash({SCHEME}, {} iterations)", self.iterations)
    }
}
