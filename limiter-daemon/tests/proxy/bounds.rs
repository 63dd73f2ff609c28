//! Bounds on what clients may send, and on how long they may take.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use limiter_daemon::l7::metrics::Closed;
use limiter_daemon::l7::record::Completion;
use limiter_daemon::policy::plan::ClientSettings;

use super::client::{Client, get};
use super::frames;
use super::http2::{H2Client, request};
use super::plans::{change_traffic, plan, with_settings};
use super::stage::{Stage, address, eventually};
use super::upstream::{Upstream, ok};

const SHORT: Duration = Duration::from_millis(100);

/// A stage with these settings, and its upstream.
fn stage(change: impl FnOnce(&mut ClientSettings)) -> (std::net::SocketAddr, Stage, Upstream) {
    let (bind, upstream) = (address(), Upstream::echo());
    let stage = Stage::new(&with_settings(bind, upstream.address, change));
    (bind, stage, upstream)
}

fn closed(stage: &Stage, reason: Closed, count: u64) {
    eventually(|| (stage.counters.closed(reason) == count).then_some(()));
}

#[test]
fn heads_have_a_size_and_a_number_of_lines() {
    let (bind, _stage, upstream) = stage(|settings| {
        settings.http1.max_head = 4096;
        settings.http1.max_headers = 20;
    });
    let lines = |count: usize| "x: y\r\n".repeat(count);
    assert_eq!(get(bind, "/", &lines(19)).status, 200);
    assert_eq!(get(bind, "/", &lines(20)).status, 431);
    assert_eq!(
        get(bind, "/", &format!("x: {}\r\n", "y".repeat(3000))).status,
        200
    );
    assert_eq!(
        get(bind, "/", &format!("x: {}\r\n", "y".repeat(5000))).status,
        431
    );
    let long = format!("/{}", "y".repeat(5000));
    assert!(matches!(get(bind, &long, "").status, 414 | 431));
    let mut client = H2Client::connect(bind);
    let many: Vec<_> = (0..25).map(|_| ("x-a", "y")).collect();
    assert_eq!(
        client.send(request("GET", "http://h/", &many, "")).status,
        431
    );
    let long = "y".repeat(5000);
    let too_long = client.try_send(request("GET", "http://h/", &[("x", &long)], ""));
    assert!(too_long.is_err() || too_long.unwrap().status == 431);
    assert_eq!(upstream.seen().len(), 2);
}

#[test]
fn bodies_have_a_size() {
    let (bind, _stage, upstream) = stage(|settings| settings.max_body = Some(10));
    let mut client = Client::connect(bind);
    client.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\n0123456789");
    assert_eq!(client.answer().unwrap().status, 200);
    client.send("POST / HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 11\r\n\r\n");
    assert_eq!(client.answer().unwrap().status, 413);
    assert!(client.is_closed());
    let mut client = Client::connect(bind);
    client.send("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n8\r\n01234567\r\n8\r\n01234567\r\n0\r\n\r\n");
    assert_eq!(client.answer().unwrap().status, 413);
    let mut client = H2Client::connect(bind);
    let answer = client.send(request("POST", "http://h/", &[], "01234567890"));
    assert_eq!(answer.status, 413);
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn heads_and_bodies_have_a_time() {
    let (bind, stage, _upstream) = stage(|settings| {
        settings.timeouts.head = SHORT;
        settings.timeouts.request_received = Some(SHORT);
    });
    // Nothing at all, then less than a head, then less than the second head.
    assert!(Client::connect(bind).is_closed());
    closed(&stage, Closed::HeadTimeout, 1);
    let mut client = Client::connect(bind);
    client.send("GET / HTTP/1.1\r\nhost:");
    assert_eq!(client.answer().unwrap().status, 408);
    closed(&stage, Closed::HeadTimeout, 2);
    let mut client = Client::connect(bind);
    assert_eq!(client.get("/", "").status, 200);
    client.send("GET / HTTP/1.1\r\n");
    assert_eq!(client.answer().unwrap().status, 408);
    closed(&stage, Closed::HeadTimeout, 3);
    let mut client = Client::connect(bind);
    client.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\n01234");
    assert_eq!(client.answer().unwrap().status, 408);
    assert!(client.is_closed());
}

#[test]
fn idle_connections_are_closed() {
    let (bind, stage, _upstream) = stage(|settings| settings.timeouts.idle = SHORT);
    let mut client = Client::connect(bind);
    assert_eq!(client.get("/", "").status, 200);
    assert!(client.is_closed());
    closed(&stage, Closed::Idle, 1);
}

#[test]
fn clients_that_take_nothing_are_let_go() {
    let upstream = Upstream::new(|mut client, _| {
        let _head = client.head();
        client.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        let piece = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
        while client.stream.get_mut().write_all(&piece).is_ok() {}
    });
    let bind = address();
    let stage = Stage::new(&with_settings(bind, upstream.address, |settings| {
        settings.timeouts.stream_idle = Some(SHORT);
    }));
    let mut client = Client::connect(bind);
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    closed(&stage, Closed::Stalled, 1);
}

#[test]
fn windows_that_stay_closed_are_no_excuse() {
    let upstream = Upstream::answering(|_| ok(&vec![b'x'; 2_000_000]));
    let bind = address();
    let stage = Stage::new(&with_settings(bind, upstream.address, |settings| {
        settings.timeouts.stream_idle = Some(SHORT);
    }));
    let mut raw = frames::H2Raw::connect(bind);
    let get = frames::get(&[]);
    let flags = frames::END_HEADERS | frames::END_STREAM;
    raw.send(&frames::frame(frames::HEADERS, flags, 1, &get));
    // More than the window of 65,535 bytes, which is never opened, and what is kept ready for it.
    while raw.read().is_some() {}
    closed(&stage, Closed::Stalled, 1);
}

#[test]
fn http_1_0_is_taken_or_not() {
    let old = |client: &mut Client, more: &str| {
        client.send(format!("GET / HTTP/1.0\r\n{more}\r\n"));
        client.answer().unwrap()
    };
    let (bind, _stage, upstream) = stage(|settings| {
        settings.http1.http10 = Some(Some("default.example".into()));
    });
    let mut client = Client::connect(bind);
    assert_eq!(old(&mut client, "connection: keep-alive\r\n").status, 200);
    assert_eq!(upstream.last().header("host"), "default.example");
    assert_eq!(old(&mut client, "host: h\r\n").status, 200);
    assert_eq!(upstream.last().header("host"), "h");
    assert!(client.is_closed());
    let (bind, _stage, upstream) = stage(|settings| settings.http1.http10 = None);
    let mut client = Client::connect(bind);
    let answer = old(&mut client, "host: h\r\n");
    assert_eq!(
        (answer.status, answer.header("upgrade").as_str()),
        (426, "HTTP/1.1")
    );
    assert!(client.is_closed());
    assert_eq!(upstream.seen().len(), 0);
}

#[test]
fn bodies_may_not_pause_for_ever() {
    let upstream = Upstream::new(|mut client, _| {
        let head = client.head().unwrap();
        if head.starts_with("GET") {
            client.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome");
        }
        while client
            .stream
            .get_mut()
            .read(&mut [0; 100])
            .is_ok_and(|read| read > 0)
        {}
    });
    let bind = address();
    let _stage = Stage::new(&with_settings(bind, upstream.address, |settings| {
        settings.timeouts.stream_idle = Some(SHORT);
    }));
    let mut client = Client::connect(bind);
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    client.head().unwrap();
    let mut rest = Vec::new();
    let _reset = client.stream.read_to_end(&mut rest);
    assert_eq!(rest, b"some");
    let mut client = Client::connect(bind);
    client.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\nsome");
    let status = client.answer().unwrap().status;
    // The client stopped, and so the upstream has nothing to answer: both bounds are over at once.
    assert!(matches!(status, 408 | 504), "{status}");
}

#[test]
fn connections_are_counted_by_listener_and_by_source() {
    let (bind, stage, _upstream) = stage(|settings| {
        settings.connections.max = Some(3);
        settings.connections.max_per_source = Some(2);
    });
    let mut first = Client::connect(bind);
    let mut second = Client::connect(bind);
    assert_eq!(
        (first.get("/", "").status, second.get("/", "").status),
        (200, 200)
    );
    assert!(Client::connect(bind).is_closed());
    closed(&stage, Closed::SourceFull, 1);
    drop(first);
    let mut third = eventually(|| {
        let mut client = Client::connect(bind);
        client.try_send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
        client
            .answer()
            .filter(|answer| answer.status == 200)
            .map(|_| client)
    });
    assert_eq!(third.get("/", "").status, 200);
    drop((second, third));

    let (bind, stage, _upstream) = self::stage(|settings| settings.connections.max = Some(1));
    let mut first = Client::connect(bind);
    assert_eq!(first.get("/", "").status, 200);
    assert!(Client::connect(bind).is_closed());
    closed(&stage, Closed::ListenerFull, 1);
}

#[test]
fn connections_have_an_age_and_a_number_of_requests() {
    let (bind, stage, _upstream) = stage(|settings| settings.connections.max_requests = Some(3));
    let mut client = Client::connect(bind);
    for wanted in ["", "", "close"] {
        assert_eq!(client.get("/", "").header("connection"), wanted);
    }
    assert!(client.is_closed());
    closed(&stage, Closed::MaxRequests, 1);
    let mut client = H2Client::connect(bind);
    let answered = (0..10)
        .take_while(|_| {
            client
                .try_send(request("GET", "http://h/", &[], ""))
                .is_ok()
        })
        .count();
    assert!((3..10).contains(&answered), "{answered}");

    let (bind, stage, _upstream) = self::stage(|settings| {
        settings.connections.max_duration = Some(SHORT);
    });
    let mut client = Client::connect(bind);
    assert_eq!(client.get("/", "").status, 200);
    assert!(client.is_closed());
    closed(&stage, Closed::MaxDuration, 1);
}

#[test]
fn draining_finishes_what_is_in_flight() {
    let upstream = Upstream::new(|mut client, _| {
        let _head = client.head();
        client.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nso");
        std::thread::sleep(Duration::from_millis(300));
        client.try_send("on");
    });
    let bind = address();
    let mut stage = Stage::new(&with_settings(bind, upstream.address, |_| {}));
    let mut idle = Client::connect(bind);
    let mut fresh = Client::connect(bind);
    idle.send("");
    let mut client = Client::connect(bind);
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    let head = client.head().unwrap();
    stage.drain(super::stage::PATIENCE);
    let (body, _) = client.body(&head).unwrap();
    assert_eq!(body, b"soon");
    assert!(idle.is_closed() && fresh.is_closed());
}

/// Of a flood every piece is there at once: nothing is ever waited for.
#[test]
fn a_flood_ends_with_its_time() {
    let upstream = Upstream::new(|mut client, _| {
        let _head = client.head();
        client.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        let piece = format!("10000\r\n{}\r\n", "x".repeat(0x10000)).repeat(16);
        while client.stream.get_mut().write_all(piece.as_bytes()).is_ok() {}
    });
    let bind = address();
    let mut plan = plan(bind, upstream.address);
    change_traffic(&mut plan, |traffic| {
        traffic.max_stream_duration = Some(SHORT)
    });
    let stage = Stage::new(&plan);
    let mut client = Client::connect(bind);
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    let mut buffer = vec![0; 1 << 20];
    let mut came = 0;
    while let Ok(length @ 1..) = client.stream.read(&mut buffer) {
        came += length;
    }
    assert!(came > 1 << 20, "{came}");
    let line = &stage.log.lines(1)[0];
    assert_eq!(line.completion, Completion::UpstreamBroke);
}
