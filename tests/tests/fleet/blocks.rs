//! What one node blocks, all block.

use anyhow::{Context as _, Result};
use tests::daemon::eventually;
use tests::netns::Netns;
use tests::redis::Redis;

use crate::support::{Bare, CLIENT, Gateway, blocked, limiterd, told, until_blocked, until_nodes};

const FOR: [&str; 2] = ["--for", "10m"];

fn block(netns: &Netns, cidr: &str, more: &[&str]) -> Result<String> {
    told(netns, &[&["block", cidr][..], &FOR, more].concat())
}

#[test]
fn a_block_is_dropped_on_every_node_until_it_is_lifted_on_any() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let first = Gateway::start(&redis.url())?;
    let second = Gateway::start(&redis.url())?;
    let bare = Bare::start(&redis.url())?;
    for node in [first.netns(), second.netns(), &bare.netns] {
        until_nodes(node, 3)?;
    }
    first.passes()?;
    second.passes()?;

    // A node without a kernel half tells the others.
    let net = "10.77.1.0/24";
    let text = block(&bare.netns, net, &["--reason", "stuffing credentials"])?;
    assert!(
        text.starts_with(net) && text.contains("left, fleet,"),
        "{text}"
    );
    first.until_dropped()?;
    second.until_dropped()?;
    let told_there = blocked(second.netns(), net)?.context("it is blocked")?;
    for (field, wanted) in [
        ("scope", "fleet"),
        ("why", "stuffing credentials"),
        ("rule", "manual"),
    ] {
        assert_eq!(told_there[field], wanted, "{told_there}");
    }
    assert_eq!(told_there["told"], true);
    assert!(!told_there["by"].as_str().context("by")?.is_empty());
    // All say the same: since when, until when, by whom and why, by the server's clock.
    for node in [first.netns(), &bare.netns] {
        let here = blocked(node, net)?.context("it is blocked")?;
        for field in ["since", "until", "by", "why", "rule", "scope"] {
            assert_eq!(here[field], told_there[field], "{field}");
        }
    }
    assert!(
        second.log().contains("stuffing credentials"),
        "{}",
        second.log()
    );

    // Again, and for a shorter time: the same block.
    block(first.netns(), net, &[])?;
    told(first.netns(), &["block", net, "--for", "1m"])?;
    assert_eq!(redis.ask(&["HLEN", "limiterd:{fleet}blocks"])?, "1");
    let left = blocked(first.netns(), net)?.context("it is blocked")?;
    assert!(left["seconds_left"].as_u64() > Some(60), "{left}");

    told(second.netns(), &["unblock", net])?;
    for gateway in [&first, &second] {
        until_blocked(gateway.netns(), net, false)?;
        gateway.passes()?;
    }
    assert_eq!(redis.ask(&["HLEN", "limiterd:{fleet}blocks"])?, "0");
    let (well, text) = limiterd(&bare.netns, &["unblock", net])?;
    assert!(!well && text.contains("is not blocked"), "{text}");
    Ok(())
}

#[test]
fn a_block_of_one_node_is_nobody_elses() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let first = Gateway::start(&redis.url())?;
    let second = Gateway::start(&redis.url())?;
    until_nodes(first.netns(), 2)?;
    let text = block(first.netns(), CLIENT, &["--node"])?;
    assert!(text.contains("left, node,"), "{text}");
    first.until_dropped()?;
    // What came after it has arrived, and it has not.
    block(first.netns(), "198.51.100.0/24", &[])?;
    until_blocked(second.netns(), "198.51.100.0/24", true)?;
    assert_eq!(blocked(second.netns(), "10.77.1.2/32")?, None);
    second.passes()?;

    let (well, text) = limiterd(second.netns(), &["unblock", "198.51.100.0/24", "--node"])?;
    assert!(!well && text.contains("without --node"), "{text}");
    let (well, text) = limiterd(second.netns(), &["unblock", CLIENT])?;
    assert!(!well && text.contains("is not blocked"), "{text}");

    // Both block it: lifting the fleet's wider block leaves the node's.
    block(second.netns(), "10.77.1.0/24", &[])?;
    until_blocked(first.netns(), "10.77.1.0/24", true)?;
    told(first.netns(), &["unblock", "10.77.1.0/24"])?;
    first.until_dropped()?;
    until_blocked(second.netns(), "10.77.1.0/24", false)?;
    second.passes()?;
    told(first.netns(), &["unblock", CLIENT, "--node"])?;
    first.passes()
}

#[test]
fn a_node_without_a_kernel_half_blocks_nothing_for_itself() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let bare = Bare::start(&redis.url())?;
    for (args, wanted) in [
        (
            &["block", CLIENT, "--for", "1m", "--node"][..],
            "no kernel half",
        ),
        (
            &["block", CLIENT, "--for", "1m", "--reason", "a\nb"],
            "on one line",
        ),
        (&["block", "0.0.0.0/0", "--for", "1m"], "is everybody"),
    ] {
        let (well, text) = limiterd(&bare.netns, args)?;
        assert!(!well && text.contains(wanted), "{args:?}: {text}");
    }
    Ok(())
}

#[test]
fn a_daemon_that_was_down_catches_up() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let mut away = Gateway::start(&redis.url())?;
    let bare = Bare::start(&redis.url())?;
    until_nodes(&bare.netns, 2)?;
    for cidr in ["198.51.100.1/32", "198.51.100.2/32"] {
        block(&bare.netns, cidr, &["--reason", "before"])?;
        until_blocked(away.netns(), cidr, true)?;
    }
    block(away.netns(), "203.0.113.1/32", &["--node"])?;
    away.take()?.kill()?;

    block(&bare.netns, CLIENT, &["--reason", "meanwhile"])?;
    told(&bare.netns, &["unblock", "198.51.100.1/32"])?;
    away.run()?;
    until_nodes(&bare.netns, 2)?;
    away.until_dropped()?;
    assert_eq!(blocked(away.netns(), "198.51.100.1/32")?, None);
    let kept = blocked(away.netns(), "198.51.100.2/32")?.context("kept")?;
    assert_eq!(kept["why"], "before");
    let own = blocked(away.netns(), "203.0.113.1/32")?.context("kept")?;
    assert_eq!(own["scope"], "node");
    let page = away
        .daemon
        .as_ref()
        .context("it runs")?
        .metrics(away.netns())?;
    // In the kernel lies what is told, once.
    assert_eq!(page.sum("limiterd_xdp_sentences", &[]), 3.0);
    assert_eq!(
        page.sum("limiterd_fleet_blocks", &[("scope", "fleet")]),
        2.0
    );
    assert_eq!(page.sum("limiterd_fleet_blocks", &[("scope", "node")]), 1.0);
    Ok(())
}

#[test]
fn events_that_are_gone_before_they_are_heard_are_noticed() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let slow = Bare::start(&redis.url())?;
    let bare = Bare::start(&redis.url())?;
    until_nodes(&bare.netns, 2)?;
    let process = &slow.daemon.as_ref().context("it runs")?.process;
    process.signal(rustix::process::Signal::STOP)?;
    // Nothing waits for an event any more.
    eventually("the question for events to be over", || {
        let clients = redis.ask(&["CLIENT", "LIST"])?;
        let waiting = clients
            .lines()
            .filter(|line| line.contains("cmd=xread") && line.contains("flags=b"));
        Ok((waiting.count() < 2).then_some(()))
    })?;
    block(&bare.netns, CLIENT, &[])?;
    redis.ask(&["XTRIM", "limiterd:{fleet}events", "MAXLEN", "0"])?;
    block(&bare.netns, "198.51.100.1/32", &[])?;
    process.signal(rustix::process::Signal::CONT)?;
    until_blocked(&slow.netns, "198.51.100.1/32", true)?;
    until_blocked(&slow.netns, "10.77.1.2/32", true)
}
