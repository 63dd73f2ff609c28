//! The internal plan: what the policy files come to, in the terms of the engine.
//!
//! Every dialect compiles to it, and nothing past it knows which dialect a limit came from. Names
//! (`namespace/name`) are kept where state must survive a reload: buckets, counters and kernel
//! policies are found again by name.

mod action;
mod admin;
mod ask;
mod backend;
mod client;
mod daemon;
mod domain;
mod escalation;
mod filter;
mod fraction;
mod limit;
mod network;
mod observe;
mod route;
pub mod runtime;
mod store;
mod tcp;
mod tls;
mod traffic;
mod upstream;
mod written;

use std::collections::BTreeMap;

pub use action::{
    Action, DescriptorRule, HeaderMatcher, HeaderSource, HeaderTest, HitsAddend, LimitOverride,
    ParameterMatcher, ParameterTest, TextPattern, TextTest,
};
pub use admin::{Access, AdminAccess, AdminClient, AdminToken, TokenDigest};
pub use ask::{
    AddHow, AddedHeader, AskFilter, AskedService, Asking, RequestType, RlsPeer, RlsPeerTls,
};
pub use backend::{Backend, Endpoint, UpstreamProtocol, UpstreamTls};
pub use client::{
    ClientAddress, ClientSettings, ClientTimeouts, ConnectionLimits, Http1Settings, Http2Settings,
    InvalidMessage, ProxyProtocol, RequestIdPolicy,
};
pub use daemon::{
    AccessLog, AttachMode, DaemonConfig, Interface, LogFormat, LogTarget, OnDaemonLost, OnExit,
    RlsConfig, RlsHeaders, ServerTls,
};
pub use domain::{
    Amount, Descriptor, Domain, DomainKeys, DomainLimit, EntryValue, Metadata, MetadataValue,
    OnDomainFailure, SET_MARK, SetRule, TimeUnit,
};
pub use escalation::{Escalation, Offence, Reach, Terms};
pub use filter::{Answer, Filters, HeaderChanges, Mirror, PathRewrite, Redirect, Rewrite};
pub use fraction::Fraction;
pub use limit::{
    Algorithm, Candidate, Condition, Lease, LimitRule, OnStoreFailure, PolicyLimits, Quota,
    RateLimits, RefundOn, ResponseCost, SourcePrefixes, ValueTest,
};
pub use network::{NetworkLevel, NetworkPolicy, Scope, SourceLimits, SourceRule};
pub use observe::{
    ALL_TRACED, LogConfig, LogLevel, OtlpConfig, OtlpProtocol, TraceParent, TracingConfig,
};
pub use route::{
    HeaderMatch, Hostname, Listener, PathMatch, QueryMatch, Route, RouteKind, RouteMatch,
    RouteRule, Timeouts, ValueMatch, WeightedBackend,
};
pub use store::{Password, SentinelLogin, StoreAddress, StoreConfig, StoreHost, StoreTls};
pub use tcp::{TcpHost, TcpProxy, TcpTarget};
pub use tls::{Certificate, ClientCertificates, Pem, Tls, TlsVersion};
pub use traffic::{
    Abort, AdmissionControl, Fault, Replacement, ResponseOverride, ResponseSource, Retry,
    RetryTrigger, RouteTraffic,
};
pub use upstream::{
    BackendSettings, Balancing, CircuitBreaker, Dns, HashBy, HealthCheck, LoadBalancer,
    LookupFamily, OutlierDetection, Probe, RetryBudget, TcpKeepalive,
};
pub use written::Written;

/// Everything the daemon enforces, compiled from one policy directory.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub daemon: DaemonConfig,
    /// HTTP listeners. Several may bind one address: they differ in their hostnames then, and agree
    /// in whether they speak TLS.
    pub listeners: Vec<Listener>,
    /// Listeners that pass connections on.
    pub tcp: Vec<TcpProxy>,
    /// Where requests and connections go; routes and hosts refer to them by index.
    pub backends: Vec<Backend>,
    /// Kernel limits, by source.
    pub network: Vec<NetworkPolicy>,
    /// Who is sentenced, by the port of an offence; a port has one at most.
    pub escalations: Vec<Escalation>,
    /// What the rate limit service answers by, in the order of their names.
    pub domains: Vec<Domain>,
    pub rls_tls: ServerTls,
    /// Who may ask the admin listener, and for what.
    pub admin: AdminAccess,
    /// Percentages by the names of settings that may be changed while running.
    pub runtime: BTreeMap<String, u8>,
}
