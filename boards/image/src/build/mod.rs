//! An image, from Debian's packages and our programs.
//!
//! # Same inputs, same bytes
//!
//! Nothing that goes in has a time, an owner or an order of its own: the archives and the FAT are written here, `mksquashfs`
//! and `mke2fs` are told the time and the identifiers. What went in is in the manifest.

mod board;
mod cpio;
mod debian;
mod modules;
mod system;

use std::fs::{self, File};
use std::io::Cursor;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use holm_init::boot::{CHOICE, TRIAL_CHOICE};
use holm_init::slots::Slot;

pub use self::board::Board;
use self::cpio::Archive;
use self::debian::Debian;
pub(crate) use self::debian::need;
use self::modules::Modules;
use crate::image::{CHUNK, Digest};
use crate::layout::{BOOT, DATA, MANIFEST, SYSTEM, TOTAL, table};
use crate::{ImageError, Manifest, Package, Part, fat};

/// How hard the initramfs is compressed: it is made once and loaded often.
const LEVEL: i32 = 19;

/// Names on the FAT partition, in the folder of their slot.
pub(crate) const KERNEL: &str = "vmlinuz";
pub(crate) const INITRAMFS: &str = "initramfs";
pub(crate) const COMMAND_LINE: &str = "cmdline.txt";

/// What an image is made of.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// For what.
    pub board: Board,
    /// `holmd` for it, static.
    pub holmd: PathBuf,
    /// `holm-init` for it, static.
    pub init: PathBuf,
    /// Where packages are kept.
    pub packages: PathBuf,
    /// Ask Debian for what is new, instead of building from what is there.
    pub fresh: bool,
    /// Talk on the serial line.
    pub console: bool,
    /// How long a system that is on trial must run; by default as init says.
    pub healthy_for: Option<String>,
}

impl Recipe {
    /// Makes the image; `say` is told what is being done.
    pub fn build(&self, output: &Path, say: &mut dyn FnMut(&str)) -> Result<Manifest, ImageError> {
        let mut manifest = Manifest::new(self.board.name, self.board.architecture);
        manifest.console = self.console;
        for (program, of) in [(&self.holmd, "holmd"), (&self.init, "holm-init")] {
            check_program(program, of, &self.board)?;
        }
        say("packages of Debian");
        let (package, kernel) = self.kernel()?;
        let modules = Modules::of(&kernel, &package.name)?.closure(self.board.all_modules())?;
        say("initramfs");
        let (initramfs, module_bytes) = self.initramfs(&modules)?;
        let vmlinuz = read_kernel(&kernel, &package.name)?;
        say("system");
        let work = tempfile::tempdir().map_err(ImageError::file("make a folder in", &std::env::temp_dir()))?;
        let system = system::squashfs(self, work.path())?;
        fits("the system", system.len() as u64, SYSTEM)?;
        say("data");
        let data = system::ext4(work.path(), DATA)?;
        say("image");
        let size = |path: &Path| fs::metadata(path).map(|meta| meta.len()).map_err(ImageError::file("look at", path));
        let part = |name: &str, bytes: u64| Part { name: name.to_owned(), bytes };
        manifest.parts = vec![
            part("kernel", vmlinuz.len() as u64),
            part("initramfs", initramfs.len() as u64),
            part("initramfs: modules, unpacked", module_bytes),
            part("initramfs: holm-init, unpacked", size(&self.init)?),
            part("system", system.len() as u64),
            part("system: holmd, unpacked", size(&self.holmd)?),
        ];
        manifest.packages = vec![package];
        let boot = self.boot(&vmlinuz, &initramfs)?;
        assemble(output, &mut manifest, &boot, &system, &data)?;
        Ok(manifest)
    }

    fn kernel(&self) -> Result<(Package, PathBuf), ImageError> {
        let debian = Debian::new(&self.packages, self.board.debian)?;
        debian.index(self.fresh)?;
        let name = debian.depends(&format!("linux-image-{}", self.board.debian))?;
        let (package, deb) = debian.get(&name)?;
        let folder = debian.unpack(&package, &deb)?;
        Ok((package, folder))
    }

    /// The first root, and how many bytes of it are modules.
    fn initramfs(&self, modules: &[modules::Module]) -> Result<(Vec<u8>, u64), ImageError> {
        let mut archive = Archive::default();
        for folder in ["dev", "proc", "sys", "run", "system", "lib", "lib/modules"] {
            archive.folder(folder);
        }
        // The kernel opens it before anything is mounted; without it, the first words would be lost.
        let path = |module: &modules::Module| format!("lib/modules/{}.ko", module.name);
        let list: String = modules.iter().map(|module| format!("/{}\n", path(module))).collect();
        archive.file("lib/modules/load", list.as_bytes());
        for module in modules {
            archive.file(&path(module), &module.bytes);
        }
        archive.program("init", &fs::read(&self.init).map_err(ImageError::file("read", &self.init))?);
        let packed = zstd::bulk::compress(&archive.finish(), LEVEL);
        let packed = packed.map_err(ImageError::file("compress", Path::new(INITRAMFS)))?;
        Ok((packed, modules.iter().map(|module| module.bytes.len() as u64).sum()))
    }

    /// The FAT partition.
    fn boot(&self, vmlinuz: &[u8], initramfs: &[u8]) -> Result<Vec<u8>, ImageError> {
        let failed = || ImageError::file("make", Path::new("the FAT partition"));
        let mut partition = Cursor::new(vec![0; usize::try_from(BOOT).unwrap_or_default()]);
        fat::format(&mut partition).map_err(failed())?;
        let (choice, trial) = (choice(Slot::A), choice(Slot::B));
        let slot = Slot::A;
        let (kernel, archive, line) =
            (format!("{slot}/{KERNEL}"), format!("{slot}/{INITRAMFS}"), format!("{slot}/{COMMAND_LINE}"));
        let command_line = self.command_line(slot);
        let files = [
            (CHOICE, choice.as_bytes()),
            (TRIAL_CHOICE, trial.as_bytes()),
            (&*kernel, vmlinuz),
            (&*archive, initramfs),
            (&*line, command_line.as_bytes()),
        ];
        fat::put(&mut partition, files).map_err(failed())?;
        Ok(partition.into_inner())
    }

    /// Without a serial line that is asked for, the kernel talks to a screen that no one has, and nobody can talk to it.
    fn command_line(&self, slot: Slot) -> String {
        let console = match self.console {
            true => format!("console={},115200 loglevel=7", self.board.console),
            false => "console=tty0 quiet loglevel=3".to_owned(),
        };
        let healthy = self.healthy_for.as_ref().map(|time| format!(" holm.healthy={time}")).unwrap_or_default();
        format!("{console} panic=10 init_on_alloc=1 holm.slot={slot}{healthy}\n")
    }
}

/// An image in which nothing is that boots, for tests of what is done with images.
#[doc(hidden)]
pub fn small(output: &Path, board: &str) -> Result<Manifest, ImageError> {
    let mut manifest = Manifest::new(board, "aarch64");
    let mut partition = Cursor::new(vec![0; usize::try_from(BOOT).unwrap_or_default()]);
    let choice = choice(Slot::A);
    fat::format(&mut partition)
        .and_then(|()| fat::put(&mut partition, [(CHOICE, choice.as_bytes())]))
        .map_err(ImageError::file("make", output))?;
    assemble(output, &mut manifest, &partition.into_inner(), b"a system", b"data")?;
    Ok(manifest)
}

/// What the firmware of a Raspberry Pi reads, and QEMU's harness in its place.
fn choice(slot: Slot) -> String {
    format!(
        "# Which system is booted; holm-init changes it when one on trial is confirmed.\narm_64bit=1\nos_prefix={slot}/\n\
         kernel={KERNEL}\ninitramfs {INITRAMFS} followkernel\ncmdline={COMMAND_LINE}\n"
    )
}

/// That a program is there, and for this kind of machine.
fn check_program(path: &Path, of: &str, board: &Board) -> Result<(), ImageError> {
    let file = File::open(path).map_err(ImageError::file("open", path))?;
    let mut head = [0; 20];
    let wrong = |problem: String| ImageError::NotAnImage { path: path.to_owned(), problem };
    file.read_exact_at(&mut head, 0).map_err(|_| wrong(format!("{of} is no program")))?;
    // e_machine of an ELF header: 183 is AArch64.
    let machine = head.get(18..20).and_then(|bytes| bytes.try_into().ok()).map(u16::from_le_bytes);
    match (head.starts_with(b"\x7fELF"), machine) {
        (true, Some(183)) if board.architecture == "aarch64" => Ok(()),
        (true, machine) => Err(wrong(format!(
            "{of} is for another machine (ELF {}) than {}",
            machine.unwrap_or_default(),
            board.architecture
        ))),
        (false, _) => Err(wrong(format!("{of} is no program"))),
    }
}

fn read_kernel(folder: &Path, package: &str) -> Result<Vec<u8>, ImageError> {
    let boot = folder.join("boot");
    let entries = fs::read_dir(&boot).map_err(ImageError::file("list", &boot))?.flatten();
    let kernel = entries
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")));
    let missing = || ImageError::Missing { package: package.to_owned(), what: "kernel".to_owned() };
    let kernel = kernel.ok_or_else(missing)?;
    fs::read(&kernel).map_err(ImageError::file("read", &kernel))
}

fn fits(part: &'static str, bytes: u64, most: u64) -> Result<(), ImageError> {
    if bytes <= most { Ok(()) } else { Err(ImageError::TooLarge { part, bytes, most }) }
}

/// Puts the parts where they belong, hashes the whole, and writes the manifest last.
fn assemble(output: &Path, manifest: &mut Manifest, boot: &[u8], system: &[u8], data: &[u8]) -> Result<(), ImageError> {
    let failed = || ImageError::file("write", output);
    let part = output.with_extension("part");
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&part).map_err(failed())?;
    file.set_len(TOTAL).map_err(failed())?;
    let table = table();
    let [first, second, _, last] = table.entries;
    file.write_all_at(&table.sector(), 0).map_err(failed())?;
    for (entry, bytes) in [(first, boot), (second, system), (last, data)] {
        // Where there is nothing, the file has a hole.
        for (index, chunk) in bytes.chunks(CHUNK).enumerate().filter(|(_, chunk)| chunk.iter().any(|byte| *byte != 0)) {
            file.write_all_at(chunk, entry.start() + (index * CHUNK) as u64).map_err(failed())?;
        }
    }
    let (mut digest, mut buffer) = (Digest::without_manifest(), vec![0; CHUNK]);
    for at in (0..TOTAL).step_by(CHUNK) {
        file.read_exact_at(&mut buffer, at).map_err(failed())?;
        digest.add(at, &buffer);
    }
    manifest.sha256 = digest.finish();
    let bytes = manifest.bytes().ok_or(ImageError::TooLarge {
        part: "the manifest",
        bytes: MANIFEST.end,
        most: MANIFEST.end - MANIFEST.start,
    })?;
    file.write_all_at(&bytes, MANIFEST.start).and_then(|()| file.sync_all()).map_err(failed())?;
    fs::rename(&part, output).map_err(failed())
}
