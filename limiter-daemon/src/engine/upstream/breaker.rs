//! The circuit breaker of a backend: exact counts of what is under way, over all workers, and permits
//! that give back what they took whatever becomes of a request.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::stats::{Stat, Stats};
use crate::engine::ask::AskStats;
use crate::policy::plan::CircuitBreaker;

/// What is under way to one backend. It outlives plans, which say how much may be.
#[derive(Debug, Default)]
pub struct Breaker {
    /// `namespace/name` of the backend.
    pub backend: String,
    /// `namespace/name` of the policies in force, joined with `+`; empty: none.
    pub policy: String,
    parallel: AtomicU32,
    pending: AtomicU32,
    retries: AtomicU32,
    pub(super) connections: AtomicU32,
    pub stats: Stats,
    /// Of questions to rate limit services about its requests.
    pub asks: AskStats,
    /// As the plan in force has them, for who wants to know.
    limits: Mutex<CircuitBreaker>,
}

/// What there is only so much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Requests that have a connection, or are making one.
    Parallel,
    /// Requests that wait for a connection.
    Pending,
    /// Requests that are being retried.
    Retries,
    Connections,
}

impl Resource {
    pub const ALL: [Self; 4] = [
        Self::Parallel,
        Self::Pending,
        Self::Retries,
        Self::Connections,
    ];

    /// For a metric's label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Parallel => "requests",
            Self::Pending => "pending_requests",
            Self::Retries => "retries",
            Self::Connections => "connections",
        }
    }
}

/// There is no more of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow(pub Resource);

/// A share of what may be under way; dropped, it is given back.
#[derive(Debug)]
#[must_use = "what it stands for is given back when it is dropped"]
pub struct Permit {
    breaker: Arc<Breaker>,
    resource: Resource,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let count = self.breaker.counter(self.resource);
        count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Breaker {
    #[must_use]
    pub fn new(backend: String, policy: String) -> Self {
        Self {
            backend,
            policy,
            ..Self::default()
        }
    }

    /// Takes note of how much may be under way.
    pub fn set_limits(&self, limits: CircuitBreaker) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// Whether as many are under way as may be: what comes now is refused.
    #[must_use]
    pub fn is_open(&self, resource: Resource) -> bool {
        self.used(resource) >= self.bound(resource)
    }

    /// How many of `resource` may be under way as the plan in force has it.
    #[must_use]
    pub fn bound(&self, resource: Resource) -> u32 {
        let limits = *self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        self.limit(resource, &limits)
    }

    const fn counter(&self, resource: Resource) -> &AtomicU32 {
        match resource {
            Resource::Parallel => &self.parallel,
            Resource::Pending => &self.pending,
            Resource::Retries => &self.retries,
            Resource::Connections => &self.connections,
        }
    }

    /// How many are under way.
    #[must_use]
    pub fn used(&self, resource: Resource) -> u32 {
        self.counter(resource).load(Ordering::Relaxed)
    }

    /// How many may be.
    #[must_use]
    pub fn limit(&self, resource: Resource, settings: &CircuitBreaker) -> u32 {
        match resource {
            Resource::Parallel => settings.max_parallel_requests,
            Resource::Pending => settings.max_pending_requests,
            Resource::Connections => settings.max_connections,
            Resource::Retries => match settings.retry_budget {
                None => settings.max_parallel_retries,
                Some(budget) => {
                    let under_way = u64::from(self.used(Resource::Parallel))
                        + u64::from(self.used(Resource::Pending));
                    let share = u32::try_from(budget.share.of(under_way)).unwrap_or(u32::MAX);
                    share.max(budget.min_concurrency)
                }
            },
        }
    }

    /// Takes one of `resource`, which is not [`Resource::Connections`]: those are
    /// [`Slots`](super::Slots)' business.
    ///
    /// # Errors
    /// [`Overflow`] if as many are under way as may be; it is counted.
    pub fn take(
        self: &Arc<Self>,
        resource: Resource,
        settings: &CircuitBreaker,
    ) -> Result<Permit, Overflow> {
        let limit = self.limit(resource, settings);
        if !take_one(self.counter(resource), limit) {
            self.stats.count(match resource {
                Resource::Parallel | Resource::Pending => Stat::RqPendingOverflow,
                Resource::Retries => Stat::RqRetryOverflow,
                Resource::Connections => Stat::CxOverflow,
            });
            return Err(Overflow(resource));
        }
        Ok(Permit {
            breaker: Arc::clone(self),
            resource,
        })
    }
}

/// Adds one unless that would be more than `limit`; never in between.
pub(super) fn take_one(count: &AtomicU32, limit: u32) -> bool {
    let more = |used: u32| (used < limit).then(|| used + 1);
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::plan::{Fraction, RetryBudget};

    fn settings(parallel: u32) -> CircuitBreaker {
        CircuitBreaker {
            max_parallel_requests: parallel,
            ..CircuitBreaker::default()
        }
    }

    #[test]
    fn so_many_and_no_more_until_one_is_given_back() {
        let breaker = Arc::new(Breaker::default());
        let settings = settings(2);
        let first = breaker.take(Resource::Parallel, &settings).unwrap();
        let _second = breaker.take(Resource::Parallel, &settings).unwrap();
        let third = breaker.take(Resource::Parallel, &settings);
        assert_eq!(third.unwrap_err(), Overflow(Resource::Parallel));
        assert_eq!(breaker.stats.get(Stat::RqPendingOverflow), 1);
        drop(first);
        let _third = breaker.take(Resource::Parallel, &settings).unwrap();
        assert_eq!(breaker.used(Resource::Parallel), 2);
    }

    #[test]
    fn zero_is_none() {
        let breaker = Arc::new(Breaker::default());
        assert!(breaker.take(Resource::Parallel, &settings(0)).is_err());
    }

    #[test]
    fn a_lower_limit_holds_at_once_and_takes_nothing_away() {
        let breaker = Arc::new(Breaker::default());
        let held: Vec<_> = (0..5)
            .map(|_| breaker.take(Resource::Parallel, &settings(5)).unwrap())
            .collect();
        assert!(breaker.take(Resource::Parallel, &settings(2)).is_err());
        drop(held);
        assert_eq!(breaker.used(Resource::Parallel), 0);
        assert!(breaker.take(Resource::Parallel, &settings(2)).is_ok());
    }

    #[test]
    fn a_budget_grows_with_what_is_under_way() {
        let breaker = Arc::new(Breaker::default());
        let settings = CircuitBreaker {
            max_parallel_retries: 0,
            retry_budget: Some(RetryBudget {
                share: Fraction::percent(20),
                min_concurrency: 3,
            }),
            ..CircuitBreaker::default()
        };
        assert_eq!(breaker.limit(Resource::Retries, &settings), 3);
        let _held: Vec<_> = (0..50)
            .map(|_| breaker.take(Resource::Parallel, &settings).unwrap())
            .collect();
        assert_eq!(breaker.limit(Resource::Retries, &settings), 10);
    }

    #[test]
    fn a_panic_gives_back_what_it_held() {
        let breaker = Arc::new(Breaker::default());
        let panicked = std::thread::scope(|scope| {
            let body = scope.spawn(|| {
                let _permit = breaker.take(Resource::Parallel, &settings(1)).unwrap();
                panic!("a body that panics");
            });
            body.join().is_err()
        });
        assert!(panicked);
        assert_eq!(breaker.used(Resource::Parallel), 0);
    }

    #[test]
    fn threads_never_have_more_than_may_be() {
        let breaker = Arc::new(Breaker::default());
        let most = AtomicU32::new(0);
        let now = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if let Ok(permit) = breaker.take(Resource::Parallel, &settings(3)) {
                            let held = now.fetch_add(1, Ordering::SeqCst) + 1;
                            most.fetch_max(held, Ordering::SeqCst);
                            now.fetch_sub(1, Ordering::SeqCst);
                            drop(permit);
                        }
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 3);
        assert_eq!(breaker.used(Resource::Parallel), 0);
    }

    proptest! {
        /// Whatever is taken and dropped in whatever order, counts say what is held.
        #[test]
        fn permits_never_leak(steps in prop::collection::vec((any::<bool>(), 0..3usize, any::<prop::sample::Index>()), 0..200)) {
            let breaker = Arc::new(Breaker::default());
            let limits = CircuitBreaker {
                max_parallel_requests: 7,
                max_pending_requests: 5,
                max_parallel_retries: 3,
                ..CircuitBreaker::default()
            };
            let kinds = [Resource::Parallel, Resource::Pending, Resource::Retries];
            let mut held: Vec<Permit> = Vec::new();
            for (takes, kind, which) in steps {
                if takes {
                    held.extend(breaker.take(kinds[kind], &limits).ok());
                } else if !held.is_empty() {
                    drop(held.swap_remove(which.index(held.len())));
                }
                for kind in kinds {
                    let count = held.iter().filter(|p| p.resource == kind).count();
                    prop_assert_eq!(count, breaker.used(kind) as usize);
                    prop_assert!(breaker.used(kind) <= breaker.limit(kind, &limits));
                }
            }
        }
    }
}
