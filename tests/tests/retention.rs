//! How long the control plane keeps what devices sent: the real `holm cloud`, and a device that sends what it is told to.

use holm_core::Timestamp;
use holm_protocol::{Line, Record};
use holm_tests::control_plane::ControlPlane;
use holm_tests::device::Device;
use holm_tests::eventually;
use holm_tests::publisher::Publisher;
use serde_json::json;

fn records(first: u64, count: u64) -> Vec<Line> {
    // From a device whose clock stands at 1970.
    let record = |n: u64| {
        let time = Timestamp(i64::try_from(n).unwrap());
        Line::Record(Record { time, content_type: None, data: n.to_string().into_bytes() })
    };
    (first..first + count).map(record).collect()
}

fn count(cloud: &ControlPlane, series: &str) -> usize {
    let rows = cloud.get(&format!("/v1/results?series={series}&limit=10000"));
    rows["rows"].as_array().unwrap().len()
}

#[test]
fn what_has_been_kept_for_long_enough_goes_and_does_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut cloud = ControlPlane::start(folder.path());
    let laptop = Publisher::new(folder.path());
    let device = Device::enrol(&cloud, "pi3");
    let mut link = device.connect(&cloud);
    for (place, series) in ["flow.raw", "flow.mean"].iter().enumerate() {
        let (topic, payload) = device.batch(&format!("result.{series}"), 1, &records(1, 300));
        link.publish(&topic, &payload, u16::try_from(place + 1).unwrap()).unwrap();
        assert_eq!(link.ack(&device.thing).watermarks[0].upto, 300);
    }
    let told = |words: &[&str]| {
        let output = laptop.run(&cloud, words);
        assert!(output.status.success(), "{words:?} {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    told(&["retention", "set", "flow.*", "2s"]);
    told(&["retention", "set", "flow.mean", "90d"]);
    told(&["retention", "set", "--logs", "*", "36h"]);
    let listed = told(&["retention", "list"]);
    for line in ["log*  36h", "result.flow.*   2s", "result.flow.mean  90d"] {
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(squeezed(&listed).contains(&squeezed(line)), "{line}\n{listed}");
    }
    eventually("the records are dropped", || (count(&cloud, "flow.raw") == 0).then_some(()));
    assert_eq!(count(&cloud, "flow.mean"), 300, "the longest rule that fits counts");
    // The answer was lost, say: it is told that it is here, and what is gone stays gone.
    cloud.kill_and_restart();
    let mut link = device.connect(&cloud);
    let (topic, payload) = device.batch("result.flow.raw", 1, &records(1, 300));
    link.publish(&topic, &payload, 1).unwrap();
    assert_eq!(link.ack(&device.thing).watermarks[0].upto, 300);
    assert_eq!(count(&cloud, "flow.raw"), 0);
    // What comes after it is new, and goes as well.
    let (topic, payload) = device.batch("result.flow.raw", 301, &records(301, 5));
    link.publish(&topic, &payload, 2).unwrap();
    assert_eq!(link.ack(&device.thing).watermarks[0].upto, 305);
    eventually("those are dropped too", || (count(&cloud, "flow.raw") == 0).then_some(()));
    let audit = cloud.get("/v1/audit").to_string();
    assert!(audit.contains("result.flow.*: 2 s"), "{audit}");
    cloud.stop();
}

#[test]
fn a_rule_that_is_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let viewer = cloud.send("POST", "/v1/operators", json!({ "name": "eve", "role": "viewer" }).to_string().as_bytes());
    let viewer = viewer.json()["token"].as_str().unwrap().to_owned();
    for (method, path, token, body, status) in [
        ("PUT", "/v1/retention/flow.mean", &cloud.token, &b"{\"keep_s\":0}"[..], 400),
        ("PUT", "/v1/retention/result.flow.mean", &cloud.token, b"{}", 400),
        ("PUT", "/v1/retention/result.flow.mean", &cloud.token, b"{\"keep_s\":4000000000}", 400),
        ("PUT", "/v1/retention/result.flow.mean", &viewer, b"{\"keep_s\":60}", 403),
        ("DELETE", "/v1/retention/result.flow.mean", &cloud.token, b"", 409),
        ("GET", "/v1/retention", &viewer, b"", 200),
    ] {
        let answer = cloud.ask(method, path, Some(token), body);
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
    }
    assert_eq!(cloud.get("/v1/retention")["retention"], json!([]));
    cloud.stop();
}
