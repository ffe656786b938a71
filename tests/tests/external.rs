//! A node that is a client of somebody else's broker, which is a real mosquitto.
//!
//! The model is that of `kill.rs`: every event that carries an id takes effect once, however often the node or the
//! broker goes away, and every answer of a function reaches those who listen.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use holm_store::{LocalId, OpenOptions};
use holm_tests::mosquitto::{Mosquitto, free_port};
use holm_tests::mqtt::{Client, Packet};
use holm_tests::node::{Node, Start};
use holm_tests::tls::Authority;
use holm_tests::{eventually, functions};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

/// Messages on their way at a time.
const WINDOW: usize = 32;

fn config(address: &str) -> String {
    format!(
        "[node]\ndevice = \"gate\"\n[functions]\nhealth_window = \"0ms\"\nquarantine_after = 0\n\
         [mqtt]\nmode = \"external\"\n[mqtt.external]\naddress = \"{address}\"\nkeep_alive = \"1s\"\n"
    )
}

fn counter() -> Vec<u8> {
    functions::example("counter", |text| text.replace("16MiB", "64MiB"))
}

/// What is published to a node, and what it answers.
#[derive(Clone, Copy)]
struct Talk {
    /// Where events go.
    to: &'static str,
    /// The event of this number.
    event: fn(u32) -> Vec<u8>,
    /// Whether events have ids.
    named: bool,
    /// Where answers come.
    from: &'static str,
    /// Where an answer has the number.
    number: &'static str,
}

/// With the function that counts, and writes.
const COUNTING: Talk = Talk { to: "count/k", event: payload, named: true, from: "counted/k", number: "n" };

/// With a function that only answers.
const SCALING: Talk = Talk {
    to: "sensors/k/temp",
    event: |number| format!(r#"{{"id":"k","t":20.0,"seq":{number}}}"#).into_bytes(),
    named: false,
    from: "out/k/fahrenheit",
    number: "seq",
};

fn payload(number: u32) -> Vec<u8> {
    format!(r#"{{"id":"{number}"}}"#).into_bytes()
}

/// The link as the node sees it.
fn link(node: &Node) -> serde_json::Value {
    node.admin.get("/v1/status")["external"].clone()
}

fn await_link(node: &Node, connected: bool) {
    eventually("the state of the link", || (link(node)["connected"] == connected).then_some(()));
}

/// Waits longer than [`eventually`]: a broken link is tried again after up to a minute.
fn patiently<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within 120 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How the publisher and those who make trouble keep in step.
#[derive(Default)]
struct Pace {
    /// Numbers beyond are not sent yet.
    allowed: AtomicU32,
    /// How many are acknowledged.
    acknowledged: AtomicU32,
}

impl Pace {
    fn allow(&self, last: u32) {
        self.allowed.store(last, Ordering::Relaxed);
    }

    fn await_acknowledged(&self, count: u32) {
        patiently("a part of the stream", || (self.acknowledged.load(Ordering::Relaxed) >= count).then_some(()));
    }
}

/// A publisher that does not stop before everything up to `last` is acknowledged, whatever happens to the broker.
fn publish_all(talk: Talk, address: &str, last: u32, pace: &Pace) {
    let mut open: BTreeSet<u32> = (1..=last).collect();
    while !open.is_empty() {
        // One connection, as far as it goes.
        let Ok(mut client) = Client::connect(address, "publisher", true) else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        let mut todo: Vec<u32> = open.iter().rev().copied().collect();
        let mut on_wire: BTreeMap<u16, u32> = BTreeMap::new();
        let mut packet = 0_u16;
        'connection: loop {
            while on_wire.len() < WINDOW {
                let Some(number) = todo.pop_if(|number| *number <= pace.allowed.load(Ordering::Relaxed)) else { break };
                packet = packet.checked_add(1).unwrap_or(1);
                on_wire.insert(packet, number);
                let name = format!("event-{number}");
                let name = talk.named.then_some(&*name);
                if client.publish(talk.to, &(talk.event)(number), 1, packet, false, name).is_err() {
                    break 'connection;
                }
            }
            if open.is_empty() {
                client.disconnect();
                return;
            }
            if on_wire.is_empty() {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            match client.receive() {
                Ok(Packet::Ack(4, id, reason)) if reason < 0x80 => {
                    open.remove(&on_wire.remove(&id).expect("an acknowledgement of something that was sent"));
                    pace.acknowledged.store(last - u32::try_from(open.len()).unwrap(), Ordering::Relaxed);
                }
                Ok(Packet::Other(..)) => {}
                Ok(other) => panic!("{other:?}"),
                Err(_) => break,
            }
        }
    }
}

/// What of the numbers up to `last` is answered, until all are or `stop` is set.
fn listen(talk: Talk, address: &str, last: u32, stop: &AtomicBool) -> BTreeMap<u32, u32> {
    let mut heard = BTreeMap::new();
    while heard.len() < last as usize && !stop.load(Ordering::Relaxed) {
        let Ok(mut client) = Client::connect(address, "listener", false) else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        client.patience(Duration::from_millis(500));
        let mut subscribe = vec![0, 1, 0, 0, u8::try_from(talk.from.len()).unwrap()];
        subscribe.extend(talk.from.as_bytes());
        subscribe.push(1);
        let mut packet = vec![0x82, u8::try_from(subscribe.len()).unwrap()];
        packet.extend(subscribe);
        if client.raw(&packet).is_err() {
            continue;
        }
        while heard.len() < last as usize && !stop.load(Ordering::Relaxed) {
            match client.receive() {
                Ok(Packet::Publish { payload, id, qos, .. }) => {
                    let value: serde_json::Value = serde_json::from_slice(&payload).unwrap();
                    *heard.entry(u32::try_from(value[talk.number].as_u64().unwrap()).unwrap()).or_default() += 1;
                    if qos == 1 && client.ack(4, id).is_err() {
                        break;
                    }
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                }
                Err(_) => break,
            }
        }
    }
    heard
}

/// How many events the node has counted.
fn counted(node: &Node) -> u64 {
    node.admin.get("/v1/functions")["functions"][0]["total"]["invocations"].as_u64().unwrap_or(0)
}

/// Compares what a stopped node holds with the model.
fn check(data: &Path, events: u32) -> Result<(), String> {
    let opened = OpenOptions::new(data).open().unwrap();
    assert!(opened.recovery.is_none(), "{:?}", opened.recovery);
    let reader = opened.store.reader().unwrap();
    let value = |key: &str| -> u64 {
        let value = reader.get(&"counter".into(), &key.into()).unwrap().value;
        value.map_or(0, |value| String::from_utf8(value.to_vec()).unwrap().parse().unwrap())
    };
    for number in 1..=events {
        match value(&format!("seen/{number}")) {
            1 => {}
            0 => return Err(format!("event {number} is lost")),
            times => return Err(format!("event {number} took effect {times} times")),
        }
    }
    let results = opened.store.outbox(Some("result.counter.n"), 0, events as usize + 1).unwrap().len();
    if value("n") != u64::from(events) || results != events as usize {
        return Err(format!("{events} events, the total is {}, and {results} results", value("n")));
    }
    let left = opened.store.local(LocalId(0), 10).unwrap().len();
    if left > 0 { Err(format!("{left} answers have not gone out")) } else { Ok(()) }
}

/// Results that the counter has recorded: one for each event that took effect.
fn recorded(node: &Node) -> usize {
    let rows = node.admin.get("/v1/buffer/rows?stream=result.counter.n&limit=100000");
    rows["rows"].as_array().map_or(0, Vec::len)
}

/// Waits until `count` gives `full`, or has not moved for ten seconds.
fn settled(full: usize, mut count: impl FnMut() -> usize) {
    let (mut last, mut since) = (count(), Instant::now());
    while last < full && since.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
        let now = count();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

/// A stream of `events` through a node and a mosquitto, to which `trouble` happens meanwhile.
fn stream(
    events: u32,
    mutant: Option<&str>,
    trouble: impl FnOnce(&mut Option<Node>, &mut Mosquitto, &Start<'_>, &Pace),
) -> Result<(), String> {
    let (broker, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut mosquitto = Mosquitto::start(broker.path(), free_port(), "");
    let address = mosquitto.address();
    let config = config(&address);
    let start = Start { config: &config, mutant, ..Start::new(data.path()) };
    let node = start.run();
    node.admin.deploy(&counter());
    await_link(&node, true);
    let stop = Arc::new(AtomicBool::new(false));
    let listener = std::thread::spawn({
        let (address, stop) = (address.clone(), stop.clone());
        move || listen(COUNTING, &address, events, &stop)
    });
    subscribed(&address, &node);
    let pace = Arc::new(Pace::default());
    let publisher = std::thread::spawn({
        let (address, pace) = (address.clone(), pace.clone());
        move || publish_all(COUNTING, &address, events, &pace)
    });
    let mut node = Some(node);
    trouble(&mut node, &mut mosquitto, &start, &pace);
    pace.allow(events);
    publisher.join().unwrap();
    let node = node.unwrap_or_else(|| start.run());
    patiently("the link", || (link(&node)["connected"] == true).then_some(()));
    settled(events as usize, || recorded(&node));
    settled(usize::MAX, || {
        let status = link(&node);
        if listener.is_finished() && status["in_flight"] == 0 {
            return usize::MAX;
        }
        usize::try_from(status["messages_out"].as_u64().unwrap()).unwrap()
    });
    stop.store(true, Ordering::Relaxed);
    let heard = listener.join().unwrap();
    let doubled = heard.values().filter(|times| **times > 1).count();
    println!("{events} events, {doubled} answers came more than once, link: {}", link(&node));
    node.stop();
    check(data.path(), events)?;
    let missing = (1..=events).filter(|number| !heard.contains_key(number)).count();
    if missing > 0 { Err(format!("{missing} answers never came")) } else { Ok(()) }
}

fn seed() -> u64 {
    std::env::var("HOLM_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_121)
}

/// Kills the node again and again.
fn kill(times: u32) -> impl FnOnce(&mut Option<Node>, &mut Mosquitto, &Start<'_>, &Pace) {
    let mut random = StdRng::seed_from_u64(seed());
    move |node, _, start, pace| {
        for round in 1..=times {
            pace.allow(round * 100);
            std::thread::sleep(Duration::from_millis(random.random_range(5..120)));
            node.take().unwrap().kill();
            *node = Some(start.run());
        }
    }
}

/// Waits until the broker has the function's subscription: a message that is no event of the model gets through.
fn subscribed(address: &str, node: &Node) {
    let mut client = Client::connect(address, "probe", true).unwrap();
    eventually("the subscription", || {
        client.publish("count/probe", b"not an event", 0, 0, false, None).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        (counted(node) > 0).then_some(())
    });
}

#[test]
fn a_function_answers_through_an_external_broker_and_hears_others_through_it() {
    let (broker, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mosquitto = Mosquitto::start(broker.path(), free_port(), "");
    let config = config(&mosquitto.address());
    let node = Start { config: &config, ..Start::new(data.path()) }.run();
    assert_eq!(node.mqtt, "");
    assert_eq!(link(&node)["address"], mosquitto.address());
    node.admin.deploy(&counter());
    // A second function that lives on the answers of the first.
    let second = functions::example("counter", |text| {
        let text = text.replace("name = \"counter\"", "name = \"second\"").replace("count/+", "counted/x");
        text.replace("\"counted/+\"", "\"counted/+\", \"seen/+\"")
    });
    node.admin.deploy(&second);
    await_link(&node, true);
    subscribed(&mosquitto.address(), &node);
    let mut subscriber = Client::connect(&mosquitto.address(), "sub", true).unwrap();
    subscriber.subscribe("counted/#", 1).unwrap();
    let mut publisher = Client::connect(&mosquitto.address(), "pub", true).unwrap();
    for (packet, qos) in [(1, 1), (2, 2)] {
        publisher.publish("count/x", &payload(packet.into()), qos, packet, false, None).unwrap();
        let Packet::Ack(kind, id, _) = publisher.receive().unwrap() else { panic!("no acknowledgement") };
        assert_eq!((kind, id), (if qos == 1 { 4 } else { 5 }, packet));
        if qos == 2 {
            publisher.ack(6, packet).unwrap();
        }
        let Packet::Publish { topic, payload, qos, id, .. } = subscriber.receive().unwrap() else { panic!("nothing") };
        assert_eq!((topic.as_str(), qos), ("counted/x", 1));
        assert_eq!(payload, format!(r#"{{"n":{packet}}}"#).into_bytes());
        subscriber.ack(4, id).unwrap();
    }
    // The second function got the answers from the broker, once each, and could not read them: two dead letters, or
    // attempts on the way there.
    eventually("both answers at the second function", || {
        let events = node.admin.get("/v1/functions");
        let of = |name: &str| {
            let list = events["functions"].as_array().unwrap();
            list.iter().find(|one| one["name"] == name).unwrap()["total"]["invocations"].as_u64().unwrap_or(0)
        };
        (of("second") >= 2).then_some(())
    });
    assert_eq!(node.admin.get("/v1/status")["events"]["duplicates"], 0);
    node.stop();
}

#[test]
fn messages_carry_their_hops_and_their_id_through_the_broker_and_loops_are_cut() {
    let (broker, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mosquitto = Mosquitto::start(broker.path(), free_port(), "");
    let config = config(&mosquitto.address());
    let node = Start { config: &config, ..Start::new(data.path()) }.run();
    // It hears its own answers, which it cannot read.
    node.admin.deploy(&functions::example("counter", |text| text.replace("\"count/+\"", "\"count/+\", \"counted/+\"")));
    await_link(&node, true);
    subscribed(&mosquitto.address(), &node);
    let mut publisher = Client::connect(&mosquitto.address(), "pub", true).unwrap();
    publisher.publish("count/x", &payload(1), 1, 1, false, None).unwrap();
    let Packet::Ack(4, 1, _) = publisher.receive().unwrap() else { panic!("no acknowledgement") };
    eventually("the answer comes back", || {
        let letters = node.admin.get("/v1/dlq");
        (letters["dead_letters"].as_array().unwrap().len() == 1).then_some(())
    });
    // PUBLISH, QoS 1, packet id 2, with the user property `holm-hops: 9`: one more than may be.
    let mut body = b"\x00\x07count/x\x00\x02\x0f\x26\x00\x09holm-hops\x00\x019".to_vec();
    body.extend(payload(2));
    let mut packet = vec![0x32, u8::try_from(body.len()).unwrap()];
    packet.extend(body);
    publisher.raw(&packet).unwrap();
    let Packet::Ack(4, 2, _) = publisher.receive().unwrap() else { panic!("no acknowledgement") };
    eventually("the loop is cut", || (node.admin.get("/v1/status")["events"]["loops"] == 1).then_some(()));
    node.stop();
    let store = OpenOptions::new(data.path()).open().unwrap().store;
    let letters = store.dead_letters(None, 10).unwrap();
    let event = &letters[0].event;
    assert_eq!((letters.len(), &*event.subject, event.hops), (1, "counted/x", 1));
    assert!(event.attributes.iter().any(|(name, value)| &**name == "holm-id" && **value == *event.id.0), "{event:?}");
}

#[test]
fn a_broker_that_restarts_in_the_middle_of_a_stream_loses_and_doubles_nothing() {
    let verdict = stream(2_000, None, |node, mosquitto, _, pace| {
        for part in 1..=4 {
            pace.allow(part * 500);
            pace.await_acknowledged(part * 500 - 400);
            mosquitto.restart(|| std::thread::sleep(Duration::from_millis(50)));
            let node = node.as_ref().unwrap();
            patiently("the link is made again", || {
                (link(node)["connections"].as_u64() > Some(part.into())).then_some(())
            });
        }
    });
    verdict.unwrap();
}

#[test]
fn a_node_that_is_killed_in_the_middle_of_a_stream_loses_and_doubles_nothing() {
    stream(2_000, None, kill(20)).unwrap();
}

#[test]
fn the_test_catches_an_acknowledgement_before_the_commit() {
    let verdict = stream(2_000, Some("ack-before-commit"), kill(20));
    // What left before the commit is lost with it, or leaves again.
    let caught = |words: &String| words.contains("lost") || words.contains("took effect");
    assert!(verdict.as_ref().is_err_and(caught), "{verdict:?}");
}

/// Events without ids, whose function has nothing to keep: they are acknowledged when the broker has the answers.
#[test]
fn events_that_leave_nothing_are_answered_however_often_node_and_broker_go_away() {
    const EVENTS: u32 = 1_500;
    let (broker, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut mosquitto = Mosquitto::start(broker.path(), free_port(), "");
    let address = mosquitto.address();
    let config = config(&address);
    let start = Start { config: &config, ..Start::new(data.path()) };
    let node = start.run();
    node.admin.deploy(&functions::example("scale", |text| text.to_owned()));
    await_link(&node, true);
    let stop = Arc::new(AtomicBool::new(false));
    let listener = std::thread::spawn({
        let (address, stop) = (address.clone(), stop.clone());
        move || listen(SCALING, &address, EVENTS, &stop)
    });
    let pace = Arc::new(Pace::default());
    let publisher = std::thread::spawn({
        let (address, pace) = (address.clone(), pace.clone());
        move || publish_all(SCALING, &address, EVENTS, &pace)
    });
    // Undisturbed: nothing is written for them.
    let commits = |node: &Node| node.admin.get("/v1/status")["store"]["commits"].as_u64().unwrap();
    let answered = |node: &Node| link(node)["messages_out"].as_u64().unwrap();
    // The first wait for native code to be read, long enough to be parked.
    pace.allow(50);
    patiently("the first answers", || (answered(&node) >= 50).then_some(()));
    let before = commits(&node);
    for last in (60..=300).step_by(10) {
        pace.allow(last);
        patiently("the next answers", || (answered(&node) >= u64::from(last)).then_some(()));
    }
    let written = commits(&node) - before;
    assert!(written <= 20, "{written} commits for 250 events");
    // The node is killed, and the broker restarted, with answers on their way.
    let mut node = Some(node);
    let mut random = StdRng::seed_from_u64(seed());
    for round in 4..=12 {
        pace.allow(round * 100);
        std::thread::sleep(Duration::from_millis(random.random_range(5..120)));
        if round % 4 == 0 {
            mosquitto.restart(|| ());
        } else {
            node.take().unwrap().kill();
            node = Some(start.run());
        }
    }
    pace.allow(EVENTS);
    publisher.join().unwrap();
    patiently("the link", || (link(node.as_ref().unwrap())["connected"] == true).then_some(()));
    let deadline = Instant::now() + Duration::from_secs(60);
    while !listener.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    stop.store(true, Ordering::Relaxed);
    let heard = listener.join().unwrap();
    let again = heard.values().filter(|times| **times > 1).count();
    println!("{again} of {EVENTS} were answered more than once, link: {}", link(node.as_ref().unwrap()));
    let missing: Vec<u32> = (1..=EVENTS).filter(|number| !heard.contains_key(number)).collect();
    assert!(missing.is_empty(), "never answered: {missing:?}");
    drop(node);
}

/// The node's end of a connection to a broker that is this test.
struct Scripted(TcpStream);

impl Scripted {
    /// The next packet: its first byte and its body. `None` if nothing comes for a while.
    fn receive(&mut self, patience: Duration) -> Option<(u8, Vec<u8>)> {
        self.0.set_read_timeout(Some(patience)).unwrap();
        let mut byte = [0; 1];
        self.0.read_exact(&mut byte).ok()?;
        let first = byte[0];
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            self.0.read_exact(&mut byte).unwrap();
            length |= usize::from(byte[0] & 0x7F) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        Some((first, body))
    }

    /// The next packet of this kind. What a broker has to answer meanwhile is answered.
    fn next(&mut self, kind: u8) -> Vec<u8> {
        loop {
            let (first, body) = self.receive(Duration::from_secs(30)).expect("a packet");
            match first >> 4 {
                found if found == kind => return body,
                6 => self.0.write_all(&[0x70, 2, body[0], body[1]]).unwrap(),
                12 => self.0.write_all(&[0xD0, 0]).unwrap(),
                other => panic!("a packet of kind {other} before one of kind {kind}"),
            }
        }
    }
}

#[test]
fn an_event_that_leaves_nothing_is_acknowledged_when_the_broker_has_its_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let data = tempfile::tempdir().unwrap();
    // No pings: they would only have to be answered. No inbox: a parked event may be acknowledged at once.
    let config = config(&listener.local_addr().unwrap().to_string())
        .replace("\"1s\"", "\"60s\"")
        .replace("[functions]\n", "[functions]\npark_after = \"60s\"\n");
    let node = Start { config: &config, ..Start::new(data.path()) }.run();
    node.admin.deploy(&functions::example("scale", |text| text));
    let mut broker = Scripted(listener.accept().unwrap().0);
    broker.next(1);
    broker.0.write_all(&[0x20, 3, 0, 0, 0]).unwrap();
    let subscribe = broker.next(8);
    broker.0.write_all(&[0x90, 4, subscribe[0], subscribe[1], 0, 1]).unwrap();
    // An event of QoS 1 under packet id 7.
    let mut publish = vec![0, u8::try_from(SCALING.to.len()).unwrap()];
    publish.extend(SCALING.to.as_bytes());
    publish.extend([0, 7, 0]);
    publish.extend((SCALING.event)(1));
    broker.0.write_all(&[0x32, u8::try_from(publish.len()).unwrap()]).unwrap();
    broker.0.write_all(&publish).unwrap();
    let answer = broker.next(3);
    let id = 2 + usize::from(answer[1]);
    let early = broker.receive(Duration::from_millis(500));
    assert_eq!(early, None, "before the broker has the answer");
    broker.0.write_all(&[0x40, 2, answer[id], answer[id + 1]]).unwrap();
    assert_eq!(broker.next(4)[..2], [0, 7]);
    drop(broker);
    node.stop();
}

#[test]
fn a_broker_that_hangs_is_noticed_and_used_again_when_it_is_back() {
    let verdict = stream(500, None, |node, mosquitto, _, pace| {
        pace.allow(500);
        pace.await_acknowledged(100);
        mosquitto.signal("STOP");
        await_link(node.as_ref().unwrap(), false);
        mosquitto.signal("CONT");
    });
    verdict.unwrap();
}

#[test]
fn a_message_of_qos_2_without_an_id_takes_effect_once_however_often_the_node_is_killed() {
    const EVENTS: u16 = 400;
    let (broker, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mosquitto = Mosquitto::start(broker.path(), free_port(), "");
    let config = config(&mosquitto.address());
    let start = Start { config: &config, ..Start::new(data.path()) };
    let mut node = start.run();
    let bundle = functions::example("counter", |text| text.replace("topics =", "qos = 2\ntopics ="));
    node.admin.deploy(&bundle);
    await_link(&node, true);
    subscribed(&mosquitto.address(), &node);
    let mut publisher = Client::connect(&mosquitto.address(), "pub", true).unwrap();
    let mut random = StdRng::seed_from_u64(seed());
    let numbers: Vec<u16> = (1..=EVENTS).collect();
    for burst in numbers.chunks(20) {
        for number in burst {
            publisher.publish("count/k", &payload((*number).into()), 2, *number, false, None).unwrap();
        }
        for _ in burst {
            let Packet::Ack(5, id, 0) = publisher.receive().unwrap() else { panic!("no PUBREC") };
            publisher.ack(6, id).unwrap();
        }
        // From here on mosquitto hands them to the node, which is killed somewhere in between.
        std::thread::sleep(Duration::from_micros(random.random_range(0..12_000)));
        node.kill();
        for _ in burst {
            assert!(matches!(publisher.receive().unwrap(), Packet::Ack(7, _, 0)));
        }
        node = start.run();
        patiently("the link", || (link(&node)["connected"] == true).then_some(()));
    }
    patiently("the link", || (link(&node)["connected"] == true).then_some(()));
    settled(EVENTS.into(), || recorded(&node));
    settled(usize::MAX, || if link(&node)["in_flight"] == 0 { usize::MAX } else { 0 });
    node.stop();
    check(data.path(), EVENTS.into()).unwrap();
}

#[test]
fn answers_leave_with_the_qos_of_the_function() {
    let (broker, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mosquitto = Mosquitto::start(broker.path(), free_port(), "");
    let config = config(&mosquitto.address());
    let node = Start { config: &config, ..Start::new(data.path()) }.run();
    node.admin.deploy(&functions::example("scale", |text| text.replace("topics =", "qos = 2\ntopics =")));
    await_link(&node, true);
    let mut subscriber = Client::connect(&mosquitto.address(), "sub", true).unwrap();
    subscriber.subscribe("out/#", 2).unwrap();
    let mut publisher = Client::connect(&mosquitto.address(), "pub", true).unwrap();
    let reading = |seq: u8| format!(r#"{{"id":"s1","t":20.0,"seq":{seq}}}"#).into_bytes();
    let mut expect = |wanted: u8| loop {
        // The subscription of the function may come a little later than the first readings.
        match subscriber.receive().unwrap() {
            Packet::Publish { qos, id, .. } => {
                match qos {
                    1 => subscriber.ack(4, id).unwrap(),
                    2 => subscriber.ack(5, id).unwrap(),
                    _ => {}
                }
                if qos == wanted {
                    return;
                }
            }
            Packet::Ack(6, id, _) => subscriber.ack(7, id).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    eventually("the subscription", || {
        publisher.publish("sensors/s1/temp", &reading(0), 0, 0, false, None).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        (counted(&node) > 0).then_some(())
    });
    expect(0);
    publisher.publish("sensors/s1/temp", &reading(1), 1, 1, false, None).unwrap();
    expect(1);
    publisher.publish("sensors/s1/temp", &reading(2), 2, 2, false, None).unwrap();
    assert!(matches!(publisher.receive().unwrap(), Packet::Ack(4, 1, 0)));
    assert!(matches!(publisher.receive().unwrap(), Packet::Ack(5, 2, 0)));
    publisher.ack(6, 2).unwrap();
    expect(2);
    assert_eq!(link(&node)["refused"], 0);
    node.stop();
}

#[test]
fn a_node_without_its_broker_starts_and_keeps_what_it_has_to_say() {
    let (broker, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = free_port();
    let config = config(&format!("127.0.0.1:{port}"));
    let node = Start { config: &config, ..Start::new(data.path()) }.run();
    node.admin.deploy(&counter());
    let state = eventually("an attempt", || Some(link(&node)).filter(|link| link["last_error"].is_string()));
    assert_eq!(state["connected"], false, "{state}");
    // A function that an operator starts speaks into the lane.
    assert_eq!(node.admin.post("/v1/functions/counter/invoke", &payload(1)).0, 200);
    node.stop();
    let mosquitto = Mosquitto::start(broker.path(), port, "");
    let mut subscriber = Client::connect(&mosquitto.address(), "sub", true).unwrap();
    subscriber.subscribe("counted/#", 1).unwrap();
    let node = Start { config: &config, ..Start::new(data.path()) }.run();
    let Packet::Publish { topic, payload, .. } = subscriber.receive().unwrap() else { panic!("nothing") };
    assert_eq!((topic.as_str(), payload), ("counted/unknown", br#"{"n":1}"#.to_vec()));
    await_link(&node, true);
    node.stop();
}

#[test]
fn filters_of_a_function_that_was_removed_while_the_broker_was_away_are_unsubscribed() {
    let (broker, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut mosquitto = Mosquitto::start(broker.path(), free_port(), "");
    let config = config(&mosquitto.address());
    let start = Start { config: &config, ..Start::new(data.path()) };
    let node = start.run();
    node.admin.deploy(&counter());
    await_link(&node, true);
    subscribed(&mosquitto.address(), &node);
    let mut restarted = None;
    mosquitto.restart(|| {
        assert_eq!(node.admin.request("DELETE", "/v1/functions/counter", &[]).0, 200);
        node.stop();
        restarted = Some(start.run());
    });
    let node = restarted.unwrap();
    await_link(&node, true);
    let mut client = Client::connect(&mosquitto.address(), "probe", true).unwrap();
    // MQTT 5 tells a publisher that nobody listens: reason 0x10.
    let mut packet = 0;
    eventually("nobody listens", || {
        packet += 1;
        client.publish("count/x", b"x", 1, packet, false, None).unwrap();
        let Packet::Ack(4, _, reason) = client.receive().unwrap() else { panic!("no acknowledgement") };
        (reason == 0x10).then_some(())
    });
    node.stop();
}

#[test]
fn a_node_reaches_a_broker_that_asks_for_tls_and_a_certificate() {
    let (broker, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let authority = Authority::new(broker.path(), "ca");
    let server = authority.issue("server");
    let client = authority.issue("gate");
    let stranger = Authority::new(broker.path(), "other");
    let plain = free_port();
    let extra = format!(
        "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nlistener {plain} 127.0.0.1",
        authority.certificate.display(),
        server.certificate.display(),
        server.key.display(),
    );
    let mosquitto = Mosquitto::start(broker.path(), free_port(), &extra);
    let with_ca = |ca: &Path| {
        format!(
            "{}[mqtt.external.tls]\nca = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
            config(&mosquitto.address()),
            ca.display(),
            client.certificate.display(),
            client.key.display()
        )
    };
    let text = with_ca(&stranger.certificate);
    let node = Start { config: &text, ..Start::new(data.path()) }.run();
    eventually("the broker is not trusted", || {
        link(&node)["last_error"].as_str().filter(|error| error.contains("certificate")).map(drop)
    });
    node.stop();
    let text = with_ca(&authority.certificate);
    let node = Start { config: &text, ..Start::new(data.path()) }.run();
    await_link(&node, true);
    node.admin.deploy(&counter());
    let address = format!("127.0.0.1:{plain}");
    let mut subscriber = Client::connect(&address, "sub", true).unwrap();
    subscriber.subscribe("counted/#", 1).unwrap();
    subscribed(&address, &node);
    let mut publisher = Client::connect(&address, "pub", true).unwrap();
    publisher.publish("count/x", &payload(1), 1, 1, false, None).unwrap();
    let Packet::Publish { payload, .. } = subscriber.receive().unwrap() else { panic!("nothing") };
    assert_eq!(payload, br#"{"n":1}"#);
    node.stop();
}

#[test]
fn clients_reach_the_embedded_broker_by_tls() {
    let (keys, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let authority = Authority::new(keys.path(), "ca");
    let server = authority.issue("server");
    let config = format!(
        "[functions]\nhealth_window = \"0ms\"\n[mqtt.tls]\nlisten = \"127.0.0.1:0\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
        server.certificate.display(),
        server.key.display()
    );
    let node = Start { config: &config, ..Start::new(data.path()) }.run();
    node.admin.deploy(&counter());
    let address = node.mqtts.clone().unwrap();
    let (stream, socket) = authority.connect(&address).unwrap();
    let mut client = Client::over(stream, socket, "tls", true).unwrap();
    client.subscribe("counted/#", 1).unwrap();
    client.publish("count/x", &payload(1), 1, 1, false, None).unwrap();
    let mut answers = [client.receive().unwrap(), client.receive().unwrap()];
    answers.sort_by_key(|packet| matches!(packet, Packet::Publish { .. }));
    assert_eq!(answers[0], Packet::Ack(4, 1, 0));
    let Packet::Publish { payload, .. } = &answers[1] else { panic!("{answers:?}") };
    assert_eq!(payload, br#"{"n":1}"#);
    // Who speaks without TLS, or trusts somebody else, does not get in.
    assert!(Client::connect(&address, "plain", true).is_err());
    let stranger = Authority::new(keys.path(), "other");
    let refused = stranger.connect(&address).and_then(|(stream, socket)| Client::over(stream, socket, "tls", true));
    assert!(refused.is_err_and(|error| error.to_string().contains("certificate")));
    node.stop();
}
