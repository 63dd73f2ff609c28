//! The internal plan: what the policy files come to, in the terms of the engine.
//!
//! Every dialect compiles to it, and nothing past it knows which dialect a limit came from. Names
//! (`namespace/name`) are kept where state must survive a reload: buckets, counters and kernel
//! policies are found again by name.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use limiter_common::{Limit, Protocol};
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
    pub on_daemon_lost: OnDaemonLost,
    /// Sources with a place of their own in the kernel's table, at least.
    pub max_sources: u32,
    /// Cells of each of the two rows of the kernel's sketch, at least.
    pub sketch_cells: u32,
    /// How long a source keeps its place in the table after its bucket is full again.
    pub keep_sources: Duration,
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
            on_daemon_lost: OnDaemonLost::Enforce,
            max_sources: 1 << 16,
            sketch_cells: 1 << 18,
            keep_sources: Duration::from_secs(60),
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

/// How the program may be attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// Native XDP where the driver can, generic XDP otherwise; where somebody else's XDP program is
    /// on the interface, tcx, or else clsact.
    #[default]
    Auto,
    /// XDP in the driver, or not at all.
    Native,
    /// XDP after the kernel built a socket buffer.
    Generic,
    /// Traffic control, by a link of its own (Linux 6.6 and later).
    Tcx,
    /// Traffic control, by a filter under the qdisc `clsact`.
    Clsact,
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

/// What the kernel does when the daemon has not been heard of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDaemonLost {
    /// Goes on enforcing the last policies.
    #[default]
    Enforce,
    /// Passes everything.
    Pass {
        /// After this long, at least 2 s.
        after: Duration,
    },
}

/// Limits by source, enforced in the kernel on what they target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// `namespace/name`.
    pub name: String,
    /// Destinations, sorted, without repetition; ICMP stands at port 0.
    pub ports: Vec<(Protocol, u16)>,
    /// Interfaces targeted as a whole: everything that comes in there and that no policy targets by
    /// its port.
    pub interfaces: Vec<String>,
    /// Limits on sources that no rule names.
    pub default: SourceLimits,
    /// Limits on sources that a rule names; of several, the one with the longest prefix holds.
    pub rules: Vec<SourceRule>,
    /// Never limited, and never dropped for a sentence.
    pub allow: Vec<IpNet>,
    /// Always dropped.
    pub deny: Vec<IpNet>,
    /// Counts what would be dropped, drops nothing.
    pub shadow: bool,
}

/// Sources with limits of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRule {
    /// Stable over reloads: its `name`, or its index.
    pub name: String,
    /// Without host bits. No prefix stands twice in the rules and lists of a policy.
    /// An IPv6 prefix (as `::/0`) means IPv6 sources only, although IPv4 lies mapped in the kernel.
    pub cidrs: Vec<IpNet>,
    pub limits: SourceLimits,
}

/// What sources may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceLimits {
    Unlimited,
    /// All must admit a packet; one to [`MAX_LEVELS`](limiter_common::policy::MAX_LEVELS), no two
    /// with the same scope.
    Levels(Vec<NetworkLevel>),
}

/// Limits on the sources of one prefix. At least one unit is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkLevel {
    pub scope: Scope,
    pub connections: Option<Limit>,
    pub packets: Option<Limit>,
    pub bytes: Option<Limit>,
}

/// Who shares a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All sources (Gloo's meaning).
    Listener,
    /// The sources of one prefix.
    Source {
        /// Prefix length of IPv4 sources, 1 to 32.
        v4: u8,
        /// Prefix length of IPv6 sources, 1 to 64.
        v6: u8,
    },
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
