use std::collections::BTreeMap;

use holm_bundle::Digest;
use holm_protocol::limits::MAX_SEQUENCE;
use holm_protocol::{Artifact, DeploymentPolicy, DesiredFunction, ThingName};
use serde_json::json;

use super::super::desired::{self, NextState};
use super::step::step;
use super::*;
use crate::folder::Folder;
use crate::signing::Signing;

const SCHEMA: [&str; 8] = [
    include_str!("../schema/1000.sql"),
    include_str!("../schema/1001.sql"),
    include_str!("../schema/1002.sql"),
    include_str!("../schema/1003.sql"),
    include_str!("../schema/1004.sql"),
    include_str!("../schema/1005.sql"),
    include_str!("../schema/1006.sql"),
    include_str!("../schema/1007.sql"),
];

/// Records without a task, and devices without a network.
struct Scene {
    connection: Connection,
    signing: Signing,
    now: i64,
    live: bool,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let signing = Signing::open(&Folder::open(folder.path()).unwrap()).unwrap();
        let connection = Connection::open_in_memory().unwrap();
        SCHEMA.iter().for_each(|step| connection.execute_batch(step).unwrap());
        Self { connection, signing, now: 1_000_000, live: true, _folder: folder }
    }

    fn sql(&self, statement: &str) {
        self.connection.execute_batch(statement).unwrap();
    }

    fn device(&self, device: i64) {
        let statement = "INSERT INTO device (id, name, status, enrolled, seen, version, arch, engine, profile) \
                         VALUES (?1, 'pi' || ?1, 'active', 0, 0, '', '', '', '')";
        self.connection.execute(statement, [device]).unwrap();
    }

    /// Tells a device to run a version of `teller`, and lets it confirm that.
    fn confirm(&mut self, device: i64, version: &str) {
        self.now += 1;
        let bundle = Artifact { sha256: Digest::of(version.as_bytes()), length: 1 };
        let function = DesiredFunction {
            name: teller(),
            version: version.to_owned(),
            bundle,
            config: BTreeMap::new(),
            secrets: BTreeMap::new(),
            permit: None,
        };
        let next = NextState {
            thing: ThingName::new(&format!("pi{device}")).unwrap(),
            generation: desired::last(&self.connection, device).unwrap().generation,
            functions: vec![function],
            policy: DeploymentPolicy { health_window_s: 0, deadline_s: 60, window: None },
            rollout: None,
            operator: String::new(),
            now: Timestamp(self.now),
        };
        desired::put(&self.connection, next, &self.signing).unwrap().unwrap();
        self.succeed(device);
    }

    fn succeed(&self, device: i64) {
        self.sql(&format!("UPDATE job SET status = 'SUCCEEDED' WHERE device = {device} AND status = 'QUEUED'"));
    }

    /// Begins to set `limit` on these devices, and those of the group.
    fn rollout(&self, number: i64, group: Option<&str>, devices: &[i64]) {
        let plan = json!({
            "stages": ["100%"], "soak_s": 0, "rate_per_minute": null, "success_percent": 95, "min_reported": 1,
            "abort_percent": 5, "abort_min": 20, "queued_timeout_s": 3_600, "progress_timeout_s": 3_600,
            "health_window_s": 0, "deadline_s": 60,
        });
        let change = json!({ "kind": "config", "values": { "limit": "7" } });
        let statement = "INSERT INTO rollout (number, function, change, plan, \"group\", operator, made, state, stage, updated) \
                         VALUES (?1, 'teller', ?2, ?3, ?4, 'ann', 0, 'running', 0, 0)";
        self.connection.execute(statement, params![number, change.to_string(), plan.to_string(), group]).unwrap();
        for device in devices {
            let statement = "INSERT INTO rollout_device (rollout, device, stage, state, updated) \
                             VALUES (?1, ?2, 0, 'waiting', 0)";
            self.connection.execute(statement, [number, *device]).unwrap();
        }
    }

    /// Takes all steps that there are to take, and says how the rollout and its devices are then.
    fn steps(&mut self, number: u64) -> String {
        loop {
            self.now += 1;
            if !step(&self.connection, RolloutId(number), &self.signing, &|_: &str| self.live, Timestamp(self.now))
                .unwrap()
                .again
            {
                break;
            }
        }
        let statement = "SELECT (SELECT state FROM rollout WHERE number = ?1) || ': ' || group_concat(state, ' ') \
                         FROM (SELECT state FROM rollout_device WHERE rollout = ?1 ORDER BY device)";
        self.connection.query_row(statement, [signed(number)], |row| row.get(0)).unwrap()
    }

    /// Devices say how `teller` is.
    fn report(&self, which: &str, version: &str, state: &str, (invocations, faults): (u64, u64)) {
        let sha256 = Digest::of(version.as_bytes());
        let function = json!({
            "name": "teller", "version": version, "sha256": sha256, "state": state, "invocations": invocations, "faults": faults,
        });
        let reported = json!({ "generation": 2, "functions": [function] });
        let later = self.now + 1;
        self.sql(&format!("UPDATE device SET reported = '{reported}', reported_at = {later} WHERE {which}"));
    }

    fn last_event(&self) -> String {
        let statement = "SELECT text FROM rollout_event ORDER BY id DESC LIMIT 1";
        self.connection.query_row(statement, [], |row| row.get(0)).unwrap()
    }

    fn rollout_reason(&self, number: i64) -> String {
        let statement = "SELECT reason FROM rollout WHERE number = ?1";
        self.connection.query_row(statement, [number], |row| row.get(0)).unwrap()
    }

    fn limit(&self, device: i64) -> Option<String> {
        let last = desired::last(&self.connection, device).unwrap();
        last.function(&teller()).unwrap().config.get("limit").cloned()
    }
}

fn teller() -> FunctionName {
    FunctionName::new("teller").unwrap()
}

#[test]
fn who_has_quarantined_it_goes_back_as_well() {
    let mut scene = Scene::new();
    for device in 1..4 {
        scene.device(device);
        scene.confirm(device, "1.0.0");
    }
    scene.rollout(1, None, &[1, 2, 3]);
    assert_eq!(scene.steps(1), "running: queued queued queued");
    scene.succeed(1);
    scene.succeed(2);
    assert_eq!(scene.steps(1), "running: confirmed confirmed queued");
    // Of two whom it takes down, one gets something else at the same moment.
    scene.report("id < 3", "1.0.0", "quarantined", (0, 0));
    scene.confirm(2, "2.0.0");
    assert_eq!(scene.steps(1), "aborting: undoing superseded undoing");
    assert_eq!(scene.limit(1), None);
    scene.succeed(1);
    scene.sql("UPDATE job SET status = 'REJECTED' WHERE device = 3 AND status = 'QUEUED'");
    assert_eq!(scene.steps(1), "aborted: undone superseded stuck");
    assert!(scene.last_event().starts_with("1 are not back; the others are back ("), "{}", scene.last_event());
}

#[test]
fn who_confirmed_and_fails_since_goes_back_before_anybody_else_is_told() {
    let mut scene = Scene::new();
    for device in 1..4 {
        scene.device(device);
        scene.confirm(device, "1.0.0");
    }
    scene.rollout(1, None, &[1, 2, 3]);
    let stages = "UPDATE rollout SET plan = json_set(plan, '$.stages', json('[\"2\", \"100%\"]'), '$.soak_s', 60)";
    scene.sql(&format!("{stages}; UPDATE rollout_device SET stage = device / 3"));
    assert_eq!(scene.steps(1), "running: queued queued waiting");
    scene.succeed(1);
    scene.succeed(2);
    let looked_at = "running: confirmed confirmed waiting";
    assert_eq!(scene.steps(1), looked_at);
    // Too few to judge by, few enough to stay, and another version's.
    for (version, counts) in [("1.0.0", (9, 9)), ("1.0.0", (11, 2)), ("0.9.0", (10, 10))] {
        scene.report("id = 1", version, "confirmed", counts);
        assert_eq!(scene.steps(1), looked_at, "{version} {counts:?}");
    }
    scene.report("id = 1", "1.0.0", "confirmed", (10, 2));
    assert_eq!(scene.steps(1), "aborting: undoing undoing skipped");
    let reason = scene.rollout_reason(1);
    assert!(reason.starts_with("1 of 2 devices of stage 1 failed"), "{reason}");
    scene.succeed(1);
    scene.succeed(2);
    assert_eq!(scene.steps(1), "aborted: undone undone skipped");
    let told = "SELECT count(*) FROM rollout_event WHERE text = 'pi1: failed: it was confirmed, and 2 of 10 invocations faulted since'";
    assert_eq!(scene.connection.query_row(told, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
}

#[test]
fn nobody_is_told_while_all_who_confirmed_are_silent() {
    let mut scene = Scene::new();
    for device in 1..3 {
        scene.device(device);
        scene.confirm(device, "1.0.0");
    }
    scene.rollout(1, None, &[1, 2]);
    let stages = "UPDATE rollout SET plan = json_set(plan, '$.stages', json('[\"1\", \"100%\"]'))";
    scene.sql(&format!("{stages}; UPDATE rollout_device SET stage = device - 1"));
    assert_eq!(scene.steps(1), "running: queued waiting");
    scene.succeed(1);
    scene.live = false;
    assert_eq!(scene.steps(1), "running: confirmed waiting");
    let silent = "0 of the 1 devices of stage 1 that have confirmed are connected, 1 have to be";
    assert_eq!(scene.rollout_reason(1), silent);
    scene.live = true;
    assert_eq!(scene.steps(1), "running: confirmed queued");
}

#[test]
fn who_joins_and_has_nothing_to_change_is_no_failure() {
    let mut scene = Scene::new();
    scene.device(1);
    scene.confirm(1, "1.0.0");
    scene.rollout(1, Some("greenhouse"), &[1]);
    assert_eq!(scene.steps(1), "running: queued");
    scene.device(2);
    scene.sql("INSERT INTO membership VALUES (2, 'greenhouse')");
    assert_eq!(scene.steps(1), "running: queued superseded");
    scene.succeed(1);
    assert_eq!(scene.steps(1), "completed: confirmed superseded");
    assert_eq!(scene.limit(1).as_deref(), Some("7"));
}

#[test]
fn what_ended_is_not_taken_back_under_another_one() {
    let mut scene = Scene::new();
    scene.device(1);
    scene.confirm(1, "1.0.0");
    scene.rollout(1, None, &[1]);
    scene.rollout(2, None, &[1]);
    let rollout = load(&scene.connection, RolloutId(1)).unwrap().unwrap();
    assert_eq!(rival(&scene.connection, &rollout).unwrap(), Some(RolloutId(2)));
    scene.sql("UPDATE rollout SET state = 'completed' WHERE number = 2");
    assert_eq!(rival(&scene.connection, &rollout).unwrap(), None);
}

#[test]
fn a_device_cannot_name_a_generation_that_stops_others() {
    let scene = Scene::new();
    scene.device(1);
    for (said, generation) in [("7", 7), ("18446744073709551615", MAX_SEQUENCE), ("null", 0)] {
        scene.sql(&format!("UPDATE device SET reported = '{{\"generation\":{said}}}'"));
        assert_eq!(desired::last(&scene.connection, 1).unwrap().generation, generation, "{said}");
    }
}

#[test]
fn what_was_before_is_known_without_metadata_and_not_of_another_board() {
    let mut scene = Scene::new();
    scene.device(1);
    scene.confirm(1, "1.0.0");
    scene.confirm(1, "2.0.0");
    let confirmed = |scene: &Scene| {
        let found = desired::confirmed(&scene.connection, 1, &teller(), None).unwrap();
        let version = |function: Option<DesiredFunction>| function.map(|function| function.version);
        (version(found.now), version(found.before), found.before_is_older)
    };
    let (one, two, three) = (Some("1.0.0".to_owned()), Some("2.0.0".to_owned()), Some("3.0.0".to_owned()));
    assert_eq!(confirmed(&scene), (two.clone(), one, true));
    scene.sql(&format!("UPDATE device SET enrolled = {}", scene.now + 1));
    assert_eq!(confirmed(&scene), (two.clone(), None, false));
    scene.confirm(1, "2.0.0");
    assert_eq!(confirmed(&scene), (two.clone(), None, false));
    scene.confirm(1, "3.0.0");
    assert_eq!(confirmed(&scene), (three, two, true));
}
