//! `cargo xtask ci`: everything that must hold before a change goes in.

use crate::shell::{cargo, run as execute, there_is};
use crate::{cross, layers, test};

/// Runs all of it, the quick things first.
pub fn run() -> anyhow::Result<()> {
    check(&["fmt", "--all", "--check"])?;
    check(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    layers::run()?;
    test::run()?;
    cross::run()?;
    if !there_is("cargo-deny") {
        return test::skip("cargo deny", "it is not installed (cargo install --locked cargo-deny)");
    }
    check(&["deny", "check", "bans", "licenses", "sources"])?;
    if check(&["deny", "fetch", "db"]).is_err() {
        return test::skip("cargo deny advisories", "the advisory database cannot be fetched");
    }
    check(&["deny", "--offline", "check", "advisories"])
}

fn check(arguments: &[&str]) -> anyhow::Result<()> {
    execute(&mut cargo(arguments))
}
