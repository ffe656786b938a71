//! When the time of day was set, held against a clock that nobody sets.
//!
//! A board without a battery runs in 1970 until it hears the time; then everything that it has dated would be half a
//! century old. Whoever keeps dates looks here before anything expires by them, and moves those that are from before.

use std::time::Duration;

use crate::Timestamp;

/// A time of day that is off by less, in milliseconds, is corrected without anything being dated anew. Not less than the
/// time between two looks, so that what was written since a jump forward, in the new time, is never taken for old.
const SLACK: i64 = 60_000;

/// Times before this are those of a board that does not know the time: 2024-01-01, before any release.
const PLAUSIBLE: i64 = 1_704_067_200_000;

/// What the clocks show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// The time of day, in milliseconds since 1970. It may be set, in either direction.
    pub wall: i64,
    /// The time since some start. It is never set.
    pub uptime: Duration,
}

/// Notices when the time of day was set.
#[derive(Debug, Clone, Copy)]
pub struct JumpWatch {
    /// When the watch began, by the time of day as it is now.
    began: i64,
    /// When the time of day was last found to be right, or made the measure.
    last: ClockReading,
}

/// The time of day was set.
#[derive(Debug, Clone, Copy)]
pub struct Jump {
    /// By how many milliseconds.
    pub by: i64,
    /// What it would be now if it had not been set.
    pub expected: i64,
    /// When the watch began, by the old time.
    began: i64,
    /// What it is now.
    now: ClockReading,
}

impl JumpWatch {
    /// Begins to watch.
    pub fn new(now: ClockReading) -> Self {
        Self { began: now.wall, last: now }
    }

    /// Whether the time of day was set since it was last [settled](Self::settle) with.
    pub fn jump(&mut self, now: ClockReading) -> Option<Jump> {
        let passed = now.uptime.saturating_sub(self.last.uptime);
        let expected = self.last.wall.saturating_add(i64::try_from(passed.as_millis()).unwrap_or(i64::MAX));
        let by = now.wall.saturating_sub(expected);
        if by.saturating_abs() <= SLACK {
            self.last = now;
            return None;
        }
        Some(Jump { by, expected, began: self.began, now })
    }

    /// What was written before the jump is dated anew.
    pub fn settle(&mut self, jump: &Jump) {
        self.began = self.began.saturating_add(jump.by);
        self.last = jump.now;
    }
}

impl Jump {
    /// Now, by the old time or by the new one, whichever is earlier: nothing is older than it seems by this.
    pub fn earlier(&self) -> i64 {
        self.expected.min(self.now.wall)
    }

    /// The first and the last time that was written in this run, or by anybody who did not know the time: how old that
    /// is, nobody knows, and the node may have been started again without the board.
    pub fn old(&self) -> (i64, i64) {
        if self.expected < PLAUSIBLE { (i64::MIN, PLAUSIBLE - 1) } else { (self.began, self.expected) }
    }

    /// What a time of before the jump is after it; one of another run stays.
    pub fn moved(&self, time: Timestamp) -> Timestamp {
        let (from, to) = self.old();
        if (from..=to).contains(&time.0) { Timestamp(time.0.saturating_add(self.by)) } else { time }
    }

    /// When something is due that was put off before the jump; what was put off since, by the new time, stays.
    pub fn put_off(&self, due: Timestamp) -> Timestamp {
        let before = if self.by > 0 { due.0 <= self.now.wall } else { due.0 >= self.expected };
        if before { Timestamp(due.0.saturating_add(self.by)) } else { due }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall: i64, uptime: u64) -> ClockReading {
        ClockReading { wall, uptime: Duration::from_millis(uptime) }
    }

    #[test]
    fn ages_stay_what_they_were() {
        const NOW: i64 = 1_800_000_000_000;
        let mut watch = JumpWatch::new(at(5_000, 0));
        assert!(watch.jump(at(65_000, 60_000)).is_none(), "time passes");
        assert!(watch.jump(at(70_000, 61_000)).is_none(), "a correction is no jump");
        let jump = watch.jump(at(NOW, 71_000)).unwrap();
        assert_eq!(jump.moved(Timestamp(80_000 - 1_500)), Timestamp(NOW - 1_500));
        assert_eq!(
            jump.moved(Timestamp(NOW - 86_400_000)),
            Timestamp(NOW - 86_400_000),
            "of an earlier run that knew the time"
        );
        watch.settle(&jump);
        assert!(watch.jump(at(NOW + 1_000, 72_000)).is_none());
        let back = watch.jump(at(NOW - 3_600_000 + 2_000, 73_000)).unwrap();
        assert_eq!(back.moved(Timestamp(NOW)), Timestamp(NOW - 3_600_000));
        assert_eq!(back.moved(Timestamp(NOW - 90_000)), Timestamp(NOW - 90_000), "of before this run");
    }
}
