//! `cargo xtask evidence tuf-conformance DIR`: the public suite for TUF clients (theupdateframework/tuf-conformance) against `holm tuf`.
//!
//! The suite is not ours and not fetched: DIR is a checkout of it, with its own Python environment in `env` (`make dev` there).

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::shell::{cargo, command, output, root, run as execute, there_is};

/// Where the list of expected failures is, each with its reason.
const EXPECTED: &str = "cloud-sync/trust/tests/tuf-conformance.xfails";

/// Runs the suite. What it prints, and whether all went as expected.
pub fn run(suite: Option<&str>) -> anyhow::Result<(String, bool)> {
    let suite = Path::new(suite.context("name a checkout of theupdateframework/tuf-conformance")?);
    let suite = suite.canonicalize().with_context(|| format!("there is no {}", suite.display()))?;
    let pytest = suite.join("env/bin/pytest");
    if !pytest.is_file() {
        bail!("{} is not there: run `make dev` in {}", pytest.display(), suite.display());
    }
    if !there_is("faketime") {
        bail!("the suite needs the program `faketime`");
    }
    execute(&mut cargo(&["build", "-p", "holm-cli"]))?;
    // The suite wants one program, and looks for the list beside it.
    let folder = root().join("target/tuf-conformance");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let entrypoint = folder.join("holm-tuf");
    let script = format!("#!/bin/sh\nexec '{}' tuf \"$@\"\n", root().join("target/debug/holm").display());
    std::fs::write(&entrypoint, script).context("cannot write the suite's entry point")?;
    std::fs::set_permissions(&entrypoint, std::fs::Permissions::from_mode(0o755))
        .context("cannot make the suite's entry point a program")?;
    std::fs::copy(root().join(EXPECTED), folder.join("holm-tuf.xfails")).context("cannot copy the list of failures")?;
    let version = output(command("git").arg("--git-dir").arg(suite.join(".git")).args(["rev-parse", "HEAD"]))?;
    let mut pytest = command(pytest);
    pytest.arg(suite.join("tuf_conformance")).arg("--entrypoint").arg(&entrypoint);
    let told = pytest
        .args(["-v", "-p", "no:cacheprovider", "--tb=no", "--no-header", "--color=no"])
        .output()
        .context("cannot run pytest")?;
    let words = ["PASSED", "FAILED", "XFAIL", "XPASS", "ERROR", " passed", " failed"];
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    let mut lines: Vec<String> = vec![format!("suite {}", version.trim())];
    for line in text.lines().filter(|line| words.iter().any(|word| line.contains(word))) {
        // From `path/to/test_x.py::test PASSED [ 1%]` the test and its end; of the last line, not how long it took.
        let line = line.rsplit_once(" [").map_or(line, |(line, _)| line);
        let line = line.rsplit_once("tuf_conformance/").map_or(line, |(_, line)| line);
        let line = if line.starts_with('=') { line.split_once(" in ").map_or(line, |(line, _)| line) } else { line };
        lines.push(line.trim_matches(['=', ' ']).to_owned());
    }
    Ok((lines.join("\n"), told.status.success()))
}
