//! Tokens, and what is kept of them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holm_bundle::Digest;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::CloudError;

/// What lets somebody in: 32 random bytes, as text. Nobody guesses one, so its hash needs neither salt nor patience.
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn make() -> Result<Self, CloudError> {
        loop {
            let text = URL_SAFE_NO_PAD.encode(random::<32>()?);
            // What begins with a hyphen is taken for an option where it is pasted after `--token`.
            if !text.starts_with('-') {
                return Ok(Self(text));
            }
        }
    }

    /// To be told once.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    pub(crate) fn hash(&self) -> Hash {
        Hash::of(&self.0)
    }
}

// Not by way of `{:?}` either.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The SHA-256 of something: of a token, a certificate, a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Hash(pub(crate) [u8; 32]);

impl Hash {
    pub(crate) fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(*Digest::of(bytes.as_ref()).as_bytes())
    }

    /// All of it, in lower-case hexadecimal.
    pub(crate) fn hex(&self) -> String {
        Digest::from(self.0).to_string()
    }

    /// Enough of it to tell tokens apart.
    pub(crate) fn id(&self) -> String {
        self.hex().chars().take(12).collect()
    }
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], CloudError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| CloudError::Random)?;
    Ok(bytes)
}
