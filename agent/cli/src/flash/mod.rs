//! `holm flash`: a card for a device, written so that nothing else is.

mod os;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use holm_core::ErrorCode;
use holm_image::card_seed::{Seed, country, hostname, ssid};
use holm_image::disk::{Allowed, Disk, Roots};
use holm_image::flash::{Flash as Writer, Target};
use holm_image::{Image, ImageError};
use serde_json::json;

use crate::failure::Failure;
use crate::look::{self, Look, Tone};
use crate::progress::Bar;
use crate::screen::Screen;
use crate::seed;
use crate::table::{Cell, Table};

/// Bytes of a card that is a file, unless something is said or the image has more.
const FILE_BYTES: u64 = 1 << 30;

/// See `holm flash --help`.
#[derive(clap::Args)]
pub(crate) struct Flash {
    /// The image [default: holm-BOARD.img, as `holm image build` makes it]
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// An image of Raspberry Pi OS instead, packed by xz or not, that the first boot makes a node of; needs --deb
    #[arg(long, value_name = "FILE", conflicts_with_all = ["image", "board"], requires = "deb")]
    os: Option<PathBuf>,
    /// A package that its first boot installs: `holm` for its architecture, and maybe `holm-compiler`
    #[arg(long, value_name = "FILE", requires = "os")]
    deb: Vec<PathBuf>,
    /// The board that the card is for; an image for another one is refused
    #[arg(long, value_name = "NAME")]
    board: Option<String>,
    /// The disk to write, such as /dev/sdb, or a file that is to be a card
    #[arg(long, value_name = "PATH", required_unless_present = "list")]
    device: Option<PathBuf>,
    /// Show the disks that there are, and why which is not written
    #[arg(long, conflicts_with = "device")]
    list: bool,
    /// Check everything, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask. A disk needs --expect-serial then
    #[arg(long)]
    yes: bool,
    /// The serial number that the disk must have
    #[arg(long, value_name = "SERIAL")]
    expect_serial: Option<String>,
    /// Allow disks that call themselves built in
    #[arg(long)]
    allow_fixed: bool,
    /// Allow disks of more than 256 GB
    #[arg(long)]
    allow_large: bool,
    /// How large the card is that a file stands for [default: 1GiB, or what the image has]
    #[arg(long, value_parser = holm_core::parse_bytes, value_name = "SIZE")]
    size: Option<u64>,
    #[command(flatten)]
    seed: seed::Options,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Flash {
    pub(crate) async fn run(&self, screen: &mut Screen) -> Result<(), Failure> {
        let roots = Roots::default();
        if self.list {
            return self.show(&roots, screen);
        }
        let Some(device) = &self.device else { return Ok(()) };
        if let Some(os) = &self.os {
            return self.run_os(os, device, screen).await;
        }
        let path = self.image();
        let mut image = Image::open(&path).map_err(|error| {
            let board = self.board.as_deref().unwrap_or("BOARD");
            failure(&error).next(format!("holm image build --board {board} makes one; --image FILE names another"))
        })?;
        if let Some(board) = &self.board {
            image.is_for(board).map_err(|error| failure(&error).next("name its own board, or another image"))?;
        }
        if self.seed.wants_wifi() && !image.manifest.wifi {
            let what =
                format!("{} cannot use wireless networks: its board is {}", path.display(), image.manifest.board);
            return Err(Failure::new(what).next("leave --wifi-ssid out; the node takes its address from a wire"));
        }
        let target = self.target(&roots, device, image.manifest.bytes)?;
        let allowed = Allowed { fixed: self.allow_fixed, large: self.allow_large };
        self.may_write(&target, &path, image.manifest.bytes, allowed, screen)?;
        if self.dry_run {
            let mut bar = Bar::new();
            image.check(&mut |progress| bar.show(progress)).map_err(|error| failure(&error))?;
            screen.note(format_args!("{} can be written with {}; nothing was", device.display(), path.display()));
            return Ok(());
        }
        let seed = self.seed.make(screen).await?;
        let mut bar = Bar::new();
        Writer { roots: &roots, target: &target, allowed }
            .write(&mut image, &seed.seed, &mut |progress| bar.show(progress))
            .map_err(|error| card_failure(&error))?;
        drop(bar);
        seed.keep(screen)?;
        if self.json {
            let manifest = &image.manifest;
            return screen.json(&json!({
                "device": target.path(), "image": path, "board": manifest.board, "version": manifest.version,
                "sha256": manifest.sha256, "bytes": manifest.bytes, "verified": true,
                "hostname": seed.seed.hostname, "cloud": seed.seed.enrol.as_ref().map(|enrol| &enrol.cloud),
            }));
        }
        screen.note(format_args!("{} is written and was read back", device.display()));
        self.tell_next(&seed.seed, screen);
        Ok(())
    }

    /// What is to be written.
    fn target(&self, roots: &Roots, device: &Path, needed: u64) -> Result<Target, Failure> {
        match Disk::at(roots, device).map_err(|error| failure(&error).next("holm flash --list"))? {
            Some(disk) => Ok(Target::Disk(Box::new(disk))),
            None => Ok(Target::File { path: device.to_owned(), bytes: self.size.unwrap_or(needed.max(FILE_BYTES)) }),
        }
    }

    /// Whether it may be: by what it is, and by who is asked.
    fn may_write(
        &self,
        target: &Target,
        image: &Path,
        bytes: u64,
        allowed: Allowed,
        screen: &Screen,
    ) -> Result<(), Failure> {
        let reasons = target.refusals(image, bytes, allowed);
        if !reasons.is_empty() {
            let error = ImageError::Refused { path: target.path().to_owned(), reasons };
            return Err(failure(&error).next("holm flash --list"));
        }
        self.agree(target, screen)
    }

    fn image(&self) -> PathBuf {
        let board = self.board.as_deref().unwrap_or("qemu-virt");
        self.image.clone().unwrap_or_else(|| PathBuf::from(format!("holm-{board}.img")))
    }

    fn tell_next(&self, seed: &Seed, screen: &Screen) {
        match &seed.enrol {
            Some(_) => screen.note("next:  put it in, give it power, and watch it come: holm fleet"),
            None => screen.note("next:  put it in and give it power; without --cloud it belongs to no control plane"),
        }
    }

    /// All disks.
    fn show(&self, roots: &Roots, screen: &mut Screen) -> Result<(), Failure> {
        let disks = Disk::all(roots).map_err(|error| failure(&error))?;
        let allowed = Allowed { fixed: self.allow_fixed, large: self.allow_large };
        if self.json {
            return disks.iter().try_for_each(|disk| {
                let mut value = json!(disk);
                if let Some(object) = value.as_object_mut() {
                    object.insert("refused".to_owned(), json!(disk.refusals(0, allowed)));
                }
                screen.json(&value)
            });
        }
        if disks.is_empty() {
            screen.note("there is no disk; a card shows up here when it is put in");
            return Ok(());
        }
        let mut table = Table::new(&["DISK", ">SIZE", "MODEL", "SERIAL", "CAN BE WRITTEN"]);
        for disk in &disks {
            let reasons = disk.refusals(0, allowed);
            table.row([
                Cell::toned(Tone::Strong, disk.path.display().to_string()),
                look::bytes(disk.bytes).into(),
                (&*disk.model).into(),
                (&*disk.serial).into(),
                match reasons.first() {
                    None => Cell::toned(Tone::Good, "yes"),
                    Some(reason) => Cell::toned(Tone::Warn, format!("no: {reason}")),
                },
            ]);
        }
        let text = table.render(&screen.look);
        screen.text(&text)
    }

    /// Shows what would be lost, and makes sure that it may be.
    fn agree(&self, target: &Target, screen: &Screen) -> Result<(), Failure> {
        let disk = match target {
            Target::Disk(disk) => disk,
            Target::File { path, .. } => return self.agree_to_file(path),
        };
        screen.note(describe(disk, &Look { color: false, ..screen.look.clone() }));
        if let Some(expected) = &self.expect_serial
            && *expected != disk.serial
        {
            let what = format!("{} has the serial number {}, and not {expected}", disk.path.display(), disk.serial);
            return Err(Failure::new(what).next("holm flash --list").page(ErrorCode::DiskRefused));
        }
        if self.dry_run {
            return Ok(());
        }
        if self.yes {
            return match &self.expect_serial {
                Some(_) if disk.serial.is_empty() => {
                    let what = format!("{} has no serial number, so --yes could mean any disk", disk.path.display());
                    Err(Failure::new(what).next("run it in a terminal, without --yes"))
                }
                Some(_) => Ok(()),
                None => Err(Failure::new("--yes alone could mean any disk that happens to be there")
                    .next(format!("add --expect-serial '{}'", disk.serial))
                    .page(ErrorCode::DiskRefused)),
            };
        }
        let known = disk.known_as();
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            return Err(Failure::new("nobody is there to be asked: this is no terminal")
                .next(format!("add --yes --expect-serial '{}'", disk.serial))
                .page(ErrorCode::DiskRefused));
        }
        screen.note(format_args!("All of it will be lost. To go on, type what it is: {known}"));
        let mut line = String::new();
        std::io::stdin()
            .read_line(&mut line)
            .map_err(|error| Failure::new(format!("cannot read from stdin: {error}")))?;
        match line.trim() == known {
            true => Ok(()),
            false => Err(Failure::new("that is not what it is; nothing was written")),
        }
    }

    /// A file that is there already, and is neither empty nor a card, is somebody's.
    fn agree_to_file(&self, path: &Path) -> Result<(), Failure> {
        let there = std::fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
        match there && !self.yes && Image::open(path).is_err() && !holm_image::is_card(path) {
            true => Err(Failure::new(format!("{} is there, and is no card", path.display()))
                .next("add --yes to write over it, or name another file")
                .page(ErrorCode::DiskRefused)),
            false => Ok(()),
        }
    }
}

/// What a person should look at before it is lost.
fn describe(disk: &Disk, look: &Look) -> String {
    let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
    let mut text = format!(
        "{}: {}, serial number {}, {}\n",
        disk.path.display(),
        or(&disk.model, "a disk without a name"),
        or(&disk.serial, "unknown"),
        look::bytes(disk.bytes)
    );
    let mut table = Table::new(&["PARTITION", ">SIZE", "HOLDS", "LABEL", ">IN USE"]);
    for part in &disk.partitions {
        table.row([
            (&*part.name).into(),
            look::bytes(part.bytes).into(),
            or(&part.kind, "?").into(),
            part.label.clone().unwrap_or_default().into(),
            part.used.map_or_else(|| "?".to_owned(), look::bytes).into(),
        ]);
    }
    text.push_str(&table.render(look));
    text.truncate(text.trim_end().len());
    text
}

/// Of writing a card.
fn card_failure(error: &ImageError) -> Failure {
    match error {
        ImageError::BadCard { .. } => failure(error).next("use another card: this one loses what it is given"),
        ImageError::File { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            failure(error).next("writing disks needs root: sudo holm flash ...")
        }
        _ => failure(error),
    }
}

/// Of the images' room.
pub(crate) fn failure(error: &ImageError) -> Failure {
    Failure::new(error.chain())
}

/// For clap.
pub(crate) fn host(text: &str) -> Result<String, String> {
    hostname(text).map(str::to_owned)
}

/// For clap.
pub(crate) fn network(text: &str) -> Result<String, String> {
    ssid(text).map(str::to_owned)
}

/// For clap.
pub(crate) fn land(text: &str) -> Result<String, String> {
    country(text).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holm_image::disk::Partition;

    #[test]
    fn what_would_be_lost_is_shown() {
        let part = |name: &str, kind: &str, label: Option<&str>, used| Partition {
            name: name.to_owned(),
            bytes: 512 << 20,
            kind: kind.to_owned(),
            label: label.map(str::to_owned),
            used,
            mounted: Vec::new(),
            swap: false,
            holders: Vec::new(),
        };
        let disk = Disk {
            path: "/dev/sdb".into(),
            name: "sdb".to_owned(),
            model: "Generic STORAGE DEVICE".to_owned(),
            serial: "0123".to_owned(),
            bytes: 32 << 30,
            removable: true,
            read_only: false,
            sequence: 7,
            partitions: vec![part("sdb1", "FAT32", Some("PHOTOS"), Some(300 << 20)), part("sdb2", "", None, None)],
        };
        let expected = "\
/dev/sdb: Generic STORAGE DEVICE, serial number 0123, 32.0 GiB
PARTITION       SIZE  HOLDS  LABEL      IN USE
sdb1       512.0 MiB  FAT32  PHOTOS  300.0 MiB
sdb2       512.0 MiB  ?                      ?";
        assert_eq!(describe(&disk, &Look::plain()), expected);
    }
}
