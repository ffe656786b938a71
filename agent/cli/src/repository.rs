//! The control plane's code repository, from a publisher's side.
//!
//! What is published builds on metadata that these keys have signed and that was never older than what was seen here before: the
//! control plane is asked as a device asks it, and believed no more.

use std::collections::{BTreeMap, BTreeSet};

use holm_core::Timestamp;
use holm_trust::tuf::edit::{self, NewTarget, RoleSet, Terms};
use holm_trust::tuf::{Kept, Limits, Update};
use holm_trust::{PublicKey, SigningKey};
use serde_json::Value;

use crate::client::escape;
use crate::failure::Failure;
use crate::keys::Keys;
use crate::remote::Remote;
use crate::tuf::{Files, fetch, now, refused};

/// The online keys of a control plane.
pub(crate) struct Online {
    pub(crate) snapshot: PublicKey,
    pub(crate) timestamp: PublicKey,
    pub(crate) deployment: PublicKey,
    /// Whether it has a root.
    pub(crate) begun: bool,
}

impl Online {
    /// Asks for them. The connection vouches for the answer: whoever it trusts is trusted with these keys.
    pub(crate) async fn of(remote: &Remote) -> Result<Self, Failure> {
        let answer = remote.get("/v1/repository").await?;
        let key = |name: &str| {
            let text = answer.pointer(&format!("/keys/{name}")).and_then(Value::as_str).unwrap_or_default();
            PublicKey::parse(text).map_err(|error| Failure::new(format!("the control plane's {name} key: {error}")))
        };
        Ok(Self {
            snapshot: key("snapshot")?,
            timestamp: key("timestamp")?,
            deployment: key("deployment")?,
            begun: answer.get("repository").is_some_and(|repository| !repository.is_null()),
        })
    }
}

/// Brings what is kept of the repository up to date, and answers it, and how that went. What was believed on the way stays so.
pub(crate) async fn refresh(remote: &Remote, keys: &Keys) -> Result<(Kept, Result<(), Failure>), Failure> {
    let folder = keys.trusted();
    let files = Files(&folder);
    let before = files.load()?.ok_or_else(|| {
        Failure::new(format!("{} has seen no repository yet", keys.folder.display()))
            .next("begin one with `holm key new --cloud`, or name the keys' folder with --keys DIR")
    })?;
    let mut update = Update::new(before.clone(), now(), Limits::default())
        .map_err(|error| refused(&folder.display().to_string(), &error))?;
    let url = format!("{}/tuf/metadata/", remote.url());
    let outcome = fetch(remote.http(), &url, &mut update).await.map_err(|failure| {
        failure.next(
            "see `holm key status`: what has expired is renewed with `holm key renew`; a control plane that came out of an older backup \
             gets back what it lacks with `holm republish --restored`",
        )
    });
    files.store(&before, update.kept())?;
    Ok((update.kept().clone(), outcome))
}

/// The targets file after `previous`, signed.
pub(crate) fn sign_targets(
    previous: Option<&[u8]>,
    add: &BTreeMap<String, NewTarget>,
    key: &SigningKey,
) -> Result<Vec<u8>, Failure> {
    let failed = |error| refused("the targets cannot be signed", &error);
    let mut draft = edit::targets(previous, add, &BTreeSet::new(), clock(), &Terms::default()).map_err(failed)?;
    draft.sign(key).map_err(failed)?;
    draft.write().map_err(failed)
}

/// The root after `previous`, or the first one, signed by all keys that are here. Fails if those are not enough.
pub(crate) fn sign_root(previous: Option<&[u8]>, roles: &RoleSet, keys: &[SigningKey]) -> Result<Vec<u8>, Failure> {
    let failed = |error| refused("the root cannot be signed", &error);
    let terms = Terms::default();
    let draft = match previous {
        Some(previous) => edit::next_root(previous, roles, clock(), &terms),
        None => edit::root(roles, clock(), &terms),
    };
    let mut draft = draft.map_err(failed)?;
    for key in keys {
        draft.sign(key).map_err(failed)?;
    }
    let bytes = draft.write().map_err(failed)?;
    edit::accept_root(previous, &bytes).map_err(|error| {
        refused("the keys that are here do not make a root", &error).next("bring the other root keys to this folder")
    })?;
    Ok(bytes)
}

/// Uploads files, then what was signed of them: until then nobody sees anything of it.
pub(crate) async fn upload(
    remote: &Remote,
    files: Vec<Vec<u8>>,
    root: Option<&[u8]>,
    targets: &[u8],
) -> Result<Value, Failure> {
    for bytes in files {
        let digest = holm_bundle::Digest::of(&bytes).to_string();
        remote.put(&format!("/v1/blobs/{}", escape(&digest)), bytes).await?;
    }
    // The files as they are: they are JSON, and signed as such.
    let mut body = b"{\"roots\":[".to_vec();
    body.extend_from_slice(root.unwrap_or_default());
    body.extend_from_slice(b"],\"targets\":");
    body.extend_from_slice(targets);
    body.push(b'}');
    remote.post_text("/v1/repository", body).await
}

/// By the clock of this machine.
pub(crate) fn clock() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}
