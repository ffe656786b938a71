//! What can be known of a component without compiling it: cheap, bounded, and done first.

use std::collections::BTreeSet;

use holm_runtime::offered_imports;
use wasmparser::{Encoding, Parser, Payload};

use crate::CompileError;

const HANDLER: &str = "holm:function/handler@0.1.0";

/// What other components export, of any patch release: those that answer HTTP requests, and programs.
const FOREIGN: [&str; 2] = ["wasi:http/incoming-handler@0.2.", "wasi:cli/run@0.2."];

/// Bounds on the input, checked before anything expensive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputLimits {
    /// Bytes of the component. Python's are 18 MB.
    pub bytes: u64,
    /// Core modules inside. Python has about sixteen.
    pub modules: usize,
    /// Types of all modules and components inside.
    pub types: usize,
    /// Functions of all modules inside.
    pub functions: usize,
}

impl Default for InputLimits {
    fn default() -> Self {
        Self { bytes: 64 << 20, modules: 64, types: 50_000, functions: 200_000 }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Names of imported interfaces, sorted.
    pub imports: Vec<String>,
    /// Names of exported interfaces, sorted.
    pub exports: Vec<String>,
}

impl Inspection {
    /// Whether the runtime will link it.
    pub fn check(&self) -> Result<(), CompileError> {
        let offered: BTreeSet<&str> = offered_imports().collect();
        let unknown: Vec<String> = self
            .imports
            .iter()
            .filter(|import| !offered.contains(import.split('@').next().unwrap_or(import)))
            .cloned()
            .collect();
        if !unknown.is_empty() {
            return Err(CompileError::UnknownImports { imports: unknown });
        }
        let is_entry = |export: &String| export == HANDLER || FOREIGN.iter().any(|prefix| export.starts_with(prefix));
        if self.exports.iter().any(is_entry) { Ok(()) } else { Err(CompileError::NoHandler) }
    }
}

/// Looks a component through, within limits.
pub fn inspect(component: &[u8], limits: &InputLimits) -> Result<Inspection, CompileError> {
    let bytes = component.len() as u64;
    if bytes > limits.bytes {
        return Err(CompileError::TooLarge { bytes, limit: limits.bytes });
    }
    let not_wasm = |error: wasmparser::BinaryReaderError| {
        // What may follow is bytes, one a line.
        let detail = error.message().split(" - expected=").next().unwrap_or_default().to_owned();
        CompileError::NotWasm { detail }
    };
    let (mut imports, mut exports) = (BTreeSet::new(), BTreeSet::new());
    let (mut modules, mut types, mut functions) = (0_usize, 0_usize, 0_usize);
    // How deep inside nested modules and components the parser is: only the outermost one's names are ours.
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(not_wasm)? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => return Err(CompileError::CoreModule),
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ModuleSection { .. } => modules += 1,
            Payload::TypeSection(section) => types += section.count() as usize,
            Payload::ComponentTypeSection(section) => types += section.count() as usize,
            Payload::FunctionSection(section) => functions += section.count() as usize,
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    imports.insert(import.map_err(not_wasm)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    exports.insert(export.map_err(not_wasm)?.name.name.to_owned());
                }
            }
            _ => {}
        }
        let counts = [
            ("core modules", modules, limits.modules),
            ("types", types, limits.types),
            ("functions", functions, limits.functions),
        ];
        for (what, count, limit) in counts {
            if count > limit {
                return Err(CompileError::TooComplex { what, limit });
            }
        }
    }
    Ok(Inspection { imports: imports.into_iter().collect(), exports: exports.into_iter().collect() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_wrong_with_the_input() {
        let limits = InputLimits::default();
        assert!(matches!(inspect(b"not wasm at all", &limits), Err(CompileError::NotWasm { .. })));
        assert!(matches!(inspect(b"\0asm\x01\0\0\0", &limits), Err(CompileError::CoreModule)));
        let empty = b"\0asm\x0d\0\x01\0";
        assert!(matches!(inspect(empty, &limits).unwrap().check(), Err(CompileError::NoHandler)));
        let small = InputLimits { bytes: 4, ..limits };
        assert!(matches!(inspect(empty, &small), Err(CompileError::TooLarge { bytes: 8, limit: 4 })));
    }
}
