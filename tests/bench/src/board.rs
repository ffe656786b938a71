//! Sensors and lines on the simulator: how long an edge takes to its handler and out again, and what it costs to read
//! many sensors often. `holm-bench board`; both figures are only told, and held to what issue 4 asks.
//!
//! An edge is timed from the moment at which the simulated line came to rest, by `CLOCK_MONOTONIC`, to the moment at which
//! what its handler published (at QoS 0) has been read here from a socket: the way to the handler, and more.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use holm_bundle::Bundle;
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::holmd::Holmd;
use crate::node::example;
use crate::process;

const BOARD: &str = "[board]\nprofile = \"host-sim\"\n";

/// Sensors that are read ten times a second, on four buses.
const SENSORS: usize = 100;

/// Runs both and prints them.
pub fn run(time: Duration) -> anyhow::Result<()> {
    let parent = tempfile::tempdir()?;
    for (debounce, durable) in [(0, true), (0, false), (2, true)] {
        edges(parent.path(), debounce, durable, time)?;
    }
    for (what, trigger) in [
        ("are not read", None),
        ("are read for a threshold that nothing crosses", Some("above = 1000000")),
        ("start a function with every reading", Some("durable = false")),
    ] {
        sensors(parent.path(), what, trigger, time)?;
    }
    Ok(())
}

fn edges(parent: &Path, debounce: u64, durable: bool, time: Duration) -> anyhow::Result<()> {
    let config = format!(
        "{BOARD}[[gpio]]\nname = \"door\"\nline = \"GPIO17\"\ndirection = \"in\"\ndebounce = \"0ms\"\n\
         [[gpio]]\nname = \"lamp\"\nline = \"GPIO27\"\ndirection = \"out\"\nsafe = \"low\"\n\
         [[sim.edge]]\nline = \"door\"\nevery = \"10ms\"\n"
    );
    let node = Holmd::start_board(&parent.join(format!("edges-{debounce}-{durable}")), &config)?;
    let mut subscriber = subscribe(&node.mqtt, "state/door")?;
    let (manifest, component) = example("door")?;
    let manifest = manifest.replace("\"20ms\"", &format!("\"{debounce}ms\"\ndurable = {durable}"));
    node.deploy(&Bundle::pack(&manifest, &component)?.bytes)?;
    let end = Instant::now() + time;
    let mut took = Vec::new();
    while Instant::now() < end {
        let message = next(&mut subscriber)?;
        let now = clock_gettime(ClockId::Monotonic);
        let now = now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000;
        let edge: Value = serde_json::from_slice(&message)?;
        let at = edge.get("monotonic_us").and_then(Value::as_u64).context("no time in an edge")?;
        took.push(now.saturating_sub(at + debounce * 1000));
    }
    took.sort_unstable();
    let part = |part: f64| took.get((took.len() as f64 * part) as usize).copied().unwrap_or_default();
    println!(
        "{} edges, durable {durable}, beyond a debounce of {debounce} ms, to handler, output and subscriber: \
         p50 {} us, p99 {} us, p99.9 {} us, most {} us",
        took.len(),
        part(0.5),
        part(0.99),
        part(0.999),
        took.last().copied().unwrap_or_default()
    );
    node.stop()
}

fn sensors(parent: &Path, what: &str, trigger: Option<&str>, time: Duration) -> anyhow::Result<()> {
    let fan = "[[gpio]]\nname = \"fan-relay\"\nline = \"GPIO27\"\ndirection = \"out\"\nsafe = \"low\"\n";
    let mut config = [BOARD, fan].concat();
    let mut triggers = String::new();
    for number in 0..SENSORS {
        let (bus, address) = (number % 4, 0x10 + number / 4);
        config.push_str(&format!(
            "[[sensor]]\nname = \"s{number}\"\ndriver = \"register\"\nbus = \"i2c-{bus}\"\naddress = {address}\n\
             [[sensor.field]]\nchannel = \"temperature\"\nregister = 1\nbytes = 2\n"
        ));
        if let Some(trigger) = trigger {
            triggers.push_str(&format!(
                "[[trigger.sensor]]\nsensor = \"s{number}\"\nchannel = \"temperature\"\ninterval = \"100ms\"\n{trigger}\n"
            ));
        }
    }
    let node = Holmd::start_board(&parent.join(what.replace(' ', "-")), &config)?;
    let (manifest, component) = example("thermostat")?;
    let (head, rest) = manifest.split_once("[[trigger").context("no trigger in the manifest")?;
    let (_, rest) = rest.split_once("[permissions]").context("no permissions in the manifest")?;
    let manifest = format!("{head}{triggers}[permissions]{rest}");
    node.deploy(&Bundle::pack(&manifest, &component)?.bytes)?;
    std::thread::sleep(Duration::from_secs(1));
    let tries = || -> anyhow::Result<u64> {
        let board = node.get("/v1/board")?;
        let sensors = board.get("sensors").and_then(Value::as_array).context("no sensors")?;
        let tries = |key: &str| sensors.iter().filter_map(|sensor| sensor.get(key)?.as_u64()).sum::<u64>();
        if tries("failures") > 0 { bail!("a simulated sensor failed: {board}") } else { Ok(tries("tries")) }
    };
    let (begin, cpu, read, events) =
        (Instant::now(), process::cpu(node.pid)?, tries()?, node.figure("events", "accepted")?);
    std::thread::sleep(time);
    let (cpu, read) = (process::cpu(node.pid)? - cpu, tries()? - read);
    let events = node.figure("events", "accepted")? - events;
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{SENSORS} sensors that {what}: {:.2} % of a core, {:.0} readings/s, {:.0} events/s",
        100.0 * cpu / seconds,
        read as f64 / seconds,
        events as f64 / seconds
    );
    node.stop()
}

/// An MQTT 3.1.1 client that has subscribed to one topic at QoS 0.
fn subscribe(address: &str, topic: &str) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01b")?;
    packet(&mut stream)?;
    let length = u8::try_from(topic.len())?;
    let mut subscription = vec![0x82, length + 5, 0, 1, 0, length];
    subscription.extend(topic.as_bytes());
    subscription.push(0);
    stream.write_all(&subscription)?;
    packet(&mut stream)?;
    Ok(stream)
}

/// The payload of the next message at QoS 0.
fn next(stream: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let body = packet(stream)?;
    let topic = usize::from(*body.get(1).context("an empty message")?);
    Ok(body.get(2 + topic..).context("a short message")?.to_vec())
}

fn packet(stream: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        stream.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}
