//! A user of the store with the commands that the documents name, and one without those of the fleet.

use anyhow::Result;
use tests::daemon::eventually;
use tests::netns::Netns;
use tests::redis::Redis;

use crate::support::{Bare, blocked, fleet, told, until_nodes};

const LIMITS: &str = "evalsha eval script|load time get set del hello select";
const FLEET: &str = "hget hset hdel hexists hlen hgetall hscan zadd zrem zscore zcard zrange \
                     zrangebyscore xadd xread xrevrange incr pexpire";

fn server(netns: &Netns, commands: &str) -> Result<Redis> {
    let allowed: Vec<_> = commands
        .split_whitespace()
        .map(|command| format!("+{command}"))
        .collect();
    let mut acl = vec!["--user", "limiter", "on", ">s3cret", "~limiterd:*"];
    acl.extend(allowed.iter().map(String::as_str));
    let mut redis = Redis::absent(&acl)?;
    redis.begin(netns)?;
    Ok(redis)
}

/// As the server puts it.
const WHY: &str = "executing the script";

const URL: &str = "redis://limiter:s3cret@127.0.0.1:6379";

#[test]
fn the_commands_of_the_documents_are_enough() -> Result<()> {
    let netns = Netns::new("node")?;
    let redis = server(&netns, &format!("{LIMITS} {FLEET}"))?;
    let node = Bare::inside(netns, URL)?;
    until_nodes(&node.netns, 1)?;
    let text = told(&node.netns, &["block", "192.0.2.1", "--for", "1m"])?;
    assert!(text.starts_with("192.0.2.1/32 "), "{text}");
    told(&node.netns, &["block", "192.0.2.1", "--for", "2m"])?;
    told(&node.netns, &["block", "192.0.2.2", "--for", "1s"])?;
    assert_eq!(redis.ask(&["HLEN", "limiterd:{fleet}blocks"])?, "2");
    // What is over is removed.
    eventually("a block to be over", || {
        let left = redis.ask(&["HLEN", "limiterd:{fleet}blocks"])?;
        Ok((left == "1").then_some(()))
    })?;
    told(&node.netns, &["unblock", "192.0.2.1"])?;
    assert_eq!(redis.ask(&["HLEN", "limiterd:{fleet}blocks"])?, "0");
    assert_eq!(redis.ask(&["ZCARD", "limiterd:{fleet}ends"])?, "0");
    Ok(())
}

#[test]
fn without_those_of_the_fleet_blocks_are_for_the_node() -> Result<()> {
    let netns = Netns::new("node")?;
    let _redis = server(&netns, LIMITS)?;
    let node = Bare::inside(netns, URL)?;
    let text = told(&node.netns, &["block", "192.0.2.1", "--for", "1m"])?;
    assert!(text.contains("done on this node"), "{text}");
    assert!(blocked(&node.netns, "192.0.2.1/32")?.is_some());
    eventually("the reason to be known", || {
        let fleet = fleet(&node.netns)?;
        let away = fleet["away"].as_str().unwrap_or_default();
        let log = node.log();
        let told = log.contains("the fleet cannot be reached") && log.contains(WHY);
        Ok((fleet["connected"] == false && away.contains(WHY) && told).then_some(()))
    })
}
