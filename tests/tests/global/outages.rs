//! A store that is not there, goes away, stands still, comes back empty: what holds then.

use anyhow::Result;
use tests::netns::Netns;
use tests::policies::limited_host;
use tests::redis::Redis;

use crate::support::{Node, PATIENT, recovered};

/// A host for each answer to a store that fails.
fn policies() -> String {
    let host = |name, mode| {
        let rule =
            format!("limit: {{requests: 10, unit: Day}}, limiterd: {{onStoreFailure: {mode}}}");
        limited_host(name, &format!("global: {{rules: [{{{rule}}}]}}"))
    };
    [
        host("local", "Local"),
        host("allow", "Allow"),
        host("deny", "Deny"),
        limited_host(
            "plain",
            "global: {rules: [{limit: {requests: 100000, unit: Day}}]}",
        ),
    ]
    .concat()
}

/// What holds while the store does not answer: each limit as it says, and every question is counted
/// as one that got no answer.
fn holds_without_store(node: &Node, already: usize) -> Result<()> {
    let before = (node.asked("ok")?, node.unanswered()?);
    let local = node.burst("local", 15)?;
    assert_eq!(local, [10 - already, 5 + already, 0]);
    assert_eq!(node.burst("allow", 15)?, [15, 0, 0]);
    assert_eq!(node.burst("deny", 15)?, [0, 0, 15]);
    let after = (node.asked("ok")?, node.unanswered()?);
    assert_eq!(after, (before.0, before.1 + 45.0));
    // Who waits, waits for the budget; and after a few of those nobody does.
    assert!(node.asked("not_asked")? > 0.0);
    Ok(())
}

#[test]
fn a_store_that_is_not_there_at_the_start_and_comes() -> Result<()> {
    let netns = Netns::new("redis")?;
    let mut redis = Redis::absent(&[])?;
    let node = Node::start(&redis.url(), "timeout: 20ms", &policies())?;
    holds_without_store(&node, 0)?;
    assert_eq!(
        ["local", "allow", "deny"].map(|mode| node.without(mode).ok()),
        [Some(15.0); 3]
    );
    // An answer of 500 tells nothing of a limit that is not known.
    let answer = node.scene.get("deny", "/", &[])?;
    node.scene.expect(&answer, 500, ["", "", "", ""]);
    let output = node.scene.daemon.process.output();
    assert!(output.contains("no connection to the store"), "{output}");
    assert!(output.contains("decided without it"), "{output}");
    redis.begin(&netns)?;
    recovered(&node, "plain")?;
    let output = node.scene.daemon.process.output();
    assert!(output.contains("counts global limits again"), "{output}");
    Ok(())
}

#[test]
fn a_store_that_stands_still_and_goes_on() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let node = Node::start(&redis.url(), "timeout: 20ms", &policies())?;
    recovered(&node, "plain")?;
    redis.freeze()?;
    holds_without_store(&node, 0)?;
    redis.thaw()?;
    recovered(&node, "plain")
}

#[test]
fn a_store_that_is_killed_and_comes_back_empty() -> Result<()> {
    let netns = Netns::new("redis")?;
    let mut redis = Redis::start(&netns)?;
    let node = Node::start(&redis.url(), PATIENT, &policies())?;
    assert_eq!(node.burst("local", 15)?, [10, 5, 0]);
    redis.kill()?;
    redis.begin(&netns)?;
    recovered(&node, "plain")?;
    // What it had counted is gone with it: the limit is a full one again, and no more than that.
    full_again(&node)?;
    // Its scripts are gone as well.
    redis.ask(&["SCRIPT", "FLUSH"])?;
    redis.ask(&["FLUSHALL"])?;
    full_again(&node)
}

/// The limit that was used up is a full one, as soon as it is asked about again.
fn full_again(node: &Node) -> Result<()> {
    tests::daemon::eventually("what is remembered to be over", || {
        Ok((node.burst("local", 1)? == [1, 0, 0]).then_some(()))
    })?;
    assert_eq!(node.burst("local", 14)?, [9, 5, 0]);
    Ok(())
}

#[test]
fn a_store_that_is_killed_under_load() -> Result<()> {
    let netns = Netns::new("redis")?;
    let mut redis = Redis::start(&netns)?;
    let node = Node::start(&redis.url(), "timeout: 20ms", &policies())?;
    recovered(&node, "plain")?;
    let before = node.asked("ok")? + node.unanswered()?;
    let admitted = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            (0..20)
                .map(|_| node.burst("plain", 20))
                .collect::<Result<Vec<_>>>()
        });
        redis.kill()?;
        load.join()
            .map_err(|_panic| anyhow::anyhow!("the load failed"))?
    })?;
    assert!(
        admitted.iter().all(|counts| *counts == [20, 0, 0]),
        "{admitted:?}"
    );
    // Every request was asked about once, and got an answer from the store or from this node.
    assert_eq!(node.asked("ok")? + node.unanswered()?, before + 400.0);
    holds_without_store(&node, 0)?;
    redis.begin(&netns)?;
    recovered(&node, "plain")
}

#[test]
fn a_store_that_is_full() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let node = Node::start(&redis.url(), PATIENT, &policies())?;
    assert_eq!(node.burst("local", 4)?, [4, 0, 0]);
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"])?;
    // What it had counted is where this node goes on.
    holds_without_store(&node, 4)?;
    assert!(node.asked("error")? > 0.0);
    redis.ask(&["CONFIG", "SET", "maxmemory", "0"])?;
    recovered(&node, "plain")?;
    // What it had counted is still there.
    assert_eq!(node.burst("local", 15)?, [6, 9, 0]);
    Ok(())
}

#[test]
fn fail_closed_denies_with_500() -> Result<()> {
    let redis = Redis::absent(&[])?;
    let policies = limited_host(
        "plain",
        "global: {rules: [{limit: {requests: 10, unit: Day}}]}",
    );
    let node = Node::start(&redis.url(), "failClosed: true, timeout: 20ms", &policies)?;
    assert_eq!(node.burst("plain", 15)?, [0, 0, 15]);
    assert_eq!(node.without("deny")?, 15.0);
    Ok(())
}
