//! `holmd` as it is built for other machines, run by qemu's user mode.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::node::{Node, Start, binary};

/// A kind of machine that this one is not.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The engine profile that functions are compiled for.
    pub profile: &'static str,
    /// qemu, with its arguments.
    qemu: Vec<String>,
    holmd: PathBuf,
}

impl Machine {
    /// The machine that `HOLM_ARM` names by Rust's name for it, by default an aarch64 with a static `holmd`. An error says
    /// why it is not to be had here.
    pub fn get() -> Result<Self, String> {
        let triple = std::env::var("HOLM_ARM").unwrap_or_else(|_| "aarch64-unknown-linux-musl".into());
        let (profile, qemu): (_, &[&str]) = match &*triple {
            "aarch64-unknown-linux-musl" => ("a64-small-v1", &["qemu-aarch64-static"]),
            // The C library that comes with Debian's compiler for it.
            "armv7-unknown-linux-gnueabihf" => ("pulley32-v1", &["qemu-arm-static", "-L", "/usr/arm-linux-gnueabihf"]),
            _ => panic!("HOLM_ARM names no machine that is known: {triple}"),
        };
        if let Err(error) = Command::new(qemu[0]).arg("--version").output() {
            return Err(format!("{} cannot be run: {error}", qemu[0]));
        }
        let target = binary("holmd").ancestors().nth(2).unwrap().to_owned();
        let holmd = target.join(&triple).join("release/holmd");
        if !holmd.is_file() {
            return Err(format!("{} is not built", holmd.display()));
        }
        Ok(Self { profile, qemu: qemu.iter().map(|&word| word.to_owned()).collect(), holmd })
    }

    /// `holmd` with these words, on that machine.
    pub fn holmd(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.qemu[0]);
        command.args(&self.qemu[1..]).arg(&self.holmd).args(words);
        command
    }

    /// Starts a node on that machine.
    pub fn start(&self, data: &Path, config: &str) -> Node {
        Start { config, under: &self.qemu, holmd: Some(&self.holmd), ..Start::new(data) }.run()
    }
}
