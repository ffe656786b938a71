//! Deployments on a real node: exactly the old or the new version runs, never neither, whatever goes wrong.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holm_tests::eventually;
use holm_tests::functions::{self, Guest};
use holm_tests::mqtt::Client;
use holm_tests::node::{self, Node, Start};
use holm_tests::watcher::{Watcher, acknowledgement, publish, publish_all};
use serde_json::Value;

const QUICK: &str = "[functions]\nhealth_window = \"0ms\"\n";
const WATCHED: &str = "[functions]\nhealth_window = \"700ms\"\n";

/// A function that answers every event with its version's label.
fn teller(version: &str, label: &str) -> Guest {
    let limits = "memory = \"4MiB\"\nkv = \"8MiB\"";
    Guest::new("teller", "witness").on("ask").with("label", label).version(version).limits(limits)
}

/// The same function in a version that always traps; its events have attempts enough to outlive it.
fn broken(version: &str) -> Guest {
    let retry = "[retry]\nmax_attempts = 50\ninterval = \"100ms\"\nbackoff_rate = 1.0";
    Guest::new("teller", "panic").on("ask").version(version).more(retry)
}

fn function(node: &Node, name: &str) -> Option<Value> {
    let functions = node.admin.get("/v1/functions");
    functions["functions"].as_array().unwrap().iter().find(|function| function["name"] == name).cloned()
}

fn parked(node: &Node) -> u64 {
    node.admin.get("/v1/status")["inbox"]["parked"].as_u64().unwrap()
}

#[test]
fn a_new_version_takes_over_between_two_events_and_none_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: "[functions]\nhealth_window = \"200ms\"\n", ..Start::new(folder.path()) }.run();
    node.admin.deploy(&teller("1.0.0", "one").bundle());
    let mut watcher = Watcher::new(&node, "seen/teller");
    let (begun, stop, mut sent) = (AtomicBool::new(false), AtomicBool::new(false), 0_u32);
    let bundles = [teller("2.0.0", "two").bundle(), teller("3.0.0", "three").bundle()];
    let mut answers: Vec<Value> = Vec::new();
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let mut client = Client::connect(&node.mqtt, "publisher", true).unwrap();
            let mut answered = 0_u16;
            while !stop.load(Ordering::Relaxed) || sent < 400 {
                sent += 1;
                let id = u16::try_from(sent).unwrap();
                client.publish("ask", sent.to_string().as_bytes(), 1, id, false, None).unwrap();
                if id - answered > 16 {
                    answered += 1;
                    assert_eq!(acknowledgement(&mut client, answered), 0);
                }
                std::thread::sleep(Duration::from_micros(500));
            }
            while u32::from(answered) < sent {
                answered += 1;
                assert_eq!(acknowledgement(&mut client, answered), 0);
            }
            sent
        });
        let collector = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                answers.extend(watcher.next_within(Duration::from_millis(50)).map(|(_, report)| report));
                begun.store(!answers.is_empty(), Ordering::Relaxed);
            }
        });
        eventually("a first answer", || begun.load(Ordering::Relaxed).then_some(()));
        for bundle in &bundles {
            assert_eq!(node.admin.deploy(bundle)["outcome"], "confirmed");
        }
        stop.store(true, Ordering::Relaxed);
        collector.join().unwrap();
        publisher.join().unwrap();
    });
    while answers.len() < sent as usize {
        answers.push(watcher.next().1);
    }
    answers.extend(watcher.rest(Duration::from_millis(500)).into_iter().map(|(_, report)| report));
    let mut numbers: Vec<u32> =
        answers.iter().map(|report| report["data"].as_str().unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=sent).collect::<Vec<_>>(), "each event is answered, and once");
    assert!(answers.iter().all(|report| report["times"] == 1));
    let mut labels: Vec<&str> = answers.iter().map(|report| report["label"].as_str().unwrap()).collect();
    labels.dedup();
    assert_eq!(labels, ["one", "two", "three"], "one version after the other, never back and forth");
    node.stop();
}

#[test]
fn a_version_that_traps_is_rolled_back_and_its_events_run_on_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    // The long window below is cut short by nothing but faults, so the first version goes in under another.
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    node.admin.deploy(&teller("1.0.0", "one").bundle());
    node.stop();
    let node = Start { config: "[functions]\nhealth_window = \"1m\"\n", ..Start::new(folder.path()) }.run();
    let mut watcher = Watcher::new(&node, "seen/teller");
    let bundle = broken("2.0.0").bundle();
    let begin = Instant::now();
    let (status, report) = std::thread::scope(|scope| {
        let deployment = scope.spawn(|| node.admin.post("/v1/deploy", &bundle));
        eventually("the trial", || function(&node, "teller").filter(|found| found["version"] == "2.0.0"));
        publish_all(&node, "ask", (1..=20).map(|number| number.to_string()));
        deployment.join().unwrap()
    });
    assert!(begin.elapsed() < Duration::from_secs(50), "three faults are enough");
    assert_eq!((status, &report["outcome"]), (200, &Value::from("rolled-back")), "{report}");
    assert_eq!((&report["previous"], &report["version"]), (&Value::from("1.0.0"), &Value::from("2.0.0")), "{report}");
    assert!(report["reason"].as_str().unwrap().contains("trap"), "{report}");
    let mut numbers: Vec<u32> = (1..=20)
        .map(|_| {
            let (_, report) = watcher.next();
            assert_eq!((&report["label"], &report["times"]), (&Value::from("one"), &Value::from(1)), "{report}");
            report["data"].as_str().unwrap().parse().unwrap()
        })
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
    assert_eq!(function(&node, "teller").unwrap()["version"], "1.0.0");
    node.stop();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    assert_eq!(function(&node, "teller").unwrap()["version"], "1.0.0");
    node.stop();
}

#[test]
fn a_version_whose_test_of_itself_fails_is_rolled_back_though_no_event_came() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: WATCHED, ..Start::new(folder.path()) }.run();
    node.admin.deploy(&teller("1.0.0", "one").bundle());
    let tested = |guest: Guest| guest.trigger("lifecycle", "on = [\"deployed\"]").bundle();
    let (_, report) = node.admin.post("/v1/deploy", &tested(broken("2.0.0")));
    assert_eq!((&report["outcome"], &report["previous"]), (&"rolled-back".into(), &"1.0.0".into()), "{report}");
    assert_eq!(function(&node, "teller").unwrap()["version"], "1.0.0");
    let report = node.admin.deploy(&tested(teller("3.0.0", "three")));
    // What 2.0.0 was told may come again, as an event that failed does: then there are two.
    assert_eq!((&report["outcome"], report["invocations"] == 0), (&"confirmed".into(), false), "{report}");
    node.stop();
}

#[test]
fn a_first_deployment_that_traps_is_removed_and_its_events_wait_for_a_better_one() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: WATCHED, ..Start::new(folder.path()) }.run();
    let bundle = broken("1.0.0").bundle();
    let (_, report) = std::thread::scope(|scope| {
        let deployment = scope.spawn(|| node.admin.post("/v1/deploy", &bundle));
        eventually("the trial", || function(&node, "teller"));
        // More than can fail before the end of the trial is seen: some are still in memory then.
        publish_all(&node, "ask", (1..=300).map(|number| number.to_string()));
        deployment.join().unwrap()
    });
    assert_eq!((&report["outcome"], &report["previous"]), (&Value::from("rolled-back"), &Value::Null), "{report}");
    assert_eq!(function(&node, "teller"), None);
    // What came after the removal was nobody's.
    let accepted = node.admin.get("/v1/status")["events"]["accepted"].as_u64().unwrap();
    assert!(accepted > 50, "only {accepted} events came in time");
    assert_eq!(parked(&node), accepted);
    let mut watcher = Watcher::new(&node, "seen/teller");
    node.admin.deploy(&teller("1.0.1", "one").bundle());
    for _ in 0..accepted {
        let (_, report) = watcher.next();
        assert_eq!(report["times"], 1, "{report}");
    }
    assert_eq!(watcher.rest(Duration::from_millis(100)), []);
    eventually("an empty inbox", || (parked(&node) == 0).then_some(()));
    node.stop();
}

#[test]
fn a_version_is_confirmed_whether_or_not_an_event_came() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: WATCHED, ..Start::new(folder.path()) }.run();
    let report = node.admin.deploy(&teller("1.0.0", "one").bundle());
    assert_eq!((&report["outcome"], &report["invocations"]), (&Value::from("confirmed-unexercised"), &Value::from(0)));
    assert_eq!(function(&node, "teller").unwrap()["state"], "confirmed-unexercised");
    let bundle = teller("2.0.0", "two").bundle();
    let (_, report) = std::thread::scope(|scope| {
        let deployment = scope.spawn(|| node.admin.post("/v1/deploy", &bundle));
        eventually("the trial", || function(&node, "teller").filter(|found| found["state"] == "trial"));
        publish(&node, "ask", b"1");
        deployment.join().unwrap()
    });
    assert_eq!((&report["outcome"], &report["invocations"]), (&Value::from("confirmed"), &Value::from(1)));
    assert_eq!(function(&node, "teller").unwrap()["state"], "confirmed");
    // The same bundle again changes nothing for events.
    assert_eq!(node.admin.deploy(&bundle)["outcome"], "confirmed-unexercised");
    node.stop();
}

#[test]
fn a_node_that_is_killed_during_a_trial_comes_up_with_the_old_version() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    node.admin.deploy(&teller("1.0.0", "one").bundle());
    node.stop();
    let long = Start { config: "[functions]\nhealth_window = \"60s\"\n", ..Start::new(folder.path()) };
    let node = long.run();
    let mut watcher = Watcher::new(&node, "seen/teller");
    let socket = folder.path().join("admin.sock");
    let bundle = teller("2.0.0", "two").bundle();
    let deployment = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        let head = format!("POST /v1/deploy HTTP/1.1\r\nHost: holm\r\nContent-Length: {}\r\n\r\n", bundle.len());
        stream.write_all(&[head.as_bytes(), &bundle].concat()).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    });
    // That the list answers at all during a trial is part of the promise.
    eventually("the trial", || function(&node, "teller").filter(|found| found["state"] == "trial"));
    publish(&node, "ask", b"during");
    assert_eq!(watcher.next().1["label"], "two");
    node.kill();
    deployment.join().unwrap();
    let node = long.run();
    let found = function(&node, "teller").unwrap();
    assert_eq!((&found["version"], &found["state"]), (&Value::from("1.0.0"), &Value::from("confirmed-unexercised")));
    let mut watcher = Watcher::new(&node, "seen/teller");
    publish(&node, "ask", b"after");
    let (_, report) = watcher.next();
    assert_eq!((&report["label"], &report["data"]), (&Value::from("one"), &Value::from("after")));
    assert!(node::log(folder.path()).contains("during the trial"), "{}", node::log(folder.path()));
    node.kill();
}

#[test]
fn rollback_goes_one_step_back_and_forth() {
    let folder = tempfile::tempdir().unwrap();
    let start = Start { config: QUICK, ..Start::new(folder.path()) };
    let node = start.run();
    let (status, words) = node.admin.post("/v1/functions/teller/rollback", &[]);
    assert_eq!(status, 404, "{words}");
    assert!(words["error"].as_str().unwrap().contains("no version of teller"), "{words}");
    for (version, label) in [("1.0.0", "one"), ("2.0.0", "two")] {
        node.admin.deploy(&teller(version, label).bundle());
    }
    let mut watcher = Watcher::new(&node, "seen/teller");
    for (version, label) in [("1.0.0", "one"), ("2.0.0", "two"), ("1.0.0", "one")] {
        let (status, answer) = node.admin.post("/v1/functions/teller/rollback", &[]);
        assert_eq!((status, &answer["version"]), (200, &Value::from(version)), "{answer}");
        publish(&node, "ask", b"x");
        assert_eq!(watcher.next().1["label"], label);
    }
    node.kill();
    let node = start.run();
    assert_eq!(function(&node, "teller").unwrap()["version"], "1.0.0", "a rollback survives a kill");
    node.stop();
}

#[test]
fn events_of_a_removed_function_wait_and_do_not_stand_before_those_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let start = Start { config: QUICK, ..Start::new(folder.path()) };
    let node = start.run();
    let mut watcher = Watcher::new(&node, "seen/#");
    let slow = "memory = \"4MiB\"\ntimeout = \"2s\"";
    node.admin.deploy(&Guest::new("waiter", "slow").on("wait").with("ms", "150").limits(slow).bundle());
    publish_all(&node, "wait", (1..=300).map(|number| number.to_string()));
    assert_eq!(node.admin.request("DELETE", "/v1/functions/waiter", &[]).0, 200);
    assert_eq!(node.admin.request("DELETE", "/v1/functions/waiter", &[]).0, 404);
    let done = watcher.rest(Duration::from_millis(400)).len();
    assert!(done < 250, "{done} were done before the removal");
    assert_eq!(parked(&node) as usize + done, 300, "the rest wait");
    // Another function's retries come through all the same.
    let retry = "[retry]\nmax_attempts = 5\ninterval = \"50ms\"";
    node.admin.deploy(&Guest::new("other", "third-time").on("other").more(retry).bundle());
    publish(&node, "other", b"x");
    let (topic, report) = watcher.next();
    assert_eq!((topic.as_str(), &report["attempt"]), ("seen/other", &Value::from(3)));
    node.kill();
    let node = start.run();
    let mut watcher = Watcher::new(&node, "seen/waiter");
    assert_eq!(parked(&node) as usize + done, 300, "a kill changes nothing");
    node.admin.deploy(&Guest::new("waiter", "witness").on("wait").version("1.0.1").bundle());
    let mut numbers: Vec<u32> = (done..300)
        .map(|_| {
            let (_, report) = watcher.next();
            assert_eq!(report["times"], 1, "{report}");
            report["data"].as_str().unwrap().parse().unwrap()
        })
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 300 - done);
    node.stop();
}

#[test]
fn what_is_no_good_bundle_is_refused_in_clear_words() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    node.admin.deploy(&teller("1.0.0", "one").bundle());
    let good = teller("2.0.0", "two");
    let whole = good.bundle();
    let altered = |at: usize| {
        let mut bundle = whole.clone();
        bundle[at] ^= 0x10;
        bundle
    };
    let unknown =
        wat::parse_str(r#"(component (import "wasi:sockets/tcp@0.2.12" (instance)) (import "magic" (func)))"#);
    let big = good.clone().limits("memory = \"64MiB\"\nconcurrency = 8");
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("nothing", Vec::new(), &["bundle is refused"]),
        ("no bundle", b"hello, world, this is no bundle".to_vec(), &["bundle is refused"]),
        ("truncated", whole[..whole.len() / 2].to_vec(), &["truncated"]),
        ("one byte short", whole[..whole.len() - 1].to_vec(), &["truncated"]),
        ("altered at the front", altered(2), &["bundle is refused"]),
        ("altered inside", altered(whole.len() / 2), &["bundle is refused"]),
        ("altered at the end", altered(whole.len() - 2), &["bundle is refused"]),
        ("with more behind it", [&whole[..], b"more"].concat(), &["followed by other data"]),
        ("no WebAssembly", good.bundle_of(b"#!/bin/sh"), &["not WebAssembly"]),
        ("a core module", good.bundle_of(b"\0asm\x01\0\0\0"), &["core module", "wasm32-wasip2"]),
        ("unknown imports", good.bundle_of(&unknown.unwrap()), &["wasi:sockets/tcp@0.2.12", "magic"]),
        ("no handler", good.bundle_of(&wat::parse_str("(component)").unwrap()), &["exports none of"]),
        ("half a component", good.bundle_of(&functions::guests()[..5000]), &["not WebAssembly"]),
        ("too much memory", big.bundle(), &["536870912 bytes", "functions.memory"]),
        ("more than it is given", good.clone().limits("memory = \"64KiB\"").bundle(), &["cannot be loaded", "memory"]),
    ];
    for (what, bundle, words) in cases {
        let (status, answer) = node.admin.post("/v1/deploy", &bundle);
        assert!((400..500).contains(&status), "{what}: {status} {answer}");
        let text = answer["error"].as_str().unwrap_or_else(|| panic!("{what}: {answer}"));
        assert!(words.iter().all(|word| text.contains(word)), "{what}: {text}");
        assert!(text.len() < 600, "{what}: {text}");
    }
    let mut watcher = Watcher::new(&node, "seen/teller");
    publish(&node, "ask", b"x");
    assert_eq!(watcher.next().1["label"], "one", "the old version has not noticed");
    assert_eq!(function(&node, "teller").unwrap()["version"], "1.0.0");
    node.stop();
}

#[test]
fn unsigned_bundles_and_missing_compilers_are_refused_in_clear_words() {
    let bundle = teller("1.0.0", "one").bundle();
    for (config, expected, words) in [
        ("[functions]\nallow_unsigned = false\n", 403, "functions.allow_unsigned"),
        ("[functions]\ncompiler = \"/nowhere/holm-compile\"\n", 500, "cannot run the compiler /nowhere/holm-compile"),
        ("[functions]\ncompiler = \"/bin/false\"\n", 422, "cannot be compiled: exit status: 1"),
        ("[functions]\ncompiler = \"/bin/true\"\n", 500, "cannot read"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let node = Start { config, ..Start::new(folder.path()) }.run();
        let (status, answer) = node.admin.post("/v1/deploy", &bundle);
        assert_eq!(status, expected, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(words), "{answer}");
        assert_eq!(function(&node, "teller"), None);
        node.stop();
    }
}

#[test]
fn native_code_that_is_not_what_the_compiler_wrote_is_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let start = Start { config: QUICK, ..Start::new(folder.path()) };
    let node = start.run();
    node.admin.deploy(&teller("1.0.0", "one").bundle());
    node.stop();
    let native = native(folder.path());
    let whole = std::fs::read(&native).unwrap();
    let position = |wanted: &[u8]| whole.windows(wanted.len()).position(|found| found == wanted).unwrap();
    // The engine writes its full version into the file.
    let mut other_engine = whole.clone();
    other_engine[position(b"48.0.8")] = b'9';
    let mut worn = whole.clone();
    *worn.get_mut(whole.len() * 2 / 3).unwrap() ^= 1;
    for (what, bytes) in
        [("other engine", other_engine), ("worn", worn), ("cut", whole[..1000].to_vec()), ("empty", Vec::new())]
    {
        std::fs::remove_file(&native).unwrap();
        std::fs::write(&native, bytes).unwrap();
        let node = start.run();
        let mut watcher = Watcher::new(&node, "seen/teller");
        publish(&node, "ask", what.as_bytes());
        assert_eq!(watcher.next().1["data"], what);
        assert!(node::log(folder.path()).contains("compiled again"), "{what}: {}", node::log(folder.path()));
        assert_eq!(std::fs::read(&native).unwrap(), whole, "{what}");
        node.stop();
    }
}

#[test]
fn a_function_that_the_node_has_no_memory_for_any_more_is_left_out_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    node.admin.deploy(&teller("1.0.0", "one").bundle());
    node.admin.deploy(&Guest::new("large", "witness").on("large").limits("memory = \"16MiB\"").bundle());
    node.stop();
    let small = format!("{QUICK}memory = \"8MiB\"\n");
    let node = Start { config: &small, ..Start::new(folder.path()) }.run();
    let large = function(&node, "large").unwrap();
    assert_eq!(large["state"], "not-loaded", "{large}");
    assert!(large["last_fault"].as_str().unwrap().contains("functions.memory"), "{large}");
    let mut watcher = Watcher::new(&node, "seen/teller");
    publish(&node, "ask", b"x");
    assert_eq!(watcher.next().1["label"], "one", "the others run");
    node.stop();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    assert_eq!(function(&node, "large").unwrap()["last_fault"], Value::Null);
    node.stop();
}

#[test]
fn a_registry_that_cannot_be_read_is_set_aside_and_the_node_takes_deployments() {
    let folder = tempfile::tempdir().unwrap();
    let start = Start { config: QUICK, ..Start::new(folder.path()) };
    let node = start.run();
    node.admin.deploy(&teller("1.0.0", "one").bundle());
    node.stop();
    let opened = holm_store::OpenOptions::new(folder.path()).open().unwrap();
    let writer = std::thread::spawn(move || opened.writer.run());
    let damage = holm_store::Write::Registry { key: "active".into(), document: Some("{\"format\": 1".to_owned()) };
    opened.store.commit(vec![damage]).unwrap();
    opened.store.close();
    writer.join().unwrap();
    drop(opened.lock);
    let node = start.run();
    assert_eq!(function(&node, "teller"), None);
    assert!(node::log(folder.path()).contains("active-unreadable"), "{}", node::log(folder.path()));
    node.admin.deploy(&teller("2.0.0", "two").bundle());
    node.stop();
    let node = start.run();
    assert_eq!(function(&node, "teller").unwrap()["version"], "2.0.0");
    node.stop();
    let opened = holm_store::OpenOptions::new(folder.path()).open().unwrap();
    assert_eq!(opened.store.registry("active-unreadable").unwrap().as_deref(), Some("{\"format\": 1"));
}

fn native(data: &Path) -> std::path::PathBuf {
    let files = std::fs::read_dir(data.join("native")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|kind| kind == "cwasm")).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

#[test]
fn what_no_version_needs_any_more_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    let files = |kind: &str| std::fs::read_dir(folder.path().join(kind)).unwrap().count();
    for (version, kept) in [("1.0.0", 1), ("2.0.0", 2), ("3.0.0", 2), ("4.0.0", 2)] {
        node.admin.deploy(&teller(version, version).bundle());
        // They are all of one component: its code, and that code's sum.
        assert_eq!((files("bundles"), files("native")), (kept, 2), "after {version}");
    }
    // One that is refused before it runs leaves nothing either, and the one before the last can still come back.
    let cron = teller("5.0.0", "five").trigger("schedule", "cron = \"every day\"");
    let (status, report) = node.admin.post("/v1/deploy", &cron.bundle());
    assert!(status != 200 && report.to_string().contains("no cron expression"), "{status} {report}");
    assert_eq!(files("bundles"), 2);
    assert_eq!(node.admin.post("/v1/functions/teller/rollback", &[]).0, 200);
    assert_eq!(function(&node, "teller").unwrap()["version"], "3.0.0");
    assert_eq!(node.admin.request("DELETE", "/v1/functions/teller", &[]).0, 200);
    assert_eq!((files("bundles"), files("native")), (0, 0));
    node.stop();
}
