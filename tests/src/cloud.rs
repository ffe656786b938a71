//! A scripted control plane behind a real mosquitto with mutual TLS: it speaks the documented messages of AWS IoT Core with
//! their quirks, issues certificates over HTTPS, and does with records what the test tells it to.
//!
//! It is a test double: no part of it is shared with the real control plane.

pub mod core;
mod https;
pub mod repository;
mod world;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub use self::core::{Acks, Core, Units};
pub use self::https::{Desk, Https};
pub use self::repository::Repository;
pub use self::world::{World, patiently, runs};
use crate::mosquitto::{Mosquitto, free_port};
use crate::node::{Node, Start, binary};
use crate::proxy::Proxy;
use crate::tls::Authority;

/// The name under which the scripted control plane itself connects.
const OPERATOR: &str = "operator";

/// See the module.
pub struct Plane {
    /// Where everything is kept.
    pub folder: PathBuf,
    /// Issues all certificates.
    pub authority: std::sync::Arc<Authority>,
    /// Enrolment.
    pub https: Https,
    /// The broker.
    pub mosquitto: Mosquitto,
    /// Between the devices and the broker.
    pub proxy: Proxy,
    /// What answers behind the broker.
    pub core: Core,
}

impl Plane {
    /// Starts all of it.
    pub fn start(folder: &Path) -> Self {
        let folder = folder.join("plane");
        std::fs::create_dir_all(&folder).unwrap();
        let authority = std::sync::Arc::new(Authority::new(&folder, "root"));
        let server = authority.issue("server");
        let operator = authority.issue(OPERATOR);
        let acl = folder.join("acl");
        // As the contract says: a thing has its own two trees.
        let rules = format!(
            "user {OPERATOR}\ntopic readwrite #\ntopic readwrite $aws/#\n\
             pattern readwrite holm/%u/#\npattern readwrite $aws/things/%u/#\n"
        );
        std::fs::write(&acl, rules).unwrap();
        let lines = format!(
            "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nuse_identity_as_username true\nacl_file {}\n",
            authority.certificate.display(),
            server.certificate.display(),
            server.key.display(),
            acl.display()
        );
        let mosquitto = Mosquitto::start(&folder, free_port(), &lines);
        let proxy = Proxy::start(mosquitto.address());
        let https = Https::start(authority.clone(), &server, proxy.port);
        let core = Core::start(authority.clone(), operator, mosquitto.address());
        Self { folder, authority, https, mosquitto, proxy, core }
    }

    /// The hash that devices are given.
    pub fn ca_hash(&self) -> String {
        let hash = ring::digest::digest(&ring::digest::SHA256, &self.authority.der());
        hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// `holmd enrol` with a token that works.
    pub fn enrol(&self, data: &Path, thing: &str) {
        let token = self.https.desk().token();
        let output = self.try_enrol(data, thing, &token, &self.ca_hash());
        assert!(output.status.success(), "{output:?}");
    }

    /// `holmd enrol`, as it goes.
    pub fn try_enrol(&self, data: &Path, thing: &str, token: &str, ca_hash: &str) -> Output {
        let mut command = Command::new(binary("holmd"));
        command.args(["enrol", "--cloud", &self.https.url, "--token", token, "--ca-hash", ca_hash, "--thing", thing]);
        command.arg("--data").arg(data).output().unwrap()
    }

    /// A node that is enrolled as `thing`, with quick timers.
    pub fn node(&self, data: &Path, thing: &str) -> Node {
        std::fs::create_dir_all(data).unwrap();
        self.enrol(data, thing);
        Self::run(data)
    }

    /// The same once more.
    pub fn run(data: &Path) -> Node {
        Start { config: QUICK, ..Start::new(data) }.run()
    }
}

/// Timers that a test can wait for.
pub const QUICK: &str = "[functions]\nhealth_window = \"0ms\"\nquarantine_after = 0\n\
                         [cloud]\nkeep_alive = \"1s\"\nack_timeout = \"2s\"\n";
