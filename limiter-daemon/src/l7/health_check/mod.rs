//! Looks after hosts in the background, on the control runtime: asks each one whether it is well
//! (active health checks), and ends the intervals of outlier detection.
//!
//! One task a host, and one a backend that ejects. A reload starts and stops tasks by host; those
//! whose settings stay go on where they are. Each check has a connection of its own: it finds out
//! whether connections are taken, and holds nothing of the hosts between checks.

mod grpc;
mod http;
mod owner;
mod probe;
mod tcp;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval_at, sleep, timeout};

use super::ActiveError;
use super::clock::Clock;
use super::upstream::Target;
use crate::engine::upstream::{CheckStats, Ejected, Host, Hosts, Outliers, Transition, splitmix64};
use crate::policy::plan::{Backend, BackendSettings, Endpoint, HealthCheck, OutlierDetection};
pub use owner::Died;
use owner::Owner;
use probe::Failure;

/// A host to be checked, if its settings say so.
#[derive(Clone, Debug)]
pub struct Checked {
    pub(super) host: Arc<Host>,
    pub(super) target: Arc<Target>,
    pub(super) settings: Arc<BackendSettings>,
    pub(super) stats: Arc<CheckStats>,
}

/// A backend whose hosts are ejected, if its settings say so.
#[derive(Clone, Debug)]
pub struct Watched {
    pub hosts: Arc<Hosts>,
    pub outliers: Arc<Outliers>,
    pub settings: Arc<BackendSettings>,
}

/// Owns the tasks. They end with it.
#[derive(Debug)]
pub struct HealthChecker {
    clock: Clock,
    checks: Owner<Checked>,
    sweeps: Owner<Watched>,
}

impl Checked {
    /// `host` as `endpoint` of `backend`, with connections of its own.
    ///
    /// # Errors
    /// [`ActiveError`], as for the connections of requests.
    pub fn new(
        backend: &Backend,
        endpoint: &Endpoint,
        host: Arc<Host>,
        stats: Arc<CheckStats>,
    ) -> Result<Self, ActiveError> {
        let target = Target::new(backend, (endpoint, None), Arc::clone(&host), &mut None)?;
        let target = Arc::new(target);
        let settings = Arc::clone(&backend.settings);
        Ok(Self {
            host,
            target,
            settings,
            stats,
        })
    }

    /// Whether a task for `other` does what one for this does. A target that was made anew is to be
    /// connected to anew.
    fn goes_on(&self, other: &Self) -> bool {
        self.settings.health_check == other.settings.health_check
            && Arc::ptr_eq(&self.target, &other.target)
            && Arc::ptr_eq(&self.stats, &other.stats)
    }
}

impl Watched {
    fn goes_on(&self, other: &Self) -> bool {
        self.settings.outlier_detection == other.settings.outlier_detection
            && Arc::ptr_eq(&self.hosts, &other.hosts)
    }
}

impl HealthChecker {
    /// One that does nothing yet. `clock` is that of the workers.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            checks: Owner::default(),
            sweeps: Owner::default(),
        }
    }

    /// Checks these hosts and watches these backends from now on, and no others. To be called within
    /// a runtime, at the start and whenever hosts or settings change. `random` spreads first checks.
    pub fn apply(
        &mut self,
        hosts: impl IntoIterator<Item = Checked>,
        backends: impl IntoIterator<Item = Watched>,
        random: u64,
    ) {
        let clock = self.clock;
        let mut random = random;
        let checked = hosts
            .into_iter()
            .filter(|checked| checked.settings.health_check.is_some());
        let stopped = self.checks.apply(
            checked.map(|checked| (Arc::as_ptr(&checked.host).addr(), checked)),
            Checked::goes_on,
            |checked| {
                random = splitmix64(random);
                check(checked, clock, random)
            },
        );
        for checked in stopped {
            checked.host.forget_checks();
        }
        let watched = backends
            .into_iter()
            .filter(|watched| watched.settings.outlier_detection.is_some());
        self.sweeps.apply(
            watched.map(|watched| (Arc::as_ptr(&watched.outliers).addr(), watched)),
            Watched::goes_on,
            |watched| sweep(watched, clock),
        );
    }

    /// How many tasks there are.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.checks.len() + self.sweeps.len()
    }

    /// Waits until a task dies, which none does by itself.
    pub async fn died(&mut self) -> Died {
        tokio::select! {
            died = self.checks.died() => died,
            died = self.sweeps.died() => died,
        }
    }
}

/// Checks a host again and again.
async fn check(checked: Checked, clock: Clock, random: u64) {
    let Some(settings) = &checked.settings.health_check else {
        return;
    };
    if let Some(most) = settings.initial_jitter {
        sleep(part(most, random)).await;
    }
    let mut last = None;
    loop {
        let result = match timeout(settings.timeout, probe::ask(&checked.target, settings)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(Failure::TooSlow),
        };
        conclude(&checked, settings, result, clock.now(), &mut last);
        sleep(settings.interval).await;
    }
}

/// A random part of `most`.
fn part(most: Duration, random: u64) -> Duration {
    let scaled = (most.as_nanos() * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(scaled).unwrap_or(u64::MAX))
}

/// `last` is what the last check came to, so that what a host says again and again is logged once.
fn conclude(
    checked: &Checked,
    settings: &HealthCheck,
    result: Result<(), Failure>,
    now: u64,
    last: &mut Option<String>,
) {
    let stats = &checked.stats;
    let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    count(&stats.attempts);
    count(match &result {
        Ok(()) => &stats.successes,
        Err(_) => &stats.failures,
    });
    let immediate = match &result {
        Err(failure) if failure.is_answer() => true,
        Err(_) => {
            count(&stats.network_failures);
            false
        }
        Ok(()) => false,
    };
    let ok = result.is_ok();
    let transition = checked.host.checked(ok, immediate, settings, now);
    let (backend, host) = (&checked.stats.backend, &checked.host.name);
    let reason = result.err().map(|failure| failure.to_string());
    match (transition, &reason) {
        (Some(Transition::BecameUnhealthy), Some(reason)) => {
            tracing::warn!(%backend, %host, %reason, "a host fails its health checks");
        }
        (Some(Transition::BecameHealthy), _) => {
            tracing::info!(%backend, %host, "a host passes its health checks again");
        }
        (_, Some(reason)) if last.as_ref() != Some(reason) => {
            tracing::debug!(%backend, %host, %reason, "a health check failed");
        }
        _ => {}
    }
    *last = reason;
}

/// Ends the intervals of a backend's outlier detection.
async fn sweep(watched: Watched, clock: Clock) {
    let Some(settings) = &watched.settings.outlier_detection else {
        return;
    };
    // An interval of nothing is none.
    let length = settings.interval.max(Duration::from_millis(1));
    let mut intervals = interval_at(tokio::time::Instant::now() + length, length);
    intervals.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        intervals.tick().await;
        end_interval(&watched, settings, clock.now());
    }
}

fn end_interval(watched: &Watched, settings: &OutlierDetection, now: u64) {
    let Watched {
        hosts, outliers, ..
    } = watched;
    outliers.tick(settings, hosts, now, |ejected| {
        log_ejection(&outliers.backend, hosts, ejected);
    });
}

/// Says that a host of `backend` was ejected.
pub(super) fn log_ejection(backend: &str, hosts: &Hosts, ejected: Ejected) {
    let host = hosts.all().get(ejected.host);
    let host = host.map_or("", |host| host.name.as_str());
    let reason = ejected.kind.name();
    let seconds = ejected.time.as_secs();
    tracing::warn!(%backend, %host, %reason, seconds, "a host is ejected");
}
