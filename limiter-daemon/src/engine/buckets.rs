//! Token buckets by key: a table of fixed size, shared by all cores, 16 bytes a bucket.
//!
//! A bucket is found by a keyed 64-bit hash of what it is for (SipHash with a secret of this
//! process; two of a million live keys share a bucket with a chance of 3 in 100 million). It lies
//! in one of two sets of four slots; a set is one cache line.
//!
//! Nothing is ever evicted while it means something: GCRA's state is due when the bucket is full
//! again, and a full bucket is the same as none, so only slots whose TAT has passed are taken over,
//! by a swap of the key alone. When both sets are full of live buckets, the caller is told so
//! ([`Bucket::Shared`]) and uses one of its own aggregate buckets: a flood of new keys cannot turn a
//! regular's bucket into a fresh one, nor get fresh ones for itself.
//!
//! Finding a bucket and charging it takes no lock. Only the first sight of a key takes a striped
//! one, so that two cores cannot give the same key two buckets.
//!
//! Rejected: a concurrent hash map with eviction. It allocates an entry a key, and its eviction
//! policy would hand out full buckets under exactly the load that limits exist for.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use limiter_common::bucket::{self, Decision};
use limiter_common::{Limit, Step};

const SLOTS: usize = 4;
const STRIPES: usize = 64;
/// The key of a slot that is changing hands. 0 is the key of one that was never used; hashes are
/// neither.
const IN_TRANSITION: u64 = 1;

/// A TAT that cores share.
#[derive(Debug, Default)]
pub struct Tat(AtomicU64);

impl bucket::Cell for Tat {
    fn load(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn compare_exchange(&self, seen: u64, next: u64) -> Result<(), u64> {
        self.0
            .compare_exchange(seen, next, Ordering::SeqCst, Ordering::SeqCst)
            .map(drop)
    }
}

impl Tat {
    /// The state now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn take(&self, limit: Limit, tokens: u64, now: u64) -> Decision {
        // Somebody always succeeds, so an endless loop of tries ends; the bound keeps it honest.
        bucket::take(self, now, limit.cost(tokens), limit.tolerance, u32::MAX)
    }
}

#[derive(Debug, Default)]
struct Slot {
    key: AtomicU64,
    tat: Tat,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([Slot; SLOTS]);

/// The table.
#[derive(Debug)]
pub struct BucketTable {
    sets: Box<[Set]>,
    stripes: [Mutex<()>; STRIPES],
    secret: RandomState,
    refused: AtomicU64,
}

/// Identity of a bucket: a hash of the limit and of the values it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketKey(u64);

/// Where the bucket of a key is.
#[derive(Clone, Copy, Debug)]
pub enum Bucket<'a> {
    /// The caller's single bucket, or one of its aggregate buckets.
    Shared(&'a Tat),
    /// A bucket of the key's own.
    Own {
        table: &'a BucketTable,
        key: BucketKey,
    },
}

impl BucketTable {
    /// A table of at least `capacity` buckets.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let sets = capacity.div_ceil(SLOTS).max(2).next_power_of_two();
        Self {
            sets: (0..sets).map(|_| Set::default()).collect(),
            stripes: [const { Mutex::new(()) }; STRIPES],
            secret: RandomState::new(),
            refused: AtomicU64::new(0),
        }
    }

    /// Slots in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.sets.len() * SLOTS
    }

    /// Buckets that hold a debt at `now`. Walks the table: for metrics, not for decisions.
    #[must_use]
    pub fn live(&self, now: u64) -> usize {
        self.sets
            .iter()
            .flat_map(|set| &set.0)
            .filter(|slot| slot.tat.get() > now)
            .count()
    }

    /// How often a key found both its sets full of live buckets.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// A hasher for a bucket's identity; [`BucketTable::key`] ends it.
    #[must_use]
    pub fn hasher(&self) -> impl Hasher + use<> {
        self.secret.build_hasher()
    }

    /// The key that `hasher` has come to.
    #[must_use]
    pub fn key(&self, hasher: &impl Hasher) -> BucketKey {
        BucketKey(hasher.finish().max(IN_TRANSITION + 1))
    }

    /// The bucket of `key`, made if it is not there; else one of the `aggregates` (never empty),
    /// chosen by the key.
    pub fn bucket<'a>(&'a self, key: BucketKey, now: u64, aggregates: &'a [Tat]) -> Bucket<'a> {
        if self.find(key).is_some() || self.claim(key, now) {
            return Bucket::Own { table: self, key };
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Bucket::Shared(aggregate(key, aggregates))
    }

    fn candidates(&self, key: BucketKey) -> impl Iterator<Item = &Slot> {
        let mask = self.sets.len() - 1;
        let [first, second] = [index(key.0) & mask, index(key.0.rotate_right(32)) & mask];
        let second = if second == first { first ^ 1 } else { second };
        self.sets[first].0.iter().chain(&self.sets[second].0)
    }

    fn find(&self, key: BucketKey) -> Option<&Slot> {
        self.candidates(key)
            .find(|slot| slot.key.load(Ordering::SeqCst) == key.0)
    }

    /// Makes `key` the owner of a slot that is free or due. `false` if there is none.
    ///
    /// A due slot passes through `IN_TRANSITION`: whoever charged it in the meantime is seen here
    /// (the TAT is read again), or sees the transition itself (see [`Bucket::take`]); so no charge
    /// is lost.
    fn claim(&self, key: BucketKey, now: u64) -> bool {
        let stripe = &self.stripes[index(key.0 >> 16) % STRIPES];
        let _guard = stripe.lock().unwrap_or_else(PoisonError::into_inner);
        if self.find(key).is_some() {
            return true;
        }
        self.candidates(key).any(|slot| {
            let owner = slot.key.load(Ordering::SeqCst);
            if owner == IN_TRANSITION || slot.tat.get() > now {
                return false;
            }
            let swap = |from, to| {
                slot.key
                    .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
                    .is_ok()
            };
            if !swap(owner, IN_TRANSITION) {
                return false;
            }
            let due = bucket::Cell::load(&slot.tat) <= now;
            slot.key
                .store(if due { key.0 } else { owner }, Ordering::SeqCst);
            due
        })
    }
}

fn aggregate(key: BucketKey, aggregates: &[Tat]) -> &Tat {
    &aggregates[index(key.0 >> 8) % aggregates.len()]
}

/// The low bits of a hash as an index.
#[expect(clippy::cast_possible_truncation, reason = "only low bits are wanted")]
const fn index(hash: u64) -> usize {
    hash as usize
}

impl Bucket<'_> {
    /// The state; that of a full bucket for one that was never charged.
    #[must_use]
    pub fn tat(&self) -> u64 {
        self.cell().map_or(0, Tat::get)
    }

    fn cell(&self) -> Option<&Tat> {
        match self {
            Self::Shared(tat) => Some(tat),
            Self::Own { table, key } => table.find(*key).map(|slot| &slot.tat),
        }
    }

    /// Whether `tokens` could be taken at `now`; takes none.
    #[must_use]
    pub fn peek(&self, limit: Limit, tokens: u64, now: u64) -> Step {
        let Some(cell) = self.cell() else {
            return bucket::step(0, now, limit.cost(tokens), limit.tolerance);
        };
        let seen = cell.get();
        let step = bucket::step(seen, now, limit.cost(tokens), limit.tolerance);
        if matches!(step, Step::Deny { .. }) {
            bucket::settle(cell, seen, now, limit.tolerance);
        }
        step
    }

    /// Takes `tokens` if they conform.
    pub fn take(&self, limit: Limit, tokens: u64, now: u64) -> Decision {
        match self {
            Self::Shared(tat) => tat.take(limit, tokens, now),
            Self::Own { table, key } => loop {
                // Gone: the slot was due and was taken over since. A full bucket is made anew; where
                // there is no room any more, what is left is to deny: nothing is charged uncounted.
                let Some(slot) = table.find(*key) else {
                    if table.claim(*key, now) {
                        continue;
                    }
                    break Decision::Contended;
                };
                let decision = slot.tat.take(limit, tokens, now);
                // The slot changed hands under the charge: it stays with the new owner, who has that
                // much less, and this key is charged again where it is now.
                if slot.key.load(Ordering::SeqCst) == key.0 {
                    break decision;
                }
            },
        }
    }

    /// Gives `tokens` back that were taken for a request that another limit denied.
    pub fn give_back(&self, limit: Limit, tokens: u64) {
        if let Some(cell) = self.cell() {
            bucket::give_back(cell, limit.cost(tokens));
        }
    }
}

#[cfg(test)]
mod tests;
