//! The door of the crate: a node's bindings, on the simulator.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holm_boards::{Bindings, BoardError, Clock, Fired, Hardware, Listener, Sim, Watch};
use holm_core::{Document, Edge, I2cPart, Label, Level, Quality, Reading, SpiPart, Timestamp};

/// Long enough for anything that is not broken.
const SOON: Duration = Duration::from_secs(10);

type Sampled = (Label, Vec<Reading>);

/// A node's hardware on the simulator, and everything that it told.
struct Bench {
    hardware: Hardware,
    sim: Sim,
    clock: Clock,
    threads: Vec<(String, JoinHandle<()>)>,
    samples: Arc<Mutex<Vec<Sampled>>>,
    edges: Arc<Mutex<Vec<Fired>>>,
}

fn bindings(text: &str) -> Bindings {
    let (document, mut root) = Document::parse("agent.toml", text).unwrap();
    let mut bindings = Bindings::default();
    bindings.apply(&mut root);
    drop(root);
    document.finish().unwrap();
    assert_eq!(bindings.contradictions(), []);
    bindings
}

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

impl Bench {
    fn new(text: &str, clock: Clock) -> Self {
        let bindings = bindings(text);
        let sim = Sim::new(&bindings, clock.clone()).unwrap();
        let mut threads = Vec::new();
        let hardware = Hardware::start(
            Arc::new(sim.clone()),
            &bindings,
            Arc::new(|| Timestamp(1_800_000_000_000)),
            |name, body| -> std::io::Result<()> {
                threads.push((name.to_owned(), std::thread::Builder::new().spawn(body)?));
                Ok(())
            },
        )
        .unwrap();
        let (samples, edges): (Arc<Mutex<Vec<_>>>, Arc<Mutex<Vec<_>>>) = Default::default();
        let (told_samples, told_edges) = (samples.clone(), edges.clone());
        hardware.listen(Listener {
            sample: Box::new(move |name, readings| {
                told_samples.lock().unwrap().push((name.clone(), readings.to_vec()));
            }),
            edge: Box::new(move |fired| told_edges.lock().unwrap().push(fired.clone())),
        });
        Self { hardware, sim, clock, threads, samples, edges }
    }

    fn read(&self, sensor: &str) -> Result<Vec<Reading>, BoardError> {
        self.hardware.read(sensor, SOON)
    }

    /// Ends everything, and every thread ends.
    fn stop(self) {
        self.hardware.stop();
        for (name, thread) in self.threads {
            thread.join().unwrap_or_else(|_| panic!("{name} panicked"));
        }
    }
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < SOON, "{what} did not happen");
        std::thread::yield_now();
    }
}

const GREENHOUSE: &str = "
[[sensor]]
name = \"greenhouse\"
driver = \"bme280\"
bus = \"i2c-1\"
address = 0x76
stale_after = \"5s\"
calibration.temperature = { scale = 1.5, offset = -2, max = 40 }
[[sensor]]
name = \"soil\"
driver = \"sht3x\"
bus = \"i2c-1\"
[[sensor]]
name = \"cpu\"
driver = \"thermal\"
zone = \"cpu-thermal\"
[[i2c]]
name = \"expansion\"
bus = \"i2c-1\"
[[spi]]
name = \"radio\"
device = \"spidev0.0\"
[sim]
[[sim.signal]]
sensor = \"greenhouse\"
channel = \"temperature\"
wave = \"sine\"
mean = 20
amplitude = 10
period = \"100s\"
";

#[test]
fn readings_are_corrected_and_say_how_far_they_are_to_be_believed() {
    let bench = Bench::new(GREENHOUSE, Clock::manual());
    let names: Vec<&str> = bench.threads.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["i2c-1", "spidev0.0", "sys"], "a thread for each bus");
    let readings = bench.read("greenhouse").unwrap();
    let channels: Vec<_> = readings.iter().map(|reading| (&*reading.channel, &*reading.unit)).collect();
    assert_eq!(channels, [("temperature", "°C"), ("pressure", "Pa"), ("humidity", "%")]);
    let temperature = &readings[0];
    assert!((temperature.value - 28.0).abs() < 0.1, "{temperature:?}");
    assert_eq!((temperature.quality, temperature.time), (Quality::Simulated, Timestamp(1_800_000_000_000)));
    // At the top of the sine: 30 °C, which is 43 after correction, and more than is believed.
    bench.clock.advance(Duration::from_secs(25));
    let readings = bench.read("greenhouse").unwrap();
    assert!((readings[0].value - 43.0).abs() < 0.1, "{readings:?}");
    assert_eq!((readings[0].quality, readings[1].quality), (Quality::Suspect, Quality::Simulated));
    // What it said last is there without asking it, until it is too old.
    assert_eq!(bench.hardware.latest("greenhouse", SOON).unwrap(), readings);
    bench.clock.advance(Duration::from_secs(6));
    let stale = bench.hardware.latest("greenhouse", SOON).unwrap();
    assert!(stale.iter().all(|reading| reading.quality == Quality::Stale));
    // One that has said nothing is asked.
    assert_eq!(bench.hardware.latest("soil", SOON).unwrap().len(), 2);
    assert_eq!(bench.read("attic"), Err(BoardError::UnknownSensor("attic".into())));
    assert_eq!(bench.samples.lock().unwrap().len(), 3);
    bench.stop();
}

#[test]
fn the_same_seed_gives_the_same_readings() {
    let text = "[[sensor]]\nname = \"a\"\ndriver = \"sht4x\"\nbus = \"i2c-1\"\n[sim]\nseed = 5\n[[sim.signal]]\n\
                sensor = \"a\"\nchannel = \"temperature\"\nwave = \"walk\"\nstart = 20\nmin = 10\nmax = 30\n";
    let run = || {
        let bench = Bench::new(text, Clock::manual());
        let mut values = Vec::new();
        for _ in 0..100 {
            bench.clock.advance(Duration::from_secs(1));
            values.extend(bench.read("a").unwrap().into_iter().map(|reading| reading.value.to_bits()));
        }
        bench.stop();
        values
    };
    assert_eq!(run(), run());
}

#[test]
fn a_sensor_that_fails_comes_back_by_itself() {
    for (kind, error) in [
        ("missing", BoardError::NoAnswer { what: "soil".into() }),
        ("crc", BoardError::Checksum { what: "soil".into() }),
        ("slow", BoardError::Timeout { what: "soil".into() }),
    ] {
        let fault = format!("[[sim.fault]]\ntarget = \"soil\"\nkind = \"{kind}\"\nfrom = \"10s\"\nto = \"20s\"\n");
        let bench = Bench::new(&format!("{GREENHOUSE}{fault}"), Clock::manual());
        assert!(bench.read("soil").is_ok());
        bench.clock.advance(Duration::from_secs(11));
        assert_eq!(bench.read("soil"), Err(error), "{kind}");
        assert!(bench.read("greenhouse").is_ok(), "the others on its bus go on while it has the fault `{kind}`");
        bench.clock.advance(Duration::from_secs(10));
        assert!(bench.read("soil").is_ok(), "{kind}");
        let report = bench.hardware.sensor_reports().into_iter().find(|report| report.name == label("soil")).unwrap();
        assert_eq!((report.tries, report.failures, report.error), (3, 1, None), "{kind}");
        bench.stop();
    }
}

#[test]
fn a_stuck_bus_concerns_everybody_on_it_and_nobody_else() {
    let fault = "[[sim.fault]]\ntarget = \"soil\"\nkind = \"stuck\"\nto = \"60s\"\n";
    let bench = Bench::new(&format!("{GREENHOUSE}{fault}"), Clock::manual());
    for sensor in ["soil", "greenhouse"] {
        let error = bench.read(sensor).unwrap_err();
        assert!(matches!(error, BoardError::Bus { .. }), "{error}");
        assert!(error.to_string().contains("stuck"), "{error}");
    }
    assert!(bench.read("cpu").is_ok());
    bench.clock.advance(Duration::from_secs(60));
    assert!(bench.read("soil").is_ok() && bench.read("greenhouse").is_ok());
    bench.stop();
}

#[test]
fn sensors_are_read_by_themselves_as_often_as_is_planned() {
    let bench = Bench::new(GREENHOUSE, Clock::Monotonic);
    let plan = |entries: &[(&str, u64)]| {
        let plan: BTreeMap<Label, Duration> =
            entries.iter().map(|(name, ms)| (label(name), Duration::from_millis(*ms))).collect();
        bench.hardware.plan(&plan)
    };
    let count = |name: &str| bench.samples.lock().unwrap().iter().filter(|(sensor, _)| *sensor == label(name)).count();
    assert_eq!(plan(&[("cpu", 20), ("attic", 20)]), [BoardError::UnknownSensor("attic".into())]);
    eventually("five samples", || (count("cpu") >= 5).then_some(()));
    assert_eq!(count("soil"), 0, "nobody asked");
    assert_eq!(plan(&[("soil", 20)]), []);
    eventually("two samples of another", || (count("soil") >= 2).then_some(()));
    bench.stop();
}

#[test]
fn functions_may_speak_to_buses_themselves() {
    let bench = Bench::new(GREENHOUSE, Clock::manual());
    let parts = vec![I2cPart::Write(vec![0xd0]), I2cPart::Read(1)];
    assert_eq!(bench.hardware.i2c("expansion", 0x76, parts.clone(), SOON), Ok(vec![vec![0x60]]));
    let nobody = bench.hardware.i2c("expansion", 0x20, parts.clone(), SOON);
    assert_eq!(nobody, Err(BoardError::NoAnswer { what: "0x20 on i2c-1".into() }));
    assert_eq!(bench.hardware.i2c("i2c-1", 0x76, parts, SOON), Err(BoardError::UnknownBus("i2c-1".into())));
    let parts = vec![SpiPart::Write(vec![1]), SpiPart::Transfer(vec![7, 8, 9]), SpiPart::Delay(10), SpiPart::Read(2)];
    assert_eq!(bench.hardware.spi("radio", parts, SOON), Ok(vec![vec![7, 8, 9], vec![0, 0]]));
    bench.stop();
}

const LINES: &str = "
[[gpio]]
name = \"door\"
line = \"GPIO17\"
direction = \"in\"
debounce = \"0s\"
[[gpio]]
name = \"pump\"
line = \"GPIO27\"
direction = \"out\"
safe = \"low\"
[[gpio]]
name = \"valve\"
line = \"GPIO22\"
direction = \"out\"
safe = \"high\"
";

fn watch(id: u64, edge: Edge, debounce: u64) -> Watch {
    Watch { id, line: label("door"), edge, debounce: Duration::from_millis(debounce) }
}

#[test]
fn outputs_are_safe_whenever_nobody_is_in_charge() {
    let bench = Bench::new(LINES, Clock::manual());
    let outputs = |sim: &Sim| [sim.output("pump").unwrap(), sim.output("valve").unwrap()];
    assert_eq!(outputs(&bench.sim), [Level::Low, Level::High], "at start");
    bench.hardware.set("pump", Level::High).unwrap();
    bench.hardware.set("valve", Level::Low).unwrap();
    assert_eq!(outputs(&bench.sim), [Level::High, Level::Low]);
    assert_eq!(bench.hardware.level("pump"), Ok(Level::High));
    bench.hardware.make_safe(|line| line.as_str() == "pump");
    assert_eq!(outputs(&bench.sim), [Level::High, Level::High], "when it is no longer granted");
    let sim = bench.sim.clone();
    let hardware = bench.hardware.clone();
    bench.stop();
    assert_eq!(outputs(&sim), [Level::Low, Level::High], "at the end");
    assert_eq!(hardware.set("pump", Level::High), Err(BoardError::Stopped), "and it stays so");
    assert_eq!(outputs(&sim), [Level::Low, Level::High]);
}

#[test]
fn outputs_are_safe_after_a_panic_that_unwinds() {
    let bindings =
        bindings(&LINES.replace("direction = \"in\"\ndebounce = \"0s\"", "direction = \"out\"\nsafe = \"low\""));
    let sim = Sim::new(&bindings, Clock::manual()).unwrap();
    let board = sim.clone();
    let thread = std::thread::spawn(move || {
        let now = Arc::new(|| Timestamp(0));
        let none = |_: &str, _: holm_boards::Body| -> Result<(), ()> { panic!("no thread is needed") };
        let hardware = Hardware::start(Arc::new(board), &bindings, now, none).unwrap();
        hardware.set("pump", Level::High).unwrap();
        panic!("on purpose");
    });
    assert!(thread.join().is_err());
    assert_eq!(sim.output("pump"), Some(Level::Low));
}

#[test]
fn an_edge_reaches_who_watches_for_it() {
    let bench = Bench::new(LINES, Clock::Monotonic);
    let mut wrong = watch(3, Edge::Both, 0);
    wrong.line = label("pump");
    let problems = bench.hardware.watch(vec![watch(1, Edge::Both, 0), watch(2, Edge::Rising, 0), wrong]);
    assert_eq!(problems, [BoardError::Direction { line: "pump".into(), is: "output" }]);
    let ids = |count: usize| {
        eventually("the edges", || {
            let edges = bench.edges.lock().unwrap();
            (edges.len() >= count).then(|| edges.iter().map(|fired| (fired.id, fired.level)).collect::<Vec<_>>())
        })
    };
    assert!(bench.sim.drive("door", Level::High));
    assert_eq!(ids(2), [(1, Level::High), (2, Level::High)]);
    assert_eq!(bench.hardware.level("door"), Ok(Level::High));
    assert!(bench.sim.drive("door", Level::Low));
    assert_eq!(ids(3)[2], (1, Level::Low));
    assert!(!bench.sim.drive("window", Level::Low));
    assert_eq!(
        bench.hardware.set("door", Level::High),
        Err(BoardError::Direction { line: "door".into(), is: "input" })
    );
    bench.stop();
}

#[test]
fn contacts_that_bounce_are_one_edge_when_they_are_debounced_and_many_when_they_are_not() {
    for (debounce, expected) in [(0, 7), (5, 1)] {
        let script = "[sim]\n[[sim.edge]]\nline = \"door\"\nat = [\"50ms\"]\n\
                      [[sim.fault]]\ntarget = \"door\"\nkind = \"bounce\"\n";
        let bench = Bench::new(&format!("{LINES}{script}"), Clock::Monotonic);
        assert_eq!(bench.hardware.watch(vec![watch(1, Edge::Both, debounce)]), []);
        eventually("the edges", || (bench.edges.lock().unwrap().len() >= expected).then_some(()));
        // The last one has come when the line has been still for long.
        let (clock, start) = (bench.clock.clone(), bench.clock.now());
        eventually("a pause", || (clock.now() > start + Duration::from_millis(30)).then_some(()));
        let edges = bench.edges.lock().unwrap().clone();
        assert_eq!(edges.len(), expected, "{debounce} ms: {edges:?}");
        assert_eq!(edges.last().unwrap().level, Level::High);
        bench.stop();
    }
}

#[test]
fn a_node_that_binds_nothing_has_no_threads() {
    let none = |name: &str, _: holm_boards::Body| -> Result<(), String> { Err(name.to_owned()) };
    let sim = Sim::new(&Bindings::default(), Clock::Monotonic).unwrap();
    let hardware = Hardware::start(Arc::new(sim), &Bindings::default(), Arc::new(|| Timestamp(0)), none).unwrap();
    assert_eq!(hardware.sensors().count(), 0);
    hardware.stop();
}

#[test]
fn a_recording_that_is_not_there_is_said_before_anything_starts() {
    let text = "[[sensor]]\nname = \"a\"\ndriver = \"bh1750\"\nbus = \"i2c-1\"\n[sim]\n[[sim.signal]]\n\
                sensor = \"a\"\nchannel = \"illuminance\"\nwave = \"csv\"\nfile = \"/nowhere/light.csv\"\n";
    let error = Sim::new(&bindings(text), Clock::manual()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("/nowhere/light.csv"), "{error}");
}
