//! The control plane that commands talk to.
//!
//! Which one: `HOLM_CLOUD` (its URL) with `HOLM_TOKEN` and `HOLM_CA` (the file of its root certificate), or else what
//! `holm login` has written to `cloud.toml` in `$XDG_CONFIG_HOME/holm`, which is `~/.config/holm` by default. The root is the
//! only authority that is believed.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use holm_core::ErrorCode;
use holm_protocol::ApiError;
use hyper::{HeaderMap, Method, StatusCode};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_rustls::rustls::RootCertStore;

use crate::client::escape;
use crate::failure::Failure;
use crate::http::Http;

/// For an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The largest answer that is read, in bytes.
const LARGEST: usize = 256 << 20;

/// What `holm login` remembers.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// Such as `https://localhost:8443`.
    pub(crate) url: String,
    /// Of an operator.
    pub(crate) token: String,
    /// The root certificate.
    pub(crate) root_pem: String,
}

/// A control plane.
pub(crate) struct Remote {
    url: String,
    token: String,
    http: Http,
}

impl Profile {
    /// Its file.
    pub(crate) fn path() -> Option<PathBuf> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))?;
        Some(folder.join("holm/cloud.toml"))
    }

    fn find() -> Result<Self, Failure> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let unknown = |what: &str| {
            Failure::new(what)
                .next("run `holm login URL --ca FILE`, or set HOLM_CLOUD, HOLM_TOKEN and HOLM_CA")
                .page(ErrorCode::CloudUnknown)
        };
        if let Some(url) = set("HOLM_CLOUD") {
            let (Some(token), Some(ca)) = (set("HOLM_TOKEN"), set("HOLM_CA")) else {
                return Err(unknown("HOLM_CLOUD is set, but HOLM_TOKEN or HOLM_CA is not"));
            };
            let root_pem = std::fs::read_to_string(&ca)
                .map_err(|error| Failure::new(format!("cannot read HOLM_CA, {ca}: {error}")))?;
            return Ok(Self { url, token, root_pem });
        }
        let path = Self::path().ok_or_else(|| unknown("there is no home folder"))?;
        let text = std::fs::read_to_string(&path).map_err(|error| {
            unknown(&format!("no control plane is known here: cannot read {}: {error}", path.display()))
        })?;
        toml::from_str(&text).map_err(|error| unknown(&format!("{} is not understood: {error}", path.display())))
    }
}

impl Remote {
    /// The one that is known here. Connects only when asked something.
    pub(crate) fn open() -> Result<Self, Failure> {
        Self::of(&Profile::find()?)
    }

    /// One with these.
    pub(crate) fn of(profile: &Profile) -> Result<Self, Failure> {
        let bad = |error: &dyn std::fmt::Display| Failure::new(format!("the root certificate cannot be used: {error}"));
        let root = CertificateDer::from_pem_slice(profile.root_pem.as_bytes()).map_err(|error| bad(&error))?;
        let mut roots = RootCertStore::empty();
        roots.add(root).map_err(|error| bad(&error))?;
        let (url, token) = (profile.url.trim_end_matches('/').to_owned(), profile.token.clone());
        Ok(Self { url, token, http: Http::of_roots(roots)? })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Asks for JSON.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.json(Method::GET, path, Bytes::new()).await
    }

    /// Asks for a file.
    pub(crate) async fn bytes(&self, path: &str) -> Result<Bytes, Failure> {
        self.ask(Method::GET, path, Bytes::new()).await.map(|(_, body)| body)
    }

    /// Sends JSON, and is answered JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.json(Method::POST, path, body.to_string().into()).await
    }

    /// Ends something, and is answered JSON.
    pub(crate) async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.json(Method::DELETE, path, Bytes::new()).await
    }

    /// Sends a file.
    pub(crate) async fn put(&self, path: &str, bytes: Vec<u8>) -> Result<Value, Failure> {
        self.json(Method::PUT, path, bytes.into()).await
    }

    /// Sends JSON as it is written here already, and is answered JSON.
    pub(crate) async fn post_text(&self, path: &str, body: Vec<u8>) -> Result<Value, Failure> {
        self.json(Method::POST, path, body.into()).await
    }

    /// For files that everybody may have.
    pub(crate) fn http(&self) -> &Http {
        &self.http
    }

    /// Asks for a text, which may go on: where.
    pub(crate) async fn text(&self, path: &str) -> Result<(String, Option<String>), Failure> {
        let (head, body) = self.ask(Method::GET, path, Bytes::new()).await?;
        let next = head.get("holm-next").and_then(|next| next.to_str().ok()).filter(|next| !next.is_empty());
        Ok((String::from_utf8_lossy(&body).into_owned(), next.map(str::to_owned)))
    }

    async fn json(&self, method: Method, path: &str, body: Bytes) -> Result<Value, Failure> {
        let (_, body) = self.ask(method, path, body).await?;
        serde_json::from_slice(&body).map_err(|error| {
            Failure::new(format!("the control plane's answer to {path} is not understood: {error}"))
                .next("bring `holm` and the control plane to the same release")
        })
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<(HeaderMap, Bytes), Failure> {
        let url = format!("{}{path}", self.url);
        let asked = self.http.ask((method, &url), Some(&self.token), body, LARGEST, PATIENCE).await;
        let (status, head, body) = asked.map_err(|failure| {
            let failure = failure.next(format!("is the control plane at {} running?", self.url));
            failure.page(ErrorCode::CloudUnreachable)
        })?;
        if status.is_success() {
            return Ok((head, body));
        }
        Err(refused(status, &body))
    }
}

/// What the control plane says of a request that it does not serve.
fn refused(status: StatusCode, body: &[u8]) -> Failure {
    let Ok(error) = ApiError::read(body) else {
        return Failure::new(format!("the control plane answered {status}"));
    };
    let mut text = error.message;
    for problem in error.problems {
        text.push_str("\n  - ");
        text.push_str(&problem);
    }
    let failure = Failure::new(text).page(ErrorCode::CloudRefused);
    match status {
        StatusCode::UNAUTHORIZED => failure.next("run `holm login URL --ca FILE` with a token that is good"),
        _ => failure,
    }
}

/// A path with a query of those values that there are.
pub(crate) fn query(path: &str, values: &[(&str, Option<String>)]) -> String {
    let mut text = path.to_owned();
    let mut mark = '?';
    for (name, value) in values {
        if let Some(value) = value {
            text.push(mark);
            text.push_str(&format!("{name}={}", escape(value)));
            mark = '&';
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::Look;

    #[test]
    fn queries_have_what_there_is() {
        let values = [("a", Some("x y".to_owned())), ("b", None), ("c", Some("1".to_owned()))];
        assert_eq!(query("/v1/x", &values), "/v1/x?a=x%20y&c=1");
        assert_eq!(query("/v1/x", &[]), "/v1/x");
    }

    #[test]
    fn every_problem_is_shown() {
        let body = br#"{"error":{"code":"bad-request","message":"the request is not right","problems":["one","two"]}}"#;
        let failure = refused(StatusCode::BAD_REQUEST, body);
        assert_eq!(
            failure.render(&Look::plain()),
            "holm: the request is not right\n  - one\n  - two\n  more: holm explain cloud-refused\n"
        );
        let failure = refused(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!(failure.render(&Look::plain()), "holm: the control plane answered 502 Bad Gateway\n");
    }
}
