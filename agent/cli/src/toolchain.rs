//! What a language needs on this machine: whether it is there, and how to get it.

use std::path::Path;
use std::process::{Command, Stdio};

/// Rust's target for components.
const TARGET: &str = "wasm32-wasip2";

/// The oldest compiler that the SDK builds with: (major, minor).
const RUST: (u32, u32) = (1, 95);

/// One thing that was looked for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Finding {
    /// What.
    pub(crate) what: String,
    /// What was found, or why it will not do.
    pub(crate) found: String,
    /// What to do about it; `None` where it is as it should be.
    pub(crate) fix: Option<String>,
}

impl Finding {
    pub(crate) fn good(what: &str, found: impl Into<String>) -> Self {
        Self { what: what.to_owned(), found: found.into(), fix: None }
    }

    pub(crate) fn bad(what: &str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.to_owned(), found: found.into(), fix: Some(fix.into()) }
    }
}

/// What a program says on stdout; `None` if it cannot be run, or fails.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Rust's tools.
pub(crate) fn rust() -> Vec<Finding> {
    let install = "install Rust from https://rustup.rs, or with your system's packages";
    let mut findings = Vec::new();
    match output("rustc", &["--version"]) {
        Some(version) if is_old(&version) => {
            let (major, minor) = RUST;
            findings.push(Finding::bad(
                "rustc",
                format!("{version}, older than {major}.{minor}"),
                "rustup update stable",
            ));
        }
        Some(version) => findings.push(Finding::good("rustc", version)),
        None => findings.push(Finding::bad("rustc", "not found", install)),
    }
    match output("cargo", &["--version"]) {
        Some(version) => findings.push(Finding::good("cargo", version)),
        None => findings.push(Finding::bad("cargo", "not found", install)),
    }
    let libraries = output("rustc", &["--print", "target-libdir", "--target", TARGET]);
    findings.push(match libraries {
        Some(folder) if Path::new(&folder).is_dir() => Finding::good(TARGET, "installed"),
        _ => Finding::bad(TARGET, "not installed", format!("rustup target add {TARGET}")),
    });
    findings
}

/// Whether `rustc 1.94.1 (...)` is too old. What cannot be read is believed to be new.
fn is_old(version: &str) -> bool {
    let mut numbers = version.split_whitespace().nth(1).unwrap_or_default().split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < RUST,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_compilers_are_told_from_new_ones() {
        for (version, old) in [
            ("rustc 1.94.1 (abc 2026-01-01)", true),
            ("rustc 1.95.0 (abc 2026-04-01)", false),
            ("rustc 2.0.0-nightly", false),
            ("something else", false),
        ] {
            assert_eq!(is_old(version), old, "{version}");
        }
    }
}
