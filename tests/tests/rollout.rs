//! Rollouts: the real `holm`, `holm cloud` and several real `holmd`, over mutual TLS.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use holm_tests::control_plane::ControlPlane;
use holm_tests::functions::Guest;
use holm_tests::node::{Node, Start, binary, log};
use holm_tests::publisher::Publisher;
use holm_tests::watcher::publish_all;
use serde_json::{Value, json};

const CONFIG: &str = "[functions]\nhealth_window = \"0ms\"\n[cloud]\nkeep_alive = \"1s\"\nack_timeout = \"2s\"\n";

/// So long nobody waits for a device here, in seconds.
const TIMEOUT: &str = "4s";

/// Longer than the longest wait before a node connects again that these tests cause.
#[track_caller]
fn patiently<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within 120 s: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A function that answers every event.
fn good(version: &str) -> Guest {
    Guest::new("teller", "echo").on("ask").version(version)
}

/// The same function in a version that always traps.
fn broken(version: &str) -> Guest {
    let retry = "[retry]\nmax_attempts = 50\ninterval = \"100ms\"\nbackoff_rate = 1.0";
    Guest::new("teller", "panic").on("ask").version(version).more(retry)
}

struct World {
    cloud: ControlPlane,
    laptop: Publisher,
    // Last, so that it outlives what is in it.
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cloud = ControlPlane::start(folder.path());
        let laptop = Publisher::new(folder.path());
        laptop.ok(&cloud, &["key", "new", "--cloud"]);
        Self { cloud, laptop, folder }
    }

    fn data(&self, thing: &str) -> PathBuf {
        self.folder.path().join(thing)
    }

    fn enrol(&self, thing: &str) {
        let mut command = Command::new(binary("holmd"));
        command.args(["enrol", "--cloud", &format!("https://{}", self.cloud.https), "--ca-hash", &self.cloud.ca_hash]);
        command.args(["--token", &self.cloud.enrolment_token("greenhouse"), "--thing", thing, "--data"]);
        let output = command.arg(self.data(thing)).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn start(&self, thing: &str) -> Node {
        let data = self.data(thing);
        let node = Start { config: CONFIG, ..Start::new(&data) }.run();
        patiently("the link", || (node.admin.get("/v1/status")["cloud"]["state"] == "connected").then_some(()));
        node
    }

    fn publish(&self, guest: &Guest) {
        self.laptop.publish(&self.cloud, &self.laptop.bundle("teller.holm", &guest.bundle()), &["--profile", "x64-v1"]);
    }

    /// `holm` with these words. The exit code, and all that it wrote.
    fn holm(&self, words: &[&str]) -> (i32, String) {
        let output = self.laptop.run(&self.cloud, words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout) + &text(&output.stderr))
    }

    /// `holm` with these words, which must end with this code.
    #[track_caller]
    fn ends(&self, code: i32, words: &[&str]) -> String {
        let (found, told) = self.holm(words);
        assert_eq!(found, code, "{words:?}\n{told}\n{}", self.logs());
        told
    }

    /// The latest rollout.
    fn rollout(&self) -> Value {
        self.cloud.get("/v1/rollouts?limit=1")["rollouts"][0].clone()
    }

    /// How devices stand in the latest rollout.
    fn standings(&self) -> Vec<(String, String)> {
        let id = self.rollout()["id"].as_str().unwrap().to_owned();
        let devices = self.cloud.get(&format!("/v1/rollouts/{id}/devices"))["devices"].clone();
        let text = |device: &Value, name: &str| device[name].as_str().unwrap().to_owned();
        devices.as_array().unwrap().iter().map(|device| (text(device, "thing"), text(device, "standing"))).collect()
    }

    /// Waits until the latest rollout is so, and says of all devices how they stand then.
    #[track_caller]
    fn stands(&self, state: &str, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(thing, how)| ((*thing).to_owned(), (*how).to_owned())).collect();
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let (found, standings) = (self.rollout(), self.standings());
            if found["state"] == state && standings == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{found:#}\n{standings:?} instead of {expected:?}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn logs(&self) -> String {
        ["pi1", "pi2", "pi3", "pi4"].map(|thing| format!("{thing}:\n{}\n", log(&self.data(thing)))).concat()
    }

    fn begin(&self, words: &[&str]) -> Child {
        self.laptop.begin(&self.cloud, words)
    }
}

/// Names and versions of what runs.
fn runs(node: &Node) -> Vec<String> {
    let functions = node.admin.get("/v1/functions");
    let text = |function: &Value, name: &str| function[name].as_str().unwrap().to_owned();
    let shown = |function: &Value| format!("{} {}", text(function, "name"), text(function, "version"));
    functions["functions"].as_array().unwrap().iter().map(shown).collect()
}

#[track_caller]
fn all_run(nodes: &[&Node], expected: &str) {
    for node in nodes {
        patiently(expected, || (runs(node) == [expected]).then_some(()));
    }
}

const QUICK: [&str; 8] =
    ["--queued-timeout", TIMEOUT, "--soak", "1s", "--health-window", "1s", "--group", "greenhouse"];

fn words<'a>(first: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    first.iter().chain(&QUICK).chain(more).copied().collect()
}

#[test]
fn a_version_goes_to_the_canary_and_then_to_the_rest_and_one_that_traps_goes_back_by_itself() {
    let mut world = World::new();
    for thing in ["pi1", "pi2", "pi3", "pi4"] {
        world.enrol(thing);
    }
    let told = world.ends(0, &["device", "groups", "pi1", "--add", "canary"]);
    assert_eq!(told, "canary\ngreenhouse\n");
    let nodes = ["pi1", "pi2", "pi3"].map(|thing| world.start(thing));
    let online: Vec<&Node> = nodes.iter().collect();

    // One that was never there is unknown, and no success.
    world.publish(&good("1.0.0"));
    let told = world.ends(5, &words(&["deploy", "teller@1.0.0", "--watch"], &["--stages", "100%"]));
    assert!(told.contains("3 confirmed, 1 unknown"), "{told}");
    all_run(&online, "teller 1.0.0");
    let fourth = world.start("pi4");
    world
        .stands("completed", &[("pi1", "confirmed"), ("pi2", "confirmed"), ("pi3", "confirmed"), ("pi4", "confirmed")]);
    all_run(&[&fourth], "teller 1.0.0");
    fourth.kill();

    // By canary, while the control plane is killed again and again.
    world.publish(&good("2.0.0"));
    let mut watching = world.begin(&words(&["deploy", "teller@2.0.0", "--watch"], &["--canary", "canary"]));
    patiently("the rollout", || (world.rollout()["what"] == "2.0.0").then_some(()));
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(rand::random_range(50..1_500)));
        world.cloud.kill_and_restart();
    }
    let status = watching.wait().unwrap();
    assert_eq!(status.code(), Some(5), "{:#}\n{}", world.rollout(), world.logs());
    all_run(&online, "teller 2.0.0");
    let id = world.rollout()["id"].as_str().unwrap().to_owned();
    let devices = world.cloud.get(&format!("/v1/rollouts/{id}/devices"))["devices"].clone();
    let told = |place: usize| devices[place]["told"].as_i64().unwrap();
    assert!(told(0) + 1_000 <= told(1) && told(0) + 1_000 <= told(2), "the canary has its time: {devices:#}");
    let fourth = world.start("pi4");
    world
        .stands("completed", &[("pi1", "confirmed"), ("pi2", "confirmed"), ("pi3", "confirmed"), ("pi4", "confirmed")]);
    all_run(&[&fourth], "teller 2.0.0");

    // One that traps ends with the canary.
    world.publish(&broken("3.0.0"));
    let more = ["--canary", "canary", "--health-window", "60s"];
    let mut watching = world.begin(
        &["deploy", "teller@3.0.0", "--watch", "--group", "greenhouse"]
            .iter()
            .chain(&more)
            .copied()
            .collect::<Vec<_>>(),
    );
    all_run(&[&nodes[0]], "teller 3.0.0");
    publish_all(&nodes[0], "ask", ["1", "2", "3", "4"]);
    assert_eq!(watching.wait().unwrap().code(), Some(4), "{:#}\n{}", world.rollout(), world.logs());
    world.stands("aborted", &[("pi1", "failed"), ("pi2", "skipped"), ("pi3", "skipped"), ("pi4", "skipped")]);
    all_run(&online, "teller 2.0.0");
    all_run(&[&fourth], "teller 2.0.0");
    let shown = world.ends(0, &["rollout", "show", world.rollout()["id"].as_str().unwrap()]);
    assert!(shown.contains("1 of 1 devices of stage 1 failed") && shown.contains("faulted"), "{shown}");
    for node in nodes.into_iter().chain([fourth]) {
        node.stop();
    }
    world.cloud.stop();
}

/// A time of the day in UTC, so many minutes from now.
fn in_minutes(minutes: i64) -> String {
    let minute = (time::OffsetDateTime::now_utc().unix_timestamp() / 60 + minutes) % 1_440;
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

#[test]
fn one_that_fails_after_it_was_confirmed_goes_back_before_the_others_have_it() {
    let world = World::new();
    for thing in ["pi1", "pi2"] {
        world.enrol(thing);
    }
    let nodes = ["pi1", "pi2"].map(|thing| world.start(thing));
    world.publish(&good("1.0.0"));
    world.ends(0, &words(&["deploy", "teller@1.0.0", "--watch"], &["--stages", "100%"]));
    world.publish(&broken("2.0.0"));
    let begun = [
        "deploy",
        "teller@2.0.0",
        "--json",
        "--group",
        "greenhouse",
        "--canary",
        "1",
        "--soak",
        "1h",
        "--health-window",
        "0s",
    ];
    world.ends(0, &begun);
    let canary = patiently("the canary", || nodes.iter().find(|node| runs(node) == ["teller 2.0.0"]));
    patiently("it is confirmed", || world.standings().iter().any(|(_, how)| how == "confirmed").then_some(()));
    // It had its window in peace. Three events, of which each is tried again and again.
    publish_all(canary, "ask", ["1", "2", "3"]);
    patiently("it is taken back", || (world.rollout()["state"] == "aborted").then_some(()));
    let mut standings: Vec<String> = world.standings().into_iter().map(|(_, how)| how).collect();
    standings.sort();
    assert_eq!(standings, ["skipped", "undone"]);
    all_run(&nodes.each_ref(), "teller 1.0.0");
    let shown = world.ends(0, &["rollout", "show", world.rollout()["id"].as_str().unwrap()]);
    assert!(shown.contains("invocations faulted since"), "{shown}");
    for node in nodes {
        node.stop();
    }
    world.cloud.stop();
}

#[test]
fn an_update_waits_for_its_window_and_the_way_back_does_not() {
    let world = World::new();
    world.enrol("pi1");
    let node = world.start("pi1");
    for version in ["1.0.0", "2.0.0"] {
        world.publish(&good(version));
    }
    let deploy = ["deploy", "--group", "greenhouse", "--stages", "100%", "--health-window", "0s"];
    world.ends(0, &[&deploy[..], &["teller@1.0.0", "--watch"]].concat());
    let told = world.ends(2, &[&deploy[..], &["teller@2.0.0", "--window", "25:00-26:00"]].concat());
    assert!(told.contains("such as 02:00-04:30"), "{told}");
    let closed = format!("{}-{}", in_minutes(120), in_minutes(180));
    world.ends(0, &[&deploy[..], &["teller@2.0.0", "--window", &closed]].concat());
    let device = || {
        let id = world.rollout()["id"].as_str().unwrap().to_owned();
        world.cloud.get(&format!("/v1/rollouts/{id}/devices"))["devices"][0].clone()
    };
    patiently("it waits for its window", || (device()["phase"] == "deferred").then_some(()));
    assert_eq!((&device()["standing"], &device()["reason"]), (&json!("working"), &json!("outside-window")));
    assert_eq!(runs(&node), ["teller 1.0.0"]);
    world.ends(0, &["rollout", "abort", world.rollout()["id"].as_str().unwrap()]);
    world.stands("aborted", &[("pi1", "undone")]);
    let open = format!("{}-{}", in_minutes(1_435), in_minutes(60));
    world.ends(0, &[&deploy[..], &["teller@2.0.0", "--window", &open, "--watch"]].concat());
    all_run(&[&node], "teller 2.0.0");
    node.stop();
    world.cloud.stop();
}

#[test]
fn an_abort_takes_everybody_back_whatever_it_races() {
    let mut world = World::new();
    for thing in ["pi1", "pi2"] {
        world.enrol(thing);
    }
    let nodes = ["pi1", "pi2"].map(|thing| world.start(thing));
    let online: Vec<&Node> = nodes.iter().collect();
    for version in ["1.0.0", "2.0.0"] {
        world.publish(&good(version));
    }
    let deploy = |world: &World, version: &str, window: &str| {
        let what = format!("teller@{version}");
        let more = ["--stages", "100%", "--soak", "0s", "--queued-timeout", TIMEOUT, "--health-window", window];
        let words: Vec<&str> = ["deploy", &what, "--json", "--group", "greenhouse"].into_iter().chain(more).collect();
        let begun: Value = serde_json::from_str(&world.ends(0, &words)).unwrap();
        begun["id"].as_str().unwrap().to_owned()
    };
    // Before there was anything: what was not there is gone again.
    let id = deploy(&world, "1.0.0", "0s");
    world.stands("completed", &[("pi1", "confirmed"), ("pi2", "confirmed")]);
    world.ends(0, &["rollout", "abort", &id, "-m", "not yet"]);
    world.ends(4, &["rollout", "watch", &id]);
    for node in &online {
        patiently("nothing runs", || runs(node).is_empty().then_some(()));
    }
    deploy(&world, "1.0.0", "0s");
    world.stands("completed", &[("pi1", "confirmed"), ("pi2", "confirmed")]);
    // At every moment of a deployment, that of the confirmation most of all.
    for round in 0..6_u64 {
        let id = deploy(&world, "2.0.0", "1s");
        std::thread::sleep(Duration::from_millis(round * 300 + rand::random_range(0..250)));
        let abort = world.cloud.send("POST", &format!("/v1/rollouts/{id}/abort"), b"");
        assert_eq!(abort.status, 200, "{abort:?}");
        if round % 2 == 1 {
            world.cloud.kill_and_restart();
        }
        patiently("it is aborted", || (world.rollout()["state"] == "aborted").then_some(()));
        let back = |how: &str| matches!(how, "undone" | "skipped");
        patiently("everybody is back", || world.standings().iter().all(|(_, how)| back(how)).then_some(()));
        all_run(&online, "teller 1.0.0");
    }
    // One that was away through all of it.
    let [first, second] = nodes;
    second.kill();
    let id = deploy(&world, "2.0.0", "0s");
    world.stands("completed", &[("pi1", "confirmed"), ("pi2", "unknown")]);
    world.ends(0, &["rollout", "abort", &id]);
    let told = world.ends(4, &["rollout", "watch", &id]);
    assert!(told.contains("1 devices that are away go back when they come") || told.contains("are back"), "{told}");
    let second = world.start("pi2");
    world.stands("aborted", &[("pi1", "undone"), ("pi2", "undone")]);
    all_run(&[&first, &second], "teller 1.0.0");
    first.stop();
    second.stop();
    world.cloud.stop();
}

#[test]
fn going_back_one_step_needs_no_key_and_further_needs_the_targets_key() {
    let world = World::new();
    world.enrol("pi1");
    let node = world.start("pi1");
    for version in ["1.0.0", "2.0.0", "3.0.0"] {
        world.publish(&good(version));
        let what = format!("teller@{version}");
        world.ends(0, &["deploy", &what, "--device", "pi1", "--watch", "--health-window", "0s"]);
    }
    let back = ["rollback", "teller", "--device", "pi1", "--watch", "-m", "too warm"];
    let told = world.ends(0, &[&back[..], &["--keys", "/nowhere"]].concat());
    assert!(told.contains("teller  3.0.0 -> 2.0.0  pi1") && told.contains("state is kept"), "{told}");
    all_run(&[&node], "teller 2.0.0");
    // Once more would be forward.
    let told = world.ends(1, &back);
    assert!(told.contains("3.0.0, is not older"), "{told}");
    let told = world.ends(1, &["deploy", "teller@1.0.0", "--device", "pi1"]);
    assert!(told.contains("older") && told.contains("holm rollback"), "{told}");
    let told = world.ends(1, &["deploy", "teller@1.0.0", "--group", "greenhouse"]);
    assert!(told.contains("next: holm rollback teller --to 1.0.0 --group greenhouse"), "{told}");
    // Somebody who has the control plane and not the key does not get there: the permit is checked, here and by the device.
    let told = world.ends(1, &[&back[..], &["--to", "1.0.0", "--keys", "/nowhere"]].concat());
    assert!(told.contains("no targets key"), "{told}");
    let told = world.ends(0, &[&back[..], &["--to", "1.0.0", "--dry-run"]].concat());
    assert!(told.contains("a permit of the targets key is needed"), "{told}");
    world.ends(0, &[&back[..], &["--to", "1.0.0", "--health-window", "0s"]].concat());
    all_run(&[&node], "teller 1.0.0");
    world.ends(0, &["deploy", "teller@2.0.0", "--device", "pi1", "--watch", "--health-window", "0s"]);
    all_run(&[&node], "teller 2.0.0");
    node.stop();
    world.cloud.stop();
}

#[test]
fn configuration_is_checked_by_the_manifest_and_goes_out_like_a_version() {
    let world = World::new();
    for thing in ["pi1", "pi2"] {
        world.enrol(thing);
    }
    let nodes = ["pi1", "pi2"].map(|thing| world.start(thing));
    let more = "[config.limit]\ntype = \"number\"\ndefault = 5\nmin = 1\nmax = 9";
    world.publish(&good("1.0.0").more(more));
    world.ends(0, &words(&["deploy", "teller@1.0.0", "--watch"], &[]));
    let set = ["config", "set", "teller"];
    let told = world.ends(1, &words(&set, &["limit=11", "nonsense=1"]));
    for problem in ["pi1: limit: 11 is out of range", "nonsense: teller 1.0.0 has no such parameter", "pi2: limit"] {
        assert!(told.contains(problem), "{problem}\n{told}");
    }
    assert_eq!(world.rollout()["what"], "1.0.0", "nothing came of it");
    world.ends(0, &words(&set, &["limit=7", "--watch"]));
    let told = world.ends(0, &["config", "show", "teller", "--group", "greenhouse"]);
    assert_eq!(told, "DEVICE  VERSION  SET\npi1     1.0.0    limit=7\npi2     1.0.0    limit=7\n");
    // A configuration that traps is taken back like a version that does.
    let mut watching = world.begin(&[
        "config",
        "set",
        "teller",
        "habit=panic",
        "--group",
        "greenhouse",
        "--watch",
        "--health-window",
        "60s",
        "--canary",
        "1",
    ]);
    let canary = patiently("the trial", || {
        let trial = |node: &&Node| node.admin.get("/v1/functions")["functions"][0]["state"] == "trial";
        nodes.iter().find(trial)
    });
    publish_all(canary, "ask", ["1", "2", "3", "4"]);
    assert_eq!(watching.wait().unwrap().code(), Some(4), "{:#}\n{}", world.rollout(), world.logs());
    let told = world.ends(0, &["config", "show", "teller", "--device", "pi1", "--device", "pi2"]);
    assert!(told.contains("pi1     1.0.0    limit=7\npi2     1.0.0    limit=7\n"), "{told}");
    for node in nodes {
        node.stop();
    }
    world.cloud.stop();
}

#[test]
fn bad_input_is_answered_with_all_of_it_and_nothing_comes_of_it() {
    let world = World::new();
    world.enrol("pi1");
    world.publish(&good("1.0.0"));
    let problems = |body: Value| {
        let answer = world.cloud.send("POST", "/v1/rollouts", body.to_string().as_bytes());
        assert_eq!(answer.status, 400, "{answer:?}");
        let error = answer.json()["error"].clone();
        error["problems"].as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let found = problems(json!({
        "function": "Teller!", "version": "1.0.0", "back": true, "group": "greenhouse", "devices": ["pi1"],
        "stages": ["5%", "many of them"], "soak_s": -1, "success_percent": 101, "nonsense": 1, "permit": {},
    }));
    for word in [
        "function",
        "one of `version`",
        "one of `group`",
        "many of them",
        "soak_s",
        "success_percent",
        "nonsense",
        "permit",
    ] {
        assert!(found.iter().any(|problem| problem.contains(word)), "{word}: {found:#?}");
    }
    let found =
        problems(json!({ "function": "teller", "version": "9.0.0", "group": "greenhouse", "stages": ["10%", "5%"] }));
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].contains("9.0.0 is not published; there is 1.0.0"), "{found:#?}");
    let found = problems(json!({ "function": "teller", "version": "1.0.0", "devices": ["pi7", "pi8"] }));
    assert_eq!(found, ["there is no device pi7", "there is no device pi8"]);
    let found = problems(json!({ "function": "teller", "back": true, "devices": ["pi1"] }));
    assert_eq!(found, ["pi1: there is no version of teller before that it has confirmed"]);
    assert_eq!(world.cloud.get("/v1/rollouts")["rollouts"], json!([]));
    for (method, path) in [
        ("GET", "/v1/rollouts/r-1"),
        ("GET", "/v1/rollouts/x/devices"),
        ("POST", "/v1/rollouts/r-1/abort"),
        ("POST", "/v1/rollouts/r-1/dance"),
    ] {
        assert_eq!(world.cloud.send(method, path, b"").status, 404, "{path}");
    }
    // Two of one function at the same time are one too many.
    let body = json!({ "function": "teller", "version": "1.0.0", "group": "greenhouse" });
    let answer = world.cloud.send("POST", "/v1/rollouts", body.to_string().as_bytes());
    assert_eq!(answer.status, 201, "{answer:?}");
    let found = problems(body);
    assert!(found.len() == 1 && found[0].starts_with("r-1 has 1 of these devices"), "{found:#?}");
    let groups: Vec<String> = (0..16).map(|n| format!("g{n}")).collect();
    let answer = world.cloud.send("POST", "/v1/devices/pi1/groups", json!({ "add": groups }).to_string().as_bytes());
    assert_eq!((answer.status, answer.code().as_str()), (409, "conflict"), "{answer:?}");
    assert_eq!(world.cloud.get("/v1/devices/pi1")["groups"], json!(["greenhouse"]));
    world.cloud.stop();
}

#[test]
fn a_file_says_who_is_in_which_group_and_what_runs_there() {
    let world = World::new();
    for thing in ["pi1", "pi2", "pi3"] {
        world.enrol(thing);
    }
    world.publish(&good("1.0.0"));
    let path = world.folder.path().join("fleet.toml");
    let file = |text: &str| std::fs::write(&path, text).unwrap();
    let apply = ["apply", path.to_str().unwrap()];
    let text = "fleet_version = 1\n[group.greenhouse]\ndevices = [\"pi1\", \"pi2\"]\n[[deploy]]\nfunction = \"teller\"\n\
                version = \"1.0.0\"\ngroup = \"greenhouse\"\nstages = [\"1\", \"100%\"]\nsoak = \"1h\"\n";
    file(&text.replace("pi2", "pi7"));
    assert!(world.ends(1, &apply).contains("there is no active device pi7 in group greenhouse"));
    file(&text.replace("1.0.0", "2.0.0"));
    assert!(world.ends(1, &apply).contains("2.0.0 is not published"));
    file(&text.replace("soak", "soka"));
    assert!(world.ends(1, &apply).contains("line 9: deploy[0].soka: "));
    file(text);
    let told = world.ends(0, &[&apply[..], &["--plan"]].concat());
    assert_eq!(told, "pi3  -greenhouse\nteller  none -> 1.0.0  pi1, pi2\nstages  1 (1), 100% (1)\n");
    assert_eq!(world.cloud.get("/v1/rollouts")["rollouts"], json!([]));
    assert_eq!(world.cloud.get("/v1/devices/pi3")["groups"], json!(["greenhouse"]));
    let told = world.ends(0, &apply);
    assert!(told.contains("r-1 begins"), "{told}");
    assert_eq!(world.cloud.get("/v1/devices/pi3")["groups"], json!([]));
    let rollout = world.rollout();
    assert_eq!(
        (&rollout["group"], &rollout["devices"], &rollout["plan"]["soak_s"]),
        (&json!("greenhouse"), &json!(2), &json!(3_600))
    );
    world.cloud.stop();
}
