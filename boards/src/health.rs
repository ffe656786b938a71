//! What a board shows and does about the health of its node: an LED, and a watchdog that resets it.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::profile::Profile;
use crate::{Board, BoardError};

/// How often a watchdog is fed that does not say how long it waits.
const UNKNOWN: Duration = Duration::from_secs(5);

/// How a node is, for people who only see an LED.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It starts: the LED blinks.
    Starting,
    /// It runs: the LED is on.
    Running,
    /// It has ended: the LED is off.
    Ended,
}

/// The board's LED and watchdog, where the configuration hands them to the node.
pub struct Guard {
    board: Arc<dyn Board>,
    led: Option<String>,
    /// The watchdog's device, where it is to be used.
    device: Option<String>,
    watchdog: Option<(Box<dyn Write + Send>, Duration)>,
}

impl Guard {
    /// Takes what is asked for. Fails if the board has no such thing.
    pub fn new(board: Arc<dyn Board>, profile: &Profile, led: bool, watchdog: bool) -> Result<Self, BoardError> {
        let missing = |what: &str| BoardError::Unsupported(format!("the profile `{}` has no {what}", profile.name));
        let led = match (led, &profile.led) {
            (true, Some(name)) => Some(format!("/sys/class/leds/{name}")),
            (true, None) => return Err(missing("LED")),
            (false, _) => None,
        };
        let device = match (watchdog, &profile.watchdog) {
            (true, Some(watchdog)) => Some(watchdog.device.clone()),
            (true, None) => return Err(missing("watchdog")),
            (false, _) => None,
        };
        Ok(Self { board, led, device, watchdog: None })
    }

    /// The watchdog runs from here on, if there is one: who does not [`Guard::feed`] it is reset. Fails if it cannot be opened.
    pub fn watch(&mut self) -> Result<(), BoardError> {
        let Some(device) = &self.device else { return Ok(()) };
        let name = device.trim_start_matches("/dev/");
        let seconds = self.board.read_attribute(&format!("/sys/class/watchdog/{name}/timeout"));
        let seconds = seconds.ok().and_then(|text| text.trim().parse().ok());
        // Twice may fail before the third is too late.
        let period = seconds.map_or(UNKNOWN, |seconds| Duration::from_secs(seconds) / 3);
        self.watchdog = Some((self.board.open_device(device)?, period.max(Duration::from_millis(300))));
        Ok(())
    }

    /// How often [`Guard::feed`] is due; `None` if there is nothing to feed.
    pub fn period(&self) -> Option<Duration> {
        self.watchdog.as_ref().map(|(_, period)| *period)
    }

    /// The node is alive.
    pub fn feed(&mut self) {
        if let Some((device, _)) = &mut self.watchdog
            && let Err(error) = device.write_all(b"\0").and_then(|()| device.flush())
        {
            tracing::error!(%error, "the watchdog cannot be fed");
        }
    }

    /// Shows how the node is. An LED that does not obey is nothing to end for.
    pub fn show(&self, health: Health) {
        let Some(led) = &self.led else { return };
        let (trigger, brightness) = match health {
            Health::Starting => ("timer", None),
            Health::Running => ("none", Some("1")),
            Health::Ended => ("none", Some("0")),
        };
        let written = self.board.write_attribute(&format!("{led}/trigger"), trigger);
        let lit = brightness.map(|value| self.board.write_attribute(&format!("{led}/brightness"), value));
        if let Some(error) = written.err().or(lit.and_then(Result::err)) {
            tracing::warn!(%error, "the LED does not obey");
        }
    }

    /// The node has ended.
    pub fn end(&mut self) {
        self.show(Health::Ended);
        self.rest();
    }

    /// The node is going to end because it was told to: nothing is reset for that, however long it takes.
    pub fn rest(&mut self) {
        if let Some((mut device, _)) = self.watchdog.take()
            // The kernel's magic letter (`Documentation/watchdog/watchdog-api.rst`).
            && let Err(error) = device.write_all(b"V").and_then(|()| device.flush())
        {
            tracing::warn!(%error, "the watchdog was not told that the node ends");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bindings, Clock, Sim};

    #[test]
    fn the_led_and_the_watchdog_of_a_profile_are_used() {
        let sim = Sim::new(&Bindings::default(), Clock::manual()).unwrap();
        let board: Arc<dyn Board> = Arc::new(sim.clone());
        let rpi4 = Profile::named("rpi4").unwrap();
        board.write_attribute("/sys/class/watchdog/watchdog0/timeout", "15\n").unwrap();
        let mut guard = Guard::new(board.clone(), &rpi4, true, true).unwrap();
        // What a start has to do may take longer than a watchdog waits.
        assert!(guard.period().is_none() && board.read_attribute("/dev/watchdog0").is_err());
        guard.watch().unwrap();
        assert_eq!(guard.period(), Some(Duration::from_secs(5)));
        let read = |path: &str| board.read_attribute(path).unwrap();
        guard.show(Health::Starting);
        assert_eq!(read("/sys/class/leds/ACT/trigger"), "timer");
        guard.feed();
        guard.feed();
        guard.show(Health::Running);
        assert_eq!(
            (read("/sys/class/leds/ACT/trigger").as_str(), read("/sys/class/leds/ACT/brightness").as_str()),
            ("none", "1")
        );
        guard.rest();
        assert_eq!((read("/dev/watchdog0").as_str(), guard.period()), ("\0\0V", None));
        guard.end();
        assert_eq!(read("/sys/class/leds/ACT/brightness"), "0");
        assert_eq!(read("/dev/watchdog0"), "\0\0V", "told last that it is no crash");
        let generic = Profile::named("generic-arm64").unwrap();
        let error = Guard::new(board.clone(), &generic, false, true).map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), "the profile `generic-arm64` has no watchdog");
    }
}
