//! How long functions may have an update wait.
//!
//! # How it works
//!
//! A function that has asked to be told of updates is asked right before the trial. It can have the update wait, and is asked again then.
//! All that functions ask for comes out of one patience: what the device's configuration gives, and at most half of what is left before
//! the deadline, so that a function never makes a deployment fail. It is written down with each wait that is given, and a desired state
//! that takes the place of one that waits gets what is left: however often either is replaced or the node restarts, it ends.
//!
//! A wait ends before the update window does. The n-th one has 2n seconds at least, up to a minute, whatever was asked for: each is a
//! write of the disk and a message.

use std::time::{Duration, Instant};

use holm_core::Timestamp;
use holm_protocol::{DesiredState, Phase, ReasonCode};
use tokio::sync::watch;

use super::record::Work;
use super::repository::blocking;
use super::task::{Ended, Reconciler};
use super::{Objection, Question, Refusal};

/// What the n-th wait has at least is n times this.
const LEAST: Duration = Duration::from_secs(2);

/// And no more than this.
const LEAST_ENDS: Duration = Duration::from_secs(60);

/// What is not worth a question.
const NOTHING: Duration = Duration::from_secs(1);

/// What functions have said to an update, in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// They are to be asked.
    Due,
    /// One of them has it wait until then.
    Waits(Instant),
    /// None has an objection.
    Agreed,
}

impl Asked {
    /// A wait that is over.
    pub(super) fn at(self, now: Instant) -> Self {
        match self {
            Self::Waits(until) if now >= until => Self::Due,
            other => other,
        }
    }
}

impl Reconciler {
    /// Asks functions whether the update may begin. `open` are the minutes that its window is open still.
    pub(super) async fn ask(
        &mut self,
        state: &DesiredState,
        open: Option<u32>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Ended<Result<(), Refusal>> {
        let Some(work) = &self.record.work else { return Ended::Done(Ok(())) };
        // The last minute is left for what was asked for to be begun in.
        let open = open.map(|minutes| Duration::from_secs(60 * u64::from(minutes.saturating_sub(1))));
        let Some(left) = left(work, self.defer, open) else {
            self.asked = Asked::Agreed;
            return Ended::Done(Ok(()));
        };
        let question =
            Question { generation: state.generation, attempt: work.asked + 1, left, newer: self.newer.clone() };
        let (installer, functions) = (self.installer.clone(), state.functions.clone());
        let begun = Instant::now();
        let asking = blocking(move || installer.objection(&question, &functions));
        let objection = match self.undisturbed(asking, shutdown).await {
            Ended::Done(Ok(objection)) => objection,
            Ended::Done(Err(refusal)) => return Ended::Done(Err(refusal)),
            Ended::Disturbed => return Ended::Disturbed,
            Ended::Stopped => return Ended::Stopped,
        };
        let Some(Objection { function, reason, wait }) = objection else {
            self.asked = Asked::Agreed;
            return Ended::Done(Ok(()));
        };
        self.spend();
        let before = self.record.clone();
        let Some(work) = &mut self.record.work else { return Ended::Done(Ok(())) };
        let wait = give(work, left, self.defer, wait, begun.elapsed());
        tracing::info!(%function, reason, ?wait, "an update waits because a function asks for it");
        let now = self.fetcher.source.time().likely().0;
        let until = now.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
        let words = format!("{function}: {reason}; it is asked again at {} UTC", time_of_day(until));
        work.to(Phase::Deferred, Some(Refusal::new(ReasonCode::DeferredByFunction, words)));
        work.until = Some(Timestamp(until));
        let kept = self.keep().await;
        match kept {
            Ok(()) => self.asked = Asked::Waits(Instant::now() + wait),
            // Not given before it is written down.
            Err(_) => self.record = before,
        }
        Ended::Done(kept)
    }
}

/// What is left of the patience with this work. `given` is the configuration's, `open` for how long the update window is open still.
pub(super) fn left(work: &Work, given: Duration, open: Option<Duration>) -> Option<Duration> {
    let left = Duration::from_millis(work.patience_ms.unwrap_or(work.left_ms / 2)).min(given);
    let left = open.map_or(left, |open| left.min(open));
    (left >= NOTHING).then_some(left)
}

/// Gives a wait of what is left, which has been asked for in `asking`. Returns its length.
pub(super) fn give(work: &mut Work, left: Duration, given: Duration, wanted: Duration, asking: Duration) -> Duration {
    work.asked = work.asked.saturating_add(1);
    let wait = wanted.max((LEAST * work.asked).min(LEAST_ENDS)).min(left);
    let before = Duration::from_millis(work.patience_ms.unwrap_or(work.left_ms / 2)).min(given);
    work.patience_ms = Some(u64::try_from(before.saturating_sub(wait + asking).as_millis()).unwrap_or_default());
    wait
}

fn time_of_day(time: i64) -> String {
    let seconds = time.div_euclid(1_000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::record::tests::work;
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_function_that_always_wants_to_wait_is_not_asked_for_ever() {
        for (given, deadline, open, sum) in [
            (HOUR, 4 * HOUR, None, HOUR),
            (4 * HOUR, HOUR, None, HOUR / 2),
            (HOUR, 4 * HOUR, Some(HOUR / 4), HOUR / 4),
            (Duration::ZERO, HOUR, None, Duration::ZERO),
        ] {
            for wanted in [Duration::ZERO, Duration::from_secs(7), HOUR, Duration::MAX] {
                let mut work = work(holm_protocol::Phase::Staged, 0, u64::try_from(deadline.as_millis()).unwrap());
                let mut waited = Duration::ZERO;
                while let Some(left) = left(&work, given, open.map(|open| open.saturating_sub(waited))) {
                    let wait = give(&mut work, left, given, wanted, Duration::ZERO);
                    waited += wait;
                    work.spend(wait);
                }
                assert!(waited <= sum && waited + NOTHING > sum, "{given:?} {deadline:?} {wanted:?}: {waited:?}");
                assert!(work.asked < 100, "{} questions", work.asked);
            }
        }
    }

    #[test]
    fn time_that_asking_takes_is_taken_off() {
        let mut work = work(holm_protocol::Phase::Staged, 0, 100_000);
        let wait = give(&mut work, HOUR, HOUR, Duration::from_secs(10), Duration::from_secs(9));
        assert_eq!((wait, work.patience_ms), (Duration::from_secs(10), Some(31_000)));
    }
}
