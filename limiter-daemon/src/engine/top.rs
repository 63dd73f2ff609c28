//! Who is counted most, in bounded memory.
//!
//! The algorithm of Misra and Gries (1982), a batch at a time: counts are exact until there are twice
//! as many keys as are to be kept; then the count of the key in the middle is taken from all, and
//! those that come to nothing are forgotten. A count is never too high, and too low by at most
//! [`Top::missing`], for known keys and unknown ones alike: nobody who was counted more often than
//! that is left out.
//!
//! Rejected: Space-Saving, whose counts are too high: "was limited 900 times" is to be true.

use std::collections::HashMap;
use std::hash::Hash;

/// Counts of keys.
#[derive(Debug)]
pub struct Top<K> {
    keep: usize,
    counts: HashMap<K, Seen>,
    missing: u64,
    /// Room to find the count in the middle.
    scratch: Vec<u64>,
}

/// How often a key was counted, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// At least.
    pub count: u64,
    /// Nanoseconds since 1970: since the key has been known.
    pub first: u64,
    pub last: u64,
}

impl<K: Hash + Eq + Ord + Clone> Top<K> {
    /// Keeps at least `keep` keys, and at most twice as many.
    #[must_use]
    pub fn new(keep: usize) -> Self {
        Self {
            keep,
            counts: HashMap::new(),
            missing: 0,
            scratch: Vec::new(),
        }
    }

    /// Counts `key` at the instant `at`.
    pub fn add(&mut self, key: K, at: u64) {
        let seen = self.counts.entry(key).or_insert(Seen {
            count: 0,
            first: at,
            last: at,
        });
        seen.count += 1;
        seen.last = at;
        if self.counts.len() > 2 * self.keep {
            self.forget();
        }
    }

    fn forget(&mut self) {
        let counts = &mut self.scratch;
        counts.clear();
        counts.extend(self.counts.values().map(|seen| seen.count));
        let (_, &mut middle, _) = counts.select_nth_unstable_by(self.keep, |a, b| b.cmp(a));
        self.missing += middle;
        self.counts.retain(|_, seen| {
            seen.count = seen.count.saturating_sub(middle);
            seen.count > 0
        });
    }

    /// Forgets all keys, and keeps the room that they had.
    pub fn clear(&mut self) {
        self.counts.clear();
        self.missing = 0;
    }

    /// Every key that is known, in no order.
    pub fn all(&self) -> impl Iterator<Item = (&K, &Seen)> {
        self.counts.iter()
    }

    /// By how much a count may be too low.
    #[must_use]
    pub const fn missing(&self) -> u64 {
        self.missing
    }

    /// Keys that are known; of no more than are kept, all there were.
    #[must_use]
    pub fn known(&self) -> usize {
        self.counts.len()
    }

    /// The keys that were counted most, the first first.
    #[must_use]
    pub fn most(&self, number: usize) -> Vec<(K, Seen)> {
        let mut all: Vec<(&K, Seen)> = self.counts.iter().map(|(key, seen)| (key, *seen)).collect();
        all.sort_by(|(a, one), (b, other)| other.count.cmp(&one.count).then_with(|| a.cmp(b)));
        all.truncate(number);
        all.into_iter()
            .map(|(key, seen)| (key.clone(), seen))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_counted_exactly() {
        let mut top = Top::new(4);
        for (at, key) in "abracadabra".chars().enumerate() {
            top.add(key, at as u64);
        }
        assert_eq!((top.missing(), top.known()), (0, 5));
        let most = top.most(2);
        let seen = |count, first, last| Seen { count, first, last };
        assert_eq!(most, [('a', seen(5, 0, 10)), ('b', seen(2, 1, 8))]);
    }

    /// A plain count beside it, over keys of very different frequency.
    #[test]
    fn what_is_missing_is_bounded_and_said() {
        let mut top = Top::new(50);
        let mut exact: HashMap<u64, u64> = HashMap::new();
        let mut random = 1_u64;
        for at in 0..200_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let spread = (random >> 33) % 10_000 + 1;
            let key = 1_000_000 / (spread * spread);
            let key = if key == 0 { random >> 40 } else { key };
            top.add(key, at);
            *exact.entry(key).or_default() += 1;
            assert!(top.known() <= 100);
        }
        assert!(top.missing() > 0, "or nothing is tested");
        let most = top.most(100);
        for (key, seen) in &most {
            let exact = exact[key];
            assert!(seen.count <= exact && exact <= seen.count + top.missing());
        }
        for (key, count) in &exact {
            let told = most.iter().any(|(told, _)| told == key);
            assert!(told || *count <= top.missing(), "{key}: {count}");
        }
    }
}
