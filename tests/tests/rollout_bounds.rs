//! Rollouts that are slow on purpose, and devices that take too long: the real `holm` and `holm cloud`, and devices that say what they want.

use std::time::Duration;

use holm_protocol::{ShadowName, subscriptions};
use holm_tests::device::{Device, Link};
use holm_tests::functions::Guest;
use holm_tests::within;
use holm_tests::world::World;
use serde_json::{Value, json};

/// A control plane with a release of `teller`, and as many devices.
fn world(devices: usize) -> (World, Vec<Device>) {
    let world = World::start();
    world.laptop.ok(&world.cloud, &["key", "new", "--cloud"]);
    let bundle = Guest::new("teller", "echo").on("ask").bundle();
    world.laptop.publish(&world.cloud, &world.laptop.bundle("teller.holm", &bundle), &[]);
    let devices = (1..=devices).map(|number| Device::enrol(&world.cloud, &format!("pi{number}"))).collect();
    (world, devices)
}

fn begin(world: &World, more: Value) -> String {
    let mut body = json!({ "function": "teller", "version": "1.0.0", "devices": ["pi1", "pi2", "pi3"] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = world.cloud.send("POST", "/v1/rollouts", body.to_string().as_bytes());
    assert_eq!(answer.status, 201, "{}", answer.json());
    answer.json()["rollout"]["id"].as_str().unwrap().to_owned()
}

/// How many of its devices stand so.
fn standing(world: &World, id: &str, word: &str) -> usize {
    let answer = world.cloud.get(&format!("/v1/rollouts/{id}/devices"));
    answer["devices"].as_array().unwrap().iter().filter(|device| device["standing"] == word).count()
}

/// Takes up the job of a device, as far as a word.
fn take_up(link: &mut Link, device: &Device, status: &str) {
    let jobs = format!("$aws/things/{}/jobs", device.thing);
    let got = link.ask(&format!("{jobs}/$next/get"), "{}", &format!("{jobs}/$next/get/accepted"));
    let id = got["execution"]["jobId"].as_str().unwrap();
    let update = json!({ "status": status }).to_string();
    link.ask(&format!("{jobs}/{id}/update"), &update, &format!("{jobs}/{id}/update/accepted"));
}

fn connect(world: &World, device: &Device) -> Link {
    let mut link = device.connect(&world.cloud);
    link.subscribe(&subscriptions(&device.thing, &ShadowName::new("holm").unwrap()));
    link
}

#[test]
fn no_more_devices_are_told_in_a_minute_than_may_be() {
    let (world, _devices) = world(3);
    let id = begin(&world, json!({ "stages": ["100%"], "rate_per_minute": 2 }));
    let path = format!("/v1/rollouts/{id}");
    let why = within(Duration::from_secs(30), "it waits, and says why", || {
        let rollout = world.cloud.get(&path)["rollout"].clone();
        rollout["reason"].as_str().map(str::to_owned)
    });
    assert_eq!(why, "2 devices were told within a minute: 1 wait");
    assert_eq!((standing(&world, &id, "queued"), standing(&world, &id, "waiting")), (2, 1));
    world.cloud.stop();
}

#[test]
fn a_device_that_takes_up_its_job_and_is_not_heard_of_again_has_failed() {
    let (world, devices) = world(3);
    let more = json!({ "stages": ["1", "100%"], "progress_timeout_s": 2, "soak_s": 0 });
    let id = begin(&world, more);
    within(Duration::from_secs(30), "one is told", || (standing(&world, &id, "queued") == 1).then_some(()));
    let answer = world.cloud.get(&format!("/v1/rollouts/{id}/devices"));
    let told = answer["devices"].as_array().unwrap().iter().find(|device| device["standing"] == "queued").unwrap();
    let device = devices.iter().find(|device| *device.thing.as_str() == told["thing"]).unwrap();
    let mut link = connect(&world, device);
    take_up(&mut link, device, "IN_PROGRESS");
    let rollout = within(Duration::from_secs(30), "it goes back", || {
        let rollout = world.cloud.get(&format!("/v1/rollouts/{id}"))["rollout"].clone();
        (rollout["state"] != "running").then_some(rollout)
    });
    assert!(rollout["reason"].as_str().unwrap().contains("1 of 1 devices of stage 1 failed"), "{rollout}");
    let log = world.cloud.get(&format!("/v1/rollouts/{id}"))["rollout"]["events"].to_string();
    assert!(log.contains("timed-out: it took up its job and was not heard of again"), "{log}");
    // Nobody else has heard of it.
    assert_eq!(standing(&world, &id, "skipped"), 2);
    world.cloud.stop();
}
