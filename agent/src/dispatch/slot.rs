//! A function's place on the node: it stays when the version in it changes, and so do the jobs that wait.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use holm_bundle::Digest;
use holm_core::{FunctionName, Manifest, RetryOrder};
use holm_runtime::{ConfigValues, Function, Prepared, Recorder, RuntimeError};
use holm_store::InboxId;

use super::{Job, Origin, lock};
use crate::clock;
use crate::record::RECORDING;

/// Bytes of events that wait in memory for one function, beside the manifest's limit on their number: large events wait
/// in the inbox. One event always fits.
const QUEUE_BYTES: usize = 4 << 20;

/// A version of a function, ready to run.
pub struct Loaded {
    /// What it may do and use.
    pub manifest: Manifest,
    /// The compiled component.
    pub code: Code,
    /// Of the bundle it came in.
    pub digest: Digest,
    /// Of the component in it.
    pub component: Digest,
    /// The manifest, as its author wrote it.
    pub text: Arc<str>,
    /// Its parameters.
    pub config: Arc<ConfigValues>,
    /// Workers that may run it at a time: the manifest's concurrency, but never all workers, so that others get a turn
    /// however long it takes over its events. A node with one worker has no choice.
    pub workers: u32,
    /// Different for every load in this process: prepared instances of another version are thrown away.
    pub generation: u64,
    /// Its own invocations, in this process.
    pub tally: Tally,
}

impl Loaded {
    /// A fresh instance.
    pub fn prepare(&self) -> Result<Prepared, RuntimeError> {
        self.code.get()?.prepare()
    }

    /// A fresh instance that records what it is told, in a buffer.
    pub fn prepare_recorded(&self, buffer: Vec<u8>) -> Result<Prepared, RuntimeError> {
        self.code.get()?.prepare_with(Recorder::keep(buffer, RECORDING))
    }
}

/// Native code, mapped when it is first needed: a function that waits for months for its event costs no memory, and
/// the start of the node no time.
pub struct Code {
    function: OnceLock<Function>,
    map: Box<dyn Fn() -> Result<Function, RuntimeError> + Send + Sync>,
}

impl Code {
    /// Code that `map` maps.
    pub fn new(map: impl Fn() -> Result<Function, RuntimeError> + Send + Sync + 'static) -> Self {
        Self { function: OnceLock::new(), map: Box::new(map) }
    }

    fn get(&self) -> Result<&Function, RuntimeError> {
        if let Some(function) = self.function.get() {
            return Ok(function);
        }
        // Two workers may both map it at first; one of them keeps it.
        let function = (self.map)()?;
        Ok(self.function.get_or_init(|| function))
    }
}

/// How invocations ended.
#[derive(Debug, Default)]
pub struct Tally {
    succeeded: AtomicU64,
    failed: AtomicU64,
    faulted: AtomicU64,
}

/// What a [`Tally`] said at some moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Invocations that succeeded.
    pub succeeded: u64,
    /// Invocations that did not.
    pub failed: u64,
    /// Those of them that were the guest's own fault: trap, timeout, exhausted.
    pub faulted: u64,
}

impl Tally {
    /// What it says now.
    pub fn read(&self) -> Counts {
        let [succeeded, failed, faulted] =
            [&self.succeeded, &self.failed, &self.faulted].map(|counter| counter.load(Ordering::Acquire));
        Counts { succeeded, failed, faulted }
    }

    /// One more invocation, that ended well or with a fault of this kind.
    pub(super) fn count(&self, fault: Option<&str>) {
        // A failure that is seen is seen for what it was.
        if let Some("trap" | "timeout" | "exhausted") = fault {
            self.faulted.fetch_add(1, Ordering::Relaxed);
        }
        let ended = if fault.is_none() { &self.succeeded } else { &self.failed };
        ended.fetch_add(1, Ordering::Release);
    }
}

impl Counts {
    /// All of them.
    pub fn invocations(&self) -> u64 {
        self.succeeded + self.failed
    }
}

/// Figures of one function since start, whatever version ran.
#[derive(Debug, Default)]
pub struct SlotStats {
    /// Its invocations.
    pub tally: Tally,
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

#[derive(Default)]
struct Jobs {
    jobs: VecDeque<Job>,
    /// What they take together, as [`Job::bytes`] counts.
    bytes: usize,
}

impl Jobs {
    /// Adds a job, unless there are `capacity` already or they take too much memory.
    fn push(&mut self, job: Job, capacity: usize) -> Result<(), Job> {
        let bytes = self.bytes + job.bytes();
        if self.jobs.len() >= capacity || (bytes > QUEUE_BYTES && !self.jobs.is_empty()) {
            return Err(job);
        }
        self.bytes = bytes;
        self.jobs.push_back(job);
        Ok(())
    }

    /// Adds a job that must not be refused, before the others.
    fn push_front(&mut self, job: Job) {
        self.bytes += job.bytes();
        self.jobs.push_front(job);
    }

    fn pop(&mut self) -> Option<Job> {
        let job = self.jobs.pop_front()?;
        self.bytes -= job.bytes();
        Some(job)
    }

    fn clear(&mut self) -> Vec<Job> {
        self.bytes = 0;
        self.jobs.drain(..).collect()
    }
}

struct Queue {
    waiting: Jobs,
    /// Workers that run it or were told to.
    workers: u32,
    /// Token bucket, one second deep.
    tokens: f64,
    /// By [`clock::steady`].
    refilled: Duration,
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
                waiting: Jobs::default(),
                workers: 0,
                tokens: 1.0,
                refilled: clock::steady(),
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
        lock(&self.queue).waiting.jobs.len()
    }

    /// Whether it may be run.
    pub fn is_runnable(&self) -> bool {
        !self.quarantined.load(Ordering::Relaxed) && self.loaded().is_some()
    }

    /// Adds a job. `Ok(true)` asks the caller to put the slot into the run queue; the job comes back when the slot is
    /// full or not runnable.
    pub(super) fn push(&self, job: Job) -> Result<bool, Job> {
        let (capacity, workers) = match self.loaded.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(loaded) if !self.quarantined.load(Ordering::Relaxed) => {
                (loaded.manifest.limits.queue as usize, loaded.workers)
            }
            _ => return Err(job),
        };
        let mut queue = lock(&self.queue);
        // The row that everything waits for must always find room, and goes first.
        let unblocks = matches!((&job.origin, queue.blocked_on), (Origin::Inbox(id), Some(blocked)) if *id == blocked);
        if unblocks {
            queue.waiting.push_front(job);
        } else {
            queue.waiting.push(job, capacity)?;
        }
        let wanted = queue.workers < workers;
        if wanted {
            queue.workers += 1;
        }
        Ok(wanted)
    }

    /// The next job for a worker that is in the slot.
    pub(super) fn next(&self, loaded: &Loaded) -> Next {
        let mut queue = lock(&self.queue);
        let blocked = queue.blocked_on;
        let ready = match (queue.waiting.jobs.front(), blocked) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(job), Some(id)) => matches!(job.origin, Origin::Inbox(row) if row == id),
        };
        if !ready || self.quarantined.load(Ordering::Relaxed) {
            queue.workers = queue.workers.saturating_sub(1);
            return Next::Empty;
        }
        if let Some(rate) = loaded.manifest.limits.rate {
            let now = clock::steady();
            let depth = rate.max(1.0);
            queue.tokens = (queue.tokens + now.saturating_sub(queue.refilled).as_secs_f64() * rate).min(depth);
            queue.refilled = now;
            if queue.tokens < 1.0 {
                queue.workers = queue.workers.saturating_sub(1);
                return Next::NotYet(Duration::from_secs_f64((1.0 - queue.tokens) / rate));
            }
            queue.tokens -= 1.0;
        }
        match queue.waiting.pop() {
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
        let wanted = !queue.waiting.jobs.is_empty() && queue.workers < loaded.workers;
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

    /// The row that everything waits for.
    pub(super) fn blocked_on(&self) -> Option<InboxId> {
        lock(&self.queue).blocked_on
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
        lock(&self.queue).waiting.clear()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::event_now;

    fn job(bytes: usize) -> Job {
        let mut event = event_now(holm_core::EventId("x".into()), holm_core::Source::Mqtt, "a".into());
        event.data = vec![0; bytes].into();
        Job { event: Arc::new(event), origin: Origin::Volatile }
    }

    #[test]
    fn a_queue_is_bounded_by_number_and_by_bytes_and_one_job_always_fits() {
        for (bytes, room) in [(10, 100), (1 << 20, 3), (QUEUE_BYTES / 2, 1), (QUEUE_BYTES, 1), (5 * QUEUE_BYTES, 1)] {
            let mut jobs = Jobs::default();
            for round in 0..3 {
                let taken = (0..200).take_while(|_| jobs.push(job(bytes), 100).is_ok()).count();
                assert_eq!(taken, room, "jobs of {bytes} bytes");
                jobs.push_front(job(bytes));
                assert!(jobs.bytes > room * bytes);
                if round == 1 {
                    assert_eq!(jobs.clear().len(), room + 1);
                } else {
                    assert_eq!(std::iter::from_fn(|| jobs.pop()).count(), room + 1);
                }
                assert_eq!(jobs.bytes, 0);
            }
        }
    }
}
