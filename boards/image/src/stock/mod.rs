//! Raspberry Pi OS, as its makers publish it, seeded for its first boot.
//!
//! An image is unpacked if it is packed, and looked through: what it is, what it runs on, and how its first boot is told
//! anything. Its own files say that and not its name: `os-release`, the programs' own heads, and whether it has cloud-init.
//! What cannot work is refused before a card is touched.
//!
//! - `deb`: the packages that go with it.
//! - `seed`: the files on its FAT partition, of which the first boot makes a node.
//! - `setup.sh`, `firstrun.sh`: what runs then. Nothing of what somebody chose is in them: it is in files that they copy.

mod deb;
mod seed;

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use ext4_view::{Ext4, Ext4Error};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::Serialize;

use crate::card::filesystem::FileSystem;
use crate::card::partition::Partition;
use crate::card::partitions::{Partitions, Place};
use crate::card_seed::{FILE, Seed};
use crate::flash::{Each, Source};
use crate::image::{CHUNK, Digest, each_chunk};
use crate::layout::MIB;
use crate::signature::{LOOKED_AT, content};
use crate::window::Window;
use crate::{ImageError, Phase, Progress, fat, hex};

pub use deb::Deb;
pub use seed::Seeded;

/// What packed files begin with, and how each is unpacked.
const PACKED: [(&[u8], &str); 4] =
    [(b"\x1f\x8b", "gunzip"), (b"PK\x03\x04", "unzip"), (b"\x28\xb5\x2f\xfd", "unzstd"), (b"BZh", "bunzip2")];

/// What files of xz begin with.
const XZ: &[u8] = b"\xfd7zXZ\0";

/// An image of Raspberry Pi OS.
#[derive(Debug)]
pub struct Stock {
    /// The file, packed or not.
    pub path: PathBuf,
    /// What it is.
    pub system: System,
    /// Bytes of it, unpacked.
    pub bytes: u64,
    /// SHA-256 of it, unpacked; empty until it was read.
    pub sha256: String,
    file: File,
    boot: Place,
}

/// A system in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct System {
    /// What it calls itself.
    pub name: String,
    /// Its release: `trixie`.
    pub release: String,
    /// What its programs run on, as Debian calls it.
    pub architecture: &'static str,
    /// How its first boot is told what to do.
    pub way: Way,
}

/// How a first boot is told what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// By cloud-init, which reads `user-data` and `network-config`.
    CloudInit,
    /// By systemd, which runs a script that the kernel's command line names.
    FirstRun,
}

impl Stock {
    /// Unpacks an image, beside itself, and sees what it is.
    pub fn open(path: &Path, tell: &mut dyn FnMut(Progress)) -> Result<Self, ImageError> {
        let unfit = |problem: String| ImageError::Unfit { path: path.to_owned(), problem };
        let mut file = File::open(path).map_err(ImageError::file("open", path))?;
        let mut begin = [0; 8];
        file.read_exact(&mut begin).map_err(|_| unfit("it is empty, or nearly so".to_owned()))?;
        if let Some((_, program)) = PACKED.iter().find(|(magic, _)| begin.starts_with(magic)) {
            return Err(ImageError::Packed { path: path.to_owned(), program });
        }
        file.rewind().map_err(ImageError::file("read", path))?;
        let mut sha256 = String::new();
        if begin.starts_with(XZ) {
            (file, sha256) = unpack(&file, path, tell)?;
        }
        let bytes = file.seek(SeekFrom::End(0)).map_err(ImageError::file("read", path))?;
        let (boot, system) = identify(&file, bytes).map_err(unfit)?;
        if boot.start < MIB {
            return Err(unfit("its FAT partition begins in the first mebibyte, which is written last".to_owned()));
        }
        Ok(Self { path: path.to_owned(), system, bytes, sha256, file, boot })
    }

    /// What its first boot is to find.
    pub fn seed(&self, told: &Seed, packages: &[Deb]) -> Result<Seeded, ImageError> {
        let unfit = |problem: String| ImageError::Unfit { path: self.path.clone(), problem };
        for deb in packages {
            if deb.architecture != self.system.architecture && deb.architecture != "all" {
                return Err(unfit(format!(
                    "its programs are for {}, and {} {} is for {}",
                    self.system.architecture, deb.package, deb.version, deb.architecture
                )));
            }
        }
        if !packages.iter().any(|deb| deb.package == "holm") {
            return Err(unfit("it has no Holm, and none of the packages is `holm`".to_owned()));
        }
        // What no node would take is refused here, where somebody can do something about it.
        Seed::parse(FILE, &told.render()).map_err(|problems| ImageError::Seed { problem: problems.to_string() })?;
        let line = fat::get(self.window(&self.file, &self.path)?, seed::LINE)
            .map_err(ImageError::file("read", &self.path))?
            .ok_or_else(|| unfit(format!("its FAT partition has no {}", seed::LINE)))?;
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains("systemd.run=") {
            return Err(unfit("somebody has told it already what its first boot runs".to_owned()));
        }
        // Another one for each card: cloud-init does for an instance once what it is told.
        let mut random = [0; 8];
        SystemRandom::new().fill(&mut random).map_err(|_| unfit("this machine has no random numbers".to_owned()))?;
        let instance = format!("holm-{}", hex(&random));
        let seeded = Seeded::new(self.system.way, told, packages, &instance, &line);
        let free = fat::free(self.window(&self.file, &self.path)?).map_err(ImageError::file("read", &self.path))?;
        match seeded.bytes() {
            bytes if bytes > free => Err(ImageError::TooLarge { part: "what its first boot needs", bytes, most: free }),
            _ => Ok(seeded),
        }
    }

    /// The image with its seed, as it is written.
    pub(crate) fn with<'a>(&'a mut self, seeded: &'a Seeded) -> impl Source + 'a {
        With { stock: self, seeded }
    }

    /// Reads a file of a card's FAT partition that this image was written to.
    pub fn get(&self, card: &File, path: &Path, name: &str) -> Result<Option<Vec<u8>>, ImageError> {
        fat::get(self.window(card, path)?, name).map_err(ImageError::file("read", path))
    }

    fn window(&self, card: &File, path: &Path) -> Result<Window<File>, ImageError> {
        let card = card.try_clone().map_err(ImageError::file("open", path))?;
        Ok(Window::new(card, self.boot.start, self.boot.bytes))
    }
}

struct With<'a> {
    stock: &'a mut Stock,
    seeded: &'a Seeded,
}

impl Source for With<'_> {
    fn path(&self) -> &Path {
        &self.stock.path
    }

    fn bytes(&self) -> u64 {
        self.stock.bytes
    }

    fn sha256(&self) -> &str {
        &self.stock.sha256
    }

    fn digest(&self) -> Digest {
        Digest::default()
    }

    fn check(&mut self, tell: &mut dyn FnMut(Progress)) -> Result<(), ImageError> {
        let mut digest = Digest::default();
        self.each_chunk(&mut |at, chunk, total| {
            digest.add(at, chunk);
            tell(Progress { phase: Phase::Check, done: at + chunk.len() as u64, total });
            Ok(())
        })?;
        let found = digest.finish();
        let known = &mut self.stock.sha256;
        if !known.is_empty() && *known != found {
            return Err(ImageError::Damaged { path: self.stock.path.clone(), expected: known.clone(), found });
        }
        *known = found;
        Ok(())
    }

    fn each_chunk(&mut self, with: Each<'_>) -> Result<(), ImageError> {
        let Stock { file, path, bytes, .. } = &mut *self.stock;
        each_chunk(file, path, *bytes, with)
    }

    fn begins(&self, _chunk: &[u8]) -> bool {
        true
    }

    fn put_seed(&self, card: &File, path: &Path, _: &[u8]) -> Result<(), ImageError> {
        let files = self.seeded.files.iter().map(|(name, bytes)| (&**name, &**bytes));
        fat::put(self.stock.window(card, path)?, files).map_err(ImageError::file("write the seed to", path))
    }

    fn compare_seed(&self, card: &File, path: &Path, _: &[u8]) -> Result<(), ImageError> {
        for (name, bytes) in &self.seeded.files {
            if self.stock.get(card, path, name)?.as_ref() != Some(bytes) {
                let problem = format!("{} does not keep {name} as it was written", path.display());
                return Err(ImageError::Seed { problem });
            }
        }
        Ok(())
    }
}

/// Unpacks a file into one without a name, in the same folder: there was room for what people download. Long runs of zeros
/// take none.
fn unpack(file: &File, path: &Path, tell: &mut dyn FnMut(Progress)) -> Result<(File, String), ImageError> {
    let failed = || ImageError::file("unpack", path);
    let total = file.metadata().map_err(failed())?.len();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let room = tempfile::NamedTempFile::new_in(folder).map_err(ImageError::file("make room in", folder))?;
    let mut out = room.as_file();
    let mut packed = xz4rust::XzReader::new(file.try_clone().map_err(failed())?);
    let (mut buffer, mut digest, mut at) = (vec![0; CHUNK], Digest::default(), 0);
    loop {
        let count = fill(&mut packed, &mut buffer).map_err(failed())?;
        let chunk = buffer.get(..count).unwrap_or_default();
        digest.add(at, chunk);
        match chunk.iter().all(|byte| *byte == 0) {
            true => out.seek(SeekFrom::Current(count as i64)).map(drop),
            false => out.write_all(chunk),
        }
        .map_err(ImageError::file("unpack into", folder))?;
        at += count as u64;
        if count < buffer.len() {
            break;
        }
        // The decoder reads ahead by little.
        let done = (&mut &*file).stream_position().unwrap_or_default().min(total);
        tell(Progress { phase: Phase::Unpack, done, total });
    }
    out.set_len(at).map_err(ImageError::file("unpack into", folder))?;
    // To be read only: who looks into a FAT would count in it what is free. Its name goes with `room`.
    let file = File::open(room.path()).map_err(failed())?;
    Ok((file, digest.finish()))
}

/// Reads until the buffer is full or there is no more.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match from.read(rest)? {
            0 => break,
            count => length += count,
        }
    }
    Ok(length)
}

/// What an image is, and where its FAT partition is. An error says why it cannot be seeded.
fn identify(file: &File, bytes: u64) -> Result<(Place, System), String> {
    let Partitions { places, .. } = Partitions::read(file, bytes)?;
    let (mut boot, mut root) = (None, None);
    for place in places {
        let card = file.try_clone().map_err(|error| format!("it cannot be read: {error}"))?;
        let partition = Partition { card, place };
        match content(&partition.begin(LOOKED_AT).unwrap_or_default()).kind {
            "FAT32" | "FAT" => drop(boot.get_or_insert(place)),
            "ext4" => drop(root.get_or_insert(partition)),
            _ => {}
        }
    }
    let (Some(boot), Some(root)) = (boot, root) else {
        return Err("it has no FAT and ext4 partitions as Raspberry Pi OS has them".to_owned());
    };
    let system = FileSystem::open(root).map_err(|problem| format!("its system cannot be read: {problem}"))?.ext4;
    let unread = |path: &str| {
        let path = path.to_owned();
        move |error: Ext4Error| format!("{path} of its system cannot be read: {error}")
    };
    let about = system.read_to_string("/usr/lib/os-release").map_err(unread("/usr/lib/os-release"))?;
    let said = |key: &str| {
        let value = about.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_default().trim_matches('"').to_owned()
    };
    let (name, release) = (said("PRETTY_NAME"), said("VERSION_CODENAME"));
    // Raspberry Pi OS calls itself Debian; this is where it says what else it is.
    if !system.exists("/etc/rpi-issue").map_err(unread("/etc/rpi-issue"))? {
        return Err(format!("it is {name}, and only Raspberry Pi OS is seeded: install the packages on it instead"));
    }
    let architecture = architecture(&system)?;
    let way = if has_cloud_init(&system) {
        Way::CloudInit
    } else if release == "bookworm" {
        Way::FirstRun
    } else {
        return Err(format!("it is {name}, whose first boot is told nothing: take Raspberry Pi OS bookworm or trixie"));
    };
    Ok((boot, System { name, release, architecture, way }))
}

/// Whether the first boot reads the FAT partition by cloud-init.
fn has_cloud_init(system: &Ext4) -> bool {
    let reads = |folder: &str| -> Result<bool, Ext4Error> {
        for entry in system.read_dir(folder)? {
            let path = entry?.path();
            let text = system.read(&path).unwrap_or_default();
            if String::from_utf8_lossy(&text).contains("/boot/firmware") {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let there = system.exists("/usr/bin/cloud-init").unwrap_or(false);
    there && reads("/etc/cloud/cloud.cfg.d").unwrap_or(false)
}

/// By the head of a program that every Debian has (elf(5)).
fn architecture(system: &Ext4) -> Result<&'static str, String> {
    let mut head = [0; 20];
    let read = system.open("/usr/bin/dpkg").and_then(|mut file| file.read_bytes(&mut head));
    read.map_err(|error| format!("/usr/bin/dpkg of its system cannot be read: {error}"))?;
    match head {
        [0x7f, b'E', b'L', b'F', 2, 1, .., 0xb7, 0] => Ok("arm64"),
        [0x7f, b'E', b'L', b'F', 1, 1, .., 0x28, 0] => Ok("armhf"),
        _ => Err("its programs are neither for arm64 nor for armhf".to_owned()),
    }
}
