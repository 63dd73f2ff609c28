//! Answers of our own: the one table from what went wrong to what the client sees.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{Either, Full};

use super::Body;

/// Why a request gets no answer from an upstream.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Not a request that can be forwarded; the text says why.
    BadRequest(&'static str),
    /// `CONNECT`: limiterd is no forward proxy.
    Connect,
    /// No listener, host or rule matches.
    NoRoute,
    /// The rule has no backend, or none of any weight.
    NoBackend,
    /// Over a limit; [`super::limit_headers`] says which.
    Limited,
    /// No connection to the endpoint.
    Unreachable(Box<dyn std::error::Error + Send + Sync>),
    /// The connection broke, or what came over it is not HTTP.
    Broken(Box<dyn std::error::Error + Send + Sync>),
    /// The upstream took too long.
    Timeout,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            // Gateway API, HTTPRouteRule.backendRefs.
            Self::NoBackend => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Limited => StatusCode::TOO_MANY_REQUESTS,
            Self::Unreachable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken(_) => StatusCode::BAD_GATEWAY,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn body(&self) -> &'static str {
        match self {
            Self::BadRequest(why) => why,
            Self::Connect => "CONNECT is not supported",
            Self::NoRoute => "no route matches this host, path, method and headers",
            Self::NoBackend => "the route has no backend",
            // Envoy's body.
            Self::Limited => "local_rate_limited",
            Self::Unreachable(_) => "the upstream cannot be reached",
            Self::Broken(_) => "the connection to the upstream broke before its response",
            Self::Timeout => "the upstream did not respond in time",
        }
    }

    pub(super) fn respond(&self) -> Response<Body> {
        let body = Full::new(Bytes::from_static(self.body().as_bytes()));
        let mut response = Response::new(Either::Right(body));
        *response.status_mut() = self.status();
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        response
    }
}
