//! A backend as the data plane knows it: its endpoints, its breaker, and the connections that all
//! workers have to it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::exchange::Http1;
use super::pool::{Http2, Pool};
use super::target::{Target, shown};
use crate::engine::state::State;
use crate::engine::upstream::{
    Breaker, Exchange, Health, Host, Hosts, Outliers, Permit, Slot, Slots, Waiter,
};
use crate::l7::active::{ActiveError, BackendState, Surroundings};
use crate::l7::health_check::{Checked, Watched, log_ejection};
use crate::policy::plan::{Backend, BackendSettings, Dns, Endpoint, UpstreamProtocol};

/// A backend under one policy. What is shared with the plan before (breaker, slots, pools) is the
/// same over reloads.
#[derive(Debug)]
pub(in crate::l7) struct Cluster {
    /// As the plan has it.
    backend: Backend,
    pub(in crate::l7) settings: Arc<BackendSettings>,
    pub(in crate::l7) breaker: Arc<Breaker>,
    pub(in crate::l7) outliers: Arc<Outliers>,
    pub(in crate::l7) protocol: UpstreamProtocol,
    pub(in crate::l7) endpoints: ArcSwap<Endpoints>,
    pub(super) connections: Arc<Connections>,
}

/// The endpoints of a backend, of which each is a host and a target of one index.
#[derive(Debug)]
pub(in crate::l7) struct Endpoints {
    pub(in crate::l7) hosts: Arc<Hosts>,
    pub(in crate::l7) targets: Vec<Arc<Target>>,
}

impl Endpoints {
    /// Those of `backend`: of one with a name, each address that is known, or else the name. What is
    /// in `known` and still fits is taken over.
    fn new(
        backend: &Backend,
        around: &Surroundings<'_>,
        known: &[Arc<Target>],
    ) -> Result<Self, ActiveError> {
        let upstreams = around.state.upstreams();
        let mut tls = None;
        let mut targets: Vec<Arc<Target>> = Vec::new();
        for endpoint in &backend.endpoints {
            let addresses = match endpoint {
                Endpoint::Fqdn(host, _) => (around.names)(host, &backend.settings.dns),
                Endpoint::Ip(..) | Endpoint::Unix(_) => None,
            };
            let addresses = addresses.and_then(|addresses| addresses.get());
            let addresses: SmallVec<[_; 4]> = match &addresses {
                Some(addresses) => addresses.iter().copied().map(Some).collect(),
                None => SmallVec::from_slice(&[None]),
            };
            for address in addresses {
                let mut same = known.iter().filter(|known| {
                    known.endpoint == *endpoint && known.address == address && known.is_of(backend)
                });
                targets.push(match same.next() {
                    Some(same) => Arc::clone(same),
                    None => {
                        let name = shown(endpoint, address).to_string();
                        let now = around.now;
                        let host = upstreams.host(&backend.name, &backend.policy, &name, now);
                        let endpoint = (endpoint, address);
                        Arc::new(Target::new(backend, endpoint, host, &mut tls)?)
                    }
                });
            }
        }
        let hosts = targets.iter().map(|target| Arc::clone(&target.host));
        let hosts = Arc::new(Hosts::new(&backend.settings, hosts.collect()));
        Ok(Self { hosts, targets })
    }
}

impl Cluster {
    /// Makes `backend` ready to be used. What `previous`, the same backend before, has and still fits
    /// is taken over.
    ///
    /// # Errors
    /// [`ActiveError`].
    pub(in crate::l7) fn new(
        backend: &Backend,
        around: &Surroundings<'_>,
        previous: Option<&Self>,
    ) -> Result<Self, ActiveError> {
        let settings = Arc::clone(&backend.settings);
        let upstreams = around.state.upstreams();
        let breaker = upstreams.breaker(&backend.name, &backend.policy);
        breaker.set_limits(settings.circuit_breaker);
        let max = settings.circuit_breaker.max_connections;
        let connections = match previous {
            Some(previous) => {
                previous.connections.slots.set_max(max);
                Arc::clone(&previous.connections)
            }
            None => Arc::new(Connections::new(&breaker, max)),
        };
        let known = previous.map(|previous| previous.endpoints.load_full());
        let known = known.as_ref().map_or(&[][..], |known| &known.targets);
        let endpoints = Endpoints::new(backend, around, known)?;
        Ok(Self {
            outliers: upstreams.outliers(&backend.name, &backend.policy),
            protocol: backend.protocol,
            endpoints: ArcSwap::from_pointee(endpoints),
            backend: backend.clone(),
            settings,
            breaker,
            connections,
        })
    }

    /// Whether it has an endpoint of this name, resolved with these settings.
    pub(in crate::l7) fn has_name(&self, host: &str, dns: &Dns) -> bool {
        let is_it =
            |endpoint: &Endpoint| matches!(endpoint, Endpoint::Fqdn(name, _) if name == host);
        self.settings.dns == *dns && self.backend.endpoints.iter().any(is_it)
    }

    /// Whether endpoints have names.
    pub(in crate::l7) fn has_names(&self) -> bool {
        let is_name = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Fqdn(..));
        self.backend.endpoints.iter().any(is_name)
    }

    /// Takes over what the names of its endpoints have become.
    ///
    /// # Errors
    /// [`ActiveError`]; it stays as it was.
    pub(in crate::l7) fn resolve(&self, around: &Surroundings<'_>) -> Result<(), ActiveError> {
        let known = self.endpoints.load_full();
        let endpoints = Endpoints::new(&self.backend, around, &known.targets)?;
        self.endpoints.store(Arc::new(endpoints));
        Ok(())
    }

    /// What is known of it at `now`, in nanoseconds.
    pub(in crate::l7) fn state(&self, now: u64) -> BackendState {
        let endpoints = self.endpoints.load();
        let hosts = endpoints.hosts.all();
        let ejected = |host: &&Arc<Host>| matches!(host.health(now), Health::Ejected { .. });
        BackendState {
            backend: self.breaker.backend.clone(),
            policy: self.breaker.policy.clone(),
            endpoints: hosts.len(),
            healthy: hosts.iter().filter(|host| host.is_healthy(now)).count(),
            ejected: hosts.iter().filter(ejected).count(),
        }
    }

    /// What is to be looked after in the background: endpoints to be checked, and the backend if
    /// endpoints are ejected.
    pub(in crate::l7) fn looked_after(&self, state: &State) -> (Vec<Checked>, Watched) {
        let endpoints = self.endpoints.load();
        let stats = || {
            let Breaker {
                backend, policy, ..
            } = &*self.breaker;
            state.upstreams().checks(backend, policy)
        };
        let stats = self.settings.health_check.as_ref().map(|_| stats());
        let checked = stats.iter().flat_map(|stats| {
            endpoints.targets.iter().map(|target| Checked {
                host: Arc::clone(&target.host),
                target: Arc::clone(target),
                settings: Arc::clone(&self.settings),
                stats: Arc::clone(stats),
            })
        });
        let watched = Watched {
            hosts: Arc::clone(&endpoints.hosts),
            outliers: Arc::clone(&self.outliers),
            settings: Arc::clone(&self.settings),
        };
        (checked.collect(), watched)
    }

    /// Takes note of how an exchange with the endpoint of this index went.
    pub(in crate::l7) fn report(&self, hosts: &Hosts, host: usize, exchange: Exchange, now: u64) {
        let settings = self.settings.outlier_detection.as_ref();
        if let Some(ejected) = self.outliers.report(settings, hosts, host, exchange, now) {
            log_ejection(&self.breaker.backend, hosts, ejected);
        }
    }
}

/// The connections of all workers to one backend.
#[derive(Debug)]
pub(in crate::l7) struct Connections {
    pub(super) slots: Arc<Slots<Waiting>>,
    /// Of the workers that have, or had, connections to it.
    pools: Mutex<Vec<Weak<Pool>>>,
}

impl Connections {
    fn new(breaker: &Arc<Breaker>, max: u32) -> Self {
        Self {
            slots: Arc::new(Slots::new(Arc::clone(breaker), max)),
            pools: Mutex::default(),
        }
    }

    /// Makes known that `pool` may have connections.
    pub(super) fn know(&self, pool: &Arc<Pool>) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |known: &Weak<Pool>| std::ptr::eq(known.as_ptr(), Arc::as_ptr(pool));
        if !pools.iter().any(known) {
            pools.push(Arc::downgrade(pool));
        }
    }

    fn find<T>(&self, found: impl FnMut(Arc<Pool>) -> Option<T>) -> Option<T> {
        let known = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let pools: SmallVec<[_; 8]> = known.iter().filter_map(Weak::upgrade).collect();
        drop(known);
        pools.into_iter().find_map(found)
    }

    /// Closes an idle connection to one of `targets`, whichever worker has it. Its slot is free then,
    /// or passes to who waits for one. Whether there was one.
    pub(super) fn evict(&self, targets: &[Arc<Target>]) -> bool {
        self.find(|pool| pool.evict(targets)).is_some()
    }

    /// An HTTP/2 connection to `target`, whichever worker has it, and however busy it is.
    pub(super) fn borrow(&self, target: &Target) -> Option<Http2> {
        self.find(|pool| pool.borrow(target))
    }
}

/// Somebody who waits for a connection.
#[derive(Debug)]
pub(in crate::l7) struct Waiting {
    /// Endpoints that it was at already.
    not: SmallVec<[u64; 4]>,
    granted: oneshot::Sender<Grant>,
}

/// What is waited for.
#[derive(Debug)]
pub(in crate::l7) enum Grant {
    /// The right to make a connection.
    Slot(Slot<Waiting>),
    /// A connection that somebody else is done with.
    Connection(Box<Http1>),
}

impl Waiting {
    /// Both ends of a wait by somebody who was at `not` already.
    pub(super) fn new(not: SmallVec<[u64; 4]>) -> (Self, oneshot::Receiver<Grant>) {
        let (granted, receiver) = oneshot::channel();
        (Self { not, granted }, receiver)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.granted.is_closed()
    }

    /// Gives it a connection, or the right to one where it does not want to go.
    ///
    /// # Errors
    /// What was not given, if it waits no more.
    pub(super) fn take_over(self, connection: Box<Http1>) -> Result<(), Grant> {
        let grant = if self.not.contains(&connection.target) {
            Grant::Slot(connection.close())
        } else {
            Grant::Connection(connection)
        };
        self.granted.send(grant)
    }
}

impl Waiter for Waiting {
    fn grant(self, slot: Slot<Self>) -> Result<(), Slot<Self>> {
        let sent = self.granted.send(Grant::Slot(slot));
        sent.map_err(|refused| match refused {
            Grant::Slot(slot) => slot,
            Grant::Connection(connection) => connection.close(),
        })
    }
}

/// A request's share of what may be under way to a backend and to one of its endpoints, for as long
/// as it is under way; or that of a connection that is passed on.
#[derive(Debug)]
pub(in crate::l7) struct InUse {
    /// `None`: of a connection, which is no request.
    _permit: Option<Permit>,
    pub(in crate::l7) target: Arc<Target>,
}

impl InUse {
    pub(super) fn new(permit: Option<Permit>, target: Arc<Target>) -> Self {
        target.host.active.fetch_add(1, Ordering::Relaxed);
        Self {
            _permit: permit,
            target,
        }
    }

    /// The same request at another endpoint.
    pub(super) fn move_to(&mut self, target: Arc<Target>) {
        target.host.active.fetch_add(1, Ordering::Relaxed);
        let left = std::mem::replace(&mut self.target, target);
        left.host.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.target.host.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where one request may go, and where it was already.
#[derive(Debug)]
pub(in crate::l7) struct Pick {
    pub(in crate::l7) cluster: Arc<Cluster>,
    pub(in crate::l7) endpoints: Arc<Endpoints>,
    hash: Option<u64>,
    current: Option<usize>,
    tried: SmallVec<[usize; 4]>,
}

impl Pick {
    pub(in crate::l7) fn new(cluster: Arc<Cluster>, hash: Option<u64>) -> Self {
        Self {
            endpoints: cluster.endpoints.load_full(),
            cluster,
            hash,
            current: None,
            tried: SmallVec::new(),
        }
    }

    /// Chooses an endpoint, if there is one. `random`: evenly spread.
    pub(in crate::l7) fn choose(&mut self, random: u64, now: u64) {
        let hosts = &self.endpoints.hosts;
        self.current = hosts.pick(self.hash, &self.tried, random, now);
    }

    /// The endpoint that was chosen last.
    pub(in crate::l7) const fn current(&self) -> Option<usize> {
        self.current
    }

    pub(in crate::l7) fn current_target(&self) -> Option<&Arc<Target>> {
        self.endpoints.targets.get(self.current?)
    }

    /// Takes note that `target` was chosen by other means.
    pub(super) fn set_current(&mut self, target: &Target) {
        let mut targets = self.endpoints.targets.iter();
        self.current = targets.position(|other| other.id == target.id);
    }

    /// The endpoint that was chosen last did not do: others are preferred from now on.
    pub(in crate::l7) fn avoid_current(&mut self) {
        if let Some(current) = self.current
            && !self.tried.contains(&current)
        {
            self.tried.push(current);
        }
    }

    /// The targets that are avoided, by number.
    pub(super) fn avoided(&self) -> SmallVec<[u64; 4]> {
        let targets = &self.endpoints.targets;
        self.tried.iter().map(|tried| targets[*tried].id).collect()
    }

    pub(super) fn by_id(&self, id: u64) -> Option<&Arc<Target>> {
        let mut targets = self.endpoints.targets.iter();
        targets.find(|target| target.id == id)
    }
}
