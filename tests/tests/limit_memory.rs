//! What deciding a limit, choosing a host and not tracing a request allocate (nothing), and what a million distinct buckets
//! take.
//!
//! One test in a binary of its own: the allocator counts for the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use limiter_common::Limit;
use limiter_daemon::engine::decide::{Decision, Limits};
use limiter_daemon::engine::limited::{Account, By};
use limiter_daemon::engine::outcome::Outcome;
use limiter_daemon::engine::request::RequestView;
use limiter_daemon::engine::state::{RouteStats, State};
use limiter_daemon::engine::time::Now;
use limiter_daemon::engine::upstream::{
    Breaker, Exchange, Host, Hosts, Outliers, Resource, splitmix64,
};
use limiter_daemon::policy::plan::{
    Algorithm, BackendSettings, Balancing, Candidate, Condition, HashBy, LimitRule, OtlpConfig,
    OtlpProtocol, OutlierDetection, PathMatch, PolicyLimits, Quota, RateLimits, ResponseCost,
    SourcePrefixes, TraceParent, TracingConfig, ValueTest,
};
use limiter_daemon::traces::Tracer;

/// The system's allocator, and how often and for how much it was asked.
struct Counting;

thread_local! {
    /// Of this thread: the harness has one that goes on beside the test.
    static TIMES: Cell<u64> = const { Cell::new(0) };
}

static BYTES: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is the system allocator's doing; counting touches atomics only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TIMES.set(TIMES.get() + 1);
        BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SECOND: u64 = 1_000_000_000;
const DISTINCT: u32 = 1_000_000;

fn hourly(tokens: u64) -> Result<Limit> {
    let limit = Limit::new(tokens, tokens, 3_600 * SECOND);
    limit.map_err(|error| anyhow::anyhow!("{error:?}"))
}

fn rule(index: usize, conditions: Vec<Condition>, algorithm: Algorithm) -> Result<LimitRule> {
    let quota = Quota::Limited {
        limit: hourly(1_000_000)?,
        algorithm,
        window: 3_600,
    };
    Ok(LimitRule::new(
        format!("d/p/rule/{index}"),
        conditions,
        quota,
    ))
}

fn policy(rules: Vec<LimitRule>) -> Vec<PolicyLimits> {
    vec![PolicyLimits {
        policy: "d/p".into(),
        rules,
        default: None,
    }]
}

fn each_source() -> Result<Condition> {
    Ok(Condition::Source {
        nets: vec!["10.0.0.0/8".parse()?],
        invert: false,
        each: Some(SourcePrefixes { v4: 32, v6: 64 }),
    })
}

/// One rule of each kind, all of which the request meets.
fn all_kinds() -> Result<RateLimits> {
    let header = |name, test| Condition::Header {
        name: HeaderName::from_static(name),
        test,
    };
    let by_header = vec![
        header("x-user-id", ValueTest::Each),
        header("x-plan", ValueTest::Is(HeaderValue::from_static("gold"))),
        header("x-none", ValueTest::Absent),
        header(
            "x-user-id",
            ValueTest::Matches(regex::bytes::Regex::new("^(?:al.*)$")?),
        ),
    ];
    let by_request = vec![
        Condition::Query {
            name: "key".into(),
            test: ValueTest::Each,
        },
        Condition::Query {
            name: "key".into(),
            test: ValueTest::MatchesNot(regex::bytes::Regex::new("^(?:b.*)$")?),
        },
        Condition::Method(vec![(Method::POST, true)]),
        Condition::Path {
            path: PathMatch::Prefix("/v1".into()),
            invert: false,
        },
    ];
    let mut tried = rule(2, vec![each_source()?], Algorithm::SlidingWindow)?;
    tried.candidates.push(Candidate {
        name: "half".into(),
        limit: hourly(500_000)?,
    });
    let mut paid = rule(0, Vec::new(), Algorithm::TokenBucket)?;
    paid.response_cost = Some(ResponseCost::Number(3));
    Ok(RateLimits {
        local: policy(vec![
            rule(0, by_header, Algorithm::TokenBucket)?,
            rule(1, by_request, Algorithm::FixedWindow)?,
            tried,
        ]),
        global: policy(vec![paid]),
    })
}

fn decide(limits: &Limits, request: &RequestView<'_>, now: u64) -> Result<Outcome> {
    let now = Now {
        mono: now,
        unix: now,
    };
    match limits.decide(request, now) {
        Decision::Ready(outcome) => Ok(outcome),
        Decision::Pending(_) => bail!("memory has to be waited for"),
    }
}

fn nothing_is_allocated_in_the_steady_state() -> Result<()> {
    let limits =
        Limits::compile(&all_kinds()?, "d/r", &State::new(1 << 10)).context("no limits")?;
    let mut headers = HeaderMap::new();
    headers.insert("x-user-id", HeaderValue::from_static("alice"));
    headers.insert("x-plan", HeaderValue::from_static("gold"));
    let request = RequestView {
        connection: None,
        method: &Method::GET,
        path: "/v1/chat",
        query: Some("a=1&key=%61b"),
        headers: &headers,
        client: [10, 1, 2, 3].into(),
    };
    // Regular expressions have caches that they fill once.
    for n in 0..100 {
        assert_eq!(decide(&limits, &request, n)?.statuses.len(), 4);
    }
    let before = TIMES.get();
    for n in 0..100_000 {
        let outcome = decide(&limits, &request, n)?;
        ensure!(outcome.denied.is_none(), "a request was denied");
    }
    assert_eq!(TIMES.get() - before, 0);
    Ok(())
}

/// Of clients that come again and of ever new ones.
fn counting_who_is_denied_allocates_nothing() {
    let account = Account::default();
    let route = Arc::new(RouteStats::default());
    let deny = |n: u32, now| {
        for client in [n.to_be_bytes(), [192, 0, 2, 1]] {
            account.denied(client.into(), By::Service(Arc::clone(&route)), now);
        }
    };
    // The tables of two minutes get their size.
    for n in 0..10_000 {
        deny(n, u64::from(n) * SECOND / 50);
    }
    let before = TIMES.get();
    for n in 10_000..100_000 {
        deny(n, u64::from(n) * SECOND / 50);
    }
    assert_eq!(TIMES.get() - before, 0);
}

fn choosing_a_host_allocates_nothing() -> Result<()> {
    let breaker = Arc::new(Breaker::default());
    let settings = BackendSettings::default();
    let outliers = Outliers::default();
    let hosts: Vec<_> = (0..9)
        .map(|n| Arc::new(Host::new(format!("192.0.2.{n}:80"), 0)))
        .collect();
    let hash = Balancing::ConsistentHash {
        by: HashBy::SourceIp,
        table_size: 65_537,
    };
    let algorithms = [
        Balancing::LeastRequest,
        Balancing::RoundRobin,
        Balancing::Random,
        hash,
    ];
    for algorithm in algorithms {
        let mut own = settings.clone();
        own.load_balancer.algorithm = algorithm;
        let hosts = Hosts::new(&own, hosts.clone());
        let before = TIMES.get();
        for n in 0..1_000 {
            let permit = breaker.take(Resource::Parallel, &settings.circuit_breaker);
            let host = hosts.pick(Some(n), &[1, 2], splitmix64(n), n);
            let host = host.context("no host")?;
            // Now and then one fails, never often enough to be ejected.
            let status = if n % 4 == 0 { 500 } else { 200 };
            let detection = OutlierDetection {
                consecutive_5xx: Some(1_000),
                ..OutlierDetection::default()
            };
            outliers.report(
                Some(&detection),
                &hosts,
                host,
                Exchange::Answered(status),
                n,
            );
            drop(permit);
        }
        assert_eq!(TIMES.get() - before, 0);
    }
    Ok(())
}

fn who_is_not_traced_allocates_nothing() -> Result<()> {
    let config = TracingConfig {
        otlp: OtlpConfig {
            host: "127.0.0.1".into(),
            port: 4317,
            tls: false,
            path: String::new(),
            protocol: OtlpProtocol::Grpc,
            headers_file: None,
            ca_file: None,
            timeout: Duration::from_secs(1),
        },
        sampling: 1_000,
        parent: TraceParent::Follow,
        service_name: "limiterd".into(),
    };
    let (tracer, owner) = Tracer::start(&config, None, HeaderMap::new())?;
    let none = HeaderMap::new();
    let mut unsampled = HeaderMap::new();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    unsampled.insert("traceparent", HeaderValue::from_static(parent));
    let before = TIMES.get();
    for _ in 0..100_000 {
        // One that is not drawn, and one that is not wanted.
        ensure!(tracer.sample(&none, || 1_000).is_none(), "it is traced");
        ensure!(tracer.sample(&unsampled, || 0).is_none(), "it is traced");
        ensure!(tracer.follow(&none).is_none(), "it is traced");
    }
    let allocated = TIMES.get() - before;
    drop(tracer);
    ensure!(
        owner.finish(Duration::from_secs(30)),
        "the thread does not end"
    );
    assert!(
        allocated < 1_000,
        "{allocated}: more than a thread that starts"
    );
    Ok(())
}

fn a_million_distinct_buckets_take_less_than_a_hundred_bytes_each() -> Result<()> {
    let before = BYTES.load(Ordering::Relaxed);
    let state = State::new(2 << 20);
    let limits = RateLimits {
        local: policy(vec![rule(0, vec![each_source()?], Algorithm::TokenBucket)?]),
        global: Vec::new(),
    };
    let limits = Limits::compile(&limits, "d/r", &state).context("no limits")?;
    let headers = HeaderMap::new();
    let mut fresh = 0;
    for n in 0..DISTINCT {
        let request = RequestView {
            connection: None,
            method: &Method::GET,
            path: "/",
            query: None,
            headers: &headers,
            client: std::net::Ipv4Addr::from((10 << 24) + n).into(),
        };
        // A bucket of its own was full before.
        if decide(&limits, &request, 1)?.statuses[0].remaining == 999_999 {
            fresh += 1;
        }
    }
    assert!(fresh > DISTINCT - 100, "{fresh}");
    let bytes = BYTES.load(Ordering::Relaxed) - before;
    let each = bytes / u64::from(DISTINCT);
    println!("{each} bytes for each of {DISTINCT} distinct buckets");
    assert!(each <= 100, "{each} bytes a bucket");
    Ok(())
}

#[test]
fn memory_of_limits() -> Result<()> {
    nothing_is_allocated_in_the_steady_state()?;
    counting_who_is_denied_allocates_nothing();
    choosing_a_host_allocates_nothing()?;
    who_is_not_traced_allocates_nothing()?;
    a_million_distinct_buckets_take_less_than_a_hundred_bytes_each()
}
