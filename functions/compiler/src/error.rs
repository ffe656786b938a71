//! Why a component was not compiled.

use std::path::PathBuf;

/// Every variant is the author's to mend, but for the files.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// Neither a module nor a component.
    #[error("not WebAssembly: {detail}")]
    NotWasm {
        /// What the parser met.
        detail: String,
    },
    /// A core module: built for another target.
    #[error(
        "a core module, not a component: build for the target wasm32-wasip2, or wrap it with `wasm-tools component new`"
    )]
    CoreModule,
    /// Larger than the limit.
    #[error("the component has {bytes} bytes, and the limit is {limit}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// More parts than the limit.
    #[error("the component has more than {limit} {what}")]
    TooComplex {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// It asks for things that no function is given.
    #[error("the component imports what a function cannot have: {}", .imports.join(", "))]
    UnknownImports {
        /// All of them.
        imports: Vec<String>,
    },
    /// It does not export the handler.
    #[error(
        "the component exports none of `holm:function/handler@0.1.0`, `wasi:http/incoming-handler@0.2` and `wasi:cli/run@0.2`: is `holm_function::export!` missing?"
    )]
    NoHandler,
    /// Validation or code generation failed.
    #[error("cannot compile the component: {detail}")]
    Compile {
        /// Wasmtime's words.
        detail: String,
    },
    /// The input could not be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The output could not be written.
    #[error("cannot write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Debugging information is there and not to be read.
    #[error("cannot read the component's debugging information: {detail}")]
    Debug {
        /// The reader's words.
        detail: String,
    },
    /// The process could not limit itself, and does not go on without.
    #[error("cannot limit the memory or time of this process")]
    Limit {
        /// Why.
        source: std::io::Error,
    },
}
