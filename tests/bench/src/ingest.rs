//! What the control plane takes in: batches of records over TLS from many devices, beside bare inserts into the same schema.

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use holm_core::Timestamp;
use holm_protocol::{Line, Record};
use holm_tests::control_plane::ControlPlane;
use holm_tests::device::{Device, Link};
use rusqlite::{Connection, params};

use crate::report::{Figure, Report, Target};
use crate::{Scale, process};

const DEVICES: usize = 50;

/// Records of a batch, as devices make them when there is a backlog.
const BATCH: u64 = 500;

/// Batches of a device that are on their way, as devices have them.
const WINDOW: u64 = 8;

/// Records of a device in a round at full speed.
const BACKLOG: u64 = 10_000;

/// Rows of a transaction of the bare inserts: more gain nothing.
const BARE: u64 = 10_000;

/// Records a second that are asked for, of all devices together.
const RATE: u64 = 20_000;

/// All of it.
pub fn run(folder: &Path, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    eprintln!("ingest");
    let total = DEVICES as u64 * BACKLOG;
    let (mut ours, mut bare, mut wire, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..scale.rounds.min(3) {
        bare.push(bare_inserts(folder, total)?);
        let place = folder.join(format!("ingest-{round}"));
        std::fs::create_dir_all(&place)?;
        let cloud = ControlPlane::start(&place);
        let devices: Vec<Device> = (0..DEVICES).map(|n| Device::enrol(&cloud, &format!("d{n}"))).collect();
        let before = process::cpu(cloud.pid())?;
        let (elapsed, bytes) = backlog(&cloud, &devices)?;
        cpu.push((process::cpu(cloud.pid())? - before) * 10_000.0 / total as f64);
        ours.push(total as f64 / elapsed.as_secs_f64());
        wire.push(bytes as f64 / total as f64);
        if round == 0 {
            sustained(&cloud, &devices, scale, report)?;
            let (_, peak) = process::rss(cloud.pid())?;
            report.add(Figure::alone("ingest: peak RSS of the control plane", "MiB", vec![peak], Target::None));
        }
        let data = cloud.data().to_owned();
        cloud.stop();
        let wrong = wrong(&data, round == 0, scale)?;
        report.add(Figure::alone("ingest: records lost or doubled", "", vec![wrong], Target::AtMost(0.0)));
        std::fs::remove_dir_all(&place)?;
    }
    idle(folder, report)?;
    let plain = record(1).data.len() as f64;
    eprintln!("  a record's payload has {plain} bytes");
    report.add(Figure::pair(
        "ingest of a backlog, 50 devices (beside: bare inserts)",
        "1/s",
        ours,
        bare,
        Target::RatioAtLeast(0.5),
    ));
    report.add(Figure::alone("ingest: CPU per 10,000 records", "s", cpu, Target::None));
    report.add(Figure::alone("ingest: bytes of payload per record in batches", "B", wire, Target::None));
    Ok(())
}

/// Devices that are connected and say nothing.
fn idle(folder: &Path, report: &mut Report) -> anyhow::Result<()> {
    const IDLE: usize = 1_000;
    // Each is a file of this process too, and a shell may give it 1,024.
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let more = rustix::process::Rlimit { current: files.maximum, maximum: files.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, more)?;
    let place = folder.join("idle");
    std::fs::create_dir_all(&place)?;
    let cloud = ControlPlane::start(&place);
    let alone = process::pss(cloud.pid())?;
    let devices: Vec<Device> = (0..IDLE).map(|n| Device::enrol(&cloud, &format!("d{n}"))).collect();
    let enrolled = process::pss(cloud.pid())?;
    let links: Vec<Link> = devices.iter().map(|device| device.connect(&cloud)).collect();
    let connected = process::pss(cloud.pid())?;
    report.add(Figure::alone("control plane, just started: PSS", "MiB", vec![alone], Target::None));
    report.add(Figure::alone("control plane, 1,000 devices enrolled: PSS", "MiB", vec![enrolled], Target::None));
    report.add(Figure::alone("control plane, 1,000 idle devices: PSS", "MiB", vec![connected], Target::AtMost(150.0)));
    drop(links);
    cloud.stop();
    Ok(())
}

/// A reading of about a hundred bytes.
pub fn record(sequence: u64) -> Record {
    let value = 20.0 + (sequence % 977) as f64 / 97.0;
    let data = format!(
        r#"{{"flow":{value:.3},"unit":"l/min","valve":"north-{}","pressure":{:.2},"battery":{:.3},"ok":true}}"#,
        sequence % 7,
        2.0 + (sequence % 131) as f64 / 100.0,
        3.3 + (sequence % 53) as f64 / 1_000.0
    );
    let time = Timestamp(1_731_000_000_000 + i64::try_from(sequence).unwrap_or_default() * 100);
    Record { time, content_type: None, data: data.into_bytes() }
}

fn lines(first: u64, count: u64) -> Vec<Line> {
    (first..first + count).map(|sequence| Line::Record(record(sequence))).collect()
}

const STREAM: &str = "result.water-loss.flow";

/// Every device sends its backlog as fast as it is acknowledged; batches are made beforehand. Time and bytes of payload.
fn backlog(cloud: &ControlPlane, devices: &[Device]) -> anyhow::Result<(Duration, usize)> {
    let start = Barrier::new(devices.len() + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = devices
            .iter()
            .map(|device| {
                scope.spawn(|| {
                    let batches: Vec<_> = (0..BACKLOG / BATCH)
                        .map(|n| device.batch(STREAM, 1 + n * BATCH, &lines(1 + n * BATCH, BATCH)))
                        .collect();
                    let bytes: usize = batches.iter().map(|(_, payload)| payload.len()).sum();
                    let mut link = device.connect(cloud);
                    start.wait();
                    let mut upto = 0;
                    for (n, (topic, payload)) in (0_u64..).zip(&batches) {
                        while n * BATCH >= upto + WINDOW * BATCH {
                            upto = watermark(&mut link, device);
                        }
                        link.publish(topic, payload, u16::try_from(n + 1)?)?;
                    }
                    while upto < BACKLOG {
                        upto = watermark(&mut link, device);
                    }
                    anyhow::Ok(bytes)
                })
            })
            .collect();
        start.wait();
        let began = Instant::now();
        let mut bytes = 0;
        for thread in threads {
            bytes += thread.join().map_err(|_| anyhow::anyhow!("a device failed"))??;
        }
        Ok((began.elapsed(), bytes))
    })
}

fn watermark(link: &mut Link, device: &Device) -> u64 {
    link.ack(&device.thing).watermarks.first().map_or(0, |watermark| watermark.upto)
}

/// Seconds of the steady part.
fn seconds(scale: Scale) -> u64 {
    scale.time.as_secs().max(1) * 10
}

/// Every device sends a batch five times a second, all together so many records a second as are asked for.
fn sustained(cloud: &ControlPlane, devices: &[Device], scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    const PER_SECOND: u64 = 5;
    let count = RATE / DEVICES as u64 / PER_SECOND;
    let rounds = seconds(scale) * PER_SECOND;
    let before = process::cpu(cloud.pid())?;
    let began = Instant::now();
    let late: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = devices
            .iter()
            .map(|device| {
                scope.spawn(|| {
                    let mut link = device.connect(cloud);
                    let mut late = Vec::new();
                    for round in 0..rounds {
                        let due = began + Duration::from_millis(round * 1_000 / PER_SECOND);
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        let first = BACKLOG + 1 + round * count;
                        let (topic, payload) = device.batch(STREAM, first, &lines(first, count));
                        link.publish(&topic, &payload, 1)?;
                        while watermark(&mut link, device) < first + count - 1 {}
                        late.push(due.elapsed().as_secs_f64() * 1e3);
                    }
                    anyhow::Ok(late)
                })
            })
            .collect();
        let mut late = Vec::new();
        for thread in threads {
            late.extend(thread.join().map_err(|_| anyhow::anyhow!("a device failed"))??);
        }
        anyhow::Ok(late)
    })?;
    let elapsed = began.elapsed().as_secs_f64();
    let sent = rounds * count * DEVICES as u64;
    let mut sorted = late;
    sorted.sort_by(f64::total_cmp);
    let p99 = sorted.get(sorted.len() * 99 / 100).copied().unwrap_or(f64::NAN);
    report.add(Figure::alone(
        "ingest at 20,000/s asked, 50 devices: taken",
        "1/s",
        vec![sent as f64 / elapsed],
        Target::None,
    ));
    report.add(Figure::alone("ingest at 20,000/s: from due to watermark, p99", "ms", vec![p99], Target::None));
    let cpu = (process::cpu(cloud.pid())? - before) / elapsed;
    report.add(Figure::alone("ingest at 20,000/s: CPU of the control plane", "cores", vec![cpu], Target::None));
    Ok(())
}

/// Rows that are missing, or there more than once.
fn wrong(data: &Path, with_sustained: bool, scale: Scale) -> anyhow::Result<f64> {
    let connection = Connection::open(data.join("records.db")).context("cannot open the records")?;
    let more = if with_sustained { seconds(scale) * RATE } else { 0 };
    let expected = DEVICES as u64 * BACKLOG + more;
    let query = "SELECT count(*), count(DISTINCT stream || '/' || sequence), \
                 (SELECT sum(upto) FROM stream) FROM record";
    let (rows, distinct, upto): (i64, i64, i64) =
        connection.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let off = |found: i64| (found as f64 - expected as f64).abs();
    Ok(off(rows) + off(distinct) + off(upto))
}

/// The same rows, already in memory, by prepared statements in large transactions into the same schema: rows a second.
fn bare_inserts(folder: &Path, rows: u64) -> anyhow::Result<f64> {
    let path = folder.join("bare.db");
    let mut connection = Connection::open(&path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.pragma_update(None, "wal_autocheckpoint", 4_000)?;
    connection.execute_batch(include_str!("../../../cloud-sync/control-plane/src/records/schema/1000.sql"))?;
    let records: Vec<Record> = (1..=BACKLOG).map(record).collect();
    let began = Instant::now();
    let mut done = 0;
    // In the order in which they come from the devices: some of each in turn.
    let mut queue = (0..BACKLOG / BATCH).flat_map(|n| (1..=DEVICES as i64).map(move |stream| (stream, n * BATCH)));
    while done < rows {
        let transaction = connection.transaction()?;
        {
            let statement =
                "INSERT INTO record (stream, sequence, time, content_type, data) VALUES (?1, ?2, ?3, ?4, ?5)";
            let mut insert = transaction.prepare_cached(statement)?;
            for (stream, first) in queue.by_ref().take(usize::try_from(BARE / BATCH)?) {
                let those = records.iter().skip(usize::try_from(first)?).take(usize::try_from(BATCH)?);
                for (sequence, record) in (i64::try_from(first)? + 1..).zip(those) {
                    insert.execute(params![stream, sequence, record.time.0, record.content_type, record.data])?;
                    done += 1;
                }
            }
        }
        transaction.commit()?;
    }
    let rate = done as f64 / began.elapsed().as_secs_f64();
    drop(connection);
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
    }
    Ok(rate)
}
