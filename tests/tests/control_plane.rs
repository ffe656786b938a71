//! The control plane, from outside: the real `holm cloud`, over real TLS.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use holm_bundle::Digest;
use holm_core::Timestamp;
use holm_protocol::{
    DESIRED_STATE_FORMAT, DESIRED_STATE_TYPE, DeploymentPolicy, DesiredState, Enrolled, Envelope, Epoch, Gap,
    GapReason, Line, Record, RefusalReason, Signature, ThingName,
};
use holm_tests::control_plane::ControlPlane;
use holm_tests::device::{Device, EPOCH, agent, batch, enrol};
use holm_tests::eventually;
use rcgen::KeyPair;
use serde_json::{Value, json};

const STREAM: &str = "result.water-loss.flow";

fn records(first: u64, count: u64) -> Vec<Line> {
    let record = |n: u64| {
        let time = Timestamp(1_731_000_000_000 + i64::try_from(n).unwrap() * 1_000);
        Line::Record(Record { time, content_type: None, data: format!("{n}.5").into_bytes() })
    };
    (first..first + count).map(record).collect()
}

fn gap(count: u64) -> Line {
    Line::Gap(Gap { count, reason: GapReason::Cap, at: Timestamp(1_731_000_000_999) })
}

/// An envelope as an operator would hand it in. Nobody here checks its signature.
fn envelope(thing: &str, generation: u64) -> Vec<u8> {
    let state = DesiredState {
        format: DESIRED_STATE_FORMAT,
        device: ThingName::new(thing).unwrap(),
        generation,
        rollout: None,
        issued: Timestamp(1_731_000_000_000),
        expires: Timestamp(4_000_000_000_000),
        policy: DeploymentPolicy { health_window_s: 0, deadline_s: 60, window: None },
        agent: None,
        functions: Vec::new(),
    };
    let signatures = vec![Signature { key_id: "k".to_owned(), algorithm: None, bytes: vec![7; 64] }];
    let payload = state.write().unwrap();
    Envelope { payload_type: DESIRED_STATE_TYPE.to_owned(), payload, signatures }.write().unwrap().into_bytes()
}

fn sequences(cloud: &ControlPlane) -> Vec<u64> {
    let rows = cloud.get("/v1/results?series=water-loss.flow&limit=10000")["rows"].as_array().unwrap().clone();
    rows.iter().map(|row| row["sequence"].as_u64().unwrap()).collect()
}

#[test]
fn the_first_start_makes_everything_and_later_ones_keep_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut cloud = ControlPlane::start(folder.path());
    let mode = |path: &str| std::fs::metadata(cloud.data().join(path)).unwrap().permissions().mode() & 0o777;
    for (path, expected) in [("", 0o700), ("ca", 0o700), ("ca/root.key", 0o600), ("ca/issuing.key", 0o600)] {
        assert_eq!(mode(path), expected, "{path}");
    }
    let root = std::fs::read_to_string(cloud.data().join("ca/root.crt")).unwrap();
    let told = cloud.ask("GET", "/v1/ca", None, b"").json();
    assert_eq!(told["root_pem"], root);
    let der = rustls_der(&root);
    assert_eq!(Digest::of(&der).to_string(), cloud.ca_hash, "what a device compares");
    // Only hashes of tokens are kept.
    let enrolment = cloud.enrolment_token("greenhouse");
    let database = std::fs::read(cloud.data().join("records.db-wal")).unwrap();
    let token = cloud.token.clone();
    let holds = |text: &str| database.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("greenhouse") && !holds(&token) && !holds(&enrolment));
    cloud.stop_and_restart();
    assert_eq!(cloud.token, token, "it makes no other");
    assert_eq!(cloud.get("/v1/status")["ca_hash"], cloud.ca_hash.as_str());
    assert_eq!(cloud.ask("GET", "/v1/ca", None, b"").json()["root_pem"], root);
    cloud.stop();
}

fn rustls_der(pem: &str) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

#[test]
fn a_token_lets_one_device_in_once() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let token = cloud.enrolment_token("greenhouse");
    let refused = enrol(&cloud, "no-such-token", Some("pi3"), &key);
    assert_eq!((refused.status, refused.code().as_str()), (401, "token-unknown"));
    let first = enrol(&cloud, &token, Some("pi3"), &key);
    assert_eq!(first.status, 200, "{first:?}");
    let enrolled = Enrolled::read(&first.body).unwrap();
    assert_eq!((enrolled.thing.as_str(), enrolled.groups[0].as_str()), ("pi3", "greenhouse"));
    let port: u16 = cloud.mqtt.rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!((enrolled.mqtt.host.as_str(), enrolled.mqtt.port), ("127.0.0.1", port), "the way that it came by");
    assert_eq!(enrolled.tuf.metadata_url, format!("https://{}/tuf/metadata/", cloud.https));
    for name in [Some("pi4"), Some("pi3"), None] {
        let again = enrol(&cloud, &token, name, &other);
        assert_eq!((again.status, again.code().as_str()), (403, "token-used"), "{name:?}");
    }
    // The answer may have been lost: the same key is answered once more, under the same name.
    for name in [Some("pi3"), None] {
        let again = enrol(&cloud, &token, name, &key);
        assert_eq!(Enrolled::read(&again.body).unwrap().thing.as_str(), "pi3", "{name:?}");
    }
    let taken = enrol(&cloud, &cloud.enrolment_token("greenhouse"), Some("pi3"), &other);
    assert_eq!((taken.status, taken.code().as_str()), (409, "thing-taken"));
    let named = enrol(&cloud, &cloud.enrolment_token("greenhouse"), None, &other);
    assert!(Enrolled::read(&named.body).unwrap().thing.as_str().starts_with("thing-"));
    let tokens = cloud.get("/v1/enrolment-tokens")["tokens"].as_array().unwrap().clone();
    assert_eq!(tokens.iter().filter(|token| !token["used"].is_null()).count(), 2);
    cloud.stop();
}

#[test]
fn requests_that_are_not_right_are_told_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let token = cloud.token.clone();
    for path in ["/v1/devices", "/v1/results", "/v1/enrolment-tokens", "/v1/status"] {
        for token in [None, Some("wrong")] {
            let answer = cloud.ask("GET", path, token, b"");
            assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"), "{path}");
        }
    }
    let long = vec![b'x'; 200_000];
    for (method, path, body, status, code, problems) in [
        ("GET", "/v1/nothing", &b""[..], 404, "not-found", 0),
        ("DELETE", "/v1/devices", b"", 405, "method-not-allowed", 0),
        ("GET", "/v1/devices/pi3", b"", 404, "not-found", 0),
        ("GET", "/v1/devices/a%2Fb", b"", 400, "bad-request", 1),
        ("GET", "/v1/devices?status=gone&limit=0&x=1&group=a%20b", b"", 400, "bad-request", 4),
        ("GET", "/v1/results?since=now&series=a&stream=b&after=x&format=xml", b"", 400, "bad-request", 4),
        ("POST", "/v1/enrolment-tokens", b"{\"ttl\":1,\"group\":\"a/b\",\"x\":1}", 400, "bad-request", 3),
        ("POST", "/v1/enrolment-tokens", b"[1]", 400, "bad-request", 1),
        ("POST", "/v1/enrol", b"{}", 400, "bad-request", 1),
        ("POST", "/v1/enrol", &long, 413, "too-large", 0),
        ("POST", "/v1/renew", b"\xff", 400, "bad-request", 1),
        ("POST", "/v1/devices/pi3/revoke", b"", 404, "not-found", 0),
        ("PUT", "/v1/devices/pi3/job", b"{}", 400, "bad-request", 1),
        ("PUT", "/v1/blobs/xyz", b"{}", 400, "bad-request", 1),
    ] {
        let answer = cloud.ask(method, path, Some(&token), body);
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, error["code"].as_str().unwrap()), (status, code), "{method} {path}: {error}");
        assert_eq!(error["problems"].as_array().unwrap().len(), problems, "{method} {path}: {error}");
    }
    let bad = json!({ "token": cloud.enrolment_token("g"), "csr_pem": "nonsense", "thing": null, "agent": agent() });
    let answer = cloud.ask("POST", "/v1/enrol", None, bad.to_string().as_bytes());
    assert_eq!((answer.status, answer.code().as_str()), (400, "csr-refused"));
    cloud.stop();
}

#[test]
fn a_device_is_who_its_certificate_says_and_speaks_for_itself_alone() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let (pi3, pi4) = (Device::enrol(&cloud, "pi3"), Device::enrol(&cloud, "pi4"));
    for name in ["pi4", "", "$SYS"] {
        let error = pi3.try_connect(&cloud, name).err().unwrap();
        assert_eq!(error.to_string(), "CONNACK 2", "as {name:?}");
    }
    // A certificate under another root does not get as far.
    let elsewhere = tempfile::tempdir().unwrap();
    let other = ControlPlane::start(elsewhere.path());
    assert!(Device::enrol(&other, "pi3").try_connect(&cloud, "pi3").is_err());
    let mut link = pi3.connect(&cloud);
    let foreign = ["holm/pi4/ack", "$aws/things/pi4/jobs/notify-next", "#", "+/pi3/ack", "$SYS/#", "holm/+/ack"];
    assert_eq!(link.subscribe(&foreign.map(str::to_owned)), [0x80; 6]);
    let mut victim = pi4.connect(&cloud);
    // Topics of others: refused, which by MQTT 3.1.1 means the end.
    let (topic, payload) = pi4.batch(STREAM, 1, &records(1, 1));
    for topic in [topic.as_str(), "$aws/things/pi4/jobs/$next/get", "holm/pi4/ack", "anything"] {
        let mut link = pi3.connect(&cloud);
        link.publish(topic, &payload, 1).unwrap();
        link.is_closed();
    }
    // The topic is its own, the header is another's: acknowledged, so that nothing waits behind it, and not stored.
    let mut link = pi3.connect(&cloud);
    link.publish(&pi3.batch(STREAM, 1, &records(1, 1)).0, &payload, 1).unwrap();
    link.puback(1);
    // Nothing that a device sends gets to another, nor back to itself.
    link.publish("holm/pi3/ack", b"{}", 2).unwrap();
    link.puback(2);
    assert!(sequences(&cloud).is_empty());
    let (topic, payload) = pi4.batch(STREAM, 1, &records(1, 1));
    victim.publish(&topic, &payload, 3).unwrap();
    assert_eq!(victim.ack(&pi4.thing).watermarks[0].upto, 1);
    cloud.stop();
}

#[test]
fn a_revoked_device_is_thrown_out_and_kept_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut cloud = ControlPlane::start(folder.path());
    let (pi3, pi4) = (Device::enrol(&cloud, "pi3"), Device::enrol(&cloud, "pi4"));
    let (mut link, mut other) = (pi3.connect(&cloud), pi4.connect(&cloud));
    assert_eq!(cloud.get("/v1/devices/pi3")["connected"], true);
    let answer = cloud.send("POST", "/v1/devices/pi3/revoke", b"");
    assert_eq!((answer.status, answer.json()["was_connected"].as_bool()), (200, Some(true)));
    link.is_closed();
    for _ in 0..2 {
        let error = pi3.try_connect(&cloud, "pi3").err().unwrap();
        assert_eq!(error.to_string(), "CONNACK 5");
        let key = KeyPair::generate().unwrap();
        let refused = pi3.renew(&cloud, &key);
        assert_eq!((refused.status, refused.code().as_str()), (403, "certificate-revoked"));
        cloud.kill_and_restart();
    }
    assert_eq!(cloud.get("/v1/devices/pi3")["status"], "revoked");
    assert_eq!(cloud.get("/v1/devices?status=active")["devices"].as_array().unwrap().len(), 1);
    other.is_closed();
    pi4.connect(&cloud);
    cloud.stop();
}

#[test]
fn a_certificate_vouches_for_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let mut pi3 = Device::enrol(&cloud, "pi3");
    let (lost, new) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut unused = Device { thing: pi3.thing.clone(), enrolled: pi3.enrolled.clone(), key: lost };
    let answer = pi3.renew(&cloud, &unused.key);
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    unused.enrolled = Enrolled::read(&answer.body).unwrap();
    // The old one is good until then, and still after: the new one may have been lost.
    let _link = pi3.connect(&cloud);
    let answer = pi3.renew(&cloud, &new);
    let enrolled = Enrolled::read(&answer.body).unwrap();
    assert_eq!((enrolled.thing.as_str(), enrolled.groups.len()), ("pi3", 1));
    let error = unused.try_connect(&cloud, "pi3").err().unwrap();
    assert_eq!(error.to_string(), "CONNACK 5", "it was never used, and its place is taken");
    let forged = Device { key: KeyPair::generate().unwrap(), enrolled: pi3.enrolled.clone(), thing: pi3.thing.clone() };
    let refused = forged.renew(&cloud, &KeyPair::generate().unwrap());
    assert_eq!((refused.status, refused.code().as_str()), (401, "signature-wrong"));
    pi3.connect(&cloud);
    (pi3.key, pi3.enrolled) = (new, enrolled);
    // A second connection of the same device ends the first one.
    let mut first = pi3.connect(&cloud);
    let _second = pi3.connect(&cloud);
    first.is_closed();
    cloud.stop();
}

#[test]
fn records_are_stored_once_in_whatever_order_they_come() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let pi3 = Device::enrol(&cloud, "pi3");
    let mut link = pi3.connect(&cloud);
    let mut id = 0;
    for (what, first, lines, upto) in [
        ("the first", 1, records(1, 5), 5),
        ("again", 1, records(1, 5), 5),
        ("out of order", 11, records(11, 5), 5),
        ("one that overlaps both", 4, records(4, 9), 15),
        ("a gap with a record behind it", 16, vec![gap(100), records(116, 1).remove(0)], 116),
        ("a part of what is there", 2, records(2, 3), 116),
        ("far away", 1_000, records(1_000, 1), 116),
        ("a gap over what is there", 117, vec![gap(1_000)], 1_116),
    ] {
        id += 1;
        let (topic, payload) = pi3.batch(STREAM, first, &lines);
        link.publish(&topic, &payload, id).unwrap();
        let ack = link.ack(&pi3.thing);
        link.puback(id);
        assert_eq!((ack.watermarks[0].upto, ack.refused.len()), (upto, 0), "{what}");
        assert_eq!((ack.watermarks[0].stream.as_str(), ack.watermarks[0].epoch), (STREAM, EPOCH));
    }
    assert_eq!(sequences(&cloud), (1..=15).chain([116, 1_000]).collect::<Vec<_>>());
    let answer = cloud.get("/v1/results?series=water-loss.flow");
    let row = &answer["rows"][0];
    assert_eq!((row["device"].as_str(), row["value"].as_f64()), (Some("pi3"), Some(1.5)), "{row}");
    let gaps: Vec<(u64, u64)> = answer["gaps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|gap| (gap["first"].as_u64().unwrap(), gap["count"].as_u64().unwrap()))
        .collect();
    assert_eq!(gaps, [(16, 100), (117, 883), (1_001, 116)], "what is there is no gap");
    cloud.stop();
}

#[test]
fn a_batch_that_is_none_is_refused_and_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let pi3 = Device::enrol(&cloud, "pi3");
    let mut link = pi3.connect(&cloud);
    let (topic, good) = pi3.batch(STREAM, 1, &records(1, 50));
    let header_end = 8 + u32::from_le_bytes(good[4..8].try_into().unwrap()) as usize;
    let mut torn = good.clone();
    torn.truncate(good.len() - 9);
    let mut flipped = good.clone();
    flipped[header_end + 20] ^= 0x55;
    let later = {
        let header = String::from_utf8(good[8..header_end].to_vec()).unwrap().replace("\"v\":1", "\"v\":2");
        let mut payload = good[..4].to_vec();
        payload.extend(u32::try_from(header.len()).unwrap().to_le_bytes());
        payload.extend(header.as_bytes());
        payload.extend(&good[header_end..]);
        payload
    };
    let mut id = 0;
    for (what, payload, reason) in [
        ("torn", &torn, Some(RefusalReason::Malformed)),
        ("flipped", &flipped, Some(RefusalReason::Malformed)),
        ("of a later format", &later, Some(RefusalReason::UnsupportedFormat)),
        ("nonsense", &b"nonsense".to_vec(), None),
        ("empty", &Vec::new(), None),
        ("good", &good, None),
    ] {
        id += 1;
        link.publish(&topic, payload, id).unwrap();
        link.puback(id);
        let Some(reason) = reason else { continue };
        let ack = link.ack(&pi3.thing);
        assert!(ack.watermarks.is_empty(), "{what}");
        assert_eq!((ack.refused[0].first, ack.refused[0].count), (1, 50), "{what}");
        assert_eq!(ack.refused[0].reason, reason, "{what}");
    }
    assert_eq!(link.ack(&pi3.thing).watermarks[0].upto, 50, "the good one went through");
    // On the topic of another lane, or of another stream.
    for other in ["holm/pi3/r/logs/result_water-loss_flow", "holm/pi3/r/results/other"] {
        link.publish(other, &good, 9).unwrap();
        assert_eq!(link.ack(&pi3.thing).refused[0].reason, RefusalReason::Mismatch, "{other}");
    }
    assert_eq!(sequences(&cloud).len(), 50);
    cloud.stop();
}

#[test]
fn a_batch_that_was_not_acknowledged_is_there_or_comes_again_and_the_watermark_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut cloud = ControlPlane::start(folder.path());
    let pi3 = Device::enrol(&cloud, "pi3");
    let mut sent = 0;
    for round in 0..12_u64 {
        // Killed somewhere between the batch and its acknowledgement, or before, or after.
        let mut link = pi3.connect(&cloud);
        let batches: Vec<_> =
            (0..4).map(|n| pi3.batch(STREAM, 1 + sent + n * 100, &records(1 + sent + n * 100, 100))).collect();
        for (id, (topic, payload)) in (1..).zip(&batches) {
            link.publish(topic, payload, id).unwrap();
        }
        // What was acknowledged, a device forgets: it is never sent again.
        let acknowledged = (0..round % 4).map(|_| link.ack(&pi3.thing).watermarks[0].upto).max().unwrap_or(sent);
        cloud.kill_and_restart();
        let mut link = pi3.connect(&cloud);
        let mut last = acknowledged;
        for (id, (topic, payload)) in (1..).zip(&batches).skip(usize::try_from((acknowledged - sent) / 100).unwrap()) {
            link.publish(topic, payload, id).unwrap();
            link.puback(id);
            last = link.ack(&pi3.thing).watermarks[0].upto;
        }
        sent += 400;
        assert_eq!(last, sent, "round {round}");
    }
    assert_eq!(sequences(&cloud), (1..=sent).collect::<Vec<_>>(), "each once");
    cloud.stop();
}

#[test]
fn results_are_read_in_pages_by_time_and_as_files() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    for name in ["pi3", "pi4"] {
        let device = Device::enrol(&cloud, name);
        let mut link = device.connect(&cloud);
        let (topic, payload) = device.batch(STREAM, 1, &records(1, 250));
        link.publish(&topic, &payload, 1).unwrap();
        link.puback(1);
        let text = Line::Record(Record { time: Timestamp(5), content_type: None, data: b"say \"hi\", you".to_vec() });
        let (topic, payload) = device.batch("result.other.note", 1, &[text]);
        link.publish(&topic, &payload, 2).unwrap();
        link.puback(2);
    }
    for order in ["first", "latest"] {
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/results?series=water-loss.flow&limit=77&order={order}&after={after}");
            let page = cloud.get(&path);
            let rows = page["rows"].as_array().unwrap().clone();
            let times: Vec<i64> = rows.iter().map(|row| row["time"].as_i64().unwrap()).collect();
            assert!(times.is_sorted(), "{order}");
            seen.extend(rows.iter().map(|row| (row["sequence"].as_u64().unwrap(), row["device"].to_string())));
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => break,
            }
        }
        seen.sort();
        let count = seen.len();
        seen.dedup();
        assert_eq!((count, seen.len()), (500, 500), "{order}: every row once");
    }
    let since = "since=1731000010000&until=1731000012000";
    for (query, count) in [
        (since.to_owned(), 4),
        (format!("{since}&device=pi4"), 2),
        (format!("{since}&group=greenhouse"), 4),
        (format!("{since}&group=x"), 0),
    ] {
        let page = cloud.get(&format!("/v1/results?series=water-loss.flow&{query}"));
        assert_eq!(page["rows"].as_array().unwrap().len(), count, "{query}");
    }
    let csv = cloud.send("GET", "/v1/results?series=other.note&device=pi3&format=csv", b"");
    let epoch = Epoch(EPOCH.0);
    let expected = format!(
        "device,stream,epoch,sequence,time,value\r\npi3,result.other.note,{epoch},1,5,\"say \"\"hi\"\", you\"\r\n"
    );
    assert_eq!(String::from_utf8(csv.body).unwrap(), expected);
    let lines = cloud.send("GET", "/v1/results?series=other.note&format=ndjson", b"");
    let lines: Vec<Value> =
        String::from_utf8(lines.body).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), lines[0]["text"].as_str()), (2, Some("say \"hi\", you")));
    cloud.stop();
}

#[test]
fn a_device_gets_its_job_says_how_it_goes_and_is_rung_for_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let pi3 = Device::enrol(&cloud, "pi3");
    let mut link = pi3.connect(&cloud);
    let jobs = "$aws/things/pi3/jobs";
    let (next, got) = (format!("{jobs}/$next/get"), format!("{jobs}/$next/get/accepted"));
    let none = link.ask(&next, r#"{"clientToken":"t1"}"#, &got);
    assert!(none.get("execution").is_none() && none["clientToken"] == "t1", "{none}");
    let put = |generation, expected: u16| {
        let answer = cloud.send("PUT", "/v1/devices/pi3/job", &envelope("pi3", generation));
        assert_eq!(answer.status, expected, "{generation}: {}", String::from_utf8_lossy(&answer.body));
    };
    put(5, 200);
    let bell: Value = serde_json::from_slice(&link.message(&format!("{jobs}/notify-next"))).unwrap();
    assert_eq!(bell["execution"]["jobId"], "generation-5", "{bell}");
    put(5, 200);
    put(4, 409);
    assert_eq!(cloud.send("PUT", "/v1/devices/pi3/job", &envelope("pi4", 6)).status, 400);
    assert_eq!(cloud.send("PUT", "/v1/devices/pi9/job", &envelope("pi9", 6)).status, 404);
    link.publish(&next, b"{}", 9).unwrap();
    let answer = link.message(&got);
    let document = envelope("pi3", 5);
    assert!(answer.windows(document.len()).any(|window| window == document), "the document is there, to the byte");
    let job = serde_json::from_slice::<Value>(&answer).unwrap()["execution"].clone();
    assert_eq!((job["status"].as_str(), job["versionNumber"].as_u64()), (Some("QUEUED"), Some(1)), "{job}");
    let update = |job: &str| format!("{jobs}/{job}/update");
    let answered = |job: &str, how: &str| format!("{jobs}/{job}/update/{how}");
    let begun = link.ask(
        &update("generation-5"),
        r#"{"status":"IN_PROGRESS","expectedVersion":1,"statusDetails":{"phase":"downloaded"},"includeJobExecutionState":true,"clientToken":"t2"}"#,
        &answered("generation-5", "accepted"),
    );
    assert_eq!(
        (begun["executionState"]["versionNumber"].as_u64(), begun["clientToken"].as_str()),
        (Some(2), Some("t2"))
    );
    for (job, request, code, state) in [
        ("generation-5", r#"{"status":"SUCCEEDED","expectedVersion":1}"#, "VersionMismatch", true),
        ("generation-5", r#"{"status":"QUEUED"}"#, "InvalidStateTransition", true),
        ("generation-9", r#"{"status":"SUCCEEDED"}"#, "ResourceNotFound", false),
        ("generation-5", "nonsense", "InvalidJson", false),
        ("generation-5", r#"{"status":5}"#, "InvalidRequest", false),
        ("generation-5", r#"{"status":"SUCCEEDED","statusDetails":{"a b":"x"}}"#, "InvalidRequest", false),
    ] {
        let rejected = link.ask(&update(job), request, &answered(job, "rejected"));
        assert_eq!(rejected["code"], code, "{request}: {rejected}");
        assert_eq!(rejected.get("executionState").is_some(), state, "{request}: {rejected}");
    }
    // A newer one takes its place, and what the device says of the old one comes too late.
    put(6, 200);
    let bell: Value = serde_json::from_slice(&link.message(&format!("{jobs}/notify-next"))).unwrap();
    assert_eq!(bell["execution"]["jobId"], "generation-6", "{bell}");
    let late = link.ask(&update("generation-5"), r#"{"status":"SUCCEEDED"}"#, &answered("generation-5", "rejected"));
    assert_eq!(
        (late["code"].as_str(), late["executionState"]["status"].as_str()),
        (Some("InvalidStateTransition"), Some("CANCELED"))
    );
    link.ask(&update("generation-6"), r#"{"status":"SUCCEEDED"}"#, &answered("generation-6", "accepted"));
    let bell: Value = serde_json::from_slice(&link.message(&format!("{jobs}/notify-next"))).unwrap();
    assert!(bell.get("execution").is_none() && bell["timestamp"].is_u64(), "nothing is left: {bell}");
    let device = cloud.get("/v1/devices/pi3");
    assert_eq!(
        (device["job"]["id"].as_str(), device["job"]["status"].as_str()),
        (Some("generation-6"), Some("SUCCEEDED"))
    );
    cloud.stop();
}

#[test]
fn what_a_device_reports_is_kept_as_it_said_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut cloud = ControlPlane::start(folder.path());
    let pi3 = Device::enrol(&cloud, "pi3");
    let mut link = pi3.connect(&cloud);
    let topic = "$aws/things/pi3/shadow/name/holm/update";
    let golden = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../cloud-sync/protocol/tests/golden/holm/shadow-update.json"),
    )
    .unwrap();
    let accepted = link.ask(topic, golden.trim_end(), &format!("{topic}/accepted"));
    assert_eq!((accepted["version"].as_u64(), accepted["clientToken"].as_str()), (Some(1), Some("pump-7-20")));
    assert_eq!(accepted["state"]["reported"]["agent"], "0.1.0");
    let rejected = link.ask(topic, r#"{"state":{},"clientToken":"t"}"#, &format!("{topic}/rejected"));
    assert_eq!((rejected["code"].as_u64(), rejected["clientToken"].as_str()), (Some(400), Some("t")));
    cloud.kill_and_restart();
    let device = cloud.get("/v1/devices/pi3");
    let sent: Value = serde_json::from_str(&golden).unwrap();
    assert_eq!(device["reported"], sent["state"]["reported"]);
    assert_eq!((device["connected"].as_bool(), device["reported_version"].as_u64()), (Some(false), Some(1)));
    let _link = pi3.connect(&cloud);
    eventually("it is shown online", || (cloud.get("/v1/devices/pi3")["connected"] == true).then_some(()));
    cloud.stop();
}

#[test]
fn blobs_are_what_they_are_called_and_come_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let path = format!("/v1/blobs/{}", Digest::of(&bytes));
    assert_eq!(cloud.send("GET", &path, b"").status, 404);
    assert_eq!(cloud.send("PUT", &path, b"other").status, 400);
    assert_eq!(cloud.send("PUT", &path, &bytes).status, 201);
    assert_eq!(cloud.send("PUT", &path, &bytes).status, 200);
    assert_eq!(cloud.send("GET", &path, b"").body, bytes);
    let part =
        |range: &str| cloud.ask_with("GET", &path, Some(&cloud.token), &format!("Range: {range}\r\n"), b"").unwrap();
    let middle = part("bytes=1000-199999");
    assert_eq!((middle.status, middle.body), (206, bytes[1_000..200_000].to_vec()));
    assert!(middle.head.contains("bytes 1000-199999/300000"), "{}", middle.head);
    assert_eq!(part("bytes=299990-").body, bytes[299_990..]);
    assert_eq!(part("bytes=300000-").status, 416);
    cloud.stop();
}

/// Somebody else's MQTT client, with OpenSSL under it.
#[test]
fn a_foreign_client_with_a_certificate_is_a_device_too() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let pi3 = Device::enrol(&cloud, "pi3");
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let (topic, payload) = pi3.batch(STREAM, 1, &records(1, 10));
    let publish = |client: &str| {
        let mut command = std::process::Command::new("mosquitto_pub");
        command.args(["-V", "311", "-q", "1", "-h", "127.0.0.1", "-p", cloud.mqtt.rsplit(':').next().unwrap()]);
        command.args(["-i", client, "-t", &topic]).arg("-f").arg(file("batch", &payload));
        command.arg("--cafile").arg(cloud.data().join("ca/root.crt"));
        command.arg("--cert").arg(file("cert.pem", pi3.enrolled.certificate_pem.as_bytes()));
        command.arg("--key").arg(file("key.pem", pi3.key.serialize_pem().as_bytes()));
        command.output().unwrap_or_else(|error| panic!("mosquitto-clients are needed, run `cargo xtask test`: {error}"))
    };
    assert!(!publish("pi4").status.success());
    let output = publish("pi3");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(sequences(&cloud), (1..=10).collect::<Vec<_>>());
    cloud.stop();
}

#[test]
fn two_do_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let mut command = std::process::Command::new(holm_tests::node::binary("holm"));
    command.arg("cloud").arg("--data").arg(cloud.data()).args(["--https", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]);
    let output = command.output().unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("is in use by another process") && told.contains("next:"), "{told}");
    cloud.stop();
}

/// Whatever a stranger or a device sends, the others are served.
#[test]
fn noise_ends_no_more_than_its_connection() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let pi3 = Device::enrol(&cloud, "pi3");
    for address in [&cloud.https, &cloud.mqtt] {
        for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff], &[0xff; 5_000], b""] {
            let mut socket = std::net::TcpStream::connect(address).unwrap();
            let _ = socket.write_all(noise);
        }
    }
    let mut link = pi3.connect(&cloud);
    for subject in
        ["jobs/$next/get", "jobs/x/update", "shadow/name/holm/update", "shadow/name/other/update", "else", "jobs"]
    {
        for payload in [&b""[..], b"{", b"null", &[0xff, 0], b"[[[[[[[[[[", br#"{"clientToken":5}"#] {
            link.publish(&format!("$aws/things/pi3/{subject}"), payload, 1).unwrap();
            link.puback(1);
        }
    }
    for stream in ["x", "result_water-loss_flow"] {
        link.publish(&format!("holm/pi3/r/results/{stream}"), &[0x58, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0, 0, b'{'], 2)
            .unwrap();
        link.puback(2);
    }
    let (topic, payload) = batch(&pi3.thing, STREAM, 1, &records(1, 1));
    link.publish(&topic, &payload, 3).unwrap();
    assert_eq!(link.ack(&pi3.thing).watermarks[0].upto, 1);
    cloud.stop();
}
