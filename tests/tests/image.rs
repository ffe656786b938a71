//! A card from the first byte to the last result: made, flashed with a seed, booted in QEMU; it enrols, gets a function over the
//! air, and answers for what it acknowledged, whenever its power is cut.
//!
//! `HOLM_IMAGE_CUTS` says how often the power is cut; `cargo xtask evidence image-power` does it 50 times. QEMU is killed as it
//! stands: what the guest had in memory is gone, what it had given to the disk is not, so a disk that lies about its caches is
//! not what is tried here (`tests/tests/power.rs` does that to the store).

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use holm_tests::card::{self, Card, HOST, PATIENCE};
use holm_tests::control_plane::ControlPlane;
use holm_tests::functions::example;
use holm_tests::mqtt::{Client, Packet};
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
    /// Versions of the counter that were published.
    version: u32,
}

fn cuts() -> u32 {
    std::env::var("HOLM_IMAGE_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// Waits as long as an emulated machine may take.
fn patiently<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> Result<T, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if Instant::now() > deadline {
            return Err(format!("not within {} s: {what}", PATIENCE.as_secs()));
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
        Self { cloud, laptop, card, sent: 0, acknowledged: 0, version: 0 }
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

    fn runs(&self) -> Option<String> {
        let device = self.cloud.get("/v1/devices/pi3");
        Some(device.pointer("/reported/functions/0/version")?.as_str()?.to_owned())
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
    let words = ["deploy", &release, "--device", "pi3", "--watch", "--timeout", "200s", "--health-window", "1s"];
    let output = field.laptop.run(&field.cloud, &words);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.ends_with("confirmed\n"), "{output:?}\n{}", tail(&field.card.said()));
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
        // In turn while messages come in and while a new version does, at another moment each time.
        let moment = Duration::from_millis(50 + u64::from(cut / 2 * 397 % 2400));
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
            let before = field.runs();
            let release = field.release();
            field.laptop.ok(&field.cloud, &["deploy", &release, "--device", "pi3"]);
            std::thread::sleep(moment);
            field.card.cut();
            println!("cut {cut}: {before:?} before, {release} on its way");
        }
        field.card.boot();
        field.wait("it boots again", || (field.card.said().matches("the node is ready").count() > boots).then_some(()));
        field.connected();
        let version = field.wait("it says what it runs", || field.runs());
        let (old, new) = (format!("0.1.{}", field.version - u32::from(cut % 2 == 1)), format!("0.1.{}", field.version));
        assert!(version == old || version == new || cut % 2 == 0, "{version} is neither {old} nor {new}");
        field.settle();
        println!(
            "cut {cut} after {} ms: {version} runs, {} acknowledged, none lost",
            moment.as_millis(),
            field.acknowledged
        );
        if cut % 2 == 1 {
            let wanted = format!("0.1.{}", field.version);
            field.wait("the deployment goes on", || (field.runs()? == wanted).then_some(()));
        }
    }
    field.card.cut();
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
    assert_eq!((&manifest["board"], &manifest["console"]), (&"qemu-virt".into(), &true.into()));
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert!(read("first.img") == read("second.img"));
}
