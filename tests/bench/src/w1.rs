//! W1: throughput, round trips, processor time, syncs and bytes.

use std::path::Path;
use std::time::Duration;

use crate::generator::{Dialect, Generator, Round, Until, Work};
use crate::holmd::Holmd;
use crate::report::{Figure, Report, Target};
use crate::{Scale, baseline, node, process, reference};

/// Events in flight for throughput.
const WINDOW: u64 = 64;

/// What the baseline does on a quiet machine, from the notes on performance: events a second at QoS 0 and 1.
const QUIET: [f64; 2] = [62_780.0, 34_035.0];

/// Before every round.
const WARM_UP: Duration = Duration::from_millis(150);

/// One side: where it listens and which processes are its own.
pub(crate) struct Side {
    generator: Generator,
    pids: Vec<u32>,
    pub(crate) rates: Vec<f64>,
    pub(crate) cpu: Vec<f64>,
    cpu_single: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    stalls: Vec<f64>,
    wakes: Vec<f64>,
}

impl Side {
    pub(crate) fn new(address: &str, qos: u8, pids: Vec<u32>) -> anyhow::Result<Self> {
        let generator = Generator::connect(address, "generator", qos, Dialect::PLAIN)?;
        let empty = Vec::new;
        Ok(Self {
            generator,
            pids,
            rates: empty(),
            cpu: empty(),
            cpu_single: empty(),
            p50: empty(),
            p99: empty(),
            stalls: empty(),
            wakes: empty(),
        })
    }

    fn cpu(&self) -> anyhow::Result<f64> {
        self.pids.iter().map(|pid| process::cpu(*pid)).sum()
    }

    pub(crate) fn round(&mut self, scale: Scale) -> anyhow::Result<()> {
        self.generator.drive(Work::Readings, WINDOW, Until::Time(WARM_UP))?;
        let (cpu, wakes) = (self.cpu()?, self.wakes()?);
        let round = self.generator.drive(Work::Readings, WINDOW, Until::Time(scale.time))?;
        self.rates.push(round.rate());
        self.cpu.push((self.cpu()? - cpu) * 10_000.0 / round.events as f64);
        self.wakes.push((self.wakes()? - wakes) / round.events as f64);
        let cpu = self.cpu()?;
        let round = self.generator.drive(Work::Readings, 1, Until::Count(scale.trips))?;
        self.cpu_single.push((self.cpu()? - cpu) * 10_000.0 / round.events as f64);
        self.p50.push(round.rtt(0.5));
        self.p99.push(round.rtt(0.99));
        self.stalls.push(round.stalls_per_million());
        Ok(())
    }

    fn wakes(&self) -> anyhow::Result<f64> {
        let mut sum = 0;
        for pid in &self.pids {
            sum += process::switches(*pid)?.0;
        }
        Ok(sum as f64)
    }
}

/// Rounds of both sides, A B A B. `between` runs before and after each round of ours.
fn interleave(
    qos: u8,
    scale: Scale,
    native: &mut Side,
    ours: &mut Side,
    report: &mut Report,
    mut between: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for round in 0..scale.rounds {
        eprintln!("W1 at QoS {qos}, round {} of {}", round + 1, scale.rounds);
        native.round(scale)?;
        between()?;
        ours.round(scale)?;
        between()?;
    }
    let quiet = QUIET.get(usize::from(qos)).copied().unwrap_or_default();
    report.check_baseline(&format!("W1 q{qos}"), &native.rates, quiet);
    Ok(())
}

/// QoS 0.
pub fn quality_0(folder: &Path, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    let (broker, address) = baseline::mosquitto(folder)?;
    let client = baseline::client(&address, 0, false, baseline::BATCH)?;
    let data = node::prepare(folder, "w1q0", &[node::w1()?])?;
    let holmd = Holmd::start(&data)?;
    let mut native = Side::new(&address, 0, vec![broker.pid(), client.pid()])?;
    let mut ours = Side::new(&holmd.mqtt, 0, vec![holmd.pid])?;
    interleave(0, scale, &mut native, &mut ours, report, || Ok(()))?;
    let (n, o) = (native, ours);
    report.add(Figure::pair("W1 q0 throughput, 64 in flight", "1/s", o.rates, n.rates, Target::RatioAtLeast(1.2)));
    report.add(Figure::pair("W1 q0 round trip p50", "us", o.p50, n.p50, Target::RatioAtMost(1.2)));
    report.add(Figure::pair("W1 q0 round trip p99", "us", o.p99, n.p99, Target::RatioAtMost(1.5)));
    report.add(Figure::pair("W1 q0 CPU per 10,000 (aim 0.5)", "s", o.cpu, n.cpu, Target::RatioAtMost(0.75)));
    report.add(Figure::pair("W1 q0 CPU per 10,000, 1 in flight", "s", o.cpu_single, n.cpu_single, Target::None));
    report.add(Figure::pair("W1 q0 waits per event", "", o.wakes, n.wakes, Target::None));
    report.add(Figure::pair("W1 q0 trips of 35-50 ms", "ppm", o.stalls, n.stalls, Target::AtMost(500.0)));
    holmd.stop()?;
    Ok(())
}

/// As a client of a broker of its own, of the same kind as the baseline's. At QoS 1 its publishes are kept until that
/// broker has acknowledged them, and the events until they are settled; the baseline keeps nothing.
pub fn external(folder: &Path, qos: u8, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    let (broker, address) = baseline::mosquitto(folder)?;
    let client = baseline::client(&address, qos, false, baseline::BATCH)?;
    let (own_broker, own_address) = baseline::mosquitto(folder)?;
    let data = node::prepare(folder, &format!("external{qos}"), &[node::w1()?])?;
    let holmd = Holmd::start_external(&data, &own_address)?;
    let mut native = Side::new(&address, qos, vec![broker.pid(), client.pid()])?;
    let mut ours = Side::new(&own_address, qos, vec![own_broker.pid(), holmd.pid])?;
    interleave(qos, scale, &mut native, &mut ours, report, || Ok(()))?;
    let (n, o) = (native, ours);
    let name = |figure: &str| format!("external broker, W1 q{qos} {figure}");
    let least = if qos == 0 { Target::None } else { Target::RatioAtLeast(0.9) };
    report.add(Figure::pair(name("throughput, 64 in flight"), "1/s", o.rates, n.rates, least));
    report.add(Figure::pair(name("CPU per 10,000, brokers included"), "s", o.cpu, n.cpu, Target::RatioAtMost(1.2)));
    report.add(Figure::pair(name("round trip p50"), "us", o.p50, n.p50, Target::None));
    report.add(Figure::pair(name("round trip p99"), "us", o.p99, n.p99, Target::None));
    holmd.stop()?;
    Ok(())
}

/// QoS 1, durable.
pub fn quality_1(folder: &Path, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    let (broker, address) = baseline::mosquitto(folder)?;
    let client = baseline::client(&address, 1, false, baseline::BATCH)?;
    let data = node::prepare(folder, "w1q1", &[node::w1()?])?;
    let holmd = Holmd::start(&data)?;
    let mut native = Side::new(&address, 1, vec![broker.pid(), client.pid()])?;
    let mut ours = Side::new(&holmd.mqtt, 1, vec![holmd.pid])?;
    // This disk is shared as well: its own commit is timed on both sides of each of our rounds.
    let mut commits = Vec::new();
    interleave(1, scale, &mut native, &mut ours, report, || {
        commits.push(reference::measure(folder, 300, 1)?.commit_p50);
        Ok(())
    })?;
    let commit: Vec<f64> = commits.chunks(2).map(|pair| pair.iter().sum::<f64>() / pair.len() as f64).collect();
    let (n, o) = (native, &mut ours);
    let allowed = n.p50.iter().zip(&commit).map(|(p50, commit)| p50 + 1.3 * commit).collect();
    let (rates, p50, p99) = (o.rates.clone(), o.p50.clone(), o.p99.clone());
    report.add(Figure::pair("W1 q1 throughput, 64 in flight", "1/s", rates, n.rates, Target::RatioAtLeast(1.0)));
    report.add(Figure::alone("this disk's own commit, SQLite WAL FULL, p50", "us", commit, Target::None));
    let name = "W1 q1 round trip p50 (beside: baseline + 1.3 commits)";
    report.add(Figure::pair(name, "us", p50.clone(), allowed, Target::RatioAtMost(1.0)));
    report.add(Figure::pair("W1 q1 round trip p50", "us", p50, n.p50, Target::None));
    report.add(Figure::pair("W1 q1 round trip p99", "us", p99, n.p99, Target::None));
    report.add(Figure::pair("W1 q1 CPU per 10,000", "s", o.cpu.clone(), n.cpu, Target::None));
    report.add(Figure::pair(
        "W1 q1 CPU per 10,000, 1 in flight",
        "s",
        o.cpu_single.clone(),
        n.cpu_single,
        Target::None,
    ));
    report.add(Figure::pair("W1 q1 waits per event", "", o.wakes.clone(), n.wakes, Target::None));
    report.add(Figure::pair("W1 q1 trips of 35-50 ms", "ppm", o.stalls.clone(), n.stalls, Target::None));
    drop((client, broker));
    let disk = Disk { folder, scale, node: &holmd };
    disk.measure(
        "plain clients (no row per event)",
        &mut ours.generator,
        &[(WINDOW, 16.0), (256, 32.0)],
        true,
        report,
    )?;
    drop(ours);
    let dialect = Dialect { v5: true, durable: false, named: true };
    let mut named = Generator::connect(&holmd.mqtt, "named", 1, dialect)?;
    disk.measure("an id on every event", &mut named, &[(WINDOW, 16.0)], true, report)?;
    drop(named);
    let dialect = Dialect { v5: false, durable: true, named: false };
    let mut kept = Generator::connect(&holmd.mqtt, "kept", 1, dialect)?;
    disk.measure("a persistent session", &mut kept, &[(WINDOW, 16.0)], false, report)?;
    holmd.stop()?;
    Ok(())
}

/// Syncs and bytes of a node.
struct Disk<'a> {
    folder: &'a Path,
    scale: Scale,
    node: &'a Holmd,
}

impl Disk<'_> {
    fn measure(
        &self,
        who: &str,
        generator: &mut Generator,
        windows: &[(u64, f64)],
        bytes_count: bool,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        for (window, events_per_sync) in windows {
            let (mut syncs, mut bytes, mut bare, mut rates) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for _ in 0..self.scale.rounds.min(3) {
                generator.drive(Work::Readings, *window, Until::Time(WARM_UP))?;
                let (commits, written) = (self.commits()?, process::written(self.node.pid)?);
                let round: Round = generator.drive(Work::Readings, *window, Until::Time(self.scale.time))?;
                let commits = self.commits()? - commits;
                syncs.push(commits as f64 / round.events as f64);
                bytes.push((process::written(self.node.pid)? - written) as f64 / round.events as f64);
                rates.push(round.rate());
                let group = (round.events / commits.max(1)).max(1);
                bare.push(reference::measure(self.folder, 20_000, group)?.bytes);
            }
            let target = Target::AtMost(1.0 / events_per_sync);
            let name = format!("W1 q1, {who}, {window} in flight: syncs per event (1/{events_per_sync})");
            report.add(Figure::alone(name, "", syncs, target));
            let name = format!("W1 q1, {who}, {window} in flight: bytes per event (beside: bare inserts)");
            let target = if bytes_count { Target::RatioAtMost(2.0) } else { Target::None };
            report.add(Figure::pair(name, "B", bytes, bare, target));
            report.add(Figure::alone(
                format!("W1 q1, {who}, {window} in flight: throughput"),
                "1/s",
                rates,
                Target::None,
            ));
        }
        Ok(())
    }

    fn commits(&self) -> anyhow::Result<u64> {
        self.node.figure("store", "commits")
    }
}

/// What [`load`] is put on.
#[derive(Debug, Clone, Copy)]
pub enum Loaded {
    /// A node with the broker inside.
    Node,
    /// A node and a broker that is not its own.
    External,
    /// The native client, with this setting of rumqttc, and its broker.
    Native(usize),
}

/// Load for a profiler.
pub fn load(
    qos: u8,
    in_flight: u64,
    time: Duration,
    side: Loaded,
    hook: Option<&str>,
    dialect: Dialect,
) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(".")?;
    let (mut children, mut running) = (Vec::new(), None);
    let (address, pids) = if let Loaded::Native(batch) = side {
        let (broker, address) = baseline::mosquitto(folder.path())?;
        let client = baseline::client(&address, qos, false, batch)?;
        let pids = vec![broker.pid(), client.pid()];
        children.extend([broker, client]);
        (address, pids)
    } else {
        let data = node::prepare(folder.path(), "load", &[node::w1()?])?;
        if let Loaded::External = side {
            let (broker, address) = baseline::mosquitto(folder.path())?;
            let holmd = running.insert(Holmd::start_external(&data, &address)?);
            let pids = vec![broker.pid(), holmd.pid];
            children.push(broker);
            (address, pids)
        } else {
            let holmd = running.insert(Holmd::start(&data)?);
            (holmd.mqtt.clone(), vec![holmd.pid])
        }
    };
    let mut generator = Generator::connect(&address, "load", qos, dialect)?;
    generator.drive(Work::Readings, in_flight, Until::Time(Duration::from_millis(300)))?;
    let list: Vec<String> = pids.iter().map(u32::to_string).collect();
    let hook =
        hook.map(|hook| std::process::Command::new("sh").args(["-c", &format!("{hook} {}", list.join(","))]).spawn());
    let before: Vec<f64> = pids.iter().map(|pid| process::cpu(*pid)).collect::<anyhow::Result<_>>()?;
    let switches: Vec<(u64, u64)> = pids.iter().map(|pid| process::switches(*pid)).collect::<anyhow::Result<_>>()?;
    let round = generator.drive(Work::Readings, in_flight, Until::Time(time))?;
    let mut total = 0.0;
    for (pid, before) in pids.iter().zip(before) {
        let cpu = (process::cpu(*pid)? - before) * 10_000.0 / round.events as f64;
        println!("{pid}: CPU per 10,000 {cpu:.4} s");
        total += cpu;
    }
    println!("{:.0} events/s, CPU per 10,000 {total:.4} s", round.rate());
    if in_flight == 1 {
        println!("round trip p50 {:.1} us, p99 {:.1} us", round.rtt(0.5), round.rtt(0.99));
    }
    for (pid, (waits, losses)) in pids.iter().zip(switches) {
        let (now_waits, now_losses) = process::switches(*pid)?;
        let per = |now: u64, then: u64| (now - then) as f64 / round.events as f64;
        println!("{pid}: per event {:.3} waits, {:.3} preemptions", per(now_waits, waits), per(now_losses, losses));
    }
    if let Some(Ok(mut child)) = hook {
        let _ = child.wait();
    }
    if let Some(holmd) = running {
        holmd.stop()?;
    }
    drop(children);
    Ok(())
}
