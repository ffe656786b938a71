//! Every reason not to write a disk, on machines that nobody has.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use holm_image::disk::{Allowed, Disk, Roots};

const GB: u64 = 1_000_000_000;

/// A machine out of thin air.
struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { root: tempfile::tempdir().unwrap() };
        for folder in ["sys/block", "proc/self", "dev"] {
            fs::create_dir_all(machine.path(folder)).unwrap();
        }
        machine.write("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n");
        machine.write("proc/self/mountinfo", "");
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn roots(&self) -> Roots {
        Roots { sys: self.path("sys"), proc: self.path("proc"), dev: self.path("dev") }
    }

    /// A card in a USB reader, with two partitions: 8:17 and 8:18.
    fn card(&self) -> &Self {
        self.write("sys/block/sdb/size", (32 * GB / 512).to_string());
        self.write("sys/block/sdb/removable", "1\n");
        self.write("sys/block/sdb/ro", "0\n");
        self.write("sys/block/sdb/dev", "8:16\n");
        self.write("sys/devices/usb1/1-1/serial", "0123456789\n");
        self.write("sys/devices/usb1/1-1/idVendor", "14cd\n");
        self.write("sys/devices/usb1/1-1/host/0:0:0:0/vendor", "Generic \n");
        self.write("sys/devices/usb1/1-1/host/0:0:0:0/model", "STORAGE DEVICE  \n");
        let device = self.path("sys/block/sdb/device");
        if !device.exists() {
            std::os::unix::fs::symlink(self.path("sys/devices/usb1/1-1/host/0:0:0:0"), device).unwrap();
        }
        for (name, dev) in [("sdb1", "8:17"), ("sdb2", "8:18")] {
            self.write(&format!("sys/block/sdb/{name}/partition"), "1\n");
            self.write(&format!("sys/block/sdb/{name}/size"), "2048\n");
            self.write(&format!("sys/block/sdb/{name}/dev"), format!("{dev}\n"));
            self.write(&format!("dev/{name}"), [0; 4096]);
        }
        self
    }

    fn mount(&self, device: &str, place: &str, source: &str) {
        let path = self.path("proc/self/mountinfo");
        let before = fs::read_to_string(&path).unwrap();
        let line = format!("36 25 {device} / {place} rw,relatime shared:1 - ext4 {source} rw\n");
        fs::write(path, before + &line).unwrap();
    }

    /// What is said against it; it must be one thing.
    fn refusal(&self) -> String {
        let reasons = Disk::read(&self.roots(), "sdb").unwrap().refusals(GB, Allowed::default());
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        reasons.into_iter().next().unwrap()
    }
}

#[test]
fn a_card_in_a_reader_is_written_and_is_known_by_its_names() {
    let machine = Machine::new();
    let disk = Disk::read(&machine.card().roots(), "sdb").unwrap();
    assert_eq!(disk.refusals(GB, Allowed::default()), Vec::<String>::new());
    assert_eq!((&*disk.model, &*disk.serial, disk.bytes), ("Generic STORAGE DEVICE", "0123456789", 32 * GB));
    assert_eq!(disk.known_as(), "Generic STORAGE DEVICE");
    assert_eq!(disk.partitions.iter().map(|part| &*part.name).collect::<Vec<_>>(), ["sdb1", "sdb2"]);
}

#[test]
fn a_disk_with_the_running_system_is_refused_wherever_it_is_mounted() {
    for place in ["/", "/boot", "/boot/efi", "/home", "/home/ann", "/usr", "/var/lib"] {
        let machine = Machine::new();
        machine.card().mount("8:18", place, "/dev/root");
        let reason = machine.refusal();
        assert!(reason.contains("holds the system") && reason.ends_with(place), "{reason}");
    }
}

#[test]
fn a_disk_that_is_mounted_is_refused_and_the_way_out_is_named() {
    let machine = Machine::new();
    // A btrfs has a number of its own: the source says where it is.
    machine.card().mount("0:31", "/media/ann/my\\040card", "/dev/sdb1");
    let reason = machine.refusal();
    assert!(reason.ends_with("(umount /media/ann/my card)"), "{reason}");
    let machine = Machine::new();
    // Places that only begin like the system's.
    machine.card().mount("8:17", "/homestead", "/dev/sdb1");
    assert!(machine.refusal().contains("umount /homestead"));
}

#[test]
fn a_disk_in_use_without_being_mounted_is_refused() {
    let machine = Machine::new();
    machine.card().write("proc/swaps", "Filename Type Size Used Priority\n/dev/sdb2 partition 1 0 -2\n");
    assert!(machine.refusal().contains("swap"));
    // LVM, RAID and device mapper: the kernel has built something on it.
    for holder in ["dm-0", "md127"] {
        let machine = Machine::new();
        machine.card().write(&format!("sys/block/sdb/sdb1/holders/{holder}/dev"), "253:0");
        assert!(machine.refusal().contains(holder));
        let machine = Machine::new();
        machine.card().write(&format!("sys/block/sdb/holders/{holder}/dev"), "253:0");
        assert!(machine.refusal().contains(holder), "on the whole disk");
    }
}

#[test]
fn a_part_of_something_larger_is_refused_even_if_nobody_uses_it_here() {
    let cases: [(&str, usize, &[u8]); 4] = [
        ("LVM", 512, b"LABELONE"),
        ("RAID", 4096, &[0xfc, 0x4e, 0x2b, 0xa9]),
        ("LUKS", 0, b"LUKS\xba\xbe"),
        ("ZFS", 132 * 1024, &[0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0]),
    ];
    for (what, at, magic) in cases {
        let machine = Machine::new();
        let mut bytes = vec![0; 256 * 1024];
        bytes[at..at + magic.len()].copy_from_slice(magic);
        machine.card().write("dev/sdb2", &bytes);
        let reason = machine.refusal();
        assert!(reason.contains(what) && reason.contains("sdb2"), "{reason}");
    }
}

#[test]
fn built_in_and_large_disks_want_to_be_allowed() {
    let machine = Machine::new();
    machine.card().write("sys/block/sdb/removable", "0\n");
    assert!(machine.refusal().contains("--allow-fixed"));
    machine.write("sys/block/sdb/size", (257 * GB / 512).to_string());
    let disk = Disk::read(&machine.roots(), "sdb").unwrap();
    let refusals = |fixed, large| disk.refusals(GB, Allowed { fixed, large });
    assert!(refusals(true, false)[0].contains("--allow-large"));
    assert_eq!(refusals(false, false).len(), 2);
    assert!(refusals(true, true).is_empty());
    // A card in a slot of the board itself calls itself fixed; its type says what it is. eMMC is soldered.
    machine.write("sys/block/sdb/size", (32 * GB / 512).to_string());
    machine.write("sys/devices/usb1/1-1/host/0:0:0:0/type", "SD\n");
    assert!(Disk::read(&machine.roots(), "sdb").unwrap().refusals(GB, Allowed::default()).is_empty());
    machine.write("sys/devices/usb1/1-1/host/0:0:0:0/type", "MMC\n");
    assert!(machine.refusal().contains("--allow-fixed"));
}

#[test]
fn no_card_a_locked_card_and_a_small_card_are_told_apart() {
    let machine = Machine::new();
    machine.card().write("sys/block/sdb/ro", "1\n");
    assert!(machine.refusal().contains("lock on its side"));
    machine.write("sys/block/sdb/ro", "0\n");
    machine.write("sys/block/sdb/size", "2048\n");
    assert!(machine.refusal().contains("the image has 1000000000"));
    machine.write("sys/block/sdb/size", "0\n");
    assert!(machine.refusal().contains("no card in the reader"));
}

#[test]
fn another_card_than_the_one_that_was_agreed_to_is_noticed() {
    let machine = Machine::new();
    machine.card().write("sys/block/sdb/diskseq", "7\n");
    let before = Disk::read(&machine.roots(), "sdb").unwrap();
    assert_eq!(before.changed(&before), None);
    let changes: [(&str, &str, &str); 3] = [
        ("sys/block/sdb/diskseq", "8\n", "the card"),
        ("sys/block/sdb/size", "4096\n", "the size"),
        ("sys/devices/usb1/1-1/serial", "9\n", "the serial number"),
    ];
    for (file, text, what) in changes {
        machine.write(file, text);
        let now = Disk::read(&machine.roots(), "sdb").unwrap();
        assert_eq!(before.changed(&now).unwrap().0, what);
    }
}

#[test]
fn only_what_can_be_a_card_is_listed() {
    let machine = Machine::new();
    machine.card();
    for name in ["loop0", "dm-0", "zram0", "sr0", "md0", "mmcblk0"] {
        machine.write(&format!("sys/block/{name}/size"), "62333952\n");
    }
    machine.write("sys/block/mmcblk1/size", "0\n");
    let names: Vec<String> = Disk::all(&machine.roots()).unwrap().into_iter().map(|disk| disk.name).collect();
    assert_eq!(names, ["mmcblk0", "sdb"]);
}

#[test]
fn what_is_not_a_disk_is_told_so() {
    let roots = Roots::default();
    let folder = tempfile::tempdir().unwrap();
    assert!(Disk::at(&roots, &folder.path().join("new.img")).unwrap().is_none(), "a file that will be made");
    fs::write(folder.path().join("card.img"), "").unwrap();
    assert!(Disk::at(&roots, &folder.path().join("card.img")).unwrap().is_none());
    let error = Disk::at(&roots, Path::new("/dev/null")).unwrap_err().to_string();
    assert!(error.contains("neither a disk nor a file"), "{error}");
    // A path under /dev where nothing is would fill memory, as a file of its own.
    assert!(Disk::at(&roots, Path::new("/dev/holm-no-such-disk")).is_err());
    assert!(Disk::at(&roots, folder.path()).is_err());
}

#[test]
fn control_characters_of_a_device_do_not_reach_the_terminal() {
    let machine = Machine::new();
    machine.card().write("sys/devices/usb1/1-1/host/0:0:0:0/model", "EVIL\u{1b}[2J\u{7}DISK\n");
    assert_eq!(Disk::read(&machine.roots(), "sdb").unwrap().model, "Generic EVIL[2JDISK");
}
