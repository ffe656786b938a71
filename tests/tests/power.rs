//! Power cuts: what `holmd` writes, syncs and sends is recorded, and the disk is put together again as it would be if
//! the power had gone at some point: what was not synced is dropped, kept, reordered or torn.
//!
//! The oracle: every event whose PUBACK had left the process by then has taken effect once or waits in the inbox, and all
//! four traces of the counter function agree, acknowledged or not. The database opens every time, without salvage.
//!
//! `HOLM_CUTS` sets how many cuts are tried (default 400), `HOLM_SEED` the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use holm_core::Timestamp;
use holm_store::{InboxId, OpenOptions};
use holm_tests::functions;
use holm_tests::mqtt::{Client, Packet};
use holm_tests::node::Start;
use holm_tests::trace::{Disk, Fate, Step, parse};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng};

const CONFIG: &str = "[functions]\nhealth_window = \"0ms\"\n";

/// Events of the recorded run: enough for several checkpoints, which are the delicate part.
const EVENTS: u16 = 1500;
const WINDOW: usize = 16;

struct Recording {
    /// The files before the recorded run.
    before: Vec<(PathBuf, Vec<u8>)>,
    steps: Vec<Step>,
    /// The data folder of the recorded run, as strace names it.
    folder: PathBuf,
}

fn record(folder: &Path, mutant: Option<&str>) -> Recording {
    let node = Start { config: CONFIG, ..Start::new(folder) }.run();
    node.admin.deploy(&functions::example("counter", |text| text));
    node.stop();
    let before = ["holm.db", "holm.db-wal"].map(|name| folder.join(name));
    let before = before.into_iter().filter_map(|path| Some((path.clone(), std::fs::read(&path).ok()?))).collect();
    let output = folder.join("strace");
    let calls = "trace=pwrite64,pwritev,ftruncate,fallocate,fdatasync,fsync,sendto,write,writev,sendmsg,unlink,rename";
    let arguments = ["strace", "-f", "-qq", "-y", "-xx", "-s", "100000", "-e", calls, "-o"];
    let under: Vec<String> = arguments.iter().map(ToString::to_string).chain([output.display().to_string()]).collect();
    let node = Start { config: CONFIG, mutant, under: &under, ..Start::new(folder) }.run();
    let mut client = Client::connect(&node.mqtt, "publisher", true).unwrap();
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < EVENTS {
        while sent < EVENTS && usize::from(sent - acknowledged) < WINDOW {
            sent += 1;
            let payload = format!(r#"{{"id":"{sent}"}}"#);
            client.publish("count/k", payload.as_bytes(), 1, sent, false, Some(&format!("event-{sent}"))).unwrap();
        }
        // Packet ids are event numbers, so the recorded PUBACKs name the events.
        let Packet::Ack(4, _, 0) = client.receive().unwrap() else { panic!("no acknowledgement") };
        acknowledged += 1;
    }
    // Not a clean end: that would sync everything.
    node.kill();
    let text = std::fs::read_to_string(&output).unwrap();
    assert!(!text.contains("pwritev") && !text.contains("fallocate"), "calls that the replay does not know");
    Recording { before, steps: parse(&text), folder: folder.to_owned() }
}

/// Event numbers of the PUBACKs in what was sent. The publisher subscribes to nothing, so there is nothing else.
fn pubacks(data: &[u8]) -> Vec<u16> {
    let mut numbers = Vec::new();
    let mut rest = data;
    while let [kind, length, body @ ..] = rest {
        let (packet, after) = body.split_at(usize::from(*length).min(body.len()));
        if let (0x40, [high, low, ..]) = (*kind, packet) {
            numbers.push(u16::from_be_bytes([*high, *low]));
        }
        rest = after;
    }
    numbers
}

/// Opens the disk of a cut and compares it with what had been promised.
fn check(files: &BTreeMap<PathBuf, Vec<u8>>, recorded: &Path, promised: &[u16]) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    for (path, data) in files {
        if let Ok(name) = path.strip_prefix(recorded)
            && matches!(name.to_str(), Some("holm.db" | "holm.db-wal"))
        {
            std::fs::write(folder.path().join(name), data).unwrap();
        }
    }
    let opened = OpenOptions::new(folder.path()).open().map_err(|error| format!("does not open: {error}"))?;
    if let Some(recovery) = opened.recovery {
        return Err(format!("was damaged: {}", recovery.reason));
    }
    let reader = opened.store.reader().unwrap();
    let namespace = "counter".into();
    let value = |key: &str| -> u64 {
        let value = reader.get(&namespace, &key.into()).unwrap().value;
        value.map_or(0, |value| String::from_utf8(value.to_vec()).unwrap().parse().unwrap())
    };
    // An event that no function had finished with in time is acknowledged when it is in the inbox.
    let rows = opened.store.due(Timestamp(i64::MAX), InboxId(0), usize::from(EVENTS)).unwrap();
    let parked: BTreeSet<String> =
        opened.store.parked(&rows).unwrap().iter().map(|row| row.event.id.to_string()).collect();
    let mut total = 0;
    for number in 1..=EVENTS {
        let waits = parked.contains(&format!("event-{number}"));
        match value(&format!("seen/{number}")) {
            0 if waits => {}
            0 if promised.contains(&number) => return Err(format!("event {number} was acknowledged and is lost")),
            1 if waits => return Err(format!("event {number} took effect and is still in the inbox")),
            times @ 2.. => return Err(format!("event {number} took effect {times} times")),
            times => total += times,
        }
    }
    let results = opened.store.outbox(Some("result.counter.n"), 0, usize::from(EVENTS) + 1).unwrap().len() as u64;
    if value("n") != total || results != total {
        return Err(format!("{total} events, the total is {}, and {results} results", value("n")));
    }
    Ok(())
}

fn cuts(recording: &Recording, count: u32) -> Result<BTreeMap<String, u32>, String> {
    let seed = std::env::var("HOLM_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_121);
    let mut random = StdRng::seed_from_u64(seed);
    let total = recording.steps.len();
    let mut points: Vec<usize> = (0..count).map(|_| random.random_range(0..=total)).collect();
    points.sort_unstable();
    let mut tried = BTreeMap::new();
    let mut disk = Disk::new(recording.before.clone());
    let mut promised = Vec::new();
    let mut at = 0;
    for point in points {
        for step in &recording.steps[at..point] {
            if let Step::Sent(data) = step {
                promised.extend(pubacks(data));
            }
            disk.step(step);
        }
        at = point;
        let fate = [Fate::Dropped, Fate::Kept, Fate::Reordered, Fate::Torn][random.random_range(0..4)];
        let files = disk.cut(fate, || random.next_u64());
        *tried.entry(format!("{fate:?}")).or_default() += 1;
        check(&files, &recording.folder, &promised).map_err(|words| {
            format!("cut after step {point} of {total}, {fate:?}, {} promised: {words}", promised.len())
        })?;
    }
    println!("seed {seed}, {total} steps, {} promised at the end, cuts: {tried:?}", promised.len());
    Ok(tried)
}

fn count() -> u32 {
    std::env::var("HOLM_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(400)
}

#[test]
fn no_power_cut_takes_an_acknowledged_event_or_half_of_an_effect() {
    let folder = tempfile::tempdir().unwrap();
    let recording = record(folder.path(), None);
    let acknowledged: usize =
        recording.steps.iter().map(|step| if let Step::Sent(data) = step { pubacks(data).len() } else { 0 }).sum();
    assert_eq!(acknowledged, usize::from(EVENTS), "the recording misses acknowledgements");
    cuts(&recording, count()).unwrap();
}

#[test]
fn the_test_catches_a_log_that_is_not_synced() {
    let folder = tempfile::tempdir().unwrap();
    let recording = record(folder.path(), Some("sync-normal"));
    let verdict = cuts(&recording, count());
    assert!(verdict.as_ref().is_err_and(|words| words.contains("lost")), "{verdict:?}");
}
