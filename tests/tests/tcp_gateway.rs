//! Gloo's TCP gateways: connections that are passed on, behind the kernel's bucket.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tests::capture::Capture;
use tests::daemon::{Daemon, Policies, Process, binary, eventually, limiterd};
use tests::echo::echo;
use tests::netns::Netns;
use tests::policies::config;
use tests::raw::{Raw, tcp};
use tests::tls::Authority;
use tests::topology::Topology;

const FRONT: &str = "127.0.0.1:5432";

/// An Upstream on a port of 127.0.0.1.
fn upstream(name: &str, port: u16) -> String {
    format!(
        "\
---
apiVersion: gloo.solo.io/v1
kind: Upstream
metadata: {{name: {name}}}
spec: {{static: {{hosts: [{{addr: 127.0.0.1, port: {port}}}]}}}}
"
    )
}

/// A TCP gateway with these hosts and options (YAML in flow style).
fn gateway(port: u16, hosts: &str, options: &str) -> String {
    format!(
        "\
---
apiVersion: gateway.solo.io/v1
kind: Gateway
metadata: {{name: db}}
spec:
  bindPort: {port}
  tcpGateway: {{tcpHosts: [{hosts}], options: {{{options}}}}}
"
    )
}

fn host(name: &str, ssl: &str, upstream: &str) -> String {
    format!("{{name: {name}, {ssl}destination: {{single: {{upstream: {{name: {upstream}}}}}}}}}")
}

fn settings(drain: &str) -> String {
    format!(
        "\
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {{name: limiterd}}
spec: {{http: {{workers: 2, drainTimeout: {drain}}}}}
"
    )
}

/// A connection whose upstream has said `name`.
fn greeted(netns: &Netns, name: &str) -> Result<Raw> {
    let mut client = Raw::on(tcp(netns, FRONT)?);
    ensure!(client.bytes(name.len())? == name.as_bytes(), "not {name}");
    Ok(client)
}

fn goes_on(client: &mut Raw) -> Result<()> {
    client.send("ping")?;
    ensure!(client.bytes(4)? == b"ping", "no echo");
    Ok(())
}

/// Ends the client's half; the upstream's end follows.
fn ends(client: &mut Raw) -> Result<()> {
    client.get_ref().shutdown(Shutdown::Write)?;
    ensure!(client.head()?.is_none(), "not the end");
    Ok(())
}

#[test]
fn over_the_bucket_a_tls_client_hears_nothing() -> Result<()> {
    let topology = Topology::new()?;
    let Topology {
        gateway: at,
        first: client,
        ..
    } = &topology;
    let authority = Authority::new()?;
    echo(
        at,
        "127.0.0.1:3001",
        "db",
        Some(authority.server("db.test")?),
    )?;
    let names = "sslConfig: {sniDomains: [db.test]}, ";
    let limit = "localRatelimit: {maxTokens: 3, fillInterval: 1h}";
    let pins = topology.pins();
    let policies = Policies::new(&[
        (
            "limiterd.yaml",
            &config(&[&client.gateway_interface], &pins, "Detach"),
        ),
        ("upstream.yaml", &upstream("db", 3001)),
        (
            "gateway.yaml",
            &gateway(8443, &host("db", names, "db"), limit),
        ),
    ])?;
    let daemon = Daemon::start(at, policies.path())?;
    let capture = Capture::start(&client.netns, &client.interface)?;
    let front = SocketAddr::new(client.gateway_v4.into(), 8443);
    let mut open = Vec::new();
    for _ in 0..3 {
        // The certificate is the upstream's own.
        let mut one = authority.connect(&client.netns, &front.to_string(), "db.test")?;
        assert_eq!(one.bytes(2)?, b"db");
        open.push(one);
    }
    let refused = client.netns.enter(|| {
        Ok(TcpStream::connect_timeout(&front, Duration::from_millis(300)).unwrap_err())
    })?;
    assert_eq!(refused.kind(), std::io::ErrorKind::TimedOut);
    // Those that were let in go on.
    for one in &mut open {
        one.send("ping")?;
        assert_eq!(one.bytes(4)?, b"ping");
    }
    let seen = capture.stop()?;
    let own = open
        .iter()
        .map(|one| Ok(one.get_ref().sock.local_addr()?.port()));
    assert_eq!(seen.accepted, own.collect::<Result<_>>()?);
    assert!(seen.reset.is_empty(), "RST to {:?}", seen.reset);
    assert_eq!(seen.icmp_errors, 0);
    let page = daemon.metrics(at)?;
    assert!(page.packets("Gateway/default/db", "over_connections") >= 1.0);
    let prefix = [("envoy_tcp_prefix", "Gateway/default/db")];
    assert_eq!(page.sum("envoy_tcp_downstream_cx_total", &prefix), 3.0);
    assert_eq!(page.sum("envoy_tcp_downstream_cx_no_route", &prefix), 0.0);
    assert!(page.sum("envoy_tcp_downstream_cx_tx_bytes_total", &prefix) > 1000.0);
    assert!(page.sum("envoy_tcp_downstream_cx_rx_bytes_total", &prefix) > 100.0);
    drop(open);
    assert!(daemon.stop()?.success());
    Ok(())
}

#[test]
fn reloads_touch_no_connection_and_a_bad_gateway_leaves_the_good_one() -> Result<()> {
    let netns = Netns::new("tcpreload")?;
    echo(&netns, "127.0.0.1:3001", "old", None)?;
    echo(&netns, "127.0.0.1:3002", "new", None)?;
    let upstreams = upstream("old", 3001) + &upstream("new", 3002);
    let to = |name: &str| gateway(5432, &host("all", "", name), "");
    let policies = Policies::new(&[
        ("limiterd.yaml", &settings("10s")),
        ("upstreams.yaml", &upstreams),
        ("gateway.yaml", &to("old")),
    ])?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let mut first = greeted(&netns, "old")?;
    policies.write("gateway.yaml", &to("new"))?;
    assert_eq!(daemon.reload(&netns)?, "ready\n");
    let mut second = greeted(&netns, "new")?;
    goes_on(&mut first)?;
    // Two hosts for the same.
    let bad = [host("a", "", "old"), host("b", "", "old")].join(", ");
    policies.write("gateway.yaml", &gateway(5432, &bad, ""))?;
    daemon.reload(&netns)?;
    let third = greeted(&netns, "new")?;
    let config = daemon.config(&netns)?;
    assert_eq!(config["plan"]["tcp"][0]["name"], "Gateway/default/db");
    assert_eq!(
        config["plan"]["tcp"][0]["hosts"][0]["backends"][0]["backend"],
        "Upstream/default/new"
    );
    assert_eq!(
        config["last_load"]["kept"].as_array().map(Vec::len),
        Some(1)
    );
    // Its address goes out of service: nobody is let in, who is there goes on.
    policies.write("gateway.yaml", &to("new").replace("5432", "5433"))?;
    assert_eq!(daemon.reload(&netns)?, "ready\n");
    assert!(tcp(&netns, FRONT).is_err());
    for client in [&mut first, &mut second] {
        goes_on(client)?;
        ends(client)?;
    }
    drop(third);
    assert!(daemon.stop()?.success());
    Ok(())
}

#[test]
fn sockets_pass_to_a_new_process_and_connections_end_in_their_own_time() -> Result<()> {
    let netns = Netns::new("tcpdrain")?;
    echo(&netns, "127.0.0.1:3001", "db", None)?;
    let policies = Policies::new(&[
        ("limiterd.yaml", &settings("1h")),
        ("upstream.yaml", &upstream("db", 3001)),
        ("gateway.yaml", &gateway(5432, &host("all", "", "db"), "")),
    ])?;
    let old = Daemon::start(&netns, policies.path())?;
    let mut early = greeted(&netns, "db")?;
    let mut command = Command::new(binary());
    command
        .args(["run", "--takeover", "--config"])
        .arg(policies.path());
    let new = Process::spawn(&netns, command)?;
    let mut old = old.process;
    eventually("the takeover", || {
        Ok(old.output().contains("taken over").then_some(()))
    })
    .with_context(|| new.output())?;
    let new = Daemon::ready(&netns, new)?;
    let mut late = greeted(&netns, "db")?;
    goes_on(&mut early)?;
    ends(&mut early)?;
    assert_eq!(old.wait()?.code(), Some(0), "{}", old.output());
    goes_on(&mut late)?;

    // SIGTERM: nobody is let in any more, and the last connection is waited for.
    new.process.signal(Signal::TERM)?;
    eventually("the listener to close", || {
        Ok(tcp(&netns, FRONT).is_err().then_some(()))
    })?;
    goes_on(&mut late)?;
    ends(&mut late)?;
    let mut new = new.process;
    assert_eq!(new.wait()?.code(), Some(0), "{}", new.output());
    Ok(())
}

#[test]
fn a_connection_that_does_not_end_is_cut_off() -> Result<()> {
    let netns = Netns::new("tcpcut")?;
    echo(&netns, "127.0.0.1:3001", "db", None)?;
    let policies = Policies::new(&[
        ("limiterd.yaml", &settings("100ms")),
        ("upstream.yaml", &upstream("db", 3001)),
        ("gateway.yaml", &gateway(5432, &host("all", "", "db"), "")),
    ])?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let mut client = greeted(&netns, "db")?;
    daemon.process.signal(Signal::TERM)?;
    // The end, however it is told.
    assert!(client.bytes(1).is_err());
    let mut process = daemon.process;
    assert_eq!(process.wait()?.code(), Some(0), "{}", process.output());
    assert!(process.output().contains("did not end in time"));
    Ok(())
}

#[test]
fn explain_tells_which_host_takes_a_connection() -> Result<()> {
    let hosts = [
        host("named", "sslConfig: {sniDomains: ['*.db.test']}, ", "one"),
        host("rest", "", "two"),
    ];
    let policies = Policies::new(&[
        (
            "upstreams.yaml",
            &(upstream("one", 1) + &upstream("two", 2)),
        ),
        ("gateway.yaml", &gateway(5432, &hosts.join(", "), "")),
    ])?;
    let dir = policies.path().display().to_string();
    for (url, wanted) in [
        (
            "https://a.db.test:5432/",
            "passed on by host `named`, as it is, to Upstream/default/one",
        ),
        (
            "http://a.db.test:5432/",
            "passed on by host `rest`, as it is, to Upstream/default/two",
        ),
        ("http://a.db.test:5433/", "no listener takes it"),
    ] {
        let output = limiterd(&["explain", "--config", &dir, "GET", url])?;
        let said = String::from_utf8(output.stdout)?;
        assert!(output.status.success() && said.contains(wanted), "{said}");
    }
    Ok(())
}
