//! `holm-bench`: measures `holmd` beside the same work in a native client behind mosquitto. `cargo xtask bench` builds
//! everything and runs it.
//!
//! Both sides are measured in turns, round by round, by the same load generator in the same run, because the machine is
//! shared and its speed changes from minute to minute: what counts is the ratio within a round. If the baseline itself
//! is far below what it does on a quiet machine, the run is void.
//!
//! | workload | events | what comes back |
//! | --- | --- | --- |
//! | W1 | `{"id","t","seq"}` on `sensors/<id>/temp` | `{"seq","f"}` on `out/<id>/fahrenheit`; for 16 % an alert |
//! | W2 | 4 KiB on ten topics, two stateful functions each | counters in the state, checked one by one |

mod baseline;
mod board;
mod extent;
mod generator;
mod holmd;
mod ingest;
mod node;
mod ota;
mod process;
mod record;
mod reference;
mod report;
mod soak;
mod w1;
mod w2;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use report::Report;

/// Measures holmd beside a native client behind mosquitto.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// Fewer and shorter rounds: for a look, not for a verdict.
    #[arg(long)]
    quick: bool,
    /// Only some parts: w1q0, w1q1, external, w2, record, extent, ingest, ota; or soak and idle, which take ten minutes and a quarter of
    /// an hour, and must be asked for.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where the figures go.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
}

/// What this program is started as by itself.
#[derive(Subcommand)]
enum Role {
    /// The native client.
    #[command(hide = true)]
    Client {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        qos: u8,
        #[arg(long)]
        stateful: bool,
        #[arg(long, default_value_t = baseline::BATCH)]
        batch: usize,
    },
    /// The reference table.
    #[command(hide = true)]
    Reference {
        #[arg(long)]
        folder: PathBuf,
        #[arg(long)]
        rows: u64,
        #[arg(long)]
        batch: u64,
    },
    /// Edges and sensors on the simulator.
    Board {
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
    /// Nothing but load on a node that runs W1, for a profiler.
    #[command(hide = true)]
    Load {
        #[arg(long)]
        qos: u8,
        #[arg(long, default_value_t = 64)]
        in_flight: u64,
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// The native client instead.
        #[arg(long)]
        baseline: bool,
        /// A program to run when the load is on: it gets the process ids as its last argument, with commas.
        #[arg(long)]
        hook: Option<String>,
        /// Settings of rumqttc.
        #[arg(long, default_value_t = baseline::BATCH)]
        batch: usize,
        /// MQTT 5, a persistent session and an id on every message.
        #[arg(long)]
        named: bool,
        /// A persistent session.
        #[arg(long)]
        durable: bool,
        /// With a broker that is not the node's.
        #[arg(long)]
        external: bool,
    },
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Rounds of each side.
    pub rounds: usize,
    /// How long a round of throughput is.
    pub time: Duration,
    /// Round trips per round.
    pub trips: u64,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holm-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.role {
        Some(Role::Client { port, qos, stateful, batch }) => return baseline::run_client(port, qos, stateful, batch),
        Some(Role::Board { seconds }) => return board::run(Duration::from_secs(seconds)),
        Some(Role::Reference { folder, rows, batch }) => return reference::run(&folder, rows, batch),
        Some(Role::Load { qos, in_flight, seconds, baseline, hook, batch, named, durable, external }) => {
            let side = match (baseline, external) {
                (true, _) => w1::Loaded::Native(batch),
                (_, true) => w1::Loaded::External,
                _ => w1::Loaded::Node,
            };
            let dialect = generator::Dialect { v5: named, durable, named };
            return w1::load(qos, in_flight, Duration::from_secs(seconds), side, hook.as_deref(), dialect);
        }
        None => {}
    }
    let scale = if arguments.quick {
        Scale { rounds: 3, time: Duration::from_millis(700), trips: 1500 }
    } else {
        Scale { rounds: 7, time: Duration::from_millis(1500), trips: 4000 }
    };
    let wanted = |part: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == part);
    // On a disk: /tmp is memory on many systems.
    let target = std::env::current_exe()?.parent().and_then(|folder| folder.parent()).map(PathBuf::from);
    let folder = tempfile::Builder::new().prefix("holm-bench-").tempdir_in(target.unwrap_or_else(|| ".".into()))?;
    let mut report = Report::default();
    if wanted("w1q0") {
        w1::quality_0(folder.path(), scale, &mut report)?;
    }
    if wanted("w1q1") {
        w1::quality_1(folder.path(), scale, &mut report)?;
    }
    if wanted("external") {
        w1::external(folder.path(), 0, scale, &mut report)?;
        w1::external(folder.path(), 1, scale, &mut report)?;
    }
    if wanted("w2") {
        w2::run(folder.path(), scale, &mut report)?;
    }
    if wanted("record") {
        record::run(folder.path(), scale, &mut report)?;
    }
    if wanted("extent") {
        extent::run(folder.path(), scale, &mut report)?;
    }
    if wanted("ingest") {
        ingest::run(folder.path(), scale, &mut report)?;
    }
    if wanted("ota") {
        ota::run(folder.path(), scale, &mut report)?;
    }
    if arguments.only.iter().any(|only| only == "idle") {
        ota::idle(folder.path(), &mut report)?;
    }
    if arguments.only.iter().any(|only| only == "soak") {
        soak::run(folder.path(), scale, &mut report)?;
    }
    println!();
    report.print();
    if let Some(parent) = arguments.json.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(&arguments.json, format!("{:#}\n", report.json()))?;
    println!("figures in {}", arguments.json.display());
    Ok(())
}
