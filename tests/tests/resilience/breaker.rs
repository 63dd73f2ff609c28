//! Circuit breakers: what may be under way, who waits, and that who goes away leaves his place.

use std::net::Shutdown;
use std::thread;

use anyhow::Result;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tests::http_client::{Speak, count, many};
use tests::netns::Netns;
use tests::policies::{GATEWAY, treated_host};
use tests::scene::Scene;
use tests::scripted::{Script, Scripted};
use tokio::net::TcpStream;

use super::support::{Host, PROXY, stage, told};

fn backend(netns: &Netns, port: u16, script: Script) -> Result<Scripted> {
    let backend = Scripted::start(netns, &format!("127.0.0.1:{port}"))?;
    backend.plays(script);
    Ok(backend)
}

#[test]
fn of_a_hundred_at_once_ten_reach_the_backend_and_ninety_are_told_at_once() -> Result<()> {
    let netns = Netns::new("hundred")?;
    let backend = backend(&netns, 3001, Script::Hold)?;
    let spec = "  circuitBreaker: {maxParallelRequests: 10}\n";
    // Of HTTP/2, clients have the host from the URL.
    let hosts = treated_host("busy", &[3001], spec).replace("  hostnames: [busy.test]\n", "");
    let scene = Scene::start(netns, &[("gateway.yaml", GATEWAY), ("hosts.yaml", &hosts)])?;
    let busy = Host::new(&scene, "busy");
    for (round, speak) in (1..).zip([Speak::Http1, Speak::H2c]) {
        let request = || {
            let request = Request::get(format!("http://{PROXY}/"));
            request.body(Full::default())
        };
        let requests = (0..100).map(|_| request()).collect::<Result<_, _>>()?;
        let answers = thread::scope(|scope| {
            let asked = scope.spawn(|| scene.netns.enter(|| many(speak, requests)));
            backend.came(10 * round)?;
            busy.becomes("upstream_rq_pending_overflow", 90 * u32::try_from(round)?)?;
            busy.expect(&[
                ("upstream_rq_active", 10),
                ("circuit_breakers_default_rq_open", 1),
            ]);
            backend.release(10);
            asked.join().expect("no panic")
        })?;
        assert_eq!([count(&answers, 200), count(&answers, 503)], [10, 90]);
        for refused in answers.iter().filter(|answer| answer.status == 503) {
            assert_eq!(refused.header("x-envoy-overloaded"), "true");
        }
        busy.rests()?;
        assert_eq!(backend.counts().requests, 10 * round);
        busy.expect(&[("upstream_rq_total", 10 * u32::try_from(round)?)]);
    }
    Ok(())
}

#[test]
fn who_finds_no_connection_waits_in_turn_and_not_too_many_wait() -> Result<()> {
    let netns = Netns::new("pending")?;
    let backend = backend(&netns, 3001, Script::Hold)?;
    let spec = "  circuitBreaker: {maxConnections: 1, maxPendingRequests: 3}\n";
    let scene = stage(netns, &[("one", &[3001], spec)])?;
    let one = Host::new(&scene, "one");
    let mut clients = vec![one.send("GET /0", "", "")?];
    backend.came(1)?;
    for number in 1..=3 {
        clients.push(one.send(&format!("GET /{number}"), "", "")?);
        one.becomes("upstream_rq_pending_active", number)?;
    }
    one.expect(&[
        ("upstream_rq_active", 1),
        ("circuit_breakers_default_cx_open", 1),
        ("circuit_breakers_default_rq_pending_open", 1),
    ]);
    assert!(one.get()?.is_overloaded());
    backend.release(4);
    for client in &mut clients {
        assert_eq!(told(client)?.status, 200);
    }
    let order: Vec<_> = backend
        .seen()
        .iter()
        .map(|seen| seen.line().to_owned())
        .collect();
    assert_eq!(order, ["GET /0", "GET /1", "GET /2", "GET /3"]);
    assert_eq!(backend.counts().connections, 1);
    one.rests()?;
    one.expect(&[
        ("upstream_rq_pending_total", 3),
        ("upstream_rq_pending_overflow", 1),
        ("upstream_rq_pending_active", 0),
        ("upstream_rq_active", 0),
        ("upstream_cx_active", 1),
        ("upstream_cx_total", 1),
    ]);
    Ok(())
}

#[test]
fn a_client_that_goes_away_frees_its_place_at_once() -> Result<()> {
    let netns = Netns::new("cancel")?;
    let backend = backend(&netns, 3001, Script::Stall)?;
    let spec =
        "  circuitBreaker: {maxConnections: 1, maxParallelRequests: 1, maxPendingRequests: 1}\n";
    let scene = stage(netns, &[("one", &[3001], spec)])?;
    let one = Host::new(&scene, "one");
    // While it waits for an answer; while it still sends its body.
    let half = one.request("PUT /", "", "0123456789");
    for request in [
        one.request("GET /", "", ""),
        half[..half.len() - 5].to_owned(),
    ] {
        let before = backend.counts().connections;
        let mut client = one.connect()?;
        client.send(request)?;
        backend.wait_for(|counts| counts.connections == before + 1)?;
        one.becomes("upstream_rq_active", 1)?;
        assert!(one.get()?.is_overloaded());
        client.get_ref().shutdown(Shutdown::Both)?;
        one.rests()?;
        one.becomes("upstream_cx_active", 0)?;
        backend.wait_for(|counts| counts.open == 0)?;
    }
    backend.plays(Script::Echo);
    assert_eq!(one.get()?.status, 200);
    Ok(())
}

#[test]
fn who_leaves_the_queue_leaves_room_in_it() -> Result<()> {
    let netns = Netns::new("leave")?;
    let backend = backend(&netns, 3001, Script::Hold)?;
    let spec = "  circuitBreaker: {maxConnections: 1, maxPendingRequests: 1}\n";
    let scene = stage(netns, &[("one", &[3001], spec)])?;
    let one = Host::new(&scene, "one");
    let mut first = one.send("GET /first", "", "")?;
    backend.came(1)?;
    for _ in 0..3 {
        let waits = one.send("GET /waits", "", "")?;
        one.becomes("upstream_rq_pending_active", 1)?;
        waits.get_ref().shutdown(Shutdown::Both)?;
        one.becomes("upstream_rq_pending_active", 0)?;
    }
    let mut last = one.send("GET /last", "", "")?;
    one.becomes("upstream_rq_pending_active", 1)?;
    backend.release(2);
    assert_eq!(told(&mut first)?.status, 200);
    assert_eq!(told(&mut last)?.status, 200);
    let seen = backend.seen();
    assert_eq!(seen.last().map(|seen| seen.line()), Some("GET /last"));
    assert_eq!(seen.len(), 2, "who left was not sent");
    one.rests()
}

#[test]
fn a_stream_that_is_cancelled_frees_its_place_and_the_connection_goes_on() -> Result<()> {
    let netns = Netns::new("stream")?;
    let backend = backend(&netns, 3001, Script::Stall)?;
    let spec = "  circuitBreaker: {maxParallelRequests: 5}\n";
    let scene = stage(netns, &[("five", &[3001], spec)])?;
    let five = Host::new(&scene, "five");
    let request = || {
        let request = Request::get("http://five.test/");
        request.body(Full::<Bytes>::default())
    };
    let looks = || async { tokio::task::yield_now().await };
    scene.netns.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let stream = TokioIo::new(TcpStream::connect(PROXY).await?);
            let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
            let (mut client, connection) = shaken.await?;
            let connection = tokio::spawn(connection);
            let asked: Vec<_> = (0..5)
                .map(|_| Ok(tokio::spawn(client.send_request(request()?))))
                .collect::<Result<_>>()?;
            while backend.counts().requests < 5 {
                looks().await;
            }
            assert_eq!(client.send_request(request()?).await?.status(), 503);
            for one in asked {
                one.abort();
            }
            while backend.counts().open > 0 {
                looks().await;
            }
            backend.plays(Script::Echo);
            assert_eq!(client.send_request(request()?).await?.status(), 200);
            drop(client);
            Ok(connection.await??)
        })
    })?;
    five.rests()?;
    five.expect(&[
        ("upstream_rq_pending_overflow", 1),
        ("upstream_rq_total", 6),
    ]);
    Ok(())
}

#[test]
fn a_connection_has_so_many_requests_and_an_endpoint_so_many_connections() -> Result<()> {
    let netns = Netns::new("each")?;
    let backends = [
        backend(&netns, 3001, Script::Hold)?,
        backend(&netns, 3002, Script::Hold)?,
    ];
    let two = "  circuitBreaker: {maxRequestsPerConnection: 2}\n";
    let each = "  circuitBreaker: {perEndpoint: {maxConnections: 1}, maxPendingRequests: 0}\n";
    let hosts = [("two", &[3001][..], two), ("each", &[3001, 3002], each)];
    let scene = stage(netns, &hosts)?;
    let each = Host::new(&scene, "each");
    let mut clients = [each.send("GET /", "", "")?, each.send("GET /", "", "")?];
    for backend in &backends {
        backend.came(1)?;
    }
    assert!(each.get()?.is_overloaded());
    for backend in &backends {
        backend.release(1);
    }
    for client in &mut clients {
        assert_eq!(told(client)?.status, 200);
    }
    each.rests()?;

    let two = Host::new(&scene, "two");
    backends[0].plays(Script::Echo);
    let before = backends[0].counts().connections;
    // Over one connection, which one worker has: each keeps connections of its own.
    let mut client = two.connect()?;
    for _ in 0..6 {
        client.send(two.request("GET /", "", ""))?;
        assert_eq!(told(&mut client)?.status, 200);
    }
    drop(client);
    assert_eq!(backends[0].counts().connections, before + 3);
    two.rests()?;
    two.expect(&[
        ("upstream_cx_total", 3),
        ("upstream_cx_max_requests", 3),
        ("upstream_cx_active", 0),
    ]);
    Ok(())
}

#[test]
fn a_reload_keeps_what_is_under_way_and_takes_new_limits_at_once() -> Result<()> {
    let netns = Netns::new("reload")?;
    let backend = backend(&netns, 3001, Script::Hold)?;
    let spec = |most| format!("  circuitBreaker: {{maxParallelRequests: {most}}}\n");
    let scene = stage(netns, &[("few", &[3001], &spec(1))])?;
    let few = Host::new(&scene, "few");
    let mut clients = vec![few.send("GET /", "", "")?];
    backend.came(1)?;
    for most in [1, 2] {
        let hosts = treated_host("few", &[3001], &spec(most));
        scene.policies.write("hosts.yaml", &hosts)?;
        scene.daemon.reload(&scene.netns)?;
        if most == 2 {
            clients.push(few.send("GET /", "", "")?);
            backend.came(2)?;
        }
        assert!(few.get()?.is_overloaded());
        few.expect(&[("upstream_rq_active", most)]);
    }
    backend.release(2);
    for client in &mut clients {
        assert_eq!(told(client)?.status, 200);
    }
    few.rests()
}
