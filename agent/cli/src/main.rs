//! `holm`: what people type. Everything it knows of a node comes over that node's admin socket, and of a control plane over
//! its API; `holm cloud` is the control plane itself.
//!
//! # Exit codes
//!
//! 0 done, 1 failed, 2 wrong usage, 3 done in part, 4 deployed and rolled back, 5 still queued. Whoever closes our output early (`holm events | head`)
//! ends us quietly with 0.

mod alias;
mod apply;
mod board;
mod buffer;
mod build;
mod card;
mod carry;
mod cc;
mod client;
mod cloud;
mod component;
mod config;
mod data;
mod deploy;
mod dev;
mod device;
mod diag;
mod dlq;
mod doctor;
mod documents;
mod embedded;
mod explain;
mod failure;
mod flash;
mod fleet;
mod functions;
mod http;
mod image;
mod imports;
mod invoke;
mod journal;
mod key;
mod keys;
mod login;
mod look;
mod native;
mod new;
mod own_node;
mod password;
mod plot;
mod programs;
mod progress;
mod project;
mod publish;
mod publish_agent;
mod release;
mod remote;
mod replay;
mod reply;
mod repository;
mod republish;
mod rerun;
mod restored;
mod results;
mod retention;
mod rollback;
mod rollout;
mod schema;
mod screen;
mod secret;
mod seed;
mod status;
mod strip;
mod symbols;
mod table;
mod tail;
mod test;
mod token;
mod toolchain;
mod top;
mod trap;
mod tuf;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::client::Client;
use crate::failure::Failure;
use crate::screen::Screen;

/// The one command for Holm: build functions, deploy them, and see what a node does.
#[derive(Parser)]
#[command(name = "holm", version, propagate_version = true)]
struct Arguments {
    /// The node's data folder [default: $HOLM_DATA, else ./.holm/data if it is there, else /var/lib/holm]
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a function to begin with, from a template
    New(new::New),
    /// Build a function and pack its bundle
    Build(build::Build),
    /// Compile C to a core module, of which `build` makes the component: for [build].command
    Cc(cc::Compile),
    /// Run functions here, and again whenever a file changes
    Dev(dev::Dev),
    /// Run a function's cases
    Test(test::Test),
    /// Deploy a bundle to the node on this machine, or a release to a device
    Deploy(deploy::Deploy),
    /// List the functions of the node, or change one
    Functions(functions::Functions),
    /// Show what the node does and holds
    Status(status::Status),
    /// Show sensors and lines
    Board(board::Board),
    /// Show what functions wrote to their logs
    Logs(tail::Logs),
    /// Show invocations, as they end
    Events(journal::Follow),
    /// Show the rows of a function's result series
    Results(results::Results),
    /// Dead letters: events that no attempt could handle
    Dlq(dlq::Dlq),
    /// What traps have left: look at it, and run it again here
    Trap(trap::Trap),
    /// Run a new version over the recorded events of the old one, and show what it would do else
    Replay(replay::Replay),
    /// The offline buffer: what waits for the cloud
    Buffer(buffer::Buffer),
    /// Hand one event to a function and say how it ended
    Invoke(invoke::Invoke),
    /// Look for what keeps you from working here, with a fix per line
    Doctor(doctor::Doctor),
    /// Say more about an error, by its code
    Explain(explain::Explain),
    /// Hash a password from stdin for [[mqtt.user]]
    Password(password::Password),
    /// Watch the node live
    Top(top::Top),
    /// The client of the code repository, for suites that test it
    #[command(hide = true)]
    Tuf(tuf::Tuf),
    /// Run a control plane, until SIGTERM or Ctrl-C; or look after the tokens of one that runs
    Cloud(cloud::Cloud),
    /// Remember a control plane and its token for the commands below
    Login(login::Login),
    /// Show the devices of the control plane
    Fleet(fleet::Fleet),
    /// Enrol devices of the control plane, look at them, end them
    Device(device::Device),
    /// The keys that code is signed with: make them, look at them, sign anew before they expire
    Key(key::Key),
    /// Sign a bundle, with native code for boards, and put it into the control plane's repository
    Publish(publish::Publish),
    /// Compile releases for engines that they have no native code for, and sign that: after a patch of the engine
    Republish(republish::Republish),
    /// Write a card for a device: an image, and what the device is told
    Flash(Box<flash::Flash>),
    /// Make images of cards, and boot them in QEMU
    Image(image::Image),
    /// Rollouts: changes of many devices, in stages
    Rollout(rollout::Rollout),
    /// Make groups and deployments what a file says
    Apply(apply::Apply),
    /// Take devices back to an older version of a function
    Rollback(rollback::Rollback),
    /// Parameters of functions on devices
    Config(config::Config),
    /// How long the control plane keeps what devices sent
    Retention(retention::Retention),
    /// Print the JSON Schema of a file, for editors
    Schema(schema::Schema),
    /// Names for versions, such as stable and canary, to deploy by
    Alias(alias::Alias),
    /// Secrets of devices: sealed here, and opened there
    Secret(secret::Secret),
    /// Print a completion script for a shell
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Write manual pages and completions, for packages
    #[command(hide = true)]
    Documents(documents::Documents),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut screen = Screen::new();
    let arguments = match arguments {
        // Has a runtime of its own.
        Arguments { data, command: Command::Cloud(cloud) } if cloud.is_here() => return cloud.run(data, &mut screen),
        others => others,
    };
    // One thread: a command waits for one socket at a time.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            screen.complain(&Failure::new(format!("cannot start: {error}")));
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(run(arguments, &mut screen));
    // A thread that still waits for a key must not keep us.
    runtime.shutdown_background();
    match ended {
        Ok(code) => code,
        Err(failure) => {
            screen.complain(&failure);
            failure.code()
        }
    }
}

async fn run(arguments: Arguments, screen: &mut Screen) -> Result<ExitCode, Failure> {
    let client = Client::new(data::folder(arguments.data));
    match arguments.command {
        Command::New(new) => new.run(screen)?,
        Command::Build(build) => build.run(screen)?,
        Command::Cc(compile) => return compile.run(),
        Command::Dev(dev) => return dev.run(screen).await,
        Command::Test(test) => return test.run(screen).await,
        Command::Deploy(deploy) => return deploy.run(&client, screen).await,
        Command::Functions(functions) => functions.run(&client, screen).await?,
        Command::Status(status) => status.run(&client, screen).await?,
        Command::Board(board) => board.run(&client, screen).await?,
        Command::Logs(logs) => logs.run(&client, screen).await?,
        Command::Events(follow) => follow.events(&client, screen).await?,
        Command::Results(results) if results.is_cloud() => results.run_cloud(screen).await?,
        Command::Results(results) => results.run(&client, screen).await?,
        Command::Dlq(dlq) => dlq.run(&client, screen).await?,
        Command::Trap(trap) => trap.run(&client, screen).await?,
        Command::Replay(replay) => replay.run(&client, screen).await?,
        Command::Buffer(buffer) => buffer.run(&client, screen).await?,
        Command::Invoke(invoke) => invoke.run(&client, screen).await?,
        Command::Doctor(doctor) => return doctor.run(&client, screen).await,
        Command::Schema(schema) => schema.run(screen)?,
        Command::Explain(explain) => explain.run(screen)?,
        Command::Password(password) => password.run(screen)?,
        Command::Top(top) => top.run(&client, screen).await?,
        Command::Tuf(tuf) => tuf.run(screen).await?,
        Command::Login(login) => login.run(screen).await?,
        Command::Fleet(fleet) => fleet.run(screen).await?,
        Command::Device(device) => device.run(screen).await?,
        Command::Rollout(rollout) => return rollout.run(screen).await,
        Command::Apply(apply) => return apply.run(screen).await,
        Command::Rollback(rollback) => return rollback.run(screen).await,
        Command::Alias(alias) => alias.run(screen).await?,
        Command::Retention(retention) => retention.run(screen).await?,
        Command::Secret(secret) => secret.run(screen).await?,
        Command::Config(config) => return config.run(screen).await,
        Command::Key(key) => key.run(screen).await?,
        Command::Republish(republish) => republish.run(screen).await?,
        Command::Publish(publish) => publish.run(screen).await?,
        Command::Flash(flash) => flash.run(screen).await?,
        Command::Image(image) => return image.run(screen).await,
        Command::Cloud(cloud) => cloud.ask(screen).await?,
        Command::Documents(documents) => documents.run(Arguments::command())?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "holm", &mut script);
            screen.bytes(&script)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Arguments::command().debug_assert();
    }
}
