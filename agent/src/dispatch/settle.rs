//! What becomes of an outcome.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holm_core::{Event, Fault, FunctionName, LogLine, Outcome, Payload, Source, StateWrite, Timestamp, When};
use holm_store::{Account, CommitError, Done, InboxId, QueueError, Quota, Settlement, StateReader, Write};

use super::ask::Ended;
use super::chain::{Released, Staging};
use super::host::Step;
use super::{Dispatcher, Job, Loaded, Origin, Slot, lock};
use crate::clock;
use crate::journal::EventEntry;
use crate::tape::Take;

/// Whether the worker is done with a job.
pub(super) enum Verdict {
    /// It is queued for commit, or is settled: then what that sets free comes back, for the worker to let go.
    Settled(Option<Held>),
    /// What it read has changed: run it again.
    RunAgain(Job),
}

/// What a settled job sets free: a batch of these costs the receivers one wake-up.
pub(super) enum Held {
    /// Of a volatile event.
    Released(Released),
    /// Of a settlement that had nothing to commit.
    Done(Done),
}

/// An attempt's result in the terms of the retry policy.
pub(super) enum Ending {
    Succeeded,
    /// Try again after this long; the attempt counts.
    Retry(Duration, Fault),
    /// The node could not run it: try again soon; the attempt does not count.
    NotRun(Fault),
    /// No more attempts.
    Dead(Fault),
}

/// The most bytes of keys and values in a shared namespace. It is nobody's own, so no manifest can say; as much as a few
/// functions may have together, and little enough that a node holds dozens.
const SHARED_LIMIT: u64 = 16 << 20;

/// The part of `store.inbox_rows` that functions may fill beyond it. Messages are refused before: a function whose events
/// each make several others could not work off a full inbox without some room for those.
const HEADROOM: u64 = 4;

/// How long an event waits that the node had no room to run.
pub(super) const NOT_RUN_WAIT: Duration = Duration::from_millis(500);

impl Dispatcher {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn settle(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        loaded: &Arc<Loaded>,
        job: Job,
        outcome: Outcome,
        steps: Vec<Step>,
        generation: u64,
        reader: &StateReader,
    ) -> Verdict {
        // Only a request that is not kept has a client.
        let has_client = job.event.source == Source::Http && matches!(job.origin, Origin::Volatile);
        let outcome = if has_client { outcome } else { outcome.without_client() };
        let account = account(&job.event, &outcome);
        let wall_us = account.wall_us;
        let take = self.journal.tape.as_ref().map(|_| {
            let below = steps.iter().map(|step| &step.effects);
            Take::of(slot.name.shared(), clock::now(), &job.event, &outcome, below)
        });
        // By the source first: clients of the broker choose the ids of their events, and must not answer for a function.
        let asked =
            matches!(job.event.source, Source::Http | Source::Lifecycle) && self.asking.is_waited_for(&job.event.id);
        let told = asked.then(|| Ended { result: outcome.result.clone(), response: outcome.response.clone() });
        let Outcome { result, effects, mut reads, logs, .. } = outcome;
        let fault_words = result.as_ref().err().map(|fault| (fault.kind(), fault.message()));
        let durable = !matches!(job.origin, Origin::Volatile);
        let event = job.event.clone();
        let mut staging = Staging::new(self, &event, durable);
        let ending = match result {
            Ok(answer) => {
                let nested = !steps.is_empty();
                for step in steps {
                    reads.extend(step.reads);
                    staging.effects(&step.loaded.manifest.name, &step.loaded, step.effects);
                }
                staging.effects(&slot.name, loaded, effects);
                if nested {
                    keep_last_states(&mut staging.writes);
                }
                staging.chain(&slot.name, When::Success, answer.unwrap_or_default());
                Ending::Succeeded
            }
            Err(fault) => ending(loaded, &event, fault),
        };
        if let Ending::Dead(_) = &ending {
            let input = Payload { content_type: event.content_type.clone(), data: event.data.clone() };
            staging.chain(&slot.name, When::Failure, input);
        }
        let Staging { writes, released, .. } = staging;
        if !self.has_room(&writes, &job.origin) {
            let fault = Fault::Unavailable { reason: "the inbox is full (`store.inbox_rows`)".to_owned() };
            return self.settle(slot, loaded, job, failure(fault), Vec::new(), generation, reader);
        }
        let quotas = self.quotas(slot, loaded, &writes);
        let settlement = Settlement {
            writes,
            reads,
            generation: Some(generation),
            quotas,
            account: durable.then(|| (slot.name.clone(), account)),
        };
        let verdict = match job.origin {
            Origin::Volatile => self.settle_volatile(slot, job, settlement, released, reader),
            Origin::Inbox(id) => self.settle_row(slot, loaded, job, id, settlement, released, ending, reader),
            Origin::Fresh { .. } => self.settle_fresh(slot, loaded, job, settlement, released, ending, reader),
        };
        let verdict = match verdict {
            Ok(verdict) => verdict,
            // Over its quota: the same job, now as a failure without effects.
            Err((job, words)) => {
                let fault = Fault::Exhausted { resource: format!("key-value ({words})") };
                let outcome = failure(fault);
                return self.settle(slot, loaded, job, outcome, Vec::new(), generation, reader);
            }
        };
        if matches!(verdict, Verdict::Settled(_)) {
            if !durable {
                self.store.account(&slot.name, &account);
            }
            self.note(slot, loaded, &event, fault_words, wall_us, logs);
            if let (Some(tape), Some((take, cost))) = (&self.journal.tape, take) {
                tape.push(cost, |number| Take { number, ..take });
            }
            if let Some(told) = told {
                self.asking.tell(&event.id, told);
            }
        }
        verdict
    }

    /// What people see of an invocation: the function's figures, its log, and the ring of events.
    pub(super) fn note(
        &self,
        slot: &Slot,
        loaded: &Loaded,
        event: &Event,
        fault: Option<(&'static str, String)>,
        wall_us: u64,
        logs: Vec<LogLine>,
    ) {
        let stats = &slot.stats;
        stats.wall_us.fetch_add(wall_us, Ordering::Relaxed);
        for tally in [&stats.tally, &loaded.tally] {
            tally.count(fault.as_ref().map(|(kind, _)| *kind));
        }
        if let Some((kind, words)) = &fault {
            stats.note_fault(format!("{kind}: {words}"));
        }
        self.journal.log(&slot.name, clock::now(), logs);
        let cost = 160 + event.subject.len() + fault.as_ref().map_or(0, |(_, words)| words.len());
        self.journal.events.push(cost, |number| EventEntry {
            number,
            time: event.time,
            id: event.id.0.clone(),
            source: event.source,
            subject: event.subject.clone(),
            function: slot.name.shared(),
            attempt: event.attempt,
            outcome: fault.as_ref().map_or("ok", |(kind, _)| kind),
            fault: fault.map(|(_, words)| words),
            wall_us,
            bytes: event.data.len(),
        });
    }

    /// What the namespaces that are written may hold: a function's own, and those of the functions that it invoked, as much
    /// as their manifests say; a shared one [`SHARED_LIMIT`]. Nothing where no state is written, as with most events.
    fn quotas(&self, slot: &Slot, loaded: &Loaded, writes: &[Write]) -> Vec<Quota> {
        let mut quotas: Vec<Quota> = Vec::new();
        for write in writes {
            let Write::State(StateWrite { namespace, .. }) = write else { continue };
            if quotas.iter().any(|quota| quota.namespace == *namespace) {
                continue;
            }
            let limit = if **namespace == *slot.name.as_str() {
                loaded.manifest.limits.kv
            } else {
                // The name of a shared namespace is not one that a function can have.
                let other = FunctionName::new(namespace).ok().and_then(|name| self.slot(&name)?.loaded());
                other.map_or(SHARED_LIMIT, |loaded| loaded.manifest.limits.kv)
            };
            quotas.push(Quota::new(namespace.clone(), limit));
        }
        quotas
    }

    /// No transaction to wait for. State and rows that the effects entail are queued; publishes leave now.
    fn settle_volatile(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        job: Job,
        settlement: Settlement,
        released: Released,
        reader: &StateReader,
    ) -> Result<Verdict, (Job, String)> {
        if !settlement.writes.is_empty() {
            let place = self.street.place(&settlement.writes);
            let done = move |_| drop(place);
            match self.enqueue(slot, settlement, reader, done) {
                Ok(_) => {}
                Err(QueueError::Quota { would_be, limit }) => return Err((job, quota_words(would_be, limit))),
                Err(QueueError::Conflict | QueueError::Stale) => return Ok(Verdict::RunAgain(job)),
                Err(QueueError::Closed) => return Ok(Verdict::Settled(None)),
            }
        }
        Ok(Verdict::Settled(Some(Held::Released(released))))
    }

    /// The event has a row in the inbox: it goes away, or waits for another attempt.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn settle_row(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        loaded: &Arc<Loaded>,
        job: Job,
        id: InboxId,
        mut settlement: Settlement,
        released: Released,
        ending: Ending,
        reader: &StateReader,
    ) -> Result<Verdict, (Job, String)> {
        let gone = matches!(ending, Ending::Succeeded | Ending::Dead(_));
        let unpark = Write::Unpark { id, function: slot.name.clone() };
        match ending {
            Ending::Succeeded => settlement.writes.push(unpark),
            Ending::Dead(fault) => {
                settlement.writes.push(bury(slot, loaded, &job.event, &fault));
                settlement.writes.push(unpark);
            }
            Ending::Retry(wait, fault) => {
                slot.block(loaded, id);
                let (attempt, due) = (job.event.attempt + 1, after(wait));
                settlement.writes.push(Write::Postpone { id, attempt, due, fault: fault.message() });
            }
            Ending::NotRun(fault) => {
                let (attempt, due) = (job.event.attempt, after(NOT_RUN_WAIT));
                settlement.writes.push(Write::Postpone { id, attempt, due, fault: fault.message() });
            }
        }
        let this = self.clone();
        let waiting = slot.clone();
        let place = self.street.place(&settlement.writes);
        let done = move |result: Result<(), CommitError>| {
            drop(place);
            // Whatever came of it, the row is the feeder's again: gone, postponed, or as it was.
            this.release(id);
            if result.is_ok() {
                if gone {
                    waiting.unblock(id);
                    this.rouse(&waiting);
                }
                this.let_go(released);
            }
            if result.is_err() {
                this.signal.hungry_after(NOT_RUN_WAIT);
            } else if !gone {
                this.signal.hungry();
            }
        };
        match self.enqueue(slot, settlement, reader, done) {
            Ok(settled) => Ok(Verdict::Settled(settled.map(Held::Done))),
            Err(QueueError::Closed) => Ok(Verdict::Settled(None)),
            Err(QueueError::Quota { would_be, limit }) => Err((job, quota_words(would_be, limit))),
            Err(QueueError::Conflict | QueueError::Stale) => Ok(Verdict::RunAgain(job)),
        }
    }

    /// Lets go what settled jobs have set free. Locks of tickets must not be held.
    pub(super) fn let_all_go(&self, held: &Mutex<Vec<Held>>) {
        let _hold = self.street.hold();
        // Not held meanwhile: letting go takes locks of its own.
        for held in std::mem::take(&mut *lock(held)) {
            match held {
                Held::Released(released) => self.let_go(released),
                Held::Done(done) => done(Ok(())),
            }
        }
    }

    /// Whether the inbox may take the rows that an event entails. An event that has a row gives that up.
    fn has_room(&self, writes: &[Write], origin: &Origin) -> bool {
        let parks = writes.iter().filter(|write| matches!(write, Write::Park { .. })).count() as u64;
        let more = parks.saturating_sub(u64::from(matches!(origin, Origin::Inbox(_))));
        let limit = self.settings.inbox_rows;
        more == 0 || self.store.inbox_rows().saturating_add(more) <= limit.saturating_add(limit / HEADROOM)
    }

    /// Queues a settlement from a guest thread. A quota that seems exceeded is counted exactly before it is believed.
    pub(super) fn enqueue(
        &self,
        slot: &Slot,
        mut settlement: Settlement,
        reader: &StateReader,
        done: impl FnOnce(Result<(), CommitError>) + Send + 'static,
    ) -> Result<Option<Done>, QueueError> {
        if !self.store.fits(&settlement)
            && let Err(error) = self.store.weigh(&mut settlement, reader)
        {
            tracing::warn!(%error, function = %slot.name, "cannot measure the function's state");
        }
        self.store.queue_blocking(settlement, done)
    }
}

/// Leaves one write for each key, the last: what several invocations wrote one after the other happens at once.
fn keep_last_states(writes: &mut Vec<Write>) {
    let mut seen = HashSet::new();
    let mut kept: Vec<bool> = writes
        .iter()
        .rev()
        .map(|write| match write {
            Write::State(state) => seen.insert((state.namespace.clone(), state.key.clone())),
            _ => true,
        })
        .collect();
    // They come in the order of `rev`, and so are taken from the end.
    writes.retain(|_| kept.pop().unwrap_or(true));
}

fn ending(loaded: &Loaded, event: &Event, fault: Fault) -> Ending {
    let retry = &loaded.manifest.retry;
    match fault {
        Fault::Unavailable { .. } => Ending::NotRun(fault),
        Fault::Reject { .. } => Ending::Dead(fault),
        _ if event.attempt >= retry.max_attempts => Ending::Dead(fault),
        Fault::Retry { after: Some(after), .. } => Ending::Retry(after, fault),
        _ => Ending::Retry(retry.wait_after(event.attempt), fault),
    }
}

pub(super) fn after(wait: Duration) -> Timestamp {
    Timestamp(clock::now().0.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)))
}

pub(super) fn park(slot: &Slot, id: InboxId, event: &Arc<Event>, attempt: u32, due: Timestamp, fault: &Fault) -> Write {
    let mut next = Event::clone(event);
    next.attempt = attempt;
    Write::Park { id, function: slot.name.clone(), event: Arc::new(next), due, fault: Some(fault.message()) }
}

pub(super) fn bury(slot: &Slot, loaded: &Loaded, event: &Arc<Event>, fault: &Fault) -> Write {
    Write::Bury {
        function: slot.name.clone(),
        event: event.clone(),
        now: clock::now(),
        keep: loaded.manifest.dead_letter_max_age,
        kind: fault.kind(),
        fault: fault.message(),
    }
}

pub(super) fn account(event: &Event, outcome: &Outcome) -> Account {
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    Account {
        invocations: 1,
        errors: u64::from(outcome.result.is_err()),
        wall_us: micros(outcome.usage.wall),
        // Taken for whole turns: see the worker.
        cpu_us: 0,
        peak_memory: outcome.usage.peak_memory,
        bytes_in: event.data.len() as u64,
        bytes_out: outcome.usage.bytes_out,
    }
}

fn failure(fault: Fault) -> Outcome {
    Outcome {
        result: Err(fault),
        response: None,
        effects: holm_core::Effects::default(),
        reads: Vec::new(),
        logs: Vec::new(),
        usage: holm_core::Usage::default(),
        recording: None,
    }
}

pub(super) fn quota_words(would_be: u64, limit: u64) -> String {
    format!("{would_be} bytes of {limit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_write_of_a_key_is_kept_and_everything_else() {
        let state = |namespace: &str, key: &str, value: Option<&'static str>| {
            let value = value.map(|text| bytes::Bytes::from_static(text.as_bytes()));
            Write::State(holm_core::StateWrite { namespace: namespace.into(), key: key.into(), value })
        };
        let mut writes = vec![
            state("a", "n", Some("1")),
            Write::Exhume(1),
            state("b", "n", Some("1")),
            state("a", "m", Some("1")),
            state("a", "n", None),
            Write::Exhume(1),
            state("a", "m", Some("2")),
        ];
        keep_last_states(&mut writes);
        let expected = [
            Write::Exhume(1),
            state("b", "n", Some("1")),
            state("a", "n", None),
            Write::Exhume(1),
            state("a", "m", Some("2")),
        ];
        assert_eq!(writes, expected);
    }
}
