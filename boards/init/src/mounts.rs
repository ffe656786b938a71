//! From the initramfs to the card: modules, partitions, and the new root.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, unmount};

use crate::boot::TRIAL;
use crate::console::{say, warn};
use crate::seed::{self, Seed};
use crate::slots::{Slot, Slots};
use crate::table::{SECTOR, Table};
use crate::{InitError, kernel};

/// The modules to load, in their order, one path a line: in the initramfs those that find the card, in the system the others.
pub const MODULES: &str = "/lib/modules/load";

/// Those of the radio, in the system: loaded only where there is a wireless network to join.
pub const RADIO_MODULES: &str = "/lib/modules/load-radio";

/// Where the system is mounted before it is the root.
const SYSTEM: &str = "/system";

/// The data partition, once the system is the root.
pub const DATA: &str = "/data";

/// The user and group that `holmd` runs as.
pub const HOLM: u32 = 800;

/// A card that does not show up by then has not been put in right.
const CARD_WITHIN: Duration = Duration::from_secs(30);

/// Bytes of a block of the data's filesystem, as it is made.
const BLOCK: u64 = 4096;

/// Not `noexec`: functions' native code is mapped from there, after its signature or our own key has vouched for it.
const DATA_FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOATIME);

/// A card that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Its disk: `/dev/mmcblk0`.
    pub disk: PathBuf,
    /// Its name in `/sys/block`.
    pub name: String,
    /// Its table.
    pub table: Table,
}

impl Card {
    /// The device of a partition: `/dev/mmcblk0p2`, `/dev/vda2`.
    pub fn partition(&self, number: u32) -> PathBuf {
        let middle = if self.name.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
        PathBuf::from(format!("{}{middle}{number}", self.disk.display()))
    }

    /// Waits for it.
    pub fn wait() -> Result<Self, InitError> {
        let deadline = Instant::now() + CARD_WITHIN;
        loop {
            match Self::find(Path::new("/sys/block"), Path::new("/dev")) {
                Ok(card) if card.partition(4).exists() => return Ok(card),
                Ok(_) | Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                Ok(card) => return Err(InitError::NoCard { seen: format!("{} without partitions", card.name) }),
                Err(error) => return Err(error),
            }
        }
    }

    /// The first card, those in a card slot before others: a second one in a reader is not what the board booted from.
    fn find(blocks: &Path, devices: &Path) -> Result<Self, InitError> {
        let mut seen = Vec::new();
        let entries = fs::read_dir(blocks).map_err(InitError::file("list", blocks))?.flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_by_key(|name| (!name.starts_with("mmcblk"), name.clone()));
        for name in names {
            let disk = devices.join(&name);
            let mut sector = [0; SECTOR as usize];
            let read = File::open(&disk).and_then(|mut disk| disk.read_exact(&mut sector));
            match read.ok().and_then(|()| Table::parse(&sector).ok()) {
                Some(table) if table.check().is_ok() => return Ok(Self { disk, name, table }),
                _ => seen.push(name),
            }
        }
        Err(InitError::NoCard { seen: if seen.is_empty() { "none".to_owned() } else { seen.join(", ") } })
    }

    /// Makes the last partition as long as the card allows. The table first: a cut afterwards is caught up with at the
    /// next boot, when the kernel reads it.
    fn grow(&mut self) -> Result<(), InitError> {
        let path = PathBuf::from(format!("/sys/block/{}/size", self.name));
        let size = fs::read_to_string(&path).map_err(InitError::file("read", &path))?;
        let Some(grown) = size.trim().parse().ok().and_then(|sectors| self.table.grown(sectors)) else { return Ok(()) };
        let mut disk =
            File::options().read(true).write(true).open(&self.disk).map_err(InitError::file("open", &self.disk))?;
        disk.seek(SeekFrom::Start(0))
            .and_then(|_| disk.write_all(&grown.sector()))
            .and_then(|()| disk.sync_all())
            .map_err(InitError::file("write the table of", &self.disk))?;
        let data = grown.data();
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        kernel::resize_partition(&disk, 4, number(data.start()), number(data.bytes()))
            .map_err(InitError::kernel("grow the data partition"))?;
        say(format_args!("the data partition has {} MiB now", data.bytes() >> 20));
        self.table = grown;
        Ok(())
    }

    /// The FAT partition, for as long as `then` takes.
    pub fn with_boot<T>(&self, then: impl FnOnce(&Path) -> Result<T, InitError>) -> Result<T, InitError> {
        let folder = Path::new("/run/boot");
        make(folder)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount(self.partition(1), folder, "vfat", flags, None).map_err(InitError::kernel("mount the FAT partition"))?;
        let result = then(folder);
        // Unmounting writes what is not written yet.
        let unmounted =
            unmount(folder, UnmountFlags::empty()).map_err(InitError::kernel("let go of the FAT partition"));
        let value = result?;
        unmounted.map(|()| value)
    }
}

/// What every program expects of a kernel.
pub fn early() -> Result<(), InitError> {
    let plain = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    for (kind, folder, flags, options) in [
        ("proc", "/proc", plain, None),
        ("sysfs", "/sys", plain, None),
        ("devtmpfs", "/dev", MountFlags::NOSUID | MountFlags::NOEXEC, Some(c"mode=0755")),
        ("tmpfs", "/run", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=0755,size=16M")),
    ] {
        make(Path::new(folder))?;
        mount(kind, folder, kind, flags, options).map_err(InitError::kernel(format!("mount {folder}")))?;
    }
    Ok(())
}

/// Loads what a list names. A module that is refused is said and left out: a board without it may do. So it may without a
/// list, where there is nothing to load.
pub fn load_modules(list: &str) {
    let list = fs::read_to_string(list).unwrap_or_default();
    for path in list.lines().filter(|line| !line.is_empty()) {
        let loaded = File::open(path).map_err(InitError::file("open", Path::new(path))).and_then(|file| {
            match rustix::system::finit_module(&file, c"", 0) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
                Err(errno) => Err(InitError::kernel(format!("take the module {path}"))(errno)),
            }
        });
        if let Err(error) = loaded {
            warn(error.chain());
        }
    }
}

/// From now on the kernel takes no more modules, from anybody. One that never does has no such switch.
pub fn close_modules() {
    let switch = Path::new("/proc/sys/kernel/modules_disabled");
    if switch.exists()
        && let Err(error) = fs::write(switch, "1")
    {
        warn(format_args!("modules can still be loaded: {error}"));
    }
}

/// Mounts the card's partitions, takes in the seed, and makes the system the root.
pub fn switch(card: &mut Card, slot: Slot) -> Result<(), InitError> {
    let (system, data) = (Path::new(SYSTEM), PathBuf::from(format!("{SYSTEM}{DATA}")));
    make(system)?;
    let read_only = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
    mount(card.partition(slot.partition()), system, "squashfs", read_only, None)
        .map_err(InitError::kernel(format!("mount system {slot}")))?;
    if let Err(error) = card.grow() {
        // What is there is enough to run.
        warn(error.chain());
    }
    mount(card.partition(4), &data, "ext4", DATA_FLAGS, Some(c"errors=remount-ro"))
        .map_err(InitError::kernel("mount the data partition"))?;
    if let Err(error) = grow_data(&data, card) {
        warn(error.chain());
    }
    // A seed that cannot be taken in keeps no system from being tried.
    let looked = card.with_boot(|boot| {
        let seed = take_seed(boot, &data);
        take_trial(boot, &data, slot)?;
        seed
    });
    if let Err(error) = looked {
        warn(error.chain());
    }
    own(&data)?;
    for folder in ["/dev", "/proc", "/sys", "/run"] {
        mount_move(folder, format!("{SYSTEM}{folder}")).map_err(InitError::kernel(format!("move {folder}")))?;
    }
    // The initramfs is memory: what is not needed any more is given back.
    let _ = fs::remove_dir_all("/lib");
    let _ = fs::remove_file("/init");
    rustix::process::chdir(SYSTEM).map_err(InitError::kernel("enter the system"))?;
    mount_move(".", "/").map_err(InitError::kernel("move the system to the root"))?;
    rustix::process::chroot(".").map_err(InitError::kernel("make the system the root"))?;
    rustix::process::chdir("/").map_err(InitError::kernel("enter the root"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tmpfs", "/tmp", "tmpfs", flags, Some(c"mode=1777,size=32M") as Option<&CStr>)
        .map_err(InitError::kernel("mount /tmp"))
}

/// As many blocks as the partition has. One that has them already answers with success.
fn grow_data(folder: &Path, card: &Card) -> Result<(), InitError> {
    let open = File::open(folder).map_err(InitError::file("open", folder))?;
    kernel::grow_ext4(&open, card.table.data().bytes() / BLOCK).map_err(InitError::kernel("grow the data's filesystem"))
}

/// Applies the seed, if there is one, and deletes it.
fn take_seed(boot: &Path, data: &Path) -> Result<(), InitError> {
    let path = boot.join(seed::FILE);
    let text = match fs::metadata(&path) {
        Ok(meta) if meta.len() > seed::MOST_BYTES => {
            warn(format_args!("{} has {} bytes and is no seed", seed::FILE, meta.len()));
            return Ok(());
        }
        Ok(_) => fs::read_to_string(&path).map_err(InitError::file("read", &path))?,
        Err(_) => return Ok(()),
    };
    // One of zeros was taken in by a boot that was cut before it could delete it.
    if !text.bytes().all(|byte| byte == 0) {
        let seed = Seed::parse(seed::FILE, &text).map_err(|problems| InitError::Seed { problems })?;
        seed.apply(data)?;
        say(format_args!("took in the seed: {seed:?}"));
    }
    erase(&path, text.len()).map_err(InitError::file("erase", &path))?;
    fs::remove_file(&path).map_err(InitError::file("delete", &path))
}

/// FAT leaves what a deleted file held where it was, for any laptop to find.
fn erase(path: &Path, bytes: usize) -> std::io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    file.write_all(&vec![0; bytes])?;
    file.sync_all()
}

/// Somebody has put a system into the other slot, and wants it tried. Written down first, and then forgotten: after a cut in
/// between it is written down again.
fn take_trial(boot: &Path, data: &Path, running: Slot) -> Result<(), InitError> {
    let path = boot.join(TRIAL);
    let Ok(name) = fs::read_to_string(&path) else { return Ok(()) };
    match Slot::parse(name.trim()) {
        Ok(slot) if slot != running => {
            let mut slots = Slots::read(data, running);
            slots.begin(slot);
            slots.write(data)?;
        }
        Ok(_) => {}
        Err(problem) => warn(format_args!("{TRIAL}: {problem}")),
    }
    fs::remove_file(&path).map_err(InitError::file("delete", &path))
}

/// `holmd` is not root: what it works with is its own. It may have put links there since, and nothing that they lead to
/// becomes its own.
fn own(data: &Path) -> Result<(), InitError> {
    for folder in ["holm", "config", "config/agent.d"] {
        let folder = data.join(folder);
        make(&folder)?;
        hand_over(&folder)?;
    }
    for folder in ["config", "config/agent.d"] {
        let folder = data.join(folder);
        if !folder.is_symlink() {
            let entries = fs::read_dir(&folder).map_err(InitError::file("list", &folder))?;
            entries.flatten().try_for_each(|entry| hand_over(&entry.path()))?;
        }
    }
    let seed = data.join("holm/enrol.toml");
    if seed.exists() { hand_over(&seed) } else { Ok(()) }
}

/// Makes a folder or a file `holmd`'s; not what has a second name elsewhere.
fn hand_over(path: &Path) -> Result<(), InitError> {
    let meta = fs::symlink_metadata(path).map_err(InitError::file("look at", path))?;
    let own = meta.is_dir() || meta.is_file() && meta.nlink() == 1;
    if !own {
        warn(format_args!("{} is neither a folder nor a file of its own, and stays as it is", path.display()));
        return Ok(());
    }
    lchown(path, Some(HOLM), Some(HOLM)).map_err(InitError::file("hand over", path))
}

fn make(folder: &Path) -> Result<(), InitError> {
    fs::create_dir_all(folder).map_err(InitError::file("make the folder", folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Entry, FAT, LINUX, SIGNATURE};

    #[test]
    fn the_card_is_found_among_other_disks() {
        let root = tempfile::tempdir().unwrap();
        let (blocks, devices) = (root.path().join("block"), root.path().join("dev"));
        fs::create_dir_all(&devices).unwrap();
        for name in ["loop0", "mmcblk0", "sda"] {
            fs::create_dir_all(blocks.join(name)).unwrap();
        }
        fs::write(devices.join("sda"), [0; 512]).unwrap();
        let seen = Card::find(&blocks, &devices).unwrap_err().to_string();
        assert!(["loop0", "mmcblk0", "sda"].iter().all(|name| seen.contains(name)), "{seen}");
        let entry = |kind, first| Entry { kind, first, sectors: 100 };
        let entries = [entry(FAT, 100), entry(LINUX, 200), entry(LINUX, 300), entry(LINUX, 400)];
        fs::write(devices.join("mmcblk0"), Table { signature: SIGNATURE, entries }.sector()).unwrap();
        let card = Card::find(&blocks, &devices).unwrap();
        assert_eq!(card.partition(2), devices.join("mmcblk0p2"));
        fs::create_dir_all(blocks.join("a-reader")).unwrap();
        fs::copy(devices.join("mmcblk0"), devices.join("a-reader")).unwrap();
        assert_eq!(Card::find(&blocks, &devices).unwrap().name, "mmcblk0");
        let card = Card { name: "vda".into(), disk: "/dev/vda".into(), ..card };
        assert_eq!(card.partition(4), Path::new("/dev/vda4"));
    }

    #[test]
    fn a_seed_that_was_taken_in_is_not_left_on_the_card() {
        let (boot, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = boot.path().join(seed::FILE);
        let seed = Seed { hostname: Some("pi3".to_owned()), ..Seed::default() };
        fs::write(&path, seed.render()).unwrap();
        let same_file = File::open(&path).unwrap();
        take_seed(boot.path(), data.path()).unwrap();
        assert!(!path.exists());
        let mut left = Vec::new();
        (&same_file).read_to_end(&mut left).unwrap();
        assert!(!left.is_empty() && left.iter().all(|byte| *byte == 0), "{left:?}");
        // The power went before it was deleted.
        fs::write(&path, left).unwrap();
        take_seed(boot.path(), data.path()).unwrap();
        assert!(!path.exists());
        assert_eq!(fs::read_to_string(data.path().join("config/hostname")).unwrap(), "pi3\n");
    }

    #[test]
    fn nothing_behind_a_link_is_handed_over() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("data");
        fs::create_dir_all(data.join("config")).unwrap();
        fs::write(root.path().join("of-root"), "").unwrap();
        std::os::unix::fs::symlink(root.path().join("of-root"), data.join("config/link")).unwrap();
        fs::hard_link(root.path().join("of-root"), data.join("config/name")).unwrap();
        fs::write(data.join("config/hostname"), "pi3\n").unwrap();
        if own(&data).is_err() {
            // Only root may give files away.
            return;
        }
        let owner = |path: PathBuf| fs::symlink_metadata(path).unwrap().uid();
        assert_eq!(owner(data.join("config/hostname")), HOLM);
        assert_ne!(owner(root.path().join("of-root")), HOLM);
        assert_ne!(owner(data.join("config/name")), HOLM);
    }
}
