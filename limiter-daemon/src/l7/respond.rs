//! Answers of our own: the one table from what went wrong to what the client sees, and the rate
//! limit headers.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::{Either, Full};

use super::Body;
use crate::engine::decide::{Outcome, Status};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

const SECOND: u64 = 1_000_000_000;

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
    /// Over a limit; the wait in nanoseconds.
    Limited { wait: u64 },
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
            Self::Limited { .. } => StatusCode::TOO_MANY_REQUESTS,
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
            Self::Limited { .. } => "local_rate_limited",
            Self::Unreachable(_) => "the upstream cannot be reached",
            Self::Broken(_) => "the connection to the upstream broke before its response",
            Self::Timeout => "the upstream did not respond in time",
        }
    }

    pub(super) fn respond(&self) -> Response<Body> {
        let body = Full::new(Bytes::from_static(self.body().as_bytes()));
        let mut response = Response::new(Either::Right(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        if let Self::Limited { wait } = self {
            headers.insert(RETRY_AFTER, seconds(*wait).max(1).into());
        }
        response
    }
}

/// Adds the `X-RateLimit-*` headers (draft-polli-ratelimit-headers-03, in the shape that Envoy
/// writes): those of the rule with the fewest tokens left, the first of equals; with the quotas of
/// all in `X-RateLimit-Limit`.
pub(super) fn add_rate_limit_headers(headers: &mut HeaderMap, outcome: &Outcome) {
    let Some(tightest) = outcome
        .statuses
        .iter()
        .min_by_key(|status| status.remaining)
    else {
        return;
    };
    headers.insert(LIMIT, quotas(tightest, &outcome.statuses));
    headers.insert(REMAINING, tightest.remaining.into());
    headers.insert(RESET, seconds(tightest.reset).into());
}

fn quotas(tightest: &Status, all: &[Status]) -> HeaderValue {
    use std::fmt::Write as _;
    let mut text = tightest.quota.to_string();
    for status in all {
        // Writing to a String does not fail.
        let _infallible = write!(text, ", {};w={}", status.quota, status.window);
    }
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0"))
}

/// Whole seconds, rounded up: after that many, what was waited for is there.
const fn seconds(ns: u64) -> u64 {
    ns.div_ceil(SECOND)
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;

    fn status(quota: u64, window: u64, remaining: u64, reset: u64) -> Status {
        Status {
            quota,
            window,
            remaining,
            reset,
        }
    }

    fn written(statuses: smallvec::SmallVec<[Status; 4]>) -> Vec<String> {
        let mut headers = HeaderMap::new();
        add_rate_limit_headers(
            &mut headers,
            &Outcome {
                statuses,
                denied: None,
            },
        );
        headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect()
    }

    #[test]
    fn headers_are_those_of_the_tightest_rule() {
        assert_eq!(written(smallvec![]), [""; 0]);
        assert_eq!(
            written(smallvec![status(100, 60, 99, 600_000_000)]),
            [
                "x-ratelimit-limit: 100, 100;w=60",
                "x-ratelimit-remaining: 99",
                "x-ratelimit-reset: 1"
            ]
        );
        let two = smallvec![
            status(1000, 3600, 7, 1),
            status(10, 1, 7, 2),
            status(5, 1, 8, 3)
        ];
        assert_eq!(
            written(two),
            [
                "x-ratelimit-limit: 1000, 1000;w=3600, 10;w=1, 5;w=1",
                "x-ratelimit-remaining: 7",
                "x-ratelimit-reset: 1"
            ]
        );
    }

    #[test]
    fn retry_after_is_rounded_up_and_never_zero() {
        for (wait, wanted) in [(1, "1"), (SECOND, "1"), (SECOND + 1, "2"), (0, "1")] {
            let response = Refusal::Limited { wait }.respond();
            assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(response.headers()[RETRY_AFTER], wanted);
        }
    }
}
