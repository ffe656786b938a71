//! Enrolment and renewal: a key made here, a request up, a certificate down.
//!
//! # How it works
//!
//! The operator gives a URL, a token and the hash of the control plane's root certificate. The root is fetched without trust,
//! its hash compared, and from then on it is the only one that is believed. The token travels only over a connection to a server that
//! the root vouches for.
//!
//! # How it fails
//!
//! With the control plane's words, and nothing changed. Enrolling once more is harmless: a device that is enrolled there does
//! nothing, and one that was cut off asks again with the same key.

use std::path::Path;
use std::sync::Arc;

use holm_core::{Document, Problems};
use holm_mqtt::Traffic;
use holm_protocol::{AgentBuild, ApiError, EnrolRequest, Enrolled, RenewRequest, ThingName, TrustAnchor};

use crate::http::{self, Answer};
use crate::identity::{Identity, IdentityFolder, root};
use crate::time::Time;
use crate::{CloudUrl, SyncError, tls};

/// The file in the data folder that a card is seeded with.
pub const SEED: &str = "enrol.toml";

/// What an operator gives, by arguments or by a seed.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Where.
    pub url: CloudUrl,
    /// Lets one device in, once.
    pub token: String,
    /// SHA-256 of the root certificate.
    pub ca_hash: [u8; 32],
    /// The name it would like.
    pub thing: Option<ThingName>,
}

// The token must not get into a log.
impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invitation").field("url", &self.url).field("thing", &self.thing).finish_non_exhaustive()
    }
}

impl Invitation {
    /// Checks all parts, and lists all that are wrong.
    pub fn new(url: &str, token: &str, ca_hash: &str, thing: Option<&str>) -> Result<Self, Vec<SyncError>> {
        let mut problems = Vec::new();
        let mut note = |error| problems.push(error);
        let url = CloudUrl::parse(url).map_err(&mut note).ok();
        let ca_hash = parse_hash(ca_hash).map_err(&mut note).ok();
        let wrong_name = |error: holm_protocol::ProtocolError| SyncError::Given {
            what: "the thing name",
            problem: error.to_string(),
        };
        let thing = thing.map(|name| ThingName::new(name).map_err(wrong_name).map_err(&mut note).ok());
        if token.is_empty() || token.chars().any(|c| c.is_whitespace() || c.is_control()) {
            note(SyncError::Given { what: "the token", problem: "it is empty, or has spaces".into() });
        }
        match (url, ca_hash, thing) {
            (Some(url), Some(ca_hash), thing) if problems.is_empty() => {
                Ok(Self { url, token: token.to_owned(), ca_hash, thing: thing.flatten() })
            }
            _ => Err(problems),
        }
    }

    /// From the seed in a data folder, if there is one.
    pub fn seed(data: &Path) -> Result<Option<Self>, SyncError> {
        let path = data.join(SEED);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(SyncError::File { action: "read", path, source }),
        };
        let origin = path.display().to_string();
        parse_seed(&origin, &text)
            .map(Some)
            .map_err(|problems| SyncError::Damaged { path, problem: problems.to_string() })
    }

    /// The seed has done its work: the token in it is worth nothing any more, and is removed with it.
    pub fn remove_seed(data: &Path) {
        let path = data.join(SEED);
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "the seed of the enrolment cannot be removed");
        }
    }
}

fn parse_seed(origin: &str, text: &str) -> Result<Invitation, Problems> {
    let (document, mut section) = Document::parse(origin, text)?;
    let url = section.require("cloud", CloudUrl::parse);
    let token = section.require("token", |text| match text {
        "" => Err("it is empty"),
        text => Ok(text.to_owned()),
    });
    let ca_hash = section.require("ca_hash", parse_hash);
    let thing = section.parse("thing", ThingName::new);
    drop(section);
    document.finish()?;
    match (url, token, ca_hash) {
        (Some(url), Some(token), Some(ca_hash)) => Ok(Invitation { url, token, ca_hash, thing }),
        // A missing key is a problem, and was reported.
        _ => Err(Problems { origin: origin.to_owned(), problems: Vec::new() }),
    }
}

/// Hexadecimal, with or without colons and `sha256:` before it.
fn parse_hash(text: &str) -> Result<[u8; 32], SyncError> {
    let wrong = || SyncError::Given {
        what: "the hash of the root certificate",
        problem: format!("`{text}` is not a SHA-256 in hexadecimal: 64 of 0-9 and a-f"),
    };
    let digits: String = text.strip_prefix("sha256:").unwrap_or(text).chars().filter(|c| *c != ':').collect();
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let mut hash = [0; 32];
    for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
        *byte = digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(wrong)?;
    }
    Ok(hash)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What all requests need.
#[derive(Clone)]
pub struct Requester {
    /// Where the identity is kept.
    pub folder: IdentityFolder,
    /// What this device runs on.
    pub agent: AgentBuild,
    /// The time by which servers are judged.
    pub time: Arc<Time>,
    /// Counts what goes over the wire.
    pub traffic: Arc<Traffic>,
}

impl Requester {
    /// Enrols the device, or finds that it is. With `anew`, one that is gets another certificate, for a new key, on the word of the
    /// invitation alone: the one that it has may be revoked, or have ended too long ago. It is kept beside that until it has proved itself.
    pub async fn enrol(&self, invitation: &Invitation, anew: bool) -> Result<Identity, SyncError> {
        let current = match self.folder.current()? {
            Some(identity) if identity.url != invitation.url => {
                return Err(SyncError::Enrolled {
                    url: identity.url.to_string(),
                    thing: identity.thing().to_string(),
                    folder: self.folder.path().to_owned(),
                });
            }
            Some(identity) if !anew => return Ok(identity),
            current => current,
        };
        if let (Some(wanted), Some(current)) = (&invitation.thing, &current)
            && wanted != current.thing()
        {
            // Before the token is used up, and a device that nobody has comes into the fleet.
            let problem =
                format!("this device is {}, and gets another certificate under no other name", current.thing());
            return Err(SyncError::Given { what: "the thing name", problem });
        }
        let thing = invitation.thing.as_ref().or(current.as_ref().map(Identity::thing));
        let url = &invitation.url;
        let anchor = http::exchange(url, "/v1/ca", None, tls::unverified(&self.time)?, &self.traffic).await?;
        let anchor = TrustAnchor::read(&accepted(anchor)?)?;
        let trusted = root(&anchor.root_pem)?;
        let found = ring::digest::digest(&ring::digest::SHA256, &trusted);
        if found.as_ref() != invitation.ca_hash {
            return Err(SyncError::WrongRoot { found: hex(found.as_ref()), expected: hex(&invitation.ca_hash) });
        }
        let key = self.folder.pending()?;
        // The control plane gives the name; the request has to have some.
        let csr_pem = key.request(thing.map_or("device", ThingName::as_str))?;
        let request =
            EnrolRequest { token: invitation.token.clone(), csr_pem, thing: thing.cloned(), agent: self.agent.clone() };
        let config = tls::config(&trusted, None, &self.time)?;
        let answer = http::exchange(url, "/v1/enrol", Some(request.write()?), config, &self.traffic).await?;
        let enrolled = Enrolled::read(&accepted(answer)?)?;
        let identity = Identity::new(url.clone(), enrolled, key)?;
        if *identity.root() != trusted {
            let found = ring::digest::digest(&ring::digest::SHA256, identity.root());
            return Err(SyncError::WrongRoot { found: hex(found.as_ref()), expected: hex(&invitation.ca_hash) });
        }
        // What cannot be used must not be kept.
        tls::config(identity.root(), Some(identity.credentials()), &self.time)?;
        match &current {
            None => self.folder.keep(&identity)?,
            Some(current) => {
                goes_on(current, &identity)?;
                self.folder.keep_next(&identity)?;
            }
        }
        Ok(identity)
    }

    /// Gets the next certificate, for a new key, on the word of the current one, which may have expired. It is kept beside the
    /// current one until it has proved itself.
    pub async fn renew(&self, current: &Identity) -> Result<Identity, SyncError> {
        let key = self.folder.pending()?;
        let csr_pem = key.request(current.thing().as_str())?;
        let request = RenewRequest {
            signature: current.sign(csr_pem.as_bytes())?,
            csr_pem,
            certificate_pem: current.enrolled.certificate_pem.clone(),
            agent: Some(self.agent.clone()),
        };
        let config = tls::config(current.root(), None, &self.time)?;
        let answer = http::exchange(&current.url, "/v1/renew", Some(request.write()?), config, &self.traffic).await?;
        let enrolled = Enrolled::read(&accepted(answer)?)?;
        let next = Identity::new(current.url.clone(), enrolled, key)?;
        // The old certificate vouches for the device, and not for another authority.
        goes_on(current, &next)?;
        tls::config(next.root(), Some(next.credentials()), &self.time)?;
        self.folder.keep_next(&next)?;
        Ok(next)
    }
}

/// Whether an identity is of the same device, and of the same authority, as the one that it shall take the place of.
fn goes_on(current: &Identity, next: &Identity) -> Result<(), SyncError> {
    let wrong = |what, problem| Err(SyncError::Certificate { what, problem });
    if next.thing() != current.thing() {
        let problem = format!("it is for {}, and this device is {}", next.thing(), current.thing());
        return wrong("the new certificate", problem);
    }
    if next.root() != current.root() {
        return wrong("the new root certificate", "it is another one".into());
    }
    Ok(())
}

/// The body of an answer that is none of an error.
fn accepted(answer: Answer) -> Result<bytes::Bytes, SyncError> {
    if answer.status < 400 {
        return Ok(answer.body);
    }
    match ApiError::read(&answer.body) {
        Ok(source) => Err(SyncError::Refused { source }),
        Err(_) => Err(SyncError::Http {
            url: "the control plane".into(),
            problem: format!("it answered with status {} and no reason", answer.status),
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn an_invitation_lists_all_that_is_wrong_with_it() {
        let good =
            Invitation::new("https://cloud:8443", "secret", &format!("sha256:{}", HASH.to_uppercase()), Some("pi3"));
        let good = good.unwrap();
        assert_eq!(good.ca_hash.first(), Some(&1));
        assert!(!format!("{good:?}").contains("secret"));
        let problems = Invitation::new("http://cloud", "", "abc", Some("a/b")).unwrap_err();
        assert_eq!(problems.len(), 4);
    }

    #[test]
    fn a_seed_is_read_whole_or_not_at_all() {
        let seed = format!("cloud = \"https://cloud\"\ntoken = \"t\"\nca_hash = \"{HASH}\"\n");
        assert_eq!(parse_seed("seed", &seed).unwrap().thing, None);
        let named = parse_seed("seed", &format!("{seed}thing = \"pi3\"\n")).unwrap();
        assert_eq!(named.thing.unwrap().as_str(), "pi3");
        for (text, problems) in [("", 3), ("cloud = 1\ntokken = \"t\"\n", 4), (&format!("{seed}thing = \"a b\"\n"), 1)]
        {
            assert_eq!(parse_seed("seed", text).unwrap_err().problems.len(), problems, "{text}");
        }
    }
}
