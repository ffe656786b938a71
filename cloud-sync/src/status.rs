//! How the link stands, for whoever asks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holm_protocol::{ReasonCode, ThingName};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::deploy::carried::{Carried, order};
use crate::deploy::{Refusal, blocking};
use crate::upload::UploadStats;

/// What the link is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// The device belongs to no control plane.
    #[default]
    Unenrolled,
    /// It has a seed and asks for its certificate.
    Enrolling,
    /// It tries to connect, or waits before it tries again.
    Connecting,
    /// It is connected.
    Connected,
}

/// How things stand.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct CloudStatus {
    /// What it is doing.
    pub state: LinkState,
    /// Its name there.
    pub thing: Option<String>,
    /// Where it enrolled.
    pub url: Option<String>,
    /// Where it connects.
    pub address: Option<String>,
    /// Connections since start.
    pub connections: u64,
    /// Why the last one ended, or could not be made.
    pub last_error: Option<String>,
    /// When the certificate expires, in milliseconds since 1970.
    pub certificate_expires: Option<i64>,
    /// The key that secrets for this device are sealed to: what `holm secret set` shows of it should be the same.
    pub sealing_key: Option<String>,
    /// Batches on their way.
    pub in_flight: usize,
    /// Whether the day's allowance is spent, so that only alarms go up.
    pub paused: bool,
    /// Bytes of today, by the wire.
    pub bytes_today: u64,
    /// The most of them.
    pub daily_bytes: Option<u64>,
    /// Bytes of today by feature.
    pub features: BTreeMap<String, u64>,
    /// Bytes of today by function.
    pub functions: BTreeMap<String, u64>,
    /// The job that is to be done next, as far as is known.
    pub next_job: Option<String>,
    /// The generation of the desired state that was accepted last; 0 before the first.
    pub generation: u64,
    /// How far the device is with it.
    pub phase: Option<String>,
    /// Why it is there, where there is a reason.
    pub reason: Option<String>,
    /// More about that, for people.
    pub message: Option<String>,
    /// When functions that have an update wait are asked again, in milliseconds since 1970.
    pub deferred_until: Option<i64>,
    /// What became of records since start.
    pub upload: UploadStats,
}

#[derive(Default)]
pub(crate) struct Shared {
    status: Mutex<CloudStatus>,
    /// Something is worth a look: new rows, or what runs has changed.
    pub(crate) news: Notify,
    /// The control plane has answered this process.
    pub(crate) answered: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn status(&self) -> MutexGuard<'_, CloudStatus> {
        // No code panics while it holds this lock.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle on the link. Cheap to clone; no method blocks.
#[derive(Clone)]
pub struct Cloud {
    pub(crate) shared: Arc<Shared>,
    pub(crate) carry: mpsc::Sender<Carried>,
}

impl Cloud {
    /// How things stand.
    pub fn status(&self) -> CloudStatus {
        self.shared.status().clone()
    }

    /// Takes the deployment that somebody has carried here in a folder: the generation of the desired state, once it is believed. What
    /// comes of it is in [`CloudStatus`]. Waits while a trial is running.
    pub async fn carry(&self, folder: PathBuf) -> Result<u64, Refusal> {
        let thing = self.shared.status().thing.clone().and_then(|thing| ThingName::new(&thing).ok());
        let thing = thing.ok_or_else(|| {
            Refusal::new(ReasonCode::WrongDevice, "this device is not enrolled: that needs a network once")
        })?;
        let order = blocking(move || order(&folder, &thing)).await??;
        let (answer, answered) = oneshot::channel();
        let gone = || Refusal::new(ReasonCode::Internal, "deployments cannot be set up here, or the node is ending");
        self.carry.send(Carried { order, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Whether the control plane has answered this process.
    pub fn has_answered(&self) -> bool {
        *self.shared.answered.borrow()
    }

    /// What runs may have changed.
    pub fn look(&self) {
        self.shared.news.notify_one();
    }
}
