//! What the control plane answers is what its description says, and nothing beside it.

use std::io::Write as _;
use std::process::{Command, Stdio};

use holm_tests::functions::{example, repository};
use holm_tests::world::World;
use holm_tests::{eventually, python_with};
use serde_json::{Value, json};

/// What describes an answer, and what is asked for it; the same where nothing stands in between.
const ASKED: [(&str, &str); 18] = [
    ("/v1/devices", ""),
    ("/v1/devices/{thing}", "/v1/devices/pi1"),
    ("/v1/devices/{thing}/jobs/{generation}", "/v1/devices/pi1/jobs/1"),
    ("/v1/devices/{thing}/next", "/v1/devices/pi1/next"),
    ("/v1/enrolment-tokens", ""),
    ("/v1/results", "/v1/results?series=counter.n&device=pi1"),
    ("/v1/results", "/v1/results?series=counter.n&device=pi1&buckets=10"),
    ("/v1/logs", "/v1/logs?device=pi1"),
    ("/v1/traps", ""),
    ("/v1/rollouts", ""),
    ("/v1/rollouts/{id}", "/v1/rollouts/r-1"),
    ("/v1/rollouts/{id}/devices", "/v1/rollouts/r-1/devices"),
    ("/v1/secrets", ""),
    ("/v1/aliases", ""),
    ("/v1/retention", ""),
    ("/v1/repository", ""),
    ("/v1/audit", ""),
    ("/v1/status", ""),
];

#[test]
fn every_answer_is_as_it_is_described() {
    let world = World::start();
    world.laptop.ok(&world.cloud, &["key", "new", "--cloud"]);
    let node = world.node("");
    let bundle = world.laptop.bundle("counter.holm", &example("counter", |manifest| manifest));
    world.laptop.publish(&world.cloud, &bundle, &["--profile", "x64-v1"]);
    let words = ["deploy", "counter@0.1.0", "--group", "greenhouse", "--stages", "100%", "--health-window", "0s"];
    world.laptop.ok(&world.cloud, &[&words[..], &["--watch", "--timeout", "60s"]].concat());
    let (status, answer) = node.admin.post("/v1/functions/counter/invoke?subject=count/x", b"{\"id\":\"1\"}");
    assert_eq!(status, 200, "{answer}");
    let result = "/v1/results?series=counter.n&device=pi1";
    eventually("a result", || world.cloud.get(result)["rows"].as_array().filter(|rows| !rows.is_empty()).map(|_| ()));
    let mut lines = String::new();
    for (path, asked) in ASKED {
        let answer: Value = world.cloud.get(if asked.is_empty() { path } else { asked });
        lines.push_str(&format!("{}\n", json!({ "path": path, "method": "get", "answer": answer })));
    }
    let mut command = Command::new(python_with("jsonschema"));
    command.arg(repository().join("tests/schemas/openapi.py"));
    command.arg(repository().join("cloud-sync/control-plane/src/api/openapi.json"));
    let mut checked = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    checked.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = checked.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    node.stop();
    world.cloud.stop();
}
