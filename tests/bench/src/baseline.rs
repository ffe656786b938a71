//! The baseline: the same work in a native Rust client behind mosquitto, without a sandbox and without durability.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rumqttc::{AsyncClient, Event, MqttOptions, NetworkOptions, Packet, PublishOptions, QoS};
use serde::{Deserialize, Serialize};

/// Of Debian's package, which the path of a user does not always reach.
const MOSQUITTO: &str = "/usr/sbin/mosquitto";

/// As committed beside this crate.
const CONFIGURATION: &str = include_str!("../mosquitto.conf");

/// Unacknowledged messages the client may have: more than the generator's window makes.
const INFLIGHT: u16 = 128;

/// Requests that rumqttc takes in one turn; found by trying, to give the baseline its best.
pub const BATCH: usize = 64;

/// A process that ends with us.
pub struct Owned(Child);

impl Owned {
    /// Its id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts mosquitto on a free port; answers with its address.
pub fn mosquitto(folder: &Path) -> anyhow::Result<(Owned, String)> {
    // Free a moment ago. Whoever takes it meanwhile makes mosquitto end, which shows.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let file = folder.join("mosquitto.conf");
    std::fs::write(&file, format!("{CONFIGURATION}listener {port} 127.0.0.1\n"))?;
    let child = Command::new(MOSQUITTO)
        .arg("-c")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {MOSQUITTO}: apt-get install mosquitto"))?;
    let (owned, address) = (Owned(child), format!("127.0.0.1:{port}"));
    let deadline = Instant::now() + Duration::from_secs(5);
    while std::net::TcpStream::connect(&address).is_err() {
        if Instant::now() > deadline {
            bail!("mosquitto does not listen on {address}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok((owned, address))
}

/// Starts the native client in a process of its own, and waits until it has subscribed.
pub fn client(address: &str, qos: u8, stateful: bool, batch: usize) -> anyhow::Result<Owned> {
    let port = address.rsplit_once(':').map_or("", |(_, port)| port);
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["client", "--port", port, "--qos", &qos.to_string(), "--batch", &batch.to_string()])
        .stdout(Stdio::piped());
    if stateful {
        command.arg("--stateful");
    }
    let mut child = command.spawn().context("cannot start the native client")?;
    let out = child.stdout.take().context("no pipe")?;
    let owned = Owned(child);
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    if line.trim() != "ready" {
        bail!("the native client did not subscribe");
    }
    Ok(owned)
}

#[derive(Deserialize)]
struct Reading<'a> {
    id: &'a str,
    t: f64,
    seq: u64,
}

#[derive(Serialize)]
struct Scaled {
    seq: u64,
    f: f64,
}

#[derive(Serialize)]
struct Alert {
    seq: u64,
    t: f64,
}

/// The native client itself: one thread.
pub fn run_client(port: u16, qos: u8, stateful: bool, batch: usize) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let qos = if qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        let mut options = MqttOptions::new("native", ("127.0.0.1", port));
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        // It looks through all packet ids that can be in use whenever it is polled: with the 65,535 of its default that
        // takes it half a millisecond for every event.
        options.set_outgoing_inflight_upper_limit(INFLIGHT);
        // Sends what is waiting in one write, as far as rumqttc does.
        options.set_max_request_batch(batch);
        let (client, mut events) = AsyncClient::builder(options).capacity(8192).build();
        client.subscribe(if stateful { "w2/#" } else { "sensors/+/temp" }, qos).await?;
        let mut state = State::default();
        loop {
            match events.poll().await? {
                Event::Incoming(Packet::SubAck(_)) => {
                    println!("ready");
                    std::io::stdout().flush()?;
                }
                Event::Incoming(Packet::Publish(publish)) if stateful => {
                    if publish.payload == b"end"[..] {
                        let answer = format!("{{\"seq\":{}}}", state.events);
                        client.try_publish("done/x", answer, PublishOptions::new(qos))?;
                    } else {
                        state.handle(&publish.topic, &publish.payload);
                    }
                }
                Event::Incoming(Packet::Publish(publish)) => {
                    let reading: Reading<'_> = serde_json::from_slice(&publish.payload)?;
                    let scaled = Scaled { seq: reading.seq, f: reading.t * 1.8 + 32.0 };
                    let topic = ["out/", reading.id, "/fahrenheit"].concat();
                    client.try_publish(topic, serde_json::to_vec(&scaled)?, PublishOptions::new(qos))?;
                    if reading.t > 30.0 {
                        let alert = Alert { seq: reading.seq, t: reading.t };
                        let topic = ["alerts/", reading.id].concat();
                        client.try_publish(topic, serde_json::to_vec(&alert)?, PublishOptions::new(qos))?;
                    }
                }
                _ => {}
            }
        }
    })
}

/// W2's state, in memory.
#[derive(Default)]
struct State {
    events: u64,
    functions: std::collections::HashMap<(Vec<u8>, u8), (u64, u64)>,
}

impl State {
    /// Two functions match every event.
    fn handle(&mut self, topic: &[u8], payload: &[u8]) {
        self.events += 1;
        for function in 0..2 {
            let digest = payload
                .iter()
                .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
            let entry = self.functions.entry((topic.to_vec(), function)).or_default();
            *entry = (entry.0 + 1, digest);
        }
    }
}
