//! Whether the store is asked, and what has come of it: breaker, counters, events.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Inner;
use crate::engine::store::breaker::{Breaker, Condition, Permit, Settings};
use crate::engine::time::Now;
use crate::policy::plan::OnStoreFailure;

/// Why a request was decided without the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No answer within the budget.
    Timeout,
    /// There is no connection.
    Disconnected,
    /// An answer that is an error, or not one to the question.
    Error,
}

/// What has been counted of a store.
#[derive(Debug, Default)]
pub struct Counts {
    ok: AtomicU64,
    timeout: AtomicU64,
    disconnected: AtomicU64,
    error: AtomicU64,
    not_asked: AtomicU64,
    local: AtomicU64,
    allow: AtomicU64,
    deny: AtomicU64,
    lost_adjustments: AtomicU64,
    connections: AtomicI64,
}

impl Counts {
    /// How often it was asked, and what came of it.
    #[must_use]
    pub fn asked(&self) -> [(&'static str, u64); 5] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("ok", read(&self.ok)),
            ("timeout", read(&self.timeout)),
            ("disconnected", read(&self.disconnected)),
            ("error", read(&self.error)),
            ("not_asked", read(&self.not_asked)),
        ]
    }

    /// Limits that were decided without it, by what held.
    #[must_use]
    pub fn without(&self) -> [(&'static str, u64); 3] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("local", read(&self.local)),
            ("allow", read(&self.allow)),
            ("deny", read(&self.deny)),
        ]
    }

    /// Refunds and costs of responses that did not reach it.
    #[must_use]
    pub fn lost_adjustments(&self) -> u64 {
        self.lost_adjustments.load(Ordering::Relaxed)
    }

    /// Connections that are up.
    #[must_use]
    pub fn connections(&self) -> u64 {
        u64::try_from(self.connections.load(Ordering::Relaxed)).unwrap_or(0)
    }

    pub(super) fn decided_without(&self, mode: OnStoreFailure) {
        add(match mode {
            OnStoreFailure::Local => &self.local,
            OnStoreFailure::Allow => &self.allow,
            OnStoreFailure::Deny => &self.deny,
        });
    }

    pub(super) fn lost_adjustment(&self) {
        add(&self.lost_adjustments);
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The breaker of a store, shared by all threads.
#[derive(Debug)]
pub(super) struct Guard {
    address: String,
    breaker: Mutex<Breaker>,
    /// The breaker is well: nothing is to be written down of what succeeds.
    well: AtomicBool,
    /// How often it has opened.
    openings: AtomicU64,
    counts: Counts,
}

impl Guard {
    pub(super) fn new(address: String) -> Self {
        Self {
            address,
            breaker: Mutex::new(Breaker::new(Settings::default())),
            well: AtomicBool::new(true),
            openings: AtomicU64::new(0),
            counts: Counts::default(),
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) const fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) fn condition(&self) -> Condition {
        if self.well.load(Ordering::Relaxed) {
            return Condition::Closed;
        }
        self.lock().condition()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the breaker, and tells of it.
    fn change<T>(&self, change: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut breaker = self.lock();
        let before = breaker.condition();
        let result = change(&mut breaker);
        let after = breaker.condition();
        self.openings.store(breaker.openings(), Ordering::Relaxed);
        self.well.store(breaker.is_well(), Ordering::Release);
        drop(breaker);
        let store = &self.address;
        match (before, after) {
            (Condition::Closed, Condition::Open) => {
                tracing::warn!(
                    %store,
                    state = after.name(),
                    "the store does not answer in time: global limits are decided without it"
                );
            }
            (Condition::HalfOpen, Condition::Closed) => {
                tracing::info!(%store, state = after.name(), "the store counts global limits again");
            }
            _ => {}
        }
        result
    }

    pub(super) fn connected(&self, more: i64) {
        self.counts.connections.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn unreachable(&self, error: &str) {
        tracing::warn!(
            store = %self.address,
            error,
            "no connection to the store; it is tried again until there is one"
        );
    }
}

/// Leave to ask once; told what came of it, or that nobody waits any more.
#[derive(Debug)]
pub(super) struct Attempt {
    inner: Arc<Inner>,
    /// `None`: it was told.
    permit: Option<Permit>,
    began: Now,
    /// Only how long ago that was is asked of it.
    since: Instant,
}

impl Attempt {
    /// `None`: the store is not to be asked at `now`.
    pub(super) fn begin(inner: &Arc<Inner>, now: Now) -> Option<Self> {
        let guard = &inner.guard;
        let permit = if guard.well.load(Ordering::Acquire) {
            Some(Permit::well(guard.openings.load(Ordering::Relaxed)))
        } else {
            guard.change(|breaker| breaker.permit(now.mono))
        };
        if permit.is_none() {
            add(&guard.counts.not_asked);
            return None;
        }
        Some(Self {
            inner: Arc::clone(inner),
            permit,
            began: now,
            since: Instant::now(),
        })
    }

    pub(super) fn is_probe(&self) -> bool {
        self.permit.is_some_and(|permit| permit.probe)
    }

    pub(super) fn succeed(mut self) {
        let guard = &self.inner.guard;
        add(&guard.counts.ok);
        if let Some(permit) = self.permit.take()
            && !guard.well.load(Ordering::Relaxed)
        {
            guard.change(|breaker| breaker.succeeded(permit));
        }
    }

    pub(super) fn fail(mut self, failure: Failure) {
        let guard = &self.inner.guard;
        add(match failure {
            Failure::Timeout => &guard.counts.timeout,
            Failure::Disconnected => &guard.counts.disconnected,
            Failure::Error => &guard.counts.error,
        });
        let now = self.now().mono;
        if let Some(permit) = self.permit.take() {
            guard.change(|breaker| breaker.failed(permit, now, jitter()));
        }
    }

    /// The time, as [`Attempt::begin`] was told it, and what has passed since.
    pub(super) fn now(&self) -> Now {
        let elapsed = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Now {
            mono: self.began.mono.saturating_add(elapsed),
            unix: self.began.unix.saturating_add(elapsed),
        }
    }

    /// There was nothing to ask.
    pub(super) fn abandon(self) {}
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take().filter(|permit| permit.probe) {
            self.inner.guard.change(|breaker| breaker.abandoned(permit));
        }
    }
}

/// Some time of the second half of `pause`.
pub(super) fn jittered(pause: Duration) -> Duration {
    let half = pause / 2;
    let most = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
    half + Duration::from_nanos(jitter() % most.max(1))
}

/// A number that differs from node to node.
pub(super) fn jitter() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0u8)
}
