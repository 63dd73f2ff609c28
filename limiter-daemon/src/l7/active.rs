//! What is in force: the engine, and what the data plane derives from its plan.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;

use super::dns::{Addresses, Change};
use super::health_check::{Checked, Watched};
use super::metrics::Door;
use super::tls::{self, TlsError};
use super::upstream::Cluster;
use crate::engine::escalation::Judges;
use crate::engine::state::State;
use crate::engine::tcp::TcpProxy;
use crate::engine::{Engine, Listener};
use crate::policy::plan::{ClientSettings, Dns, Plan, Tls};

/// The engine in force, and what the data plane derives from its plan.
#[derive(Debug)]
pub struct Active {
    engine: Engine,
    doors: HashMap<SocketAddr, Arc<Door>>,
    /// In the order of the listeners.
    tls: Vec<Option<ListenerTls>>,
    /// In the order of the listeners that pass connections on, and of their hosts.
    tcp: Vec<Vec<Option<TcpTls>>>,
    /// In the order of the backends.
    clusters: Vec<Arc<Cluster>>,
}

#[derive(Clone, Debug)]
struct ListenerTls {
    plan: Arc<Tls>,
    config: Arc<ServerConfig>,
}

/// How TLS ends that is not HTTP's.
#[derive(Clone, Debug)]
pub(super) struct TcpTls {
    plan: Arc<Tls>,
    pub(super) config: Arc<ServerConfig>,
    /// The same without ALPN, for clients that offer nothing of what it offers.
    pub(super) silent: Arc<ServerConfig>,
}

/// What is known of a connection when it comes.
pub(super) struct Arrival {
    pub(super) settings: Arc<ClientSettings>,
    /// Counts the connections there.
    pub(super) door: Arc<Door>,
    pub(super) speaks: Speaks,
}

/// What is spoken at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    Http,
    Https,
    /// Connections are passed on.
    Tcp,
}

/// Where a connection is passed on to.
pub(super) struct Onward {
    /// The name of the host that decides.
    pub(super) host: Option<Arc<str>>,
    /// TLS ends here.
    pub(super) tls: Option<TcpTls>,
    /// `None`: it leads nowhere.
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) idle: Option<Duration>,
    pub(super) max_connect_attempts: u32,
}

/// A plan that the data plane cannot carry out.
#[derive(Debug, thiserror::Error)]
pub enum ActiveError {
    #[error("listener {listener}: {source}")]
    Listener { listener: String, source: TlsError },
    #[error("backend {backend}: {source}")]
    Backend { backend: String, source: TlsError },
    #[error("backend {backend}: `{name}` is no name that a certificate can have")]
    ServerName { backend: String, name: String },
}

impl Active {
    /// Makes `plan` ready to serve with `engine`, which was compiled from it. What did not change since
    /// `previous` is taken over: connections to upstreams, counts of connections, TLS sessions.
    ///
    /// # Errors
    /// [`ActiveError`].
    pub fn new(
        plan: &Plan,
        engine: Engine,
        around: &Surroundings<'_>,
        previous: Option<&Self>,
    ) -> Result<Self, ActiveError> {
        let http = plan.listeners.iter().map(|listener| &listener.binds);
        let binds = http.chain(plan.tcp.iter().map(|proxy| &proxy.binds));
        let doors = binds
            .flatten()
            .map(|bind| {
                let known = previous.and_then(|p| p.doors.get(bind));
                (*bind, known.cloned().unwrap_or_default())
            })
            .collect();
        Ok(Self {
            doors,
            tls: listener_tls(plan, previous)?,
            tcp: tcp_tls(plan, previous)?,
            clusters: clusters(plan, around, previous)?,
            engine,
        })
    }

    pub(super) const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What holds for a connection to `bind` before it is known what it is about: of several
    /// listeners the settings of the first, and all agree in whether they speak TLS.
    pub(super) fn arrival(&self, bind: SocketAddr) -> Option<Arrival> {
        let door = Arc::clone(self.doors.get(&bind)?);
        if let Some(tcp) = self.tcp_at(bind) {
            return Some(Arrival {
                settings: Arc::clone(&tcp.client),
                door,
                speaks: Speaks::Tcp,
            });
        }
        let first = self.engine.first_listener(bind)?;
        let secure = self.tls[first].is_some();
        Some(Arrival {
            settings: Arc::clone(&self.engine.listeners[first].client),
            door,
            speaks: if secure { Speaks::Https } else { Speaks::Http },
        })
    }

    /// The listener on `bind` that passes connections on.
    pub(super) fn tcp_at(&self, bind: SocketAddr) -> Option<&TcpProxy> {
        Some(&self.engine.tcp[self.engine.tcp_at(bind)?])
    }

    /// Where a connection to `bind` goes whose client asks for `name`, in lower case; empty: for
    /// none. `None`: no host is for it.
    pub(super) fn onward(&self, bind: SocketAddr, name: &str) -> Option<Onward> {
        let index = self.engine.tcp_at(bind)?;
        let proxy = &self.engine.tcp[index];
        let host = proxy.host(name)?;
        let cluster = proxy
            .backend(host, name)
            .and_then(|backend| self.cluster(backend));
        Some(Onward {
            host: proxy.host_name(host).cloned(),
            tls: self.tcp[index][host].clone(),
            cluster: cluster.cloned(),
            idle: proxy.idle,
            max_connect_attempts: proxy.max_connect_attempts,
        })
    }

    /// How TLS is spoken by the listener for `host`, with that listener.
    pub(super) fn tls(
        &self,
        bind: SocketAddr,
        host: &str,
    ) -> Option<(&Listener, Arc<ServerConfig>)> {
        let listener = self.engine.listener(bind, host)?;
        let tls = self.tls[listener].as_ref()?;
        Some((&self.engine.listeners[listener], Arc::clone(&tls.config)))
    }

    /// What is known of each backend at `now`, in nanoseconds.
    #[must_use]
    pub fn backends(&self, now: u64) -> Vec<BackendState> {
        self.clusters
            .iter()
            .map(|cluster| cluster.state(now))
            .collect()
    }

    /// The addresses of upstreams, as far as they are known.
    #[must_use]
    pub fn upstreams(&self) -> Vec<IpAddr> {
        let endpoints = self.clusters.iter().map(|cluster| cluster.endpoints.load());
        let addresses = endpoints.map(|endpoints| {
            let targets = endpoints.targets.iter();
            targets.filter_map(|target| target.ip()).collect::<Vec<_>>()
        });
        addresses.flatten().collect()
    }

    /// Who counts offences.
    #[must_use]
    pub const fn judges(&self) -> &Judges {
        &self.engine.judges
    }

    /// Takes over what a name has become; `None`: what all have.
    ///
    /// # Errors
    /// [`ActiveError`].
    pub fn resolve(
        &self,
        change: Option<&Change<'_>>,
        around: &Surroundings<'_>,
    ) -> Result<(), ActiveError> {
        let changed = |cluster: &&Arc<Cluster>| match change {
            Some(change) => cluster.has_name(change.host, change.dns),
            None => cluster.has_names(),
        };
        self.clusters
            .iter()
            .filter(changed)
            .try_for_each(|cluster| cluster.resolve(around))
    }

    /// What is to be looked after in the background; `state` is that of the plan.
    #[must_use]
    pub fn looked_after(&self, state: &State) -> (Vec<Checked>, Vec<Watched>) {
        let all = self
            .clusters
            .iter()
            .map(|cluster| cluster.looked_after(state));
        let (checked, watched): (Vec<_>, Vec<_>) = all.unzip();
        (checked.into_iter().flatten().collect(), watched)
    }

    /// The backend of this index.
    pub(super) fn cluster(&self, backend: usize) -> Option<&Arc<Cluster>> {
        self.clusters.get(backend)
    }
}

/// The addresses that are known of a name.
pub type Names<'a> = &'a dyn Fn(&str, &Dns) -> Option<Arc<Addresses>>;

/// What a plan is made ready with.
#[expect(missing_debug_implementations, reason = "names are a function")]
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// That of the engine.
    pub state: &'a State,
    pub names: Names<'a>,
    /// Nanoseconds of the data plane's clock.
    pub now: u64,
}

/// What is known of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendState {
    /// `namespace/name`.
    pub backend: String,
    /// `namespace/name` of the policies in force, joined with `+`; empty: none.
    pub policy: String,
    pub endpoints: usize,
    /// Neither ejected nor failed by checks.
    pub healthy: usize,
    pub ejected: usize,
}

fn listener_tls(
    plan: &Plan,
    previous: Option<&Active>,
) -> Result<Vec<Option<ListenerTls>>, ActiveError> {
    let known: Vec<_> = previous
        .iter()
        .flat_map(|p| p.tls.iter().flatten())
        .collect();
    let make = |name: &str, tls: &Arc<Tls>| {
        if let Some(same) = known.iter().find(|known| known.plan == *tls) {
            return Ok((*same).clone());
        }
        let config = tls::server(tls).map_err(|source| ActiveError::Listener {
            listener: name.to_owned(),
            source,
        })?;
        let plan = Arc::clone(tls);
        Ok(ListenerTls { plan, config })
    };
    plan.listeners
        .iter()
        .map(|l| l.tls.as_ref().map(|tls| make(&l.name, tls)).transpose())
        .collect()
}

fn tcp_tls(
    plan: &Plan,
    previous: Option<&Active>,
) -> Result<Vec<Vec<Option<TcpTls>>>, ActiveError> {
    let known: Vec<_> = previous
        .iter()
        .flat_map(|p| p.tcp.iter().flatten().flatten())
        .collect();
    let make = |name: &str, plan: &Arc<Tls>| {
        if let Some(same) = known.iter().find(|known| known.plan == *plan) {
            return Ok((*same).clone());
        }
        let config = tls::server_of_tcp(plan).map_err(|source| ActiveError::Listener {
            listener: name.to_owned(),
            source,
        })?;
        let mut silent = (*config).clone();
        silent.alpn_protocols = Vec::new();
        Ok(TcpTls {
            plan: Arc::clone(plan),
            config,
            silent: Arc::new(silent),
        })
    };
    let proxies = plan.tcp.iter().map(|proxy| {
        let hosts = proxy.hosts.iter();
        hosts
            .map(|host| {
                let tls = host.tls.as_ref();
                tls.map(|tls| make(&proxy.name, tls)).transpose()
            })
            .collect()
    });
    proxies.collect()
}

fn clusters(
    plan: &Plan,
    around: &Surroundings<'_>,
    previous: Option<&Active>,
) -> Result<Vec<Arc<Cluster>>, ActiveError> {
    let before = previous.map_or(&[][..], |previous| &previous.clusters);
    let known: HashMap<_, _> = before
        .iter()
        .map(|cluster| {
            let breaker = &cluster.breaker;
            ((breaker.backend.as_str(), breaker.policy.as_str()), cluster)
        })
        .collect();
    plan.backends
        .iter()
        .map(|backend| {
            let known = known.get(&(backend.name.as_str(), backend.policy.as_str()));
            let cluster = Cluster::new(backend, around, known.map(|known| &***known))?;
            Ok(Arc::new(cluster))
        })
        .collect()
}
