//! What requests are charged, and what they are told.

use super::*;

fn asks<'a>(entries: &'a [(&'a str, &'a str)], hits: Hits) -> Asked<'a> {
    Asked {
        entries,
        limit: None,
        hits,
    }
}

/// Asks about descriptors with one hit each: `over` of each, and whether the request is.
fn decide(domain: &Domain, descriptors: &[&str], now: u64) -> (bool, Vec<bool>) {
    let all: Vec<Vec<(&str, &str)>> = descriptors.iter().map(|one| entries(one)).collect();
    let asked: Vec<Asked<'_>> = all.iter().map(|one| asks(one, Hits::Take(1))).collect();
    let decision = ready(domain, &asked, now);
    let statuses = decision.statuses.iter().map(|status| status.over_limit);
    (decision.over_limit, statuses.collect())
}

/// One descriptor: over the limit, what is left, seconds until it is reset (rounded up).
fn one(domain: &Domain, descriptor: &str, hits: Hits, now: u64) -> (bool, u64, u64) {
    let entries = entries(descriptor);
    let decision = ready(domain, &[asks(&entries, hits)], now);
    let status = &decision.statuses[0];
    assert_eq!(decision.over_limit, status.over_limit);
    (
        status.over_limit,
        status.remaining,
        status.reset.div_ceil(SECOND),
    )
}

#[test]
fn windows_are_the_references() {
    let domain = compile(vec![per_minute("k", 2)]);
    let take = |now| one(&domain, "k=a", Hits::Take(1), now * SECOND);
    // Windows begin at whole minutes; until then it is that long.
    assert_eq!(take(130), (false, 1, 50));
    assert_eq!(take(131), (false, 0, 49));
    assert_eq!(take(131), (true, 0, 49));
    // Each value has a count of its own.
    assert_eq!(
        one(&domain, "k=b", Hits::Take(1), 131 * SECOND),
        (false, 1, 49)
    );
    assert_eq!(take(180), (false, 1, 60));
}

#[test]
fn token_buckets_refill_all_the_while() {
    let domain = compile_in(
        &State::new(64),
        Algorithm::TokenBucket,
        vec![per_minute("k", 2)],
    );
    let take = |now| one(&domain, "k=a", Hits::Take(1), now * SECOND);
    assert_eq!(take(130), (false, 1, 30));
    assert_eq!(take(130), (false, 0, 60));
    // Over the limit, it is told when the request would conform.
    assert_eq!(take(131), (true, 0, 29));
    assert_eq!(take(160), (false, 0, 60));
}

#[test]
fn hits_are_taken_together_asked_for_and_given_back() {
    let domain = compile(vec![per_minute("k", 10)]);
    let ask = |hits| one(&domain, "k=a", hits, MINUTE);
    assert_eq!(ask(Hits::Take(0)), (false, 10, 60));
    assert_eq!(ask(Hits::Take(8)), (false, 2, 60));
    // Too many leave what is left to others.
    assert_eq!(ask(Hits::Take(5)), (true, 2, 60));
    assert_eq!(ask(Hits::Take(2)), (false, 0, 60));
    assert_eq!(ask(Hits::Take(0)), (true, 0, 60));
    assert_eq!(ask(Hits::GiveBack(3)), (false, 3, 60));
    assert_eq!(ask(Hits::Take(3)), (false, 0, 60));
    // No more comes back than was taken.
    assert_eq!(ask(Hits::GiveBack(u64::MAX)), (false, 10, 60));
    // What was taken in a window that is over is forgotten with it.
    assert_eq!(ask(Hits::Take(10)), (false, 0, 60));
    let next = |hits| one(&domain, "k=a", hits, 2 * MINUTE);
    assert_eq!(next(Hits::GiveBack(10)), (false, 10, 60));
    assert_eq!(next(Hits::Take(10)), (false, 0, 60));
}

#[test]
fn refunds_of_every_algorithm() {
    for algorithm in [Algorithm::SlidingWindow, Algorithm::TokenBucket] {
        let domain = compile_in(&State::new(64), algorithm, vec![per_minute("k", 10)]);
        let ask = |hits| one(&domain, "k=a", hits, MINUTE);
        assert!(!ask(Hits::Take(10)).0);
        assert!(ask(Hits::Take(1)).0);
        assert_eq!(ask(Hits::GiveBack(4)).1, 4);
        assert!(ask(Hits::Take(5)).0);
        assert!(!ask(Hits::Take(4)).0);
        assert_eq!(ask(Hits::GiveBack(u64::MAX)).1, 10);
    }
}

#[test]
fn a_denied_request_charges_none_of_its_descriptors() {
    let domain = compile(vec![per_minute("a", 1), per_minute("b", 3)]);
    let both = &["a=1", "b=1"];
    assert_eq!(decide(&domain, both, 0), (false, vec![false, false]));
    for _ in 0..5 {
        assert_eq!(decide(&domain, both, 0), (true, vec![true, false]));
    }
    assert_eq!(one(&domain, "b=1", Hits::Take(0), 0).1, 2);
    // The same count twice in a request: both are taken, or none.
    assert_eq!(
        decide(&domain, &["b=2", "b=2"], 0),
        (false, vec![false, false])
    );
    assert!(decide(&domain, &["b=2", "b=2"], 0).0);
    assert_eq!(one(&domain, "b=2", Hits::Take(0), 0).1, 1);
}

#[test]
fn what_has_no_limit_is_said_to_have_none() {
    let unlimited = node("u", Some(limit(Amount::Unlimited)), vec![]);
    let domain = compile(vec![unlimited, per_minute("none", 0), per_minute("k", 1)]);
    let all: Vec<_> = ["u=1", "x=1", "k=1"].map(entries).to_vec();
    let asked: Vec<_> = all.iter().map(|one| asks(one, Hits::Take(1))).collect();
    let decision = ready(&domain, &asked, 0);
    let said: Vec<_> = decision
        .statuses
        .iter()
        .map(|s| (s.limit, s.remaining))
        .collect();
    let per_minute = Override {
        requests: 1,
        unit: TimeUnit::Minute,
    };
    assert_eq!(said, [(None, u64::MAX), (None, 0), (Some(per_minute), 0)]);
    assert!(decision.statuses[0].limited.is_some() && decision.statuses[1].limited.is_none());
    assert_eq!(decision.decisive, Some(2));
    assert_eq!(one(&domain, "none=1", Hits::Take(1), 0), (true, 0, 0));
    assert_eq!(one(&domain, "none=1", Hits::Take(0), 0), (true, 0, 0));
}

#[test]
fn shadow_mode_counts_and_denies_nothing() {
    let state = State::new(64);
    let shadow = DomainLimit {
        shadow: true,
        ..limit(amount(1, TimeUnit::Minute))
    };
    let descriptors = vec![node("s", Some(shadow), vec![]), per_minute("k", 3)];
    let domain = compile_in(&state, Algorithm::FixedWindow, descriptors);
    for _ in 0..3 {
        assert_eq!(
            decide(&domain, &["s=1", "k=1"], 0),
            (false, vec![false, false])
        );
    }
    // A request that others deny is none that it is asked about.
    assert_eq!(
        decide(&domain, &["s=2", "k=1"], 0),
        (true, vec![false, true])
    );
    assert_eq!(one(&domain, "s=2", Hits::Take(0), 0).1, 1);
    let limits = state.service_limits();
    let of = |path: &str| {
        limits
            .iter()
            .find(|one| one.path == [path])
            .unwrap()
            .counts()
    };
    // total, over, near, over by a cache, within, shadow
    assert_eq!(of("s"), [4, 2, 1, 0, 1, 2]);
    assert_eq!(of("k"), [4, 1, 1, 0, 3, 0]);
}

#[test]
fn a_named_limit_is_replaced_by_those_that_say_so() {
    let named = |name: &str, replaces: &[&str]| DomainLimit {
        name: Some(name.to_owned()),
        replaces: replaces.iter().map(ToString::to_string).collect(),
        ..limit(amount(1, TimeUnit::Minute))
    };
    let domain = compile(vec![
        node("client", Some(named("base", &[])), vec![]),
        node(
            "gold",
            Some(DomainLimit {
                amount: amount(5, TimeUnit::Minute),
                ..named("gold", &["base"])
            }),
            vec![],
        ),
    ]);
    let gold = &["client=1", "gold=1"];
    for _ in 0..5 {
        assert_eq!(decide(&domain, gold, 0), (false, vec![false, false]));
    }
    assert_eq!(decide(&domain, gold, 0), (true, vec![false, true]));
    // What was replaced was not charged.
    assert_eq!(one(&domain, "client=1", Hits::Take(1), 0), (false, 0, 60));
    assert_eq!(one(&domain, "client=1", Hits::Take(1), 0), (true, 0, 60));
}

#[test]
fn quotas_deny_only_together() {
    let quota = |requests| {
        let one = limit(amount(requests, TimeUnit::Minute));
        Some(DomainLimit { quota: true, ..one })
    };
    let domain = compile(vec![
        node("a", quota(1), vec![]),
        node("b", quota(2), vec![]),
        per_minute("hard", 4),
    ]);
    let both = &["a=1", "b=1"];
    assert_eq!(decide(&domain, both, 0), (false, vec![false, false]));
    assert_eq!(decide(&domain, both, 0), (false, vec![true, false]));
    assert_eq!(decide(&domain, both, 0), (true, vec![true, true]));
    // Any other limit denies by itself.
    for _ in 0..4 {
        assert!(!decide(&domain, &["hard=1", "b=2", "a=2"][..1], 0).0);
    }
    assert_eq!(
        decide(&domain, &["hard=1", "b=2", "a=2"], 0),
        (true, vec![true, false, false])
    );
    assert_eq!(one(&domain, "a=2", Hits::Take(0), 0).1, 1);
}

#[test]
fn patterns_share_a_count_where_they_say_so() {
    let shared = Descriptor {
        share_threshold: true,
        ..per_minute("k=a*", 2)
    };
    let nested = Descriptor {
        share_threshold: true,
        ..node("t=x*", None, vec![per_minute("u", 1)])
    };
    let domain = compile(vec![shared, per_minute("k=b*", 2), nested]);
    assert!(!decide(&domain, &["k=a1"], 0).0 && !decide(&domain, &["k=a2"], 0).0);
    assert!(decide(&domain, &["k=a3"], 0).0);
    assert!(!decide(&domain, &["k=b1"], 0).0 && !decide(&domain, &["k=b1"], 0).0);
    assert!(!decide(&domain, &["k=b2"], 0).0);
    assert!(!decide(&domain, &["t=x1,u=1"], 0).0);
    assert!(decide(&domain, &["t=x2,u=1"], 0).0);
    assert!(!decide(&domain, &["t=x2,u=2"], 0).0);
}

#[test]
fn requests_may_bring_their_limit_along() {
    let domain = compile(vec![per_minute("k", 1)]);
    let entries = entries("k=1");
    let ask = |requests, unit| {
        let asked = Asked {
            limit: Some(Override { requests, unit }),
            ..asks(&entries, Hits::Take(1))
        };
        let decision = ready(&domain, &[asked], 0);
        (decision.over_limit, decision.statuses[0].remaining)
    };
    assert_eq!(ask(2, TimeUnit::Minute), (false, 1));
    assert_eq!(ask(2, TimeUnit::Minute), (false, 0));
    assert_eq!(ask(2, TimeUnit::Minute), (true, 0));
    assert_eq!(ask(3, TimeUnit::Minute), (false, 0));
    assert_eq!(ask(2, TimeUnit::Hour), (false, 1));
    assert_eq!(ask(0, TimeUnit::Hour), (true, 0));
    // It has counts of its own.
    assert_eq!(one(&domain, "k=1", Hits::Take(1), 0), (false, 0, 60));
}

#[test]
fn counts_outlive_a_change_of_limits() {
    let state = State::new(64);
    let before = compile_in(&state, Algorithm::FixedWindow, vec![per_minute("k", 3)]);
    assert_eq!(one(&before, "k=1", Hits::Take(2), 0).1, 1);
    let after = compile_in(&state, Algorithm::FixedWindow, vec![per_minute("k", 10)]);
    drop(before);
    assert_eq!(one(&after, "k=1", Hits::Take(0), 0).1, 8);
}
