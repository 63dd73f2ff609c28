//! Limits that charge for responses and give tokens back, over real sockets.

use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use limiter_common::Limit;
use limiter_daemon::policy::plan::{
    LimitRule, Plan, PolicyLimits, Quota, RateLimits, RefundOn, ResponseCost,
};

use super::client::Client;
use super::plans::{with_rule, with_settings};
use super::stage::{PATIENCE, Stage, address, eventually};
use super::upstream::{Upstream, nobody, ok};

/// A bucket of 1,000 tokens that does not fill within a test.
fn bucket(change: impl FnOnce(&mut LimitRule)) -> PolicyLimits {
    let limit = Limit::new(1_000, 1, 1 << 40).unwrap();
    let mut rule = LimitRule::new("d/p/rule/0".into(), Vec::new(), Quota::bucket(limit, 60));
    change(&mut rule);
    PolicyLimits {
        policy: "d/p".into(),
        rules: vec![rule],
        default: None,
    }
}

fn limited(bind: SocketAddr, upstream: SocketAddr, limits: PolicyLimits) -> Plan {
    with_rule(bind, upstream, |rule| {
        rule.limits = Arc::new(RateLimits {
            local: vec![limits],
            global: Vec::new(),
        });
    })
}

fn left(client: &mut Client) -> u64 {
    let answer = client.get("/", "");
    answer.header("x-ratelimit-remaining").parse().unwrap()
}

#[test]
fn a_stream_is_not_held_back_and_its_last_count_is_charged() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
        transfer-encoding: chunked\r\n\r\n";
    const PIECES: [&str; 4] = [
        "data: {\"usage\":null}\n\nda",
        "ta: {\"usage\":{\"total_tokens\":3",
        "7}}\n\n",
        "data: [DONE]\n\n",
    ];
    let (go_on, gone_on) = channel::<()>();
    let gone_on = Mutex::new(gone_on);
    let upstream = Upstream::new(move |mut client, _| {
        while client.head().is_some() {
            client.send(HEAD);
            for piece in PIECES {
                // The next piece only when the client has the last one.
                gone_on.lock().unwrap().recv_timeout(PATIENCE).unwrap();
                client.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
            }
            client.send("0\r\n\r\n");
        }
    });
    let bind = address();
    let plan = limited(
        bind,
        upstream.address,
        bucket(|rule| {
            rule.response_cost = Some(ResponseCost::JsonField {
                path: vec!["usage".into(), "total_tokens".into()],
                max_bytes: 1 << 10,
            });
        }),
    );
    let _stage = Stage::new(&plan);
    let mut client = Client::connect(bind);
    for wanted in [999, 999 - 38] {
        client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
        let head = client.head().unwrap();
        let told = format!("x-ratelimit-remaining: {wanted}\r\n");
        assert!(head.contains(&told), "{head}");
        for piece in PIECES {
            go_on.send(()).unwrap();
            let mut chunk = vec![0; format!("{:x}\r\n{piece}\r\n", piece.len()).len()];
            std::io::Read::read_exact(&mut client.stream, &mut chunk).unwrap();
            assert!(
                String::from_utf8(chunk)
                    .unwrap()
                    .ends_with(&format!("{piece}\r\n"))
            );
        }
        assert_eq!(
            client.body("transfer-encoding: chunked\r\n").unwrap().0,
            b""
        );
    }
}

#[test]
fn a_number_in_a_header_and_in_a_body_of_known_length() {
    let upstream = Upstream::answering(|_| {
        let body = br#"{"usage":{"total_tokens":5}}"#;
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-tokens: 9\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    });
    let costs = [
        (ResponseCost::Header("x-tokens".parse().unwrap()), 9),
        (ResponseCost::Number(7), 7),
        (
            ResponseCost::JsonField {
                path: vec!["usage".into(), "total_tokens".into()],
                max_bytes: 1 << 10,
            },
            5,
        ),
    ];
    for (cost, tokens) in costs {
        let bind = address();
        let limits = bucket(|rule| rule.response_cost = Some(cost));
        let _stage = Stage::new(&limited(bind, upstream.address, limits));
        let mut client = Client::connect(bind);
        assert_eq!(left(&mut client), 999);
        assert_eq!(left(&mut client), 998 - tokens);
    }
}

#[test]
fn tokens_come_back_where_the_upstream_failed() {
    let failing = Upstream::answering(|_| {
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_vec()
    });
    let refunds = |upstream_failure, server_error| RefundOn {
        upstream_failure,
        server_error,
        overload: false,
    };
    for (upstream, refund_on, second) in [
        (nobody(), refunds(true, false), 999),
        (nobody(), refunds(false, true), 998),
        (failing.address, refunds(false, true), 999),
        (failing.address, refunds(true, false), 998),
    ] {
        let bind = address();
        let limits = bucket(|rule| rule.refund_on = refund_on);
        let _stage = Stage::new(&limited(bind, upstream, limits));
        let mut client = Client::connect(bind);
        assert_eq!(left(&mut client), 999);
        assert_eq!(left(&mut client), second);
    }
}

#[test]
fn a_client_that_goes_away_pays() {
    let (arrived, at_upstream) = channel::<()>();
    let upstream = Upstream::new(move |mut client, number| {
        if number == 0 && client.head().is_some() {
            arrived.send(()).unwrap();
            // Until the proxy gives the request up.
            assert!(client.head().is_none());
        }
        while client.head().is_some() {
            client.send(ok(b""));
        }
    });
    let bind = address();
    let limits = bucket(|rule| {
        rule.request_cost = 10;
        rule.refund_on.upstream_failure = true;
    });
    let stage = Stage::new(&limited(bind, upstream.address, limits));
    let mut goes = Client::connect(bind);
    goes.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    at_upstream.recv_timeout(PATIENCE).unwrap();
    drop(goes);
    eventually(|| (!stage.log.lines(1).is_empty()).then_some(()));
    assert_eq!(left(&mut Client::connect(bind)), 980);
}

#[test]
fn local_and_global_limits_are_told_as_one() {
    let upstream = Upstream::echo();
    let bind = address();
    let mut plan = with_settings(bind, upstream.address, |settings| {
        settings.envoy_headers = true;
    });
    let few = |capacity: u64, seconds| {
        let limit = Limit::new(capacity, 1, 1 << 40).unwrap();
        bucket(|rule| rule.quota = Quota::bucket(limit, seconds))
    };
    plan.listeners[0].routes[0].rules[0].limits = Arc::new(RateLimits {
        local: vec![few(5, 60)],
        global: vec![few(2, 3_600)],
    });
    let _stage = Stage::new(&plan);
    let mut client = Client::connect(bind);
    for status in [200, 200, 429, 429] {
        let answer = client.get("/", "");
        assert_eq!(answer.status, status);
        let limits = answer.header("x-ratelimit-limit");
        assert_eq!(limits, "2, 5;w=60, 2;w=3600");
        let denied = status == 429;
        assert_eq!(answer.header("x-envoy-ratelimited") == "true", denied);
        assert_eq!(answer.header("retry-after").is_empty(), !denied);
    }
    assert_eq!(upstream.seen().len(), 2);
}
