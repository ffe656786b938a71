//! From a core module, which is what compilers of C and of many other languages make, to a component.
//!
//! A module that has its component's type inside (`wit-bindgen` puts it there, as custom sections) keeps that. One that
//! has not is believed to be a function in the world of this release: its imports and exports have those names, or it is
//! refused.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata, metadata};
use wit_parser::{Resolve, SourceMap, UnresolvedPackageGroup};

use crate::embedded;
use crate::failure::Failure;

/// How a core module begins; a component has another version.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// The world of a function.
const WORLD: &str = "function";

/// The component of a module; a component as it is.
pub(crate) fn of(wasm: Vec<u8>) -> Result<Vec<u8>, Failure> {
    if !wasm.starts_with(MODULE) {
        return Ok(wasm);
    }
    wrap(wasm).map_err(|words| {
        let failure = Failure::new(format!("the core module does not make a function's component: {words}"));
        match words.contains("wasi_snapshot_preview1") {
            true => failure.next("compile without a C library: `holm cc` does"),
            false => failure.next("see that it exports `holm:function/handler@0.1.0#handle`: in C, the SDK does"),
        }
    })
}

fn wrap(mut module: Vec<u8>) -> Result<Vec<u8>, String> {
    let (with_a_type, _) = metadata::decode(&module).map_err(told)?;
    if with_a_type.is_none() {
        let mut resolve = Resolve::default();
        let (main, dependencies) = packages()?;
        let package = resolve.push_groups(main, dependencies).map_err(told)?;
        let world = resolve.select_world(&[package], Some(WORLD)).map_err(told)?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).map_err(told)?;
    }
    ComponentEncoder::default().validate(true).module(&module).and_then(|mut encoder| encoder.encode()).map_err(told)
}

/// An error with its causes.
fn told(error: impl std::fmt::Display) -> String {
    format!("{error:#}")
}

/// The WIT packages of this release: that of functions, and those that it depends on.
fn packages() -> Result<(UnresolvedPackageGroup, Vec<UnresolvedPackageGroup>), String> {
    let mut main = SourceMap::default();
    let mut dependencies: Vec<(&str, SourceMap)> = Vec::new();
    for (path, text) in embedded::wit() {
        let Some(rest) = path.strip_prefix("deps/") else {
            main.push_str(path, text);
            continue;
        };
        // A package is a file or a folder.
        let package = rest.split('/').next().unwrap_or(rest);
        match dependencies.last_mut() {
            Some((name, sources)) if *name == package => sources.push_str(path, text),
            _ => {
                let mut sources = SourceMap::default();
                sources.push_str(path, text);
                dependencies.push((package, sources));
            }
        }
    }
    let parse = |sources: SourceMap| {
        sources.parse().map_err(|(sources, error)| format!("the WIT of this release: {}", error.render(&sources)))
    };
    let dependencies = dependencies.into_iter().map(|(_, sources)| parse(sources)).collect::<Result<_, _>>()?;
    Ok((parse(main)?, dependencies))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_left_as_it_is_and_a_module_without_a_handler_refused() {
        let component = b"\0asm\x0d\0\x01\0".to_vec();
        assert_eq!(of(component.clone()).unwrap(), component);
        let refused = of(MODULE.to_vec()).unwrap_err().words();
        assert!(refused.contains("holm:function/handler@0.1.0"), "{refused}");
    }
}
