//! What needs another machine, on this one: `holmd` for ARM under qemu's user mode.

use std::path::Path;

use anyhow::Context as _;

use crate::dist::{self, AGENT, TARGETS, Target};
use crate::shell::{cargo, root};
use crate::test::{MUTANTS, need};

/// Cargo's profile of what is as fast as what is shipped, or nearly, and built in a third of the time.
const PROFILE: &str = "release";

/// What `tests/tests/arm.rs` runs in `cargo xtask test`, in cargo's profiles: the first is in the cards that are booted too, and with the
/// second there is nothing but whether it works.
const USUAL: [(&str, &str); 2] = [("aarch64-unknown-linux-musl", PROFILE), ("armv7-unknown-linux-gnueabihf", "dev")];

/// Builds that, where this machine can be made to. If not, the test finds it missing, and says so.
pub fn prepare() -> anyhow::Result<()> {
    for (triple, profile) in USUAL {
        let target = TARGETS.iter().find(|target| target.triple == triple).context("nothing is shipped for it")?;
        match equip(target) {
            Ok(()) => drop(dist::compile(target, AGENT, profile)?),
            Err(error) => println!("no holmd for {triple} is built: {error:#}"),
        }
    }
    Ok(())
}

fn equip(target: &Target) -> anyhow::Result<()> {
    need(&[("qemu-aarch64-static", "qemu-user-static")])?;
    target.need()
}

/// Runs the test on every kind of ARM, as fast as it can be. What there is to say, and whether all went well.
pub fn run() -> anyhow::Result<(String, bool)> {
    let mut lines = Vec::new();
    let mut passed = true;
    for target in TARGETS.iter().filter(|target| !target.is_host().unwrap_or(true)) {
        equip(target)?;
        let holmd = dist::compile(target, AGENT, PROFILE)?;
        let skips = root().join("target/skips-arm.txt");
        std::fs::write(&skips, "").context("cannot make the list of skips")?;
        let arch = target.triple.split('-').next().unwrap_or_default();
        let mut test =
            cargo(&["test", "--workspace", "--features", MUTANTS, "--test", "arm", arch, "--", "--nocapture"]);
        let output = test.env("HOLM_ARM", PROFILE).env("HOLM_SKIPS", &skips).output().context("cannot run cargo")?;
        let skipped = std::fs::read_to_string(&skips).unwrap_or_default();
        let good = output.status.success() && skipped.is_empty();
        passed &= good;
        let said = String::from_utf8_lossy(&output.stdout);
        let verdict = if good { "ok" } else { "FAILED" };
        lines.push(format!("{} ({:.1} MB): {verdict}{}", target.triple, megabytes(&holmd), seconds(&said)));
        if !good {
            lines.push(skipped);
            lines.push(said.into_owned());
            lines.push(String::from_utf8_lossy(&output.stderr).into_owned());
        }
    }
    Ok((lines.join("\n"), passed))
}

/// How long the tests took, as their harness says it.
fn seconds(said: &str) -> String {
    said.rsplit_once("finished in ").map(|(_, rest)| format!(", in {}", rest.trim())).unwrap_or_default()
}

fn megabytes(file: &Path) -> f64 {
    std::fs::metadata(file).map_or(0.0, |metadata| metadata.len() as f64 / 1e6)
}
