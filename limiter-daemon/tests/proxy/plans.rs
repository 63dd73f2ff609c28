//! Plans, built in code.

use std::net::SocketAddr;
use std::sync::Arc;

use limiter_daemon::policy::plan::{
    Backend, BackendSettings, CircuitBreaker, ClientSettings, Endpoint, Hostname, Listener,
    PathMatch, Plan, Route, RouteMatch, RouteRule, RouteTraffic, UpstreamProtocol, WeightedBackend,
};

pub(crate) fn prefix(path: &str) -> RouteMatch {
    RouteMatch {
        path: PathMatch::Prefix(path.into()),
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
    }
}

pub(crate) fn to(backend: usize) -> WeightedBackend {
    WeightedBackend {
        backend: Some(backend),
        weight: 1,
        filters: None,
    }
}

/// A rule for `path`, to backend 0.
pub(crate) fn rule(path: &str) -> RouteRule {
    RouteRule {
        matches: vec![prefix(path)],
        backends: vec![to(0)],
        ..RouteRule::default()
    }
}

pub(crate) fn route(name: &str, hostname: Hostname, rules: Vec<RouteRule>) -> Route {
    Route {
        name: name.into(),
        hostnames: vec![hostname],
        rules,
        ..Route::default()
    }
}

pub(crate) fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::Ip(address.ip(), address.port())
}

pub(crate) fn backend(endpoints: Vec<Endpoint>) -> Backend {
    Backend {
        name: "d/backend".into(),
        endpoints,
        protocol: UpstreamProtocol::Http1,
        ..Backend::default()
    }
}

/// A listener on `bind` with one route to backend 0 for everything.
pub(crate) fn listener(bind: SocketAddr) -> Listener {
    Listener {
        name: "d/g/l".into(),
        binds: vec![bind],
        routes: vec![route("d/route", Hostname::Any, vec![rule("")])],
        ..Listener::default()
    }
}

/// [`listener`] on `bind`, to `upstream`.
pub(crate) fn plan(bind: SocketAddr, upstream: SocketAddr) -> Plan {
    Plan {
        listeners: vec![listener(bind)],
        backends: vec![backend(vec![endpoint(upstream)])],
        ..Plan::default()
    }
}

/// [`plan`] with other settings towards clients.
pub(crate) fn with_settings(
    bind: SocketAddr,
    upstream: SocketAddr,
    change: impl FnOnce(&mut ClientSettings),
) -> Plan {
    let mut settings = ClientSettings::default();
    change(&mut settings);
    let mut plan = plan(bind, upstream);
    plan.listeners[0].client = Arc::new(settings);
    plan
}

/// [`plan`] with another rule.
pub(crate) fn with_rule(
    bind: SocketAddr,
    upstream: SocketAddr,
    change: impl FnOnce(&mut RouteRule),
) -> Plan {
    let mut plan = plan(bind, upstream);
    change(&mut plan.listeners[0].routes[0].rules[0]);
    plan
}

/// [`plan`] with other settings of the backend, which has these endpoints.
pub(crate) fn with_backend(
    bind: SocketAddr,
    upstreams: &[SocketAddr],
    change: impl FnOnce(&mut BackendSettings),
) -> Plan {
    let mut settings = BackendSettings::default();
    change(&mut settings);
    let mut plan = plan(bind, bind);
    plan.backends[0].endpoints = upstreams.iter().copied().map(endpoint).collect();
    plan.backends[0].settings = Arc::new(settings);
    plan
}

/// The same for the breaker alone.
pub(crate) fn with_breaker(
    bind: SocketAddr,
    upstreams: &[SocketAddr],
    change: impl FnOnce(&mut CircuitBreaker),
) -> Plan {
    with_backend(bind, upstreams, |settings| {
        change(&mut settings.circuit_breaker);
    })
}

/// Changes what the only rule of `plan` does besides limiting.
pub(crate) fn change_traffic(plan: &mut Plan, change: impl FnOnce(&mut RouteTraffic)) {
    let mut traffic = RouteTraffic::default();
    change(&mut traffic);
    plan.listeners[0].routes[0].rules[0].traffic = Arc::new(traffic);
}

/// [`plan`] with other settings of its rule.
pub(crate) fn with_traffic(
    bind: SocketAddr,
    upstream: SocketAddr,
    change: impl FnOnce(&mut RouteTraffic),
) -> Plan {
    let mut traffic = RouteTraffic::default();
    change(&mut traffic);
    with_rule(bind, upstream, |rule| rule.traffic = Arc::new(traffic))
}
