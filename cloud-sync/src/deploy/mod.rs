//! What shall run: from a job to a set of functions that runs, or to a word about why not.
//!
//! # What it guarantees
//!
//! - Nothing runs that the repository's targets key does not vouch for, and nothing that the deployment keys did not ask for.
//! - Exactly the old or the new set runs, at each moment and after each cut.
//! - What a job ended with is told until the control plane has taken it, over restarts too.
//!
//! # How it works
//!
//! One task, [`Reconciler`], looks at what is wanted ([`Next`], from the link) and at what was written down ([`record`]), takes one step,
//! writes down that it was taken unless a start would find that by itself, and looks again. [`record::step`] is the whole decision, and has no I/O. Each step may be taken twice.
//! The link sends what [`Told`] says, whenever the control plane asks for it by having the job; see [`updates`].
//!
//! What is wanted may also be carried here in a folder ([`carried`]): another way in, and the same way from there on.
//!
//! Right before the trial functions are asked whether it may begin ([`defer`]). They can have it wait, within bounds that are the device's.
//!
//! A desired state that is not believed changes nothing, not even the work on the one before it: only one that is accepted takes its
//! place. Before the trial that work ends then; a trial is stopped and goes back first.
//!
//! # How it fails
//!
//! What may pass is tried again with growing waits until the policy's deadline. What goes down during a trial gets one more, and after
//! that it is rolled back. Going back needs no network.

mod agent;
pub(crate) mod carried;
mod defer;
mod fetch;
mod record;
mod repository;
mod task;
pub(crate) mod updates;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use holm_bundle::Digest;
use holm_core::{FunctionName, Timestamp};
use holm_protocol::{AgentBuild, DesiredFunction, JobId, Phase, ReasonCode};
use holm_trust::TrustError;

pub(crate) use repository::blocking;
pub(crate) use task::{Parts, Reconciler, key_of};

use crate::SyncError;
use crate::error::chain;

/// Why something is not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For the program, and for counting.
    pub reason: ReasonCode,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// From both.
    pub fn new(reason: ReasonCode, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl From<TrustError> for Refusal {
    fn from(error: TrustError) -> Self {
        Self::new(error.reason(), chain(&error))
    }
}

impl From<SyncError> for Refusal {
    fn from(error: SyncError) -> Self {
        let reason = match &error {
            SyncError::Http { .. } => ReasonCode::DownloadFailed,
            SyncError::File { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => ReasonCode::DiskFull,
            _ => ReasonCode::Internal,
        };
        Self::new(reason, error.chain())
    }
}

/// What a bundle on the device turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Examined {
    /// Of its component.
    pub component: Digest,
    /// There is native code for it that may be run.
    pub native: bool,
}

/// How a trial ended. What was refused before it began is a [`Refusal`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The new set runs, and stays.
    Confirmed,
    /// The old set runs again, and why.
    RolledBack(String),
    /// The old set runs again, because that was asked for.
    Stopped,
}

/// What functions are asked before an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Of the desired state.
    pub generation: u64,
    /// 1 for the first time that this update is asked about.
    pub attempt: u32,
    /// For how long they may still have it wait, all together.
    pub left: Duration,
    /// Functions of the set whose release is newer than the one that was confirmed here last.
    pub newer: BTreeSet<FunctionName>,
}

/// A function would rather have an update wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// Which.
    pub function: FunctionName,
    /// In its words.
    pub reason: String,
    /// For how long.
    pub wait: Duration,
}

/// How an agent stands that a desired state wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentStanding {
    /// It runs.
    Runs,
    /// It runs, and has to show that it can.
    OnTrial,
    /// Another one runs.
    Other,
    /// Another one runs: it was started for this desired state, and why it is not any more.
    Failed(String),
}

/// Who runs functions. The agent implements it, and so do test doubles. Every method but the first two may block.
pub trait Installer: Send + Sync + 'static {
    /// The generation of the set that was confirmed last; 0 if none was. Written down together with that set.
    fn generation(&self) -> u64;

    /// Where the bundle of this digest is, or is to be.
    fn bundle_file(&self, digest: &Digest) -> PathBuf;

    /// Bytes that are free there.
    fn free_space(&self) -> u64;

    /// Whether components can be compiled here.
    fn has_compiler(&self) -> bool;

    /// Opens the bundles of a set, all of which are there, and refuses what does not fit this node. In the same order. `agent` is
    /// who shall run them.
    fn examine(&self, set: &[DesiredFunction], agent: &AgentBuild) -> Result<Vec<Examined>, Refusal>;

    /// Takes over a file with native code of a component, for `agent`, that the repository vouches for. Moves the file.
    fn adopt_native(&self, component: &Digest, agent: &AgentBuild, file: &Path) -> Result<(), Refusal>;

    /// Compiles what has no native code, and makes an instance of all that is new, beside what runs.
    fn stage(&self, set: &[DesiredFunction]) -> Result<(), Refusal>;

    /// Asks the functions that want to be asked whether this set may take the place of what runs, and answers with the one that wants to
    /// wait longest. Nobody is asked where something goes back, is removed or only configured anew: what may mend something must not be
    /// held up. Who does not answer has no objection.
    fn objection(&self, question: &Question, set: &[DesiredFunction]) -> Option<Objection>;

    /// Runs exactly this set, watches it for `window`, and confirms it or goes back, before it returns. When `stop` becomes true it
    /// goes back. A node that goes down meanwhile starts with the old set.
    fn trial(
        &self,
        generation: u64,
        set: &[DesiredFunction],
        window: Duration,
        stop: &AtomicBool,
    ) -> Result<Verdict, Refusal>;

    /// Where the program of an agent is, or is to be.
    fn agent_file(&self, digest: &Digest) -> PathBuf;

    /// How the agent stands that the desired state of this generation wants. One that names none wants the installed.
    fn agent(&self, wanted: Option<&Digest>, generation: u64) -> AgentStanding;

    /// The generation of the desired state for which this agent is on trial.
    fn agent_trial(&self) -> Option<u64>;

    /// Ends this agent, in order, and starts another on trial. One that cannot be started, or goes down again and again, is
    /// followed by this one.
    fn hand_over(&self, wanted: Option<&Digest>, generation: u64) -> Result<(), Refusal>;

    /// Ends the trial of this agent, which stays.
    fn confirm_agent(&self) -> Result<(), Refusal>;

    /// Ends the trial of this agent, and the agent itself, in order: the one before runs again.
    fn hand_back(&self) -> Result<(), Refusal>;
}

/// A job to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) key: OrderKey,
    /// The text of its document.
    pub(crate) document: String,
    /// Where its files are, if somebody has carried them here.
    pub(crate) folder: Option<PathBuf>,
}

/// Which job, and which execution of it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct OrderKey {
    pub(crate) job: JobId,
    pub(crate) execution: Option<u64>,
}

/// What the control plane wants next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Next {
    /// It has not said.
    #[default]
    Unknown,
    /// Nothing, and it has been asked again.
    Nothing,
    /// This.
    Job(Order),
}

/// What there is to tell about one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) key: OrderKey,
    /// 0 where what it says is not believed.
    pub(crate) generation: u64,
    pub(crate) phase: Phase,
    pub(crate) reason: Option<ReasonCode>,
    pub(crate) message: Option<String>,
    /// When functions are asked again, where they had it wait.
    pub(crate) until: Option<Timestamp>,
}

/// All that there is to tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Told {
    /// The desired state that was accepted last.
    pub(crate) work: Option<About>,
    /// The last one that was not.
    pub(crate) refused: Option<About>,
}

impl Told {
    /// About this job.
    pub(crate) fn about(&self, key: &OrderKey) -> Option<&About> {
        [&self.work, &self.refused].into_iter().flatten().find(|about| about.key == *key)
    }
}
