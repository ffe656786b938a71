//! What people are told when something is wrong: what, where, why, and the next command. The texts are in `tests/golden/errors`.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use holm_tests::functions::Guest;
use holm_tests::golden;
use holm_tests::node::{Start, binary};

/// The first bytes of a module, and of a component: each is a whole one, with nothing in it.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

const MANIFEST: &str = r#"manifest_version = 1
[function]
name = "heat"
version = "0.1.0"
[build]
command = "true"
source = "heat.wasm"
[[trigger.mqtt]]
topics = ["sensors/+/temp"]
[permissions]
publish = ["alerts/+"]
"#;

/// A folder with paths that tests can name.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().canonicalize().unwrap()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Self {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        self
    }

    /// Runs a program, which must fail with this code, and holds what it says on stderr against a golden text.
    fn check(&self, golden: &str, program: &str, code: i32, arguments: &[&str]) {
        let output = Command::new(binary(program))
            .args(arguments)
            .current_dir(self.path())
            .env("NO_COLOR", "1")
            .env("HOME", self.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("HOLM_DATA")
            .env_remove("HOLM_CLOUD")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{golden}: {text}");
        golden::check(&format!("errors/{golden}.txt"), &self.plain(&text));
    }

    /// Without what is another one on each machine: where the folder is, how its shell says things, how large guests are.
    fn plain(&self, text: &str) -> String {
        let folder = self.path().display().to_string();
        let lines = text.lines().filter(|line| !line.starts_with("sh: ") && !line.starts_with("sent "));
        lines.map(|line| line.replace(&folder, "DIR") + "\n").collect()
    }
}

#[test]
fn a_folder_that_cannot_be_built_says_what_to_do() {
    let place = Place::new();
    place.check("no-function", "holm", 1, &["build"]);
    let wrong = MANIFEST.replace("topics = [", "topic = [").replace("alerts/+", "alerts/#/x");
    place.write("holm.toml", wrong + "[limits]\nmemroy = \"4MiB\"\ntimeout = 100\n[retries]\n");
    place.check("manifest-wrong", "holm", 1, &["build"]);
    place.write("holm.toml", &MANIFEST[..MANIFEST.len() - 12]);
    place.check("manifest-half-written", "holm", 1, &["build"]);
    place.write("holm.toml", MANIFEST.replace("\"true\"", "\"no-such-compiler --release\""));
    place.check("toolchain-missing", "holm", 1, &["build"]);
    place.write("holm.toml", MANIFEST.replace("\"true\"", "\"echo 'error: expected `;`' >&2; exit 3\""));
    place.check("build-failed", "holm", 1, &["build"]);
    place.write("holm.toml", MANIFEST);
    place.check("component-missing", "holm", 1, &["build"]);
    place.write("holm.toml", MANIFEST.replace("source = \"heat.wasm\"\n", ""));
    place.check("component-unnamed", "holm", 1, &["build"]);
}

#[test]
fn a_component_of_another_world_is_told_from_what_is_none() {
    let place = Place::new();
    let holm = ["build"];
    place.write("holm.toml", MANIFEST).write("heat.wasm", MODULE);
    place.check("component-is-a-module", "holm", 1, &holm);
    place.write("heat.wasm", COMPONENT);
    place.check("component-without-handler", "holm", 1, &holm);
    let sockets = "(component (import \"wasi:sockets/tcp@0.2.0\" (instance)))";
    place.write("heat.wasm", wat::parse_str(sockets).unwrap());
    place.check("component-wants-too-much", "holm", 1, &holm);
    place.write("heat.wasm", "#!/bin/sh\n");
    place.check("component-is-none", "holm", 1, &holm);
}

#[test]
fn a_case_that_can_never_pass_is_said_before_anything_is_built() {
    let place = Place::new();
    place.write("holm.toml", MANIFEST.replace("\"true\"", "\"touch built\""));
    place.check("cases-missing", "holm", 2, &["test"]);
    let cases = r#"[[case]]
name = "warns"
config = { threshold = 3 }
[[case.step]]
mqtt = "sensors/attic/humidity"
json = { t = 31.5 }
[[case.step]]
mqtt = "sensors/attic/temp"
json = { t = 31.5 }
expect.publishes = [{ topic = "alarms/attic" }]
expect.results = [{ series = "mean", value = 1 }]
expect.state = { n = 1 }
expect.outcome = "crash"
[[case.step]]
advanse = "5m"
"#;
    place.write("tests/cases.toml", cases);
    place.check("cases-wrong", "holm", 2, &["test"]);
    place.write(
        "tests/cases.toml",
        cases.split_once("[[case.step]]\nadvanse").unwrap().0.replace("\"crash\"", "\"ok\""),
    );
    place.check("cases-can-never-pass", "holm", 2, &["test"]);
    place.write("tests/cases.toml", &cases[..60]);
    place.check("cases-half-written", "holm", 2, &["test"]);
    assert!(!place.path().join("built").exists());
}

#[test]
fn a_node_that_cannot_start_says_why() {
    let place = Place::new();
    place.write(
        "agent.toml",
        "[node]\ndevise = \"pi\"\n[mqtt]\nlisten = \"0.0.0.0:1883\"\n[functions]\nmemory = \"lots\"\n",
    );
    place.check("config-wrong", "holmd", 2, &["check-config", "--config", "agent.toml"]);
    place.write("holm.toml", MANIFEST).write("heat.wasm", COMPONENT);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Command::new(binary("holm"))
        .args(["dev", "--listen", &address])
        .current_dir(place.path())
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).replace(&address, "ADDRESS");
    golden::check("errors/node-not-started.txt", &place.plain(&text));
    place.write("recording.csv", "0.5,sensors/a/temp,{}\nlater,sensors/a/temp,{}\n1.5\n");
    place.check("recording-wrong", "holm", 1, &["dev", "--listen", "127.0.0.1:0", "--replay", "recording.csv"]);
    place.check("node-unreachable", "holm", 1, &["--data", "nowhere", "status"]);
    place.check("cloud-unknown", "holm", 1, &["fleet"]);
    place.write("fleet.toml", "fleet_version = 2\n[grups]\n");
    place.check("fleet-wrong", "holm", 1, &["apply", "fleet.toml"]);
}

#[test]
fn a_card_that_cannot_be_read_and_a_system_that_cannot_be_seeded_say_what_they_are() {
    let place = Place::new();
    let disk = |name: &str, kind: u8, begin: &[u8]| {
        let mut bytes = vec![0; 3 << 20];
        // One partition, from a mebibyte on.
        bytes[0x1be + 4] = kind;
        bytes[0x1be + 8..][..4].copy_from_slice(&2048_u32.to_le_bytes());
        bytes[0x1be + 12..][..4].copy_from_slice(&4096_u32.to_le_bytes());
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        bytes[1 << 20..][..begin.len()].copy_from_slice(begin);
        place.write(name, bytes);
    };
    place.write("zeros.img", vec![0; 4096]);
    disk("locked.img", 0x83, b"LUKS\xba\xbe");
    disk("photos.img", 0x0c, b"");
    place.check("card-is-none", "holm", 1, &["buffer", "open", "zeros.img"]);
    place.check("card-is-encrypted", "holm", 1, &["buffer", "open", "locked.img"]);
    place.check("card-without-database", "holm", 1, &["buffer", "open", "photos.img"]);
    place.check("card-is-a-folder", "holm", 1, &["buffer", "open", "."]);
    // A package with nothing but its name.
    let control = b"Package: holm\nVersion: 0.1.0\nArchitecture: arm64\n";
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(control.len() as u64);
    tar.append_data(&mut header, "./control", &control[..]).unwrap();
    let tar = tar.into_inner().unwrap();
    let head = format!("{:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", "control.tar", 0, 0, 0, 100_644, tar.len());
    place.write("holm.deb", [&b"!<arch>\n"[..], head.as_bytes(), &tar].concat());
    place.write("os.zip", b"PK\x03\x04 and more");
    let flash = |os| ["flash", "--device", "card.img", "--deb", "holm.deb", "--os", os];
    place.check("system-is-none", "holm", 1, &flash("photos.img"));
    place.check("system-is-packed", "holm", 1, &flash("os.zip"));
    assert!(!place.path().join("card.img").exists());
}

#[test]
fn a_node_says_what_it_does_not_take() {
    let place = Place::new();
    let data = place.path().join("data");
    let config = "[functions]\nhealth_window = \"0ms\"\nmemory = \"32MiB\"\n[http]\nlisten = \"127.0.0.1:0\"\nmax_body = \"4KiB\"\n";
    let node = Start { config, ..Start::new(&data) }.run();
    let bundle = Guest::new("good", "echo").trigger("http", "path = \"/echo\"").bundle();
    node.admin.deploy(&bundle);
    let deploy = |golden: &str, bytes: &[u8]| {
        place.write("it.holm", bytes).check(golden, "holm", 1, &["--data", "data", "deploy", "--local", "it.holm"]);
    };
    deploy("bundle-half-written", &bundle[..bundle.len() / 2]);
    deploy("bundle-is-none", b"PK\x03\x04");
    deploy("bundle-of-a-module", &Guest::new("module", "echo").bundle_of(MODULE));
    deploy("too-much", &Guest::new("huge", "echo").limits("memory = \"64MiB\"").bundle());
    let lacks = Guest::new("eyes", "echo").trigger("sensor", "sensor = \"greenhouse\"\ninterval = \"1s\"");
    deploy("node-lacks", &lacks.trigger("file", "folder = \"camera\"\nsuffix = \".jpg\"").bundle());
    let ask = ["--data", "data", "functions", "rollback", "nobody"];
    place.check("not-found", "holm", 1, &ask);
    place.write("event.json", "{}");
    node.admin.deploy(&Guest::new("poison", "reject").bundle());
    place.check("invocation-failed", "holm", 1, &["--data", "data", "invoke", "poison", "event.json"]);
    let http = node.http.clone().unwrap();
    for (golden, target, length) in [("body-too-large", "/echo", 5000), ("route-unknown", "/nowhere", 1)] {
        golden::check(&format!("errors/{golden}.txt"), &(ask_over_http(&http, target, length) + "\n"));
    }
    node.stop();
}

/// The body of what a request is answered with.
fn ask_over_http(address: &str, target: &str, length: usize) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn every_code_that_is_told_can_be_explained() {
    let holm = |arguments: &[&str]| {
        let output = Command::new(binary("holm")).args(arguments).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let mut told = 0;
    for name in golden::names("errors") {
        let path = holm_tests::functions::repository().join(format!("tests/golden/errors/{name}.txt"));
        let text = std::fs::read_to_string(path).unwrap();
        let code = text.split("holm explain ").nth(1).or_else(|| text.split("\"code\":\"").nth(1));
        let code = code.unwrap_or_else(|| panic!("{name} has no code"));
        let code: String = code.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
        let (good, page) = holm(&["explain", &code]);
        assert!(good && page.starts_with(&format!("# {code}: ")), "{page}");
        told += 1;
    }
    assert!(told >= 25, "{told}");
    assert!(holm(&["explain"]).1.contains("manifest-wrong"));
    assert!(!holm(&["explain", "no-such-code"]).0);
}
