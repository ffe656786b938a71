//! What is refused before it runs.

use std::sync::Arc;

use holm_compiler::{CompileError, InputLimits, compile};
use holm_runtime::{Engine, EngineOptions, Profile, RuntimeError};

use crate::support::*;

const HANDLER: &str = "export holm:function/handler@0.1.0;";

#[test]
fn all_unknown_imports_are_named_at_once() {
    let world = format!(
        "import wasi:sockets/tcp@0.2.12;\nimport wasi:clocks/wall-clock@0.2.12;\nimport unknown: func();\n{HANDLER}"
    );
    let component = importing(&world);
    let error = compile(&component, Profile::host(), &InputLimits::default()).unwrap_err();
    let CompileError::UnknownImports { imports } = error else { panic!("{error}") };
    assert!(imports.iter().any(|import| import.starts_with("wasi:sockets/tcp@")), "{imports:?}");
    assert!(imports.contains(&"unknown".to_owned()), "{imports:?}");
    assert!(!imports.iter().any(|import| import.starts_with("wasi:clocks")), "{imports:?}");
}

#[test]
fn a_thousand_imports_are_refused_by_name() {
    let many: String = (0..1000).map(|n| format!("import unknown{n}: func();\n")).collect();
    let error = compile(&importing(&format!("{many}{HANDLER}")), Profile::host(), &InputLimits::default()).unwrap_err();
    assert!(matches!(error, CompileError::UnknownImports { imports } if imports.len() == 1000));
}

#[test]
fn everything_that_the_world_offers_links() {
    let function = load(&importing("include holm:function/function@0.1.0;"), MANIFEST);
    drop(function.prepare().unwrap());
}

#[test]
fn a_component_without_the_handler_is_refused() {
    let error = compile(&importing("import wasi:random/random@0.2.12;"), Profile::host(), &InputLimits::default());
    assert!(matches!(error, Err(CompileError::NoHandler)));
}

#[test]
fn native_code_of_another_profile_is_refused_and_says_so() {
    let component = importing(HANDLER);
    for profile in Profile::all().iter().filter(|profile| **profile != Profile::host()) {
        let native = compile(&component, *profile, &InputLimits::default()).unwrap().native;
        let error = ENGINE.load(&native, &manifest(MANIFEST), Arc::default()).unwrap_err();
        assert!(matches!(error, RuntimeError::WrongEngine { .. }), "{error}");
        assert!(error.to_string().contains(profile.name()), "{error}");
    }
    let error = ENGINE.load(b"no native code", &manifest(MANIFEST), Arc::default()).unwrap_err();
    assert!(matches!(error, RuntimeError::WrongEngine { .. }), "{error}");
}

#[test]
fn compiling_twice_gives_the_same_bytes() {
    assert_eq!(native(&GUEST), native(&GUEST));
}

#[test]
fn pulley_runs_what_native_code_runs() {
    let profile = Profile::by_name("pulley64-v1").unwrap();
    let engine = Engine::new(profile, &EngineOptions { slots: 2, ..EngineOptions::default() }).unwrap();
    let compiled = compile(&GUEST, profile, &InputLimits::default()).unwrap();
    let function = engine.load(&compiled.native, &manifest(MANIFEST), Arc::default()).unwrap();
    assert_eq!(answer(&run_on(&function, TestNode::default(), "count")), "1");
}

#[test]
fn an_exhausted_pool_is_an_error_that_passes() {
    let engine = Engine::new(Profile::host(), &EngineOptions { slots: 2, ..EngineOptions::default() }).unwrap();
    let function = engine.load(&native(&GUEST), &manifest(MANIFEST), Arc::default()).unwrap();
    let held = [function.prepare().unwrap(), function.prepare().unwrap()];
    let error = function.prepare().unwrap_err();
    assert!(error.is_retryable(), "{error}");
    drop(held);
    function.prepare().unwrap();
}

#[test]
fn a_file_is_mapped_and_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest.cwasm");
    holm_compiler::write_atomically(&path, &native(&GUEST)).unwrap();
    let function = ENGINE.load_file(&path, &manifest(MANIFEST), Arc::default()).unwrap();
    assert_eq!(answer(&run_on(&function, TestNode::default(), "count")), "1");
    let missing = ENGINE.load_file(&folder.path().join("none"), &manifest(MANIFEST), Arc::default()).unwrap_err();
    assert!(matches!(missing, RuntimeError::ReadNative { .. }));
}

#[test]
fn a_minimum_of_memory_above_the_limit_does_not_start() {
    let module = wat::parse_str(
        r#"(module (memory (export "memory") 200)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
            (func (export "holm:function/handler@0.1.0#handle") (param i32) (result i32) (i32.const 64)))"#,
    );
    let function = load(&componentize(HANDLER, &module.unwrap()), MANIFEST);
    assert!(matches!(function.prepare().unwrap_err(), RuntimeError::Instantiate { .. }));
}

#[test]
fn what_a_slot_has_no_room_for_is_told_as_that() {
    let tables: String = (0..9).map(|n| format!("(table $t{n} 1 funcref)")).collect();
    let module = wat::parse_str(format!(
        r#"(module (memory (export "memory") 1) {tables}
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
            (func (export "holm:function/handler@0.1.0#handle") (param i32) (result i32) (i32.const 64)))"#,
    ));
    let native = native(&componentize(HANDLER, &module.unwrap()));
    let error = ENGINE.load(&native, &manifest(MANIFEST), Arc::default()).unwrap_err();
    assert!(matches!(error, RuntimeError::TooLarge { .. }), "{error}");
    assert!(error.to_string().contains("tables"), "{error}");
}

#[test]
fn the_examples_load_with_their_own_manifests() {
    for name in ["scale", "counter", "stateful", "machine-health"] {
        let component = built("functions/examples", &name.replace('-', "_"));
        let path = format!("{}/../examples/{name}/holm.toml", env!("CARGO_MANIFEST_DIR"));
        let function = load(&component, &std::fs::read_to_string(path).unwrap());
        let body = r#"{"id":"s1","t":31.0,"seq":1,"value":99.0}"#;
        let subject = if name == "machine-health" { "machine/press" } else { "sensors/s1" };
        let outcome = function.prepare().unwrap().call(&event(subject, body), Box::new(TestNode::default()));
        assert_eq!(outcome.result, Ok(None), "{name}");
        assert!(!outcome.effects.is_empty(), "{name}");
    }
}
