//! The handle that everybody holds, and the queue behind it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holm_core::{FunctionName, StateWrite};

use crate::overlay::Overlay;
use crate::reader::StateReader;
use crate::{Account, CommitError, InboxId, LocalId, QueueError, Quota, Settlement, StoreError, Write, sql};

/// Settlements that may wait for the writer before [`Store::queue_blocking`] waits. Two full groups: more would only
/// add memory, since the writer takes a whole group at a time.
const QUEUE_CAPACITY: usize = 512;

/// Told when a settlement is on the disk, or why not. Runs on the writer's thread and must not block.
pub type Done = Box<dyn FnOnce(Result<(), CommitError>) + Send>;

pub(crate) struct Pending {
    pub(crate) writes: Vec<Write>,
    pub(crate) version: u64,
    pub(crate) done: Option<Done>,
}

#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) queue: VecDeque<Pending>,
    pub(crate) overlay: Overlay,
    pub(crate) accounts: HashMap<FunctionName, Account>,
    /// Bytes of keys and values by namespace; an upper bound, see [`Store::recount`].
    pub(crate) namespaces: HashMap<Arc<str>, u64>,
    /// Rows in the inbox, by function.
    pub(crate) parked: HashMap<FunctionName, u64>,
    /// The writer has a group that is neither committed nor discarded.
    pub(crate) committing: bool,
    /// A commit has failed, and not everybody who waited for it has been told.
    pub(crate) telling: bool,
    pub(crate) closed: bool,
}

pub(crate) struct Shared {
    pub(crate) inner: Mutex<Inner>,
    /// The writer waits here for work.
    pub(crate) work: Condvar,
    /// Guest threads wait here for room.
    pub(crate) room: Condvar,
    pub(crate) path: std::path::PathBuf,
    /// Durable events that were accepted but have not been queued yet: worth a short wait before a commit.
    pub(crate) expected: AtomicUsize,
    /// The writer waits for those. To notify it otherwise would be a system call for nothing.
    pub(crate) lingering: AtomicBool,
    pub(crate) counters: Counters,
    /// A reader that nobody uses at the moment: see `query`.
    pub(crate) idle_reader: Mutex<Option<rusqlite::Connection>>,
    /// Word of new rows for the cloud.
    pub(crate) news: crate::news::News,
    /// Message ids that were seen before this are forgotten, in milliseconds since 1970: set by the writer.
    pub(crate) horizon: AtomicI64,
    next_inbox: AtomicI64,
    next_local: AtomicI64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) settlements: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) commit_us: AtomicU64,
    pub(crate) inbox_rows: AtomicI64,
    pub(crate) dead_dropped: AtomicU64,
    /// The last commit failed, and none has succeeded since.
    pub(crate) failing: std::sync::atomic::AtomicBool,
}

impl Inner {
    /// Bytes in a namespace.
    fn held(&self, namespace: &Arc<str>) -> u64 {
        self.namespaces.get(namespace).copied().unwrap_or_default()
    }

    /// Whether what an invocation has done may be settled.
    fn admit(&self, settlement: &Settlement) -> Result<(), QueueError> {
        if self.closed {
            return Err(QueueError::Closed);
        }
        // While the bad news is being told, not even the new generation may settle: a job of an event whose settlement has
        // failed may have begun since, and would commit what its publisher is about to be refused.
        if settlement.generation.is_some_and(|generation| self.telling || generation != self.overlay.generation()) {
            return Err(QueueError::Stale);
        }
        if !self.overlay.check(&settlement.reads) {
            return Err(QueueError::Conflict);
        }
        Ok(())
    }
}

impl Shared {
    pub(crate) fn new(path: std::path::PathBuf, next_inbox: i64, next_local: i64) -> Self {
        Self {
            inner: Mutex::default(),
            work: Condvar::new(),
            room: Condvar::new(),
            path,
            expected: AtomicUsize::new(0),
            lingering: AtomicBool::new(false),
            counters: Counters::default(),
            idle_reader: Mutex::default(),
            news: crate::news::News::default(),
            horizon: AtomicI64::new(i64::MIN),
            next_inbox: AtomicI64::new(next_inbox),
            next_local: AtomicI64::new(next_local),
        }
    }

    /// Counts every namespace again by the database: for start-up, and when queued writes were thrown away.
    pub(crate) fn measure(inner: &mut Inner, connection: &rusqlite::Connection) -> Result<(), StoreError> {
        let action = "measure the state";
        // Octets, as the quota counts: `length` would count the characters of a key.
        let mut statement = connection
            .prepare("SELECT namespace, sum(octet_length(key) + octet_length(value)) FROM state GROUP BY namespace")
            .map_err(sql(action))?;
        let rows = statement
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))
            .map_err(sql(action))?;
        let mut namespaces = HashMap::new();
        for row in rows {
            let (namespace, bytes) = row.map_err(sql(action))?;
            namespaces.insert(Arc::from(namespace), u64::try_from(bytes).unwrap_or_default());
        }
        inner.namespaces = namespaces;
        Ok(())
    }

    /// No code panics while it holds this lock, and if it did, the overlay would still be no worse than a conflict.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the store has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct StoreStats {
    /// Transactions committed: each is one sync of the log.
    pub commits: u64,
    /// Settlements in them.
    pub settlements: u64,
    /// Transactions that failed.
    pub failures: u64,
    /// Time in commits, in microseconds.
    pub commit_us: u64,
    /// Settlements waiting now.
    pub waiting: usize,
    /// Whether the last commit failed.
    pub failing: bool,
    /// Dead letters that were dropped before their time, because there were too many.
    pub dead_dropped: u64,
}

/// The handle to the store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
}

impl Store {
    /// Queues a settlement; `done` is told when it is on the disk. Never waits: for the MQTT threads, whose own caps
    /// bound what they can have queued.
    pub fn queue(
        &self,
        settlement: Settlement,
        done: impl FnOnce(Result<(), CommitError>) + Send + 'static,
    ) -> Result<(), QueueError> {
        self.enqueue(self.shared.lock(), settlement, Box::new(done))
    }

    /// Queues a settlement, after waiting for room if the writer is behind: for guest threads, which it slows down to
    /// the speed of the disk.
    ///
    /// A settlement without writes has nothing to commit, and where nothing is queued or being committed, nothing that it
    /// read can be undone any more. It is settled then and there: `done` comes back, for the caller to tell the good
    /// news once its locks are released.
    pub fn queue_blocking(
        &self,
        settlement: Settlement,
        done: impl FnOnce(Result<(), CommitError>) + Send + 'static,
    ) -> Result<Option<Done>, QueueError> {
        let mut inner = self.shared.lock();
        while inner.queue.len() >= QUEUE_CAPACITY && !inner.closed {
            inner = self.shared.room.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        let done: Done = Box::new(done);
        if settlement.writes.is_empty() && inner.queue.is_empty() && !inner.committing {
            inner.admit(&settlement)?;
            if let Some((function, account)) = &settlement.account {
                self.add_account(&mut inner, function, account);
            }
            drop(inner);
            self.shared.counters.settlements.fetch_add(1, Ordering::Relaxed);
            return Ok(Some(done));
        }
        self.enqueue(inner, settlement, done).map(|()| None)
    }

    /// Queues writes and waits for the commit. For start-up, deployments and the admin socket.
    pub fn commit(&self, writes: Vec<Write>) -> Result<(), CommitError> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let settlement = Settlement { writes, ..Settlement::default() };
        let queued = self.queue(settlement, move |result| drop(sender.send(result)));
        match queued {
            Ok(()) => receiver.recv().unwrap_or(Err(CommitError::Closed)),
            Err(_) => Err(CommitError::Closed),
        }
    }

    fn enqueue(&self, mut inner: MutexGuard<'_, Inner>, settlement: Settlement, done: Done) -> Result<(), QueueError> {
        inner.admit(&settlement)?;
        charge(&mut inner, &settlement)?;
        let version = inner.overlay.queue(state_writes(&settlement.writes));
        if let Some((function, account)) = settlement.account {
            inner.accounts.entry(function).or_default().add(&account);
        }
        inner.queue.push_back(Pending { writes: settlement.writes, version, done: Some(done) });
        let first = inner.queue.len() == 1;
        let full = inner.queue.len() == crate::writer::GROUP_TARGET;
        drop(inner);
        // The writer is woken for the first of a group and for a full one; in between it is awake or lingering.
        if first || full {
            self.shared.work.notify_one();
        }
        Ok(())
    }

    /// Adds to a function's account without a settlement: for events that are not durable. Written with the next
    /// commit, or within a few seconds.
    pub fn account(&self, function: &FunctionName, account: &Account) {
        self.add_account(&mut self.shared.lock(), function, account);
    }

    fn add_account(&self, inner: &mut Inner, function: &FunctionName, account: &Account) {
        match inner.accounts.get_mut(function) {
            Some(sum) => sum.add(account),
            None => {
                inner.accounts.insert(function.clone(), *account);
                // So that the writer starts to count the seconds after which they are written.
                self.shared.work.notify_one();
            }
        }
    }

    /// Whether the settlement seems to keep within its quotas. A "no" may come from a bound that is too high: see
    /// [`Store::recount`].
    pub fn fits(&self, settlement: &Settlement) -> bool {
        settlement.quotas.is_empty() || check(&self.shared.lock(), settlement).is_ok()
    }

    /// Rows in the inbox.
    pub fn inbox_rows(&self) -> u64 {
        u64::try_from(self.shared.counters.inbox_rows.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// Those of one function.
    pub fn inbox_rows_of(&self, function: &FunctionName) -> u64 {
        self.shared.lock().parked.get(function).copied().unwrap_or_default()
    }

    /// Counts a namespace exactly. [`QueueError::Quota`] may come from a bound that is too high, because the size of
    /// what a write replaced was not known: recount, then queue again.
    pub fn recount(&self, namespace: &Arc<str>, reader: &StateReader) -> Result<(), StoreError> {
        // Locked first: what is committed and leaves the overlay meanwhile would be missed by both counts.
        count(&mut self.shared.lock(), namespace, reader).map(drop)
    }

    /// As [`Store::recount`], for a settlement that is about to be queued: what it replaces is counted as well, where the
    /// overlay does not know it any more.
    pub fn weigh(&self, settlement: &mut Settlement, reader: &StateReader) -> Result<(), StoreError> {
        let Settlement { writes, quotas, .. } = settlement;
        let mut inner = self.shared.lock();
        for quota in quotas {
            let namespace = &quota.namespace;
            let sizes = count(&mut inner, namespace, reader)?;
            quota.replaced = state_writes(writes)
                .filter(|write| write.namespace == *namespace && inner.overlay.get(namespace, &write.key).is_none())
                .filter_map(|write| sizes.get(&write.key))
                .sum();
        }
        Ok(())
    }

    /// The generation that an invocation must name when it settles.
    pub fn generation(&self) -> u64 {
        self.shared.lock().overlay.generation()
    }

    /// A durable event is on its way: the writer may linger for it. Pair with [`Store::arrived`].
    pub fn expect(&self) {
        self.shared.expected.fetch_add(1, Ordering::Relaxed);
    }

    /// The event was queued, or will not be.
    pub fn arrived(&self) {
        let before = self.shared.expected.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        // Nothing more to wait for. The lock is for the writer that has looked and does not wait yet.
        if before == Ok(1) && self.shared.lingering.load(Ordering::SeqCst) {
            drop(self.shared.lock());
            self.shared.work.notify_one();
        }
    }

    /// A fresh id for the inbox.
    pub fn next_inbox_id(&self) -> InboxId {
        InboxId(self.shared.next_inbox.fetch_add(1, Ordering::Relaxed))
    }

    /// A fresh id for the local lane.
    pub fn next_local_id(&self) -> LocalId {
        LocalId(self.shared.next_local.fetch_add(1, Ordering::Relaxed))
    }

    /// A reader of state, for one thread.
    pub fn reader(&self) -> Result<StateReader, StoreError> {
        StateReader::open(self.shared.clone())
    }

    /// What has been done so far.
    pub fn stats(&self) -> StoreStats {
        let counters = &self.shared.counters;
        StoreStats {
            commits: counters.commits.load(Ordering::Relaxed),
            settlements: counters.settlements.load(Ordering::Relaxed),
            failures: counters.failures.load(Ordering::Relaxed),
            commit_us: counters.commit_us.load(Ordering::Relaxed),
            waiting: self.shared.lock().queue.len(),
            failing: counters.failing.load(Ordering::Relaxed),
            dead_dropped: counters.dead_dropped.load(Ordering::Relaxed),
        }
    }

    /// No more settlements; the writer commits what is queued and ends.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_one();
        self.shared.room.notify_all();
    }

    /// How long a group may linger.
    pub(crate) const LINGER: Duration = Duration::from_micros(400);
}

pub(crate) fn state_writes(writes: &[Write]) -> impl Iterator<Item = &StateWrite> {
    writes.iter().filter_map(|write| if let Write::State(state) = write { Some(state) } else { None })
}

/// The exact sizes of a namespace's keys and values, which become its known size.
fn count(inner: &mut Inner, namespace: &Arc<str>, reader: &StateReader) -> Result<HashMap<Arc<str>, u64>, StoreError> {
    let mut sizes = reader.sizes(namespace)?;
    for (key, exists) in inner.overlay.keys(namespace) {
        let value = inner.overlay.get(namespace, &key).and_then(|versioned| versioned.value);
        match value {
            Some(value) if exists => sizes.insert(key.clone(), (key.len() + value.len()) as u64),
            _ => sizes.remove(&key),
        };
    }
    inner.namespaces.insert(namespace.clone(), sizes.values().sum());
    Ok(sizes)
}

/// Adds the writes to the namespaces' sizes, or refuses them all.
fn charge(inner: &mut Inner, settlement: &Settlement) -> Result<(), QueueError> {
    check(inner, settlement)?;
    for quota in &settlement.quotas {
        let bytes = size_after(inner, quota, &settlement.writes);
        match inner.namespaces.get_mut(&quota.namespace) {
            Some(held) => *held = bytes,
            None => drop(inner.namespaces.insert(quota.namespace.clone(), bytes)),
        }
    }
    Ok(())
}

/// Refuses writes that would make a namespace larger than it may be and than it is.
fn check(inner: &Inner, settlement: &Settlement) -> Result<(), QueueError> {
    for quota in &settlement.quotas {
        let would_be = size_after(inner, quota, &settlement.writes);
        if would_be > quota.limit && would_be > inner.held(&quota.namespace) {
            return Err(QueueError::Quota { would_be, limit: quota.limit });
        }
    }
    Ok(())
}

/// What a namespace will hold after the writes.
fn size_after(inner: &Inner, quota: &Quota, writes: &[Write]) -> u64 {
    let namespace = &quota.namespace;
    let (mut more, mut less) = (inner.held(namespace), quota.replaced);
    for write in state_writes(writes).filter(|write| write.namespace == *namespace) {
        let old = inner.overlay.get(namespace, &write.key).and_then(|versioned| versioned.value);
        less += old.map_or(0, |value| (write.key.len() + value.len()) as u64);
        more += write.value.as_ref().map_or(0, |value| (write.key.len() + value.len()) as u64);
    }
    more.saturating_sub(less)
}
