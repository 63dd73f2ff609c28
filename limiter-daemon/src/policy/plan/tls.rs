//! TLS towards clients.

use std::fmt;

/// PEM text. It may be a private key, so it is never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pem(pub Vec<u8>);

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({} bytes)", self.0.len())
    }
}

/// How a listener speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Never empty. A client gets the first one that is valid for the name it asks for, or else
    /// the first of all.
    pub certificates: Vec<Certificate>,
    pub min_version: TlsVersion,
    pub max_version: TlsVersion,
    /// Protocols offered by ALPN, best first; empty: `h2`, `http/1.1`.
    pub alpn: Vec<String>,
    /// `None`: clients are not asked for certificates.
    pub client_certificates: Option<ClientCertificates>,
}

/// A certificate chain and its key, checked to fit together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Certificate {
    /// `namespace/name` of the Secret, or the path of the file.
    pub name: String,
    pub chain: Pem,
    pub key: Pem,
}

/// Client certificates that are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    pub authorities: Vec<Pem>,
    /// A client without one is let in.
    pub optional: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}
