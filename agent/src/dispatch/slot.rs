//! A function's place on the node: it stays when the version in it changes, and so do the jobs that wait.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use holm_bundle::Digest;
use holm_core::{FunctionName, Manifest, RetryOrder};
use holm_runtime::Function;
use holm_store::InboxId;

use super::{Job, Origin, lock};

/// A version of a function, ready to run.
pub struct Loaded {
    /// What it may do and use.
    pub manifest: Manifest,
    /// The compiled component.
    pub function: Function,
    /// Of the bundle it came in.
    pub digest: Digest,
    /// Different for every load in this process: prepared instances of another version are thrown away.
    pub generation: u64,
}

/// Figures of one function since start.
#[derive(Debug, Default)]
pub struct SlotStats {
    /// Invocations that succeeded.
    pub succeeded: AtomicU64,
    /// Invocations that did not.
    pub failed: AtomicU64,
    /// Those of them that were the guest's own fault: trap, timeout, exhausted.
    pub faulted: AtomicU64,
    /// Wall time of invocations, in microseconds.
    pub wall_us: AtomicU64,
    last_fault: Mutex<Option<String>>,
}

impl SlotStats {
    /// The words of the last failure.
    pub fn last_fault(&self) -> Option<String> {
        lock(&self.last_fault).clone()
    }

    pub(super) fn note_fault(&self, text: String) {
        *lock(&self.last_fault) = Some(text);
    }
}

/// See the module's text.
pub struct Slot {
    /// Whose.
    pub name: FunctionName,
    /// Figures.
    pub stats: SlotStats,
    /// Whether it is not run because the node went down with it again and again.
    pub quarantined: AtomicBool,
    loaded: RwLock<Option<Arc<Loaded>>>,
    queue: Mutex<Queue>,
}

struct Queue {
    jobs: VecDeque<Job>,
    /// Workers that run it or were told to.
    workers: u32,
    /// Token bucket, one second deep.
    tokens: f64,
    refilled: Instant,
    /// With `retry.order = "block"`: nothing but this row runs.
    blocked_on: Option<InboxId>,
}

/// What a worker finds in a slot.
pub(super) enum Next {
    /// Something to run.
    Job(Job),
    /// Nothing: the worker has left the slot.
    Empty,
    /// Something, but not before this long: the worker has left the slot.
    NotYet(Duration),
}

impl Slot {
    /// A slot with a version in it.
    pub fn new(name: FunctionName, loaded: Option<Arc<Loaded>>) -> Self {
        Self {
            name,
            stats: SlotStats::default(),
            quarantined: AtomicBool::new(false),
            loaded: RwLock::new(loaded),
            queue: Mutex::new(Queue {
                jobs: VecDeque::new(),
                workers: 0,
                tokens: 1.0,
                refilled: Instant::now(),
                blocked_on: None,
            }),
        }
    }

    /// The version that runs.
    pub fn loaded(&self) -> Option<Arc<Loaded>> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another version in, or none.
    pub fn load(&self, loaded: Option<Arc<Loaded>>) {
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
    }

    /// Jobs that wait.
    pub fn waiting(&self) -> usize {
        lock(&self.queue).jobs.len()
    }

    /// Whether it may be run.
    pub fn is_runnable(&self) -> bool {
        !self.quarantined.load(Ordering::Relaxed) && self.loaded().is_some()
    }

    /// Adds a job. `Ok(true)` asks the caller to put the slot into the run queue; the job comes back when the slot is
    /// full or not runnable.
    pub(super) fn push(&self, job: Job) -> Result<bool, Job> {
        let (capacity, concurrency) = match self.loaded.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(loaded) if !self.quarantined.load(Ordering::Relaxed) => {
                (loaded.manifest.limits.queue as usize, loaded.manifest.limits.concurrency)
            }
            _ => return Err(job),
        };
        let mut queue = lock(&self.queue);
        // The row that everything waits for must always find room, and goes first.
        let unblocks = matches!((&job.origin, queue.blocked_on), (Origin::Inbox(id), Some(blocked)) if *id == blocked);
        if unblocks {
            queue.jobs.push_front(job);
        } else if queue.jobs.len() >= capacity {
            return Err(job);
        } else {
            queue.jobs.push_back(job);
        }
        let wanted = queue.workers < concurrency;
        if wanted {
            queue.workers += 1;
        }
        Ok(wanted)
    }

    /// The next job for a worker that is in the slot.
    pub(super) fn next(&self, loaded: &Loaded) -> Next {
        let mut queue = lock(&self.queue);
        let blocked = queue.blocked_on;
        let ready = match (queue.jobs.front(), blocked) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(job), Some(id)) => matches!(job.origin, Origin::Inbox(row) if row == id),
        };
        if !ready || self.quarantined.load(Ordering::Relaxed) {
            queue.workers = queue.workers.saturating_sub(1);
            return Next::Empty;
        }
        if let Some(rate) = loaded.manifest.limits.rate {
            let now = Instant::now();
            let depth = rate.max(1.0);
            queue.tokens = (queue.tokens + now.duration_since(queue.refilled).as_secs_f64() * rate).min(depth);
            queue.refilled = now;
            if queue.tokens < 1.0 {
                queue.workers = queue.workers.saturating_sub(1);
                return Next::NotYet(Duration::from_secs_f64((1.0 - queue.tokens) / rate));
            }
            queue.tokens -= 1.0;
        }
        match queue.jobs.pop_front() {
            Some(job) => Next::Job(job),
            None => Next::Empty,
        }
    }

    /// A worker leaves without asking for more.
    pub(super) fn leave(&self) {
        let mut queue = lock(&self.queue);
        queue.workers = queue.workers.saturating_sub(1);
    }

    /// Takes a place for a worker again, after [`Next::NotYet`] or a change: true if the slot is to be put into the
    /// run queue.
    pub(super) fn rouse(&self) -> bool {
        let Some(loaded) = self.loaded() else { return false };
        let mut queue = lock(&self.queue);
        let wanted = !queue.jobs.is_empty() && queue.workers < loaded.manifest.limits.concurrency;
        if wanted {
            queue.workers += 1;
        }
        wanted
    }

    /// Nothing but `row` runs until [`Slot::unblock`], if this function keeps order.
    pub(super) fn block(&self, loaded: &Loaded, row: InboxId) {
        if loaded.manifest.retry.order == RetryOrder::Block {
            lock(&self.queue).blocked_on = Some(row);
        }
    }

    /// The row is done with.
    pub(super) fn unblock(&self, row: InboxId) {
        let mut queue = lock(&self.queue);
        if queue.blocked_on == Some(row) {
            queue.blocked_on = None;
        }
    }

    /// Takes all waiting jobs out: their durable ones are in the inbox or unacknowledged.
    pub fn clear(&self) -> Vec<Job> {
        lock(&self.queue).jobs.drain(..).collect()
    }
}
