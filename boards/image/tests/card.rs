//! Databases on cards, read without mounting them. The file systems are made by e2fsprogs, and so are their journals; what
//! must come of a journal is what `e2fsck` makes of a copy.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use holm_image::ImageError;
use holm_image::card::{Absent, Database, Found, Wanted, copy_folder};
use holm_init::table::{Entry, FAT, LINUX, SIGNATURE, Table};

const MIB: usize = 1 << 20;

/// As Debian makes them, with and without what Raspberry Pi OS leaves out, and with small blocks.
const KINDS: [&[&str]; 3] = [
    &["-b", "4096", "-O", "64bit,metadata_csum"],
    &["-b", "4096", "-O", "^64bit,^metadata_csum,^huge_file"],
    &["-b", "1024", "-O", "64bit,metadata_csum"],
];

/// The journal without checksums, and with them as the kernel has them.
const JOURNALS: [&str; 2] = ["jo", "jo -c -v 3"];

fn run(program: &str, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // 1 is what e2fsck says when it has mended something.
    let good = output.status.success() || program == "e2fsck" && output.status.code() == Some(1);
    assert!(good, "{program} {arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// A folder for the disks of a test.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// An ext4 file system with these files.
    fn ext4(&self, name: &str, kind: &[&str], files: &[(&str, &[u8])]) -> PathBuf {
        let (image, root) = (self.path(name), self.path(&format!("{name}.root")));
        fs::create_dir(&root).unwrap();
        for (path, bytes) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let mut arguments = vec!["-q", "-F", "-t", "ext4", "-L", "holm-data"];
        arguments.extend(kind);
        // The smallest that there is: 1024 blocks.
        let journal = if kind.contains(&"1024") { "size=1" } else { "size=4" };
        arguments.extend(["-J", journal, "-d", root.to_str().unwrap(), image.to_str().unwrap()]);
        run("mke2fs", &arguments, "");
        image
    }

    /// A disk with these partitions, a mebibyte from each to the next at least.
    fn disk(&self, name: &str, signature: u32, parts: &[(u8, &[u8])]) -> PathBuf {
        let mut table = Table { signature, entries: [Entry::default(); 4] };
        let mut bytes = vec![0; MIB];
        for (entry, (kind, content)) in table.entries.iter_mut().zip(parts) {
            let length = content.len().next_multiple_of(MIB);
            *entry = Entry { kind: *kind, first: (bytes.len() / 512) as u32, sectors: (length / 512) as u32 };
            bytes.extend(*content);
            bytes.resize(bytes.len().next_multiple_of(MIB), 0);
        }
        bytes[..512].copy_from_slice(&table.sector());
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// What is found on a card, and the files as they were copied.
    fn read(&self, card: &Path) -> (Found, Vec<Vec<u8>>) {
        let before = fs::read(card).unwrap();
        let database = Database::find(card, &Wanted::default()).unwrap();
        let to = tempfile::tempdir_in(self.0.path()).unwrap();
        let copy = to.path().join("copy");
        database.copy(&copy).unwrap();
        let files = database.found.files.iter().map(|piece| fs::read(copy.join(&piece.name)).unwrap()).collect();
        assert!(fs::read(card).unwrap() == before, "the card is only read");
        (database.found, files)
    }

    fn fails(&self, card: &Path) -> ImageError {
        Database::find(card, &Wanted::default()).err().unwrap()
    }

    /// What `debugfs` is told, a command a line.
    fn debugfs(&self, image: &Path, commands: &str) -> String {
        run("debugfs", &["-w", "-f", "-", image.to_str().unwrap()], commands)
    }

    /// The file in the copy that `e2fsck` has brought up to date.
    fn recovered(&self, image: &Path, path: &str) -> Vec<u8> {
        let (copy, file) = (self.path("recovered"), self.path("recovered-file"));
        fs::copy(image, &copy).unwrap();
        run("e2fsck", &["-y", "-E", "journal_only", copy.to_str().unwrap()], "");
        let _ = fs::remove_file(&file);
        run("debugfs", &["-R", &format!("dump {path} {}", file.display()), copy.to_str().unwrap()], "");
        fs::read(file).unwrap()
    }
}

fn pattern(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(7).wrapping_add(seed)).collect()
}

#[test]
fn a_database_is_found_on_a_card_of_ours_under_debian_and_in_a_partition_by_itself() {
    let bench = Bench::new();
    let (db, wal) = (pattern(1, 300_000), pattern(2, 70_001));
    let files = |folder: &str| {
        ["holm.db", "holm.db-wal", "holm.db-shm", "identity/key", "holm.lock"].map(|name| format!("{folder}/{name}"))
    };
    let content: [&[u8]; 5] = [&db, &wal, b"shared", b"secret", b""];
    for (index, kind) in KINDS.iter().enumerate() {
        let names = files("var/lib/holm");
        let all: Vec<(&str, &[u8])> = names.iter().map(|name| &**name).zip(content).collect();
        let system = bench.ext4(&format!("debian-{index}"), kind, &all);
        let names = files("holm");
        let all: Vec<(&str, &[u8])> = names.iter().map(|name| &**name).zip(content).collect();
        let data = bench.ext4(&format!("data-{index}"), kind, &all);
        let (system_bytes, data_bytes) = (fs::read(&system).unwrap(), fs::read(&data).unwrap());
        let debian = bench.disk("debian.img", 7, &[(FAT, b"boot"), (LINUX, &system_bytes)]);
        let ours = [(FAT, &b"boot"[..]), (LINUX, b"hsqs"), (LINUX, b"hsqs"), (LINUX, &data_bytes)];
        let ours = bench.disk("ours.img", SIGNATURE, &ours);
        for (card, partition, folder) in
            [(&debian, 2, "/var/lib/holm"), (&ours, 4, "/holm"), (&system, 0, "/var/lib/holm"), (&data, 0, "/holm")]
        {
            let (found, copied) = bench.read(card);
            assert_eq!((found.partition, &*found.folder, found.journaled), (partition, folder, 0));
            assert_eq!(found.label.as_deref(), Some("holm-data"));
            // The database and its log: no keys, and nothing that SQLite would take for true.
            let names: Vec<&str> = found.files.iter().map(|piece| &*piece.name).collect();
            assert_eq!(names, ["holm.db", "holm.db-wal"]);
            assert!(copied == [db.clone(), wal.clone()], "{}", card.display());
        }
    }
}

#[test]
fn what_only_the_journal_has_is_read_as_the_kernel_would() {
    let bench = Bench::new();
    for (index, kind) in KINDS.iter().enumerate() {
        let size = if kind.contains(&"1024") { 1024 } else { 4096 };
        let fresh = |seed| pattern(seed, 4 * size);
        let image = bench.ext4(&format!("image-{index}"), kind, &[("holm/holm.db", &fresh(1))]);
        let blocks = run("debugfs", &["-R", "blocks /holm/holm.db", image.to_str().unwrap()], "");
        let blocks: Vec<&str> = blocks.split_whitespace().collect();
        assert_eq!(blocks.len(), 4, "{blocks:?}");
        for (name, seed) in [("second", 2), ("third", 3)] {
            fs::write(bench.path(name), &fresh(seed)[..size]).unwrap();
        }
        // What begins like the journal's own blocks is not taken for one.
        let mut magic = fresh(4)[..size].to_vec();
        magic[..4].copy_from_slice(&0xc03b_3998_u32.to_be_bytes());
        fs::write(bench.path("magic"), &magic).unwrap();
        let [a, b, c, d] = [blocks[0], blocks[1], blocks[2], blocks[3]];
        let write = |blocks: &str, file: &str| format!("jw -b {blocks} {}\n", bench.path(file).display());
        let two = bench.path("two");
        fs::write(&two, [fs::read(bench.path("second")).unwrap(), magic.clone()].concat()).unwrap();
        // Without checksums of its own, a file system has none in its journal.
        let journals = if kind.contains(&"64bit,metadata_csum") { &JOURNALS[..] } else { &JOURNALS[..1] };
        for journal in journals {
            for (case, transactions) in [
                ("one", write(b, "second")),
                ("the later of two", write(b, "second") + &write(b, "third")),
                ("two blocks, one of them like the journal's", write(&format!("{a},{c}"), "two")),
                ("revoked", write(b, "second") + &format!("jw -r {b}\n")),
                ("revoked, and written again", write(b, "second") + &format!("jw -r {b}\n") + &write(b, "third")),
                ("not committed", write(a, "third") + &write(d, "second").replace("jw ", "jw -c ")),
            ] {
                let card = bench.path("card");
                fs::copy(&image, &card).unwrap();
                bench.debugfs(&card, &format!("{journal}\n{transactions}jc\n"));
                let (found, copied) = bench.read(&card);
                let expected = bench.recovered(&card, "/holm/holm.db");
                let same = copied == [expected.clone()];
                assert!(same && !found.damaged, "{kind:?}, {journal}: {case}: {found:?}");
                // And that is not what is in place.
                assert_eq!(expected != fresh(1), case != "revoked", "{case}");
            }
        }
    }
}

#[test]
fn a_journal_that_has_gone_round_is_followed_round() {
    let bench = Bench::new();
    let kind = KINDS[1];
    let image = bench.ext4("image", kind, &[("holm/holm.db", &pattern(1, 4096))]);
    let block = run("debugfs", &["-R", "blocks /holm/holm.db", image.to_str().unwrap()], "");
    fs::write(bench.path("second"), pattern(2, 4096)).unwrap();
    let write = format!("jw -b {} {}\n", block.trim(), bench.path("second").display());
    bench.debugfs(&image, &format!("jo\n{write}jc\n"));
    // The journal is in one piece here: 1024 blocks. Its log is turned, so that it begins with the last one or two.
    let blocks = run("debugfs", &["-R", "blocks <8>", image.to_str().unwrap()], "");
    let blocks: Vec<u64> = blocks.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let journal = |block: usize| blocks[block] * 4096;
    let file = File::options().read(true).write(true).open(&image).unwrap();
    let read = |block: usize| {
        let mut bytes = vec![0; 4096];
        file.read_exact_at(&mut bytes, journal(block)).unwrap();
        bytes
    };
    let last = read(0)[16..20].iter().fold(0, |number, byte| number << 8 | usize::from(*byte)) - 1;
    let log: Vec<Vec<u8>> = (1..=3).map(read).collect();
    for before in [1, 2] {
        for (index, bytes) in log.iter().enumerate() {
            let place = if index < before { last + 1 - before + index } else { 1 + index - before };
            file.write_all_at(bytes, journal(place)).unwrap();
        }
        file.write_all_at(&((last + 1 - before) as u32).to_be_bytes(), journal(0) + 28).unwrap();
        let (found, copied) = bench.read(&image);
        assert!(copied == [pattern(2, 4096)] && found.journaled == 1, "{before}: {found:?}");
        assert!(copied[0] == bench.recovered(&image, "/holm/holm.db"));
    }
}

#[test]
fn a_transaction_that_is_not_as_it_was_written_is_the_end_and_that_is_said() {
    let bench = Bench::new();
    let image = bench.ext4("image", KINDS[0], &[("holm/holm.db", &pattern(1, 8192))]);
    let blocks = run("debugfs", &["-R", "blocks /holm/holm.db", image.to_str().unwrap()], "");
    let blocks: Vec<&str> = blocks.split_whitespace().collect();
    for (name, seed) in [("second", 2), ("third", 3)] {
        fs::write(bench.path(name), pattern(seed, 4096)).unwrap();
    }
    let write = |block: &str, file: &str| format!("jw -b {block} {}\n", bench.path(file).display());
    bench.debugfs(&image, &format!("jo -c -v 3\n{}{}jc\n", write(blocks[0], "second"), write(blocks[1], "third")));
    let journal = run("debugfs", &["-R", "blocks <8>", image.to_str().unwrap()], "");
    let journal: Vec<u64> = journal.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let [first, second] = [pattern(2, 4096), pattern(1, 8192)[4096..].to_vec()];
    // The second transaction: its descriptor, its copy, its commit.
    for block in [4, 5, 6] {
        let card = bench.path("card");
        fs::copy(&image, &card).unwrap();
        let file = File::options().write(true).open(&card).unwrap();
        file.write_all_at(&[0x55], journal[block] * 4096 + 100).unwrap();
        let (found, copied) = bench.read(&card);
        assert!(found.damaged && found.journaled == 1, "{block}: {found:?}");
        assert!(copied == [[first.clone(), second.clone()].concat()], "{block}");
    }
}

/// A file system that the kernel has mounted, unmounted at the end.
struct Mount(PathBuf);

impl Mount {
    fn new(image: &Path, at: PathBuf) -> Result<Self, String> {
        fs::create_dir(&at).unwrap();
        let output = Command::new("mount").args(["-o", "loop"]).arg(image).arg(&at).output();
        let output = output.map_err(|error| format!("no mount: {error}"))?;
        match output.status.success() {
            true => Ok(Self(at)),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn what_the_kernel_has_synced_is_on_a_card_that_is_cut_off() {
    let bench = Bench::new();
    // Small blocks: its journal goes round within some hundred syncs.
    let image = bench.ext4("image", KINDS[2], &[("holm/holm.db", &pattern(1, 5000))]);
    let mount = match Mount::new(&image, bench.path("mounted")) {
        Ok(mount) => mount,
        Err(why) => return skip(&why),
    };
    let folder = mount.0.join("holm");
    let mut written = Vec::new();
    let (mut dirty, mut rounds) = (0, 0);
    for step in 0..900_usize {
        let mut log = File::options().append(true).create(true).open(folder.join("holm.db-wal")).unwrap();
        let more = pattern(step as u8, 700);
        log.write_all(&more).unwrap();
        log.sync_all().unwrap();
        written.extend(more);
        // Folders and files that come and go: blocks that are given up, and become something else.
        let name = mount.0.join(format!("other-{}", step % 7));
        match step % 14 < 7 {
            true => fs::create_dir(&name).unwrap(),
            false => fs::remove_dir(&name).unwrap(),
        }
        if step % 180 == 170 {
            written.clear();
            File::create(folder.join("holm.db-wal")).unwrap().sync_all().unwrap();
        }
        if step % 60 == 59 {
            // As the disk has it at this moment: what is in the kernel's memory alone is not in it.
            let card = bench.path("card");
            fs::copy(&image, &card).unwrap();
            let (found, copied) = bench.read(&card);
            dirty += usize::from(found.journaled > 0);
            assert!(copied == [pattern(1, 5000), written.clone()], "{step}: {found:?}");
            assert!(copied[1] == bench.recovered(&card, "/holm/holm.db-wal"), "{step}");
            let dump = run("dumpe2fs", &["-h", card.to_str().unwrap()], "");
            let start = dump.lines().find_map(|line| line.strip_prefix("Journal start:")).unwrap();
            rounds = rounds.max(start.trim().parse::<u32>().unwrap());
        }
    }
    assert!(dirty >= 10, "{dirty} of 15 copies had something in the journal only");
    assert!(rounds > 500, "the journal has come as far as {rounds}");
}

#[test]
fn why_there_is_no_database_is_told() {
    let bench = Bench::new();
    let nothing = bench.path("nothing");
    fs::write(&nothing, vec![0; 4 * MIB]).unwrap();
    assert!(matches!(bench.fails(&nothing), ImageError::NoTable { .. }));
    assert!(matches!(bench.fails(&bench.path("absent")), ImageError::File { action: "open", .. }));
    let why = |error: ImageError| match error {
        ImageError::NoDatabase { why, seen, .. } => (why, seen),
        other => panic!("{other}"),
    };
    let empty = fs::read(bench.ext4("empty", KINDS[0], &[("lost", b"")])).unwrap();
    let ours = [(FAT, &b"boot"[..]), (LINUX, b"hsqs"), (LINUX, b"hsqs"), (LINUX, &empty)];
    let (reason, seen) = why(bench.fails(&bench.disk("new.img", SIGNATURE, &ours)));
    assert_eq!((reason, seen.len()), (Absent::NeverBooted, 4));
    assert_eq!(seen[3], "partition 4: ext4, holm-data; it has no holm.db in /holm or /var/lib/holm");
    let (reason, seen) = why(bench.fails(&bench.disk("locked.img", 7, &[(FAT, b"boot"), (LINUX, b"LUKS\xba\xbe")])));
    assert_eq!((reason, &*seen[1]), (Absent::Encrypted, "partition 2: LUKS"));
    let (reason, _) = why(bench.fails(&bench.disk("debian.img", 7, &[(FAT, b"boot"), (LINUX, &empty)])));
    assert_eq!(reason, Absent::NotThere);
    let mut broken = empty.clone();
    broken[1024..1060].fill(0xff);
    let (reason, seen) = why(bench.fails(&bench.disk("broken.img", 7, &[(LINUX, &broken)])));
    assert_eq!(reason, Absent::Unreadable, "{seen:?}");
    // Where the node had been told to have it.
    let data = fs::read(bench.ext4("data", KINDS[0], &[("srv/node/holm.db", b"db")])).unwrap();
    let card = bench.disk("elsewhere.img", 7, &[(LINUX, &data), (LINUX, &data)]);
    let wanted = |partition| Wanted { partition, folder: Some("/srv/node".to_owned()) };
    let several = Database::find(&card, &wanted(None)).err().unwrap();
    assert!(matches!(&several, ImageError::Several { numbers, .. } if *numbers == [1, 2]), "{several}");
    let found = Database::find(&card, &wanted(Some(2))).unwrap();
    assert_eq!((found.found.partition, &*found.found.folder), (2, "/srv/node"));
    let full = bench.path("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("mine"), "").unwrap();
    assert!(matches!(found.copy(&full), Err(ImageError::NotEmpty { .. })));
}

#[test]
fn a_folder_is_copied_only_while_no_node_has_it() {
    let bench = Bench::new();
    let data = bench.path("data");
    fs::create_dir(&data).unwrap();
    assert!(matches!(copy_folder(&data, &bench.path("to")), Err(ImageError::NoDatabase { .. })));
    for name in ["holm.db", "holm.db-wal", "holm.db-shm", "other"] {
        fs::write(data.join(name), name).unwrap();
    }
    let lock = File::create(data.join("holm.lock")).unwrap();
    lock.try_lock().unwrap();
    assert!(matches!(copy_folder(&data, &bench.path("to")), Err(ImageError::Running { .. })));
    drop(lock);
    let found = copy_folder(&data, &bench.path("to")).unwrap();
    assert_eq!(found.files.len(), 2);
    let mut copied: Vec<_> = fs::read_dir(bench.path("to")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    copied.sort();
    assert_eq!(copied, ["holm.db", "holm.db-wal"]);
}

#[test]
fn no_bytes_on_a_card_end_the_process() {
    let bench = Bench::new();
    let image = bench.ext4("image", KINDS[2], &[("holm/holm.db", &pattern(1, 30_000))]);
    let block = run("debugfs", &["-R", "bmap /holm/holm.db 0", image.to_str().unwrap()], "");
    fs::write(bench.path("second"), pattern(2, 1024)).unwrap();
    let write = format!("jw -b {} {}\n", block.trim(), bench.path("second").display());
    bench.debugfs(&image, &format!("jo\n{write}{write}jw -r {}\njc\n", block.trim()));
    let journal = run("debugfs", &["-R", "bmap <8> 0", image.to_str().unwrap()], "");
    let journal: usize = journal.trim().parse().unwrap();
    let good = fs::read(&image).unwrap();
    // Where the superblock, the descriptors, the inodes and the journal's beginning are.
    let places = [1024..2048, 2048..3072, 1024 * 64..1024 * 400, journal * 1024..(journal + 12) * 1024];
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 8).unwrap()
    };
    let (mut read, mut refused) = (0, 0);
    let card = File::options().write(true).open(&image).unwrap();
    for round in 0..400 {
        let place = &places[round % places.len()];
        for _ in 0..1 + next() % 8 {
            card.write_all_at(&[next() as u8], (place.start + next() % place.len()) as u64).unwrap();
        }
        match Database::find(&image, &Wanted::default()) {
            Ok(database) => {
                let to = tempfile::tempdir_in(bench.0.path()).unwrap();
                let _ = database.copy(&to.path().join("copy"));
                read += 1;
            }
            Err(_) => refused += 1,
        }
        card.write_all_at(&good[place.clone()], place.start as u64).unwrap();
    }
    assert!(read > 20 && refused > 20, "{read} were read, {refused} refused");
}

/// As `holm_tests::skip`, which this crate cannot name.
fn skip(why: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("a test without a name");
    println!("skipped: {name}: {why}");
    if let Some(path) = std::env::var_os("HOLM_SKIPS") {
        let mut file = File::options().append(true).create(true).open(path).unwrap();
        file.write_all(format!("{name}: {why}\n").as_bytes()).unwrap();
    }
}
