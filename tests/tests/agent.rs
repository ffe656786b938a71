//! Agents over the air: the real `holm`, `holm cloud` and `holmd`, which is replaced by copies of itself that say that they are
//! others, and some of which are broken.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use holm_tests::eventually;
use holm_tests::functions::Guest;
use holm_tests::node::{Node, Start, binary, log};
use holm_tests::world::World;
use serde_json::Value;

/// A world with an installed agent, and a service manager that starts it again.
struct Scene {
    world: World,
    installed: PathBuf,
    program: Vec<u8>,
}

impl Scene {
    fn new() -> Self {
        let world = World::start();
        world.laptop.ok(&world.cloud, &["key", "new", "--cloud"]);
        let installed = world.folder.path().join("holmd");
        let stripped = Command::new("strip").arg("-o").arg(&installed).arg(binary("holmd")).status().unwrap();
        assert!(stripped.success());
        let program = fs::read(&installed).unwrap();
        world.enrol();
        Self { world, installed, program }
    }

    fn start(&self) -> Node {
        let data = self.world.data();
        let again = format!("until \"$@\" || [ -e {} ]; do sleep 0.1; done", self.off().display());
        let again = ["sh".to_owned(), "-c".to_owned(), again, "sh".to_owned()];
        let _ = fs::remove_file(self.off());
        let start = Start { config: World::config(), under: &again, holmd: Some(&self.installed), ..Start::new(&data) };
        let node = start.run();
        self.world.connected();
        node
    }

    /// While it is there, nothing is started again.
    fn off(&self) -> PathBuf {
        self.world.folder.path().join("off")
    }

    /// Ends the agent, whichever start it is of, and its service manager.
    fn end(&self, node: Node, how: &str) {
        fs::write(self.off(), "").unwrap();
        let data = self.world.data();
        let started = |entry: &fs::DirEntry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words.first().is_some_and(|first| first.ends_with(b"holmd"))
                && words.contains(&data.as_os_str().as_encoded_bytes())
        };
        let found = fs::read_dir("/proc").unwrap().flatten().find(started).expect("it runs");
        assert!(Command::new("kill").arg(how).arg(found.file_name()).status().unwrap().success());
        node.wait();
    }

    /// A copy of the agent that says that it has this version, with other bytes in place of its own.
    fn agent(&self, version: &str, changes: &[(&[u8], &[u8])]) -> PathBuf {
        let mut program = self.program.clone();
        let said = format!("holm-agent-build {version} ");
        replace(&mut program, b"holm-agent-build 0.1.0 ", said.as_bytes());
        for (from, to) in changes {
            replace(&mut program, from, to);
        }
        let path = self.world.folder.path().join(format!("holmd-{version}"));
        fs::write(&path, program).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn publish(&self, agent: &Path) -> Value {
        let said = self.world.laptop.ok(&self.world.cloud, &["publish", agent.to_str().unwrap(), "--json"]);
        serde_json::from_str(&said).unwrap()
    }

    /// A function, with native code: where the installed agent is, there is no compiler.
    fn function(&self, guest: &Guest, name: &str) {
        let profile = self.world.cloud.get("/v1/devices/pi1")["agent"]["profile"].as_str().unwrap().to_owned();
        let bundle = self.world.laptop.bundle(name, &guest.bundle());
        self.world.laptop.publish(&self.world.cloud, &bundle, &["--profile", &profile]);
    }

    /// How a deployment ended, in the words of `holm deploy`.
    fn deploy(&self, what: &str) -> String {
        let words = ["deploy", what, "--device", "pi1", "--watch", "--timeout", "120s", "--health-window", "1s"];
        let told = self.world.laptop.run(&self.world.cloud, &words);
        String::from_utf8(told.stdout).unwrap() + &String::from_utf8(told.stderr).unwrap()
    }

    /// What runs, by its own word.
    fn version(&self, node: &Node) -> Option<String> {
        Some(node.admin.try_get("/v1/status")?["version"].as_str()?.to_owned())
    }

    fn runs(&self, node: &Node, version: &str) {
        eventually(&format!("{version} runs"), || (self.version(node)? == version).then_some(()));
    }

    fn state(&self) -> Value {
        let text = fs::read(self.world.data().join("agent/state.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}

/// In place of every occurrence, of which there has to be one.
fn replace(program: &mut [u8], from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let places: Vec<usize> = memchr::memmem::find_iter(program, from).collect();
    assert!(!places.is_empty(), "{}", String::from_utf8_lossy(from));
    for at in places {
        program[at..at + to.len()].copy_from_slice(to);
    }
}

#[test]
fn an_agent_is_tried_confirmed_and_kept_and_goes_back_when_it_shall() {
    let scene = Scene::new();
    let node = scene.start();
    let world = &scene.world;
    let guest = Guest::new("teller", "echo").on("ask");
    scene.function(&guest, "teller.holm");
    assert!(scene.deploy("teller@1.0.0").contains("confirmed"));
    let published = scene.publish(&scene.agent("0.2.0", &[]));
    assert_eq!((published["agent"].as_str(), published["sequence"].as_u64()), (Some("0.2.0"), Some(1)));
    let told = world.laptop.fails(&world.cloud, 1, &["publish", scene.agent("0.2.0", &[]).to_str().unwrap()]);
    assert!(told.contains("published already"), "{told}");

    let told = scene.deploy("holmd@0.2.0");
    assert!(told.contains("confirmed"), "{told}\n{}", log(&world.data()));
    scene.runs(&node, "0.2.0");
    assert_eq!(scene.state()["confirmed"], published["sha256"]);
    let device = eventually("the control plane knows", || {
        let device = world.cloud.get("/v1/devices/pi1");
        (device["agent"]["version"] == "0.2.0").then_some(device)
    });
    assert_eq!(device["reported"]["agent"], "0.2.0");
    // The same process, for who looks after it; and what it ran, it runs.
    let runs = fs::read_link(format!("/proc/{}/exe", node.pid)).unwrap();
    assert!(runs.starts_with(world.data().join("agent")), "{}", runs.display());
    node.admin.post("/v1/functions/teller/invoke", b"x");
    assert_eq!(node.admin.get("/v1/functions")["functions"][0]["succeeded"], 1);

    // Power cuts change nothing: each start begins with the installed one.
    scene.end(node, "-KILL");
    let node = scene.start();
    scene.runs(&node, "0.2.0");
    // A function alone leaves the agent as it is.
    let guest = Guest::new("teller", "echo").on("ask").version("1.0.1");
    scene.function(&guest, "teller.holm");
    assert!(scene.deploy("teller@1.0.1").contains("confirmed"));
    scene.runs(&node, "0.2.0");

    // Back to what was before it, which is the installed one.
    let words = ["rollback", "holmd", "--device", "pi1", "-m", "tried enough", "--watch", "--timeout", "120s"];
    let told = world.laptop.ok(&world.cloud, &words);
    scene.runs(&node, "0.1.0");
    eventually("it is confirmed", || scene.state()["confirmed"].is_null().then_some(()));
    assert_eq!(world.cloud.get("/v1/devices/pi1")["reported"]["functions"][0]["version"], "1.0.1", "{told}");
    scene.end(node, "-TERM");
}

#[test]
fn an_agent_that_does_not_start_or_is_not_heard_costs_nothing_but_time() {
    let scene = Scene::new();
    let node = scene.start();
    // What is at the entry point, int3 takes the place of.
    let entry = usize::try_from(u64::from_le_bytes(scene.program[24..32].try_into().unwrap())).unwrap();
    let at = file_offset(&scene.program, entry);
    let start = scene.program[at..at + 16].to_vec();
    scene.publish(&scene.agent("0.3.0", &[(&start, &[0xcc; 16])]));
    let told = scene.deploy("holmd@0.3.0");
    assert!(told.contains("rolled-back") && told.contains("started 2 times"), "{told}\n{}", log(&scene.world.data()));
    scene.runs(&node, "0.1.0");
    scene.world.connected();

    // One that speaks of something that nobody listens to.
    scene.publish(&scene.agent("0.4.0", &[(b"$aws/things/", b"$not/things/")]));
    let told = scene.deploy("holmd@0.4.0");
    assert!(told.contains("no control plane has answered it within 8 s"), "{told}\n{}", log(&scene.world.data()));
    scene.runs(&node, "0.1.0");
    let state = scene.state();
    assert!(state["confirmed"].is_null() && state["trial"].is_null(), "{state}");

    // One that looks for its identity elsewhere, and so has no link at all.
    scene.publish(&scene.agent("0.4.1", &[(b"device.json", b"devise.json")]));
    let told = scene.deploy("holmd@0.4.1");
    assert!(told.contains("its link to the control plane does not"), "{told}\n{}", log(&scene.world.data()));
    scene.runs(&node, "0.1.0");

    // The next one is none the worse for it. Power cuts in its trial are not its fault, once.
    scene.publish(&scene.agent("0.5.0", &[]));
    let words = ["deploy", "holmd@0.5.0", "--device", "pi1", "--health-window", "3s"];
    scene.world.laptop.ok(&scene.world.cloud, &words);
    scene.runs(&node, "0.5.0");
    assert_eq!(scene.state()["trial"]["starts"], 1);
    scene.end(node, "-KILL");
    let node = scene.start();
    scene.runs(&node, "0.5.0");
    eventually("it is confirmed", || (!scene.state()["confirmed"].is_null()).then_some(()));

    // Whoever installs another one is obeyed.
    scene.end(node, "-KILL");
    fs::write(&scene.installed, fs::read(scene.agent("0.6.0", &[])).unwrap()).unwrap();
    let node = scene.start();
    scene.runs(&node, "0.6.0");
    scene.end(node, "-TERM");
}

#[test]
fn an_agent_that_does_not_fit_is_refused_before_anything_of_it_runs() {
    let scene = Scene::new();
    let node = scene.start();
    let world = &scene.world;
    let guest = Guest::new("teller", "echo").on("ask");
    scene.function(&guest, "teller.holm");
    assert!(scene.deploy("teller@1.0.0").contains("confirmed"));
    // Its functions have no native code for it, and the compiler that is here makes none for it.
    let engine = world.cloud.get("/v1/devices/pi1")["agent"]["engine"].as_str().unwrap().to_owned();
    let said = |engine: &str| format!("{} {engine} ", std::env::consts::ARCH);
    let other = engine.chars().map(|letter| if letter == '.' { '.' } else { '7' }).collect::<String>();
    scene.publish(&scene.agent("0.2.0", &[(said(&engine).as_bytes(), said(&other).as_bytes())]));
    let told = scene.deploy("holmd@0.2.0");
    assert!(told.contains("refused") && told.contains(&format!("for engine {other}")), "{told}");
    // For another processor.
    let arch = std::env::consts::ARCH;
    let foreign = "m".repeat(arch.len());
    let words = |arch: &str| format!("0.3.0 {arch} ");
    scene.publish(&scene.agent("0.3.0", &[(words(arch).as_bytes(), words(&foreign).as_bytes())]));
    let told = scene.deploy("holmd@0.3.0");
    assert!(told.contains(&format!("no build for {arch}")), "{told}");
    // No agent at all, and a function that calls itself one.
    let told = world.laptop.fails(&world.cloud, 1, &["publish", binary("holm").to_str().unwrap()]);
    assert!(told.contains("does not say that it is a holmd"), "{told}");
    let guest = Guest::new("holmd", "echo").on("ask");
    let bundle = world.laptop.bundle("holmd.holm", &guest.bundle());
    let told = world.laptop.fails(&world.cloud, 1, &["publish", &bundle]);
    assert!(told.contains("that is the agent"), "{told}");
    // A digest that changed on the disk is not run.
    scene.publish(&scene.agent("0.4.0", &[]));
    assert!(scene.deploy("holmd@0.4.0").contains("confirmed"));
    scene.runs(&node, "0.4.0");
    scene.end(node, "-KILL");
    let confirmed = scene.state()["confirmed"].as_str().unwrap().to_owned();
    let program = world.data().join("agent").join(confirmed).join("holmd");
    let mut bytes = fs::read(&program).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&program, bytes).unwrap();
    let node = scene.start();
    scene.runs(&node, "0.1.0");
    assert!(log(&world.data()).contains("is not what was signed"), "{}", log(&world.data()));
    scene.end(node, "-TERM");
}

/// Where in the file the bytes of an address are (elf(5), 64 bits).
fn file_offset(program: &[u8], address: usize) -> usize {
    let word = |at: usize, length: usize| {
        program[at..at + length].iter().rev().fold(0_usize, |value, byte| value << 8 | usize::from(*byte))
    };
    let (table, size, count) = (word(32, 8), word(54, 2), word(56, 2));
    let segments = (0..count).map(|segment| table + segment * size);
    let found = segments.filter(|at| word(*at, 4) == 1).find_map(|at| {
        let (offset, start, length) = (word(at + 8, 8), word(at + 16, 8), word(at + 32, 8));
        (start..start + length).contains(&address).then(|| offset + address - start)
    });
    found.unwrap()
}
