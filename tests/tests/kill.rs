//! SIGKILL at random and at exact system calls, while a publisher counts its acknowledgements.
//!
//! The model: every event that was acknowledged has taken effect, and every event that carries an id has taken effect
//! once, in all four places where the counter function leaves a trace: the total, the count per event, the result
//! series, and the sequence numbers of its outbox rows.
//!
//! `HOLM_KILLS` sets how many kills (default 300), `HOLM_SEED` the seed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holm_core::Timestamp;
use holm_store::{DedupeKey, InboxId, OpenOptions, Store};
use holm_tests::functions;
use holm_tests::mqtt::{Client, Packet};
use holm_tests::node::{Node, Start};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

const CONFIG: &str = "[functions]\nhealth_window = \"0ms\"\nquarantine_after = 0\n";

/// Kills of one node, before its data are compared and the next begins with an empty folder.
const LIFE: u32 = 300;

/// Nodes that are killed side by side in the long run: each mostly waits.
const LIVES_AT_A_TIME: usize = 4;

/// Messages on their way at a time.
const WINDOW: usize = 48;

/// System calls between a PUBLISH and its PUBACK, at which the process is killed.
/// The second is how often a thread may make the call before it is the one: strace counts for each thread.
/// `write` is how one thread wakes another, before and after a commit.
const CALL_SITES: [(&str, u32); 8] = [
    ("recvfrom", 100),
    ("pread64", 700),
    ("pwrite64", 150),
    ("fdatasync", 40),
    ("write", 80),
    ("sendto", 80),
    ("epoll_wait", 80),
    ("futex", 150),
];

#[derive(Default)]
struct Ledger {
    /// Messages in the order of their first sending, until they are acknowledged.
    open: Vec<u64>,
    next: u64,
    acknowledged: u64,
    kills: BTreeMap<String, u32>,
}

fn kills() -> u32 {
    std::env::var("HOLM_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(300)
}

fn seed() -> u64 {
    std::env::var("HOLM_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_121)
}

/// Publishes until the connection breaks or `stop` is set and nothing is open.
fn publish(address: &str, ledger: &Mutex<Ledger>, stop: &AtomicBool) {
    let Ok(mut client) = Client::connect(address, "publisher", true) else { return };
    let mut on_wire: BTreeMap<u16, u64> = BTreeMap::new();
    let mut packet = 0_u16;
    let mut resend: Vec<u64> = ledger.lock().unwrap().open.clone();
    resend.reverse();
    loop {
        while on_wire.len() < WINDOW {
            let number = match resend.pop() {
                Some(number) => number,
                None if stop.load(Ordering::Relaxed) => break,
                None => {
                    let mut ledger = ledger.lock().unwrap();
                    ledger.next += 1;
                    let number = ledger.next;
                    ledger.open.push(number);
                    number
                }
            };
            packet = packet.checked_add(1).unwrap_or(1);
            let payload = format!(r#"{{"id":"{number}"}}"#);
            let name = format!("event-{number}");
            on_wire.insert(packet, number);
            if client.publish("count/k", payload.as_bytes(), 1, packet, false, Some(&name)).is_err() {
                return;
            }
        }
        if on_wire.is_empty() {
            client.disconnect();
            return;
        }
        match client.receive() {
            Ok(Packet::Ack(4, id, 0)) => {
                let number = on_wire.remove(&id).expect("an acknowledgement of something that was sent");
                let mut ledger = ledger.lock().unwrap();
                ledger.open.retain(|open| *open != number);
                ledger.acknowledged += 1;
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => return,
        }
    }
}

/// Runs the node once and kills it.
fn round(start: &Start<'_>, ledger: &Arc<Mutex<Ledger>>, random: &mut StdRng, strace: bool) {
    let mut site = "random".to_owned();
    let under: Vec<String>;
    let mut start = start.clone();
    if strace && random.random_bool(0.6) {
        let (call, most) = CALL_SITES[random.random_range(0..CALL_SITES.len())];
        let when = random.random_range(1..most);
        site = call.to_owned();
        let inject = format!("inject={call}:signal=KILL:when={when}");
        let arguments = ["strace", "-f", "-qq", "-o", "/dev/null", "-e"];
        let trace = [format!("trace={call}"), "-e".to_owned(), inject];
        under = arguments.iter().map(ToString::to_string).chain(trace).collect();
        start.under = &under;
    }
    // Killed before it was ready: that is a kill too.
    let Some(mut node) = start.try_run() else {
        *ledger.lock().unwrap().kills.entry(format!("{site} at start")).or_default() += 1;
        return;
    };
    let address = node.mqtt.clone();
    let (shared, stop) = (ledger.clone(), Arc::new(AtomicBool::new(false)));
    let publisher = std::thread::spawn(move || publish(&address, &shared, &stop));
    if start.under.is_empty() {
        std::thread::sleep(Duration::from_micros(random.random_range(500..60_000)));
        node.kill();
    } else {
        let deadline = std::time::Instant::now() + Duration::from_millis(1500);
        while !node.has_ended() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        if !node.has_ended() {
            site = "random".to_owned();
        }
        node.kill();
    }
    publisher.join().unwrap();
    *ledger.lock().unwrap().kills.entry(site).or_default() += 1;
}

fn prepare(data: &Path) {
    let node = Start { config: CONFIG, ..Start::new(data) }.run();
    node.admin.deploy(&functions::example("counter", |text| text.replace("16MiB", "64MiB")));
    node.stop();
}

/// Lets everything that is open be acknowledged, stops the node, and compares what it holds with the model.
fn check(data: &Path, ledger: &Arc<Mutex<Ledger>>) -> Result<(), String> {
    let node: Node = Start { config: CONFIG, ..Start::new(data) }.run();
    let stop = AtomicBool::new(true);
    publish(&node.mqtt, ledger, &stop);
    // What was acknowledged may lie in the inbox (D8), and on a busy machine some does, behind an attempt that took too long.
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while node.admin.get("/v1/status")["inbox"]["parked"] != 0 && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    node.stop();
    let ledger = ledger.lock().unwrap();
    assert!(ledger.open.is_empty(), "still open: {:?}", ledger.open);
    let opened = OpenOptions::new(data).open().unwrap();
    assert!(opened.recovery.is_none(), "{:?}", opened.recovery);
    let reader = opened.store.reader().unwrap();
    let namespace = "counter".into();
    let value = |key: &str| -> u64 {
        let value = reader.get(&namespace, &key.into()).unwrap().value;
        value.map_or(0, |value| String::from_utf8(value.to_vec()).unwrap().parse().unwrap())
    };
    for number in 1..=ledger.next {
        match value(&format!("seen/{number}")) {
            1 => {}
            0 => {
                return Err(format!(
                    "event {number} was acknowledged and is lost: {}",
                    whereabouts(&opened.store, number)
                ));
            }
            times => return Err(format!("event {number} took effect {times} times")),
        }
    }
    let total = value("n");
    if total != ledger.next {
        return Err(format!("{} events, but the total is {total}", ledger.next));
    }
    let mut after = 0;
    let mut expected = 1_i64;
    loop {
        let rows = opened.store.outbox(Some("result.counter.n"), after, 1000).unwrap();
        let Some(last) = rows.last() else { break };
        after = last.id;
        for row in rows {
            let recorded: f64 = String::from_utf8(row.data).unwrap().parse().unwrap();
            if row.sequence != expected || recorded != expected as f64 {
                return Err(format!("result {} holds {recorded}, expected {expected}", row.sequence));
            }
            expected += 1;
        }
    }
    if expected.cast_unsigned() != ledger.next + 1 {
        return Err(format!("{} results for {} events", expected - 1, ledger.next));
    }
    Ok(())
}

/// Where an event is that has not taken effect: a loss, or something that this test has not waited for.
fn whereabouts(store: &Store, number: u64) -> String {
    let name = format!("event-{number}");
    let due = store.due(Timestamp(i64::MAX), InboxId(0), 1000).unwrap();
    let parked = store.parked(&due).unwrap();
    let inbox = parked.iter().find(|row| *row.event.id.0 == *name);
    let dead = store.dead_letters(None, 1000).unwrap();
    let dead = dead.iter().find(|letter| *letter.event.id.0 == *name);
    let known = store.reader().unwrap().seen(&DedupeKey::new("publisher", "count/k", &name)).unwrap();
    format!("{} in the inbox, there {inbox:?}; in the dead letters {dead:?}; its id is known: {known}", parked.len())
}

/// A node's whole life: so many kills, and then the comparison.
fn run(seed: u64, kills: u32, mutant: Option<&str>, strace: bool) -> Result<Ledger, String> {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut random = StdRng::seed_from_u64(seed);
    let start = Start { config: CONFIG, mutant, ..Start::new(folder.path()) };
    for _ in 0..kills {
        round(&start, &ledger, &mut random, strace);
    }
    let result = check(folder.path(), &ledger);
    let ledger = std::mem::take(&mut *ledger.lock().unwrap());
    println!("seed {seed}, {} events, kills by call site: {:?}", ledger.next, ledger.kills);
    result.map(|()| ledger)
}

fn has_strace() -> bool {
    Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success())
}

#[test]
fn no_acknowledged_event_is_lost_and_none_with_an_id_is_doubled() {
    assert!(has_strace(), "strace is needed: run `cargo xtask test`");
    let lives = Mutex::new((0..kills().div_ceil(LIFE)).map(u64::from));
    let total = Mutex::new((0, BTreeMap::<String, u32>::new()));
    std::thread::scope(|scope| {
        for _ in 0..LIVES_AT_A_TIME {
            scope.spawn(|| {
                let next = || lives.lock().unwrap().next();
                while let Some(life) = next() {
                    let left = kills() - u32::try_from(life).unwrap() * LIFE;
                    let ledger = run(seed() + life, left.min(LIFE), None, true).unwrap();
                    let mut total = total.lock().unwrap();
                    total.0 += ledger.next;
                    for (site, kills) in ledger.kills {
                        *total.1.entry(site).or_default() += kills;
                    }
                }
            });
        }
    });
    let (events, sites) = total.into_inner().unwrap();
    println!("{} kills, {events} events, by call site: {sites:?}", kills());
    assert!(events > u64::from(kills()), "the publisher hardly got a word in: {events} events");
    // In the long run every call site must have had its share.
    if kills() >= 5000 {
        for (site, _) in CALL_SITES {
            assert!(sites.get(site).is_some_and(|kills| *kills >= 20), "{site}: {sites:?}");
        }
    }
}

#[test]
fn the_test_catches_an_acknowledgement_before_the_commit() {
    let verdict = run(seed(), 40, Some("ack-before-commit"), false).map(|ledger| ledger.next);
    assert!(verdict.as_ref().is_err_and(|words| words.contains("lost")), "{verdict:?}");
}

#[test]
fn the_test_catches_message_ids_outside_the_transaction() {
    let verdict = run(seed(), 40, Some("dedupe-outside"), false).map(|ledger| ledger.next);
    assert!(verdict.as_ref().is_err_and(|words| words.contains("times")), "{verdict:?}");
}
