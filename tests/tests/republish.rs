//! Native code for releases that are there already: the real `holm`, `holm cloud` and a `holmd` that cannot compile.

use std::process::Command;

use holm_tests::control_plane::ControlPlane;
use holm_tests::eventually;
use holm_tests::functions::Guest;
use holm_tests::node::{Start, binary};
use holm_tests::publisher::Publisher;
use serde_json::Value;

const CONFIG: &str = "[functions]\nhealth_window = \"0ms\"\ncompiler = \"/nonexistent/holm-compile\"\n\
                      [cloud]\nkeep_alive = \"1s\"\nack_timeout = \"2s\"\n";

const DEPLOY: [&str; 9] =
    ["deploy", "teller@1.0.0", "--device", "pi1", "--watch", "--timeout", "60s", "--health-window", "0s"];

#[test]
fn a_release_gets_native_code_for_another_engine_and_devices_take_it_without_a_new_version() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let laptop = Publisher::new(folder.path());
    laptop.ok(&cloud, &["key", "new", "--cloud"]);
    let data = folder.path().join("pi1");
    let mut command = Command::new(binary("holmd"));
    command.args(["enrol", "--cloud", &format!("https://{}", cloud.https), "--ca-hash", &cloud.ca_hash]);
    command.args(["--token", &cloud.enrolment_token("greenhouse"), "--thing", "pi1", "--data"]);
    assert!(command.arg(&data).output().unwrap().status.success());
    let start = || {
        let node = Start { config: CONFIG, ..Start::new(&data) }.run();
        eventually("it is connected", || cloud.get("/v1/devices/pi1")["connected"].as_bool().filter(|it| *it));
        node
    };
    let node = start();
    let guest = Guest::new("teller", "echo").on("ask");
    let published = laptop.publish(&cloud, &laptop.bundle("teller.holm", &guest.bundle()), &[]);
    let told = laptop.run(&cloud, &DEPLOY);
    assert!(String::from_utf8_lossy(&told.stdout).contains("refused"), "nobody can compile it: {told:?}");
    // As for an engine that the release was not compiled for; the profiles are those of the fleet.
    let signed: Value = serde_json::from_str(&laptop.ok(&cloud, &["republish", "--json"])).unwrap();
    let files = signed["files"].as_array().unwrap();
    assert!(files.len() == 1 && files[0]["name"].as_str().unwrap().ends_with(".cwasm"), "{signed}");
    assert_eq!(laptop.ok(&cloud, &["republish", "--json"]), "{\"files\":[]}\n", "it is there");
    assert!(laptop.ok(&cloud, &DEPLOY).ends_with("confirmed\n"));
    let runs = |version: &str| {
        let reported = cloud.get("/v1/devices/pi1")["reported"]["functions"][0].clone();
        (reported["version"] == version && reported["sha256"] == published["files"][0]["sha256"]).then_some(())
    };
    eventually("the same bundle runs", || runs("1.0.0"));
    // Another engine would look for its code under another name, and find none.
    node.stop();
    for file in std::fs::read_dir(data.join("native")).unwrap().flatten() {
        std::fs::remove_file(file.path()).unwrap();
    }
    let node = start();
    let answers = |node: &holm_tests::node::Node| {
        let functions = node.admin.get("/v1/functions")["functions"][0].clone();
        functions["succeeded"].as_u64().unwrap_or_default()
    };
    assert!(laptop.ok(&cloud, &DEPLOY).ends_with("confirmed\n"));
    node.admin.post("/v1/functions/teller/invoke", b"x");
    eventually("it runs again", || (answers(&node) > 0).then_some(()));
    node.stop();
    cloud.stop();
}
