//! Global limits while their store does not answer: the share of one of several nodes.

use super::*;
use crate::engine::charge::{Draw, Few, Verdicts};
use crate::engine::meter::Standing;
use crate::engine::store::{Adjustment, MemoryStore, fallback};
use crate::policy::plan::OnStoreFailure;

fn global(state: &State, rules: Vec<LimitRule>) -> Limits {
    let limits = RateLimits {
        local: Vec::new(),
        global: vec![policy("d/p", rules, None)],
    };
    Limits::compile(&limits, "d/r", state).unwrap()
}

fn draws<'a>(limits: &'a Limits, request: &RequestView<'_>) -> Few<Draw<&'a Arc<Rule>>> {
    let rules = limits.rules().map(|(rule, _)| rule);
    rules.map(|rule| Draw::of(rule, request)).collect()
}

fn alone(limits: &Limits, headers: &HeaderMap, nodes: u32, now: u64) -> Verdicts {
    let request = asked(headers);
    let draws = draws(limits, &request);
    fallback::decide(&draws, OnStoreFailure::Local, nodes, at(now))
}

/// How many requests are admitted at once.
fn burst(limits: &Limits, headers: &HeaderMap, nodes: u32) -> usize {
    let admits = |_: &i32| alone(limits, headers, nodes, 0).denied.is_none();
    (0..100).filter(admits).count()
}

#[test]
fn each_of_three_nodes_has_a_third_of_every_limit() {
    let state = State::new(64);
    let each = vec![header("x-user-id", ValueTest::Each)];
    let limits = global(&state, vec![rule(0, 40, Vec::new()), rule(1, 15, each)]);
    assert_eq!(burst(&limits, &user("alice"), 3), 5);
    // What was denied took nothing from the other: 13 less 5 are left.
    assert_eq!(burst(&limits, &user("bob"), 3), 5);
    assert_eq!(burst(&limits, &user("cid"), 3), 3);
    // Fewer nodes are no fresh limit: of forty, 39 count as used.
    assert_eq!(burst(&limits, &user("dan"), 1), 1);
    assert_eq!(burst(&limits, &user("dan"), 0), 0);
}

#[test]
fn what_a_share_took_comes_back_to_it() {
    let state = State::new(64);
    let mut refunded = rule(0, 30, Vec::new());
    refunded.refund_on.upstream_failure = true;
    let limits = global(&state, vec![refunded]);
    let none = HeaderMap::new();
    let taken = alone(&limits, &none, 3, 0);
    assert_eq!(burst(&limits, &none, 3), 9);
    let (rule, _) = limits.rules().next().unwrap();
    let receipt = taken.drawn[0].taken.as_ref().unwrap();
    MemoryStore.adjust(rule, receipt, Adjustment::GiveBack, at(0));
    assert_eq!(burst(&limits, &none, 3), 1);
}

#[test]
fn a_node_goes_on_from_what_the_store_said() {
    let state = State::new(64);
    let each = vec![header("x-user-id", ValueTest::Each)];
    let limits = global(&state, vec![rule(0, 60, each)]);
    let said = |name: &str, remaining: u64| {
        let headers = user(name);
        let request = asked(&headers);
        let standing = Standing {
            remaining,
            reset: (60 - remaining) * SECOND,
        };
        draws(&limits, &request)[0].remember(standing, at(0));
    };
    said("alice", 30);
    said("bob", 0);
    said("cid", 31);
    assert_eq!(burst(&limits, &user("alice"), 2), 15);
    assert_eq!(burst(&limits, &user("bob"), 2), 0);
    // Who has used less takes no room for it.
    assert_eq!(burst(&limits, &user("cid"), 2), 30);
    assert_eq!(burst(&limits, &user("dan"), 2), 30);
    let one = global(&state, vec![rule(7, 60, Vec::new())]);
    let none = HeaderMap::new();
    let standing = Standing {
        remaining: 58,
        reset: 2 * SECOND,
    };
    draws(&one, &asked(&none))[0].remember(standing, at(0));
    assert_eq!(burst(&one, &none, 2), 29);
}
