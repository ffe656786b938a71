//! `holm cc`: C to a core module, with clang or zig, whichever is here. `holm build` makes the component of it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use holm_core::ErrorCode;

use crate::failure::Failure;
use crate::toolchain;

/// Where `holm new` puts the SDK.
const SDK: &str = ".holm/sdk";

/// What every function in C is compiled with. There is no operating system below it, and no C library but the SDK's.
/// Nothing that the handler does not reach is linked. Debug information is `holm build`'s to take out.
const FLAGS: [&str; 12] = [
    "-std=c17",
    "-Oz",
    "-g",
    "-flto",
    "-ffreestanding",
    "-Wall",
    "-Wextra",
    "-mbulk-memory",
    "-nostdlib",
    "-Wl,--no-entry",
    "-Wl,--gc-sections",
    // With the stack below the data, an overflow traps instead of overwriting what is global.
    "-Wl,-z,stack-size=65536",
];

/// See `holm cc --help`.
#[derive(clap::Args)]
pub(crate) struct Compile {
    /// C files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The core module
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The SDK
    #[arg(long, value_name = "DIR", default_value = SDK)]
    sdk: PathBuf,
    /// More for the compiler
    #[arg(last = true)]
    more: Vec<String>,
}

impl Compile {
    pub(crate) fn run(&self) -> Result<ExitCode, Failure> {
        let compiler = toolchain::c_compiler().ok_or_else(|| {
            Failure::new("neither clang with WebAssembly nor zig is here")
                .next(toolchain::C_COMPILER_FIX)
                .page(ErrorCode::ToolchainMissing)
        })?;
        let sources = sources(&self.sdk)?;
        if let Some(folder) = self.output.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|error| Failure::new(format!("cannot make {}: {error}", folder.display())))?;
        }
        let mut command = compiler.command();
        command.args(FLAGS).arg("-isystem").arg(self.sdk.join("libc")).arg("-I").arg(self.sdk.join("include"));
        command.args(&self.more).args(&self.files).args(sources).arg("-o").arg(&self.output);
        let status =
            command.status().map_err(|error| Failure::new(format!("cannot run {}: {error}", compiler.name)))?;
        // The compiler has said what is wrong, and where.
        Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The SDK's own C files.
fn sources(sdk: &Path) -> Result<Vec<PathBuf>, Failure> {
    let folder = sdk.join("src");
    let mut sources: Vec<PathBuf> = std::fs::read_dir(&folder)
        .map_err(|error| {
            Failure::new(format!("cannot read the SDK in {}: {error}", folder.display()))
                .next("name its folder with --sdk; `holm new NAME -t mqtt-c` brings it as NAME/.holm/sdk")
        })?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .collect();
    // The same order everywhere, so that the module is the same everywhere.
    sources.sort();
    Ok(sources)
}
