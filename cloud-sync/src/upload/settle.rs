//! Writing down what the control plane has. Blocks: for a thread of its own.

use std::collections::BTreeMap;

use holm_protocol::{GapReason, Refusal, StreamName};
use holm_store::{CloudWrite, Lane, Outbox};

use super::WallClock;
use crate::SyncError;

/// What the control plane said of batches that are on their way: as many as those.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    pub(super) generation: u64,
    pub(super) may_begin_epoch: bool,
    /// The database is an old copy, and nothing is on its way any more.
    pub(super) new_epoch: bool,
    /// Up to where each stream is settled, and the watermark that says so, which may be beyond that.
    watermarks: BTreeMap<StreamName, (u64, u64)>,
    refusals: Vec<(Lane, StreamName, u64, u64)>,
}

impl Verdicts {
    pub(super) fn watermark(&mut self, stream: &StreamName, upto: u64, there: u64) {
        let known = self.watermarks.entry(stream.clone()).or_default();
        *known = (known.0.max(upto), known.1.max(there));
    }

    pub(super) fn refusal(&mut self, lane: Lane, refusal: &Refusal) {
        let last = refusal.first + refusal.count - 1;
        let refused = (lane, refusal.stream.clone(), refusal.first, last);
        if !self.refusals.contains(&refused) {
            self.refusals.push(refused);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.watermarks.is_empty() && self.refusals.is_empty()
    }

    pub(super) fn has_refusals(&self) -> bool {
        !self.refusals.is_empty()
    }

    pub(super) fn watermarks(&self) -> impl Iterator<Item = (&StreamName, u64)> {
        self.watermarks.iter().map(|(stream, (upto, _))| (stream, *upto))
    }

    /// What could not be settled joins what has come since.
    pub(super) fn put_back(&mut self, earlier: Self) {
        for (stream, (upto, there)) in earlier.watermarks {
            self.watermark(&stream, upto, there);
        }
        self.refusals.extend(earlier.refusals);
    }
}

/// What came of it.
pub(crate) enum Settled {
    /// It is on the disk, but for streams whose watermark is above our own last number: the database is an old copy.
    Done {
        /// Without those.
        verdicts: Verdicts,
        /// Those, where it may begin a new epoch.
        beyond: Vec<StreamName>,
    },
    /// All that was not acknowledged goes up again, in a new epoch.
    NewEpoch,
    /// Nothing has happened.
    Failed { error: SyncError, verdicts: Verdicts },
}

/// Deletes what watermarks have passed, and puts gaps in the place of what was refused: in one transaction.
pub(crate) fn settle(outbox: &Outbox, mut verdicts: Verdicts, clock: WallClock) -> Settled {
    if verdicts.new_epoch {
        return match outbox.commit(vec![CloudWrite::NewEpoch { at: clock().0 }]) {
            Ok(()) => Settled::NewEpoch,
            Err(source) => Settled::Failed { error: SyncError::Commit { source }, verdicts },
        };
    }
    match attempt(outbox, &verdicts, clock) {
        Ok(beyond) => {
            verdicts.watermarks.retain(|stream, _| !beyond.contains(stream));
            Settled::Done { beyond: if verdicts.may_begin_epoch { beyond } else { Vec::new() }, verdicts }
        }
        Err(error) => Settled::Failed { error, verdicts },
    }
}

/// Answers with the streams whose watermark is above our own last number: nothing was deleted of them.
fn attempt(outbox: &Outbox, verdicts: &Verdicts, clock: WallClock) -> Result<Vec<StreamName>, SyncError> {
    let at = clock().0;
    let mut beyond = Vec::new();
    let mut writes = Vec::new();
    for (stream, (upto, there)) in &verdicts.watermarks {
        let last = outbox.last_sequence(stream.as_str()).map_err(|source| SyncError::Store { source })?;
        let [upto, there] = [*upto, *there].map(|number| i64::try_from(number).unwrap_or(i64::MAX));
        if there <= last {
            writes.push(CloudWrite::Forget { stream: stream.to_string(), upto });
        } else {
            beyond.push(stream.clone());
        }
    }
    for (lane, stream, first, last) in &verdicts.refusals {
        writes.push(CloudWrite::Replace {
            stream: stream.to_string(),
            lane: *lane,
            first: i64::try_from(*first).unwrap_or(i64::MAX),
            last: i64::try_from(*last).unwrap_or(i64::MAX),
            reason: GapReason::Refused.as_str().to_owned(),
            at,
        });
    }
    outbox.commit(writes).map_err(|source| SyncError::Commit { source })?;
    Ok(beyond)
}
