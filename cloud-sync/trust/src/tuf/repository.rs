//! What verified metadata is good for.

use std::collections::BTreeMap;

use holm_core::Timestamp;

use super::metadata::{Contents as _, RoleName, Root, Snapshot, Targets, TimestampFile};
use super::{Kept, Target};
use crate::{Freshness, Moment, Role, TrustError};

/// A verified targets file, and the root that vouches for it.
#[derive(Debug)]
pub struct Repository {
    root: Root,
    version: u64,
    targets: BTreeMap<String, Target>,
    /// When each role's file expires. Two only, when the files of the online roles are not those that belong to it.
    expires: Vec<(RoleName, Timestamp)>,
}

impl Repository {
    /// From what was kept, without the network: at boot, or to check desired states while offline. Signatures are checked anew.
    /// Fails if there was no finished run yet, or a root has replaced the targets keys since.
    pub fn open(kept: &Kept) -> Result<Self, TrustError> {
        let root = kept.root()?;
        let bytes = kept.targets.as_deref().ok_or(TrustError::Incomplete)?;
        let targets: Targets = root.believe(bytes).map_err(|why| RoleName::Targets.error(why))?;
        let online = online(&root, kept, &targets);
        Ok(Self::new(root, targets, online))
    }

    pub(super) fn new(root: Root, targets: Targets, online: Option<(Timestamp, Timestamp)>) -> Self {
        let mut expires = vec![(RoleName::Root, root.expires), (RoleName::Targets, targets.expires)];
        if let Some((timestamp, snapshot)) = online {
            expires.extend([(RoleName::Timestamp, timestamp), (RoleName::Snapshot, snapshot)]);
        }
        Self { root, version: targets.version, targets: targets.targets, expires }
    }

    /// Whether new code is taken from it at this moment. Expired or incomplete metadata is an error here, and nowhere else: what runs
    /// goes on running, and [`Self::peek`] and the roles go on answering.
    pub fn fresh(&self, moment: Moment) -> Result<Freshness, TrustError> {
        if self.expires.len() < RoleName::ALL.len() {
            return Err(TrustError::Incomplete);
        }
        let mut freshness = Freshness::Fresh;
        for (role, expires) in &self.expires {
            match moment.freshness(*expires) {
                Freshness::Expired(now) => return Err(role.error(TrustError::Expired { expires: *expires, now })),
                Freshness::Unknown => freshness = Freshness::Unknown,
                Freshness::Fresh => {}
            }
        }
        Ok(freshness)
    }

    /// A target to fetch and to run, if new code is taken.
    pub fn target(&self, name: &str, moment: Moment) -> Result<&Target, TrustError> {
        self.fresh(moment)?;
        self.peek(name).ok_or_else(|| TrustError::UnknownTarget { name: name.to_owned() })
    }

    /// A target, fresh or not: to know again what is here already, and to show.
    pub fn peek(&self, name: &str) -> Option<&Target> {
        self.targets.get(name)
    }

    /// All targets by name, fresh or not.
    pub fn targets(&self) -> impl Iterator<Item = (&str, &Target)> {
        self.targets.iter().map(|(name, target)| (name.as_str(), target))
    }

    /// Where a target's file is, below the targets' address. Not escaped for a URL.
    pub fn path(&self, name: &str) -> Result<String, TrustError> {
        let unknown = || TrustError::UnknownTarget { name: name.to_owned() };
        let target = self.peek(name).ok_or_else(unknown)?;
        if !self.root.consistent_snapshot {
            return Ok(name.to_owned());
        }
        let what = "its digest is of a kind that is not known here";
        target.consistent(name).ok_or_else(|| TrustError::WrongDigest { name: name.to_owned(), what })
    }

    /// The targets file's version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The root's version.
    pub fn root_version(&self) -> u64 {
        self.root.version
    }

    /// When a role's file expires; `None` for a file that is not there.
    pub fn expires(&self, role: RoleName) -> Option<Timestamp> {
        self.expires.iter().find(|(of, _)| *of == role).map(|(_, expires)| *expires)
    }

    /// The keys of the targets role, which alone permit to go back ([`crate::Judge::targets`]). Fails if fewer than its threshold are
    /// Ed25519, which permits are signed with.
    pub fn targets_role(&self) -> Result<Role, TrustError> {
        self.root.role(RoleName::Targets)
    }
}

/// When timestamp and snapshot expire, if both are there and lead to these targets.
fn online(root: &Root, kept: &Kept, targets: &Targets) -> Option<(Timestamp, Timestamp)> {
    let bytes = kept.snapshot.as_deref()?;
    let timestamp: TimestampFile = root.believe(kept.timestamp.as_deref()?).ok()?;
    timestamp.snapshot().check(bytes).ok()?;
    let snapshot: Snapshot = root.believe(bytes).ok()?;
    timestamp.snapshot().check_version(snapshot.version()).ok()?;
    let meta = snapshot.targets().ok()?;
    meta.check(kept.targets.as_deref()?).ok()?;
    meta.check_version(targets.version).ok()?;
    Some((timestamp.expires, snapshot.expires))
}
