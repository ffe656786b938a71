//! An image in a file: what it says, and whether it is still what it says.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::flash::Each;
use crate::layout::MANIFEST;
use crate::{ImageError, Manifest, Phase, Progress, hex};

/// What is read and written at a time.
pub(crate) const CHUNK: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub struct Image {
    /// The file.
    pub path: PathBuf,
    /// What it says about itself.
    pub manifest: Manifest,
    pub(crate) file: File,
}

impl Image {
    /// Reads the manifest, and compares the length with it.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let file = File::open(path).map_err(ImageError::file("open", path))?;
        let wrong = |problem: String| ImageError::NotAnImage { path: path.to_owned(), problem };
        let length = file.metadata().map_err(ImageError::file("read", path))?.len();
        if length < MANIFEST.end {
            return Err(wrong(format!("it has {length} bytes")));
        }
        let mut place = vec![0; CHUNK - 4096];
        file.read_exact_at(&mut place, MANIFEST.start).map_err(ImageError::file("read", path))?;
        let manifest = Manifest::read(&place).map_err(wrong)?;
        if manifest.bytes != length {
            let wrong_length =
                format!("it has {length} bytes, and should have {}: is the download complete?", manifest.bytes);
            return Err(wrong(wrong_length));
        }
        Ok(Self { path: path.to_owned(), manifest, file })
    }

    /// Reads all of it, and compares it with its digest.
    pub fn check(&mut self, tell: &mut dyn FnMut(Progress)) -> Result<(), ImageError> {
        let mut digest = Digest::without_manifest();
        self.each_chunk(&mut |at, chunk, total| {
            digest.add(at, chunk);
            tell(Progress { phase: Phase::Check, done: at + chunk.len() as u64, total });
            Ok(())
        })?;
        let (expected, found) = (self.manifest.sha256.clone(), digest.finish());
        match found == expected {
            true => Ok(()),
            false => Err(ImageError::Damaged { path: self.path.clone(), expected, found }),
        }
    }

    /// Whether it is for this board.
    pub fn is_for(&self, board: &str) -> Result<(), ImageError> {
        let found = &self.manifest.board;
        match found == board {
            true => Ok(()),
            false => {
                Err(ImageError::WrongBoard { path: self.path.clone(), found: found.clone(), asked: board.to_owned() })
            }
        }
    }

    /// All chunks in their order, each with where it begins and how long the image is.
    pub(crate) fn each_chunk(&mut self, with: Each<'_>) -> Result<(), ImageError> {
        each_chunk(&mut self.file, &self.path, self.manifest.bytes, with)
    }
}

/// All chunks of a file with so many bytes.
pub(crate) fn each_chunk(file: &mut File, path: &Path, total: u64, with: Each<'_>) -> Result<(), ImageError> {
    file.seek(SeekFrom::Start(0)).map_err(ImageError::file("read", path))?;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < total {
        let want = usize::try_from(total - at).unwrap_or(usize::MAX).min(CHUNK);
        let chunk = buffer.get_mut(..want).unwrap_or_default();
        file.read_exact(chunk).map_err(ImageError::file("read", path))?;
        with(at, chunk, total)?;
        at += want as u64;
    }
    Ok(())
}

/// The SHA-256 of an image, but for its manifest if it has one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Digest {
    sum: Sha256,
    left_out: std::ops::Range<u64>,
}

impl Digest {
    /// Of an image of ours.
    pub(crate) fn without_manifest() -> Self {
        Self { sum: Sha256::default(), left_out: MANIFEST }
    }

    /// The next bytes, which begin at `at`. The first chunk is whole: it has the manifest in it.
    pub(crate) fn add(&mut self, at: u64, chunk: &[u8]) {
        let before = usize::try_from(self.left_out.start.saturating_sub(at)).unwrap_or(usize::MAX).min(chunk.len());
        let after = usize::try_from(self.left_out.end.saturating_sub(at)).unwrap_or(usize::MAX).min(chunk.len());
        self.sum.update(chunk.get(..before).unwrap_or_default());
        self.sum.update(chunk.get(after..).unwrap_or_default());
    }

    pub(crate) fn finish(self) -> String {
        hex(&self.sum.finalize())
    }
}
