//! From a core module, which is what compilers of C and of many other languages make, to a component.
//!
//! A module that has its component's type inside (`wit-bindgen` puts it there, as custom sections) keeps that. One that
//! has not is believed to be a function in the world of this release: its imports and exports have those names, or it is
//! refused.

use holm_core::ErrorCode;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata, metadata};
use wit_parser::{Resolve, SourceMap, UnresolvedPackageGroup};

use crate::embedded;
use crate::failure::Failure;

/// How a core module begins; a component has another version.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// The world of a function.
const WORLD: &str = "function";

/// What a module has that is meant to be a function: the handler's export, or its component's type.
const SIGNS: [&[u8]; 2] = [b"holm:function/handler@0.1.0#handle", b"component-type"];

/// The component of a module that is meant to be a function; all else as it is, for the compiler to judge.
pub(crate) fn of(wasm: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let is_meant = |sign: &&[u8]| wasm.windows(sign.len()).any(|bytes| bytes == *sign);
    if !wasm.starts_with(MODULE) || !SIGNS.iter().any(is_meant) {
        return Ok(wasm);
    }
    wrap(wasm).map_err(|words| {
        let failure = Failure::new(format!("the core module does not make a function's component: {words}"));
        let failure = match words.contains("wasi_snapshot_preview1") {
            true => failure.next("compile without a C library: `holm cc` does"),
            false => failure
                .next("see that its imports and exports are those of the world of functions: in C, the SDK's are"),
        };
        failure.page(ErrorCode::ComponentWrong)
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
    fn what_is_no_function_is_left_as_it_is() {
        for other in [&b"\0asm\x0d\0\x01\0"[..], MODULE, b"#!/bin/sh"] {
            assert_eq!(of(other.to_vec()).unwrap(), other);
        }
    }

    #[test]
    fn a_module_that_is_meant_to_be_a_function_and_cannot_is_refused() {
        // A custom section of a type that is none.
        let broken = [MODULE, b"\x00\x10\x0ecomponent-type\xff"].concat();
        assert!(of(broken).unwrap_err().words().contains("does not make a function's component"));
    }
}
