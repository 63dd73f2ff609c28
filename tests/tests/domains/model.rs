//! Random domains and questions, through memory and through a real Redis, and against one plain model
//! where counts are plain.
//!
//! The time is told; so nothing sleeps, and all see the same.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use limiter_common::Limit;
use limiter_daemon::engine::domain::{
    Asked, Domain, DomainStore, Domains, Hits, Outcome, Override,
};
use limiter_daemon::engine::state::State;
use limiter_daemon::engine::time::Now;
use limiter_daemon::global::{RedisLedger, Time, Windows};
use limiter_daemon::policy::plan::{
    self, Algorithm, Amount, Descriptor, DomainKeys, DomainLimit, EntryValue, OnStoreFailure,
    StoreAddress, StoreConfig, TimeUnit,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use tests::counting::Counting;
use tests::netns::Netns;
use tests::redis::Redis;
use tests::redis_cluster::RedisCluster;

const SECOND: u64 = 1_000_000_000;
/// Some day, on no boundary.
const BEGIN: u64 = 1_700_000_123_456_789_000;
const KEYS: [&str; 3] = ["a", "b", "c"];
const VALUES: [&str; 3] = ["x", "xy", "y"];
/// Of nodes: any, one, and patterns, the last of which shares its count.
const NODES: [&str; 4] = ["", "x", "x*", "*y"];
/// Nanoseconds divide by them without a rest in every unit.
const SIZES: [u32; 4] = [1, 2, 5, 10];

#[derive(Clone, Debug)]
struct Spec {
    key: &'static str,
    value: &'static str,
    /// `None`: unlimited; 0: nothing.
    requests: Option<u32>,
    unit: TimeUnit,
    shadow: bool,
    quota: bool,
}

#[derive(Clone, Debug)]
struct Ask {
    key: &'static str,
    value: &'static str,
    hits: Hits,
    limit: Option<Override>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    algorithm: Algorithm,
    reference: bool,
}

fn unit() -> impl Strategy<Value = TimeUnit> {
    select(vec![TimeUnit::Second, TimeUnit::Minute, TimeUnit::Year])
}

fn spec() -> impl Strategy<Value = Spec> {
    let requests = prop_oneof![
        1 => Just(None),
        1 => Just(Some(0)),
        8 => select(&SIZES[..]).prop_map(Some),
    ];
    (
        select(&KEYS[..]),
        select(&NODES[..]),
        requests,
        unit(),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.4),
    )
        .prop_map(|(key, value, requests, unit, shadow, quota)| Spec {
            key,
            value,
            requests,
            unit,
            shadow,
            quota,
        })
}

fn ask() -> impl Strategy<Value = Ask> {
    let hits = prop_oneof![
        6 => Just(Hits::Take(1)),
        1 => Just(Hits::Take(0)),
        2 => (2u64..5).prop_map(Hits::Take),
        2 => (0u64..4).prop_map(Hits::GiveBack),
        1 => Just(Hits::GiveBack(u64::MAX)),
    ];
    let brought = (prop_oneof![1 => Just(0), 5 => select(&SIZES[..])], unit());
    let limit = brought.prop_map(|(requests, unit)| Override { requests, unit });
    (
        select(&KEYS[..]),
        select(&VALUES[..]),
        hits,
        prop::option::weighted(0.15, limit),
    )
        .prop_map(|(key, value, hits, limit)| Ask {
            key,
            value,
            hits,
            limit,
        })
}

/// Questions, and the microseconds that go by before each.
fn questions() -> impl Strategy<Value = Vec<(u64, Vec<Ask>)>> {
    let later = prop_oneof![
        4 => Just(0u64),
        2 => 0u64..400_000,
        1 => 0u64..5_000_000,
        1 => 0u64..90_000_000,
    ];
    vec((later, vec(ask(), 1..5)), 1..40)
}

fn compile(specs: &[Spec], way: Way, state: &State) -> Domains {
    let descriptors = specs.iter().map(|spec| Descriptor {
        key: spec.key.to_owned(),
        value: match spec.value {
            "" => EntryValue::Any,
            value if value.contains('*') => EntryValue::Like(value.to_owned()),
            value => EntryValue::Is(value.to_owned()),
        },
        share_threshold: shares(spec),
        value_to_metric: spec.quota,
        limit: Some(DomainLimit {
            amount: match spec.requests {
                None => Amount::Unlimited,
                Some(0) => Amount::Nothing(spec.unit),
                Some(requests) => Amount::PerUnit {
                    requests,
                    unit: spec.unit,
                    limit: bucket(requests, spec.unit),
                },
            },
            name: None,
            replaces: Vec::new(),
            shadow: spec.shadow,
            quota: spec.quota,
            detailed: false,
            metadata: None,
            weight: 0,
            always: false,
            written: None,
        }),
        descriptors: Vec::new(),
    });
    let domain = plan::Domain {
        algorithm: way.algorithm,
        keys: if way.reference {
            DomainKeys::Reference {
                prefix: String::new(),
            }
        } else {
            DomainKeys::Own
        },
        descriptors: descriptors.collect(),
        ..plan::Domain::new("d")
    };
    Domains::compile(&[domain], state)
}

fn shares(spec: &Spec) -> bool {
    spec.value == "*y"
}

fn bucket(requests: u32, unit: TimeUnit) -> Limit {
    let tokens = u64::from(requests);
    Limit::new(tokens, tokens, unit.seconds() * SECOND).expect("a limit")
}

/// Everything that is said. Where several descriptors have one count, how long one has to wait depends
/// on which of them were taken already; Redis says it for after all of them.
fn said(outcome: &Outcome, asks: &[Ask]) -> String {
    let most = if outcome.over_limit { 2 } else { 1 };
    let same = |ask: &Ask| asks.iter().filter(|other| other.key == ask.key).count() > most;
    let several = asks.iter().any(same);
    let statuses = outcome.statuses.iter().map(|status| {
        let rule = status.limited.as_ref().map(|limited| limited.rule());
        (
            rule.map(str::to_owned),
            status.over_limit,
            status.limit,
            status.remaining,
            if several { 0 } else { status.reset },
        )
    });
    let statuses: Vec<_> = statuses.collect();
    let decisive = outcome.decisive.filter(|_| !several);
    let over = outcome.over_limit;
    format!("{over} {decisive:?} {statuses:?}")
}

async fn decide(domain: &Domain, asks: &[Ask], now: u64) -> Result<Outcome> {
    let entries: Vec<_> = asks.iter().map(|ask| [(ask.key, ask.value)]).collect();
    let asked: Vec<_> = asks
        .iter()
        .zip(&entries)
        .map(|(ask, entries)| Asked {
            entries,
            limit: ask.limit,
            hits: ask.hits,
        })
        .collect();
    let now = Now {
        mono: now,
        unix: now,
    };
    Ok(domain.decide(&asked, now).outcome().await?)
}

/// A count of the model: of a limit (or of limits of requests, by unit), for a value, in a window.
type Count = (usize, &'static str, &'static str, u64);

/// A limit as the model sees it.
struct Met {
    count: Count,
    /// `None`: without number.
    capacity: Option<u64>,
    shadow: bool,
    quota: bool,
}

#[derive(Default)]
struct Model(HashMap<Count, u64>);

impl Model {
    fn met(specs: &[Spec], ask: &Ask, now: u64) -> Option<Met> {
        let window = |unit: TimeUnit| now / SECOND / unit.seconds();
        if let Some(limit) = ask.limit {
            let by = 100 + limit.unit as usize;
            return Some(Met {
                count: (by, ask.key, ask.value, window(limit.unit)),
                capacity: Some(u64::from(limit.requests)),
                shadow: false,
                quota: false,
            });
        }
        let like = |pattern: &str| match pattern.split_once('*') {
            Some((before, after)) => ask.value.starts_with(before) && ask.value.ends_with(after),
            None => false,
        };
        let find = |fits: &dyn Fn(&str) -> bool| {
            let fits = |spec: &Spec| spec.key == ask.key && fits(spec.value);
            specs.iter().position(fits)
        };
        let index = find(&|value| value == ask.value)
            .or_else(|| find(&like))
            .or_else(|| find(&|value| value.is_empty()))?;
        let spec = &specs[index];
        let value = if shares(spec) { "" } else { ask.value };
        Some(Met {
            count: (index, "", value, window(spec.unit)),
            capacity: spec.requests.map(u64::from),
            shadow: spec.shadow,
            quota: spec.quota,
        })
    }

    fn conforms(&self, met: &Met, hits: u64) -> bool {
        let count = self.0.get(&met.count).copied().unwrap_or_default();
        met.capacity.is_none_or(|all| count + hits.max(1) <= all)
    }

    fn take(&mut self, met: &Met, hits: u64) {
        *self.0.entry(met.count).or_default() += hits;
    }

    /// Whether the request is over a limit, and of each descriptor whether it is, and what is left.
    fn decide(&mut self, specs: &[Spec], asks: &[Ask], now: u64) -> (bool, Vec<(bool, u64)>) {
        let met: Vec<_> = asks.iter().map(|ask| Self::met(specs, ask, now)).collect();
        let mut takes = Vec::new();
        for (index, (met, ask)) in met.iter().zip(asks).enumerate() {
            match (met, ask.hits) {
                (Some(met), Hits::GiveBack(hits)) => {
                    // A limit of none has no count.
                    let counts = met.capacity != Some(0);
                    if let Some(count) = self.0.get_mut(&met.count).filter(|_| counts) {
                        *count = count.saturating_sub(hits);
                    }
                }
                (Some(met), Hits::Take(hits)) => takes.push((index, met, hits)),
                (None, _) => {}
            }
        }
        let mut over = vec![false; asks.len()];
        for (index, met, hits) in &takes {
            over[*index] = !met.shadow && !self.conforms(met, *hits);
        }
        let denies = |over: &[bool]| {
            let enforced = takes.iter().filter(|(_, met, _)| !met.shadow);
            let (quotas, others): (Vec<_>, Vec<_>) = enforced.partition(|(_, met, _)| met.quota);
            let mut quotas = quotas
                .iter()
                .filter(|(_, met, _)| met.capacity.is_some())
                .peekable();
            others.iter().any(|(index, ..)| over[*index])
                || (quotas.peek().is_some() && quotas.all(|(index, ..)| over[*index]))
        };
        let before = self.0.clone();
        let mut denied = denies(&over);
        for (index, met, hits) in &takes {
            if denied || met.shadow || over[*index] {
                continue;
            }
            if self.conforms(met, *hits) {
                self.take(met, *hits);
            } else {
                over[*index] = true;
                denied = denies(&over);
            }
        }
        if denied {
            self.0 = before;
        }
        for (_, met, hits) in &takes {
            if !denied && met.shadow && self.conforms(met, *hits) {
                self.take(met, *hits);
            }
        }
        let left = met.iter().map(|met| match met {
            None => 0,
            Some(met) => met.capacity.map_or(u64::MAX, |all| {
                all.saturating_sub(self.0.get(&met.count).copied().unwrap_or_default())
            }),
        });
        (denied, over.into_iter().zip(left).collect())
    }
}

fn counted(state: &State) -> Vec<String> {
    let limits = state.service_limits();
    let counts = limits
        .iter()
        .map(|one| format!("{:?} {:?}", one.path, one.counts()));
    counts.collect()
}

async fn case(
    redis: &[Redis],
    address: &StoreAddress,
    number: u32,
    (specs, way): (&[Spec], Way),
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
        prefix: format!("m{number}:"),
        on_failure: OnStoreFailure::Deny,
        over_limit_memory: 0,
    };
    let ledger = Arc::new(RedisLedger::by(&config, Time::Told)?);
    let counting = Counting::new(ledger);
    let windows = Arc::new(Windows::new(counting.whole(address), config.budget));
    let store = Arc::new(DomainStore::new(windows, &config.prefix));
    let shared = State::new(1024).with_domain_store(store);
    let here = State::new(1024);
    let domains = [compile(specs, way, &shared), compile(specs, way, &here)];
    let [by_store, by_memory] = domains
        .each_ref()
        .map(|domains| domains.get("d").expect("it is there"));
    let mut model = Model::default();
    let mut now = BEGIN;
    for (later, asks) in questions {
        now += later * 1_000;
        let asks: Vec<Ask> = asks
            .iter()
            // There, what a request brings along has the count of the file's limit.
            .map(|ask| Ask {
                limit: ask.limit.filter(|_| !way.reference),
                ..ask.clone()
            })
            .collect();
        let memory = decide(by_memory, &asks, now).await?;
        let redis = decide(by_store, &asks, now).await?;
        // What parts give back is there before the next question.
        counting.settled().await;
        let (told, wanted) = (said(&redis, &asks), said(&memory, &asks));
        ensure!(told == wanted, "{asks:?}: {told} is not {wanted}");
        if way.algorithm == Algorithm::FixedWindow {
            let (denied, statuses) = model.decide(specs, &asks, now);
            let found: Vec<_> = memory
                .statuses
                .iter()
                .map(|status| (status.over_limit, status.remaining))
                .collect();
            ensure!(
                (memory.over_limit, &found) == (denied, &statuses),
                "{asks:?}: {wanted} is not {denied} {statuses:?}"
            );
        }
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
    let way = |algorithm, reference| Way {
        algorithm,
        reference,
    };
    let ways = select(vec![
        way(Algorithm::FixedWindow, false),
        way(Algorithm::FixedWindow, true),
        way(Algorithm::SlidingWindow, false),
        way(Algorithm::TokenBucket, false),
    ]);
    let specs = vec(spec(), 1..6).prop_map(|mut specs| {
        let mut places = std::collections::HashSet::new();
        specs.retain(|spec| places.insert((spec.key, spec.value)));
        specs
    });
    let number = Cell::new(0u32);
    let result = runner.run(&(specs, ways, questions()), |(specs, way, questions)| {
        number.set(number.get() + 1);
        runtime
            .block_on(case(
                redis,
                address,
                number.get(),
                (&specs, way),
                &questions,
            ))
            .map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    result.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(())
}

#[test]
fn memory_and_redis_decide_as_the_model_does() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let address = StoreAddress::Unix(redis.socket());
    compare(&[redis], &address, 256)
}

#[test]
fn a_cluster_decides_as_the_model_does() -> Result<()> {
    let cluster = RedisCluster::start(3, 0)?;
    let compare = || compare(&cluster.servers, &cluster.store(), 64);
    cluster.netns.enter(compare)
}
