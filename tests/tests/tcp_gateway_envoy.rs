//! Which host takes a connection: TCP gateways beside a real Envoy with the filter chains that Gloo
//! makes of them.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use anyhow::Result;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tests::daemon::{Daemon, Policies};
use tests::echo::echo;
use tests::envoy::Envoy;
use tests::netns::Netns;
use tests::raw::tcp;
use tests::tls::Authority;

/// Upstreams, by name, with their ports.
const UPSTREAMS: [(&str, u16); 4] = [
    ("one", 3001),
    ("two", 3002),
    ("three", 3003),
    ("four", 3004),
];
/// Names and where they lead.
const HOSTS: [(&str, &str); 4] = [
    ("x.a.test", "one"),
    ("*.a.test", "two"),
    ("*.deep.a.test", "three"),
    ("b.test", "three"),
];
/// With those hosts and one for all else; with those alone; by the name of the cluster.
const PORTS: [u16; 3] = [5001, 5002, 5003];
/// Envoy has them this much further on.
const ENVOY: u16 = 1000;

fn policies() -> Result<Policies> {
    let mut text = String::new();
    for (name, port) in UPSTREAMS {
        write!(
            text,
            "---\napiVersion: gloo.solo.io/v1\nkind: Upstream\nmetadata: {{name: {name}}}\n\
             spec: {{static: {{hosts: [{{addr: 127.0.0.1, port: {port}}}]}}}}\n"
        )?;
    }
    let named: Vec<_> = HOSTS
        .iter()
        .map(|(name, to)| {
            format!(
                "{{name: '{name}', sslConfig: {{sniDomains: ['{name}']}}, \
                 destination: {{single: {{upstream: {{name: {to}}}}}}}}}"
            )
        })
        .collect();
    let named = named.join(", ");
    let all = "{name: rest, destination: {single: {upstream: {name: four}}}}";
    let by_name = "{name: cluster, destination: {forwardSniClusterName: {}}}";
    let [with, without, clusters] = PORTS;
    for (port, hosts) in [
        (with, format!("{all}, {named}")),
        (without, named),
        (clusters, by_name.to_owned()),
    ] {
        write!(
            text,
            "---\napiVersion: gateway.solo.io/v1\nkind: Gateway\nmetadata: {{name: p{port}}}\n\
             spec: {{bindPort: {port}, tcpGateway: {{tcpHosts: [{hosts}]}}}}\n"
        )?;
    }
    Policies::new(&[("all.yaml", &text)])
}

fn chain(matches: &str, before: &str, cluster: &str) -> String {
    format!(
        "
    - {matches}filters:{before}
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: '{cluster}'"
    )
}

fn envoy_config() -> Result<String> {
    let named = HOSTS.iter().map(|(name, to)| {
        let matches = format!("filter_chain_match: {{server_names: ['{name}']}}\n      ");
        chain(&matches, "", &format!("{to}_default"))
    });
    let named: String = named.collect();
    let sni_cluster = "
      - name: envoy.filters.network.sni_cluster
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.sni_cluster.v3.SniCluster";
    let [with, without, clusters] = PORTS;
    let mut text = String::from("static_resources:\n  listeners:");
    for (port, chains) in [
        (with, chain("", "", "four_default") + &named),
        (without, named),
        (clusters, chain("", sni_cluster, "none")),
    ] {
        let port = port + ENVOY;
        write!(
            text,
            "
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    listener_filters:
    - name: envoy.filters.listener.tls_inspector
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector
    filter_chains:{chains}"
        )?;
    }
    text.push_str("\n  clusters:");
    for (name, port) in UPSTREAMS {
        write!(
            text,
            "
  - name: {name}_default
    load_assignment:
      cluster_name: {name}_default
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]"
        )?;
    }
    text.push('\n');
    Ok(text)
}

/// What a client begins with that asks for `name`.
fn hello(authority: &Authority, name: &str) -> Result<Vec<u8>> {
    let name = ServerName::try_from(name.to_owned())?;
    let mut client = ClientConnection::new(authority.client(&["h2"])?, name)?;
    let mut sent = Vec::new();
    client.write_tls(&mut sent)?;
    Ok(sent)
}

/// Everything that comes back for `pieces`, whose sender says nothing after them; empty: closed.
fn talk(netns: &Netns, port: u16, pieces: &[&[u8]]) -> Result<Vec<u8>> {
    let mut stream = tcp(netns, &format!("127.0.0.1:{port}"))?;
    let mut heard = Vec::new();
    match exchange(&mut stream, pieces, &mut heard) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error.into()),
        _ => Ok(heard),
    }
}

fn exchange(
    stream: &mut TcpStream,
    pieces: &[&[u8]],
    heard: &mut Vec<u8>,
) -> std::io::Result<usize> {
    for piece in pieces {
        stream.write_all(piece)?;
    }
    // Envoy, where it looks for TLS, drops a client that ends before it was looked at.
    if (&*stream).take(1).read_to_end(heard)? == 1 {
        stream.shutdown(Shutdown::Write)?;
    }
    stream.read_to_end(heard)
}

#[test]
fn the_hosts_that_take_connections_are_those_of_envoy() -> Result<()> {
    let netns = Netns::new("tcpenvoy")?;
    for (name, port) in UPSTREAMS {
        echo(&netns, &format!("127.0.0.1:{port}"), name, None)?;
    }
    let policies = policies()?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let _envoy = Envoy::start(&netns, &envoy_config()?)?;
    let authority = Authority::new()?;
    let mut tried: Vec<(String, Vec<u8>)> = vec![("clear text".into(), b"HELO there\r\n".into())];
    for name in [
        "x.a.test",
        "X.A.Test",
        "y.a.test",
        "z.y.a.test",
        "q.deep.a.test",
        "r.q.deep.a.test",
        "deep.a.test",
        "a.test",
        "b.test",
        "sub.b.test",
        "other.test",
        "one_default",
        "three_default",
        "five_default",
        // Without a name.
        "192.0.2.1",
    ] {
        tried.push((name.into(), hello(&authority, name)?));
    }
    let mut taken = 0;
    for (what, sent) in &tried {
        let (head, tail) = sent.split_at(sent.len() / 2);
        for port in PORTS {
            let wanted = talk(&netns, port + ENVOY, &[sent])?;
            for pieces in [&[sent.as_slice()][..], &[head, tail]] {
                let heard = talk(&netns, port, pieces)?;
                let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                assert!(
                    heard == wanted,
                    "{what} at {port}: {:?}, not {:?}",
                    shown(&heard),
                    shown(&wanted)
                );
            }
            if !wanted.is_empty() {
                assert!(
                    wanted.ends_with(sent),
                    "{what} at {port} is not passed on as it was"
                );
                taken += 1;
            }
        }
    }
    // All of them, those that the hosts are for, and two clusters.
    assert_eq!(taken, tried.len() + 8 + 2);
    assert!(daemon.stop()?.success());
    Ok(())
}
