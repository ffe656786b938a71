//! Native code for releases that are there already: the real `holm`, `holm cloud` and a `holmd` that cannot compile.

use std::process::{Command, Output};

use holm_tests::control_plane::ControlPlane;
use holm_tests::device::Device;
use holm_tests::eventually;
use holm_tests::functions::Guest;
use holm_tests::node::{Start, binary};
use holm_tests::publisher::Publisher;
use serde_json::{Value, json};

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
    // A new version is compiled for the fleet without being asked, but for a profile that this compiler does not know.
    Device::enrol(&cloud, "pi2");
    let bundle = laptop.bundle("next.holm", &guest.version("1.1.0").bundle());
    let output = laptop.run(&cloud, &["publish", &bundle, "--json"]);
    let (signed, told) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let files = serde_json::from_str::<Value>(&signed).unwrap()["files"].clone();
    assert_eq!((files.as_array().unwrap().len(), &files[1]["profile"]), (2, &json!(host_profile())), "{told}");
    assert!(told.contains("none for generic: this holm-compile does not know it"), "{told}");
    let next = DEPLOY.map(|word| if word == "teller@1.0.0" { "teller@1.1.0" } else { word });
    assert!(laptop.ok(&cloud, &next).ends_with("confirmed\n"));
    eventually("the next version runs", || {
        (cloud.get("/v1/devices/pi1")["reported"]["functions"][0]["version"] == "1.1.0").then_some(())
    });
    node.stop();
    cloud.stop();
}

fn host_profile() -> &'static str {
    if cfg!(target_arch = "x86_64") { "x64-v1" } else { "a64-small-v1" }
}

#[test]
fn without_a_fleet_or_a_compiler_a_bundle_is_published_alone_and_why_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let laptop = Publisher::new(folder.path());
    laptop.ok(&cloud, &["key", "new", "--cloud"]);
    let bundle =
        |version: &str| laptop.bundle("teller.holm", &Guest::new("teller", "echo").on("ask").version(version).bundle());
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let output = laptop.run(&cloud, &["publish", &bundle("1.0.0")]);
    assert!(output.status.success() && said(&output).contains("no device has come yet"), "{output:?}");
    // A holm that has nothing beside it.
    Device::enrol(&cloud, "pi1");
    let alone = folder.path().join("holm");
    std::fs::copy(binary("holm"), &alone).unwrap();
    let run = |words: &[&str]| {
        let logged_in = laptop.command(&cloud, words);
        let mut command = Command::new(&alone);
        command.args(words).env_clear();
        command.envs(logged_in.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.output().unwrap()
    };
    let output = run(&["publish", &bundle("1.1.0")]);
    assert!(output.status.success() && said(&output).contains("holm-compile is neither beside holm"), "{output:?}");
    let asked = ["publish", &bundle("1.2.0"), "--profile", "x64-v1"];
    assert!(!run(&asked).status.success(), "what is asked for and cannot be is not left out");
    let none = ["publish", &bundle("1.2.0"), "--profile", "none"];
    assert!(run(&none).status.success());
    cloud.stop();
}
