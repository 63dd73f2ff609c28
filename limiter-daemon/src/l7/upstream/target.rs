//! An endpoint as it is connected to.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use http::uri::{Authority, Scheme};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::engine::upstream::Host;
use crate::l7::active::ActiveError;
use crate::l7::tls;
use crate::policy::plan::{Backend, BackendSettings, Endpoint, UpstreamProtocol, UpstreamTls};

/// An endpoint of a backend. It is the same one over reloads for as long as nothing about it
/// changes.
#[derive(Debug)]
pub(in crate::l7) struct Target {
    /// Under which its connections are pooled.
    pub(super) id: u64,
    /// `namespace/name` of its backend, and of the policies in force on that.
    pub(in crate::l7) backend: String,
    policy: String,
    /// What is known of it; other targets may share it for a while, after its TLS has changed.
    pub(in crate::l7) host: Arc<Host>,
    /// Those of all workers.
    pub(super) connections: Arc<AtomicU32>,
    pub(in crate::l7) endpoint: Endpoint,
    /// Of the endpoint's name; `None`: it has none, or is resolved when it is connected to.
    pub(in crate::l7) address: Option<IpAddr>,
    pub(super) protocol: UpstreamProtocol,
    plan: Option<UpstreamTls>,
    pub(super) tls: Option<TargetTls>,
}

#[derive(Debug)]
pub(super) struct TargetTls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

impl Target {
    /// Its address; `None`: it has none, or it is not known yet.
    pub(in crate::l7) const fn ip(&self) -> Option<IpAddr> {
        match &self.endpoint {
            Endpoint::Ip(ip, _) => Some(*ip),
            Endpoint::Fqdn(..) | Endpoint::Unix(_) => self.address,
        }
    }

    /// `config` is that of the backend's endpoints, made for the first of them.
    ///
    /// # Errors
    /// [`ActiveError`].
    pub(in crate::l7) fn new(
        backend: &Backend,
        (endpoint, address): (&Endpoint, Option<IpAddr>),
        host: Arc<Host>,
        config: &mut Option<Arc<ClientConfig>>,
    ) -> Result<Self, ActiveError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let tls = match &backend.tls {
            None => None,
            Some(tls) => Some(TargetTls::new(backend, endpoint, tls, config)?),
        };
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            backend: backend.name.clone(),
            policy: backend.policy.clone(),
            host,
            connections: Arc::default(),
            endpoint: endpoint.clone(),
            address,
            protocol: backend.protocol,
            plan: backend.tls.clone(),
            tls,
        })
    }

    /// Whether it is an endpoint of `backend`, as that is now.
    pub(in crate::l7) fn is_of(&self, backend: &Backend) -> bool {
        self.backend == backend.name
            && self.policy == backend.policy
            && self.protocol == backend.protocol
            && self.plan == backend.tls
    }

    /// Whether HTTP/2 is spoken without asking.
    pub(in crate::l7) fn is_http2(&self) -> bool {
        self.protocol == UpstreamProtocol::Http2
    }

    /// Whether one more connection may be made to it.
    pub(super) fn has_room(&self, settings: &BackendSettings) -> bool {
        let max = settings.circuit_breaker.max_connections_per_endpoint;
        self.connections.load(Ordering::Relaxed) < max
    }

    pub(in crate::l7) const fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub(in crate::l7) fn scheme(&self) -> Scheme {
        if self.tls.is_some() {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        }
    }

    /// What an HTTP/2 request without a host is sent with.
    pub(in crate::l7) fn authority(&self) -> Authority {
        let own = self.to_string().parse().ok();
        own.unwrap_or_else(|| Authority::from_static("localhost"))
    }
}

/// The address: `192.0.2.1:80`, `name:80` or `unix:/path`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        shown(&self.endpoint, self.address).fmt(f)
    }
}

/// An endpoint as it is shown: by `address` if its name has one.
pub(super) fn shown(endpoint: &Endpoint, address: Option<IpAddr>) -> Endpoint {
    match (endpoint, address) {
        (Endpoint::Fqdn(_, port), Some(address)) => Endpoint::Ip(address, *port),
        _ => endpoint.clone(),
    }
}

impl TargetTls {
    fn new(
        backend: &Backend,
        endpoint: &Endpoint,
        tls: &UpstreamTls,
        config: &mut Option<Arc<ClientConfig>>,
    ) -> Result<Self, ActiveError> {
        let made = match config {
            Some(made) => Arc::clone(made),
            None => {
                let made = tls::client(tls, backend.protocol).map_err(|source| {
                    let backend = backend.name.clone();
                    ActiveError::Backend { backend, source }
                })?;
                Arc::clone(config.insert(made))
            }
        };
        let name = match (&tls.server_name, endpoint) {
            (Some(name), _) | (None, Endpoint::Fqdn(name, _)) => name.clone(),
            (None, Endpoint::Ip(ip, _)) => ip.to_string(),
            (None, Endpoint::Unix(_)) => "localhost".into(),
        };
        let parsed = ServerName::try_from(name.clone());
        let name = parsed.map_err(|_invalid| ActiveError::ServerName {
            backend: backend.name.clone(),
            name,
        })?;
        let config = made;
        Ok(Self { config, name })
    }
}
