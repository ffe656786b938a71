//! The buffer of a node that does not run any more, from its card: `holm buffer open`, without a mount and without root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use holm_tests::functions;
use holm_tests::mqtt::{Client, Packet};
use holm_tests::node::{Node, Start, binary};
use serde_json::Value;

const QUICK: &str = "[functions]\nhealth_window = \"0ms\"\n";

/// How many events the node has counted.
const EVENTS: u16 = 40;

/// A node that has counted and is dead, and what it had for the cloud.
struct Dead {
    folder: tempfile::TempDir,
    rows: Vec<Value>,
    epoch: Value,
}

impl Dead {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let node: Node = Start { config: QUICK, ..Start::new(&data) }.run();
        node.admin.deploy(&functions::example("counter", |text| text));
        let mut client = Client::connect(&node.mqtt, "pub", true).unwrap();
        for number in 1..=EVENTS {
            client.publish("count/x", format!("{{\"id\":\"{number}\"}}").as_bytes(), 1, number, false, None).unwrap();
            assert_eq!(client.receive().unwrap(), Packet::Ack(4, number, 0));
        }
        let rows = node.admin.get("/v1/buffer/rows?limit=1000")["rows"].as_array().unwrap().clone();
        assert!(rows.len() >= EVENTS.into());
        let epoch = node.admin.get("/v1/buffer")["epoch"].clone();
        node.kill();
        Self { folder, rows, epoch }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A card with the data folder in its second partition, where Debian has it.
    fn card(&self) -> PathBuf {
        let (root, ext4) = (self.folder.path().join("root"), self.folder.path().join("ext4"));
        let place = root.join("var/lib/holm");
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        run(Command::new("cp").arg("-a").arg(self.data()).arg(&place));
        // Sockets do not go into a file system that is made of a folder.
        let _ = fs::remove_file(place.join("admin.sock"));
        fs::File::create(&ext4).unwrap().set_len(64 << 20).unwrap();
        let mut make = Command::new("mke2fs");
        make.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").args(["-q", "-F", "-t", "ext4", "-d"]).arg(&root).arg(&ext4);
        run(&mut make);
        let mut table = vec![0; 1 << 20];
        // One entry: Linux, from a mebibyte on.
        table[0x1be + 16 + 4] = 0x83;
        table[0x1be + 16 + 8..][..4].copy_from_slice(&2048_u32.to_le_bytes());
        table[0x1be + 16 + 12..][..4].copy_from_slice(&((64 << 20) / 512_u32).to_le_bytes());
        table[510..512].copy_from_slice(&[0x55, 0xaa]);
        let card = self.folder.path().join("card.img");
        table.extend(fs::read(ext4).unwrap());
        fs::write(&card, table).unwrap();
        card
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("kept")
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn open(card: &Path, words: &[&str]) -> Output {
    Command::new(binary("holm")).args(["buffer", "open"]).arg(card).args(words).env("NO_COLOR", "1").output().unwrap()
}

/// What it says on stdout and on stderr.
fn said(card: &Path, words: &[&str]) -> (String, String) {
    let output = open(card, words);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{words:?}: {err}");
    (out, err)
}

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_a_dead_node_had_for_the_cloud_is_read_from_its_card() {
    let dead = Dead::new();
    let card = dead.card();
    let before = fs::read(&card).unwrap();
    let (out, err) = said(&card, &["export"]);
    assert_eq!(rows(&out), dead.rows);
    assert!(err.starts_with("found in partition 2, /var/lib/holm: holm.db ("), "{err}");
    let (out, _) = said(&card, &["peek", "-n", "3", "--json"]);
    assert_eq!(rows(&out), dead.rows[..3]);
    let (out, err) = said(&card, &[]);
    assert!(out.contains("\nresults") && out.contains("0 events wait for functions, and 0 were given up\n"), "{out}");
    assert!(err.contains("next:  holm buffer open"), "{err}");
    let kept = dead.out();
    let (out, err) = said(&card, &["--json", "--out", kept.to_str().unwrap()]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&answer["epoch"], &answer["found"]["partition"]), (&dead.epoch, &2.into()));
    assert_eq!((&answer["recovery"], err.as_str()), (&Value::Null, ""));
    assert!(fs::read(&card).unwrap() == before, "the card is only read");
    // What was kept is what was on the card, and can be opened as often as anybody likes.
    let pieces = || {
        let mut names: Vec<_> = fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect::<Vec<_>>()
    };
    let first = pieces();
    assert!(first.iter().all(|(path, bytes)| *bytes == fs::read(dead.data().join(path.file_name().unwrap())).unwrap()));
    assert_eq!(rows(&said(&kept, &["export"]).0), dead.rows);
    assert!(pieces() == first);
    // So can the data folder itself, while no node has it.
    let file = dead.folder.path().join("rows.ndjson");
    said(&dead.data(), &["export", "--output", file.to_str().unwrap()]);
    assert_eq!(rows(&fs::read_to_string(file).unwrap()), dead.rows);
    let data = dead.data();
    let node = Start { config: QUICK, ..Start::new(&data) }.run();
    let refused = open(&data, &[]);
    let words = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && words.contains("a node runs in"), "{words}");
    node.stop();
}

#[test]
fn what_can_be_read_of_a_damaged_database_is_shown_and_that_it_was_damaged() {
    let dead = Dead::new();
    let data = dead.data();
    // So that it is all in the database, and not in its log.
    Start { config: QUICK, ..Start::new(&data) }.run().stop();
    let path = data.join("holm.db");
    let mut bytes = fs::read(&path).unwrap();
    // A page in the middle, of which nothing can be said but that it is not what it was.
    let middle = bytes.len() / 4096 / 2 * 4096;
    bytes[middle..middle + 4096].fill(0x5a);
    fs::write(&path, &bytes).unwrap();
    let card = dead.card();
    let (out, err) = said(&card, &["--json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert!(answer["recovery"]["rows_saved"].as_u64() > Some(0), "{answer}");
    assert!(err.contains("warning: the database is damaged"), "{err}");
    assert!(fs::read(&path).unwrap() == bytes, "what was damaged is as it was");
    // One of a later release is left to that.
    let database = data.join("holm.db");
    fs::write(&database, {
        let mut later = bytes.clone();
        later[middle..middle + 4096].fill(0);
        later[60..64].copy_from_slice(&2000_u32.to_be_bytes());
        later
    })
    .unwrap();
    let refused = open(&data, &[]);
    let words = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && words.contains("or a later one"), "{words}");
}
