//! What deciding over a request costs, by how many rules there are and what they ask; and the memory
//! of a million distinct buckets.
//!
//! CPU time of one thread, so that other work on the machine does not count. The cases take turns;
//! medians are printed, and their ratios to a single bucket, which are the figures.

use std::hint::black_box;

use anyhow::{Context as _, Result, ensure};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use limiter_common::Limit;
use limiter_daemon::engine::decide::{Decision, Limits};
use limiter_daemon::engine::request::RequestView;
use limiter_daemon::engine::state::State;
use limiter_daemon::engine::time::Now;
use limiter_daemon::policy::plan::{
    Algorithm, Condition, LimitRule, PolicyLimits, Quota, RateLimits, SourcePrefixes, ValueTest,
};
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 7;
const DECISIONS: u32 = 200_000;
const ROUTES: usize = 1_000;
const RULES: usize = 10_000;
const USERS: u32 = 1 << 16;
const DISTINCT: u32 = 1_000_000;
const HOUR: u64 = 3_600_000_000_000;
const TENANT: HeaderName = HeaderName::from_static("x-tenant");
const USER: HeaderName = HeaderName::from_static("x-user-id");

fn main() -> Result<()> {
    let state = State::new(1 << 21);
    let tenants: Vec<_> = (0..RULES).map(|n| rule(n, vec![tenant(n)])).collect();
    let cases: Vec<(&str, Vec<Limits>)> = vec![
        (
            "one bucket",
            vec![limits("d/a", vec![rule(0, Vec::new())], &state)],
        ),
        (
            "a bucket for each of 65,536 users",
            vec![limits("d/b", vec![rule(0, vec![user()])], &state)],
        ),
        (
            "a fixed window for each",
            vec![limits("d/c", vec![counted(Algorithm::FixedWindow)], &state)],
        ),
        (
            "a sliding window for each",
            vec![limits(
                "d/d",
                vec![counted(Algorithm::SlidingWindow)],
                &state,
            )],
        ),
        (
            "ten rules by tenant",
            vec![limits("d/e", tenants[..10].to_vec(), &state)],
        ),
        (
            "10,000 rules by tenant in one policy",
            vec![limits("d/f", tenants.clone(), &state)],
        ),
        (
            "1,000 routes of ten rules by tenant each",
            tenants
                .chunks(RULES / ROUTES)
                .enumerate()
                .map(|(n, rules)| limits(&format!("d/g{n}"), rules.to_vec(), &state))
                .collect(),
        ),
    ];
    let mut nanoseconds = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        for ((_, routes), nanoseconds) in cases.iter().zip(&mut nanoseconds) {
            nanoseconds.push(measure(routes)?);
        }
    }
    let medians: Vec<f64> = nanoseconds.iter_mut().map(|all| median(all)).collect();
    for ((name, _), ns) in cases.iter().zip(&medians) {
        println!("{name:<44} {ns:>7.0} ns  {:>5.2}", ns / medians[0]);
    }
    memory()
}

fn limits(policy: &str, rules: Vec<LimitRule>, state: &State) -> Limits {
    let local = vec![PolicyLimits {
        policy: policy.to_owned(),
        rules,
        default: None,
    }];
    let limits = RateLimits {
        local,
        global: Vec::new(),
    };
    // Not empty, so it compiles to limits.
    match Limits::compile(&limits, policy, state) {
        Some(limits) => limits,
        None => unreachable!(),
    }
}

fn quota(algorithm: Algorithm) -> Quota {
    Quota::Limited {
        limit: Limit::new(1 << 30, 1 << 30, HOUR).unwrap_or_default(),
        algorithm,
        window: 3_600,
    }
}

fn rule(index: usize, conditions: Vec<Condition>) -> LimitRule {
    LimitRule::new(
        format!("d/p/rule/{index}"),
        conditions,
        quota(Algorithm::TokenBucket),
    )
}

fn counted(algorithm: Algorithm) -> LimitRule {
    LimitRule::new("d/p/rule/0".into(), vec![user()], quota(algorithm))
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("x"))
}

fn tenant(n: usize) -> Condition {
    Condition::Header {
        name: TENANT,
        test: ValueTest::Is(value(&format!("tenant-{n}"))),
    }
}

const fn user() -> Condition {
    Condition::Header {
        name: USER,
        test: ValueTest::Each,
    }
}

/// CPU nanoseconds a decision.
fn measure(routes: &[Limits]) -> Result<f64> {
    let requests: Vec<HeaderMap> = (0..USERS)
        .map(|n| {
            HeaderMap::from_iter([
                (USER, value(&format!("user-{n}"))),
                (TENANT, value(&format!("tenant-{}", n as usize % RULES))),
            ])
        })
        .collect();
    let before = cpu();
    for n in 0..DECISIONS {
        let limits = &routes[n as usize % routes.len()];
        let request = RequestView {
            connection: None,
            method: &Method::GET,
            path: "/",
            query: None,
            headers: &requests[(n % USERS) as usize],
            client: [192, 0, 2, 1].into(),
        };
        let now = Now {
            mono: HOUR + u64::from(n),
            unix: 500_000 * HOUR + u64::from(n),
        };
        let decision = black_box(limits.decide(black_box(&request), now));
        let admitted = matches!(&decision, Decision::Ready(outcome) if outcome.denied.is_none());
        ensure!(admitted, "a request was denied");
    }
    Ok((cpu() - before) / f64::from(DECISIONS))
}

#[expect(clippy::cast_precision_loss, reason = "a benchmark's nanoseconds")]
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Resident memory of a million buckets that hold a debt, in a table of twice as many places.
fn memory() -> Result<()> {
    let before = resident()?;
    let state = State::new(2 * DISTINCT as usize);
    let each = Condition::Source {
        nets: Vec::new(),
        invert: false,
        each: Some(SourcePrefixes { v4: 32, v6: 64 }),
    };
    let limits = limits("d/m", vec![rule(0, vec![each])], &state);
    let headers = HeaderMap::new();
    for n in 0..DISTINCT {
        let request = RequestView {
            connection: None,
            method: &Method::GET,
            path: "/",
            query: None,
            headers: &headers,
            client: std::net::Ipv4Addr::from((10 << 24) + n).into(),
        };
        let now = Now { mono: 1, unix: 1 };
        black_box(limits.decide(&request, now));
    }
    let live = state.table().live(Now { mono: 1, unix: 1 });
    let bytes = resident()? - before;
    println!(
        "{live} distinct buckets: {} MiB resident, {} bytes each; {} refused",
        bytes >> 20,
        bytes / live.max(1),
        state.table().refused()
    );
    Ok(())
}

/// Bytes of this process that are in memory, with pages of 4 KiB.
fn resident() -> Result<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split_whitespace().nth(1).context("no RSS in statm")?;
    Ok(pages.parse::<usize>()? * 4096)
}
