//! The task that keeps the device connected: identity, connections one after the other, and the waits between them.
//!
//! # How it works
//!
//! Nothing here is started by the link itself but reads and writes of the disk, on threads that may block. A connection is driven by
//! [`crate::session`]; what outlives it is in [`Work`].
//!
//! A certificate that has passed two thirds of its life is replaced: a new key, a request signed with the old one, and a connection with
//! the new certificate, until which the old one is kept. Where both are there, they are tried in turn.
//!
//! # How it fails
//!
//! Whatever ends a connection is followed by a random part of a wait that doubles from [`FIRST_WAIT`] to [`LAST_WAIT`]. It is short again
//! after a connection on which the control plane has answered something; that it was accepted is not enough. A server that refuses the
//! certificate is asked for a new one, at most every [`RENEW_EVERY`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holm_core::Timestamp;
use holm_mqtt::{CloudOptions, CloudSession, Traffic};
use holm_protocol::limits::{MAX_PAYLOAD_BYTES, MAX_TOPIC_BYTES};
use holm_protocol::{AgentBuild, Ask, Health, ReportedFunction, SHADOW_NAME, ShadowName, subscriptions};
use holm_store::{CloudNotes, Outbox};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::deploy::carried::Carried;
use crate::deploy::{Installer, Next, Parts, Reconciler, Told};
use crate::enrol::{Invitation, Requester};
use crate::identity::{Identity, IdentityFolder};
use crate::session::{End, Work};
use crate::status::{Cloud, LinkState, Shared};
use crate::time::{Clocks, Time};
use crate::upload::Settings;
use crate::{SyncError, tls};

/// The bounds of the wait between two attempts.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// See [`FIRST_WAIT`].
const LAST_WAIT: Duration = Duration::from_secs(300);

/// How often a device that is not enrolled looks whether it is.
const LOOK: Duration = Duration::from_secs(10);

/// An invitation that was refused for good is tried again after this: somebody may have mended it.
const REFUSED_WAIT: Duration = Duration::from_secs(600);

/// Between two requests for a new certificate.
const RENEW_EVERY: Duration = Duration::from_secs(3_600);

/// The largest packet from the server: a payload with its topic and header.
const MAX_PACKET: u32 = (MAX_PAYLOAD_BYTES + MAX_TOPIC_BYTES + 16) as u32;

/// What the node tells about itself. The agent implements it, and so do test doubles.
pub trait Node: Send + Sync + 'static {
    /// What runs. Must not block.
    fn functions(&self) -> Vec<ReportedFunction>;

    /// Figures; the certificate's is filled in by the link. May block on the disk.
    fn health(&self) -> Health;

    /// Invocations that failed since start, as in its health. Must not block.
    fn faults(&self) -> u64;

    /// There is a connection. Must not block.
    fn connected(&self);

    /// Somebody wants to see something: the answer is records of the log lane. Must not block, and may decline.
    fn asked(&self, ask: Ask);
}

/// What the link is made from.
pub struct LinkConfig {
    /// The data folder.
    pub data: PathBuf,
    /// What goes up.
    pub outbox: Outbox,
    /// What is remembered.
    pub notes: CloudNotes,
    /// About the node.
    pub node: Arc<dyn Node>,
    /// Who runs functions.
    pub installer: Arc<dyn Installer>,
    /// What the device runs on.
    pub agent: AgentBuild,
    /// How the link is used.
    pub settings: Settings,
    /// Where the time comes from.
    pub clocks: Clocks,
}

/// See the module.
pub struct CloudLink {
    config: LinkConfig,
    shared: Arc<Shared>,
    requester: Requester,
    renewed: Option<Instant>,
    carried: mpsc::Receiver<Carried>,
}

impl CloudLink {
    /// A link that is not connected, and the handle on it. Reads what was remembered; blocks on the disk.
    pub fn new(config: LinkConfig) -> (Cloud, Self) {
        let shared = Arc::new(Shared::default());
        let floor = crate::session::remembered(&config.notes).floor.map(Timestamp);
        let time = Arc::new(Time::new(config.clocks, floor));
        let requester = Requester {
            folder: IdentityFolder::of(&config.data),
            agent: config.agent.clone(),
            time,
            traffic: Arc::new(Traffic::default()),
        };
        let news = shared.clone();
        config.outbox.listen(move || news.news.notify_one());
        let (carry, carried) = mpsc::channel(1);
        let link = Self { config, shared: shared.clone(), requester, renewed: None, carried };
        (Cloud { shared, carry }, link)
    }

    /// Keeps the device connected until `shutdown`. Not cancel safe, but nothing is lost by cancelling: what is not acknowledged is
    /// still in the outbox.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let Some(identity) = self.identity(&mut shutdown).await else { return };
        let identity = Arc::new(identity);
        let (orders, ordered) = watch::channel(Next::default());
        let (tell, told) = watch::channel(Told::default());
        let (_, nothing) = mpsc::channel(1);
        let carried = std::mem::replace(&mut self.carried, nothing);
        let parts = Parts { orders: ordered, carried, told: tell };
        let work = Work::new(&self.config, &self.shared, &self.requester, identity.thing().clone(), (orders, told));
        let mut work = match work {
            Ok(work) => work,
            Err(error) => {
                tracing::error!(error = error.chain(), "the link to the control plane cannot be set up");
                let _ = shutdown.wait_for(|stop| *stop).await;
                return;
            }
        };
        let reconciler = Reconciler::new(&self.config, &identity, &self.requester, &self.shared, parts);
        let stop = shutdown.clone();
        // What was begun goes on without a connection.
        let reconciling = async {
            match reconciler {
                Ok(reconciler) => reconciler.run(stop).await,
                // Records go up all the same.
                Err(error) => tracing::error!(error = error.chain(), "no deployments: they cannot be set up"),
            }
        };
        tokio::join!(self.keep_connected(identity, &mut work, &mut shutdown), reconciling);
        work.end().await;
    }

    /// Waits until the device is enrolled. `None`: the node is ending.
    async fn identity(&mut self, shutdown: &mut watch::Receiver<bool>) -> Option<Identity> {
        let mut longest = FIRST_WAIT;
        let mut again = Instant::now();
        loop {
            let mut state = LinkState::Unenrolled;
            match self.requester.folder.current() {
                Ok(Some(identity)) => {
                    // A seed that was used, or that was put there for a device that is enrolled.
                    if matches!(Invitation::seed(&self.config.data), Ok(Some(seed)) if seed.url == identity.url) {
                        Invitation::remove_seed(&self.config.data);
                    }
                    return Some(identity);
                }
                Ok(None) => {}
                Err(error) => self.note_error(&error, "the device's identity cannot be read"),
            }
            match Invitation::seed(&self.config.data) {
                Ok(None) => {}
                Err(error) => self.note_error(&error, "the seed of the enrolment cannot be read"),
                Ok(Some(invitation)) => {
                    state = LinkState::Enrolling;
                    if Instant::now() >= again {
                        self.shared.status().state = state;
                        let enrolled = tokio::select! {
                            enrolled = self.requester.enrol(&invitation, false) => enrolled,
                            _ = shutdown.wait_for(|stop| *stop) => return None,
                        };
                        match enrolled {
                            Ok(identity) => {
                                Invitation::remove_seed(&self.config.data);
                                tracing::info!(thing = %identity.thing(), url = %identity.url, "enrolled");
                                return Some(identity);
                            }
                            Err(error) => {
                                self.note_error(&error, "cannot enrol");
                                let wait = if error.is_retryable() { jitter(longest) } else { REFUSED_WAIT };
                                longest = (longest * 2).min(LAST_WAIT);
                                again = Instant::now() + wait;
                            }
                        }
                    }
                }
            }
            self.shared.status().state = state;
            let now = Instant::now();
            let wait =
                if state == LinkState::Enrolling { again.saturating_duration_since(now).min(LOOK) } else { LOOK };
            tokio::select! {
                () = sleep(wait) => {}
                _ = shutdown.wait_for(|stop| *stop) => return None,
            }
        }
    }

    /// One connection after the other.
    async fn keep_connected(
        &mut self,
        mut identity: Arc<Identity>,
        work: &mut Work,
        shutdown: &mut watch::Receiver<bool>,
    ) {
        let mut longest = FIRST_WAIT;
        let (mut with_next, mut next_refused) = (true, false);
        while !*shutdown.borrow() {
            if self.requester.time.likely() >= identity.renew_at() {
                self.renew(&identity, shutdown).await;
            }
            // In turn, because it is not known which of the two the control plane has.
            let next = self.requester.folder.next().filter(|_| with_next);
            with_next = !with_next || next.is_none();
            let trying = next.map(Arc::new);
            let candidate = trying.clone().unwrap_or_else(|| identity.clone());
            self.show(&candidate);
            let begun = Instant::now();
            let connected = tokio::select! {
                connected = self.connect(&candidate) => connected,
                _ = shutdown.wait_for(|stop| *stop) => return,
            };
            let end = match connected {
                Ok(session) => {
                    if trying.is_some() {
                        match self.requester.folder.promote() {
                            Ok(()) => tracing::info!(expires = candidate.not_after.0, "the new certificate is in use"),
                            // It is tried again, and promoted then.
                            Err(error) => tracing::error!(
                                error = error.chain(),
                                "the new certificate cannot take the place of the old one"
                            ),
                        }
                        identity = candidate.clone();
                    } else if next_refused {
                        // The control plane knows the old certificate and not the new one: it may be an old copy of itself.
                        tracing::warn!(
                            "the new certificate is refused and the old one is not: a new one will be asked for"
                        );
                        self.requester.folder.drop_next();
                    }
                    (with_next, next_refused) = (true, false);
                    work.run(session, &candidate, shutdown).await
                }
                Err(error) => End::Lost { error, answered: false, established: false },
            };
            let error = match end {
                End::Stopped => return,
                // At once: it is our own doing.
                End::Renewed => continue,
                End::Lost { error, answered, established } => {
                    if answered {
                        longest = FIRST_WAIT;
                    }
                    if established {
                        tracing::warn!(error = error.chain(), lasted = ?begun.elapsed(), "the connection to the control plane is lost");
                    }
                    error
                }
            };
            self.note_error(&error, "cannot connect to the control plane; trying again");
            if matches!(&error, SyncError::Session { source } if source.is_certificate()) {
                next_refused |= trying.is_some();
                self.renew(&identity, shutdown).await;
            }
            tokio::select! {
                () = sleep(jitter(longest)) => {}
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
            longest = (longest * 2).min(LAST_WAIT);
        }
    }

    async fn connect(&self, identity: &Identity) -> Result<CloudSession, SyncError> {
        let mqtt = &identity.enrolled.mqtt;
        let options = CloudOptions {
            host: mqtt.host.clone(),
            port: mqtt.port,
            client_id: identity.thing().to_string(),
            tls: tls::config(identity.root(), Some(identity.credentials()), &self.requester.time)?,
            keep_alive: self.config.settings.keep_alive,
            patience: self.config.settings.ack_timeout,
            max_packet: MAX_PACKET,
            subscriptions: subscriptions(identity.thing(), &ShadowName::new(SHADOW_NAME)?),
        };
        let session = CloudSession::connect(&options, self.requester.traffic.clone()).await;
        session.map_err(|source| SyncError::Session { source })
    }

    /// Asks for a new certificate, unless that was done a short while ago, or one is there already.
    async fn renew(&mut self, identity: &Identity, shutdown: &mut watch::Receiver<bool>) {
        let early = self.renewed.is_some_and(|at| at.elapsed() < RENEW_EVERY);
        if early || self.requester.folder.next().is_some() {
            return;
        }
        self.renewed = Some(Instant::now());
        let renewed = tokio::select! {
            renewed = self.requester.renew(identity) => renewed,
            _ = shutdown.wait_for(|stop| *stop) => return,
        };
        match renewed {
            Ok(next) => tracing::info!(expires = next.not_after.0, "there is a new certificate; it is tried next"),
            Err(error) => self.note_error(&error, "cannot get a new certificate"),
        }
    }

    fn show(&self, identity: &Identity) {
        let mqtt = &identity.enrolled.mqtt;
        let mut status = self.shared.status();
        status.state = LinkState::Connecting;
        status.thing = Some(identity.thing().to_string());
        status.url = Some(identity.url.to_string());
        status.address = Some(format!("{}:{}", mqtt.host, mqtt.port));
        status.certificate_expires = Some(identity.not_after.0);
    }

    /// Logs once for each cause: a control plane may be away for days.
    fn note_error(&self, error: &SyncError, what: &'static str) {
        let text = error.chain();
        let mut status = self.shared.status();
        if status.last_error.as_deref() != Some(text.as_str()) {
            tracing::warn!(error = text, "{what}");
        }
        status.last_error = Some(text);
    }
}

/// A random part of a wait: devices that were cut off together must not come back together.
fn jitter(longest: Duration) -> Duration {
    longest.mul_f64(rand::random_range(0.05..=1.0))
}
