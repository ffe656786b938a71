//! The quirks that the documentation of AWS IoT Core tells of, a test for each, by a control plane that is scripted: a device copes with
//! them, and is not led astray by them either.

use std::path::PathBuf;

use holm_core::Timestamp;
use holm_protocol::DesiredState;
use holm_tests::cloud::repository::NOW;
use holm_tests::cloud::{Plane, Repository, Units};
use holm_tests::functions::Guest;
use holm_tests::node::{Node, log};
use holm_tests::within;
use serde_json::{Value, json};

/// For what is compiled on a machine that is busy.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

struct Core {
    data: PathBuf,
    plane: Plane,
    repository: Repository,
    // Last, so that it outlives what is in it.
    _folder: tempfile::TempDir,
}

impl Core {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plane = Plane::start(folder.path());
        let repository = Repository::new(&mut plane.https.desk());
        let data = folder.path().join("data");
        Self { data, plane, repository, _folder: folder }
    }

    /// A desired state with one function in a version.
    fn desired(&mut self, generation: u64, version: &str) -> DesiredState {
        let bundle = Guest::new("teller", "echo").on("ask").version(version).bundle();
        let function = self.repository.release(&mut self.plane.https.desk(), &bundle);
        self.repository.desired(generation, 0, vec![function])
    }

    /// Its document, as a text.
    fn text(&self, state: &DesiredState) -> Value {
        Value::String(self.repository.document(state))
    }

    fn job(id: &str, document: &Value) -> Value {
        json!({
            "jobId": id, "status": "QUEUED", "queuedAt": 1_795_000_000, "lastUpdatedAt": 1_795_000_000, "versionNumber": 1,
            "executionNumber": 1, "jobDocument": document,
        })
    }

    fn hand_over(&self, id: &str, document: &Value) {
        self.plane.core.state().job = Some(Self::job(id, document));
        self.plane.core.ring("pi3");
    }

    /// How a job ended: its status, and the reason where there is one.
    fn end_of(&self, id: &str) -> (String, Option<String>) {
        within(PATIENCE, &format!("the end of {id}\n{}", log(&self.data)), || {
            let state = self.plane.core.state();
            let ends = |status: &str| !matches!(status, "QUEUED" | "IN_PROGRESS");
            let end = state.updates.iter().find(|(found, status, _)| found == id && ends(status));
            end.map(|(_, status, details)| (status.clone(), details["reason"].as_str().map(str::to_owned)))
        })
    }

    fn succeeds(&self, id: &str) {
        assert_eq!(self.end_of(id), ("SUCCEEDED".to_owned(), None), "{}", log(&self.data));
    }
}

fn runs(node: &Node) -> Vec<String> {
    let functions = node.admin.get("/v1/functions");
    let version = |function: &Value| function["version"].as_str().unwrap().to_owned();
    functions["functions"].as_array().unwrap().iter().map(version).collect()
}

/// Accepted and rejected come to whoever has such a topic, and late: only the token tells whose they are. What comes unasked here is a job
/// with a document that is signed and would do.
#[test]
fn answers_that_nobody_asked_for_change_nothing() {
    let mut core = Core::new();
    let (wanted, other) = (core.desired(1, "1.0.0"), core.desired(2, "2.0.0"));
    let (wanted, other) = (core.text(&wanted), core.text(&other));
    core.plane.core.state().foreign = Core::job("foreign", &other);
    let node = core.plane.node(&core.data, "pi3");
    core.hand_over("job-1", &wanted);
    core.succeeds("job-1");
    // Between two questions as well, on all of the topics.
    for (topic, payload) in [
        ("jobs/$next/get/accepted", json!({ "execution": Core::job("foreign", &other), "timestamp": 1_795_000_000 })),
        (
            "jobs/$next/get/accepted",
            json!({ "execution": Core::job("foreign", &other), "clientToken": "get-1-00000000" }),
        ),
        ("jobs/$next/get/rejected", json!({ "code": "RequestThrottled", "clientToken": "get-1-00000000" })),
        (
            "jobs/job-1/update/rejected",
            json!({ "code": "InvalidStateTransition", "executionState": { "status": "QUEUED" } }),
        ),
        (
            "jobs/foreign/update/accepted",
            json!({ "executionState": { "status": "IN_PROGRESS" }, "jobDocument": other }),
        ),
        ("shadow/name/holm/update/rejected", json!({ "code": 409, "message": "Version conflict" })),
        ("shadow/name/holm/update/accepted", json!({ "state": { "desired": { "functions": [] } }, "version": 99 })),
    ] {
        core.plane.core.send(&format!("$aws/things/pi3/{topic}"), payload.to_string().as_bytes());
    }
    // It has heard them all when it does what is asked next.
    let third = core.desired(3, "3.0.0");
    core.hand_over("job-2", &core.text(&third));
    core.succeeds("job-2");
    assert_eq!(runs(&node), ["3.0.0"]);
    let updates = core.plane.core.state().updates.clone();
    assert!(!updates.iter().any(|(id, ..)| id == "foreign"), "{updates:?}");
    node.stop();
}

/// A time is in seconds in one message and in milliseconds in the next. Told either way it is the time by which a desired state has
/// expired, or has not.
#[test]
fn times_in_seconds_and_in_milliseconds_are_told_apart() {
    for units in [Units::Seconds, Units::Milliseconds, Units::Mixed] {
        let mut core = Core::new();
        core.plane.core.state().units = units;
        let node = core.plane.node(&core.data, "pi3");
        let mut late = core.desired(1, "1.0.0");
        // Before what was told, if only by a minute.
        (late.issued, late.expires) = (Timestamp(NOW.0 - 120_000), Timestamp(NOW.0 - 60_000));
        core.hand_over("late", &core.text(&late));
        assert_eq!(core.end_of("late"), ("REJECTED".to_owned(), Some("expired".to_owned())), "{units:?}");
        let mut good = core.desired(2, "2.0.0");
        good.expires = Timestamp(NOW.0 + 3_600_000);
        core.hand_over("good", &core.text(&good));
        core.succeeds("good");
        assert_eq!(runs(&node), ["2.0.0"], "{units:?}");
        node.stop();
    }
}

/// A document may come as JSON, or as a text that holds JSON; what is neither is refused as what it is.
#[test]
fn a_job_document_may_be_json_or_a_text_that_holds_it() {
    let mut core = Core::new();
    let node = core.plane.node(&core.data, "pi3");
    let text = core.desired(1, "1.0.0");
    core.hand_over("text", &core.text(&text));
    core.succeeds("text");
    assert_eq!(runs(&node), ["1.0.0"]);
    let object = core.desired(2, "2.0.0");
    let document: Value = serde_json::from_str(&core.repository.document(&object)).unwrap();
    assert!(document.is_object());
    core.hand_over("object", &document);
    core.succeeds("object");
    assert_eq!(runs(&node), ["2.0.0"]);
    // A text in a text is none.
    let twice = core.desired(3, "3.0.0");
    let twice = Value::String(core.text(&twice).to_string());
    for (id, document) in [("twice", twice), ("number", json!(7)), ("none", Value::Null)] {
        core.hand_over(id, &document);
        let (status, reason) = core.end_of(id);
        assert_eq!(status, "REJECTED", "{id}: {reason:?}");
    }
    assert_eq!(runs(&node), ["2.0.0"]);
    node.stop();
}

/// A service that has just rung may still say that there is nothing, in one of several ways: it is asked again.
#[test]
fn nothing_right_after_a_doorbell_is_not_the_last_word() {
    let mut core = Core::new();
    let node = core.plane.node(&core.data, "pi3");
    for (number, empty) in [(1, 1), (2, 2)] {
        let state = core.desired(number, &format!("{number}.0.0"));
        let (id, document) = (format!("job-{number}"), core.text(&state));
        {
            let mut state = core.plane.core.state();
            (state.job, state.empty, state.asked) = (Some(Core::job(&id, &document)), empty, 0);
        }
        core.plane.core.ring("pi3");
        core.succeeds(&id);
        assert!(core.plane.core.state().asked > empty, "it was told nothing {empty} times");
        assert_eq!(runs(&node), [format!("{number}.0.0")]);
    }
    node.stop();
}
