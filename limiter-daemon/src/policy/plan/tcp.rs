//! Listeners that pass connections on as they are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{ClientSettings, Hostname, Tls, WeightedBackend};

/// A listener whose connections go to backends, whatever is said on them.
#[derive(Clone, Debug, Default)]
pub struct TcpProxy {
    /// Unique among all listeners.
    pub name: String,
    /// Addresses to bind, which no other listener has.
    pub binds: Vec<SocketAddr>,
    /// Bounds on connections, PROXY protocol, keep-alive and the time for a handshake; the rest is
    /// for HTTP.
    pub client: Arc<ClientSettings>,
    /// Never empty, and no two have a pattern in common.
    pub hosts: Vec<TcpHost>,
    /// Endpoints of one backend that are tried for a connection, at least 1.
    pub max_connect_attempts: u32,
    /// A connection ends when no byte came from either side for so long; `None`: it stays.
    pub idle: Option<Duration>,
}

/// Where the connections go whose clients ask for some names.
#[derive(Clone, Debug, Default)]
pub struct TcpHost {
    pub name: String,
    /// Names that clients ask for by TLS (SNI), of which the most specific pattern decides, as for
    /// the hostnames of HTTP listeners. `Any` takes what has no name as well: TLS without one, and
    /// what is no TLS.
    pub names: Vec<Hostname>,
    /// TLS ends here, and backends get what was in it. Its `alpn` is what is offered, of which
    /// nothing is agreed on if it is empty or the client offers none of it. `None`: everything is
    /// passed on, TLS included.
    pub tls: Option<Arc<Tls>>,
    pub to: TcpTarget,
    /// Why its connections are closed.
    pub broken: Option<String>,
}

/// What decides on the backend of a connection.
#[derive(Clone, Debug, PartialEq)]
pub enum TcpTarget {
    /// Weights; the share of one that leads nowhere is closed.
    Weighted(Vec<WeightedBackend>),
    /// The name that the client asks for, in lower case: an index into
    /// [`Plan::backends`](super::Plan::backends). Others are closed.
    ByName(BTreeMap<String, usize>),
}

impl Default for TcpTarget {
    fn default() -> Self {
        Self::Weighted(Vec::new())
    }
}
