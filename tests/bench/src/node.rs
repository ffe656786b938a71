//! Our side: a real `holmd`, with functions made from the examples.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use holm_bundle::Bundle;
use holm_tests::node::{Node, Start};

/// No watching of new versions: nothing runs while they are deployed.
const CONFIGURATION: &str = "[functions]\nhealth_window = \"0ms\"\n";

/// Starts a node and waits until it is ready.
pub fn start(data: &Path) -> Node {
    Start { config: CONFIGURATION, ..Start::new(data) }.run()
}

/// Makes a data folder in which functions are deployed and compiled; no node runs on it afterwards.
pub fn prepare(parent: &Path, name: &str, bundles: &[Vec<u8>]) -> PathBuf {
    let data = parent.join(name);
    let node = start(&data);
    for bundle in bundles {
        node.admin.deploy(bundle);
    }
    node.stop();
    data
}

/// The example's manifest and component, built once.
fn example(name: &str) -> (String, Vec<u8>) {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| drop(holm_tests::functions::example("scale", |text| text)));
    let folder = holm_tests::functions::repository().join("functions/examples");
    let manifest = std::fs::read_to_string(folder.join(name).join("holm.toml")).unwrap();
    let component = std::fs::read(folder.join(format!("target/wasm32-wasip2/release/{name}.wasm"))).unwrap();
    (manifest, component)
}

/// A function of W1 under a name of its own. `distinct` makes its component another one, so that its native code shares
/// no memory with the others'.
pub fn scale(name: &str, filters: &[String], distinct: bool) -> Vec<u8> {
    let (manifest, mut component) = example("scale");
    if distinct {
        // A custom section at the end: its name.
        component.push(0);
        component.push(name.len() as u8 + 1);
        component.push(name.len() as u8);
        component.extend(name.as_bytes());
    }
    let manifest = manifest
        .replace("name = \"scale\"", &format!("name = \"{name}\""))
        .replace("topics = [\"sensors/+/temp\"]", &format!("topics = {filters:?}"));
    Bundle::pack(&manifest, &component).unwrap().bytes
}

/// The W1 function as it is.
pub fn w1() -> Vec<u8> {
    scale("scale", &["sensors/+/temp".to_owned()], false)
}

/// Ten functions with `filters` filters each; the first has W1's among them.
pub fn ten(filters: usize) -> Vec<Vec<u8>> {
    (0..10)
        .map(|function| {
            let mut all: Vec<String> = (0..filters)
                .map(|number| match (function, number) {
                    (0, 0) => "sensors/+/temp".to_owned(),
                    // Beside the one that matches, and with a wildcard, so that the way to it gets no shorter.
                    (function, number) if number % 2 == 0 => format!("sensors/f{function}n{number}/temp"),
                    (function, number) => format!("sensors/+/f{function}n{number}"),
                })
                .collect();
            all.dedup();
            scale(&format!("fn{function}"), &all, true)
        })
        .collect()
}

/// More functions that nobody calls.
pub fn idle(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| scale(&format!("idle{number}"), &[format!("idle/{number}")], true)).collect()
}

/// Twenty stateful functions; two match each of the ten topics.
pub fn w2() -> Vec<Vec<u8>> {
    let (manifest, component) = example("stateful");
    (0..20)
        .map(|number| {
            let manifest = manifest
                .replace("name = \"stateful\"", &format!("name = \"{}\"", w2_name(number)))
                .replace("w2/#", &format!("w2/{}/#", number / 2));
            Bundle::pack(&manifest, &component).unwrap().bytes
        })
        .collect()
}

/// The name of one of them.
pub fn w2_name(number: usize) -> String {
    format!("stateful{number}")
}
