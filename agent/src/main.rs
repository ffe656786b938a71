//! `holmd`: see the library for what it does.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use holm_agent::config::{Config, Overrides, Stage};
use holm_agent::{board, cloud, node};
use holm_cloud_sync::Invitation;
use holm_core::Timestamp;

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
    Run(Run),
    /// Read the configuration, list all problems, and do nothing else.
    CheckConfig(Options),
    /// Drive all outputs to their safe levels, and do nothing else. For who notices that the node has died, such as
    /// `ExecStopPost=` of its unit.
    SafeOutputs(Options),
    /// Enrol the device at a control plane, once. A node that runs connects by itself within seconds.
    Enrol(Enrol),
}

#[derive(clap::Args)]
struct Enrol {
    /// The control plane, such as https://cloud.example:8443. Without it, enrol.toml in the data folder says all.
    #[arg(long, requires = "token", requires = "ca_hash")]
    cloud: Option<String>,
    /// What lets one device in, once. `-` reads it from stdin, so that it is in no list of processes.
    #[arg(long, requires = "cloud")]
    token: Option<String>,
    /// SHA-256 of the control plane's root certificate, in hexadecimal.
    #[arg(long, requires = "cloud")]
    ca_hash: Option<String>,
    /// The name that the device would like.
    #[arg(long, requires = "cloud")]
    thing: Option<String>,
    /// agent.toml, for its data folder. Without it, /etc/holm/agent.toml if there is one.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The data folder, instead of the configured one.
    #[arg(long)]
    data: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Run {
    #[command(flatten)]
    options: Options,
    /// The clock stands still here, in milliseconds since 1970, until it is set forward over the admin socket: for
    /// `holm test`.
    #[arg(long, hide = true, value_name = "MS", value_parser = moment)]
    clock: Option<Timestamp>,
    /// Keep what invocations are given and do, payloads and all, for whoever may ask the admin socket: for `holm dev`.
    #[arg(long, hide = true)]
    tape: bool,
    /// End when stdin ends, and so with the one who started this.
    #[arg(long, hide = true)]
    tether: bool,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    let milliseconds: i64 = text.parse().map_err(|error: std::num::ParseIntError| error.to_string())?;
    if milliseconds > 0 { Ok(Timestamp(milliseconds)) } else { Err("that is before 1970".into()) }
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
    let mut stage = Stage::default();
    let (options, action): (Options, fn(Config) -> ExitCode) = match Arguments::parse().command {
        Command::Run(Run { options, clock, tape, tether }) => {
            stage = Stage { clock, tape: tape || clock.is_some(), tether };
            (options, run)
        }
        Command::CheckConfig(options) => (options, |_| {
            println!("the configuration is good");
            ExitCode::SUCCESS
        }),
        Command::SafeOutputs(options) => (options, safe_outputs),
        Command::Enrol(arguments) => return enrol(arguments),
    };
    let file = options.config.clone().or_else(standard_config);
    let Options { data, listen, board, .. } = options;
    match Config::read(file.as_deref(), Overrides { data, listen, board, stage }) {
        Ok(config) => action(config),
        Err(problems) => {
            eprintln!("holmd: {problems}");
            ExitCode::from(2)
        }
    }
}

/// `holmd run`.
fn run(config: Config) -> ExitCode {
    start_logging();
    // One thread for everything that waits: guests, the store and the feeder have their own.
    let Some(runtime) = start_runtime() else { return ExitCode::FAILURE };
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
fn safe_outputs(config: Config) -> ExitCode {
    start_logging();
    match board::safe_outputs(&config) {
        Ok(true) => ExitCode::SUCCESS,
        // Each was said when it was tried.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("holmd: {}", node::describe(&error));
            ExitCode::FAILURE
        }
    }
}

fn standard_config() -> Option<PathBuf> {
    let standard = PathBuf::from("/etc/holm/agent.toml");
    standard.exists().then_some(standard)
}

fn start_runtime() -> Option<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| eprintln!("holmd: cannot start: {error}")).ok()
}

/// `holmd enrol`.
fn enrol(arguments: Enrol) -> ExitCode {
    let file = arguments.config.or_else(standard_config);
    let data = match Config::read(file.as_deref(), Overrides { data: arguments.data, ..Overrides::default() }) {
        Ok(config) => config.data,
        Err(problems) => {
            eprintln!("holmd: {problems}");
            return ExitCode::from(2);
        }
    };
    let mut token = arguments.token.unwrap_or_default();
    if token == "-" {
        token.clear();
        if let Err(error) = std::io::stdin().read_line(&mut token) {
            eprintln!("holmd: cannot read the token: {error}");
            return ExitCode::from(2);
        }
        token.truncate(token.trim_end().len());
    }
    let invitation = match (arguments.cloud, arguments.ca_hash) {
        (Some(url), Some(hash)) => match Invitation::new(&url, &token, &hash, arguments.thing.as_deref()) {
            Ok(invitation) => Some(invitation),
            Err(problems) => {
                problems.iter().for_each(|problem| eprintln!("holmd: {problem}"));
                return ExitCode::from(2);
            }
        },
        _ => None,
    };
    let Some(runtime) = start_runtime() else { return ExitCode::FAILURE };
    match runtime.block_on(cloud::enrol(&data, invitation)) {
        Ok(identity) => {
            println!("enrolled at {} as {}", identity.url, identity.thing());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("holmd: {}", error.chain());
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
