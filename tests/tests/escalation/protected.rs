//! Who is never sentenced, and who cannot get anybody sentenced.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use etherparse::PacketBuilder;
use socket2::{Domain, Protocol, Socket, Type};
use tests::daemon::eventually;
use tests::netns::Netns;
use tests::redis::Redis;
use tests::topology::Topology;

use crate::support::{CLEAR, Gateway, Peer, Setup, field, for_clients, request, until_closed};

const ESCALATION: &str = "events: [{type: MalformedRequest}, {type: RateLimited}], \
    threshold: {maxTokens: 2, tokensPerFill: 1, fillInterval: 1h}, blockFor: 10m";
const TOO_MANY: usize = 3;
const BAD: &str = "GET / HTTP/1.1\r\nno colon\r\n\r\n";

/// Listeners where the peer is not always the client.
const CIDRS: u16 = 8081;
const PROXIED: u16 = 8082;
const HOPS: u16 = 8083;
const HEADER: u16 = 8084;
const LISTENERS: &str = "  - {name: cidrs, protocol: HTTP, port: 8081}
  - {name: proxied, protocol: HTTP, port: 8082}
  - {name: hops, protocol: HTTP, port: 8083}
  - {name: header, protocol: HTTP, port: 8084}";
const CLIENTS: &[(&str, &str)] = &[
    (
        "cidrs",
        "  clientIPDetection: {xForwardedFor: {trustedCIDRs: [10.77.1.21/32]}}",
    ),
    ("proxied", "  proxyProtocol: {optional: true}"),
    (
        "hops",
        "  clientIPDetection: {xForwardedFor: {numTrustedHops: 1}}",
    ),
    (
        "header",
        "  clientIPDetection: {customHeader: {name: x-real}}",
    ),
];

/// Sends this, and waits until the connection is closed.
fn says(peer: &Peer<'_>, port: u16, text: &str) -> Result<()> {
    let mut stream = peer.tcp(port)?;
    stream.write_all(text.as_bytes())?;
    until_closed(&stream)
}

/// Offends over and over.
fn offends(peer: &Peer<'_>, port: u16, text: &str) -> Result<()> {
    (0..=TOO_MANY).try_for_each(|_| says(peer, port, text))
}

#[test]
fn those_whom_the_gateway_needs_are_never_sentenced() -> Result<()> {
    let topology = Topology::new()?;
    let store = Ipv4Addr::new(10, 77, 1, 30);
    let (client, interface) = (&topology.first.netns, &topology.first.interface);
    client.ip(&["addr", "add", &format!("{store}/24"), "dev", interface])?;
    let mut redis = Redis::absent(&["--bind", &store.to_string(), "--protected-mode", "no"])?;
    redis.begin(client)?;
    let clients = CLIENTS
        .iter()
        .map(|(listener, spec)| for_clients(listener, spec));
    let gateway = Gateway::on(
        topology,
        &Setup {
            escalation: ESCALATION,
            network: "  allow: [10.77.1.20/32]\n",
            listeners: LISTENERS,
            more: &clients.collect::<String>(),
            store: Some(&format!("redis://{store}:6379")),
            remote_upstream: true,
        },
    )?;

    let allowed = gateway.neighbour(20)?;
    let trusted = gateway.neighbour(21)?;
    let [by_protocol, by_hops, by_header] = [22, 23, 24].map(|last| gateway.neighbour(last));
    let (by_protocol, by_hops, by_header) = (by_protocol?, by_hops?, by_header?);
    // What comes of others is not theirs, also where it says nothing of others.
    let over = |port, headers: &str, peer: &Peer<'_>| {
        let close = format!("{headers}connection: close\r\n");
        (0..10).try_for_each(|_| says(peer, port, &request("limited.test", "/", &close)))
    };
    over(CIDRS, "x-forwarded-for: nobody, ???\r\n", &trusted)?;
    over(CIDRS, "", &trusted)?;
    offends(&trusted, CIDRS, BAD)?;
    let header = "PROXY TCP4 203.0.113.5 10.77.1.1 4000 8082\r\n";
    offends(&by_protocol, PROXIED, &format!("{header}{BAD}"))?;
    over(HOPS, "x-forwarded-for: ???\r\n", &by_hops)?;
    offends(&by_hops, HOPS, BAD)?;
    over(HEADER, "x-real: 203.0.113.6\r\n", &by_header)?;
    offends(&by_header, HEADER, BAD)?;
    ensure!(
        !gateway.log()?.contains("never sentenced"),
        "{}",
        gateway.log()?
    );

    // Where they would be clients, they are known.
    let everybody = [
        allowed,
        trusted,
        by_protocol,
        by_hops,
        by_header,
        gateway.known(30),
        gateway.second(),
        gateway.itself(gateway.topology.first.gateway_v4),
        gateway.itself(gateway.topology.second.gateway_v4),
        gateway.itself(Ipv4Addr::LOCALHOST),
    ];
    for peer in everybody {
        offends(&peer, CLEAR, BAD)?;
        let net = format!("net={}/32", peer.address);
        gateway.until_logged(&["never sentenced", &net, "MalformedRequest"])?;
    }
    for peer in everybody {
        peer.is_served()?;
    }
    let protected = f64::from(u8::try_from(everybody.len())?);
    assert_eq!(gateway.decided("protected")?, protected);
    // And others are not.
    let peer = gateway.neighbour(40)?;
    (0..TOO_MANY).try_for_each(|_| says(&peer, CLEAR, BAD))?;
    gateway.until_blocked(peer.address)?;
    assert_eq!(gateway.all_blocked()?.len(), 1);
    assert_eq!(gateway.decided("sentenced")?, 1.0);
    Ok(())
}

/// What somebody else sends in the name of `source`: connection attempts, and requests that are none
/// behind a handshake that was never completed.
fn in_the_name_of(source: Ipv4Addr, target: Ipv4Addr, netns: &Netns) -> Result<()> {
    netns.enter(|| {
        let socket = Socket::new(
            Domain::IPV4,
            Type::RAW,
            Some(Protocol::from(libc::IPPROTO_RAW)),
        )?;
        let to = SocketAddr::new(target.into(), 0).into();
        for port in 20_000..20_300 {
            let segment = |sequence| {
                let packet = PacketBuilder::ipv4(source.octets(), target.octets(), 64);
                packet.tcp(port, CLEAR, sequence, 1024)
            };
            let (mut attempt, mut words) = (Vec::new(), Vec::new());
            segment(1).syn().write(&mut attempt, &[])?;
            segment(2).ack(1).psh().write(&mut words, BAD.as_bytes())?;
            for packet in [&attempt, &words] {
                socket.send_to(packet, &to)?;
            }
        }
        Ok(())
    })
}

#[test]
fn nobody_is_sentenced_for_what_others_send_in_his_name() -> Result<()> {
    let gateway = Gateway::start(&Setup {
        escalation: ESCALATION,
        ..Setup::default()
    })?;
    let victim = gateway.known(50);
    let client = &gateway.topology.first;
    in_the_name_of(victim.address, client.gateway_v4, &client.netns)?;
    // All of it has come through the kernel half.
    let seen = || -> Result<f64> {
        let page = gateway.metrics()?;
        Ok(page.sum("limiterd_xdp_packets_total", &[("policy", "default/edge")]))
    };
    eventually("the packets", || Ok((seen()? >= 600.0).then_some(())))?;
    let victim = gateway.neighbour(50)?;
    for _ in 1..TOO_MANY {
        says(&victim, CLEAR, BAD)?;
    }
    victim.is_served()?;
    says(&victim, CLEAR, BAD)?;
    let told = gateway.until_blocked(victim.address)?;
    assert!(
        field(&told, "why").starts_with("3 MalformedRequest in "),
        "{told}"
    );
    Ok(())
}
