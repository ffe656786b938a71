//! A card in QEMU: in its `virt` machine, or in what it has for a Raspberry Pi 3.
//!
//! QEMU has no firmware of a Raspberry Pi, so this takes its place: it reads which slot is to be booted from the card's own
//! FAT partition, takes kernel, initramfs, command line and device tree from there, and hands them to QEMU with the card as
//! its disk.
//! A restart "into a slot, once" is what `tryboot` is on a Raspberry Pi; here it is read from what the machine says.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use holm_init::boot::{CHOICE, TRIAL_CHOICE};

use crate::build::{Board, COMMAND_LINE};
use crate::{ImageError, Manifest, fat};

/// The program.
const QEMU: &str = "qemu-system-aarch64";

/// A machine of QEMU for a board.
struct Model {
    board: &'static str,
    /// Its device tree, where QEMU does not make one up.
    tree: Option<&'static str>,
    /// The machine, and what it has of its own.
    machine: &'static [&'static str],
    /// How the card is plugged in.
    drive: &'static str,
    /// What else is, the network at least.
    devices: &'static [&'static str],
    /// What the kernel and init are told beside what the card says.
    told: &'static str,
}

/// On the Pi, the first serial line is the radio's, and there is no other way to a network than USB. Its memory is what it is.
const MODELS: [Model; 2] = [
    Model {
        board: "qemu-virt",
        tree: None,
        machine: &["virt", "-cpu", "cortex-a72", "-smp", "2"],
        drive: "if=none,id=card",
        devices: &[
            "virtio-blk-device,drive=card",
            "virtio-net-device,netdev=net",
            "virtio-rng-device",
            // The hardware watchdog: it resets the machine, which then ends.
            "i6300esb",
        ],
        told: "",
    },
    Model {
        board: "rpi3",
        tree: Some("bcm2837-rpi-3-b.dtb"),
        machine: &["raspi3b", "-serial", "null"],
        drive: "if=sd",
        devices: &["usb-net,netdev=net"],
        // QEMU resets it when the watchdog is started, and not when nobody feeds it.
        told: "holm.watchdog=off",
    },
];

/// What the firmware takes from a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The board that the card is for.
    pub board: Board,
    /// The slot's folder: `a/`.
    pub prefix: String,
    /// The kernel.
    pub kernel: Vec<u8>,
    /// Its first root.
    pub initramfs: Vec<u8>,
    /// What it is told.
    pub command_line: String,
    /// What the board is made of, if there is a file for that.
    pub tree: Option<Vec<u8>>,
}

/// A machine for a card.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The card: a file.
    pub card: PathBuf,
    /// Whether what it writes is thrown away at the end.
    pub discard: bool,
    /// Mebibytes of memory.
    pub memory: u32,
    /// Ports of this host that lead to ports of the machine.
    pub forward: Vec<(u16, u16)>,
}

impl Taken {
    /// As the firmware would: by `config.txt`, or by `tryboot.txt` for a trial.
    pub fn from(card: &Path, trial: bool) -> Result<Self, ImageError> {
        let file = File::options().read(true).write(true).open(card).map_err(ImageError::file("open", card))?;
        let wrong = |problem: String| ImageError::Card { path: card.to_owned(), problem };
        let board = Board::named(&Manifest::of(&file, card)?.board)?;
        let model = model(&board)?;
        let get = |path: &str| {
            let bytes = fat::get(fat::of(&file, card)?, path).map_err(ImageError::file("read", card))?;
            bytes.ok_or_else(|| wrong(format!("it has no {path}")))
        };
        let choice = get(if trial { TRIAL_CHOICE } else { CHOICE })?;
        let choice = String::from_utf8_lossy(&choice).into_owned();
        let value = |key: &str| choice.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let said = |what: Option<&str>, key: &str| {
            what.map(str::to_owned).ok_or_else(|| wrong(format!("{CHOICE} has no {key}")))
        };
        let prefix = said(value("os_prefix="), "os_prefix")?;
        let kernel = said(value("kernel="), "kernel")?;
        let initramfs = said(value("initramfs ").and_then(|words| words.split(' ').next()), "initramfs")?;
        let line = get(&format!("{prefix}{}", value("cmdline=").unwrap_or(COMMAND_LINE)))?;
        Ok(Self {
            board,
            tree: model.tree.map(|tree| get(&format!("{prefix}{tree}"))).transpose()?,
            kernel: get(&format!("{prefix}{kernel}"))?,
            initramfs: get(&format!("{prefix}{initramfs}"))?,
            command_line: String::from_utf8_lossy(&line).trim().to_owned(),
            prefix,
        })
    }
}

impl Machine {
    /// What to run, with the kernel and its first root put into `folder`. The serial line is its stdin and stdout; it ends
    /// when the machine restarts or powers off.
    pub fn command(&self, taken: &Taken, more: &str, folder: &Path) -> Result<Command, ImageError> {
        crate::build::need(QEMU, "qemu-system-arm")?;
        let put = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            fs::write(&path, bytes).map_err(ImageError::file("write", &path)).map(|()| path)
        };
        let kernel = put("vmlinuz", &taken.kernel)?;
        let initramfs = put("initramfs", &taken.initramfs)?;
        let model = model(&taken.board)?;
        let line = format!("{} {} {more}", taken.command_line, model.told);
        let mut command = Command::new(QEMU);
        command.arg("-M").args(model.machine);
        match &taken.tree {
            Some(tree) => {
                let bytes = fs::metadata(&self.card).map_err(ImageError::file("look at", &self.card))?.len();
                if !bytes.is_power_of_two() {
                    let problem =
                        "QEMU takes cards of 512 MiB, 1 GiB, 2 GiB and so on; `holm flash` makes one: --size 1GiB";
                    return Err(ImageError::Card { path: self.card.clone(), problem: problem.to_owned() });
                }
                command.arg("-dtb").arg(put("tree.dtb", tree)?);
            }
            None => {
                command.args(["-m", &format!("{}M", self.memory)]);
            }
        }
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs).args(["-append", line.trim()]);
        // Commas end options.
        let card = self.card.to_string_lossy().replace(',', ",,");
        let snapshot = if self.discard { "on" } else { "off" };
        command.args(["-drive", &format!("{},format=raw,snapshot={snapshot},file={card}", model.drive)]);
        let forward: String =
            self.forward.iter().map(|(host, port)| format!(",hostfwd=tcp:127.0.0.1:{host}-:{port}")).collect();
        command.args(["-netdev", &format!("user,id=net{forward}")]);
        command.args(model.devices.iter().flat_map(|device| ["-device", device]));
        command.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"]);
        Ok(command)
    }
}

fn model(board: &Board) -> Result<Model, ImageError> {
    let known = "qemu-virt and rpi3 are; the others only on the board itself";
    let found = MODELS.into_iter().find(|model| model.board == board.name);
    found.ok_or_else(|| ImageError::NoMachine { board: board.name.to_owned(), known })
}
