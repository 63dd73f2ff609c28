//! A master, its replica and three Sentinels: the master is killed.

use std::process::Command;

use anyhow::{Context as _, Result};
use tests::daemon::eventually;
use tests::netns::Netns;
use tests::policies::limited_host;
use tests::redis::{Redis, envoy_gateway};

use crate::sentinel::Sentinel;
use crate::support::{Node, recovered, under_load, user};

const SENTINELS: [u16; 3] = [26379, 26380, 26381];

fn start(netns: &Netns, port: u16, password: Option<&str>) -> Result<Sentinel> {
    let login = password.map_or_else(String::new, |password| {
        format!(
            "requirepass {password}\nsentinel sentinel-pass {password}\n\
             user limiter on >me{password} -@all +hello +role +sentinel|masters\n"
        )
    });
    let config = format!(
        "port {port}\nsentinel monitor shop 127.0.0.1 7000 2\n\
         sentinel down-after-milliseconds shop 500\nsentinel failover-timeout shop 3000\n{login}"
    );
    Sentinel::start(netns, &config)
}

/// Whether the Sentinel at `port` knows the other Sentinels and the replica.
fn is_ready(netns: &Netns, port: u16, password: Option<&str>) -> Result<bool> {
    let port = port.to_string();
    let login = password.map(|password| ["-a", password]);
    let ask = |command: &[&str]| {
        netns.enter(|| {
            let output = Command::new("redis-cli")
                .args(["-p", &port])
                .args(login.iter().flatten())
                .args(command)
                .output()?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        })
    };
    let others = ask(&["SENTINEL", "CKQUORUM", "shop"])?;
    let replicas = ask(&["SENTINEL", "REPLICAS", "shop"])?;
    Ok(others.starts_with("OK 3 ") && replicas.contains("127.0.0.1:7001"))
}

/// A master, its replica, and three that watch them.
struct Trio {
    master: Redis,
    replica: Redis,
    sentinels: Vec<Sentinel>,
}

impl Trio {
    fn start(netns: &Netns, password: Option<&str>) -> Result<Self> {
        let mut master = Redis::absent(&["--port", "7000"])?;
        master.begin(netns)?;
        let mut replica = Redis::absent(&["--port", "7001", "--replicaof", "127.0.0.1", "7000"])?;
        replica.begin(netns)?;
        let sentinels = SENTINELS.map(|port| start(netns, port, password));
        let sentinels = sentinels.into_iter().collect::<Result<Vec<_>>>()?;
        eventually("the Sentinels to know each other", || {
            let ready = SENTINELS.map(|port| is_ready(netns, port, password));
            let ready: Vec<bool> = ready.into_iter().collect::<Result<_>>()?;
            Ok(ready.iter().all(|ready| *ready).then_some(()))
        })?;
        Ok(Self {
            master,
            replica,
            sentinels,
        })
    }
}

#[test]
fn the_replica_goes_on_with_what_the_master_had_counted() -> Result<()> {
    let netns = Netns::new("node")?;
    let Trio {
        mut master,
        replica,
        sentinels: _sentinels,
    } = Trio::start(&netns, None)?;
    let policies = [
        limited_host(
            "ten",
            "global: {rules: [{limit: {requests: 10, unit: Day}}]}",
        ),
        limited_host(
            "plain",
            "global: {rules: [{limit: {requests: 100000, unit: Day}}]}",
        ),
    ]
    .concat();
    let url = "shop,127.0.0.1:26379,127.0.0.1:26380,127.0.0.1:26381";
    // Long enough to be always counted there, short enough to be let down by it.
    let store = envoy_gateway(url, "timeout: 500ms");
    let node = Node::inside(netns, &store, &policies)?;
    recovered(&node, "plain")?;
    assert_eq!(node.burst("ten", 6)?, [6, 0, 0]);
    let key = master
        .keys()?
        .into_iter()
        .find(|key| key.contains("default/ten"));
    let key = key.context("the master has counted")?;
    let state = master.ask(&["GET", &key])?;
    eventually("the replica to have it", || {
        Ok((replica.ask(&["GET", &key])? == state).then_some(()))
    })?;
    // What is blocked outlives the master, too.
    let limiterd = |args: &[&str]| {
        let output = node
            .scene
            .netns
            .enter(|| Ok(Command::new(tests::daemon::binary()).args(args).output()?))?;
        anyhow::Ok(String::from_utf8(output.stdout)?)
    };
    let blocks = "limiterd:{fleet}blocks";
    let text = limiterd(&["block", "192.0.2.1", "--for", "1h"])?;
    assert!(text.starts_with("192.0.2.1/32"), "{text}");
    eventually("the replica to know who is blocked", || {
        Ok((replica.ask(&["HLEN", blocks])? == "1").then_some(()))
    })?;
    master.kill()?;
    // Meanwhile this node counts.
    assert_eq!(node.burst("plain", 20)?, [20, 0, 0]);
    recovered(&node, "plain")?;
    assert_eq!(node.burst("ten", 15)?, [4, 11, 0]);
    assert!(replica.ask(&["ROLE"])?.starts_with("master"));
    eventually("the fleet to be reached", || {
        let connected = node.scene.metrics()?.sum("limiterd_fleet_connected", &[]);
        Ok((connected == 1.0).then_some(()))
    })?;
    assert!(limiterd(&["blocked"])?.starts_with("192.0.2.1/32"));
    limiterd(&["unblock", "192.0.2.1"])?;
    assert_eq!(replica.ask(&["HLEN", blocks])?, "0");
    Ok(())
}

#[test]
fn under_load_behind_sentinels_that_ask_who_one_is() -> Result<()> {
    const USERS: usize = 20;
    let netns = Netns::new("node")?;
    let Trio {
        mut master,
        replica,
        sentinels: _sentinels,
    } = Trio::start(&netns, Some("wh0"))?;
    let policies = [
        limited_host(
            "users",
            "global: {rules: [{clientSelectors: [{headers: [{name: x-user, type: Distinct}]}],
               limit: {requests: 20, unit: Day}, limiterd: {onStoreFailure: Deny}}]}",
        ),
        limited_host(
            "plain",
            "global: {rules: [{limit: {requests: 100000, unit: Day}}]}",
        ),
    ]
    .concat();
    let store = "\
apiVersion: v1
kind: Secret
metadata: {name: sentinels}
stringData: {password: mewh0}
---
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {name: limiterd}
spec:
  rateLimit:
    backend:
      type: Redis
      redis:
        url: \"shop,127.0.0.1:26379,127.0.0.1:26380,127.0.0.1:26381\"
        sentinel: {user: limiter, passwordRef: {secretKeyRef: {name: sentinels, key: password}}}
    timeout: 500ms
";
    let node = Node::inside(netns, store, &policies)?;
    recovered(&node, "plain")?;
    let names: Vec<String> = (0..USERS).map(|number| format!("u{number}")).collect();
    for name in &names {
        assert_eq!(user(&node, "users", name, 10)?, [10, 0, 0], "{name}");
    }
    eventually("the replica to have them all", || {
        let keys = replica.keys()?;
        let users = keys.iter().filter(|key| key.contains("default/users"));
        Ok((users.count() == USERS).then_some(()))
    })?;
    let seen = under_load(&node, "users", &names, || {
        master.kill()?;
        eventually("requests that nobody answers", || {
            Ok((node.unanswered()? > 0.0).then_some(()))
        })?;
        eventually("the replica to be asked", || {
            // While it is promoted it closes connections.
            let role = replica.ask(&["ROLE"]);
            let promoted = role.is_ok_and(|role| role.starts_with("master"));
            Ok((promoted && node.state()? == 0.0).then_some(()))
        })
    })?;
    let failed: usize = seen.values().map(|[_, _, failed]| failed).sum();
    assert!(failed > 0, "{seen:?}");
    // What the replica had not got passes again: at most what the load took of it, never the first ten.
    for (name, [admitted, ..]) in &seen {
        assert!(*admitted <= 20, "{name}: {admitted}");
        assert_eq!(user(&node, "users", name, 1)?, [0, 1, 0], "{name}");
    }
    Ok(())
}
