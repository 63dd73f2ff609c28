//! Faults made on purpose (`faultInjection`): a share of the requests is delayed, a share is answered
//! in place of the upstream. A fault stands for the upstream: limits have admitted the request
//! before, and its tokens are settled as if the upstream had given the answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::sleep;

use super::metrics::Counters;
use super::request_id::Random;
use crate::policy::plan::{Abort, Fault};

/// Requests that a worker delays at once; more are not delayed.
const MAX_DELAYED: usize = 4096;

/// The faults of a worker.
#[derive(Debug)]
pub(super) struct Faults {
    room: Semaphore,
}

impl Default for Faults {
    fn default() -> Self {
        Self::new(MAX_DELAYED)
    }
}

/// A request that is being delayed.
struct Delayed<'a> {
    _place: SemaphorePermit<'a>,
    active: &'a AtomicU64,
}

impl Drop for Delayed<'_> {
    fn drop(&mut self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Faults {
    fn new(room: usize) -> Self {
        let room = Semaphore::new(room);
        Self { room }
    }

    /// Delays the request if it is one of the share, and returns when that is over. Dropped, it gives
    /// its place back at once.
    ///
    /// # Errors
    /// What the request is to be answered with, if it is one of that share.
    pub(super) async fn inject(
        &self,
        fault: &Fault,
        random: &Random,
        counters: &Counters,
    ) -> Result<(), Abort> {
        if let Some((delay, share)) = fault.delay
            && share.takes(random.next())
        {
            self.delay(delay, counters).await;
        }
        match fault.abort {
            Some((abort, share)) if share.takes(random.next()) => {
                counters.fault_aborts.fetch_add(1, Ordering::Relaxed);
                Err(abort)
            }
            _ => Ok(()),
        }
    }

    async fn delay(&self, delay: Duration, counters: &Counters) {
        let Ok(place) = self.room.try_acquire() else {
            counters.fault_overflow.fetch_add(1, Ordering::Relaxed);
            return;
        };
        counters.fault_delays.fetch_add(1, Ordering::Relaxed);
        counters.fault_active.fetch_add(1, Ordering::Relaxed);
        let _delayed = Delayed {
            _place: place,
            active: &counters.fault_active,
        };
        sleep(delay).await;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use http::StatusCode;

    use super::*;
    use crate::policy::plan::Fraction;

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().build().unwrap()
    }

    #[test]
    fn a_share_is_aborted() {
        let (faults, random, counters) =
            (Faults::default(), Random::default(), Counters::default());
        let abort = Abort::Http(StatusCode::SERVICE_UNAVAILABLE);
        let aborted = |share| {
            let fault = Fault {
                delay: None,
                abort: Some((abort, share)),
            };
            let inject = || runtime().block_on(faults.inject(&fault, &random, &counters));
            (0..400).filter(|_| inject() == Err(abort)).count()
        };
        assert_eq!(aborted(Fraction::ALL), 400);
        assert_eq!(aborted(Fraction::NONE), 0);
        // Ten standard deviations of 400 tosses.
        let half = aborted(Fraction::percent(50));
        assert!((100..=300).contains(&half), "{half}");
        let counted = counters.fault_aborts.load(Ordering::Relaxed);
        assert_eq!(counted, 400 + half as u64);
    }

    #[test]
    fn only_so_many_are_delayed_at_once_and_places_come_back() {
        let (faults, random, counters) = (Faults::new(2), Random::default(), Counters::default());
        let fault = Fault {
            delay: Some((Duration::from_secs(3600), Fraction::ALL)),
            abort: None,
        };
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let runtime = runtime();
        let _inside = runtime.enter();
        let cx = &mut Context::from_waker(Waker::noop());
        for turn in 1..=2 {
            let mut first = pin!(faults.inject(&fault, &random, &counters));
            let mut second = Box::pin(faults.inject(&fault, &random, &counters));
            assert_eq!(first.as_mut().poll(cx), Poll::Pending);
            assert_eq!(second.as_mut().poll(cx), Poll::Pending);
            assert_eq!(read(&counters.fault_active), 2);
            let mut third = pin!(faults.inject(&fault, &random, &counters));
            assert_eq!(third.as_mut().poll(cx), Poll::Ready(Ok(())));
            assert_eq!(read(&counters.fault_overflow), 2 * turn - 1);
            // Its client has gone away.
            drop(second);
            assert_eq!(read(&counters.fault_active), 1);
            let mut fourth = pin!(faults.inject(&fault, &random, &counters));
            assert_eq!(fourth.as_mut().poll(cx), Poll::Pending);
            let mut fifth = pin!(faults.inject(&fault, &random, &counters));
            assert_eq!(fifth.as_mut().poll(cx), Poll::Ready(Ok(())));
        }
        assert_eq!(read(&counters.fault_active), 0);
        assert_eq!(read(&counters.fault_delays), 6);
    }
}
