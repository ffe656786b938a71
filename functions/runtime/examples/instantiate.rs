//! How much the runtime adds to wasmtime: CPU of a fresh instance and a call, ours against a bare one, of one component.
//!
//! `cargo run --release -p holm-runtime --example instantiate -- COMPONENT.wasm HOLM.toml [EVENTS] [KEEP_RESIDENT_KIB]`
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a benchmark has nobody to report to")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holm_core::{Effects, Event, EventId, FunctionName, Manifest, Payload, Source, Timestamp};
use holm_runtime::{Engine, EngineOptions, Host, HostError, InvokeError, Profile};
use rustix::time::{ClockId, clock_gettime};
use wasmtime::component::{Component, ComponentType, Lift, Linker, Lower};
use wasmtime::{InstanceAllocationStrategy, PoolingAllocationConfig, Store};

struct NoHost;

impl Host for NoHost {
    fn get(&mut self, _: &str, _: &str) -> Result<(Option<Bytes>, u64), HostError> {
        Ok((Some(Bytes::from_static(b"41")), 1))
    }
    fn keys(&mut self, _: &str, _: Option<&str>, _: usize) -> Result<Vec<Arc<str>>, HostError> {
        Ok(Vec::new())
    }
    fn invoke(&mut self, _: &FunctionName, _: Payload, _: Effects) -> Result<Option<Payload>, InvokeError> {
        Ok(None)
    }
    fn now(&self) -> Timestamp {
        Timestamp(1)
    }
    fn new_id(&mut self) -> Arc<str> {
        Arc::from("id")
    }
}

fn event() -> Event {
    Event {
        id: EventId(Arc::from("e-1")),
        source: Source::Mqtt,
        subject: Arc::from("sensors/s1/temp"),
        content_type: None,
        data: Bytes::from_static(br#"{"id":"s1","t":23.5,"seq":12345}"#),
        time: Timestamp(1_700_000_000_000),
        time_synced: true,
        attempt: 1,
        hops: 0,
        attributes: vec![(Arc::from("qos"), Arc::from("1"))],
    }
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn measure(name: &str, events: u32, mut run: impl FnMut()) -> f64 {
    for _ in 0..events / 10 {
        run();
    }
    let mut best = f64::MAX;
    for _ in 0..5 {
        let (start, begin) = (cpu(), Instant::now());
        for _ in 0..events {
            run();
        }
        let used = (cpu() - start).as_secs_f64() * 1e6 / f64::from(events);
        let wall = begin.elapsed().as_secs_f64() * 1e6 / f64::from(events);
        best = best.min(used);
        println!("{name:30} {used:7.2} us CPU  {wall:7.2} us wall");
    }
    best
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct BareEvent<'a> {
    id: &'a str,
    source: &'a str,
    subject: &'a str,
    #[component(name = "content-type")]
    content_type: Option<&'a str>,
    data: &'a [u8],
    time: Datetime,
    #[component(name = "time-synced")]
    time_synced: bool,
    attempt: u32,
    attributes: &'a [(&'a str, &'a str)],
}

#[derive(ComponentType, Lift)]
#[component(record)]
#[allow(dead_code, reason = "only its type matters")]
struct BarePayload {
    #[component(name = "content-type")]
    content_type: Option<String>,
    data: Vec<u8>,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
#[allow(dead_code, reason = "only its type matters")]
enum BareFailure {
    #[component(name = "retry")]
    Retry((String, Option<u32>)),
    #[component(name = "reject")]
    Reject(String),
}

/// What wasmtime itself costs: the same pool, the same code, a host whose functions do nothing.
fn bare(native: &[u8], profile: Profile, options: &EngineOptions, events: u32) -> f64 {
    let mut config = profile.config().unwrap();
    let mut pool = PoolingAllocationConfig::new();
    pool.max_memory_size(64 << 20)
        .total_memories(options.slots)
        .total_component_instances(options.slots)
        .total_core_instances(options.slots * 16)
        .linear_memory_keep_resident(options.keep_resident)
        .table_keep_resident(16 << 10)
        .pagemap_scan(wasmtime::Enabled::Auto);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    let engine = wasmtime::Engine::new(&config).unwrap();
    // SAFETY: compiled a moment ago, by this process.
    #[allow(unsafe_code, reason = "a benchmark of the same call that native.rs makes")]
    let component = unsafe { Component::deserialize(&engine, native).unwrap() };
    let mut linker = Linker::<()>::new(&engine);
    linker.define_unknown_imports_as_traps(&component).unwrap();
    linker.allow_shadowing(true);
    for (import, external) in component.component_type().imports(&engine) {
        let wasmtime::component::types::ComponentItem::ComponentInstance(instance) = external.ty else { continue };
        for (name, external) in instance.exports(&engine) {
            if let (wasmtime::component::types::ComponentItem::ComponentFunc(_), "publish") = (external.ty, name) {
                let mut linked = linker.instance(import).unwrap();
                linked
                    .func_new(name, |_, _, _, results| {
                        results[0] = wasmtime::component::Val::Result(Ok(None));
                        Ok(())
                    })
                    .unwrap();
            }
        }
    }
    let pre = linker.instantiate_pre(&component).unwrap();
    let interface = component.get_export_index(None, "holm:function/handler@0.1.0").unwrap();
    let handle = component.get_export_index(Some(&interface), "handle").unwrap();
    let event = event();
    measure("bare wasmtime", events, || {
        let mut store = Store::new(&engine, ());
        store.set_epoch_deadline(1 << 40);
        let instance = pre.instantiate(&mut store).unwrap();
        let handler = instance
            .get_typed_func::<(BareEvent<'_>,), (Result<Option<BarePayload>, BareFailure>,)>(&mut store, &handle)
            .unwrap();
        let wire = BareEvent {
            id: &event.id.0,
            source: "mqtt",
            subject: &event.subject,
            content_type: None,
            data: &event.data,
            time: Datetime { seconds: 1, nanoseconds: 1 },
            time_synced: true,
            attempt: 1,
            attributes: &[("qos", "1")],
        };
        assert!(handler.call(&mut store, (wire,)).unwrap().0.is_ok());
    })
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let component = std::fs::read(&arguments[1]).unwrap();
    let manifest = Manifest::parse("holm.toml", &std::fs::read_to_string(&arguments[2]).unwrap()).unwrap();
    let events = arguments.get(3).map_or(20_000, |text| text.parse().unwrap());
    let mut options = EngineOptions::default();
    if let Some(kib) = arguments.get(4) {
        options.keep_resident = kib.parse::<usize>().unwrap() << 10;
    }
    let profile = Profile::host();
    let compiled = holm_compiler::compile(&component, profile, &holm_compiler::InputLimits::default()).unwrap();
    println!(
        "component {} bytes, native {} bytes, compiled in {:?}",
        component.len(),
        compiled.native.len(),
        compiled.elapsed
    );
    println!("resident before the engine {} KiB", resident_kib());

    let engine = Engine::new(profile, &options).unwrap();
    let ticker = engine.ticker();
    let stop = ticker.handle();
    let thread = std::thread::spawn(move || ticker.run());
    let begin = Instant::now();
    let function = engine.load(&compiled.native, &manifest, Arc::default()).unwrap();
    println!("loaded in {:?}, resident {} KiB", begin.elapsed(), resident_kib());
    let event = event();
    let run = || {
        let outcome = function.prepare().unwrap().call(&event, Box::new(NoHost));
        assert!(outcome.result.is_ok(), "{outcome:?}");
    };
    let ours = measure("prepare and call", events, run);
    let mut prepared: Vec<_> = (0..8).map(|_| function.prepare().unwrap()).collect();
    println!("resident with 8 live instances {} KiB", resident_kib());
    prepared.clear();
    println!("resident after all {} KiB", resident_kib());
    measure("prepare and drop", events, || drop(function.prepare().unwrap()));
    let theirs =
        if manifest.permissions.kv.is_empty() { bare(&compiled.native, profile, &options, events) } else { ours };
    println!("ratio {:.2}", ours / theirs);
    stop.stop();
    thread.join().unwrap();
}
