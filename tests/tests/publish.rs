//! Releases, from a laptop by way of the control plane to whoever asks: the real `holm` and `holm cloud`.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use holm_bundle::Digest;
use holm_core::Timestamp;
use holm_protocol::DesiredState;
use holm_tests::clock::{Clock, library};
use holm_tests::control_plane::ControlPlane;
use holm_tests::device::Device;
use holm_tests::functions::{Guest, example};
use holm_tests::publisher::Publisher;
use holm_trust::tuf::DeploymentKeys;
use holm_trust::{Acceptance, Judge, TrustedTime};
use serde_json::{Value, json};

/// A bundle that nobody runs.
fn flow(version: &str, permissions: &str) -> Vec<u8> {
    Guest::new("flow", "fine").version(version).permissions(permissions).bundle_of(b"no component, but bytes")
}

/// A control plane whose repository has begun, and who began it.
fn begun(folder: &std::path::Path) -> (ControlPlane, Publisher) {
    let cloud = ControlPlane::start(folder);
    let laptop = Publisher::new(folder);
    laptop.ok(&cloud, &["key", "new", "--cloud"]);
    (cloud, laptop)
}

const NAME: &str = "functions/flow/1.0.0/flow.holm";

#[test]
fn a_release_is_signed_here_and_arrives_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let laptop = Publisher::new(folder.path());
    let bundle = example("scale", |manifest| manifest);
    let path = laptop.bundle("scale.holm", &bundle);
    let told = laptop.fails(&cloud, 1, &["publish", &path]);
    assert!(told.contains("holm key new --cloud"), "{told}");
    assert_eq!(cloud.ask("GET", "/tuf/metadata/timestamp.json", None, b"").status, 404);

    let told = laptop.ok(&cloud, &["key", "new", "--cloud", "--root-keys", "2", "--root-threshold", "2"]);
    assert!(told.contains("signed root 1, 2 of 2 root keys; targets 1"), "{told}");
    let mode = |path: &str| std::fs::metadata(laptop.folder.join(path)).unwrap().permissions().mode() & 0o777;
    for (path, expected) in [("holm/keys", 0o700), ("holm/keys/root-2.key", 0o600), ("holm/keys/targets.key", 0o600)] {
        assert_eq!(mode(path), expected, "{path}");
    }
    let mode = |path: &str| std::fs::metadata(cloud.data().join(path)).unwrap().permissions().mode() & 0o777;
    for name in ["snapshot", "timestamp", "deployment"] {
        assert_eq!(mode(&format!("keys/{name}.key")), 0o600, "{name}");
    }
    let again = laptop.fails(&cloud, 1, &["key", "new", "--cloud"]);
    assert!(again.contains("has begun already"), "{again}");

    let signed = laptop.publish(&cloud, &path, &["--profile", "x64-v1"]);
    let digest = Digest::of(&bundle).to_string();
    let version = signed["version"].as_str().unwrap();
    let name = format!("functions/scale/{version}/scale.holm");
    assert_eq!((&signed["files"][0]["name"], &signed["files"][0]["sha256"]), (&json!(name), &json!(digest)));
    assert_eq!((&signed["sequence"], &signed["targets"]), (&json!(1), &json!(2)));
    laptop.believe(&cloud);
    assert_eq!(laptop.download(&cloud, &name).unwrap(), bundle);
    let native = &signed["files"][1];
    let got = laptop.download(&cloud, native["name"].as_str().unwrap()).unwrap();
    assert_eq!(native["sha256"], Digest::of(&got).to_string());
    let engine = native["engine"].as_str().unwrap();
    assert_eq!(native["name"], format!("functions/scale/{version}/wasmtime-{engine}-x64-v1.cwasm"));

    // What enrols now gets the root with its certificate.
    let device = Device::enrol(&cloud, "pi3");
    let root = device.enrolled.tuf.root_json.unwrap();
    assert_eq!(root.get().as_bytes(), cloud.ask("GET", "/tuf/metadata/1.root.json", None, b"").body);

    let told = laptop.fails(&cloud, 1, &["publish", &path]);
    assert!(told.contains("is published already"), "{told}");
    cloud.stop();
}

#[test]
fn files_come_in_parts_and_are_known_again() {
    let folder = tempfile::tempdir().unwrap();
    let (cloud, laptop) = begun(folder.path());
    let bundle = flow("1.0.0", "");
    laptop.publish(&cloud, &laptop.bundle("flow.holm", &bundle), &[]);
    let digest = Digest::of(&bundle);
    let path = format!("/tuf/targets/functions/flow/1.0.0/{digest}.flow.holm");
    let ask = |path: &str, more: &str| cloud.ask_with("GET", path, None, more, b"").unwrap();
    let part = ask(&path, "Range: bytes=5-9\r\n");
    assert_eq!((part.status, &part.body[..]), (206, &bundle[5..10]));
    let rest = ask(&path, "Range: bytes=10-\r\n");
    assert_eq!((rest.status, &rest.body[..]), (206, &bundle[10..]));
    assert_eq!(ask(&path, &format!("Range: bytes={}-\r\n", bundle.len())).status, 416);
    assert_eq!(ask(&path, &format!("If-None-Match: \"{digest}\"\r\n")).status, 304);
    let timestamp = ask("/tuf/metadata/timestamp.json", "");
    let tag = timestamp.head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
    assert_eq!(ask("/tuf/metadata/timestamp.json", &format!("If-None-Match: {tag}\r\n")).status, 304);
    // Only what is listed, and nobody can put anything there.
    for path in [
        "/tuf/targets/functions/flow/1.0.0/flow.holm".to_owned(),
        format!("/tuf/targets/{digest}.flow.holm"),
        "/tuf/metadata/../records.db".to_owned(),
        "/tuf/metadata/9.root.json".to_owned(),
    ] {
        assert_eq!(ask(&path, "").status, 404, "{path}");
    }
    assert_eq!(cloud.send("PUT", &path, b"x").status, 405);
    for method in ["GET", "POST"] {
        assert_eq!(cloud.ask(method, "/v1/repository", None, b"{}").status, 401);
    }
    cloud.stop();
}

#[test]
fn what_is_not_right_is_not_published() {
    let folder = tempfile::tempdir().unwrap();
    let (cloud, laptop) = begun(folder.path());
    let one = laptop.bundle("one.holm", &flow("1.0.0", "publish = [\"a/#\"]"));
    laptop.publish(&cloud, &one, &[]);
    let narrower = laptop.bundle("narrower.holm", &flow("1.0.1", "publish = [\"a/b\"]"));
    assert_eq!(laptop.publish(&cloud, &narrower, &[])["sequence"], 2);
    let two = laptop.bundle("two.holm", &flow("1.1.0", "publish = [\"a/#\"]\nkv = [\"rw:self\"]"));
    let told = laptop.fails(&cloud, 1, &["publish", &two]);
    assert!(told.contains("+ publish a/#") && told.contains("+ kv rw:self"), "{told}");
    let signed = laptop.publish(&cloud, &two, &["--approve-permissions"]);
    assert_eq!(signed["widened"], json!(["publish a/#", "kv rw:self"]));
    // Somebody else's signature, and garbage.
    let before = cloud.get("/v1/repository");
    let other = Publisher::new(&folder.path().join("other"));
    let told = other.fails(&cloud, 1, &["key", "new", "--cloud"]);
    assert!(told.contains("by other keys"), "{told}");
    let targets = cloud.ask("GET", "/tuf/metadata/4.targets.json", None, b"").body;
    let targets = String::from_utf8(targets).unwrap();
    for (body, status, says) in [
        ("nonsense".to_owned(), 400, "not a publication"),
        ("{}".to_owned(), 400, "nothing to publish"),
        (format!("{{\"targets\":{targets}}}"), 409, "faster"),
        (format!("{{\"targets\":{}}}", targets.replace("\"version\":4", "\"version\":5")), 400, "signature"),
    ] {
        let answer = cloud.send("POST", "/v1/repository", body.as_bytes());
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status == status && text.contains(says), "{says}: {answer:?}");
    }
    assert_eq!(cloud.get("/v1/repository"), before);
    cloud.stop();
}

#[test]
fn a_flipped_byte_on_the_server_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (cloud, laptop) = begun(folder.path());
    let bundle = flow("1.0.0", "");
    laptop.publish(&cloud, &laptop.bundle("flow.holm", &bundle), &[]);
    laptop.believe(&cloud);
    let digest = Digest::of(&bundle).to_string();
    let blob = cloud.data().join("blobs").join(&digest[..2]).join(&digest[2..]);
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[17] ^= 1;
    std::fs::write(&blob, &bytes).unwrap();
    let told = laptop.download(&cloud, NAME).unwrap_err();
    assert!(told.contains("digest"), "{told}");
    bytes[17] ^= 1;
    std::fs::write(&blob, &bytes).unwrap();
    assert_eq!(laptop.download(&cloud, NAME).unwrap(), bundle);
    cloud.stop();
}

#[test]
fn a_control_plane_killed_while_publishing_has_the_old_repository_or_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let (mut cloud, laptop) = begun(folder.path());
    laptop.believe(&cloud);
    let (mut old, mut new) = (0, 0);
    let whole = std::time::Instant::now();
    laptop.publish(&cloud, &laptop.bundle("flow.holm", &flow("0.9.0", "")), &[]);
    let whole = whole.elapsed();
    for round in 0..24 {
        let version = format!("1.0.{round}");
        let bundle = flow(&version, "");
        let path = laptop.bundle("flow.holm", &bundle);
        let before = cloud.get("/v1/repository")["repository"]["targets"].as_u64().unwrap();
        let mut publishing = laptop.begin(&cloud, &["publish", &path]);
        // Spread over what it takes, so that most kills are somewhere in the middle.
        std::thread::sleep(whole * round / 24);
        cloud.kill_and_restart();
        publishing.wait().unwrap();
        let after = cloud.get("/v1/repository")["repository"]["targets"].as_u64().unwrap();
        let name = format!("functions/flow/{version}/flow.holm");
        match after - before {
            0 => {
                old += 1;
                let told = laptop.download(&cloud, &name).unwrap_err();
                assert!(told.contains("does not list"), "{told}");
                laptop.publish(&cloud, &path, &[]);
            }
            1 => new += 1,
            more => panic!("{more} versions at once"),
        }
        assert_eq!(laptop.download(&cloud, &name).unwrap(), bundle, "{version}");
    }
    println!("{old} old, {new} new");
    cloud.stop();
}

#[test]
fn keys_are_renewed_and_told_about() {
    let folder = tempfile::tempdir().unwrap();
    let (mut cloud, laptop) = begun(folder.path());
    laptop.believe(&cloud);
    cloud.stop_and_restart();
    let status: Value = serde_json::from_str(&laptop.ok(&cloud, &["key", "status", "--json"])).unwrap();
    assert_eq!((&status["root"]["version"], &status["targets"]["version"]), (&json!(1), &json!(1)));
    assert_eq!(status["warnings"], json!([]));
    if let Some(library) = library() {
        let mut clock = Clock::new(folder.path());
        let mut warned = |days: i64| {
            clock.jump(status["targets"]["expires"].as_i64().unwrap() / 1_000 - days * 86_400 - clock.now());
            let mut command = laptop.command(&cloud, &["key", "status", "--json"]);
            let output = command.envs(clock.environment(&library)).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            serde_json::from_slice::<Value>(&output.stdout).unwrap()["warnings"].clone()
        };
        assert_eq!(warned(22), json!([]));
        assert!(
            ["targets expires in 9 days", "targets expires in 10 days"].map(|text| json!([text])).contains(&warned(10))
        );
        assert_eq!(warned(-1), json!(["targets has expired: devices take no new code until it is signed anew"]));
    }
    let told = laptop.ok(&cloud, &["key", "renew"]);
    assert!(told.starts_with("root       2, until"), "{told}");
    let output = laptop.tuf(&cloud, &["refresh"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("root 2, targets 2"), "{output:?}");
    // Without the root keys, which are in a drawer, targets are.
    std::fs::rename(laptop.folder.join("holm/keys/root-1.key"), laptop.folder.join("drawer")).unwrap();
    let told = laptop.ok(&cloud, &["key", "renew"]);
    assert!(told.contains("targets    3") && told.contains("1 of 1 keys sign, 0 here"), "{told}");
    cloud.stop();
}

#[test]
fn root_keys_and_those_of_the_control_plane_are_replaced_and_everybody_comes_along() {
    let folder = tempfile::tempdir().unwrap();
    let (cloud, laptop) = begun(folder.path());
    let bundle = flow("1.0.0", "");
    laptop.publish(&cloud, &laptop.bundle("flow.holm", &bundle), &[]);
    laptop.believe(&cloud);
    let told = laptop.fails(&cloud, 1, &["key", "rotate", "--root-threshold", "2"]);
    assert!(told.contains("2 of 1 root keys cannot be"), "{told}");
    let told = laptop.ok(&cloud, &["key", "rotate", "--root-keys", "3", "--root-threshold", "2"]);
    assert!(told.contains("3 other root key(s) sign from now on, 2 together"), "{told}");
    assert!(told.contains("2 of 3 keys sign, 3 here"), "{told}");
    // Who has seen the first root follows, and so does who signs.
    assert_eq!(laptop.download(&cloud, NAME).unwrap(), bundle);
    let keys = laptop.folder.join("holm/keys");
    std::fs::rename(keys.join("root-3.key"), folder.path().join("root-3.key")).unwrap();
    let told = laptop.ok(&cloud, &["key", "renew"]);
    assert!(told.starts_with("root       3, until"), "{told}");
    // The old one alone signs nothing any more, and one of three is not enough.
    for left in ["root-1.key.old", "root-2.key"] {
        let thief = Publisher::new(&folder.path().join(left));
        let own = thief.folder.join("holm/keys");
        std::fs::create_dir_all(&own).unwrap();
        std::fs::copy(keys.join(left), own.join("root-1.key")).unwrap();
        let told =
            thief.fails(&cloud, 1, &["key", "recover", "--root", laptop.folder.join("1.root.json").to_str().unwrap()]);
        assert!(told.contains("the keys that are here do not make a root"), "{told}");
    }
    // All that the control plane signs with is made anew.
    let cloud = cloud.replace(|data| {
        for name in ["snapshot", "timestamp", "deployment"] {
            std::fs::remove_file(data.join(format!("keys/{name}.key"))).unwrap();
        }
    });
    let told = laptop.ok(&cloud, &["key", "renew"]);
    assert!(told.starts_with("root       4, until"), "{told}");
    assert_eq!(laptop.download(&cloud, NAME).unwrap(), bundle);
    let online = cloud.get("/v1/repository")["keys"]["deployment"].as_str().unwrap().to_owned();
    let listed = String::from_utf8(laptop.download(&cloud, "deployment-keys.json").unwrap()).unwrap();
    assert!(listed.contains(&online), "{listed} {online}");
    cloud.stop();
}

#[test]
fn a_targets_key_that_is_lost_is_replaced_with_the_root_keys() {
    let folder = tempfile::tempdir().unwrap();
    let (cloud, laptop) = begun(folder.path());
    let bundle = flow("1.0.0", "");
    laptop.publish(&cloud, &laptop.bundle("flow.holm", &bundle), &[]);
    laptop.believe(&cloud);
    assert_eq!(laptop.download(&cloud, NAME).unwrap(), bundle);
    // Another laptop: all that is left is a root key on a stick, and a root that a device was enrolled with.
    let other = Publisher::new(&folder.path().join("other"));
    let keys = other.folder.join("holm/keys");
    std::fs::create_dir_all(&keys).unwrap();
    std::fs::copy(laptop.folder.join("holm/keys/root-1.key"), keys.join("root-1.key")).unwrap();
    let told = other.fails(&cloud, 1, &["key", "recover"]);
    assert!(told.contains("has seen no repository"), "{told}");
    let root = laptop.folder.join("1.root.json");
    let told = other.ok(&cloud, &["key", "recover", "--root", root.to_str().unwrap()]);
    assert!(told.contains("another targets key") && told.contains("targets    3"), "{told}");
    // What was there is there, the new key publishes, and the old one does not any more.
    let next = other.bundle("flow.holm", &flow("1.1.0", ""));
    assert_eq!(other.publish(&cloud, &next, &[])["sequence"], 2);
    assert_eq!(laptop.download(&cloud, NAME).unwrap(), bundle);
    assert_eq!(laptop.download(&cloud, "functions/flow/1.1.0/flow.holm").unwrap(), flow("1.1.0", ""));
    let stolen = laptop.bundle("stolen.holm", &flow("1.2.0", ""));
    let told = laptop.fails(&cloud, 1, &["publish", &stolen]);
    assert!(told.contains("the root does not") || told.contains("not trusted"), "{told}");
    cloud.stop();
}

#[test]
fn a_release_is_deployed_signed_and_watched_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let (cloud, laptop) = begun(folder.path());
    let pi3 = Device::enrol(&cloud, "pi3");
    let bundles = ["1.0.0", "1.1.0", "1.2.0"].map(|version| flow(version, ""));
    for bundle in &bundles {
        laptop.publish(&cloud, &laptop.bundle("flow.holm", bundle), &[]);
    }
    let other = Guest::new("other", "fine").bundle_of(b"bytes");
    laptop.publish(&cloud, &laptop.bundle("other.holm", &other), &[]);
    for (words, code, says) in [
        (&["deploy", "flow@1.0.0"][..], 2, "--device"),
        (&["deploy", "flow", "--device", "pi3"], 2, "FUNCTION@VERSION"),
        (&["deploy", "flow@9.0.0", "--device", "pi3"], 1, "there is 1.0.0, 1.1.0, 1.2.0"),
        (&["deploy", "none@1.0.0", "--device", "pi3"], 1, "never published"),
        (&["deploy", "flow@1.0.0", "--device", "pi9"], 1, "no such device"),
        (&["deploy", "flow@1.0.0", "--device", "pi3", "--watch", "--timeout", "1s"], 5, "not connected"),
    ] {
        let told = laptop.fails(&cloud, code, words);
        assert!(told.contains(says), "{words:?}: {told}");
    }
    laptop.believe(&cloud);
    let keys = DeploymentKeys::read(&laptop.download(&cloud, "deployment-keys.json").unwrap()).unwrap().role().unwrap();
    let mut link = pi3.connect(&cloud);
    let jobs = "$aws/things/pi3/jobs";
    let got = link.ask(&format!("{jobs}/$next/get"), "{}", &format!("{jobs}/$next/get/accepted"));
    let accepted = |job: &Value| -> DesiredState {
        let document = job["execution"]["jobDocument"].to_string();
        let time = TrustedTime::new(Timestamp(1_790_000_000_000), None);
        let judge = Judge {
            device: &pi3.thing,
            deployment: &keys,
            targets: &keys,
            last: None,
            time: &time,
            monotonic: Duration::ZERO,
        };
        match judge.accept(&document).unwrap() {
            Acceptance::New { state, .. } => state,
            other => panic!("{other:?}"),
        }
    };
    let state = accepted(&got);
    assert_eq!((state.generation, state.functions.len(), &*state.functions[0].version), (1, 1, "1.0.0"));
    assert_eq!(state.functions[0].bundle.sha256, Digest::of(&bundles[0]));
    let mut say = |job: &str, status: &str, phase: &str, reason: &str| {
        let details = match reason {
            "" => json!({ "phase": phase }),
            reason => json!({ "phase": phase, "reason": reason }),
        };
        let update = json!({ "status": status, "statusDetails": details, "clientToken": "t" }).to_string();
        link.ask(&format!("{jobs}/{job}/update"), &update, &format!("{jobs}/{job}/update/accepted"));
    };
    say("generation-1", "SUCCEEDED", "confirmed", "");
    let watch = |what: &str| laptop.begin(&cloud, &["deploy", what, "--device", "pi3", "--watch"]);
    let ended = |child: std::process::Child| {
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let queued = |generation: u64| {
        holm_tests::eventually("it is queued", || {
            (cloud.get("/v1/devices/pi3")["job"]["generation"].as_u64() == Some(generation)).then_some(())
        });
    };

    let watching = watch("other@1.0.0");
    queued(2);
    say("generation-2", "IN_PROGRESS", "downloading", "");
    say("generation-2", "SUCCEEDED", "confirmed", "");
    let (code, told) = ended(watching);
    assert!(code == 0 && told.ends_with("confirmed\n"), "{code} {told}");

    let watching = watch("flow@1.1.0");
    queued(3);
    say("generation-3", "FAILED", "rolled-back", "trapped");
    let (code, told) = ended(watching);
    assert!(code == 4 && told.contains("failed too often"), "{code} {told}");

    let watching = watch("flow@1.2.0");
    queued(4);
    say("generation-4", "REJECTED", "refused", "disk-full");
    let (code, told) = ended(watching);
    assert!(code == 1 && told.contains("the disk is full"), "{code} {told}");

    // What was rolled back or refused is no part of what follows.
    laptop.ok(&cloud, &["deploy", "flow@1.2.0", "--device", "pi3"]);
    let got = link.ask(&format!("{jobs}/$next/get"), "{}", &format!("{jobs}/$next/get/accepted"));
    let state = accepted(&got);
    let functions: Vec<String> = state.functions.iter().map(|it| format!("{}@{}", it.name, it.version)).collect();
    assert_eq!((state.generation, functions), (5, vec!["flow@1.2.0".to_owned(), "other@1.0.0".to_owned()]));
    let told = laptop.fails(&cloud, 1, &["deploy", "flow@1.1.0", "--device", "pi3"]);
    assert!(told.contains("is older than 1.2.0"), "{told}");
    cloud.stop();
}

#[test]
fn a_job_waits_for_a_device_that_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let (cloud, laptop) = begun(folder.path());
    let _pi3 = Device::enrol(&cloud, "pi3");
    laptop.publish(&cloud, &laptop.bundle("flow.holm", &flow("1.0.0", "")), &[]);
    laptop.ok(&cloud, &["deploy", "flow@1.0.0", "--device", "pi3"]);
    let job = cloud.get("/v1/devices/pi3/jobs/1")["job"].clone();
    assert_eq!((&job["status"], &job["id"]), (&json!("QUEUED"), &json!("generation-1")));
    assert_eq!(cloud.send("GET", "/v1/devices/pi3/jobs/2", b"").status, 404);
    assert_eq!(cloud.send("POST", "/v1/devices/pi3/deploy", b"{\"function\":\"flow\"}").status, 400);
    cloud.stop();
}
