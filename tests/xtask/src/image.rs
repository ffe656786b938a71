//! What `tests/tests/image.rs` boots: `holm-init` for ARM. Its `holmd` is the one of the other tests for ARM.

use crate::shell::{cargo, need_target, run as execute};
use crate::test::need;

/// What cards are built for.
pub const TARGET: &str = "aarch64-unknown-linux-musl";

/// Builds it, where this machine can be made to. If not, the test finds it missing, and says so.
pub fn prepare() -> anyhow::Result<()> {
    // Cards of a Raspberry Pi have a module of ours.
    need(&[("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")])?;
    if let Err(error) = need_target(TARGET) {
        println!("no holm-init for {TARGET} is built: {error:#}");
        return Ok(());
    }
    // There is no C in it: the linker and the C library that come with the target are enough.
    let mut build = cargo(&["build", "--release", "-p", "holm-init", "--target", TARGET]);
    execute(build.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", "rust-lld"))
}
