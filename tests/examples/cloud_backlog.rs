//! A backlog against the scripted control plane: how fast it drains, how much memory that takes, and what an idle link costs.
//!
//! `cargo build -p holm-agent -p holm-tests --examples --bins && target/debug/examples/cloud_backlog 1000000`

use std::path::Path;
use std::time::{Duration, Instant};

use holm_store::{Lane, OpenOptions, OutboxCaps, Write};
use holm_tests::cloud::Plane;
use holm_tests::node::{Node, Start};

/// `VmRSS` or `VmHWM` of a process, in KiB (proc(5)).
fn memory(node: &Node, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid)).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn fill(data: &Path, rows: u64) {
    let caps = OutboxCaps { bytes: 1 << 32, stream_bytes: 1 << 32, ..OutboxCaps::default() };
    let opened = OpenOptions { caps, ..OpenOptions::new(data) }.open().unwrap();
    let writer = opened.writer;
    let writer = std::thread::spawn(move || writer.run());
    let filler = "x".repeat(70);
    for chunk in (1..=rows).collect::<Vec<_>>().chunks(2_000) {
        let row = |number: &u64| Write::Outbox {
            lane: Lane::Results,
            stream: format!("result.flow.s{}", number % 4).into(),
            created: holm_core::Timestamp(4_000_000_000_000),
            content_type: None,
            data: format!("{{\"n\":{number},\"v\":{},\"f\":\"{filler}\"}}", number * 7919 % 1000).into(),
        };
        opened.store.commit(chunk.iter().map(row).collect()).unwrap();
    }
    opened.store.close();
    writer.join().unwrap();
}

fn main() {
    let rows: u64 = std::env::args().nth(1).map_or(100_000, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::start(folder.path());
    let data = folder.path().join("data");
    let wait = |what: &str, condition: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(600);
        while !condition() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let state = |node: &Node| node.admin.get("/v1/status")["cloud"]["state"].as_str().map(str::to_owned);

    let off = Start { config: "[cloud]\nenabled = false\n", ..Start::new(&data) }.run();
    let _ = off.admin.get("/v1/status");
    std::thread::sleep(Duration::from_secs(3));
    let without = memory(&off, "VmRSS");
    off.stop();
    plane.enrol(&data, "pi3");
    let before = plane.proxy.bytes();
    let node = Start::new(&data).run();
    wait("connected", &|| state(&node).as_deref() == Some("connected"));
    std::thread::sleep(Duration::from_secs(40));
    println!("memory: {without} KiB without, {} KiB connected and idle", memory(&node, "VmRSS"));
    println!("a connect with its questions and its report: {} bytes of TLS", plane.proxy.bytes() - before);
    let before = plane.proxy.bytes();
    let asked = plane.core.state().asked;
    plane.core.state().unasked = false;
    plane.core.ring("pi3");
    wait("asked", &|| plane.core.state().asked > asked + 3);
    println!("a doorbell with 4 questions: {} bytes of TLS", plane.proxy.bytes() - before);
    node.stop();

    fill(&data, rows);
    let config = "[store]\noutbox = \"4GiB\"\n";
    let off = Start { config: "[store]\noutbox = \"4GiB\"\n[cloud]\nenabled = false\n", ..Start::new(&data) }.run();
    println!("a start with the backlog and no link: peak {} KiB", memory(&off, "VmHWM"));
    off.stop();
    let before = plane.proxy.bytes();
    let node = Start { config, ..Start::new(&data) }.run();
    let start = Instant::now();
    let most = std::cell::Cell::new(0);
    wait("drained", &|| {
        most.set(most.get().max(memory(&node, "VmRSS")));
        plane.core.state().records("pi3") as u64 >= rows
    });
    let took = start.elapsed();
    wait("deleted", &|| {
        let status = node.admin.get("/v1/status");
        status["outbox"].as_array().unwrap().iter().all(|lane| lane["rows"] == 0)
    });
    println!(
        "backlog: {rows} records in {took:?}, {:.0}/s; {:.1} bytes of TLS each; at most {} KiB while it drained",
        rows as f64 / took.as_secs_f64(),
        (plane.proxy.bytes() - before) as f64 / rows as f64,
        most.get()
    );
    node.stop();
}
