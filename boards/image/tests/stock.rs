//! Raspberry Pi OS, seeded: on small images with what the real ones are known by. The scripts of the first boot are run by
//! real shells, in a root of their own; what cloud-init reads is read by the parser that it uses.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use holm_image::card_seed::{Enrol, Mqtt, Seed, Wifi};
use holm_image::disk::{Allowed, Roots};
use holm_image::flash::{Flash, Target};
use holm_image::stock::{Deb, Stock, Way};
use holm_image::{ImageError, Phase};
use holm_init::table::{Entry, FAT, LINUX, Table};

const MIB: u64 = 1 << 20;

/// Where the partitions are, in mebibytes.
const BOOT: std::ops::Range<u64> = 4..52;
const ROOT: std::ops::Range<u64> = 52..68;

const LINE: &str =
    "console=serial0,115200 console=tty1 root=PARTUUID=5d0bc1ec-02 rootfstype=ext4 fsck.repair=yes rootwait";

/// The heads of programs: 64 bits for ARM, 32 bits for ARM, and neither.
const ARM64: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\xb7\0\x01\0\0\0";
const ARMHF: &[u8] = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x28\0\x01\0\0\0";
const AMD64: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0";

/// What nobody would choose, and somebody has.
const SSID: &str = "a\"b'c\\d$(e)`f` #: {é}";

fn run(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    let output = command.args(arguments).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

struct Bench(tempfile::TempDir);

/// What differs from one image to another.
struct System<'a> {
    release: &'a str,
    program: &'a [u8],
    issue: bool,
    cloud_init: bool,
    line: &'a str,
}

const TRIXIE: System<'static> = System { release: "trixie", program: ARM64, issue: true, cloud_init: true, line: LINE };
const BOOKWORM: System<'static> =
    System { release: "bookworm", program: ARM64, issue: true, cloud_init: false, line: LINE };

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// An image with a FAT and an ext4 partition.
    fn image(&self, name: &str, system: &System<'_>) -> PathBuf {
        let path = self.path(name);
        let root = format!("{name}.root");
        let about = format!("PRETTY_NAME=\"Debian GNU/Linux ({0})\"\nVERSION_CODENAME={0}\n", system.release);
        self.write(&format!("{root}/usr/lib/os-release"), about);
        self.write(&format!("{root}/usr/bin/dpkg"), system.program);
        if system.issue {
            self.write(&format!("{root}/etc/rpi-issue"), "Raspberry Pi reference 2026-06-18\n");
        }
        if system.cloud_init {
            self.write(&format!("{root}/usr/bin/cloud-init"), "#!/usr/bin/python3\n");
            let config =
                "datasource_list: [ NoCloud, None ]\ndatasource:\n  NoCloud:\n    seedfrom: file:///boot/firmware\n";
            self.write(&format!("{root}/etc/cloud/cloud.cfg.d/99_raspberry-pi.cfg"), config);
        }
        let (ext4, root) = (self.path(&format!("{name}.ext4")), self.path(&root));
        File::create(&ext4).unwrap().set_len((ROOT.end - ROOT.start) * MIB).unwrap();
        // As pi-gen makes it.
        let options = "^64bit,^huge_file,^metadata_csum";
        let (root, ext4) = (root.to_str().unwrap(), ext4.to_str().unwrap());
        run("mke2fs", &["-q", "-F", "-t", "ext4", "-b", "4096", "-L", "rootfs", "-O", options, "-d", root, ext4]);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(ROOT.end * MIB).unwrap();
        let entry = |kind, place: std::ops::Range<u64>| {
            let sectors = |mib| (mib * MIB / 512) as u32;
            Entry { kind, first: sectors(place.start), sectors: sectors(place.end - place.start) }
        };
        let mut table = Table { signature: 0x5d0b_c1ec, entries: [Entry::default(); 4] };
        (table.entries[0], table.entries[1]) = (entry(FAT, BOOT), entry(LINUX, ROOT));
        let put = |bytes: &[u8], at| std::os::unix::fs::FileExt::write_all_at(&file, bytes, at).unwrap();
        put(&table.sector(), 0);
        put(&fs::read(ext4).unwrap(), ROOT.start * MIB);
        let mut fat = std::io::Cursor::new(vec![0; ((BOOT.end - BOOT.start) * MIB) as usize]);
        let label = fatfs::FormatVolumeOptions::new().volume_label(*b"bootfs     ").bytes_per_cluster(512);
        fatfs::format_volume(&mut fat, label.fat_type(fatfs::FatType::Fat32)).unwrap();
        let volume = fatfs::FileSystem::new(&mut fat, fatfs::FsOptions::new()).unwrap();
        for (name, text) in [("cmdline.txt", format!("{}\n", system.line)), ("config.txt", "arm_64bit=1\n".to_owned())]
        {
            volume.root_dir().create_file(name).unwrap().write_all(text.as_bytes()).unwrap();
        }
        volume.unmount().unwrap();
        put(&fat.into_inner(), BOOT.start * MIB);
        path
    }

    fn xz(&self, image: &Path) -> PathBuf {
        // Several blocks, as the published ones have them.
        run("xz", &["-k", "-1", "--block-size=8MiB", image.to_str().unwrap()]);
        PathBuf::from(format!("{}.xz", image.display()))
    }

    fn package(&self, name: &str, architecture: &str, compression: &str) -> Deb {
        let root = format!("{name}-{architecture}{compression}");
        let control = format!(
            "Package: {name}\nVersion: 0.1.0\nArchitecture: {architecture}\nMaintainer: x <x@example.com>\nDescription: x\n more\n"
        );
        self.write(&format!("{root}/DEBIAN/control"), control);
        self.write(&format!("{root}/usr/share/{name}"), "content");
        let (root, deb) = (self.path(&root), self.path(&format!("{root}.deb")));
        run("dpkg-deb", &[compression, "--root-owner-group", "-b", root.to_str().unwrap(), deb.to_str().unwrap()]);
        Deb::open(&deb).unwrap()
    }

    fn flash(&self, image: &Path, told: &Seed, packages: &[Deb]) -> Result<(Stock, PathBuf, Vec<Phase>), ImageError> {
        let mut phases = Vec::new();
        let mut tell = |progress: holm_image::Progress| {
            assert!(progress.done <= progress.total, "{progress:?}");
            if phases.last() != Some(&progress.phase) {
                phases.push(progress.phase);
            }
        };
        let mut stock = Stock::open(image, &mut tell)?;
        let seeded = stock.seed(told, packages)?;
        let card = self.path("card.img");
        let target = Target::File { path: card.clone(), bytes: 80 * MIB };
        let roots = Roots::default();
        let allowed = Allowed::default();
        Flash { roots: &roots, target: &target, allowed }.write_stock(&mut stock, &seeded, &mut tell)?;
        Ok((stock, card, phases))
    }
}

fn told() -> Seed {
    let text = str::to_owned;
    Seed {
        hostname: Some(text("pi1")),
        wifi: Some(Wifi { ssid: text(SSID), psk: Some("ab".repeat(32)), country: text("DE") }),
        enrol: Some(Enrol {
            cloud: text("https://cloud.example:8443"),
            token: text("a\"b'c$(touch /tmp/no)"),
            ca_hash: "0".repeat(64),
            thing: Some(text("pi1")),
        }),
        mqtt: Some(Mqtt {
            user: text("fi\"eld"),
            password_hash: text("$pbkdf2$x$y"),
            certificate: text("-----BEGIN\nabc\n-----END\n"),
            key: text("-----BEGIN\nkey\n-----END\n"),
        }),
        config: Some(text("[node]\ndevice = \"$HOME `id`\"\n")),
    }
}

fn get(stock: &Stock, card: &Path, name: &str) -> Option<String> {
    let file = File::options().read(true).write(true).open(card).unwrap();
    stock.get(&file, card, name).unwrap().map(|bytes| String::from_utf8(bytes).unwrap())
}

/// A document of YAML, as JSON.
fn yaml(text: &str) -> serde_json::Value {
    let program = "import sys, json, yaml; json.dump(yaml.safe_load(sys.argv[1]), sys.stdout)";
    serde_json::from_slice(&run("python3", &["-c", program, text]).stdout).unwrap()
}

#[test]
fn trixie_is_told_by_cloud_init() {
    let bench = Bench::new();
    let image = bench.image("trixie.img", &System { line: &format!("{LINE} ds=nocloud;i=rpi-imager-1"), ..TRIXIE });
    let packages = [bench.package("holm", "arm64", "-Zxz"), bench.package("holm-compiler", "arm64", "-Zzstd")];
    let (stock, card, phases) = bench.flash(&bench.xz(&image), &told(), &packages).unwrap();
    assert_eq!((stock.system.way, stock.system.architecture), (Way::CloudInit, "arm64"));
    assert_eq!(phases, [Phase::Unpack, Phase::Check, Phase::Write, Phase::Verify]);
    // What is around the FAT partition is the image, and nothing comes after it.
    let (mut before, mut after) = (Vec::new(), Vec::new());
    File::open(&image).unwrap().read_to_end(&mut before).unwrap();
    File::open(&card).unwrap().read_to_end(&mut after).unwrap();
    let [begin, end] = [BOOT.start, BOOT.end].map(|mib| (mib * MIB) as usize);
    assert!(after[..begin] == before[..begin] && after[end..before.len()] == before[end..]);
    assert!(after[before.len()..].iter().all(|byte| *byte == 0));
    let get = |name: &str| get(&stock, &card, name).unwrap_or_else(|| panic!("no {name}"));
    let user = yaml(&get("user-data"));
    assert!(get("user-data").starts_with("#cloud-config\n"));
    assert_eq!(user["hostname"], "pi1");
    assert_eq!(user["runcmd"], serde_json::json!([["sh", "/boot/firmware/holm/setup.sh"]]));
    let network = yaml(&get("network-config"));
    assert_eq!(network.pointer("/network/ethernets/eth0/dhcp4"), Some(&true.into()));
    let wireless = network.pointer("/network/wifis/wlan0").unwrap();
    assert_eq!(wireless["regulatory-domain"], "DE");
    assert_eq!(wireless["access-points"], serde_json::json!({ SSID: { "password": "ab".repeat(32) } }));
    let (meta, line) = (yaml(&get("meta-data")), get("cmdline.txt"));
    let instance = meta["instance-id"].as_str().unwrap();
    assert_eq!(line, format!("{LINE} cfg80211.ieee80211_regdom=DE ds=nocloud;i={instance}\n"));
    assert_eq!(get("holm/files/enrol.toml"), told().enrol.unwrap().document());
    let deb = File::options().read(true).write(true).open(&card).unwrap();
    assert_eq!(Some(stock.get(&deb, &card, "holm/holm.deb").unwrap().unwrap().len()), {
        let path = bench.path("holm-arm64-Zxz.deb");
        Some(fs::metadata(path).unwrap().len() as usize)
    });
    // Each card is an instance of its own, and an open network has no password.
    let open = Seed { wifi: Some(Wifi { psk: None, ..told().wifi.unwrap() }), ..Seed::default() };
    let (stock, card, _) = bench.flash(&image, &open, &packages).unwrap();
    let get = |name: &str| self::get(&stock, &card, name);
    assert_ne!(yaml(&get("meta-data").unwrap())["instance-id"], instance);
    let network = yaml(&get("network-config").unwrap());
    assert_eq!(network.pointer("/network/wifis/wlan0/access-points"), Some(&serde_json::json!({ SSID: {} })));
    assert_eq!(get("holm/files/enrol.toml"), None);
}

#[test]
fn any_name_of_a_network_comes_through_yaml() {
    let bench = Bench::new();
    let image = bench.image("trixie.img", &TRIXIE);
    let packages = [bench.package("holm", "arm64", "-Znone")];
    for ssid in ["yes", "1e3", "~", "- a", "a: b", "\u{1f40c}\u{feff}", "'", "%", "\\x41", "&a *b !c", "\u{fffe}"] {
        let wifi = Wifi { ssid: ssid.to_owned(), psk: None, country: "NO".to_owned() };
        let told = Seed { wifi: Some(wifi), hostname: Some("1e3".to_owned()), ..Seed::default() };
        let (stock, card, _) = bench.flash(&image, &told, &packages).unwrap();
        let network = yaml(&get(&stock, &card, "network-config").unwrap());
        let wireless = network.pointer("/network/wifis/wlan0").unwrap();
        assert_eq!(wireless["access-points"], serde_json::json!({ ssid: {} }), "{ssid:?}");
        assert_eq!(wireless["regulatory-domain"], "NO");
        assert_eq!(yaml(&get(&stock, &card, "user-data").unwrap())["hostname"], "1e3");
    }
}

/// The FAT partition of a card in a folder, and a root, with stand-ins for the programs of a board that say what they are
/// told.
struct Board {
    bench: Bench,
    boot: PathBuf,
    root: PathBuf,
}

impl Board {
    fn new(system: &System<'_>, told: &Seed, dpkg: &str, check: &str) -> Self {
        let bench = Bench::new();
        let packages = [bench.package("holm", system_architecture(system), "-Zxz")];
        let (stock, card, _) = bench.flash(&bench.image("os.img", system), told, &packages).unwrap();
        let (boot, root) = (bench.path("boot"), bench.path("root"));
        let file = File::options().read(true).write(true).open(&card).unwrap();
        let names = stock.seed(told, &packages).unwrap();
        for name in names.names() {
            bench.write(&format!("boot/{name}"), stock.get(&file, &card, name).unwrap().unwrap());
        }
        bench.write("root/etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1\traspberrypi\n");
        bench.write("root/etc/hostname", "raspberrypi\n");
        bench.write("root/usr/sbin/mark", "");
        bench.write("root/etc/holm/agent.d/mark", "");
        bench.write("root/var/lib/systemd/rfkill/platform-1:wlan", "1\n");
        for (name, body) in
            [("dpkg", dpkg), ("holmd", check), ("systemctl", ""), ("chown", ""), ("rfkill", ""), ("sync", "")]
        {
            let text = format!(
                "#!/bin/sh\nprintf '%s' {name} >>{log}\nprintf ' [%s]' \"$@\" >>{log}\necho >>{log}\n{body}\n",
                log = bench.path("log").display()
            );
            let path = bench.write(&format!("bin/{name}"), text);
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { bench, boot, root }
    }

    fn run(&self, shell: &str, script: &str) -> Output {
        let path = format!("{}:/usr/bin:/bin", self.bench.path("bin").display());
        let mut command = Command::new(shell);
        command.arg(self.boot.join(script)).env_clear().env("PATH", path);
        command.env("HOLM_ROOT", &self.root).env("HOLM_BOOT", &self.boot).output().unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.bench.path("log")).unwrap_or_default()
    }

    /// What is where it should be, and for whom.
    fn read(&self, name: &str) -> (String, u32) {
        let path = self.root.join(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        (text, fs::metadata(path).unwrap().permissions().mode() & 0o777)
    }
}

fn system_architecture(system: &System<'_>) -> &'static str {
    if system.program == ARMHF { "armhf" } else { "arm64" }
}

#[test]
fn what_was_chosen_arrives_as_it_was_and_nothing_of_it_stays_on_the_card() {
    for shell in ["dash", "bash"] {
        let board = Board::new(&System { program: ARMHF, ..BOOKWORM }, &told(), "", "");
        let line = fs::read_to_string(board.boot.join("cmdline.txt")).unwrap();
        let run = "systemd.run=/boot/firmware/firstrun.sh systemd.run_success_action=reboot systemd.unit=kernel-command-line.target";
        assert_eq!(line, format!("{LINE} cfg80211.ieee80211_regdom=DE {run}\n"));
        let output = board.run(shell, "firstrun.sh");
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        let seed = told();
        let (enrol, mqtt) = (seed.enrol.unwrap(), seed.mqtt.unwrap());
        assert_eq!(board.read("var/lib/holm/enrol.toml"), (enrol.document(), 0o600));
        assert_eq!(board.read("etc/holm/mqtt.crt"), (mqtt.certificate.clone(), 0o640));
        assert_eq!(board.read("etc/holm/mqtt.key"), (mqtt.key.clone(), 0o640));
        assert_eq!(board.read("etc/holm/agent.d/50-mqtt.toml"), (mqtt.layer("/etc/holm"), 0o640));
        assert_eq!(board.read("etc/holm/agent.d/60-card.toml"), (seed.config.unwrap(), 0o640));
        assert_eq!(board.read("etc/hostname").0, "pi1\n");
        assert_eq!(board.read("etc/hosts").0, "127.0.0.1\tlocalhost\n127.0.1.1\tpi1\n");
        assert_eq!(board.read("var/lib/systemd/rfkill/platform-1:wlan").0, "0\n");
        let (wifi, mode) = board.read("etc/NetworkManager/system-connections/holm.nmconnection");
        assert_eq!(mode, 0o600);
        let name = wifi.lines().find_map(|line| line.strip_prefix("ssid=")).unwrap();
        let bytes: Vec<u8> = name.split_terminator(';').map(|number| number.parse().unwrap()).collect();
        assert_eq!(bytes, SSID.as_bytes());
        assert!(wifi.contains(&format!("\npsk={}\n", "ab".repeat(32))), "{wifi}");
        // The package comes first, and nothing is started before the restart that follows.
        let log = board.log();
        let dpkg = format!("dpkg [--install] [{}]", board.boot.join("holm/holm.deb").display());
        assert!(log.lines().any(|line| line == dpkg) && !log.contains("systemctl"), "{log}");
        assert!(log.contains(&format!("chown [holm:holm] [{}/var/lib/holm]", board.root.display())), "{log}");
        let left: Vec<_> = fs::read_dir(&board.boot).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["cmdline.txt"]);
        let line = fs::read_to_string(board.boot.join("cmdline.txt")).unwrap();
        assert_eq!(line, format!("{LINE} cfg80211.ieee80211_regdom=DE\n"));
        assert_eq!(fs::read_dir(board.root.join("usr/sbin")).unwrap().count(), 1, "no policy is left behind");
    }
}

#[test]
fn cloud_init_runs_the_same_script_and_the_node_is_started_with_what_it_was_told() {
    let board = Board::new(&TRIXIE, &told(), "", "");
    let output = board.run("dash", "holm/setup.sh");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(board.read("var/lib/holm/enrol.toml").0, told().enrol.unwrap().document());
    assert!(!board.boot.join("holm").exists());
    assert_eq!(board.log().lines().last(), Some("systemctl [--no-block] [restart] [holmd.service]"));
}

#[test]
fn a_first_boot_that_goes_wrong_says_so_on_the_card_and_the_next_is_an_ordinary_one() {
    // A package that does not install.
    let board = Board::new(&BOOKWORM, &told(), "echo no such library; exit 1", "");
    assert!(board.run("dash", "firstrun.sh").status.success());
    let said = fs::read_to_string(board.boot.join("holm/setup.log")).unwrap();
    assert!(said.contains("no such library\nthe packages could not be installed"), "{said}");
    assert!(board.boot.join("holm/files/enrol.toml").exists(), "for whoever tries again");
    assert!(!board.boot.join("firstrun.sh").exists());
    assert!(!fs::read_to_string(board.boot.join("cmdline.txt")).unwrap().contains("systemd"));
    assert_eq!(fs::read_dir(board.root.join("usr/sbin")).unwrap().count(), 1, "no policy is left behind");
    // A configuration that the node does not take.
    let board = Board::new(&TRIXIE, &told(), "", "echo unknown key; exit 2");
    assert!(board.run("dash", "holm/setup.sh").status.success());
    assert!(board.root.join("etc/holm/agent.d/60-card.toml.refused").exists());
    assert!(!board.root.join("etc/holm/agent.d/60-card.toml").exists());
    let said = fs::read_to_string(board.boot.join("holm/setup.log")).unwrap();
    assert!(said.contains("unknown key") && said.contains("is left out"), "{said}");
    assert_eq!(fs::read_dir(board.boot.join("holm/files")).unwrap().count(), 0);
    // A place that cannot be written: what belongs there is kept for who looks.
    let board = Board::new(&TRIXIE, &told(), "", "");
    board.bench.write("root/var/lib/holm", "");
    let output = board.run("dash", "holm/setup.sh");
    assert!(!output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("holm: /var/lib/holm/enrol.toml could not be written"), "{said}");
    assert!(board.boot.join("holm/files/enrol.toml").exists());
}

#[test]
fn what_was_erased_is_zeros() {
    let board = Board::new(&TRIXIE, &told(), "", "");
    let key = File::open(board.boot.join("holm/files/mqtt.key")).unwrap();
    board.run("dash", "holm/setup.sh");
    let mut left = Vec::new();
    (&key).read_to_end(&mut left).unwrap();
    assert!(!left.is_empty() && left.iter().all(|byte| *byte == 0), "{left:?}");
}

#[test]
fn what_is_erased_is_on_the_disk_and_a_second_run_takes_no_zeros_for_it() {
    let board = Board::new(&TRIXIE, &told(), "", "");
    let (files, seen) = (board.boot.join("holm/files"), board.bench.path("seen"));
    let sync = format!("#!/bin/sh\ncp -r {} {}\n", files.display(), seen.display());
    let sync = board.bench.write("bin/sync", sync);
    fs::set_permissions(sync, fs::Permissions::from_mode(0o755)).unwrap();
    // As a power cut in the middle of erasing has left it.
    let key = told().mqtt.unwrap().key;
    board.bench.write("root/etc/holm/mqtt.key", &key);
    fs::write(files.join("mqtt.key"), vec![0; key.len()]).unwrap();
    assert!(board.run("dash", "holm/setup.sh").status.success());
    assert_eq!(board.read("etc/holm/mqtt.key").0, key);
    let enrol = told().enrol.unwrap().document();
    assert_eq!(board.read("var/lib/holm/enrol.toml").0, enrol);
    assert_eq!(fs::read_to_string(seen.join("enrol.toml")).unwrap(), enrol, "erased before it was on the disk");
}

#[test]
fn what_cannot_become_a_node_is_refused_before_a_card_is_touched() {
    let bench = Bench::new();
    let (holm, other) = ([bench.package("holm", "arm64", "-Zxz")], bench.package("holm-compiler", "arm64", "-Zxz"));
    let armhf = bench.package("holm", "armhf", "-Zxz");
    let refused = |image: &Path, packages: &[Deb]| {
        let error = bench.flash(image, &told(), packages).err().unwrap_or_else(|| panic!("{}", image.display()));
        assert!(!bench.path("card.img").exists(), "{error}");
        error.chain()
    };
    let mut number = 0;
    let mut image = |system: System<'_>| {
        number += 1;
        bench.image(&format!("{number}.img"), &system)
    };
    for (system, packages, why) in [
        (System { issue: false, ..TRIXIE }, &holm[..], "only Raspberry Pi OS is seeded"),
        (System { release: "bullseye", ..BOOKWORM }, &holm, "take Raspberry Pi OS bookworm or trixie"),
        (System { cloud_init: false, ..TRIXIE }, &holm, "whose first boot is told nothing"),
        (System { program: AMD64, ..TRIXIE }, &holm, "neither for arm64 nor for armhf"),
        (System { line: "x systemd.run=/boot/other.sh", ..BOOKWORM }, &holm, "somebody has told it already"),
        (TRIXIE, &[armhf], "its programs are for arm64, and holm 0.1.0 is for armhf"),
        (TRIXIE, &[other], "none of the packages is `holm`"),
    ] {
        let said = refused(&image(system), packages);
        assert!(said.contains(why), "{said}");
    }
    bench.write("holm-arm64-Znone/usr/share/large", vec![1; 50 << 20]);
    let said = refused(&image(TRIXIE), &[bench.package("holm", "arm64", "-Znone")]);
    assert!(said.contains("what its first boot needs has"), "{said}");
    let wrong = Seed { hostname: Some("A b".to_owned()), ..Seed::default() };
    let good = image(TRIXIE);
    let error = bench.flash(&good, &wrong, &holm).unwrap_err();
    assert!(matches!(error, ImageError::Seed { .. }), "{error}");
    let said = Deb::open(&bench.write("no.deb", "PK")).unwrap_err().to_string();
    assert!(said.contains("no archive"), "{said}");
    for (name, magic, why) in [
        ("a.gz", &b"\x1f\x8b\x08\0\0\0\0\0\0"[..], "is packed"),
        ("a.zip", b"PK\x03\x04\0\0\0\0\0", "is packed"),
        ("a", b"x", "empty"),
    ] {
        let said = refused(&bench.write(name, magic), &holm);
        assert!(said.contains(why), "{said}");
    }
    assert!(refused(&bench.write("zeros", vec![0; 4 << 20]), &holm).contains("cannot be seeded"));
    // A download that broke off, and one with a flipped bit.
    let packed = fs::read(bench.xz(&good)).unwrap();
    for (name, bytes) in [
        ("cut.xz", packed[..packed.len() / 2].to_vec()),
        ("flipped.xz", {
            let mut flipped = packed.clone();
            flipped[packed.len() / 3] ^= 4;
            flipped
        }),
    ] {
        let said = refused(&bench.write(name, bytes), &holm);
        assert!(said.contains("cannot unpack"), "{name}: {said}");
    }
}

#[test]
fn packages_say_what_they_are_however_they_are_packed() {
    let bench = Bench::new();
    for compression in ["-Zxz", "-Zzstd", "-Znone"] {
        let deb = bench.package("holm", "armhf", compression);
        assert_eq!((&*deb.package, &*deb.version, &*deb.architecture), ("holm", "0.1.0", "armhf"));
    }
    let root = bench.path("holm-armhf-Zxz");
    let packed = bench.path("gz.deb");
    run("dpkg-deb", &["-Zgzip", "-b", root.to_str().unwrap(), packed.to_str().unwrap()]);
    assert!(Deb::open(&packed).unwrap_err().chain().contains("pack it with -Zxz"));
    let good = fs::read(bench.path("holm-armhf-Zxz.deb")).unwrap();
    for length in (0..good.len()).step_by(7) {
        let _ = Deb::open(&bench.write("cut.deb", &good[..length]));
    }
    for at in 0..200.min(good.len()) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x20;
        let _ = Deb::open(&bench.write("flipped.deb", &bytes));
    }
}
