//! Running other programs.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// The repository.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// A program in the repository's folder.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// Cargo, the one that runs us, without what it has told us of our own package: build scripts ask for such variables, and would be run
/// again, with all that follows from them, whenever somebody builds by `cargo xtask` and then without it.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments);
    let of_ours = |name: &OsStr| {
        let name = name.as_encoded_bytes();
        name.starts_with(b"CARGO_PKG_") || name.starts_with(b"CARGO_MANIFEST_")
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| of_ours(name)) {
        cargo.env_remove(name);
    }
    cargo
}

/// Cargo for the WebAssembly workspaces: with their own target folder, and none of the flags that are meant for us.
pub fn cargo_in(folder: &str, arguments: &[&str]) -> Command {
    let mut cargo = cargo(arguments);
    cargo.current_dir(root().join(folder)).env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    cargo
}

/// Runs a program to its end, and says which one it is.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = show(command);
    eprintln!("> {shown}");
    let status = command.status().with_context(|| format!("cannot run {shown}"))?;
    if status.success() { Ok(()) } else { bail!("{shown}: {status}") }
}

/// What a program prints.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let shown = show(command);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        bail!("{shown}: {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{shown} does not print text"))
}

/// Whether there is such a program on the path.
pub fn there_is(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// What cargo knows of the workspace.
pub fn metadata(arguments: &[&str]) -> anyhow::Result<Value> {
    let text = output(cargo(&["metadata", "--format-version", "1", "--locked"]).args(arguments));
    // A lock file that must change is no reason to know nothing.
    let text = text.or_else(|_| output(cargo(&["metadata", "--format-version", "1"]).args(arguments)))?;
    serde_json::from_str(&text).context("cargo metadata prints no JSON")
}

/// The components are built for this target.
pub const WASM: &str = "wasm32-wasip2";

/// Gets the target that components are built for, if it is missing.
pub fn need_wasm() -> anyhow::Result<()> {
    need_target(WASM)
}

/// Gets a target of Rust's, if it is missing.
pub fn need_target(target: &str) -> anyhow::Result<()> {
    let folder = output(rustc().args(["--print", "target-libdir", "--target", target]))?;
    if Path::new(folder.trim()).is_dir() {
        return Ok(());
    }
    run(command("rustup").args(["target", "add", target]))
        .with_context(|| format!("the target {target} is needed: install it as you installed Rust"))
}

/// What this machine is, in Rust's words.
pub fn host() -> anyhow::Result<String> {
    let version = output(rustc().arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc names no host")
}

/// Where cargo builds.
pub fn target_folder() -> PathBuf {
    let set = std::env::var_os("CARGO_TARGET_DIR");
    root().join(set.unwrap_or_else(|| "target".into()))
}

/// Writes a program that is a script.
pub fn write_program(path: &Path, script: &str) -> anyhow::Result<()> {
    std::fs::write(path, script).with_context(|| format!("cannot write {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} a program", path.display()))
}

fn rustc() -> Command {
    command(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// As one would type it, but for where the program is.
fn show(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let words = std::iter::once(program.file_name().unwrap_or(command.get_program())).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
