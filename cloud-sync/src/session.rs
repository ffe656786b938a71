//! One connection, from the first question to its end: what comes is handed to whom it concerns, and what they have to say is sent.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holm_core::Timestamp;
use holm_mqtt::{CloudError, CloudEvent, CloudSession};
use holm_protocol::{
    Ack, Address, BATCH_FORMAT, DESIRED_STATE_FORMAT, Exchange, Formats, Health, JobTarget, Phase, Reported, Subject,
    ThingName,
};
use holm_store::{CloudNotes, Lane};
use holm_trust::SealingKey;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::SyncError;
use crate::deploy::updates::{Answered, Updates};
use crate::deploy::{Next, Told};
use crate::enrol::Requester;
use crate::identity::Identity;
use crate::jobs::{Heard, Jobs};
use crate::link::{LinkConfig, Node};
use crate::report::Reporter;
use crate::status::{LinkState, Shared};
use crate::upload::{self, Picked, Settings, Settled, Upload};
use crate::usage::{Feature, Usage};

/// How often what runs, the certificate's age and the day's bytes are looked at.
const TICK: Duration = Duration::from_secs(10);

/// The floor of trusted time is written down when it has risen by so many milliseconds: a restart loses no more.
const FLOOR_STEP: i64 = 6 * 3_600_000;

/// After a certificate could not be had.
const RENEW_WAIT: Duration = Duration::from_secs(3_600);

/// Under this name the link remembers.
const NOTE: &str = "link";

/// What is remembered over restarts.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Remembered {
    /// The floor of trusted time, in milliseconds since 1970.
    pub(crate) floor: Option<i64>,
    usage: Option<Usage>,
}

/// Reads it; what cannot be read is begun anew.
pub(crate) fn remembered(notes: &CloudNotes) -> Remembered {
    match notes.read(NOTE) {
        Ok(text) => text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
        Err(error) => {
            tracing::error!(%error, "cannot read what the link to the control plane remembers");
            Remembered::default()
        }
    }
}

/// How a connection ended.
pub(crate) enum End {
    /// The node is ending.
    Stopped,
    /// There is a new certificate to be tried.
    Renewed,
    /// It broke, or never was established.
    Lost {
        error: SyncError,
        /// The control plane has answered something on it.
        answered: bool,
        established: bool,
    },
}

type Renewal = Pin<Box<dyn Future<Output = Result<(), SyncError>> + Send>>;

/// What outlives a connection.
pub(crate) struct Work {
    thing: ThingName,
    settings: Settings,
    node: Arc<dyn Node>,
    notes: CloudNotes,
    shared: Arc<Shared>,
    requester: Requester,
    upload: Upload,
    jobs: Jobs,
    updates: Updates,
    /// To the reconciler, and from it.
    orders: watch::Sender<Next>,
    told: watch::Receiver<Told>,
    reporter: Reporter,
    usage: Usage,
    floor: Option<i64>,
    floor_noted: Option<i64>,
    reading: Option<JoinHandle<Picked>>,
    settling: Option<JoinHandle<Settled>>,
    measuring: Option<JoinHandle<Health>>,
    noting: Option<JoinHandle<()>>,
    renew_at: Instant,
    expires: Option<Timestamp>,
    answered: bool,
    /// What secrets for this device are sealed to.
    sealing: SealingKey,
}

/// What a thread that may block has made. Pends while there is none.
async fn joined<T>(handle: &mut Option<JoinHandle<T>>) -> Result<T, SyncError> {
    let Some(running) = handle else { return std::future::pending().await };
    let result = running.await;
    *handle = None;
    // It panicked: the link begins anew, and so does what was being done.
    result.map_err(|_| SyncError::Given { what: "a read or write of the disk", problem: "it ended early".into() })
}

impl Work {
    /// Blocks on the disk.
    pub(crate) fn new(
        config: &LinkConfig,
        shared: &Arc<Shared>,
        requester: &Requester,
        thing: ThingName,
        (orders, told): (watch::Sender<Next>, watch::Receiver<Told>),
    ) -> Result<Self, SyncError> {
        let now = Instant::now();
        let Remembered { floor, usage } = remembered(&config.notes);
        let usage = usage.unwrap_or_default().restored();
        Ok(Self {
            settings: config.settings.clone(),
            node: config.node.clone(),
            notes: config.notes.clone(),
            shared: shared.clone(),
            requester: requester.clone(),
            upload: Upload::new(thing.clone(), config.outbox.clone(), &config.settings),
            jobs: Jobs::new(thing.clone(), now),
            updates: Updates::new(thing.clone(), now),
            orders,
            told,
            reporter: Reporter::new(thing.clone(), now)?,
            thing,
            usage,
            floor,
            floor_noted: floor,
            reading: None,
            settling: None,
            measuring: None,
            noting: None,
            renew_at: now,
            expires: None,
            answered: false,
            sealing: requester.folder.opening_key()?.public(),
        })
    }

    /// Lives until the connection ends.
    pub(crate) async fn run(
        &mut self,
        mut session: CloudSession,
        identity: &Arc<Identity>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> End {
        let now = Instant::now();
        self.upload.connected();
        self.jobs.connected(now);
        self.updates.connected(now);
        self.reporter.connected(now);
        self.answered = false;
        self.expires = Some(identity.not_after);
        {
            let mut status = self.shared.status();
            status.state = LinkState::Connected;
            status.connections += 1;
            status.last_error = None;
        }
        tracing::info!(thing = %self.thing, "connected to the control plane");
        self.node.connected();
        let end = self.drive(&mut session, identity, shutdown).await;
        self.shared.status().in_flight = 0;
        match end {
            Ok(end) => {
                session.close().await;
                end
            }
            Err(error) => End::Lost { error, answered: self.answered, established: true },
        }
    }

    async fn drive(
        &mut self,
        session: &mut CloudSession,
        identity: &Arc<Identity>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<End, SyncError> {
        let broken = |source| SyncError::Session { source };
        let mut tick = Instant::now();
        let mut renewal: Option<Renewal> = None;
        loop {
            let now = Instant::now();
            if now >= tick {
                tick = now + TICK;
                self.look_around(now);
                if renewal.is_none() && now >= self.renew_at && self.requester.time.likely() >= identity.renew_at() {
                    self.renew_at = now + RENEW_WAIT;
                    let (requester, identity) = (self.requester.clone(), identity.clone());
                    renewal = Some(Box::pin(async move { requester.renew(&identity).await.map(drop) }));
                }
            }
            self.upload.tick(now)?;
            self.speak(session, now)?;
            self.show();
            let deadline = self.deadline(tick, session.has_room());
            tokio::select! {
                event = session.next() => match event.map_err(broken)? {
                    CloudEvent::Acknowledged(_) => {}
                    CloudEvent::Message { topic, payload } => self.hear(&topic, &payload),
                },
                picked = joined(&mut self.reading) => {
                    let now = Instant::now();
                    if let Some(ready) = self.upload.picked(picked?, now) {
                        self.send(session, &ready, now).map_err(broken)?;
                    }
                }
                settled = joined(&mut self.settling) => {
                    self.answered |= self.upload.settled(settled?, Instant::now());
                }
                health = joined(&mut self.measuring) => {
                    let reported = self.reported(health?);
                    if let Some((topic, payload)) = self.reporter.report(reported, Instant::now())? {
                        self.publish(session, Feature::Shadow, &topic, &payload).map_err(broken)?;
                    }
                }
                noted = joined(&mut self.noting) => noted?,
                renewed = async { match &mut renewal { Some(renewal) => renewal.await, None => std::future::pending().await } } => {
                    renewal = None;
                    match renewed {
                        Ok(()) => return Ok(End::Renewed),
                        Err(error) => tracing::warn!(error = error.chain(), "cannot get a new certificate; trying again in an hour"),
                    }
                }
                () = self.shared.news.notified() => self.look_at_functions(Instant::now()),
                () = tokio::time::sleep_until(deadline) => {}
                _ = shutdown.wait_for(|stop| *stop) => return Ok(End::Stopped),
            }
        }
    }

    /// Sends what there is to say, and begins to read what is to be said next.
    fn speak(&mut self, session: &mut CloudSession, now: Instant) -> Result<(), SyncError> {
        if self.settling.is_none()
            && let Some((outbox, verdicts)) = self.upload.verdicts(now)
        {
            let clock = self.requester.time.clocks().wall;
            self.settling = Some(tokio::task::spawn_blocking(move || upload::settle(&outbox, verdicts, clock)));
        }
        if !session.has_room() {
            return Ok(());
        }
        if let Some((topic, payload)) = self.jobs.question(now)? {
            self.publish(session, Feature::Jobs, &topic, &payload).map_err(|source| SyncError::Session { source })?;
        }
        let told = self.told.borrow_and_update().clone();
        if session.has_room()
            && let Some((topic, payload)) = self.updates.update(self.jobs.next(), &told, now)?
        {
            self.publish(session, Feature::Jobs, &topic, &payload).map_err(|source| SyncError::Session { source })?;
        }
        if self.measuring.is_none() && now >= self.reporter.deadline() {
            let node = self.node.clone();
            self.measuring = Some(tokio::task::spawn_blocking(move || node.health()));
        }
        let only_alarms = self.is_spent();
        if self.reading.is_none()
            && let Some(request) = self.upload.request(now, only_alarms)
        {
            let clock = self.requester.time.clocks().wall;
            self.reading = Some(tokio::task::spawn_blocking(move || upload::pick(request, clock)));
        }
        Ok(())
    }

    /// When something is to be done though nothing happens. What has to wait for room, or for a thread, has no time.
    fn deadline(&self, tick: Instant, has_room: bool) -> Instant {
        let question = has_room.then(|| self.jobs.deadline());
        let report = (has_room && self.measuring.is_none()).then(|| self.reporter.deadline());
        let update = self.updates.deadline().filter(|_| has_room);
        [question, report, update, self.upload.deadline()].into_iter().flatten().fold(tick, Instant::min)
    }

    fn send(&mut self, session: &mut CloudSession, ready: &upload::Ready, now: Instant) -> Result<(), CloudError> {
        let feature = match ready.lane {
            Lane::Alarms => Feature::Alarms,
            Lane::Results => Feature::Results,
            Lane::Logs => Feature::Logs,
        };
        let topic = ready.header.address().to_string();
        self.publish(session, feature, &topic, &ready.payload)?;
        self.usage.batch(ready.header.stream.as_str(), ready.payload.len());
        self.upload.sent(ready, now);
        Ok(())
    }

    fn publish(
        &mut self,
        session: &mut CloudSession,
        feature: Feature,
        topic: &str,
        payload: &[u8],
    ) -> Result<(), CloudError> {
        session.publish(topic, payload)?;
        self.usage.packet(feature, topic, payload.len());
        Ok(())
    }

    /// A message came. One that cannot be read harms nobody: what it should have brought is asked for again.
    fn hear(&mut self, topic: &str, payload: &Bytes) {
        let now = Instant::now();
        let subject = match Address::parse_for(&self.thing, topic) {
            Ok(subject) => subject,
            Err(error) => {
                tracing::debug!(%error, "a message on a topic that is not ours");
                return;
            }
        };
        let heard = match subject {
            Subject::Ack => Ack::read(payload).map_err(SyncError::from).map(|mut ack| {
                for ask in std::mem::take(&mut ack.asks) {
                    self.upload.hurry(now);
                    self.node.asked(ask);
                }
                self.upload.acknowledged(ack);
                Heard::default()
            }),
            Subject::NextJobChanged => {
                self.jobs.ring(now);
                Ok(Heard::default())
            }
            Subject::GetJob(JobTarget::Next, Exchange::Accepted) => self.jobs.accepted(payload, now),
            Subject::GetJob(JobTarget::Next, Exchange::Rejected) => self.jobs.rejected(payload, now),
            Subject::UpdateJob(_, Exchange::Accepted) => self.updates.accepted(payload, now).map(|it| self.updated(it)),
            Subject::UpdateJob(_, Exchange::Rejected) => self.updates.rejected(payload, now).map(|it| self.updated(it)),
            Subject::UpdateShadow(_, Exchange::Accepted) => self.reporter.accepted(payload, now),
            Subject::UpdateShadow(_, Exchange::Rejected) => self.reporter.rejected(payload, now),
            // Answers to requests that this release does not make.
            _ => Ok(Heard::default()),
        };
        match heard {
            Ok(heard) => self.heard(&heard),
            Err(error) => tracing::warn!(error = error.chain(), topic, "a message of the control plane cannot be used"),
        }
    }

    fn updated(&mut self, answered: Answered) -> Heard {
        if answered.ask {
            self.jobs.ask(Instant::now());
        }
        answered.heard
    }

    fn heard(&mut self, heard: &Heard) {
        self.answered |= heard.answer;
        if heard.answer {
            self.shared.answered.send_if_modified(|answered| !std::mem::replace(answered, true));
        }
        if let Some(floor) = heard.time.and_then(|time| self.requester.time.told(time)) {
            self.floor = Some(floor.0);
        }
        if heard.changed {
            let job = self.jobs.next().map(|job| job.job_id.to_string());
            tracing::info!(job, "the control plane has another next job");
            self.shared.status().next_job = job;
        }
        let wanted = self.jobs.wanted();
        if wanted != Next::Unknown {
            self.orders.send_if_modified(|order| {
                let other = *order != wanted;
                *order = wanted;
                other
            });
        }
    }

    /// What is looked at by the clock.
    fn look_around(&mut self, now: Instant) {
        self.usage.count(&self.requester.traffic, self.requester.time.wall());
        self.look_at_functions(now);
        let risen = self.floor.unwrap_or_default().saturating_sub(self.floor_noted.unwrap_or_default());
        if self.noting.is_none() && (risen >= FLOOR_STEP || self.usage.is_worth_noting(self.settings.daily_bytes)) {
            self.noting = self.note();
        }
    }

    fn look_at_functions(&mut self, now: Instant) {
        let reported = self.reported(Health::default());
        self.reporter.look(&reported, self.node.faults(), now);
    }

    /// Whether only alarms may go up.
    fn is_spent(&self) -> bool {
        let traffic = &self.requester.traffic;
        let total = self.usage.total_at(traffic.sent() + traffic.received());
        self.settings.daily_bytes.is_some_and(|daily| total >= daily)
    }

    fn note(&mut self) -> Option<JoinHandle<()>> {
        self.floor_noted = self.floor;
        self.usage.note();
        let remembered = Remembered { floor: self.floor, usage: Some(self.usage.clone()) };
        let document = serde_json::to_string(&remembered).ok()?;
        let notes = self.notes.clone();
        Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = notes.write(NOTE, document) {
                tracing::warn!(%error, "cannot note what the link to the control plane should remember");
            }
        }))
    }

    fn reported(&self, health: Health) -> Reported {
        let told = self.told.borrow();
        Reported {
            agent: self.requester.agent.version.clone(),
            build: Some(self.requester.agent.clone()),
            formats: Formats { desired_state: DESIRED_STATE_FORMAT, batch: BATCH_FORMAT },
            // Before the first desired state, what runs was deployed by hand, and stays.
            generation: told.work.as_ref().map_or(0, |work| work.generation),
            phase: told.work.as_ref().map_or(Phase::Confirmed, |work| work.phase.clone()),
            reason: told.work.as_ref().and_then(|work| work.reason.clone()),
            sealing_key: Some(self.sealing.to_string()),
            functions: self.node.functions(),
            functions_omitted: 0,
            health: Health { certificate_expires: self.expires.map(|time| time.0 / 1_000), ..health },
        }
    }

    fn show(&self) {
        let traffic = &self.requester.traffic;
        let mut status = self.shared.status();
        status.sealing_key = Some(self.sealing.to_string());
        status.in_flight = self.upload.in_flight();
        status.upload = self.upload.stats;
        status.daily_bytes = self.settings.daily_bytes;
        status.bytes_today = self.usage.total_at(traffic.sent() + traffic.received());
        status.paused = status.daily_bytes.is_some_and(|daily| status.bytes_today >= daily);
        if status.features != self.usage.features {
            status.features.clone_from(&self.usage.features);
        }
        if status.functions != self.usage.functions {
            status.functions.clone_from(&self.usage.functions);
        }
    }

    /// The node is ending: what is being written down is waited for.
    pub(crate) async fn end(mut self) {
        self.usage.count(&self.requester.traffic, self.requester.time.wall());
        if let Some(settling) = self.settling.take() {
            let _ = settling.await;
        }
        if let Some(noting) = self.noting.take() {
            let _ = noting.await;
        }
        if let Some(noting) = self.note() {
            let _ = noting.await;
        }
    }
}
