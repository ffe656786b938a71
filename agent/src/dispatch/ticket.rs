//! The first transaction of a durable event, which settles for all of its functions: the one that finished first, and
//! the others, who get rows of the inbox.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use holm_core::Event;
use holm_mqtt::Refusal;
use holm_store::{CommitError, InboxId, QueueError, Settlement, StateReader, Write};

use super::chain::Released;
use super::job::{Completion, TicketState};
use super::settle::{Ending, Held, NOT_RUN_WAIT, Verdict, after, bury, park, quota_words};
use super::{Dispatcher, Job, Loaded, Origin, Slot, Ticket, lock};
use crate::clock;

impl Dispatcher {
    /// The event has just arrived. The first of its functions to finish settles for all of them.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn settle_fresh(
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
            let row = state.members.get(member).and_then(|member| member.inbox);
            drop(state);
            if let Some(id) = row {
                // An attempt that was settled too late may have made others wait for a row that there never was.
                slot.unblock(id);
                self.rouse(slot);
            }
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
        // ADR 10: an event that leaves nothing but messages for another broker is acknowledged when that has them.
        let relay = self.street.relay(&mut settlement.writes);
        let place = self.street.place(&settlement.writes);
        let first = self.first_commit(ticket.clone(), released, rows);
        let (this, waiting) = (self.clone(), slot.clone());
        let done = move |result: Result<(), CommitError>| {
            if let (Err(_), Some(id)) = (&result, own_row) {
                waiting.unblock(id);
                this.rouse(&waiting);
            }
            drop(place);
            match relay {
                Some(relay) if result.is_ok() => relay.go(this.store.clone(), first),
                _ => first(result),
            }
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
            let mut never = Vec::new();
            let completion = {
                let mut state = lock(&ticket.state);
                state.failed = result.is_err();
                if state.failed {
                    let rows = state.members.iter().filter_map(|member| Some((member.function.clone(), member.inbox?)));
                    never.extend(rows);
                }
                state.completion.take()
            };
            for (function, id) in never {
                this.release(id);
                // A function that keeps order may have failed meanwhile, and would wait for a row that there never was.
                if let Some(slot) = this.slot(&function) {
                    slot.unblock(id);
                    this.rouse(&slot);
                }
            }
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
}
