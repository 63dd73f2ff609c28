//! Who is alive.

use anyhow::{Context as _, Result};
use tests::daemon::Daemon;
use tests::netns::Netns;
use tests::redis::Redis;

use crate::support::{Bare, CLIENT, Gateway, blocked, fleet, told, until_nodes};

#[test]
fn nodes_come_go_and_die() -> Result<()> {
    let redis_netns = Netns::new("redis")?;
    let redis = Redis::start(&redis_netns)?;
    let mut nodes = (0..3)
        .map(|_| Bare::start(&redis.url()))
        .collect::<Result<Vec<_>>>()?;
    for node in &nodes {
        until_nodes(&node.netns, 3)?;
    }
    let here = fleet(&nodes[0].netns)?;
    let members = here["nodes"].as_array().context("nodes")?;
    let own = members.iter().filter(|node| node["here"] == true);
    assert_eq!(own.count(), 1);
    for member in members {
        assert_eq!(member["address"], tests::daemon::ADMIN);
        assert_eq!(member["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(member["id"].as_str().map(str::len), Some(32));
        let name = member["name"].as_str().context("name")?;
        assert!(!name.is_empty());
    }
    let text = told(&nodes[0].netns, &["status", "--fleet"])?;
    assert!(text.starts_with("3 nodes, 0 blocks"), "{text}");
    assert_eq!(text.matches("caught up").count(), 3, "{text}");
    assert_eq!(text.matches(", this node").count(), 1, "{text}");
    let text = told(&nodes[0].netns, &["status"])?;
    for part in [
        "well: limiterd ",
        "generation 1 ",
        "asked",
        "3 nodes alive",
        "0 by this node",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }

    // One that is killed says nothing any more; one that ends takes its leave.
    nodes[2].take()?.kill()?;
    until_nodes(&nodes[0].netns, 2)?;
    assert!(nodes[1].take()?.stop()?.success());
    assert_eq!(redis.ask(&["HLEN", "limiterd:{fleet}nodes"])?, "1");
    until_nodes(&nodes[0].netns, 1)?;
    let page = nodes[0]
        .daemon
        .as_ref()
        .context("it runs")?
        .metrics(&nodes[0].netns)?;
    assert_eq!(page.sum("limiterd_fleet_nodes", &[]), 1.0);
    assert_eq!(page.sum("limiterd_fleet_connected", &[]), 1.0);
    Ok(())
}

#[test]
fn a_process_that_takes_over_is_another_node_and_the_old_one_leaves() -> Result<()> {
    let redis_netns = Netns::new("redis")?;
    let redis = Redis::start(&redis_netns)?;
    let mut node = Bare::start(&redis.url())?;
    let id = |netns: &Netns| -> Result<String> {
        let fleet = fleet(netns)?;
        Ok(fleet["nodes"][0]["id"].as_str().context("id")?.to_owned())
    };
    until_nodes(&node.netns, 1)?;
    let before = id(&node.netns)?;
    node.replace()?;
    until_nodes(&node.netns, 1)?;
    assert_ne!(id(&node.netns)?, before);
    assert_eq!(redis.ask(&["HLEN", "limiterd:{fleet}nodes"])?, "1");
    Ok(())
}

#[test]
fn blocks_stay_whose_they_are_when_a_process_takes_over() -> Result<()> {
    let redis_netns = Netns::new("redis")?;
    let redis = Redis::start(&redis_netns)?;
    let mut gateway = Gateway::start(&redis.url())?;
    until_nodes(gateway.netns(), 1)?;
    let client = format!("{CLIENT}/32");
    told(
        gateway.netns(),
        &["block", CLIENT, "--for", "10m", "--reason", "why"],
    )?;
    told(
        gateway.netns(),
        &["block", "192.0.2.1", "--for", "10m", "--node"],
    )?;
    gateway.replace()?;
    until_nodes(gateway.netns(), 1)?;
    gateway.until_dropped()?;
    let fleets = blocked(gateway.netns(), &client)?.context("it is blocked")?;
    assert_eq!(
        (&fleets["scope"], &fleets["why"]),
        (&"fleet".into(), &"why".into())
    );
    let own = blocked(gateway.netns(), "192.0.2.1/32")?.context("it is blocked")?;
    assert_eq!(own["scope"], "node");
    told(gateway.netns(), &["unblock", CLIENT])?;
    gateway.passes()?;
    assert_eq!(redis.ask(&["HLEN", "limiterd:{fleet}blocks"])?, "0");
    Ok(())
}

#[test]
fn without_a_store_there_is_no_fleet() -> Result<()> {
    let netns = Netns::new("bare")?;
    let policies = tests::daemon::Policies::new(&[("gateway.yaml", tests::policies::GATEWAY)])?;
    let _daemon = Daemon::start(&netns, policies.path())?;
    let (well, text) = crate::support::limiterd(&netns, &["status", "--fleet"])?;
    assert!(
        !well && text.contains("no store that nodes share"),
        "{text}"
    );
    let text = told(&netns, &["status"])?;
    assert!(text.contains("none, each node counts for itself"), "{text}");
    let (well, text) = crate::support::limiterd(&netns, &["block", "192.0.2.1", "--for", "1m"])?;
    assert!(!well && text.contains("nothing can be blocked"), "{text}");
    Ok(())
}
