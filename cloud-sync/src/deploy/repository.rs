//! The repository, as this device knows it: metadata is refreshed, over HTTPS or from a folder, and kept as one document.
//!
//! The first root comes with the identity. A device that was enrolled before there was a repository takes version 1 from the metadata's
//! address, over TLS that its control plane's root vouches for: as much as vouched for the identity.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use holm_mqtt::Traffic;
use holm_protocol::ReasonCode;
use holm_store::CloudNotes;
use holm_trust::TrustError;
use holm_trust::tuf::{Answer, DEPLOYMENT_KEYS, DeploymentKeys, Kept, Limits, MAX_DEPLOYMENT_KEYS, Repository, Update};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};

use super::{Refusal, carried};
use crate::error::chain;
use crate::identity::Identity;
use crate::time::Time;
use crate::{CloudUrl, SyncError, http, tls};

/// Under this name it is kept.
const NOTE: &str = "tuf";

/// The first root's name below the metadata's address.
const FIRST_ROOT: &str = "1.root.json";

/// What is kept. The files are JSON, and so text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Stored {
    root: Option<String>,
    timestamp: Option<String>,
    snapshot: Option<String>,
    targets: Option<String>,
    /// The target of this name, which fitted when it was fetched.
    deployment_keys: Option<String>,
}

/// Where files come from. Cheap to clone.
#[derive(Clone)]
pub(super) struct Source {
    /// Where somebody has carried them to. Metadata then comes from there alone: what is newer elsewhere is another deployment.
    folder: Option<PathBuf>,
    metadata: CloudUrl,
    targets: CloudUrl,
    tls: Arc<ClientConfig>,
    traffic: Arc<Traffic>,
    time: Arc<Time>,
    notes: CloudNotes,
    first_root: Option<String>,
}

/// A refreshed repository, and whose desired states are accepted.
pub(super) struct Refreshed {
    pub(super) repository: Repository,
    pub(super) keys: DeploymentKeys,
}

impl Source {
    pub(super) fn new(
        identity: &Identity,
        time: &Arc<Time>,
        traffic: &Arc<Traffic>,
        notes: &CloudNotes,
    ) -> Result<Self, SyncError> {
        let tuf = &identity.enrolled.tuf;
        Ok(Self {
            folder: None,
            metadata: CloudUrl::parse(&tuf.metadata_url)?,
            targets: CloudUrl::parse(&tuf.targets_url)?,
            tls: tls::config(identity.root(), None, time)?,
            traffic: traffic.clone(),
            time: time.clone(),
            notes: notes.clone(),
            first_root: tuf.root_json.as_ref().map(|root| root.get().to_owned()),
        })
    }

    /// The same, with files from a folder if one is named.
    pub(super) fn at(&self, folder: Option<PathBuf>) -> Self {
        Self { folder, ..self.clone() }
    }

    pub(super) fn time(&self) -> &Time {
        &self.time
    }

    /// What was kept, without the network.
    pub(super) async fn known(&self) -> Result<Repository, Refusal> {
        Ok(Repository::open(&self.read().await?.kept())?)
    }

    /// Brings the metadata up to date, and the deployment keys with it. What came is kept after a failure too. Cancel safe: a run that
    /// is cut off begins again where the last one stood.
    pub(super) async fn refresh(&self) -> Result<Refreshed, Refusal> {
        let before = self.read().await?;
        let mut stored = before.clone();
        if stored.root.is_none() {
            stored.root = Some(self.first().await?);
        }
        let mut update = Update::new(stored.kept(), self.time.moment(), Limits::default())?;
        let run = self.follow(&mut update).await;
        stored.keep(update.kept());
        let finished = match run {
            Ok(()) => update.finish().map_err(Refusal::from),
            Err(refusal) => Err(refusal),
        };
        let refreshed = match finished {
            Ok(repository) => self.keys(&repository, &mut stored).await.map(|keys| Refreshed { repository, keys }),
            Err(refusal) => Err(refusal),
        };
        if stored != before {
            self.write(&stored).await?;
        }
        refreshed
    }

    async fn follow(&self, update: &mut Update) -> Result<(), Refusal> {
        while let Some(wanted) = update.wanted() {
            let answer = match self.metadata(&wanted.name, wanted.max_bytes).await? {
                http::File::Found(bytes) => Answer::Found(bytes),
                http::File::Missing => Answer::Missing,
                http::File::TooLong => Answer::TooLong,
            };
            update.take(answer)?;
        }
        Ok(())
    }

    async fn first(&self) -> Result<String, Refusal> {
        if let Some(root) = &self.first_root {
            return Ok(root.clone());
        }
        let nothing =
            |what: &str| Refusal::new(ReasonCode::DownloadFailed, format!("the repository's first root {what}"));
        match self.metadata(FIRST_ROOT, Limits::default().root).await? {
            http::File::Found(bytes) => String::from_utf8(bytes).map_err(|_| nothing("is not text")),
            http::File::Missing => Err(nothing("is not there yet")),
            http::File::TooLong => Err(nothing("is too long")),
        }
    }

    /// The keys of [`DEPLOYMENT_KEYS`], from what is kept or from the network.
    async fn keys(&self, repository: &Repository, stored: &mut Stored) -> Result<DeploymentKeys, Refusal> {
        let target = repository
            .peek(DEPLOYMENT_KEYS)
            .ok_or_else(|| TrustError::UnknownTarget { name: DEPLOYMENT_KEYS.to_owned() })?;
        let fits = |bytes: &[u8]| {
            let mut check = target.check(DEPLOYMENT_KEYS);
            check.update(bytes)?;
            check.finish()
        };
        if let Some(kept) = stored.deployment_keys.as_ref().filter(|kept| fits(kept.as_bytes()).is_ok()) {
            return Ok(DeploymentKeys::read(kept.as_bytes())?);
        }
        repository.fresh(self.time.moment())?;
        let most = target.length.min(MAX_DEPLOYMENT_KEYS);
        let path = repository.path(DEPLOYMENT_KEYS)?;
        let file = match self.read_below("targets", &path, most).await? {
            Some(file @ (http::File::Found(_) | http::File::TooLong)) => file,
            Some(http::File::Missing) | None => self.file(&self.targets, &path, most).await?,
        };
        let bytes = match file {
            http::File::Found(bytes) => bytes,
            http::File::Missing => return Err(TrustError::Missing { name: DEPLOYMENT_KEYS.to_owned() }.into()),
            http::File::TooLong => return Err(TrustError::EndlessData { limit: most }.into()),
        };
        fits(&bytes)?;
        let keys = DeploymentKeys::read(&bytes)?;
        stored.deployment_keys = String::from_utf8(bytes).ok();
        Ok(keys)
    }

    /// A file of metadata.
    async fn metadata(&self, name: &str, most: u64) -> Result<http::File, Refusal> {
        match self.read_below("metadata", name, most).await? {
            Some(file) => Ok(file),
            None => self.file(&self.metadata, name, most).await,
        }
    }

    /// A file below the folder; `None` without one.
    async fn read_below(&self, part: &str, name: &str, most: u64) -> Result<Option<http::File>, Refusal> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let path = carried::below(&folder.join(part), name)?;
        blocking(move || carried::file(&path, most)).await?.map(Some)
    }

    /// A target of the folder, from a byte on; `None` if it has none, or there is no folder.
    pub(super) async fn carried(&self, path: &str, from: u64) -> Result<Option<File>, Refusal> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let path = carried::below(&folder.join("targets"), path)?;
        blocking(move || carried::target(&path, from)).await?
    }

    /// GET below one of the two addresses.
    async fn file(&self, url: &CloudUrl, name: &str, most: u64) -> Result<http::File, Refusal> {
        let path = format!("/{}", escaped(name));
        Ok(http::file(url, &path, most, self.tls.clone(), &self.traffic).await?)
    }

    /// GET of a target from a byte on.
    pub(super) async fn download(&self, path: &str, from: u64) -> Result<http::Download, SyncError> {
        let path = format!("/{}", escaped(path));
        http::download(&self.targets, &path, from, self.tls.clone(), &self.traffic).await
    }

    async fn read(&self) -> Result<Stored, Refusal> {
        let notes = self.notes.clone();
        let text = blocking(move || notes.read(NOTE)).await?.map_err(|error| internal(&error))?;
        // What cannot be read is begun anew from the first root: what protected from going back goes with it.
        Ok(text.map_or_else(Stored::default, |text| {
            serde_json::from_str(&text).unwrap_or_else(|error| {
                tracing::error!(%error, "what is known of the repository cannot be read; beginning with its first root");
                Stored::default()
            })
        }))
    }

    async fn write(&self, stored: &Stored) -> Result<(), Refusal> {
        let document = serde_json::to_string(stored).map_err(|error| internal(&error))?;
        let notes = self.notes.clone();
        blocking(move || notes.write(NOTE, document)).await?.map_err(|error| internal(&error))
    }
}

impl Stored {
    fn kept(&self) -> Kept {
        let bytes = |text: &Option<String>| text.as_ref().map(|text| text.clone().into_bytes());
        Kept {
            root: bytes(&self.root).unwrap_or_default(),
            timestamp: bytes(&self.timestamp),
            snapshot: bytes(&self.snapshot),
            targets: bytes(&self.targets),
        }
    }

    fn keep(&mut self, kept: &Kept) {
        // What was verified was read as JSON, which is UTF-8.
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        self.root = text(&kept.root).or(self.root.take());
        self.timestamp = kept.timestamp.as_deref().and_then(text);
        self.snapshot = kept.snapshot.as_deref().and_then(text);
        self.targets = kept.targets.as_deref().and_then(text);
    }
}

/// What blocks, on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    let panicked = |_| Refusal::new(ReasonCode::Internal, "a thread of the agent ended early");
    tokio::task::spawn_blocking(work).await.map_err(panicked)
}

pub(super) fn internal(error: &dyn std::error::Error) -> Refusal {
    Refusal::new(ReasonCode::Internal, chain(error))
}

/// Names come from signed metadata, and still must not become more than a path.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~' | b'/');
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_paths() {
        assert_eq!(escaped("functions/a/1.0.0+b/x.holm"), "functions/a/1.0.0%2Bb/x.holm");
        assert_eq!(escaped("a b?c#d\r\n"), "a%20b%3Fc%23d%0D%0A");
    }
}
