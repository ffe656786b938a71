//! What becomes of an outcome.

use std::sync::{Arc, Mutex};
use std::sync::atomic::Ordering;
use std::time::Duration;

use holm_core::{Event, Fault, FunctionName, Outcome, Payload, StateWrite, Timestamp, When};
use holm_mqtt::Refusal;
use holm_store::{Account, CommitError, Done, InboxId, QueueError, Quota, Settlement, StateReader, Write};

use super::chain::{Released, Staging};
use super::job::{Completion, TicketState};
use super::street::Leaving;
use super::{Dispatcher, Job, Loaded, Origin, Slot, Ticket, lock};
use crate::clock;
use crate::journal::EventEntry;

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
enum Ending {
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

/// How long an event waits that the node had no room to run.
const NOT_RUN_WAIT: Duration = Duration::from_millis(500);

impl Dispatcher {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn settle(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        loaded: &Arc<Loaded>,
        job: Job,
        outcome: Outcome,
        children: Vec<(FunctionName, Outcome)>,
        generation: u64,
        reader: &StateReader,
    ) -> Verdict {
        let account = account(&job.event, &outcome);
        let wall_us = account.wall_us;
        let Outcome { result, effects, mut reads, logs, .. } = outcome;
        let mut fault_words = result.as_ref().err().map(|fault| (fault.kind(), fault.message()));
        let durable = !matches!(job.origin, Origin::Volatile);
        let event = job.event.clone();
        let mut staging = Staging::new(self, &event, durable);
        let ending = match result {
            Ok(answer) => {
                staging.effects(&slot.name, loaded, effects);
                for (name, child) in children {
                    reads.extend(child.reads);
                    if let Some(loaded) = self.slot(&name).and_then(|slot| slot.loaded()) {
                        staging.effects(&name, &loaded, child.effects);
                    }
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
        let quotas = self.quotas(slot, loaded, &writes);
        let settlement = Settlement {
            writes,
            reads,
            generation: Some(generation),
            quotas,
            account: durable.then(|| (slot.name.clone(), account)),
        };
        let succeeded = matches!(ending, Ending::Succeeded);
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
            let stats = &slot.stats;
            stats.wall_us.fetch_add(wall_us, Ordering::Relaxed);
            if succeeded {
                stats.succeeded.fetch_add(1, Ordering::Relaxed);
            } else {
                stats.failed.fetch_add(1, Ordering::Relaxed);
                if let Some((kind, words)) = &fault_words {
                    if matches!(*kind, "trap" | "timeout" | "exhausted") {
                        stats.faulted.fetch_add(1, Ordering::Relaxed);
                    }
                    stats.note_fault(format!("{kind}: {words}"));
                }
            }
            self.journal.log(&slot.name, clock::now(), logs);
            let words = fault_words.take();
            let cost = 160 + event.subject.len() + words.as_ref().map_or(0, |(_, words)| words.len());
            self.journal.events.push(cost, |number| EventEntry {
                number,
                time: event.time,
                id: event.id.0.clone(),
                source: event.source,
                subject: event.subject.clone(),
                function: slot.name.shared(),
                attempt: event.attempt,
                outcome: words.as_ref().map_or("ok", |(kind, _)| kind),
                fault: words.map(|(_, words)| words),
                wall_us,
                bytes: event.data.len(),
            });
        }
        verdict
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
            // Rows of the local lane can be read only now.
            let street = self.street.clone();
            let lane = released.has_lane();
            let done = move |_| {
                if lane {
                    street.let_go(Leaving::Lane);
                }
            };
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
    fn settle_row(
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
        match ending {
            Ending::Succeeded => settlement.writes.push(Write::Unpark(id)),
            Ending::Dead(fault) => {
                settlement.writes.push(bury(slot, loaded, &job.event, &fault));
                settlement.writes.push(Write::Unpark(id));
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
        let done = move |result: Result<(), CommitError>| {
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

    /// The event has just arrived. The first of its functions to finish settles for all of them.
    #[allow(clippy::too_many_arguments)]
    fn settle_fresh(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        loaded: &Arc<Loaded>,
        job: Job,
        mut settlement: Settlement,
        released: Released,
        ending: Ending,
        reader: &StateReader,
    ) -> Result<Verdict, (Job, String)> {
        let Origin::Fresh { ticket, member } = &job.origin else { return Ok(Verdict::Settled(None)) };
        let (ticket, member) = (ticket.clone(), *member);
        // Held until the settlement is queued, so that the order of transactions is that of the ticket's states.
        let mut state = lock(&ticket.state);
        if state.failed {
            // The publisher was refused and will send again: nothing of this may happen.
            return Ok(Verdict::Settled(None));
        }
        if state.queued {
            let row = state.members.get(member).and_then(|member| member.inbox);
            drop(state);
            return match row {
                Some(id) => self.settle_row(slot, loaded, job, id, settlement, released, ending, reader),
                None => Ok(Verdict::Settled(None)),
            };
        }
        let mut writes = state.base.clone();
        let parked = self.park_others(&mut writes, &state, &job.event, Some(member));
        let mut own_row = None;
        match ending {
            Ending::Succeeded => {}
            Ending::Dead(fault) => writes.push(bury(slot, loaded, &job.event, &fault)),
            Ending::Retry(wait, fault) => {
                let id = self.store.next_inbox_id();
                slot.block(loaded, id);
                own_row = Some(id);
                writes.push(park(slot, id, &job.event, job.event.attempt + 1, after(wait), &fault));
            }
            Ending::NotRun(fault) => {
                let id = self.store.next_inbox_id();
                own_row = Some(id);
                writes.push(park(slot, id, &job.event, job.event.attempt, after(NOT_RUN_WAIT), &fault));
            }
        }
        writes.append(&mut settlement.writes);
        settlement.writes = writes;
        let rows = parked.len() as u64 + u64::from(own_row.is_some());
        let first = self.first_commit(ticket.clone(), released, rows);
        let waiting = slot.clone();
        let done = move |result: Result<(), CommitError>| {
            if let (Err(_), Some(id)) = (&result, own_row) {
                waiting.unblock(id);
            }
            first(result);
        };
        match self.enqueue(slot, settlement, reader, done) {
            Ok(settled) => {
                self.mark_queued(&mut state, parked);
                if let Some(member) = state.members.get_mut(member) {
                    member.done = true;
                }
                Ok(Verdict::Settled(settled.map(Held::Done)))
            }
            Err(QueueError::Closed) => Ok(Verdict::Settled(None)),
            Err(error) => {
                for (_, id) in parked {
                    self.release(id);
                }
                if let Some(id) = own_row {
                    slot.unblock(id);
                }
                drop(state);
                match error {
                    QueueError::Quota { would_be, limit } => Err((job, quota_words(would_be, limit))),
                    _ => Ok(Verdict::RunAgain(job)),
                }
            }
        }
    }

    /// Parks what no function has finished in time: the first transaction then holds rows only.
    pub(super) fn park_ticket(self: &Arc<Self>, ticket: &Arc<Ticket>) {
        let mut state = lock(&ticket.state);
        if state.queued || state.failed {
            return;
        }
        let mut writes = state.base.clone();
        let parked = self.park_others(&mut writes, &state, &ticket.event, None);
        let rows = parked.len() as u64;
        let done = self.first_commit(ticket.clone(), Released::default(), rows);
        let settlement = Settlement { writes, ..Settlement::default() };
        match self.store.queue(settlement, done) {
            Ok(()) => self.mark_queued(&mut state, parked),
            Err(_) => {
                state.failed = true;
                self.store.arrived();
                for (_, id) in parked {
                    self.release(id);
                }
            }
        }
    }

    /// Rows for every member but `except`. They are held: their jobs are in memory.
    fn park_others(
        &self,
        writes: &mut Vec<Write>,
        state: &TicketState,
        event: &Arc<Event>,
        except: Option<usize>,
    ) -> Vec<(usize, InboxId)> {
        let now = clock::now();
        let mut parked = Vec::new();
        for (index, member) in state.members.iter().enumerate() {
            if Some(index) == except || member.done {
                continue;
            }
            let id = self.store.next_inbox_id();
            if !member.stranded {
                self.hold(id);
            }
            parked.push((index, id));
            let function = member.function.clone();
            writes.push(Write::Park { id, function, event: event.clone(), due: now, fault: None });
        }
        parked
    }

    fn mark_queued(&self, state: &mut TicketState, parked: Vec<(usize, InboxId)>) {
        state.queued = true;
        state.base = Vec::new();
        for (index, id) in parked {
            if let Some(member) = state.members.get_mut(index) {
                member.inbox = Some(id);
            }
        }
        // The writer has it now, or will never: either way it need not be waited for.
        self.store.arrived();
    }

    /// What happens when the first transaction of a ticket is committed, or is not.
    fn first_commit(
        self: &Arc<Self>,
        ticket: Arc<Ticket>,
        released: Released,
        rows: u64,
    ) -> impl FnOnce(Result<(), CommitError>) + Send + 'static {
        let this = self.clone();
        move |result| {
            let completion = {
                let mut state = lock(&ticket.state);
                state.failed = result.is_err();
                if state.failed {
                    for id in state.members.iter().filter_map(|member| member.inbox) {
                        this.release(id);
                    }
                }
                state.completion.take()
            };
            if let Some(completion) = completion {
                this.complete(completion, &result);
            }
            if result.is_ok() {
                this.let_go(released);
                if rows > 0 {
                    this.signal.hungry();
                }
            }
        }
    }

    /// Lets go what settled jobs have set free. Locks of tickets must not be held.
    pub(super) fn let_all_go(&self, held: &Mutex<Vec<Held>>) {
        // Not held meanwhile: letting go takes locks of its own.
        for held in std::mem::take(&mut *lock(held)) {
            match held {
                Held::Released(released) => self.let_go(released),
                Held::Done(done) => done(Ok(())),
            }
        }
    }

    /// Tells the publisher, and everybody who sent the same message meanwhile.
    pub(super) fn complete(&self, completion: Completion, result: &Result<(), CommitError>) {
        let Completion { plan, ack, key } = completion;
        let answer = match result {
            Ok(()) => {
                self.street.deliver(plan);
                Ok(())
            }
            Err(CommitError::DiskFull) => Err(Refusal::QuotaExceeded),
            Err(_) => Err(Refusal::Unavailable),
        };
        if answer.is_err() {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
        let waiters = key.and_then(|key| lock(&self.arriving).remove(&key)).unwrap_or_default();
        for waiter in ack.into_iter().chain(waiters) {
            // The connection may be gone: then its client will ask again.
            let _ = waiter.send(answer);
        }
    }

    /// Queues a settlement from a guest thread. A quota that seems exceeded is counted exactly before it is believed.
    fn enqueue(
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

fn after(wait: Duration) -> Timestamp {
    Timestamp(clock::now().0.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)))
}

fn park(slot: &Slot, id: InboxId, event: &Arc<Event>, attempt: u32, due: Timestamp, fault: &Fault) -> Write {
    let mut next = Event::clone(event);
    next.attempt = attempt;
    Write::Park { id, function: slot.name.clone(), event: Arc::new(next), due, fault: Some(fault.message()) }
}

fn bury(slot: &Slot, loaded: &Loaded, event: &Arc<Event>, fault: &Fault) -> Write {
    Write::Bury {
        function: slot.name.clone(),
        event: event.clone(),
        now: clock::now(),
        keep: loaded.manifest.dead_letter_max_age,
        kind: fault.kind(),
        fault: fault.message(),
    }
}

fn account(event: &Event, outcome: &Outcome) -> Account {
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
        effects: holm_core::Effects::default(),
        reads: Vec::new(),
        logs: Vec::new(),
        usage: holm_core::Usage::default(),
        recording: None,
    }
}

fn quota_words(would_be: u64, limit: u64) -> String {
    format!("{would_be} bytes of {limit}")
}
