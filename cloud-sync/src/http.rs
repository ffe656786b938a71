//! HTTPS, one request on one connection: for enrolment and renewal, and for files of the repository.
//!
//! No redirects, no compression, no proxies: the other side is our own control plane. Everything has a bound: the answer in bytes,
//! and the whole exchange in time.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use holm_mqtt::{Counted, Traffic};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::SyncError;
use crate::error::chain;

/// The whole of an exchange, from the name server to the last byte.
const DEADLINE: Duration = Duration::from_secs(30);

/// Bytes of an answer.
const MAX_ANSWER: usize = 256 << 10;

/// Where the control plane's API is: `https://host[:port][/path]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudUrl {
    host: String,
    port: u16,
    /// Begins with a slash where it is not empty, and never ends with one.
    base: String,
}

impl CloudUrl {
    /// From its text.
    pub fn parse(text: &str) -> Result<Self, SyncError> {
        let wrong = |problem: &str| SyncError::Given {
            what: "the control plane's URL",
            problem: format!("`{text}` {problem}"),
        };
        let rest = text.strip_prefix("https://").ok_or_else(|| wrong("does not begin with https://"))?;
        let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
        if text.contains(['?', '#', '@', ' ']) {
            return Err(wrong("is more than a host, a port and a path"));
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(|| wrong("has no `]` after its address"))?;
                (host, rest.strip_prefix(':').or(rest.is_empty().then_some("")))
            }
            None => authority.split_once(':').map_or((authority, Some("")), |(host, port)| (host, Some(port))),
        };
        let port = match port {
            Some("") => 443,
            Some(port) => port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| wrong("has no port"))?,
            None => return Err(wrong("has no port")),
        };
        ServerName::try_from(host).map_err(|_| wrong("has no host"))?;
        let path = path.trim_end_matches('/');
        let base = if path.is_empty() { String::new() } else { format!("/{path}") };
        Ok(Self { host: host.to_owned(), port, base })
    }

    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 443 { host } else { format!("{host}:{}", self.port) }
    }
}

impl std::fmt::Display for CloudUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "https://{}{}", self.authority(), self.base)
    }
}

/// What the server said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

/// GET without a body, POST of JSON with one. Cancel safe: the connection goes with it.
pub(crate) async fn exchange(
    url: &CloudUrl,
    path: &str,
    body: Option<Vec<u8>>,
    tls: Arc<ClientConfig>,
    traffic: &Arc<Traffic>,
) -> Result<Answer, SyncError> {
    let failed = |problem: String| SyncError::Http { url: format!("{url}{path}"), problem };
    match tokio::time::timeout(DEADLINE, attempt(url, path, body, tls, traffic)).await {
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(failed(format!("no answer within {} s", DEADLINE.as_secs()))),
    }
}

/// What a file of the repository turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum File {
    /// All of it.
    Found(Vec<u8>),
    /// The server has no such file.
    Missing,
    /// There was more than was asked for.
    TooLong,
}

/// GET of a file that is small enough for memory. Cancel safe.
pub(crate) async fn file(
    url: &CloudUrl,
    path: &str,
    most: u64,
    tls: Arc<ClientConfig>,
    traffic: &Arc<Traffic>,
) -> Result<File, SyncError> {
    let failed = |problem: String| SyncError::Http { url: format!("{url}{path}"), problem };
    let whole = async {
        let mut body = begin(url, path, None, None, tls, Counted::fetching, traffic).await?;
        match body.status {
            200 => {}
            403 | 404 => return Ok(File::Missing),
            status => return Err(format!("it answered with status {status}")),
        }
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await? {
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > most {
                return Ok(File::TooLong);
            }
        }
        Ok(File::Found(bytes))
    };
    match tokio::time::timeout(DEADLINE, whole).await {
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(failed(format!("no answer within {} s", DEADLINE.as_secs()))),
    }
}

/// GET of a file from a byte on, whose pieces come with [`Download::next`]. Cancel safe.
pub(crate) async fn download(
    url: &CloudUrl,
    path: &str,
    from: u64,
    tls: Arc<ClientConfig>,
    traffic: &Arc<Traffic>,
) -> Result<Download, SyncError> {
    let failed = |problem: String| SyncError::Http { url: format!("{url}{path}"), problem };
    match tokio::time::timeout(DEADLINE, begin(url, path, Some(from), None, tls, Counted::fetching, traffic)).await {
        Ok(begun) => begun.map_err(failed),
        Err(_) => Err(failed(format!("no answer within {} s", DEADLINE.as_secs()))),
    }
}

/// An answer whose body is on its way.
pub(crate) struct Download {
    pub(crate) status: u16,
    /// The first byte that comes, where the server says so.
    pub(crate) from: Option<u64>,
    url: String,
    body: Incoming,
    connection: Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>,
    ended: bool,
}

impl Download {
    /// The next piece; `None` at the end. Fails when nothing comes for a while. Cancel safe.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, SyncError> {
        let problem = match tokio::time::timeout(DEADLINE, self.next()).await {
            Ok(Ok(piece)) => return Ok(piece),
            Ok(Err(problem)) => problem,
            Err(_) => format!("nothing came for {} s", DEADLINE.as_secs()),
        };
        Err(SyncError::Http { url: self.url.clone(), problem })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let frame = if self.ended {
                self.body.frame().await
            } else {
                tokio::select! {
                    frame = self.body.frame() => frame,
                    // It ends first where the server closes after its answer.
                    ended = &mut self.connection => {
                        self.ended = true;
                        ended.map_err(|error| chain(&error))?;
                        continue;
                    }
                }
            };
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(format!("the answer broke off: {}", chain(&error))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

async fn attempt(
    url: &CloudUrl,
    path: &str,
    body: Option<Vec<u8>>,
    tls: Arc<ClientConfig>,
    traffic: &Arc<Traffic>,
) -> Result<Answer, String> {
    let mut answer = begin(url, path, None, body, tls, Counted::new, traffic).await?;
    let mut bytes = BytesMut::new();
    while let Some(piece) = answer.next().await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > MAX_ANSWER {
            return Err(format!("the answer is longer than {MAX_ANSWER} bytes"));
        }
    }
    Ok(Answer { status: answer.status, body: bytes.freeze() })
}

/// Sends a request, and waits for the head of its answer.
async fn begin(
    url: &CloudUrl,
    path: &str,
    from: Option<u64>,
    body: Option<Vec<u8>>,
    tls: Arc<ClientConfig>,
    counted: fn(TcpStream, Arc<Traffic>) -> Counted<TcpStream>,
    traffic: &Arc<Traffic>,
) -> Result<Download, String> {
    let name = ServerName::try_from(url.host.clone()).map_err(|error| error.to_string())?;
    let tcp = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(|error| chain(&error))?;
    let tcp = counted(tcp, traffic.clone());
    let stream = TlsConnector::from(tls).connect(name, tcp).await.map_err(|error| chain(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| chain(&error))?;
    let method = if body.is_some() { "POST" } else { "GET" };
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{}{path}", url.base))
        .header("host", url.authority())
        .header("user-agent", concat!("holmd/", env!("CARGO_PKG_VERSION")))
        .header("connection", "close");
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    if let Some(from) = from.filter(|from| *from > 0) {
        request = request.header("range", format!("bytes={from}-"));
    }
    let request = request.body(Full::new(Bytes::from(body.unwrap_or_default()))).map_err(|error| chain(&error))?;
    let mut connection: Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>> = Box::pin(connection);
    let mut ended = false;
    let mut answer = std::pin::pin!(sender.send_request(request));
    let response = tokio::select! {
        answer = &mut answer => answer,
        closed = &mut connection => {
            ended = true;
            closed.map_err(|error| chain(&error))?;
            answer.await
        }
    };
    let response = response.map_err(|error| chain(&error))?;
    // RFC 9110, section 14.4: `bytes 0-499/1234`.
    let range = response.headers().get("content-range").and_then(|value| value.to_str().ok());
    let from = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok());
    let status = response.status().as_u16();
    Ok(Download { status, from, url: format!("{url}{path}"), body: response.into_body(), connection, ended })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn urls_are_a_host_a_port_and_a_path() {
        for (text, shown, host, port) in [
            ("https://cloud", "https://cloud", "cloud", 443),
            ("https://cloud.lan:8443/", "https://cloud.lan:8443", "cloud.lan", 8443),
            ("https://10.0.0.7:8443/holm/", "https://10.0.0.7:8443/holm", "10.0.0.7", 8443),
            ("https://[::1]:8443", "https://[::1]:8443", "::1", 8443),
            ("https://[::1]", "https://[::1]", "::1", 443),
        ] {
            let url = CloudUrl::parse(text).unwrap();
            assert_eq!((url.to_string().as_str(), url.host.as_str(), url.port), (shown, host, port));
        }
        let wrong = [
            "",
            "cloud",
            "http://cloud",
            "https://",
            "https://:1",
            "https://a:0",
            "https://a:x",
            "https://a b",
            "https://u@a",
            "https://a?x",
            "https://[::1",
            "https://[::1]x",
            "https://::1",
        ];
        for text in wrong {
            assert!(CloudUrl::parse(text).is_err(), "{text}");
        }
    }
}
