//! What the end-to-end tests share: a real `holmd`, its admin socket, and an MQTT client that does exactly as told.
//!
//! The binaries are those beside the test's own (`target/debug`); `cargo xtask test` builds them first, with the
//! `mutants` feature, whose faults are off unless `HOLM_MUTANT` names one.

pub mod admin;
pub mod browser;
pub mod card;
pub mod clock;
pub mod cloud;
pub mod command;
pub mod control_plane;
pub mod device;
pub mod disk;
pub mod functions;
pub mod golden;
pub mod http;
pub mod machine;
pub mod mosquitto;
pub mod mqtt;
pub mod network;
pub mod node;
pub mod outbox;
pub mod proxy;
pub mod publisher;
pub mod sites;
pub mod tls;
pub mod trace;
pub mod watcher;
pub mod world;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Waits until `condition` gives a value, or fails with `what` after a minute.
pub fn eventually<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(Duration::from_secs(60), what, condition)
}

/// Waits until `condition` gives a value, or fails with `what` after this long.
pub fn within<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says that the calling test proves nothing on this machine, and why: `cargo xtask test` prints it, and fails unless
/// `tests/allowed-skips.txt` lists the test.
pub fn skip(why: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("a test without a name");
    println!("skipped: {name}: {why}");
    if let Some(file) = std::env::var_os("HOLM_SKIPS") {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(file).unwrap();
        // One write: tests run side by side.
        file.write_all(format!("{name}: {why}\n").as_bytes()).unwrap();
    }
}

/// A Python that has a module of Debian's packages, which need not be where the first `python3` looks.
pub fn python_with(module: &str) -> &'static str {
    let good = |python: &&&str| {
        let probe = Command::new(python).args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    };
    let found = ["python3", "/usr/bin/python3"].iter().find(good).copied();
    found.unwrap_or_else(|| panic!("apt-get install python3-{module}"))
}
