//! A control plane that comes out of an older backup, and devices and a laptop that have seen more than it: the real `holm`, `holm cloud`
//! and `holmd`.

use std::path::Path;
use std::process::Command;

use holm_tests::eventually;
use holm_tests::functions::Guest;
use holm_tests::node::{Node, binary};
use holm_tests::world::World;
use serde_json::{Value, json};

fn teller(version: &str) -> Guest {
    Guest::new("teller", "echo").on("ask").version(version)
}

/// Publishes a version; the file of its bundle.
fn publish(world: &World, version: &str) -> String {
    let bundle = world.laptop.bundle(&format!("teller-{version}.holm"), &teller(version).bundle());
    world.laptop.publish(&world.cloud, &bundle, &["--profile", "x64-v1"]);
    bundle
}

fn deploy(world: &World, version: &str) -> (Option<i32>, String) {
    let what = format!("teller@{version}");
    let words = ["deploy", &what, "--device", "pi1", "--watch", "--timeout", "60s", "--health-window", "0s"];
    let output = world.laptop.run(&world.cloud, &words);
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), told)
}

fn version(node: &Node) -> String {
    node.admin.get("/v1/functions")["functions"][0]["version"].as_str().unwrap_or_default().to_owned()
}

/// `holm cloud backup` or `restore`, which must go well; what it said.
fn keeper(what: &str, file: &Path, data: &Path) -> String {
    let output = Command::new(binary("holm")).args(["cloud", what]).arg(file).arg("--data").arg(data).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    told
}

/// The control plane is lost, and another one is made of a backup in its place. What the command said.
fn lose(mut world: World, file: &Path) -> (World, String) {
    let mut told = String::new();
    world.cloud = world.cloud.replace(|data| {
        std::fs::remove_dir_all(data).unwrap();
        told = keeper("restore", file, data);
    });
    eventually("the device is back", || world.cloud.get("/v1/devices/pi1")["connected"].as_bool().filter(|it| *it));
    (world, told)
}

#[test]
fn a_control_plane_out_of_an_older_backup_is_believed_again_once_it_has_what_was_signed_since() {
    let world = World::start();
    world.laptop.ok(&world.cloud, &["key", "new", "--cloud"]);
    let node = world.node("");
    publish(&world, "1.0.0");
    assert_eq!(deploy(&world, "1.0.0").0, Some(0));
    let file = world.folder.path().join("backup.tar.zst");
    keeper("backup", &file, world.cloud.data());
    let bundle = publish(&world, "2.0.0");
    publish(&world, "2.1.0");
    world.laptop.ok(&world.cloud, &["key", "renew"]);
    for version in ["2.0.0", "2.1.0"] {
        assert_eq!(deploy(&world, version).0, Some(0));
    }
    let before = world.cloud.get("/v1/devices/pi1")["job"]["generation"].as_u64().unwrap();
    // Metadata, and desired states: the device has seen more of both than the backup has.
    let (world, told) = lose(world, &file);
    assert!(told.contains("holm republish --restored"), "{told}");
    let (code, told) = deploy(&world, "1.0.0");
    assert!(code != Some(0) && told.contains("older metadata than it did before"), "{told}");
    assert_eq!(version(&node), "2.1.0");
    let told =
        world.laptop.fails(&world.cloud, 1, &["publish", &world.laptop.bundle("t.holm", &teller("3.0.0").bundle())]);
    assert!(told.contains("holm republish --restored"), "{told}");
    let lost = world.laptop.fails(&world.cloud, 1, &["republish", "--restored", "--bundle", &bundle]);
    assert!(lost.contains("functions/teller/2.1.0/") && !lost.contains("functions/teller/2.0.0/"), "{lost}");
    // What nobody has any more goes; what somebody has is as it was signed.
    let words = ["republish", "--restored", "--bundle", &bundle, "--forget", "--json"];
    let put: Value = serde_json::from_str(&world.laptop.ok(&world.cloud, &words)).unwrap();
    let names = |list: &Value| {
        let name = |name: &Value| name.as_str().unwrap().split('/').nth(2).unwrap().to_owned();
        list.as_array().unwrap().iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(
        (names(&put["files"]), names(&put["forgotten"])),
        (vec!["2.0.0".to_owned(); 2], vec!["2.1.0".to_owned(); 2])
    );
    let again: Value =
        serde_json::from_str(&world.laptop.ok(&world.cloud, &["republish", "--restored", "--json"])).unwrap();
    assert_eq!(again, json!({ "targets": put["targets"], "files": [], "forgotten": [] }));
    for version in ["2.0.0", "3.0.0"] {
        if version == "3.0.0" {
            publish(&world, version);
        }
        let (code, told) = deploy(&world, version);
        assert_eq!(code, Some(0), "{told}");
    }
    assert_eq!(version(&node), "3.0.0");
    assert!(world.cloud.get("/v1/devices/pi1")["job"]["generation"].as_u64().unwrap() > before);
    node.stop();
    world.cloud.stop();
}

#[test]
fn a_rollout_that_was_on_its_way_at_the_backup_stands_still_after_it() {
    let world = World::start();
    world.laptop.ok(&world.cloud, &["key", "new", "--cloud"]);
    let node = world.node("");
    for version in ["1.0.0", "2.0.0", "3.0.0"] {
        publish(&world, version);
    }
    assert_eq!(deploy(&world, "1.0.0").0, Some(0));
    let staged = ["--group", "greenhouse", "--stages", "100%", "--health-window", "30m"];
    world.laptop.ok(&world.cloud, &[&["deploy", "teller@2.0.0"], &staged[..]].concat());
    eventually("it is on trial", || (version(&node) == "2.0.0").then_some(()));
    let file = world.folder.path().join("backup.tar.zst");
    keeper("backup", &file, world.cloud.data());
    assert_eq!(deploy(&world, "3.0.0").0, Some(0));
    let (world, told) = lose(world, &file);
    assert!(told.contains("paused (1)"), "{told}");
    let rollout = world.cloud.get("/v1/rollouts?limit=1")["rollouts"][0].clone();
    assert_eq!(rollout["state"], "paused", "{rollout}");
    assert!(rollout["reason"].as_str().unwrap().contains("came out of a backup"), "{rollout}");
    // Nothing was published since: the device takes the next deployment, though it has seen more of those than are known.
    let (code, told) = deploy(&world, "3.0.0");
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(version(&node), "3.0.0");
    node.stop();
    world.cloud.stop();
}
