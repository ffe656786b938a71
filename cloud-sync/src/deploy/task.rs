//! The task that makes what runs what shall run.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holm_core::FunctionName;
use holm_protocol::{DesiredState, Phase, ReasonCode};
use holm_store::CloudNotes;
use holm_trust::{Acceptance, Freshness, Judge, LastAccepted};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::agent::PATIENCE;
use super::carried::Carried;
use super::defer::Asked;
use super::fetch::{Fetched, Fetcher};
use super::record::{Record, Step, View, Work, minutes_open, step};
use super::repository::{Refreshed, Source, blocking, internal};
use super::{AgentStanding, Installer, Next, Order, OrderKey, Refusal, Told, Verdict};
use crate::link::LinkConfig;
use crate::status::Shared;
use crate::{Identity, Requester, Secrets, SyncError};

/// Under this name it is written down.
const NOTE: &str = "deployment";

/// The bounds of the wait before what failed is tried again.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// See [`FIRST_WAIT`].
const LAST_WAIT: Duration = Duration::from_secs(300);

/// A document that cannot be judged for so long, because the repository cannot be reached, is given up. Its own deadline is not
/// known before it is believed.
const JUDGE_PATIENCE: Duration = Duration::from_secs(1_800);

/// How often the update window is looked at.
const LOOK: Duration = Duration::from_secs(20);

/// Where orders come from, and where what there is to tell goes.
pub(crate) struct Parts {
    pub(crate) orders: watch::Receiver<Next>,
    pub(crate) carried: mpsc::Receiver<Carried>,
    pub(crate) told: watch::Sender<Told>,
}

/// See the module.
pub(crate) struct Reconciler {
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) installer: Arc<dyn Installer>,
    notes: CloudNotes,
    pub(super) shared: Arc<Shared>,
    parts: Parts,
    /// What somebody has carried here, until it is judged.
    pub(super) carried: Option<Carried>,
    pub(super) record: Record,
    /// As of the last acceptance in this process.
    refreshed: Option<Arc<Refreshed>>,
    /// See [`View::fetched`].
    fetched: bool,
    /// Functions whose release is newer than the one that was confirmed last, once that is known.
    pub(super) newer: BTreeSet<FunctionName>,
    /// See [`View::staged`].
    staged: bool,
    pub(super) asked: Asked,
    /// See [`Settings::defer`](crate::Settings::defer).
    pub(super) defer: Duration,
    /// When this began.
    pub(super) begun: Instant,
    /// See [`PATIENCE`].
    pub(super) patience: Duration,
    /// Since when time was not yet taken off the work's.
    since: Instant,
    wait: Duration,
}

/// What ends a wait.
pub(super) enum Ended<T> {
    Done(T),
    /// Something else may be wanted.
    Disturbed,
    Stopped,
}

impl Reconciler {
    /// Blocks on the disk.
    pub(crate) fn new(
        config: &LinkConfig,
        identity: &Identity,
        requester: &Requester,
        shared: &Arc<Shared>,
        parts: Parts,
    ) -> Result<Self, SyncError> {
        let notes = config.notes.clone();
        let text = notes.read(NOTE).map_err(|source| SyncError::Store { source })?;
        let record = text.map_or_else(Record::default, |text| {
            serde_json::from_str(&text).unwrap_or_else(|error| {
                tracing::error!(%error, "what was written down about deployments cannot be read; it is begun anew");
                Record::default()
            })
        });
        let fetcher = Fetcher {
            thing: identity.thing().clone(),
            source: Source::new(identity, &requester.time, &requester.traffic, &notes)?,
            installer: config.installer.clone(),
            agent: config.agent.clone(),
            folder: config.data.join("downloads"),
            secrets: Secrets::of(&config.data),
            writing: Arc::default(),
            arrived: Arc::default(),
        };
        Ok(Self {
            fetcher: Arc::new(fetcher),
            installer: config.installer.clone(),
            notes,
            shared: shared.clone(),
            parts,
            carried: None,
            record,
            refreshed: None,
            fetched: false,
            newer: BTreeSet::new(),
            staged: false,
            asked: Asked::Due,
            defer: config.settings.defer,
            begun: Instant::now(),
            patience: config.settings.ack_timeout * PATIENCE,
            since: Instant::now(),
            wait: FIRST_WAIT,
        })
    }

    /// Until `shutdown`. A trial that is running then goes back first, and is tried again at the next start.
    pub(crate) async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        self.tell();
        while !*shutdown.borrow() {
            let next = self.parts.orders.borrow_and_update().clone();
            let arrived = self.fetcher.arrived.load(Ordering::Relaxed);
            let ended = match next {
                _ if self.outstays() => self.hand_back(&mut shutdown).await,
                _ if self.carried.is_some() => self.look_into(&mut shutdown).await,
                Next::Job(order) if !self.record.knows(&order.key) => self.judge(order, &mut shutdown).await,
                next => self.step(&next, &mut shutdown).await,
            };
            match ended {
                Ended::Done(Ok(())) => self.wait = FIRST_WAIT,
                Ended::Done(Err(refusal)) => {
                    // A line that breaks again and again, and brings something each time, gets it done.
                    if self.fetcher.arrived.load(Ordering::Relaxed) > arrived {
                        self.wait = FIRST_WAIT;
                    }
                    tracing::warn!(reason = %refusal.reason, error = refusal.message, wait = ?self.wait, "a deployment does not get on; trying again");
                    let wait = self.wait.mul_f64(rand::random_range(0.5..=1.0));
                    self.wait = (self.wait * 2).min(LAST_WAIT);
                    if let Ended::Stopped = self.undisturbed(sleep(wait), &mut shutdown).await {
                        return;
                    }
                }
                Ended::Disturbed => {}
                Ended::Stopped => return,
            }
        }
    }

    /// Waits for something, unless something else is wanted or the node ends. What is waited for has to be cancel safe.
    pub(super) async fn undisturbed<T>(
        &mut self,
        work: impl Future<Output = T>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Ended<T> {
        tokio::select! {
            done = work => Ended::Done(done),
            changed = self.parts.orders.changed() => if changed.is_ok() { Ended::Disturbed } else { Ended::Stopped },
            Some(carried) = self.parts.carried.recv(), if self.carried.is_none() => {
                self.carried = Some(carried);
                Ended::Disturbed
            }
            _ = shutdown.wait_for(|stop| *stop) => Ended::Stopped,
        }
    }

    /// Whether a job's document is believed.
    pub(super) async fn judge(
        &mut self,
        order: Order,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Ended<Result<(), Refusal>> {
        let begun = Instant::now();
        let fetcher = self.fetcher.at(order.folder.clone());
        let judged = loop {
            let refreshed = match self.undisturbed(fetcher.source.refresh(), shutdown).await {
                Ended::Done(refreshed) => refreshed,
                Ended::Disturbed => return Ended::Disturbed,
                Ended::Stopped => return Ended::Stopped,
            };
            match refreshed {
                Err(refusal) if may_pass(&refusal) && order.folder.is_none() && begun.elapsed() < JUDGE_PATIENCE => {
                    tracing::warn!(reason = %refusal.reason, error = refusal.message, "cannot refresh the repository's metadata; trying again");
                    let wait = self.wait.mul_f64(rand::random_range(0.5..=1.0));
                    self.wait = (self.wait * 2).min(LAST_WAIT);
                    match self.undisturbed(sleep(wait), shutdown).await {
                        Ended::Done(()) => {}
                        Ended::Disturbed => return Ended::Disturbed,
                        Ended::Stopped => return Ended::Stopped,
                    }
                }
                Err(refusal) => break Err(refusal),
                Ok(refreshed) => {
                    let judged = judged(&fetcher, &refreshed, self.record.last(), &order);
                    self.refreshed = Some(Arc::new(refreshed));
                    break judged;
                }
            }
        };
        let before = self.record.clone();
        match judged {
            Ok((state, last, message)) => {
                tracing::info!(job = %order.key.job, generation = state.generation, "a desired state was accepted");
                self.record.accept(order, &state, last, message);
                (self.fetched, self.staged, self.asked) = (false, false, Asked::Due);
                self.since = Instant::now();
            }
            Err(refusal) => {
                tracing::warn!(job = %order.key.job, reason = %refusal.reason, error = refusal.message, "a desired state is refused");
                self.record.refuse(order.key, refusal);
            }
        }
        let kept = self.keep().await;
        if kept.is_err() {
            // Not accepted before it is written down.
            self.record = before;
        }
        Ended::Done(kept)
    }

    /// The next step of the work.
    async fn step(&mut self, next: &Next, shutdown: &mut watch::Receiver<bool>) -> Ended<Result<(), Refusal>> {
        self.spend();
        let generation = self.installer.generation();
        let Some(work) = &self.record.work else { return self.rest(shutdown).await };
        let state = match work.state() {
            Ok(state) => state,
            Err(error) => return Ended::Done(self.end(Phase::Refused, internal(&error)).await),
        };
        let minute = minute_of_day(self.fetcher.source.time().likely().0);
        let open = state.policy.window.map(|window| minutes_open(window, minute));
        self.asked = self.asked.at(std::time::Instant::now());
        let view = View {
            fetched: self.fetched,
            open: open.is_none_or(|minutes| minutes > 0),
            staged: self.staged,
            asked: self.asked,
            // What was carried here was wanted here, whatever was last said over there.
            canceled: *next == Next::Nothing && work.folder.is_none(),
            confirmed: generation,
        };
        let step = step(work, view);
        if step != Step::Rest {
            tracing::debug!(?step, phase = %work.phase, "the next step of a deployment");
        }
        match step {
            Step::Rest => self.rest(shutdown).await,
            Step::Fetch => self.fetch(&state, shutdown).await,
            Step::Wait => {
                let closed = Refusal::new(ReasonCode::OutsideWindow, ReasonCode::OutsideWindow.explanation());
                if self.reason() != Some(&closed.reason)
                    && let Err(refusal) = self.reach(Phase::Deferred, Some(closed)).await
                {
                    return Ended::Done(Err(refusal));
                }
                self.pause(LOOK, shutdown).await
            }
            Step::Ask => self.ask(&state, open, shutdown).await,
            Step::Heed => {
                let left = match self.asked {
                    Asked::Waits(until) => until.saturating_duration_since(std::time::Instant::now()),
                    Asked::Due | Asked::Agreed => Duration::ZERO,
                };
                self.pause(left.min(LOOK), shutdown).await
            }
            // The agent that shall run them does that.
            Step::Stage if self.standing(&state) != AgentStanding::Runs => {
                self.staged = true;
                self.pass(Phase::Staged);
                Ended::Done(Ok(()))
            }
            Step::Stage => {
                let (installer, functions) = (self.installer.clone(), state.functions);
                let staged = blocking(move || installer.stage(&functions)).await.and_then(|staged| staged);
                Ended::Done(match staged {
                    Ok(()) => {
                        self.staged = true;
                        self.pass(Phase::Staged);
                        Ok(())
                    }
                    Err(refusal) => self.end(Phase::Refused, refusal).await,
                })
            }
            Step::Try => match self.standing(&state) {
                AgentStanding::Runs => self.try_it(state, shutdown).await,
                AgentStanding::OnTrial => match self.prove(shutdown).await {
                    Ended::Done(Ok(())) => self.try_it(state, shutdown).await,
                    other => other,
                },
                AgentStanding::Other => self.hand_over(&state, shutdown).await,
                AgentStanding::Failed(why) => {
                    Ended::Done(self.end(Phase::RolledBack, Refusal::new(ReasonCode::AgentFailed, why)).await)
                }
            },
            Step::Confirm => Ended::Done(self.confirm(&state).await),
            Step::End(phase, reason) => {
                let sentence = reason.explanation().to_owned();
                Ended::Done(self.end(phase, Refusal::new(reason, sentence)).await)
            }
        }
    }

    async fn rest(&mut self, shutdown: &mut watch::Receiver<bool>) -> Ended<Result<(), Refusal>> {
        self.undisturbed(std::future::pending(), shutdown).await
    }

    async fn fetch(
        &mut self,
        state: &DesiredState,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Ended<Result<(), Refusal>> {
        let Some(work) = &self.record.work else { return Ended::Done(Ok(())) };
        let (left, fetcher) = (Duration::from_millis(work.left_ms), self.fetcher.at(work.folder.clone()));
        if work.phase == Phase::Queued {
            self.pass(Phase::Downloading);
        }
        let (refreshed, history) = (self.refreshed.clone(), self.record.history());
        let fetching = async {
            let fetched = match refreshed {
                Some(refreshed) => {
                    fetcher.clone().fetch(&refreshed.repository, Some(&refreshed.keys), state, &history).await
                }
                // After a restart: it was accepted, and what the repository said then is known.
                None => fetcher.clone().fetch(&fetcher.source.known().await?, None, state, &history).await,
            };
            match fetched {
                // It took so long that what was known is not fresh any more: perhaps there is fresher.
                Err(refusal) if refusal.reason == ReasonCode::MetadataExpired => {
                    let refreshed = fetcher.source.refresh().await?;
                    fetcher.clone().fetch(&refreshed.repository, Some(&refreshed.keys), state, &history).await
                }
                fetched => fetched,
            }
        };
        let timed = async { tokio::time::timeout(left, fetching).await };
        let fetched = match self.undisturbed(timed, shutdown).await {
            // The next look ends it.
            Ended::Done(Err(_)) => return Ended::Done(Ok(())),
            Ended::Done(Ok(fetched)) => fetched,
            Ended::Disturbed => return Ended::Disturbed,
            Ended::Stopped => return Ended::Stopped,
        };
        Ended::Done(match fetched {
            Ok(Fetched { sequences, newer }) => {
                (self.fetched, self.newer) = (true, newer);
                let early = self.record.work.as_mut().is_some_and(|work| {
                    work.sequences = sequences;
                    work.phase == Phase::Downloading
                });
                if early {
                    self.pass(Phase::Verified);
                }
                Ok(())
            }
            Err(refusal) if may_pass(&refusal) => Err(refusal),
            Err(refusal) => self.end(Phase::Refused, refusal).await,
        })
    }

    async fn pause(&mut self, time: Duration, shutdown: &mut watch::Receiver<bool>) -> Ended<Result<(), Refusal>> {
        match self.undisturbed(sleep(time), shutdown).await {
            Ended::Done(()) => Ended::Done(Ok(())),
            other => other.without_value(),
        }
    }

    /// Why the work is where it is.
    fn reason(&self) -> Option<&ReasonCode> {
        self.record.work.as_ref()?.reason.as_ref()
    }

    /// The trial, which is never left in the middle.
    async fn try_it(
        &mut self,
        state: DesiredState,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Ended<Result<(), Refusal>> {
        if let Some(work) = &mut self.record.work {
            work.trials += 1;
        }
        // Written down first: a node that goes down in a trial has had it.
        if let Err(refusal) = self.reach(Phase::Trial, None).await {
            if let Some(work) = &mut self.record.work {
                work.trials -= 1;
            }
            return Ended::Done(Err(refusal));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (installer, stopped) = (self.installer.clone(), stop.clone());
        let window = Duration::from_secs(u64::from(state.policy.health_window_s));
        let (generation, functions) = (state.generation, state.functions.clone());
        let mut trial = std::pin::pin!(blocking(move || installer.trial(generation, &functions, window, &stopped)));
        let mut ending = false;
        let tried = loop {
            tokio::select! {
                tried = &mut trial => break tried.and_then(|tried| tried),
                changed = self.parts.orders.changed(), if !ending => {
                    let other = match &*self.parts.orders.borrow_and_update() {
                        Next::Job(order) => !self.record.knows(&order.key),
                        _ => false,
                    };
                    if changed.is_err() || other {
                        // Whatever it is, it is judged after this: a trial that is stopped for nothing is begun again.
                        ending = true;
                        stop.store(true, Ordering::Relaxed);
                    }
                }
                _ = shutdown.wait_for(|stop| *stop), if !ending => {
                    ending = true;
                    stop.store(true, Ordering::Relaxed);
                }
            }
        };
        match tried {
            Ok(Verdict::Confirmed) => {
                tracing::info!(generation, "a desired state is confirmed");
                Ended::Done(self.confirm(&state).await)
            }
            Ok(Verdict::RolledBack(words)) => {
                Ended::Done(self.end(Phase::RolledBack, Refusal::new(ReasonCode::Trapped, words)).await)
            }
            Ok(Verdict::Stopped) => {
                // It was not its fault.
                if let Some(work) = &mut self.record.work {
                    work.trials = work.trials.saturating_sub(1);
                }
                if let Err(refusal) = self.keep().await {
                    return Ended::Done(Err(refusal));
                }
                if *shutdown.borrow() { Ended::Stopped } else { Ended::Disturbed }
            }
            Err(refusal) => Ended::Done(self.end(Phase::RolledBack, refusal).await),
        }
    }

    /// Says that a phase is reached that a start would find again by itself: nothing is written for it.
    fn pass(&mut self, phase: Phase) {
        self.spend();
        if let Some(work) = &mut self.record.work {
            work.to(phase, None);
        }
        self.tell();
    }

    pub(super) async fn reach(&mut self, phase: Phase, why: Option<Refusal>) -> Result<(), Refusal> {
        self.spend();
        let before = self.record.clone();
        if let Some(work) = &mut self.record.work {
            work.to(phase, why);
        }
        let kept = self.keep().await;
        if kept.is_err() {
            self.record = before;
        }
        kept
    }

    async fn confirm(&mut self, state: &DesiredState) -> Result<(), Refusal> {
        match self.standing(state) {
            AgentStanding::Runs => {}
            AgentStanding::OnTrial => {
                let installer = self.installer.clone();
                blocking(move || installer.confirm_agent()).await.and_then(|done| done)?;
            }
            AgentStanding::Other | AgentStanding::Failed(_) => {
                // It went down between the two confirmations, more than once. The next desired state finds what is.
                let what = "it went down after its functions were confirmed, and before it was itself";
                return self.end(Phase::RolledBack, Refusal::new(ReasonCode::AgentFailed, what)).await;
            }
        }
        let before = self.record.clone();
        self.record.confirmed();
        let kept = self.keep().await;
        if kept.is_err() {
            // The installer has it, and the next look finds that.
            self.record = before;
        }
        kept
    }

    pub(super) async fn end(&mut self, phase: Phase, refusal: Refusal) -> Result<(), Refusal> {
        tracing::warn!(phase = %phase, reason = %refusal.reason, error = refusal.message, "a desired state does not come to run");
        self.reach(phase, Some(refusal)).await
    }

    pub(super) fn spend(&mut self) {
        let now = Instant::now();
        if let Some(work) = &mut self.record.work {
            work.spend(now - self.since);
        }
        self.since = now;
    }

    /// Writes it down, and then says so.
    pub(super) async fn keep(&self) -> Result<(), Refusal> {
        let document = serde_json::to_string(&self.record).map_err(|error| internal(&error))?;
        let notes = self.notes.clone();
        blocking(move || notes.write(NOTE, document)).await?.map_err(|error| internal(&error))?;
        self.tell();
        Ok(())
    }

    fn tell(&self) {
        let told = self.record.told();
        if let Some(Work { phase, generation, .. }) = &self.record.work {
            let mut status = self.shared.status();
            (status.generation, status.phase) = (*generation, Some(phase.to_string()));
            status.reason = told.work.as_ref().and_then(|about| about.reason.as_ref().map(ToString::to_string));
            status.message = told.work.as_ref().and_then(|about| about.message.clone());
            status.deferred_until = told.work.as_ref().and_then(|about| about.until).map(|until| until.0);
        }
        self.parts.told.send_replace(told);
        self.shared.news.notify_one();
    }
}

impl<T> Ended<T> {
    pub(super) fn without_value<U>(self) -> Ended<U> {
        match self {
            Self::Stopped => Ended::Stopped,
            Self::Done(_) | Self::Disturbed => Ended::Disturbed,
        }
    }
}

type Judged = (DesiredState, Option<LastAccepted>, Option<String>);

fn judged(
    fetcher: &Fetcher,
    refreshed: &Refreshed,
    last: Option<LastAccepted>,
    order: &Order,
) -> Result<Judged, Refusal> {
    let (deployment, targets) = (refreshed.keys.role()?, refreshed.repository.targets_role()?);
    let (time, monotonic) = fetcher.source.time().trusted();
    let judge =
        Judge { device: &fetcher.thing, deployment: &deployment, targets: &targets, last, time: &time, monotonic };
    Ok(match judge.accept(&order.document)? {
        Acceptance::New { state, last, freshness } => {
            let unknown = matches!(freshness, Freshness::Unknown);
            let message = unknown
                .then(|| "whether it has expired is not known: nobody has told the time since the boot".to_owned());
            (state, Some(last), message)
        }
        Acceptance::Known(state) => (state, None, None),
    })
}

/// What another attempt may mend, within the deadline.
fn may_pass(refusal: &Refusal) -> bool {
    matches!(refusal.reason, ReasonCode::DownloadFailed | ReasonCode::Internal)
}

fn minute_of_day(time: i64) -> u16 {
    u16::try_from(time.div_euclid(60_000).rem_euclid(1_440)).unwrap_or_default()
}

/// For [`super::updates`].
pub(crate) fn key_of(job: &holm_protocol::JobExecution) -> OrderKey {
    OrderKey { job: job.job_id.clone(), execution: job.execution_number }
}
