//! `holm-compile`: one component in, one file of native code out, in a process that limits itself.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use holm_compiler::{CompileError, InputLimits, compile, compile_with_addresses, locate, write_atomically};
use holm_runtime::Profile;
use rustix::process::{Resource, Rlimit, setrlimit};

/// Compile a function's component to native code for an engine profile.
#[derive(Debug, Parser)]
#[command(name = "holm-compile", version)]
struct Arguments {
    /// The engine profile: x64-v1, a64-small-v1, pulley64-v1 or pulley32-v1; this machine's by default.
    #[arg(long)]
    profile: Option<String>,
    /// Address space of this process, in MiB. Rust needs 200, Python 1500.
    #[arg(long, default_value_t = 2048)]
    max_memory_mib: u64,
    /// CPU time of this process, in seconds.
    #[arg(long, default_value_t = 300)]
    max_cpu_seconds: u64,
    /// Size of the component, in MiB.
    #[arg(long, default_value_t = 64)]
    max_component_mib: u64,
    /// Native code that says which part of the component it comes from: for `holmd replay`.
    #[arg(long, hide = true)]
    addresses: bool,
    /// Instead of compiling, the functions, files and lines of these places in the component's code, as JSON.
    #[arg(long, hide = true, value_delimiter = ',', value_name = "OFFSETS", conflicts_with = "output")]
    lines: Vec<u64>,
    /// The component.
    input: PathBuf,
    /// Where the native code goes.
    #[arg(required_unless_present = "lines")]
    output: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(line) => {
            // Nobody is left to tell if stdout is closed; the file is written.
            let _ = writeln!(std::io::stdout(), "{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let mut message = format!("holm-compile: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                message = format!("{message}: {cause}");
                source = cause.source();
            }
            let _ = writeln!(std::io::stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<String, Box<dyn std::error::Error>> {
    limit_self(arguments)?;
    let profile = match &arguments.profile {
        Some(name) => Profile::by_name(name)?,
        None => Profile::host(),
    };
    let limits = InputLimits { bytes: arguments.max_component_mib.saturating_mul(1 << 20), ..InputLimits::default() };
    let unread = |source| CompileError::Read { path: arguments.input.clone(), source };
    // By its size first, so that a huge file is not read to be refused.
    let bytes = std::fs::metadata(&arguments.input).map_err(unread)?.len();
    if bytes > limits.bytes {
        return Err(CompileError::TooLarge { bytes, limit: limits.bytes }.into());
    }
    let component = std::fs::read(&arguments.input).map_err(unread)?;
    let Some(output) = &arguments.output else {
        return Ok(serde_json::to_string(&locate(&component, &arguments.lines)?)?);
    };
    let compile = if arguments.addresses { compile_with_addresses } else { compile };
    let compiled = compile(&component, profile, &limits)?;
    write_atomically(output, &compiled.native)?;
    Ok(serde_json::to_string(&compiled.report())?)
}

/// A compiler fed with hostile input may want any amount of memory and time; this process gets so much and no more.
fn limit_self(arguments: &Arguments) -> Result<(), CompileError> {
    let limits = [
        (Resource::As, arguments.max_memory_mib.saturating_mul(1 << 20)),
        (Resource::Cpu, arguments.max_cpu_seconds),
        (Resource::Core, 0),
    ];
    for (resource, limit) in limits {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })
            .map_err(|error| CompileError::Limit { source: error.into() })?;
    }
    Ok(())
}
