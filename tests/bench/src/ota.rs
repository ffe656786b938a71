//! A device and its control plane, both as they are shipped, over TLS on loopback: how long a deployment takes and what it writes,
//! how fast a backlog drains while more comes in, what a record costs on the wire, and what the link costs in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use holm_bundle::Bundle;
use holm_core::Timestamp;
use holm_store::{Lane, OpenOptions, Opened, OutboxCaps, Write};
use holm_tests::control_plane::ControlPlane;
use holm_tests::mqtt::Client;
use holm_tests::publisher::Publisher;
use serde_json::Value;

use crate::holmd::Holmd;
use crate::report::{Figure, Report, Target};
use crate::{Scale, ingest, node, process};

/// Records of the backlog.
const BACKLOG: u64 = 1_000_000;

/// Streams of it.
const FLOWS: u64 = 16;

/// Bytes of the outbox: nothing of the backlog is dropped.
const OUTBOX: u64 = 2 << 30;

/// Rows of a transaction that makes it.
const CHUNK: u64 = 5_000;

/// Records a second that come in while it drains.
const MEANWHILE: u64 = 1_000;

/// A node that is enrolled with this control plane.
struct Enrolled<'a> {
    cloud: &'a ControlPlane,
    laptop: &'a Publisher,
    data: &'a Path,
}

/// All of it.
pub fn run(folder: &Path, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    eprintln!("over the air");
    let place = folder.join("ota");
    std::fs::create_dir_all(&place)?;
    let cloud = ControlPlane::start(&place);
    let laptop = Publisher::new(&place);
    laptop.ok(&cloud, &["key", "new", "--cloud"]);
    let data = place.join("device");
    enrol(&cloud, &data)?;
    let enrolled = Enrolled { cloud: &cloud, laptop: &laptop, data: &data };
    memory(&enrolled, &place.join("alone"), report)?;
    deployments(&enrolled, scale, report)?;
    backlog(&enrolled, report)?;
    cloud.stop();
    std::fs::remove_dir_all(&place)?;
    Ok(())
}

/// A day of a device that has nothing to say, by what a quarter of an hour of it costs.
pub fn idle(folder: &Path, report: &mut Report) -> anyhow::Result<()> {
    const LOOK: Duration = Duration::from_secs(900);
    eprintln!("an idle device, for a quarter of an hour");
    let place = folder.join("idle-link");
    std::fs::create_dir_all(&place)?;
    let cloud = ControlPlane::start(&place);
    let data = place.join("device");
    enrol(&cloud, &data)?;
    let node = start(&data)?;
    std::thread::sleep(Duration::from_secs(10));
    let before = number(&node, "/cloud/bytes_today")?;
    std::thread::sleep(LOOK);
    let bytes = number(&node, "/cloud/bytes_today")?.saturating_sub(before);
    let day = bytes as f64 * 86_400.0 / LOOK.as_secs_f64() / 1e3;
    report.add(Figure::alone("an idle connected device: on the wire in a day", "kB", vec![day], Target::AtMost(100.0)));
    node.stop()?;
    cloud.stop();
    Ok(())
}

fn enrol(cloud: &ControlPlane, data: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(Holmd::program()?);
    command.args(["enrol", "--cloud", &format!("https://{}", cloud.https), "--ca-hash", &cloud.ca_hash]);
    command.args(["--token", &cloud.enrolment_token("greenhouse"), "--thing", "d1", "--data"]).arg(data);
    let output = command.output().context("cannot run holmd")?;
    if !output.status.success() {
        bail!("not enrolled: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A node whose outbox has room for the backlog, when it is connected.
fn start(data: &Path) -> anyhow::Result<Holmd> {
    let node = Holmd::start_functions(data, "[store]\noutbox = \"2GiB\"\n")?;
    wait("the link", || Ok(value(&node, "/cloud/state")? == "connected"))?;
    Ok(node)
}

fn value(node: &Holmd, pointer: &str) -> anyhow::Result<Value> {
    let status = node.get("/v1/status")?;
    status.pointer(pointer).cloned().with_context(|| format!("no {pointer} in {status}"))
}

fn number(node: &Holmd, pointer: &str) -> anyhow::Result<u64> {
    value(node, pointer)?.as_u64().with_context(|| format!("{pointer} is no number"))
}

fn wait(what: &str, mut condition: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(600);
    while !condition()? {
        if Instant::now() > deadline {
            bail!("not within ten minutes: {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Two nodes side by side, so that they share the pages of the program alike.
fn memory(enrolled: &Enrolled<'_>, alone: &Path, report: &mut Report) -> anyhow::Result<()> {
    let (connected, alone) = (start(enrolled.data)?, Holmd::start(alone)?);
    std::thread::sleep(Duration::from_secs(3));
    let (ours, beside) = (process::pss(connected.pid)?, process::pss(alone.pid)?);
    report.add(Figure::alone("what the link costs, idle: PSS", "MiB", vec![ours - beside], Target::AtMost(4.0)));
    alone.stop()?;
    connected.stop()
}

/// From the command to its last word: the version runs, and is confirmed.
fn deployments(enrolled: &Enrolled<'_>, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    let Enrolled { cloud, laptop, data } = enrolled;
    let node = start(data)?;
    let (manifest, component) = node::example("counter")?;
    let (mut times, mut written) = (Vec::new(), Vec::new());
    for version in 1..=scale.rounds {
        // Another component each time, or there would be nothing to bring.
        let mut component = component.clone();
        component.extend([0, 2, 1, version as u8]);
        let manifest = manifest.replace("version = \"0.1.0\"", &format!("version = \"0.1.{version}\""));
        let bundle = Bundle::pack(&manifest, &component)?.bytes;
        laptop.publish(cloud, &laptop.bundle("counter.holm", &bundle), &["--profile", "x64-v1"]);
        let (there, before) = (files(data)?, process::written(node.pid)?);
        let release = format!("counter@0.1.{version}");
        let began = Instant::now();
        laptop.ok(cloud, &["deploy", &release, "--device", "d1", "--watch", "--health-window", "0s"]);
        times.push(began.elapsed().as_secs_f64());
        let new: u64 =
            files(data)?.into_iter().filter(|(path, _)| !there.contains_key(path)).map(|(_, size)| size).sum();
        let bytes = process::written(node.pid)?.saturating_sub(before);
        written.push(bytes as f64 / new.max(1) as f64);
        eprintln!("  {} bytes of component: {new} bytes of bundle and native code", component.len());
    }
    report.add(Figure::alone("a deployment, command to confirmed", "s", times, Target::AtMost(2.0)));
    report.add(Figure::alone(
        "a deployment: bytes written, by bytes of bundle and native code",
        "",
        written,
        Target::AtMost(1.5),
    ));
    node.stop()
}

/// Bundles and native code by path, with their sizes.
fn files(data: &Path) -> anyhow::Result<BTreeMap<std::path::PathBuf, u64>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let (path, metadata) = (entry.path(), entry.metadata()?);
            if metadata.is_dir() {
                folders.push(path);
            } else if folder.ends_with("bundles") || folder.ends_with("native") {
                found.insert(path, metadata.len());
            }
        }
    }
    Ok(found)
}

fn backlog(enrolled: &Enrolled<'_>, report: &mut Report) -> anyhow::Result<()> {
    let Enrolled { cloud, data, .. } = enrolled;
    let plain = fill(data)?;
    // Its figures are of this start, and it begins before anybody could ask. Those of the day are with them: some kilobytes.
    let began = Instant::now();
    let node = start(data)?;
    let over = AtomicBool::new(false);
    let (elapsed, peaks, sent) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| meanwhile(&node.mqtt, &over));
        let mut peaks = [0.0_f64; 2];
        let drained = wait("the backlog is taken", || {
            for (peak, pid) in peaks.iter_mut().zip([node.pid, cloud.pid()]) {
                *peak = peak.max(process::pss(pid)?);
            }
            Ok(number(&node, "/cloud/upload/acknowledged")? >= BACKLOG)
        });
        let elapsed = began.elapsed();
        over.store(true, Ordering::Relaxed);
        let sent = sender.join().map_err(|_| anyhow::anyhow!("the sender failed"))??;
        drained?;
        anyhow::Ok((elapsed, peaks, sent))
    })?;
    let records = number(&node, "/cloud/upload/acknowledged")?;
    let wire = number(&node, "/cloud/bytes_today")?;
    let [device, plane] = peaks;
    let each = wire as f64 / records as f64;
    eprintln!("  {sent} events meanwhile; a record has {plain:.1} bytes");
    let rate = BACKLOG as f64 / elapsed.as_secs_f64();
    report.add(Figure::pair(
        "a backlog of a million, 1,000 a second coming in (beside: 20,000)",
        "1/s",
        vec![rate],
        vec![20_000.0],
        Target::RatioAtLeast(1.0),
    ));
    report.add(Figure::pair(
        "a record on the wire, TLS included (beside: its JSON)",
        "B",
        vec![each],
        vec![plain],
        Target::RatioAtMost(0.25),
    ));
    report.add(Figure::alone("the device while it drains: greatest PSS", "MiB", vec![device], Target::None));
    report.add(Figure::alone("the control plane while it drains: greatest PSS", "MiB", vec![plane], Target::None));
    // What came in meanwhile arrives too, in order and once.
    wait("the rest", || {
        let rows = cloud.get("/v1/results?series=counter.n&order=latest&limit=1");
        Ok(rows.pointer("/rows/0/sequence").and_then(Value::as_u64) >= Some(sent))
    })?;
    node.stop()?;
    for flow in 0..FLOWS {
        in_order(cloud, &format!("bench.flow{flow}"), BACKLOG / FLOWS)?;
    }
    in_order(cloud, "counter.n", sent)
}

/// An error unless the control plane has so many records of a series, each of its numbers once and in their order.
fn in_order(cloud: &ControlPlane, series: &str, records: u64) -> anyhow::Result<()> {
    let answer = cloud.send("GET", &format!("/v1/export?series={series}&device=d1&format=ndjson"), b"");
    let mut next = 1;
    for line in answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let row: Value = serde_json::from_slice(line)?;
        if row["sequence"] != next {
            bail!("{series}: {row} where {next} was to come");
        }
        next += 1;
    }
    if next - 1 != records { bail!("{series}: {} records of {records}", next - 1) } else { Ok(()) }
}

/// Puts the backlog into the outbox of a node that does not run; the bytes of a record.
fn fill(data: &Path) -> anyhow::Result<f64> {
    let caps = OutboxCaps { bytes: OUTBOX, ..OutboxCaps::default() };
    let Opened { store, writer, lock, .. } = OpenOptions { caps, ..OpenOptions::new(data) }.open()?;
    let writer = std::thread::spawn(move || writer.run());
    #[allow(clippy::disallowed_methods)] // There is no node yet whose clock it could be.
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    // An old one would be dropped for its age.
    let now = Timestamp(i64::try_from(now.as_millis())?);
    let mut bytes = 0;
    for chunk in 0..BACKLOG / CHUNK {
        let rows = (chunk * CHUNK..(chunk + 1) * CHUNK).map(|number| {
            let record = ingest::record(number);
            bytes += record.data.len();
            Write::Outbox {
                lane: Lane::Results,
                // Each below what the outbox keeps of one.
                stream: format!("result.bench.flow{}", number * FLOWS / BACKLOG).into(),
                created: now,
                content_type: None,
                data: record.data.into(),
            }
        });
        store.commit(rows.collect())?;
    }
    store.close();
    let _ = writer.join();
    drop(lock);
    Ok(bytes as f64 / BACKLOG as f64)
}

/// Events that each record a result, so many a second, until it is over; how many.
fn meanwhile(address: &str, over: &AtomicBool) -> anyhow::Result<u64> {
    let mut client = Client::connect(address, "meanwhile", true)?;
    let began = Instant::now();
    let mut sent = 0;
    while !over.load(Ordering::Relaxed) {
        while sent < began.elapsed().as_millis() as u64 * MEANWHILE / 1_000 {
            client.publish(&format!("count/{}", sent % 7), br#"{"id":"x"}"#, 0, 0, false, None)?;
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(sent)
}
