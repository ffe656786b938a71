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
    /// An aarch64, with a static `holmd`. An error says why it is not to be had here.
    pub fn aarch64() -> Result<Self, String> {
        Self::get("aarch64-unknown-linux-musl", "release", "a64-small-v1", &["qemu-aarch64-static"])
    }

    /// An armv7, which interprets functions. An error says why it is not to be had here.
    pub fn armv7() -> Result<Self, String> {
        // The C library that comes with Debian's compiler for it.
        let qemu = ["qemu-arm-static", "-L", "/usr/arm-linux-gnueabihf"];
        Self::get("armv7-unknown-linux-gnueabihf", "debug", "pulley32-v1", &qemu)
    }

    /// With the `holmd` that cargo has put into this folder, or into the one that `HOLM_ARM` names.
    fn get(triple: &str, folder: &str, profile: &'static str, qemu: &[&str]) -> Result<Self, String> {
        let folder = std::env::var("HOLM_ARM").unwrap_or_else(|_| folder.to_owned());
        if let Err(error) = Command::new(qemu[0]).arg("--version").output() {
            return Err(format!("{} cannot be run: {error}", qemu[0]));
        }
        let target = binary("holmd").ancestors().nth(2).unwrap().to_owned();
        let holmd = target.join(triple).join(folder).join("holmd");
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
