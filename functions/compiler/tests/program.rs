//! `holm-compile` as the agent runs it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::Path;
use std::process::{Command, Output};

use holm_compiler::Report;

fn compile(folder: &Path, input: &[u8], flags: &[&str]) -> Output {
    std::fs::write(folder.join("in.wasm"), input).unwrap();
    Command::new(env!("CARGO_BIN_EXE_holm-compile"))
        .args(flags)
        .arg(folder.join("in.wasm"))
        .arg(folder.join("out.cwasm"))
        .output()
        .unwrap()
}

/// A component of the repository's examples.
fn example() -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--target", "wasm32-wasip2"])
        .current_dir(folder)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .status()
        .unwrap();
    assert!(status.success(), "the examples do not build");
    std::fs::read(Path::new(folder).join("target/wasm32-wasip2/release/scale.wasm")).unwrap()
}

#[test]
fn bad_input_is_named_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    for (input, flags, words) in [
        (b"hello".as_slice(), [].as_slice(), "not WebAssembly"),
        (b"\0asm\x01\0\0\0", &[], "wasm32-wasip2"),
        (b"\0asm\x0d\0\x01\0", &[], "holm:function/handler"),
        (b"\0asm\x0d\0\x01\0", &["--profile", "z80-v1"], "x64-v1, a64-small-v1, pulley64-v1, pulley32-v1"),
        (&[0; 2 << 20], &["--max-component-mib", "1"], "the limit is 1048576"),
    ] {
        let output = compile(folder.path(), input, flags);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && message.contains(words), "{message}");
        assert!(!folder.path().join("out.cwasm").exists());
    }
}

#[test]
fn prints_one_line_and_gives_the_same_bytes_again() {
    let component = example();
    let folder = tempfile::tempdir().unwrap();
    let mut outputs = Vec::new();
    for _ in 0..2 {
        let output = compile(folder.path(), &component, &["--profile", "a64-small-v1"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let line = String::from_utf8(output.stdout).unwrap();
        let report: Report = serde_json::from_str(&line).unwrap();
        assert_eq!((report.profile.as_str(), line.lines().count()), ("a64-small-v1", 1));
        outputs.push((report.native_digest, std::fs::read(folder.path().join("out.cwasm")).unwrap()));
    }
    assert_eq!(outputs.first(), outputs.last());
    // Nothing temporary is left behind.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_compiler_out_of_memory_dies_alone() {
    let component = example();
    let folder = tempfile::tempdir().unwrap();
    let output = compile(folder.path(), &component, &["--max-memory-mib", "24"]);
    assert!(!output.status.success());
    assert!(!folder.path().join("out.cwasm").exists());
}
