//! A node and a scripted control plane with a repository: what is signed and listed comes to run, nothing else does, and exactly the
//! old or the new set runs, whatever happens in between.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holm_core::Timestamp;
use holm_protocol::{DesiredFunction, DesiredState, ThingName, UpdateWindow};
use holm_tests::cloud::repository::NOW;
use holm_tests::cloud::{Plane, QUICK, Repository};
use holm_tests::disk::{Small, fill};
use holm_tests::eventually;
use holm_tests::functions::Guest;
use holm_tests::node::{Node, Start, log};
use holm_tests::watcher::{Watcher, publish_all};
use serde_json::{Value, json};

/// As [`eventually`], for what is compiled, or takes several timeouts.
fn patiently<T>(data: &Path, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within 120 s: {what}\n{}", log(data));
        std::thread::sleep(Duration::from_millis(5));
    }
}

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

struct World {
    data: PathBuf,
    plane: Plane,
    repository: Repository,
    jobs: u32,
    // Last, so that it outlives what is in it.
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plane = Plane::start(folder.path());
        let repository = Repository::new(&mut plane.https.desk());
        let data = folder.path().join("data");
        Self { data, plane, repository, jobs: 0, _folder: folder }
    }

    fn start(&self) -> Node {
        self.plane.node(&self.data, "pi3")
    }

    fn restart(&self) -> Node {
        Start { config: QUICK, ..Start::new(&self.data) }.run()
    }

    fn release(&mut self, bundle: &[u8]) -> DesiredFunction {
        self.repository.release(&mut self.plane.https.desk(), bundle)
    }

    /// A job with a document. Returns its id.
    fn send(&mut self, document: &str) -> String {
        self.jobs += 1;
        let id = format!("job-{}", self.jobs);
        self.plane.core.state().job = Some(json!({
            "jobId": id, "status": "QUEUED", "queuedAt": 1_795_000_000, "versionNumber": 1, "executionNumber": 1,
            "jobDocument": document,
        }));
        self.plane.core.ring("pi3");
        id
    }

    fn deploy(&mut self, state: &DesiredState) -> String {
        let document = self.repository.document(state);
        self.send(&document)
    }

    /// The status and details that a job ended with.
    fn end_of(&self, job: &str) -> (String, Value) {
        patiently(&self.data, &format!("the end of {job}"), || {
            let state = self.plane.core.state();
            let ends = |status: &str| !matches!(status, "QUEUED" | "IN_PROGRESS");
            let end = state.updates.iter().find(|(id, status, _)| id == job && ends(status));
            end.map(|(_, status, details)| (status.clone(), details.clone()))
        })
    }

    fn check_end(&self, job: &str, status: &str, reason: Option<&str>) -> Value {
        let (found, details) = self.end_of(job);
        assert_eq!((found.as_str(), details["reason"].as_str()), (status, reason), "{details}\n{}", log(&self.data));
        details
    }

    fn wait_for(&self, node: &Node, phase: &str) {
        patiently(&self.data, phase, || (node.admin.get("/v1/status")["cloud"]["phase"] == phase).then_some(()));
    }
}

/// Names and versions of what runs.
fn runs(node: &Node) -> Vec<String> {
    let functions = node.admin.get("/v1/functions");
    let name =
        |function: &Value| format!("{} {}", function["name"].as_str().unwrap(), function["version"].as_str().unwrap());
    functions["functions"].as_array().unwrap().iter().map(name).collect()
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
            // What can be written down nowhere is not begun.
            0 => std::thread::sleep(Duration::from_secs(3)),
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
