//! Every condition, against requests that it holds for and that it does not.

use std::hash::BuildHasher;

use proptest::prelude::*;
use regex::Regex as PathRegex;
use regex::bytes::Regex;

use super::*;

struct Request {
    method: Method,
    path: &'static str,
    query: Option<&'static str>,
    headers: HeaderMap,
    client: &'static str,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            method: Method::GET,
            path: "/",
            query: None,
            headers: HeaderMap::new(),
            client: "192.0.2.1",
        }
    }
}

impl Request {
    fn view(&self) -> RequestView<'_> {
        RequestView {
            connection: None,
            method: &self.method,
            path: self.path,
            query: self.query,
            headers: &self.headers,
            client: self.client.parse().unwrap(),
        }
    }
}

fn headers(pairs: &[(&'static str, &'static str)]) -> Request {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_static(value));
    }
    Request {
        headers,
        ..Request::default()
    }
}

fn query(query: &'static str) -> Request {
    Request {
        query: Some(query),
        ..Request::default()
    }
}

fn header(test: ValueTest) -> Matcher {
    Matcher::compile(&Condition::Header {
        name: HeaderName::from_static("a"),
        test,
    })
}

fn parameter(name: &str, test: ValueTest) -> Matcher {
    Matcher::compile(&Condition::Query {
        name: name.to_owned(),
        test,
    })
}

fn is(value: &'static str) -> ValueTest {
    ValueTest::Is(HeaderValue::from_static(value))
}

fn is_not(value: &'static str) -> ValueTest {
    ValueTest::IsNot(HeaderValue::from_static(value))
}

fn whole(pattern: &str) -> Regex {
    Regex::new(&format!("^(?:{pattern})$")).unwrap()
}

fn check(matcher: &Matcher, cases: &[(&Request, bool)]) {
    for (request, wanted) in cases {
        let view = request.view();
        assert_eq!(matcher.holds(&view), *wanted, "{matcher:?}: {view:?}");
    }
}

#[test]
fn headers_by_value() {
    let (none, one, other) = (headers(&[]), headers(&[("a", "x")]), headers(&[("a", "y")]));
    let two = headers(&[("a", "x"), ("a", "y")]);
    check(
        &header(is("x")),
        &[(&none, false), (&one, true), (&other, false), (&two, false)],
    );
    check(
        &header(is_not("x")),
        &[(&none, true), (&one, false), (&other, true), (&two, true)],
    );
    check(&header(is("x,y")), &[(&one, false), (&two, true)]);
    check(
        &header(ValueTest::Matches(whole("x|x,y"))),
        &[(&none, false), (&one, true), (&other, false), (&two, true)],
    );
    check(
        &header(ValueTest::MatchesNot(whole("x"))),
        &[(&none, true), (&one, false), (&other, true), (&two, true)],
    );
    check(&header(ValueTest::Each), &[(&none, false), (&one, true)]);
    check(&header(ValueTest::Absent), &[(&none, true), (&one, false)]);
    let empty = headers(&[("a", "")]);
    check(
        &header(ValueTest::EachSingle),
        &[(&none, false), (&empty, false), (&one, true), (&two, false)],
    );
}

#[test]
fn query_parameters_are_decoded_and_the_first_counts() {
    let (none, flag) = (Request::default(), query("k"));
    let first = query("&x=1&k=a%20b&k=c");
    let key = query("%6B=%61+b");
    check(
        &parameter("k", is("a b")),
        &[
            (&none, false),
            (&flag, false),
            (&first, true),
            (&key, false),
        ],
    );
    check(&parameter("k", is("a+b")), &[(&key, true)]);
    check(&parameter("k", is("")), &[(&flag, true), (&none, false)]);
    check(&parameter("k", is("c")), &[(&first, false)]);
    check(
        &parameter("k", is_not("a b")),
        &[(&none, true), (&first, false), (&flag, true)],
    );
    check(
        &parameter("k", ValueTest::Matches(whole("a.b"))),
        &[(&none, false), (&first, true), (&key, true), (&flag, false)],
    );
    check(
        &parameter("k", ValueTest::MatchesNot(whole("a b"))),
        &[(&none, true), (&first, false), (&key, true)],
    );
    check(
        &parameter("k", ValueTest::Each),
        &[
            (&none, false),
            (&flag, true),
            (&key, true),
            (&query("kk=1"), false),
        ],
    );
    check(
        &parameter("k", ValueTest::Absent),
        &[(&none, true), (&flag, false)],
    );
    check(
        &parameter("", is("")),
        &[(&query("a&&b"), false), (&query("=&b"), true)],
    );
}

#[test]
fn methods_are_any_of_a_list() {
    let of = |method: Method| Request {
        method,
        ..Request::default()
    };
    let (get, post) = (of(Method::GET), of(Method::POST));
    let matcher = |methods: Vec<_>| Matcher::compile(&Condition::Method(methods));
    check(
        &matcher(vec![(Method::GET, false), (Method::PUT, false)]),
        &[(&get, true), (&post, false), (&of(Method::PUT), true)],
    );
    check(
        &matcher(vec![(Method::GET, true)]),
        &[(&get, false), (&post, true)],
    );
}

#[test]
fn paths_as_routes_match_them() {
    let at = |path| Request {
        path,
        ..Request::default()
    };
    let matcher = |path, invert| Matcher::compile(&Condition::Path { path, invert });
    let prefix = PathMatch::Prefix("/v1".into());
    let (inside, outside) = (at("/v1/x"), at("/v1x"));
    check(
        &matcher(prefix.clone(), false),
        &[(&inside, true), (&outside, false)],
    );
    check(
        &matcher(prefix, true),
        &[(&inside, false), (&outside, true)],
    );
    check(
        &matcher(PathMatch::Exact("/v1x".into()), false),
        &[(&inside, false), (&outside, true)],
    );
    let regex = PathMatch::Regex(PathRegex::new("^(?:/v1/.)$").unwrap());
    check(&matcher(regex, true), &[(&inside, false), (&outside, true)]);
}

#[test]
fn sources_by_cidr() {
    let from = |client| Request {
        client,
        ..Request::default()
    };
    let matcher = |nets: &[&str], invert| {
        Matcher::compile(&Condition::Source {
            nets: nets.iter().map(|net| net.parse().unwrap()).collect(),
            invert,
            each: None,
        })
    };
    let (near, far, six) = (from("10.1.2.3"), from("192.0.2.1"), from("2001:db8::1"));
    let nets = ["10.0.0.0/8", "2001:db8::/64"];
    check(
        &matcher(&nets, false),
        &[(&near, true), (&far, false), (&six, true)],
    );
    check(
        &matcher(&nets, true),
        &[(&near, false), (&far, true), (&six, false)],
    );
    check(
        &matcher(&[], false),
        &[(&near, true), (&far, true), (&six, true)],
    );
    check(&matcher(&[], true), &[(&near, false), (&far, false)]);
}

#[test]
fn values_with_buckets_of_their_own_are_told_apart() {
    let secret = std::hash::RandomState::new();
    let hash = |matcher: &Matcher, request: &Request| {
        let mut hasher = secret.build_hasher();
        matcher.feed(&request.view(), &mut hasher);
        hasher.finish()
    };
    let each = header(ValueTest::Each);
    let [a, b] = [headers(&[("a", "x")]), headers(&[("a", "y")])];
    assert_ne!(hash(&each, &a), hash(&each, &b));
    let lines = headers(&[("a", "x"), ("a", "y")]);
    assert_eq!(hash(&each, &lines), hash(&each, &headers(&[("a", "x,y")])));
    assert_eq!(each.entry(&lines.view()).unwrap(), "a=x,y");
    let secret = Matcher::compile(&Condition::Header {
        name: http::header::AUTHORIZATION,
        test: ValueTest::Each,
    });
    let entry = secret.entry(&headers(&[("authorization", "key")]).view());
    assert_eq!(entry.unwrap(), "authorization=(redacted)");

    let each = parameter("k", ValueTest::Each);
    assert_eq!(
        hash(&each, &query("k=%61")),
        hash(&each, &query("%6b=a&k=b"))
    );
    assert_ne!(hash(&each, &query("k=a")), hash(&each, &query("k=b")));
    assert_eq!(each.entry(&query("k=%61%0a").view()).unwrap(), "k=a\\n");

    let each = Matcher::compile(&Condition::Source {
        nets: Vec::new(),
        invert: false,
        each: Some(SourcePrefixes { v4: 32, v6: 64 }),
    });
    let from = |client| Request {
        client,
        ..Request::default()
    };
    let six = from("2001:db8::1");
    assert_eq!(hash(&each, &six), hash(&each, &from("2001:db8::ffff:1")));
    assert_ne!(hash(&each, &six), hash(&each, &from("2001:db8:0:1::1")));
    assert_ne!(
        hash(&each, &from("10.0.0.1")),
        hash(&each, &from("10.0.0.2"))
    );
    assert_eq!(each.entry(&six.view()).unwrap(), "source=2001:db8::/64");
}

/// What a query says of a parameter, plainly.
fn plainly(query: &str, name: &str) -> Option<Vec<u8>> {
    let decode = |text: &str| -> Vec<u8> { percent_decode(text.as_bytes()).collect() };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| decode(key) == name.as_bytes())
        .map(|(_, value)| decode(value))
}

proptest! {
    #[test]
    fn any_query_is_read_as_it_plainly_is(query in "[ab&=%612+]{0,24}", name in "[ab]{0,2}", value in "[ab]{0,2}") {
        let headers = HeaderMap::new();
        let view = RequestView {
            connection: None,
            method: &Method::GET,
            path: "/",
            query: Some(&query),
            headers: &headers,
            client: [192, 0, 2, 1].into(),
        };
        let found = plainly(&query, &name);
        let is = HeaderValue::try_from(value.as_str()).unwrap();
        let same = found.as_deref() == Some(value.as_bytes());
        for (test, wanted) in [
            (ValueTest::Is(is.clone()), same),
            (ValueTest::IsNot(is), !same),
            (ValueTest::Matches(whole(&value)), same),
            (ValueTest::MatchesNot(whole(&value)), !same),
            (ValueTest::Each, found.is_some()),
            (ValueTest::EachSingle, found.as_ref().is_some_and(|value| !value.is_empty())),
            (ValueTest::Absent, found.is_none()),
        ] {
            let matcher = parameter(&name, test);
            prop_assert_eq!(matcher.holds(&view), wanted, "{:?} {:?}", matcher, query);
        }
    }
}
