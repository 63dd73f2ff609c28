//! Asking a rate limit service about requests: Envoy's HTTP rate limit filter.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use super::{DescriptorRule, StoreHost, StoreTls};

/// A filter that asks a rate limit service.
#[derive(Clone, Debug)]
pub struct AskFilter {
    /// `namespace/name/filter/index`.
    pub name: String,
    /// Which descriptors are its own, 0 to 10.
    pub stage: u8,
    pub requests: RequestType,
    pub service: AskedService,
    /// What a request waits at most, above 0 and at most 60 s.
    pub timeout: Duration,
    /// What a request is answered with that the service says nothing of; `None`: it passes.
    pub error_status: Option<StatusCode>,
    /// Of requests over a limit; at least 400.
    pub limited_status: StatusCode,
    /// gRPC calls over a limit get RESOURCE_EXHAUSTED instead of UNAVAILABLE.
    pub resource_exhausted: bool,
    /// `X-RateLimit-*` (draft 03).
    pub headers: bool,
    /// `x-envoy-ratelimited`
    pub envoy_header: bool,
    /// `Retry-After`
    pub retry_after: bool,
    /// On answers to requests over a limit.
    pub response_headers: Vec<AddedHeader>,
    /// Stands in the names of its statistics; empty: nothing does.
    pub stat_prefix: String,
}

/// A header that is added to an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedHeader {
    pub name: HeaderName,
    pub value: HeaderValue,
    pub how: AddHow,
}

/// What is done about a header that is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddHow {
    /// One more is added.
    #[default]
    Append,
    /// It stays as it is.
    IfAbsent,
    /// It is replaced.
    Overwrite,
    /// It is replaced; nothing is added where there is none.
    OverwriteIfPresent,
}

/// Which requests a filter asks about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestType {
    #[default]
    Both,
    /// `x-envoy-internal: true`
    Internal,
    External,
}

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskedService {
    /// limiterd itself: the domains of its files, in its own process.
    Own,
    Peer(Arc<RlsPeer>),
    /// What it needs is not there, and why: every question fails.
    Broken(String),
}

/// A rate limit service elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RlsPeer {
    pub host: StoreHost,
    /// `None`: in clear text.
    pub tls: Option<RlsPeerTls>,
}

/// TLS to a rate limit service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RlsPeerTls {
    /// Name that its certificate must have; `None`: that of its address.
    pub server_name: Option<String>,
    /// Who vouches for it, and our own certificate.
    pub how: StoreTls,
}

impl fmt::Display for AskedService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("limiterd"),
            Self::Peer(peer) => peer.host.fmt(f),
            Self::Broken(why) => write!(f, "nobody ({why})"),
        }
    }
}

/// A filter on a rule of a route: what it asks about the rule's requests.
#[derive(Clone, Debug)]
pub struct Asking {
    pub filter: Arc<AskFilter>,
    pub domain: String,
    /// Who asks, for descriptors: `namespace/name` of the Gateway.
    pub source: String,
    /// Those that the filter's stage and the levels of the configuration leave; never empty.
    pub descriptors: Vec<Arc<DescriptorRule>>,
}
