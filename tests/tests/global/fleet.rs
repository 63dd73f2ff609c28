//! One limit for three nodes.

use std::thread;

use anyhow::{Result, anyhow};
use tests::daemon::eventually;
use tests::netns::Netns;
use tests::policies::limited_host;
use tests::redis::Redis;

use crate::support::{Node, PATIENT};

/// Tokens come back too seldom to be seen: the count is exact.
const HUNDRED: &str = "global: {rules: [{limit: {requests: 100, unit: Day}}]}";

pub(crate) fn bursts(nodes: &[Node], host: &str, requests: usize) -> Result<Vec<[usize; 3]>> {
    thread::scope(|scope| {
        let asking: Vec<_> = nodes
            .iter()
            .map(|node| scope.spawn(|| node.burst(host, requests)))
            .collect();
        asking
            .into_iter()
            .map(|asking| asking.join().map_err(|_panic| anyhow!("a node failed"))?)
            .collect()
    })
}

#[test]
fn a_hundred_are_a_hundred_over_three_nodes() -> Result<()> {
    a_hundred_are_a_hundred(Redis::start)
}

#[test]
fn a_hundred_are_a_hundred_over_three_nodes_with_valkey() -> Result<()> {
    a_hundred_are_a_hundred(Redis::valkey)
}

fn a_hundred_are_a_hundred(start: impl Fn(&Netns) -> Result<Redis>) -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = start(&netns)?;
    let policies = [
        limited_host("bucket", HUNDRED),
        limited_host(
            "fixed",
            "global: {rules: [{limit: {requests: 100, unit: Year}, limiterd: {algorithm: FixedWindow}}]}",
        ),
        limited_host(
            "sliding",
            "global: {rules: [{limit: {requests: 100, unit: Year}, limiterd: {algorithm: SlidingWindow}}]}",
        ),
    ]
    .concat();
    let nodes = (0..3)
        .map(|_| Node::start(&redis.url(), PATIENT, &policies))
        .collect::<Result<Vec<_>>>()?;
    for host in ["bucket", "fixed", "sliding"] {
        let counts = bursts(&nodes, host, 50)?;
        let admitted: usize = counts.iter().map(|[admitted, ..]| admitted).sum();
        let denied: usize = counts.iter().map(|[_, denied, _]| denied).sum();
        assert_eq!([admitted, denied], [100, 50], "{host}: {counts:?}");
    }
    for node in &nodes {
        let known = node.remembered()?;
        assert_eq!(
            node.asked("ok")? + known,
            150.0,
            "one round trip a request, and none where it is known to be denied"
        );
        assert_eq!(node.unanswered()?, 0.0);
    }
    // Nothing stays for ever, and no value of a request is in a key.
    let keys = redis.keys()?;
    assert_eq!(keys.len(), 3, "{keys:?}");
    for key in keys {
        let left: i64 = redis.ask(&["PTTL", &key])?.parse()?;
        assert!(left > 0, "{key}: {left}");
    }
    Ok(())
}

#[test]
fn without_a_store_each_node_counts_for_itself() -> Result<()> {
    let policies = limited_host("bucket", HUNDRED);
    let nodes = (0..2)
        .map(|_| Node::with("", &policies))
        .collect::<Result<Vec<_>>>()?;
    assert_eq!(bursts(&nodes, "bucket", 110)?, [[100, 10, 0]; 2]);
    let output = nodes[0].scene.daemon.process.output();
    assert!(
        output.contains("counted by each node for itself"),
        "{output}"
    );
    Ok(())
}

#[test]
fn a_denied_request_charges_none_of_its_limits() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let policies = limited_host(
        "two",
        "global: {rules: [
           {limit: {requests: 20, unit: Day}},
           {clientSelectors: [{headers: [{name: x-user, type: Distinct}]}], limit: {requests: 5, unit: Day}},
           {limit: {requests: 3, unit: Day}, shadowMode: true}]}",
    );
    let node = Node::start(&redis.url(), PATIENT, &policies)?;
    let mut passed = 0;
    for user in ["ann", "bob", "cid", "dan", "eve"] {
        let statuses = node.scene.statuses("two", &[("x-user", user)], 8)?;
        passed += statuses.iter().filter(|status| **status == 200).count();
    }
    // Each of four users has five; what was denied to them took nothing from the twenty.
    assert_eq!(passed, 20);
    let keys = redis.keys()?;
    assert!(
        keys.iter()
            .all(|key| key.starts_with("limiterd:{default/two@default/two}default/two/rule/")),
        "{keys:?}"
    );
    // One for all, one in shadow mode, and one for each user that was admitted.
    assert_eq!(keys.len(), 6, "{keys:?}");
    assert!(!keys.iter().any(|key| key.contains("ann")), "{keys:?}");
    let shadow = [
        ("rule", "default/two/rule/2"),
        ("decision", "shadow_over_limit"),
    ];
    let page = node.scene.metrics()?;
    assert_eq!(page.sum("limiterd_global_rate_limit_total", &shadow), 17.0);
    Ok(())
}

/// Sends requests one by one until so many were admitted by the store.
fn answered(node: &Node, host: &str, wanted: usize) -> Result<usize> {
    for _ in 0..wanted {
        let before = node.asked("ok")?;
        assert_eq!(node.burst(host, 1)?, [1, 0, 0]);
        assert_eq!(node.asked("ok")?, before + 1.0, "it was in time");
    }
    Ok(wanted)
}

#[test]
fn without_the_store_each_of_three_nodes_has_a_third() -> Result<()> {
    let netns = Netns::new("redis")?;
    let mut redis = Redis::start(&netns)?;
    let limited = |name, algorithm| {
        let rule = format!(
            "limit: {{requests: 100, unit: Year}}, limiterd: {{algorithm: {algorithm}, onStoreFailure: Local}}"
        );
        limited_host(name, &format!("global: {{rules: [{{{rule}}}]}}"))
    };
    let policies = [
        limited("bucket", "TokenBucket"),
        limited("fixed", "FixedWindow"),
        limited("sliding", "SlidingWindow"),
    ]
    .concat();
    let nodes = (0..3)
        .map(|_| Node::start(&redis.url(), "timeout: 2s", &policies))
        .collect::<Result<Vec<_>>>()?;
    let seen =
        |node: &Node| -> Result<f64> { Ok(node.scene.metrics()?.sum("limiterd_fleet_nodes", &[])) };
    for node in &nodes {
        eventually("three nodes", || Ok((seen(node)? == 3.0).then_some(())))?;
    }
    // One of them had some; each sees what was counted for all with its next request.
    for host in ["fixed", "sliding"] {
        let used = answered(&nodes[0], host, 37)?
            + answered(&nodes[1], host, 1)?
            + answered(&nodes[2], host, 1)?;
        assert_eq!(used, 39);
        answered(&nodes[0], host, 1)?;
        answered(&nodes[1], host, 1)?;
    }
    redis.kill()?;
    let counts = bursts(&nodes, "bucket", 50)?;
    assert_eq!(counts, [[33, 17, 0]; 3]);
    for host in ["fixed", "sliding"] {
        // 41 are gone; the nodes know of 40, 41 and 39.
        let counts = bursts(&nodes, host, 50)?;
        assert_eq!(counts, [[20, 30, 0], [19, 31, 0], [20, 30, 0]], "{host}");
    }
    // Nobody is seen without the store, so their number stays.
    for node in &nodes {
        assert_eq!(seen(node)?, 3.0);
    }
    Ok(())
}
