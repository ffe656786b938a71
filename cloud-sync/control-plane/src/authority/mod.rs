//! The certificate authority: a root, an issuing certificate under it, and what that signs.
//!
//! # Invariants
//!
//! 1. The root signs issuing certificates and nothing else, so its key may be kept away from here for years.
//! 2. A device's key is never here: its certificate request is checked for a P-256 key that has signed it, and nothing else of
//!    the request gets into the certificate.
//! 3. Certificates say what they are for: a device's opens no listener, and the server's lets nobody in.
//!
//! # How it fails
//!
//! With a folder that has certificates and lacks a key that is needed, the control plane does not start, and says which.

mod live;
mod request;
mod server;

use std::net::IpAddr;

use holm_core::Timestamp;
use holm_protocol::ThingName;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SerialNumber,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

pub(crate) use live::Live;
pub(crate) use request::{BadRequest, DeviceKey, check_renewal};
pub(crate) use server::ServerIdentity;

use crate::CloudError;
use crate::folder::{Folder, read, write_private};
use crate::records::NewCertificate;
use crate::secret::{Hash, random};

const DAY: i64 = 86_400_000;

/// How long what is signed here is good, in milliseconds.
const ROOT_LIFE: i64 = 20 * 365 * DAY;
const ISSUING_LIFE: i64 = 3 * 365 * DAY;
pub(crate) const DEVICE_LIFE: i64 = 365 * DAY;
pub(crate) const SERVER_LIFE: i64 = 365 * DAY;

/// Certificates begin so long before they are made, for clocks that are a little behind.
const BACKDATED: i64 = 3_600_000;

/// See the module.
pub(crate) struct Authority {
    root_pem: String,
    root: CertificateDer<'static>,
    issuing_pem: String,
    issuing: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A device's certificate.
pub(crate) struct Issued {
    /// With the issuing certificate.
    pub(crate) chain_pem: String,
    pub(crate) kept: NewCertificate,
}

impl Authority {
    /// Reads the authority of a folder, or makes one. An issuing certificate that is past two thirds of its life is replaced if
    /// the root's key is there; those who have the old one go on with it to its end.
    pub(crate) fn open(folder: &Folder, now: Timestamp) -> Result<Self, CloudError> {
        let (root_path, root_key_path) = (folder.authority("root.crt"), folder.authority("root.key"));
        let root_pem = match read(&root_path)? {
            Some(pem) => pem,
            None => {
                let key = generate("make the root's key")?;
                let certificate = root_params(now)?.self_signed(&key).map_err(failed("make the root certificate"))?;
                // The key first: a certificate without one is no use, and a start that was cut off makes both anew.
                write_private(&root_key_path, key.serialize_pem().as_bytes())?;
                write_private(&root_path, certificate.pem().as_bytes())?;
                certificate.pem()
            }
        };
        let root = parse("ca/root.crt", &root_pem)?;
        let (path, key_path) = (folder.authority("issuing.crt"), folder.authority("issuing.key"));
        let (mut pem, mut key) = (read(&path)?, read(&key_path)?);
        let root_key = read(&root_key_path)?;
        let due = match &pem {
            Some(pem) => request::expires(&parse("ca/issuing.crt", pem)?)?.0 - now.0 < ISSUING_LIFE / 3,
            None => true,
        };
        if due && let Some(root_key) = &root_key {
            let root_key = KeyPair::from_pem(root_key).map_err(failed("read ca/root.key"))?;
            let issuer = Issuer::from_ca_cert_der(&root, root_key).map_err(failed("read ca/root.crt"))?;
            let new = generate("make the issuing key")?;
            let params = issuing_params(now)?;
            let certificate = params.signed_by(&new, &issuer).map_err(failed("make the issuing certificate"))?;
            write_private(&key_path, new.serialize_pem().as_bytes())?;
            write_private(&path, certificate.pem().as_bytes())?;
            (pem, key) = (Some(certificate.pem()), Some(new.serialize_pem()));
        } else if due && pem.is_some() {
            tracing::warn!("the issuing certificate ends soon: put ca/root.key back and start again to make a new one");
        }
        let missing = |what: &str| CloudError::BadCertificate {
            what: what.to_owned(),
            problem: "it is missing; with ca/root.key in place a new one is made".to_owned(),
        };
        let (Some(issuing_pem), Some(key)) = (pem, key) else {
            return Err(missing("ca/issuing.crt or ca/issuing.key"));
        };
        let issuing = parse("ca/issuing.crt", &issuing_pem)?;
        let key = KeyPair::from_pem(&key).map_err(failed("read ca/issuing.key"))?;
        if !request::has_key(&issuing, &key.subject_public_key_info())? {
            // A start that was cut off between the two files.
            return Err(CloudError::BadCertificate {
                what: "ca/issuing.key".to_owned(),
                problem: "it does not belong to ca/issuing.crt; remove both, with ca/root.key in place".to_owned(),
            });
        }
        let issuer = Issuer::from_ca_cert_der(&issuing, key).map_err(failed("read ca/issuing.crt"))?;
        Ok(Self { root_pem, root, issuing_pem, issuing, issuer })
    }

    pub(crate) fn root_pem(&self) -> &str {
        &self.root_pem
    }

    pub(crate) fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// What a device is given to recognise the root by.
    pub(crate) fn root_hash(&self) -> Hash {
        Hash::of(&self.root)
    }

    /// A certificate for a device, for nothing but to say its name to a server.
    pub(crate) fn issue_device(
        &self,
        thing: &ThingName,
        key: &DeviceKey,
        now: Timestamp,
    ) -> Result<Issued, CloudError> {
        let mut params = params(thing.as_str(), now, DEVICE_LIFE)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let serial = params.serial_number.as_ref().map(SerialNumber::to_bytes).unwrap_or_default();
        let certificate = params.signed_by(key, &self.issuer).map_err(failed("sign a device's certificate"))?;
        let kept = NewCertificate {
            serial,
            fingerprint: Hash::of(certificate.der()),
            key: key.hash(),
            issued: now,
            expires: Timestamp(now.0 + DEVICE_LIFE),
        };
        Ok(Issued { chain_pem: certificate.pem() + &self.issuing_pem, kept })
    }

    /// A certificate for this server under its names, and its key.
    fn issue_server(
        &self,
        names: &[String],
        now: Timestamp,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CloudError> {
        let key = generate("make the server's key")?;
        let mut params = params("Holm control plane", now, SERVER_LIFE)?;
        let sans = CertificateParams::new(names).map_err(failed("name the server"))?;
        params.subject_alt_names = sans.subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed("sign the server's certificate"))?;
        let chain = vec![certificate.der().clone(), self.issuing.clone()];
        Ok((chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
    }
}

/// Whether a certificate can have this name: of a host, or an address.
pub(crate) fn is_name(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok() || rustls_pki_types::DnsName::try_from(name).is_ok()
}

fn generate(action: &'static str) -> Result<KeyPair, CloudError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed(action))
}

fn root_params(now: Timestamp) -> Result<CertificateParams, CloudError> {
    // The random part tells one control plane's root from another's wherever both are shown.
    let name = format!("Holm root {}", Hash(random()?).id());
    let mut params = params(&name, now, ROOT_LIFE)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn issuing_params(now: Timestamp) -> Result<CertificateParams, CloudError> {
    let mut params = params(&format!("Holm issuing {}", Hash(random()?).id()), now, ISSUING_LIFE)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn params(name: &str, now: Timestamp, life: i64) -> Result<CertificateParams, CloudError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = moment(now.0 - BACKDATED)?;
    params.not_after = moment(now.0 + life)?;
    params.use_authority_key_identifier_extension = true;
    let mut serial = random::<16>()?;
    // Positive, and with no zero in front (RFC 5280, 4.1.2.2).
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x3F | 0x40;
    }
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn moment(milliseconds: i64) -> Result<OffsetDateTime, CloudError> {
    OffsetDateTime::from_unix_timestamp(milliseconds / 1_000).map_err(|error| CloudError::BadCertificate {
        what: "a certificate's time".to_owned(),
        problem: error.to_string(),
    })
}

fn parse(what: &str, pem: &str) -> Result<CertificateDer<'static>, CloudError> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| CloudError::BadCertificate { what: what.to_owned(), problem: error.to_string() })
}

fn failed(action: &'static str) -> impl Fn(rcgen::Error) -> CloudError {
    move |source| CloudError::Certificate { action, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    #[test]
    fn an_authority_is_made_once_and_outlives_its_roots_key() {
        let folder = tempfile::tempdir().unwrap();
        let open = |now| {
            let folder = Folder::open(folder.path()).unwrap();
            Authority::open(&folder, now).map(|authority| (authority.root_hash(), authority.issuing_pem))
        };
        let (root, issuing) = open(NOW).unwrap();
        assert_eq!(open(NOW).unwrap(), (root, issuing.clone()));
        let key = folder.path().join("ca/root.key");
        let away = folder.path().join("away");
        std::fs::rename(&key, &away).unwrap();
        let later = Timestamp(NOW.0 + ISSUING_LIFE * 3 / 4);
        assert_eq!(open(later).unwrap(), (root, issuing.clone()), "nothing to be done without the root");
        std::fs::rename(&away, &key).unwrap();
        let (again, renewed) = open(later).unwrap();
        assert_eq!(again, root);
        assert_ne!(renewed, issuing, "two thirds of its life are over");
        std::fs::remove_file(folder.path().join("ca/issuing.key")).unwrap();
        std::fs::remove_file(&key).unwrap();
        assert!(open(later).is_err());
    }

    #[test]
    fn names_are_hosts_or_addresses() {
        for (name, good) in [
            ("localhost", true),
            ("::1", true),
            ("10.0.0.1", true),
            ("a.b-c.example", true),
            ("", false),
            ("a b", false),
        ] {
            assert_eq!(is_name(name), good, "{name}");
        }
    }
}
