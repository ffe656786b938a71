//! A real `holmd` in a process of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::admin::Admin;

/// A running node. Killed when dropped.
pub struct Node {
    child: Child,
    /// Where it says what it says after it was ready, to nobody.
    _stdout: BufReader<std::process::ChildStdout>,
    /// `holmd` itself, which is not the child when it runs under strace.
    pub pid: u32,
    /// Where MQTT is served; empty for a node that is a client of another broker.
    pub mqtt: String,
    /// Where MQTT is served with TLS.
    pub mqtts: Option<String>,
    /// Where requests are listened for, on a node that is told to.
    pub http: Option<String>,
    /// Its admin socket.
    pub admin: Admin,
}

/// How a node is started.
#[derive(Debug, Clone)]
pub struct Start<'a> {
    /// The data folder.
    pub data: &'a Path,
    /// More lines for agent.toml.
    pub config: &'a str,
    /// A deliberate fault.
    pub mutant: Option<&'a str>,
    /// A program to run it under, such as strace, with its arguments.
    pub under: &'a [String],
    /// Another `holmd` than the one that was built for the tests.
    pub holmd: Option<&'a Path>,
}

impl<'a> Start<'a> {
    /// With defaults.
    pub fn new(data: &'a Path) -> Self {
        Self { data, config: "", mutant: None, under: &[], holmd: None }
    }

    /// Starts it and waits until it is ready. `None` if it ended before that.
    pub fn try_run(&self) -> Option<Node> {
        std::fs::create_dir_all(self.data).unwrap();
        let config = self.data.join("agent.toml");
        std::fs::write(&config, self.config).unwrap();
        let holmd = self.holmd.map_or_else(|| binary("holmd"), Path::to_owned);
        let mut command = match self.under {
            [] => Command::new(&holmd),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&holmd);
                command
            }
        };
        command.args(["run", "--config"]).arg(&config).arg("--data").arg(self.data);
        if !self.config.contains("mode = \"external\"") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let log = std::fs::File::options().create(true).append(true).open(self.data.join("log")).unwrap();
        command.stdout(Stdio::piped()).stderr(log).env("HOLM_LOG", "info").env_remove("HOLM_MUTANT");
        if let Some(mutant) = self.mutant {
            command.env("HOLM_MUTANT", mutant);
        }
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let Ok(ready) = serde_json::from_str::<serde_json::Value>(&line) else {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        };
        assert_eq!(ready["event"], "ready", "{line}");
        let pid = u32::try_from(ready["pid"].as_u64().unwrap()).unwrap();
        let text = |key: &str| ready[key].as_str().map(str::to_owned);
        Some(Node {
            child,
            _stdout: stdout,
            pid,
            mqtt: text("mqtt").unwrap_or_default(),
            mqtts: text("mqtts"),
            http: text("http"),
            admin: Admin::new(self.data),
        })
    }

    /// Starts it and waits until it is ready.
    pub fn run(&self) -> Node {
        self.try_run().unwrap_or_else(|| panic!("holmd did not start:\n{}", log(self.data)))
    }
}

impl Node {
    /// SIGKILL, and waits for the end.
    pub fn kill(mut self) {
        signal(self.pid, "KILL");
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for the end, which must be clean.
    pub fn stop(mut self) {
        signal(self.pid, "TERM");
        let status = self.child.wait().unwrap();
        assert!(status.success(), "holmd ended with {status}");
    }

    /// Waits until it has ended by itself.
    pub fn wait(mut self) {
        let _ = self.child.wait();
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(self.pid, "KILL");
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Sends a signal by its name, such as `KILL`.
pub(crate) fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).stderr(Stdio::null()).status();
}

/// The end of a node's log.
pub fn log(data: &Path) -> String {
    let text = std::fs::read_to_string(data.join("log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// A binary of this workspace, beside the test that asks.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.ancestors().find(|folder| folder.join(name).is_file());
    let folder = folder.unwrap_or_else(|| panic!("{name} is not built: run `cargo xtask test`"));
    folder.join(name)
}
