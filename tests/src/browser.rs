//! A person at the control plane's pages: a real Chromium, driven by the scripts in `tests/ui`.
//!
//! A script asks for what only the test can do by a line on stdout, and goes on when it is answered by one on stdin. What it
//! finds wrong it says on stderr, and ends with 1. With `HOLM_PICTURES=FOLDER` it leaves pictures of the pages there.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::functions::repository;
use crate::skip;

/// For whatever a script does between two of its questions.
const PATIENCE: Duration = Duration::from_secs(120);

/// Debian's.
const CHROMIUM: &str = "/usr/bin/chromium";

/// Runs a script of `tests/ui` against the control plane at this address, with this operator's token. `act` is called with what it asks for, and what it answers goes back.
/// False if there is no browser here, which is told as a skip.
pub fn drive(https: &str, token: &str, script: &str, mut act: impl FnMut(&str) -> String) -> bool {
    let scripts = repository().join("tests/ui");
    if !Path::new(CHROMIUM).is_file() || !scripts.join("node_modules/playwright-core").is_dir() {
        skip("there is no Chromium or no playwright-core here");
        return false;
    }
    let mut command = Command::new("node");
    command.arg(scripts.join(script)).current_dir(&scripts).env("HOLM_URL", format!("https://{https}"));
    command.env("HOLM_TOKEN", token);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut child = Ended(child);
    let (out, mut answers) = (child.0.stdout.take().unwrap(), child.0.stdin.take().unwrap());
    let (questions, asked) = sync_channel(1);
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if questions.send(line).is_err() {
                return;
            }
        }
    });
    loop {
        match asked.recv_timeout(PATIENCE) {
            Ok(question) => {
                let answer = act(&question);
                writeln!(answers, "{answer}").unwrap();
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(error) => panic!("{script}: {error}"),
        }
    }
    let status = child.0.wait().unwrap();
    assert!(status.success(), "{script}: {status}");
    true
}

/// Killed when dropped: it must not outlive a test that fails.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
