//! What becomes of a control plane and its devices over the years: boards that are replaced, backups that are restored.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use holm_tests::control_plane::ControlPlane;
use holm_tests::eventually;
use holm_tests::functions::Guest;
use holm_tests::node::{Node, Start, binary};
use holm_tests::publisher::Publisher;
use serde_json::Value;

const CONFIG: &str = "[functions]\nhealth_window = \"0ms\"\n[cloud]\nkeep_alive = \"1s\"\nack_timeout = \"2s\"\n";

fn enrol(cloud: &ControlPlane, data: &Path, token: &str, more: &[&str]) -> (bool, String) {
    let mut command = Command::new(binary("holmd"));
    command.args(["enrol", "--cloud", &format!("https://{}", cloud.https), "--ca-hash", &cloud.ca_hash]);
    let output = command.args(["--token", token]).args(more).arg("--data").arg(data).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn start(data: &Path) -> Node {
    Start { config: CONFIG, ..Start::new(data) }.run()
}

fn is_connected(node: &Node) -> bool {
    node.admin.get("/v1/status")["cloud"]["state"] == "connected"
}

fn version(node: &Node) -> Option<String> {
    node.admin.get("/v1/functions")["functions"][0]["version"].as_str().map(str::to_owned)
}

/// `holm cloud` with these words. Whether it went well, and what it said.
fn keeper(words: &[&str], data: &Path) -> (bool, String) {
    let output = Command::new(binary("holm")).arg("cloud").args(words).arg("--data").arg(data).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_new_board_is_what_the_old_one_was_and_the_old_one_is_turned_away() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let laptop = Publisher::new(folder.path());
    laptop.ok(&cloud, &["key", "new", "--cloud"]);
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    assert!(enrol(&cloud, &old, &cloud.enrolment_token("greenhouse"), &["--thing", "pi1"]).0);
    let first = start(&old);
    eventually("the link", || is_connected(&first).then_some(()));
    let guest = Guest::new("teller", "echo").on("ask").more("[config.limit]\ntype = \"number\"\ndefault = 5");
    laptop.publish(&cloud, &laptop.bundle("teller.holm", &guest.bundle()), &["--profile", "x64-v1"]);
    laptop.ok(&cloud, &["deploy", "teller@1.0.0", "--device", "pi1", "--watch", "--health-window", "0s"]);
    laptop.ok(&cloud, &["config", "set", "teller", "limit=7", "--device", "pi1", "--watch", "--health-window", "0s"]);
    laptop.fails(&cloud, 1, &["device", "replace", "pi9"]);
    let answer: Value = serde_json::from_str(&laptop.ok(&cloud, &["device", "replace", "pi1", "--json"])).unwrap();
    let token = answer["token"].as_str().unwrap();
    // Until the new one comes, the old one is what it was.
    assert!(is_connected(&first));
    let (well, told) = enrol(&cloud, &new, token, &["--thing", "pi2"]);
    assert!(!well && told.contains("takes the place of pi1"), "{told}");
    let (well, told) = enrol(&cloud, &new, token, &[]);
    assert!(well, "{told}");
    eventually("the old one is turned away", || (!is_connected(&first)).then_some(()));
    let second = start(&new);
    eventually("it runs what the old one ran", || (version(&second)? == "1.0.0").then_some(()));
    let device = cloud.get("/v1/devices/pi1");
    assert_eq!(device["groups"][0], "greenhouse");
    assert_eq!(device["desired"]["functions"][0]["config"]["limit"], "7", "{device:#}");
    let (well, told) = enrol(&cloud, &folder.path().join("third"), token, &[]);
    assert!(!well && told.contains("used before"), "{told}");
    assert!(!is_connected(&first));
    first.stop();
    second.stop();
    cloud.stop();
}

#[test]
fn a_control_plane_comes_back_from_its_backup_and_devices_find_it() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let laptop = Publisher::new(folder.path());
    laptop.ok(&cloud, &["key", "new", "--cloud"]);
    let data = folder.path().join("pi1");
    assert!(enrol(&cloud, &data, &cloud.enrolment_token("greenhouse"), &["--thing", "pi1"]).0);
    let guest = Guest::new("teller", "echo").on("ask");
    laptop.publish(&cloud, &laptop.bundle("teller.holm", &guest.bundle()), &["--profile", "x64-v1"]);
    // While it runs.
    let file = folder.path().join("backup.tar.zst");
    let name = file.to_str().unwrap();
    let (well, told) = keeper(&["backup", name], cloud.data());
    assert!(well, "{told}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let (well, told) = keeper(&["backup", name], cloud.data());
    assert!(!well && told.contains("is there already"), "{told}");
    let (well, told) = keeper(&["restore", name], cloud.data());
    assert!(!well && told.contains("is not empty"), "{told}");
    // What is cut off, or something else, makes nothing.
    let bytes = std::fs::read(&file).unwrap();
    let elsewhere = folder.path().join("elsewhere");
    for (what, bytes) in [("cut", &bytes[..bytes.len() / 2]), ("none", b"hello"), ("empty", b"")] {
        let bad = folder.path().join(what);
        std::fs::write(&bad, bytes).unwrap();
        let (well, told) = keeper(&["restore", bad.to_str().unwrap()], &elsewhere);
        assert!(!well, "{what}: {told}");
        assert!(!elsewhere.exists(), "{what}");
    }
    // The machine is gone; another one takes its place, at the same addresses.
    let (well, told) = keeper(&["restore", name], &elsewhere);
    assert!(well, "{told}");
    let cloud = cloud.replace(|data| {
        std::fs::remove_dir_all(data).unwrap();
        std::fs::rename(&elsewhere, data).unwrap();
    });
    let node = start(&data);
    eventually("the link", || is_connected(&node).then_some(()));
    laptop.ok(&cloud, &["deploy", "teller@1.0.0", "--device", "pi1", "--watch", "--health-window", "0s"]);
    assert_eq!(version(&node).as_deref(), Some("1.0.0"));
    node.stop();
    cloud.stop();
}
