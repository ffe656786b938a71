//! A device that is cut off by the network itself: a real `holm cloud`, a real `holmd` in a network namespace of its own, and a router
//! between them that drops packets or refuses them.

use std::process::Command;
use std::time::Duration;

use holm_tests::control_plane::ControlPlane;
use holm_tests::functions::example;
use holm_tests::network::{Cut, Network};
use holm_tests::node::{Node, Start, binary, log};
use holm_tests::{eventually, within};
use serde_json::Value;

const CONFIG: &str = "[functions]\nhealth_window = \"0ms\"\n[cloud]\nkeep_alive = \"1s\"\nack_timeout = \"2s\"\n";

/// Longer than the longest wait before the next attempt that these cuts lead to.
const BACK: Duration = Duration::from_secs(60);

/// Has the function count so many more events, each of which leaves a record for the cloud.
fn count(node: &Node, events: std::ops::RangeInclusive<u64>) {
    for number in events {
        let (status, answer) = node
            .admin
            .post("/v1/functions/counter/invoke?subject=count/x", format!("{{\"id\":\"{number}\"}}").as_bytes());
        assert_eq!(status, 200, "{answer}");
    }
}

/// Records that the node still has.
fn left(node: &Node) -> u64 {
    let status = node.admin.get("/v1/status");
    status["outbox"].as_array().unwrap().iter().map(|lane| lane["rows"].as_u64().unwrap()).sum()
}

fn is_connected(cloud: &ControlPlane, node: &Node) -> (bool, bool) {
    let device = cloud.get("/v1/devices/pi1")["connected"] == true;
    (node.admin.get("/v1/status")["cloud"]["state"] == "connected", device)
}

/// What the function counted, as it arrived.
fn arrived(cloud: &ControlPlane) -> Vec<u64> {
    let answer = cloud.get("/v1/results?series=counter.n&device=pi1&limit=10000");
    let number = |row: &Value| row["value"].as_f64().unwrap() as u64;
    answer["rows"].as_array().unwrap().iter().map(number).collect()
}

#[test]
fn a_device_that_is_cut_off_works_on_and_nothing_is_lost_doubled_or_out_of_order() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut network) = Network::new() else { return };
    let address = network.address_of_this_machine();
    let cloud = ControlPlane::everywhere(folder.path(), &address);
    let port = cloud.https.rsplit_once(':').unwrap().1;
    let (data, under) = (folder.path().join("pi1"), network.device_runs());
    let mut enrol = Command::new(&under[0]);
    enrol.args(&under[1..]).arg(binary("holmd")).args(["enrol", "--cloud", &format!("https://{address}:{port}")]);
    enrol.args(["--ca-hash", &cloud.ca_hash, "--token", &cloud.enrolment_token("greenhouse"), "--thing", "pi1"]);
    let output = enrol.arg("--data").arg(&data).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let node = Start { config: CONFIG, under: &under, ..Start::new(&data) }.run();
    node.admin.deploy(&example("counter", |manifest| manifest));
    let mut counted = 20;
    count(&node, 1..=counted);
    eventually("the first records arrive", || (arrived(&cloud).len() == 20).then_some(()));
    for cut in [Cut::Silent, Cut::Loud] {
        count(&node, counted + 1..=counted + 10);
        // Whatever is on its way now, its acknowledgement among it.
        network.cut(cut);
        count(&node, counted + 11..=counted + 30);
        // Nobody tells either end that the connection is gone.
        within(BACK, "both notice", || (is_connected(&cloud, &node) == (false, false)).then_some(()));
        count(&node, counted + 31..=counted + 50);
        assert!(left(&node) >= 20, "{cut:?}: nothing waits on the device");
        if cut == Cut::Loud {
            let why = || node.admin.get("/v1/status")["cloud"]["last_error"].to_string();
            within(BACK, "it says why", || why().contains("unreachable").then_some(()));
        }
        counted += 50;
        network.heal();
        within(BACK, "everything arrives", || {
            (arrived(&cloud).len() as u64 >= counted && left(&node) == 0).then_some(())
        });
        assert_eq!(arrived(&cloud), (1..=counted).collect::<Vec<u64>>(), "{cut:?}\n{}", log(&data));
        within(BACK, "both are connected", || (is_connected(&cloud, &node) == (true, true)).then_some(()));
    }
    let connections = node.admin.get("/v1/status")["cloud"]["connections"].as_u64().unwrap();
    assert!(connections >= 3, "it connected {connections} times only: nothing was cut");
    node.stop();
    cloud.stop();
}
