//! Components that export `wasi:cli/run` only.

use std::sync::LazyLock;

use holm_core::Fault;
use holm_runtime::Function;

use crate::support::{MANIFEST, TestNode, built, event, load};

static PROGRAM: LazyLock<Function> = LazyLock::new(|| load(&built("tests/guests", "program"), MANIFEST));

fn run(payload: &str) -> holm_core::Outcome {
    PROGRAM.prepare().unwrap().call(&event("any", payload), Box::new(TestNode::default()))
}

#[test]
fn a_program_has_the_payload_on_its_stdin_and_its_stdout_in_the_log() {
    // More than one call moves.
    for payload in ["", "one\ntwo\n", &"line\n".repeat(50_000)] {
        let outcome = run(payload);
        assert!(matches!(outcome.result, Ok(None)), "{:?}", outcome.result);
        let said: Vec<&str> = outcome.logs.iter().map(|line| &*line.message).collect();
        assert_eq!(said, [format!("{} bytes, {} lines", payload.len(), payload.lines().count())]);
    }
}

#[test]
fn how_a_program_ends_is_what_becomes_of_its_event() {
    assert!(matches!(run("exit 0").result, Ok(None)));
    for (payload, status) in [("exit 3", 1), ("exit x", 1)] {
        let expected = format!("the program ended with status {status}");
        match run(payload).result {
            Err(Fault::Reject { reason }) => assert_eq!(reason, expected, "{payload}"),
            other => panic!("{payload}: {other:?}"),
        }
    }
    assert!(matches!(run("panic now").result, Err(Fault::Trap { .. })));
}
