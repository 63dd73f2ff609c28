//! Whom no sentence touches: what policies allow, trusted proxies, this node, its upstreams, its
//! stores, and the rate limit services that it asks.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::{IpNet, Ipv4Net};
use limiter_common::Protocol;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::engine::escalation::Protected;
use crate::global::RedisLedger;
use crate::l7::Active;
use crate::names;
use crate::policy::plan::{
    AskedService, ClientAddress, DaemonConfig, Plan, StoreAddress, StoreConfig, StoreHost,
};

/// How often names are resolved anew.
const RESOLVE: Duration = Duration::from_secs(30);
/// For one name.
const LOOKUP: Duration = Duration::from_secs(5);

/// Who is safe, as far as it is known.
#[derive(Debug)]
pub(in crate::app) struct Safe {
    fixed: ArcSwap<Fixed>,
    active: Arc<ArcSwap<Active>>,
    ledgers: Vec<Arc<RedisLedger>>,
    /// Addresses of hosts, as last resolved.
    hosts: Mutex<Vec<IpAddr>>,
    resolved: watch::Sender<bool>,
}

/// What follows from a plan.
#[derive(Debug)]
struct Fixed {
    /// Allowed, or trusted.
    nets: Protected,
    /// What the kernel does not drop for a sentence.
    allowed: Arc<Protected>,
    /// Ports on which it drops for one.
    ports: Arc<BTreeSet<u16>>,
    /// Stores and services.
    hosts: Vec<StoreHost>,
}

impl Fixed {
    fn new(plan: &Plan) -> Self {
        let allowed: Vec<_> = plan
            .network
            .iter()
            .flat_map(|p| &p.allow)
            .copied()
            .collect();
        let proxies =
            plan.listeners
                .iter()
                .filter_map(|listener| match &listener.client.client_address {
                    ClientAddress::TrustedCidrs(nets) => Some(nets),
                    _ => None,
                });
        let mut nets = allowed.clone();
        nets.extend(proxies.flatten().copied());
        nets.extend([
            IpNet::from(Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, 8).trunc()),
            IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST)),
        ]);
        let enforced = plan.network.iter().filter(|policy| !policy.shadow);
        let ports = enforced.flat_map(|policy| &policy.ports);
        let ports = ports.filter(|(protocol, _)| *protocol == Protocol::Tcp);
        Self {
            nets: Protected::new(&nets),
            allowed: Arc::new(Protected::new(&allowed)),
            ports: Arc::new(ports.map(|(_, port)| *port).collect()),
            hosts: hosts(plan),
        }
    }
}

impl Safe {
    pub(super) fn new(
        plan: &Plan,
        active: Arc<ArcSwap<Active>>,
        ledgers: Vec<Arc<RedisLedger>>,
    ) -> Self {
        Self {
            fixed: ArcSwap::from_pointee(Fixed::new(plan)),
            active,
            ledgers,
            hosts: Mutex::default(),
            resolved: watch::Sender::new(false),
        }
    }

    /// Another plan is in force.
    pub(in crate::app) fn follow(&self, plan: &Plan) {
        self.fixed.store(Arc::new(Fixed::new(plan)));
    }

    /// Whether a sentence of `net` would touch who is allowed or trusted.
    pub(super) fn always(&self, net: IpNet) -> bool {
        self.fixed.load().nets.touches(net)
    }

    /// Whether requests of others come from there.
    pub(super) fn is_proxy(&self, net: IpNet) -> bool {
        self.active.load().judges().is_proxy(net)
    }

    /// This node, its upstreams and its stores, as they are now.
    pub(super) fn of_now(&self, active: &Active) -> Protected {
        let mut all = active.upstreams();
        all.extend(
            self.hosts
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter(),
        );
        match if_addrs::get_if_addrs() {
            Ok(interfaces) => all.extend(interfaces.iter().map(if_addrs::Interface::ip)),
            Err(error) => tracing::warn!(%error, "this node's own addresses are not known"),
        }
        let nets: Vec<_> = all
            .iter()
            .map(|ip| IpNet::from(ip.to_canonical()))
            .collect();
        Protected::new(&nets)
    }

    /// The ports on which the kernel drops who is sentenced, and whom it does not drop.
    pub(super) fn limited(&self) -> (Arc<BTreeSet<u16>>, Arc<Protected>) {
        let fixed = self.fixed.load();
        (Arc::clone(&fixed.ports), Arc::clone(&fixed.allowed))
    }

    /// Waits until names have been resolved, or could not be.
    pub(super) async fn resolved(&self) {
        // The sender lies here.
        let mut resolved = self.resolved.subscribe();
        let _never = resolved.wait_for(|done| *done).await;
    }

    /// Keeps the addresses of stores and services known.
    pub(super) async fn keep_resolved(&self) {
        let mut due = interval(RESOLVE);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            self.resolve().await;
            self.resolved.send_replace(true);
        }
    }

    async fn resolve(&self) {
        let mut hosts = self.fixed.load().hosts.clone();
        hosts.extend(self.ledgers.iter().flat_map(|ledger| ledger.found()));
        let mut found = Vec::new();
        for StoreHost { host, port } in hosts {
            match timeout(LOOKUP, names::lookup(&host, port)).await {
                Ok(Ok(addresses)) => found.extend(addresses.iter().map(SocketAddr::ip)),
                // The last good addresses stay.
                Ok(Err(_)) | Err(_) => {
                    tracing::debug!(host, "its addresses are not known");
                    let known = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
                    found.extend(known.iter());
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        *self.hosts.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}

/// Stores, and services that are asked.
fn hosts(plan: &Plan) -> Vec<StoreHost> {
    let DaemonConfig {
        store,
        per_second_store,
        ..
    } = &plan.daemon;
    let stores = [store, per_second_store].into_iter().flatten();
    let mut hosts: Vec<_> = stores.flat_map(of_store).collect();
    let routes = plan.listeners.iter().flat_map(|listener| &listener.routes);
    let asks = routes
        .flat_map(|route| &route.rules)
        .flat_map(|rule| rule.asks.iter());
    for asking in asks {
        if let AskedService::Peer(peer) = &asking.filter.service {
            hosts.push(peer.host.clone());
        }
    }
    hosts.sort_unstable_by(|a, b| (&a.host, a.port).cmp(&(&b.host, b.port)));
    hosts.dedup();
    hosts
}

fn of_store(store: &StoreConfig) -> Vec<StoreHost> {
    match &store.address {
        StoreAddress::Tcp(host) => vec![host.clone()],
        StoreAddress::Unix(_) => Vec::new(),
        StoreAddress::Sentinel { sentinels, .. } => sentinels.clone(),
        StoreAddress::Cluster(servers) => servers.clone(),
    }
}
