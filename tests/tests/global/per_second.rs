//! A store of its own for limits of a second.

use anyhow::Result;
use tests::netns::Netns;
use tests::policies::limited_host;
use tests::redis::Redis;

use crate::support::{Node, recovered};

const STORES: &str = "\
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {name: limiterd}
spec:
  rateLimit:
    backend: {type: Redis, redis: {url: \"MAIN\"}}
    perSecond: {url: \"FAST\"}
    timeout: TIMEOUT
    overLimitMemory: 0
";

fn asked(node: &Node, store: &str, result: &str) -> Result<f64> {
    let labels = [("store", store), ("result", result)];
    let page = node.scene.metrics()?;
    Ok(page.sum("limiterd_store_requests_total", &labels))
}

/// What both stores have answered.
fn answered(node: &Node) -> Result<[f64; 2]> {
    Ok([asked(node, "main", "ok")?, asked(node, "per_second", "ok")?])
}

fn start(timeout: &str, policies: &str) -> Result<(Redis, Redis, Node)> {
    let netns = Netns::new("node")?;
    let mut main = Redis::absent(&["--port", "0"])?;
    main.begin(&netns)?;
    let mut fast = Redis::absent(&["--port", "0"])?;
    fast.begin(&netns)?;
    let stores = STORES
        .replace("MAIN", &main.url())
        .replace("FAST", &fast.url())
        .replace("TIMEOUT", timeout);
    let node = Node::inside(netns, &stores, policies)?;
    Ok((main, fast, node))
}

#[test]
fn limits_of_a_second_are_counted_elsewhere() -> Result<()> {
    let policies = [
        limited_host(
            "slow",
            "global: {rules: [{limit: {requests: 10, unit: Minute}}]}",
        ),
        limited_host(
            "fast",
            "global: {rules: [{limit: {requests: 1000000, unit: Second}}]}",
        ),
        limited_host(
            "both",
            "global: {rules: [
               {limit: {requests: 1000000, unit: Second}, limiterd: {algorithm: FixedWindow}},
               {limit: {requests: 10, unit: Day}}]}",
        ),
        limited_host(
            "none",
            "global: {rules: [
               {limit: {requests: 10, unit: Day}},
               {limit: {requests: 1, unit: Second}, cost: {request: {from: Number, number: 2}}}]}",
        ),
    ]
    .concat();
    let (main, _fast, node) = start("20s", &policies)?;
    assert_eq!(node.burst("slow", 15)?, [10, 5, 0]);
    assert_eq!(answered(&node)?, [15.0, 0.0]);
    assert_eq!(node.burst("fast", 15)?, [15, 0, 0]);
    assert_eq!(answered(&node)?, [15.0, 15.0]);
    // Both at once; what the one denies, the other gives back.
    assert_eq!(node.burst("both", 15)?, [10, 5, 0]);
    tests::daemon::eventually("what comes back", || {
        Ok((answered(&node)? == [30.0, 35.0]).then_some(()))
    })?;
    // What never conforms takes nothing elsewhere.
    assert_eq!(node.burst("none", 5)?, [0, 5, 0]);
    tests::daemon::eventually("all to be given back", || {
        let keys = main.keys()?;
        Ok((!keys.iter().any(|key| key.contains("default/none"))).then_some(()))
    })?;
    assert_eq!(node.unanswered()?, 0.0);
    Ok(())
}

#[test]
fn each_store_fails_by_itself() -> Result<()> {
    let policies = [
        limited_host(
            "slow",
            "global: {rules: [{limit: {requests: 10, unit: Day}}]}",
        ),
        limited_host(
            "both",
            "global: {rules: [
               {limit: {requests: 1000000, unit: Second}},
               {limit: {requests: 10, unit: Day}}]}",
        ),
        limited_host(
            "plain",
            "global: {rules: [
               {limit: {requests: 1000000, unit: Second}},
               {limit: {requests: 1000000, unit: Day}}]}",
        ),
    ]
    .concat();
    let (main, mut fast, node) = start("500ms", &policies)?;
    recovered(&node, "plain")?;
    assert_eq!(node.burst("both", 4)?, [4, 0, 0]);
    fast.kill()?;
    // Decided here, from what the store said last; and what the main store took came back.
    assert_eq!(node.burst("both", 12)?, [6, 6, 0]);
    assert_eq!(node.burst("slow", 12)?, [10, 2, 0]);
    let key = main.keys()?;
    assert!(
        key.iter().any(|key| key.contains("default/slow")),
        "{key:?}"
    );
    fast.begin(&node.scene.netns)?;
    recovered(&node, "plain")?;
    let mut passed = 0;
    tests::daemon::eventually("the six that are left", || {
        passed += node.burst("both", 1)?[0];
        Ok((passed == 6).then_some(()))
    })?;
    assert_eq!(node.burst("both", 5)?, [0, 5, 0]);
    Ok(())
}
