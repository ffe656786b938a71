//! Schedules: cron expressions in local time, and intervals.
//!
//! The time of the last firing is part of the firing's own settlement, so a schedule neither skips nor doubles a firing
//! over a crash. The task wakes at least every [`NAP`], so that a clock that jumps is noticed: a firing is due when the
//! time of day has passed it, whichever way it got there. A clock that steps back a little does not fire again what has fired; one that steps back
//! further was wrong before, and schedules go by what it says now.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use croner::Cron;
use holm_core::{FunctionName, Manifest, MissedRun, ScheduleWhen, Source, Timestamp, TriggerKind};
use holm_store::Write;
use jiff::Zoned;
use tokio::sync::watch;

use crate::clock;
use crate::dispatch::{Dispatcher, Slot, event_now};

/// The longest time without a look at the clock.
const NAP: Duration = Duration::from_secs(1);

/// A firing that is later than this was missed, rather than delayed by a busy node.
const LATE: i64 = 10_000;

/// The most that a clock is set back in its ordinary course. A firing that lies further ahead was by a clock that was
/// wrong, and to wait until that time comes could be to wait for years.
const STEP_BACK: i64 = 60_000;

/// One schedule of one function, with what it waits for.
struct Plan {
    when: When,
    /// In milliseconds since 1970.
    next: i64,
}

enum When {
    Cron(Box<Cron>),
    Interval(i64),
}

type Key = (FunctionName, Arc<str>);

/// Fires schedules until `shutdown`.
pub async fn run(dispatcher: Arc<Dispatcher>, mut shutdown: watch::Receiver<bool>) {
    let mut schedules = Schedules::default();
    loop {
        let wake = match schedules.turn(&dispatcher) {
            Some(next) => {
                let left = u64::try_from(next.saturating_sub(clock::now().0)).unwrap_or(0);
                NAP.min(Duration::from_millis(left.max(1)))
            }
            // Nothing to wait for but a deployment; a look every nap costs next to nothing.
            None => NAP * 2,
        };
        tokio::select! {
            () = tokio::time::sleep(wake) => {}
            _ = shutdown.changed() => return,
        }
    }
}

/// All schedules of the active functions, with what each waits for.
#[derive(Default)]
pub struct Schedules {
    plans: HashMap<(Key, u64), Plan>,
    /// When the clock was last looked at.
    before: Option<i64>,
}

impl Schedules {
    /// Fires what is due; says when the next is, in milliseconds since 1970.
    pub fn turn(&mut self, dispatcher: &Arc<Dispatcher>) -> Option<i64> {
        let plans = &mut self.plans;
        let now = clock::now();
        if self.before.replace(now.0).is_some_and(|before| before - now.0 > STEP_BACK) {
            // What was planned by the old clock is as wrong as that was.
            plans.clear();
        }
        let mut known = Vec::new();
        for slot in dispatcher.active().slots.values() {
            let Some(loaded) = slot.loaded() else { continue };
            for trigger in &loaded.manifest.triggers {
                let TriggerKind::Schedule { name, when, missed } = &trigger.kind else { continue };
                let key = ((slot.name.clone(), name.clone()), loaded.generation);
                known.push(key.clone());
                if !plans.contains_key(&key) {
                    match plan(dispatcher, &key.0, when, *missed, now) {
                        Ok(plan) => {
                            plans.insert(key.clone(), plan);
                        }
                        Err(error) => {
                            tracing::error!(function = %slot.name, schedule = %name, error, "a schedule cannot be used");
                            let never = Plan { when: When::Interval(i64::MAX), next: i64::MAX };
                            plans.insert(key.clone(), never);
                        }
                    }
                }
                let Some(plan) = plans.get_mut(&key) else { continue };
                if plan.next <= now.0 {
                    let due = plan.next;
                    plan.next = plan.when.after(now.0, due);
                    if now.0 - due <= LATE || *missed == MissedRun::RunOnce {
                        fire(dispatcher, slot, name, due, trigger.durable);
                    }
                } else if let When::Interval(every) = plan.when
                    && plan.next - now.0 > every
                {
                    // The clock was set back: an interval goes on from here.
                    plan.next = now.0.saturating_add(every);
                }
            }
        }
        plans.retain(|key, _| known.contains(key));
        plans.values().map(|plan| plan.next).min()
    }

    /// When a schedule of a function fires next. `Err` has the names of those that it has.
    pub fn next_of(&self, function: &FunctionName, name: &str) -> Result<i64, Vec<Arc<str>>> {
        let own = self.plans.iter().filter(|(((of, _), _), _)| of == function);
        let mut names = Vec::new();
        for (((_, known), _), plan) in own {
            if **known == *name {
                return Ok(plan.next);
            }
            names.push(known.clone());
        }
        names.sort();
        Err(names)
    }
}

/// What is wrong with the schedules of a manifest.
pub fn problems(manifest: &Manifest) -> Vec<String> {
    let schedules = manifest.triggers.iter().filter_map(|trigger| match &trigger.kind {
        TriggerKind::Schedule { name, when: ScheduleWhen::Cron(text), .. } => Some((name, text)),
        _ => None,
    });
    let problem = |(name, text): (&Arc<str>, &Arc<str>)| {
        let error = Cron::from_str(text).err()?;
        Some(format!("the schedule `{name}`: `{text}` is no cron expression: {error}"))
    };
    schedules.filter_map(problem).collect()
}

fn plan(
    dispatcher: &Dispatcher,
    key: &Key,
    when: &ScheduleWhen,
    missed: MissedRun,
    now: Timestamp,
) -> Result<Plan, String> {
    let when = match when {
        ScheduleWhen::Cron(text) => When::Cron(Box::new(Cron::from_str(text).map_err(|error| error.to_string())?)),
        ScheduleWhen::Interval(every) => When::Interval(i64::try_from(every.as_millis()).unwrap_or(i64::MAX)),
    };
    let last = dispatcher.store.fired(&key.0, &key.1).map_err(|error| error.to_string())?;
    let from = when.from(last.map(|last| last.0), missed, now.0);
    let next = when.after(from, from);
    Ok(Plan { when, next })
}

impl When {
    /// From when on the next firing is looked for, if the last one was at `last`.
    fn from(&self, last: Option<i64>, missed: MissedRun, now: i64) -> i64 {
        match last {
            // Count from the last firing, so that one that was missed while the node was off is due now.
            Some(last) if missed == MissedRun::RunOnce && last < now => last,
            // After a step back: never fire again what has fired.
            Some(last) if last > now && last - now <= STEP_BACK && matches!(self, Self::Cron(_)) => last,
            _ => now,
        }
    }

    /// The first firing after `now`, for a schedule that was due at `due`.
    fn after(&self, now: i64, due: i64) -> i64 {
        match self {
            Self::Interval(every) => {
                let behind = now.saturating_sub(due) / (*every).max(1);
                due.saturating_add(every.saturating_mul(behind.saturating_add(1)))
            }
            Self::Cron(cron) => {
                let Ok(from) = jiff::Timestamp::from_millisecond(now) else { return i64::MAX };
                let from: Zoned = from.to_zoned(jiff::tz::TimeZone::system());
                cron.find_next_occurrence(&from, false).map_or(i64::MAX, |next| next.timestamp().as_millisecond())
            }
        }
    }
}

fn fire(dispatcher: &Arc<Dispatcher>, slot: &Arc<Slot>, name: &Arc<str>, due: i64, durable: bool) {
    let event = event_now(dispatcher.new_id(), Source::Schedule, name.clone());
    let fired = Write::Fired { function: slot.name.clone(), name: name.clone(), at: Timestamp(due) };
    drop(dispatcher.trigger(slot, event, durable, vec![fired]));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_interval_that_fell_behind_keeps_its_phase() {
        let every = When::Interval(1000);
        assert_eq!(every.after(5_000, 5_000), 6_000);
        assert_eq!(every.after(9_300, 5_000), 10_000, "four firings missed, the fifth is next");
    }

    #[test]
    fn a_firing_in_the_future_is_waited_for_only_if_the_clock_was_set_back_a_little() {
        let cron = When::Cron(Box::new(Cron::from_str("* * * * *").unwrap()));
        let now = 1_767_268_800_000;
        let year = 365 * 86_400_000;
        for (last, missed, from) in [
            (None, MissedRun::Skip, now),
            (Some(now + 30_000), MissedRun::Skip, now + 30_000),
            (Some(now + STEP_BACK), MissedRun::RunOnce, now + STEP_BACK),
            (Some(now + STEP_BACK + 1), MissedRun::Skip, now),
            (Some(now + 10 * year), MissedRun::RunOnce, now),
            (Some(now - year), MissedRun::Skip, now),
            (Some(now - year), MissedRun::RunOnce, now - year),
        ] {
            assert_eq!(cron.from(last, missed, now), from, "{last:?}");
        }
        assert_eq!(When::Interval(1000).from(Some(now + 30_000), MissedRun::Skip, now), now);
    }

    #[test]
    fn cron_expressions_find_their_next_minute() {
        let cron = When::Cron(Box::new(Cron::from_str("*/5 * * * *").unwrap()));
        let noon = 1_767_268_800_000; // 2026-01-01T12:00:00Z, at a whole five minutes in every zone.
        assert_eq!(cron.after(noon + 1, noon), noon + 300_000);
    }
}
