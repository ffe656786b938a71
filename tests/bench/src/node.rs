//! Our side's functions: the examples, under other names where there must be many.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, bail};
use holm_bundle::Bundle;

use crate::holmd::Holmd;

/// Makes a data folder in which functions are deployed and compiled; no node runs on it afterwards.
pub fn prepare(parent: &Path, name: &str, bundles: &[Vec<u8>]) -> anyhow::Result<PathBuf> {
    let data = parent.join(name);
    let node = Holmd::start(&data)?;
    for bundle in bundles {
        node.deploy(bundle)?;
    }
    node.stop()?;
    Ok(data)
}

/// The example's manifest and component; all examples are built at the first call.
pub fn example(name: &str) -> anyhow::Result<(String, Vec<u8>)> {
    static BUILT: OnceLock<bool> = OnceLock::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../functions/examples");
    let built = BUILT.get_or_init(|| {
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--quiet", "--release", "--target", "wasm32-wasip2"]).current_dir(&folder);
        cargo.status().is_ok_and(|status| status.success())
    });
    if !built {
        bail!("the examples do not build");
    }
    let manifest = std::fs::read_to_string(folder.join(name).join("holm.toml"))?;
    let file = folder.join(format!("target/wasm32-wasip2/release/{name}.wasm"));
    let component = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok((manifest, component))
}

/// A function of W1 under a name of its own. `distinct` makes its component another one, so that its native code shares
/// no memory with the others'.
pub fn scale(name: &str, filters: &[String], distinct: bool) -> anyhow::Result<Vec<u8>> {
    let (manifest, mut component) = example("scale")?;
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
    Ok(Bundle::pack(&manifest, &component)?.bytes)
}

/// The W1 function as it is.
pub fn w1() -> anyhow::Result<Vec<u8>> {
    scale("scale", &["sensors/+/temp".to_owned()], false)
}

/// Ten functions with `filters` filters each; the first has W1's among them.
pub fn ten(filters: usize) -> anyhow::Result<Vec<Vec<u8>>> {
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
pub fn idle(count: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    (0..count).map(|number| scale(&format!("idle{number}"), &[format!("idle/{number}")], true)).collect()
}

/// Twenty stateful functions; two match each of the ten topics.
pub fn w2() -> anyhow::Result<Vec<Vec<u8>>> {
    let (manifest, component) = example("stateful")?;
    (0..20)
        .map(|number| {
            let manifest = manifest
                .replace("name = \"stateful\"", &format!("name = \"{}\"", w2_name(number)))
                .replace("w2/#", &format!("w2/{}/#", number / 2));
            Ok(Bundle::pack(&manifest, &component)?.bytes)
        })
        .collect()
}

/// The name of one of them.
pub fn w2_name(number: usize) -> String {
    format!("stateful{number}")
}
