//! The one thread that writes: group commit.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use holm_core::{FunctionName, Jump};
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use crate::apply;
use crate::book::{self, OutboxBook};
use crate::clock::{self, Clock};
use crate::expiry::{self, Bounds, Dropped, Held};
use crate::store::{Inner, Pending, Shared, Store, state_writes};
use crate::{CommitError, Reading, StoreError, Write, salvage, sql};

/// The most settlements in one transaction.
const GROUP_MAX: usize = 256;

/// While more durable events are on their way, a group of fewer than this waits for them, for at most
/// [`Store::LINGER`].
pub(crate) const GROUP_TARGET: usize = 48;

/// How long accounts may wait for a commit to travel with. Not every commit takes them: they are a page of their own.
const ACCOUNTS_EVERY: Duration = Duration::from_secs(5);

/// How often old rows are looked for, and the clock is looked at.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// The writer. Its owner gives it a thread and calls [`Writer::run`], which ends after [`Store::close`].
pub struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) connection: Connection,
    pub(crate) book: OutboxBook,
    pub(crate) bounds: Bounds,
    pub(crate) held: Held,
    pub(crate) clock: Clock,
    /// When the accounts were last written.
    accounted: Instant,
    /// When old rows were last looked for, by the clock's uptime.
    tidied: Option<Duration>,
    /// Rows are left that should go.
    more: bool,
    /// What went before its time and was not logged yet.
    early: Early,
}

/// Rows that went before their time.
#[derive(Default)]
struct Early {
    dead_letters: u64,
    message_ids: u64,
}

/// What a group has changed in the tables whose rows are counted.
#[derive(Default)]
struct Grown {
    /// Of each function.
    inbox: HashMap<FunctionName, i64>,
    ids: u64,
    buried: u64,
    exhumed: u64,
    lanes: [u64; crate::Lane::ALL.len()],
}

impl Grown {
    fn inbox(&mut self, function: &FunctionName, rows: i64) {
        match self.inbox.get_mut(function) {
            Some(sum) => *sum += rows,
            None => drop(self.inbox.insert(function.clone(), rows)),
        }
    }
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        connection: Connection,
        book: OutboxBook,
        bounds: Bounds,
        held: Held,
    ) -> Self {
        let mut writer = Self {
            shared,
            connection,
            book,
            bounds,
            held,
            clock: Clock::of_system(),
            accounted: Instant::now(),
            tidied: None,
            more: false,
            early: Early::default(),
        };
        writer.look();
        writer
    }

    /// Reads the time from `read` instead of the system's clocks.
    pub fn with_clock(mut self, read: impl Fn() -> Reading + Send + 'static) -> Self {
        self.clock = Clock::new(read);
        self.look();
        self
    }

    /// So that ids past the window do not count for the very first events either.
    fn look(&mut self) {
        self.held.ids.look(self.clock.now().wall, self.bounds.dedupe_window);
        self.shared.horizon.store(self.held.ids.horizon(), Ordering::SeqCst);
    }

    /// Commits what is queued until the store is closed. Blocks.
    pub fn run(mut self) {
        while let Some(group) = self.next_group() {
            // Before the group, which may need the room.
            self.tidy();
            if self.accounted.elapsed() < ACCOUNTS_EVERY && is_empty(&group) {
                self.release(group);
                continue;
            }
            let only_accounts = group.is_empty();
            let done = self.commit(group);
            let mut inner = self.shared.lock();
            inner.committing = false;
            if !done && only_accounts && inner.closed {
                // A disk that cannot take the accounts must not keep the node from ending.
                break;
            }
        }
        // A clean end leaves one file: everything is moved out of the log.
        if let Err(error) = self.connection.pragma_update(None, "wal_checkpoint", "TRUNCATE") {
            tracing::warn!(%error, "could not empty the write-ahead log at the end");
        }
    }

    /// Looks for what is to go, once a minute, and with the first group too: a node that never runs for long would
    /// otherwise never drop anything. Where there is much, it goes on with every group, and while there is none.
    fn tidy(&mut self) {
        let now = self.clock.now();
        let due = self.tidied.is_none_or(|at| now.uptime.saturating_sub(at) >= EXPIRE_EVERY);
        if due {
            self.tidied = Some(now.uptime);
        } else if !self.more {
            return;
        }
        match self.drop_old(now) {
            Ok(dropped) => {
                self.more = dropped.more;
                self.shared.counters.dead_dropped.fetch_add(dropped.dead, Ordering::Relaxed);
                self.early.dead_letters += dropped.dead;
                self.early.message_ids += dropped.ids;
                // Not with every batch.
                if due || !self.more {
                    self.report();
                }
            }
            Err(error) => {
                self.more = false;
                tracing::error!(error = %chain(&error), "cannot drop old rows");
                if salvage::is_corrupt(&error) {
                    salvage::mark(&self.shared.path, &chain(&error));
                }
                if let Err(error) = self.book.reload(&self.connection) {
                    tracing::error!(error = %chain(&error), "cannot measure the outbox");
                }
            }
        }
    }

    /// Dates anew what was written before a jump, or nothing of it.
    fn date_anew(&mut self, jump: &Jump) -> Result<(), StoreError> {
        // First: an id must not be older than the horizon for the moment in which the one has moved and not the other.
        self.shared.horizon.store(i64::MIN, Ordering::SeqCst);
        let transaction = begin(&mut self.connection)?;
        clock::shift(jump, &transaction)?;
        let mut ids = self.held.ids;
        ids.reload(&transaction)?;
        transaction.commit().map_err(sql("date rows anew"))?;
        self.held.ids = ids;
        Ok(())
    }

    /// Tells the operator what went before its time.
    fn report(&mut self) {
        let Early { dead_letters, message_ids } = std::mem::take(&mut self.early);
        if dead_letters > 0 || message_ids > 0 {
            tracing::warn!(
                dead_letters,
                message_ids,
                "there were more than the store may hold; the oldest were dropped before their time"
            );
        }
    }

    /// One batch of what is to go. On an error nothing has gone.
    fn drop_old(&mut self, now: Reading) -> Result<Dropped, StoreError> {
        // First, and in a transaction of its own: by a time that has jumped, everything would seem old.
        let today = match self.clock.jump(now) {
            None => now.wall,
            Some(jump) => match self.date_anew(&jump) {
                Ok(()) => {
                    self.clock.settle(&jump);
                    now.wall
                }
                Err(error) => {
                    // A full database can be why, so what is old by both times goes all the same.
                    tracing::error!(error = %chain(&error), "the time of day was set, and old rows cannot be dated anew");
                    jump.earlier()
                }
            },
        };
        let transaction = begin(&mut self.connection)?;
        let mut held = self.held;
        let dropped = expiry::expire(&transaction, &mut self.book, &self.bounds, &mut held, today)?;
        transaction.commit().map_err(sql("drop old rows"))?;
        self.held = held;
        self.shared.horizon.store(self.held.ids.horizon(), Ordering::SeqCst);
        Ok(dropped)
    }

    /// Waits for work; `None` when closed and empty.
    fn next_group(&self) -> Option<Vec<Pending>> {
        let shared = &self.shared;
        let mut inner = shared.lock();
        loop {
            if !inner.queue.is_empty() {
                break;
            }
            if inner.closed {
                return if inner.accounts.is_empty() { None } else { Some(Vec::new()) };
            }
            if self.more {
                return Some(Vec::new());
            }
            let patience = if inner.accounts.is_empty() { EXPIRE_EVERY } else { ACCOUNTS_EVERY };
            let (guard, wait) = shared.work.wait_timeout(inner, patience).unwrap_or_else(PoisonError::into_inner);
            inner = guard;
            if wait.timed_out() && inner.queue.is_empty() {
                // An empty group still writes the accounts, and drops old rows when that is due.
                return Some(Vec::new());
            }
        }
        inner = self.linger(inner);
        let size = inner.queue.len().min(GROUP_MAX);
        let group = inner.queue.drain(..size).collect();
        inner.committing = true;
        drop(inner);
        shared.room.notify_all();
        Some(group)
    }

    /// Waits a moment for settlements that are known to be on their way: sharing a sync with them costs less than the
    /// wait. With nothing on its way, as with one message in flight, there is no wait.
    fn linger<'a>(&'a self, mut inner: std::sync::MutexGuard<'a, Inner>) -> std::sync::MutexGuard<'a, Inner> {
        if self.shared.expected.load(Ordering::Relaxed) == 0 {
            return inner;
        }
        let start = Instant::now();
        // Before the count is looked at, so that whoever brings it to nothing sees this and tells.
        self.shared.lingering.store(true, Ordering::SeqCst);
        while inner.queue.len() < GROUP_TARGET && self.shared.expected.load(Ordering::SeqCst) > 0 && !inner.closed {
            let Some(left) = Store::LINGER.checked_sub(start.elapsed()) else { break };
            let (guard, _) = self.shared.work.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner);
            inner = guard;
        }
        self.shared.lingering.store(false, Ordering::SeqCst);
        inner
    }

    /// Settles a group that has nothing to write, once everything before it is committed: no sync makes it safer.
    fn release(&self, mut group: Vec<Pending>) {
        self.shared.counters.settlements.fetch_add(group.len() as u64, Ordering::Relaxed);
        finish(&mut group, &Ok(()));
        self.shared.lock().committing = false;
    }

    /// Commits a group and tells everybody. `false`: it could not be committed.
    fn commit(&mut self, mut group: Vec<Pending>) -> bool {
        let accounts = if group.is_empty() || self.accounted.elapsed() >= ACCOUNTS_EVERY {
            self.accounted = Instant::now();
            std::mem::take(&mut self.shared.lock().accounts)
        } else {
            HashMap::new()
        };
        if group.is_empty() && accounts.is_empty() {
            return true;
        }
        #[cfg(feature = "mutants")]
        if mutant("ack-before-commit") {
            for pending in &mut group {
                if let Some(done) = pending.done.take() {
                    done(Ok(()));
                }
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        let start = Instant::now();
        let result = self.transact(&group, &accounts);
        let counters = &self.shared.counters;
        let committed = result.is_ok();
        match result {
            Ok(grown) => {
                counters.commits.fetch_add(1, Ordering::Relaxed);
                counters.settlements.fetch_add(group.len() as u64, Ordering::Relaxed);
                let spent = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
                counters.commit_us.fetch_add(spent, Ordering::Relaxed);
                if counters.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the store commits again");
                }
                counters.inbox_rows.fetch_add(grown.inbox.values().sum(), Ordering::Relaxed);
                self.held.ids.grew(grown.ids);
                self.held.dead = (self.held.dead + grown.buried).saturating_sub(grown.exhumed);
                let mut inner = self.shared.lock();
                for pending in &group {
                    inner.overlay.commit(pending.version, state_writes(&pending.writes));
                }
                for (function, rows) in grown.inbox {
                    let sum = inner.parked.entry(function).or_default();
                    *sum = sum.saturating_add_signed(rows);
                }
                drop(inner);
                self.shared.news.grew(grown.lanes);
                finish(&mut group, &Ok(()));
            }
            Err(error) => {
                counters.failures.fetch_add(1, Ordering::Relaxed);
                self.fail(group, accounts, &error);
            }
        }
        committed
    }

    /// One transaction; answers by how many rows the tables have grown. On an error it is rolled back whole.
    fn transact(
        &mut self,
        group: &[Pending],
        accounts: &HashMap<holm_core::FunctionName, crate::Account>,
    ) -> Result<Grown, StoreError> {
        let now = self.clock.now().wall;
        let transaction = begin(&mut self.connection)?;
        let mut grown = Grown::default();
        for write in group.iter().flat_map(|pending| &pending.writes) {
            #[cfg(feature = "mutants")]
            if mutant("dedupe-outside") && matches!(write, Write::Remember { .. }) {
                continue;
            }
            apply::apply(&transaction, &mut self.book, &mut self.held.ids, write)?;
            // What SQLite did and not what was asked: a row may be gone already, or there.
            match write {
                Write::Park { function, .. } => grown.inbox(function, 1),
                Write::Unpark { function, .. } => {
                    grown.inbox(function, -i64::try_from(transaction.changes()).unwrap_or_default());
                }
                Write::Remember { .. } => grown.ids += transaction.changes(),
                Write::Bury { .. } => grown.buried += 1,
                Write::Exhume(_) => grown.exhumed += transaction.changes(),
                Write::Outbox { lane, .. } => {
                    grown.lanes.iter_mut().skip(lane.number() as usize).take(1).for_each(|rows| *rows += 1);
                }
                _ => {}
            }
        }
        for (function, account) in accounts {
            apply::account(&transaction, function, account)?;
        }
        book::close_book(&transaction, &mut self.book, &self.bounds.caps, now)?;
        // The point of no return: when this comes back, the log is synced and everything above has happened.
        transaction.commit().map_err(sql("commit"))?;
        #[cfg(feature = "mutants")]
        if mutant("dedupe-outside") {
            // The fault: acknowledged effects first, the message ids in a transaction of their own, later.
            std::thread::sleep(Duration::from_millis(3));
            for write in group.iter().flat_map(|pending| &pending.writes) {
                if matches!(write, Write::Remember { .. }) {
                    apply::apply(&self.connection, &mut self.book, &mut self.held.ids, write)?;
                }
            }
        }
        Ok(grown)
    }

    /// Nothing of the group has happened, and nothing that was queued behind it can be trusted.
    fn fail(
        &mut self,
        mut group: Vec<Pending>,
        accounts: HashMap<holm_core::FunctionName, crate::Account>,
        error: &StoreError,
    ) {
        let reason = commit_error(error);
        if !self.shared.counters.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(error = %chain(error), "the store cannot commit; durable messages are refused until it can");
        }
        if salvage::is_corrupt(error) {
            salvage::mark(&self.shared.path, &reason.to_string());
        }
        if let Err(error) = self.book.reload(&self.connection) {
            tracing::error!(error = %chain(&error), "cannot measure the outbox");
        }
        let mut inner = self.shared.lock();
        for (function, account) in &accounts {
            inner.accounts.entry(function.clone()).or_default().add(account);
        }
        let mut behind: Vec<Pending> = inner.queue.drain(..).collect();
        // Before anybody is told: whoever runs again must not read what never happened, nor settle before all have heard.
        inner.overlay.discard();
        inner.telling = true;
        // Under the same lock: a quota must not count what was thrown away, nor miss what is queued from here on.
        if let Err(error) = Shared::measure(&mut inner, &self.connection) {
            tracing::error!(error = %chain(&error), "cannot measure the state");
        }
        drop(inner);
        self.shared.room.notify_all();
        finish(&mut group, &Err(reason));
        finish(&mut behind, &Err(CommitError::Discarded));
        let mut inner = self.shared.lock();
        inner.telling = false;
        // Once more: what began meanwhile may have looked before its own event was refused.
        inner.overlay.turn_away();
    }
}

/// Whoever waits for a commit hears of the end, however it comes.
impl Drop for Writer {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.closed = true;
        let mut left: Vec<Pending> = inner.queue.drain(..).collect();
        drop(inner);
        self.shared.room.notify_all();
        finish(&mut left, &Err(CommitError::Closed));
    }
}

/// Begins a transaction that writes.
fn begin(connection: &mut Connection) -> Result<rusqlite::Transaction<'_>, StoreError> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql("begin a transaction"))
}

fn is_empty(group: &[Pending]) -> bool {
    !group.is_empty() && group.iter().all(|pending| pending.writes.is_empty())
}

fn finish(group: &mut Vec<Pending>, result: &Result<(), CommitError>) {
    for pending in group.drain(..) {
        if let Some(done) = pending.done {
            done(result.clone());
        }
    }
}

fn commit_error(error: &StoreError) -> CommitError {
    match error {
        StoreError::Sql { source: rusqlite::Error::SqliteFailure(failure, _), .. }
            if failure.code == ErrorCode::DiskFull =>
        {
            CommitError::DiskFull
        }
        other => CommitError::Failed(chain(other)),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Whether the named fault was asked for: `HOLM_MUTANT=ack-before-commit`, `dedupe-outside` or `sync-normal`.
#[cfg(feature = "mutants")]
pub(crate) fn mutant(name: &str) -> bool {
    std::env::var("HOLM_MUTANT").is_ok_and(|value| value == name)
}
