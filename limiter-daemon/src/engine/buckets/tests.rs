//! The table under collisions, pressure and threads.

use std::sync::Arc;
use std::thread;

use limiter_common::Limit;

use super::*;
use crate::engine::meter::{Meter, Verdict, Words};

const LIMIT: Limit = Limit {
    interval: 1_000,
    tolerance: 10_000,
    capacity: 10,
    shift: 0,
};
const METER: Meter = Meter::Bucket {
    limit: LIMIT,
    deepest: LIMIT.tolerance,
};

/// A bucket that was looked up once.
struct Found<'a>(Bucket<'a>);

impl Words for Found<'_> {
    fn word(&self, _: usize, _: Now) -> Bucket<'_> {
        self.0
    }

    fn existing(&self, _: usize, _: Now) -> Bucket<'_> {
        self.0
    }
}

const fn at(now: u64) -> Now {
    Now {
        mono: now,
        unix: now,
    }
}

fn take(bucket: Bucket<'_>, tokens: u64, now: u64) -> Verdict {
    METER.take(&Found(bucket), tokens, at(now))
}

fn admits(bucket: Bucket<'_>, tokens: u64, now: u64) -> bool {
    matches!(take(bucket, tokens, now), Verdict::Admit { .. })
}

fn keyed(table: &BucketTable, n: u64) -> BucketKey {
    let mut hasher = table.hasher();
    hasher.write_u64(n);
    table.key(&hasher, Timeline::Mono)
}

fn find<'a>(
    table: &'a BucketTable,
    key: BucketKey,
    now: u64,
    aggregates: &'a [Word],
) -> Bucket<'a> {
    table.bucket(key, at(now), &aggregates[key.spread(aggregates.len())])
}

fn aggregates(n: usize) -> Vec<Word> {
    (0..n).map(|_| Word::default()).collect()
}

#[test]
fn keys_keep_apart() {
    let table = BucketTable::new(1 << 12);
    let spare = aggregates(1);
    for n in 0..1_000 {
        let bucket = find(&table, keyed(&table, n), 0, &spare);
        assert!(matches!(bucket, Bucket::Own { .. }));
        let taken = (0..20).filter(|_| admits(bucket, 1, 0));
        assert_eq!(taken.count(), 10);
    }
    assert_eq!(table.live(at(0)), 1_000);
    assert_eq!(table.live(at(10_000)), 0);
}

#[test]
fn a_full_table_neither_evicts_nor_hands_out_full_buckets() {
    let table = BucketTable::new(64);
    let spare = aggregates(4);
    let regular = keyed(&table, u64::MAX);
    let bucket = find(&table, regular, 0, &spare);
    while admits(bucket, 1, 0) {}
    let flood: usize = (0..100_000)
        .filter(|n| {
            let bucket = find(&table, keyed(&table, *n), 0, &spare);
            admits(bucket, 1, 0)
        })
        .count();
    // A token for each slot, and the aggregates' tokens: no more, whatever the number of keys.
    assert!(flood <= table.capacity() + 4 * 10, "{flood}");
    assert!(table.refused() > 90_000);
    let again = find(&table, regular, 0, &spare);
    assert!(matches!(take(again, 1, 0), Verdict::Deny { wait: 1_000 }));
}

#[test]
fn slots_that_are_due_are_taken_over() {
    let table = BucketTable::new(64);
    let spare = aggregates(1);
    for n in 0..10_000 {
        let now = n * 10_000;
        let bucket = find(&table, keyed(&table, n), now, &spare);
        assert!(matches!(bucket, Bucket::Own { .. }), "{n}");
        assert_eq!(bucket.get().max(now), now);
        assert!(admits(bucket, 10, now));
    }
    assert_eq!(table.refused(), 0);
}

#[test]
fn a_lost_slot_is_claimed_again() {
    let table = BucketTable::new(8);
    let spare = aggregates(1);
    let first = find(&table, keyed(&table, 0), 0, &spare);
    // Nothing was charged, so the slot is due at once and others may have it.
    for n in 1..=8 {
        let bucket = find(&table, keyed(&table, n), 0, &spare);
        assert!(admits(bucket, 10, 0));
    }
    assert_eq!(take(first, 1, 0), Verdict::Deny { wait: 1_000 });
    assert_eq!(first.get(), 0);
    assert!(admits(first, 10, 10_000));
    assert!(!admits(first, 1, 10_000));
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
                        let bucket = find(&table, key, 0, &spare);
                        admits(bucket, 1, 0)
                    })
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(total, 10);
    }
}

#[test]
fn an_instant_that_is_past_sets_nothing_back() {
    let table = BucketTable::new(64);
    let spare = aggregates(1);
    let bucket = |now| find(&table, keyed(&table, 1), now, &spare);
    assert!(admits(bucket(10_000), 10, 10_000));
    // A thread that was interrupted after it had looked at the clock.
    assert!(!admits(bucket(9_000), 1, 9_000));
    assert!(!admits(bucket(10_000), 1, 10_000));
    assert!(admits(bucket(11_000), 1, 11_000));
}

/// Threads contend for slots that come due all the time: whatever the interleaving, no key is admitted
/// more than its limit says. A thread that was interrupted decides by an instant that is past, and may
/// admit what the limit gives for the time by which it is late.
#[test]
fn churn_never_admits_more_than_the_limit() {
    const KEYS: u64 = 64;
    const END: u64 = 400_000;
    let table = BucketTable::new(16);
    let clock = AtomicU64::new(0);
    let spare: Vec<_> = aggregates(1);
    let counts = || -> Vec<AtomicU64> { (0..KEYS).map(|_| AtomicU64::new(0)).collect() };
    let (admitted, late) = (counts(), counts());
    thread::scope(|scope| {
        for seed in 0..4u64 {
            let (table, clock, spare) = (&table, &clock, &spare);
            let (admitted, late) = (&admitted, &late);
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
                    if let own @ Bucket::Own { .. } = find(table, keyed(table, n), now, spare)
                        && admits(own, 1, now)
                    {
                        admitted[index(n)].fetch_add(1, Ordering::Relaxed);
                        let passed = clock.load(Ordering::Relaxed) - now;
                        late[index(n)].fetch_add(passed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    for (count, late) in admitted.iter().zip(&late) {
        let (count, late) = (count.load(Ordering::Relaxed), late.load(Ordering::Relaxed));
        let most = 10 + (END + late) / LIMIT.interval + 1;
        assert!(count <= most, "{count} of {most}");
    }
}

#[test]
fn a_slot_passes_from_one_clock_to_the_other_as_if_it_were_new() {
    let table = BucketTable::new(8);
    let spare = aggregates(1);
    let key = |n: u64, timeline| {
        let mut hasher = table.hasher();
        hasher.write_u64(n);
        table.key(&hasher, timeline)
    };
    // A wall clock far ahead of the monotonic one.
    let now = |mono| Now {
        mono,
        unix: mono + 1_000_000_000,
    };
    for n in 0..1_000 {
        let timeline = if n % 3 == 0 {
            Timeline::Wall
        } else {
            Timeline::Mono
        };
        let now = now(n * 100);
        let found = table.bucket(key(n, timeline), now, &spare[0]);
        assert!(matches!(found, Bucket::Own { .. }), "{n}");
        assert_eq!(found.get(), 0);
        let due = match timeline {
            Timeline::Wall => now.unix,
            Timeline::Mono => now.mono,
        };
        found.change(now, |_| Change::Write(due + 200, ()));
    }
    assert_eq!(table.refused(), 0);
    assert_eq!(table.live(now(999 * 100)), 2);
}

#[test]
fn sixteen_bytes_a_word() {
    let table = BucketTable::new(1_000_000);
    assert_eq!(size_of_val(&*table.layout.sets), table.capacity() * 16);
    assert!(table.capacity() < 1_100_000);
}

#[test]
fn a_table_fills_to_two_thirds_before_it_refuses() {
    let table = BucketTable::new(1 << 14);
    let spare = aggregates(1);
    let most = table.capacity() / 3 * 2;
    for n in 0..u64::try_from(most).unwrap() {
        let bucket = find(&table, keyed(&table, n), 0, &spare);
        admits(bucket, 1, 0);
    }
    let refused = usize::try_from(table.refused()).unwrap();
    assert!(refused < most / 100, "{refused}");
}

fn passed(table: &BucketTable) -> OwnedFd {
    table.as_file().unwrap().try_clone_to_owned().unwrap()
}

#[test]
fn another_process_counts_in_the_same_words() {
    let spare = aggregates(1);
    let old = BucketTable::kept(1 << 8).unwrap();
    let (new, lost) = BucketTable::adopt(passed(&old), 1 << 8, at(100)).unwrap();
    assert_eq!(lost, 0);
    let key = keyed(&old, 7);
    assert_eq!(key, keyed(&new, 7));
    let both = [&old, &new].map(|table| find(table, key, 100, &spare));
    let admitted = (0..20).filter(|n| admits(both[n % 2], 1, 100)).count();
    assert_eq!(admitted, 10);
    drop(old);
    assert!(!admits(find(&new, key, 100, &spare), 1, 100));
    assert!(admits(find(&new, key, 1_100, &spare), 1, 1_100));
}

#[test]
fn a_table_of_another_size_goes_on_with_the_same_words() {
    let spare = aggregates(1);
    let old = BucketTable::kept(1 << 8).unwrap();
    for n in 0..60 {
        assert!(admits(find(&old, keyed(&old, n), 0, &spare), 10, 0));
    }
    for capacity in [1 << 7, 1 << 12] {
        let (new, lost) = BucketTable::adopt(passed(&old), capacity, at(0)).unwrap();
        assert_eq!(new.capacity(), capacity);
        let found = (0..60).filter(|n| {
            let bucket = new.existing(keyed(&new, *n), at(0), &spare[0]);
            bucket.get() > 0
        });
        assert_eq!((found.count(), lost), (60, 0));
        assert_eq!(new.live(at(0)), 60);
    }
    let (small, lost) = BucketTable::adopt(passed(&old), 1 << 4, at(0)).unwrap();
    assert_eq!(small.live(at(0)) + lost, 60);
    assert!(small.live(at(0)) >= 14, "{lost}");
    // What is full again needs no room.
    let (none, lost) = BucketTable::adopt(passed(&old), 1 << 4, at(10_000)).unwrap();
    assert_eq!((none.live(at(0)), lost), (0, 0));
}

#[test]
fn a_limit_finds_the_word_of_its_own_again() {
    let single = |table: &Arc<BucketTable>, n| table.single(keyed(table, n));
    let old = Arc::new(BucketTable::kept(8).unwrap());
    let held: Vec<_> = (0..1_000).map(|n| single(&old, n).unwrap()).collect();
    for (n, word) in (0..).zip(&held) {
        word.word().store(n);
    }
    let again = single(&old, 3).unwrap();
    drop(held);
    for capacity in [8, 64] {
        let (new, lost) = BucketTable::adopt(passed(&old), capacity, at(0)).unwrap();
        let new = Arc::new(new);
        let found = (0..1_000).filter(|n| single(&new, *n).unwrap().word().get() == *n);
        assert_eq!((found.count(), lost), (1_000, 0));
    }
    assert_eq!(again.word().get(), 3);
    assert!(single(&Arc::new(BucketTable::new(8)), 3).is_none());
}

#[test]
fn a_word_in_use_is_no_other_limits() {
    let table = Arc::new(BucketTable::kept(8).unwrap());
    let single = |n: u64| table.single(BucketKey::new(n << 1, Timeline::Mono));
    // All want the same place.
    let places = u64::try_from(table.layout.singles.len()).unwrap();
    let near = |n: u64| 5 + n * places;
    let mut held: Vec<_> = (1..=64).map(|n| single(near(n)).unwrap()).collect();
    assert!(single(near(65)).is_none());
    let words: Vec<_> = held
        .iter()
        .map(Single::word)
        .map(std::ptr::from_ref)
        .collect();
    assert!((1..64).all(|n| !words[n..].contains(&words[n - 1])));
    held.remove(9).word().store(7);
    // It comes back to what it had, and who takes its place begins anew.
    assert_eq!(single(near(10)).unwrap().word().get(), 7);
    assert_eq!(single(near(65)).unwrap().word().get(), 0);
    assert_eq!(single(near(10)).unwrap().word().get(), 0);
}

#[test]
fn a_slot_whose_process_died_is_used_again() {
    let table = BucketTable::kept(8).unwrap();
    let spare = aggregates(1);
    for slot in table.layout.sets.iter().flat_map(|set| &set.0) {
        slot.key.store(IN_TRANSITION, Ordering::SeqCst);
    }
    for n in 0..2 {
        let bucket = find(&table, keyed(&table, n), 100, &spare);
        assert!(matches!(bucket, Bucket::Own { .. }));
        assert!(admits(bucket, 10, 100) && !admits(bucket, 1, 100));
    }
}

#[test]
fn what_is_no_table_of_this_version_is_refused() {
    let refusal = |file| BucketTable::adopt(file, 8, at(0)).unwrap_err().to_string();
    let disk = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    let _said = refusal(disk.into());
    let empty = memory::Memory::file(4096).unwrap();
    let empty = empty.as_file().unwrap().try_clone_to_owned().unwrap();
    let other = "it is not laid out as this version's are";
    assert_eq!(refusal(empty), other);
    for spoil in 0..4 {
        let table = BucketTable::kept(8).unwrap();
        let header = memory::Region::<Slot>::new(table.layout.memory(), 0, 2).unwrap();
        match spoil {
            0 => header[0]
                .key
                .store(u64::from_le_bytes(*b"limiter0"), Ordering::SeqCst),
            1 => header[0].word.store(3),
            2 => header[0].word.store(1 << 40),
            _ => header[1].key.store(0, Ordering::SeqCst),
        }
        assert_eq!(refusal(passed(&table)), other, "{spoil}");
    }
}
