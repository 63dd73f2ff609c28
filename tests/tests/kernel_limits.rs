//! Kernel limits on real wires: a flooder and a well-behaved client, each in a namespace of its own.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use tests::capture::Capture;
use tests::daemon::{Daemon, Policies, demo_backend};
use tests::flood::{FIRST_PORT, syns};
use tests::policies::{GATEWAY, config, network, route};
use tests::topology::{Client, Topology};

const LIMITS: &str = "  connections: {maxTokens: 100, tokensPerFill: 10, fillInterval: 1s}\n";
const ATTEMPTS: u16 = 10_000;

fn flood_and_serve(v6: bool) -> Result<()> {
    let topology = Topology::new()?;
    let Topology {
        gateway,
        first: flooder,
        second: calm,
    } = &topology;
    let _backend = demo_backend(gateway)?;
    let interfaces = [
        flooder.gateway_interface.as_str(),
        calm.gateway_interface.as_str(),
    ];
    let pins = topology.pins();
    let policies = Policies::new(&[
        ("limiterd.yaml", &config(&interfaces, &pins, "Detach")),
        ("gateway.yaml", GATEWAY),
        ("route.yaml", &route("api", "/")),
        ("network.yaml", &network("edge", LIMITS)),
    ])?;
    let daemon = Daemon::start(gateway, policies.path())?;

    let capture = Capture::start(&flooder.netns, &flooder.interface)?;
    let (took, served) = thread::scope(|scope| {
        let calm = scope.spawn(|| connections(calm, v6, 8, Duration::from_millis(200)));
        let target = SocketAddr::new(flooder.gateway(v6), 8080);
        let source: IpAddr = if v6 {
            flooder.v6.into()
        } else {
            flooder.v4.into()
        };
        let took = flooder
            .netns
            .enter(|| syns(source, target, ATTEMPTS, Duration::from_secs(1)));
        (
            took,
            calm.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        )
    });
    let (took, served) = (took?, served?);
    let seen = capture.stop()?;
    // A slow machine's veth may have no room for some of them, and for RSTs of the flooder's kernel.
    let unsent = flooder.netns.unsent(&flooder.interface)?;
    let page = daemon.metrics(gateway)?;

    // 100 at once and 10 a second after: 111 within the second that the flood is meant to take.
    let refilled = usize::try_from(took.as_millis() / 100)? + 1;
    let passed = seen.accepted.len();
    assert!(
        (100..=100 + refilled).contains(&passed),
        "{passed} passed in {took:?}"
    );
    assert_eq!(served, 8, "the well-behaved client lost connections");

    // Silence: no RST and no ICMP for the others, and every packet is counted.
    assert!(seen.reset.is_empty(), "RST to {:?}", seen.reset);
    assert_eq!(seen.icmp_errors, 0);
    let last = FIRST_PORT + ATTEMPTS;
    assert!(
        seen.accepted
            .iter()
            .all(|port| (FIRST_PORT..last).contains(port))
    );
    let dropped = page.packets("default/edge", "over_connections");
    let counted = dropped + passed as f64;
    let all = f64::from(ATTEMPTS);
    assert!(
        (all - unsent as f64..=all).contains(&counted),
        "{dropped} dropped, {passed} passed, {unsent} not sent"
    );
    assert!(daemon.stop()?.success());
    assert!(!pins.exist(), "pins are left behind");
    Ok(())
}

/// Opens `count` connections, one every `interval`; how many were accepted.
fn connections(client: &Client, v6: bool, count: usize, interval: Duration) -> Result<usize> {
    let target = SocketAddr::new(client.gateway(v6), 8080);
    client.netns.enter(|| {
        let attempts = (0..count).map(|_| {
            let accepted = TcpStream::connect_timeout(&target, Duration::from_secs(10)).is_ok();
            thread::sleep(interval);
            accepted
        });
        Ok(attempts.filter(|accepted| *accepted).count())
    })
}

#[test]
fn a_flooder_gets_its_bucket_and_silence_and_others_lose_nothing() -> Result<()> {
    flood_and_serve(false)
}

#[test]
fn the_same_over_ipv6() -> Result<()> {
    flood_and_serve(true)
}

#[test]
fn a_port_that_no_policy_targets_is_untouched() -> Result<()> {
    let topology = Topology::new()?;
    let Topology {
        gateway,
        first: client,
        ..
    } = &topology;
    let tight = "  connections: {maxTokens: 2, tokensPerFill: 1, fillInterval: 1h}\n";
    let pins = topology.pins();
    let policies = Policies::new(&[
        (
            "limiterd.yaml",
            &config(&[&client.gateway_interface], &pins, "Detach"),
        ),
        ("gateway.yaml", GATEWAY),
        ("network.yaml", &network("edge", tight)),
    ])?;
    let daemon = Daemon::start(gateway, policies.path())?;
    let other = gateway.enter(|| Ok(std::net::TcpListener::bind((client.gateway_v4, 2222))?))?;
    for _ in 0..50 {
        assert!(client.let_in(2222)?);
        drop(other.accept()?);
    }
    assert!(client.let_in(8080)?);
    assert!(client.let_in(8080)?);
    assert!(client.kept_out(8080)?);
    assert!(client.let_in(2222)?);
    let page = daemon.metrics(gateway)?;
    assert!(page.packets("default/edge", "over_connections") >= 1.0);
    assert!(page.packets("", "untargeted") >= 51.0);
    Ok(())
}
