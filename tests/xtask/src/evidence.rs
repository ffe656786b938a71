//! `cargo xtask evidence NAME`: proofs that take too long for CI. Their logs are committed in `docs/evidence`.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Context as _, bail};

use crate::shell::{cargo, command, output, root, run as execute};
use crate::test::{MUTANTS, need};
use crate::{conformance, emulate, guest, image, install};

/// A proof: its name, the test that is it, and the variable that makes it long, or another one.
struct Proof {
    name: &'static str,
    test: &'static str,
    variable: &'static str,
    count: &'static str,
    /// Variables that it sets as well.
    with: &'static [(&'static str, &'static str)],
}

/// The image with a kernel of our own.
const TINY: (&str, &str) = ("HOLM_IMAGE_FLAVOUR", "tiny");

/// Programs that compile for the kernel of an image, or the kernel, with their Debian packages.
const COMPILERS: [(&str, &str); 4] = [("make", "build-essential"), ("flex", "flex"), ("bison", "bison"), ("bc", "bc")];

const PROOFS: [Proof; 8] = [
    Proof { name: "kills", test: "kill", variable: "HOLM_KILLS", count: "10000", with: &[] },
    // More than there are: at every commit and every rename.
    Proof { name: "deploy-kills", test: "deploy_kills", variable: "HOLM_DEPLOY_KILLS", count: "1000", with: &[] },
    Proof { name: "power", test: "power", variable: "HOLM_CUTS", count: "10000", with: &[] },
    Proof { name: "image-power", test: "image", variable: "HOLM_IMAGE_CUTS", count: "50", with: &[] },
    // A board whose node never lives; nothing of it is counted.
    Proof { name: "watchdog", test: "watchdog", variable: "HOLM_WATCHDOG", count: "1", with: &[] },
    // All that is tried with cards, on what QEMU has for a Raspberry Pi 3.
    Proof { name: "raspi3b", test: "image", variable: "HOLM_IMAGE_BOARD", count: "rpi3", with: &[] },
    // The same with a kernel of our own, on QEMU's own machine and there.
    Proof { name: "tiny", test: "image", variable: "HOLM_IMAGE_BOARD", count: "qemu-virt", with: &[TINY] },
    Proof { name: "tiny-raspi3b", test: "image", variable: "HOLM_IMAGE_BOARD", count: "rpi3", with: &[TINY] },
];

/// A proof that is a suite of others.
const SUITE: &str = "tuf-conformance";

/// What there is to say, and whether all went well.
type Prove = fn() -> anyhow::Result<(String, bool)>;

/// What is proven without a count: how, by its name.
const OTHERS: [(&str, Prove); 6] = [
    ("arm", emulate::run),
    ("deb", || install::run("amd64")),
    ("deb-arm64", || install::run("arm64")),
    ("deb-armhf", || install::run("armhf")),
    ("guest", || guest::run(&guest::AMD64)),
    ("guest-arm64", || guest::run(&guest::ARM64)),
];

/// Runs the proof `name`, with `count` instead of its own number if given, and writes its log. For the suite, `count` is its folder.
pub fn run(name: &str, count: Option<&str>) -> anyhow::Result<()> {
    if name == SUITE {
        let commit = commit()?;
        let (told, passed) = conformance::run(count)?;
        return write(name, name, &commit, passed, &told);
    }
    if let Some((name, prove)) = OTHERS.iter().find(|(other, _)| *other == name) {
        let commit = commit()?;
        let (told, passed) = prove()?;
        return write(name, name, &commit, passed, &told);
    }
    let Some(proof) = PROOFS.iter().find(|proof| proof.name == name) else {
        let others = OTHERS.iter().map(|(name, _)| *name).chain([SUITE]);
        let names: Vec<&str> = PROOFS.iter().map(|proof| proof.name).chain(others).collect();
        bail!("there is no proof `{name}`: {}", names.join(", "));
    };
    let count = count.unwrap_or(proof.count);
    // As `cargo xtask test` does, so that nothing is compiled twice.
    execute(&mut cargo(&["build", "--workspace", "--bins", "--tests", "--features", MUTANTS]))?;
    if ["image", "watchdog"].contains(&proof.test) {
        emulate::prepare()?;
        image::prepare()?;
        need(&COMPILERS)?;
    }
    let commit = commit()?;
    let arguments = ["test", "--workspace", "--features", MUTANTS, "--test", proof.test];
    let mut running = cargo(&arguments)
        // A test that waits for long is ignored elsewhere.
        .args(["--", "--nocapture", "--test-threads=1", "--include-ignored"])
        .env(proof.variable, count)
        .envs(proof.with.iter().copied())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let mut lines = Vec::new();
    for line in BufReader::new(running.stdout.take().context("cargo has no stdout")?).lines() {
        let line = line.context("cannot read what cargo prints")?;
        // It takes an hour: whoever waits sees how far it is.
        println!("{line}");
        lines.push(line);
    }
    let passed = running.wait().context("cannot wait for cargo")?.success();
    lines.retain(|line| {
        ["by call site", "test ", "cut", "guest: ", "over the air", "FAILED", "seed"]
            .iter()
            .any(|word| line.contains(word))
    });
    write(name, &format!("{name} {count}"), &commit, passed, &lines.join("\n"))
}

/// What is tested: the commit, and whether something has been changed since.
fn commit() -> anyhow::Result<String> {
    let commit = output(command("git").args(["rev-parse", "HEAD"]))?;
    let changed = !output(command("git").args(["status", "--porcelain", "--untracked-files=no"]))?.trim().is_empty();
    Ok(format!("{}{}", commit.trim(), if changed { " with changes" } else { "" }))
}

fn write(name: &str, words: &str, commit: &str, passed: bool, lines: &str) -> anyhow::Result<()> {
    let verdict = if passed { "passed" } else { "FAILED" };
    let log = format!("cargo xtask evidence {words}\ncommit {commit}\n{verdict}\n{lines}\n");
    let folder = root().join("docs/evidence");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(format!("{name}.log"));
    std::fs::write(&path, &log).with_context(|| format!("cannot write {}", path.display()))?;
    print!("{log}");
    if passed { Ok(()) } else { bail!("the proof failed") }
}
