//! Deployments that are carried to a device in a folder: the real `holm`, `holm cloud` and `holmd`, with no network between them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use holm_tests::eventually;
use holm_tests::functions::example;
use holm_tests::node::{Node, Start, binary};
use holm_tests::world::World;

fn publish(world: &World, version: &str) {
    let bundle = example("counter", |manifest| manifest.replace("\"0.1.0\"", &format!("\"{version}\"")));
    let file = world.laptop.bundle("counter.holm", &bundle);
    world.laptop.publish(&world.cloud, &file, &["--profile", "x64-v1"]);
}

/// The node `pi1`, whose control plane may be away.
fn alone(data: &Path) -> Node {
    Start { config: World::config(), ..Start::new(data) }.run()
}

fn version(node: &Node) -> String {
    node.admin.get("/v1/functions")["functions"][0]["version"].as_str().unwrap_or_default().to_owned()
}

fn from(data: &Path, folder: &Path) -> Output {
    let mut command = Command::new(binary("holm"));
    command.arg("deploy").arg("--from").arg(folder).arg("--data").arg(data).output().unwrap()
}

/// Queues a version for a device that is not there, and writes that to a folder.
fn export(world: &World, version: &str, folder: &Path) -> String {
    let what = format!("counter@{version}");
    world.laptop.ok(&world.cloud, &["deploy", &what, "--device", "pi1", "--health-window", "0s"]);
    world.laptop.ok(&world.cloud, &["device", "export", "pi1", folder.to_str().unwrap()])
}

#[test]
fn what_is_carried_to_a_device_runs_there_and_the_control_plane_hears_of_it_later() {
    let world = World::start();
    world.laptop.ok(&world.cloud, &["key", "new", "--cloud"]);
    world.enrol();
    publish(&world, "1.0.0");
    let (data, stick) = (world.data(), world.folder.path().join("stick"));
    let said = export(&world, "1.0.0", &stick);
    assert!(said.starts_with("exported   generation 1 for pi1: "), "{said}");
    let World { cloud, laptop, folder } = world;
    let cloud = cloud.replace(|_| {
        let node = alone(&data);
        let output = from(&data, &stick);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{out}{err}");
        // Nobody has told this device the time since it began.
        let end = "\nconfirmed  whether it has expired is not known: nobody has told the time since the boot\n";
        assert!(out.starts_with("accepted   generation 1\n") && out.ends_with(end), "{out}");
        assert_eq!(version(&node), "1.0.0");
        // The same again changes nothing, and says so.
        let again = from(&data, &stick);
        assert_eq!(String::from_utf8_lossy(&again.stdout), format!("accepted   generation 1{end}"));
        node.stop();
    });
    let world = World { cloud, laptop, folder };
    let node = alone(&data);
    world.connected();
    eventually("the control plane knows", || {
        let job = world.cloud.get("/v1/devices/pi1/jobs/1")["job"].clone();
        (job["status"] == "SUCCEEDED" && job["details"]["phase"] == "confirmed").then_some(())
    });
    let nothing = world.laptop.fails(&world.cloud, 1, &["device", "export", "pi1", stick.to_str().unwrap()]);
    assert!(nothing.contains("there is nothing to do for pi1"), "{nothing}");
    node.stop();
    world.cloud.stop();
}

#[test]
fn a_stick_is_believed_no_more_than_a_network() {
    let world = World::start();
    world.laptop.ok(&world.cloud, &["key", "new", "--cloud"]);
    world.enrol();
    let (data, sticks) = (world.data(), ["old", "new"].map(|name| world.folder.path().join(name)));
    publish(&world, "1.0.0");
    export(&world, "1.0.0", &sticks[0]);
    publish(&world, "2.0.0");
    export(&world, "2.0.0", &sticks[1]);
    world.cloud.stop();
    let refused = |folder: &Path, why: &str| {
        let output = from(&data, folder);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(why), "{why}: {said}");
    };
    let node = alone(&data);
    let [old, new] = &sticks;
    let broken = |name: &str, work: &dyn Fn(&Path)| -> PathBuf {
        let copy = world.folder.path().join(name);
        let copied = Command::new("cp").arg("-r").arg(new).arg(&copy).status().unwrap();
        assert!(copied.success());
        work(&copy);
        copy
    };
    let job = |folder: &Path| folder.join("devices/pi1.json");
    refused(world.folder.path(), "has no deployment for pi1");
    refused(&world.folder.path().join("nowhere"), "cannot read");
    let empty = broken("empty", &|copy| fs::write(job(copy), "{}").unwrap());
    refused(&empty, "there is no job in it");
    let noise = broken("noise", &|copy| fs::write(job(copy), [0xff; 4096]).unwrap());
    refused(&noise, "is not a deployment");
    let long = broken("long", &|copy| fs::write(job(copy), vec![b' '; 1 << 20]).unwrap());
    refused(&long, "longer than a deployment can be");
    // One word of the document is another: the signature does not fit any more.
    let forged = broken("forged", &|copy| {
        let text = fs::read_to_string(job(copy)).unwrap();
        let at = text.find("\"payload\":\"").unwrap() + "\"payload\":\"".len() + 40;
        let mut bytes = text.into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        fs::write(job(copy), bytes).unwrap();
    });
    refused(&forged, "the signature does not fit");
    let half = broken("half", &|copy| fs::remove_file(copy.join("metadata/timestamp.json")).unwrap());
    refused(&half, "timestamp");
    assert_eq!(version(&node), "");
    // A bundle that is cut short is waited for: the stick may have been pulled out. Another stick has all of it.
    let short = broken("short", &|copy| {
        let list = Command::new("find").arg(copy.join("targets")).args(["-name", "*.holm"]).output().unwrap();
        for path in String::from_utf8(list.stdout).unwrap().lines() {
            fs::File::options().write(true).open(path).unwrap().set_len(1_000).unwrap();
        }
    });
    let mut waiting = Command::new(binary("holm"));
    let mut waiting = waiting.arg("deploy").arg("--from").arg(&short).arg("--data").arg(&data).spawn().unwrap();
    eventually("it is accepted", || (node.admin.get("/v1/status")["cloud"]["phase"] == "downloading").then_some(()));
    assert_eq!(version(&node), "");
    let output = from(&data, new);
    assert!(output.status.success(), "{output:?}");
    assert!(waiting.wait().unwrap().success());
    assert_eq!(version(&node), "2.0.0");
    refused(old, "the repository shows older metadata than it did before");
    let mixed = broken("mixed", &|copy| assert!(fs::copy(job(old), job(copy)).unwrap() > 0));
    refused(&mixed, "this device has seen a newer desired state");
    assert_eq!(version(&node), "2.0.0");
    node.stop();
}
