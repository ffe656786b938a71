//! The module that asks a Raspberry Pi's firmware for a trial boot (`tryboot.c`), for the kernel of the image.
//!
//! Debian's kernel restarts without a word to the firmware, so a slot on trial would never be booted. The module is one file:
//! it is compiled and linked here as kbuild would, whose Makefiles name places that only an installed package has. What it
//! calls is named in [`CALLS`], and the kernel refuses it if a version of that is not its own.

use std::fs;
use std::process::Command;

use super::debian::{Debian, need, run};
use super::modules::Module;
use crate::{ImageError, Package};

/// It, which is a part of the kernel of `--tiny` images.
pub(super) const SOURCE: &str = include_str!("tryboot.c");

/// Its name in the kernel.
const NAME: &str = "holm_tryboot";

/// What it takes from the kernel, the layout of a module first.
const CALLS: [&str; 7] = [
    "module_layout",
    "_printk",
    "of_find_compatible_node",
    "register_reboot_notifier",
    "rpi_firmware_get",
    "rpi_firmware_property",
    "strstr",
];

/// How the kernel is compiled, as far as it concerns what two files share. No protection of the stack: where the kernel keeps
/// its canary depends on its configuration, and there is no array on the stack here.
const FLAGS: [&str; 18] = [
    "-nostdinc",
    "-D__KERNEL__",
    "-DMODULE",
    "-std=gnu11",
    "-O2",
    "-Wall",
    "-Werror",
    "-fshort-wchar",
    "-funsigned-char",
    "-fno-common",
    "-fno-PIE",
    "-fno-strict-aliasing",
    "-fno-strict-overflow",
    "-fno-delete-null-pointer-checks",
    "-fno-asynchronous-unwind-tables",
    "-fno-stack-protector",
    "-mgeneral-regs-only",
    "-mbranch-protection=pac-ret",
];

/// Makes it for the kernel of a package, with that kernel's headers, which are told too.
pub(super) fn module(debian: &Debian, kernel: &str) -> Result<(Module, Vec<Package>), ImageError> {
    let compiler = need("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")?;
    let headers = kernel.replacen("linux-image-", "linux-headers-", 1);
    let names = debian.needs(&headers)?;
    let common = names.into_iter().find(|name| name.starts_with("linux-headers-") && name.ends_with("-common"));
    let common = common
        .ok_or_else(|| ImageError::Missing { package: headers.clone(), what: "headers to depend on".to_owned() })?;
    let (own, own_folder) = debian.files(&headers)?;
    let (shared, shared_folder) = debian.files(&common)?;
    let (a, c) = (own_folder.join("usr/src").join(&headers), shared_folder.join("usr/src").join(&common));
    let symbols = a.join("Module.symvers");
    let symbols = fs::read_to_string(&symbols).map_err(ImageError::file("read", &symbols))?;
    let versions = versions(&symbols, &headers)?;
    let work = tempfile::tempdir().map_err(ImageError::file("make a folder in", &std::env::temp_dir()))?;
    let source = work.path().join("tryboot.c");
    fs::write(&source, SOURCE).map_err(ImageError::file("write", &source))?;
    let mut compile = Command::new(&compiler);
    compile.current_dir(work.path()).env("LC_ALL", "C").args(FLAGS);
    for folder in [
        c.join("arch/arm64/include"),
        a.join("arch/arm64/include/generated"),
        c.join("include"),
        a.join("include"),
        c.join("arch/arm64/include/uapi"),
        a.join("arch/arm64/include/generated/uapi"),
        c.join("include/uapi"),
        a.join("include/generated/uapi"),
    ] {
        compile.arg("-I").arg(folder);
    }
    for file in ["compiler-version.h", "kconfig.h", "compiler_types.h"] {
        compile.arg("-include").arg(c.join("include/linux").join(file));
    }
    for (name, value) in [
        ("KBUILD_BASENAME", format!("\"{NAME}\"")),
        ("KBUILD_MODNAME", format!("\"{NAME}\"")),
        ("__KBUILD_MODNAME", format!("kmod_{NAME}")),
        ("VERSIONS", versions),
    ] {
        compile.arg(format!("-D{name}={value}"));
    }
    run(compile.args(["-c", "tryboot.c", "-o", "tryboot.o"]))?;
    let mut link = Command::new(&compiler);
    // The script makes the sections that the kernel wants of a module.
    link.current_dir(work.path()).args(["-r", "-nostdlib", "-Wl,--build-id=none", "-Wl,-T"]);
    run(link.arg(a.join("arch/arm64/module.lds")).args(["-o", "tryboot.ko", "tryboot.o"]))?;
    let module = work.path().join("tryboot.ko");
    let bytes = fs::read(&module).map_err(ImageError::file("read", &module))?;
    Ok((Module { name: NAME.to_owned(), bytes }, vec![own, shared]))
}

/// The kernel's versions of what is called, as C.
fn versions(symbols: &str, package: &str) -> Result<String, ImageError> {
    let mut text = String::new();
    for call in CALLS {
        let line = symbols.lines().find(|line| line.split('\t').nth(1) == Some(call));
        let version = line.and_then(|line| line.split('\t').next());
        let version = version
            .ok_or_else(|| ImageError::Missing { package: package.to_owned(), what: format!("symbol {call}") })?;
        text.push_str(&format!("{{{version},\"{call}\"}},"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_versions_are_found_and_one_that_is_missing_is_told() {
        let line = |call: &str| format!("0x0000abcd\t{call}\tvmlinux\tEXPORT_SYMBOL\t\n");
        let symbols: String = CALLS.iter().map(|call| line(call)).collect();
        let text = versions(&symbols, "linux-headers").unwrap();
        assert!(text.starts_with("{0x0000abcd,\"module_layout\"},") && text.ends_with("\"strstr\"},"), "{text}");
        let error = versions(&line("module_layout"), "linux-headers").unwrap_err();
        assert_eq!(error.to_string(), "linux-headers has no symbol _printk");
    }
}
