//! What is in force: the engine, and what the data plane derives from its plan.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::ServerConfig;

use super::dns::{Addresses, Change};
use super::health_check::{Checked, Watched};
use super::metrics::Door;
use super::tls::{self, TlsError};
use super::upstream::Cluster;
use crate::engine::escalation::Judges;
use crate::engine::state::State;
use crate::engine::{Engine, Listener};
use crate::policy::plan::{Dns, Plan, Tls};

/// The engine in force, and what the data plane derives from its plan.
#[derive(Debug)]
pub struct Active {
    engine: Engine,
    doors: HashMap<SocketAddr, Arc<Door>>,
    /// In the order of the listeners.
    tls: Vec<Option<ListenerTls>>,
    /// In the order of the backends.
    clusters: Vec<Arc<Cluster>>,
}

#[derive(Clone, Debug)]
struct ListenerTls {
    plan: Arc<Tls>,
    config: Arc<ServerConfig>,
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
        let binds = plan.listeners.iter().flat_map(|l| &l.binds);
        let doors = binds
            .map(|bind| {
                let known = previous.and_then(|p| p.doors.get(bind));
                (*bind, known.cloned().unwrap_or_default())
            })
            .collect();
        Ok(Self {
            doors,
            tls: listener_tls(plan, previous)?,
            clusters: clusters(plan, around, previous)?,
            engine,
        })
    }

    pub(super) const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The first listener on `bind`, and the count of the connections there.
    pub(super) fn door(&self, bind: SocketAddr) -> Option<(&Listener, Arc<Door>)> {
        let first = self.engine.first_listener(bind)?;
        let door = self.doors.get(&bind)?;
        Some((&self.engine.listeners[first], Arc::clone(door)))
    }

    /// Whether `bind` speaks TLS; all listeners on one address agree in that.
    pub(super) fn is_tls(&self, bind: SocketAddr) -> bool {
        self.engine
            .first_listener(bind)
            .is_some_and(|first| self.tls[first].is_some())
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
