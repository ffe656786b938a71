//! Getting everything here that a desired state names: held against what the targets key signed, byte by byte.
//!
//! # How it works
//!
//! A file is written to `downloads/{digest}.part` of the data folder, hashed while it is written, synced, and only then renamed to its
//! place: what has its name is what was signed. A download that was cut off goes on where it stood, after what is there was hashed
//! again; if the whole then does not fit, it is fetched once more from its begin, because the disk may have had its say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use holm_bundle::Digest;
use holm_core::FunctionName;
use holm_protocol::{AGENT, AgentBuild, DesiredAgent, DesiredFunction, DesiredState, ReasonCode, ThingName};
use holm_trust::tuf::{Check, DeploymentKeys, Listing, Repository, Target};
use holm_trust::{Judge, TrustError};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};

use super::carried::unreadable;
use super::record::History;
use super::repository::{Source, blocking};
use super::{AgentStanding, Installer, Refusal};
use crate::{Secrets, SyncError};

/// Beyond twice of what comes: the node needs room for its own work.
const SPARE: u64 = 64 << 20;

/// Pieces of a download between the socket and the disk, 16 KiB each at most.
const PIECES: usize = 8;

/// Files are read in pieces of this many bytes.
const CHUNK: usize = 64 << 10;

/// What fetching needs, shared with threads that block.
#[derive(Clone)]
pub(super) struct Fetcher {
    pub(super) thing: ThingName,
    pub(super) source: Source,
    pub(super) installer: Arc<dyn Installer>,
    pub(super) agent: AgentBuild,
    pub(super) secrets: Secrets,
    /// `downloads` of the data folder.
    pub(super) folder: PathBuf,
    /// Held by who writes there. A fetch that was given up may have a piece to write yet, and what it writes is not in the digest of the
    /// one after it.
    pub(super) writing: Arc<Mutex<()>>,
    /// Bytes that came, ever.
    pub(super) arrived: Arc<AtomicU64>,
}

/// What is known once everything is here.
pub(super) struct Fetched {
    /// The release sequences to remember.
    pub(super) sequences: BTreeMap<String, u64>,
    /// Functions whose release is newer than the one that was confirmed here last.
    pub(super) newer: BTreeSet<FunctionName>,
}

/// A file that is not here.
struct Missing {
    name: String,
    target: Target,
    to: PathBuf,
}

impl Fetcher {
    /// The same, with files from a folder if one is named. What it has not comes over the network.
    pub(super) fn at(&self, folder: Option<PathBuf>) -> Arc<Self> {
        Arc::new(Self { source: self.source.at(folder), ..self.clone() })
    }

    /// Gets all of it here. Cancel safe.
    pub(super) async fn fetch(
        self: Arc<Self>,
        repository: &Repository,
        keys: Option<&DeploymentKeys>,
        state: &DesiredState,
        history: &History,
    ) -> Result<Fetched, Refusal> {
        self.check_secrets(state).await?;
        let (mut sequences, mut newer) = (BTreeMap::new(), BTreeSet::new());
        let mut missing = Vec::new();
        let agent = match &state.agent {
            Some(wanted) => {
                let (agent, program, sequence) = self.agent(repository, wanted, state.generation, history).await?;
                sequences.insert(AGENT.to_owned(), sequence);
                missing.extend(program);
                agent
            }
            None => self.agent.clone(),
        };
        for function in &state.functions {
            let (name, target, sequence) = vouched(repository, function)?;
            let named = function.name.as_str();
            let older = history.floor(named, &function.bundle.sha256).is_some_and(|floor| sequence < floor);
            if older && !self.may_go_back(repository, keys, function)? {
                let what = format!(
                    "{} {} is older than what ran here, and no permit is with it",
                    function.name, function.version
                );
                return Err(Refusal::new(ReasonCode::OlderVersion, what));
            }
            // With a permit it is this one that counts from now on; without, nothing becomes possible that was not.
            let remembered = if older { sequence } else { history.raised(named, sequence) };
            sequences.insert(function.name.to_string(), remembered);
            // Where what runs is not listed any more, the highest that ever ran stands for it.
            let runs = history.runs(named).and_then(|digest| sequence_of(repository, &function.name, &digest));
            if runs.or(history.known(named)).is_none_or(|runs| sequence > runs) {
                newer.insert(function.name.clone());
            }
            let to = self.installer.bundle_file(&function.bundle.sha256);
            let (path, check) = (to.clone(), target.check(&name));
            if !blocking(move || is_here(&path, check)).await? {
                // New code is taken from fresh metadata only.
                let target = repository.target(&name, self.source.time().moment())?.clone();
                missing.push(Missing { name, target, to });
            }
        }
        self.get(repository, &missing).await?;
        self.get_native(repository, state, agent).await?;
        let folder = self.folder.clone();
        // All that was wanted is here: what is left in there belongs to nobody.
        blocking(move || drop(fs::remove_dir_all(folder))).await?;
        Ok(Fetched { sequences, newer })
    }

    /// The agent that is wanted, its program if that is not here, and its release sequence.
    async fn agent(
        &self,
        repository: &Repository,
        wanted: &DesiredAgent,
        generation: u64,
        history: &History,
    ) -> Result<(AgentBuild, Option<Missing>, u64), Refusal> {
        let name = Listing::agent_name(&wanted.version, &self.agent.arch);
        let target = repository.peek(&name).ok_or_else(|| TrustError::UnknownTarget { name: name.clone() })?;
        let unlisted = |what: &str| Refusal::new(ReasonCode::UnknownTarget, format!("{name} {what}"));
        let digest = wanted.artifact.sha256;
        if target.sha256() != Some(digest) || target.length != wanted.artifact.length {
            return Err(unlisted("is listed with another digest than is wanted"));
        }
        let (agent, sequence) = match Listing::of(target)? {
            Some(Listing::Agent { version, arch, engine, profile, sequence }) if arch == self.agent.arch => {
                (AgentBuild { version, arch, engine, profile }, sequence)
            }
            _ => return Err(unlisted("is not listed as an agent for this processor")),
        };
        // There is no permit for it: what is older than what was confirmed here is one step back, or none.
        if history.floor(AGENT, &digest).is_some_and(|floor| sequence < floor) {
            let what = format!("agent {} is older than what ran here", wanted.version);
            return Err(Refusal::new(ReasonCode::OlderVersion, what));
        }
        let standing = self.installer.agent(Some(&digest), generation);
        let to = self.installer.agent_file(&digest);
        let (path, check) = (to.clone(), target.check(&name));
        let here = matches!(standing, AgentStanding::Runs | AgentStanding::OnTrial)
            || blocking(move || is_here(&path, check)).await?;
        let program = match here {
            true => None,
            false => {
                let folder = to.parent().map(Path::to_path_buf).unwrap_or_default();
                let made = blocking(move || fs::create_dir_all(folder)).await?;
                made.map_err(|source| SyncError::File { action: "create the folder of", path: to.clone(), source })?;
                let target = repository.target(&name, self.source.time().moment())?.clone();
                Some(Missing { name, target, to })
            }
        };
        Ok((agent, program, history.raised(AGENT, sequence)))
    }

    /// Opens all of them once: what does not open now, never will.
    async fn check_secrets(&self, state: &DesiredState) -> Result<(), Refusal> {
        let sealed: Vec<_> = state.functions.iter().flat_map(|function| function.secrets.clone()).collect();
        let secrets = self.secrets.clone();
        blocking(move || sealed.iter().try_for_each(|(name, sealed)| secrets.open(name, sealed).map(drop))).await?
    }

    fn may_go_back(
        &self,
        repository: &Repository,
        keys: Option<&DeploymentKeys>,
        function: &DesiredFunction,
    ) -> Result<bool, Refusal> {
        let targets = repository.targets_role()?;
        // Permits are by the targets keys alone; the others are not asked.
        let deployment = keys.map_or_else(|| Ok(targets.clone()), DeploymentKeys::role)?;
        let (time, monotonic) = self.source.time().trusted();
        let judge = Judge {
            device: &self.thing,
            deployment: &deployment,
            targets: &targets,
            last: None,
            time: &time,
            monotonic,
        };
        Ok(judge.permit(function)?.is_some())
    }

    async fn get(&self, repository: &Repository, missing: &[Missing]) -> Result<(), Refusal> {
        let size: u64 = missing.iter().map(|file| file.target.length).fold(0, u64::saturating_add);
        if missing.is_empty() {
            return Ok(());
        }
        let need = size.saturating_mul(2).saturating_add(SPARE);
        let (folder, installer) = (self.folder.clone(), self.installer.clone());
        let free = blocking(move || fs::create_dir_all(folder).map(|()| installer.free_space())).await?;
        let free = free.map_err(|source| SyncError::File { action: "create", path: self.folder.clone(), source })?;
        if free < need {
            let what = format!("{size} bytes are to come, for which {need} have to be free, and {free} are");
            return Err(Refusal::new(ReasonCode::DiskFull, what));
        }
        for file in missing {
            let path = repository.path(&file.name)?;
            if self.get_one(&path, file).await? != Got::Whole {
                // What was here before did not belong to it.
                match self.get_one(&path, file).await? {
                    Got::Whole => {}
                    Got::NotFitting(refusal) => return Err(refusal),
                }
            }
            tracing::info!(target = file.name, bytes = file.target.length, "downloaded");
        }
        Ok(())
    }

    /// One attempt at one file.
    async fn get_one(&self, path: &str, file: &Missing) -> Result<Got, Refusal> {
        let digest = file.target.sha256().ok_or_else(|| TrustError::WrongDigest {
            name: file.name.clone(),
            what: "its digest is of a kind that is not known here",
        })?;
        let part = self.folder.join(format!("{digest}.part"));
        let (opened, check) = (part.clone(), file.target.check(&file.name));
        let (writing, arrived) = (self.writing.clone().lock_owned().await, self.arrived.clone());
        let mut sink = blocking(move || Sink::open(opened, check, arrived, writing)).await??;
        let from = sink.written;
        if from < file.target.length || from == 0 {
            let poured = match self.source.carried(path, from).await? {
                Some(carried) => blocking(move || copy(carried, sink)).await??,
                None => self.download(path, file, sink).await?,
            };
            sink = match poured {
                Poured::All(sink) => sink,
                Poured::NotFitting(refusal) => return Ok(Got::NotFitting(refusal)),
            };
        }
        let to = file.to.clone();
        let resumed = from > 0;
        match blocking(move || sink.finish(&to)).await? {
            Ok(()) => Ok(Got::Whole),
            Err(refusal) if resumed || refusal.reason.is_security() => Ok(Got::NotFitting(refusal)),
            Err(refusal) => Err(refusal),
        }
    }

    /// What is missing of it, over the network.
    async fn download(&self, path: &str, file: &Missing, sink: Sink) -> Result<Poured, Refusal> {
        let from = sink.written;
        let mut download = self.source.download(path, from).await?;
        let sink = match download.status {
            206 if download.from == Some(from) => sink,
            // The whole of it, asked for or not.
            200 => blocking(move || sink.restart()).await??,
            403 | 404 => return Err(TrustError::Missing { name: file.name.clone() }.into()),
            416 => {
                blocking(move || sink.discard()).await?;
                let less = "the server has less than was signed";
                return Ok(Poured::NotFitting(Refusal::new(ReasonCode::DownloadFailed, less)));
            }
            status => {
                let what = format!("{} is answered with status {status}", file.name);
                return Err(Refusal::new(ReasonCode::DownloadFailed, what));
            }
        };
        pour(&mut download, sink).await
    }

    /// Native code for components that have none here: from the repository, or from the compiler later.
    async fn get_native(
        &self,
        repository: &Repository,
        state: &DesiredState,
        agent: AgentBuild,
    ) -> Result<(), Refusal> {
        // The compiler that is here belongs to the agent that runs.
        let same = (&agent.engine, &agent.profile) == (&self.agent.engine, &self.agent.profile);
        let compiles = same && self.installer.has_compiler();
        let (installer, functions, build) = (self.installer.clone(), state.functions.clone(), agent.clone());
        let examined = blocking(move || installer.examine(&functions, &build)).await??;
        for (function, examined) in state.functions.iter().zip(examined).filter(|(_, examined)| !examined.native) {
            let Some((name, target)) = native_of(repository, function, &examined.component, &agent) else {
                if compiles {
                    continue;
                }
                let AgentBuild { engine, profile, .. } = &agent;
                let what = format!(
                    "the repository has no native code of {} {} for engine {engine} {profile}, and this device has no compiler for it",
                    function.name, function.version
                );
                return Err(Refusal::new(ReasonCode::CompileFailed, what));
            };
            let target = match repository.target(name, self.source.time().moment()) {
                Ok(_) => target.clone(),
                // The bundle is here already, so it can be compiled.
                Err(_) if compiles => continue,
                Err(error) => return Err(error.into()),
            };
            let to = self.folder.join("native.cwasm");
            self.get(repository, &[Missing { name: name.to_owned(), target, to: to.clone() }]).await?;
            let (installer, component, build) = (self.installer.clone(), examined.component, agent.clone());
            blocking(move || installer.adopt_native(&component, &build, &to)).await??;
        }
        Ok(())
    }
}

/// Native code by what is said of it under the targets key, not by its name.
fn native_of<'a>(
    repository: &'a Repository,
    function: &DesiredFunction,
    component: &Digest,
    agent: &AgentBuild,
) -> Option<(&'a str, &'a Target)> {
    let folder = format!("functions/{}/{}/", function.name, function.version);
    let fits = |target: &Target| {
        matches!(Listing::of(target), Ok(Some(Listing::Native { component: of, engine, profile }))
            if of == *component && engine == agent.engine && profile == agent.profile)
    };
    repository.targets().find(|(name, target)| name.starts_with(&folder) && fits(target))
}

/// The target of a function's bundle, and its release sequence.
fn vouched<'a>(repository: &'a Repository, function: &DesiredFunction) -> Result<(String, &'a Target, u64), Refusal> {
    let name = Listing::bundle_name(&function.name, &function.version);
    let target = repository.peek(&name).ok_or_else(|| TrustError::UnknownTarget { name: name.clone() })?;
    let unlisted = |what: &str| Refusal::new(ReasonCode::UnknownTarget, format!("{name} {what}"));
    if target.sha256() != Some(function.bundle.sha256) || target.length != function.bundle.length {
        return Err(unlisted("is listed with another digest than is wanted"));
    }
    match Listing::of(target)? {
        Some(Listing::Bundle { function: of, sequence, .. }) if of == function.name => Ok((name, target, sequence)),
        _ => Err(unlisted("is not listed as a bundle of this function")),
    }
}

/// The release sequence of a bundle that may be of another version.
fn sequence_of(repository: &Repository, function: &FunctionName, bundle: &Digest) -> Option<u64> {
    let mut of_it = repository.targets().filter(|(_, target)| target.sha256() == Some(*bundle));
    of_it.find_map(|(_, target)| match Listing::of(target) {
        Ok(Some(Listing::Bundle { function: of, sequence, .. })) if of == *function => Some(sequence),
        _ => None,
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Got {
    Whole,
    /// It is not what was signed, and nothing is left of it.
    NotFitting(Refusal),
}

enum Poured {
    All(Sink),
    NotFitting(Refusal),
}

/// From the socket to the disk, which is written on a thread that may block.
async fn pour(download: &mut crate::http::Download, sink: Sink) -> Result<Poured, Refusal> {
    let (pieces, mut coming) = mpsc::channel::<Bytes>(PIECES);
    let writing = tokio::task::spawn_blocking(move || {
        let mut sink = sink;
        let mut result = Ok(());
        while let Some(piece) = coming.blocking_recv() {
            result = sink.write(&piece);
            if result.is_err() {
                break;
            }
        }
        // However the download ended, what came is worth keeping.
        let _ = sink.file.sync_all();
        (sink, result)
    });
    let mut broken = None;
    loop {
        match download.piece().await {
            Ok(Some(piece)) => {
                // The disk has given up, or what comes does not fit.
                if pieces.send(piece).await.is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                broken = Some(error);
                break;
            }
        }
    }
    drop(pieces);
    let written = writing.await.map_err(|_| Refusal::new(ReasonCode::Internal, "a thread of the agent ended early"))?;
    let (sink, result) = written;
    match (result, broken) {
        (Err(refusal), _) if refusal.reason.is_security() => {
            blocking(move || sink.discard()).await?;
            Ok(Poured::NotFitting(refusal))
        }
        (Err(refusal), _) => Err(refusal),
        (Ok(()), Some(error)) => Err(error.into()),
        (Ok(()), None) if sink.written < sink.length => {
            let what = format!("the server sent {} of {} bytes", sink.written, sink.length);
            Err(Refusal::new(ReasonCode::DownloadFailed, what))
        }
        (Ok(()), None) => Ok(Poured::All(sink)),
    }
}

/// From a file that is here to the disk. Blocks.
fn copy(mut from: fs::File, mut sink: Sink) -> Result<Poured, Refusal> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = from.read(&mut chunk).map_err(|error| unreadable(&sink.path, &error))?;
        if count == 0 {
            break;
        }
        if let Err(refusal) = sink.write(chunk.get(..count).unwrap_or_default()) {
            if refusal.reason.is_security() {
                sink.discard();
                return Ok(Poured::NotFitting(refusal));
            }
            return Err(refusal);
        }
    }
    if sink.written < sink.length {
        let what = format!("the folder has {} of {} bytes", sink.written, sink.length);
        return Err(Refusal::new(ReasonCode::DownloadFailed, what));
    }
    Ok(Poured::All(sink))
}

/// A file that is being written. Every method blocks.
struct Sink {
    path: PathBuf,
    file: fs::File,
    /// Before the first byte.
    fresh: Box<Check>,
    check: Box<Check>,
    written: u64,
    length: u64,
    /// See [`Fetcher::arrived`].
    arrived: Arc<AtomicU64>,
    /// See [`Fetcher::writing`].
    _writing: OwnedMutexGuard<()>,
}

impl Sink {
    /// Goes on with what is there, if it can belong to the file.
    fn open(
        path: PathBuf,
        check: Check,
        arrived: Arc<AtomicU64>,
        writing: OwnedMutexGuard<()>,
    ) -> Result<Self, Refusal> {
        let failed = |source| SyncError::File { action: "open", path: path.clone(), source };
        let mut options = fs::File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        let length = check.length();
        let (fresh, check) = (Box::new(check.clone()), Box::new(check));
        let mut sink = Self { path, file, fresh, check, written: 0, length, arrived, _writing: writing };
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = sink.file.read(&mut chunk).map_err(|source| sink.failed("read", source))?;
            if count == 0 {
                return Ok(sink);
            }
            if sink.check.update(chunk.get(..count).unwrap_or_default()).is_err() {
                return sink.restart();
            }
            sink.written += count as u64;
        }
    }

    fn restart(mut self) -> Result<Self, Refusal> {
        use std::io::Seek as _;
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(|source| self.failed("empty", source))?;
        (self.check, self.written) = (self.fresh.clone(), 0);
        Ok(self)
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        // Checked first: what is more than was signed for is not written.
        self.check.update(piece)?;
        self.file.write_all(piece).map_err(|source| self.failed("write", source))?;
        self.written += piece.len() as u64;
        self.arrived.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Moves it to its place if it is what was signed, and removes it if not.
    fn finish(self, to: &Path) -> Result<(), Refusal> {
        if let Err(error) = (*self.check).clone().finish() {
            self.discard();
            return Err(error.into());
        }
        self.file.sync_all().map_err(|source| self.failed("sync", source))?;
        fs::rename(&self.path, to).map_err(|source| self.failed("rename", source))?;
        // The name is part of what must be there after a cut.
        let folder = to.parent().unwrap_or(Path::new("."));
        let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
        Ok(synced.map_err(|source| self.failed("sync the folder of", source))?)
    }

    fn discard(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove what is not what was signed");
        }
    }

    fn failed(&self, action: &'static str, source: std::io::Error) -> SyncError {
        SyncError::File { action, path: self.path.clone(), source }
    }
}

/// Whether the file is there and is what was signed.
fn is_here(path: &Path, mut check: Check) -> bool {
    let Ok(mut file) = fs::File::open(path) else { return false };
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return check.finish().is_ok(),
            Ok(count) => {
                if check.update(chunk.get(..count).unwrap_or_default()).is_err() {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
}
