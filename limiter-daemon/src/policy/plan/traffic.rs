//! What is done to the requests of a route besides limiting them (the parts of
//! `BackendTrafficPolicy` that Envoy keeps with a route).

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::StatusCode;

use super::{Fraction, HeaderChanges, Redirect};

/// The settings of a rule of a route under one policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteTraffic {
    /// `namespace/name` of the policies in force, joined with `+`; empty: none.
    pub policy: String,
    /// `None`: nothing is retried.
    pub retry: Option<Retry>,
    /// For a request and its response as a whole; `None`: no bound.
    pub max_stream_duration: Option<Duration>,
    /// Between two pieces of a request or response; `None`: as the listener has it.
    pub stream_idle: Option<Duration>,
    /// There is no such bound, whatever the listener has; `stream_idle` is `None` then.
    pub stream_idle_unbounded: bool,
    pub fault: Option<Fault>,
    /// The first one that an answer meets is applied.
    pub overrides: Vec<ResponseOverride>,
    /// Requests are read whole before they are sent on; bytes, more is answered with 413.
    pub request_buffer: Option<u64>,
    pub admission_control: Option<AdmissionControl>,
}

/// When and how requests are sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Besides the first attempt.
    pub max_retries: u32,
    pub triggers: BTreeSet<RetryTrigger>,
    /// For [`RetryTrigger::RetriableStatusCodes`].
    pub statuses: BTreeSet<u16>,
    /// The policy names its triggers: they hold for every method then. By default, methods that are
    /// not idempotent (RFC 9110 section 9.2.2) are retried only if the upstream cannot have seen
    /// the request.
    pub any_method: bool,
    /// For each attempt, the first included, up to the response's last byte; `None`: no bound.
    pub per_try_timeout: Option<Duration>,
    /// Above 0. Before retry *n*, a random part of `base * 2^(n-1)`, at most `max_interval`.
    pub base_interval: Duration,
    /// At least `base_interval`.
    pub max_interval: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_retries: 2,
            triggers: [
                RetryTrigger::ConnectFailure,
                RetryTrigger::RefusedStream,
                RetryTrigger::RetriableStatusCodes,
                RetryTrigger::Cancelled,
                RetryTrigger::Unavailable,
            ]
            .into(),
            statuses: [503].into(),
            any_method: false,
            per_try_timeout: None,
            base_interval: Duration::from_millis(25),
            max_interval: Duration::from_millis(250),
        }
    }
}

/// What leads to a retry (Envoy's `x-envoy-retry-on` and `x-envoy-retry-grpc-on`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RetryTrigger {
    /// An answer with 5xx, or none.
    ServerError,
    /// An answer with 502, 503 or 504.
    GatewayError,
    /// No answer: the connection broke, or it took too long.
    Reset,
    /// The same, before anything of the request was sent.
    ResetBeforeRequest,
    /// No connection.
    ConnectFailure,
    /// An answer with 409.
    Retriable4xx,
    /// The upstream reset the stream with `REFUSED_STREAM`.
    RefusedStream,
    /// An answer with one of [`Retry::statuses`].
    RetriableStatusCodes,
    /// gRPC, in the answer's head: status 1.
    Cancelled,
    /// 4.
    DeadlineExceeded,
    /// 13.
    Internal,
    /// 8.
    ResourceExhausted,
    /// 14.
    Unavailable,
}

impl RetryTrigger {
    /// As policies write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ServerError => "5xx",
            Self::GatewayError => "gateway-error",
            Self::Reset => "reset",
            Self::ResetBeforeRequest => "reset-before-request",
            Self::ConnectFailure => "connect-failure",
            Self::Retriable4xx => "retriable-4xx",
            Self::RefusedStream => "refused-stream",
            Self::RetriableStatusCodes => "retriable-status-codes",
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::Internal => "internal",
            Self::ResourceExhausted => "resource-exhausted",
            Self::Unavailable => "unavailable",
        }
    }

    /// Whether the upstream cannot have carried out the request then.
    #[must_use]
    pub const fn is_before_request(self) -> bool {
        matches!(
            self,
            Self::ConnectFailure | Self::RefusedStream | Self::ResetBeforeRequest
        )
    }
}

/// Faults made on purpose.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fault {
    pub delay: Option<(Duration, Fraction)>,
    pub abort: Option<(Abort, Fraction)>,
}

/// What a request is answered with in place of the upstream's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    Http(StatusCode),
    /// A `grpc-status`, 0 to 16.
    Grpc(u8),
}

/// An answer in place of another.
#[derive(Clone, Debug, PartialEq)]
pub struct ResponseOverride {
    pub statuses: Vec<RangeInclusive<u16>>,
    pub source: ResponseSource,
    pub with: Replacement,
}

/// Whose answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseSource {
    /// limiterd's own.
    Local,
    /// The upstream's.
    Backend,
    #[default]
    All,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Replacement {
    Response {
        status: Option<StatusCode>,
        content_type: Option<http::HeaderValue>,
        /// `None`: the body stays.
        body: Option<bytes::Bytes>,
        headers: HeaderChanges,
    },
    Redirect(Redirect),
}

/// Refuses a part of the requests while too many of them fail (Envoy: admission control filter).
#[derive(Clone, Debug, PartialEq)]
pub struct AdmissionControl {
    pub sampling_window: Duration,
    /// The share of requests that must succeed; above 0.
    pub min_success_rate: Fraction,
    /// 1 to 10: how steeply more are refused.
    pub aggression: f64,
    /// Requests a second below which none is refused.
    pub min_request_rate: u32,
    /// No more than this share is refused.
    pub max_rejection: Fraction,
    /// Statuses of success; never empty.
    pub http_success: Vec<RangeInclusive<u16>>,
    /// gRPC statuses of success; never empty.
    pub grpc_success: Vec<RangeInclusive<u16>>,
}
