//! How a device gets its certificate, and a new one before that expires: JSON over HTTPS.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `GET /v1/ca` | | [`TrustAnchor`] |
//! | `POST /v1/enrol` | [`EnrolRequest`] | [`Enrolled`] |
//! | `POST /v1/renew` | [`RenewRequest`] | [`Enrolled`] |
//!
//! Whatever fails is answered with a status of 400 or more and an [`ApiError`], in the whole of the API.
//!
//! # How it works
//!
//! A device makes its key itself, and only a certificate request leaves it. A token lets it in once; from then on its own key
//! does: a renewal is signed with the key of the certificate that it replaces, so it needs no TLS client certificate, and one that
//! has expired can still vouch for its successor.
//!
//! A device that knows nothing but the hash of the root certificate fetches the [`TrustAnchor`] without verification, compares
//! [`TrustAnchor::root_pem`]'s DER with the hash, and believes that root from then on.
//!
//! # What is not here
//!
//! Parsing certificates, requests and keys. These are texts of bounded length; who signs and who checks is the reader's business.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::code::codes;
use crate::error::{bounded, excerpt};
use crate::limits::{
    MAX_BUILD_WORD, MAX_CERTIFICATES_PEM, MAX_CSR_PEM, MAX_GROUPS, MAX_PROBLEMS, MAX_SIGNATURE_BYTES, MAX_TOKEN,
    MAX_URL,
};
use crate::wire::{from_json, to_json};
use crate::{GroupName, ProtocolError, ThingName};

/// What a device runs on: which native code is made for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentBuild {
    /// The agent's version.
    pub version: String,
    /// The processor, in Rust's word: `aarch64`, `x86_64`, `arm`.
    pub arch: String,
    /// The full version of the engine that runs functions.
    pub engine: String,
    /// The name of the engine profile.
    pub profile: String,
}

/// What a program begins to say its build with: `holm-agent-build 0.2.0 aarch64 48.0.8 a64-small-v1`, and a line feed.
pub const BUILD_MARK: &str = "holm-agent-build ";

/// `GET /v1/ca`: the root that signs everything of this control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustAnchor {
    /// One certificate.
    pub root_pem: String,
}

/// `POST /v1/enrol`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolRequest {
    /// Good for one enrolment.
    pub token: String,
    /// PKCS#10, P-256, signed with its own key. Its subject is not looked at.
    pub csr_pem: String,
    /// The name that the device would like; none, or `null`, leaves it to the control plane.
    #[serde(default)]
    pub thing: Option<ThingName>,
    /// What it runs on.
    pub agent: AgentBuild,
}

/// `POST /v1/renew`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// For a new key.
    pub csr_pem: String,
    /// The certificate that the device has now. More after it is not looked at.
    pub certificate_pem: String,
    /// By the key of that certificate: ECDSA with P-256 and SHA-256 in ASN.1, over the bytes of `csr_pem`. Base64 on the wire.
    #[serde(serialize_with = "write_base64", deserialize_with = "read_base64")]
    pub signature: Vec<u8>,
    /// What the device runs on, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentBuild>,
}

/// Where to speak MQTT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MqttAddress {
    /// A name or an address that the server's certificate has.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// Where what may run comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TufAddress {
    /// A URL that ends with a slash.
    pub metadata_url: String,
    /// A URL that ends with a slash.
    pub targets_url: String,
    /// The repository's `root.json` as it is, to begin with; `null` if there is no repository yet.
    #[serde(default)]
    pub root_json: Option<Box<RawValue>>,
}

/// The answer to both requests: all that a device has to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Enrolled {
    /// Its name from now on: the common name of the certificate, and the client id.
    pub thing: ThingName,
    /// At most [`MAX_GROUPS`].
    pub groups: Vec<GroupName>,
    /// Its certificate, followed by the one that issued it.
    pub certificate_pem: String,
    /// The root.
    pub root_pem: String,
    /// Where to connect.
    pub mqtt: MqttAddress,
    /// Where to fetch from.
    pub tuf: TufAddress,
}

codes! {
    /// Why the API refused something.
    ApiErrorCode {
        /// The request cannot be read, or asks for something that cannot be: the problems tell.
        BadRequest = "bad-request",
        /// There is no valid credential with it.
        Unauthorized = "unauthorized",
        /// The credential does not allow this.
        Forbidden = "forbidden",
        /// There is no such thing.
        NotFound = "not-found",
        /// The path is there, but not with this method.
        MethodNotAllowed = "method-not-allowed",
        /// It is as it is already, or somebody else was faster.
        Conflict = "conflict",
        /// The request is longer than allowed.
        TooLarge = "too-large",
        /// Too many requests.
        Throttled = "throttled",
        /// The control plane is ending, or its disk is behind.
        Unavailable = "unavailable",
        /// Something is wrong at the control plane.
        Internal = "internal",
        /// No such enrolment token was made here.
        TokenUnknown = "token-unknown",
        /// The enrolment token was used before.
        TokenUsed = "token-used",
        /// The enrolment token is too old.
        TokenExpired = "token-expired",
        /// Another device has that name.
        ThingTaken = "thing-taken",
        /// The certificate request is not one that is signed here.
        CsrRefused = "csr-refused",
        /// The certificate was not issued here.
        CertificateUnknown = "certificate-unknown",
        /// The certificate was revoked or replaced.
        CertificateRevoked = "certificate-revoked",
        /// The certificate expired too long ago: enrol anew.
        CertificateExpired = "certificate-expired",
        /// The renewal is not signed with the certificate's key.
        SignatureWrong = "signature-wrong",
    }
}

impl ApiErrorCode {
    /// Whether the same request may be answered otherwise later. Unknown codes count as worth another try, which the caller's
    /// capped delays bound.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Throttled | Self::Unavailable | Self::Internal | Self::Unknown(_))
    }
}

/// The body of every answer with a status of 400 or more: `{"error": {...}}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// For the program.
    pub code: ApiErrorCode,
    /// For people: one sentence.
    pub message: String,
    /// Everything that is wrong, one sentence each; empty where the message says it all.
    pub problems: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct WireError {
    code: ApiErrorCode,
    message: String,
    #[serde(default)]
    problems: Vec<String>,
}

impl ApiError {
    /// With no list of problems.
    pub fn new(code: ApiErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), problems: Vec::new() }
    }

    /// The same with a list of problems, cut to [`MAX_PROBLEMS`].
    #[must_use]
    pub fn with_problems(mut self, mut problems: Vec<String>) -> Self {
        if problems.len() > MAX_PROBLEMS {
            let more = problems.len() - (MAX_PROBLEMS - 1);
            problems.truncate(MAX_PROBLEMS - 1);
            problems.push(format!("and {more} more"));
        }
        self.problems = problems;
        self
    }
}

impl Serialize for ApiError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Outer {
            error: WireError,
        }
        let Self { code, message, problems } = self.clone();
        Outer { error: WireError { code, message, problems } }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ApiError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Outer {
            error: WireError,
        }
        let WireError { code, message, problems } = Outer::deserialize(deserializer)?.error;
        Ok(Self { code, message, problems })
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for ApiError {}

// The token is a secret: it must not get into a log by way of `{:?}`.
impl std::fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { token: _, csr_pem: _, thing, agent } = self;
        f.debug_struct("EnrolRequest").field("thing", thing).field("agent", agent).finish_non_exhaustive()
    }
}

macro_rules! body {
    ($type:ident, $what:literal) => {
        impl $type {
            /// From the body of a request or an answer. Fails on what is not of this shape or out of bounds.
            pub fn read(body: &[u8]) -> Result<Self, ProtocolError> {
                let value: Self = from_json($what, body)?;
                value.check()?;
                Ok(value)
            }

            /// The body of a request or an answer.
            pub fn write(&self) -> Result<Vec<u8>, ProtocolError> {
                self.check()?;
                to_json($what, self)
            }
        }
    };
}
body!(TrustAnchor, "the answer with the root certificate");
body!(EnrolRequest, "the request to enrol");
body!(RenewRequest, "the request for a new certificate");
body!(Enrolled, "the answer to an enrolment");
body!(ApiError, "the error");

impl TrustAnchor {
    fn check(&self) -> Result<(), ProtocolError> {
        certificates(&self.root_pem)
    }
}

impl EnrolRequest {
    fn check(&self) -> Result<(), ProtocolError> {
        bounded("the token, in bytes,", self.token.len(), MAX_TOKEN)?;
        bounded("the certificate request, in bytes,", self.csr_pem.len(), MAX_CSR_PEM)?;
        self.agent.check()
    }
}

impl RenewRequest {
    fn check(&self) -> Result<(), ProtocolError> {
        bounded("the certificate request, in bytes,", self.csr_pem.len(), MAX_CSR_PEM)?;
        certificates(&self.certificate_pem)?;
        bounded("the signature, in bytes,", self.signature.len(), MAX_SIGNATURE_BYTES)?;
        self.agent.as_ref().map_or(Ok(()), AgentBuild::check)
    }
}

impl Enrolled {
    fn check(&self) -> Result<(), ProtocolError> {
        bounded("the number of groups", self.groups.len(), MAX_GROUPS)?;
        certificates(&self.certificate_pem)?;
        certificates(&self.root_pem)?;
        for address in [&self.mqtt.host, &self.tuf.metadata_url, &self.tuf.targets_url] {
            bounded("an address, in bytes,", address.len(), MAX_URL)?;
        }
        Ok(())
    }
}

impl ApiError {
    fn check(&self) -> Result<(), ProtocolError> {
        bounded("the number of problems", self.problems.len(), MAX_PROBLEMS)
    }
}

impl AgentBuild {
    /// What a program for whichever processor says about itself; `None` if it is no agent.
    pub fn in_program(program: &[u8]) -> Option<Self> {
        let mut marks = memmem::find_iter(program, BUILD_MARK);
        // The mark by itself is in the programs that look for it.
        marks.find_map(|at| Self::said(program.get(at + BUILD_MARK.len()..)?))
    }

    fn said(rest: &[u8]) -> Option<Self> {
        let end = rest.iter().take(4 * (MAX_BUILD_WORD + 1)).position(|byte| *byte == b'\n')?;
        let mut words = std::str::from_utf8(rest.get(..end)?).ok()?.split(' ').map(str::to_owned);
        let (version, arch, engine, profile) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let build = Self { version, arch, engine, profile };
        (words.next().is_none() && build.check().is_ok()).then_some(build)
    }

    pub(crate) fn check(&self) -> Result<(), ProtocolError> {
        for word in [&self.version, &self.arch, &self.engine, &self.profile] {
            if !(1..=MAX_BUILD_WORD).contains(&word.len()) || !word.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(ProtocolError::Name {
                    what: "word about an agent's build",
                    text: excerpt(word),
                    rule: "1 to 64 of the printable ASCII characters other than space",
                });
            }
        }
        Ok(())
    }
}

fn certificates(pem: &str) -> Result<(), ProtocolError> {
    bounded("the certificates, in bytes,", pem.len(), MAX_CERTIFICATES_PEM)
}

fn write_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn read_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    STANDARD.decode(text.as_bytes()).map_err(|_| serde::de::Error::custom("this is not base64"))
}
