//! Answers of our own: the one table from what went wrong to what the client sees.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, UPGRADE};
use http::{HeaderMap, Response, StatusCode, Version};

use super::asking::OverLimit;
use super::body::{self, Body};
use crate::engine::outcome::Denied;
use crate::engine::settle::Failure;
use crate::engine::state::Reach;
use crate::engine::upstream::{Overflow, Resource};
use crate::policy::plan::Abort;

/// Envoy's sign that a circuit is open.
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(super) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Why a request gets no answer from an upstream.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Not a request that can be forwarded; the text says why. The connection is closed.
    BadRequest(&'static str),
    /// The client's body broke off. The connection is closed.
    BrokenBody,
    /// `CONNECT`: limiterd is no forward proxy.
    Connect,
    /// The header that states the client's address is missing or wrong.
    NoAddress,
    /// HTTP/1.0, where it is not taken.
    OldVersion,
    HeadTooLarge,
    TooLarge,
    /// The client took too long with its body.
    Slow,
    /// The connection is to one listener, the request for another.
    Misdirected,
    /// No listener, host or rule matches.
    NoRoute,
    /// A policy on the rule was never valid.
    Invalid,
    /// The rule has no backend, or none of any weight, or what it refers to is not there.
    NoBackend,
    /// The backend has no endpoints, or none that is healthy.
    NoEndpoint,
    /// Over a limit of this kind; [`super::limit_headers`] says which.
    Limited(Reach),
    /// The store of a global limit does not answer, and the limit denies then.
    LimitUnknown,
    /// A rate limit service says that it is over a limit; [`super::asked_headers`] tells of it.
    OverLimit(Box<OverLimit>),
    /// A rate limit service does not answer, and the filter denies then.
    AskFailed(StatusCode),
    /// As much is under way to the backend as may be: the circuit is open.
    Overloaded(Overflow),
    /// It waited for a connection to the backend, and none came free in time.
    Waited,
    /// Too many requests fail: admission control refuses a part of them.
    NotAdmitted,
    /// A fault made on purpose.
    Aborted(Abort),
    /// No connection to the endpoint.
    Unreachable(Cause),
    /// The connection broke, or what came over it is not HTTP.
    Broken(Cause),
    /// The upstream took too long.
    Timeout,
    /// The upstream said that it switches protocols, and did not.
    NoUpgrade,
}

/// What went wrong with an upstream.
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

impl Refusal {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::BrokenBody => StatusCode::BAD_REQUEST,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoAddress => StatusCode::FORBIDDEN,
            Self::OldVersion => StatusCode::UPGRADE_REQUIRED,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            // Gateway API, HTTPRouteRule.backendRefs.
            Self::NoBackend | Self::Invalid => StatusCode::INTERNAL_SERVER_ERROR,
            // Envoy's `status_on_error`.
            Self::LimitUnknown => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Limited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::OverLimit(over) => over.status,
            Self::AskFailed(status) => *status,
            Self::Aborted(Abort::Http(status)) => *status,
            Self::Aborted(Abort::Grpc(status)) => http_status(*status),
            Self::NoEndpoint
            | Self::Overloaded(_)
            | Self::Waited
            | Self::NotAdmitted
            | Self::Unreachable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken(_) | Self::NoUpgrade => StatusCode::BAD_GATEWAY,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Of an answer that is ours alone.
    const fn text(&self) -> &'static str {
        match self {
            Self::BadRequest(why) => why,
            // Envoy has none; what the service sends along is another matter.
            Self::OverLimit(_) | Self::AskFailed(_) => "",
            Self::BrokenBody => "the request's body broke off",
            Self::Connect => "CONNECT is not supported",
            Self::NoAddress => "the header with the client's address is missing or malformed",
            Self::OldVersion => "HTTP/1.0 is not supported",
            Self::HeadTooLarge => "too many headers",
            Self::TooLarge => "the request's body is too large",
            Self::Slow => "the request's body did not come in time",
            Self::Misdirected => "this host is not served on this connection",
            Self::NoRoute => "no route matches this host, path, method and headers",
            Self::Invalid => "a policy on this route is not valid",
            Self::NoBackend => "the route has no backend",
            Self::NoEndpoint => "the backend has no endpoint that may be used",
            // Envoy's body; its global filter sends none.
            Self::Limited(Reach::Local) => "local_rate_limited",
            Self::Limited(Reach::Global) => "rate_limited",
            Self::LimitUnknown => "the store of a rate limit does not answer",
            Self::Overloaded(Overflow(Resource::Pending)) => {
                "too many requests are waiting for the upstream"
            }
            Self::Overloaded(_) => "too many requests are under way to the upstream",
            Self::Waited => "no connection to the upstream came free in time",
            Self::NotAdmitted => "too many requests to the upstream fail",
            // Envoy's.
            Self::Aborted(_) => "fault filter abort",
            Self::Unreachable(_) => "the upstream cannot be reached",
            Self::Broken(_) => "the connection to the upstream broke before its response",
            Self::Timeout => "the upstream did not respond in time",
            Self::NoUpgrade => "the upstream did not switch protocols",
        }
    }

    fn body(&self) -> Bytes {
        match self {
            Self::OverLimit(over) => over.body.clone(),
            other => Bytes::from_static(other.text().as_bytes()),
        }
    }

    /// A word for logs.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::BrokenBody => "broken_body",
            Self::Connect => "connect",
            Self::NoAddress => "no_client_address",
            Self::OldVersion => "http_1_0",
            Self::HeadTooLarge => "head_too_large",
            Self::TooLarge => "body_too_large",
            Self::Slow => "body_timeout",
            Self::Misdirected => "misdirected",
            Self::NoRoute => "no_route",
            Self::Invalid => "invalid_policy",
            Self::NoBackend => "no_backend",
            Self::NoEndpoint => "no_endpoint",
            Self::Limited(_) => "rate_limited",
            // Envoy's detail.
            Self::LimitUnknown | Self::AskFailed(_) => "rate_limiter_error",
            Self::OverLimit(_) => "request_rate_limited",
            Self::Overloaded(_) => "circuit_open",
            Self::Waited => "pending_timeout",
            Self::NotAdmitted => "admission_control",
            Self::Aborted(_) => "fault_abort",
            Self::Unreachable(_) => "upstream_unreachable",
            Self::Broken(_) => "upstream_broke",
            Self::Timeout => "upstream_timeout",
            Self::NoUpgrade => "no_upgrade",
        }
    }

    /// What the limits that admitted the request make of it; `None`: nothing.
    pub(super) const fn failure(&self) -> Option<Failure> {
        match self {
            Self::NoEndpoint
            | Self::Unreachable(_)
            | Self::Broken(_)
            | Self::Timeout
            | Self::NoUpgrade => Some(Failure::Upstream),
            Self::Overloaded(_) | Self::Waited | Self::NotAdmitted => Some(Failure::Overload),
            _ => None,
        }
    }

    /// Whether what follows on an HTTP/1 connection cannot be trusted to be the next request.
    const fn closes(&self) -> bool {
        matches!(
            self,
            Self::BadRequest(_)
                | Self::BrokenBody
                | Self::Connect
                | Self::OldVersion
                | Self::HeadTooLarge
                | Self::TooLarge
                | Self::Slow
        )
    }

    /// The answer to a request of `version`; a gRPC call gets a status that gRPC clients understand.
    pub(super) fn respond(&self, version: Version, grpc: bool) -> Response<Body> {
        let mut response = if grpc {
            self.respond_grpc()
        } else {
            self.respond_http(version)
        };
        if matches!(self, Self::Overloaded(_) | Self::Waited) {
            let yes = HeaderValue::from_static("true");
            response.headers_mut().insert(OVERLOADED, yes);
        }
        response
    }

    fn respond_http(&self, version: Version) -> Response<Body> {
        let status = self.status();
        let mut response = Response::new(match status {
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => Body::empty(),
            _ if self.body().is_empty() => Body::empty(),
            _ => Body::own(self.body()),
        });
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if !self.body().is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        if self.closes() && version <= Version::HTTP_11 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if matches!(self, Self::OldVersion) {
            headers.insert(UPGRADE, HeaderValue::from_static("HTTP/1.1"));
        }
        response
    }

    /// A response of trailers only, with the status that Envoy maps to.
    fn respond_grpc(&self) -> Response<Body> {
        let status = match self {
            Self::Aborted(Abort::Grpc(status)) => u16::from(*status).into(),
            Self::OverLimit(over) if over.resource_exhausted => HeaderValue::from_static("8"),
            _ => grpc_status(self.status()),
        };
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        set_grpc_status(headers, status);
        if let Ok(message) = HeaderValue::from_maybe_shared(self.body()) {
            headers.insert(GRPC_MESSAGE, message);
        }
        response
    }
}

impl From<&Denied> for Refusal {
    fn from(denied: &Denied) -> Self {
        if denied.unknown {
            Self::LimitUnknown
        } else {
            Self::Limited(denied.rule.reach())
        }
    }
}

impl From<body::Fault> for Refusal {
    fn from(fault: body::Fault) -> Self {
        match fault {
            body::Fault::TooLarge => Self::TooLarge,
            body::Fault::TimedOut => Self::Slow,
            body::Fault::Malformed => Self::BadRequest("a malformed body"),
            body::Fault::Broken | body::Fault::Copy => Self::BrokenBody,
        }
    }
}

/// The `grpc-status` of an HTTP status (gRPC's http-grpc-status-mapping).
pub(super) fn grpc_status(status: StatusCode) -> HeaderValue {
    HeaderValue::from_static(match status.as_u16() {
        400 => "13",
        401 => "16",
        403 => "7",
        404 => "12",
        429 | 502 | 503 | 504 => "14",
        _ => "2",
    })
}

/// The HTTP status of a `grpc-status`, for clients that do not speak gRPC (google.rpc.Code).
pub(super) fn http_status(grpc: u8) -> StatusCode {
    let status = match grpc {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    };
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Makes a response of trailers only.
pub(super) fn set_grpc_status(headers: &mut HeaderMap, status: HeaderValue) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, status);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_a_limit_is_429_on_a_connection_that_goes_on() {
        let response = Refusal::Limited(Reach::Local).respond(Version::HTTP_11, false);
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(!response.headers().contains_key(CONNECTION));
    }

    #[test]
    fn grpc_calls_get_a_status_of_grpc() {
        for (refusal, wanted) in [
            (Refusal::Limited(Reach::Global), "14"),
            (Refusal::NoRoute, "12"),
            (Refusal::NoBackend, "2"),
            (Refusal::Aborted(Abort::Grpc(9)), "9"),
            (Refusal::Aborted(Abort::Http(StatusCode::FORBIDDEN)), "7"),
        ] {
            let response = refusal.respond(Version::HTTP_2, true);
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()[GRPC_STATUS], wanted);
        }
    }
}
