//! Random rules and requests, through memory and through a real Redis, or a Cluster whose servers have
//! a part of them each, against one plain model.
//!
//! The time is told, in steps of microseconds; so nothing sleeps, and all three see the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use limiter_common::Limit;
use limiter_daemon::engine::decide::Limits;
use limiter_daemon::engine::outcome::Outcome;
use limiter_daemon::engine::request::RequestView;
use limiter_daemon::engine::settle::{Ending, Failure};
use limiter_daemon::engine::state::State;
use limiter_daemon::engine::store::SharedStore;
use limiter_daemon::engine::time::Now;
use limiter_daemon::global::{RedisLedger, Time};
use limiter_daemon::policy::plan::{
    Algorithm, Candidate, Condition, Lease, LimitRule, OnStoreFailure, PolicyLimits, Quota,
    RateLimits, RefundOn, ResponseCost, StoreAddress, StoreConfig, ValueTest,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tests::counting::Counting;
use tests::netns::Netns;
use tests::redis::Redis;
use tests::redis_cluster::RedisCluster;

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const USER: HeaderName = HeaderName::from_static("x-user");
/// Some day, on no boundary.
pub(crate) const BEGIN: u64 = 1_700_000_123_456_789_000;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Blocked,
    Counted(Algorithm),
}

#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) kind: Kind,
    pub(crate) capacity: u64,
    pub(crate) seconds: u64,
    pub(crate) cost: u64,
    pub(crate) each: bool,
    pub(crate) shadow: bool,
    pub(crate) candidates: Vec<u64>,
    pub(crate) response: Option<u64>,
    pub(crate) refunds: bool,
    pub(crate) lease: Option<Lease>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Fails,
    Answers,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// Microseconds since the last one.
    pub(crate) later: u64,
    /// So many requests come before it is over.
    pub(crate) lasts: usize,
    pub(crate) user: u8,
    pub(crate) end: End,
}

pub(crate) fn spec() -> impl Strategy<Value = Spec> {
    let kind = prop_oneof![
        1 => Just(Kind::Blocked),
        12 => Just(Kind::Counted(Algorithm::TokenBucket)),
        8 => Just(Kind::Counted(Algorithm::FixedWindow)),
        8 => Just(Kind::Counted(Algorithm::SlidingWindow)),
    ];
    let numbers = (
        1u64..7,
        prop_oneof![Just(1u64), Just(7), Just(60), Just(31_536_000)],
        0u64..3,
    );
    let switches = (any::<bool>(), prop::bool::weighted(0.2), any::<bool>());
    let more = (
        prop::collection::vec(1u64..7, 0..3),
        prop::option::weighted(0.4, 1u64..9),
    );
    (kind, numbers, switches, more).prop_map(
        |(kind, (capacity, seconds, cost), (each, shadow, refunds), (candidates, response))| Spec {
            kind,
            capacity,
            seconds,
            cost,
            each,
            shadow,
            candidates,
            response,
            refunds,
            lease: None,
        },
    )
}

/// Limits of very many tokens: their interval has fractions of a nanosecond.
fn large() -> impl Strategy<Value = Spec> {
    let algorithm = prop_oneof![Just(Algorithm::TokenBucket), Just(Algorithm::FixedWindow)];
    let costs = (1_000_000u64..5_000_000_000, 0u64..3_000_000_000);
    (spec(), algorithm, costs).prop_map(|(spec, algorithm, (capacity, cost))| Spec {
        kind: Kind::Counted(algorithm),
        capacity,
        cost,
        response: None,
        refunds: false,
        ..spec
    })
}

fn microseconds() -> impl Strategy<Value = u64> {
    prop_oneof![
        2 => Just(0u64),
        1 => 0u64..500_000,
        1 => 0u64..5_000_000,
        1 => 0u64..90_000_000,
    ]
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![Just(End::Fails), Just(End::Answers)];
    (microseconds(), 0usize..3, 0u8..3, end).prop_map(|(later, lasts, user, end)| Step {
        later,
        lasts,
        user,
        end,
    })
}

impl Spec {
    fn limit(&self, capacity: u64) -> Limit {
        Limit::new(capacity, capacity, self.seconds * SECOND).expect("a limit")
    }

    fn rule(&self, index: usize) -> LimitRule {
        let each = Condition::Header {
            name: USER,
            test: ValueTest::Each,
        };
        let conditions = if self.each { vec![each] } else { Vec::new() };
        let quota = match self.kind {
            Kind::Blocked => Quota::Blocked {
                window: self.seconds,
            },
            Kind::Counted(algorithm) => Quota::Limited {
                limit: self.limit(self.capacity),
                algorithm,
                window: self.seconds,
            },
        };
        let candidates = self.candidates.iter().enumerate();
        LimitRule {
            shadow: self.shadow,
            request_cost: self.cost,
            response_cost: self.response.map(ResponseCost::Number),
            refund_on: RefundOn {
                upstream_failure: self.refunds,
                ..RefundOn::default()
            },
            candidates: candidates
                .map(|(number, capacity)| Candidate {
                    name: format!("c{number}"),
                    limit: self.limit(*capacity),
                })
                .collect(),
            lease: self.lease,
            ..LimitRule::new(format!("d/p/rule/{index}"), conditions, quota)
        }
    }
}

/// The rules, of one policy or of one each.
pub(crate) fn limits(specs: &[Spec], split: bool, state: &State) -> Limits {
    let mut rules = specs
        .iter()
        .enumerate()
        .map(|(index, spec)| spec.rule(index));
    let policy = |name: String, rules: Vec<LimitRule>| PolicyLimits {
        policy: name,
        rules,
        default: None,
    };
    let global = if split {
        let one = |(index, rule)| policy(format!("d/p{index}"), vec![rule]);
        rules.enumerate().map(one).collect()
    } else {
        vec![policy("d/p".to_owned(), rules.by_ref().collect())]
    };
    let limits = RateLimits {
        local: Vec::new(),
        global,
    };
    Limits::compile(&limits, "d/r", state).expect("there are limits")
}

/// One bucket of the model: the instant at which it is full, or counts by the number of the window.
#[derive(Clone, Debug, Default)]
struct Bucket {
    tat: u64,
    counts: HashMap<u64, u64>,
}

/// A limit as the model sees it.
struct Counter<'a> {
    spec: &'a Spec,
    algorithm: Algorithm,
    capacity: u64,
}

impl Counter<'_> {
    fn interval(&self) -> u64 {
        (self.spec.seconds * SECOND).div_ceil(self.capacity)
    }

    fn deepest(&self) -> u64 {
        let full = self.interval() * self.capacity;
        full * if self.spec.response.is_some() { 16 } else { 1 }
    }

    fn window(&self, now: u64) -> u64 {
        now / (self.spec.seconds * SECOND)
    }

    /// Tokens in use, in nanoseconds of a bucket or as a count.
    fn used(&self, bucket: &Bucket, now: u64) -> u128 {
        let count = |window: u64| u128::from(bucket.counts.get(&window).copied().unwrap_or(0));
        let length = self.spec.seconds * SECOND;
        let window = self.window(now);
        match self.algorithm {
            Algorithm::TokenBucket => u128::from(bucket.tat.saturating_sub(now)),
            Algorithm::FixedWindow => count(window),
            Algorithm::SlidingWindow => {
                let left = u128::from(length - now % length);
                count(window) + (count(window - 1) * left).div_ceil(u128::from(length))
            }
        }
    }

    fn unit(&self) -> u128 {
        match self.algorithm {
            Algorithm::TokenBucket => u128::from(self.interval()),
            Algorithm::FixedWindow | Algorithm::SlidingWindow => 1,
        }
    }

    fn conforms(&self, bucket: &Bucket, now: u64) -> bool {
        let wanted = u128::from(self.spec.cost.max(1));
        let all = u128::from(self.capacity) * self.unit();
        wanted <= u128::from(self.capacity) && self.used(bucket, now) + wanted * self.unit() <= all
    }

    fn remaining(&self, bucket: &Bucket, now: u64) -> u64 {
        let all = u128::from(self.capacity) * self.unit();
        let free = all.saturating_sub(self.used(bucket, now)) / self.unit();
        u64::try_from(free).expect("a count")
    }

    /// Takes tokens; what to remember for a refund.
    fn take(&self, bucket: &mut Bucket, tokens: u64, now: u64) -> u64 {
        if self.algorithm == Algorithm::TokenBucket {
            let debt = bucket.tat.max(now) + tokens * self.interval();
            bucket.tat = debt.min(now + self.deepest());
            return bucket.tat;
        }
        let window = self.window(now);
        *bucket.counts.entry(window).or_default() += tokens;
        window
    }

    fn give_back(&self, bucket: &mut Bucket, mark: u64, now: u64) {
        if self.algorithm == Algorithm::TokenBucket {
            let owed = mark.saturating_sub(now);
            bucket.tat -= (self.spec.cost * self.interval()).min(owed).min(bucket.tat);
        } else if let Some(count) = bucket.counts.get_mut(&mark) {
            *count = count.saturating_sub(self.spec.cost);
        }
    }
}

/// What took tokens of a request: its rule, its bucket and what it remembers.
type Taken = Vec<(usize, (usize, u8, usize), u64)>;

#[derive(Default)]
struct Model(HashMap<(usize, u8, usize), Bucket>);

impl Model {
    fn counter(specs: &[Spec], rule: usize, candidate: usize) -> Option<Counter<'_>> {
        let spec = &specs[rule];
        let Kind::Counted(algorithm) = spec.kind else {
            return None;
        };
        let capacity = match candidate.checked_sub(1) {
            None => spec.capacity,
            Some(index) => spec.candidates[index],
        };
        Some(Counter {
            spec,
            algorithm,
            capacity,
        })
    }

    fn bucket(&mut self, specs: &[Spec], rule: usize, candidate: usize, user: u8) -> &mut Bucket {
        let user = if specs[rule].each { user } else { u8::MAX };
        self.0.entry((rule, user, candidate)).or_default()
    }

    /// Whether the request passes, what is left of each enforced limit, and what took tokens.
    fn decide(&mut self, specs: &[Spec], user: u8, now: u64) -> (bool, Vec<u64>, Taken) {
        let mut over = Vec::new();
        for rule in 0..specs.len() {
            let bucket = self.bucket(specs, rule, 0, user);
            let conforms = Self::counter(specs, rule, 0).is_some_and(|c| c.conforms(bucket, now));
            if !conforms && !specs[rule].shadow {
                over.push(rule);
            }
        }
        let mut taken = Taken::new();
        for (rule, spec) in specs.iter().enumerate() {
            let id = |candidate| (rule, if spec.each { user } else { u8::MAX }, candidate);
            let mut took = false;
            if let Some(counter) = Self::counter(specs, rule, 0)
                && over.is_empty()
            {
                let bucket = self.bucket(specs, rule, 0, user);
                if counter.conforms(bucket, now) {
                    took = true;
                    taken.push((rule, id(0), counter.take(bucket, spec.cost, now)));
                }
            }
            if !over.is_empty() && over != [rule] {
                continue;
            }
            for candidate in 1..=spec.candidates.len() {
                let Some(counter) = Self::counter(specs, rule, candidate) else {
                    continue;
                };
                let bucket = self.bucket(specs, rule, candidate, user);
                if counter.conforms(bucket, now) {
                    let mark = counter.take(bucket, spec.cost, now);
                    if took {
                        taken.push((rule, id(candidate), mark));
                    }
                }
            }
        }
        let left = (0..specs.len())
            .filter(|rule| !specs[*rule].shadow)
            .map(|rule| {
                let bucket = self.bucket(specs, rule, 0, user);
                Self::counter(specs, rule, 0).map_or(0, |counter| counter.remaining(bucket, now))
            });
        let left = left.collect();
        (over.is_empty(), left, taken)
    }

    fn end(&mut self, specs: &[Spec], taken: &Taken, end: End, now: u64) {
        for (rule, id, mark) in taken {
            let (Some(counter), Some(bucket)) =
                (Self::counter(specs, *rule, id.2), self.0.get_mut(id))
            else {
                continue;
            };
            match (end, specs[*rule].response) {
                (End::Fails, _) if specs[*rule].refunds => counter.give_back(bucket, *mark, now),
                (End::Answers, Some(tokens)) => {
                    counter.take(bucket, tokens, now);
                }
                _ => {}
            }
        }
    }
}

/// Whether the request passed, what it would have to wait for, what is told of the limits.
pub(crate) fn said(outcome: &Outcome) -> String {
    let wait = outcome
        .denied
        .as_ref()
        .map(|denied| (denied.rule.name(), denied.wait));
    format!("{wait:?} {:?}", outcome.statuses)
}

pub(crate) fn end(outcome: Outcome, end: End, now: Now) {
    let mut settlement = outcome.settlement;
    match end {
        End::Fails => settlement.failed(Failure::Upstream, now),
        End::Answers => {
            settlement.answered(StatusCode::OK, &HeaderMap::new(), now);
            settlement.finished(Ending::Complete, now);
        }
    }
}

/// What was counted of every limit.
fn counted(state: &State) -> Vec<String> {
    let scopes = state.scopes();
    scopes
        .iter()
        .map(|scope| format!("{:?} {:?}", scope.name, scope.counters))
        .collect()
}

/// A request between its decision and its end.
struct UnderWay {
    passes: bool,
    memory: Outcome,
    redis: Outcome,
    taken: Taken,
    end: End,
    /// After which request it ends.
    over: usize,
}

impl UnderWay {
    /// How often the store is asked to settle it: once for each rule.
    fn questions(&self, specs: &[Spec]) -> Result<u64> {
        let settles = |(rule, spec): &(usize, &Spec)| {
            let took = self.taken.iter().any(|(of, _, _)| of == rule);
            self.passes
                && took
                && match self.end {
                    End::Fails => spec.refunds,
                    End::Answers => spec.response.is_some(),
                }
        };
        Ok(u64::try_from(
            specs.iter().enumerate().filter(settles).count(),
        )?)
    }
}

/// The store at `address` whose keys begin so, which nobody waits for too short.
pub(crate) fn config(address: &StoreAddress, prefix: String) -> StoreConfig {
    StoreConfig {
        address: address.clone(),
        user: None,
        password: None,
        database: 0,
        tls: None,
        budget: Duration::from_secs(60),
        prefix,
        on_failure: OnStoreFailure::Deny,
        over_limit_memory: 0,
    }
}

async fn case(
    address: &StoreAddress,
    prefix: String,
    (specs, modelled): (&[Spec], bool),
    steps: &[Step],
) -> Result<()> {
    let config = config(address, prefix);
    let store = Arc::new(RedisLedger::by(&config, Time::Told)?);
    let split = matches!(address, StoreAddress::Cluster(_));
    let counting = Counting::new(Arc::clone(&store));
    let ledger = counting.whole(address);
    let shared = SharedStore::new(ledger, &config.prefix, config.on_failure);
    let shared = State::new(1024).with_store(Arc::new(shared));
    let here = State::new(1024);
    let by_store = limits(specs, split, &shared);
    let by_memory = limits(specs, split, &here);
    let mut model = Model::default();
    let (mut now, mut questions) = (BEGIN, 0);
    let mut under_way = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        now += step.later * 1_000;
        let at = Now {
            mono: now,
            unix: now,
        };
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
        let memory = by_memory.decide(&request, at).outcome().await;
        let redis = by_store.decide(&request, at).outcome().await;
        anyhow::ensure!(
            said(&memory) == said(&redis),
            "{} is not {}",
            said(&redis),
            said(&memory)
        );
        // What parts give back is there before the next request.
        counting.settled().await;
        let passes = memory.denied.is_none();
        let mut taken = Taken::new();
        if modelled {
            let told: Vec<u64> = memory.statuses.iter().map(|s| s.remaining).collect();
            let (wanted, left);
            (wanted, left, taken) = model.decide(specs, step.user, now);
            anyhow::ensure!(
                (passes, &told) == (wanted, &left),
                "{} is not {wanted} {left:?}",
                said(&memory)
            );
        }
        let metered = specs
            .iter()
            .any(|spec| matches!(spec.kind, Kind::Counted(_)));
        questions += u64::from(metered);
        under_way.push(UnderWay {
            passes,
            memory,
            redis,
            taken,
            end: step.end,
            over: number + step.lasts,
        });
        let last = number + 1 == steps.len();
        for one in under_way.extract_if(.., |one| last || one.over <= number) {
            questions += one.questions(specs)?;
            end(one.memory, one.end, at);
            end(one.redis, one.end, at);
            if one.passes {
                model.end(specs, &one.taken, one.end, now);
            }
            counting.settled().await;
            anyhow::ensure!(
                split || store.counts().asked()[0].1 == questions,
                "{:?}, not {questions}",
                store.counts()
            );
        }
    }
    anyhow::ensure!(counted(&shared) == counted(&here));
    Ok(())
}

/// Runs random cases through memory and a Redis, and the model if it is for them.
fn compare(
    address: &StoreAddress,
    cases: u32,
    specs: impl Strategy<Value = Spec>,
    modelled: bool,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let number = std::cell::Cell::new(0u32);
    let strategy = (
        prop::collection::vec(specs, 1..4),
        prop::collection::vec(step(), 1..40),
    );
    let result = runner.run(&strategy, |(specs, steps)| {
        number.set(number.get() + 1);
        let prefix = format!("m{}:", number.get());
        runtime
            .block_on(case(address, prefix, (&specs, modelled), &steps))
            .map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    result.map_err(|error| anyhow::anyhow!("{error}"))
}

/// The same, with a Redis for it.
fn compare_with_one(specs: impl Strategy<Value = Spec>, modelled: bool) -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    compare(&StoreAddress::Unix(redis.socket()), 96, specs, modelled)?;
    let keys: usize = redis
        .ask(&["DBSIZE"])?
        .parse()
        .context("a number of keys")?;
    anyhow::ensure!(keys > 0, "nothing was counted");
    Ok(())
}

#[test]
fn memory_and_redis_decide_as_the_model_does() -> Result<()> {
    compare_with_one(spec(), true)
}

#[test]
fn redis_decides_as_memory_does_on_large_numbers() -> Result<()> {
    compare_with_one(large(), false)
}

#[test]
fn a_cluster_decides_as_the_model_does() -> Result<()> {
    let cluster = RedisCluster::start(3, 0)?;
    let address = cluster.store();
    cluster
        .netns
        .enter(|| compare(&address, 48, spec(), true))?;
    let servers: std::collections::BTreeSet<usize> = cluster
        .keys()?
        .into_iter()
        .map(|(server, _)| server)
        .collect();
    anyhow::ensure!(servers.len() == 3, "{servers:?}");
    Ok(())
}
