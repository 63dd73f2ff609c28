//! The plan as JSON. A type of its own, so that nothing is shown by accident: private keys and
//! certificates are not in it, and header values that may be secrets are redacted.

mod admin;
mod daemon;
mod domain;
mod escalation;
mod network;
mod tcp;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use admin::AdminView;
use daemon::DaemonView;
use domain::DomainView;
use escalation::EscalationView;
use network::NetworkView;
use tcp::TcpView;

use crate::engine::{ask, explain as words};
use crate::policy::plan::{
    Asking, Backend, ClientAddress, ClientSettings, LimitRule, Listener, Plan, PolicyLimits,
    ProxyProtocol, Quota, Route, RouteKind, RouteRule, Tls, TlsVersion, WeightedBackend,
};

#[derive(Debug, Serialize)]
pub(super) struct PlanView {
    daemon: DaemonView,
    /// Who may ask the admin listener.
    admin: AdminView,
    listeners: Vec<ListenerView>,
    /// Listeners that pass connections on.
    tcp: Vec<TcpView>,
    backends: Vec<BackendView>,
    network: Vec<NetworkView>,
    /// Who is sentenced, and to what.
    escalations: Vec<EscalationView>,
    /// Of Envoy's rate limit service.
    domains: Vec<DomainView>,
}

impl From<&Plan> for PlanView {
    fn from(plan: &Plan) -> Self {
        Self {
            daemon: DaemonView::from(&plan.daemon),
            admin: AdminView::from(&plan.admin),
            listeners: plan
                .listeners
                .iter()
                .map(|listener| ListenerView::new(listener, plan))
                .collect(),
            tcp: plan
                .tcp
                .iter()
                .map(|proxy| TcpView::new(proxy, plan))
                .collect(),
            backends: plan.backends.iter().map(BackendView::from).collect(),
            network: plan.network.iter().map(NetworkView::from).collect(),
            escalations: plan.escalations.iter().map(EscalationView::from).collect(),
            domains: plan.domains.iter().map(DomainView::from).collect(),
        }
    }
}

/// Seconds, with fractions.
fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

#[derive(Debug, Serialize)]
struct ListenerView {
    name: String,
    addresses: Vec<String>,
    hostname: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsView>,
    client: ClientView,
    routes: Vec<RouteView>,
}

impl ListenerView {
    fn new(listener: &Listener, plan: &Plan) -> Self {
        Self {
            name: listener.name.clone(),
            addresses: listener.binds.iter().map(ToString::to_string).collect(),
            hostname: words::hostname(&listener.hostname),
            tls: listener.tls.as_deref().map(TlsView::from),
            client: ClientView::from(listener.client.as_ref()),
            routes: listener
                .routes
                .iter()
                .map(|route| RouteView::new(route, plan))
                .collect(),
        }
    }
}

#[derive(Debug, Serialize)]
struct TlsView {
    /// Names of Secrets or files; what they hold is not told.
    certificates: Vec<String>,
    min_version: &'static str,
    max_version: &'static str,
    alpn: Vec<String>,
    /// `required`, `optional` or `none`.
    client_certificates: &'static str,
}

impl From<&Tls> for TlsView {
    fn from(tls: &Tls) -> Self {
        let version = |version| match version {
            TlsVersion::V1_2 => "1.2",
            TlsVersion::V1_3 => "1.3",
        };
        let client_certificates = match &tls.client_certificates {
            None => "none",
            Some(asked) if asked.optional => "optional",
            Some(_) => "required",
        };
        Self {
            certificates: tls
                .certificates
                .iter()
                .map(|one| one.name.clone())
                .collect(),
            min_version: version(tls.min_version),
            max_version: version(tls.max_version),
            alpn: tls.alpn.clone(),
            client_certificates,
        }
    }
}

#[derive(Debug, Serialize)]
struct ClientView {
    #[serde(skip_serializing_if = "String::is_empty")]
    policy: String,
    /// Which address a request is attributed to, in words.
    client_address: String,
    rate_limit_headers: bool,
    envoy_headers: bool,
    proxy_protocol: &'static str,
    max_connections: Option<u64>,
    max_connections_per_source: Option<u64>,
    max_body: Option<u64>,
    head_timeout_seconds: f64,
    idle_timeout_seconds: f64,
    http2_max_streams: u32,
}

impl From<&ClientSettings> for ClientView {
    fn from(client: &ClientSettings) -> Self {
        let client_address = match &client.client_address {
            ClientAddress::Peer => "the connection's".to_owned(),
            ClientAddress::TrustedHops(hops) => format!("X-Forwarded-For behind {hops} proxies"),
            ClientAddress::TrustedCidrs(nets) => {
                let nets: Vec<_> = nets.iter().map(ToString::to_string).collect();
                format!("X-Forwarded-For before {}", nets.join(", "))
            }
            ClientAddress::Header { name, required } => {
                let optional = if *required { "" } else { ", if it is there" };
                format!("header {name}{optional}")
            }
        };
        let proxy_protocol = match client.proxy_protocol {
            ProxyProtocol::Off => "off",
            ProxyProtocol::Optional => "optional",
            ProxyProtocol::Required => "required",
        };
        Self {
            policy: client.policy.clone(),
            client_address,
            rate_limit_headers: client.rate_limit_headers,
            envoy_headers: client.envoy_headers,
            proxy_protocol,
            max_connections: client.connections.max,
            max_connections_per_source: client.connections.max_per_source,
            max_body: client.max_body,
            head_timeout_seconds: seconds(client.timeouts.head),
            idle_timeout_seconds: seconds(client.timeouts.idle),
            http2_max_streams: client.http2.max_concurrent_streams,
        }
    }
}

#[derive(Debug, Serialize)]
struct RouteView {
    name: String,
    kind: &'static str,
    hostnames: Vec<String>,
    rules: Vec<RuleView>,
}

impl RouteView {
    fn new(route: &Route, plan: &Plan) -> Self {
        Self {
            name: route.name.clone(),
            kind: match route.kind {
                RouteKind::Http => "HTTPRoute",
                RouteKind::Grpc => "GRPCRoute",
            },
            hostnames: route.hostnames.iter().map(words::hostname).collect(),
            rules: route
                .rules
                .iter()
                .map(|rule| RuleView::new(rule, plan))
                .collect(),
        }
    }
}

#[derive(Debug, Serialize)]
struct RuleView {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Any of these, in words.
    matches: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    filters: Vec<String>,
    backends: Vec<WeightedView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_timeout_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_request_timeout_seconds: Option<f64>,
    local_limits: Vec<PolicyView>,
    global_limits: Vec<PolicyView>,
    /// Who is asked about its requests, and with which descriptors, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    asks: Vec<AskView>,
    /// What is done to requests besides, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    traffic: Vec<String>,
    /// Why every request is answered with 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<String>,
}

#[derive(Debug, Serialize)]
struct WeightedView {
    /// `None`: leads nowhere, answered with 500 or closed.
    backend: Option<String>,
    /// The policies that say how it is treated.
    #[serde(skip_serializing_if = "String::is_empty")]
    policy: String,
    weight: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    filters: Vec<String>,
}

impl WeightedView {
    fn new(weighted: &WeightedBackend, plan: &Plan) -> Self {
        let backend = weighted.backend.and_then(|index| plan.backends.get(index));
        let filters = weighted.filters.as_deref();
        Self {
            backend: backend.map(|backend| backend.name.clone()),
            policy: backend
                .map(|backend| backend.policy.clone())
                .unwrap_or_default(),
            weight: weighted.weight,
            filters: filters.map(|f| words::filters(f, plan)).unwrap_or_default(),
        }
    }
}

impl RuleView {
    fn new(rule: &RouteRule, plan: &Plan) -> Self {
        let backends = rule.backends.iter();
        Self {
            name: rule.name.clone(),
            matches: rule.matches.iter().map(words::route_match).collect(),
            filters: words::filters(&rule.filters, plan),
            backends: backends.map(|one| WeightedView::new(one, plan)).collect(),
            request_timeout_seconds: rule.timeouts.request.map(seconds),
            backend_request_timeout_seconds: rule.timeouts.backend_request.map(seconds),
            local_limits: rule.limits.local.iter().map(PolicyView::from).collect(),
            global_limits: rule.limits.global.iter().map(PolicyView::from).collect(),
            asks: rule.asks.iter().map(AskView::from).collect(),
            traffic: words::traffic(&rule.traffic),
            broken: rule.broken.clone(),
        }
    }
}

#[derive(Debug, Serialize)]
struct AskView {
    filter: String,
    descriptors: Vec<String>,
}

impl From<&Asking> for AskView {
    fn from(asking: &Asking) -> Self {
        let descriptors = asking.descriptors.iter();
        Self {
            filter: ask::words::filter(asking),
            descriptors: descriptors.map(|rule| ask::words::actions(rule)).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
struct PolicyView {
    policy: String,
    rules: Vec<LimitView>,
    /// Charged only if none of `rules` matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<LimitView>,
}

impl From<&PolicyLimits> for PolicyView {
    fn from(limits: &PolicyLimits) -> Self {
        Self {
            policy: limits.policy.clone(),
            rules: limits.rules.iter().map(LimitView::from).collect(),
            default: limits.default.as_ref().map(LimitView::from),
        }
    }
}

#[derive(Debug, Serialize)]
struct LimitView {
    name: String,
    /// All of these, in words; none: every request.
    conditions: Vec<String>,
    /// In words.
    quota: String,
    /// Tokens of a full bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    burst: Option<u64>,
    /// Tokens that come back in `window_seconds`.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window_seconds: Option<u64>,
    shared: bool,
    /// Each connection has a bucket of its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    per_connection: bool,
    shadow: bool,
    /// `X-RateLimit-*` for this rule; `None`: as the listener has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<bool>,
    request_cost: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_cost: Option<String>,
    /// What gives a request's tokens back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refund_on: Vec<&'static str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    candidates: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<LeaseView>,
}

/// Tokens that a node may take in advance.
#[derive(Debug, Serialize)]
struct LeaseView {
    size: u64,
    max_age_ms: u128,
}

impl From<&LimitRule> for LimitView {
    fn from(rule: &LimitRule) -> Self {
        let limited = match rule.quota {
            Quota::Limited { limit, window, .. } => Some((limit, window)),
            Quota::Blocked { .. } | Quota::Unlimited => None,
        };
        let rate = |(limit, window)| u64::try_from(words::per_window(limit, window)).ok();
        let candidates = rule.candidates.iter();
        let refunds = [
            (rule.refund_on.upstream_failure, "upstream failure"),
            (rule.refund_on.server_error, "server error"),
            (rule.refund_on.overload, "overload"),
        ];
        Self {
            name: rule.name.clone(),
            conditions: rule.conditions.iter().map(words::condition).collect(),
            quota: words::quota(rule.quota),
            burst: limited.map(|(limit, _)| limit.capacity),
            rate: limited.and_then(rate),
            window_seconds: limited.map(|(_, window)| window),
            shared: rule.shared,
            per_connection: rule.per_connection,
            shadow: rule.shadow,
            headers: rule.headers,
            request_cost: rule.request_cost,
            response_cost: rule.response_cost.as_ref().map(words::response_cost),
            refund_on: refunds
                .into_iter()
                .filter_map(|(on, what)| on.then_some(what))
                .collect(),
            candidates: candidates
                .map(|one| (one.name.clone(), one.limit.capacity))
                .collect(),
            lease: rule.lease.map(|lease| LeaseView {
                size: lease.size,
                max_age_ms: lease.max_age.as_millis(),
            }),
        }
    }
}

#[derive(Debug, Serialize)]
struct BackendView {
    name: String,
    protocol: &'static str,
    endpoints: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<UpstreamTlsView>,
    /// The policies that say how it is treated: under others it is another backend.
    #[serde(skip_serializing_if = "String::is_empty")]
    policy: String,
    /// How it is treated, in words.
    settings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct UpstreamTlsView {
    server_name: Option<String>,
    /// Any certificate is taken.
    insecure: bool,
    /// `None`: the system's authorities.
    authorities: Option<usize>,
}

impl From<&Backend> for BackendView {
    fn from(backend: &Backend) -> Self {
        Self {
            name: backend.name.clone(),
            protocol: words::protocol(backend.protocol, backend.tls.is_some()),
            endpoints: backend.endpoints.iter().map(words::endpoint).collect(),
            tls: backend.tls.as_ref().map(|tls| UpstreamTlsView {
                server_name: tls.server_name.clone(),
                insecure: tls.insecure,
                authorities: Some(tls.authorities.len()).filter(|count| *count > 0),
            }),
            policy: backend.policy.clone(),
            settings: words::backend_settings(&backend.settings),
        }
    }
}

#[cfg(test)]
mod tests;
