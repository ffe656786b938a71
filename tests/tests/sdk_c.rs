//! The C of functions, natively and under sanitizers: what a sandbox would hide is found here.

use std::path::Path;
use std::process::Command;

use holm_tests::functions::repository;

/// Compiles C files, with this machine's compiler, into a program that stops where C says nothing about what happens; and
/// runs it to its end.
fn run(name: &str, files: &[&str], argument: &str) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join(name);
    let root = repository();
    let mut compiler = Command::new("cc");
    compiler.args(["-std=c17", "-O1", "-g", "-Wall", "-Wextra", "-Werror"]);
    compiler.args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
    compiler.arg("-I").arg(root.join("functions/sdk-c/include"));
    compiler.args(files.iter().map(|file| root.join("functions").join(file))).arg("-o").arg(&program).arg("-lm");
    let output = compiler.output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    tell(name, &program, &root.join("functions").join(argument));
}

fn tell(name: &str, program: &Path, argument: &Path) {
    // The SDK gives memory back with its instance, and not before.
    let output = Command::new(program).arg(argument).env("ASAN_OPTIONS", "detect_leaks=0").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {out}{err}");
    println!("{name}: {out}");
}

#[test]
fn numbers_are_read_and_written_as_the_c_library_does() {
    run("number", &["sdk-c/tests/number.c", "sdk-c/src/number.c"], "");
}

#[test]
fn json_that_is_broken_on_purpose_is_read_within_its_bounds() {
    run("text", &["sdk-c/tests/text.c", "sdk-c/src/text.c", "sdk-c/src/number.c"], "");
}

#[test]
fn modbus_frames_with_wrong_bits_and_noise_are_refused() {
    let folder = "examples/modbus-rtu";
    run("modbus", &[&format!("{folder}/tests/native.c"), &format!("{folder}/src/modbus.c")], "");
}

#[test]
fn telegrams_with_wrong_bits_and_wrong_numbers_are_refused() {
    let folder = "examples/dsmr-p1";
    let files = [&*format!("{folder}/tests/native.c"), &format!("{folder}/src/p1.c")];
    run("p1", &files, &format!("{folder}/tests/telegram.txt"));
}
