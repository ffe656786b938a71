//! An image, from Debian's packages and our programs.
//!
//! # Same inputs, same bytes
//!
//! Nothing that goes in has a time, an owner or an order of its own: the archives and the FAT are written here, `mksquashfs`
//! and `mke2fs` are told the time and the identifiers. What went in is in the manifest.

mod board;
mod cpio;
mod debian;
mod linked;
mod modules;
mod raspberry;
mod system;
mod tiny;
mod tryboot;

use std::fs::{self, File};
use std::io::Cursor;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use holm_init::boot::{CHOICE, TRIAL_CHOICE};
use holm_init::mounts::{MODULES, RADIO_MODULES};
use holm_init::slots::Slot;

pub use self::board::Board;
use self::board::Radio;
use self::cpio::Archive;
use self::debian::Debian;
pub(crate) use self::debian::need;
use self::modules::{Module, Modules};
use self::raspberry::{Named, Parts};
use self::system::Put;
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
    /// A kernel of our own, with what the board needs and no more, and no radio.
    pub tiny: bool,
    /// Talk on the serial line.
    pub console: bool,
    /// How long a system that is on trial must run; by default as init says.
    pub healthy_for: Option<String>,
    /// When it must have; by default as init says.
    pub healthy_within: Option<String>,
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
        let taken = self.packages(say)?;
        say("initramfs");
        let (initramfs, module_bytes) = self.initramfs(&taken.modules)?;
        say("system");
        let work = tempfile::tempdir().map_err(ImageError::file("make a folder in", &std::env::temp_dir()))?;
        let system = system::squashfs(self, work.path(), taken.later.iter().chain(taken.parts.system()))?;
        fits("the system", system.len() as u64, SYSTEM)?;
        say("data");
        let data = system::ext4(work.path(), DATA)?;
        say("image");
        let size = |path: &Path| fs::metadata(path).map(|meta| meta.len()).map_err(ImageError::file("look at", path));
        let put = |files: &[Put]| files.iter().map(|file| file.bytes.len() as u64).sum();
        let named = |files: &Named| files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        let parts = [
            ("kernel", taken.kernel.len() as u64),
            ("firmware of the board", named(&taken.parts.firmware)),
            ("device trees", named(&taken.parts.trees)),
            ("initramfs", initramfs.len() as u64),
            ("initramfs: modules, unpacked", module_bytes),
            ("initramfs: holm-init, unpacked", size(&self.init)?),
            ("system", system.len() as u64),
            ("system: holmd, unpacked", size(&self.holmd)?),
            ("system: modules, unpacked", put(&taken.later)),
            ("system: the radio's firmware, unpacked", put(&taken.parts.radio)),
            ("system: wpa_supplicant and its libraries, unpacked", put(&taken.parts.supplicant)),
        ];
        let parts = parts.into_iter().filter(|(_, bytes)| *bytes > 0);
        manifest.parts = parts.map(|(name, bytes)| Part { name: name.to_owned(), bytes }).collect();
        manifest.wifi = self.radio().is_some();
        let boot = self.boot(&taken, &initramfs)?;
        manifest.packages = taken.packages;
        assemble(output, &mut manifest, &boot, &system, &data)?;
        Ok(manifest)
    }

    /// Everything that comes from Debian. Its folder is free for others afterwards.
    fn packages(&self, say: &mut dyn FnMut(&str)) -> Result<Taken, ImageError> {
        let debian = Debian::new(&self.packages, self.board.debian)?;
        debian.index(self.fresh)?;
        if self.tiny { self.own_kernel(&debian, say) } else { self.debian_kernel(&debian) }
    }

    /// With a kernel that is built here, and has in it what others have as modules.
    fn own_kernel(&self, debian: &Debian, say: &mut dyn FnMut(&str)) -> Result<Taken, ImageError> {
        let (kernel, trees, package) = tiny::kernel(debian, say)?;
        let mut parts = Parts::default();
        if let Some(raspberry) = &self.board.raspberry {
            parts.boot(raspberry, debian, &trees)?;
        }
        let packages = [package].into_iter().chain(std::mem::take(&mut parts.packages)).collect();
        Ok(Taken { packages, kernel, modules: Vec::new(), later: Vec::new(), parts })
    }

    fn debian_kernel(&self, debian: &Debian) -> Result<Taken, ImageError> {
        let name = debian.depends(&format!("linux-image-{}", self.board.debian))?;
        let (package, folder) = debian.files(&name)?;
        let all = Modules::of(&folder, &package.name)?;
        let modules = all.closure(self.board.all_modules())?;
        let (mut later, mut there, mut headers) = (Vec::new(), modules.clone(), Vec::new());
        let radio = self.radio().map(|radio| radio.modules).unwrap_or_default();
        for (list, wanted) in [(MODULES, self.board.later), (RADIO_MODULES, radio)] {
            let mut found = all.closure(wanted.iter().copied())?;
            found.retain(|module| !there.contains(module));
            if list == MODULES && self.board.raspberry.is_some() {
                let (module, from) = tryboot::module(debian, &package.name)?;
                found.push(module);
                headers = from;
            }
            if found.is_empty() {
                continue;
            }
            let plain = |path: &str, bytes| Put { path: format!("usr{path}"), bytes, program: false };
            later.push(plain(list, load(&found).into_bytes()));
            later.extend(found.iter().map(|module| plain(&path(module), module.bytes.clone())));
            there.extend(found);
        }
        let mut parts = Parts::default();
        if let Some(raspberry) = &self.board.raspberry {
            let trees = folder.join("usr/lib").join(&package.name).join("broadcom");
            parts.boot(raspberry, debian, &trees)?;
        }
        if let Some(radio) = &self.radio() {
            parts.radio(radio, debian, self.board.architecture)?;
        }
        let kernel = read_kernel(&folder, &package.name)?;
        let packages = [package].into_iter().chain(headers).chain(std::mem::take(&mut parts.packages)).collect();
        Ok(Taken { packages, kernel, modules, later, parts })
    }

    /// The board's radio, if the kernel has a driver for it.
    fn radio(&self) -> Option<Radio> {
        self.board.radio.filter(|_| !self.tiny)
    }

    /// The first root, and how many bytes of it are modules.
    fn initramfs(&self, modules: &[Module]) -> Result<(Vec<u8>, u64), ImageError> {
        let mut archive = Archive::default();
        for folder in ["dev", "proc", "sys", "run", "system", "lib", "lib/modules"] {
            archive.folder(folder);
        }
        archive.file(MODULES.trim_start_matches('/'), load(modules).as_bytes());
        for module in modules {
            archive.file(path(module).trim_start_matches('/'), &module.bytes);
        }
        archive.program("init", &fs::read(&self.init).map_err(ImageError::file("read", &self.init))?);
        let packed = zstd::bulk::compress(&archive.finish(), LEVEL);
        let packed = packed.map_err(ImageError::file("compress", Path::new(INITRAMFS)))?;
        Ok((packed, modules.iter().map(|module| module.bytes.len() as u64).sum()))
    }

    /// The FAT partition.
    fn boot(&self, taken: &Taken, initramfs: &[u8]) -> Result<Vec<u8>, ImageError> {
        let failed = || ImageError::file("make", Path::new("the FAT partition"));
        let mut partition = Cursor::new(vec![0; usize::try_from(BOOT).unwrap_or_default()]);
        fat::format(&mut partition).map_err(failed())?;
        let slot = Slot::A;
        let choices = [(CHOICE, slot), (TRIAL_CHOICE, slot.other())];
        let choices = choices.map(|(name, slot)| (name.to_owned(), self.board.choice(slot, self.console)));
        let line = self.command_line(slot);
        let in_slot = |name: &str| format!("{slot}/{name}");
        let own = [(KERNEL, &*taken.kernel), (INITRAMFS, initramfs), (COMMAND_LINE, line.as_bytes())];
        let own = own.map(|(name, bytes)| (in_slot(name), bytes));
        let choices = choices.iter().map(|(name, text)| (name.clone(), text.as_bytes()));
        let firmware = taken.parts.firmware.iter().map(|(name, bytes)| (name.clone(), &**bytes));
        let trees = taken.parts.trees.iter().map(|(name, bytes)| (in_slot(name), &**bytes));
        let files: Vec<(String, &[u8])> = choices.chain(firmware).chain(own).chain(trees).collect();
        let files = files.iter().map(|(name, bytes)| (&**name, *bytes));
        fat::put(&mut partition, files).map_err(failed())?;
        Ok(partition.into_inner())
    }

    /// Without a serial line that is asked for, the kernel talks to a screen that no one has, or to nothing, and nobody can talk
    /// to it.
    fn command_line(&self, slot: Slot) -> String {
        let console = match (self.console, self.tiny) {
            (true, _) => format!("console={},115200 loglevel=7", self.board.console),
            (false, false) => "console=tty0 quiet loglevel=3".to_owned(),
            // It has no screens. Without any console, init would begin without files 0 to 2.
            (false, true) => "console=ttynull quiet loglevel=3".to_owned(),
        };
        let words = [("holm.healthy", &self.healthy_for), ("holm.healthy-within", &self.healthy_within)];
        let healthy: String =
            words.iter().filter_map(|(key, time)| Some(format!(" {key}={}", time.as_ref()?))).collect();
        format!("{console} panic=10 init_on_alloc=1 holm.slot={slot}{healthy}\n")
    }
}

/// An image in which nothing is that boots, for tests of what is done with images.
#[doc(hidden)]
pub fn small(output: &Path, board: &str) -> Result<Manifest, ImageError> {
    let mut manifest = Manifest::new(board, "aarch64");
    let mut partition = Cursor::new(vec![0; usize::try_from(BOOT).unwrap_or_default()]);
    let choice = self::board::VIRT.choice(Slot::A, false);
    fat::format(&mut partition)
        .and_then(|()| fat::put(&mut partition, [(CHOICE, choice.as_bytes())]))
        .map_err(ImageError::file("make", output))?;
    assemble(output, &mut manifest, &partition.into_inner(), b"a system", b"data")?;
    Ok(manifest)
}

/// What an image takes from Debian.
struct Taken {
    packages: Vec<Package>,
    kernel: Vec<u8>,
    modules: Vec<Module>,
    /// Modules in the system, with the lists of them.
    later: Vec<Put>,
    parts: Parts,
}

/// Where a module is, in the initramfs and in the system alike.
fn path(module: &Module) -> String {
    format!("/lib/modules/{}.ko", module.name)
}

/// The list of them, in their order.
fn load(modules: &[Module]) -> String {
    modules.iter().map(|module| format!("{}\n", path(module))).collect()
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
