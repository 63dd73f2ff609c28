//! What rules have in common, and where requests lead them.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use limiter_common::Limit;

use super::*;
use crate::engine::request::RequestView;
use crate::engine::state::{Reach, State};
use crate::policy::plan::{
    Algorithm, Condition, LimitRule, PolicyLimits, Quota, SourcePrefixes, ValueTest,
};

fn header(name: &'static str, test: ValueTest) -> Condition {
    Condition::Header {
        name: HeaderName::from_static(name),
        test,
    }
}

fn each(name: &'static str) -> Condition {
    header(name, ValueTest::Each)
}

fn is(name: &'static str, value: &'static str) -> Condition {
    header(name, ValueTest::Is(HeaderValue::from_static(value)))
}

fn source(v4: u8) -> Condition {
    Condition::Source {
        nets: Vec::new(),
        invert: false,
        each: Some(SourcePrefixes { v4, v6: 64 }),
    }
}

fn quota() -> Quota {
    Quota::Limited {
        limit: Limit::new(10, 10, 60_000_000_000).unwrap(),
        algorithm: Algorithm::TokenBucket,
        window: 60,
    }
}

fn rules(all: &[&[Condition]]) -> Vec<Rule> {
    let limits = PolicyLimits {
        policy: "d/p".to_owned(),
        rules: Vec::new(),
        default: None,
    };
    let state = State::new(64);
    let rule = |(index, conditions): (usize, &&[Condition])| {
        let rule = LimitRule::new(format!("d/p/rule/{index}"), conditions.to_vec(), quota());
        Rule::compile(&rule, Reach::Global, &limits, "d/r", &state)
    };
    let mut rules: Vec<Rule> = all.iter().enumerate().map(rule).collect();
    together(&mut rules);
    rules
}

/// What all go by, and whether that is all that tells the buckets of each apart.
fn spread(all: &[&[Condition]]) -> (Vec<String>, Vec<bool>) {
    let rules = rules(all);
    let pins = rules[0].spread.pins();
    assert!(rules.iter().all(|rule| rule.spread.pins() == pins));
    let whole = rules.iter().map(|rule| rule.spread.whole());
    (pins.to_vec(), whole.collect())
}

#[test]
fn rules_go_by_what_all_of_them_have() {
    let user = || each("x-user");
    for (rules, pins, whole) in [
        (
            &[&[user()][..], &[user()]][..],
            &["header x-user"][..],
            &[true, true][..],
        ),
        (
            &[&[user()], &[is("x-user", "batch")]],
            &["header x-user"],
            &[true, true],
        ),
        (
            &[&[user()], &[user(), each("x-tool")]],
            &["header x-user"],
            &[true, false],
        ),
        (&[&[user()], &[]], &[], &[false, true]),
        (&[&[user()], &[source(32)]], &[], &[false, false]),
        (&[&[source(32)], &[source(24)]], &[], &[false, false]),
        (
            &[&[user(), source(32)], &[source(32), each("x-tool"), user()]],
            &["header x-user", "source /32 /64"],
            &[true, false],
        ),
        (
            &[&[user()], &[header("x-user", ValueTest::Absent)]],
            &[],
            &[false, true],
        ),
    ] {
        assert_eq!(
            spread(rules),
            (
                pins.iter().map(ToString::to_string).collect(),
                whole.to_vec()
            )
        );
    }
}

#[test]
fn routes_are_apart_unless_a_rule_is_for_all() {
    let state = State::new(64);
    let limits = PolicyLimits {
        policy: "d/p".to_owned(),
        rules: Vec::new(),
        default: None,
    };
    let of = |shared: [bool; 2]| {
        let mut rules: Vec<Rule> = shared
            .iter()
            .map(|shared| {
                let rule = LimitRule {
                    shared: *shared,
                    ..LimitRule::new("d/p/rule/0".to_owned(), Vec::new(), quota())
                };
                Rule::compile(&rule, Reach::Global, &limits, "d/r", &state)
            })
            .collect();
        together(&mut rules);
        [0, 1].map(|index| rules[index].spread.by_route())
    };
    assert_eq!(of([false, false]), [true, true]);
    assert_eq!(of([false, true]), [false, false]);
}

#[test]
fn what_needs_no_count_has_no_say() {
    let mut rules = rules(&[&[each("x-user")], &[]]);
    rules[1].measure = Measure::Everything;
    together(&mut rules);
    assert_eq!(**rules[0].spread.pins(), ["header x-user".to_owned()]);
}

/// Rules that a request meets lead to one place, whatever the order of their conditions.
#[test]
fn a_request_leads_all_rules_to_one_place() {
    #[derive(Default)]
    struct Bytes(Vec<u8>);
    impl std::hash::Hasher for Bytes {
        fn write(&mut self, bytes: &[u8]) {
            self.0.extend(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let rules = rules(&[
        &[each("x-user"), source(24)],
        &[source(24), is("x-tool", "a"), each("x-user")],
        &[is("x-user", "ann"), source(24)],
    ]);
    let values = |user: &'static str, address: [u8; 4]| {
        let headers = HeaderMap::from_iter([
            (
                HeaderName::from_static("x-user"),
                HeaderValue::from_static(user),
            ),
            (
                HeaderName::from_static("x-tool"),
                HeaderValue::from_static("a"),
            ),
        ]);
        let request = RequestView {
            connection: None,
            method: &Method::GET,
            path: "/",
            query: None,
            headers: &headers,
            client: address.into(),
        };
        let fed = rules
            .iter()
            .filter(|rule| rule.holds(&request))
            .map(|rule| {
                let mut bytes = Bytes::default();
                rule.feed_spread(&request, &mut bytes);
                bytes.0
            });
        let all: BTreeSet<Vec<u8>> = fed.collect();
        assert_eq!(all.len(), 1, "{all:?}");
        all.into_iter().next().unwrap()
    };
    let ann = values("ann", [192, 0, 2, 1]);
    assert_eq!(ann, values("ann", [192, 0, 2, 200]));
    assert_ne!(ann, values("ann", [192, 0, 3, 1]));
    assert_ne!(ann, values("bob", [192, 0, 2, 1]));
}
