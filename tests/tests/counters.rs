//! `limiterd counters` against running daemons: buckets in memory, in Redis and in the kernel.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use anyhow::{Context as _, Result};
use tests::daemon::{Daemon, Policies, binary, demo_backend};
use tests::netns::Netns;
use tests::policies::{GATEWAY, config, limited_host, network};
use tests::redis::{Redis, envoy_gateway};
use tests::redis_cluster::RedisCluster;
use tests::scene::Scene;
use tests::topology::Topology;

/// Three an hour for each user, and a hundred for all that have none.
const LOCAL: &str = "local: {rules: [\
    {clientSelectors: [{headers: [{name: x-user, type: Distinct}]}], limit: {requests: 3, unit: Hour}}, \
    {limit: {requests: 100, unit: Hour}}]}";
const GLOBAL: &str = "global: {rules: [\
    {clientSelectors: [{headers: [{name: x-user, type: Distinct}]}], limit: {requests: 3, unit: Day}}]}";

const URL: &str = "http://api.test:8080/";

/// What is said of the bucket of `user` under the limit `name`.
fn bucket_of(netns: &Netns, verb: &str, name: &str, user: &str) -> Result<(i32, String)> {
    let header = format!("x-user: {user}");
    counters(netns, &[verb, name, "GET", URL, "-H", &header])
}

/// The scene of [`GLOBAL`] with the store at `url`.
fn with_store(netns: Netns, url: &str) -> Result<Scene> {
    let store = envoy_gateway(url, "timeout: 20s");
    let limits = limited_host("api", GLOBAL);
    let files = [
        ("gateway.yaml", GATEWAY),
        ("store.yaml", &store),
        ("api.yaml", &limits),
    ];
    Scene::start(netns, &files)
}

/// Exit status and what was written.
fn counters(netns: &Netns, args: &[&str]) -> Result<(i32, String)> {
    let Output {
        status,
        stdout,
        stderr,
    } = netns.enter(|| {
        let mut command = Command::new(binary());
        Ok(command.arg("counters").args(args).output()?)
    })?;
    let text = String::from_utf8(stdout)? + &String::from_utf8(stderr)?;
    Ok((status.code().context("no exit status")?, text))
}

#[test]
fn a_bucket_in_memory_is_found_by_a_request_and_filled() -> Result<()> {
    let netns = Netns::new("counters")?;
    let _backend = demo_backend(&netns)?;
    let limits = limited_host("api", LOCAL);
    let scene = Scene::start(netns, &[("gateway.yaml", GATEWAY), ("api.yaml", &limits)])?;
    let alice = ("x-user", "alice");
    assert_eq!(scene.statuses("api", &[alice], 4)?, [200, 200, 200, 429]);
    assert_eq!(scene.statuses("api", &[("x-user", "bob")], 1)?, [200]);
    assert_eq!(scene.statuses("api", &[], 2)?, [200, 200]);

    let netns = &scene.netns;
    let (code, text) = counters(netns, &["list"])?;
    assert_eq!(code, 0, "{text}");
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split("  ").next())
        .collect();
    let [by_user, all] = names[..] else {
        panic!("{text}");
    };
    assert!(by_user.starts_with("local:default/api/rule/"), "{text}");
    assert!(text.contains("buckets: per value"), "{text}");
    assert!(text.contains("98 of 100 tokens left"), "{text}");

    let of = |verb, user| bucket_of(netns, verb, by_user, user);
    let (code, text) = of("get", "alice")?;
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("0 of 3 tokens left"), "{text}");
    assert!(text.contains("over the limit for"), "{text}");
    let (code, text) = of("reset", "alice")?;
    assert!(code == 0 && text.contains("3 of 3 tokens left"), "{text}");
    let (code, text) = of("get", "bob")?;
    assert!(code == 0 && text.contains("2 of 3 tokens left"), "{text}");
    assert_eq!(scene.statuses("api", &[alice], 1)?, [200]);

    let (code, text) = counters(netns, &["reset", all, "--json"])?;
    let json: serde_json::Value = serde_json::from_str(&text)?;
    assert_eq!(
        (code, &json["counters"][0]["state"]["remaining"]),
        (0, &100.into())
    );

    // What is asked wrongly says what would be right, and changes nothing.
    let (code, text) = counters(netns, &["get", by_user])?;
    assert!(
        code == 1 && text.contains("name a request that has the value"),
        "{text}"
    );
    let (code, text) = counters(netns, &["get", by_user, "GET", URL])?;
    assert!(code == 1 && text.contains("does not meet"), "{text}");
    let (code, text) = counters(netns, &["reset", "local:none@none"])?;
    assert!(
        code == 1 && text.contains("no limit in force is called"),
        "{text}"
    );
    let (code, text) = counters(netns, &["list", "--in", "store"])?;
    assert!(
        code == 0 && text.contains("no store that nodes share"),
        "{text}"
    );
    let (code, text) = counters(netns, &["get", "kernel:default/x", "--from", "192.0.2.1"])?;
    assert!(
        code == 1 && text.contains("no interface is configured"),
        "{text}"
    );
    Ok(())
}

#[test]
fn a_bucket_in_the_store_is_listed_found_and_forgotten() -> Result<()> {
    let redis_netns = Netns::new("redis")?;
    let redis = Redis::start(&redis_netns)?;
    // Somebody else's, in the same Redis.
    redis.ask(&["SET", "stranger:{default/api", "1"])?;
    let netns = Netns::new("counters")?;
    let _backend = demo_backend(&netns)?;
    let scene = with_store(netns, &redis.url())?;
    for user in ["alice", "bob"] {
        let header = [("x-user", user)];
        assert_eq!(scene.statuses("api", &header, 4)?, [200, 200, 200, 429]);
    }

    let netns = &scene.netns;
    let (code, text) = counters(netns, &["list", "store:"])?;
    assert_eq!((code, text.lines().count()), (0, 2), "{text}");
    assert!(!text.contains("stranger"), "{text}");
    assert!(text.contains("forgotten in"), "{text}");
    let (_, text) = counters(netns, &["list", "store:", "--limit", "1"])?;
    assert!(text.contains("there are more"), "{text}");
    let (_, text) = counters(netns, &["list", "global:"])?;
    let name = text.split("  ").next().context("no counter")?.to_owned();
    let of = |verb, user| bucket_of(netns, verb, &name, user);
    let (code, text) = of("get", "alice")?;
    assert!(code == 3 && text.contains("0 of 3 tokens left"), "{text}");
    let (code, text) = of("reset", "alice")?;
    assert!(code == 0 && text.contains("3 of 3 tokens left"), "{text}");
    // The node that did it does not remember the denial either.
    assert_eq!(scene.statuses("api", &[("x-user", "alice")], 1)?, [200]);
    let (code, text) = of("get", "bob")?;
    assert!(code == 3 && text.contains("0 of 3 tokens left"), "{text}");

    // By its key, as the list tells it.
    let (_, text) = counters(netns, &["list", "store:", "--json"])?;
    let json: serde_json::Value = serde_json::from_str(&text)?;
    let key = json["counters"][0]["name"].as_str().context("no name")?;
    let (code, text) = counters(netns, &["reset", key])?;
    assert_eq!(code, 0, "{text}");
    let (code, text) = counters(netns, &["reset", key])?;
    assert!(code == 1 && text.contains("the bucket is full"), "{text}");
    let (code, text) = counters(netns, &["reset", "store:stranger:{default/api"])?;
    assert!(
        code == 1 && text.contains("keys of limits begin with"),
        "{text}"
    );
    assert_eq!(redis.ask(&["EXISTS", "stranger:{default/api"])?.trim(), "1");
    Ok(())
}

#[test]
fn buckets_in_a_cluster_are_found_on_all_its_servers() -> Result<()> {
    let cluster = RedisCluster::start(3, 0)?;
    let netns = cluster.neighbour(1)?;
    let _backend = demo_backend(&netns)?;
    let scene = with_store(netns, &cluster.url())?;
    let users: Vec<String> = (0..12).map(|number| format!("u{number}")).collect();
    for user in &users {
        let header = [("x-user", user.as_str())];
        assert_eq!(scene.statuses("api", &header, 4)?, [200, 200, 200, 429]);
    }
    let keys = cluster.keys()?;
    let places: BTreeSet<usize> = keys.iter().map(|(server, _)| *server).collect();
    assert_eq!(places.len(), 3, "the users are on all servers: {keys:?}");

    let netns = &scene.netns;
    let (code, text) = counters(netns, &["list", "store:"])?;
    assert_eq!((code, text.lines().count()), (0, users.len()), "{text}");
    let (_, text) = counters(netns, &["list", "store:", "--limit", "5"])?;
    assert!(text.contains("there are more"), "{text}");
    let (_, text) = counters(netns, &["list", "global:"])?;
    let name = text.split("  ").next().context("no counter")?.to_owned();
    for user in &users {
        let of = |verb| bucket_of(netns, verb, &name, user);
        let (code, text) = of("get")?;
        assert!(code == 3 && text.contains("0 of 3 tokens left"), "{text}");
        let (code, text) = of("reset")?;
        assert!(code == 0 && text.contains("3 of 3 tokens left"), "{text}");
        assert_eq!(scene.statuses("api", &[("x-user", user)], 1)?, [200]);
    }
    Ok(())
}

#[test]
fn a_bucket_in_the_kernel_is_filled_and_its_source_comes_in_again() -> Result<()> {
    const TWO: &str = "  connections: {maxTokens: 2, tokensPerFill: 1, fillInterval: 1h}\n";
    let topology = Topology::new()?;
    let (gateway, client) = (&topology.gateway, &topology.first);
    let pins = topology.pins();
    let policies = Policies::new(&[
        (
            "limiterd.yaml",
            &config(&[&client.gateway_interface], &pins, "Detach"),
        ),
        ("gateway.yaml", GATEWAY),
        ("network.yaml", &network("edge", TWO)),
    ])?;
    let daemon = Daemon::start(gateway, policies.path())?;
    assert!(client.let_in(8080)? && client.let_in(8080)?);
    assert!(client.kept_out(8080)?);

    let (_, text) = counters(gateway, &["list", "kernel:"])?;
    assert!(
        text.contains("kernel:default/edge  buckets: per source"),
        "{text}"
    );
    let source = client.v4.to_string();
    let name = "kernel:default/edge";
    let (code, text) = counters(gateway, &["get", name, "--from", &source])?;
    assert!(code == 3 && text.contains("0 of 2 tokens left"), "{text}");
    let (code, text) = counters(gateway, &["reset", name, "--from", &source])?;
    assert!(code == 0 && text.contains("2 of 2 tokens left"), "{text}");
    assert!(text.contains("1 buckets were filled"), "{text}");
    assert!(client.let_in(8080)? && client.let_in(8080)?);
    assert!(client.kept_out(8080)?);
    let (code, text) = counters(gateway, &["get", name])?;
    assert!(code == 1 && text.contains("name one with"), "{text}");
    assert!(daemon.stop()?.success());
    Ok(())
}
