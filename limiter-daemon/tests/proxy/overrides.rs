//! Answers in place of others: limiterd's own and the upstream's, in HTTP and in gRPC.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use limiter_common::Limit;
use limiter_daemon::policy::plan::{
    HeaderChanges, LimitRule, PolicyLimits, Quota, RateLimits, Redirect, Replacement, ResponseCost,
    ResponseOverride, ResponseSource, RouteTraffic, UpstreamProtocol,
};

use super::client::{Client, get};
use super::http2::{H2Client, H2Upstream, request};
use super::plans::{with_rule, with_traffic};
use super::stage::{Stage, address};
use super::upstream::{Seen, Upstream, nobody, ok};

const JSON: &str = "{\"error\":\"later\"}";
const GRPC: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];

fn on(source: ResponseSource, status: u16, with: Replacement) -> ResponseOverride {
    ResponseOverride {
        statuses: std::iter::once(status..=status).collect(),
        source,
        with,
    }
}

/// [`JSON`] with this status.
fn json(status: Option<u16>) -> Replacement {
    Replacement::Response {
        status: status.map(|status| StatusCode::from_u16(status).unwrap()),
        content_type: Some(HeaderValue::from_static("application/json")),
        body: Some(Bytes::from_static(JSON.as_bytes())),
        headers: HeaderChanges {
            set: vec![("x-set".parse().unwrap(), HeaderValue::from_static("1"))],
            add: vec![],
            remove: vec!["x-gone".parse().unwrap()],
        },
    }
}

fn overriding(overrides: Vec<ResponseOverride>) -> Arc<RouteTraffic> {
    Arc::new(RouteTraffic {
        overrides,
        ..RouteTraffic::default()
    })
}

/// `tokens` tokens that do not come back within a test.
fn limited(tokens: u64, change: impl FnOnce(&mut LimitRule)) -> Arc<RateLimits> {
    let limit = Limit::new(tokens, 1, 1 << 40).unwrap();
    let mut rule = LimitRule::new("d/p/rule/0".into(), Vec::new(), Quota::bucket(limit, 60));
    change(&mut rule);
    Arc::new(RateLimits {
        local: vec![PolicyLimits {
            policy: "d/p".into(),
            rules: vec![rule],
            default: None,
        }],
        global: Vec::new(),
    })
}

/// 503 with a body, of a length or in chunks, and all that may be about it.
fn failing(seen: &Seen) -> Vec<u8> {
    let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/html\r\netag: \"1\"\r\nx-gone: 1\r\nretry-after: 7\r\n";
    let framed = match seen.target() {
        "HEAD /" => "content-length: 1000\r\n\r\n",
        "GET /chunked" => "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        _ => "content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
    };
    [head, framed].concat().into_bytes()
}

#[test]
fn refusals_of_limits_get_another_body_and_keep_their_headers() {
    let (bind, upstream) = (address(), Upstream::echo());
    let stage = Stage::new(&with_rule(bind, upstream.address, |rule| {
        rule.limits = limited(1, |_| ());
        rule.traffic = overriding(vec![
            on(ResponseSource::Backend, 429, json(Some(500))),
            on(ResponseSource::Local, 429, json(None)),
        ]);
    }));
    let mut client = Client::connect(bind);
    assert_eq!(client.get("/", "").status, 200);
    for _ in 0..2 {
        let answer = client.get("/", "");
        assert_eq!((answer.status, answer.text().as_str()), (429, JSON));
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("x-set"), "1");
        assert_eq!(answer.header("x-ratelimit-remaining"), "0");
        assert_ne!(answer.header("retry-after"), "");
        assert_eq!(answer.header("content-length"), JSON.len().to_string());
    }
    let line = stage.log.lines(3)[2].clone();
    assert_eq!((line.status, line.refused), (429, Some("rate_limited")));
    assert_eq!(line.sent, JSON.len() as u64);
}

#[test]
fn answers_of_upstreams_are_replaced_and_their_connections_kept() {
    let (bind, upstream) = (address(), Upstream::answering(failing));
    let stage = Stage::new(&with_traffic(bind, upstream.address, |traffic| {
        traffic.overrides = vec![
            on(ResponseSource::Local, 503, json(Some(500))),
            on(ResponseSource::All, 503, json(Some(502))),
        ];
    }));
    let mut client = Client::connect(bind);
    for path in ["/", "/chunked", "/"] {
        let answer = client.get(path, "");
        assert_eq!((answer.status, answer.text().as_str()), (502, JSON));
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("retry-after"), "7");
        for gone in ["etag", "content-encoding", "transfer-encoding", "x-gone"] {
            assert_eq!(answer.header(gone), "", "{gone}");
        }
    }
    client.send("HEAD / HTTP/1.1\r\nhost: h\r\n\r\n");
    let head = client.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    let length = format!("content-length: {}\r\n", JSON.len());
    assert!(head.contains(&length), "{head}");
    assert_eq!(client.get("/", "").status, 502);
    assert_eq!(upstream.connections(), 1);
    assert_eq!(stage.log.lines(5)[0].status, 502);
    // In HTTP/2 as well.
    let answer = H2Client::connect(bind).send(request("HEAD", "http://h/", &[], ""));
    assert_eq!((answer.status, answer.body.len()), (502, 0));
}

#[test]
fn upstreams_that_cannot_be_reached_are_answered_for() {
    let bind = address();
    let _stage = Stage::new(&with_traffic(bind, nobody(), |traffic| {
        traffic.overrides = vec![on(ResponseSource::Local, 503, json(None))];
    }));
    let answer = get(bind, "/", "");
    assert_eq!((answer.status, answer.text().as_str()), (503, JSON));
}

#[test]
fn a_long_body_is_let_go_with_its_connection() {
    let upstream = Upstream::answering(|_| {
        let head = "HTTP/1.1 503 x\r\ncontent-length: 10000000\r\n\r\n";
        [head.as_bytes(), &vec![b'x'; 10_000_000]].concat()
    });
    let bind = address();
    let _stage = Stage::new(&with_traffic(bind, upstream.address, |traffic| {
        traffic.overrides = vec![on(ResponseSource::Backend, 503, json(Some(200)))];
    }));
    let mut client = Client::connect(bind);
    for turn in 1..=3 {
        let answer = client.get("/", "");
        assert_eq!((answer.status, answer.text().as_str()), (200, JSON));
        assert_eq!(upstream.connections(), turn);
    }
}

#[test]
fn statuses_without_a_body_are_respected() {
    let upstream = Upstream::answering(|seen| match seen.target() {
        "GET /same" => b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n".into(),
        "GET /none" => b"HTTP/1.1 204 No Content\r\n\r\n".into(),
        _ => ok(b"body"),
    });
    let bind = address();
    let only = |status| Replacement::Response {
        status: Some(status),
        content_type: None,
        body: None,
        headers: HeaderChanges::default(),
    };
    let _stage = Stage::new(&with_traffic(bind, upstream.address, |traffic| {
        traffic.overrides = vec![
            on(ResponseSource::Backend, 304, only(StatusCode::GONE)),
            on(ResponseSource::Backend, 204, json(None)),
            on(ResponseSource::Backend, 200, only(StatusCode::NO_CONTENT)),
        ];
    }));
    let mut client = Client::connect(bind);
    for _ in 0..2 {
        let answer = client.get("/same", "");
        assert_eq!((answer.status, answer.text().as_str()), (410, ""));
        assert_eq!(client.get("/none", "").status, 204);
        let answer = client.get("/", "");
        assert_eq!(
            (answer.status, answer.header("content-length")),
            (204, String::new())
        );
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn redirects_lead_away_and_say_when_to_come_again() {
    let (bind, upstream) = (address(), Upstream::echo());
    let _stage = Stage::new(&with_rule(bind, upstream.address, |rule| {
        rule.limits = limited(1, |_| ());
        let redirect = Redirect {
            scheme: Some("https".into()),
            hostname: Some("wait.example".into()),
            path: None,
            port: None,
            status: StatusCode::FOUND,
        };
        let with = Replacement::Redirect(redirect);
        rule.traffic = overriding(vec![on(ResponseSource::All, 429, with)]);
    }));
    let mut client = Client::connect(bind);
    assert_eq!(client.get("/", "").status, 200);
    let answer = client.get("/a?b", "");
    assert_eq!((answer.status, answer.text().as_str()), (302, ""));
    assert_eq!(answer.header("location"), "https://wait.example/a?b");
    assert_ne!(answer.header("retry-after"), "");
    assert_eq!(answer.header("x-ratelimit-limit"), "1, 1;w=60");
}

#[test]
fn what_an_upstream_asks_is_charged_though_its_body_is_replaced() {
    let upstream = Upstream::answering(|_| {
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 29\r\n\r\n{\"usage\":{\"total_tokens\":40}}".into()
    });
    let bind = address();
    let _stage = Stage::new(&with_rule(bind, upstream.address, |rule| {
        rule.limits = limited(1_000, |rule| {
            rule.response_cost = Some(ResponseCost::JsonField {
                path: vec!["usage".into(), "total_tokens".into()],
                max_bytes: 4096,
            });
        });
        rule.traffic = overriding(vec![on(ResponseSource::All, 200, json(None))]);
    }));
    let mut client = Client::connect(bind);
    for wanted in ["999", "958", "917"] {
        let answer = client.get("/", "");
        assert_eq!(answer.text(), JSON);
        assert_eq!(answer.header("x-ratelimit-remaining"), wanted);
    }
}

#[test]
fn grpc_calls_get_another_status_and_no_body() {
    let (bind, upstream) = (address(), H2Upstream::new(None));
    let mut plan = with_rule(bind, upstream.address, |rule| {
        rule.limits = limited(2, |_| ());
        rule.traffic = overriding(vec![
            on(ResponseSource::Local, 429, json(Some(403))),
            on(ResponseSource::Backend, 200, json(None)),
        ]);
    });
    plan.backends[0].protocol = UpstreamProtocol::Http2;
    let stage = Stage::new(&plan);
    let mut client = H2Client::connect(bind);
    // Without another status, the upstream's answer stays, but for headers.
    let answer = client.send(request("POST", "http://h/s/m", &GRPC, "message"));
    assert_eq!((answer.status, &answer.body[..]), (200, &b"message"[..]));
    assert_eq!(answer.trailers["grpc-status"], "0");
    assert_eq!(answer.header("x-set"), "1");
    let with = json(Some(503));
    let mut next = plan.clone();
    let rule = &mut next.listeners[0].routes[0].rules[0];
    let local = rule.traffic.overrides[0].clone();
    rule.traffic = overriding(vec![local, on(ResponseSource::Backend, 200, with)]);
    stage.reload(&next);
    let answer = client.send(request("POST", "http://h/s/m", &GRPC, "message"));
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(answer.header("grpc-status"), "14");
    let answer = client.send(request("POST", "http://h/s/m", &GRPC, "message"));
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(answer.header("grpc-status"), "7");
    assert_eq!(answer.header("grpc-message"), "local_rate_limited");
    assert_eq!(answer.header("content-type"), "application/grpc");
    assert_eq!(answer.header("x-ratelimit-remaining"), "0");
}
