//! `cargo xtask evidence NAME`: proofs that take too long for CI. Their logs are committed in `docs/evidence`.

use anyhow::{Context as _, bail};

use crate::shell::{cargo, command, output, root, run as execute};

/// A proof: its name, the test that is it, and the variable that makes it long.
struct Proof {
    name: &'static str,
    test: &'static str,
    variable: &'static str,
    count: &'static str,
}

const PROOFS: [Proof; 2] = [
    Proof { name: "kills", test: "kill", variable: "HOLM_KILLS", count: "10000" },
    Proof { name: "power", test: "power", variable: "HOLM_CUTS", count: "10000" },
];

/// Runs the proof `name`, with `count` instead of its own number if given, and writes its log.
pub fn run(name: &str, count: Option<&str>) -> anyhow::Result<()> {
    let Some(proof) = PROOFS.iter().find(|proof| proof.name == name) else {
        let names: Vec<&str> = PROOFS.iter().map(|proof| proof.name).collect();
        bail!("there is no proof `{name}`: {}", names.join(", "));
    };
    let count = count.unwrap_or(proof.count);
    execute(cargo(&["build", "-p", "holm-agent", "-p", "holm-compiler"]).args(["--features", "holm-agent/mutants"]))?;
    let commit = output(command("git").args(["rev-parse", "HEAD"]))?;
    let changed = !output(command("git").args(["status", "--porcelain", "--untracked-files=no"]))?.trim().is_empty();
    let arguments = ["test", "-p", "holm-tests", "--test", proof.test, "--", "--nocapture", "--test-threads=1"];
    let ended = cargo(&arguments).env(proof.variable, count).output().context("cannot run cargo")?;
    let text = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    let verdict = if ended.status.success() { "passed" } else { "FAILED" };
    let lines: Vec<&str> =
        text.lines().filter(|line| ["seed", "test ", "FAILED"].iter().any(|word| line.starts_with(word))).collect();
    let log = format!(
        "cargo xtask evidence {name} {count}\ncommit {}{}\n{verdict}\n{}\n",
        commit.trim(),
        if changed { " with changes" } else { "" },
        lines.join("\n")
    );
    let path = root().join("docs/evidence").join(format!("{name}.log"));
    std::fs::write(&path, &log).with_context(|| format!("cannot write {}", path.display()))?;
    print!("{log}");
    if ended.status.success() { Ok(()) } else { bail!("the proof failed:\n{text}") }
}
