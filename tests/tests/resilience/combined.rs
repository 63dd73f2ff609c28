//! `examples/envoy-gateway/combined` with traffic: limit, breaker and retry, each of them seen.

use std::path::Path;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result};
use tests::daemon::{Daemon, eventually};
use tests::http_client::{Answer, count, gets};
use tests::netns::Netns;
use tests::scripted::{Script, Scripted};

use super::support::PROXY;

const TOKENS: usize = 100;

struct Example {
    netns: Netns,
    daemon: Daemon,
    began: Instant,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the daemon goes by the same clock"
)]
fn now() -> Instant {
    Instant::now()
}

impl Example {
    fn ask(&self, requests: usize) -> Result<Vec<Answer>> {
        let host = [("host", "tasks.example.com")];
        let url = format!("http://{PROXY}/tasks");
        self.netns.enter(|| gets(&url, &host, requests))
    }

    fn metric(&self, name: &str) -> Result<f64> {
        let labels = [
            ("envoy_cluster_name", "default/task-api"),
            ("policy", "default/task-api-protection"),
        ];
        let page = self.daemon.metrics(&self.netns)?;
        Ok(page.sum(&format!("envoy_cluster_{name}"), &labels))
    }

    fn becomes(&self, name: &str, wanted: f64) -> Result<()> {
        eventually(name, || Ok((self.metric(name)? == wanted).then_some(())))
    }

    /// Tokens that may have come back since the start: a hundred a minute.
    fn back(&self) -> Result<usize> {
        Ok(usize::try_from(self.began.elapsed().as_millis())? * TOKENS / 60_000 + 1)
    }
}

#[test]
fn limit_breaker_and_retry_do_what_they_say() -> Result<()> {
    let netns = Netns::new("combined")?;
    let backend = Scripted::start(&netns, "127.0.0.1:3000")?;
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/envoy-gateway/combined");
    let daemon = Daemon::start(&netns, &dir)?;
    let example = Example {
        netns,
        daemon,
        began: now(),
    };

    // Retry: three failures are not noticed, for one token.
    backend.next([Script::Answer("503 Busy", ""); 3]);
    let answer = example.ask(1)?.pop().context("no answer")?;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("x-ratelimit-limit"), "100, 100;w=60");
    let left: usize = answer.header("x-ratelimit-remaining").parse()?;
    assert!(
        left < TOKENS && left + 1 + example.back()? >= TOKENS,
        "{left}"
    );
    assert_eq!(backend.counts().requests, 4);
    assert_eq!(example.metric("upstream_rq_retry")?, 3.0);
    assert_eq!(example.metric("upstream_rq_retry_success")?, 1.0);

    // Breaker: ten of thirty, and the others are told at once.
    backend.plays(Script::Hold);
    let answers = thread::scope(|scope| {
        let asked = scope.spawn(|| example.ask(30));
        backend.came(14)?;
        example.becomes("upstream_rq_pending_overflow", 20.0)?;
        assert_eq!(example.metric("circuit_breakers_default_rq_open")?, 1.0);
        backend.release(10);
        asked.join().expect("no panic")
    })?;
    assert_eq!([count(&answers, 200), count(&answers, 503)], [10, 20]);
    for refused in answers.iter().filter(|answer| answer.status == 503) {
        assert_eq!(refused.header("x-envoy-overloaded"), "true");
    }
    example.becomes("upstream_rq_active", 0.0)?;

    // Limit: what is left of a hundred, in small portions that the breaker lets through.
    backend.plays(Script::Echo);
    let (mut passed, mut limited) = (31, 0);
    for _ in 0..10 {
        let answers = example.ask(8)?;
        passed += count(&answers, 200);
        limited += count(&answers, 429);
    }
    assert_eq!(passed + limited, 31 + 80, "the breaker was in the way");
    assert!(
        (TOKENS..=TOKENS + example.back()?).contains(&passed),
        "{passed}"
    );
    // Who is over the limit reaches neither the breaker nor the backend.
    assert_eq!(example.metric("upstream_rq_pending_overflow")?, 20.0);
    assert_eq!(backend.counts().requests, 3 + passed - 20);
    example.becomes("upstream_rq_active", 0.0)?;
    assert_eq!(example.metric("upstream_rq_retry_active")?, 0.0);
    Ok(())
}
