//! What a component may import, and who answers.

use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, HasSelf, Linker, ResourceType, Val};

use crate::RuntimeError;
use crate::bindings::Host_ as Imports;
use crate::state::State;

/// Every interface a component may import, without its version. A component may ask for any version that is
/// semver-compatible with ours.
const OFFERED: [&str; 35] = [
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:random/random",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stderr",
    "wasi:filesystem/types",
    "wasi:filesystem/preopens",
    "wasi:http/types",
    "wasi:logging/logging",
    "wasi:config/store",
    "wasi:keyvalue/store",
    "wasi:keyvalue/atomics",
    "wasi:keyvalue/batch",
    "holm:function/types",
    "holm:function/publish",
    "holm:function/results",
    "holm:function/secrets",
    "holm:function/hardware",
    "holm:function/sensors",
    "holm:function/gpio",
    "holm:function/i2c",
    "holm:function/spi",
];

/// The last one, apart because a function that has it can reach others.
const INVOKE: &str = "holm:function/invoke";

/// The interfaces that functions may import, without versions, for tools that check a component before it is deployed.
pub fn offered_imports() -> impl Iterator<Item = &'static str> {
    OFFERED.into_iter().chain([INVOKE])
}

fn is_offered(import: &str) -> bool {
    let name = import.split('@').next().unwrap_or(import);
    offered_imports().any(|offered| offered == name)
}

/// A linker with everything of `holm:function/imports` but the file system. That and HTTP's types are linked for those
/// that import them.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    Imports::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    Ok(linker)
}

/// Names what a component imports and we do not offer: all of it at once, not the first that fails.
pub(crate) fn check_imports(engine: &Engine, component: &Component) -> Result<(), RuntimeError> {
    let ty = component.component_type();
    let unknown: Vec<String> =
        ty.imports(engine).map(|(name, _)| name).filter(|name| !is_offered(name)).map(str::to_owned).collect();
    if unknown.is_empty() { Ok(()) } else { Err(RuntimeError::UnknownImports { imports: unknown }) }
}

struct Descriptor;
struct DirectoryEntries;

/// Links an empty file system. There are no preopened directories, so that no guest ever holds a descriptor, and none
/// of the descriptor's functions can be reached: they get one body, which traps.
pub(crate) fn link_empty_filesystem(
    linker: &mut Linker<State>,
    engine: &Engine,
    component: &Component,
) -> wasmtime::Result<()> {
    for (import, external) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(instance) = &external.ty else { continue };
        if !import.starts_with("wasi:filesystem/") {
            continue;
        }
        let mut linked = linker.instance(import)?;
        for (name, external) in instance.exports(engine) {
            match (name, &external.ty) {
                ("get-directories", ComponentItem::ComponentFunc(_)) => linked.func_new(name, |_, _, _, results| {
                    answer(results, Val::List(Vec::new()));
                    Ok(())
                })?,
                ("filesystem-error-code", ComponentItem::ComponentFunc(_)) => {
                    linked.func_new(name, |_, _, _, results| {
                        answer(results, Val::Option(None));
                        Ok(())
                    })?;
                }
                (_, ComponentItem::ComponentFunc(_)) => {
                    linked.func_new(name, |_, _, _, _| Err(wasmtime::Error::msg("a function has no file system")))?
                }
                ("descriptor", ComponentItem::Resource(_)) if import.starts_with("wasi:filesystem/types") => {
                    linked.resource(name, ResourceType::host::<Descriptor>(), |_, _| Ok(()))?;
                }
                ("directory-entry-stream", ComponentItem::Resource(_)) => {
                    linked.resource(name, ResourceType::host::<DirectoryEntries>(), |_, _| Ok(()))?;
                }
                // Types that other interfaces define.
                _ => {}
            }
        }
    }
    Ok(())
}

fn answer(results: &mut [Val], value: Val) {
    if let Some(first) = results.first_mut() {
        *first = value;
    }
}
