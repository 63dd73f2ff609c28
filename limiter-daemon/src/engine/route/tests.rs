//! Precedence of hosts, paths, methods, headers and parameters; and beside a plain model.

mod model;

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use regex::Regex;

use super::*;
use crate::policy::plan::{
    HeaderMatch, Hostname, PathMatch, QueryMatch, Route as RoutePlan, RouteKind, RouteMatch,
    ValueMatch, WeightedBackend,
};

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
    let headers = HeaderMap::new();
    let matched = table.find(&hostname(host), &view(&Method::GET, path, &headers))?;
    Some(matched.rule.route.name.clone())
}

fn view<'a>(method: &'a Method, target: &'a str, headers: &'a HeaderMap) -> RequestView<'a> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    RequestView {
        connection: None,
        method,
        path,
        query,
        headers,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}

#[test]
fn rules_in_order_take_what_they_match_first() {
    let in_order = |name: &str, path: PathMatch| RoutePlan {
        in_order: true,
        ..route(name, vec![Hostname::Any], vec![any_path(path)])
    };
    let table = table(vec![
        route(
            "exact",
            vec![Hostname::Any],
            vec![any_path(PathMatch::Exact("/a/b".into()))],
        ),
        in_order("a", PathMatch::StartsWith("/a".into())),
        in_order("ab", PathMatch::StartsWith("/a/b".into())),
        in_order("c", PathMatch::Exact("/c".into())),
    ]);
    for (path, wanted) in [
        ("/a/b", Some("a")),
        ("/ab", Some("a")),
        ("/c", Some("c")),
        ("/c/d", None),
    ] {
        assert_eq!(find(&table, "x", path).as_deref(), wanted, "{path}");
    }
    let headers = HeaderMap::new();
    let matched = |path: &str| {
        let found = table.find("x", &view(&Method::GET, path, &headers));
        found.and_then(|found| found.prefix)
    };
    assert_eq!(matched("/a/b"), Some(2), "of a beginning");
    assert_eq!(matched("/c"), Some(2), "of a whole path");
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
        invert: false,
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
            .find("h", &view(method, "/", headers))
            .map(|matched| matched.rule.route.name.as_str())
    };
    assert_eq!(name(&Method::POST, &headers), Some("first"));
    assert_eq!(name(&Method::GET, &headers), Some("get"));
    headers.append("x-v", HeaderValue::from_static("1"));
    headers.append("x-v", HeaderValue::from_static("2"));
    assert_eq!(name(&Method::POST, &headers), Some("header"));
}

#[test]
fn parameters_are_decoded_and_the_first_counts() {
    let parameter = |name: &str, value: ValueMatch| RouteMatch {
        query: vec![QueryMatch {
            name: name.into(),
            value,
        }],
        ..prefix("")
    };
    let exact = |value| ValueMatch::Exact(HeaderValue::from_static(value));
    let regex = ValueMatch::Regex(Regex::new("^(?:v[0-9])$").unwrap());
    let table = table(vec![
        route("none", vec![Hostname::Any], vec![prefix("")]),
        route(
            "exact",
            vec![Hostname::Any],
            vec![parameter("a b", exact("c&d"))],
        ),
        route("regex", vec![Hostname::Any], vec![parameter("r", regex)]),
        route(
            "empty",
            vec![Hostname::Any],
            vec![parameter("e", exact(""))],
        ),
    ]);
    for (target, wanted) in [
        ("/?a%20b=c%26d", "exact"),
        ("/?x=1&a%20b=c%26d&a%20b=e", "exact"),
        ("/?a%20b=e&a%20b=c%26d", "none"),
        ("/?r=v1", "regex"),
        ("/?r=v10", "none"),
        ("/?r=%ff", "none"),
        ("/?e", "empty"),
        ("/?e=", "empty"),
        ("/", "none"),
    ] {
        assert_eq!(
            find(&table, "h", target).as_deref(),
            Some(wanted),
            "{target}"
        );
    }
}

#[test]
fn grpc_routes_take_grpc_only() {
    let mut grpc = route(
        "grpc",
        vec![Hostname::Any],
        vec![any_path(PathMatch::Exact("/s/m".into()))],
    );
    grpc.kind = RouteKind::Grpc;
    let table = table(vec![
        grpc,
        route("http", vec![Hostname::Any], vec![prefix("")]),
    ]);
    let mut headers = HeaderMap::new();
    let name = |headers: &HeaderMap| {
        let matched = table.find("h", &view(&Method::POST, "/s/m", headers));
        matched.map(|m| m.rule.route.name.clone())
    };
    assert_eq!(name(&headers).as_deref(), Some("http"));
    headers.insert(
        "content-type",
        HeaderValue::from_static("application/grpc+proto"),
    );
    assert_eq!(name(&headers).as_deref(), Some("grpc"));
}

#[test]
fn what_a_prefix_matched_is_told() {
    let table = table(vec![
        route("root", vec![Hostname::Any], vec![prefix("")]),
        route("a", vec![Hostname::Any], vec![prefix("/a/b")]),
    ]);
    let headers = HeaderMap::new();
    for (path, wanted) in [("/a/b/c", 4), ("/a/bc", 0), ("/a/b", 4), ("/\u{e9}/b", 0)] {
        let matched = table.find("h", &view(&Method::GET, path, &headers));
        assert_eq!(matched.unwrap().prefix, Some(wanted), "{path}");
    }
}
