//! `agent.toml` and `agent.d/*.toml`: read raw, checked once, before any task starts.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use holm_boards::{Bindings, Profile};
use holm_core::{Document, Label, Problem, Problems, Section, Timestamp, TopicFilter};
use holm_mqtt::{AclRule, BrokerLimits, PasswordHash, User};

use crate::cloud::CloudConfig;

mod outside;

pub use outside::Http;

const MIB: u64 = 1 << 20;

/// Where the broker listens if nothing else is said.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1883);

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// What it was read from.
    pub files: Vec<PathBuf>,
    /// The device's name, for `{device}` in permissions.
    pub device: String,
    /// Where everything is kept.
    pub data: PathBuf,
    /// The broker.
    pub mqtt: Mqtt,
    /// The functions.
    pub functions: Functions,
    /// The store.
    pub store: StoreConfig,
    /// Sensors, lines and buses.
    pub board: Bindings,
    /// Folders whose files start functions, by name.
    pub folders: BTreeMap<Label, PathBuf>,
    /// Where requests are listened for. `None`: nowhere.
    pub http: Option<Http>,
    /// Where they are. `None` when nothing of a board is used.
    pub profile: Option<Profile>,
    /// The link to the control plane.
    pub cloud: CloudConfig,
    /// For people who write functions. By the command line only: no file turns a device into a stage.
    pub stage: Stage,
}

/// What a node does for people who write functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stage {
    /// Where the clock stands until it is set forward; `None` for a clock that runs.
    pub clock: Option<Timestamp>,
    /// Whether what invocations did is kept.
    pub tape: bool,
    /// Whether the node ends when its stdin does: with the one who started it.
    pub tether: bool,
}

/// Where messages come from: the node's own broker, or another.
#[derive(Debug, Clone)]
pub struct Mqtt {
    /// Whether the broker is `external`; then nothing listens.
    pub mode: Mode,
    /// The other broker. There when `mode` says so.
    pub external: Option<External>,
    /// Plain TCP listener. Off-host addresses need TLS and users instead. `None` is [`DEFAULT_LISTEN`].
    pub listen: Option<SocketAddr>,
    /// TLS listener with its certificate chain and key, PEM files.
    pub tls: Option<Tls>,
    /// Who may connect; nobody listed means anonymous clients on loopback.
    pub users: Vec<User>,
    /// What they may do.
    pub acl: Vec<AclRule>,
    /// Caps.
    pub limits: BrokerLimits,
}

/// See [`Mqtt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The node runs a broker.
    Embedded,
    /// The node is a client of one.
    External,
}

/// The broker that the node is a client of.
#[derive(Debug, Clone)]
pub struct External {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `None` is `holm-` and the device's name.
    pub client_id: Option<String>,
    /// User name.
    pub user: Option<String>,
    /// File with the password; white space at its end is not part of it.
    pub password_file: Option<PathBuf>,
    /// TLS.
    pub tls: Option<ExternalTls>,
    /// Publishes on their way at a time.
    pub max_inflight: u16,
    /// Pings are sent after this much silence.
    pub keep_alive: Duration,
    /// How long the broker keeps our session while we are away.
    pub session_expiry: Duration,
}

/// TLS to an external broker.
#[derive(Debug, Clone)]
pub struct ExternalTls {
    /// PEM file with the authorities to trust.
    pub ca: PathBuf,
    /// PEM files with our certificate chain and key, where the broker asks for them.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A TLS listener.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Where.
    pub listen: SocketAddr,
    /// PEM file with the chain, leaf first.
    pub certificate: PathBuf,
    /// PEM file with the key.
    pub key: PathBuf,
}

/// How functions run.
#[derive(Debug, Clone)]
pub struct Functions {
    /// Threads that run guests.
    pub workers: usize,
    /// Bytes of linear memory that running guests may have together.
    pub memory: u64,
    /// Whether bundles without a signature may be deployed, over the admin socket only.
    pub allow_unsigned: bool,
    /// An event that no function has finished by then is parked in the inbox and acknowledged.
    pub park_after: Duration,
    /// How many functions may stand between an event and the outside world.
    pub max_hops: u8,
    /// How long a new version is watched before it is confirmed.
    pub health_window: Duration,
    /// A function that was running at this many unclean exits in a row is quarantined; 0 is never.
    pub quarantine_after: u32,
    /// The program that compiles components.
    pub compiler: PathBuf,
    /// Its memory limit, in bytes.
    pub compiler_memory: u64,
    /// Bytes of the records that traps leave in the data folder; 0 is none, and nothing is recorded.
    pub traps: u64,
    /// Bytes of recordings of all invocations, in memory, for `holm replay`; 0 is none.
    pub record: u64,
}

/// The store's configuration.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Bytes that may wait for the cloud.
    pub outbox: u64,
    /// Events that may wait in the inbox before durable messages are refused. One function's may fill half of it.
    pub inbox_rows: u64,
    /// How long message ids are remembered.
    pub dedupe_window: Duration,
    /// Bytes that the database may have. Beyond it, durable messages are refused as if the disk were full.
    pub database: u64,
}

/// What the command line says instead of the files.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The data folder.
    pub data: Option<PathBuf>,
    /// The MQTT address.
    pub listen: Option<SocketAddr>,
    /// The board's profile.
    pub board: Option<String>,
    /// What the node does for people who write functions.
    pub stage: Stage,
}

impl Config {
    /// Reads `file` (nothing at all is a valid configuration) and every `*.toml` of the folder `agent.d` beside it, in
    /// the order of their names. `over` wins over what the files say.
    pub fn read(file: Option<&Path>, over: Overrides) -> Result<Self, Problems> {
        let mut layers = Vec::new();
        if let Some(file) = file {
            layers.push(file.to_owned());
            let folder = file.parent().unwrap_or(Path::new(".")).join("agent.d");
            let mut more: Vec<PathBuf> = std::fs::read_dir(folder)
                .into_iter()
                .flatten()
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
                .collect();
            more.sort();
            layers.extend(more);
        }
        let mut config = Self { files: layers.clone(), ..Self::default() };
        let mut problems: Vec<Problem> = Vec::new();
        for path in &layers {
            let origin = path.display().to_string();
            let result = match std::fs::read_to_string(path) {
                Ok(text) => config.apply(&origin, &text),
                Err(error) => Err(Problems {
                    origin: origin.clone(),
                    problems: vec![Problem { line: 0, key: "file".into(), message: error.to_string() }],
                }),
            };
            if let Err(found) = result {
                problems.extend(found.problems.into_iter().map(|mut problem| {
                    if layers.len() > 1 {
                        problem.key = format!("{origin}: {}", problem.key);
                    }
                    problem
                }));
            }
        }
        set(&mut config.data, over.data);
        // A folder without a place of its own is in the data folder.
        for path in config.folders.values_mut() {
            *path = config.data.join(&*path);
        }
        config.stage = over.stage;
        config.mqtt.listen = over.listen.or(config.mqtt.listen);
        config.board.profile = over.board.or(config.board.profile.take());
        if !config.board.is_empty() || config.board.profile.is_some() {
            match Profile::choose(config.board.profile.as_deref(), &holm_boards::compatible()) {
                Ok(profile) => config.profile = Some(profile),
                Err(found) => problems.extend(found.problems),
            }
        }
        problems.extend(config.contradictions());
        if config.mqtt.mode == Mode::Embedded {
            config.mqtt.listen.get_or_insert(DEFAULT_LISTEN);
        }
        if problems.is_empty() {
            Ok(config)
        } else {
            let origin = file.map_or_else(|| "configuration".to_owned(), |path| path.display().to_string());
            Err(Problems { origin, problems })
        }
    }

    fn apply(&mut self, origin: &str, text: &str) -> Result<(), Problems> {
        let (document, mut root) = Document::parse(origin, text)?;
        if let Some(mut section) = root.section("node") {
            set(
                &mut self.device,
                section.parse("device", |text| match holm_core::FunctionName::new(text) {
                    Ok(name) => Ok(name.to_string()),
                    Err(_) => Err(format!("`{text}` is not a device name: a-z, 0-9 and `-`, at most 63")),
                }),
            );
            set(&mut self.data, section.text("data").map(PathBuf::from));
        }
        if let Some(mut section) = root.section("mqtt") {
            self.mqtt.apply(&mut section);
        }
        if let Some(mut section) = root.section("functions") {
            self.functions.apply(&mut section);
        }
        if let Some(mut section) = root.section("store") {
            set(&mut self.store.outbox, section.bytes("outbox", MIB..=1 << 40));
            set(&mut self.store.inbox_rows, section.integer("inbox_rows", 1..=100_000_000));
            let window = Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
            set(&mut self.store.dedupe_window, section.duration_in("dedupe_window", window));
            set(&mut self.store.database, section.bytes("database", 16 * MIB..=1 << 40));
        }
        self.board.apply(&mut root);
        outside::folders(&mut root, &mut self.folders);
        if let Some(mut section) = root.section("http") {
            let read = Http::read(&mut section);
            self.http = read.or(self.http.take());
        }
        if let Some(mut section) = root.section("cloud") {
            self.cloud.apply(&mut section);
        }
        drop(root);
        document.finish()
    }

    /// What is wrong with values that are right by themselves.
    fn contradictions(&self) -> Vec<Problem> {
        let mut problems = self.board.contradictions();
        let mut problem = |key: &str, message: String| {
            problems.push(Problem { line: 0, key: key.to_owned(), message });
        };
        let mqtt = &self.mqtt;
        match (mqtt.mode, &mqtt.external) {
            (Mode::External, None) => {
                problem(
                    "mqtt.external",
                    "mode is \"external\", but there is no [mqtt.external] with an address".into(),
                );
            }
            (Mode::Embedded, Some(_)) => {
                problem("mqtt.external", "it has no effect without mode = \"external\" in [mqtt]".into());
            }
            (Mode::External, Some(external)) if external.password_file.is_some() && external.user.is_none() => {
                problem("mqtt.external.password_file", "a password needs a user".into());
            }
            _ => {}
        }
        if mqtt.mode == Mode::External {
            let listening = [
                ("mqtt.listen", mqtt.listen.is_some()),
                ("mqtt.tls", mqtt.tls.is_some()),
                ("mqtt.user", !mqtt.users.is_empty()),
                ("mqtt.acl", !mqtt.acl.is_empty()),
            ];
            for (key, _) in listening.into_iter().filter(|(_, there)| *there) {
                problem(key, "with mode = \"external\" the node runs no broker and does not listen".into());
            }
        }
        for user in mqtt.acl.iter().filter_map(|rule| rule.user.as_deref()) {
            if !mqtt.users.iter().any(|known| *known.name == *user) {
                problem("mqtt.acl.user", format!("there is no [[mqtt.user]] `{user}`, so the rule is nobody's"));
            }
        }
        if let Some(listen) = self.mqtt.listen
            && !listen.ip().is_loopback()
        {
            problem(
                "mqtt.listen",
                format!("{listen} is not a loopback address: listen there with [mqtt.tls] and [[mqtt.user]]"),
            );
        }
        if let Some(message) = self.http.as_ref().and_then(Http::is_open) {
            problem("http.listen", message);
        }
        if let Some(tls) = &self.mqtt.tls
            && !tls.listen.ip().is_loopback()
            && self.mqtt.users.is_empty()
        {
            problem("mqtt.tls.listen", format!("{} is open to other hosts but there is no [[mqtt.user]]", tls.listen));
        }
        problems
    }
}

impl Mqtt {
    fn apply(&mut self, section: &mut Section<'_>) {
        set(&mut self.mode, section.choice("mode", &[("embedded", Mode::Embedded), ("external", Mode::External)]));
        if let Some(mut external) = section.section("external") {
            let read = External::read(&mut external);
            self.external = read.or(self.external.take());
        }
        if let Some(listen) = section.parse("listen", str::parse::<SocketAddr>) {
            self.listen = Some(listen);
        }
        if let Some(mut tls) = section.section("tls") {
            let listen = tls.require("listen", str::parse::<SocketAddr>);
            let certificate = tls.require("certificate", |text| Ok::<_, String>(PathBuf::from(text)));
            let key = tls.require("key", |text| Ok::<_, String>(PathBuf::from(text)));
            if let (Some(listen), Some(certificate), Some(key)) = (listen, certificate, key) {
                self.tls = Some(Tls { listen, certificate, key });
            }
        }
        for mut user in section.sections("user") {
            let name = user.require("name", |text| Ok::<_, String>(text.to_owned()));
            let hash = user.require("password_hash", str::parse::<PasswordHash>);
            if let (Some(name), Some(password_hash)) = (name, hash) {
                self.users.push(User { name: name.into(), password_hash });
            }
        }
        for mut rule in section.sections("acl") {
            let (user, client) = (rule.text("user"), rule.text("client"));
            let publish = rule.texts("publish", TopicFilter::new);
            let subscribe = rule.texts("subscribe", TopicFilter::new);
            self.acl.push(AclRule { user: user.map(Into::into), client: client.map(Into::into), publish, subscribe });
        }
        if let Some(mut limits) = section.section("limits") {
            let own = &mut self.limits;
            set(&mut own.max_connections, limits.integer("connections", 1..=65_535).map(|n| n as usize));
            set(&mut own.max_packet_bytes, limits.bytes("packet", 128..=256 * MIB).map(|n| n as u32));
            set(&mut own.max_sessions, limits.integer("sessions", 1..=100_000).map(|n| n as usize));
            set(&mut own.max_queue_messages, limits.integer("queue_messages", 1..=60_000).map(|n| n as usize));
            set(&mut own.max_queue_bytes, limits.bytes("queue", 1024..=1 << 30).map(|n| n as usize));
        }
    }
}

impl External {
    fn read(section: &mut Section<'_>) -> Option<Self> {
        let address = section.require("address", host_and_port);
        let second = Duration::from_secs(1);
        let mut tls = None;
        let text = |text: &str| Ok::<_, String>(text.to_owned());
        let mut external = Self {
            host: String::new(),
            port: 0,
            client_id: section.text("client_id"),
            user: section.text("user"),
            password_file: section.text("password_file").map(PathBuf::from),
            tls: None,
            max_inflight: 16,
            keep_alive: 30 * second,
            session_expiry: 7 * 86_400 * second,
        };
        set(&mut external.max_inflight, section.integer("max_inflight", 1..=1024).map(|n| n as u16));
        set(&mut external.keep_alive, section.duration_in("keep_alive", second..=3600 * second));
        let expiry = 60 * second..=365 * 86_400 * second;
        set(&mut external.session_expiry, section.duration_in("session_expiry", expiry));
        if let Some(mut section) = section.section("tls") {
            let ca = section.require("ca", text);
            let identity = match (section.text("certificate"), section.text("key")) {
                (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
                (None, None) => None,
                (Some(_), None) => {
                    section.problem("certificate", "it needs its key");
                    None
                }
                (None, Some(_)) => {
                    section.problem("key", "it needs its certificate");
                    None
                }
            };
            tls = ca.map(|ca| ExternalTls { ca: ca.into(), identity });
        }
        (external.host, external.port) = address?;
        Some(Self { tls, ..external })
    }
}

/// `host:port`; IPv6 addresses in brackets.
fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("`{text}` is not an address: host:port, and IPv6 addresses in brackets");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match bare {
        Some(address) => address.parse::<Ipv6Addr>().map_err(|_| wrong()).map(|_| (address.to_owned(), port)),
        None if host.is_empty() || host.contains([':', '/', ' ']) => Err(wrong()),
        None => Ok((host.to_owned(), port)),
    }
}

impl Functions {
    fn apply(&mut self, section: &mut Section<'_>) {
        set(&mut self.workers, section.integer("workers", 1..=64).map(|n| n as usize));
        set(&mut self.memory, section.bytes("memory", MIB..=1 << 36));
        set(&mut self.allow_unsigned, section.boolean("allow_unsigned"));
        let second = Duration::from_secs(1);
        set(&mut self.park_after, section.duration_in("park_after", Duration::from_millis(1)..=60 * second));
        set(&mut self.max_hops, section.integer("max_hops", 1..=64).map(|n| n as u8));
        set(&mut self.health_window, section.duration_in("health_window", Duration::ZERO..=3600 * second));
        set(&mut self.quarantine_after, section.integer("quarantine_after", 0..=100).map(|n| n as u32));
        set(&mut self.compiler, section.text("compiler").map(PathBuf::from));
        set(&mut self.compiler_memory, section.bytes("compiler_memory", 32 * MIB..=1 << 36));
        set(&mut self.traps, section.bytes("traps", 0..=1 << 30));
        set(&mut self.record, section.bytes("record", 0..=1 << 30));
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            device: "device".into(),
            data: "/var/lib/holm".into(),
            mqtt: Mqtt {
                mode: Mode::Embedded,
                external: None,
                listen: None,
                tls: None,
                users: Vec::new(),
                acl: Vec::new(),
                limits: BrokerLimits::default(),
            },
            functions: Functions {
                workers: std::thread::available_parallelism().map_or(2, |n| n.get().min(4)),
                memory: 128 * MIB,
                allow_unsigned: true,
                park_after: Duration::from_millis(50),
                max_hops: 8,
                health_window: Duration::from_secs(3),
                quarantine_after: 2,
                compiler: default_compiler(),
                compiler_memory: 1024 * MIB,
                traps: 4 * MIB,
                record: 0,
            },
            store: StoreConfig {
                outbox: 256 * MIB,
                inbox_rows: 1_000_000,
                dedupe_window: Duration::from_secs(86_400),
                database: 4096 * MIB,
            },
            board: Bindings::default(),
            profile: None,
            folders: BTreeMap::new(),
            http: None,
            cloud: CloudConfig::default(),
            stage: Stage::default(),
        }
    }
}

/// `holm-compile` beside the installed program, where packages put it.
fn default_compiler() -> PathBuf {
    let installed = std::env::var_os(crate::upgrade::INSTALLED).map(PathBuf::from);
    installed
        .or_else(|| std::env::current_exe().ok())
        .and_then(|path| Some(path.parent()?.join("holm-compile")))
        .unwrap_or_else(|| PathBuf::from("holm-compile"))
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The keys of all problems of a configuration.
    fn check(text: &str, keys: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.toml");
        std::fs::write(&file, text).unwrap();
        let found = match Config::read(Some(&file), Overrides::default()) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.problems.into_iter().map(|problem| problem.key).collect(),
        };
        assert_eq!(found, keys, "{text}");
    }

    #[test]
    fn an_external_broker_and_an_embedded_one_exclude_each_other() {
        let external = "[mqtt]\nmode = \"external\"\n[mqtt.external]\n";
        check("", &[]);
        check(&format!("{external}address = \"broker:1883\""), &[]);
        check(&format!("{external}address = \"[::1]:1883\"\nuser = \"u\"\npassword_file = \"f\""), &[]);
        check("[mqtt]\nmode = \"external\"", &["mqtt.external"]);
        check(external, &["mqtt.external.address", "mqtt.external"]);
        check("[mqtt.external]\naddress = \"broker:1883\"", &["mqtt.external"]);
        let both = "[mqtt]\nmode = \"external\"\nlisten = \"127.0.0.1:1883\"\n[mqtt.external]\naddress = \"b:1\"";
        check(both, &["mqtt.listen"]);
        check(&format!("{external}address = \"b:1\"\npassword_file = \"f\""), &["mqtt.external.password_file"]);
    }

    #[test]
    fn what_packages_bring_is_good_and_so_is_all_that_it_proposes() {
        let text = include_str!("../../boards/packaging/agent.toml");
        check(text, &[]);
        let proposed = |line: &str| {
            let words = line.strip_prefix("# ").filter(|words| words.starts_with('[') || words.contains(" = "));
            words.unwrap_or(line).to_owned() + "\n"
        };
        // A hash of a password is nothing to propose.
        let hash = PasswordHash::create(b"secret", std::num::NonZeroU32::MIN).unwrap().to_string();
        let all: String = text.lines().map(proposed).collect();
        check(&all.replace("...", &hash), &[]);
    }

    #[test]
    fn addresses_of_external_brokers_have_a_host_and_a_port() {
        for wrong in ["broker", ":1883", "broker:0", "broker:x", "::1:1883", "mqtt://broker:1883", "[x]:1"] {
            assert!(host_and_port(wrong).is_err(), "{wrong}");
        }
        assert_eq!(host_and_port("[::1]:8883").unwrap(), ("::1".to_owned(), 8883));
        assert_eq!(host_and_port("broker.lan:1883").unwrap(), ("broker.lan".to_owned(), 1883));
    }

    #[test]
    fn half_an_identity_is_none() {
        let text = "[mqtt]\nmode = \"external\"\n[mqtt.external]\naddress = \"b:1\"\n[mqtt.external.tls]\nca = \"c\"\n";
        check(text, &[]);
        check(&format!("{text}key = \"k\""), &["mqtt.external.tls.key"]);
    }
}
