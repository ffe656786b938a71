//! Where output goes: results to stdout, everything about them to stderr.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write};

use jiff::tz::TimeZone;
use serde_json::Value;

use crate::failure::Failure;
use crate::look::Look;

/// Stdout and stderr, and how to write on each.
pub(crate) struct Screen {
    out: std::io::BufWriter<std::io::Stdout>,
    /// How to write on stdout.
    pub(crate) look: Look,
    /// How to write on stderr.
    pub(crate) errors: Look,
    /// Whether stdout is a terminal.
    pub(crate) tty: bool,
}

impl Screen {
    /// Colours only on a terminal, and never against `NO_COLOR` (<https://no-color.org>).
    pub(crate) fn new() -> Self {
        let (out, err) = (std::io::stdout(), std::io::stderr());
        let tty = out.is_terminal();
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let zone = TimeZone::system();
        Self {
            look: Look { color: wanted && tty, zone: zone.clone() },
            errors: Look { color: wanted && err.is_terminal(), zone },
            tty,
            out: std::io::BufWriter::new(out),
        }
    }

    /// One line on stdout, at once.
    pub(crate) fn line(&mut self, text: impl Display) -> Result<(), Failure> {
        self.write(format_args!("{text}\n"))
    }

    /// A text that ends its own lines.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.write(format_args!("{text}"))
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).and_then(|()| self.out.flush()).map_err(|error| Failure::of_output(&error))
    }

    /// One JSON value on one line.
    pub(crate) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.line(value)
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) -> Result<(), Failure> {
        self.out.write_fmt(text).and_then(|()| self.out.flush()).map_err(|error| Failure::of_output(&error))
    }

    /// One line on stderr. If nobody reads it, that is fine.
    pub(crate) fn note(&self, text: impl Display) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// A failure on stderr.
    pub(crate) fn complain(&self, failure: &Failure) {
        let _ = std::io::stderr().write_all(failure.render(&self.errors).as_bytes());
    }
}
