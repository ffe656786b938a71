//! A real `holmd` in a process of its own, and its admin socket.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// The profile that is shipped.
const SHIPPED: &str = "dist";

/// A running node. Killed when dropped.
pub struct Holmd {
    child: Child,
    data: PathBuf,
    /// Its process.
    pub pid: u32,
    /// Where MQTT is served.
    pub mqtt: String,
}

impl Holmd {
    /// The program as it is shipped, in the folder of its profile beside this one's.
    pub fn program() -> anyhow::Result<PathBuf> {
        let here = std::env::current_exe()?;
        let target = here.parent().and_then(Path::parent).context("this program is in no target folder")?;
        Ok(target.join(SHIPPED).join("holmd"))
    }

    /// Starts it on a data folder and waits until it is ready.
    pub fn start(data: &Path) -> anyhow::Result<Self> {
        Self::start_with(data, "", true)
    }

    /// Starts it as a client of the broker at `address`, and waits until it has subscribed there.
    pub fn start_external(data: &Path, address: &str) -> anyhow::Result<Self> {
        let this = Self::start_with(
            data,
            &format!("[mqtt]\nmode = \"external\"\n[mqtt.external]\naddress = \"{address}\"\n"),
            false,
        )?;
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let status = this.get("/v1/status")?;
            let link = status.get("external").and_then(|link| link.get("connected"));
            if link.and_then(Value::as_bool) == Some(true) {
                // The subscriptions follow at once.
                std::thread::sleep(Duration::from_millis(300));
                return Ok(this);
            }
            if Instant::now() > deadline {
                bail!("holmd does not reach {address}: {status}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts it with more lines of `[functions]`.
    pub fn start_functions(data: &Path, lines: &str) -> anyhow::Result<Self> {
        Self::start_with(data, lines, true)
    }

    /// Starts it with sensors and lines.
    pub fn start_board(data: &Path, config: &str) -> anyhow::Result<Self> {
        Self::start_with(data, config, true)
    }

    fn start_with(data: &Path, more: &str, listens: bool) -> anyhow::Result<Self> {
        std::fs::create_dir_all(data)?;
        let configuration = data.join("agent.toml");
        // No watching of new versions: nothing runs while they are deployed. The compiler is not what is measured.
        let compiler = std::env::current_exe()?.with_file_name("holm-compile");
        std::fs::write(
            &configuration,
            format!("[functions]\nhealth_window = \"0ms\"\ncompiler = {compiler:?}\n{more}"),
        )?;
        let log = std::fs::File::options().create(true).append(true).open(data.join("log"))?;
        let program = Self::program()?;
        let mut child = Command::new(&program)
            .args(["run", "--config"])
            .arg(&configuration)
            // With a broker of its own, on any port.
            .args(if listens { &["--listen", "127.0.0.1:0"][..] } else { &[] })
            .arg("--data")
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let ready: Value = serde_json::from_str(&line).unwrap_or_default();
        let address = |name: &str| ready.get(name).and_then(Value::as_str).map(str::to_owned);
        let mqtt = address("mqtt").or_else(|| address("external"));
        let pid = child.id();
        let this = Self { child, data: data.to_owned(), pid, mqtt: mqtt.clone().unwrap_or_default() };
        if mqtt.is_none() {
            bail!("holmd did not start: {}", std::fs::read_to_string(data.join("log")).unwrap_or_default());
        }
        Ok(this)
    }

    /// SIGTERM, and waits for the end, which must be clean.
    pub fn stop(mut self) -> anyhow::Result<()> {
        Command::new("kill").arg(self.pid.to_string()).status()?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { bail!("holmd ended with {status}") }
    }

    /// GET of the admin socket.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.request("GET", path, &[])
    }

    /// What the status says under two keys.
    pub fn figure(&self, group: &str, name: &str) -> anyhow::Result<u64> {
        let status = self.get("/v1/status")?;
        let value = status.get(group).and_then(|group| group.get(name)).and_then(Value::as_u64);
        value.with_context(|| format!("no {group}.{name} in {status}"))
    }

    /// Deploys a bundle.
    pub fn deploy(&self, bundle: &[u8]) -> anyhow::Result<()> {
        let report = self.request("POST", "/v1/deploy", bundle)?;
        let outcome = report.get("outcome").and_then(Value::as_str).unwrap_or_default();
        if outcome.starts_with("confirmed") { Ok(()) } else { bail!("not deployed: {report}") }
    }

    fn request(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Value> {
        let mut stream = UnixStream::connect(self.data.join("admin.sock"))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: holm\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        )?;
        stream.write_all(body)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        if head.split(' ').nth(1) != Some("200") {
            bail!("{method} {path}: {answer}");
        }
        Ok(serde_json::from_str(body)?)
    }
}

impl Drop for Holmd {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
