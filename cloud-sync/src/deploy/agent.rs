//! The agent itself, where a desired state wants another one: it hands over, the next one proves itself, and one that does not hands back.

use holm_protocol::{DesiredState, Phase, ReasonCode};
use tokio::sync::watch;

use super::repository::blocking;
use super::task::{Ended, Reconciler};
use super::{AgentStanding, Refusal};

/// A new agent that no control plane has answered for so many times of what counts as gone goes back.
pub(super) const PATIENCE: u32 = 4;

impl Reconciler {
    pub(super) fn standing(&self, state: &DesiredState) -> AgentStanding {
        let wanted = state.agent.as_ref().map(|agent| &agent.artifact.sha256);
        self.installer.agent(wanted, state.generation)
    }

    /// Whether this agent is on trial for what is over.
    pub(super) fn outstays(&self) -> bool {
        let work = self.record.work.as_ref().filter(|work| work.phase == Phase::Trial);
        self.installer.agent_trial().is_some_and(|trial| work.is_none_or(|work| work.generation != trial))
    }

    /// Has the agent of the work take over, which goes on from here.
    pub(super) async fn hand_over(
        &mut self,
        state: &DesiredState,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Ended<Result<(), Refusal>> {
        if let Err(refusal) = self.reach(Phase::Trial, None).await {
            return Ended::Done(Err(refusal));
        }
        let (installer, generation) = (self.installer.clone(), state.generation);
        let wanted = state.agent.as_ref().map(|agent| agent.artifact.sha256);
        match blocking(move || installer.hand_over(wanted.as_ref(), generation)).await.and_then(|done| done) {
            Ok(()) => Self::ending(shutdown).await,
            Err(refusal) => Ended::Done(self.end(Phase::RolledBack, refusal).await),
        }
    }

    /// Has the agent before this one take over, which ends the work, or begins the next.
    pub(super) async fn hand_back(&mut self, shutdown: &mut watch::Receiver<bool>) -> Ended<Result<(), Refusal>> {
        tracing::warn!("this agent was on trial for what is over: the one before takes over");
        let installer = self.installer.clone();
        match blocking(move || installer.hand_back()).await.and_then(|done| done) {
            Ok(()) => Self::ending(shutdown).await,
            Err(refusal) => Ended::Done(Err(refusal)),
        }
    }

    async fn ending(shutdown: &mut watch::Receiver<bool>) -> Ended<Result<(), Refusal>> {
        let _ = shutdown.wait_for(|stop| *stop).await;
        Ended::Stopped
    }

    /// A new agent has to be heard by the control plane, or nobody could ever tell it to go.
    pub(super) async fn prove(&mut self, shutdown: &mut watch::Receiver<bool>) -> Ended<Result<(), Refusal>> {
        let mut answered = self.shared.answered.subscribe();
        let answered = async move { answered.wait_for(|answered| *answered).await.is_ok() };
        match self.undisturbed(tokio::time::timeout_at(self.begun + self.patience, answered), shutdown).await {
            Ended::Done(Ok(true)) => Ended::Done(Ok(())),
            Ended::Done(_) => {
                let what = format!("no control plane has answered it within {} s", self.patience.as_secs());
                match self.end(Phase::RolledBack, Refusal::new(ReasonCode::AgentFailed, what)).await {
                    // The next look hands back.
                    Ok(()) => Ended::Disturbed,
                    Err(refusal) => Ended::Done(Err(refusal)),
                }
            }
            other => other.without_value(),
        }
    }
}
