//! Requests that are read whole before anything of them goes on.

use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use limiter_daemon::policy::plan::{ClientSettings, Mirror, Plan, UpstreamProtocol};

use super::client::Client;
use super::http2::{H2Client, H2Upstream, request};
use super::plans::{backend, endpoint, with_traffic};
use super::stage::{Stage, address, eventually};
use super::upstream::{Upstream, ok};

const HEAD: &str = "POST /p HTTP/1.1\r\nhost: h\r\n";

fn buffering(bind: std::net::SocketAddr, upstream: std::net::SocketAddr) -> Plan {
    with_traffic(bind, upstream, |traffic| traffic.request_buffer = Some(10))
}

fn echo() -> Upstream {
    Upstream::answering(|seen| ok(&seen.body))
}

#[test]
fn nothing_goes_on_before_the_last_byte() {
    let (bind, upstream) = (address(), echo());
    let _stage = Stage::new(&buffering(bind, upstream.address));
    let mut client = Client::connect(bind);
    for turn in 1..=2 {
        client.send(format!(
            "{HEAD}expect: 100-continue\r\ncontent-length: 10\r\n\r\n"
        ));
        assert_eq!(client.answer().unwrap().status, 100);
        client.send("01234");
        // All of this is over on the same worker before the rest is sent.
        assert_eq!(Client::connect(bind).get("/", "").status, 200);
        assert_eq!(upstream.seen().len(), 2 * turn - 1);
        client.send("56789");
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "0123456789"));
        assert_eq!(upstream.last().header("content-length"), "10");
    }
}

#[test]
fn chunks_become_a_length_unless_trailers_follow() {
    let (bind, upstream) = (address(), echo());
    let stage = Stage::new(&buffering(bind, upstream.address));
    let mut client = Client::connect(bind);
    client.send(format!(
        "{HEAD}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    ));
    assert_eq!(client.answer().unwrap().text(), "abcde");
    let seen = upstream.last();
    assert_eq!(seen.header("content-length"), "5");
    assert_eq!(seen.header("transfer-encoding"), "");
    client.send(format!(
        "{HEAD}transfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n1\r\na\r\n0\r\nx-sum: 7\r\n\r\n"
    ));
    assert_eq!(client.answer().unwrap().text(), "a");
    let seen = upstream.last();
    assert_eq!(seen.header("transfer-encoding"), "chunked");
    assert!(seen.trailers.contains("x-sum: 7"), "{seen:?}");
    client.send(format!("{HEAD}transfer-encoding: chunked\r\n\r\n0\r\n\r\n"));
    assert_eq!(client.answer().unwrap().status, 200);
    assert_eq!(upstream.last().header("content-length"), "0");
    assert_eq!(client.get("/", "").status, 200);
    let received: Vec<_> = stage
        .log
        .lines(4)
        .iter()
        .map(|line| line.received)
        .collect();
    assert_eq!(received, [5, 1, 0, 0]);
}

#[test]
fn more_than_the_limit_is_413_and_never_sent_on() {
    let (bind, upstream) = (address(), echo());
    let stage = Stage::new(&buffering(bind, upstream.address));
    // Declared: at once.
    let mut client = Client::connect(bind);
    client.send(format!("{HEAD}content-length: 11\r\n\r\n"));
    let answer = client.answer().unwrap();
    assert_eq!(
        (answer.status, answer.header("connection").as_str()),
        (413, "close")
    );
    // Not declared: when it is over.
    let mut client = Client::connect(bind);
    client.send(format!(
        "{HEAD}transfer-encoding: chunked\r\n\r\n8\r\n01234567\r\n3\r\n891\r\n"
    ));
    assert_eq!(client.answer().unwrap().status, 413);
    assert_eq!(upstream.connections(), 0);
    let refused: Vec<_> = stage.log.lines(2).iter().map(|line| line.refused).collect();
    assert_eq!(refused, [Some("body_too_large"); 2]);
}

#[test]
fn bodies_that_are_late_or_break_off_are_never_sent_on() {
    let (bind, upstream) = (address(), echo());
    let mut plan = buffering(bind, upstream.address);
    let mut settings = ClientSettings::default();
    settings.timeouts.stream_idle = Some(Duration::from_millis(50));
    plan.listeners[0].client = Arc::new(settings);
    let stage = Stage::new(&plan);
    let mut client = Client::connect(bind);
    client.send(format!("{HEAD}content-length: 10\r\n\r\n01"));
    assert_eq!(client.answer().unwrap().status, 408);
    let mut client = Client::connect(bind);
    client.send(format!(
        "{HEAD}transfer-encoding: chunked\r\n\r\nnonsense\r\n"
    ));
    assert_eq!(client.answer().unwrap().status, 400);
    let mut client = Client::connect(bind);
    client.send(format!("{HEAD}content-length: 10\r\n\r\n01"));
    client.stream.get_mut().shutdown(Shutdown::Both).unwrap();
    assert_eq!(stage.log.lines(3).len(), 3);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn over_http2_and_with_mirrors() {
    let (bind, upstream, mirror) = (address(), H2Upstream::new(None), echo());
    let mut plan = buffering(bind, upstream.address);
    plan.backends[0].protocol = UpstreamProtocol::Http2;
    plan.backends.push(backend(vec![endpoint(mirror.address)]));
    let rule = &mut plan.listeners[0].routes[0].rules[0];
    rule.filters.mirrors = vec![Mirror {
        backend: 1,
        numerator: 1,
        denominator: 1,
    }];
    let _stage = Stage::new(&plan);
    let mut client = H2Client::connect(bind);
    let answer = client.send(request("POST", "http://h/p", &[], "0123456789"));
    assert_eq!((answer.status, &answer.body[..]), (200, &b"0123456789"[..]));
    let seen = eventually(|| mirror.seen().first().cloned());
    assert_eq!(seen.body, b"0123456789");
    assert_eq!(seen.header("content-length"), "10");
    let answer = client.send(request("POST", "http://h/p", &[], "01234567890"));
    assert_eq!(answer.status, 413);
}
