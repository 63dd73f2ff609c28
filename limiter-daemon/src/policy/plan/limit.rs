//! Limits on HTTP requests.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use limiter_common::Limit;
use regex::bytes::Regex;

use super::{PathMatch, Written};

/// The limits in force on a rule of a route: the local ones first, then the global ones; all must
/// admit a request.
#[derive(Clone, Debug, Default)]
pub struct RateLimits {
    /// Counted by this node. More than one where a policy was merged with its parent: each applies.
    pub local: Vec<PolicyLimits>,
    /// Counted by the store that nodes share.
    pub global: Vec<PolicyLimits>,
}

impl RateLimits {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.local.is_empty() && self.global.is_empty()
    }
}

/// The limits of one policy.
#[derive(Clone, Debug)]
pub struct PolicyLimits {
    /// `namespace/name` of the policy.
    pub policy: String,
    /// Every one that matches is charged, and all must admit. Of local limits those with conditions,
    /// of global ones all.
    pub rules: Vec<LimitRule>,
    /// Of local limits the rule without conditions (Envoy Gateway's default bucket): charged only if
    /// none of `rules` matched.
    pub default: Option<LimitRule>,
}

#[derive(Clone, Debug)]
pub struct LimitRule {
    /// `namespace/name/rule/index`, stable over reloads.
    pub name: String,
    /// All must hold; empty: every request.
    pub conditions: Vec<Condition>,
    pub quota: Quota,
    /// One set of buckets for all routes that the policy targets; else each route has its own.
    pub shared: bool,
    /// Of a local rule without distinct values: each client connection has a bucket of its own.
    pub per_connection: bool,
    /// Counts what would be denied, denies nothing.
    pub shadow: bool,
    /// `X-RateLimit-*` for this rule; `None`: as the listener has it.
    pub headers: Option<bool>,
    /// Tokens that a request takes; 0: it is only checked that there is one.
    pub request_cost: u64,
    /// Tokens taken when the response is over, into debt if need be: later requests pay.
    pub response_cost: Option<ResponseCost>,
    /// When the tokens of a request are given back.
    pub refund_on: RefundOn,
    /// Other limits tried on the same requests, which only count what they would deny.
    pub candidates: Vec<Candidate>,
    /// Of a global limit: what holds while the store that counts it does not answer; `None`: as the
    /// store's settings say.
    pub on_store_failure: Option<OnStoreFailure>,
    /// Of a global limit that is enforced and has no candidates: tokens that a node may take in
    /// advance.
    pub lease: Option<Lease>,
    /// Where it is written, if anywhere.
    pub written: Option<Arc<Written>>,
}

/// What a node may hold of a bucket that nodes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Tokens: from what a request costs up to what the bucket holds.
    pub size: u64,
    /// When what is left goes back, 10 ms to 60 s.
    pub max_age: Duration,
}

/// What holds of a global limit while the store that counts it does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnStoreFailure {
    /// The node counts in its own memory, where the limit is a full one at first.
    #[default]
    Local,
    /// The limit is not there.
    Allow,
    /// Requests that meet it are answered with 500.
    Deny,
}

impl LimitRule {
    /// A rule that costs a token a request and has nothing else said of it.
    #[must_use]
    pub const fn new(name: String, conditions: Vec<Condition>, quota: Quota) -> Self {
        Self {
            name,
            conditions,
            quota,
            shared: false,
            per_connection: false,
            shadow: false,
            headers: None,
            request_cost: 1,
            response_cost: None,
            refund_on: RefundOn {
                upstream_failure: false,
                server_error: false,
                overload: false,
            },
            candidates: Vec::new(),
            on_store_failure: None,
            lease: None,
            written: None,
        }
    }
}

/// How much a rule admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// Nothing (`requests: 0` of a global rule).
    Blocked {
        /// As that of `Limited`.
        window: u64,
    },
    /// Everything. Only where a file says so.
    Unlimited,
    Limited {
        limit: Limit,
        algorithm: Algorithm,
        /// Seconds of the limit's unit or fill interval (rounded up), for the `w` of
        /// `X-RateLimit-Limit`.
        window: u64,
    },
}

impl Quota {
    /// A token bucket; `window` in seconds.
    #[must_use]
    pub const fn bucket(limit: Limit, window: u64) -> Self {
        Self::Limited {
            limit,
            algorithm: Algorithm::TokenBucket,
            window,
        }
    }
}

/// How a limit counts. Each keeps its state in one word, or two for `SlidingWindow`. A window is
/// `window` seconds long, and admits the limit's `capacity`; the limit's rate says nothing then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// GCRA ([`limiter_common::bucket`]).
    #[default]
    TokenBucket,
    /// Counts in windows that begin at multiples of the unit since 1970 (UTC).
    FixedWindow,
    /// The count of this window, and of the last one in the share that still lies in the past unit.
    SlidingWindow,
}

/// A limit that is tried out beside the one in force, with the same algorithm (and windows of the
/// same length). Of more than 64 the first 64 are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Label of its counters; not empty.
    pub name: String,
    pub limit: Limit,
}

/// What a response costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseCost {
    Number(u64),
    /// The number in a response header; nothing where there is none.
    Header(HeaderName),
    /// The number at this path of the response's JSON body (`usage.total_tokens`), or of the last
    /// event of a `text/event-stream` that has it. At most so many bytes of an event or body are
    /// looked at.
    JsonField {
        path: Vec<String>,
        max_bytes: usize,
    },
}

/// What gives a request's tokens back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefundOn {
    /// The upstream could not be reached, broke off or took too long.
    pub upstream_failure: bool,
    /// It answered with 5xx.
    pub server_error: bool,
    /// A circuit breaker refused the request.
    pub overload: bool,
}

/// What a request must be like for a rule to apply to it.
#[derive(Clone, Debug)]
pub enum Condition {
    Header {
        name: HeaderName,
        test: ValueTest,
    },
    /// A parameter of the query, percent-decoded.
    Query {
        name: String,
        test: ValueTest,
    },
    /// One of these: a method, or (`true`) any but it.
    Method(Vec<(Method, bool)>),
    Path {
        path: PathMatch,
        invert: bool,
    },
    /// The client's address.
    Source {
        /// Any of these; empty: all there are.
        nets: Vec<IpNet>,
        /// In none of them.
        invert: bool,
        /// A bucket for each prefix of these lengths, instead of one for all.
        each: Option<SourcePrefixes>,
    },
}

impl Condition {
    /// Whether each value has a bucket of its own.
    #[must_use]
    pub const fn is_distinct(&self) -> bool {
        matches!(
            self,
            Self::Header {
                test: ValueTest::Each | ValueTest::EachSingle,
                ..
            } | Self::Query {
                test: ValueTest::Each | ValueTest::EachSingle,
                ..
            } | Self::Source { each: Some(_), .. }
        )
    }
}

/// Which addresses count as one client: prefix lengths, 1 to 32 and 1 to 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcePrefixes {
    pub v4: u8,
    pub v6: u8,
}

/// A test of a header or a query parameter. Several lines of one header are one value, joined by
/// commas (RFC 9110 section 5.3); of several query parameters of one name the first counts.
#[derive(Clone, Debug)]
pub enum ValueTest {
    /// It has this value.
    Is(HeaderValue),
    /// It has another value, or is absent (`Exact` with `invert`).
    IsNot(HeaderValue),
    /// Its whole value matches.
    Matches(Regex),
    /// It does not, or is absent.
    MatchesNot(Regex),
    /// It is present; each value has a bucket of its own (`Distinct`).
    Each,
    /// It is present, in one line, and not empty; each value has a bucket of its own.
    EachSingle,
    /// It is absent (`Distinct` with `invert`).
    Absent,
}
