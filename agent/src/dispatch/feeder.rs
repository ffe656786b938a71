//! The thread that watches the clock for the dispatcher: it parks events that no function has finished in time, brings
//! due rows of the inbox back into memory, and rouses functions whose rate allows the next event.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use holm_core::{FunctionName, Timestamp};
use holm_store::InboxId;

use super::{ActiveSet, Dispatcher, Job, Origin, Slot, Ticket, lock};
use crate::clock;

/// Ids of rows that are read at a time.
const BATCH: usize = 128;

/// Rows that are read at a time. Each may be as large as the largest message, so this bounds what the feeder holds.
const READ: usize = 8;

/// The longest nap: the time of day may be set forward, which makes rows due without a notice.
const NAP: Duration = Duration::from_secs(30);

/// How long a row waits whose function has no room or is not there.
const FULL_WAIT: Duration = Duration::from_millis(100);

/// What the feeder is told by others.
#[derive(Default)]
pub(super) struct Signal {
    inner: Mutex<Inner>,
    told: Condvar,
}

#[derive(Default)]
struct Inner {
    /// There may be due rows.
    hungry: bool,
    /// There may be due rows, but a look is no use before this.
    hungry_at: Option<Instant>,
    closed: bool,
    /// Durable events that no function has finished with, oldest first. Bounded by the connections' windows.
    parking: VecDeque<(Instant, Weak<Ticket>)>,
    /// Functions that wait for their rate; at most one entry per worker turn.
    rousing: Vec<(Instant, Arc<Slot>)>,
    /// When the feeder looks again by itself; none while it is awake, for it looks before it sleeps.
    looks_at: Option<Instant>,
}

impl Inner {
    /// Forgets the oldest events that are settled, which nearly all are by the time another one comes.
    fn forget_settled(&mut self) {
        while self.parking.pop_front_if(|(_, ticket)| ticket.strong_count() == 0).is_some() {}
    }
}

impl Signal {
    pub(super) fn hungry(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let news = !std::mem::replace(&mut inner.hungry, true);
        drop(inner);
        if news {
            self.told.notify_one();
        }
    }

    /// As [`Signal::hungry`], after a wait: for a store that refuses commits, which asking again at once would not mend.
    pub(super) fn hungry_after(&self, wait: Duration) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.hungry_at.is_none() {
            inner.hungry_at = Some(Instant::now() + wait);
            drop(inner);
            self.told.notify_one();
        }
    }

    /// `ticket` is to be parked at `deadline` if nobody has settled it.
    pub(super) fn park_at(&self, deadline: Instant, ticket: &Arc<Ticket>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        // By whoever made them: memory is freed best where it came from.
        inner.forget_settled();
        inner.parking.push_back((deadline, Arc::downgrade(ticket)));
        let late = inner.looks_at.is_some_and(|at| at > deadline);
        drop(inner);
        if late {
            self.told.notify_one();
        }
    }

    pub(super) fn rouse_at(&self, deadline: Instant, slot: &Arc<Slot>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.rousing.push((deadline, slot.clone()));
        drop(inner);
        self.told.notify_one();
    }

    pub(super) fn close(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.told.notify_one();
    }
}

/// What is to be done now.
#[derive(Default)]
struct Due {
    feed: bool,
    tickets: Vec<Arc<Ticket>>,
    slots: Vec<Arc<Slot>>,
    closed: bool,
}

impl Dispatcher {
    /// The feeder's loop. Its owner gives it a thread. Ends after [`Dispatcher::drain`], with every unsettled event
    /// parked.
    pub fn feed(self: &Arc<Self>) {
        let mut next_row = Some(clock::now());
        loop {
            let due = self.wait(next_row);
            for ticket in &due.tickets {
                self.park_ticket(ticket);
            }
            for slot in &due.slots {
                self.rouse(slot);
            }
            if due.closed {
                return;
            }
            if due.feed || next_row.is_some_and(|at| at <= clock::now()) {
                next_row = self.feed_rows().unwrap_or_else(|error| {
                    tracing::error!(%error, "cannot read the inbox");
                    Some(Timestamp(clock::now().0 + 1000))
                });
            }
        }
    }

    fn wait(&self, next_row: Option<Timestamp>) -> Due {
        let mut inner = self.signal.inner.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = Instant::now();
            inner.looks_at = None;
            let closed = inner.closed;
            let rested = inner.hungry_at.is_some_and(|at| at <= now);
            if rested {
                inner.hungry_at = None;
            }
            let mut due = Due { feed: std::mem::take(&mut inner.hungry) || rested, closed, ..Due::default() };
            inner.forget_settled();
            while inner.parking.front().is_some_and(|(deadline, _)| closed || *deadline <= now) {
                due.tickets.extend(inner.parking.pop_front().and_then(|(_, ticket)| ticket.upgrade()));
            }
            let (ripe, later) = std::mem::take(&mut inner.rousing).into_iter().partition(|(at, _)| *at <= now);
            inner.rousing = later;
            due.slots.extend(Vec::into_iter(ripe).map(|(_, slot)| slot));
            let row_wait = next_row.map(|at| Duration::from_millis(u64::try_from(at.0 - clock::now().0).unwrap_or(0)));
            let row_ripe = row_wait == Some(Duration::ZERO);
            if due.feed || due.closed || row_ripe || !due.tickets.is_empty() || !due.slots.is_empty() {
                return due;
            }
            let mut nap = row_wait.unwrap_or(NAP).min(NAP);
            if let Some((deadline, _)) = inner.parking.front() {
                nap = nap.min(deadline.saturating_duration_since(now));
            }
            if let Some(deadline) = inner.rousing.iter().map(|(at, _)| *at).chain(inner.hungry_at).min() {
                nap = nap.min(deadline.saturating_duration_since(now));
            }
            inner.looks_at = Some(now + nap);
            let (guard, _) = self.signal.told.wait_timeout(inner, nap).unwrap_or_else(PoisonError::into_inner);
            inner = guard;
        }
    }

    /// Brings due rows into memory; says when to look again.
    fn feed_rows(self: &Arc<Self>) -> Result<Option<Timestamp>, holm_store::StoreError> {
        let now = clock::now();
        let mut after = InboxId(0);
        let mut refused = false;
        // Rows of functions that are not there, or have no room, must not stand before those of others.
        let set = self.active();
        self.feed_blocked(&set, now)?;
        let mut open: Vec<FunctionName> =
            set.slots.values().filter(|slot| slot.is_runnable()).map(|slot| slot.name.clone()).collect();
        while !open.is_empty() {
            let due = self.store.due_of(&open, now, after, BATCH)?;
            let short = due.len() < BATCH;
            let before = open.len();
            for chunk in due.chunks(READ) {
                after = chunk.last().copied().unwrap_or(after);
                self.feed_chunk(chunk, &mut open)?;
                if open.len() < before {
                    // The rest of the batch is perhaps of those that have no room: ask for that of the others.
                    break;
                }
            }
            refused |= open.len() < before;
            if short && open.len() == before {
                break;
            }
        }
        if refused {
            return Ok(Some(Timestamp(now.0 + FULL_WAIT.as_millis() as i64)));
        }
        // Rows that are due but held, or nobody's, do not count: their holders say when they change.
        self.store.next_due_after(now)
    }

    /// Reads the rows and gives them to their functions; those that have no room leave `open`.
    fn feed_chunk(
        self: &Arc<Self>,
        ids: &[InboxId],
        open: &mut Vec<FunctionName>,
    ) -> Result<(), holm_store::StoreError> {
        // First held, then read: a row whose job has just finished is released after the commit that deletes it,
        // so what is read after that is not there any more. The other way round it would run twice.
        let claimed: Vec<InboxId> = ids.iter().copied().filter(|id| self.hold(*id)).collect();
        let rows = self.store.parked(&claimed).inspect_err(|_| claimed.iter().for_each(|id| self.release(*id)))?;
        for id in claimed.iter().filter(|id| !rows.iter().any(|row| row.id == **id)) {
            self.release(*id);
        }
        for row in rows {
            // Once a row has found no room, those behind it must not pass it.
            let slot = if open.contains(&row.function) { self.slot(&row.function) } else { None };
            let Some(slot) = slot else {
                self.release(row.id);
                continue;
            };
            let job = Job { event: Arc::new(row.event), origin: Origin::Inbox(row.id) };
            if self.push(&slot, job).is_err() {
                self.release(row.id);
                open.retain(|name| *name != row.function);
            }
        }
        Ok(())
    }

    /// Brings back the rows that functions wait for which keep order. They find room however full the queue is, and must
    /// not stand behind rows that find none: those find none until this one has run.
    fn feed_blocked(self: &Arc<Self>, set: &ActiveSet, now: Timestamp) -> Result<(), holm_store::StoreError> {
        for (slot, id) in set.slots.values().filter_map(|slot| Some((slot, slot.blocked_on()?))) {
            // A row that is held has its job in memory, or a transaction under way.
            if !slot.is_runnable() || !self.hold(id) {
                continue;
            }
            let rows = self.store.parked(&[id]).inspect_err(|_| self.release(id))?;
            let row = rows.into_iter().find(|row| row.due <= now);
            let job = row.map(|row| Job { event: Arc::new(row.event), origin: Origin::Inbox(id) });
            if job.is_none_or(|job| self.push(slot, job).is_err()) {
                self.release(id);
            }
        }
        Ok(())
    }

    /// Puts a slot back into the run queue if it has something to run.
    pub(crate) fn rouse(&self, slot: &Arc<Slot>) {
        if slot.rouse() {
            self.run_queue.push(slot.clone());
        }
    }

    pub(super) fn rouse_later(&self, slot: &Arc<Slot>, wait: Duration) {
        self.signal.rouse_at(Instant::now() + wait, slot);
    }

    /// Gives a removed function's jobs up: their rows stay in the inbox, and events that have none yet get one.
    pub fn abandon(self: &Arc<Self>, slot: &Slot) {
        for job in slot.clear() {
            match job.origin {
                Origin::Inbox(id) => self.release(id),
                Origin::Fresh { ticket, member } => self.strand(&ticket, member),
                Origin::Volatile => {
                    self.asking.give_up(&job.event.id);
                    self.note_drop();
                }
            }
        }
    }

    /// A fresh event has lost its job for one function.
    fn strand(self: &Arc<Self>, ticket: &Arc<Ticket>, member: usize) {
        let mut state = lock(&ticket.state);
        let row = state.members.get_mut(member).and_then(|member| {
            member.stranded = true;
            member.inbox
        });
        drop(state);
        match row {
            Some(id) => self.release(id),
            None => self.park_ticket(ticket),
        }
    }
}
