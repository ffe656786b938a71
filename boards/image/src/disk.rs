//! What a disk is, and every reason not to write it.
//!
//! Everything comes from `/sys`, `/proc` and the first bytes of partitions; where those are is a parameter, so that tests
//! show it machines that nobody has.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::ImageError;
use crate::signature::{Content, LOOKED_AT, MEMBERS, content};

/// What people call large for a card.
pub const LARGE: u64 = 256_000_000_000;

/// Where a running system, or somebody's home, is.
const SYSTEM_PLACES: [&str; 6] = ["/", "/boot", "/home", "/usr", "/var", "/nix"];

/// Where the kernel tells about itself.
#[derive(Debug, Clone)]
pub struct Roots {
    /// `/sys`.
    pub sys: PathBuf,
    /// `/proc`.
    pub proc: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { sys: "/sys".into(), proc: "/proc".into(), dev: "/dev".into() }
    }
}

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Its device.
    pub path: PathBuf,
    /// As the kernel calls it: `sdb`.
    pub name: String,
    /// Who made it and what they call it; empty if it does not say.
    pub model: String,
    /// Its serial number; empty if it does not say.
    pub serial: String,
    /// Bytes of it.
    pub bytes: u64,
    /// Whether it can be taken out, as far as the kernel knows.
    pub removable: bool,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// Counted by the kernel for every disk and every change of a card; 0 on old kernels.
    pub sequence: u64,
    /// Its partitions; one that is the whole disk where it has none.
    pub partitions: Vec<Partition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// As the kernel calls it: `sdb1`.
    pub name: String,
    /// Bytes of it.
    pub bytes: u64,
    /// What is on it; empty if that is not known.
    pub kind: String,
    /// Its label.
    pub label: Option<String>,
    /// Bytes in use, where that can be seen.
    pub used: Option<u64>,
    /// Where it is mounted.
    pub mounted: Vec<String>,
    /// Whether it is swap, in use.
    pub swap: bool,
    /// What the kernel has built on it: `dm-0`, `md0`.
    pub holders: Vec<String>,
}

/// What somebody has allowed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowed {
    /// Disks that cannot be taken out.
    pub fixed: bool,
    /// Disks beyond [`LARGE`].
    pub large: bool,
}

/// Whether the kernel's name is one of what is no disk: loops, memory, volumes on other disks, drives for discs, networks.
fn built_on_others(name: &str) -> bool {
    ["loop", "ram", "zram", "dm-", "md", "sr", "nbd"].iter().any(|kind| name.starts_with(kind))
}

impl Disk {
    /// What a path leads to, links resolved. `None` for a file or a path where nothing is: that can be written as a card.
    pub fn at(roots: &Roots, path: &Path) -> Result<Option<Self>, ImageError> {
        let wrong = |problem: String| ImageError::NotADisk { path: path.to_owned(), problem };
        let resolved = match fs::canonicalize(path) {
            Ok(resolved) => resolved,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !path.starts_with(&roots.dev) => {
                return Ok(None);
            }
            Err(source) => return Err(ImageError::File { action: "find", path: path.to_owned(), source }),
        };
        let meta = fs::metadata(&resolved).map_err(ImageError::file("look at", &resolved))?;
        let kind = meta.file_type();
        if kind.is_file() {
            return Ok(None);
        }
        if !kind.is_block_device() {
            return Err(wrong("is neither a disk nor a file".to_owned()));
        }
        let device = meta.rdev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let entry = roots.sys.join(format!("dev/block/{major}:{minor}"));
        let folder = fs::canonicalize(&entry).map_err(ImageError::file("find", &entry))?;
        let name = |folder: &Path| folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if folder.join("partition").exists() {
            let whole = folder.parent().map(name).unwrap_or_default();
            return Err(wrong(format!("is a partition: name the whole disk, {}", roots.dev.join(whole).display())));
        }
        let name = name(&folder);
        // A loop is a file that somebody has made a disk of on purpose.
        if built_on_others(&name) && !name.starts_with("loop") {
            return Err(wrong("is no disk, but made by the kernel out of disks or memory".to_owned()));
        }
        Self::read(roots, &name).map(Some)
    }

    /// All disks that a person may mean: no loops, no memory, nothing that the kernel built on other disks.
    pub fn all(roots: &Roots) -> Result<Vec<Self>, ImageError> {
        let folder = roots.sys.join("block");
        let entries = fs::read_dir(&folder).map_err(ImageError::file("list", &folder))?;
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| !built_on_others(name));
        names.sort();
        let disks = names.iter().filter_map(|name| Self::read(roots, name).ok());
        Ok(disks.filter(|disk| disk.bytes > 0).collect())
    }

    /// By the kernel's name.
    pub fn read(roots: &Roots, name: &str) -> Result<Self, ImageError> {
        let folder = roots.sys.join("block").join(name);
        let value = |what: &str| fs::read_to_string(folder.join(what)).map(|text| clean(&text)).unwrap_or_default();
        let size = folder.join("size");
        let bytes = fs::read_to_string(&size).map_err(ImageError::file("read", &size))?;
        let path = roots.dev.join(name);
        let mut disk = Self {
            model: model(&value("device/vendor"), &value("device/model"), &value("device/name")),
            serial: serial(&folder),
            bytes: sectors(&bytes),
            // A card in a reader that is no USB device calls itself fixed; what it is says its type.
            removable: value("removable") == "1" || value("device/type") == "SD",
            read_only: value("ro") == "1",
            sequence: value("diskseq").parse().unwrap_or_default(),
            partitions: Vec::new(),
            name: name.to_owned(),
            path,
        };
        let mounts = mounts(&roots.proc);
        let swaps = swaps(&roots.proc);
        let entries = fs::read_dir(&folder).map_err(ImageError::file("list", &folder))?.flatten();
        let mut folders: Vec<PathBuf> =
            entries.map(|entry| entry.path()).filter(|path| path.join("partition").exists()).collect();
        folders.sort();
        // The whole disk may be used without partitions, and with some.
        folders.insert(0, folder.clone());
        for part in folders {
            let name = part.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let read = |what: &str| fs::read_to_string(part.join(what)).unwrap_or_default();
            let holders = fs::read_dir(part.join("holders")).into_iter().flatten().flatten();
            let device = roots.dev.join(&name);
            let Content { kind, label, used } = look(&device);
            let by_device = mounts.get(read("dev").trim()).cloned().unwrap_or_default();
            let by_name = mounts.get(&*format!("/dev/{name}")).cloned().unwrap_or_default();
            let mut mounted: Vec<String> = by_device.into_iter().chain(by_name).collect();
            mounted.sort();
            mounted.dedup();
            disk.partitions.push(Partition {
                bytes: sectors(&read("size")),
                kind: kind.to_owned(),
                label,
                used,
                mounted,
                swap: swaps.contains(&name),
                holders: holders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect(),
                name,
            });
        }
        let whole = disk.partitions.first().is_some_and(Partition::says_something);
        if !whole && disk.partitions.len() > 1 {
            disk.partitions.remove(0);
        }
        Ok(disk)
    }

    /// What a person types to say that this is the one: its model, or else its name.
    pub fn known_as(&self) -> &str {
        if self.model.is_empty() { &self.name } else { &self.model }
    }

    /// Whether it is there to be written at all.
    pub fn refusals(&self, needed: u64, allowed: Allowed) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.bytes == 0 {
            reasons.push("it is empty: there is no card in the reader".to_owned());
            return reasons;
        }
        for partition in &self.partitions {
            partition.refusals(&mut reasons);
        }
        if self.read_only {
            reasons.push("it cannot be written: does the card have a lock on its side?".to_owned());
        }
        if self.bytes < needed {
            reasons.push(format!("it has {} bytes, and the image has {needed}", self.bytes));
        }
        if !self.removable && !allowed.fixed {
            reasons.push(
                "it calls itself built in. Some laptops say so of real cards: if you are sure, add --allow-fixed"
                    .to_owned(),
            );
        }
        if self.bytes > LARGE && !allowed.large {
            reasons.push(format!(
                "it has {} GB, which is much for a card: if you are sure, add --allow-large",
                self.bytes / 1_000_000_000
            ));
        }
        reasons
    }

    /// What differs from a moment ago, if anything does.
    pub fn changed(&self, now: &Self) -> Option<(&'static str, String, String)> {
        let differs =
            |what, before: &str, now: &str| (before != now).then(|| (what, before.to_owned(), now.to_owned()));
        differs("the serial number", &self.serial, &now.serial)
            .or_else(|| differs("the model", &self.model, &now.model))
            .or_else(|| differs("the size", &self.bytes.to_string(), &now.bytes.to_string()))
            .or_else(|| differs("the card", &self.sequence.to_string(), &now.sequence.to_string()))
    }
}

impl Partition {
    fn says_something(&self) -> bool {
        !self.kind.is_empty() || self.swap || !self.mounted.is_empty() || !self.holders.is_empty()
    }

    fn refusals(&self, reasons: &mut Vec<String>) {
        let name = &self.name;
        for place in &self.mounted {
            let system = SYSTEM_PLACES.iter().any(|system| {
                place == system
                    || (*system != "/" && place.strip_prefix(system).is_some_and(|rest| rest.starts_with('/')))
            });
            reasons.push(match system {
                true => format!("{name} holds the system that runs here: it is mounted at {place}"),
                false => format!("{name} is mounted at {place}: if you are sure, unmount it first (umount {place})"),
            });
        }
        if self.swap {
            reasons.push(format!("{name} is swap, in use by the system that runs here"));
        }
        for holder in &self.holders {
            reasons.push(format!("{name} is part of {holder}, which this system has built of its disks"));
        }
        if MEMBERS.contains(&&*self.kind) && self.holders.is_empty() {
            reasons.push(format!(
                "{name} is part of {}, and not in use here: if nobody needs it, erase its signature first (wipefs -a)",
                self.kind
            ));
        }
    }
}

/// What of a disk or a partition is mounted: the partition's name, and where.
pub(crate) fn mounted(roots: &Roots, path: &Path) -> Option<(String, String)> {
    if let Ok(Some(disk)) = Disk::at(roots, path) {
        return disk.partitions.into_iter().find_map(|part| Some((part.name, part.mounted.into_iter().next()?)));
    }
    // A partition by itself, or what the kernel has made of one, such as an encrypted one that was opened.
    let meta = fs::metadata(path).ok().filter(|meta| meta.file_type().is_block_device())?;
    let number = format!("{}:{}", rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let place = mounts(&roots.proc).remove(&number)?.into_iter().next()?;
    Some((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), place))
}

/// Places by device number and by device path, as `mountinfo` has them (proc_pid_mountinfo(5)).
fn mounts(proc: &Path) -> BTreeMap<String, Vec<String>> {
    let mut mounts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in fs::read_to_string(proc.join("self/mountinfo")).unwrap_or_default().lines() {
        let mut words = line.split(' ');
        let (device, place) = (words.nth(2), words.nth(1));
        let source = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').nth(1));
        let Some(place) = place.map(unescape) else { continue };
        for key in [device, source].into_iter().flatten() {
            mounts.entry(key.to_owned()).or_default().push(place.clone());
        }
    }
    mounts
}

/// Names of devices that are swap.
fn swaps(proc: &Path) -> Vec<String> {
    let text = fs::read_to_string(proc.join("swaps")).unwrap_or_default();
    let first = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    first.filter_map(|path| path.rsplit('/').next()).map(str::to_owned).collect()
}

/// Spaces and the like are in octal there.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

fn look(device: &Path) -> Content {
    let mut bytes = vec![0; LOOKED_AT];
    let read = fs::File::open(device).and_then(|file| file.read_at(&mut bytes, 0));
    // Whoever may not read it will not write it either, and is told so then.
    read.map_or_else(|_| Content::default(), |length| content(bytes.get(..length).unwrap_or_default()))
}

/// A line for a person: control characters have no place on a terminal.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect::<String>().trim().to_owned()
}

fn model(vendor: &str, model: &str, name: &str) -> String {
    // `ATA` is no vendor, and cards have a name only.
    let words: Vec<&str> = [vendor, model].into_iter().filter(|word| !word.is_empty() && *word != "ATA").collect();
    if words.is_empty() { name.to_owned() } else { words.join(" ") }
}

/// That of the disk, or of the USB device that it is on.
fn serial(folder: &Path) -> String {
    let Ok(device) = fs::canonicalize(folder.join("device")) else { return String::new() };
    let read = |folder: &Path| fs::read_to_string(folder.join("serial")).map(|text| clean(&text)).unwrap_or_default();
    let own = read(&device);
    if !own.is_empty() {
        return own;
    }
    // From the disk up to the nearest device of the USB bus; beyond that it is somebody else's.
    let usb = device.ancestors().find(|folder| folder.join("idVendor").exists());
    usb.map(read).unwrap_or_default()
}

fn sectors(text: &str) -> u64 {
    text.trim().parse::<u64>().unwrap_or_default().saturating_mul(512)
}
