//! `block`, `unblock`, `blocked`, `l4 explain` and `l4 top` against a running daemon.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::Result;
use tests::daemon::{Daemon, Policies, binary, eventually};
use tests::flood::syns;
use tests::netns::Netns;
use tests::policies::{GATEWAY, config, network};
use tests::topology::Topology;

const TEN: &str = "  connections: {maxTokens: 10, tokensPerFill: 1, fillInterval: 1h}\n";

fn limiterd(netns: &Netns, args: &[&str]) -> Result<(bool, String)> {
    let Output {
        status,
        stdout,
        stderr,
    } = netns.enter(|| Ok(Command::new(binary()).args(args).output()?))?;
    let text = String::from_utf8(stdout)? + &String::from_utf8(stderr)?;
    Ok((status.success(), text))
}

#[test]
fn a_sentence_is_passed_told_and_lifted() -> Result<()> {
    let topology = Topology::new()?;
    let (gateway, client) = (&topology.gateway, &topology.first);
    let pins = topology.pins();
    let policies = Policies::new(&[
        (
            "limiterd.yaml",
            &config(&[&client.gateway_interface], &pins, "Detach"),
        ),
        ("gateway.yaml", GATEWAY),
        ("network.yaml", &network("edge", TEN)),
    ])?;
    let daemon = Daemon::start(gateway, policies.path())?;
    let address = client.v4.to_string();
    let explain = || limiterd(gateway, &["l4", "explain", &address, "--port", "8080"]);

    assert!(client.let_in(8080)?);
    let (_, text) = explain()?;
    assert!(text.contains("passes; its buckets have tokens"), "{text}");
    assert!(text.contains("connections: 9 of 10 tokens left"), "{text}");

    let (ok, text) = limiterd(gateway, &["block", "10.77.1.0/24", "--for", "10m"])?;
    assert!(
        ok && text.starts_with("10.77.1.0/24") && text.contains("left"),
        "{text}"
    );
    assert!(client.kept_out(8080)?);
    assert!(explain()?.1.contains("is dropped; it serves a sentence"));
    let (_, text) = limiterd(gateway, &["blocked"])?;
    assert!(text.starts_with("10.77.1.0/24"), "{text}");
    let (_, text) = limiterd(gateway, &["audit"])?;
    let deed = "done  address 127.0.0.1: block 10.77.1.0/24 for 600 s on this node";
    assert!(text.contains(deed), "{text}");
    assert!(
        daemon
            .metrics(gateway)?
            .packets("default/edge", "sentenced")
            >= 1.0
    );

    // Sampled drops name the source.
    eventually("the offender to be told", || {
        let (_, text) = limiterd(gateway, &["l4", "top", "--once"])?;
        let line = text.lines().find(|line| line.starts_with(&address));
        let told = |line: &str| line.contains("sentenced") && line.contains("9 of 10 connections");
        Ok(line.is_some_and(told).then_some(()))
    })?;

    let (ok, text) = limiterd(gateway, &["unblock", "10.77.1.0/24"])?;
    assert!(ok && text.contains("is not blocked any more"), "{text}");
    let (_, text) = limiterd(gateway, &["blocked"])?;
    assert!(text.contains("nobody is blocked"), "{text}");
    assert!(client.let_in(8080)?);
    assert!(daemon.stop()?.success());
    Ok(())
}

#[test]
fn the_table_of_offenders_tells_drops_and_tokens_left() -> Result<()> {
    const SYNS: u16 = 30_000;
    let topology = Topology::new()?;
    let (gateway, client) = (&topology.gateway, &topology.first);
    let pins = topology.pins();
    let policies = Policies::new(&[
        (
            "limiterd.yaml",
            &config(&[&client.gateway_interface], &pins, "Detach"),
        ),
        ("gateway.yaml", GATEWAY),
        ("network.yaml", &network("edge", TEN)),
    ])?;
    let daemon = Daemon::start(gateway, policies.path())?;
    let target = SocketAddr::new(client.gateway_v4.into(), 8080);
    let address = client.v4.to_string();
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let time = Duration::from_secs(10);
            let flood = || syns(client.v4.into(), target, SYNS, time);
            client.netns.enter(flood)
        });
        eventually("the flood to be told", || {
            let (_, text) = limiterd(gateway, &["l4", "top", "--once"])?;
            let Some(line) = text.lines().find(|line| line.starts_with(&address)) else {
                return Ok(None);
            };
            let words: Vec<_> = line.split_whitespace().collect();
            let [_, drops, samples, rest @ ..] = words.as_slice() else {
                anyhow::bail!("{text}");
            };
            assert_eq!(rest[..4], ["0", "of", "10", "connections"], "{text}");
            let (drops, samples): (u64, u64) = (drops.parse()?, samples.parse()?);
            assert!(
                drops <= u64::from(SYNS) && samples <= u64::from(SYNS),
                "{text}"
            );
            Ok((drops > 0).then_some(()))
        })?;
        flood
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .map(drop)
    })?;
    assert!(daemon.stop()?.success());
    Ok(())
}

#[test]
fn bad_sentences_are_refused_with_a_remedy() -> Result<()> {
    let topology = Topology::new()?;
    let gateway = &topology.gateway;
    let pins = topology.pins();
    let policies = Policies::new(&[
        (
            "limiterd.yaml",
            &config(&[&topology.first.gateway_interface], &pins, "Detach"),
        ),
        ("gateway.yaml", GATEWAY),
        ("network.yaml", &network("edge", TEN)),
    ])?;
    let _daemon = Daemon::start(gateway, policies.path())?;
    for (args, wanted) in [
        (
            &["block", "10.0.0.1/8", "--for", "1m"][..],
            "write 10.0.0.0/8",
        ),
        (&["block", "0.0.0.0/0", "--for", "1m"], "is everybody"),
        (&["block", "nobody", "--for", "1m"], "write an address"),
        (&["block", "10.0.0.1", "--for", "0s"], "seconds: from 1"),
        (&["block", "10.0.0.1", "--for", "soon"], "write it as 30s"),
        (&["unblock", "10.0.0.1"], "10.0.0.1/32 is not blocked"),
        (&["blocked", "--admin", "127.0.0.1:1"], "is it running?"),
        (
            &["l4", "explain", "10.0.0.1", "--protocol", "sctp"],
            "tcp, udp or icmp",
        ),
    ] {
        let (ok, text) = limiterd(gateway, args)?;
        assert!(!ok && text.contains(wanted), "{args:?}: {text}");
    }
    Ok(())
}
