//! Deployments: which functions run, and how one version replaces another without a moment in between.
//!
//! # States
//!
//! A bundle is **staged** (verified, stored by its digest, compiled, instantiated once), **activated** (one
//! transaction of the registry, then the new bindings), watched in **trial** for the health window, then **confirmed**,
//! or **rolled back** to what was there before. A node that goes down during a trial comes up with the old version:
//! only confirmed versions survive a start.
//!
//! The registry is one JSON document in the store; bundles and native code are files named by digest, written whole and
//! renamed, so that nothing that the registry names is ever half there.

mod consent;
mod error;
mod files;
mod registry;
mod set;
mod status;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use holm_bundle::{Bundle, BundleLimits, Digest};
use holm_cloud_sync::{Refusal, Secrets};
use holm_core::{FunctionName, Manifest, Source};
use holm_protocol::AgentBuild;
use holm_runtime::{ConfigValues, Engine, RuntimeError, SecretValues, artifact_key, artifact_key_of};
use holm_store::Write;
use tokio::sync::Mutex;

pub use self::error::DeployError;
use self::files::{is_sound, is_there, write_whole};
use self::registry::{Entry, Registry};
use self::set::{DEPLOYED, is_over, is_untested};
pub use self::set::{SetFunction, SetOutcome};
pub use self::status::FunctionStatus;
use crate::clock;
use crate::config::Functions;
use crate::dispatch::{ActiveSet, Code, Counts, Dispatcher, Loaded, Slot, Tally, event_now};
use crate::triggers::schedule;

/// What a version is of.
struct Made<'a> {
    bundle: Digest,
    component: Digest,
    /// The manifest, as its author wrote it.
    text: &'a str,
}

/// The registry's key.
const ACTIVE: &str = "active";

/// Where a registry is kept that could not be read, for whoever can.
const UNREADABLE: &str = "active-unreadable";

/// How often a trial is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Faults of the guest's own making that end a trial at once.
const FAULTS: u64 = 3;

/// How a deployment ended.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Report {
    /// Which function.
    pub function: String,
    /// The version that was deployed.
    pub version: String,
    /// Its bundle.
    pub digest: String,
    /// The version that was there before.
    pub previous: Option<String>,
    /// `confirmed`, `confirmed-unexercised` (no event came in the health window) or `rolled-back`.
    pub outcome: &'static str,
    /// Why it was rolled back.
    pub reason: Option<String>,
    /// Invocations in the health window.
    pub invocations: u64,
    /// Bytes of native code.
    pub native_bytes: u64,
}

/// The one who changes what is active. Deployments run one at a time.
pub struct Deployer {
    folder: PathBuf,
    engine: Arc<Engine>,
    dispatcher: Arc<Dispatcher>,
    settings: Functions,
    secrets: Secrets,
    generation: AtomicU64,
    /// Held for the whole of a deployment.
    registry: Mutex<Registry>,
    /// What was last written: who only looks must not wait for a deployment to end.
    shown: std::sync::RwLock<Registry>,
    /// Why functions of the registry were not loaded at the start.
    left_out: std::sync::Mutex<BTreeMap<String, String>>,
}

impl Deployer {
    /// Reads the registry and activates what it names. Functions that cannot be loaded are left out and said loudly;
    /// the others run. `strikes` names functions to quarantine.
    pub async fn restore(
        folder: &Path,
        engine: Engine,
        dispatcher: Arc<Dispatcher>,
        settings: Functions,
        quarantine: &[String],
    ) -> Result<Self, DeployError> {
        for name in ["bundles", "native"] {
            let path = folder.join(name);
            std::fs::create_dir_all(&path).map_err(|source| DeployError::File {
                action: "create",
                path: path.clone(),
                source,
            })?;
        }
        let text = dispatcher.store.registry(ACTIVE).map_err(|error| DeployError::Registry(error.to_string()))?;
        let (mut registry, mut aside) = (Registry::empty(), None);
        if let Some(text) = text {
            match Registry::read(&text) {
                Ok(read) => registry = read,
                Err(error) => {
                    // A node that does not start can be helped by nobody; one without functions takes a deployment.
                    tracing::error!(%error, key = UNREADABLE, "the registry of functions cannot be read: it is set aside, and the node starts without functions");
                    aside = Some(Write::Registry { key: UNREADABLE.into(), document: Some(text) });
                }
            }
        }
        let tried = registry.on_trial();
        let mut changed = registry.end_trials() || aside.is_some();
        // What took the node down was the version that goes, and not the one that comes back. At worst that is shut away.
        tried.iter().for_each(|name| drop(crate::breadcrumb::pardon(folder, name)));
        for name in quarantine.iter().filter(|name| !tried.contains(*name)) {
            changed = true;
            tracing::error!(
                function = name,
                "quarantined: the node went down while it was running, again and again; `holm functions release` or a new version sets it free"
            );
            registry.quarantined.insert(name.clone());
        }
        let deployer = Self {
            folder: folder.to_owned(),
            engine: Arc::new(engine),
            dispatcher,
            settings,
            secrets: Secrets::of(folder),
            generation: AtomicU64::new(1),
            registry: Mutex::new(registry.clone()),
            shown: std::sync::RwLock::new(registry.clone()),
            left_out: std::sync::Mutex::default(),
        };
        if changed && let Err(error) = deployer.keep_with(&registry, aside) {
            // What was read is still there, and the next start makes the same of it.
            tracing::error!(%error, "the registry of functions could not be written at the start");
        }
        let mut slots = Vec::new();
        for (name, entry) in &registry.functions {
            match deployer.bring_up(name, entry).await {
                Ok(slot) => {
                    slot.quarantined.store(registry.quarantined.contains(name), Ordering::Relaxed);
                    slots.push(slot);
                }
                Err(error) => {
                    let error = chain(&error);
                    tracing::error!(
                        function = name,
                        error,
                        "a function could not be started; its durable events wait in the inbox"
                    );
                    deployer.left_out.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), error);
                }
            }
        }
        deployer.dispatcher.activate(Arc::new(ActiveSet::new(slots)));
        Ok(deployer)
    }

    async fn bring_up(&self, name: &str, entry: &Entry) -> Result<Arc<Slot>, DeployError> {
        let function = FunctionName::new(name).map_err(|error| DeployError::Registry(error.to_string()))?;
        let native = self.native_path(&entry.component);
        let manifest = Manifest::parse("holm.toml", &entry.manifest).ok().filter(|_| is_there(&native));
        let loaded = match manifest {
            Some(manifest) => {
                let made = Made { bundle: entry.digest, component: entry.component, text: &entry.manifest };
                self.ready(manifest, &made, &native, &entry.config, &entry.secrets)?
            }
            None => self.load(&self.bundle_of(name, entry)?, &native, &entry.config, &entry.secrets).await?,
        };
        Ok(Arc::new(Slot::new(function, Some(loaded))))
    }

    fn bundle_of(&self, name: &str, entry: &Entry) -> Result<Bundle, DeployError> {
        let path = self.bundle_path(&entry.digest);
        let bytes = std::fs::read(&path).map_err(|source| DeployError::File { action: "read", path, source })?;
        let bundle = Bundle::open(&bytes, &BundleLimits::default()).map_err(DeployError::Bundle)?;
        if bundle.digest != entry.digest {
            return Err(DeployError::Registry(format!("the bundle of {name} has been altered")));
        }
        Ok(bundle)
    }

    /// Compiles again what is not what the compiler wrote, of the functions that are active. Runs beside the node, which
    /// is ready long before all native code is read: until then, such a function's durable events wait.
    pub async fn check(&self) {
        let entries = self.registry.lock().await.functions.clone();
        for (name, entry) in entries {
            let native = self.native_path(&entry.component);
            let path = native.clone();
            if tokio::task::spawn_blocking(move || is_sound(&path)).await.unwrap_or(true) {
                continue;
            }
            let made = match self.bundle_of(&name, &entry) {
                Ok(bundle) => self.compile(&bundle, &native).await,
                Err(error) => Err(error),
            };
            if let Err(error) = made {
                let error = chain(&error);
                tracing::error!(function = name, error, "a function cannot run; its durable events wait in the inbox");
            }
        }
    }

    /// Deploys a bundle and watches it. Cancel safe up to the activation; a trial that is left alone is confirmed or
    /// rolled back at the next start, so the admin socket runs this in a task of its own.
    pub async fn deploy(&self, bytes: &[u8]) -> Result<Report, DeployError> {
        if !self.settings.allow_unsigned {
            return Err(DeployError::Unsigned);
        }
        let mut registry = self.registry.lock().await;
        // Stage.
        let bundle = Bundle::open(bytes, &BundleLimits::default()).map_err(DeployError::Bundle)?;
        let name = bundle.manifest.name.clone();
        let limits = &bundle.manifest.limits;
        let wants = limits.memory.saturating_mul(u64::from(limits.concurrency));
        if wants > self.settings.memory {
            return Err(DeployError::TooMuch(format!(
                "{name} may need {wants} bytes of memory (limits.memory x limits.concurrency), the node has {} for all functions (functions.memory)",
                self.settings.memory
            )));
        }
        let native = self.native_path(&bundle.component_digest);
        let loaded = self.load(&bundle, &native, &BTreeMap::new(), &BTreeMap::new()).await?;
        self_test(&loaded)?;
        write_whole(&self.bundle_path(&bundle.digest), bytes)?;
        let native_bytes = std::fs::metadata(&native).map_or(0, |meta| meta.len());
        // Activate: the registry first, so that a crash from here on knows that this was a trial.
        // What a start would bring up is what runs, also if the end of the last trial could not be written.
        let before = registry.functions.get(name.as_str()).cloned().and_then(Entry::settled);
        let oldest = before.as_ref().and_then(|entry| entry.previous.as_deref().cloned());
        let entry = Entry {
            version: bundle.manifest.version.to_string(),
            digest: bundle.digest,
            component: bundle.component_digest,
            deployed: clock::now().0,
            manifest: bundle.manifest_text.clone(),
            config: BTreeMap::new(),
            secrets: BTreeMap::new(),
            trial: true,
            exercised: false,
            // One step back is kept.
            previous: before.map(|entry| Box::new(Entry { previous: None, ..entry })),
        };
        let previous_version = entry.previous.as_ref().map(|previous| previous.version.clone());
        let mut next = registry.clone();
        next.quarantined.remove(name.as_str());
        next.functions.insert(name.to_string(), entry);
        self.keep(&next)?;
        *registry = next;
        let active = self.dispatcher.active();
        let old = active.slots.get(&name).and_then(|slot| slot.loaded());
        let slot = self.activate(&active, &name, Some(loaded.clone()));
        // Trial.
        let verdict = self.watch(&slot, &loaded).await;
        let mut report = Report {
            function: name.to_string(),
            version: bundle.manifest.version.to_string(),
            digest: bundle.digest.to_string(),
            previous: previous_version,
            outcome: "confirmed",
            reason: None,
            invocations: verdict.invocations,
            native_bytes,
        };
        let outcome = match verdict.fault {
            None => {
                let mut next = registry.clone();
                if let Some(entry) = next.functions.get_mut(name.as_str()) {
                    entry.trial = false;
                    entry.exercised = verdict.invocations > 0;
                }
                if verdict.invocations == 0 {
                    report.outcome = "confirmed-unexercised";
                }
                match self.keep(&next) {
                    Ok(()) => {
                        *registry = next;
                        self.forget(&registry, oldest.as_slice());
                        return Ok(report);
                    }
                    // A start would take it back, so it is taken back now: what runs is what the registry says.
                    Err(error) => Err(error),
                }
            }
            Some(reason) => {
                report.outcome = "rolled-back";
                tracing::error!(function = %name, version = report.version, reason, "the new version failed its trial and was rolled back");
                report.reason = Some(reason);
                Ok(report)
            }
        };
        // Memory first: if the registry cannot be written, a start rolls back the trial all the same.
        let failed = registry.functions.get(name.as_str()).cloned().map(|entry| Entry { previous: None, ..entry });
        registry.take_back(name.as_str());
        let removed = old.is_none();
        let slot = self.activate(&self.dispatcher.active(), &name, old);
        if removed {
            self.dispatcher.abandon(&slot);
        }
        if let Err(error) = self.keep(&registry) {
            tracing::error!(%error, function = %name, "the end of a trial could not be written; the next start ends it");
            self.show(&registry);
        } else {
            self.forget(&registry, failed.as_slice());
        }
        outcome
    }

    /// Goes back to the version before.
    pub async fn rollback(&self, name: &FunctionName) -> Result<String, DeployError> {
        let mut registry = self.registry.lock().await;
        let entry = registry.functions.get(name.as_str()).cloned();
        let previous = entry
            .as_ref()
            .and_then(|entry| entry.previous.clone())
            .ok_or_else(|| DeployError::NotFound(format!("there is no version of {name} to go back to")))?;
        let bytes = self.bundle_path(&previous.digest);
        let bytes =
            std::fs::read(&bytes).map_err(|source| DeployError::File { action: "read", path: bytes, source })?;
        let bundle = Bundle::open(&bytes, &BundleLimits::default()).map_err(DeployError::Bundle)?;
        let native = self.native_path(&previous.component);
        let loaded = self.load(&bundle, &native, &previous.config, &previous.secrets).await?;
        self_test(&loaded)?;
        let version = previous.version.clone();
        let mut next = registry.clone();
        let left = entry.map(|entry| Box::new(Entry { previous: None, trial: false, ..entry }));
        next.functions.insert(name.to_string(), Entry { previous: left, ..*previous });
        self.keep(&next)?;
        *registry = next;
        self.activate(&self.dispatcher.active(), name, Some(loaded));
        Ok(version)
    }

    /// Takes a function away. Its state, and its events in the inbox, stay.
    pub async fn remove(&self, name: &FunctionName) -> Result<(), DeployError> {
        let mut registry = self.registry.lock().await;
        let mut next = registry.clone();
        let Some(gone) = next.functions.remove(name.as_str()) else {
            return Err(DeployError::NotFound(format!("there is no function `{name}`")));
        };
        next.quarantined.remove(name.as_str());
        self.keep(&next)?;
        *registry = next;
        let slot = self.activate(&self.dispatcher.active(), name, None);
        self.dispatcher.abandon(&slot);
        self.forget(&registry, &[gone]);
        Ok(())
    }

    /// Lets a quarantined function run again.
    pub async fn release(&self, name: &FunctionName) -> Result<(), DeployError> {
        let mut registry = self.registry.lock().await;
        let mut next = registry.clone();
        if !next.quarantined.remove(name.as_str()) {
            return Err(DeployError::NotFound(format!("`{name}` is not quarantined")));
        }
        // First, so that one more unclean exit does not quarantine it again at once.
        crate::breadcrumb::pardon(&self.folder, name.as_str()).map_err(|source| DeployError::File {
            action: "clear the record of unclean exits in",
            path: self.folder.clone(),
            source,
        })?;
        self.keep(&next)?;
        *registry = next;
        let active = self.dispatcher.active();
        if let Some(slot) = active.slots.get(name) {
            slot.quarantined.store(false, Ordering::Relaxed);
        }
        // The same set again: it makes the feeder look at the inbox.
        self.dispatcher.activate(active);
        Ok(())
    }

    /// Swaps a version in and rebuilds the bindings. Jobs that wait stay with the slot.
    fn activate(&self, active: &ActiveSet, name: &FunctionName, loaded: Option<Arc<Loaded>>) -> Arc<Slot> {
        let slot = active.slots.get(name).cloned().unwrap_or_else(|| Arc::new(Slot::new(name.clone(), None)));
        let there = loaded.is_some();
        slot.load(loaded);
        slot.quarantined.store(false, Ordering::Relaxed);
        let others = active.slots.iter().filter(|(other, _)| *other != name).map(|(_, slot)| slot.clone());
        let all: Vec<Arc<Slot>> = others.chain(there.then(|| slot.clone())).collect();
        self.dispatcher.activate(Arc::new(ActiveSet::new(all)));
        if there && !active.slots.contains_key(name) {
            self.dispatcher.give_retained(&slot);
        }
        if there {
            crate::triggers::lifecycle(&self.dispatcher, DEPLOYED, Some(name));
        }
        slot
    }

    async fn watch(&self, slot: &Slot, loaded: &Loaded) -> Watched {
        let deadline = tokio::time::Instant::now() + self.settings.health_window;
        loop {
            let counts = loaded.tally.read();
            let over = is_over(deadline, is_untested(loaded, counts));
            let fault = unfit(slot, counts, over);
            if over || fault.is_some() {
                return Watched { invocations: counts.invocations(), fault };
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Makes native code ready to be mapped. It is compiled first where there is none, or not what the compiler wrote:
    /// another release of the engine is the usual cause, and a card that forgets is another.
    async fn load(
        &self,
        bundle: &Bundle,
        native: &Path,
        config: &BTreeMap<String, String>,
        secrets: &BTreeMap<String, String>,
    ) -> Result<Arc<Loaded>, DeployError> {
        // Not asked at a start: what ran before still does.
        let problems = schedule::problems(&bundle.manifest);
        if !problems.is_empty() {
            return Err(DeployError::Manifest(format!("{}: {}", bundle.manifest.name, problems.join("; "))));
        }
        // Nor this: a node runs without its sensors, and says so.
        let missing = self.dispatcher.controls.missing(&bundle.manifest);
        if !missing.is_empty() {
            return Err(DeployError::Missing { function: bundle.manifest.name.clone(), missing });
        }
        let made = Made { bundle: bundle.digest, component: bundle.component_digest, text: &bundle.manifest_text };
        let loaded = self.ready(bundle.manifest.clone(), &made, native, config, secrets)?;
        if !is_sound(native) {
            self.compile(bundle, native).await?;
        }
        Ok(loaded)
    }

    /// A version whose native code is looked at, and mapped, when it is first needed.
    fn ready(
        &self,
        manifest: Manifest,
        made: &Made<'_>,
        native: &Path,
        config: &BTreeMap<String, String>,
        secrets: &BTreeMap<String, String>,
    ) -> Result<Arc<Loaded>, DeployError> {
        let limits = &manifest.limits;
        if limits.memory > self.settings.memory {
            // It would wait for its memory for ever. The node's budget may have been lowered since it was deployed.
            return Err(DeployError::TooMuch(format!(
                "{} needs {} bytes of memory (limits.memory), the node has {} for all functions (functions.memory)",
                manifest.name, limits.memory, self.settings.memory
            )));
        }
        let others = u32::try_from(self.settings.workers).unwrap_or(u32::MAX).saturating_sub(1).max(1);
        let workers = limits.concurrency.min(others);
        let value =
            |name: &str, default: &Arc<str>| config.get(name).map_or_else(|| default.clone(), |own| Arc::from(&**own));
        let values = manifest.config.iter().map(|(name, parameter)| (name.clone(), value(name, &parameter.default)));
        let config: Arc<ConfigValues> = Arc::new(values.collect());
        let open =
            |(name, sealed): (&String, &String)| Ok((Arc::from(name.as_str()), self.secrets.open(name, sealed)?));
        let secrets = secrets.iter().map(open).collect::<Result<Vec<_>, Refusal>>().map_err(DeployError::Secret)?;
        let secrets = Arc::new(SecretValues::new(secrets));
        let (engine, path, granted, given) = (self.engine.clone(), native.to_owned(), manifest.clone(), config.clone());
        let code = Code::new(move || {
            if is_sound(&path) {
                engine.load_file(&path, &granted, given.clone()).map(|code| code.with_secrets(secrets.clone()))
            } else {
                let source = std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not what the compiler wrote");
                Err(RuntimeError::ReadNative { path: path.clone(), source })
            }
        });
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        let Made { bundle: digest, component, text } = *made;
        let text = Arc::from(text);
        let tally = Tally::default();
        Ok(Arc::new(Loaded { manifest, code, digest, component, text, config, workers, generation, tally }))
    }

    /// Compiles in a process of its own, with its own memory limit.
    async fn compile(&self, bundle: &Bundle, native: &Path) -> Result<(), DeployError> {
        let input = native.with_extension("wasm");
        write_whole(&input, &bundle.component)?;
        let output = tokio::process::Command::new(&self.settings.compiler)
            .arg("--profile")
            .arg(self.engine.profile().name())
            .arg("--max-memory-mib")
            .arg((self.settings.compiler_memory >> 20).to_string())
            .arg(&input)
            .arg(native)
            .kill_on_drop(true)
            .output()
            .await;
        let _ = std::fs::remove_file(&input);
        match output {
            Ok(output) if output.status.success() => {
                let bytes = std::fs::read(native).map_err(|source| DeployError::File {
                    action: "read",
                    path: native.to_owned(),
                    source,
                })?;
                write_whole(&native.with_extension("sha256"), Digest::of(&bytes).to_string().as_bytes())
            }
            Ok(output) => {
                let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                Err(DeployError::Compile(if words.is_empty() { output.status.to_string() } else { words }))
            }
            Err(source) => {
                Err(DeployError::File { action: "run the compiler", path: self.settings.compiler.clone(), source })
            }
        }
    }

    fn keep(&self, registry: &Registry) -> Result<(), DeployError> {
        self.keep_with(registry, None)
    }

    /// Writes the registry, and `more` in the same transaction.
    fn keep_with(&self, registry: &Registry, more: Option<Write>) -> Result<(), DeployError> {
        let document = serde_json::to_string(registry).map_err(|error| DeployError::Registry(error.to_string()))?;
        let registered = Write::Registry { key: ACTIVE.into(), document: Some(document) };
        let store = &self.dispatcher.store;
        let written = store.commit(more.into_iter().chain([registered]).collect());
        written.map_err(|error| DeployError::Registry(error.to_string()))?;
        self.show(registry);
        Ok(())
    }

    fn show(&self, registry: &Registry) {
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = registry.clone();
    }

    fn bundle_path(&self, digest: &Digest) -> PathBuf {
        self.folder.join("bundles").join(format!("{digest}.holm"))
    }

    fn native_path_of(&self, component: &Digest, agent: &AgentBuild) -> PathBuf {
        let key = artifact_key_of(component.as_bytes(), &agent.engine, &agent.profile);
        self.folder.join("native").join(format!("{key}.cwasm"))
    }

    fn native_path(&self, component: &Digest) -> PathBuf {
        let key = artifact_key(component.as_bytes(), &self.engine.profile());
        self.folder.join("native").join(format!("{key}.cwasm"))
    }
}

/// An instance can be made. At a start this is not asked again: the native code is the same.
fn self_test(loaded: &Loaded) -> Result<(), DeployError> {
    loaded.prepare().map(drop).map_err(DeployError::Load)
}

/// Why a version may not stay, going by what it has done; `over` says that it has had its time.
fn unfit(slot: &Slot, counts: Counts, over: bool) -> Option<String> {
    let bad = counts.faulted;
    (bad >= FAULTS || (over && bad > 0 && counts.succeeded == 0)).then(|| {
        let words = slot.stats.last_fault().unwrap_or_default();
        format!("{bad} of {} invocations faulted, the last: {words}", counts.invocations())
    })
}

struct Watched {
    invocations: u64,
    fault: Option<String>,
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A lifecycle event for a function.
pub(crate) fn lifecycle_event(dispatcher: &Dispatcher, what: &str) -> holm_core::Event {
    event_now(dispatcher.new_id(), Source::Lifecycle, what.into())
}
