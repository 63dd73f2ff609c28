//! Promises under a flood of spoofed sources, on the program itself (`BPF_PROG_TEST_RUN`).

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use etherparse::PacketBuilder;
use limiter_common::{Limit, Protocol, Reason};
use limiter_daemon::l4::clock;
use limiter_daemon::l4::trial::{Action, Program, Settings, Trial};
use limiter_daemon::policy::plan::{NetworkLevel, NetworkPolicy, Scope, SourceLimits};

const PORT: u16 = 443;
const SECOND: u64 = 1_000_000_000;

/// 100 connections at once, then 10 a second, for each source.
fn policy() -> Result<NetworkPolicy> {
    let limit = Limit::new(100, 10, SECOND).map_err(|error| anyhow!("{error:?}"))?;
    let level = NetworkLevel {
        scope: Scope::Source { v4: 32, v6: 64 },
        connections: Some(limit),
        packets: None,
        bytes: None,
    };
    Ok(NetworkPolicy {
        name: "edge/flood".to_owned(),
        ports: vec![(Protocol::Tcp, PORT)],
        interfaces: Vec::new(),
        default: SourceLimits::Levels(vec![level]),
        rules: Vec::new(),
        allow: Vec::new(),
        deny: Vec::new(),
        shadow: false,
        written: None,
    })
}

fn trial(real_clock: bool) -> Result<Trial> {
    let settings = Settings {
        real_clock,
        // Every IPv4 packet gets a source of its own out of two thousand million.
        vary_sources: 1 << 31,
        ..Settings::default()
    };
    let mut trial = Trial::new(settings)?;
    trial.apply(&[policy()?])?;
    Ok(trial)
}

fn spoofed() -> Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([192, 0, 2, 1], [198, 51, 100, 1], 64)
        .tcp(40_000, PORT, 1, 1024)
        .syn();
    let mut packet = Vec::new();
    builder.write(&mut packet, &[])?;
    Ok(packet)
}

/// A SYN from an IPv6 source, which the trial leaves as it is.
fn honest(client: u16) -> Result<Vec<u8>> {
    let source = Ipv6Addr::new(0x2001, 0xdb8, client, 0, 0, 0, 0, 1);
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv6(source.octets(), [0xfd; 16], 64)
        .tcp(40_000, PORT, 1, 1024)
        .syn();
    let mut packet = Vec::new();
    builder.write(&mut packet, &[])?;
    Ok(packet)
}

fn passed(trial: &Trial, packet: &[u8]) -> Result<bool> {
    Ok(trial.run(Program::Limiter, packet, 1)?.action == Action::Pass)
}

/// Ten million sources, one packet each, while a hundred clients open five connections a second
/// each: the clients were there before, and keep at least 99 % of their connections.
#[test]
fn regular_clients_do_not_notice_ten_million_spoofed_sources() -> Result<()> {
    const CLIENTS: u16 = 100;
    const FLOOD: u32 = 10_000_000;
    const SLICE: u32 = 200_000;
    let trial = trial(true)?;
    let clients = (0..CLIENTS).map(honest).collect::<Result<Vec<_>>>()?;
    for client in &clients {
        assert!(passed(&trial, client)?);
    }
    let flood = spoofed()?;
    let over = AtomicBool::new(false);
    let (mut attempts, mut lost) = (0_u32, 0_u32);
    thread::scope(|scope| {
        let flooder = scope.spawn(|| {
            let result = (0..FLOOD / SLICE)
                .try_for_each(|_| trial.run(Program::Limiter, &flood, SLICE).map(drop));
            over.store(true, Ordering::Relaxed);
            result
        });
        while !over.load(Ordering::Relaxed) {
            for client in &clients {
                attempts += 1;
                lost += u32::from(!passed(&trial, client)?);
            }
            thread::sleep(Duration::from_millis(200));
        }
        flooder
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .context("the flood")
    })?;
    assert!(attempts >= u32::from(CLIENTS));
    assert!(
        lost * 100 <= attempts,
        "{lost} of {attempts} connections lost"
    );

    // Fixed memory: no place was taken from anybody who had come within the last minute.
    let pressure = trial.pressure()?;
    let occupancy = trial.occupancy(clock::now())?;
    assert_eq!(pressure.evicted, 0, "{pressure:?}");
    assert!(
        occupancy.live + occupancy.kept <= occupancy.slots,
        "{occupancy:?}"
    );
    assert!(
        pressure.sketched > u64::from(FLOOD) / 2,
        "the table was never full: {pressure:?}"
    );
    Ok(())
}

/// A source that found no place is limited all the same, and gets no second bucket when it does.
#[test]
fn a_newcomer_under_pressure_gets_one_bucket() -> Result<()> {
    let mut trial = trial(false)?;
    trial.set_clock(1_000 * SECOND)?;
    let table = trial.occupancy(0)?.slots;
    trial.run(Program::Limiter, &spoofed()?, u32::try_from(table * 8)?)?;
    let newcomer = honest(7)?;
    let admitted = |trial: &Trial| -> Result<usize> {
        let tries = (0..300).map(|_| passed(trial, &newcomer));
        Ok(tries
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .filter(|passed| *passed)
            .count())
    };
    let first = admitted(&trial)?;
    // Strangers may have used some of its cells' tokens; nobody can add any.
    assert!((90..=100).contains(&first), "{first}");
    // A minute and a bit later the table has room again. The bucket is full by then; not fuller.
    trial.set_clock(1_100 * SECOND)?;
    assert_eq!(admitted(&trial)?, 100);
    assert_eq!(admitted(&trial)?, 0);
    let source: IpAddr = "2001:db8:7::1".parse()?;
    let explained = trial.explain(source, Protocol::Tcp, PORT, 1_100 * SECOND)?;
    assert!(
        explained
            .policy
            .is_some_and(|policy| policy.buckets.iter().all(|b| !b.admits))
    );
    let denied = trial
        .counters()?
        .into_iter()
        .find(|c| c.reason == Reason::OverConnections);
    assert!(denied.is_some_and(|counter| counter.packets > 0));
    Ok(())
}

/// IPv4 lies mapped in the kernel's tries; a wide IPv6 network must not mean it.
#[test]
fn an_ipv6_network_means_ipv6_sources() -> Result<()> {
    let mut trial = Trial::new(Settings::default())?;
    for (deny, v4, v6) in [
        (&["::/1"][..], true, false),
        (&["::/1", "0.0.0.0/0"], false, false),
        (&["0.0.0.0/0"], false, true),
        (&["::/1", "192.0.2.0/24"], false, false),
        (&["::/1", "192.0.3.0/24"], true, false),
    ] {
        let deny = deny
            .iter()
            .map(|net| Ok(net.parse()?))
            .collect::<Result<_>>()?;
        trial.apply(&[NetworkPolicy { deny, ..policy()? }])?;
        assert_eq!(passed(&trial, &spoofed()?)?, v4);
        assert_eq!(passed(&trial, &honest(1)?)?, v6);
    }
    Ok(())
}
