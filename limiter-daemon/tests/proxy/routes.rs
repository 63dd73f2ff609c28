//! Routes carried out: what filters do, what broken rules answer, where mirrors get their copies.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};
use limiter_daemon::policy::plan::{
    Filters, HeaderChanges, Hostname, Mirror, PathMatch, PathRewrite, Redirect, Rewrite,
    WeightedBackend,
};

use super::client::{Client, get};
use super::plans::{backend, endpoint, plan, prefix, route, rule, to, with_rule};
use super::stage::{Stage, address, eventually};
use super::upstream::{Upstream, nobody, ok};

fn headers(pairs: &[(&'static str, &'static str)]) -> Vec<(HeaderName, HeaderValue)> {
    let header = |(name, value): &(&'static str, &'static str)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    pairs.iter().map(header).collect()
}

#[test]
fn listeners_and_routes_are_chosen_by_host() {
    let (bind, upstream) = (address(), Upstream::echo());
    let mut plan = plan(bind, upstream.address);
    let mut other = plan.listeners[0].clone();
    other.name = "d/g/other".into();
    other.hostname = Hostname::Wildcard(".example.com".into());
    other.routes = vec![route(
        "d/other",
        Hostname::Exact("a.example.com".into()),
        vec![rule("/only")],
    )];
    plan.listeners.push(other);
    let stage = Stage::new(&plan);
    let mut client = Client::connect(bind);
    for (host, path, status) in [
        ("h", "/", 200),
        ("a.example.com", "/only/this", 200),
        ("A.EXAMPLE.com:8080", "/only", 200),
        ("a.example.com", "/other", 404),
        ("b.example.com", "/only", 404),
        ("example.com", "/", 200),
    ] {
        client.send(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        assert_eq!(client.answer().unwrap().status, status, "{host}{path}");
    }
    let lines = stage.log.lines(6);
    let routes: Vec<_> = lines
        .iter()
        .map(|line| line.route.as_deref().unwrap_or(""))
        .collect();
    assert_eq!(routes, ["d/route", "d/other", "d/other", "", "", "d/route"]);
}

#[test]
fn paths_are_resolved_before_they_are_matched() {
    let (bind, upstream) = (address(), Upstream::echo());
    let plan = with_rule(bind, upstream.address, |rule| {
        rule.matches = vec![prefix("/open")]
    });
    let _stage = Stage::new(&plan);
    for (path, status, forwarded) in [
        ("/open/../secret", 404, ""),
        ("/open/%2e%2e/secret", 404, ""),
        ("/../open", 400, ""),
        ("//open/./a?x=//", 200, "GET /open/a?x=//"),
        ("/secret/../open", 200, "GET /open"),
    ] {
        assert_eq!(get(bind, path, "").status, status, "{path}");
        if status == 200 {
            assert_eq!(upstream.last().target(), forwarded);
        }
    }
}

#[test]
fn filters_change_requests_and_responses() {
    let (bind, upstream) = (
        address(),
        Upstream::answering(|_| {
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-server: secret\r\nconnection: x-hop\r\nx-hop: 1\r\nhop: 1\r\n\r\n".into()
        }),
    );
    let _stage = Stage::new(&with_rule(bind, upstream.address, |rule| {
        rule.matches = vec![prefix("/api")];
        rule.filters = Filters {
            request_headers: HeaderChanges {
                set: headers(&[("x-set", "new")]),
                add: headers(&[("x-add", "more")]),
                remove: vec!["x-gone".parse().unwrap()],
            },
            response_headers: HeaderChanges {
                add: headers(&[("x-new", "1")]),
                remove: vec!["x-server".parse().unwrap()],
                ..HeaderChanges::default()
            },
            rewrite: Some(Rewrite {
                hostname: Some(HeaderValue::from_static("inner")),
                path: Some(PathRewrite::Prefix("/v2".into())),
            }),
            ..Filters::default()
        };
        rule.backends[0].filters = Some(Arc::new(Filters {
            request_headers: HeaderChanges {
                set: headers(&[("x-backend", "b")]),
                ..HeaderChanges::default()
            },
            ..Filters::default()
        }));
    }));
    let answer = get(
        bind,
        "/api/x?q=1",
        "x-set: old\r\nx-add: one\r\nx-gone: 1\r\nx-keep: 1\r\n",
    );
    let seen = upstream.last();
    assert_eq!(seen.target(), "GET /v2/x?q=1");
    for (name, wanted) in [
        ("host", "inner"),
        ("x-forwarded-host", "h"),
        ("x-set", "new"),
        ("x-add", "one|more"),
        ("x-gone", ""),
        ("x-keep", "1"),
        ("x-backend", "b"),
    ] {
        assert_eq!(seen.header(name), wanted, "{name}");
    }
    assert_eq!(answer.header("x-new"), "1");
    assert_eq!(answer.header("x-server"), "");
    assert_eq!(answer.header("connection"), "");
}

#[test]
fn redirects_answer_for_themselves() {
    let bind = address();
    let _stage = Stage::new(&with_rule(bind, nobody(), |rule| {
        rule.backends.clear();
        rule.filters.redirect = Some(Redirect {
            scheme: Some("https".into()),
            hostname: None,
            path: None,
            port: None,
            status: StatusCode::MOVED_PERMANENTLY,
        });
    }));
    let answer = get(bind, "/a?b", "");
    assert_eq!(answer.status, 301);
    assert_eq!(answer.header("location"), "https://h/a?b");
}

#[test]
fn what_a_rule_lacks_is_answered_with_500() {
    let (bind, upstream) = (address(), Upstream::echo());
    let mut plan = plan(bind, upstream.address);
    let mut broken = rule("/broken");
    broken.broken = Some("the policy d/p was never valid".into());
    let mut empty = rule("/empty");
    empty.backends.clear();
    let mut half = rule("/half");
    let nowhere = WeightedBackend {
        backend: None,
        ..to(0)
    };
    half.backends = vec![to(0), nowhere];
    plan.listeners[0].routes[0]
        .rules
        .extend([broken, empty, half]);
    let _stage = Stage::new(&plan);
    assert_eq!(get(bind, "/broken", "").status, 500);
    assert_eq!(get(bind, "/empty", "").status, 500);
    let mut client = Client::connect(bind);
    let answers: Vec<_> = (0..100).map(|_| client.get("/half", "").status).collect();
    let count = |wanted| answers.iter().filter(|status| **status == wanted).count();
    assert!(count(200).abs_diff(50) <= 1, "{answers:?}");
    assert_eq!(count(200) + count(500), 100);
}

#[test]
fn mirrors_get_copies_and_nobody_waits_for_them() {
    let (main, mirror) = (Upstream::echo(), Upstream::answering(|_| ok(b"ignored")));
    let (bind, shared) = (address(), address());
    let copy = |backend, numerator| Mirror {
        backend,
        numerator,
        denominator: 100,
    };
    let mut plan = with_rule(bind, main.address, |rule| {
        rule.filters.mirrors = vec![copy(1, 100), copy(2, 100)];
    });
    plan.listeners.extend(
        with_rule(shared, main.address, |rule| {
            rule.filters.mirrors = vec![copy(1, 0)];
        })
        .listeners,
    );
    plan.backends.push(backend(vec![endpoint(mirror.address)]));
    plan.backends.push(backend(vec![endpoint(nobody())]));
    let _stage = Stage::new(&plan);
    let mut client = Client::connect(bind);
    client.send("POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello");
    assert_eq!(client.answer().unwrap().status, 200);
    client.send(
        "POST /b HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5\r\nworld\r\n0\r\n\r\n",
    );
    assert_eq!(client.answer().unwrap().status, 200);
    assert_eq!(client.get("/c", "").status, 200);
    let mut seen = eventually(|| Some(mirror.seen()).filter(|seen| seen.len() == 3));
    seen.sort_by_key(|seen| seen.target().to_owned());
    let seen: Vec<_> = seen
        .iter()
        .map(|seen| (seen.target(), seen.body.as_slice()))
        .collect();
    let wanted: [(&str, &[u8]); 3] = [
        ("GET /c", b""),
        ("POST /a", b"hello"),
        ("POST /b", b"world"),
    ];
    assert_eq!(seen, wanted);
    assert_eq!(get(shared, "/", "").status, 200);
    assert_eq!(mirror.seen().len(), 3);
}

#[test]
fn thousands_of_rules_are_found_by_their_paths() {
    let (bind, upstream) = (address(), Upstream::echo());
    let mut plan = plan(bind, upstream.address);
    plan.listeners[0].routes = (0..1000)
        .map(|n| {
            let rules = (0..10).map(|m| {
                let mut rule = rule("");
                rule.matches[0].path = PathMatch::Exact(format!("/{n}/{m}"));
                rule
            });
            route(&format!("d/{n}"), Hostname::Any, rules.collect())
        })
        .collect();
    let stage = Stage::new(&plan);
    let mut client = Client::connect(bind);
    assert_eq!(client.get("/999/9", "").status, 200);
    assert_eq!(client.get("/0/0", "").status, 200);
    assert_eq!(client.get("/999/10", "").status, 404);
    assert_eq!(stage.log.lines(3)[0].route.as_deref(), Some("d/999"));
}
