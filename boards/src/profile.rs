//! Board profiles: data about a kind of board, one TOML file each, in `boards/profiles`.
//!
//! What a node needs at run time is small: where lines and buses are that people call by the names on the board, the
//! watchdog and the LED. The rest is for who builds images and packages: the architecture, the Rust target, the engine,
//! the classes of memory. `status` says what was really done with it, and never more.

use holm_core::{Document, Label, Problem, Problems, Section};

use crate::bindings::device_name;

/// The profiles that come with the node, by name.
const BUILT_IN: [(&str, &str); 10] = [
    ("beaglebone-black", include_str!("../profiles/beaglebone-black.toml")),
    ("cm4", include_str!("../profiles/cm4.toml")),
    ("generic-arm64", include_str!("../profiles/generic-arm64.toml")),
    ("host-sim", include_str!("../profiles/host-sim.toml")),
    ("qemu-virt", include_str!("../profiles/qemu-virt.toml")),
    ("rpi-zero2w", include_str!("../profiles/rpi-zero2w.toml")),
    ("rpi2", include_str!("../profiles/rpi2.toml")),
    ("rpi3", include_str!("../profiles/rpi3.toml")),
    ("rpi4", include_str!("../profiles/rpi4.toml")),
    ("rpi5", include_str!("../profiles/rpi5.toml")),
];

/// What there is on every kind of board, by machine, where nothing else fits.
const FALLBACK: [(&str, &str); 2] = [("aarch64", "generic-arm64"), ("x86_64", "host-sim")];

/// A kind of board.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// For people.
    pub title: String,
    /// What was done with it.
    pub status: Status,
    /// What that means, in a sentence.
    pub note: String,
    /// What the device tree's `compatible` says on such boards; any of it.
    pub compatible: Vec<String>,
    /// Whether it is the simulator.
    pub simulated: bool,
    /// What images and packages for it are made with.
    pub build: Build,
    /// Groups of lines.
    pub lines: Vec<Lines>,
    /// I2C buses by name, with their device files.
    pub i2c: Vec<(String, String)>,
    /// SPI devices that such a board can have.
    pub spi: Vec<String>,
    /// The hardware watchdog.
    pub watchdog: Option<Watchdog>,
    /// The LED that shows how the node is, as `/sys/class/leds` calls it.
    pub led: Option<String>,
}

/// What was really done with a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Runs in every test.
    Tested,
    /// Booted in QEMU, which models the board's processor and some of its devices.
    Qemu,
    /// Written from documentation only.
    Untested,
}

/// What images and packages are made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// `aarch64`, `armv7`, `x86_64`.
    pub architecture: String,
    /// The Rust target.
    pub target: String,
    /// `native` or `pulley32`.
    pub engine: String,
    /// Bytes of a page of memory, which files that are mapped are aligned to.
    pub page_size: u64,
    /// Bytes of memory of the smallest such board.
    pub memory: u64,
    /// Functions that may be in memory at a time.
    pub slots: u64,
}

/// Lines with numbered names on one chip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    /// What comes before the number: `GPIO`.
    pub prefix: String,
    /// The first number.
    pub first: u32,
    /// The last number.
    pub last: u32,
    /// The label of the chip.
    pub chip: String,
    /// The offset of the first there.
    pub offset: u32,
}

/// A hardware watchdog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watchdog {
    /// Its device file.
    pub device: String,
    /// The most seconds that it can be set to.
    pub max_seconds: u64,
}

impl Profile {
    /// A profile that comes with the node.
    pub fn named(name: &str) -> Option<Self> {
        let (name, text) = BUILT_IN.iter().find(|(known, _)| *known == name)?;
        Self::parse(name, text).ok()
    }

    /// The names of all that come with the node.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.into_iter().map(|(name, _)| name)
    }

    /// The profile that is asked for, by name or by file, or what fits the machine: what its device tree says it is
    /// compatible with, most special first, or else what fits any machine of its architecture.
    pub fn choose(asked: Option<&str>, compatible: &[String]) -> Result<Self, Problems> {
        let problem = |message: String| Problems {
            origin: "board.profile".into(),
            problems: vec![Problem { line: 0, key: "board.profile".into(), message }],
        };
        let names = || Self::names().collect::<Vec<_>>().join(", ");
        match asked {
            Some(path) if path.contains('/') || path.ends_with(".toml") => {
                let text = std::fs::read_to_string(path).map_err(|error| problem(format!("{path}: {error}")))?;
                Self::parse(path, &text)
            }
            Some(name) => {
                Self::named(name).ok_or_else(|| problem(format!("no profile `{name}`: {}, or a file", names())))
            }
            None => {
                let profiles: Vec<Self> = Self::names().filter_map(Self::named).collect();
                let fits = |this: &&String| profiles.iter().find(|profile| profile.compatible.contains(this));
                if let Some(found) = compatible.iter().find_map(|this| fits(&this)) {
                    return Ok(found.clone());
                }
                let machine = std::env::consts::ARCH;
                // A machine with a device tree is somebody's board, whose readings must not be made up.
                let fallback = FALLBACK.iter().find(|(architecture, name)| {
                    *architecture == machine && (compatible.is_empty() || *name != "host-sim")
                });
                fallback.and_then(|(_, name)| Self::named(name)).ok_or_else(|| {
                    let this = compatible.join(", ");
                    problem(format!("no profile fits this board ({this}): set one of {}, or a file", names()))
                })
            }
        }
    }

    /// Reads and checks a profile.
    pub fn parse(origin: &str, text: &str) -> Result<Self, Problems> {
        let (document, mut root) = Document::parse(origin, text)?;
        let profile = read(&mut root);
        drop(root);
        document.finish()?;
        profile.ok_or_else(|| Problems {
            origin: origin.to_owned(),
            problems: vec![Problem { line: 0, key: "name".into(), message: "is missing".into() }],
        })
    }

    /// The chip and offset of a line by its name on the board.
    pub(crate) fn line(&self, name: &str) -> Option<(String, u32)> {
        self.lines.iter().find_map(|lines| {
            let number = name.strip_prefix(&*lines.prefix)?;
            // One way to write a number.
            let number: u32 = number.parse().ok().filter(|value: &u32| value.to_string() == number)?;
            let within = (lines.first..=lines.last).contains(&number);
            within.then(|| (lines.chip.clone(), lines.offset + number - lines.first))
        })
    }

    /// The device file of a bus. One that the profile does not know is what the kernel calls so: overlays add buses.
    pub(crate) fn i2c_device(&self, bus: &str) -> String {
        let known = self.i2c.iter().find(|(name, _)| name == bus);
        known.map_or_else(|| format!("/dev/{bus}"), |(_, device)| device.clone())
    }
}

fn read(root: &mut Section<'_>) -> Option<Profile> {
    if root.integer("profile_version", 1..=1).is_none() {
        root.problem("profile_version", "must be given as 1");
    }
    let text = |text: &str| Ok::<_, String>(text.to_owned());
    let name = root.require("name", |text| Label::new(text).map(|name| name.to_string()));
    let title = root.require("title", text);
    let statuses = [("tested", Status::Tested), ("qemu", Status::Qemu), ("untested", Status::Untested)];
    let status = root.choice("status", &statuses);
    if status.is_none() {
        root.problem("status", "must be given");
    }
    let note = root.require("note", text);
    let compatible = root.texts("compatible", text);
    let simulated = root.boolean("simulated").unwrap_or(false);
    let build = match root.section("build") {
        Some(mut section) => build(&mut section),
        None => {
            root.problem("build", "is missing");
            None
        }
    };
    let lines = root.sections("lines").iter_mut().filter_map(lines).collect();
    let mut i2c = Vec::new();
    for mut section in root.sections("i2c") {
        let (name, device) = (section.require("name", device_name), section.require("device", device_file));
        i2c.extend(name.zip(device));
    }
    let spi = root.texts("spi", device_name);
    let watchdog = root.section("watchdog").and_then(|mut section| {
        let device = section.require("device", device_file);
        let max_seconds = section.integer("max_seconds", 1..=3600).unwrap_or(15);
        Some(Watchdog { device: device?, max_seconds })
    });
    let led = root.parse("led", device_name);
    let (name, title, note) = (name?, title?, note?);
    Some(Profile {
        name,
        title,
        status: status?,
        note,
        compatible,
        simulated,
        build: build?,
        lines,
        i2c,
        spi,
        watchdog,
        led,
    })
}

fn build(section: &mut Section<'_>) -> Option<Build> {
    let one_of = |known: &'static [&'static str]| {
        move |text: &str| {
            if known.contains(&text) { Ok(text.to_owned()) } else { Err(format!("`{text}` is not one of {known:?}")) }
        }
    };
    let architecture = section.require("architecture", one_of(&["aarch64", "armv7", "x86_64"]));
    let target = section.require(
        "target",
        one_of(&["aarch64-unknown-linux-musl", "armv7-unknown-linux-gnueabihf", "x86_64-unknown-linux-gnu"]),
    );
    let engine = section.require("engine", one_of(&["native", "pulley32"]));
    let page_size = section.bytes("page_size", 4096..=65_536).unwrap_or(4096);
    let memory = section.bytes("memory", 1 << 26..=1 << 40);
    let slots = section.integer("slots", 1..=1024);
    if memory.is_none() || slots.is_none() {
        section.problem("memory", "`memory` and `slots` must be given");
    }
    Some(Build {
        architecture: architecture?,
        target: target?,
        engine: engine?,
        page_size,
        memory: memory?,
        slots: slots?,
    })
}

fn lines(section: &mut Section<'_>) -> Option<Lines> {
    let prefix = section.require("prefix", device_name);
    let chip = section.require("chip", device_name);
    let first = section.integer("first", 0..=511).unwrap_or(0) as u32;
    let last = section.integer("last", 0..=511)? as u32;
    if last < first {
        section.problem("last", "is before `first`");
    }
    let offset = section.integer("offset", 0..=511).unwrap_or(u64::from(first)) as u32;
    Some(Lines { prefix: prefix?, first, last, chip: chip?, offset })
}

fn device_file(text: &str) -> Result<String, String> {
    match text.strip_prefix("/dev/").map(device_name) {
        Some(Ok(_)) => Ok(text.to_owned()),
        _ => Err(format!("`{text}` is not a device: /dev/NAME")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_that_comes_with_the_node_is_good_and_says_what_was_done_with_it() {
        let mut seen = std::collections::BTreeMap::new();
        for (name, text) in BUILT_IN {
            let profile = Profile::parse(name, text).unwrap_or_else(|problems| panic!("{problems}"));
            assert_eq!(profile.name, name);
            assert!(profile.note.len() > 20, "{name} says too little about what was done with it");
            // No hardware was at hand: only what runs here may be called tested.
            assert!(profile.status != Status::Tested || profile.simulated, "{name}");
            for compatible in &profile.compatible {
                assert_eq!(seen.insert(compatible.clone(), name), None, "{compatible} is ambiguous");
            }
        }
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
        let files = std::fs::read_dir(folder).unwrap().count();
        assert_eq!(files, BUILT_IN.len(), "every file in profiles/ comes with the node");
    }

    #[test]
    fn a_board_is_known_by_its_device_tree() {
        let choose = |compatible: &[&str]| {
            let compatible: Vec<String> = compatible.iter().map(|one| (*one).to_owned()).collect();
            Profile::choose(None, &compatible).map(|profile| profile.name)
        };
        assert_eq!(choose(&["raspberrypi,4-model-b", "brcm,bcm2711"]).unwrap(), "rpi4");
        assert_eq!(choose(&["raspberrypi,3-model-b-plus", "brcm,bcm2837"]).unwrap(), "rpi3");
        assert_eq!(choose(&["linux,dummy-virt"]).unwrap(), "qemu-virt");
        assert_eq!(choose(&["ti,am335x-bone-black", "ti,am335x-bone", "ti,am33xx"]).unwrap(), "beaglebone-black");
        if cfg!(target_arch = "x86_64") {
            assert_eq!(choose(&[]).unwrap(), "host-sim");
            // Somebody's board: nothing is made up.
            assert!(choose(&["acme,anvil"]).unwrap_err().to_string().contains("acme,anvil"));
        }
        assert!(Profile::choose(Some("rpi9"), &[]).unwrap_err().to_string().contains("rpi4"));
        assert!(Profile::choose(Some("/nowhere/x.toml"), &[]).unwrap_err().to_string().contains("/nowhere/x.toml"));
    }

    #[test]
    fn lines_and_buses_are_found_by_the_names_on_the_board() {
        let rpi4 = Profile::named("rpi4").unwrap();
        assert_eq!(rpi4.line("GPIO17"), Some(("pinctrl-bcm2711".into(), 17)));
        for wrong in ["GPIO99", "GPIO017", "GPIO", "GPIO+1", "PIN1"] {
            assert_eq!(rpi4.line(wrong), None, "{wrong}");
        }
        assert_eq!(Profile::named("rpi5").unwrap().line("GPIO4"), Some(("pinctrl-rp1".into(), 4)));
        assert_eq!(rpi4.i2c_device("i2c-1"), "/dev/i2c-1");
        assert_eq!(rpi4.i2c_device("i2c-22"), "/dev/i2c-22");
        let bone = Profile::named("beaglebone-black").unwrap();
        assert_eq!(bone.line("GPIO1_28"), None);
    }

    #[test]
    fn everything_that_is_wrong_with_a_profile_is_said() {
        let text = "profile_version = 2\nname = \"My Board\"\ntitle = \"x\"\nstatus = \"perfect\"\nnote = \"x\"\n\
                    colour = \"red\"\nled = \"../x\"\n[build]\narchitecture = \"mips\"\ntarget = \"x\"\n\
                    engine = \"native\"\npage_size = \"1B\"\nmemory = \"1GiB\"\nslots = 8\nturbo = true\n\
                    [[lines]]\nprefix = \"GPIO\"\nchip = \"c\"\nfirst = 3\nlast = 1\n[watchdog]\ndevice = \"/etc/passwd\"\n";
        let problems = Profile::parse("x", text).unwrap_err().problems;
        let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
        let mut sorted = keys.clone();
        sorted.sort();
        assert_eq!(
            sorted,
            [
                "build.architecture",
                "build.page_size",
                "build.target",
                "build.turbo",
                "colour",
                "led",
                "lines[0].last",
                "name",
                "profile_version",
                "profile_version",
                "status",
                "status",
                "watchdog.device",
            ]
        );
    }
}
