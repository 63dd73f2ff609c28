//! What the bookkeeping for a backend costs a request: its permit, the choice of a host, the report of
//! how it went, and the question whether to retry.
//!
//! CPU time of one thread, so that other work on the machine does not count. The cases take turns;
//! medians are printed.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use http::{Method, StatusCode};
use limiter_daemon::engine::retry::{Attempt, Retries};
use limiter_daemon::engine::upstream::{
    Breaker, Exchange, Host, Hosts, Outliers, Resource, splitmix64,
};
use limiter_daemon::policy::plan::{BackendSettings, OutlierDetection, Retry};
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 7;
const REQUESTS: u64 = 1_000_000;

/// A case: its name, and what one request does.
type Case = (&'static str, Box<dyn Fn(u64) -> Result<()>>);

fn main() -> Result<()> {
    let cases = cases();
    let mut figures: Vec<Vec<f64>> = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        for ((_, request), figures) in cases.iter().zip(&mut figures) {
            let before = cpu();
            for n in 0..REQUESTS {
                request(black_box(n))?;
            }
            figures.push((cpu() - before) / requests());
        }
    }
    println!("| bookkeeping of a request | ns |\n|---|---|");
    for ((name, _), figures) in cases.iter().zip(&mut figures) {
        figures.sort_by(f64::total_cmp);
        println!("| {name} | {:.1} |", figures[ROUNDS / 2]);
    }
    Ok(())
}

fn cases() -> Vec<Case> {
    let breaker = Arc::new(Breaker::default());
    let settings = BackendSettings::default();
    let hosts = |count: u64| {
        let host = |n: u64| Arc::new(Host::new(format!("192.0.2.{n}:80"), 0));
        Hosts::new(&BackendSettings::default(), (0..count).map(host).collect())
    };
    let (one, three, many) = (hosts(1), hosts(3), hosts(1000));
    let reported = hosts(3);
    let outliers = Outliers::default();
    let detection = OutlierDetection::default();
    let retry = Retry::default();
    let pick = |hosts: Hosts| -> Box<dyn Fn(u64) -> Result<()>> {
        Box::new(move |n| {
            hosts.pick(None, &[], splitmix64(n), n).context("no host")?;
            Ok(())
        })
    };
    vec![
        (
            "a permit of the breaker, taken and given back",
            Box::new(move |_| {
                let permit = breaker.take(Resource::Parallel, &settings.circuit_breaker);
                drop(black_box(permit.ok().context("refused")?));
                Ok(())
            }),
        ),
        ("the only host", pick(one)),
        ("one of 3 hosts, least request", pick(three)),
        ("one of 1,000", pick(many)),
        (
            "the report of an answer, with ejection on",
            Box::new(move |n| {
                let answered = Exchange::Answered(200);
                black_box(outliers.report(Some(&detection), &reported, 1, answered, n));
                Ok(())
            }),
        ),
        (
            "whether to retry: an answer with 200",
            Box::new(move |n| {
                let answer = Attempt::Answered {
                    status: StatusCode::OK,
                    grpc: None,
                    retry_after: None,
                };
                black_box(Retries::of(&Method::GET).next(&retry, answer, n));
                Ok(())
            }),
        ),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "a benchmark's count")]
const fn requests() -> f64 {
    REQUESTS as f64
}

#[expect(clippy::cast_precision_loss, reason = "a benchmark's nanoseconds")]
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}
