//! HTTP/1.1 towards upstreams: pooled connections, bodies, and everything that may go wrong.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::mpsc;
use std::time::Duration;

use limiter_daemon::policy::plan::{Endpoint, Timeouts};

use super::client::{Client, get};
use super::plans::{backend, endpoint, plan, with_rule, with_settings};
use super::stage::{Stage, address};
use super::upstream::{Upstream, nobody, ok, read};

#[test]
fn connections_are_kept_and_used_again() {
    let (bind, upstream) = (address(), Upstream::echo());
    let _stage = Stage::new(&plan(bind, upstream.address));
    let mut client = Client::connect(bind);
    for number in 0..50 {
        let answer = client.get(&format!("/{number}?q"), "");
        assert_eq!(answer.status, 200);
        assert!(
            answer
                .text()
                .starts_with(&format!("GET /{number}?q HTTP/1.1\r\n"))
        );
    }
    for _ in 0..10 {
        assert_eq!(get(bind, "/", "").status, 200);
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn connections_are_kept_behind_every_kind_of_body() {
    let upstream = Upstream::answering(|seen| match seen.target() {
        "GET /chunked" => {
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".into()
        }
        "GET /empty" => ok(b""),
        "GET /none" => b"HTTP/1.1 204 No Content\r\n\r\n".into(),
        "GET /same" => b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n".into(),
        "HEAD /head" => b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".into(),
        _ => ok(&seen.body),
    });
    let bind = address();
    let _stage = Stage::new(&plan(bind, upstream.address));
    let mut client = Client::connect(bind);
    for _ in 0..3 {
        assert_eq!(client.get("/chunked", "").text(), "abc");
        assert_eq!(client.get("/empty", "").text(), "");
        assert_eq!(client.get("/none", "").status, 204);
        assert_eq!(client.get("/same", "").status, 304);
        client.send("HEAD /head HTTP/1.1\r\nhost: h\r\n\r\n");
        let head = client.head().unwrap();
        assert!(head.contains("content-length: 1000\r\n"), "{head}");
        client.send("POST /sized HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello");
        assert_eq!(client.answer().unwrap().text(), "hello");
        client.send("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n3;x=y\r\n!!!\r\n0\r\n\r\n");
        assert_eq!(client.answer().unwrap().text(), "hi!!!");
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_replaced() {
    // Each connection is closed behind its first answer, without a word before it.
    let (sender, closed) = mpsc::channel();
    let upstream = Upstream::new(move |mut client, number| {
        if read(&mut client).is_some() {
            client.send(ok(number.to_string().as_bytes()));
            drop(client);
            sender.send(()).unwrap();
        }
    });
    let bind = address();
    let _stage = Stage::new(&plan(bind, upstream.address));
    let mut client = Client::connect(bind);
    for number in 0..20 {
        let answer = client.get("/", "");
        assert_eq!((answer.status, answer.text()), (200, number.to_string()));
        closed.recv().unwrap();
    }
    assert_eq!(upstream.connections(), 20);
}

#[test]
fn bodies_stream_both_ways_and_are_never_held() {
    let (sender, receiver) = mpsc::channel::<Vec<u8>>();
    let upstream = Upstream::new(move |mut client, _| {
        let _head = client.head();
        client.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        let mut piece = [0; 10];
        while client.stream.read_exact(&mut piece).is_ok() {
            sender.send(piece.to_vec()).unwrap();
            client.try_send([b"a\r\n", piece.as_slice(), b"\r\n"].concat());
        }
        client.try_send("0\r\n\r\n");
    });
    let bind = address();
    let _stage = Stage::new(&plan(bind, upstream.address));
    let mut client = Client::connect(bind);
    client.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 30\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 200"));
    for piece in [b"0123456789", b"abcdefghij", b"ABCDEFGHIJ"] {
        client.send(piece);
        // Each piece is there, and its answer back, before the next one is sent.
        assert_eq!(receiver.recv().unwrap(), piece);
        let mut back = [0; 15];
        client.stream.read_exact(&mut back).unwrap();
        assert_eq!(&back[3..13], piece);
    }
}

#[test]
fn a_slow_reader_slows_the_upstream_down() {
    let (sender, receiver) = mpsc::channel();
    let upstream = Upstream::new(move |mut client, _| {
        let _head = client.head();
        let total = 256 << 20;
        client.send(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {total}\r\n\r\n"
        ));
        let stream = client.stream.get_mut();
        stream
            .set_write_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let piece = vec![0; 1 << 20];
        let mut sent = 0;
        while sent < total && stream.write_all(&piece).is_ok() {
            sent += piece.len();
        }
        sender.send(sent).unwrap();
    });
    let bind = address();
    let _stage = Stage::new(&plan(bind, upstream.address));
    let mut client = Client::connect(bind);
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    client.head().unwrap();
    // Nothing more is read: what is on the way is what sockets hold, not the body.
    let sent = receiver.recv().unwrap();
    assert!(sent < 64 << 20, "{sent} bytes were taken");
}

#[test]
fn interim_responses_are_passed_over_and_expectations_met_here() {
    let upstream = Upstream::answering(|seen| {
        [
            b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
                .as_slice(),
            &ok(&seen.body),
        ]
        .concat()
    });
    let bind = address();
    let _stage = Stage::new(&plan(bind, upstream.address));
    let mut client = Client::connect(bind);
    client.send("POST / HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n");
    assert_eq!(client.answer().unwrap().status, 100);
    client.send("ok");
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    assert_eq!(upstream.last().header("expect"), "");
}

#[test]
fn trailers_are_passed_on_both_ways() {
    let upstream = Upstream::answering(|_| {
        b"HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-sum: 7\r\n\r\n".into()
    });
    let (bind, silent) = (address(), address());
    let mut both = plan(bind, upstream.address);
    let without = with_settings(silent, upstream.address, |settings| {
        settings.http1.trailers = false
    });
    both.listeners.extend(without.listeners);
    let _stage = Stage::new(&both);
    for (bind, wanted) in [(bind, true), (silent, false)] {
        let mut client = Client::connect(bind);
        client.send("POST / HTTP/1.1\r\nhost: h\r\nte: trailers\r\ntrailer: x-up\r\ntransfer-encoding: chunked\r\n\r\n1\r\nb\r\n0\r\nx-up: 1\r\n\r\n");
        let answer = client.answer().unwrap();
        assert_eq!(answer.trailers.contains("x-sum: 7"), wanted, "{answer:?}");
        let seen = upstream.last();
        assert_eq!(seen.trailers.contains("x-up: 1"), wanted, "{seen:?}");
    }
}

#[test]
fn upstreams_that_fail_are_told_apart() {
    let upstream = Upstream::new(|mut client, _| {
        let Some(seen) = read(&mut client) else {
            return;
        };
        match seen.target() {
            "GET /hang" => drop(client.head()),
            "GET /garbage" => client.send("SSH-2.0-x\r\n\r\n"),
            "GET /half" => client.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"),
            "GET /stall" => {
                client.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
                drop(client.head());
            }
            _ => {}
        }
    });
    let (bind, down, none) = (address(), address(), address());
    let timeouts = Timeouts {
        request: Some(Duration::from_millis(300)),
        backend_request: None,
    };
    let mut all = with_rule(bind, upstream.address, |rule| rule.timeouts = timeouts);
    all.listeners
        .extend(with_rule(down, nobody(), |rule| rule.backends[0].backend = Some(1)).listeners);
    all.listeners
        .extend(with_rule(none, nobody(), |rule| rule.backends[0].backend = Some(2)).listeners);
    all.backends.push(backend(vec![endpoint(nobody())]));
    all.backends.push(backend(vec![]));
    let stage = Stage::new(&all);
    assert_eq!(get(bind, "/hang", "").status, 504);
    assert_eq!(get(bind, "/garbage", "").status, 502);
    assert_eq!(get(bind, "/close", "").status, 502);
    assert_eq!(get(down, "/", "").status, 503);
    assert_eq!(get(none, "/", "").status, 503);
    for path in ["/half", "/stall"] {
        let mut client = Client::connect(bind);
        client.send(format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n"));
        // Cut off: how much of it comes depends on when, but it can never be taken for a whole.
        let mut all = Vec::new();
        let _reset = client.stream.read_to_end(&mut all);
        let all = String::from_utf8(all).unwrap();
        let cut = all.starts_with("HTTP/1.1 200") && all.ends_with("\r\n\r\nhalf");
        assert!(cut || path == "/half" && all.is_empty(), "{all}");
    }
    let refused: Vec<_> = stage.log.lines(7).iter().map(|line| line.refused).collect();
    assert_eq!(
        refused,
        [
            Some("upstream_timeout"),
            Some("upstream_broke"),
            Some("upstream_broke"),
            Some("upstream_unreachable"),
            Some("no_endpoint"),
            None,
            None,
        ]
    );
}

#[test]
fn a_client_that_goes_away_ends_its_request_upstream() {
    let (sender, receiver) = mpsc::channel();
    let upstream = Upstream::new(move |mut client, _| {
        let _head = client.head();
        sender.send("came").unwrap();
        assert!(client.is_closed());
        sender.send("gone").unwrap();
    });
    let bind = address();
    let _stage = Stage::new(&plan(bind, upstream.address));
    let mut client = Client::connect(bind);
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    assert_eq!(receiver.recv().unwrap(), "came");
    client.stream.get_mut().shutdown(Shutdown::Both).unwrap();
    assert_eq!(receiver.recv().unwrap(), "gone");
}

#[test]
fn unix_sockets_and_names_are_endpoints() {
    let dir = std::env::temp_dir().join(format!("limiterd-proxy-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("upstream.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut client = Client::on(stream.unwrap());
            while read(&mut client).is_some() {
                client.send(ok(b"unix"));
            }
        }
    });
    let named = Upstream::answering(|_| ok(b"named"));
    let (bind, other) = (address(), address());
    let mut both = plan(bind, nobody());
    both.backends[0].endpoints = vec![Endpoint::Unix(path)];
    both.listeners
        .extend(with_rule(other, nobody(), |rule| rule.backends[0].backend = Some(1)).listeners);
    let name = named.address.ip().to_string();
    both.backends
        .push(backend(vec![Endpoint::Fqdn(name, named.address.port())]));
    let _stage = Stage::new(&both);
    assert_eq!(get(bind, "/", "").text(), "unix");
    assert_eq!(get(other, "/", "").text(), "named");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn other_protocols_are_switched_to_and_tunnelled() {
    let upstream = Upstream::new(|mut client, _| {
        let Some(seen) = read(&mut client) else {
            return;
        };
        if seen.header("upgrade") != "websocket" || seen.header("connection") != "upgrade" {
            client.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nplain");
            return;
        }
        if seen.target() == "GET /no" {
            client
                .send("HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno");
            return;
        }
        client.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nx: y\r\n\r\nfirst");
        let mut buffer = [0; 5];
        while client.stream.read_exact(&mut buffer).is_ok() {
            buffer.reverse();
            client.try_send(buffer);
        }
    });
    let bind = address();
    let mut stage = Stage::new(&plan(bind, upstream.address));
    let upgrade = "connection: Upgrade\r\nupgrade: websocket\r\n";
    let answer = get(bind, "/no", upgrade);
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    // HTTP/2 in clear text would go past everything that is decided here.
    let h2c = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n";
    assert_eq!(get(bind, "/", h2c).text(), "plain");

    let mut client = Client::connect(bind);
    let answer = client.get("/", upgrade);
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("upgrade"), "websocket");
    assert_eq!(answer.header("connection"), "upgrade");
    assert_eq!(answer.header("x"), "y");
    let mut buffer = [0; 5];
    client.stream.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"first");
    for _ in 0..3 {
        client.send("hello");
        client.stream.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"olleh");
    }
    let tunnels = &stage.counters.tunnels;
    assert_eq!(tunnels.load(std::sync::atomic::Ordering::Relaxed), 1);
    // A tunnel does not end by itself: it is cut off when the time to drain is over.
    stage.drain(Duration::from_millis(50));
    assert!(client.is_closed());
}

#[test]
fn reloads_lose_no_request_and_no_connection() {
    let (bind, upstream) = (address(), Upstream::echo());
    let plan = plan(bind, upstream.address);
    let stage = Stage::new(&plan);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::connect(bind);
                (0..250)
                    .filter(|_| client.get("/", "").status == 200)
                    .count()
            })
        })
        .collect();
    for turn in 0..100 {
        let mut next = plan.clone();
        next.listeners[0].routes[0].name = format!("d/route-{turn}");
        stage.reload(&next);
        std::thread::yield_now();
    }
    for client in clients {
        assert_eq!(client.join().unwrap(), 250);
    }
    assert!(upstream.connections() <= 4);
}

#[test]
fn answers_are_framed_in_one_way() {
    let chunks = "4\r\nabcd\r\n0\r\n\r\n";
    let upstream = Upstream::new(move |mut client, _| {
        let Some(seen) = read(&mut client) else {
            return;
        };
        let head = match seen.target() {
            "GET /both" => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n",
            "GET /reversed" => {
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n"
            }
            "GET /lengths" => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n",
            "GET /old" => "HTTP/1.0 200 OK\r\n",
            _ => "HTTP/1.1 200 OK\r\n",
        };
        client.send(format!("{head}\r\n{chunks}"));
    });
    let bind = address();
    let _stage = Stage::new(&plan(bind, upstream.address));
    for (path, status, body) in [
        ("/both", 200, "abcd"),
        ("/reversed", 200, "abcd"),
        ("/lengths", 502, ""),
        ("/old", 200, chunks),
        ("/until-close", 200, chunks),
    ] {
        let answer = get(bind, path, "");
        assert_eq!(answer.status, status, "{path}");
        if status == 200 {
            assert_eq!(answer.text(), body, "{path}");
            assert_eq!(answer.header("content-length"), "", "{path}");
            assert!(answer.head.starts_with("HTTP/1.1 "), "{path}");
        }
    }
}

#[test]
fn large_bodies_pass_whole() {
    let body: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let sent = body.clone();
    let upstream = Upstream::answering(move |seen| {
        assert!(seen.body == sent);
        ok(&seen.body)
    });
    let bind = address();
    let _stage = Stage::new(&plan(bind, upstream.address));
    let mut client = Client::connect(bind);
    client.send(format!(
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n",
        body.len()
    ));
    client.send(&body);
    let answer = client.answer().unwrap();
    assert!(answer.body == body);
}
