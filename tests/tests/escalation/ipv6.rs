//! Whoever has one address of a /64 has all of them.

use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};
use tests::daemon::eventually;

use crate::support::{CLEAR, Gateway, Setup, field, request, until_closed};

const ESCALATION: &str = "events: [{type: UpstreamStatus, statuses: [401]}], \
    threshold: {maxTokens: 2, tokensPerFill: 1, fillInterval: 1h}, blockFor: 10m";
const PATIENCE: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_millis(500);

#[test]
fn a_network_of_ipv6_is_one_client() -> Result<()> {
    let gateway = Gateway::start(&Setup {
        escalation: ESCALATION,
        ..Setup::default()
    })?;
    let client = &gateway.topology.first;
    // A network that the gateway has no address in.
    let addresses = [1, 2, 3].map(|last| Ipv6Addr::new(0xfd77, 9, 0, 0, 0, 0, 0, last));
    for address in addresses {
        let net = format!("{address}/64");
        client
            .netns
            .ip(&["addr", "add", &net, "dev", &client.interface, "nodad"])?;
    }
    gateway.netns().ip(&[
        "route",
        "add",
        "fd77:9::/64",
        "dev",
        &client.gateway_interface,
    ])?;
    let connects = |from: Ipv6Addr, patience| {
        client.netns.enter(|| {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(IpAddr::from(from), 0).into())?;
            let target = SocketAddr::new(IpAddr::from(client.gateway_v6), CLEAR);
            socket.connect_timeout(&target.into(), patience)?;
            Ok(TcpStream::from(socket))
        })
    };
    let guesses = |from: Ipv6Addr| -> Result<()> {
        let mut stream = connects(from, PATIENCE)?;
        let text = request("open.test", "/status/401", "connection: close\r\n");
        stream.write_all(text.as_bytes())?;
        until_closed(&stream)
    };

    // The gateway has an address in the first client's own network.
    for _ in 0..3 {
        guesses(client.v6)?;
    }
    gateway.until_logged(&["never sentenced", "net=fd77:1::/64", "3 UpstreamStatus in "])?;

    addresses.into_iter().try_for_each(guesses)?;
    let told = eventually("the sentence", || Ok(gateway.all_blocked()?.pop()));
    let told = told.with_context(|| gateway.log().unwrap_or_default())?;
    assert_eq!(field(&told, "cidr"), "fd77:9::/64", "{told}");
    assert!(
        field(&told, "why").starts_with("3 UpstreamStatus in "),
        "{told}"
    );
    for address in addresses {
        assert!(connects(address, SILENCE).is_err(), "{address}");
    }
    connects(client.v6, PATIENCE).map(drop)
}
