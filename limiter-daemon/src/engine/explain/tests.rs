//! What is explained, and that it is what is decided.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use limiter_common::Limit;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::engine::Engine;
use crate::engine::route::hostname;
use crate::engine::state::State;
use crate::policy::plan::{
    Abort, Backend, BackendSettings, Balancing, Condition, Endpoint, Fault, Fraction, HeaderMatch,
    Hostname, LoadBalancer, PathMatch, RateLimits, Route, RouteKind, RouteMatch, RouteTraffic,
    SourcePrefixes, UpstreamProtocol, ValueMatch, ValueTest, WeightedBackend,
};

const MINUTE: u64 = 60_000_000_000;
const AT: Now = Now { mono: 7, unix: 7 };

fn quota_of(requests: u64) -> Quota {
    Quota::bucket(Limit::new(requests, requests, MINUTE).unwrap(), 60)
}

fn limit_rule(name: &str, conditions: Vec<Condition>) -> LimitRule {
    LimitRule::new(name.to_owned(), conditions, quota_of(100))
}

fn header_is(name: &'static str, test: ValueTest) -> Condition {
    let name = HeaderName::from_static(name);
    Condition::Header { name, test }
}

fn any_match() -> RouteMatch {
    RouteMatch {
        path: PathMatch::Prefix(String::new()),
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
    }
}

fn listener(name: &str, port: u16, hostname: Hostname, routes: Vec<Route>) -> Listener {
    Listener {
        name: name.to_owned(),
        binds: vec![([127, 0, 0, 1], port).into()],
        hostname,
        routes,
        ..Listener::default()
    }
}

fn route(name: &str, rules: Vec<RouteRule>) -> Route {
    Route {
        name: name.to_owned(),
        hostnames: vec![Hostname::Any],
        rules,
        ..Route::default()
    }
}

fn limited(rules: Vec<LimitRule>, default: Option<LimitRule>) -> Arc<RateLimits> {
    let policy = "d/p".to_owned();
    let local = vec![PolicyLimits {
        policy,
        rules,
        default,
    }];
    Arc::new(RateLimits {
        local,
        global: Vec::new(),
    })
}

/// One listener and one route to one backend, under these limits.
fn plan(limits: Arc<RateLimits>) -> Plan {
    let rule = RouteRule {
        matches: vec![any_match()],
        backends: vec![WeightedBackend {
            backend: Some(0),
            weight: 1,
            filters: None,
        }],
        limits,
        ..RouteRule::default()
    };
    let routes = vec![route("d/api", vec![rule])];
    Plan {
        listeners: vec![listener("d/eg/http", 8080, Hostname::Any, routes)],
        backends: vec![Backend {
            name: "d/b".into(),
            endpoints: vec![Endpoint::Ip([127, 0, 0, 1].into(), 3000)],
            protocol: UpstreamProtocol::Http1,
            tls: None,
            ..Backend::default()
        }],
        ..Plan::default()
    }
}

fn asked<'a>(host: &'a str, path: &'a str, headers: &'a HeaderMap) -> Asked<'a> {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    Asked {
        tls: None,
        host,
        port: None,
        request: RequestView {
            connection: None,
            method: &Method::GET,
            path,
            query,
            headers,
            client: [192, 0, 2, 7].into(),
        },
    }
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(*name, HeaderValue::from_static(value));
    }
    map
}

#[test]
fn a_rule_is_met_or_the_first_condition_that_fails_is_told() {
    let user = |test| header_is("x-user-id", test);
    let plan = plan(limited(
        vec![
            limit_rule("d/p/rule/0", vec![user(ValueTest::Each)]),
            limit_rule("d/p/rule/1", vec![user(ValueTest::Absent)]),
            limit_rule(
                "d/p/rule/2",
                vec![user(ValueTest::Is(HeaderValue::from_static("bob")))],
            ),
        ],
        Some(limit_rule("d/p/rule/3", Vec::new())),
    ));
    let map = headers(&[("x-user-id", "alice")]);
    let said = explain(&plan, &asked("h", "/", &map), &NoBuckets, AT);
    assert_eq!(said.answer, "forwarded to d/b, if its buckets have tokens");
    let rules = &said.policies[0].rules;
    assert_eq!(
        rules[0].bucket.as_deref(),
        Some("header x-user-id `alice`, on route d/api")
    );
    assert_eq!(rules[0].quota, "100 a minute");
    assert_eq!(
        rules[1].why_not.as_deref(),
        Some("header x-user-id is present")
    );
    assert_eq!(
        rules[2].why_not.as_deref(),
        Some("header x-user-id is not `bob`")
    );
    assert_eq!(
        rules[3].why_not.as_deref(),
        Some("it is for requests that no other rule matches; d/p/rule/0 does")
    );

    let none = HeaderMap::new();
    let said = explain(&plan, &asked("h", "/", &none), &NoBuckets, AT);
    let whys: Vec<_> = said.policies[0]
        .rules
        .iter()
        .map(|rule| rule.why_not.as_deref().unwrap_or("met"))
        .collect();
    assert_eq!(
        whys,
        [
            "header x-user-id is absent",
            "met",
            "header x-user-id is absent",
            "it is for requests that no other rule matches; d/p/rule/1 does"
        ]
    );
}

#[test]
fn every_kind_of_condition_has_its_words() {
    let regex = |text| regex::bytes::Regex::new(text).unwrap();
    let net = |text: &str| text.parse().unwrap();
    let path = |text: &str| PathMatch::Prefix(text.to_owned());
    let query = |test| Condition::Query {
        name: "q".into(),
        test,
    };
    let source = |invert, each| Condition::Source {
        nets: vec![net("192.0.2.0/24")],
        invert,
        each,
    };
    let each = Some(SourcePrefixes { v4: 24, v6: 64 });
    let cases: [(Condition, &str, &str); 11] = [
        (
            header_is("x", ValueTest::IsNot(HeaderValue::from_static("1,2"))),
            "header x is not `1,2`",
            "header x is `1,2`",
        ),
        (
            header_is("x", ValueTest::Matches(regex("^[ab]$"))),
            "header x matches `^[ab]$`",
            "header x does not match `^[ab]$`",
        ),
        (
            header_is("x", ValueTest::MatchesNot(regex("^1,2$"))),
            "header x does not match `^1,2$`",
            "header x matches `^1,2$`",
        ),
        (
            header_is(
                "authorization",
                ValueTest::Is(HeaderValue::from_static("key")),
            ),
            "header authorization is (redacted)",
            "header authorization is absent",
        ),
        (
            query(ValueTest::Is(HeaderValue::from_static("b"))),
            "query parameter q is `b`",
            "query parameter q is not `b`",
        ),
        (
            query(ValueTest::Absent),
            "query parameter q is absent",
            "query parameter q is present",
        ),
        (
            Condition::Method(vec![(Method::POST, false), (Method::GET, true)]),
            "method POST or not GET",
            "not so: method POST or not GET",
        ),
        (
            Condition::Path {
                path: path("/b"),
                invert: false,
            },
            "path begins with `/b`",
            "path does not begin with `/b`",
        ),
        (
            Condition::Path {
                path: path("/a"),
                invert: true,
            },
            "not path begins with `/a`",
            "path begins with `/a`",
        ),
        (
            source(true, None),
            "client not in 192.0.2.0/24",
            "client is in 192.0.2.0/24",
        ),
        (
            source(true, each),
            "client not in 192.0.2.0/24, a bucket for each /24 (IPv6: /64)",
            "client is in 192.0.2.0/24",
        ),
    ];
    let map = headers(&[("x", "1"), ("x", "2")]);
    let asked = asked("h", "/a/c?q=a%20b&r", &map);
    for (one, words, why) in &cases {
        assert_eq!(condition(one), *words);
        assert_eq!(holds(one, &asked.request).unwrap_err().to_string(), *why);
    }
    let met = [
        query(ValueTest::Is(HeaderValue::from_static("a b"))),
        header_is("x", ValueTest::Is(HeaderValue::from_static("1,2"))),
        Condition::Method(vec![(Method::POST, true)]),
        Condition::Path {
            path: path("/a"),
            invert: false,
        },
        source(false, each),
    ];
    for one in &met {
        assert!(holds(one, &asked.request).is_ok(), "{}", condition(one));
    }
    let rule = limit_rule("r", met.to_vec());
    assert_eq!(
        words::bucket(&rule, "d/api", &asked.request),
        "client 192.0.2.0/24, on route d/api"
    );
}

#[test]
fn the_listener_is_that_of_the_port_and_the_most_specific_hostname() {
    let named = |name, port, hostname| listener(name, port, hostname, Vec::new());
    let exact = |host: &str| Hostname::Exact(host.to_owned());
    let plan = Plan {
        listeners: vec![
            named("any", 8080, Hostname::Any),
            named("wild", 8080, Hostname::Wildcard(".example".into())),
            named("exact", 8080, exact("a.example")),
            named("other", 8081, Hostname::Any),
        ],
        ..Plan::default()
    };
    let none = HeaderMap::new();
    let ask = |host, port| {
        let asked = Asked {
            port,
            ..asked(host, "/", &none)
        };
        let said = explain(&plan, &asked, &NoBuckets, AT);
        (said.listener.unwrap_or_default(), said.other_listeners)
    };
    assert_eq!(ask("A.example.:8080", Some(8080)).0, "exact");
    assert_eq!(ask("b.example", Some(8080)).0, "wild");
    assert_eq!(ask("example", Some(8080)).0, "any");
    assert_eq!(ask("a.example", Some(8081)).0, "other");
    let (none, others) = ask("a.example", Some(9));
    assert_eq!(none, "");
    assert_eq!(others[0].why, "it listens on port 8080, not 9");
    let (_, others) = ask("b.example", Some(8080));
    let whys: Vec<_> = others.iter().map(|other| other.why.as_str()).collect();
    assert_eq!(
        whys,
        [
            "it matches too; wild is more specific",
            "it is for a.example",
            "it listens on port 8081, not 8080"
        ]
    );
}

#[test]
fn treatment_is_told_of_the_rule_and_of_its_backend() {
    let mut plan = plan(limited(Vec::new(), None));
    plan.backends[0].policy = "d/p+d/gw".into();
    plan.backends[0].settings = Arc::new(BackendSettings {
        load_balancer: LoadBalancer {
            algorithm: Balancing::RoundRobin,
            slow_start: None,
        },
        ..BackendSettings::default()
    });
    plan.listeners[0].routes[0].rules[0].traffic = Arc::new(RouteTraffic {
        fault: Some(Fault {
            delay: Some((Duration::from_secs(2), Fraction::percent(5))),
            abort: Some((Abort::Http(StatusCode::IM_A_TEAPOT), Fraction::ALL)),
        }),
        request_buffer: Some(4096),
        ..RouteTraffic::default()
    });
    let none = HeaderMap::new();
    let said = explain(&plan, &asked("h", "/", &none), &NoBuckets, AT);
    assert_eq!(
        said.answer,
        "answered with 418 on purpose; no limit applies"
    );
    assert_eq!(
        said.traffic,
        [
            "5 % of the requests are delayed by 2s on purpose",
            "100 % of the requests are answered with 418 on purpose",
            "requests are read whole first, up to 4096 bytes",
        ]
    );
    assert_eq!(said.backends[0].policy, "d/p+d/gw");
    assert_eq!(said.backends[0].settings[1], "balanced round robin");
}

#[test]
fn buckets_are_looked_at_and_not_charged() {
    let each = vec![header_is("x-user-id", ValueTest::Each)];
    let plan = plan(limited(vec![limit_rule("d/p/rule/0", each)], None));
    let state = State::new(64);
    let engine = Engine::compile(&plan, &state);
    let alice = headers(&[("x-user-id", "alice")]);
    let request = asked("h", "/", &alice);
    for _ in 0..100 {
        let said = explain(&plan, &request, &state, AT);
        assert!(said.policies[0].rules[0].state.unwrap().admits);
        charge(&engine, &request);
    }
    let said = explain(&plan, &request, &state, AT);
    let empty = BucketState {
        remaining: 0,
        reset_ms: 60_000,
        admits: false,
        wait_ms: 600,
    };
    assert_eq!(said.policies[0].rules[0].state, Some(empty));
    assert_eq!(said.answer, "429: over the limit of d/p/rule/0, for 1 s");

    let bob = headers(&[("x-user-id", "bob")]);
    let said = explain(&plan, &asked("h", "/", &bob), &state, AT);
    assert_eq!(said.policies[0].rules[0].state.unwrap().remaining, 100);
}

#[test]
fn what_cannot_be_served_is_said() {
    let mut plan = plan(Arc::default());
    let none = HeaderMap::new();
    let answer = |plan: &Plan| explain(plan, &asked("h", "/", &none), &NoBuckets, AT).answer;
    assert_eq!(answer(&plan), "forwarded to d/b; no limit applies");
    let rule = &mut plan.listeners[0].routes[0].rules[0];
    rule.broken = Some("the policy d/p was never valid".into());
    assert_eq!(answer(&plan), "500: the policy d/p was never valid");
    let rule = &mut plan.listeners[0].routes[0].rules[0];
    rule.broken = None;
    rule.backends.clear();
    assert_eq!(
        answer(&plan),
        "500: the rule has no backend; no limit applies"
    );
    let rule = &mut plan.listeners[0].routes[0].rules[0];
    let blocked = LimitRule {
        quota: Quota::Blocked { window: 60 },
        ..limit_rule("d/p/rule/0", Vec::new())
    };
    rule.limits = limited(vec![blocked], None);
    assert_eq!(answer(&plan), "429: d/p/rule/0 admits nothing");
    plan.listeners[0].routes.clear();
    assert_eq!(
        answer(&plan),
        "404: no route matches this host, path, method and headers"
    );
}

/// Decides and charges a request as the data plane does.
fn charge(engine: &Engine, asked: &Asked<'_>) {
    let request = &asked.request;
    let host = hostname(asked.host);
    let matched = engine.listeners[0].routes.find(&host, request);
    if let Some(limits) = matched.and_then(|matched| matched.rule.limits.as_ref()) {
        drop(limits.decide(request, AT));
    }
}

/// Names of the rules that a request is charged under, by the data plane's own counters.
fn charged(plan: &Plan, asked: &Asked<'_>) -> Vec<String> {
    let state = State::new(64);
    let engine = Engine::compile(plan, &state);
    charge(&engine, asked);
    let mut names: Vec<_> = state
        .scopes()
        .iter()
        .filter(|scope| scope.counters.admitted.load(Ordering::Relaxed) > 0)
        .map(|scope| scope.name.rule.clone())
        .collect();
    names.sort();
    names
}

fn any_test() -> impl Strategy<Value = ValueTest> {
    let value = || select(vec!["a", "b", "a,b", ""]).prop_map(HeaderValue::from_static);
    let regex = || {
        select(vec!["^(?:a|b)$", "^(?:a,.*)$", "^(?:)$"])
            .prop_map(|text| regex::bytes::Regex::new(text).unwrap())
    };
    prop_oneof![
        value().prop_map(ValueTest::Is),
        value().prop_map(ValueTest::IsNot),
        regex().prop_map(ValueTest::Matches),
        regex().prop_map(ValueTest::MatchesNot),
        Just(ValueTest::Each),
        Just(ValueTest::EachSingle),
        Just(ValueTest::Absent),
    ]
}

fn any_path() -> impl Strategy<Value = PathMatch> {
    let prefix = select(vec!["", "/a", "/a/b"]).prop_map(|p| PathMatch::Prefix(p.to_owned()));
    let exact = select(vec!["/a", "/a/b"]).prop_map(|p| PathMatch::Exact(p.to_owned()));
    let regex = Just(PathMatch::Regex(regex::Regex::new("^(?:/a.*)$").unwrap()));
    let beginning = select(vec!["/", "/a"]).prop_map(|p| PathMatch::StartsWith(p.to_owned()));
    prop_oneof![prefix, exact, regex, beginning]
}

fn any_condition() -> impl Strategy<Value = Condition> {
    let header = (select(vec!["x-user-id", "x-tier"]), any_test())
        .prop_map(|(name, test)| header_is(name, test));
    let query = (select(vec!["q", "r"]), any_test()).prop_map(|(name, test)| Condition::Query {
        name: name.to_owned(),
        test,
    });
    let method = (select(vec![Method::GET, Method::POST]), any::<bool>());
    let methods = prop::collection::vec(method, 1..3).prop_map(Condition::Method);
    let path =
        (any_path(), any::<bool>()).prop_map(|(path, invert)| Condition::Path { path, invert });
    let nets = subsequence(vec!["192.0.2.0/24", "2001:db8::/32"], 0..=2);
    let each = select(vec![None, Some(SourcePrefixes { v4: 24, v6: 64 })]);
    let source = (nets, any::<bool>(), each).prop_map(|(nets, invert, each)| Condition::Source {
        nets: nets.iter().map(|net| net.parse().unwrap()).collect(),
        invert,
        each,
    });
    prop_oneof![3 => header, 2 => query, 1 => methods, 1 => path, 1 => source]
}

fn any_route_match() -> impl Strategy<Value = RouteMatch> {
    let path = any_path();
    let method = select(vec![None, Some(Method::GET), Some(Method::POST)]);
    let tier = select(vec![
        None,
        Some((Some("a"), false)),
        Some((Some("a"), true)),
        Some((None, false)),
        Some((None, true)),
    ]);
    (path, method, tier).prop_map(|(path, method, tier)| RouteMatch {
        path,
        method,
        headers: Vec::from_iter(tier.map(|(tier, invert)| HeaderMatch {
            name: HeaderName::from_static("x-tier"),
            value: tier.map_or(ValueMatch::Present, |tier| {
                ValueMatch::Exact(HeaderValue::from_static(tier))
            }),
            invert,
        })),
        query: Vec::new(),
    })
}

/// Routes whose limit rules have names of their own, so that a charge tells which rule was taken.
fn any_plan() -> impl Strategy<Value = Plan> {
    let hostnames = subsequence(
        vec![
            Hostname::Any,
            Hostname::Exact("a.example".into()),
            Hostname::Wildcard(".example".into()),
        ],
        1..=3,
    );
    let conditions = prop::collection::vec(any_condition(), 1..3);
    let limits = prop::collection::vec(conditions, 0..3);
    let matches = prop::collection::vec(any_route_match(), 1..3);
    let rules = prop::collection::vec((matches, limits), 1..3);
    let route_of = (hostnames, rules, any::<bool>(), any::<bool>());
    prop::collection::vec(route_of, 1..4).prop_map(|routes| {
        let routes = routes
            .into_iter()
            .enumerate()
            .map(|(r, (hostnames, rules, grpc, in_order))| Route {
                hostnames,
                in_order,
                kind: if grpc {
                    RouteKind::Grpc
                } else {
                    RouteKind::Http
                },
                ..route(&format!("d/r{r}"), numbered(r, rules))
            })
            .collect();
        let listeners = vec![listener("d/eg/http", 8080, Hostname::Any, routes)];
        Plan {
            listeners,
            ..Plan::default()
        }
    })
}

fn numbered(r: usize, rules: Vec<(Vec<RouteMatch>, Vec<Vec<Condition>>)>) -> Vec<RouteRule> {
    let rule = |(i, (matches, limits)): (usize, (Vec<RouteMatch>, Vec<Vec<Condition>>))| {
        let name = |n: usize| format!("d/r{r}/{i}/rule/{n}");
        let default = limit_rule(&name(limits.len()), Vec::new());
        let rules = limits
            .into_iter()
            .enumerate()
            .map(|(n, conditions)| limit_rule(&name(n), conditions))
            .collect();
        RouteRule {
            matches,
            limits: limited(rules, Some(default)),
            ..RouteRule::default()
        }
    };
    rules.into_iter().enumerate().map(rule).collect()
}

proptest! {
    #[test]
    fn what_is_said_to_match_is_what_is_charged(
        plan in any_plan(),
        host in select(vec!["a.example", "B.example:8080", "other"]),
        path in select(vec!["/", "/a", "/a/b", "/ab", "/a?q=a", "/a?q=a&q=b", "/?q=%61%2Cb", "/?q"]),
        post in any::<bool>(),
        grpc in any::<bool>(),
        client in select(vec!["192.0.2.7", "198.51.100.1", "2001:db8::1"]),
        user in prop::collection::vec(select(vec!["a", "b"]), 0..3),
        tier in prop::collection::vec(select(vec!["a", "b"]), 0..2),
    ) {
        let mut map = HeaderMap::new();
        for (name, values) in [("x-user-id", &user), ("x-tier", &tier)] {
            for value in values {
                map.append(name, HeaderValue::from_static(value));
            }
        }
        if grpc {
            map.insert("content-type", HeaderValue::from_static("application/grpc"));
        }
        let mut asked = asked(host, path, &map);
        asked.request.client = client.parse().unwrap();
        if post {
            asked.request.method = &Method::POST;
        }
        let said = explain(&plan, &asked, &NoBuckets, AT);
        let mut met: Vec<_> = said
            .policies
            .iter()
            .flat_map(|policy| &policy.rules)
            .filter(|rule| rule.matches)
            .map(|rule| rule.name.clone())
            .collect();
        met.sort();
        prop_assert_eq!(met, charged(&plan, &asked));
        // The reason is found for just what does not hold.
        let rules = plan.listeners[0].routes.iter().flat_map(|route| &route.rules);
        for one in rules.flat_map(|rule| &rule.limits.local[0].rules).flat_map(|r| &r.conditions) {
            let found = holds::look(one, &asked.request).is_ok();
            prop_assert_eq!(found, holds(one, &asked.request).is_ok(), "{}", condition(one));
        }
        // Whatever does not take the request says why.
        prop_assert!(said.other_routes.iter().all(|other| !other.why.is_empty()));
    }
}
