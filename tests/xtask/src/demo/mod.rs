//! `cargo xtask demo`: from a fresh clone to a fleet that works, in one command.
//!
//! Builds the programs, packs the examples, starts a control plane and three nodes, enrols them, publishes and deploys over the
//! air, feeds one of them with a recorded series and this machine's readings, and meanwhile rolls out a new version by canary, and then
//! one that traps and is taken back; then it shows `holm top`. With `--alone` or a folder of your own it is one node, without a control
//! plane. At the end the feeder is drained before the nodes, so that everything that was sent is judged, and then they are, so that
//! nothing is left open.

mod fleet;
mod service;
mod summary;

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::flags::Flags;
use crate::shell::{cargo, command, metadata, need_wasm, output, root, run as execute};
use fleet::Fleet;
use service::Service;

/// What is deployed, as far as it is there, in this order.
const EXAMPLES: [&str; 4] = ["water-loss", "machine-health", "scale", "counter"];

/// The version of the first example that goes out while the series runs.
const BETTER: &str = "0.1.1";

/// The example that the canary does not survive.
const WORSE: &str = "water-loss-next";

/// The nodes beside the one that is fed.
const OTHERS: [&str; 2] = ["demo-2", "demo-3"];

/// The node's configuration, unless its folder has one already.
const CONFIG: &str = "\
# Written by `cargo xtask demo`.
[node]
device = \"demo\"
[functions]
# Short, so that the examples are there soon.
health_window = \"1s\"
";

/// Starting takes milliseconds; a damaged database may take longer to be saved from.
const START: Duration = Duration::from_secs(60);

/// For the feeder: acknowledgements and alerts on their way.
const FEED_DRAIN: Duration = Duration::from_secs(30);

/// For the node: its own limits add up to less.
const NODE_DRAIN: Duration = Duration::from_secs(60);

/// How often the end is looked for.
const LOOK: Duration = Duration::from_millis(100);

struct Options {
    limit: Option<Duration>,
    headless: bool,
    leaks: bool,
    alone: bool,
    data: Option<PathBuf>,
    listen: Option<SocketAddr>,
    rate: f64,
}

/// See the module's text.
pub fn run(mut flags: Flags) -> anyhow::Result<()> {
    let minutes: Option<f64> = flags.value("--minutes")?;
    let options = Options {
        limit: minutes.map(|minutes| Duration::try_from_secs_f64(minutes * 60.0)).transpose().context("--minutes")?,
        headless: flags.has("--headless"),
        leaks: flags.has("--leaks"),
        alone: flags.has("--alone"),
        data: flags.value("--data")?,
        listen: flags.value("--listen")?,
        rate: flags.value("--rate")?.unwrap_or(200.0),
    };
    flags.finish()?;
    let programs = build()?;
    let data = folder(options.data.as_deref())?;
    let bundles = pack(&programs)?;
    // From here on there is something to end in order.
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone()).context("cannot await signals")?;
    }
    let with_fleet = !options.alone && options.data.is_none();
    let mut fleet = if with_fleet { Some(begin_fleet(&programs, &data)?) } else { None };
    let (mut node, address) = start(&programs, &data, options.listen)?;
    let mut others = Vec::new();
    for thing in OTHERS.iter().filter(|_| with_fleet) {
        let Some(fleet) = &fleet else { continue };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        others.push(start(&programs, &fleet.node_folder(thing), Some(any))?.0);
    }
    let mut feed = match &fleet {
        Some(fleet) => over_the_air(&programs, &data, address, &options, fleet, &bundles, &stop)?,
        None => {
            for bundle in &bundles {
                let mut deploy = command(programs.join("holm"));
                deploy.args(["deploy", "--local"]).arg(bundle).arg("--data").arg(&data);
                // Stdout is for the summary.
                execute(deploy.stdout(Stdio::from(std::io::stderr())))?;
                go_on(&stop)?;
            }
            feed(&programs, &data, address, &options)?
        }
    };
    welcome(address, &programs, &data, fleet.as_ref());
    let started = Instant::now();
    let watched = watch(&programs, &data, &options, &stop, &mut || {
        node.alive()?;
        others.iter_mut().try_for_each(Service::alive)?;
        fleet.as_mut().map_or(Ok(()), Fleet::alive)?;
        feed.alive()
    });
    eprintln!("draining");
    let fed = feed.stop(FEED_DRAIN);
    let ask = |what: &str| -> anyhow::Result<Value> {
        let mut holm = command(programs.join("holm"));
        Ok(serde_json::from_str(&output(holm.args([what, "--json", "--data"]).arg(&data))?)?)
    };
    let (status, functions) = (ask("status"), ask("functions"));
    let rollouts = fleet.as_ref().map(Fleet::rollouts).transpose();
    let drained = node.stop(NODE_DRAIN);
    let rest: Vec<anyhow::Result<()>> = others.iter_mut().map(|node| node.stop(NODE_DRAIN)).collect();
    let ended = fleet.as_mut().map_or(Ok(()), |fleet| fleet.stop(NODE_DRAIN));
    watched?;
    fed?;
    drained?;
    rest.into_iter().collect::<anyhow::Result<()>>()?;
    ended?;
    let report = summary::last_line(&data.join("feed.jsonl"))?;
    let rollouts = rollouts?.unwrap_or_default();
    summary::print(&report, &status?, &functions?, &rollouts, started.elapsed(), options.headless)
}

fn go_on(stop: &AtomicBool) -> anyhow::Result<()> {
    if stop.load(Ordering::Relaxed) {
        bail!("ended before everything was deployed");
    }
    Ok(())
}

/// A control plane with three devices that are enrolled, and not running yet.
fn begin_fleet(programs: &Path, data: &Path) -> anyhow::Result<Fleet> {
    let fleet = Fleet::start(programs, data.with_extension("fleet"))?;
    fleet.make_keys()?;
    fleet.enrol("demo", data)?;
    for thing in OTHERS {
        let folder = fleet.node_folder(thing);
        write_config(&folder, &CONFIG.replace("\"demo\"", &format!("\"{thing}\"")))?;
        fleet.enrol(thing, &folder)?;
    }
    Ok(fleet)
}

/// Everything to all, then a better version by canary while the series runs, and then a worse one. Answers the feeder.
fn over_the_air(
    programs: &Path,
    data: &Path,
    address: SocketAddr,
    options: &Options,
    fleet: &Fleet,
    bundles: &[PathBuf],
    stop: &AtomicBool,
) -> anyhow::Result<Service> {
    let profile = fleet.assemble(1 + OTHERS.len(), "demo")?;
    for bundle in bundles {
        fleet.to_all(&fleet.publish(bundle, &profile)?)?;
        go_on(stop)?;
    }
    let feed = feed(programs, data, address, options)?;
    let examples = root().join("functions/examples");
    let folder = data.with_extension("fleet").join("bundles");
    let [first, ..] = EXAMPLES;
    let better = fleet::reissue(&examples.join(first), BETTER, &folder)?;
    fleet.by_canary(&fleet.publish(&pack_one(programs, &better, &folder)?, &profile)?)?;
    go_on(stop)?;
    fleet.must_fail(&fleet.publish(&pack_one(programs, &examples.join(WORSE), &folder)?, &profile)?)?;
    Ok(feed)
}

/// Builds what is needed, and answers with the folder where the programs are.
fn build() -> anyhow::Result<PathBuf> {
    need_wasm()?;
    execute(&mut cargo(&["build", "--release", "-p", "holm-agent"]))?;
    // A call of their own: together, cargo would give holmd the compiler that holm-compile needs.
    execute(&mut cargo(&["build", "--release", "-p", "holm-cli", "-p", "holm-compiler", "-p", "holm-feed"]))?;
    let metadata = metadata(&["--no-deps"])?;
    let target = metadata.get("target_directory").and_then(Value::as_str).context("cargo tells no target folder")?;
    Ok(Path::new(target).join("release"))
}

/// Makes the node's folder; our own is made anew.
fn folder(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let folder = match given {
        Some(folder) => std::path::absolute(folder)?,
        None => root().join(".holm/demo"),
    };
    if UnixStream::connect(folder.join("admin.sock")).is_ok() {
        bail!("a node runs in {} already: end it, or name another folder with --data", folder.display());
    }
    if given.is_none() && folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    write_config(&folder, CONFIG)?;
    Ok(folder)
}

fn write_config(folder: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let config = folder.join("agent.toml");
    if !config.exists() {
        std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
    }
    Ok(())
}

/// Builds and packs the examples.
fn pack(programs: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let folder = root().join(".holm/bundles");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut bundles = Vec::new();
    for name in EXAMPLES {
        let example = Path::new("functions/examples").join(name);
        if !root().join(&example).join("holm.toml").exists() {
            eprintln!("there is no example {name} here: going on without");
            continue;
        }
        bundles.push(pack_one(programs, &example, &folder)?);
    }
    if bundles.len() < 3 {
        bail!("the demo needs at least three examples in functions/examples");
    }
    Ok(bundles)
}

fn pack_one(programs: &Path, example: &Path, to: &Path) -> anyhow::Result<PathBuf> {
    let mut build = command(programs.join("holm"));
    // Components have a target folder of their own, and none of the flags that are meant for us.
    build.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    let text = output(build.arg("build").arg(example).arg("--json").arg("-o").arg(to))?;
    let built: Value = serde_json::from_str(&text).context("holm build prints no JSON")?;
    Ok(PathBuf::from(built.get("bundle").and_then(Value::as_str).context("holm build names no bundle")?))
}

/// Starts the node, and waits until it says that it is ready.
fn start(programs: &Path, data: &Path, listen: Option<SocketAddr>) -> anyhow::Result<(Service, SocketAddr)> {
    let usual = SocketAddr::from(([127, 0, 0, 1], 1883));
    let listen = listen.unwrap_or_else(|| match TcpListener::bind(usual) {
        Ok(_) => usual,
        Err(_) => {
            eprintln!("{usual} is taken: the node listens on another port");
            SocketAddr::from(([127, 0, 0, 1], 0))
        }
    });
    let log = std::fs::File::create(data.join("holmd.log")).context("cannot write the node's log")?;
    let mut holmd = command(programs.join("holmd"));
    holmd.arg("run").arg("--config").arg(data.join("agent.toml")).arg("--data").arg(data);
    holmd.arg("--listen").arg(listen.to_string()).stdout(Stdio::piped()).stderr(log);
    let mut node = Service::start("holmd", holmd, data.join("holmd.log"))?;
    let out = node.stdout().context("holmd has no stdout")?;
    let (sender, ready) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(out).read_line(&mut line);
        let _ = sender.send(line);
    });
    let line = ready.recv_timeout(START).with_context(|| format!("holmd is not ready: {}", node.told()))?;
    let ready: Value = serde_json::from_str(&line).with_context(|| format!("holmd did not start: {}", node.told()))?;
    let address = ready.get("mqtt").and_then(Value::as_str).context("holmd does not say where MQTT listens")?;
    Ok((node, address.parse().with_context(|| format!("`{address}` is no address"))?))
}

fn feed(programs: &Path, data: &Path, address: SocketAddr, options: &Options) -> anyhow::Result<Service> {
    let out = std::fs::File::create(data.join("feed.jsonl")).context("cannot write the feeder's report")?;
    let log = std::fs::File::create(data.join("feed.log")).context("cannot write the feeder's log")?;
    let mut feed = command(programs.join("holm-feed"));
    feed.args(["--csv", "tests/data/water-flow.csv", "--mqtt", &address.to_string()]);
    feed.args(["--rate", &options.rate.to_string()]).stdout(out).stderr(log);
    if options.leaks {
        feed.arg("--leaks");
    }
    Service::start("holm-feed", feed, data.join("feed.log"))
}

fn welcome(address: SocketAddr, programs: &Path, data: &Path, fleet: Option<&Fleet>) {
    let (host, port) = (address.ip(), address.port());
    // Short where the reader is: in the repository.
    let near = |path: PathBuf| path.strip_prefix(root()).unwrap_or(&path).display().to_string();
    let (holm, data) = (near(programs.join("holm")), near(data.to_owned()));
    let fleet = fleet.map(Fleet::welcome).unwrap_or_default();
    eprintln!(
        "
A node runs. Take part from another terminal:
  mosquitto_sub -h {host} -p {port} -t 'alerts/#' -v
  mosquitto_pub -h {host} -p {port} -q 1 -t sensors/me/temp -m '{{\"id\":\"me\",\"t\":31.5,\"seq\":1}}'
  {holm} --data {data} events -f
  {holm} --data {data} results water-loss --limit 5
{fleet}Ctrl-C (or q) ends it in order.
"
    );
}

/// Shows the node until somebody or something ends it.
fn watch(
    programs: &Path,
    data: &Path,
    options: &Options,
    stop: &AtomicBool,
    alive: &mut dyn FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut top = command(programs.join("holm"));
    top.arg("top").arg("--data").arg(data);
    if options.headless {
        top.args(["--json", "--every", "5"]);
    }
    // Not a service: it shares the terminal with us, and its Ctrl-C.
    let mut top = top.spawn().context("cannot run holm top")?;
    let deadline = options.limit.map(|limit| Instant::now() + limit);
    let result = loop {
        if stop.load(Ordering::Relaxed) || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break Ok(());
        }
        if let Some(status) = top.try_wait()? {
            break if status.success() { Ok(()) } else { Err(anyhow::anyhow!("holm top ended: {status}")) };
        }
        if let Err(error) = alive() {
            break Err(error);
        }
        std::thread::sleep(LOOK);
    };
    // It gives the terminal back before anything else is written to it.
    service::end(&mut top, FEED_DRAIN)?;
    result
}
