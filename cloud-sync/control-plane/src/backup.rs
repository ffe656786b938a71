//! Everything that a control plane is, in one file; and a control plane out of one.
//!
//! # Format
//!
//! A tar archive in one zstd frame with a checksum. The first entry is `backup.json`, which says the format; then come `records.db`, what
//! is in `ca` and `keys`, and the blobs. Everything is there, private keys included, so the file is as secret as the folder.
//!
//! # How it works
//!
//! The database is copied first, as one transaction sees it, whether a control plane is running in the folder or not. Blobs never
//! change and come before what names them, so those that are copied after it are enough.
//!
//! A database that is restored is brought forward before anybody sees it ([`Leapt`]): its devices may have seen what it has not.
//!
//! # How it fails
//!
//! Both write beside what they make, and rename it when all of it lasts. What was cut off has made nothing.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use holm_bundle::Digest;
use holm_core::Timestamp;
use serde::{Deserialize, Serialize};

use crate::CloudError;
use crate::blobs::{Blobs, Put};
use crate::error::file;
use crate::folder::{Folder, sync_folder};
use crate::records::{Leapt, check_database, copy_database, leap};
use crate::signing::Signing;

/// The format that is written, and the last one that is read.
const FORMAT: u32 = 1;

/// The first entry.
const DESCRIPTION: &str = "backup.json";

const DATABASE: &str = "records.db";

const BLOBS: &str = "blobs";

/// What zstd is asked for: keys and metadata are small, and bundles are packed already.
const LEVEL: i32 = 3;

#[derive(Serialize, Deserialize)]
struct Description {
    format: u32,
    /// Of the program that wrote it.
    version: String,
}

/// What was written or read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Copied {
    /// Files, the database included.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

fn broken(what: impl Into<String>) -> CloudError {
    CloudError::Broken { what: what.into() }
}

/// Writes the control plane in `data` to the file `to`, which must not be there. Blocks.
pub fn backup(data: &Path, to: &Path) -> Result<Copied, CloudError> {
    let database = data.join(DATABASE);
    if !database.is_file() {
        return Err(broken(format!("there is no control plane in {}", data.display())));
    }
    if to.exists() {
        return Err(broken(format!("{} is there already", to.display())));
    }
    let to = &plain(to);
    let part = beside(to, "part");
    let copy = beside(to, "records");
    let written = write(data, &part, &copy);
    let _ = fs::remove_file(&copy);
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    let copied = written?;
    fs::rename(&part, to).map_err(file("write", to))?;
    sync_folder(to)?;
    Ok(copied)
}

fn write(data: &Path, part: &Path, copy: &Path) -> Result<Copied, CloudError> {
    let target = make(part)?;
    // Made by us, so that it is for its owner's eyes only: SQLite would make it for everybody's.
    make(copy)?;
    copy_database(&data.join(DATABASE), copy)?;
    let failed = file("write", part);
    let mut packed = zstd::Encoder::new(target, LEVEL).map_err(&failed)?;
    packed.include_checksum(true).map_err(&failed)?;
    let mut archive = tar::Builder::new(packed);
    let mut copied = Copied::default();
    let description = Description { format: FORMAT, version: env!("CARGO_PKG_VERSION").to_owned() };
    let description = serde_json::to_vec(&description).map_err(|error| broken(error.to_string()))?;
    append(&mut archive, DESCRIPTION, description.len() as u64, description.as_slice()).map_err(&failed)?;
    let mut add = |name: &str, source: File, length: u64| -> Result<(), CloudError> {
        copied.files += 1;
        copied.bytes += length;
        append(&mut archive, name, length, source.take(length)).map_err(&failed)
    };
    let open = |path: &Path| -> Result<(File, u64), CloudError> {
        let source = File::open(path).map_err(file("read", path))?;
        let length = source.metadata().map_err(file("read", path))?.len();
        Ok((source, length))
    };
    let (source, length) = open(copy)?;
    add(DATABASE, source, length)?;
    for folder in ["ca", "keys"] {
        for (name, path) in files(&data.join(folder))? {
            let (source, length) = open(&path)?;
            add(&format!("{folder}/{name}"), source, length)?;
        }
    }
    let blobs = Blobs::beside(&data.join(BLOBS));
    for name in blobs.names()? {
        // Nothing ever takes one away.
        let Some((blob, length)) = blobs.get(&name)? else { continue };
        let name = name.to_string();
        let (first, rest) = name.split_at(2);
        add(&format!("{BLOBS}/{first}/{rest}"), blob, length)?;
    }
    let target = archive.into_inner().and_then(zstd::Encoder::finish).map_err(&failed)?;
    target.sync_all().map_err(&failed)?;
    Ok(copied)
}

/// Makes a file for its owner's eyes only. What was left there by one that was cut off goes first: it may be open to others.
fn make(path: &Path) -> Result<File, CloudError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(file("remove", path)(error)),
        _ => {}
    }
    private().open(path).map_err(file("make", path))
}

/// A file that is not there yet.
fn private() -> fs::OpenOptions {
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600);
    options
}

fn append(archive: &mut tar::Builder<impl Write>, name: &str, length: u64, source: impl Read) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(length);
    header.set_mode(0o600);
    header.set_entry_type(tar::EntryType::Regular);
    archive.append_data(&mut header, name, source)
}

/// Plain files by name. What is being written (`*.new`) is nobody's yet.
fn files(folder: &Path) -> Result<Vec<(String, PathBuf)>, CloudError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(file("read", folder))? {
        let path = entry.map_err(file("read", folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        if let Some(name) = name.filter(|name| path.is_file() && !name.ends_with(".new")) {
            found.push((name, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Makes a control plane in `data`, which must be empty or not there, out of a file that [`backup`] has written. `now` is when. Blocks.
pub fn restore(from: &Path, data: &Path, now: Timestamp) -> Result<(Copied, Leapt), CloudError> {
    let empty = match fs::read_dir(data) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(file("read", data)(error)),
    };
    if !empty {
        return Err(broken(format!("{} is not empty", data.display())));
    }
    let data = &plain(data);
    let part = beside(data, "restoring");
    if part.exists() {
        fs::remove_dir_all(&part).map_err(file("remove", &part))?;
    }
    let read = unpack(from, &part).and_then(|copied| Ok((copied, bring_forward(&part, now)?)));
    if read.is_err() {
        let _ = fs::remove_dir_all(&part);
    }
    let restored = read?;
    if data.exists() {
        fs::remove_dir(data).map_err(file("replace", data))?;
    }
    fs::rename(&part, data).map_err(file("make", data))?;
    sync_folder(data)?;
    Ok(restored)
}

fn bring_forward(part: &Path, now: Timestamp) -> Result<Leapt, CloudError> {
    let folder = Folder::open(part)?;
    leap(&folder.database(), &Signing::open(&folder)?, now)
}

fn unpack(from: &Path, part: &Path) -> Result<Copied, CloudError> {
    let source = File::open(from).map_err(file("read", from))?;
    let failed = file("read", from);
    let mut archive = tar::Archive::new(zstd::Decoder::new(source).map_err(&failed)?);
    let (mut copied, mut described) = (Copied::default(), false);
    let blobs = part.join(BLOBS);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&blobs).map_err(file("make", &blobs))?;
    let blobs = Blobs::open(&blobs)?;
    for entry in archive.entries().map_err(&failed)? {
        let mut entry = entry.map_err(&failed)?;
        let name = entry.path().map_err(&failed)?.into_owned();
        if !described {
            described = true;
            describe(&name, &mut entry, from)?;
            continue;
        }
        copied.files += 1;
        copied.bytes += match place(&name, entry.header().entry_type(), from)? {
            Place::File => write_one(&mut entry, &part.join(&name))?,
            Place::Blob(digest) => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).map_err(&failed)?;
                if let Put::Mismatch(_) = blobs.put(&digest, &bytes)? {
                    return Err(broken(format!("{} in {} is not what its name says", name.display(), from.display())));
                }
                bytes.len() as u64
            }
        };
    }
    let (database, root) = (part.join(DATABASE), part.join("ca/root.crt"));
    for path in [&database, &root] {
        if !path.is_file() {
            let name = path.strip_prefix(part).unwrap_or(path).display();
            return Err(broken(format!("{} has no {name}: it is no backup, or a part of one", from.display())));
        }
    }
    check_database(&database)?;
    Ok(copied)
}

fn describe(name: &Path, entry: &mut impl Read, from: &Path) -> Result<(), CloudError> {
    let no_backup = || broken(format!("{} is no backup of a control plane", from.display()));
    if name != Path::new(DESCRIPTION) {
        return Err(no_backup());
    }
    let mut text = Vec::new();
    entry.take(4_096).read_to_end(&mut text).map_err(file("read", from))?;
    let description: Description = serde_json::from_slice(&text).map_err(|_| no_backup())?;
    if description.format > FORMAT {
        let Description { format, version } = description;
        let path = from.display();
        return Err(broken(format!("{path} has format {format}, by release {version}: restore it with that one")));
    }
    Ok(())
}

/// Where an entry belongs.
enum Place {
    /// In the folder, under its name.
    File,
    Blob(Digest),
}

/// Nothing leaves the folder, and nothing is there that has no place.
fn place(name: &Path, kind: tar::EntryType, from: &Path) -> Result<Place, CloudError> {
    let parts: Option<Vec<&str>> = name
        .components()
        .map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        })
        .collect();
    let place = match parts.as_deref() {
        Some([DATABASE] | ["ca" | "keys", _]) => Some(Place::File),
        Some([BLOBS, first, rest]) if first.len() == 2 => format!("{first}{rest}").parse().ok().map(Place::Blob),
        _ => None,
    };
    let place = place.filter(|_| kind == tar::EntryType::Regular);
    place.ok_or_else(|| {
        broken(format!("{} has an entry that has no place in a control plane: {}", from.display(), name.display()))
    })
}

/// Writes a file that lasts, for its owner's eyes only. Returns its length.
fn write_one(entry: &mut impl Read, path: &Path) -> Result<u64, CloudError> {
    let folder = path.parent().unwrap_or(path);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(file("make", folder))?;
    let failed = file("write", path);
    let mut target = private().open(path).map_err(&failed)?;
    let length = std::io::copy(entry, &mut target).map_err(&failed)?;
    target.sync_all().map_err(&failed)?;
    sync_folder(path)?;
    Ok(length)
}

/// A path without a slash at its end: with one, a name beside it would be inside.
fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}

/// A name in the same folder.
fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{what}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::records::Opened;

    #[test]
    fn a_slash_at_the_end_and_what_an_earlier_one_left_do_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let (data, to) = (folder.path().join("cloud"), folder.path().join("all.tar.zst"));
        for name in ["ca", "keys", "blobs/ab"] {
            fs::create_dir_all(data.join(name)).unwrap();
        }
        drop(Opened::open(&data.join(DATABASE)).unwrap());
        fs::write(data.join("ca/root.crt"), "root").unwrap();
        let blob = vec![7; 100_000];
        let name = Digest::of(&blob).to_string();
        let path = format!("blobs/{}/{}", &name[..2], &name[2..]);
        fs::create_dir_all(data.join(&path[..8])).unwrap();
        fs::write(data.join(&path), &blob).unwrap();
        for left in ["part", "records"] {
            fs::write(beside(&to, left), "left").unwrap();
            fs::set_permissions(beside(&to, left), fs::Permissions::from_mode(0o644)).unwrap();
        }
        backup(&data.join(""), &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
        let restored = folder.path().join("restored");
        fs::create_dir(&restored).unwrap();
        restore(&to, &restored.join(""), Timestamp(1)).unwrap();
        assert_eq!(fs::read(restored.join(&path)).unwrap(), blob);
        let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["all.tar.zst", "cloud", "restored"]);
        // A blob that is not what its name says.
        fs::write(data.join(&path), b"other").unwrap();
        fs::remove_file(&to).unwrap();
        backup(&data, &to).unwrap();
        let error = restore(&to, &folder.path().join("damaged"), Timestamp(1)).unwrap_err().to_string();
        assert!(error.contains("is not what its name says"), "{error}");
    }
}
