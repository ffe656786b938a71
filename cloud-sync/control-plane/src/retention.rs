//! What drops records that have been kept for long enough. It holds nothing itself: rules and marks are in the records.

use std::sync::Arc;
use std::time::Duration;

use holm_mqtt::Clock;
use tokio::sync::{Notify, watch};

use crate::error::chain;
use crate::plane::stopping;
use crate::records::Records;

/// Between two steps of a sweep, in which others write.
const SPACING: Duration = Duration::from_millis(50);

/// After a step that failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// How others tell that there is another rule. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Retention {
    changed: Arc<Notify>,
}

impl Retention {
    /// For any thread; does not wait.
    pub(crate) fn changed(&self) {
        self.changed.notify_one();
    }

    /// Runs until `shutdown`.
    pub(crate) async fn run(self, records: Records, clock: Clock, mut shutdown: watch::Receiver<bool>) {
        loop {
            let again = match records.sweep(clock()).await {
                Ok(swept) => {
                    if swept.dropped > 0 {
                        tracing::debug!(records = swept.dropped, "what was kept for long enough is dropped");
                    }
                    swept.again.map(|pause| pause.max(SPACING))
                }
                Err(error) => {
                    tracing::error!(error = chain(&error), "cannot drop what was kept for long enough");
                    Some(PATIENCE)
                }
            };
            let pause = async {
                match again {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stopping(&mut shutdown) => return,
                () = self.changed.notified() => {}
                () = pause => {}
            }
        }
    }
}
