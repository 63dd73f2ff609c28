//! Refunds and response costs: each charge is settled once, whatever happens to the request.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use limiter_common::Limit;
use proptest::prelude::*;

use super::*;
use crate::engine::decide::{Decision, Limits};
use crate::engine::outcome::Outcome;
use crate::engine::request::RequestView;
use crate::engine::state::State;
use crate::policy::plan::{Candidate, LimitRule, PolicyLimits, Quota, RateLimits, RefundOn};

const SECOND: u64 = 1_000_000_000;

const fn at(seconds: u64) -> Now {
    Now {
        mono: seconds * SECOND,
        unix: seconds * SECOND,
    }
}

/// A bucket of 100 tokens, one a second, by a rule of which more is said.
fn limits(reach: Reach, change: impl FnOnce(&mut LimitRule)) -> Limits {
    let limit = Limit::new(100, 100, 100 * SECOND).unwrap();
    let mut rule = LimitRule::new("d/p/rule/0".into(), Vec::new(), Quota::bucket(limit, 100));
    rule.request_cost = 10;
    change(&mut rule);
    let policy = vec![PolicyLimits {
        policy: "d/p".into(),
        rules: vec![rule],
        default: None,
    }];
    let (local, global) = match reach {
        Reach::Local => (policy, Vec::new()),
        Reach::Global => (Vec::new(), policy),
    };
    Limits::compile(&RateLimits { local, global }, "d/r", &State::new(64)).unwrap()
}

fn admitted(limits: &Limits, now: Now) -> Option<Settlement> {
    let headers = HeaderMap::new();
    let Decision::Ready(Outcome {
        denied, settlement, ..
    }) = limits.decide(&request(&headers), now)
    else {
        panic!("memory answers at once");
    };
    denied.is_none().then_some(settlement)
}

fn request(headers: &HeaderMap) -> RequestView<'_> {
    RequestView {
        connection: None,
        method: &Method::GET,
        path: "/",
        query: None,
        headers,
        client: [192, 0, 2, 1].into(),
    }
}

fn left(limits: &Limits, now: Now) -> u64 {
    let (rule, _) = limits.rules().next().unwrap();
    rule.standing(&request(&HeaderMap::new()), now)
        .unwrap()
        .remaining
}

fn counts(limits: &Limits) -> [u64; 3] {
    let (rule, _) = limits.rules().next().unwrap();
    let counters = &rule.scope.counters;
    [
        &counters.refunded,
        &counters.response_tokens,
        &counters.unmetered,
    ]
    .map(|counter| counter.load(Ordering::Relaxed))
}

fn head(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect()
}

#[test]
fn a_rule_that_says_nothing_leaves_nothing_to_settle() {
    assert!(
        admitted(&limits(Reach::Local, |_| {}), at(0))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn refunds_are_for_the_failures_that_are_named() {
    type Way = (&'static str, fn(Settlement));
    let ways: [Way; 4] = [
        ("upstream", |open| open.failed(Failure::Upstream, at(1))),
        ("overload", |open| open.failed(Failure::Overload, at(1))),
        ("5xx", |mut open| {
            open.answered(StatusCode::BAD_GATEWAY, &HeaderMap::new(), at(1));
            open.finished(Ending::Complete, at(1));
        }),
        ("upstream", |mut open| {
            open.answered(StatusCode::OK, &HeaderMap::new(), at(1));
            open.finished(Ending::Broken, at(1));
        }),
    ];
    for reach in [Reach::Local, Reach::Global] {
        for on in ["upstream", "overload", "5xx"] {
            for (way, fail) in ways {
                let limits = limits(reach, |rule| {
                    rule.refund_on = RefundOn {
                        upstream_failure: on == "upstream",
                        server_error: on == "5xx",
                        overload: on == "overload",
                    };
                });
                fail(admitted(&limits, at(0)).unwrap());
                let refunded = if on == way { 10 } else { 0 };
                assert_eq!(counts(&limits), [refunded, 0, 0], "{on} {way}");
                let wanted = if on == way { 100 } else { 91 };
                assert_eq!(left(&limits, at(1)), wanted, "{on} {way}");
            }
        }
    }
}

#[test]
fn a_request_that_nobody_waits_for_keeps_what_it_was_charged() {
    let limits = limits(Reach::Local, |rule| {
        rule.refund_on.upstream_failure = true;
        rule.response_cost = Some(ResponseCost::Number(20));
    });
    drop(admitted(&limits, at(0)).unwrap());
    assert_eq!(left(&limits, at(0)), 90);
    let open = admitted(&limits, at(0)).unwrap();
    open.finished(Ending::Abandoned, at(0));
    assert_eq!(left(&limits, at(0)), 80);
    let mut open = admitted(&limits, at(0)).unwrap();
    open.answered(StatusCode::OK, &HeaderMap::new(), at(0));
    drop(open);
    assert_eq!(left(&limits, at(0)), 50);
    assert_eq!(counts(&limits), [0, 20, 0]);
}

#[test]
fn a_response_costs_what_its_header_says_and_later_requests_pay() {
    for reach in [Reach::Local, Reach::Global] {
        let limits = limits(reach, |rule| {
            let name = HeaderName::from_static("x-tokens");
            rule.response_cost = Some(ResponseCost::Header(name));
        });
        let mut open = admitted(&limits, at(0)).unwrap();
        open.answered(StatusCode::OK, &head(&[("x-tokens", " 150 ")]), at(0));
        assert_eq!(left(&limits, at(0)), 90);
        open.finished(Ending::Complete, at(0));
        assert_eq!(left(&limits, at(0)), 0);
        // 160 tokens are spent: at second 69 the bucket has nine.
        assert!(admitted(&limits, at(69)).is_none());
        let mut open = admitted(&limits, at(70)).unwrap();
        open.answered(StatusCode::OK, &head(&[("x-tokens", "many")]), at(70));
        open.finished(Ending::Complete, at(70));
        assert_eq!(counts(&limits), [0, 150, 1]);
    }
}

#[test]
fn a_candidate_pays_and_is_refunded_with_its_rule() {
    let limits = limits(Reach::Local, |rule| {
        rule.refund_on.upstream_failure = true;
        rule.response_cost = Some(ResponseCost::Number(50));
        rule.candidates.push(Candidate {
            name: "half".into(),
            limit: Limit::new(50, 50, 100 * SECOND).unwrap(),
        });
    });
    for _ in 0..9 {
        admitted(&limits, at(0))
            .unwrap()
            .failed(Failure::Upstream, at(0));
    }
    let mut open = admitted(&limits, at(0)).unwrap();
    open.answered(StatusCode::OK, &HeaderMap::new(), at(0));
    open.finished(Ending::Complete, at(0));
    // The rule has 40 left; the candidate is in debt, and would deny.
    assert!(admitted(&limits, at(0)).is_some());
    let (rule, _) = limits.rules().next().unwrap();
    let counters = &rule.candidates[0].scope.counters;
    let bits = [&counters.admitted, &counters.limited].map(|c| c.load(Ordering::Relaxed));
    assert_eq!(bits, [10, 1]);
}

fn json(path: &str, max_bytes: usize) -> Option<ResponseCost> {
    Some(ResponseCost::JsonField {
        path: path.split('.').map(str::to_owned).collect(),
        max_bytes,
    })
}

#[test]
fn a_number_in_the_body_is_found_however_the_body_is_cut() {
    let body =
        br#"{"id":"x","usage":{"total_tokens":12,"n":[{"total_tokens":9}]},"total_tokens":1}"#;
    for cut in 1..body.len() {
        let limits = limits(Reach::Local, |rule| {
            rule.response_cost = json("usage.total_tokens", 1 << 10);
        });
        let mut open = admitted(&limits, at(0)).unwrap();
        let head = head(&[("content-type", "application/json; charset=utf-8")]);
        open.answered(StatusCode::OK, &head, at(0));
        body.chunks(cut).for_each(|chunk| open.data(chunk));
        open.finished(Ending::Complete, at(0));
        assert_eq!(counts(&limits), [0, 12, 0], "{cut}");
        assert_eq!(left(&limits, at(0)), 78);
    }
}

#[test]
fn what_cannot_be_read_is_counted_as_unmetered() {
    let heads: [&[(&str, &str)]; 4] = [
        &[
            ("content-type", "application/json"),
            ("content-encoding", "gzip"),
        ],
        &[("content-type", "text/html")],
        &[],
        &[("content-type", "application/json")],
    ];
    for (pairs, body) in heads
        .into_iter()
        .zip([r#"{"n":1}"#, r#"{"n":1}"#, r#"{"n":1}"#, "{}"])
    {
        let limits = limits(Reach::Local, |rule| rule.response_cost = json("n", 100));
        let mut open = admitted(&limits, at(0)).unwrap();
        open.answered(StatusCode::OK, &head(pairs), at(0));
        open.data(body.as_bytes());
        open.finished(Ending::Complete, at(0));
        assert_eq!(counts(&limits), [0, 0, 1], "{pairs:?}");
        assert_eq!(left(&limits, at(0)), 90);
    }
}

/// What happens to one of the requests in flight.
#[derive(Clone, Copy, Debug)]
enum Event {
    Begin,
    Fail(Failure),
    Answer(u16),
    End(Ending),
    Drop,
}

fn events() -> impl Strategy<Value = Vec<(u64, usize, Event)>> {
    let event = prop_oneof![
        4 => Just(Event::Begin),
        1 => prop_oneof![Just(Failure::Upstream), Just(Failure::Overload)].prop_map(Event::Fail),
        2 => prop_oneof![Just(200u16), Just(503)].prop_map(Event::Answer),
        2 => prop_oneof![Just(Ending::Complete), Just(Ending::Abandoned), Just(Ending::Broken)]
            .prop_map(Event::End),
        1 => Just(Event::Drop),
    ];
    prop::collection::vec((0u64..4, 0usize..8, event), 1..60)
}

proptest! {
    /// Whatever happens to the requests in whatever order: what was taken and not given back is what
    /// the requests were charged that should be, and never more than burst and rate.
    #[test]
    fn each_charge_is_settled_once(
        events in events(),
        upstream in any::<bool>(),
        server in any::<bool>(),
        cost in prop::option::of(0u64..40),
    ) {
        let limits = limits(Reach::Local, |rule| {
            rule.refund_on = RefundOn {
                upstream_failure: upstream,
                server_error: server,
                overload: true,
            };
            rule.response_cost = cost.map(ResponseCost::Number);
        });
        let mut flying: Vec<(Settlement, Option<u16>)> = Vec::new();
        // All happens in one instant, so that nothing comes back but by refunds.
        let now = at(1_000);
        let (mut taken, mut refunded, mut charged) = (0u64, 0u64, 0u64);
        for (_, which, event) in events {
            if matches!(event, Event::Begin) {
                let conforms = taken + charged - refunded + 10 <= 100;
                let open = admitted(&limits, now);
                prop_assert_eq!(open.is_some(), conforms);
                if let Some(open) = open {
                    taken += 10;
                    flying.push((open, None));
                }
                continue;
            }
            if flying.is_empty() {
                continue;
            }
            let at = which % flying.len();
            if let Event::Answer(status) = event {
                let (open, answered) = &mut flying[at];
                if answered.is_none() {
                    *answered = Some(status);
                    open.answered(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), now);
                    if status == 503 && server {
                        refunded += 10;
                    }
                }
                continue;
            }
            let (open, answered) = flying.swap_remove(at);
            let settled = answered == Some(503) && server;
            let pays = if answered.is_some() && !settled { cost.unwrap_or(0) } else { 0 };
            match event {
                Event::Fail(failure) if answered.is_none() => {
                    open.failed(failure, now);
                    if failure == Failure::Overload || upstream {
                        refunded += 10;
                    }
                }
                Event::End(ending) if answered.is_some() => {
                    open.finished(ending, now);
                    if ending == Ending::Broken && upstream && !settled {
                        refunded += 10;
                    } else {
                        charged += pays;
                    }
                }
                _ => {
                    drop(open);
                    charged += pays;
                }
            }
        }
        drop(flying.drain(..).map(|(open, answered)| {
            let settled = answered == Some(503) && server;
            if answered.is_some() && !settled {
                charged += cost.unwrap_or(0);
            }
            drop(open);
        }).collect::<Vec<_>>());
        let [counted_refunds, counted_cost, unmetered] = counts(&limits);
        prop_assert_eq!([counted_refunds, counted_cost, unmetered], [refunded, charged, 0]);
        let used = taken + charged - refunded;
        prop_assert_eq!(left(&limits, now), 100u64.saturating_sub(used));
    }
}
