//! Every example of the gallery, from its cases to an event on a node.

use std::path::Path;

use holm_tests::command::good;
use holm_tests::functions::{example, repository};
use holm_tests::node::Start;
use holm_tests::watcher::{Watcher, publish};
use serde_json::Value;

/// A node that has what the examples ask for.
const NODE: &str = "[functions]\nhealth_window = \"0ms\"\n[[folder]]\nname = \"camera\"\npath = \"camera\"\n\
                    [board]\nprofile = \"host-sim\"\n[[gpio]]\nname = \"door\"\nline = \"GPIO17\"\ndirection = \"in\"\n";

/// The gallery: examples with cases of their own. The others are what other tests measure and break.
fn gallery() -> Vec<String> {
    let folder = repository().join("functions/examples");
    let named = |entry: std::fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut names: Vec<String> = std::fs::read_dir(&folder).unwrap().map(|entry| named(entry.unwrap())).collect();
    names.retain(|name| folder.join(name).join("tests/cases.toml").is_file());
    names.sort();
    names
}

/// What an example is handed on a node: the arguments of `holm invoke`, and what is on its stdin.
fn event(name: &str, folder: &Path) -> (Vec<String>, Vec<u8>) {
    let lines = |text: &str| (vec!["--lines".to_owned(), "-".to_owned()], text.as_bytes().to_vec());
    let file = |name: &str| (vec!["-".to_owned()], std::fs::read(folder.join("tests").join(name)).unwrap());
    match name {
        "chain-clean" => lines("12,50\n"),
        "chain-total" => lines("{\"cents\":1}\n"),
        "dsmr-p1" => file("telegram.txt"),
        "hysteresis" => lines("[sensors/a/value] 20\n[sensors/a/value] 1\n"),
        "left-open" => lines("{\"number\":1,\"told\":false}\n"),
        "modbus-rtu" => (vec!["-".to_owned()], b"\x11\x03\x06\xae\x41\x56\x52\x43\x40\x49\xad".to_vec()),
        "one-schema" => lines("[zigbee2mqtt/attic] {\"temperature\":27.34}\n"),
        "remap" => lines("[station/roof/report] {\"tempf\":70}\n"),
        "smooth" => lines("[sensors/a/raw] 20\n"),
        "thumbnail" => file("picture.jpg"),
        "water-loss" => lines("{\"time\":\"2022-03-24T09:00:00+01:00\",\"flow\":51.53}\n"),
        other => panic!("{other} is in the gallery: say here what it is handed"),
    }
}

#[test]
fn every_example_is_tested_built_deployed_and_invoked() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    let node = Start { config: NODE, ..Start::new(&data) }.run();
    let data = data.to_str().unwrap();
    let gallery = gallery();
    assert!(gallery.len() >= 10, "{gallery:?}");
    for name in gallery {
        let folder = repository().join("functions/examples").join(&name);
        let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
        assert!(readme.contains("oracle") || readme.contains("chain-clean"), "{name}: what is it held against?");
        let tested: Value = serde_json::from_str(&good(&folder, &["test", "--json"])).unwrap();
        assert_eq!((&tested["failed"], tested["passed"].as_u64() >= Some(1)), (&0.into(), true), "{tested}");
        let output = temporary.path().join(format!("{name}.holm"));
        let output = output.to_str().unwrap();
        let built: Value = serde_json::from_str(&good(&folder, &["build", "--json", "-o", output])).unwrap();
        assert_eq!((&built["over_budget"], &built["remarks"]), (&false.into(), &serde_json::json!([])), "{built}");
        println!("{name}: {} bytes", built["component_bytes"]);
        good(&folder, &["--data", data, "deploy", "--local", output]);
        let (arguments, input) = event(&name, &folder);
        let handed = temporary.path().join("event");
        std::fs::write(&handed, input).unwrap();
        let mut words = vec!["--data", data, "invoke", &*name];
        words.extend(arguments.iter().map(|word| if word == "-" { handed.to_str().unwrap() } else { word.as_str() }));
        let answer = good(&folder, &words);
        assert!(answer.contains("ok"), "{name}: {answer}");
    }
    node.stop();
}

#[test]
fn a_dead_letter_goes_down_the_chain_once_its_function_knows_better() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    let node = Start { config: NODE, ..Start::new(&data) }.run();
    let (here, data) = (temporary.path(), data.to_str().unwrap());
    // The first release knew the point only.
    let first = |text: String| text.replace("0.2.0", "0.1.0").replace("default = \".,\"", "default = \".\"");
    node.admin.deploy(&example("chain-total", |manifest| manifest));
    node.admin.deploy(&example("chain-clean", first));
    let mut totals = Watcher::new(&node, "till/total");
    publish(&node, "till/amount", b"10.00");
    assert_eq!(totals.next().1, serde_json::json!({ "cents": 1000 }));
    publish(&node, "till/amount", b"12,50");
    let letters = holm_tests::eventually("the comma is a dead letter", || {
        let letters: Value = serde_json::from_str(&good(here, &["--data", data, "dlq", "list", "--json"])).unwrap();
        letters["dead_letters"].as_array().filter(|letters| !letters.is_empty()).cloned()
    });
    assert_eq!((letters.len(), &letters[0]["function"]), (1, &"chain-clean".into()), "{letters:?}");
    node.admin.deploy(&example("chain-clean", |manifest| manifest));
    good(here, &["--data", data, "dlq", "replay", &letters[0]["id"].to_string()]);
    assert_eq!(totals.next().1, serde_json::json!({ "cents": 2250 }));
    let left = good(here, &["--data", data, "dlq", "list", "--json"]);
    let left: Value = serde_json::from_str(&left).unwrap();
    assert_eq!(left["dead_letters"], serde_json::json!([]));
    node.stop();
}
