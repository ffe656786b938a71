//! Components that know nothing of Holm, on a node as they are.

use holm_tests::command::good;
use holm_tests::functions::program;

#[test]
fn a_program_runs_once_for_every_event_with_the_payload_on_its_stdin() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("program.wasm"), program()).unwrap();
    std::fs::write(
        folder.path().join("holm.toml"),
        "manifest_version = 1\n[function]\nname = \"program\"\nversion = \"1.0.0\"\n[build]\nsource = \"program.wasm\"\n\
         [[trigger.mqtt]]\ntopics = [\"text\"]\n[limits]\nmemory = \"4MiB\"\n",
    )
    .unwrap();
    std::fs::create_dir(folder.path().join("tests")).unwrap();
    std::fs::write(
        folder.path().join("tests/cases.toml"),
        "[[case]]\nname = \"counts lines\"\n\
         [[case.step]]\nmqtt = \"text\"\npayload = \"one\\ntwo\\n\"\nexpect = { invocations = 1, logs = [\"8 bytes, 2 lines\"] }\n\
         [[case.step]]\nmqtt = \"text\"\npayload = \"three\"\nexpect = { invocations = 1, logs = [\"5 bytes, 1 lines\"] }\n\
         [[case]]\nname = \"what a program cannot do is a dead letter\"\n\
         [[case.step]]\nmqtt = \"text\"\npayload = \"exit 7\"\nexpect = { outcome = \"reject\", dead_letters = 1 }\n",
    )
    .unwrap();
    good(folder.path(), &["build"]);
    good(folder.path(), &["test"]);
}
