//! A node in memory, and components to run on it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};

use bytes::Bytes;
use holm_compiler::{InputLimits, compile};
use holm_core::{Effects, Event, EventId, Fault, FunctionName, Manifest, Outcome, Payload, Source, Timestamp};
use holm_runtime::{ConfigValues, Engine, EngineOptions, Function, Hardware, Host, HostError, InvokeError, Profile};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve};

/// Values by namespace and key, each with its version.
type Keys = BTreeMap<(String, String), (Bytes, u64)>;

/// What a function may ask, from memory.
#[derive(Clone, Default)]
pub struct TestNode {
    pub keys: Arc<Mutex<Keys>>,
    pub asked: Arc<Mutex<Vec<String>>>,
    pub board: Option<crate::board::TestBoard>,
}

impl TestNode {
    pub fn with_key(self, namespace: &str, key: &str, value: &str, version: u64) -> Self {
        let place = (namespace.to_owned(), key.to_owned());
        self.keys.lock().unwrap().insert(place, (Bytes::from(value.to_owned()), version));
        self
    }
}

impl Host for TestNode {
    fn get(&mut self, namespace: &str, key: &str) -> Result<(Option<Bytes>, u64), HostError> {
        self.asked.lock().unwrap().push(format!("get {namespace} {key}"));
        let keys = self.keys.lock().unwrap();
        Ok(match keys.get(&(namespace.to_owned(), key.to_owned())) {
            Some((value, version)) => (Some(value.clone()), *version),
            None => (None, 0),
        })
    }

    fn keys(&mut self, namespace: &str, after: Option<&str>, limit: usize) -> Result<Vec<Arc<str>>, HostError> {
        let keys = self.keys.lock().unwrap();
        let own =
            keys.keys().filter(|(place, key)| place == namespace && after.is_none_or(|after| key.as_str() > after));
        Ok(own.map(|(_, key)| Arc::from(key.as_str())).take(limit).collect())
    }

    fn invoke(
        &mut self,
        function: &FunctionName,
        input: Payload,
        before: Effects,
    ) -> Result<Option<Payload>, InvokeError> {
        let mut keys = self.keys.lock().unwrap();
        for write in before.writes {
            let place = (write.namespace.to_string(), write.key.to_string());
            match write.value {
                Some(value) => keys.insert(place, (value, u64::MAX)),
                None => keys.remove(&place),
            };
        }
        let answer = format!("{function} got {}", String::from_utf8_lossy(&input.data));
        Ok(Some(Payload { content_type: None, data: Bytes::from(answer) }))
    }

    fn hardware(&mut self) -> Option<&mut dyn Hardware> {
        self.board.as_mut().map(|board| board as &mut dyn Hardware)
    }

    fn now(&self) -> Timestamp {
        Timestamp(1_700_000_000_123)
    }

    fn new_id(&mut self) -> Arc<str> {
        Arc::from("new-id")
    }
}

pub const MANIFEST: &str = r#"
manifest_version = 1
[function]
name = "guest"
version = "1.0.0"
[permissions]
publish = ["granted/#", "of/{device}/{function}"]
kv = ["rw:self", "ro:shared/site"]
invoke = ["friend"]
sensors = ["attic"]
gpio = ["in:door", "out:pump"]
i2c = ["bus:0x20"]
spi = ["radio"]
[limits]
memory = "4MiB"
timeout = "200ms"
output = "256KiB"
kv = "64KiB"
log = "4KiB"
[results.n]
"#;

pub fn manifest(text: &str) -> Manifest {
    Manifest::parse("holm.toml", text).unwrap()
}

/// One engine for all tests, with its ticker, as on a node.
pub static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let options = EngineOptions { device: "pi3".to_owned(), slots: 64, ..EngineOptions::default() };
    let engine = Engine::new(Profile::host(), &options).unwrap();
    let ticker = engine.ticker();
    std::thread::spawn(move || ticker.run());
    engine
});

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Builds a nested workspace of guests, and reads one of its components. The build's target folder is its own.
pub fn built(workspace: &str, name: &str) -> Vec<u8> {
    static BUILD: Mutex<()> = Mutex::new(());
    let _one_at_a_time = BUILD.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let folder = root().join(workspace);
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--target", "wasm32-wasip2"])
        .current_dir(&folder)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .status()
        .unwrap();
    assert!(status.success(), "guests in {} do not build", folder.display());
    std::fs::read(folder.join("target/wasm32-wasip2/release").join(format!("{name}.wasm"))).unwrap()
}

pub static GUEST: LazyLock<Vec<u8>> = LazyLock::new(|| built("tests/guests", "guests"));

pub fn native(component: &[u8]) -> Vec<u8> {
    compile(component, Profile::host(), &InputLimits::default()).unwrap().native
}

pub fn load(component: &[u8], manifest_text: &str) -> Function {
    let config: ConfigValues = [(Arc::from("limit"), Arc::from("42"))].into();
    ENGINE.load(&native(component), &manifest(manifest_text), Arc::new(config)).unwrap()
}

/// The component of all bad habits, with [`MANIFEST`].
pub static FUNCTION: LazyLock<Function> = LazyLock::new(|| load(&GUEST, MANIFEST));

pub fn event(subject: &str, data: &str) -> Event {
    Event {
        id: EventId(Arc::from("e-1")),
        source: Source::Mqtt,
        subject: Arc::from(subject),
        content_type: Some(Arc::from("text/plain")),
        data: Bytes::from(data.to_owned()),
        time: Timestamp(1_700_000_000_000),
        time_synced: true,
        attempt: 1,
        hops: 0,
        attributes: vec![(Arc::from("qos"), Arc::from("1"))],
    }
}

pub fn run_on(function: &Function, node: TestNode, subject: &str) -> Outcome {
    function.prepare().unwrap().call(&event(subject, "0"), Box::new(node))
}

pub fn run(subject: &str) -> Outcome {
    run_on(&FUNCTION, TestNode::default(), subject)
}

/// The answer's text, of an outcome that must be a success.
pub fn answer(outcome: &Outcome) -> String {
    match &outcome.result {
        Ok(Some(payload)) => String::from_utf8(payload.data.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Runs a bad habit, and sees that it stayed contained: the fault is as expected, nothing of it took effect, and a
/// neighbour still works.
pub fn check_fault(subject: &str, expected: impl Fn(&Fault) -> bool) -> Outcome {
    let outcome = run(subject);
    contained(&outcome, subject, expected);
    outcome
}

pub fn contained(outcome: &Outcome, what: &str, expected: impl Fn(&Fault) -> bool) {
    match &outcome.result {
        Err(fault) => assert!(expected(fault), "{what}: {fault:?}"),
        Ok(answer) => panic!("{what} succeeded with {answer:?}"),
    }
    assert!(outcome.effects.is_empty(), "{what} left effects");
    assert_eq!(answer(&run("count")), "1", "the neighbour of {what}");
}

/// Makes a component for a world out of a core module, which may break every promise that a compiler would keep.
pub fn componentize(world: &str, module: &[u8]) -> Vec<u8> {
    let (resolve, world) = resolve(world);
    let mut module = module.to_vec();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

/// A component that imports all of a world.
pub fn importing(world: &str) -> Vec<u8> {
    let (resolve, id) = resolve(world);
    let module = wit_component::dummy_module(&resolve, id, ManglingAndAbi::Legacy(LiftLowerAbi::Sync));
    componentize(world, &module)
}

fn resolve(world: &str) -> (Resolve, wit_parser::WorldId) {
    let mut resolve = Resolve::default();
    resolve.push_dir(root().join("functions/wit")).unwrap();
    let package = resolve.push_str("test.wit", &format!("package test:test;\nworld test {{\n{world}\n}}")).unwrap();
    let id = resolve.select_world(&[package], Some("test")).unwrap();
    (resolve, id)
}

/// A core module with a handler of the given body (text format), which leaves a pointer to its result.
pub fn core_module(fields: &str, body: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
            {fields}
            (func (export "holm:function/handler@0.1.0#handle") (param i32) (result i32) {body}))"#
    );
    wat::parse_str(text).unwrap()
}
