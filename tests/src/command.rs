//! `holm`, as people type it.

use std::path::Path;
use std::process::{Command, Output};

use crate::functions::{path, repository};
use crate::node::binary;

/// Runs it in a folder, to its end. What it says to people is shown with the test.
pub fn holm(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("holm"));
    command.args(arguments).current_dir(folder).env("NO_COLOR", "1").env("PATH", path());
    let output = command.env("HOLM_SYMBOLS", repository().join("target/symbols")).output().unwrap();
    eprintln!("holm {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    output
}

/// How a command ended, what it answered and what it said.
pub fn text(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// What a command answers, which must end well.
pub fn good(folder: &Path, arguments: &[&str]) -> String {
    let (code, out, err) = text(&holm(folder, arguments));
    assert_eq!(code, Some(0), "{arguments:?}: {out}{err}");
    out
}
