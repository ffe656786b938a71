//! Functions that are started by requests and by files.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use holm_tests::eventually;
use holm_tests::functions::Guest;
use holm_tests::http::{Answer, ask};
use holm_tests::node::{Node, Start};
use holm_tests::watcher::{Watcher, publish};
use serde_json::Value;

const HTTP: &str = "[functions]\nhealth_window = \"0ms\"\nworkers = 2\n[http]\nlisten = \"127.0.0.1:0\"\nmax_body = \"4KiB\"\ntimeout = \"2s\"\n";

fn route(name: &str, habit: &str, lines: &str) -> Guest {
    Guest::new(name, habit).trigger("http", lines)
}

#[test]
fn a_request_is_answered_by_its_function() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: HTTP, ..Start::new(folder.path()) }.run();
    node.admin.deploy(&route("echo", "echo", "path = \"/echo\"\nmethods = [\"POST\", \"PUT\"]").bundle());
    node.admin.deploy(&route("wide", "witness", "path = \"/w/*\"").bundle());
    node.admin.deploy(&route("close", "count", "path = \"/w/close\"").with("number", "1").bundle());
    node.admin.deploy(&route("poison", "reject", "path = \"/reject\"").bundle());
    node.admin.deploy(&route("broken", "trap", "path = \"/trap\"").bundle());
    node.admin.deploy(&route("lazy", "loop", "path = \"/loop\"").bundle());
    let Answer(status, head, body) = ask(&node, "POST", "/echo", "Content-Type: text/x-test\r\n", b"hello");
    assert_eq!((status, body.as_str()), (200, "hello"));
    assert!(head.contains("content-type: text/x-test"), "{head}");
    let mut watcher = Watcher::new(&node, "seen/wide");
    let Answer(status, _, body) = ask(&node, "POST", "/w/a/b?q=1", "X-Test: yes\r\nAuthorization: Bearer s\r\n", b"{}");
    assert_eq!((status, body.as_str()), (200, "wide saw {}"));
    let (_, report) = watcher.next();
    assert_eq!((&report["source"], &report["subject"]), (&"http".into(), &"/w/a/b".into()));
    let attributes = report["attributes"].to_string();
    for part in ["[\"method\",\"POST\"]", "[\"query\",\"q=1\"]", "[\"header.x-test\",\"yes\"]"] {
        assert!(attributes.contains(part), "{attributes}");
    }
    assert!(!attributes.contains("Bearer"), "{attributes}");
    // The closest route wins, and what a function says of a request is for who asks; how it broke is not.
    assert_ne!(ask(&node, "POST", "/w/close", "", b"").2, "wide saw ");
    for (method, target, status, words) in [
        ("POST", "/reject", 422, "xxx"),
        ("POST", "/trap", 500, "the function failed"),
        ("POST", "/loop", 504, "takes too long"),
        ("POST", "/nowhere", 404, "no function has this route"),
        ("GET", "/echo", 405, "for that method"),
    ] {
        let Answer(found, head, body) = ask(&node, method, target, "", b"");
        assert_eq!(found, status, "{target}: {body}");
        assert!(body.contains(words), "{target}: {body}");
        assert_eq!(head.contains("allow: post, put"), status == 405, "{head}");
    }
    node.stop();
}

#[test]
fn a_request_is_bounded_in_every_way() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path()).unwrap();
    std::fs::write(folder.path().join("token"), "secret\n").unwrap();
    let token = folder.path().join("token").display().to_string();
    let config = format!("{HTTP}token_file = \"{token}\"\nconnections = 3\n");
    let node = Start { config: &config, ..Start::new(folder.path()) }.run();
    node.admin.deploy(&route("echo", "echo", "path = \"/echo\"").bundle());
    const ME: &str = "Authorization: Bearer secret\r\n";
    assert_eq!(ask(&node, "POST", "/echo", "", b"x").0, 401);
    assert_eq!(ask(&node, "POST", "/echo", "Authorization: Bearer wrong\r\n", b"x").0, 401);
    assert_eq!(ask(&node, "POST", "/echo", ME, &[b'x'; 4096]).0, 200);
    assert_eq!(ask(&node, "POST", "/echo", ME, &[b'x'; 4097]).0, 413);
    // One that does not say how long it is, and goes on.
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(4096));
    let body = [chunk.as_bytes(), chunk.as_bytes(), b"0\r\n\r\n"].concat();
    assert_eq!(ask(&node, "POST", "/echo", &format!("{ME}Transfer-Encoding: chunked\r\n"), &body).0, 413);
    assert_eq!(ask(&node, "POST", "/echo", &format!("{ME}X-Long: {}\r\n", "y".repeat(20_000)), b"x").0, 431);
    // Three connections are open and say nothing: the fourth is closed, and the node is well.
    let idle: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(node.http.as_deref().unwrap()).unwrap()).collect();
    eventually("a connection beyond the limit is closed", || {
        let mut stream = TcpStream::connect(node.http.as_deref().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        matches!(stream.read(&mut [0]), Ok(0)).then_some(())
    });
    drop(idle);
    eventually("there is room again", || {
        let mut stream = TcpStream::connect(node.http.as_deref().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let request = format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n{ME}\r\nx");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    });
    node.stop();
}

#[test]
fn a_durable_request_that_was_accepted_outlives_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: HTTP, ..Start::new(folder.path()) }.run();
    let guest = route("slow", "slow", "path = \"/slow\"\ndurable = true");
    node.admin.deploy(&guest.limits("memory = \"4MiB\"\ntimeout = \"20s\"").bundle());
    for number in 0..4 {
        let Answer(status, _, body) = ask(&node, "POST", "/slow", "", format!("n{number}").as_bytes());
        assert_eq!(status, 202, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert!(answer["event"].is_string(), "{answer}");
    }
    let seen = |node: &Node| node.admin.get("/v1/state/slow")["state"].as_object().unwrap().len();
    let before = seen(&node);
    assert!(before < 4, "the node is killed before all have run, or this proves nothing");
    node.kill();
    let node = Start { config: HTTP, ..Start::new(folder.path()) }.run();
    eventually("all that was accepted has run", || (seen(&node) == 4).then_some(()));
    node.stop();
}

#[test]
fn a_route_needs_a_listener() {
    let folder = tempfile::tempdir().unwrap();
    let node = Start { config: "[functions]\nhealth_window = \"0ms\"\n", ..Start::new(folder.path()) }.run();
    let (status, answer) = node.admin.post("/v1/deploy", &route("echo", "echo", "path = \"/echo\"").bundle());
    assert_eq!(status, 422);
    assert!(answer["error"].as_str().unwrap().contains("[http] listen"), "{answer}");
    node.stop();
}

fn camera(folder: &Path) -> String {
    format!(
        "[functions]\nhealth_window = \"0ms\"\n[[folder]]\nname = \"camera\"\npath = \"{}\"\n",
        folder.join("camera").display()
    )
}

fn seen(watcher: &mut Watcher) -> (String, String) {
    let (_, report) = watcher.next();
    assert_eq!((&report["source"], &report["subject"]), (&"file".into(), &"camera".into()), "{report}");
    let attributes = report["attributes"].as_array().unwrap();
    let name = attributes.iter().find(|pair| pair[0] == "name").unwrap()[1].as_str().unwrap().to_owned();
    (name, report["data"].as_str().unwrap().to_owned())
}

/// How many triggers wait for files: from then on a new one is noticed.
fn deploy(node: &Node, lines: &str) {
    node.admin.deploy(&Guest::new("eye", "witness").trigger("file", lines).bundle());
    // The first look at the folder leaves a mark there, and nothing else to see from outside but time.
    std::thread::sleep(Duration::from_millis(1_500));
}

#[test]
fn a_file_starts_a_function_once_it_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let camera_folder = folder.path().join("camera");
    std::fs::create_dir_all(&camera_folder).unwrap();
    std::fs::write(camera_folder.join("old.jpg"), "old").unwrap();
    let config = camera(folder.path());
    let node = Start { config: &config, ..Start::new(&folder.path().join("data")) }.run();
    let mut watcher = Watcher::new(&node, "seen/eye");
    deploy(&node, "folder = \"camera\"\nsuffix = \".jpg\"\nmax_bytes = \"1KiB\"");
    // Written in pieces: not before it is closed, and then whole.
    let mut file = std::fs::File::create(camera_folder.join("slow.jpg")).unwrap();
    for piece in ["one ", "two ", "three"] {
        file.write_all(piece.as_bytes()).unwrap();
        assert_eq!(watcher.next_within(Duration::from_millis(400)), None, "a file that is not closed");
    }
    drop(file);
    assert_eq!(seen(&mut watcher), ("slow.jpg".to_owned(), "one two three".to_owned()));
    // Renamed into place; what is hidden, has another suffix, is too large, a link or a folder is left alone.
    std::fs::write(camera_folder.join(".a.jpg"), "a").unwrap();
    std::fs::write(camera_folder.join("b.png"), "b").unwrap();
    std::fs::write(camera_folder.join("large.jpg"), vec![b'x'; 1025]).unwrap();
    std::fs::create_dir(camera_folder.join("folder.jpg")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", camera_folder.join("link.jpg")).unwrap();
    std::fs::rename(camera_folder.join(".a.jpg"), camera_folder.join("a.jpg")).unwrap();
    assert_eq!(seen(&mut watcher), ("a.jpg".to_owned(), "a".to_owned()));
    assert_eq!(watcher.rest(Duration::from_millis(600)), []);
    node.stop();
}

#[test]
fn a_file_that_came_while_the_node_was_down_is_told_once_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let camera_folder = folder.path().join("camera");
    std::fs::create_dir_all(&camera_folder).unwrap();
    let (config, data) = (camera(folder.path()), folder.path().join("data"));
    let start = || Start { config: &config, ..Start::new(&data) }.run();
    let node = start();
    let mut watcher = Watcher::new(&node, "seen/eye");
    deploy(&node, "folder = \"camera\"\nsuffix = \".jpg\"");
    std::fs::write(camera_folder.join("1.jpg"), "1").unwrap();
    assert_eq!(seen(&mut watcher).0, "1.jpg");
    node.kill();
    // Never in the same tick of the kernel's clock.
    for name in ["2.jpg", "3.jpg"] {
        std::fs::write(camera_folder.join(name), name).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    let node = start();
    let mut watcher = Watcher::new(&node, "seen/eye");
    assert_eq!([seen(&mut watcher).0, seen(&mut watcher).0], ["2.jpg", "3.jpg"]);
    node.kill();
    let node = start();
    let mut watcher = Watcher::new(&node, "seen/eye");
    assert_eq!(watcher.rest(Duration::from_secs(2)), [], "told again");
    node.stop();
}

fn rename_into(folder: &Path, name: &str) {
    let hidden = folder.join(format!(".{name}"));
    std::fs::write(&hidden, name).unwrap();
    std::fs::rename(&hidden, folder.join(name)).unwrap();
}

#[test]
fn a_file_that_comes_right_after_a_start_does_not_pass_those_that_waited() {
    let folder = tempfile::tempdir().unwrap();
    let camera_folder = folder.path().join("camera");
    std::fs::create_dir_all(&camera_folder).unwrap();
    let (config, data) = (camera(folder.path()), folder.path().join("data"));
    let start = || Start { config: &config, ..Start::new(&data) }.run();
    let node = start();
    deploy(&node, "folder = \"camera\"\nsuffix = \".jpg\"");
    node.kill();
    rename_into(&camera_folder, "1.jpg");
    let node = start();
    let mut watcher = Watcher::new(&node, "seen/eye");
    // What is found at a start rests for a second, and what is renamed for a moment: a cut after it would lose the first.
    std::thread::sleep(Duration::from_millis(300));
    rename_into(&camera_folder, "2.jpg");
    assert_eq!([seen(&mut watcher).0, seen(&mut watcher).0], ["1.jpg", "2.jpg"]);
    // Closed files rest for longer than renamed ones.
    std::fs::write(camera_folder.join("3.jpg"), "3").unwrap();
    std::thread::sleep(Duration::from_millis(30));
    rename_into(&camera_folder, "4.jpg");
    assert_eq!([seen(&mut watcher).0, seen(&mut watcher).0], ["3.jpg", "4.jpg"]);
    assert_eq!(watcher.rest(Duration::from_secs(1)), [], "told again");
    node.stop();
}

#[test]
fn a_file_that_the_node_cannot_take_is_not_passed() {
    let folder = tempfile::tempdir().unwrap();
    let camera_folder = folder.path().join("camera");
    std::fs::create_dir_all(&camera_folder).unwrap();
    let config = camera(folder.path()).replace("[functions]\n", "[store]\ninbox_rows = 1\n[functions]\nworkers = 2\n");
    let node = Start { config: &config, ..Start::new(&folder.path().join("data")) }.run();
    let slow = Guest::new("slow", "slow").on("go/#").with("ms", "2450");
    node.admin.deploy(&slow.limits("memory = \"4MiB\"\ntimeout = \"20s\"").bundle());
    deploy(&node, "folder = \"camera\"\nsuffix = \".jpg\"\ndurable = true");
    let mut watcher = Watcher::new(&node, "seen/eye");
    // It takes the only row of the inbox, until between the next tries of the first file and of the second one.
    assert_eq!(publish(&node, "go/1", b"1"), 0);
    for name in ["1.jpg", "2.jpg"] {
        std::thread::sleep(Duration::from_millis(300));
        rename_into(&camera_folder, name);
    }
    assert_eq!([seen(&mut watcher).0, seen(&mut watcher).0], ["1.jpg", "2.jpg"]);
    assert_eq!(watcher.rest(Duration::from_secs(2)), [], "told again");
    node.stop();
}

#[test]
fn what_one_function_looks_for_is_not_told_to_another_again() {
    let folder = tempfile::tempdir().unwrap();
    let camera_folder = folder.path().join("camera");
    std::fs::create_dir_all(&camera_folder).unwrap();
    let config = camera(folder.path());
    let node = Start { config: &config, ..Start::new(&folder.path().join("data")) }.run();
    let ear = |version: &str, lines: &str| {
        let lines = format!("folder = \"camera\"\nsuffix = \"{lines}");
        node.admin.deploy(&Guest::new("ear", "witness").version(version).trigger("file", &lines).bundle());
    };
    ear("1.0.0", ".jpg\"");
    deploy(&node, "folder = \"camera\"\nsuffix = \".jpg\"");
    // For a while the second function looks for something else, and comes back to where it was.
    ear("2.0.0", ".png\"");
    std::thread::sleep(Duration::from_millis(1_500));
    let mut watcher = Watcher::new(&node, "seen/+");
    rename_into(&camera_folder, "1.jpg");
    assert_eq!(watcher.next().0, "seen/eye");
    ear("3.0.0", ".jpg\"");
    assert_eq!(watcher.next().0, "seen/ear");
    assert_eq!(watcher.rest(Duration::from_secs(2)), [], "told again");
    // A file that is too large for one is told to the other, and is not looked at again.
    ear("4.0.0", ".jpg\"\nmax_bytes = \"1B\"");
    std::thread::sleep(Duration::from_millis(1_500));
    rename_into(&camera_folder, "2.jpg");
    assert_eq!(watcher.next().0, "seen/eye");
    ear("5.0.0", ".jpg\"");
    assert_eq!(watcher.rest(Duration::from_secs(3)), [], "told again");
    node.stop();
}

#[test]
fn a_folder_that_another_one_replaced_is_watched() {
    let folder = tempfile::tempdir().unwrap();
    let camera_folder = folder.path().join("camera");
    std::fs::create_dir_all(&camera_folder).unwrap();
    // It has two names, too.
    let config = camera(folder.path());
    let config =
        format!("{config}{}", config[config.find("[[folder]]").unwrap()..].replace("camera\"\np", "also\"\np"));
    let node = Start { config: &config, ..Start::new(&folder.path().join("data")) }.run();
    let also = "folder = \"also\"\nsuffix = \".jpg\"";
    node.admin.deploy(&Guest::new("ear", "witness").trigger("file", also).bundle());
    deploy(&node, "folder = \"camera\"\nsuffix = \".jpg\"");
    std::fs::rename(&camera_folder, folder.path().join("away")).unwrap();
    std::fs::create_dir(&camera_folder).unwrap();
    let mut watcher = Watcher::new(&node, "seen/+");
    rename_into(&camera_folder, "1.jpg");
    let mut names = [watcher.next().0, watcher.next().0];
    names.sort();
    assert_eq!(names, ["seen/ear", "seen/eye"]);
    assert_eq!(watcher.rest(Duration::from_secs(2)), [], "told again");
    node.stop();
}
