//! Ten thousand requests while the policies change a hundred times, by file and by signal: none fails,
//! and no bucket is reset.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustix::process::Signal;
use tests::daemon::{Daemon, Policies, demo_backend};
use tests::netns::Netns;
use tests::policies::{GATEWAY, route, traffic};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const REQUESTS: usize = 10_000;
const CHANGES: usize = 100;
const CLIENTS: usize = 8;
/// Tokens of the bucket that all requests draw from. A year's worth: not one comes back in 26 minutes.
const QUOTA: usize = 20_000;
/// How often it is looked whether a change is in force.
const LOOK: Duration = Duration::from_millis(5);
/// Looks before it is given up: a minute.
const LOOKS: usize = 12_000;
/// Requests that are let go at each look, until those of the change are all gone.
const AT_A_LOOK: usize = 4;

type Http = Client<HttpConnector, Full<Bytes>>;

fn limits(change: usize) -> String {
    let rules = format!(
        "      - limit: {{requests: {QUOTA}, unit: Year}}
      - clientSelectors: [{{headers: [{{name: x-user-id, value: user-{change}}}]}}]
        limit: {{requests: {}, unit: Minute}}\n",
        change + 1
    );
    traffic("all", ("HTTPRoute", "api"), &rules)
}

/// A route that is there from this change on until the next.
fn step(change: usize) -> String {
    route("step", &format!("/step/{change}"))
}

async fn ask(http: &Http, path: &str) -> Result<(u16, Option<u64>)> {
    let url = format!("http://127.0.0.1:8080{path}");
    let request = Request::get(url).body(Full::default())?;
    let response = http.request(request).await?;
    let status = response.status().as_u16();
    let remaining = response.headers().get("x-ratelimit-remaining");
    let remaining = remaining.and_then(|value| value.to_str().ok()?.parse().ok());
    response.into_body().collect().await?;
    Ok((status, remaining))
}

/// Asks for as long as there are permits; each request must be answered with 200.
async fn client(http: Http, permits: Arc<Semaphore>, done: Arc<AtomicUsize>) -> Result<()> {
    loop {
        let Ok(permit) = permits.acquire().await else {
            return Ok(());
        };
        permit.forget();
        let number = done.load(Ordering::Relaxed);
        let (status, _) = ask(&http, "/api")
            .await
            .with_context(|| format!("a request failed, after {number}"))?;
        ensure!(status == 200, "answered with {status}, after {number}");
        done.fetch_add(1, Ordering::Relaxed);
    }
}

async fn roll(daemon: &Daemon, policies: &Policies) -> Result<()> {
    let http = Client::builder(TokioExecutor::new()).build_http();
    let permits = Arc::new(Semaphore::new(0));
    let done = Arc::new(AtomicUsize::new(0));
    let failed = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let http = Client::builder(TokioExecutor::new()).build_http();
        let (permits, done, failed) = (permits.clone(), done.clone(), failed.clone());
        clients.spawn(async move {
            let ended = client(http, permits, done).await;
            failed.fetch_or(ended.is_err(), Ordering::Relaxed);
            ended
        });
    }
    for change in 0..CHANGES {
        let mut left = REQUESTS / CHANGES;
        policies.write("limits.yaml", &limits(change))?;
        policies.write("step.yaml", &step(change))?;
        if change % 2 == 1 {
            daemon.process.signal(Signal::HUP)?;
        }
        let path = format!("/step/{change}");
        let mut looks = 0;
        // Requests go out all the while, so that some are in flight when the plan is swapped.
        while ask(&http, &path).await?.0 != 200 {
            ensure!(looks < LOOKS, "change {change} does not come into force");
            looks += 1;
            let now = left.min(AT_A_LOOK);
            permits.add_permits(now);
            left -= now;
            tokio::time::sleep(LOOK).await;
        }
        permits.add_permits(left);
        let due = (change + 1) * REQUESTS / CHANGES;
        while done.load(Ordering::Relaxed) < due && !failed.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK).await;
        }
        if failed.load(Ordering::Relaxed) {
            break;
        }
    }
    permits.close();
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    ensure!(done.load(Ordering::Relaxed) == REQUESTS);
    let (status, remaining) = ask(&http, "/api").await?;
    ensure!(status == 200);
    let left = u64::try_from(QUOTA - REQUESTS - 1)?;
    // A token comes back in 26 minutes.
    let remaining = remaining.context("no header")?;
    ensure!(
        (left..=left + 1).contains(&remaining),
        "{remaining} tokens are left, not {left}: a bucket was reset, or a request counted twice"
    );
    Ok(())
}

#[test]
fn ten_thousand_requests_meet_a_hundred_changes() -> Result<()> {
    let netns = Netns::new("rolling")?;
    let _backend = demo_backend(&netns)?;
    let policies = Policies::new(&[
        ("gateway.yaml", GATEWAY),
        ("route.yaml", &route("api", "/api")),
        ("limits.yaml", &limits(0)),
        ("step.yaml", &route("step", "/none")),
    ])?;
    let daemon = Daemon::start(&netns, policies.path())?;
    netns.enter(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(roll(&daemon, &policies))
    })?;
    let page = daemon.metrics(&netns)?;
    let reloads = |result| page.sum("limiterd_policy_reloads_total", &[("result", result)]);
    assert!(reloads("applied") >= 100.0);
    assert_eq!(reloads("rejected"), 0.0);
    assert!(daemon.stop()?.success());
    Ok(())
}
