//! The control plane's pages in a real browser, before the real `holm cloud` with real nodes; and what a browser would never send.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use holm_core::Timestamp;
use holm_protocol::{
    Address, BatchBuilder, BatchStart, Gap, GapReason, Lane, Line, Push, Record, StreamName, ThingName,
};
use holm_store::Write;
use holm_tests::browser::drive;
use holm_tests::control_plane::{Answer, ControlPlane};
use holm_tests::device::{Device, EPOCH, Link};
use holm_tests::mqtt::{Client, Packet};
use holm_tests::node::{Node, Start, binary};
use holm_tests::outbox::fill;
use holm_tests::publisher::Publisher;
use holm_tests::{eventually, functions, within};
use serde_json::{Value, json};

/// Quick to notice that somebody is gone.
const CONFIG: &str = "[functions]\nhealth_window = \"0ms\"\n[cloud]\nack_timeout = \"2s\"\nkeep_alive = \"2s\"\n";

/// Somewhere in the past, so that nothing depends on when the test runs.
const BEGIN: i64 = 1_731_000_000_000;

fn record(time: i64, data: String) -> Line {
    Line::Record(Record { time: Timestamp(time), content_type: None, data: data.into_bytes() })
}

/// Sends lines of a stream and waits until they are stored.
fn send(link: &mut Link, thing: &ThingName, lane: Lane, stream: &str, first: u64, lines: &[Line]) {
    let stream = StreamName::new(stream).unwrap();
    let start = BatchStart { device: thing.clone(), lane, stream, epoch: EPOCH, first };
    let mut builder = BatchBuilder::new(start);
    let mut next = first;
    for line in lines {
        assert_eq!(builder.push(next, line).unwrap(), Push::Taken);
        next += line.covers();
    }
    let (header, payload) = builder.finish(Timestamp(BEGIN)).unwrap();
    let address: Address = header.address();
    link.publish(&address.to_string(), &payload, 1).unwrap();
    let ack = link.ack(thing);
    assert!(ack.refused.is_empty(), "{ack:?}");
    link.puback(1);
}

/// A flow that rises and falls, as JSON.
fn value(number: i64) -> String {
    let value = (number % 600) as f64 / 100.0 + if number % 7 == 0 { 1.25 } else { 0.0 };
    format!("{value}")
}

/// `count` numbers of the series water-loss.flow, one a second.
fn flow(link: &mut Link, thing: &ThingName, count: u64) {
    const BATCH: u64 = 400;
    for first in (1..=count).step_by(usize::try_from(BATCH).unwrap()) {
        let lines = (first..=count.min(first + BATCH - 1)).map(|n| {
            let number = i64::try_from(n).unwrap();
            record(BEGIN + number * 1_000, value(number))
        });
        send(link, thing, Lane::Results, "result.water-loss.flow", first, &lines.collect::<Vec<_>>());
    }
}

/// As a person would, with the command that the page shows.
fn enrol(command: &str, data: &Path, thing: &str) -> String {
    let mut words = command.split(' ');
    assert_eq!(words.next(), Some("holmd"));
    let output =
        Command::new(binary("holmd")).args(words).args(["--thing", thing, "--data"]).arg(data).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    "done".to_owned()
}

/// A node that is enrolled and connected.
fn node(cloud: &ControlPlane, data: &Path, thing: &str) -> Node {
    let token = cloud.enrolment_token("greenhouse");
    let command = format!("holmd enrol --cloud https://{} --token {token} --ca-hash {}", cloud.https, cloud.ca_hash);
    enrol(&command, data, thing);
    let node = Start { config: CONFIG, ..Start::new(data) }.run();
    eventually("it is connected", || {
        cloud.get(&format!("/v1/devices/{thing}"))["connected"].as_bool().filter(|it| *it)
    });
    node
}

#[test]
fn pages_are_whole_by_keyboard_on_a_small_screen_in_the_dark_and_without_a_script() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let laptop = Publisher::new(folder.path());
    laptop.ok(&cloud, &["key", "new", "--cloud"]);
    let bundle = laptop.bundle("counter.holm", &functions::example("counter", |manifest| manifest));
    laptop.publish(&cloud, &bundle, &[]);
    let node = node(&cloud, &folder.path().join("pi1"), "pi1");
    laptop.ok(
        &cloud,
        &["deploy", "counter@0.1.0", "--device", "pi1", "--watch", "--timeout", "60s", "--health-window", "1s"],
    );
    let device = Device::enrol(&cloud, "pi2");
    let mut link = device.connect(&cloud);
    flow(&mut link, &device.thing, 2_000);
    send(&mut link, &device.thing, Lane::Logs, "log.water-loss", 1, &[record(BEGIN, "started".to_owned())]);
    let mut client = Client::connect(&node.mqtt, "publisher", true).unwrap();
    client.publish("count/k", br#"{"id":"one"}"#, 1, 1, false, Some("one")).unwrap();
    eventually("its result", || {
        (!cloud.get("/v1/results?series=counter.n")["rows"].as_array()?.is_empty()).then_some(())
    });
    drive(&cloud.https, &cloud.token, "pages.mjs", |question| panic!("{question}"));
    node.stop();
    cloud.stop();
}

#[test]
fn a_plot_of_many_points_says_what_the_api_says() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let data = folder.path().join("pi1");
    let started = node(&cloud, &data, "pi1");
    started.stop();
    // As if it had been without a network for half a day.
    let row = |number: i64| Write::Outbox {
        lane: holm_store::Lane::Results,
        stream: "result.water-loss.flow".into(),
        created: Timestamp(BEGIN + number * 1_000),
        content_type: None,
        data: value(number).into(),
    };
    fill(&data, (1..=50_000).map(row));
    let node = Start { config: CONFIG, ..Start::new(&data) }.run();
    within(Duration::from_secs(60), "all of it is there", || {
        let told = cloud.get("/v1/results?series=water-loss.flow&order=latest&limit=1");
        (told["rows"][0]["sequence"] == 50_000).then_some(())
    });
    drive(&cloud.https, &cloud.token, "plot.mjs", |question| panic!("{question}"));
    node.stop();
    cloud.stop();
}

#[test]
fn what_arrives_is_seen_at_once_and_so_is_who_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut cloud = ControlPlane::start(folder.path());
    let node = node(&cloud, &folder.path().join("pi1"), "pi1");
    // What has priority does not wait for company on its way up.
    node.admin.deploy(&functions::example("counter", |manifest| manifest + "priority = \"high\"\n"));
    let device = Device::enrol(&cloud, "pi2");
    let mut link = Some(device.connect(&cloud));
    let mut client = Client::connect(&node.mqtt, "publisher", true).unwrap();
    let (mut node, mut published, mut logged) = (Some(node), 0_u16, 1_u64);
    let (https, token) = (cloud.https.clone(), cloud.token.clone());
    drive(&https, &token, "live.mjs", |question| {
        match question {
            "publish" => {
                published += 1;
                let (id, payload) = (format!("event-{published}"), format!(r#"{{"id":"{published}"}}"#));
                client.publish("count/k", payload.as_bytes(), 1, published, false, Some(&id)).unwrap();
                let Packet::Ack(4, ..) = client.receive().unwrap() else { panic!("no acknowledgement") };
            }
            "log" => {
                let lines = [
                    record(BEGIN, format!("<img src=x onerror=alert(1)> \r\n{logged}")),
                    Line::Gap(Gap { count: 7, reason: GapReason::Cap, at: Timestamp(BEGIN) }),
                ];
                let link = link.as_mut().unwrap();
                send(link, &device.thing, Lane::Logs, "log.pump", logged, &lines);
                logged += 8;
            }
            "kill" => node.take().unwrap().kill(),
            "restart" => {
                drop(link.take());
                cloud.stop_and_restart();
            }
            other => panic!("{other}"),
        }
        "done".to_owned()
    });
    cloud.stop();
}

#[test]
fn a_token_from_the_page_lets_a_device_in_and_the_page_shows_it_the_door() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let data = folder.path().join("pi9");
    drive(&cloud.https, &cloud.token, "enrol.mjs", |question| {
        enrol(question.strip_prefix("run ").unwrap(), &data, "pi9")
    });
    cloud.stop();
}

/// A viewer's token, and its id.
fn viewer(cloud: &ControlPlane) -> (String, String) {
    let answer = cloud.send("POST", "/v1/operators", br#"{"name":"eve","role":"viewer"}"#);
    assert_eq!(answer.status, 201, "{answer:?}");
    let text = |name: &str| answer.json()[name].as_str().unwrap().to_owned();
    (text("token"), text("id"))
}

#[test]
fn a_rollout_is_seen_as_it_goes_and_taken_back_from_its_page() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let laptop = Publisher::new(folder.path());
    laptop.ok(&cloud, &["key", "new", "--cloud"]);
    let nodes = ["pi1", "pi2"].map(|thing| node(&cloud, &folder.path().join(thing), thing));
    for version in ["1.0.0", "2.0.0"] {
        let guest = functions::Guest::new("teller", "echo").on("ask").version(version);
        laptop.publish(&cloud, &laptop.bundle("teller.holm", &guest.bundle()), &[]);
    }
    let quick = ["--group", "greenhouse", "--health-window", "1s"];
    let deploy =
        |words: &[&str]| laptop.ok(&cloud, &["deploy"].iter().chain(words).chain(&quick).copied().collect::<Vec<_>>());
    deploy(&["teller@1.0.0", "--stages", "100%", "--soak", "0s", "--watch"]);
    deploy(&["teller@2.0.0", "--stages", "1,100%", "--soak", "1h"]);
    let runs = |node: &Node| {
        let functions = node.admin.get("/v1/functions");
        functions["functions"][0]["version"].as_str().unwrap_or_default().to_owned()
    };
    drive(&cloud.https, &cloud.token, "rollouts.mjs", |question| {
        assert_eq!(question, "what runs");
        nodes.each_ref().map(runs).join(" ")
    });
    for node in nodes {
        node.stop();
    }
    cloud.stop();
}

#[test]
fn what_is_not_right_is_told_on_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    Device::enrol(&cloud, "pi1");
    let (token, id) = viewer(&cloud);
    drive(&cloud.https, &cloud.token, "refused.mjs", |question| match question {
        "viewer" => token.clone(),
        "end viewer" => {
            assert_eq!(cloud.send("DELETE", &format!("/v1/operators/{id}"), b"").status, 200);
            "done".to_owned()
        }
        other => panic!("{other}"),
    });
    assert!(cloud.get("/v1/devices/pi1")["status"] == "active", "a viewer has revoked it");
    cloud.stop();
}

/// A form as a browser sends it, with these lines in its head.
fn post(cloud: &ControlPlane, path: &str, head: &str, body: &str) -> Answer {
    let head = format!("{head}Content-Type: application/x-www-form-urlencoded\r\n");
    cloud.ask_with("POST", path, None, &head, body.as_bytes()).unwrap()
}

/// Where an answer leads.
fn location(answer: &Answer) -> String {
    let line = answer.head.lines().find_map(|line| line.strip_prefix("location: "));
    line.unwrap_or_default().to_owned()
}

/// Signs in; the line of a head that says so from then on.
fn signed_in(cloud: &ControlPlane) -> String {
    let answer =
        post(cloud, "/login", &format!("Origin: https://{}\r\n", cloud.https), &format!("token={}", cloud.token));
    let cookie = answer.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    format!("Cookie: {}\r\n", cookie.split(';').next().unwrap())
}

/// What links of a page begin with `start`, without that.
fn links(page: &str, start: &str) -> Vec<String> {
    let start = format!("href=\"{start}");
    let parts = page.split(start.as_str()).skip(1);
    parts.map(|part| part.split('"').next().unwrap().replace("&amp;", "&")).collect()
}

#[test]
fn a_large_fleet_comes_in_pages_whatever_is_sought() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    for number in 0..53 {
        Device::enrol(&cloud, &format!("pi{number:02}"));
    }
    let connected = Device::enrol(&cloud, "zz").connect(&cloud);
    let cookie = signed_in(&cloud);
    let get = |path: &str| {
        let answer = cloud.ask_with("GET", path, None, &cookie, b"").unwrap();
        assert_eq!(answer.status, 200, "{path}");
        String::from_utf8(answer.body).unwrap()
    };
    for (query, expected) in
        [("", 54), ("q=PI", 53), ("q=pi0", 10), ("state=online", 1), ("group=greenhouse&state=offline", 53)]
    {
        let (mut found, mut path) = (Vec::new(), format!("/fleet?{query}"));
        for pages in 1.. {
            let page = get(&path);
            let devices = links(&page, "/devices/");
            assert!(devices.len() <= 50 && pages < 4, "{path}");
            found.extend(devices);
            match links(&page, "/fleet?after=").pop() {
                Some(next) => path = format!("/fleet?after={next}"),
                None => break,
            }
        }
        let mut sorted = found.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!((found.len(), &found), (expected, &sorted), "{query}: each once, by name");
    }
    drop(connected);
    cloud.stop();
}

#[test]
fn forms_are_taken_from_our_own_pages_and_cookies_only_look() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let here = format!("Origin: https://{}\r\n", cloud.https);
    let body = format!("token={}", cloud.token);
    for elsewhere in ["Origin: https://evil.example\r\n", "Origin: null\r\n", "", "Sec-Fetch-Site: cross-site\r\n"] {
        let answer = post(&cloud, "/login", elsewhere, &body);
        assert_eq!(answer.status, 403, "{elsewhere}");
        assert!(!answer.head.contains("set-cookie"), "{elsewhere}");
        assert!(String::from_utf8_lossy(&answer.body).contains("This form was not taken"));
    }
    let answer = post(&cloud, "/login", &here, &format!("{body}&next=%2F%2Fevil.example"));
    assert_eq!((answer.status, location(&answer).as_str()), (303, "/"), "nobody is sent elsewhere");
    let cookie = answer.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    for word in ["__Host-holm=", "; Path=/;", "; HttpOnly", "; Secure", "; SameSite=Strict"] {
        assert!(cookie.contains(word), "{cookie}");
    }
    let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
    let ask = |method: &str, path: &str, head: &str, body: &str| {
        cloud.ask_with(method, path, None, &format!("{cookie}{head}"), body.as_bytes()).unwrap()
    };
    let page = ask("GET", "/enrol", "", "");
    let text = String::from_utf8_lossy(&page.body).into_owned();
    let proof = text.split("name=\"proof\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    for (head, body) in [
        ("Origin: https://evil.example\r\n", format!("hours=24&proof={proof}")),
        ("", format!("hours=24&proof={proof}")),
        (here.as_str(), "hours=24".to_owned()),
        (here.as_str(), "hours=24&proof=0000".to_owned()),
    ] {
        assert_eq!(ask("POST", "/enrol", head, &body).status, 403, "{head} {body}");
    }
    assert_eq!(cloud.get("/v1/enrolment-tokens"), json!({ "tokens": [] }), "one of them was taken");
    assert_eq!(ask("POST", "/enrol", &here, &format!("hours=24&group=a&proof={proof}")).status, 200);
    // For the API a cookie is enough to look, and never to change anything.
    assert_eq!(ask("GET", "/v1/devices", "", "").status, 200);
    assert_eq!(ask("POST", "/v1/enrolment-tokens", &here, "{}").status, 401);
    assert_eq!(cloud.ask("GET", "/v1/devices", Some("no-such-token"), b"").status, 401);
    // Only hashes are kept.
    let secret = cookie.split('=').nth(1).unwrap().trim().to_owned();
    let files = ["records.db", "records.db-wal"].map(|name| std::fs::read(cloud.data().join(name)).unwrap());
    assert!(!files.concat().windows(secret.len()).any(|window| window == secret.as_bytes()));
    // What every page says to browsers, and to those who keep copies.
    for path in ["/enrol", "/assets/holm.css", "/no/such/page", "/login"] {
        let head = ask("GET", path, "", "").head;
        for line in [
            "content-security-policy: default-src 'none'; script-src 'self';",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: same-origin",
        ] {
            assert!(head.contains(line), "{path}: {line} is not in {head}");
        }
    }
    assert!(page.head.contains("cache-control: no-store"), "{}", page.head);
    // Out, and nothing is left of it.
    assert_eq!(location(&ask("POST", "/logout", &here, &format!("proof={proof}"))), "/login");
    assert_eq!(ask("GET", "/v1/devices", "", "").status, 401);
    assert_eq!(location(&ask("GET", "/fleet?q=a", "", "")), "/login?next=%2Ffleet%3Fq%3Da&ended=1");
    cloud.stop();
}

#[test]
fn a_viewers_token_looks_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let (token, id) = viewer(&cloud);
    let ask = |method: &str, path: &str| cloud.ask(method, path, Some(&token), b"{}").status;
    for path in ["/v1/devices", "/v1/results", "/v1/operators", "/v1/audit", "/v1/status"] {
        assert_eq!(ask("GET", path), 200, "{path}");
    }
    for (method, path) in [
        ("POST", "/v1/enrolment-tokens"),
        ("POST", "/v1/operators"),
        ("POST", "/v1/devices/pi1/revoke"),
        ("POST", "/v1/devices/pi1/deploy"),
        ("POST", "/v1/repository"),
        ("POST", "/v1/rollouts"),
        ("POST", "/v1/rollouts/r-1/abort"),
        ("POST", "/v1/devices/pi1/groups"),
        ("DELETE", &format!("/v1/operators/{id}")),
    ] {
        assert_eq!(ask(method, path), 403, "{method} {path}");
    }
    // The last admin stays.
    let operators = cloud.get("/v1/operators")["operators"].as_array().unwrap().clone();
    let admin = operators.iter().find(|operator| operator["role"] == "admin").unwrap()["id"].as_str().unwrap();
    assert_eq!(cloud.send("DELETE", &format!("/v1/operators/{admin}"), b"").status, 409);
    assert_eq!(cloud.send("DELETE", "/v1/operators/nobody", b"").status, 404);
    assert_eq!(cloud.send("DELETE", &format!("/v1/operators/{id}"), b"").status, 200);
    assert_eq!(ask("GET", "/v1/devices"), 401, "a token that is ended lets nobody in");
    let deeds = cloud.get("/v1/audit?limit=2")["audit"].clone();
    assert_eq!((&deeds[0]["action"], &deeds[0]["object"]), (&json!("end a token"), &json!("eve")));
    assert_eq!((&deeds[1]["action"], &deeds[1]["operator"]), (&json!("make a token for a viewer"), &json!("admin")));
    cloud.stop();
}

#[test]
fn tokens_are_made_and_ended_by_command() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let laptop = Publisher::new(folder.path());
    let token = laptop.ok(&cloud, &["cloud", "token", "new", "eve"]).trim().to_owned();
    assert_eq!(cloud.ask("GET", "/v1/devices", Some(&token), b"").status, 200);
    let lines = laptop.ok(&cloud, &["cloud", "token", "list", "--json"]);
    let listed: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let eve = listed.iter().find(|operator| operator["name"] == "eve").unwrap();
    assert_eq!(eve["role"], "viewer");
    let (id, table) = (eve["id"].as_str().unwrap(), laptop.ok(&cloud, &["cloud", "token", "list"]));
    assert!(table.contains(id) && table.contains("admin"), "{table}");
    laptop.ok(&cloud, &["cloud", "token", "end", id]);
    assert_eq!(cloud.ask("GET", "/v1/devices", Some(&token), b"").status, 401);
    let told = laptop.fails(&cloud, 1, &["cloud", "token", "end", id]);
    assert!(told.contains("no such operator"), "{told}");
    laptop.fails(&cloud, 2, &["cloud", "token", "new", "eve", "--role", "king"]);
    laptop.fails(&cloud, 1, &["cloud", "token", "new", " "]);
    cloud.stop();
}

#[test]
fn buckets_hold_every_row_and_tell_least_greatest_and_mean() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let device = Device::enrol(&cloud, "pi1");
    let mut link = device.connect(&cloud);
    let lines: Vec<Line> = (0..100_i32).map(|n| record(BEGIN + i64::from(n) * 1_000, n.to_string())).collect();
    send(&mut link, &device.thing, Lane::Results, "result.f.n", 1, &lines);
    // Results of high priority come by another lane, and are results all the same; what is no number is passed over.
    let others =
        [record(BEGIN, "1e1".into()), record(BEGIN + 1, "\"text\"".into()), record(BEGIN + 2, "no json".into())];
    send(&mut link, &device.thing, Lane::Alarms, "result.f.high", 1, &others);
    let answer = cloud.get(&format!("/v1/results?series=f.n&buckets=4&since={BEGIN}&until={}", BEGIN + 100_000));
    assert_eq!((&answer["width"], &answer["omitted"], &answer["cut"]), (&json!(25_000), &json!(0), &json!(false)));
    let points = answer["devices"][0]["points"].as_array().unwrap();
    let expected = [(0, 24, 12.0), (25, 49, 37.0), (50, 74, 62.0), (75, 99, 87.0)];
    assert_eq!(points.len(), expected.len());
    for (index, (point, (min, max, avg))) in points.iter().zip(expected).enumerate() {
        let time = BEGIN + i64::try_from(index).unwrap() * 25_000;
        let wanted = json!({ "time": time, "count": 25, "min": f64::from(min), "max": f64::from(max), "avg": avg });
        assert_eq!(*point, wanted);
    }
    let high = cloud.get("/v1/results?series=f.high&buckets=1");
    assert_eq!(high["devices"][0]["points"][0]["count"], 1, "{high}");
    assert_eq!(cloud.get("/v1/results?series=f.high")["rows"].as_array().unwrap().len(), 3);
    assert_eq!(cloud.get("/v1/results?series=f.nothing&buckets=9")["devices"], json!([]));
    // A clock may say anything.
    let wild = [record(i64::MIN, "1".into()), record(BEGIN, "2".into()), record(i64::MAX, "3".into())];
    send(&mut link, &device.thing, Lane::Results, "result.f.wild", 1, &wild);
    let answer = cloud.get("/v1/results?series=f.wild&buckets=1000");
    assert_eq!(
        answer["devices"][0]["points"],
        json!([{ "time": BEGIN, "count": 1, "min": 2.0, "max": 2.0, "avg": 2.0 }])
    );
    let cookie = signed_in(&cloud);
    for path in ["/", "/results", "/results?series=f.wild&range=all", "/devices/pi1"] {
        assert_eq!(cloud.ask_with("GET", path, None, &cookie, b"").unwrap().status, 200, "{path}");
    }
    for (query, told) in [
        ("buckets=9", "for one series"),
        ("series=f.n&buckets=0", "not between 1 and 5000"),
        ("series=f.n&buckets=9&since=x", "since"),
    ] {
        let answer = cloud.send("GET", &format!("/v1/results?{query}"), b"");
        assert_eq!(answer.status, 400, "{query}");
        assert!(String::from_utf8_lossy(&answer.body).contains(told), "{query}: {answer:?}");
    }
    // The export has no end but that of the rows.
    let export = cloud.send("GET", "/v1/export?series=f.n&format=ndjson", b"");
    assert!(export.head.contains("content-disposition: attachment"), "{}", export.head);
    assert_eq!(String::from_utf8_lossy(&export.body).matches("\"sequence\"").count(), 100);
    cloud.stop();
}
