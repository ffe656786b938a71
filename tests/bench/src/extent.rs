//! How large it is: memory, the binary, the time to start, and what many bindings cost.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holm_core::{TopicFilter, TopicName, TopicTrie};

use crate::generator::{Dialect, Generator, Until, Work};
use crate::holmd::Holmd;
use crate::report::{Figure, Report, Target};
use crate::{Scale, baseline, node, process};

const WINDOW: u64 = 64;

/// Functions that are there and never called, beyond the ten.
const IDLE: usize = 20;

/// All of it.
pub fn run(folder: &Path, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    let ten = node::prepare(folder, "ten", &node::ten(1)?)?;
    eprintln!("memory");
    memory(folder, &ten, scale, report)?;
    eprintln!("start");
    start(folder, &ten, scale, report)?;
    let size = std::fs::metadata(Holmd::program()?)?.len();
    report.add(Figure::alone("holmd, stripped", "MB", vec![size as f64 / 1e6], Target::AtMost(10.0)));
    eprintln!("bindings");
    bindings(folder, &ten, scale, report)
}

fn memory(folder: &Path, ten: &Path, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    let settle = Duration::from_millis(1500);
    let holmd = Holmd::start(ten)?;
    std::thread::sleep(settle);
    let (pss, (_, peak)) = (process::pss(holmd.pid)?, process::rss(holmd.pid)?);
    report.add(Figure::alone("10 functions, idle: PSS", "MiB", vec![pss], Target::AtMost(12.0)));
    report.add(Figure::alone("10 functions, idle: peak RSS", "MiB", vec![peak], Target::AtMost(12.0)));
    for qos in [0, 1] {
        let mut generator = Generator::connect(&holmd.mqtt, &format!("memory{qos}"), qos, Dialect::PLAIN)?;
        let over = AtomicBool::new(false);
        let most = std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut most = 0.0_f64;
                while !over.load(Ordering::Relaxed) {
                    most = most.max(process::pss(holmd.pid).unwrap_or_default());
                    std::thread::sleep(Duration::from_millis(50));
                }
                most
            });
            let round = generator.drive(Work::Readings, WINDOW, Until::Time(scale.time * 2));
            over.store(true, Ordering::Relaxed);
            let most = watch.join().unwrap_or(f64::NAN);
            round.map(|_| most)
        })?;
        let peak = process::rss(holmd.pid)?.1;
        report.add(Figure::alone(
            format!("10 functions, W1 q{qos} load: PSS"),
            "MiB",
            vec![most],
            Target::AtMost(20.0),
        ));
        report.add(Figure::alone(
            format!("10 functions, W1 q{qos} load: peak RSS"),
            "MiB",
            vec![peak],
            Target::AtMost(20.0),
        ));
    }
    std::thread::sleep(settle);
    report.add(Figure::alone("10 functions, after the load: PSS", "MiB", vec![process::pss(holmd.pid)?], Target::None));
    holmd.stop()?;
    let mut bundles = node::ten(1)?;
    bundles.extend(node::idle(IDLE)?);
    let many = node::prepare(folder, "thirty", &bundles)?;
    let mut each = Vec::new();
    for _ in 0..scale.rounds.min(3) {
        let mut sizes = [0.0; 2];
        for (size, data) in sizes.iter_mut().zip([ten, &many]) {
            let holmd = Holmd::start(data)?;
            std::thread::sleep(settle / 3);
            *size = process::pss(holmd.pid)?;
            holmd.stop()?;
        }
        let [few, many] = sizes;
        each.push((many - few) / IDLE as f64);
    }
    report.add(Figure::alone("an idle Rust function: PSS", "MiB", each, Target::AtMost(0.3)));
    Ok(())
}

/// From starting the process to the first answer.
fn start(folder: &Path, ten: &Path, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    let (_broker, address) = baseline::mosquitto(folder)?;
    let (mut ours, mut native) = (Vec::new(), Vec::new());
    for round in 0..scale.rounds {
        let began = Instant::now();
        let client = baseline::client(&address, 0, false, baseline::BATCH)?;
        Generator::connect(&address, &format!("start{round}"), 0, Dialect::PLAIN)?.one()?;
        native.push(began.elapsed().as_secs_f64() * 1e3);
        drop(client);
        let began = Instant::now();
        let holmd = Holmd::start(ten)?;
        Generator::connect(&holmd.mqtt, "start", 0, Dialect::PLAIN)?.one()?;
        ours.push(began.elapsed().as_secs_f64() * 1e3);
        holmd.stop()?;
    }
    report.add(Figure::pair("start to first event, 10 functions", "ms", ours, native, Target::RatioAtMost(3.0)));
    Ok(())
}

/// The same work with ten bindings and with a thousand: of the node, and of the trie alone.
fn bindings(folder: &Path, ten: &Path, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    let thousand = node::prepare(folder, "thousand", &node::ten(100)?)?;
    let (few, many) = (Holmd::start(ten)?, Holmd::start(&thousand)?);
    let mut results = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
    let mut generators = [
        Generator::connect(&few.mqtt, "bindings", 0, Dialect::PLAIN)?,
        Generator::connect(&many.mqtt, "bindings", 0, Dialect::PLAIN)?,
    ];
    for _ in 0..scale.rounds {
        for ((generator, node), (cpu, time)) in generators.iter_mut().zip([&few, &many]).zip(&mut results) {
            let before = process::cpu(node.pid)?;
            let round = generator.drive(Work::Readings, WINDOW, Until::Time(scale.time))?;
            cpu.push((process::cpu(node.pid)? - before) * 10_000.0 / round.events as f64);
            time.push(round.elapsed.as_secs_f64() * 1e6 / round.events as f64);
        }
    }
    let [(few_cpu, few_time), (many_cpu, many_time)] = results;
    let target = Target::RatioAtMost(1.2);
    report.add(Figure::pair("W1 q0 time per event, 1,000 bindings (beside: 10)", "us", many_time, few_time, target));
    report.add(Figure::pair("W1 q0 CPU per 10,000, 1,000 bindings (beside: 10)", "s", many_cpu, few_cpu, target));
    few.stop()?;
    many.stop()?;
    let (few, many) = (trie(10), trie(1000));
    let (mut few_time, mut many_time) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        few_time.push(matching(&few));
        many_time.push(matching(&many));
    }
    report.add(Figure::pair("matching alone, 1,000 bindings (beside: 10)", "ns", many_time, few_time, target));
    Ok(())
}

/// The filters of [`node::ten`].
fn trie(filters: usize) -> TopicTrie<u32> {
    let mut trie = TopicTrie::new();
    for number in 0..filters {
        let filter = match number {
            0 => "sensors/+/temp".to_owned(),
            number if number % 2 == 0 => format!("sensors/f{number}/temp"),
            number => format!("sensors/+/f{number}"),
        };
        trie.entry(&TopicFilter::new(&filter).unwrap(), || 0);
    }
    trie
}

/// Nanoseconds for one topic.
fn matching(trie: &TopicTrie<u32>) -> f64 {
    const TIMES: u32 = 400_000;
    let topics: Vec<TopicName> =
        (0..10).map(|sensor| TopicName::new(&format!("sensors/s{sensor}/temp")).unwrap()).collect();
    let mut found = 0;
    let start = Instant::now();
    for topic in topics.iter().cycle().take(TIMES as usize) {
        trie.for_each_match(std::hint::black_box(topic), |value| found += 1 + *value);
    }
    let time = start.elapsed().as_nanos() as f64 / f64::from(TIMES);
    assert_eq!(found, TIMES);
    time
}
