//! `holmd`: see the library for what it does.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use holm_agent::arguments::{Arguments, Command, Enrol, Look, Options, Replay, Run};
use holm_agent::config::{Config, Overrides, Stage};
use holm_agent::node::Ended;
use holm_agent::{board, cloud, look, node, replay, upgrade};
use holm_cloud_sync::Invitation;
use holm_core::{ErrorCode, Problems};

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
        Command::Replay(Replay { native }) => return replay_all(&native),
        Command::Look(arguments) => return answer(&arguments),
    };
    let file = options.config.clone().or_else(standard_config);
    let Options { data, listen, board, .. } = options;
    match Config::read(file.as_deref(), Overrides { data, listen, board, stage }) {
        Ok(config) => action(config),
        Err(problems) => wrong(&problems),
    }
}

/// The configuration is what has to be mended.
fn wrong(problems: &Problems) -> ExitCode {
    eprintln!("holmd: {problems}\n  next: mend them all; `holmd check-config` says whether they are");
    eprintln!("  more: holm explain {}", ErrorCode::ConfigWrong);
    ExitCode::from(2)
}

/// `holmd run`.
fn run(config: Config) -> ExitCode {
    start_logging();
    let data = config.data.clone();
    let upgrade = Arc::new(upgrade::take_over(&data));
    // One thread for everything that waits: guests, the store and the feeder have their own.
    let Some(runtime) = start_runtime() else { return ExitCode::FAILURE };
    let ended = runtime.block_on(node::run(config, upgrade));
    // Threads that did not end in time must not keep a drained node alive.
    runtime.shutdown_background();
    match ended {
        Ok(Ended::Stopped) => ExitCode::SUCCESS,
        Ok(Ended::Replaced) => {
            eprintln!("holmd: {:#}", upgrade::replace_by_next(&data));
            ExitCode::FAILURE
        }
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
        Err(problems) => return wrong(&problems),
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
    match runtime.block_on(cloud::enrol(&data, invitation, arguments.anew)) {
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

/// `holmd replay`.
fn replay_all(native: &std::path::Path) -> ExitCode {
    match replay::run(native, std::io::stdin().lock(), std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holmd: {}", node::describe(&error));
            ExitCode::FAILURE
        }
    }
}

/// `holmd look`.
fn answer(arguments: &Look) -> ExitCode {
    let Some(runtime) = start_runtime() else { return ExitCode::FAILURE };
    let ended = runtime.block_on(look::run(&arguments.data, &arguments.at));
    // The thread that waits for stdin has nothing to clean up.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
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
