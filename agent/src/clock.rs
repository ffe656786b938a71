//! The node's clock: the only place that asks the system for the time of day.

use std::time::{SystemTime, UNIX_EPOCH};

use holm_core::Timestamp;

/// Times before this are those of a board without a battery: 2024-01-01.
const PLAUSIBLE: i64 = 1_704_067_200_000;

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
