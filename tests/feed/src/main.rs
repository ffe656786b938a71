//! `holm-feed`: what the demo feeds a node with, and the judge of what comes back.
//!
//! A recorded series of water flow is replayed fast to `water/flow`, again and again, shifted in time, and with leaks of
//! its own making if asked; this machine's own readings go to `machine/NAME`. Everything is published at QoS 1 with a
//! `holm-id`, so that a resend counts once. Alerts that functions publish are held against what is known of the series.
//!
//! It ends at SIGTERM or Ctrl-C: what was sent is acknowledged first, then one JSON line is the report. Every line of
//! stdout is one JSON object.

mod judge;
mod link;
mod machine;
mod series;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Parser;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::judge::Judge;
use crate::link::Link;
use crate::machine::Machine;
use crate::series::{Replay, Series};

/// Rows are sent this often, as many as are due.
const TICK: Duration = Duration::from_millis(5);

/// How long acknowledgements may take at the end.
const LAST_ACKS: Duration = Duration::from_secs(15);

/// After the last acknowledgement, alerts that are on their way get this long. They are settled with their events, so
/// only the way from the broker is left.
const LAST_ALERTS: Duration = Duration::from_secs(1);

/// Feed a node with a replayed series and this machine's own readings.
#[derive(Parser)]
struct Arguments {
    /// The broker.
    #[arg(long, default_value = "127.0.0.1:1883")]
    mqtt: SocketAddr,
    /// The series: `Time,Water flow [l/s]`.
    #[arg(long, default_value = "tests/data/water-flow.csv")]
    csv: PathBuf,
    /// Rows of the series per second.
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// Leak in every pass but the first: a twentieth of the flow is missing for some hours.
    #[arg(long)]
    leaks: bool,
    /// For where the leaks are.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// End after so many passes of the series.
    #[arg(long)]
    passes: Option<u64>,
    /// Seconds between two lines of progress.
    #[arg(long, default_value_t = 5)]
    every: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    anyhow::ensure!(arguments.rate > 0.0 && arguments.rate <= 1e6, "--rate is above 0 and at most 1000000");
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(&arguments))
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&arguments.csv)
        .with_context(|| format!("cannot read the series {}", arguments.csv.display()))?;
    let series = Series::parse(&text)?;
    let mut replay = Replay::new(&series, arguments.leaks.then_some(arguments.seed));
    let mut machine = Machine::find();
    let mut link = Link::open(arguments.mqtt, run_id()).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut second = interval(Duration::from_secs(1));
    let mut progress = interval(Duration::from_secs(arguments.every.max(1)));
    progress.tick().await;
    let started = Instant::now();
    let mut rows = 0_u64;
    let full = |replay: &Replay<'_>| arguments.passes.is_some_and(|passes| replay.pass() >= passes);
    while !full(&replay) {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = tick.tick() => {
                let due = (started.elapsed().as_secs_f64() * arguments.rate) as u64;
                while rows < due && !full(&replay) {
                    let reading = replay.next_reading();
                    link.publish("water/flow", &json!({ "time": reading.time, "flow": reading.flow })).await?;
                    rows += 1;
                }
            }
            _ = second.tick() => {
                for (topic, payload) in machine.readings() {
                    link.publish(&topic, &payload).await?;
                }
            }
            _ = progress.tick() => {
                say(&json!({ "event": "progress", "rows": rows, "pass": replay.pass(), "link": link.stats() }))?;
            }
        }
    }
    let acknowledged = timeout(LAST_ACKS, async {
        while link.unacknowledged() > 0 {
            sleep(TICK).await;
        }
    });
    let all = acknowledged.await.is_ok();
    sleep(LAST_ALERTS).await;
    let judge = Judge::new(replay.known(), replay.seams());
    let mut report = judge.report(&link.alerts());
    if let Value::Object(fields) = &mut report {
        fields.insert("event".into(), json!("report"));
        fields.insert("rows".into(), json!(rows));
        fields.insert("passes".into(), json!(replay.pass()));
        fields.insert("link".into(), link.stats());
        fields.insert("all_acknowledged".into(), json!(all));
        fields.insert("machine".into(), json!(machine.names()));
    }
    say(&report)
}

/// Begins the ids of this run's messages: another run within the node's memory of ids must not look like a resend.
#[expect(clippy::disallowed_methods, reason = "a program of its own, on the machine's clock")]
fn run_id() -> String {
    format!("{:x}", SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis())
}

fn say(value: &Value) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{value}").context("cannot write to stdout")
}
