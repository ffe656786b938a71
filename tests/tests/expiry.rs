//! Certificates and tokens that have ended, by the clock of a real control plane: the device's own is right by the machine's, and a year or
//! two behind.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use holm_tests::clock::{Clock, library};
use holm_tests::cloud::{QUICK, patiently};
use holm_tests::control_plane::{self, ControlPlane};
use holm_tests::functions::example;
use holm_tests::node::{Node, Start, binary};
use holm_tests::publisher::Publisher;
use holm_tests::watcher::publish_all;
use serde_json::Value;

const DAY: i64 = 86_400;

/// As long as a device's certificate is good.
const LIFE: i64 = 365 * DAY;

struct World {
    cloud: ControlPlane,
    laptop: Publisher,
    clock: Clock,
    library: PathBuf,
    // Last, so that it outlives what is in it.
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Option<Self> {
        let library = library()?;
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::new(folder.path());
        let under = clock.under(&library);
        let cloud = control_plane::Start { under, ..control_plane::Start::new(folder.path()) }.run();
        let laptop = Publisher::new(folder.path());
        Some(Self { cloud, laptop, clock, library, folder })
    }

    /// `holm`, by the control plane's clock; what it wrote.
    fn said(&self, words: &[&str]) -> String {
        let mut command = self.laptop.command(&self.cloud, words);
        let output = command.envs(self.clock.environment(&self.library)).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same, as JSON.
    fn holm(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.said(words)).unwrap()
    }

    fn enrol(&self, data: &Path, token: &Value, more: &[&str]) -> Output {
        let mut command = Command::new(binary("holmd"));
        command.args(["enrol", "--cloud", &format!("https://{}", self.cloud.https), "--ca-hash", &self.cloud.ca_hash]);
        command.args(["--token", token["token"].as_str().unwrap(), "--data"]).arg(data).args(more).output().unwrap()
    }

    /// So much later the control plane is started again, and makes a certificate for itself.
    fn later(&mut self, seconds: i64) {
        self.clock.jump(seconds);
        self.cloud.stop_and_restart();
    }

    /// A node there that comes to be connected, and until when its certificate is good, by the control plane's word.
    fn connects(&self, data: &Path) -> i64 {
        let node = start(data);
        patiently(data, "the connection", || (link(&node)["state"] == "connected").then_some(()));
        let shown = self.holm(&["device", "show", "pi1", "--json"]);
        node.stop();
        shown["certificate"]["expires"].as_i64().unwrap() / 1_000
    }
}

fn start(data: &Path) -> Node {
    Start { config: QUICK, ..Start::new(data) }.run()
}

fn link(node: &Node) -> Value {
    node.admin.get("/v1/status")["cloud"].clone()
}

#[test]
fn an_expired_certificate_is_renewed_within_its_grace_and_after_it_the_way_back_is_said_and_works() {
    let Some(mut world) = World::new() else { return };
    let data = world.folder.path().join("pi1");
    let token = world.holm(&["device", "enrol-token", "--group", "greenhouse", "--json"]);
    let mut named = Command::new(binary("holmd"));
    named.args(["enrol", "--cloud", &format!("https://{}", world.cloud.https), "--ca-hash", &world.cloud.ca_hash]);
    named.args(["--thing", "pi1", "--token", token["token"].as_str().unwrap(), "--data"]);
    assert!(named.arg(&data).output().unwrap().status.success());
    let first = world.connects(&data);
    // A month beyond its end.
    world.later(LIFE + 30 * DAY);
    assert!(world.clock.now() > first);
    let second = world.connects(&data);
    assert!(second > world.clock.now() + LIFE - DAY, "{second}");
    // A quarter of a year and a day beyond the next one's.
    world.later(LIFE + 91 * DAY);
    let node = start(&data);
    let said = patiently(&data, "a refusal", || {
        link(&node)["last_error"].as_str().filter(|error| error.contains("certificate-expired")).map(str::to_owned)
    });
    assert!(said.contains("holm device replace pi1") && said.contains("holmd enrol --anew"), "{said}");
    assert_ne!(link(&node)["state"], "connected");
    let token = world.holm(&["device", "replace", "pi1", "--json"]);
    let output = world.enrol(&data, &token, &[]);
    assert!(
        output.status.success() && link(&node)["state"] != "connected",
        "it is enrolled, and nothing comes of it: {output:?}"
    );
    let output = world.enrol(&data, &token, &["--anew"]);
    assert!(output.status.success(), "{output:?}");
    // By itself.
    patiently(&data, "the connection", || (link(&node)["state"] == "connected").then_some(()));
    node.stop();
    assert!(world.connects(&data) > world.clock.now() + LIFE - DAY);
    let token = world.holm(&["device", "replace", "pi1", "--json"]);
    let output = world.enrol(&data, &token, &["--anew", "--thing", "pi2"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("this device is pi1, and gets"), "{said}");
    // Nothing was asked for: the token is good, and nobody is called pi2.
    let fleet = world.said(&["fleet"]);
    assert!(fleet.contains("pi1") && !fleet.contains("pi2"), "{fleet}");
    let output = world.enrol(&data, &token, &["--anew"]);
    assert!(output.status.success(), "{output:?}");
    world.cloud.stop();
}

#[test]
fn a_token_is_good_for_a_day() {
    let Some(mut world) = World::new() else { return };
    let token = || world.holm(&["device", "enrol-token", "--group", "greenhouse", "--json"]);
    let (late, in_time) = (token(), token());
    let place = |name: &str| world.folder.path().join(name);
    let (one, two) = (place("one"), place("two"));
    world.clock.jump(DAY - 60);
    assert!(world.enrol(&one, &in_time, &[]).status.success());
    world.clock.jump(120);
    let output = world.enrol(&two, &late, &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("token-expired"), "{output:?}");
    assert!(!two.join("identity/device.json").exists());
    world.cloud.stop();
}

#[test]
fn a_device_that_was_cut_off_for_a_week_and_whose_clock_steps_back_then_goes_on() {
    let Some(mut world) = World::new() else { return };
    let (data, own) = (world.folder.path().join("pi1"), world.folder.path().join("own"));
    std::fs::create_dir(&own).unwrap();
    let token = world.holm(&["device", "enrol-token", "--group", "greenhouse", "--json"]);
    assert!(world.enrol(&data, &token, &["--thing", "pi1"]).status.success());
    // The device's clock and the control plane's are two.
    let mut clock = Clock::new(&own);
    let under = clock.under(&world.library);
    let node = Start { config: QUICK, under: &under, ..Start::new(&data) }.run();
    world.laptop.ok(&world.cloud, &["key", "new", "--cloud"]);
    let deploy = |world: &World, version: &str| {
        let bundle = example("counter", |manifest| {
            manifest.replace("\"0.1.0\"", &format!("\"{version}\"")) + "priority = \"high\"\n"
        });
        world.said(&["publish", &world.laptop.bundle("counter.holm", &bundle), "--profile", "none"]);
        let what = format!("counter@{version}");
        let words = ["deploy", &what, "--device", "pi1", "--watch", "--timeout", "60s", "--health-window", "0s"];
        world.said(&words);
        assert_eq!(node.admin.get("/v1/functions")["functions"][0]["version"], version);
    };
    let events = |numbers: std::ops::RangeInclusive<u32>| {
        publish_all(&node, "count/k", numbers.map(|number| format!("{{\"id\":\"{number}\"}}")));
    };
    let counted = |world: &World, last: u64| {
        let numbers = || -> Vec<u64> {
            let rows = world.said(&["results", "counter.n", "--cloud", "--device", "pi1", "--json"]);
            let value = |row: &str| serde_json::from_str::<Value>(row).unwrap()["value"].as_f64().unwrap() as u64;
            let mut numbers: Vec<u64> = rows.lines().map(value).collect();
            numbers.sort_unstable();
            numbers
        };
        patiently(&data, "all results", || (numbers().len() as u64 >= last).then_some(()));
        assert_eq!(numbers(), (1..=last).collect::<Vec<_>>());
    };
    let connected = || patiently(&data, "the connection", || (link(&node)["state"] == "connected").then_some(()));
    connected();
    deploy(&world, "0.1.0");
    events(1..=5);
    counted(&world, 5);
    let signal = |world: &World, name: &str| {
        let sent = Command::new("kill").args([name, &world.cloud.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    signal(&world, "-STOP");
    events(6..=20);
    clock.jump(7 * DAY);
    events(21..=30);
    patiently(&data, "it notices", || (link(&node)["state"] != "connected").then_some(()));
    signal(&world, "-CONT");
    world.later(7 * DAY);
    connected();
    counted(&world, 30);
    deploy(&world, "0.1.1");
    // Two years back, in the middle of a session.
    clock.jump(-2 * 365 * DAY);
    events(31..=40);
    counted(&world, 40);
    deploy(&world, "0.1.2");
    node.stop();
    world.cloud.stop();
}
