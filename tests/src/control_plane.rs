//! A real `holm cloud` in a process of its own, and its API, spoken plainly.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use crate::node::{binary, signal};

/// A running control plane. Killed when dropped.
pub struct ControlPlane {
    child: Child,
    data: PathBuf,
    start: Start,
    /// Where HTTPS is served.
    pub https: String,
    /// Where MQTT is served.
    pub mqtt: String,
    /// The operator's token, from the first start.
    pub token: String,
    /// The SHA-256 of the root certificate.
    pub ca_hash: String,
}

/// How a control plane is started.
#[derive(Debug, Clone)]
pub struct Start {
    /// Its own is `cloud` in it.
    pub folder: PathBuf,
    /// Where to serve HTTPS.
    pub https: String,
    /// Where to serve MQTT.
    pub mqtt: String,
    /// The operator's token, if it was started before.
    pub token: String,
    /// Names that it is known by; devices are told the first.
    pub names: Vec<String>,
    /// A program to run it under, such as strace, with its arguments.
    pub under: Vec<String>,
}

impl Start {
    /// On free ports.
    pub fn new(folder: &Path) -> Self {
        let free = "127.0.0.1:0".to_owned();
        Self {
            folder: folder.to_owned(),
            https: free.clone(),
            mqtt: free,
            token: String::new(),
            names: Vec::new(),
            under: Vec::new(),
        }
    }

    /// Starts it and waits until it is ready. `None` if it ended before that.
    pub fn try_run(&self) -> Option<ControlPlane> {
        let Self { folder, https, mqtt, token, names, under } = self;
        let data = folder.join("cloud");
        let mut command = match under.as_slice() {
            [] => Command::new(binary("holm")),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(binary("holm"));
                command
            }
        };
        command.arg("cloud").arg("--data").arg(&data).args(["--https", https, "--mqtt", mqtt]);
        command.args(names.iter().flat_map(|name| ["--name", name]));
        let log = std::fs::File::options().create(true).append(true).open(folder.join("cloud.log")).unwrap();
        command.stdout(Stdio::piped()).stderr(log).env("HOLM_LOG", "info");
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (https, mqtt, ca_hash) = (String::new(), String::new(), String::new());
        let mut this = ControlPlane { child, data, start: self.clone(), https, mqtt, token: token.clone(), ca_hash };
        for line in out.lines() {
            let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            match event["event"].as_str().unwrap() {
                "made" => this.token = text("token"),
                "ready" => {
                    (this.https, this.mqtt, this.ca_hash) = (text("https"), text("mqtt"), text("ca_hash"));
                    return Some(this);
                }
                other => panic!("{other}"),
            }
        }
        None
    }

    /// Starts it and waits until it is ready.
    pub fn run(&self) -> ControlPlane {
        let log = self.folder.join("cloud.log");
        self.try_run().unwrap_or_else(|| panic!("holm cloud did not start: see {}", log.display()))
    }
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    /// Such as 200.
    pub status: u16,
    /// Everything before the body.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of an error.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl ControlPlane {
    /// Starts one in a folder of its own under `folder`, on free ports.
    pub fn start(folder: &Path) -> Self {
        Start::new(folder).run()
    }

    /// One that is known by these names too; devices are told the first.
    pub fn named(folder: &Path, names: &[&str]) -> Self {
        Start { names: names.iter().map(|name| (*name).to_owned()).collect(), ..Start::new(folder) }.run()
    }

    /// One that listens on every address of this machine; devices are told `name`, the test speaks to it on loopback.
    pub fn everywhere(folder: &Path, name: &str) -> Self {
        let every = || "0.0.0.0:0".to_owned();
        let start = Start { https: every(), mqtt: every(), names: vec![name.to_owned()], ..Start::new(folder) };
        let mut this = start.run();
        this.https = this.https.replace("0.0.0.0", "127.0.0.1");
        this
    }

    /// How to start it again where it was.
    pub fn again(&self) -> Start {
        let (https, mqtt, token) = (self.https.clone(), self.mqtt.clone(), self.token.clone());
        Start { https, mqtt, token, ..self.start.clone() }
    }

    /// SIGKILL, and starts it again where it was.
    pub fn kill_and_restart(&mut self) {
        signal(self.pid(), "KILL");
        self.restart();
    }

    /// SIGTERM, which must end well, and starts it again where it was.
    pub fn stop_and_restart(&mut self) {
        signal(self.pid(), "TERM");
        let status = self.child.wait().unwrap();
        assert!(status.success(), "holm cloud ended with {status}");
        self.restart();
    }

    /// SIGKILL; something is done to its folder, and it is started again where it was.
    pub fn replace(mut self, work: impl FnOnce(&Path)) -> Self {
        signal(self.pid(), "KILL");
        let _ = self.child.wait();
        work(&self.data);
        self.restart();
        self
    }

    fn restart(&mut self) {
        let _ = self.child.wait();
        let again = self.again().run();
        drop(std::mem::replace(self, again));
    }

    /// SIGTERM, and waits for the end, which must be clean.
    pub fn stop(mut self) {
        signal(self.pid(), "TERM");
        let status = self.child.wait().unwrap();
        assert!(status.success(), "holm cloud ended with {status}");
    }

    /// Its folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its process, which is not the child when it runs under strace.
    pub fn pid(&self) -> u32 {
        let child = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{child}/task/{child}/children")).unwrap_or_default();
        let traced = self.start.under.first().is_some_and(|program| program == "strace");
        children.split_whitespace().next().filter(|_| traced).and_then(|pid| pid.parse().ok()).unwrap_or(child)
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// What trusts its root, and may show a certificate.
    pub fn trust(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.data.join("ca/root.crt")).unwrap()).unwrap();
        roots
    }

    /// As the operator; the answer must be good.
    pub fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, Some(&self.token), b"");
        assert_eq!(answer.status, 200, "GET {path}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    /// As the operator.
    pub fn send(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.ask(method, path, Some(&self.token), body)
    }

    /// A new enrolment token.
    pub fn enrolment_token(&self, group: &str) -> String {
        let body = format!(r#"{{"group":"{group}"}}"#);
        let answer = self.send("POST", "/v1/enrolment-tokens", body.as_bytes());
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["token"].as_str().unwrap().to_owned()
    }

    /// One request on one connection.
    pub fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &[u8]) -> Answer {
        self.ask_with(method, path, token, "", body).unwrap()
    }

    /// The same with more lines in its head, each ended.
    pub fn ask_with(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        more: &str,
        body: &[u8],
    ) -> io::Result<Answer> {
        let config = client_config().with_root_certificates(self.trust()).with_no_client_auth();
        let mut stream = tls(&self.https, config)?;
        let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let (host, length) = (&self.https, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{authorization}{more}Content-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer)
            && error.kind() != io::ErrorKind::UnexpectedEof
        {
            return Err(error);
        }
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = &answer[end + 4..];
        let body =
            if head.to_lowercase().contains("transfer-encoding: chunked") { joined(body) } else { body.to_vec() };
        Ok(Answer { status, head, body })
    }
}

/// What was sent in chunks.
fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = chunks.windows(2).position(|window| window == b"\r\n") {
        let length = std::str::from_utf8(&chunks[..end]).ok().and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let Some(chunk) = length.and_then(|length| chunks.get(end + 2..end + 2 + length)) else { break };
        body.extend(chunk);
        chunks = chunks.get(end + chunk.len() + 4..).unwrap_or_default();
    }
    body
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(self.pid(), "KILL");
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The beginning of every TLS client here.
pub fn client_config() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap()
}

/// A TLS stream to somebody at 127.0.0.1, whose reads wait for ten seconds.
pub fn tls(address: &str, config: ClientConfig) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let connection =
        ClientConnection::new(Arc::new(config), "127.0.0.1".try_into().unwrap()).map_err(io::Error::other)?;
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(StreamOwned::new(connection, socket))
}
