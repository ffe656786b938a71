//! A card from the first byte to the last result: made, flashed with a seed, booted in QEMU; it enrols, gets a function over the
//! air, and answers for what it acknowledged, whenever its power is cut.
//!
//! `HOLM_IMAGE_BOARD` says for which board; `cargo xtask evidence raspi3b` does all of it on QEMU's Raspberry Pi 3.
//! `HOLM_IMAGE_FLAVOUR=tiny` takes the kernel of our own; `cargo xtask evidence tiny`, and `tiny-raspi3b`.
//! `HOLM_IMAGE_CUTS` says how often the power is cut; `cargo xtask evidence image-power` does it 50 times. QEMU is killed as it
//! stands: what the guest had in memory is gone, what it had given to the disk is not, so a disk that lies about its caches is
//! not what is tried here (`tests/tests/power.rs` does that to the store).

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use holm_core::Timestamp;
use holm_store::{InboxId, OpenOptions};
use holm_tests::card::{self, Card, HOST};
use holm_tests::control_plane::ControlPlane;
use holm_tests::functions::example;
use holm_tests::mqtt::{Client, Packet};
use holm_tests::node::binary;
use holm_tests::publisher::Publisher;
use serde_json::Value;

/// A card, the fleet that it belongs to, and what was published to it.
struct Field {
    cloud: ControlPlane,
    laptop: Publisher,
    card: Card,
    /// Numbers that were sent, and those of them that were acknowledged.
    sent: u16,
    acknowledged: u16,
    /// Versions of the counter that were published; the newest was also deployed last, as the generation of that number.
    version: u32,
    /// The one that was confirmed last.
    confirmed: String,
}

fn cuts() -> u32 {
    std::env::var("HOLM_IMAGE_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// Waits as long as an emulated machine may take.
fn patiently<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> Result<T, String> {
    let deadline = Instant::now() + card::patience();
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if Instant::now() > deadline {
            return Err(format!("not within {} s: {what}", card::patience().as_secs()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Field {
    fn new(folder: &Path, image: &Path) -> Self {
        let cloud = ControlPlane::named(folder, &[HOST]);
        let laptop = Publisher::new(folder);
        laptop.ok(&cloud, &["key", "new", "--cloud"]);
        let card = Card::flash(folder, image, &laptop, &cloud, "pi3");
        Self { cloud, laptop, card, sent: 0, acknowledged: 0, version: 0, confirmed: String::new() }
    }

    fn wait<T>(&self, what: &str, condition: impl FnMut() -> Option<T>) -> T {
        patiently(what, condition).unwrap_or_else(|error| panic!("{error}\n{}", tail(&self.card.said())))
    }

    fn connected(&self) {
        self.wait("the device is connected", || {
            let answer = self.cloud.ask("GET", "/v1/devices/pi3", Some(&self.cloud.token), b"");
            (answer.status == 200 && answer.json()["connected"] == true).then_some(())
        });
    }

    /// Publishes the next version of the counter, with native code for the card, and says its name.
    fn release(&mut self) -> String {
        self.version += 1;
        let version = format!("0.1.{}", self.version);
        let bundle = example("counter", |manifest| manifest.replace("\"0.1.0\"", &format!("\"{version}\"")));
        let file = self.laptop.bundle("counter.holm", &bundle);
        self.laptop.publish(&self.cloud, &file, &["--profile", "a64-small-v1"]);
        format!("counter@{version}")
    }

    /// Begins to deploy a release; it is to be watched for a second.
    fn deploy(&self, release: &str) {
        self.laptop.ok(&self.cloud, &["deploy", release, "--device", "pi3", "--health-window", "1s"]);
    }

    /// The version that runs, once the last deployment has come to its end. That is the new one if it was confirmed, and
    /// otherwise the one that was confirmed before: a node that goes down during a trial comes back with that.
    fn ended(&mut self) -> String {
        let ended = self.wait("the deployment comes to its end", || {
            let device = self.cloud.get("/v1/devices/pi3");
            let reported = |path: &str| device.pointer(&format!("/reported/{path}")).cloned();
            let phase = reported("phase")?.as_str()?.to_owned();
            let is_last = reported("generation")? == self.version && device["connected"] == true;
            let ended = is_last && ["confirmed", "rolled-back", "refused"].contains(&&*phase);
            ended.then_some((phase, reported("functions/0/version")?.as_str()?.to_owned()))
        });
        if ended.0 == "confirmed" {
            self.confirmed = format!("0.1.{}", self.version);
        }
        assert_eq!(ended.1, self.confirmed, "{}\n{}", ended.0, tail(&self.card.said()));
        ended.0
    }

    /// Publishes numbers until `until`, or until the connection breaks. What was not acknowledged is sent again by the next
    /// call, under the same name: its effects are there once, however often it comes.
    fn publish(&mut self, client: &mut Client, until: u16) {
        while self.acknowledged < until {
            let number = self.acknowledged + 1;
            self.sent = self.sent.max(number);
            let (name, payload) = (format!("event-{number}"), format!("{{\"id\":\"{number}\"}}"));
            let sent = client.publish("count/x", payload.as_bytes(), 1, number, false, Some(&name));
            if sent.is_err() || !matches!(client.receive(), Ok(Packet::Ack(4, id, 0 | 16)) if id == number) {
                return;
            }
            self.acknowledged = number;
        }
    }

    /// Publishes one more as soon as it can be reached, and says how many seconds of the machine's clock that is after init's
    /// first word.
    fn first_event(&mut self) -> f64 {
        let ready = self.wait("the node is ready", || self.card.seconds_to("the node is ready"));
        // Before it has an address, QEMU takes a connection and nobody answers.
        let reached = self.wait("it has an address", || self.card.seconds_to("/24 for "));
        let seen = Instant::now();
        let mut client = self.card.client("first");
        self.publish(&mut client, self.sent.max(self.acknowledged + 1));
        assert_eq!(self.acknowledged, self.sent, "{}", tail(&self.card.said()));
        println!("guest: ready {ready:.1} s after init began, with an address after {reached:.1} s");
        ready.max(reached) + seen.elapsed().as_secs_f64()
    }

    /// A line of a chip that the kernel drives starts a function, which sets another one: QEMU presses the power button.
    fn press(&self) {
        let said = self.card.said();
        let refused = said.lines().any(|line| line.contains("the line POWER is in use by holm"));
        assert!(refused, "a line that is held already:\n{}", tail(&said));
        let file = self.laptop.bundle("door.holm", &example("door", |manifest| manifest));
        self.laptop.publish(&self.cloud, &file, &["--profile", "a64-small-v1"]);
        let words = ["deploy", "door@0.1.0", "--device", "pi3", "--health-window", "1s", "--watch", "--timeout", "15m"];
        self.laptop.ok(&self.cloud, &words);
        let mut client = self.card.client("door");
        client.subscribe("state/door", 0).unwrap();
        client.patience(card::patience());
        self.card.press();
        for level in ["high", "low"] {
            let Ok(Packet::Publish { payload, .. }) = client.receive() else { panic!("no edge to {level}") };
            let edge: Value = serde_json::from_slice(&payload).unwrap();
            assert_eq!((&edge["line"], &edge["level"]), (&"door".into(), &level.into()), "{edge}");
            println!("the machine's button has gone {level}, and a function has set a line after it");
        }
    }

    /// What the counter has recorded, in order.
    fn counted(&self) -> Vec<u64> {
        let answer = self.cloud.get("/v1/results?series=counter.n&device=pi3&limit=10000");
        let rows: &Vec<Value> = answer["rows"].as_array().unwrap();
        let mut counted: Vec<u64> = rows.iter().map(|row| row["value"].as_f64().unwrap() as u64).collect();
        counted.sort_unstable();
        counted
    }

    /// Every number that was acknowledged has been counted, once, and its result has arrived.
    fn settle(&mut self) {
        let mut client = self.card.client("settle");
        self.publish(&mut client, self.sent.max(self.acknowledged));
        assert_eq!(self.acknowledged, self.sent, "what was cut off is taken when it comes again");
        let expected: Vec<u64> = (1..=u64::from(self.acknowledged)).collect();
        self.wait("all results arrive", || (self.counted().len() >= expected.len()).then_some(()));
        assert_eq!(self.counted(), expected, "once each");
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// The names of the events in the inbox of a node's data folder.
fn parked(data: &Path) -> Vec<String> {
    let opened = OpenOptions::new(data).open().unwrap();
    let rows = opened.store.due(Timestamp(i64::MAX), InboxId(0), 1000).unwrap();
    opened.store.parked(&rows).unwrap().iter().map(|row| row.event.id.to_string()).collect()
}

#[test]
fn a_flashed_card_boots_into_a_node_that_loses_nothing_when_its_power_is_cut() {
    if let Some(why) = card::missing() {
        return holm_tests::skip(&why);
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("holm.img");
    card::image(&image);
    let mut field = Field::new(folder.path(), &image);
    field.card.boot();
    field.connected();
    let begin = Instant::now();
    let release = field.release();
    field.deploy(&release);
    assert_eq!(field.ended(), "confirmed", "{}", tail(&field.card.said()));
    println!("deployed over the air in {} ms", begin.elapsed().as_millis());
    let mut client = field.card.client("field");
    field.publish(&mut client, 5);
    assert_eq!(field.acknowledged, 5, "{}", tail(&field.card.said()));
    field.settle();
    // The seed, with its token and keys, is not on the FAT partition any more.
    let path = field.card.path();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    assert_eq!(holm_image::seed::read(&file, &path).unwrap(), None);
    for cut in 0..cuts() {
        let boots = field.card.said().matches("the node is ready").count();
        // In turn while messages come in and while a new version does, at another moment each time: a version takes its time.
        let longest = if cut % 2 == 0 { 2_400 } else { 3_600 };
        let moment = Duration::from_millis(50 + u64::from(cut / 2) * 1_097 % longest);
        let mut was_at = String::new();
        if cut % 2 == 0 {
            let mut client = field.card.client("field");
            let deadline = Instant::now() + moment;
            while Instant::now() < deadline {
                let next = field.acknowledged + 1;
                field.publish(&mut client, next);
            }
            // One is on its way when it happens.
            let number = field.acknowledged + 1;
            let (name, payload) = (format!("event-{number}"), format!("{{\"id\":\"{number}\"}}"));
            field.sent = number;
            client.publish("count/x", payload.as_bytes(), 1, number, false, Some(&name)).unwrap();
            field.card.cut();
        } else {
            let release = field.release();
            field.deploy(&release);
            std::thread::sleep(moment);
            let job = field.cloud.get("/v1/devices/pi3")["job"].clone();
            was_at = format!(" in {}", job["status"]).replace('"', "");
            field.card.cut();
        }
        field.card.boot();
        field.wait("it boots again", || (field.card.said().matches("the node is ready").count() > boots).then_some(()));
        println!("guest: the first event was handled {:.1} s after init began", field.first_event());
        field.connected();
        let phase = field.ended();
        field.settle();
        println!(
            "cut {cut} after {} ms{was_at}: {phase}, {} runs, {} acknowledged, none lost",
            moment.as_millis(),
            field.confirmed,
            field.acknowledged
        );
        // What is reported by now is not from before the cut.
        field.ended();
    }
    // The node itself is replaced, by the same way; what its card has of functions and results stays. One that dies is taken back.
    let replace = |field: &Field, agent: &Path, version: &str, code: i32| {
        field.laptop.ok(&field.cloud, &["publish", agent.to_str().unwrap()]);
        let what = format!("holmd@{version}");
        let words = ["deploy", &what, "--device", "pi3", "--health-window", "1s", "--watch", "--timeout", "15m"];
        let told = field.laptop.run(&field.cloud, &words);
        assert_eq!(told.status.code(), Some(code), "{told:?}\n{}", tail(&field.card.said()));
    };
    replace(&field, &card::dying_agent(folder.path(), "0.1.8"), "0.1.8", 4);
    assert_eq!(field.cloud.get("/v1/devices/pi3")["agent"]["version"], "0.1.0");
    println!("an agent that dies was taken back, over the air");
    let begin = Instant::now();
    replace(&field, &card::agent(folder.path(), "0.1.9"), "0.1.9", 0);
    field.wait("the new agent says so", || {
        (field.cloud.get("/v1/devices/pi3")["agent"]["version"] == "0.1.9").then_some(())
    });
    println!("another agent over the air in {} ms", begin.elapsed().as_millis());
    if card::has_lines() {
        field.press();
    }
    // Nobody takes its results any more: what it acknowledges now is on its card, and nowhere else.
    let stopped = Command::new("kill").args(["-STOP", &field.cloud.pid().to_string()]).status().unwrap();
    assert!(stopped.success());
    let mut client = field.card.client("last");
    let first = field.acknowledged + 1;
    field.publish(&mut client, first + 9);
    assert_eq!(field.acknowledged, first + 9, "{}", tail(&field.card.said()));
    field.card.cut();
    let mut command = Command::new(binary("holm"));
    let kept = folder.path().join("kept");
    command.args(["buffer", "open", "--out"]).arg(&kept).arg(&path).args(["export", "--stream", "result.counter.n"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let rows: Vec<Value> =
        String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let recorded: Vec<u16> = rows.iter().filter_map(|row| row["data"].as_str()?.parse().ok()).collect();
    // One whose function had not come to its end is in the inbox instead: a slow machine parks it, and acknowledges that.
    let parked = parked(&kept);
    let missing: Vec<u16> = (first..=field.acknowledged)
        .filter(|number| !recorded.contains(number) && !parked.contains(&format!("event-{number}")))
        .collect();
    assert!(missing.is_empty(), "{missing:?} are not on the card: {rows:?}, {parked:?}\n{said}");
    println!("read after the last cut: {} results, {} events in the inbox", rows.len(), parked.len());
}

#[test]
fn a_new_system_is_tried_and_kept_and_one_that_does_not_start_is_given_up() {
    if let Some(why) = card::missing() {
        return holm_tests::skip(&why);
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("holm.img");
    card::image(&image);
    let mut card = Card::mangled(folder.path(), &image);
    let says = |card: &Card, what: &str, times: usize| {
        let wait = patiently(what, || (card.said().matches(what).count() >= times).then_some(()));
        wait.unwrap_or_else(|error| panic!("{error}\n{}", tail(&card.said())));
    };
    card.update(&image);
    card.boot();
    says(&card, "restarting into slot b, once", 1);
    says(&card, "slot b is confirmed", 1);
    // A seed that cannot be read is said to be, and keeps nothing from running.
    says(&card, "seed_version", 1);
    says(&card, "the data partition has", 1);
    card.cut();
    card.boot();
    says(&card, "booting b/\n", 1);
    says(&card, "the node is ready", 2);
    card.cut();
    // The next one has a system that cannot be mounted.
    card.update(&image);
    let file = File::options().write(true).open(card.path()).unwrap();
    file.write_all_at(&[0; 4096], 129 << 20).unwrap();
    card.boot();
    says(&card, "the kernel does not mount system a", 3);
    says(&card, "the node is ready", 3);
    let said = card.said();
    assert_eq!(said.matches("restarting into slot a, once").count(), 3, "{}", tail(&said));
    assert_eq!(said.lines().rfind(|line| line.starts_with("booting")), Some("booting b/"));
    card.cut();
    // And one that starts, but its node dies.
    let unhealthy = folder.path().join("unhealthy.img");
    let agent = card::dying_agent(folder.path(), "0.1.8");
    card::image_with(&unhealthy, &agent, &["--console", "--healthy-within", "10s"]);
    card.update(&unhealthy);
    let before = card.said().len();
    card.boot();
    says(&card, "slot a did not become healthy: back to the other", 1);
    says(&card, "slot a is on trial", 5);
    let said = card.said();
    let boots: Vec<&str> = said[before..].lines().filter(|line| line.starts_with("booting")).collect();
    assert_eq!(boots[..3], ["booting b/", "booting a/, on trial", "booting b/"], "{}", tail(&said));
    card.cut();
}

#[test]
fn an_image_is_made_for_raspberry_pis_and_none_with_a_program_of_another_machine() {
    if let Some(why) = card::missing() {
        return holm_tests::skip(&why);
    }
    let folder = tempfile::tempdir().unwrap();
    for board in ["rpi3", "rpi4"] {
        let image = folder.path().join(board);
        let made: Value = serde_json::from_str(&card::image_for(board, &image)).unwrap();
        assert_eq!((&made["board"], &made["console"]), (&board.into(), &false.into()));
        let bytes = |part: &str| {
            let parts = made["parts"].as_array().unwrap().iter();
            parts.filter(|found| found["name"] == part).map(|found| found["bytes"].as_u64().unwrap()).sum::<u64>()
        };
        for part in ["kernel", "firmware of the board", "device trees", "initramfs", "system"] {
            assert!(bytes(part) > 0, "{board} has no {part}: {made}");
        }
        let output = Command::new(binary("holm")).args(["image", "show"]).arg(&image).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    // Programs of this machine are none for any of them.
    let mut command = Command::new(binary("holm"));
    command
        .args(["image", "build", "--board", "rpi4", "--holmd"])
        .arg(binary("holmd"))
        .arg("--init")
        .arg(binary("holmd"));
    let output = command.arg("--output").arg(folder.path().join("none.img")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("holmd is for another machine (ELF 62) than aarch64"), "{said}");
    assert!(!folder.path().join("none.img").exists());
}

#[test]
fn the_same_inputs_give_the_same_image() {
    if let Some(why) = card::missing() {
        return holm_tests::skip(&why);
    }
    let folder = tempfile::tempdir().unwrap();
    let made: Vec<String> = ["first.img", "second.img"].map(|name| card::image(&folder.path().join(name))).into();
    assert_eq!(made[0], made[1]);
    let manifest: Value = serde_json::from_str(&made[0]).unwrap();
    assert_eq!((&manifest["board"], &manifest["console"]), (&card::board().into(), &true.into()));
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    let image = read("first.img");
    assert!(image == read("second.img"));
    // The first of its systems, by its table. Whoever gets in finds no shell, and nothing that lets anybody in.
    let number = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap()) as usize * 512;
    let (begin, bytes) = (number(446 + 16 + 8), number(446 + 16 + 12));
    let system = folder.path().join("system");
    std::fs::write(&system, &image[begin..begin + bytes]).unwrap();
    let output = Command::new("unsquashfs").arg("-l").arg(&system).output().unwrap();
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let names: Vec<&str> = listed.lines().filter_map(|line| line.rsplit('/').next()).collect();
    assert!(output.status.success() && names.contains(&"holmd"), "{output:?}");
    for name in ["sh", "bash", "dash", "busybox", "sshd", "dropbear", "login", "agetty", "su", "sudo", "apt", "dpkg"] {
        assert!(!names.contains(&name), "{name} is in it:\n{listed}");
    }
    println!("a system of {} files and folders", names.len());
}
