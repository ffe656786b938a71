//! The node's clock: the only place that asks the system for the time of day.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holm_core::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Times before this are those of a board without a battery: 2024-01-01.
const PLAUSIBLE: i64 = 1_704_067_200_000;

/// The time is later than this: when this release was made, or what the one who built it says by `SOURCE_DATE_EPOCH`
/// (<https://reproducible-builds.org/specs/source-date-epoch/>).
pub const BUILT: Timestamp = Timestamp(match option_env!("SOURCE_DATE_EPOCH") {
    Some(seconds) => match i64::from_str_radix(seconds, 10) {
        Ok(seconds) if seconds * 1_000 > RELEASED => seconds * 1_000,
        _ => RELEASED,
    },
    None => RELEASED,
});

/// 2026-11-01.
const RELEASED: i64 = 1_793_491_200_000;

/// Not the clock of `Instant`, which stands still while a machine sleeps.
#[cfg(target_os = "linux")]
const UPTIME: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const UPTIME: ClockId = ClockId::Monotonic;

/// The time since the boot. It is never set, and counts through sleep.
pub fn uptime() -> Duration {
    clock_gettime(UPTIME).try_into().unwrap_or_default()
}

/// Now, in milliseconds since 1970; 0 when the clock is set before that.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Whether a time can be right. A first rule, until the node keeps a floor of trusted time.
pub fn plausible(time: Timestamp) -> bool {
    time.0 >= PLAUSIBLE
}
