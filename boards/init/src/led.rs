//! How the node is, for people who only see the board's LED.
//!
//! The kernel blinks it (`Documentation/leds/ledtrig-timer`), so that a pattern goes on while init is busy, and does not when
//! the kernel is dead.

use std::fs;
use std::path::{Path, PathBuf};

use crate::console::warn;

/// The LED, as Linux calls it on a Raspberry Pi. A board without it shows nothing.
const LED: &str = "/sys/class/leds/ACT";

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Fast and even: it starts.
    Starting,
    /// Slow and even: a new system is on trial, and its node runs.
    Trial,
    /// On.
    Healthy,
    /// A short flash every two seconds: the node runs, and has no address.
    NoNetwork,
    /// On with short gaps: the node does not stay alive, or the board cannot start.
    Failed,
}

impl Pattern {
    /// Milliseconds on and off. `None` is on.
    fn times(self) -> Option<(u32, u32)> {
        match self {
            Self::Starting => Some((100, 100)),
            Self::Trial => Some((500, 500)),
            Self::Healthy => None,
            Self::NoNetwork => Some((100, 1900)),
            Self::Failed => Some((1900, 100)),
        }
    }
}

/// The board's LED.
pub struct Led {
    folder: PathBuf,
    shown: Option<Pattern>,
}

impl Led {
    /// That of the board.
    pub fn of_board() -> Self {
        Self::at(Path::new(LED))
    }

    fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), shown: None }
    }

    /// Shows a pattern. One that is shown already goes on as it is.
    pub fn show(&mut self, pattern: Pattern) {
        if self.shown == Some(pattern) || !self.folder.exists() {
            return;
        }
        self.shown = Some(pattern);
        let put = |name: &str, text: &str| fs::write(self.folder.join(name), text);
        let done = match pattern.times() {
            None => put("trigger", "none").and_then(|()| put("brightness", "1")),
            // The two files of the times appear with the trigger.
            Some((on, off)) => put("trigger", "timer")
                .and_then(|()| put("delay_on", &on.to_string()))
                .and_then(|()| put("delay_off", &off.to_string())),
        };
        if let Err(error) = done {
            warn(format_args!("the LED does not show how the node is: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_written_once_and_a_board_without_the_led_does_without() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        let mut led = Led::at(folder.path());
        led.show(Pattern::NoNetwork);
        assert_eq!([read("trigger"), read("delay_on"), read("delay_off")], ["timer", "100", "1900"]);
        led.show(Pattern::Healthy);
        assert_eq!([read("trigger"), read("brightness")], ["none", "1"]);
        fs::write(folder.path().join("trigger"), "somebody's").unwrap();
        led.show(Pattern::Healthy);
        assert_eq!(read("trigger"), "somebody's");
        let absent = folder.path().join("absent");
        Led::at(&absent).show(Pattern::Failed);
        assert!(!absent.exists());
    }
}
