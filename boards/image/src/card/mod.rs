//! The database of a node, read from the card that it was on.
//!
//! Nothing is mounted and nothing is written: the partition table, the file system and its journal are read here, and so a
//! file needs no root, and the card stays what it is. What is found is copied into a folder; the copy is what is looked at.
//!
//! - `partitions`: where they are.
//! - `superblock`, `journal`: what a device that lost power had written last is in the journal only. `ext4-view` reads journals
//!   too, but not those that go round, revoke, or have no checksums (Raspberry Pi OS); so that is done here, and it is shown
//!   a file system that has none.
//! - `filesystem`: the two put together.

pub(crate) mod filesystem;
mod journal;
pub(crate) mod partition;
pub(crate) mod partitions;
mod superblock;

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ext4_view::Ext4Error;
use serde::Serialize;

use crate::ImageError;
use crate::disk::{Roots, mounted};
use crate::signature::{Content, LOOKED_AT, MEMBERS, content};
use filesystem::FileSystem;
use partition::Partition;
use partitions::{Partitions, Place};

/// Where nodes keep their data: on a card of `holm flash`, and under Debian and Raspberry Pi OS.
const FOLDERS: [&str; 2] = ["/holm", "/var/lib/holm"];

/// What the names of the database's files begin with.
const DATABASE: &str = "holm.db";

/// What SQLite makes anew of the others; an old one would be taken for true.
const SHARED: &str = "-shm";

/// What is copied at a time.
const CHUNK: usize = 1 << 20;

/// Where to look, if somebody knows.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The partition, as the kernel counts.
    pub partition: Option<u32>,
    /// The data folder in its file system.
    pub folder: Option<String>,
}

/// A database on a card.
pub struct Database {
    /// What is known of it.
    pub found: Found,
    system: FileSystem,
    card: PathBuf,
}

/// Where a database is, and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The partition, as the kernel counts; 0 is the whole of it.
    pub partition: u32,
    /// The label of its file system.
    pub label: Option<String>,
    /// The data folder in it.
    pub folder: String,
    /// Its files.
    pub files: Vec<Piece>,
    /// Blocks of the file system that were read from its journal: the device lost power.
    pub journaled: u64,
    /// Whether the end of that journal is damaged, and was not read.
    pub damaged: bool,
}

/// A file of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// Why there is no database on a card that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// It is a card of `holm flash` that no device has booted.
    NeverBooted,
    /// Something on it is encrypted.
    Encrypted,
    /// Of a file system it cannot be said what is on it.
    Unreadable,
    /// There is none, where it was looked for.
    NotThere,
}

impl Database {
    /// Looks for it, in all partitions.
    pub fn find(card: &Path, wanted: &Wanted) -> Result<Self, ImageError> {
        let file = open(card)?;
        let mut seek = file.try_clone().map_err(ImageError::file("open", card))?;
        let bytes = seek.seek(SeekFrom::End(0)).map_err(ImageError::file("read", card))?;
        let whole = Place { number: 0, start: 0, bytes };
        let part = |place: Place| -> Result<Partition, ImageError> {
            Ok(Partition { card: file.try_clone().map_err(ImageError::file("open", card))?, place })
        };
        let begin = part(whole)?.begin(LOOKED_AT).map_err(ImageError::file("read", card))?;
        // A partition by itself, or a copy of one.
        let Partitions { mut places, ours } = match content(&begin).kind {
            "" => Partitions::read(&file, bytes)
                .map_err(|problem| ImageError::NoTable { path: card.to_owned(), problem })?,
            _ => Partitions { places: vec![whole], ours: false },
        };
        if let Some(number) = wanted.partition {
            places.retain(|place| place.number == number);
        }
        let folders = match &wanted.folder {
            Some(folder) => vec![format!("/{}", folder.trim_matches('/'))],
            None => FOLDERS.map(str::to_owned).to_vec(),
        };
        let (mut found, mut seen, mut why) = (Vec::new(), Vec::new(), Absent::NotThere);
        for place in places {
            let partition = part(place)?;
            let Content { kind, label, .. } = content(&partition.begin(LOOKED_AT).unwrap_or_default());
            let mut say = |what: &str| {
                let name = match place.number {
                    0 => "all of it".to_owned(),
                    number => format!("partition {number}"),
                };
                let label = label.as_ref().map(|label| format!(", {label}")).unwrap_or_default();
                let kind = if kind.is_empty() { "nothing that is known here" } else { kind };
                seen.push(format!("{name}: {kind}{label}{what}"));
            };
            if kind != "ext4" {
                if MEMBERS.contains(&kind) && why == Absent::NotThere {
                    why = if kind == "LUKS" { Absent::Encrypted } else { Absent::Unreadable };
                }
                say("");
                continue;
            }
            let system = match FileSystem::open(partition) {
                Ok(system) => system,
                Err(problem) => {
                    why = Absent::Unreadable;
                    say(&format!("; {problem}"));
                    continue;
                }
            };
            match look(&system, &folders) {
                Ok(Some((folder, files))) => {
                    let found_here = Found {
                        partition: place.number,
                        label: label.clone(),
                        folder,
                        files,
                        journaled: system.journaled,
                        damaged: system.damaged,
                    };
                    say("");
                    found.push(Self { found: found_here, system, card: card.to_owned() });
                }
                Ok(None) => {
                    if ours && why == Absent::NotThere {
                        why = Absent::NeverBooted;
                    }
                    say(&format!("; it has no {DATABASE} in {}", folders.join(" or ")));
                }
                Err(problem) => {
                    why = Absent::Unreadable;
                    say(&format!("; {problem}"));
                }
            }
        }
        match (found.len(), found.pop()) {
            (1, Some(database)) => Ok(database),
            (0, _) => Err(ImageError::NoDatabase { path: card.to_owned(), seen, why }),
            (_, last) => {
                let numbers = found.iter().chain(&last).map(|database| database.found.partition).collect();
                Err(ImageError::Several { path: card.to_owned(), numbers })
            }
        }
    }

    /// Copies its files into a folder, for its owner only. They are on the disk when this is done.
    pub fn copy(&self, to: &Path) -> Result<(), ImageError> {
        make(to)?;
        for Piece { name, .. } in &self.found.files {
            let path = format!("{}/{name}", self.found.folder);
            let failed = |error: Ext4Error| ImageError::File {
                action: "read the database of",
                path: self.card.clone(),
                source: error.into(),
            };
            let mut from = self.system.ext4.open(path.as_str()).map_err(failed)?;
            let (mut file, at) = create(&to.join(name))?;
            let mut buffer = vec![0; CHUNK];
            loop {
                let count = from.read_bytes(&mut buffer).map_err(failed)?;
                if count == 0 {
                    break;
                }
                file.write_all(buffer.get(..count).unwrap_or_default()).map_err(ImageError::file("write", &at))?;
            }
            file.sync_all().map_err(ImageError::file("sync", &at))?;
        }
        Ok(())
    }
}

/// Copies the database of a node that does not run from its data folder, which is not written either.
pub fn copy_folder(from: &Path, to: &Path) -> Result<Found, ImageError> {
    // Held while it is copied. Where it cannot even be opened, nobody holds it.
    let lock = File::open(from.join("holm.lock")).ok();
    if let Some(lock) = &lock
        && matches!(lock.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
    {
        return Err(ImageError::Running { path: from.to_owned() });
    }
    let entries = fs::read_dir(from).map_err(ImageError::file("list", from))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(ImageError::file("list", from))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let meta = entry.metadata().map_err(ImageError::file("look at", &entry.path()))?;
        if meta.is_file() && is_piece(&name) {
            files.push(Piece { name, bytes: meta.len() });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    if files.is_empty() {
        let seen = vec![format!("a folder without {DATABASE}")];
        return Err(ImageError::NoDatabase { path: from.to_owned(), seen, why: Absent::NotThere });
    }
    make(to)?;
    for Piece { name, .. } in &files {
        let source = from.join(name);
        let mut original = File::open(&source).map_err(ImageError::file("open", &source))?;
        let (mut file, at) = create(&to.join(name))?;
        std::io::copy(&mut original, &mut file).map_err(ImageError::file("copy to", &at))?;
        file.sync_all().map_err(ImageError::file("sync", &at))?;
    }
    let folder = from.display().to_string();
    Ok(Found { partition: 0, label: None, folder, files, journaled: 0, damaged: false })
}

/// The first of the folders that has a database, with its files.
fn look(system: &FileSystem, folders: &[String]) -> Result<Option<(String, Vec<Piece>)>, String> {
    for folder in folders {
        let entries = match system.ext4.read_dir(folder) {
            Ok(entries) => entries,
            Err(Ext4Error::NotFound | Ext4Error::NotADirectory) => continue,
            Err(error) => return Err(format!("{folder}: {error}")),
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| format!("{folder}: {error}"))?;
            let name = entry.file_name().display().to_string();
            if !is_piece(&name) {
                continue;
            }
            let meta = entry.metadata().map_err(|error| format!("{folder}/{name}: {error}"))?;
            if meta.file_type().is_regular_file() {
                files.push(Piece { name, bytes: meta.len() });
            }
        }
        if !files.is_empty() {
            files.sort_by(|a, b| a.name.cmp(&b.name));
            return Ok(Some((folder.clone(), files)));
        }
    }
    Ok(None)
}

fn is_piece(name: &str) -> bool {
    name.starts_with(DATABASE) && !name.ends_with(SHARED) && !name.contains('/')
}

/// Opens a card to read it. One that is mounted is refused: what the system holds back is not on it yet.
fn open(card: &Path) -> Result<File, ImageError> {
    if let Some((partition, place)) = mounted(&Roots::default(), card) {
        return Err(ImageError::Mounted { path: card.to_owned(), partition, place });
    }
    File::open(card).map_err(ImageError::file("open", card))
}

/// A folder for its owner, with nothing in it.
fn make(folder: &Path) -> Result<(), ImageError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder).map_err(ImageError::file("make the folder", folder))?;
    let mut entries = fs::read_dir(folder).map_err(ImageError::file("list", folder))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(ImageError::NotEmpty { path: folder.to_owned() }),
    }
}

fn create(path: &Path) -> Result<(File, PathBuf), ImageError> {
    let mut options = File::options();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    Ok((file.map_err(ImageError::file("create", path))?, path.to_owned()))
}
