//! The door to what is named by its hash: bundles, native code, metadata.
//!
//! # Invariants
//!
//! 1. What has a name has the bytes of that name, whole: it is written beside, synced, checked and renamed.
//! 2. Nothing is ever changed, so whoever has opened one reads it to the end.
//!
//! # How it fails
//!
//! A put that was cut off leaves a file under `new`, which the next start removes.
//!
//! It is a folder; another kind of store replaces this file and no other. All of it blocks: call it from a thread that may.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use holm_bundle::Digest;

use crate::CloudError;
use crate::error::file;
use crate::folder::sync_folder;

/// See the module.
pub(crate) struct Blobs {
    folder: PathBuf,
    /// Tells puts of the same blob apart.
    puts: AtomicU64,
}

/// What became of a put.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is there, and was made to last.
    Stored,
    /// It was there before.
    Known,
    /// The bytes have another name.
    Mismatch(Digest),
}

impl Blobs {
    /// Over a folder that is there.
    pub(crate) fn open(folder: &Path) -> Result<Self, CloudError> {
        let new = folder.join("new");
        if new.exists() {
            fs::remove_dir_all(&new).map_err(file("remove", &new))?;
        }
        fs::create_dir_all(&new).map_err(file("create", &new))?;
        Ok(Self::beside(folder))
    }

    /// To read from a folder that somebody else may have open, and puts into.
    pub(crate) fn beside(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), puts: AtomicU64::new(0) }
    }

    /// The names of all, in order.
    pub(crate) fn names(&self) -> Result<Vec<Digest>, CloudError> {
        let entries = |folder: &Path| -> Result<Vec<String>, CloudError> {
            let names = fs::read_dir(folder).map_err(file("read", folder))?.map(|entry| {
                entry.map(|entry| entry.file_name().to_string_lossy().into_owned()).map_err(file("read", folder))
            });
            names.collect()
        };
        let mut found = Vec::new();
        for first in entries(&self.folder)?.into_iter().filter(|name| name.len() == 2) {
            let rests = entries(&self.folder.join(&first))?;
            found.extend(rests.iter().filter_map(|rest| format!("{first}{rest}").parse::<Digest>().ok()));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Keeps these bytes under this name.
    pub(crate) fn put(&self, name: &Digest, bytes: &[u8]) -> Result<Put, CloudError> {
        let found = Digest::of(bytes);
        if found != *name {
            return Ok(Put::Mismatch(found));
        }
        let path = self.path(name);
        // Compared, so that putting it again mends one that the disk has damaged.
        if fs::read(&path).is_ok_and(|stored| stored == bytes) {
            return Ok(Put::Known);
        }
        let new = self.folder.join("new").join(self.puts.fetch_add(1, Ordering::Relaxed).to_string());
        let mut target = File::create(&new).map_err(file("create", &new))?;
        target.write_all(bytes).and_then(|()| target.sync_all()).map_err(file("write", &new))?;
        if let Some(folder) = path.parent()
            && !folder.exists()
        {
            fs::create_dir_all(folder).map_err(file("create", folder))?;
            sync_folder(folder)?;
        }
        fs::rename(&new, &path).map_err(file("write", &path))?;
        sync_folder(&path)?;
        Ok(Put::Stored)
    }

    /// An open blob and its length; `None` if there is none of this name.
    pub(crate) fn get(&self, name: &Digest) -> Result<Option<(File, u64)>, CloudError> {
        let path = self.path(name);
        match File::open(&path) {
            Ok(blob) => {
                let length = blob.metadata().map_err(file("read", &path))?.len();
                Ok(Some((blob, length)))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file("read", &path)(error)),
        }
    }

    /// All of a blob; `None` if there is none of this name.
    pub(crate) fn read(&self, name: &Digest) -> Result<Option<Vec<u8>>, CloudError> {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file("read", &path)(error)),
        }
    }

    /// In folders of the first two digits, so that none gets very long.
    fn path(&self, name: &Digest) -> PathBuf {
        let name = name.to_string();
        let (first, rest) = name.split_at_checked(2).unwrap_or(("", &name));
        self.folder.join(first).join(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_was_put_is_there_and_what_is_not_what_it_says_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path()).unwrap();
        let name = Digest::of(b"bytes");
        assert!(blobs.get(&name).unwrap().is_none());
        assert_eq!(blobs.put(&name, b"other").unwrap(), Put::Mismatch(Digest::of(b"other")));
        assert!(blobs.get(&name).unwrap().is_none());
        assert_eq!(blobs.put(&name, b"bytes").unwrap(), Put::Stored);
        assert_eq!(blobs.put(&name, b"bytes").unwrap(), Put::Known);
        let (mut file, length) = blobs.get(&name).unwrap().unwrap();
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert_eq!((read.as_slice(), length), (&b"bytes"[..], 5));
    }

    #[test]
    fn putting_it_again_mends_it() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path()).unwrap();
        let name = Digest::of(b"bytes");
        blobs.put(&name, b"bytes").unwrap();
        fs::write(blobs.path(&name), b"bitten").unwrap();
        assert_eq!(blobs.put(&name, b"bytes").unwrap(), Put::Stored);
        assert_eq!(fs::read(blobs.path(&name)).unwrap(), b"bytes");
    }

    #[test]
    fn what_a_cut_off_put_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        drop(Blobs::open(folder.path()).unwrap());
        let left = folder.path().join("new/7");
        fs::write(&left, b"half").unwrap();
        let blobs = Blobs::open(folder.path()).unwrap();
        assert!(!left.exists());
        assert_eq!(blobs.put(&Digest::of(b"x"), b"x").unwrap(), Put::Stored);
    }
}
