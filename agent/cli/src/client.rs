//! The client of the admin socket: HTTP/1.1 and JSON on a unix socket, a connection per request.
//!
//! Every wait has a deadline, but the ones for the next line of a stream, which is what `-f` asks for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use holm_core::ErrorCode;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::failure::Failure;

/// The socket's name in the data folder, as `holmd` has it.
const SOCKET: &str = "admin.sock";

/// For answers that cost the node a look. Deployments hold the list of functions up for as long as one is being tried.
const PATIENCE: Duration = Duration::from_secs(30);

/// For a deployment: compiling on a small board, and the longest health window that a node may have.
const DEPLOYMENT: Duration = Duration::from_secs(3_600 + 900);

/// The largest answer that is read whole, in bytes.
const LARGEST: usize = 256 << 20;

/// A node, by its socket.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    folder: PathBuf,
    socket: PathBuf,
}

impl Client {
    /// For the node with this data folder. Connects only when asked something.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { socket: folder.join(SOCKET), folder }
    }

    /// Where the node is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Asks for a path.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.within(PATIENCE, Method::GET, path, Bytes::new()).await
    }

    /// Asks for a path, with a deadline of the caller's.
    pub(crate) async fn get_within(&self, limit: Duration, path: &str) -> Result<Value, Failure> {
        self.within(limit, Method::GET, path, Bytes::new()).await
    }

    /// Asks for a path, and reads the answer's `key`.
    pub(crate) async fn get_as<T: DeserializeOwned>(&self, path: &str, key: &str) -> Result<T, Failure> {
        parse(self.get(path).await?, path, key)
    }

    /// Does something.
    pub(crate) async fn post(&self, path: &str, body: Bytes) -> Result<Value, Failure> {
        self.within(PATIENCE, Method::POST, path, body).await
    }

    /// Hands over a bundle and waits until it is confirmed or rolled back.
    pub(crate) async fn deploy(&self, bundle: Bytes) -> Result<Value, Failure> {
        self.within(DEPLOYMENT, Method::POST, "/v1/deploy", bundle).await
    }

    /// Hands over a folder with a deployment, and waits until that is believed: after a trial that is running.
    pub(crate) async fn carry(&self, folder: &str) -> Result<Value, Failure> {
        let path = format!("/v1/cloud/deploy?folder={}", escape(folder));
        self.within(DEPLOYMENT, Method::POST, &path, Bytes::new()).await
    }

    /// Takes something away.
    pub(crate) async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.within(PATIENCE, Method::DELETE, path, Bytes::new()).await
    }

    /// Lines of NDJSON, as they come.
    pub(crate) async fn stream(&self, path: &str) -> Result<Lines, Failure> {
        let response = self.until(PATIENCE, self.send(Method::GET, path, Bytes::new())).await?;
        if !response.status().is_success() {
            let told = self.until(PATIENCE, self.read(response)).await;
            return Err(told.err().unwrap_or_else(|| Failure::new(format!("the node refused {path}"))));
        }
        Ok(Lines { body: response.into_body(), held: Vec::new() })
    }

    async fn within(&self, limit: Duration, method: Method, path: &str, body: Bytes) -> Result<Value, Failure> {
        let exchange = async { self.read(self.send(method, path, body).await?).await };
        self.until(limit, exchange).await
    }

    async fn until<T>(&self, limit: Duration, wait: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        match timeout(limit, wait).await {
            Ok(result) => result,
            Err(_) => Err(Failure::new(format!(
                "the node at {} has not answered for {} seconds",
                self.socket.display(),
                limit.as_secs()
            ))
            .next("see what it does with `holm logs -f` and its own log (journalctl -u holmd)")
            .page(ErrorCode::NodeSilent)),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "ends with the connection that this call opens")]
    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        // Ends with its connection: when the answer was read, or when the runtime goes.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "holm")
            .header("connection", "close")
            .body(Full::new(body))
            .map_err(|error| Failure::new(format!("cannot ask the node for {path}: {error}")))?;
        sender.send_request(request).await.map_err(|error| self.broken(&error))
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Value, Failure> {
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST).collect().await;
        let body = body.map_err(|error| Failure::new(format!("the node's answer broke off: {error}")))?.to_bytes();
        let value: Value = serde_json::from_slice(&body).unwrap_or_else(|_| {
            // Not JSON: what the HTTP library says by itself, such as that a body is too large.
            serde_json::json!({ "error": String::from_utf8_lossy(&body) })
        });
        if status.is_success() {
            return Ok(value);
        }
        let words = value.get("error").and_then(Value::as_str).filter(|words| !words.is_empty());
        let failure = Failure::new(words.map_or_else(|| format!("the node answered {status}"), str::to_owned));
        let code = value.get("code").and_then(Value::as_str).and_then(ErrorCode::parse);
        let failure = match code {
            Some(code) => failure.page(code),
            None => failure,
        };
        if let Some(advice) = code.and_then(advice) {
            return Err(failure.next(advice));
        }
        Err(match status {
            StatusCode::NOT_FOUND => failure.next("see what there is with `holm functions` and `holm dlq list`"),
            StatusCode::FORBIDDEN => failure.next("see [functions] in the node's agent.toml"),
            StatusCode::SERVICE_UNAVAILABLE => failure.next("see `holm status`: the store may be failing, or full"),
            _ => failure,
        })
    }

    fn unreachable(&self, error: &std::io::Error) -> Failure {
        let (socket, folder) = (self.socket.display(), self.folder.display());
        let failure =
            Failure::new(format!("cannot reach the node at {socket}: {error}")).page(ErrorCode::NodeUnreachable);
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => failure.next("run this as the user that holmd runs as, or with sudo"),
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => failure.next(format!(
                "is holmd running? start it with `holmd run --data {folder}`, or name its folder with --data or HOLM_DATA"
            )),
            _ => failure,
        }
    }

    fn broken(&self, error: &hyper::Error) -> Failure {
        Failure::new(format!("the connection to the node at {} broke: {error}", self.socket.display()))
            .next("see if it still runs with `holm status`")
    }
}

/// What to do about what the node refused.
fn advice(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::ManifestWrong => Some("mend them all in holm.toml, and build it again"),
        ErrorCode::BundleRefused => Some("make it anew with `holm build DIR`"),
        ErrorCode::ComponentWrong => {
            Some("see that the build makes a component for `wasm32-wasip2` that exports the handler")
        }
        ErrorCode::NodeLacks => Some("bind it in the node's agent.toml, and start the node again"),
        ErrorCode::TooMuch => Some("ask for less in [limits] of holm.toml, or give more in the node's agent.toml"),
        ErrorCode::ParameterWrong => Some("see [config] in the function's holm.toml for what it may be"),
        _ => None,
    }
}

/// Lines of a stream.
pub(crate) struct Lines {
    body: Incoming,
    held: Vec<u8>,
}

impl Lines {
    /// The next line as JSON; `None` at the end. Lines that are not JSON are passed over. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>, Failure> {
        loop {
            while let Some(end) = self.held.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.held.drain(..=end).collect();
                if let Ok(value) = serde_json::from_slice(&line) {
                    return Ok(Some(value));
                }
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => self.held.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..])),
                Some(Err(error)) => return Err(Failure::new(format!("the stream broke off: {error}"))),
            }
        }
    }
}

/// Reads the value under `key` of an answer.
pub(crate) fn parse<T: DeserializeOwned>(mut answer: Value, path: &str, key: &str) -> Result<T, Failure> {
    let value = answer.get_mut(key).map(Value::take).unwrap_or_default();
    serde_json::from_value(value).map_err(|error| {
        Failure::new(format!("the node's answer to {path} is not understood: {key}: {error}"))
            .next("bring `holm` and `holmd` to the same release")
    })
}

/// A text as part of a path or query (RFC 3986, section 2.1).
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
