//! HTTP and HTTPS, with a cap on bytes and a deadline: GET for files that are checked by whoever asked for them, and whole
//! exchanges with an API.
//!
//! A connection per request, no redirects, no compression. For HTTPS the certificates of the caller's authorities are believed and no
//! others: there is no list of the world's authorities in here.
//!
//! What goes wrong on the way is a [`Failure`]. That the server has no such file, or a longer one than allowed, is an answer, for it
//! may be what was expected.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::client::conn::http1;
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::client::escape;
use crate::failure::Failure;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Got {
    /// The whole file was handed over.
    All,
    /// The server has no such file, or does not give it: 403 or 404.
    Missing,
    /// It was longer than allowed. What was handed over is the beginning of it.
    TooLong,
}

/// Asks servers for files.
pub(crate) struct Http {
    tls: TlsConnector,
}

impl Http {
    /// Believes the authorities in these PEM files, for HTTPS. Without any there is only HTTP.
    pub(crate) fn new(authorities: &[&Path]) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        for path in authorities {
            let unreadable = |why: &dyn std::fmt::Display| {
                Failure::new(format!("cannot read certificates from {}: {why}", path.display()))
            };
            let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| unreadable(&error))?;
                roots.add(certificate).map_err(|error| unreadable(&error))?;
            }
        }
        Self::of_roots(roots)
    }

    /// Believes these authorities.
    pub(crate) fn of_roots(roots: RootCertStore) -> Result<Self, Failure> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::new(format!("cannot set up TLS: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Fetches a file of at most `limit` bytes within `deadline`, and hands its pieces to `piece` as they come. An error of `piece`
    /// ends the request and is returned.
    pub(crate) async fn get(
        &self,
        url: &str,
        limit: u64,
        deadline: Duration,
        piece: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<Got, Failure> {
        let late = |_| Failure::new(format!("{url} was not answered in full within {} seconds", deadline.as_secs()));
        timeout(deadline, self.exchange(url, limit, piece)).await.map_err(late)?
    }

    /// Fetches a whole file of at most `limit` bytes; what came of it is to be believed only with [`Got::All`].
    pub(crate) async fn bytes(&self, url: &str, limit: u64, deadline: Duration) -> Result<(Got, Vec<u8>), Failure> {
        let mut bytes = Vec::new();
        let got = self.get(url, limit, deadline, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        });
        Ok((got.await?, bytes))
    }

    /// Asks an API: sends `body`, with a bearer token, and answers the status, the head and at most `limit` bytes of the body.
    pub(crate) async fn ask(
        &self,
        (method, url): (Method, &str),
        token: Option<&str>,
        body: Bytes,
        limit: usize,
        deadline: Duration,
    ) -> Result<(StatusCode, HeaderMap, Bytes), Failure> {
        let late = |_| Failure::new(format!("{url} was not answered in full within {} seconds", deadline.as_secs()));
        timeout(deadline, self.converse((method, url), token, body, limit)).await.map_err(late)?
    }

    #[expect(clippy::disallowed_methods, reason = "ends with the connection that this call opens")]
    async fn converse(
        &self,
        (method, url): (Method, &str),
        token: Option<&str>,
        body: Bytes,
        limit: usize,
    ) -> Result<(StatusCode, HeaderMap, Bytes), Failure> {
        let broken = |why: &dyn std::fmt::Display| Failure::new(format!("cannot ask {url}: {why}"));
        let target = Target::parse(url)?;
        let io = TokioIo::new(self.connect(&target).await.map_err(|error| broken(&error))?);
        let (mut sender, connection) = http1::handshake(io).await.map_err(|error| broken(&error))?;
        // Ends with its connection: when the answer was read, or when the runtime goes.
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(target.path)
            .header("host", target.authority)
            .header("connection", "close");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body)).map_err(|error| broken(&error))?;
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let (head, body) = response.into_parts();
        let body = http_body_util::Limited::new(body, limit).collect().await.map_err(|error| broken(&error))?;
        Ok((head.status, head.headers, body.to_bytes()))
    }

    #[expect(clippy::disallowed_methods, reason = "ends with the connection that this call opens")]
    async fn exchange(
        &self,
        url: &str,
        limit: u64,
        mut piece: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<Got, Failure> {
        let broken = |why: &dyn std::fmt::Display| Failure::new(format!("cannot get {url}: {why}"));
        let target = Target::parse(url)?;
        let io = TokioIo::new(self.connect(&target).await.map_err(|error| broken(&error))?);
        let (mut sender, connection) = http1::handshake(io).await.map_err(|error| broken(&error))?;
        // Ends with its connection: when the answer was read, or when the runtime goes.
        tokio::spawn(connection);
        let request = Request::get(target.path)
            .header("host", target.authority)
            .header("connection", "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| broken(&error))?;
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => return Ok(Got::Missing),
            status => return Err(broken(&format_args!("the server answered {status}"))),
        }
        let mut body = response.into_body();
        let mut left = limit;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken(&error))?;
            let Some(data) = frame.data_ref() else { continue };
            let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
            let Some(rest) = left.checked_sub(length) else { return Ok(Got::TooLong) };
            left = rest;
            piece(data)?;
        }
        Ok(Got::All)
    }

    async fn connect(&self, target: &Target) -> std::io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
        stream.set_nodelay(true)?;
        if !target.tls {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(target.host.clone()).map_err(std::io::Error::other)?;
        Ok(Box::new(self.tls.connect(name, stream).await?))
    }
}

/// A byte stream, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Whom to connect to, and what to ask there.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    tls: bool,
    /// Without the brackets of IPv6.
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Target {
    fn parse(url: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| {
            Failure::new(format!("`{url}` is not an address: {why}")).next("it is `http://HOST[:PORT]/PATH`, or https")
        };
        let uri: Uri = url.parse().map_err(|error: hyper::http::uri::InvalidUri| wrong(&error.to_string()))?;
        let (tls, port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(wrong("neither http nor https")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(wrong("a user, or no host"));
        }
        Ok(Self {
            tls,
            host: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: authority.port_u16().unwrap_or(port),
            authority: authority.to_string(),
            path: uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        })
    }
}

/// The address of a file below a folder's address. Each part of its path is escaped.
pub(crate) fn below(folder: &str, path: &str) -> String {
    let parts: Vec<String> = path.split('/').map(escape).collect();
    format!("{}/{}", folder.trim_end_matches('/'), parts.join("/"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn reads_addresses() {
        let target = |tls, host: &str, port, authority: &str, path: &str| {
            let (host, authority, path) = (host.to_owned(), authority.to_owned(), path.to_owned());
            Some(Target { tls, host, port, authority, path })
        };
        for (url, expected) in [
            ("http://localhost/a?b", target(false, "localhost", 80, "localhost", "/a?b")),
            ("https://[::1]:8443/a/", target(true, "::1", 8443, "[::1]:8443", "/a/")),
            ("https://hub.example", target(true, "hub.example", 443, "hub.example", "/")),
            ("ftp://hub.example/", None),
            ("/only/a/path", None),
            ("http://user@hub.example/", None),
            ("http://hub example/", None),
            ("", None),
        ] {
            assert_eq!(Target::parse(url).ok(), expected, "{url}");
        }
        assert_eq!(below("http://h/targets/", "a b/../c?.holm"), "http://h/targets/a%20b/../c%3F.holm");
    }

    /// A server for one request, which it answers with these bytes and ends; without any it never does.
    async fn serve(answer: Vec<u8>) -> (String, tokio::task::JoinHandle<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            if answer.is_empty() {
                std::future::pending::<()>().await;
            }
            // The client may go before it has read all.
            let _ = stream.write_all(&answer).await;
        });
        (format!("http://{address}/f"), served)
    }

    #[tokio::test]
    async fn reads_no_further_than_it_may() {
        let head = "HTTP/1.1 200 OK\r\n";
        let told = |length: usize| format!("{head}content-length: {length}\r\n\r\n{}", "x".repeat(length)).into_bytes();
        let chunks = |count: usize| {
            format!("{head}transfer-encoding: chunked\r\n\r\n{}0\r\n\r\n", "4\r\nxxxx\r\n".repeat(count)).into_bytes()
        };
        let status = |line: &str| format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n").into_bytes();
        let cases = [
            (told(10), Some((Got::All, 10))),
            (told(0), Some((Got::All, 0))),
            (told(11), Some((Got::TooLong, 0))),
            (chunks(2), Some((Got::All, 8))),
            (chunks(1000), Some((Got::TooLong, 8))),
            (format!("{head}content-length: 5\r\n\r\nxx").into_bytes(), None),
            (status("404 Not Found"), Some((Got::Missing, 0))),
            (status("403 Forbidden"), Some((Got::Missing, 0))),
            (status("500 Oh"), None),
            (status("302 Found"), None),
            (b"220 smtp".to_vec(), None),
            (Vec::new(), None),
        ];
        let set = tokio::task::LocalSet::new();
        let run = async {
            for (answer, expected) in cases {
                let shown = String::from_utf8_lossy(&answer).chars().take(60).collect::<String>();
                let (url, served) = serve(answer).await;
                let http = Http::new(&[]).unwrap();
                let patience = Duration::from_millis(if shown.is_empty() { 50 } else { 20_000 });
                let got = http.bytes(&url, 10, patience).await;
                assert_eq!(got.ok().map(|(got, bytes)| (got, bytes.len())), expected, "{shown}");
                served.abort();
            }
        };
        set.run_until(run).await;
    }

    #[tokio::test]
    async fn believes_the_authorities_it_was_given_and_no_others() {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.crt");
        std::fs::write(&ca, cert.pem()).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let set = tokio::task::LocalSet::new();
        set.spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = [0; 1024];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
                let _ = stream.shutdown().await;
            }
        });
        let run = async {
            let ask = async |authorities: &[&Path], host: &str| {
                let http = Http::new(authorities).unwrap();
                http.bytes(&format!("https://{host}:{port}/"), 10, Duration::from_secs(20)).await.ok()
            };
            assert_eq!(ask(&[&ca], "localhost").await, Some((Got::All, b"hi".to_vec())));
            assert_eq!(ask(&[], "localhost").await, None, "nobody vouches for it");
            assert_eq!(ask(&[&ca], "127.0.0.1").await, None, "it is somebody else's certificate");
        };
        set.run_until(run).await;
        assert!(Http::new(&[&folder.path().join("nothing")]).is_err());
    }
}
