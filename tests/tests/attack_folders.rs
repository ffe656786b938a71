//! Repositories that python-tuf made, each good at first and hostile then, before a device: the real `holmd`, and a control plane that serves
//! the folder. What each verdict is, `cloud-sync/trust/tests/tuf/make.py` says; that the client comes to it alone, its own tests.

use std::path::{Path, PathBuf};

use holm_tests::cloud::{World, runs};
use holm_tests::functions::repository;
use serde_json::Value;

/// At least one for each reason that an operator may be told.
const FOLDERS: [&str; 16] = [
    "wrong-signature-targets",
    "wrong-signature-timestamp",
    "too-few-root",
    "too-few-targets",
    "unknown-key",
    "another-roles-key",
    "revoked-timestamp-key",
    "rotation-by-new-keys-only",
    "endless-root",
    "endless-timestamp",
    "endless-targets",
    "mixed-snapshot-version",
    "mixed-targets-hash",
    "older-root",
    "targets-gone",
    "one-signature-twice",
];

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Serves the metadata of a run over what was there before.
fn serve(world: &World, folder: &Path, run: &Value) {
    let mut desk = world.plane.https.desk();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_file() {
            desk.files.insert(format!("/tuf/metadata/{name}"), std::fs::read(&path).unwrap());
        }
    }
    for name in run["without"].as_array().into_iter().flatten() {
        desk.files.remove(&format!("/tuf/metadata/{}", name.as_str().unwrap()));
    }
    for (name, pad) in run["pad"].as_object().into_iter().flatten() {
        let bytes = desk.files.get_mut(&format!("/tuf/metadata/{name}")).unwrap();
        bytes.resize(bytes.len() + usize::try_from(pad.as_u64().unwrap()).unwrap(), b' ');
    }
}

/// What the device says of a folder, run by run.
fn verdicts(folder: &Path) -> Vec<(String, String)> {
    let mut world = World::new();
    {
        let mut desk = world.plane.https.desk();
        desk.files.clear();
        desk.root_json = json(&folder.join("root.json"));
    }
    let document = world.repository.document(&world.repository.desired(1, 0, Vec::new()));
    let mut node = None;
    let mut said = Vec::new();
    for (at, run) in json(&folder.join("case.json"))["runs"].as_array().unwrap().iter().enumerate() {
        serve(&world, &folder.join((at + 1).to_string()), run);
        let node = node.get_or_insert_with(|| world.start());
        let job = world.send(&document);
        let (status, details) = world.end_of(&job);
        assert!(details["message"].as_str().unwrap().len() > 10, "{details}");
        assert!(runs(node).is_empty() && status != "SUCCEEDED", "{status} {details}");
        said.push((run["expect"].as_str().unwrap().to_owned(), details["reason"].as_str().unwrap().to_owned()));
    }
    node.unwrap().stop();
    said
}

#[test]
fn a_device_refuses_each_repository_with_its_reason() {
    let folders: PathBuf = repository().join("cloud-sync/trust/tests/tuf");
    for name in FOLDERS {
        for (at, (expected, said)) in verdicts(&folders.join(name)).into_iter().enumerate() {
            match expected.as_str() {
                // Good metadata; only that nobody whom it knows has signed what the device shall run.
                "ok" => assert_eq!(said, "unknown-target", "{name}, run {}", at + 1),
                _ => assert_eq!(said, expected, "{name}, run {}", at + 1),
            }
        }
    }
}
