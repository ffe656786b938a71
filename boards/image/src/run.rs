//! A card in QEMU's `virt` machine.
//!
//! QEMU has no firmware of a Raspberry Pi, so this takes its place: it reads which slot is to be booted from the card's own
//! FAT partition, takes kernel, initramfs and command line from there, and hands them to QEMU with the card as its disk.
//! A restart "into a slot, once" is what `tryboot` is on a Raspberry Pi; here it is read from what the machine says.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use holm_init::boot::{CHOICE, TRIAL_CHOICE};

use crate::build::COMMAND_LINE;
use crate::{ImageError, fat};

/// The program.
const QEMU: &str = "qemu-system-aarch64";

/// What the firmware takes from a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The slot's folder: `a/`.
    pub prefix: String,
    /// The kernel.
    pub kernel: Vec<u8>,
    /// Its first root.
    pub initramfs: Vec<u8>,
    /// What it is told.
    pub command_line: String,
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
        let line = format!("{} {more}", taken.command_line);
        let mut command = Command::new(QEMU);
        command.args(["-M", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", &format!("{}M", self.memory)]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs).args(["-append", line.trim()]);
        // Commas end options.
        let card = self.card.to_string_lossy().replace(',', ",,");
        let snapshot = if self.discard { "on" } else { "off" };
        command.args(["-drive", &format!("if=none,id=card,format=raw,snapshot={snapshot},file={card}")]);
        command.args(["-device", "virtio-blk-device,drive=card"]);
        let forward: String =
            self.forward.iter().map(|(host, port)| format!(",hostfwd=tcp:127.0.0.1:{host}-:{port}")).collect();
        command.args(["-netdev", &format!("user,id=net{forward}"), "-device", "virtio-net-device,netdev=net"]);
        command.args(["-device", "virtio-rng-device", "-display", "none", "-monitor", "none", "-serial", "stdio"]);
        // The hardware watchdog: it resets the machine, which then ends.
        command.args(["-device", "i6300esb", "-no-reboot"]);
        Ok(command)
    }
}
