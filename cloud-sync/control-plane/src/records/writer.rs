//! The one thread that writes: group commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rusqlite::Connection;
use tokio::sync::mpsc;

use crate::CloudError;
use crate::error::{chain, sql};

/// Changes that may wait. One is small unless it is a batch, and batches are bounded by [`MAX_BYTES`] too.
const MAX_CHANGES: usize = 4_096;

/// Bytes of batches that may wait. Who comes when it is full is cut off and comes back later.
const MAX_BYTES: usize = 64 << 20;

/// The most changes in one transaction.
const GROUP_CHANGES: usize = 256;

/// A group is full at so many bytes: who waits for a commit shall not wait for much more than his own.
const GROUP_BYTES: usize = 4 << 20;

/// Told whether the group was committed, after it was or was not.
type Told = Box<dyn FnOnce(bool) + Send>;

/// What is to be done. Given no connection, it only tells that it was not.
type Apply = Box<dyn FnOnce(Option<&Connection>) -> Told + Send>;

/// A change that waits for its turn.
pub(super) struct Change {
    apply: Apply,
    weight: usize,
}

/// Makes a change out of what is to be done, and who is to be told.
pub(super) fn change<T: Send + 'static>(
    weight: usize,
    change: impl FnOnce(&Connection) -> Result<T, CloudError> + Send + 'static,
    done: impl FnOnce(Result<T, CloudError>) + Send + 'static,
) -> Change {
    let apply = move |connection: Option<&Connection>| -> Told {
        let result = match connection {
            Some(connection) => within_savepoint(connection, change),
            None => Err(CloudError::NotCommitted),
        };
        Box::new(move |committed| match result {
            Ok(_) if !committed => done(Err(CloudError::NotCommitted)),
            result => done(result),
        })
    };
    Change { apply: Box::new(apply), weight }
}

/// What a change that fails has done is undone, and nothing else.
fn within_savepoint<T>(
    connection: &Connection,
    change: impl FnOnce(&Connection) -> Result<T, CloudError>,
) -> Result<T, CloudError> {
    let run = |statement: &str| {
        connection.prepare_cached(statement).and_then(|mut statement| statement.execute([])).map_err(sql("write"))
    };
    run("SAVEPOINT change")?;
    match change(connection) {
        Ok(value) => run("RELEASE change").map(|_| value),
        Err(error) => {
            // SQLite may have rolled everything back already (a full disk); the writer sees that.
            let _ = run("ROLLBACK TO change").and_then(|_| run("RELEASE change"));
            Err(error)
        }
    }
}

/// The way to the writer.
pub(super) struct Queue {
    changes: mpsc::Sender<Change>,
    bytes: AtomicUsize,
    closed: AtomicBool,
}

impl Queue {
    pub(super) fn new() -> (Self, mpsc::Receiver<Change>) {
        let (changes, work) = mpsc::channel(MAX_CHANGES);
        (Self { changes, bytes: AtomicUsize::new(0), closed: AtomicBool::new(false) }, work)
    }

    /// Waits for room.
    pub(super) async fn send(&self, change: Change) -> Result<(), CloudError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(CloudError::Busy);
        }
        self.changes.send(change).await.map_err(|_| CloudError::Busy)
    }

    /// Does not wait.
    pub(super) fn offer(&self, change: Change) -> Result<(), CloudError> {
        let weight = change.weight;
        if self.closed.load(Ordering::Acquire)
            || self.bytes.fetch_add(weight, Ordering::AcqRel).saturating_add(weight) > MAX_BYTES
        {
            self.bytes.fetch_sub(weight, Ordering::AcqRel);
            return Err(CloudError::Busy);
        }
        self.changes.try_send(change).map_err(|_| {
            self.bytes.fetch_sub(weight, Ordering::AcqRel);
            CloudError::Busy
        })
    }

    /// See [`super::Records::close`].
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // Wakes the writer, which looks whether it shall end. A full queue keeps it awake anyway.
        let _ = self.changes.try_send(change(0, |_| Ok(()), |_: Result<(), CloudError>| {}));
    }
}

/// The writer. Its owner gives it a thread and calls [`Writer::run`].
pub(crate) struct Writer {
    connection: Connection,
    work: mpsc::Receiver<Change>,
    queue: Arc<Queue>,
    failing: bool,
}

impl Writer {
    pub(super) fn new(connection: Connection, work: mpsc::Receiver<Change>, queue: Arc<Queue>) -> Self {
        Self { connection, work, queue, failing: false }
    }

    /// Commits what is queued until the records are closed and everything is. Blocks.
    pub(crate) fn run(mut self) {
        while let Some(group) = self.next_group() {
            self.commit(group);
        }
        // A clean end leaves one file: everything is moved out of the log.
        if let Err(error) = self.connection.pragma_update(None, "wal_checkpoint", "TRUNCATE") {
            tracing::warn!(%error, "could not empty the write-ahead log at the end");
        }
    }

    fn next_group(&mut self) -> Option<Vec<Change>> {
        if self.queue.closed.load(Ordering::Acquire) && self.work.is_empty() {
            return None;
        }
        let first = self.work.blocking_recv()?;
        let mut weight = first.weight;
        let mut group = vec![first];
        while group.len() < GROUP_CHANGES
            && weight < GROUP_BYTES
            && let Ok(change) = self.work.try_recv()
        {
            weight += change.weight;
            group.push(change);
        }
        self.queue.bytes.fetch_sub(weight, Ordering::AcqRel);
        Some(group)
    }

    /// Commits a group, and tells everybody. Where SQLite gives up a transaction in its middle, everybody until then is told
    /// that nothing happened, and the rest has a transaction of its own.
    fn commit(&mut self, group: Vec<Change>) {
        let mut group = group.into_iter().peekable();
        while group.peek().is_some() {
            let mut told = Vec::with_capacity(group.len());
            let mut result = self.execute("BEGIN IMMEDIATE", "begin a transaction");
            if result.is_err() {
                told.extend(group.by_ref().map(|change| (change.apply)(None)));
            }
            while let Some(change) = group.next_if(|_| !self.connection.is_autocommit()) {
                told.push((change.apply)(Some(&self.connection)));
            }
            if result.is_ok() {
                // The point of no return: when this comes back, the log is synced and everything above has happened.
                result = self.execute("COMMIT", "commit");
                if result.is_err() && !self.connection.is_autocommit() {
                    let _ = self.execute("ROLLBACK", "roll back");
                }
            }
            self.report(&result);
            for told in told {
                told(result.is_ok());
            }
        }
    }

    fn execute(&self, statement: &str, action: &'static str) -> Result<(), CloudError> {
        let mut statement = self.connection.prepare_cached(statement).map_err(sql(action))?;
        statement.execute([]).map(|_| ()).map_err(sql(action))
    }

    /// Tells the operator once, and once more when it is over.
    fn report(&mut self, result: &Result<(), CloudError>) {
        match result {
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::error!(
                    error = chain(error),
                    "the database cannot commit; nothing is acknowledged until it can"
                );
            }
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!("the database commits again");
            }
            _ => {}
        }
    }
}
