//! Buckets that are found by name, and filled again.

use http::{HeaderName, HeaderValue};
use limiter_common::Limit;

use super::*;
use crate::engine::Engine;
use crate::engine::decide::Decision;
use crate::engine::store::SharedStore;
use crate::engine::store::ledger::{Asking, Change, Ledger, Question};
use crate::policy::plan::{
    Condition, Hostname, Listener, OnStoreFailure, PathMatch, Quota, RouteKind, RouteMatch,
    RouteRule, ValueTest,
};

const AT: Now = Now {
    mono: 5 * SECOND,
    unix: 1_000 * SECOND,
};

fn per_minute(tokens: u64) -> Quota {
    Quota::bucket(Limit::new(tokens, tokens, 60 * SECOND).unwrap(), 60)
}

fn by_user() -> Condition {
    Condition::Header {
        name: HeaderName::from_static("x-user"),
        test: ValueTest::Each,
    }
}

fn rule(name: &str, conditions: Vec<Condition>, quota: Quota) -> LimitRule {
    LimitRule::new(name.to_owned(), conditions, quota)
}

/// A plan of two routes under the same policies.
fn plan() -> Plan {
    let all = rule("d/p/rule/0", Vec::new(), per_minute(3));
    let each = rule("d/p/rule/1", vec![by_user()], per_minute(2));
    let nothing = rule("d/p/rule/2", vec![by_user()], Quota::Unlimited);
    let mut own = rule("d/p/rule/3", Vec::new(), per_minute(2));
    own.per_connection = true;
    let limits = RateLimits {
        local: vec![PolicyLimits {
            policy: "d/p".to_owned(),
            rules: vec![each, nothing, own],
            default: Some(all),
        }],
        global: vec![PolicyLimits {
            policy: "d/g".to_owned(),
            rules: vec![
                rule("d/g/rule/0", Vec::new(), per_minute(5)),
                rule("d/g/rule/1", vec![by_user()], per_minute(4)),
            ],
            default: None,
        }],
    };
    let limits = Arc::new(limits);
    let route = |name: &str| Route {
        name: name.to_owned(),
        kind: RouteKind::Http,
        hostnames: vec![Hostname::Any],
        in_order: false,
        rules: vec![RouteRule {
            matches: vec![RouteMatch {
                path: PathMatch::Prefix(String::new()),
                method: None,
                headers: Vec::new(),
                query: Vec::new(),
            }],
            limits: Arc::clone(&limits),
            ..RouteRule::default()
        }],
    };
    Plan {
        listeners: vec![Listener {
            name: "d/g/http".to_owned(),
            routes: vec![route("d/a"), route("d/b")],
            ..Listener::default()
        }],
        ..Plan::default()
    }
}

fn user(name: &str) -> HeaderMap {
    HeaderMap::from_iter([(
        HeaderName::from_static("x-user"),
        HeaderValue::try_from(name).unwrap(),
    )])
}

fn request(headers: &HeaderMap) -> RequestView<'_> {
    RequestView {
        method: &Method::GET,
        path: "/",
        query: None,
        headers,
        client: [192, 0, 2, 1].into(),
        connection: None,
    }
}

/// Charges a request on the route `d/a`, as the data plane does.
fn charge(plan: &Plan, state: &State, headers: &HeaderMap) {
    let route = &plan.listeners[0].routes[0];
    let limits = Limits::compile(&route.rules[0].limits, &route.identity(), state).unwrap();
    assert!(matches!(
        limits.decide(&request(headers), AT),
        Decision::Ready(_)
    ));
}

fn here(found: Result<Found, NoBucket>) -> BucketState {
    match found.unwrap() {
        Found::Here(_, state) => state,
        Found::Stored(stored) => panic!("{stored:?}"),
    }
}

#[test]
fn limits_are_listed_by_name_with_the_state_of_single_buckets() {
    let (plan, state) = (plan(), State::new(64));
    let _in_force = Engine::compile(&plan, &state);
    charge(&plan, &state, &HeaderMap::new());
    let (all, more) = list(&plan, &state, "", 100, AT);
    assert_eq!((all.len(), more), (12, 0));
    let of = |name: &str| all.iter().find(|one| one.name == name).unwrap();
    let single = of("local:d/p/rule/0@d/a");
    assert_eq!((single.buckets, single.capacity), (Buckets::One, Some(3)));
    // The rule of connections holds for every request, so the default was not asked.
    assert_eq!(single.state.unwrap().remaining, 3);
    assert_eq!(of("global:d/g/rule/0@d/a").state.unwrap().remaining, 4);
    assert_eq!(of("global:d/g/rule/0@d/b").state.unwrap().remaining, 5);
    assert_eq!(of("local:d/p/rule/1@d/a").buckets, Buckets::PerValue);
    assert_eq!(of("local:d/p/rule/1@d/a").state, None);
    let unlimited = of("local:d/p/rule/2@d/a");
    assert_eq!(
        (unlimited.buckets, unlimited.capacity),
        (Buckets::None, None)
    );
    assert_eq!(of("local:d/p/rule/3@d/a").buckets, Buckets::PerConnection);

    let (some, more) = list(&plan, &state, "global:", 3, AT);
    assert_eq!((some.len(), more), (3, 1));
    assert!(some.iter().all(|one| one.name.starts_with("global:")));
}

#[test]
fn a_value_has_its_bucket_filled_and_others_keep_theirs() {
    let (plan, state) = (plan(), State::new(64));
    let _in_force = Engine::compile(&plan, &state);
    let (alice, bob) = (user("alice"), user("bob"));
    for headers in [&alice, &alice, &bob] {
        charge(&plan, &state, headers);
    }
    let name = "local:d/p/rule/1@d/a";
    let of = |headers: &HeaderMap| here(look(&plan, &state, name, Some(&request(headers)), AT));
    assert_eq!((of(&alice).remaining, of(&alice).admits), (0, false));
    assert!(of(&alice).wait_ms > 0);
    assert_eq!(of(&bob).remaining, 1);
    let filled = here(reset(&plan, &state, name, Some(&request(&alice)), AT));
    assert_eq!((filled.remaining, filled.reset_ms), (2, 0));
    assert_eq!(of(&alice).remaining, 2);
    assert_eq!(of(&bob).remaining, 1);
    // The other route has its own.
    let other = look(
        &plan,
        &state,
        "local:d/p/rule/1@d/b",
        Some(&request(&bob)),
        AT,
    );
    assert_eq!(here(other).remaining, 2);
}

#[test]
fn what_has_no_bucket_says_why() {
    let (plan, state) = (plan(), State::new(64));
    let _in_force = Engine::compile(&plan, &state);
    let none = HeaderMap::new();
    let why = |name: &str, request: Option<&RequestView<'_>>| {
        look(&plan, &state, name, request, AT).unwrap_err()
    };
    let name = |index: u8| format!("local:d/p/rule/{index}@d/a");
    assert_eq!(why(&name(1), None), NoBucket::PerValue(name(1)));
    assert_eq!(
        why(&name(1), Some(&request(&none))),
        NoBucket::NotMet(name(1))
    );
    assert!(matches!(why(&name(2), None), NoBucket::Uncounted { .. }));
    assert_eq!(why(&name(3), None), NoBucket::PerConnection(name(3)));
    assert_eq!(
        why("local:d/p/rule/0@d/z", None),
        NoBucket::NoSuchLimit("local:d/p/rule/0@d/z".to_owned())
    );
}

/// A ledger that is never asked here.
#[derive(Debug)]
struct Silent;

impl Ledger for Silent {
    fn ask(&self, _: Question, _: Now) -> Option<Asking> {
        None
    }

    fn change(&self, _: Vec<Change>, _: Now) {}

    fn join(&self) {}
}

#[test]
fn buckets_of_the_store_are_named_as_it_names_them() {
    let plan = plan();
    let store = SharedStore::new(Arc::new(Silent), "limiterd:", OnStoreFailure::Local);
    let state = State::new(64).with_store(Arc::new(store));
    let _in_force = Engine::compile(&plan, &state);
    let alice = user("alice");
    let name = "global:d/g/rule/1@d/a";
    let found = look(&plan, &state, name, Some(&request(&alice)), AT).unwrap();
    let Found::Stored(stored) = found else {
        panic!("{found:?}");
    };
    assert!(stored.key.starts_with("limiterd:{d/g"), "{}", stored.key);
    assert!(
        stored.key.contains("}d/g/rule/1@d/a+#bucket:"),
        "{}",
        stored.key
    );
    let read = |value: &str| stored.read(Some(value), AT);
    // Two of four tokens a minute are used for the next 30 s.
    let half = read("1030:0").unwrap();
    assert_eq!((half.remaining, half.reset_ms), (2, 30_000));
    assert_eq!(stored.read(None, AT).unwrap().remaining, 4);
    assert_eq!(read("no state"), None);
    assert_eq!(read("1:2:3:4"), None);
    // This node's memory is not what counts.
    let (all, _) = list(&plan, &state, "global:", 9, AT);
    assert!(all.iter().all(|one| one.state.is_none()), "{all:?}");
}
