//! How a backend is treated: circuit breakers, load balancing, health, connections (the parts of
//! `BackendTrafficPolicy` that Envoy keeps with a cluster). Facts: Envoy Gateway's and Envoy's
//! references of `CircuitBreaker`, `LoadBalancer`, `HealthCheck` and outlier detection.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::{HeaderName, Method};

use super::Fraction;

/// The settings of a backend under one policy. The defaults are those of a backend without a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendSettings {
    pub circuit_breaker: CircuitBreaker,
    pub load_balancer: LoadBalancer,
    /// `healthCheck.passive`; `None`: no endpoint is ejected.
    pub outlier_detection: Option<OutlierDetection>,
    /// `healthCheck.active`; `None`: endpoints are not asked.
    pub health_check: Option<HealthCheck>,
    /// Percent of the endpoints that must be healthy for health to be looked at; with fewer,
    /// requests go to all of them. 0 to 100; 0: health always counts.
    pub panic_threshold: u32,
    /// For a connection, TLS handshake and all, and for a turn in the queue of pending requests.
    pub connect_timeout: Duration,
    /// Of a connection without requests; `None`: no bound.
    pub idle_timeout: Option<Duration>,
    /// A connection's age, from which it takes no new request; `None`: no bound.
    pub max_connection_age: Option<Duration>,
    pub tcp_keepalive: Option<TcpKeepalive>,
    pub dns: Dns,
}

impl Default for BackendSettings {
    fn default() -> Self {
        Self {
            circuit_breaker: CircuitBreaker::default(),
            load_balancer: LoadBalancer::default(),
            outlier_detection: None,
            health_check: None,
            panic_threshold: 50,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_age: None,
            tcp_keepalive: None,
            dns: Dns::default(),
        }
    }
}

/// Bounds on what is under way to a backend at once, over all workers. What is over them is answered
/// with 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitBreaker {
    pub max_connections: u32,
    /// Requests that wait for a connection because `max_connections` are in use.
    pub max_pending_requests: u32,
    /// Requests that have a connection, or are making one.
    pub max_parallel_requests: u32,
    /// Requests that are being retried; not looked at with a `retry_budget`.
    pub max_parallel_retries: u32,
    /// Requests that a connection takes in its life; `None`: no bound.
    pub max_requests_per_connection: Option<u32>,
    /// Connections to each endpoint.
    pub max_connections_per_endpoint: u32,
    pub retry_budget: Option<RetryBudget>,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_parallel_requests: 1024,
            max_parallel_retries: 1024,
            max_requests_per_connection: None,
            max_connections_per_endpoint: 1024,
            retry_budget: None,
        }
    }
}

/// Retries as a share of the requests under way (parallel and pending ones).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    pub share: Fraction,
    /// So many may always be under way.
    pub min_concurrency: u32,
}

/// How requests are spread over the endpoints of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadBalancer {
    pub algorithm: Balancing,
    /// A new endpoint's share grows evenly over this time; `None`: it gets a full share at once.
    pub slow_start: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balancing {
    /// The one with fewer requests under way, of two chosen at random.
    #[default]
    LeastRequest,
    RoundRobin,
    Random,
    /// Requests with one value go to one endpoint (Maglev).
    ConsistentHash {
        by: HashBy,
        /// Places of the table: a prime from 2 to 5,000,011.
        table_size: u32,
    },
}

/// What a consistent hash looks at. A request without it goes to an endpoint by chance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashBy {
    /// The client's address.
    SourceIp,
    /// The values of all of these.
    Headers(Vec<HeaderName>),
    Cookie {
        name: String,
        /// A request without the cookie is given one that lives so long; zero: for the session;
        /// `None`: it is given none.
        ttl: Option<Duration>,
        /// Further attributes of a cookie that is given; an empty value stands for none.
        attributes: Vec<(String, String)>,
    },
    /// The values of all of these parameters.
    QueryParams(Vec<String>),
}

/// All of it, short: `headers x-user`.
impl fmt::Display for HashBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SourceIp => f.write_str("source"),
            Self::Headers(names) => {
                let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
                write!(f, "headers {}", names.join(","))
            }
            Self::QueryParams(names) => write!(f, "parameters {}", names.join(",")),
            Self::Cookie {
                name,
                ttl,
                attributes,
            } => {
                write!(f, "cookie {name}")?;
                if let Some(ttl) = ttl {
                    write!(f, "; Max-Age={}", ttl.as_secs())?;
                }
                attributes
                    .iter()
                    .try_for_each(|(name, value)| write!(f, "; {name}={value}"))
            }
        }
    }
}

/// Ejects endpoints that fail (Envoy: outlier detection).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierDetection {
    /// How often ejections are looked through.
    pub interval: Duration,
    /// Answers with 5xx in a row; `None`: not looked at. Unless `split_local_origin`, an endpoint
    /// that cannot be reached, breaks off or is too slow counts as one.
    pub consecutive_5xx: Option<u32>,
    /// Answers with 502, 503 or 504 in a row; `None`: not looked at.
    pub consecutive_gateway_errors: Option<u32>,
    /// What goes wrong without an answer is counted apart from answers.
    pub split_local_origin: bool,
    /// Connections that fail, break off or are too slow, in a row; only with `split_local_origin`.
    pub consecutive_local_origin_failures: Option<u32>,
    /// Share of an endpoint's requests in an interval that fail, in percent, from which on it is
    /// ejected, if it and at least four others had 50 requests. `None`: not looked at.
    pub failure_percentage: Option<u32>,
    /// Of the first ejection; each further one lasts this much longer, up to 300 s or this.
    pub base_ejection_time: Duration,
    /// Percent of the endpoints that may be ejected at once.
    pub max_ejection_percent: u32,
    /// One endpoint may be ejected even if that is more than `max_ejection_percent`.
    pub always_eject_one: bool,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(3),
            consecutive_5xx: Some(5),
            consecutive_gateway_errors: None,
            split_local_origin: false,
            consecutive_local_origin_failures: Some(5),
            failure_percentage: None,
            base_ejection_time: Duration::from_secs(30),
            max_ejection_percent: 10,
            always_eject_one: false,
        }
    }
}

/// Asks each endpoint in turn whether it is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub timeout: Duration,
    pub interval: Duration,
    /// Before the first one, a random part of this.
    pub initial_jitter: Option<Duration>,
    /// Failures in a row; at least 1. The first check alone decides about a new endpoint, and an
    /// answer that says no does at once: another status or body, or a gRPC status.
    pub unhealthy_threshold: u32,
    /// Successes in a row; at least 1.
    pub healthy_threshold: u32,
    pub probe: Probe,
}

/// What an endpoint is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    Http {
        /// `None`: the endpoint's own name or address.
        host: Option<String>,
        path: String,
        method: Method,
        /// Never empty.
        expected_statuses: Vec<RangeInclusive<u16>>,
        /// Must be within the first KiB of the body.
        expected_body: Option<Vec<u8>>,
    },
    /// A connection is enough if nothing is to be received.
    Tcp {
        send: Vec<u8>,
        /// Must come, in this order, among what is received; empty: nothing is waited for.
        receive: Vec<Vec<u8>>,
    },
    /// `grpc.health.v1.Health/Check`.
    Grpc {
        /// Empty: the server as a whole.
        service: String,
    },
}

/// TCP keep-alive. What is `None` is left to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Probes without an answer, until the connection is dead.
    pub probes: Option<u32>,
    /// Until the first probe.
    pub idle: Option<Duration>,
    /// Between probes.
    pub interval: Option<Duration>,
}

/// How names of endpoints are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dns {
    /// How often, at least; with `respect_ttl`, sooner if a record's TTL is shorter.
    pub refresh: Duration,
    pub respect_ttl: bool,
    pub family: LookupFamily,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(30),
            respect_ttl: true,
            family: LookupFamily::default(),
        }
    }
}

/// Which addresses of a name are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LookupFamily {
    /// IPv4, or IPv6 where there is none.
    #[default]
    Ipv4Preferred,
    Ipv4,
    Ipv6,
    Ipv6Preferred,
    Ipv4AndIpv6,
}
