//! `holm apply`: a file that cannot be applied whole changes nothing, and everything that is wrong with it is said at once.

use holm_tests::control_plane::ControlPlane;
use holm_tests::device::Device;
use holm_tests::functions::Guest;
use holm_tests::publisher::Publisher;
use serde_json::{Value, json};

struct World {
    cloud: ControlPlane,
    laptop: Publisher,
    // Last, so that it outlives what is in it.
    folder: tempfile::TempDir,
}

impl World {
    /// With three devices that are in `greenhouse`, and two versions of a function.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cloud = ControlPlane::start(folder.path());
        let laptop = Publisher::new(folder.path());
        laptop.ok(&cloud, &["key", "new", "--cloud"]);
        for thing in ["pi1", "pi2", "pi3"] {
            Device::enrol(&cloud, thing);
        }
        for version in ["1.0.0", "1.1.0"] {
            let bundle = Guest::new("teller", "echo").on("ask").version(version).bundle();
            laptop.publish(&cloud, &laptop.bundle("teller.holm", &bundle), &[]);
        }
        Self { cloud, laptop, folder }
    }

    fn file(&self, text: &str) -> String {
        let path = self.folder.path().join("fleet.toml");
        std::fs::write(&path, format!("fleet_version = 1\n{text}")).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The file cannot be applied, each of these is said, and nothing is different after it.
    #[track_caller]
    fn check(&self, text: &str, said: &[&str]) {
        let before = self.state();
        let file = self.file(text);
        for more in [&[][..], &["--plan"]] {
            let words: Vec<&str> = ["apply", &file].iter().chain(more).copied().collect();
            let told = self.laptop.fails(&self.cloud, 1, &words);
            for sentence in said {
                assert!(told.contains(sentence), "{sentence}\n{told}");
            }
            assert_eq!(told.matches("\n  - ").count(), said.len(), "{told}");
            assert!(told.contains("nothing was changed") && told.contains("holm explain fleet-wrong"), "{told}");
        }
        assert_eq!(self.state(), before);
    }

    /// Groups of all devices, all rollouts, and what was written down about it.
    fn state(&self) -> Value {
        let rollouts = self.cloud.get("/v1/rollouts")["rollouts"].clone();
        let ids: Vec<Value> = rollouts.as_array().unwrap().iter().map(|rollout| rollout["id"].clone()).collect();
        let devices = self.cloud.get("/v1/devices")["devices"].clone();
        let groups: Vec<Value> = devices.as_array().unwrap().iter().map(|device| device["groups"].clone()).collect();
        // Jobs are put in whenever it is time, by rollouts that have begun.
        let audit = self.cloud.get("/v1/audit")["audit"].clone();
        let begun = audit.as_array().unwrap().iter().filter(|entry| entry["action"] != "put a job in").cloned();
        json!([groups, ids, begun.collect::<Vec<Value>>()])
    }
}

/// A deployment of the function.
fn deploy(version: &str, group: &str) -> String {
    format!("[[deploy]]\nfunction = \"teller\"\nversion = \"{version}\"\ngroup = \"{group}\"\n")
}

#[test]
fn a_file_that_cannot_be_applied_whole_changes_nothing_and_all_is_said_at_once() {
    let world = World::new();
    let groups = "[group.greenhouse]\ndevices = [\"pi1\", \"pi2\"]\n[group.canary]\ndevices = [\"pi2\"]\n";
    // A device in both groups, which only the second deployment would meet.
    world.check(
        &format!("{groups}{}{}", deploy("1.1.0", "canary"), deploy("1.0.0", "greenhouse")),
        &["teller is deployed to canary and to greenhouse, and pi2 is in both: a device has it once"],
    );
    // An unknown device, and what is wrong with the deployments beside it.
    let many: String = (0..16).map(|n| format!("[group.g{n}]\ndevices = [\"pi1\"]\n")).collect();
    world.check(
        &format!(
            "{groups}{many}[group.shed]\ndevices = [\"pi7\"]\n{}{}{}",
            deploy("9.0.0", "canary"),
            deploy("1.0.0", "shed"),
            deploy("1.0.0", "greenhouse") + "stages = [\"10%\", \"5%\"]\n",
        ),
        &[
            "there is no active device pi7 in group shed: enrol it first",
            "pi1 would be in 17 groups, and 16 are the most",
            "teller is deployed to canary and to greenhouse, and pi2 is in both",
            "teller in canary: teller 9.0.0 is not published",
            "teller in shed: `group`: no active device is in shed",
            "teller in greenhouse: `stages`: the last one has to be 100%",
            "teller in greenhouse: `stages`: 5% after 10% reaches nobody new",
        ],
    );
    // What runs already, too.
    let answer = world.cloud.send(
        "POST",
        "/v1/rollouts",
        json!({ "function": "teller", "version": "1.0.0", "devices": ["pi3"] }).to_string().as_bytes(),
    );
    assert_eq!(answer.status, 201, "{answer:?}");
    world.check(
        &format!("[group.shed]\ndevices = [\"pi3\"]\n{}", deploy("1.1.0", "shed")),
        &["teller in shed: r-1 has 1 of these devices and teller, and has not ended: `holm rollout abort r-1`"],
    );
    world.cloud.stop();
}

#[test]
fn groups_and_deployments_begin_together_and_groups_that_are_not_named_stay() {
    let world = World::new();
    let groups = "[group.canary]\ndevices = [\"pi2\"]\n[group.rest]\ndevices = [\"pi1\", \"pi3\"]\n";
    let file = world.file(&format!("{groups}{}{}", deploy("1.1.0", "canary"), deploy("1.0.0", "rest")));
    let plan = world.laptop.ok(&world.cloud, &["apply", &file, "--plan", "--json"]);
    let plan: Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(plan["groups"][1], json!({ "thing": "pi2", "add": ["canary"], "remove": [] }));
    assert_eq!(plan["deployments"][1]["preview"]["changes"][0]["devices"], json!(["pi1", "pi3"]));
    assert_eq!(world.cloud.get("/v1/rollouts")["rollouts"], json!([]));
    let begun = world.laptop.ok(&world.cloud, &["apply", &file, "--json"]);
    let ids: Vec<Value> =
        begun.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone()).collect();
    assert_eq!(ids, ["r-1", "r-2"]);
    let groups = |thing: &str| world.cloud.get(&format!("/v1/devices/{thing}"))["groups"].clone();
    assert_eq!((groups("pi1"), groups("pi2")), (json!(["greenhouse", "rest"]), json!(["canary", "greenhouse"])));
    let rollout = world.cloud.get("/v1/rollouts/r-2")["rollout"].clone();
    assert_eq!((&rollout["group"], &rollout["devices"]), (&json!("rest"), &json!(2)));
    assert!(rollout["why"].as_str().unwrap().starts_with("apply "), "{rollout}");
    // The same file again, while it is being made so: nothing more begins.
    let output = world.laptop.run(&world.cloud, &["apply", &file]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert!(told.contains("r-1 is at it: teller in canary") && told.contains("r-2 is at it: teller in rest"), "{told}");
    assert_eq!(world.cloud.get("/v1/rollouts")["rollouts"].as_array().unwrap().len(), 2);
    // Another version, or another way, is another matter.
    let text = std::fs::read_to_string(&file).unwrap();
    for other in [text.replace("1.0.0", "1.1.0"), format!("{text}soak = \"1h\"\n")] {
        let file = world.file(other.strip_prefix("fleet_version = 1\n").unwrap());
        let told = world.laptop.fails(&world.cloud, 1, &["apply", &file]);
        assert!(told.contains("teller in rest: r-2 has 2 of these devices"), "{told}");
    }
    // Groups alone, once more: nothing is different.
    let file = world.file("[group.canary]\ndevices = [\"pi2\"]\n");
    assert_eq!(world.laptop.ok(&world.cloud, &["apply", &file]), "");
    world.cloud.stop();
}
