//! W2: state for every event.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::generator::{Dialect, Generator, Until, Work};
use crate::holmd::Holmd;
use crate::report::{Figure, Report, Target};
use crate::{Scale, baseline, node, process};

const WINDOW: u64 = 64;
const PAYLOAD: usize = 4096;

/// Rounds of both sides, then the counters.
pub fn run(folder: &Path, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    let (broker, address) = baseline::mosquitto(folder)?;
    let client = baseline::client(&address, 1, true, baseline::BATCH)?;
    let data = node::prepare(folder, "w2", &node::w2()?)?;
    let holmd = Holmd::start(&data)?;
    let mut native = Generator::connect(&address, "generator", 1, Dialect::PLAIN)?;
    let mut ours = Generator::connect(&holmd.mqtt, "generator", 1, Dialect::PLAIN)?;
    let (mut rates, mut native_rates, mut cpu, mut native_cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut syncs = Vec::new();
    let (mut total, mut native_total) = (0, 0);
    for round in 0..scale.rounds.min(5) {
        eprintln!("W2, round {}", round + 1);
        let (used, start) = (process::cpu(broker.pid())? + process::cpu(client.pid())?, Instant::now());
        let done = native.drive(Work::Blobs(PAYLOAD), WINDOW, Until::Time(scale.time))?;
        // Mosquitto acknowledges what the client has yet to handle: the round ends when it has.
        native_total += done.events;
        let handled = native.finish("w2/end")?;
        if handled != native_total {
            bail!("the native client handled {handled} of {native_total} events");
        }
        native_rates.push(done.events as f64 / start.elapsed().as_secs_f64());
        let used = process::cpu(broker.pid())? + process::cpu(client.pid())? - used;
        native_cpu.push(used * 10_000.0 / done.events as f64);

        let commits = || holmd.figure("store", "commits");
        let before = commits()?;
        let (used, start) = (process::cpu(holmd.pid)?, Instant::now());
        let done = ours.drive(Work::Blobs(PAYLOAD), WINDOW, Until::Time(scale.time))?;
        total += done.events;
        let deadline = Instant::now() + Duration::from_secs(20);
        // An acknowledged event may wait in the inbox for its second function.
        while holmd.figure("inbox", "parked")? != 0 {
            if Instant::now() > deadline {
                bail!("the inbox does not empty: {}", holmd.get("/v1/status")?);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        rates.push(done.events as f64 / start.elapsed().as_secs_f64());
        cpu.push((process::cpu(holmd.pid)? - used) * 10_000.0 / done.events as f64);
        syncs.push((commits()? - before) as f64 / done.events as f64);
    }
    holmd.stop()?;
    let wrong = check(&data, total)?;
    report.add(Figure::pair(
        "W2 q1 durable, 2 x 4 KiB functions, 64 in flight",
        "1/s",
        rates,
        native_rates,
        Target::None,
    ));
    report.add(Figure::pair("W2 CPU per 10,000", "s", cpu, native_cpu, Target::None));
    report.add(Figure::alone("W2 syncs per event", "", syncs, Target::None));
    report.add(Figure::alone("W2 counters that are wrong, of 20", "", vec![wrong], Target::AtMost(0.0)));
    Ok(())
}

/// Reads the counters after the end; answers how many are not what was sent.
fn check(data: &Path, total: u64) -> anyhow::Result<f64> {
    let opened = holm_store::OpenOptions::new(data).open()?;
    let reader = opened.store.reader()?;
    let mut wrong = 0;
    for function in 0..20_u64 {
        let name = node::w2_name(function as usize).into();
        let value = reader.get(&name, &"n".into())?.value.unwrap_or_default();
        let counted: u64 = String::from_utf8_lossy(&value).parse().unwrap_or_default();
        // Sequences begin at 1, and go to topic `sequence % 10`.
        let topic = function / 2;
        let expected = total / 10 + u64::from(topic != 0 && topic <= total % 10);
        if counted != expected {
            eprintln!("stateful{function}: counted {counted}, sent {expected}");
            wrong += 1;
        }
    }
    Ok(f64::from(wrong))
}
