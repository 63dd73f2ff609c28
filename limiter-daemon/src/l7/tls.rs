//! TLS: what a plan says, made into configurations of rustls.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion, version,
};

use crate::policy::plan::{
    Certificate, Pem, StoreTls, Tls, TlsVersion, UpstreamProtocol, UpstreamTls,
};

/// What is in a plan and rustls does not take.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("certificate `{name}`: {reason}; is it a PEM chain with the key that belongs to it?")]
    Certificate { name: String, reason: String },
    #[error("certificate authorities: {0}; are they PEM certificates?")]
    Authorities(String),
    #[error("the minimum TLS version is above the maximum")]
    Versions,
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(ring::default_provider())))
}

/// The configuration of a listener.
///
/// # Errors
/// [`TlsError`].
pub fn server(tls: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    if !tls.alpn.is_empty() {
        return server_of_tcp(tls);
    }
    let mut config = certified_server(tls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The same for connections that are passed on: nothing is agreed on by ALPN that is not in the plan.
///
/// # Errors
/// [`TlsError`].
pub(super) fn server_of_tcp(tls: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = certified_server(tls)?;
    config.alpn_protocols = tls.alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

fn certified_server(tls: &Tls) -> Result<ServerConfig, TlsError> {
    let versions = versions(tls.min_version, tls.max_version)?;
    let builder =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(&versions)?;
    let builder = match &tls.client_certificates {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let roots = Arc::new(authorities(&clients.authorities)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let verifier = if clients.optional {
                verifier.allow_unauthenticated()
            } else {
                verifier
            };
            let verifier = verifier
                .build()
                .map_err(|error| TlsError::Authorities(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let keys = tls
        .certificates
        .iter()
        .map(certified)
        .collect::<Result<_, _>>()?;
    Ok(builder.with_cert_resolver(Arc::new(Certificates(keys))))
}

fn versions(
    min: TlsVersion,
    max: TlsVersion,
) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    let all = [
        (TlsVersion::V1_3, &version::TLS13),
        (TlsVersion::V1_2, &version::TLS12),
    ];
    let within = all.into_iter().filter(|(v, _)| (min..=max).contains(v));
    let versions: Vec<_> = within.map(|(_, version)| version).collect();
    if versions.is_empty() {
        return Err(TlsError::Versions);
    }
    Ok(versions)
}

fn certified(certificate: &Certificate) -> Result<Arc<CertifiedKey>, TlsError> {
    let (chain, key) = parsed(certificate)?;
    CertifiedKey::from_der(chain, key, &provider())
        .map(Arc::new)
        .map_err(|error| wrong(certificate, &error))
}

fn wrong(certificate: &Certificate, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::Certificate {
        name: certificate.name.clone(),
        reason: reason.to_string(),
    }
}

/// A chain and its key.
type Parsed = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn parsed(certificate: &Certificate) -> Result<Parsed, TlsError> {
    let chain = CertificateDer::pem_slice_iter(&certificate.chain.0)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(certificate, &error))?;
    if chain.is_empty() {
        return Err(wrong(certificate, &"it has no certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(&certificate.key.0)
        .map_err(|error| wrong(certificate, &error))?;
    Ok((chain, key))
}

/// A listener's certificates; the first that is valid for the name, or else the first of all.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        let valid = name.and_then(|name| {
            let name = ServerName::try_from(name).ok()?;
            self.0.iter().find(|key| is_for(key, &name))
        });
        valid.or_else(|| self.0.first()).cloned()
    }
}

fn is_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    key.end_entity_cert()
        .and_then(ParsedCertificate::try_from)
        .and_then(|certificate| verify_server_name(&certificate, name))
        .is_ok()
}

fn authorities(pems: &[Pem]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for pem in pems {
        for certificate in CertificateDer::pem_slice_iter(&pem.0) {
            let certificate =
                certificate.map_err(|error| TlsError::Authorities(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| TlsError::Authorities(error.to_string()))?;
        }
    }
    if roots.is_empty() {
        return Err(TlsError::Authorities("there are none".into()));
    }
    Ok(roots)
}

/// The configuration towards the endpoints of a backend.
///
/// # Errors
/// [`TlsError`].
pub(super) fn client(
    tls: &UpstreamTls,
    protocol: UpstreamProtocol,
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut config = if tls.insecure {
        let verifier = Arc::new(Anyone(provider()));
        let builder = builder
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        builder.with_no_client_auth()
    } else if tls.authorities.is_empty() {
        let builder = builder.with_root_certificates(system_roots()?);
        builder.with_no_client_auth()
    } else {
        let builder = builder.with_root_certificates(authorities(&tls.authorities)?);
        builder.with_no_client_auth()
    };
    config.alpn_protocols = match protocol {
        UpstreamProtocol::Http1 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        UpstreamProtocol::Http2 => vec![b"h2".to_vec()],
    };
    Ok(Arc::new(config))
}

/// The configuration towards a rate limit service, or another limiterd: HTTP/2, and a certificate of our
/// own if there is one.
///
/// # Errors
/// [`TlsError`].
pub fn peer(tls: &StoreTls) -> Result<Arc<ClientConfig>, TlsError> {
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match &tls.authorities {
        Some(pem) => builder.with_root_certificates(authorities(std::slice::from_ref(pem))?),
        None => builder.with_root_certificates(system_roots()?),
    };
    let mut config = match &tls.certificate {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let (chain, key) = parsed(certificate)?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// The same as `client`, for a connection that is to agree on one of these protocols; on none if
/// there are none.
#[must_use]
pub fn offering(config: &ClientConfig, protocols: &[&str]) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    Arc::new(config)
}

fn system_roots() -> Result<Arc<RootCertStore>, TlsError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(Arc::clone(roots));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let first = found.errors.first().map(ToString::to_string);
        let reason = first.unwrap_or_else(|| "none found".into());
        return Err(TlsError::Authorities(format!(
            "those of the system: {reason}"
        )));
    }
    Ok(Arc::clone(ROOTS.get_or_init(|| Arc::new(roots))))
}

/// Takes any certificate; the handshake's signatures still have to be right.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
