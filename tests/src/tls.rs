//! Certificates that a test makes, and clients that trust them.

use std::net::TcpStream;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};

use crate::netns::Netns;
use crate::raw::{Raw, tcp};

/// An authority.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A connection with TLS.
pub type TlsClient = Raw<StreamOwned<ClientConnection, TcpStream>>;

impl Authority {
    /// # Errors
    /// When there is no randomness.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        Ok(Self(CertifiedIssuer::self_signed(params, key)?))
    }

    /// A Secret of type `kubernetes.io/tls` with a new certificate for `host`.
    ///
    /// # Errors
    /// When `host` is no name.
    pub fn secret(&self, name: &str, host: &str) -> Result<String> {
        let [certificate, key] = self.pair(host)?.map(|pem| STANDARD.encode(pem));
        Ok(format!(
            "\
apiVersion: v1
kind: Secret
metadata: {{name: {name}}}
type: kubernetes.io/tls
data: {{tls.crt: {certificate}, tls.key: {key}}}
"
        ))
    }

    /// This authority's certificate, in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A new certificate for `host` and its key, in PEM.
    ///
    /// # Errors
    /// When `host` is no name.
    pub fn pair(&self, host: &str) -> Result<[String; 2]> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        // Another name than the authority's, or OpenSSL takes it for one that signed itself.
        params.distinguished_name.push(DnType::CommonName, host);
        let certificate = params.signed_by(&key, &self.0)?;
        Ok([certificate.pem(), key.serialize_pem()])
    }

    /// [`Authority::secret`], with this authority's certificate in it.
    ///
    /// # Errors
    /// When `host` is no name.
    pub fn secret_with_authority(&self, name: &str, host: &str) -> Result<String> {
        let secret = self.secret(name, host)?;
        let authority = STANDARD.encode(self.pem());
        Ok(secret.replace("\ndata: {", &format!("\ndata: {{ca.crt: {authority}, ")))
    }

    /// What a client that trusts this authority, and speaks these protocols, goes by.
    ///
    /// # Errors
    /// None in practice.
    pub fn client(&self, alpn: &[&str]) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// What a server goes by that shows a new certificate for `host`.
    ///
    /// # Errors
    /// When `host` is no name.
    pub fn server(&self, host: &str) -> Result<Arc<ServerConfig>> {
        let [chain, key] = self.pair(host)?;
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Arc::new(config))
    }

    /// Connects to `address` from `netns`, for `host`, and shakes hands.
    ///
    /// # Errors
    /// When the certificate shown is not this authority's, or for another host.
    pub fn connect(&self, netns: &Netns, address: &str, host: &str) -> Result<TlsClient> {
        let name = ServerName::try_from(host.to_owned())?;
        let mut connection = ClientConnection::new(self.client(&["http/1.1"])?, name)?;
        let mut stream = tcp(netns, address)?;
        connection
            .complete_io(&mut stream)
            .with_context(|| format!("no TLS with {host}"))?;
        Ok(Raw::on(StreamOwned::new(connection, stream)))
    }
}
