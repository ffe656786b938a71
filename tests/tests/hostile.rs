//! Functions that misbehave on a real node, beside a neighbour that works all the time and must not notice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holm_tests::eventually;
use holm_tests::functions::{self, Guest};
use holm_tests::mqtt::Client;
use holm_tests::node::{Node, Start};
use holm_tests::watcher::{Watcher, acknowledgement, publish, publish_all};
use serde_json::Value;

const QUICK: &str = "[functions]\nhealth_window = \"0ms\"\n";

/// Invocations of a function that invokes itself: the first, and those that the node allows below it.
const DEPTHS: usize = 5;

/// Events for each bad habit.
const TIMES: usize = 2;

/// What all bad habits together may add to the node's memory at its largest moment, in KiB: the pages of their native code
/// and of a debug build's own that had not been read before, and what they hold at a time.
const GROWTH: u64 = 48 << 10;

/// What each habit comes to, as the operator sees it.
const HABITS: [(&str, &str); 32] = [
    ("loop", "timeout"),
    ("recurse", "trap"),
    ("memory", "exhausted"),
    ("publish-storm", "ok"),
    ("publish-forever", "timeout"),
    ("publish-huge", "ok"),
    ("publish-denied", "ok"),
    ("publish-wildcard", "ok"),
    ("publish-then-trap", "trap"),
    ("publish-then-retry", "retry"),
    ("reject", "reject"),
    ("kv-flood", "ok"),
    // Eight thousand reads of the database take their time in a debug build.
    ("kv-many", "ok|timeout"),
    ("kv-denied", "ok"),
    ("handle-leak", "exhausted"),
    ("log-flood", "ok"),
    ("print-forever", "timeout"),
    ("host-calls", "timeout"),
    ("trap", "trap"),
    ("exit", "trap"),
    ("panic", "trap"),
    ("huge-result", "exhausted"),
    ("sleep", "timeout"),
    ("environment", "ok"),
    ("random", "ok"),
    ("result-unknown", "ok"),
    ("result-nan", "ok"),
    ("invoke-denied", "ok"),
    ("invoke-itself", "retry"),
    ("everything-much", "ok"),
    ("no-such-habit", "reject"),
    ("relay", "reject"),
];

fn memory(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid)).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn loops(node: &Node) -> u64 {
    node.admin.get("/v1/status")["events"]["loops"].as_u64().unwrap()
}

/// The entries of the event ring.
fn events(node: &Node, query: &str) -> Vec<Value> {
    let (status, text) = node.admin.request("GET", &format!("/v1/events?limit=10000{query}"), &[]);
    assert_eq!(status, 200);
    let text = match text {
        Value::String(text) => text,
        one => one.to_string(),
    };
    // The answer is chunked: lines that are no JSON are the chunks' lengths.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect()
}

/// Publishes to the neighbour until told to stop; answers how many, and the slowest acknowledgement.
fn keep_busy(node: &Node, stop: &AtomicBool) -> (u64, Duration) {
    let mut client = Client::connect(&node.mqtt, "neighbour", true).unwrap();
    let (mut sent, mut slowest) = (0_u64, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        sent += 1;
        let id = u16::try_from(sent % 60_000 + 1).unwrap();
        let begin = Instant::now();
        let payload = format!(r#"{{"id":"s","t":20.0,"seq":{sent}}}"#);
        client.publish("sensors/s/temp", payload.as_bytes(), 1, id, false, None).unwrap();
        assert_eq!(acknowledgement(&mut client, id), 0);
        slowest = slowest.max(begin.elapsed());
        std::thread::sleep(Duration::from_millis(2));
    }
    client.disconnect();
    (sent, slowest)
}

#[test]
fn no_bad_habit_disturbs_a_neighbour_or_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    node.admin.deploy(&functions::example("scale", |text| text));
    let mut watcher = Watcher::new(&node, "out/s/fahrenheit");
    let before = memory(&node);
    for (habit, expected) in HABITS {
        let permissions = format!(
            "publish = [\"granted/#\", \"seen/#\"]\nkv = [\"rw:self\", \"ro:shared/site\"]\ninvoke = [\"{habit}\", \"friend\"]"
        );
        // A timeout is to come of what would never end, and of nothing else, however busy the machine is.
        let timeout = if expected.contains("timeout") { "200ms" } else { "20s" };
        let limits =
            format!("memory = \"4MiB\"\ntimeout = \"{timeout}\"\noutput = \"256KiB\"\nkv = \"96KiB\"\nlog = \"4KiB\"");
        let mut guest =
            Guest::new(habit, habit).on(&format!("habit/{habit}")).permissions(&permissions).limits(&limits);
        if habit == "invoke-itself" {
            guest = guest.with("to", habit);
        }
        node.admin.deploy(&guest.more("[retry]\nmax_attempts = 1").bundle());
    }
    let stop = AtomicBool::new(false);
    let mut answered = BTreeSet::new();
    let (sent, slowest) = std::thread::scope(|scope| {
        let neighbour = scope.spawn(|| keep_busy(&node, &stop));
        let collector = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if let Some((_, answer)) = watcher.next_within(Duration::from_millis(50)) {
                    assert!(answered.insert(answer["seq"].as_u64().unwrap()), "{answer} twice");
                }
            }
        });
        for _ in 0..TIMES {
            for (habit, _) in HABITS {
                assert_eq!(publish(&node, &format!("habit/{habit}"), b"0"), 0, "{habit}");
            }
        }
        eventually("all habits to have run", || {
            let functions = node.admin.get("/v1/functions");
            let functions = functions["functions"].as_array().unwrap();
            let done = |one: &Value| one["succeeded"].as_u64().unwrap() + one["failed"].as_u64().unwrap();
            // This one runs at every depth that there is.
            let times = |one: &Value| if one["name"] == "invoke-itself" { TIMES * DEPTHS } else { TIMES } as u64;
            let all = functions.iter().filter(|one| one["name"] != "scale").all(|one| done(one) >= times(one));
            all.then_some(())
        });
        stop.store(true, Ordering::Relaxed);
        collector.join().unwrap();
        neighbour.join().unwrap()
    });
    while (answered.len() as u64) < sent {
        let (_, answer) = watcher.next();
        assert!(answered.insert(answer["seq"].as_u64().unwrap()), "{answer} twice");
    }
    assert_eq!(answered, (1..=sent).collect(), "every event of the neighbour was answered");
    assert_eq!(watcher.rest(Duration::from_millis(300)), []);
    // A worker that a bad habit holds is not free for anybody else until the habit's time is up.
    assert!(sent > 50, "the neighbour hardly got a turn: {sent} events, the slowest took {slowest:?}");
    // What became of each habit, by the function's own figures and by the dead letters.
    let mut kinds: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let letters = node.admin.get("/v1/dlq?limit=1000");
    for letter in letters["dead_letters"].as_array().unwrap() {
        let text = |key: &str| letter[key].as_str().unwrap().to_owned();
        assert!(!text("fault").is_empty() && text("fault").len() < 4096, "{letter}");
        kinds.entry(text("function")).or_default().insert(text("kind"));
    }
    for (habit, expected) in HABITS {
        let found = kinds
            .get(habit)
            .map_or_else(|| "ok".to_owned(), |kinds| kinds.iter().cloned().collect::<Vec<_>>().join("+"));
        assert!(expected.split('|').any(|word| word == found), "{habit} came to {found}: {letters}");
        // The ring is bounded: where it still knows the habit, it says the same.
        for event in events(&node, &format!("&function={habit}")) {
            if event["source"] == "invoke" {
                // It was invoked by itself, and at the last depth is denied to go on.
                continue;
            }
            let outcome = event["outcome"].as_str().unwrap();
            assert!(expected.split('|').any(|word| word == outcome), "{event}");
        }
    }
    let grown = memory(&node) - before;
    println!("{sent} events of the neighbour, the slowest took {slowest:?}; {grown} KiB on top of {before}");
    assert!(grown < GROWTH, "{grown} KiB on top of {before}");
    assert_eq!(node.admin.get("/v1/status")["inbox"]["parked"], 0);
    node.stop();
}

#[test]
fn guests_that_use_up_their_stacks_and_invoke_each_other_trap_and_the_node_lives() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    let limits = "memory = \"4MiB\"\ntimeout = \"10s\"";
    let guest = Guest::new("diver", "dive-and-invoke").on("dive").with("to", "diver").limits(limits);
    node.admin.deploy(&guest.permissions("invoke = [\"diver\"]").more("[retry]\nmax_attempts = 1").bundle());
    // What a level takes depends on the compiler, so each dive goes a little deeper than the one before, until one
    // instance alone finds its end: the one before that had all instances use nearly all that they may.
    let mut depth = 500_u64;
    let mut whole = 0;
    loop {
        assert_eq!(publish(&node, "dive", depth.to_string().as_bytes()), 0);
        let letter = eventually("the end of a dive", || {
            let letters = node.admin.get("/v1/dlq?limit=1000");
            let letters = letters["dead_letters"].as_array().unwrap();
            let words = |one: &Value| one["kind"].as_str().unwrap().to_owned() + ": " + one["fault"].as_str().unwrap();
            (letters.len() > whole).then(|| words(&letters[0]))
        });
        if letter.starts_with("trap") {
            assert!(letter.contains("stack"), "{letter}");
            break;
        }
        assert!(letter.contains("too deep"), "{depth}: {letter}");
        whole += 1;
        depth += depth / 10;
    }
    assert!(whole > 3, "the first dives were too deep to say anything");
    assert_eq!(node.admin.get("/v1/functions")["functions"][0]["state"], "confirmed-unexercised");
    node.stop();
}

#[test]
fn a_loop_of_publishes_is_cut_after_a_few_rounds_and_the_ring_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    let relay = |name: &str, from: &str, to: &str| {
        let guest = Guest::new(name, "relay").on(from).with("to", to).permissions("publish = [\"ring/#\"]");
        node.admin.deploy(&guest.bundle());
    };
    relay("narcissus", "ring/self", "ring/self");
    relay("castor", "ring/a", "ring/b");
    relay("pollux", "ring/b", "ring/a");
    let permissions = "invoke = [\"echo\"]";
    let echo = Guest::new("echo", "enqueue-to").on("start").with("to", "echo").permissions(permissions);
    node.admin.deploy(&echo.bundle());
    for (topic, qos, words) in [
        ("ring/self", 1, "ring/self > ring/self"),
        ("ring/self", 0, "ring/self > ring/self"),
        ("ring/a", 1, "ring/b > ring/a"),
        ("ring/a", 0, "ring/b > ring/a"),
        ("start", 1, "echo > echo"),
    ] {
        let before = loops(&node);
        let mut client = Client::connect(&node.mqtt, "spark", true).unwrap();
        client.publish(topic, b"round and round", qos, u16::from(qos), false, None).unwrap();
        eventually("the loop to be cut", || (loops(&node) > before).then_some(()));
        let all = events(&node, "");
        let cut = all.iter().rev().find(|event| event["outcome"] == "loop").expect("an entry in the ring");
        assert!(cut["fault"].as_str().unwrap().contains(words), "{cut}");
        // It is over: once what is on its way has settled, nothing runs any more.
        let settled = || node.admin.get("/v1/status")["store"]["settlements"].as_u64().unwrap();
        let mut last = settled();
        eventually("nothing to run any more", || {
            std::thread::sleep(Duration::from_millis(200));
            (std::mem::replace(&mut last, settled()) == last).then_some(())
        });
    }
    let functions = node.admin.get("/v1/functions");
    for function in functions["functions"].as_array().unwrap() {
        let times = function["succeeded"].as_u64().unwrap();
        assert!((2..=20).contains(&times), "{function}");
    }
    node.stop();
}

#[test]
fn a_rate_is_kept_and_everything_comes_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: QUICK, ..Start::new(folder.path()) }.run();
    let limits = "memory = \"4MiB\"\nrate = \"20/s\"";
    node.admin.deploy(&Guest::new("paced", "witness").on("fast").limits(limits).bundle());
    let mut watcher = Watcher::new(&node, "seen/paced");
    let begin = Instant::now();
    publish_all(&node, "fast", (1..=60).map(|number| number.to_string()));
    let mut times = Vec::new();
    for _ in 1..=60 {
        assert_eq!(watcher.next().1["times"], 1);
        times.push(begin.elapsed());
    }
    // A bucket of one second: 20 at once at the most, and 20 a second from there on.
    let whole = times.last().unwrap();
    assert!((1.9..5.0).contains(&whole.as_secs_f64()), "{whole:?}");
    for (index, at) in times.iter().enumerate().skip(21) {
        let earliest = (index as f64 - 21.0) / 20.0;
        assert!(at.as_secs_f64() > earliest, "event {index} came after {at:?}");
    }
    assert_eq!(watcher.rest(Duration::from_millis(150)), []);
    node.stop();
}

#[test]
fn an_event_for_a_slow_function_is_parked_acknowledged_and_run_once() {
    let folder = tempfile::tempdir().unwrap();
    let start = Start { config: QUICK, ..Start::new(folder.path()) };
    let node = start.run();
    let limits = "memory = \"4MiB\"\ntimeout = \"30s\"";
    node.admin.deploy(&Guest::new("sloth", "slow").on("slow").with("ms", "3000").limits(limits).bundle());
    let mut watcher = Watcher::new(&node, "seen/sloth");
    let begin = Instant::now();
    assert_eq!(publish(&node, "slow", b"a"), 0);
    let acknowledged = begin.elapsed();
    assert!((45..2_900).contains(&acknowledged.as_millis()), "{acknowledged:?}");
    assert_eq!(node.admin.get("/v1/status")["inbox"]["parked"], 1);
    assert_eq!(watcher.next().1["times"], 1);
    assert!(begin.elapsed() >= Duration::from_secs(3));
    eventually("an empty inbox", || (node.admin.get("/v1/status")["inbox"]["parked"] == 0).then_some(()));
    // And now the node is killed in the middle of it.
    assert_eq!(publish(&node, "slow", b"b"), 0);
    node.kill();
    let node = start.run();
    let mut watcher = Watcher::new(&node, "seen/sloth");
    let (_, report) = watcher.next();
    assert_eq!((&report["data"], &report["times"]), (&Value::from("b"), &Value::from(1)));
    assert_eq!(watcher.rest(Duration::from_millis(600)), []);
    node.stop();
}
