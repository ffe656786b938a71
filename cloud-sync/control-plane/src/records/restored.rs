//! What a database out of a backup is told before it is used: that the world has gone on since.
//!
//! Devices refuse what is older than what they have seen: metadata of the repository, and desired states. What they have seen since the
//! backup is not known here. So versions and generations leap forward, by more than anybody can have signed in between; and rollouts that
//! were on their way stand still until somebody has looked, because what devices say now is not about what is written here.

use std::path::Path;

use holm_core::Timestamp;
use holm_protocol::limits::MAX_SEQUENCE;
use holm_trust::tuf::Draft;
use holm_trust::tuf::edit::{self, OnlineKeys, Terms};
use rusqlite::{OpenFlags, params};

use super::open::{connect, migrate};
use super::tokens::audit;
use super::{repository, rollouts, signed};
use crate::CloudError;
use crate::error::{sql, trust};
use crate::signing::Signing;

/// Versions of snapshot and timestamp. A control plane signs two a day, and one with each release.
const VERSIONS: u64 = 1_000_000;

/// Generations of each device. One is signed with each deployment to it.
const GENERATIONS: u64 = 1_000_000;

/// What became of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leapt {
    /// The version of the targets file, if anything was published: signed offline, it stays what it was.
    pub targets: Option<u64>,
    /// Rollouts that were on their way, and stand still now.
    pub rollouts: u64,
}

/// Tells a database, which nobody has open. All of it is one transaction.
pub(crate) fn leap(path: &Path, signing: &Signing, now: Timestamp) -> Result<Leapt, CloudError> {
    let action = "bring a restored database forward";
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    migrate(&mut connection, path)?;
    let transaction = connection.transaction().map_err(sql(action))?;
    let floor = "UPDATE device SET floor = min(?2, ?1 + max(floor, \
                 (SELECT coalesce(max(generation), 0) FROM job WHERE job.device = device.id), \
                 coalesce(min(json_extract(reported, '$.generation'), ?2), 0)))";
    transaction.execute(floor, params![signed(GENERATIONS), signed(MAX_SEQUENCE)]).map_err(sql(action))?;
    let mut leapt = Leapt { rollouts: rollouts::pause_all(&transaction, now)?, ..Leapt::default() };
    if let Some(held) = repository::load(&transaction)?
        && let Some(targets) = &held.kept.targets
    {
        let keys = OnlineKeys { snapshot: &[&signing.snapshot], timestamp: &[&signing.timestamp] };
        let failed = "sign the metadata of the restored repository";
        let next = edit::advance(&held.kept, VERSIONS, keys, now, &Terms::default()).map_err(trust(failed))?;
        leapt.targets = Some(Draft::read(targets).and_then(|draft| draft.version()).map_err(trust(failed))?);
        repository::store(&transaction, (next.kept, next.files), now)?;
    }
    audit(&transaction, now, "holm cloud restore", "restore", "from a backup")?;
    transaction.commit().map_err(sql(action))?;
    Ok(leapt)
}
