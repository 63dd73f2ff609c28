//! The decisions: which route a request takes, which limits it meets, whether it conforms, which
//! endpoint it goes to. Pure: no I/O, no runtime, no clock. Time is a parameter.

pub mod ask;
pub mod balance;
pub mod buckets;
pub mod charge;
mod condition;
pub mod connection;
mod cost;
pub mod counters;
pub mod decide;
pub mod descriptors;
pub mod domain;
pub mod escalation;
pub mod explain;
pub mod fleet;
mod index;
pub mod limited;
pub mod meter;
mod named;
mod nets;
pub mod outcome;
pub mod request;
pub mod retry;
pub mod route;
pub mod rule;
pub mod runtime;
pub mod settle;
pub mod spread;
pub mod state;
pub mod store;
pub mod tcp;
pub mod time;
pub mod times;
pub mod top;
pub mod upstream;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::policy::plan::{self, ClientSettings, Plan};
use escalation::Judges;
use route::{Hosts, RouteTable};
use state::State;
use tcp::TcpProxy;

/// A plan made ready to decide. Immutable; what changes lies in the [`State`] it was compiled with.
#[derive(Debug)]
pub struct Engine {
    /// In the order of the plan's listeners.
    pub listeners: Vec<Listener>,
    /// Who counts offences.
    pub judges: Judges,
    /// Those that pass connections on, in the order of the plan.
    pub tcp: Vec<TcpProxy>,
    /// In the order of their addresses.
    bound: Vec<(SocketAddr, Bound)>,
    /// By address, the index in `tcp`.
    tcp_bound: BTreeMap<SocketAddr, usize>,
}

/// One listener, ready to route.
#[derive(Debug)]
pub struct Listener {
    /// `namespace/gateway/listener`.
    pub name: String,
    pub client: Arc<ClientSettings>,
    pub routes: RouteTable,
}

/// The listeners on one address, by index.
#[derive(Debug)]
struct Bound {
    first: usize,
    hosts: Hosts<usize>,
}

impl Engine {
    /// Compiles `plan`, taking over from `state` the buckets and counters of everything that still
    /// exists by name.
    #[must_use]
    pub fn compile(plan: &Plan, state: &State) -> Self {
        let listeners = plan
            .listeners
            .iter()
            .map(|listener| Listener {
                name: listener.name.clone(),
                client: Arc::clone(&listener.client),
                routes: RouteTable::compile(listener, state),
            })
            .collect();
        let tcp = plan.tcp.iter().enumerate();
        let tcp_bound =
            tcp.flat_map(|(index, proxy)| proxy.binds.iter().map(move |at| (*at, index)));
        Self {
            listeners,
            judges: state.judges(&plan.escalations),
            tcp: plan
                .tcp
                .iter()
                .map(|proxy| TcpProxy::compile(proxy, state))
                .collect(),
            bound: bound(&plan.listeners),
            tcp_bound: tcp_bound.collect(),
        }
    }

    /// Index of the listener on `bind` for `host` (as [`route::hostname`] gives it): of several, the
    /// one with the most specific hostname.
    #[must_use]
    pub fn listener(&self, bind: SocketAddr, host: &str) -> Option<usize> {
        self.bound(bind)?.hosts.get(host).copied()
    }

    /// Index of the first listener of the plan on `bind`: its settings hold for what comes before a
    /// connection has named a host.
    #[must_use]
    pub fn first_listener(&self, bind: SocketAddr) -> Option<usize> {
        self.bound(bind).map(|bound| bound.first)
    }

    /// Index of the listener on `bind` that passes connections on.
    #[must_use]
    pub fn tcp_at(&self, bind: SocketAddr) -> Option<usize> {
        self.tcp_bound.get(&bind).copied()
    }

    fn bound(&self, bind: SocketAddr) -> Option<&Bound> {
        let at = self.bound.binary_search_by_key(&bind, |(bind, _)| *bind);
        at.ok().map(|at| &self.bound[at].1)
    }
}

fn bound(listeners: &[plan::Listener]) -> Vec<(SocketAddr, Bound)> {
    let mut bound = BTreeMap::new();
    for (index, listener) in listeners.iter().enumerate() {
        for bind in &listener.binds {
            let on = bound.entry(*bind).or_insert_with(|| Bound {
                first: index,
                hosts: Hosts::default(),
            });
            on.hosts.entry(&listener.hostname, || index);
        }
    }
    bound.into_iter().collect()
}

#[cfg(test)]
mod tests;
