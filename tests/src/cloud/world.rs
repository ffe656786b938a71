//! A node, a scripted control plane, and a repository: desired states go to the one, and what becomes of them comes back.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holm_protocol::{DesiredFunction, DesiredState};
use serde_json::{Value, json};

use super::{Plane, QUICK, Repository};
use crate::node::{Node, Start, log};

/// See the module.
pub struct World {
    /// The node's folder.
    pub data: PathBuf,
    /// The control plane.
    pub plane: Plane,
    /// What it serves, and the keys behind it.
    pub repository: Repository,
    jobs: u32,
    // Last, so that it outlives what is in it.
    _folder: tempfile::TempDir,
}

impl World {
    /// With no node.
    #[expect(clippy::new_without_default, reason = "it starts programs")]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plane = Plane::start(folder.path());
        let repository = Repository::new(&mut plane.https.desk());
        let data = folder.path().join("data");
        Self { data, plane, repository, jobs: 0, _folder: folder }
    }

    /// Enrols the node, and starts it.
    pub fn start(&self) -> Node {
        self.plane.node(&self.data, "pi3")
    }

    /// Starts it where it was.
    pub fn restart(&self) -> Node {
        Start { config: QUICK, ..Start::new(&self.data) }.run()
    }

    /// Releases a bundle.
    pub fn release(&mut self, bundle: &[u8]) -> DesiredFunction {
        self.repository.release(&mut self.plane.https.desk(), bundle)
    }

    /// A job with a document. Returns its id.
    pub fn send(&mut self, document: &str) -> String {
        self.jobs += 1;
        let id = format!("job-{}", self.jobs);
        self.plane.core.state().job = Some(json!({
            "jobId": id, "status": "QUEUED", "queuedAt": 1_795_000_000, "versionNumber": 1, "executionNumber": 1,
            "jobDocument": document,
        }));
        self.plane.core.ring("pi3");
        id
    }

    /// A job with a desired state. Returns its id.
    pub fn deploy(&mut self, state: &DesiredState) -> String {
        let document = self.repository.document(state);
        self.send(&document)
    }

    /// The status and details that a job ended with.
    pub fn end_of(&self, job: &str) -> (String, Value) {
        patiently(&self.data, &format!("the end of {job}"), || {
            let state = self.plane.core.state();
            let ends = |status: &str| !matches!(status, "QUEUED" | "IN_PROGRESS");
            let end = state.updates.iter().find(|(id, status, _)| id == job && ends(status));
            end.map(|(_, status, details)| (status.clone(), details.clone()))
        })
    }

    /// That it ends so. Returns the details.
    pub fn check_end(&self, job: &str, status: &str, reason: Option<&str>) -> Value {
        let (found, details) = self.end_of(job);
        assert_eq!((found.as_str(), details["reason"].as_str()), (status, reason), "{details}\n{}", log(&self.data));
        details
    }

    /// Waits until the node is so far.
    pub fn wait_for(&self, node: &Node, phase: &str) {
        patiently(&self.data, phase, || (node.admin.get("/v1/status")["cloud"]["phase"] == phase).then_some(()));
    }
}

/// Names and versions of what runs.
pub fn runs(node: &Node) -> Vec<String> {
    let functions = node.admin.get("/v1/functions");
    let name =
        |function: &Value| format!("{} {}", function["name"].as_str().unwrap(), function["version"].as_str().unwrap());
    functions["functions"].as_array().unwrap().iter().map(name).collect()
}

/// As [`eventually`](crate::eventually), for what is compiled, or takes several timeouts.
pub fn patiently<T>(data: &Path, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within 120 s: {what}\n{}", log(data));
        std::thread::sleep(Duration::from_millis(5));
    }
}
