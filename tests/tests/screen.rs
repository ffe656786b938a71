//! The screen of `holm dev`, on a terminal that is none: `script` makes one.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holm_tests::functions::{Guest, guests};
use holm_tests::node::binary;
use holm_tests::within;

/// What is on a terminal, as far as characters and places go (ECMA-48: CUP, ED).
#[derive(Debug, Default)]
struct Terminal {
    cells: BTreeMap<(usize, usize), char>,
    at: (usize, usize),
    /// A control sequence that has not ended yet.
    control: Option<String>,
    /// Everything, for what is said once the screen has been left.
    all: String,
}

impl Terminal {
    fn feed(&mut self, text: &str) {
        self.all.push_str(text);
        for c in text.chars() {
            match &mut self.control {
                Some(control) if c.is_ascii_alphabetic() || c == '~' => {
                    let control = std::mem::take(control);
                    self.control = None;
                    let mut numbers = control.trim_start_matches('[').split(';').map(|n| n.parse().unwrap_or(1));
                    match c {
                        'H' => self.at = (numbers.next().unwrap_or(1), numbers.next().unwrap_or(1)),
                        'J' => self.cells.clear(),
                        _ => {}
                    }
                }
                Some(control) => control.push(c),
                None if c == '\x1b' => self.control = Some(String::new()),
                None if c.is_control() => {}
                None => {
                    self.cells.insert(self.at, c);
                    self.at.1 += 1;
                }
            }
        }
    }

    fn rows(&self) -> Vec<String> {
        let mut rows = vec![String::new(); 60];
        for ((row, column), c) in &self.cells {
            if let Some(text) = rows.get_mut(*row) {
                let missing = column.saturating_sub(text.chars().count() + 1);
                text.extend(std::iter::repeat_n(' ', missing));
                text.push(*c);
            }
        }
        rows
    }
}

#[test]
fn the_screen_of_dev_shows_a_swap_a_build_that_fails_and_gives_the_terminal_back() {
    let folder = tempfile::tempdir().unwrap();
    let guest = Guest::new("heat", "witness").on("heat/+");
    let manifest = |command: &str| {
        let lines = format!("[build]\ncommand = \"{command}\"\nsource = \"built.wasm\"");
        guest.clone().more(&lines).manifest()
    };
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("guest.wasm", guests());
    write("holm.toml", manifest("cp guest.wasm built.wasm").as_bytes());
    let holm = binary("holm").display().to_string();
    let line = format!(
        "stty rows 30 cols 120; exec {holm} dev --listen 127.0.0.1:0 --sim 'heat/a#celsius=constant:21,every=200ms'"
    );
    let mut child = Command::new("script")
        .args(["--quiet", "--flush", "--return", "--command", &line, "/dev/null"])
        .current_dir(folder.path())
        .env("TERM", "xterm-256color")
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let terminal = Arc::new(Mutex::new(Terminal::default()));
    let mut out = child.stdout.take().unwrap();
    let heard = Arc::clone(&terminal);
    let reader = std::thread::spawn(move || {
        let (mut bytes, mut held) = ([0; 4096], Vec::new());
        while let Ok(count @ 1..) = out.read(&mut bytes) {
            held.extend_from_slice(&bytes[..count]);
            // A character may be cut in two.
            let whole = std::str::from_utf8(&held).map_or_else(|error| error.valid_up_to(), str::len);
            let rest = held.split_off(whole);
            heard.lock().unwrap().feed(std::str::from_utf8(&held).unwrap());
            held = rest;
        }
    });
    let shows = |words: &'static [&'static str]| {
        within(Duration::from_secs(60), &format!("{words:?} on {:#?}", terminal.lock().unwrap().rows()), || {
            let rows = terminal.lock().unwrap().rows().join("\n");
            words.iter().all(|word| rows.contains(word)).then_some(())
        });
    };
    shows(&[
        "mqtt://127.0.0.1:",
        "heat",
        "runs: ",
        "ok      heat mqtt heat/a {\"celsius\":21.0}",
        "publish  seen/heat",
    ]);
    write("holm.toml", manifest("echo 'error: no such thing' >&2; false").as_bytes());
    shows(&["failed; the last good one runs", "error: no such thing", "[build].command of ./holm.toml failed"]);
    write("holm.toml", manifest("cp guest.wasm built.wasm").as_bytes());
    shows(&["runs: "]);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b" ").unwrap();
    shows(&["held still"]);
    stdin.write_all(b" ").unwrap();
    shows(&["b builds all again"]);
    stdin.write_all(b"q").unwrap();
    let status = child.wait().unwrap();
    reader.join().unwrap();
    let all = &terminal.lock().unwrap().all;
    let (_, after) = all.rsplit_once("\x1b[?1049l").unwrap_or_else(|| panic!("the terminal is not given back: {all}"));
    assert!(status.success() && after.contains("the node ends; what it has is kept"), "{status}: {after}");
}
