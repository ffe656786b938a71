//! The node's clock: the only place that asks the system for the time of day.
//!
//! In a rehearsal ([`crate::rehearsal`]) it stands still until it is set forward, for the whole process.

use std::sync::atomic::{AtomicI64, Ordering};
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

/// What [`STANDS_AT`] holds while the system's clock counts.
const RUNS: i64 = i64::MIN;

/// Where a clock stands that is set by hand.
static STANDS_AT: AtomicI64 = AtomicI64::new(RUNS);

/// The time since the boot. It is never set, and counts through sleep.
pub fn uptime() -> Duration {
    clock_gettime(UPTIME).try_into().unwrap_or_default()
}

/// Now, in milliseconds since 1970; 0 when the clock is set before that.
pub fn now() -> Timestamp {
    match STANDS_AT.load(Ordering::Relaxed) {
        RUNS => system(),
        at => Timestamp(at),
    }
}

/// The time since some moment, for rates and intervals: nobody sets it, unless it stands still.
pub fn steady() -> Duration {
    match STANDS_AT.load(Ordering::Relaxed) {
        RUNS => clock_gettime(ClockId::Monotonic).try_into().unwrap_or_default(),
        at => Duration::from_millis(u64::try_from(at).unwrap_or_default()),
    }
}

/// From now on the clock stands at `at`, or where [`set_forward`] sets it. Once, before anything is started.
pub fn stand_still(at: Timestamp) {
    STANDS_AT.store(at.0, Ordering::SeqCst);
}

/// Sets a clock that stands still forward; never back, and never one that runs.
pub fn set_forward(to: Timestamp) {
    if STANDS_AT.load(Ordering::SeqCst) != RUNS {
        STANDS_AT.fetch_max(to.0, Ordering::SeqCst);
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn system() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Whether a time can be right. A first rule, until the node keeps a floor of trusted time.
pub fn plausible(time: Timestamp) -> bool {
    time.0 >= PLAUSIBLE
}
