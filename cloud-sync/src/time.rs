//! The time by which certificates are judged: the floor of [`TrustedTime`], and never the device's wall clock alone.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use holm_core::Timestamp;
use holm_trust::{MAX_PAST_BUILD, Moment, TrustedTime};
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

/// Where the time comes from. Handed in by the agent, and by tests.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// The time of day, which may be anything.
    pub wall: fn() -> Timestamp,
    /// The time since the boot, by a clock that counts through sleep.
    pub uptime: fn() -> Duration,
    /// When the agent was built: the time is later.
    pub built: Timestamp,
}

/// Trusted time, shared by whoever hears of it and whoever needs it.
#[derive(Debug)]
pub struct Time {
    clocks: Clocks,
    trusted: Mutex<TrustedTime>,
}

impl Time {
    /// With the floor that was stored, if one was.
    pub fn new(clocks: Clocks, stored: Option<Timestamp>) -> Self {
        Self { clocks, trusted: Mutex::new(TrustedTime::new(clocks.built, stored)) }
    }

    /// Where it comes from.
    pub fn clocks(&self) -> Clocks {
        self.clocks
    }

    /// The wall clock, for what people read.
    pub fn wall(&self) -> Timestamp {
        (self.clocks.wall)()
    }

    /// A server told the time over an authenticated connection. Returns the floor if it went up.
    pub fn told(&self, time: Timestamp) -> Option<Timestamp> {
        self.trusted.lock().unwrap_or_else(PoisonError::into_inner).told(time, (self.clocks.uptime)())
    }

    /// The time is this or later.
    pub fn at_least(&self) -> Timestamp {
        self.trusted.lock().unwrap_or_else(PoisonError::into_inner).at_least((self.clocks.uptime)())
    }

    /// All that is known, and the time since the boot that goes with it.
    pub(crate) fn trusted(&self) -> (TrustedTime, Duration) {
        (*self.trusted.lock().unwrap_or_else(PoisonError::into_inner), (self.clocks.uptime)())
    }

    /// What is known of the time now.
    pub(crate) fn moment(&self) -> Moment {
        let (trusted, uptime) = self.trusted();
        trusted.moment(uptime)
    }

    /// The best guess, for what does no harm if it comes early: the wall clock, where it can be right.
    pub fn likely(&self) -> Timestamp {
        let (floor, wall) = (self.at_least(), self.wall());
        let latest = self.latest();
        if wall > floor && wall <= latest { wall } else { floor }
    }

    /// No time beyond this is believed.
    pub(crate) fn latest(&self) -> Timestamp {
        let most = i64::try_from(MAX_PAST_BUILD.as_millis()).unwrap_or(i64::MAX);
        Timestamp(self.clocks.built.0.saturating_add(most))
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix(self.at_least()))
    }
}

/// For rustls.
pub(crate) fn unix(time: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(time.0).unwrap_or_default()))
}
