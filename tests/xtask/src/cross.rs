//! `cargo xtask cross-check`: `Cross.toml` says what we mean, as `cross` itself reads it, without containers.
//!
//! `cross` gets a container engine that only tells what it was asked to run, and a `rustup` that has everything and adds
//! nothing: it would else change the toolchain. What this cannot show is that the images are there and do the job.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use crate::shell::{cargo, command, root, run as execute, there_is, write_program};
use crate::test;

const TARGETS: [&str; 2] = ["aarch64-unknown-linux-musl", "armv7-unknown-linux-gnueabihf"];

/// Of cross, where it is not installed.
const VERSION: &str = "0.2.5";

const ENGINE: &str = "#!/bin/sh\necho \"engine $*\"\n";

const RUSTUP: &str = "#!/bin/sh\ncase \"$*\" in\n'toolchain list'*) echo 'stable-x86_64-unknown-linux-gnu (default)';;\n\
                      *'target list'*) echo aarch64-unknown-linux-musl; echo armv7-unknown-linux-gnueabihf;;\nesac\n";

/// Checks the file, and that copies with a mistake do not pass.
pub fn run() -> anyhow::Result<()> {
    let tools = root().join("target/tools");
    let own = tools.join("bin");
    if !there_is("cross") && !own.join("cross").is_file() {
        let mut install = cargo(&["install", "--quiet", "--locked", "--debug", "--version", VERSION, "--root"]);
        if execute(install.arg(&tools).arg("cross")).is_err() {
            return test::skip("Cross.toml", "cross is not installed, and cannot be (cargo install --locked cross)");
        }
    }
    let folder = root().join("target/cross-check");
    std::fs::create_dir_all(&folder).context("cannot make the folder of the stubs")?;
    for (name, script) in [("engine", ENGINE), ("rustup", RUSTUP)] {
        write_program(&folder.join(name), script)?;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([folder.clone(), own].into_iter().chain(std::env::split_paths(&path)))?;
    let file = root().join("Cross.toml");
    let text = std::fs::read_to_string(&file).context("cannot read Cross.toml")?;
    for target in TARGETS {
        check(&file, target, &folder, &path)?;
        println!("ok         Cross.toml for {target}");
    }
    let broken: [(&str, String); 3] = [
        ("an unknown key", text.replace("image =", "imaeg =")),
        ("a text without its end", text.replace("\"ghcr.io", "ghcr.io")),
        ("another target", text.replace("[target.aarch64", "[target.arch64")),
    ];
    for (what, broken) in broken {
        ensure!(broken != text, "nothing was broken in the copy of Cross.toml with {what}");
        let copy = folder.join("Cross.toml");
        std::fs::write(&copy, broken).with_context(|| format!("cannot write {}", copy.display()))?;
        if TARGETS.iter().all(|target| check(&copy, target, &folder, &path).is_ok()) {
            bail!("a copy of Cross.toml with {what} passes");
        }
        println!("ok         a copy with {what} is refused");
    }
    Ok(())
}

fn check(file: &PathBuf, target: &str, folder: &Path, path: &std::ffi::OsStr) -> anyhow::Result<()> {
    let output = command("cross")
        .args(["build", "--target", target, "-p", "holm-agent"])
        .env("PATH", path)
        .env("CROSS_CONFIG", file)
        .env("CROSS_CONTAINER_ENGINE", folder.join("engine"))
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .output()
        .context("cannot run cross")?;
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    ensure!(output.status.success(), "cross does not take {} for {target}:\n{said}", file.display());
    ensure!(!said.contains("unused key"), "{} has keys that cross does not know:\n{said}", file.display());
    // Its own image, and not the one that cross takes where the file says nothing.
    let image = std::fs::read_to_string(file)
        .unwrap_or_default()
        .split(&format!("[target.{target}]"))
        .nth(1)
        .and_then(|rest| rest.split('"').nth(1).map(str::to_owned));
    let image = image.with_context(|| format!("{} names no image for {target}", file.display()))?;
    let runs =
        said.lines().any(|line| line.starts_with("engine run") && line.contains(&image) && line.contains("holm-agent"));
    ensure!(runs, "cross would not build in {image}:\n{said}");
    Ok(())
}
