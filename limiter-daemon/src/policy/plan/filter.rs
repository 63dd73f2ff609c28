//! What a route does to requests and responses (Gateway API filters).

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

/// Everything that the filters of a rule, or of one of its backends, come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filters {
    pub request_headers: HeaderChanges,
    pub response_headers: HeaderChanges,
    /// Answers instead of forwarding.
    pub redirect: Option<Redirect>,
    /// Answers instead of forwarding; not beside `redirect`.
    pub answer: Option<Answer>,
    pub rewrite: Option<Rewrite>,
    pub mirrors: Vec<Mirror>,
}

/// Changes of headers, in this order: set, add, remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

/// `RequestRedirect`; what is `None` stays as the request has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    pub hostname: Option<String>,
    pub path: Option<PathRewrite>,
    /// `None`: the well-known port of `scheme` if that is set, else the listener's.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// An answer of limiterd's own (Envoy's direct response).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200 to 599.
    pub status: StatusCode,
    /// Sent as `text/plain`, unless it is empty.
    pub body: Bytes,
}

/// `URLRewrite`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    pub hostname: Option<HeaderValue>,
    pub path: Option<PathRewrite>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    Full(String),
    /// Replaces the prefix that matched, with whole segments.
    Prefix(String),
}

/// `RequestMirror`: a copy of each request whose answer nobody waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// Index into [`Plan::backends`](super::Plan::backends).
    pub backend: usize,
    /// Share of the requests: `numerator` of `denominator`, which is not 0.
    pub numerator: u32,
    pub denominator: u32,
}
