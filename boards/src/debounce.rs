//! Waiting until a contact has settled.

use std::time::Duration;

use holm_core::Level;

/// Reports a change once the line has held still for a while. A burst that ends where it began is none.
#[derive(Debug, Clone)]
pub struct Debouncer {
    still: Duration,
    reported: Level,
    /// What it has changed to, and when last.
    pending: Option<(Level, Duration)>,
}

impl Debouncer {
    /// For a line that is at `level`. With zero, every change is reported at once.
    pub fn new(still: Duration, level: Level) -> Self {
        Self { still, reported: level, pending: None }
    }

    /// The line has changed.
    pub fn feed(&mut self, level: Level, at: Duration) {
        self.pending = Some((level, at));
    }

    /// When it is worth to look again.
    pub fn deadline(&self) -> Option<Duration> {
        self.pending.map(|(_, at)| at.saturating_add(self.still))
    }

    /// The change that has settled by `now`, with the time at which the line came to rest.
    pub fn settled(&mut self, now: Duration) -> Option<(Level, Duration)> {
        let (level, at) = self.pending.filter(|_| self.deadline().is_some_and(|deadline| deadline <= now))?;
        self.pending = None;
        if level == self.reported {
            return None;
        }
        self.reported = level;
        Some((level, at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Level::{High, Low};

    /// Feeds changes at milliseconds and looks at every millisecond.
    fn check(still: u64, changes: &[(u64, Level)], expected: &[(u64, Level, u64)]) {
        let ms = Duration::from_millis;
        let mut debouncer = Debouncer::new(ms(still), Low);
        let mut found = Vec::new();
        for now in 0..100 {
            for (_, level) in changes.iter().filter(|(at, _)| *at == now) {
                debouncer.feed(*level, ms(now));
            }
            if let Some((level, at)) = debouncer.settled(ms(now)) {
                found.push((now, level, at.as_millis() as u64));
            }
        }
        assert_eq!(found, expected, "{still} ms, {changes:?}");
    }

    #[test]
    fn a_change_is_reported_when_it_has_settled() {
        check(0, &[(1, High), (2, Low)], &[(1, High, 1), (2, Low, 2)]);
        check(5, &[(1, High)], &[(6, High, 1)]);
        check(5, &[(1, High), (2, Low), (4, High)], &[(9, High, 4)]);
        check(5, &[(1, High), (3, Low)], &[]);
        check(5, &[(1, High), (20, Low), (21, High), (22, Low)], &[(6, High, 1), (27, Low, 22)]);
    }
}
