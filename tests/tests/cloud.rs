//! A node and a control plane that is scripted: every record arrives, once, whatever happens in between.

use std::path::Path;
use std::time::{Duration, Instant};

use holm_protocol::{GapReason, Line};
use holm_store::{Lane, Write};
use holm_tests::cloud::{Acks, Plane};
use holm_tests::eventually;
use holm_tests::functions::example;
use holm_tests::node::Node;
use holm_tests::outbox::fill;
use holm_tests::watcher::publish_all;
use serde_json::Value;

/// Rows for a lane.
fn row(lane: Lane, stream: &str, number: u64) -> Write {
    Write::Outbox {
        lane,
        stream: stream.into(),
        created: holm_core::Timestamp(4_000_000_000_000),
        content_type: None,
        data: format!("{{\"n\":{number}}}").into(),
    }
}

/// How the node sees the link.
fn link(node: &Node) -> Value {
    node.admin.get("/v1/status")["cloud"].clone()
}

/// Rows that the node still has.
fn left(node: &Node) -> u64 {
    let status = node.admin.get("/v1/status");
    status["outbox"].as_array().unwrap().iter().map(|lane| lane["rows"].as_u64().unwrap()).sum()
}

/// As [`eventually`], for what takes several timeouts.
fn patiently<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within 120 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// All of the rows are there, each as it was made, and the node has none left.
fn check_all(plane: &Plane, node: &Node, thing: &str, stream: &str, count: u64) {
    patiently("all records arrive, and are deleted", || {
        let there = plane.core.state().stream(thing, stream).is_some_and(|stream| stream.watermark >= count);
        (there && left(node) == 0).then_some(())
    });
    let state = plane.core.state();
    let found = state.stream(thing, stream).unwrap();
    assert_eq!(found.watermark, count);
    for (sequence, line) in &found.lines {
        let Line::Record(record) = line else { panic!("{sequence}: {line:?}") };
        assert_eq!(record.data, format!("{{\"n\":{sequence}}}").into_bytes());
    }
    assert_eq!(found.lines.len() as u64, count);
    assert_eq!(state.altered, 0);
}

#[test]
fn a_device_enrols_connects_and_sends_each_record_once() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::start(folder.path());
    let data = folder.path().join("data");
    let streams = [
        (Lane::Results, "result.flow.rate", 1_200),
        (Lane::Logs, "log.flow", 700),
        (Lane::Alarms, "result.flow.alarm", 30),
    ];
    let rows = (1..=1_200_u64).flat_map(|number| {
        let of = move |(lane, stream, count)| (number <= count).then(|| row(lane, stream, number));
        streams.into_iter().filter_map(of)
    });
    fill(&data, rows);
    let node = plane.node(&data, "pi3");
    for (_, stream, count) in streams {
        check_all(&plane, &node, "pi3", stream, count);
    }
    let status = link(&node);
    assert_eq!((&status["state"], &status["thing"]), (&"connected".into(), &"pi3".into()));
    assert_eq!(status["upload"]["acknowledged"], 1_930);
    assert!(status["functions"]["flow"].as_u64().unwrap() > 0, "{status}");
    assert_eq!(plane.core.state().again, 0);
    // What is made while it runs follows.
    let report = eventually("a report", || plane.core.state().shadows.get("pi3")?.last().cloned());
    assert_eq!(report["generation"], 0);
    assert!(report["health"]["certificate_expires"].as_i64().unwrap() > 0);
    node.stop();
}

#[test]
fn enrolling_again_is_harmless_and_a_token_works_once() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::start(folder.path());
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let token = plane.https.desk().token();
    let hash = plane.ca_hash();
    assert!(plane.try_enrol(&one, "pi1", &token, &hash).status.success());
    let asked = plane.https.desk().requests.len();
    let again = plane.try_enrol(&one, "pi1", &token, &hash);
    assert!(again.status.success() && String::from_utf8_lossy(&again.stdout).contains("as pi1"), "{again:?}");
    assert_eq!(plane.https.desk().requests.len(), asked);
    let second = plane.try_enrol(&two, "pi2", &token, &hash);
    assert!(!second.status.success() && String::from_utf8_lossy(&second.stderr).contains("token-used"), "{second:?}");
    let files = |folder: &Path| {
        let mut names: Vec<String> = std::fs::read_dir(folder.join("identity"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(files(&one), ["device.json"]);
    assert_eq!(files(&two), ["pending.pem"]);
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &str| std::fs::metadata(one.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("identity"), mode("identity/device.json")), (0o700, 0o600));
    let fresh = plane.https.desk().token();
    let wrong = plane.try_enrol(&two, "pi2", &fresh, &"0".repeat(64));
    assert!(
        !wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("somebody sits in between"),
        "{wrong:?}"
    );
    let bad = plane.try_enrol(&two, "a b", "", "abc");
    assert_eq!((bad.status.code(), String::from_utf8_lossy(&bad.stderr).lines().count()), (Some(2), 3), "{bad:?}");
    assert!(plane.try_enrol(&two, "pi2", &fresh, &hash).status.success());
}

#[test]
fn a_card_with_a_seed_enrols_when_it_first_starts_and_forgets_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::start(folder.path());
    let data = folder.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let token = plane.https.desk().token();
    plane.https.desk().silent = true;
    let seed = format!("cloud = \"{}\"\ntoken = \"{token}\"\nca_hash = \"{}\"\n", plane.https.url, plane.ca_hash());
    std::fs::write(data.join("enrol.toml"), seed).unwrap();
    let node = Plane::run(&data);
    eventually("an attempt that fails", || link(&node)["last_error"].is_string().then_some(()));
    assert_eq!(link(&node)["state"], "enrolling");
    plane.https.desk().silent = false;
    eventually("the connection", || (link(&node)["state"] == "connected").then_some(()));
    assert_eq!(link(&node)["thing"], "given");
    assert!(!data.join("enrol.toml").exists());
    node.stop();
}

#[test]
fn nothing_is_deleted_on_the_word_of_a_broker() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::start(folder.path());
    let data = folder.path().join("data");
    plane.core.state().acks = Acks::Never;
    fill(&data, (1..=3_000).map(|number| row(Lane::Results, "s", number)));
    let node = plane.node(&data, "pi3");
    patiently("it was sent again", || (link(&node)["upload"]["resends"].as_u64()? >= 2).then_some(()));
    assert_eq!(left(&node), 3_000);
    plane.core.state().acks = Acks::Prompt;
    check_all(&plane, &node, "pi3", "s", 3_000);
    node.stop();
}

#[test]
fn acknowledgements_may_be_lost_late_and_doubled() {
    for acks in [Acks::OneOf(5), Acks::LateAndTwice] {
        let folder = tempfile::tempdir().unwrap();
        let plane = Plane::start(folder.path());
        let data = folder.path().join("data");
        plane.core.state().acks = acks;
        fill(&data, (1..=20_000).map(|number| row(Lane::Results, "s", number)));
        let node = plane.node(&data, "pi3");
        patiently("all of it arrives", || (plane.core.state().stream("pi3", "s")?.watermark == 20_000).then_some(()));
        plane.core.state().acks = Acks::Prompt;
        check_all(&plane, &node, "pi3", "s", 20_000);
        node.stop();
    }
}

#[test]
fn streams_that_there_is_no_room_for_hold_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::start(folder.path());
    let data = folder.path().join("data");
    plane.core.state().acks = Acks::NoRoomFor("many.");
    let many = (1..=200).map(|number| row(Lane::Results, &format!("many.{number}"), 1));
    fill(&data, many.chain((1..=2_000).map(|number| row(Lane::Results, "s", number))));
    let node = plane.node(&data, "pi3");
    patiently("the others arrive", || (plane.core.state().stream("pi3", "s")?.watermark == 2_000).then_some(()));
    patiently("what waits is kept", || (left(&node) == 200).then_some(()));
    // There is room, and a new connection.
    plane.core.state().acks = Acks::Prompt;
    plane.proxy.cut();
    patiently("all of it", || (left(&node) == 0 && plane.core.state().records("pi3") == 2_200).then_some(()));
    node.stop();
}

#[test]
fn a_line_that_is_cut_at_each_step_of_a_batch_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::start(folder.path());
    let node = plane.node(&folder.path().join("data"), "pi3");
    // What has priority does not wait for company.
    node.admin.deploy(&example("counter", |manifest| manifest + "priority = \"high\"\n"));
    let mut sent = 0;
    for _ in 0..3 {
        for (step, acks) in [
            ("sent, and no PUBACK", Acks::Prompt),
            ("PUBACK, and nothing stored", Acks::Never),
            ("stored, and no watermark", Acks::OneOf(u32::MAX)),
            ("the watermark on its way", Acks::Prompt),
        ] {
            let (seen, stored) = {
                let mut state = plane.core.state();
                state.acks = acks;
                (state.seen, state.records("pi3"))
            };
            plane.proxy.mute(step == "sent, and no PUBACK");
            sent += 1;
            publish_all(&node, "count/k", [format!("{{\"id\":\"{sent}\"}}")]);
            patiently(step, || (plane.core.state().seen > seen).then_some(()));
            if acks != Acks::Never {
                patiently(step, || (plane.core.state().records("pi3") > stored).then_some(()));
            }
            if acks != Acks::Prompt {
                // The PUBACK arrives.
                std::thread::sleep(Duration::from_millis(100));
                assert_eq!(left(&node), 1, "{step}: a PUBACK deletes nothing");
            }
            let before = plane.proxy.connections();
            plane.proxy.cut();
            plane.proxy.mute(false);
            plane.core.state().acks = Acks::Prompt;
            patiently("it connects again", || {
                (plane.proxy.connections() > before && link(&node)["state"] == "connected").then_some(())
            });
            patiently("it is there, and deleted here", || (left(&node) == 0).then_some(()));
            assert_eq!(plane.core.state().records("pi3"), sent, "{step}");
        }
    }
    let state = plane.core.state();
    assert!(state.altered == 0 && state.again >= 6, "{} {}", state.altered, state.again);
    drop(state);
    node.stop();
}

#[test]
fn what_the_control_plane_refuses_for_good_becomes_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::start(folder.path());
    let data = folder.path().join("data");
    plane.core.state().acks = Acks::Refuse(1);
    fill(&data, (1..=1_200).map(|number| row(Lane::Results, "s", number)));
    let node = plane.node(&data, "pi3");
    patiently("all of it is told", || {
        let told = plane.core.state().stream("pi3", "s").is_some_and(|stream| stream.watermark == 1_200);
        (told && left(&node) == 0).then_some(())
    });
    let state = plane.core.state();
    let stream = state.stream("pi3", "s").unwrap();
    let Some(Line::Gap(gap)) = stream.lines.get(&1) else { panic!("{:?}", stream.lines.get(&1)) };
    assert_eq!((gap.count, &gap.reason), (500, &GapReason::Refused));
    assert_eq!(stream.lines.len(), 701);
    drop(state);
    node.stop();
}

#[test]
fn records_that_no_message_can_hold_and_streams_without_a_sendable_name_hold_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::start(folder.path());
    let data = folder.path().join("data");
    let noise: Vec<u8> = {
        // Not compressible, so 200,000 bytes stay that long.
        let mut state = 1_u32;
        (0..200_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect()
    };
    let large = |data: Vec<u8>| Write::Outbox {
        lane: Lane::Results,
        stream: "s".into(),
        created: holm_core::Timestamp(4_000_000_000_000),
        content_type: None,
        data: data.into(),
    };
    let long = format!("publish.{}", "x".repeat(600));
    let rows = [
        row(Lane::Results, "s", 1),
        large(noise),
        row(Lane::Results, &long, 1),
        row(Lane::Results, "s", 3),
        large(vec![b'1'; 3 << 20]),
        row(Lane::Results, "s", 5),
        row(Lane::Results, &long, 2),
    ];
    fill(&data, rows.into_iter());
    let node = plane.node(&data, "pi3");
    patiently("all of it is told", || {
        let told = plane.core.state().stream("pi3", "s").is_some_and(|stream| stream.watermark == 5);
        (told && left(&node) == 0).then_some(())
    });
    let state = plane.core.state();
    let gaps = state.stream("pi3", "s").unwrap().lines.values();
    let gaps: Vec<_> =
        gaps.filter_map(|line| if let Line::Gap(gap) = line { Some(gap.reason.clone()) } else { None }).collect();
    assert_eq!(gaps, [GapReason::TooLarge, GapReason::TooLarge]);
    drop(state);
    let upload = &link(&node)["upload"];
    assert_eq!((&upload["too_large"], &upload["unsendable"]), (&2.into(), &1.into()));
    node.stop();
}

#[test]
fn a_connection_that_is_dead_and_does_not_say_so_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::start(folder.path());
    let data = folder.path().join("data");
    let node = plane.node(&data, "pi3");
    eventually("the connection", || (link(&node)["state"] == "connected").then_some(()));
    plane.proxy.freeze(true);
    // Nothing is on its way: only the ping finds out.
    patiently("the silence is noticed", || (link(&node)["state"] == "connecting").then_some(()));
    let error = link(&node)["last_error"].as_str().unwrap().to_owned();
    assert!(error.contains("did not come within"), "{error}");
    plane.proxy.freeze(false);
    patiently("the connection", || (link(&node)["state"] == "connected").then_some(()));
    node.stop();
}

#[test]
fn a_broker_that_restarts_and_a_line_that_is_cut_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut plane = Plane::start(folder.path());
    let data = folder.path().join("data");
    fill(&data, (1..=40_000).map(|number| row(Lane::Results, "s", number)));
    let node = plane.node(&data, "pi3");
    for part in 1..=4 {
        patiently("a part of it", || (plane.core.state().stream("pi3", "s")?.watermark >= part * 8_000).then_some(()));
        if part % 2 == 0 {
            plane.mosquitto.restart(|| {});
            plane.core.await_ready();
        } else {
            plane.proxy.cut();
        }
    }
    check_all(&plane, &node, "pi3", "s", 40_000);
    assert!(link(&node)["connections"].as_u64().unwrap() >= 2);
    node.stop();
}

#[test]
fn a_node_that_is_killed_again_and_again_sends_each_record_once() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::start(folder.path());
    let data = folder.path().join("data");
    fill(&data, (1..=40_000).map(|number| row(Lane::Results, "s", number)));
    let mut node = plane.node(&data, "pi3");
    for part in 1..=6 {
        patiently("a part of it", || (plane.core.state().stream("pi3", "s")?.watermark >= part * 5_000).then_some(()));
        node.kill();
        node = Plane::run(&data);
    }
    check_all(&plane, &node, "pi3", "s", 40_000);
    node.stop();
}

#[test]
fn a_database_that_was_restored_begins_a_new_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::start(folder.path());
    let data = folder.path().join("data");
    fill(&data, (1..=50).map(|number| row(Lane::Results, "s", number)));
    let node = plane.node(&data, "pi3");
    check_all(&plane, &node, "pi3", "s", 50);
    node.stop();
    let backup = std::fs::read(data.join("holm.db")).unwrap();
    fill(&data, (51..=100).map(|number| row(Lane::Results, "s", number)));
    let node = Plane::run(&data);
    check_all(&plane, &node, "pi3", "s", 100);
    node.stop();
    std::fs::write(data.join("holm.db"), backup).unwrap();
    fill(&data, (51..=60).map(|number| row(Lane::Results, "s", number)));
    let node = Plane::run(&data);
    patiently("the second epoch", || (plane.core.state().streams.len() == 2 && left(&node) == 0).then_some(()));
    let state = plane.core.state();
    let younger = state.streams.values().find(|stream| stream.watermark == 60).unwrap();
    let Some(Line::Gap(gap)) = younger.lines.get(&1) else { panic!("{:?}", younger.lines) };
    assert_eq!((gap.count, &gap.reason, younger.lines.len()), (50, &GapReason::EarlierEpoch, 11));
    drop(state);
    assert_eq!(link(&node)["upload"]["epochs"], 1);
    node.stop();
}

#[test]
fn the_next_job_is_asked_for_until_it_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::start(folder.path());
    let data = folder.path().join("data");
    let node = plane.node(&data, "pi3");
    eventually("the question after a connect", || (plane.core.state().asked >= 1).then_some(()));
    assert_eq!(link(&node)["next_job"], Value::Null);
    {
        let mut state = plane.core.state();
        state.job = Some(serde_json::json!({
            "jobId": "deploy-7", "status": "QUEUED", "queuedAt": 1_795_000_000, "lastUpdatedAt": 1_795_000_000_123_u64,
            "versionNumber": "1", "executionNumber": 1, "jobDocument": "{\"payloadType\": \"x\"}",
        }));
        // Just after the bell, the service has not heard of it yet.
        state.empty = 1;
    }
    plane.core.ring("pi3");
    eventually("the job", || (link(&node)["next_job"] == "deploy-7").then_some(()));
    // Nonsense harms nobody.
    for topic in [
        "holm/pi3/ack",
        "$aws/things/pi3/jobs/$next/get/accepted",
        "$aws/things/pi3/jobs/notify-next",
        "$aws/things/pi3/shadow/name/holm/update/accepted",
    ] {
        for payload in [&b""[..], b"{", b"[1]", &[0xff; 1_000], b"{\"v\":1}"] {
            plane.core.send(topic, payload);
        }
    }
    plane.core.state().job = None;
    plane.core.ring("pi3");
    eventually("there is no job any more", || link(&node)["next_job"].is_null().then_some(()));
    assert_eq!(link(&node)["connections"], 1);
    node.stop();
}

#[test]
fn a_certificate_is_renewed_at_two_thirds_of_its_life_and_when_it_has_expired() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::start(folder.path());
    let data = folder.path().join("data");
    let expires = |node: &Node| link(node)["certificate_expires"].as_i64();
    for life in [(-9_000, 1_000), (-9_000, -1_000)] {
        plane.https.desk().life = life;
        let _ = std::fs::remove_dir_all(data.join("identity"));
        plane.enrol(&data, "pi3");
        let old = std::fs::read_to_string(data.join("identity/device.json")).unwrap();
        plane.https.desk().life = (-60, 86_400);
        let node = Plane::run(&data);
        let soon = (time::OffsetDateTime::now_utc().unix_timestamp() + 3_600) * 1_000;
        patiently("a connection with the new certificate", || {
            (link(&node)["state"] == "connected" && expires(&node)? > soon && !data.join("identity/next.json").exists())
                .then_some(())
        });
        let new = std::fs::read_to_string(data.join("identity/device.json")).unwrap();
        let key = |text: &str| serde_json::from_str::<Value>(text).unwrap()["key_pem"].clone();
        assert_ne!(key(&old), key(&new));
        node.stop();
    }
}

#[test]
fn a_renewal_that_is_cut_half_way_leaves_a_device_that_connects() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::start(folder.path());
    let data = folder.path().join("data");
    // Two thirds of it are over, and so they are of each one that follows: every start begins with a renewal.
    plane.https.desk().life = (-9_000, 1_000);
    plane.enrol(&data, "pi3");
    let keys = || plane.https.desk().requests.len();
    let mut renewals = 0;
    for round in 0..20 {
        let before = keys();
        let node = Plane::run(&data);
        std::thread::sleep(Duration::from_millis(rand::random_range(0..40) * (round % 10)));
        node.kill();
        renewals += usize::from(keys() > before);
    }
    assert!(renewals > 0, "none was cut in the middle");
    plane.https.desk().life = (-60, 86_400);
    let node = Plane::run(&data);
    let soon = (time::OffsetDateTime::now_utc().unix_timestamp() + 3_600) * 1_000;
    patiently("a connection with a certificate that lasts", || {
        let link = link(&node);
        let lasts = link["certificate_expires"].as_i64()? > soon;
        (link["state"] == "connected" && lasts && !data.join("identity/next.json").exists()).then_some(())
    });
    node.stop();
}

#[test]
fn a_device_whose_clock_says_1970_enrols_and_connects() {
    let folder = tempfile::tempdir().unwrap();
    if std::process::Command::new("faketime").arg("--version").output().is_err() {
        holm_tests::skip("faketime is not installed");
        return;
    }
    let plane = Plane::start(folder.path());
    let data = folder.path().join("data");
    for time in ["1970-01-03 00:00:00", "2099-01-01 00:00:00"] {
        let _ = std::fs::remove_dir_all(data.join("identity"));
        std::fs::create_dir_all(&data).unwrap();
        let token = plane.https.desk().token();
        let seed = format!(
            "cloud = \"{}\"\ntoken = \"{token}\"\nca_hash = \"{}\"\nthing = \"pi3\"\n",
            plane.https.url,
            plane.ca_hash()
        );
        std::fs::write(data.join("enrol.toml"), seed).unwrap();
        let under = ["env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "faketime", time].map(str::to_owned).to_vec();
        let start = holm_tests::node::Start {
            config: holm_tests::cloud::QUICK,
            under: &under,
            ..holm_tests::node::Start::new(&data)
        };
        let node = start.run();
        eventually("the connection", || (link(&node)["state"] == "connected").then_some(()));
        assert!(!node.admin.get("/v1/status")["time_plausible"].as_bool().unwrap() || time.starts_with("2099"));
        node.stop();
    }
}
