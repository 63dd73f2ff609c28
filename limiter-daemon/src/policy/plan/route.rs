//! Listeners and routes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use regex::Regex;

use super::{Asking, ClientSettings, Filters, RateLimits, RouteTraffic, Tls};

/// An HTTP listener.
#[derive(Clone, Debug, Default)]
pub struct Listener {
    /// `namespace/gateway/listener`.
    pub name: String,
    /// Addresses to bind; an unspecified IPv6 address takes IPv4 as well.
    pub binds: Vec<SocketAddr>,
    /// Hosts it is for: of the listeners on one address, the one with the most specific pattern
    /// takes a request (and a TLS handshake).
    pub hostname: Hostname,
    /// `None`: clear text.
    pub tls: Option<Arc<Tls>>,
    pub client: Arc<ClientSettings>,
    /// Routes attached to it, by descending age of their HTTPRoute and then by name (the order in
    /// which ties of precedence are decided).
    pub routes: Vec<Route>,
}

/// An `HTTPRoute` or a `GRPCRoute` as attached to one listener.
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// `namespace/name`.
    pub name: String,
    pub kind: RouteKind,
    /// Hosts it serves on this listener; never empty.
    pub hostnames: Vec<Hostname>,
    /// Its rules are tried as they stand, and the first that matches takes the request, however
    /// specific (Envoy's and Gloo's way); else the most specific does (Gateway API's). On one
    /// hostname, rules of such routes are tried before all others.
    pub in_order: bool,
    pub rules: Vec<RouteRule>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    #[default]
    Http,
    Grpc,
}

impl Route {
    /// What its buckets and counters are filed under: an HTTPRoute and a GRPCRoute of one name are
    /// two routes.
    #[must_use]
    pub fn identity(&self) -> String {
        match self.kind {
            RouteKind::Http => self.name.clone(),
            RouteKind::Grpc => format!("{} (GRPCRoute)", self.name),
        }
    }
}

/// A host pattern, in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hostname {
    /// Every host.
    #[default]
    Any,
    Exact(String),
    /// `*.suffix`: one or more labels before `.suffix`; the field holds `.suffix`.
    Wildcard(String),
}

/// A rule of a route: any of `matches` leads to one of `backends`.
#[derive(Clone, Debug, Default)]
pub struct RouteRule {
    /// Its `name`, if it has one.
    pub name: Option<String>,
    /// Never empty: a rule without matches matches the prefix `/`.
    pub matches: Vec<RouteMatch>,
    pub filters: Filters,
    /// Empty: answered with 500 (Gateway API), unless `filters` redirect or answer.
    pub backends: Vec<WeightedBackend>,
    pub timeouts: Timeouts,
    pub limits: Arc<RateLimits>,
    /// Who is asked about its requests, in this order, after `limits` have admitted them.
    pub asks: Arc<Vec<Asking>>,
    pub traffic: Arc<RouteTraffic>,
    /// Why every request to it is answered with 500: a policy on it was never valid.
    pub broken: Option<String>,
}

/// `timeouts` of a rule; `None`: no bound of the rule's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the request's first byte to the response's last.
    pub request: Option<Duration>,
    /// For one attempt at a backend, up to the response's last byte.
    pub backend_request: Option<Duration>,
}

/// All parts must match.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    pub path: PathMatch,
    pub method: Option<Method>,
    pub headers: Vec<HeaderMatch>,
    pub query: Vec<QueryMatch>,
}

#[derive(Clone, Debug)]
pub enum PathMatch {
    Exact(String),
    /// Without a trailing `/` (the prefix `/` is the empty string); matches whole path segments.
    Prefix(String),
    /// The path begins with it, wherever its segments end (Envoy's `prefix`).
    StartsWith(String),
    /// Must match the whole path.
    Regex(Regex),
}

impl PathMatch {
    /// As it is written.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Prefix(text) if text.is_empty() => "/",
            Self::Exact(text) | Self::Prefix(text) | Self::StartsWith(text) => text,
            Self::Regex(regex) => regex.as_str(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct HeaderMatch {
    pub name: HeaderName,
    pub value: ValueMatch,
    /// It matches requests of which no such header has such a value, or that have none.
    pub invert: bool,
}

/// A parameter of the query, percent-decoded; of several with one name the first counts.
#[derive(Clone, Debug)]
pub struct QueryMatch {
    pub name: String,
    pub value: ValueMatch,
}

#[derive(Clone, Debug)]
pub enum ValueMatch {
    /// There is one, whichever.
    Present,
    Exact(HeaderValue),
    /// Must match the whole value.
    Regex(Regex),
}

/// A share of a rule's requests.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedBackend {
    /// Index into [`Plan::backends`](super::Plan::backends); `None`: the reference leads nowhere or
    /// is not allowed, and its share is answered with 500 (Gateway API).
    pub backend: Option<usize>,
    /// 0: none.
    pub weight: u32,
    /// What is done to its requests besides the rule's filters; redirects and mirrors are not.
    pub filters: Option<Arc<Filters>>,
}
