//! The kernel of `--tiny` images: Debian's source, configured by `tiny.config` and nothing else, with the asking for trials
//! (`tryboot.c`) in it.
//!
//! It is built in a folder beside the packages, which is deleted afterwards, and kept under a digest of all that it is made of:
//! another image for any board takes it as it is. Who built it, when and where is not in it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use super::board::BOARDS;
use super::debian::{Debian, need, run};
use super::tryboot;
use crate::{ImageError, Package, hex};

/// Debian's package with the source.
const SOURCE: &str = "linux-source-6.1";

/// What is in the kernel; all else is not.
const FRAGMENT: &str = include_str!("tiny.config");

/// Programs that build it, with the packages of Debian that have them.
const PROGRAMS: [(&str, &str); 7] = [
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    ("make", "build-essential"),
    // For the programs that configure and build it.
    ("gcc", "build-essential"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("xz", "xz-utils"),
];

/// Where the folder of the kernel has the image, its configuration and the device trees.
const KERNEL: &str = "Image";
const CONFIG: &str = "config";

/// The kernel, the folder with the device trees that belong to it, and the package that both are from.
pub(super) fn kernel(debian: &Debian, say: &mut dyn FnMut(&str)) -> Result<(Vec<u8>, PathBuf, Package), ImageError> {
    for (program, package) in PROGRAMS {
        need(program, package)?;
    }
    let package = debian.known(SOURCE)?;
    let kept = debian.place(&format!("tiny_{}", made_of(&package)?));
    if !kept.exists() {
        say("kernel from its source, once; that takes some minutes");
        let work = debian.place("building");
        let _ = fs::remove_dir_all(&work);
        let built = build(&debian.deb(&package)?, &work);
        let part = kept.with_extension("part");
        let built = built.and_then(|source| keep(&source, &part));
        // More than a gigabyte. What cannot be deleted now is before the next one.
        let _ = fs::remove_dir_all(&work);
        built.and_then(|()| fs::rename(&part, &kept).map_err(ImageError::file("rename", &part)))?;
    }
    let image = kept.join(KERNEL);
    let bytes = fs::read(&image).map_err(ImageError::file("read", &image))?;
    Ok((bytes, kept, package))
}

/// A digest of everything that makes a difference.
fn made_of(package: &Package) -> Result<String, ImageError> {
    let mut digest = Sha256::new();
    for text in [&*package.sha256, FRAGMENT, tryboot::SOURCE] {
        digest.update(text);
        digest.update([0]);
    }
    for program in ["gcc", "ld"] {
        let version = run(Command::new(format!("aarch64-linux-gnu-{program}")).arg("--version").env("LC_ALL", "C"))?;
        digest.update(version.lines().next().unwrap_or_default());
        digest.update([0]);
    }
    trees().for_each(|tree| digest.update(tree));
    Ok(hex(&digest.finalize()).get(..16).unwrap_or_default().to_owned())
}

/// The device trees of all boards.
fn trees() -> impl Iterator<Item = &'static str> {
    BOARDS.into_iter().filter_map(|board| board.raspberry).flat_map(|raspberry| raspberry.trees.iter().copied())
}

/// Builds it in a folder; says where the source was unpacked.
fn build(deb: &Path, work: &Path) -> Result<PathBuf, ImageError> {
    run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(work))?;
    let archive = work.join("usr/src").join(format!("{SOURCE}.tar.xz"));
    run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(work))?;
    let source = work.join(SOURCE);
    let firmware = source.join("drivers/firmware");
    let (file, list, fragment) = (firmware.join("holm-tryboot.c"), firmware.join("Makefile"), work.join("fragment"));
    fs::write(&file, tryboot::SOURCE).map_err(ImageError::file("write", &file))?;
    let added = File::options().append(true).open(&list);
    added
        .and_then(|mut list| list.write_all(b"obj-y += holm-tryboot.o\n"))
        .map_err(ImageError::file("write", &list))?;
    fs::write(&fragment, FRAGMENT).map_err(ImageError::file("write", &fragment))?;
    // As `make tinyconfig` does it, with our list in place of the kernel's.
    run(make(&source).env("KCONFIG_ALLCONFIG", &fragment).arg("allnoconfig"))?;
    let config = source.join(".config");
    let config = fs::read_to_string(&config).map_err(ImageError::file("read", &config))?;
    let options = dropped(FRAGMENT, &config);
    if !options.is_empty() {
        return Err(ImageError::Dropped { package: SOURCE.to_owned(), options });
    }
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let trees = trees().map(|tree| format!("broadcom/{tree}"));
    run(make(&source).arg(format!("-j{jobs}")).arg(KERNEL).args(trees))?;
    Ok(source)
}

/// Nothing of the caller's surroundings reaches it, and nothing of where and when it runs reaches the kernel.
fn make(source: &Path) -> Command {
    let mut command = Command::new("make");
    command.current_dir(source).arg("-s").env_clear();
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    for (name, value) in [
        ("LC_ALL", "C"),
        ("ARCH", "arm64"),
        ("CROSS_COMPILE", "aarch64-linux-gnu-"),
        // The time of everything in an image, which the kernel says as it is written here.
        ("KBUILD_BUILD_TIMESTAMP", "Sat Jun 10 00:00:00 UTC 2023"),
        ("KBUILD_BUILD_USER", "holm"),
        ("KBUILD_BUILD_HOST", "holm"),
        ("KBUILD_BUILD_VERSION", "1"),
    ] {
        command.env(name, value);
    }
    command
}

/// The lines that the kernel did not take: it leaves out what something is missing for, without a word.
fn dropped(fragment: &str, config: &str) -> Vec<String> {
    let set = |line: &&str| match line.strip_suffix("=n") {
        // What is off is not mentioned, or in a comment.
        Some(name) => config.lines().any(|set| set.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))),
        None => !config.lines().any(|set| set == *line),
    };
    options(fragment).filter(set).map(str::to_owned).collect()
}

/// The lines of a fragment that say something.
fn options(fragment: &str) -> impl Iterator<Item = &str> {
    fragment.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Puts what is needed of a built kernel into a folder of its own.
fn keep(source: &Path, to: &Path) -> Result<(), ImageError> {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).map_err(ImageError::file("make the folder", to))?;
    let boot = Path::new("arch/arm64/boot");
    let own = [(boot.join(KERNEL), KERNEL), (".config".into(), CONFIG)];
    let trees = trees().map(|tree| (boot.join("dts/broadcom").join(tree), tree));
    own.into_iter().chain(trees).try_for_each(|(from, name)| {
        let from = source.join(from);
        fs::copy(&from, to.join(name)).map(drop).map_err(ImageError::file("copy", &from))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fragment_says_each_thing_once() {
        let mut names = std::collections::BTreeSet::new();
        for line in options(FRAGMENT) {
            let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("no value: {line}"));
            let name_is_good = name.strip_prefix("CONFIG_").is_some_and(|name| {
                !name.is_empty()
                    && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
            });
            let quoted = value.len() > 1 && value.starts_with('"') && value.ends_with('"');
            let value_is_good = ["y", "n"].contains(&value) || value.parse::<u32>().is_ok() || quoted;
            assert!(name_is_good && value_is_good, "{line}");
            assert!(names.insert(name), "twice: {line}");
        }
    }

    #[test]
    fn a_line_that_the_kernel_drops_is_named() {
        let fragment = "# Why.\nCONFIG_A=y\nCONFIG_B=n\nCONFIG_C=\"x\"\n\nCONFIG_D=n\nCONFIG_E=n\n";
        let taken = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"x\"\nCONFIG_EE=y\n";
        assert_eq!(dropped(fragment, taken), Vec::<String>::new());
        let other = "# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_C=\"y\"\nCONFIG_E=12\n";
        assert_eq!(dropped(fragment, other), ["CONFIG_A=y", "CONFIG_B=n", "CONFIG_C=\"x\"", "CONFIG_E=n"]);
        let error = ImageError::Dropped { package: SOURCE.to_owned(), options: dropped(fragment, other) }.to_string();
        assert!(
            error.starts_with("linux-source-6.1 does not take these lines of tiny.config:\n  CONFIG_A=y\n"),
            "{error}"
        );
    }
}
