//! Trusted time: what the time is at least.
//!
//! A board without a battery wakes in 1970, a bad time server may say 2099, and both must neither stop what runs nor open a door.
//! So the wall clock is not asked. What counts is a floor under the real time: the latest of the agent's build time, the floor
//! that was stored, and what a server said over an authenticated connection, plus what a monotonic clock counted since.
//!
//! - Whatever expires before the floor has expired, surely.
//! - Whatever expires after it is fresh only if a server has told the time since the boot; otherwise freshness is unknown, and the
//!   caller accepts what is newer than what it has, and says so.
//! - The device's own wall clock never raises the floor: a clock that was in the future once would freeze all updates for ever.

use std::time::Duration;

use holm_core::Timestamp;

/// How far beyond the agent's build a server's time is believed. An agent that is not updated for 20 years has other troubles, and a
/// server that jumps by centuries is broken.
pub const MAX_PAST_BUILD: Duration = Duration::from_secs(20 * 366 * 86_400);

/// How much two honest servers may differ. One that is behind the floor by no more still vouches for freshness.
pub const MAX_SERVER_SKEW: Duration = Duration::from_secs(300);

/// Whether something has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It has not.
    Fresh,
    /// It has not as far as is known, and little is known.
    Unknown,
    /// It has. The time is at least this.
    Expired(Timestamp),
}

/// What is known about the time. Monotonic times are those since the boot, by a clock that counts through sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedTime {
    build: Timestamp,
    floor: Timestamp,
    /// The monotonic time at which a server told the floor, if one has since the boot.
    told: Option<Duration>,
}

impl TrustedTime {
    /// At start: the agent's build time, and the floor that was stored, if any. One that is absurdly late is not believed.
    pub fn new(build: Timestamp, stored: Option<Timestamp>) -> Self {
        let floor = stored.filter(|floor| believable(build, *floor)).map_or(build, |floor| floor.max(build));
        Self { build, floor, told: None }
    }

    /// A server told the time over an authenticated connection. Returns the floor to store if it went up. A time before the floor, by
    /// more than [`MAX_SERVER_SKEW`], is not believed and changes nothing: time does not go back, and a server that says so cannot
    /// vouch for freshness either.
    pub fn told(&mut self, time: Timestamp, monotonic: Duration) -> Option<Timestamp> {
        let now = self.at_least(monotonic);
        if time.0.saturating_add(milliseconds(MAX_SERVER_SKEW)) < now.0 || !believable(self.build, time) {
            return None;
        }
        let before = self.floor;
        self.floor = now.max(time);
        self.told = Some(monotonic);
        (self.floor > before).then_some(self.floor)
    }

    /// The time is this or later.
    pub fn at_least(&self, monotonic: Duration) -> Timestamp {
        let since = self.told.map_or(Duration::ZERO, |told| monotonic.saturating_sub(told));
        Timestamp(self.floor.0.saturating_add(milliseconds(since)))
    }

    /// What is known of the time now.
    pub fn moment(&self, monotonic: Duration) -> Moment {
        Moment { at_least: self.at_least(monotonic), told: self.told.is_some() }
    }

    /// Whether something that expires at `expires` has.
    pub fn freshness(&self, expires: Timestamp, monotonic: Duration) -> Freshness {
        self.moment(monotonic).freshness(expires)
    }
}

/// What is known of the time at one moment. An update of the repository's metadata takes one and keeps it to its end
/// (<https://theupdateframework.github.io/specification/latest/#fix-time>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// It is this or later.
    pub at_least: Timestamp,
    /// Whether somebody who should know has told the time since the boot.
    pub told: bool,
}

impl Moment {
    /// By a clock that is believed: that of the machine a person sits at, not that of a board.
    pub fn by_clock(now: Timestamp) -> Self {
        Self { at_least: now, told: true }
    }

    /// Whether something that expires at `expires` has.
    pub fn freshness(self, expires: Timestamp) -> Freshness {
        if self.at_least >= expires {
            Freshness::Expired(self.at_least)
        } else if self.told {
            Freshness::Fresh
        } else {
            Freshness::Unknown
        }
    }
}

fn believable(build: Timestamp, time: Timestamp) -> bool {
    time.0 <= build.0.saturating_add(milliseconds(MAX_PAST_BUILD))
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
