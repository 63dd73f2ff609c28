//! The table under collisions, pressure and threads.

use std::thread;

use super::*;

const LIMIT: Limit = Limit {
    interval: 1_000,
    tolerance: 10_000,
    capacity: 10,
    shift: 0,
};

fn keyed(table: &BucketTable, n: u64) -> BucketKey {
    let mut hasher = table.hasher();
    hasher.write_u64(n);
    table.key(&hasher)
}

fn aggregates(n: usize) -> Vec<Tat> {
    (0..n).map(|_| Tat::default()).collect()
}

#[test]
fn keys_keep_apart() {
    let table = BucketTable::new(1 << 12);
    let spare = aggregates(1);
    for n in 0..1_000 {
        let bucket = table.bucket(keyed(&table, n), 0, &spare);
        assert!(matches!(bucket, Bucket::Own { .. }));
        let taken =
            (0..20).filter(|_| matches!(bucket.take(LIMIT, 1, 0), Decision::Admitted { .. }));
        assert_eq!(taken.count(), 10);
    }
    assert_eq!(table.live(0), 1_000);
    assert_eq!(table.live(10_000), 0);
}

#[test]
fn a_full_table_neither_evicts_nor_hands_out_full_buckets() {
    let table = BucketTable::new(64);
    let spare = aggregates(4);
    let regular = keyed(&table, u64::MAX);
    let bucket = table.bucket(regular, 0, &spare);
    while matches!(bucket.take(LIMIT, 1, 0), Decision::Admitted { .. }) {}
    let flood: usize = (0..100_000)
        .filter(|n| {
            let bucket = table.bucket(keyed(&table, *n), 0, &spare);
            matches!(bucket.take(LIMIT, 1, 0), Decision::Admitted { .. })
        })
        .count();
    // A token for each slot, and the aggregates' tokens: no more, whatever the number of keys.
    assert!(flood <= table.capacity() + 4 * 10, "{flood}");
    assert!(table.refused() > 90_000);
    let again = table.bucket(regular, 0, &spare);
    assert!(matches!(
        again.take(LIMIT, 1, 0),
        Decision::Denied { wait: 1_000 }
    ));
}

#[test]
fn slots_that_are_due_are_taken_over() {
    let table = BucketTable::new(64);
    let spare = aggregates(1);
    for n in 0..10_000 {
        let now = n * 10_000;
        let bucket = table.bucket(keyed(&table, n), now, &spare);
        assert!(matches!(bucket, Bucket::Own { .. }), "{n}");
        assert_eq!(bucket.tat().max(now), now);
        assert!(matches!(
            bucket.take(LIMIT, 10, now),
            Decision::Admitted { .. }
        ));
    }
    assert_eq!(table.refused(), 0);
}

#[test]
fn a_lost_slot_is_claimed_again() {
    let table = BucketTable::new(8);
    let spare = aggregates(1);
    let first = table.bucket(keyed(&table, 0), 0, &spare);
    // Nothing was charged, so the slot is due at once and others may have it.
    for n in 1..=8 {
        let bucket = table.bucket(keyed(&table, n), 0, &spare);
        assert!(matches!(
            bucket.take(LIMIT, 10, 0),
            Decision::Admitted { .. }
        ));
    }
    assert_eq!(first.take(LIMIT, 1, 0), Decision::Contended);
    assert!(matches!(
        first.take(LIMIT, 10, 10_000),
        Decision::Admitted { .. }
    ));
    assert!(matches!(
        first.take(LIMIT, 1, 10_000),
        Decision::Denied { .. }
    ));
}

#[test]
fn the_first_sight_of_a_key_from_many_threads_makes_one_bucket() {
    for round in 0..200 {
        let table = BucketTable::new(64);
        let spare = aggregates(1);
        let key = keyed(&table, round);
        let total: usize = thread::scope(|scope| {
            let run = || {
                (0..20)
                    .filter(|_| {
                        let bucket = table.bucket(key, 0, &spare);
                        matches!(bucket.take(LIMIT, 1, 0), Decision::Admitted { .. })
                    })
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(total, 10);
    }
}

/// Threads with clocks of their own contend for slots that come due all the time: whatever the
/// interleaving, no key is admitted more than its limit says.
#[test]
fn churn_never_admits_more_than_the_limit() {
    const KEYS: u64 = 64;
    const END: u64 = 400_000;
    let table = BucketTable::new(16);
    let clock = AtomicU64::new(0);
    let spare: Vec<_> = aggregates(1);
    let admitted: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        for seed in 0..4u64 {
            let (table, clock, spare, admitted) = (&table, &clock, &spare, &admitted);
            scope.spawn(move || {
                let mut random = seed + 1;
                loop {
                    let now = clock.fetch_add(7, Ordering::Relaxed);
                    if now > END {
                        break;
                    }
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let n = (random >> 33) % KEYS;
                    if let own @ Bucket::Own { .. } = table.bucket(keyed(table, n), now, spare)
                        && matches!(own.take(LIMIT, 1, now), Decision::Admitted { .. })
                    {
                        admitted[index(n)].fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    for count in &admitted {
        let count = count.load(Ordering::Relaxed);
        assert!(count <= 10 + END / LIMIT.interval + 1, "{count}");
    }
}
