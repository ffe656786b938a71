//! Components that export `wasi:http/incoming-handler` only.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use holm_compiler::{CompileError, InputLimits, compile};
use holm_core::{Event, Fault, Outcome, Response, Source};
use holm_runtime::recorder::Order;
use holm_runtime::{Function, Profile, Recorder};

use crate::support::{MANIFEST, TestNode, built, componentize, event, importing, load, run};

/// With time for a busy machine: only one of them is about that.
static PROXY: LazyLock<Function> =
    LazyLock::new(|| load(&built("tests/guests", "proxy"), &MANIFEST.replace("200ms", "3s")));

/// A request on a route.
fn request(method: &str, path: &str, query: Option<&str>, body: &[u8]) -> Event {
    let mut attributes = vec![(Arc::from("method"), Arc::from(method))];
    attributes.extend(query.map(|query| (Arc::from("query"), Arc::from(query))));
    attributes.push((Arc::from("header.host"), Arc::from("node:80")));
    attributes.push((Arc::from("header.x-given"), Arc::from("yes")));
    Event { source: Source::Http, data: Bytes::copy_from_slice(body), attributes, ..event(path, "") }
}

fn ask_with(event: &Event) -> Outcome {
    PROXY.prepare().unwrap().call(event, Box::new(TestNode::default()))
}

fn ask(path: &str, body: &[u8]) -> Outcome {
    ask_with(&request("POST", path, None, body))
}

fn said(outcome: &Outcome) -> &Response {
    outcome.response.as_deref().unwrap_or_else(|| panic!("{outcome:?}"))
}

#[test]
fn a_handler_of_requests_sees_the_request_and_its_response_is_the_answer() {
    let outcome = ask_with(&request("PUT", "/about/a%20b", Some("x=1&y"), b""));
    let response = said(&outcome);
    assert_eq!(response.status, 200);
    let text = std::str::from_utf8(&response.body).unwrap();
    assert!(text.starts_with("Method::Put /about/a%20b?x=1&y Scheme::Http \"node:80\"\n"), "{text}");
    for line in ["x-given: yes", "content-type: text/plain", "holm-event-id: e-1", "holm-attempt: 1"] {
        assert!(text.lines().any(|one| one == line), "{text}");
    }
    let answer = outcome.result.unwrap().unwrap();
    assert_eq!((answer.content_type.as_deref(), answer.data), (Some("text/plain"), response_body(&outcome.response)));
}

fn response_body(response: &Option<Box<Response>>) -> Bytes {
    response.as_ref().unwrap().body.clone()
}

#[test]
fn any_event_is_a_request() {
    let outcome = ask_with(&event("about/door 1", "open"));
    let text = String::from_utf8(said(&outcome).body.to_vec()).unwrap();
    assert!(text.starts_with("Method::Post /about/door%201 Scheme::Http \"holm\"\n"), "{text}");
    for line in ["ce-source: holm:mqtt", "ce-subject: about/door%201", "holm-attribute-qos: 1", "content-length: 4"] {
        assert!(text.lines().any(|one| one == line), "{text}");
    }
}

#[test]
fn bodies_are_streams_of_any_length_up_to_the_output_limit() {
    for length in [0, 1, 65_536, 200_000] {
        let body: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        for path in ["/echo", "/splice"] {
            assert_eq!(said(&ask(path, &body)).body, body, "{path} {length}");
        }
    }
    // The manifest says 256 KiB.
    assert_eq!(said(&ask("/large/255", b"")).body.len(), 255 << 10);
    assert_eq!(said(&ask("/zeroes/1000", b"")).body, [0; 1000][..]);
    for path in ["/large/257", "/large/1000000000", "/zeroes/300000", "/zeroes/18446744073709551615"] {
        let outcome = ask(path, b"");
        assert!(matches!(&outcome.result, Err(Fault::Exhausted { resource }) if resource == "output"), "{outcome:?}");
        assert!(outcome.response.is_none());
    }
}

#[test]
fn fields_and_bodies_are_as_wasi_says() {
    assert_eq!(String::from_utf8_lossy(&said(&ask("/rules", b"")).body), "");
}

#[test]
fn what_the_status_means_depends_on_who_asked() {
    for status in [200, 204, 302] {
        let outcome = ask(&format!("/status/{status}"), b"").without_client();
        assert_eq!(outcome.result.unwrap().unwrap().data, status.to_string());
    }
    let outcome = ask("/status/404", b"");
    assert_eq!((said(&outcome).status, outcome.result.is_ok()), (404, true));
    let Err(Fault::Reject { reason }) = outcome.without_client().result else { panic!() };
    assert_eq!(reason, "the response has status 404");
    let outcome = ask("/status/503", b"");
    assert_eq!((said(&outcome).status, &said(&outcome).body[..]), (503, &b"503"[..]));
    let Err(Fault::Retry { reason, after }) = outcome.without_client().result else { panic!() };
    assert_eq!((reason.as_str(), after.unwrap().as_secs()), ("the response has status 503", 7));
    assert_eq!((said(&ask("/error", b"")).status, said(&ask("/denied", b"")).status), (500, 400));
    assert_eq!(said(&ask("/error", b"")).body, "internal-error: no disk");
}

#[test]
fn a_handler_without_a_whole_response_has_failed() {
    for (path, words) in [
        ("/silent", "without a response"),
        ("/half", "before the body of its response was finished"),
        ("/panic", "unreachable"),
        ("/late", "unreachable"),
        ("/status/42", "unreachable"),
    ] {
        let outcome = ask(path, b"");
        match &outcome.result {
            Err(Fault::Trap { message }) => assert!(message.contains(words), "{path}: {message}"),
            other => panic!("{path}: {other:?}"),
        }
        assert!(outcome.response.is_none(), "{path}");
    }
    assert!(matches!(ask("/loop", b"").result, Err(Fault::Timeout { .. })));
}

#[test]
fn what_the_node_keeps_for_a_handler_is_bounded() {
    assert_eq!(said(&ask("/fields/400", b"")).headers.len(), 400);
    assert_eq!(said(&ask("/handles/200", b"")).body, "200");
    // What is given back may be had again.
    assert_eq!(said(&ask("/churn/1000", b"")).body, "1000");
    for (path, limit) in [("/fields/1000", "header"), ("/handles/300", "handle")] {
        let outcome = ask(path, b"");
        assert!(matches!(&outcome.result, Err(Fault::Exhausted { resource }) if resource == limit), "{outcome:?}");
    }
}

#[test]
fn a_trap_of_such_a_handler_replays() {
    let event = request("GET", "/panic", None, b"");
    let kept = PROXY.prepare_with(Recorder::keep(Vec::new(), 10_000)).unwrap();
    let outcome = kept.call(&event, Box::new(TestNode::default()));
    let order = Order::Exact { out_of_time: false };
    let again = PROXY.replay(&event, outcome.recording.as_ref().unwrap(), order).unwrap();
    assert!(again.diverged.is_none());
    assert_eq!(again.outcome.unwrap().result, outcome.result);
    assert!(outcome.result.unwrap_err().message().contains("unreachable"));
}

#[test]
fn all_of_the_types_link_and_those_that_send_are_refused() {
    let all = "import wasi:http/types@0.2.12;\nexport wasi:http/incoming-handler@0.2.12;";
    drop(load(&importing(all), MANIFEST).prepare().unwrap());
    let sends = format!("import wasi:http/outgoing-handler@0.2.12;\n{all}");
    let error = compile(&importing(&sends), Profile::host(), &InputLimits::default()).unwrap_err();
    assert!(
        matches!(error, CompileError::UnknownImports { imports } if imports == ["wasi:http/outgoing-handler@0.2.12"])
    );
}

#[test]
fn functions_that_only_senders_could_call_trap() {
    let world = "import wasi:http/types@0.2.12;\nexport wasi:http/incoming-handler@0.2.12;";
    let module = r#"(module
        (import "wasi:http/types@0.2.12" "[constructor]request-options" (func $options (result i32)))
        (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
        (func (export "wasi:http/incoming-handler@0.2.12#handle") (param i32 i32) (drop (call $options))))"#;
    let function = load(&componentize(world, &wat::parse_str(module).unwrap()), MANIFEST);
    let outcome = function.prepare().unwrap().call(&request("GET", "/", None, b""), Box::new(TestNode::default()));
    assert!(matches!(&outcome.result, Err(Fault::Trap { message }) if message.contains("sends no HTTP requests")));
    assert_eq!(crate::support::answer(&run("count")), "1", "the neighbour is well");
}

#[test]
fn a_component_with_types_of_its_own_for_wasis_names_is_stopped() {
    // `set` with a number where the guest's response is, and a result where there is none.
    let text = r#"(component
        (import "wasi:http/types@0.2.0" (instance $types
            (export "incoming-request" (type $request (sub resource)))
            (export "response-outparam" (type $out (sub resource)))
            (export "[static]response-outparam.set" (func (param "param" u32) (result u32)))))
        (alias export $types "incoming-request" (type $request))
        (alias export $types "response-outparam" (type $out))
        (alias export $types "[static]response-outparam.set" (func $set))
        (core func $set (canon lower (func $set)))
        (core module $m
            (import "" "set" (func $set (param i32) (result i32)))
            (func (export "handle") (param i32 i32) (drop (call $set (i32.const 7)))))
        (core instance $i (instantiate $m (with "" (instance (export "set" (func $set))))))
        (func $handle (param "request" (own $request)) (param "response-out" (own $out))
            (canon lift (core func $i "handle")))
        (instance $handler (export "handle" (func $handle)))
        (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#;
    let function = load(&wat::parse_str(text).unwrap(), MANIFEST);
    let outcome = function.prepare().unwrap().call(&request("GET", "/", None, b""), Box::new(TestNode::default()));
    assert!(matches!(&outcome.result, Err(Fault::Trap { message }) if message.contains("another type")), "{outcome:?}");
}
