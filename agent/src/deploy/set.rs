//! The whole set of functions at once, as a desired state asks for it: exactly the old or the new set runs, whatever happens.
//!
//! # How it works
//!
//! [`Deployer::examine`] looks at bundles that are here, [`Deployer::stage`] compiles what has to be and makes an instance of each
//! new version once, and [`Deployer::try_set`] activates all of it, watches it, and confirms it or goes back. The registry is written
//! before anything is swapped, with all that ran before inside ([`Before`]): a start that finds it goes back to that.
//!
//! # How it fails
//!
//! Before the registry is written, nothing has happened. After it, there are two ends only: the registry without what ran before, or
//! what ran before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holm_bundle::{Bundle, BundleLimits, Digest};
use holm_core::{FunctionName, TriggerKind};
use holm_protocol::AgentBuild;

use super::registry::{Before, Entry, Registry};
use super::{DeployError, Deployer, FAULTS, LOOK, files, self_test, unfit};
use crate::clock;
use crate::dispatch::{ActiveSet, Counts, Loaded, Slot};

/// What a version is told when it has become active.
pub(super) const DEPLOYED: &str = "deployed";

/// For its first answer, beyond the health window, where it is told that.
const SELF_TEST: Duration = Duration::from_secs(10);

/// A function of a set. Its bundle has to be where [`Deployer::bundle_path`] says.
#[derive(Debug, Clone)]
pub struct SetFunction {
    /// Its name.
    pub name: FunctionName,
    /// Its version, which the manifest has to say too.
    pub version: String,
    /// Its bundle.
    pub bundle: Digest,
    /// What differs from the manifest's defaults.
    pub config: BTreeMap<String, String>,
    /// Secrets by name, sealed to this device.
    pub secrets: BTreeMap<String, String>,
}

/// How a set did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetOutcome {
    /// It runs, and stays.
    Confirmed,
    /// What ran before runs again, and why.
    RolledBack(String),
    /// What ran before runs again, because the caller wanted that.
    Stopped,
}

/// A function whose version changes.
struct Change {
    slot: Arc<Slot>,
    loaded: Arc<Loaded>,
    old: Option<Arc<Loaded>>,
    was_quarantined: bool,
}

impl Deployer {
    /// The generation of the desired state that was confirmed last; 0 if none ever was.
    pub fn generation(&self) -> u64 {
        let shown = self.shown.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        shown.before.as_ref().map_or(shown.generation, |before| before.generation)
    }

    /// Looks at bundles: whether they are what they should be and fit this node. Tells the component of each, and whether there is
    /// native code for it that this agent loads, which need not be the one that runs. Blocks on the disk.
    pub fn examine(&self, set: &[SetFunction], agent: &AgentBuild) -> Result<Vec<(Digest, bool)>, DeployError> {
        let examined = |function: &SetFunction| {
            let bundle = self.open_for(function)?;
            let native = self.native_path_of(&bundle.component_digest, agent);
            Ok((bundle.component_digest, files::is_there(&native) && files::is_sound(&native)))
        };
        set.iter().map(examined).collect()
    }

    /// Whether components can be compiled here.
    pub fn has_compiler(&self) -> bool {
        self.settings.compiler.is_file()
    }

    /// Takes native code for an agent, that somebody vouched for. The file is moved. Blocks on the disk.
    pub fn adopt_native(&self, component: &Digest, agent: &AgentBuild, file: &Path) -> Result<(), DeployError> {
        let native = self.native_path_of(component, agent);
        let failed = |action| {
            let path = native.clone();
            move |source| DeployError::File { action, path, source }
        };
        let bytes = std::fs::read(file).map_err(failed("read what becomes"))?;
        std::fs::rename(file, &native).map_err(failed("rename what becomes"))?;
        // The note last: without it, or with another, the code is none.
        files::write_whole(&native.with_extension("sha256"), Digest::of(&bytes).to_string().as_bytes())
    }

    /// Where the native code of a component is kept, in the name that the engine knows it by.
    pub fn bundle_file(&self, digest: &Digest) -> PathBuf {
        self.bundle_path(digest)
    }

    /// Compiles what has to be, and makes an instance of each version that does not run yet, beside what runs.
    pub async fn stage(&self, set: &[SetFunction]) -> Result<(), DeployError> {
        let registry = self.registry.lock().await;
        for function in set.iter().filter(|function| !self.is_active(&registry, function)) {
            let bundle = self.open_for(function)?;
            self_test(&*self.load_set(function, &bundle).await?)?;
        }
        Ok(())
    }

    /// Activates a set, watches what is new in it (or `all`, for a new agent), and confirms it or goes back. `stop` ends the watching, and goes back. The future
    /// must be driven to its end; a node that goes down meanwhile starts with what ran before.
    pub async fn try_set(
        &self,
        generation: u64,
        set: &[SetFunction],
        window: Duration,
        all: bool,
        stop: &AtomicBool,
    ) -> Result<SetOutcome, DeployError> {
        let mut registry = self.registry.lock().await;
        let active = self.dispatcher.active();
        let (mut next, changes) = self.prepare(&registry, &active, set).await?;
        next.generation = generation;
        next.before = Some(Box::new(Before {
            functions: registry.functions.clone().into_iter().filter_map(settled).collect(),
            quarantined: registry.quarantined.clone(),
            generation: registry.generation,
        }));
        // The registry first, so that a crash from here on knows that this was a trial.
        self.keep(&next)?;
        *registry = next;
        let removed = self.swap_in(&active, set, &changes);
        let others = match all {
            true => self.dispatcher.active().slots.values().cloned().collect(),
            false => Vec::new(),
        };
        let outcome = self.watch_all(&changes, &others, window, stop).await;
        let failed = match outcome {
            SetOutcome::Confirmed => {
                let mut next = registry.clone();
                next.before = None;
                for change in &changes {
                    if let Some(entry) = next.functions.get_mut(change.slot.name.as_str()) {
                        (entry.trial, entry.exercised) = (false, change.loaded.tally.read().invocations() > 0);
                    }
                }
                match self.keep(&next) {
                    Ok(()) => {
                        *registry = next;
                        for slot in &removed {
                            slot.load(None);
                        }
                        self.tidy(&registry);
                        return Ok(outcome);
                    }
                    // A start would take it back, so it is taken back now: what runs is what the registry says.
                    Err(error) => Err(error),
                }
            }
            outcome => Ok(outcome),
        };
        self.swap_back(active, &changes);
        // Memory first: if the registry cannot be written, a start goes back all the same.
        registry.end_trials();
        if let Err(error) = self.keep(&registry) {
            tracing::error!(%error, generation, "the end of a trial could not be written; the next start ends it");
            self.show(&registry);
        }
        failed
    }

    /// All that shall be in the registry, and what has to be swapped in: everything is loaded before any of it runs.
    async fn prepare(
        &self,
        registry: &Registry,
        active: &ActiveSet,
        set: &[SetFunction],
    ) -> Result<(Registry, Vec<Change>), DeployError> {
        let (mut next, mut changes) = (registry.clone(), Vec::new());
        let names: BTreeSet<&str> = set.iter().map(|function| function.name.as_str()).collect();
        next.functions.retain(|name, _| names.contains(name.as_str()));
        next.quarantined.retain(|name| names.contains(name.as_str()));
        for function in set.iter().filter(|function| !self.is_active(registry, function)) {
            let bundle = self.open_for(function)?;
            let loaded = self.load_set(function, &bundle).await?;
            self_test(&loaded)?;
            let before = registry.functions.get(function.name.as_str()).cloned().and_then(Entry::settled);
            let entry = Entry {
                version: function.version.clone(),
                digest: bundle.digest,
                component: bundle.component_digest,
                deployed: clock::now().0,
                manifest: bundle.manifest_text.clone(),
                config: function.config.clone(),
                secrets: function.secrets.clone(),
                trial: true,
                exercised: false,
                // One step back is kept.
                previous: before.map(|entry| Box::new(Entry { previous: None, ..entry })),
            };
            next.quarantined.remove(function.name.as_str());
            next.functions.insert(function.name.to_string(), entry);
            let slot = active.slots.get(&function.name).cloned();
            let slot = slot.unwrap_or_else(|| Arc::new(Slot::new(function.name.clone(), None)));
            let (old, was_quarantined) = (slot.loaded(), slot.quarantined.load(Ordering::Relaxed));
            changes.push(Change { slot, loaded, old, was_quarantined });
        }
        Ok((next, changes))
    }

    /// Returns the slots of functions that are gone.
    fn swap_in(&self, active: &ActiveSet, set: &[SetFunction], changes: &[Change]) -> Vec<Arc<Slot>> {
        for change in changes {
            change.slot.load(Some(change.loaded.clone()));
            change.slot.quarantined.store(false, Ordering::Relaxed);
        }
        let kept = |name: &FunctionName| set.iter().any(|function| function.name == *name);
        let (stay, removed): (Vec<_>, Vec<_>) =
            active.slots.values().cloned().partition(|slot: &Arc<Slot>| kept(&slot.name));
        let added = changes.iter().filter(|change| !active.slots.contains_key(&change.slot.name));
        let all: Vec<Arc<Slot>> = stay.into_iter().chain(added.map(|change| change.slot.clone())).collect();
        self.dispatcher.activate(Arc::new(ActiveSet::new(all)));
        for slot in &removed {
            self.dispatcher.abandon(slot);
        }
        for change in changes {
            if !active.slots.contains_key(&change.slot.name) {
                self.dispatcher.give_retained(&change.slot);
            }
            crate::triggers::lifecycle(&self.dispatcher, DEPLOYED, Some(&change.slot.name));
        }
        removed
    }

    fn swap_back(&self, active: Arc<ActiveSet>, changes: &[Change]) {
        for change in changes {
            change.slot.load(change.old.clone());
            change.slot.quarantined.store(change.was_quarantined, Ordering::Relaxed);
        }
        // Its bindings are those of the old versions, and so are its slots.
        self.dispatcher.activate(active.clone());
        for change in changes.iter().filter(|change| !active.slots.contains_key(&change.slot.name)) {
            self.dispatcher.abandon(&change.slot);
        }
    }

    /// Each function that is new is held to what a single one is held to. One of the `others` may fault as it did before, but not each
    /// time. Nothing new is nothing to watch.
    async fn watch_all(
        &self,
        changes: &[Change],
        others: &[Arc<Slot>],
        window: Duration,
        stop: &AtomicBool,
    ) -> SetOutcome {
        if changes.is_empty() && others.is_empty() {
            return SetOutcome::Confirmed;
        }
        let deadline = tokio::time::Instant::now() + window;
        loop {
            let counts: Vec<Counts> = changes.iter().map(|change| change.loaded.tally.read()).collect();
            let untested = changes.iter().zip(&counts).any(|(change, counts)| is_untested(&change.loaded, *counts));
            let over = is_over(deadline, untested);
            for (change, counts) in changes.iter().zip(counts) {
                if let Some(words) = unfit(&change.slot, counts, over) {
                    let name = &change.slot.name;
                    let reason = format!("{name}: {words}");
                    tracing::error!(function = %name, reason, "a new set of functions failed its trial and was rolled back");
                    return SetOutcome::RolledBack(reason);
                }
            }
            for slot in others {
                let counts = slot.loaded().map(|loaded| loaded.tally.read()).unwrap_or_default();
                let bad = counts.faulted;
                if bad >= FAULTS && bad == counts.invocations() {
                    let words = slot.stats.last_fault().unwrap_or_default();
                    let reason = format!(
                        "with the new agent, all {bad} invocations of {} faulted, the last: {words}",
                        slot.name
                    );
                    tracing::error!(function = %slot.name, reason, "a new agent failed its trial");
                    return SetOutcome::RolledBack(reason);
                }
            }
            if over {
                return SetOutcome::Confirmed;
            }
            if stop.load(Ordering::Relaxed) {
                return SetOutcome::Stopped;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether it runs already, as it shall.
    fn is_active(&self, registry: &Registry, function: &SetFunction) -> bool {
        let name = function.name.as_str();
        let same = registry.functions.get(name).is_some_and(|entry| {
            let set = entry.config == function.config && entry.secrets == function.secrets;
            !entry.trial && entry.digest == function.bundle && set
        });
        let slot = self.dispatcher.active().slots.get(&function.name).cloned();
        same && !registry.quarantined.contains(name) && slot.is_some_and(|slot| slot.loaded().is_some())
    }

    /// Opens a function's bundle, and says all that is wrong with it for this node.
    fn open_for(&self, function: &SetFunction) -> Result<Bundle, DeployError> {
        let path = self.bundle_path(&function.bundle);
        let bytes = std::fs::read(&path).map_err(|source| DeployError::File { action: "read", path, source })?;
        let bundle = Bundle::open(&bytes, &BundleLimits::default()).map_err(DeployError::Bundle)?;
        let manifest = &bundle.manifest;
        if bundle.digest != function.bundle
            || manifest.name != function.name
            || manifest.version.to_string() != function.version
        {
            let (name, version) = (&manifest.name, &manifest.version);
            let wanted = format!("{} {}", function.name, function.version);
            return Err(DeployError::Mismatch(format!("the bundle holds {name} {version}, and {wanted} is wanted")));
        }
        let limits = &manifest.limits;
        let wants = limits.memory.saturating_mul(u64::from(limits.concurrency));
        if wants > self.settings.memory {
            return Err(DeployError::TooMuch(format!(
                "{} may need {wants} bytes of memory (limits.memory x limits.concurrency), the node has {} for all functions (functions.memory)",
                function.name, self.settings.memory
            )));
        }
        let mut problems = Vec::new();
        for (name, value) in &function.config {
            match manifest.config.iter().find(|(known, _)| **known == **name) {
                Some((_, parameter)) => {
                    problems.extend(parameter.check(value).err().map(|problem| format!("{name}: {problem}")));
                }
                None => problems.push(format!("{name}: the manifest has no such parameter")),
            }
        }
        if !problems.is_empty() {
            return Err(DeployError::Config(format!("{}: {}", function.name, problems.join("; "))));
        }
        Ok(bundle)
    }

    async fn load_set(&self, function: &SetFunction, bundle: &Bundle) -> Result<Arc<Loaded>, DeployError> {
        self.load(bundle, &self.native_path(&bundle.component_digest), &function.config, &function.secrets).await
    }

    /// Removes bundles and native code that nothing names any more.
    fn tidy(&self, registry: &Registry) {
        let named = self.names(registry.functions.values());
        self.discard(|name| !named.contains(name));
    }

    /// Removes the files of versions that are gone, unless something else is made of them. Not all that nothing names: the
    /// next set may be on its way in.
    pub(super) fn forget(&self, registry: &Registry, gone: &[Entry]) {
        let named = self.names(registry.functions.values());
        let gone = self.names(gone);
        self.discard(|name| gone.contains(name) && !named.contains(name));
    }

    /// What the files of these versions are called, without their endings.
    fn names<'a>(&self, entries: impl IntoIterator<Item = &'a Entry>) -> BTreeSet<String> {
        let entries = entries.into_iter().flat_map(|entry| [Some(entry), entry.previous.as_deref()]).flatten();
        let paths = entries.flat_map(|entry| [self.bundle_path(&entry.digest), self.native_path(&entry.component)]);
        paths.filter_map(|path| stem(&path)).collect()
    }

    /// Removes what is called so. What cannot be removed now may be later.
    fn discard(&self, which: impl Fn(&str) -> bool) {
        for folder in ["bundles", "native"] {
            let Ok(listed) = std::fs::read_dir(self.folder.join(folder)) else { continue };
            for path in listed.flatten().map(|file| file.path()) {
                if stem(&path).is_some_and(|name| which(&name))
                    && let Err(error) = std::fs::remove_file(&path)
                {
                    tracing::debug!(%error, path = %path.display(), "cannot remove what nothing needs any more");
                }
            }
        }
    }
}

/// Whether a version has been watched for long enough. One that tests itself is waited for a little longer, if it has not come to that.
pub(super) fn is_over(deadline: tokio::time::Instant, untested: bool) -> bool {
    let patience = if untested { SELF_TEST } else { Duration::ZERO };
    tokio::time::Instant::now() >= deadline + patience
}

/// Whether it is told that it has become active, which it may take to test itself, and has not answered anything yet.
pub(super) fn is_untested(loaded: &Loaded, counts: Counts) -> bool {
    let told = |kind: &TriggerKind| match kind {
        TriggerKind::Lifecycle { on } => on.iter().any(|what| &**what == DEPLOYED),
        _ => false,
    };
    counts.invocations() == 0 && loaded.manifest.triggers.iter().any(|trigger| told(&trigger.kind))
}

fn stem(path: &Path) -> Option<String> {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned())
}

/// What a start would bring up.
fn settled((name, entry): (String, Entry)) -> Option<(String, Entry)> {
    entry.settled().map(|entry| (name, entry))
}
