//! What an image says about itself, inside of itself, so that the two cannot be parted.
//!
//! In the gap between the partition table and the first partition: `HOLMIMG1`, the length of the JSON (32 bits, little-endian),
//! its SHA-256, the JSON, zeros. The JSON has the SHA-256 of all other bytes of the image. So every bit of it counts.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ImageError;
use crate::layout::MANIFEST;

const MAGIC: &[u8; 8] = b"HOLMIMG1";

/// Where the JSON begins, from the beginning of the manifest.
const TEXT_AT: usize = MAGIC.len() + 4 + 32;

/// The format that this release writes and reads.
const FORMAT: u32 = 1;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Of the manifest.
    pub format: u32,
    /// The board that it boots on.
    pub board: String,
    /// The processor's architecture.
    pub architecture: String,
    /// The release of Holm.
    pub version: String,
    /// Whether it can use wireless networks.
    pub wifi: bool,
    /// Whether it talks on the serial line.
    pub console: bool,
    /// Bytes of the image.
    pub bytes: u64,
    /// SHA-256 of the image but for the manifest.
    pub sha256: String,
    /// What it was made of.
    pub packages: Vec<Package>,
    /// What takes the space.
    pub parts: Vec<Part>,
}

/// A package of Debian.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the `.deb`.
    pub sha256: String,
}

/// A part of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Such as `kernel`.
    pub name: String,
    /// Bytes on the card.
    pub bytes: u64,
}

impl Manifest {
    /// With nothing in it yet.
    pub(crate) fn new(board: &str, architecture: &str) -> Self {
        Self {
            format: FORMAT,
            board: board.to_owned(),
            architecture: architecture.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            wifi: false,
            console: false,
            bytes: crate::layout::TOTAL,
            sha256: String::new(),
            packages: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// As it is in the image. `None` if it is too long for its place.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        let text = serde_json::to_vec(self).ok()?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend(u32::try_from(text.len()).ok()?.to_le_bytes());
        bytes.extend(Sha256::digest(&text));
        bytes.extend(text);
        (bytes.len() <= room()).then(|| {
            bytes.resize(room(), 0);
            bytes
        })
    }

    /// That of a card or an image which is open.
    pub(crate) fn of(card: &File, path: &Path) -> Result<Self, ImageError> {
        let mut place = vec![0; room()];
        card.read_exact_at(&mut place, MANIFEST.start).map_err(ImageError::file("read", path))?;
        Self::read(&place).map_err(|problem| ImageError::Card { path: path.to_owned(), problem })
    }

    /// From the place where it is; an error says what is wrong with it.
    pub(crate) fn read(place: &[u8]) -> Result<Self, String> {
        let head = place.split_at_checked(TEXT_AT).filter(|(head, _)| head.starts_with(MAGIC));
        let (head, rest) = head.ok_or("it has no manifest")?;
        let length = head.get(8..12).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
        let parts = rest.split_at_checked(usize::try_from(length).unwrap_or(usize::MAX));
        let (text, padding) = parts.ok_or("its manifest is cut off")?;
        let digest = Sha256::digest(text);
        if head.get(12..) != Some(digest.as_slice()) || padding.iter().any(|byte| *byte != 0) {
            return Err("its manifest is damaged".to_owned());
        }
        let format = serde_json::from_slice::<serde_json::Value>(text).ok();
        let format = format.and_then(|value| value.get("format")?.as_u64());
        if format != Some(FORMAT.into()) {
            return Err(format!(
                "its manifest has format {}, and this release reads {FORMAT}: use the `holm` that belongs to it",
                format.map_or("none".to_owned(), |format| format.to_string())
            ));
        }
        serde_json::from_slice(text).map_err(|error| format!("its manifest cannot be read: {error}"))
    }
}

fn room() -> usize {
    usize::try_from(MANIFEST.end - MANIFEST.start).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_a_manifest_counts() {
        let manifest = Manifest::new("rpi4", "aarch64");
        let bytes = manifest.bytes().unwrap();
        assert_eq!(Manifest::read(&bytes), Ok(manifest));
        for at in (0..2000).chain([bytes.len() - 1]) {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            assert!(Manifest::read(&bytes).is_err(), "bit {at}");
        }
        assert_eq!(Manifest::read(&[]).unwrap_err(), "it has no manifest");
    }

    #[test]
    fn an_image_of_a_later_release_is_refused_with_a_reason() {
        let later = Manifest { format: 2, ..Manifest::new("rpi4", "aarch64") };
        assert!(Manifest::read(&later.bytes().unwrap()).unwrap_err().contains("format 2"));
    }
}
