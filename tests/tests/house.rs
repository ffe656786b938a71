//! A node among its neighbours on the machine: service manager, other people's MQTT tools, and `holm` at its socket.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use holm_tests::eventually;
use holm_tests::functions::{self, Guest, repository};
use holm_tests::mqtt::{Client, Packet};
use holm_tests::node::{Node, Start, binary};

const QUICK: &str = "[functions]\nhealth_window = \"0ms\"\n";

/// The port that it listens at.
fn port(node: &Node) -> &str {
    node.mqtt.rsplit(':').next().unwrap()
}

fn holm(data: &Path, words: &[&str]) -> Output {
    let output = Command::new(binary("holm")).arg("--data").arg(data).args(words).output().unwrap();
    assert!(output.status.success(), "holm {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// What it says with `--json`: an object a line.
fn json(data: &Path, words: &[&str]) -> Vec<serde_json::Value> {
    let output = holm(data, words);
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::Deserializer::from_str(&text).into_iter().map(|value| value.expect(&text)).collect()
}

#[test]
fn the_service_manager_hears_that_the_node_is_ready_alive_and_ending() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let under: Vec<String> =
        ["env".to_owned(), format!("NOTIFY_SOCKET={}", path.display()), "WATCHDOG_USEC=400000".to_owned()].into();
    let data = folder.path().join("data");
    let node = Start { under: &under, ..Start::new(&data) }.run();
    let said = || {
        let mut message = [0; 512];
        let length = socket.recv(&mut message).expect("a word from the node");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    assert!(said().lines().any(|line| line == "READY=1"));
    for _ in 0..3 {
        assert!(said().lines().any(|line| line == "WATCHDOG=1"));
    }
    let end = std::thread::spawn(move || node.stop());
    eventually("it says that it ends", || said().lines().any(|line| line == "STOPPING=1").then_some(()));
    end.join().unwrap();
}

#[test]
fn the_clients_of_mosquitto_take_part() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    node.admin.deploy(&functions::example("counter", |text| text));
    let port = port(&node);
    for version in ["mqttv311", "mqttv5"] {
        let topic = format!("counted/{version}");
        let subscriber = Command::new("mosquitto_sub")
            .args(["-p", port, "-V", version, "-t", &topic, "-q", "1", "-C", "1", "-W", "60", "-v"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        eventually("it has subscribed", || {
            (node.admin.get("/v1/status")["broker"]["clients"].as_u64() >= Some(1)).then_some(())
        });
        // A subscription is a moment later than its connection: what it misses is sent again.
        let stop = std::sync::atomic::AtomicBool::new(false);
        let heard = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut number = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    number += 1;
                    let (on, payload) = (format!("count/{version}"), format!(r#"{{"id":"{version}-{number}"}}"#));
                    let sent = Command::new("mosquitto_pub")
                        .args(["-p", port, "-V", version, "-t", &on, "-q", "1", "-m", &payload])
                        .status()
                        .unwrap();
                    assert!(sent.success());
                }
            });
            let output = subscriber.wait_with_output().unwrap();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            String::from_utf8(output.stdout).unwrap()
        });
        assert!(heard.starts_with(&format!("{topic} {{\"n\":")), "{heard}");
    }
    node.stop();
}

#[test]
fn what_waits_and_what_failed_can_be_looked_at_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let node = Start { config: QUICK, ..Start::new(data) }.run();
    node.admin.deploy(&functions::example("counter", |text| text));
    node.admin.deploy(&Guest::new("poison", "reject").on("poison").bundle());
    let mut client = Client::connect(&node.mqtt, "pub", true).unwrap();
    for (number, topic) in [(1, "count/x"), (2, "poison")] {
        client.publish(topic, br#"{"id":"1"}"#, 1, number, false, None).unwrap();
        assert_eq!(client.receive().unwrap(), Packet::Ack(4, number, 0));
    }
    let stat = &json(data, &["buffer", "stat", "--json"])[0];
    assert!(stat["lanes"].as_array().is_some_and(|lanes| !lanes.is_empty()), "{stat}");
    let said = String::from_utf8(holm(data, &["buffer", "stat"]).stdout).unwrap();
    assert!(said.contains(&format!("epoch {}", stat["epoch"].as_str().unwrap())), "{said}");
    let peeked = json(data, &["buffer", "peek", "--json"]);
    let exported = json(data, &["buffer", "export", "--json"]);
    assert_eq!((peeked.len(), &peeked), (exported.len(), &exported));
    assert!(!exported.is_empty());
    let file = data.join("export.ndjson");
    holm(data, &["buffer", "export", "-o", file.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), exported.len());

    let letters = || json(data, &["dlq", "list", "--json"]).pop().unwrap()["dead_letters"].as_array().unwrap().clone();
    let id = |letters: &[serde_json::Value]| letters[0]["id"].to_string();
    let first = id(&eventually("it is given up", || Some(letters()).filter(|letters| letters.len() == 1)));
    let shown = &json(data, &["dlq", "show", &first, "--json"])[0];
    assert_eq!(shown["function"], "poison", "{shown}");
    holm(data, &["dlq", "replay", &first]);
    let again = |letters: &Vec<serde_json::Value>| letters.len() == 1 && id(letters) != first;
    let second = id(&eventually("it is given up again", || Some(letters()).filter(again)));
    holm(data, &["dlq", "drop", &second]);
    assert!(letters().is_empty());
    node.stop();
}

#[test]
fn an_event_that_is_handed_over_is_waited_for_until_it_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    node.admin.deploy(&Guest::new("slow", "drowsy").with("ms", "1500").limits("timeout = \"20s\"").bundle());
    std::fs::write(folder.path().join("event"), "sleep").unwrap();
    let file = folder.path().join("event");
    let ended = json(folder.path(), &["invoke", "slow", file.to_str().unwrap(), "--json"]);
    assert_eq!(ended[0]["outcome"], "ok", "{ended:?}");
    node.stop();
}

#[test]
fn the_losses_of_water_are_found_by_a_node() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    node.admin.deploy(&functions::example("water-loss", |text| text));
    let csv = repository().join("tests/data/water-flow.csv");
    let feed = Command::new(binary("holm-feed"))
        .args(["--mqtt", &node.mqtt, "--passes", "1", "--rate", "2000", "--csv"])
        .arg(csv)
        .output()
        .unwrap();
    let said = String::from_utf8(feed.stdout).unwrap();
    assert!(feed.status.success(), "{said}{}", String::from_utf8_lossy(&feed.stderr));
    let report: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    for kind in ["losses", "peaks", "gaps"] {
        let score = &report[kind];
        assert_eq!((&score["recall"], &score["precision"]), (&1.0.into(), &1.0.into()), "{kind}: {report}");
    }
    assert_eq!((&report["losses"]["known"], &report["gaps"]["known"]), (&3.into(), &10.into()), "{report}");
    node.stop();
}
