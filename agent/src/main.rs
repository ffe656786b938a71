//! `holmd`: see the library for what it does.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use holm_agent::config::{Config, Overrides};
use holm_agent::{board, node};

/// The Holm agent: runs sandboxed functions on local events.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the node until SIGTERM or Ctrl-C.
    Run(Options),
    /// Read the configuration, list all problems, and do nothing else.
    CheckConfig(Options),
    /// Drive all outputs to their safe levels, and do nothing else. For who notices that the node has died, such as
    /// `ExecStopPost=` of its unit.
    SafeOutputs(Options),
}

#[derive(clap::Args)]
struct Options {
    /// agent.toml; agent.d/*.toml beside it is read too. Without it, /etc/holm/agent.toml if there is one.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The data folder, instead of the configured one.
    #[arg(long)]
    data: Option<PathBuf>,
    /// The MQTT address, instead of the configured one.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// The board's profile, by name or file, instead of the configured one: `host-sim` is the simulator.
    #[arg(long)]
    board: Option<String>,
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let (Command::Run(options) | Command::CheckConfig(options) | Command::SafeOutputs(options)) = &command;
    let over = Overrides { data: options.data.clone(), listen: options.listen, board: options.board.clone() };
    let standard = PathBuf::from("/etc/holm/agent.toml");
    let file = options.config.clone().or_else(|| standard.exists().then_some(standard));
    let config = match Config::read(file.as_deref(), over) {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("holmd: {problems}");
            return ExitCode::from(2);
        }
    };
    match command {
        Command::Run(_) => {}
        Command::CheckConfig(_) => {
            println!("the configuration is good");
            return ExitCode::SUCCESS;
        }
        Command::SafeOutputs(_) => return safe_outputs(&config),
    }
    start_logging();
    // One thread for everything that waits: guests, the store and the feeder have their own.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("holmd: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(node::run(config));
    // Threads that did not end in time must not keep a drained node alive.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = node::describe(&error), "the node cannot go on");
            eprintln!("holmd: {}", node::describe(&error));
            ExitCode::FAILURE
        }
    }
}

/// Takes every output, which drives it to its safe level.
fn safe_outputs(config: &Config) -> ExitCode {
    start_logging();
    match board::safe_outputs(config) {
        Ok(true) => ExitCode::SUCCESS,
        // Each was said when it was tried.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("holmd: {}", node::describe(&error));
            ExitCode::FAILURE
        }
    }
}

/// To journald where systemd started us, to stderr elsewhere. `HOLM_LOG` filters by level and target, such as
/// `info,holm_mqtt=debug`.
fn start_logging() {
    use std::io::IsTerminal as _;
    use tracing::level_filters::LevelFilter;
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::prelude::*;
    // `Targets` and not `EnvFilter`, which would bring a megabyte of regular expressions.
    let filter = std::env::var("HOLM_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let registry = tracing_subscriber::registry().with(filter);
    match journal {
        Some(journal) => registry.with(journal).init(),
        None => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_ansi(std::io::stderr().is_terminal())
                    .with_writer(std::io::stderr)
                    .log_internal_errors(false),
            )
            .init(),
    }
}
