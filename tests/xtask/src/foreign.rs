//! Programs of other processors, run by qemu's user mode: the kernel is told so, for as long as that is needed.

use std::path::Path;

use anyhow::Context as _;

use crate::shell::{command, run as execute};
use crate::test::need;

/// Where the kernel is told what runs programs of other processors.
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// Debian's name of a processor, what runs its programs, and the bytes 4 and 18 of their ELF headers: how wide it is, and which.
const PROCESSORS: [(&str, &str, u8, u8); 2] =
    [("arm64", "qemu-aarch64-static", 2, 0xb7), ("armhf", "qemu-arm-static", 1, 0x28)];

/// The kernel runs programs of a processor, for as long as this is there.
pub struct Foreign {
    name: String,
}

impl Foreign {
    /// By Debian's name of the processor.
    pub fn new(debian: &str) -> anyhow::Result<Self> {
        let known = PROCESSORS.iter().find(|(name, ..)| *name == debian);
        let (_, program, class, machine) = known.with_context(|| format!("nothing here runs programs of {debian}"))?;
        need(&[(program, "qemu-user-static")])?;
        let register = Path::new(BINFMT).join("register");
        if !register.exists() {
            execute(command("mount").args(["-t", "binfmt_misc", "none", BINFMT]))?;
        }
        let foreign = Self { name: format!("holm-{debian}") };
        // What one that was cut off has left.
        foreign.forget();
        // Programs and shared objects, whatever the ABI byte says; opened once (F), and so good in every root.
        let magic =
            format!(r"\x7fELF\x{class:02x}\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x{machine:02x}\x00");
        let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
        let line = format!(":{}:M::{magic}:{mask}:/usr/bin/{program}:F", foreign.name);
        std::fs::write(&register, line)
            .with_context(|| format!("cannot tell the kernel what runs programs of {debian}"))?;
        Ok(foreign)
    }

    fn forget(&self) {
        // Not there: nothing to do.
        let _ = std::fs::write(Path::new(BINFMT).join(&self.name), "-1");
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.forget();
    }
}
