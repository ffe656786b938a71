//! How far something is that takes long: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal as _, Write as _};

use holm_image::{Phase, Progress};

/// Characters of the bar.
const WIDTH: u64 = 32;

/// See the module. Ends its line when it is dropped.
pub(crate) struct Bar {
    tty: bool,
    phase: Option<Phase>,
    /// What was shown last: per mille on a terminal, quarters elsewhere.
    shown: u64,
}

impl Bar {
    pub(crate) fn new() -> Self {
        Self { tty: std::io::stderr().is_terminal(), phase: None, shown: 0 }
    }

    /// Shows where it is, if that is news.
    pub(crate) fn show(&mut self, progress: Progress) {
        let steps = if self.tty { 1000 } else { 4 };
        let step = progress.done.saturating_mul(steps).checked_div(progress.total).unwrap_or(steps);
        let begins = self.phase != Some(progress.phase);
        if !begins && step == self.shown {
            return;
        }
        let mut out = std::io::stderr();
        if begins && self.phase.is_some() && self.tty {
            let _ = writeln!(out);
        }
        (self.phase, self.shown) = (Some(progress.phase), step);
        let line = line(progress);
        let _ = if self.tty { write!(out, "\r{line}").and_then(|()| out.flush()) } else { writeln!(out, "{line}") };
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.tty && self.phase.is_some() {
            let _ = writeln!(std::io::stderr());
        }
    }
}

fn line(progress: Progress) -> String {
    let Progress { phase, done, total } = progress;
    let name = match phase {
        Phase::Unpack => "unpacking",
        Phase::Check => "checking",
        Phase::Write => "writing",
        Phase::Verify => "reading back",
    };
    let filled = done.saturating_mul(WIDTH).checked_div(total).unwrap_or(WIDTH).min(WIDTH);
    let count = |number: u64| usize::try_from(number).unwrap_or_default();
    let bar = "#".repeat(count(filled)) + &".".repeat(count(WIDTH - filled));
    format!("{name:<12} [{bar}] {:>4} of {} MiB", done >> 20, total >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_says_what_is_done_and_how_far_it_is() {
        let line = |done| line(Progress { phase: Phase::Write, done, total: 320 << 20 });
        assert_eq!(line(80 << 20), "writing      [########........................]   80 of 320 MiB");
        assert!(line(320 << 20).contains("[################################]"));
    }
}
