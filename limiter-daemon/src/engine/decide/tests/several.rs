//! Several policies at once, local and global; limits that only watch; limits without a number.

use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::engine::charge::Receipt;
use crate::engine::store::{Adjustment, MemoryStore};
use crate::policy::plan::Candidate;

fn limits_in(state: &State, local: Vec<PolicyLimits>, global: Vec<PolicyLimits>) -> Limits {
    Limits::compile(&RateLimits { local, global }, "d/r", state).unwrap()
}

fn counts(limits: &Limits, index: usize) -> [u64; 3] {
    let (rule, _) = limits.rules().nth(index).unwrap();
    let counters = &rule.scope.counters;
    [
        &counters.admitted,
        &counters.limited,
        &counters.shadow_limited,
    ]
    .map(|counter| counter.load(Ordering::Relaxed))
}

fn anyone(index: usize, per_minute: u64) -> LimitRule {
    rule(index, per_minute, Vec::new())
}

#[test]
fn each_policy_has_a_default_of_its_own() {
    let each = vec![header("x-user-id", ValueTest::Each)];
    let parent = policy("d/a", vec![rule(0, 3, each)], Some(anyone(1, 100)));
    let child = policy("d/b", Vec::new(), Some(anyone(0, 5)));
    let limits = local_in(&State::new(64), vec![parent, child]);
    assert_eq!(admitted(&limits, &user("alice"), 9, 0), 3);
    // Two of the five were left, and the parent's default was never touched by alice.
    let outcome = decide(&limits, &asked(&HeaderMap::new()), 0);
    let quotas: Vec<_> = outcome
        .statuses
        .iter()
        .map(|s| (s.quota, s.remaining))
        .collect();
    assert_eq!(quotas, [(100, 99), (5, 1)]);
    assert_eq!(outcome.decisive.unwrap().rule.policy, "d/b");
}

#[test]
fn local_first_then_global_and_a_refusal_charges_neither() {
    let state = State::new(64);
    let local = policy("d/p", Vec::new(), Some(anyone(0, 10)));
    let global = policy("d/p", vec![anyone(0, 4), anyone(1, 6)], None);
    let limits = limits_in(&state, vec![local], vec![global]);
    let none = HeaderMap::new();
    assert_eq!(admitted(&limits, &none, 9, 0), 4);
    let outcome = decide(&limits, &asked(&none), 0);
    let denied = outcome.denied.unwrap();
    assert_eq!(denied.rule.reach(), Reach::Global);
    assert_eq!(denied.wait, Some(15 * SECOND));
    let left: Vec<_> = outcome.statuses.iter().map(|s| s.remaining).collect();
    assert_eq!(left, [6, 0, 2]);
    assert_eq!(counts(&limits, 0), [4, 0, 0]);
    assert_eq!(counts(&limits, 1), [4, 6, 0]);
    assert_eq!(counts(&limits, 2), [4, 0, 0]);
}

#[test]
fn a_local_refusal_does_not_ask_the_store() {
    let limits = limits_in(
        &State::new(64),
        vec![policy("d/p", Vec::new(), Some(anyone(0, 2)))],
        vec![policy("d/p", vec![anyone(0, 9)], None)],
    );
    assert_eq!(admitted(&limits, &HeaderMap::new(), 5, 0), 2);
    let outcome = decide(&limits, &asked(&HeaderMap::new()), 0);
    assert_eq!(outcome.statuses.len(), 1);
    assert_eq!(counts(&limits, 1), [2, 0, 0]);
}

#[test]
fn routes_have_counters_of_their_own_unless_a_rule_shares_them() {
    let state = State::new(64);
    let shared = LimitRule {
        shared: true,
        ..anyone(0, 6)
    };
    let on = |route| {
        let limits = RateLimits {
            local: vec![
                policy("d/p", Vec::new(), Some(shared.clone())),
                policy("d/q", Vec::new(), Some(rule(7, 4, Vec::new()))),
            ],
            global: Vec::new(),
        };
        Limits::compile(&limits, route, &state).unwrap()
    };
    let [first, second] = [on("d/one"), on("d/two")];
    assert_eq!(admitted(&first, &HeaderMap::new(), 9, 0), 4);
    assert_eq!(admitted(&second, &HeaderMap::new(), 9, 0), 2);
    let outcome = decide(&second, &asked(&HeaderMap::new()), 0);
    assert_eq!(outcome.denied.unwrap().rule.scope.name.route, "");
}

#[test]
fn a_shadow_counts_and_never_denies() {
    let shadow = LimitRule {
        shadow: true,
        ..anyone(0, 2)
    };
    let limits = compile(vec![shadow], Some(anyone(1, 100)));
    assert_eq!(admitted(&limits, &HeaderMap::new(), 5, 0), 5);
    let outcome = decide(&limits, &asked(&HeaderMap::new()), 0);
    // It matched, so the default is not asked; and no header tells of it.
    assert!(outcome.statuses.is_empty());
    assert_eq!(counts(&limits, 0), [2, 0, 4]);
    assert_eq!(counts(&limits, 1), [0, 0, 0]);
}

#[test]
fn candidates_count_what_they_would_do_in_their_rules_place() {
    let per_minute = |n| Limit::new(n, n, 60 * SECOND).unwrap();
    let candidate = |name: &str, n| Candidate {
        name: name.into(),
        limit: per_minute(n),
    };
    let tried = LimitRule {
        candidates: vec![candidate("tight", 2), candidate("loose", 8)],
        ..rule(0, 5, vec![header("x-user-id", ValueTest::Each)])
    };
    let limits = compile(vec![tried, rule(1, 6, Vec::new())], None);
    assert_eq!(admitted(&limits, &user("alice"), 9, 0), 5);
    let bits = |index: usize| {
        let (rule, _) = limits.rules().next().unwrap();
        let counters = &rule.candidates[index].scope.counters;
        [&counters.admitted, &counters.limited].map(|c| c.load(Ordering::Relaxed))
    };
    // Nine requests, none of which another rule denied: the candidates saw them all.
    assert_eq!(bits(0), [2, 7]);
    assert_eq!(bits(1), [8, 1]);
    // One token of the second rule is left for bob: then it denies, and the candidates are not asked.
    assert_eq!(admitted(&limits, &user("bob"), 4, 0), 1);
    assert_eq!(bits(0), [3, 7]);
    assert_eq!(bits(1), [9, 1]);
}

#[test]
fn nothing_and_everything_are_said_outright() {
    let quota =
        |index, quota, conditions| LimitRule::new(format!("d/p/rule/{index}"), conditions, quota);
    let is = |value| vec![header("a", ValueTest::Is(HeaderValue::from_static(value)))];
    let limits = compile(
        vec![
            quota(0, Quota::Blocked { window: 60 }, is("bad")),
            quota(1, Quota::Unlimited, is("good")),
        ],
        Some(anyone(2, 3)),
    );
    let with = |value: &'static str| {
        HeaderMap::from_iter([(
            HeaderName::from_static("a"),
            HeaderValue::from_static(value),
        )])
    };
    let outcome = decide(&limits, &asked(&with("bad")), 0);
    assert_eq!(outcome.denied.unwrap().wait, None);
    assert_eq!(
        (outcome.statuses[0].quota, outcome.statuses[0].window),
        (0, 60)
    );
    assert_eq!(admitted(&limits, &with("good"), 50, 0), 50);
    assert!(
        decide(&limits, &asked(&with("good")), 0)
            .statuses
            .is_empty()
    );
    assert_eq!(admitted(&limits, &HeaderMap::new(), 9, 0), 3);
}

#[test]
fn a_request_may_cost_more_than_one_or_nothing() {
    let cost = |request_cost, per_minute| {
        let rule = LimitRule {
            request_cost,
            ..anyone(0, per_minute)
        };
        compile(vec![rule], None)
    };
    let none = HeaderMap::new();
    assert_eq!(admitted(&cost(4, 10), &none, 9, 0), 2);
    assert_eq!(admitted(&cost(0, 1), &none, 9, 0), 9);
    let outcome = decide(&cost(11, 10), &asked(&none), 0);
    assert_eq!(outcome.denied.unwrap().wait, None);
}

#[test]
fn many_rules_are_found_by_their_value_in_their_order() {
    let mut rules: Vec<_> = (0..1_000)
        .map(|n| {
            let value = HeaderValue::try_from(format!("t{}", n % 500)).unwrap();
            rule(
                n,
                10 + n as u64,
                vec![header("x-tenant", ValueTest::Is(value))],
            )
        })
        .collect();
    rules.insert(
        700,
        rule(5_000, 9, vec![header("x-user-id", ValueTest::Each)]),
    );
    rules.push(rule(5_001, 8, vec![header("x-tenant", ValueTest::Each)]));
    let limits = compile(rules, None);
    let mut request = user("alice");
    request.append("x-tenant", HeaderValue::from_static("t7"));
    let names = |headers: &HeaderMap| {
        let met = limits.met(&asked(headers));
        met.iter()
            .map(|rule| rule.name().to_owned())
            .collect::<Vec<_>>()
    };
    let numbers = [7, 507, 5_000, 5_001].map(|n| format!("d/p/rule/{n}"));
    assert_eq!(names(&request), numbers);
    let quotas = decide(&limits, &asked(&request), 0).statuses;
    assert_eq!(
        quotas.iter().map(|s| s.quota).collect::<Vec<_>>(),
        [17, 517, 9, 8]
    );
    assert_eq!(names(&HeaderMap::new()), [""; 0]);
}

#[test]
fn an_admitted_request_tells_which_rule_and_bucket_was_closest() {
    let each = vec![
        header("x-user-id", ValueTest::Each),
        header("x-none", ValueTest::Absent),
    ];
    let limits = compile(vec![rule(0, 5, each), anyone(1, 50)], None);
    let headers = user("alice");
    let outcome = decide(&limits, &asked(&headers), 0);
    let decisive = outcome.decisive.unwrap();
    assert_eq!(decisive.rule.name(), "d/p/rule/0");
    assert_eq!(decisive.remaining, 4);
    assert_eq!(decisive.descriptor(&asked(&headers)), "x-user-id=alice");
}

/// Memory that answers when nobody holds its lock.
#[derive(Debug, Default)]
struct Slow(Arc<Mutex<Option<Verdicts>>>);

impl Store for Slow {
    fn charge(&self, request: &ChargeRequest<'_>) -> Answer {
        let Answer::Ready(verdicts) = MemoryStore.charge(request) else {
            panic!("memory answers at once");
        };
        *self.0.lock().unwrap() = Some(verdicts);
        let shared = Arc::clone(&self.0);
        Answer::Pending(Box::pin(std::future::poll_fn(move |_| {
            // Not as long as somebody holds the lock.
            match shared.try_lock().ok().and_then(|mut held| held.take()) {
                Some(verdicts) => Poll::Ready(verdicts),
                None => Poll::Pending,
            }
        })))
    }

    fn adjust(&self, rule: &Arc<Rule>, receipt: &Receipt, adjustment: Adjustment, now: Now) {
        MemoryStore.adjust(rule, receipt, adjustment, now);
    }
}

#[test]
fn a_store_may_answer_later_or_not_be_waited_for() {
    let shared = Arc::default();
    let state = State::new(64).with_store(Arc::new(Slow(Arc::clone(&shared))));
    let limits = limits_in(
        &state,
        vec![policy("d/p", Vec::new(), Some(anyone(0, 10)))],
        vec![policy("d/p", vec![anyone(0, 2)], None)],
    );
    let headers = HeaderMap::new();
    let ask = || match limits.decide(&asked(&headers), at(0)) {
        Decision::Pending(pending) => pending,
        Decision::Ready(outcome) => panic!("{outcome:?}"),
    };
    let left = || {
        let (rule, _) = limits.rules().next().unwrap();
        rule.standing(&asked(&headers), at(0)).unwrap().remaining
    };
    let mut context = Context::from_waker(Waker::noop());
    for wanted in [true, true, false] {
        let mut pending = ask();
        let lock = shared.lock().unwrap();
        assert!(pending.as_mut().poll(&mut context).is_pending());
        drop(lock);
        let Poll::Ready(outcome) = pending.as_mut().poll(&mut context) else {
            panic!("the store has answered");
        };
        assert_eq!(outcome.denied.is_none(), wanted);
    }
    assert_eq!(left(), 8);
    let pending = ask();
    assert_eq!(left(), 7);
    drop(pending);
    assert_eq!(left(), 8);
}
