//! Leases, and what is remembered of keys over their limit, with a real Redis.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::{HeaderMap, HeaderValue, Method};
use limiter_daemon::engine::meter::{Meter, Reading, Snapshot, Verdict};
use limiter_daemon::engine::request::RequestView;
use limiter_daemon::engine::state::State;
use limiter_daemon::engine::store::SharedStore;
use limiter_daemon::engine::store::lease::Leases;
use limiter_daemon::engine::store::ledger::{Conforms, Form, Item, Ledger, Question, Role};
use limiter_daemon::engine::store::over_limit::OverLimit;
use limiter_daemon::engine::store::parts::{Parts, Place};
use limiter_daemon::engine::time::Now;
use limiter_daemon::global::{RedisLedger, Time};
use limiter_daemon::policy::plan::{Algorithm, Lease, OnStoreFailure, StoreAddress};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tests::daemon::eventually;
use tests::netns::Netns;
use tests::policies::limited_host;
use tests::redis::Redis;
use tests::redis_cluster::RedisCluster;

use crate::model::{BEGIN, Kind, Spec, Step, USER, config, end, limits, said, spec, step};
use crate::support::{Node, PATIENT};

/// Rules that may have a lease, and others; some of windows only.
fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let windows = prop_oneof![Just(Algorithm::FixedWindow), Just(Algorithm::SlidingWindow)];
    let lease = (1u64..7, prop_oneof![Just(10u64), Just(2_000), Just(60_000)]);
    let one = (spec(), windows, prop::option::weighted(0.8, lease));
    (prop::collection::vec(one, 1..4), any::<bool>()).prop_map(|(all, only_windows)| {
        let each = |(spec, algorithm, lease): (Spec, Algorithm, Option<(u64, u64)>)| {
            let kind = match spec.kind {
                Kind::Counted(_) if only_windows => Kind::Counted(algorithm),
                kind => kind,
            };
            let bucket = matches!(kind, Kind::Counted(Algorithm::TokenBucket));
            let can =
                matches!(kind, Kind::Counted(_)) && spec.cost > 0 && spec.cost <= spec.capacity;
            let lease = lease.filter(|_| can).map(|(size, millis)| Lease {
                size: size.clamp(spec.cost, spec.capacity),
                max_age: Duration::from_millis(millis),
            });
            let leased = lease.is_some();
            Spec {
                kind,
                lease,
                shadow: spec.shadow && !leased,
                candidates: if leased { Vec::new() } else { spec.candidates },
                // What a lease makes of these is stated otherwise: stricter for buckets that are
                // nearly full, and debts are met at the next question.
                response: spec.response.filter(|_| !leased),
                refunds: spec.refunds && !(leased && bucket),
                ..spec
            }
        };
        all.into_iter().map(each).collect()
    })
}

/// A node without leases, which counts in its memory, and one with leases, decide the same: of windows
/// always, of token buckets as long as no time passes over what is in hand.
async fn case(address: &StoreAddress, prefix: &str, specs: &[Spec], steps: &[Step]) -> Result<u64> {
    let split = matches!(address, StoreAddress::Cluster(_));
    let bucket = |spec: &Spec| matches!(spec.kind, Kind::Counted(Algorithm::TokenBucket));
    let keeps = !specs.iter().any(bucket);
    let node = |name: &str, remembers: bool| -> Result<_> {
        let config = config(address, format!("{prefix}{name}:"));
        let redis = Arc::new(RedisLedger::by(&config, Time::Told)?);
        let mut ledger: Arc<dyn Ledger> = Arc::<RedisLedger>::clone(&redis);
        if split {
            let place = Place {
                ledger,
                slots: true,
            };
            ledger = Arc::new(Parts::new(place, None));
        }
        if remembers {
            ledger = Arc::new(OverLimit::new(ledger, 1024));
        }
        let leases = Arc::new(Leases::new(ledger));
        let ledger = Arc::<Leases>::clone(&leases);
        let store = SharedStore::new(ledger, &config.prefix, OnStoreFailure::Deny);
        let state = State::new(1024).with_store(Arc::new(store));
        let limits = limits(specs, split, &state);
        Ok((redis, leases, state, limits))
    };
    let nodes = [node("plain", false)?, node("remembers", true)?];
    let here = State::new(1024);
    let by_memory = limits(specs, split, &here);
    let mut now = BEGIN;
    let mut under_way = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let at = |now| Now {
            mono: now,
            unix: now,
        };
        for (redis, leases, ..) in &nodes {
            if keeps {
                leases.tend(at(now + step.later * 1_000));
            } else if step.later > 0 {
                leases.end(at(now));
            }
            redis.settled().await;
        }
        now += step.later * 1_000;
        let user = HeaderValue::from_str(&format!("user-{}", step.user))?;
        let headers = HeaderMap::from_iter([(USER, user)]);
        let request = RequestView {
            connection: None,
            method: &Method::GET,
            path: "/",
            query: None,
            headers: &headers,
            client: [192, 0, 2, 1].into(),
        };
        let memory = by_memory.decide(&request, at(now)).outcome().await;
        let [(_, _, _, plain), (_, _, _, remembers)] = &nodes;
        let plain = plain.decide(&request, at(now)).outcome().await;
        let remembers = remembers.decide(&request, at(now)).outcome().await;
        ensure!(
            said(&memory) == said(&plain),
            "{} is not {}",
            said(&plain),
            said(&memory)
        );
        ensure!(memory.denied.is_some() == remembers.denied.is_some());
        under_way.push((number + step.lasts, step.end, [memory, plain, remembers]));
        let last = number + 1 == steps.len();
        for (_, how, outcomes) in under_way.extract_if(.., |(over, ..)| last || *over <= number) {
            for outcome in outcomes {
                end(outcome, how, at(now));
            }
            for (redis, ..) in &nodes {
                redis.settled().await;
                ensure!(
                    redis.counts().lost_adjustments() == 0,
                    "{:?}",
                    redis.counts()
                );
            }
        }
    }
    let (_, leases, ..) = &nodes[0];
    Ok(leases.table().counts().decisions())
}

/// Runs random cases through memory, and through leases on the store at `address`.
fn compare(address: &StoreAddress, cases: u32) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let (number, by_lease) = (std::cell::Cell::new(0u32), std::cell::Cell::new(0u64));
    let frequent = prop::bool::weighted(0.7);
    let steps = (step(), frequent).prop_map(|(step, frequent)| Step {
        later: if frequent {
            step.later / 100
        } else {
            step.later
        },
        ..step
    });
    let strategy = (specs(), prop::collection::vec(steps, 1..50));
    let result = runner.run(&strategy, |(specs, steps)| {
        number.set(number.get() + 1);
        let prefix = format!("l{}", number.get());
        let decided = runtime
            .block_on(case(address, &prefix, &specs, &steps))
            .map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        by_lease.set(by_lease.get() + decided);
        Ok(())
    });
    result.map_err(|error| anyhow::anyhow!("{error}"))?;
    ensure!(by_lease.get() > 0, "no lease was used");
    Ok(())
}

#[test]
fn leases_decide_as_memory_does() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    compare(&StoreAddress::Unix(redis.socket()), 96)
}

#[test]
fn leases_on_a_cluster_decide_as_memory_does() -> Result<()> {
    let cluster = RedisCluster::start(3, 0)?;
    let address = cluster.store();
    cluster.netns.enter(|| compare(&address, 48))
}

/// A bucket that is asked about, and how many times more its tokens are to be taken.
#[derive(Clone, Copy, Debug)]
struct Grant {
    later: u64,
    tokens: u64,
    again: u64,
}

/// Asks once; what is said must be what taking one by one comes to.
async fn grant(
    ledger: &RedisLedger,
    key: &str,
    meter: &Meter,
    (now, before): (u64, Reading),
    grant: Grant,
) -> Result<Reading> {
    let at = Now {
        mono: now,
        unix: now,
    };
    let item = Item {
        key: key.to_owned(),
        meter: *meter,
        tokens: grant.tokens,
        role: Role::Enforced,
        form: Form::Own,
        lease: None,
        again: grant.again,
    };
    let snapshot = Snapshot::new(meter, before);
    let mut times = 0;
    let mut mark = None;
    while times <= grant.again {
        match meter.take(&snapshot, grant.tokens, at) {
            Verdict::Admit { mark: first } => mark = mark.or(Some(first)),
            Verdict::Deny { .. } => break,
        }
        times += 1;
    }
    let question = Question {
        denials: 0,
        items: std::iter::once(item.clone()).collect(),
    };
    let asking = ledger.ask(question, at).context("it is asked")?;
    let reply = asking
        .await
        .map_err(|_unanswered| anyhow::anyhow!("no answer"))?;
    let said = reply.said[0];
    let admitted = u64::from(said.conforms == Conforms::Yes);
    ensure!(admitted + said.granted == times, "{said:?}, not {times}");
    ensure!(
        mark.is_none_or(|mark| mark == said.mark),
        "{said:?}, not {mark:?}"
    );
    let wanted = meter.standing(&snapshot, at);
    let standing = meter.standing(&Snapshot::new(meter, said.reading), at);
    ensure!(standing == wanted, "{standing:?} is not {wanted:?}");
    Ok(said.reading)
}

#[test]
fn the_store_grants_what_is_there() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let config = config(&StoreAddress::Unix(redis.socket()), String::new());
    let ledger = runtime.block_on(async { RedisLedger::by(&config, Time::Told) })?;
    let mut runner = TestRunner::new(Config {
        cases: 96,
        failure_persistence: None,
        ..Config::default()
    });
    let number = std::cell::Cell::new(0u32);
    let algorithm = prop_oneof![
        Just(Algorithm::TokenBucket),
        Just(Algorithm::FixedWindow),
        Just(Algorithm::SlidingWindow),
    ];
    // From a few a year to 10^9 a second, whose tokens are worth fractions of a nanosecond.
    let capacity = prop_oneof![1u64..50, 1_000u64..100_000, 1_000_000u64..1_000_000_000];
    let seconds = prop_oneof![Just(1u64), Just(60), Just(31_536_000)];
    let grants = (0u64..40_000_000, 1u64..100, 0u64..200);
    let grants = grants.prop_map(|(later, tokens, again)| Grant {
        later,
        tokens,
        again,
    });
    let strategy = (
        algorithm,
        capacity,
        seconds,
        1u64..200,
        prop::collection::vec(grants, 1..12),
    );
    let result = runner.run(
        &strategy,
        |(algorithm, capacity, seconds, share, grants)| {
            number.set(number.get() + 1);
            let limit = limiter_common::Limit::new(capacity, capacity, seconds * 1_000_000_000)
                .map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
            let meter = Meter::new(limit, algorithm, seconds, false);
            let asked = async {
                let (mut now, mut reading) = (BEGIN, Reading::Unknown);
                for one in &grants {
                    now += one.later * 1_000;
                    // So many that some grants meet the limit.
                    let tokens = (one.tokens * capacity / 100 / share).max(1);
                    let one = Grant { tokens, ..*one };
                    let key = number.get().to_string();
                    reading = grant(&ledger, &key, &meter, (now, reading), one).await?;
                }
                anyhow::Ok(())
            };
            runtime
                .block_on(asked)
                .map_err(|error| TestCaseError::fail(format!("{error:#}")))
        },
    );
    result.map_err(|error| anyhow::anyhow!("{error}"))
}

/// How often the server ran a script.
fn scripts(redis: &Redis) -> Result<u64> {
    let stats = redis.ask(&["INFO", "commandstats"])?;
    let calls = |name: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(name))?;
        line.split(',').next()?.parse::<u64>().ok()
    };
    Ok(["cmdstat_evalsha:calls=", "cmdstat_eval:calls="]
        .iter()
        .filter_map(|name| calls(name))
        .sum())
}

#[test]
fn ten_thousand_decisions_cost_a_hundred_round_trips() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let algorithms = [
        Algorithm::TokenBucket,
        Algorithm::FixedWindow,
        Algorithm::SlidingWindow,
    ];
    for algorithm in algorithms {
        let before = scripts(&redis)?;
        let spec = Spec {
            kind: Kind::Counted(algorithm),
            capacity: 9_990,
            seconds: 31_536_000,
            cost: 1,
            each: false,
            shadow: false,
            candidates: Vec::new(),
            response: None,
            refunds: false,
            lease: Some(Lease {
                size: 100,
                max_age: Duration::from_secs(60),
            }),
        };
        let config = config(
            &StoreAddress::Unix(redis.socket()),
            format!("{algorithm:?}:"),
        );
        let admitted = runtime.block_on(async {
            let ledger = Arc::new(RedisLedger::by(&config, Time::Told)?);
            let leases = Arc::new(Leases::new(ledger));
            let store = SharedStore::new(leases, &config.prefix, OnStoreFailure::Deny);
            let state = State::new(64).with_store(Arc::new(store));
            let limits = limits(&[spec], false, &state);
            let headers = HeaderMap::new();
            let request = RequestView {
                connection: None,
                method: &Method::GET,
                path: "/",
                query: None,
                headers: &headers,
                client: [192, 0, 2, 1].into(),
            };
            let mut admitted = 0;
            for n in 0..10_000 {
                let now = Now {
                    mono: BEGIN + n * 1_000,
                    unix: BEGIN + n * 1_000,
                };
                let outcome = limits.decide(&request, now).outcome().await;
                admitted += u64::from(outcome.denied.is_none());
            }
            anyhow::Ok(admitted)
        })?;
        assert_eq!(admitted, 9_990, "{algorithm:?}");
        let trips = scripts(&redis)? - before;
        // The last ten are denied, and there is no memory of that here.
        assert!((99..=120).contains(&trips), "{algorithm:?}: {trips}");
    }
    Ok(())
}

/// What all nodes together admit of `requests` each.
fn together(nodes: &[Node], host: &str, requests: usize) -> Result<usize> {
    std::thread::scope(|scope| {
        let asking: Vec<_> = nodes
            .iter()
            .map(|node| scope.spawn(|| node.burst(host, requests)))
            .collect();
        let mut admitted = 0;
        for asking in asking {
            let panicked = |_| anyhow::anyhow!("a node failed");
            admitted += asking.join().map_err(panicked)??[0];
        }
        Ok(admitted)
    })
}

fn sum(nodes: &[Node], name: &str) -> Result<f64> {
    let of = |node: &Node| Ok(node.scene.metrics()?.sum(name, &[]));
    nodes.iter().map(of).sum()
}

#[test]
fn three_nodes_with_leases_admit_the_limit() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    // Tokens come back too seldom to be seen: the bound is the limit.
    let rule = |more: &str| {
        format!(
            "global: {{rules: [{{limit: {{requests: 300, unit: Year}}, \
             limiterd: {{lease: {{size: 20, maxAge: 1s}}{more}}}}}]}}"
        )
    };
    let policies = [
        limited_host("bucket", &rule("")),
        limited_host("fixed", &rule(", algorithm: FixedWindow")),
        limited_host("sliding", &rule(", algorithm: SlidingWindow")),
    ]
    .concat();
    let nodes = (0..3)
        .map(|_| Node::start(&redis.url(), PATIENT, &policies))
        .collect::<Result<Vec<_>>>()?;
    for host in ["bucket", "fixed", "sliding"] {
        let mut admitted = 0;
        for _ in 0..8 {
            admitted += together(&nodes, host, 15)?;
        }
        // At most what nodes hold may be missing.
        assert!((240..=300).contains(&admitted), "{host}: {admitted}");
        eventually("unused tokens to go back", || {
            Ok((sum(&nodes, "limiterd_store_leases")? == 0.0).then_some(()))
        })?;
        eventually("the rest to be admitted", || {
            admitted += together(&nodes, host, 1)?;
            Ok((admitted >= 300).then_some(()))
        })?;
        admitted += together(&nodes, host, 15)?;
        assert_eq!(admitted, 300, "{host}");
    }
    assert!(sum(&nodes, "limiterd_store_lease_decisions_total")? > 0.0);
    for node in &nodes {
        assert_eq!(node.unanswered()?, 0.0);
    }
    Ok(())
}

#[test]
fn a_clean_stop_gives_leases_back() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let policies = limited_host(
        "leased",
        "global: {rules: [{limit: {requests: 100, unit: Year}, \
         limiterd: {lease: {size: 50, maxAge: 60s}, algorithm: FixedWindow}}]}",
    );
    let node = Node::start(&redis.url(), PATIENT, &policies)?;
    for _ in 0..12 {
        assert_eq!(node.scene.get("leased", "/", &[])?.status, 200);
    }
    assert!(node.scene.metrics()?.sum("limiterd_store_leases", &[]) > 0.0);
    node.scene.daemon.stop()?;
    let key = redis.keys()?.pop().context("a key")?;
    let state = redis.ask(&["GET", &key])?;
    // End, count, and the count of the window before.
    assert_eq!(state.split(':').nth(1), Some("12"), "{state}");
    Ok(())
}

#[test]
fn a_lease_is_used_while_the_store_is_away() -> Result<()> {
    let netns = Netns::new("redis")?;
    let mut redis = Redis::start(&netns)?;
    let policies = limited_host(
        "leased",
        "global: {rules: [{limit: {requests: 100, unit: Year}, \
         limiterd: {lease: {size: 50, maxAge: 60s}, onStoreFailure: Deny}}]}",
    );
    let node = Node::start(&redis.url(), "timeout: 200ms", &policies)?;
    eventually("the store to be asked", || {
        let held = node.scene.metrics()?.sum("limiterd_store_leases", &[]);
        let enough = held >= 3.0;
        if !enough {
            node.burst("leased", 1)?;
        }
        Ok(enough.then_some(()))
    })?;
    let held = node.scene.metrics()?.sum("limiterd_store_leases", &[]);
    redis.kill()?;
    for _ in 0..3 {
        assert_eq!(node.scene.get("leased", "/", &[])?.status, 200, "{held}");
    }
    eventually("the lease to be used up", || {
        let denied = node.scene.get("leased", "/", &[])?.status == 500;
        Ok(denied.then_some(()))
    })?;
    assert_eq!(node.scene.metrics()?.sum("limiterd_store_leases", &[]), 0.0);
    Ok(())
}

#[test]
fn what_is_over_its_limit_is_not_asked_about() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let policies = limited_host(
        "ten",
        "global: {rules: [{limit: {requests: 10, unit: Year}}]}",
    );
    let node = Node::start(&redis.url(), PATIENT, &policies)?;
    assert_eq!(node.burst("ten", 10)?, [10, 0, 0]);
    let mut denied = 0;
    eventually("answers from memory", || {
        denied += node.burst("ten", 20)?[1];
        Ok((node.remembered()? > 0.0).then_some(()))
    })?;
    let asked = node.asked("ok")? + node.remembered()?;
    assert_eq!(asked, f64::from(u32::try_from(denied)? + 10));
    // Clients are told as by the store.
    let answer = node.scene.get("ten", "/", &[])?;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.headers["x-ratelimit-remaining"], "0");
    assert!(answer.headers.contains_key("retry-after"));
    Ok(())
}

#[test]
fn nothing_is_remembered_where_that_is_off() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let policies = limited_host(
        "ten",
        "global: {rules: [{limit: {requests: 10, unit: Year}}]}",
    );
    let store = format!(
        "\
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {{name: limiterd}}
spec:
  rateLimit:
    backend: {{type: Redis, redis: {{url: \"{}\"}}}}
    timeout: 20s
    overLimitMemory: 0
",
        redis.url()
    );
    let node = Node::with(&store, &policies)?;
    for _ in 0..3 {
        node.burst("ten", 20)?;
    }
    assert_eq!(node.asked("ok")?, 60.0);
    assert_eq!(node.remembered()?, 0.0);
    Ok(())
}
