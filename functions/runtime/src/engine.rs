//! The engine: one per node, with a fixed number of slots for instances.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use holm_core::Manifest;
use wasmtime::component::{Component, Linker};
use wasmtime::{Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::activity::Activity;
use crate::capability::Grants;
use crate::function::Function;
use crate::native;
use crate::state::State;
use crate::{Profile, RuntimeError, Ticker, http, linker};

/// A function's parameters, by name, in the text form that guests read through wasi:config.
pub type ConfigValues = BTreeMap<Arc<str>, Arc<str>>;

/// Core instances of one component: Rust has three or four, what componentize-py makes has 43. A bound, and no memory.
const CORE_INSTANCES: u32 = 64;
const TABLES: u32 = 8;
const TABLE_ELEMENTS: usize = 20_000;
/// Frames of a backtrace, where somebody looks at all of them: the machinery of a panic alone is ten.
const ALL_FRAMES: usize = 64;
const KIB: usize = 1 << 10;

/// How much an engine sets aside. The defaults suit a board with 512 MiB: what is set aside is address space; memory is
/// only used by instances that live, and by what they keep resident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// The device's name, which stands for `{device}` in permissions.
    pub device: String,
    /// Instances that can live at a time, those that wait for their event included. An exhausted pool is an error, not
    /// a queue: the dispatcher keeps count.
    pub slots: u32,
    /// The most linear memory that any instance can have, in bytes: at most the profile's reservation of 64 MiB.
    pub max_memory: u64,
    /// Bytes of a slot's memory that are cleaned in place for the next instance rather than given back to the system:
    /// faster, at the price of that much resident memory per slot that was ever used.
    pub keep_resident: usize,
    /// Slots that stay attached to a component they are not running. More makes a change between many functions
    /// faster; fewer bounds resident memory.
    pub warm_slots: u32,
    /// Whether the native code says which part of the component it comes from, so that traps have places. Such code is
    /// larger, and made for it: see `holm-compile --addresses`.
    pub addresses: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            device: "device".to_owned(),
            slots: 16,
            max_memory: 64 << 20,
            keep_resident: 128 * KIB,
            warm_slots: 8,
            addresses: false,
        }
    }
}

/// Loads and runs functions. Cheap to share behind its `Function`s; one per process.
pub struct Engine {
    engine: wasmtime::Engine,
    linker: Linker<State>,
    profile: Profile,
    options: EngineOptions,
    activity: Arc<Activity>,
}

impl Engine {
    /// Sets an engine up. It fails where the machine has not the address space: ask for fewer slots then.
    pub fn new(profile: Profile, options: &EngineOptions) -> Result<Self, RuntimeError> {
        if !profile.runs_here() {
            return Err(RuntimeError::ForeignProfile { profile: profile.name() });
        }
        let failed = |error: wasmtime::Error| RuntimeError::MakeEngine {
            profile: profile.name(),
            slots: options.slots,
            memory: options.max_memory,
            detail: format!("{error:#}"),
        };
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(options.slots)
            .total_core_instances(options.slots.saturating_mul(CORE_INSTANCES))
            .max_core_instances_per_component(CORE_INSTANCES)
            .total_memories(options.slots)
            .max_memories_per_component(1)
            .total_tables(options.slots.saturating_mul(TABLES))
            .max_tables_per_component(TABLES)
            .table_elements(TABLE_ELEMENTS)
            .max_memory_size(usize::try_from(options.max_memory).unwrap_or(usize::MAX))
            .linear_memory_keep_resident(options.keep_resident)
            .table_keep_resident(options.keep_resident.min(16 * KIB))
            .max_unused_warm_slots(options.warm_slots)
            // The kernel names the pages an instance has touched, where it can (Linux 6.7): only those are cleaned.
            .pagemap_scan(Enabled::Auto);
        let mut config = profile.config()?;
        config.target(&profile.target_here()).map_err(failed)?;
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        if options.addresses {
            config.generate_address_map(true).wasm_backtrace_max_frames(std::num::NonZeroUsize::new(ALL_FRAMES));
        }
        let engine = wasmtime::Engine::new(&config).map_err(failed)?;
        let linker = linker::linker(&engine).map_err(failed)?;
        Ok(Self { engine, linker, profile, options: options.clone(), activity: Arc::default() })
    }

    /// The profile whose native code it takes.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Loads native code and links it for a manifest. Done once per deployment, not per event.
    ///
    /// The caller vouches for the bytes: this device's compiler made them, or a signature covers them. Native code is
    /// not sandboxed by being loaded here, but by having come from the compiler.
    pub fn load(
        &self,
        native: &[u8],
        manifest: &Manifest,
        config: Arc<ConfigValues>,
    ) -> Result<Function, RuntimeError> {
        let component = native::from_bytes(&self.engine, native).map_err(|error| self.wrong(&error))?;
        self.link(&component, manifest, config)
    }

    /// As [`Engine::load`], from a file that is mapped and must not change any more.
    pub fn load_file(
        &self,
        native: &Path,
        manifest: &Manifest,
        config: Arc<ConfigValues>,
    ) -> Result<Function, RuntimeError> {
        let unread = |source| RuntimeError::ReadNative { path: native.to_owned(), source };
        std::fs::metadata(native).map_err(unread)?;
        let component = native::from_file(&self.engine, native).map_err(|error| self.wrong(&error))?;
        self.link(&component, manifest, config)
    }

    /// The clock that deadlines need. Without one that runs, a guest that loops is never interrupted.
    pub fn ticker(&self) -> Ticker {
        Ticker { engine: self.engine.clone(), activity: self.activity.clone() }
    }

    fn wrong(&self, error: &wasmtime::Error) -> RuntimeError {
        let detail = format!("{error:#}");
        // Wasmtime has no type for it.
        if detail.contains("pooling allocator") {
            return RuntimeError::TooLarge { detail };
        }
        RuntimeError::WrongEngine { expected: self.profile.version(), detail }
    }

    fn link(
        &self,
        component: &Component,
        manifest: &Manifest,
        config: Arc<ConfigValues>,
    ) -> Result<Function, RuntimeError> {
        linker::check_imports(&self.engine, component)?;
        if manifest.limits.memory > self.options.max_memory {
            return Err(RuntimeError::MemoryTooLarge {
                asked: manifest.limits.memory,
                available: self.options.max_memory,
            });
        }
        let grants = Grants::new(manifest, &self.options.device)?;
        let failed = |error: wasmtime::Error| RuntimeError::Link { detail: format!("{error:#}") };
        let mut linker = self.linker.clone();
        linker::link_empty_filesystem(&mut linker, &self.engine, component).map_err(failed)?;
        http::link(&mut linker, &self.engine, component).map_err(failed)?;
        let pre = linker.instantiate_pre(component).map_err(failed)?;
        Function::new(manifest.name.clone(), pre, Arc::new(grants), config, self.activity.clone())
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("profile", &self.profile).field("options", &self.options).finish_non_exhaustive()
    }
}
