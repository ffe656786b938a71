//! Sets of functions from the control plane, as the node's deployer runs them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use holm_bundle::Digest;
use holm_cloud_sync::{AgentStanding, Examined, Objection, Question, Refusal, Verdict};
use holm_protocol::{AgentBuild, DesiredFunction, ReasonCode};

use crate::deploy::{DeployError, Deployer, SetFunction, SetOutcome, chain};
use crate::upgrade::Upgrade;

/// See the module.
pub(super) struct Installer {
    pub(super) deployer: Arc<Deployer>,
    pub(super) upgrade: Arc<Upgrade>,
    pub(super) data: PathBuf,
    /// What drives the deployer's waiting: its methods are called on threads that may block.
    pub(super) runtime: tokio::runtime::Handle,
}

fn set(functions: &[DesiredFunction]) -> Vec<SetFunction> {
    let function = |function: &DesiredFunction| SetFunction {
        name: function.name.clone(),
        version: function.version.clone(),
        bundle: function.bundle.sha256,
        config: function.config.clone(),
        secrets: function.secrets.clone(),
    };
    functions.iter().map(function).collect()
}

fn refusal(error: DeployError) -> Refusal {
    let reason = match &error {
        DeployError::Manifest(_) | DeployError::Bundle(_) | DeployError::Mismatch(_) | DeployError::Missing { .. } => {
            ReasonCode::Incompatible
        }
        DeployError::TooMuch(_) => ReasonCode::TooLarge,
        DeployError::Config(_) => ReasonCode::InvalidConfig,
        DeployError::Compile(_) => ReasonCode::CompileFailed,
        DeployError::Load(_) => ReasonCode::LoadFailed,
        DeployError::Secret(_) => ReasonCode::SecretUnreadable,
        DeployError::File { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => ReasonCode::DiskFull,
        DeployError::File { action: "run the compiler", .. } => ReasonCode::CompileFailed,
        DeployError::Unsigned | DeployError::File { .. } | DeployError::Registry(_) | DeployError::NotFound(_) => {
            ReasonCode::Internal
        }
    };
    Refusal::new(reason, chain(&error))
}

impl holm_cloud_sync::Installer for Installer {
    fn generation(&self) -> u64 {
        self.deployer.generation()
    }

    fn bundle_file(&self, digest: &Digest) -> PathBuf {
        self.deployer.bundle_file(digest)
    }

    fn free_space(&self) -> u64 {
        rustix::fs::statvfs(&self.data).map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize))
    }

    fn has_compiler(&self) -> bool {
        self.deployer.has_compiler()
    }

    fn examine(&self, functions: &[DesiredFunction], agent: &AgentBuild) -> Result<Vec<Examined>, Refusal> {
        let examined = self.deployer.examine(&set(functions), agent).map_err(refusal)?;
        Ok(examined.into_iter().map(|(component, native)| Examined { component, native }).collect())
    }

    fn adopt_native(&self, component: &Digest, agent: &AgentBuild, file: &Path) -> Result<(), Refusal> {
        self.deployer.adopt_native(component, agent, file).map_err(refusal)
    }

    fn stage(&self, functions: &[DesiredFunction]) -> Result<(), Refusal> {
        self.runtime.block_on(self.deployer.stage(&set(functions))).map_err(refusal)
    }

    fn objection(&self, question: &Question, functions: &[DesiredFunction]) -> Option<Objection> {
        self.runtime.block_on(self.deployer.objection(question, &set(functions)))
    }

    fn trial(
        &self,
        generation: u64,
        functions: &[DesiredFunction],
        window: Duration,
        stop: &AtomicBool,
    ) -> Result<Verdict, Refusal> {
        let set = set(functions);
        // A new agent has to show that it runs all of them.
        let all = self.upgrade.trial().is_some();
        let trial = self.deployer.try_set(generation, &set, window, all, stop);
        Ok(match self.runtime.block_on(trial).map_err(refusal)? {
            SetOutcome::Confirmed => Verdict::Confirmed,
            SetOutcome::RolledBack(words) => Verdict::RolledBack(words),
            SetOutcome::Stopped => Verdict::Stopped,
        })
    }

    fn agent_file(&self, digest: &Digest) -> PathBuf {
        self.upgrade.file(digest)
    }

    fn agent(&self, wanted: Option<&Digest>, generation: u64) -> AgentStanding {
        self.upgrade.standing(wanted.copied(), generation)
    }

    fn agent_trial(&self) -> Option<u64> {
        self.upgrade.trial()
    }

    fn hand_over(&self, wanted: Option<&Digest>, generation: u64) -> Result<(), Refusal> {
        self.upgrade.hand_over(wanted.copied(), generation).map_err(internal)
    }

    fn confirm_agent(&self) -> Result<(), Refusal> {
        self.upgrade.confirm().map_err(internal)
    }

    fn hand_back(&self) -> Result<(), Refusal> {
        self.upgrade.hand_back().map_err(internal)
    }
}

fn internal(error: anyhow::Error) -> Refusal {
    Refusal::new(ReasonCode::Internal, chain(error.as_ref()))
}
