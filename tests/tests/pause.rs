//! A rollout that is paused begins with nobody else, and goes on where it stood when it is resumed: by `holm rollout`.

use std::time::{Duration, Instant};

use holm_tests::device::Device;
use holm_tests::functions::Guest;
use holm_tests::within;
use holm_tests::world::World;
use serde_json::{Value, json};

#[test]
fn a_rollout_that_is_paused_begins_with_nobody_else_until_it_is_resumed() {
    let world = World::start();
    let node = world.node("");
    let ok = |words: &[&str]| world.laptop.ok(&world.cloud, words);
    // One that is never there: to be told is enough.
    Device::enrol(&world.cloud, "pi2");
    ok(&["device", "groups", "pi1", "--add", "canary"]);
    ok(&["key", "new", "--cloud"]);
    let bundle = Guest::new("teller", "echo").on("ask").bundle();
    world.laptop.publish(&world.cloud, &world.laptop.bundle("teller.holm", &bundle), &[]);
    let staging = ["--canary", "canary", "--soak", "1s", "--queued-timeout", "2s", "--health-window", "2s"];
    let words = [&["deploy", "teller@1.0.0", "--group", "greenhouse", "--json"][..], &staging].concat();
    let rollout: Value = serde_json::from_str(&ok(&words)).unwrap();
    let id = rollout["id"].as_str().unwrap();
    let standing = |thing: usize| {
        let devices = world.cloud.get(&format!("/v1/rollouts/{id}/devices"))["devices"].clone();
        devices[thing]["standing"].as_str().unwrap().to_owned()
    };
    within(Duration::from_secs(60), "the canary is told", || (standing(0) != "waiting").then_some(()));
    let paused: Value = serde_json::from_str(&ok(&["rollout", "pause", id, "-m", "lunch", "--json"])).unwrap();
    assert_eq!((&paused["state"], &paused["reason"]), (&json!("paused"), &json!("paused by admin: lunch")));
    assert_eq!(ok(&["rollout", "pause", id]), format!("{id} is paused\n"), "what is so already stays so");
    // Who was told goes on by itself.
    within(Duration::from_secs(60), "the canary confirms", || (standing(0) == "confirmed").then_some(()));
    let seen = Instant::now();
    while seen.elapsed() < Duration::from_secs(3) {
        assert_eq!(standing(1), "waiting", "its soak is over, and nobody said go on");
        std::thread::sleep(Duration::from_millis(100));
    }
    let shown = ok(&["rollout", "list", "--state", "paused"]);
    assert!(shown.contains(id) && shown.contains("1 confirmed, 1 waiting"), "{shown}");
    assert_eq!(ok(&["rollout", "resume", id]), format!("{id} is running\n"));
    let output = world.laptop.run(&world.cloud, &["rollout", "watch", id, "--timeout", "60s"]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(5) && told.contains("paused by admin: lunch"), "{output:?}");
    assert!(told.contains("resumed by admin") && told.contains("1 confirmed, 1 unknown"), "{told}");
    let late = world.laptop.fails(&world.cloud, 1, &["rollout", "resume", id]);
    assert!(late.contains("is completed, and cannot become running"), "{late}");
    node.stop();
    world.cloud.stop();
}
