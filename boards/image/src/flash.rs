//! Writing a card.
//!
//! # The order
//!
//! 1. The image is read and compared with its digest, before the card is touched.
//! 2. The card is opened for us alone (`O_EXCL`: the kernel refuses if anything of it is in use), and looked at again: it
//!    must be the one that was agreed to.
//! 3. Everything but the first mebibyte is written, while the image is hashed again: it may have changed on the way.
//! 4. That is synced. Only then the first mebibyte follows, which has the partition table: a card that was cut off has
//!    none, or its old one cleared, and boots nothing.
//! 5. The card is read back, past the caches, and compared.
//! 6. The seed is written, and read again.
//!
//! All of it holds for an image of ours and for one of somebody else's system alike; they differ in what says that they are
//! whole, and in what a seed is.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, OFlags, fadvise};

use crate::disk::{Allowed, Disk, Roots};
use crate::image::{CHUNK, Digest, Image};
use crate::layout::MIB;
use crate::stock::{Seeded, Stock};
use crate::{ImageError, Phase, Progress, card_seed, seed};

/// The alignment that reading past the caches wants; no disk wants more.
const ALIGNMENT: usize = 4096;

/// Where an image goes.
#[derive(Debug, Clone)]
pub enum Target {
    /// A disk.
    Disk(Box<Disk>),
    /// A file, which gets this size.
    File {
        /// Where.
        path: PathBuf,
        /// How large the card is that it stands for.
        bytes: u64,
    },
}

/// What to write where.
pub struct Flash<'a> {
    /// Where the kernel tells about itself.
    pub roots: &'a Roots,
    /// Where.
    pub target: &'a Target,
    /// What somebody has allowed.
    pub allowed: Allowed,
}

/// What is written, as far as writing cares.
pub(crate) trait Source {
    /// Where it is.
    fn path(&self) -> &Path;
    /// How long it is.
    fn bytes(&self) -> u64;
    /// Its digest, as it was when somebody looked at it.
    fn sha256(&self) -> &str;
    /// To make that digest again.
    fn digest(&self) -> Digest;
    /// Reads all of it, and compares it with its digest.
    fn check(&mut self, tell: &mut dyn FnMut(Progress)) -> Result<(), ImageError>;
    /// All chunks in their order, each with where it begins and how long all of it is.
    fn each_chunk(&mut self, with: Each<'_>) -> Result<(), ImageError>;
    /// Whether what the digest leaves out of the first chunk is right.
    fn begins(&self, chunk: &[u8]) -> bool;
    /// Writes the seed to a card that has not got its begin yet, which is this.
    fn put_seed(&self, card: &File, path: &Path, first: &[u8]) -> Result<(), ImageError>;
    /// Reads it again.
    fn compare_seed(&self, card: &File, path: &Path, first: &[u8]) -> Result<(), ImageError>;
}

/// Takes a chunk, where it begins, and how long all of it is.
pub(crate) type Each<'a> = &'a mut dyn FnMut(u64, &[u8], u64) -> Result<(), ImageError>;

/// An image of ours, with its seed.
struct Ours<'a> {
    image: &'a mut Image,
    seed: &'a card_seed::Seed,
}

impl Source for Ours<'_> {
    fn path(&self) -> &Path {
        &self.image.path
    }

    fn bytes(&self) -> u64 {
        self.image.manifest.bytes
    }

    fn sha256(&self) -> &str {
        &self.image.manifest.sha256
    }

    fn digest(&self) -> Digest {
        Digest::without_manifest()
    }

    fn check(&mut self, tell: &mut dyn FnMut(Progress)) -> Result<(), ImageError> {
        self.image.check(tell)
    }

    fn each_chunk(&mut self, with: Each<'_>) -> Result<(), ImageError> {
        self.image.each_chunk(with)
    }

    fn begins(&self, chunk: &[u8]) -> bool {
        crate::Manifest::read(chunk.get(4096..).unwrap_or_default()).as_ref() == Ok(&self.image.manifest)
    }

    fn put_seed(&self, card: &File, path: &Path, first: &[u8]) -> Result<(), ImageError> {
        seed::put(card, path, first, self.seed)
    }

    fn compare_seed(&self, card: &File, path: &Path, first: &[u8]) -> Result<(), ImageError> {
        seed::compare(card, path, first, self.seed)
    }
}

impl Target {
    /// Its path.
    pub fn path(&self) -> &Path {
        match self {
            Self::Disk(disk) => &disk.path,
            Self::File { path, .. } => path,
        }
    }

    /// All reasons not to write an image of so many bytes to it.
    pub fn refusals(&self, image: &Path, needed: u64, allowed: Allowed) -> Vec<String> {
        match self {
            Self::Disk(disk) => disk.refusals(needed, allowed),
            Self::File { bytes, .. } if *bytes < needed => {
                vec![format!("it is to have {bytes} bytes, and the image has {needed}")]
            }
            Self::File { path, .. } => {
                let same = |path: &Path| path.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
                match same(path).is_some() && same(path) == same(image) {
                    true => vec!["it is the image itself".to_owned()],
                    false => Vec::new(),
                }
            }
        }
    }
}

impl Flash<'_> {
    /// Writes an image of ours and what its card is told, and reads it back.
    pub fn write(
        &self,
        image: &mut Image,
        seed: &card_seed::Seed,
        tell: &mut dyn FnMut(Progress),
    ) -> Result<(), ImageError> {
        self.write_any(&mut Ours { image, seed }, tell)
    }

    /// Writes an image of another system and what its first boot is told, and reads it back.
    pub fn write_stock(
        &self,
        stock: &mut Stock,
        seeded: &Seeded,
        tell: &mut dyn FnMut(Progress),
    ) -> Result<(), ImageError> {
        self.write_any(&mut stock.with(seeded), tell)
    }

    fn write_any(&self, image: &mut dyn Source, tell: &mut dyn FnMut(Progress)) -> Result<(), ImageError> {
        let path = self.target.path();
        let refused = |reasons: Vec<String>| match reasons.is_empty() {
            true => Ok(()),
            false => Err(ImageError::Refused { path: path.to_owned(), reasons }),
        };
        refused(self.target.refusals(image.path(), image.bytes(), self.allowed))?;
        image.check(tell)?;
        let mut card = self.open()?;
        let first = write_all_but_first(image, &mut card, path, tell)?;
        card.sync_all().map_err(ImageError::file("sync", path))?;
        let proven = self.prove(image, &card, &first, tell);
        if proven.is_err() {
            // It must not boot. What cannot be cleared now does not hold what was written either.
            let _ = card.write_all_at(&vec![0; CHUNK], 0).and_then(|()| card.sync_all());
        }
        proven
    }

    /// Reads it back, gives it its seed, and then what it boots by: one that is pulled out before that boots nothing.
    fn prove(
        &self,
        image: &dyn Source,
        card: &File,
        first: &[u8],
        tell: &mut dyn FnMut(Progress),
    ) -> Result<(), ImageError> {
        let path = self.target.path();
        drop_caches(card);
        let mut reader = self.reader()?;
        self.verify(image, &mut reader, first, tell)?;
        image.put_seed(card, path, first)?;
        card.sync_all().map_err(ImageError::file("sync", path))?;
        drop_caches(card);
        image.compare_seed(card, path, first)?;
        put_first(card, path, first)?;
        drop_caches(card);
        let total = image.bytes();
        tell(Progress { phase: Phase::Verify, done: total.saturating_sub(first.len() as u64), total });
        let mut buffer = Buffer::new();
        let found = buffer.of(first.len());
        reader.rewind().and_then(|()| reader.read_exact(found)).map_err(ImageError::file("read back", path))?;
        if found != first {
            let (expected, found) = ("what it boots by".to_owned(), "something else".to_owned());
            return Err(ImageError::BadCard { path: path.to_owned(), expected, found });
        }
        tell(Progress { phase: Phase::Verify, done: total, total });
        Ok(())
    }

    /// Opens the card for us alone, and makes sure that it is still the one.
    fn open(&self) -> Result<File, ImageError> {
        let path = self.target.path();
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        match self.target {
            Target::File { bytes, .. } => {
                // For its owner's eyes: the seed lets a device in.
                let file = options.create(true).truncate(false).mode(0o600).open(path);
                let file = file.map_err(ImageError::file("open", path))?;
                // Twice: what was there before must not show through where the image has nothing.
                file.set_len(0).and_then(|()| file.set_len(*bytes)).map_err(ImageError::file("make room in", path))?;
                Ok(file)
            }
            Target::Disk(disk) => {
                let exclusive = i32::try_from(OFlags::EXCL.bits()).unwrap_or_default();
                let card =
                    options.custom_flags(exclusive).open(path).map_err(|source| match source.raw_os_error() {
                        Some(code) if code == rustix::io::Errno::BUSY.raw_os_error() => {
                            ImageError::InUse { path: path.to_owned() }
                        }
                        _ => ImageError::File { action: "open", path: path.to_owned(), source },
                    })?;
                let now = Disk::read(self.roots, &disk.name)?;
                if let Some((what, before, now)) = disk.changed(&now) {
                    return Err(ImageError::Changed { path: path.to_owned(), what, before, now });
                }
                Ok(card)
            }
        }
    }

    /// Reads the card past the caches, where that is possible; on a file system that cannot, without.
    fn reader(&self) -> Result<File, ImageError> {
        let path = self.target.path();
        let direct = i32::try_from(OFlags::DIRECT.bits()).unwrap_or_default();
        match OpenOptions::new().read(true).custom_flags(direct).open(path) {
            Ok(direct) => Ok(direct),
            Err(_) => File::open(path).map_err(ImageError::file("open", path)),
        }
    }

    /// Reads all back but the begin, which is not there yet, and compares it.
    fn verify(
        &self,
        image: &dyn Source,
        reader: &mut File,
        first: &[u8],
        tell: &mut dyn FnMut(Progress),
    ) -> Result<(), ImageError> {
        let path = self.target.path();
        let bad = |expected: String, found: String| ImageError::BadCard { path: path.to_owned(), expected, found };
        let mut digest = image.digest();
        digest.add(0, first);
        if !image.begins(first) {
            return Err(bad("its manifest".to_owned(), "another".to_owned()));
        }
        let (begin, total) = (first.len() as u64, image.bytes());
        reader.seek(SeekFrom::Start(begin)).map_err(ImageError::file("read back", path))?;
        let mut buffer = Buffer::new();
        let mut at = begin;
        while at < total {
            let want = usize::try_from(total - at).unwrap_or(usize::MAX).min(CHUNK);
            let chunk = buffer.of(want);
            reader.read_exact(chunk).map_err(ImageError::file("read back", path))?;
            digest.add(at, chunk);
            at += want as u64;
            tell(Progress { phase: Phase::Verify, done: at - begin, total });
        }
        let (expected, found) = (image.sha256().to_owned(), digest.finish());
        if expected == found { Ok(()) } else { Err(bad(expected, found)) }
    }
}

/// A chunk, where a read past the caches may write it.
struct Buffer(Vec<u8>);

impl Buffer {
    fn new() -> Self {
        Self(vec![0; CHUNK + ALIGNMENT])
    }

    /// So many bytes, a chunk's at most.
    fn of(&mut self, bytes: usize) -> &mut [u8] {
        let skip = self.0.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        self.0.get_mut(skip..skip + bytes.min(CHUNK)).unwrap_or_default()
    }
}

/// Writes all but the first mebibyte, which is cleared and handed back.
fn write_all_but_first(
    image: &mut dyn Source,
    card: &mut File,
    path: &Path,
    tell: &mut dyn FnMut(Progress),
) -> Result<Vec<u8>, ImageError> {
    // An old table must not lead into what is half written.
    card.write_all_at(&vec![0; CHUNK], 0).map_err(ImageError::file("write", path))?;
    card.sync_data().map_err(ImageError::file("sync", path))?;
    card.seek(SeekFrom::Start(MIB)).map_err(ImageError::file("write", path))?;
    let (mut first, mut digest) = (Vec::new(), image.digest());
    image.each_chunk(&mut |at, chunk, total| {
        digest.add(at, chunk);
        match at {
            0 => first = chunk.to_vec(),
            _ => card.write_all(chunk).map_err(ImageError::file("write", path))?,
        }
        // The kernel would take all of it into memory and seem to hang at the end.
        if at % (32 * MIB) == 0 {
            card.sync_data().map_err(ImageError::file("sync", path))?;
        }
        tell(Progress { phase: Phase::Write, done: at + chunk.len() as u64, total });
        Ok(())
    })?;
    let (expected, found) = (image.sha256().to_owned(), digest.finish());
    match found == expected {
        true => Ok(first),
        false => Err(ImageError::Damaged { path: image.path().to_owned(), expected, found }),
    }
}

fn put_first(card: &File, path: &Path, first: &[u8]) -> Result<(), ImageError> {
    let put = card.write_all_at(first, 0).and_then(|()| card.sync_all());
    put.map_err(ImageError::file("write the beginning of", path))
}

/// Best effort: where it is not possible, reading past the caches does it.
fn drop_caches(card: &File) {
    let _ = fadvise(card, 0, None, Advice::DontNeed);
}
