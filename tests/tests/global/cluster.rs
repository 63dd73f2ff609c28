//! A Redis Cluster: users spread over its servers, slots that move, a master that is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use tests::daemon::eventually;
use tests::policies::{host_route, limited_host};
use tests::redis::{Redis, envoy_gateway};
use tests::redis_cluster::{ADDRESS, RedisCluster};
use tests::tls::Authority;

use crate::support::{Node, PATIENT, recovered, under_load, user};

const HUNDRED: &str = "global: {rules: [{limit: {requests: 100, unit: Day}}]}";
const PLAIN: &str = "global: {rules: [{limit: {requests: 1000000, unit: Day}}]}";

fn nodes(cluster: &RedisCluster, more: &str, policies: &str, count: u8) -> Result<Vec<Node>> {
    let store = envoy_gateway(&cluster.url(), more);
    (1..=count)
        .map(|number| Node::inside(cluster.neighbour(number)?, &store, policies))
        .collect()
}

/// How many of so many requests at each node, all at once, were admitted and denied.
fn bursts(nodes: &[Node], host: &str, requests: usize) -> Result<[usize; 2]> {
    let counts: Vec<[usize; 3]> = thread::scope(|scope| {
        let asking: Vec<_> = nodes
            .iter()
            .map(|node| scope.spawn(|| node.burst(host, requests)))
            .collect();
        asking
            .into_iter()
            .map(|asking| asking.join().map_err(|_panic| anyhow!("a node failed"))?)
            .collect::<Result<_>>()
    })?;
    Ok([0, 1].map(|index| counts.iter().map(|counts| counts[index]).sum()))
}

#[test]
fn three_nodes_and_six_servers_count_as_one() -> Result<()> {
    let cluster = RedisCluster::start(3, 1)?;
    // A Gateway's limit that two routes share, beside limits of their own: of two policies.
    let joined = |name: &str, requests: u32| {
        format!(
            "{}---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {{name: {name}}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: {name}}}]
  mergeType: StrategicMerge
  rateLimit: {{global: {{rules: [{{limit: {{requests: {requests}, unit: Day}}}}]}}}}
",
            host_route(name)
        )
    };
    let policies = [
        limited_host("hundred", HUNDRED),
        limited_host(
            "users",
            "global: {rules: [
               {clientSelectors: [{headers: [{name: x-user, type: Distinct}]}], limit: {requests: 5, unit: Day}},
               {clientSelectors: [{headers: [{name: x-user, value: u0}]}], limit: {requests: 3, unit: Day}},
               {clientSelectors: [{headers: [{name: x-user, type: Distinct}]}], limit: {requests: 4, unit: Day},
                shadowMode: true}]}",
        ),
        "---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: all}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: eg}]
  rateLimit: {global: {rules: [{limit: {requests: 30, unit: Day}, shared: true}]}}
"
        .to_owned(),
        joined("first", 20),
        joined("second", 1000),
    ]
    .concat();
    let nodes = nodes(&cluster, PATIENT, &policies, 3)?;
    assert_eq!(bursts(&nodes, "hundred", 50)?, [100, 50]);

    for number in 0..24 {
        let name = format!("u{number}");
        let counts: Vec<_> = nodes
            .iter()
            .map(|node| user(node, "users", &name, 2))
            .collect::<Result<_>>()?;
        let admitted: usize = counts.iter().map(|[admitted, ..]| admitted).sum();
        assert_eq!(admitted, if number == 0 { 3 } else { 5 }, "{name}");
    }
    let keys: Vec<_> = cluster
        .keys()?
        .into_iter()
        .filter(|(_, key)| key.contains("default/users"))
        .collect();
    // Two of each user and one more, each user's together.
    assert_eq!(keys.len(), 49, "{keys:?}");
    let servers: BTreeSet<usize> = keys.iter().map(|(server, _)| *server).collect();
    assert_eq!(servers.len(), 3, "users are spread over all masters");
    let mut tags: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, key) in &keys {
        let tag = key.split(['{', '}']).nth(1).context("a tag")?;
        *tags.entry(tag).or_default() += 1;
    }
    assert_eq!(tags.len(), 24, "{tags:?}");

    // Two policies, two places: what one denies is given back in the other.
    let [admitted, denied] = bursts(&nodes, "first", 15)?;
    assert!(admitted <= 20 && admitted + denied == 45, "{admitted}");
    let mut admitted = admitted;
    eventually("what was given back to be there", || {
        admitted += nodes[0].burst("first", 1)?[0];
        Ok((admitted == 20).then_some(()))
    })?;
    assert_eq!(bursts(&nodes, "first", 5)?, [0, 15]);
    eventually("the ten that are left for the other route", || {
        admitted += nodes[1].burst("second", 1)?[0];
        Ok((admitted == 30).then_some(()))
    })?;
    assert_eq!(bursts(&nodes, "second", 5)?, [0, 15]);
    for node in &nodes {
        assert_eq!(node.unanswered()?, 0.0);
        assert_eq!(node.state()?, 0.0);
    }
    Ok(())
}

#[test]
fn a_slot_that_moves_loses_no_count() -> Result<()> {
    let cluster = RedisCluster::start(3, 0)?;
    let policies = [
        limited_host("hundred", HUNDRED),
        limited_host(
            "two",
            "global: {rules: [{limit: {requests: 100, unit: Day}}, {limit: {requests: 90, unit: Day}}]}",
        ),
    ]
    .concat();
    let nodes = nodes(&cluster, PATIENT, &policies, 2)?;
    let node = &nodes[..1];
    let redirected = || -> Result<f64> {
        let page = nodes[0].scene.metrics()?;
        Ok(page.sum("limiterd_store_redirections_total", &[("store", "main")]))
    };
    assert_eq!(bursts(node, "hundred", 30)?, [30, 0]);
    let (slot, from, key) = cluster.find("default/hundred")?;
    let way = (from, (from + 1) % 3);
    cluster.begin_moving(slot, way)?;
    assert_eq!(bursts(node, "hundred", 20)?, [20, 0]);
    assert_eq!(redirected()?, 0.0);
    cluster.move_key(&key, way)?;
    // Who asks is sent on each time.
    assert_eq!(bursts(node, "hundred", 20)?, [20, 0]);
    assert!(redirected()? >= 20.0);
    cluster.end_moving(slot, way)?;
    assert_eq!(bursts(&nodes, "hundred", 30)?, [30, 30]);
    assert_eq!(cluster.find("default/hundred")?.1, way.1);
    // A node that has learnt of it goes there at once.
    eventually("the new place to be known", || {
        let before = redirected()?;
        nodes[0].burst("hundred", 1)?;
        Ok((redirected()? == before).then_some(()))
    })?;

    // Of two keys one has moved: who asks for both waits until the other has too.
    assert_eq!(bursts(node, "two", 10)?, [10, 0]);
    let (slot, from, first) = cluster.find("default/two/rule/0")?;
    let (_, _, second) = cluster.find("default/two/rule/1")?;
    let way = (from, (from + 1) % 3);
    cluster.begin_moving(slot, way)?;
    cluster.move_key(&first, way)?;
    let before = redirected()?;
    thread::scope(|scope| {
        let waiting = scope.spawn(|| bursts(node, "two", 100));
        eventually("requests that are asked to come again", || {
            Ok((redirected()? > before + 50.0).then_some(()))
        })?;
        cluster.move_key(&second, way)?;
        cluster.end_moving(slot, way)?;
        let counts = waiting
            .join()
            .map_err(|_panic| anyhow!("a node failed"))??;
        assert_eq!(counts, [80, 20]);
        anyhow::Ok(())
    })?;
    assert_eq!(nodes[0].unanswered()?, 0.0);
    Ok(())
}

#[test]
fn a_master_that_is_killed_under_load() -> Result<()> {
    a_master_goes(|master| master.kill(), |_| Ok(()))
}

/// It does not answer, and closes nothing; and comes back as one that takes itself for the master.
#[test]
fn a_master_that_stands_still_under_load() -> Result<()> {
    a_master_goes(|master| master.freeze(), |master| master.thaw())
}

fn a_master_goes(
    go: fn(&mut Redis) -> Result<()>,
    come: fn(&mut Redis) -> Result<()>,
) -> Result<()> {
    const USERS: usize = 40;
    let mut cluster = RedisCluster::start(3, 1)?;
    let policies = [
        limited_host(
            "users",
            "global: {rules: [{clientSelectors: [{headers: [{name: x-user, type: Distinct}]}],
               limit: {requests: 20, unit: Day}, limiterd: {onStoreFailure: Deny}}]}",
        ),
        limited_host("plain", PLAIN),
    ]
    .concat();
    let nodes = nodes(&cluster, "timeout: 500ms", &policies, 1)?;
    let node = &nodes[0];
    recovered(node, "plain")?;
    let names: Vec<String> = (0..USERS).map(|number| format!("u{number}")).collect();
    // Each has a bucket, which its replica has as well before the master goes.
    let mut admitted: BTreeMap<&str, usize> = BTreeMap::new();
    for name in &names {
        admitted.insert(name, user(node, "users", name, 10)?[0]);
    }
    assert!(
        admitted.values().all(|admitted| *admitted == 10),
        "{admitted:?}"
    );
    let victim = 0;
    let of_victim = cluster.servers[victim].keys()?;
    let of_users = |keys: &[String]| {
        keys.iter()
            .filter(|key| key.contains("default/users"))
            .count()
    };
    let of_victim = of_users(&of_victim);
    assert!((1..USERS).contains(&of_victim), "{of_victim}");
    eventually("the replicas to have it all", || {
        let mut keys = 0;
        for server in &cluster.servers {
            keys += of_users(&server.keys()?);
        }
        Ok((keys == 2 * USERS).then_some(()))
    })?;

    let seen = under_load(node, "users", &names, || {
        go(&mut cluster.servers[victim])?;
        eventually("requests that nobody answers", || {
            Ok((node.unanswered()? > 0.0).then_some(()))
        })?;
        // Its replica takes its place, and the daemon finds that.
        eventually("another master to be asked", || {
            let owner = cluster.owner(1, 0)?;
            Ok((owner != victim && node.state()? == 0.0).then_some(()))
        })?;
        come(&mut cluster.servers[victim])
    })?;
    let failed: usize = seen.values().map(|[_, _, failed]| failed).sum();
    assert!(failed > 0, "{seen:?}");
    // Now all are asked about, and nobody has more than was lost with the master.
    let mut beyond = 0;
    for name in &names {
        let last = eventually("an answer", || {
            let counts = user(node, "users", name, 1)?;
            Ok((counts[2] == 0).then_some(counts))
        })?;
        let admitted = 10 + seen[name][0] + last[0];
        // What a late answer took of a bucket was admitted to nobody.
        assert!(admitted <= 30, "{name}: {admitted}");
        beyond += usize::from(admitted > 20);
    }
    assert!(beyond <= of_victim, "{beyond} of {of_victim}");
    Ok(())
}

#[test]
fn a_cluster_that_stands_still_at_the_start() -> Result<()> {
    let cluster = RedisCluster::start(3, 0)?;
    for server in &cluster.servers {
        server.freeze()?;
    }
    let policies = [
        limited_host("hundred", HUNDRED),
        limited_host("plain", PLAIN),
    ]
    .concat();
    let nodes = nodes(&cluster, "timeout: 50ms", &policies, 1)?;
    // This node counts.
    assert_eq!(bursts(&nodes, "hundred", 120)?, [100, 20]);
    assert_eq!(nodes[0].unanswered()?, 120.0);
    let process = &nodes[0].scene.daemon.process;
    eventually("all servers to have been asked in vain", || {
        Ok(process
            .output()
            .contains("says where keys are")
            .then_some(()))
    })?;
    for server in &cluster.servers {
        server.thaw()?;
    }
    recovered(&nodes[0], "plain")?;
    let output = nodes[0].scene.daemon.process.output();
    assert!(output.contains("cluster are is known"), "{output}");
    // A server that loses its scripts gets them again.
    for server in &cluster.servers {
        server.ask(&["SCRIPT", "FLUSH"])?;
    }
    recovered(&nodes[0], "plain")
}

/// Every server has a breaker of its own.
#[test]
fn a_server_that_stands_still_keeps_nobody_from_the_others() -> Result<()> {
    let partial = ["--cluster-require-full-coverage", "no"];
    let cluster = RedisCluster::start_with(3, 0, &["--port"], &partial, &[])?;
    let policies = [
        limited_host(
            "users",
            "global: {rules: [{clientSelectors: [{headers: [{name: x-user, type: Distinct}]}],
               limit: {requests: 5, unit: Day}, limiterd: {onStoreFailure: Deny}}]}",
        ),
        limited_host("plain", PLAIN),
    ]
    .concat();
    let nodes = nodes(&cluster, "timeout: 1s", &policies, 1)?;
    recovered(&nodes[0], "plain")?;
    cluster.servers[0].freeze()?;
    let mut without = 0;
    for number in 0..24 {
        match user(&nodes[0], "users", &format!("u{number}"), 6)? {
            [5, 1, 0] => {}
            [0, 0, 6] => without += 1,
            other => panic!("u{number}: {other:?}"),
        }
    }
    assert!((1..24).contains(&without), "{without}");
    assert!(nodes[0].asked("not_asked")? > 0.0);
    assert!(nodes[0].state()? > 0.0);
    cluster.servers[0].thaw()?;
    eventually("all to be asked again", || {
        for number in 0..24 {
            user(&nodes[0], "users", &format!("u{number}"), 1)?;
        }
        Ok((nodes[0].state()? == 0.0).then_some(()))
    })
}

/// What the documentation says that the user needs.
#[test]
fn a_cluster_behind_tls_and_a_user() -> Result<()> {
    let authority = Authority::new()?;
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name).display().to_string();
    let [chain, key] = authority.pair(ADDRESS)?;
    std::fs::write(path("chain.pem"), chain)?;
    std::fs::write(path("key.pem"), key)?;
    std::fs::write(path("ca.pem"), authority.pem())?;
    let (chain, key, ca) = (path("chain.pem"), path("key.pem"), path("ca.pem"));
    let files = [
        "--tls-cert-file",
        &chain,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
    ];
    let user = [
        "--user",
        "limiter",
        "on",
        ">s3cret",
        "~limiterd:*",
        "+evalsha",
        "+eval",
        "+script|load",
        "+time",
        "+get",
        "+set",
        "+del",
        "+hello",
        "+select",
        "+asking",
        "+cluster|slots",
    ];
    let tls = [
        "--port",
        "0",
        "--tls-cluster",
        "yes",
        "--tls-replication",
        "yes",
        "--tls-port",
    ];
    let cli = ["--tls", "--cacert", &ca, "--cert", &chain, "--key", &key];
    let more = [&files[..], &user].concat();
    let cluster = RedisCluster::start_with(3, 0, &tls, &more, &cli)?;
    let store = format!(
        "{}---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyGateway
rateLimit:
  backend:
    type: Redis
    redis: {{url: \"rediss://limiter:s3cret@{}\", tls: {{certificateRef: {{name: ours}}}}}}
  timeout: 20s
",
        authority.secret_with_authority("ours", "client")?,
        cluster.url()
    );
    let policies = [
        limited_host("hundred", HUNDRED),
        limited_host("plain", PLAIN),
    ]
    .concat();
    let node = Node::inside(cluster.neighbour(1)?, &store, &policies)?;
    assert_eq!(node.burst("hundred", 60)?, [60, 0, 0]);
    // Also where it is sent on.
    let (slot, from, key) = cluster.find("default/hundred")?;
    let way = (from, (from + 1) % 3);
    cluster.begin_moving(slot, way)?;
    cluster.servers[way.1].ask(&["SCRIPT", "FLUSH"])?;
    // (`MIGRATE` would have to speak TLS; without the key all begins anew at the other server.)
    cluster.servers[way.0].ask(&["DEL", &key])?;
    assert_eq!(node.burst("hundred", 110)?, [100, 10, 0]);
    let page = node.scene.metrics()?;
    assert!(page.sum("limiterd_store_redirections_total", &[]) >= 110.0);
    assert_eq!(node.unanswered()?, 0.0);
    Ok(())
}
