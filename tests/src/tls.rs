//! Certificates out of thin air, and a client that trusts them.

use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair,
    PublicKeyData as _,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};

use crate::mqtt::Duplex;

/// An authority with a certificate of its own.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// PEM file.
    pub certificate: PathBuf,
}

/// PEM files of somebody at 127.0.0.1.
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

fn params(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Authority {
    /// Writes its certificate into `folder`.
    pub fn new(folder: &Path, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = folder.join(format!("{name}.pem"));
        std::fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder: folder.to_owned(), issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate for 127.0.0.1.
    pub fn issue(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = params(name, &["127.0.0.1"]);
        // Younger than any build of what it is shown to.
        params.not_before = time::OffsetDateTime::now_utc() - time::Duration::hours(1);
        let issued = params.signed_by(&key, &self.issuer).unwrap();
        let file = |what: &str| self.folder.join(format!("{name}-{what}.pem"));
        let identity = Identity { certificate: file("certificate"), key: file("key") };
        std::fs::write(&identity.certificate, issued.pem()).unwrap();
        std::fs::write(&identity.key, key.serialize_pem()).unwrap();
        identity
    }

    /// A certificate for whoever made the request, valid from `begin` to `end` seconds from now. The name is given to it.
    pub fn certify(&self, csr_pem: &str, name: &str, begin: i64, end: i64) -> Result<(String, Vec<u8>), String> {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(|error| error.to_string())?;
        let now = time::OffsetDateTime::now_utc();
        request.params = params(name, &[]);
        request.params.not_before = now + time::Duration::seconds(begin);
        request.params.not_after = now + time::Duration::seconds(end);
        let public = request.public_key.der_bytes().to_vec();
        let issued = request.signed_by(&self.issuer).map_err(|error| error.to_string())?;
        Ok((issued.pem(), public))
    }

    /// The certificate, PEM.
    pub fn pem(&self) -> String {
        std::fs::read_to_string(&self.certificate).unwrap()
    }

    /// The certificate, DER.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.certificate).unwrap()
    }

    /// What an HTTPS server at 127.0.0.1 needs.
    pub fn server(&self, identity: &Identity) -> Arc<ServerConfig> {
        let chain = vec![CertificateDer::from_pem_file(&identity.certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap())
    }

    /// As [`Authority::connect`], with a certificate of our own.
    pub fn connect_as(&self, identity: &Identity, address: &str) -> io::Result<(Box<dyn Duplex>, TcpStream)> {
        let chain = vec![CertificateDer::from_pem_file(&identity.certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
        let config = self.client().with_client_auth_cert(chain, key).unwrap();
        dial(config, address)
    }

    /// A TLS stream, and the socket under it, to a server that this authority vouches for.
    pub fn connect(&self, address: &str) -> io::Result<(Box<dyn Duplex>, TcpStream)> {
        dial(self.client().with_no_client_auth(), address)
    }

    fn client(&self) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.certificate).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
    }
}

fn dial(config: ClientConfig, address: &str) -> io::Result<(Box<dyn Duplex>, TcpStream)> {
    let name = "127.0.0.1".try_into().unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let socket = TcpStream::connect(address)?;
    Ok((Box::new(StreamOwned::new(connection, socket.try_clone()?)), socket))
}
