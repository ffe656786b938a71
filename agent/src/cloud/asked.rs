//! What people want of this node from afar: log lines while they look, reports, dead letters to be seen, replayed and dropped. What it
//! says is records of the log lane.
//!
//! # How it works
//!
//! Nothing of it is on an event's way. Functions' lines are in a ring in memory ([`crate::journal`]) as ever; while somebody looks, or
//! where the configuration says always, they are read from there a few times a second and written to the lane, one transaction for all
//! of them. What the ring has lost by then, and what is more than the configuration (`cloud.log_bytes`) allows in a minute, is told as a gap.
//!
//! Nothing is kept for who is not looking: lines from before somebody looked are the last [`FIRST`].
//!
//! # What an ask may do
//!
//! It comes over the link, whose other end has shown its certificate, and from nobody else; and all it changes is where dead letters are,
//! by the door that the admin socket uses too ([`crate::letters`]). It may do even that only where the configuration lets it (`cloud.letters`),
//! one after the other, [`MOVE_SPACING`] apart: whoever has broken into the control plane wears no card out with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holm_cloud_sync::Cloud;
use holm_core::{LogLevel, Timestamp};
use holm_protocol::{
    Ask, ClientToken, DEAD_LETTER_STREAM, LETTER_STREAM, LOG_STREAM, LetterWay, LogRecord, MAX_LOGS_S, MOVED_STREAM,
    MovedLetters, REPORT_STREAM,
};
use holm_store::{Lane, Write};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Logs, report};
use crate::clock;
use crate::config::Config;
use crate::deploy::{Deployer, chain};
use crate::dispatch::Dispatcher;
use crate::journal::LogEntry;
use crate::letters::{Letters, Which};

/// Lines from before somebody looked.
const FIRST: usize = 100;

/// Lines that one transaction takes.
const PORTION: usize = 500;

/// Between two looks into the ring: lines that come together go together.
const SPACING: Duration = Duration::from_millis(300);

/// Between two looks into the ring where nothing wakes us.
const LOOK: Duration = Duration::from_secs(2);

/// Between two reports, or lists of dead letters, at least: each costs some tens of kilobytes.
const REPORT_SPACING: Duration = Duration::from_secs(2);

/// After letters were moved, until anything else is answered: that is a sync and some rows.
const MOVE_SPACING: Duration = Duration::from_millis(250);

/// What a record costs beside its text.
const OVERHEAD: u64 = 96;

/// See the module. A task of the node.
pub(crate) struct Answerer {
    dispatcher: Arc<Dispatcher>,
    deployer: Arc<Deployer>,
    letters: Arc<Letters>,
    cloud: Cloud,
    files: Vec<std::path::PathBuf>,
    logs: Logs,
    /// Whether payloads may go up.
    shows: bool,
    /// Whether letters may be moved.
    moves: bool,
    budget: Budget,
    asks: mpsc::Receiver<Ask>,
    /// Somebody looks at lines of at least this level until then.
    looked_at: Option<(LogLevel, Instant)>,
    /// The last line that was looked at.
    last: u64,
    /// Nothing is answered before.
    rests: Instant,
}

/// What there is to do.
enum Woken {
    Asked(Ask),
    /// There may be lines.
    Grown,
    /// Nobody looks any more.
    Over,
}

/// Bytes of log that may go up, a minute's worth at once.
struct Budget {
    most: u64,
    left: u64,
    since: Instant,
}

impl Budget {
    fn new(most: u64, now: Instant) -> Self {
        Self { most, left: most, since: now }
    }

    fn take(&mut self, bytes: u64, now: Instant) -> bool {
        let passed = u64::try_from(now.duration_since(self.since).as_millis()).unwrap_or(u64::MAX);
        let grown = self.most.saturating_mul(passed) / 60_000;
        if grown > 0 {
            (self.left, self.since) = (self.left.saturating_add(grown).min(self.most), now);
        }
        let fits = bytes <= self.left;
        if fits {
            self.left -= bytes;
        }
        fits
    }
}

impl Answerer {
    pub(super) fn new(
        config: &Config,
        dispatcher: Arc<Dispatcher>,
        deployer: Arc<Deployer>,
        letters: Arc<Letters>,
        cloud: Cloud,
        asks: mpsc::Receiver<Ask>,
    ) -> Self {
        let (files, logs, now) = (config.files.clone(), config.cloud.logs, Instant::now());
        let (shows, moves) = (config.cloud.traps, config.cloud.letters);
        let (budget, looked_at) = (Budget::new(config.cloud.log_bytes, now), None);
        Self {
            dispatcher,
            deployer,
            letters,
            cloud,
            files,
            logs,
            shows,
            moves,
            budget,
            asks,
            looked_at,
            last: 0,
            rests: now,
        }
    }

    /// Until `shutdown`.
    pub(crate) async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let dispatcher = self.dispatcher.clone();
        loop {
            let level = self.level();
            let end = self.looked_at.map(|(_, end)| end);
            let woken = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                Some(ask) = self.asks.recv() => Woken::Asked(ask),
                () = dispatcher.journal.logs.grown(), if level.is_some() => Woken::Grown,
                // A line that comes between two waits wakes nobody.
                () = sleep(LOOK), if level.is_some() => Woken::Grown,
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => Woken::Over,
            };
            match woken {
                Woken::Asked(ask) => self.asked(ask).await,
                Woken::Grown => {
                    tokio::select! {
                        () = sleep(SPACING) => {}
                        _ = shutdown.wait_for(|stop| *stop) => return,
                    }
                    self.ship().await;
                }
                Woken::Over => self.looked_at = None,
            }
        }
    }

    /// Lines of which level go up now.
    fn level(&self) -> Option<LogLevel> {
        let looked_at = self.looked_at.filter(|(_, end)| Instant::now() < *end).map(|(level, _)| level);
        match self.logs {
            Logs::Off => None,
            Logs::Asked => looked_at,
            Logs::From(level) => Some(looked_at.map_or(level, |looked_at| looked_at.min(level))),
        }
    }

    async fn asked(&mut self, ask: Ask) {
        if self.logs == Logs::Off {
            tracing::debug!(?ask, "somebody asks from afar, and the configuration says no (cloud.logs)");
            return;
        }
        match ask {
            Ask::Logs { level, for_s } => {
                let end = Instant::now() + Duration::from_secs(for_s.min(MAX_LOGS_S).into());
                // Of several who look, the one who wants most.
                let level = self.looked_at.map_or(level, |(other, _)| other.min(level));
                self.looked_at = Some((level, end));
                self.ship().await;
            }
            Ask::Report { id } => {
                self.breathe(REPORT_SPACING).await;
                let report = report::report(&self.dispatcher, &self.deployer, &self.cloud, &self.files);
                self.answer(REPORT_STREAM, id.as_str(), report).await;
            }
            Ask::DeadLetters { id } => {
                self.breathe(REPORT_SPACING).await;
                let store = self.dispatcher.store.clone();
                self.answer(DEAD_LETTER_STREAM, id.as_str(), move || report::dead_letters(&store)).await;
            }
            Ask::DeadLetter { id, letter } => {
                self.breathe(REPORT_SPACING).await;
                let (store, whole) = (self.dispatcher.store.clone(), self.shows);
                self.answer(LETTER_STREAM, id.as_str(), move || report::dead_letter(&store, letter, whole)).await;
            }
            Ask::ReplayDeadLetters { id, letters } => {
                self.take_out(id, Which::These(BTreeSet::from_iter(letters)), LetterWay::Replay).await;
            }
            Ask::ReplayFunction { id, function, until } => {
                self.take_out(id, Which::Of(function, until), LetterWay::Replay).await;
            }
            Ask::DropDeadLetters { id, letters } => {
                self.take_out(id, Which::These(BTreeSet::from_iter(letters)), LetterWay::Drop).await;
            }
            Ask::Unknown => {}
        }
    }

    /// Waits until another answer may be made, and `spacing` after which the next may. Who asks meanwhile waits too, in a queue that has a
    /// bound.
    async fn breathe(&mut self, spacing: Duration) {
        sleep_until(self.rests).await;
        self.rests = Instant::now() + spacing;
    }

    /// Moves letters on a thread that may block, and queues in the same transaction what became of them.
    async fn take_out(&mut self, id: ClientToken, which: Which, way: LetterWay) {
        self.breathe(MOVE_SPACING).await;
        let nothing = MovedLetters { id, way, done: vec![], gone: vec![], more: false, left: 0, declined: None };
        if !self.moves {
            let declined = Some("its configuration says that dead letters stay (`cloud.letters`)".to_owned());
            self.write(moved(&MovedLetters { declined, ..nothing }).into_iter().collect()).await;
            return;
        }
        let (letters, told) = (self.letters.clone(), nothing.clone());
        let done = tokio::task::spawn_blocking(move || {
            letters.take_out(which, way, |out| {
                let (done, gone) = (out.done.clone(), out.gone.clone());
                moved(&MovedLetters { done, gone, more: out.more, left: out.left, ..told })
            })
        });
        match done.await {
            Ok(Ok(out)) => {
                tracing::info!(done = out.done.len(), gone = out.gone.len(), ?way, "dead letters were moved from afar")
            }
            Ok(Err(error)) => {
                let declined = Some(chain(&error));
                self.write(moved(&MovedLetters { declined, ..nothing }).into_iter().collect()).await;
            }
            Err(error) => tracing::error!(%error, "dead letters were not moved"),
        }
    }

    /// Makes an answer on a thread that may block, and queues it.
    async fn answer(&self, stream: &'static str, id: &str, make: impl FnOnce() -> serde_json::Value + Send + 'static) {
        let id = id.to_owned();
        let made = tokio::task::spawn_blocking(move || {
            let mut answer = make();
            if let Some(fields) = answer.as_object_mut() {
                fields.insert("id".to_owned(), id.into());
            }
            answer
        });
        if let Ok(answer) = made.await {
            self.write(vec![row(stream.into(), clock::now(), answer.to_string())]).await;
        }
    }

    /// Queues what has been written to the logs since it was last looked.
    async fn ship(&mut self) {
        let Some(level) = self.level() else { return };
        loop {
            let entries = self.dispatcher.journal.logs.since(self.last, if self.last == 0 { FIRST } else { PORTION });
            let portion = entries.len();
            let rows = self.rows(entries, level, Instant::now());
            if !rows.is_empty() {
                self.write(rows).await;
            }
            if portion < PORTION {
                return;
            }
        }
    }

    fn rows(&mut self, entries: Vec<LogEntry>, level: LogLevel, now: Instant) -> Vec<Write> {
        let mut rows = Vec::new();
        let mut over: BTreeMap<Arc<str>, (u64, Timestamp)> = BTreeMap::new();
        for entry in entries {
            let missed = entry.number.saturating_sub(self.last + 1);
            if missed > 0 && self.last > 0 {
                let gap = LogRecord::Gap { gap: missed, reason: "ring".to_owned() };
                rows.extend(record(LOG_STREAM.into(), entry.time, &gap));
            }
            self.last = entry.number;
            if entry.level < level {
                continue;
            }
            let bytes = (entry.message.len() + entry.context.len()) as u64 + OVERHEAD;
            if !self.budget.take(bytes, now) {
                let (count, time) = over.entry(entry.function.clone()).or_default();
                (*count, *time) = (*count + 1, entry.time);
                continue;
            }
            let LogEntry { time, function, level, context, message, .. } = entry;
            let line = LogRecord::Line { level, context, message };
            rows.extend(record(format!("log.{function}").into(), time, &line));
        }
        for (function, (gap, time)) in over {
            let gap = LogRecord::Gap { gap, reason: "rate".to_owned() };
            rows.extend(record(format!("log.{function}").into(), time, &gap));
        }
        rows
    }

    async fn write(&self, rows: Vec<Write>) {
        let store = self.dispatcher.store.clone();
        // What cannot be written now is not worth waiting for.
        match tokio::task::spawn_blocking(move || store.commit(rows)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "what somebody wants to see from afar cannot be queued"),
            Err(error) => tracing::error!(%error, "an answer was not made"),
        }
    }
}

fn moved(letters: &MovedLetters) -> Option<Write> {
    // Ours always print.
    serde_json::to_string(letters).ok().map(|text| row(MOVED_STREAM.into(), clock::now(), text))
}

fn record(stream: Arc<str>, time: Timestamp, record: &LogRecord) -> Option<Write> {
    // Ours always print.
    serde_json::to_string(record).ok().map(|text| row(stream, time, text))
}

fn row(stream: Arc<str>, created: Timestamp, text: String) -> Write {
    Write::Outbox { lane: Lane::Logs, stream, created, content_type: None, data: Bytes::from(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minutes_worth_may_go_at_once_and_grows_again() {
        let now = Instant::now();
        let mut budget = Budget::new(600, now);
        assert!(budget.take(500, now) && !budget.take(200, now) && budget.take(100, now));
        assert!(!budget.take(200, now + Duration::from_secs(10)));
        assert!(budget.take(200, now + Duration::from_secs(21)));
        assert!(!budget.take(601, now + Duration::from_secs(3_600)));
    }
}
