//! Who the device is: its key, its certificate, and where it belongs, in the folder `identity` of the data folder.
//!
//! | file | |
//! | --- | --- |
//! | `device.json` | the identity: key, certificate, root, addresses. One file, so that they always belong together |
//! | `next.json` | the one that takes its place once the control plane has taken a connection with it |
//! | `pending.pem` | a key whose certificate was asked for and has not come |
//! | `sealing.key` | what opens secrets; see [`crate::sealing`] |
//!
//! All of them are for their owner only, are written beside themselves, synced and renamed, and leave the device never.
//! A cut at any point leaves the old identity, or the new one, and a key that is used again by the next attempt: asking twice
//! for the same key is what makes an enrolment that was cut off harmless.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_core::Timestamp;
use holm_protocol::{Enrolled, ThingName};
use holm_trust::OpeningKey;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use crate::tls::Credentials;
use crate::{CloudUrl, SyncError, der};

/// The format of the files that this release writes.
const FORMAT: u32 = 1;

/// Bytes of a file, at most: what is longer is not ours.
const MAX_FILE: u64 = 1 << 20;

/// A P-256 key.
pub(crate) struct Key {
    pkcs8: Vec<u8>,
    pair: EcdsaKeyPair,
}

impl Key {
    /// A fresh one.
    fn generate() -> Result<Self, SyncError> {
        let unusable =
            |_| SyncError::Certificate { what: "a new key", problem: "the system gives no random bytes".into() };
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).map_err(unusable)?;
        Self::from_pkcs8(pkcs8.as_ref())
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, SyncError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, &SystemRandom::new())
            .map_err(|error| SyncError::Certificate { what: "the device's key", problem: error.to_string() })?;
        Ok(Self { pkcs8: pkcs8.to_vec(), pair })
    }

    fn from_pem(pem: &str) -> Result<Self, SyncError> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| SyncError::Certificate { what: "the device's key", problem: error.to_string() })?;
        Self::from_pkcs8(key.secret_pkcs8_der())
    }

    fn to_pem(&self) -> String {
        pem("PRIVATE KEY", &self.pkcs8)
    }

    /// An ASN.1 signature.
    pub(crate) fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, SyncError> {
        let signature = self.pair.sign(&SystemRandom::new(), bytes);
        signature
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| SyncError::Certificate { what: "the device's key", problem: "it does not sign".into() })
    }

    /// A request for a certificate, PEM.
    pub(crate) fn request(&self, name: &str) -> Result<String, SyncError> {
        let der = der::request(name, self.pair.public_key().as_ref(), |bytes| self.sign(bytes))?;
        Ok(pem("CERTIFICATE REQUEST", &der))
    }
}

/// PEM as in RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    let base64 = STANDARD.encode(der);
    for (at, character) in base64.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str(&format!("\n-----END {label}-----\n"));
    text
}

/// As it is in the file.
#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    url: String,
    key_pem: String,
    enrolled: Enrolled,
}

/// A device that is enrolled.
pub struct Identity {
    /// Where it enrolled, and renews.
    pub url: CloudUrl,
    /// What the control plane said.
    pub enrolled: Enrolled,
    /// From when its certificate is valid.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    key: Key,
    chain: Vec<CertificateDer<'static>>,
    root: CertificateDer<'static>,
}

impl Identity {
    /// From the answer to a request with this key. Fails if the parts do not belong together.
    pub(crate) fn new(url: CloudUrl, enrolled: Enrolled, key: Key) -> Result<Self, SyncError> {
        let unusable = |what, problem: String| SyncError::Certificate { what, problem };
        let chain = CertificateDer::pem_slice_iter(enrolled.certificate_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| unusable("the device's certificate", error.to_string()))?;
        let leaf = chain.first().ok_or_else(|| unusable("the device's certificate", "there is none".into()))?;
        let (not_before, not_after) =
            der::validity(leaf).ok_or_else(|| unusable("the device's certificate", "it is not one".into()))?;
        // The key is in the certificate as it is: rustls compares both once more when it gets them.
        let point = key.pair.public_key().as_ref();
        if !leaf.windows(point.len()).any(|window| window == point) {
            return Err(unusable("the device's certificate", "it is for another key".into()));
        }
        let root = root(&enrolled.root_pem)?;
        Ok(Self { url, enrolled, not_before, not_after, key, chain, root })
    }

    /// Its name.
    pub fn thing(&self) -> &ThingName {
        &self.enrolled.thing
    }

    /// When a new certificate should be asked for: at two thirds of the life of this one, and up to a twentieth earlier, so that
    /// devices of one batch do not all come at once. The same for the same certificate.
    pub fn renew_at(&self) -> Timestamp {
        let life = self.not_after.0.saturating_sub(self.not_before.0).max(0);
        let digest = ring::digest::digest(&ring::digest::SHA256, self.chain.first().map_or(&[][..], |leaf| leaf));
        let share = i64::from(digest.as_ref().first().copied().unwrap_or_default());
        let early = life / 20 / 256 * share;
        Timestamp(self.not_before.0.saturating_add(life / 3 * 2).saturating_sub(early))
    }

    pub(crate) fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    pub(crate) fn credentials(&self) -> Credentials {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.pkcs8.clone()));
        (self.chain.clone(), key)
    }

    pub(crate) fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, SyncError> {
        self.key.sign(bytes)
    }
}

// The key must not get into a log.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("url", &self.url).field("thing", self.thing()).finish_non_exhaustive()
    }
}

/// The one certificate of a text.
pub(crate) fn root(pem: &str) -> Result<CertificateDer<'static>, SyncError> {
    let unusable = |problem: String| SyncError::Certificate { what: "the root certificate", problem };
    let mut all = CertificateDer::pem_slice_iter(pem.as_bytes());
    let first = all.next().ok_or_else(|| unusable("there is none".into()))?;
    first.map_err(|error| unusable(error.to_string()))
}

/// The folder of the identity. Cheap to clone.
#[derive(Debug, Clone)]
pub struct IdentityFolder {
    path: PathBuf,
}

impl IdentityFolder {
    /// Of a data folder.
    pub fn of(data: &Path) -> Self {
        Self { path: data.join("identity") }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The identity, if the device is enrolled.
    pub fn current(&self) -> Result<Option<Identity>, SyncError> {
        self.load(&self.path.join("device.json"))
    }

    /// The identity that has not been used yet. One that cannot be read is not there: it can be had again.
    pub fn next(&self) -> Option<Identity> {
        match self.load(&self.path.join("next.json")) {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!(error = error.chain(), "the certificate that was to be used next cannot be read");
                None
            }
        }
    }

    /// Keeps an identity for the first time.
    pub(crate) fn keep(&self, identity: &Identity) -> Result<(), SyncError> {
        self.store("device.json", identity)?;
        self.forget_pending();
        Ok(())
    }

    /// Keeps one that is to be tried.
    pub(crate) fn keep_next(&self, identity: &Identity) -> Result<(), SyncError> {
        self.store("next.json", identity)?;
        self.forget_pending();
        Ok(())
    }

    /// The next identity has proved itself: it takes the place of the current one.
    pub(crate) fn promote(&self) -> Result<(), SyncError> {
        let next = self.path.join("next.json");
        fs::rename(&next, self.path.join("device.json")).map_err(file("rename", &next))?;
        self.sync()
    }

    /// The next identity is of no use.
    pub(crate) fn drop_next(&self) {
        remove(&self.path.join("next.json"));
    }

    /// The key of the request that was made last and not answered, or a fresh one, which is kept before it is used.
    pub(crate) fn pending(&self) -> Result<Key, SyncError> {
        let path = self.path.join("pending.pem");
        if let Some(text) = read(&path)? {
            match Key::from_pem(&text) {
                Ok(key) => return Ok(key),
                Err(error) => {
                    tracing::warn!(error = error.chain(), "a key that was never used cannot be read: a new one is made")
                }
            }
        }
        let key = Key::generate()?;
        self.write("pending.pem", key.to_pem().as_bytes())?;
        Ok(key)
    }

    /// What opens secrets; a fresh one if there is none. One that cannot be read opens nothing any more: it is set aside, and secrets are
    /// sealed to another.
    pub(crate) fn opening_key(&self) -> Result<OpeningKey, SyncError> {
        let path = self.path.join("sealing.key");
        if let Some(text) = read(&path)? {
            if let Some(key) = crate::sealing::read(&text) {
                return Ok(key);
            }
            let aside = self.path.join("sealing.key.unreadable");
            tracing::error!(path = %aside.display(), "the key of this device's secrets cannot be read and is set aside: they have to be set again");
            fs::rename(&path, &aside).map_err(file("rename", &path))?;
        }
        let key = OpeningKey::generate()
            .map_err(|error| SyncError::Certificate { what: "a new key for secrets", problem: error.to_string() })?;
        self.write("sealing.key", crate::sealing::write(&key).as_bytes())?;
        Ok(key)
    }

    fn forget_pending(&self) {
        remove(&self.path.join("pending.pem"));
    }

    fn load(&self, path: &Path) -> Result<Option<Identity>, SyncError> {
        let Some(text) = read(path)? else { return Ok(None) };
        let damaged = |problem: String| SyncError::Damaged { path: path.to_owned(), problem };
        let stored: Stored = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if stored.format > FORMAT {
            return Err(damaged(format!("it has format {}, this release reads up to {FORMAT}", stored.format)));
        }
        let url = CloudUrl::parse(&stored.url)?;
        let key = Key::from_pem(&stored.key_pem)?;
        Identity::new(url, stored.enrolled, key).map(Some).map_err(|error| damaged(error.chain()))
    }

    fn store(&self, name: &str, identity: &Identity) -> Result<(), SyncError> {
        let stored = Stored {
            format: FORMAT,
            url: identity.url.to_string(),
            key_pem: identity.key.to_pem(),
            enrolled: identity.enrolled.clone(),
        };
        let path = self.path.join(name);
        let text = serde_json::to_vec_pretty(&stored)
            .map_err(|error| SyncError::Damaged { path, problem: error.to_string() })?;
        self.write(name, &text)
    }

    /// Writes a file that is there whole or not at all.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), SyncError> {
        let folder = &self.path;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(file("create", folder))?;
        let (path, temporary) = (folder.join(name), folder.join(format!("{name}.part")));
        let mut open = fs::File::options();
        open.write(true).create(true).truncate(true).mode(0o600);
        let mut part = open.open(&temporary).map_err(file("create", &temporary))?;
        part.write_all(bytes).map_err(file("write", &temporary))?;
        part.sync_all().map_err(file("sync", &temporary))?;
        fs::rename(&temporary, &path).map_err(file("rename", &temporary))?;
        self.sync()
    }

    fn sync(&self) -> Result<(), SyncError> {
        fs::File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(file("sync", &self.path))
    }
}

fn read(path: &Path) -> Result<Option<String>, SyncError> {
    match fs::metadata(path) {
        Ok(meta) if meta.len() > MAX_FILE => {
            Err(SyncError::Damaged { path: path.to_owned(), problem: format!("it has {} bytes", meta.len()) })
        }
        Ok(_) => fs::read_to_string(path).map(Some).map_err(file("read", path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file("read", path)(error)),
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "a file that is not needed any more cannot be removed");
        }
        _ => {}
    }
}

fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> SyncError {
    let path = path.to_owned();
    move |source| SyncError::File { action, path, source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rcgen::{CertificateParams, Issuer, KeyPair, PublicKeyData as _};

    #[test]
    fn a_request_is_one_and_is_signed_by_the_key_in_it() {
        let key = Key::generate().unwrap();
        let request = key.request("pi3").unwrap();
        // For looking at it with other tools.
        if let Some(path) = std::env::var_os("HOLM_WRITE_REQUEST") {
            fs::write(path, &request).unwrap();
        }
        let parsed = rcgen::CertificateSigningRequestParams::from_pem(&request).unwrap();
        assert_eq!(parsed.public_key.der_bytes(), key.pair.public_key().as_ref());
    }

    #[test]
    fn an_identity_is_kept_whole_and_replaced_whole() {
        let data = tempfile::tempdir().unwrap();
        let folder = IdentityFolder::of(data.path());
        assert!(folder.current().unwrap().is_none());
        let root_key = KeyPair::generate().unwrap();
        let root_params = CertificateParams::new(Vec::new()).unwrap();
        let root_pem = root_params.clone().self_signed(&root_key).unwrap().pem();
        let issuer = Issuer::new(root_params, root_key);
        let enrolled = |key: &Key| {
            let request = rcgen::CertificateSigningRequestParams::from_pem(&key.request("pi3").unwrap()).unwrap();
            let certificate_pem = request.signed_by(&issuer).unwrap().pem();
            let text = serde_json::json!({
                "thing": "pi3", "groups": [], "certificate_pem": certificate_pem, "root_pem": root_pem,
                "mqtt": {"host": "cloud", "port": 8883}, "tuf": {"metadata_url": "m/", "targets_url": "t/"},
            });
            Enrolled::read(text.to_string().as_bytes()).unwrap()
        };
        let url = CloudUrl::parse("https://cloud").unwrap();
        let key = folder.pending().unwrap();
        assert_eq!(folder.pending().unwrap().pkcs8, key.pkcs8, "a request that was cut off is made with the same key");
        let first = Identity::new(url.clone(), enrolled(&key), key).unwrap();
        folder.keep(&first).unwrap();
        let next_key = folder.pending().unwrap();
        let wrong = Identity::new(url.clone(), first.enrolled.clone(), Key::generate().unwrap());
        assert!(wrong.unwrap_err().to_string().contains("another key"));
        let next = Identity::new(url, enrolled(&next_key), next_key).unwrap();
        folder.keep_next(&next).unwrap();
        let certificate = |identity: Option<Identity>| identity.map(|one| one.enrolled.certificate_pem);
        assert_eq!(certificate(folder.current().unwrap()), Some(first.enrolled.certificate_pem.clone()));
        assert_eq!(certificate(folder.next()), Some(next.enrolled.certificate_pem.clone()));
        folder.promote().unwrap();
        assert_eq!(certificate(folder.current().unwrap()), Some(next.enrolled.certificate_pem.clone()));
        assert!(folder.next().is_none());
        let (begin, end) = (next.not_before, next.not_after);
        assert!(begin < next.renew_at() && next.renew_at() < end);
        fs::write(folder.path().join("device.json"), "{").unwrap();
        assert!(matches!(folder.current(), Err(SyncError::Damaged { .. })));
    }
}
