//! What a decision about a descriptor costs beside Limitador's library, in one process: a limit for each
//! of many users, counted in memory.
//!
//! CPU time of one thread. The two take turns; the figure is the ratio of a turn, its median is shown.
//! Both begin with the descriptor as it comes from a question, and end with whether it is over its limit
//! and what is left.

use std::collections::HashMap;
use std::hint::black_box;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use limitador::RateLimiter;
use limitador::limit::{Context, Expression, Limit};
use limiter_common as common;
use limiter_daemon::engine::domain::{Asked, Decision, Domains, Hits};
use limiter_daemon::engine::state::State;
use limiter_daemon::engine::time::Now;
use limiter_daemon::policy::plan::{
    Algorithm, Amount, Descriptor, Domain, DomainLimit, EntryValue, TimeUnit,
};
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 15;
const DECISIONS: usize = 200_000;
const USERS: usize = 1 << 16;
const REQUESTS: u32 = 1_000_000_000;
const DAY: u64 = 86_400;

fn main() -> Result<()> {
    let users: Vec<String> = (0..USERS).map(|user| format!("user-{user}")).collect();
    let state = State::new(1 << 20);
    let domains = Domains::compile(&[domain()?], &state);
    let ours = domains.get("bench").ok().context("no such domain")?;
    let theirs = RateLimiter::new(1 << 20);
    theirs.add_limit(Limit::new(
        "bench",
        u64::from(REQUESTS),
        DAY,
        Vec::new(),
        vec![Expression::parse("descriptors[0].user")?],
    ));
    let namespace = "bench".into();
    let decide_ours = |user: &str| {
        let asked = [Asked {
            entries: &[("user", user)],
            limit: None,
            hits: Hits::Take(1),
        }];
        match black_box(ours.decide(&asked, now()?)) {
            Decision::Ready(Ok(outcome)) => ensure!(!outcome.over_limit, "over the limit"),
            other => bail!("{other:?}"),
        }
        Ok(())
    };
    let decide_theirs = |user: &str| {
        let mut context = Context::default();
        let entries = HashMap::from([("user".to_owned(), user.to_owned())]);
        context.list_binding("descriptors".to_owned(), vec![entries]);
        let result = theirs
            .check_rate_limited_and_update(&namespace, &context, 1)
            .map_err(|error| anyhow!("{error}"))?;
        ensure!(!black_box(result).limited, "over the limit");
        Ok(())
    };
    let (mut nanoseconds, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
    for _ in 0..ROUNDS {
        let ours = measure(&users, decide_ours)?;
        let theirs = measure(&users, decide_theirs)?;
        nanoseconds[0].push(ours);
        nanoseconds[1].push(theirs);
        ratios.push(theirs / ours);
    }
    let [ours, theirs] = nanoseconds.map(median);
    println!("limiterd {ours:.0} ns, limitador {theirs:.0} ns a decision, one of 65,536 users");
    println!("limiterd decides {:.1} times as often", median(ratios));
    Ok(())
}

fn domain() -> Result<Domain> {
    let nanoseconds = DAY * 1_000_000_000;
    let limit = common::Limit::new(u64::from(REQUESTS), u64::from(REQUESTS), nanoseconds);
    Ok(Domain {
        algorithm: Algorithm::FixedWindow,
        descriptors: vec![Descriptor {
            key: "user".to_owned(),
            value: EntryValue::Any,
            share_threshold: false,
            value_to_metric: false,
            limit: Some(DomainLimit {
                amount: Amount::PerUnit {
                    requests: REQUESTS,
                    unit: TimeUnit::Day,
                    limit: limit.ok().context("no limit")?,
                },
                name: None,
                replaces: Vec::new(),
                shadow: false,
                quota: false,
                detailed: false,
                metadata: None,
                weight: 0,
                always: false,
                written: None,
            }),
            descriptors: Vec::new(),
        }],
        ..Domain::new("bench")
    })
}

/// Nanoseconds of CPU time a decision.
fn measure(users: &[String], mut decide: impl FnMut(&str) -> Result<()>) -> Result<f64> {
    let begin = nanoseconds(ClockId::ThreadCPUTime)?;
    for decision in 0..DECISIONS {
        // In an order that no cache foresees.
        decide(&users[decision.wrapping_mul(40_503) % USERS])?;
    }
    Ok((nanoseconds(ClockId::ThreadCPUTime)? - begin) as f64 / DECISIONS as f64)
}

/// Both clocks are read for each decision, as the service does.
fn now() -> Result<Now> {
    Ok(Now {
        mono: nanoseconds(ClockId::Monotonic)?,
        unix: nanoseconds(ClockId::Realtime)?,
    })
}

fn nanoseconds(clock: ClockId) -> Result<u64> {
    let time = clock_gettime(clock);
    Ok(u64::try_from(time.tv_sec)? * 1_000_000_000 + u64::try_from(time.tv_nsec)?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
