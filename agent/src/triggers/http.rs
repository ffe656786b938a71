//! Requests on routes of the node's own HTTP listener, which is off unless the configuration says where it listens.
//!
//! Who asks waits for the function's answer: 200 with it, 204 where there is none, 422 when the function rejects the
//! request, 503 when it wants it again later, 500 when it failed, 504 when it takes too long. With `durable = true` it is
//! queued like any durable event, and answered 202 after the commit that holds it or its effects (D18 in
//! docs/delivery.md). 404 and 405 are for what is no route, 413 for a body over the limit, 503 for a function that is
//! behind or a node that cannot commit. A function that answers in HTTP's terms (`wasi:http/incoming-handler`) says itself
//! what the client gets: its response goes out as it is, but for what is of the connection.
//!
//! Everything that a peer can make grow has a bound: connections, the head and body of a request, its headers as
//! attributes, and the time for each.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holm_core::{ErrorCode, Fault, Payload, Response as Said, Source, TriggerKind};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use subtle::ConstantTimeEq as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::Http;
use crate::dispatch::{Dispatcher, Slot, event_now};

/// For the head of a request, and again for its body.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest head of a request, in bytes: what is beyond is answered 431 by the protocol's machine.
const MAX_HEAD: usize = 16 << 10;

/// Headers that become attributes of an event, and the bytes that they may have together.
const MAX_HEADERS: usize = 32;
const MAX_HEADER_BYTES: usize = 8 << 10;

/// Accept fails when file descriptors run out; trying again at once would only burn the processor.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// When to ask again, in seconds.
const RETRY_AFTER: u64 = 1;

/// Headers that are nobody's business but the node's.
const PRIVATE: [header::HeaderName; 4] =
    [header::AUTHORIZATION, header::COOKIE, header::CONTENT_TYPE, header::PROXY_AUTHORIZATION];

/// Headers of a response that the node makes itself, as those of the connection are that no function can set.
const OURS: [header::HeaderName; 4] = [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::TE, header::TRAILER];

/// A request, whole.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Such as `POST`.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// What follows the question mark.
    pub query: Option<String>,
    /// MIME type of the body.
    pub content_type: Option<String>,
    /// Other headers, as attributes.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// What is answered.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// Such as 200.
    pub status: u16,
    /// Of the body.
    pub content_type: Option<Arc<str>>,
    /// The body.
    pub body: Bytes,
    /// `Allow`, with 405.
    pub allow: Option<String>,
    /// Other headers, of a function's own response.
    pub headers: Vec<(header::HeaderName, HeaderValue)>,
}

impl Reply {
    fn told(status: StatusCode, words: &str) -> Self {
        Self::json(status, &serde_json::json!({ "error": words }))
    }

    /// With a name that a page says more about.
    fn coded(status: StatusCode, code: ErrorCode, words: &str) -> Self {
        Self::json(status, &serde_json::json!({ "error": words, "code": code.as_str() }))
    }

    fn json(status: StatusCode, body: &serde_json::Value) -> Self {
        let content_type = Some("application/json".into());
        Self { status: status.as_u16(), content_type, body: body.to_string().into(), ..Self::default() }
    }
}

/// The listener's side of the dispatcher.
pub struct Door {
    dispatcher: Arc<Dispatcher>,
    settings: Http,
    token: Option<Vec<u8>>,
}

impl Door {
    /// With the token that requests must carry, where there is one.
    pub fn new(dispatcher: Arc<Dispatcher>, settings: Http, token: Option<Vec<u8>>) -> Self {
        Self { dispatcher, settings, token }
    }

    /// Gives a request to its function. Cancel safe: the function runs to its end, whoever waits for it.
    pub async fn ask(&self, asked: Asked) -> Reply {
        let (slot, durable) = match self.route(&asked) {
            Ok(found) => found,
            Err(reply) => return reply,
        };
        let mut event = event_now(self.dispatcher.new_id(), Source::Http, asked.path.into());
        event.content_type = asked.content_type.map(Arc::from);
        event.data = asked.body;
        event.attributes.push(("method".into(), asked.method.into()));
        event.attributes.extend(asked.query.map(|query| ("query".into(), query.into())));
        event.attributes.extend(asked.headers.into_iter().map(|(name, value)| (name.into(), value.into())));
        let late = |words| Reply::coded(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::FunctionBehind, words);
        let busy = || late("the function is behind: ask again");
        if durable {
            let id = event.id.clone();
            return match self.dispatcher.trigger(&slot, event, true, Vec::new()).await {
                Ok(Ok(())) => Reply {
                    status: StatusCode::ACCEPTED.as_u16(),
                    content_type: Some("application/json".into()),
                    body: serde_json::json!({ "event": id }).to_string().into(),
                    ..Reply::default()
                },
                _ => late("the node cannot keep the request: ask again"),
            };
        }
        let Some(answer) = self.dispatcher.ask(&slot, event) else { return busy() };
        match timeout(self.settings.timeout, answer.wait()).await {
            Err(_) => Reply::told(StatusCode::GATEWAY_TIMEOUT, "the function takes too long"),
            // Its function was taken away, or the node ends.
            Ok(None) => busy(),
            Ok(Some(ended)) => match (ended.response, ended.result) {
                (Some(said), _) => as_said(*said),
                (None, Ok(answer)) => answered(answer),
                (None, Err(fault)) => failed(&fault),
            },
        }
    }

    /// The function whose route is the closest; of equals the first by name.
    fn route(&self, asked: &Asked) -> Result<(Arc<Slot>, bool), Reply> {
        let active = self.dispatcher.active();
        let mut allowed: Vec<&'static str> = Vec::new();
        let mut best: Option<(usize, Arc<Slot>, bool)> = None;
        let mut slots: Vec<&Arc<Slot>> = active.slots.values().collect();
        slots.sort_by(|a, b| a.name.cmp(&b.name));
        for slot in slots {
            let Some(loaded) = slot.loaded() else { continue };
            for trigger in &loaded.manifest.triggers {
                let TriggerKind::Http(route) = &trigger.kind else { continue };
                let Some(closeness) = route.matches(&asked.path) else { continue };
                if !route.methods.contains(&&*asked.method) {
                    allowed.extend(&route.methods);
                } else if best.as_ref().is_none_or(|(close, ..)| closeness > *close) {
                    best = Some((closeness, slot.clone(), trigger.durable));
                }
            }
        }
        match best {
            Some((_, slot, durable)) => Ok((slot, durable)),
            None if allowed.is_empty() => {
                Err(Reply::coded(StatusCode::NOT_FOUND, ErrorCode::RouteUnknown, "no function has this route"))
            }
            None => {
                allowed.sort_unstable();
                allowed.dedup();
                let words = "no function has this route for that method";
                let reply = Reply::coded(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::RouteUnknown, words);
                Err(Reply { allow: Some(allowed.join(", ")), ..reply })
            }
        }
    }

    /// Serves one request of a connection.
    async fn serve(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let reply = match self.read(request).await {
            Ok(asked) => self.ask(asked).await,
            Err(reply) => reply,
        };
        let mut response = Response::new(Full::new(reply.body));
        for (name, value) in reply.headers {
            response.headers_mut().append(name, value);
        }
        *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let has_hint = response.headers().contains_key(header::RETRY_AFTER);
        let mut set = |name, text: &str| {
            // What a function says of its answer may be no header's value.
            if let Ok(value) = HeaderValue::from_str(text) {
                response.headers_mut().insert(name, value);
            }
        };
        if let Some(content_type) = &reply.content_type {
            set(header::CONTENT_TYPE, content_type);
        }
        if let Some(allow) = &reply.allow {
            set(header::ALLOW, allow);
        }
        if reply.status == StatusCode::SERVICE_UNAVAILABLE.as_u16() && !has_hint {
            set(header::RETRY_AFTER, &RETRY_AFTER.to_string());
        }
        response
    }

    /// Reads a request whole, if it may be read.
    async fn read(&self, request: Request<Incoming>) -> Result<Asked, Reply> {
        let (head, body) = request.into_parts();
        if let Some(token) = &self.token {
            let given = head.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
            let given = given.strip_prefix(b"Bearer ").unwrap_or_default();
            if !bool::from(given.ct_eq(token)) {
                let words = "the request needs `Authorization: Bearer TOKEN`";
                return Err(Reply::coded(StatusCode::UNAUTHORIZED, ErrorCode::TokenWrong, words));
            }
        }
        let (mut headers, mut bytes) = (Vec::new(), 0);
        for (name, value) in head.headers.iter().filter(|(name, _)| !PRIVATE.contains(*name)) {
            let Ok(value) = value.to_str() else { continue };
            bytes += name.as_str().len() + value.len();
            if headers.len() >= MAX_HEADERS || bytes > MAX_HEADER_BYTES {
                break;
            }
            headers.push((format!("header.{name}"), value.to_owned()));
        }
        let mut asked = Asked {
            method: head.method.as_str().to_owned(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().map(str::to_owned),
            content_type: head.headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).map(str::to_owned),
            headers,
            body: Bytes::new(),
        };
        // Before a byte of the body is read: what has no route, or says itself that it is too large.
        self.route(&asked)?;
        let large = || {
            let words = format!("the body is larger than the {} bytes that the node takes", self.settings.max_body);
            Reply::coded(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::BodyTooLarge, &words)
        };
        let broken = |status, words| Err(Reply::coded(status, ErrorCode::BodyIncomplete, words));
        let limit = usize::try_from(self.settings.max_body).unwrap_or(usize::MAX);
        if body.size_hint().lower() > self.settings.max_body {
            return Err(large());
        }
        asked.body = match timeout(PATIENCE, Limited::new(body, limit).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => return Err(large()),
            Ok(Err(_)) => return broken(StatusCode::BAD_REQUEST, "the body broke off"),
            Err(_) => return broken(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
        };
        Ok(asked)
    }
}

fn answered(answer: Option<Payload>) -> Reply {
    match answer {
        None => Reply { status: StatusCode::NO_CONTENT.as_u16(), ..Reply::default() },
        Some(Payload { content_type, data }) => {
            Reply { status: StatusCode::OK.as_u16(), content_type, body: data, ..Reply::default() }
        }
    }
}

/// A response as its function made it.
fn as_said(said: Said) -> Reply {
    let mut reply = Reply { status: said.status, body: said.body, ..Reply::default() };
    for (name, value) in said.headers {
        // The runtime has seen to it that they are well-formed.
        let Ok(name) = header::HeaderName::from_bytes(name.as_bytes()) else { continue };
        let Ok(value) = HeaderValue::from_maybe_shared(value) else { continue };
        if name == header::CONTENT_TYPE {
            reply.content_type = value.to_str().ok().map(Arc::from);
        } else if !OURS.contains(&name) {
            reply.headers.push((name, value));
        }
    }
    reply
}

/// What the function says itself is for who asks; how it broke is for its author.
fn failed(fault: &Fault) -> Reply {
    match fault {
        Fault::Reject { reason } => Reply::told(StatusCode::UNPROCESSABLE_ENTITY, reason),
        Fault::Retry { reason, .. } => Reply::told(StatusCode::SERVICE_UNAVAILABLE, reason),
        Fault::Unavailable { .. } => {
            let words = "the node has no room for it now";
            Reply::coded(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::FunctionBehind, words)
        }
        Fault::Timeout { .. } => {
            let words = "the function takes too long";
            Reply::coded(StatusCode::GATEWAY_TIMEOUT, ErrorCode::InvocationFailed, words)
        }
        Fault::Trap { .. } | Fault::Exhausted { .. } => {
            Reply::coded(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::InvocationFailed, "the function failed")
        }
    }
}

/// Serves until `shutdown`, and what was asked before is answered.
pub async fn serve(listener: TcpListener, door: Arc<Door>, mut shutdown: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopping(&mut shutdown) => break,
            Some(ended) = connections.join_next() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok(_) if connections.len() >= door.settings.connections => {
                    tracing::debug!("too many connections to the HTTP listener");
                }
                Ok((socket, _)) => drop(connections.spawn(connection(socket, door.clone(), shutdown.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            },
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

/// Resolves when the node ends. Cancel safe.
async fn stopping(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "the task of an HTTP connection panicked");
    }
}

async fn connection(socket: TcpStream, door: Arc<Door>, mut shutdown: watch::Receiver<bool>) {
    let _ = socket.set_nodelay(true);
    // Who asks and does not read the answers would keep the connection for ever: no head is read, so no timer runs.
    let patience = u32::try_from(PATIENCE.as_millis()).unwrap_or(u32::MAX);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&socket, patience);
    let service = service_fn(move |request| {
        let door = door.clone();
        async move { Ok::<_, Infallible>(door.serve(request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(socket), service);
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stopping(&mut shutdown) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection broke");
    }
}
