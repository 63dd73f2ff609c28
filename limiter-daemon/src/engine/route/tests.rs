//! Precedence of hosts, paths, methods and headers.

use http::{HeaderName, HeaderValue};
use regex::Regex;

use super::*;
use crate::policy::plan::{Route as RoutePlan, RouteRule, WeightedBackend};

fn any_path(path: PathMatch) -> RouteMatch {
    RouteMatch {
        path,
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
    }
}

fn prefix(path: &str) -> RouteMatch {
    any_path(PathMatch::Prefix(path.into()))
}

fn route(name: &str, hostnames: Vec<Hostname>, matches: Vec<RouteMatch>) -> RoutePlan {
    let backends = vec![WeightedBackend {
        backend: Some(0),
        weight: 1,
        filters: None,
    }];
    RoutePlan {
        name: name.into(),
        hostnames,
        rules: vec![RouteRule {
            matches,
            backends,
            ..RouteRule::default()
        }],
        ..RoutePlan::default()
    }
}

fn table(routes: Vec<RoutePlan>) -> RouteTable {
    let listener = Listener {
        name: "d/g/l".into(),
        routes,
        ..Listener::default()
    };
    RouteTable::compile(&listener, &State::new(16))
}

fn find(table: &RouteTable, host: &str, path: &str) -> Option<String> {
    let rule = table.find(host, path, &Method::GET, &HeaderMap::new())?;
    Some(rule.route.name.clone())
}

#[test]
fn the_most_specific_host_serves() {
    let table = table(vec![
        route("any", vec![Hostname::Any], vec![prefix("")]),
        route(
            "com",
            vec![Hostname::Wildcard(".com".into())],
            vec![prefix("")],
        ),
        route(
            "wild",
            vec![Hostname::Wildcard(".example.com".into())],
            vec![prefix("")],
        ),
        route(
            "exact",
            vec![Hostname::Exact("api.example.com".into())],
            vec![prefix("/v1")],
        ),
    ]);
    for (host, path, wanted) in [
        ("api.example.com", "/v1", Some("exact")),
        ("API.Example.COM.:8080", "/v1/x", Some("exact")),
        ("api.example.com", "/v2", None),
        ("a.b.example.com", "/", Some("wild")),
        ("example.com", "/", Some("com")),
        ("com", "/", Some("any")),
        ("[::1]:80", "/", Some("any")),
        ("[::1]", "/", Some("any")),
        ("", "/", Some("any")),
    ] {
        assert_eq!(find(&table, host, path).as_deref(), wanted, "{host}{path}");
    }
}

#[test]
fn paths_take_precedence_by_kind_and_length() {
    let regex = PathMatch::Regex(Regex::new("^(?:/a/.*)$").unwrap());
    let table = table(vec![
        route("root", vec![Hostname::Any], vec![prefix("")]),
        route("a", vec![Hostname::Any], vec![prefix("/a")]),
        route("ab", vec![Hostname::Any], vec![prefix("/ab/c")]),
        route("regex", vec![Hostname::Any], vec![any_path(regex)]),
        route(
            "exact",
            vec![Hostname::Any],
            vec![any_path(PathMatch::Exact("/a/b".into()))],
        ),
    ]);
    for (path, wanted) in [
        ("/", "root"),
        ("/a", "a"),
        ("/ab", "root"),
        ("/ab/c", "ab"),
        ("/ab/cd", "root"),
        ("/a/b", "exact"),
        ("/a/b/", "regex"),
    ] {
        assert_eq!(find(&table, "h", path).as_deref(), Some(wanted), "{path}");
    }
}

#[test]
fn methods_and_headers_narrow_and_order_breaks_ties() {
    let header = HeaderMatch {
        name: HeaderName::from_static("x-v"),
        value: ValueMatch::Exact(HeaderValue::from_static("2")),
    };
    let get = RouteMatch {
        method: Some(Method::GET),
        ..prefix("")
    };
    let v2 = RouteMatch {
        headers: vec![header],
        ..prefix("")
    };
    let table = table(vec![
        route("first", vec![Hostname::Any], vec![prefix("")]),
        route("second", vec![Hostname::Any], vec![prefix("")]),
        route("header", vec![Hostname::Any], vec![v2]),
        route("get", vec![Hostname::Any], vec![get]),
    ]);
    let mut headers = HeaderMap::new();
    let name = |method, headers: &HeaderMap| {
        table
            .find("h", "/", method, headers)
            .map(|rule| rule.route.name.as_str())
    };
    assert_eq!(name(&Method::POST, &headers), Some("first"));
    assert_eq!(name(&Method::GET, &headers), Some("get"));
    headers.append("x-v", HeaderValue::from_static("1"));
    headers.append("x-v", HeaderValue::from_static("2"));
    assert_eq!(name(&Method::POST, &headers), Some("header"));
}
