//! Clients that are known by their certificates.

use std::sync::{Arc, Mutex};

use holm_core::{ClientId, StoredBroker, TopicFilter};
use holm_mqtt::{AclRule, BrokerConfig, Identity};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::double::{Node, until};
use crate::peer::{Connect, Peer, V3, V5};

/// An authority, a broker that believes it, and who has which certificate.
struct House {
    node: Node,
    issuer: Issuer<'static, KeyPair>,
    roots: Arc<RootCertStore>,
    /// Certificates and whose they are.
    known: Arc<Mutex<Book>>,
}

/// A certificate in DER, and its name.
type Book = Vec<(Vec<u8>, String)>;

type Held = (CertificateDer<'static>, PrivateKeyDer<'static>);

fn certificate(name: &str, issuer: &Issuer<'_, KeyPair>) -> Held {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let issued = params.signed_by(&key, issuer).unwrap();
    (issued.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into())
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn rule(filters: &[&str]) -> AclRule {
    let filters: Vec<_> = filters.iter().map(|filter| TopicFilter::new(filter).unwrap()).collect();
    AclRule { publish: filters.clone(), subscribe: filters, ..AclRule::default() }
}

impl House {
    async fn build() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        let roots = Arc::new(roots);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .allow_unauthenticated()
            .build()
            .unwrap();
        let (chain, key) = certificate("broker", &issuer);
        let tls = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![chain], key)
            .unwrap();
        let known: Arc<Mutex<Book>> = Arc::default();
        let book = known.clone();
        let identity = Identity::Certificate(Arc::new(move |der| {
            let book = book.lock().unwrap();
            book.iter().find(|(known, _)| known == der).map(|(_, name)| ClientId(name.as_str().into()))
        }));
        let config = BrokerConfig {
            identity,
            acl: vec![rule(&["own/{client}/#", "$own/{client}/#", "$SYS/#", "{client}/up"])],
            reserved: vec!["$own".into()],
            ..BrokerConfig::default()
        };
        let node = Node::over(config, StoredBroker::default(), Some(Arc::new(tls))).await;
        Self { node, issuer, roots, known }
    }

    /// A certificate that the broker knows as that of `name`.
    fn enrol(&self, name: &str) -> Held {
        let held = certificate(name, &self.issuer);
        self.known.lock().unwrap().push((held.0.to_vec(), name.to_owned()));
        held
    }

    fn expel(&self, name: &str) {
        self.known.lock().unwrap().retain(|(_, known)| known != name);
    }

    async fn dial(&self, held: Option<&Held>, version: u8) -> Peer<TlsStream<TcpStream>> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone());
        let config = match held {
            Some((chain, key)) => builder.with_client_auth_cert(vec![chain.clone()], key.clone_key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        let socket = TcpStream::connect(self.node.address).await.unwrap();
        let name = "127.0.0.1".try_into().unwrap();
        Peer { socket: TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap(), version }
    }

    /// The code of the CONNACK.
    async fn connect(&self, held: Option<&Held>, version: u8, client: &str) -> (Peer<TlsStream<TcpStream>>, u8) {
        let mut peer = self.dial(held, version).await;
        peer.send(&Connect { version, client, clean: true, ..Connect::default() }.bytes()).await;
        let answer = peer.receive().await;
        assert_eq!(answer.kind(), 2);
        (peer, answer.body[1])
    }
}

#[tokio::test]
async fn the_certificate_says_who_a_client_is() {
    let house = House::build().await;
    let (ada, stranger) = (house.enrol("ada"), certificate("ada", &house.issuer));
    for (what, held, client, v3, v5) in [
        ("its own name", Some(&ada), "ada", 0, 0),
        ("another name", Some(&ada), "eve", 2, 0x85),
        ("no name", Some(&ada), "", 2, 0x85),
        ("a certificate that nobody has", Some(&stranger), "ada", 5, 0x87),
        ("no certificate", None, "ada", 5, 0x87),
    ] {
        for (version, code) in [(V3, v3), (V5, v5)] {
            assert_eq!(house.connect(held, version, client).await.1, code, "{what}");
        }
    }
    house.node.stopped().await;
}

#[tokio::test]
async fn rules_open_only_the_dollar_topics_that_were_given_up() {
    let house = House::build().await;
    let (ada, sys) = (house.enrol("ada"), house.enrol("$SYS"));
    let (mut peer, code) = house.connect(Some(&ada), V5, "ada").await;
    assert_eq!(code, 0);
    for (topic, code) in
        [("own/ada/x", 0), ("$own/ada/x", 0), ("own/eve/x", 0x87), ("$own/eve/x", 0x87), ("$SYS/x", 0x87)]
    {
        peer.publish(topic, 1, 1, b"x").await;
        assert_eq!(peer.receive().await.body.get(2).copied().unwrap_or(0), code, "{topic}");
    }
    for (filter, code) in [("$own/ada/+", 1), ("$own/+/x", 0x87), ("$SYS/x", 0x87), ("+/ada/x", 0x87)] {
        assert_eq!(peer.subscribe(filter, 1).await, code, "{filter}");
    }
    let (mut peer, _) = house.connect(Some(&sys), V5, "$SYS").await;
    peer.publish("$SYS/up", 1, 1, b"x").await;
    assert_eq!(peer.receive().await.body[2], 0x87, "a name does not open a reserved topic");
    house.node.stopped().await;
}

#[tokio::test]
async fn who_is_kicked_is_gone_and_comes_back_only_if_it_may() {
    let house = House::build().await;
    let (ada, id) = (house.enrol("ada"), ClientId("ada".into()));
    assert!(!house.node.broker.kick(&id));
    for (version, expelled, code) in [(V5, false, 0), (V3, true, 5)] {
        let (mut peer, _) = house.connect(Some(&ada), version, "ada").await;
        assert!(house.node.broker.is_connected(&id));
        if expelled {
            house.expel("ada");
        }
        assert!(house.node.broker.kick(&id));
        peer.is_closed_for(0x98).await;
        assert_eq!(house.connect(Some(&ada), version, "ada").await.1, code);
    }
    until("the session is let go", || !house.node.broker.is_connected(&id)).await;
    house.node.stopped().await;
}
