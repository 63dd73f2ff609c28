//! Certificates for tests, and clients that speak TLS.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use limiter_daemon::policy::plan::{Certificate, ClientCertificates, Pem, Tls, TlsVersion};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};

use super::client::{Client, tcp};

/// An authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

pub(crate) type TlsClient = Client<StreamOwned<ClientConnection, TcpStream>>;

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(crate) fn pem(&self) -> Pem {
        Pem(self.0.pem().into_bytes())
    }

    /// A certificate for these names.
    pub(crate) fn certificate(&self, names: &[&str]) -> Certificate {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.clone()).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Certificate {
            name: names.join(","),
            chain: Pem(certificate.pem().into_bytes()),
            key: Pem(key.serialize_pem().into_bytes()),
        }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    /// A client that trusts this authority.
    pub(crate) fn client(&self, alpn: &[&str], own: Option<&Certificate>) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots());
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let (chain, key) = parsed(own);
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// Connects and shakes hands.
    ///
    /// # Errors
    /// The handshake fails.
    pub(crate) fn connect(
        &self,
        address: SocketAddr,
        name: &str,
        own: Option<&Certificate>,
    ) -> std::io::Result<TlsClient> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = ClientConnection::new(self.client(&["http/1.1"], own), name).unwrap();
        let mut stream = tcp(address);
        connection.complete_io(&mut stream)?;
        Ok(Client::on(StreamOwned::new(connection, stream)))
    }
}

/// The names of the certificate that the other side showed, by trying.
pub(crate) fn is_for(client: &TlsClient, name: &str) -> bool {
    let connection = &client.stream.get_ref().conn;
    let shown = &connection.peer_certificates().unwrap()[0];
    let parsed = rustls::server::ParsedCertificate::try_from(shown).unwrap();
    let name = ServerName::try_from(name).unwrap();
    rustls::client::verify_server_name(&parsed, &name).is_ok()
}

fn parsed(certificate: &Certificate) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(&certificate.chain.0);
    let key = PrivateKeyDer::from_pem_slice(&certificate.key.0).unwrap();
    (chain.map(Result::unwrap).collect(), key)
}

/// TLS of a listener.
pub(crate) fn tls(certificates: Vec<Certificate>) -> Tls {
    Tls {
        certificates,
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_3,
        alpn: Vec::new(),
        client_certificates: None,
    }
}

/// Client certificates by this authority.
pub(crate) fn clients_of(authority: &Authority, optional: bool) -> ClientCertificates {
    ClientCertificates {
        authorities: vec![authority.pem()],
        optional,
    }
}

/// TLS of an upstream.
pub(crate) fn server(certificate: &Certificate, alpn: &[&str]) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (chain, key) = parsed(certificate);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Arc::new(config)
}
