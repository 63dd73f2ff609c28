//! Which rules are met, and what they charge.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use limiter_common::Limit;

use super::*;
use crate::engine::connection::ConnectionBuckets;
use crate::policy::plan::{Condition, Quota, ValueTest};

mod alone;
mod model;
mod several;

const SECOND: u64 = 1_000_000_000;

fn header(name: &str, test: ValueTest) -> Condition {
    Condition::Header {
        name: HeaderName::try_from(name).unwrap(),
        test,
    }
}

fn rule(index: usize, per_minute: u64, conditions: Vec<Condition>) -> LimitRule {
    let limit = Limit::new(per_minute, per_minute, 60 * SECOND).unwrap();
    let quota = Quota::bucket(limit, 60);
    LimitRule::new(format!("d/p/rule/{index}"), conditions, quota)
}

fn asked(headers: &HeaderMap) -> RequestView<'_> {
    RequestView {
        connection: None,
        method: &Method::GET,
        path: "/",
        query: None,
        headers,
        client: [192, 0, 2, 1].into(),
    }
}

fn compile(rules: Vec<LimitRule>, default: Option<LimitRule>) -> Limits {
    compile_in(&State::new(1024), rules, default)
}

fn compile_in(state: &State, rules: Vec<LimitRule>, default: Option<LimitRule>) -> Limits {
    local_in(state, vec![policy("d/p", rules, default)])
}

fn local_in(state: &State, local: Vec<PolicyLimits>) -> Limits {
    let limits = RateLimits {
        local,
        global: Vec::new(),
    };
    Limits::compile(&limits, "d/r", state).unwrap()
}

fn policy(name: &str, rules: Vec<LimitRule>, default: Option<LimitRule>) -> PolicyLimits {
    PolicyLimits {
        policy: name.into(),
        rules,
        default,
    }
}

const fn at(now: u64) -> Now {
    Now {
        mono: now,
        unix: now,
    }
}

/// What this node's memory says, which answers at once.
fn decide(limits: &Limits, request: &RequestView<'_>, now: u64) -> Outcome {
    match limits.decide(request, at(now)) {
        Decision::Ready(outcome) => outcome,
        Decision::Pending(_) => panic!("memory has to be waited for"),
    }
}

fn user(name: &str) -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static("x-user-id"), name.parse().unwrap())])
}

fn admitted(set: &Limits, headers: &HeaderMap, tries: usize, now: u64) -> usize {
    (0..tries)
        .filter(|_| decide(set, &asked(headers), now).denied.is_none())
        .count()
}

#[test]
fn a_hundred_a_minute_is_a_hundred_at_once_and_then_one_each_600_ms() {
    let set = compile(Vec::new(), Some(rule(0, 100, Vec::new())));
    let none = HeaderMap::new();
    for left in (0..100).rev() {
        let outcome = decide(&set, &asked(&none), 7);
        assert!(outcome.denied.is_none());
        let reset = (100 - left) * 600_000_000;
        let wanted = Status {
            quota: 100,
            window: 60,
            remaining: left,
            reset,
            headers: None,
        };
        assert_eq!(outcome.statuses.as_slice(), [wanted]);
    }
    let outcome = decide(&set, &asked(&none), 7);
    assert_eq!(outcome.denied.unwrap().wait, Some(600_000_000));
    assert_eq!(outcome.statuses[0].remaining, 0);
    assert_eq!(outcome.statuses[0].reset, 60 * SECOND);
    assert_eq!(admitted(&set, &none, 5, 7 + 600_000_000), 1);
}

#[test]
fn each_value_has_a_bucket_of_its_own() {
    let each = vec![header("x-user-id", ValueTest::Each)];
    let absent = vec![header("x-user-id", ValueTest::Absent)];
    let set = compile(vec![rule(0, 50, each), rule(1, 10, absent)], None);
    assert_eq!(admitted(&set, &user("alice"), 60, 0), 50);
    assert_eq!(admitted(&set, &user("bob"), 60, 0), 50);
    assert_eq!(admitted(&set, &HeaderMap::new(), 60, 0), 10);
    assert_eq!(admitted(&set, &user("alice"), 60, 0), 0);
}

#[test]
fn the_default_bucket_is_for_whom_no_other_rule_meets() {
    let heavy = ValueTest::Is(HeaderValue::from_static("heavy"));
    let set = compile(
        vec![rule(0, 5, vec![header("x-user-id", heavy)])],
        Some(rule(1, 20, Vec::new())),
    );
    assert_eq!(admitted(&set, &user("heavy"), 30, 0), 5);
    assert_eq!(admitted(&set, &user("alice"), 30, 0), 20);
    assert_eq!(admitted(&set, &HeaderMap::new(), 30, 0), 0);
}

#[test]
fn a_denied_request_charges_no_rule() {
    let each = vec![header("x-user-id", ValueTest::Each)];
    let heavy = vec![header(
        "x-user-id",
        ValueTest::Is(HeaderValue::from_static("heavy")),
    )];
    let set = compile(vec![rule(0, 50, each), rule(1, 5, heavy)], None);
    assert_eq!(admitted(&set, &user("heavy"), 30, 0), 5);
    let outcome = decide(&set, &asked(&user("heavy")), 0);
    assert_eq!(outcome.denied.unwrap().rule.name(), "d/p/rule/1");
    assert_eq!(outcome.statuses[0].remaining, 45);
    assert_eq!(outcome.statuses[1].remaining, 0);
}

#[test]
fn selectors_of_a_rule_are_all_of_them() {
    let is = |value| ValueTest::Is(HeaderValue::from_static(value));
    let is_not = |value| ValueTest::IsNot(HeaderValue::from_static(value));
    let selectors = vec![
        header("a", is("1")),
        header("b", is_not("2")),
        header("c", ValueTest::Absent),
    ];
    let set = compile(vec![rule(0, 1, selectors)], None);
    let request = |pairs: &[(&'static str, &'static str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        !decide(&set, &asked(&headers), 0).statuses.is_empty()
    };
    assert!(request(&[("a", "1")]));
    assert!(request(&[("a", "1"), ("b", "3")]));
    assert!(!request(&[("a", "1"), ("b", "2")]));
    assert!(!request(&[("a", "1"), ("c", "")]));
    assert!(!request(&[("b", "3")]));
    assert!(!request(&[("a", "1"), ("a", "1")]));
}

#[test]
fn a_reload_keeps_buckets_and_takes_new_limits() {
    let state = State::new(1024);
    let each = || vec![header("x-user-id", ValueTest::Each)];
    let limits = |n| compile_in(&state, vec![rule(0, n, each())], None);
    let before = limits(50);
    assert_eq!(admitted(&before, &user("alice"), 40, 0), 40);
    let after = limits(50);
    drop(before);
    assert_eq!(admitted(&after, &user("alice"), 40, 0), 10);
    // 50 tokens of 1.2 s each are spent: a bucket of 10 tokens of 6 s is empty, and not emptier.
    let lower = limits(10);
    drop(after);
    assert_eq!(
        decide(&lower, &asked(&user("alice")), 0)
            .denied
            .unwrap()
            .wait,
        Some(6 * SECOND)
    );
    assert_eq!(admitted(&lower, &user("alice"), 2, 6 * SECOND), 1);
}

#[test]
fn a_lowered_limit_among_several_is_waited_for_no_longer_than_it_says() {
    let state = State::new(1024);
    let any = || vec![header("x-none", ValueTest::Absent)];
    let compile = |window: u64| {
        let limit = Limit::new(10, 10, window * SECOND).unwrap();
        let slow = LimitRule::new("d/p/rule/0".into(), any(), Quota::bucket(limit, window));
        let rules = vec![slow, rule(1, 1_000, any())];
        compile_in(&state, rules, None)
    };
    let hourly = compile(3_600);
    assert_eq!(admitted(&hourly, &HeaderMap::new(), 20, 0), 10);
    let every_ten_seconds = compile(10);
    assert_eq!(
        decide(&every_ten_seconds, &asked(&HeaderMap::new()), 0)
            .denied
            .unwrap()
            .wait,
        Some(SECOND)
    );
    assert_eq!(
        admitted(&every_ten_seconds, &HeaderMap::new(), 20, SECOND),
        1
    );
}

#[test]
fn threads_admit_together_what_one_would() {
    let each = vec![header("x-user-id", ValueTest::Each)];
    let all = vec![header("x-tenant", ValueTest::Absent)];
    let set = compile(vec![rule(0, 1000, each), rule(1, 700, all)], None);
    let total: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| admitted(&set, &user("alice"), 5_000, 0)))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(total, 700);
    assert_eq!(
        decide(&set, &asked(&user("alice")), 0).statuses[0].remaining,
        300
    );
}

#[test]
fn each_connection_has_a_bucket_of_its_own_where_a_rule_says_so() {
    let state = State::new(1);
    let own = LimitRule {
        per_connection: true,
        ..rule(0, 2, Vec::new())
    };
    let limits = compile_in(&state, Vec::new(), Some(own.clone()));
    let headers = HeaderMap::new();
    let connections = [ConnectionBuckets::default(), ConnectionBuckets::default()];
    let on = |connection| RequestView {
        connection: Some(connection),
        ..asked(&headers)
    };
    for connection in &connections {
        let left = [0; 2].map(|now| decide(&limits, &on(connection), now).statuses[0].remaining);
        assert_eq!(left, [1, 0]);
        assert!(decide(&limits, &on(connection), 0).denied.is_some());
    }
    // Compiled anew, the limit finds them again; and they fill again.
    let limits = compile_in(&state, Vec::new(), Some(own));
    for connection in &connections {
        assert!(decide(&limits, &on(connection), 0).denied.is_some());
        assert!(
            decide(&limits, &on(connection), 30 * SECOND)
                .denied
                .is_none()
        );
    }
}

#[test]
fn what_a_connection_is_charged_can_be_given_back() {
    let own = LimitRule {
        per_connection: true,
        ..rule(0, 1, Vec::new())
    };
    let limits = compile(Vec::new(), Some(own)).held(true);
    let headers = HeaderMap::new();
    let connection = ConnectionBuckets::default();
    let request = RequestView {
        connection: Some(&connection),
        ..asked(&headers)
    };
    let outcome = decide(&limits, &request, 0);
    assert!(decide(&limits, &request, 0).denied.is_some());
    outcome.settlement.withdraw(at(0));
    assert!(decide(&limits, &request, 0).denied.is_none());
}
