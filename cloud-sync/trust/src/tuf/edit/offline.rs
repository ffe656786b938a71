//! What the offline keys sign: roots and targets files.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holm_bundle::Digest;
use holm_core::Timestamp;
use serde_json::{Value, json};

use super::Draft;
use super::draft::nonsense;
use crate::tuf::metadata::{File, Root, Targets};
use crate::tuf::{Kept, RoleName};
use crate::{Role, TrustError};

const DAY: Duration = Duration::from_secs(86_400);

/// The longest name of a target, in bytes.
const MAX_NAME: usize = 512;

/// How long files of each role are valid from when they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// A year: whoever holds a root key is asked that often.
    pub root: Duration,
    /// 90 days: no new code after a quarter in which nobody signed any, or said that what there is still holds.
    pub targets: Duration,
    /// 7 days.
    pub snapshot: Duration,
    /// 24 hours: for how long somebody in between can hide a new release.
    pub timestamp: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self { root: DAY * 365, targets: DAY * 90, snapshot: DAY * 7, timestamp: DAY }
    }
}

/// Who signs what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleSet {
    /// Offline.
    pub root: Role,
    /// Offline.
    pub targets: Role,
    /// Online.
    pub snapshot: Role,
    /// Online.
    pub timestamp: Role,
}

impl RoleSet {
    /// As a root says it. Fails for keys that are not Ed25519, which this editor cannot write again.
    pub fn of(root: &[u8]) -> Result<Self, TrustError> {
        let file = File::read(root)?;
        let root: Root = file.contents()?;
        let role = |name| root.role(name);
        Ok(Self {
            root: role(RoleName::Root)?,
            targets: role(RoleName::Targets)?,
            snapshot: role(RoleName::Snapshot)?,
            timestamp: role(RoleName::Timestamp)?,
        })
    }

    fn write(&self, draft: &mut Draft) {
        let roles = [
            (RoleName::Root, &self.root),
            (RoleName::Targets, &self.targets),
            (RoleName::Snapshot, &self.snapshot),
            (RoleName::Timestamp, &self.timestamp),
        ];
        let key = |key: &crate::PublicKey| {
            let object = json!({ "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": key.to_string() } });
            (key.id(), object)
        };
        let keys: BTreeMap<String, Value> = roles.iter().flat_map(|(_, role)| role.keys()).map(key).collect();
        let ids = |role: &Role| role.keys().map(|key| key.id()).collect::<BTreeSet<String>>();
        let role = |(name, role): &(RoleName, &Role)| {
            (name.to_string(), json!({ "keyids": ids(role), "threshold": role.threshold() }))
        };
        let roles: BTreeMap<String, Value> = roles.iter().map(role).collect();
        draft.set("keys", json!(keys));
        draft.set("roles", json!(roles));
        draft.set("consistent_snapshot", json!(true));
    }
}

/// The first root.
pub fn root(roles: &RoleSet, now: Timestamp, terms: &Terms) -> Result<Draft, TrustError> {
    let mut draft = Draft::follow(RoleName::Root, None, now, terms.root)?;
    roles.write(&mut draft);
    Ok(draft)
}

/// The root after `previous`, with the same or other keys. Both the old and the new root keys have to sign it (6.1).
pub fn next_root(previous: &[u8], roles: &RoleSet, now: Timestamp, terms: &Terms) -> Result<Draft, TrustError> {
    let mut draft = Draft::follow(RoleName::Root, Some(previous), now, terms.root)?;
    roles.write(&mut draft);
    Ok(draft)
}

/// Whether clients that have `previous` will take `root` after it, or without it as the first one.
pub fn accept_root(previous: Option<&[u8]>, root: &[u8]) -> Result<(), TrustError> {
    match previous {
        Some(previous) => {
            let previous = Kept::new(previous.to_vec()).root()?;
            previous.successor(root).map_err(|why| RoleName::Root.error(why))?;
        }
        None => {
            Kept::new(root.to_vec()).root()?;
        }
    }
    Ok(())
}

/// A file to be listed.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTarget {
    /// In bytes.
    pub length: u64,
    /// Of its bytes.
    pub sha256: Digest,
    /// What is said of it: [`crate::tuf::Listing::custom`], or `null` for nothing.
    pub custom: Value,
}

/// The targets file after `previous`, or the first. With nothing to add and nothing to remove it says that what there is still holds.
///
/// Releases do not change: a target below `functions/` that is listed already cannot be added with other contents. Refusals name all
/// that is wrong.
pub fn targets(
    previous: Option<&[u8]>,
    add: &BTreeMap<String, NewTarget>,
    remove: &BTreeSet<String>,
    now: Timestamp,
    terms: &Terms,
) -> Result<Draft, TrustError> {
    let mut draft = Draft::follow(RoleName::Targets, previous, now, terms.targets)?;
    let listed = draft.object("targets")?;
    let mut problems = Vec::new();
    for name in remove {
        if listed.remove(name).is_none() {
            problems.push(format!("{name} is not there to be removed"));
        }
    }
    for (name, target) in add {
        let mut entry = json!({ "length": target.length, "hashes": { "sha256": target.sha256.to_string() } });
        if let (Some(entry), false) = (entry.as_object_mut(), target.custom.is_null()) {
            entry.insert("custom".to_owned(), target.custom.clone());
        }
        if let Err(problem) = check_name(name) {
            problems.push(format!("{name:?} {problem}"));
        }
        let contents = |entry: &Value| (entry.get("length").cloned(), entry.get("hashes").cloned());
        let before = listed.insert(name.clone(), entry.clone());
        if name.starts_with("functions/") && before.is_some_and(|before| contents(&before) != contents(&entry)) {
            problems.push(format!("{name} is released already, with other contents"));
        }
    }
    if problems.is_empty() { Ok(draft) } else { Err(nonsense(&problems.join("; "))) }
}

/// Whether clients that have `root` will take `targets`. That its version went up is for [`super::publish`] to see.
pub fn accept_targets(root: &[u8], targets: &[u8]) -> Result<(), TrustError> {
    let root = Kept::new(root.to_vec()).root()?;
    root.believe::<Targets>(targets).map_err(|why| RoleName::Targets.error(why))?;
    Ok(())
}

/// Names become paths of files and of URLs.
fn check_name(name: &str) -> Result<(), &'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+');
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain);
    if name.len() > MAX_NAME {
        return Err("is too long for a target's name");
    }
    if !name.split('/').all(part) {
        return Err(
            "is no target's name: parts of letters, digits and . - _ + that begin with no dot, between slashes",
        );
    }
    Ok(())
}
