//! `cargo xtask test`: everything that can be tested on this machine, and no silence about the rest.
//!
//! A test that cannot run here says so by a line `NAME: WHY` in the file that `HOLM_SKIPS` names; tests marked `ignore`
//! count as well. Every skip is printed, and one that `tests/allowed-skips.txt` does not list (the names, one a line,
//! `#` begins a comment) is a failure: a test that nobody runs proves nothing.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};

use crate::dist::need_zig;
use crate::shell::{WASM, cargo, cargo_in, command, host, need_wasm, output, root, run as execute, there_is};
use crate::{emulate, image};

/// Programs that tests use, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 18] = [
    ("mosquitto", "mosquitto"),
    ("mosquitto_pub", "mosquitto-clients"),
    ("strace", "strace"),
    ("faketime", "faketime"),
    ("qemu-system-aarch64", "qemu-system-arm"),
    ("mksquashfs", "squashfs-tools"),
    ("mke2fs", "e2fsprogs"),
    ("losetup", "mount"),
    ("xz", "xz-utils"),
    // By the path of its module: what cloud-init would read is read by it.
    ("/usr/lib/python3/dist-packages/yaml/__init__.py", "python3-yaml"),
    // Devices that are cut off are in a network of their own.
    ("ip", "iproute2"),
    ("kill", "procps"),
    // Makes a terminal for the screen of `holm dev`.
    ("script", "bsdutils"),
    ("openssl", "openssl"),
    // The schemas are held against documents by it.
    ("jsonschema", "python3-jsonschema"),
    // The control plane's pages are tested in a browser.
    ("chromium", "chromium"),
    ("node", "nodejs"),
    ("npm", "npm"),
];

/// What holmd is built with for the crash tests.
pub const MUTANTS: &str = "holm-agent/mutants";

/// The workspaces of components.
const COMPONENTS: [&str; 2] = ["functions/examples", "tests/guests"];

/// Gets what is needed, builds, runs, and settles the account of skips.
pub fn run() -> anyhow::Result<()> {
    need_wasm()?;
    need_programs()?;
    need_driver();
    // Functions in C are compiled with it.
    need_zig()?;
    for folder in COMPONENTS.iter().filter(|folder| root().join(folder).join("Cargo.toml").exists()) {
        execute(&mut cargo_in(folder, &["build", "--release", "--target", WASM]))?;
    }
    emulate::prepare()?;
    // The programs that tests start, with the features that the tests are built with, so that everything is compiled once.
    // That links the compiler into this holmd, which no release does (`cargo xtask layers`). The faults of the `mutants`
    // feature sleep until HOLM_MUTANT names one.
    execute(&mut cargo(&["build", "--workspace", "--bins", "--tests", "--features", MUTANTS]))?;
    image::prepare()?;
    let file = root().join("target/skips.txt");
    std::fs::create_dir_all(root().join("target")).context("cannot make the folder target")?;
    std::fs::write(&file, "").with_context(|| format!("cannot write {}", file.display()))?;
    let host = host()?;
    let mut failures = Vec::new();
    let mut step = |arguments: &[&str]| {
        if let Err(error) = execute(cargo(arguments).env("HOLM_SKIPS", &file)) {
            failures.push(error.to_string());
        }
    };
    if there_is("cargo-nextest") {
        step(&["nextest", "run", "--workspace", "--features", MUTANTS, "--no-fail-fast"]);
    } else {
        step(&["test", "--workspace", "--bins", "--tests", "--features", MUTANTS, "--no-fail-fast"]);
    }
    // Those of documentation are not nextest's.
    step(&["test", "--workspace", "--doc", "--features", MUTANTS, "--no-fail-fast"]);
    // The guests have no tests of their own: they are what tests run.
    for folder in COMPONENTS.iter().filter(|folder| **folder == "functions/examples") {
        // Natively: these workspaces build for WebAssembly unless told otherwise.
        if let Err(error) = execute(&mut cargo_in(folder, &["test", "--target", &host])) {
            failures.push(error.to_string());
        }
    }
    let mut skips: BTreeSet<(String, String)> = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}", file.display()))?
        .lines()
        .map(|line| line.split_once(": ").unwrap_or((line, "")))
        .map(|(name, why)| (name.to_owned(), why.to_owned()))
        .collect();
    skips.extend(ignored()?.into_iter().map(|name| (name, "marked ignore".to_owned())));
    let allowed = std::fs::read_to_string(root().join("tests/allowed-skips.txt")).unwrap_or_default();
    failures.extend(account(&skips, &allowed));
    if failures.is_empty() {
        return Ok(());
    }
    bail!("{} failures:\n  {}", failures.len(), failures.join("\n  "));
}

/// Says that a step of the gate was skipped: an error unless the list allows it.
pub fn skip(name: &str, why: &str) -> anyhow::Result<()> {
    let allowed = std::fs::read_to_string(root().join("tests/allowed-skips.txt")).unwrap_or_default();
    match account(&[(name.to_owned(), why.to_owned())].into(), &allowed).pop() {
        None => Ok(()),
        Some(failure) => bail!(failure),
    }
}

/// Prints the skips; answers with those that are not allowed.
fn account(skips: &BTreeSet<(String, String)>, allowed: &str) -> Vec<String> {
    let allowed: BTreeSet<&str> =
        allowed.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).collect();
    println!("{} tests were skipped", skips.len());
    let mut failures = Vec::new();
    for (name, why) in skips {
        println!("skipped: {name}: {why}");
        if !allowed.contains(&**name) {
            failures.push(format!("{name} was skipped ({why}), and tests/allowed-skips.txt does not list it"));
        }
    }
    failures
}

/// Names of tests that are marked `ignore`.
fn ignored() -> anyhow::Result<Vec<String>> {
    let list = [
        &["test", "--quiet", "--workspace", "--bins", "--tests", "--features", MUTANTS, "--"][..],
        &["--list", "--ignored", "--format", "terse"],
    ]
    .concat();
    let text = output(&mut cargo(&list))?;
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// Gets the programs that tests use.
pub fn need_programs() -> anyhow::Result<()> {
    need(&PROGRAMS)
}

/// Installs what is missing of these programs, each with its Debian package, where we may. Elsewhere what needs it fails,
/// or says that it was skipped.
pub fn need(programs: &[(&str, &str)]) -> anyhow::Result<()> {
    let missing: Vec<&str> =
        programs.iter().filter(|(program, _)| !installed(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let root = output(command("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if !(root && there_is("apt-get")) {
        println!("what is not installed here is needed: {0} (apt-get install {0})", missing.join(" "));
        return Ok(());
    }
    let mut install = command("apt-get");
    install.args(["install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]);
    install.args(&missing).env("DEBIAN_FRONTEND", "noninteractive");
    if execute(&mut install).is_err() {
        // The lists of packages may be old, or never have been fetched.
        execute(command("apt-get").arg("update"))?;
        execute(&mut install)?;
    }
    Ok(())
}

/// Gets what drives the browser, as `tests/ui/package-lock.json` says. Without it, the tests of the pages say that they were skipped.
fn need_driver() {
    let folder = root().join("tests/ui");
    let changed = |file: &str| std::fs::metadata(folder.join(file)).and_then(|file| file.modified()).ok();
    // What npm writes when it is done.
    let installed = changed("node_modules/.package-lock.json");
    if installed.is_some() && installed >= changed("package-lock.json") {
        return;
    }
    if let Err(error) = execute(command("npm").arg("ci").current_dir(&folder)) {
        println!("the tests of the pages need playwright-core: {error:#}");
    }
}

/// Debian puts daemons where the path of a user does not look.
fn installed(program: &str) -> bool {
    there_is(program) || std::path::Path::new("/usr/sbin").join(program).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_that_is_not_listed_is_a_failure() {
        let skips = [("a".to_owned(), "no mosquitto".to_owned()), ("b".to_owned(), "no root".to_owned())].into();
        assert_eq!(account(&skips, "# why\nb # needs root\n").len(), 1);
        assert!(account(&skips, "a\nb\n").is_empty());
    }
}
