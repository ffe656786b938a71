//! What a language needs on this machine: whether it is there, and how to get it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::embedded::Language;
use crate::programs;

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

/// What a language needs.
pub(crate) fn of(language: Language) -> Vec<Finding> {
    match language {
        Language::C => vec![c()],
        Language::Rust => rust(),
    }
}

/// How to get what compiles C for WebAssembly.
pub(crate) const C_COMPILER_FIX: &str = "pip install ziglang, or your system's packages clang and lld";

/// What compiles C for WebAssembly, and links it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CCompiler {
    /// For people.
    pub(crate) name: String,
    program: PathBuf,
    arguments: Vec<&'static str>,
}

impl CCompiler {
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command
    }
}

/// Looks for clang with WebAssembly and its linker; for zig on the path; for zig as Python's package.
pub(crate) fn c_compiler() -> Option<CCompiler> {
    let clang = output("clang", &["--version"]).filter(|_| {
        let targets = output("clang", &["--print-targets"]).unwrap_or_default();
        let linker = output("clang", &["--print-prog-name=wasm-ld"]).unwrap_or_default();
        let found = Path::new(&linker).is_file() || programs::on_path("wasm-ld").iter().any(|path| path.is_file());
        targets.contains("wasm32") && found
    });
    if let Some(version) = clang {
        let name = version.lines().next().unwrap_or("clang").to_owned();
        // zig does so unasked, and does not know the flag.
        let arguments = vec!["--target=wasm32-unknown-unknown", "-Wl,--stack-first"];
        return Some(CCompiler { name, program: "clang".into(), arguments });
    }
    // Without optimisation zig would add checks at run time, which need a C library.
    let zig = ["cc", "-target", "wasm32-freestanding", "-fno-sanitize=all"];
    if let Some(version) = output("zig", &["version"]) {
        return Some(CCompiler { name: format!("zig {version}"), program: "zig".into(), arguments: zig.to_vec() });
    }
    let version = output("python3", &["-m", "ziglang", "version"])?;
    let arguments = [&["-m", "ziglang"][..], &zig].concat();
    Some(CCompiler { name: format!("zig {version}, of Python"), program: "python3".into(), arguments })
}

/// C's tools.
fn c() -> Finding {
    match c_compiler() {
        Some(compiler) => Finding::good("C", compiler.name),
        None => Finding::bad("C", "neither clang with WebAssembly nor zig", C_COMPILER_FIX),
    }
}

/// C's tools, for those who may never want them.
pub(crate) fn c_if_wanted() -> Finding {
    let found = c();
    match &found.fix {
        Some(fix) => Finding::good("C", format!("{}; for functions in C: {fix}", found.found)),
        None => found,
    }
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
