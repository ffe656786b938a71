//! What the online keys sign: snapshot and timestamp.

use holm_bundle::Digest;
use holm_core::Timestamp;
use serde_json::{Value, json};

use super::draft::nonsense;
use super::{Draft, Terms};
use crate::tuf::metadata::{Contents, File, Root, Snapshot, Targets, TimestampFile};
use crate::tuf::{Kept, RoleName};
use crate::{Moment, SigningKey, TrustError};

/// The online keys. As many of each as the root demands.
#[derive(Debug, Clone, Copy)]
pub struct OnlineKeys<'a> {
    /// For the snapshot.
    pub snapshot: &'a [&'a SigningKey],
    /// For the timestamp. May be the same ones.
    pub timestamp: &'a [&'a SigningKey],
}

/// A new state of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// All of it, as a client would keep it: what the next [`publish`] goes on from. Store it before any file is shown, or a version
    /// is used twice.
    pub kept: Kept,
    /// The files that are new, by name below the metadata's address. To be written in this order, the timestamp last: until it is
    /// there, clients see the old state, whole.
    pub files: Vec<(String, Vec<u8>)>,
}

/// Takes in new roots and a new targets file, if any, and signs what leads there. Also to be called with nothing new, before the
/// timestamp expires.
///
/// Everything is checked as a client would, so a refusal leaves the repository as it is. Expired offline files are no reason to
/// refuse: clients know what to do about them.
pub fn publish(
    current: &Kept,
    roots: Vec<Vec<u8>>,
    targets: Option<Vec<u8>>,
    keys: OnlineKeys<'_>,
    now: Timestamp,
    terms: &Terms,
) -> Result<Published, TrustError> {
    let mut kept = current.clone();
    let mut files = Vec::new();
    let mut root = current.root()?;
    if current.timestamp.is_none() {
        files.push((RoleName::Root.versioned(root.version), current.root.clone()));
    }
    for new in roots {
        root = root.successor(&new).map_err(|why| RoleName::Root.error(why))?;
        files.push((RoleName::Root.versioned(root.version), new.clone()));
        kept.root = new;
    }
    if let Some(new) = targets {
        let believed: Targets = root.believe(&new).map_err(|why| RoleName::Targets.error(why))?;
        if let Some(before) = version::<Targets>(kept.targets.as_deref())?.filter(|before| *before >= believed.version)
        {
            let of = RoleName::Targets.file();
            return Err(TrustError::OlderMetadata { of, found: believed.version, trusted: before });
        }
        files.push((RoleName::Targets.versioned(believed.version), new.clone()));
        kept.targets = Some(new);
    }
    let bytes = kept.targets.as_deref().ok_or_else(|| nonsense("there is no targets file yet"))?;
    let targets: Targets = root.believe(bytes).map_err(|why| RoleName::Targets.error(why))?;
    let described = describe(targets.version, bytes);
    let snapshot = snapshot(&root, &kept, &described, keys, now, terms)?;
    if let Some((version, bytes)) = snapshot {
        files.push((RoleName::Snapshot.versioned(version), bytes.clone()));
        kept.snapshot = Some(bytes);
    }
    let bytes = kept.snapshot.as_deref().ok_or(TrustError::Incomplete)?;
    let described = describe(version::<Snapshot>(Some(bytes))?.unwrap_or_default(), bytes);
    let mut draft = Draft::follow(RoleName::Timestamp, kept.timestamp.as_deref(), now, terms.timestamp)?;
    draft.set("meta", json!({ RoleName::Snapshot.file(): described }));
    let (_, bytes) = signed::<TimestampFile>(&root, draft, keys.timestamp)?;
    files.push((RoleName::Timestamp.file(), bytes.clone()));
    kept.timestamp = Some(bytes);
    Ok(Published { kept, files })
}

/// Signs snapshot and timestamp anew, with versions that are `by` higher, for a repository out of a backup: clients who have seen what came
/// after that backup took what follows for older, and refused it. Roots and targets stay; of those that are missing, only who has signed
/// them can put others in their place.
pub fn advance(
    current: &Kept,
    by: u64,
    keys: OnlineKeys<'_>,
    now: Timestamp,
    terms: &Terms,
) -> Result<Published, TrustError> {
    let root = current.root()?;
    let mut kept = current.clone();
    let (mut snapshot, mut timestamp) = (
        Draft::follow(RoleName::Snapshot, kept.snapshot.as_deref(), now, terms.snapshot)?,
        Draft::follow(RoleName::Timestamp, kept.timestamp.as_deref(), now, terms.timestamp)?,
    );
    for draft in [&mut snapshot, &mut timestamp] {
        let version = draft.version()?.checked_add(by).ok_or_else(|| nonsense("no version can follow"))?;
        draft.set("version", json!(version));
    }
    let (version, bytes) = signed::<Snapshot>(&root, snapshot, keys.snapshot)?;
    timestamp.set("meta", json!({ RoleName::Snapshot.file(): describe(version, &bytes) }));
    let mut files = vec![(RoleName::Snapshot.versioned(version), bytes.clone())];
    kept.snapshot = Some(bytes);
    let (_, bytes) = signed::<TimestampFile>(&root, timestamp, keys.timestamp)?;
    files.push((RoleName::Timestamp.file(), bytes.clone()));
    kept.timestamp = Some(bytes);
    Ok(Published { kept, files })
}

/// A new snapshot, unless the one that is there leads to these targets, is believed, and is valid for half its term yet.
fn snapshot(
    root: &Root,
    kept: &Kept,
    described: &Value,
    keys: OnlineKeys<'_>,
    now: Timestamp,
    terms: &Terms,
) -> Result<Option<(u64, Vec<u8>)>, TrustError> {
    let file = RoleName::Targets.file();
    let mut draft = Draft::follow(RoleName::Snapshot, kept.snapshot.as_deref(), now, terms.snapshot)?;
    let half = i64::try_from(terms.snapshot.as_millis() / 2).unwrap_or(i64::MAX);
    let soon = Moment::by_clock(Timestamp(now.0.saturating_add(half)));
    let before = kept.snapshot.as_deref().and_then(|bytes| root.believe::<Snapshot>(bytes).ok());
    let lasts = before.is_some_and(|before| matches!(soon.freshness(before.expires), crate::Freshness::Fresh));
    if lasts && draft.get("meta").and_then(|meta| meta.get(&file)) == Some(described) {
        return Ok(None);
    }
    draft.object("meta")?.insert(file, described.clone());
    signed::<Snapshot>(root, draft, keys.snapshot).map(Some)
}

/// Signs, and sees to it that clients will believe it.
fn signed<T: Contents>(root: &Root, mut draft: Draft, keys: &[&SigningKey]) -> Result<(u64, Vec<u8>), TrustError> {
    for key in keys {
        draft.sign(key)?;
    }
    let bytes = draft.write()?;
    root.believe::<T>(&bytes).map_err(|why| T::ROLE.error(why))?;
    Ok((draft.version()?, bytes))
}

/// What is said of a file.
fn describe(version: u64, bytes: &[u8]) -> Value {
    json!({ "version": version, "length": bytes.len(), "hashes": { "sha256": Digest::of(bytes).to_string() } })
}

/// The version of a file of our own, whoever signed it.
fn version<T: Contents>(bytes: Option<&[u8]>) -> Result<Option<u64>, TrustError> {
    bytes.map(|bytes| File::read(bytes)?.contents::<T>().map(|contents| contents.version())).transpose()
}
