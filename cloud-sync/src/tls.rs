//! TLS towards the control plane: whom to believe, and as whom.
//!
//! # The clock
//!
//! A certificate that expired before the floor of trusted time has expired. One that is not valid yet by that floor is valid: the
//! floor is behind, for it is the time of the build on a device that was never told the time, and a server's certificate is younger
//! than that. So a device whose clock says 1970, or 2099, connects, and hears the time then.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::SyncError;
use crate::time::{Time, unix};

/// A chain may have this many certificates whose begin lies ahead of the floor.
const CHAIN: usize = 4;

/// Our certificate chain and key.
pub(crate) type Credentials = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Believes servers of `root`, and shows `credentials` to those who ask.
pub(crate) fn config(
    root: &CertificateDer<'_>,
    credentials: Option<Credentials>,
    time: &Arc<Time>,
) -> Result<Arc<ClientConfig>, SyncError> {
    let unusable = |what, error: &dyn std::error::Error| SyncError::Certificate { what, problem: error.to_string() };
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(root.clone().into_owned()).map_err(|error| unusable("the root certificate", &error))?;
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| unusable("the root certificate", &error))?;
    let verifier = Arc::new(Patient { inner, latest: unix(time.latest()) });
    let builder = ClientConfig::builder_with_details(provider, time.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("TLS", &error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match credentials {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| unusable("the device's certificate and key", &error))?,
        None => builder.with_no_client_auth(),
    };
    // A connection is made seldom, and a server must see a certificate that was revoked meanwhile.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// Believes any server: for fetching a root certificate whose hash is known, and for nothing else.
pub(crate) fn unverified(time: &Arc<Time>) -> Result<Arc<ClientConfig>, SyncError> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_details(provider.clone(), time.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| SyncError::Certificate { what: "TLS", problem: error.to_string() })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody { provider }))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// See the module.
#[derive(Debug)]
struct Patient {
    inner: Arc<WebPkiServerVerifier>,
    latest: UnixTime,
}

impl ServerCertVerifier for Patient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        mut now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        for _ in 0..CHAIN {
            match self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
                // By that time the others may have expired, and then they are refused.
                Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }))
                    if not_before <= self.latest =>
                {
                    now = not_before;
                }
                verdict => return verdict,
            }
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidYet))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// See [`unverified`].
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use holm_core::Timestamp;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use std::time::Duration;
    use time::OffsetDateTime;

    use super::*;
    use crate::Clocks;

    const DAY: i64 = 86_400;

    /// Whether a server's certificate, valid for these days, is believed by a device built on this day.
    fn believes(built: i64, valid: std::ops::Range<i64>) -> bool {
        let at = |day: i64| OffsetDateTime::from_unix_timestamp(day * DAY).unwrap();
        let (root_key, leaf_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&root_key).unwrap();
        let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        (leaf.not_before, leaf.not_after) = (at(valid.start), at(valid.end));
        let leaf = leaf.signed_by(&leaf_key, &Issuer::new(params, root_key)).unwrap();
        let clocks = Clocks { wall: || Timestamp(0), uptime: || Duration::ZERO, built: Timestamp(built * DAY * 1_000) };
        let time = Arc::new(Time::new(clocks, None));
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()));
        let patient = Patient { inner: inner.build().unwrap(), latest: unix(time.latest()) };
        let name = ServerName::try_from("127.0.0.1").unwrap();
        patient.verify_server_cert(leaf.der(), &[], &name, &[], unix(time.at_least())).is_ok()
    }

    #[test]
    fn what_has_expired_is_refused_and_what_seems_to_begin_later_is_not() {
        for (built, valid, expected) in [
            (20_000, 19_000..21_000, true),
            (20_000, 20_100..20_200, true),
            (20_000, 19_000..19_999, false),
            // A century later: the server, or who pretends to be it, is broken.
            (20_000, 60_000..60_100, false),
        ] {
            assert_eq!(believes(built, valid.clone()), expected, "{built} {valid:?}");
        }
    }
}
