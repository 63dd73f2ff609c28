//! Whether the store is asked, and what has come of it: breaker, counters, events.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::engine::store::breaker::{Breaker, Condition, Permit, Settings};
use crate::engine::time::Now;

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
    redirected: AtomicU64,
    lost_adjustments: AtomicU64,
    connections: AtomicI64,
    /// Changes that are under way.
    changing: watch::Sender<usize>,
}

/// A change that is under way, until it is dropped: with its runtime at the latest.
#[derive(Debug)]
pub(super) struct Changing(Arc<Counts>);

impl Drop for Changing {
    fn drop(&mut self) {
        self.0.changing.send_modify(|under_way| *under_way -= 1);
    }
}

impl Counts {
    /// A change begins.
    pub(super) fn begin_change(self: &Arc<Self>) -> Changing {
        self.changing.send_modify(|under_way| *under_way += 1);
        Changing(Arc::clone(self))
    }

    /// Waits until no change is under way.
    pub(super) async fn settled(&self) {
        let mut changing = self.changing.subscribe();
        // The sender is here, so there is an end to hear of.
        let _told = changing.wait_for(|under_way| *under_way == 0).await;
    }

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

    /// Answers of a cluster's servers that a key is elsewhere.
    #[must_use]
    pub fn redirected(&self) -> u64 {
        self.redirected.load(Ordering::Relaxed)
    }

    /// The time was over before there was anybody to ask again.
    pub(super) fn late(&self) {
        add(&self.timeout);
    }

    /// There is nobody to ask.
    pub(super) fn nobody(&self) {
        add(&self.not_asked);
    }

    pub(super) fn lost_adjustment(&self) {
        add(&self.lost_adjustments);
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The breaker of a server, shared by all threads.
#[derive(Debug)]
pub(super) struct Guard {
    address: String,
    breaker: Mutex<Breaker>,
    /// The breaker is well: nothing is to be written down of what succeeds.
    well: AtomicBool,
    /// How often it has opened.
    openings: AtomicU64,
    /// Of the store that it is one of.
    counts: Arc<Counts>,
}

impl Guard {
    /// As [`Counts::begin_change`].
    pub(super) fn begin_change(&self) -> Changing {
        self.counts.begin_change()
    }

    pub(super) fn new(address: String, counts: Arc<Counts>) -> Self {
        Self {
            address,
            breaker: Mutex::new(Breaker::new(Settings::default())),
            well: AtomicBool::new(true),
            openings: AtomicU64::new(0),
            counts,
        }
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

    pub(super) fn lost_adjustment(&self) {
        self.counts.lost_adjustment();
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
    guard: Arc<Guard>,
    /// `None`: it was told.
    permit: Option<Permit>,
    began: Now,
    /// Only how long ago that was is asked of it.
    since: Instant,
}

impl Attempt {
    /// `None`: the store is not to be asked at `now`.
    pub(super) fn begin(guard: &Arc<Guard>, now: Now) -> Option<Self> {
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
            guard: Arc::clone(guard),
            permit,
            began: now,
            since: Instant::now(),
        })
    }

    pub(super) fn is_probe(&self) -> bool {
        self.permit.is_some_and(|permit| permit.probe)
    }

    pub(super) fn succeed(self) {
        add(&self.guard.counts.ok);
        self.known();
    }

    /// It is well, and sends who asks elsewhere; what time that was.
    pub(super) fn redirected(self) -> Now {
        add(&self.guard.counts.redirected);
        self.known()
    }

    /// What was wanted is known; what time that was.
    pub(super) fn known(mut self) -> Now {
        let guard = &self.guard;
        if let Some(permit) = self.permit.take()
            && !guard.well.load(Ordering::Relaxed)
        {
            guard.change(|breaker| breaker.succeeded(permit));
        }
        self.now()
    }

    pub(super) fn fail(mut self, failure: Failure) {
        let guard = &self.guard;
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
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take().filter(|permit| permit.probe) {
            self.guard.change(|breaker| breaker.abandoned(permit));
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
