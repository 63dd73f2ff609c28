//! One bucket under real threads.

extern crate std;

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::bucket::{Cell, Decision, Limit, give_back, take};

struct Shared(AtomicU64);

impl Cell for Shared {
    fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn compare_exchange(&self, seen: u64, next: u64) -> Result<(), u64> {
        let order = Ordering::Relaxed;
        self.0
            .compare_exchange(seen, next, order, order)
            .map(|_seen| ())
    }
}

const THREADS: u32 = 4;
const HOUR: u64 = 3_600_000_000_000;

/// Calls `work` on every thread, all starting at once; the sum of what they return.
fn together(work: impl Fn(u32) -> u64 + Sync) -> u64 {
    let start = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        let run = |thread| {
            let (start, work) = (&start, &work);
            scope.spawn(move || {
                start.wait();
                work(thread)
            })
        };
        let threads: std::vec::Vec<_> = (0..THREADS).map(run).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    })
}

fn admitted(bucket: &Shared, limit: &Limit, now: u64) -> bool {
    let decision = take(bucket, now, limit.cost(1), limit.tolerance, u32::MAX);
    matches!(decision, Decision::Admitted { .. })
}

#[test]
fn admit_exactly_what_one_would() {
    let limit = Limit::new(100_000, 1, HOUR).unwrap();
    let bucket = Shared(AtomicU64::new(0));
    let admit = |_| {
        (0..100_000)
            .filter(|_| admitted(&bucket, &limit, HOUR))
            .count() as u64
    };
    assert_eq!(together(admit), 100_000);
}

#[test]
fn admit_no_more_than_the_rate_when_their_clocks_differ() {
    // Each thread's clock runs on by 1 us a request, a little apart from the others'.
    let limit = Limit::new(10, 1_000, 1_000_000_000).unwrap();
    let bucket = Shared(AtomicU64::new(0));
    let requests = 50_000;
    let admit = |thread| {
        let now = |n| HOUR + n * 1_000 + u64::from(thread) * 7;
        (0..requests)
            .filter(|&n| admitted(&bucket, &limit, now(n)))
            .count() as u64
    };
    let elapsed = (requests - 1) * 1_000 + (u64::from(THREADS) - 1) * 7;
    let most = 10 + elapsed / limit.interval;
    let admitted = together(admit);
    assert!(admitted <= most, "{admitted} of {most}");
    assert!(admitted >= most - 1, "{admitted} of {most}");
}

#[test]
fn lose_no_token_that_is_given_back() {
    let limit = Limit::new(THREADS.into(), 1, HOUR).unwrap();
    let bucket = Shared(AtomicU64::new(0));
    // One token a thread: everybody is always admitted, if giving back loses nothing.
    let borrow = |_| {
        let borrowed = (0..50_000).filter(|_| {
            let admitted = admitted(&bucket, &limit, HOUR);
            give_back(&bucket, limit.cost(1));
            admitted
        });
        borrowed.count() as u64
    };
    assert_eq!(together(borrow), u64::from(THREADS) * 50_000);
}

#[test]
fn contention_is_no_admission() {
    /// A cell that another CPU always gets to first.
    struct Busy;
    impl Cell for Busy {
        fn load(&self) -> u64 {
            0
        }
        fn compare_exchange(&self, _seen: u64, _next: u64) -> Result<(), u64> {
            Err(0)
        }
    }
    let limit = Limit::new(10, 1, HOUR).unwrap();
    assert_eq!(
        take(&Busy, HOUR, limit.cost(1), limit.tolerance, 8),
        Decision::Contended
    );
}
