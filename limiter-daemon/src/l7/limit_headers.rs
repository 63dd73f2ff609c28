//! What a client is told about its limits.
//!
//! `X-RateLimit-*` (draft-polli-ratelimit-headers-03, in the shape that Envoy writes): those of the
//! limit with the fewest tokens left, the first of equals, with the quotas of all in
//! `X-RateLimit-Limit`. They are sent on every answer, admitted or not. A rule that wants no headers
//! is left out of that list; where it is the one with the fewest tokens left, there are none at all.
//! A limit whose unit is not known is left out of the list as well.
//!
//! `Retry-After` on refusals: whole seconds, rounded up, at least 1, after which the request would
//! conform to all limits of this node. There is none where it never will (the limit is nothing, or
//! the request costs more than the bucket holds).

use bytes::{BufMut as _, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use crate::engine::outcome::{Outcome, Status};
use crate::policy::plan::ClientSettings;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const ENVOY: HeaderName = HeaderName::from_static("x-envoy-ratelimited");

const SECOND: u64 = 1_000_000_000;

/// Adds what the listener's clients are to be told of `outcome`.
pub(super) fn add(headers: &mut HeaderMap, outcome: &Outcome, client: &ClientSettings) {
    add_statuses(headers, &outcome.statuses, client.rate_limit_headers);
    let Some(denied) = &outcome.denied else {
        return;
    };
    if client.rate_limit_headers
        && let Some(wait) = denied.wait
    {
        headers.insert(RETRY_AFTER, seconds(wait).max(1).into());
    }
    if client.envoy_headers {
        headers.insert(ENVOY, HeaderValue::from_static("true"));
    }
}

fn add_statuses(headers: &mut HeaderMap, statuses: &[Status], listener: bool) {
    let told = |status: &&Status| status.headers.unwrap_or(listener);
    let tightest = statuses.iter().min_by_key(|status| status.remaining);
    let Some(tightest) = tightest.filter(told) else {
        return;
    };
    let mut limit = BytesMut::with_capacity(64);
    number(&mut limit, tightest.quota);
    for status in statuses.iter().filter(told).filter(|one| one.window > 0) {
        limit.put_slice(b", ");
        number(&mut limit, status.quota);
        limit.put_slice(b";w=");
        number(&mut limit, status.window);
    }
    if let Ok(limit) = HeaderValue::from_maybe_shared(limit.freeze()) {
        headers.insert(LIMIT, limit);
        headers.insert(REMAINING, tightest.remaining.into());
        headers.insert(RESET, seconds(tightest.reset).into());
    }
}

fn number(text: &mut BytesMut, number: u64) {
    text.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Whole seconds, rounded up: after that many, what was waited for is there.
const fn seconds(ns: u64) -> u64 {
    ns.div_ceil(SECOND)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderMap, Method};
    use limiter_common::Limit;

    use super::*;
    use crate::engine::decide::{Decision, Limits};
    use crate::engine::request::RequestView;
    use crate::engine::state::State;
    use crate::engine::time::Now;
    use crate::policy::plan::{LimitRule, PolicyLimits, Quota, RateLimits};

    fn status(quota: u64, window: u64, remaining: u64, reset: u64) -> Status {
        Status {
            quota,
            window,
            remaining,
            reset,
            headers: None,
        }
    }

    fn off(status: Status) -> Status {
        Status {
            headers: Some(false),
            ..status
        }
    }

    fn text(headers: &HeaderMap) -> Vec<String> {
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", value.to_str().unwrap())
        };
        headers.iter().map(line).collect()
    }

    fn written(statuses: &[Status], listener: bool) -> Vec<String> {
        let mut headers = HeaderMap::new();
        add_statuses(&mut headers, statuses, listener);
        text(&headers)
    }

    #[test]
    fn headers_are_those_of_the_tightest_rule() {
        assert_eq!(written(&[], true), [""; 0]);
        assert_eq!(
            written(&[status(100, 60, 99, 600_000_000)], true),
            [
                "x-ratelimit-limit: 100, 100;w=60",
                "x-ratelimit-remaining: 99",
                "x-ratelimit-reset: 1"
            ]
        );
        let three = [
            status(1000, 3600, 7, 1),
            status(10, 1, 7, 2),
            status(5, 1, 8, 3),
        ];
        let wanted = [
            "x-ratelimit-limit: 1000, 1000;w=3600, 10;w=1, 5;w=1",
            "x-ratelimit-remaining: 7",
            "x-ratelimit-reset: 1",
        ];
        assert_eq!(written(&three, true), wanted);
        assert_eq!(written(&three, false), [""; 0]);
    }

    #[test]
    fn a_rule_that_wants_no_headers_is_left_out_or_silences_all() {
        let [loose, tight] = [status(1000, 3600, 7, 1), status(10, 1, 3, 2)];
        let only_tight = [
            "x-ratelimit-limit: 10, 10;w=1",
            "x-ratelimit-remaining: 3",
            "x-ratelimit-reset: 1",
        ];
        assert_eq!(written(&[off(loose), tight], true), only_tight);
        assert_eq!(written(&[loose, off(tight)], true), [""; 0]);
        let on = Status {
            headers: Some(true),
            ..tight
        };
        assert_eq!(written(&[loose, on], false), only_tight);
    }

    #[test]
    fn a_limit_without_a_unit_is_not_in_the_list() {
        assert_eq!(
            written(&[status(0, 0, 0, 0), status(9, 60, 9, 0)], true),
            [
                "x-ratelimit-limit: 0, 9;w=60",
                "x-ratelimit-remaining: 0",
                "x-ratelimit-reset: 0"
            ]
        );
    }

    /// What a client of a limit of one request in `seconds` is told about its second request.
    fn refused(quota: Quota, client: &ClientSettings) -> Vec<String> {
        let rule = LimitRule::new("d/p/rule/0".into(), Vec::new(), quota);
        let limits = RateLimits {
            local: vec![PolicyLimits {
                policy: "d/p".into(),
                rules: Vec::new(),
                default: Some(rule),
            }],
            global: Vec::new(),
        };
        let limits = Limits::compile(&limits, "d/r", &State::new(8)).unwrap();
        let request = RequestView {
            connection: None,
            method: &Method::GET,
            path: "/",
            query: None,
            headers: &HeaderMap::new(),
            client: [192, 0, 2, 1].into(),
        };
        let mut headers = HeaderMap::new();
        for _ in 0..2 {
            let Decision::Ready(outcome) = limits.decide(&request, Now::default()) else {
                panic!("local limits are decided at once");
            };
            headers.clear();
            add(&mut headers, &outcome, client);
        }
        text(&headers)
    }

    #[test]
    fn retry_after_is_rounded_up_and_never_zero() {
        for (interval, wanted) in [(SECOND, 1), (SECOND + 1, 2), (1_000, 1)] {
            let limit = Limit::new(1, 1, interval).unwrap();
            let told = refused(Quota::bucket(limit, 1), &ClientSettings::default());
            assert_eq!(told.last().unwrap(), &format!("retry-after: {wanted}"));
        }
    }

    #[test]
    fn switches_of_the_listener() {
        let limit = Limit::new(1, 1, SECOND).unwrap();
        let quiet = ClientSettings {
            rate_limit_headers: false,
            envoy_headers: true,
            ..ClientSettings::default()
        };
        let told = refused(Quota::bucket(limit, 1), &quiet);
        assert_eq!(told, ["x-envoy-ratelimited: true"]);
        let told = refused(Quota::Blocked { window: 60 }, &Arc::default());
        assert_eq!(told[0], "x-ratelimit-limit: 0, 0;w=60");
        assert!(!told.iter().any(|line| line.starts_with("retry-after")));
    }
}
