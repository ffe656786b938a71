//! How fast one device may send: what comes faster waits, and nobody but that device waits with it.
//!
//! # How it works
//!
//! A message that is early is settled late. The broker reads no more of a device while four of its messages are being settled, so a device
//! that sends in a loop is held up by its own socket, and costs the others nothing. Nothing is refused and nothing is lost: a device that
//! has a backlog sends larger batches instead. It is counted, and said in the log once a minute and device.
//!
//! The bucket is that of the generic cell rate algorithm (ITU-T I.371): one moment for each device, the one at which its bucket is full again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two messages, in the long run: a hundred a second, as AWS IoT Core has it for a connection.
const EVERY: Duration = Duration::from_millis(10);

/// Messages that may come at once: whoever comes back has something to say of each of its streams.
const BURST: u32 = 1_000;

/// How often it is said of a device that it is held up.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Devices of which nothing has to be remembered are forgotten when there are so many.
const FORGET: usize = 4_096;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// When it is full again.
    full: Instant,
    /// Messages that were held up since start.
    held: u64,
    said: Option<Instant>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    buckets: Mutex<HashMap<String, Bucket>>,
}

impl Pace {
    /// Takes one message of a device in: how long it has to wait. To be asked once for each message, in their order.
    pub(crate) fn wait(&self, thing: &str, now: Instant) -> Duration {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= FORGET && !buckets.contains_key(thing) {
            buckets.retain(|_, bucket| bucket.full > now || bucket.held > 0);
        }
        let fresh = || Bucket { full: now, held: 0, said: None };
        let bucket = buckets.entry(thing.to_owned()).or_insert_with(fresh);
        bucket.full = bucket.full.max(now) + EVERY;
        let wait = bucket.full.saturating_duration_since(now).saturating_sub(EVERY * BURST);
        if wait > Duration::ZERO {
            bucket.held += 1;
            if bucket.said.is_none_or(|said| now.saturating_duration_since(said) >= SAY_EVERY) {
                bucket.said = Some(now);
                tracing::warn!(%thing, held = bucket.held, "a device sends more than a hundred messages a second: it is held up");
            }
        }
        wait
    }

    /// Messages of a device that were held up since start.
    pub(crate) fn held(&self, thing: &str) -> u64 {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.get(thing).map_or(0, |bucket| bucket.held)
    }

    /// The same of all devices, and how many those are.
    pub(crate) fn all(&self) -> (u64, usize) {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let held: Vec<u64> = buckets.values().map(|bucket| bucket.held).filter(|held| *held > 0).collect();
        (held.iter().sum(), held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_sends_in_a_loop_is_held_to_its_rate_and_no_other_is() {
        let (pace, begin) = (Pace::default(), Instant::now());
        let mut last = Duration::ZERO;
        for number in 0..BURST + 500 {
            let wait = pace.wait("loop", begin);
            assert_eq!(wait > Duration::ZERO, number >= BURST, "message {number}");
            assert!(wait >= last, "they keep their order");
            last = wait;
        }
        assert_eq!((last, pace.held("loop")), (500 * EVERY, 500));
        assert_eq!(pace.wait("calm", begin), Duration::ZERO);
        assert_eq!((pace.held("calm"), pace.all()), (0, (500, 1)));
        // A bucket that had time to fill is as good as new.
        let later = begin + EVERY * (BURST + 500);
        assert_eq!(pace.wait("loop", later), Duration::ZERO);
    }
}
