//! `holm results`: of a node's own rows and of those that the control plane got, by time, as a plot, as CSV and as JSON.

use std::process::{Command, Output};

use holm_core::Timestamp;
use holm_protocol::{Line, Record};
use holm_store::{Lane, Write};
use holm_tests::control_plane::ControlPlane;
use holm_tests::device::Device;
use holm_tests::node::{Start, binary};
use holm_tests::outbox::fill;
use holm_tests::publisher::Publisher;
use serde_json::Value;

const SERIES: &str = "water-loss.flow";

/// So many minutes ago, in milliseconds since 1970.
fn ago(minutes: i64) -> Timestamp {
    Timestamp((time::OffsetDateTime::now_utc().unix_timestamp() - minutes * 60) * 1_000)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// What each form shows where there are rows of 2 hours ago with 1, and of 30 and 10 minutes ago with 2 and 3.
#[track_caller]
fn check(name: &str, run: impl Fn(&[&str]) -> Output) {
    let ok = |more: &[&str]| {
        let words: Vec<&str> = [SERIES].iter().chain(more).copied().collect();
        let output = run(&words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(ok(&[]).lines().count(), 3);
    let rows: Vec<Value> =
        ok(&["--since", "1h", "--json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let values: Vec<f64> = rows.iter().map(|row| row["value"].as_f64().unwrap()).collect();
    assert_eq!(values, [2.0, 3.0]);
    let csv = ok(&["--since", "1h", "--csv"]);
    let lines: Vec<&str> = csv.split_terminator("\r\n").collect();
    assert_eq!(lines.len(), 3, "{csv}");
    assert!(lines[0].ends_with(",sequence,time,value") && lines[2].ends_with(",3"), "{csv}");
    let plot = ok(&["--since", "1h", "--plot"]);
    assert!(plot.starts_with(&format!("{name}  2 rows, lowest 2.000, mean 2.500, highest 3.000\n")), "{plot}");
    assert!(plot.lines().count() > 4, "{plot}");
    assert_eq!(ok(&["--since", "1m", "--json"]), "");
}

#[test]
fn the_control_plane_shows_a_series_by_time_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let laptop = Publisher::new(folder.path());
    let device = Device::enrol(&cloud, "pi3");
    let mut link = device.connect(&cloud);
    let line = |(minutes, value): (i64, &str)| {
        Line::Record(Record { time: ago(minutes), content_type: None, data: value.as_bytes().to_vec() })
    };
    let (topic, payload) = device.batch("result.water-loss.flow", 1, &[(120, "1"), (30, "2"), (10, "3")].map(line));
    link.publish(&topic, &payload, 1).unwrap();
    link.ack(&device.thing);
    check("water-loss.flow of pi3", |words| {
        let words: Vec<&str> = ["results", "--cloud"].iter().chain(words).copied().collect();
        laptop.run(&cloud, &words)
    });
    // Where there is no node, it is said how to ask there.
    let output = laptop.run(&cloud, &["--data", "nowhere", "results", SERIES, "--since", "1h", "--plot"]);
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("holm results water-loss.flow --cloud") && said.contains("node-unreachable"), "{said}");
    cloud.stop();
}

#[test]
fn a_node_shows_its_rows_by_time_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let row = |stream: &str, minutes, value: &str| Write::Outbox {
        lane: Lane::Results,
        stream: stream.into(),
        created: ago(minutes),
        content_type: None,
        data: value.as_bytes().to_vec().into(),
    };
    let flow = |minutes, value| row("result.water-loss.flow", minutes, value);
    let rows = [flow(120, "1"), flow(30, "2"), row("result.water-loss.alarm", 5, "true"), flow(10, "3")];
    fill(folder.path(), rows.into_iter());
    let node = Start::new(folder.path()).run();
    check("flow", |words| {
        let mut command = Command::new(binary("holm"));
        command.arg("--data").arg(folder.path()).arg("results").args(words);
        command.env("XDG_CONFIG_HOME", folder.path()).output().unwrap()
    });
    node.stop();
}
