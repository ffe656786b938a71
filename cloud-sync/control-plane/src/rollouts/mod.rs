//! Rollouts: what keeps them going.
//!
//! The one task here looks at what is open, and takes steps as long as there is one to take: [`decide`](decide::decide) is the whole
//! decision, and everything that it decides by is in the records. It holds nothing itself, so it may end between any two steps
//! and begin again. It is woken by what devices say of their jobs and by operators, and looks at the clock once a second while
//! something is open.

mod decide;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use holm_mqtt::Clock;
use tokio::sync::{Notify, watch};

pub(crate) use decide::{Counts, Decision, Standing, State, View, decide};
pub(crate) use plan::{Plan, assign, usual_fault_min, usual_fault_percent, usual_stages};

use crate::error::chain;
use crate::plane::stopping;
use crate::records::{Records, Stepped};
use crate::signing::Signing;
use crate::uplink::Uplink;

/// Soaks, timeouts and rates are looked at so often.
const LOOK: Duration = Duration::from_secs(1);

/// Between two rounds at least: when a thousand devices report at once, a round takes all of them in.
const SPACING: Duration = Duration::from_millis(50);

/// Steps of one rollout before it is the next one's turn.
const STEPS: usize = 64;

/// How others wake the task. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Rollouts {
    wake: Arc<Notify>,
}

impl Rollouts {
    /// Something may be different. For any thread; does not wait.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Runs until `shutdown`.
    pub(crate) async fn run(
        self,
        records: Records,
        signing: Arc<Signing>,
        uplink: Uplink,
        clock: Clock,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let mut failing = false;
        loop {
            let open = match self.round(&records, &signing, &uplink, &clock).await {
                Ok(open) => {
                    failing = false;
                    open
                }
                Err(error) => {
                    // Once: the same is tried every second.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(error = chain(&error), "the rollouts do not get on; trying again");
                    }
                    true
                }
            };
            let look = async { if open { tokio::time::sleep(LOOK).await } else { std::future::pending().await } };
            tokio::select! {
                () = stopping(&mut shutdown) => return,
                () = self.wake.notified() => {}
                () = look => {}
            }
            tokio::select! {
                () = stopping(&mut shutdown) => return,
                () = tokio::time::sleep(SPACING) => {}
            }
        }
    }

    /// Takes all steps that there are to take now. Whether anything is open after it.
    async fn round(
        &self,
        records: &Records,
        signing: &Arc<Signing>,
        uplink: &Uplink,
        clock: &Clock,
    ) -> Result<bool, crate::CloudError> {
        let open = records.open_rollouts().await?;
        let mut failed = None;
        for id in &open {
            for _ in 0..STEPS {
                let live = uplink.live();
                let Stepped { bells, again } = match records.step_rollout(*id, signing.clone(), live, clock()).await {
                    Ok(stepped) => stepped,
                    // One that does not get on keeps nobody else from it.
                    Err(error) => {
                        failed.get_or_insert(error);
                        break;
                    }
                };
                // After the commit. A bell that is not heard costs time only: devices ask when they connect.
                for (thing, next) in &bells {
                    uplink.notify_next(thing, next);
                }
                if !again {
                    break;
                }
            }
        }
        failed.map_or(Ok(!open.is_empty()), Err)
    }
}
