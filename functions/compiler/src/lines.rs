//! From places in a component's code to functions, files and lines, by the DWARF that its compiler left in it.
//!
//! A place is an offset into a core module, as a trap has it. DWARF for WebAssembly counts from the begin of the code section
//! (<https://yurydelendik.github.io/webassembly-dwarf/>). A component has several core modules; its own code is in the one with
//! the lines, and what a tool put beside that has none.

use std::collections::BTreeMap;

use addr2line::Context;
use addr2line::gimli::{Dwarf, EndianSlice, LittleEndian, SectionId};
use serde::{Deserialize, Serialize};
use wasmparser::{Parser, Payload};

use crate::CompileError;

/// Sections of debugging information begin so.
const DEBUG: &str = ".debug_";

/// A place that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The offset.
    pub offset: u64,
    /// What is there, the innermost first: a compiler makes one function of several. Nothing where nothing is known.
    pub lines: Vec<Line>,
}

/// A function of the source, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its name.
    pub function: Option<String>,
    /// Its file, as the compiler was told.
    pub file: Option<String>,
    /// From 1.
    pub line: Option<u32>,
    /// From 1.
    pub column: Option<u32>,
}

/// What is at these places of a component, of whose modules one is its own.
pub fn locate(component: &[u8], offsets: &[u64]) -> Result<Vec<Place>, CompileError> {
    let module = own_module(component)?;
    let section = |id: SectionId| Ok::<_, addr2line::gimli::Error>(module.section(id.name()));
    let failed = |error: addr2line::gimli::Error| CompileError::Debug { detail: error.to_string() };
    let context = Context::from_dwarf(Dwarf::load(section).map_err(failed)?).map_err(failed)?;
    let place = |offset: &u64| {
        let address = offset.saturating_sub(module.code);
        // What is damaged there is not known, and beyond the code there is nothing.
        let lines = if address < module.size as u64 { lines(&context, address) } else { Ok(Vec::new()) };
        let lines = lines.unwrap_or_default();
        Place { offset: *offset, lines }
    };
    Ok(offsets.iter().map(place).collect())
}

type Reader<'a> = EndianSlice<'a, LittleEndian>;

fn lines(context: &Context<Reader<'_>>, address: u64) -> Result<Vec<Line>, addr2line::gimli::Error> {
    let mut frames = context.find_frames(address).skip_all_loads()?;
    let mut lines = Vec::new();
    while let Some(frame) = frames.next()? {
        let function = frame.function.as_ref().and_then(|name| name.raw_name().ok());
        let function = function.map(|name| format!("{:#}", rustc_demangle::demangle(&name)));
        let (file, line, column) = match &frame.location {
            Some(location) => (location.file.map(str::to_owned), location.line, location.column),
            None => (None, None, None),
        };
        lines.push(Line { function, file, line, column });
    }
    Ok(lines)
}

/// A core module's debugging information.
#[derive(Default)]
struct Module<'a> {
    /// Where its code begins, from the component's begin: places are counted from there.
    code: u64,
    /// Bytes of that.
    size: usize,
    sections: BTreeMap<&'a str, &'a [u8]>,
}

impl<'a> Module<'a> {
    fn section(&self, name: &str) -> Reader<'a> {
        EndianSlice::new(self.sections.get(name).copied().unwrap_or_default(), LittleEndian)
    }
}

/// The module with lines, or the one with most code.
fn own_module(component: &[u8]) -> Result<Module<'_>, CompileError> {
    let not_wasm = |error: wasmparser::BinaryReaderError| CompileError::NotWasm { detail: error.message().to_owned() };
    let mut modules: Vec<Module<'_>> = Vec::new();
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(not_wasm)? {
            Payload::ModuleSection { .. } => modules.push(Module::default()),
            Payload::CodeSectionStart { range, .. } => {
                if let Some(module) = modules.last_mut() {
                    (module.code, module.size) = (range.start as u64, range.len());
                }
            }
            Payload::CustomSection(section) if section.name().starts_with(DEBUG) => {
                if let Some(module) = modules.last_mut() {
                    module.sections.insert(section.name(), section.data());
                }
            }
            _ => {}
        }
    }
    Ok(modules.into_iter().max_by_key(|module| (!module.sections.is_empty(), module.size)).unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn without_lines_a_place_is_only_a_place() {
        let empty = b"\0asm\x0d\0\x01\0";
        let places = locate(empty, &[0, 7, u64::MAX]).unwrap();
        assert_eq!(places.len(), 3);
        assert!(places.iter().all(|place| place.lines.is_empty()));
        assert!(matches!(locate(b"none", &[1]), Err(CompileError::NotWasm { .. })));
    }
}
