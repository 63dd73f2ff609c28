//! The daemon under churn, round after round: clients that come and go in the middle of requests,
//! over HTTP/1 and HTTP/2, with bodies short and long; backends that die, come back and misbehave;
//! reloads. After each round all is let come to rest, and what the daemon holds is looked at.
//!
//! - All gauges of what is under way are back at 0.
//! - Descriptors that are no idle connection to a backend are as many as after the warm-up: exactly.
//! - Memory is flat: the median of resident memory over the last quarter of the rounds is at most
//!   `GROWTH` percent and `SLACK` above that of the first quarter behind the warm-up.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::daemon::{Daemon, Policies, eventually};
use crate::netns::Netns;
use crate::packets::Random;
use crate::policies::{GATEWAY, treated_host};
use crate::scripted::{Script, Scripted};

mod clients;

use clients::Errand;

/// Rounds after which everything that is made once has been made.
const WARM_UP: usize = 6;
/// Percent.
const GROWTH: u64 = 5;
/// Bytes.
const SLACK: u64 = 4 << 20;
/// A reload comes every so many rounds.
const RELOAD: usize = 3;
/// Of the host whose backends die.
const STEADY: [u16; 3] = [4001, 4002, 4003];
/// Of the host whose backend misbehaves.
const ROUGH: u16 = 4004;
/// What it does.
const ROUGHLY: [Script; 16] = [
    Script::Echo,
    Script::Answer("503 Busy", "retry-after: 0\r\n"),
    Script::Stall,
    Script::Close,
    Script::Reset,
    Script::HalfClose,
    Script::Garbage,
    Script::HalfAnswer,
    Script::ResetAnswer,
    Script::StallAnswer,
    Script::FloodBody,
    Script::FloodHead,
    Script::FloodContinue,
    Script::Unasked,
    Script::EarlyClose,
    Script::EarlyAnswer,
];

/// How long it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Rounds(usize),
    Time(Duration),
}

/// What clients were told, by what it was.
#[derive(Debug, Default)]
pub struct Tally(Mutex<BTreeMap<String, u64>>);

impl Tally {
    fn count(&self, what: impl Into<String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(what.into()).or_default() += 1;
    }

    fn of(&self, what: &str) -> u64 {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(what).copied().unwrap_or_default()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let words: Vec<_> = all.iter().map(|(what, n)| format!("{what}: {n}")).collect();
        f.write_str(&words.join(", "))
    }
}

/// What the daemon holds at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Bytes of resident memory.
    pub memory: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Of these, idle connections to backends.
    pub idle: u64,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = self.memory >> 10;
        let (descriptors, idle) = (self.descriptors, self.idle);
        write!(
            f,
            "{kib} KiB, {descriptors} descriptors, {idle} of them idle connections"
        )
    }
}

/// A run that has passed.
#[derive(Debug)]
pub struct Report {
    pub rounds: usize,
    pub changes: u64,
    pub reloads: u64,
    pub tally: Arc<Tally>,
    /// After the warm-up, and at the end.
    pub held: [Held; 2],
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rounds,
            changes,
            reloads,
            tally,
            held: [first, last],
        } = self;
        writeln!(
            f,
            "{rounds} rounds, {changes} deaths and returns, {reloads} reloads"
        )?;
        writeln!(f, "{tally}")?;
        writeln!(f, "after the warm-up: {first}")?;
        write!(f, "at the end:        {last}")
    }
}

struct Soak {
    netns: Netns,
    policies: Policies,
    daemon: Daemon,
    steady: Vec<Scripted>,
    rough: Scripted,
    random: Random,
    tally: Arc<Tally>,
    changes: u64,
    reloads: u64,
}

/// Runs it; `say` is told how it goes.
///
/// # Errors
/// When the daemon keeps what it should let go, does not answer, or a client waits in vain.
pub fn run(length: Length, seed: u64, mut say: impl FnMut(&str)) -> Result<Report> {
    let began = now();
    let mut soak = Soak::start(seed)?;
    let mut held = Vec::new();
    let mut said = Duration::ZERO;
    let goes_on = |rounds: usize| match length {
        Length::Rounds(wanted) => rounds < wanted.max(WARM_UP + 4),
        Length::Time(wanted) => rounds < WARM_UP + 4 || began.elapsed() < wanted,
    };
    while goes_on(held.len()) {
        let round = held.len();
        soak.round(round)
            .with_context(|| format!("round {round}"))?;
        let base = held.get(WARM_UP).copied();
        let now = soak
            .rest(base)
            .with_context(|| format!("after round {round}"))?;
        held.push(now);
        if began.elapsed() >= said {
            said = began.elapsed() + Duration::from_secs(15);
            say(&format!("round {round}: {now}"));
        }
    }
    soak.finish(&held)
}

#[expect(clippy::disallowed_methods, reason = "how long it has gone on")]
fn now() -> Instant {
    Instant::now()
}

/// The policies; `version` changes a little of each.
fn hosts(version: usize) -> String {
    let parallel = 6 + version % 3;
    let idle = "timeout: {http: {connectionIdleTimeout: 1s}}";
    let steady = format!(
        "  {idle}
  retry:
    numRetries: 3
    retryOn: {{triggers: [connect-failure, reset, gateway-error]}}
    perRetry: {{backOff: {{baseInterval: 1ms, maxInterval: 5ms}}}}
  healthCheck: {{passive: {{consecutive5XxErrors: {parallel}, baseEjectionTime: 100ms}}}}
"
    );
    let rough = format!(
        "  timeout: {{http: {{requestTimeout: 200ms, maxStreamDuration: 300ms, connectionIdleTimeout: 1s}}}}
  circuitBreaker: {{maxParallelRequests: {}}}
  retry: {{numRetries: 1, perRetry: {{backOff: {{baseInterval: 1ms}}}}}}
",
        20 + version % 3
    );
    let busy = format!(
        "  {idle}
  circuitBreaker: {{maxConnections: 2, maxPendingRequests: {parallel}}}
"
    );
    let limited = format!(
        "  {idle}
  rateLimit:
    local:
      rules:
      - clientSelectors: [{{headers: [{{name: x-user, type: Distinct}}]}}]
        limit: {{requests: {parallel}, unit: Hour}}
"
    );
    [
        treated_host("steady", &STEADY, &steady),
        treated_host("rough", &[ROUGH], &rough),
        treated_host("busy", &STEADY, &busy),
        treated_host("limited", &STEADY, &limited),
    ]
    .concat()
}

impl Soak {
    fn start(seed: u64) -> Result<Self> {
        let netns = Netns::new("soak")?;
        let backend = |port: &u16| Scripted::start(&netns, &format!("127.0.0.1:{port}"));
        let steady = STEADY.iter().map(backend).collect::<Result<_>>()?;
        let rough = backend(&ROUGH)?;
        let policies = Policies::new(&[("gateway.yaml", GATEWAY), ("hosts.yaml", &hosts(0))])?;
        let daemon = Daemon::start(&netns, policies.path())?;
        Ok(Self {
            netns,
            policies,
            daemon,
            steady,
            rough,
            random: Random::new(seed),
            tally: Arc::default(),
            changes: 0,
            reloads: 0,
        })
    }

    fn round(&mut self, round: usize) -> Result<()> {
        self.rough.plays(ROUGHLY[round % ROUGHLY.len()]);
        if round % RELOAD == 2 {
            self.policies.write("hosts.yaml", &hosts(round / RELOAD))?;
        }
        let (netns, tally) = (&self.netns, &self.tally);
        let (random, steady) = (&mut self.random, &self.steady);
        let (daemon, mut changes, mut reloads) = (&self.daemon, 0, 0);
        netns.enter(|| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut clients = JoinSet::new();
                for errand in Errand::ALL {
                    clients.spawn(errand.run(random.next(), Arc::clone(tally)));
                }
                // What changes, changes while they are at it: whenever one has done its errand.
                while let Some(done) = clients.join_next().await {
                    done??;
                    changes += u64::from(change(random, steady, netns)?);
                    if round % RELOAD == 2 && reloads == 0 {
                        reloads += 1;
                        daemon.process.signal(rustix::process::Signal::HUP)?;
                    }
                }
                Ok(())
            })
        })?;
        self.changes += changes;
        self.reloads += reloads;
        Ok(())
    }

    /// Waits until nothing is under way, and no more is held than in `base`.
    fn rest(&self, base: Option<Held>) -> Result<Held> {
        let mut seen = String::new();
        let rested = eventually("the daemon to be at rest", || {
            let page = self.daemon.metrics(&self.netns)?;
            let left: Vec<_> = [
                "envoy_cluster_upstream_rq_active",
                "envoy_cluster_upstream_rq_pending_active",
                "envoy_cluster_upstream_rq_retry_active",
                "limiterd_downstream_cx_active",
            ]
            .into_iter()
            .map(|gauge| (gauge, page.sum(gauge, &[])))
            .filter(|(_, value)| *value != 0.0)
            .collect();
            let held = self.held(&page)?;
            seen = format!("{left:?}, {held}");
            let more = base.is_some_and(|base| held.other() > base.other());
            Ok((left.is_empty() && !more).then_some(held))
        });
        rested.with_context(|| format!("{seen}; base {base:?}"))
    }

    fn held(&self, page: &crate::metrics::Page) -> Result<Held> {
        let process = format!("/proc/{}", self.daemon.process.id());
        let status = std::fs::read_to_string(format!("{process}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        let kib: u64 = kib.context("no VmRSS")?.parse()?;
        let descriptors = std::fs::read_dir(format!("{process}/fd"))?.count();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count"
        )]
        let idle = page.sum("envoy_cluster_upstream_cx_active", &[]) as u64;
        Ok(Held {
            memory: kib << 10,
            descriptors: u64::try_from(descriptors)?,
            idle,
        })
    }

    /// Everything that is idle is closed in the end, and nothing has grown.
    fn finish(self, held: &[Held]) -> Result<Report> {
        let first = *held.get(WARM_UP).context("no warm-up")?;
        let mut last = first;
        eventually("idle connections to be closed", || {
            last = self.rest(Some(first))?;
            Ok((last.idle == 0).then_some(()))
        })?;
        let behind = &held[WARM_UP..];
        let quarter = behind.len().div_ceil(4);
        let early = median(&behind[..quarter]);
        let late = median(&behind[behind.len() - quarter..]);
        ensure!(
            late <= early + early * GROWTH / 100 + SLACK,
            "memory has grown from {} KiB to {} KiB",
            early >> 10,
            late >> 10
        );
        for told in ["200", "429", "502", "503", "504", "broken", "left"] {
            ensure!(
                self.tally.of(told) > 0,
                "nobody was told {told}: {}",
                self.tally
            );
        }
        ensure!(self.changes > 0, "nobody died");
        let tally = Arc::clone(&self.tally);
        let (changes, reloads) = (self.changes, self.reloads);
        ensure!(self.daemon.stop()?.success(), "the daemon did not end well");
        Ok(Report {
            rounds: held.len(),
            changes,
            reloads,
            tally,
            held: [first, last],
        })
    }
}

impl Held {
    /// Descriptors that are no idle connection.
    const fn other(&self) -> u64 {
        self.descriptors.saturating_sub(self.idle)
    }
}

fn median(held: &[Held]) -> u64 {
    let mut memory: Vec<_> = held.iter().map(|held| held.memory).collect();
    memory.sort_unstable();
    memory.get(memory.len() / 2).copied().unwrap_or_default()
}

/// Lets a backend die or come back, one that is not the last. Whether any did.
fn change(random: &mut Random, backends: &[Scripted], netns: &Netns) -> Result<bool> {
    let backend = &backends[random.below(backends.len())];
    if !backend.is_up() {
        backend.up(netns)?;
        return Ok(true);
    }
    let last = backends.iter().filter(|backend| backend.is_up()).count() == 1;
    if !last {
        backend.down();
    }
    Ok(!last)
}
