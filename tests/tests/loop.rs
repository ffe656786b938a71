//! From an idea to a tested function: the commands of `holm` that need nothing but a laptop.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use holm_tests::command::{good, holm, text};
use holm_tests::functions::{Guest, example, guests, repository};
use holm_tests::node::{Start, binary};
use serde_json::Value;

/// A new function whose build shares what the examples have built.
fn new(folder: &Path, name: &str, template: &str) -> PathBuf {
    good(folder, &["new", name, "-t", template]);
    let project = folder.join(name);
    std::os::unix::fs::symlink(repository().join("functions/examples/target"), project.join("target")).unwrap();
    project
}

/// The tools that authors use themselves.
fn cargo(project: &Path, arguments: &[&str]) {
    let mut cargo = Command::new("cargo");
    cargo.args(arguments).current_dir(project).env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    let output = cargo.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "cargo {arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
}

/// What a template's function is handed by `holm invoke`, in lines.
fn event(template: &str) -> &'static str {
    match template {
        "mqtt-rust" | "mqtt-c" => "[sensors/a/temperature] {\"celsius\":20}\n",
        "chain-rust" => "{\"value\":1}\n",
        "sensor-rust" => {
            "{\"sensor\":\"greenhouse\",\"readings\":[{\"channel\":\"temperature\",\"value\":20,\"unit\":\"C\",\"time\":1,\"quality\":\"good\"}]}\n"
        }
        "gpio-rust" => "{\"line\":\"door\",\"level\":\"high\",\"edge\":\"rising\",\"time\":1,\"monotonic_us\":1}\n",
        "http-rust" => "[/readings/a] {\"value\":1}\n",
        "file-rust" => "time,flow\n",
        _ => "x\n",
    }
}

#[test]
fn every_template_is_made_tested_built_deployed_and_invoked() {
    let folder = tempfile::tempdir().unwrap();
    let listed: Value = serde_json::from_str(&good(folder.path(), &["new", "--list", "--json"])).unwrap();
    let templates: Vec<&str> =
        listed["templates"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(templates.len() >= 8, "{templates:?}");
    let config = "[functions]\nhealth_window = \"0ms\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
                  [[folder]]\nname = \"inbox\"\npath = \"inbox\"\n[board]\nprofile = \"host-sim\"\n\
                  [[sensor]]\nname = \"greenhouse\"\ndriver = \"bme280\"\nbus = \"i2c-1\"\n\
                  [[gpio]]\nname = \"door\"\nline = \"GPIO17\"\ndirection = \"in\"\n\
                  [[gpio]]\nname = \"lamp\"\nline = \"GPIO27\"\ndirection = \"out\"\nsafe = \"low\"\n";
    let data = folder.path().join("data");
    let node = Start { config, ..Start::new(&data) }.run();
    let data = data.to_str().unwrap();
    for template in templates {
        let name = format!("a-{template}");
        let project = new(folder.path(), &name, template);
        if template.ends_with("-rust") {
            cargo(&project, &["fmt", "--check"]);
            cargo(&project, &["test", "--quiet"]);
        }
        let tested: Value = serde_json::from_str(&good(&project, &["test", "--json"])).unwrap();
        assert_eq!((&tested["failed"], tested["passed"].as_u64() >= Some(1)), (&0.into(), true), "{tested}");
        let built: Value = serde_json::from_str(&good(&project, &["build", "--json"])).unwrap();
        assert_eq!(built["over_budget"], false, "{built}");
        let bytes = built["component_bytes"].as_u64().unwrap();
        println!("{template}: {bytes} bytes");
        assert!(bytes <= if template.ends_with("-rust") { 100_000 } else { 20_000 }, "{template} has {bytes} bytes");
        assert_eq!(built["remarks"], serde_json::json!([]), "{template} grants too much or too little");
        let bundle = built["bundle"].as_str().unwrap();
        good(&project, &["--data", data, "deploy", "--local", bundle]);
        std::fs::write(project.join("events"), event(template)).unwrap();
        let answer = good(&project, &["--data", data, "invoke", &name, "--lines", "events"]);
        assert!(answer.contains(&format!("{name} ok")) || answer.contains("ok"), "{answer}");
    }
    node.stop();
}

/// A function that is built by copying a component: nothing of what is tested here is about compilers.
fn counter(folder: &Path) -> PathBuf {
    let bundle = example("counter", |manifest| manifest);
    let project = folder.join("counter");
    std::fs::create_dir_all(project.join("tests")).unwrap();
    let opened = holm_bundle::Bundle::open(&bundle, &holm_bundle::BundleLimits::default()).unwrap();
    std::fs::write(project.join("counter.wasm"), &opened.component).unwrap();
    let manifest = std::fs::read_to_string(repository().join("functions/examples/counter/holm.toml")).unwrap();
    let manifest = manifest
        .replace("cargo build --release --target wasm32-wasip2", "cp counter.wasm built.wasm")
        .replace("../target/wasm32-wasip2/release/counter.wasm", "built.wasm");
    std::fs::write(project.join("holm.toml"), manifest).unwrap();
    project
}

const CASE: &str = r#"[[case]]
name = "counts"
[[case.step]]
mqtt = "count/a"
json = { id = "x" }
expect.publishes = [{ topic = "counted/a", json = { n = 1 } }]
[[case.step]]
mqtt = "count/a"
json = { id = "x" }
expect.publishes = [{ topic = "counted/a", json = { n = 2 } }]
expect.state = { n = 2, "seen/x" = 2 }
expect.results = [{ series = "n", value = 2 }]
"#;

#[test]
fn a_case_that_fails_says_where_and_what_was_different() {
    let folder = tempfile::tempdir().unwrap();
    let project = counter(folder.path());
    let cases = project.join("tests/cases.toml");
    std::fs::write(&cases, CASE).unwrap();
    good(&project, &["test"]);
    std::fs::write(
        &cases,
        CASE.replace("\"seen/x\" = 2", "\"seen/y\" = 2").replace("json = { n = 2 }", "json = { n = 3 }"),
    )
    .unwrap();
    let (code, out, _) = text(&holm(&project, &["test", "--junit", "report.xml"]));
    assert_eq!(code, Some(1));
    let expected = "\
FAIL  counts  tests/cases.toml:7
    step 2, mqtt count/a, line 7
      publishes
        - counted/a {\"n\":3}
        + counted/a {\"n\":2} qos 1
      state
          n = 2
        + seen/x = 2
        - seen/y = 2
1 of 1 failed in ";
    assert!(out.starts_with(expected), "{out}");
    let report = std::fs::read_to_string(project.join("report.xml")).unwrap();
    assert!(report.contains("<testsuites tests=\"1\" failures=\"1\" errors=\"0\""), "{report}");
    assert!(report.contains("<failure message=\"tests/cases.toml:7\">"), "{report}");
    let (code, out, _) = text(&holm(&project, &["test", "--json", "--no-build"]));
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["failed"], &answer["cases"][0]["step"]), (Some(1), &1.into(), &2.into()));
}

#[test]
fn everything_that_is_wrong_with_case_files_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let project = counter(folder.path());
    std::fs::write(project.join("tests/a.toml"), "[[case]]\nname = \"a\"\nstpe = 1\n[[case.step]]\nmqtt = \"a/#\"\n")
        .unwrap();
    std::fs::write(
        project.join("tests/b.toml"),
        "[[case]]\nname = \"b\"\n[[case.step]]\nschedule = \"tick\"\n[[case.step]]\nmqtt = \"elsewhere\"\n\
         expect.publishes = [{ topic = \"x\" }]\nexpect.results = [{ series = \"m\", value = 1 }]\n",
    )
    .unwrap();
    let (code, out, err) = text(&holm(&project, &["test"]));
    assert_eq!((code, out.as_str()), (Some(2), ""));
    let expected = "\
holm: tests/a.toml: 2 problems
  line 3: case[0].stpe: unknown key, did you mean `step`?
  line 5: case[0].step[0].mqtt: `+` and `#` are for filters, not for the topic of a message
tests/b.toml: 4 problems
  line 3: case[0].step[0].schedule: `tick`: there is no [[trigger.schedule]] of that name; there is none
  line 5: case[0].step[1].mqtt: no [[trigger.mqtt]] matches `elsewhere`; there is: count/+. If that is the point, expect.invocations = 0
  line 7: case[0].step[1].expect.publishes[0].topic: [permissions] publish does not grant `x`; there is: counted/+
  line 7: case[0].step[1].expect.results[0].series: there is no [results.m]; there is: n
  next: mend them all, and run it again
  more: holm explain cases-wrong
";
    assert_eq!(err, expected);
}

#[test]
fn a_case_is_the_same_however_late_its_time_is() {
    let folder = tempfile::tempdir().unwrap();
    let project = counter(folder.path());
    // What the function makes wait, and what waits for it, goes by the case's clock: a year takes no time.
    std::fs::write(
        project.join("tests/cases.toml"),
        "[[case]]\nname = \"a poison message is a dead letter for a week\"\nstart = \"2031-01-01T00:00:00Z\"\n\
         [[case.step]]\nmqtt = \"count/a\"\npayload = \"poison\"\nexpect.outcome = \"reject\"\nexpect.dead_letters = 1\n\
         [[case.step]]\nadvance = \"6d\"\nexpect.dead_letters = 1\nexpect.invocations = 0\n",
    )
    .unwrap();
    good(&project, &["test"]);
}

/// A function with one of the habits of `tests/guests`, and its cases.
fn guest(folder: &Path, guest: &Guest, cases: &str) -> PathBuf {
    let project = folder.join("guest");
    std::fs::create_dir_all(project.join("tests")).unwrap();
    std::fs::write(project.join("guest.wasm"), guests()).unwrap();
    let manifest = guest.clone().more("[build]\nsource = \"guest.wasm\"").manifest();
    std::fs::write(project.join("holm.toml"), manifest).unwrap();
    std::fs::write(project.join("tests/cases.toml"), cases).unwrap();
    project
}

#[test]
fn time_passes_from_one_thing_that_is_due_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    // A second until the first retry, two until the next; then it succeeds.
    let cases = "[[case]]\nname = \"is tried again\"\n\
        [[case.step]]\nmqtt = \"go/x\"\npayload = \"x\"\nexpect = { invocations = 1, outcome = \"retry\", publishes = [] }\n\
        [[case.step]]\nadvance = \"999ms\"\nexpect.invocations = 0\n\
        [[case.step]]\nadvance = \"1ms\"\nexpect = { invocations = 1, outcome = \"retry\" }\n\
        [[case.step]]\nadvance = \"30d\"\nexpect.invocations = 1\n\
        expect.publishes = [{ topic = \"seen/patient\", has = { attempt = 3 } }]\n";
    good(&guest(folder.path(), &Guest::new("patient", "third-time").on("go/#"), cases), &["test"]);
    // Three at once, and one a second.
    let cases = "[[case]]\nname = \"is not hurried\"\n\
        [[case.step]]\nmqtt = \"go/1\"\nexpect.invocations = 1\n\
        [[case.step]]\nmqtt = \"go/2\"\nexpect.invocations = 0\n\
        [[case.step]]\nmqtt = \"go/3\"\nexpect.invocations = 0\n\
        [[case.step]]\nadvance = \"1s\"\nexpect.invocations = 1\n\
        [[case.step]]\nadvance = \"10s\"\nexpect.invocations = 1\n";
    let slow = Guest::new("patient", "witness").on("go/#").limits("memory = \"4MiB\"\nrate = \"1/s\"");
    good(&guest(folder.path(), &slow, cases), &["test"]);
    // A schedule of every second, for an hour: each firing at its own time.
    let cases = "[[case]]\nname = \"fires each time\"\n[[case.step]]\nadvance = \"1h\"\nexpect.invocations = 360\n";
    let often = Guest::new("patient", "witness").trigger("schedule", "interval = \"10s\"");
    good(&guest(folder.path(), &often, cases), &["test"]);
}

#[test]
fn what_an_invocation_may_take_is_part_of_a_case() {
    let folder = tempfile::tempdir().unwrap();
    let cases = "[[case]]\nname = \"is small\"\nmemory = \"64KiB\"\n[[case.step]]\nmqtt = \"go/1\"\n";
    let project = guest(folder.path(), &Guest::new("large", "witness").on("go/#"), cases);
    let (code, out, _) = text(&holm(&project, &["test"]));
    assert_eq!(code, Some(1));
    assert!(out.contains("      memory\n        - at most 64.0 KiB\n        + "), "{out}");
}

#[test]
fn what_cannot_be_made_is_said_with_what_can() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, what, next) in [
        (&["new", "My_Function"][..], "`My_Function` is not a name", "holm new my-function -t mqtt-rust"),
        (
            &["new", "x", "-t", "mqtt-cobol"],
            "there is no template `mqtt-cobol`; there are chain-rust",
            "holm new --list",
        ),
        (&["test"], "cannot read ./holm.toml", "holm new NAME"),
        (&["dev"], "cannot read ./holm.toml", "holm new NAME"),
    ] {
        let (code, out, err) = text(&holm(folder.path(), arguments));
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        assert!(err.contains(what) && err.contains(next), "{err}");
    }
    good(folder.path(), &["new", "twice"]);
    let (code, _, err) = text(&holm(folder.path(), &["new", "twice"]));
    assert_eq!(code, Some(1));
    assert!(err.contains("twice is not empty, and nothing in it is overwritten"), "{err}");
}

/// `holm dev`, and every line that it writes.
struct Dev {
    child: Child,
    lines: Receiver<String>,
}

impl Dev {
    fn start(project: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary("holm"));
        command.arg("dev").args(["--listen", "127.0.0.1:0"]).args(arguments).current_dir(project).env("NO_COLOR", "1");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = sync_channel(10_000);
        let out: Box<dyn std::io::Read + Send> = Box::new(child.stdout.take().unwrap());
        let err: Box<dyn std::io::Read + Send> = Box::new(child.stderr.take().unwrap());
        for stream in [out, err] {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    eprintln!("dev: {line}");
                    let _ = sender.try_send(line);
                }
            });
        }
        Self { child, lines }
    }

    /// Waits for a line with these words.
    fn says(&self, words: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line =
                self.lines.recv_timeout(left).unwrap_or_else(|error| panic!("it does not say `{words}`: {error}"));
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Ctrl-C.
    fn stop(mut self) {
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn dev_runs_a_function_swaps_it_and_keeps_the_last_good_build() {
    let folder = tempfile::tempdir().unwrap();
    let project = counter(folder.path());
    let manifest = std::fs::read_to_string(project.join("holm.toml")).unwrap();
    let change = |from: &str, to: &str| std::fs::write(project.join("holm.toml"), manifest.replace(from, to)).unwrap();
    std::fs::write(project.join("day.csv"), "seconds,topic,payload\n0,count/csv,\"{\"\"id\"\":\"\"r\"\"}\"\n").unwrap();
    let dev = Dev::start(
        &project,
        &["--sim", "count/sim#id=constant:1,every=100ms", "--replay", "day.csv", "--record", "took.ndjson"],
    );
    dev.says("counter 0.1.0 runs");
    // The world moves: a payload that is no text is rejected, whatever else goes on.
    dev.says("count/csv {\"id\":\"r\"}");
    dev.says("publish  counted/csv {\"n\":");
    dev.says("reject  counter mqtt count/sim");
    change("cp counter.wasm built.wasm", "echo broken >&2; exit 3");
    dev.says("[build].command of ./holm.toml failed: exit status: 3");
    dev.says("the last good build goes on running");
    dev.says("count/sim");
    change("0.1.0", "0.2.0");
    dev.says("counter 0.2.0 runs");
    change("manifest_version = 1", "manifest_version = 9");
    dev.says("manifest_version");
    dev.says("the last good build goes on running");
    dev.says("count/sim");
    dev.stop();
    let recorded = std::fs::read_to_string(project.join("took.ndjson")).unwrap();
    assert!(recorded.contains("\"topic\":\"count/csv\""), "{recorded}");
    // What it had is there for the next run.
    assert!(project.join(".holm/data/holm.db").is_file());
}

#[test]
fn a_node_of_dev_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let project = counter(folder.path());
    let mut dev = Dev::start(&project, &[]);
    dev.says("counter 0.1.0 runs");
    dev.child.kill().unwrap();
    let _ = dev.child.wait();
    let socket = project.join(".holm/data/admin.sock");
    holm_tests::eventually("the node has ended", || std::os::unix::net::UnixStream::connect(&socket).err());
}
