//! This server's own certificate, and how its listeners speak TLS.

use std::sync::{Arc, PoisonError, RwLock};

use holm_core::Timestamp;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

use super::{Authority, SERVER_LIFE};
use crate::CloudError;

/// The certificate that both listeners show. It is changed while they run.
pub(crate) struct ServerIdentity {
    names: Vec<String>,
    shown: RwLock<(Arc<CertifiedKey>, Timestamp)>,
}

impl ServerIdentity {
    /// For these names; the first one is what devices are told.
    pub(crate) fn new(authority: &Authority, names: Vec<String>, now: Timestamp) -> Result<Arc<Self>, CloudError> {
        let shown = RwLock::new((make(authority, &names, now)?, now));
        Ok(Arc::new(Self { names, shown }))
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Shows a new one when two thirds of the old one's life are over. To be called now and then.
    pub(crate) fn renew(&self, authority: &Authority, now: Timestamp) -> Result<(), CloudError> {
        let made = self.shown.read().unwrap_or_else(PoisonError::into_inner).1;
        if now.0 - made.0 > SERVER_LIFE / 3 * 2 {
            let new = make(authority, &self.names, now)?;
            *self.shown.write().unwrap_or_else(PoisonError::into_inner) = (new, now);
            tracing::info!("this server shows a new certificate");
        }
        Ok(())
    }

    /// For browsers, commands and devices that have no certificate yet.
    pub(crate) fn https(self: &Arc<Self>) -> Result<ServerConfig, CloudError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(tls)?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// For devices: a certificate under our root is asked for. Whether it still opens the door is asked later.
    pub(crate) fn mqtt(self: &Arc<Self>, authority: &Authority) -> Result<ServerConfig, CloudError> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.root().clone()).map_err(tls)?;
        let bad = |error: rustls::server::VerifierBuilderError| CloudError::BadCertificate {
            what: "ca/root.crt".to_owned(),
            problem: error.to_string(),
        };
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().map_err(bad)?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(tls)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(self.clone());
        // A resumed session would skip the certificate's end, and each costs memory while its device idles.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

impl ResolvesServerCert for ServerIdentity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown.read().unwrap_or_else(PoisonError::into_inner).0.clone())
    }
}

impl std::fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerIdentity").field("names", &self.names).finish_non_exhaustive()
    }
}

fn make(authority: &Authority, names: &[String], now: Timestamp) -> Result<Arc<CertifiedKey>, CloudError> {
    let (chain, key) = authority.issue_server(names, now)?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(tls)?;
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn tls(source: rustls::Error) -> CloudError {
    CloudError::Tls { source }
}
