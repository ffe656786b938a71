//! `holm cloud`: the control plane, in this process; and what is asked of one that runs.
//!
//! On stdout it writes one JSON line when something was made that is told only once, and one when it is ready; on stderr it
//! tells people, and logs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use holm_control_plane::{CloudError, Copied, Options, Started, backup, chain, restore};
use holm_core::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::failure::Failure;
use crate::screen::Screen;
use crate::token::Token;

/// See `holm cloud --help`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Cloud {
    #[command(subcommand)]
    command: Option<Command>,
    /// Where to serve people, commands and enrolment
    #[arg(long, default_value = "0.0.0.0:8443", value_name = "ADDR")]
    https: SocketAddr,
    /// Where to serve devices
    #[arg(long, default_value = "0.0.0.0:8883", value_name = "ADDR")]
    mqtt: SocketAddr,
    /// A host name or address that it is known by; the first one is what devices are told [default: this host's name]
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Make another token for an operator, and show it
    #[arg(long)]
    new_token: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make, list and end tokens of those whom a control plane lets in
    Token(Token),
    /// Write everything that a control plane is, keys included, to one file; it may be running
    Backup {
        /// The file, which must not be there
        file: PathBuf,
    },
    /// Make a control plane out of a backup, in a folder that is empty or not there
    Restore {
        /// The file
        file: PathBuf,
    },
}

impl Cloud {
    /// Whether it is about a folder of this machine, and not to be asked of one that runs.
    pub(crate) fn is_here(&self) -> bool {
        !matches!(self.command, Some(Command::Token(_)))
    }

    /// Asks the control plane that is known here.
    pub(crate) async fn ask(&self, screen: &mut Screen) -> Result<(), Failure> {
        match &self.command {
            Some(Command::Token(token)) => token.run(screen).await,
            _ => Ok(()),
        }
    }

    pub(crate) fn run(self, data: Option<PathBuf>, screen: &mut Screen) -> ExitCode {
        let ended = match &self.command {
            Some(command) => command.run(data, screen),
            None => self.serve(data, screen),
        };
        match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                screen.complain(&failure);
                failure.code()
            }
        }
    }

    fn serve(self, data: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let Some(data) = data else {
            return Err(Failure::new("a control plane needs a folder of its own").next("holm cloud --data DIR"));
        };
        start_logging();
        let cannot = |error: std::io::Error| Failure::new(format!("cannot start: {error}"));
        // Several threads, so that handshakes and questions of people do not keep devices waiting.
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(cannot)?;
        let options = Options {
            data,
            https: self.https,
            mqtt: self.mqtt,
            names: self.names,
            new_token: self.new_token,
            clock: Arc::new(|| Timestamp(jiff::Timestamp::now().as_millisecond())),
        };
        let (stop, stopped) = watch::channel(false);
        let ended = runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
            let run = holm_control_plane::run(options, stopped, |started| announce(started, screen));
            let mut run = std::pin::pin!(run);
            let ended = tokio::select! {
                ended = run.as_mut() => ended,
                _ = terminate.recv() => { let _ = stop.send(true); run.await }
                _ = interrupt.recv() => { let _ = stop.send(true); run.await }
            };
            ended.map_err(|error| failure(&error))
        });
        // What still blocks must not keep a control plane alive that has drained.
        runtime.shutdown_background();
        ended
    }
}

impl Command {
    fn run(&self, data: Option<PathBuf>, screen: &Screen) -> Result<(), Failure> {
        let Some(data) = data else {
            return Err(Failure::new("say where the control plane is").next("holm cloud backup FILE --data DIR"));
        };
        let told = |what: &str, copied: Copied| {
            screen.note(format_args!("{what}: {} files, {}", copied.files, crate::look::bytes(copied.bytes)));
        };
        match self {
            Self::Backup { file } => {
                let copied = backup(&data, file).map_err(|error| Failure::new(chain(&error)))?;
                told(&format!("{} has all of {}", file.display(), data.display()), copied);
                screen.note("keep it as secret as the folder: the keys are in it");
            }
            Self::Restore { file } => {
                let now = Timestamp(jiff::Timestamp::now().as_millisecond());
                let (copied, leapt) = restore(file, &data, now).map_err(|error| Failure::new(chain(&error)))?;
                told(&format!("{} is as {} has it", data.display(), file.display()), copied);
                if leapt.rollouts > 0 {
                    screen.note(format_args!(
                        "rollouts that were on their way are paused ({}): see `holm rollout list`, and what devices run by `holm fleet`",
                        leapt.rollouts
                    ));
                }
                screen.note(format_args!("next: holm cloud --data {}", data.display()));
                if let Some(targets) = leapt.targets {
                    screen.note(format_args!(
                        "then, on the laptop that has published last: holm republish --restored. If it had signed more than targets {targets}, \
                         devices have seen that, and refuse this repository (`older-metadata`) until it is back"
                    ));
                }
            }
            // See `Cloud::ask`.
            Self::Token(_) => {}
        }
        Ok(())
    }
}

fn failure(error: &CloudError) -> Failure {
    let failure = Failure::new(format!("the control plane cannot go on: {}", chain(error)));
    match error {
        CloudError::InUse { .. } => failure.next("is another `holm cloud` running with this folder?"),
        CloudError::Listen { .. } => failure.next("name other addresses with --https and --mqtt"),
        _ => failure,
    }
}

/// Whoever started us may have closed the pipes; that is no reason not to serve.
fn announce(started: &Started, screen: &mut Screen) {
    let Started { https, mqtt, names, root, root_hash, token } = started;
    let host = names.first().map_or("localhost", String::as_str);
    if let Some(token) = token {
        let made = serde_json::json!({ "event": "made", "token": token, "ca": root, "ca_hash": root_hash });
        let _ = screen.json(&made);
        screen.note(format_args!("made: an operator's token; it is shown this once, and only its hash is kept\n"));
        screen.note(format_args!("  {token}\n"));
        screen.note(format_args!("trust: {} (SHA-256 {root_hash})", root.display()));
        screen
            .note("       its key, root.key beside it, is needed again in two years: better kept elsewhere until then");
        screen.note(format_args!("next:  holm login https://localhost:{} --ca {}", https.port(), root.display()));
        screen.note("then:  holm device enrol-token --group GROUP");
        screen.note(format_args!("pages: https://localhost:{}, with the same token", https.port()));
    }
    let ready = serde_json::json!({
        "event": "ready",
        "https": https.to_string(),
        "mqtt": mqtt.to_string(),
        "ca_hash": root_hash,
        "pid": std::process::id(),
    });
    let _ = screen.json(&ready);
    tracing::info!(%https, %mqtt, host, names = names.join(", "), "ready");
}

/// To stderr. `HOLM_LOG` filters by level and target, as for `holmd`.
fn start_logging() {
    use std::io::IsTerminal as _;
    use tracing::level_filters::LevelFilter;
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::prelude::*;
    let filter = std::env::var("HOLM_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    // It fails only if there is one already.
    let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
}
