//! A node and a scripted control plane with a repository: what is signed and listed comes to run, nothing else does, and exactly the
//! old or the new set runs, whatever happens in between.

use std::time::Duration;

use holm_core::Timestamp;
use holm_protocol::{DesiredFunction, DesiredState, ThingName, UpdateWindow};
use holm_tests::cloud::repository::NOW;
use holm_tests::cloud::{QUICK, World, patiently, runs};
use holm_tests::disk::{Small, fill};
use holm_tests::eventually;
use holm_tests::functions::Guest;
use holm_tests::mqtt::Client;
use holm_tests::node::Start;
use holm_tests::watcher::{Watcher, publish_all};
use serde_json::json;

/// A function that answers every event with its version's label.
fn teller(version: &str, label: &str) -> Vec<u8> {
    let limits = "memory = \"4MiB\"\nkv = \"8MiB\"";
    let guest = Guest::new("teller", "witness").on("ask").with("label", label).version(version).limits(limits);
    guest.bundle()
}

/// The same function in a version that always traps.
fn broken(version: &str) -> Vec<u8> {
    let retry = "[retry]\nmax_attempts = 50\ninterval = \"100ms\"\nbackoff_rate = 1.0";
    Guest::new("teller", "panic").on("ask").version(version).more(retry).bundle()
}

fn other() -> Vec<u8> {
    Guest::new("other", "echo").on("elsewhere").bundle()
}

#[test]
fn what_is_desired_arrives_runs_and_goes() {
    let mut world = World::new();
    let node = world.start();
    node.admin.deploy(&other());
    let function = world.release(&teller("1.0.0", "one"));
    let job = world.deploy(&world.repository.desired(1, 0, vec![function.clone()]));
    let details = world.check_end(&job, "SUCCEEDED", None);
    assert_eq!((&details["generation"], &details["phase"]), (&"1".into(), &"confirmed".into()));
    assert_eq!(runs(&node), ["teller 1.0.0"], "what is not desired is removed");
    let mut watcher = Watcher::new(&node, "seen/teller");
    publish_all(&node, "ask", ["1".to_owned()]);
    assert_eq!(watcher.next().1["label"], "one");
    // Configuration alone is a change too.
    let mut other_label = function;
    other_label.config.insert("label".to_owned(), "two".to_owned());
    let job = world.deploy(&world.repository.desired(2, 0, vec![other_label]));
    world.check_end(&job, "SUCCEEDED", None);
    publish_all(&node, "ask", ["2".to_owned()]);
    assert_eq!(watcher.next().1["label"], "two");
    let shadow = |generation: u64| {
        eventually("the shadow", || {
            let state = world.plane.core.state();
            let last = state.shadows.get("pi3")?.last()?;
            (last["generation"] == generation && last["phase"] == "confirmed").then(|| last.clone())
        })
    };
    assert_eq!(shadow(2)["functions"][0]["version"], "1.0.0");
    node.stop();
    let node = world.restart();
    assert_eq!(runs(&node), ["teller 1.0.0"]);
    let job = world.deploy(&world.repository.desired(3, 0, vec![]));
    world.check_end(&job, "SUCCEEDED", None);
    assert!(runs(&node).is_empty());
    node.stop();
}

#[test]
fn what_is_not_believed_is_refused_with_its_reason_and_the_old_set_runs_on() {
    let mut world = World::new();
    let node = world.start();
    let one = world.release(&teller("1.0.0", "one"));
    let job = world.deploy(&world.repository.desired(5, 0, vec![one.clone()]));
    world.check_end(&job, "SUCCEEDED", None);
    let two = world.release(&teller("2.0.0", "two"));
    let desired = world.repository.desired(6, 0, vec![two.clone()]);
    let forged = world.repository.forged(&desired);
    let altered = world.repository.document(&desired).replace("\"sig\":\"", "\"sig\":\"AAAA");
    let stranger = DesiredState { device: ThingName::new("pi4").unwrap(), ..desired.clone() };
    let older = DesiredState { generation: 4, ..desired.clone() };
    let late = DesiredState { issued: Timestamp(NOW.0 - 9_000), expires: Timestamp(NOW.0 - 5_000), ..desired.clone() };
    for (document, reason) in [
        (forged, "unknown-key"),
        (altered, "wrong-signature"),
        ("{}".to_owned(), "malformed"),
        (world.repository.document(&stranger), "wrong-device"),
        (world.repository.document(&older), "older-generation"),
        (world.repository.document(&late), "expired"),
    ] {
        let job = world.send(&document);
        let details = world.check_end(&job, "REJECTED", Some(reason));
        assert!(details["message"].as_str().unwrap().len() > 10, "{details}");
        assert_eq!(runs(&node), ["teller 1.0.0"], "{reason}");
    }
    // These are believed, and what they name is not.
    let unlisted = DesiredFunction { version: "9.0.0".to_owned(), ..two.clone() };
    let job = world.deploy(&world.repository.desired(6, 0, vec![unlisted]));
    world.check_end(&job, "REJECTED", Some("unknown-target"));
    let mut configured = one;
    configured.config.insert("colour".to_owned(), "red".to_owned());
    let job = world.deploy(&world.repository.desired(7, 0, vec![configured]));
    world.check_end(&job, "REJECTED", Some("invalid-config"));
    let path = {
        let mut desk = world.plane.https.desk();
        let (path, bytes) = desk.files.iter_mut().find(|(path, _)| path.contains("/teller/2.0.0/")).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        path.clone()
    };
    let job = world.deploy(&world.repository.desired(8, 0, vec![two.clone()]));
    world.check_end(&job, "REJECTED", Some("wrong-digest"));
    world.plane.https.desk().files.get_mut(&path).unwrap().push(0);
    let job = world.deploy(&world.repository.desired(9, 0, vec![two.clone()]));
    world.check_end(&job, "REJECTED", Some("endless-data"));
    world.repository.publish(&mut world.plane.https.desk(), None, Timestamp(NOW.0 - 40 * 86_400_000));
    let job = world.deploy(&world.repository.desired(10, 0, vec![two]));
    world.check_end(&job, "FAILED", Some("metadata-expired"));
    assert_eq!(runs(&node), ["teller 1.0.0"]);
    node.stop();
}

#[test]
fn an_older_release_needs_a_permit() {
    let mut world = World::new();
    let node = world.start();
    let one = world.release(&teller("1.0.0", "one"));
    let two = world.release(&teller("2.0.0", "two"));
    let job = world.deploy(&world.repository.desired(1, 0, vec![two]));
    world.check_end(&job, "SUCCEEDED", None);
    let job = world.deploy(&world.repository.desired(2, 0, vec![]));
    world.check_end(&job, "SUCCEEDED", None);
    // That it was removed in between helps nobody.
    let job = world.deploy(&world.repository.desired(3, 0, vec![one]));
    world.check_end(&job, "REJECTED", Some("older-version"));
    assert!(runs(&node).is_empty());
    node.stop();
}

#[test]
fn a_version_that_traps_in_its_window_takes_the_whole_set_back() {
    let mut world = World::new();
    let node = world.start();
    let one = world.release(&teller("1.0.0", "one"));
    let job = world.deploy(&world.repository.desired(1, 0, vec![one]));
    world.check_end(&job, "SUCCEEDED", None);
    let (two, more) = (world.release(&broken("2.0.0")), world.release(&other()));
    let job = world.deploy(&world.repository.desired(2, 300, vec![two, more]));
    patiently(&world.data, "the trial", || (runs(&node) == ["other 1.0.0", "teller 2.0.0"]).then_some(()));
    // Going back needs no control plane.
    world.plane.proxy.freeze(true);
    publish_all(&node, "ask", (1..=5).map(|number| number.to_string()));
    patiently(&world.data, "the old set", || (runs(&node) == ["teller 1.0.0"]).then_some(()));
    world.plane.proxy.freeze(false);
    let details = world.check_end(&job, "FAILED", Some("trapped"));
    assert_eq!(details["phase"], "rolled-back");
    node.stop();
}

#[test]
fn a_kill_in_any_phase_leaves_the_old_or_the_new_set_and_it_goes_on() {
    let mut world = World::new();
    let node = world.start();
    let one = world.release(&teller("1.0.0", "one"));
    let job = world.deploy(&world.repository.desired(1, 0, vec![one]));
    world.check_end(&job, "SUCCEEDED", None);
    let (two, more) = (world.release(&teller("2.0.0", "two")), world.release(&other()));
    world.plane.https.desk().withheld = true;
    let mut desired = world.repository.desired(2, 2, vec![two, more]);
    let minute = (time::OffsetDateTime::now_utc().unix_timestamp() / 60 % 1_440) as u16;
    desired.policy.window = Some(UpdateWindow { start_minute: (minute + 300) % 1_440, minutes: 10 });
    let job = world.deploy(&desired);
    let old = ["teller 1.0.0"];
    world.wait_for(&node, "downloading");
    node.kill();
    let node = world.restart();
    assert_eq!(runs(&node), old);
    world.plane.https.desk().withheld = false;
    world.wait_for(&node, "deferred");
    node.kill();
    let node = world.restart();
    assert_eq!(runs(&node), old);
    assert_eq!(node.admin.get("/v1/status")["cloud"]["phase"], "deferred");
    assert!(world.plane.core.state().updates.iter().all(|(id, status, _)| *id != job || status == "IN_PROGRESS"));
    // A newer one takes its place, with the same set and no window.
    desired.policy.window = None;
    let job = world.deploy(&DesiredState { generation: 3, ..desired });
    world.wait_for(&node, "trial");
    node.kill();
    let node = world.restart();
    // One going down is not held against it.
    world.check_end(&job, "SUCCEEDED", None);
    assert_eq!(runs(&node), ["other 1.0.0", "teller 2.0.0"]);
    // Twice in the same trial is.
    let three = world.release(&teller("3.0.0", "three"));
    let job = world.deploy(&world.repository.desired(4, 300, vec![three]));
    let mut node = node;
    for _ in 0..2 {
        patiently(&world.data, "the trial", || (runs(&node) == ["teller 3.0.0"]).then_some(()));
        node.kill();
        node = world.restart();
    }
    world.check_end(&job, "FAILED", Some("crash-loop"));
    assert_eq!(runs(&node), ["other 1.0.0", "teller 2.0.0"]);
    node.stop();
}

#[test]
fn a_version_that_takes_the_node_down_leaves_the_one_before_free() {
    let config = QUICK.replace("quarantine_after = 0", "quarantine_after = 2");
    let mut world = World::new();
    let run = |world: &World| Start { config: &config, ..Start::new(&world.data) }.run();
    world.start().stop();
    let mut node = run(&world);
    let one = world.release(&teller("1.0.0", "one"));
    let job = world.deploy(&world.repository.desired(1, 0, vec![one]));
    world.check_end(&job, "SUCCEEDED", None);
    let slow = Guest::new("teller", "slow").on("ask").version("2.0.0").with("ms", "60000").limits("timeout = \"120s\"");
    let two = world.release(&slow.bundle());
    let job = world.deploy(&world.repository.desired(2, 300, vec![two]));
    for _ in 0..2 {
        patiently(&world.data, "the trial", || (runs(&node) == ["teller 2.0.0"]).then_some(()));
        let mut client = Client::connect(&node.mqtt, "asks", true).unwrap();
        // Noted before it begins, so that whoever is running when the node goes down is known.
        patiently(&world.data, "it is running", || {
            client.publish("ask", b"1", 0, 0, false, None).unwrap();
            let noted = std::fs::read(world.data.join("running")).ok()?;
            noted.windows(6).any(|name| name == b"teller").then_some(())
        });
        node.kill();
        node = run(&world);
    }
    world.check_end(&job, "FAILED", Some("crash-loop"));
    assert_eq!(runs(&node), ["teller 1.0.0"]);
    assert_ne!(node.admin.get("/v1/functions")["functions"][0]["state"], "quarantined");
    let mut watcher = Watcher::new(&node, "seen/teller");
    publish_all(&node, "ask", ["9".to_owned()]);
    assert_eq!(watcher.next().1["label"], "one");
    node.stop();
}

#[test]
fn what_does_not_come_in_time_is_given_up_and_the_old_set_runs_on() {
    let mut world = World::new();
    let node = world.start();
    let one = world.release(&teller("1.0.0", "one"));
    let job = world.deploy(&world.repository.desired(1, 0, vec![one]));
    world.check_end(&job, "SUCCEEDED", None);
    let two = world.release(&teller("2.0.0", "two"));
    world.plane.https.desk().withheld = true;
    let mut desired = world.repository.desired(2, 0, vec![two]);
    desired.policy.deadline_s = 3;
    let job = world.deploy(&desired);
    world.check_end(&job, "FAILED", Some("deadline"));
    assert_eq!(runs(&node), ["teller 1.0.0"]);
    node.stop();
}

#[test]
fn metadata_that_expires_while_it_is_worked_on_is_fetched_again() {
    let mut world = World::new();
    let node = world.start();
    let one = world.release(&teller("1.0.0", "one"));
    // Good for some seconds still.
    let soon = Duration::from_secs(20);
    let almost = Timestamp(NOW.0 - 86_400_000 + i64::try_from(soon.as_millis()).unwrap());
    world.repository.publish(&mut world.plane.https.desk(), None, almost);
    world.plane.https.desk().withheld = true;
    let job = world.deploy(&world.repository.desired(1, 0, vec![one]));
    world.wait_for(&node, "downloading");
    std::thread::sleep(soon);
    world.repository.publish(&mut world.plane.https.desk(), None, NOW);
    world.plane.https.desk().withheld = false;
    world.check_end(&job, "SUCCEEDED", None);
    assert_eq!(runs(&node), ["teller 1.0.0"]);
    node.stop();
}

/// The same function, with so many bytes more that say nothing: a custom section of its component.
fn padded(version: &str, bytes: u32) -> Vec<u8> {
    let leb = |number: u32| (0..5).map(move |at| (number >> (7 * at)) as u8 & 0x7f | if at < 4 { 0x80 } else { 0 });
    let mut component = holm_tests::functions::guests().to_vec();
    component.push(0);
    component.extend(leb(bytes + 1));
    component.push(0);
    component.extend((0..bytes).map(|_| rand::random::<u8>()));
    Guest::new("teller", "witness").on("ask").version(version).bundle_of(&component)
}

#[test]
fn a_download_that_is_cut_at_every_64_kib_goes_on_where_it_stood_and_soon() {
    const PIECE: usize = 64 << 10;
    let mut world = World::new();
    let node = world.start();
    let bundle = padded("1.0.0", 8 * PIECE as u32);
    let cuts = bundle.len() / PIECE;
    assert!(cuts > 8);
    let one = world.release(&bundle);
    world.plane.https.desk().cut = Some(PIECE);
    let job = world.deploy(&world.repository.desired(1, 0, vec![one]));
    // With waits that grow with every cut, this would take many minutes.
    world.check_end(&job, "SUCCEEDED", None);
    let expected: Vec<String> = (1..=cuts).map(|cut| format!("bytes={}-", cut * PIECE)).collect();
    assert_eq!(world.plane.https.desk().ranges, expected);
    assert_eq!(runs(&node), ["teller 1.0.0"]);
    assert!(!world.data.join("downloads").exists());
    node.stop();
}

#[test]
fn a_full_disk_keeps_the_old_set_and_a_deployment_goes_on_when_there_is_room() {
    let mut world = World::new();
    std::fs::create_dir_all(&world.data).unwrap();
    let Some(_small) = Small::mount(&world.data, "size=160m") else { return };
    // A full disk would take no word of it.
    let told = world.data.with_extension("log");
    std::os::unix::fs::symlink(&told, world.data.join("log")).unwrap();
    let node = world.start();
    let filler = world.data.join("filler");
    let one = world.release(&teller("1.0.0", "one"));
    let job = world.deploy(&world.repository.desired(1, 0, vec![one]));
    world.check_end(&job, "SUCCEEDED", None);
    // Nothing at all, then room for what the database has to say, but not for the version.
    for (before, version, room, generation) in [("1.0.0", "2.0.0", 0, 2), ("2.0.0", "3.0.0", 96 << 10, 13)] {
        let release = world.release(&teller(version, version));
        fill(&filler);
        let length = std::fs::metadata(&filler).unwrap().len();
        std::fs::File::options().write(true).open(&filler).unwrap().set_len(length - room).unwrap();
        let job = world.deploy(&world.repository.desired(generation, 0, vec![release.clone()]));
        match room {
            // What can be written down nowhere is not begun, and the repository's metadata come before all.
            0 => eventually("the metadata cannot be kept", || {
                let text = std::fs::read_to_string(&told).unwrap();
                let unkept =
                    |line: &str| line.contains("cannot refresh the repository's metadata") && line.contains("full");
                text.lines().any(unkept).then_some(())
            }),
            _ => assert_eq!(world.end_of(&job).1["reason"], "disk-full"),
        }
        let function = node.admin.get("/v1/functions")["functions"][0].clone();
        assert_eq!((&function["version"], &function["state"]), (&json!(before), &json!("confirmed-unexercised")));
        std::fs::remove_file(&filler).unwrap();
        // As the control plane does with what failed for a reason that passes: the same once more.
        let job = world.deploy(&world.repository.desired(generation + 10, 0, vec![release]));
        world.check_end(&job, "SUCCEEDED", None);
        assert_eq!(runs(&node), [format!("teller {version}")]);
    }
    node.stop();
}

#[test]
fn a_device_without_a_compiler_runs_native_code_that_is_vouched_for_and_no_other() {
    let mut world = World::new();
    let node = world.start();
    node.stop();
    let config = QUICK.replace("[functions]", "[functions]\ncompiler = \"/nowhere/holm-compile\"");
    let node = Start { config: &config, ..Start::new(&world.data) }.run();
    let one = world.release(&teller("1.0.0", "one"));
    let job = world.deploy(&world.repository.desired(1, 0, vec![one.clone()]));
    let details = world.check_end(&job, "REJECTED", Some("compile-failed"));
    assert!(details["message"].as_str().unwrap().contains("no native code"), "{details}");
    let (component, native) = (world.data.join("component.wasm"), world.data.join("component.cwasm"));
    std::fs::write(&component, holm_tests::functions::guests()).unwrap();
    let profile = if cfg!(target_arch = "x86_64") { "x64-v1" } else { "a64-small-v1" };
    let mut compile = std::process::Command::new(holm_tests::node::binary("holm-compile"));
    assert!(compile.args(["--profile", profile]).args([&component, &native]).status().unwrap().success());
    let bytes = std::fs::read(&native).unwrap();
    let listing = |engine: &str| {
        let component = holm_bundle::Digest::of(holm_tests::functions::guests());
        json!({ "holm": { "kind": "native", "component": format!("sha256:{component}"), "engine": engine, "profile": profile } })
    };
    // Of another engine, it is not looked at.
    world.repository.add(&mut world.plane.https.desk(), "functions/teller/1.0.0/other.cwasm", b"x", listing("47.0.0"));
    let job = world.deploy(&world.repository.desired(2, 0, vec![one.clone()]));
    world.check_end(&job, "REJECTED", Some("compile-failed"));
    world.repository.add(&mut world.plane.https.desk(), "functions/teller/1.0.0/this.cwasm", &bytes, listing("48.0.8"));
    let alter = |world: &World| {
        let mut desk = world.plane.https.desk();
        let file = desk.files.iter_mut().find(|(path, _)| path.ends_with(".this.cwasm")).unwrap().1;
        file[100] ^= 1;
    };
    alter(&world);
    let job = world.deploy(&world.repository.desired(3, 0, vec![one.clone()]));
    world.check_end(&job, "REJECTED", Some("wrong-digest"));
    alter(&world);
    let job = world.deploy(&world.repository.desired(4, 0, vec![one]));
    world.check_end(&job, "SUCCEEDED", None);
    let mut watcher = Watcher::new(&node, "seen/teller");
    publish_all(&node, "ask", ["1".to_owned()]);
    assert_eq!(watcher.next().1["label"], "one");
    node.stop();
}

#[test]
fn kills_at_any_moment_leave_one_set_or_the_other() {
    let mut world = World::new();
    let mut node = world.start();
    let pair = |number: u32| {
        let version = format!("1.0.{number}");
        let guest = |name: &str| Guest::new(name, "echo").on("ask").version(&version).bundle();
        [guest("first"), guest("second")]
    };
    let names = |number: u32| [format!("first 1.0.{number}"), format!("second 1.0.{number}")];
    let mut random = rand::rng();
    let mut kills = 0;
    for number in 1..=12 {
        let functions = pair(number).map(|bundle| world.release(&bundle));
        let job = world.deploy(&world.repository.desired(u64::from(number), 0, functions.to_vec()));
        if number > 1 {
            std::thread::sleep(Duration::from_millis(rand::RngExt::random_range(&mut random, 0..250)));
            node.kill();
            node = world.restart();
            kills += 1;
            let found = runs(&node);
            assert!(found == names(number) || found == names(number - 1), "{number}: {found:?}");
        }
        world.check_end(&job, "SUCCEEDED", None);
        assert_eq!(runs(&node), names(number), "after {kills} kills");
    }
    node.stop();
}

#[test]
fn a_device_whose_clock_says_1970_or_2099_deploys_by_the_time_that_it_was_told() {
    if std::process::Command::new("faketime").arg("--version").output().is_err() {
        holm_tests::skip("faketime is not installed");
        return;
    }
    for time in ["1970-01-03 00:00:00", "2099-01-01 00:00:00"] {
        let mut world = World::new();
        world.plane.enrol(&world.data, "pi3");
        let under = ["env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "faketime", time].map(str::to_owned).to_vec();
        let node = Start { config: QUICK, under: &under, ..Start::new(&world.data) }.run();
        let one = world.release(&teller("1.0.0", "one"));
        let job = world.deploy(&world.repository.desired(1, 0, vec![one.clone()]));
        world.check_end(&job, "SUCCEEDED", None);
        assert_eq!(runs(&node), ["teller 1.0.0"], "{time}");
        // What has ended has ended, whatever the clock of the device says, and nothing else has.
        let over = DesiredState {
            issued: Timestamp(NOW.0 - 9_000),
            expires: Timestamp(NOW.0 - 5_000),
            ..world.repository.desired(2, 0, vec![])
        };
        let job = world.deploy(&over);
        world.check_end(&job, "REJECTED", Some("expired"));
        let two = world.release(&teller("2.0.0", "two"));
        world.repository.publish(&mut world.plane.https.desk(), None, Timestamp(NOW.0 - 40 * 86_400_000));
        let job = world.deploy(&world.repository.desired(3, 0, vec![two.clone()]));
        world.check_end(&job, "FAILED", Some("metadata-expired"));
        assert_eq!(runs(&node), ["teller 1.0.0"], "{time}");
        world.repository.publish(&mut world.plane.https.desk(), None, NOW);
        let job = world.deploy(&world.repository.desired(4, 0, vec![two]));
        world.check_end(&job, "SUCCEEDED", None);
        // And so it is after a start, before anybody has told the time.
        node.stop();
        world.plane.proxy.freeze(true);
        let node = Start { config: QUICK, under: &under, ..Start::new(&world.data) }.run();
        assert_eq!(runs(&node), ["teller 2.0.0"], "{time}");
        node.stop();
    }
}
