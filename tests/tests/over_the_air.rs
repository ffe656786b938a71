//! A release from the laptop that signs it to a node that runs it: the real `holm`, `holm cloud` and `holmd`.

use std::path::Path;
use std::process::Command;

use holm_bundle::Digest;
use holm_tests::control_plane::ControlPlane;
use holm_tests::eventually;
use holm_tests::functions::example;
use holm_tests::node::{Node, Start, binary};
use holm_tests::publisher::Publisher;

const CONFIG: &str = "[functions]\nhealth_window = \"0ms\"\n[cloud]\nkeep_alive = \"1s\"\nack_timeout = \"2s\"\n";

/// The example `scale` as this version.
fn scale(version: &str) -> Vec<u8> {
    example("scale", |manifest| manifest.replace("version = \"0.1.0\"", &format!("version = \"{version}\"")))
}

/// A node that is enrolled as pi3 and connected.
fn node(cloud: &ControlPlane, data: &Path) -> Node {
    let mut command = Command::new(binary("holmd"));
    command.args(["enrol", "--cloud", &format!("https://{}", cloud.https), "--ca-hash", &cloud.ca_hash]);
    command.args(["--token", &cloud.enrolment_token("greenhouse"), "--thing", "pi3", "--data"]).arg(data);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let node = Start { config: CONFIG, ..Start::new(data) }.run();
    eventually("it is connected", || cloud.get("/v1/devices/pi3")["connected"].as_bool().filter(|it| *it));
    node
}

/// What runs, as the node reports it.
fn runs(cloud: &ControlPlane, version: &str) {
    eventually("the node reports what runs", || {
        let device = cloud.get("/v1/devices/pi3");
        (device.pointer("/reported/functions/0/version")? == version).then_some(())
    });
}

const WATCH: [&str; 7] = ["--device", "pi3", "--watch", "--timeout", "60s", "--health-window", "1s"];

fn deploy(version: &str) -> Vec<String> {
    let what = format!("scale@{version}");
    ["deploy", &what].into_iter().chain(WATCH).map(str::to_owned).collect()
}

#[test]
fn a_release_reaches_a_node_with_native_code_and_without() {
    let folder = tempfile::tempdir().unwrap();
    let mut cloud = ControlPlane::start(folder.path());
    let laptop = Publisher::new(folder.path());
    laptop.ok(&cloud, &["key", "new", "--cloud"]);
    let node = node(&cloud, &folder.path().join("data"));
    for (version, profiles) in [("0.1.0", &["--profile", "x64-v1"][..]), ("0.2.0", &[])] {
        let bundle = laptop.bundle("scale.holm", &scale(version));
        laptop.publish(&cloud, &bundle, profiles);
        let words = deploy(version);
        let told = laptop.ok(&cloud, &words.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(told.ends_with("confirmed\n"), "{told}");
        runs(&cloud, version);
        cloud.kill_and_restart();
        eventually("it comes back", || cloud.get("/v1/devices/pi3")["connected"].as_bool().filter(|it| *it));
    }
    node.stop();
    cloud.stop();
}

#[test]
fn a_node_does_not_run_what_was_changed_on_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let laptop = Publisher::new(folder.path());
    laptop.ok(&cloud, &["key", "new", "--cloud"]);
    let node = node(&cloud, &folder.path().join("data"));
    for version in ["0.1.0", "0.2.0"] {
        laptop.publish(&cloud, &laptop.bundle("scale.holm", &scale(version)), &[]);
    }
    let words = deploy("0.1.0");
    laptop.ok(&cloud, &words.iter().map(String::as_str).collect::<Vec<_>>());
    let digest = Digest::of(&scale("0.2.0")).to_string();
    let blob = cloud.data().join("blobs").join(&digest[..2]).join(&digest[2..]);
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[99] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let words = deploy("0.2.0");
    let output = laptop.run(&cloud, &words.iter().map(String::as_str).collect::<Vec<_>>());
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(1) && told.contains("not the one that was signed"), "{output:?}");
    runs(&cloud, "0.1.0");
    node.stop();
    cloud.stop();
}
