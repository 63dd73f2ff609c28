//! Which backend a connection goes to that is passed on: by the name that its client asks for, then
//! by weight.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::balance::WeightedChoice;
use super::route::Hosts;
use super::state::State;
use crate::policy::plan::{self, ClientSettings, Hostname, TcpTarget};

/// A listener that passes connections on, ready to choose.
#[derive(Debug)]
pub struct TcpProxy {
    pub client: Arc<ClientSettings>,
    pub stats: Arc<TcpStats>,
    pub max_connect_attempts: u32,
    pub idle: Option<Duration>,
    by_name: bool,
    names: Hosts<usize>,
    /// In the order of the plan.
    hosts: Vec<Host>,
}

#[derive(Debug)]
struct Host {
    name: Arc<str>,
    broken: bool,
    to: To,
}

#[derive(Debug)]
enum To {
    Weighted(WeightedChoice),
    ByName(BTreeMap<String, usize>),
}

impl TcpProxy {
    /// Makes `plan` ready; its counters are those in `state`.
    #[must_use]
    pub fn compile(plan: &plan::TcpProxy, state: &State) -> Self {
        let mut names = Hosts::default();
        for (index, host) in plan.hosts.iter().enumerate() {
            for name in &host.names {
                names.entry(name, || index);
            }
        }
        let by_name = |host: &plan::TcpHost| {
            matches!(host.to, TcpTarget::ByName(_))
                || host.names.iter().any(|name| *name != Hostname::Any)
        };
        let hosts = plan.hosts.iter().map(|host| Host {
            name: host.name.as_str().into(),
            broken: host.broken.is_some(),
            to: match &host.to {
                TcpTarget::Weighted(backends) => To::Weighted(WeightedChoice::new(backends)),
                TcpTarget::ByName(backends) => To::ByName(backends.clone()),
            },
        });
        Self {
            client: Arc::clone(&plan.client),
            stats: state.tcp_stats(&plan.name),
            max_connect_attempts: plan.max_connect_attempts,
            idle: plan.idle,
            by_name: plan.hosts.iter().any(by_name),
            names,
            hosts: hosts.collect(),
        }
    }

    /// Whether it must be known what a client asks for.
    #[must_use]
    pub const fn by_name(&self) -> bool {
        self.by_name
    }

    /// The host for clients that ask for `name`, in lower case; empty: for none.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// What `host` is called.
    #[must_use]
    pub fn host_name(&self, host: usize) -> Option<&Arc<str>> {
        self.hosts.get(host).map(|host| &host.name)
    }

    /// The backend of a connection to `host`: its index in the plan.
    #[must_use]
    pub fn backend(&self, host: usize, name: &str) -> Option<usize> {
        let host = self.hosts.get(host).filter(|host| !host.broken)?;
        match &host.to {
            To::Weighted(choice) => choice.next()?.backend,
            To::ByName(backends) => backends.get(name).copied(),
        }
    }
}

/// What became of the connections of a listener; where Envoy counts it, as its TCP proxy does.
#[derive(Debug, Default)]
pub struct TcpStats {
    /// The listener.
    pub name: String,
    pub connections: AtomicU64,
    /// Connections that nothing is for: no host, or a destination that leads nowhere.
    pub no_route: AtomicU64,
    /// Bytes that came from clients and were passed on.
    pub received: AtomicU64,
    /// Bytes that clients were sent.
    pub sent: AtomicU64,
    /// Connections that ended because nothing came for too long.
    pub idle: AtomicU64,
    failed: [AtomicU64; Lost::ALL.len()],
}

/// Why a connection was closed that had a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The backend has no endpoints.
    NoEndpoint,
    /// As many connections are there as may be.
    Overflow,
    /// No endpoint that was tried could be reached.
    Unreachable,
}

impl Lost {
    pub const ALL: [Self; 3] = [Self::NoEndpoint, Self::Overflow, Self::Unreachable];

    /// For a metric's label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoEndpoint => "no_endpoint",
            Self::Overflow => "overflow",
            Self::Unreachable => "unreachable",
        }
    }
}

impl TcpStats {
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    pub fn lose(&self, why: Lost) {
        self.failed[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Connections closed for this reason.
    #[must_use]
    pub fn lost(&self, why: Lost) -> u64 {
        self.failed[why as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::plan::{TcpHost, WeightedBackend};

    fn to(backend: usize, weight: u32) -> WeightedBackend {
        WeightedBackend {
            backend: Some(backend),
            weight,
            filters: None,
        }
    }

    fn host(names: &[Hostname], to: TcpTarget) -> TcpHost {
        TcpHost {
            names: names.to_vec(),
            to,
            ..TcpHost::default()
        }
    }

    fn compile(hosts: Vec<TcpHost>) -> TcpProxy {
        let plan = plan::TcpProxy {
            hosts,
            ..plan::TcpProxy::default()
        };
        TcpProxy::compile(&plan, &State::new(1))
    }

    #[test]
    fn exact_names_go_before_wildcards_and_those_before_none() {
        let weighted = |index| TcpTarget::Weighted(vec![to(index, 1)]);
        let wildcard = |suffix: &str| Hostname::Wildcard(suffix.into());
        let proxy = compile(vec![
            host(&[Hostname::Any], weighted(0)),
            host(&[wildcard(".b")], weighted(1)),
            host(
                &[wildcard(".a.b"), Hostname::Exact("c".into())],
                weighted(2),
            ),
            host(&[Hostname::Exact("x.a.b".into())], weighted(3)),
        ]);
        assert!(proxy.by_name());
        for (name, wanted) in [
            ("x.a.b", 3),
            ("y.a.b", 2),
            ("z.y.a.b", 2),
            ("c", 2),
            ("a.b", 1),
            ("b", 0),
            ("", 0),
        ] {
            let backend = proxy.host(name).and_then(|host| proxy.backend(host, name));
            assert_eq!(backend, Some(wanted), "{name}");
        }
        assert!(!compile(vec![host(&[Hostname::Any], weighted(0))]).by_name());
    }

    #[test]
    fn weights_are_shares_and_names_lead_to_backends_of_their_own() {
        let shares = TcpTarget::Weighted(vec![to(5, 3), to(6, 1), to(7, 0)]);
        let proxy = compile(vec![host(&[Hostname::Any], shares)]);
        let mut seen = BTreeMap::new();
        for _ in 0..40 {
            *seen.entry(proxy.backend(0, "")).or_insert(0) += 1;
        }
        assert_eq!(seen, BTreeMap::from([(Some(5), 30), (Some(6), 10)]));

        let by_name = TcpTarget::ByName(BTreeMap::from([("db_default".to_owned(), 4)]));
        let mut hosts = vec![host(&[Hostname::Any], by_name)];
        let proxy = compile(hosts.clone());
        assert!(proxy.by_name());
        assert_eq!(proxy.backend(0, "db_default"), Some(4));
        assert_eq!(proxy.backend(0, ""), None);
        hosts[0].broken = Some("why".into());
        assert_eq!(compile(hosts).backend(0, "db_default"), None);
    }
}
