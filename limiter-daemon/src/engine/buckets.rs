//! State by key: a table of fixed size, shared by all cores, 16 bytes a word of state.
//!
//! A word is found by a keyed 64-bit hash of what it is for (SipHash with a secret; two of a million
//! live keys share a word with a chance of 5 in 100 million). It lies in one of two sets of four
//! slots; a set is one cache line.
//!
//! The table may lie in a file of memory, which outlives the process ([`BucketTable::kept`]): words
//! are instants of the machine's clocks, so that the next process goes on with them as they are, and
//! one that takes over from a living process counts with it in the same words.
//!
//! Nothing is ever evicted while it means something: every algorithm's word is an instant at which
//! it comes to nothing (a token bucket is full again, a window is over), and what has come to
//! nothing is the same as zero, the state of what was never seen. So only slots whose word is due
//! are taken over. When both sets are full of live words, the caller is told so ([`Bucket::Shared`])
//! and uses one of its own aggregates: a flood of new keys cannot turn a regular's bucket into a
//! fresh one, nor get fresh ones for itself.
//!
//! Finding a word and changing it takes no lock. Only the first sight of a key takes a striped one,
//! so that two cores cannot give the same key two slots. (Two processes can, for the while that both
//! serve. The slot that is found first is the one then; what was taken from the other in between,
//! of a bucket that was full, is forgotten.)
//!
//! Rejected: a concurrent hash map with eviction. It allocates an entry a key, and its eviction
//! policy would hand out full buckets under exactly the load that limits exist for.

mod layout;
mod memory;
mod single;

use std::hash::Hasher;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use limiter_common::key::mix;

use super::time::Now;
use layout::Layout;
pub use single::Single;

const SLOTS: usize = 4;
const STRIPES: usize = 64;
/// How often a slot that is changing hands is looked at before whoever did that is taken for dead: a
/// process may be killed between the two steps. Long enough for one that only waits for its turn.
const PATIENCE: u32 = 1 << 16;
/// The key of a slot that is changing hands. 0 is the key of one that was never used; hashes are
/// neither.
const IN_TRANSITION: u64 = 1;
/// Set in keys whose word is an instant of the wall clock.
const WALL: u64 = 1;

/// One word of state that cores share.
#[derive(Debug, Default)]
pub struct Word(AtomicU64);

impl Word {
    /// A word of this state.
    #[must_use]
    pub const fn of(state: u64) -> Self {
        Self(AtomicU64::new(state))
    }

    /// The state now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn store(&self, state: u64) {
        self.0.store(state, Ordering::SeqCst);
    }

    fn set(&self, seen: u64, next: u64) -> bool {
        self.0
            .compare_exchange(seen, next, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

#[derive(Debug, Default)]
struct Slot {
    key: AtomicU64,
    word: Word,
}

impl Slot {
    fn owner(&self) -> u64 {
        self.key.load(Ordering::SeqCst)
    }

    /// The owner, when the slot is not changing hands. A transition is two steps of another core,
    /// in which it waits for nobody.
    fn settled_owner(&self) -> u64 {
        for _ in 0..PATIENCE {
            match self.owner() {
                IN_TRANSITION => thread::yield_now(),
                owner => return owner,
            }
        }
        IN_TRANSITION
    }

    /// Frees a slot that changes hands for ever; its word is due.
    fn abandoned(&self) {
        let freed = self
            .key
            .compare_exchange(IN_TRANSITION, 0, Ordering::SeqCst, Ordering::SeqCst);
        // Who gives it an owner after all has it.
        let _owner = freed;
    }

    /// Makes `key` the owner of a slot that nobody else looks at.
    fn give(&self, key: BucketKey, state: u64) {
        self.word.store(state);
        self.key.store(key.0, Ordering::SeqCst);
    }
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([Slot; SLOTS]);

impl Set {
    /// Slots whose word means something.
    fn live(&self, now: Now) -> usize {
        let due = |slot: &&Slot| is_due(slot.owner(), slot.word.get(), now);
        SLOTS - self.0.iter().filter(due).count()
    }
}

/// The table.
#[derive(Debug)]
pub struct BucketTable {
    layout: Layout,
    stripes: [Mutex<()>; STRIPES],
    in_use: single::InUse,
    refused: AtomicU64,
}

/// Which clock a word is an instant of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeline {
    Mono,
    Wall,
}

/// Identity of a word: a hash of the limit and of the values it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketKey(u64);

impl BucketKey {
    fn new(hash: u64, timeline: Timeline) -> Self {
        let even = (hash & !WALL).max(IN_TRANSITION + 1);
        Self(match timeline {
            Timeline::Mono => even,
            Timeline::Wall => even | WALL,
        })
    }

    /// The key of another word of the same limit and values.
    #[must_use]
    pub const fn sibling(self) -> Self {
        let even = mix(self.0) & !WALL;
        let even = if even == 0 { IN_TRANSITION + 1 } else { even };
        Self(even | self.0 & WALL)
    }

    /// A number below `count`, which is not 0, that depends on the key.
    #[must_use]
    pub const fn spread(self, count: usize) -> usize {
        index(self.0 >> 8) % count
    }
}

/// Where the word of a key is.
#[derive(Clone, Copy, Debug)]
pub enum Bucket<'a> {
    /// The caller's.
    Shared(&'a Word),
    /// A slot of the key's own.
    Own {
        table: &'a BucketTable,
        key: BucketKey,
    },
}

/// What is to be done to a word that was looked at, and what that comes to.
#[derive(Clone, Copy, Debug)]
pub enum Change<T> {
    Write(u64, T),
    Leave(T),
}

impl BucketTable {
    /// A table of at least `capacity` slots, which ends with the process.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self::of(Layout::private(Layout::sets(capacity)))
    }

    /// A table of at least `capacity` slots in a file of memory ([`BucketTable::as_file`]).
    ///
    /// # Errors
    /// When there can be no such file.
    pub fn kept(capacity: usize) -> io::Result<Self> {
        Ok(Self::of(Layout::file(Layout::sets(capacity), None)?))
    }

    /// The table that another process kept in `file`: that very one if it has the wanted size. Else
    /// one of that size with the same words, and how many found no room in it.
    ///
    /// # Errors
    /// When `file` is none of this version's, or there can be no other one.
    pub fn adopt(file: OwnedFd, capacity: usize, now: Now) -> io::Result<(Self, usize)> {
        let found = Layout::of(file)?;
        let sets = Layout::sets(capacity);
        if found.sets.len() == sets {
            return Ok((Self::of(found), 0));
        }
        let table = Self::of(Layout::file(sets, Some(found.secret))?);
        let mut lost = table.carry_singles(&found.singles);
        for slot in found.sets.iter().flat_map(|set| &set.0) {
            let (key, state) = (BucketKey(slot.owner()), slot.word.get());
            if key.0 <= IN_TRANSITION || is_due(key.0, state, now) {
                continue;
            }
            // At the beginning of time only what was never used is free.
            let place = table.claim(key, Now::default()).then(|| table.find(key));
            match place.flatten() {
                Some(slot) => slot.word.store(state),
                None => lost += 1,
            }
        }
        Ok((table, lost))
    }

    fn of(layout: Layout) -> Self {
        Self {
            layout,
            stripes: [const { Mutex::new(()) }; STRIPES],
            in_use: single::InUse::default(),
            refused: AtomicU64::new(0),
        }
    }

    /// The file that it is in; `None`: it ends with the process.
    #[must_use]
    pub fn as_file(&self) -> Option<BorrowedFd<'_>> {
        self.layout.memory().as_file()
    }

    /// Slots in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.layout.sets.len() * SLOTS
    }

    /// Slots whose word means something at `now`. Walks the table: for metrics, not for decisions.
    #[must_use]
    pub fn live(&self, now: Now) -> usize {
        self.layout.sets.iter().map(|set| set.live(now)).sum()
    }

    /// How often a key found both its sets full of live words.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// A hasher for an identity; [`BucketTable::key`] ends it.
    #[must_use]
    pub fn hasher(&self) -> impl Hasher + use<> {
        self.layout.secret.hasher()
    }

    /// The key that `hasher` has come to.
    #[must_use]
    pub fn key(&self, hasher: &impl Hasher, timeline: Timeline) -> BucketKey {
        BucketKey::new(hasher.finish(), timeline)
    }

    /// The slot of `key`, made if it is not there; `spare` where there is no room.
    pub fn bucket<'a>(&'a self, key: BucketKey, now: Now, spare: &'a Word) -> Bucket<'a> {
        if self.find(key).is_some() || self.claim(key, now) {
            return Bucket::Own { table: self, key };
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Bucket::Shared(spare)
    }

    /// Where [`BucketTable::bucket`] would find the word, without making it a slot.
    #[must_use]
    pub fn existing<'a>(&'a self, key: BucketKey, now: Now, spare: &'a Word) -> Bucket<'a> {
        let has_or_gets_one = self.candidates(key).any(|slot| {
            let owner = slot.owner();
            owner == key.0 || is_due(owner, slot.word.get(), now)
        });
        if has_or_gets_one {
            Bucket::Own { table: self, key }
        } else {
            Bucket::Shared(spare)
        }
    }

    /// The two sets that the word of `key` may be in.
    fn homes(&self, key: BucketKey) -> [&Set; 2] {
        let mask = self.layout.sets.len() - 1;
        let hash = key.0 >> 1;
        let [first, second] = [index(hash) & mask, index(hash.rotate_right(32)) & mask];
        let second = if second == first { first ^ 1 } else { second };
        [&self.layout.sets[first], &self.layout.sets[second]]
    }

    fn candidates(&self, key: BucketKey) -> impl Iterator<Item = &Slot> {
        let [first, second] = self.homes(key);
        first.0.iter().chain(&second.0)
    }

    fn find(&self, key: BucketKey) -> Option<&Slot> {
        self.candidates(key).find(|slot| slot.owner() == key.0)
    }

    /// Makes `key` the owner of a slot that is free or due. `false` if there is none.
    ///
    /// A due slot passes through `IN_TRANSITION`, and its word is set to zero: whoever changed it in
    /// the meantime is seen here, or sees that the key has changed (see [`Bucket::change`]); so no
    /// charge is lost.
    fn claim(&self, key: BucketKey, now: Now) -> bool {
        let stripe = &self.stripes[index(key.0 >> 16) % STRIPES];
        let _guard = stripe.lock().unwrap_or_else(PoisonError::into_inner);
        let mut looks = 0;
        loop {
            // A slot in transition may come back to be the key's: another core took it for due and
            // sees now that it is not.
            let mut in_transition = false;
            for slot in self.candidates(key) {
                match slot.owner() {
                    owner if owner == key.0 => return true,
                    owner => in_transition |= owner == IN_TRANSITION,
                }
            }
            if !in_transition {
                break;
            }
            looks += 1;
            if looks < PATIENCE {
                thread::yield_now();
            } else {
                self.candidates(key).for_each(Slot::abandoned);
            }
        }
        // Into the emptier set: so the table fills evenly.
        let mut homes = self.homes(key);
        if homes[1].live(now) < homes[0].live(now) {
            homes.reverse();
        }
        homes.iter().flat_map(|set| &set.0).any(|slot| {
            let owner = slot.owner();
            let word = slot.word.get();
            if owner == IN_TRANSITION || !is_due(owner, word, now) {
                return false;
            }
            let swapped =
                slot.key
                    .compare_exchange(owner, IN_TRANSITION, Ordering::SeqCst, Ordering::SeqCst);
            if swapped.is_err() {
                return false;
            }
            let free = slot.word.set(word, 0);
            slot.key
                .store(if free { key.0 } else { owner }, Ordering::SeqCst);
            free
        })
    }
}

/// Whether the word of a slot with this key has come to nothing.
const fn is_due(key: u64, word: u64, now: Now) -> bool {
    word <= if key & WALL == 0 { now.mono } else { now.unix }
}

/// The low bits of a hash as an index.
#[expect(clippy::cast_possible_truncation, reason = "only low bits are wanted")]
const fn index(hash: u64) -> usize {
    hash as usize
}

impl Bucket<'_> {
    /// The state; zero for a key without a slot.
    #[must_use]
    pub fn get(&self) -> u64 {
        match self {
            Self::Shared(word) => word.get(),
            Self::Own { table, key } => table.find(*key).map_or(0, |slot| slot.word.get()),
        }
    }

    /// Does what `step` says of the state, and says so again for the state found instead if another
    /// core was faster. `None`: the slot was due and was taken over since, and there is no room any
    /// more; nothing was written then.
    pub fn change<T>(&self, now: Now, mut step: impl FnMut(u64) -> Change<T>) -> Option<T> {
        match self {
            Self::Shared(word) => loop {
                let seen = word.get();
                match step(seen) {
                    Change::Leave(result) => break Some(result),
                    Change::Write(next, result) if word.set(seen, next) => break Some(result),
                    Change::Write(..) => {}
                }
            },
            Self::Own { table, key } => loop {
                let Some(slot) = table.find(*key) else {
                    if table.claim(*key, now) {
                        continue;
                    }
                    break None;
                };
                let seen = slot.word.get();
                let (written, result) = match step(seen) {
                    Change::Leave(result) => (seen, result),
                    Change::Write(next, result) if slot.word.set(seen, next) => (next, result),
                    Change::Write(..) => continue,
                };
                if slot.settled_owner() == key.0 {
                    break Some(result);
                }
                // The slot changed hands in between. What was written is taken back, or if the new
                // owner has built on it already, stays with him, who has that much less.
                slot.word.set(written, seen);
            },
        }
    }

    /// Does what `step` says of a state that is there; nothing for a key without a slot.
    pub fn amend(&self, mut step: impl FnMut(u64) -> u64) {
        loop {
            let (word, slot) = match self {
                Self::Shared(word) => (*word, None),
                Self::Own { table, key } => match table.find(*key) {
                    Some(slot) => (&slot.word, Some((slot, key))),
                    None => return,
                },
            };
            let seen = word.get();
            let next = step(seen);
            if next == seen {
                return;
            }
            if !word.set(seen, next) {
                continue;
            }
            match slot {
                Some((slot, key)) if slot.settled_owner() != key.0 => {
                    word.set(next, seen);
                }
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests;
