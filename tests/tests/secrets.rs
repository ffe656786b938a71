//! Secrets, from somebody's stdin to the function that may read them: the real `holm`, `holm cloud` and `holmd`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use holm_tests::control_plane::ControlPlane;
use holm_tests::eventually;
use holm_tests::functions::Guest;
use holm_tests::node::{Node, Start, binary};
use holm_tests::publisher::Publisher;
use serde_json::{Value, json};

const CONFIG: &str = "[functions]\nhealth_window = \"0ms\"\n[cloud]\nkeep_alive = \"1s\"\nack_timeout = \"2s\"\n";

/// Nothing of what is looked for may be in it by chance.
const VALUE: &str = "hunter2-correct-horse";
const BACKWARDS: &str = "esroh-tcerroc-2retnuh";

struct World {
    cloud: ControlPlane,
    laptop: Publisher,
    // Last, so that it outlives what is in it.
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cloud = ControlPlane::start(folder.path());
        let laptop = Publisher::new(folder.path());
        laptop.ok(&cloud, &["key", "new", "--cloud"]);
        let guest = Guest::new("teller", "secret").on("ask").permissions("secrets = [\"api-key\"]");
        laptop.publish(&cloud, &laptop.bundle("teller.holm", &guest.bundle()), &["--profile", "x64-v1"]);
        Self { cloud, laptop, folder }
    }

    fn data(&self, thing: &str) -> PathBuf {
        self.folder.path().join(thing)
    }

    /// Enrols a device into the greenhouse, and starts it.
    fn join(&self, thing: &str) -> Node {
        let mut command = Command::new(binary("holmd"));
        command.args(["enrol", "--cloud", &format!("https://{}", self.cloud.https), "--ca-hash", &self.cloud.ca_hash]);
        command.args(["--token", &self.cloud.enrolment_token("greenhouse"), "--thing", thing, "--data"]);
        let output = command.arg(self.data(thing)).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        self.start(thing)
    }

    fn start(&self, thing: &str) -> Node {
        let data = self.data(thing);
        let node = Start { config: CONFIG, ..Start::new(&data) }.run();
        eventually("it reports the key that it has", || {
            let own = node.admin.get("/v1/status")["cloud"]["sealing_key"].as_str()?.to_owned();
            (self.cloud.get(&format!("/v1/devices/{thing}"))["reported"]["sealing_key"] == own.as_str()).then_some(())
        });
        node
    }

    fn deploy(&self, thing: &str) {
        let words =
            ["deploy", "teller@1.0.0", "--device", thing, "--watch", "--timeout", "60s", "--health-window", "0s"];
        let told = self.laptop.ok(&self.cloud, &words);
        assert!(told.ends_with("confirmed\n"), "{told}");
    }

    /// `holm secret set` with this on stdin.
    fn set(&self, value: &str, words: &[&str]) -> Output {
        let words: Vec<&str> = ["secret", "set"].iter().chain(words).copied().collect();
        let mut command = self.laptop.command(&self.cloud, &words);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // One that refuses at once does not read it.
        let _ = child.stdin.take().unwrap().write_all(value.as_bytes());
        child.wait_with_output().unwrap()
    }

    #[track_caller]
    fn sets(&self, value: &str, words: &[&str]) -> String {
        let output = self.set(value, words);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The states of a secret, by device.
    fn states(&self) -> Vec<(String, String)> {
        let secrets = self.cloud.get("/v1/secrets")["secrets"].clone();
        let devices = secrets[0]["devices"].as_array().unwrap().clone();
        let text = |device: &Value, name: &str| device[name].as_str().unwrap().to_owned();
        devices.iter().map(|device| (text(device, "thing"), text(device, "state"))).collect()
    }

    /// How the latest job of a device ended.
    fn job(&self, thing: &str) -> Value {
        let generation = self.cloud.get(&format!("/v1/devices/{thing}"))["job"]["generation"].clone();
        self.cloud.get(&format!("/v1/devices/{thing}/jobs/{generation}"))["job"].clone()
    }
}

fn states(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(thing, state)| ((*thing).to_owned(), (*state).to_owned())).collect()
}

/// What is known of one event: how it ended, and what the function wrote to its log.
#[track_caller]
fn says(node: &Node, payload: &str) -> String {
    let (status, sent) = node.admin.post("/v1/functions/teller/invoke", payload.as_bytes());
    assert_eq!(status, 200, "{sent}");
    let id = sent["event"].as_str().unwrap().to_owned();
    eventually("it has ended", || {
        let events = node.admin.get("/v1/events").to_string();
        let ended = events.lines().find(|line| line.contains(&id)).or_else(|| events.contains(&id).then_some(&*events));
        ended.map(|ended| format!("{ended}\n{}", node.admin.get("/v1/logs")))
    })
}

#[track_caller]
fn knows(node: &Node, backwards: &str) {
    let mut asked = 0;
    eventually("the function has the secret", || {
        asked += 1;
        let asking = format!("ask-{backwards}-{asked}-{}", std::process::id());
        // It could not record what it read as a result.
        says(node, &asking).contains(&format!("{asking} {backwards} false")).then_some(())
    });
}

/// Files under a folder that have this in them.
fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes.windows(text.len()).any(|window| window == text.as_bytes())
        {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_secret_is_known_to_the_function_that_may_read_it_and_to_nothing_else_on_the_way() {
    let world = World::new();
    let node = world.join("pi1");
    world.deploy("pi1");
    assert!(says(&node, "").contains("not found: secret api-key"), "{}", says(&node, ""));
    let told = world.sets(&format!("{VALUE}\n"), &["api-key", "--group", "greenhouse"]);
    assert!(told.starts_with("set      pi1: generation "), "{told}");
    knows(&node, BACKWARDS);
    let refused = says(&node, "1");
    assert!(refused.contains("[secret api-key] is not a good key"), "{refused}");
    // It wrote the value to its log twice, by both ways.
    let logs = node.admin.get("/v1/logs").to_string();
    for line in ["the key is [secret api-key]", "printed: [secret api-key]"] {
        assert!(logs.contains(line), "{line}: {logs}");
    }
    // From the registry again, which has it as it came.
    node.stop();
    let node = world.start("pi1");
    knows(&node, BACKWARDS);
    node.stop();
    world.cloud.stop();
    assert_eq!(files_with(world.folder.path(), VALUE), Vec::<PathBuf>::new());
}

#[test]
fn who_comes_later_lacks_it_until_it_is_sealed_again() {
    let world = World::new();
    let one = world.join("pi1");
    world.deploy("pi1");
    world.sets(VALUE, &["api-key", "--group", "greenhouse"]);
    knows(&one, BACKWARDS);
    let two = world.join("pi2");
    assert_eq!(world.states(), states(&[("pi1", "sealed"), ("pi2", "lacking")]));
    let generation = world.job("pi1")["generation"].clone();
    let told = world.sets(VALUE, &["api-key", "--group", "greenhouse", "--missing"]);
    assert_eq!(told, "set      pi2: nothing that it runs reads it yet\n");
    assert_eq!(world.job("pi1")["generation"], generation, "who has it is left alone");
    world.deploy("pi2");
    knows(&two, BACKWARDS);
    // Gone from both.
    world.laptop.ok(&world.cloud, &["secret", "remove", "api-key", "--group", "greenhouse"]);
    for node in [&one, &two] {
        eventually("it is gone", || says(node, "").contains("not found: secret").then_some(()));
    }
    assert_eq!(world.cloud.get("/v1/secrets")["secrets"], json!([]));
}

#[test]
fn another_key_is_noticed_and_what_does_not_open_is_refused() {
    let world = World::new();
    let node = world.join("pi1");
    world.deploy("pi1");
    for first in [true, false] {
        let output = world.set(VALUE, &["api-key", "--device", "pi1"]);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && words.contains("pi1 for the first time; its key is") == first, "{words}");
    }
    knows(&node, BACKWARDS);
    // Something that the device's key does not open, by a control plane that lies: nothing changes on the device.
    let key = world.cloud.get("/v1/devices/pi1")["reported"]["sealing_key"].clone();
    let body = json!({ "sealed": [{ "thing": "pi1", "key": key, "value": "c2VhbGVk" }] });
    let answer = world.cloud.send("POST", "/v1/secrets/api-key", body.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
    eventually("it is refused", || (world.job("pi1")["details"]["reason"] == "secret-unreadable").then_some(()));
    knows(&node, BACKWARDS);
    // A new card, as far as secrets go. A device that was enrolled before there were secrets gets its key the same way.
    node.stop();
    std::fs::remove_file(world.data("pi1").join("identity/sealing.key")).unwrap();
    let node = world.start("pi1");
    assert_eq!(world.states(), states(&[("pi1", "other-key")]));
    let refused = world.set("another-horse", &["api-key", "--device", "pi1"]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && words.contains("--accept-new-keys"), "{refused:?}");
    world.sets("another-horse", &["api-key", "--device", "pi1", "--accept-new-keys"]);
    knows(&node, "esroh-rehtona");
    // All that is wrong is told, and nothing of it is done.
    for (value, words) in [("", "empty"), (&*"x".repeat(3_001), "longer than 3000")] {
        let output = world.set(value, &["api-key", "--device", "pi1"]);
        assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{output:?}");
    }
    let body = json!({ "sealed": [{ "thing": "pi1", "key": "0".repeat(64), "value": "c2VhbGVk" },
        { "thing": "nobody", "key": key, "value": "c2VhbGVk" }] });
    let answer = world.cloud.send("POST", "/v1/secrets/api-key", body.to_string().as_bytes());
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(answer.json()["error"]["problems"].as_array().unwrap().len(), 2, "{answer:?}");
    knows(&node, "esroh-rehtona");
}
