//! A node of our own: a real `holmd` in a child process, with a data folder of ours, for `holm test` and `holm dev`.
//! It ends with us, however we end: it is tethered to our end of its stdin.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use holm_core::{ErrorCode, Manifest, Timestamp, TriggerKind};
use serde_json::Value;

use crate::client::Client;
use crate::failure::Failure;
use crate::programs;

/// The project's file that says what its nodes have.
pub(crate) const NODE: &str = "node.toml";

/// The simulator's profile.
const BOARD: &str = "host-sim";

/// What every node of ours is told: a new version is there at once, and no control plane is asked for.
const BASE: &str = "[functions]\nhealth_window = \"0ms\"\nquarantine_after = 0\n[cloud]\nenabled = false\n";

/// What manifests ask for beyond a board, unless the project's file says where it is: a listener for requests on any
/// port, and folders in the data folder.
pub(crate) fn outside(manifests: &[&Manifest], node: Option<&Path>) -> Result<String, Failure> {
    let text = match node {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?,
        None => String::new(),
    };
    // What is wrong with it, the node will say.
    let said: toml::Table = toml::from_str(&text).unwrap_or_default();
    let bound = |name: &str| {
        let folders = said.get("folder").and_then(toml::Value::as_array).into_iter().flatten();
        folders.filter_map(|folder| folder.get("name")?.as_str()).any(|known| known == name)
    };
    let mut more = String::new();
    let mut folders = BTreeSet::new();
    for trigger in manifests.iter().flat_map(|manifest| &manifest.triggers) {
        match &trigger.kind {
            TriggerKind::Http(_) if !said.contains_key("http") && !more.contains("[http]") => {
                more.push_str("[http]\nlisten = \"127.0.0.1:0\"\n");
            }
            TriggerKind::File(trigger) if !bound(trigger.folder.as_str()) => {
                folders.insert(trigger.folder.clone());
            }
            _ => {}
        }
    }
    for folder in folders {
        more.push_str(&format!("[[folder]]\nname = \"{folder}\"\npath = \"folders/{folder}\"\n"));
    }
    Ok(more)
}

/// How a node of ours is started.
pub(crate) struct Start<'a> {
    /// The data folder. Its path must be short: a socket will be in it.
    pub(crate) data: &'a Path,
    /// node.toml of the project, if it has one.
    pub(crate) node: Option<&'a Path>,
    /// More lines of agent.toml.
    pub(crate) more: &'a str,
    /// Where MQTT is served.
    pub(crate) listen: &'a str,
    /// Where the clock stands; `None` for one that runs.
    pub(crate) clock: Option<Timestamp>,
}

/// A node that runs. Killed when dropped: it promises nothing that we would miss.
pub(crate) struct OwnNode {
    child: Child,
    log: PathBuf,
    /// Where MQTT is served.
    pub(crate) mqtt: String,
    /// Where requests are listened for; empty where nobody asks for that.
    pub(crate) http: String,
    /// Its admin socket.
    pub(crate) client: Client,
}

impl Start<'_> {
    /// Starts it, and waits until it is ready.
    pub(crate) fn run(&self) -> Result<OwnNode, Failure> {
        let holmd = programs::holmd()?;
        let failed = |what: &str, error: &dyn std::fmt::Display| Failure::new(format!("{what}: {error}"));
        let config = self.data.join("agent.toml");
        let layers = self.data.join("agent.d");
        let log = self.data.join("log");
        let written = std::fs::create_dir_all(&layers)
            .and_then(|()| std::fs::write(&config, BASE))
            .and_then(|()| match self.node {
                Some(node) => std::fs::copy(node, layers.join("1-node.toml")).map(drop),
                // It may be there from a run that had one.
                None => match std::fs::remove_file(layers.join("1-node.toml")) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                },
            })
            .and_then(|()| std::fs::write(layers.join("2-more.toml"), self.more))
            .and_then(|()| std::fs::File::create(&log));
        let file = written.map_err(|error| failed(&format!("cannot write in {}", self.data.display()), &error))?;
        let mut command = Command::new(&holmd);
        command.arg("run").arg("--config").arg(&config).arg("--data").arg(self.data);
        command.args(["--listen", self.listen, "--board", BOARD, "--tape", "--tether"]);
        if let Some(clock) = self.clock {
            // Cron goes by local time, and a case must not depend on where it is run.
            command.args(["--clock", &clock.0.to_string()]).env("TZ", "UTC");
        }
        if std::env::var_os("HOLM_LOG").is_none() {
            command.env("HOLM_LOG", "warn");
        }
        // A Ctrl-C is for us to act on: the node ends when we have said what there is to say.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file).env_remove("JOURNAL_STREAM").process_group(0);
        let child = command.spawn().map_err(|error| failed(&format!("cannot run {}", holmd.display()), &error))?;
        let client = Client::new(self.data.to_owned());
        let mut node = OwnNode { child, log, mqtt: String::new(), http: String::new(), client };
        let mut line = String::new();
        if let Some(out) = node.child.stdout.take() {
            BufReader::new(out).read_line(&mut line).map_err(|error| failed("cannot hear the node", &error))?;
        }
        match serde_json::from_str::<Value>(&line) {
            Ok(ready) => {
                let text = |name: &str| ready.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
                (node.mqtt, node.http) = (text("mqtt"), text("http"));
                Ok(node)
            }
            Err(_) => Err(node.why()),
        }
    }
}

impl OwnNode {
    /// Why it did not start, in its own words.
    fn why(&mut self) -> Failure {
        let _ = self.child.wait();
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        // Its log says more than people want to know; what it has to say to them, it says in its own name.
        let mut words: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("holmd: ")).collect();
        if words.is_empty() {
            words = text.lines().collect();
        }
        let words: String = words.iter().rev().take(20).rev().map(|line| format!("{line}\n")).collect();
        let failure =
            Failure::new(format!("the node did not start: {}", words.trim_end())).page(ErrorCode::NodeNotStarted);
        match words {
            words if words.contains("cannot listen") => {
                failure.next("name another address with --listen, such as 127.0.0.1:0 for any that is free")
            }
            words if words.contains(NODE) || words.contains("problem") => {
                failure.next(format!("mend {NODE}: it is what a device's agent.toml would be"))
            }
            _ => failure.next(format!("see {}", self.log.display())),
        }
    }

    /// Whether it has ended by itself, and why.
    pub(crate) fn ended(&mut self) -> Option<Failure> {
        match self.child.try_wait() {
            Ok(Some(_)) => Some(self.why()),
            _ => None,
        }
    }

    /// Lets it end in its own time: what it has is kept.
    pub(crate) fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        if rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_ok() {
            let _ = self.child.wait();
        }
    }
}

impl Drop for OwnNode {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
