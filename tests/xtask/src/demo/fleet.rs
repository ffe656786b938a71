//! The demo's control plane, and what goes over the air: releases to three nodes, one by canary, and one that takes itself back.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::service::Service;
use crate::shell::{command, output, root};

/// All nodes are in it.
const GROUP: &str = "demo";

/// And one of them, which is fed, in this one too.
const CANARY: &str = "canary";

/// The exit code of a rollout that was taken back.
const ROLLED_BACK: i32 = 4;

/// For the first start, which makes keys and certificates.
const START: Duration = Duration::from_secs(60);

/// A control plane, and a laptop that is logged in at it.
pub struct Fleet {
    service: Service,
    holm: PathBuf,
    holmd: PathBuf,
    laptop: PathBuf,
    folder: PathBuf,
    url: String,
    ca_hash: String,
    token: String,
}

/// A release as it was published.
pub struct Release {
    function: String,
    version: String,
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.function, self.version)
    }
}

impl Fleet {
    /// Starts a control plane in a fresh folder.
    pub fn start(programs: &Path, folder: PathBuf) -> anyhow::Result<Self> {
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        let laptop = folder.join("laptop");
        std::fs::create_dir_all(&laptop).with_context(|| format!("cannot make {}", laptop.display()))?;
        let usual = SocketAddr::from(([127, 0, 0, 1], 8443));
        let https = if TcpListener::bind(usual).is_ok() { usual } else { SocketAddr::from(([127, 0, 0, 1], 0)) };
        let log = folder.join("cloud.log");
        let holm = programs.join("holm");
        let mut cloud = command(&holm);
        cloud.args(["cloud", "--https", &https.to_string(), "--mqtt", "127.0.0.1:0", "--name", "localhost", "--data"]);
        cloud.arg(folder.join("cloud")).stdout(Stdio::piped());
        cloud.stderr(std::fs::File::create(&log).context("cannot write the control plane's log")?);
        let mut service = Service::start("holm cloud", cloud, log)?;
        let out = service.stdout().context("holm cloud has no stdout")?;
        let (sender, lines) = std::sync::mpsc::sync_channel(4);
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let (mut token, mut ready) = (None, None);
        while ready.is_none() {
            let line = lines.recv_timeout(START).with_context(|| format!("no control plane: {}", service.told()))?;
            let event: Value = serde_json::from_str(&line).with_context(|| format!("`{line}` is no event"))?;
            match event.get("event").and_then(Value::as_str) {
                Some("made") => token = text(&event, "token"),
                _ => ready = Some(event),
            }
        }
        let ready = ready.unwrap_or_default();
        let https = text(&ready, "https").context("the control plane does not say where it is")?;
        let port = https.rsplit(':').next().unwrap_or_default();
        let url = format!("https://localhost:{port}");
        let ca_hash = text(&ready, "ca_hash").context("the control plane does not say whom to trust")?;
        let token = token.context("the control plane made no token")?;
        Ok(Self { service, holm, holmd: programs.join("holmd"), laptop, folder, url, ca_hash, token })
    }

    /// `holm` as the operator has it.
    fn holm(&self, words: &[&str]) -> Command {
        let mut holm = command(&self.holm);
        holm.args(words).env("HOLM_CLOUD", &self.url).env("HOLM_TOKEN", &self.token);
        holm.env("HOLM_CA", self.folder.join("cloud/ca/root.crt")).env("XDG_CONFIG_HOME", &self.laptop);
        holm
    }

    /// Where a node other than the first has its data.
    pub fn node_folder(&self, thing: &str) -> PathBuf {
        self.folder.join(thing)
    }

    /// Lets a node in, which is not running yet.
    pub fn enrol(&self, thing: &str, data: &Path) -> anyhow::Result<()> {
        let answer = output(&mut self.holm(&["device", "enrol-token", "--group", GROUP, "--json"]))?;
        let answer: Value = serde_json::from_str(&answer).context("holm device enrol-token prints no JSON")?;
        let token = text(&answer, "token").context("there is no token")?;
        let mut holmd = command(&self.holmd);
        holmd.args(["enrol", "--cloud", &self.url, "--ca-hash", &self.ca_hash, "--token", &token, "--thing", thing]);
        output(holmd.arg("--data").arg(data)).map(|_| ())
    }

    /// Waits until so many nodes are there, and makes one of them the canary. Answers the engine profile of all of them.
    pub fn assemble(&self, nodes: usize, canary: &str) -> anyhow::Result<String> {
        let deadline = std::time::Instant::now() + START;
        let devices = loop {
            let devices: Vec<Value> = output(&mut self.holm(&["fleet", "--json"]))?
                .lines()
                .map(serde_json::from_str)
                .collect::<Result<_, _>>()
                .context("holm fleet prints no JSON")?;
            let online = devices.iter().filter(|device| device.get("connected") == Some(&Value::Bool(true))).count();
            if online >= nodes {
                break devices;
            }
            if std::time::Instant::now() >= deadline {
                bail!("{online} of {nodes} nodes have come to the control plane: {}", self.service.told());
            }
            std::thread::sleep(super::LOOK);
        };
        output(&mut self.holm(&["device", "groups", canary, "--add", CANARY]))?;
        let profile = devices.first().and_then(|device| device.pointer("/agent/profile")?.as_str().map(str::to_owned));
        profile.context("no node says what it runs on")
    }

    /// Makes the keys that releases are signed with.
    pub fn make_keys(&self) -> anyhow::Result<()> {
        output(&mut self.holm(&["key", "new", "--cloud"])).map(|_| ())
    }

    /// Signs a bundle, with native code, and publishes it.
    pub fn publish(&self, bundle: &Path, profile: &str) -> anyhow::Result<Release> {
        let mut publish = self.holm(&["publish", "--json", "--profile", profile]);
        let answer: Value =
            serde_json::from_str(&output(publish.arg(bundle))?).context("holm publish prints no JSON")?;
        let function = text(&answer, "function").context("holm publish names no function")?;
        let version = text(&answer, "version").context("holm publish names no version")?;
        Ok(Release { function, version })
    }

    /// To all nodes at once.
    pub fn to_all(&self, release: &Release) -> anyhow::Result<()> {
        let status = self.deploy(release, &["--stages", "100%", "--health-window", "1s"])?;
        if status.success() { Ok(()) } else { bail!("{release} did not come to run everywhere: {status}") }
    }

    /// By canary: must come to run everywhere.
    pub fn by_canary(&self, release: &Release) -> anyhow::Result<()> {
        let status = self.deploy(release, &["--canary", CANARY, "--soak", "3s", "--health-window", "3s"])?;
        if status.success() { Ok(()) } else { bail!("{release} did not come to run everywhere: {status}") }
    }

    /// By canary: must be taken back.
    pub fn must_fail(&self, release: &Release) -> anyhow::Result<()> {
        let status = self.deploy(release, &["--canary", CANARY, "--health-window", "10s"])?;
        if status.code() == Some(ROLLED_BACK) { Ok(()) } else { bail!("{release} was not taken back: {status}") }
    }

    fn deploy(&self, release: &Release, more: &[&str]) -> anyhow::Result<ExitStatus> {
        let what = release.to_string();
        let words = [&["deploy", &what, "--group", GROUP, "--watch", "--timeout", "2m"][..], more].concat();
        eprintln!("\n> holm {}", words.join(" "));
        // Stdout is for the summary.
        let status = self.holm(&words).stdout(Stdio::from(std::io::stderr())).status();
        status.with_context(|| format!("cannot run {}", self.holm.display()))
    }

    /// How to take part.
    pub fn welcome(&self) -> String {
        let near = |path: &Path| path.strip_prefix(root()).unwrap_or(path).display().to_string();
        format!(
            "  export HOLM_CLOUD={url} HOLM_TOKEN={token} HOLM_CA={} XDG_CONFIG_HOME={}\n  {holm} fleet\n  {holm} rollout list\n\
             In a browser: {url}\n  sign in with the token {token}\n  the browser warns of an authority that it does not know; the root's SHA-256 is {hash}\n",
            near(&self.folder.join("cloud/ca/root.crt")),
            near(&self.laptop),
            holm = near(&self.holm),
            url = self.url,
            token = self.token,
            hash = self.ca_hash,
        )
    }

    /// What the control plane knows in the end: rollouts, as JSON.
    pub fn rollouts(&self) -> anyhow::Result<Vec<Value>> {
        let lines = output(&mut self.holm(&["rollout", "list", "--json"]))?;
        lines.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("holm rollout list prints no JSON")
    }

    /// An error if it has ended.
    pub fn alive(&mut self) -> anyhow::Result<()> {
        self.service.alive()
    }

    /// Ends it in order.
    pub fn stop(&mut self, limit: Duration) -> anyhow::Result<()> {
        self.service.stop(limit)
    }
}

fn text(value: &Value, name: &str) -> Option<String> {
    value.get(name).and_then(Value::as_str).map(str::to_owned)
}

/// The folder of the same function in another version: the component that is there, and another manifest.
pub fn reissue(example: &Path, version: &str, to: &Path) -> anyhow::Result<PathBuf> {
    let manifest = example.join("holm.toml");
    let text = std::fs::read_to_string(&manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
    let mut lines = Vec::new();
    for line in text.lines() {
        let key = line.split('=').next().unwrap_or_default().trim();
        match key {
            "version" => lines.push(format!("version = \"{version}\"")),
            // It is built already.
            "command" => {}
            "source" => {
                let source = line.split('"').nth(1).context("the manifest names no source")?;
                lines.push(format!("source = \"{}\"", example.join(source).display()));
            }
            _ => lines.push(line.to_owned()),
        }
    }
    std::fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    std::fs::write(to.join("holm.toml"), lines.join("\n") + "\n").context("cannot write a manifest")?;
    Ok(to.to_owned())
}
