//! Every bound on time: who waits too long is told, and nothing is left of it. No test says how long
//! anything takes: each bound is met by what would never end without it.

use anyhow::{Context as _, Result};
use tests::daemon::eventually;
use tests::netns::Netns;
use tests::policies::GATEWAY;
use tests::scene::Scene;
use tests::scripted::{Script, Scripted};

use super::support::{Host, stage, told};

fn http(bound: &str) -> String {
    format!("  timeout: {{http: {{{bound}}}}}\n")
}

#[test]
fn a_request_and_each_attempt_take_so_long_and_no_longer() -> Result<()> {
    let netns = Netns::new("request")?;
    let backend = Scripted::start(&netns, "127.0.0.1:3001")?;
    let request = http("requestTimeout: 200ms");
    let attempt = "  retry:
    numRetries: 1
    retryOn: {triggers: [reset]}
    perRetry: {timeout: 100ms, backOff: {baseInterval: 1ms}}
";
    let whole = http("requestTimeout: 300ms")
        + "  retry: {numRetries: 100, perRetry: {timeout: 50ms, backOff: {baseInterval: 1ms}}, retryOn: {triggers: [reset]}}\n";
    let hosts = [
        ("request", &[3001][..], request.as_str()),
        ("attempt", &[3001], attempt),
        ("whole", &[3001], &whole),
    ];
    let scene = stage(netns, &hosts)?;
    for script in [Script::Stall, Script::FloodContinue] {
        backend.plays(script);
        for (line, body) in [("GET /", ""), ("POST /", "body")] {
            for name in ["request", "attempt", "whole"] {
                let host = Host::new(&scene, name);
                let answer = host.ask(line, "", body)?;
                assert_eq!(answer.status, 504, "{script:?} {name} {answer:?}");
                host.rests()?;
                host.becomes("upstream_cx_active", 0)?;
            }
        }
    }
    Host::new(&scene, "request").expect(&[("upstream_rq_timeout", 4), ("upstream_rq_retry", 0)]);
    Host::new(&scene, "attempt").expect(&[
        ("upstream_rq_per_try_timeout", 8),
        ("upstream_rq_retry_limit_exceeded", 4),
    ]);
    let whole = Host::new(&scene, "whole");
    assert!(
        whole.metric("upstream_rq_retry")? < 400.0,
        "it outlasts the request"
    );
    backend.wait_for(|counts| counts.open == 0)?;
    Ok(())
}

#[test]
fn a_request_whose_body_does_not_come_is_bounded_as_well() -> Result<()> {
    let netns = Netns::new("upload")?;
    let backend = Scripted::start(&netns, "127.0.0.1:3001")?;
    let request = http("requestTimeout: 200ms");
    let idle = http("streamIdleTimeout: 200ms");
    let hosts = [
        ("request", &[3001][..], request.as_str()),
        ("idle", &[3001], &idle),
    ];
    let scene = stage(netns, &hosts)?;
    for name in ["request", "idle"] {
        let host = Host::new(&scene, name);
        let whole = host.request("PUT /", "", "0123456789");
        let mut client = host.connect()?;
        client.send(&whole[..whole.len() - 5])?;
        let (status, _, _) = client.answer().context(name)?;
        assert!([408, 504].contains(&status), "{name} {status}");
        host.rests()?;
        host.becomes("upstream_cx_active", 0)?;
    }
    assert!(backend.seen().is_empty(), "no whole request came");
    Ok(())
}

#[test]
fn an_answer_that_stops_or_never_ends_is_broken_off() -> Result<()> {
    let netns = Netns::new("answer")?;
    let backend = Scripted::start(&netns, "127.0.0.1:3001")?;
    let idle = http("streamIdleTimeout: 200ms");
    let stream = http("maxStreamDuration: 300ms");
    let request = http("requestTimeout: 300ms");
    let hosts = [
        ("idle", &[3001][..], idle.as_str()),
        ("stream", &[3001], &stream),
        ("request", &[3001], &request),
    ];
    let scene = stage(netns, &hosts)?;
    for (name, script) in [
        ("idle", Script::StallAnswer),
        ("stream", Script::StallAnswer),
        ("stream", Script::FloodBody),
        ("request", Script::FloodBody),
    ] {
        backend.plays(script);
        let host = Host::new(&scene, name);
        let mut client = host.send("GET /", "", "")?;
        let head = client.head()?.context("closed")?;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let broken = if script == Script::FloodBody {
            loop {
                match client.chunk() {
                    Ok(chunk) if chunk.is_empty() => break Ok(()),
                    Ok(_) => {}
                    Err(error) => break Err(error),
                }
            }
        } else {
            client.bytes(10).map(drop)
        };
        assert!(
            broken.is_err(),
            "{name} {script:?}: it ended as if it were whole"
        );
        host.rests()?;
        host.becomes("upstream_cx_active", 0)?;
    }
    backend.wait_for(|counts| counts.open == 0)?;
    Ok(())
}

#[test]
fn a_connection_that_is_not_made_is_given_up() -> Result<()> {
    let netns = Netns::new("connect")?;
    // Nobody is behind this interface, and nobody says so.
    netns.ip(&[
        "link", "add", "void", "type", "veth", "peer", "name", "peer",
    ])?;
    netns.ip(&["addr", "add", "10.9.9.1/24", "dev", "void"])?;
    netns.ip(&["link", "set", "void", "up"])?;
    netns.ip(&["link", "set", "peer", "up"])?;
    let stranger = ["lladdr", "02:00:00:00:00:01"];
    netns.ip(&[&["neigh", "add", "10.9.9.2", "dev", "void"][..], &stranger].concat())?;
    let hosts = tests::policies::treated_host(
        "void",
        &[3001],
        "  timeout: {tcp: {connectTimeout: 100ms}}\n",
    );
    let hosts = hosts.replace("127.0.0.1", "10.9.9.2");
    let scene = Scene::start(netns, &[("gateway.yaml", GATEWAY), ("hosts.yaml", &hosts)])?;
    let void = Host::new(&scene, "void");
    for _ in 0..3 {
        let answer = void.get()?;
        assert_eq!(
            (answer.status, answer.is_overloaded()),
            (503, false),
            "{answer:?}"
        );
    }
    void.rests()?;
    void.expect(&[("upstream_cx_connect_fail", 3), ("upstream_cx_active", 0)]);
    Ok(())
}

#[test]
fn who_waits_for_a_connection_in_vain_is_told() -> Result<()> {
    let netns = Netns::new("queue")?;
    let backend = Scripted::start(&netns, "127.0.0.1:3001")?;
    backend.plays(Script::Hold);
    let spec = "  circuitBreaker: {maxConnections: 1}
  timeout: {tcp: {connectTimeout: 200ms}}
";
    let scene = stage(netns, &[("one", &[3001], spec)])?;
    let one = Host::new(&scene, "one");
    let mut first = one.send("GET /", "", "")?;
    backend.came(1)?;
    assert!(one.get()?.is_overloaded());
    one.expect(&[
        ("upstream_rq_pending_failure_eject", 1),
        ("upstream_rq_pending_active", 0),
    ]);
    backend.release(1);
    assert_eq!(told(&mut first)?.status, 200);
    one.rests()
}

#[test]
fn a_connection_lives_so_long_idle_or_not() -> Result<()> {
    let netns = Netns::new("age")?;
    let backend = Scripted::start(&netns, "127.0.0.1:3001")?;
    let idle = http("connectionIdleTimeout: 100ms");
    let age = http("maxConnectionDuration: 300ms");
    let hosts = [("idle", &[3001][..], idle.as_str()), ("age", &[3001], &age)];
    let scene = stage(netns, &hosts)?;
    let idle = Host::new(&scene, "idle");
    assert_eq!(idle.get()?.status, 200);
    // It is closed though nobody asks.
    idle.becomes("upstream_cx_active", 0)?;
    backend.wait_for(|counts| counts.open == 0)?;

    let age = Host::new(&scene, "age");
    let before = backend.counts().connections;
    // One connection is one worker's.
    let mut client = age.connect()?;
    eventually("a third connection", || {
        client.send(age.request("GET /", "", ""))?;
        assert_eq!(told(&mut client)?.status, 200);
        Ok((backend.counts().connections >= before + 3).then_some(()))
    })?;
    assert!(age.metric("upstream_cx_max_duration_reached")? >= 2.0);
    age.rests()
}
