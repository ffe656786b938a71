//! The command line of `holmd`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use holm_core::Timestamp;

/// The Holm agent: runs sandboxed functions on local events.
#[derive(Parser)]
#[command(name = "holmd", version)]
pub struct Arguments {
    /// What it shall do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `holmd` can do.
#[derive(Subcommand)]
pub enum Command {
    /// Run the node until SIGTERM or Ctrl-C.
    Run(Run),
    /// Read the configuration, list all problems, and do nothing else.
    CheckConfig(Options),
    /// Drive all outputs to their safe levels, and do nothing else. For who notices that the node has died, such as
    /// `ExecStopPost=` of its unit.
    SafeOutputs(Options),
    /// Enrol the device at a control plane, once. A node that runs connects by itself within seconds.
    Enrol(Enrol),
    /// Run recorded invocations again: for `holm trap show --replay` and `holm replay`.
    #[command(hide = true)]
    Replay(Replay),
    /// Answer what a database holds, without being its node: for `holm buffer open`.
    #[command(hide = true)]
    Look(Look),
}

#[expect(missing_docs, reason = "clap would show it instead of what the commands say")]
#[derive(clap::Args)]
pub struct Look {
    /// The folder of the database: a copy, since opening it brings it up to date and mends it.
    #[arg(long)]
    pub data: PathBuf,
    /// Where the socket is made. It ends when stdin does.
    #[arg(long)]
    pub at: PathBuf,
}

#[expect(missing_docs, reason = "clap would show it instead of what the commands say")]
#[derive(clap::Args)]
pub struct Replay {
    /// Native code with addresses, made here by `holm-compile --addresses`.
    #[arg(long)]
    pub native: PathBuf,
}

#[expect(missing_docs, reason = "clap would show it instead of what the commands say")]
#[derive(clap::Args)]
pub struct Enrol {
    /// The control plane, such as https://cloud.example:8443. Without it, enrol.toml in the data folder says all.
    #[arg(long, requires = "token", requires = "ca_hash")]
    pub cloud: Option<String>,
    /// What lets one device in, once. `-` reads it from stdin, so that it is in no list of processes.
    #[arg(long, requires = "cloud")]
    pub token: Option<String>,
    /// SHA-256 of the control plane's root certificate, in hexadecimal.
    #[arg(long, requires = "cloud")]
    pub ca_hash: Option<String>,
    /// The name that the device would like.
    #[arg(long, requires = "cloud")]
    pub thing: Option<String>,
    /// For a device that is enrolled there, and whose certificate was revoked, or ended long ago: another one, under the same name. With a
    /// token of `holm device replace NAME`. A node that runs tries it by itself.
    #[arg(long, requires = "cloud")]
    pub anew: bool,
    /// agent.toml, for its data folder. Without it, /etc/holm/agent.toml if there is one.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// The data folder, instead of the configured one.
    #[arg(long)]
    pub data: Option<PathBuf>,
}

#[expect(missing_docs, reason = "clap would show it instead of what the commands say")]
#[derive(clap::Args)]
pub struct Run {
    #[command(flatten)]
    pub options: Options,
    /// The clock stands still here, in milliseconds since 1970, until it is set forward over the admin socket: for
    /// `holm test`.
    #[arg(long, hide = true, value_name = "MS", value_parser = moment)]
    pub clock: Option<Timestamp>,
    /// Keep what invocations are given and do, payloads and all, for whoever may ask the admin socket: for `holm dev`.
    #[arg(long, hide = true)]
    pub tape: bool,
    /// End when stdin ends, and so with the one who started this.
    #[arg(long, hide = true)]
    pub tether: bool,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    let milliseconds: i64 = text.parse().map_err(|error: std::num::ParseIntError| error.to_string())?;
    if milliseconds > 0 { Ok(Timestamp(milliseconds)) } else { Err("that is before 1970".into()) }
}

#[expect(missing_docs, reason = "clap would show it instead of what the commands say")]
#[derive(clap::Args)]
pub struct Options {
    /// agent.toml; agent.d/*.toml beside it is read too. Without it, /etc/holm/agent.toml if there is one.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// The data folder, instead of the configured one.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// The MQTT address, instead of the configured one.
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// The board's profile, by name or file, instead of the configured one: `host-sim` is the simulator.
    #[arg(long)]
    pub board: Option<String>,
}
