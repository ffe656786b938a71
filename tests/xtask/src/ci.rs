//! `cargo xtask ci`: everything that must hold before a change goes in.

use crate::shell::{cargo, run as execute, there_is};
use crate::{layers, test};

/// Runs all of it, the quick things first.
pub fn run() -> anyhow::Result<()> {
    check(&["fmt", "--all", "--check"])?;
    check(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    layers::run()?;
    test::run()?;
    if there_is("cargo-deny") {
        check(&["deny", "check"])?;
    } else {
        println!("skipped: cargo deny is not installed (cargo install --locked cargo-deny)");
    }
    Ok(())
}

fn check(arguments: &[&str]) -> anyhow::Result<()> {
    execute(&mut cargo(arguments))
}
