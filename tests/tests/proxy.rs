//! A server that was written for any host of wasi:http, on a node as it is.

use std::process::Command;

use holm_tests::command::good;
use holm_tests::eventually;
use holm_tests::functions::{Guest, proxy};
use holm_tests::http::{Answer, ask};
use holm_tests::node::{Node, Start};
use holm_tests::watcher::publish;
use serde_json::Value;

const HTTP: &str = "[functions]\nhealth_window = \"0ms\"\nworkers = 2\n[http]\nlisten = \"127.0.0.1:0\"\nmax_body = \"64KiB\"\ntimeout = \"20s\"\n";

fn server(name: &str) -> Guest {
    Guest::new(name, "none").permissions("").limits("memory = \"4MiB\"\ntimeout = \"3s\"\noutput = \"64KiB\"")
}

fn route(name: &str, lines: &str) -> Vec<u8> {
    server(name).trigger("http", lines).bundle_of(proxy())
}

const ALL: &str = "path = \"/*\"\nmethods = [\"GET\", \"POST\", \"PUT\"]";

fn figures(node: &Node, function: &str) -> Value {
    let functions = node.admin.get("/v1/functions");
    let found = functions["functions"].as_array().unwrap().iter().find(|one| one["name"] == function).cloned();
    found.unwrap_or_else(|| panic!("{functions}"))
}

#[test]
fn a_client_gets_the_servers_own_response() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: HTTP, ..Start::new(folder.path()) }.run();
    node.admin.deploy(&route("server", ALL));
    let Answer(status, head, body) = ask(&node, "PUT", "/about/a%20b?x=1&y=%2F", "X-Given: yes\r\n", b"123");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain"), "{head}");
    assert!(body.starts_with("Method::Put /about/a%20b?x=1&y=%2F Scheme::Http \"x\"\n"), "{body}");
    for line in ["x-given: yes", "content-length: 3", "holm-attempt: 1"] {
        assert!(body.lines().any(|one| one == line), "{body}");
    }
    // What is the connection's is the node's to say.
    let Answer(status, head, body) = ask(&node, "GET", "/cookies", "", b"");
    assert_eq!((status, body.as_str()), (200, "ok"));
    assert!(head.contains("set-cookie: a=1\r\nset-cookie: b=2"), "{head}");
    assert_eq!((head.matches("content-length").count(), head.contains("\r\nte:")), (1, false), "{head}");
    for path in ["/echo", "/splice"] {
        let long = "x".repeat(60_000);
        assert_eq!(ask(&node, "POST", path, "", long.as_bytes()).2, long);
        assert_eq!(ask(&node, "POST", path, "", "x".repeat(70_000).as_bytes()).0, 413);
    }
    for (path, status, words) in [
        ("/status/201?q", 201, "201"),
        ("/status/302", 302, "302"),
        ("/status/404", 404, "404"),
        ("/status/418", 418, "418"),
        ("/status/503", 503, "503"),
        ("/nowhere", 404, "not here"),
        ("/error", 500, "internal-error: no disk"),
        ("/denied", 400, "HTTP-request-denied"),
        // No response of its own, or not a whole one.
        ("/panic", 500, "the function failed"),
        ("/late", 500, "the function failed"),
        ("/silent", 500, "the function failed"),
        ("/half", 500, "the function failed"),
        ("/large/65", 500, "the function failed"),
        ("/loop", 504, "takes too long"),
    ] {
        let Answer(found, head, body) = ask(&node, "GET", path, "", b"");
        assert_eq!(found, status, "{path}: {body}");
        assert!(body.contains(words), "{path}: {body}");
        assert_eq!(head.contains("retry-after: 7"), path.starts_with("/status"), "{path}: {head}");
    }
    assert_eq!(ask(&node, "GET", "/large/64", "", b"").2.len(), 64 << 10);
    node.stop();
}

#[test]
fn a_client_of_many_requests_on_one_connection_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: HTTP, ..Start::new(folder.path()) }.run();
    node.admin.deploy(&route("server", ALL));
    // Somebody else's client, which is strict about where a response ends.
    let script = "import http.client, sys\n\
        c = http.client.HTTPConnection(sys.argv[1], timeout=20)\n\
        for number in range(50):\n\
        \x20   for path in ('/status/204', '/cookies', '/status/304', '/large/40', '/echo'):\n\
        \x20       c.request('POST', path, body=b'x' * number)\n\
        \x20       r = c.getresponse()\n\
        \x20       body = r.read()\n\
        \x20       assert r.status == int(path[8:] if 'status' in path else 200), (path, r.status)\n\
        \x20       assert path != '/cookies' or r.headers.get_all('set-cookie') == ['a=1', 'b=2'], r.headers\n\
        \x20       expected = {'/cookies': 2, '/large/40': 40960, '/echo': number}.get(path, 0)\n\
        \x20       assert len(body) == expected, (path, body)\n";
    let output = Command::new("python3").args(["-c", script, node.http.as_deref().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    node.stop();
}

#[test]
fn what_blames_the_request_is_no_failure_of_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: HTTP, ..Start::new(folder.path()) }.run();
    node.admin.deploy(&route("server", ALL));
    for path in ["/status/200", "/status/404", "/denied"] {
        ask(&node, "GET", path, "", b"");
    }
    let now = figures(&node, "server");
    assert_eq!((&now["succeeded"], &now["failed"]), (&3.into(), &0.into()), "{now}");
    assert_eq!(ask(&node, "GET", "/status/500", "", b"").0, 500);
    let now = figures(&node, "server");
    assert_eq!((&now["succeeded"], &now["failed"]), (&3.into(), &1.into()), "{now}");
    assert!(now["last_fault"].to_string().contains("the response has status 500"), "{now}");
    node.stop();
}

#[test]
fn effects_are_those_of_a_success_in_the_eyes_of_who_asked() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: HTTP, ..Start::new(folder.path()) }.run();
    let server = server("server").permissions("kv = [\"rw:self\"]").on("keep/#").trigger("http", ALL);
    node.admin.deploy(&server.bundle_of(proxy()));
    let kept = || node.admin.get("/v1/state/server")["state"]["kept"].clone();
    // A client that does not wait for a commit is answered before it.
    let comes = |status: &str| eventually(status, || (kept() == status).then_some(()));
    for (status, then) in [(201, "201"), (404, "404"), (500, "404"), (202, "202")] {
        assert_eq!(ask(&node, "POST", &format!("/keep/{status}"), "", b"").0, status);
        comes(then);
    }
    // The same from a topic, where nobody takes the response.
    publish(&node, "keep/403", b"{}");
    publish(&node, "keep/503", b"{}");
    assert_eq!(kept(), "202");
    publish(&node, "keep/204", b"{}");
    comes("204");
    node.stop();
}

#[test]
fn events_that_nobody_waits_for_are_done_tried_again_or_given_up_by_the_status() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: HTTP, ..Start::new(folder.path()) }.run();
    let retry = "[retry]\nmax_attempts = 2\ninterval = \"10ms\"\n";
    let server = server("server").on("status/#").trigger("http", "path = \"/error\"\ndurable = true").more(retry);
    node.admin.deploy(&server.bundle_of(proxy()));
    let letters = || node.admin.get("/v1/dlq?limit=1000")["dead_letters"].as_array().unwrap().clone();
    publish(&node, "status/204", b"{}");
    publish(&node, "status/404", b"{}");
    let letter = eventually("what blames the event is given up", || letters().pop());
    assert_eq!((&letter["attempts"], &letter["kind"]), (&1.into(), &"reject".into()), "{letter}");
    assert!(letter.to_string().contains("the response has status 404"), "{letter}");
    let Answer(status, _, body) = ask(&node, "POST", "/error", "", b"");
    assert_eq!(status, 202, "{body}");
    let letter = eventually("what fails is tried again", || {
        letters().into_iter().find(|letter| letter.to_string().contains("status 500"))
    });
    assert_eq!((&letter["attempts"], &letter["kind"]), (&2.into(), &"retry".into()), "{letter}");
    assert_eq!(letters().len(), 2);
    node.stop();
}

#[test]
fn it_is_built_tested_and_invoked_like_any_function() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("server.wasm"), proxy()).unwrap();
    std::fs::write(
        folder.path().join("holm.toml"),
        "manifest_version = 1\n[function]\nname = \"server\"\nversion = \"1.0.0\"\n[build]\nsource = \"server.wasm\"\n\
         [[trigger.http]]\npath = \"/*\"\nmethods = [\"GET\", \"POST\"]\n[[trigger.mqtt]]\ntopics = [\"status/#\"]\n\
         [limits]\nmemory = \"4MiB\"\n",
    )
    .unwrap();
    std::fs::create_dir(folder.path().join("tests")).unwrap();
    std::fs::write(
        folder.path().join("tests/cases.toml"),
        "[[case]]\nname = \"answers requests\"\n\
         [[case.step]]\nhttp = \"/status/404?a\"\nmethod = \"GET\"\nexpect = { status = 404, body = \"404\", outcome = \"ok\" }\n\
         [[case.step]]\nhttp = \"/echo\"\npayload = \"hello\"\nexpect = { status = 200, body = \"hello\" }\n\
         [[case.step]]\nhttp = \"/status/503\"\nexpect = { status = 503, outcome = \"retry\" }\n\
         [[case.step]]\nhttp = \"/given\"\nheaders = { X-Given = \"yes\" }\nexpect = { headers = { X-Seen = \"yes\" } }\n\
         [[case.step]]\nhttp = \"/cookies\"\nexpect = { headers = { set-cookie = \"a=1, b=2\" } }\n\
         [[case]]\nname = \"and events\"\n\
         [[case.step]]\nmqtt = \"status/200\"\npayload = \"{}\"\nexpect = { invocations = 1, answer = 200 }\n\
         [[case.step]]\nmqtt = \"status/400\"\npayload = \"{}\"\nexpect = { outcome = \"reject\", dead_letters = 1 }\n",
    )
    .unwrap();
    good(folder.path(), &["build"]);
    good(folder.path(), &["test"]);

    let data = tempfile::tempdir().unwrap();
    let node = Start { config: HTTP, ..Start::new(data.path()) }.run();
    node.admin.deploy(&route("server", ALL));
    std::fs::write(folder.path().join("events"), "[status/200] {}\n").unwrap();
    let data = data.path().to_str().unwrap();
    let answer = good(folder.path(), &["--data", data, "invoke", "server", "--lines", "events"]);
    assert!(answer.contains("ok"), "{answer}");
    node.stop();
}

#[test]
fn a_trap_of_a_server_is_replayed_as_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let node = Start { config: HTTP, ..Start::new(&data) }.run();
    node.admin.deploy(&route("server", ALL));
    assert_eq!(ask(&node, "GET", "/panic?x=1", "X-Given: yes\r\n", b"").0, 500);
    let id = eventually("a record of the trap", || {
        let list = node.admin.get("/v1/traps?function=server");
        list.pointer("/traps/0/id")?.as_str().map(str::to_owned)
    });
    let words = ["--data", data.to_str().unwrap(), "trap", "show", &id, "--replay", "--json"];
    let again: Value = serde_json::from_str(&good(folder.path(), &words)).unwrap();
    assert_eq!((&again["same"], &again["replay"]["outcome"]), (&true.into(), &"trap".into()), "{again:#}");
    node.stop();
}
