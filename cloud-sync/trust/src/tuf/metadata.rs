//! The four files of a flat repository (4.2 to 4.6): shapes, and whose signatures they need.
//!
//! A file is read in two steps. [`File::read`] takes it apart without believing anything; [`Root::believe`] checks the signatures
//! over the canonical form and only then gives its contents a type. Fields that are not known are signed for and otherwise ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use holm_bundle::Digest;
use holm_core::Timestamp;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::key::{Key, hex};
use super::target::{Hashes, Target};
use super::{date, json};
use crate::{PublicKey, Role, TrustError};

/// The top-level roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleName {
    /// Says which keys the others have. Offline.
    Root,
    /// Says which snapshot is current. Online.
    Timestamp,
    /// Says which targets file is current. Online.
    Snapshot,
    /// Says which targets there are. Offline.
    Targets,
}

impl RoleName {
    /// All of them, in the order in which a client reads them.
    pub const ALL: [Self; 4] = [Self::Root, Self::Timestamp, Self::Snapshot, Self::Targets];

    /// The word in metadata.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Timestamp => "timestamp",
            Self::Snapshot => "snapshot",
            Self::Targets => "targets",
        }
    }

    /// The name of its file without a version.
    pub fn file(self) -> String {
        format!("{self}.json")
    }

    /// The name of its file with a version.
    pub(crate) fn versioned(self, version: u64) -> String {
        format!("{version}.{self}.json")
    }

    /// What went wrong with its file.
    pub(crate) fn error(self, why: TrustError) -> TrustError {
        TrustError::Metadata { role: self, why: Box::new(why) }
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A file that nobody has vouched for yet.
#[derive(Debug)]
pub(crate) struct File {
    signed: Value,
    signatures: Vec<Signature>,
}

/// A signature in metadata.
#[derive(Debug, Deserialize)]
struct Signature {
    keyid: String,
    sig: String,
}

impl File {
    /// Takes a file apart.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, TrustError> {
        #[derive(Deserialize)]
        struct Shape {
            signed: Value,
            signatures: Vec<Signature>,
        }
        let Shape { signed, signatures } = serde_json::from_slice(bytes).map_err(unreadable)?;
        Ok(Self { signed, signatures })
    }

    /// Its contents, which nobody has vouched for.
    pub(crate) fn contents<T: Contents>(&self) -> Result<T, TrustError> {
        let header = Header::deserialize(&self.signed).map_err(unreadable)?;
        if header.kind != T::ROLE.as_str() {
            return Err(TrustError::Nonsense { what: format!("it is a {}, not a {}", header.kind, T::ROLE) });
        }
        let mut numbers = header.spec_version.split('.');
        let digits = |number: &str| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        if numbers.next() != Some("1") || !numbers.all(digits) {
            return Err(TrustError::Specification { found: header.spec_version });
        }
        if header.version == 0 {
            return Err(TrustError::Nonsense { what: "version 0".to_owned() });
        }
        T::deserialize(&self.signed).map_err(unreadable)
    }
}

/// What all four have, and what is looked at first.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "_type")]
    kind: String,
    spec_version: String,
    version: u64,
}

/// The contents of one of the four.
pub(crate) trait Contents: DeserializeOwned {
    /// Whose.
    const ROLE: RoleName;
    /// Counts up with each file.
    fn version(&self) -> u64;
    /// When it is over.
    fn expires(&self) -> Timestamp;
}

/// `root.json` (4.3).
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Root {
    pub(crate) version: u64,
    #[serde(deserialize_with = "time")]
    pub(crate) expires: Timestamp,
    /// Whether files carry their version or hash in their names. Missing in old files, and then they do not.
    #[serde(default)]
    pub(crate) consistent_snapshot: bool,
    #[serde(deserialize_with = "keys")]
    keys: BTreeMap<String, Key>,
    roles: Roles,
}

/// Whoever else has a role in it is ignored: mirrors are not used.
#[derive(Debug, Clone, Deserialize)]
struct Roles {
    root: Signers,
    timestamp: Signers,
    snapshot: Signers,
    targets: Signers,
}

/// Who signs for a role.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Signers {
    keyids: BTreeSet<String>,
    #[serde(deserialize_with = "positive")]
    pub(crate) threshold: u64,
}

/// What one file says of another (4.4, `METAFILES`).
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Meta {
    #[serde(deserialize_with = "positive")]
    pub(crate) version: u64,
    pub(crate) length: Option<u64>,
    hashes: Option<Hashes>,
}

/// `timestamp.json` (4.6).
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct TimestampFile {
    pub(crate) version: u64,
    #[serde(deserialize_with = "time")]
    pub(crate) expires: Timestamp,
    meta: OneMeta,
}

#[derive(Debug, Clone, Deserialize)]
struct OneMeta {
    #[serde(rename = "snapshot.json")]
    snapshot: Meta,
}

/// `snapshot.json` (4.4).
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) version: u64,
    #[serde(deserialize_with = "time")]
    pub(crate) expires: Timestamp,
    /// By file name. All of them count for the check against rollback, one of them is read.
    pub(crate) meta: BTreeMap<String, Meta>,
}

/// `targets.json` (4.5).
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Targets {
    pub(crate) version: u64,
    #[serde(deserialize_with = "time")]
    pub(crate) expires: Timestamp,
    pub(crate) targets: BTreeMap<String, Target>,
}

macro_rules! contents {
    ($($type:ident: $role:ident;)+) => {
        $(impl Contents for $type {
            const ROLE: RoleName = RoleName::$role;
            fn version(&self) -> u64 { self.version }
            fn expires(&self) -> Timestamp { self.expires }
        })+
    };
}

contents! { Root: Root; TimestampFile: Timestamp; Snapshot: Snapshot; Targets: Targets; }

impl Root {
    /// Checks a file's signatures for its role, and reads it.
    pub(crate) fn believe<T: Contents>(&self, bytes: &[u8]) -> Result<T, TrustError> {
        let file = File::read(bytes)?;
        self.check(T::ROLE, &file)?;
        file.contents()
    }

    /// Checks that enough keys of a role have signed. A signature that does not fit spoils nothing; a key that is named twice
    /// does, for that is not allowed (4.2.1), and could only be there to be counted twice.
    pub(crate) fn check(&self, role: RoleName, file: &File) -> Result<(), TrustError> {
        let message = json::canonical(&file.signed)?;
        let signers = self.signers(role);
        let (mut seen, mut good, mut bad) = (BTreeSet::new(), BTreeSet::new(), None);
        for Signature { keyid, sig } in &file.signatures {
            if !seen.insert(keyid) {
                return Err(TrustError::Nonsense { what: format!("two signatures of key {keyid}") });
            }
            if !signers.keyids.contains(keyid) {
                continue;
            }
            let Some(key) = self.keys.get(keyid) else { continue };
            if hex(sig).is_some_and(|signature| key.verifies(&message, &signature)) {
                // By contents, so that a key under two names counts once.
                good.insert(key);
            } else {
                bad = Some(keyid);
            }
        }
        match (good.len(), bad) {
            (found, _) if u64::try_from(found).is_ok_and(|found| found >= signers.threshold) => Ok(()),
            (_, Some(keyid)) => Err(TrustError::WrongSignature { key_id: keyid.clone() }),
            (0, None) => Err(TrustError::UnknownKey { found: seen.into_iter().cloned().collect() }),
            (found, None) => {
                let threshold = usize::try_from(signers.threshold).unwrap_or(usize::MAX);
                Err(TrustError::TooFewSignatures { found, threshold })
            }
        }
    }

    /// The root after this one (5.3.4 to 5.3.7), if it is.
    pub(crate) fn successor(&self, bytes: &[u8]) -> Result<Self, TrustError> {
        let file = File::read(bytes)?;
        self.check(RoleName::Root, &file)?;
        let next: Self = file.contents()?;
        next.check(RoleName::Root, &file)?;
        if next.version <= self.version {
            let of = RoleName::Root.file();
            return Err(TrustError::OlderMetadata { of, found: next.version, trusted: self.version });
        }
        if next.version - 1 != self.version {
            let what = format!("version {} after {}", next.version, self.version);
            return Err(TrustError::MixedMetadata { what });
        }
        Ok(next)
    }

    pub(crate) fn signers(&self, role: RoleName) -> &Signers {
        match role {
            RoleName::Root => &self.roles.root,
            RoleName::Timestamp => &self.roles.timestamp,
            RoleName::Snapshot => &self.roles.snapshot,
            RoleName::Targets => &self.roles.targets,
        }
    }

    /// The different keys of a role.
    pub(crate) fn keys_of(&self, role: RoleName) -> BTreeSet<&Key> {
        self.signers(role).keyids.iter().filter_map(|id| self.keys.get(id)).collect()
    }

    /// A role as ours are. Fails if fewer than its threshold are Ed25519 keys.
    pub(crate) fn role(&self, role: RoleName) -> Result<Role, TrustError> {
        let ed25519 = |key: &Key| match key {
            Key::Ed25519(key) => Some(*key),
            _ => None,
        };
        let keys: Vec<PublicKey> = self.keys_of(role).into_iter().filter_map(ed25519).collect();
        Role::new(keys, usize::try_from(self.signers(role).threshold).unwrap_or(usize::MAX))
    }

    /// Whether signatures that were enough for `role` may not be under `next`: a key was taken away, or more are demanded.
    pub(crate) fn is_rotated(&self, role: RoleName, next: &Self) -> bool {
        let stricter = next.signers(role).threshold > self.signers(role).threshold;
        stricter || !self.keys_of(role).is_subset(&next.keys_of(role))
    }
}

impl Meta {
    /// Whether a file is the one that is meant, as far as is said of it. Its version is in the file and checked by the caller.
    pub(crate) fn check(&self, bytes: &[u8]) -> Result<(), TrustError> {
        let mixed = |what: String| Err(TrustError::MixedMetadata { what });
        let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        match (self.length, &self.hashes) {
            (Some(length), _) if length != found => mixed(format!("{found} bytes instead of {length}")),
            (_, Some(hashes)) if !hashes.fit(bytes) => mixed("its digest".to_owned()),
            _ => Ok(()),
        }
    }

    /// Whether a file of this version is the one that is meant.
    pub(crate) fn check_version(&self, found: u64) -> Result<(), TrustError> {
        if found == self.version {
            return Ok(());
        }
        Err(TrustError::MixedMetadata { what: format!("version {found} instead of {}", self.version) })
    }
}

impl TimestampFile {
    /// What it says of the snapshot.
    pub(crate) fn snapshot(&self) -> &Meta {
        &self.meta.snapshot
    }
}

impl Snapshot {
    /// What it says of the targets file.
    pub(crate) fn targets(&self) -> Result<&Meta, TrustError> {
        let nothing = || TrustError::Nonsense { what: "nothing of targets.json".to_owned() };
        self.meta.get(&RoleName::Targets.file()).ok_or_else(nothing)
    }
}

fn unreadable(source: serde_json::Error) -> TrustError {
    TrustError::Unreadable { source }
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    date::parse(&text).ok_or_else(|| D::Error::custom(format!("`{text}` is not a time like 2026-11-21T13:00:00Z")))
}

fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        0 => Err(D::Error::custom("0 where at least 1 must be")),
        number => Ok(number),
    }
}

/// Keys under their right ids (4.3: a client must calculate them).
fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Key>, D::Error> {
    let objects = BTreeMap::<String, Value>::deserialize(deserializer)?;
    objects
        .into_iter()
        .map(|(id, object)| {
            let canonical = json::canonical(&object).map_err(D::Error::custom)?;
            if Digest::of(&canonical).to_string() != id {
                return Err(D::Error::custom(format!("{id} is not the id of its key")));
            }
            Ok((id, Key::read(&object)))
        })
        .collect()
}
