//! Functions that would rather have an update wait: the real `holm`, `holm cloud` and `holmd`.

use std::process::Command;
use std::time::{Duration, Instant};

use holm_tests::eventually;
use holm_tests::functions::Guest;
use holm_tests::node::{Node, Start, binary};
use holm_tests::watcher::Watcher;
use holm_tests::world::World;
use serde_json::{Value, json};

const ROLLOUT: [&str; 7] = ["deploy", "--group", "greenhouse", "--stages", "100%", "--health-window", "0s"];

/// As [`eventually`], for what takes several of the waits that functions ask for.
#[track_caller]
fn patiently<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within 120 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn world() -> World {
    let world = World::start();
    world.laptop.ok(&world.cloud, &["key", "new", "--cloud"]);
    world
}

/// A function that is asked about updates, and answers as its habit is.
fn brewer(version: &str, habit: &str) -> Guest {
    Guest::new("brewer", habit).on("ask").trigger("lifecycle", "on = [\"update\"]").version(version)
}

fn publish(world: &World, guest: &Guest) {
    let bundle = world.laptop.bundle("brewer.holm", &guest.bundle());
    world.laptop.publish(&world.cloud, &bundle, &["--profile", "x64-v1"]);
}

/// Deploys a version to the one device, and waits for its end.
fn deploy(world: &World, version: &str) -> String {
    let what = format!("brewer@{version}");
    let words = ["deploy", &what, "--device", "pi1", "--watch", "--timeout", "60s", "--health-window", "0s"];
    world.laptop.ok(&world.cloud, &words)
}

/// Begins a rollout to the one device.
fn roll_out(world: &World, version: &str) {
    world.laptop.ok(&world.cloud, &[&ROLLOUT[..], &[&format!("brewer@{version}")]].concat());
}

fn version(node: &Node) -> String {
    node.admin.get("/v1/functions")["functions"][0]["version"].as_str().unwrap_or_default().to_owned()
}

/// What the device last said of its deployment.
fn said(world: &World) -> Value {
    let generation = world.cloud.get("/v1/devices/pi1")["job"]["generation"].as_u64().unwrap();
    world.cloud.get(&format!("/v1/devices/pi1/jobs/{generation}"))["job"]["details"].clone()
}

#[test]
fn a_function_has_an_update_wait_and_everybody_sees_why_and_until_when() {
    let world = world();
    let node = world.node("");
    // So seldom that a slow machine comes to the restart before the third time.
    let patient = "[retry]\ninterval = \"12s\"\nbackoff_rate = 1.0";
    publish(&world, &brewer("1.0.0", "third-time").more(patient));
    publish(&world, &brewer("2.0.0", "echo"));
    // There is nothing that it takes the place of.
    assert!(!deploy(&world, "1.0.0").contains("deferred"));
    // Whoever begins to look after the restart may be late for the third time: its session is kept from here on.
    let watch = |node: &Node| Watcher::named(node, "guest", "seen/brewer");
    drop(watch(&node));
    roll_out(&world, "2.0.0");
    let details = patiently("it waits", || Some(said(&world)).filter(|said| said["phase"] == "deferred"));
    assert_eq!(details["reason"], "deferred-by-function");
    let message = details["message"].as_str().unwrap();
    assert!(message.contains("brewer: attempt 1; it is asked again at "), "{message}");
    let until: i64 = details["until"].as_str().unwrap().parse().unwrap();
    let now = i64::try_from(time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap();
    assert!((until - now).abs() < 60_000, "{until} at {now}");
    let status = node.admin.get("/v1/status")["cloud"].clone();
    assert_eq!((&status["phase"], &status["deferred_until"]), (&json!("deferred"), &json!(until)));
    let shown = Command::new(binary("holm")).arg("status").arg("--data").arg(world.data()).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("an update waits until "), "{shown}");
    let rollout = world.cloud.get("/v1/rollouts?limit=1")["rollouts"][0]["id"].as_str().unwrap().to_owned();
    patiently("the rollout knows", || {
        let device = world.cloud.get(&format!("/v1/rollouts/{rollout}/devices"))["devices"][0].clone();
        (device["standing"] == "working" && device["reason"] == "deferred-by-function").then_some(())
    });
    // What it said is not forgotten: after a restart it is asked for the second time.
    assert_eq!(version(&node), "1.0.0");
    node.kill();
    let config = World::config().replace("[cloud]", "[cloud]\ndefer = \"10m\"");
    let data = world.data();
    let node = Start { config: &config, ..Start::new(&data) }.run();
    let mut watcher = watch(&node);
    // At the third attempt it agrees, and only then is its witness: what it did before was dropped with its answer.
    let (_, event) = watcher.next();
    assert_eq!((&event["source"], &event["subject"]), (&json!("lifecycle"), &json!("update")));
    assert_eq!(event["attempt"], 3);
    let asked: Value = serde_json::from_str(event["data"].as_str().unwrap()).unwrap();
    assert_eq!(asked["functions"], json!([{ "name": "brewer", "from": "1.0.0", "to": "2.0.0" }]));
    assert!((1..600_000).contains(&asked["left_ms"].as_u64().unwrap()), "{asked}");
    patiently("the new version", || (version(&node) == "2.0.0").then_some(()));
    eventually("it is told", || (said(&world)["phase"] == "confirmed").then_some(()));
    assert_eq!(node.admin.get("/v1/status")["cloud"]["deferred_until"], Value::Null);
    node.stop();
    world.cloud.stop();
}

#[test]
fn no_function_holds_up_an_update_for_longer_than_the_device_allows() {
    let world = world();
    let node = world.node("defer = \"4s\"\n");
    publish(&world, &brewer("1.0.0", "publish-then-retry"));
    publish(&world, &brewer("2.0.0", "panic"));
    publish(&world, &brewer("3.0.0", "sleep"));
    publish(&world, &brewer("4.0.0", "echo"));
    deploy(&world, "1.0.0");
    let begun = Instant::now();
    let told = deploy(&world, "2.0.0");
    assert!(told.contains("a function has asked to wait: brewer: not yet"), "{told}");
    // Two seconds, and what is left of the four.
    assert!(begun.elapsed() >= Duration::from_secs(3), "after {:?}", begun.elapsed());
    // One that traps and one that does not answer are no objection.
    for version in ["3.0.0", "4.0.0"] {
        let told = deploy(&world, version);
        assert!(!told.contains("asked to wait"), "{told}");
    }
    assert_eq!(version(&node), "4.0.0");
    node.stop();
    world.cloud.stop();
}

#[test]
fn the_way_back_is_not_held_up_and_neither_is_what_may_be_one() {
    let world = world();
    let node = world.node("");
    publish(&world, &brewer("1.0.0", "echo"));
    publish(&world, &brewer("2.0.0", "publish-then-retry").more("[config.level]\ntype = \"number\"\ndefault = 1"));
    publish(&world, &brewer("3.0.0", "echo"));
    deploy(&world, "1.0.0");
    deploy(&world, "2.0.0");
    // A newer version waits for as long as an hour; what takes that back does not.
    roll_out(&world, "3.0.0");
    patiently("it waits", || (said(&world)["phase"] == "deferred").then_some(()));
    let id = world.cloud.get("/v1/rollouts?limit=1")["rollouts"][0]["id"].as_str().unwrap().to_owned();
    world.laptop.ok(&world.cloud, &["rollout", "abort", &id]);
    let state = || world.cloud.get("/v1/rollouts?limit=1")["rollouts"][0]["state"].clone();
    patiently("it is taken back", || (state() == "aborted").then_some(()));
    // Other parameters may be those of before.
    let set = ["config", "set", "brewer", "level=2", "--group", "greenhouse", "--stages", "100%"];
    world.laptop.ok(&world.cloud, &[&set[..], &["--soak", "0s", "--health-window", "0s", "--watch"]].concat());
    let back = ["rollback", "brewer", "--group", "greenhouse", "-m", "it brews badly"];
    world.laptop.ok(&world.cloud, &back);
    patiently("it went back", || (version(&node) == "1.0.0").then_some(()));
    node.stop();
    world.cloud.stop();
}
