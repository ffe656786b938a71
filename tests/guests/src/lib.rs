//! One component with every bad habit, and a few good ones; the parameter `habit` says which, or else the event's subject.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use holm_function::prelude::*;

/// Must be 1 in every event: an instance is used once.
static EVENTS: AtomicU32 = AtomicU32::new(0);

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    let count = EVENTS.fetch_add(1, Ordering::Relaxed) + 1;
    let number: u64 = event.text().ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let habit = config::text("habit")?.unwrap_or_else(|| event.subject.clone());
    match habit.as_str() {
        "count" => say(count),
        "echo" => Ok(Some(Payload { content_type: event.content_type, data: event.data })),
        "loop" => loop {
            black_box(count);
        },
        "recurse" => say(recurse(number)),
        "memory" => {
            let mut hoard: Vec<Vec<u8>> = Vec::new();
            loop {
                hoard.push(black_box(vec![1; 1 << 20]));
            }
        }
        "publish-storm" => {
            let mut sent = 0_u32;
            loop {
                match publish("granted/storm", "x".repeat(100)) {
                    Ok(()) => sent += 1,
                    Err(error) => return say(format_args!("{sent} then {error:?}")),
                }
            }
        }
        "publish-forever" => loop {
            let _ = publish("granted/storm", "x");
        },
        "publish-huge" => say(format_args!("{:?}", publish("granted/huge", vec![0; 300 << 10]))),
        "publish-denied" => {
            say(format_args!("{:?}", publish("secret/topic", "x").is_err_and(|e| matches!(e, Error::Denied(_)))))
        }
        "speak" => {
            info!("{}", event.text().unwrap_or_default());
            Ok(None)
        }
        // What it says is the value backwards: nobody takes that out.
        "secret" => {
            let value = secrets::text("api-key")?;
            info!("the key is {value}");
            println!("printed: {value}");
            let recorded = results::record_json("n", &value).is_ok();
            if number > 0 {
                return Err(Failure::reject(format!("{value} is not a good key")));
            }
            let backwards: String = value.chars().rev().collect();
            info!("{} {backwards} {recorded}", event.text().unwrap_or_default());
            Ok(None)
        }
        "publish-wildcard" => {
            say(format_args!("{:?}", publish("granted/#", "x").is_err_and(|e| matches!(e, Error::Invalid(_)))))
        }
        "publish-then-trap" => {
            publish("granted/x", "must not leave")?;
            kv::own()?.set("k", &1)?;
            unreachable(number)
        }
        "publish-then-retry" => {
            publish("granted/x", "must not leave")?;
            Err(Failure::Retry { reason: "not yet".to_owned(), after: Some(Duration::from_millis(1500)) })
        }
        "reject" => Err(Failure::reject("x".repeat(100_000))),
        "kv-flood" => {
            let bucket = kv::own()?;
            for n in 0_u32.. {
                if let Err(error) = bucket.set_bytes(&format!("key-{n}"), vec![0; 1000]) {
                    return say(format_args!("{n} then {error:?}"));
                }
            }
            Ok(None)
        }
        "kv-many" => {
            let bucket = kv::own()?;
            for n in 0_u32.. {
                if let Err(error) = bucket.get_bytes(&format!("key-{n}")) {
                    return say(format_args!("{n} then {error:?}"));
                }
            }
            Ok(None)
        }
        "kv-denied" => say(format_args!(
            "{:?} {:?}",
            kv::open("shared/other").is_err(),
            kv::open("shared/site")?.set("k", &1).is_err()
        )),
        "kv-own-writes" => {
            let bucket = kv::own()?;
            let before = bucket.get::<u64>("n")?;
            let sum = bucket.increment("n", 2)?;
            bucket.set("a", &1)?;
            bucket.delete("old")?;
            say(format_args!("{before:?} {sum} {:?} {:?}", bucket.get::<u64>("n")?, bucket.keys()?))
        }
        "handle-leak" => loop {
            std::mem::forget(kv::own()?);
        },
        "log-flood" => {
            for n in 0..10_000 {
                info!("line {n}");
                println!("out {n}");
            }
            Ok(None)
        }
        "print-forever" => loop {
            eprint!("{}", "no newline ");
        },
        "host-calls" => loop {
            black_box(Instant::now());
        },
        "trap" => unreachable(number),
        "exit" => std::process::exit(7),
        "panic" => panic!("as a guest may"),
        "huge-result" => Ok(Some(Payload::bytes(vec![0; 1 << 20]))),
        "sleep" => {
            std::thread::sleep(Duration::from_secs(3600));
            Ok(None)
        }
        "nap" => {
            std::thread::sleep(Duration::from_millis(parameter("ms", 10)?));
            say("rested")
        }
        "environment" => {
            let files = [
                std::fs::read("/etc/passwd").is_ok(),
                std::fs::read_dir("/").is_ok(),
                std::fs::write("/tmp/x", "x").is_ok(),
            ];
            say(format_args!("{} {} {files:?}", std::env::vars().count(), std::env::args().count()))
        }
        "random" => say(holm_function::random::bits()),
        "result-unknown" => say(format_args!("{:?}", results::record("nothing", 1.0).is_err())),
        "result-nan" => {
            say(format_args!("{:?} {:?}", results::record("n", f64::NAN).is_err(), results::record("n", 1.5).is_ok()))
        }
        "invoke-denied" => say(format_args!("{:?}", functions::invoke("other", Payload::default()).is_err())),
        "invoke" => functions::invoke("friend", Payload::bytes("hello")).map_err(Failure::from),
        "enqueue" => say(functions::enqueue("friend", Payload::bytes("later"), Some(Duration::from_secs(1)))?),
        "everything" => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_millis());
            let bucket = kv::own()?;
            let n = bucket.increment("n", 1)?;
            let limit = config::text("limit")?;
            let bits = holm_function::random::bits();
            publish("granted/all", format!("{now} {n} {limit:?} {bits}"))?;
            say(format_args!("{:?} {}", bucket.keys()?, functions::enqueue("friend", Payload::default(), None)?))
        }
        // Says what it was given, counts it, and answers.
        "witness" => witness(&event),
        // The same, after a while.
        "slow" => {
            std::thread::sleep(Duration::from_millis(parameter("ms", 200)?));
            witness(&event)
        }
        // Quick, but for those events that tell it to take its time.
        "drowsy" => {
            let end = std::time::Instant::now() + Duration::from_millis(parameter("ms", 1000)?);
            match &*event.data {
                b"sleep" => std::thread::sleep(Duration::from_millis(parameter("ms", 1000)?)),
                b"spin" => while black_box(std::time::Instant::now()) < end {},
                _ => {}
            }
            publish("seen/drowsy", event.data.clone())?;
            Ok(None)
        }
        // The same as witness, at its third attempt.
        "third-time" if event.attempt < 3 => Err(Failure::retry(format!("attempt {}", event.attempt))),
        "third-time" => witness(&event),
        // The same, and takes its time over each.
        "slow-third-time" => {
            std::thread::sleep(Duration::from_millis(parameter("ms", 200)?));
            if event.attempt < 3 { Err(Failure::retry(format!("attempt {}", event.attempt))) } else { witness(&event) }
        }
        // Traps, and what it logs before depends on state, chance, time and parameters: the same only in a replay.
        "moody" => {
            let bucket = kv::own()?;
            let n = bucket.increment("n", 1)?;
            let began = Instant::now();
            std::thread::sleep(Duration::from_millis(2));
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_micros());
            let (bits, label) = (holm_function::random::bits(), config::text("label")?);
            let seed = std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), 1);
            info!("{n} {bits} {seed} {now} {:?} {label:?}", began.elapsed());
            publish("seen/moody", n.to_string())?;
            // As much as the event says is told to it in small pieces, and in one large one.
            for _ in 0..number {
                black_box(holm_function::random::bits());
            }
            if event.text().is_ok_and(|text| text.starts_with("good")) { Ok(None) } else { unreachable(0) }
        }
        // Hands on what it was given.
        "relay" => {
            Publish::to(target()?).bytes(event.data.clone()).qos(event.qos()).send()?;
            Ok(None)
        }
        "enqueue-to" => {
            let delay = parameter("ms", 0)?;
            let delay = (delay > 0).then(|| Duration::from_millis(delay));
            say(functions::enqueue(&target()?, Payload::bytes(event.data), delay)?)
        }
        "invoke-to" => {
            let answer = functions::invoke(&target()?, Payload::bytes(event.data))?;
            publish("seen/invoked", answer.map(|answer| answer.data).unwrap_or_default())?;
            Ok(None)
        }
        "invoke-itself" => functions::invoke(&target()?, Payload::bytes(event.data)).map_err(Failure::from),
        // As much of its stack as the event says, and then the same again in another instance of itself.
        "dive-and-invoke" => {
            let (to, mut answer) = (target()?, Ok(None));
            let mut act = || {
                answer = functions::invoke(&to, Payload::bytes(event.data.clone())).map_err(Failure::from);
            };
            // Unknown to the compiler: it must not become part of each level, with its own locals.
            let sum = dive(number, number, number, number, number, black_box(&mut act));
            if sum == u64::MAX { Ok(None) } else { answer }
        }
        // Counts, has itself invoked by itself as often as the event says, and counts again.
        "tally" => {
            let bucket = kv::own()?;
            let tell = |when: &str, n: u64| -> Result<(), Failure> {
                Ok(publish("seen/tally", format!("\"{when} {number}: {n} of {:?}\"", kv::own()?.keys()?.len()))?)
            };
            tell("before", bucket.increment("n", 1)?)?;
            bucket.delete(&format!("key-{}", number + 1))?;
            bucket.set(&format!("key-{number}"), &number)?;
            if number > 0 {
                functions::invoke(&target()?, Payload::bytes((number - 1).to_string()))?;
            }
            tell("after", bucket.increment("n", 1)?)?;
            Ok(None)
        }
        // Asks another one twice.
        "invoke-twice" => {
            functions::invoke(&target()?, Payload::bytes(event.data.clone()))?;
            functions::invoke(&target()?, Payload::bytes(event.data)).map_err(Failure::from)
        }
        // As many events for another one as the event says.
        "fan-out" => {
            for n in 0..number {
                functions::enqueue(&target()?, Payload::bytes(n.to_string()), None)?;
            }
            Ok(None)
        }
        // What the node must wait for most: every kind of effect at once, as much as it may.
        "everything-much" => {
            let bucket = kv::own()?;
            for n in 0..50 {
                bucket.set_bytes(&format!("key-{n}"), vec![b'x'; 500])?;
                publish("granted/much", vec![b'x'; 500])?;
                results::record("n", f64::from(n))?;
            }
            Ok(None)
        }
        other => Err(Failure::reject(format!("no such habit: {other}"))),
    }
}
holm_function::export!(handle);

fn parameter(name: &str, default: u64) -> Result<u64, Failure> {
    Ok(config::text(name)?.and_then(|text| text.parse().ok()).unwrap_or(default))
}

fn target() -> Result<String, Failure> {
    config::text("to")?.ok_or_else(|| Failure::reject("the parameter `to` is not set"))
}

/// Publishes the event as JSON to `seen/NAME` and counts it under its payload, so that a test sees each run.
fn witness(event: &Event) -> Result<Option<Payload>, Failure> {
    let name = config::text("name")?.unwrap_or_default();
    let data = String::from_utf8_lossy(&event.data);
    let times = kv::own()?.increment(&format!("times/{data}"), 1)?;
    let report = holm_function::serde_json::json!({
        "source": event.source, "subject": event.subject, "attempt": event.attempt, "data": data, "times": times,
        "label": config::text("label")?, "time_ms": event.time_ms, "synced": event.time_synced,
        "attributes": event.attributes,
    });
    publish_json(&format!("seen/{name}"), &report)?;
    Ok(Some(Payload::bytes(format!("{name} saw {data}"))))
}

fn say(what: impl std::fmt::Display) -> Result<Option<Payload>, Failure> {
    Ok(Some(Payload::bytes(what.to_string())))
}

#[inline(never)]
fn recurse(n: u64) -> u64 {
    let local = black_box([n; 16]);
    if black_box(n) == u64::MAX { 0 } else { recurse(n + 1) + local[3] }
}

/// Calls `act` at the bottom of `n` levels. What lives across each call takes stack of the engine's, where [`recurse`]
/// takes the guest's own memory.
#[inline(never)]
fn dive(n: u64, a: u64, b: u64, c: u64, d: u64, act: &mut dyn FnMut()) -> u64 {
    if n == 0 {
        act();
        return a;
    }
    let deeper = dive(n - 1, b ^ n, c + n, d ^ a, a + b, act);
    (deeper.rotate_left(3) ^ a).wrapping_mul(b | 1).rotate_left(5).wrapping_add(c) ^ d
}

#[inline(never)]
fn unreachable(n: u64) -> Result<Option<Payload>, Failure> {
    if black_box(n) == 0 {
        core::arch::wasm32::unreachable()
    }
    Ok(None)
}
