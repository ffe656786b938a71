//! `cargo xtask dist`: the programs as they are shipped, for every kind of board, built on this machine without containers.
//!
//! The C in them (SQLite, zstd, ring) needs a compiler for the target. Debian has one for armv7 with its C library. For
//! musl it has compilers and no headers for another architecture; zig brings clang with the headers of every musl target
//! in one file that pip fetches and checks. It compiles C and nothing else: what links is the `rust-lld` and the musl
//! that come with the Rust target, so that the C library is the one that Rust is tested with.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::flags::Flags;
use crate::shell::{cargo, command, need_target, root, run as execute};
use crate::test::need;
use crate::{deb, image, shell};

/// A kind of machine that programs are shipped for.
pub struct Target {
    /// Rust's name for it.
    pub triple: &'static str,
    /// Debian's name for its architecture.
    pub debian: &'static str,
    c: Compiler,
    /// What `holmd`, stripped, may weigh.
    most: u64,
}

/// What compiles C for a target.
enum Compiler {
    /// The machine's own.
    Host,
    /// Debian's for another architecture: its prefix, its package, and that of its C library's headers, which is only recommended.
    Debian(&'static str, &'static str, &'static str),
    /// zig, under its own name for the target.
    Zig(&'static str),
}

pub const TARGETS: [Target; 3] = [
    Target {
        triple: "aarch64-unknown-linux-musl",
        debian: "arm64",
        c: Compiler::Zig("aarch64-linux-musl"),
        most: 8_000_000,
    },
    Target {
        triple: "armv7-unknown-linux-gnueabihf",
        debian: "armhf",
        c: Compiler::Debian("arm-linux-gnueabihf", "gcc-arm-linux-gnueabihf", "libc6-dev-armhf-cross"),
        most: 10_000_000,
    },
    Target { triple: "x86_64-unknown-linux-gnu", debian: "amd64", c: Compiler::Host, most: 10_000_000 },
];

/// What is built with `dist`, and what it is the profile of: what an event passes through.
pub const AGENT: Program = Program { name: "holmd", package: "holm-agent", profile: "dist" };
/// Optimising these across crates takes longer than anybody would notice at run time.
pub const COMMAND: Program = Program { name: "holm", package: "holm-cli", profile: "release" };
/// What cards start with. Small beside the agent, however it was optimised.
pub const INIT: Program = Program { name: "holm-init", package: "holm-init", profile: "release" };
pub const COMPILER: Program = Program { name: "holm-compile", package: "holm-compiler", profile: "release" };

/// A program that is shipped.
#[derive(Clone, Copy)]
pub struct Program {
    /// Its file.
    pub name: &'static str,
    package: &'static str,
    /// Cargo's profile that it is shipped in.
    pub profile: &'static str,
}

/// `dist [TARGET...]`, or `dist deb`.
pub fn run(mut flags: Flags) -> anyhow::Result<()> {
    let profile = flags.value::<String>("--profile")?;
    let mut words: Vec<String> = std::iter::from_fn(|| flags.word()).collect();
    if words.first().is_some_and(|word| word == "deb") {
        words.remove(0);
        let version = flags.value::<String>("--version")?;
        flags.finish()?;
        for target in chosen(&words)? {
            deb::build(target, profile.as_deref(), version.as_deref())?;
        }
        return Ok(());
    }
    flags.finish()?;
    for target in chosen(&words)? {
        let profile = profile.as_deref().unwrap_or(AGENT.profile);
        let file = program(target, AGENT, profile)?;
        if target.triple == image::TARGET {
            program(target, INIT, INIT.profile)?;
        }
        let bytes = std::fs::metadata(&file).with_context(|| format!("cannot read {}", file.display()))?.len();
        println!("{:>8.2} MB  {}", bytes as f64 / 1e6, file.strip_prefix(root()).unwrap_or(&file).display());
        if profile == AGENT.profile && bytes > target.most {
            println!("            more than the {} MB that it may have", target.most / 1_000_000);
        }
    }
    Ok(())
}

/// The targets of these names, of either kind; all if there are none.
fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Target>> {
    if names.is_empty() {
        return Ok(TARGETS.iter().collect());
    }
    let find = |name: &String| {
        let target = TARGETS.iter().find(|target| target.triple == name || target.debian == name);
        let known = TARGETS.map(|target| format!("{} ({})", target.triple, target.debian)).join(", ");
        target.with_context(|| format!("nothing is shipped for `{name}`: {known}"))
    };
    names.iter().map(find).collect()
}

/// Builds a program and strips it; where it is then.
pub fn program(target: &Target, program: Program, profile: &str) -> anyhow::Result<PathBuf> {
    let built = compile(target, program, profile)?;
    let folder = root().join("target/dist").join(target.triple);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = folder.join(program.name);
    if target.is_host()? {
        execute(command("strip").arg("-o").arg(&file).arg(&built))?;
    } else {
        // The linker has stripped it.
        std::fs::copy(&built, &file).with_context(|| format!("cannot copy {}", built.display()))?;
    }
    Ok(file)
}

/// How the C in the agent is compiled: without the ways of zstd to compress that no level of ours takes, and without
/// tables for unwinding, which stops before it gets to C.
const LEAN_C: &str = "-fno-asynchronous-unwind-tables -DZSTD_EXCLUDE_GREEDY_BLOCK_COMPRESSOR \
    -DZSTD_EXCLUDE_LAZY_BLOCK_COMPRESSOR -DZSTD_EXCLUDE_LAZY2_BLOCK_COMPRESSOR -DZSTD_EXCLUDE_BTLAZY2_BLOCK_COMPRESSOR \
    -DZSTD_EXCLUDE_BTOPT_BLOCK_COMPRESSOR -DZSTD_EXCLUDE_BTULTRA_BLOCK_COMPRESSOR";

/// `holmd` as it is shipped, for this machine.
pub fn agent_for_host() -> anyhow::Result<PathBuf> {
    let host = shell::host()?;
    let target = TARGETS.iter().find(|target| target.triple == host);
    compile(target.with_context(|| format!("nothing is shipped for {host}"))?, AGENT, AGENT.profile)
}

/// Builds a program; where cargo has put it.
pub fn compile(target: &Target, program: Program, profile: &str) -> anyhow::Result<PathBuf> {
    let native = target.is_host()?;
    let mut cargo = cargo(&["build", "--locked", "--profile", profile, "-p", program.package]);
    if profile == AGENT.profile {
        cargo.env(format!("CFLAGS_{}", target.triple.replace('-', "_")), LEAN_C);
    }
    if !native {
        target.cross(&mut cargo)?;
        cargo.args(["--target", target.triple]);
    }
    execute(&mut cargo)?;
    let folder = if profile == "dev" { "debug" } else { profile };
    let built = shell::target_folder().join(if native { "" } else { target.triple }).join(folder).join(program.name);
    if built.is_file() { Ok(built) } else { bail!("cargo has not built {}", built.display()) }
}

impl Target {
    /// Whether this machine is one.
    pub fn is_host(&self) -> anyhow::Result<bool> {
        Ok(shell::host()? == self.triple)
    }

    /// Gets what builds for it, if anything is missing. An error is about this machine, not about the code.
    pub fn need(&self) -> anyhow::Result<()> {
        if self.is_host()? {
            return Ok(());
        }
        need_target(self.triple)?;
        match self.c {
            Compiler::Host => bail!("{} is built on such a machine only", self.triple),
            Compiler::Debian(prefix, package, headers) => {
                let (gcc, header) = (format!("{prefix}-gcc"), format!("/usr/{prefix}/include/stdio.h"));
                need(&[(&gcc, package), (&header, headers)])?;
                if shell::there_is(&gcc) { Ok(()) } else { bail!("{gcc} is not installed") }
            }
            Compiler::Zig(_) => need_zig(),
        }
    }

    /// Tells cargo and the `cc` crate what compiles and links for it.
    fn cross(&self, cargo: &mut Command) -> anyhow::Result<()> {
        self.need()?;
        // Debug information is left out by the profile. Symbols help on the machine that built them.
        cargo.env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
        let name = self.triple.replace('-', "_");
        let linker = format!("CARGO_TARGET_{}_LINKER", name.to_uppercase());
        match self.c {
            Compiler::Host => {}
            Compiler::Debian(prefix, ..) => {
                let gcc = format!("{prefix}-gcc");
                cargo
                    .env(linker, &gcc)
                    .env(format!("CC_{name}"), &gcc)
                    .env(format!("AR_{name}"), format!("{prefix}-ar"));
            }
            Compiler::Zig(zig) => {
                let (cc, ar) = wrap(zig)?;
                cargo.env(linker, "rust-lld").env(format!("CC_{name}"), cc).env(format!("AR_{name}"), ar);
                let cache = root().join(ZIG).join("cache");
                cargo.env("ZIG_GLOBAL_CACHE_DIR", &cache).env("ZIG_LOCAL_CACHE_DIR", &cache);
            }
        }
        Ok(())
    }
}

/// Where zig is kept: tests of functions in C look there too.
const ZIG: &str = "target/tools/zig";
/// Which zig, with what its files must be: it is part of what is shipped.
const ZIG_LOCK: &str = "tests/xtask/zig.txt";

fn zig() -> PathBuf {
    root().join(ZIG).join("ziglang/zig")
}

/// Gets zig, if it is missing or another one.
pub fn need_zig() -> anyhow::Result<()> {
    let lock = std::fs::read(root().join(ZIG_LOCK)).with_context(|| format!("cannot read {ZIG_LOCK}"))?;
    let note = root().join(ZIG).join("lock.txt");
    if zig().is_file() && std::fs::read(&note).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    need(&[("python3", "python3"), ("pip3", "python3-pip")])?;
    let pip = ["-m", "pip", "install", "--quiet", "--upgrade", "--no-deps", "--only-binary=:all:", "--require-hashes"];
    execute(command("python3").args(pip).args(["--root-user-action=ignore", "--target", ZIG, "-r", ZIG_LOCK]))
        .context("zig compiles the C parts for musl, and pip brings it (on Debian: apt-get install python3-pip)")?;
    std::fs::write(&note, lock).with_context(|| format!("cannot write {}", note.display()))
}

/// Programs that are a C compiler and an archiver, as the `cc` crate wants to call them.
fn wrap(target: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
    let zig = zig();
    let zig = zig.display();
    // `cc` says `--target=` in Rust's words, which zig does not know. Without optimisation zig would add checks at run time.
    let cc = format!(
        "#!/bin/sh\nfor word; do\n  shift\n  case \"$word\" in --target=*) ;; *) set -- \"$@\" \"$word\" ;; esac\ndone\n\
         exec '{zig}' cc -target {target} -fno-sanitize=all \"$@\"\n"
    );
    let ar = format!("#!/bin/sh\nexec '{zig}' ar \"$@\"\n");
    let folder = root().join(ZIG).join("bin");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let files = [("cc", cc), ("ar", ar)].map(|(name, script)| (folder.join(format!("{target}-{name}")), script));
    for (path, script) in &files {
        shell::write_program(path, script)?;
    }
    let [(cc, _), (ar, _)] = files;
    Ok((cc, ar))
}
