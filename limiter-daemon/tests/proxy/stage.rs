//! A proxy on loopback addresses of its own, and what it has counted.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use limiter_daemon::engine::Engine;
use limiter_daemon::engine::state::State;
use limiter_daemon::l7::clock::Clock;
use limiter_daemon::l7::eviction::Evictions;
use limiter_daemon::l7::metrics::Counters;
use limiter_daemon::l7::record::{Completion, Record, Sink, TcpEnd, TcpRecord};
use limiter_daemon::l7::worker::Shared;
use limiter_daemon::l7::{Active, Surroundings, Workers, listener};
use limiter_daemon::policy::plan::Plan;
use tokio::runtime::Runtime;

/// For everything that a test waits for; far more than it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running data plane with one worker.
pub(crate) struct Stage {
    runtime: Runtime,
    workers: Option<Workers>,
    active: Arc<ArcSwap<Active>>,
    pub(crate) state: State,
    clock: Clock,
    pub(crate) counters: Arc<Counters>,
    pub(crate) log: Arc<Log>,
}

/// What is kept of a record.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) target: String,
    pub(crate) status: u16,
    pub(crate) route: Option<String>,
    pub(crate) client: String,
    pub(crate) upstream: Option<String>,
    pub(crate) refused: Option<&'static str>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) completion: Completion,
}

/// What is kept of a connection that was passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) host: Option<String>,
    pub(crate) name: String,
    pub(crate) client: String,
    pub(crate) upstream: Option<String>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) end: TcpEnd,
}

#[derive(Debug, Default)]
pub(crate) struct Log(Mutex<Vec<Line>>, Mutex<Vec<Passed>>);

impl Sink for Log {
    fn record(&self, record: &Record) {
        assert!(record.ended >= record.began);
        self.0.lock().unwrap().push(Line {
            target: record.target.clone(),
            status: record.status.as_u16(),
            route: record.rule.as_ref().map(|rule| rule.route.name.clone()),
            client: record.client.to_string(),
            upstream: record.upstream.as_ref().map(ToString::to_string),
            refused: record.refused,
            received: record.received,
            sent: record.sent,
            completion: record.completion,
        });
    }

    fn passed_on(&self, record: &TcpRecord) {
        assert!(record.ended >= record.began);
        self.1.lock().unwrap().push(Passed {
            host: record.host.as_ref().map(ToString::to_string),
            name: record.name.to_string(),
            client: record.peer.ip().to_string(),
            upstream: record.upstream.as_ref().map(ToString::to_string),
            received: record.received,
            sent: record.sent,
            end: record.end,
        });
    }
}

impl Log {
    /// The first `count` connections, when they are over.
    pub(crate) fn passed_on(&self, count: usize) -> Vec<Passed> {
        eventually(|| {
            let all = self.1.lock().unwrap();
            (all.len() >= count).then(|| all.clone())
        })
    }

    /// The first `count` lines, when they are there.
    pub(crate) fn lines(&self, count: usize) -> Vec<Line> {
        eventually(|| {
            let lines = self.0.lock().unwrap();
            (lines.len() >= count).then(|| lines.clone())
        })
    }
}

/// An address that no other test has.
pub(crate) fn address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let block = std::process::id() % (1 << 13);
    let host = 0x7f00_0000 | 1 << 23 | block << 10 | (number % (1 << 10));
    SocketAddr::from((Ipv4Addr::from_bits(host), 8080))
}

/// What `found` finds, sooner or later.
pub(crate) fn eventually<T>(mut found: impl FnMut() -> Option<T>) -> T {
    for _ in 0..PATIENCE.as_millis() / 5 {
        if let Some(found) = found() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it never came");
}

fn around(state: &State, clock: Clock) -> Surroundings<'_> {
    Surroundings {
        state,
        names: &|_, _| None,
        now: clock.now(),
    }
}

impl Stage {
    /// Serves every address of `plan` with one worker.
    pub(crate) fn new(plan: &Plan) -> Self {
        Self::with_workers(plan, 1)
    }

    /// Serves every address of `plan` with so many workers.
    pub(crate) fn with_workers(plan: &Plan, count: usize) -> Self {
        Self::with_state(plan, count, State::new(1024))
    }

    /// The same, with what `state` has.
    pub(crate) fn with_state(plan: &Plan, count: usize, state: State) -> Self {
        let clock = Clock::start();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let active = Active::new(
            plan,
            Engine::compile(plan, &state),
            &around(&state, clock),
            None,
        )
        .unwrap();
        let active = Arc::new(ArcSwap::from_pointee(active));
        let counters = Arc::new(Counters::default());
        let log = Arc::new(Log::default());
        let sink: Arc<dyn Sink> = Arc::clone(&log) as _;
        let shared = Shared {
            active: Arc::clone(&active),
            clock,
            counters: Arc::clone(&counters),
            store: Arc::clone(state.store()),
            tracer: None,
            sink: Some(sink),
            court: None,
            evictions: Evictions::default(),
        };
        let workers = Workers::start(count, &shared).unwrap();
        let mut served = Vec::new();
        let http = plan.listeners.iter().map(|listener| &listener.binds);
        let all = http.chain(plan.tcp.iter().map(|proxy| &proxy.binds));
        for bind in all.flatten() {
            if !served.contains(bind) {
                served.push(*bind);
                let sockets = listener::bind(*bind, count, false).unwrap();
                runtime.block_on(workers.listen(*bind, sockets, false));
            }
        }
        Self {
            runtime,
            workers: Some(workers),
            active,
            state,
            clock,
            counters,
            log,
        }
    }

    /// Puts another plan in force, on the same addresses.
    pub(crate) fn reload(&self, plan: &Plan) {
        let engine = Engine::compile(plan, &self.state);
        let active = Active::new(
            plan,
            engine,
            &around(&self.state, self.clock),
            Some(&self.active.load()),
        )
        .unwrap();
        self.active.store(Arc::new(active));
    }

    /// Ends the workers; what is in flight has `timeout`.
    pub(crate) fn drain(&mut self, timeout: Duration) {
        let workers = self.workers.take().unwrap();
        assert!(self.runtime.block_on(ended(workers, timeout)));
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(workers) = self.workers.take() {
            let drained = self.runtime.block_on(ended(workers, Duration::ZERO));
            assert!(drained || std::thread::panicking(), "a worker panicked");
        }
    }
}

async fn ended(workers: Workers, timeout: Duration) -> bool {
    workers.drain(timeout).await.ended().await
}
