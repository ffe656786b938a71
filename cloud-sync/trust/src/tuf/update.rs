//! One run of the client's workflow (5.1 to 5.6), without I/O.
//!
//! # How it works
//!
//! The caller fetches what [`Update::wanted`] names and hands it to [`Update::take`], until nothing is wanted. Whether that worked
//! or not, it then stores [`Update::kept`] in one transaction: every step that succeeded is in it, and no half of one.
//!
//! Roots come first, one after another, each signed by the one before and by itself. A root that takes a timestamp or snapshot key
//! away also takes what was kept of both (5.3.11): whoever had the key may have signed absurd versions. Then come timestamp, snapshot
//! and targets, each checked against the one before it, and against what was kept for going back. What was kept and is still the file
//! that is wanted is not fetched again.
//!
//! # How it fails
//!
//! A file that is refused ends the run; the next one begins where this one stood. Nothing that was kept is lost by it, but a file
//! whose keys were taken away. A kept file that cannot be read any more is dropped too, for a client that could never update again
//! would be worse; [`Update::dropped`] names it, because with it goes what protected from going back.

use holm_core::Timestamp;

use super::metadata::{Contents, File, Meta, RoleName, Root, Snapshot, Targets, TimestampFile};
use super::{Limits, Repository};
use crate::{Freshness, Moment, TrustError};

/// All that is stored between two runs: files as they came. Empty but for the root until a run has finished.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// `root.json`, the latest one that was believed. The first comes from whom the device was enrolled by.
    pub root: Vec<u8>,
    /// `timestamp.json`.
    pub timestamp: Option<Vec<u8>>,
    /// `snapshot.json`.
    pub snapshot: Option<Vec<u8>>,
    /// `targets.json`.
    pub targets: Option<Vec<u8>>,
}

impl Kept {
    /// With a first root, which is believed because of where it came from.
    pub fn new(root: Vec<u8>) -> Self {
        Self { root, ..Self::default() }
    }

    /// The files, by role.
    pub fn get(&self, role: RoleName) -> Option<&[u8]> {
        match role {
            RoleName::Root => Some(&self.root),
            RoleName::Timestamp => self.timestamp.as_deref(),
            RoleName::Snapshot => self.snapshot.as_deref(),
            RoleName::Targets => self.targets.as_deref(),
        }
    }

    /// The root, which has to be signed by itself.
    pub(crate) fn root(&self) -> Result<Root, TrustError> {
        let read = || {
            let file = File::read(&self.root)?;
            let root: Root = file.contents()?;
            root.check(RoleName::Root, &file)?;
            Ok(root)
        };
        read().map_err(|why| RoleName::Root.error(why))
    }
}

/// A file that the client wants next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name below the metadata's address.
    pub name: String,
    /// Stop reading beyond it, and answer [`Answer::TooLong`].
    pub max_bytes: u64,
}

/// What became of a wanted file. Anything else, such as a broken connection, ends the run: there is nothing to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The whole file.
    Found(Vec<u8>),
    /// The repository says that it has no such file (in HTTP 403 or 404). The normal end of the chain of roots.
    Missing,
    /// It had more than [`Wanted::max_bytes`].
    TooLong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Want(RoleName),
    Done,
    Failed,
}

/// One run.
#[derive(Debug)]
pub struct Update {
    limits: Limits,
    moment: Moment,
    kept: Kept,
    dropped: Vec<RoleName>,
    step: Step,
    rotations: u32,
    root: Root,
    /// The ones that count from here on; before their step is over, what was kept, for the check against going back.
    timestamp: Option<TimestampFile>,
    snapshot: Option<Snapshot>,
    targets: Option<Targets>,
}

impl Update {
    /// Begins with what was kept, at a moment that holds for the whole run. Fails if the kept root cannot be believed, and then no
    /// run ever will: it has to be brought anew.
    pub fn new(kept: Kept, moment: Moment, limits: Limits) -> Result<Self, TrustError> {
        let root = kept.root()?;
        let step = Step::Want(RoleName::Root);
        let (dropped, rotations) = (Vec::new(), 0);
        let (timestamp, snapshot, targets) = (None, None, None);
        Ok(Self { limits, moment, kept, dropped, step, rotations, root, timestamp, snapshot, targets })
    }

    /// The next file to fetch. `None` when the run is over.
    pub fn wanted(&self) -> Option<Wanted> {
        let Step::Want(role) = self.step else { return None };
        let of = |version: Option<u64>| version.filter(|_| self.root.consistent_snapshot);
        let named = |version: Option<u64>| version.map_or_else(|| role.file(), |version| role.versioned(version));
        let (name, max_bytes) = match role {
            RoleName::Root => (role.versioned(self.root.version.saturating_add(1)), self.limits.root),
            RoleName::Timestamp => (role.file(), self.limits.timestamp),
            RoleName::Snapshot | RoleName::Targets => {
                let meta = self.meta(role);
                let limit = if role == RoleName::Snapshot { self.limits.snapshot } else { self.limits.targets };
                let length = meta.and_then(|meta| meta.length).unwrap_or(limit);
                (named(of(meta.map(|meta| meta.version))), length.min(limit))
            }
        };
        Some(Wanted { name, max_bytes })
    }

    /// Takes what became of the wanted file. After an error the run is over. Does nothing when nothing is wanted.
    pub fn take(&mut self, answer: Answer) -> Result<(), TrustError> {
        let (Step::Want(role), Some(wanted)) = (self.step, self.wanted()) else { return Ok(()) };
        self.step = Step::Failed;
        let step = match answer {
            Answer::Found(bytes) if u64::try_from(bytes.len()).is_ok_and(|length| length <= wanted.max_bytes) => {
                self.found(role, bytes)
            }
            Answer::Found(_) | Answer::TooLong => Err(role.error(TrustError::EndlessData { limit: wanted.max_bytes })),
            Answer::Missing if role == RoleName::Root => self.begin_timestamp(),
            Answer::Missing => Err(role.error(TrustError::Missing { name: wanted.name })),
        };
        self.step = step?;
        Ok(())
    }

    /// What to store now, in one transaction, whether the run went well or not.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Kept files that are not believed any more and were dropped for another reason than that their keys were replaced. Worth a
    /// warning: the check against going back does without them.
    pub fn dropped(&self) -> &[RoleName] {
        &self.dropped
    }

    /// What a run that went well is good for.
    pub fn finish(self) -> Result<Repository, TrustError> {
        match (self.step, self.timestamp, self.snapshot, self.targets) {
            (Step::Done, Some(timestamp), Some(snapshot), Some(targets)) => {
                let online = Some((timestamp.expires, snapshot.expires));
                Ok(Repository::new(self.root, targets, online))
            }
            _ => Err(TrustError::Incomplete),
        }
    }

    fn found(&mut self, role: RoleName, bytes: Vec<u8>) -> Result<Step, TrustError> {
        match role {
            RoleName::Root => {
                self.take_root(bytes).map_err(|why| role.error(why))?;
                self.rotations = self.rotations.saturating_add(1);
                if self.rotations < self.limits.rotations { Ok(Step::Want(role)) } else { self.begin_timestamp() }
            }
            RoleName::Timestamp => {
                self.take_timestamp(bytes).map_err(|why| role.error(why))?;
                self.begin_snapshot()
            }
            RoleName::Snapshot => {
                self.take_snapshot(bytes).map_err(|why| role.error(why))?;
                self.begin_targets()
            }
            RoleName::Targets => {
                self.take_targets(bytes).map_err(|why| role.error(why))?;
                Ok(Step::Done)
            }
        }
    }

    /// 5.3.4 to 5.3.8, and 5.3.11 at once: root and what it takes away are kept together, so that no power cut comes between.
    fn take_root(&mut self, bytes: Vec<u8>) -> Result<(), TrustError> {
        let next = self.root.successor(&bytes)?;
        if [RoleName::Timestamp, RoleName::Snapshot].into_iter().any(|role| self.root.is_rotated(role, &next)) {
            (self.kept.timestamp, self.kept.snapshot) = (None, None);
        }
        self.root = next;
        self.kept.root = bytes;
        Ok(())
    }

    /// 5.3.10. That what was kept has expired does not matter: it is there to be compared with.
    fn begin_timestamp(&mut self) -> Result<Step, TrustError> {
        self.fresh(self.root.expires).map_err(|why| RoleName::Root.error(why))?;
        self.timestamp = self.recall();
        Ok(Step::Want(RoleName::Timestamp))
    }

    /// 5.4.2 to 5.4.5.
    fn take_timestamp(&mut self, bytes: Vec<u8>) -> Result<(), TrustError> {
        let new: TimestampFile = self.root.believe(&bytes)?;
        if let Some(old) = &self.timestamp {
            if new.version < old.version {
                return Err(older(RoleName::Timestamp, new.version, old.version));
            }
            if new.version == old.version {
                // Nothing new, so the old one goes on counting. The run goes on too: the last one may have been broken off here.
                return self.fresh(old.expires);
            }
            if new.snapshot().version < old.snapshot().version {
                return Err(older(RoleName::Snapshot, new.snapshot().version, old.snapshot().version));
            }
        }
        self.fresh(new.expires)?;
        self.timestamp = Some(new);
        self.kept.timestamp = Some(bytes);
        Ok(())
    }

    fn begin_snapshot(&mut self) -> Result<Step, TrustError> {
        self.snapshot = self.recall();
        if self.is_current(RoleName::Snapshot, self.snapshot.as_ref()) {
            return self.begin_targets();
        }
        Ok(Step::Want(RoleName::Snapshot))
    }

    /// 5.5.2 to 5.5.7.
    fn take_snapshot(&mut self, bytes: Vec<u8>) -> Result<(), TrustError> {
        let meta = self.meta(RoleName::Snapshot).ok_or(TrustError::Incomplete)?;
        meta.check(&bytes)?;
        let new: Snapshot = self.root.believe(&bytes)?;
        meta.check_version(new.version)?;
        if let Some(old) = self.snapshot.as_ref().filter(|old| old.version > new.version) {
            // Only without a timestamp of before, which has been checked for it already.
            return Err(older(RoleName::Snapshot, new.version, old.version));
        }
        for (file, old) in self.snapshot.iter().flat_map(|old| &old.meta) {
            let found = new.meta.get(file).map_or(0, |meta| meta.version);
            if found < old.version {
                return Err(TrustError::OlderMetadata { of: file.clone(), found, trusted: old.version });
            }
        }
        self.fresh(new.expires)?;
        self.snapshot = Some(new);
        self.kept.snapshot = Some(bytes);
        Ok(())
    }

    fn begin_targets(&mut self) -> Result<Step, TrustError> {
        // That the snapshot speaks of it is asked before anything is fetched.
        let asked = self.snapshot.as_ref().ok_or(TrustError::Incomplete).and_then(Snapshot::targets);
        asked.map_err(|why| RoleName::Snapshot.error(why))?;
        self.targets = self.recall();
        let current = self.is_current(RoleName::Targets, self.targets.as_ref());
        Ok(if current { Step::Done } else { Step::Want(RoleName::Targets) })
    }

    /// 5.6.2 to 5.6.6.
    fn take_targets(&mut self, bytes: Vec<u8>) -> Result<(), TrustError> {
        let meta = self.meta(RoleName::Targets).ok_or(TrustError::Incomplete)?;
        meta.check(&bytes)?;
        let new: Targets = self.root.believe(&bytes)?;
        meta.check_version(new.version)?;
        self.fresh(new.expires)?;
        self.targets = Some(new);
        self.kept.targets = Some(bytes);
        Ok(())
    }

    /// What was kept of a role, if the root's keys still vouch for it; else it is dropped.
    fn recall<T: Contents>(&mut self) -> Option<T> {
        let bytes = self.kept.get(T::ROLE)?;
        let refusal = match self.root.believe(bytes) {
            Ok(contents) => return Some(contents),
            Err(refusal) => refusal,
        };
        match T::ROLE {
            RoleName::Root => return None,
            RoleName::Timestamp => self.kept.timestamp = None,
            RoleName::Snapshot => self.kept.snapshot = None,
            RoleName::Targets => self.kept.targets = None,
        }
        if matches!(refusal, TrustError::Unreadable { .. } | TrustError::Nonsense { .. }) {
            self.dropped.push(T::ROLE);
        }
        None
    }

    /// Whether what was kept of a role is the file that is wanted, so that it need not be fetched.
    fn is_current<T: Contents>(&self, role: RoleName, contents: Option<&T>) -> bool {
        let (Some(contents), Some(bytes), Some(meta)) = (contents, self.kept.get(role), self.meta(role)) else {
            return false;
        };
        meta.check(bytes).is_ok()
            && meta.check_version(contents.version()).is_ok()
            && self.fresh(contents.expires()).is_ok()
    }

    /// What was announced of a role's file.
    fn meta(&self, role: RoleName) -> Option<&Meta> {
        match role {
            RoleName::Snapshot => Some(self.timestamp.as_ref()?.snapshot()),
            RoleName::Targets => self.snapshot.as_ref()?.targets().ok(),
            RoleName::Root | RoleName::Timestamp => None,
        }
    }

    fn fresh(&self, expires: Timestamp) -> Result<(), TrustError> {
        match self.moment.freshness(expires) {
            Freshness::Expired(now) => Err(TrustError::Expired { expires, now }),
            Freshness::Fresh | Freshness::Unknown => Ok(()),
        }
    }
}

fn older(role: RoleName, found: u64, trusted: u64) -> TrustError {
    TrustError::OlderMetadata { of: role.file(), found, trusted }
}
