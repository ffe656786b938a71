//! The one thread that writes: group commit.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use crate::apply::{self, OutboxBook};
use crate::store::{Inner, Pending, Shared, Store, state_writes};
use crate::{CommitError, OutboxCaps, StoreError, salvage, sql};

/// The most settlements in one transaction.
const GROUP_MAX: usize = 256;

/// While more durable events are on their way, a group of fewer than this waits for them, for at most
/// [`Store::LINGER`].
pub(crate) const GROUP_TARGET: usize = 48;

/// How long accounts of events that are not durable may wait for a commit to travel with.
const ACCOUNTS_EVERY: Duration = Duration::from_secs(5);

/// How often old rows are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// The writer. Its owner gives it a thread and calls [`Writer::run`], which ends after [`Store::close`].
pub struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) connection: Connection,
    pub(crate) book: OutboxBook,
    pub(crate) caps: OutboxCaps,
    pub(crate) dedupe_window: Duration,
}

impl Writer {
    /// Commits what is queued until the store is closed. Blocks.
    pub fn run(mut self) {
        // With the first commit too: a node that never runs for long would otherwise never drop anything.
        let mut expired: Option<Instant> = None;
        let mut committed = Instant::now();
        while let Some(group) = self.next_group() {
            let due = expired.is_none_or(|at| at.elapsed() >= EXPIRE_EVERY);
            if !due && committed.elapsed() < ACCOUNTS_EVERY && is_empty(&group) {
                self.release(group);
                continue;
            }
            if due {
                expired = Some(Instant::now());
            }
            committed = Instant::now();
            let only_accounts = group.is_empty();
            let done = self.commit(group, due);
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
        let start = Instant::now();
        while inner.queue.len() < GROUP_TARGET && self.shared.expected.load(Ordering::Relaxed) > 0 && !inner.closed {
            let Some(left) = Store::LINGER.checked_sub(start.elapsed()) else { break };
            let (guard, _) = self.shared.work.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner);
            inner = guard;
        }
        inner
    }

    /// Settles a group that has nothing to write, once everything before it is committed: no sync makes it safer.
    fn release(&self, mut group: Vec<Pending>) {
        self.shared.counters.settlements.fetch_add(group.len() as u64, Ordering::Relaxed);
        finish(&mut group, &Ok(()));
        self.shared.lock().committing = false;
    }

    /// Commits a group and tells everybody. `false`: it could not be committed.
    fn commit(&mut self, mut group: Vec<Pending>, expire: bool) -> bool {
        let accounts = std::mem::take(&mut self.shared.lock().accounts);
        if group.is_empty() && accounts.is_empty() && !expire {
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
        let result = self.transact(&group, &accounts, expire);
        let counters = &self.shared.counters;
        let committed = result.is_ok();
        match result {
            Ok(rows) => {
                counters.commits.fetch_add(1, Ordering::Relaxed);
                counters.settlements.fetch_add(group.len() as u64, Ordering::Relaxed);
                let spent = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
                counters.commit_us.fetch_add(spent, Ordering::Relaxed);
                if counters.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the store commits again");
                }
                counters.inbox_rows.fetch_add(rows, Ordering::Relaxed);
                let mut inner = self.shared.lock();
                for pending in &group {
                    inner.overlay.commit(pending.version, state_writes(&pending.writes));
                }
                drop(inner);
                finish(&mut group, &Ok(()));
            }
            Err(error) => {
                counters.failures.fetch_add(1, Ordering::Relaxed);
                self.fail(group, accounts, &error);
            }
        }
        committed
    }

    /// One transaction; answers by how many rows the inbox has grown. On an error it is rolled back whole.
    fn transact(
        &mut self,
        group: &[Pending],
        accounts: &std::collections::HashMap<holm_core::FunctionName, crate::Account>,
        expire: bool,
    ) -> Result<i64, StoreError> {
        let now = crate::now();
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(sql("begin a transaction"))?;
        let mut inbox_rows = 0;
        for write in group.iter().flat_map(|pending| &pending.writes) {
            #[cfg(feature = "mutants")]
            if mutant("dedupe-outside") && matches!(write, crate::Write::Remember { .. }) {
                continue;
            }
            apply::apply(&transaction, &mut self.book, write)?;
            // What SQLite did and not what was asked: a row may be gone already.
            match write {
                crate::Write::Park { .. } => inbox_rows += 1,
                crate::Write::Unpark(_) => inbox_rows -= i64::try_from(transaction.changes()).unwrap_or_default(),
                _ => {}
            }
        }
        for (function, account) in accounts {
            apply::account(&transaction, function, account)?;
        }
        if expire {
            apply::expire(&transaction, &mut self.book, &self.caps, self.dedupe_window, now)?;
        }
        apply::close_book(&transaction, &mut self.book, &self.caps, now)?;
        // The point of no return: when this comes back, the log is synced and everything above has happened.
        transaction.commit().map_err(sql("commit"))?;
        #[cfg(feature = "mutants")]
        if mutant("dedupe-outside") {
            // The fault: acknowledged effects first, the message ids in a transaction of their own, later.
            std::thread::sleep(Duration::from_millis(3));
            for write in group.iter().flat_map(|pending| &pending.writes) {
                if matches!(write, crate::Write::Remember { .. }) {
                    apply::apply(&self.connection, &mut self.book, write)?;
                }
            }
        }
        Ok(inbox_rows)
    }

    /// Nothing of the group has happened, and nothing that was queued behind it can be trusted.
    fn fail(
        &mut self,
        mut group: Vec<Pending>,
        accounts: std::collections::HashMap<holm_core::FunctionName, crate::Account>,
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
        self.shared.lock().telling = false;
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
