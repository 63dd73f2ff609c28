//! Tables of actions, requests and the descriptors that they come to.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use regex::bytes::Regex;

use super::*;

struct Request {
    headers: HeaderMap,
    client: IpAddr,
    query: Option<&'static str>,
}

impl Request {
    fn new(headers: &[(&'static str, &'static str)], client: &str) -> Self {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        Self {
            headers: map,
            client: client.parse().unwrap(),
            query: Some("a=1&b=x%20y&empty="),
        }
    }

    fn seen(&self) -> Seen<'_> {
        Seen {
            request: RequestView {
                connection: None,
                method: &Method::POST,
                path: "/shop",
                query: self.query,
                headers: &self.headers,
                client: self.client,
            },
            tls: true,
            source: "default/edge",
            destination: "default/backend",
        }
    }
}

fn rule(actions: Vec<Action>) -> DescriptorRule {
    DescriptorRule {
        stage: 0,
        disable_key: String::new(),
        actions,
        limit: None,
        hits: None,
        at_the_end: false,
        headers: None,
    }
}

/// `key=value,key=value`, or `none`.
fn made(actions: Vec<Action>, request: &Request) -> String {
    let rule = rule(actions);
    let seen = request.seen();
    match descriptor(&rule, &seen) {
        None => "none".to_owned(),
        Some(made) => {
            let entries = made
                .entries
                .iter()
                .map(|(key, value)| format!("{key}={value}"));
            entries.collect::<Vec<_>>().join(",")
        }
    }
}

fn named(name: &'static str) -> HeaderSource {
    HeaderSource::Named(HeaderName::from_static(name))
}

fn header(source: HeaderSource, skip_if_absent: bool) -> Action {
    Action::RequestHeader {
        header: source,
        key: "h".into(),
        skip_if_absent,
    }
}

fn query(name: &str, skip_if_absent: bool) -> Action {
    Action::QueryParameter {
        name: name.into(),
        key: "q".into(),
        skip_if_absent,
    }
}

fn generic(value: &str) -> Action {
    Action::GenericKey {
        key: "generic_key".into(),
        value: value.into(),
    }
}

#[test]
fn actions_yield_entries_in_their_order() {
    let request = Request::new(
        &[
            ("host", "shop.example"),
            ("x-user", "alice"),
            ("x-user", "bob"),
        ],
        "192.0.2.77",
    );
    let masked = |v4, v6| Action::MaskedRemoteAddress { v4, v6 };
    let table: Vec<(Vec<Action>, &str)> = vec![
        (vec![Action::SourceCluster], "source_cluster=default/edge"),
        (
            vec![Action::DestinationCluster],
            "destination_cluster=default/backend",
        ),
        (vec![Action::RemoteAddress], "remote_address=192.0.2.77"),
        (vec![masked(24, 64)], "masked_remote_address=192.0.2.0/24"),
        (vec![masked(0, 0)], "masked_remote_address=0.0.0.0/0"),
        (vec![masked(32, 128)], "masked_remote_address=192.0.2.77/32"),
        // Of several lines the first one.
        (vec![header(named("x-user"), false)], "h=alice"),
        (
            vec![header(HeaderSource::Path, false)],
            "h=/shop?a=1&b=x%20y&empty=",
        ),
        (vec![header(HeaderSource::Method, false)], "h=POST"),
        (
            vec![header(HeaderSource::Authority, false)],
            "h=shop.example",
        ),
        (vec![header(HeaderSource::Scheme, false)], "h=https"),
        (vec![query("a", false)], "q=1"),
        (vec![query("b", false)], "q=x y"),
        (vec![query("empty", false)], "q="),
        (
            vec![generic("x"), Action::RemoteAddress, generic("y")],
            "generic_key=x,remote_address=192.0.2.77,generic_key=y",
        ),
    ];
    for (actions, wanted) in table {
        assert_eq!(made(actions.clone(), &request), wanted, "{actions:?}");
    }
    let request = Request::new(&[], "2001:db8:1:2:3::4");
    assert_eq!(
        made(vec![masked(24, 64)], &request),
        "masked_remote_address=2001:db8:1:2::/64"
    );
}

#[test]
fn what_yields_nothing_takes_the_descriptor_with_it() {
    let request = Request::new(&[], "192.0.2.77");
    let table: Vec<(Vec<Action>, &str)> = vec![
        (vec![generic("x"), header(named("x-user"), false)], "none"),
        (
            vec![generic("x"), header(named("x-user"), true)],
            "generic_key=x",
        ),
        (vec![header(HeaderSource::Authority, false)], "none"),
        (vec![generic("x"), query("no", false)], "none"),
        (vec![query("no", true), generic("x")], "generic_key=x"),
        // Nothing but what was skipped is no descriptor either.
        (vec![header(named("x-user"), true)], "none"),
        (vec![Action::Skip], "none"),
        (vec![Action::Skip, generic("x")], "generic_key=x"),
    ];
    for (actions, wanted) in table {
        assert_eq!(made(actions.clone(), &request), wanted, "{actions:?}");
    }
}

fn text(looks_for: TextPattern, ignore_case: bool) -> HeaderTest {
    HeaderTest::Text(TextTest {
        looks_for,
        ignore_case,
    })
}

#[test]
fn headers_are_matched_as_envoy_matches_them() {
    let request = Request::new(
        &[
            ("x-kind", "Free-Trial"),
            ("x-size", "10"),
            ("x-two", "a"),
            ("x-two", "b"),
        ],
        "192.0.2.77",
    );
    let whole = |text: &str| TextPattern::Regex(Regex::new(&format!("^(?:{text})$")).unwrap());
    let exact = |text: &str| TextPattern::Exact(text.to_owned());
    let free = || TextPattern::Prefix("free".to_owned());
    // Header, test, inverted, whether a missing one is empty, and whether it matches.
    let table: Vec<(&'static str, HeaderTest, bool, bool, bool)> = vec![
        ("x-kind", HeaderTest::Present(true), false, false, true),
        ("x-none", HeaderTest::Present(true), false, false, false),
        ("x-none", HeaderTest::Present(false), false, false, true),
        ("x-none", HeaderTest::Present(true), true, false, true),
        (
            "x-kind",
            text(exact("Free-Trial"), false),
            false,
            false,
            true,
        ),
        (
            "x-kind",
            text(exact("free-trial"), false),
            false,
            false,
            false,
        ),
        (
            "x-kind",
            text(exact("free-trial"), true),
            false,
            false,
            true,
        ),
        ("x-kind", text(free(), false), false, false, false),
        ("x-kind", text(free(), true), false, false, true),
        (
            "x-kind",
            text(TextPattern::Suffix("Trial".into()), false),
            false,
            false,
            true,
        ),
        (
            "x-kind",
            text(TextPattern::Contains("e-T".into()), false),
            false,
            false,
            true,
        ),
        (
            "x-kind",
            text(TextPattern::Contains("e-t".into()), false),
            false,
            false,
            false,
        ),
        ("x-kind", text(whole("Free"), false), false, false, false),
        ("x-kind", text(whole("Free.*"), false), false, false, true),
        ("x-kind", text(whole("Free.*"), false), true, false, false),
        ("x-size", HeaderTest::Range(10, 11), false, false, true),
        ("x-size", HeaderTest::Range(0, 10), false, false, false),
        ("x-size", HeaderTest::Range(0, 10), true, false, true),
        ("x-kind", HeaderTest::Range(0, 10), false, false, false),
        // Each line by itself.
        ("x-two", text(exact("b"), false), false, false, true),
        ("x-two", text(exact("b"), false), true, false, false),
        ("x-two", text(exact("a,b"), false), false, false, false),
        // What is not there matches nothing, inverted or not.
        ("x-none", text(exact("a"), false), true, false, false),
        ("x-none", text(exact(""), false), false, true, true),
        ("x-none", text(exact("a"), false), true, true, true),
    ];
    for (name, test, invert, missing_is_empty, wanted) in table {
        for expect in [true, false] {
            let action = Action::HeaderMatch {
                key: "header_match".into(),
                value: "v".into(),
                expect,
                headers: vec![HeaderMatcher {
                    header: named(name),
                    test: test.clone(),
                    invert,
                    missing_is_empty,
                }],
            };
            let found = made(vec![action.clone()], &request);
            let wanted = if wanted == expect {
                "header_match=v"
            } else {
                "none"
            };
            assert_eq!(found, wanted, "{action:?}");
        }
    }
}

#[test]
fn all_matchers_must_match() {
    let request = Request::new(&[("x-a", "1")], "192.0.2.77");
    let present = |name| HeaderMatcher {
        header: named(name),
        test: HeaderTest::Present(true),
        invert: false,
        missing_is_empty: false,
    };
    let action = |expect, names: &[&'static str]| Action::HeaderMatch {
        key: "k".into(),
        value: "v".into(),
        expect,
        headers: names.iter().copied().map(present).collect(),
    };
    assert_eq!(made(vec![action(true, &["x-a"])], &request), "k=v");
    assert_eq!(made(vec![action(true, &["x-a", "x-b"])], &request), "none");
    assert_eq!(made(vec![action(false, &["x-a", "x-b"])], &request), "k=v");
    let parameter = |name: &str, test| ParameterMatcher {
        name: name.to_owned(),
        test,
    };
    let exact = |text: &str| {
        ParameterTest::Text(TextTest {
            looks_for: TextPattern::Exact(text.to_owned()),
            ignore_case: false,
        })
    };
    for (parameters, wanted) in [
        (vec![parameter("b", exact("x y"))], "k=v"),
        (vec![parameter("b", exact("x%20y"))], "none"),
        (
            vec![parameter("b", exact("x y")), parameter("a", exact("2"))],
            "none",
        ),
        (vec![parameter("no", ParameterTest::Present(false))], "k=v"),
        (
            vec![parameter("empty", ParameterTest::Present(true))],
            "k=v",
        ),
        (vec![parameter("no", exact(""))], "none"),
    ] {
        let action = Action::QueryMatch {
            key: "k".into(),
            value: "v".into(),
            expect: true,
            parameters,
        };
        assert_eq!(made(vec![action.clone()], &request), wanted, "{action:?}");
    }
}

#[test]
fn addresses_are_in_nets_or_not() {
    let request = Request::new(&[], "192.0.2.77");
    for (nets, invert, wanted) in [
        (vec!["192.0.2.0/24"], false, "k=v"),
        (vec!["198.51.100.0/24", "192.0.2.77/32"], false, "k=v"),
        (vec!["198.51.100.0/24", "2001:db8::/32"], false, "none"),
        (vec!["192.0.2.0/24"], true, "none"),
        (vec![], true, "k=v"),
        (vec![], false, "none"),
    ] {
        let action = Action::AddressMatch {
            key: "k".into(),
            value: "v".into(),
            nets: nets.iter().map(|net| net.parse().unwrap()).collect(),
            invert,
        };
        assert_eq!(made(vec![action.clone()], &request), wanted, "{action:?}");
    }
}

#[test]
fn what_is_no_utf8_is_replaced() {
    let mut request = Request::new(&[], "192.0.2.77");
    let value = HeaderValue::from_bytes(b"a\xffb").unwrap();
    request.headers.insert("x-user", value);
    request.query = Some("q=%ff");
    let actions = vec![header(named("x-user"), false), query("q", false)];
    assert_eq!(made(actions, &request), "h=a\u{fffd}b,q=\u{fffd}");
}

#[test]
fn limit_hits_and_headers_go_along() {
    let request = Request::new(&[], "192.0.2.77");
    let rule = DescriptorRule {
        limit: Some(LimitOverride {
            requests: 7,
            unit: crate::policy::plan::TimeUnit::Hour,
        }),
        hits: Some(HitsAddend {
            number: 3,
            negative: true,
        }),
        headers: Some(false),
        ..rule(vec![generic("x")])
    };
    let seen = request.seen();
    let made = descriptor(&rule, &seen).unwrap();
    assert_eq!(
        (made.limit, made.hits, made.headers),
        (rule.limit, rule.hits, Some(false))
    );
    let said = format!("{made:?}");
    assert_eq!(format!("{:?}", made.into_owned()), said);
}
