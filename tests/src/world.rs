//! A control plane, a laptop, and a node that is enrolled: the real `holm`, `holm cloud` and `holmd`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::control_plane::ControlPlane;
use crate::eventually;
use crate::node::{Node, Start, binary};
use crate::publisher::Publisher;

const CONFIG: &str = "[functions]\nhealth_window = \"0ms\"\n[cloud]\nkeep_alive = \"1s\"\nack_timeout = \"2s\"\n";

/// See the module.
pub struct World {
    /// Where devices send.
    pub cloud: ControlPlane,
    /// Where people are.
    pub laptop: Publisher,
    /// What all of it is in. Last, so that it outlives what is in it.
    pub folder: tempfile::TempDir,
}

impl World {
    /// With no node.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cloud = ControlPlane::start(folder.path());
        let laptop = Publisher::new(folder.path());
        Self { cloud, laptop, folder }
    }

    /// The node's folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("pi1")
    }

    /// What is in its configuration, before what a test adds.
    pub fn config() -> &'static str {
        CONFIG
    }

    /// The node `pi1` with more lines in its configuration, enrolled and connected.
    pub fn node(&self, config: &str) -> Node {
        self.enrol();
        let data = self.data();
        let node = Start { config: &format!("{CONFIG}{config}"), ..Start::new(&data) }.run();
        self.connected();
        node
    }

    /// Gives `pi1` its identity.
    pub fn enrol(&self) {
        Self::enrol_at(&self.cloud, &self.data());
    }

    /// Gives `pi1`, which has its data there, an identity of this control plane.
    pub fn enrol_at(cloud: &ControlPlane, data: &Path) {
        let mut command = Command::new(binary("holmd"));
        command.args(["enrol", "--cloud", &format!("https://{}", cloud.https), "--ca-hash", &cloud.ca_hash]);
        command.args(["--token", &cloud.enrolment_token("greenhouse"), "--thing", "pi1", "--data"]);
        let output = command.arg(data).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Waits until `pi1` is connected.
    pub fn connected(&self) {
        eventually("it is connected", || self.cloud.get("/v1/devices/pi1")["connected"].as_bool().filter(|it| *it));
    }

    /// The records of the log lane that came from it.
    pub fn came(&self) -> Vec<Value> {
        self.cloud.get("/v1/logs?device=pi1&limit=10000")["rows"].as_array().unwrap().clone()
    }
}
