//! Names of versions: the real `holm`, `holm cloud` and `holmd`.

use std::process::Command;

use holm_tests::control_plane::ControlPlane;
use holm_tests::eventually;
use holm_tests::functions::Guest;
use holm_tests::node::{Start, binary};
use holm_tests::publisher::Publisher;

const CONFIG: &str = "[functions]\nhealth_window = \"0ms\"\n[cloud]\nkeep_alive = \"1s\"\nack_timeout = \"2s\"\n";

#[test]
fn a_release_is_deployed_by_its_alias_and_what_runs_stays_when_the_alias_moves() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let laptop = Publisher::new(folder.path());
    laptop.ok(&cloud, &["key", "new", "--cloud"]);
    let data = folder.path().join("pi1");
    let mut command = Command::new(binary("holmd"));
    command.args(["enrol", "--cloud", &format!("https://{}", cloud.https), "--ca-hash", &cloud.ca_hash]);
    command.args(["--token", &cloud.enrolment_token("greenhouse"), "--thing", "pi1", "--data"]);
    assert!(command.arg(&data).output().unwrap().status.success());
    let node = Start { config: CONFIG, ..Start::new(&data) }.run();
    for version in ["1.0.0", "1.1.0"] {
        let bundle = Guest::new("teller", "echo").on("ask").version(version).bundle();
        laptop.publish(&cloud, &laptop.bundle("teller.holm", &bundle), &["--profile", "x64-v1"]);
    }
    let missing = laptop.fails(&cloud, 1, &["deploy", "teller@stable", "--device", "pi1"]);
    assert!(missing.contains("no alias `stable`"), "{missing}");
    let unpublished = laptop.fails(&cloud, 1, &["alias", "set", "teller@9.9.9", "stable"]);
    assert!(unpublished.contains("9.9.9 is not published; there is"), "{unpublished}");
    laptop.ok(&cloud, &["alias", "set", "teller@1.0.0", "stable"]);
    laptop.ok(&cloud, &["alias", "set", "teller@1.1.0", "canary"]);
    let runs = |version: &str| {
        eventually("the device reports the version", || {
            (cloud.get("/v1/devices/pi1")["reported"]["functions"][0]["version"] == version).then_some(())
        });
    };
    let device = ["deploy", "teller@stable", "--device", "pi1", "--watch", "--timeout", "60s", "--health-window", "0s"];
    assert!(laptop.ok(&cloud, &device).ends_with("confirmed\n"));
    runs("1.0.0");
    let generation = cloud.get("/v1/devices/pi1")["job"]["generation"].clone();
    laptop.ok(&cloud, &["alias", "set", "teller@1.1.0", "stable"]);
    assert_eq!(cloud.get("/v1/devices/pi1")["job"]["generation"], generation);
    let group =
        ["deploy", "teller@canary", "--group", "greenhouse", "--soak", "0s", "--health-window", "0s", "--watch"];
    laptop.ok(&cloud, &group);
    runs("1.1.0");
    let listed = laptop.ok(&cloud, &["alias", "list"]);
    assert!(listed.contains("teller    canary  1.1.0") && listed.contains("teller    stable  1.1.0"), "{listed}");
    laptop.ok(&cloud, &["alias", "remove", "teller", "canary"]);
    laptop.fails(&cloud, 1, &["alias", "remove", "teller", "canary"]);
    node.stop();
    cloud.stop();
}
