//! The tutorial's commands, as they stand.

use std::process::{Command, Stdio};

use holm_tests::functions::repository;
use holm_tests::node::binary;

/// What stands between two lines of ``` with `sh` after the first.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while lines.by_ref().any(|line| line == "```sh") {
        blocks.push(lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect());
    }
    blocks
}

#[test]
fn the_tutorial_works_as_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(repository().join("docs/tutorial.md")).unwrap();
    let blocks = blocks(&text);
    assert!(blocks.len() >= 7, "{blocks:?}");
    // What the examples have built is built: a reader would wait for it once.
    let shared = repository().join("functions/examples/target");
    let mut script = String::from("set -euo pipefail\n");
    for (index, block) in blocks.iter().enumerate() {
        script.push_str(block);
        if index == 0 {
            script.push_str(&format!("ln -s {} target\n", shared.display()));
        }
    }
    let path = std::env::var("PATH").unwrap();
    let programs = binary("holm").parent().unwrap().display().to_string();
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(folder.path())
        .env("PATH", format!("{programs}:{path}"))
        .env("NO_COLOR", "1")
        .env("HOLM_SYMBOLS", shared.join("symbols"))
        .env_remove("HOLM_DATA")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    for words in [
        "next: cd temp-alert && holm test",
        "ok    warns once, until it is cool again",
        "+ alerts/attic/temperature {\"celsius\":29.0,\"threshold\":25.0}",
        "as it should be",
        "temp-alert  0.1.0",
        "rows, lowest 2",
        "publish  alerts/cellar/temperature {\"celsius\":26.5,\"threshold\":25.0}",
        "temp-alert-0.1.0.holm",
    ] {
        assert!(out.contains(words), "it does not say `{words}`:\n{out}\n{err}");
    }
}
