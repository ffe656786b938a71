//! What a rollout makes of what devices say, and of what they do not: the real `holm` and `holm cloud`, and devices that connect as real
//! ones do and say what a test wants.

use std::time::Duration;

use holm_bundle::Digest;
use holm_protocol::{ShadowName, ThingName, subscriptions};
use holm_tests::device::{Device, Link, enrol};
use holm_tests::functions::Guest;
use holm_tests::within;
use holm_tests::world::World;
use rcgen::KeyPair;
use serde_json::{Value, json};

/// Nothing here takes so long.
const SOON: Duration = Duration::from_secs(60);

/// What is published, in a version.
fn teller(version: &str) -> Vec<u8> {
    let limit = "[config.limit]\ntype = \"number\"\ndefault = 5";
    Guest::new("teller", "echo").on("ask").version(version).more(limit).bundle()
}

/// A control plane with releases of `teller`.
struct Scene {
    world: World,
}

impl Scene {
    fn new(versions: &[&str]) -> Self {
        let world = World::start();
        world.laptop.ok(&world.cloud, &["key", "new", "--cloud"]);
        for version in versions {
            world.laptop.publish(&world.cloud, &world.laptop.bundle("teller.holm", &teller(version)), &[]);
        }
        Self { world }
    }

    /// So many devices, `pi1` and so on, that are connected.
    fn devices(&self, count: usize) -> Vec<Puppet> {
        (1..=count).map(|number| Puppet::new(&self.world, &format!("pi{number}"))).collect()
    }

    fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let answer = self.world.cloud.send("POST", path, body.to_string().as_bytes());
        (answer.status, answer.json())
    }

    /// Begins a rollout of `teller` to the group that everybody is in, and to nothing else if `more` says devices. Its id.
    fn begin(&self, more: Value) -> String {
        let mut body = json!({ "function": "teller", "stages": ["100%"], "soak_s": 0, "health_window_s": 0 });
        if more.get("devices").is_none() {
            body["group"] = "greenhouse".into();
        }
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, answer) = self.post("/v1/rollouts", body);
        assert_eq!(status, 201, "{answer}");
        answer["rollout"]["id"].as_str().unwrap().to_owned()
    }

    fn rollout(&self, id: &str) -> Value {
        self.world.cloud.get(&format!("/v1/rollouts/{id}"))["rollout"].clone()
    }

    /// Its state, and how each of its devices stands, in the order of their numbers.
    fn stand(&self, id: &str) -> String {
        let answer = self.world.cloud.get(&format!("/v1/rollouts/{id}/devices"));
        let mut devices: Vec<(u32, &str)> = answer["devices"].as_array().unwrap().iter().map(standing).collect();
        devices.sort_unstable();
        let words: Vec<&str> = devices.iter().map(|(_, word)| *word).collect();
        format!("{}: {}", self.rollout(id)["state"].as_str().unwrap(), words.join(" "))
    }

    #[track_caller]
    fn stands(&self, id: &str, expected: &str) {
        within(SOON, &format!("{expected}, and not {}", self.stand(id)), || (self.stand(id) == expected).then_some(()));
    }

    /// Waits until it gives this reason for what it does, or does not do.
    #[track_caller]
    fn says(&self, id: &str, reason: &str) {
        within(SOON, &format!("{reason}, and not {}", self.rollout(id)["reason"]), || {
            self.rollout(id)["reason"].as_str().filter(|found| found.starts_with(reason)).map(|_| ())
        });
    }

    fn log(&self, id: &str) -> String {
        self.rollout(id)["events"].to_string()
    }

    /// Where in the list of devices the only one is that is told.
    fn told(&self, id: &str) -> usize {
        within(SOON, "one is told", || {
            let stand = self.stand(id);
            stand.split_once(": ")?.1.split(' ').position(|word| matches!(word, "queued" | "unknown"))
        })
    }

    /// Lets these devices run a version, one after the other.
    fn confirmed(&self, devices: &mut [Puppet], version: &str) {
        let names: Vec<&str> = devices.iter().map(|puppet| puppet.device.thing.as_str()).collect();
        let id = self.begin(json!({ "version": version, "devices": names, "success_percent": 0 }));
        for puppet in devices.iter_mut() {
            puppet.end("SUCCEEDED");
        }
        within(SOON, "it is completed", || (self.rollout(&id)["state"] == "completed").then_some(()));
    }
}

fn standing(device: &Value) -> (u32, &str) {
    let number = device["thing"].as_str().unwrap().strip_prefix("pi").unwrap().parse().unwrap();
    (number, device["standing"].as_str().unwrap())
}

/// A device that is connected, and does as it is told.
struct Puppet {
    device: Device,
    link: Link,
}

impl Puppet {
    fn new(world: &World, name: &str) -> Self {
        Self::of(world, Device::enrol(&world.cloud, name))
    }

    fn of(world: &World, device: Device) -> Self {
        let mut link = device.connect(&world.cloud);
        link.subscribe(&subscriptions(&device.thing, &ShadowName::new("holm").unwrap()));
        Self { device, link }
    }

    /// Says of the job that it has next how it is with it, as soon as there is one.
    fn end(&mut self, status: &str) {
        self.end_for(status, json!({}));
    }

    /// The same, with details.
    fn end_for(&mut self, status: &str, details: Value) {
        let jobs = format!("$aws/things/{}/jobs", self.device.thing);
        let id = within(SOON, "a job", || {
            let got = self.link.ask(&format!("{jobs}/$next/get"), "{}", &format!("{jobs}/$next/get/accepted"));
            got["execution"]["jobId"].as_str().map(str::to_owned)
        });
        let update = json!({ "status": status, "statusDetails": details }).to_string();
        self.link.ask(&format!("{jobs}/{id}/update"), &update, &format!("{jobs}/{id}/update/accepted"));
    }

    /// Says what it runs; whether that was accepted.
    fn report(&mut self, generation: Value, version: &str, state: &str, (invocations, faults): (u64, u64)) -> bool {
        let function = json!({
            "name": "teller", "version": version, "sha256": Digest::of(&teller(version)), "state": state,
            "invocations": invocations, "faults": faults,
        });
        let reported = json!({
            "agent": "0.1.0", "formats": { "desired_state": 1, "batch": 1 }, "generation": generation, "phase": "confirmed",
            "functions": [function], "health": {},
        });
        let topic = format!("$aws/things/{}/shadow/name/holm/update", self.device.thing);
        let update = json!({ "state": { "reported": reported } }).to_string();
        self.link.publish(&topic, update.as_bytes(), 7).unwrap();
        let answer = self.link.one_of(&[&format!("{topic}/accepted"), &format!("{topic}/rejected")]);
        self.link.puback(7);
        answer.ends_with("/accepted")
    }
}

#[test]
fn no_more_devices_are_told_in_a_minute_than_may_be() {
    let scene = Scene::new(&["1.0.0"]);
    let _devices = scene.devices(3);
    let id = scene.begin(json!({ "version": "1.0.0", "rate_per_minute": 2 }));
    scene.says(&id, "2 devices were told within a minute: 1 wait");
    let stand = scene.stand(&id);
    assert_eq!((stand.matches("queued").count(), stand.matches("waiting").count()), (2, 1), "{stand}");
    scene.world.cloud.stop();
}

#[test]
fn a_device_that_takes_up_its_job_and_is_not_heard_of_again_has_failed() {
    let scene = Scene::new(&["1.0.0"]);
    let mut devices = scene.devices(3);
    let id = scene.begin(json!({ "version": "1.0.0", "stages": ["1", "100%"], "progress_timeout_s": 2 }));
    let told = scene.told(&id);
    scene.says(&id, "waits for 1 to be taken up");
    devices[told].end("IN_PROGRESS");
    scene.says(&id, "1 of 1 devices of stage 1 failed");
    assert!(scene.log(&id).contains("timed-out: it took up its job and was not heard of again"), "{}", scene.log(&id));
    // Nobody else has heard of it.
    within(SOON, "the others are skipped", || (scene.stand(&id).matches("skipped").count() == 2).then_some(()));
    scene.world.cloud.stop();
}

#[test]
fn who_is_not_heard_of_is_no_success() {
    let scene = Scene::new(&["1.0.0", "2.0.0"]);
    let mut devices = scene.devices(3);
    let id = scene.begin(json!({ "version": "1.0.0", "stages": ["1", "100%"], "queued_timeout_s": 1 }));
    let first = scene.told(&id);
    scene.says(&id, "0 of stage 1 have reported, 1 have to; 1 are not heard of");
    devices[first].end("SUCCEEDED");
    // What comes after the last stage need not be protected from anything.
    within(SOON, "it is completed", || (scene.rollout(&id)["state"] == "completed").then_some(()));
    let stand = scene.stand(&id);
    assert_eq!((stand.matches("confirmed").count(), stand.matches("unknown").count()), (1, 2), "{stand}");
    for (_, late) in devices.iter_mut().enumerate().filter(|(place, _)| *place != first) {
        late.end("SUCCEEDED");
    }
    scene.stands(&id, "completed: confirmed confirmed confirmed");
    // Silence alone completes nothing.
    let id = scene.begin(json!({ "version": "2.0.0", "queued_timeout_s": 1 }));
    scene.says(&id, "none has confirmed; 3 are not heard of");
    devices[1].end("SUCCEEDED");
    scene.stands(&id, "completed: unknown confirmed unknown");
    scene.world.cloud.stop();
}

#[test]
fn so_many_of_a_hundred_end_it_and_one_less_does_not() {
    let scene = Scene::new(&["1.0.0", "2.0.0"]);
    let mut devices = scene.devices(21);
    let stages = json!(["21", "100%"]);
    // The last of 21 to report: less than 5 %, and more than 95 % have succeeded.
    let id = scene.begin(json!({ "version": "1.0.0", "stages": stages, "abort_min": 21 }));
    for device in &mut devices[..20] {
        device.end("SUCCEEDED");
    }
    devices[20].end("FAILED");
    scene.stands(&id, &format!("completed: {}failed", "confirmed ".repeat(20)));
    // The 20th: 5 % of those that have reported, and nobody waits for the last one.
    let id = scene.begin(json!({ "version": "2.0.0", "stages": stages, "abort_min": 20 }));
    for device in &mut devices[..19] {
        device.end("SUCCEEDED");
    }
    scene.says(&id, "waits for 2 to be taken up");
    devices[19].end("FAILED");
    scene.says(&id, "1 of 20 devices that have reported failed, and 5 % end it");
    scene.world.cloud.stop();
}

#[test]
fn a_stage_is_judged_again_by_who_comes_late() {
    let scene = Scene::new(&["1.0.0", "2.0.0"]);
    let mut devices = scene.devices(4);
    // While the stage is looked at, which begins anew.
    let staged = json!({ "version": "1.0.0", "stages": ["2", "100%"], "soak_s": 3_600, "queued_timeout_s": 1 });
    let id = scene.begin(staged.clone());
    scene.told(&id);
    let stage = |id: &str| -> Vec<usize> {
        let stand = scene.stand(id);
        let words = stand.split_once(": ").unwrap().1.split(' ').enumerate();
        words.filter(|(_, word)| !matches!(*word, "waiting" | "skipped")).map(|(place, _)| place).collect()
    };
    let [first, late] = stage(&id)[..] else { panic!("{}", scene.stand(&id)) };
    devices[first].end("SUCCEEDED");
    scene.says(&id, "stage 1 is looked at before the next one");
    devices[late].end("IN_PROGRESS");
    within(SOON, "it is noticed", || scene.log(&id).contains("stage 1: a device came late").then_some(()));
    scene.says(&id, "waits for 1 to be ended");
    devices[late].end("SUCCEEDED");
    scene.says(&id, "stage 1 is looked at before the next one");
    assert_eq!(scene.log(&id).matches("has passed, and is looked at").count(), 2, "{}", scene.log(&id));
    assert_eq!(scene.post(&format!("/v1/rollouts/{id}/abort"), json!({})).0, 200);
    for place in [first, late] {
        devices[place].end("SUCCEEDED");
    }
    within(SOON, "both are back", || (scene.rollout(&id)["state"] == "aborted").then_some(()));
    // And when the next stage has begun: what fails then takes it back.
    let mut staged = staged;
    (staged["version"], staged["soak_s"]) = ("2.0.0".into(), 0.into());
    let id = scene.begin(staged);
    scene.told(&id);
    let [first, late] = stage(&id)[..] else { panic!("{}", scene.stand(&id)) };
    devices[first].end("SUCCEEDED");
    within(SOON, "the next stage", || scene.log(&id).contains("stage 2 of 2 begins").then_some(()));
    devices[late].end("FAILED");
    scene.says(&id, "1 of 2 devices of stage 1 failed");
    scene.world.cloud.stop();
}

#[test]
fn nobody_is_told_while_all_who_confirmed_are_silent() {
    let scene = Scene::new(&["1.0.0"]);
    let mut devices = scene.devices(2);
    let id = scene.begin(json!({ "version": "1.0.0", "stages": ["1", "100%"], "soak_s": 2 }));
    let told = scene.told(&id);
    let mut first = devices.remove(told);
    first.end("SUCCEEDED");
    let Puppet { device, link } = first;
    drop(link);
    scene.says(&id, "0 of the 1 devices of stage 1 that have confirmed are connected, 1 have to be");
    assert_eq!(scene.stand(&id).matches("waiting").count(), 1);
    let _again = Puppet::of(&scene.world, device);
    devices[0].end("SUCCEEDED");
    scene.stands(&id, "completed: confirmed confirmed");
    scene.world.cloud.stop();
}

#[test]
fn silence_makes_no_success_of_those_that_failed() {
    let scene = Scene::new(&["1.0.0"]);
    let mut devices = scene.devices(5);
    let plan = json!({
        "version": "1.0.0", "stages": ["4", "100%"], "success_percent": 50, "abort_min": 5, "queued_timeout_s": 1,
    });
    let id = scene.begin(plan);
    within(SOON, "four are told", || (scene.stand(&id).matches("unknown").count() == 4).then_some(()));
    let told = scene.stand(&id);
    let told: Vec<bool> = told.split_once(": ").unwrap().1.split(' ').map(|word| word == "unknown").collect();
    let mut stage = devices.iter_mut().zip(told).filter_map(|(device, told)| told.then_some(device));
    for status in ["FAILED", "REJECTED"] {
        stage.next().unwrap().end(status);
    }
    // The other two could still succeed.
    scene
        .says(&id, "2 of 2 devices of stage 1 that have reported failed, and 50 % have to succeed; 2 are not heard of");
    for _ in 0..2 {
        stage.next().unwrap().end("SUCCEEDED");
    }
    within(SOON, "stage 2 begins", || scene.log(&id).contains("stage 2 of 2 begins").then_some(()));
    scene.world.cloud.stop();
}

#[test]
fn a_stage_that_all_have_left_lets_nobody_after_it_begin() {
    let scene = Scene::new(&["1.0.0", "2.0.0"]);
    let mut devices = scene.devices(3);
    scene.confirmed(&mut devices, "1.0.0");
    let id = scene.begin(json!({ "version": "2.0.0", "stages": ["1", "100%"] }));
    let first = scene.told(&id);
    // Somebody does not like what he sees.
    let name = devices[first].device.thing.to_string();
    scene.world.laptop.ok(&scene.world.cloud, &["device", "revoke", &name]);
    scene.says(&id, "nobody of stage 1 is left to judge it by");
    assert_eq!(scene.stand(&id).matches("waiting").count(), 2);
    scene.world.cloud.stop();
}

#[test]
fn who_confirmed_and_fails_since_goes_back_before_anybody_else_is_told() {
    let scene = Scene::new(&["1.0.0", "0.9.0"]);
    let mut devices = scene.devices(3);
    scene.confirmed(&mut devices, "1.0.0");
    let change = json!({ "config": { "limit": "7" }, "stages": ["2", "100%"], "soak_s": 3_600 });
    let id = scene.begin(change);
    within(SOON, "two are told", || (scene.stand(&id).matches("queued").count() == 2).then_some(()));
    let words: Vec<String> = scene.stand(&id).split_once(": ").unwrap().1.split(' ').map(str::to_owned).collect();
    let told: Vec<usize> = (0..3).filter(|place| words[*place] == "queued").collect();
    for place in &told {
        devices[*place].end("SUCCEEDED");
    }
    let looked_at = format!("running: {}", words.join(" ").replace("queued", "confirmed"));
    scene.stands(&id, &looked_at);
    let (one, other) = (told[0], told[1]);
    // Too few to judge by, few enough to stay, and another version's.
    for (version, counts) in [("1.0.0", (9, 9)), ("1.0.0", (11, 2)), ("0.9.0", (10, 10))] {
        assert!(devices[one].report(2.into(), version, "confirmed", counts));
        std::thread::sleep(Duration::from_millis(1_500));
        assert_eq!(scene.stand(&id), looked_at, "{version} {counts:?}");
    }
    assert!(devices[one].report(2.into(), "1.0.0", "confirmed", (10, 2)));
    scene.says(&id, "1 of 2 devices of stage 1 failed");
    for place in [one, other] {
        devices[place].end("SUCCEEDED");
    }
    scene.stands(
        &id,
        &looked_at.replace("running", "aborted").replace("confirmed", "undone").replace("waiting", "skipped"),
    );
    let told = format!("pi{}: failed: it was confirmed, and 2 of 10 invocations faulted since", one + 1);
    assert_eq!(scene.log(&id).matches(&told).count(), 1, "{}", scene.log(&id));
    scene.world.cloud.stop();
}

#[test]
fn who_has_quarantined_it_goes_back_as_well() {
    let scene = Scene::new(&["1.0.0"]);
    let mut devices = scene.devices(3);
    scene.confirmed(&mut devices, "1.0.0");
    let id = scene.begin(json!({ "config": { "limit": "7" } }));
    for device in &mut devices[..2] {
        device.end("SUCCEEDED");
    }
    scene.stands(&id, "running: confirmed confirmed queued");
    assert!(devices[0].report(2.into(), "1.0.0", "quarantined", (0, 0)));
    scene.stands(&id, "aborting: undoing undoing undoing");
    devices[0].end("SUCCEEDED");
    devices[1].end("SUCCEEDED");
    devices[2].end("REJECTED");
    scene.stands(&id, "aborted: undone undone stuck");
    assert!(scene.log(&id).contains("1 are not back; the others are back ("), "{}", scene.log(&id));
    scene.world.cloud.stop();
}

#[test]
fn who_could_not_go_back_for_what_may_pass_is_told_again() {
    let scene = Scene::new(&["1.0.0", "2.0.0"]);
    let mut devices = scene.devices(2);
    scene.confirmed(&mut devices, "1.0.0");
    let id = scene.begin(json!({ "version": "2.0.0", "queued_timeout_s": 1 }));
    devices.iter_mut().for_each(|device| device.end("SUCCEEDED"));
    scene.stands(&id, "completed: confirmed confirmed");
    scene.world.laptop.ok(&scene.world.cloud, &["rollout", "abort", &id, "-m", "no good"]);
    devices[0].end_for("REJECTED", json!({ "reason": "expired" }));
    devices[1].end_for("FAILED", json!({ "reason": "download-failed" }));
    // It is over, and they are told all the same.
    scene.stands(&id, "aborted: undoing undoing");
    devices[0].end("SUCCEEDED");
    devices[1].end_for("FAILED", json!({ "reason": "metadata-expired" }));
    scene.stands(&id, "aborted: undone undoing");
    devices[1].end_for("FAILED", json!({ "reason": "trapped" }));
    scene.stands(&id, "aborted: undone stuck");
    scene.world.cloud.stop();
}

#[test]
fn who_joins_and_has_nothing_to_change_is_no_failure() {
    let scene = Scene::new(&["1.0.0"]);
    let mut devices = scene.devices(2);
    scene.confirmed(&mut devices[..1], "1.0.0");
    let groups = |change: Value| assert_eq!(scene.post("/v1/devices/pi2/groups", change).0, 200);
    groups(json!({ "remove": ["greenhouse"] }));
    let id = scene.begin(json!({ "config": { "limit": "7" } }));
    scene.stands(&id, "running: queued");
    groups(json!({ "add": ["greenhouse"] }));
    scene.stands(&id, "running: queued superseded");
    devices[0].end("SUCCEEDED");
    scene.stands(&id, "completed: confirmed superseded");
    let shown = scene.world.laptop.ok(&scene.world.cloud, &["config", "show", "teller", "--device", "pi1"]);
    assert!(shown.contains("limit=7"), "{shown}");
    scene.world.cloud.stop();
}

#[test]
fn who_is_enrolled_into_a_group_gets_what_runs_there() {
    let scene = Scene::new(&["1.0.0", "2.0.0"]);
    let mut devices = scene.devices(2);
    let rollout = |change: Value, devices: &mut [Puppet], state: &str| {
        let id = scene.begin(change);
        let words: &[&str] = if state == "aborted" { &["SUCCEEDED", "FAILED"] } else { &["SUCCEEDED", "SUCCEEDED"] };
        for (device, word) in devices.iter_mut().zip(words) {
            device.end(word);
        }
        if state == "aborted" {
            // The way back of the one that had it.
            devices[0].end("SUCCEEDED");
        }
        within(SOON, state, || (scene.rollout(&id)["state"] == state).then_some(()));
    };
    rollout(json!({ "version": "1.0.0" }), &mut devices, "completed");
    rollout(json!({ "config": { "limit": "7" } }), &mut devices, "completed");
    // What does not stay is not for newcomers either, nor what one of them has for itself.
    rollout(json!({ "version": "2.0.0" }), &mut devices, "aborted");
    scene.confirmed(&mut devices[..1], "2.0.0");
    let runs = |thing: &str| {
        let device = scene.world.cloud.get(&format!("/v1/devices/{thing}"));
        let shown = device["desired"]["functions"].as_array().cloned().unwrap_or_default();
        let text = |function: &Value| format!("{} {}", function["version"], function["config"]).replace('"', "");
        shown.iter().map(text).collect::<Vec<_>>()
    };
    let mut third = Puppet::new(&scene.world, "pi3");
    third.end("SUCCEEDED");
    assert_eq!((runs("pi1"), runs("pi3")), (vec!["2.0.0 {limit:7}".to_owned()], vec!["1.0.0 {limit:7}".to_owned()]));
    // Another group's device has nothing, and once it is removed nobody gets it any more.
    let token = scene.world.cloud.enrolment_token("cellar");
    let answer = enrol(&scene.world.cloud, &token, Some("pi4"), &KeyPair::generate().unwrap());
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(runs("pi4").is_empty(), "{:?}", runs("pi4"));
    let removed = scene.begin(json!({ "remove": true }));
    for device in devices.iter_mut().chain([&mut third]) {
        device.end("SUCCEEDED");
    }
    scene.stands(&removed, "completed: confirmed confirmed confirmed");
    Puppet::new(&scene.world, "pi5");
    assert!(runs("pi5").is_empty(), "{:?}", runs("pi5"));
    scene.world.cloud.stop();
}

#[test]
fn what_ended_is_not_taken_back_under_another_one() {
    let scene = Scene::new(&["1.0.0", "2.0.0"]);
    let mut devices = scene.devices(1);
    scene.confirmed(&mut devices, "1.0.0");
    let first = scene.begin(json!({ "version": "2.0.0" }));
    devices[0].end("SUCCEEDED");
    scene.stands(&first, "completed: confirmed");
    let second = scene.begin(json!({ "config": { "limit": "7" } }));
    scene.stands(&second, "running: queued");
    let abort = || scene.post(&format!("/v1/rollouts/{first}/abort"), json!({}));
    let (status, answer) = abort();
    let next = format!("holm rollout abort {second}");
    assert!(status == 409 && answer.to_string().contains(&next), "{status} {answer}");
    devices[0].end("SUCCEEDED");
    scene.stands(&second, "completed: confirmed");
    assert_eq!(abort().0, 200);
    scene.world.cloud.stop();
}

#[test]
fn a_device_that_names_a_generation_beyond_all_is_not_believed() {
    let scene = Scene::new(&["1.0.0"]);
    let mut devices = scene.devices(1);
    assert!(!devices[0].report(u64::MAX.into(), "1.0.0", "confirmed", (0, 0)));
    assert!(devices[0].report(7.into(), "1.0.0", "confirmed", (0, 0)));
    scene.begin(json!({ "version": "1.0.0" }));
    let next =
        within(SOON, "its job", || scene.world.cloud.get("/v1/devices/pi1")["job"]["id"].as_str().map(str::to_owned));
    assert_eq!(next, "generation-8");
    scene.world.cloud.stop();
}

#[test]
fn what_ran_before_is_that_of_the_board_that_is_there() {
    let scene = Scene::new(&["1.0.0", "2.0.0", "3.0.0"]);
    let mut devices = scene.devices(1);
    scene.confirmed(&mut devices, "1.0.0");
    scene.confirmed(&mut devices, "2.0.0");
    let back = ["rollback", "teller", "--device", "pi1", "-m", "too warm", "--dry-run"];
    let (laptop, cloud) = (&scene.world.laptop, &scene.world.cloud);
    let told = laptop.ok(cloud, &back);
    assert!(told.contains("2.0.0 -> 1.0.0"), "{told}");
    // Another board takes its place, and has neither.
    let (status, token) = scene.post("/v1/devices/pi1/replace", json!({}));
    assert!(status < 300, "{status} {token}");
    let key = KeyPair::generate().unwrap();
    let answer = enrol(cloud, token["token"].as_str().unwrap(), None, &key);
    assert_eq!(answer.status, 200, "{answer:?}");
    let enrolled = holm_protocol::Enrolled::read(&answer.body).unwrap();
    assert_eq!(enrolled.thing, ThingName::new("pi1").unwrap());
    let mut board = Puppet::of(&scene.world, Device { thing: enrolled.thing.clone(), enrolled, key });
    for gets in [true, false] {
        let told = laptop.fails(cloud, 1, &back);
        assert!(told.contains("there is no version of teller before that it has confirmed"), "{told}");
        if gets {
            // What the old one ran is told to the new one, as its first.
            board.end("SUCCEEDED");
        }
    }
    scene.confirmed(&mut [board], "3.0.0");
    let told = laptop.ok(cloud, &back);
    assert!(told.contains("3.0.0 -> 2.0.0"), "{told}");
    scene.world.cloud.stop();
}
