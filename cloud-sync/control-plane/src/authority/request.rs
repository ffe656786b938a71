//! What devices hand in: certificate requests, and certificates to be renewed.

use holm_core::Timestamp;
use rcgen::{PublicKeyData, SubjectPublicKeyInfo};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509CertificationRequest};

use crate::CloudError;
use crate::secret::Hash;

/// Why a request is not signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BadRequest {
    /// The request; the sentence.
    Request(String),
    /// The certificate cannot be read.
    Certificate,
    /// The signature is not of the certificate's key.
    Signature,
}

/// The public key of a certificate request whose owner has shown that it has the private one.
pub(crate) struct DeviceKey(SubjectPublicKeyInfo);

impl DeviceKey {
    /// Checks a request. Whatever else it asks for is not looked at.
    pub(crate) fn of_request(pem: &str) -> Result<Self, BadRequest> {
        let bad = |sentence: &str| BadRequest::Request(sentence.to_owned());
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| bad("it is not a certificate request in PEM"))?;
        let (rest, request) =
            X509CertificationRequest::from_der(&der).map_err(|_| bad("it is not a certificate request"))?;
        if !rest.is_empty() {
            return Err(bad("something follows the certificate request"));
        }
        let spki = request.certification_request_info.subject_pki.raw;
        let key =
            SubjectPublicKeyInfo::from_der(spki).map_err(|_| bad("its key is of a kind that is not known here"))?;
        if *key.algorithm() != rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(bad("its key is not of P-256"));
        }
        // Proof of possession.
        request.verify_signature().map_err(|_| bad("it is not signed with its own key"))?;
        Ok(Self(key))
    }

    pub(crate) fn hash(&self) -> Hash {
        Hash::of(self.0.subject_public_key_info())
    }
}

impl PublicKeyData for DeviceKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        PublicKeyData::algorithm(&self.0)
    }
}

/// Checks that a renewal is signed with the key of the certificate that comes with it. Whose certificate it is, the records
/// say by its fingerprint, which is answered with the time of its end.
pub(crate) fn check_renewal(
    certificate_pem: &str,
    csr_pem: &str,
    signature: &[u8],
) -> Result<(Hash, Timestamp), BadRequest> {
    let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|_| BadRequest::Certificate)?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| BadRequest::Certificate)?;
    let key = &certificate.public_key().subject_public_key.data;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.as_ref())
        .verify(csr_pem.as_bytes(), signature)
        .map_err(|_| BadRequest::Signature)?;
    let expires = certificate.validity().not_after.timestamp().saturating_mul(1_000);
    Ok((Hash::of(&der), Timestamp(expires)))
}

/// When a certificate of ours ends.
pub(super) fn expires(der: &CertificateDer<'_>) -> Result<Timestamp, CloudError> {
    Ok(Timestamp(parse(der)?.validity().not_after.timestamp().saturating_mul(1_000)))
}

/// Whether a certificate of ours has this key.
pub(super) fn has_key(der: &CertificateDer<'_>, spki: &[u8]) -> Result<bool, CloudError> {
    Ok(parse(der)?.public_key().raw == spki)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CloudError> {
    X509Certificate::from_der(der).map(|(_, certificate)| certificate).map_err(|error| CloudError::BadCertificate {
        what: "a certificate of this control plane".to_owned(),
        problem: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn request(key: &KeyPair) -> String {
        CertificateParams::new(vec!["other.example".to_owned()]).unwrap().serialize_request(key).unwrap().pem().unwrap()
    }

    #[test]
    fn only_a_request_with_a_p_256_key_that_signed_it_is_good() {
        let key = KeyPair::generate().unwrap();
        let good = request(&key);
        assert_eq!(DeviceKey::of_request(&good).unwrap().hash(), Hash::of(key.subject_public_key_info()));
        let refused = |pem: &str| match DeviceKey::of_request(pem) {
            Err(BadRequest::Request(sentence)) => sentence,
            other => panic!("{:?}", other.map(|key| key.hash())),
        };
        for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            assert_eq!(refused(&request(&KeyPair::generate_for(algorithm).unwrap())), "its key is not of P-256");
        }
        let der = CertificateSigningRequestDer::from_pem_slice(good.as_bytes()).unwrap();
        let pem = |der: &[u8]| {
            use base64::Engine as _;
            let text = base64::engine::general_purpose::STANDARD.encode(der);
            format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
        };
        let mut forged = der.to_vec();
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(refused(&pem(&forged)), "it is not signed with its own key");
        let mut long = der.to_vec();
        long.push(0);
        assert_eq!(refused(&pem(&long)), "something follows the certificate request");
        for text in ["", "nonsense", &pem(b""), &pem(b"nonsense")] {
            refused(text);
        }
        for end in 0..der.len() {
            refused(&pem(&der[..end]));
        }
    }
}
