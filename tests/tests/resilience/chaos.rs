//! Backends that die and come back at random while fifty clients go on: with retries on, none of their
//! requests fails while one endpoint lives.
//!
//! An endpoint lives for a request if it lives from the request's beginning to its end. So when one is
//! killed, each request that is under way must have begun after the last change, a return too: then
//! it has met no death before, and will meet none after; whoever else lives has lived since before it
//! began, and will until it ends. That endpoint is found at the latest by the fifth attempt, for none
//! is tried twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tests::netns::Netns;
use tests::over::Over;
use tests::packets::Random;
use tests::scene::Scene;
use tests::scripted::Scripted;
use tokio::task::JoinSet;

use super::support::{Host, PROXY, stage};

const PORTS: [u16; 5] = [3001, 3002, 3003, 3004, 3005];
const CLIENTS: usize = 50;
const REQUESTS: usize = 20_000;
const SEED: u64 = 5;
/// Requests that end between two changes, at least.
const BETWEEN: usize = 10;
/// How often it is looked whether the next change is due.
const LOOK: Duration = Duration::from_millis(1);
/// Bytes of a body, at most; what is kept of one is more.
const BODY: usize = 20_000;
/// Of a client that asks nothing.
const IDLE: u64 = u64::MAX;

/// What clients and the hand that kills know of each other.
struct Course {
    /// Deaths and returns so far.
    changes: AtomicU64,
    /// Changes before each client's request, or [`IDLE`].
    since: Vec<AtomicU64>,
    begun: AtomicUsize,
    done: AtomicUsize,
    over: AtomicBool,
}

impl Course {
    fn new() -> Self {
        Self {
            changes: AtomicU64::new(0),
            since: (0..CLIENTS).map(|_| AtomicU64::new(IDLE)).collect(),
            begun: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Whether all requests began after the last change.
    fn may_kill(&self) -> bool {
        let changes = self.changes.load(Ordering::SeqCst);
        self.since
            .iter()
            .all(|since| since.load(Ordering::SeqCst) >= changes)
    }

    /// Kills and revives until it is over; how often each happened.
    fn kill_and_revive(&self, scene: &Scene, backends: &[Scripted]) -> Result<[usize; 2]> {
        let mut random = Random::new(SEED);
        let mut counts = [0; 2];
        let mut due = BETWEEN;
        while !self.is_over() {
            if self.done.load(Ordering::SeqCst) < due {
                thread::sleep(LOOK);
                continue;
            }
            let backend = &backends[random.below(backends.len())];
            if !backend.is_up() {
                backend.up(&scene.netns)?;
                self.changes.fetch_add(1, Ordering::SeqCst);
                counts[1] += 1;
            } else if backends.iter().filter(|backend| backend.is_up()).count() > 1 {
                while !self.may_kill() && !self.is_over() {
                    thread::sleep(LOOK);
                }
                backend.down();
                // Who has begun before this, also while it died, ends before the next one dies.
                self.changes.fetch_add(1, Ordering::SeqCst);
                counts[0] += 1;
            }
            due = self.done.load(Ordering::SeqCst) + BETWEEN;
        }
        Ok(counts)
    }

    /// One client's requests, one after the other.
    async fn client(&self, number: usize) -> Result<()> {
        let http: Client<HttpConnector, Full<Bytes>> =
            Client::builder(TokioExecutor::new()).build_http();
        let mut random = Random::new(SEED ^ (number as u64 + 1) << 32);
        while self.begun.fetch_add(1, Ordering::SeqCst) < REQUESTS {
            self.since[number].store(self.changes.load(Ordering::SeqCst), Ordering::SeqCst);
            let asked = ask(&http, &mut random).await;
            self.since[number].store(IDLE, Ordering::SeqCst);
            let done = self.done.fetch_add(1, Ordering::SeqCst);
            asked.with_context(|| format!("client {number}, after {done} requests"))?;
        }
        Ok(())
    }
}

async fn ask(http: &Client<HttpConnector, Full<Bytes>>, random: &mut Random) -> Result<()> {
    let (method, body) = if random.once_in(2) {
        (Method::GET, Vec::new())
    } else {
        let length = random.below(BODY);
        (
            Method::PUT,
            random.next().to_be_bytes().repeat(length / 8 + 1),
        )
    };
    let body = Bytes::from(body);
    let request = Request::builder()
        .method(&method)
        .uri(format!("http://{PROXY}/"))
        .header("host", "chaos.test")
        .body(Full::new(body.clone()))?;
    let response = http.request(request).await?;
    let status = response.status();
    let got = response
        .into_body()
        .collect()
        .await
        .context("it broke off")?;
    let got = got.to_bytes();
    ensure!(
        status == 200 && got == body,
        "{method} was answered with {status}: {:?}",
        String::from_utf8_lossy(&got[..got.len().min(100)])
    );
    Ok(())
}

#[test]
fn no_request_fails_while_one_endpoint_lives() -> Result<()> {
    let netns = Netns::new("chaos")?;
    let backends: Vec<_> = PORTS
        .iter()
        .map(|port| Scripted::start(&netns, &format!("127.0.0.1:{port}")))
        .collect::<Result<_>>()?;
    let spec = "  retry:
    numRetries: 4
    retryOn: {triggers: [connect-failure, reset, gateway-error]}
    perRetry: {backOff: {baseInterval: 1ms, maxInterval: 5ms}}
";
    let scene = stage(netns, &[("chaos", &PORTS, spec)])?;
    let course = Arc::new(Course::new());
    let (asked, changed) = thread::scope(|scope| {
        let hand = scope.spawn(|| {
            let _over = Over(&course.over);
            course.kill_and_revive(&scene, &backends)
        });
        let asked = scene.netns.enter(|| {
            let _over = Over(&course.over);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let mut clients = JoinSet::new();
                for number in 0..CLIENTS {
                    let course = Arc::clone(&course);
                    clients.spawn(async move { course.client(number).await });
                }
                while let Some(ended) = clients.join_next().await {
                    ended??;
                }
                Ok(())
            })
        });
        (asked, hand.join().expect("no panic"))
    });
    asked?;
    let [deaths, returns] = changed?;
    println!("{REQUESTS} requests, {deaths} deaths, {returns} returns");
    ensure!(
        deaths >= 50 && returns >= 50,
        "{deaths} deaths, {returns} returns"
    );
    let chaos = Host::new(&scene, "chaos");
    chaos.rests()?;
    ensure!(
        chaos.metric("upstream_rq_retry_success")? > 0.0,
        "nothing was retried"
    );
    Ok(())
}
