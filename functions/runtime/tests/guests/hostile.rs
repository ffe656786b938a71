//! Guests that misbehave. Each is stopped, tells the operator why, and leaves its neighbours alone.

use std::time::{Duration, Instant};

use holm_core::Fault;

use crate::support::*;

fn is_timeout(fault: &Fault) -> bool {
    matches!(fault, Fault::Timeout { .. })
}

fn is_trap_saying(words: &'static str) -> impl Fn(&Fault) -> bool {
    move |fault| matches!(fault, Fault::Trap { message } if message.contains(words))
}

fn is_exhausted(what: &'static str) -> impl Fn(&Fault) -> bool {
    move |fault| matches!(fault, Fault::Exhausted { resource } if resource == what)
}

#[test]
fn an_infinite_loop_is_interrupted_near_its_deadline() {
    let outcome = check_fault("loop", is_timeout);
    assert!(outcome.usage.wall >= Duration::from_millis(200), "{:?}", outcome.usage);
    // Generous: the machine that tests may be busy.
    assert!(outcome.usage.wall < Duration::from_millis(700), "{:?}", outcome.usage);
}

#[test]
fn endless_recursion_overflows_the_guests_own_stack() {
    // Rust's own stack lies in linear memory, and its guard is what the guest meets first; either is a trap.
    check_fault("recurse", |fault| matches!(fault, Fault::Trap { .. }));
    let module = core_module("(func $f (result i32) (i32.add (call $f) (i32.const 1)))", "(call $f)");
    let deep = load(&componentize("export holm:function/handler@0.1.0;", &module), MANIFEST);
    contained(&run_on(&deep, TestNode::default(), ""), "deep", is_trap_saying("call stack exhausted"));
}

#[test]
fn a_memory_bomb_meets_the_manifests_limit() {
    let outcome = check_fault("memory", is_exhausted("memory"));
    assert!(outcome.usage.peak_memory <= 4 << 20, "{:?}", outcome.usage);
}

#[test]
fn a_table_bomb_meets_the_table_limit() {
    let module = core_module(
        "(table $t 1 funcref)",
        "(loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)))) unreachable",
    );
    let bomb = load(&componentize("export holm:function/handler@0.1.0;", &module), MANIFEST);
    contained(&run_on(&bomb, TestNode::default(), ""), "table bomb", is_exhausted("table"));
}

#[test]
fn a_publish_storm_is_answered_queue_full_and_then_cut_by_time() {
    let outcome = run("publish-storm");
    assert_eq!(answer(&outcome), "1024 then QueueFull");
    assert_eq!(outcome.effects.publishes.len(), 1024);
    check_fault("publish-forever", is_timeout);
    assert_eq!(answer(&run("publish-huge")), "Err(TooLarge(262144))");
}

#[test]
fn state_that_floods_is_refused_by_bytes_and_by_keys() {
    let outcome = run("kv-flood");
    assert!(answer(&outcome).starts_with("65 then Unavailable"), "{}", answer(&outcome));
    assert_eq!(outcome.effects.writes.len(), 65);
    assert!(answer(&run("kv-many")).starts_with("8192 then"), "keys that are read are bounded too");
}

#[test]
fn a_log_flood_is_cut_and_counted() {
    let outcome = run("log-flood");
    let bytes: usize = outcome.logs.iter().map(|line| line.message.len()).sum();
    assert!(bytes < 5000, "{bytes} bytes");
    assert_eq!(outcome.logs[0].message, "line 0");
    let last = outcome.logs.last().unwrap();
    assert!(last.message.ends_with("bytes of log were cut at the limit of 4096"), "{last:?}");
    let outcome = check_fault("print-forever", is_timeout);
    assert!(outcome.logs.iter().map(|line| line.message.len()).sum::<usize>() < 9000);
}

#[test]
fn a_storm_of_host_calls_is_cut_by_time() {
    check_fault("host-calls", is_timeout);
}

#[test]
fn leaked_handles_are_bounded() {
    check_fault("handle-leak", is_exhausted("handle"));
}

#[test]
fn traps_exits_and_panics_say_what_happened() {
    let outcome = check_fault("trap", is_trap_saying("unreachable"));
    let Err(Fault::Trap { message }) = outcome.result else { panic!() };
    assert!(message.contains(" at "), "no backtrace: {message}");
    check_fault("exit", is_trap_saying("exit(1)"));
    let outcome = check_fault("panic", is_trap_saying("unreachable"));
    assert!(outcome.logs.iter().any(|line| line.message.contains("as a guest may")), "{:?}", outcome.logs);
}

#[test]
fn nothing_staged_before_a_failure_takes_effect() {
    check_fault("publish-then-trap", is_trap_saying("unreachable"));
    check_fault(
        "publish-then-retry",
        |fault| matches!(fault, Fault::Retry { after: Some(after), .. } if *after == Duration::from_millis(1500)),
    );
}

#[test]
fn a_long_reason_is_cut() {
    check_fault("reject", |fault| matches!(fault, Fault::Reject { reason } if reason.len() < 1100));
}

#[test]
fn a_huge_answer_is_output_like_any_other() {
    check_fault("huge-result", is_exhausted("output"));
}

#[test]
fn a_sleeper_wakes_at_its_deadline() {
    let begin = Instant::now();
    check_fault("sleep", is_timeout);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn an_answer_that_breaks_the_abi_is_a_trap() {
    for (what, body) in [
        ("a pointer outside of memory", "(i32.const -16)"),
        ("a discriminant that is none", "(i32.store8 (i32.const 64) (i32.const 9)) (i32.const 64)"),
        ("a misaligned pointer", "(i32.const 65)"),
        (
            "a payload longer than memory",
            "(i32.store8 (i32.const 68) (i32.const 1)) (i32.store (i32.const 84) (i32.const 8)) \
             (i32.store (i32.const 88) (i32.const 0x7fffffff)) (i32.const 64)",
        ),
    ] {
        let module = core_module("", body);
        let function = load(&componentize("export holm:function/handler@0.1.0;", &module), MANIFEST);
        let outcome = run_on(&function, TestNode::default(), "");
        contained(&outcome, what, |fault| matches!(fault, Fault::Trap { .. }));
    }
}

#[test]
fn an_endless_start_function_does_not_hold_prepare() {
    let module = core_module("(func $s (loop $l (br $l))) (start $s)", "(i32.const 64)");
    let function = load(&componentize("export holm:function/handler@0.1.0;", &module), MANIFEST);
    let error = function.prepare().unwrap_err();
    assert!(error.to_string().contains("ran longer"), "{error}");
    assert_eq!(answer(&run("count")), "1");
}

#[test]
fn a_fault_on_one_thread_leaves_the_others_running() {
    std::thread::scope(|scope| {
        for habit in ["loop", "memory", "trap", "panic"] {
            scope.spawn(move || assert!(run(habit).result.is_err()));
        }
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| assert_eq!(answer(&run("count")), "1")));
        }
    });
}
