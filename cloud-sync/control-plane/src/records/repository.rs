//! The code repository's metadata: one state, replaced whole.
//!
//! # Invariants
//!
//! 1. What is kept and what is served change in one transaction: whoever reads finds the old repository or the new one, and no
//!    version is ever used twice, wherever the process was killed.
//! 2. Whatever is listed is here: a file that was not uploaded is not published.
//! 3. A release does not change. That holds for every release that was ever listed here, whoever has signed.
//!
//! Everything is decided on the writer's thread, so two who publish at once come one after the other, and the second is told
//! that he was late.

use std::sync::Arc;

use holm_bundle::Digest;
use holm_core::Timestamp;
use holm_trust::TrustError;
use holm_trust::tuf::edit::{self, OnlineKeys, RoleSet, Terms};
use holm_trust::tuf::{Draft, Kept, Repository};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::tokens::audit;
use super::{Records, Refused, signed};
use crate::CloudError;
use crate::blobs::Blobs;
use crate::error::{chain, sql, trust};
use crate::signing::Signing;

/// So old, in milliseconds, a timestamp is signed anew; it is valid for twice as long.
const REFRESH: i64 = 12 * 3_600_000;

/// Snapshots and targets files that are kept, for clients that began with an older timestamp. All roots are.
const KEPT: u32 = 8;

/// What there is.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) kept: Kept,
    /// When the timestamp was signed.
    pub(crate) signed: Timestamp,
}

/// Something new, signed offline.
pub(crate) struct Publication {
    /// The first root or those after the one that is here, in order.
    pub(crate) roots: Vec<Vec<u8>>,
    pub(crate) targets: Option<Vec<u8>>,
    pub(crate) operator: String,
    pub(crate) now: Timestamp,
}

/// The metadata of a new state, and the files that come with it.
type Next = (Kept, Vec<(String, Vec<u8>)>);

impl Records {
    /// The repository; `None` before the first root.
    pub(crate) async fn repository(&self) -> Result<Option<Held>, CloudError> {
        self.read(load).await
    }

    /// A file of metadata by its name.
    pub(crate) async fn metadata(&self, name: String) -> Result<Option<Vec<u8>>, CloudError> {
        self.read(move |connection| {
            let action = "read metadata";
            let mut statement =
                connection.prepare_cached("SELECT data FROM metadata WHERE name = ?1").map_err(sql(action))?;
            statement.query_row([name], |row| row.get(0)).optional().map_err(sql(action))
        })
        .await
    }

    /// The blob that is served under a path.
    pub(crate) async fn target(&self, path: String) -> Result<Option<Digest>, CloudError> {
        self.read(move |connection| {
            let action = "find a target";
            let mut statement =
                connection.prepare_cached("SELECT sha256 FROM target WHERE path = ?1").map_err(sql(action))?;
            let found = statement.query_row([path], |row| row.get::<_, [u8; 32]>(0)).optional();
            Ok(found.map_err(sql(action))?.map(Digest::from))
        })
        .await
    }

    /// Takes in new roots and a new targets file, and signs what leads there.
    pub(crate) async fn publish(
        &self,
        publication: Publication,
        signing: Arc<Signing>,
        blobs: Arc<Blobs>,
    ) -> Result<Result<Held, Refused>, CloudError> {
        self.write(move |connection| publish(connection, publication, &signing, &blobs)).await
    }

    /// Signs the timestamp anew if it is time. Whether it was.
    pub(crate) async fn refresh_repository(&self, signing: Arc<Signing>, now: Timestamp) -> Result<bool, CloudError> {
        let due = |held: &Held| held.kept.targets.is_some() && now.0.saturating_sub(held.signed.0) >= REFRESH;
        if !self.repository().await?.is_some_and(|held| due(&held)) {
            return Ok(false);
        }
        self.write(move |connection| {
            let Some(Held { kept, .. }) = load(connection)? else { return Ok(false) };
            let next = sign(&kept, Vec::new(), None, &signing, now).map_err(trust("sign the timestamp"))?;
            store(connection, next, now).map(|_| true)
        })
        .await
    }
}

fn publish(
    connection: &Connection,
    publication: Publication,
    signing: &Signing,
    blobs: &Blobs,
) -> Result<Result<Held, Refused>, CloudError> {
    let Publication { roots, targets, operator, now } = publication;
    let current = load(connection)?.map(|held| held.kept);
    let is_new = targets.is_some();
    let (kept, files) = match next(current, roots, targets, signing, now) {
        Ok(next) => next,
        Err(error) => {
            let sentence = chain(&error);
            return Ok(Err(match error {
                TrustError::OlderMetadata { .. } => Refused::Conflict(format!("{sentence}: somebody was faster")),
                _ => Refused::NotBelieved(vec![sentence]),
            }));
        }
    };
    if let Err(problem) = vouches(&kept.root, signing) {
        return Ok(Err(Refused::NotBelieved(vec![problem])));
    }
    if is_new && let Err(refused) = list(connection, &kept, blobs)? {
        return Ok(Err(refused));
    }
    let what = |bytes: Option<&[u8]>| bytes.and_then(|bytes| Draft::read(bytes).ok()?.version().ok()).unwrap_or(0);
    let object = format!("root {}, targets {}", what(Some(&kept.root)), what(kept.targets.as_deref()));
    audit(connection, now, &operator, "publish", &object)?;
    store(connection, (kept, files), now).map(Ok)
}

/// The state after a publication, in which everything was checked as a client would.
fn next(
    current: Option<Kept>,
    roots: Vec<Vec<u8>>,
    targets: Option<Vec<u8>>,
    signing: &Signing,
    now: Timestamp,
) -> Result<Next, TrustError> {
    let nothing = || TrustError::Nonsense { what: "there is no root yet, and none is given".to_owned() };
    let mut roots = roots.into_iter();
    let (mut kept, mut files) = match current {
        Some(kept) => (kept, Vec::new()),
        None => {
            let first = roots.next().ok_or_else(nothing)?;
            edit::accept_root(None, &first)?;
            let file = (root_name(&first)?, first.clone());
            (Kept::new(first), vec![file])
        }
    };
    if targets.is_some() || kept.targets.is_some() {
        let (kept, more) = sign(&kept, roots.collect(), targets, signing, now)?;
        files.extend(more);
        return Ok((kept, files));
    }
    // Before the first targets file there is nothing that leads anywhere.
    for root in roots {
        edit::accept_root(Some(&kept.root), &root)?;
        files.push((root_name(&root)?, root.clone()));
        kept.root = root;
    }
    Ok((kept, files))
}

fn sign(
    kept: &Kept,
    roots: Vec<Vec<u8>>,
    targets: Option<Vec<u8>>,
    signing: &Signing,
    now: Timestamp,
) -> Result<Next, TrustError> {
    let keys = OnlineKeys { snapshot: &[&signing.snapshot], timestamp: &[&signing.timestamp] };
    let published = edit::publish(kept, roots, targets, keys, now, &Terms::default())?;
    Ok((published.kept, published.files))
}

fn root_name(root: &[u8]) -> Result<String, TrustError> {
    Ok(format!("{}.root.json", Draft::read(root)?.version()?))
}

/// A root without our keys would be the last thing that this control plane publishes.
fn vouches(root: &[u8], signing: &Signing) -> Result<(), String> {
    let roles = RoleSet::of(root).map_err(|error| chain(&error))?;
    for (what, role, key) in
        [("snapshot", &roles.snapshot, &signing.snapshot), ("timestamp", &roles.timestamp, &signing.timestamp)]
    {
        if role.threshold() != 1 || !role.keys().any(|known| *known == key.public()) {
            return Err(format!(
                "the root does not take the {what} key of this control plane, {}, alone",
                key.public()
            ));
        }
    }
    Ok(())
}

/// Lists what is new among the targets. Refusals name all that is wrong.
fn list(connection: &Connection, kept: &Kept, blobs: &Blobs) -> Result<Result<(), Refused>, CloudError> {
    let action = "list targets";
    let repository = Repository::open(kept).map_err(trust("read the targets"))?;
    let (mut missing, mut changed, mut new) = (Vec::new(), Vec::new(), Vec::new());
    let known = "SELECT EXISTS (SELECT * FROM target WHERE path = ?1)";
    let other = "SELECT EXISTS (SELECT * FROM target WHERE name = ?1 AND sha256 != ?2)";
    let insert = "INSERT INTO target (path, name, sha256, length) VALUES (?1, ?2, ?3, ?4)";
    let [mut known, mut other, mut insert] = [
        connection.prepare_cached(known).map_err(sql(action))?,
        connection.prepare_cached(other).map_err(sql(action))?,
        connection.prepare_cached(insert).map_err(sql(action))?,
    ];
    for (name, target) in repository.targets() {
        let (Ok(path), Some(digest)) = (repository.path(name), target.sha256()) else {
            missing.push(format!("{name} has no digest that is known here"));
            continue;
        };
        if known.query_row([&path], |row| row.get(0)).map_err(sql(action))? {
            continue;
        }
        let bytes = digest.as_bytes();
        if name.starts_with("functions/")
            && other.query_row(params![name, bytes], |row| row.get(0)).map_err(sql(action))?
        {
            changed.push(format!("{name} is released already, with other contents"));
        }
        match blobs.get(&digest)? {
            Some((_, length)) if length == target.length => {}
            Some((_, length)) => missing.push(format!("{name} has {length} bytes here, not {}", target.length)),
            None => missing.push(format!("{name} is not here: put the blob {digest} first")),
        }
        new.push((path, name, digest, target.length));
    }
    missing.extend(changed);
    if !missing.is_empty() {
        return Ok(Err(Refused::NotBelieved(missing)));
    }
    for (path, name, digest, length) in new {
        insert.execute(params![path, name, digest.as_bytes(), signed(length)]).map_err(sql(action))?;
    }
    Ok(Ok(()))
}

pub(super) fn load(connection: &Connection) -> Result<Option<Held>, CloudError> {
    let action = "read the repository";
    let statement = "SELECT root, timestamp, snapshot, targets, signed FROM repository";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let held = statement.query_row([], |row| {
        let kept = Kept { root: row.get(0)?, timestamp: row.get(1)?, snapshot: row.get(2)?, targets: row.get(3)? };
        Ok(Held { kept, signed: Timestamp(row.get(4)?) })
    });
    held.optional().map_err(sql(action))
}

pub(super) fn store(connection: &Connection, (kept, files): Next, now: Timestamp) -> Result<Held, CloudError> {
    let action = "keep the repository";
    let statement = "INSERT OR REPLACE INTO repository (id, root, timestamp, snapshot, targets, signed) \
                     VALUES (1, ?1, ?2, ?3, ?4, ?5)";
    let Kept { root, timestamp, snapshot, targets } = &kept;
    connection.execute(statement, params![root, timestamp, snapshot, targets, now.0]).map_err(sql(action))?;
    let insert = "INSERT INTO metadata (name, data) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET data = ?2";
    let mut insert = connection.prepare_cached(insert).map_err(sql(action))?;
    for (name, data) in files {
        insert.execute(params![name, data]).map_err(sql(action))?;
    }
    let old = "DELETE FROM metadata WHERE name LIKE ?1 AND id <= \
               (SELECT id FROM metadata WHERE name LIKE ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)";
    for names in ["%.snapshot.json", "%.targets.json"] {
        connection.execute(old, params![names, KEPT]).map_err(sql(action))?;
    }
    Ok(Held { kept, signed: now })
}

#[cfg(test)]
#[path = "repository_tests.rs"]
mod tests;
