//! Targets: what is signed of a file, and holding a file against it.

use holm_bundle::Digest;
use ring::digest::{Context, SHA256, SHA512, digest};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::key::{hex, to_hex};
use crate::TrustError;

/// Digests of a file (4.4, `HASHES`). Those of kinds that are not known here are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Hashes {
    sha256: Option<Vec<u8>>,
    sha512: Option<Vec<u8>>,
}

impl Hashes {
    /// Whether all that are known fit, and one is known.
    pub(crate) fn fit(&self, bytes: &[u8]) -> bool {
        let fits = |algorithm, wanted: &[u8]| digest(algorithm, bytes).as_ref() == wanted;
        (self.sha256.is_some() || self.sha512.is_some())
            && self.sha256.as_ref().is_none_or(|wanted| fits(&SHA256, wanted))
            && self.sha512.as_ref().is_none_or(|wanted| fits(&SHA512, wanted))
    }
}

impl<'de> Deserialize<'de> for Hashes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Texts {
            sha256: Option<String>,
            sha512: Option<String>,
        }
        let read = |text: Option<String>, length: usize| {
            let Some(text) = text else { return Ok(None) };
            let bytes = hex(&text).filter(|bytes| bytes.len() == length);
            bytes.map(Some).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a digest")))
        };
        let texts = Texts::deserialize(deserializer)?;
        Ok(Self { sha256: read(texts.sha256, 32)?, sha512: read(texts.sha512, 64)? })
    }
}

/// What is signed of a target (4.5, `TARGETS`).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Target {
    /// In bytes.
    pub length: u64,
    hashes: Hashes,
    /// Whatever the signer said of it; `null` if nothing. See [`crate::tuf::Listing`] for what Holm says.
    #[serde(default)]
    pub custom: Value,
}

impl Target {
    /// Its SHA-256 digest. Targets of Holm have one.
    pub fn sha256(&self) -> Option<Digest> {
        let bytes: [u8; 32] = self.hashes.sha256.as_deref()?.try_into().ok()?;
        Some(Digest::from(bytes))
    }

    /// Begins to hold bytes against it. `name` is for the error.
    pub fn check(&self, name: &str) -> Check {
        let context = |wanted: &Option<Vec<u8>>, algorithm| Some((Context::new(algorithm), wanted.clone()?));
        Check {
            name: name.to_owned(),
            length: self.length,
            found: 0,
            digests: [context(&self.hashes.sha256, &SHA256), context(&self.hashes.sha512, &SHA512)],
        }
    }

    /// The name of its file where consistent snapshots are used (5.7.3). `None` without a digest of a known kind.
    pub(crate) fn consistent(&self, name: &str) -> Option<String> {
        let hash = to_hex(self.hashes.sha256.as_ref().or(self.hashes.sha512.as_ref())?);
        Some(match name.rsplit_once('/') {
            Some((folder, file)) => format!("{folder}/{hash}.{file}"),
            None => format!("{hash}.{name}"),
        })
    }
}

/// Bytes that are held against a target while they come.
#[derive(Clone)]
pub struct Check {
    name: String,
    length: u64,
    found: u64,
    digests: [Option<(Context, Vec<u8>)>; 2],
}

impl Check {
    /// How many bytes were signed for.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The next piece. Fails as soon as there is more than was signed for, so nothing beyond it needs to be read or stored.
    pub fn update(&mut self, piece: &[u8]) -> Result<(), TrustError> {
        self.found = self.found.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        if self.found > self.length {
            return Err(TrustError::EndlessData { limit: self.length });
        }
        for (context, _) in self.digests.iter_mut().flatten() {
            context.update(piece);
        }
        Ok(())
    }

    /// The end: whether it was the file that was signed.
    pub fn finish(self) -> Result<(), TrustError> {
        let wrong = |what| Err(TrustError::WrongDigest { name: self.name.clone(), what });
        if self.found != self.length {
            return wrong("it is shorter");
        }
        let mut known = self.digests.into_iter().flatten().peekable();
        if known.peek().is_none() {
            return wrong("its digest is of a kind that is not known here");
        }
        if known.all(|(context, wanted)| context.finish().as_ref() == wanted) { Ok(()) } else { wrong("its digest") }
    }
}
