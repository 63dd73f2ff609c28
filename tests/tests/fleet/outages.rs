//! The store goes away, stands still, forgets: blocks hold, and reach the others when it is back.

use anyhow::{Context as _, Result};
use tests::netns::Netns;
use tests::redis::Redis;

use crate::support::{Bare, Gateway, blocked, fleet, told, until_blocked, until_nodes};

const CLIENTS: &str = "10.77.1.0/24";

fn block(netns: &Netns, cidr: &str) -> Result<String> {
    told(netns, &["block", cidr, "--for", "10m"])
}

/// Waits until the node in `netns` knows that it is cut off.
fn until_cut_off(netns: &Netns) -> Result<()> {
    tests::daemon::eventually("the node to be cut off", || {
        Ok((fleet(netns)?["connected"] == false).then_some(()))
    })
}

#[test]
fn a_store_that_is_killed_and_comes_back_empty() -> Result<()> {
    let redis_netns = Netns::new("redis")?;
    let mut redis = Redis::start(&redis_netns)?;
    let gateway = Gateway::start(&redis.url())?;
    let bare = Bare::start(&redis.url())?;
    until_nodes(gateway.netns(), 2)?;
    block(gateway.netns(), "198.51.100.1/32")?;
    block(gateway.netns(), "198.51.100.2/32")?;
    until_blocked(&bare.netns, "198.51.100.2/32", true)?;

    redis.kill()?;
    until_cut_off(gateway.netns())?;
    until_cut_off(&bare.netns)?;
    let text = block(gateway.netns(), CLIENTS)?;
    assert!(
        text.contains("done on this node; the store does not answer"),
        "{text}"
    );
    assert!(text.contains("fleet, not told yet"), "{text}");
    gateway.until_dropped()?;
    let text = told(&bare.netns, &["unblock", "198.51.100.2/32"])?;
    assert!(text.contains("done on this node"), "{text}");
    let unsent = blocked(gateway.netns(), CLIENTS)?.context("it is blocked")?;
    assert_eq!(unsent["told"], false);
    // How many there are is as it was.
    let page = gateway
        .daemon
        .as_ref()
        .context("it runs")?
        .metrics(gateway.netns())?;
    assert_eq!(page.sum("limiterd_fleet_nodes", &[]), 2.0);
    assert_eq!(page.sum("limiterd_fleet_connected", &[]), 0.0);

    redis.begin(&redis_netns)?;
    until_nodes(gateway.netns(), 2)?;
    until_blocked(&bare.netns, CLIENTS, true)?;
    // What it had forgotten it was told again.
    until_blocked(&bare.netns, "198.51.100.1/32", true)?;
    let told_again = || redis.ask(&["HEXISTS", "limiterd:{fleet}blocks", "198.51.100.1/32"]);
    assert_eq!(told_again()?, "1");
    let sent = blocked(gateway.netns(), CLIENTS)?.context("it is blocked")?;
    assert_eq!(sent["told"], true);
    gateway.until_dropped()?;
    told(&bare.netns, &["unblock", CLIENTS])?;
    until_blocked(gateway.netns(), CLIENTS, false)?;
    gateway.passes()
}

#[test]
fn a_store_that_stands_still_and_goes_on() -> Result<()> {
    let redis_netns = Netns::new("redis")?;
    let redis = Redis::start(&redis_netns)?;
    let gateway = Gateway::start(&redis.url())?;
    let bare = Bare::start(&redis.url())?;
    until_nodes(gateway.netns(), 2)?;
    block(gateway.netns(), "198.51.100.1/32")?;
    block(gateway.netns(), "198.51.100.2/32")?;
    until_blocked(&bare.netns, "198.51.100.2/32", true)?;

    redis.freeze()?;
    block(gateway.netns(), CLIENTS)?;
    gateway.until_dropped()?;
    told(gateway.netns(), &["unblock", "198.51.100.1/32"])?;
    until_cut_off(&bare.netns)?;
    redis.thaw()?;
    until_blocked(&bare.netns, CLIENTS, true)?;
    until_blocked(&bare.netns, "198.51.100.1/32", false)?;
    // What nobody changed stays as it was.
    until_nodes(gateway.netns(), 2)?;
    for node in [gateway.netns(), &bare.netns] {
        assert!(blocked(node, "198.51.100.2/32")?.is_some());
    }
    Ok(())
}

#[test]
fn a_store_that_is_emptied_while_it_runs() -> Result<()> {
    let redis_netns = Netns::new("redis")?;
    let redis = Redis::start(&redis_netns)?;
    let gateway = Gateway::start(&redis.url())?;
    let bare = Bare::start(&redis.url())?;
    until_nodes(gateway.netns(), 2)?;
    block(gateway.netns(), CLIENTS)?;
    until_blocked(&bare.netns, CLIENTS, true)?;
    redis.ask(&["FLUSHALL"])?;
    redis.ask(&["SCRIPT", "FLUSH"])?;
    tests::daemon::eventually("the block to be told again", || {
        let known = redis.ask(&["HEXISTS", "limiterd:{fleet}blocks", CLIENTS])?;
        Ok((known == "1").then_some(()))
    })?;
    gateway.until_dropped()?;
    until_nodes(gateway.netns(), 2)?;
    assert!(blocked(&bare.netns, CLIENTS)?.is_some());
    Ok(())
}

#[test]
fn a_block_that_nobody_was_told_of_outlives_the_daemon() -> Result<()> {
    let redis_netns = Netns::new("redis")?;
    let mut redis = Redis::start(&redis_netns)?;
    let mut gateway = Gateway::start(&redis.url())?;
    let bare = Bare::start(&redis.url())?;
    until_nodes(gateway.netns(), 2)?;
    redis.kill()?;
    until_cut_off(gateway.netns())?;
    block(gateway.netns(), CLIENTS)?;
    gateway.take()?.kill()?;
    gateway.run()?;
    gateway.until_dropped()?;
    redis.begin(&redis_netns)?;
    until_blocked(&bare.netns, CLIENTS, true)
}
