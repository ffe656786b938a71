//! Traps leave records, and `holm` runs them again on the laptop.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use holm_tests::control_plane::ControlPlane;
use holm_tests::functions::{Guest, repository};
use holm_tests::node::{Node, Start, binary};
use holm_tests::publisher::Publisher;
use holm_tests::{eventually, within};
use serde_json::Value;

const CONFIG: &str = "[node]\ndevice = \"pi1\"\n[functions]\nhealth_window = \"0ms\"\nquarantine_after = 0\n";

/// Runs `holm` with symbols of its own.
fn holm(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("holm"));
    command.args(arguments).current_dir(folder).env("NO_COLOR", "1").env("HOLM_SYMBOLS", folder.join("symbols"));
    command.env("HOLM_DATA", folder.join("data"));
    let output = command.output().unwrap();
    eprintln!("holm {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    output
}

fn text(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn good(folder: &Path, arguments: &[&str]) -> String {
    let (code, out, err) = text(&holm(folder, arguments));
    assert_eq!(code, Some(0), "{arguments:?}: {out}{err}");
    out
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&good(folder, arguments)).unwrap()
}

fn start(folder: &Path, config: &str) -> Node {
    Start { config, ..Start::new(&folder.join("data")) }.run()
}

/// A guest that traps once, with no second attempt.
fn moody() -> Guest {
    Guest::new("moody", "moody").on("moody/#").with("label", "x y").more("[retry]\nmax_attempts = 1")
}

fn invoke(node: &Node, function: &str, payload: &[u8]) {
    assert_eq!(node.admin.post(&format!("/v1/functions/{function}/invoke"), payload).0, 200);
}

/// The records of a function, newest first, when there are so many.
fn records(node: &Node, function: &str, count: usize) -> Vec<Value> {
    eventually("records of traps", || {
        let list = node.admin.get(&format!("/v1/traps?function={function}"));
        let traps = list["traps"].as_array().unwrap().clone();
        (traps.len() >= count).then_some(traps)
    })
}

fn id(record: &Value) -> &str {
    record["id"].as_str().unwrap()
}

#[test]
fn a_trap_that_depends_on_state_chance_and_time_is_replayed_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), CONFIG);
    node.admin.deploy(&moody().bundle());
    for payload in ["good", "good", "0"] {
        invoke(&node, "moody", payload.as_bytes());
    }
    let traps = records(&node, "moody", 1);
    assert_eq!(traps.len(), 1, "what ended well left nothing: {traps:?}");
    let id = id(&traps[0]);
    let shown = good(folder.path(), &["trap", "show", id]);
    for words in ["keyvalue.get n of moody -> 2", "label = x y", "config.get label -> x y", "pi1", "random.u64"] {
        assert!(shown.contains(words), "{words} is not in {shown}");
    }
    // The node goes on, and its state with it: a replay has that of then.
    invoke(&node, "moody", b"good");
    for _ in 0..2 {
        let again = json(folder.path(), &["trap", "show", id, "--replay", "--json"]);
        assert_eq!(again["same"], true, "{again}");
        assert_eq!((&again["replay"]["outcome"], &again["replay"]["unasked"]), (&"trap".into(), &0.into()));
        assert_eq!(again["replay"]["logs"], again["record"]["logs"]);
        assert!(again["record"]["logs"][0]["message"].as_str().unwrap().starts_with("3 "), "{again}");
    }
    let (code, out, _) = text(&holm(folder.path(), &["trap", "show", id, "--replay"]));
    assert_eq!(code, Some(0));
    assert!(out.contains("the same trap again") && out.contains("unreachable"), "{out}");
    assert!(out.contains("no files and lines"), "a component without symbols has none, and it says so: {out}");
    assert_eq!(node.admin.get("/v1/dlq")["dead_letters"].as_array().unwrap().len(), 1);
    // It is there after a restart, and after a kill.
    node.kill();
    let node = start(folder.path(), CONFIG);
    assert_eq!(records(&node, "moody", 1)[0]["id"].as_str(), Some(id));
    node.stop();
}

#[test]
fn every_kind_of_fault_is_replayed_and_what_a_handler_says_by_itself_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), CONFIG);
    for habit in ["loop", "memory", "sleep", "exit", "panic", "reject"] {
        let guest = Guest::new(habit, habit).more("[retry]\nmax_attempts = 1");
        node.admin.deploy(&guest.bundle());
        invoke(&node, habit, b"0");
    }
    for (habit, outcome) in
        [("loop", "timeout"), ("memory", "exhausted"), ("sleep", "timeout"), ("exit", "trap"), ("panic", "trap")]
    {
        let traps = records(&node, habit, 1);
        let again = json(folder.path(), &["trap", "show", id(&traps[0]), "--replay", "--json"]);
        assert_eq!((&again["same"], &again["record"]["outcome"]), (&true.into(), &outcome.into()), "{habit}: {again}");
    }
    assert_eq!(node.admin.get("/v1/traps?function=reject")["traps"], serde_json::json!([]));
    node.stop();
}

#[test]
fn records_are_bounded_and_say_what_they_lack() {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("{CONFIG}traps = \"64KiB\"\n");
    let node = start(folder.path(), &config);
    node.admin.deploy(&moody().limits("memory = \"4MiB\"\ntimeout = \"5s\"").bundle());
    // Three thousand answers have more than a record's part of them.
    for _ in 0..20 {
        invoke(&node, "moody", b"3000");
    }
    let list = eventually("the oldest to go, and the storm to be counted", || {
        let list = node.admin.get("/v1/traps");
        let kept = list["traps"].as_array().unwrap().len() as u64 + list["gone"].as_u64().unwrap();
        // All that were let through are there, or were.
        (kept + list["lost"]["moody"].as_u64().unwrap_or_default() >= 20).then_some(list)
    });
    assert!(list["bytes"].as_u64() <= list["limit"].as_u64(), "{list}");
    assert!(list["gone"].as_u64() > Some(0) && list["lost"]["moody"].as_u64() > Some(0), "{list}");
    let file = std::fs::read_dir(folder.path().join("data/traps")).unwrap();
    let bytes: u64 = file.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= 64 << 10, "{bytes}");
    let newest = id(&list["traps"][0]);
    assert!(list["traps"][0]["cut"][0].as_str().unwrap().contains("calls had no room"), "{list}");
    let (code, out, err) = text(&holm(folder.path(), &["trap", "show", newest, "--replay"]));
    assert_eq!(code, Some(1), "{out}");
    assert!(err.contains("calls were not kept") && err.contains("the record ends there"), "{err}");
    let (_, out, err) = text(&holm(folder.path(), &["trap", "list"]));
    assert!(out.contains("moody") && err.contains("left no record") && err.contains("older records went"), "{err}");
    // A payload that is larger than a record.
    let large = vec![b'x'; 100 << 10];
    let big = Guest::new("big", "trap").more("[retry]\nmax_attempts = 1");
    node.admin.deploy(&big.bundle());
    invoke(&node, "big", &large);
    let traps = records(&node, "big", 1);
    let (code, _, err) = text(&holm(folder.path(), &["trap", "show", id(&traps[0]), "--replay"]));
    assert_eq!(code, Some(1));
    assert!(err.contains("102400 bytes, of which 32768 were kept"), "{err}");
    node.stop();
}

#[test]
fn a_node_that_keeps_no_records_says_so_and_a_component_that_is_not_here_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), CONFIG);
    let guest = moody();
    let bundle = guest.bundle();
    node.admin.deploy(&bundle);
    invoke(&node, "moody", b"0");
    let traps = records(&node, "moody", 1);
    let id = id(&traps[0]).to_owned();
    // As on a laptop far from the node.
    let data = folder.path().join("data");
    for file in std::fs::read_dir(data.join("bundles")).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    let (code, _, err) = text(&holm(folder.path(), &["trap", "show", &id, "--replay"]));
    assert_eq!(code, Some(1));
    assert!(err.contains("is not on this machine") && err.contains("--component"), "{err}");
    std::fs::write(folder.path().join("moody.holm"), &bundle).unwrap();
    good(folder.path(), &["trap", "show", &id, "--replay", "--component", "moody.holm"]);
    let other = Guest::new("moody", "moody").bundle_of(holm_tests::functions::board_guests());
    std::fs::write(folder.path().join("other.holm"), other).unwrap();
    let (code, _, err) = text(&holm(folder.path(), &["trap", "show", &id, "--replay", "--component", "other.holm"]));
    assert_eq!(code, Some(1));
    assert!(err.contains("is not the component of moody 1.0.0"), "{err}");
    let (code, _, err) = text(&holm(folder.path(), &["trap", "show", "ffffffffffff"]));
    assert_eq!(code, Some(1));
    assert!(err.contains("there is no record of a trap"), "{err}");
    node.stop();

    let config = format!("{CONFIG}traps = \"0B\"\n");
    let node = start(folder.path(), &config);
    invoke(&node, "moody", b"0");
    eventually("the trap", || (node.admin.get("/v1/dlq")["dead_letters"].as_array().unwrap().len() > 1).then_some(()));
    assert_eq!(node.admin.get("/v1/traps")["traps"], serde_json::json!([]));
    node.stop();
}

/// A function of a template that panics, built by its author.
fn author(folder: &Path) -> PathBuf {
    good(folder, &["new", "heat", "-t", "mqtt-rust"]);
    let project = folder.join("heat");
    std::os::unix::fs::symlink(repository().join("functions/examples/target"), project.join("target")).unwrap();
    let source = std::fs::read_to_string(project.join("src/lib.rs")).unwrap();
    let change = "let threshold = config::number(\"threshold_c\")?.unwrap_or(30.0);";
    let source = source.replace(change, &format!("{change}\n    check(reading.celsius);"));
    let check = "\n#[inline(never)]\nfn check(celsius: f64) {\n    let seen = [1, 2, 3];\n    let _ = std::hint::black_box(seen[celsius as usize]);\n}\n";
    std::fs::write(project.join("src/lib.rs"), source + check).unwrap();
    project
}

#[test]
fn a_panic_leads_back_to_function_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), CONFIG);
    let project = author(folder.path());
    let built = json(folder.path(), &["build", "heat", "--json"]);
    assert_eq!((&built["remarks"], &built["over_budget"]), (&serde_json::json!([]), &false.into()), "{built}");
    let symbols = folder.path().join("symbols").join(format!("{}.wasm", built["component_digest"].as_str().unwrap()));
    let whole = std::fs::metadata(&symbols).unwrap().len();
    assert!(whole > built["component_bytes"].as_u64().unwrap(), "{whole}: the lines are not in the bundle");
    good(folder.path(), &["deploy", "--local", built["bundle"].as_str().unwrap()]);
    let payload = folder.path().join("event");
    std::fs::write(&payload, "[sensors/attic/temperature] {\"celsius\":7}\n").unwrap();
    let (code, _, _) = text(&holm(folder.path(), &["invoke", "heat", "--lines", "event"]));
    assert_eq!(code, Some(1));
    let traps = records(&node, "heat", 1);
    // The node has the names of the author's own functions, and does not fill its words with those of libraries.
    let words = node.admin.get("/v1/functions")["functions"][0]["last_fault"].as_str().unwrap().to_owned();
    assert!(words.contains("heat::check") && !words.contains("function "), "{words}");
    let (code, out, err) = text(&holm(folder.path(), &["trap", "show", id(&traps[0]), "--replay"]));
    assert_eq!(code, Some(0), "{out}{err}");
    let source = std::fs::read_to_string(project.join("src/lib.rs")).unwrap();
    let line = source.lines().position(|line| line.contains("black_box(seen[")).unwrap() + 1;
    let place = out.lines().find(|line| line.starts_with("at ")).unwrap_or_else(|| panic!("no place in {out}"));
    assert!(place.contains("check ") && place.contains(&format!("src/lib.rs:{line}")), "{place}, not {line}: {out}");
    assert!(out.contains("index out of bounds: the len is 3 but the index is 7"), "{out}");
    assert!(out.contains("  handle  "), "{out}");
    node.stop();
}

#[test]
fn a_new_version_is_held_against_what_the_old_one_did() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), &format!("{CONFIG}record = \"1MiB\"\n"));
    let limit = "let threshold = config::number(\"threshold_c\")?.unwrap_or(30.0);";
    good(folder.path(), &["new", "warm", "-t", "mqtt-rust"]);
    let project = folder.path().join("warm");
    std::os::unix::fs::symlink(repository().join("functions/examples/target"), project.join("target")).unwrap();
    let built = json(folder.path(), &["build", "warm", "--json"]);
    good(folder.path(), &["deploy", "--local", built["bundle"].as_str().unwrap()]);
    let events: String =
        [20, 31, 33, 25, 36].map(|celsius| format!("[sensors/a/temperature] {{\"celsius\":{celsius}}}\n")).concat();
    std::fs::write(folder.path().join("events"), events).unwrap();
    good(folder.path(), &["invoke", "warm", "--lines", "events"]);
    // The same again.
    let out = good(folder.path(), &["replay", "--since", "1h", "--function", "warm@0.1.0"]);
    assert!(out.contains("5 events of 0.1.0") && out.contains("5 the same, 0 differ, 0 not comparable"), "{out}");
    // It warns later: at 31 nothing, at 36 as before. What it would have stored at 31 is not there at 33, and 33 is below.
    let (manifest, source) = (project.join("holm.toml"), project.join("src/lib.rs"));
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("version = \"0.1.0\"", "version = \"0.2.0\"")).unwrap();
    let code = std::fs::read_to_string(&source).unwrap();
    assert!(code.contains(limit));
    std::fs::write(&source, code.replace(limit, &format!("{limit}\n    let threshold = threshold + 5.0;"))).unwrap();
    let out = good(folder.path(), &["replay", "--function", "warm"]);
    assert!(out.contains("warm 0.2.0 over 5 events") && out.contains("not comparable"), "{out}");
    assert!(out.contains("- publishes") && out.contains("alerts/a/temperature") && out.contains("- state"), "{out}");
    let lines = good(folder.path(), &["replay", "--function", "warm/warm-0.2.0.holm", "--json"]);
    let sum: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!((&sum["sum"]["events"], &sum["sum"]["not_comparable"]), (&5.into(), &0.into()), "{sum}");
    assert!(sum["sum"]["differ"].as_u64() >= Some(1), "{sum}");
    // One that asks for what the old one never asked.
    let asks = format!("{limit}\n    let _ = kv::own()?.get::<u64>(\"mean\")?;");
    std::fs::write(&source, code.replace(limit, &asks)).unwrap();
    let out = good(folder.path(), &["replay", "--function", "warm"]);
    assert!(out.contains("0 the same, 0 differ, 5 not comparable"), "{out}");
    assert!(out.contains("keyvalue.get mean of warm, which was not asked then and has gone"), "{out}");
    let (_, _, err) = text_of(folder.path(), &["replay", "--function", "warm@9.9.9"]);
    assert!(err.contains("there is no warm-9.9.9.holm here"), "{err}");
    // Nothing of it happened.
    assert_eq!(node.admin.get("/v1/functions")["functions"][0]["total"]["invocations"], 5);
    node.stop();
    let node = start(folder.path(), CONFIG);
    let (code, _, err) = text_of(folder.path(), &["replay", "--function", "warm"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("keeps no recordings") && err.contains("`record` in [functions]"), "{err}");
    node.stop();
}

fn text_of(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    text(&holm(folder, arguments))
}

#[test]
fn a_trap_on_a_device_of_the_fleet_comes_up_and_is_replayed_on_the_laptop() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let laptop = Publisher::new(folder.path());
    let data = folder.path().join("data");
    let mut command = Command::new(binary("holmd"));
    command.args(["enrol", "--cloud", &format!("https://{}", cloud.https), "--ca-hash", &cloud.ca_hash]);
    command.args(["--token", &cloud.enrolment_token("greenhouse"), "--thing", "pi3", "--data"]).arg(&data);
    assert!(command.status().unwrap().success());
    let node = start(folder.path(), &format!("{CONFIG}[cloud]\nkeep_alive = \"1s\"\nack_timeout = \"2s\"\n"));
    eventually("it is connected", || cloud.get("/v1/devices/pi3")["connected"].as_bool().filter(|it| *it));
    let bundle = moody().bundle();
    node.admin.deploy(&bundle);
    for payload in ["good", "0"] {
        invoke(&node, "moody", payload.as_bytes());
    }
    // The lane of logs goes up once a minute.
    let there = within(Duration::from_secs(180), "the record to come up", || {
        let listed: Value =
            serde_json::from_str(&laptop.ok(&cloud, &["trap", "list", "--cloud", "--device", "pi3", "--json"]))
                .unwrap();
        listed["traps"].as_array().unwrap().first().cloned()
    });
    assert_eq!(
        (&there["device"], &there["function"], &there["outcome"]),
        (&"pi3".into(), &"moody".into(), &"trap".into())
    );
    let here = records(&node, "moody", 1);
    assert_eq!(there["id"], here[0]["id"]);
    let listed = laptop.ok(&cloud, &["trap", "list", "--cloud"]);
    assert!(listed.contains("DEVICE") && listed.contains("pi3"), "{listed}");
    // The device has gone, and the laptop has the bundle.
    node.stop();
    let (id, file) = (id(&there), laptop.bundle("moody.holm", &bundle));
    let shown = laptop.ok(&cloud, &["trap", "show", id, "--cloud"]);
    assert!(shown.contains("pi3") && shown.contains("keyvalue.get n of moody -> 1"), "{shown}");
    let words = ["trap", "show", id, "--cloud", "--replay", "--component", &file, "--json"];
    let again: Value = serde_json::from_str(&laptop.ok(&cloud, &words)).unwrap();
    assert_eq!(again["same"], true, "{again}");
    assert_eq!(again["replay"]["logs"], again["record"]["logs"]);
    let none = laptop.ok(&cloud, &["trap", "list", "--cloud", "--function", "other", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&none).unwrap()["traps"], serde_json::json!([]));
    let words = laptop.fails(&cloud, 1, &["trap", "show", "ffff", "--cloud"]);
    assert!(words.contains("there is no record of a trap ffff"), "{words}");
    cloud.stop();
}

#[test]
fn a_function_that_is_invoked_leaves_a_record_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), CONFIG);
    node.admin.deploy(&moody().bundle());
    let caller = Guest::new("caller", "invoke-to")
        .with("to", "moody")
        .permissions("publish = [\"seen/#\"]\nkv = [\"rw:self\"]\ninvoke = [\"moody\"]")
        .more("[retry]\nmax_attempts = 1");
    node.admin.deploy(&caller.bundle());
    invoke(&node, "caller", b"0");
    let traps = records(&node, "moody", 1);
    let again = json(folder.path(), &["trap", "show", id(&traps[0]), "--replay", "--json"]);
    assert_eq!(again["same"], true, "{again}");
    within(Duration::from_secs(20), "the caller's end", || {
        let events = good(folder.path(), &["events", "--function", "caller"]);
        (!events.is_empty()).then_some(())
    });
    node.stop();
}
