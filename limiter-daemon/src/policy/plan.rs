//! The internal plan: what the policy files come to, in the terms of the engine.
//!
//! Every dialect compiles to it, and nothing past it knows which dialect a limit came from. Names
//! (`namespace/name`) are kept where state must survive a reload: buckets, counters and kernel
//! policies are found again by name.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use limiter_common::Limit;
use regex::Regex;

/// Everything the daemon enforces, compiled from one policy directory.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub daemon: DaemonConfig,
    /// HTTP listeners; no two bind the same address.
    pub listeners: Vec<Listener>,
    /// Where requests go; routes refer to them by index.
    pub backends: Vec<Backend>,
    /// Kernel limits, by source.
    pub network: Vec<NetworkPolicy>,
}

/// `LimiterConfig`: the daemon's own settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    /// Where XDP is attached; empty: nowhere.
    pub interfaces: Vec<Interface>,
    /// Directory under bpffs for maps and links.
    pub pin_path: PathBuf,
    pub on_exit: OnExit,
    /// Entries of the kernel's table of sources.
    pub max_sources: u32,
    /// Admin listener (health, metrics).
    pub admin: SocketAddr,
    /// Data plane threads, each with a runtime of its own; `None`: one for each CPU.
    pub workers: Option<usize>,
    /// Buckets of HTTP limits kept in memory, over all rules.
    pub max_buckets: usize,
    /// How long in-flight requests may take to finish after SIGTERM.
    pub drain_timeout: Duration,
}

impl Default for DaemonConfig {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            pin_path: PathBuf::from("/sys/fs/bpf/limiterd"),
            on_exit: OnExit::Detach,
            max_sources: 1 << 16,
            admin: SocketAddr::from(([127, 0, 0, 1], 9901)),
            workers: None,
            max_buckets: 1 << 20,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// An interface whose ingress packets the XDP program sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub mode: AttachMode,
}

/// How the XDP program may be attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// Native where the driver can, generic otherwise.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// After the kernel built a socket buffer.
    Generic,
}

/// What a clean exit leaves in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExit {
    /// Detach the program and remove the pins.
    #[default]
    Detach,
    /// Leave the last policy enforced; the next start adopts it.
    Keep,
}

/// A limit per source, enforced by the XDP program on the ports of the listeners it targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// `namespace/name`.
    pub name: String,
    /// TCP ports of the targeted listeners, sorted, without repetition.
    pub ports: Vec<u16>,
    pub connections: Option<Limit>,
    pub packets: Option<Limit>,
}

/// An HTTP listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// `namespace/gateway/listener`.
    pub name: String,
    /// Addresses to bind; an unspecified IPv6 address takes IPv4 as well.
    pub binds: Vec<SocketAddr>,
    /// Routes attached to it, by descending age of their HTTPRoute and then by name (the order in
    /// which ties of precedence are decided).
    pub routes: Vec<Route>,
}

/// An `HTTPRoute` as attached to one listener.
#[derive(Clone, Debug)]
pub struct Route {
    /// `namespace/name`.
    pub name: String,
    /// Hosts it serves on this listener; never empty.
    pub hostnames: Vec<Hostname>,
    pub rules: Vec<RouteRule>,
    /// Local limits in force on it: its own policy's, or its Gateway's.
    pub limits: Option<LocalLimits>,
}

/// A host pattern, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hostname {
    /// Every host.
    Any,
    Exact(String),
    /// `*.suffix`: one or more labels before `.suffix`; the field holds `.suffix`.
    Wildcard(String),
}

/// A rule of a route: any of `matches` leads to one of `backends`.
#[derive(Clone, Debug)]
pub struct RouteRule {
    /// Never empty: a rule without matches matches the prefix `/`.
    pub matches: Vec<RouteMatch>,
    /// Empty: answered with 500 (Gateway API).
    pub backends: Vec<WeightedBackend>,
}

/// All parts must match.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    pub path: PathMatch,
    pub method: Option<Method>,
    pub headers: Vec<HeaderMatch>,
}

#[derive(Clone, Debug)]
pub enum PathMatch {
    Exact(String),
    /// Without a trailing `/` (the prefix `/` is the empty string); matches whole path segments.
    Prefix(String),
    /// Must match the whole path.
    Regex(Regex),
}

#[derive(Clone, Debug)]
pub struct HeaderMatch {
    pub name: HeaderName,
    pub value: ValueMatch,
}

#[derive(Clone, Debug)]
pub enum ValueMatch {
    Exact(HeaderValue),
    /// Must match the whole value.
    Regex(Regex),
}

/// A share of a rule's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightedBackend {
    /// Index into [`Plan::backends`].
    pub backend: usize,
    /// 0: none.
    pub weight: u32,
}

/// A group of endpoints that requests are spread over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// `namespace/name`.
    pub name: String,
    /// Never empty.
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Ip(IpAddr, u16),
    Fqdn(String, u16),
}

/// The local limits of one policy on one route.
#[derive(Clone, Debug)]
pub struct LocalLimits {
    /// `namespace/name` of the policy.
    pub policy: String,
    /// Rules with selectors: every one that matches is charged, and all must conform.
    pub rules: Vec<LimitRule>,
    /// The rule without selectors: charged only if no other rule matched.
    pub default: Option<LimitRule>,
}

#[derive(Clone, Debug)]
pub struct LimitRule {
    /// `namespace/name/rule/index`, stable over reloads.
    pub name: String,
    /// All must match; empty for the default rule.
    pub selectors: Vec<HeaderSelector>,
    pub limit: Limit,
    /// Seconds of the limit's unit, for the `w` of `X-RateLimit-Limit`.
    pub window: u64,
}

/// A selector on one request header.
#[derive(Clone, Debug)]
pub struct HeaderSelector {
    pub name: HeaderName,
    pub test: HeaderTest,
}

#[derive(Clone, Debug)]
pub enum HeaderTest {
    /// The header has this value.
    Is(HeaderValue),
    /// The header has another value or is absent (`Exact` with `invert`).
    IsNot(HeaderValue),
    /// The header is present; each value has a bucket of its own (`Distinct`).
    Each,
    /// The header is absent (`Distinct` with `invert`).
    Absent,
}
