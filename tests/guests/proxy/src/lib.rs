//! A server that knows nothing of Holm. The first part of the path says what it does; most answers are lines of text.

use std::io::{Read as _, Write as _};

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    ErrorCode, Fields, HeaderError, IncomingBody, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::InputStream;

wasip2::http::proxy::export!(Server);

wit_bindgen::generate!({
    inline: "package test:proxy; world state { import wasi:keyvalue/store@0.2.0-draft; }",
    path: "../../../functions/wit/deps/keyvalue",
    world: "test:proxy/state",
    generate_all,
});

struct Server;

impl Guest for Server {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let mut parts = path.trim_start_matches('/').split('/');
        let (verb, noun) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let number = || noun.parse::<u64>().unwrap_or_else(|_| panic!("no number: {noun}"));
        match verb {
            "about" => {
                let head = format!(
                    "{:?} {target} {:?} {:?}\n",
                    request.method(),
                    request.scheme().unwrap(),
                    request.authority().unwrap()
                );
                let headers = request.headers().entries();
                let lines = headers.iter().map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value)));
                answer(out, 200, &[("content-type", "text/plain")], (head + &lines.collect::<String>()).as_bytes());
            }
            "echo" => {
                let kind = request.headers().get("Content-Type");
                let kind = kind.first().map_or("none", |kind| std::str::from_utf8(kind).unwrap());
                answer(out, 200, &[("Content-Type", kind)], &body(request));
            }
            "splice" => splice(request, out),
            "given" => {
                let given = request.headers().get("x-given").concat();
                answer(out, 200, &[("x-seen", &String::from_utf8_lossy(&given))], b"");
            }
            "status" => answer(out, number() as u16, &[("retry-after", "7"), ("x-query", query)], noun.as_bytes()),
            "keep" => {
                wasi::keyvalue::store::open("self").unwrap().set("kept", noun.as_bytes()).unwrap();
                answer(out, number() as u16, &[], noun.as_bytes());
            }
            "cookies" => {
                let headers = [("Set-Cookie", "a=1"), ("set-cookie", "b=2"), ("Content-Length", "2"), ("TE", "x")];
                answer(out, 200, &headers, b"ok");
            }
            "rules" => rules(&request, out),
            "large" => {
                let response = OutgoingResponse::new(Fields::new());
                let whole = response.body().unwrap();
                ResponseOutparam::set(out, Ok(response));
                let mut stream = whole.write().unwrap();
                for _ in 0..number() {
                    stream.write_all(&[b'x'; 1024]).unwrap();
                }
                drop(stream);
                OutgoingBody::finish(whole, None).unwrap();
            }
            "zeroes" => {
                let response = OutgoingResponse::new(Fields::new());
                let whole = response.body().unwrap();
                whole.write().unwrap().write_zeroes(number()).unwrap();
                OutgoingBody::finish(whole, None).unwrap();
                ResponseOutparam::set(out, Ok(response));
            }
            "fields" => {
                let fields = Fields::new();
                for at in 0..number() {
                    fields.append(&format!("x-{at}"), b"v").unwrap();
                }
                ResponseOutparam::set(out, Ok(OutgoingResponse::new(fields)));
            }
            "handles" => {
                let held: Vec<Fields> = (0..number()).map(|_| Fields::new()).collect();
                answer(out, 200, &[], held.len().to_string().as_bytes());
            }
            "churn" => {
                for _ in 0..number() {
                    drop(OutgoingResponse::new(Fields::new()).body().unwrap());
                }
                answer(out, 200, &[], noun.as_bytes());
            }
            "error" => ResponseOutparam::set(out, Err(ErrorCode::InternalError(Some("no disk".to_owned())))),
            "denied" => ResponseOutparam::set(out, Err(ErrorCode::HttpRequestDenied)),
            "silent" => {}
            "half" => {
                let response = OutgoingResponse::new(Fields::new());
                let whole = response.body().unwrap();
                ResponseOutparam::set(out, Ok(response));
                whole.write().unwrap().write_all(b"half").unwrap();
            }
            "panic" => panic!("as asked"),
            "late" => {
                answer(out, 200, &[], b"all");
                panic!("after the answer");
            }
            "loop" => loop {
                std::hint::black_box(0);
            },
            _ => answer(out, 404, &[], b"not here"),
        }
    }
}

fn answer(out: ResponseOutparam, status: u16, headers: &[(&str, &str)], text: &[u8]) {
    let list: Vec<(String, Vec<u8>)> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    let response = OutgoingResponse::new(Fields::from_list(&list).unwrap());
    response.set_status_code(status).unwrap();
    let whole = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let mut stream = whole.write().unwrap();
    stream.write_all(text).unwrap();
    stream.flush().unwrap();
    drop(stream);
    OutgoingBody::finish(whole, None).unwrap();
}

fn body(request: IncomingRequest) -> Vec<u8> {
    let incoming = request.consume().unwrap();
    assert!(request.consume().is_err());
    let mut stream: InputStream = incoming.stream().unwrap();
    assert!(incoming.stream().is_err());
    stream.subscribe().block();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    drop(stream);
    let trailers = IncomingBody::finish(incoming);
    trailers.subscribe().block();
    assert!(matches!(trailers.get(), Some(Ok(Ok(None)))));
    assert!(matches!(trailers.get(), Some(Err(()))));
    bytes
}

/// The body as it came, without its being in the guest at all.
fn splice(request: IncomingRequest, out: ResponseOutparam) {
    let incoming = request.consume().unwrap();
    let from = incoming.stream().unwrap();
    let response = OutgoingResponse::new(Fields::new());
    let whole = response.body().unwrap();
    let to = whole.write().unwrap();
    while to.blocking_splice(&from, u64::MAX).is_ok() {}
    drop(to);
    OutgoingBody::finish(whole, None).unwrap();
    ResponseOutparam::set(out, Ok(response));
}

/// What WASI says of fields and bodies, one line for each thing that is otherwise.
fn rules(request: &IncomingRequest, out: ResponseOutparam) {
    let mut wrong = String::new();
    let mut check = |what: &str, is: bool| {
        if !is {
            wrong.push_str(what);
            wrong.push('\n');
        }
    };
    let given = request.headers();
    check("a request's headers are immutable", matches!(given.append("a", b"b"), Err(HeaderError::Immutable)));
    check("nor can they be deleted", matches!(given.delete("host"), Err(HeaderError::Immutable)));
    let copy = given.clone();
    check("a copy can be changed", copy.set("X-A", &[b"1".to_vec(), b"2".to_vec()]).is_ok());
    check("and the original stays", !given.has("x-a") && copy.has("x-a"));
    check("names have no case", copy.get("x-A") == [b"1", b"2"]);
    check("set replaces", copy.set("x-a", &[b"3".to_vec()]).is_ok() && copy.get("x-a") == [b"3"]);
    check("delete deletes", copy.delete("X-a").is_ok() && !copy.has("x-a") && copy.get("x-a").is_empty());
    check("syntax of names", matches!(copy.append("a b", b""), Err(HeaderError::InvalidSyntax)));
    check("syntax of values", matches!(copy.append("a", b"b\r\nc: d"), Err(HeaderError::InvalidSyntax)));
    check("the connection's", matches!(copy.append("Connection", b"close"), Err(HeaderError::Forbidden)));
    let list = [("transfer-encoding".to_owned(), b"chunked".to_vec())];
    check("also in lists", matches!(Fields::from_list(&list), Err(HeaderError::Forbidden)));
    let response = OutgoingResponse::new(copy);
    check("a status to begin with", response.status_code() == 200);
    check("no status", response.set_status_code(42).is_err() && response.set_status_code(600).is_err());
    check("a response's headers are immutable", matches!(response.headers().append("a", b"b"), Err(HeaderError::Immutable)));
    let whole = response.body().unwrap();
    check("one body", response.body().is_err());
    drop(whole.write().unwrap());
    check("one stream", whole.write().is_err());
    let short = OutgoingResponse::new(Fields::from_list(&[("content-length".to_owned(), b"5".to_vec())]).unwrap());
    let body = short.body().unwrap();
    let finished = OutgoingBody::finish(body, None);
    check("a length that is not kept", matches!(finished, Err(ErrorCode::HttpResponseBodySize(Some(0)))));
    let with = OutgoingResponse::new(Fields::new());
    let trailers = Fields::new();
    check("trailers are taken", OutgoingBody::finish(with.body().unwrap(), Some(trailers)).is_ok());
    answer(out, 200, &[], wrong.as_bytes());
}
