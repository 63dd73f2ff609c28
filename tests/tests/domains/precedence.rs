//! Weights and sets: random domains and questions, through memory (which a plain model is beside, in
//! the unit tests) and through a real Redis. The time is told; so nothing sleeps.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use limiter_common::Limit;
use limiter_daemon::engine::domain::{Asked, Domain, DomainStore, Domains, Hits};
use limiter_daemon::engine::state::State;
use limiter_daemon::engine::time::Now;
use limiter_daemon::global::{RedisLedger, Time, Windows};
use limiter_daemon::policy::plan::{
    self, Algorithm, Amount, Descriptor, DomainKeys, DomainLimit, EntryValue, OnStoreFailure,
    SET_MARK, SetRule, StoreAddress, StoreConfig, TimeUnit,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use tests::counting::Counting;
use tests::netns::Netns;
use tests::redis::Redis;
use tests::redis_cluster::RedisCluster;

/// Some time on no boundary.
const BEGIN: u64 = 1_700_000_123_456_789_000;
const MINUTE: u64 = 60_000_000_000;
const KEYS: [&str; 3] = ["a", "b", "c"];
const VALUES: [&str; 2] = ["x", "y"];

/// Key, value (empty: any), requests, weight, whether it always applies.
type Node = (&'static str, &'static str, u32, u32, bool);
/// Entries, requests, whether it always applies.
type Rule = (Vec<(&'static str, &'static str)>, u32, bool);
/// Whether it is a set, its entries, its hits.
type Ask = (bool, Vec<(&'static str, &'static str)>, Hits);

fn limit(requests: u32, weight: u32, always: bool) -> DomainLimit {
    let tokens = u64::from(requests);
    DomainLimit {
        amount: Amount::PerUnit {
            requests,
            unit: TimeUnit::Minute,
            limit: Limit::new(tokens, tokens, MINUTE).expect("a limit"),
        },
        name: None,
        replaces: Vec::new(),
        shadow: false,
        quota: false,
        detailed: false,
        metadata: None,
        weight,
        always,
        written: None,
    }
}

fn descriptor((key, value, requests, weight, always): &Node) -> Descriptor {
    Descriptor {
        key: (*key).to_owned(),
        value: match *value {
            "" => EntryValue::Any,
            value => EntryValue::Is(value.to_owned()),
        },
        share_threshold: false,
        value_to_metric: false,
        limit: Some(limit(*requests, *weight, *always)),
        descriptors: Vec::new(),
    }
}

fn domain(nodes: &[Node], rules: &[Rule], reference: bool) -> plan::Domain {
    let mut descriptors: Vec<Descriptor> = Vec::new();
    for node in nodes {
        let made = descriptor(node);
        let same = |other: &Descriptor| (&other.key, &other.value) == (&made.key, &made.value);
        if !descriptors.iter().any(same) {
            descriptors.push(made);
        }
    }
    let rules = rules.iter().map(|(entries, requests, always)| {
        let entry = |(key, value): &(&str, &str)| {
            let value = (!value.is_empty()).then(|| (*value).to_owned());
            ((*key).to_owned(), value)
        };
        let mut entries: Vec<_> = entries.iter().map(entry).collect();
        entries.sort_unstable();
        entries.dedup();
        SetRule {
            entries,
            limit: limit(*requests, 0, *always),
        }
    });
    plan::Domain {
        algorithm: Algorithm::FixedWindow,
        keys: if reference {
            DomainKeys::Reference {
                prefix: String::new(),
            }
        } else {
            DomainKeys::Own
        },
        descriptors,
        sets: Some(rules.collect()),
        ..plan::Domain::new("d")
    }
}

/// What is said of a question.
async fn decide(domain: &Domain, asks: &[Ask], now: u64) -> Result<String> {
    let entries: Vec<Vec<(&str, &str)>> = asks
        .iter()
        .map(|(set, entries, _)| {
            let mark = set.then_some(SET_MARK);
            mark.into_iter().chain(entries.iter().copied()).collect()
        })
        .collect();
    let asked: Vec<_> = asks
        .iter()
        .zip(&entries)
        .map(|((_, _, hits), entries)| Asked {
            entries,
            limit: None,
            hits: *hits,
        })
        .collect();
    let now = Now {
        mono: now,
        unix: now,
    };
    let outcome = domain.decide(&asked, now).outcome().await?;
    let statuses = outcome.statuses.iter().map(|status| {
        let rule = status.limited.as_ref().map(|limited| limited.rule());
        (rule, status.over_limit, status.remaining)
    });
    Ok(format!(
        "{} {:?}",
        outcome.over_limit,
        statuses.collect::<Vec<_>>()
    ))
}

fn counted(state: &State) -> Vec<String> {
    let limits = state.service_limits();
    let count = limits
        .iter()
        .map(|one| format!("{:?} {:?}", one.path, one.counts()));
    count.collect()
}

async fn case(
    (redis, address): (&[Redis], &StoreAddress),
    number: u32,
    plan: plan::Domain,
    questions: &[(u64, Vec<Ask>)],
) -> Result<()> {
    // Keys of the reference's form have no prefix of the test.
    for server in redis {
        server.ask(&["FLUSHALL"])?;
    }
    let config = StoreConfig {
        address: address.clone(),
        user: None,
        password: None,
        database: 0,
        tls: None,
        budget: Duration::from_secs(60),
        prefix: format!("p{number}:"),
        on_failure: OnStoreFailure::Deny,
        over_limit_memory: 0,
    };
    let counting = Counting::new(Arc::new(RedisLedger::by(&config, Time::Told)?));
    let windows = Arc::new(Windows::new(counting.whole(address), config.budget));
    let store = Arc::new(DomainStore::new(windows, &config.prefix));
    let shared = State::new(1024).with_domain_store(store);
    let here = State::new(1024);
    let plan = [plan];
    let domains = [&shared, &here].map(|state| Domains::compile(&plan, state));
    let [by_store, by_memory] = domains
        .each_ref()
        .map(|domains| domains.get("d").expect("it is there"));
    let mut now = BEGIN;
    for (later, asks) in questions {
        now += later * 1_000_000_000;
        let memory = decide(by_memory, asks, now).await?;
        let told = decide(by_store, asks, now).await?;
        counting.settled().await;
        ensure!(told == memory, "{asks:?}: {told} is not {memory}");
    }
    ensure!(counted(&shared) == counted(&here));
    Ok(())
}

/// Random cases through memory and these servers.
fn compare(redis: &[Redis], address: &StoreAddress, cases: u32) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let values = || select(vec!["", "x", "y"]);
    let node = (
        select(&KEYS[..]),
        values(),
        1u32..6,
        0u32..3,
        prop::bool::weighted(0.2),
    );
    let rule = (
        vec((select(&KEYS[..]), values()), 0..3),
        1u32..6,
        any::<bool>(),
    );
    let hits = prop_oneof![
        6 => (0u64..3).prop_map(Hits::Take),
        1 => (1u64..3).prop_map(Hits::GiveBack),
    ];
    let entries = vec((select(&KEYS[..]), select(&VALUES[..])), 1..4);
    let question = (0u64..20, vec((any::<bool>(), entries, hits), 1..4));
    let questions = (
        vec(node, 0..5),
        vec(rule, 0..5),
        any::<bool>(),
        vec(question, 1..20),
    );
    let number = Cell::new(0u32);
    let result = runner.run(&questions, |(nodes, rules, reference, questions)| {
        number.set(number.get() + 1);
        let plan = domain(&nodes, &rules, reference);
        runtime
            .block_on(case((redis, address), number.get(), plan, &questions))
            .map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    result.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(())
}

#[test]
fn redis_decides_as_memory_does() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let address = StoreAddress::Unix(redis.socket());
    compare(&[redis], &address, 192)
}

/// Keys of the reference's form lie all over it, those of sets in one place.
#[test]
fn a_cluster_decides_as_memory_does() -> Result<()> {
    let cluster = RedisCluster::start(3, 0)?;
    let compare = || compare(&cluster.servers, &cluster.store(), 64);
    cluster.netns.enter(compare)
}
