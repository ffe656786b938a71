//! Saying what happens, in the kernel's log: there is no other place that is always there. A card that was made with
//! `--console` shows it on the serial line.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Read, Write as _};

/// Longer lines are cut: the kernel takes about a thousand bytes in one record.
const LONGEST: usize = 900;

/// How much it matters, in the kernel's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Somebody must act.
    Error = 3,
    /// Something is not as it should be.
    Warning = 4,
    /// Something happened.
    Info = 6,
}

/// Says something that happened.
pub fn say(text: impl Display) {
    write(Level::Info, "holm-init", &text.to_string());
}

/// Says something that is not as it should be.
pub fn warn(text: impl Display) {
    write(Level::Warning, "holm-init", &text.to_string());
}

/// Says what somebody must act on.
pub fn complain(text: impl Display) {
    write(Level::Error, "holm-init", &text.to_string());
}

/// Passes the lines of a program on, until it closes its end.
pub fn pass_on(name: &'static str, lines: impl Read + Send + 'static) {
    let copy = move || {
        let mut lines = BufReader::new(lines);
        let mut line = Vec::new();
        loop {
            line.clear();
            // A program that writes without end and without lines does not fill our memory.
            match lines.by_ref().take(64 * 1024).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => write(Level::Info, name, String::from_utf8_lossy(&line).trim_end()),
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name(format!("log-{name}")).spawn(copy) {
        warn(format_args!("no thread for the log of {name}: {error}"));
    }
}

fn write(level: Level, who: &str, text: &str) {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = text.get(..end).unwrap_or_default();
    if let Ok(mut log) = std::fs::File::options().write(true).open("/dev/kmsg") {
        // One write is one record.
        let _ = log.write_all(format!("<{}>{who}: {text}\n", level as u8).as_bytes());
    }
}
