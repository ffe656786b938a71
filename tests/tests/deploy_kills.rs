//! SIGKILL of the device and of the control plane at every commit and every rename of a deployment: exactly the old or the new set runs, and
//! in the end the new one does.
//!
//! `HOLM_DEPLOY_KILLS` says how many of the places are tried, spread over the way (default 3); from the number that there is on, all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use holm_tests::cloud::{self, QUICK, patiently, runs};
use holm_tests::control_plane::ControlPlane;
use holm_tests::functions::{Guest, example};
use holm_tests::node::{Node, Start};
use holm_tests::publisher::Publisher;
use holm_tests::sites::{Site, recorded, recorder};
use holm_tests::world::World;
use holm_tests::{control_plane, node, within};
use serde_json::json;

/// For a deployment, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn wanted() -> usize {
    std::env::var("HOLM_DEPLOY_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// So many of these, spread over all.
fn spread(sites: Vec<Site>) -> Vec<Site> {
    let (all, most) = (sites.len(), wanted());
    let taken = sites
        .into_iter()
        .enumerate()
        .filter(|(place, _)| most >= all || place * most / all != (place + 1) * most / all);
    taken.map(|(_, site)| site).collect()
}

/// A folder as another one was.
fn restore(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let copied = Command::new("cp").arg("-a").args([from, to]).output().unwrap();
    assert!(copied.status.success(), "{copied:?}");
}

/// Whether it comes to be so within half a second.
fn soon(mut condition: impl FnMut() -> bool) -> bool {
    (0..50).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        condition()
    })
}

/// What the kills came to.
#[derive(Default)]
struct Tally {
    kills: BTreeMap<String, u32>,
    /// Places that a run did not come to.
    missed: Vec<Site>,
    old: u32,
    new: u32,
}

impl Tally {
    fn killed(&mut self, site: &Site) {
        *self.kills.entry(site.kind()).or_default() += 1;
    }

    /// Fails if hardly anything was killed. Commits may come together that did not when it was recorded.
    fn told(&self, whose: &str, sites: usize) {
        let (kills, missed) = (self.kills.values().sum::<u32>(), self.missed.len());
        let Self { old, new, .. } = self;
        println!(
            "{whose}: {kills} kills, {old} times the old set ran after it and {new} times the new, by call site: {:?}",
            self.kills
        );
        for site in &self.missed {
            println!("{whose}: a run without {site:?}, by call site");
        }
        assert!(kills > 0 && missed <= (sites / 10).max(1), "{missed} of {sites} were missed: {:?}", self.missed);
    }
}

#[test]
fn a_device_killed_at_any_commit_or_rename_runs_the_old_set_or_the_new_and_then_the_new() {
    let mut world = cloud::World::new();
    let (log, image) = (world.data.with_extension("calls"), world.data.with_extension("image"));
    let node = world.start();
    let before = world.release(&example("counter", |text| text));
    let job = world.deploy(&world.repository.desired(1, 0, vec![before]));
    world.check_end(&job, "SUCCEEDED", None);
    let old = runs(&node);
    node.stop();
    std::fs::rename(&world.data, &image).unwrap();
    // Another component, so that it is compiled anew as well.
    let guest = |name: &str| Guest::new(name, "echo").on("ask").bundle();
    let functions = ["first", "second"].map(|name| world.release(&guest(name))).to_vec();
    let desired = world.repository.desired(2, 0, functions);
    let new = ["first 1.0.0", "second 1.0.0"];
    let attempt = |world: &mut cloud::World, under: &[String]| -> (String, Option<Node>) {
        restore(&image, &world.data);
        let job = world.deploy(&desired);
        let mut node = Start { config: QUICK, under, ..Start::new(&world.data) }.try_run();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended =
                world.plane.core.state().updates.iter().any(|(id, status, _)| *id == job && status == "SUCCEEDED");
            let gone = node.as_mut().is_none_or(Node::has_ended)
                // It tidies up after it has told the end.
                || (ended && soon(|| node.as_mut().is_none_or(Node::has_ended)));
            if gone || ended {
                return (job, node.filter(|_| !gone));
            }
            assert!(Instant::now() < deadline, "{under:?}\n{}", node::log(&world.data));
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let (_, node) = attempt(&mut world, &recorder(&log));
    // Before it ends in order, which is no part of a deployment.
    let sites = spread(recorded(&std::fs::read_to_string(&log).unwrap()));
    node.expect("nothing kills it").stop();
    let mut tally = Tally::default();
    for site in &sites {
        let (job, survived) = attempt(&mut world, &site.killer());
        if let Some(node) = survived {
            tally.missed.push(site.clone());
            node.kill();
            continue;
        }
        tally.killed(site);
        let node = Start { config: QUICK, ..Start::new(&world.data) }.run();
        let found = runs(&node);
        assert!(found == old || found == new, "{site:?}: {found:?}");
        *if found == old { &mut tally.old } else { &mut tally.new } += 1;
        patiently(&world.data, &format!("the end, after a kill at {site:?}"), || {
            let state = world.plane.core.state();
            let end = state
                .updates
                .iter()
                .find(|(id, status, _)| *id == job && !matches!(status.as_str(), "QUEUED" | "IN_PROGRESS"));
            let (_, status, details) = end?;
            assert_eq!(status, "SUCCEEDED", "{site:?}: {details}");
            Some(())
        });
        assert_eq!(runs(&node), new, "{site:?}");
        assert!(!world.data.join("downloads").exists(), "{site:?}: nothing is left half");
        node.stop();
    }
    tally.told("a device", sites.len());
}

/// A control plane with a node, of which version 1.0.0 runs; both ended in order, and kept as they were. What begins from there begins alike
/// each time.
struct Frozen {
    place: PathBuf,
    image: PathBuf,
    log: PathBuf,
    laptop: Publisher,
    again: control_plane::Start,
    _folder: tempfile::TempDir,
}

impl Frozen {
    /// `prepare` publishes; `deploy` are the words that have a node run 1.0.0.
    fn new(prepare: impl FnOnce(&ControlPlane, &Publisher), deploy: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [place, image, log] = ["place", "image", "calls"].map(|name| folder.path().join(name));
        std::fs::create_dir_all(&place).unwrap();
        let cloud = ControlPlane::start(&place);
        let laptop = Publisher::new(&place);
        laptop.ok(&cloud, &["key", "new", "--cloud"]);
        World::enrol_at(&cloud, &place.join("pi1"));
        prepare(&cloud, &laptop);
        let frozen = Self { again: cloud.again(), laptop, place, image, log, _folder: folder };
        let node = frozen.node();
        frozen.laptop.ok(&cloud, deploy);
        node.stop();
        cloud.stop();
        std::fs::rename(&frozen.place, &frozen.image).unwrap();
        frozen
    }

    /// The node's data folder.
    fn data(&self) -> PathBuf {
        self.place.join("pi1")
    }

    fn node(&self) -> Node {
        Start { config: World::config(), ..Start::new(&self.data()) }.run()
    }

    /// What runs under this, and the node beside it; without a control plane that was killed before `drive` had done its work, or soon
    /// after that: it answers whether it has.
    fn attempt(&self, under: Vec<String>, drive: &impl Fn(&mut ControlPlane) -> bool) -> (Option<ControlPlane>, Node) {
        restore(&self.image, &self.place);
        let cloud = control_plane::Start { under, ..self.again.clone() }.try_run();
        let node = self.node();
        let Some(mut cloud) = cloud else { return (None, node) };
        let there = drive(&mut cloud) && !soon(|| cloud.has_ended());
        (there.then_some(cloud), node)
    }

    /// Kills the control plane at each place that `drive` comes to, and looks with `after` at what a new one makes of it, and the node that
    /// has outlived the kill.
    fn killed(
        &self,
        whose: &str,
        drive: impl Fn(&mut ControlPlane) -> bool,
        after: impl Fn(&Site, &mut ControlPlane, &Node),
    ) {
        let (cloud, node) = self.attempt(recorder(&self.log), &drive);
        let sites = spread(recorded(&std::fs::read_to_string(&self.log).unwrap()));
        node.stop();
        cloud.expect("nothing kills it").stop();
        let mut tally = Tally::default();
        for site in &sites {
            let (survived, node) = self.attempt(site.killer(), &drive);
            if let Some(cloud) = survived {
                tally.missed.push(site.clone());
                // An end in order may come to it.
                drop(cloud);
                node.stop();
                continue;
            }
            tally.killed(site);
            let found = runs(&node);
            assert!(found == ["teller 1.0.0"] || found == ["teller 2.0.0"], "{site:?}: {found:?}");
            *if found == ["teller 1.0.0"] { &mut tally.old } else { &mut tally.new } += 1;
            let mut cloud = self.again.run();
            after(site, &mut cloud, &node);
            node.stop();
            cloud.stop();
        }
        tally.told(whose, sites.len());
    }
}

fn teller(version: &str) -> Vec<u8> {
    Guest::new("teller", "echo").on("ask").version(version).bundle()
}

#[test]
fn a_control_plane_killed_at_any_commit_or_rename_has_published_and_deployed_all_or_nothing() {
    let deploy = |version: &str, more: &[&str]| -> Vec<String> {
        let release = format!("teller@{version}");
        let words = ["deploy", &release, "--device", "pi1", "--health-window", "0s"];
        words.iter().chain(more).map(ToString::to_string).collect()
    };
    let watch = ["--watch", "--timeout", "100s"];
    let (first, two) = (deploy("1.0.0", &watch), teller("2.0.0"));
    let mut bundle = String::new();
    let frozen = Frozen::new(
        |cloud, laptop| {
            laptop.believe(cloud);
            laptop.publish(cloud, &laptop.bundle("one.holm", &teller("1.0.0")), &[]);
            bundle = laptop.bundle("two.holm", &two);
        },
        &first.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let (laptop, data) = (&frozen.laptop, frozen.data());
    let publish = ["publish", &bundle, "--profile", "none"].map(str::to_owned).to_vec();
    let run = |cloud: &ControlPlane, words: &[String]| {
        laptop.run(cloud, &words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let drive = |cloud: &mut ControlPlane| {
        for words in [&publish, &deploy("2.0.0", &[])] {
            let output = run(cloud, words);
            if !output.status.success() {
                // A connection may end before its process is seen to.
                within(PATIENCE, &format!("{words:?}: {output:?}"), || cloud.has_ended().then_some(()));
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while !cloud.has_ended() {
            let device = cloud.ask_with("GET", "/v1/devices/pi1", Some(&cloud.token), "", b"");
            if device.is_ok_and(|answer| {
                answer.json()["job"]["status"] == "SUCCEEDED" && answer.json()["job"]["generation"] == 2
            }) {
                return true;
            }
            assert!(Instant::now() < deadline, "{}", node::log(&data));
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    };
    frozen.killed("a control plane", drive, |site, cloud, node| {
        // The same once more, as somebody at the laptop would.
        let output = run(cloud, &publish);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() || said.contains("is published already"), "{site:?}: {output:?}");
        assert!(laptop.download(cloud, "functions/teller/2.0.0/teller.holm").unwrap() == two, "{site:?}");
        let output = run(cloud, &deploy("2.0.0", &watch));
        assert!(output.status.success(), "{site:?}: {output:?}\n{}", node::log(&data));
        assert_eq!(runs(node), ["teller 2.0.0"], "{site:?}");
        let device = cloud.get("/v1/devices/pi1");
        let desired = device["desired"]["functions"].as_array().unwrap();
        assert_eq!((desired.len(), &desired[0]["version"]), (1, &json!("2.0.0")), "{site:?}: {device}");
    });
}

#[test]
fn a_control_plane_killed_at_any_commit_of_a_rollout_or_its_abort_takes_everybody_back() {
    let frozen = Frozen::new(
        |cloud, laptop| {
            for version in ["1.0.0", "2.0.0"] {
                laptop.publish(cloud, &laptop.bundle("teller.holm", &teller(version)), &[]);
            }
        },
        &["deploy", "teller@1.0.0", "--group", "greenhouse", "--health-window", "0s", "--watch"],
    );
    let data = frozen.data();
    // The second rollout: its state and how the only device stands, as far as there is one.
    let stands = |cloud: &ControlPlane| -> Option<(String, String)> {
        let get =
            |path: &str| cloud.ask_with("GET", path, Some(&cloud.token), "", b"").ok().filter(|it| it.status == 200);
        let (rollout, devices) = (get("/v1/rollouts/r-2")?.json(), get("/v1/rollouts/r-2/devices")?.json());
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        Some((text(&rollout["rollout"]["state"]), text(&devices["devices"][0]["standing"])))
    };
    // Takes it as far as it goes: begun, confirmed, aborted, back. Answers whether it came there.
    let drive = |cloud: &mut ControlPlane| -> bool {
        let deadline = Instant::now() + PATIENCE;
        while !cloud.has_ended() {
            let post = |path: &str, body: serde_json::Value| {
                let _ = cloud.ask_with("POST", path, Some(&cloud.token), "", body.to_string().as_bytes());
            };
            let found = stands(cloud);
            match found.as_ref().map(|(state, standing)| (state.as_str(), standing.as_str())) {
                None => post(
                    "/v1/rollouts",
                    json!({
                        "function": "teller", "version": "2.0.0", "group": "greenhouse", "stages": ["100%"], "soak_s": 0,
                        "health_window_s": 0,
                    }),
                ),
                Some(("completed", "confirmed")) => post("/v1/rollouts/r-2/abort", json!({ "why": "no" })),
                Some(("aborted", "undone")) => return true,
                Some(_) => {}
            }
            assert!(Instant::now() < deadline, "{found:?}\n{}", node::log(&data));
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    };
    frozen.killed("a control plane with a rollout", drive, |site, cloud, node| {
        assert!(drive(cloud), "{site:?}");
        assert_eq!(runs(node), ["teller 1.0.0"], "{site:?}");
        let rollouts = cloud.get("/v1/rollouts")["rollouts"].as_array().unwrap().len();
        assert_eq!(rollouts, 2, "{site:?}: one was begun, and once");
    });
}
