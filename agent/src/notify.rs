//! Telling systemd, or whoever started the node, how it is.

use std::time::Duration;

use sd_notify::NotifyState;

/// The node serves.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The node drains.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// How often the watchdog wants to be fed, if there is one: half of its patience.
pub fn watchdog_period() -> Option<Duration> {
    // Set by systemd for the main process (sd_watchdog_enabled(3)).
    let micros: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    let mine = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
    (mine && micros > 0).then(|| Duration::from_micros(micros / 2))
}

/// The node is alive.
pub fn watchdog() {
    tell(&[NotifyState::Watchdog]);
}

fn tell(state: &[NotifyState<'_>]) {
    // Without NOTIFY_SOCKET this does nothing, which is the common case.
    if let Err(error) = sd_notify::notify(false, state) {
        tracing::debug!(%error, "could not notify the service manager");
    }
}
