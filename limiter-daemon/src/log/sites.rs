//! A bucket for each place in the code that logs.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use limiter_common::Limit;
use limiter_common::bucket::{self, Cell, Decision};
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The target of the lines that tell how many were left out: they are never left out themselves.
pub(super) const TOLD: &str = "limiter_daemon::left_out";
/// What no client can cause, by the beginning of the target: what was done by hand, and what is said of
/// policy files and of interfaces.
const ALWAYS: [&str; 4] = [
    TOLD,
    "audit",
    "limiter_daemon::app::reload",
    "limiter_daemon::l4::attach",
];
const SECOND: u64 = 1_000_000_000;
/// How often a bucket is tried that other threads change at the moment; then the line is left out.
const TRIES: u32 = 64;

/// Every place that has logged, and what was left out there. As many as the code has: none is ever
/// forgotten.
#[derive(Debug)]
pub struct Sites {
    lines_per_second: AtomicU64,
    sites: RwLock<HashMap<Identifier, Arc<Site>>>,
}

/// A place in the code.
#[derive(Debug)]
struct Site {
    metadata: &'static Metadata<'static>,
    /// TAT of its bucket.
    tat: Tat,
    /// Lines that were left out.
    left_out: AtomicU64,
    /// How many of those were told of.
    told: AtomicU64,
}

/// What was left out at one place since it was last told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) target: &'static str,
    pub(super) line: Option<u32>,
    pub(super) level: Level,
    pub(super) count: u64,
}

#[derive(Debug, Default)]
struct Tat(AtomicU64);

impl Cell for Tat {
    fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn compare_exchange(&self, seen: u64, next: u64) -> Result<(), u64> {
        let swapped = self
            .0
            .compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed);
        swapped.map(drop)
    }
}

impl Sites {
    /// At each place so many lines a second, and as many at once.
    pub(super) fn new(lines_per_second: u32) -> Self {
        Self {
            lines_per_second: AtomicU64::new(lines_per_second.into()),
            sites: RwLock::default(),
        }
    }

    pub(super) fn set_limit(&self, lines_per_second: u32) {
        let lines = u64::from(lines_per_second);
        self.lines_per_second.store(lines, Ordering::Relaxed);
    }

    /// Whether the place of `metadata` may log a line at `now`, in nanoseconds; if not, it is counted.
    pub(super) fn admit(&self, metadata: &'static Metadata<'static>, now: u64) -> bool {
        let target = metadata.target();
        if ALWAYS.iter().any(|always| target.starts_with(always)) {
            return true;
        }
        let lines = self.lines_per_second.load(Ordering::Relaxed);
        let Ok(limit) = Limit::new(lines, lines, SECOND) else {
            return true;
        };
        let site = self.site(metadata);
        let taken = bucket::take(&site.tat, now, limit.cost(1), limit.tolerance, TRIES);
        let admitted = matches!(taken, Decision::Admitted { .. });
        if !admitted {
            site.left_out.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    fn site(&self, metadata: &'static Metadata<'static>) -> Arc<Site> {
        let callsite = metadata.callsite();
        let sites = self.sites.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(site) = sites.get(&callsite) {
            return Arc::clone(site);
        }
        drop(sites);
        let mut sites = self.sites.write().unwrap_or_else(PoisonError::into_inner);
        let site = sites.entry(callsite).or_insert_with(|| {
            Arc::new(Site {
                metadata,
                tat: Tat::default(),
                left_out: AtomicU64::new(0),
                told: AtomicU64::new(0),
            })
        });
        Arc::clone(site)
    }

    fn all(&self) -> Vec<Arc<Site>> {
        let sites = self.sites.read().unwrap_or_else(PoisonError::into_inner);
        sites.values().map(Arc::clone).collect()
    }

    /// What was left out since this was asked last, by place.
    pub(super) fn take_left_out(&self) -> Vec<LeftOut> {
        let news = |site: Arc<Site>| {
            let left_out = site.left_out.load(Ordering::Relaxed);
            let told = site.told.swap(left_out, Ordering::Relaxed);
            let count = left_out.saturating_sub(told);
            (count > 0).then_some(LeftOut {
                target: site.metadata.target(),
                line: site.metadata.line(),
                level: *site.metadata.level(),
                count,
            })
        };
        let mut left_out: Vec<_> = self.all().into_iter().filter_map(news).collect();
        left_out.sort_by_key(|left_out| (left_out.target, left_out.line));
        left_out
    }

    /// Lines that were left out since the start, by the module that they are of (of libraries that use
    /// `log`: all of them are one).
    #[must_use]
    pub fn left_out(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for site in self.all() {
            let left_out = site.left_out.load(Ordering::Relaxed);
            if left_out > 0 {
                *counts.entry(site.metadata.target()).or_insert(0) += left_out;
            }
        }
        counts
    }
}

/// Leaves out what is over the limit of its place.
pub(super) struct Limiter<C> {
    sites: Arc<Sites>,
    /// Nanoseconds of a monotonic clock.
    clock: C,
}

impl<C> Limiter<C> {
    pub(super) const fn new(sites: Arc<Sites>, clock: C) -> Self {
        Self { sites, clock }
    }
}

impl<C> fmt::Debug for Limiter<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").finish_non_exhaustive()
    }
}

impl<S, C> Layer<S> for Limiter<C>
where
    S: Subscriber,
    C: Fn() -> u64 + 'static,
{
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        self.sites.admit(event.metadata(), (self.clock)())
    }
}
