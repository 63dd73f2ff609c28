//! Where requests go.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use super::{BackendSettings, Pem};

/// A group of endpoints that requests are spread over, as one policy treats it: under two policies it
/// is two backends, each with its own breakers, health and connections.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backend {
    /// `namespace/name`, of a Service with the port: `namespace/name:port`.
    pub name: String,
    /// Empty: every request to it is answered with 503.
    pub endpoints: Vec<Endpoint>,
    pub protocol: UpstreamProtocol,
    /// `None`: in clear text.
    pub tls: Option<UpstreamTls>,
    /// `namespace/name` of the policies in force, joined with `+`; empty: none.
    pub policy: String,
    pub settings: Arc<BackendSettings>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    Ip(IpAddr, u16),
    /// Resolved when it is connected to.
    Fqdn(String, u16),
    Unix(PathBuf),
}

/// The address: `192.0.2.1:80`, `name:80` or `unix:/path`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip, port) => SocketAddr::new(*ip, *port).fmt(f),
            Self::Fqdn(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What is spoken to the endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1; over TLS, HTTP/2 where the endpoint takes it (ALPN).
    #[default]
    Http1,
    /// HTTP/2, without asking (prior knowledge): `appProtocol` `h2c` or `grpc`, and GRPCRoutes.
    Http2,
}

/// TLS to the endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Name that the certificate must have, and that is sent (SNI); `None`: the endpoint's own.
    pub server_name: Option<String>,
    /// Authorities that may have signed it; empty: those of the system.
    pub authorities: Vec<Pem>,
    /// Takes any certificate. Only where a file says so.
    pub insecure: bool,
}
