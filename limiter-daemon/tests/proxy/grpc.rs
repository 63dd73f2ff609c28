//! HTTP/2 on both sides: prior knowledge, gRPC with trailers, and the ways between the versions.

use std::time::Duration;

use limiter_daemon::policy::plan::{Timeouts, UpstreamProtocol};

use super::client::{Client, get};
use super::http2::{H2Client, H2Upstream, request};
use super::plans::{plan, with_rule};
use super::stage::{Stage, address};
use super::upstream::{Upstream, nobody, ok};

const GRPC: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];

#[test]
fn grpc_passes_with_its_trailers() {
    let (bind, upstream) = (address(), H2Upstream::new(None));
    let mut plan = plan(bind, upstream.address);
    plan.backends[0].protocol = UpstreamProtocol::Http2;
    let _stage = Stage::new(&plan);
    let mut client = H2Client::connect(bind);
    for _ in 0..20 {
        let answer = client.send(request("POST", "http://h.example/s/m", &GRPC, "message"));
        assert_eq!(
            (answer.status, &answer.body[..]),
            (200, b"message".as_slice())
        );
        assert_eq!(answer.trailers["grpc-status"], "0");
        assert_eq!(answer.header("x-target"), "POST http://h.example/s/m");
        assert_eq!(answer.header("x-saw-te"), "trailers");
        assert_eq!(answer.header("x-saw-host"), "");
    }
    let fail = [GRPC[0], GRPC[1], ("x-fail", "1")];
    let answer = client.send(request("POST", "http://h.example/s/m", &fail, ""));
    assert_eq!(answer.header("grpc-status"), "9");
    // HTTP/1.1 in, HTTP/2 out.
    let mut old = Client::connect(bind);
    old.send("POST /x HTTP/1.1\r\nhost: old\r\ncontent-length: 2\r\n\r\nok");
    let answer = old.answer().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    assert_eq!(answer.header("x-target"), "POST http://old/x");
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn refusals_of_grpc_calls_are_in_grpc() {
    let bind = address();
    let mut plan = with_rule(bind, nobody(), |rule| {
        rule.timeouts = Timeouts::default();
    });
    plan.backends[0].protocol = UpstreamProtocol::Http2;
    let _stage = Stage::new(&plan);
    let answer = H2Client::connect(bind).send(request("POST", "http://h/s/m", &GRPC, "x"));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("grpc-status"), "14");
    assert_eq!(answer.header("content-type"), "application/grpc");
}

#[test]
fn http2_becomes_http1_and_back() {
    let upstream = Upstream::answering(|seen| ok(&[seen.head.as_bytes(), &seen.body].concat()));
    let bind = address();
    let _stage = Stage::new(&plan(bind, upstream.address));
    let mut client = H2Client::connect(bind);
    let headers = [("cookie", "a=1"), ("cookie", "b=2"), ("x-a", "1")];
    let answer = client.send(request("POST", "http://h.example:81/p?q", &headers, "body"));
    assert_eq!(answer.status, 200);
    let seen = upstream.last();
    assert_eq!(seen.target(), "POST /p?q");
    assert_eq!(seen.header("host"), "h.example:81");
    assert_eq!(seen.header("cookie"), "a=1; b=2");
    assert_eq!(seen.header("content-length"), "4");
    assert_eq!(seen.body, b"body");
    let answer = client.send(request("HEAD", "http://h/p", &[], ""));
    assert_eq!((answer.status, answer.body.len()), (200, 0));
}

#[test]
fn requests_share_connections_and_have_their_own_time() {
    let (bind, upstream) = (address(), H2Upstream::new(None));
    let mut plan = with_rule(bind, upstream.address, |rule| {
        rule.timeouts.backend_request = Some(Duration::from_secs(10));
    });
    plan.backends[0].protocol = UpstreamProtocol::Http2;
    let _stage = Stage::new(&plan);
    let clients: Vec<_> = (0..8)
        .map(|n| std::thread::spawn(move || get(bind, &format!("/{n}"), "").header("x-target")))
        .collect();
    for (number, client) in clients.into_iter().enumerate() {
        assert_eq!(client.join().unwrap(), format!("GET http://h/{number}"));
    }
    assert_eq!(upstream.connections(), 1);
}
